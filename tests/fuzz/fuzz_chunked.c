/* A body in chunks: what the client and the mock, which share no code, both
 * accept is the same body; and what the client accepts is whole. */
#include "fuzz.h"

/* true: the client takes it for a whole body, which is added to body. */
static bool fuzz_chunked_client(const uint8_t *data, size_t size, gpn_buf *body,
                                size_t *used_of_it)
{
    static const char head[] = "HTTP/1.1 200 OK\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    gpn_http http;
    gpn_http_limits limits;
    gptner_error err;
    gpn_http_event event;
    char *text = (char *)malloc(sizeof(head) + size);
    size_t len = sizeof(head) - 1 + size, at = 0;
    FUZZ_CHECK(text != NULL);
    memset(&limits, 0, sizeof(limits));
    memcpy(text, head, sizeof(head) - 1);
    if (size > 0) {
        memcpy(text + sizeof(head) - 1, data, size);
    }
    gpn_http_init(&http, body->env);
    gpn_http_reset(&http, false, false, &limits);
    do {
        gptner_str piece;
        size_t used = 0;
        event = gpn_http_next(&http, text + at, len - at, &used, &piece, &err);
        at += used;
        if (event == GPN_HTTP_BODY) {
            gpn_buf_add_str(body, piece);
        }
    } while (event < GPN_HTTP_DONE && event != GPN_HTTP_MORE);
    *used_of_it = at - (sizeof(head) - 1);
    gpn_http_deinit(&http);
    free(text);
    return event == GPN_HTTP_DONE;
}

static bool fuzz_chunked_mock(const uint8_t *data, size_t size, mki_buf *b,
                              mki_request *q)
{
    mki_incoming in;
    size_t used = 0;
    memset(&in, 0, sizeof(in));
    mki_buf_s(b, "POST / HTTP/1.1\r\nHost: x\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n");
    mki_buf_add(b, (const char *)data, size);
    return mki_incoming_next(&in, b, 1 << 20, q, &used) == 1;
}

static void fuzz_chunked(const uint8_t *data, size_t size)
{
    gpn_env env;
    gpn_buf body;
    mki_buf in = MKI_ZERO;
    mki_request *q = (mki_request *)calloc(1, sizeof(*q));
    size_t used = 0;
    bool ours, theirs;
    FUZZ_CHECK(q != NULL);
    fuzz_env(&env);
    gpn_buf_init(&body, &env, SIZE_MAX);
    ours = fuzz_chunked_client(data, size, &body, &used);
    theirs = fuzz_chunked_mock(data, size, &in, q);
    if (ours) {
        FUZZ_CHECK(used <= size && used >= 3 && body.len + 3 <= used);
        FUZZ_CHECK(data[used - 1] == '\n');
    }
    if (ours && theirs) {
        FUZZ_CHECK(body.len == q->body.len);
        FUZZ_CHECK(body.len == 0 ||
                   memcmp(body.data, q->body.ptr, body.len) == 0);
    }
    free(q);
    mki_buf_free(&in);
    gpn_buf_deinit(&body);
}

#define FUZZ_ONE fuzz_chunked
#include "fuzz_main.h"
