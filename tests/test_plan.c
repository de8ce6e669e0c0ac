/* Limits of tiers, the plan of a run, and a run by the way it advises. The
 * mock server is in this process; pauses take no time. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

#include <sched.h>

/* ---- the rig: a client without a server, or with one ---- */

typedef struct rig {
    gptner_config config;
    gptner_client *client;
    mock_server *mock;
    test_mem memory;
    gptner_plan_config plan;
    gptner_plan out;
    gptner_error err;
} rig;

static int64_t skew_ms;

static int64_t hasty_ms(void *user)
{
    struct timespec t;

    (void)user;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 +
           __atomic_load_n(&skew_ms, __ATOMIC_SEQ_CST);
}

static int64_t hasty_unix_ms(void *user)
{
    return INT64_C(1700000000000) + hasty_ms(user);
}

static bool hasty_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    (void)user;
    if (until_ms - now_ms > 70000) {
        return false;
    }
    __atomic_add_fetch(&skew_ms, until_ms - now_ms, __ATOMIC_SEQ_CST);
    sched_yield();
    return true;
}

static void rig_client(rig *r)
{
    r->config.api_key = "sk-test-0123456789";
    r->config.proxy = "";
    if (r->config.base_url == NULL) {
        r->config.base_url = "http://127.0.0.1:9/v1"; /* never asked */
    }
    if (gptner_client_new(&r->config, &r->client, &r->err) != GPTNER_OK) {
        fail_msg("%s", r->err.message);
    }
}

static void rig_serve(rig *r, const char *reply)
{
    mock_options opt;
    char why[256];

    memset(&opt, 0, sizeof opt);
    opt.reply = reply;
    opt.batch_seconds = -1;
    opt.expect_repeats = -1;
    opt.clock_ms_fn = hasty_ms;
    if (!mock_server_start(&opt, &r->mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    r->config.base_url = mock_server_base_url(r->mock);
    r->config.connect_timeout_ms = r->config.first_byte_timeout_ms = 600000;
    r->config.gap_timeout_ms = 600000;
    r->config.hooks.monotonic_ms_fn = hasty_ms;
    r->config.hooks.unix_ms_fn = hasty_unix_ms;
    r->config.hooks.wait_fn = hasty_wait;
    rig_client(r);
}

static void rig_end(rig *r)
{
    gptner_client_free(r->client);
    if (r->mock != NULL) {
        mock_server_stop(r->mock);
    }
    memset(r, 0, sizeof *r);
}

static void rig_plan(rig *r)
{
    r->plan.run.output_path = r->plan.run.output_path != NULL
                                  ? r->plan.run.output_path
                                  : "answers.txt";
    if (gptner_plan_run(r->client, &r->plan, &r->out, &r->err) != GPTNER_OK) {
        fail_msg("%s", r->err.message);
    }
}

/* Texts "sentence number I of the river", n of them, for ever. */
static const char **texts_new(size_t n)
{
    const char **list = (const char **)malloc(n * sizeof *list);
    char *room = (char *)malloc(n * 64);
    size_t i;

    assert_non_null(list);
    assert_non_null(room);
    for (i = 0; i < n; i++) {
        snprintf(room + i * 64, 64, "sentence number %zu of the river", i);
        list[i] = room + i * 64;
    }
    return list;
}

static void texts_free(const char **list)
{
    free((void *)(uintptr_t)list[0]);
    free((void *)(uintptr_t)list);
}

#define assert_near(a, b) assert_true((a) > (b)*0.999999 && (a) < (b)*1.000001)

/* ---- tiers ---- */

static void tiers_have_their_limits(void **state)
{
    static const struct {
        const char *tier, *model;
        int64_t rpm, tpm, queue;
    } cases[] = {{"free", "gpt-4o", 3, 40000, 0},
                 {"free", NULL, 3, 40000, 0},
                 {"1", "some-model", 500, 30000, 0},
                 {"1", "gpt-4o", 500, 30000, 90000},
                 {"1", "gpt-4o-2024-08-06", 500, 30000, 90000},
                 {"1", "ft:gpt-4o-2024-08-06:org::id", 500, 30000, 90000},
                 {"1", NULL, 500, 200000, 2000000}, /* gpt-4o-mini */
                 {"1", "openai/gpt-4o-mini", 500, 200000, 2000000},
                 {"1", "text-embedding-3-large", 3000, 1000000, 3000000},
                 {"2", "gpt-4o-mini", 5000, 450000, 0},
                 {"2", "gpt-4.1", 5000, 450000, 1350000},
                 {"2", "gpt-5", 5000, 1000000, 3000000},
                 {"2", "gpt-5-mini", 5000, 450000, 0},
                 {"1", "gpt-5.6-luna", 500, 500000, 5000000},
                 {"2", "gpt-5.6-luna", 5000, 2000000, 20000000},
                 {"3", "gpt-5.6-luna", 5000, 4000000, 40000000},
                 {"4", "gpt-5.6-luna", 10000, 10000000, 1000000000},
                 {"5", "gpt-5.6-luna", 30000, 180000000, INT64_C(15000000000)},
                 {"3", "x", 5000, 800000, 0},
                 {"4", "x", 10000, 2000000, 0},
                 {"5", "x", 10000, 30000000, 0}};
    gptner_limits l;
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        assert_int_equal(
            gptner_limits_find(NULL, cases[i].tier, cases[i].model, &l, NULL),
            GPTNER_OK);
        assert_int_equal(l.requests_per_minute, cases[i].rpm);
        assert_int_equal(l.tokens_per_minute, cases[i].tpm);
        assert_int_equal(l.batch_queue_tokens, cases[i].queue);
        assert_int_equal(l.requests_per_day, 0);
        assert_int_equal(l.tokens_per_day, 0);
    }
}

static void an_unknown_tier_is_refused(void **state)
{
    static const char *const tiers[] = {"",     "0",      "6", "11",
                                        "Free", "tier 1", "f"};
    gptner_limits l;
    gptner_error err;
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(tiers); i++) {
        rig r;
        memset(&l, 1, sizeof l);
        assert_int_equal(gptner_limits_find(NULL, tiers[i], "gpt-4o", &l, &err),
                         GPTNER_ERR_NOT_FOUND);
        assert_int_equal(l.requests_per_minute, 0);
        memset(&r, 0, sizeof r);
        r.config.api_key = "k";
        r.config.tier = tiers[i];
        assert_int_equal(gptner_client_new(&r.config, &r.client, &err),
                         GPTNER_ERR_CONFIG);
        assert_non_null(strstr(err.message, "free and 1 to 5"));
    }
    assert_int_equal(gptner_limits_find(NULL, NULL, "x", &l, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
}

/* The limiter is told what the tier says, and what is set by hand. */
static void the_limiter_is_told_the_tier(void **state)
{
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    r.config.tier = "1";
    r.config.options.model = "gpt-4o";
    r.config.limits.requests_per_minute = 42;
    rig_client(&r);
    assert_int_equal(r.client->pool->config.limits.requests_per_minute, 42);
    assert_int_equal(r.client->pool->config.limits.tokens_per_minute, 30000);
    rig_end(&r);
}

static const char *limits_file(const char *text, size_t len)
{
    static char path[256];

    test_tmp_path(path, "limits.json");
    test_spit(path, text, len);
    return path;
}

static void a_file_goes_before_the_table(void **state)
{
    static const char text[] =
        "{\"as_of\":\"2026-11-24\",\"limits\":["
        "{\"tier\":\"2\",\"model\":\"gpt-4o\",\"requests_per_minute\":7,"
        "\"batch_queue_tokens\":0},"
        "{\"tier\":\"2\",\"model\":\"gpt-4o-m\",\"tokens_per_minute\":9},"
        "{\"tier\":\"2\",\"requests_per_day\":11},"
        "{\"tier\":\"gold\\u0021\",\"tokens_per_day\":13},"
        "{\"model\":\"own\",\"requests_per_minute\":17}]}";
    gptner_limits l;
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    r.config.limits_file = limits_file(text, sizeof text - 1);
    r.config.tier = "2";
    r.config.limits.tokens_per_day = 19;
    r.config.limits.requests_per_day = -1;
    rig_client(&r);
    gptner_limits_find(r.client, "2", "gpt-4o", &l, NULL);
    assert_int_equal(l.requests_per_minute, 7);
    assert_int_equal(l.tokens_per_minute, 450000); /* the table's */
    assert_int_equal(l.batch_queue_tokens, 0);     /* told: none */
    gptner_limits_find(r.client, "2", "gpt-4o-mini", &l, NULL);
    assert_int_equal(l.tokens_per_minute, 9);
    gptner_limits_find(r.client, "2", "other", &l, NULL);
    assert_int_equal(l.requests_per_day, 11);
    gptner_limits_find(r.client, "3", "own-model", &l, NULL);
    assert_int_equal(l.requests_per_minute, 17);
    assert_int_equal(gptner_limits_find(r.client, "gold!", "x", &l, NULL),
                     GPTNER_OK);
    assert_int_equal(l.tokens_per_day, 13);
    /* by hand goes before all */
    gpn_client_limits(r.client, "other", &l);
    assert_int_equal(l.tokens_per_day, 19);
    assert_int_equal(l.requests_per_day, 0);
    assert_int_equal(l.requests_per_minute, 5000);
    rig_end(&r);
    /* and a row of no tier is for an account that names none */
    r.config.limits_file = limits_file(text, sizeof text - 1);
    rig_client(&r);
    gpn_client_limits(r.client, "own", &l);
    assert_int_equal(l.requests_per_minute, 17);
    gpn_client_limits(r.client, "gpt-4o", &l);
    assert_int_equal(l.requests_per_minute, 0);
    rig_end(&r);
}

static void a_bad_file_is_named_with_the_place(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "line 1, column 1"},
        {"[]", "called \"limits\""},
        {"{\"limits\":1}", "called \"limits\""},
        {"{}", "called \"limits\""},
        {"{\"limits\":[1]}", "line 1, column 12: a limit is not an object"},
        {"{\"limits\":[{}]", "line 1, column"},
        {"{\"limits\":[\n{\"tier\":2}]}", "line 2, column 9: a tier"},
        {"{\"limits\":[{\"tier\":\"\"}]}", "a tier or model is not a name"},
        {"{\"limits\":[{\"model\":\"a\\u0000b\"}]}", "not a name"},
        {"{\"limits\":[{\"requests_per_minute\":-1}]}", "whole number"},
        {"{\"limits\":[{\"requests_per_minute\":1.5}]}", "whole number"},
        {"{\"limits\":[{\"tokens_per_day\":1e99}]}", "whole number"},
        {"{\"limits\":[{\"tokens_per_day\":null}]}", "whole number"},
        {"{\"limits\":[{\"tpm\":5}]}", "is not known"},
        {"{\"limits\":[]} x", "column 15"},
    };
    static const char good[] =
        "{\"limits\":[{\"tier\":\"2\",\"model\":\"a\"}]}";
    rig r;
    size_t i, n;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        memset(&r, 0, sizeof r);
        r.config.api_key = "k";
        r.config.limits_file =
            limits_file(cases[i].text, strlen(cases[i].text));
        assert_int_equal(gptner_client_new(&r.config, &r.client, &r.err),
                         GPTNER_ERR_CONFIG);
        assert_non_null(strstr(r.err.message, "limits.json"));
        if (strstr(r.err.message, cases[i].says) == NULL) {
            fail_msg("%s: %s", cases[i].text, r.err.message);
        }
    }
    r.config.limits_file = "/nowhere/limits.json";
    assert_int_equal(gptner_client_new(&r.config, &r.client, &r.err),
                     GPTNER_ERR_FILE);
    assert_non_null(strstr(r.err.message, "/nowhere/limits.json"));
    /* every cut of a good one is a bad one */
    for (n = 0; n <= strlen(good); n++) {
        r.config.limits_file = limits_file(good, n);
        assert_int_equal(gptner_client_new(&r.config, &r.client, &r.err),
                         n < strlen(good) ? GPTNER_ERR_CONFIG : GPTNER_OK);
    }
    rig_end(&r);
}

static void no_memory_for_limits_leaks_nothing(void **state)
{
    static const char text[] = "{\"limits\":[{\"tier\":\"a\",\"model\":\"b\"},"
                               "{\"tier\":\"c\"}]}";
    gptner_status status = GPTNER_ERR_NO_MEMORY;
    rig r;
    long n;

    (void)state;
    for (n = 1; status != GPTNER_OK; n++) {
        memset(&r, 0, sizeof r);
        r.config.api_key = "k";
        r.config.tier = "c";
        r.config.limits_file = limits_file(text, sizeof text - 1);
        r.config.allocator = test_mem_allocator(&r.memory);
        r.memory.fail_at = n;
        status = gptner_client_new(&r.config, &r.client, &r.err);
        assert_true(status == GPTNER_OK || status == GPTNER_ERR_NO_MEMORY);
        gptner_client_free(r.client);
        assert_int_equal(r.memory.blocks, 0);
    }
}

/* ---- figures ---- */

static void a_plan_has_the_figures_of_an_array(void **state)
{
    static const gptner_price price = {"m", 2.0, 0, 8.0, 0.5, false};
    const char **texts = texts_new(100);
    gptner_usage usage;
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    r.config.prices = &price;
    r.config.n_prices = 1;
    r.config.options.model = "m";
    r.config.limits.requests_per_minute = 60;
    rig_client(&r);
    texts[7] = texts[3];
    r.plan.run.texts = texts;
    r.plan.run.n_prompts = 100;
    r.plan.run.dedupe = true;
    r.plan.expected_completion_tokens = 20;
    rig_plan(&r);
    assert_int_equal(r.out.prompts, 100);
    assert_int_equal(r.out.requests, 100);
    assert_int_equal(r.out.equal, 1);
    assert_int_equal(r.out.bad, 0);
    assert_int_equal(r.out.completion_tokens, 2000);
    assert_int_equal(r.out.completion_tokens_max, 51200);
    assert_true(r.out.prompt_tokens > 1000 && r.out.prompt_tokens < 1800);
    memset(&usage, 0, sizeof usage);
    usage.prompt_tokens = r.out.prompt_tokens;
    usage.completion_tokens = 2000;
    assert_near(r.out.batch_usd, gptner_cost_usd(&price, &usage, true));
    assert_true(r.out.parallel_usd < 2 * r.out.batch_usd);
    assert_true(r.out.parallel_usd > 1.97 * r.out.batch_usd);
    assert_true(r.out.batch_usd_max > r.out.batch_usd);
    assert_int_equal(r.out.parallel_ms, 99000);
    assert_string_equal(r.out.parallel_bound, "the requests a minute");
    assert_int_equal(r.out.batches, 1);
    assert_int_equal(r.out.waves, 1);
    assert_int_equal(r.out.batch_ms, 86400000);
    assert_int_equal(r.out.advice, GPTNER_WAY_PARALLEL);
    texts[7] = texts[6] + 64; /* where it was */
    rig_end(&r);
    texts_free(texts);
}

static void a_price_that_is_not_known_is_told_so(void **state)
{
    static const char *const texts[] = {"a", "b"};
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    r.config.options.model = "nobody-knows";
    r.config.options.max_tokens = GPTNER_OMIT;
    rig_client(&r);
    r.plan.run.texts = texts;
    r.plan.run.n_prompts = 2;
    rig_plan(&r);
    assert_true(r.out.parallel_usd < 0 && r.out.batch_usd < 0);
    assert_true(r.out.parallel_usd_max < 0 && r.out.batch_usd_max < 0);
    assert_int_equal(r.out.completion_tokens_max, -1);
    rig_end(&r);
}

static void bad_lines_and_strangers_are_counted(void **state)
{
    static const char text[] =
        "{\"prompt\":\"one\"}\n\n"
        "not json\n"
        "{\"body\":{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\","
        "\"content\":\"hello\"}],\"max_tokens\":5}}\n";
    char path[256];
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    rig_client(&r);
    test_spit(test_tmp_path(path, "in.jsonl"), text, sizeof text - 1);
    r.plan.run.input_path = path;
    rig_plan(&r);
    assert_int_equal(r.out.prompts, 3);
    assert_int_equal(r.out.requests, 2);
    assert_int_equal(r.out.bad, 1);
    assert_int_equal(r.out.completion_tokens_max, 512 + 5);
    assert_non_null(strstr(r.out.batch_why, "another model"));
    assert_int_equal(r.out.advice, GPTNER_WAY_PARALLEL);
    assert_string_equal(r.out.parallel_why, "");
    r.plan.run.input_path = "/nowhere/in.txt";
    assert_int_equal(gptner_plan_run(r.client, &r.plan, &r.out, &r.err),
                     GPTNER_ERR_FILE);
    assert_int_equal(r.out.prompts, 0);
    rig_end(&r);
}

static void what_only_a_batch_sends_goes_by_batch(void **state)
{
    gptner_prompt prompt;
    rig r;

    (void)state;
    memset(&prompt, 0, sizeof prompt);
    memset(&r, 0, sizeof r);
    r.config.options.model = "text-embedding-3-small";
    rig_client(&r);
    prompt.text = gptner_str_from("embed me");
    r.plan.run.prompts = &prompt;
    r.plan.run.n_prompts = 1;
    rig_plan(&r);
    assert_int_equal(r.out.advice, GPTNER_WAY_BATCH);
    assert_non_null(strstr(r.out.why, "/v1/embeddings"));
    assert_int_equal(r.out.completion_tokens, 0);
    /* neither way: the reason is there all the same */
    r.plan.run.output_path = "-";
    rig_plan(&r);
    assert_non_null(strstr(r.out.parallel_why, "/v1/embeddings"));
    assert_non_null(strstr(r.out.batch_why, "output file"));
    rig_end(&r);
}

static int count_down(gptner_prompt *prompt, gptner_error *err, void *user)
{
    int *left = (int *)user;

    (void)err;
    prompt->text = gptner_str_from("again");
    return (*left)-- > 0;
}

static void an_iterator_is_used_up(void **state)
{
    int left = 12;
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    rig_client(&r);
    r.plan.run.next_fn = count_down;
    r.plan.run.next_user = &left;
    rig_plan(&r);
    assert_int_equal(r.out.requests, 12);
    assert_int_equal(left, -1);
    r.plan.sample = 1;
    assert_int_equal(gptner_plan_run(r.client, &r.plan, &r.out, &r.err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_auto_run(r.client, &r.plan, NULL, &r.err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    left = -1;
    r.plan.sample = 0;
    rig_plan(&r); /* nothing at all */
    assert_int_equal(r.out.requests, 0);
    assert_int_equal(r.out.batches, 0);
    rig_end(&r);
}

/* As many as gptner_batch_create_file() makes. */
static void batches_are_counted_as_they_are_written(void **state)
{
    static const struct {
        int64_t requests, bytes, tokens, queue;
    } cases[] = {{0, 0, 0, 0},   {7, 0, 0, 0},   {0, 1000, 0, 0},
                 {0, 0, 300, 0}, {5, 0, 0, 400}, {0, 0, 0, 290}};
    const char **texts = texts_new(64);
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gptner_batch_files *files = NULL;
        gptner_batch_create_config create;
        char path[256];
        rig r;

        memset(&r, 0, sizeof r);
        r.config.limits.batch_queue_tokens = cases[i].queue;
        rig_client(&r);
        r.plan.run.texts = texts;
        r.plan.run.n_prompts = 64;
        r.plan.job.source.max_requests = cases[i].requests;
        r.plan.job.source.max_bytes = cases[i].bytes;
        r.plan.job.source.max_tokens = cases[i].tokens;
        rig_plan(&r);
        create = r.plan.job.source;
        create.texts = texts;
        create.n_prompts = 64;
        create.output_path = test_tmp_path(path, "b.jsonl");
        if (gptner_batch_create_file(r.client, &create, &files, &r.err) !=
            GPTNER_OK) {
            fail_msg("%s", r.err.message);
        }
        assert_int_equal(r.out.batches, files->count);
        assert_true(cases[i].queue > 0 ? r.out.waves > 1 : r.out.waves == 1);
        gptner_batch_files_free(files);
        rig_end(&r);
    }
    texts_free(texts);
}

static void no_memory_for_a_plan_leaks_nothing(void **state)
{
    static const char *const texts[] = {"a", "b", "c"};
    gptner_status status = GPTNER_ERR_NO_MEMORY;
    rig r;
    long n;

    (void)state;
    memset(&r, 0, sizeof r);
    r.config.allocator = test_mem_allocator(&r.memory);
    rig_client(&r);
    r.plan.run.texts = texts;
    r.plan.run.n_prompts = 3;
    r.plan.run.dedupe = true;
    for (n = 1; status != GPTNER_OK; n++) {
        long before = r.memory.blocks;
        r.memory.calls = 0;
        r.memory.fail_at = n;
        status = gptner_plan_run(r.client, &r.plan, &r.out, &r.err);
        assert_true(status == GPTNER_OK || status == GPTNER_ERR_NO_MEMORY);
        assert_int_equal(r.out.requests, status == GPTNER_OK ? 3 : 0);
        assert_int_equal(r.memory.blocks, before);
    }
    r.memory.fail_at = 0;
    rig_end(&r);
}

/* ---- advice ---- */

static void advice_follows_its_rules(void **state)
{
    enum { HOUR = 3600000, DAY = 86400000 };
    static const struct {
        int64_t requests, waves, parallel_ms;
        double usd, budget;
        bool no_parallel, no_batch, batch;
        const char *says;
    } cases[] = {
        {100, 1, 5000, 0.1, 0, false, false, false, "fewer than 10,000"},
        {9999, 1, 5000, 0.1, 0, false, false, false, "fewer than 10,000"},
        {9999, 1, 5000, -1, 0, false, false, false, "an unknown sum"},
        {10000, 1, 5000, 0.1, 0, false, false, true, "10,000 or more"},
        {10000, 1, 5000, -1, 0, false, false, true, "an unknown sum"},
        {10000, 1, 5000, 0.1, 0, false, true, false, "not possible"},
        {500, 1, 5000, 20, 0, false, false, true, "$10.00 less"},
        {500, 1, 5000, 19, 0, false, false, false, "would save $9.50"},
        {500, 1, 2 * (int64_t)DAY, 1, 0, false, false, true, "2 days"},
        {10000, 3, HOUR, 1, 0, false, false, false, "3 turns"},
        {10000, 3, 2 * (int64_t)DAY, 1, 0, false, false, true, "10,000"},
        {10000, 3, HOUR, 30, 0, false, false, true, "$15.00 less"},
        {10000, 9, 3 * (int64_t)DAY, 30, 0, false, false, false, "9 turns"},
        {500, 1, 5000, 1, 0.6, false, false, true, "only a batch fits"},
        {500, 1, 5000, 1, 0.4, false, false, false, "fewer"},
        {500, 1, 5000, 1, 2, false, false, false, "fewer"},
        {500, 1, 5000, -1, 2, false, false, false, "fewer"},
        {500, 1, 5000, 1, 0.6, false, true, false, "not possible"},
        {500, 1, 5000, 1, 0, true, false, true, "shut"},
        {500, 1, 5000, 1, 0, true, true, false, "not possible"}};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gptner_plan p;
        memset(&p, 0, sizeof p);
        p.requests = cases[i].requests;
        p.batches = p.waves = cases[i].waves;
        p.batch_ms = p.waves * DAY;
        p.parallel_ms = cases[i].parallel_ms;
        p.parallel_usd = cases[i].usd;
        p.batch_usd = cases[i].usd < 0 ? -1 : cases[i].usd / 2;
        strcpy(p.parallel_why, cases[i].no_parallel ? "it is shut" : "");
        strcpy(p.batch_why, cases[i].no_batch ? "it is shut" : "");
        gpn_plan_advise(&p, cases[i].budget);
        if ((p.advice == GPTNER_WAY_BATCH) != cases[i].batch ||
            strstr(p.why, cases[i].says) == NULL) {
            fail_msg("case %zu: %d, %s", i, (int)p.advice, p.why);
        }
    }
}

static void the_limit_that_binds_is_named(void **state)
{
    static const struct {
        gptner_limits limits;
        int workers;
        int64_t ms;
        const char *bound;
    } cases[] = {
        {{0, 0, 0, 0, 0}, 0, 10000, "max_workers"},
        {{0, 0, 0, 0, 0}, 50, 2000, "max_workers"},
        {{50, 0, 0, 0, 0}, 0, 120000, "the requests a minute"},
        {{50, 1000, 0, 0, 0}, 0, 300000, "the tokens a minute"},
        {{50, 1000, 50, 0, 0}, 0, 86400000, "the requests a day"},
        {{50, 1000, 50, 1000, 0}, 0, 345600000, "the tokens a day"},
        {{5000, 0, 100, 0, 0}, -1, 2546, "the latency (of 64 workers)"}};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gptner_client client;
        gptner_plan_config cfg;
        gptner_plan plan;
        gpn_planner pl;

        memset(&client, 0, sizeof client);
        memset(&cfg, 0, sizeof cfg);
        memset(&plan, 0, sizeof plan);
        memset(&pl, 0, sizeof pl);
        pl.client = &client;
        pl.cfg = &cfg;
        pl.plan = &plan;
        cfg.run.max_workers = cases[i].workers;
        cfg.expected_latency_ms = 1000;
        plan.limits = cases[i].limits;
        plan.requests = 100;
        plan.prompt_tokens = 3000;
        plan.completion_tokens = 2000;
        plan.prompt_tokens_largest = 900;
        gpn_planner_time(&pl);
        assert_string_equal(plan.parallel_bound, cases[i].bound);
        assert_int_equal(plan.parallel_ms, cases[i].ms);
        assert_string_equal(plan.parallel_why, "");
        plan.limits.tokens_per_minute = 899;
        gpn_planner_time(&pl);
        assert_non_null(strstr(plan.parallel_why, "899 tokens a minute"));
    }
}

/* ---- a sample ---- */

static void a_line_is_fitted_to_the_sample(void **state)
{
    gpn_fit f;
    int i;

    (void)state;
    memset(&f, 0, sizeof f);
    assert_near(gpn_fit_at(&f, 7), 7.0);
    for (i = 0; i < 5; i++) {
        double x = i, y = 3 + 2 * i;
        f.n += 1;
        f.x += x;
        f.y += y;
        f.xx += x * x;
        f.xy += x * y;
    }
    assert_near(gpn_fit_at(&f, 100), 203.0);
    memset(&f, 0, sizeof f);
    f.n = 4;
    f.x = 40;
    f.y = 12;
    f.xx = 400;
    f.xy = 120;
    assert_near(gpn_fit_at(&f, 1000), 3.0); /* one x alone: their mean */
}

/* Estimated and real cost, of prompts of many lengths. */
static void sample_against(const char *reply, int words)
{
    const char *texts[120];
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_price price;
    gptner_usage usage;
    size_t i;
    rig r;
    double cost;

    memset(&r, 0, sizeof r);
    memset(&run, 0, sizeof run);
    rig_serve(&r, reply);
    for (i = 0; i < TEST_COUNT(texts); i++) {
        size_t n = (i * 37 % 50 + 1) * (size_t)words;
        char *text = (char *)malloc(n * 12 + 16);
        size_t len = (size_t)sprintf(text, "%zu", i);
        while (n-- > 0) {
            len += (size_t)sprintf(text + len, " %s",
                                   n % 3 ? "river" : "landscape");
        }
        texts[i] = text;
    }
    r.plan.run.texts = run.texts = texts;
    r.plan.run.n_prompts = run.n_prompts = TEST_COUNT(texts);
    r.plan.sample = 12;
    rig_plan(&r);
    assert_int_equal(mock_server_count(r.mock, "responses.200"), 12);
    assert_int_equal(r.out.sampled, 12);
    assert_int_equal(r.out.requests, 120);
    assert_true(r.out.sample_usd > 0);
    if (gptner_run(r.client, &run, &sum, &r.err) != GPTNER_OK) {
        fail_msg("%s", r.err.message);
    }
    memset(&usage, 0, sizeof usage);
    usage.prompt_tokens = sum.prompt_tokens;
    usage.completion_tokens = sum.completion_tokens;
    gptner_price_find(NULL, "gpt-4o-mini", &price, NULL);
    cost = gptner_cost_usd(&price, &usage, false);
    print_message("%s: estimated %f, actual %f (%.1f%%)\n", reply,
                  r.out.parallel_usd, cost,
                  100 * (r.out.parallel_usd / cost - 1));
    assert_true(r.out.parallel_usd > 0.95 * cost);
    assert_true(r.out.parallel_usd < 1.05 * cost);
    assert_true(r.out.parallel_usd_max > cost);
    for (i = 0; i < TEST_COUNT(texts); i++) {
        free((void *)(uintptr_t)texts[i]);
    }
    rig_end(&r);
}

static void a_sample_tells_the_cost_of_answers(void **state)
{
    (void)state;
    sample_against("echo", 1);
    sample_against("hash", 1);
    sample_against("echo", 40); /* most are cut at 512 tokens */
    sample_against("hash", 40);
}

static void a_sample_that_is_refused_fails_the_plan(void **state)
{
    static const char *const texts[] = {"a", "b", "c"};
    char why[128];
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    rig_serve(&r, "echo");
    assert_true(mock_server_fault(r.mock, "401:1", why, sizeof why));
    r.plan.run.texts = texts;
    r.plan.run.n_prompts = 3;
    r.plan.sample = 2;
    assert_int_equal(gptner_plan_run(r.client, &r.plan, &r.out, &r.err),
                     GPTNER_ERR_AUTH);
    assert_int_equal(r.out.requests, 0);
    rig_end(&r);
}

/* ---- auto ---- */

typedef struct seen {
    int plans;
    size_t results;
    bool refuse;
} seen;

static bool see_plan(const gptner_plan *plan, void *user)
{
    seen *s = (seen *)user;

    s->plans++;
    return plan->requests > 0 && !s->refuse;
}

static bool see_result(const gptner_result *result, void *user)
{
    seen *s = (seen *)user;

    return result->index == s->results++;
}

static gptner_status auto_run(rig *r, seen *s, gptner_auto_summary *sum)
{
    memset(s, 0, sizeof *s);
    r->plan.plan_fn = see_plan;
    r->plan.plan_user = s;
    r->plan.run.result_fn = see_result;
    r->plan.run.result_user = s;
    r->plan.job.poll_ms = 1000;
    return gptner_auto_run(r->client, &r->plan, sum, &r->err);
}

static void both_ways_give_the_same_file(void **state)
{
    const char **texts = texts_new(40);
    gptner_auto_summary sum;
    char one[256], two[256];
    char *a, *b;
    size_t len_a, len_b;
    seen s;
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    rig_serve(&r, "hash");
    r.plan.run.texts = texts;
    r.plan.run.n_prompts = 40;
    r.plan.run.output_path = test_tmp_path(one, "parallel.txt");
    assert_int_equal(auto_run(&r, &s, &sum), GPTNER_OK);
    assert_int_equal(sum.way, GPTNER_WAY_PARALLEL);
    assert_false(sum.resumed);
    assert_int_equal(sum.run.ok, 40);
    assert_int_equal(s.results, 40);
    assert_int_equal(s.plans, 1);
    assert_int_equal(mock_server_count(r.mock, "batches_created"), 0);
    r.plan.run.output_path = test_tmp_path(two, "batch.txt");
    r.plan.expected_latency_ms = 86400000; /* of ten workers: four days */
    assert_int_equal(auto_run(&r, &s, &sum), GPTNER_OK);
    assert_int_equal(sum.way, GPTNER_WAY_BATCH);
    assert_int_equal(sum.job.results.ok, 40);
    assert_int_equal(s.results, 40);
    assert_int_equal(mock_server_count(r.mock, "batches_created"), 1);
    a = test_slurp(one, &len_a);
    b = test_slurp(two, &len_b);
    assert_int_equal(len_a, len_b);
    assert_memory_equal(a, b, len_a);
    free(a);
    free(b);
    /* the job's journal is there: by batch, whatever a plan would say */
    r.plan.expected_latency_ms = 0;
    assert_int_equal(auto_run(&r, &s, &sum), GPTNER_OK);
    assert_int_equal(sum.way, GPTNER_WAY_BATCH);
    assert_true(sum.resumed && sum.job.was_done);
    assert_int_equal(s.plans, 0);
    rig_end(&r);
    texts_free(texts);
}

static void plan_fn_may_leave_it_at_that(void **state)
{
    static const char *const texts[] = {"a"};
    gptner_auto_summary sum;
    seen s;
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    memset(&s, 0, sizeof s);
    rig_client(&r);
    s.refuse = true;
    r.plan.run.texts = texts;
    r.plan.run.n_prompts = 1;
    r.plan.plan_fn = see_plan;
    r.plan.plan_user = &s;
    assert_int_equal(gptner_auto_run(r.client, &r.plan, &sum, &r.err),
                     GPTNER_ERR_CANCELLED);
    assert_int_equal(sum.plan.requests, 1);
    assert_int_equal(sum.run.total, 0);
    rig_end(&r);
}

/* A tier is told: the job keeps to its queue by itself. */
static void a_job_keeps_to_the_queue_of_the_tier(void **state)
{
    const char **texts = texts_new(40);
    static const char limits[] =
        "{\"limits\":[{\"tier\":\"tiny\",\"batch_queue_tokens\":900}]}";
    gptner_job_config job;
    gptner_job_summary sum;
    char path[256], file[256];
    rig r;

    (void)state;
    memset(&r, 0, sizeof r);
    memset(&job, 0, sizeof job);
    test_spit(test_tmp_path(file, "tiny.json"), limits, sizeof limits - 1);
    r.config.tier = "tiny";
    r.config.limits_file = file;
    rig_serve(&r, "hash");
    job.source.texts = texts;
    job.source.n_prompts = 40;
    job.output_path = test_tmp_path(path, "queue.txt");
    job.poll_ms = 1000;
    r.plan.run.texts = texts;
    r.plan.run.n_prompts = 40;
    rig_plan(&r);
    assert_true(r.out.batches > 1);
    assert_int_equal(r.out.waves, r.out.batches);
    if (gptner_job_run(r.client, &job, &sum, &r.err) != GPTNER_OK) {
        fail_msg("%s", r.err.message);
    }
    assert_int_equal(sum.results.ok, 40);
    assert_int_equal(sum.batches, r.out.batches);
    rig_end(&r);
    texts_free(texts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiers_have_their_limits),
        cmocka_unit_test(an_unknown_tier_is_refused),
        cmocka_unit_test(the_limiter_is_told_the_tier),
        cmocka_unit_test(a_file_goes_before_the_table),
        cmocka_unit_test(a_bad_file_is_named_with_the_place),
        cmocka_unit_test(no_memory_for_limits_leaks_nothing),
        cmocka_unit_test(a_plan_has_the_figures_of_an_array),
        cmocka_unit_test(a_price_that_is_not_known_is_told_so),
        cmocka_unit_test(bad_lines_and_strangers_are_counted),
        cmocka_unit_test(what_only_a_batch_sends_goes_by_batch),
        cmocka_unit_test(an_iterator_is_used_up),
        cmocka_unit_test(batches_are_counted_as_they_are_written),
        cmocka_unit_test(no_memory_for_a_plan_leaks_nothing),
        cmocka_unit_test(advice_follows_its_rules),
        cmocka_unit_test(the_limit_that_binds_is_named),
        cmocka_unit_test(a_line_is_fitted_to_the_sample),
        cmocka_unit_test(a_sample_tells_the_cost_of_answers),
        cmocka_unit_test(a_sample_that_is_refused_fails_the_plan),
        cmocka_unit_test(both_ways_give_the_same_file),
        cmocka_unit_test(plan_fn_may_leave_it_at_that),
        cmocka_unit_test(a_job_keeps_to_the_queue_of_the_tier)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
