/* Results of a batch from its files: every shape of row, and random mixes of
 * them, joined with the requests in their order. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#define GPTNER_FAULT_INJECTION
#include "gptner.h"

#include "test_common.h"

#define BODY(text, finish)                                                   \
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"model\":\"m\"," \
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","         \
    "\"content\":" text "},\"finish_reason\":\"" finish "\"}],"              \
    "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}"
#define RESPONSE(id, status, body)                \
    "{\"id\":\"batch_req_1\",\"custom_id\":\"" id \
    "\",\"response\":{\"status_code\":" status    \
    ",\"request_id\":\"req_9\",\"body\":" body "},\"error\":null}"
#define OK_ROW(id, text) RESPONSE(id, "200", BODY("\"" text "\"", "stop"))
#define UNRUN(id, code)                                \
    "{\"id\":\"batch_req_1\",\"custom_id\":\"" id      \
    "\",\"response\":null,\"error\":{\"code\":\"" code \
    "\",\"message\":\"it was not run\"}}"
#define FAILED(id, status, code)                    \
    RESPONSE(id, status,                            \
             "{\"error\":{\"message\":\"no good\"," \
             "\"type\":\"t\",\"param\":null,\"code\":\"" code "\"}}")

typedef struct reading {
    test_mem mem;
    gptner_config cfg;
    gptner_client *client;
    gptner_batch_retrieve_config in;
    gptner_batch_summary sum;
    gptner_error err;
    gptner_result **results;
    size_t n;
    char requests[256];
    char output[256];
    char errors[256];
    char answers[256];
} reading;

static void reading_client(reading *t)
{
    t->cfg.api_key = "sk-test-0123456789";
    t->cfg.base_url = "http://127.0.0.1:9";
    t->cfg.allocator = test_mem_allocator(&t->mem);
    if (gptner_client_new(&t->cfg, &t->client, &t->err) != GPTNER_OK) {
        fail_msg("client: %s", t->err.message);
    }
}

static void reading_start(reading *t)
{
    test_tmp_path(t->requests, "requests.jsonl");
    test_tmp_path(t->output, "output.jsonl");
    test_tmp_path(t->errors, "errors.jsonl");
    test_tmp_path(t->answers, "answers.jsonl");
    reading_client(t);
    t->in.results = &t->results;
    t->in.n_results = &t->n;
}

static void reading_end(reading *t)
{
    gptner_results_free(t->results, t->n);
    gptner_client_free(t->client);
    assert_int_equal(t->mem.blocks, 0);
}

static void spit(const char *path, const char *text)
{
    test_spit(path, text, strlen(text));
}

static void spit_requests(const char *path, const char *const *ids, size_t n)
{
    FILE *f = fopen(path, "wb");
    size_t i;
    assert_non_null(f);
    for (i = 0; i < n; i++) {
        fprintf(f,
                "{\"custom_id\":\"%s\",\"method\":\"POST\",\"url\":"
                "\"/v1/chat/completions\",\"body\":{\"model\":\"m\"}}\n",
                ids[i]);
    }
    fclose(f);
}

static void read_all(reading *t, const char *output, const char *errors)
{
    gptner_status status;
    if (output != NULL) {
        spit(t->output, output);
    }
    if (errors != NULL) {
        spit(t->errors, errors);
    }
    status = gptner_batch_read(t->client, output != NULL ? t->output : NULL,
                               errors != NULL ? t->errors : NULL, &t->in,
                               &t->sum, &t->err);
    if (status != GPTNER_OK) {
        fail_msg("read: %s", t->err.message);
    }
    assert_int_equal(t->sum.total, t->n);
    assert_int_equal(t->sum.ok + t->sum.failed, t->sum.total);
}

static void assert_text(const gptner_result *r, const char *text)
{
    assert_int_equal(r->status, GPTNER_OK);
    assert_int_equal(r->text.len, strlen(text));
    assert_memory_equal(r->text.ptr, text, r->text.len);
}

static bool str_is(gptner_str s, const char *text)
{
    return gpn_str_eq_c(s, text);
}

/* ---- shapes -------------------------------------------------------------- */

typedef struct shape {
    const char *row;
    gptner_status status;
    int http_status;
    const char *text;    /* NULL: none */
    const char *message; /* a part of it */
    bool malformed;
    int attempts;
} shape;

static const shape shapes[] = {
    {OK_ROW("a", "yes"), GPTNER_OK, 200, "yes", "", false, 1},
    {OK_ROW("a", "\xE2\x80\xA8 \\u2028 \xC3\xA9"), GPTNER_OK, 200,
     "\xE2\x80\xA8 \xE2\x80\xA8 \xC3\xA9", "", false, 1},
    {"  " OK_ROW("a", "yes") " \r", GPTNER_OK, 200, "yes", "", false, 1},
    {"{\"custom_id\":\"\\u0061\",\"response\":{\"status_code\":200,\"body\":"
     "{\"choices\":[{\"text\":\"old\"}]}}}",
     GPTNER_OK, 200, "old", "", false, 1},
    {"{\"error\":null,\"response\":{\"body\":" BODY(
         "\"late\"", "stop") ",\"status_code\":200},\"custom_id\":\"a\"}",
     GPTNER_OK, 200, "late", "", false, 1},
    {"{\"response\":{\"body\":" BODY("\"x\"", "stop") "},\"custom_id\":\"a\"}",
     GPTNER_OK, 0, "x", "", false, 1},
    {RESPONSE("a", "200", BODY("\"cut\"", "length")), GPTNER_ERR_TRUNCATED, 200,
     "cut", "max_tokens", false, 1},
    {RESPONSE("a", "200", BODY("\"\"", "content_filter")), GPTNER_ERR_FILTERED,
     200, "", "filter", false, 1},
    {RESPONSE("a", "200", BODY("null,\"refusal\":\"I will not\"", "stop")),
     GPTNER_ERR_REFUSED, 200, NULL, "refused", false, 1},
    {RESPONSE("a", "200", BODY("null", "stop")), GPTNER_OK, 200, NULL, "",
     false, 1},
    {RESPONSE("a", "200", "{\"choices\":[]}"), GPTNER_ERR_BAD_REPLY, 200, NULL,
     "no choices", false, 1},
    {RESPONSE("a", "200", "{}"), GPTNER_ERR_BAD_REPLY, 200, NULL, "no choices",
     false, 1},
    {RESPONSE("a", "200", "null"), GPTNER_ERR_BAD_REPLY, 200, NULL,
     "no choices", false, 1},
    {RESPONSE("a", "200", "{\"error\":{\"message\":\"late\",\"code\":503}}"),
     GPTNER_ERR_SERVER, 200, NULL, "late", false, 1},
    {FAILED("a", "400", "context_length_exceeded"), GPTNER_ERR_CONTEXT_LENGTH,
     400, NULL, "no good", false, 1},
    {FAILED("a", "404", "model_not_found"), GPTNER_ERR_NOT_FOUND, 404, NULL,
     "no good", false, 1},
    {FAILED("a", "429", "rate_limit_exceeded"), GPTNER_ERR_RATE_LIMITED, 429,
     NULL, "no good", false, 1},
    {FAILED("a", "429", "insufficient_quota"), GPTNER_ERR_QUOTA, 429, NULL,
     "no good", false, 1},
    {FAILED("a", "500", "x"), GPTNER_ERR_SERVER, 500, NULL, "no good", false,
     1},
    {RESPONSE("a", "502", "\"<html><title>Bad gateway</title>\""),
     GPTNER_ERR_SERVER, 502, NULL, "Bad gateway", false, 1},
    {RESPONSE("a", "400",
              "{\"error\":{\"message\":\"key sk-abcdefghijklmnop is bad\"}}"),
     GPTNER_ERR_BAD_REQUEST, 400, NULL, "sk-****", false, 1},
    {RESPONSE("a", "0", "{}"), GPTNER_ERR_SERVER, 0, NULL, "status 0", false,
     0},
    {UNRUN("a", "batch_expired"), GPTNER_ERR_EXPIRED, 0, NULL, "not run", false,
     0},
    {UNRUN("a", "batch_cancelled"), GPTNER_ERR_CANCELLED, 0, NULL, "not run",
     false, 0},
    {UNRUN("a", "odd"), GPTNER_ERR_SERVER, 0, NULL, "odd: it was not run",
     false, 0},
    {"{\"custom_id\":\"a\",\"response\":null,\"error\":\"gone\"}",
     GPTNER_ERR_SERVER, 0, NULL, "gone", false, 0},
    {"{\"custom_id\":\"a\"}", GPTNER_ERR_BAD_REPLY, 0, NULL, "without", true,
     0},
    {"{\"custom_id\":\"a\",\"response\":7,\"error\":null}",
     GPTNER_ERR_BAD_REPLY, 0, NULL, "without", true, 0},
    {"{\"custom_id\":\"a\",\"response\":{\"status_code\":200,\"body\":{",
     GPTNER_ERR_BAD_REPLY, 0, NULL, "malformed line at byte 0 of", true, 0},
    {"{\"id\":tru,\"custom_id\":\"a\"}", GPTNER_ERR_BAD_REPLY, 0, NULL,
     "malformed line", true, 0},
    {"xx \"custom_id\" : \"a\"", GPTNER_ERR_BAD_REPLY, 0, NULL,
     "malformed line", true, 0},
    {OK_ROW("a", "\xFF"), GPTNER_ERR_BAD_REPLY, 0, NULL, "UTF-8", true, 0},
    {OK_ROW("a", "\x01"), GPTNER_ERR_BAD_REPLY, 0, NULL, "control", true, 0},
    {OK_ROW("a", "x") "}", GPTNER_ERR_BAD_REPLY, 0, NULL, "more text", true, 0},
    {"[{\"custom_id\":\"a\"}]", GPTNER_ERR_MISSING, 0, NULL, "no result", false,
     0},
    {"", GPTNER_ERR_MISSING, 0, NULL, "no result", false, 0},
    {" \r\n\n", GPTNER_ERR_MISSING, 0, NULL, "no result", false, 0},
};

static void assert_shape(const shape *s, const gptner_result *r, size_t i)
{
    if (r->status != s->status || r->http_status != s->http_status ||
        r->attempts != s->attempts ||
        (s->text == NULL ? r->text.len > 0 : !str_is(r->text, s->text)) ||
        strstr(r->message, s->message) == NULL || !str_is(r->custom_id, "a") ||
        r->index != 0) {
        fail_msg("shape %zu: %s, HTTP %d, attempts %d, id \"%.*s\", "
                 "text \"%.*s\": %s",
                 i, gptner_status_name(r->status), r->http_status, r->attempts,
                 (int)r->custom_id.len, r->custom_id.ptr, (int)r->text.len,
                 r->text.ptr, r->message);
    }
}

static void every_shape_of_row_has_its_meaning(void **state)
{
    static const char *const ids[] = {"a"};
    static const char *const ends[] = {"\n", "", "\r\n", "\n\n\n"};
    size_t i, k;
    (void)state;
    for (i = 0; i < TEST_COUNT(shapes); i++) {
        for (k = 0; k < TEST_COUNT(ends); k++) {
            reading t = GPN_ZERO;
            char text[2048];
            reading_start(&t);
            spit_requests(t.requests, ids, 1);
            t.in.requests_path = t.requests;
            snprintf(text, sizeof text, "%s%s", shapes[i].row, ends[k]);
            read_all(&t, k % 2 == 0 ? text : "", k % 2 != 0 ? text : NULL);
            assert_int_equal(t.n, 1);
            assert_shape(&shapes[i], t.results[0], i);
            assert_int_equal(t.sum.malformed, shapes[i].malformed);
            reading_end(&t);
        }
    }
}

static void nul_bytes_and_long_lines_end_only_their_row(void **state)
{
    static const char *const ids[] = {"a", "b", "c"};
    static const char nul[] = "{\"custom_id\":\"a\",\"x\":\"\0\"}\n";
    reading t = GPN_ZERO;
    FILE *f;
    int i;
    (void)state;
    t.cfg.max_body_bytes = 4096;
    reading_start(&t);
    spit_requests(t.requests, ids, 3);
    t.in.requests_path = t.requests;
    f = fopen(t.output, "wb");
    fwrite(nul, 1, sizeof nul - 1, f);
    fprintf(f, "{\"custom_id\":\"b\",\"x\":\"");
    for (i = 0; i < 1000000; i++) {
        fputc('x', f);
    }
    fprintf(f, "\"}\n%s", OK_ROW("c", "yes"));
    fclose(f);
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, &t.in, &t.sum, &t.err),
        GPTNER_OK);
    assert_int_equal(t.results[0]->status, GPTNER_ERR_BAD_REPLY);
    assert_int_equal(t.results[1]->status, GPTNER_ERR_LIMIT);
    assert_text(t.results[2], "yes");
    assert_int_equal(t.sum.malformed, 2);
    assert_int_equal(t.sum.strangers, 0);
    reading_end(&t);
}

static void a_byte_order_mark_is_passed_over(void **state)
{
    reading t = GPN_ZERO;
    (void)state;
    reading_start(&t);
    spit(t.requests, "\xEF\xBB\xBF{\"custom_id\":\"a\"}\r\n\r\n"
                     "{\"custom_id\":\"b\"}");
    t.in.requests_path = t.requests;
    read_all(&t, "\xEF\xBB\xBF" OK_ROW("b", "two"),
             "\xEF\xBB\xBF\n" OK_ROW("a", "one"));
    assert_text(t.results[0], "one");
    assert_text(t.results[1], "two");
    reading_end(&t);
}

static void the_better_of_two_rows_is_kept(void **state)
{
    static const char *const rows[] = {
        OK_ROW("a", "yes"), RESPONSE("a", "200", BODY("\"cut\"", "length")),
        FAILED("a", "500", "x"), "{\"custom_id\":\"a\""};
    static const gptner_status want[] = {GPTNER_OK, GPTNER_ERR_TRUNCATED,
                                         GPTNER_ERR_SERVER,
                                         GPTNER_ERR_BAD_REPLY};
    static const char *const ids[] = {"a"};
    size_t i, k;
    (void)state;
    for (i = 0; i < 4; i++) {
        for (k = 0; k < 4; k++) {
            reading t = GPN_ZERO;
            reading_start(&t);
            spit_requests(t.requests, ids, 1);
            t.in.requests_path = t.requests;
            read_all(&t, rows[i], rows[k]);
            assert_int_equal(t.results[0]->status, want[i < k ? i : k]);
            assert_int_equal(t.sum.duplicates, 1);
            reading_end(&t);
        }
    }
}

static void a_later_round_replaces_an_error_and_is_no_duplicate(void **state)
{
    static const char *const ids[] = {"a", "b", "c"};
    reading t = GPN_ZERO;
    gpn_join j;
    gptner_str line = GPN_ZERO;
    (void)state;
    reading_start(&t);
    spit_requests(t.requests, ids, 3);
    spit(t.output, FAILED("a", "500", "x") "\n" FAILED(
                       "b", "500", "x") "\n" OK_ROW("c", "kept"));
    spit(t.errors, OK_ROW("b", "better") "\n" FAILED(
                       "a", "404", "y") "\n" FAILED("c", "500", "y"));
    assert_int_equal(gpn_join_open(&j, t.client, t.requests, &t.err), 0);
    assert_int_equal(gpn_join_add(&j, t.output, 0, &t.err), 0);
    assert_int_equal(gpn_join_add(&j, t.errors, 1, &t.err), 0);
    assert_int_equal(gpn_join_index(&j, &t.err), 0);
    assert_int_equal(j.count, 3);
    assert_int_equal(j.duplicates, 0);
    assert_int_equal(gpn_join_next(&j, &t.err), 1);
    assert_int_equal(j.view.status, GPTNER_ERR_NOT_FOUND);
    assert_int_equal(j.fate, GPN_FATE_FAILED);
    assert_int_equal(gpn_join_next(&j, &t.err), 1);
    assert_text(&j.view, "better");
    assert_int_equal(j.fate, GPN_FATE_OK);
    assert_int_equal(gpn_join_next(&j, &t.err), 1);
    assert_text(&j.view, "kept");
    assert_int_equal(gpn_join_request(&j, &line, &t.err), GPTNER_OK);
    assert_true(gpn_str_starts(line, "{\"custom_id\":\"c\",\"method\""));
    assert_int_equal(gpn_join_next(&j, &t.err), 0);
    gpn_join_close(&j);
    reading_end(&t);
}

static void bodies_without_choices_are_kept_raw(void **state)
{
    static const char *const ids[] = {"a", "b", "c", "d"};
    static const char responses[] =
        "{\"object\":\"response\",\"status\":\"completed\",\"output\":["
        "{\"type\":\"reasoning\",\"summary\":[]},{\"type\":\"message\","
        "\"content\":[{\"type\":\"output_text\",\"text\":\"one \\n\"},"
        "{\"type\":\"output_text\",\"text\":\"two\"}]}],"
        "\"usage\":{\"input_tokens\":5,\"output_tokens\":6}}";
    reading t = GPN_ZERO;
    char text[4096];
    (void)state;
    reading_start(&t);
    spit_requests(t.requests, ids, 4);
    t.in.requests_path = t.requests;
    snprintf(text, sizeof text,
             "{\"custom_id\":\"a\",\"response\":{\"status_code\":200,\"body\":"
             "%s}}\n%s\n%s\n%s",
             responses,
             RESPONSE("b", "200",
                      "{\"object\":\"list\",\"data\":[{\"embedding\":[1,2]}]}"),
             OK_ROW("c", "chat"),
             RESPONSE("d", "200",
                      "{\"status\":\"incomplete\",\"output\":["
                      "{\"type\":\"message\",\"content\":["
                      "{\"type\":\"output_text\",\"text\":\"x\"}]}"
                      "]}"));
    read_all(&t, text, NULL);
    assert_text(t.results[0], "one \ntwo");
    assert_true(str_is(t.results[0]->raw, responses));
    assert_int_equal(t.results[0]->usage.completion_tokens, 6);
    assert_int_equal(t.results[1]->status, GPTNER_OK);
    assert_int_equal(t.results[1]->n_choices, 0);
    assert_true(str_is(t.results[1]->raw,
                       "{\"object\":\"list\",\"data\":[{\"embedding\":[1,2]}]"
                       "}"));
    assert_text(t.results[2], "chat");
    assert_int_equal(t.results[2]->raw.len, 0);
    assert_int_equal(t.results[3]->status, GPTNER_ERR_TRUNCATED);
    assert_true(str_is(t.results[3]->text, "x"));
    reading_end(&t);
}

static void raw_bodies_are_kept_if_asked_and_keys_in_them_masked(void **state)
{
    static const char *const ids[] = {"a", "b"};
    reading t = GPN_ZERO;
    (void)state;
    t.cfg.keep_raw = true;
    reading_start(&t);
    spit_requests(t.requests, ids, 2);
    t.in.requests_path = t.requests;
    read_all(
        &t,
        OK_ROW("a", "x \\n") "\n" RESPONSE(
            "b", "401", "{\"error\":{\"message\":\"sk-test-0123456789\"}}"),
        NULL);
    assert_true(str_is(t.results[0]->raw, BODY("\"x \\n\"", "stop")));
    assert_text(t.results[0], "x \n");
    assert_int_equal(t.results[1]->status, GPTNER_ERR_AUTH);
    assert_null(strstr(t.results[1]->raw.ptr, "0123"));
    assert_null(strstr(t.results[1]->message, "0123"));
    reading_end(&t);
}

static void without_requests_numbers_order_and_others_follow(void **state)
{
    reading t = GPN_ZERO;
    (void)state;
    reading_start(&t);
    read_all(&t,
             OK_ROW("request-3", "three") "\n" OK_ROW("other", "o") "\n" OK_ROW(
                 "request-0",
                 "zero") "\n" OK_ROW("request-03",
                                     "odd") "\n{}\n" OK_ROW("request-99999999",
                                                            "far"),
             UNRUN("request-1", "batch_expired") "\n" OK_ROW("other", "again"));
    assert_int_equal(t.n, 7);
    assert_text(t.results[0], "zero");
    assert_int_equal(t.results[1]->status, GPTNER_ERR_EXPIRED);
    assert_int_equal(t.results[2]->status, GPTNER_ERR_MISSING);
    assert_true(str_is(t.results[2]->custom_id, "request-2"));
    assert_text(t.results[3], "three");
    assert_text(t.results[4], "o");
    assert_text(t.results[5], "odd");
    assert_text(t.results[6], "far");
    assert_int_equal(t.sum.strangers, 1);
    assert_int_equal(t.sum.duplicates, 1);
    assert_int_equal(t.sum.missing, 1);
    assert_int_equal(t.sum.expired, 1);
    reading_end(&t);
}

static void bad_requests_are_refused(void **state)
{
    static const char *const twice[] = {"a", "b", "a"};
    reading t = GPN_ZERO;
    (void)state;
    reading_start(&t);
    t.in.requests_path = t.requests;
    spit(t.output, OK_ROW("a", "x"));
    spit_requests(t.requests, twice, 3);
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, &t.in, NULL, &t.err),
        GPTNER_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(t.err.message, "line 3 has the custom_id"));
    assert_null(t.results);
    spit(t.requests, "{\"custom_id\":\"a\"}\n{\"id\":1}\n");
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, &t.in, NULL, &t.err),
        GPTNER_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(t.err.message, "line 2 has no custom_id"));
    t.in.requests_path = "/nonexistent/x.jsonl";
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, &t.in, NULL, NULL),
        GPTNER_ERR_FILE);
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, NULL, NULL, &t.err),
        GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_batch_read(NULL, t.output, NULL, &t.in, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    t.in.requests_path = NULL;
    assert_int_equal(
        gptner_batch_read(t.client, "/nonexistent", NULL, &t.in, NULL, &t.err),
        GPTNER_ERR_FILE);
    reading_end(&t);
}

static bool stop_at_second(const gptner_result *r, void *user)
{
    (void)user;
    return r->index < 1;
}

static void count_progress(const gptner_progress *p, void *user)
{
    gptner_progress *last = (gptner_progress *)user;
    *last = *p;
}

static void answers_go_to_a_file_and_a_stop_leaves_none(void **state)
{
    static const char *const ids[] = {"a", "b", "c"};
    reading t = GPN_ZERO;
    gptner_progress last = GPN_ZERO;
    char *text;
    size_t len;
    (void)state;
    reading_start(&t);
    spit_requests(t.requests, ids, 3);
    t.in.requests_path = t.requests;
    t.in.output_path = t.answers;
    t.in.progress_fn = count_progress;
    t.in.progress_user = &last;
    read_all(&t, OK_ROW("b", "two") "\n" OK_ROW("a", "one"), NULL);
    text = test_slurp(t.answers, &len);
    assert_non_null(text);
    assert_non_null(strstr(text, "{\"index\":0,\"custom_id\":\"a\",\"status\":"
                                 "\"OK\",\"text\":\"one\""));
    assert_non_null(strstr(text, "\"custom_id\":\"c\",\"status\":\"MISSING\""));
    free(text);
    assert_true(last.finished);
    assert_int_equal(last.done, 3);
    assert_int_equal(last.ok, 2);
    gptner_results_free(t.results, t.n);
    unlink(t.answers);
    t.in.result_fn = stop_at_second;
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, &t.in, &t.sum, &t.err),
        GPTNER_ERR_CANCELLED);
    assert_null(t.results);
    assert_int_not_equal(access(t.answers, F_OK), 0);
    t.in.result_fn = NULL;
    gptner_client_cancel(t.client);
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, &t.in, &t.sum, &t.err),
        GPTNER_ERR_CANCELLED);
    reading_end(&t);
}

/* ---- random mixes -------------------------------------------------------- */

typedef struct mix {
    uint64_t seed;
    size_t n;
    int rank[400]; /* of the best row of a request; 0: none */
    int expect_duplicates;
    int strangers;
    FILE *files[2];
} mix;

static size_t pick(mix *m, size_t n)
{
    uint64_t x = m->seed += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (size_t)((x ^ x >> 31) % n);
}

/* 4: good, 3: cut, 2: an error, 1: malformed */
static void put_row(mix *m, size_t index, int rank)
{
    FILE *f = m->files[pick(m, 2)];
    size_t pad = pick(m, 8) == 0 ? pick(m, 3000) : 3;
    const char *end = pick(m, 9) == 0 ? "\r\n\n" : "\n";
    char *filler = (char *)malloc(pad + 1);
    memset(filler, 'x', pad);
    filler[pad] = '\0';
    if (rank >= 3) {
        fprintf(f,
                "{\"id\":\"%s\",\"custom_id\":\"id/%zu\",\"response\":{"
                "\"status_code\":200,\"body\":{\"choices\":[{\"message\":{"
                "\"content\":\"answer \\u0023%zu\"},\"finish_reason\":\"%s\"}]}"
                "},\"error\":null}%s",
                filler, index, index, rank == 4 ? "stop" : "length", end);
    } else if (rank == 2) {
        fprintf(f,
                "{\"custom_id\":\"id/%zu\",\"response\":null,\"error\":{"
                "\"code\":\"odd\",\"message\":\"%s\"}}%s",
                index, filler, end);
    } else {
        fprintf(f, "{\"a\":\"%s\",\"custom_id\":\"id/%zu\",\"resp%s", filler,
                index, end);
    }
    free(filler);
}

static void put_mix(mix *m, const reading *t)
{
    size_t todo[1200];
    size_t n = 0, i;
    FILE *f = fopen(t->requests, "wb");
    for (i = 0; i < m->n; i++) {
        size_t rows = pick(m, 10) == 0 ? pick(m, 4) : 1;
        fprintf(f, "{\"custom_id\":\"id/%zu\",\"body\":{}}\n", i);
        m->expect_duplicates += rows > 1 ? (int)rows - 1 : 0;
        while (rows-- > 0) {
            todo[n++] = i;
        }
    }
    fclose(f);
    for (i = n; i > 1 && m->seed % 5 != 0; i--) {
        size_t k = pick(m, i);
        size_t kept = todo[k];
        todo[k] = todo[i - 1];
        todo[i - 1] = kept;
    }
    m->files[0] = fopen(t->output, "wb");
    m->files[1] = fopen(t->errors, "wb");
    for (i = 0; i < n; i++) {
        int rank = pick(m, 4) == 0 ? 1 + (int)pick(m, 4) : 4;
        if (pick(m, 30) == 0) {
            put_row(m, m->n + pick(m, 1000), 4);
            m->strangers++;
        }
        put_row(m, todo[i], rank);
        if (rank > m->rank[todo[i]]) {
            m->rank[todo[i]] = rank;
        }
    }
    fclose(m->files[0]);
    fclose(m->files[1]);
}

static void any_mix_of_rows_gives_each_request_its_own_result(void **state)
{
    static const gptner_status by_rank[] = {
        GPTNER_ERR_MISSING, GPTNER_ERR_BAD_REPLY, GPTNER_ERR_SERVER,
        GPTNER_ERR_TRUNCATED, GPTNER_OK};
    int round;
    (void)state;
    for (round = 0; round < (getenv("GPTNER_SLOW") != NULL ? 40 : 400);
         round++) {
        reading t = GPN_ZERO;
        mix m;
        size_t i;
        memset(&m, 0, sizeof m);
        m.seed = (uint64_t)round * 1000003;
        m.n = pick(&m, 300);
        reading_start(&t);
        put_mix(&m, &t);
        t.in.requests_path = t.requests;
        t.in.output_path = round % 3 == 0 ? t.answers : NULL; /* in order */
        t.in.as_completed = round % 3 == 1;
        assert_int_equal(gptner_batch_read(t.client, t.output, t.errors, &t.in,
                                           &t.sum, &t.err),
                         GPTNER_OK);
        assert_int_equal(t.n, m.n);
        assert_int_equal(t.sum.duplicates, m.expect_duplicates);
        assert_int_equal(t.sum.strangers, m.strangers);
        for (i = 0; i < t.n; i++) {
            const gptner_result *r = t.results[i];
            char want[32];
            assert_int_equal(r->index, i);
            assert_int_equal(r->status, by_rank[m.rank[i]]);
            snprintf(want, sizeof want, "id/%zu", i);
            assert_true(str_is(r->custom_id, want));
            snprintf(want, sizeof want, "answer #%zu", i);
            if (m.rank[i] >= 3) {
                assert_true(str_is(r->text, want));
            }
        }
        reading_end(&t);
    }
}

static bool count_index(const gptner_result *r, void *user)
{
    int *seen = (int *)user;
    seen[r->index]++;
    return true;
}

static void as_completed_gives_each_result_once_and_its_index(void **state)
{
    static const char *const ids[] = {"a", "b", "c", "d"};
    reading t = GPN_ZERO;
    int seen[4] = {0, 0, 0, 0};
    (void)state;
    reading_start(&t);
    spit_requests(t.requests, ids, 4);
    t.in.requests_path = t.requests;
    t.in.as_completed = true;
    t.in.output_path = "x.txt";
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, &t.in, NULL, &t.err),
        GPTNER_ERR_INVALID_ARGUMENT);
    t.in.output_path = NULL;
    t.in.result_fn = count_index;
    t.in.result_user = seen;
    read_all(&t,
             OK_ROW("d", "x") "\n" FAILED("b", "500", "x") "\n" OK_ROW(
                 "b", "y") "\n" OK_ROW("d", "again") "\n" OK_ROW("a", "z"),
             NULL);
    assert_text(t.results[0], "z");
    assert_text(t.results[1], "y");
    assert_int_equal(t.results[2]->status, GPTNER_ERR_MISSING);
    assert_text(t.results[3], "x");
    assert_int_equal(t.sum.duplicates, 2);
    assert_int_equal(seen[0] * seen[1] * seen[2] * seen[3], 1);
    reading_end(&t);
}

/* ---- rows read by their form, and member by member ----------------------- */

static void describe(gpn_join *j, char out[2048])
{
    const gptner_result *r = &j->view;
    const gptner_choice *c = j->fields.choices;
    bool some = j->fields.n_choices > 0;
    snprintf(
        out, 2048,
        "%d %d %d|%.*s|%.*s|%.*s|%.*s|%.*s|%zu|%.*s|%.*s|%.*s|%lld|"
        "%d %d|%lld %lld %lld %lld %lld|%s",
        (int)j->rank, (int)j->fate, (int)j->error.status, (int)r->custom_id.len,
        r->custom_id.ptr, (int)r->request_id.len, r->request_id.ptr,
        (int)r->id.len, r->id.ptr, (int)r->model.len, r->model.ptr,
        (int)r->system_fingerprint.len, r->system_fingerprint.ptr,
        j->fields.n_choices, some ? (int)c->text.len : 0,
        some ? c->text.ptr : "", some ? (int)c->finish_reason.len : 0,
        some ? c->finish_reason.ptr : "", some ? (int)c->refusal.len : 0,
        some ? c->refusal.ptr : "", some ? (long long)c->index : -1,
        r->http_status, r->attempts, (long long)r->usage.prompt_tokens,
        (long long)r->usage.completion_tokens, (long long)r->usage.total_tokens,
        (long long)r->usage.cached_tokens, (long long)r->usage.reasoning_tokens,
        j->error.message);
}

static void load_both(reading *t, gpn_join *j, const char *row, size_t len)
{
    gpn_place place = {0, GPN_RANK_NONE, 4096, 0};
    gpn_form form = j->form;
    char fast[2048];
    char slow[2048];
    test_spit(t->output, row, len);
    j->ahead.len = 0;
    assert_int_equal(gpn_join_load(j, place, &t->err), GPTNER_OK);
    describe(j, fast);
    j->form.n = 0;
    j->form.learnt = GPN_FORM_LEARNT;
    j->ahead.len = 0;
    assert_int_equal(gpn_join_load(j, place, &t->err), GPTNER_OK);
    describe(j, slow);
    j->form = form;
    if (strcmp(fast, slow) != 0) {
        fail_msg("%.*s\nby form:  %s\nelse:     %s", (int)len, row, fast, slow);
    }
}

static void a_row_means_the_same_with_and_without_its_form(void **state)
{
    static const char row[] =
        "{\"id\": \"batch_req_1\", \"custom_id\": \"a\", \"response\": "
        "{\"status_code\": 200, \"request_id\": \"r-1\", \"body\": {\"id\": "
        "\"c-1\", \"created\": 17, \"model\": \"m\", \"choices\": "
        "[{\"index\": 0, \"message\": {\"role\": \"assistant\", \"content\": "
        "\"x \\n \xC3\xA9\", \"refusal\": \"\"}, \"logprobs\": null, "
        "\"finish_reason\": \"stop\"}], \"usage\": {\"prompt_tokens\": 20, "
        "\"completion_tokens\": 1, \"total_tokens\": 21, "
        "\"prompt_tokens_details\": {\"cached_tokens\": 5}}, "
        "\"system_fingerprint\": \"fp\"}}, \"error\": null}";
    static const char bytes[] = "\"\\{}[]:, 0179-.eEntfx\x80\xC3\n\r\0";
    reading t = GPN_ZERO;
    gpn_join j;
    char text[sizeof row + 64];
    size_t i, k;
    (void)state;
    reading_start(&t);
    test_spit(t.output, row, sizeof row - 1);
    assert_int_equal(gpn_join_open(&j, t.client, NULL, &t.err), 0);
    assert_int_equal(gpn_join_add(&j, t.output, 0, &t.err), 0);
    load_both(&t, &j, row, sizeof row - 1);
    j.ahead.len = 0;
    gpn_join_load(&j, (gpn_place){0, GPN_RANK_NONE, 4096, 0}, &t.err);
    assert_true(j.form.n > 10);
    for (i = 0; i < sizeof row - 1; i++) {
        j.form.missed = j.form.learnt = 0;   /* it is kept */
        for (k = 0; k < sizeof bytes; k++) { /* replaced, put in, cut */
            memcpy(text, row, sizeof row);
            text[i] = bytes[k];
            load_both(&t, &j, text, sizeof row - 1);
            memcpy(text + i + 1, row + i, sizeof row - i);
            load_both(&t, &j, text, sizeof row);
        }
        memcpy(text, row, i);
        memcpy(text + i, row + i + 1, sizeof row - i - 1);
        load_both(&t, &j, text, sizeof row - 2);
        if (i > 0) {
            load_both(&t, &j, row, i);
        }
        assert_true(j.form.n > 10);
    }
    gpn_join_close(&j);
    reading_end(&t);
}

/* ---- memory and faults --------------------------------------------------- */

static void put_many(const reading *t, size_t n)
{
    FILE *requests = fopen(t->requests, "wb");
    FILE *output = fopen(t->output, "wb");
    size_t i;
    for (i = 0; i < n; i++) {
        fprintf(requests, "{\"custom_id\":\"%zu\"}\n", i);
        fprintf(output,
                "{\"custom_id\":\"%zu\",\"response\":{\"status_code\":200,"
                "\"body\":{\"choices\":[{\"text\":\"%zu\"}]}}}\n",
                n - 1 - i, n - 1 - i);
    }
    fclose(requests);
    fclose(output);
}

static bool count_good(const gptner_result *r, void *user)
{
    char want[24];
    snprintf(want, sizeof want, "%zu", r->index);
    *(size_t *)user += str_is(r->text, want);
    return true;
}

static long peak_of(size_t n, bool requests)
{
    reading t = GPN_ZERO;
    size_t good = 0;
    long before;
    reading_start(&t);
    put_many(&t, n);
    t.in.requests_path = requests ? t.requests : NULL;
    t.in.results = NULL;
    t.in.n_results = NULL;
    t.in.result_fn = count_good;
    t.in.result_user = &good;
    before = t.mem.bytes;
    t.mem.peak = before;
    assert_int_equal(
        gptner_batch_read(t.client, t.output, NULL, &t.in, &t.sum, &t.err),
        GPTNER_OK);
    assert_int_equal(t.sum.total, n);
    if (requests) {
        assert_int_equal(good, n);
    }
    before = t.mem.peak - before;
    reading_end(&t);
    return before;
}

static void memory_is_16_bytes_a_request(void **state)
{
    long few = peak_of(10000, true);
    long many = peak_of(100000, true);
    (void)state;
    printf("memory: %ld bytes for 10,000 requests, %ld for 100,000\n", few,
           many);
    assert_true(many - few <= 16 * 90000);
    assert_true(few - 160000 < 1 << 20);
}

static void fault_once(int kind, int n, bool *fired)
{
    static const char *const ids[] = {"a", "b", "c"};
    reading t = GPN_ZERO;
    gptner_status status;
    reading_start(&t);
    spit_requests(t.requests, ids, 3);
    spit(t.output,
         OK_ROW("c", "x") "\n" OK_ROW("a", "x") "\n" OK_ROW("a", "y"));
    spit(t.errors, RESPONSE("b", "200", "{\"data\":[{},{},{},{},{},{}]}"));
    unlink(t.answers);
    t.in.requests_path = n % 2 == 0 ? t.requests : NULL;
    t.in.output_path = t.answers;
    t.in.as_completed = n % 4 == 0;
    if (kind == GPN_FAULT_ALLOC) {
        t.mem.calls = 0;
        t.mem.fail_at = (n + 3) / 4;
    } else {
        test_fault_set(kind, (n + 3) / 4, false);
    }
    status =
        gptner_batch_read(t.client, t.output, t.errors, &t.in, &t.sum, &t.err);
    *fired = kind == GPN_FAULT_ALLOC ? t.mem.calls >= t.mem.fail_at
                                     : test_fault_fired();
    test_fault_clear();
    t.mem.fail_at = 0;
    if (status == GPTNER_OK) {
        assert_true(t.n >= 3);
    } else {
        assert_true(*fired);
        assert_true(kind == GPN_FAULT_ALLOC ? status == GPTNER_ERR_NO_MEMORY ||
                                                  status == GPTNER_ERR_FILE
                                            : status == GPTNER_ERR_FILE);
        assert_int_equal(t.err.status, status);
        assert_true(t.err.message[0] != '\0');
        assert_null(t.results);
        assert_int_not_equal(access(t.answers, F_OK), 0);
    }
    reading_end(&t);
}

static void any_failure_is_typed_and_leaves_nothing(void **state)
{
    static const int kinds[] = {GPN_FAULT_ALLOC, GPN_FAULT_FILE};
    size_t k;
    (void)state;
    for (k = 0; k < TEST_COUNT(kinds); k++) {
        bool fired = true;
        int n;
        for (n = 1; fired || n % 4 != 1; n++) {
            assert_true(n < 2000);
            fault_once(kinds[k], n, &fired);
        }
        assert_true(n > 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_of_row_has_its_meaning),
        cmocka_unit_test(nul_bytes_and_long_lines_end_only_their_row),
        cmocka_unit_test(a_byte_order_mark_is_passed_over),
        cmocka_unit_test(the_better_of_two_rows_is_kept),
        cmocka_unit_test(a_later_round_replaces_an_error_and_is_no_duplicate),
        cmocka_unit_test(bodies_without_choices_are_kept_raw),
        cmocka_unit_test(raw_bodies_are_kept_if_asked_and_keys_in_them_masked),
        cmocka_unit_test(without_requests_numbers_order_and_others_follow),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(answers_go_to_a_file_and_a_stop_leaves_none),
        cmocka_unit_test(any_mix_of_rows_gives_each_request_its_own_result),
        cmocka_unit_test(as_completed_gives_each_result_once_and_its_index),
        cmocka_unit_test(a_row_means_the_same_with_and_without_its_form),
        cmocka_unit_test(memory_is_16_bytes_a_request),
        cmocka_unit_test(any_failure_is_typed_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
