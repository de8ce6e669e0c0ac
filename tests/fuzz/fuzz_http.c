/* A response of HTTP/1.1: the same however it is cut, and never more body than
 * bytes. The first byte chooses what was asked and how the connection ends. */
#include "fuzz.h"

static void fuzz_http_fields(const gpn_http *http, gpn_buf *b)
{
    size_t i;
    for (i = 0; i < http->n_headers + http->n_trailers; i++) {
        gptner_str name = gpn_http_name(http, i);
        gptner_str value = gpn_http_value(http, i);
        FUZZ_CHECK(name.len > 0);
        FUZZ_CHECK(value.len == 0 ||
                   memchr(value.ptr, '\n', value.len) == NULL);
        fuzz_note(b, "name", name);
        fuzz_note(b, "value", value);
    }
}

static gpn_http_event fuzz_http_feed(gpn_http *http, const char *data,
                                     size_t len, size_t *at, gpn_buf *body,
                                     gpn_buf *b, gptner_error *err)
{
    gpn_http_event event;
    do {
        gptner_str piece;
        size_t used = 0;
        event = gpn_http_next(http, data, len, &used, &piece, err);
        FUZZ_CHECK(used <= len);
        if (event == GPN_HTTP_BODY) {
            FUZZ_CHECK(piece.len > 0 && piece.ptr >= data &&
                       piece.ptr + piece.len <= data + used);
            gpn_buf_add_str(body, piece);
        } else if (event == GPN_HTTP_MORE) {
            FUZZ_CHECK(used == len);
        } else if (event != GPN_HTTP_FAILED) {
            fuzz_note_int(b, "event", (int64_t)event);
        }
        data += used;
        len -= used;
        *at += used;
    } while (event != GPN_HTTP_MORE && event < GPN_HTTP_DONE);
    return event;
}

static void fuzz_http_note(const uint8_t *data, size_t size, int mode,
                           gpn_buf *b)
{
    uint64_t state = fuzz_seed(data, size) + (uint64_t)mode;
    unsigned how = data[0];
    gpn_http http;
    gpn_http_limits limits;
    gptner_error err;
    gpn_buf body;
    size_t at = 1;
    gpn_http_event event = GPN_HTTP_MORE;
    memset(&limits, 0, sizeof(limits));
    memset(&err, 0, sizeof(err));
    limits.max_head = 1024;
    limits.max_headers = 16;
    limits.max_trailer = 256;
    limits.max_chunk_overhead = 256;
    limits.max_body = (how & 8) != 0 ? 100 : 0;
    gpn_buf_init(&body, b->env, SIZE_MAX);
    gpn_http_init(&http, b->env);
    gpn_http_reset(&http, (how & 3) == 1, (how & 3) == 2, &limits);
    while (event < GPN_HTTP_DONE && at < size) {
        size_t n = fuzz_piece(mode, size - at, &state);
        char *piece = fuzz_copy(data + at, n);
        event = fuzz_http_feed(&http, piece, n, &at, &body, b, &err);
        free(piece);
    }
    if (event < GPN_HTTP_DONE) {
        event = gpn_http_eof(&http, (how & 4) == 0, &err);
    }
    FUZZ_CHECK(event == GPN_HTTP_DONE || event == GPN_HTTP_FAILED);
    FUZZ_CHECK((int64_t)body.len <= http.body_bytes && body.len < size);
    fuzz_note(b, "body", gpn_str(body.data, body.len));
    fuzz_note_int(b, "status", http.status);
    if (event == GPN_HTTP_DONE) {
        fuzz_note_int(b, "framing", (int64_t)http.framing);
        fuzz_note_int(b, "reusable", http.reusable);
        fuzz_note_int(b, "used", (int64_t)at);
        fuzz_http_fields(&http, b);
    } else {
        FUZZ_CHECK(err.status != GPTNER_OK && err.message[0] != '\0');
        /* Of two faults, the one that is seen first is told. */
        fuzz_note(b, "failed", gptner_str_from(""));
    }
    gpn_http_deinit(&http);
    gpn_buf_deinit(&body);
}

static void fuzz_http(const uint8_t *data, size_t size)
{
    if (size > 0) {
        fuzz_split(data, size, fuzz_http_note);
    }
}

#define FUZZ_ONE fuzz_http
#include "fuzz_main.h"
