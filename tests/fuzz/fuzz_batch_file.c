/* The check of a batch's input, against the mock's, which shares no code: a
 * file is good to both or to neither, and then has as many requests. */
#include "fuzz.h"

#include <unistd.h>

static void fuzz_batch_file_path(char *out, size_t cap)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(out, cap, "%s/gptner-fuzz-%d.jsonl",
             tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp", (int)getpid());
}

/* The mock's verdict. */
static bool fuzz_batch_file_mock(const uint8_t *data, size_t size,
                                 const char *endpoint, int64_t *total)
{
    mki_vet v;
    size_t at = 0;
    bool good;
    memset(&v, 0, sizeof(v));
    v.endpoint = endpoint;
    while (at < size) {
        const char *line = (const char *)data + at;
        const char *lf = (const char *)memchr(line, '\n', size - at);
        size_t len = lf != NULL ? (size_t)(lf - line) + 1 : size - at;
        char *copy = fuzz_copy(line, len);
        mki_vet_line(&v, mki_s(copy, len));
        free(copy);
        at += len;
    }
    mki_vet_end(&v);
    good = v.n_errors == 0;
    *total = v.total;
    mki_vet_free(&v);
    return good;
}

static void fuzz_batch_file_report(const gptner_batch_report *r, size_t size)
{
    size_t i;
    FUZZ_CHECK(r->bytes == (int64_t)size);
    FUZZ_CHECK(r->count <= 100 && r->found >= (int64_t)r->count);
    for (i = 0; i < r->count; i++) {
        FUZZ_CHECK(r->items[i].code.len > 0 && r->items[i].message.len > 0);
        FUZZ_CHECK(r->items[i].line >= 0 &&
                   r->items[i].line <= (int64_t)size + 1);
    }
}

static void fuzz_batch_file(const uint8_t *data, size_t size)
{
    static const char endpoint[] = "/v1/chat/completions";
    char path[512];
    gptner_batch_report *r = NULL;
    gptner_error err;
    gptner_status status;
    int64_t total = 0;
    FILE *f;
    fuzz_batch_file_path(path, sizeof(path));
    f = fopen(path, "wb");
    FUZZ_CHECK(f != NULL);
    if (size > 0) {
        fwrite(data, 1, size, f);
    }
    FUZZ_CHECK(fclose(f) == 0);
    status = gptner_batch_validate_file(path, endpoint, NULL, &r, &err);
    unlink(path);
    FUZZ_CHECK(status == GPTNER_OK || status == GPTNER_ERR_BATCH_INVALID);
    FUZZ_CHECK(r != NULL && (r->found == 0) == (status == GPTNER_OK));
    fuzz_batch_file_report(r, size);
    FUZZ_CHECK(fuzz_batch_file_mock(data, size, endpoint, &total) ==
               (status == GPTNER_OK));
    if (status == GPTNER_OK) {
        FUZZ_CHECK(r->requests == total);
    }
    gptner_batch_report_free(r);
}

#define FUZZ_ONE fuzz_batch_file
#include "fuzz_main.h"
