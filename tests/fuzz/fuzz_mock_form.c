/* The mock's forms: the same however they are cut. The first line is the
 * content type. */
#include "fuzz.h"

static bool fuzz_mock_form_sink(void *ctx, const char *data, size_t len)
{
    gpn_buf_add((gpn_buf *)ctx, data, len);
    return true;
}

static void fuzz_mock_form_note(const uint8_t *data, size_t size, int mode,
                                gpn_buf *b)
{
    uint64_t state = fuzz_seed(data, size) + (uint64_t)mode;
    const uint8_t *lf =
        size > 0 ? (const uint8_t *)memchr(data, '\n', size) : NULL;
    size_t at = lf != NULL ? (size_t)(lf - data) + 1 : size;
    mki_form *form = (mki_form *)calloc(1, sizeof(*form));
    gpn_buf file;
    mki_form_state end = MKI_FORM_BAD;
    FUZZ_CHECK(form != NULL);
    gpn_buf_init(&file, b->env, SIZE_MAX);
    if (lf != NULL && mki_form_init(form, mki_s((const char *)data, at - 1))) {
        form->sink = fuzz_mock_form_sink;
        form->ctx = &file;
        end = form->state;
        while (at < size && end < MKI_FORM_END) {
            size_t n = fuzz_piece(mode, size - at, &state);
            char *piece = fuzz_copy(data + at, n);
            end = mki_form_feed(form, piece, n);
            at += n;
            free(piece);
        }
    }
    FUZZ_CHECK(file.len <= size);
    fuzz_note_int(b, "state", (int64_t)end);
    if (end == MKI_FORM_END) {
        fuzz_note(b, "file", gpn_str(file.data, file.len));
        fuzz_note(b, "filename", gptner_str_from(form->filename));
        fuzz_note(b, "purpose", gptner_str_from(form->purpose));
        fuzz_note(b, "anchor", gptner_str_from(form->anchor));
        fuzz_note(b, "seconds", gptner_str_from(form->seconds));
        fuzz_note_int(b, "has", form->has_file + 2 * form->has_purpose);
    }
    mki_form_free(form);
    free(form);
    gpn_buf_deinit(&file);
}

static void fuzz_mock_form(const uint8_t *data, size_t size)
{
    fuzz_split(data, size, fuzz_mock_form_note);
}

#define FUZZ_ONE fuzz_mock_form
#include "fuzz_main.h"
