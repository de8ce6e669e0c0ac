/* The server's side of batches: submit, look, cancel, list, wait, retrieve over
 * HTTP. A transport that plays a script stands for servers that say odd things,
 * the mock in this process for those that behave; in both time is virtual, so
 * that days pass in milliseconds. */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

#include <dirent.h>
#include <pthread.h>

#define KEY    "sk-secret-0123456789"
#define SECOND ((int64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

static void assert_str(gptner_str got, const char *want)
{
    if (want == NULL) {
        assert_null(got.ptr);
    } else if (!gpn_str_eq_c(got, want)) {
        fail_msg("\"%.*s\" instead of \"%s\"", (int)got.len,
                 got.ptr != NULL ? got.ptr : "", want);
    }
}

static void assert_status(gptner_status got, gptner_status want,
                          const gptner_error *err)
{
    if (got != want) {
        fail_msg("%s instead of %s: %s", gptner_status_name(got),
                 gptner_status_name(want), err->message);
    }
    if (got != GPTNER_OK) {
        assert_int_equal(err->status, got);
        assert_true(err->message[0] != '\0');
        assert_null(strstr(err->message, KEY));
        assert_null(strstr(err->message, "secret"));
    }
}

static void assert_between(int64_t value, int64_t min, int64_t max)
{
    if (value < min || value > max) {
        fail_msg("%lld is not from %lld to %lld", (long long)value,
                 (long long)min, (long long)max);
    }
}

static void assert_text_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("no \"%s\" in \"%s\"", part, text);
    }
}

/* ---- a server that plays a script -----------------------------------------
 */

/* Replies come in turn, the last one repeats: "=404 BODY" is that status,
 * "!reset" a lost connection, "!stall" silence, all else the body of a 200.
 * "HTTP/" begins a whole response. */
typedef struct play {
    const char *const *replies;
    size_t n;
    size_t at;     /* requests begun */
    char *request; /* the last one */
    size_t request_len, request_cap;
    char lines[32][160]; /* "METHOD /path", of the first requests */
    pthread_mutex_t lock;
    test_mem mem;
    gptner_config cfg;
    test_clock clock;
    gptner_transport transport;
    gptner_client *client;
    gptner_batch *batch;
    gptner_error err;
} play;

typedef struct play_conn {
    play *p;
    char *reply;
    size_t len, given;
    char kind; /* 'r' reset, 's' stall */
} play_conn;

static int play_connect(const char *host, int port, int timeout_ms, void **conn,
                        void *user)
{
    play_conn *c = (play_conn *)calloc(1, sizeof *c);

    (void)host;
    (void)port;
    (void)timeout_ms;
    c->p = (play *)user;
    *conn = c;
    return 0;
}

static void play_reply(play_conn *c, const char *text)
{
    size_t size = strlen(text) + 256;
    int status = 200;

    free(c->reply);
    c->reply = (char *)malloc(size);
    c->given = c->len = 0;
    c->kind = text[0] == '!' ? text[1] : '\0';
    if (strncmp(text, "HTTP/", 5) == 0) {
        c->len = (size_t)snprintf(c->reply, size, "%s", text);
    } else if (c->kind == '\0') {
        if (text[0] == '=') {
            status = atoi(text + 1);
            text += text[4] == ' ' ? 5 : 4;
        }
        c->len = (size_t)snprintf(c->reply, size,
                                  "HTTP/1.1 %d X\r\nContent-Length: %d\r\n"
                                  "Content-Type: application/json\r\n\r\n%s",
                                  status, (int)strlen(text), text);
    }
}

static void play_note(play *p, const char *data, size_t len)
{
    const char *end = (const char *)memchr(data, '\r', len);
    size_t n = end != NULL ? (size_t)(end - data) : len;

    if (p->at < TEST_COUNT(p->lines)) {
        snprintf(p->lines[p->at], sizeof p->lines[0], "%.*s",
                 n > 9 ? (int)n - 9 : 0, data); /* without " HTTP/1.1" */
    }
    p->at++;
    p->request_len = 0;
}

static int play_send(void *conn, const char *data, size_t len, int timeout_ms)
{
    play_conn *c = (play_conn *)conn;
    play *p = c->p;

    (void)timeout_ms;
    pthread_mutex_lock(&p->lock);
    if (c->reply == NULL || (c->kind == '\0' && c->given == c->len)) {
        play_reply(c, p->replies[p->at < p->n ? p->at : p->n - 1]);
        play_note(p, data, len);
    }
    if (p->request_len + len + 1 > p->request_cap) {
        p->request_cap = 2 * (p->request_len + len + 1);
        p->request = (char *)realloc(p->request, p->request_cap);
    }
    memcpy(p->request + p->request_len, data, len);
    p->request_len += len;
    p->request[p->request_len] = '\0';
    pthread_mutex_unlock(&p->lock);
    return (int)len;
}

static int play_recv(void *conn, char *data, size_t cap, int timeout_ms)
{
    play_conn *c = (play_conn *)conn;
    size_t n = c->len - c->given;

    if (c->kind == 's') {
        __atomic_add_fetch(&c->p->clock.now_ms, timeout_ms, __ATOMIC_SEQ_CST);
        return -2;
    }
    if (c->kind == 'r') {
        return -1;
    }
    n = n < cap ? n : cap;
    memcpy(data, c->reply + c->given, n);
    c->given += n;
    return (int)n;
}

static void play_close(void *conn)
{
    free(((play_conn *)conn)->reply);
    free(conn);
}

static void play_start(play *p)
{
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    p->clock.now_ms = 1000;
    p->transport.connect_fn = play_connect;
    p->transport.send_fn = play_send;
    p->transport.recv_fn = play_recv;
    p->transport.close_fn = play_close;
    p->transport.is_secure = true;
    p->transport.user = p;
    p->cfg.base_url = "https://server.test/v1";
    p->cfg.api_key = KEY;
    p->cfg.transport = &p->transport;
    p->cfg.hooks = test_clock_hooks(&p->clock);
    p->cfg.allocator = test_mem_allocator(&p->mem);
    assert_int_equal(gptner_client_new(&p->cfg, &p->client, &p->err), 0);
}

static void play_script(play *p, const char *const *replies, size_t n)
{
    p->replies = replies;
    p->n = n;
    p->at = 0;
}

#define PLAY(p, ...)                                          \
    do {                                                      \
        static const char *const play_list[] = {__VA_ARGS__}; \
        play_script(p, play_list, TEST_COUNT(play_list));     \
    } while (0)

static void play_end(play *p)
{
    gptner_batch_free(p->batch);
    gptner_client_free(p->client);
    free(p->request);
    assert_int_equal(p->mem.blocks, 0);
}

/* The status call, answered by one reply. */
static gptner_status play_look(play *p, const char *reply)
{
    const char *one[1];
    gptner_status status;

    one[0] = reply;
    play_script(p, one, 1);
    gptner_batch_free(p->batch);
    p->batch = NULL;
    status = gptner_batch_status(p->client, "batch_1", &p->batch, &p->err);
    assert_true((status == GPTNER_OK) == (p->batch != NULL));
    p->replies = NULL;
    return status;
}

/* ---- the batch object ---- */

#define HEAD                                                 \
    "{\"id\":\"batch_1\",\"object\":\"batch\",\"endpoint\":" \
    "\"/v1/chat/completions\",\"input_file_id\":\"file-1\"," \
    "\"completion_window\":\"24h\",\"created_at\":1790000001"
#define IN_STATE(word) HEAD ",\"status\":\"" word "\"}"

static const char full[] =
    HEAD ",\"model\":\"gpt-4o-mini-2024-07-18\",\"errors\":{\"object\":"
         "\"list\",\"data\":[{\"code\":\"invalid_json_line\",\"message\":"
         "\"bad \\\"line\\\" \\u00e9\",\"param\":null,\"line\":3},{\"code\":"
         "\"url_mismatch\",\"message\":\"m\",\"param\":\"url\",\"line\":null,"
         "\"new\":[{\"code\":1}]},{}],\"has_more\":false},"
         "\"status\":\"failed\",\"output_file_id\":\"file-2\","
         "\"error_file_id\":\"file-3\",\"in_progress_at\":1790000002,"
         "\"expires_at\":1790086401,\"finalizing_at\":1790000003,"
         "\"completed_at\":1790000004,\"failed_at\":1790000005,"
         "\"expired_at\":1790000006,\"cancelling_at\":1790000007,"
         "\"cancelled_at\":1790000008.0,\"request_counts\":{\"total\":10,"
         "\"completed\":7,\"failed\":2,\"queued\":1},\"usage\":{"
         "\"input_tokens\":100,\"input_tokens_details\":{\"cached_tokens\":"
         "40},\"output_tokens\":50,\"output_tokens_details\":{"
         "\"reasoning_tokens\":30},\"total_tokens\":150},\"metadata\":{"
         "\"description\":\"d\\n\",\"n\":5,\"empty\":\"\",\"none\":null},"
         "\"future\":{\"a\":[1,{\"b\":null}]},\"\":0}";

static void every_field_of_a_batch_is_read(void **state)
{
    play p;
    const gptner_batch *b;

    (void)state;
    play_start(&p);
    assert_status(play_look(&p, full), GPTNER_OK, &p.err);
    b = p.batch;
    assert_str(b->id, "batch_1");
    assert_int_equal(b->state, GPTNER_BATCH_FAILED);
    assert_true(b->ended);
    assert_str(b->status, "failed");
    assert_str(b->endpoint, "/v1/chat/completions");
    assert_str(b->model, "gpt-4o-mini-2024-07-18");
    assert_str(b->completion_window, "24h");
    assert_str(b->input_file_id, "file-1");
    assert_str(b->output_file_id, "file-2");
    assert_str(b->error_file_id, "file-3");
    assert_int_equal(b->created_at, 1790000001);
    assert_int_equal(b->in_progress_at, 1790000002);
    assert_int_equal(b->expires_at, 1790086401);
    assert_int_equal(b->finalizing_at, 1790000003);
    assert_int_equal(b->completed_at, 1790000004);
    assert_int_equal(b->failed_at, 1790000005);
    assert_int_equal(b->expired_at, 1790000006);
    assert_int_equal(b->cancelling_at, 1790000007);
    assert_int_equal(b->cancelled_at, 1790000008);
    assert_int_equal(b->requests_total, 10);
    assert_int_equal(b->requests_completed, 7);
    assert_int_equal(b->requests_failed, 2);
    assert_str(b->raw, full);
    play_end(&p);
}

static void usage_errors_and_metadata_of_a_batch_are_read(void **state)
{
    play p;
    const gptner_batch *b;

    (void)state;
    play_start(&p);
    assert_status(play_look(&p, full), GPTNER_OK, &p.err);
    b = p.batch;
    assert_int_equal(b->usage.prompt_tokens, 100);
    assert_int_equal(b->usage.cached_tokens, 40);
    assert_int_equal(b->usage.completion_tokens, 50);
    assert_int_equal(b->usage.reasoning_tokens, 30);
    assert_int_equal(b->usage.total_tokens, 150);
    assert_int_equal(b->n_errors, 3);
    assert_str(b->errors[0].code, "invalid_json_line");
    assert_str(b->errors[0].message, "bad \"line\" \xc3\xa9");
    assert_str(b->errors[0].param, NULL);
    assert_int_equal(b->errors[0].line, 3);
    assert_str(b->errors[1].param, "url");
    assert_int_equal(b->errors[1].line, 0);
    assert_str(b->errors[2].code, NULL);
    assert_int_equal(b->n_metadata, 4);
    assert_str(b->metadata[0].key, "description");
    assert_str(b->metadata[0].value, "d\n");
    assert_str(b->metadata[1].value, "5");
    assert_str(b->metadata[2].value, "");
    assert_str(b->metadata[3].value, NULL);
    play_end(&p);
}

static void what_is_null_or_absent_is_nothing(void **state)
{
    static const char *const bare[] = {
        "{\"id\":\"batch_1\",\"status\":\"validating\"}",
        ("{\"status\":\"validating\",\"id\":\"batch_1\",\"errors\":null,"
         "\"output_file_id\":null,\"error_file_id\":null,\"model\":null,"
         "\"expires_at\":null,\"request_counts\":null,\"usage\":null,"
         "\"metadata\":null,\"endpoint\":null,\"in_progress_at\":null}"),
        ("\n{\"id\":\"batch_1\",\"status\":\"validating\",\"errors\":{},"
         "\"request_counts\":{},\"usage\":{},\"metadata\":{}}\r\n")};
    size_t i;

    for (i = 0; i < TEST_COUNT(bare); i++) {
        play p;
        const gptner_batch *b;
        (void)state;
        play_start(&p);
        assert_status(play_look(&p, bare[i]), GPTNER_OK, &p.err);
        b = p.batch;
        assert_int_equal(b->state, GPTNER_BATCH_VALIDATING);
        assert_false(b->ended);
        assert_str(b->output_file_id, NULL);
        assert_str(b->model, NULL);
        assert_str(b->endpoint, NULL);
        assert_int_equal(b->expires_at + b->in_progress_at, 0);
        assert_int_equal(b->requests_total, 0);
        assert_int_equal(b->n_errors, 0);
        assert_int_equal(b->n_metadata, 0);
        assert_int_equal(b->usage.total_tokens, -1);
        play_end(&p);
    }
}

static void states_are_known_in_any_case_and_others_survive(void **state)
{
    static const struct {
        const char *word;
        gptner_batch_state state;
        bool ended;
    } all[] = {{"validating", GPTNER_BATCH_VALIDATING, false},
               {"IN_PROGRESS", GPTNER_BATCH_IN_PROGRESS, false},
               {"Finalizing", GPTNER_BATCH_FINALIZING, false},
               {"cancelling", GPTNER_BATCH_CANCELLING, false},
               {"COMPLETED", GPTNER_BATCH_COMPLETED, true},
               {"Failed", GPTNER_BATCH_FAILED, true},
               {"EXPIRED", GPTNER_BATCH_EXPIRED, true},
               {"cancelled", GPTNER_BATCH_CANCELLED, true},
               {"CANCELED", GPTNER_BATCH_CANCELLED, true},
               {"paused", GPTNER_BATCH_UNKNOWN, false},
               {"complete", GPTNER_BATCH_UNKNOWN, false},
               {"completed2", GPTNER_BATCH_UNKNOWN, false}};
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(all); i++) {
        char text[512];
        snprintf(text, sizeof text, HEAD ",\"status\":\"%s\"}", all[i].word);
        assert_status(play_look(&p, text), GPTNER_OK, &p.err);
        assert_int_equal(p.batch->state, all[i].state);
        assert_true(p.batch->ended == all[i].ended);
        assert_str(p.batch->status, all[i].word);
    }
    play_end(&p);
}

/* A member of the wrong type is as good as absent; the batch stays known. */
static void members_of_the_wrong_type_are_passed_over(void **state)
{
    static const char *const odd[] = {
        "\"errors\":\"no\"",
        "\"errors\":[]",
        "\"errors\":5",
        "\"errors\":true",
        "\"errors\":{\"data\":null}",
        "\"errors\":{\"data\":\"x\",\"object\":\"list\"}",
        "\"errors\":{\"data\":{\"code\":\"x\"}}",
        "\"errors\":{\"object\":\"list\"}",
        "\"metadata\":[1,2,\"three\"]",
        "\"metadata\":\"text\"",
        "\"metadata\":7",
        "\"request_counts\":[1,2]",
        "\"request_counts\":\"many\"",
        "\"request_counts\":{\"total\":\"ten\",\"completed\":null}",
        "\"request_counts\":{\"total\":-5}",
        "\"request_counts\":{\"total\":1e300}",
        "\"usage\":[]",
        "\"usage\":\"none\"",
        "\"usage\":{\"input_tokens\":{}}",
        "\"created_at\":\"yesterday\"",
        "\"expires_at\":{}",
        "\"completed_at\":-1",
        "\"output_file_id\":{\"id\":1}",
        "\"output_file_id\":[]",
        "\"model\":true"};
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(odd); i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{\"id\":\"batch_1\",%s,\"status\":\"in_progress\"}", odd[i]);
        if (play_look(&p, text) != GPTNER_OK) {
            fail_msg("%s: %s", odd[i], p.err.message);
        }
        assert_int_equal(p.batch->state, GPTNER_BATCH_IN_PROGRESS);
        assert_int_equal(p.batch->n_errors, 0);
        assert_true(p.batch->requests_total >= 0);
        assert_true(p.batch->completed_at >= 0);
        assert_str(p.batch->output_file_id, NULL);
    }
    play_end(&p);
}

static void replies_that_are_no_batch_are_refused(void **state)
{
    static const char *const none[] = {
        "",
        " ",
        "null",
        "[]",
        "{}",
        "5",
        "\"batch_1\"",
        "<html>busy</html>",
        "{\"id\":\"batch_1\"}",
        "{\"status\":\"completed\"}",
        "{\"id\":\"\",\"status\":\"completed\"}",
        "{\"id\":\"batch_1\",\"status\":\"\"}",
        "{\"id\":null,\"status\":\"completed\"}",
        "{\"id\":\"batch_1\",\"status\":null}",
        "{\"id\":{},\"status\":[]}",
        "{\"id\":\"batch_1\",\"status\":\"completed\"",
        "{\"id\":\"batch_1\",\"status\":\"completed\"}}",
        "{\"id\":\"batch_1\",\"status\":\"completed\"} {}",
        "{\"id\":\"batch_1\",\"status\":\"completed\",}",
        "{\"id\":\"batch_1\",\"status\":\"\xff\"}",

        "{\"error\":{\"message\":\"oops\"}}"};
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(none); i++) {
        if (play_look(&p, none[i]) != GPTNER_ERR_BAD_REPLY) {
            fail_msg("%s: %s", none[i], p.err.message);
        }
        assert_int_equal(p.at, 3); /* bad replies are asked for again, twice */
    }
    play_end(&p);
}

/* Cut anywhere, and flush against an unmapped page. */
static void a_batch_that_was_cut_is_refused_at_every_byte(void **state)
{
    play p;
    test_page page;
    size_t len = sizeof full - 1, i;

    (void)state;
    play_start(&p);
    test_page_init(&page, len);
    for (i = 0; i <= len; i++) {
        gptner_error err = GPN_ZERO;
        const char *text = test_page_put(&page, full, i);
        gptner_batch *b = gpn_batch_new(&p.client->env, gpn_str(text, i), &err);
        assert_true((b != NULL) == (i == len));
        if (b == NULL) {
            assert_status(err.status, GPTNER_ERR_BAD_REPLY, &err);
        }
        gptner_batch_free(b);
    }
    test_page_deinit(&page);
    play_end(&p);
}

static char *repeated(const char *before, const char *part, size_t n,
                      const char *after)
{
    size_t len = strlen(part), i;
    char *text = (char *)malloc(strlen(before) + n * len + strlen(after) + 1);
    char *at = text + sprintf(text, "%s", before);

    for (i = 0; i < n; i++, at += len) {
        memcpy(at, part, len);
    }
    strcpy(at, after);
    return text;
}

static void five_thousand_errors_are_all_there(void **state)
{
    char *text = repeated(
        HEAD
        ",\"status\":\"failed\",\"errors\":{\"object\":\"list\",\"data\":[",
        "{\"code\":\"invalid_json_line\",\"message\":\"This line, {as it is}, "
        "is no JSON: \\\"x\\\"\",\"param\":null,\"line\":77},",
        4999, "{\"code\":\"last\",\"line\":5000}]}}");
    play p;

    (void)state;
    play_start(&p);
    assert_status(play_look(&p, text), GPTNER_OK, &p.err);
    assert_int_equal(p.batch->n_errors, 5000);
    assert_int_equal(p.batch->errors[4998].line, 77);
    assert_str(p.batch->errors[4999].code, "last");
    play_end(&p);
    free(text);
}

/* Memory is a small multiple of the reply, whatever it holds. */
static void hostile_objects_take_no_more_memory_than_they_are_long(void **state)
{
    static const struct {
        const char *before, *part, *after;
        gptner_status status;
    } all[] = {
        {HEAD ",\"status\":\"x\",\"future\":[", "1,", "1]}", GPTNER_OK},
        {HEAD ",\"status\":\"x\",\"errors\":[", "{},", "1]}", GPTNER_OK},
        {HEAD ",\"status\":\"x\",\"errors\":[", "1,", "1]}", GPTNER_OK},
        {HEAD ",\"status\":\"x\",\"metadata\":{", "\"\":1,", "\"a\":1}}",
         GPTNER_OK},
        {HEAD ",\"status\":\"x\",\"model\":\"", ":", "\"}", GPTNER_OK},
        {HEAD ",\"status\":\"x\",\"model\":\"", "{", "\"}", GPTNER_OK},
        {HEAD ",\"status\":\"x\",\"errors\":", "[", "", GPTNER_ERR_BAD_REPLY},
        {HEAD ",\"status\":\"x\",\"future\":", "{\"a\":", "",
         GPTNER_ERR_BAD_REPLY}};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(all); i++) {
        char *text =
            repeated(all[i].before, all[i].part, 1000000, all[i].after);
        play p;
        play_start(&p);
        assert_status(play_look(&p, text), all[i].status, &p.err);
        assert_true(p.mem.peak < 16000000 + 5 * (long)strlen(text));
        play_end(&p);
        free(text);
    }
}

/* ---- ids ---- */

static void strange_ids_are_encoded_or_refused(void **state)
{
    static const struct {
        const char *id;
        const char *path; /* NULL: refused, nothing is sent */
    } all[] = {{"batch_abc-1.2~3", "GET /v1/batches/batch_abc-1.2~3"},
               {"a/../b?c#d%20&", "GET /v1/batches/a%2F..%2Fb%3Fc%23d%2520%26"},
               {"a\"b\\c:d@e+f", "GET /v1/batches/a%22b%5Cc%3Ad%40e%2Bf"},
               {"...", "GET /v1/batches/..."},
               {"a\r\nX: y", NULL},
               {"a\tb", NULL},
               {"a\x7f", NULL},
               {"\x01", NULL},
               {"", NULL},
               {".", NULL},
               {"..", NULL}};
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(all); i++) {
        gptner_status status;
        PLAY(&p, IN_STATE("completed"));
        gptner_batch_free(p.batch);
        status = gptner_batch_status(p.client, all[i].id, &p.batch, &p.err);
        if (all[i].path != NULL) {
            assert_status(status, GPTNER_OK, &p.err);
            assert_string_equal(p.lines[0], all[i].path);
        } else {
            assert_status(status, GPTNER_ERR_INVALID_ARGUMENT, &p.err);
            assert_int_equal(p.at, 0);
            assert_null(p.batch);
        }
    }
    play_end(&p);
}

/* An id that cannot be one must not be polled for a day. */
static void calls_without_sense_are_refused_at_once(void **state)
{
    char *longest = repeated("b", "x", 5000, "");
    gptner_batches *list = NULL;
    gptner_batch_retrieve_config in = GPN_ZERO;
    gptner_batch_submit_config submit = GPN_ZERO;
    gptner_status want = GPTNER_ERR_INVALID_ARGUMENT;
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, IN_STATE("completed"));
#define REFUSED(call) assert_status(call, want, &p.err)
    REFUSED(gptner_batch_status(NULL, "b", &p.batch, &p.err));
    REFUSED(gptner_batch_status(p.client, NULL, &p.batch, &p.err));
    REFUSED(gptner_batch_status(p.client, "b", NULL, &p.err));
    REFUSED(gptner_batch_status(p.client, longest, &p.batch, &p.err));
    REFUSED(gptner_batch_cancel(p.client, "", &p.batch, &p.err));
    REFUSED(gptner_batch_cancel(p.client, "a\n", &p.batch, &p.err));
    REFUSED(gptner_batch_wait(p.client, longest, NULL, &p.batch, &p.err));
    REFUSED(gptner_batch_wait(p.client, "a b", NULL, &p.batch, &p.err));
    REFUSED(gptner_batch_list(p.client, NULL, -1, &list, &p.err));
    REFUSED(gptner_batch_list(p.client, NULL, 101, &list, &p.err));
    REFUSED(gptner_batch_list(p.client, "a b", 1, &list, &p.err));
    REFUSED(gptner_batch_list(p.client, "", 1, &list, &p.err));
    REFUSED(gptner_batch_list(p.client, NULL, 1, NULL, &p.err));
    REFUSED(gptner_batch_list(NULL, NULL, 1, &list, &p.err));
    REFUSED(gptner_batch_retrieve(p.client, "b\n", &in, NULL, &p.err));
    REFUSED(gptner_batch_retrieve(p.client, "b", NULL, NULL, &p.err));
    REFUSED(gptner_batch_submit(p.client, NULL, &p.batch, &p.err));
    REFUSED(gptner_batch_submit(p.client, &submit, &p.batch, &p.err));
    REFUSED(gptner_batch_submit(p.client, &submit, NULL, &p.err));
    assert_int_equal(gptner_batch_status(NULL, "b", NULL, NULL), want);
    assert_null(p.batch);
    assert_null(list);
    assert_int_equal(p.at, 0);
    play_end(&p);
    free(longest);
}

static void errors_of_the_server_are_told_without_the_key(void **state)
{
    static const struct {
        const char *reply;
        gptner_status status;
        int http;
        const char *says;
        size_t requests;
    } all[] = {{"=404 {\"error\":{\"message\":\"No batch\",\"code\":"
                "\"batch_not_found\"}}",
                GPTNER_ERR_NOT_FOUND, 404, "No batch", 1},
               {"=401 {\"error\":{\"message\":\"Incorrect key: " KEY "\"}}",
                GPTNER_ERR_AUTH, 401, "Incorrect key", 1},
               {"=403 {\"error\":{\"message\":\"for " KEY " no\"}}",
                GPTNER_ERR_PERMISSION, 403, "no", 1},
               {"=500 {\"error\":{\"message\":\"broken " KEY "\"}}",
                GPTNER_ERR_SERVER, 500, "broken", 6},
               {"=502 <html>" KEY "</html>", GPTNER_ERR_SERVER, 502, "502", 6},
               {"!reset", GPTNER_ERR_CONNECTION_LOST, 0, "",
                7}}; /* a kept one first */
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(all); i++) {
        assert_status(play_look(&p, all[i].reply), all[i].status, &p.err);
        assert_int_equal(p.err.http_status, all[i].http);
        assert_text_has(p.err.message, all[i].says);
        assert_int_equal(p.at, all[i].requests);
    }
    play_end(&p);
}

/* ---- cancel ---- */

#define ENDED_409                                                \
    "=409 {\"error\":{\"message\":\"Cannot cancel a batch with " \
    "status 'completed'.\",\"type\":\"invalid_request_error\"}}"

static gptner_status play_cancel(play *p)
{
    gptner_batch_free(p->batch);
    return gptner_batch_cancel(p->client, "batch_1", &p->batch, &p->err);
}

static void a_running_batch_is_cancelled_by_one_empty_post(void **state)
{
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, IN_STATE("cancelling"));
    assert_status(play_cancel(&p), GPTNER_OK, &p.err);
    assert_int_equal(p.batch->state, GPTNER_BATCH_CANCELLING);
    assert_string_equal(p.lines[0], "POST /v1/batches/batch_1/cancel");
    assert_text_has(p.request, "Content-Length: 0\r\n");
    assert_int_equal(p.at, 1);
    play_end(&p);
}

static void a_409_to_cancel_means_that_it_has_ended(void **state)
{
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, ENDED_409, IN_STATE("completed"));
    assert_status(play_cancel(&p), GPTNER_OK, &p.err);
    assert_int_equal(p.batch->state, GPTNER_BATCH_COMPLETED);
    assert_string_equal(p.lines[1], "GET /v1/batches/batch_1");
    assert_int_equal(p.at, 2);

    /* the reply is lost, and the second one is told that it is done */
    PLAY(&p, "!reset", ENDED_409, "=500", IN_STATE("cancelled"));
    assert_status(play_cancel(&p), GPTNER_OK, &p.err);
    assert_int_equal(p.batch->state, GPTNER_BATCH_CANCELLED);
    assert_int_equal(p.at, 4);
    play_end(&p);
}

static void cancelling_is_repeated_until_it_is_answered(void **state)
{
    int64_t from;
    play p;

    (void)state;
    play_start(&p);
    from = p.clock.now_ms;
    PLAY(&p, "=500", "=503", "!reset", "{\"id\":", IN_STATE("cancelling"));
    assert_status(play_cancel(&p), GPTNER_OK, &p.err);
    assert_int_equal(p.at, 5);
    assert_between(p.clock.now_ms - from, 15 * SECOND, 25 * SECOND);

    PLAY(&p, "HTTP/1.1 429 X\r\nRetry-After: 90\r\nContent-Length: 0\r\n\r\n",
         IN_STATE("cancelling"));
    from = p.clock.now_ms;
    assert_status(play_cancel(&p), GPTNER_OK, &p.err);
    assert_between(p.clock.now_ms - from, 90 * SECOND, 91 * SECOND);

    PLAY(&p, "=500");
    assert_status(play_cancel(&p), GPTNER_ERR_SERVER, &p.err);
    assert_null(p.batch);
    assert_int_equal(p.at, 6);

    PLAY(&p, "=404 {\"error\":{\"message\":\"No such batch\"}}");
    assert_status(play_cancel(&p), GPTNER_ERR_NOT_FOUND, &p.err);
    assert_int_equal(p.at, 1);
    PLAY(&p, "=401");
    assert_status(play_cancel(&p), GPTNER_ERR_AUTH, &p.err);
    assert_int_equal(p.at, 1);
    play_end(&p);
}

/* ---- lists ---- */

static void a_list_is_asked_for_with_its_limits(void **state)
{
    gptner_batches *list = NULL;
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, "{\"data\":[],\"has_more\":true}");
    assert_status(gptner_batch_list(p.client, NULL, 0, &list, &p.err),
                  GPTNER_OK, &p.err);
    assert_int_equal(list->count, 0);
    assert_true(list->has_more);
    assert_string_equal(p.lines[0], "GET /v1/batches?limit=20");
    gptner_batches_free(list);
    PLAY(&p, "{\"object\":\"list\",\"first_id\":\"x\",\"data\":[" IN_STATE(
                 "failed") "," IN_STATE("new") "],\"has_more\":false,\"z\":1}");
    assert_status(gptner_batch_list(p.client, "b&c=1", 100, &list, &p.err),
                  GPTNER_OK, &p.err);
    assert_string_equal(p.lines[0],
                        "GET /v1/batches?limit=100&after=b%26c%3D1");
    assert_int_equal(list->count, 2);
    assert_false(list->has_more);
    assert_int_equal(list->items[0]->state, GPTNER_BATCH_FAILED);
    assert_str(list->items[1]->status, "new");
    gptner_batches_free(list);
    gptner_batches_free(NULL);
    play_end(&p);
}

static void more_than_was_asked_for_is_left_out(void **state)
{
    gptner_batches *list = NULL;
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, "{\"has_more\":true,\"data\":[" IN_STATE("failed") "," IN_STATE(
                 "expired") "," IN_STATE("failed") "]}");
    assert_status(gptner_batch_list(p.client, NULL, 2, &list, &p.err),
                  GPTNER_OK, &p.err);
    assert_int_equal(list->count, 2);
    assert_true(list->has_more);
    gptner_batches_free(list);
    play_end(&p);
}

static void lists_that_are_none_are_refused(void **state)
{
    static const char *const none[] = {"",
                                       "{}",
                                       "[]",
                                       "{\"data\":null}",
                                       "{\"data\":5,\"has_more\":false}",
                                       "{\"data\":[",
                                       "{\"data\":[{}]}",
                                       "{\"data\":[1]}",
                                       "{\"data\":[{\"id\":\"a\"}]}"};
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(none); i++) {
        gptner_batches *list = NULL;
        play_script(&p, &none[i], 1);
        assert_status(gptner_batch_list(p.client, NULL, 5, &list, &p.err),
                      GPTNER_ERR_BAD_REPLY, &p.err);
        assert_null(list);
        assert_int_equal(p.at, 3);
    }
    play_end(&p);
}

/* ---- wait ---- */

typedef struct watch {
    play *p;
    int looks;
    int stop_at; /* 0: never */
    int64_t seen[64];
} watch;

static bool watch_batch(const gptner_batch *batch, void *user)
{
    watch *w = (watch *)user;

    assert_str(batch->id, "batch_1");
    if (w->looks < 64) {
        w->seen[w->looks] = w->p->clock.now_ms;
    }
    w->looks++;
    return w->looks != w->stop_at;
}

static gptner_status play_wait(play *p, int64_t poll_ms, int64_t max_ms,
                               watch *w)
{
    gptner_batch_wait_config cfg = GPN_ZERO;

    cfg.poll_ms = poll_ms;
    cfg.max_wait_ms = max_ms;
    if (w != NULL) {
        memset(w->seen, 0, sizeof w->seen);
        w->looks = 0;
        w->p = p;
        cfg.batch_fn = watch_batch;
        cfg.user = w;
    }
    gptner_batch_free(p->batch);
    return gptner_batch_wait(p->client, "batch_1", &cfg, &p->batch, &p->err);
}

static void a_batch_is_looked_at_once_a_minute_until_it_has_ended(void **state)
{
    watch w = GPN_ZERO;
    play p;
    int i;

    (void)state;
    play_start(&p);
    PLAY(&p, IN_STATE("validating"), IN_STATE("in_progress"),
         IN_STATE("paused"), IN_STATE("IN_PROGRESS"), IN_STATE("finalizing"),
         IN_STATE("COMPLETED"));
    assert_status(play_wait(&p, 0, 0, &w), GPTNER_OK, &p.err);
    assert_int_equal(p.batch->state, GPTNER_BATCH_COMPLETED);
    assert_int_equal(w.looks, 6);
    for (i = 1; i < 6; i++) {
        assert_int_equal(w.seen[i] - w.seen[i - 1], MINUTE);
    }
    gptner_batch_free(p.batch);
    PLAY(&p, IN_STATE("validating"), IN_STATE("completed"));
    assert_status(
        gptner_batch_wait(p.client, "batch_1", NULL, &p.batch, &p.err),
        GPTNER_OK, &p.err);
    play_end(&p);
}

static void each_end_ends_the_wait(void **state)
{
    static const char *const ends[] = {
        IN_STATE("completed"), IN_STATE("failed"), IN_STATE("expired"),
        IN_STATE("cancelled"), IN_STATE("CANCELED")};
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(ends); i++) {
        const char *two[2] = {IN_STATE("cancelling"), NULL};
        two[1] = ends[i];
        play_script(&p, two, 2);
        assert_status(play_wait(&p, 5 * SECOND, 0, NULL), GPTNER_OK, &p.err);
        assert_true(p.batch->ended);
        assert_int_equal(p.at, 2);
    }
    play_end(&p);
}

static void the_wait_gives_up_after_25_hours(void **state)
{
    int64_t from;
    play p;

    (void)state;
    play_start(&p);
    from = p.clock.now_ms;
    PLAY(&p, IN_STATE("in_progress"));
    assert_status(play_wait(&p, 0, 0, NULL), GPTNER_ERR_TIMEOUT, &p.err);
    assert_between(p.clock.now_ms - from, 25 * HOUR, 25 * HOUR + 10);
    assert_int_equal(p.at, 25 * 60);
    assert_int_equal(p.batch->state, GPTNER_BATCH_IN_PROGRESS);
    assert_text_has(p.err.message, "90000 s");

    from = p.clock.now_ms;
    PLAY(&p, IN_STATE("in_progress"));
    assert_status(play_wait(&p, 0, 150 * SECOND, NULL), GPTNER_ERR_TIMEOUT,
                  &p.err);
    assert_between(p.clock.now_ms - from, 150 * SECOND, 150 * SECOND + 10);
    assert_int_equal(p.at, 3);
    play_end(&p);
}

static void a_poll_that_fails_changes_nothing(void **state)
{
    static const char *const failures[] = {
        "=500", "=503 overloaded", "!reset", "=429", "<html>", "{}",
        "=409", "=404 nothing",    "=302",   "=408"};
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(failures); i++) {
        const char *list[32];
        watch w = GPN_ZERO;
        size_t n = 0;
        list[n++] = IN_STATE("in_progress");
        while (n < 31) { /* whatever is tried again within a poll */
            list[n++] = failures[i];
            if (n == 2 && strncmp(failures[i], "=404", 4) == 0) {
                break;
            }
        }
        list[n++] = IN_STATE("completed");
        play_script(&p, list, n);
        if (play_wait(&p, 0, 0, &w) != GPTNER_OK) {
            fail_msg("%s: %s", failures[i], p.err.message);
        }
        assert_int_equal(w.looks, 2);
        assert_true(p.batch->ended);
    }
    play_end(&p);
}

static void what_was_known_is_kept_when_the_wait_fails(void **state)
{
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, IN_STATE("in_progress"), "=500");
    assert_status(play_wait(&p, 0, 2 * HOUR, NULL), GPTNER_ERR_TIMEOUT, &p.err);
    assert_int_equal(p.batch->state, GPTNER_BATCH_IN_PROGRESS);
    PLAY(&p, "=500");
    assert_status(play_wait(&p, 0, HOUR, NULL), GPTNER_ERR_TIMEOUT, &p.err);
    assert_null(p.batch);
    play_end(&p);
}

static void a_batch_that_stays_unknown_ends_the_wait(void **state)
{
    int64_t from;
    play p;

    (void)state;
    play_start(&p);
    from = p.clock.now_ms;
    PLAY(&p, IN_STATE("in_progress"), "=404", "=404", IN_STATE("in_progress"),
         "=404", "=404", "=404", IN_STATE("completed"));
    assert_status(play_wait(&p, 0, 0, NULL), GPTNER_ERR_NOT_FOUND, &p.err);
    assert_int_equal(p.at, 7);
    assert_int_equal(p.clock.now_ms - from, 6 * MINUTE);
    assert_int_equal(p.batch->state, GPTNER_BATCH_IN_PROGRESS);
    play_end(&p);
}

static void a_key_that_is_refused_ends_the_wait(void **state)
{
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, IN_STATE("in_progress"),
         "=401 {\"error\":{\"message\":\"Incorrect API key " KEY "\"}}");
    assert_status(play_wait(&p, 0, 0, NULL), GPTNER_ERR_AUTH, &p.err);
    assert_int_equal(p.at, 2);
    PLAY(&p, "=403");
    assert_status(play_wait(&p, 0, 0, NULL), GPTNER_ERR_PERMISSION, &p.err);
    assert_int_equal(p.at, 1);
    play_end(&p);
}

static void a_wait_for_a_silent_server_ends_in_time(void **state)
{
    static const int64_t limits[] = {3 * SECOND, MINUTE, 10 * MINUTE, 3 * HOUR};
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(limits); i++) {
        int64_t from = p.clock.now_ms;
        PLAY(&p, IN_STATE("in_progress"), "!stall");
        assert_status(play_wait(&p, SECOND, limits[i], NULL),
                      GPTNER_ERR_TIMEOUT, &p.err);
        assert_between(p.clock.now_ms - from, limits[i] * 9 / 10,
                       limits[i] * 11 / 10);
        assert_int_equal(p.batch->state, GPTNER_BATCH_IN_PROGRESS);
    }
    play_end(&p);
}

static void the_caller_can_stop_the_wait(void **state)
{
    watch w = GPN_ZERO;
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, IN_STATE("in_progress"));
    w.stop_at = 3;
    assert_status(play_wait(&p, 0, 0, &w), GPTNER_ERR_CANCELLED, &p.err);
    assert_int_equal(w.looks, 3);
    assert_int_equal(p.batch->state, GPTNER_BATCH_IN_PROGRESS);
    /* also at the last look */
    PLAY(&p, IN_STATE("completed"));
    w.stop_at = 1;
    assert_status(play_wait(&p, 0, 0, &w), GPTNER_ERR_CANCELLED, &p.err);
    assert_true(p.batch->ended);
    gptner_client_cancel(p.client);
    assert_status(play_wait(&p, 0, 0, NULL), GPTNER_ERR_CANCELLED, &p.err);
    play_end(&p);
}

/* ---- submit, to a script ---- */

#define CHAT_LINE(id)                                               \
    "{\"custom_id\":\"" id "\",\"method\":\"POST\",\"url\":"        \
    "\"/v1/chat/completions\",\"body\":{\"model\":\"gpt-4o-mini\"," \
    "\"messages\":[{\"role\":\"user\",\"content\":\"hi " id "\"}]}}\n"
#define FILE_1  "{\"id\":\"file-1\",\"object\":\"file\"}"
#define NO_LIST "{\"object\":\"list\",\"data\":[],\"has_more\":false}"
#define JOB_BATCH                                                  \
    "{\"id\":\"batch_9\",\"status\":\"validating\",\"metadata\":{" \
    "\"gptner_job\":\"job-1\"}}"
#define JOB_LIST "{\"object\":\"list\",\"data\":[" JOB_BATCH "]}"

static char one_path[256];

static const char *one_file(void)
{
    test_tmp_path(one_path, "one.jsonl");
    test_spit(one_path, CHAT_LINE("a"), sizeof CHAT_LINE("a") - 1);
    return one_path;
}

static gptner_status play_submit(play *p, gptner_batch_submit_config *cfg)
{
    gptner_status status;

    if (cfg->path == NULL) {
        cfg->path = one_file();
    }
    gptner_batch_free(p->batch);
    status = gptner_batch_submit(p->client, cfg, &p->batch, &p->err);
    assert_true((status == GPTNER_OK) == (p->batch != NULL));
    return status;
}

static void play_expect(const play *p, const char *const *lines, size_t n)
{
    size_t i;

    for (i = 0; i < n && i < p->at; i++) {
        if (strcmp(p->lines[i], lines[i]) != 0) {
            fail_msg("request %d: \"%s\" instead of \"%s\"", (int)i + 1,
                     p->lines[i], lines[i]);
        }
    }
    assert_int_equal(p->at, n);
}

#define EXPECT(p, ...)                                          \
    do {                                                        \
        static const char *const expect_list[] = {__VA_ARGS__}; \
        play_expect(p, expect_list, TEST_COUNT(expect_list));   \
    } while (0)

#define POST_FILE  "POST /v1/files"
#define POST_BATCH "POST /v1/batches"
#define LIST_FILES "GET /v1/files?purpose=batch&limit=1000"
#define LIST_BATCH "GET /v1/batches?limit=100"
#define LOOK_BATCH "GET /v1/batches/batch_9"

static void a_submission_is_two_requests(void **state)
{
    gptner_batch_submit_config cfg = GPN_ZERO;
    gptner_pair pairs[2];
    play p;

    (void)state;
    play_start(&p);
    pairs[0].key = gptner_str_from("k\"1");
    pairs[0].value = gptner_str_from("v\n\xc3\xa9");
    pairs[1].key = gptner_str_from("empty");
    pairs[1].value = gptner_str_from("");
    cfg.metadata = pairs;
    cfg.n_metadata = 2;
    cfg.output_expires_s = 3600;
    PLAY(&p, FILE_1, JOB_BATCH);
    assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
    EXPECT(&p, POST_FILE, POST_BATCH);
    assert_str(p.batch->id, "batch_9");
    assert_text_has(p.request,
                    "\r\n\r\n{\"input_file_id\":\"file-1\",\"endpoint\":"
                    "\"/v1/chat/completions\",\"completion_window\":\"24h\","
                    "\"metadata\":{\"description\":\"GPT-NER batch "
                    "processing\",\"gptner_job\":\"");
    assert_text_has(p.request, "\",\"k\\\"1\":\"v\\n\xc3\xa9\",\"empty\":\"\"},"
                               "\"output_expires_after\":{\"anchor\":"
                               "\"created_at\",\"seconds\":3600}}");

    PLAY(&p, NO_LIST, NO_LIST, NO_LIST, FILE_1, JOB_BATCH);
    memset(&cfg, 0, sizeof cfg);
    cfg.description = "mine";
    cfg.endpoint = "/v1/other";
    cfg.job = "job-1";
    assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
    EXPECT(&p, LIST_BATCH, LIST_FILES, LIST_FILES, POST_FILE, POST_BATCH);
    assert_text_has(p.request,
                    "\"endpoint\":\"/v1/other\",\"completion_window\":\"24h\","
                    "\"metadata\":{\"description\":\"mine\",\"gptner_job\":"
                    "\"job-1\"}}");
    play_end(&p);
}

static const char *part_of(const char *form, size_t len, const char *name,
                           const char *boundary, size_t *part_len)
{
    char want[128], end[128];
    const char *at, *to;

    snprintf(want, sizeof want, "name=\"%s\"", name);
    snprintf(end, sizeof end, "\r\n--%s", boundary);
    at = (const char *)memmem(form, len, want, strlen(want));
    assert_non_null(at);
    at = strstr(at, "\r\n\r\n") + 4;
    to = (const char *)memmem(at, len - (size_t)(at - form), end, strlen(end));
    assert_non_null(to);
    *part_len = (size_t)(to - at);
    return at;
}

typedef struct uploaded {
    int64_t last, total;
    int calls;
    bool wrong;
} uploaded;

static void note_upload(int64_t sent, int64_t total, void *user)
{
    uploaded *u = (uploaded *)user;

    u->wrong = u->wrong || sent < u->last || sent > total ||
               (u->total != 0 && total != u->total);
    u->last = sent;
    u->total = total;
    u->calls++;
}

/* 5 MB of every byte behind a first line that is one. */
static char *big_file(char path[256], size_t *len)
{
    size_t size = 5000000, i = sizeof CHAT_LINE("a") - 1;
    char *data = (char *)malloc(size);
    uint32_t x = 1;

    memcpy(data, CHAT_LINE("a"), i);
    for (; i < size; i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = (char)(x >> 24);
    }
    test_tmp_path(path, "big file (1).jsonl");
    test_spit(path, data, size);
    *len = size;
    return data;
}

static void an_upload_arrives_byte_for_byte(void **state)
{
    gptner_batch_submit_config cfg = GPN_ZERO;
    uploaded up = GPN_ZERO;
    char path[256], boundary[128];
    size_t len, got;
    char *data = big_file(path, &len);
    const char *body, *part;
    play p;

    (void)state;
    play_start(&p);
    cfg.path = path;
    cfg.job = "job.1_A";
    cfg.upload_fn = note_upload;
    cfg.upload_user = &up;
    PLAY(&p, NO_LIST, NO_LIST, NO_LIST, "=400 {\"error\":{}}");
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BAD_REQUEST, &p.err);
    assert_int_equal(p.at, 4);
    assert_int_equal(
        sscanf(strstr(p.request, "boundary="), "boundary=%100s", boundary), 1);
    body = strstr(p.request, "\r\n\r\n") + 4;
    got = p.request_len - (size_t)(body - p.request);
    assert_int_equal(atol(strstr(p.request, "Content-Length: ") + 16), got);
    part = part_of(body, got, "purpose", boundary, &len);
    assert_int_equal(len, 5);
    assert_memory_equal(part, "batch", 5);
    assert_non_null(
        memmem(body, 1000, "filename=\"big_file__1_-job.1_A.jsonl\"", 37));
    part = part_of(body, got, "file", boundary, &len);
    assert_int_equal(len, 5000000);
    assert_memory_equal(part, data, len);
    assert_memory_equal(body + got - 4, "--\r\n", 4);
    assert_false(up.wrong);
    assert_int_equal(up.last, got);
    assert_int_equal(up.total, got);
    assert_true(up.calls > 10);
    play_end(&p);
    free(data);
}

static char *characters(const char *one, size_t n)
{
    return repeated("", one, n, "");
}

static void metadata_is_counted_in_characters(void **state)
{
    char *e64 = characters("\xc3\xa9", 64), *e65 = characters("\xc3\xa9", 65);
    char *g512 = characters("\xf0\x9f\x98\x80", 512);
    char *g513 = characters("\xf0\x9f\x98\x80", 513);
    const struct {
        const char *description, *key, *value;
        size_t n;
        bool ok;
    } all[] = {{g512, e64, g512, 14, true},
               {g513, "k", "v", 1, false},
               {NULL, e65, "v", 1, false},
               {NULL, "k", g513, 1, false},
               {NULL, "", "v", 1, false},
               {NULL, "k", "v", 15, false},
               {NULL, "k", "\xff", 1, false},
               {"\xff", "k", "", 1, false},
               {NULL, "gptner_job", "v", 1, false},
               {NULL, "description", "v", 1, false}};
    play p;
    size_t i, k;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(all); i++) {
        gptner_batch_submit_config cfg = GPN_ZERO;
        gptner_pair pairs[15];
        char keys[15][300];
        for (k = 0; k < all[i].n; k++) {
            /* different ones, of the same length */
            snprintf(keys[k], sizeof keys[k], "%s", all[i].key);
            if (all[i].n > 1) {
                keys[k][strlen(keys[k]) - 1] = (char)(0x80 + k);
            }
            pairs[k].key = gptner_str_from(keys[k]);
            pairs[k].value = gptner_str_from(all[i].value);
        }
        cfg.description = all[i].description;
        cfg.metadata = pairs;
        cfg.n_metadata = all[i].n;
        PLAY(&p, FILE_1, JOB_BATCH);
        if (all[i].ok) {
            assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
        } else {
            assert_status(play_submit(&p, &cfg), GPTNER_ERR_INVALID_ARGUMENT,
                          &p.err);
            assert_int_equal(p.at, 0); /* not even the upload */
        }
    }
    play_end(&p);
    free(e64);
    free(e65);
    free(g512);
    free(g513);
}

static void what_is_submitted_is_checked_before_it_is_sent(void **state)
{
    static const char *const jobs[] = {"",
                                       "a b",
                                       "a/b",
                                       "a*b",
                                       "\xc3\xa9",
                                       "a\n",
                                       "0123456789012345678901234567890"
                                       "1234567890123456789012345678901"
                                       "234"};
    static const int64_t seconds[] = {1, -1, 3599, 2592001};
    gptner_batch_submit_config cfg = GPN_ZERO;
    char path[256];
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    PLAY(&p, FILE_1, JOB_BATCH);
    for (i = 0; i < TEST_COUNT(jobs); i++) {
        cfg.job = jobs[i];
        assert_status(play_submit(&p, &cfg), GPTNER_ERR_INVALID_ARGUMENT,
                      &p.err);
    }
    cfg.job = NULL;
    for (i = 0; i < TEST_COUNT(seconds); i++) {
        cfg.output_expires_s = seconds[i];
        assert_status(play_submit(&p, &cfg), GPTNER_ERR_INVALID_ARGUMENT,
                      &p.err);
    }
    cfg.output_expires_s = 0;
    cfg.path = "requests.json";
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_INVALID_ARGUMENT, &p.err);
    cfg.path = test_tmp_path(path, "absent.jsonl");
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_FILE, &p.err);
    assert_text_has(p.err.message, "absent.jsonl");
    cfg.endpoint = "/v1/responses";
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_FILE, &p.err);
    cfg.endpoint = NULL;
    cfg.path = test_tmp_path(path, "empty.jsonl");
    test_spit(path, "", 0);
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BATCH_INVALID, &p.err);
    test_spit(path, "{\"custom_id\":\"a\"}\n", 18);
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BATCH_INVALID, &p.err);
    test_spit(path, "no JSON\n", 8);
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BATCH_INVALID, &p.err);
    assert_int_equal(p.at, 0);
    play_end(&p);
}

static void the_endpoint_is_that_of_the_first_line(void **state)
{
    static const char *const lines[] = {
        "{\"url\":\"/v1/x\"}\n{\"url\":\"/v1/y\"}\n",
        "\r\n {\"body\":{\"url\":\"/v1/no\"},\"u\":1,\"url\":\"\\/v1\\/x\"}"};
    gptner_batch_submit_config cfg = GPN_ZERO;
    char path[256];
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    cfg.path = test_tmp_path(path, "x.jsonl");
    for (i = 0; i < TEST_COUNT(lines); i++) {
        test_spit(path, lines[i], strlen(lines[i]));
        PLAY(&p, FILE_1, JOB_BATCH);
        assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
        assert_text_has(p.request, "\"endpoint\":\"/v1/x\",");
    }
    play_end(&p);
}

static void a_500_after_the_creation_makes_no_second_batch(void **state)
{
    static const char *const odd[] = {"=500", "=502", "!reset",  "<html>",
                                      "{}",   "=408", "=409 {}", "!stall"};
    gptner_batch_submit_config cfg = GPN_ZERO;
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    cfg.job = "job-1";
    for (i = 0; i < TEST_COUNT(odd); i++) {
        const char *list[] = {NO_LIST, NO_LIST, NO_LIST,  FILE_1,
                              odd[i],  NO_LIST, JOB_LIST, JOB_BATCH};
        play_script(&p, list, TEST_COUNT(list));
        assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
        EXPECT(&p, LIST_BATCH, LIST_FILES, LIST_FILES, POST_FILE, POST_BATCH,
               LIST_BATCH, LIST_BATCH, LOOK_BATCH);
        assert_str(p.batch->id, "batch_9");
    }
    play_end(&p);
}

/* It is looked for again and again before it is believed not to be there. */
static void a_5xx_before_the_creation_is_repeated(void **state)
{
    gptner_batch_submit_config cfg = GPN_ZERO;
    int64_t from;
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, FILE_1, "=500", NO_LIST, "=503", NO_LIST, NO_LIST, NO_LIST,
         JOB_BATCH);
    from = p.clock.now_ms;
    assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
    EXPECT(&p, POST_FILE, POST_BATCH, LIST_BATCH, LIST_BATCH, LIST_BATCH,
           LIST_BATCH, LIST_BATCH, POST_BATCH);
    assert_between(p.clock.now_ms - from, 8 * SECOND, 20 * SECOND);
    play_end(&p);
}

/* When one cannot look, one does not make. */
static void nothing_is_made_while_it_cannot_be_looked_for(void **state)
{
    gptner_batch_submit_config cfg = GPN_ZERO;
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    PLAY(&p, FILE_1, "!reset");
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_CONNECTION_LOST, &p.err);
    for (i = 2; i < p.at; i++) {
        assert_string_equal(p.lines[i], LIST_BATCH);
    }
    PLAY(&p, FILE_1, "=500", "=401");
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_AUTH, &p.err);
    assert_int_equal(p.at, 3);
    PLAY(&p, FILE_1, "=500", "<html>");
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BAD_REPLY, &p.err);
    assert_int_equal(p.at, 5);
    /* a page that cannot be followed is no proof of absence */
    PLAY(&p, FILE_1, "=500",
         "{\"data\":[{\"id\":\"a b\",\"status\":\"x\"}],\"has_more\":true}");
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BAD_REPLY, &p.err);
    for (i = 2; i < p.at; i++) {
        assert_string_equal(p.lines[i], LIST_BATCH);
    }
    play_end(&p);
}

/* A batch that was made, but that we could not name, is not made again. */
static void ids_that_are_none_are_no_reason_to_repeat(void **state)
{
    char *id =
        repeated("{\"status\":\"validating\",\"id\":\"", "x", 200, "\"}");
    char *file = repeated("{\"id\":\"", "y", 200, "\"}");
    const char *batches[] = {FILE_1, NULL, NO_LIST};
    const char *files[] = {NULL, NO_LIST};
    gptner_batch_submit_config cfg = GPN_ZERO;
    play p;
    size_t i, posts = 0;

    (void)state;
    play_start(&p);
    batches[1] = id;
    play_script(&p, batches, 3);
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BAD_REPLY, &p.err);
    for (i = 0; i < p.at && i < TEST_COUNT(p.lines); i++) {
        posts += strcmp(p.lines[i], POST_BATCH) == 0;
    }
    assert_int_equal(posts, 1);
    files[0] = file;
    play_script(&p, files, 2);
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BAD_REPLY, &p.err);
    for (posts = i = 0; i < p.at && i < TEST_COUNT(p.lines); i++) {
        posts += strcmp(p.lines[i], POST_FILE) == 0;
    }
    assert_int_equal(posts, 1);
    play_end(&p);
    free(id);
    free(file);
}

static void a_429_is_waited_for_on_both_ways(void **state)
{
#define WAIT_30 "HTTP/1.1 429 X\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n"
    gptner_batch_submit_config cfg = GPN_ZERO;
    int64_t from;
    play p;

    (void)state;
    play_start(&p);
    from = p.clock.now_ms;
    PLAY(&p, WAIT_30, WAIT_30, FILE_1, WAIT_30, JOB_BATCH);
    assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
    EXPECT(&p, POST_FILE, POST_FILE, POST_FILE, POST_BATCH, POST_BATCH);
    assert_between(p.clock.now_ms - from, 90 * SECOND, 91 * SECOND);
    play_end(&p);
}

static void refusals_are_reported_and_not_repeated(void **state)
{
    static const struct {
        const char *reply;
        gptner_status status;
    } all[] = {{"=400 {\"error\":{\"message\":\"Invalid \\\"" KEY
                "\\\" file\"}}",
                GPTNER_ERR_BAD_REQUEST},
               {"=401 {\"error\":{\"message\":\"Incorrect API key " KEY "\"}}",
                GPTNER_ERR_AUTH},
               {"=403 {}", GPTNER_ERR_PERMISSION},
               {"=404 {\"error\":{\"message\":\"unknown url\"}}",
                GPTNER_ERR_NOT_FOUND},
               {"=413 {}", GPTNER_STATUS_LAST},
               {"=422 {}", GPTNER_STATUS_LAST},
               {"=429 {\"error\":{\"code\":\"insufficient_quota\",\"type\":"
                "\"insufficient_quota\",\"message\":\"pay\"}}",
                GPTNER_ERR_QUOTA}};
    gptner_batch_submit_config cfg = GPN_ZERO;
    play p;
    size_t i;

    (void)state;
    play_start(&p);
    for (i = 0; i < TEST_COUNT(all); i++) {
        const char *list[2] = {FILE_1, NULL};
        gptner_status status;
        list[1] = all[i].reply;
        play_script(&p, list, 2);
        status = play_submit(&p, &cfg);
        assert_status(status,
                      all[i].status != GPTNER_STATUS_LAST ? all[i].status
                                                          : p.err.status,
                      &p.err);
        assert_int_equal(p.at, 2);
        play_script(&p, list + 1, 1);
        assert_status(play_submit(&p, &cfg), status, &p.err);
        assert_int_equal(p.at, 1);
    }
    play_end(&p);
}

static void a_file_unknown_for_a_while_is_waited_for(void **state)
{
#define CANNOT_FIND                                                    \
    "=400 {\"error\":{\"message\":\"Cannot find file file-1, or organ" \
    "isation org-1 does not have access to it.\",\"param\":\"file_id\"}}"
#define NO_SUCH "=404 {\"error\":{\"message\":\"No such File object: f\"}}"
    gptner_batch_submit_config cfg = GPN_ZERO;
    int64_t from;
    play p;

    (void)state;
    play_start(&p);
    from = p.clock.now_ms;
    PLAY(&p, FILE_1, CANNOT_FIND, NO_SUCH, CANNOT_FIND, JOB_BATCH);
    assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
    EXPECT(&p, POST_FILE, POST_BATCH, POST_BATCH, POST_BATCH, POST_BATCH);
    assert_between(p.clock.now_ms - from, 3 * SECOND, 20 * SECOND);
    PLAY(&p, FILE_1, CANNOT_FIND);
    from = p.clock.now_ms;
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_BAD_REQUEST, &p.err);
    assert_int_equal(p.at, 7);
    assert_between(p.clock.now_ms - from, 5 * SECOND, MINUTE);
    play_end(&p);
}

static void an_upload_whose_reply_is_lost_is_found(void **state)
{
#define FILES(name, bytes)                                                  \
    "{\"data\":[{\"id\":\"file-0\",\"filename\":\"other.jsonl\",\"bytes\":" \
    "5},{\"id\":\"file-7\",\"bytes\":" bytes ",\"filename\":\"" name        \
    "\"}],\"has_more\":false}"
    gptner_batch_submit_config cfg = GPN_ZERO;
    char found[300];
    const char *list[] = {NO_LIST, NO_LIST, NO_LIST, "!reset", NULL, JOB_BATCH};
    play p;

    (void)state;
    play_start(&p);
    cfg.job = "job-1";
    snprintf(found, sizeof found, FILES("one-job-1.jsonl", "%d"),
             (int)sizeof CHAT_LINE("a") - 1);
    list[4] = found;
    play_script(&p, list, 6);
    assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
    EXPECT(&p, LIST_BATCH, LIST_FILES, LIST_FILES, POST_FILE, LIST_FILES,
           POST_BATCH);
    assert_text_has(p.request, "\"input_file_id\":\"file-7\"");

    /* one of another length is half an upload, or another file */
    PLAY(&p, NO_LIST, NO_LIST, NO_LIST, "!reset",
         FILES("one-job-1.jsonl", "17"), FILES("one-job-1.jsonl", "17"), FILE_1,
         JOB_BATCH);
    assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
    EXPECT(&p, LIST_BATCH, LIST_FILES, LIST_FILES, POST_FILE, LIST_FILES,
           LIST_FILES, POST_FILE, POST_BATCH);
    play_end(&p);
}

static void cancelling_ends_a_submission(void **state)
{
    gptner_batch_submit_config cfg = GPN_ZERO;
    play p;

    (void)state;
    play_start(&p);
    PLAY(&p, FILE_1, JOB_BATCH);
    gptner_client_cancel(p.client);
    assert_status(play_submit(&p, &cfg), GPTNER_ERR_CANCELLED, &p.err);
    assert_int_equal(p.at, 0);
    gptner_client_reset(p.client);
    assert_status(play_submit(&p, &cfg), GPTNER_OK, &p.err);
    play_end(&p);
}
/* ---- the mock, in this thread, and a clock for both -----------------------
 */

enum { ROWS = 40 };

typedef struct rig {
    int64_t now;
    uint64_t chance;
    int64_t back_ms; /* a stopped mock is started again then; 0: it runs */
    int port;
    mock_options mock_opt;
    mock_server *mock;
    test_mem mem;
    gptner_config cfg;
    gptner_client *client;
    gptner_batch *batch;
    gptner_batch_submit_config submit;
    gptner_batch_wait_config wait;
    gptner_batch_retrieve_config in;
    gptner_batch_summary sum;
    gptner_result **results;
    size_t n;
    gptner_error err;
    int stops; /* how often the mock is still to be stopped */
    char requests[256], output[256], raw[256], raw_error[256], prefix[256];
} rig;

static int64_t rig_ms(void *user)
{
    return ((rig *)user)->now;
}

static int64_t rig_unix_ms(void *user)
{
    return ((rig *)user)->now + INT64_C(1790000000000);
}

static uint64_t rig_random(void *user)
{
    rig *r = (rig *)user;

    r->chance = r->chance * 6364136223846793005u + 1442695040888963407u;
    return r->chance;
}

static void rig_serve(rig *r)
{
    char why[256];

    if (!mock_server_start(&r->mock_opt, &r->mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
}

/* Whoever waits lets the mock work, or time go on to what comes first. */
static bool rig_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    rig *r = (rig *)user;
    bool progress = false;
    int64_t next = INT64_MAX, to;

    (void)now_ms;
    if (r->mock == NULL && r->now >= r->back_ms) {
        rig_serve(r);
    }
    if (r->mock != NULL) {
        next = mock_server_step(r->mock, &progress);
    }
    to = until_ms < next ? until_ms : next;
    if (!progress) {
        if (to == INT64_MAX) {
            fail_msg("client and mock wait for each other for ever");
        }
        r->now = to > r->now ? to : r->now + 1;
    }
    return true;
}

static void put_rows(const char *path, int n)
{
    FILE *f = fopen(path, "wb");
    int i;

    assert_non_null(f);
    for (i = 0; i < n; i++) {
        fprintf(f,
                "{\"custom_id\":\"request-%d\",\"method\":\"POST\",\"url\":"
                "\"/v1/chat/completions\",\"body\":{\"model\":\"gpt-4o-mini\","
                "\"messages\":[{\"role\":\"user\",\"content\":\"prompt %d\"}]}}"
                "\n",
                i, i);
    }
    assert_int_equal(fclose(f), 0);
}

/* faults are separated by blanks */
static void rig_fault(rig *r, const char *faults)
{
    char text[512], why[256];
    char *rest = text, *one;

    assert_true(mock_server_fault(r->mock, NULL, why, sizeof why));
    snprintf(text, sizeof text, "%s", faults);
    while (faults[0] != '\0' && (one = test_cut(&rest, ' ')) != NULL) {
        if (!mock_server_fault(r->mock, one, why, sizeof why)) {
            fail_msg("%s: %s", one, why);
        }
    }
}

static void rig_start(rig *r, const char *faults)
{
    memset(r, 0, sizeof *r);
    r->now = 1000;
    r->chance = 42;
    r->mock_opt.manual = true;
    r->mock_opt.seed = 7;
    r->mock_opt.batch_seconds = 1000;
    r->mock_opt.clock_ms_fn = rig_ms;
    r->mock_opt.unix_ms_fn = rig_unix_ms;
    r->mock_opt.clock_user = r;
    rig_serve(r);
    r->port = mock_server_port(r->mock);
    rig_fault(r, faults);
    r->cfg.base_url = mock_server_base_url(r->mock);
    r->cfg.api_key = KEY;
    r->cfg.max_threads = 1;
    r->cfg.allocator = test_mem_allocator(&r->mem);
    r->cfg.hooks.monotonic_ms_fn = rig_ms;
    r->cfg.hooks.unix_ms_fn = rig_unix_ms;
    r->cfg.hooks.random_fn = rig_random;
    r->cfg.hooks.wait_fn = rig_wait;
    r->cfg.hooks.user = r;
    assert_int_equal(gptner_client_new(&r->cfg, &r->client, &r->err), 0);
    test_tmp_path(r->requests, "requests.jsonl");
    test_tmp_path(r->output, "answers.jsonl");
    test_tmp_path(r->raw, "raw.jsonl");
    test_tmp_path(r->raw_error, "raw-errors.jsonl");
    test_tmp_path(r->prefix, "tmp");
    put_rows(r->requests, ROWS);
    r->submit.path = r->requests;
    r->in.temp_prefix = r->prefix;
    r->in.results = &r->results;
    r->in.n_results = &r->n;
}

static void rig_forget(rig *r)
{
    gptner_results_free(r->results, r->n);
    gptner_batch_free(r->batch);
    r->results = NULL;
    r->batch = NULL;
    r->n = 0;
}

static void rig_clean(rig *r)
{
    DIR *dir = opendir(test_tmp_dir());
    const struct dirent *e;

    (void)r;
    while ((e = readdir(dir)) != NULL) {
        if (strstr(e->d_name, ".gptner") != NULL ||
            strstr(e->d_name, ".tmp") != NULL) {
            fail_msg("left behind: %s", e->d_name);
        }
    }
    closedir(dir);
}

static void rig_card(rig *r)
{
    /* a minute between two looks is longer than a connection is kept */
    if (mock_server_findings(r->mock, NULL) >
        mock_server_findings(r->mock, "no_keep_alive")) {
        char *card = mock_server_report(r->mock);
        fail_msg("report card: %s", card != NULL ? card : "no memory");
    }
}

static void rig_end(rig *r)
{
    rig_forget(r);
    rig_clean(r);
    gptner_client_free(r->client);
    mock_server_stop(r->mock);
    assert_int_equal(r->mem.blocks, 0);
}

static int64_t rig_count(rig *r, const char *what)
{
    return mock_server_count(r->mock, what);
}

static gptner_status rig_submit(rig *r)
{
    gptner_status status;

    gptner_batch_free(r->batch);
    status = gptner_batch_submit(r->client, &r->submit, &r->batch, &r->err);
    assert_true((status == GPTNER_OK) == (r->batch != NULL));
    return status;
}

static gptner_status rig_await(rig *r)
{
    gptner_batch *ended = NULL;
    gptner_status status = gptner_batch_wait(r->client, r->batch->id.ptr,
                                             &r->wait, &ended, &r->err);

    if (ended != NULL) {
        gptner_batch_free(r->batch);
        r->batch = ended;
    }
    return status;
}

static gptner_status rig_retrieve(rig *r)
{
    gptner_status status;

    gptner_results_free(r->results, r->n);
    status = gptner_batch_retrieve(r->client, r->batch->id.ptr, &r->in, &r->sum,
                                   &r->err);
    assert_int_equal(r->err.status, status);
    return status;
}

/* Submitted and waited for. */
static void rig_run(rig *r)
{
    assert_status(rig_submit(r), GPTNER_OK, &r->err);
    assert_status(rig_await(r), GPTNER_OK, &r->err);
}

/* Exactly one batch was made, of every job. */
static void rig_made_once(rig *r)
{
    char *stats = mock_server_stats(r->mock);
    const char *jobs = strstr(stats, "\"batches_by_job\":{");

    assert_int_equal(rig_count(r, "batches_created"), 1);
    assert_non_null(jobs);
    assert_non_null(strstr(jobs, ":1}"));
    assert_int_equal(mock_server_findings(r->mock, "created_twice"), 0);
    mock_text_free(stats);
}

static void rig_results(rig *r)
{
    size_t i;

    assert_int_equal(r->n, ROWS);
    assert_int_equal(r->sum.total, ROWS);
    assert_int_equal(r->sum.ok + r->sum.failed, ROWS);
    for (i = 0; i < r->n; i++) {
        const gptner_result *one = r->results[i];
        char want[32];
        snprintf(want, sizeof want, "request-%d", (int)i);
        assert_str(one->custom_id, want);
        assert_int_equal(one->index, i);
        snprintf(want, sizeof want, "prompt %d", (int)i);
        if (one->status == GPTNER_OK) {
            assert_str(one->text, want);
        } else {
            assert_true(one->message[0] != '\0');
            assert_null(strstr(one->message, "secret"));
        }
    }
}

/* Files in memory, the mock's too: nothing to sync. */
static void rig_folder(void)
{
    strcpy(test_tmp.path, "/dev/shm/gptner-XXXXXX");
    if (test_tmp.owner == 0 && mkdtemp(test_tmp.path) != NULL) {
        test_tmp.owner = getpid();
        atexit(test_tmp_remove);
        setenv("TMPDIR", test_tmp.path, 1);
    }
}

/* ---- the whole life at the mock ---- */

static void a_batch_lives_from_submission_to_results(void **state)
{
    uploaded up = GPN_ZERO;
    rig r;

    (void)state;
    rig_start(&r, "");
    r.submit.upload_fn = note_upload;
    r.submit.upload_user = &up;
    assert_status(rig_submit(&r), GPTNER_OK, &r.err);
    assert_int_equal(r.batch->state, GPTNER_BATCH_VALIDATING);
    assert_str(r.batch->endpoint, "/v1/chat/completions");
    assert_int_equal(up.last, up.total);
    assert_false(up.wrong);
    assert_status(rig_await(&r), GPTNER_OK, &r.err);
    assert_int_equal(r.batch->requests_completed, ROWS);
    assert_true(r.batch->usage.total_tokens > 0);
    assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
    rig_results(&r);
    assert_int_equal(r.sum.ok, ROWS);
    rig_made_once(&r);
    assert_int_equal(rig_count(&r, "files_stored"), 2);
    rig_card(&r);
    rig_end(&r);
}

/* However it goes wrong, there is one batch, and no more files than it takes.
 */
static void doubtful_outcomes_make_one_batch(void **state)
{
    static const struct {
        const char *faults;
        int64_t files; /* uploads at the server, at most */
    } all[] = {
        {"lost@upload,times=1", 1},
        {"lost@create,times=1", 1},
        {"lost@upload,times=1 lost@create,times=1", 1},
        {"lost@upload,times=2 lost@create,times=3", 2},
        {"upload-reset,times=1", 1},
        {"upload-reset,times=3,bytes=100", 1},
        {"upload-reset,bytes=0,times=1", 1},
        {"reset@upload,times=2 reset@create,times=2", 1},
        {"500@upload,times=2 502@create,times=3", 1},
        {"429@upload,retry-after=40,times=2 429@create,retry-after=50,times=2",
         1},
        {"truncate@create,times=1 truncate@upload,times=1", 1},
        {"garbage@create,times=1", 1},
        {"badjson@create,times=1 badjson@upload,times=1", 1},
        {"html@create,times=1 empty@upload,times=1", 1},
        {"stall@create,times=1", 1},
        {"stall@upload,times=1", 1},
        {"late-upload,first=3", 1},
        {"lost@create,times=1 503@list:0.4 429@list:0.2", 1},
        {"slow@upload stale close@create", 1}};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(all); i++) {
        rig r;
        rig_start(&r, all[i].faults);
        if (rig_submit(&r) != GPTNER_OK) {
            fail_msg("%s: %s", all[i].faults, r.err.message);
        }
        rig_made_once(&r);
        if (rig_count(&r, "files_stored") > all[i].files) {
            fail_msg("%s: %d files", all[i].faults,
                     (int)rig_count(&r, "files_stored"));
        }
        /* again, in the same name: what is there is found */
        rig_fault(&r, "");
        assert_status(rig_await(&r), GPTNER_OK, &r.err);
        assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
        rig_results(&r);
        assert_int_equal(r.sum.ok, ROWS);
        rig_card(&r);
        rig_end(&r);
    }
}

static void refusals_of_the_mock_are_final(void **state)
{
    static const struct {
        const char *faults;
        gptner_status status;
        int64_t requests;
    } all[] = {{"400@upload", GPTNER_ERR_BAD_REQUEST, 1},
               {"401@upload", GPTNER_ERR_AUTH, 1},
               {"quota@upload", GPTNER_ERR_QUOTA, 1},
               {"400@create", GPTNER_ERR_BAD_REQUEST, 2},
               {"401@create", GPTNER_ERR_AUTH, 2},
               {"403@create", GPTNER_ERR_PERMISSION, 2},
               {"quota@create", GPTNER_ERR_QUOTA, 2}};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(all); i++) {
        rig r;
        rig_start(&r, all[i].faults);
        assert_status(rig_submit(&r), all[i].status, &r.err);
        assert_int_equal(rig_count(&r, "requests.POST /v1/files") +
                             rig_count(&r, "requests.POST /v1/batches"),
                         all[i].requests);
        assert_int_equal(rig_count(&r, "batches_created"), 0);
        rig_card(&r);
        rig_end(&r);
    }
}

/* Files first: the creation failed for good, then it is submitted again. */
static void the_same_job_makes_nothing_twice(void **state)
{
    char first[64];
    rig r;

    (void)state;
    rig_start(&r, "400@create,times=1");
    r.submit.job = "my-job";
    assert_status(rig_submit(&r), GPTNER_ERR_BAD_REQUEST, &r.err);
    assert_int_equal(rig_count(&r, "files_stored"), 1);
    assert_status(rig_submit(&r), GPTNER_OK, &r.err);
    snprintf(first, sizeof first, "%s", r.batch->id.ptr);
    assert_status(rig_submit(&r), GPTNER_OK, &r.err);
    assert_str(r.batch->id, first);
    assert_status(rig_await(&r), GPTNER_OK, &r.err);
    assert_status(rig_submit(&r), GPTNER_OK, &r.err);
    assert_str(r.batch->id, first);
    assert_true(r.batch->ended);
    assert_int_equal(rig_count(&r, "requests.POST /v1/files"), 1);
    assert_int_equal(rig_count(&r, "requests.POST /v1/batches"), 2);
    rig_made_once(&r);
    rig_end(&r);
}

/* 250 batches: submitted again, the first is found on the third page. */
static void a_batch_is_found_on_the_third_page(void **state)
{
    char first[64], job[32];
    gptner_batches *page = NULL;
    const char *after = NULL;
    int64_t asked;
    int i, pages = 0, seen = 0;
    rig r;

    (void)state;
    rig_start(&r, "");
    put_rows(r.requests, 1);
    for (i = 0; i < 250; i++) {
        snprintf(job, sizeof job, "job-%d", i);
        /* of a new name: only its list is empty */
        r.submit.job = i == 0 ? job : NULL;
        assert_status(rig_submit(&r), GPTNER_OK, &r.err);
        r.now += 1000;
        if (i == 0) {
            snprintf(first, sizeof first, "%s", r.batch->id.ptr);
        }
    }
    asked = rig_count(&r, "requests.GET /v1/batches");
    r.submit.job = "job-0";
    assert_status(rig_submit(&r), GPTNER_OK, &r.err);
    assert_str(r.batch->id, first);
    assert_int_equal(rig_count(&r, "requests.GET /v1/batches") - asked, 3);
    assert_int_equal(rig_count(&r, "batches_created"), 250);
    assert_int_equal(rig_count(&r, "files_stored"), 250);
    for (;;) {
        gptner_batches *before = page;
        assert_status(gptner_batch_list(r.client, after, 70, &page, &r.err),
                      GPTNER_OK, &r.err);
        gptner_batches_free(before);
        pages++;
        seen += (int)page->count;
        if (!page->has_more) {
            break;
        }
        assert_int_equal(page->count, 70);
        after = page->items[page->count - 1]->id.ptr;
    }
    assert_int_equal(pages, 4);
    assert_int_equal(seen, 250);
    assert_str(page->items[page->count - 1]->id, first);
    gptner_batches_free(page);
    rig_end(&r);
}

static void batches_are_cancelled_at_the_mock(void **state)
{
    static const char *const faults[] = {
        "", "lost@cancel,times=1", "500@cancel,times=2", "reset@cancel,times=1",
        "429@cancel,times=1,retry-after=20"};
    gptner_batch *b = NULL;
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(faults); i++) {
        rig r;
        rig_start(&r, faults[i]);
        assert_status(rig_submit(&r), GPTNER_OK, &r.err);
        r.now += 500 * SECOND; /* it runs */
        assert_status(
            gptner_batch_cancel(r.client, r.batch->id.ptr, &b, &r.err),
            GPTNER_OK, &r.err);
        assert_true(b->state == GPTNER_BATCH_CANCELLING ||
                    b->state == GPTNER_BATCH_CANCELLED);
        gptner_batch_free(b);
        assert_status(rig_await(&r), GPTNER_OK, &r.err);
        assert_int_equal(r.batch->state, GPTNER_BATCH_CANCELLED);
        assert_status(
            gptner_batch_cancel(r.client, r.batch->id.ptr, &b, &r.err),
            GPTNER_OK, &r.err);
        assert_int_equal(b->state, GPTNER_BATCH_CANCELLED);
        gptner_batch_free(b);
        assert_status(gptner_batch_cancel(r.client, "batch_x", &b, &r.err),
                      GPTNER_ERR_NOT_FOUND, &r.err);
        assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
        rig_results(&r);
        assert_true(r.sum.ok > 0 && r.sum.ok < ROWS);
        assert_int_equal(r.sum.cancelled, ROWS - r.sum.ok);
        rig_card(&r);
        rig_end(&r);
    }
}

/* ---- wait ---- */

static bool stop_mock(const gptner_batch *batch, void *user)
{
    rig *r = (rig *)user;

    (void)batch;
    if (r->stops > 0) {
        r->stops--;
        mock_server_stop(r->mock);
        r->mock = NULL;
        r->mock_opt.port = r->port;
        r->back_ms = r->now + 20 * MINUTE;
    }
    return true;
}

static void a_server_that_restarts_does_not_end_the_wait(void **state)
{
    char data[256];
    int64_t from;
    rig r;

    (void)state;
    rig_start(&r, "");
    mock_server_stop(r.mock);
    r.mock_opt.data_dir = test_tmp_path(data, "mock-data");
    r.mock_opt.port = r.port;
    r.mock_opt.batch_seconds = 3000;
    rig_serve(&r);
    assert_status(rig_submit(&r), GPTNER_OK, &r.err);
    r.stops = 2;
    r.wait.batch_fn = stop_mock;
    r.wait.user = &r;
    from = r.now;
    assert_status(rig_await(&r), GPTNER_OK, &r.err);
    assert_int_equal(r.batch->state, GPTNER_BATCH_COMPLETED);
    assert_true(r.now - from >= 40 * MINUTE);
    assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
    rig_results(&r);
    rig_end(&r);
}

static void polls_through_faults_end_well(void **state)
{
    static const char *const faults[] = {"500@status:0.5",
                                         "reset@status:0.5",
                                         "lost@status:0.5",
                                         "429@status:0.5",
                                         "truncate@status:0.5",
                                         "badjson@status:0.5",
                                         "stall@status,times=2",
                                         "garbage@status:0.3",
                                         "html@status:0.5",
                                         "unknown-status",
                                         "slow bytechunks http10@status"};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(faults); i++) {
        rig r;
        rig_start(&r, faults[i]);
        if (rig_submit(&r) != GPTNER_OK || rig_await(&r) != GPTNER_OK) {
            fail_msg("%s: %s", faults[i], r.err.message);
        }
        assert_int_equal(r.batch->state, GPTNER_BATCH_COMPLETED);
        rig_card(&r);
        rig_end(&r);
    }
}

static void a_stalling_server_does_not_prolong_the_wait(void **state)
{
    static const int64_t limits[] = {2 * SECOND, 30 * SECOND, 40 * MINUTE};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(limits); i++) {
        int64_t from;
        rig r;
        rig_start(&r, "");
        assert_status(rig_submit(&r), GPTNER_OK, &r.err);
        rig_fault(&r, "stall@status");
        r.wait.max_wait_ms = limits[i];
        from = r.now;
        assert_status(rig_await(&r), GPTNER_ERR_TIMEOUT, &r.err);
        assert_between(r.now - from, limits[i], limits[i] * 11 / 10);
        rig_end(&r);
    }
}

typedef struct stopper {
    pthread_mutex_t lock;
    pthread_cond_t polled;
    bool ready;
    gptner_client *client;
    struct timespec at;
} stopper;

static bool tell_stopper(const gptner_batch *batch, void *user)
{
    stopper *s = (stopper *)user;

    (void)batch;
    pthread_mutex_lock(&s->lock);
    s->ready = true;
    pthread_cond_signal(&s->polled);
    pthread_mutex_unlock(&s->lock);
    return true;
}

static void *stop_waiting(void *user)
{
    stopper *s = (stopper *)user;

    pthread_mutex_lock(&s->lock);
    while (!s->ready) {
        pthread_cond_wait(&s->polled, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    clock_gettime(CLOCK_MONOTONIC, &s->at);
    gptner_client_cancel(s->client);
    return NULL;
}

/* A mock in a thread of its own, in real time; one batch that has ended. */
static void real_start(rig *r, const char *faults)
{
    memset(r, 0, sizeof *r);
    r->mock_opt.batch_seconds = -1;
    rig_serve(r);
    rig_fault(r, faults);
    r->cfg.base_url = mock_server_base_url(r->mock);
    r->cfg.api_key = KEY;
    r->cfg.allocator = test_mem_allocator(&r->mem);
    assert_int_equal(gptner_client_new(&r->cfg, &r->client, &r->err), 0);
    test_tmp_path(r->requests, "requests.jsonl");
    test_tmp_path(r->prefix, "tmp");
    put_rows(r->requests, ROWS);
    r->submit.path = r->requests;
    r->wait.poll_ms = 5;
    r->in.temp_prefix = r->prefix;
    r->in.results = &r->results;
    r->in.n_results = &r->n;
    rig_run(r);
}

/* To a name, which takes a thread to resolve: in real time. The key does not
 * come along, or the mock would have a finding. */
static void content_may_be_somewhere_else(void **state)
{
    rig r;

    (void)state;
    real_start(&r, "content-redirect row-4xx:0.2");
    assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
    rig_results(&r);
    assert_int_equal(r.sum.malformed + r.sum.missing, 0);
    assert_int_equal(mock_server_findings(r.mock, "key_to_other_host"), 0);
    assert_int_equal(rig_count(&r, "faults.content-redirect"), 3);
    rig_card(&r);
    rig_end(&r);
}

/* In real time, with a mock in its own thread. */
static void another_thread_ends_the_wait_at_once(void **state)
{
    mock_options opt = GPN_ZERO;
    gptner_config cfg = GPN_ZERO;
    gptner_batch_submit_config submit = GPN_ZERO;
    gptner_batch_wait_config wait = GPN_ZERO;
    gptner_batch *batch = NULL, *last = NULL;
    gptner_error err;
    mock_server *mock = NULL;
    struct timespec now;
    pthread_t thread;
    stopper s;
    char why[256];

    (void)state;
    memset(&s, 0, sizeof s);
    opt.batch_seconds = 1000;
    assert_true(mock_server_start(&opt, &mock, why, sizeof why));
    cfg.base_url = mock_server_base_url(mock);
    cfg.api_key = KEY;
    assert_int_equal(gptner_client_new(&cfg, &s.client, &err), 0);
    submit.path = one_file();
    assert_status(gptner_batch_submit(s.client, &submit, &batch, &err),
                  GPTNER_OK, &err);
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.polled, NULL);
    assert_int_equal(pthread_create(&thread, NULL, stop_waiting, &s), 0);
    wait.batch_fn = tell_stopper;
    wait.user = &s;
    assert_status(
        gptner_batch_wait(s.client, batch->id.ptr, &wait, &last, &err),
        GPTNER_ERR_CANCELLED, &err);
    clock_gettime(CLOCK_MONOTONIC, &now);
    pthread_join(thread, NULL);
    assert_true((now.tv_sec - s.at.tv_sec) * 1000 +
                    (now.tv_nsec - s.at.tv_nsec) / 1000000 <
                5000); /* valgrind's, too */
    assert_non_null(last);
    gptner_batch_free(last);
    gptner_batch_free(batch);
    gptner_client_free(s.client);
    mock_server_stop(mock);
}

/* ---- retrieve ---- */

static void files_arrive_through_faults(void **state)
{
    static const char *const faults[] = {
        "late-files,first=3",
        "late-files,first=3,status=403",

        "truncate@content,times=2",
        "reset@content,times=2,bytes=300",
        "lost@content,times=1",
        "500@content,times=3 503@status,times=2",
        "slow@content chunked",
        "429@content,retry-after=30,times=3",
        "stall@content,times=1,bytes=99",
        "http10@content close",
        "bytechunks@content",
        "late-files,first=1 truncate@content,times=1"};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(faults); i++) {
        rig r;
        rig_start(&r, faults[i]);
        rig_run(&r);
        r.in.requests_path = i % 2 == 0 ? r.requests : NULL;
        if (rig_retrieve(&r) != GPTNER_OK) {
            fail_msg("%s: %s", faults[i], r.err.message);
        }
        rig_results(&r);
        assert_int_equal(r.sum.ok, ROWS);
        rig_card(&r);
        rig_end(&r);
    }
}

/* What never comes whole is never taken as whole. */
static void a_file_that_never_comes_leaves_nothing(void **state)
{
    static const struct {
        const char *faults;
        gptner_status status;
    } all[] = {{"truncate@content", GPTNER_ERR_CONNECTION_LOST},
               {"reset@content,bytes=500", GPTNER_ERR_CONNECTION_LOST},
               {"404@content", GPTNER_ERR_NOT_FOUND},
               {"401@content", GPTNER_ERR_AUTH},
               {"500@content", GPTNER_ERR_SERVER}};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(all); i++) {
        rig r;
        rig_start(&r, all[i].faults);
        rig_run(&r);
        r.in.output_path = r.output;
        r.in.raw_output_path = r.raw;
        r.in.raw_error_path = r.raw_error;
        assert_status(rig_retrieve(&r), all[i].status, &r.err);
        assert_null(r.results);
        assert_int_not_equal(access(r.output, F_OK), 0);
        assert_int_not_equal(access(r.raw, F_OK), 0);
        assert_int_not_equal(access(r.raw_error, F_OK), 0);
        rig_end(&r);
    }
}

/* The content of a file at the mock, by another way. */
static char *fetched(rig *r, gptner_str id, size_t *len)
{
    gptner_raw_request raw = GPN_ZERO;
    gptner_response *response = NULL;
    char path[200], *data;

    snprintf(path, sizeof path, "/files/%.*s/content", (int)id.len, id.ptr);
    raw.path = path;
    assert_status(gptner_raw(r->client, &raw, &response, &r->err), GPTNER_OK,
                  &r->err);
    *len = response->body.len;
    data = (char *)malloc(*len + 1);
    memcpy(data, response->body.ptr, *len);
    gptner_response_free(response);
    return data;
}

static void raw_files_are_those_of_the_server(void **state)
{
    size_t len[2], got;
    char *want[2], *data;
    rig r;

    (void)state;
    rig_start(&r, "row-4xx:0.3 row-malformed:0.1 row-crlf row-u2028:0.2");
    rig_run(&r);
    r.in.raw_output_path = r.raw;
    r.in.raw_error_path = r.raw_error;
    r.in.output_path = r.output;
    assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
    rig_results(&r);
    assert_true(r.sum.ok > 0 && r.sum.failed > 0);
    want[0] = fetched(&r, r.batch->output_file_id, &len[0]);
    want[1] = fetched(&r, r.batch->error_file_id, &len[1]);
    data = test_slurp(r.raw, &got);
    assert_int_equal(got, len[0]);
    assert_memory_equal(data, want[0], got);
    free(data);
    data = test_slurp(r.raw_error, &got);
    assert_int_equal(got, len[1]);
    assert_memory_equal(data, want[1], got);
    free(data);
    free(want[0]);
    free(want[1]);
    unlink(r.raw);
    unlink(r.raw_error);
    unlink(r.output);
    rig_end(&r);
}

static void files_that_are_not_there_have_no_rows(void **state)
{
    static const char *const faults[] = {"null-output row-4xx:0.3", "null-ids",
                                         "null-ids row-4xx", "null-output",
                                         "row-4xx"};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(faults); i++) {
        rig r;
        size_t len;
        char *data;
        rig_start(&r, faults[i]);
        rig_run(&r);
        r.in.requests_path = r.requests;
        r.in.raw_output_path = r.raw;
        r.in.raw_error_path = r.raw_error;
        if (rig_retrieve(&r) != GPTNER_OK) {
            fail_msg("%s: %s", faults[i], r.err.message);
        }
        rig_results(&r);
        data = test_slurp(r.raw, &len);
        assert_non_null(data);
        assert_true((len == 0) == (r.batch->output_file_id.len == 0));
        free(data);
        data = test_slurp(r.raw_error, &len);
        assert_non_null(data);
        assert_true((len == 0) == (r.batch->error_file_id.len == 0));
        free(data);
        unlink(r.raw);
        unlink(r.raw_error);
        rig_end(&r);
    }
}

static void partial_output_of_an_expired_batch_is_read(void **state)
{
    int64_t i, expired = 0;
    rig r;

    (void)state;
    rig_start(&r, "batch-expires:0.6");
    rig_run(&r);
    assert_int_equal(r.batch->state, GPTNER_BATCH_EXPIRED);
    assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
    rig_results(&r);
    assert_between(r.sum.ok, ROWS / 3, ROWS - 1);
    assert_int_equal(r.sum.expired, ROWS - r.sum.ok);
    for (i = 0; i < ROWS; i++) {
        expired += r.results[i]->status == GPTNER_ERR_EXPIRED;
    }
    assert_int_equal(expired, r.sum.expired);
    rig_end(&r);
}

static void batches_without_results_say_why(void **state)
{
    rig r;

    (void)state;
    rig_start(&r, "");
    assert_status(rig_submit(&r), GPTNER_OK, &r.err);
    assert_status(rig_retrieve(&r), GPTNER_ERR_NOT_FINISHED, &r.err);
    assert_text_has(r.err.message, r.batch->id.ptr);
    rig_forget(&r);
    test_spit(r.requests, CHAT_LINE("a") "nonsense\n",
              sizeof(CHAT_LINE("a") "nonsense\n") - 1);
    rig_run(&r);
    assert_int_equal(r.batch->state, GPTNER_BATCH_FAILED);
    assert_status(rig_retrieve(&r), GPTNER_ERR_BATCH_FAILED, &r.err);
    assert_text_has(r.err.message, "line 2");
    assert_text_has(r.err.message, "invalid_json_line");
    assert_status(
        gptner_batch_retrieve(r.client, "batch_none", &r.in, &r.sum, &r.err),
        GPTNER_ERR_NOT_FOUND, &r.err);
    rig_end(&r);
}

static void requests_that_the_server_lost_are_ordered_by_number(void **state)
{
    gptner_raw_request raw = GPN_ZERO;
    char path[200];
    rig r;

    (void)state;
    rig_start(&r, "");
    rig_run(&r);
    snprintf(path, sizeof path, "/files/%s", r.batch->input_file_id.ptr);
    raw.method = "DELETE";
    raw.path = path;
    assert_status(gptner_raw(r.client, &raw, NULL, &r.err), GPTNER_OK, &r.err);
    assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
    rig_results(&r);
    assert_int_equal(r.sum.ok, ROWS);
    rig_end(&r);
}

/* ---- the offline check and the mock's ---- */

/* What the mock says of a file: "code line\n" each. */
static void mock_verdict(rig *r, char *out, size_t cap)
{
    size_t len = 0, i;

    out[0] = '\0';
    for (i = 0; i < r->batch->n_errors; i++) {
        const gptner_batch_issue *e = &r->batch->errors[i];
        len += (size_t)snprintf(out + len, cap - len, "%.*s %d\n",
                                (int)e->code.len, e->code.ptr, (int)e->line);
    }
}

static void our_verdict(const char *path, const char *endpoint, char *out,
                        size_t cap)
{
    gptner_batch_report *report = NULL;
    size_t len = 0, i;

    out[0] = '\0';
    gptner_batch_validate_file(path, endpoint, NULL, &report, NULL);
    assert_non_null(report);
    for (i = 0; i < report->count; i++) {
        const gptner_batch_issue *e = &report->items[i];
        len += (size_t)snprintf(out + len, cap - len, "%.*s %d\n",
                                (int)e->code.len, e->code.ptr, (int)e->line);
    }
    gptner_batch_report_free(report);
}

static void the_offline_check_and_the_mock_agree(void **state)
{
    char *list, *rest, *line, last[128] = "";
    size_t len;
    int files = 0;

    (void)state;
    list = test_slurp("tests/data/batch/expect.txt", &len);
    if (list == NULL) {
        printf("SKIPPED: no tests/data/batch/expect.txt\n");
        skip();
    }
    for (rest = list; (line = test_cut(&rest, '\n')) != NULL;) {
        char path[256], ours[4096], theirs[4096];
        char *name = test_cut(&line, ' ');
        rig r;
        if (strcmp(name, last) == 0 || strstr(name, ".jsonl") == NULL) {
            continue;
        }
        snprintf(last, sizeof last, "%s", name);
        snprintf(path, sizeof path, "tests/data/batch/%s", name);
        rig_start(&r, "");
        r.submit.path = path;
        if (rig_submit(&r) == GPTNER_ERR_BATCH_INVALID) {
            r.submit.endpoint = "/v1/chat/completions";
            assert_status(rig_submit(&r), GPTNER_OK, &r.err);
        }
        assert_status(rig_await(&r), GPTNER_OK, &r.err);
        mock_verdict(&r, theirs, sizeof theirs);
        our_verdict(path, r.submit.endpoint, ours, sizeof ours);
        if (strcmp(ours, theirs) != 0) {
            fail_msg("%s: we say\n%sand the mock\n%s", name, ours, theirs);
        }
        assert_true((ours[0] == '\0') ==
                    (r.batch->state == GPTNER_BATCH_COMPLETED));
        rig_end(&r);
        files++;
    }
    assert_true(files > 20);
    free(list);
}

/* ---- whatever fails here ---- */

/* Through a whole life; what was made, was made once, and is found again. */
static void one_life(rig *r)
{
    gptner_status status;

    r->submit.job = "the-job";
    r->in.output_path = r->output;
    r->in.raw_output_path = r->raw;
    r->in.raw_error_path = r->raw_error;
    status = rig_submit(r);
    assert_status(status, status, &r->err);
    if (status == GPTNER_OK) {
        status = rig_await(r);
        assert_status(status, status, &r->err);
    }
    if (status == GPTNER_OK) {
        status = rig_retrieve(r);
        assert_status(status, status, &r->err);
        assert_true((status == GPTNER_OK) == (access(r->output, F_OK) == 0));
        if (status == GPTNER_OK) {
            rig_results(r);
        } else {
            assert_null(r->results);
        }
    }
}

static bool life_with_fault(int kind, int n, bool from_then_on)
{
    bool fired;
    rig r;

    rig_start(&r, "row-4xx:0.2");
    unlink(r.output);
    test_fault_set(kind, n, from_then_on);
    one_life(&r);
    fired = test_fault_fired();
    test_fault_clear();
    rig_clean(&r);
    /* all is well again: the same job goes on */
    r.wait.max_wait_ms = 0;
    if (fired) {
        rig_forget(&r);
        assert_status(rig_submit(&r), GPTNER_OK, &r.err);
        assert_status(rig_await(&r), GPTNER_OK, &r.err);
        assert_status(rig_retrieve(&r), GPTNER_OK, &r.err);
        rig_results(&r);
    }
    rig_made_once(&r);
    unlink(r.output);
    unlink(r.raw);
    unlink(r.raw_error);
    rig_end(&r);
    return fired;
}

static void life_with_faults(int kind)
{
    bool slow = getenv("GPTNER_SLOW") != NULL;
    int n, step;

    for (n = 1; life_with_fault(kind, n, false); n += step) {
        step = slow ? 1 + n / 4 : 1 + n / 60;
    }
    for (n = 1; life_with_fault(kind, n, true); n += step) {
        step = slow ? 1 + n / 4 : 1 + n / 60;
    }
}

static void a_life_survives_failing_allocations(void **state)
{
    (void)state;
    life_with_faults(GPN_FAULT_ALLOC);
}

static void a_life_survives_failing_files(void **state)
{
    (void)state;
    life_with_faults(GPN_FAULT_FILE);
}

static void a_life_survives_failing_sockets(void **state)
{
    (void)state;
    life_with_faults(GPN_FAULT_SOCKET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_a_batch_is_read),
        cmocka_unit_test(usage_errors_and_metadata_of_a_batch_are_read),
        cmocka_unit_test(what_is_null_or_absent_is_nothing),
        cmocka_unit_test(states_are_known_in_any_case_and_others_survive),
        cmocka_unit_test(members_of_the_wrong_type_are_passed_over),
        cmocka_unit_test(replies_that_are_no_batch_are_refused),
        cmocka_unit_test(a_batch_that_was_cut_is_refused_at_every_byte),
        cmocka_unit_test(five_thousand_errors_are_all_there),
        cmocka_unit_test(
            hostile_objects_take_no_more_memory_than_they_are_long),
        cmocka_unit_test(strange_ids_are_encoded_or_refused),
        cmocka_unit_test(calls_without_sense_are_refused_at_once),
        cmocka_unit_test(errors_of_the_server_are_told_without_the_key),
        cmocka_unit_test(a_running_batch_is_cancelled_by_one_empty_post),
        cmocka_unit_test(a_409_to_cancel_means_that_it_has_ended),
        cmocka_unit_test(cancelling_is_repeated_until_it_is_answered),
        cmocka_unit_test(a_list_is_asked_for_with_its_limits),
        cmocka_unit_test(more_than_was_asked_for_is_left_out),
        cmocka_unit_test(lists_that_are_none_are_refused),
        cmocka_unit_test(a_batch_is_looked_at_once_a_minute_until_it_has_ended),
        cmocka_unit_test(each_end_ends_the_wait),
        cmocka_unit_test(the_wait_gives_up_after_25_hours),
        cmocka_unit_test(a_poll_that_fails_changes_nothing),
        cmocka_unit_test(what_was_known_is_kept_when_the_wait_fails),
        cmocka_unit_test(a_batch_that_stays_unknown_ends_the_wait),
        cmocka_unit_test(a_key_that_is_refused_ends_the_wait),
        cmocka_unit_test(a_wait_for_a_silent_server_ends_in_time),
        cmocka_unit_test(the_caller_can_stop_the_wait),
        cmocka_unit_test(a_submission_is_two_requests),
        cmocka_unit_test(an_upload_arrives_byte_for_byte),
        cmocka_unit_test(metadata_is_counted_in_characters),
        cmocka_unit_test(what_is_submitted_is_checked_before_it_is_sent),
        cmocka_unit_test(the_endpoint_is_that_of_the_first_line),
        cmocka_unit_test(a_500_after_the_creation_makes_no_second_batch),
        cmocka_unit_test(a_5xx_before_the_creation_is_repeated),
        cmocka_unit_test(nothing_is_made_while_it_cannot_be_looked_for),
        cmocka_unit_test(ids_that_are_none_are_no_reason_to_repeat),
        cmocka_unit_test(a_429_is_waited_for_on_both_ways),
        cmocka_unit_test(refusals_are_reported_and_not_repeated),
        cmocka_unit_test(a_file_unknown_for_a_while_is_waited_for),
        cmocka_unit_test(an_upload_whose_reply_is_lost_is_found),
        cmocka_unit_test(cancelling_ends_a_submission),
        cmocka_unit_test(a_batch_lives_from_submission_to_results),
        cmocka_unit_test(doubtful_outcomes_make_one_batch),
        cmocka_unit_test(refusals_of_the_mock_are_final),
        cmocka_unit_test(the_same_job_makes_nothing_twice),
        cmocka_unit_test(a_batch_is_found_on_the_third_page),
        cmocka_unit_test(batches_are_cancelled_at_the_mock),
        cmocka_unit_test(a_server_that_restarts_does_not_end_the_wait),
        cmocka_unit_test(polls_through_faults_end_well),
        cmocka_unit_test(a_stalling_server_does_not_prolong_the_wait),
        cmocka_unit_test(content_may_be_somewhere_else),
        cmocka_unit_test(another_thread_ends_the_wait_at_once),
        cmocka_unit_test(files_arrive_through_faults),
        cmocka_unit_test(a_file_that_never_comes_leaves_nothing),
        cmocka_unit_test(raw_files_are_those_of_the_server),
        cmocka_unit_test(files_that_are_not_there_have_no_rows),
        cmocka_unit_test(partial_output_of_an_expired_batch_is_read),
        cmocka_unit_test(batches_without_results_say_why),
        cmocka_unit_test(requests_that_the_server_lost_are_ordered_by_number),
        cmocka_unit_test(the_offline_check_and_the_mock_agree),
        cmocka_unit_test(a_life_survives_failing_allocations),
        cmocka_unit_test(a_life_survives_failing_files),
        cmocka_unit_test(a_life_survives_failing_sockets)};

    rig_folder();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
