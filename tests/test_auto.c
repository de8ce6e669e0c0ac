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

/* ---- servers --------------------------------------------------------------- */

typedef struct rig {
    /* the server: */
    int64_t base_ms;     /* latency of a request alone */
    int64_t doubled_ms;  /* from this time on twice of that; 0: never */
    double per_second;   /* its capacity; 0: none */
    double halved_s;     /* from this time on half of that; 0: never */
    double slowing;      /* requests at a time that double the latency */
    int refuse_above;    /* so many at a time; 0: never */
    int refuse_with;     /* status */
    int fails_per_mille; /* at random, with 503, whatever the load */
    bool spread;         /* latencies from half to one and a half */
    /* the run: */
    size_t n;
    int workers;
    size_t open_files;
    /* what happened: */
    mock_server *mock;
    int64_t now;
    int64_t begun;
    uint64_t random;
    size_t given;
    size_t ok;
    int64_t half_ms; /* half of the prompts had been asked for */
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
    bool late = r->given >= r->n / 2;
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
    if (r->given++ == r->n / 2) {
        r->half_ms = r->now;
    }
    prompt->text = gptner_str_from(text);
    return 1;
}

static bool rig_result(const gptner_result *result, void *user)
{
    rig *r = (rig *)user;
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
    if (gptner_client_new(&cfg, &client, &err) != GPTNER_OK) {
        fail_msg("client: %s", err.message);
    }
    run.next_fn = rig_next;
    run.next_user = r;
    run.result_fn = rig_result;
    run.result_user = r;
    if (gptner_run(client, &run, &r->sum, &err) != GPTNER_OK) {
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
    table_row("800 ms, 30 prompts", kind_rig(800, 0, 30), 8);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        table();
        return 0;
    }
    return 0;
}
