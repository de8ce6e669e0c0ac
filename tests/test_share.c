/* Limits that processes share by a file (config.pace_file): the file alone with
 * limiters of the test's own, clients against the mock in virtual time, and two
 * real processes. */
#define GPTNER_FAULT_INJECTION
#define main bench_limits_main
#include "bench/limits.c"
#undef main

#include "test_common.h"

#include <sys/file.h>
#include <sys/wait.h>

/* ---- a process: an environment of its own with a limiter -------------------
 */

typedef struct process {
    int64_t now;
    int64_t unix_ms; /* less now */
    uint64_t random;
    int warnings;
    gpn_env env;
    gpn_pace pace;
    gptner_error err;
    gptner_status status;
} process;

static char path[64];

static int64_t process_ms(void *user)
{
    return ((process *)user)->now;
}

static int64_t process_unix_ms(void *user)
{
    return ((process *)user)->now + ((process *)user)->unix_ms;
}

static uint64_t process_random(void *user)
{
    return next_random(&((process *)user)->random) << 32;
}

static void process_log(gptner_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    ((process *)user)->warnings++;
}

/* A process with limits told that begins now; unix time is the same for all. */
static void process_start_as(process *p, const gptner_limits *limits,
                             int64_t unix_ms, const char *identity)
{
    gptner_hooks hooks;
    memset(p, 0, sizeof *p);
    memset(&hooks, 0, sizeof hooks);
    p->now = 5000;
    p->unix_ms = unix_ms - p->now;
    p->random = (uint64_t)unix_ms;
    hooks.monotonic_ms_fn = process_ms;
    hooks.unix_ms_fn = process_unix_ms;
    hooks.random_fn = process_random;
    hooks.user = p;
    assert_true(gpn_env_init(&p->env, NULL, &hooks));
    p->env.log_fn = process_log;
    p->env.log_user = p;
    p->env.log_level = GPTNER_LOG_WARN;
    assert_true(gpn_pace_init(&p->pace, limits, true));
    p->status =
        gpn_pace_share(&p->pace, &p->env, path, gpn_str_c(identity), &p->err);
}

static void process_start(process *p, const gptner_limits *limits,
                          int64_t unix_ms)
{
    process_start_as(p, limits, unix_ms, "host\nsk-secret-key");
    if (p->status != GPTNER_OK) {
        fail_msg("%s", p->err.message);
    }
}

static void process_end(process *p)
{
    gpn_pace_deinit(&p->pace);
}

/* When may a request go? 0: it has gone. */
static int64_t process_ask(process *p, gpn_ticket *t, int64_t tokens)
{
    gpn_load load = {7, 0, 0, 0};
    gpn_ticket *call;
    load.prompt = tokens;
    return gpn_pace_enter(&p->pace, t, &load, p->now, &call);
}

/* How many requests go at once, of at most n. */
static int process_send(process *p, int n, int64_t tokens)
{
    int sent = 0;
    while (sent < n) {
        gpn_ticket t;
        int64_t when;
        memset(&t, 0, sizeof t);
        when = process_ask(p, &t, tokens);
        gpn_pace_leave(&p->pace, &t);
        if (when != 0) {
            break;
        }
        sent++;
    }
    return sent;
}

static gptner_limits per_day(int64_t requests)
{
    gptner_limits limits;
    memset(&limits, 0, sizeof limits);
    limits.requests_per_day = requests;
    return limits;
}

#define DAY0 INT64_C(1790000000000)

static int set_up(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/gptner-share-%d", (int)getpid());
    unlink(path);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static size_t slurp(char *data, size_t cap)
{
    FILE *f = fopen(path, "rb");
    size_t n;
    assert_non_null(f);
    n = fread(data, 1, cap, f);
    fclose(f);
    return n;
}

static void spit(const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* ---- the record ------------------------------------------------------------
 */

static size_t fields_size(const gpn_field *f, size_t n, size_t *values)
{
    size_t size = 0, i;
    for (i = 0; i < n; i++) {
        size += f[i].n * gpn_field_size(&f[i]);
        *values += f[i].n;
    }
    return size;
}

/* Whoever adds a member to the account must name it in the table. */
static void every_field_of_the_account_is_in_the_record(void **state)
{
    size_t values = 0;
    size_t meter =
        fields_size(gpn_meter_fields, GPN_COUNT(gpn_meter_fields), &values);
    size_t size = 2 * meter;
    (void)state;
    values *= 2;
    assert_int_equal(meter, sizeof(gpn_meter));
    size +=
        fields_size(gpn_account_fields, GPN_COUNT(gpn_account_fields), &values);
    size += sizeof(((gpn_account *)NULL)->told);
    assert_int_equal((size + 7) / 8 * 8, sizeof(gpn_account));
    assert_true(values <= GPN_SHARE_VALUES);
    assert_true(sizeof(gpn_share_record) % 8 == 0);
    assert_int_equal(sizeof(gpn_share_head), 64);
}

static void an_account_comes_back_as_it_was_stored(void **state)
{
    gptner_limits limits = per_day(100);
    double told[GPN_RESOURCES][GPN_PERIODS] = {{1, 2}, {3, 4}};
    double values[GPN_SHARE_VALUES];
    gpn_account a, b, c;
    size_t i;
    (void)state;
    (void)limits;
    gpn_account_init(&a, told);
    for (i = 0; i < GPN_UNITS; i++) {
        a.meters[1].scale[i] = 0.5 + (double)i;
    }
    a.meters[0].limit = 500;
    a.meters[1].unit = 2;
    a.meters[1].past_ms = 0;
    a.meters[0].past_ms = 77;
    a.next_ms[1][1] = 123.25;
    a.even_until_ms = -5;
    a.number = 12345678901;
    a.evens = 3;
    a.known = true;
    assert_true(gpn_account_move(&a, values, DAY0, false));
    memcpy(&b, &a, sizeof b);
    memset(&b.meters, 0, sizeof b.meters);
    assert_true(gpn_account_move(&b, values, DAY0 + 1000, true));
    assert_true(b.next_ms[1][1] == 123.25 - 1000);
    assert_int_equal(b.even_until_ms, -1005);
    assert_int_equal(b.meters[1].past_ms, 0);
    assert_int_equal(b.meters[0].past_ms, 77 - 1000);
    memcpy(&c, &b, sizeof c);
    assert_true(gpn_account_move(&c, values, DAY0, true));
    assert_memory_equal(&c, &a, sizeof a);
}

/* ---- days, restarts, clocks ------------------------------------------------
 */

static void two_processes_have_one_quota(void **state)
{
    gptner_limits limits = per_day(20);
    process a, b;
    (void)state;
    process_start(&a, &limits, DAY0);
    process_start(&b, &limits, DAY0);
    assert_int_equal(process_send(&a, 12, 1), 12);
    assert_int_equal(process_send(&b, 100, 1), 8);
    assert_int_equal(process_send(&a, 100, 1), 0);
    assert_int_equal(a.warnings + b.warnings, 0);
    process_end(&a);
    process_end(&b);
}

static void the_count_of_a_day_outlives_process_and_machine(void **state)
{
    gptner_limits limits = per_day(24);
    process p;
    (void)state;
    process_start(&p, &limits, DAY0);
    p.now += INT64_C(900000000); /* the machine has been up for long */
    p.unix_ms -= INT64_C(900000000);
    assert_int_equal(process_send(&p, 100, 1), 24);
    process_end(&p);
    process_start(&p, &limits, DAY0 + 60000); /* its clock starts anew */
    assert_int_equal(process_send(&p, 100, 1), 0);
    p.now += 3600000;
    assert_int_equal(process_send(&p, 100, 1), 1);
    process_end(&p);
    process_start(&p, &limits, DAY0 + 2 * 86400000);
    assert_int_equal(process_send(&p, 100, 1), 24);
    process_end(&p);
}

static void a_record_of_the_future_is_not_believed(void **state)
{
    gptner_limits limits = per_day(20);
    process p;
    (void)state;
    process_start(&p, &limits, DAY0);
    assert_int_equal(process_send(&p, 100, 1), 20);
    process_end(&p);
    process_start(&p, &limits, DAY0 - 5000); /* put back a little: believed */
    assert_int_equal(process_send(&p, 100, 1), 0);
    process_end(&p);
    process_start(&p, &limits, DAY0 - 3600000);
    assert_int_equal(process_send(&p, 100, 1), 20);
    process_end(&p);
}

static void other_keys_and_other_models_are_other_accounts(void **state)
{
    gptner_limits limits = per_day(20);
    process p[70];
    size_t i;
    gpn_ticket t;
    gpn_load load = {8, 1, 0, 0};
    gpn_ticket *call;
    char identity[32];
    (void)state;
    memset(&t, 0, sizeof t);
    for (i = 0; i < TEST_COUNT(p); i++) { /* more than there are records */
        snprintf(identity, sizeof identity, "host\nkey %d", (int)i);
        process_start_as(&p[i], &limits, DAY0 + (int64_t)i, identity);
        assert_int_equal(p[i].status, GPTNER_OK);
        assert_int_equal(process_send(&p[i], 100, 1), 20);
    }
    assert_int_equal(process_send(&p[69], 100, 1), 0);
    assert_int_equal(gpn_pace_enter(&p[69].pace, &t, &load, p[69].now, &call),
                     0);
    for (i = 0; i < TEST_COUNT(p); i++) {
        process_end(&p[i]);
    }
}

static void the_file_is_private_and_has_no_key(void **state)
{
    gptner_limits limits = per_day(20);
    struct stat st;
    process p;
    char data[8192];
    size_t n, i;
    (void)state;
    process_start(&p, &limits, DAY0);
    process_send(&p, 5, 1);
    process_end(&p);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    n = slurp(data, sizeof data);
    assert_int_equal(n, sizeof(gpn_share_head) + sizeof(gpn_share_record));
    for (i = 0; i + 6 < n; i++) {
        assert_true(memcmp(data + i, "secret", 6) != 0);
    }
}

/* ---- what is in the way ----------------------------------------------------
 */

static void a_large_request_gets_its_turn_among_small_ones(void **state)
{
    gptner_limits limits;
    process small, large;
    gpn_ticket t;
    int64_t due = 0, sent = 0, waited = -1, at;
    (void)state;
    memset(&limits, 0, sizeof limits);
    memset(&t, 0, sizeof t);
    limits.tokens_per_minute = 30000;
    process_start(&small, &limits, DAY0);
    process_start(&large, &limits, DAY0);
    for (at = 0; at < 600000 && waited < 0; at += 10) {
        small.now = large.now = 5000 + at;
        sent += process_send(&small, 100, 300);
        if (large.now >= due) {
            due = process_ask(&large, &t, 15000);
            assert_true(due >= 0);
            waited = due == 0 ? at : -1;
        }
    }
    assert_in_range(waited, 0, 90000);
    assert_true(sent > 0);
    at += 120000; /* and then the small ones go on */
    small.now = 5000 + at;
    assert_true(process_send(&small, 5, 300) > 0);
    gpn_pace_leave(&large.pace, &t);
    process_end(&small);
    process_end(&large);
}

static void a_process_that_died_in_the_queue_keeps_nobody_waiting(void **state)
{
    gptner_limits limits;
    process small, large;
    gpn_ticket t;
    int64_t due = 0, at, sent;
    (void)state;
    memset(&limits, 0, sizeof limits);
    memset(&t, 0, sizeof t);
    limits.tokens_per_minute = 30000;
    process_start(&small, &limits, DAY0);
    process_start(&large, &limits, DAY0);
    for (at = 0; small.pace.share.record.holder == 0; at += 10) {
        small.now = large.now = 5000 + at;
        process_send(&small, 100, 300);
        if (large.now >= due) {
            due = process_ask(&large, &t, 25000);
            assert_true(due > 0);
        }
    }
    process_end(&large); /* killed: it asks no more */
    for (sent = 0; sent == 0; at += 10) {
        small.now = 5000 + at;
        sent += process_send(&small, 100, 300);
        assert_true(small.now < large.now + 2500);
    }
    for (sent = 0, due = at + 60000; at < due; at += 10) {
        small.now = 5000 + at;
        sent += process_send(&small, 100, 300);
    }
    assert_true(sent >= 95);
    process_end(&small);
}

static void a_file_that_is_locked_is_not_waited_for(void **state)
{
    gptner_limits limits = per_day(100);
    process a, b;
    int fd;
    (void)state;
    process_start(&a, &limits, DAY0);
    process_start(&b, &limits, DAY0);
    assert_int_equal(process_send(&a, 10, 1), 10);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0); /* somebody is stopped here */
    assert_int_equal(process_send(&a, 30, 1), 30);
    assert_int_equal(a.warnings, 1);
    close(fd);
    assert_int_equal(process_send(&a, 1, 1), 1); /* pays for those, too */
    assert_int_equal(process_send(&b, 200, 1), 100 - 41);
    assert_int_equal(b.warnings, 0);
    process_end(&a);
    process_end(&b);
}

static void a_lock_that_stays_is_an_error_at_the_start(void **state)
{
    gptner_limits limits = per_day(100);
    process p;
    int fd;
    (void)state;
    process_start(&p, &limits, DAY0);
    process_end(&p);
    fd = open(path, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    process_start_as(&p, &limits, DAY0, "x");
    assert_int_equal(p.status, GPTNER_ERR_FILE);
    assert_non_null(strstr(p.err.message, "locked"));
    process_end(&p);
    close(fd);
}

/* ---- bad files -------------------------------------------------------------
 */

static void expect_refused(const void *data, size_t len, const char *word)
{
    gptner_limits limits = per_day(100);
    process p;
    char after[4096];
    spit(data, len);
    process_start_as(&p, &limits, DAY0, "x");
    assert_int_equal(p.status, GPTNER_ERR_FILE);
    assert_non_null(strstr(p.err.message, word));
    assert_non_null(strstr(p.err.message, path));
    process_end(&p);
    assert_int_equal(slurp(after, sizeof after), len);
    assert_memory_equal(after, data, len);
}

static void a_file_of_others_is_left_alone(void **state)
{
    static const char text[] = "This is a letter to my aunt, who lives in the "
                               "country and keeps bees.\n";
    gptner_limits limits = per_day(100);
    process p;
    char data[4096];
    size_t n;
    (void)state;
    expect_refused(text, sizeof text, "another kind");
    expect_refused("g!", 2, "another kind");
    unlink(path);
    process_start(&p, &limits, DAY0);
    process_send(&p, 5, 1);
    process_end(&p);
    n = slurp(data, sizeof data);
    data[8] ^= 1;
    expect_refused(data, n, "another version");
    data[8] ^= 1;
    data[17] ^= 1;
    expect_refused(data, n, "damaged");
    data[17] ^= 1;
    spit(data, 20); /* killed while it made the file */
    process_start(&p, &limits, DAY0);
    assert_int_equal(process_send(&p, 100, 1), 100);
    process_end(&p);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    process_start_as(&p, &limits, DAY0, "x");
    assert_int_equal(p.status, GPTNER_ERR_FILE);
    process_end(&p);
    assert_int_equal(rmdir(path), 0);
}

static void a_damaged_record_is_replaced(void **state)
{
    gptner_limits limits = per_day(20);
    char data[4096];
    process p;
    size_t n, i;
    (void)state;
    process_start(&p, &limits, DAY0);
    assert_int_equal(process_send(&p, 20, 1), 20);
    process_end(&p);
    n = slurp(data, sizeof data);
    for (i = sizeof(gpn_share_head); i < n; i += 3) {
        data[i] ^= 0x40;
        spit(data, n);
        data[i] ^= 0x40;
        process_start(&p, &limits, DAY0);
        assert_int_equal(process_send(&p, 100, 1), 20);
        process_end(&p);
    }
    for (i = sizeof(gpn_share_head); i < n; i += 7) { /* cut off */
        spit(data, i);
        process_start(&p, &limits, DAY0);
        assert_int_equal(process_send(&p, 100, 1), 20);
        process_end(&p);
    }
}

static void values_out_of_range_do_no_harm(void **state)
{
    static const double bad[] = {1e300, -1e300, -1, 1e15, 1e-300, 7, 0};
    gptner_limits limits = per_day(20);
    char data[4096];
    gpn_share_record rec;
    process p;
    size_t n, i, k;
    (void)state;
    limits.tokens_per_minute = 1000;
    process_start(&p, &limits, DAY0);
    process_send(&p, 5, 1);
    n = slurp(data, sizeof data);
    for (i = 0; i < GPN_SHARE_VALUES; i++) {
        for (k = 0; k <= TEST_COUNT(bad); k++) {
            double value = k < TEST_COUNT(bad) ? bad[k] : 0;
            memcpy(&rec, data + sizeof(gpn_share_head), sizeof rec);
            if (k == TEST_COUNT(bad)) {
                memset(&value, 0xff, sizeof value); /* not a number */
            }
            rec.values[i] = value;
            rec.holder = 4711;
            rec.hold_until_ms = i % 2 == 0 ? INT64_MAX : INT64_MIN;
            rec.check = gpn_share_sum(&p.pace.share, &rec);
            memcpy(data + sizeof(gpn_share_head), &rec, sizeof rec);
            spit(data, n);
            process_end(&p);
            process_start(&p, &limits, DAY0);
            process_send(&p, 3, 1);
            p.now += 100000;
            process_send(&p, 3, 1);
            process_end(&p);
            process_start(&p, &limits, DAY0);
        }
    }
    process_end(&p);
}

static void any_file_operation_may_fail(void **state)
{
    gptner_limits limits = per_day(50);
    int n;
    bool fired = true;
    (void)state;
    for (n = 1; fired; n++) {
        process p;
        unlink(path);
        test_fault_set(GPN_FAULT_FILE, n, n % 2 == 0);
        process_start_as(&p, &limits, DAY0, "x");
        if (p.status != GPTNER_OK) {
            assert_int_equal(p.status, GPTNER_ERR_FILE);
        } else {
            assert_int_equal(process_send(&p, 20, 1), 20);
            p.now += 20000;
            assert_true(process_send(&p, 20, 1) == 20);
            assert_true(p.warnings <= 1);
        }
        fired = test_fault_fired();
        test_fault_clear();
        process_end(&p);
    }
    assert_true(n > 20);
}

/* ---- clients ---------------------------------------------------------------
 */

static void clients_share_what_the_server_lets_through(void **state)
{
    static const struct {
        int64_t rpm, tpm;
        int workers, max_tokens, longest;
        bool told;
    } cases[] = {{500, 30000, 10, 0, 16000, true},
                 {500, 30000, 10, 0, 16000, false},
                 {500, 30000, 100, 0, 16000, true},
                 {500, 30000, 10, 16, 300, false},
                 {5000, 450000, 100, 0, 16000, false}};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        scenario s;
        figures f;
        memset(&s, 0, sizeof s);
        s.rpm = cases[i].rpm;
        s.tpm = cases[i].tpm;
        s.workers = cases[i].workers;
        s.max_tokens = cases[i].max_tokens;
        s.longest = cases[i].longest;
        s.told = cases[i].told;
        s.clients = 2;
        s.shared = true;
        assert_true(run_scenario(&s, &f));
        if (f.used[0] < 95 || f.used[1] < 95 || f.refused * 100 > f.replies) {
            fail_msg("case %d: %.1f%% and %.1f%% used, %d of %d refused",
                     (int)i, f.used[0], f.used[1], (int)f.refused,
                     (int)f.replies);
        }
    }
}

static int child_run(const char *base_url)
{
    static const char *texts[40];
    gptner_config cfg = GPN_ZERO;
    gptner_run_config run = GPN_ZERO;
    gptner_run_summary sum;
    gptner_client *c;
    gptner_error err;
    bool ok;
    size_t i;
    for (i = 0; i < TEST_COUNT(texts); i++) {
        texts[i] = "one";
    }
    cfg.base_url = base_url;
    cfg.api_key = "sk-test";
    cfg.pace_file = path;
    cfg.limits.requests_per_minute = 12000;
    if (gptner_client_new(&cfg, &c, &err) != GPTNER_OK) {
        return 2;
    }
    run.texts = texts;
    run.n_prompts = TEST_COUNT(texts);
    ok = gptner_run(c, &run, &sum, &err) == GPTNER_OK &&
         sum.ok == (int64_t)TEST_COUNT(texts);
    gptner_client_free(c);
    return ok ? 0 : 1;
}

static void real_processes_charge_one_record(void **state)
{
    mock_options opt = MKI_ZERO;
    mock_server *mock;
    gpn_share share;
    gpn_limiter l;
    char why[256], url[128];
    pid_t child[3];
    int status, i, port[2];
    pid_t server;
    int oserr = 0;
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it does not follow a fork to new threads */
#endif
    if (getenv("GPTNER_SLOW") != NULL) {
        skip(); /* valgrind would ask the children for what cmocka holds */
    }
    memset(url, 0, sizeof url);
    assert_int_equal(pipe(port), 0);
    server = fork();
    assert_true(server >= 0);
    if (server == 0) { /* it has threads, which a fork would not copy */
        alarm(120);
        opt.expect_repeats = -1;
        if (!mock_server_start(&opt, &mock, why, sizeof why)) {
            _exit(1);
        }
        snprintf(url, sizeof url, "%s", mock_server_base_url(mock));
        if (write(port[1], url, sizeof url) != (ssize_t)sizeof url) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    close(port[1]);
    assert_int_equal(read(port[0], url, sizeof url), sizeof url);
    for (i = 0; i < 3; i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i] == 0) {
            alarm(120);
            _exit(child_run(url));
        }
    }
    for (i = 0; i < 3; i++) {
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_int_equal(status, 0);
    }
    kill(server, SIGKILL);
    waitpid(server, &status, 0);
    close(port[0]);
    memset(&share, 0, sizeof share);
    memset(&l, 0, sizeof l);
    assert_true(gpn_file_open(&share.file, path, GPN_FILE_READ, &oserr));
    assert_int_equal(gpn_file_read_at(&share.file, (char *)&share.record,
                                      sizeof share.record, 64, &oserr),
                     sizeof share.record);
    assert_true(gpn_account_move(&l.account, share.record.values, 0, true));
    assert_int_equal(l.account.number, 120);
    assert_int_equal((int)l.account.sum[GPN_REQUESTS][GPN_UNIT_MORE], 120);
    gpn_file_close(&share.file, &oserr);
}

static void a_client_refuses_a_bad_file(void **state)
{
    gptner_config cfg = GPN_ZERO;
    gptner_client *c = NULL;
    gptner_error err;
    (void)state;
    cfg.api_key = "sk-test";
    cfg.base_url = "http://127.0.0.1:9/v1";
    cfg.pace_file = "/nonexistent/folder/pace";
    assert_int_equal(gptner_client_new(&cfg, &c, &err), GPTNER_ERR_FILE);
    assert_null(c);
    spit("letters", 7);
    cfg.pace_file = path;
    assert_int_equal(gptner_client_new(&cfg, &c, &err), GPTNER_ERR_FILE);
    assert_non_null(strstr(err.message, "another kind"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_field_of_the_account_is_in_the_record),
        TEST(an_account_comes_back_as_it_was_stored),
        TEST(two_processes_have_one_quota),
        TEST(the_count_of_a_day_outlives_process_and_machine),
        TEST(a_record_of_the_future_is_not_believed),
        TEST(other_keys_and_other_models_are_other_accounts),
        TEST(the_file_is_private_and_has_no_key),
        TEST(a_large_request_gets_its_turn_among_small_ones),
        TEST(a_process_that_died_in_the_queue_keeps_nobody_waiting),
        TEST(a_file_that_is_locked_is_not_waited_for),
        TEST(a_lock_that_stays_is_an_error_at_the_start),
        TEST(a_file_of_others_is_left_alone),
        TEST(a_damaged_record_is_replaced),
        TEST(values_out_of_range_do_no_harm),
        TEST(any_file_operation_may_fail),
        TEST(clients_share_what_the_server_lets_through),
        TEST(real_processes_charge_one_record),
        TEST(a_client_refuses_a_bad_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
