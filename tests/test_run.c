/* The whole library against the mock server in this process: prompts in,
 * answers out, over HTTP and verified HTTPS, with faults and in virtual time.
 */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

typedef struct env {
    mock_options mock_opt;
    mock_server *mock;
    gptner_config cfg;
    gptner_client *client;
    gptner_error err;
} env;

static const char *const no_faults[1] = {NULL};

static void env_start_faults(env *e, const char *const *faults, size_t n)
{
    char why[256];
    e->mock_opt.faults = n > 0 ? faults : no_faults;
    e->mock_opt.n_faults = n;
    if (e->mock_opt.reply == NULL) {
        e->mock_opt.reply = "hash";
    }
    if (!mock_server_start(&e->mock_opt, &e->mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    e->cfg.base_url = mock_server_base_url(e->mock);
    if (e->cfg.api_key == NULL) {
        e->cfg.api_key = "sk-test-0123456789";
    }
    if (e->mock_opt.tls) {
        e->cfg.ca_pem = gptner_str_from(mock_server_ca_pem(e->mock));
    }
    if (gptner_client_new(&e->cfg, &e->client, &e->err) != GPTNER_OK) {
        fail_msg("client: %s", e->err.message);
    }
}

static void env_start(env *e)
{
    env_start_faults(e, NULL, 0);
}

static void env_end(env *e)
{
    gptner_client_free(e->client);
    mock_server_stop(e->mock);
}

static void assert_card_clean(env *e)
{
    char *card = mock_server_report(e->mock);
    if (card == NULL || strstr(card, "\"clean\":true") == NULL) {
        fail_msg("report card: %s", card != NULL ? card : "no memory");
    }
    mock_text_free(card);
}

/* what the mock answers to one user message in its hash mode */
static void expected_hash(const char *text, char out[17])
{
    char data[512];
    unsigned char digest[32];
    int i;
    int len = snprintf(data, sizeof data, "user\n%s\n", text);
    test_sha256(data, (size_t)len, digest);
    for (i = 0; i < 8; i++) {
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    }
}

/* ---- a numbered source, and a receiver that checks ----------------------- */

typedef struct numbered {
    size_t n;
    size_t next;
    char text[64];
    size_t seen;
    size_t ok;
    size_t wrong;
    size_t by_status[64];
    gptner_client *cancel; /* after cancel_at results */
    size_t cancel_at;
    uint64_t trace; /* of everything that a result says */
} numbered;

static int numbered_next(gptner_prompt *prompt, gptner_error *err, void *user)
{
    numbered *s = (numbered *)user;
    (void)err;
    if (s->next == s->n) {
        return 0;
    }
    snprintf(s->text, sizeof s->text, "prompt number %zu", s->next++);
    prompt->text = gptner_str_from(s->text);
    return 1;
}

static bool numbered_result(const gptner_result *r, void *user)
{
    numbered *s = (numbered *)user;
    char text[64];
    char want[17];
    if (r->index != s->seen++) {
        s->wrong++;
    }
    s->by_status[r->status]++;
    s->trace = s->trace * 31 + (uint64_t)r->status * 7 + (uint64_t)r->attempts;
    s->trace = s->trace * 31 + (uint64_t)r->total_ms;
    if (r->status == GPTNER_OK) {
        snprintf(text, sizeof text, "prompt number %zu", r->index);
        expected_hash(text, want);
        s->ok++;
        if (r->text.len != 16 || memcmp(r->text.ptr, want, 16) != 0) {
            s->wrong++;
        }
    } else if (r->message[0] == '\0') {
        s->wrong++;
    }
    if (s->cancel != NULL && s->seen == s->cancel_at) {
        gptner_client_cancel(s->cancel);
    }
    return true;
}

static gptner_status run_numbered_ahead(env *e, numbered *s, size_t max_ahead,
                                        gptner_run_summary *sum)
{
    gptner_run_config run;
    memset(&run, 0, sizeof run);
    run.max_ahead = max_ahead;
    run.next_fn = numbered_next;
    run.next_user = s;
    run.result_fn = numbered_result;
    run.result_user = s;
    return gptner_run(e->client, &run, sum, &e->err);
}

static gptner_status run_numbered(env *e, numbered *s, gptner_run_summary *sum)
{
    return run_numbered_ahead(e, s, 0, sum);
}

static void *counted_alloc(size_t size, void *user)
{
    __atomic_add_fetch((size_t *)user, 1, __ATOMIC_RELAXED);
    return malloc(size);
}

static void *counted_realloc(void *ptr, size_t size, void *user)
{
    __atomic_add_fetch((size_t *)user, 1, __ATOMIC_RELAXED);
    return realloc(ptr, size);
}

static void counted_free(void *ptr, void *user)
{
    (void)user;
    free(ptr);
}

/* ---- plain questions ----------------------------------------------------- */

static void one_question_is_answered(void **state)
{
    env e;
    gptner_result *r = NULL;
    (void)state;
    memset(&e, 0, sizeof e);
    e.mock_opt.reply = "echo";
    env_start(&e);
    assert_int_equal(gptner_ask(e.client, "What is \"this\"?\n", &r, &e.err),
                     GPTNER_OK);
    assert_int_equal(r->text.len, 16);
    assert_memory_equal(r->text.ptr, "What is \"this\"?\n", 16);
    assert_int_equal(r->attempts, 1);
    assert_true(r->usage.total_tokens > 0);
    assert_true(r->request_id.len > 0);
    gptner_result_free(r);
    assert_card_clean(&e);
    env_end(&e);
}

static void a_connection_is_kept_between_questions(void **state)
{
    env e;
    int i;
    (void)state;
    memset(&e, 0, sizeof e);
    e.mock_opt.tls = true;
    env_start(&e);
    for (i = 0; i < 20; i++) {
        gptner_result *r = NULL;
        char text[32];
        snprintf(text, sizeof text, "question %d", i);
        assert_int_equal(gptner_ask(e.client, text, &r, &e.err), GPTNER_OK);
        gptner_result_free(r);
    }
    assert_int_equal(mock_server_count(e.mock, "connections"), 1);
    assert_card_clean(&e);
    env_end(&e);
}

static void
a_server_that_closed_the_kept_connection_is_not_noticed(void **state)
{
    static const char *const faults[] = {"stale"};
    env e;
    int i;
    (void)state;
    memset(&e, 0, sizeof e);
    e.cfg.max_retries = -1;
    env_start_faults(&e, faults, 1);
    for (i = 0; i < 10; i++) {
        gptner_result *r = NULL;
        char text[32];
        snprintf(text, sizeof text, "question %d", i);
        if (gptner_ask(e.client, text, &r, &e.err) != GPTNER_OK) {
            fail_msg("%s", e.err.message);
        }
        gptner_result_free(r);
    }
    env_end(&e);
}

/* A name is resolved by a helper thread, which must wake who waits for it. */
static void a_host_name_is_resolved_and_its_certificate_accepted(void **state)
{
    env e;
    gptner_result *r = NULL;
    char url[64];
    char why[256];
    (void)state;
    memset(&e, 0, sizeof e);
    e.mock_opt.tls = true;
    assert_true(mock_server_start(&e.mock_opt, &e.mock, why, sizeof why));
    snprintf(url, sizeof url, "https://localhost:%d/v1",
             mock_server_port(e.mock));
    e.cfg.base_url = url;
    e.cfg.api_key = "sk-test";
    e.cfg.ca_pem = gptner_str_from(mock_server_ca_pem(e.mock));
    assert_int_equal(gptner_client_new(&e.cfg, &e.client, &e.err), GPTNER_OK);
    if (gptner_ask(e.client, "hello", &r, &e.err) != GPTNER_OK) {
        fail_msg("%s", e.err.message);
    }
    gptner_result_free(r);
    env_end(&e);
}

/* ---- many ---------------------------------------------------------------- */

static void run_faulty(bool tls, size_t n)
{
    static const char *const faults[] = {"429:0.05", "500:0.03", "reset:0.02",
                                         "truncate:0.02"};
    env e;
    numbered s;
    gptner_run_summary sum;
    memset(&e, 0, sizeof e);
    memset(&s, 0, sizeof s);
    e.mock_opt.tls = tls;
    e.cfg.backoff_ms = 1;
    env_start_faults(&e, faults, 4);
    s.n = n;
    if (run_numbered(&e, &s, &sum) != GPTNER_OK) {
        fail_msg("%s", e.err.message);
    }
    assert_int_equal(s.ok, n);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(sum.ok, (int64_t)n);
    assert_true(sum.retries > 0);
    assert_int_equal(mock_server_count(e.mock, "responses.200"),
                     mock_server_count(e.mock, "prompts_answered") +
                         mock_server_count(e.mock, "prompts_answered_again"));
    assert_true(mock_server_count(e.mock, "max_concurrency") <= 10);
    assert_card_clean(&e);
    env_end(&e);
}

static void all_are_answered_in_order_over_http_with_faults(void **state)
{
    (void)state;
    run_faulty(false, 2000);
}

static void all_are_answered_in_order_over_https_with_faults(void **state)
{
    (void)state;
    run_faulty(true, 1000);
}

static void workers_start_together_and_resume_one_session(void **state)
{
    env e;
    numbered s;
    gptner_run_summary sum;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&s, 0, sizeof s);
    e.mock_opt.tls = true;
    e.mock_opt.latency_ms = 5;
    e.cfg.max_workers = 40;
    env_start(&e);
    s.n = 400;
    assert_int_equal(run_numbered(&e, &s, &sum), GPTNER_OK);
    assert_int_equal(s.ok, 400);
    assert_true(sum.connections <= 40);
    assert_int_equal(sum.resumed_sessions, sum.connections - 1);
    assert_int_equal(mock_server_count(e.mock, "tls_resumed"),
                     sum.resumed_sessions);
    assert_card_clean(&e);
    env_end(&e);
}

static void a_bad_key_stops_the_run(void **state)
{
    env e;
    numbered s;
    gptner_run_summary sum;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&s, 0, sizeof s);
    e.mock_opt.api_key = "sk-right-key-000000";
    e.cfg.api_key = "sk-wrong-key-999999";
    e.cfg.max_workers = 4;
    env_start(&e);
    s.n = 100;
    assert_int_equal(run_numbered(&e, &s, &sum), GPTNER_ERR_AUTH);
    assert_null(strstr(e.err.message, "sk-wrong"));
    assert_int_equal(s.ok, 0);
    assert_true(mock_server_count(e.mock, "responses.401") <= 4);
    assert_card_clean(&e);
    env_end(&e);
}

static void no_quota_stops_the_run_and_is_not_retried(void **state)
{
    static const char *const faults[] = {"quota"};
    env e;
    numbered s;
    gptner_run_summary sum;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&s, 0, sizeof s);
    e.cfg.max_workers = 2;
    env_start_faults(&e, faults, 1);
    s.n = 50;
    assert_int_equal(run_numbered(&e, &s, &sum), GPTNER_ERR_QUOTA);
    assert_true(mock_server_count(e.mock, "responses.429") <= 2);
    assert_card_clean(&e);
    env_end(&e);
}

static void cancelling_keeps_what_was_done(void **state)
{
    env e;
    numbered s;
    gptner_run_summary sum;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&s, 0, sizeof s);
    e.mock_opt.tls = true;
    env_start(&e);
    s.n = 5000;
    s.cancel = e.client;
    s.cancel_at = 100;
    assert_int_equal(run_numbered(&e, &s, &sum), GPTNER_ERR_CANCELLED);
    assert_true(s.ok >= 100);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(s.seen, s.next);
    gptner_client_reset(e.client);
    memset(&s, 0, sizeof s);
    s.n = 3;
    assert_int_equal(run_numbered(&e, &s, &sum), GPTNER_OK);
    env_end(&e);
}

static void canceller(void *arg)
{
    env *e = (env *)arg;
    while (mock_server_count(e->mock, "faults.stall") == 0) {
        struct timespec ts = {0, 1000000};
        nanosleep(&ts, NULL); /* polls the mock; no result hangs on the time */
    }
    gptner_client_cancel(e->client);
}

static void a_stuck_question_is_cancelled_from_another_thread(void **state)
{
    static const char *const faults[] = {"stall"};
    env e;
    gpn_thread thread;
    gptner_result *r = NULL;
    (void)state;
    memset(&e, 0, sizeof e);
    env_start_faults(&e, faults, 1);
    assert_true(gpn_thread_start(&thread, canceller, &e, 128 * 1024));
    assert_int_equal(gptner_ask(e.client, "never", &r, &e.err),
                     GPTNER_ERR_CANCELLED);
    assert_non_null(r);
    assert_int_equal(r->status, GPTNER_ERR_CANCELLED);
    gptner_result_free(r);
    gpn_thread_join(&thread);
    env_end(&e);
}

/* ---- time travel --------------------------------------------------------- */

typedef struct travel {
    int64_t now;
    uint64_t random;
    mock_server *mock;
} travel;

static int64_t travel_ms(void *user)
{
    return ((travel *)user)->now;
}

static int64_t travel_unix_ms(void *user)
{
    return ((travel *)user)->now + INT64_C(1790000000000);
}

static uint64_t travel_random(void *user)
{
    travel *t = (travel *)user;
    t->random = t->random * 6364136223846793005u + 1442695040888963407u;
    return t->random;
}

/* The client has nothing to do: let the mock work; when neither has, the clock
 * goes on to whatever comes first. */
static bool travel_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    travel *t = (travel *)user;
    bool progress = false;
    int64_t next = mock_server_step(t->mock, &progress);
    (void)now_ms;
    if (!progress) {
        int64_t to = until_ms < next ? until_ms : next;
        if (to == INT64_MAX) {
            fail_msg("client and mock wait for each other for ever");
        }
        t->now = to > t->now ? to : t->now + 1;
    }
    return true;
}

static void travel_run(const char *const *faults, size_t n_faults, size_t n,
                       numbered *s, gptner_run_summary *sum, int64_t *took)
{
    env e;
    travel t;
    memset(&e, 0, sizeof e);
    memset(&t, 0, sizeof t);
    memset(s, 0, sizeof *s);
    t.now = 1000;
    t.random = 42;
    e.mock_opt.manual = true;
    e.mock_opt.seed = 7;
    e.mock_opt.clock_ms_fn = travel_ms;
    e.mock_opt.unix_ms_fn = travel_unix_ms;
    e.mock_opt.clock_user = &t;
    e.mock_opt.latency_ms = 800;
    e.mock_opt.latency_jitter_ms = 700;
    e.cfg.max_threads = 1;
    e.cfg.hooks.monotonic_ms_fn = travel_ms;
    e.cfg.hooks.unix_ms_fn = travel_unix_ms;
    e.cfg.hooks.random_fn = travel_random;
    e.cfg.hooks.wait_fn = travel_wait;
    e.cfg.hooks.user = &t;
    env_start_faults(&e, faults, n_faults);
    t.mock = e.mock;
    s->n = n;
    assert_int_equal(run_numbered(&e, s, sum), GPTNER_OK);
    assert_int_equal(s->wrong, 0);
    /* not "no_keep_alive": a pause is longer than a connection may be idle */
    assert_int_equal(mock_server_findings(e.mock, NULL),
                     mock_server_findings(e.mock, "no_keep_alive"));
    *took = t.now - 1000;
    env_end(&e);
}

static void hours_of_waiting_pass_at_once(void **state)
{
    static const char *const faults[] = {
        "429:0.2,retry-after=90", "503:0.05,retry-after=60", "stall:0.02"};
    numbered s;
    gptner_run_summary sum;
    int64_t took = 0;
    (void)state;
    travel_run(faults, 3, 300, &s, &sum, &took);
    assert_int_equal(s.ok, 300);
    assert_true(took > 3600000);
}

static void the_same_seed_gives_the_same_trace(void **state)
{
    static const char *const faults[] = {"429:0.1,retry-after=2", "500:0.1",
                                         "reset:0.1", "truncate:0.1"};
    numbered one;
    numbered two;
    gptner_run_summary sum;
    int64_t took_one = 0;
    int64_t took_two = 0;
    (void)state;
    travel_run(faults, 4, 200, &one, &sum, &took_one);
    travel_run(faults, 4, 200, &two, &sum, &took_two);
    assert_true(one.trace == two.trace);
    assert_int_equal(took_one, took_two);
}

/* ---- files --------------------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static char *read_file(const char *path)
{
    char *text = (char *)calloc(1, 1 << 20);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

static void a_file_of_prompts_becomes_a_file_of_answers(void **state)
{
    env e;
    gptner_run_config run;
    gptner_run_summary sum;
    char dir[] = "/tmp/gptner-run-XXXXXX";
    char in[64];
    char out[64];
    char *text;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&run, 0, sizeof run);
    e.mock_opt.reply = "echo";
    env_start(&e);
    assert_non_null(mkdtemp(dir));
    snprintf(in, sizeof in, "%s/in.txt", dir);
    snprintf(out, sizeof out, "%s/out.txt", dir);
    write_file(in, "first\nsecond \\ line\n\xc3\xa9t\xc3\xa9\n");
    run.input_path = in;
    run.output_path = out;
    if (gptner_run(e.client, &run, &sum, &e.err) != GPTNER_OK) {
        fail_msg("%s", e.err.message);
    }
    assert_int_equal(sum.ok, 3);
    text = read_file(out);
    assert_string_equal(text, "first\nsecond \\\\ line\n\xc3\xa9t\xc3\xa9\n");
    free(text);
    remove(in);
    remove(out);
    assert_int_equal(rmdir(dir), 0); /* nothing else was left there */
    env_end(&e);
}

static void a_jsonl_run_tells_everything_known(void **state)
{
    env e;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_json_doc *doc = NULL;
    char dir[] = "/tmp/gptner-run-XXXXXX";
    char in[64];
    char out[64];
    char *text;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&run, 0, sizeof run);
    e.mock_opt.reply = "echo";
    env_start(&e);
    assert_non_null(mkdtemp(dir));
    snprintf(in, sizeof in, "%s/in.jsonl", dir);
    snprintf(out, sizeof out, "%s/out.jsonl", dir);
    write_file(in,
               "{\"prompt\":\"hi\",\"custom_id\":\"a-1\"}\n"
               "{\"messages\":[{\"role\":\"user\",\"content\":\"you\"}]}\n");
    run.input_path = in;
    run.output_path = out;
    if (gptner_run(e.client, &run, &sum, &e.err) != GPTNER_OK) {
        fail_msg("%s", e.err.message);
    }
    assert_int_equal(sum.ok, 2);
    text = read_file(out);
    *strchr(text, '\n') = '\0';
    assert_int_equal(gptner_json_parse(text, strlen(text), NULL, &doc, NULL),
                     GPTNER_OK);
    assert_non_null(strstr(text, "\"a-1\""));
    assert_non_null(strstr(text, "\"hi\""));
    gptner_json_doc_free(doc);
    free(text);
    remove(in);
    remove(out);
    assert_int_equal(rmdir(dir), 0);
    env_end(&e);
}

static void an_unreadable_input_is_a_file_error_and_leaves_nothing(void **state)
{
    env e;
    gptner_run_config run;
    gptner_run_summary sum;
    char dir[] = "/tmp/gptner-run-XXXXXX";
    char out[64];
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&run, 0, sizeof run);
    env_start(&e);
    assert_non_null(mkdtemp(dir));
    snprintf(out, sizeof out, "%s/out.txt", dir);
    run.input_path = "/nonexistent/in.txt";
    run.output_path = out;
    assert_int_equal(gptner_run(e.client, &run, &sum, &e.err), GPTNER_ERR_FILE);
    assert_non_null(strstr(e.err.message, "/nonexistent/in.txt"));
    assert_int_equal(rmdir(dir), 0);
    env_end(&e);
}

/* ---- other endpoints ----------------------------------------------------- */

typedef struct joined {
    char text[512];
    size_t len;
    int pieces;
} joined;

static bool join_delta(const gptner_delta *delta, void *user)
{
    joined *j = (joined *)user;
    assert_true(j->len + delta->text.len < sizeof j->text);
    if (delta->text.len > 0) {
        memcpy(j->text + j->len, delta->text.ptr, delta->text.len);
        j->len += delta->text.len;
        j->pieces++;
    }
    return true;
}

static void a_streamed_answer_comes_in_pieces_and_whole(void **state)
{
    env e;
    gptner_prompt p;
    gptner_result *r = NULL;
    joined j;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&p, 0, sizeof p);
    memset(&j, 0, sizeof j);
    e.mock_opt.reply = "echo";
    e.mock_opt.tls = true;
    env_start(&e);
    p.text = gptner_str_from("one two three four five six seven");
    if (gptner_chat_stream(e.client, &p, join_delta, &j, &r, &e.err) !=
        GPTNER_OK) {
        fail_msg("%s", e.err.message);
    }
    assert_int_equal(j.len, p.text.len);
    assert_memory_equal(j.text, p.text.ptr, j.len);
    assert_int_equal(r->text.len, p.text.len);
    assert_memory_equal(r->text.ptr, p.text.ptr, p.text.len);
    assert_true(j.pieces > 1);
    gptner_result_free(r);
    env_end(&e);
}

static void
a_stream_without_an_end_is_an_error_or_whole_by_its_finish(void **state)
{
    static const char *const faults[] = {"streamerror"};
    env e;
    gptner_prompt p;
    gptner_result *r = NULL;
    joined j;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&p, 0, sizeof p);
    memset(&j, 0, sizeof j);
    e.mock_opt.reply = "echo";
    env_start_faults(&e, faults, 1);
    p.text = gptner_str_from("one two three four five six seven");
    assert_int_not_equal(
        gptner_chat_stream(e.client, &p, join_delta, &j, &r, &e.err),
        GPTNER_OK);
    assert_true(e.err.message[0] != '\0');
    gptner_result_free(r);
    env_end(&e);
}

static void embeddings_come_in_order_and_of_unit_length(void **state)
{
    env e;
    gptner_embeddings *v = NULL;
    gptner_embeddings *w = NULL;
    gptner_str texts[3];
    size_t i;
    (void)state;
    memset(&e, 0, sizeof e);
    env_start(&e);
    texts[0] = gptner_str_from("one");
    texts[1] = gptner_str_from("two");
    texts[2] = gptner_str_from("three");
    assert_int_equal(gptner_embed(e.client, NULL, texts, 3, 64, &v, &e.err),
                     GPTNER_OK);
    assert_int_equal(gptner_embed(e.client, NULL, texts + 2, 1, 64, &w, &e.err),
                     GPTNER_OK);
    assert_int_equal(v->count, 3);
    assert_int_equal(v->dimensions, 64);
    for (i = 0; i < 3; i++) {
        double sum = 0.0;
        size_t k;
        for (k = 0; k < 64; k++) {
            sum +=
                (double)v->values[i * 64 + k] * (double)v->values[i * 64 + k];
        }
        assert_true(sum > 0.999 && sum < 1.001);
    }
    assert_memory_equal(v->values + 128, w->values, 64 * sizeof(float));
    gptner_embeddings_free(v);
    gptner_embeddings_free(w);
    env_end(&e);
}

static void models_are_listed_and_an_unknown_one_is_not_found(void **state)
{
    env e;
    gptner_models *m = NULL;
    (void)state;
    memset(&e, 0, sizeof e);
    env_start(&e);
    assert_int_equal(gptner_models_list(e.client, &m, &e.err), GPTNER_OK);
    assert_true(m->count > 1);
    gptner_models_free(m);
    m = NULL;
    assert_int_equal(gptner_models_get(e.client, "no/such:model", &m, &e.err),
                     GPTNER_ERR_NOT_FOUND);
    assert_null(m);
    env_end(&e);
}

static bool index_result(const gptner_result *r, void *user)
{
    numbered *s = (numbered *)user;
    if (r->index != s->seen++) {
        s->wrong++;
    }
    return true;
}

static void equal_prompts_are_sent_once_if_asked(void **state)
{
    env e;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_result **results = NULL;
    size_t n = 0;
    const char *texts[6] = {"a", "b", "a", "c", "b", "a"};
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&run, 0, sizeof run);
    e.mock_opt.reply = "echo";
    env_start(&e);
    run.texts = texts;
    run.n_prompts = 6;
    run.dedupe = true;
    run.results = &results;
    run.n_results = &n;
    assert_int_equal(gptner_run(e.client, &run, &sum, &e.err), GPTNER_OK);
    assert_int_equal(n, 6);
    assert_int_equal(mock_server_count(e.mock, "responses.200"), 3);
    assert_memory_equal(results[5]->text.ptr, "a", 1);
    assert_true(results[5]->shared);
    assert_int_equal(results[5]->index, 5);
    gptner_results_free(results, n);
    env_end(&e);
}

/* One worker: the second "a" is read when all before it was delivered. */
static void an_equal_prompt_keeps_its_place(void **state)
{
    env e;
    gptner_run_config run;
    gptner_run_summary sum;
    numbered s;
    const char *texts[4] = {"a", "b", "a", "c"};
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&run, 0, sizeof run);
    memset(&s, 0, sizeof s);
    e.cfg.max_workers = 1;
    env_start(&e);
    run.texts = texts;
    run.n_prompts = 4;
    run.dedupe = true;
    run.result_fn = index_result;
    run.result_user = &s;
    assert_int_equal(gptner_run(e.client, &run, &sum, &e.err), GPTNER_OK);
    assert_int_equal(s.seen, 4);
    assert_int_equal(s.wrong, 0);
    env_end(&e);
}

static void
the_key_is_not_sent_on_after_a_redirect_to_another_origin(void **state)
{
    static const char *const faults[] = {"redirect,to=http://127.0.0.2:9/x"};
    env e;
    gptner_raw_request q;
    gptner_response *r = NULL;
    (void)state;
    memset(&e, 0, sizeof e);
    memset(&q, 0, sizeof q);
    env_start_faults(&e, faults, 1);
    q.path = "/models";
    assert_int_equal(gptner_raw(e.client, &q, &r, &e.err), GPTNER_ERR_REDIRECT);
    assert_non_null(r);
    assert_int_equal(r->status, 307);
    gptner_response_free(r);
    env_end(&e);
}

/* Once everything is warm, the one allocation is that of the result itself. */
static void a_streamed_run_allocates_its_results_only(void **state)
{
    enum { ONCE = 300, AHEAD = 16, WORKERS = 4 };
    env e;
    size_t count = 0;
    size_t made[3];
    size_t i;
    (void)state;
    memset(&e, 0, sizeof e);
    e.cfg.allocator.alloc_fn = counted_alloc;
    e.cfg.allocator.realloc_fn = counted_realloc;
    e.cfg.allocator.free_fn = counted_free;
    e.cfg.allocator.user = &count;
    e.cfg.max_workers = WORKERS;
    env_start(&e);
    for (i = 0; i < 3; i++) { /* the first one warms up */
        numbered s;
        size_t before = count;
        memset(&s, 0, sizeof s);
        s.n = i < 2 ? ONCE : 2 * ONCE;
        assert_int_equal(run_numbered_ahead(&e, &s, AHEAD, NULL), GPTNER_OK);
        assert_int_equal(s.ok, s.n);
        made[i] = count - before;
    }
    /* besides, an item for each more that was under way at one time, and what
     * a worker needs that had nothing to do before: a connection, buffers */
    assert_true(made[2] - made[1] <= ONCE + AHEAD + 10 * WORKERS);
    env_end(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_question_is_answered),
        cmocka_unit_test(a_connection_is_kept_between_questions),
        cmocka_unit_test(
            a_server_that_closed_the_kept_connection_is_not_noticed),
        cmocka_unit_test(a_host_name_is_resolved_and_its_certificate_accepted),
        cmocka_unit_test(all_are_answered_in_order_over_http_with_faults),
        cmocka_unit_test(all_are_answered_in_order_over_https_with_faults),
        cmocka_unit_test(workers_start_together_and_resume_one_session),
        cmocka_unit_test(a_bad_key_stops_the_run),
        cmocka_unit_test(no_quota_stops_the_run_and_is_not_retried),
        cmocka_unit_test(cancelling_keeps_what_was_done),
        cmocka_unit_test(a_stuck_question_is_cancelled_from_another_thread),
        cmocka_unit_test(hours_of_waiting_pass_at_once),
        cmocka_unit_test(the_same_seed_gives_the_same_trace),
        cmocka_unit_test(a_file_of_prompts_becomes_a_file_of_answers),
        cmocka_unit_test(a_jsonl_run_tells_everything_known),
        cmocka_unit_test(
            an_unreadable_input_is_a_file_error_and_leaves_nothing),
        cmocka_unit_test(a_streamed_answer_comes_in_pieces_and_whole),
        cmocka_unit_test(
            a_stream_without_an_end_is_an_error_or_whole_by_its_finish),
        cmocka_unit_test(embeddings_come_in_order_and_of_unit_length),
        cmocka_unit_test(models_are_listed_and_an_unknown_one_is_not_found),
        cmocka_unit_test(equal_prompts_are_sent_once_if_asked),
        cmocka_unit_test(an_equal_prompt_keeps_its_place),
        cmocka_unit_test(a_streamed_run_allocates_its_results_only),
        cmocka_unit_test(
            the_key_is_not_sent_on_after_a_redirect_to_another_origin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
