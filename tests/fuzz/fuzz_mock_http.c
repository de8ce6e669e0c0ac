/* The mock's requests: the same however they are cut, pipelined ones too. */
#include "fuzz.h"

static bool fuzz_mock_http_sink(void *ctx, const char *data, size_t len)
{
    gpn_buf_add((gpn_buf *)ctx, data, len);
    return true;
}

static void fuzz_mock_http_request(const mki_request *q, gpn_buf *b)
{
    size_t i;
    fuzz_note(b, "method", gpn_str(q->method.ptr, q->method.len));
    fuzz_note(b, "path", gpn_str(q->path.ptr, q->path.len));
    fuzz_note(b, "query", gpn_str(q->query.ptr, q->query.len));
    fuzz_note(b, "body", gpn_str(q->body.ptr, q->body.len));
    for (i = 0; i < q->n; i++) {
        fuzz_note(b, "name",
                  gpn_str(q->fields[i].name.ptr, q->fields[i].name.len));
        fuzz_note(b, "value",
                  gpn_str(q->fields[i].value.ptr, q->fields[i].value.len));
    }
}

/* All requests that are complete; false: one was refused. */
static bool fuzz_mock_http_take(mki_incoming *in, mki_buf *buf, mki_request *q,
                                gpn_buf *upload, gpn_buf *b)
{
    while (buf->len > 0) {
        size_t used = 0;
        int rc = mki_incoming_next(in, buf, 4096, q, &used);
        if (rc == 0 && in->upload) {
            rc = mki_incoming_stream(in, buf, fuzz_mock_http_sink, upload);
            mki_request_head(q, mki_s(buf->data, in->head_len));
            used = in->head_len;
        }
        if (rc == 0) {
            return true;
        }
        if (rc < 0) {
            FUZZ_CHECK(in->refuse >= 400);
            fuzz_note(b, "refused", gptner_str_from(""));
            return false;
        }
        FUZZ_CHECK(used <= buf->len);
        fuzz_mock_http_request(q, b);
        fuzz_note(b, "upload", gpn_str(upload->data, upload->len));
        gpn_buf_clear(upload);
        mki_buf_drop(buf, used);
        memset(in, 0, sizeof(*in));
    }
    return true;
}

static void fuzz_mock_http_note(const uint8_t *data, size_t size, int mode,
                                gpn_buf *b)
{
    uint64_t state = fuzz_seed(data, size) + (uint64_t)mode;
    mki_buf buf = MKI_ZERO;
    gpn_buf upload;
    mki_incoming in;
    mki_request *q = (mki_request *)calloc(1, sizeof(*q));
    size_t at = 0;
    bool good = true;
    FUZZ_CHECK(q != NULL);
    memset(&in, 0, sizeof(in));
    gpn_buf_init(&upload, b->env, SIZE_MAX);
    while (good && at < size) {
        size_t n = fuzz_piece(mode, size - at, &state);
        mki_buf_add(&buf, (const char *)data + at, n);
        at += n;
        good = fuzz_mock_http_take(&in, &buf, q, &upload, b);
    }
    mki_buf_free(&buf);
    gpn_buf_deinit(&upload);
    free(q);
}

static void fuzz_mock_http(const uint8_t *data, size_t size)
{
    fuzz_split(data, size, fuzz_mock_http_note);
}

#define FUZZ_ONE fuzz_mock_http
#include "fuzz_main.h"
