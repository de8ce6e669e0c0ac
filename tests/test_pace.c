/* >>pace: delays as servers write them, what is retried, the gate.
 *
 * The vectors in this file stand alone. Where the shared corpus is found
 * (GPTNER_CORPUS, else ../shared/corpus) its vectors run too. Time and chance
 * come from here, so every run is the same and none waits. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include <inttypes.h>
#include <stdarg.h>

#include "test_common.h"

static gpn_env seeded_env(test_clock *clock, uint64_t seed)
{
    gptner_hooks hooks;
    gpn_env env;
    memset(clock, 0, sizeof(*clock));
    clock->now_ms = 1;
    clock->seed = seed;
    hooks = test_clock_hooks(clock);
    assert_true(gpn_env_init(&env, NULL, &hooks));
    return env;
}

/* ---- delays -------------------------------------------------------------- */

#define NOW_S INT64_C(1772366400) /* Sun, 01 Mar 2026 12:00:00 GMT */

typedef struct delay_case {
    const char *value;
    int64_t ms; /* -1: refused */
} delay_case;

/* Parses each value flush against an unmapped page. */
static void check_delays(const delay_case *cases, size_t n,
                         bool (*parse)(gptner_str text, int64_t *ms))
{
    test_page page;
    size_t i;
    test_page_init(&page, 1000);
    for (i = 0; i < n; i++) {
        size_t len = strlen(cases[i].value);
        gptner_str s = gpn_str(test_page_put(&page, cases[i].value, len), len);
        int64_t ms = -2;
        bool ok = parse(s, &ms);
        if (ok != (cases[i].ms >= 0) || (ok && ms != cases[i].ms)) {
            fail_msg("\"%s\": %d %" PRId64, cases[i].value, ok, ms);
        }
    }
    test_page_deinit(&page);
}

static bool parse_retry_after(gptner_str text, int64_t *ms)
{
    return gpn_wait_parse(text, NOW_S * 1000, ms);
}

static void retry_after_is_read_in_every_form(void **state)
{
    static const delay_case cases[] = {
        {"0", 0},
        {"5", 5000},
        {" 30\t", 30000},
        {"007", 7000},
        {"0.5", 500},
        {"1.0001", 1001}, /* never early */
        {"5.", 5000},
        {"99999999999999999999", GPN_WAIT_MAX},
        {"18446744073709551617", GPN_WAIT_MAX},
        {"Sun, 01 Mar 2026 12:00:02 GMT", 2000},
        {"Sunday, 01-Mar-26 12:01:00 GMT", 60000},
        {"Sun Mar  1 13:00:00 2026", 3600000},
        {"Sun, 01 Mar 2026 11:59:59 GMT", 0},
        {"", -1},
        {" ", -1},
        {"-1", -1},
        {"+5", -1},
        {".5", -1},
        {"1e3", -1},
        {"0x10", -1},
        {"nan", -1},
        {"inf", -1},
        {"5s", -1},
        {"5 6", -1},
        {"1.2.3", -1},
        {"Sun, 01 Foo 2026 12:00:30 GMT", -1},
    };
    (void)state;
    check_delays(cases, TEST_COUNT(cases), parse_retry_after);
}

static void retry_after_ms_is_read(void **state)
{
    static const delay_case cases[] = {
        {"1500", 1500},
        {"1500.2", 1501},
        {" 0 ", 0},
        {"1e3", -1},
        {"-1", -1},
        {"", -1},
        {"99999999999999999999", GPN_WAIT_MAX},
    };
    (void)state;
    check_delays(cases, TEST_COUNT(cases), gpn_wait_parse_ms);
}

static void reset_durations_are_read(void **state)
{
    static const delay_case cases[] = {
        {"0", 0},
        {"0s", 0},
        {"12ms", 12},
        {"1s", 1000},
        {"8.64s", 8640},
        {"6m0s", 360000},
        {"1h0m0s", 3600000},
        {"1h2m3.004s", 3723004},
        {"1.s", 1000},
        {".5s", 500},
        {"500us", 1},
        {"500\xc2\xb5s", 1},
        {"500\xce\xbcs", 1},
        {"1ns", 1},
        {"1d2h", 93600000},
        {"0.000000000000000000001s", 0},
        {"9223372036854775807ns", -1},
        {"99999999999999999999s", -1},
        {"999999999d999999999d", -1},
        {"", -1},
        {"1", -1},
        {"s", -1},
        {".s", -1},
        {"..s", -1},
        {"-5s", -1},
        {"+5s", -1},
        {"1S", -1},
        {"1x", -1},
        {"1s2", -1},
        {"1hm", -1},
        {"1s,", -1},
        {"1 s", -1},
        {"1e3s", -1},
        {"1.2.3s", -1},
        {"1second", -1},
        {"1millisecond", -1},
    };
    (void)state;
    check_delays(cases, TEST_COUNT(cases), gpn_reset_parse);
}

static void a_delay_is_found_in_a_message(void **state)
{
    static const delay_case cases[] = {
        {"Rate limit reached for gpt-4o in organization org-x on tokens per "
         "min "
         "(TPM): Limit 30,000, Used 28000, Requested 5000. Please try again in "
         "6.5s. Visit https://example.com",
         6500},
        {"Please try again in 120ms.", 120},
        {"please TRY AGAIN IN 1h12m0s.", 4320000},
        {"try again in 6m0s", 360000},
        {"try again in 20s", 20000},
        {"Try again in 20 seconds.", 20000},
        {"Please retry after 1 second.", 1000},
        {"Please retry after 5 minutes", 300000},
        {"try again in 250 milliseconds", 250},
        {"try again in 3 hours!", 10800000},
        {"try again in a while", -1},
        {"try again in 5", -1},
        {"try again in ", -1},
        {"retry after ", -1},
        {"", -1},
        {"in 5s", -1},
    };
    (void)state;
    check_delays(cases, TEST_COUNT(cases), gpn_try_again_parse);
}

/* A line of the corpus: verdict, ms, (note,) value as JSON. */
static void check_corpus(const char *name, bool with_note,
                         bool (*parse)(gptner_str text, int64_t *ms))
{
    char path[1024];
    char *data, *rest, *line;
    size_t len;
    int n = 0;
    if (test_corpus(path, name) == NULL) {
        skip();
    }
    rest = data = test_slurp(path, &len);
    while ((line = test_cut(&rest, '\n')) != NULL) {
        char *fields = line, *verdict = test_cut(&fields, '\t');
        char *wait = test_cut(&fields, '\t');
        gptner_json_doc *doc = NULL;
        gptner_str value;
        int64_t ms;
        bool ok;
        if (verdict[0] == '#' || wait == NULL) {
            continue;
        }
        if (with_note) {
            test_cut(&fields, '\t');
        }
        assert_int_equal(
            gptner_json_parse(fields, strlen(fields), NULL, &doc, NULL),
            GPTNER_OK);
        assert_true(gptner_json_get_str(gptner_json_root(doc), &value));
        ok = parse(value, &ms);
        if ((strcmp(verdict, "accept") == 0 &&
             (!ok || ms != (int64_t)(atof(wait) + 0.999))) ||
            (strcmp(verdict, "reject") == 0 && ok)) {
            fail_msg("%s: %s", verdict, fields);
        }
        gptner_json_doc_free(doc);
        n++;
    }
    free(data);
    assert_true(n > 10);
}

static void the_waits_of_the_corpus(void **state)
{
    (void)state;
    check_corpus("time/RETRY_AFTER.tsv", true, parse_retry_after);
}

static void the_reset_durations_of_the_corpus(void **state)
{
    (void)state;
    check_corpus("time/RESET.tsv", false, gpn_reset_parse);
}

/* ---- classification ------------------------------------------------------ */

typedef struct class_case {
    int http;
    const char *type, *code, *message, *should_retry;
    gpn_class what;
    gptner_status status;
} class_case;

#define OKAY      GPN_CLASS_OK
#define THROTTLED GPN_CLASS_THROTTLED
#define TRANSIENT GPN_CLASS_TRANSIENT
#define FAIL      GPN_CLASS_FAIL
#define FATAL     GPN_CLASS_FATAL

static const class_case classes[] = {
    {200, 0, 0, 0, 0, OKAY, GPTNER_OK},
    {201, 0, 0, 0, "true", OKAY, GPTNER_OK},
    {301, 0, 0, 0, 0, FAIL, GPTNER_ERR_REDIRECT},
    {307, 0, 0, 0, "true", FAIL, GPTNER_ERR_REDIRECT},
    {400, 0, 0, "bad", 0, FAIL, GPTNER_ERR_BAD_REQUEST},
    {400, 0, "unsupported_parameter", 0, 0, FAIL, GPTNER_ERR_BAD_REQUEST},
    {400, 0, "context_length_exceeded", 0, 0, FAIL, GPTNER_ERR_CONTEXT_LENGTH},
    {400, 0, "400", "This model's maximum context length is 4096 tokens", 0,
     FAIL, GPTNER_ERR_CONTEXT_LENGTH},
    {400, 0, "content_policy_violation", 0, 0, FAIL, GPTNER_ERR_FILTERED},
    {400, 0, "content_filter", 0, 0, FAIL, GPTNER_ERR_FILTERED},
    {400, 0, "invalid_prompt", 0, 0, FAIL, GPTNER_ERR_FILTERED},
    {400, 0, "billing_hard_limit_reached", 0, 0, FATAL, GPTNER_ERR_QUOTA},
    {401, 0, "invalid_api_key", 0, 0, FATAL, GPTNER_ERR_AUTH},
    {402, 0, 0, 0, 0, FATAL, GPTNER_ERR_QUOTA},
    {402, 0, 0, 0, "true", FATAL, GPTNER_ERR_QUOTA},
    {403, "request_forbidden", 0, 0, 0, FATAL, GPTNER_ERR_PERMISSION},
    {404, 0, "model_not_found", 0, 0, FAIL, GPTNER_ERR_NOT_FOUND},
    {405, 0, 0, 0, 0, FAIL, GPTNER_ERR_BAD_REQUEST},
    {408, 0, 0, 0, 0, TRANSIENT, GPTNER_ERR_TIMEOUT},
    {409, 0, 0, 0, 0, TRANSIENT, GPTNER_ERR_HTTP},
    {413, 0, 0, 0, 0, FAIL, GPTNER_ERR_BAD_REQUEST},
    {415, 0, 0, 0, 0, FAIL, GPTNER_ERR_BAD_REQUEST},
    {422, 0, 0, 0, 0, FAIL, GPTNER_ERR_BAD_REQUEST},
    {429, 0, 0, 0, 0, THROTTLED, GPTNER_ERR_RATE_LIMITED},
    {429, "requests", "rate_limit_exceeded", "Please try again in 1s", 0,
     THROTTLED, GPTNER_ERR_RATE_LIMITED},
    {429, "tokens", "rate_limit_exceeded",
     "Rate limit reached: Limit 30,000, Used 29,000, Requested 2,000.", 0,
     THROTTLED, GPTNER_ERR_RATE_LIMITED},
    {429, "tokens", "rate_limit_exceeded",
     "Request too large for gpt-4o on TPM: Limit 30,000, Requested 40,000.", 0,
     FAIL, GPTNER_ERR_TOO_LARGE},
    {429, "tokens", "rate_limit_exceeded",
     "rate limit reached; limit: 100, requested: 101", 0, FAIL,
     GPTNER_ERR_TOO_LARGE},
    {429, 0, 0, "Request too large for this tier", 0, FAIL,
     GPTNER_ERR_TOO_LARGE},
    {429, "insufficient_quota", "insufficient_quota", 0, 0, FATAL,
     GPTNER_ERR_QUOTA},
    {429, "insufficient_quota", 0, 0, "true", FATAL, GPTNER_ERR_QUOTA},
    {429, 0, "insufficient_quota", "Limit 5, Requested 9", 0, FATAL,
     GPTNER_ERR_QUOTA},
    {429, 0, "billing_not_active", 0, 0, FATAL, GPTNER_ERR_QUOTA},
    {429, 0, "resource_unavailable", "Resource Unavailable", 0, THROTTLED,
     GPTNER_ERR_RATE_LIMITED},
    {429, 0, 0, 0, "false", FAIL, GPTNER_ERR_RATE_LIMITED},
    {429, 0, 0, 0, "true", THROTTLED, GPTNER_ERR_RATE_LIMITED},
    {498, 0, "capacity_exceeded", 0, 0, THROTTLED, GPTNER_ERR_RATE_LIMITED},
    {500, "server_error", 0, 0, 0, TRANSIENT, GPTNER_ERR_SERVER},
    {500, 0, 0, 0, "false", FAIL, GPTNER_ERR_SERVER},
    {501, "not_supported_error", 0, 0, 0, FAIL, GPTNER_ERR_UNSUPPORTED},
    {502, 0, 0, "<html>", 0, TRANSIENT, GPTNER_ERR_SERVER},
    {503, 0, 0, 0, 0, TRANSIENT, GPTNER_ERR_SERVER},
    {503, 0, 0, "Slow Down", 0, THROTTLED, GPTNER_ERR_SERVER},
    {503, 0, 0, "That model is currently overloaded", 0, THROTTLED,
     GPTNER_ERR_SERVER},
    {504, 0, 0, 0, 0, TRANSIENT, GPTNER_ERR_SERVER},
    {520, 0, 0, 0, 0, TRANSIENT, GPTNER_ERR_SERVER},
    {527, 0, 0, 0, 0, TRANSIENT, GPTNER_ERR_SERVER},
    {529, 0, 0, 0, 0, THROTTLED, GPTNER_ERR_SERVER},
    {400, 0, 0, 0, "true", TRANSIENT, GPTNER_ERR_BAD_REQUEST},
    {401, 0, 0, 0, "true", TRANSIENT, GPTNER_ERR_AUTH},
    {401, 0, 0, 0, "false", FATAL, GPTNER_ERR_AUTH},
    {404, 0, 0, 0, "maybe", FAIL, GPTNER_ERR_NOT_FOUND},
    {999, 0, 0, 0, 0, FAIL, GPTNER_ERR_HTTP},
    {100, 0, 0, 0, 0, FAIL, GPTNER_ERR_HTTP},
};

static void every_kind_of_reply_is_classified(void **state)
{
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(classes); i++) {
        const class_case *c = &classes[i];
        gptner_status status;
        gpn_class what = gpn_pace_classify(
            c->http, gpn_str_c(c->type), gpn_str_c(c->code),
            gpn_str_c(c->message), gpn_str_c(c->should_retry), &status);
        if (what != c->what || status != c->status) {
            fail_msg("%d %s %s: class %d, %s", c->http,
                     c->code != NULL ? c->code : "-",
                     c->message != NULL ? c->message : "-", (int)what,
                     gptner_status_name(status));
        }
    }
}

static void only_what_may_go_away_is_tried_again(void **state)
{
    static const gptner_status yes[] = {
        GPTNER_ERR_TIMEOUT, GPTNER_ERR_RESOLVE,  GPTNER_ERR_CONNECT,
        GPTNER_ERR_TLS,     GPTNER_ERR_PROTOCOL, GPTNER_ERR_CONNECTION_LOST,
        GPTNER_ERR_PROXY};
    static const gptner_status no[] = {
        GPTNER_OK,         GPTNER_ERR_NO_MEMORY, GPTNER_ERR_CERTIFICATE,
        GPTNER_ERR_CA,     GPTNER_ERR_CANCELLED, GPTNER_ERR_LIMIT,
        GPTNER_ERR_CONFIG, GPTNER_ERR_FILE,      GPTNER_ERR_INVALID_ARGUMENT};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(yes); i++) {
        assert_true(gpn_pace_retryable_status(yes[i]));
    }
    for (i = 0; i < TEST_COUNT(no); i++) {
        assert_false(gpn_pace_retryable_status(no[i]));
    }
}

/* ---- retries ------------------------------------------------------------- */

static void backoff_doubles_up_to_its_cap_less_a_quarter(void **state)
{
    static const int64_t most[] = {500, 1000, 2000, 4000, 8000, 8000, 8000};
    test_clock clock;
    gpn_env env = seeded_env(&clock, 1);
    int attempt, i;
    (void)state;
    for (attempt = 0; attempt < 7; attempt++) {
        int64_t low = INT64_MAX, high = 0;
        for (i = 0; i < 1000; i++) {
            int64_t ms = gpn_backoff(&env, attempt, 500, 8000);
            low = ms < low ? ms : low;
            high = ms > high ? ms : high;
        }
        assert_in_range(high, most[attempt] * 98 / 100, most[attempt]);
        assert_in_range(low, most[attempt] * 75 / 100,
                        most[attempt] * 77 / 100);
    }
    assert_true(gpn_backoff(&env, 1000000, 500, 8000) <= 8000);
    assert_true(gpn_backoff(&env, 100, 1, INT64_MAX) > 0);
    assert_int_equal(gpn_backoff(&env, 3, 0, 8000), 0);
    assert_true(gpn_backoff(&env, 0, 9000, 8000) <= 8000);
}

static const gpn_rules rules = {5, 20, 2, 500, 8000, 120000};

static int tries(const gpn_env *env, gpn_budget *budget, gpn_class what,
                 int64_t server_delay)
{
    int64_t delay;
    int n = 0;
    while (n < 100 &&
           gpn_pace_retry(env, &rules, budget, what, server_delay, &delay)) {
        n++;
    }
    return n;
}

static void each_kind_of_failure_has_its_own_budget(void **state)
{
    test_clock clock;
    gpn_env env = seeded_env(&clock, 1);
    gpn_budget budget;
    (void)state;
    memset(&budget, 0, sizeof(budget));
    assert_int_equal(tries(&env, &budget, GPN_CLASS_TRANSIENT, -1), 5);
    assert_int_equal(tries(&env, &budget, GPN_CLASS_THROTTLED, -1), 20);
    assert_int_equal(tries(&env, &budget, GPN_CLASS_BAD_REPLY, -1), 2);
    assert_int_equal(tries(&env, &budget, GPN_CLASS_ADAPT, -1), 3);
    assert_int_equal(tries(&env, &budget, GPN_CLASS_FAIL, -1), 0);
    assert_int_equal(tries(&env, &budget, GPN_CLASS_FATAL, -1), 0);
    assert_int_equal(tries(&env, &budget, GPN_CLASS_OK, -1), 0);
    assert_int_equal(budget.transient, 5);
    assert_int_equal(budget.throttled, 20);
    assert_int_equal(budget.attempts, 0);
}

static void the_servers_delay_is_obeyed_or_the_item_given_up(void **state)
{
    gpn_rules endless = rules;
    test_clock clock;
    gpn_env env = seeded_env(&clock, 1);
    gpn_budget budget;
    int64_t delay;
    (void)state;
    memset(&budget, 0, sizeof(budget));
    assert_true(gpn_pace_retry(&env, &rules, &budget, GPN_CLASS_THROTTLED,
                               120000, &delay));
    assert_int_equal(delay, 120000);
    assert_false(gpn_pace_retry(&env, &rules, &budget, GPN_CLASS_THROTTLED,
                                120001, &delay));
    assert_int_equal(budget.throttled, 1);
    endless.max_retry_after_ms = -1;
    assert_true(gpn_pace_retry(&env, &endless, &budget, GPN_CLASS_THROTTLED,
                               120001, &delay));
    /* 0 is no delay: our own, by what was used so far (2 throttles: 2 s). */
    assert_true(
        gpn_pace_retry(&env, &rules, &budget, GPN_CLASS_THROTTLED, 0, &delay));
    assert_in_range(delay, 1500, 2000);
    assert_true(
        gpn_pace_retry(&env, &rules, &budget, GPN_CLASS_ADAPT, 5000, &delay));
    assert_int_equal(delay, 0);
}

/* ---- the gate ------------------------------------------------------------ */

enum { WORKERS = 20 };

/* Workers that want to start now. Each start takes latency ms and then, if
 * success, helps to open the gate. Fills starts in their order; returns how
 * often the gate was asked. */
static int run_gate(gpn_gate *gate, const gpn_env *env, int64_t now,
                    int64_t latency, bool success, int64_t starts[WORKERS])
{
    int64_t due[WORKERS], done[WORKERS];
    int i, started = 0, asked = 0;
    for (i = 0; i < WORKERS; i++) {
        due[i] = now;
        done[i] = INT64_MAX;
    }
    while (started < WORKERS) {
        int64_t next = INT64_MAX;
        for (i = 0; i < WORKERS; i++) {
            if (success && done[i] <= now) {
                gpn_gate_succeeded(gate);
                done[i] = INT64_MAX;
            }
        }
        for (i = 0; i < WORKERS; i++) {
            if (due[i] <= now) {
                int64_t answer = gpn_gate_enter(gate, env, now);
                asked++;
                assert_true(answer == 0 || answer > now);
                due[i] = answer > 0 ? answer : INT64_MAX;
                if (answer == 0) {
                    starts[started++] = now;
                    done[i] = now + latency;
                }
            }
        }
        for (i = 0; i < WORKERS; i++) {
            next = due[i] < next ? due[i] : next;
            next = success && done[i] < next ? done[i] : next;
        }
        assert_true(next > now || started == WORKERS);
        now = next;
    }
    return asked;
}

static void an_open_gate_lets_all_through(void **state)
{
    int64_t starts[WORKERS];
    test_clock clock;
    gpn_env env = seeded_env(&clock, 1);
    gpn_gate gate;
    (void)state;
    assert_true(gpn_gate_init(&gate));
    gpn_gate_succeeded(&gate);
    assert_int_equal(run_gate(&gate, &env, 1000, 10, true, starts), WORKERS);
    assert_int_equal(starts[WORKERS - 1], 1000);
    gpn_gate_deinit(&gate);
}

static void nobody_starts_in_a_pause_and_nobody_stampedes_after_it(void **state)
{
    static const int64_t pauses[] = {1, 20, 1000, 6000, 60000};
    uint64_t seed;
    size_t p;
    (void)state;
    for (p = 0; p < TEST_COUNT(pauses); p++) {
        for (seed = 1; seed <= 20; seed++) {
            int64_t starts[WORKERS], step = pauses[p] / 16;
            test_clock clock;
            gpn_env env = seeded_env(&clock, seed);
            gpn_gate gate;
            int i;
            step = step < 4 ? 4 : step > 250 ? 250 : step;
            assert_true(gpn_gate_init(&gate));
            gpn_gate_throttled(&gate, 5000, pauses[p]);
            assert_true(run_gate(&gate, &env, 5000, 0, false, starts) <=
                        2 * WORKERS);
            assert_in_range(starts[0], 5000 + pauses[p],
                            5000 + pauses[p] + step);
            assert_int_equal(starts[1], starts[0] + 2 * step);
            for (i = 2; i < WORKERS; i++) {
                assert_int_equal(starts[i], starts[i - 1] + step);
            }
            gpn_gate_deinit(&gate);
        }
    }
}

static void success_opens_the_gate_sooner(void **state)
{
    int64_t slow[WORKERS];
    test_clock clock;
    gpn_env env = seeded_env(&clock, 1);
    gpn_gate gate;
    int i;
    (void)state;
    assert_true(gpn_gate_init(&gate));
    gpn_gate_throttled(&gate, 0, 8000);
    run_gate(&gate, &env, 0, 50, false, slow);
    gpn_gate_deinit(&gate);
    env = seeded_env(&clock, 1);
    assert_true(gpn_gate_init(&gate));
    gpn_gate_throttled(&gate, 0, 8000);
    /* Those who come only after the pause, one by one: the step shrinks. */
    assert_int_equal(gpn_gate_enter(&gate, &env, 9000), 0);
    for (i = 0; i < 30; i++) {
        gpn_gate_succeeded(&gate);
    }
    assert_int_equal(gpn_gate_enter(&gate, &env, 9000), 0);
    assert_int_equal(gpn_gate_enter(&gate, &env, 9000), 0);
    assert_true(slow[WORKERS - 1] - slow[0] >= 19 * 250);
    gpn_gate_deinit(&gate);
}

static void a_success_from_before_the_pause_changes_nothing(void **state)
{
    int64_t starts[WORKERS];
    test_clock clock;
    gpn_env env = seeded_env(&clock, 3);
    gpn_gate gate;
    int i;
    (void)state;
    assert_true(gpn_gate_init(&gate));
    gpn_gate_throttled(&gate, 0, 1600);
    for (i = 0; i < 100; i++) {
        gpn_gate_succeeded(&gate);
    }
    run_gate(&gate, &env, 0, 0, false, starts);
    assert_in_range(starts[0], 1600, 1700);
    assert_true(starts[1] - starts[0] == 200);
    gpn_gate_deinit(&gate);
}

static void a_longer_pause_replaces_a_shorter_one_only(void **state)
{
    int64_t starts[WORKERS];
    test_clock clock;
    gpn_env env = seeded_env(&clock, 4);
    gpn_gate gate;
    (void)state;
    assert_true(gpn_gate_init(&gate));
    gpn_gate_throttled(&gate, 1000, 1000);
    assert_true(gpn_gate_enter(&gate, &env, 1000) >= 2000);
    assert_false(gpn_gate_open(&gate, 1999));
    assert_true(gpn_gate_open(&gate, 2062));
    gpn_gate_throttled(&gate, 1000, 100); /* in flight; asks for less */
    assert_true(gpn_gate_enter(&gate, &env, 1500) >= 2000);
    gpn_gate_throttled(&gate, 1500, 3000); /* asks for more */
    run_gate(&gate, &env, 1500, 0, false, starts);
    assert_in_range(starts[0], 4500, 4750);
    /* Throttled again in the recovery: the step grows. */
    gpn_gate_throttled(&gate, 10000, 160);
    run_gate(&gate, &env, 10000, 0, false, starts);
    assert_in_range(starts[0], 10160, 10410);
    assert_int_equal(starts[2] - starts[1], 250);
    gpn_gate_deinit(&gate);
}

static void every_waiter_gets_another_time(void **state)
{
    int64_t times[WORKERS];
    test_clock clock;
    gpn_env env = seeded_env(&clock, 5);
    gpn_gate gate;
    int i;
    (void)state;
    assert_true(gpn_gate_init(&gate));
    gpn_gate_throttled(&gate, 0, 2000);
    for (i = 0; i < WORKERS; i++) {
        times[i] = gpn_gate_enter(&gate, &env, 10);
        assert_true(times[i] > (i > 0 ? times[i - 1] : 1999));
    }
    /* Each is let in at his time, also when he comes a little late. */
    for (i = 0; i < WORKERS; i++) {
        assert_int_equal(gpn_gate_enter(&gate, &env, times[i] + i % 3), 0);
    }
    gpn_gate_deinit(&gate);
}

static void absurd_delays_do_not_overflow(void **state)
{
    test_clock clock;
    gpn_env env = seeded_env(&clock, 6);
    gpn_gate gate;
    (void)state;
    assert_true(gpn_gate_init(&gate));
    gpn_gate_throttled(&gate, 1000, INT64_MAX);
    assert_true(gpn_gate_enter(&gate, &env, 2000) > GPN_WAIT_MAX);
    gpn_gate_deinit(&gate);
    assert_true(gpn_gate_init(&gate));
    gpn_gate_throttled(&gate, 1000, -5);
    assert_in_range(gpn_gate_enter(&gate, &env, 1000), 1001, 1005);
    gpn_gate_deinit(&gate);
}

/* ---- the crew ------------------------------------------------------------ */

/* A server in a few lines: a request ends latency_ms after it began, but not
 * sooner than gap_ms after the one before; one that fails, at once. */
typedef struct crew_server {
    int64_t latency_ms;
    int64_t gap_ms;
    int64_t setup_ms; /* of a first request on a connection */
    int fails;        /* every so many; 0: none */
    int fails_above;  /* so many at a time; 0: none */
    int busy_most;    /* no more are given; 0: as many as are allowed */
    /* state */
    int64_t now;
    int64_t last_end;
    struct {
        int64_t begun;
        int64_t end;
        int64_t setup;
        int64_t window;
        bool fails;
    } under_way[256];
    int connections;
    int requests;
    int failed;
} crew_server;

static void crew_request(gpn_crew *crew, crew_server *s)
{
    int at = crew->running;
    bool fresh = at >= s->connections;
    int64_t end;
    s->requests++;
    s->under_way[at].fails = (s->fails > 0 && s->requests % s->fails == 0) ||
                             (s->fails_above > 0 && at >= s->fails_above);
    s->under_way[at].begun = s->now;
    s->under_way[at].setup = fresh ? s->setup_ms : 0;
    s->connections += fresh ? 1 : 0;
    end = s->now + s->under_way[at].setup;
    if (s->under_way[at].fails) {
        s->failed++;
        end += 20;
    } else {
        end += s->latency_ms;
        if (s->gap_ms > 0 && end < s->last_end + s->gap_ms) {
            end = s->last_end + s->gap_ms;
        }
        s->last_end = end;
    }
    s->under_way[at].end = end;
    s->under_way[at].window = gpn_crew_begin(crew, s->now);
}

static void crew_run(gpn_crew *crew, crew_server *s, int n)
{
    int stop = s->requests + n;
    while (s->requests < stop) {
        int first = 0;
        int i;
        int64_t served;
        while (crew->running < gpn_crew_allowed(crew) &&
               (s->busy_most == 0 || crew->running < s->busy_most)) {
            crew_request(crew, s);
        }
        for (i = 1; i < crew->running; i++) {
            if (s->under_way[i].end < s->under_way[first].end) {
                first = i;
            }
        }
        s->now =
            s->under_way[first].end > s->now ? s->under_way[first].end : s->now;
        served = s->now - s->under_way[first].begun - s->under_way[first].setup;
        gpn_crew_end(crew, s->under_way[first].window,
                     s->under_way[first].begun, served, s->now,
                     s->under_way[first].fails ? GPN_CREW_STRAINED
                                               : GPN_CREW_DONE);
        s->under_way[first] = s->under_way[crew->running];
    }
}

static crew_server crew_begin(gpn_crew *crew, int most, int64_t latency_ms,
                              int64_t gap_ms)
{
    crew_server s;
    memset(&s, 0, sizeof s);
    s.now = 1000;
    s.latency_ms = latency_ms;
    s.gap_ms = gap_ms;
    gpn_crew_init(crew, most, s.now);
    return s;
}

static void a_fixed_number_is_only_counted(void **state)
{
    gpn_crew crew;
    int i;
    (void)state;
    gpn_crew_init(&crew, 0, 1000);
    for (i = 0; i < 500; i++) {
        gpn_crew_begin(&crew, 1000 + i);
    }
    for (i = 0; i < 500; i++) {
        assert_false(
            gpn_crew_end(&crew, 1, 1000, 500, 2000 + i, GPN_CREW_DONE));
    }
    assert_int_equal(crew.most, 500);
    assert_int_equal(crew.running, 0);
}

static void the_crew_grows_as_far_as_it_may(void **state)
{
    static const int most[] = {1, 2, 5, 8, 20, 100, 256, 100000};
    static const int comes_to[] = {1, 2, 4, 8, 16, 96, 256, 256};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(most); i++) {
        gpn_crew crew;
        crew_server s = crew_begin(&crew, most[i], 500, 0);
        assert_true(gpn_crew_allowed(&crew) <= 8);
        crew_run(&crew, &s, 10000);
        assert_int_equal(crew.most, comes_to[i]);
    }
}

static void the_crew_comes_to_what_a_capacity_needs(void **state)
{
    static const int gaps[] = {400, 100, 50, 20, 10, 5};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(gaps); i++) {
        gpn_crew crew;
        crew_server s = crew_begin(&crew, 256, 800, gaps[i]);
        int needed = 800 / gaps[i];
        crew_run(&crew, &s, 10000);
        assert_in_range(gpn_crew_allowed(&crew), needed * 3 / 4, needed * 2);
    }
}

static void an_idle_crew_stays_as_it_is(void **state)
{
    gpn_crew crew;
    crew_server s = crew_begin(&crew, 256, 500, 0);
    (void)state;
    s.busy_most = 5;
    crew_run(&crew, &s, 1000);
    assert_int_equal(gpn_crew_allowed(&crew), 8);
    s.busy_most = 20; /* a limit of rate, say */
    crew_run(&crew, &s, 10000);
    assert_in_range(gpn_crew_allowed(&crew), 20, 40);
}

static void the_time_to_connect_is_no_latency(void **state)
{
    gpn_crew crew;
    crew_server s = crew_begin(&crew, 256, 100, 0);
    (void)state;
    s.setup_ms = 300;
    crew_run(&crew, &s, 3000);
    assert_int_equal(crew.most, 256);
}

static void overload_sends_the_crew_back_for_long(void **state)
{
    gpn_crew crew;
    crew_server s = crew_begin(&crew, 256, 500, 0);
    int failed;
    (void)state;
    s.fails_above = 30;
    crew_run(&crew, &s, 3000);
    assert_in_range(gpn_crew_allowed(&crew), 12, 32);
    failed = s.failed;
    crew_run(&crew, &s, 20000);
    assert_true(s.failed - failed < 100);
    s.fails_above = 0; /* not for ever, though */
    crew_run(&crew, &s, 40000);
    assert_int_equal(gpn_crew_allowed(&crew), 256);
}

static void what_fails_anyhow_does_not_hold_the_crew(void **state)
{
    static const int fails[] = {100, 30, 10};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(fails); i++) {
        gpn_crew crew;
        crew_server s = crew_begin(&crew, 256, 500, 0);
        s.fails = fails[i];
        crew_run(&crew, &s, 20000);
        assert_int_equal(gpn_crew_allowed(&crew), 256);
    }
}

static void an_outage_leaves_one_and_ends_well(void **state)
{
    gpn_crew crew;
    crew_server s = crew_begin(&crew, 256, 500, 0);
    (void)state;
    crew_run(&crew, &s, 3000);
    s.fails = 1;
    crew_run(&crew, &s, 3000);
    assert_int_equal(gpn_crew_allowed(&crew), 1);
    s.fails = 0;
    crew_run(&crew, &s, 3000);
    assert_in_range(gpn_crew_allowed(&crew), 192, 256);
}

static void absurd_times_do_not_harm_the_crew(void **state)
{
    static const int64_t jumps[] = {0, 1, INT64_C(1) << 20, INT64_C(1) << 40};
    size_t i;
    int k;
    (void)state;
    for (i = 0; i < TEST_COUNT(jumps); i++) {
        gpn_crew crew;
        int64_t now = 1;
        gpn_crew_init(&crew, 256, now);
        for (k = 0; k < 5000; k++) {
            while (crew.running < gpn_crew_allowed(&crew)) {
                gpn_crew_begin(&crew, now);
            }
            now += jumps[i];
            gpn_crew_end(&crew, k, now, k % 3 == 0 ? INT64_MAX / 2 : 0,
                         now - k % 5, GPN_CREW_DONE);
        }
        assert_in_range(gpn_crew_allowed(&crew), 1, 256);
    }
}

static void a_limit_of_rate_is_no_overload(void **state)
{
    static const struct {
        gpn_class what;
        gptner_status status;
        int http;
        const char *text;
        bool overload;
    } cases[] = {
        {GPN_CLASS_THROTTLED, GPTNER_ERR_RATE_LIMITED, 429,
         "Rate limit reached for m on requests per min (RPM)", false},
        {GPN_CLASS_THROTTLED, GPTNER_ERR_RATE_LIMITED, 429,
         "Too many requests; at most 10,000 tokens per day", false},
        {GPN_CLASS_THROTTLED, GPTNER_ERR_RATE_LIMITED, 429,
         "rate limited by the server", true},
        {GPN_CLASS_THROTTLED, GPTNER_ERR_SERVER, 529, "Overloaded", true},
        {GPN_CLASS_TRANSIENT, GPTNER_ERR_SERVER, 500, "Oops", false},
        {GPN_CLASS_TRANSIENT, GPTNER_ERR_SERVER, 502, "Bad gateway", true},
        {GPN_CLASS_TRANSIENT, GPTNER_ERR_SERVER, 503, "Unavailable", true},
        {GPN_CLASS_TRANSIENT, GPTNER_ERR_SERVER, 504, "Too late", true},
        {GPN_CLASS_TRANSIENT, GPTNER_ERR_TIMEOUT, 0, "timed out", true},
        {GPN_CLASS_TRANSIENT, GPTNER_ERR_CONNECT, 0, "refused", true},
        {GPN_CLASS_TRANSIENT, GPTNER_ERR_CONNECTION_LOST, 0, "reset", true},
        {GPN_CLASS_TRANSIENT, GPTNER_ERR_RESOLVE, 0, "no such name", false},
        {GPN_CLASS_BAD_REPLY, GPTNER_ERR_BAD_REPLY, 200, "not JSON", false},
        {GPN_CLASS_FATAL, GPTNER_ERR_QUOTA, 429, "no credit", false},
        {GPN_CLASS_OK, GPTNER_OK, 0, "", false}};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gptner_error err = GPN_ZERO;
        gpn_fail(&err, cases[i].status, "%s", cases[i].text);
        err.http_status = cases[i].http;
        if (gpn_crew_overload(cases[i].what, &err) != cases[i].overload) {
            fail_msg("%s", cases[i].text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retry_after_is_read_in_every_form),
        cmocka_unit_test(retry_after_ms_is_read),
        cmocka_unit_test(reset_durations_are_read),
        cmocka_unit_test(a_delay_is_found_in_a_message),
        cmocka_unit_test(the_waits_of_the_corpus),
        cmocka_unit_test(the_reset_durations_of_the_corpus),
        cmocka_unit_test(every_kind_of_reply_is_classified),
        cmocka_unit_test(only_what_may_go_away_is_tried_again),
        cmocka_unit_test(backoff_doubles_up_to_its_cap_less_a_quarter),
        cmocka_unit_test(each_kind_of_failure_has_its_own_budget),
        cmocka_unit_test(the_servers_delay_is_obeyed_or_the_item_given_up),
        cmocka_unit_test(an_open_gate_lets_all_through),
        cmocka_unit_test(
            nobody_starts_in_a_pause_and_nobody_stampedes_after_it),
        cmocka_unit_test(success_opens_the_gate_sooner),
        cmocka_unit_test(a_success_from_before_the_pause_changes_nothing),
        cmocka_unit_test(a_longer_pause_replaces_a_shorter_one_only),
        cmocka_unit_test(every_waiter_gets_another_time),
        cmocka_unit_test(absurd_delays_do_not_overflow),
        cmocka_unit_test(a_fixed_number_is_only_counted),
        cmocka_unit_test(the_crew_grows_as_far_as_it_may),
        cmocka_unit_test(the_crew_comes_to_what_a_capacity_needs),
        cmocka_unit_test(an_idle_crew_stays_as_it_is),
        cmocka_unit_test(the_time_to_connect_is_no_latency),
        cmocka_unit_test(overload_sends_the_crew_back_for_long),
        cmocka_unit_test(what_fails_anyhow_does_not_hold_the_crew),
        cmocka_unit_test(an_outage_leaves_one_and_ends_well),
        cmocka_unit_test(absurd_times_do_not_harm_the_crew),
        cmocka_unit_test(a_limit_of_rate_is_no_overload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
