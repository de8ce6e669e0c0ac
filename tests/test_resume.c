/* Parallel runs that are ended and called again: cancelled, killed at random
 * and before every file call, with failing files, memory and power. Each time
 * the next run must send only what is missing, and in the end there is one
 * right answer for each prompt, in order.
 *   RESUME_CRASHES=N   kills at random (200)
 *   GPTNER_SLOW=1      ever larger steps, for valgrind and the sanitizers
 *   RESUME_VERBOSE=1   figures
 *   TEST_ONLY=NAME     of one test, * and ? allowed
 * What is killed, and its server, run in children of this process. */
#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include <ftw.h>
#include <setjmp.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "power_loss.h"

/* Shared with children: what they are to do, and what became of it. */
typedef struct orders {
    int kill_kind, kill_at; /* SIGKILL before the n-th call of a kind */
    int fault_kind, fault_at;
    bool fault_on;
    long no_memory_at;
    int status; /* a gptner_status; -1: none yet */
    char message[400];
    long total, ok, failed, resumed, requests, blocks, allocations;
    int descriptors, fired;
    int calls[16];
    long posts; /* requests sent */
    long kept;  /* records written */
} orders;

static orders *order;

static ssize_t counting_send(int fd, const void *data, size_t len, int flags)
{
    if (order != NULL && len > 5 && memcmp(data, "POST ", 5) == 0) {
        __atomic_add_fetch(&order->posts, 1, __ATOMIC_SEQ_CST);
    }
    return send(fd, data, len, flags);
}

static ssize_t counting_write(int fd, const void *data, size_t len)
{
    ssize_t n = power_write(fd, data, len);

    if (order != NULL && n == (ssize_t)len && len > 20 &&
        memcmp((const char *)data + 16, " {\"key\":", 8) == 0) {
        __atomic_add_fetch(&order->kept, 1, __ATOMIC_SEQ_CST);
    }
    return n;
}

#undef write
#define write counting_write
#define send  counting_send

#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#undef open
#undef close
#undef write
#undef send
#undef fsync
#undef rename
#undef unlink
#undef unlinkat

int counted_fault(int kind);
#define gptner_fault counted_fault
#include "test_common.h"
#undef gptner_fault

#define WORKERS 4

static char work_dir[256], data_dir[256], output[300], journal[300];
static pid_t server_pid;
static int server_port;
static bool slow, verbose;
static int n_broken;
static char label[160];

int gptner_fault(int kind)
{
    int call;

    if (order == NULL) {
        return 0;
    }
    call = __atomic_add_fetch(&order->calls[kind & 15], 1, __ATOMIC_SEQ_CST);
    if (kind == order->kill_kind && call == order->kill_at) {
        kill(getpid(), SIGKILL);
    }
    if (kind == order->fault_kind &&
        (order->fault_on ? call >= order->fault_at : call == order->fault_at)) {
        __atomic_add_fetch(&order->fired, 1, __ATOMIC_SEQ_CST);
        return 1;
    }
    return 0;
}

static void broken(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
static void broken(const char *format, ...)
{
    char text[1200];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (++n_broken <= 20) {
        print_error("%s: %s\n", label, text);
    }
}

static void expect_nothing_broken(void)
{
    int n = n_broken;

    n_broken = 0;
    assert_int_equal(n, 0);
}

/* What the server answers to a prompt, by its manual. */
static void expected_hash(const char *text, char out[17])
{
    char data[256];
    unsigned char hash[32];
    int k, len = snprintf(data, sizeof data, "user\n%s\n", text);

    test_sha256(data, (size_t)len, hash);
    for (k = 0; k < 8; k++) {
        snprintf(out + 2 * k, 3, "%02x", (unsigned)hash[k]);
    }
}

/* ---- the server, in a process of its own ---- */

static void server_start(int latency_ms)
{
    int pipes[2];
    char why[256];
    mock_options opt;
    mock_server *mock = NULL;

    assert_int_equal(pipe(pipes), 0);
    server_pid = fork();
    assert_true(server_pid >= 0);
    if (server_pid == 0) {
        int port;

        order = NULL;
        memset(&opt, 0, sizeof opt);
        opt.reply = "hash";
        opt.latency_ms = latency_ms;
        opt.latency_jitter_ms = latency_ms;
        opt.expect_repeats = -1;
        opt.data_dir = data_dir;
        if (!mock_server_start(&opt, &mock, why, sizeof why)) {
            fprintf(stderr, "mock: %s\n", why);
            _exit(1);
        }
        port = mock_server_port(mock);
        if (write(pipes[1], &port, sizeof port) != (ssize_t)sizeof port) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &server_port, sizeof server_port),
                     sizeof server_port);
    close(pipes[0]);
}

static void server_kill(void)
{
    if (server_pid > 0) {
        kill(server_pid, SIGKILL);
        waitpid(server_pid, NULL, 0);
    }
    server_pid = 0;
}

/* A number of the server's counters. */
static long server_count(const char *key)
{
    struct sockaddr_in to;
    static const char request[] = "GET /mock/stats HTTP/1.1\r\nHost: "
                                  "127.0.0.1\r\nConnection: close\r\n\r\n";
    char *text = (char *)calloc(1, 65536), quoted[64], *at;
    size_t len = 0;
    ssize_t n;
    long count;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)server_port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_true(write(fd, request, strlen(request)) > 0);
    while (len < 65535 && (n = read(fd, text + len, 65535 - len)) > 0) {
        len += (size_t)n;
    }
    close(fd);
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = strstr(text, quoted);
    count = at != NULL ? strtol(at + strlen(quoted), NULL, 10) : -1;
    free(text);
    return count;
}

/* ---- one run in a child ---- */

static int many_next(gptner_prompt *prompt, gptner_error *err, void *user)
{
    static char text[64];
    long *left = (long *)user;

    (void)err;
    if (left[0] == left[1]) {
        return 0;
    }
    snprintf(text, sizeof text, "prompt number %ld", left[0]++);
    prompt->text = gptner_str_from(text);
    return 1;
}

static gptner_status run_in_child(long n_prompts, test_mem *memory,
                                  gptner_error *err)
{
    long left[2] = {0, 0};
    char url[64];
    gptner_client *client = NULL;
    gptner_config cfg;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_status status;

    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", server_port);
    memset(&cfg, 0, sizeof cfg);
    memset(&sum, 0, sizeof sum);
    cfg.base_url = url;
    cfg.api_key = "sk-test-0123456789";
    cfg.proxy = "";
    cfg.max_workers = WORKERS;
    cfg.max_retries = 1;
    cfg.max_threads = n_prompts > 100 ? 2 : 1;
    cfg.allocator = test_mem_allocator(memory);
    memset(&run, 0, sizeof run);
    left[1] = n_prompts;
    run.next_fn = many_next;
    run.next_user = left;
    run.output_path = output;
    run.journal_path = journal;
    status = gptner_client_new(&cfg, &client, err);
    if (status == GPTNER_OK) {
        status = gptner_run(client, &run, &sum, err);
    }
    gptner_client_free(client);
    order->total = (long)sum.total;
    order->ok = (long)sum.ok;
    order->failed = (long)sum.failed;
    order->resumed = (long)sum.resumed;
    order->requests = (long)sum.requests;
    return status;
}

static int open_descriptors(void)
{
    int fd, n = 0;

    for (fd = 0; fd < 128; fd++) {
        n += fcntl(fd, F_GETFD) != -1;
    }
    return n;
}

static pid_t run_start(long n_prompts)
{
    pid_t pid;

    memset(order->calls, 0, sizeof order->calls);
    order->status = -1;
    order->message[0] = '\0';
    order->blocks = order->posts = order->kept = 0;
    order->fired = order->descriptors = 0;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        test_mem memory;
        gptner_error err;
        int before = open_descriptors();

        alarm(slow ? 600 : 60);
        memset(&memory, 0, sizeof memory);
        memset(&err, 0, sizeof err);
        memory.fail_at = order->no_memory_at;
        order->status = (int)run_in_child(n_prompts, &memory, &err);
        snprintf(order->message, sizeof order->message, "%s", err.message);
        order->blocks = memory.blocks;
        order->allocations = memory.calls;
        order->descriptors = open_descriptors() - before;
        _exit(0);
    }
    return pid;
}

/* 0: it came to its end; else the signal or status that ended it. */
static int run_wait(pid_t pid)
{
    int how = 0;

    assert_int_equal(waitpid(pid, &how, 0), pid);
    if (WIFSIGNALED(how)) {
        if (WTERMSIG(how) != SIGKILL) {
            broken("ended by signal %d", WTERMSIG(how));
        }
        return WTERMSIG(how);
    }
    if (WEXITSTATUS(how) != 0 && WEXITSTATUS(how) != POWER_EXIT) {
        broken("exit status %d", WEXITSTATUS(how));
    }
    return WEXITSTATUS(how);
}

static int run_child(long n_prompts)
{
    return run_wait(run_start(n_prompts));
}

static void calm(void)
{
    memset(order, 0, sizeof *order);
    power_calm();
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *at)
{
    (void)st;
    (void)type;
    return at->level > 0 ? remove(path) : 0;
}

/* An empty folder and a fresh server. */
static void begin(int latency_ms)
{
    server_kill();
    powered->on = false;
    nftw(work_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    server_start(latency_ms);
    calm();
}

/* ---- what must be true in the end ---- */

static void check_output(long n_prompts)
{
    size_t len;
    char *text = test_slurp(output, &len), *rest = text, *line;
    char want[17], prompt[64];
    long i = 0;

    while ((line = test_cut(&rest, '\n')) != NULL) {
        snprintf(prompt, sizeof prompt, "prompt number %ld", i++);
        expected_hash(prompt, want);
        if (strcmp(line, want) != 0) {
            broken("wrong answer %ld: %.100s", i - 1, line);
        }
    }
    if (i != n_prompts) {
        broken("%ld answers", i);
    }
    free(text);
}

/* A file that was begun when the process was killed may be left over. */
static void check_folder(void)
{
    DIR *dir = opendir(work_dir);
    const struct dirent *entry;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "out.txt") != 0 &&
            strstr(entry->d_name, ".part-") == NULL) {
            broken("%s is left over", entry->d_name);
        }
    }
    closedir(dir);
}

static void check_tidy(void)
{
    if (order->blocks != 0 || order->descriptors != 0) {
        broken("%ld blocks and %d descriptors are left", order->blocks,
               order->descriptors);
    }
}

static void check_good(long n_prompts, long may_repeat)
{
    long again = server_count("prompts_answered_again");

    if (order->status != GPTNER_OK) {
        broken("%s: %s", gptner_status_name((gptner_status)order->status),
               order->message);
    }
    if (order->ok != n_prompts || order->total != n_prompts) {
        broken("%ld of %ld ok", order->ok, order->total);
    }
    if (order->requests + order->resumed != n_prompts) {
        broken("%ld requests, %ld resumed", order->requests, order->resumed);
    }
    if (again > may_repeat) {
        broken("%ld answers were paid again, %ld were in flight", again,
               may_repeat);
    }
    check_tidy();
    check_output(n_prompts);
    check_folder();
}

/* Runs undisturbed until the end, unless that was reached: the output is in
 * its place, and the journal gone. */
static void finish(long n_prompts, long may_repeat)
{
    if (access(output, F_OK) == 0 && access(journal, F_OK) != 0) {
        check_output(n_prompts);
        return;
    }
    calm();
    run_child(n_prompts);
    check_good(n_prompts, may_repeat);
}

static int step(int n)
{
    return 1 + (slow ? n / 3 : 0);
}

static void tell(const char *what, long n)
{
    if (verbose) {
        print_error("%-50s %5ld\n", what, n);
    }
}

/* ---- killed ---- */

static void a_run_killed_at_random_goes_on(void **state)
{
    const char *wish = getenv("RESUME_CRASHES");
    int most = wish != NULL ? atoi(wish) : slow ? 10 : 200, kills = 0;
    long n_prompts = most * 15, in_flight = 0, again;
    uint64_t seed = 5;

    (void)state;
    snprintf(label, sizeof label, "kills at random");
    begin(2);
    while (kills < most && n_broken <= 20) {
        pid_t pid;

        calm();
        pid = run_start(n_prompts);
        usleep((useconds_t)(power_random(&seed) % 30000));
        kill(pid, SIGKILL);
        if (run_wait(pid) == 0) {
            break; /* it was faster */
        }
        kills++;
        in_flight += order->posts - order->kept;
        if (order->posts - order->kept > WORKERS + 1) {
            broken("%ld requests in flight", order->posts - order->kept);
        }
    }
    finish(n_prompts, in_flight);
    again = server_count("prompts_answered_again");
    tell("kills", kills);
    tell("in flight at the kills", in_flight);
    tell("paid again", again);
    tell("taken from the journal at the end", order->resumed);
    if (kills < most / 2) {
        broken("only %d kills", kills);
    }
    expect_nothing_broken();
}

static void a_run_killed_before_any_file_call_goes_on(void **state)
{
    const long n_prompts = 7;
    int n;

    (void)state;
    for (n = 1; n_broken <= 20; n += step(n)) {
        snprintf(label, sizeof label, "killed before file call %d", n);
        begin(0);
        order->kill_kind = GPN_FAULT_FILE;
        order->kill_at = n;
        if (run_child(n_prompts) == 0) {
            check_good(n_prompts, 0);
            break;
        }
        finish(n_prompts, order->posts - order->kept);
    }
    tell("kills before file calls", n);
    expect_nothing_broken();
}

static void a_run_killed_while_it_is_taken_up_goes_on(void **state)
{
    const long n_prompts = 7;
    int n, m;

    (void)state;
    for (n = 9; n <= 15 && n_broken <= 20; n += 3) {
        for (m = 1; n_broken <= 20; m += step(m)) {
            long lost;

            snprintf(label, sizeof label, "killed before file call %d, then %d",
                     n, m);
            begin(0);
            order->kill_kind = GPN_FAULT_FILE;
            order->kill_at = n;
            run_child(n_prompts);
            lost = order->posts - order->kept;
            order->kill_at = m;
            if (run_child(n_prompts) == 0) {
                break;
            }
            finish(n_prompts, lost + order->posts - order->kept);
        }
    }
    expect_nothing_broken();
}

/* ---- failing files, memory, power ---- */

/* It did not end well, or not with all answers: the next run does. */
static void check_failed(long n_prompts, long may_repeat)
{
    if (order->status != GPTNER_OK && order->message[0] == '\0') {
        broken("status %d without a message", order->status);
    }
    check_tidy();
    if (order->status == GPTNER_OK && order->failed == 0) {
        check_output(n_prompts);
        return;
    }
    calm();
    run_child(n_prompts);
    if (order->status != GPTNER_OK || order->failed > 0) {
        broken("then %s: %s", gptner_status_name((gptner_status)order->status),
               order->message);
    }
    check_good(n_prompts, may_repeat);
}

static void fail_file_calls(bool on)
{
    const long n_prompts = 7;
    int n, failed = 0;

    for (n = 1; n_broken <= 20; n += step(n)) {
        snprintf(label, sizeof label, "file call %d%s fails", n,
                 on ? " and all after it" : "");
        begin(0);
        order->kill_kind = GPN_FAULT_FILE; /* something is there already */
        order->kill_at = 12;
        run_child(n_prompts);
        order->kill_kind = 0;
        order->fault_kind = GPN_FAULT_FILE;
        order->fault_at = n;
        order->fault_on = on;
        run_child(n_prompts);
        if (order->fired == 0) {
            break;
        }
        failed += order->status != GPTNER_OK;
        check_failed(n_prompts, 4 * WORKERS);
    }
    if (failed < 5 && !slow) {
        broken("only %d failures were noticed", failed);
    }
    expect_nothing_broken();
}

static void failing_file_calls_lose_nothing(void **state)
{
    (void)state;
    fail_file_calls(false);
    fail_file_calls(true);
}

static void no_memory_at_any_time_loses_nothing(void **state)
{
    const long n_prompts = 7;
    long n;

    (void)state;
    for (n = 1; n_broken <= 20; n += 1 + n / (slow ? 3 : 40)) {
        snprintf(label, sizeof label, "allocation %ld fails", n);
        begin(0);
        order->kill_kind = GPN_FAULT_FILE;
        order->kill_at = 12;
        run_child(n_prompts);
        order->kill_kind = 0;
        order->no_memory_at = n;
        run_child(n_prompts);
        if (order->allocations < n) {
            break;
        }
        check_failed(n_prompts, 4 * WORKERS);
    }
    expect_nothing_broken();
}

static void a_power_cut_loses_no_more_than_was_not_synced(void **state)
{
    const long n_prompts = 5;
    int k;
    bool cut = true;

    (void)state;
    for (k = 1; cut && n_broken <= 20; k += step(k)) {
        int fate;

        for (fate = slow ? k % 4 : 0; fate <= POWER_RANDOM;
             fate += slow ? 4 : 1) {
            snprintf(label, sizeof label, "power cut before change %d (%d)", k,
                     fate);
            begin(0);
            power_start(work_dir);
            power_calm();
            powered->cut_at = k;
            cut = run_child(n_prompts) == POWER_EXIT;
            power_cut((power_fate)fate, (uint64_t)(k * 10 + fate));
            finish(n_prompts, n_prompts);
        }
    }
    tell("changes of the disk", k);
    expect_nothing_broken();
}

static void a_full_disk_stops_the_run_and_loses_nothing(void **state)
{
    const long n_prompts = 60;
    int k;

    (void)state;
    for (k = 1; k <= 40 && n_broken <= 20; k += 3 + step(k)) {
        long kept, posts;

        snprintf(label, sizeof label, "write %d fails: full", k);
        begin(0);
        power_start(work_dir);
        power_calm();
        powered->fail_kind = POWER_WRITE;
        powered->fail_at = k;
        powered->fail_on = true;
        powered->fail_errno = ENOSPC;
        run_child(n_prompts);
        if (order->status != GPTNER_ERR_FILE ||
            strstr(order->message, "no space left") == NULL) {
            broken("%s: %s", gptner_status_name((gptner_status)order->status),
                   order->message);
        }
        kept = order->kept;
        posts = order->posts;
        if (posts > kept + 2 * WORKERS) {
            broken("%ld requests, but %ld kept", posts, kept);
        }
        check_tidy();
        calm();
        run_child(n_prompts);
        if (order->resumed != kept) {
            broken("%ld resumed, %ld kept", order->resumed, kept);
        }
        check_good(n_prompts, posts - kept);
    }
    expect_nothing_broken();
}

static void short_writes_are_completed(void **state)
{
    (void)state;
    snprintf(label, sizeof label, "short writes");
    begin(0);
    power_start(work_dir);
    power_calm();
    powered->short_write = true;
    order->kill_kind = GPN_FAULT_FILE;
    order->kill_at = 12;
    run_child(9);
    order->kill_kind = 0;
    run_child(9);
    check_good(9, WORKERS);
    expect_nothing_broken();
}

/* ---- in this process ---- */

typedef struct env {
    mock_options mock_opt;
    mock_server *mock;
    gptner_config cfg;
    gptner_client *client;
    gptner_error err;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_result **results;
    size_t n;
} env;

static void env_start(env *e, const char *const *faults, size_t n)
{
    char why[256];

    nftw(work_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    calm();
    powered->on = false;
    snprintf(label, sizeof label, "in process");
    if (e->mock_opt.reply == NULL) {
        e->mock_opt.reply = "hash";
    }
    e->mock_opt.expect_repeats = -1;
    e->mock_opt.faults = faults;
    e->mock_opt.n_faults = n;
    if (!mock_server_start(&e->mock_opt, &e->mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    e->cfg.base_url = mock_server_base_url(e->mock);
    e->cfg.api_key = "sk-test-0123456789";
    e->cfg.proxy = "";
    e->cfg.max_retries = -1;
    if (gptner_client_new(&e->cfg, &e->client, &e->err) != GPTNER_OK) {
        fail_msg("client: %s", e->err.message);
    }
    e->run.journal_path = journal;
    e->run.results = &e->results;
    e->run.n_results = &e->n;
}

static void env_end(env *e)
{
    gptner_results_free(e->results, e->n);
    gptner_client_free(e->client);
    mock_server_stop(e->mock);
}

/* Another client, with what e->cfg says now. */
static void env_renew(env *e)
{
    gptner_client_free(e->client);
    e->client = NULL;
    if (gptner_client_new(&e->cfg, &e->client, &e->err) != GPTNER_OK) {
        fail_msg("client: %s", e->err.message);
    }
}

static gptner_status env_run(env *e)
{
    gptner_results_free(e->results, e->n);
    e->results = NULL;
    e->n = 0;
    return gptner_run(e->client, &e->run, &e->sum, &e->err);
}

static bool there(const char *path)
{
    return access(path, F_OK) == 0;
}

static bool stop_at_5(const gptner_result *r, void *user)
{
    int *seen = (int *)user;

    (void)r;
    return ++*seen != 5;
}

/* Run it until five results are there, then again to its end. */
static void run_in_two(env *e, int64_t n)
{
    int seen = 0;

    e->run.result_fn = stop_at_5;
    e->run.result_user = &seen;
    assert_int_equal(env_run(e), GPTNER_ERR_CANCELLED);
    assert_true(there(journal));
    e->run.result_fn = NULL;
    assert_int_equal(env_run(e), GPTNER_OK);
    assert_int_equal(e->sum.total, n);
    assert_int_equal(e->sum.ok, n);
    assert_true(e->sum.resumed >= 5);
    assert_false(there(journal));
}

static void check_results(const env *e, size_t n)
{
    size_t i, k;

    assert_int_equal(e->n, n);
    for (i = 0; i < n; i++) {
        char text[64], want[17];

        snprintf(text, sizeof text, "prompt number %d", (int)i);
        expected_hash(text, want);
        for (k = 0; k < n && e->results[k]->index != i; k++) {
        }
        assert_true(k < n);
        assert_int_equal(e->results[k]->status, GPTNER_OK);
        assert_int_equal(e->results[k]->text.len, 16);
        assert_memory_equal(e->results[k]->text.ptr, want, 16);
    }
}

#define N_TEXTS 40

static char texts[N_TEXTS][32];
static const char *text_list[N_TEXTS];

static void every_source_and_place_can_be_resumed(void **state)
{
    env e = {0};
    gptner_prompt prompts[N_TEXTS];
    char plain[300], jsonl[300];
    FILE *a, *b;
    int i, way;

    (void)state;
    env_start(&e, NULL, 0);
    snprintf(plain, sizeof plain, "%s/in.txt", work_dir);
    snprintf(jsonl, sizeof jsonl, "%s/in.jsonl", work_dir);
    a = fopen(plain, "w");
    b = fopen(jsonl, "w");
    memset(prompts, 0, sizeof prompts);
    for (i = 0; i < N_TEXTS; i++) {
        prompts[i].text = gptner_str_from(texts[i]);
        fprintf(a, "%s\n", texts[i]);
        fprintf(b, "{\"prompt\":\"%s\",\"custom_id\":\"c%d\"}\n", texts[i], i);
    }
    fclose(a);
    fclose(b);
    for (way = 0; way < 10; way++) {
        long numbers[2] = {0, N_TEXTS};
        int64_t before = mock_server_count(e.mock, "responses.200");

        e.run.prompts = way % 5 == 0 ? prompts : NULL;
        e.run.texts = way % 5 == 1 ? text_list : NULL;
        e.run.n_prompts = way % 5 < 2 ? N_TEXTS : 0;
        e.run.input_path = way % 5 == 2 ? plain : way % 5 == 3 ? jsonl : NULL;
        e.run.next_fn = way % 5 == 4 ? many_next : NULL;
        e.run.next_user = numbers;
        e.run.as_completed = way >= 5;
        e.run.dedupe = way % 2 == 1;
        if (way % 5 == 4) {
            int seen = 0;

            e.run.result_fn = stop_at_5;
            e.run.result_user = &seen;
            assert_int_equal(env_run(&e), GPTNER_ERR_CANCELLED);
            numbers[0] = 0;
            e.run.result_fn = NULL;
            assert_int_equal(env_run(&e), GPTNER_OK);
            assert_false(there(journal));
        } else {
            run_in_two(&e, N_TEXTS);
        }
        check_results(&e, N_TEXTS);
        assert_in_range(mock_server_count(e.mock, "responses.200") - before,
                        N_TEXTS, N_TEXTS + 10);
    }
    env_end(&e);
}

static void a_resumed_result_says_what_the_first_one_said(void **state)
{
    env e = {0};
    gptner_result **first;
    size_t n, i;
    static const char *const faults[] = {"400@40"};

    (void)state;
    e.cfg.keep_raw = true;
    e.cfg.max_workers = 1;
    env_start(&e, faults, 1);
    e.run.texts = text_list;
    e.run.n_prompts = N_TEXTS;
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.failed, 1);
    assert_true(there(journal)); /* one has no answer yet */
    first = e.results;
    n = e.n;
    e.results = NULL;
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.resumed, N_TEXTS - 1);
    assert_int_equal(e.sum.requests, 1);
    assert_true(e.sum.prompt_tokens > 0 && e.sum.prompt_tokens < 100);
    assert_false(there(journal));
    for (i = 0; i < n - 1; i++) {
        gpn_buf a, b;
        gptner_json_writer w;

        assert_false(first[i]->resumed);
        assert_true(e.results[i]->resumed);
        gpn_buf_init(&a, &e.client->env, 1 << 20);
        gpn_buf_init(&b, &e.client->env, 1 << 20);
        gpn_json_writer_init(&w, &a);
        gptner_json_write_object(&w);
        gpn_out_put(&w, gpn_out_members, first[i]);
        gpn_json_writer_init(&w, &b);
        gptner_json_write_object(&w);
        gpn_out_put(&w, gpn_out_members, e.results[i]);
        assert_true(a.len > 100);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.data, b.data, a.len);
        gpn_buf_deinit(&a);
        gpn_buf_deinit(&b);
    }
    gptner_results_free(first, n);
    env_end(&e);
}

static void edited_input_keeps_the_answers_of_the_rest(void **state)
{
    env e = {0};
    const char *edited[N_TEXTS + 1];
    char broken_line[] = "not UTF-8: \xff";
    int i;

    (void)state;
    env_start(&e, NULL, 0);
    for (i = 0; i < N_TEXTS; i++) {
        edited[i] = text_list[i];
    }
    edited[20] = broken_line; /* keeps the journal there */
    e.run.texts = edited;
    e.run.n_prompts = N_TEXTS;
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.failed, 1);
    for (i = N_TEXTS; i > 0; i--) { /* one more in front, one changed */
        edited[i] = text_list[i - 1];
    }
    edited[0] = "a new one";
    edited[10] = "a changed one";
    e.run.n_prompts = N_TEXTS + 1;
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.ok, N_TEXTS + 1);
    assert_int_equal(e.sum.requests, 3);
    assert_int_equal(e.sum.resumed, N_TEXTS - 2);
    env_end(&e);
}

static void other_options_take_no_answer_from_the_journal(void **state)
{
    env e = {0};
    const char *list[3] = {"one", "two", "\xff"};

    (void)state;
    env_start(&e, NULL, 0);
    e.run.texts = list;
    e.run.n_prompts = 3;
    assert_int_equal(env_run(&e), GPTNER_OK);
    e.cfg.options.max_tokens = 77;
    env_renew(&e);
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.resumed, 0);
    assert_int_equal(e.sum.requests, 2);
    e.cfg.organization = "another";
    env_renew(&e);
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.resumed, 0);
    e.cfg.organization = NULL;
    e.cfg.api_key = "sk-another-key-0000";
    env_renew(&e);
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.resumed, 2);
    env_end(&e);
}

/* Without dedupe each has an answer of its own, and keeps it. */
static void equal_prompts_keep_an_answer_each(void **state)
{
    env e = {0};
    enum { MANY = 300 };
    const char *list[MANY];
    static const char *const faults[] = {"500@100"};
    char *ids[MANY];
    int i;

    (void)state;
    env_start(&e, faults, 1);
    for (i = 0; i < MANY; i++) {
        list[i] = "the same";
    }
    e.run.texts = list;
    e.run.n_prompts = MANY;
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.failed, 1);
    for (i = 0; i < MANY; i++) {
        ids[i] = gpn_str_dup(&e.client->env, e.results[i]->id);
    }
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.requests, 1);
    assert_int_equal(e.sum.resumed, MANY - 1);
    for (i = 0; i < MANY; i++) {
        int k;

        for (k = 0; k < i; k++) {
            assert_false(gpn_str_eq(e.results[i]->id, e.results[k]->id));
        }
        gpn_mem_free(&e.client->env, ids[i]);
    }
    env_end(&e);
}

static void failures_are_sent_again_but_refusals_are_answers(void **state)
{
    env e = {0};
    static const char *const faults[] = {"refusal@2", "500@4", "length@6"};

    (void)state;
    e.cfg.max_workers = 1;
    env_start(&e, faults, 3);
    e.run.texts = text_list;
    e.run.n_prompts = 8;
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.ok, 5);
    assert_int_equal(e.results[1]->status, GPTNER_ERR_REFUSED);
    assert_int_equal(e.results[5]->status, GPTNER_ERR_TRUNCATED);
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.requests, 1);
    assert_int_equal(e.sum.resumed, 7);
    assert_int_equal(e.results[1]->status, GPTNER_ERR_REFUSED);
    assert_true(e.results[1]->choices[0].refusal.len > 0);
    assert_true(e.results[1]->message[0] != '\0');
    assert_int_equal(e.results[5]->status, GPTNER_ERR_TRUNCATED);
    assert_int_equal(e.results[3]->status, GPTNER_OK);
    assert_false(there(journal));
    env_end(&e);
}

static void an_output_that_fails_keeps_the_journal(void **state)
{
    env e = {0};

    (void)state;
    env_start(&e, NULL, 0);
    e.run.texts = text_list;
    e.run.n_prompts = 8;
    e.run.output_path = "/dev/full";
    assert_int_equal(env_run(&e), GPTNER_ERR_FILE);
    assert_true(there(journal));
    e.run.output_path = output;
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(e.sum.resumed, 8);
    assert_int_equal(e.sum.requests, 0);
    check_output(8);
    assert_false(there(journal));
    env_end(&e);
}

static void two_runs_do_not_share_a_journal(void **state)
{
    env e = {0};
    gpn_file lock;
    bool busy;
    int oserr;
    char path[320];

    (void)state;
    env_start(&e, NULL, 0);
    snprintf(path, sizeof path, "%s.lock", journal);
    assert_true(gpn_lock_take(&lock, path, &busy, &oserr));
    e.run.texts = text_list;
    e.run.n_prompts = 3;
    assert_int_equal(env_run(&e), GPTNER_ERR_BUSY);
    assert_non_null(strstr(e.err.message, "another run"));
    gpn_lock_give(&lock, path);
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_false(there(path));
    env_end(&e);
}

static void a_file_that_is_no_journal_is_left_alone(void **state)
{
    env e = {0};
    static const char *const contents[] = {
        "my precious data\n", "gptner journal 2\n{}\n", "gptner jour"};
    size_t i, len;

    (void)state;
    env_start(&e, NULL, 0);
    e.run.texts = text_list;
    e.run.n_prompts = 3;
    for (i = 0; i < TEST_COUNT(contents); i++) {
        char *text;

        test_spit(journal, contents[i], strlen(contents[i]));
        assert_int_equal(env_run(&e), GPTNER_ERR_CHANGED);
        text = test_slurp(journal, &len);
        assert_string_equal(text, contents[i]);
        free(text);
    }
    e.run.output_path = journal;
    assert_int_equal(env_run(&e), GPTNER_ERR_INVALID_ARGUMENT);
    e.run.output_path = NULL;
    test_spit(journal, "", 0);
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(mock_server_count(e.mock, "responses.200"), 3);
    env_end(&e);
}

/* Each byte of a journal changed, and each length cut: what is whole is used,
 * and no answer is wrong. */
static void damage_costs_no_more_than_what_it_hits(void **state)
{
    env e = {0};
    const char *list[4] = {texts[0], texts[1], texts[2], "\xff"};
    char *whole;
    size_t len, i, head = strlen(GPN_JOURNAL_HEAD);

    (void)state;
    env_start(&e, NULL, 0);
    e.run.texts = list;
    e.run.n_prompts = 4;
    assert_int_equal(env_run(&e), GPTNER_OK);
    whole = test_slurp(journal, &len);
    for (i = head; i < len; i += slow ? 97 : 1) {
        char *copy = (char *)malloc(len + 1);
        int k;

        memcpy(copy, whole, len);
        copy[i] ^= i % 3 == 0 ? 0x0a : 0x20;
        test_spit(journal, copy, i % 2 == 0 ? len : i);
        assert_int_equal(env_run(&e), GPTNER_OK);
        assert_int_equal(e.sum.resumed + e.sum.requests, 3);
        assert_true(e.sum.resumed >= (i % 2 == 0 ? 1 : 0));
        for (k = 0; k < 3; k++) {
            char want[17];

            expected_hash(list[k], want);
            assert_memory_equal(e.results[k]->text.ptr, want, 16);
        }
        assert_int_equal(env_run(&e), GPTNER_OK);
        assert_int_equal(e.sum.resumed, 3); /* behind a torn line, too */
        free(copy);
    }
    free(whole);
    env_end(&e);
}

static void progress_has_what_was_resumed_at_once(const gptner_progress *p,
                                                  void *user)
{
    if (p->finished) {
        *(int64_t *)user = p->done;
    }
}

static void progress_counts_what_is_resumed(void **state)
{
    env e = {0};
    const char *list[4] = {texts[0], texts[1], texts[2], "\xff"};
    int64_t done = 0;

    (void)state;
    env_start(&e, NULL, 0);
    e.run.texts = list;
    e.run.n_prompts = 4;
    assert_int_equal(env_run(&e), GPTNER_OK);
    e.run.progress_fn = progress_has_what_was_resumed_at_once;
    e.run.progress_user = &done;
    assert_int_equal(env_run(&e), GPTNER_OK);
    assert_int_equal(done, 4);
    assert_int_equal(e.sum.resumed, 3);
    assert_int_equal(e.sum.prompt_tokens, 0);
    env_end(&e);
}

static void the_table_is_sorted_and_found_in(void **state)
{
    enum { MANY = 5000 };
    gpn_store s;
    uint64_t seed = 3;
    size_t i, n_used = 0;

    (void)state;
    memset(&s, 0, sizeof s);
    s.spots = (gpn_spot *)malloc(MANY * sizeof *s.spots);
    s.n_spots = MANY;
    for (i = 0; i < MANY; i++) {
        s.spots[i].tag = power_random(&seed) % 50;
        s.spots[i].at = (power_random(&seed) % 100) << GPN_SPOT_SHIFT | (i + 1);
    }
    gpn_spots_sort(s.spots, MANY);
    for (i = 1; i < MANY; i++) {
        assert_false(gpn_spot_before(&s.spots[i], &s.spots[i - 1]));
    }
    for (i = 0; i < MANY; i++) {
        size_t at =
            gpn_spots_find(&s, s.spots[i].tag, gpn_spot_index(&s.spots[i]));

        assert_true(at <= i);
        assert_true(at == 0 || gpn_spot_before(&s.spots[at - 1], &s.spots[i]));
    }
    for (i = 0; i < 50; i++) { /* use them up, from the middle on */
        size_t at = gpn_spots_find(&s, i, 50);

        for (; gpn_spot_has(&s, at, i); at = gpn_spot_unused(&s, at, i)) {
            gpn_spot_lead(&s, at, at + 1);
            n_used++;
        }
        while (at = gpn_spot_unused(&s, gpn_spots_find(&s, i, 0), i),
               gpn_spot_has(&s, at, i)) {
            gpn_spot_lead(&s, at, at + 1);
            n_used++;
        }
    }
    assert_int_equal(n_used, MANY);
    free(s.spots);
}

/* ---- start and end ---- */

static int start(void **state)
{
    int i;

    (void)state;
    if (order != NULL) {
        return 0; /* the second group */
    }
    slow = getenv("GPTNER_SLOW") != NULL;
    verbose = getenv("RESUME_VERBOSE") != NULL;
    order = (orders *)mmap(NULL, sizeof *order, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(order != MAP_FAILED);
    power_init();
    strcpy(test_tmp.path, "/dev/shm/gptner-XXXXXX"); /* nothing to sync */
    if (mkdtemp(test_tmp.path) != NULL) {
        test_tmp.owner = getpid();
        atexit(test_tmp_remove);
    }
    test_tmp_path(work_dir, "work");
    test_tmp_path(data_dir, "data");
    assert_int_equal(mkdir(work_dir, 0700), 0);
    assert_int_equal(mkdir(data_dir, 0700), 0);
    snprintf(output, sizeof output, "%s/out.txt", work_dir);
    snprintf(journal, sizeof journal, "%s/run.journal", work_dir);
    for (i = 0; i < N_TEXTS; i++) {
        snprintf(texts[i], sizeof texts[i], "prompt number %d", i);
        text_list[i] = texts[i];
    }
    return 0;
}

static int stop(void **state)
{
    (void)state;
    server_kill();
    return 0;
}

int main(void)
{
    const struct CMUnitTest killed[] = {
        cmocka_unit_test(a_run_killed_at_random_goes_on),
        cmocka_unit_test(a_run_killed_before_any_file_call_goes_on),
        cmocka_unit_test(a_run_killed_while_it_is_taken_up_goes_on),
        cmocka_unit_test(failing_file_calls_lose_nothing),
        cmocka_unit_test(no_memory_at_any_time_loses_nothing),
        cmocka_unit_test(a_power_cut_loses_no_more_than_was_not_synced),
        cmocka_unit_test(a_full_disk_stops_the_run_and_loses_nothing),
        cmocka_unit_test(short_writes_are_completed),
    };
    const struct CMUnitTest whole[] = {
        cmocka_unit_test(every_source_and_place_can_be_resumed),
        cmocka_unit_test(a_resumed_result_says_what_the_first_one_said),
        cmocka_unit_test(edited_input_keeps_the_answers_of_the_rest),
        cmocka_unit_test(other_options_take_no_answer_from_the_journal),
        cmocka_unit_test(equal_prompts_keep_an_answer_each),
        cmocka_unit_test(failures_are_sent_again_but_refusals_are_answers),
        cmocka_unit_test(an_output_that_fails_keeps_the_journal),
        cmocka_unit_test(two_runs_do_not_share_a_journal),
        cmocka_unit_test(a_file_that_is_no_journal_is_left_alone),
        cmocka_unit_test(damage_costs_no_more_than_what_it_hits),
        cmocka_unit_test(progress_counts_what_is_resumed),
        cmocka_unit_test(the_table_is_sorted_and_found_in),
    };
    int failed = 0;

    cmocka_set_test_filter(getenv("TEST_ONLY"));
    /* Neither valgrind nor a sanitizer of threads learns anything of processes
     * that are killed, and each start takes them seconds. ASan runs this. */
    if (getenv("GPTNER_SLOW") == NULL || getenv("RESUME_CRASHES") != NULL) {
        failed = cmocka_run_group_tests(killed, start, stop);
    }
    return cmocka_run_group_tests(whole, start, stop) + failed;
}
