/* The pool and the exchange under it, driven with works of the test's own over
 * a transport of the test's own: no socket, no server, a virtual clock. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "test_common.h"

/* ---- a server in memory: a transport that answers by script ------------- */

typedef struct fake_server {
    /* writes the whole response for the nth request on this server */
    void (*answer_fn)(struct fake_server *server, int nth, const char *request,
                      char *out, size_t cap);
    gpn_atomic requests;
    gpn_atomic opened;
    gpn_atomic open_now;
    gpn_atomic most_open;
    int refuse_connects; /* the first n */
    int close_after;     /* responses per connection; 0: kept */
    int lose_nth;        /* request whose reply is lost; 0: none */
    int64_t *clock;      /* virtual time in ms, or NULL */
    void *extra;
} fake_server;

typedef struct fake_conn {
    fake_server *server;
    char in[8192];
    size_t in_len;
    char out[8192];
    size_t out_len;
    size_t out_at;
    int answered;
    bool closed;
} fake_conn;

static int fake_connect(const char *host, int port, int timeout_ms, void **conn,
                        void *user)
{
    fake_server *server = (fake_server *)user;
    int now;
    fake_conn *c;
    (void)host;
    (void)port;
    (void)timeout_ms;
    if (test_atomic_add(&server->opened, 1) <= server->refuse_connects) {
        return -1;
    }
    c = (fake_conn *)calloc(1, sizeof *c);
    assert_non_null(c);
    c->server = server;
    now = test_atomic_add(&server->open_now, 1);
    if (now > gpn_atomic_get(&server->most_open)) {
        gpn_atomic_set(&server->most_open, now);
    }
    *conn = c;
    return 0;
}

static bool fake_request_whole(const fake_conn *c)
{
    const char *end = strstr(c->in, "\r\n\r\n");
    const char *length = strstr(c->in, "Content-Length: ");
    size_t body = length != NULL ? (size_t)atoi(length + 16) : 0;
    return end != NULL && c->in_len >= (size_t)(end + 4 - c->in) + body;
}

static int fake_send(void *conn, const char *data, size_t len, int timeout_ms)
{
    fake_conn *c = (fake_conn *)conn;
    (void)timeout_ms;
    if (c->closed) {
        return -1;
    }
    assert_true(c->in_len + len < sizeof c->in);
    memcpy(c->in + c->in_len, data, len);
    c->in_len += len;
    c->in[c->in_len] = '\0';
    if (fake_request_whole(c)) {
        int nth = test_atomic_add(&c->server->requests, 1);
        c->server->answer_fn(c->server, nth, c->in, c->out, sizeof c->out);
        c->out_len = strlen(c->out);
        c->out_at = 0;
        c->in_len = 0;
        c->answered++;
        if (nth == c->server->lose_nth) {
            c->out_len = 0;
            c->closed = true;
        }
    }
    return (int)len;
}

static int fake_recv(void *conn, char *data, size_t cap, int timeout_ms)
{
    fake_conn *c = (fake_conn *)conn;
    size_t n = c->out_len - c->out_at;
    if (n == 0) {
        if (!c->closed && timeout_ms > 0 && c->server->clock != NULL) {
            *c->server->clock += timeout_ms;
        }
        return c->closed ? 0 : -2;
    }
    n = n < cap ? n : cap;
    memcpy(data, c->out + c->out_at, n);
    c->out_at += n;
    if (c->out_at == c->out_len && c->server->close_after > 0 &&
        c->answered >= c->server->close_after) {
        c->closed = true;
    }
    return (int)n;
}

static void fake_close(void *conn)
{
    fake_conn *c = (fake_conn *)conn;
    test_atomic_add(&c->server->open_now, -1);
    free(c);
}

static void answer_text(char *out, size_t cap, int status, const char *extra,
                        const char *body)
{
    snprintf(out, cap, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n%s",
             status, extra, strlen(body), body);
}

/* ---- works of the test --------------------------------------------------- */

typedef struct test_work {
    gpn_work base;
    int number;
    gptner_status status;
    char text[64];
} test_work;

typedef struct test_run {
    gpn_env env;
    fake_server server;
    gptner_transport transport;
    gpn_peer peer;
    gpn_pool *pool;
    gpn_run_spec spec;
    gptner_run_summary sum;
    gptner_error err;
    int64_t now;
    int64_t waited;
    int n;            /* works in the source */
    int source_fails; /* at this number; 0: never */
    int given;
    int delivered;
    int stop_after;   /* deliver_fn returns false then; 0: never */
    int cancel_after; /* cancel the pool after so many; 0: never */
    int by_status[64];
    bool disorder;
    size_t ahead_seen;
} test_run;

static int work_next(void *ctx, gpn_work **work, gptner_error *err)
{
    test_run *t = (test_run *)ctx;
    test_work *w;
    if (t->source_fails > 0 && t->given + 1 == t->source_fails) {
        gpn_fail(err, GPTNER_ERR_FILE, "source: broken");
        return -1;
    }
    if (t->given >= t->n) {
        return 0;
    }
    w = (test_work *)calloc(1, sizeof *w);
    assert_non_null(w);
    w->number = t->given++;
    if ((size_t)(t->given - t->delivered) > t->ahead_seen) {
        t->ahead_seen = (size_t)(t->given - t->delivered);
    }
    *work = &w->base;
    return 1;
}

static gptner_status work_build(void *ctx, gpn_work *work, gpn_request *request,
                                gptner_error *err)
{
    test_run *t = (test_run *)ctx;
    test_work *w = (test_work *)work;
    char digits[24];
    gptner_str value;
    value.ptr = digits;
    (void)err;
    request->peer = &t->peer;
    gpn_buf_add_s(&request->body, "work ");
    gpn_buf_add_u64(&request->body, (uint64_t)w->number);
    gpn_buf_add_s(&request->body, ";");
    gpn_http_begin(&request->head, "POST", gpn_str_c("/v1/x"));
    gpn_http_header(&request->head, "Host", gpn_str_c("fake"));
    value.len = gpn_fmt_u64(request->body.len, digits);
    gpn_http_header(&request->head, "Content-Length", value);
    gpn_http_end_head(&request->head);
    return GPTNER_OK;
}

static gpn_class work_judge(void *ctx, gpn_work *work, gpn_reply *reply,
                            int64_t *server_delay_ms, gptner_error *err)
{
    test_work *w = (test_work *)work;
    (void)ctx;
    if (reply->status != GPTNER_OK) {
        *err = *reply->error;
        w->status = reply->status;
        return GPN_CLASS_TRANSIENT;
    }
    w->status = GPTNER_OK;
    snprintf(w->text, sizeof w->text, "%.*s", (int)reply->body_len,
             reply->body);
    if (reply->http_status == 200) {
        w->base.ok = true;
        return GPN_CLASS_OK;
    }
    w->status = GPTNER_ERR_SERVER;
    gpn_fail(err, GPTNER_ERR_SERVER, "status %d", reply->http_status);
    if (reply->http_status == 429) {
        *server_delay_ms = 7000;
        return GPN_CLASS_THROTTLED;
    }
    if (reply->http_status == 401) {
        w->status = GPTNER_ERR_AUTH;
        err->status = GPTNER_ERR_AUTH;
        return GPN_CLASS_FATAL;
    }
    if (reply->http_status == 409) {
        return GPN_CLASS_ADAPT;
    }
    return reply->http_status >= 500 ? GPN_CLASS_TRANSIENT : GPN_CLASS_FAIL;
}

static void work_settle(void *ctx, gpn_work *work, const gptner_error *err)
{
    (void)ctx;
    work->ok = false;
    ((test_work *)work)->status = err->status;
}

static bool work_deliver(void *ctx, gpn_work *work)
{
    test_run *t = (test_run *)ctx;
    test_work *w = (test_work *)work;
    char want[64];
    if (!t->spec.as_completed &&
        (w->number != t->delivered || w->base.index != (size_t)t->delivered)) {
        t->disorder = true;
    }
    snprintf(want, sizeof want, "work %d;", w->number);
    if (w->status == GPTNER_OK && strcmp(w->text, want) != 0) {
        t->disorder = true;
    }
    t->by_status[w->status]++;
    t->delivered++;
    free(w);
    if (t->cancel_after > 0 && t->delivered == t->cancel_after) {
        gpn_pool_cancel(t->pool);
    }
    return t->stop_after == 0 || t->delivered < t->stop_after;
}

static const gpn_work_ops work_ops = {work_next,    work_build, NULL,
                                      NULL,         work_judge, work_settle,
                                      work_deliver, NULL};

/* ---- virtual time -------------------------------------------------------- */

static int64_t virtual_ms(void *user)
{
    return ((test_run *)user)->now;
}

static uint64_t virtual_random(void *user)
{
    (void)user;
    return 0;
}

static bool virtual_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    test_run *t = (test_run *)user;
    if (until_ms == INT64_MAX) {
        return false; /* only a wake-up of another thread helps */
    }
    if (until_ms > now_ms) {
        t->waited += until_ms - now_ms;
        t->now = until_ms;
    }
    return true;
}

static void test_begin(test_run *t, int workers, int n,
                       void (*answer_fn)(fake_server *, int, const char *,
                                         char *, size_t))
{
    gpn_pool_config cfg;
    gptner_hooks hooks;
    memset(t, 0, sizeof *t);
    memset(&cfg, 0, sizeof cfg);
    memset(&hooks, 0, sizeof hooks);
    t->now = 1000;
    if (workers == 1) {
        hooks.monotonic_ms_fn = virtual_ms;
        hooks.unix_ms_fn = virtual_ms;
        hooks.random_fn = virtual_random;
        hooks.wait_fn = virtual_wait;
        hooks.user = t;
        t->server.clock = &t->now;
    }
    assert_true(gpn_env_init(&t->env, NULL, &hooks));
    t->server.answer_fn = answer_fn;
    t->transport.connect_fn = fake_connect;
    t->transport.send_fn = fake_send;
    t->transport.recv_fn = fake_recv;
    t->transport.close_fn = fake_close;
    t->transport.user = &t->server;
    t->peer.host = "fake";
    t->peer.port = 80;
    cfg.max_workers = workers;
    cfg.stack_bytes = 128 * 1024;
    cfg.rules.max_retries = 5;
    cfg.rules.max_throttle_retries = 5;
    cfg.rules.max_bad_reply_retries = 2;
    cfg.rules.backoff_ms = 500;
    cfg.rules.max_backoff_ms = 8000;
    cfg.rules.max_retry_after_ms = 120000;
    cfg.times.connect_ms = 1000;
    cfg.times.handshake_ms = 1000;
    cfg.times.first_byte_ms = 5000;
    cfg.times.gap_ms = 2000;
    cfg.times.attempt_ms = 60000;
    cfg.item_ms = 600000;
    cfg.http.max_head = 65536;
    cfg.http.max_headers = 100;
    cfg.http.max_trailer = 65536;
    cfg.http.max_interim = 100;
    cfg.http.max_chunk_overhead = 65536;
    cfg.http.max_body = INT64_MAX;
    cfg.max_body = 1 << 20;
    cfg.transport = &t->transport;
    t->n = n;
    t->spec.ops = &work_ops;
    t->spec.ctx = t;
    t->spec.total = -1;
    t->spec.drain = true;
    assert_int_equal(gpn_pool_new(&t->env, &cfg, &t->pool, &t->err), GPTNER_OK);
}

static gptner_status test_go(test_run *t)
{
    return gpn_pool_run(t->pool, &t->spec, &t->sum, &t->err);
}

static void test_end(test_run *t)
{
    gpn_pool_free(t->pool);
    assert_int_equal(gpn_atomic_get(&t->server.open_now), 0);
    assert_false(t->disorder);
}

/* ---- answers ------------------------------------------------------------- */

static void answer_echo(fake_server *server, int nth, const char *request,
                        char *out, size_t cap)
{
    (void)server;
    (void)nth;
    answer_text(out, cap, 200, "", strstr(request, "\r\n\r\n") + 4);
}

static void answer_flaky(fake_server *server, int nth, const char *request,
                         char *out, size_t cap)
{
    if (nth % 3 == 1) {
        answer_text(out, cap, nth % 2 == 1 ? 500 : 429, "", "no");
    } else {
        answer_echo(server, nth, request, out, cap);
    }
}

static void answer_500(fake_server *server, int nth, const char *request,
                       char *out, size_t cap)
{
    (void)server;
    (void)nth;
    (void)request;
    answer_text(out, cap, 500, "", "no");
}

static void answer_401_from_4(fake_server *server, int nth, const char *request,
                              char *out, size_t cap)
{
    if (nth >= 4) {
        answer_text(out, cap, 401, "", "no");
    } else {
        answer_echo(server, nth, request, out, cap);
    }
}

static void answer_silent(fake_server *server, int nth, const char *request,
                          char *out, size_t cap)
{
    (void)server;
    (void)nth;
    (void)request;
    (void)cap;
    out[0] = '\0';
}

static void answer_409(fake_server *server, int nth, const char *request,
                       char *out, size_t cap)
{
    if (nth == 1) {
        answer_text(out, cap, 409, "", "adapt");
    } else {
        answer_echo(server, nth, request, out, cap);
    }
}

/* ---- tests --------------------------------------------------------------- */

static void every_work_is_answered_in_order_over_one_connection(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 100, answer_echo);
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.delivered, 100);
    assert_int_equal(t.by_status[GPTNER_OK], 100);
    assert_int_equal(t.sum.ok, 100);
    assert_int_equal(t.sum.total, 100);
    assert_int_equal(t.sum.requests, 100);
    assert_int_equal(t.sum.connections, 1);
    test_end(&t);
}

static void many_workers_keep_the_order(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 8, 2000, answer_echo);
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 2000);
    assert_true(gpn_atomic_get(&t.server.most_open) <= 8);
    test_end(&t);
}

static void no_works_is_a_good_run(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 0, answer_echo);
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.sum.total, 0);
    test_end(&t);
}

static void the_window_bounds_what_is_begun(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 4, 500, answer_echo);
    t.spec.max_ahead = 5;
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_true(t.ahead_seen <= 6);
    assert_int_equal(t.by_status[GPTNER_OK], 500);
    test_end(&t);
}

static void failed_attempts_are_repeated_until_they_succeed(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 60, answer_flaky);
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 60);
    assert_true(t.sum.retries > 20);
    assert_true(t.sum.throttled > 0);
    assert_true(t.waited > 7000); /* the server's delay was waited for */
    test_end(&t);
}

static void retries_end_with_the_last_error(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 3, answer_500);
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_ERR_SERVER], 3);
    assert_int_equal(t.sum.requests, 3 * 6);
    assert_int_equal(t.sum.failed, 3);
    /* 0.5, 1, 2, 4, 8 s; no jitter as the random hook gives 0 */
    assert_true(t.waited >= 15500 && t.waited <= 3 * 15500);
    test_end(&t);
}

static void a_hopeless_error_stops_the_run_and_leaves_none_out(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 50, answer_401_from_4);
    assert_int_equal(test_go(&t), GPTNER_ERR_AUTH);
    assert_int_equal(t.delivered, 50);
    assert_int_equal(t.by_status[GPTNER_OK], 3);
    assert_int_equal(t.by_status[GPTNER_ERR_AUTH], 1);
    assert_int_equal(t.by_status[GPTNER_ERR_NOT_SENT], 46);
    assert_int_equal(gpn_atomic_get(&t.server.requests), 4);
    assert_int_equal(t.sum.not_sent, 46);
    test_end(&t);
}

static void without_drain_the_source_is_left_alone_after_a_stop(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 50, answer_401_from_4);
    t.spec.drain = false;
    assert_int_equal(test_go(&t), GPTNER_ERR_AUTH);
    assert_true(t.given < 10);
    assert_int_equal(t.delivered, t.given);
    test_end(&t);
}

static void cancelling_ends_the_run_and_leaves_none_out(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 4, 1000, answer_echo);
    t.cancel_after = 100;
    t.spec.max_ahead = 50; /* else all may be finished before the 100th is */
    assert_int_equal(test_go(&t), GPTNER_ERR_CANCELLED);
    assert_int_equal(t.delivered, 1000);
    assert_true(t.by_status[GPTNER_OK] >= 100);
    assert_int_equal(t.by_status[GPTNER_OK] +
                         t.by_status[GPTNER_ERR_CANCELLED] +
                         t.by_status[GPTNER_ERR_NOT_SENT],
                     1000);
    test_end(&t);
}

static void a_cancelled_pool_works_again_after_reset(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 10, answer_echo);
    gpn_pool_cancel(t.pool);
    assert_int_equal(test_go(&t), GPTNER_ERR_CANCELLED);
    assert_int_equal(t.by_status[GPTNER_ERR_NOT_SENT], 10);
    gpn_pool_reset(t.pool);
    t.given = 0;
    t.delivered = 0;
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 10);
    test_end(&t);
}

static void the_receiver_can_stop_the_run(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 100, answer_echo);
    t.stop_after = 10;
    assert_int_equal(test_go(&t), GPTNER_ERR_CANCELLED);
    assert_int_equal(t.delivered, 100);
    assert_int_equal(t.by_status[GPTNER_OK], 10);
    test_end(&t);
}

static void a_broken_source_stops_the_run_after_what_was_read(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 100, answer_echo);
    t.source_fails = 11;
    assert_int_equal(test_go(&t), GPTNER_ERR_FILE);
    assert_int_equal(t.delivered, 10);
    test_end(&t);
}

static void a_silent_server_is_a_timeout(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 1, answer_silent);
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_ERR_TIMEOUT], 1);
    assert_int_equal(t.sum.requests, 6);
    test_end(&t);
}

static void the_run_ends_at_its_deadline(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 5, answer_500);
    t.spec.timeout_ms = 3000;
    assert_int_equal(test_go(&t), GPTNER_ERR_TIMEOUT);
    assert_int_equal(t.delivered, 5);
    assert_true(t.now <= 1000 + 3000);
    test_end(&t);
}

static void an_adapted_request_is_repeated_at_once(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 1, answer_409);
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 1);
    assert_int_equal(t.waited, 0);
    assert_int_equal(t.sum.requests, 2);
    test_end(&t);
}

static void a_refused_connection_is_tried_again(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 2, answer_echo);
    t.server.refuse_connects = 2;
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 2);
    assert_int_equal(t.sum.retries, 2);
    test_end(&t);
}

static void a_closed_kept_connection_is_replaced_unnoticed(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 20, answer_echo);
    t.server.close_after = 1; /* without saying so */
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 20);
    assert_int_equal(t.sum.retries, 0);
    assert_int_equal(t.sum.resent, 19);
    assert_int_equal(t.sum.connections, 20);
    test_end(&t);
}

static void
a_lost_reply_on_a_fresh_connection_is_an_ordinary_retry(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 3, answer_echo);
    t.server.lose_nth = 1;
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 3);
    assert_int_equal(t.sum.retries, 1);
    assert_int_equal(t.sum.resent, 0);
    test_end(&t);
}

static void as_completed_gives_every_work_once(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 4, 300, answer_flaky);
    t.server.answer_fn = answer_echo;
    t.spec.as_completed = true;
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 300);
    test_end(&t);
}

static int progress_calls;
static gptner_progress progress_last;

static void progress_seen(const gptner_progress *progress, void *user)
{
    (void)user;
    progress_calls++;
    progress_last = *progress;
}

static void progress_ends_with_a_finished_call(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 1, 30, answer_flaky);
    progress_calls = 0;
    t.spec.progress_fn = progress_seen;
    t.spec.total = 30;
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_true(progress_calls > 1);
    assert_true(progress_last.finished);
    assert_int_equal(progress_last.done, 30);
    assert_int_equal(progress_last.total, 30);
    assert_int_equal(progress_last.ok, 30);
    test_end(&t);
}

static void the_bar_shows_share_rate_and_rest(void **state)
{
    gptner_progress p;
    char text[256];
    char bar[128];
    (void)state;
    memset(&p, 0, sizeof p);
    p.total = 200;
    p.done = 50;
    p.retries = 3;
    p.elapsed_ms = 65000;
    p.eta_ms = 3723000;
    p.per_second = 12.34;
    p.prompt_tokens = 12345;
    gpn_bar_tail(text, sizeof text, &p);
    assert_string_equal(text, "50/200 [01:05<1:02:03, 12.3/s, 3 retries, "
                              "0 failed, 12.3k tokens]");
    gpn_bar_draw(bar, sizeof bar, &p, 8);
    assert_string_equal(bar, " 25%|##      | ");
}

static void a_transport_that_blocks_gets_few_threads(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 0, 5000, answer_echo);
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 5000);
    assert_in_range(t.sum.workers, 1, GPN_AUTO_BLOCKING);
    assert_in_range(gpn_atomic_get(&t.server.most_open), 1, GPN_AUTO_BLOCKING);
    test_end(&t);
}

static void a_number_that_is_given_goes_before_auto(void **state)
{
    test_run t;
    (void)state;
    test_begin(&t, 0, 500, answer_echo);
    t.spec.max_workers = 3;
    assert_int_equal(test_go(&t), GPTNER_OK);
    assert_int_equal(t.by_status[GPTNER_OK], 500);
    assert_in_range(t.sum.workers, 1, 3);
    test_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_work_is_answered_in_order_over_one_connection),
        cmocka_unit_test(many_workers_keep_the_order),
        cmocka_unit_test(no_works_is_a_good_run),
        cmocka_unit_test(the_window_bounds_what_is_begun),
        cmocka_unit_test(failed_attempts_are_repeated_until_they_succeed),
        cmocka_unit_test(retries_end_with_the_last_error),
        cmocka_unit_test(a_hopeless_error_stops_the_run_and_leaves_none_out),
        cmocka_unit_test(without_drain_the_source_is_left_alone_after_a_stop),
        cmocka_unit_test(cancelling_ends_the_run_and_leaves_none_out),
        cmocka_unit_test(a_cancelled_pool_works_again_after_reset),
        cmocka_unit_test(the_receiver_can_stop_the_run),
        cmocka_unit_test(a_broken_source_stops_the_run_after_what_was_read),
        cmocka_unit_test(a_silent_server_is_a_timeout),
        cmocka_unit_test(the_run_ends_at_its_deadline),
        cmocka_unit_test(an_adapted_request_is_repeated_at_once),
        cmocka_unit_test(a_refused_connection_is_tried_again),
        cmocka_unit_test(a_closed_kept_connection_is_replaced_unnoticed),
        cmocka_unit_test(
            a_lost_reply_on_a_fresh_connection_is_an_ordinary_retry),
        cmocka_unit_test(as_completed_gives_every_work_once),
        cmocka_unit_test(progress_ends_with_a_finished_call),
        cmocka_unit_test(the_bar_shows_share_rate_and_rest),
        cmocka_unit_test(a_transport_that_blocks_gets_few_threads),
        cmocka_unit_test(a_number_that_is_given_goes_before_auto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
