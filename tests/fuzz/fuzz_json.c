/* JSON, read and written. What is accepted is written, read again and written
 * the same; the mock's reader, which shares no code, accepts the same documents
 * and sees the same values; numbers are those of strtod; the reader that skips
 * agrees with the one that builds a tree. */
#include "fuzz.h"

/* The mock's numbers are its own affair; strtod, in the C locale, is asked. */
static void fuzz_json_number(const gptner_json_value *v)
{
    gptner_str text;
    double got = 0, want;
    char *copy;
    gptner_json_get_number(v, &text);
    copy = (char *)calloc(1, text.len + 1);
    if (copy == NULL) {
        return;
    }
    memcpy(copy, text.ptr, text.len);
    want = strtod(copy, NULL);
    if (gptner_json_get_double(v, &got)) {
        FUZZ_CHECK(memcmp(&got, &want, sizeof(got)) == 0);
    } else {
        FUZZ_CHECK(want - want != 0.0); /* infinite */
    }
    free(copy);
}

static void fuzz_json_equal(const gptner_json_value *a, const mki_json *b)
{
    gptner_json_iter it = gptner_json_iterate(a);
    gptner_str text = {NULL, 0};
    const mki_json *child = b->child;
    bool truth;
    switch (gptner_json_type_of(a)) {
    case GPTNER_JSON_OBJECT:
        FUZZ_CHECK(b->type == MKI_OBJECT);
        break;
    case GPTNER_JSON_ARRAY:
        FUZZ_CHECK(b->type == MKI_ARRAY);
        break;
    case GPTNER_JSON_STRING:
        FUZZ_CHECK(b->type == MKI_STRING && gptner_json_get_str(a, &text));
        FUZZ_CHECK(
            text.len == b->text.len &&
            (text.len == 0 || memcmp(text.ptr, b->text.ptr, text.len) == 0));
        break;
    case GPTNER_JSON_NUMBER:
        FUZZ_CHECK(b->type == MKI_INT || b->type == MKI_NUMBER);
        fuzz_json_number(a);
        break;
    case GPTNER_JSON_BOOL:
        gptner_json_get_bool(a, &truth);
        FUZZ_CHECK(mki_eq(b->text, truth ? "true" : "false"));
        break;
    default:
        FUZZ_CHECK(mki_eq(b->text, "null"));
        break;
    }
    while (gptner_json_iter_next(&it)) {
        FUZZ_CHECK(child != NULL);
        if (it.is_object) {
            FUZZ_CHECK(it.key.len == child->key.len &&
                       (it.key.len == 0 ||
                        memcmp(it.key.ptr, child->key.ptr, it.key.len) == 0));
        }
        fuzz_json_equal(it.value, child);
        child = child->next;
    }
    FUZZ_CHECK(child == NULL);
}

/* As gptner_json_writer_finish(), into memory of its own. */
static char *fuzz_json_write(const gptner_json_value *v, size_t *len)
{
    gptner_json_writer *w = NULL;
    gptner_str text;
    char *copy;
    FUZZ_CHECK(gptner_json_writer_new(NULL, &w) == GPTNER_OK);
    gptner_json_write_value(w, v);
    FUZZ_CHECK(gptner_json_writer_finish(w, &text) == GPTNER_OK);
    copy = fuzz_copy(text.ptr, text.len);
    *len = text.len;
    gptner_json_writer_free(w);
    return copy;
}

static void fuzz_json_round(const gptner_json_value *root)
{
    gptner_json_doc *doc = NULL;
    size_t n, m;
    char *once = fuzz_json_write(root, &n);
    char *twice;
    FUZZ_CHECK(gptner_json_parse(once, n, NULL, &doc, NULL) == GPTNER_OK);
    twice = fuzz_json_write(gptner_json_root(doc), &m);
    FUZZ_CHECK(n == m && memcmp(once, twice, n) == 0);
    gptner_json_doc_free(doc);
    free(once);
    free(twice);
}

/* The deepest nesting of brackets outside of strings. */
static size_t fuzz_json_depth(const uint8_t *data, size_t size)
{
    size_t depth = 0, most = 0, i;
    bool inside = false;
    for (i = 0; i < size; i++) {
        if (inside && data[i] == '\\') {
            i++;
        } else if (data[i] == '"') {
            inside = !inside;
        } else if (!inside && (data[i] == '[' || data[i] == '{')) {
            depth++;
            most = depth > most ? depth : most;
        } else if (!inside && (data[i] == ']' || data[i] == '}')) {
            depth -= depth > 0 ? 1 : 0;
        }
    }
    return most;
}

/* Any binary64 is written so that it is read as the same. */
static void fuzz_json_double(const uint8_t *data, size_t size)
{
    gptner_json_writer *w = NULL;
    gptner_str text;
    double number, back;
    char copy[64];
    if (size < sizeof(number)) {
        return;
    }
    memcpy(&number, data, sizeof(number));
    if (number - number != 0.0) {
        return;
    }
    FUZZ_CHECK(gptner_json_writer_new(NULL, &w) == GPTNER_OK);
    gptner_json_write_double(w, number);
    FUZZ_CHECK(gptner_json_writer_finish(w, &text) == GPTNER_OK);
    FUZZ_CHECK(text.len < sizeof(copy));
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    back = strtod(copy, NULL);
    FUZZ_CHECK(memcmp(&back, &number, sizeof(back)) == 0);
    gptner_json_writer_free(w);
}

static void fuzz_json(const uint8_t *data, size_t size)
{
    gptner_json_doc *doc = NULL;
    gptner_json_error why, skipped;
    gptner_json_reader r;
    mki_arena arena = MKI_ZERO;
    bool ok = gptner_json_parse((const char *)data, size, NULL, &doc, &why) ==
              GPTNER_OK;
    mki_json *other;
    gptner_json_reader_init(&r, (const char *)data, size, NULL);
    FUZZ_CHECK((gptner_json_reader_finish(&r, &skipped) == GPTNER_OK) == ok);
    fuzz_json_double(data, size);
    FUZZ_CHECK(ok || (why.offset <= size && why.offset == skipped.offset));
    FUZZ_CHECK(ok || why.message[0] != '\0');
    fuzz_skip_mark(&data, &size);
    other = mki_json_parse(&arena, mki_s((const char *)data, size));
    if (ok) {
        FUZZ_CHECK(other != NULL ||
                   fuzz_json_depth(data, size) >= MKI_JSON_DEPTH);
        fuzz_json_round(gptner_json_root(doc));
    } else {
        FUZZ_CHECK(other == NULL || fuzz_json_depth(data, size) >= 512);
    }
    if (ok && other != NULL) {
        fuzz_json_equal(gptner_json_root(doc), other);
    }
    gptner_json_doc_free(doc);
    mki_arena_reset(&arena, true);
}

#define FUZZ_ONE fuzz_json
#include "fuzz_main.h"
