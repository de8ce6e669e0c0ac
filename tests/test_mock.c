/* The mock server, driven by bytes on sockets that this file writes itself:
 * neither our client nor anybody else's HTTP code stands between. Most tests
 * step the mock in this thread, under a clock of their own. */
#define MOCK_OPENAI_STATIC
#define MOCK_OPENAI_IMPLEMENTATION
#include "../mock_server/mock_openai.h"

#include <setjmp.h>
#include <sys/resource.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- the rig: a mock in manual mode, its clock, one reply ---- */

typedef struct rig {
    mock_options opt;
    mock_server *mock;
    int64_t now;
    int64_t next; /* when the mock wants to be stepped */
    /* the last reply */
    char *data;
    size_t len, cap;
    bool closed, reset;
    int status;
    char body[65536]; /* dechunked, NUL-terminated */
    size_t body_len;
} rig;

static int64_t rig_clock(void *user)
{
    return ((rig *)user)->now;
}

static int64_t rig_unix(void *user)
{
    return ((rig *)user)->now + 1790000000000; /* 2026-09-21 */
}

static void rig_start(rig *r)
{
    char why[256];

    r->now = 1000;
    r->opt.manual = true;
    r->opt.clock_ms_fn = rig_clock;
    r->opt.unix_ms_fn = rig_unix;
    r->opt.clock_user = r;
    if (!mock_server_start(&r->opt, &r->mock, why, sizeof why)) {
        fail_msg("%s", why);
    }
}

static void rig_fault(rig *r, const char *spec)
{
    char why[128];

    mock_server_fault(r->mock, NULL, NULL, 0);
    if (!mock_server_fault(r->mock, spec, why, sizeof why)) {
        fail_msg("%s", why);
    }
}

static rig *rig_new(void)
{
    rig *r = (rig *)calloc(1, sizeof *r);

    assert_non_null(r);
    return r;
}

static void rig_free(rig *r)
{
    mock_server_stop(r->mock);
    free(r->data);
    free(r);
}

static int rig_connect(const rig *r)
{
    struct sockaddr_in to;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;

    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)mock_server_port(r->mock));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static bool rig_step(rig *r)
{
    bool progress = false;

    r->next = mock_server_step(r->mock, &progress);
    return progress;
}

static void rig_send(int fd, const char *data, size_t len)
{
    assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void rig_text(int fd, const char *text)
{
    rig_send(fd, text, strlen(text));
}

/* Steps the mock and reads until neither has anything more. */
static void rig_read(rig *r, int fd)
{
    int idle = 0;

    r->len = 0;
    r->closed = r->reset = false;
    while (idle < 3 && !r->closed) {
        struct pollfd p;
        ssize_t n;

        idle = rig_step(r) ? 0 : idle + 1;
        if (r->cap - r->len < 65536) {
            r->cap = r->cap * 2 + 131072;
            r->data = (char *)realloc(r->data, r->cap);
            assert_non_null(r->data);
        }
        p.fd = fd;
        p.events = POLLIN;
        poll(&p, 1, idle > 0 ? 2 : 0);
        n = recv(fd, r->data + r->len, r->cap - r->len - 1, MSG_DONTWAIT);
        if (n > 0) {
            r->len += (size_t)n;
            idle = 0;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            r->closed = true;
            r->reset = n < 0;
        }
    }
    r->data[r->len] = '\0';
}

/* Lower-case names of the mock's heads make this simple. */
static const char *rig_header(const rig *r, const char *name)
{
    static char value[256]; /* tests run one after the other */
    const char *end = strstr(r->data, "\r\n\r\n");
    char needle[64];
    const char *at;
    size_t n;

    snprintf(needle, sizeof needle, "\r\n%s: ", name);
    at = strstr(r->data, needle);
    if (at == NULL || end == NULL || at > end) {
        return NULL;
    }
    at += strlen(needle);
    n = strcspn(at, "\r");
    snprintf(value, sizeof value, "%.*s", (int)n, at);
    return value;
}

/* Splits what was read into status and body. */
static void rig_parse(rig *r)
{
    char *at;
    size_t head;

    r->status = 0;
    r->body_len = 0;
    r->body[0] = '\0';
    while (strncmp(r->data, "HTTP/1.1 1", 10) == 0) { /* interim */
        head = (size_t)(strstr(r->data, "\r\n\r\n") + 4 - r->data);
        r->len -= head;
        memmove(r->data, r->data + head, r->len + 1);
    }
    if (strncmp(r->data, "HTTP/1.", 7) != 0) {
        return;
    }
    r->status = (int)strtol(r->data + 9, NULL, 10);
    at = strstr(r->data, "\r\n\r\n");
    if (at == NULL) {
        return;
    }
    at += 4;
    head = (size_t)(at - r->data);
    if (rig_header(r, "transfer-encoding") == NULL) {
        r->body_len = r->len - head;
        memcpy(r->body, at, r->body_len < 65535 ? r->body_len : 65535);
    } else {
        size_t n = (size_t)strtol(at, &at, 16);

        while (n > 0 && r->body_len + n < sizeof r->body) {
            at = strstr(at, "\r\n") + 2;
            memcpy(r->body + r->body_len, at, n);
            r->body_len += n;
            n = (size_t)strtol(at + n + 2, &at, 16);
        }
    }
    r->body[r->body_len < 65535 ? r->body_len : 65535] = '\0';
}

static void rig_post(int fd, const char *path, const char *body)
{
    char head[512];

    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
             "sk-test\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n",
             path, strlen(body));
    rig_text(fd, head);
    rig_text(fd, body);
}

#define CHAT "/v1/chat/completions"

static const char *say(const char *text)
{
    static char body[4096];

    snprintf(body, sizeof body,
             "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\","
             "\"content\":\"%s\"}]}",
             text);
    return body;
}

/* One POST over a connection of its own, read to the end. */
static void rig_ask(rig *r, const char *path, const char *body)
{
    int fd = rig_connect(r);

    rig_post(fd, path, body);
    rig_read(r, fd);
    rig_parse(r);
    close(fd);
    rig_step(r);
}

static void rig_get(rig *r, const char *path)
{
    char head[512];
    int fd = rig_connect(r);

    snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n",
             path);
    rig_text(fd, head);
    rig_read(r, fd);
    rig_parse(r);
    close(fd);
    rig_step(r);
}

static void rig_post_mock(rig *r, const char *path, const char *body)
{
    char head[256];
    int fd = rig_connect(r);

    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
             "%zu\r\n\r\n",
             path, strlen(body));
    rig_text(fd, head);
    rig_text(fd, body);
    rig_read(r, fd);
    rig_parse(r);
    close(fd);
    rig_step(r);
}

/* The text (or number, or word) at a path of the reply's JSON. */
static const char *rig_json(const rig *r, const char *path)
{
    static char out[8][4096];
    static int turn;
    mki_arena arena = MKI_ZERO;
    const mki_json *v = mki_json_parse(&arena, mki_s(r->body, strlen(r->body)));
    char *text = out[turn = (turn + 1) % 8];

    while (v != NULL && *path != '\0') {
        char key[64];
        size_t n = strcspn(path, ".");
        size_t i;

        snprintf(key, sizeof key, "%.*s", (int)n, path);
        if (v->type == MKI_ARRAY) {
            i = (size_t)strtol(key, NULL, 10);
            for (v = v->child; v != NULL && i > 0; i--) {
                v = v->next;
            }
        } else {
            v = mki_get(v, key);
        }
        path += n + (path[n] == '.' ? 1 : 0);
    }
    snprintf(text, 4096, "%.*s", v != NULL ? (int)v->text.len : 6,
             v != NULL ? v->text.ptr : "(none)");
    mki_arena_reset(&arena, true);
    return text;
}

#define CONTENT "choices.0.message.content"

static int64_t counted(const rig *r, const char *path)
{
    return mock_server_count(r->mock, path);
}

static void assert_card(rig *r, const char *code, int n)
{
    if (mock_server_findings(r->mock, code) != n) {
        char *card = mock_server_report(r->mock);

        print_error("%s", card);
        mock_text_free(card);
        fail_msg("%s: %d expected", code != NULL ? code : "all", n);
    }
}

/* ---- HTTP ---- */

static void a_plain_answer_has_the_documented_shape(void **state)
{
    rig *r = rig_new();

    (void)state;
    rig_start(r);
    rig_ask(r, CHAT, say("Gr\\u00fc\\u00dfe, \\ud83d\\ude00 \\\"x\\\"\\n"));
    assert_int_equal(r->status, 200);
    assert_false(r->closed);
    assert_string_equal(rig_json(r, CONTENT), "Gr\xc3\xbc\xc3\x9f"
                                              "e, \xf0\x9f\x98\x80 \"x\"\n");
    assert_string_equal(rig_json(r, "object"), "chat.completion");
    assert_string_equal(rig_json(r, "model"), "gpt-4o-mini-2024-07-18");
    assert_string_equal(rig_json(r, "choices.0.finish_reason"), "stop");
    assert_string_equal(rig_json(r, "choices.0.message.refusal"), "null");
    assert_string_equal(rig_json(r, "created"), "1790000001");
    assert_non_null(strstr(rig_header(r, "x-request-id"), "req_"));
    assert_string_equal(rig_header(r, "openai-version"), "2020-10-01");
    assert_string_equal(rig_header(r, "content-type"), "application/json");
    assert_string_equal(rig_header(r, "date"), "Mon, 21 Sep 2026 14:13:21 GMT");
    assert_int_equal(counted(r, "responses.200"), 1);
    assert_int_equal(counted(r, "requests.POST " CHAT), 1);
    assert_int_equal(counted(r, "connections"), 1);
    rig_free(r);
}

static void one_connection_carries_many_requests_also_pipelined(void **state)
{
    rig *r = rig_new();
    int fd;
    int i;

    (void)state;
    rig_start(r);
    fd = rig_connect(r);
    for (i = 0; i < 5; i++) {
        rig_post(fd, CHAT, say("again"));
        rig_read(r, fd);
        rig_parse(r);
        assert_int_equal(r->status, 200);
        assert_false(r->closed);
    }
    rig_post(fd, CHAT, say("first"));
    rig_post(fd, CHAT, say("second"));
    rig_read(r, fd);
    assert_non_null(strstr(r->data, "\"first\""));
    assert_non_null(strstr(strstr(r->data, "\"first\""), "\"second\""));
    assert_int_equal(counted(r, "connections"), 1);
    assert_int_equal(counted(r, "prompts_answered"), 3);
    assert_int_equal(counted(r, "prompts_answered_again"), 4);
    close(fd);
    rig_free(r);
}

static void a_request_may_come_byte_by_byte_and_chunked(void **state)
{
    static const char request[] =
        "\r\nPOST " CHAT " HTTP/1.1\r\nhost: localhost:1\r\n"
        "content-type: application/json; charset=utf-8\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
        "1;ext=1\r\n{\r\n"
        "2C\r\n\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"cont\r\n"
        "10\r\nent\":\"a\\r\\nb\"}]}\r\n"
        "0\r\ntrailer: x\r\n\r\n";
    rig *r = rig_new();
    size_t i;
    int fd;

    (void)state;
    rig_start(r);
    fd = rig_connect(r);
    for (i = 0; i + 1 < sizeof request; i++) {
        rig_send(fd, request + i, 1);
        rig_step(r);
    }
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 200);
    assert_string_equal(rig_json(r, CONTENT), "a\r\nb");
    rig_send(fd, request, sizeof request - 1); /* and whole */
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 200);
    close(fd);
    rig_free(r);
}

static void expect_100_continue_is_answered_first(void **state)
{
    rig *r = rig_new();
    char head[256];
    int fd;

    (void)state;
    rig_start(r);
    fd = rig_connect(r);
    snprintf(head, sizeof head,
             "POST " CHAT " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             strlen(say("x")));
    rig_text(fd, head);
    rig_read(r, fd);
    assert_string_equal(r->data, "HTTP/1.1 100 Continue\r\n\r\n");
    rig_send(fd, say("x"), strlen(say("x")));
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 200);
    close(fd);
    rig_free(r);
}

static void malformed_requests_are_refused_with_their_status(void **state)
{
    static const struct {
        int status;
        const char *request;
    } cases[] = {
        {400, "GET /v1/models HTTP/1.1\r\n\r\n"},
        {400, "GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
        {400, "GET  /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"},
        {400, "GET v1/models HTTP/1.1\r\nHost: a\r\n\r\n"},
        {400, "G\xc3\xa4T /v1 HTTP/1.1\r\nHost: a\r\n\r\n"},
        {400, "GET /v1/models\r\n\r\n"},
        {505, "GET /v1/models HTTP/2.0\r\nHost: a\r\n\r\n"},
        {400, "GET /v1 HTTP/1.1\r\nHost: a\r\nbad header: x\r\n\r\n"},
        {400, "GET /v1 HTTP/1.1\r\nHost: a\r\nx: y\r\n folded\r\n\r\n"},
        {400, "GET /v1 HTTP/1.1\r\nHost: a\r\nx: y\nz: 1\r\n\r\n"},
        {400, "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"},
        {400, "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n"},
        {400, "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
              "Content-Length: 2\r\n\r\n"},
        {400, "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
              "Transfer-Encoding: chunked\r\n\r\n"},
        {501, "POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n"
              "\r\n"},
        {413, "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n"
              "\r\n"},
        {400, "POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
              "\r\nxyz\r\n"},
        {400, "POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
              "\r\n2\r\nabcd\r\n"},
        {413, "POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
              "\r\nffffffffff\r\n"},
    };
    rig *r = rig_new();
    size_t i;

    (void)state;
    rig_start(r);
    for (i = 0; i < COUNT(cases); i++) {
        int fd = rig_connect(r);

        rig_send(fd, cases[i].request, strlen(cases[i].request));
        rig_read(r, fd);
        rig_parse(r);
        if (r->status != cases[i].status || !r->closed) {
            fail_msg("case %d: %d, closed %d", (int)i, r->status, r->closed);
        }
        close(fd);
        rig_step(r);
    }
    assert_int_equal(counted(r, "requests.other"), COUNT(cases));
    rig_free(r);
}

static void heads_without_end_are_refused(void **state)
{
    rig *r = rig_new();
    char filler[1024];
    int fd;
    int i;

    (void)state;
    memset(filler, 'a', sizeof filler);
    rig_start(r);
    fd = rig_connect(r);
    rig_text(fd, "GET /v1/models HTTP/1.1\r\nx: ");
    for (i = 0; i < 70; i++) {
        rig_send(fd, filler, sizeof filler);
        rig_step(r);
    }
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 431);
    close(fd);
    rig_free(r);
}

static void http_1_0_and_connection_close_end_the_connection(void **state)
{
    rig *r = rig_new();
    int fd;

    (void)state;
    rig_start(r);
    fd = rig_connect(r);
    rig_text(fd, "GET /v1/models/gpt-4o HTTP/1.0\r\n\r\n");
    rig_read(r, fd);
    assert_true(r->closed);
    assert_null(rig_header(r, "transfer-encoding"));
    close(fd);
    fd = rig_connect(r);
    rig_text(fd, "GET /v1/models/gpt-4o HTTP/1.1\r\nHost: a\r\n"
                 "Connection: close\r\n\r\n");
    rig_read(r, fd);
    assert_true(r->closed);
    assert_false(r->reset);
    assert_string_equal(rig_header(r, "connection"), "close");
    close(fd);
    rig_free(r);
}

static void a_client_that_shuts_its_side_still_gets_the_answer(void **state)
{
    rig *r = rig_new();
    int fd;

    (void)state;
    r->opt.latency_ms = 100;
    rig_start(r);
    fd = rig_connect(r);
    rig_post(fd, CHAT, say("x"));
    shutdown(fd, SHUT_WR);
    rig_read(r, fd);
    assert_int_equal(r->len, 0);
    r->now += 100;
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 200);
    assert_true(r->closed);
    close(fd);
    rig_free(r);
}

/* ---- routes, keys, validation ---- */

static void wrong_paths_methods_and_types_have_the_real_errors(void **state)
{
    rig *r = rig_new();
    int fd;

    (void)state;
    rig_start(r);
    rig_ask(r, "/v1/nonsense", "{}");
    assert_int_equal(r->status, 404);
    assert_string_equal(rig_json(r, "error.message"),
                        "Invalid URL (POST /v1/nonsense)");
    assert_string_equal(rig_json(r, "error.type"), "invalid_request_error");
    assert_string_equal(rig_json(r, "error.param"), "null");
    rig_get(r, CHAT);
    assert_int_equal(r->status, 405);
    assert_string_equal(rig_header(r, "allow"), "POST");
    rig_get(r, "/v1/models/no%2Fsuch");
    assert_int_equal(r->status, 404);
    assert_string_equal(rig_json(r, "error.code"), "model_not_found");
    assert_non_null(strstr(r->body, "`no/such`"));
    rig_ask(r, CHAT, "{\"model\":");
    assert_int_equal(r->status, 400);
    assert_non_null(strstr(r->body, "could not parse the JSON body"));
    fd = rig_connect(r);
    rig_text(fd,
             "POST " CHAT " HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
             "Content-Length: 2\r\n\r\n{}");
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 415);
    close(fd);
    rig_free(r);
}

static void keys_are_checked_and_masked(void **state)
{
    rig *r = rig_new();
    int fd;

    (void)state;
    r->opt.api_key = "sk-the-right-key";
    rig_start(r);
    rig_get(r, "/v1/models");
    assert_int_equal(r->status, 401);
    assert_string_equal(rig_json(r, "error.code"), "null");
    rig_ask(r, CHAT, say("x")); /* sk-test */
    assert_int_equal(r->status, 401);
    assert_string_equal(rig_json(r, "error.code"), "invalid_api_key");
    assert_null(strstr(r->body, "sk-test"));
    fd = rig_connect(r);
    rig_text(fd, "GET /openai/models HTTP/1.1\r\nHost: a\r\n"
                 "api-key: sk-the-right-key\r\n\r\n");
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 200);
    rig_text(fd, "GET /mock/stats HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 200);
    close(fd);
    rig_free(r);
}

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
#define ASK  "{\"model\":\"gpt-4o-mini\"," USER
#define SCHEMA                                                         \
    ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{" \
    "\"name\":\"n\",\"strict\":true,\"schema\":"

static void bad_bodies_name_their_parameter(void **state)
{
    static const struct {
        const char *body, *param, *code;
    } cases[] = {
        {"[]", "null", "null"},
        {"{" USER "}", "null", "null"},
        {"{\"model\":5," USER "}", "model", "invalid_type"},
        {"{\"model\":\"m\"}", "messages", "missing_required_parameter"},
        {"{\"model\":\"m\",\"messages\":null}", "messages",
         "missing_required_parameter"},
        {"{\"model\":\"m\",\"messages\":[]}", "messages", "empty_array"},
        {"{\"model\":\"m\",\"messages\":{}}", "messages", "invalid_type"},
        {"{\"model\":\"m\",\"messages\":[5]}", "messages[0]", "invalid_type"},
        {"{\"model\":\"m\",\"messages\":[{\"content\":\"x\"}]}",
         "messages[0].role", "missing_required_parameter"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}",
         "messages[0].content", "missing_required_parameter"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":1}]}",
         "messages[0].content", "invalid_type"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":"
         "[{\"type\":\"text\"}]}]}",
         "messages[0].content[0].text", "missing_required_parameter"},
        {"{\"model\":\"m\",\"messages\":[{\"role\":\"tool\",\"content\":"
         "\"x\"}]}",
         "messages[0].tool_call_id", "missing_required_parameter"},
        {ASK ",\"temperature\":2.1}", "temperature", "decimal_above_max_value"},
        {ASK ",\"temperature\":\"1\"}", "temperature", "invalid_type"},
        {ASK ",\"top_p\":-0.1}", "top_p", "decimal_below_min_value"},
        {ASK ",\"n\":1.5}", "n", "invalid_type"},
        {ASK ",\"n\":129}", "n", "integer_above_max_value"},
        {ASK ",\"max_tokens\":0}", "max_tokens", "integer_below_min_value"},
        {ASK ",\"stream\":\"yes\"}", "stream", "invalid_type"},
        {ASK ",\"stream_options\":{}}", "stream_options", "null"},
        {ASK ",\"top_logprobs\":3}", "top_logprobs", "null"},
        {ASK ",\"logit_bias\":{\"5\":101}}", "logit_bias.5", "invalid_value"},
        {ASK ",\"metadata\":{\"a\":1}}", "metadata.a", "invalid_type"},
        {ASK ",\"service_tier\":\"gold\"}", "service_tier", "invalid_value"},
        {ASK ",\"best_of\":1}", "best_of", "unknown_parameter"},
        {ASK ",\"tools\":[]}", "tools", "empty_array"},
        {ASK ",\"tools\":[{\"type\":\"function\",\"function\":{}}]}",
         "tools[0].function.name", "missing_required_parameter"},
        {ASK ",\"response_format\":{\"type\":\"xml\"}}", "response_format.type",
         "invalid_value"},
        {ASK ",\"response_format\":{\"type\":\"json_object\"}}", "messages",
         "null"},
        {ASK ",\"response_format\":{\"type\":\"json_schema\"}}",
         "response_format.json_schema", "missing_required_parameter"},
        {ASK SCHEMA "{\"type\":\"array\"}}}}", "response_format", "null"},
        {ASK SCHEMA "{\"type\":\"object\",\"properties\":{}}}}}",
         "response_format", "null"},
        {ASK SCHEMA "{\"type\":\"object\",\"properties\":{\"a\":{}},"
                    "\"required\":[],\"additionalProperties\":false}}}}",
         "response_format", "null"},
        {ASK SCHEMA "{\"type\":\"object\",\"properties\":{\"a\":{\"allOf\":[]}}"
                    ",\"required\":[\"a\"],\"additionalProperties\":false}}}}",
         "response_format", "null"},
    };
    rig *r = rig_new();
    size_t i;

    (void)state;
    rig_start(r);
    for (i = 0; i < COUNT(cases); i++) {
        rig_ask(r, CHAT, cases[i].body);
        if (r->status != 400 ||
            strcmp(rig_json(r, "error.param"), cases[i].param) != 0 ||
            strcmp(rig_json(r, "error.code"), cases[i].code) != 0) {
            fail_msg("%s: %d %s", cases[i].body, r->status, r->body);
        }
    }
    assert_int_equal(counted(r, "responses.400"), COUNT(cases));
    assert_card(r, "retried_final", 0);
    rig_ask(r, CHAT, ASK ",\"temperature\":null,\"n\":1.0,\"stop\":null}");
    assert_int_equal(r->status, 200);
    rig_free(r);
}

static void other_endpoints_are_validated_as_well(void **state)
{
    static const struct {
        const char *path, *body, *param;
    } cases[] = {
        {"/v1/completions", "{\"model\":\"m\",\"prompt\":1}", "prompt"},
        {"/v1/completions", "{\"model\":\"m\",\"n\":3,\"best_of\":2}",
         "best_of"},
        {"/v1/completions", "{\"model\":\"m\",\"logprobs\":true}", "logprobs"},
        {"/v1/completions", "{\"model\":\"m\",\"messages\":[]}", "messages"},
        {"/v1/embeddings", "{\"model\":\"m\"}", "input"},
        {"/v1/embeddings", "{\"model\":\"m\",\"input\":\"\"}", "input"},
        {"/v1/embeddings", "{\"model\":\"m\",\"input\":[]}", "input"},
        {"/v1/embeddings", "{\"model\":\"m\",\"input\":[\"a\",1]}", "input"},
        {"/v1/embeddings",
         "{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"hex\"}",
         "encoding_format"},
        {"/v1/embeddings",
         "{\"model\":\"text-embedding-ada-002\",\"input\":\"a\","
         "\"dimensions\":8}",
         "dimensions"},
        {"/v1/embeddings",
         "{\"model\":\"text-embedding-3-small\",\"input\":\"a\","
         "\"dimensions\":1537}",
         "dimensions"},
    };
    rig *r = rig_new();
    size_t i;

    (void)state;
    rig_start(r);
    for (i = 0; i < COUNT(cases); i++) {
        rig_ask(r, cases[i].path, cases[i].body);
        if (r->status != 400 ||
            strcmp(rig_json(r, "error.param"), cases[i].param) != 0) {
            fail_msg("%s: %d %s", cases[i].body, r->status, r->body);
        }
    }
    rig_free(r);
}

static void model_profiles_refuse_what_the_models_refuse(void **state)
{
    static const struct {
        const char *model, *more;
        int status;
        const char *param, *code;
    } cases[] = {
        {"gpt-4o-mini", ",\"max_tokens\":5,\"temperature\":0", 200, "", ""},
        {"gpt-4o-2024-08-06", "", 200, "", ""},
        {"ft:gpt-4o-mini:org::id", ",\"temperature\":0", 200, "", ""},
        {"gpt-4o-mini", ",\"reasoning_effort\":\"low\"", 400,
         "reasoning_effort", "unsupported_parameter"},
        {"gpt-77", "", 404, "null", "model_not_found"},
        {"text-davinci-003", "", 404, "null", "model_not_found"},
        {"text-embedding-3-small", "", 404, "model", "null"},
        {"o3", ",\"max_tokens\":5", 400, "max_tokens", "unsupported_parameter"},
        {"o3", ",\"temperature\":0", 400, "temperature", "unsupported_value"},
        {"o3", ",\"temperature\":1", 200, "", ""},
        {"o3", ",\"reasoning_effort\":\"none\"", 400, "reasoning_effort",
         "unsupported_value"},
        {"gpt-5", ",\"top_p\":0.5", 400, "top_p", "unsupported_parameter"},
        {"gpt-5", ",\"presence_penalty\":1", 400, "presence_penalty",
         "unsupported_parameter"},
        {"gpt-5.2", ",\"temperature\":0", 200, "", ""},
        {"gpt-5.2", ",\"temperature\":0,\"reasoning_effort\":\"low\"", 400,
         "temperature", "unsupported_value"},
        {"gpt-6-luna", ",\"temperature\":0", 400, "temperature",
         "unsupported_value"},
        {"gpt-6-luna", ",\"temperature\":0,\"reasoning_effort\":\"none\"", 200,
         "", ""},
        {"gpt-6-astra", ",\"reasoning_effort\":\"none\"", 400,
         "reasoning_effort", "unsupported_value"},
    };
    rig *r = rig_new();
    char body[512];
    size_t i;

    (void)state;
    r->opt.model_profiles = true;
    rig_start(r);
    for (i = 0; i < COUNT(cases); i++) {
        snprintf(body, sizeof body, "{\"model\":\"%s\"," USER "%s}",
                 cases[i].model, cases[i].more);
        rig_ask(r, CHAT, body);
        if (r->status != cases[i].status ||
            (r->status != 200 &&
             (strcmp(rig_json(r, "error.param"), cases[i].param) != 0 ||
              strcmp(rig_json(r, "error.code"), cases[i].code) != 0))) {
            fail_msg("%s: %d %s", body, r->status, r->body);
        }
    }
    r->now += (int64_t)40 * 86400 * 1000; /* past 2026-10-23 */
    rig_ask(r, CHAT, "{\"model\":\"o4-mini\"," USER "}");
    assert_int_equal(r->status, 404);
    rig_ask(r, "/v1/completions", "{\"model\":\"gpt-4o\",\"prompt\":\"x\"}");
    assert_int_equal(r->status, 404);
    rig_free(r);
}

/* ---- answers ---- */

static void hash_replies_prove_the_whole_conversation(void **state)
{
    rig *r = rig_new();

    (void)state;
    r->opt.reply = "hash";
    rig_start(r);
    rig_ask(r, CHAT, say("x"));
    /* printf 'user\nx\n' | sha256sum */
    assert_string_equal(rig_json(r, CONTENT), "24f6eb12ece4d924");
    rig_ask(r, CHAT,
            "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":"
            "\"s\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
            "\"text\":\"x\"}]}]}");
    /* printf 'system\ns\nuser\nx\n' | sha256sum */
    assert_string_equal(rig_json(r, CONTENT), "633fa7d32ae0947c");
    rig_free(r);
}

static void scripts_answer_by_content_and_in_sequence(void **state)
{
    rig *r = rig_new();

    (void)state;
    r->opt.script =
        "{\"contains\":\"Paris\",\"reply\":\"France\"}\r\n\n"
        "{\"contains\":\"count\",\"replies\":[\"one\",{\"status\":500},"
        "\"three\"]}\n"
        "{\"contains\":\"long\",\"reply\":\"cut\",\"finish_reason\":"
        "\"length\"}\n";
    rig_start(r);
    rig_ask(r, CHAT, say("Where is Paris?"));
    assert_string_equal(rig_json(r, CONTENT), "France");
    rig_ask(r, CHAT, say("count"));
    assert_string_equal(rig_json(r, CONTENT), "one");
    rig_ask(r, CHAT, say("count"));
    assert_int_equal(r->status, 500);
    rig_ask(r, CHAT, say("count"));
    assert_string_equal(rig_json(r, CONTENT), "three");
    rig_ask(r, CHAT, say("count"));
    assert_string_equal(rig_json(r, CONTENT), "three");
    rig_ask(r, CHAT, say("long"));
    assert_string_equal(rig_json(r, "choices.0.finish_reason"), "length");
    rig_ask(r, CHAT, say("nothing fits"));
    assert_string_equal(rig_json(r, CONTENT), "nothing fits");
    rig_free(r);
}

static void entities_are_marked_in_prompts_and_plain_sentences(void **state)
{
    static const char instruction[] =
        "The task is to label %s entities in the given sentence.\\n"
        "Input: Only France and Britain backed Fischler 's proposal .\\n"
        "Output: Only @@France## and @@Britain## backed Fischler 's "
        "proposal .\\n"
        "Input: Angela Merkel met Siemens Group managers in Munich on 3 May "
        "2019 .\\nOutput:";
    static const struct {
        const char *label, *answer;
    } cases[] = {
        {"person", "@@Angela Merkel## met Siemens Group managers in Munich on "
                   "3 May 2019 ."},
        {"location", "Angela Merkel met Siemens Group managers in @@Munich## "
                     "on 3 May 2019 ."},
        {"organization", "Angela Merkel met @@Siemens Group## managers in "
                         "Munich on 3 May 2019 ."},
        {"date", "Angela Merkel met Siemens Group managers in Munich on @@3 "
                 "May 2019## ."},
    };
    rig *r = rig_new();
    char prompt[1024];
    size_t i;

    (void)state;
    r->opt.reply = "ner";
    rig_start(r);
    for (i = 0; i < COUNT(cases); i++) {
        mki_buf b = MKI_ZERO;
        const char *at = strstr(instruction, "%s");

        mki_buf_add(&b, instruction, (size_t)(at - instruction));
        mki_buf_s(&b, cases[i].label);
        mki_buf_s(&b, at + 2);
        snprintf(prompt, sizeof prompt, "%.*s", (int)b.len, b.data);
        mki_buf_free(&b);
        rig_ask(r, CHAT, say(prompt));
        assert_string_equal(rig_json(r, CONTENT), cases[i].answer);
    }
    rig_ask(r, CHAT, say("The mayor of Oslo, Dr. Erik Lund, resigned."));
    assert_string_equal(rig_json(r, CONTENT),
                        "The mayor of @@Oslo##, Dr. @@Erik Lund##, resigned.");
    rig_ask(r, CHAT,
            say("The given sentence: Maria lives in Lima .\\nIs the word "
                "\\\"Lima\\\" in the given sentence a location entity? Please "
                "answer with yes or no."));
    assert_string_equal(rig_json(r, CONTENT), "yes");
    rig_free(r);
}

static void stop_and_limits_cut_the_answer(void **state)
{
    rig *r = rig_new();

    (void)state;
    rig_start(r);
    rig_ask(r, CHAT,
            "{\"model\":\"m\",\"stop\":[\"zzz\",\" three\"],\"messages\":[{"
            "\"role\":\"user\",\"content\":\"one two three\"}]}");
    assert_string_equal(rig_json(r, CONTENT), "one two");
    assert_string_equal(rig_json(r, "choices.0.finish_reason"), "stop");
    rig_ask(r, CHAT,
            "{\"model\":\"m\",\"max_completion_tokens\":2,\"n\":2,"
            "\"messages\":[{\"role\":\"user\",\"content\":\"one two "
            "three\"}]}");
    assert_string_equal(rig_json(r, "choices.1.message.content"), "one two");
    assert_string_equal(rig_json(r, "choices.1.finish_reason"), "length");
    assert_string_equal(rig_json(r, "usage.completion_tokens"), "4");
    rig_free(r);
}

static void schemas_get_their_smallest_instance(void **state)
{
    static const struct {
        const char *schema, *instance;
    } cases[] = {
        {"{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"boolean\"},"
         "\"a\":{\"type\":\"string\"}},\"required\":[\"a\",\"b\"]}",
         "{\"a\":\"\",\"b\":false}"},
        {"{\"type\":\"array\",\"minItems\":2,\"items\":{\"type\":"
         "\"integer\",\"minimum\":3}}",
         "[3,3]"},
        {"{\"enum\":[\"x\",\"y\"]}", "\"x\""},
        {"{\"const\":[1, 2]}", "[1, 2]"},
        {"{\"type\":\"string\",\"minLength\":3}", "\"xxx\""},
        {"{\"type\":\"string\",\"format\":\"date\"}", "\"2000-01-01\""},
        {"{\"type\":[\"number\",\"null\"],\"exclusiveMinimum\":4}", "5"},
        {"{\"type\":\"integer\",\"minimum\":5,\"multipleOf\":4}", "8"},
        {"{\"type\":\"integer\",\"maximum\":-5,\"multipleOf\":4}", "-8"},
        {"{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"type\":\"null\"}}}",
         "null"},
        {"{\"anyOf\":[{\"type\":\"boolean\"},{\"type\":\"null\"}]}", "false"},
        {"{\"$ref\":\"#\"}", "null"},
    };
    mki_arena arena = MKI_ZERO;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        const mki_json *schema =
            mki_json_parse(&arena, mki_sc(cases[i].schema));
        mki_buf b = MKI_ZERO;

        assert_non_null(schema);
        mki_instance(&b, schema, schema, 0);
        mki_buf_c(&b, '\0');
        assert_string_equal(b.data, cases[i].instance);
        mki_buf_free(&b);
    }
    mki_arena_reset(&arena, true);
}

static void vectors_are_reproducible_and_of_unit_length(void **state)
{
    rig *r = rig_new();
    double sum = 0;
    char first[128];
    char path[32];
    int i;

    (void)state;
    rig_start(r);
    rig_ask(r, "/v1/embeddings",
            "{\"model\":\"text-embedding-3-small\",\"input\":[\"cat\","
            "\"dog\"],\"dimensions\":16}");
    for (i = 0; i < 16; i++) {
        double v;

        snprintf(path, sizeof path, "data.1.embedding.%d", i);
        v = strtod(rig_json(r, path), NULL);
        sum += v * v;
    }
    assert_true(sum > 0.999999 && sum < 1.000001);
    snprintf(first, sizeof first, "%s", rig_json(r, "data.0.embedding.0"));
    rig_ask(r, "/v1/embeddings",
            "{\"model\":\"text-embedding-3-small\",\"input\":\"cat\","
            "\"dimensions\":16}");
    assert_string_equal(rig_json(r, "data.0.embedding.0"), first);
    rig_ask(r, "/v1/embeddings",
            "{\"model\":\"text-embedding-3-small\",\"input\":\"cat\","
            "\"encoding_format\":\"base64\",\"dimensions\":16}");
    assert_int_equal(strlen(rig_json(r, "data.0.embedding")), 88);
    rig_free(r);
}

static void the_reader_takes_json_and_nothing_else(void **state)
{
    static const char *const good[] = {"{}",
                                       "[]",
                                       " [1, -0, 1.5e-3, \"\\u00e9\", null] ",
                                       "\"\\ud800x\"",
                                       "{\"a\":{\"a\":[[]]}}",
                                       "1e400",
                                       "12345678901234567890123"};
    static const char *const bad[] = {"",
                                      "{",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "01",
                                      "1.",
                                      "-",
                                      ".5",
                                      "+1",
                                      "\"\t\"",
                                      "\"\\x\"",
                                      "\"\xff\"",
                                      "\"\xed\xa0\x80\"",
                                      "nul",
                                      "[] []",
                                      "{a:1}",
                                      "'a'",
                                      "\"\\u12g4\"",
                                      "\"abc"};
    mki_arena arena = MKI_ZERO;
    mki_buf deep = MKI_ZERO;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(good); i++) {
        assert_non_null(mki_json_parse(&arena, mki_sc(good[i])));
    }
    for (i = 0; i < COUNT(bad); i++) {
        if (mki_json_parse(&arena, mki_sc(bad[i])) != NULL) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
    for (i = 0; i < 100000; i++) {
        mki_buf_c(&deep, '[');
    }
    assert_null(mki_json_parse(&arena, mki_buf_str(&deep)));
    mki_buf_free(&deep);
    mki_arena_reset(&arena, true);
}

/* ---- streams ---- */

#define STREAM ASK ",\"stream\":true"

static void streams_end_with_usage_and_done(void **state)
{
    rig *r = rig_new();
    const char *done;

    (void)state;
    rig_start(r);
    rig_ask(r, CHAT,
            STREAM ",\"stream_options\":{\"include_usage\":true,"
                   "\"include_obfuscation\":false}}");
    assert_string_equal(rig_header(r, "content-type"),
                        "text/event-stream; charset=utf-8");
    assert_non_null(strstr(r->body, "\"delta\":{\"role\":\"assistant\""));
    assert_non_null(strstr(r->body, "\"delta\":{\"content\":\"x\"}"));
    assert_non_null(strstr(r->body, "\"delta\":{},\"logprobs\":null,"
                                    "\"finish_reason\":\"stop\""));
    assert_non_null(strstr(r->body, "\"choices\":[],\"usage\":{"));
    assert_null(strstr(r->body, "obfuscation"));
    done = strstr(r->body, "data: [DONE]\n\n");
    assert_non_null(done);
    assert_int_equal(strlen(done), 14);
    rig_ask(r, CHAT, STREAM "}");
    assert_null(strstr(r->body, "usage"));
    assert_non_null(strstr(r->body, "obfuscation"));
    rig_free(r);
}

static void broken_streams_are_broken_as_told(void **state)
{
    static const char long_one[] =
        "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\","
        "\"content\":\"one two three four five six seven eight\"}]}";
    rig *r = rig_new();

    (void)state;
    rig_start(r);
    rig_fault(r, "nodone");
    rig_ask(r, CHAT, long_one);
    assert_non_null(strstr(r->body, "\"finish_reason\":\"stop\""));
    assert_null(strstr(r->body, "[DONE]"));
    rig_fault(r, "earlyclose");
    rig_ask(r, CHAT, long_one);
    assert_non_null(strstr(r->body, " four"));
    assert_null(strstr(r->body, " five"));
    assert_null(strstr(r->body, "\"finish_reason\":\"stop\""));
    assert_null(strstr(r->body, "[DONE]"));
    rig_fault(r, "streamerror");
    rig_ask(r, CHAT, long_one);
    assert_non_null(strstr(r->body, "data: {\"error\":{"));
    assert_null(strstr(r->body, "[DONE]"));
    assert_true(r->closed);
    rig_fault(r, "crlf");
    rig_ask(r, CHAT, long_one);
    assert_non_null(strstr(r->body, "data: [DONE]\r\n\r\n"));
    rig_fault(r, "comments");
    rig_ask(r, CHAT, long_one);
    assert_non_null(strstr(r->body, ": keep-alive\n"));
    rig_free(r);
}

/* ---- faults ---- */

static void fault_texts_are_understood_or_refused(void **state)
{
    static const char *const good[] = {
        "429:0.05",
        "500@3",
        "reset@every=10",
        "stall",
        "quota",
        "429,retry-after=2,times=3",
        "503:1,retry-after=date",
        "429,retry-after=Wed, 21 Oct 2026 07:28:00 GMT",
        "slow:0.5,bytes=1,ms=0",
        "should-retry=false:0.5",
        "400,should-retry=true",
        "too-large",
        "redirect,to=http://127.0.0.1:1/x",
        "truncate:0.1,notify",
        "stale@2,late",
        "500,path=/v1/models"};
    static const char *const bad[] = {"",
                                      "429:",
                                      "429:1.5",
                                      "429:-1",
                                      "429@0",
                                      "429@x",
                                      "nonsense",
                                      "42",
                                      "429,retry-after=",
                                      "429,color=red",
                                      "429:0.5,times=x",
                                      "500@every=0",
                                      "should-retry=maybe",
                                      "200",
                                      "none",
                                      "status"};
    mki_fault f;
    char why[128];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(good); i++) {
        if (!mki_fault_parse(&f, good[i], why, sizeof why)) {
            fail_msg("%s", why);
        }
    }
    for (i = 0; i < COUNT(bad); i++) {
        if (mki_fault_parse(&f, bad[i], why, sizeof why)) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
}

static void every_status_can_be_had(void **state)
{
    static const struct {
        const char *spec;
        int status;
        const char *type, *code;
    } cases[] = {
        {"400", 400, "invalid_request_error", "null"},
        {"401", 401, "invalid_request_error", "invalid_api_key"},
        {"403", 403, "request_forbidden",
         "unsupported_country_region_territory"},
        {"404", 404, "invalid_request_error", "model_not_found"},
        {"408", 408, "server_error", "null"},
        {"409", 409, "conflict", "null"},
        {"413", 413, "invalid_request_error", "null"},
        {"422", 422, "invalid_request_error", "null"},
        {"429", 429, "requests", "rate_limit_exceeded"},
        {"quota", 429, "insufficient_quota", "insufficient_quota"},
        {"toolarge", 429, "tokens", "rate_limit_exceeded"},
        {"498", 498, "capacity_exceeded", "capacity_exceeded"},
        {"500", 500, "server_error", "null"},
        {"501", 501, "not_supported_error", "null"},
        {"503", 503, "server_error", "null"},
        {"529", 529, "overloaded_error", "null"},
        {"502", 502, NULL, NULL},
        {"504", 504, NULL, NULL},
        {"520", 520, NULL, NULL},
        {"html", 200, NULL, NULL},
        {"redirect", 307, NULL, NULL},
    };
    rig *r = rig_new();
    size_t i;

    (void)state;
    rig_start(r);
    for (i = 0; i < COUNT(cases); i++) {
        rig_fault(r, cases[i].spec);
        rig_ask(r, CHAT, say(cases[i].spec));
        assert_int_equal(r->status, cases[i].status);
        assert_false(r->closed);
        if (cases[i].type != NULL) {
            assert_string_equal(rig_json(r, "error.type"), cases[i].type);
            assert_string_equal(rig_json(r, "error.code"), cases[i].code);
        } else if (cases[i].status != 307) {
            assert_non_null(strstr(r->body, "<html>"));
        }
    }
    assert_int_equal(counted(r, "prompts_answered"), 0);
    assert_int_equal(counted(r, "faults.quota"), 1);
    rig_free(r);
}

static void delays_are_asked_for_in_every_form(void **state)
{
    static const struct {
        const char *spec, *seconds, *ms;
    } cases[] = {
        {"429", "1", "20"},
        {"429,retry-after-ms=1500", "2", "1500"},
        {"429,retry-after=2", "2", NULL},
        {"429,retry-after=ms", NULL, "50"},
        {"429,retry-after=float", "0.05", NULL},
        {"429,retry-after=huge", "86400", NULL},
        {"429,retry-after=zero", "0", NULL},
        {"429,retry-after=garbage", "soon, or later", NULL},
        {"429,retry-after=none", NULL, NULL},
        {"429,retry-after=date", "Mon, 21 Sep 2026 14:13:23 GMT", NULL},
        {"429,retry-after=Wed, 21 Oct 2026 07:28:00 GMT",
         "Wed, 21 Oct 2026 07:28:00 GMT", NULL},
        {"503", NULL, NULL},
        {"503,retry-after=7", "7", NULL},
    };
    rig *r = rig_new();
    size_t i;

    (void)state;
    rig_start(r);
    for (i = 0; i < COUNT(cases); i++) {
        const char *value;

        rig_fault(r, cases[i].spec);
        rig_ask(r, CHAT, say("x"));
        value = rig_header(r, "retry-after");
        assert_string_equal(value != NULL ? value : "-",
                            cases[i].seconds != NULL ? cases[i].seconds : "-");
        value = rig_header(r, "retry-after-ms");
        assert_string_equal(value != NULL ? value : "-",
                            cases[i].ms != NULL ? cases[i].ms : "-");
    }
    rig_fault(r, "500,should-retry=false");
    rig_ask(r, CHAT, say("x"));
    assert_string_equal(rig_header(r, "x-should-retry"), "false");
    rig_free(r);
}

static void connections_break_as_told(void **state)
{
    rig *r = rig_new();
    size_t length;

    (void)state;
    rig_start(r);
    rig_fault(r, "reset");
    rig_ask(r, CHAT, say("a"));
    assert_true(r->reset);
    assert_int_equal(r->len, 0);
    rig_fault(r, "reset,bytes=20");
    rig_ask(r, CHAT, say("b"));
    assert_true(r->closed);
    rig_fault(r, "truncate");
    rig_ask(r, CHAT, say("c"));
    assert_true(r->closed);
    assert_false(r->reset);
    length = (size_t)strtol(rig_header(r, "content-length"), NULL, 10);
    assert_int_equal(r->body_len, length / 2);
    rig_fault(r, "truncate,bytes=7");
    rig_ask(r, CHAT, say("c"));
    assert_int_equal(r->body_len, 7);
    rig_fault(r, "garbage");
    rig_ask(r, CHAT, say("d"));
    assert_int_equal(r->status, 0);
    assert_true(r->len > 0 && r->closed);
    assert_int_equal(counted(r, "prompts_answered"), 0);
    assert_int_equal(counted(r, "responses.200"), 0);
    rig_fault(r, "lost");
    rig_ask(r, CHAT, say("e"));
    assert_true(r->reset);
    assert_int_equal(r->len, 0);
    assert_int_equal(counted(r, "prompts_answered"), 1);
    assert_int_equal(counted(r, "responses.200"), 1);
    mock_server_fault(r->mock, NULL, NULL, 0);
    rig_ask(r, CHAT, say("e"));
    assert_int_equal(counted(r, "prompts_answered_again"), 1);
    rig_ask(r, CHAT, say("c"));
    assert_card(r, NULL, 0);
    rig_free(r);
}

static void bodies_can_be_nonsense(void **state)
{
    rig *r = rig_new();

    (void)state;
    rig_start(r);
    rig_fault(r, "badjson");
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 200);
    assert_string_equal(rig_json(r, "object"), "(none)");
    rig_fault(r, "empty");
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 200);
    assert_int_equal(r->body_len, 0);
    rig_fault(r, "refusal");
    rig_ask(r, CHAT, say("y"));
    assert_string_equal(rig_json(r, CONTENT), "null");
    assert_non_null(strstr(rig_json(r, "choices.0.message.refusal"), "sorry"));
    rig_fault(r, "length");
    rig_ask(r, CHAT, say("one two three four"));
    assert_string_equal(rig_json(r, CONTENT), "one two");
    assert_string_equal(rig_json(r, "choices.0.finish_reason"), "length");
    rig_fault(r, "filter");
    rig_ask(r, CHAT, say("one two three"));
    assert_string_equal(rig_json(r, "choices.0.finish_reason"),
                        "content_filter");
    rig_free(r);
}

static void framings_differ_and_say_the_same(void **state)
{
    static const char *const ways[] = {"chunked", "bytechunks", "interim",
                                       "hints", "noheaders"};
    rig *r = rig_new();
    size_t i;

    (void)state;
    rig_start(r);
    for (i = 0; i < COUNT(ways); i++) {
        rig_fault(r, ways[i]);
        rig_ask(r, CHAT, say(ways[i]));
        assert_string_equal(rig_json(r, CONTENT), ways[i]);
        assert_false(r->closed);
    }
    assert_null(rig_header(r, "x-request-id"));
    rig_fault(r, "http10");
    rig_ask(r, CHAT, say("http10"));
    assert_int_equal(strncmp(r->data, "HTTP/1.0 200", 12), 0);
    assert_null(rig_header(r, "content-length"));
    assert_string_equal(rig_json(r, CONTENT), "http10");
    assert_true(r->closed);
    rig_fault(r, "close");
    rig_ask(r, CHAT, say("close"));
    assert_string_equal(rig_header(r, "connection"), "close");
    assert_true(r->closed);
    rig_free(r);
}

static void stalls_and_slow_answers_take_virtual_time(void **state)
{
    rig *r = rig_new();
    int fd;

    (void)state;
    rig_start(r);
    rig_fault(r, "stall,ms=5000,bytes=10");
    fd = rig_connect(r);
    rig_post(fd, CHAT, say("x"));
    rig_read(r, fd);
    assert_int_equal(r->len, 10);
    assert_false(r->closed);
    assert_int_equal(r->next, 6000);
    r->now = 6000;
    rig_read(r, fd);
    assert_true(r->closed);
    close(fd);
    rig_fault(r, "slow,bytes=100,ms=1000");
    fd = rig_connect(r);
    rig_post(fd, CHAT, say("y"));
    rig_read(r, fd);
    assert_int_equal(r->len, 100);
    r->now += 1000;
    rig_read(r, fd);
    assert_int_equal(r->len, 100);
    close(fd);
    while (r->next != INT64_MAX) {
        rig_step(r);
        r->now += 1000;
    }
    assert_int_equal(counted(r, "cancelled"), 1);
    rig_free(r);
}

static void kept_connections_go_stale(void **state)
{
    rig *r = rig_new();
    int fd;

    (void)state;
    rig_start(r);
    rig_fault(r, "stale");
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 200);
    assert_null(rig_header(r, "connection"));
    assert_true(r->closed);
    rig_fault(r, "stale,ms=300");
    fd = rig_connect(r);
    rig_post(fd, CHAT, say("y"));
    rig_read(r, fd);
    assert_false(r->closed);
    r->now += 300;
    rig_read(r, fd);
    assert_true(r->closed);
    close(fd);
    rig_fault(r, "stale,late");
    fd = rig_connect(r);
    rig_post(fd, CHAT, say("z"));
    rig_read(r, fd);
    assert_false(r->closed);
    rig_post(fd, CHAT, say("z2"));
    rig_read(r, fd);
    assert_true(r->closed);
    assert_int_equal(r->len, 0);
    assert_int_equal(counted(r, "requests.POST " CHAT), 3);
    close(fd);
    rig_free(r);
}

/* Faults of each of 400 prompts, asked in the given order, as one text. */
static void fault_pattern(uint64_t seed, bool backwards, char out[401])
{
    static const char *const faults[] = {"429:0.1", "500:0.1", "reset:0.05"};
    rig *r = rig_new();
    int i;

    r->opt.faults = faults;
    r->opt.n_faults = COUNT(faults);
    r->opt.seed = seed;
    rig_start(r);
    for (i = 0; i < 400; i++) {
        int k = backwards ? 399 - i : i;
        char text[32];
        int fd = rig_connect(r);

        snprintf(text, sizeof text, "prompt %d", k);
        rig_post(fd, CHAT, say(text));
        do { /* without the patience of rig_read */
            rig_step(r);
            r->len = 0;
            r->reset = false;
        } while (recv(fd, r->data == NULL ? text : r->data, 10,
                      MSG_DONTWAIT | MSG_PEEK) < 0 &&
                 errno == EAGAIN);
        {
            char head[16] = "";
            ssize_t n = recv(fd, head, 12, MSG_DONTWAIT);

            out[k] = n <= 0 ? 'R' : head[9];
        }
        close(fd);
    }
    out[400] = '\0';
    rig_free(r);
}

static void rates_add_up_and_depend_on_seed_and_prompt_only(void **state)
{
    char a[401], b[401], c[401];
    int counts[128] = {0};
    int i;

    (void)state;
    fault_pattern(1, false, a);
    fault_pattern(1, true, b);
    fault_pattern(2, false, c);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    for (i = 0; i < 400; i++) {
        counts[(int)a[i]]++;
    }
    /* four standard deviations around 40, 40, 20 of 400 */
    assert_true(counts['4'] > 16 && counts['4'] < 64);
    assert_true(counts['5'] > 16 && counts['5'] < 64);
    assert_true(counts['R'] > 3 && counts['R'] < 38);
    assert_int_equal(counts['2'] + counts['4'] + counts['5'] + counts['R'],
                     400);
}

static void schedules_hit_the_named_requests(void **state)
{
    static const char *const faults[] = {"500@2", "503@every=3",
                                         "404,path=/models,times=1"};
    static const int expected[] = {200, 500, 503, 200, 200, 503};
    rig *r = rig_new();
    size_t i;

    (void)state;
    r->opt.faults = faults;
    r->opt.n_faults = COUNT(faults);
    rig_start(r);
    for (i = 0; i < COUNT(expected); i++) {
        rig_ask(r, CHAT, say("x"));
        assert_int_equal(r->status, expected[i]);
    }
    rig_get(r, "/v1/models/gpt-4o");
    assert_int_equal(r->status, 404);
    rig_get(r, "/v1/models/gpt-4o");
    assert_int_equal(r->status, 200);
    rig_free(r);
}

/* ---- time and limits ---- */

static void an_hour_of_latency_passes_at_once(void **state)
{
    rig *r = rig_new();
    int fd;

    (void)state;
    r->opt.latency_ms = 3600000;
    rig_start(r);
    fd = rig_connect(r);
    rig_post(fd, CHAT, say("x"));
    rig_read(r, fd);
    assert_int_equal(r->len, 0);
    assert_int_equal(r->next, 1000 + 3600000);
    r->now = r->next;
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 200);
    assert_int_equal(r->next, INT64_MAX);
    close(fd);
    rig_free(r);
}

static void buckets_are_true_and_so_are_their_headers(void **state)
{
    rig *r = rig_new();
    int i;

    (void)state;
    r->opt.rpm = 3;
    rig_start(r);
    for (i = 0; i < 3; i++) {
        rig_ask(r, CHAT, say("x"));
        assert_int_equal(r->status, 200);
    }
    assert_string_equal(rig_header(r, "x-ratelimit-limit-requests"), "3");
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-requests"), "0");
    assert_string_equal(rig_header(r, "x-ratelimit-reset-requests"),
                        "1m0.001s");
    rig_ask(r, CHAT, say("y"));
    assert_int_equal(r->status, 429);
    assert_string_equal(rig_header(r, "retry-after"), "21");
    assert_string_equal(rig_header(r, "retry-after-ms"), "20001");
    assert_non_null(strstr(rig_json(r, "error.message"),
                           "on requests per min (RPM): Limit 3, Used 3, "
                           "Requested 1. Please try again in 20.001s."));
    r->now += 20001;
    rig_ask(r, CHAT, say("y"));
    assert_int_equal(r->status, 200);
    assert_card(r, "ignored_retry_after", 0);
    rig_free(r);
}

static void tokens_are_limited_by_what_is_asked_for(void **state)
{
    rig *r = rig_new();

    (void)state;
    r->opt.tpm = 1000;
    rig_start(r);
    rig_ask(r, CHAT, ASK ",\"max_tokens\":600}");
    assert_int_equal(r->status, 200);
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-tokens"), "400");
    rig_ask(r, CHAT, ASK ",\"max_tokens\":601}");
    assert_int_equal(r->status, 429);
    assert_string_equal(rig_json(r, "error.type"), "tokens");
    rig_ask(r, CHAT, ASK ",\"max_tokens\":1001}");
    assert_int_equal(r->status, 429);
    assert_non_null(strstr(r->body, "Request too large for gpt-4o-mini"));
    rig_free(r);
}

static void durations_are_written_as_go_writes_them(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {{0, "0s"},          {12, "12ms"},     {1000, "1s"},
                 {8640, "8.64s"},    {360000, "6m0s"}, {3600000, "1h0m0s"},
                 {61005, "1m1.005s"}};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        mki_buf b = MKI_ZERO;

        mki_duration(&b, cases[i].ms);
        mki_buf_c(&b, '\0');
        assert_string_equal(b.data, cases[i].text);
        mki_buf_free(&b);
    }
}

/* A prompt of few tokens and an answer limited to n. */
static const char *say_limited(int n)
{
    static char body[256];

    snprintf(body, sizeof body,
             "{\"model\":\"gpt-4o-mini\",\"max_tokens\":%d,\"messages\":[{"
             "\"role\":\"user\",\"content\":\"abcd\"}]}",
             n);
    return body;
}

static void limits_of_a_day_are_told_and_kept(void **state)
{
    rig *r = rig_new();
    int i;

    (void)state;
    r->opt.rpm = 100;
    r->opt.rpd = 3;
    r->opt.tpd = 1000;
    rig_start(r);
    for (i = 0; i < 3; i++) {
        rig_ask(r, CHAT, say("x"));
        assert_int_equal(r->status, 200);
    }
    assert_string_equal(rig_header(r, "x-ratelimit-limit-requests"), "3");
    assert_string_equal(rig_header(r, "x-ratelimit-reset-requests"),
                        "24h0m0.001s");
    assert_string_equal(rig_header(r, "x-ratelimit-limit-tokens"), "1000");
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 429);
    assert_string_equal(rig_header(r, "retry-after"), "28801");
    assert_non_null(strstr(rig_json(r, "error.message"),
                           "on requests per day (RPD): Limit 3, Used 3, "));
    rig_ask(r, CHAT, say_limited(1001));
    assert_non_null(strstr(r->body, "Request too large"));
    rig_post_mock(r, "/mock/limits", "{\"rpd\":0}");
    rig_ask(r, CHAT, say_limited(1000));
    assert_int_equal(r->status, 429);
    assert_non_null(strstr(rig_json(r, "error.message"), "per day (TPD)"));
    r->now += 28800001;
    rig_ask(r, CHAT, say_limited(1000));
    assert_int_equal(r->status, 200);
    assert_int_equal(counted(r, "throttled.requests_day"), 1);
    assert_int_equal(counted(r, "throttled.tokens_day"), 1);
    assert_int_equal(counted(r, "throttled.too_large"), 1);
    rig_free(r);
}

static void charges_are_corrected_by_usage_when_the_answer_is_out(void **state)
{
    rig *r = rig_new();
    int fd;

    (void)state;
    r->opt.tpm = 60000;
    r->opt.charge_usage = true;
    r->opt.latency_ms = 1;
    rig_start(r);
    fd = rig_connect(r);
    rig_post(fd, CHAT, say_limited(40000));
    rig_read(r, fd);
    assert_int_equal(counted(r, "quota.tokens_charged"), 40000);
    r->now += 1;
    rig_read(r, fd);
    rig_parse(r);
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-tokens"), "20000");
    assert_int_equal(counted(r, "quota.tokens_charged"),
                     strtol(rig_json(r, "usage.total_tokens"), NULL, 10));
    r->now += 60000;
    rig_post(fd, CHAT, "{}"); /* never more than the limit */
    rig_read(r, fd);
    r->now += 1;
    rig_read(r, fd);
    rig_parse(r);
    close(fd);
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-tokens"), "60000");
    rig_free(r);
}

static void slices_are_kept_and_not_told(void **state)
{
    rig *r = rig_new();
    int i;

    (void)state;
    r->opt.rpm = 300; /* 5 a second */
    r->opt.tpm = 60000;
    r->opt.slice_ms = 1000;
    rig_start(r);
    for (i = 0; i < 5; i++) {
        rig_ask(r, CHAT, say("x"));
        assert_int_equal(r->status, 200);
    }
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 429);
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-requests"), "295");
    assert_string_equal(rig_header(r, "retry-after-ms"), "201");
    assert_int_equal(counted(r, "throttled.slice_requests"), 1);
    r->now += 2000;
    rig_ask(r, CHAT, say_limited(3000)); /* more than a slice ever holds */
    assert_int_equal(r->status, 200);
    rig_ask(r, CHAT, say_limited(100));
    assert_int_equal(r->status, 429);
    assert_string_equal(rig_header(r, "retry-after-ms"), "2101");
    assert_int_equal(counted(r, "throttled.slice_tokens"), 1);
    r->now += 2101;
    rig_ask(r, CHAT, say_limited(100));
    assert_int_equal(r->status, 200);
    rig_free(r);
}

static void a_slice_of_less_than_a_request_is_an_even_pace(void **state)
{
    rig *r = rig_new();
    int i;

    (void)state;
    r->opt.rpm = 500;
    r->opt.slice_ms = 100;
    rig_start(r);
    for (i = 0; i < 20; i++) {
        rig_ask(r, CHAT, say("x"));
        assert_int_equal(r->status, 200);
        r->now += 120;
    }
    rig_ask(r, CHAT, say("x"));
    r->now += 110;
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 429);
    rig_free(r);
}

static void resets_are_told_in_the_form_that_was_chosen(void **state)
{
    static const struct {
        const char *form, *reset, *remaining;
    } cases[] = {
        {"go", "30.001s", "1"},      {"seconds", "31", "1"},
        {"unix", "1790000032", "1"}, {"rfc3339", "2026-09-21T14:13:52Z", "1"},
        {"none", NULL, "1"},         {"minus1", "-1", "1"},
        {"azure", "0", "-1"}};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        rig *r = rig_new();
        const char *reset;

        r->opt.rpm = 2;
        r->opt.reset_form = cases[i].form;
        rig_start(r);
        rig_ask(r, CHAT, say("x"));
        assert_string_equal(rig_header(r, "x-ratelimit-remaining-requests"),
                            cases[i].remaining);
        reset = rig_header(r, "x-ratelimit-reset-requests");
        if (cases[i].reset == NULL) {
            assert_null(reset);
        } else {
            assert_non_null(reset);
            assert_string_equal(reset, cases[i].reset);
        }
        rig_free(r);
    }
}

static void limits_work_without_any_header(void **state)
{
    rig *r = rig_new();

    (void)state;
    r->opt.rpm = 1;
    r->opt.no_rate_headers = true;
    rig_start(r);
    rig_ask(r, CHAT, say("x"));
    assert_null(rig_header(r, "x-ratelimit-limit-requests"));
    assert_null(rig_header(r, "x-ratelimit-reset-tokens"));
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 429);
    assert_non_null(rig_header(r, "retry-after"));
    rig_free(r);
}

static void failed_requests_count_where_that_is_wanted(void **state)
{
    rig *r = rig_new();

    (void)state;
    r->opt.rpm = 4;
    r->opt.count_failed = true;
    rig_start(r);
    rig_fault(r, "500@1");
    rig_ask(r, CHAT, say("a"));
    assert_int_equal(r->status, 500);
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-requests"), "3");
    rig_ask(r, CHAT, "{}");
    assert_int_equal(r->status, 400);
    rig_ask(r, CHAT, say("b"));
    assert_int_equal(r->status, 200);
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-requests"), "1");
    rig_ask(r, CHAT, say("c"));
    r->now += 14000; /* nearly one again, and the asking takes that */
    rig_ask(r, CHAT, say("d"));
    assert_int_equal(r->status, 429);
    assert_string_equal(rig_header(r, "retry-after-ms"), "15001");
    r->now += 14000;
    rig_ask(r, CHAT, say("d"));
    assert_int_equal(r->status, 429);
    r->now += 15001;
    rig_ask(r, CHAT, say("d"));
    assert_int_equal(r->status, 200);
    assert_int_equal(counted(r, "quota.requests_charged"), 7);
    rig_free(r);
}

static void limits_change_while_it_runs(void **state)
{
    rig *r = rig_new();

    (void)state;
    r->opt.rpm = 100;
    rig_start(r);
    rig_ask(r, CHAT, say("x"));
    mock_server_limits(r->mock, 50, -1); /* 99 are left: cut */
    rig_ask(r, CHAT, say("x"));
    assert_string_equal(rig_header(r, "x-ratelimit-limit-requests"), "50");
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-requests"), "49");
    mock_server_limits(r->mock, 200, 5000); /* 49 are left: kept */
    rig_ask(r, CHAT, say("x"));
    assert_string_equal(rig_header(r, "x-ratelimit-limit-requests"), "200");
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-requests"), "48");
    assert_string_equal(rig_header(r, "x-ratelimit-limit-tokens"), "5000");
    rig_post_mock(r, "/mock/limits", "{\"rpm\":1,\"tpm\":0,\"rpd\":9}");
    assert_int_equal(r->status, 200);
    assert_string_equal(rig_json(r, "rpm"), "1");
    assert_string_equal(rig_json(r, "tpm"), "0");
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 200);
    assert_string_equal(rig_header(r, "x-ratelimit-remaining-requests"), "8");
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 429);
    rig_post_mock(r, "/mock/limits", "{\"rpm\":-1}");
    assert_int_equal(r->status, 400);
    rig_post_mock(r, "/mock/limits", "[]");
    assert_int_equal(r->status, 400);
    assert_int_equal(counted(r, "limits.rpm"), 1);
    rig_free(r);
}

static void the_share_of_the_quota_can_be_told(void **state)
{
    rig *r = rig_new();
    int i;

    (void)state;
    r->opt.rpm = 60;
    rig_start(r);
    rig_ask(r, CHAT, say("x"));
    r->now += 10000;
    mock_server_mark(r->mock);
    for (i = 0; i < 30; i++) {
        if (i == 15) {
            mock_server_limits(r->mock, 30, -1);
        }
        rig_ask(r, CHAT, say("x"));
        r->now += i < 15 ? 1000 : 2000;
    }
    assert_int_equal(counted(r, "since_mark.elapsed_ms"), 45000);
    assert_int_equal(counted(r, "since_mark.replies"), 30);
    assert_int_equal(counted(r, "since_mark.requests_charged"), 30);
    assert_int_equal(counted(r, "since_mark.requests_allowed"), 30);
    assert_int_equal(counted(r, "since_mark.max_in_flight"), 1);
    assert_int_equal(counted(r, "quota.requests_charged"), 31);
    assert_int_equal(counted(r, "quota.requests_allowed"), 40);
    assert_int_equal(counted(r, "quota.requests_last_60s"), 31);
    assert_int_equal(counted(r, "first_429_ms"), -1);
    for (i = 0; i < 31; i++) {
        rig_ask(r, CHAT, say("x"));
    }
    assert_int_equal(counted(r, "since_mark.throttled"), 1);
    assert_int_equal(counted(r, "throttled.requests"), 1);
    assert_int_equal(counted(r, "first_429_ms"), 55000);
    assert_int_equal(counted(r, "last_429_ms"), 55000);
    r->now += 60000;
    assert_int_equal(counted(r, "quota.requests_last_60s"), 0);
    mock_server_reset(r->mock);
    assert_int_equal(counted(r, "elapsed_ms"), 0);
    assert_int_equal(counted(r, "first_429_ms"), -1);
    assert_int_equal(counted(r, "quota.requests_charged"), 0);
    assert_int_equal(counted(r, "quota.requests_allowed"), 0);
    rig_free(r);
}

static void injected_429s_are_told_apart(void **state)
{
    rig *r = rig_new();

    (void)state;
    rig_start(r);
    rig_fault(r, "quota@2");
    rig_ask(r, CHAT, say("x"));
    rig_ask(r, CHAT, say("x"));
    assert_int_equal(r->status, 429);
    assert_int_equal(counted(r, "throttled.injected"), 1);
    assert_int_equal(counted(r, "quota.throttled"), 1);
    assert_int_equal(counted(r, "quota.replies"), 2);
    rig_free(r);
}

static void every_answer_made_is_billed_and_errors_are_not(void **state)
{
    rig *r = rig_new();
    int64_t one;

    (void)state;
    r->opt.price_in = 0.15;
    r->opt.price_out = 0.6;
    rig_start(r);
    rig_ask(r, CHAT, say("one two three"));
    one = strtol(rig_json(r, "usage.prompt_tokens"), NULL, 10) * 150000 +
          strtol(rig_json(r, "usage.completion_tokens"), NULL, 10) * 600000;
    assert_true(one > 0);
    assert_int_equal(counted(r, "cost_microusd"), (one + 999999) / 1000000);
    rig_fault(r, "lost");
    rig_ask(r, CHAT, say("one two three"));
    rig_fault(r, "truncate");
    rig_ask(r, CHAT, say("one two three"));
    rig_fault(r, "stall,bytes=10,ms=1");
    rig_ask(r, CHAT, say("one two three"));
    assert_int_equal(counted(r, "cost_microusd"), (4 * one + 999999) / 1000000);
    rig_fault(r, "500");
    rig_ask(r, CHAT, say("one two three"));
    rig_fault(r, "reset");
    rig_ask(r, CHAT, say("one two three"));
    rig_fault(r, "garbage");
    rig_ask(r, CHAT, say("one two three"));
    mock_server_fault(r->mock, NULL, NULL, 0);
    rig_ask(r, CHAT, "{}");
    assert_int_equal(r->status, 400);
    assert_int_equal(counted(r, "cost_microusd"), (4 * one + 999999) / 1000000);
    assert_int_equal(counted(r, "cost_batch_microusd"), 0);
    rig_get(r, "/mock/stats");
    {
        char exact[64];

        snprintf(exact, sizeof exact, "\"cost\":0.%012d", (int)(4 * one));
        while (exact[strlen(exact) - 1] == '0') {
            exact[strlen(exact) - 1] = '\0';
        }
        strcat(exact, ",");
        assert_non_null(strstr(r->body, exact));
    }
    mock_server_reset(r->mock);
    assert_int_equal(counted(r, "cost_microusd"), 0);
    rig_free(r);
}

static void long_prompts_are_cached_in_part(void **state)
{
    rig *r = rig_new();
    char *body = (char *)calloc(1, 20000);
    int64_t in, cached;
    int i;

    (void)state;
    assert_non_null(body);
    r->opt.price_in = 1;
    r->opt.price_cached = 0.1;
    r->opt.cached_share = 0.5;
    rig_start(r);
    strcpy(body, "{\"model\":\"gpt-4o-mini\",\"max_tokens\":1,\"messages\":[{"
                 "\"role\":\"user\",\"content\":\"");
    for (i = 0; i < 2000; i++) {
        strcat(body, "word ");
    }
    strcat(body, "\"}]}");
    rig_ask(r, CHAT, body);
    in = strtol(rig_json(r, "usage.prompt_tokens"), NULL, 10);
    cached = strtol(rig_json(r, "usage.prompt_tokens_details.cached_tokens"),
                    NULL, 10);
    assert_int_equal(cached, in / 2 / 128 * 128);
    assert_true(cached > 0);
    assert_int_equal(counted(r, "billed.cached_tokens"), cached);
    assert_int_equal(counted(r, "cost_microusd"),
                     ((in - cached) * 10 + cached + 9) / 10);
    rig_ask(r, CHAT, say("short"));
    assert_string_equal(
        rig_json(r, "usage.prompt_tokens_details.cached_tokens"), "0");
    free(body);
    rig_free(r);
}

/* ---- the report card ---- */

static void a_patient_client_has_a_clean_card(void **state)
{
    rig *r = rig_new();
    int fd;
    int i;

    (void)state;
    rig_start(r);
    rig_fault(r, "429,retry-after=2,times=1");
    fd = rig_connect(r);
    for (i = 0; i < 20; i++) {
        char text[32];

        snprintf(text, sizeof text, "prompt %d", i);
        rig_post(fd, CHAT, say(text));
        rig_read(r, fd);
        rig_parse(r);
        if (r->status == 429) {
            r->now += 2000;
            i--;
        }
    }
    close(fd);
    assert_card(r, NULL, 0);
    rig_get(r, "/mock/report");
    assert_string_equal(r->body, "{\"clean\":true,\"findings\":[]}\n");
    rig_free(r);
}

static void impatience_is_found(void **state)
{
    rig *r = rig_new();

    (void)state;
    rig_start(r);
    rig_fault(r, "429@1,retry-after=2");
    rig_ask(r, CHAT, say("a"));
    rig_ask(r, CHAT, say("b")); /* in flight when the news came: excused */
    assert_card(r, "ignored_retry_after", 0);
    r->now += 1000;
    rig_ask(r, CHAT, say("a"));
    assert_card(r, "ignored_retry_after", 2); /* that body, and any body */
    rig_ask(r, CHAT, say("c"));
    assert_card(r, "ignored_retry_after", 3);
    r->now += 1000;
    rig_ask(r, CHAT, say("d"));
    assert_card(r, "ignored_retry_after", 3);
    rig_get(r, "/mock/report");
    assert_string_equal(rig_json(r, "clean"), "false");
    assert_string_equal(rig_json(r, "findings.0.code"), "ignored_retry_after");
    assert_string_equal(rig_json(r, "findings.0.count"), "3");
    rig_free(r);
}

static void hopeless_retries_and_duplicates_are_found(void **state)
{
    static const char *const final[] = {
        "400", "401",   "403",      "404",
        "422", "quota", "toolarge", "500,should-retry=false"};
    rig *r = rig_new();
    size_t i;

    (void)state;
    rig_start(r);
    for (i = 0; i < COUNT(final); i++) {
        rig_fault(r, final[i]);
        rig_ask(r, CHAT, say(final[i]));
        assert_card(r, "retried_final", (int)i);
        rig_ask(r, CHAT, say(final[i]));
        assert_card(r, "retried_final", (int)i + 1);
    }
    mock_server_reset(r->mock);
    assert_card(r, NULL, 0);
    mock_server_fault(r->mock, NULL, NULL, 0);
    rig_ask(r, CHAT, say("x"));
    rig_ask(r, CHAT, say("x"));
    assert_card(r, "duplicated", 1);
    rig_free(r);
}

static void repeats_are_allowed_where_prompts_repeat(void **state)
{
    rig *r = rig_new();
    int a, b;

    (void)state;
    r->opt.latency_ms = 10;
    rig_start(r);
    a = rig_connect(r);
    b = rig_connect(r);
    rig_post(a, CHAT, say("twin"));
    rig_post(b, CHAT, say("twin")); /* both at once: two prompts */
    rig_step(r);
    r->now += 10;
    rig_read(r, a);
    rig_read(r, b);
    rig_post(a, CHAT, say("twin"));
    rig_step(r);
    r->now += 10;
    rig_read(r, a);
    close(a);
    close(b);
    assert_card(r, NULL, 0);
    rig_free(r);
}

static void a_stampede_after_a_pause_is_found(void **state)
{
    rig *r = rig_new();
    int fds[12];
    int gap;
    int i;

    (void)state;
    for (gap = 0; gap <= 5; gap += 5) {
        r->opt.latency_ms = 0;
        rig_start(r);
        for (i = 0; i < 12; i++) {
            char text[32];

            fds[i] = rig_connect(r);
            snprintf(text, sizeof text, "before %d", i);
            rig_post(fds[i], CHAT, say(text));
            rig_read(r, fds[i]);
        }
        rig_fault(r, "429,retry-after=2,times=1");
        rig_post(fds[0], CHAT, say("stop"));
        rig_read(r, fds[0]);
        r->now += 2000;
        for (i = 0; i < 12; i++) {
            char text[32];

            snprintf(text, sizeof text, "after %d", i);
            rig_post(fds[i], CHAT, say(text));
            rig_read(r, fds[i]);
            r->now += gap;
        }
        assert_card(r, NULL, gap == 0 ? 1 : 0);
        assert_card(r, "stampeded", gap == 0 ? 1 : 0);
        for (i = 0; i < 12; i++) {
            close(fds[i]);
        }
        mock_server_stop(r->mock);
        r->mock = NULL;
    }
    rig_free(r);
}

static void keys_sent_astray_are_found(void **state)
{
    static const char foreign[] =
        "GET /v1/models/gpt-4o HTTP/1.1\r\nHost: api.openai.com\r\n"
        "Authorization: Bearer sk\r\n\r\n"
        "GET /v1/models/gpt-4o HTTP/1.1\r\nHost: api.openai.com\r\n\r\n"
        "GET /v1/models/gpt-4o HTTP/1.1\r\nHost: b.test:1\r\n"
        "Authorization: Bearer sk\r\n\r\n"
        "GET /mock/stats HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "api-key: sk\r\n\r\n";
    rig *r = rig_new();
    int fd;

    (void)state;
    r->opt.names = "a.test,b.test";
    rig_start(r);
    fd = rig_connect(r);
    rig_send(fd, foreign, sizeof foreign - 1);
    rig_read(r, fd);
    close(fd);
    assert_card(r, "key_to_other_host", 2);
    rig_free(r);
}

static void wasted_connections_are_found(void **state)
{
    rig *r = rig_new();
    int fds[6];
    int i;

    (void)state;
    r->opt.expect_connections = 2;
    rig_start(r);
    for (i = 0; i < 12; i++) {
        char text[32];

        snprintf(text, sizeof text, "prompt %d", i);
        rig_ask(r, CHAT, say(text));
    }
    assert_card(r, "no_keep_alive", 12);
    assert_card(r, "too_many_connections", 0);
    for (i = 0; i < 6; i++) {
        char text[32];

        fds[i] = rig_connect(r);
        snprintf(text, sizeof text, "open %d", i);
        rig_post(fds[i], CHAT, say(text));
        rig_read(r, fds[i]);
    }
    assert_card(r, "too_many_connections", 1);
    for (i = 0; i < 6; i++) {
        close(fds[i]);
    }
    rig_free(r);
}

/* ---- the whole server ---- */

static void a_bad_start_says_why(void **state)
{
    static const char *const faults[] = {"nonsense:0.1"};
    mock_options opt;
    mock_server *mock;
    char why[256];
    int taken;

    (void)state;
    memset(&opt, 0, sizeof opt);
    opt.faults = faults;
    opt.n_faults = 1;
    assert_false(mock_server_start(&opt, &mock, why, sizeof why));
    assert_null(mock);
    assert_non_null(strstr(why, "nonsense:0.1"));
    opt.n_faults = 0;
    opt.reply = "/no/such/script.jsonl";
    assert_false(mock_server_start(&opt, &mock, why, sizeof why));
    assert_non_null(strstr(why, "/no/such/script.jsonl"));
    opt.reply = NULL;
    opt.script = "{}\nx\n";
    assert_false(mock_server_start(&opt, &mock, why, sizeof why));
    assert_non_null(strstr(why, "line 2"));
    opt.script = NULL;
    opt.host = "not an address";
    assert_false(mock_server_start(&opt, &mock, why, sizeof why));
    opt.host = NULL;
    assert_true(mock_server_start(&opt, &mock, why, sizeof why));
    taken = mock_server_port(mock);
    mock_server_stop(mock);
    assert_true(taken > 0);
    assert_true(mock_server_start(NULL, &mock, NULL, 0));
    opt.port = mock_server_port(mock);
    {
        mock_server *second;

        assert_false(mock_server_start(&opt, &second, why, sizeof why));
        assert_non_null(strstr(why, "in use"));
    }
    mock_server_stop(mock);
    mock_server_stop(NULL);
}

static void each_request_is_one_line_of_the_log(void **state)
{
    char path[] = "/tmp/test_mock_XXXXXX";
    rig *r = rig_new();
    mki_arena arena = MKI_ZERO;
    const mki_json *v;
    size_t len;
    char *text;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    r->opt.log_file = path;
    rig_start(r);
    rig_fault(r, "reset@2");
    rig_ask(r, CHAT, say("a"));
    rig_ask(r, CHAT, say("b"));
    rig_get(r, "/mock/stats");
    rig_free(r);
    text = mki_file_read(path, &len);
    assert_non_null(text);
    fd = (int)strcspn(text, "\n");
    v = mki_json_parse(&arena, mki_s(text, (size_t)fd));
    assert_int_equal(mki_get_int(v, "status", 0), 200);
    v = mki_json_parse(&arena, mki_sc(text + fd + 1));
    assert_non_null(v);
    assert_int_equal(mki_get_int(v, "status", -1), 0);
    assert_true(mki_eq(mki_get_text(v, "fault"), "reset"));
    mki_arena_reset(&arena, true);
    free(text);
    unlink(path);
}

/* As many connections as the system allows, up to 2,000, all in flight. */
static void two_thousand_connections_are_held(void **state)
{
    struct rlimit limit;
    mock_options opt;
    rig r;
    int n = 2000;
    int *fds;
    char byte;
    int i;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 4200) {
        n = (int)limit.rlim_cur / 2 - 100;
        print_message("SKIP: only %d connections, by ulimit -n\n", n);
    }
    memset(&opt, 0, sizeof opt);
    memset(&r, 0, sizeof r);
    opt.latency_ms = 3000;
    assert_true(mock_server_start(&opt, &r.mock, NULL, 0));
    fds = (int *)calloc((size_t)n, sizeof *fds);
    assert_non_null(fds);
    for (i = 0; i < n; i++) {
        char text[32];

        fds[i] = rig_connect(&r);
        snprintf(text, sizeof text, "prompt %d", i);
        rig_post(fds[i], CHAT, say(text));
    }
    for (i = 0; i < n; i++) {
        assert_int_equal(recv(fds[i], &byte, 1, 0), 1);
        assert_int_equal(byte, 'H');
    }
    assert_int_equal(counted(&r, "max_connections"), n);
    assert_true(counted(&r, "max_concurrency") > n / 4);
    assert_int_equal(counted(&r, "prompts_answered"), n);
    for (i = 0; i < n; i++) {
        close(fds[i]);
    }
    free(fds);
    mock_server_stop(r.mock);
}

static void it_stops_with_work_in_flight(void **state)
{
    mock_options opt;
    rig r;
    int fd;

    (void)state;
    memset(&opt, 0, sizeof opt);
    memset(&r, 0, sizeof r);
    opt.latency_ms = 100000;
    assert_true(mock_server_start(&opt, &r.mock, NULL, 0));
    fd = rig_connect(&r);
    rig_post(fd, CHAT, say("never answered"));
    while (counted(&r, "max_concurrency") == 0) {
        poll(NULL, 0, 1);
    }
    mock_server_stop(r.mock);
    close(fd);
}

#if !defined(MOCK_OPENAI_NO_TLS) && MBEDTLS_VERSION_NUMBER < 0x04000000

typedef struct tls_client {
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context rng;
    mbedtls_ssl_config conf;
    mbedtls_x509_crt ca;
    mbedtls_ssl_session session;
    bool has_session;
} tls_client;

static int tls_send(void *ctx, const unsigned char *data, size_t len)
{
    return (int)send(*(int *)ctx, data, len, MSG_NOSIGNAL);
}

static int tls_recv(void *ctx, unsigned char *data, size_t len)
{
    return (int)recv(*(int *)ctx, data, len, 0);
}

static void tls_client_init(tls_client *t, const char *ca)
{
    memset(t, 0, sizeof *t);
    mbedtls_entropy_init(&t->entropy);
    mbedtls_ctr_drbg_init(&t->rng);
    mbedtls_ssl_config_init(&t->conf);
    mbedtls_x509_crt_init(&t->ca);
    mbedtls_ssl_session_init(&t->session);
    assert_int_equal(mbedtls_ctr_drbg_seed(&t->rng, mbedtls_entropy_func,
                                           &t->entropy, NULL, 0),
                     0);
    assert_int_equal(mbedtls_x509_crt_parse(&t->ca, (const unsigned char *)ca,
                                            strlen(ca) + 1),
                     0);
    assert_int_equal(mbedtls_ssl_config_defaults(&t->conf,
                                                 MBEDTLS_SSL_IS_CLIENT,
                                                 MBEDTLS_SSL_TRANSPORT_STREAM,
                                                 MBEDTLS_SSL_PRESET_DEFAULT),
                     0);
    mbedtls_ssl_conf_rng(&t->conf, mbedtls_ctr_drbg_random, &t->rng);
    mbedtls_ssl_conf_ca_chain(&t->conf, &t->ca, NULL);
#if MBEDTLS_VERSION_NUMBER >= 0x03020000
    /* the session of 1.3 comes later; 1.2 is enough for this test */
    mbedtls_ssl_conf_max_tls_version(&t->conf, MBEDTLS_SSL_VERSION_TLS1_2);
#endif
}

static void tls_client_free(tls_client *t)
{
    mbedtls_ssl_session_free(&t->session);
    mbedtls_ssl_config_free(&t->conf);
    mbedtls_x509_crt_free(&t->ca);
    mbedtls_ctr_drbg_free(&t->rng);
    mbedtls_entropy_free(&t->entropy);
}

/* One request over TLS; returns how the reading ended, and the status. */
static int tls_ask(tls_client *t, const rig *r, const char *name, int *status)
{
    mbedtls_ssl_context ssl;
    char data[16384] = "";
    size_t len = 0;
    int fd = rig_connect(r);
    int rc;

    mbedtls_ssl_init(&ssl);
    assert_int_equal(mbedtls_ssl_setup(&ssl, &t->conf), 0);
    assert_int_equal(mbedtls_ssl_set_hostname(&ssl, name), 0);
    mbedtls_ssl_set_bio(&ssl, &fd, tls_send, tls_recv, NULL);
    if (t->has_session) {
        assert_int_equal(mbedtls_ssl_set_session(&ssl, &t->session), 0);
    }
    rc = mbedtls_ssl_handshake(&ssl);
    *status = 0;
    if (rc == 0) {
        const char *ask =
            "GET /v1/models/gpt-4o HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: close\r\n\r\n";

        if (!t->has_session) {
            assert_int_equal(mbedtls_ssl_get_session(&ssl, &t->session), 0);
            t->has_session = true;
        }
        mbedtls_ssl_write(&ssl, (const unsigned char *)ask, strlen(ask));
        do {
            rc = mbedtls_ssl_read(&ssl, (unsigned char *)data + len,
                                  sizeof data - 1 - len);
            len += rc > 0 ? (size_t)rc : 0;
        } while (rc > 0);
        data[len] = '\0';
        *status = len > 12 ? (int)strtol(data + 9, NULL, 10) : 0;
    }
    mbedtls_ssl_free(&ssl);
    close(fd);
    return rc;
}

static void https_verifies_resumes_and_ends_cleanly(void **state)
{
    mock_options opt;
    tls_client t;
    rig r;
    int status;

    (void)state;
    memset(&opt, 0, sizeof opt);
    memset(&r, 0, sizeof r);
    opt.tls = true;
    opt.names = "mock.test";
    assert_true(mock_server_start(&opt, &r.mock, NULL, 0));
    assert_non_null(strstr(mock_server_base_url(r.mock), "https://127.0.0.1:"));
    tls_client_init(&t, mock_server_ca_pem(r.mock));
    assert_int_equal(tls_ask(&t, &r, "localhost", &status),
                     MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY);
    assert_int_equal(status, 200);
    assert_int_equal(counted(&r, "tls_resumed"), 0);
    assert_int_equal(tls_ask(&t, &r, "mock.test", &status),
                     MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY);
    assert_int_equal(status, 200);
    assert_int_equal(counted(&r, "tls_resumed"), 1);
    assert_int_equal(counted(&r, "connections"), 2);
    t.has_session = false;
    mbedtls_ssl_session_free(&t.session);
    assert_int_equal(tls_ask(&t, &r, "wrong.test", &status),
                     MBEDTLS_ERR_X509_CERT_VERIFY_FAILED);
    assert_true(mock_server_fault(r.mock, "truncate", NULL, 0));
    assert_int_equal(tls_ask(&t, &r, "localhost", &status), 0);
    assert_true(mock_server_fault(r.mock, NULL, NULL, 0));
    assert_true(mock_server_fault(r.mock, "truncate,notify", NULL, 0));
    assert_int_equal(tls_ask(&t, &r, "localhost", &status),
                     MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY);
    tls_client_free(&t);
    mock_server_stop(r.mock);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_answer_has_the_documented_shape),
        cmocka_unit_test(one_connection_carries_many_requests_also_pipelined),
        cmocka_unit_test(a_request_may_come_byte_by_byte_and_chunked),
        cmocka_unit_test(expect_100_continue_is_answered_first),
        cmocka_unit_test(malformed_requests_are_refused_with_their_status),
        cmocka_unit_test(heads_without_end_are_refused),
        cmocka_unit_test(http_1_0_and_connection_close_end_the_connection),
        cmocka_unit_test(a_client_that_shuts_its_side_still_gets_the_answer),
        cmocka_unit_test(wrong_paths_methods_and_types_have_the_real_errors),
        cmocka_unit_test(keys_are_checked_and_masked),
        cmocka_unit_test(bad_bodies_name_their_parameter),
        cmocka_unit_test(other_endpoints_are_validated_as_well),
        cmocka_unit_test(model_profiles_refuse_what_the_models_refuse),
        cmocka_unit_test(hash_replies_prove_the_whole_conversation),
        cmocka_unit_test(scripts_answer_by_content_and_in_sequence),
        cmocka_unit_test(entities_are_marked_in_prompts_and_plain_sentences),
        cmocka_unit_test(stop_and_limits_cut_the_answer),
        cmocka_unit_test(schemas_get_their_smallest_instance),
        cmocka_unit_test(vectors_are_reproducible_and_of_unit_length),
        cmocka_unit_test(the_reader_takes_json_and_nothing_else),
        cmocka_unit_test(streams_end_with_usage_and_done),
        cmocka_unit_test(broken_streams_are_broken_as_told),
        cmocka_unit_test(fault_texts_are_understood_or_refused),
        cmocka_unit_test(every_status_can_be_had),
        cmocka_unit_test(delays_are_asked_for_in_every_form),
        cmocka_unit_test(connections_break_as_told),
        cmocka_unit_test(bodies_can_be_nonsense),
        cmocka_unit_test(framings_differ_and_say_the_same),
        cmocka_unit_test(stalls_and_slow_answers_take_virtual_time),
        cmocka_unit_test(kept_connections_go_stale),
        cmocka_unit_test(rates_add_up_and_depend_on_seed_and_prompt_only),
        cmocka_unit_test(schedules_hit_the_named_requests),
        cmocka_unit_test(an_hour_of_latency_passes_at_once),
        cmocka_unit_test(buckets_are_true_and_so_are_their_headers),
        cmocka_unit_test(tokens_are_limited_by_what_is_asked_for),
        cmocka_unit_test(durations_are_written_as_go_writes_them),
        cmocka_unit_test(limits_of_a_day_are_told_and_kept),
        cmocka_unit_test(charges_are_corrected_by_usage_when_the_answer_is_out),
        cmocka_unit_test(slices_are_kept_and_not_told),
        cmocka_unit_test(a_slice_of_less_than_a_request_is_an_even_pace),
        cmocka_unit_test(resets_are_told_in_the_form_that_was_chosen),
        cmocka_unit_test(limits_work_without_any_header),
        cmocka_unit_test(failed_requests_count_where_that_is_wanted),
        cmocka_unit_test(limits_change_while_it_runs),
        cmocka_unit_test(the_share_of_the_quota_can_be_told),
        cmocka_unit_test(injected_429s_are_told_apart),
        cmocka_unit_test(every_answer_made_is_billed_and_errors_are_not),
        cmocka_unit_test(long_prompts_are_cached_in_part),
        cmocka_unit_test(a_patient_client_has_a_clean_card),
        cmocka_unit_test(impatience_is_found),
        cmocka_unit_test(hopeless_retries_and_duplicates_are_found),
        cmocka_unit_test(repeats_are_allowed_where_prompts_repeat),
        cmocka_unit_test(a_stampede_after_a_pause_is_found),
        cmocka_unit_test(keys_sent_astray_are_found),
        cmocka_unit_test(wasted_connections_are_found),
        cmocka_unit_test(a_bad_start_says_why),
        cmocka_unit_test(each_request_is_one_line_of_the_log),
        cmocka_unit_test(two_thousand_connections_are_held),
        cmocka_unit_test(it_stops_with_work_in_flight),
#if !defined(MOCK_OPENAI_NO_TLS) && MBEDTLS_VERSION_NUMBER < 0x04000000
        cmocka_unit_test(https_verifies_resumes_and_ends_cleanly),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
