/* >>http: URL, request head, response, events, multipart, proxy, dates.
 *
 * The vectors in this file stand alone. Where the shared corpus is found
 * (GPTNER_CORPUS, else ../shared/corpus) its vectors run too. Every response
 * and event stream is read whole, byte by byte and cut in two at every place,
 * each piece flush against an unmapped page. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#define GPTNER_FAULT_INJECTION
#include "gptner.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>

#include "test_common.h"

static gpn_env plain_env(void)
{
    gpn_env env;
    assert_true(gpn_env_init(&env, NULL, NULL));
    return env;
}

static gpn_env counted_env(test_mem *mem)
{
    gptner_allocator allocator = test_mem_allocator(mem);
    gpn_env env;
    assert_true(gpn_env_init(&env, &allocator, NULL));
    return env;
}

/* ---- text that grows ----------------------------------------------------- */

typedef struct text {
    char *ptr;
    size_t len;
} text;

static void put(text *t, const char *data, size_t len)
{
    t->ptr = (char *)realloc(t->ptr, t->len + len + 1);
    assert_non_null(t->ptr);
    if (len > 0) {
        memcpy(t->ptr + t->len, data, len);
    }
    t->len += len;
    t->ptr[t->len] = '\0';
}

static void putf(text *t, const char *format, ...) GPN_PRINTF(2, 3);
static void putf(text *t, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    put(t, line, strlen(line));
}

static void put_str(text *t, gptner_str s)
{
    put(t, s.ptr, s.len);
}

static void assert_text(const char *name, text *got, const char *want)
{
    if (strcmp(got->ptr, want) != 0) {
        fail_msg("%s:\n got  %.900s\n want %.900s", name, got->ptr, want);
    }
}

/* ---- reading a response in pieces ---------------------------------------- */

static const gpn_http_limits no_limits;

typedef struct reading {
    const gpn_http_limits *limits;
    bool head_request, connect_request;
    bool cut_off; /* the end is not an orderly one */
    gpn_http http;
    gpn_http_event last;
    gptner_error err;
    text body;
    size_t left;
} reading;

/* Feeds raw in pieces: first bytes, then so many at a time, then the end. */
static void read_in_pieces(reading *r, test_page *page, const char *raw,
                           size_t len, size_t first, size_t then)
{
    size_t at = 0, n = first;
    r->last = GPN_HTTP_MORE;
    r->body.len = 0;
    memset(&r->err, 0, sizeof(r->err));
    put(&r->body, "", 0);
    gpn_http_reset(&r->http, r->head_request, r->connect_request, r->limits);
    while (at < len && r->last < GPN_HTTP_DONE) {
        size_t used, end;
        const char *piece;
        n = n < len - at ? n : len - at;
        end = at + n;
        piece = test_page_put(page, raw + at, n);
        do {
            gptner_str body;
            size_t offset = n - (end - at);
            r->last = gpn_http_next(&r->http, piece + offset, n - offset, &used,
                                    &body, &r->err);
            assert_true(used <= n - offset);
            at += used;
            if (r->last == GPN_HTTP_BODY) {
                assert_true(body.len > 0 && body.ptr >= piece + offset &&
                            body.ptr + body.len == piece + offset + used);
                put_str(&r->body, body);
            } else {
                assert_null(body.ptr);
            }
        } while (r->last != GPN_HTTP_MORE && r->last < GPN_HTTP_DONE);
        assert_true(r->last >= GPN_HTTP_DONE || at == end);
        n = then;
    }
    if (r->last < GPN_HTTP_DONE) {
        r->last = gpn_http_eof(&r->http, !r->cut_off, &r->err);
    }
    r->left = len - at;
    assert_int_equal(r->last == GPN_HTTP_DONE ? GPTNER_OK : r->err.status,
                     r->err.status);
}

static void put_fields(text *t, const gpn_http *h, size_t from, size_t n)
{
    size_t i;
    for (i = from; i < from + n; i++) {
        put_str(t, gpn_http_name(h, i));
        put(t, "=", 1);
        put_str(t, gpn_http_value(h, i));
        put(t, "|", 1);
    }
}

static const char *const framings[] = {"none", "length", "chunked", "close"};

/* "200 length reuse 5+0 Name=value|" or "FAILED GPTNER_ERR_..."; interim
 * codes behind '~', trailers behind '/'. */
static text summary(const reading *r)
{
    text t = {NULL, 0};
    const gpn_http *h = &r->http;
    size_t i;
    put(&t, "", 0);
    if (r->last != GPN_HTTP_DONE) {
        putf(&t, "FAILED %s", gptner_status_name(r->err.status));
        return t;
    }
    assert_int_equal(h->body_bytes, r->body.len);
    putf(&t, "%d %s %s %zu+%zu ", h->status, framings[h->framing],
         h->reusable && r->left == 0 ? "reuse" : "close", r->body.len, r->left);
    put_fields(&t, h, 0, h->n_headers);
    for (i = 0; i < h->n_interim; i++) {
        putf(&t, "~%d", (int)h->interim[i]);
    }
    if (h->n_trailers > 0) {
        put(&t, "/", 1);
        put_fields(&t, h, h->n_headers, h->n_trailers);
    }
    return t;
}

/* Reads raw every way; each must come to want (NULL: to whatever the whole
 * comes to) with the same message and body. The summary is returned. */
static text read_every_way(reading *r, const char *name, const char *raw,
                           size_t len, const char *want)
{
    gpn_env env = plain_env();
    test_page page;
    text whole, body = {NULL, 0};
    char message[sizeof(r->err.message)];
    size_t cut, step = len > 4096 ? 1009 : 1;
    test_page_init(&page, len + 1);
    gpn_http_init(&r->http, &env);
    read_in_pieces(r, &page, raw, len, len, len);
    whole = summary(r);
    if (want != NULL) {
        assert_text(name, &whole, want);
    }
    put(&body, r->body.ptr, r->body.len);
    strcpy(message, r->err.message);
    for (cut = 0; cut < len; cut += step) {
        text again;
        read_in_pieces(r, &page, raw, len, cut > 0 ? cut : 1,
                       cut > 0 ? len : 1);
        again = summary(r);
        assert_text(name, &again, whole.ptr);
        assert_string_equal(r->err.message, message);
        assert_int_equal(r->body.len, body.len);
        if (whole.ptr[0] != 'F') {
            assert_memory_equal(r->body.ptr, body.ptr, body.len);
        }
        free(again.ptr);
    }
    free(r->body.ptr);
    r->body = body;
    gpn_http_deinit(&r->http);
    test_page_deinit(&page);
    return whole;
}

typedef struct response_case {
    const char *name;
    const char *raw;
    const char *want;
    const char *body;
} response_case;

#define OK    "HTTP/1.1 200 OK\r\n"
#define CHUNK OK "Transfer-Encoding: chunked\r\n\r\n"
#define BAD   "FAILED GPTNER_ERR_PROTOCOL"
#define LOST  "FAILED GPTNER_ERR_CONNECTION_LOST"
#define TE    "Transfer-Encoding=chunked|"

static const response_case responses[] = {
    {"length", OK "Content-Length: 5\r\n\r\nhello",
     "200 length reuse 5+0 Content-Length=5|", "hello"},
    {"length 0", OK "Content-Length:0\r\n\r\n",
     "200 length reuse 0+0 Content-Length=0|", ""},
    {"bytes after it", OK "Content-Length: 2\r\n\r\n{}HTTP/1.1",
     "200 length close 2+8 Content-Length=2|", "{}"},
    {"until close", "HTTP/1.1 502 Bad\r\nA:\r\n\r\n<html>",
     "502 close close 6+0 A=|", "<html>"},
    {"no reason", "HTTP/1.1 204\r\n\r\n", "204 none reuse 0+0 ", ""},
    {"304 has no body", "HTTP/1.1 304 \r\nContent-Length: 77\r\n\r\n",
     "304 none reuse 0+0 Content-Length=77|", ""},
    {"chunks", CHUNK "5\r\nhello\r\n00A;x=\"y;z\" \r\n, my world\r\n0\r\n\r\n",
     "200 chunked reuse 15+0 " TE, "hello, my world"},
    {"trailers", CHUNK "1\r\nx\r\n0\r\nA: 1\r\nContent-Length: 9\r\n\r\n",
     "200 chunked reuse 1+0 " TE "/A=1|Content-Length=9|", "x"},
    {"padding after a size", CHUNK "1 \t;e\r\nx\r\n0\r\n\r\n",
     "200 chunked reuse 1+0 " TE, "x"},
    {"interim",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 H\r\nLink: x\r\n\r\n" OK
     "Content-Length: 1\r\n\r\ny",
     "200 length reuse 1+0 Content-Length=1|~100~103", "y"},
    {"1.0 closes", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\ny",
     "200 length close 1+0 Content-Length=1|", "y"},
    {"1.0 keeps if asked",
     "HTTP/1.0 200 OK\r\nConnection: x, Keep-Alive\r\nContent-Length: "
     "1\r\n\r\ny",
     "200 length reuse 1+0 Connection=x, Keep-Alive|Content-Length=1|", "y"},
    {"close among tokens",
     OK "Connection: a\r\nconnection: b ,\tCLOSE\r\nContent-Length: 1\r\n\r\ny",
     "200 length close 1+0 Connection=a|connection=b "
     ",\tCLOSE|Content-Length=1|",
     "y"},
    {"bare LF in the head", "HTTP/1.1 200 OK\nContent-Length: 1\n\ny",
     "200 length reuse 1+0 Content-Length=1|", "y"},
    {"folded",
     OK "A: x\r\n \t y \r\n  \r\n\tz\r\nContent-Length:\r\n 0\r\n\r\n",
     "200 length reuse 0+0 A=x y z|Content-Length=0|", ""},
    {"equal lengths", OK "Content-Length: 1, 1\r\nContent-Length: 1\r\n\r\ny",
     "200 length reuse 1+0 Content-Length=1, 1|Content-Length=1|", "y"},
    {"length and chunks: not used again",
     OK "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0"
        "\r\n\r\n",
     "200 chunked close 1+0 Content-Length=9|" TE, "y"},
    {"chunks in 1.0: not used again",
     "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: "
     "chunked\r\n\r\n1\r\ny\r\n0\r\n\r\n",
     "200 chunked close 1+0 Connection=keep-alive|" TE, "y"},
    {"value of 8-bit characters",
     OK "A: \xc3\xa9\x01\r\nContent-Length:0\r\n\r\n",
     "200 length reuse 0+0 A=\xc3\xa9\x01|Content-Length=0|", ""},
    /* refused: not a status line */
    {"nothing", "", LOST, NULL},
    {"garbage", "\x16\x03\x01", BAD, NULL},
    {"SSH", "SSH-2.0-OpenSSH\r\n", BAD, NULL},
    {"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", BAD, NULL},
    {"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", BAD, NULL},
    {"lower case", "http/1.1 200 OK\r\n\r\n", BAD, NULL},
    {"empty line first", "\r\n" OK "\r\n", BAD, NULL},
    {"two spaces", "HTTP/1.1  200 OK\r\n\r\n", BAD, NULL},
    {"tab", "HTTP/1.1\t200 OK\r\n\r\n", BAD, NULL},
    {"two digits", "HTTP/1.1 20 OK\r\n\r\n", BAD, NULL},
    {"four digits", "HTTP/1.1 2000 OK\r\n\r\n", BAD, NULL},
    {"099", "HTTP/1.1 099 OK\r\n\r\n", BAD, NULL},
    {"negative", "HTTP/1.1 -20 OK\r\n\r\n", BAD, NULL},
    {"101 unasked", "HTTP/1.1 101 Switching\r\n\r\n", BAD, NULL},
    /* refused: the head */
    {"space before colon", OK "A : x\r\n\r\n", BAD, NULL},
    {"no colon", OK "A\r\n\r\n", BAD, NULL},
    {"no name", OK ": x\r\n\r\n", BAD, NULL},
    {"bad name", OK "A(b): x\r\n\r\n", BAD, NULL},
    {"8-bit name", OK "\xc3\xa9: x\r\n\r\n", BAD, NULL},
    {"white space first", OK " A: x\r\n\r\n", BAD, NULL},
    {"bare CR", OK "A: x\rB: y\r\n\r\n", BAD, NULL},
    {"CR CR LF", OK "A: x\r\r\n\r\n", BAD, NULL},
    {"bare CR in the status line", "HTTP/1.1 200 OK\rX\r\n\r\n", BAD, NULL},
    /* refused: framing */
    {"two lengths", OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", BAD,
     NULL},
    {"length list", OK "Content-Length: 1, 2\r\n\r\nxy", BAD, NULL},
    {"length +1", OK "Content-Length: +1\r\n\r\nx", BAD, NULL},
    {"length -1", OK "Content-Length: -1\r\n\r\nx", BAD, NULL},
    {"length 0x1", OK "Content-Length: 0x1\r\n\r\nx", BAD, NULL},
    {"length 1 1", OK "Content-Length: 1 1\r\n\r\nx", BAD, NULL},
    {"no length", OK "Content-Length: \r\n\r\nx", BAD, NULL},
    {"length 1,", OK "Content-Length: 1,\r\n\r\nx", BAD, NULL},
    {"length 2^63", OK "Content-Length: 9223372036854775808\r\n\r\nx", BAD,
     NULL},
    {"length 2^64+1", OK "Content-Length: 18446744073709551617\r\n\r\nx", BAD,
     NULL},
    {"gzip under chunked", OK "Transfer-Encoding: gzip, chunked\r\n\r\n", BAD,
     NULL},
    {"chunked under gzip", OK "Transfer-Encoding: chunked, gzip\r\n\r\n", BAD,
     NULL},
    {"chunked twice",
     OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BAD,
     NULL},
    {"identity", OK "Transfer-Encoding: identity\r\n\r\n", BAD, NULL},
    {"xchunked", OK "Transfer-Encoding: xchunked\r\n\r\n", BAD, NULL},
    /* refused: chunks */
    {"size with sign", CHUNK "+1\r\nx\r\n0\r\n\r\n", BAD, NULL},
    {"size with 0x", CHUNK "0x1\r\nx\r\n0\r\n\r\n", BAD, NULL},
    {"space before size", CHUNK " 1\r\nx\r\n0\r\n\r\n", BAD, NULL},
    {"no size", CHUNK "\r\nx\r\n0\r\n\r\n", BAD, NULL},
    {"only an extension", CHUNK ";a\r\nx\r\n0\r\n\r\n", BAD, NULL},
    {"space in a size", CHUNK "1 0\r\nx\r\n0\r\n\r\n", BAD, NULL},
    {"size LF", CHUNK "1\nx\r\n0\r\n\r\n", BAD, NULL},
    {"LF in an extension", CHUNK "1;a\nb\r\nx\r\n0\r\n\r\n", BAD, NULL},
    {"CR in an extension", CHUNK "1;a\rb\r\nx\r\n0\r\n\r\n", BAD, NULL},
    {"size 2^63", CHUNK "8000000000000000\r\nx", BAD, NULL},
    {"size 2^64", CHUNK "10000000000000000\r\nx", BAD, NULL},
    {"no CRLF after a chunk", CHUNK "1\r\nx0\r\n\r\n", BAD, NULL},
    {"LF after a chunk", CHUNK "1\r\nx\n0\r\n\r\n", BAD, NULL},
    {"CR x after a chunk", CHUNK "1\r\nx\rx", BAD, NULL},
    {"bad trailer", CHUNK "0\r\nA b: c\r\n\r\n", BAD, NULL},
    {"folded trailer without a field", CHUNK "0\r\n x\r\n\r\n", BAD, NULL},
    /* cut short */
    {"in the status", "HTTP/1.1 2", LOST, NULL},
    {"in the head", OK "Content-Len", LOST, NULL},
    {"before the empty line", OK "Content-Length: 0\r\n", LOST, NULL},
    {"after an interim response", "HTTP/1.1 100 C\r\n\r\n", LOST, NULL},
    {"in the body", OK "Content-Length: 9\r\n\r\nhello", LOST, NULL},
    {"in a size", CHUNK "5", LOST, NULL},
    {"in a chunk", CHUNK "5\r\nhel", LOST, NULL},
    {"after a chunk", CHUNK "5\r\nhello\r\n", LOST, NULL},
    {"before the trailer's end", CHUNK "0\r\n", LOST, NULL},
    {"in a trailer", CHUNK "0\r\nA: b\r\n", LOST, NULL},
};

static void a_response_means_the_same_however_it_is_cut(void **state)
{
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(responses); i++) {
        const response_case *c = &responses[i];
        reading r;
        text got;
        memset(&r, 0, sizeof(r));
        r.limits = &no_limits;
        got = read_every_way(&r, c->name, c->raw, strlen(c->raw), c->want);
        if (c->body != NULL) {
            assert_string_equal(r.body.ptr, c->body);
        }
        free(got.ptr);
        free(r.body.ptr);
    }
}

static void read_once(const char *raw, size_t len, reading *r, const char *want)
{
    text got = read_every_way(r, raw, raw, len, want);
    free(got.ptr);
    free(r->body.ptr);
    memset(&r->body, 0, sizeof(r->body));
}

static void a_nul_in_a_head_is_refused(void **state)
{
    static const char value[] = OK "Content-Length: 1\0\r\n\r\nx";
    static const char reason[] = "HTTP/1.1 200 O\0K\r\n\r\n";
    static const char chunk[] = CHUNK "1;\0\r\nx\r\n0\r\n\r\n";
    reading r;
    (void)state;
    memset(&r, 0, sizeof(r));
    r.limits = &no_limits;
    read_once(value, sizeof(value) - 1, &r, BAD);
    read_once(reason, sizeof(reason) - 1, &r, BAD);
    read_once(chunk, sizeof(chunk) - 1, &r, BAD);
}

static void no_body_follows_a_head_request_or_a_tunnel(void **state)
{
    static const char head[] = OK "Content-Length: 10\r\n\r\n";
    static const char tunnel[] = OK "Content-Length: 10\r\n\r\nTLS";
    static const char refused[] =
        "HTTP/1.1 407 Auth\r\nContent-Length: 2\r\n\r\nno";
    reading r;
    (void)state;
    memset(&r, 0, sizeof(r));
    r.limits = &no_limits;
    r.head_request = true;
    read_once(head, sizeof(head) - 1, &r,
              "200 none reuse 0+0 Content-Length=10|");
    r.head_request = false;
    r.connect_request = true;
    read_once(tunnel, sizeof(tunnel) - 1, &r,
              "200 none close 0+3 Content-Length=10|");
    read_once(refused, sizeof(refused) - 1, &r,
              "407 length reuse 2+0 Content-Length=2|");
}

static void a_body_until_close_needs_an_orderly_close(void **state)
{
    static const char raw[] = OK "\r\nhalf of it";
    reading r;
    (void)state;
    memset(&r, 0, sizeof(r));
    r.limits = &no_limits;
    r.cut_off = true;
    read_once(raw, sizeof(raw) - 1, &r, LOST);
}

#define TOO_MUCH "FAILED GPTNER_ERR_LIMIT"

static void every_limit_of_a_response_is_kept_to_the_byte(void **state)
{
    static const struct {
        gpn_http_limits limits;
        const char *raw;
        bool fits;
    } cases[] = {
        {{37, 0, 0, 0, 0, 0}, OK "Content-Length:0\r\n\r\n", true},
        {{36, 0, 0, 0, 0, 0}, OK "Content-Length:0\r\n\r\n", false},
        {{0, 2, 0, 0, 0, 0}, OK "A:b\r\nContent-Length:0\r\n\r\n", true},
        {{0, 1, 0, 0, 0, 0}, OK "A:b\r\nContent-Length:0\r\n\r\n", false},
        {{0, 2, 0, 0, 0, 0}, CHUNK "0\r\nA:b\r\n\r\n", true},
        {{0, 2, 0, 0, 0, 0}, CHUNK "0\r\nA:b\r\nC:d\r\n\r\n", false},
        {{0, 0, 7, 0, 0, 0}, CHUNK "0\r\nA:b\r\n\r\n", true},
        {{0, 0, 6, 0, 0, 0}, CHUNK "0\r\nA:b\r\n\r\n", false},
        {{0, 0, 0, 1, 0, 0},
         "HTTP/1.1 100 C\r\n\r\n" OK "Content-Length:0\r\n\r\n",
         true},
        {{0, 0, 0, 1, 0, 0},
         "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\n" OK
         "Content-Length:0\r\n\r\n",
         false},
        {{0, 0, 0, 0, 3, 0}, CHUNK "1;a\r\nx\r\n1;\r\nx\r\n0\r\n\r\n", true},
        {{0, 0, 0, 0, 2, 0}, CHUNK "1;a\r\nx\r\n1;\r\nx\r\n0\r\n\r\n", false},
        {{0, 0, 0, 0, 4, 0}, CHUNK "00000000000000000000\r\n\r\n", true},
        {{0, 0, 0, 0, 3, 0}, CHUNK "00000000000000000000\r\n\r\n", false},
        {{0, 0, 0, 0, 0, 5}, OK "Content-Length: 5\r\n\r\nhello", true},
        {{0, 0, 0, 0, 0, 4}, OK "Content-Length: 5\r\n\r\nhello", false},
        {{0, 0, 0, 0, 0, 5}, OK "\r\nhello", true},
        {{0, 0, 0, 0, 0, 2}, CHUNK "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", false},
        {{0, 0, 0, 0, 0, 3}, CHUNK "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", true},
    };
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        reading r;
        text got;
        memset(&r, 0, sizeof(r));
        r.limits = &cases[i].limits;
        got =
            read_every_way(&r, cases[i].raw, cases[i].raw, strlen(cases[i].raw),
                           cases[i].fits ? NULL : TOO_MUCH);
        assert_true(!cases[i].fits || got.ptr[0] != 'F');
        free(got.ptr);
        free(r.body.ptr);
    }
}

static void a_body_without_length_over_the_limit_is_refused(void **state)
{
    static const char raw[] = OK "\r\nhello";
    gpn_http_limits limits = no_limits;
    reading r;
    (void)state;
    memset(&r, 0, sizeof(r));
    limits.max_body = 4;
    r.limits = &limits;
    read_once(raw, sizeof(raw) - 1, &r, TOO_MUCH);
}

static void headers_are_found_in_any_case_and_trailers_are_not(void **state)
{
    static const char raw[] = OK "X-Request-ID: abc\r\nx-request-id: d\r\n"
                                 "Transfer-Encoding: chunked\r\n\r\n"
                                 "0\r\nretry-after: 5\r\n\r\n";
    gpn_env env = plain_env();
    gpn_http h;
    gpn_http_event event;
    size_t at = 0, used;
    gptner_str body;
    (void)state;
    gpn_http_init(&h, &env);
    gpn_http_reset(&h, false, false, &no_limits);
    assert_false(h.started);
    do {
        event = gpn_http_next(&h, raw + at, sizeof(raw) - 1 - at, &used, &body,
                              NULL);
        at += used;
    } while (event < GPN_HTTP_DONE);
    assert_int_equal(event, GPN_HTTP_DONE);
    assert_true(h.started);
    assert_true(gpn_str_eq_c(gpn_http_find(&h, "x-request-id"), "abc"));
    assert_null(gpn_http_find(&h, "retry-after").ptr);
    assert_true(gpn_http_has_token(&h, "transfer-encoding", "CHUNKED"));
    assert_true(gpn_str_eq_c(gpn_http_name(&h, h.n_headers), "retry-after"));
    /* Once over, it stays so and takes nothing more. */
    assert_int_equal(gpn_http_next(&h, "x", 1, &used, &body, NULL),
                     GPN_HTTP_DONE);
    assert_int_equal(used, 0);
    assert_int_equal(gpn_http_eof(&h, false, NULL), GPN_HTTP_DONE);
    gpn_http_deinit(&h);
}

static void a_failed_response_stays_failed(void **state)
{
    gpn_env env = plain_env();
    gpn_http h;
    gptner_str body;
    size_t used;
    (void)state;
    gpn_http_init(&h, &env);
    gpn_http_reset(&h, false, false, &no_limits);
    assert_int_equal(gpn_http_next(&h, "X", 1, &used, &body, NULL),
                     GPN_HTTP_FAILED);
    assert_int_equal(gpn_http_next(&h, OK, 17, &used, &body, NULL),
                     GPN_HTTP_FAILED);
    assert_int_equal(gpn_http_eof(&h, true, NULL), GPN_HTTP_FAILED);
    assert_false(h.reusable);
    gpn_http_deinit(&h);
}

static void reading_allocates_only_at_first(void **state)
{
    static const char raw[] = OK "A: b\r\nC: d\r\nTransfer-Encoding: "
                                 "chunked\r\n\r\n5\r\nhello\r\n0\r\nT: u\r\n\r"
                                 "\n";
    test_mem mem;
    gpn_env env;
    test_page page;
    reading r;
    long calls;
    (void)state;
    memset(&mem, 0, sizeof(mem));
    memset(&r, 0, sizeof(r));
    env = counted_env(&mem);
    r.limits = &no_limits;
    test_page_init(&page, sizeof(raw));
    gpn_http_init(&r.http, &env);
    read_in_pieces(&r, &page, raw, sizeof(raw) - 1, 10, 7);
    calls = mem.calls;
    read_in_pieces(&r, &page, raw, sizeof(raw) - 1, 100, 3);
    assert_int_equal(r.last, GPN_HTTP_DONE);
    assert_int_equal(mem.calls, calls);
    gpn_http_deinit(&r.http);
    assert_int_equal(mem.blocks, 0);
    free(r.body.ptr);
    test_page_deinit(&page);
}

static void a_response_survives_any_failing_allocation(void **state)
{
    text raw = {NULL, 0};
    test_page page;
    int n, i;
    bool done = false;
    (void)state;
    put(&raw, OK, 17);
    for (i = 0; i < 60; i++) {
        putf(&raw, "Header-%d: the value of header %d\r\n", i, i);
    }
    putf(&raw, "Content-Length: 3\r\n\r\nabc");
    test_page_init(&page, raw.len);
    for (n = 1; !done; n++) {
        test_mem mem;
        gpn_env env;
        reading r;
        memset(&mem, 0, sizeof(mem));
        memset(&r, 0, sizeof(r));
        env = counted_env(&mem);
        mem.fail_at = n;
        r.limits = &no_limits;
        gpn_http_init(&r.http, &env);
        read_in_pieces(&r, &page, raw.ptr, raw.len, 50, 50);
        done = mem.calls < n;
        assert_int_equal(r.err.status, done ? GPTNER_OK : GPTNER_ERR_NO_MEMORY);
        gpn_http_deinit(&r.http);
        assert_int_equal(mem.blocks, 0);
        free(r.body.ptr);
    }
    assert_true(n > 4);
    test_page_deinit(&page);
    free(raw.ptr);
}

/* ---- JSON of the corpus -------------------------------------------------- */

static gptner_json_doc *parse_json(const char *data, size_t len)
{
    gptner_json_doc *doc = NULL;
    assert_int_equal(gptner_json_parse(data, len, NULL, &doc, NULL), GPTNER_OK);
    return doc;
}

static int64_t json_int(const gptner_json_value *object, const char *key)
{
    int64_t n;
    return gptner_json_get_int64(gptner_json_find(object, key), &n) ? n : -1;
}

static gptner_str json_str(const gptner_json_value *value)
{
    gptner_str s = GPN_ZERO;
    gptner_json_get_str(value, &s);
    return s;
}

static bool json_is(const gptner_json_value *object, const char *key,
                    const char *want)
{
    return gpn_str_eq_c(json_str(gptner_json_find(object, key)), want);
}

/* The corpus writes header bytes as Latin-1 characters. */
static void put_latin1(text *t, gptner_str s)
{
    size_t at = 0;
    while (at < s.len) {
        uint32_t cp;
        char byte;
        at += gpn_utf8_get(s.ptr + at, s.len - at, &cp);
        byte = (char)(unsigned char)cp;
        put(t, &byte, 1);
    }
}

static void put_json_fields(text *t, const gptner_json_value *list)
{
    size_t i;
    for (i = 0; i < gptner_json_size(list); i++) {
        const gptner_json_value *pair = gptner_json_at(list, i);
        put_latin1(t, json_str(gptner_json_at(pair, 0)));
        put(t, "=", 1);
        put_latin1(t, json_str(gptner_json_at(pair, 1)));
        put(t, "|", 1);
    }
}

/* The summary that a corpus result describes. */
static text json_summary(const gptner_json_value *result)
{
    const gptner_json_value *list;
    text t = {NULL, 0};
    bool reusable = false;
    size_t i;
    gptner_json_get_bool(gptner_json_find(result, "reusable"), &reusable);
    putf(&t, "%d %s %s %d+%d ", (int)json_int(result, "status"),
         gptner_json_get_cstr(gptner_json_find(result, "framing"), ""),
         reusable ? "reuse" : "close", (int)json_int(result, "body_len"),
         (int)json_int(result, "leftover"));
    put_json_fields(&t, gptner_json_find(result, "headers"));
    list = gptner_json_find(result, "interim");
    for (i = 0; i < gptner_json_size(list); i++) {
        int64_t code = 0;
        gptner_json_get_int64(gptner_json_at(list, i), &code);
        putf(&t, "~%d", (int)code);
    }
    list = gptner_json_find(result, "trailers");
    if (gptner_json_size(list) > 0) {
        put(&t, "/", 1);
        put_json_fields(&t, list);
    }
    return t;
}

static void hex_sha256(const char *data, size_t len, char out[65])
{
    unsigned char sum[32];
    int i;
    test_sha256(data, len, sum);
    for (i = 0; i < 32; i++) {
        snprintf(out + 2 * i, 3, "%02x", (unsigned)sum[i]);
    }
}

/* Calls check(name, data, len, expect) for each pair of files in a folder. */
static int for_each_vector(const char *folder, const char *ext,
                           void (*check)(const char *name, const char *data,
                                         size_t len,
                                         const gptner_json_value *expect))
{
    char root[1024], path[1400];
    struct dirent *entry;
    DIR *dir;
    int n = 0;
    if (test_corpus(root, folder) == NULL) {
        skip();
    }
    dir = opendir(root);
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        char *dot = strrchr(entry->d_name, '.');
        char *data, *expect;
        size_t len, expect_len;
        gptner_json_doc *doc;
        if (dot == NULL || strcmp(dot, ".expect") != 0) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s", root, entry->d_name);
        expect = test_slurp(path, &expect_len);
        *dot = '\0';
        snprintf(path, sizeof(path), "%s/%s%s", root, entry->d_name, ext);
        data = test_slurp(path, &len);
        assert_non_null(data);
        doc = parse_json(expect, expect_len);
        check(entry->d_name, data, len, gptner_json_root(doc));
        gptner_json_doc_free(doc);
        free(expect);
        free(data);
        n++;
    }
    closedir(dir);
    return n;
}

static void check_response(const char *name, const char *data, size_t len,
                           const gptner_json_value *expect)
{
    const gptner_json_value *result = gptner_json_find(expect, "result");
    reading r;
    text got;
    memset(&r, 0, sizeof(r));
    r.limits = &no_limits;
    got = read_every_way(&r, name, data, len, NULL);
    if (json_is(expect, "verdict", "accept")) {
        text want = json_summary(result);
        char sum[65];
        assert_text(name, &got, want.ptr);
        hex_sha256(r.body.ptr, r.body.len, sum);
        assert_true(json_is(result, "body_sha256", sum));
        free(want.ptr);
    } else if (json_is(expect, "verdict", "reject")) {
        if (got.ptr[0] != 'F') {
            fail_msg("%s was accepted", name);
        }
    } else if (got.ptr[0] != 'F') {
        const gptner_json_value *allowed = gptner_json_find(expect, "allowed");
        bool found = false;
        size_t i;
        for (i = 0; i < gptner_json_size(allowed); i++) {
            const gptner_json_value *a = gptner_json_at(allowed, i);
            found = found || (json_int(a, "status") == r.http.status &&
                              json_int(a, "body_len") == (int64_t)r.body.len);
        }
        if (!found) {
            fail_msg("%s: not among what is allowed: %.200s", name, got.ptr);
        }
    }
    free(got.ptr);
    free(r.body.ptr);
}

static void the_responses_of_the_corpus(void **state)
{
    (void)state;
    assert_true(for_each_vector("http", ".raw", check_response) > 100);
}

/* ---- server-sent events -------------------------------------------------- */

/* An event was begun and never finished. */
static bool is_pending(const gpn_sse *sse)
{
    return !sse->handed_out &&
           (sse->text[GPN_SSE_DATA].len > 0 || sse->text[GPN_SSE_LINE].len > 0);
}

/* "type:data:id\n" for each event, then "retry N" and "pending" if so. */
static text read_events(test_page *page, const char *data, size_t len,
                        size_t first, size_t then, gpn_sse *sse)
{
    text t = {NULL, 0};
    size_t at = 0, n = first;
    gptner_error err;
    put(&t, "", 0);
    gpn_sse_reset(sse);
    while (at < len) {
        const char *piece;
        size_t from = 0;
        n = n < len - at ? n : len - at;
        piece = test_page_put(page, data + at, n);
        while (from < n) {
            gpn_sse_message m;
            size_t used;
            gpn_sse_event event =
                gpn_sse_next(sse, piece + from, n - from, &used, &m, &err);
            from += used;
            if (event == GPN_SSE_FAILED) {
                putf(&t, "FAILED %s", gptner_status_name(err.status));
                return t;
            }
            if (event == GPN_SSE_MORE) {
                assert_int_equal(from, n);
                assert_null(m.data.ptr);
                break;
            }
            assert_true(m.data.ptr[m.data.len] == '\0');
            put_str(&t, m.type);
            put(&t, ":", 1);
            put_str(&t, m.data);
            put(&t, ":", 1);
            put_str(&t, m.id);
            put(&t, "\n", 1);
        }
        at += n;
        n = then;
    }
    if (sse->retry_ms >= 0) {
        putf(&t, "retry %" PRId64 "\n", sse->retry_ms);
    }
    if (is_pending(sse)) {
        putf(&t, "pending\n");
    }
    return t;
}

static text read_events_every_way(const char *name, const char *data,
                                  size_t len, size_t max_event)
{
    gpn_env env = plain_env();
    test_page page;
    gpn_sse sse;
    text whole;
    size_t cut, step = len > 4096 ? 1009 : 1;
    test_page_init(&page, len + 1);
    gpn_sse_init(&sse, &env, max_event);
    whole = read_events(&page, data, len, len, len, &sse);
    for (cut = 0; cut < len; cut += step) {
        text again = read_events(&page, data, len, cut > 0 ? cut : 1,
                                 cut > 0 ? len : 1, &sse);
        assert_text(name, &again, whole.ptr);
        assert_int_equal(again.len, whole.len);
        free(again.ptr);
    }
    gpn_sse_deinit(&sse);
    test_page_deinit(&page);
    return whole;
}

static void events_are_the_same_however_they_are_cut(void **state)
{
    static const struct {
        const char *data, *want;
    } cases[] = {
        {"", ""},
        {"data: a\n\n", "message:a:\n"},
        {"data: a\r\n\r\n", "message:a:\n"},
        {"data: a\r\r", "message:a:\n"},
        {"data: a\r\n\r", "message:a:\n"},
        {"\xef\xbb\xbf"
         "data: a\n\n",
         "message:a:\n"},
        {"\xef\xbb\xbf\xef\xbb\xbf"
         "data: a\n\n",
         ""},
        {"data\n\n", "message::\n"},
        {"data:\ndata:\n\n", "message:\n:\n"},
        {"data:  a:b\n\n", "message: a:b:\n"},
        {"data: 1\ndata: 2\n\n\n\n", "message:1\n2:\n"},
        {"event: x\nid: 7\nretry: 15\ndata: a\n\ndata: b\n\n",
         "x:a:7\nmessage:b:7\nretry 15\n"},
        {"event: x\n\ndata: a\n\n", "message:a:\n"},
        {"id: 7\ndata: a\n\nid\ndata: b\n\n", "message:a:7\nmessage:b:\n"},
        {"retry: 1x\nretry: \nretry:-1\n", ""},
        {"retry: 0\n", "retry 0\n"},
        {":comment\n: data: x\n\ndata: a\n:\n\n", "message:a:\n"},
        {"DATA: a\nother: b\nnonsense\n\n", ""},
        {"data: a\n", "pending\n"},
        {"data: a\n\ndata", "message:a:\npending\n"},
        {"data: [DONE]\n\n: bye\n", "message:[DONE]:\n"},
        {"data: \xff\xe2\x82\n\n", "message:\xff\xe2\x82:\n"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        text got = read_events_every_way(cases[i].data, cases[i].data,
                                         strlen(cases[i].data), 1 << 20);
        assert_text(cases[i].data, &got, cases[i].want);
        free(got.ptr);
    }
}

static void an_id_with_nul_is_ignored(void **state)
{
    static const char data[] = "id: a\nid: b\0c\ndata: d\0e\n\n";
    text got;
    (void)state;
    got = read_events_every_way("nul", data, sizeof(data) - 1, 100);
    assert_int_equal(got.len, 14);
    assert_memory_equal(got.ptr, "message:d\0e:a\n", 14);
    free(got.ptr);
}

static void long_events_are_refused_and_long_comments_are_not(void **state)
{
    text got, data = {NULL, 0};
    int i;
    (void)state;
    got = read_events_every_way("fits", "data: 123456789\n\n", 17, 15);
    assert_string_equal(got.ptr, "message:123456789:\n");
    free(got.ptr);
    got = read_events_every_way("event", "data: 1\ndata: 2\n\n", 17, 3);
    assert_string_equal(got.ptr, "FAILED GPTNER_ERR_LIMIT");
    free(got.ptr);
    put(&data, "data: a\n", 8);
    for (i = 0; i < 100; i++) {
        put(&data, i == 0 ? ":" : "0123456789", i == 0 ? 1 : 10);
    }
    put(&data, "\n\n", 2);
    got = read_events_every_way("comment", data.ptr, data.len, 10);
    assert_string_equal(got.ptr, "message:a:\n");
    free(got.ptr);
    free(data.ptr);
}

static void events_survive_any_failing_allocation(void **state)
{
    static const char data[] = "id: 1\nevent: e\ndata: abc\n\n";
    bool done = false;
    test_page page;
    int n;
    (void)state;
    test_page_init(&page, sizeof(data));
    for (n = 1; !done; n++) {
        test_mem mem;
        gpn_env env;
        gpn_sse sse;
        text got;
        memset(&mem, 0, sizeof(mem));
        env = counted_env(&mem);
        mem.fail_at = n;
        gpn_sse_init(&sse, &env, 1000);
        got = read_events(&page, data, sizeof(data) - 1, 3, 3, &sse);
        done = mem.calls < n;
        assert_string_equal(got.ptr,
                            done ? "e:abc:1\n" : "FAILED GPTNER_ERR_NO_MEMORY");
        gpn_sse_deinit(&sse);
        assert_int_equal(mem.blocks, 0);
        free(got.ptr);
    }
    assert_int_equal(n, 6); /* line, id, type, data, and none */
    test_page_deinit(&page);
}

/* What is not UTF-8 becomes U+FFFD, as the corpus has it. */
static void put_clean(text *t, gptner_str s)
{
    size_t at = 0;
    while (at < s.len) {
        uint32_t cp;
        size_t n = gpn_utf8_get(s.ptr + at, s.len - at, &cp);
        put(t, n > 0 ? s.ptr + at : "\xef\xbf\xbd", n > 0 ? n : 3);
        at += n > 0 ? n : 1;
    }
}

static void check_events(const char *name, const char *data, size_t len,
                         const gptner_json_value *expect)
{
    const gptner_json_value *events = gptner_json_find(expect, "events");
    const gptner_json_value *pending = gptner_json_find(expect, "pending");
    text got, clean = {NULL, 0}, want = {NULL, 0};
    int64_t retry;
    size_t i;
    got = read_events_every_way(name, data, len, 64 << 20);
    put_clean(&clean, gpn_str(got.ptr, got.len));
    put(&clean, "", 0);
    put(&want, "", 0);
    for (i = 0; i < gptner_json_size(events); i++) {
        const gptner_json_value *event = gptner_json_at(events, i);
        put_str(&want, json_str(gptner_json_find(event, "type")));
        put(&want, ":", 1);
        put_str(&want, json_str(gptner_json_find(event, "data")));
        put(&want, ":", 1);
        put_str(&want, json_str(gptner_json_find(event, "id")));
        put(&want, "\n", 1);
    }
    retry = json_int(expect, "retry");
    if (retry >= 0) {
        putf(&want, "retry %" PRId64 "\n", retry);
    }
    if (gptner_json_type_of(pending) == GPTNER_JSON_OBJECT) {
        gptner_str tail = json_str(gptner_json_find(pending, "tail"));
        bool has_data = json_str(gptner_json_find(pending, "data")).ptr != NULL;
        if (has_data || (tail.len > 0 && tail.ptr[0] != ':')) {
            putf(&want, "pending\n");
        }
    }
    if (gptner_json_size(events) == (size_t)json_int(expect, "count")) {
        assert_text(name, &clean, want.ptr);
    }
    free(got.ptr);
    free(clean.ptr);
    free(want.ptr);
}

static void the_event_streams_of_the_corpus(void **state)
{
    (void)state;
    assert_true(for_each_vector("sse", ".sse", check_events) > 30);
}

/* ---- URL ----------------------------------------------------------------- */

static void urls_are_taken_apart(void **state)
{
    static const struct {
        const char *url, *scheme, *host, *name;
        int port;
        const char *target, *header, *authority;
    } cases[] = {
        {"https://api.openai.com/v1", "https", "api.openai.com",
         "api.openai.com", 443, "/v1", "api.openai.com", "api.openai.com:443"},
        {"HTTP://EXAMPLE.com", "http", "example.com", "example.com", 80, "/",
         "example.com", "example.com:80"},
        {"http://h:8080?x=1", "http", "h", "h", 8080, "/?x=1", "h:8080",
         "h:8080"},
        {"http://h:443/", "http", "h", "h", 443, "/", "h:443", "h:443"},
        {"http://h:/a", "http", "h", "h", 80, "/a", "h", "h:80"},
        {"http://h.:00080/", "http", "h.", "h", 80, "/", "h.", "h.:80"},
        {"https://[::1]:8443/v1#x", "https", "::1", "::1", 8443, "/v1",
         "[::1]:8443", "[::1]:8443"},
        {"http://127.0.0.1/a//b;c=d?e=%20#f#g", "http", "127.0.0.1",
         "127.0.0.1", 80, "/a//b;c=d?e=%20", "127.0.0.1", "127.0.0.1:80"},
        {"http://a_b.x-1/~(u)!$&'*+,=:@", "http", "a_b.x-1", "a_b.x-1", 80,
         "/~(u)!$&'*+,=:@", "a_b.x-1", "a_b.x-1:80"},
    };
    gpn_env env = plain_env();
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gpn_url url;
        char host[100];
        assert_int_equal(
            gpn_url_parse(&env, gpn_str_c(cases[i].url), &url, NULL),
            GPTNER_OK);
        assert_string_equal(url.scheme, cases[i].scheme);
        assert_string_equal(url.host, cases[i].host);
        assert_string_equal(url.name, cases[i].name);
        assert_string_equal(url.target, cases[i].target);
        assert_int_equal(url.port, cases[i].port);
        assert_int_equal(url.tls, strcmp(url.scheme, "https") == 0);
        assert_null(url.user.ptr);
        assert_true(gpn_url_header_host(&url, host, sizeof(host)));
        assert_string_equal(host, cases[i].header);
        assert_true(gpn_url_authority(&url, host, sizeof(host)));
        assert_string_equal(host, cases[i].authority);
        assert_false(gpn_url_header_host(&url, host, 5));
        gpn_url_deinit(&url);
        assert_null(url.host);
    }
}

static void urls_that_mean_two_things_are_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "h",
        "http:",
        "http:/h",
        "https//h",
        "//h/",
        "ftp://h/",
        "ws://h",
        "http://",
        "http://?x",
        "http:///x",
        "http://:80",
        "http://u@",
        "http://u:p@/",
        "http://h:0/",
        "http://h:65536/",
        "http://h:-1/",
        "http://h:8o/",
        "http://h:80:80/",
        "http://h:99999999999999999999/",
        "http://::1/",
        "http://[::1",
        "http://[::1]x/",
        "http://[h]/",
        "http://[1.2.3.4]/",
        "http://[fe80::1%25eth0]/",
        "http://a b/",
        "http://a\tb/",
        "http://a/b c",
        "http://a/\r\nHost: x",
        "http://a\nb/",
        "http://a/\x7f",
        "http://a/\x01",
        "http://\xc3\xa9/",
        "http://a/\xc3\xa9",
        "http://a/%zz",
        "http://a/%1",
        "http://a%41/",
        "http://a\\b/",
        "http://a/\\b",
        "http://a<b/",
        "http://a^b",
        "http://a|b",
        "http://a/{b}",
        "http://a/\"",
        "http://1.2.3/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://1.2.3.4.5/",
        "http://0x7f000001",
        "http://01.2.3.256/",
        "http://u@v@h/",
        "http://u%0d:p@h/",
        "http://u:p%0a@h/",
        " http://h/",
        "http://h/ ",
        "http://h#\x01",
    };
    gpn_env env = plain_env();
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gpn_url url;
        gptner_error err;
        if (gpn_url_parse(&env, gpn_str_c(cases[i]), &url, &err) == GPTNER_OK) {
            fail_msg("accepted: %s", cases[i]);
        }
        assert_int_equal(err.status, GPTNER_ERR_INVALID_ARGUMENT);
        assert_null(url.host);
        assert_null(url.block);
    }
}

static void user_and_password_are_decoded_and_never_shown(void **state)
{
    gpn_env env = plain_env();
    gpn_url url;
    gptner_error err;
    (void)state;
    assert_int_equal(
        gpn_url_parse(&env, gpn_str_c("http://u%40x:p:%25w@h:1/"), &url, NULL),
        GPTNER_OK);
    assert_true(gpn_str_eq_c(url.user, "u@x"));
    assert_true(gpn_str_eq_c(url.password, "p:%w"));
    assert_string_equal(url.host, "h");
    gpn_url_deinit(&url);
    assert_int_equal(gpn_url_parse(&env, gpn_str_c("http://u@h"), &url, NULL),
                     GPTNER_OK);
    assert_true(gpn_str_eq_c(url.user, "u"));
    assert_null(url.password.ptr);
    gpn_url_deinit(&url);
    assert_int_not_equal(
        gpn_url_parse(&env, gpn_str_c("http://u:secret@h:x"), &url, &err),
        GPTNER_OK);
    assert_null(strstr(err.message, "secret"));
}

static void urls_are_read_within_their_bounds(void **state)
{
    static const char *const cases[] = {"http://h/%41", "http://u:p@h:8",
                                        "http://[::1]", "https://a.b/c?d#e"};
    gpn_env env = plain_env();
    test_page page;
    size_t i, n;
    (void)state;
    test_page_init(&page, 100);
    for (i = 0; i < TEST_COUNT(cases); i++) {
        for (n = 0; n <= strlen(cases[i]); n++) {
            gpn_url url;
            gptner_str s = gpn_str(test_page_put(&page, cases[i], n), n);
            gpn_url_parse(&env, s, &url, NULL);
            gpn_url_deinit(&url);
        }
    }
    test_page_deinit(&page);
}

static void long_urls_are_refused(void **state)
{
    gpn_env env = plain_env();
    gpn_url url;
    text t = {NULL, 0};
    int i;
    (void)state;
    put(&t, "http://h/", 9);
    for (i = 0; i < 65528; i++) {
        put(&t, "p", 1);
    }
    assert_int_equal(gpn_url_parse(&env, gpn_str(t.ptr, t.len), &url, NULL),
                     GPTNER_OK);
    gpn_url_deinit(&url);
    for (i = 0; i < 10; i++) {
        put(&t, "p", 1);
    }
    assert_int_not_equal(gpn_url_parse(&env, gpn_str(t.ptr, t.len), &url, NULL),
                         GPTNER_OK);
    free(t.ptr);
}

static void check_url_line(const char *line, size_t len)
{
    gpn_env env = plain_env();
    gptner_json_doc *doc = parse_json(line, len);
    const gptner_json_value *root = gptner_json_root(doc);
    gptner_str input = json_str(gptner_json_find(root, "input"));
    gpn_url url;
    bool ok = gpn_url_parse(&env, input, &url, NULL) == GPTNER_OK;
    if (json_is(root, "verdict", "accept")) {
        if (!ok || !json_is(root, "scheme", url.scheme) ||
            !json_is(root, "host", url.host) ||
            !json_is(root, "target", url.target) ||
            json_int(root, "port") != url.port) {
            fail_msg("%.200s", line);
        }
    } else if (json_is(root, "verdict", "reject")) {
        if (ok) {
            fail_msg("accepted: %.200s", line);
        }
    } else if (ok) {
        const gptner_json_value *seen = gptner_json_find(root, "seen");
        bool found = false;
        size_t i;
        for (i = 0; i < gptner_json_size(seen); i++) {
            found = found || json_is(gptner_json_at(seen, i), "host", url.host);
        }
        if (!found) {
            fail_msg("read as nobody does: %.200s", line);
        }
    }
    gpn_url_deinit(&url);
    gptner_json_doc_free(doc);
}

static void the_urls_of_the_corpus(void **state)
{
    static const char *const names[] = {"url/URLS.jsonl", "url/URLS_OWN.jsonl"};
    char path[1024];
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(names); i++) {
        char *data, *rest, *line;
        size_t len;
        if (test_corpus(path, names[i]) == NULL) {
            skip();
        }
        rest = data = test_slurp(path, &len);
        while ((line = test_cut(&rest, '\n')) != NULL) {
            check_url_line(line, strlen(line));
        }
        free(data);
    }
}

/* ---- request head -------------------------------------------------------- */

static void a_request_head_is_written(void **state)
{
    gpn_env env = plain_env();
    gpn_buf b;
    (void)state;
    gpn_buf_init(&b, &env, 1000);
    gpn_http_begin(&b, "POST", gpn_str_c("/v1/chat?x=%20"));
    gpn_http_header(&b, "Host", gpn_str_c("h:8080"));
    gpn_http_header(&b, "X-Empty", gpn_str_c(""));
    gpn_http_header(&b, "X-Text", gpn_str_c("a\tb \xc3\xa9"));
    gpn_http_end_head(&b);
    assert_int_equal(b.status, GPTNER_OK);
    gpn_buf_add_c(&b, '\0');
    assert_string_equal(b.data, "POST /v1/chat?x=%20 HTTP/1.1\r\n"
                                "Host: h:8080\r\n"
                                "X-Empty: \r\n"
                                "X-Text: a\tb \xc3\xa9\r\n\r\n");
    gpn_buf_deinit(&b);
}

static void nothing_can_be_injected_into_a_request(void **state)
{
    static const struct {
        const char *method, *target, *name, *value;
    } cases[] = {
        {"GE T", "/", "A", "b"},        {"", "/", "A", "b"},
        {"GET\r\n", "/", "A", "b"},     {"GET", "", "A", "b"},
        {"GET", "/a b", "A", "b"},      {"GET", "/a\r\nX: y", "A", "b"},
        {"GET", "/a\tb", "A", "b"},     {"GET", "/#", "A", "b"},
        {"GET", "/\x7f", "A", "b"},     {"GET", "/\xc3\xa9", "A", "b"},
        {"GET", "/", "", "b"},          {"GET", "/", "A B", "b"},
        {"GET", "/", "A:", "b"},        {"GET", "/", "A\r\nB", "b"},
        {"GET", "/", "A\xc3\xa9", "b"}, {"GET", "/", "A", "b\r\nC: d"},
        {"GET", "/", "A", "b\n"},       {"GET", "/", "A", "\rb"},
        {"GET", "/", "A", "b\x01"},     {"GET", "/", "A", "b\x7f"},
    };
    gpn_env env = plain_env();
    gpn_buf b;
    size_t i;
    (void)state;
    gpn_buf_init(&b, &env, 1000);
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gpn_buf_clear(&b);
        gpn_http_begin(&b, cases[i].method, gpn_str_c(cases[i].target));
        gpn_http_header(&b, cases[i].name, gpn_str_c(cases[i].value));
        gpn_http_header(&b, "Later", gpn_str_c("fine"));
        if (b.status != GPTNER_ERR_INVALID_ARGUMENT) {
            fail_msg("case %d was written", (int)i);
        }
    }
    gpn_buf_clear(&b);
    gpn_http_header(&b, "A", gpn_str("b\0c", 3));
    assert_int_equal(b.status, GPTNER_ERR_INVALID_ARGUMENT);
    gpn_buf_deinit(&b);
}

static void a_piece_of_a_path_is_encoded(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"file-abc_1.2~", "file-abc_1.2~"},
        {"a/b?c#d", "a%2Fb%3Fc%23d"},
        {"..", "%2E%2E"},
        {".", "%2E"},
        {"...", "..."},
        {"\r\n %", "%0D%0A%20%25"},
        {"\xc3\xa9", "%C3%A9"},
        {"", ""},
    };
    gpn_env env = plain_env();
    gpn_buf b;
    size_t i;
    (void)state;
    gpn_buf_init(&b, &env, 1000);
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gpn_buf_clear(&b);
        gpn_percent_encode(&b, gpn_str_c(cases[i].in));
        gpn_buf_add_c(&b, '\0');
        assert_string_equal(b.data, cases[i].out);
    }
    gpn_buf_deinit(&b);
}

/* ---- multipart ----------------------------------------------------------- */

/* All of it, cap bytes at a time. */
static text read_multipart(gpn_multipart *m, size_t cap, gptner_status want)
{
    gptner_status status;
    gptner_error err;
    text t = {NULL, 0};
    char *room = (char *)malloc(cap);
    size_t got;
    put(&t, "", 0);
    while ((status = gpn_multipart_read(m, room, cap, &got, &err)) ==
               GPTNER_OK &&
           got > 0) {
        assert_true(got <= cap);
        put(&t, room, got);
    }
    assert_int_equal(status, want);
    assert_true(status == GPTNER_OK || (err.status == status && got == 0));
    free(room);
    return t;
}

static gptner_part part_of(const char *name, const char *value,
                           const char *path, const char *filename)
{
    gptner_part part;
    memset(&part, 0, sizeof(part));
    part.name = name;
    part.value = gptner_str_from(value);
    part.path = path;
    part.filename = filename;
    return part;
}

static void a_multipart_body_has_its_length_in_any_pieces(void **state)
{
    char path[256];
    gpn_env env = plain_env();
    gpn_multipart m;
    gptner_part parts[4];
    text want = {NULL, 0};
    size_t cap;
    (void)state;
    test_spit(test_tmp_path(path, "in.jsonl"), "{\"a\":1}\n{}\n", 11);
    parts[0] = part_of("purpose", "batch", NULL, NULL);
    parts[1] = part_of("fi\"le\r\n", NULL, path, "a \"b\"\n\xc3\xa9.jsonl");
    parts[2] = part_of("note", "", NULL, NULL);
    parts[3] = part_of("blob", "\r\n--x", NULL, "b");
    parts[3].content_type = "text/plain";
    assert_int_equal(gpn_multipart_init(&m, &env, parts, 4, NULL), GPTNER_OK);
    assert_true(strlen(m.boundary) >= 32 && strlen(m.boundary) <= 70);
    putf(&want,
         "--%s\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n"
         "batch\r\n",
         m.boundary);
    putf(&want,
         "--%s\r\nContent-Disposition: form-data; name=\"fi%%22le%%0D%%0A\"; "
         "filename=\"a %%22b%%22%%0A\xc3\xa9.jsonl\"\r\n"
         "Content-Type: application/octet-stream\r\n\r\n"
         "{\"a\":1}\n{}\n\r\n",
         m.boundary);
    putf(&want,
         "--%s\r\nContent-Disposition: form-data; name=\"note\"\r\n"
         "\r\n\r\n",
         m.boundary);
    putf(&want,
         "--%s\r\nContent-Disposition: form-data; name=\"blob\"; "
         "filename=\"b\"\r\nContent-Type: text/plain\r\n\r\n\r\n--x\r\n"
         "--%s--\r\n",
         m.boundary, m.boundary);
    assert_int_equal(m.length, want.len);
    for (cap = 1; cap <= want.len + 1; cap++) {
        text got = read_multipart(&m, cap, GPTNER_OK);
        assert_text("multipart", &got, want.ptr);
        gpn_multipart_rewind(&m);
        free(got.ptr);
    }
    gpn_multipart_deinit(&m);
    free(want.ptr);
}

static void boundaries_differ(void **state)
{
    gpn_env env = plain_env();
    gptner_part part = part_of("a", "b", NULL, NULL);
    gpn_multipart a, b;
    (void)state;
    assert_int_equal(gpn_multipart_init(&a, &env, &part, 1, NULL), GPTNER_OK);
    assert_int_equal(gpn_multipart_init(&b, &env, &part, 1, NULL), GPTNER_OK);
    assert_string_not_equal(a.boundary, b.boundary);
    gpn_multipart_deinit(&a);
    gpn_multipart_deinit(&b);
}

static void a_file_that_shrinks_is_never_padded(void **state)
{
    char path[256];
    gpn_env env = plain_env();
    gptner_part part;
    gpn_multipart m;
    text got;
    (void)state;
    test_spit(test_tmp_path(path, "shrinks"), "0123456789", 10);
    part = part_of("f", NULL, path, "f");
    assert_int_equal(gpn_multipart_init(&m, &env, &part, 1, NULL), GPTNER_OK);
    test_spit(path, "01234", 5);
    got = read_multipart(&m, 64, GPTNER_ERR_FILE);
    free(got.ptr);
    /* More than was promised is left out. */
    test_spit(path, "0123456789 and more", 19);
    gpn_multipart_rewind(&m);
    got = read_multipart(&m, 64, GPTNER_OK);
    assert_int_equal(got.len, m.length);
    assert_non_null(strstr(got.ptr, "\r\n0123456789\r\n"));
    free(got.ptr);
    remove(path);
    gpn_multipart_rewind(&m);
    got = read_multipart(&m, 64, GPTNER_ERR_FILE);
    free(got.ptr);
    gpn_multipart_deinit(&m);
}

static void parts_that_cannot_be_sent_are_refused_at_once(void **state)
{
    gpn_env env = plain_env();
    gptner_error err;
    gpn_multipart m;
    gptner_part part = part_of("f", NULL, "/nonexistent/file", "f");
    (void)state;
    assert_int_equal(gpn_multipart_init(&m, &env, &part, 1, &err),
                     GPTNER_ERR_FILE);
    assert_non_null(strstr(err.message, "/nonexistent/file"));
    part = part_of("f", NULL, "/dev/null", "f"); /* has no size */
    assert_int_equal(gpn_multipart_init(&m, &env, &part, 1, &err),
                     GPTNER_ERR_FILE);
    part = part_of(NULL, "x", NULL, NULL);
    assert_int_equal(gpn_multipart_init(&m, &env, &part, 1, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    part = part_of("f", "x", NULL, NULL);
    part.content_type = "a\r\nb: c";
    assert_int_equal(gpn_multipart_init(&m, &env, &part, 1, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    gpn_multipart_deinit(&m);
}

static void multipart_survives_any_failing_call(void **state)
{
    static const int kinds[] = {GPN_FAULT_ALLOC, GPN_FAULT_FILE};
    char path[256];
    gptner_part part;
    size_t k;
    (void)state;
    test_spit(test_tmp_path(path, "faults"), "0123456789", 10);
    part = part_of("f", NULL, path, "f");
    for (k = 0; k < TEST_COUNT(kinds); k++) {
        bool fired = true;
        int n;
        for (n = 1; fired; n++) {
            test_mem mem;
            gpn_env env;
            gpn_multipart m;
            gptner_status status;
            memset(&mem, 0, sizeof(mem));
            env = counted_env(&mem);
            test_fault_set(kinds[k], n, false);
            status = gpn_multipart_init(&m, &env, &part, 1, NULL);
            if (status == GPTNER_OK) {
                char room[16];
                size_t got;
                do {
                    status = gpn_multipart_read(&m, room, 16, &got, NULL);
                } while (status == GPTNER_OK && got > 0);
            }
            fired = test_fault_fired();
            test_fault_clear();
            assert_true(status == GPTNER_OK || fired);
            assert_true(status == GPTNER_OK || status == GPTNER_ERR_FILE ||
                        status == GPTNER_ERR_NO_MEMORY);
            gpn_multipart_deinit(&m);
            assert_int_equal(mem.blocks, 0);
        }
        assert_true(n > 2);
    }
}

/* ---- proxy --------------------------------------------------------------- */

static void parse_ok(const gpn_env *env, const char *text_of, gpn_url *url)
{
    assert_int_equal(gpn_url_parse(env, gpn_str_c(text_of), url, NULL),
                     GPTNER_OK);
}

static void no_proxy_lists_are_matched(void **state)
{
    static const struct {
        const char *list, *url;
        bool match;
    } cases[] = {
        {"", "http://a.example.com", false},
        {"*", "http://a.example.com", true},
        {"x, *", "http://a.example.com", true},
        {"example.com", "http://example.com", true},
        {"EXAMPLE.com", "http://a.B.example.COM.", true},
        {".example.com", "http://example.com", true},
        {"*.example.com", "http://a.example.com", true},
        {"example.com.", "http://a.example.com", true},
        {"example.com", "http://badexample.com", false},
        {"example.com", "http://example.com.evil.net", false},
        {"a.example.com", "http://example.com", false},
        {"com", "http://example.com", true},
        {"x,,y , example.com ,z", "http://example.com", true},
        {"example.com:8080", "http://example.com:8080", true},
        {"example.com:8080", "http://example.com", false},
        {"example.com:443", "https://example.com", true},
        {"example.com:x", "https://example.com", false},
        {"127.0.0.1", "http://127.0.0.1:99", true},
        {"127.0.0.1:99", "http://127.0.0.1:99", true},
        {"127.0.0.1:98", "http://127.0.0.1:99", false},
        {"0.0.1", "http://127.0.0.1", false},
        {"127.0.0.0/8", "http://127.200.0.1", true},
        {"10.1.2.0/23", "http://10.1.3.255", true},
        {"10.1.2.0/23", "http://10.1.4.0", false},
        {"0.0.0.0/0", "http://9.9.9.9", true},
        {"10.0.0.0/33", "http://10.0.0.0", false},
        {"10.0.0.0/", "http://10.0.0.0", false},
        {"10.0.0.0/8", "http://ten.example.com", false},
        {"::1", "http://[0:0:0:0:0:0:0:1]", true},
        {"[::1]", "http://[::1]", true},
        {"[::1]:80", "http://[::1]", true},
        {"[::1]:81", "http://[::1]", false},
        {"[::1", "http://[::1]", false},
        {"[]", "http://[::1]", false},
        {"fd00::/8", "http://[fdab::1]", true},
        {"fd00::/8", "http://[fe80::1]", false},
        {"::/0", "http://1.2.3.4", false},
        {":80", "http://a", false},
        {".", "http://a", false},
        {"*.", "http://a", false},
    };
    gpn_env env = plain_env();
    test_page page;
    size_t i;
    (void)state;
    test_page_init(&page, 100);
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gpn_url url;
        size_t len = strlen(cases[i].list);
        gptner_str list =
            gpn_str(test_page_put(&page, cases[i].list, len), len);
        parse_ok(&env, cases[i].url, &url);
        if (gpn_no_proxy_match(list, &url) != cases[i].match) {
            fail_msg("%s in \"%s\"", cases[i].url, cases[i].list);
        }
        gpn_url_deinit(&url);
    }
    test_page_deinit(&page);
}

static void the_proxy_is_chosen_by_the_rules(void **state)
{
    static const char *const names[] = {
        "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY",
        "all_proxy",  "ALL_PROXY",  "no_proxy",    "NO_PROXY"};
    /* environment in that order; config; URL; "host:port", "" or "!" */
    static const struct {
        const char *env[8];
        const char *proxy, *no_proxy, *url, *want;
    } cases[] = {
        {{0, 0, 0, 0, 0, 0, 0, 0}, NULL, NULL, "http://a", ""},
        {{"http://p:1", 0, 0, 0, 0, 0, 0, 0}, NULL, NULL, "http://a", "p:1"},
        {{"http://p:1", 0, 0, 0, 0, 0, 0, 0}, NULL, NULL, "https://a", ""},
        {{0, "http://p:1", 0, 0, 0, 0, 0, 0}, NULL, NULL, "http://a", ""},
        {{0, 0, "p", 0, 0, 0, 0, 0}, NULL, NULL, "https://a", "p:80"},
        {{0, 0, 0, "p:3128", 0, 0, 0, 0}, NULL, NULL, "https://a", "p:3128"},
        {{0, 0, "p:1", "p:2", "p:3", 0, 0, 0}, NULL, NULL, "https://a", "p:1"},
        {{0, 0, 0, 0, "p:3", "p:4", 0, 0}, NULL, NULL, "https://a", "p:3"},
        {{0, "p:0", 0, 0, 0, "p:4", 0, 0}, NULL, NULL, "http://a", "p:4"},
        {{"p:1", 0, 0, 0, 0, 0, "a", 0}, NULL, NULL, "http://a", ""},
        {{"p:1", 0, 0, 0, 0, 0, 0, "a"}, NULL, NULL, "http://a", ""},
        {{"p:1", 0, 0, 0, 0, 0, "b", "a"}, NULL, NULL, "http://a", "p:1"},
        {{"p:1", 0, 0, 0, 0, 0, "a", 0}, NULL, "b", "http://a", "p:1"},
        {{"p:1", 0, 0, 0, 0, 0, 0, 0}, "", NULL, "http://a", ""},
        {{"p:1", 0, 0, 0, 0, 0, 0, 0}, "q:2", NULL, "http://a", "q:2"},
        {{0, 0, 0, 0, 0, 0, 0, 0}, "q:2", "a", "http://a", ""},
        {{0, 0, 0, 0, 0, 0, 0, 0}, "HTTP://[::1]:8/", 0, "http://a", "[::1]:8"},
        {{0, 0, 0, 0, 0, 0, 0, 0}, "u:p@q:2", NULL, "http://a", "q:2"},
        {{0, 0, "socks5://p:1", 0, 0, 0, 0, 0}, NULL, NULL, "https://a", "!"},
        {{0, 0, 0, 0, 0, 0, 0, 0}, "https://q:2", NULL, "http://a", "!"},
        {{0, 0, 0, 0, 0, 0, 0, 0}, "socks4a://q", NULL, "http://a", "!"},
        {{0, 0, 0, 0, 0, 0, 0, 0}, "u:secret@q:99999", NULL, "http://a", "!"},
        {{0, 0, 0, 0, 0, 0, 0, 0}, "q:2\r\n", NULL, "http://a", "!"},
    };
    gpn_env env = plain_env();
    size_t i, k;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gpn_url target, proxy;
        gptner_error err;
        gptner_status status;
        char authority[100] = "";
        for (k = 0; k < 8; k++) {
            unsetenv(names[k]);
            if (cases[i].env[k] != NULL) {
                setenv(names[k], cases[i].env[k], 1);
            }
        }
        parse_ok(&env, cases[i].url, &target);
        memset(&err, 0, sizeof(err));
        status = gpn_proxy_for(&env, cases[i].proxy, cases[i].no_proxy, &target,
                               &proxy, &err);
        assert_int_equal(status, err.status);
        if (proxy.host != NULL) {
            gpn_url_authority(&proxy, authority, sizeof(authority));
        }
        if (status != GPTNER_OK) {
            strcpy(authority, "!");
            assert_null(proxy.host);
            assert_null(strstr(err.message, "secret"));
        }
        if (strcmp(authority, cases[i].want) != 0) {
            fail_msg("case %d: %s", (int)i, authority);
        }
        gpn_url_deinit(&proxy);
        gpn_url_deinit(&target);
    }
    for (k = 0; k < 8; k++) {
        unsetenv(names[k]);
    }
}

/* ---- HTTP-date ----------------------------------------------------------- */

static void three_forms_of_dates_are_read(void **state)
{
    static const struct {
        const char *text_of;
        int64_t unix_s; /* -1: refused */
    } cases[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        {"Sun Nov  6 08:49:37 1994", 784111777},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Tue, 29 Feb 2000 23:59:59 GMT", 951868799},
        {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800},
        {"Wednesday, 01-Jan-69 00:00:00 GMT", -31536000},
        {"Sunday, 01-Jan-68 00:00:00 GMT", 3092601600},
        {"", -1},
        {"Sun", -1},
        {"Sunday, ", -1},
        {"Sun, 06 Nov 1994 08:49:37", -1},
        {"Sun, 06 Nov 1994 08:49:37 GMT ", -1},
        {"Sun, 06 Nov 1994 08:49:37 UTC", -1},
        {"Sun, 6 Nov 1994 08:49:37 GMT", -1},
        {"sun, 06 Nov 1994 08:49:37 GMT", -1},
        {"Xxx, 06 Nov 1994 08:49:37 GMT", -1},
        {"Sun, 06 Now 1994 08:49:37 GMT", -1},
        {"Sun, 00 Nov 1994 08:49:37 GMT", -1},
        {"Wed, 31 Nov 1994 08:49:37 GMT", -1},
        {"Wed, 29 Feb 1900 08:49:37 GMT", -1},
        {"Sun, 06 Nov 1994 24:49:37 GMT", -1},
        {"Sun, 06 Nov 1994 08:60:37 GMT", -1},
        {"Sun, 06 Nov 1994 08:49:61 GMT", -1},
        {"Sun, 06 Nov 0000 08:49:37 GMT", -1},
        {"Sun, +6 Nov 1994 08:49:37 GMT", -1},
        {"Sunday, 06 Nov 1994 08:49:37 GMT", -1},
        {"Sunday, 06-Nov-1994 08:49:37 GMT", -1},
        {"Sun Nov 06 08:49:37 1994", 784111777},
        {"Sun Nov  6 08:49:37 94", -1},
    };
    test_page page;
    size_t i;
    (void)state;
    test_page_init(&page, 100);
    for (i = 0; i < TEST_COUNT(cases); i++) {
        size_t len = strlen(cases[i].text_of);
        int64_t got = -1;
        gptner_str s =
            gpn_str(test_page_put(&page, cases[i].text_of, len), len);
        bool ok = gpn_http_date(s, &got);
        if (ok != (cases[i].unix_s != -1) || (ok && got != cases[i].unix_s)) {
            fail_msg("%s: %" PRId64, cases[i].text_of, got);
        }
    }
    test_page_deinit(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_response_means_the_same_however_it_is_cut),
        cmocka_unit_test(a_nul_in_a_head_is_refused),
        cmocka_unit_test(no_body_follows_a_head_request_or_a_tunnel),
        cmocka_unit_test(a_body_until_close_needs_an_orderly_close),
        cmocka_unit_test(every_limit_of_a_response_is_kept_to_the_byte),
        cmocka_unit_test(a_body_without_length_over_the_limit_is_refused),
        cmocka_unit_test(headers_are_found_in_any_case_and_trailers_are_not),
        cmocka_unit_test(a_failed_response_stays_failed),
        cmocka_unit_test(reading_allocates_only_at_first),
        cmocka_unit_test(a_response_survives_any_failing_allocation),
        cmocka_unit_test(the_responses_of_the_corpus),
        cmocka_unit_test(events_are_the_same_however_they_are_cut),
        cmocka_unit_test(an_id_with_nul_is_ignored),
        cmocka_unit_test(long_events_are_refused_and_long_comments_are_not),
        cmocka_unit_test(events_survive_any_failing_allocation),
        cmocka_unit_test(the_event_streams_of_the_corpus),
        cmocka_unit_test(urls_are_taken_apart),
        cmocka_unit_test(urls_that_mean_two_things_are_refused),
        cmocka_unit_test(user_and_password_are_decoded_and_never_shown),
        cmocka_unit_test(urls_are_read_within_their_bounds),
        cmocka_unit_test(long_urls_are_refused),
        cmocka_unit_test(the_urls_of_the_corpus),
        cmocka_unit_test(a_request_head_is_written),
        cmocka_unit_test(nothing_can_be_injected_into_a_request),
        cmocka_unit_test(a_piece_of_a_path_is_encoded),
        cmocka_unit_test(a_multipart_body_has_its_length_in_any_pieces),
        cmocka_unit_test(boundaries_differ),
        cmocka_unit_test(a_file_that_shrinks_is_never_padded),
        cmocka_unit_test(parts_that_cannot_be_sent_are_refused_at_once),
        cmocka_unit_test(multipart_survives_any_failing_call),
        cmocka_unit_test(no_proxy_lists_are_matched),
        cmocka_unit_test(the_proxy_is_chosen_by_the_rules),
        cmocka_unit_test(three_forms_of_dates_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
