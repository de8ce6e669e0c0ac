/* GPTNER_WORKERS_AUTO against servers of several kinds, in virtual time: how
 * many requests at a time the client comes to, how soon, and what it costs.
 * Called with the argument "table" it prints the figures instead. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

#include <sys/resource.h>

/* ---- servers ---------------------------------------------------------------
 */

typedef struct rig {
    /* the server: */
    int64_t base_ms;     /* latency of a request alone */
    int64_t doubled_ms;  /* from this time on twice of that; 0: never */
    double per_second;   /* its capacity; 0: none */
    double halved_s;     /* from this time on half of that; 0: never */
    double slowing;      /* requests at a time that double the latency */
    int refuse_above;    /* so many at a time; 0: never */
    int refuse_with;     /* status */
    int rpm;             /* its limit of rate, told by headers; 0: none */
    int fails_per_mille; /* at random, with 503, whatever the load */
    bool spread;         /* latencies from half to one and a half */
    /* the run: */
    size_t n;
    int workers;
    size_t ahead;  /* prompts at hand */
    test_mem *mem; /* NULL: malloc, and all must succeed */
    /* what happened: */
    mock_server *mock;
    int64_t now;
    int64_t begun;
    uint64_t random;
    size_t given;
    size_t ok;
    size_t results;
    gptner_status status;
    int64_t half_ms; /* half of the prompts had their answer */
    int64_t rise_ms; /* there were first so many under way as at most */
    int64_t requests;
    int64_t refused;
    int64_t late_refused;
    int64_t under_way_sum; /* in the second half */
    int64_t under_way_n;
    int under_way_max;
    int under_way_last; /* in the last eighth, the most */
    gptner_run_summary sum;
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
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return r->random;
}

static bool rig_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    rig *r = (rig *)user;
    bool progress = false;
    int64_t next = mock_server_step(r->mock, &progress);
    (void)now_ms;
    if (!progress) {
        int64_t to = until_ms < next ? until_ms : next;
        if (to == INT64_MAX) {
            fail_msg("client and mock wait for each other for ever");
        }
        r->now = to > r->now ? to : r->now + 1;
    }
    return true;
}

/* The server: how long does this request take, or is it refused? */
static int rig_load(int under_way, int64_t *delay_ms, void *user)
{
    rig *r = (rig *)user;
    double ms = (double)r->base_ms;
    double capacity = r->per_second;
    int64_t at = r->now - r->begun;
    bool late = r->results >= r->n / 2;
    r->requests++;
    if (under_way > r->under_way_max) {
        r->under_way_max = under_way;
        r->rise_ms = at;
    }
    if (late) {
        r->under_way_sum += under_way;
        r->under_way_n++;
    }
    if (r->given >= r->n - r->n / 8 && under_way > r->under_way_last) {
        r->under_way_last = under_way;
    }
    if ((r->refuse_above > 0 && under_way > r->refuse_above) ||
        (int)(rig_random(r) >> 33) % 1000 < r->fails_per_mille) {
        r->refused++;
        r->late_refused += late ? 1 : 0;
        return r->refuse_with;
    }
    if (r->doubled_ms > 0 && at >= r->doubled_ms) {
        ms *= 2.0;
    }
    if (r->slowing > 0.0) {
        ms *= 1.0 + (double)under_way / r->slowing;
    }
    if (r->halved_s > 0.0 && (double)at >= r->halved_s * 1000.0) {
        capacity /= 2.0;
    }
    if (r->spread) {
        ms *= 0.5 + (double)(rig_random(r) >> 40) / (double)(1 << 24);
    }
    if (capacity > 0.0 && ms < 1000.0 * under_way / capacity) {
        ms = 1000.0 * under_way / capacity;
    }
    *delay_ms = (int64_t)ms;
    return 0;
}

static int rig_next(gptner_prompt *prompt, gptner_error *err, void *user)
{
    rig *r = (rig *)user;
    static const char text[] = "prompt";
    (void)err;
    if (r->given == r->n) {
        return 0;
    }
    r->given++;
    prompt->text = gptner_str_from(text);
    return 1;
}

static bool rig_result(const gptner_result *result, void *user)
{
    rig *r = (rig *)user;
    if (r->results++ == r->n / 2) {
        r->half_ms = r->now;
    }
    r->ok += result->status == GPTNER_OK ? 1 : 0;
    return true;
}

static void rig_run(rig *r)
{
    mock_options opt;
    gptner_config cfg;
    gptner_run_config run;
    gptner_client *client = NULL;
    gptner_error err;
    char why[256];
    memset(&opt, 0, sizeof opt);
    memset(&cfg, 0, sizeof cfg);
    memset(&run, 0, sizeof run);
    r->now = r->begun = 1000;
    r->random = 42;
    opt.manual = true;
    opt.clock_ms_fn = rig_ms;
    opt.unix_ms_fn = rig_unix_ms;
    opt.clock_user = r;
    opt.rpm = r->rpm;
    opt.load_fn = rig_load;
    opt.load_user = r;
    opt.expect_repeats = -1;
    if (!mock_server_start(&opt, &r->mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    cfg.base_url = mock_server_base_url(r->mock);
    cfg.api_key = "sk-test";
    cfg.max_workers = r->workers != 0 ? r->workers : GPTNER_WORKERS_AUTO;
    cfg.max_threads = 1;
    cfg.hooks.monotonic_ms_fn = rig_ms;
    cfg.hooks.unix_ms_fn = rig_unix_ms;
    cfg.hooks.random_fn = rig_random;
    cfg.hooks.wait_fn = rig_wait;
    cfg.hooks.user = r;
    if (r->mem != NULL) {
        cfg.allocator = test_mem_allocator(r->mem);
    }
    r->status = gptner_client_new(&cfg, &client, &err);
    if (r->status != GPTNER_OK && r->mem == NULL) {
        fail_msg("client: %s", err.message);
    }
    run.max_ahead = r->ahead;
    run.next_fn = rig_next;
    run.next_user = r;
    run.result_fn = rig_result;
    run.result_user = r;
    if (r->status == GPTNER_OK) {
        r->status = gptner_run(client, &run, &r->sum, &err);
    }
    if (r->status != GPTNER_OK && r->mem == NULL) {
        fail_msg("run: %s", err.message);
    }
    gptner_client_free(client);
    mock_server_stop(r->mock);
}

/* Answers a second in the second half of the run. */
static double rig_rate(const rig *r)
{
    return (double)(r->n - r->n / 2) * 1000.0 / (double)(r->now - r->half_ms);
}

static double rig_mean(const rig *r)
{
    return (double)r->under_way_sum / (double)r->under_way_n;
}

/* ---- the table ----------------------------------------------------------- */

typedef struct kind {
    const char *name;
    rig server;
} kind;

static void table_row(const char *name, rig server, double needed)
{
    rig one = server;
    rig_run(&server);
    one.workers = 10;
    rig_run(&one);
    printf("%-44s %6.0f %6d %6.1f %7lld %8.1f %8.1f %7.2f%%\n", name, needed,
           (int)server.sum.workers, rig_mean(&server),
           (long long)server.rise_ms, rig_rate(&server), rig_rate(&one),
           100.0 * (double)server.refused / (double)server.requests);
}

static rig kind_rig(int64_t base_ms, double per_second, size_t n)
{
    rig r;
    memset(&r, 0, sizeof r);
    r.base_ms = base_ms;
    r.per_second = per_second;
    r.n = n;
    r.refuse_with = 429;
    return r;
}

static void table(void)
{
    rig r;
    printf("%-44s %6s %6s %6s %7s %8s %8s %8s\n", "server", "needed", "most",
           "mean", "rise ms", "a second", "with 10", "refused");
    table_row("800 ms, no limit", kind_rig(800, 0, 20000), 256);
    r = kind_rig(800, 0, 20000);
    r.spread = true;
    table_row("400 to 1200 ms, no limit", r, 256);
    table_row("800 ms, 10 a second", kind_rig(800, 10, 4000), 8);
    table_row("800 ms, 50 a second", kind_rig(800, 50, 10000), 40);
    r = kind_rig(800, 50, 10000);
    r.spread = true;
    table_row("400 to 1200 ms, 50 a second", r, 40);
    table_row("200 ms, 1 a second", kind_rig(200, 1, 1000), 1);
    table_row("5 ms, 1000 a second", kind_rig(5, 1000, 20000), 5);
    r = kind_rig(800, 0, 10000);
    r.slowing = 50.0;
    table_row("800 ms, slower by n/50 (100% at 62/s)", r, 150);
    r = kind_rig(800, 0, 10000);
    r.refuse_above = 20;
    table_row("800 ms, 429 above 20", r, 20);
    r.refuse_with = 503;
    table_row("800 ms, 503 above 20", r, 20);
    r.refuse_above = 100;
    table_row("800 ms, 503 above 100", r, 100);
    r = kind_rig(800, 0, 20000);
    r.doubled_ms = 40000;
    table_row("800 ms, 1600 after 40 s", r, 256);
    r = kind_rig(800, 50, 10000);
    r.halved_s = 100.0;
    table_row("800 ms, 50 a second, 25 after 100 s", r, 20);
    r = kind_rig(800, 0, 10000);
    r.refuse_with = 503;
    r.fails_per_mille = 10;
    table_row("800 ms, 1% fail at random", r, 256);
    r.fails_per_mille = 50;
    table_row("800 ms, 5% fail at random", r, 256);
    r = kind_rig(800, 0, 6000);
    r.rpm = 600;
    table_row("800 ms, 600 a minute", r, 8);
    r.rpm = 6000;
    r.n = 30000;
    table_row("800 ms, 6000 a minute", r, 80);
}

/* ---- tests -----------------------------------------------------------------
 */

static void assert_settled(rig *r, double least, double most, double rate)
{
    rig_run(r);
    assert_int_equal(r->ok, r->n);
    if (rig_mean(r) < least || rig_mean(r) > most || rig_rate(r) < rate) {
        fail_msg("%.1f at a time (%g to %g), %.1f a second (%g)", rig_mean(r),
                 least, most, rig_rate(r), rate);
    }
}

static void a_server_without_limit_gets_all_there_may_be(void **state)
{
    rig r = kind_rig(800, 0, 8000);
    (void)state;
    assert_settled(&r, 0, 256, 256 / 0.8 * 0.9);
    assert_int_equal(r.sum.workers, 256);
    assert_int_equal(r.under_way_max, 256);
    assert_true(r.rise_ms < 10 * 800);
    assert_true(r.sum.connections <= 256);
    r = kind_rig(800, 0, 8000);
    r.spread = true;
    assert_settled(&r, 160, 256, 256 / 0.8 * 0.75);
}

static void a_capacity_is_used_with_few_more_than_it_needs(void **state)
{
    static const struct {
        int64_t ms;
        int per_second;
        size_t n;
    } cases[] = {{800, 10, 1500}, {800, 50, 5000},  {800, 150, 12000},
                 {200, 20, 2000}, {5, 1000, 20000}, {3000, 10, 2000}};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        double needed = (double)(cases[i].ms * cases[i].per_second) / 1000.0;
        rig r = kind_rig(cases[i].ms, cases[i].per_second, cases[i].n);
        assert_settled(&r, 0, 2 * needed, 0.95 * cases[i].per_second);
        assert_true(r.under_way_last <= 2 * needed);
        r = kind_rig(cases[i].ms, cases[i].per_second, cases[i].n);
        r.spread = true;
        assert_settled(&r, 0, 2 * needed, 0.9 * cases[i].per_second);
    }
}

static void a_server_that_answers_one_at_a_time_is_not_crowded(void **state)
{
    rig r = kind_rig(200, 5, 1000);
    (void)state;
    assert_settled(&r, 1, 2, 4.75);
}

static void what_grows_slower_and_slower_is_used_to_three_quarters(void **state)
{
    rig r = kind_rig(800, 0, 8000);
    (void)state;
    r.slowing = 20.0; /* n / (0.8 * (1 + n/20)): at most 25 a second */
    assert_settled(&r, 30, 130, 0.66 * 25);
}

static void too_many_at_a_time_are_refused_rarely(void **state)
{
    static const int above[] = {5, 20, 50, 100};
    size_t i;
    (void)state;
    for (i = 0; i < 2 * TEST_COUNT(above); i++) {
        int k = above[i / 2];
        rig r = kind_rig(800, 0, (size_t)k * 150);
        r.refuse_above = k;
        r.refuse_with = i % 2 == 0 ? 429 : 503;
        assert_settled(&r, 0, k, 0.6 * k / 0.8);
        if (r.refused * 25 > r.requests || r.late_refused * 100 > r.requests) {
            fail_msg("%d of %d refused, %d late, above %d", (int)r.refused,
                     (int)r.requests, (int)r.late_refused, k);
        }
    }
}

static void a_limit_of_rate_is_met_without_crowding(void **state)
{
    rig r = kind_rig(800, 0, 6000);
    (void)state;
    r.rpm = 600;
    assert_settled(&r, 0, 16, 9.5);
    assert_true(r.under_way_last <= 16);
    r = kind_rig(800, 0, 20000);
    r.rpm = 6000;
    assert_settled(&r, 0, 128, 95);
}

static void a_latency_that_doubles_in_between_changes_nothing(void **state)
{
    rig r = kind_rig(800, 0, 12000);
    (void)state;
    r.doubled_ms = 15000;
    assert_settled(&r, 0, 256, 256 / 1.6 * 0.9);
}

static void a_capacity_that_halves_in_between_is_followed(void **state)
{
    rig r = kind_rig(800, 80, 8000);
    (void)state;
    r.halved_s = 30.0;
    assert_settled(&r, 0, 2 * 32, 0.95 * 40);
    assert_true(r.under_way_last <= 2 * 32);
}

static void failures_that_have_nothing_to_do_with_it_are_borne(void **state)
{
    rig r = kind_rig(800, 0, 12000);
    (void)state;
    r.fails_per_mille = 10;
    r.refuse_with = 503;
    assert_settled(&r, 64, 256, 200);
    r = kind_rig(800, 0, 12000);
    r.fails_per_mille = 50;
    r.refuse_with = 503;
    assert_settled(&r, 48, 256, 100);
}

static void few_prompts_get_few_workers(void **state)
{
    size_t n;
    (void)state;
    for (n = 0; n < 20; n++) {
        rig r = kind_rig(800, 0, n);
        rig_run(&r);
        assert_int_equal(r.ok, n);
        assert_true(r.sum.workers <= (n < 16 ? 8 : 16));
        assert_true(r.sum.workers == (int64_t)n || n > 8);
        assert_true(r.sum.connections <= r.sum.workers);
    }
}

static void a_slow_source_is_not_waited_for_by_many(void **state)
{
    rig r = kind_rig(800, 0, 600);
    (void)state;
    r.ahead = 12;
    rig_run(&r);
    assert_int_equal(r.ok, 600);
    assert_int_equal(r.sum.workers, 12);
}

static void the_limit_of_open_files_is_kept(void **state)
{
    struct rlimit old, few;
    rig r = kind_rig(800, 0, 2000);
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = 100; /* the mock has its sockets here, too */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    rig_run(&r);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(r.ok, r.n);
    assert_true(r.sum.workers <= 50);
}

static void the_same_run_twice_is_the_same(void **state)
{
    rig one = kind_rig(800, 50, 2000);
    rig two;
    (void)state;
    one.spread = true;
    one.fails_per_mille = 5;
    one.refuse_with = 503;
    two = one;
    rig_run(&one);
    rig_run(&two);
    assert_true(one.now == two.now);
    assert_true(one.under_way_sum == two.under_way_sum);
}

static void any_allocation_may_fail(void **state)
{
    long n;
    bool fired = true;
    (void)state;
    for (n = 1; fired; n += 1 + n / 20) {
        test_mem mem = {0, false, 0, 0, 0, 0};
        rig r = kind_rig(800, 0, 150);
        mem.fail_at = n;
        r.mem = &mem;
        rig_run(&r);
        fired = mem.calls >= n;
        assert_int_equal(mem.blocks, 0);
        /* one that was read may have found no memory */
        assert_true(r.given - r.results <= (r.status != GPTNER_OK ? 1 : 0));
        if (r.status == GPTNER_OK) {
            assert_int_equal(r.given, r.n);
        }
        if (!fired) {
            assert_int_equal(r.ok, r.n);
        }
    }
}

/* In real time, with threads, over HTTPS: that all ends well. */
static void many_threads_share_what_is_allowed(void **state)
{
    rig r = kind_rig(2, 0, 3000);
    mock_options opt;
    gptner_config cfg;
    gptner_run_config run;
    gptner_client *client = NULL;
    gptner_error err;
    int round;
    (void)state;
    memset(&opt, 0, sizeof opt);
    memset(&cfg, 0, sizeof cfg);
    memset(&run, 0, sizeof run);
    opt.latency_ms = 2;
    opt.expect_repeats = -1;
    assert_true(mock_server_start(&opt, &r.mock, err.message, 256));
    cfg.base_url = mock_server_base_url(r.mock);
    cfg.api_key = "sk-test";
    cfg.max_threads = 8;
    assert_int_equal(gptner_client_new(&cfg, &client, &err), GPTNER_OK);
    run.next_fn = rig_next;
    run.next_user = &r;
    run.result_fn = rig_result;
    run.result_user = &r;
    for (round = 0; round < 3; round++) {
        r.given = r.ok = 0;
        run.max_workers = round == 1 ? 20 : GPTNER_WORKERS_AUTO;
        assert_int_equal(gptner_run(client, &run, &r.sum, &err), GPTNER_OK);
        assert_int_equal(r.ok, r.n);
        assert_in_range(r.sum.workers, 1, round == 1 ? 20 : 256);
    }
    gptner_client_free(client);
    mock_server_stop(r.mock);
}

static void other_negative_numbers_are_refused(void **state)
{
    gptner_config cfg = GPN_ZERO;
    gptner_run_config run = GPN_ZERO;
    gptner_client *client = NULL;
    gptner_error err;
    (void)state;
    cfg.api_key = "sk-test";
    cfg.base_url = "http://127.0.0.1:9/v1";
    cfg.max_workers = -2;
    assert_int_equal(gptner_client_new(&cfg, &client, &err), GPTNER_ERR_CONFIG);
    cfg.max_workers = GPTNER_WORKERS_AUTO;
    assert_int_equal(gptner_client_new(&cfg, &client, &err), GPTNER_OK);
    run.max_workers = -2;
    assert_int_equal(gptner_run(client, &run, NULL, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    gptner_client_free(client);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_without_limit_gets_all_there_may_be),
        cmocka_unit_test(a_capacity_is_used_with_few_more_than_it_needs),
        cmocka_unit_test(a_server_that_answers_one_at_a_time_is_not_crowded),
        cmocka_unit_test(
            what_grows_slower_and_slower_is_used_to_three_quarters),
        cmocka_unit_test(too_many_at_a_time_are_refused_rarely),
        cmocka_unit_test(a_limit_of_rate_is_met_without_crowding),
        cmocka_unit_test(a_latency_that_doubles_in_between_changes_nothing),
        cmocka_unit_test(a_capacity_that_halves_in_between_is_followed),
        cmocka_unit_test(failures_that_have_nothing_to_do_with_it_are_borne),
        cmocka_unit_test(few_prompts_get_few_workers),
        cmocka_unit_test(a_slow_source_is_not_waited_for_by_many),
        cmocka_unit_test(the_limit_of_open_files_is_kept),
        cmocka_unit_test(the_same_run_twice_is_the_same),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(many_threads_share_what_is_allowed),
        cmocka_unit_test(other_negative_numbers_are_refused),
    };
    if (argc > 1 && strcmp(argv[1], "table") == 0) {
        table();
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
