/* The durable job against the mock server, in this process: what it answers,
 * what it refuses, how it is taken up again. What kills it is in
 * test_job_crash.c. Pauses take no time here, so nobody sleeps. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#define MOST 64 /* prompts */

/* ---- a clock on which pauses take no time, but answers do ---- */

static int64_t hasty_skew_ms;

static int64_t hasty_ms(void *user)
{
    struct timespec t;

    (void)user;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 +
           __atomic_load_n(&hasty_skew_ms, __ATOMIC_SEQ_CST);
}

static int64_t hasty_unix_ms(void *user)
{
    return INT64_C(1700000000000) + hasty_ms(user);
}

static uint64_t hasty_random(void *user)
{
    static uint64_t seed;

    (void)user;
    return __atomic_add_fetch(&seed, UINT64_C(0x9e3779b97f4a7c15),
                              __ATOMIC_SEQ_CST) *
           UINT64_C(0xbf58476d1ce4e5b9);
}

/* Time limits are far longer than any pause. */
static bool hasty_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    (void)user;
    if (until_ms - now_ms > 70000) {
        return false;
    }
    __atomic_add_fetch(&hasty_skew_ms, until_ms - now_ms, __ATOMIC_SEQ_CST);
    sched_yield();
    return true;
}

/* ---- the rig: a server, a client, a job in a folder of its own ---- */

typedef struct rig {
    mock_server *mock;
    gptner_config config;
    gptner_client *client;
    test_mem memory;
    gptner_job_config job;
    gptner_prompt prompts[MOST];
    char texts[MOST][64];
    char folder[256], output[300], journal[340];
    /* what came of it */
    gptner_status status;
    gptner_error err;
    gptner_job_summary sum;
    size_t n_results;
    gptner_status statuses[MOST]; /* by result_fn */
    int http[MOST];
    char answers[MOST][64], messages[MOST][256];
    gptner_job_progress last;
    int told;
    bool odd;                   /* progress that does not add up */
    void (*act)(struct rig *r); /* once, when a batch runs */
    bool acted;
} rig;

static bool take_result(const gptner_result *result, void *user)
{
    rig *r = (rig *)user;
    size_t i = result->index;

    if (i != r->n_results || i >= MOST) {
        r->odd = true;
        return true;
    }
    r->n_results++;
    r->statuses[i] = result->status;
    r->http[i] = result->http_status;
    snprintf(r->answers[i], sizeof r->answers[i], "%.*s", (int)result->text.len,
             result->text.len > 0 ? result->text.ptr : "");
    snprintf(r->messages[i], sizeof r->messages[i], "%s", result->message);
    return true;
}

static void take_progress(const gptner_job_progress *p, void *user)
{
    rig *r = (rig *)user;

    r->told++;
    r->odd |= p->batches != p->waiting + p->running + p->ended;
    r->odd |= p->stage < r->last.stage;
    r->last = *p;
    r->last.event = NULL;
    if (r->act != NULL && !r->acted && p->running > 0) {
        r->acted = true;
        r->act(r);
    }
}

static gptner_client *rig_client(rig *r)
{
    gptner_client *c = NULL;
    gptner_error err;

    if (gptner_client_new(&r->config, &c, &err) != GPTNER_OK) {
        fail_msg("%s", err.message);
    }
    return c;
}

static mock_server *new_mock(mock_options *opt)
{
    char why[256];
    mock_server *mock = NULL;

    opt->reply = opt->reply != NULL ? opt->reply : "hash";
    opt->expect_repeats = -1;
    if (!mock_server_start(opt, &mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    return mock;
}

/* n prompts, at most four a batch. */
static rig *rig_with(mock_options *opt, int n)
{
    static int number;
    rig *r = (rig *)calloc(1, sizeof *r);
    char name[32];
    int i;

    opt->clock_ms_fn = hasty_ms; /* batches take no time, either */
    r->mock = new_mock(opt);
    r->config.base_url = mock_server_base_url(r->mock);
    r->config.api_key = "sk-test-0123456789";
    r->config.proxy = "";
    r->config.connect_timeout_ms = r->config.first_byte_timeout_ms = 600000;
    r->config.gap_timeout_ms = 600000;
    r->config.hooks.monotonic_ms_fn = hasty_ms;
    r->config.hooks.unix_ms_fn = hasty_unix_ms;
    r->config.hooks.random_fn = hasty_random;
    r->config.hooks.wait_fn = hasty_wait;
    r->config.allocator = test_mem_allocator(&r->memory);
    r->client = rig_client(r);
    for (i = 0; i < n; i++) {
        snprintf(r->texts[i], sizeof r->texts[i], "prompt number %d", i);
        r->prompts[i].text = gptner_str_from(r->texts[i]);
    }
    snprintf(name, sizeof name, "job-%d", ++number);
    test_tmp_path(r->folder, name);
    assert_int_equal(mkdir(r->folder, 0700), 0);
    snprintf(r->output, sizeof r->output, "%s/out.txt", r->folder);
    snprintf(r->journal, sizeof r->journal, "%s.job", r->output);
    r->job.source.prompts = r->prompts;
    r->job.source.n_prompts = (size_t)n;
    r->job.source.max_requests = 4;
    r->job.output_path = r->output;
    r->job.result_fn = take_result;
    r->job.result_user = r;
    r->job.progress_fn = take_progress;
    r->job.progress_user = r;
    r->job.poll_ms = 1000;
    return r;
}

static rig *rig_new(const char *fault, int n)
{
    mock_options opt;
    const char *faults[1];

    memset(&opt, 0, sizeof opt);
    opt.batch_seconds = -1;
    faults[0] = fault;
    opt.faults = faults;
    opt.n_faults = fault != NULL;
    return rig_with(&opt, n);
}

/* Runs the job; each result is there once or not at all. */
static gptner_status rig_run(rig *r)
{
    memset(&r->err, 0, sizeof r->err);
    memset(&r->last, 0, sizeof r->last);
    r->n_results = 0;
    r->odd = false;
    r->status = gptner_job_run(r->client, &r->job, &r->sum, &r->err);
    assert_false(r->odd);
    if (r->status != GPTNER_OK) {
        assert_int_equal(r->err.status, r->status);
        assert_true(r->err.message[0] != '\0');
    }
    return r->status;
}

#define assert_job(r, expected)                                 \
    do {                                                        \
        if (rig_run(r) != (expected))                           \
            fail_msg("%s: %s", gptner_status_name((r)->status), \
                     (r)->err.message);                         \
    } while (0)

static int count_files(const rig *r)
{
    DIR *dir = opendir(r->folder);
    int n = 0;

    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n - 2;
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Only the output and its journal remain. */
static void assert_tidy(const rig *r)
{
    assert_true(is_there(r->job.output_path));
    assert_true(is_there(r->journal));
    assert_int_equal(count_files(r), 2);
}

static void rig_free(rig *r)
{
    gptner_client_free(r->client);
    assert_int_equal(r->memory.blocks, 0);
    mock_server_stop(r->mock);
    free(r);
}

static void expected_answer(const char *text, char out[17])
{
    char all[128];
    unsigned char hash[32];
    int k, len = snprintf(all, sizeof all, "user\n%s\n", text);

    test_sha256(all, (size_t)len, hash);
    for (k = 0; k < 8; k++) {
        snprintf(out + 2 * k, 3, "%02x", (unsigned)hash[k]);
    }
}

/* Each prompt has the answer that is its own. */
static void assert_answered(const rig *r, size_t n)
{
    size_t i;

    assert_int_equal(r->n_results, n);
    assert_int_equal(r->sum.results.total, n);
    assert_int_equal(r->sum.results.ok, n);
    assert_int_equal(r->sum.results.failed, 0);
    for (i = 0; i < n; i++) {
        char answer[17];

        expected_answer(r->texts[i], answer);
        assert_int_equal(r->statuses[i], GPTNER_OK);
        assert_string_equal(r->answers[i], answer);
    }
}

static int64_t count(const rig *r, const char *path)
{
    return mock_server_count(r->mock, path);
}

static void fault(const rig *r, const char *spec)
{
    char why[128];

    mock_server_fault(r->mock, NULL, NULL, 0);
    if (spec != NULL && !mock_server_fault(r->mock, spec, why, sizeof why)) {
        fail_msg("%s", why);
    }
}

/* ---- what it answers ---- */

static void every_prompt_gets_its_own_answer_in_order(void **state)
{
    rig *r = rig_new(NULL, 25);
    char *text, *rest, *line;
    size_t len, i = 0;

    (void)state;
    assert_job(r, GPTNER_OK);
    assert_answered(r, 25);
    assert_int_equal(r->sum.batches, 7);
    assert_false(r->sum.resumed);
    assert_false(r->sum.was_done);
    assert_int_equal(count(r, "batches_created"), 7);
    assert_int_equal(count(r, "batch_lines_billed"), 25);
    assert_int_equal(r->last.stage, GPTNER_JOB_DONE);
    assert_int_equal(r->last.ended, 7);
    assert_int_equal(r->last.done, 25);
    assert_tidy(r);
    text = rest = test_slurp(r->output, &len);
    while ((line = test_cut(&rest, '\n')) != NULL) {
        assert_string_equal(line, r->answers[i++]);
    }
    assert_int_equal(i, 25);
    free(text);
    rig_free(r);
}

static void an_input_file_gives_a_file_of_json_lines(void **state)
{
    rig *r = rig_new(NULL, 0);
    char input[330], out[300], lines[2048], *text, *rest, *line;
    size_t len = 0, n = 0, i;

    (void)state;
    for (i = 0; i < 9; i++) {
        snprintf(r->texts[i], sizeof r->texts[i], "prompt number %d", (int)i);
        len += (size_t)snprintf(lines + len, sizeof lines - len,
                                "{\"custom_id\":\"my-%d\",\"prompt\":\"%s\"}\n",
                                (int)i, r->texts[i]);
    }
    snprintf(input, sizeof input, "%s/in.jsonl", test_tmp_dir());
    test_spit(input, lines, len);
    snprintf(out, sizeof out, "%s/out.jsonl", r->folder);
    snprintf(r->journal, sizeof r->journal, "%s.job", out);
    r->job.source.prompts = NULL;
    r->job.source.input_path = input;
    r->job.output_path = out;
    assert_job(r, GPTNER_OK);
    assert_answered(r, 9);
    assert_tidy(r);
    text = rest = test_slurp(out, &len);
    while ((line = test_cut(&rest, '\n')) != NULL) {
        char part[64];

        snprintf(part, sizeof part, "{\"index\":%d,\"custom_id\":\"my-%d\",",
                 (int)n, (int)n);
        assert_int_equal(strncmp(line, part, strlen(part)), 0);
        assert_non_null(strstr(line, r->answers[n]));
        n++;
    }
    assert_int_equal(n, 9);
    free(text);
    rig_free(r);
}

typedef struct walk {
    rig *r;
    int at, end;
} walk;

static int next_prompt(gptner_prompt *prompt, gptner_error *err, void *user)
{
    walk *w = (walk *)user;

    (void)err;
    if (w->at == w->end) {
        w->at = 0; /* the next call begins anew */
        return 0;
    }
    memset(prompt, 0, sizeof *prompt);
    snprintf(w->r->texts[w->at], sizeof w->r->texts[0], "prompt number %d",
             w->at);
    prompt->text = gptner_str_from(w->r->texts[w->at++]);
    return 1;
}

static void an_iterator_gives_the_prompts(void **state)
{
    rig *r = rig_new(NULL, 0);
    walk w;

    (void)state;
    w.r = r;
    w.at = 0;
    w.end = 10;
    r->job.source.prompts = NULL;
    r->job.source.next_fn = next_prompt;
    r->job.source.next_user = &w;
    assert_job(r, GPTNER_OK);
    assert_answered(r, 10);
    assert_job(r, GPTNER_OK);
    assert_true(r->sum.was_done);
    w.end = 11;
    assert_job(r, GPTNER_ERR_CHANGED);
    rig_free(r);
}

static void prompts_that_make_no_request_get_their_result(void **state)
{
    static const size_t bad[] = {0, 4, 5, 9};
    rig *r = rig_new(NULL, 10);
    size_t i, k = 0;

    (void)state;
    for (i = 0; i < TEST_COUNT(bad); i++) {
        r->prompts[bad[i]].text = gptner_str_from("\xff\xfe");
    }
    assert_job(r, GPTNER_OK);
    assert_int_equal(r->n_results, 10);
    assert_int_equal(r->sum.results.total, 10);
    assert_int_equal(r->sum.results.ok, 6);
    assert_int_equal(r->sum.results.unsent, 4);
    for (i = 0; i < 10; i++) {
        char answer[17];

        if (k < TEST_COUNT(bad) && bad[k] == i) {
            k++;
            assert_int_equal(r->statuses[i], GPTNER_ERR_INVALID_ARGUMENT);
            assert_non_null(strstr(r->messages[i], "prompt "));
            continue;
        }
        expected_answer(r->texts[i], answer);
        assert_string_equal(r->answers[i], answer);
    }
    assert_tidy(r);
    assert_job(r, GPTNER_OK);
    assert_true(r->sum.was_done);
    assert_int_equal(r->sum.results.unsent, 4);
    rig_free(r);
}

static void nothing_but_bad_prompts_makes_no_batch(void **state)
{
    rig *r = rig_new(NULL, 2);

    (void)state;
    r->prompts[0].text = r->prompts[1].text = gptner_str_from("\xff");
    assert_job(r, GPTNER_OK);
    assert_int_equal(r->sum.results.unsent, 2);
    assert_int_equal(count(r, "batches_created"), 0);
    assert_tidy(r);
    rig_free(r);
}

static void no_prompt_at_all_is_refused(void **state)
{
    rig *r = rig_new(NULL, 0);

    (void)state;
    r->job.source.prompts = r->prompts;
    assert_job(r, GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(count_files(r), 0);
    rig_free(r);
}

static void arguments_that_make_no_sense_are_refused(void **state)
{
    static const char *const outputs[] = {NULL, "", "-"};
    rig *r = rig_new(NULL, 1);
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(outputs); i++) {
        r->job.output_path = outputs[i];
        assert_job(r, GPTNER_ERR_INVALID_ARGUMENT);
    }
    r->job.output_path = r->output;
    r->job.max_batches = -1;
    assert_job(r, GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_job_run(NULL, &r->job, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_job_run(r->client, NULL, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    r->job.max_batches = 0;
    r->job.output_path = "/nonexistent/folder/out.txt";
    assert_job(r, GPTNER_ERR_FILE);
    rig_free(r);
}

/* ---- the queue of the account ---- */

static void no_more_is_enqueued_than_was_asked_for(void **state)
{
    mock_options opt;
    rig *r;

    (void)state;
    memset(&opt, 0, sizeof opt);
    opt.batch_seconds = 100;
    opt.enqueued_tokens = 400;
    r = rig_with(&opt, 24);
    r->job.max_enqueued_tokens = 400;
    assert_job(r, GPTNER_OK);
    assert_answered(r, 24);
    assert_int_equal(count(r, "batches_created"), r->sum.batches);
    assert_int_equal(count(r, "batch_lines_billed"), 24);
    assert_tidy(r);
    rig_free(r);
}

static void a_batch_refused_for_a_full_queue_waits_its_turn(void **state)
{
    mock_options opt;
    rig *r;

    (void)state;
    memset(&opt, 0, sizeof opt);
    opt.batch_seconds = 100;
    opt.enqueued_tokens = 60;
    r = rig_with(&opt, 24);
    assert_job(r, GPTNER_OK);
    assert_answered(r, 24);
    assert_in_range(count(r, "batches_created"), 7, 30);
    assert_int_equal(count(r, "batch_lines_billed"), 24);
    assert_int_equal(count(r, "batch_lines_billed_again"), 0);
    assert_tidy(r);
    rig_free(r);
}

static void no_more_batches_run_than_were_asked_for(void **state)
{
    rig *r = rig_new(NULL, 24);

    (void)state;
    r->job.max_batches = 1;
    assert_job(r, GPTNER_OK);
    assert_answered(r, 24);
    rig_free(r);
}

/* ---- taken up again ---- */

static void cancel(rig *r)
{
    gptner_client_cancel(r->client);
}

/* A job that was cancelled when its first batch ran. */
static rig *rig_cancelled(const char *spec, int n)
{
    rig *r = rig_new(spec, n);

    r->act = cancel;
    assert_job(r, GPTNER_ERR_CANCELLED);
    assert_true(r->acted);
    gptner_client_reset(r->client);
    assert_false(is_there(r->output));
    return r;
}

static void a_cancelled_job_is_taken_up_again(void **state)
{
    rig *r = rig_cancelled(NULL, 10);

    (void)state;
    assert_job(r, GPTNER_OK);
    assert_true(r->sum.resumed);
    assert_false(r->sum.was_done);
    assert_answered(r, 10);
    assert_int_equal(count(r, "batches_created"), 3);
    assert_int_equal(count(r, "batch_lines_billed_again"), 0);
    assert_tidy(r);
    rig_free(r);
}

static void a_job_that_is_done_sends_nothing(void **state)
{
    rig *r = rig_new(NULL, 10);
    int64_t requests;

    (void)state;
    assert_job(r, GPTNER_OK);
    requests = count(r, "responses.200");
    assert_job(r, GPTNER_OK);
    assert_true(r->sum.was_done);
    assert_true(r->sum.resumed);
    assert_int_equal(r->sum.results.ok, 10);
    assert_int_equal(r->sum.results.completion_tokens > 0, 1);
    assert_int_equal(r->n_results, 0);
    assert_int_equal(count(r, "responses.200"), requests);
    assert_tidy(r);
    rig_free(r);
}

static void changed_prompts_are_refused(void **state)
{
    rig *r = rig_cancelled(NULL, 10);

    (void)state;
    r->prompts[7].text = gptner_str_from("another one");
    assert_job(r, GPTNER_ERR_CHANGED);
    assert_non_null(strstr(r->err.message, "prompts or options"));
    r->prompts[7].text = gptner_str_from(r->texts[7]);
    r->job.source.n_prompts = 9;
    assert_job(r, GPTNER_ERR_CHANGED);
    r->job.source.n_prompts = 10;
    assert_job(r, GPTNER_OK);
    assert_answered(r, 10);
    rig_free(r);
}

static void changed_options_are_refused(void **state)
{
    rig *r = rig_cancelled(NULL, 10);

    (void)state;
    gptner_client_free(r->client);
    r->config.options.max_tokens = 77;
    r->client = rig_client(r);
    assert_job(r, GPTNER_ERR_CHANGED);
    gptner_client_free(r->client);
    r->config.options.max_tokens = 0;
    r->client = rig_client(r);
    assert_job(r, GPTNER_OK);
    assert_answered(r, 10);
    rig_free(r);
}

static void another_server_is_refused(void **state)
{
    rig *r = rig_cancelled(NULL, 10);
    mock_options opt;
    mock_server *other;

    (void)state;
    memset(&opt, 0, sizeof opt);
    other = new_mock(&opt);
    gptner_client_free(r->client);
    r->config.base_url = mock_server_base_url(other);
    r->client = rig_client(r);
    assert_job(r, GPTNER_ERR_CHANGED);
    assert_non_null(strstr(r->err.message, mock_server_base_url(r->mock)));
    assert_int_equal(mock_server_count(other, "connections"), 0);
    mock_server_stop(other);
    rig_free(r);
}

static void limits_of_a_run_may_change(void **state)
{
    rig *r = rig_cancelled(NULL, 10);

    (void)state;
    r->job.max_batches = 1;
    r->job.poll_ms = 5;
    r->job.max_enqueued_tokens = 100000;
    r->job.delete_remote = true;
    assert_job(r, GPTNER_OK);
    assert_answered(r, 10);
    assert_int_equal(count(r, "files_stored"), 0);
    rig_free(r);
}

static gptner_status second_status;

static void run_beside(rig *r)
{
    gptner_client *c = rig_client(r);
    gptner_job_config job = r->job;
    gptner_error err;

    job.progress_fn = NULL;
    second_status = gptner_job_run(c, &job, NULL, &err);
    gptner_client_free(c);
}

/* The child tells by a pipe and is killed: valgrind would call what it has of
 * its parent a leak. */
static void run_beside_in_child(rig *r)
{
    unsigned char told = 255;
    int ends[2];
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    if (pid == 0) {
        run_beside(r);
        told = (unsigned char)second_status;
        if (write(ends[1], &told, 1) == 1) {
            raise(SIGKILL);
        }
        _exit(1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &told, 1), 1);
    close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    second_status = (gptner_status)told;
}

static void a_second_run_of_the_same_job_is_refused(void **state)
{
    void (*const ways[])(rig *) = {run_beside, run_beside_in_child};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(ways); i++) {
        rig *r = rig_new(NULL, 10);

        second_status = GPTNER_OK;
        r->act = ways[i];
        assert_job(r, GPTNER_OK);
        assert_true(r->acted);
        assert_int_equal(second_status, GPTNER_ERR_BUSY);
        assert_answered(r, 10);
        assert_tidy(r);
        rig_free(r);
    }
}

static void an_output_that_is_gone_is_noticed(void **state)
{
    rig *r = rig_new(NULL, 3);

    (void)state;
    assert_job(r, GPTNER_OK);
    remove(r->output);
    assert_job(r, GPTNER_ERR_CHANGED);
    assert_non_null(strstr(r->err.message, "is gone"));
    remove(r->journal);
    assert_job(r, GPTNER_OK);
    assert_false(r->sum.resumed);
    assert_answered(r, 3);
    rig_free(r);
}

/* ---- the journal ---- */

static void a_damaged_journal_is_refused(void **state)
{
    rig *r = rig_cancelled(NULL, 10);
    size_t len, i, last = 0;
    char *text = test_slurp(r->journal, &len);

    (void)state;
    for (i = 0; i + 1 < len; i++) {
        last = text[i] == '\n' ? i + 1 : last;
    }
    for (i = 3; i < last; i += 29) {
        char kept = text[i];

        if (kept == '\n') {
            continue;
        }
        text[i] = (char)(kept ^ 1);
        test_spit(r->journal, text, len);
        assert_job(r, GPTNER_ERR_CHANGED);
        assert_non_null(strstr(r->err.message, "damaged"));
        text[i] = kept;
    }
    test_spit(r->journal, text, len);
    free(text);
    assert_job(r, GPTNER_OK);
    assert_answered(r, 10);
    rig_free(r);
}

static void a_torn_last_line_of_the_journal_is_accepted(void **state)
{
    size_t cut;

    (void)state;
    for (cut = 1; cut < 40; cut += 6) {
        rig *r = rig_cancelled(NULL, 10);
        size_t len;
        char *text = test_slurp(r->journal, &len);

        test_spit(r->journal, text, len - cut);
        free(text);
        assert_job(r, GPTNER_OK);
        assert_true(r->sum.resumed);
        assert_answered(r, 10);
        assert_int_equal(count(r, "batches_created"), 3);
        assert_tidy(r);
        rig_free(r);
    }
}

static void what_is_no_journal_is_not_overwritten(void **state)
{
    static const char *const texts[] = {
        "", "my notes\n", "my notes", "one\ntwo\n",
        "0123456789abcdef {\"kind\":\"job\"}\n"};
    rig *r = rig_new(NULL, 3);
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(texts); i++) {
        size_t len;
        char *text;

        test_spit(r->journal, texts[i], strlen(texts[i]));
        assert_job(r, GPTNER_ERR_CHANGED);
        text = test_slurp(r->journal, &len);
        assert_string_equal(text, texts[i]);
        free(text);
    }
    assert_int_equal(count(r, "connections"), 0);
    rig_free(r);
}

static void files_of_an_older_job_are_not_believed(void **state)
{
    static const char *const names[] = {"-1.out",
                                        "-1.err",
                                        "-2.now",
                                        "-1-1.jsonl",
                                        "-9.jsonl",
                                        "-bad",
                                        "-2-3.out",
                                        "-1.jsonl.part-0123456789abcdef",
                                        ".part-0123456789abcdef"};
    static const char row[] =
        "{\"custom_id\":\"request-0\",\"response\":{\"status_code\":200,"
        "\"body\":{\"choices\":[{\"message\":{\"content\":\"old\"},"
        "\"finish_reason\":\"stop\"}]}}}\n";
    rig *r = rig_new(NULL, 10);
    char path[400];
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s%s", r->journal, names[i]);
        test_spit(path, row, sizeof row - 1);
    }
    snprintf(path, sizeof path, "%s-mine.txt", r->journal);
    test_spit(path, "", 0);
    assert_job(r, GPTNER_OK);
    assert_answered(r, 10);
    assert_int_equal(remove(path), 0); /* was not touched */
    assert_tidy(r);
    rig_free(r);
}

static void drop_fetched(rig *r)
{
    char path[400];

    snprintf(path, sizeof path, "%s-1.out", r->journal);
    remove(path);
}

static int fetched_seen;

static void look_for_fetched(const gptner_job_progress *p, void *user)
{
    rig *r = (rig *)user;
    char path[400];

    snprintf(path, sizeof path, "%s-1.out", r->journal);
    if (p->stage == GPTNER_JOB_FINISHING && is_there(path)) {
        fetched_seen++;
        drop_fetched(r);
    }
}

static void a_fetched_file_that_is_gone_is_noticed(void **state)
{
    rig *r = rig_new(NULL, 10);

    (void)state;
    fetched_seen = 0;
    r->job.progress_fn = look_for_fetched;
    assert_job(r, GPTNER_ERR_CHANGED);
    assert_int_equal(fetched_seen, 1);
    assert_non_null(strstr(r->err.message, "is gone"));
    assert_false(is_there(r->output));
    rig_free(r);
}

/* ---- what fails at the server ---- */

static void failed_requests_keep_their_status(void **state)
{
    rig *r = rig_new("row-5xx@2", 4);
    int i, failed = 0;

    (void)state;
    assert_job(r, GPTNER_OK);
    for (i = 0; i < 4; i++) {
        failed += r->statuses[i] == GPTNER_ERR_SERVER;
    }
    assert_int_equal(failed, 1);
    assert_int_equal(r->sum.results.ok, 3);
    assert_int_equal(r->sum.results.failed, 1);
    assert_tidy(r);
    rig_free(r);
}

static void what_failed_is_finished(void **state)
{
    static const char *const faults[] = {
        "row-5xx@every=3,times=3",  "row-429@every=4,times=3",
        "row-drop@every=5,times=2", "row-malformed@every=4,times=2",
        "row-status0@2,times=1",    "batch-expires:0.5,times=1"};
    static const gptner_retry_failed ways[] = {GPTNER_RETRY_BATCH,
                                               GPTNER_RETRY_PARALLEL};
    size_t i, k;

    (void)state;
    for (i = 0; i < TEST_COUNT(faults); i++) {
        for (k = 0; k < TEST_COUNT(ways); k++) {
            rig *r = rig_new(faults[i], 20);
            int64_t live;

            r->job.retry_failed = ways[k];
            r->job.delete_remote = true;
            assert_job(r, GPTNER_OK);
            assert_answered(r, 20);
            live = count(r, "requests.POST /v1/chat/completions");
            if (ways[k] == GPTNER_RETRY_BATCH) {
                assert_true(r->sum.batches > 5);
                assert_int_equal(live, 0);
            } else {
                assert_int_equal(r->sum.batches, 5);
                assert_true(live > 0);
            }
            assert_int_equal(count(r, "batch_lines_billed_again"), 0);
            assert_int_equal(count(r, "files_stored"), 0);
            assert_tidy(r);
            rig_free(r);
        }
    }
}

static void what_would_fail_again_is_not_sent_again(void **state)
{
    rig *r = rig_new("row-4xx@2", 8);

    (void)state;
    r->job.retry_failed = GPTNER_RETRY_PARALLEL;
    assert_job(r, GPTNER_OK);
    assert_int_equal(r->sum.results.failed, 1);
    assert_int_equal(count(r, "requests.POST /v1/chat/completions"), 0);
    rig_free(r);
}

static void what_fails_for_ever_ends_after_three_follow_ups(void **state)
{
    rig *r = rig_new("row-5xx", 3);

    (void)state;
    r->job.retry_failed = GPTNER_RETRY_BATCH;
    assert_job(r, GPTNER_OK);
    assert_int_equal(r->sum.results.failed, 3);
    assert_int_equal(r->sum.batches, 4);
    assert_tidy(r);
    rig_free(r);
}

static void a_refused_key_in_parallel_is_no_answer(void **state)
{
    rig *r = rig_new("row-5xx@2", 4);

    (void)state;
    r->job.retry_failed = GPTNER_RETRY_PARALLEL;
    fault(r, "row-5xx@2");
    assert_true(mock_server_fault(r->mock, "401@chat", NULL, 0));
    assert_job(r, GPTNER_ERR_AUTH);
    assert_false(is_there(r->output));
    fault(r, NULL);
    assert_job(r, GPTNER_OK);
    assert_answered(r, 4);
    assert_tidy(r);
    rig_free(r);
}

static void a_batch_that_fails_the_check_explains_each_request(void **state)
{
    rig *r = rig_new("batch-fails@1,times=1", 8);
    int i, failed = 0;

    (void)state;
    assert_job(r, GPTNER_OK);
    assert_int_equal(r->n_results, 8);
    for (i = 0; i < 8; i++) {
        failed += r->statuses[i] == GPTNER_ERR_BATCH_FAILED;
        assert_true(r->statuses[i] == GPTNER_OK ||
                    (r->statuses[i] == GPTNER_ERR_BATCH_FAILED &&
                     strstr(r->messages[i], "line") != NULL));
    }
    assert_int_equal(failed, 4);
    assert_tidy(r);
    rig_free(r);
}

static void cancel_newest(rig *r)
{
    gptner_client *c = rig_client(r);
    gptner_batches *list = NULL;
    gptner_batch *b = NULL;
    gptner_error err;
    char id[128];

    assert_int_equal(gptner_batch_list(c, NULL, 1, &list, &err), GPTNER_OK);
    assert_int_equal(list->count, 1);
    snprintf(id, sizeof id, "%.*s", (int)list->items[0]->id.len,
             list->items[0]->id.ptr);
    assert_int_equal(gptner_batch_cancel(c, id, &b, &err), GPTNER_OK);
    gptner_batch_free(b);
    gptner_batches_free(list);
    gptner_client_free(c);
    mock_server_advance(r->mock, 3600000);
}

static void a_batch_cancelled_by_others_gives_its_part(void **state)
{
    mock_options opt;
    rig *r;
    int i;

    (void)state;
    memset(&opt, 0, sizeof opt);
    opt.batch_seconds = 1000;
    r = rig_with(&opt, 4);
    r->job.retry_failed = GPTNER_RETRY_BATCH; /* not what was cancelled */
    r->act = cancel_newest;
    assert_job(r, GPTNER_OK);
    assert_int_equal(r->n_results, 4);
    for (i = 0; i < 4; i++) {
        assert_true(r->statuses[i] == GPTNER_ERR_CANCELLED ||
                    r->statuses[i] == GPTNER_OK);
    }
    assert_true(r->sum.results.cancelled > 0);
    assert_int_equal(r->sum.batches, 1);
    assert_tidy(r);
    rig_free(r);
}

static void remote_files_are_deleted_if_asked(void **state)
{
    rig *r = rig_new("row-5xx@2", 10);

    (void)state;
    r->job.delete_remote = true;
    assert_job(r, GPTNER_OK);
    assert_int_equal(count(r, "files_stored"), 0);
    assert_tidy(r);
    rig_free(r);
}

static void a_run_ends_in_time_and_the_job_goes_on(void **state)
{
    mock_options opt;
    rig *r;

    (void)state;
    memset(&opt, 0, sizeof opt);
    opt.batch_seconds = 40000;
    r = rig_with(&opt, 10);
    r->job.max_wait_ms = 300000;
    assert_job(r, GPTNER_ERR_TIMEOUT);
    assert_true(r->sum.elapsed_ms >= 300000 && r->sum.elapsed_ms < 400000);
    assert_false(is_there(r->output));
    mock_server_advance(r->mock, 50000000);
    r->job.max_wait_ms = 0;
    assert_job(r, GPTNER_OK);
    assert_true(r->sum.resumed);
    assert_answered(r, 10);
    assert_int_equal(count(r, "batches_created"), 3);
    assert_tidy(r);
    rig_free(r);
}

/* Whatever the way does, each batch is made once. */
static void doubtful_answers_make_no_second_batch(void **state)
{
    static const char *const faults[] = {
        "lost@create",           "lost@create,times=2",
        "lost@upload,times=2",   "500@create,times=1",
        "lost-reply,times=3",    "reset@create,times=1",
        "429@create,times=3",    "503@status,times=4",
        "500@content,times=2",   "truncate@content,times=2",
        "lost@every=2,times=20", "500@list,times=1",
        "late-upload",           "late-files",
        "upload-reset,times=1"};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(faults); i++) {
        rig *r = rig_new(faults[i], 10);
        char spec[64];

        snprintf(spec, sizeof spec, "%s%s", faults[i],
                 strcmp(faults[i], "lost@create") == 0 ? ",times=1" : "");
        fault(r, spec);
        r->job.delete_remote = true;
        if (rig_run(r) != GPTNER_OK) {
            fail_msg("%s: %s", faults[i], r->err.message);
        }
        assert_answered(r, 10);
        assert_int_equal(count(r, "batches_created"), 3);
        assert_int_equal(count(r, "batch_lines_billed_again"), 0);
        assert_int_equal(count(r, "files_stored"), 0);
        assert_int_equal(mock_server_findings(r->mock, "created_twice"), 0);
        assert_tidy(r);
        rig_free(r);
    }
}

/* Deletes the first file at the server. */
static void delete_upload(rig *r)
{
    gptner_client *c = rig_client(r);
    gptner_raw_request raw;
    gptner_response *list = NULL;
    gptner_error err;
    char path[128];
    const char *id;

    memset(&raw, 0, sizeof raw);
    raw.path = "/files?purpose=batch";
    assert_int_equal(gptner_raw(c, &raw, &list, &err), GPTNER_OK);
    id = strstr(list->body.ptr, "\"file-");
    assert_non_null(id);
    snprintf(path, sizeof path, "/files/%.*s", (int)strcspn(id + 1, "\""),
             id + 1);
    gptner_response_free(list);
    raw.method = "DELETE";
    raw.path = path;
    assert_int_equal(gptner_raw(c, &raw, NULL, &err), GPTNER_OK);
    gptner_client_free(c);
}

static void an_uploaded_file_that_is_gone_is_uploaded_again(void **state)
{
    rig *r = rig_new(NULL, 4);

    (void)state;
    fault(r, "401@create");
    assert_job(r, GPTNER_ERR_AUTH);
    fault(r, NULL);
    delete_upload(r);
    assert_job(r, GPTNER_OK);
    assert_answered(r, 4);
    assert_int_equal(count(r, "requests.POST /v1/files"), 2);
    assert_int_equal(count(r, "batches_created"), 1);
    assert_tidy(r);
    rig_free(r);
}

static void odd_batches_are_understood(void **state)
{
    static const char *const faults[] = {
        "null-ids",      "unknown-status",        "counts-lie",
        "rows-in-order", "row-duplicate@every=3", "row-stranger@every=3"};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(faults); i++) {
        rig *r = rig_new(faults[i], 10);

        if (rig_run(r) != GPTNER_OK) {
            fail_msg("%s: %s", faults[i], r->err.message);
        }
        assert_answered(r, 10);
        assert_tidy(r);
        rig_free(r);
    }
}

static void results_that_are_never_to_be_had_are_missing(void **state)
{
    static const char *const faults[] = {"null-output,times=1",
                                         "late-files,first=1000"};
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(faults); i++) {
        rig *r = rig_new(faults[i], 4);
        int k;

        assert_job(r, GPTNER_OK);
        assert_int_equal(r->sum.results.missing, 4);
        for (k = 0; k < 4; k++) {
            assert_int_equal(r->statuses[k], GPTNER_ERR_MISSING);
        }
        assert_tidy(r);
        rig_free(r);
    }
}

static void a_server_that_forgot_the_batch_ends_the_run(void **state)
{
    rig *r = rig_cancelled(NULL, 4);

    (void)state;
    fault(r, "404@status");
    assert_job(r, GPTNER_ERR_NOT_FOUND);
    fault(r, NULL);
    assert_job(r, GPTNER_OK);
    assert_answered(r, 4);
    rig_free(r);
}

static int start(void **state)
{
    (void)state;
    strcpy(test_tmp.path, "/dev/shm/gptner-XXXXXX"); /* nothing to sync */
    if (mkdtemp(test_tmp.path) != NULL) {
        test_tmp.owner = getpid();
        atexit(test_tmp_remove);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_prompt_gets_its_own_answer_in_order),
        cmocka_unit_test(an_input_file_gives_a_file_of_json_lines),
        cmocka_unit_test(an_iterator_gives_the_prompts),
        cmocka_unit_test(prompts_that_make_no_request_get_their_result),
        cmocka_unit_test(nothing_but_bad_prompts_makes_no_batch),
        cmocka_unit_test(no_prompt_at_all_is_refused),
        cmocka_unit_test(arguments_that_make_no_sense_are_refused),
        cmocka_unit_test(no_more_is_enqueued_than_was_asked_for),
        cmocka_unit_test(a_batch_refused_for_a_full_queue_waits_its_turn),
        cmocka_unit_test(no_more_batches_run_than_were_asked_for),
        cmocka_unit_test(a_cancelled_job_is_taken_up_again),
        cmocka_unit_test(a_job_that_is_done_sends_nothing),
        cmocka_unit_test(changed_prompts_are_refused),
        cmocka_unit_test(changed_options_are_refused),
        cmocka_unit_test(another_server_is_refused),
        cmocka_unit_test(limits_of_a_run_may_change),
        cmocka_unit_test(a_second_run_of_the_same_job_is_refused),
        cmocka_unit_test(an_output_that_is_gone_is_noticed),
        cmocka_unit_test(a_damaged_journal_is_refused),
        cmocka_unit_test(a_torn_last_line_of_the_journal_is_accepted),
        cmocka_unit_test(what_is_no_journal_is_not_overwritten),
        cmocka_unit_test(files_of_an_older_job_are_not_believed),
        cmocka_unit_test(a_fetched_file_that_is_gone_is_noticed),
        cmocka_unit_test(failed_requests_keep_their_status),
        cmocka_unit_test(what_failed_is_finished),
        cmocka_unit_test(what_would_fail_again_is_not_sent_again),
        cmocka_unit_test(what_fails_for_ever_ends_after_three_follow_ups),
        cmocka_unit_test(a_refused_key_in_parallel_is_no_answer),
        cmocka_unit_test(a_batch_that_fails_the_check_explains_each_request),
        cmocka_unit_test(a_batch_cancelled_by_others_gives_its_part),
        cmocka_unit_test(remote_files_are_deleted_if_asked),
        cmocka_unit_test(a_run_ends_in_time_and_the_job_goes_on),
        cmocka_unit_test(doubtful_answers_make_no_second_batch),
        cmocka_unit_test(an_uploaded_file_that_is_gone_is_uploaded_again),
        cmocka_unit_test(odd_batches_are_understood),
        cmocka_unit_test(results_that_are_never_to_be_had_are_missing),
        cmocka_unit_test(a_server_that_forgot_the_batch_ends_the_run),
    };

    cmocka_set_test_filter(getenv("TEST_ONLY"));
    return cmocka_run_group_tests(tests, start, NULL);
}
