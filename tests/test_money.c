/* The money side: prices, what requests cost, and budgets that nothing
 * exceeds, whatever the server does; the budgets in virtual time against the
 * mock server in this process, which counts on its own. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

#include <math.h>

#define assert_near(a, b) assert_true(fabs((a) - (b)) <= 1e-12 + 1e-9 * fabs(b))

static gptner_client *client_of(const gptner_config *more)
{
    gptner_config cfg;
    gptner_client *c = NULL;
    gptner_error err;
    memset(&cfg, 0, sizeof cfg);
    if (more != NULL) {
        cfg = *more;
    }
    cfg.api_key = "sk-test-0123456789";
    if (gptner_client_new(&cfg, &c, &err) != GPTNER_OK) {
        fail_msg("client: %s", err.message);
    }
    return c;
}

/* ---- prices -------------------------------------------------------------- */

static void models_have_the_price_of_the_table_or_none(void **state)
{
    static const struct {
        const char *model;
        double input, cached, output; /* input below 0: unknown */
        bool long_context;
    } cases[] = {{"gpt-4o-mini", 0.15, 0.075, 0.6, false},
                 {"gpt-4o-mini-2024-07-18", 0.15, 0.075, 0.6, false},
                 {"openai/gpt-4o-mini", 0.15, 0.075, 0.6, false},
                 {"ft:gpt-4o-mini-2024-07-18:org::id", 0.15, 0.075, 0.6, false},
                 {"ft:gpt-4o-mini", 0.15, 0.075, 0.6, false},
                 {"openai/ft:gpt-4.1-nano:x", 0.1, 0.025, 0.4, false},
                 {"gpt-4o", 2.5, 1.25, 10, false},
                 {"gpt-4o-2024-08-06", 2.5, 1.25, 10, false},
                 {"gpt-6.1-terra", 1, 0.05, 5, true},
                 {"gpt-6-luna-2026-09-22", 0.1, 0.01, 0.5, true},
                 {"gpt-5.6-luna", 0.2, 0.02, 1.2, true},
                 {"gpt-5", 1.25, 0.125, 10, false},
                 {"o3", 2, 0.5, 8, false},
                 {"gpt-3.5-turbo", 0.5, 0.5, 1.5, false},
                 {"gpt-3.5-turbo-instruct", 1.5, 1.5, 2, false},
                 {"text-embedding-3-small", 0.02, 0.02, 0, false},
                 {"gpt-4o-audio-preview", -1, 0, 0, false},
                 {"gpt-4o-realtime-preview-2024-12-17", -1, 0, 0, false},
                 {"gpt-4o-mini-tts", -1, 0, 0, false},
                 {"gpt-4omni", -1, 0, 0, false},
                 {"gpt-5-pro", -1, 0, 0, false},
                 {"o3-mini", -1, 0, 0, false},
                 {"gpt-6", -1, 0, 0, false},
                 {"gpt-4o-mini-2024-7-18", -1, 0, 0, false},
                 {"gpt-4o-mini-2024-07-1x", -1, 0, 0, false},
                 {"-2024-07-18", -1, 0, 0, false},
                 {"ft:", -1, 0, 0, false},
                 {"openai/", -1, 0, 0, false},
                 {"", -1, 0, 0, false},
                 {"llama3:8b", -1, 0, 0, false}};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gptner_price p;
        gptner_error err;
        gptner_status status =
            gptner_price_find(NULL, cases[i].model, &p, &err);
        if (cases[i].input < 0) {
            assert_int_equal(status, GPTNER_ERR_NOT_FOUND);
            assert_null(p.model);
            continue;
        }
        if (status != GPTNER_OK) {
            fail_msg("%s", err.message);
        }
        assert_near(p.input, cases[i].input);
        assert_near(p.cached, cases[i].cached);
        assert_near(p.output, cases[i].output);
        assert_near(p.batch_factor, 0.5);
        assert_int_equal(p.long_context, cases[i].long_context);
    }
    assert_int_equal(gptner_price_find(NULL, NULL, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
}

static void assert_price(const gptner_client *c, const char *model, double want)
{
    gptner_price p;
    gptner_status status = gptner_price_find(c, model, &p, NULL);
    if (want < 0) {
        assert_int_equal(status, GPTNER_ERR_NOT_FOUND);
    } else {
        assert_int_equal(status, GPTNER_OK);
        assert_near(p.input, want);
    }
}

static void
rows_of_the_config_go_first_then_the_file_then_the_table(void **state)
{
    static const char file[] =
        "{\"as_of\":\"2026-11-24\",\"prices\":[\n"
        " {\"model\":\"gpt-4o-mini\",\"input\":7,\"output\":7},\n"
        " {\"model\":\"gpt-5\",\"input\":8,\"cached\":0.5,\"output\":9,"
        "\"batch_factor\":0.25,\"long_context\":true},\n"
        " {\"model\":\"house\",\"input\":0,\"output\":0}]}";
    gptner_price rows[5];
    gptner_config cfg;
    gptner_client *c;
    gptner_price p;
    char path[256];
    (void)state;
    memset(rows, 0, sizeof rows);
    memset(&cfg, 0, sizeof cfg);
    rows[0].model = "gpt-4o";
    rows[0].input = 1;
    rows[1].model = "gpt-4o-audio";
    rows[1].input = 2;
    rows[2].model = "ft:gpt-4o";
    rows[2].input = 3;
    rows[3].model = "gpt-4.1";
    rows[3].input = -1; /* told to be unknown */
    rows[4].model = "gpt-4o-2024-05-13";
    rows[4].input = 5;
    cfg.prices = rows;
    cfg.n_prices = 5;
    cfg.prices_file = test_tmp_path(path, "prices.json");
    test_spit(path, file, sizeof file - 1);
    c = client_of(&cfg);
    memset(rows, 0x55, sizeof rows); /* they were copied */
    remove(path);
    assert_price(c, "gpt-4o", 1);
    assert_price(c, "gpt-4o-mini", 1); /* begins so, and the config is first */
    assert_price(c, "gpt-4o-audio-preview", 2);
    assert_price(c, "openai/gpt-4o-audio", 2);
    assert_price(c, "gpt-4omni", -1);
    assert_price(c, "ft:gpt-4o-mini-2024-07-18:org::id", 3);
    assert_price(c, "gpt-4.1-mini", -1);
    assert_price(c, "gpt-4o-2024-05-13", 5);
    assert_price(c, "gpt-4o-2024-08-06", 1);
    assert_price(c, "gpt-5-pro", 8);
    assert_price(c, "house", 0);
    assert_price(c, "o3", 2);
    assert_int_equal(gptner_price_find(c, "gpt-5", &p, NULL), GPTNER_OK);
    assert_near(p.cached, 0.5);
    assert_near(p.batch_factor, 0.25);
    assert_true(p.long_context);
    assert_string_equal(p.model, "gpt-5");
    gptner_client_free(c);
}

static void a_bad_file_of_prices_is_refused_with_its_place(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "line 1"},
        {"[]", "is not an object"},
        {"{}", "no array called"},
        {"{\"prices\":{}}", "no array called"},
        {"{\"prices\":[7]}", "line 1, column 12: a price is not an object"},
        {"{\"prices\":[\n{\"model\":\"a\"}]}",
         "line 2, column 1: a price lacks"},
        {"{\"prices\":[{\"input\":1}]}", "a price lacks"},
        {"{\"prices\":[{\"model\":\"a\",\"input\":1}]}", "or output"},
        {"{\"prices\":[{\"model\":\"a\",\"input\":\"1\"}]}", "not a number"},
        {"{\"prices\":[{\"model\":\"a\",\"input\":-1}]}", "not a number"},
        {"{\"prices\":[{\"model\":\"a\",\"input\":1e9}]}", "not a number"},
        {"{\"prices\":[{\"model\":\"a\",\"input\":1,\"output\":1,\"batch_"
         "factor\":11}]}",
         "batch_factor"},
        {"{\"prices\":[{\"model\":\"\",\"input\":1}]}", "model is not a name"},
        {"{\"prices\":[{\"model\":\"a\\u0000b\",\"input\":1}]}",
         "model is not a name"},
        {"{\"prices\":[{\"model\":3,\"input\":1}]}", "model is not a name"},
        {"{\"prices\":[{\"model\":\"a\",\"imput\":1}]}", "is not known"},
        {"{\"prices\":[{\"model\":\"a\",\"input\":1,\"long_context\":1}]}",
         "neither true nor false"},
        {"{\"prices\":[{\"model\":\"a\",\"input\":1,\"output\":2}]} x",
         "more text"},
        {"{\"prices\":[{\"model\":\"a\",\"input\":1,\"output\":1}",
         "too early"}};
    char path[256];
    gptner_config cfg;
    gptner_client *c;
    gptner_error err;
    size_t i;
    (void)state;
    memset(&cfg, 0, sizeof cfg);
    cfg.api_key = "sk-test-0123456789";
    cfg.prices_file = test_tmp_path(path, "bad.json");
    for (i = 0; i < TEST_COUNT(cases); i++) {
        test_spit(path, cases[i].text, strlen(cases[i].text));
        assert_int_equal(gptner_client_new(&cfg, &c, &err), GPTNER_ERR_CONFIG);
        assert_null(c);
        if (strstr(err.message, cases[i].says) == NULL ||
            strstr(err.message, path) == NULL) {
            fail_msg("%s: %s", cases[i].text, err.message);
        }
    }
    remove(path);
    assert_int_equal(gptner_client_new(&cfg, &c, &err), GPTNER_ERR_FILE);
    assert_non_null(strstr(err.message, path));
}

static void any_cut_of_a_file_of_prices_is_refused(void **state)
{
    static const char file[] =
        "{\"as_of\":\"x\",\"prices\":[{\"model\":\"a\\u0062\",\"input\":0.15,"
        "\"cached\":7.5e-2,\"output\":1},{\"model\":\"b\",\"input\":1,"
        "\"output\":1}]}";
    char path[256];
    gptner_config cfg;
    gptner_client *c;
    size_t n;
    (void)state;
    memset(&cfg, 0, sizeof cfg);
    cfg.api_key = "sk-test-0123456789";
    cfg.prices_file = test_tmp_path(path, "cut.json");
    for (n = 0; n < sizeof file - 1; n++) {
        test_spit(path, file, n);
        assert_int_equal(gptner_client_new(&cfg, &c, NULL), GPTNER_ERR_CONFIG);
    }
    test_spit(path, file, sizeof file - 1);
    c = client_of(&cfg);
    assert_price(c, "ab", 0.15);
    gptner_client_free(c);
}

static void prices_that_are_none_are_refused(void **state)
{
    static const double bad[] = {NAN, INFINITY, 1000001.0};
    gptner_price row;
    gptner_config cfg;
    gptner_client *c;
    size_t i, k;
    (void)state;
    memset(&cfg, 0, sizeof cfg);
    cfg.api_key = "sk-test-0123456789";
    cfg.prices = &row;
    cfg.n_prices = 1;
    for (i = 0; i < TEST_COUNT(bad); i++) {
        for (k = 0; k < 4; k++) {
            memset(&row, 0, sizeof row);
            row.model = "m";
            *(k == 0   ? &row.input
              : k == 1 ? &row.cached
              : k == 2 ? &row.output
                       : &row.batch_factor) = bad[i];
            assert_int_equal(gptner_client_new(&cfg, &c, NULL),
                             GPTNER_ERR_CONFIG);
        }
    }
    memset(&row, 0, sizeof row);
    assert_int_equal(gptner_client_new(&cfg, &c, NULL), GPTNER_ERR_CONFIG);
    cfg.prices = NULL;
    assert_int_equal(gptner_client_new(&cfg, &c, NULL), GPTNER_ERR_CONFIG);
}

/* ---- costs --------------------------------------------------------------- */

static gptner_usage usage_of(int64_t prompt, int64_t cached, int64_t completion)
{
    gptner_usage u;
    memset(&u, 0xff, sizeof u);
    u.prompt_tokens = prompt;
    u.cached_tokens = cached;
    u.completion_tokens = completion;
    return u;
}

static void a_usage_costs_what_the_formula_says(void **state)
{
    gptner_price p;
    gptner_usage u;
    uint64_t seed = 5;
    int i;
    (void)state;
    assert_int_equal(gptner_price_find(NULL, "gpt-4o-mini", &p, NULL),
                     GPTNER_OK);
    for (i = 0; i < 10000; i++) {
        int64_t prompt, cached, completion;
        double want;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        prompt = (int64_t)(seed >> 40) % 1000000;
        cached = (int64_t)(seed >> 20 & 0xfffff) % (prompt + 1);
        completion = (int64_t)(seed >> 13 & 0xffff);
        u = usage_of(prompt, cached, completion);
        want = ((double)(prompt - cached) * 0.15 + (double)cached * 0.075 +
                (double)completion * 0.6) /
               1e6;
        assert_near(gptner_cost_usd(&p, &u, false), want);
        assert_near(gptner_cost_usd(&p, &u, true), want / 2);
    }
    /* exact, to the last digit */
    u = usage_of(19, 0, 10);
    assert_true(gptner_cost_usd(&p, &u, false) == 8.85e-6);
    assert_true(gptner_cost_usd(&p, &u, true) == 4.425e-6);
}

static void long_prompts_cost_more_where_the_model_has_that(void **state)
{
    gptner_price p;
    gptner_usage u = usage_of(272000, 1000, 100);
    double base;
    (void)state;
    assert_int_equal(gptner_price_find(NULL, "gpt-5.4", &p, NULL), GPTNER_OK);
    base = (271000 * 2.5 + 1000 * 0.25 + 100 * 15) / 1e6;
    assert_near(gptner_cost_usd(&p, &u, false), base);
    u = usage_of(272001, 1000, 100);
    base = ((271001 * 2.5 + 1000 * 0.25) * 2 + 100 * 15 * 1.5) / 1e6;
    assert_near(gptner_cost_usd(&p, &u, false), base);
    assert_int_equal(gptner_price_find(NULL, "gpt-4.1", &p, NULL), GPTNER_OK);
    base = (271001 * 2 + 1000 * 0.5 + 100 * 8) / 1e6;
    assert_near(gptner_cost_usd(&p, &u, false), base);
}

static void what_is_not_known_costs_minus_one(void **state)
{
    gptner_price p;
    gptner_usage u = usage_of(10, 0, 10);
    (void)state;
    assert_int_equal(gptner_price_find(NULL, "gpt-4o", &p, NULL), GPTNER_OK);
    assert_true(gptner_cost_usd(NULL, &u, false) < 0);
    assert_true(gptner_cost_usd(&p, NULL, false) < 0);
    u.completion_tokens = -1;
    assert_true(gptner_cost_usd(&p, &u, false) < 0);
    u = usage_of(-1, 0, 10);
    assert_true(gptner_cost_usd(&p, &u, false) < 0);
    p.input = NAN;
    u = usage_of(10, 0, 10);
    assert_true(gptner_cost_usd(&p, &u, false) < 0);
    /* embeddings have no output, and cost none */
    assert_int_equal(
        gptner_price_find(NULL, "text-embedding-3-large", &p, NULL), GPTNER_OK);
    u = usage_of(1000, -1, -1);
    assert_near(gptner_cost_usd(&p, &u, false), 0.00013);
}

static void absurd_usages_do_not_overflow(void **state)
{
    static const int64_t counts[] = {
        0, 1, INT64_MAX, 1 << 30, INT64_MAX - 1, INT64_MAX / 3};
    gptner_price p;
    size_t a, b, c;
    (void)state;
    memset(&p, 0, sizeof p);
    p.model = "m";
    p.input = p.output = 1e6;
    p.batch_factor = 10;
    p.long_context = true;
    for (a = 0; a < TEST_COUNT(counts); a++) {
        for (b = 0; b < TEST_COUNT(counts); b++) {
            for (c = 0; c < TEST_COUNT(counts); c++) {
                gptner_usage u = usage_of(counts[a], counts[b], counts[c]);
                assert_true(gptner_cost_usd(&p, &u, true) >= 0);
            }
        }
    }
}

static void sums_are_written_for_people(void **state)
{
    static const struct {
        int64_t money;
        const char *text;
    } cases[] = {{0, "$0.00"},
                 {INT64_C(1000000000000), "$1.00"},
                 {INT64_C(12300000000), "$0.0123"},
                 {INT64_C(10000000000), "$0.01"},
                 {INT64_C(123000000), "$0.000123"},
                 {INT64_C(1), "$0.000000"},
                 {INT64_C(999960000000), "$1.0000"},
                 {INT64_C(1234567890123456), "$1234.5679"}};
    char text[32];
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gpn_money_text(text, sizeof text, cases[i].money);
        assert_string_equal(text, cases[i].text);
    }
    gpn_money_text(text, sizeof text, GPN_MONEY_MAX);
}

/* ---- the purse ----------------------------------------------------------- */

static gpn_bill bill_of(int64_t worst)
{
    gpn_bill b;
    memset(&b, 0, sizeof b);
    b.worst = worst;
    b.weighed = true;
    return b;
}

static void who_waits_for_money_is_served_in_order(void **state)
{
    gpn_purse p;
    gpn_bill a = bill_of(60), big = bill_of(90), small = bill_of(10);
    bool wake;
    (void)state;
    assert_true(gpn_purse_init(&p, 100));
    assert_int_equal(gpn_purse_take(&p, &a, &wake), GPN_PURSE_YES);
    assert_int_equal(gpn_purse_take(&p, &big, &wake), GPN_PURSE_WAIT);
    /* it would fit, but the big one was there before */
    assert_int_equal(gpn_purse_take(&p, &small, &wake), GPN_PURSE_WAIT);
    assert_true(gpn_purse_pay(&p, &a, 5));
    assert_int_equal(gpn_purse_take(&p, &small, &wake), GPN_PURSE_WAIT);
    assert_int_equal(gpn_purse_take(&p, &big, &wake), GPN_PURSE_YES);
    assert_true(wake);
    /* 5 are spent, 90 set aside */
    assert_int_equal(gpn_purse_take(&p, &small, &wake), GPN_PURSE_WAIT);
    assert_true(gpn_purse_pay(&p, &big, 90));
    assert_int_equal(gpn_purse_take(&p, &small, &wake), GPN_PURSE_NO);
    assert_false(wake);
    assert_int_equal(p.spent, 95);
    assert_int_equal(p.held, 0);
    gpn_purse_deinit(&p);
}

static void one_that_leaves_the_queue_leaves_it_whole(void **state)
{
    gpn_purse p;
    gpn_bill held = bill_of(100), b[4];
    bool wake;
    int i, k;
    (void)state;
    for (k = 0; k < 4; k++) {
        assert_true(gpn_purse_init(&p, 100));
        held = bill_of(100);
        assert_int_equal(gpn_purse_take(&p, &held, &wake), GPN_PURSE_YES);
        for (i = 0; i < 4; i++) {
            b[i] = bill_of(10);
            assert_int_equal(gpn_purse_take(&p, &b[i], &wake), GPN_PURSE_WAIT);
        }
        gpn_purse_pay(&p, &b[k], 0);
        assert_true(gpn_purse_pay(&p, &held, 0));
        for (i = 0; i < 4; i++) {
            if (i != k) {
                assert_int_equal(gpn_purse_take(&p, &b[i], &wake),
                                 GPN_PURSE_YES);
            }
        }
        assert_null(p.first);
        assert_null(p.last);
        assert_int_equal(p.held, 30);
        gpn_purse_deinit(&p);
    }
}

static void a_purse_is_empty_when_nothing_fits_any_more(void **state)
{
    gpn_purse p;
    gpn_bill small = bill_of(10), big = bill_of(1000);
    bool wake;
    int i;
    (void)state;
    assert_true(gpn_purse_init(&p, 100));
    /* what is too big for the whole purse does not end it at once */
    for (i = 1; i < GPN_PURSE_TRIES; i++) {
        assert_int_equal(gpn_purse_take(&p, &big, &wake), GPN_PURSE_NO);
    }
    assert_int_equal(gpn_purse_take(&p, &small, &wake), GPN_PURSE_YES);
    gpn_purse_pay(&p, &small, 10);
    /* a small one fits, so there may be more of them */
    for (i = 1; i < 2 * GPN_PURSE_TRIES; i++) {
        assert_int_equal(gpn_purse_take(&p, &big, &wake), GPN_PURSE_NO);
    }
    for (i = 0; i < 9; i++) {
        assert_int_equal(gpn_purse_take(&p, &small, &wake), GPN_PURSE_YES);
        gpn_purse_pay(&p, &small, 10);
    }
    for (i = 1; i < GPN_PURSE_TRIES; i++) {
        assert_int_equal(gpn_purse_take(&p, &small, &wake), GPN_PURSE_NO);
    }
    assert_int_equal(gpn_purse_take(&p, &small, &wake), GPN_PURSE_EMPTY);
    gpn_purse_deinit(&p);
}

/* ---- runs against the mock ----------------------------------------------- */

typedef struct rig {
    mock_options mock_opt;
    mock_server *mock;
    gptner_price price;
    gptner_config cfg;
    gptner_client *client;
    int64_t now; /* virtual */
    uint64_t random;
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

/* The client has nothing to do: let the mock work; when neither has, the clock
 * goes on to whatever comes first. */
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

/* Model "m" at 5 and 20 dollars a million tokens. */
static void rig_start(rig *r, bool travel, uint64_t seed,
                      const char *const *faults, size_t n_faults)
{
    char why[256];
    gptner_error err;
    r->price.model = "m";
    r->price.input = 5;
    r->price.cached = 2.5;
    r->price.output = 20;
    r->cfg.prices = &r->price;
    r->cfg.n_prices = 1;
    r->cfg.api_key = "sk-test-0123456789";
    if (r->cfg.options.model == NULL) {
        r->cfg.options.model = "m";
    }
    r->mock_opt.seed = seed;
    r->mock_opt.faults = faults;
    r->mock_opt.n_faults = n_faults;
    r->mock_opt.expect_repeats = -1;
    if (travel) {
        r->now = 1000;
        r->random = seed;
        r->mock_opt.manual = true;
        r->mock_opt.clock_ms_fn = rig_ms;
        r->mock_opt.unix_ms_fn = rig_unix_ms;
        r->mock_opt.clock_user = r;
        r->mock_opt.latency_ms = 300;
        r->mock_opt.latency_jitter_ms = 900;
        r->cfg.max_threads = 1;
        r->cfg.hooks.monotonic_ms_fn = rig_ms;
        r->cfg.hooks.unix_ms_fn = rig_unix_ms;
        r->cfg.hooks.random_fn = rig_random;
        r->cfg.hooks.wait_fn = rig_wait;
        r->cfg.hooks.user = r;
    }
    if (!mock_server_start(&r->mock_opt, &r->mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    r->cfg.base_url = mock_server_base_url(r->mock);
    if (gptner_client_new(&r->cfg, &r->client, &err) != GPTNER_OK) {
        fail_msg("client: %s", err.message);
    }
}

static void rig_end(rig *r)
{
    gptner_client_free(r->client);
    mock_server_stop(r->mock);
}

/* What the mock's complete answers cost, in dollars. */
static double rig_spend(const rig *r)
{
    return ((double)mock_server_count(r->mock, "tokens.prompt_tokens") *
                r->price.input +
            (double)mock_server_count(r->mock, "tokens.completion_tokens") *
                r->price.output) /
           1e6;
}

static void a_result_tells_what_its_prompt_did_cost(void **state)
{
    rig r;
    gptner_result *answer = NULL;
    gptner_options other;
    gptner_prompt prompt;
    (void)state;
    memset(&r, 0, sizeof r);
    rig_start(&r, true, 1, NULL, 0);
    assert_int_equal(gptner_ask(r.client, "What does it cost?", &answer, NULL),
                     GPTNER_OK);
    assert_true(answer->cost_usd > 0);
    assert_near(answer->cost_usd, rig_spend(&r));
    assert_near(answer->cost_usd,
                gptner_cost_usd(&r.price, &answer->usage, false));
    gptner_result_free(answer);
    /* another model, whose price is not known */
    memset(&other, 0, sizeof other);
    memset(&prompt, 0, sizeof prompt);
    other.model = "somebody/elses";
    prompt.options = &other;
    prompt.text = gptner_str_from("And this?");
    assert_int_equal(gptner_chat(r.client, &prompt, &answer, NULL), GPTNER_OK);
    assert_true(answer->cost_usd < 0);
    gptner_result_free(answer);
    /* a body of the user's own names its model itself */
    prompt.options = NULL;
    prompt.text.ptr = NULL;
    prompt.body_json =
        gptner_str_from("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
                        "\"model\":\"gpt-4o-mini\"}");
    assert_int_equal(gptner_chat(r.client, &prompt, &answer, NULL), GPTNER_OK);
    assert_near(answer->cost_usd,
                ((double)answer->usage.prompt_tokens * 0.15 +
                 (double)answer->usage.completion_tokens * 0.6) /
                    1e6);
    gptner_result_free(answer);
    rig_end(&r);
}

/* What of each fault is billed. */
static void
failed_attempts_are_billed_as_far_as_they_can_have_been(void **state)
{
    static const struct {
        const char *fault;
        int times; /* an answer's price for each such attempt; -1: the worst */
    } cases[] = {{"500@1", 0},     {"429@1", 0},       {"503@1", 0},
                 {"lost@1", -1},   {"truncate@1", -1}, {"reset@1", -1},
                 {"html@1", -1},   {"empty@1", -1},    {"badjson@1", -1},
                 {"refusal@1", 9}, {"length@1", 9}};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        rig r;
        gptner_result *answer = NULL;
        gptner_prompt p;
        gpn_weight w;
        double answer_cost, worst;
        memset(&p, 0, sizeof p);
        memset(&r, 0, sizeof r);
        p.text = gptner_str_from("What does it cost?");
        rig_start(&r, true, 1, &cases[i].fault, 1);
        gpn_prompt_weigh(r.client, &p, &r.client->cfg.options, &w);
        worst =
            ((double)w.prompt_max * 5 + (double)w.completion_max * 20) / 1e6;
        gptner_chat(r.client, &p, &answer, NULL);
        assert_non_null(answer);
        answer_cost = gptner_cost_usd(&r.price, &answer->usage, false);
        if (cases[i].times == 9) {
            assert_int_equal(answer->attempts, 1);
            assert_near(answer->cost_usd, answer_cost);
        } else {
            assert_int_equal(answer->status, GPTNER_OK);
            assert_int_equal(answer->attempts, 2);
            assert_near(answer->cost_usd,
                        answer_cost + (cases[i].times < 0 ? worst : 0));
        }
        gptner_result_free(answer);
        rig_end(&r);
    }
}

/* ---- budgets ------------------------------------------------------------- */

/* Prompts of many lengths and limits, numbered. */
typedef struct mixed {
    size_t n, next;
    char text[1100];
    gptner_options options[4];
    uint64_t seed;
    size_t seen, ok, not_sent, wrong;
    double cost;
} mixed;

static void mixed_init(mixed *m, size_t n)
{
    static const int limits[] = {8, 40, 150, 600};
    size_t i;
    memset(m, 0, sizeof *m);
    m->n = n;
    m->seed = 99;
    for (i = 0; i < 4; i++) {
        m->options[i].model = "m";
        m->options[i].max_tokens = limits[i];
    }
}

static int mixed_next(gptner_prompt *prompt, gptner_error *err, void *user)
{
    mixed *m = (mixed *)user;
    size_t words, i, at;
    (void)err;
    if (m->next == m->n) {
        return 0;
    }
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    words = (m->seed >> 33) % 100 < 80 ? 5 + (m->seed >> 40) % 20
                                       : 60 + (m->seed >> 40) % 100;
    at = (size_t)snprintf(m->text, sizeof m->text, "%zu", m->next);
    for (i = 0; i < words; i++) {
        at += (size_t)snprintf(m->text + at, sizeof m->text - at, " word%d",
                               (int)(i % 10));
    }
    prompt->text = gptner_str_from(m->text);
    prompt->options = &m->options[(m->seed >> 50) % 4];
    m->next++;
    return 1;
}

static bool mixed_result(const gptner_result *r, void *user)
{
    mixed *m = (mixed *)user;
    m->wrong += r->index != m->seen;
    m->seen++;
    m->ok += r->status == GPTNER_OK;
    m->not_sent += r->status == GPTNER_ERR_NOT_SENT;
    m->wrong += r->cost_usd < 0;
    m->wrong += r->attempts == 0 && r->cost_usd > 0;
    m->cost += r->cost_usd;
    return true;
}

static gptner_status run_mixed(rig *r, mixed *m, double budget,
                               gptner_run_summary *sum, gptner_error *err)
{
    gptner_run_config run;
    memset(&run, 0, sizeof run);
    run.next_fn = mixed_next;
    run.next_user = m;
    run.result_fn = mixed_result;
    run.result_user = m;
    run.max_cost_usd = budget;
    return gptner_run(r->client, &run, sum, err);
}

static void a_budget_is_used_up_and_not_exceeded(void **state)
{
    static const double budgets[] = {1.0, 0.31, 0.05, 5.0};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(budgets); i++) {
        rig r;
        mixed m;
        gptner_run_summary sum;
        gptner_error err;
        gptner_status status;
        memset(&r, 0, sizeof r);
        memset(&err, 0, sizeof err);
        r.cfg.max_workers = 64;
        rig_start(&r, true, 7 + i, NULL, 0);
        mixed_init(&m, 6000);
        status = run_mixed(&r, &m, budgets[i], &sum, &err);
        assert_int_equal(m.wrong, 0);
        assert_near(sum.cost_usd, rig_spend(&r));
        assert_near(m.cost, sum.cost_usd);
        assert_true(rig_spend(&r) <= budgets[i]);
        assert_int_equal(sum.cost_unknown, 0);
        if (i == 3) { /* it does for all */
            assert_int_equal(status, GPTNER_OK);
            assert_int_equal(m.seen, 6000);
            assert_int_equal(m.not_sent, 0);
        } else {
            assert_int_equal(status, GPTNER_ERR_BUDGET);
            assert_non_null(strstr(err.message, "max_cost_usd"));
            assert_true(rig_spend(&r) > 0.95 * budgets[i]);
            assert_true(m.not_sent > 0);
            assert_int_equal(sum.not_sent, m.not_sent);
            assert_int_equal(m.seen, sum.total);
        }
        rig_end(&r);
    }
}

static void no_fault_makes_a_budget_be_exceeded(void **state)
{
    static const char *const faults[] = {
        "lost:0.05",       "truncate:0.05", "429:0.05",
        "500:0.05",        "reset:0.05",    "stall:0.01",
        "stale:0.05,late", "html:0.01",     "length:0.05"};
    uint64_t seed;
    (void)state;
    for (seed = 1; seed <= 6; seed++) {
        rig r;
        mixed m;
        gptner_run_summary sum;
        gptner_error err;
        memset(&r, 0, sizeof r);
        memset(&err, 0, sizeof err);
        r.cfg.max_workers = 64;
        rig_start(&r, true, seed, faults, TEST_COUNT(faults));
        mixed_init(&m, 6000);
        m.seed = seed;
        if (run_mixed(&r, &m, 1.0, &sum, &err) != GPTNER_ERR_BUDGET) {
            fail_msg("%d: %s", (int)err.status, err.message);
        }
        assert_int_equal(m.wrong, 0);
        assert_near(m.cost, sum.cost_usd);
        assert_true(rig_spend(&r) <= sum.cost_usd);
        assert_true(sum.cost_usd <= 1.0);
        assert_true(sum.cost_usd > 0.95);
        assert_true(sum.cost_unknown > 0);
        rig_end(&r);
    }
}

static gptner_status run_texts(rig *r, const char *const *texts, size_t n,
                               gptner_run_config *run, gptner_run_summary *sum,
                               gptner_error *err)
{
    run->texts = texts;
    run->n_prompts = n;
    return gptner_run(r->client, run, sum, err);
}

/* Budgets that nothing can be held to are refused before anything is sent. */
static void a_budget_without_price_or_limit_is_refused(void **state)
{
    static const char *const texts[] = {"one", "two"};
    int k;
    (void)state;
    for (k = 0; k < 5; k++) {
        rig r;
        gptner_run_config run;
        gptner_run_summary sum;
        gptner_error err;
        gptner_status want = GPTNER_ERR_CONFIG;
        memset(&r, 0, sizeof r);
        memset(&run, 0, sizeof run);
        run.max_cost_usd = 1;
        if (k == 0) {
            r.cfg.options.model = "unheard-of";
        } else if (k == 1) {
            r.cfg.options.max_tokens = GPTNER_OMIT;
        } else if (k == 2) {
            r.cfg.options.extra_body_json = "{\"model\":\"unheard-of\"}";
        } else {
            run.max_cost_usd = k == 3 ? -1.0 : NAN;
            want = GPTNER_ERR_INVALID_ARGUMENT;
        }
        rig_start(&r, true, 1, NULL, 0);
        assert_int_equal(run_texts(&r, texts, 2, &run, &sum, &err), want);
        assert_non_null(strstr(err.message, "max_cost_usd"));
        if (k == 0 || k == 2) {
            assert_non_null(strstr(err.message, "config.prices"));
        }
        assert_int_equal(sum.requests, 0);
        rig_end(&r);
    }
}

/* One prompt of its own kind is not sent; the others are. */
static void a_prompt_that_cannot_be_priced_is_not_sent(void **state)
{
    rig r;
    gptner_prompt prompts[5];
    gptner_options other, endless;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_result **results = NULL;
    gptner_error err;
    size_t n = 0, i;
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&run, 0, sizeof run);
    memset(prompts, 0, sizeof prompts);
    memset(&other, 0, sizeof other);
    rig_start(&r, true, 1, NULL, 0);
    endless = other;
    other.model = "unheard-of";
    endless.model = "m";
    endless.max_tokens = GPTNER_OMIT;
    for (i = 0; i < 5; i++) {
        prompts[i].text = gptner_str_from("one of five");
    }
    prompts[1].options = &other;
    prompts[2].options = &endless;
    prompts[3].text.ptr = NULL;
    prompts[3].messages_json =
        gptner_str_from("[{\"role\":\"user\",\"content\":[{\"type\":\"image_"
                        "url\",\"image_url\":"
                        "{\"url\":\"https://a.test/b.png\"}}]}]");
    run.prompts = prompts;
    run.n_prompts = 5;
    run.results = &results;
    run.n_results = &n;
    run.max_cost_usd = 1;
    assert_int_equal(gptner_run(r.client, &run, &sum, &err), GPTNER_OK);
    assert_int_equal(n, 5);
    for (i = 0; i < 5; i++) {
        bool sent = i == 0 || i == 4;
        assert_int_equal(results[i]->status,
                         sent ? GPTNER_OK : GPTNER_ERR_NOT_SENT);
        assert_int_equal(results[i]->attempts, sent);
        assert_true(sent ? results[i]->cost_usd > 0
                         : !(results[i]->cost_usd > 0));
    }
    assert_non_null(strstr(results[1]->message, "unheard-of"));
    assert_non_null(strstr(results[2]->message, "max_tokens"));
    assert_non_null(strstr(results[3]->message, "more than text"));
    assert_int_equal(sum.not_sent, 3);
    assert_near(sum.cost_usd, rig_spend(&r));
    gptner_results_free(results, n);
    rig_end(&r);
}

/* What is too dear for all of the budget stands in nobody's way. */
static void
a_prompt_larger_than_the_budget_does_not_stop_the_others(void **state)
{
    static char large[20000];
    const char *texts[20];
    rig r;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_result **results = NULL;
    gptner_error err;
    size_t n = 0, i;
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&run, 0, sizeof run);
    memset(large, 'a', sizeof large - 1);
    for (i = 0; i < 20; i++) {
        texts[i] = i % 7 == 0 ? large : "small";
    }
    r.cfg.options.max_tokens = 50;
    r.cfg.options.model = "m";
    r.cfg.max_workers = 4;
    rig_start(&r, true, 1, NULL, 0);
    run.results = &results;
    run.n_results = &n;
    run.max_cost_usd = 0.05;
    assert_int_equal(run_texts(&r, texts, 20, &run, &sum, &err),
                     GPTNER_ERR_BUDGET);
    for (i = 0; i < 20; i++) {
        assert_int_equal(results[i]->status,
                         i % 7 == 0 ? GPTNER_ERR_NOT_SENT : GPTNER_OK);
    }
    assert_non_null(strstr(results[0]->message, "$0.05"));
    assert_non_null(strstr(err.message, "3 requests did not fit"));
    gptner_results_free(results, n);
    rig_end(&r);
}

/* What is asked for costs more than one at a time may: they wait, in turn. */
static void requests_wait_for_money_instead_of_failing(void **state)
{
    rig r;
    const char *texts[40];
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_error err;
    size_t i;
    (void)state;
    for (i = 0; i < 40; i++) {
        texts[i] = i % 2 == 0 ? "even" : "odd one";
    }
    memset(&r, 0, sizeof r);
    memset(&run, 0, sizeof run);
    r.cfg.max_workers = 40;
    r.cfg.options.model = "m";
    r.cfg.options.max_tokens = 1000; /* about 0.0205 a request */
    rig_start(&r, true, 1, NULL, 0);
    run.max_cost_usd = 0.05; /* two of them */
    assert_int_equal(run_texts(&r, texts, 40, &run, &sum, &err), GPTNER_OK);
    assert_int_equal(sum.ok, 40);
    assert_int_equal(mock_server_count(r.mock, "max_concurrency"), 2);
    rig_end(&r);
}

static bool cancel_at_100(const gptner_result *r, void *user)
{
    if (r->index == 100) {
        gptner_client_cancel((gptner_client *)user);
    }
    return true;
}

/* Requests in flight when the run is cancelled may have been billed. */
static void a_cancelled_run_counts_what_was_in_flight(void **state)
{
    rig r;
    mixed m;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_error err;
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&run, 0, sizeof run);
    r.cfg.max_workers = 16;
    rig_start(&r, true, 3, NULL, 0);
    mixed_init(&m, 1000);
    run.next_fn = mixed_next;
    run.next_user = &m;
    run.result_fn = cancel_at_100;
    run.result_user = r.client;
    run.max_cost_usd = 1;
    assert_int_equal(gptner_run(r.client, &run, &sum, &err),
                     GPTNER_ERR_CANCELLED);
    assert_true(sum.cost_unknown > 0 && sum.cost_unknown <= 16);
    assert_true(sum.cost_usd > rig_spend(&r));
    rig_end(&r);
}

typedef struct seen_progress {
    double last, most;
    int calls;
} seen_progress;

static void see_progress(const gptner_progress *p, void *user)
{
    seen_progress *s = (seen_progress *)user;
    s->calls++;
    if (p->cost_usd < s->last) {
        s->calls = -1000000;
    }
    s->last = p->cost_usd;
    s->most = p->max_cost_usd;
}

static void progress_and_output_tell_costs(void **state)
{
    static const char *const texts[] = {"one", "two", "one"};
    rig r;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_error err;
    seen_progress seen;
    char path[256], bar[256];
    char *text;
    size_t len;
    double cost = 0;
    const char *at;
    int n = 0;
    gptner_progress p;
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&run, 0, sizeof run);
    memset(&seen, 0, sizeof seen);
    rig_start(&r, true, 1, NULL, 0);
    run.progress_fn = see_progress;
    run.progress_user = &seen;
    run.max_cost_usd = 2;
    run.dedupe = true;
    run.output_path = test_tmp_path(path, "costs.jsonl");
    assert_int_equal(run_texts(&r, texts, 3, &run, &sum, &err), GPTNER_OK);
    assert_true(seen.calls > 0);
    assert_near(seen.last, sum.cost_usd);
    assert_near(seen.most, 2.0);
    text = test_slurp(path, &len);
    assert_non_null(text);
    for (at = text; (at = strstr(at, "\"cost_usd\":")) != NULL; n++) {
        at += 11;
        cost += strtod(at, NULL);
    }
    assert_int_equal(n, 3); /* the shared one cost nothing */
    assert_near(cost, sum.cost_usd);
    free(text);
    rig_end(&r);
    /* and the bar, where the price is known */
    memset(&p, 0, sizeof p);
    p.total = 4;
    gpn_bar_tail(bar, sizeof bar, &p);
    assert_null(strchr(bar, '$'));
    p.cost_usd = 0.0123;
    gpn_bar_tail(bar, sizeof bar, &p);
    assert_non_null(strstr(bar, " tokens, $0.0123]"));
    p.max_cost_usd = 1;
    gpn_bar_tail(bar, sizeof bar, &p);
    assert_non_null(strstr(bar, " tokens, $0.0123 of $1.00]"));
    p.cost_usd = -1;
    gpn_bar_tail(bar, sizeof bar, &p);
    assert_null(strchr(bar, '$'));
}

/* Real time, real threads: for the thread sanitizer, above all. */
static void threads_share_one_budget(void **state)
{
    static const char *const faults[] = {"lost:0.02", "500:0.05", "429:0.02",
                                         "stale:0.05,late", "truncate:0.02"};
    rig r;
    mixed m;
    gptner_run_summary sum;
    gptner_error err;
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&err, 0, sizeof err);
    r.cfg.max_workers = 64;
    r.cfg.max_threads = 4;
    r.cfg.backoff_ms = 1;
    r.cfg.max_backoff_ms = 4;
    rig_start(&r, false, 5, faults, TEST_COUNT(faults));
    mixed_init(&m, 3000);
    if (run_mixed(&r, &m, 0.4, &sum, &err) != GPTNER_ERR_BUDGET) {
        fail_msg("%d: %s", (int)err.status, err.message);
    }
    assert_int_equal(m.wrong, 0);
    assert_near(m.cost, sum.cost_usd);
    assert_true(rig_spend(&r) <= sum.cost_usd);
    assert_true(sum.cost_usd <= 0.4);
    assert_true(sum.cost_usd > 0.9 * 0.4);
    rig_end(&r);
}

/* Any allocation may fail: then nothing leaks, and the error says so. */
static void prices_and_budgets_survive_want_of_memory(void **state)
{
    static const char file[] =
        "{\"prices\":[{\"model\":\"m\",\"input\":1,"
        "\"output\":2},{\"model\":\"n\",\"input\":3,\"output\":0}]}";
    static const char *const texts[] = {"one", "two", "three"};
    char path[256];
    long n;
    (void)state;
    test_tmp_path(path, "memory.json");
    test_spit(path, file, sizeof file - 1);
    for (n = 1;; n++) {
        rig r;
        test_mem memory;
        gptner_run_config run;
        gptner_run_summary sum;
        gptner_error err;
        gptner_status status;
        char why[256];
        memset(&r, 0, sizeof r);
        memset(&memory, 0, sizeof memory);
        memset(&run, 0, sizeof run);
        memory.fail_at = n;
        assert_true(mock_server_start(&r.mock_opt, &r.mock, why, sizeof why));
        r.price.model = "k";
        r.cfg.prices = &r.price;
        r.cfg.n_prices = 1;
        r.cfg.prices_file = path;
        r.cfg.api_key = "sk-test-0123456789";
        r.cfg.base_url = mock_server_base_url(r.mock);
        r.cfg.options.model = "m";
        r.cfg.max_threads = 1;
        r.cfg.backoff_ms = 1;
        r.cfg.allocator = test_mem_allocator(&memory);
        status = gptner_client_new(&r.cfg, &r.client, &err);
        if (status == GPTNER_OK) {
            run.texts = texts;
            run.n_prompts = 3;
            run.max_cost_usd = 1;
            status = gptner_run(r.client, &run, &sum, &err);
            if (status == GPTNER_OK) {
                assert_int_equal(sum.total, 3);
                assert_true(sum.cost_usd > 0);
            }
        } else {
            assert_int_equal(status, GPTNER_ERR_NO_MEMORY);
        }
        gptner_client_free(r.client);
        mock_server_stop(r.mock);
        assert_int_equal(memory.blocks, 0);
        if (memory.calls < n) {
            assert_int_equal(status, GPTNER_OK);
            break;
        }
    }
    assert_true(n > 20);
}

/* ---- batches ------------------------------------------------------------- */

/* What the batches at the server cost, as it counts their tokens itself. */
static double rig_batch_spend(const rig *r, int *batches)
{
    gptner_batches *page = NULL;
    char after[128] = "";
    double cost = 0;
    bool more = true;
    *batches = 0;
    while (more) {
        size_t i;
        assert_int_equal(gptner_batch_list(r->client,
                                           *after != '\0' ? after : NULL, 100,
                                           &page, NULL),
                         GPTNER_OK);
        for (i = 0; i < page->count; i++) {
            const gptner_batch *b = page->items[i];
            ++*batches;
            if (b->usage.prompt_tokens > 0) {
                cost += ((double)b->usage.prompt_tokens * r->price.input +
                         (double)b->usage.completion_tokens * r->price.output) /
                        2e6;
            }
            snprintf(after, sizeof after, "%.*s", (int)b->id.len, b->id.ptr);
        }
        more = page->has_more;
        gptner_batches_free(page);
    }
    return cost;
}

static gptner_status run_job(rig *r, mixed *m, double budget,
                             gptner_retry_failed retry, const char *name,
                             gptner_job_summary *sum, gptner_error *err)
{
    gptner_job_config cfg;
    char path[256];
    memset(&cfg, 0, sizeof cfg);
    cfg.source.next_fn = mixed_next;
    cfg.source.next_user = m;
    cfg.output_path = test_tmp_path(path, name);
    cfg.result_fn = mixed_result;
    cfg.result_user = m;
    cfg.max_cost_usd = budget;
    cfg.retry_failed = retry;
    cfg.poll_ms = 20000;
    return gptner_job_run(r->client, &cfg, sum, err);
}

static void a_budget_of_a_job_is_used_up_and_not_exceeded(void **state)
{
    static const double budgets[] = {0.2, 0.05, 50.0};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(budgets); i++) {
        rig r;
        mixed m;
        gptner_job_summary sum;
        gptner_error err;
        gptner_status status;
        char name[32];
        int batches = 0;
        memset(&r, 0, sizeof r);
        memset(&err, 0, sizeof err);
        r.mock_opt.batch_seconds = 100;
        rig_start(&r, true, 7 + i, NULL, 0);
        mixed_init(&m, 2000);
        snprintf(name, sizeof name, "job%d.jsonl", (int)i);
        status =
            run_job(&r, &m, budgets[i], GPTNER_RETRY_NONE, name, &sum, &err);
        if (status != (i < 2 ? GPTNER_ERR_BUDGET : GPTNER_OK)) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(m.wrong, 0);
        assert_int_equal(m.seen, 2000);
        assert_near(m.cost, sum.results.cost_usd);
        assert_near(sum.results.cost_usd, rig_batch_spend(&r, &batches));
        assert_true(sum.results.cost_usd <= budgets[i]);
        assert_true(i == 2 || sum.results.cost_usd > 0.9 * budgets[i]);
        assert_true((m.not_sent > 0) == (i < 2));
        rig_end(&r);
    }
}

/* Rows that fail, are lost or malformed, batches that expire: all within the
 * budget, whatever the follow-ups are, and though the job is taken up anew
 * every few minutes of the server's time. */
static void no_fault_makes_the_budget_of_a_job_be_exceeded(void **state)
{
    static const char *const faults[] = {
        "row-5xx:0.1",        "row-drop:0.05",
        "row-malformed:0.05", "row-cut:0.05",
        "row-duplicate:0.1",  "batch-expires@every=3,done=0.5",
        "lost@create:0.2",    "null-output@7"};
    int k;
    (void)state;
    for (k = 0; k < 4; k++) {
        rig r;
        mixed m;
        gptner_job_summary sum;
        gptner_error err;
        gptner_status status = GPTNER_ERR_TIMEOUT;
        char name[32];
        double spend;
        int batches = 0, runs = 0;
        memset(&r, 0, sizeof r);
        r.mock_opt.batch_seconds = 100;
        rig_start(&r, true, 70 + (uint64_t)k, faults, TEST_COUNT(faults));
        snprintf(name, sizeof name, "faulty%d.jsonl", k);
        while (status == GPTNER_ERR_TIMEOUT) {
            gptner_job_config cfg;
            char path[256];
            mixed_init(&m, 1000);
            memset(&cfg, 0, sizeof cfg);
            memset(&err, 0, sizeof err);
            cfg.source.next_fn = mixed_next;
            cfg.source.next_user = &m;
            cfg.output_path = test_tmp_path(path, name);
            cfg.result_fn = mixed_result;
            cfg.result_user = &m;
            cfg.max_cost_usd = 0.15;
            cfg.retry_failed =
                k % 2 == 0 ? GPTNER_RETRY_BATCH : GPTNER_RETRY_PARALLEL;
            cfg.poll_ms = 20000;
            cfg.max_wait_ms = k < 2 ? 0 : 150000;
            status = gptner_job_run(r.client, &cfg, &sum, &err);
            runs++;
            assert_true(runs < 1000);
        }
        if (status != GPTNER_ERR_BUDGET) {
            fail_msg("%d: %s", (int)status, err.message);
        }
        assert_int_equal(m.seen, 1000);
        spend = rig_batch_spend(&r, &batches) + rig_spend(&r);
        assert_true(spend <= 0.15);
        assert_true(spend > 0.05); /* much is lost, and counts at its worst */
        assert_true(m.not_sent > 0);
        assert_true(k < 2 || runs > 3);
        rig_end(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_have_the_price_of_the_table_or_none),
        cmocka_unit_test(
            rows_of_the_config_go_first_then_the_file_then_the_table),
        cmocka_unit_test(a_bad_file_of_prices_is_refused_with_its_place),
        cmocka_unit_test(any_cut_of_a_file_of_prices_is_refused),
        cmocka_unit_test(prices_that_are_none_are_refused),
        cmocka_unit_test(a_usage_costs_what_the_formula_says),
        cmocka_unit_test(long_prompts_cost_more_where_the_model_has_that),
        cmocka_unit_test(what_is_not_known_costs_minus_one),
        cmocka_unit_test(absurd_usages_do_not_overflow),
        cmocka_unit_test(sums_are_written_for_people),
        cmocka_unit_test(who_waits_for_money_is_served_in_order),
        cmocka_unit_test(one_that_leaves_the_queue_leaves_it_whole),
        cmocka_unit_test(a_purse_is_empty_when_nothing_fits_any_more),
        cmocka_unit_test(a_result_tells_what_its_prompt_did_cost),
        cmocka_unit_test(
            failed_attempts_are_billed_as_far_as_they_can_have_been),
        cmocka_unit_test(a_budget_is_used_up_and_not_exceeded),
        cmocka_unit_test(no_fault_makes_a_budget_be_exceeded),
        cmocka_unit_test(a_budget_without_price_or_limit_is_refused),
        cmocka_unit_test(a_prompt_that_cannot_be_priced_is_not_sent),
        cmocka_unit_test(
            a_prompt_larger_than_the_budget_does_not_stop_the_others),
        cmocka_unit_test(requests_wait_for_money_instead_of_failing),
        cmocka_unit_test(a_cancelled_run_counts_what_was_in_flight),
        cmocka_unit_test(progress_and_output_tell_costs),
        cmocka_unit_test(threads_share_one_budget),
        cmocka_unit_test(prices_and_budgets_survive_want_of_memory),
        cmocka_unit_test(a_budget_of_a_job_is_used_up_and_not_exceeded),
        cmocka_unit_test(no_fault_makes_the_budget_of_a_job_be_exceeded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
