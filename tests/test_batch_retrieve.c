/* Results of a batch over HTTP, from the mock server in this process: files
 * fetched, joined and removed again. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

#include <dirent.h>

enum { REQUESTS = 60 };

typedef struct retrieval {
    mock_options mock_opt;
    mock_server *mock;
    gptner_config cfg;
    int64_t skipped_ms;
    gptner_client *client;
    gptner_batch *batch;
    gptner_batch_retrieve_config in;
    gptner_batch_summary sum;
    gptner_error err;
    gptner_result **results;
    size_t n;
    char requests[256];
    char prefix[256];
    char output[256];
    char errors[256];
} retrieval;

/* Pauses take no time: the clock is the system's and what was skipped. All
 * time limits of requests are longer than the pauses. */
static int64_t skipping_clock(void *user)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + *(int64_t *)user;
}

static bool skip_pause(int64_t now_ms, int64_t until_ms, void *user)
{
    if (until_ms - now_ms > 6000) {
        return false;
    }
    *(int64_t *)user += until_ms - now_ms;
    return true;
}

static void put_requests(const char *path)
{
    FILE *f = fopen(path, "wb");
    int i;
    assert_non_null(f);
    for (i = 0; i < REQUESTS; i++) {
        fprintf(f,
                "{\"custom_id\":\"request-%d\",\"method\":\"POST\",\"url\":"
                "\"/v1/chat/completions\",\"body\":{\"model\":\"gpt-4o-mini\","
                "\"messages\":[{\"role\":\"user\",\"content\":\"prompt %d\"}]}}"
                "\n",
                i, i);
    }
    fclose(f);
}

static void retrieval_start(retrieval *t, const char *const *faults, size_t n)
{
    gptner_batch_submit_config submit = GPN_ZERO;
    gptner_batch_wait_config wait = GPN_ZERO;
    gptner_batch *ended = NULL;
    char why[256];
    t->mock_opt.faults = faults;
    t->mock_opt.n_faults = n;
    t->mock_opt.batch_seconds = -1;
    t->mock_opt.seed = 5;
    if (!mock_server_start(&t->mock_opt, &t->mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    t->cfg.hooks.monotonic_ms_fn = skipping_clock;
    t->cfg.hooks.wait_fn = skip_pause;
    t->cfg.hooks.user = &t->skipped_ms;
    t->cfg.base_url = mock_server_base_url(t->mock);
    t->cfg.api_key = "sk-test-0123456789";
    assert_int_equal(gptner_client_new(&t->cfg, &t->client, &t->err), 0);
    test_tmp_path(t->requests, "requests.jsonl");
    test_tmp_path(t->prefix, "tmp");
    test_tmp_path(t->output, "raw-output.jsonl");
    test_tmp_path(t->errors, "raw-errors.jsonl");
    put_requests(t->requests);
    submit.path = t->requests;
    if (gptner_batch_submit(t->client, &submit, &t->batch, &t->err) != 0) {
        fail_msg("submit: %s", t->err.message);
    }
    wait.poll_ms = 10;
    if (gptner_batch_wait(t->client, t->batch->id.ptr, &wait, &ended,
                          &t->err) != 0) {
        fail_msg("wait: %s", t->err.message);
    }
    gptner_batch_free(t->batch);
    t->batch = ended;
    t->in.temp_prefix = t->prefix;
    t->in.requests_path = t->requests;
    t->in.results = &t->results;
    t->in.n_results = &t->n;
}

static gptner_status retrieve(retrieval *t)
{
    return gptner_batch_retrieve(t->client, t->batch->id.ptr, &t->in, &t->sum,
                                 &t->err);
}

static void assert_no_temporary_files(void)
{
    DIR *dir = opendir(test_tmp_dir());
    struct dirent *e;
    while ((e = readdir(dir)) != NULL) {
        if (strstr(e->d_name, ".gptner-") != NULL) {
            fail_msg("left behind: %s", e->d_name);
        }
    }
    closedir(dir);
}

static void assert_results(const retrieval *t)
{
    size_t i;
    assert_int_equal(t->n, REQUESTS);
    assert_int_equal(t->sum.total, REQUESTS);
    for (i = 0; i < t->n; i++) {
        const gptner_result *r = t->results[i];
        char want[32];
        assert_int_equal(r->index, i);
        snprintf(want, sizeof want, "request-%zu", i);
        assert_true(gpn_str_eq_c(r->custom_id, want));
        snprintf(want, sizeof want, "prompt %zu", i);
        if (r->status == GPTNER_OK && gpn_str_find(r->text, want) != 0) {
            fail_msg("%zu: %.*s", i, (int)r->text.len, r->text.ptr);
        }
    }
}

static void retrieval_end(retrieval *t)
{
    assert_no_temporary_files();
    gptner_results_free(t->results, t->n);
    gptner_batch_free(t->batch);
    gptner_client_free(t->client);
    mock_server_stop(t->mock);
}

static void a_finished_batch_is_fetched_in_order(void **state)
{
    static const char *const faults[] = {
        "row-4xx:0.1",       "row-drop:0.1",     "row-malformed:0.1",
        "row-duplicate:0.1", "row-stranger:0.1", "rows-shuffled"};
    retrieval t = GPN_ZERO;
    (void)state;
    retrieval_start(&t, faults, TEST_COUNT(faults));
    if (retrieve(&t) != GPTNER_OK) {
        fail_msg("%s", t.err.message);
    }
    assert_results(&t);
    assert_true(t.sum.ok > 20);
    assert_true(t.sum.missing > 0);
    assert_true(t.sum.malformed > 0);
    assert_true(t.sum.duplicates > 0);
    assert_true(t.sum.strangers > 0);
    retrieval_end(&t);
}

static void requests_are_fetched_when_they_are_not_here(void **state)
{
    retrieval t = GPN_ZERO;
    (void)state;
    retrieval_start(&t, NULL, 0);
    t.in.requests_path = NULL;
    assert_int_equal(retrieve(&t), GPTNER_OK);
    assert_results(&t);
    assert_int_equal(t.sum.ok, REQUESTS);
    assert_int_equal(
        mock_server_count(t.mock, "requests.GET /v1/files/{id}/content"), 2);
    retrieval_end(&t);
}

static void raw_files_are_kept_and_an_absent_one_is_empty(void **state)
{
    retrieval t = GPN_ZERO;
    struct stat st;
    (void)state;
    retrieval_start(&t, NULL, 0);
    t.in.raw_output_path = t.output;
    t.in.raw_error_path = t.errors;
    assert_int_equal(retrieve(&t), GPTNER_OK);
    assert_results(&t);
    assert_int_equal(stat(t.output, &st), 0);
    assert_true(st.st_size > 1000);
    assert_int_equal(stat(t.errors, &st), 0);
    assert_int_equal(st.st_size, 0);
    retrieval_end(&t);
}

static void a_batch_without_an_output_file_has_no_answers(void **state)
{
    static const char *const faults[] = {"null-output", "null-ids"};
    retrieval t = GPN_ZERO;
    (void)state;
    retrieval_start(&t, faults, 2);
    t.in.raw_output_path = t.output;
    assert_int_equal(retrieve(&t), GPTNER_OK);
    assert_results(&t);
    assert_int_equal(t.sum.ok, 0);
    assert_int_equal(access(t.output, F_OK), 0);
    retrieval_end(&t);
}

static void what_an_expired_batch_has_is_read(void **state)
{
    static const char *const faults[] = {"batch-expires"};
    retrieval t = GPN_ZERO;
    (void)state;
    retrieval_start(&t, faults, 1);
    assert_int_equal(t.batch->state, GPTNER_BATCH_EXPIRED);
    assert_int_equal(retrieve(&t), GPTNER_OK);
    assert_results(&t);
    assert_true(t.sum.expired > 0);
    assert_int_equal(t.sum.missing, 0);
    retrieval_end(&t);
}

static void a_batch_that_has_none_says_why(void **state)
{
    static const char *const faults[] = {"batch-fails"};
    retrieval t = GPN_ZERO;
    gptner_batch unfinished;
    (void)state;
    retrieval_start(&t, faults, 1);
    assert_int_equal(retrieve(&t), GPTNER_ERR_BATCH_FAILED);
    assert_null(t.results);
    assert_int_equal(t.err.status, GPTNER_ERR_BATCH_FAILED);
    unfinished = *t.batch;
    unfinished.ended = false;
    unfinished.state = GPTNER_BATCH_IN_PROGRESS;
    assert_int_equal(
        gpn_retrieve_files(t.client, &unfinished, &t.in, NULL, &t.err),
        GPTNER_ERR_NOT_FINISHED);
    assert_int_equal(
        gptner_batch_retrieve(t.client, "batch_0", &t.in, NULL, &t.err),
        GPTNER_ERR_NOT_FOUND);
    retrieval_end(&t);
}

static void a_file_that_comes_late_is_waited_for(void **state)
{
    static const char *const faults[] = {"late-files", "content-redirect"};
    retrieval t = GPN_ZERO;
    (void)state;
    retrieval_start(&t, faults, 2);
    assert_int_equal(retrieve(&t), GPTNER_OK);
    assert_results(&t);
    assert_int_equal(t.sum.ok, REQUESTS);
    retrieval_end(&t);
}

static void a_download_that_is_cut_leaves_nothing(void **state)
{
    static const char *const faults[] = {"truncate,path=/content"};
    retrieval t = GPN_ZERO;
    (void)state;
    t.cfg.max_retries = -1;
    retrieval_start(&t, faults, 1);
    t.in.raw_output_path = t.output;
    unlink(t.output);
    assert_int_not_equal(retrieve(&t), GPTNER_OK);
    assert_null(t.results);
    assert_int_not_equal(access(t.output, F_OK), 0);
    retrieval_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_finished_batch_is_fetched_in_order),
        cmocka_unit_test(requests_are_fetched_when_they_are_not_here),
        cmocka_unit_test(raw_files_are_kept_and_an_absent_one_is_empty),
        cmocka_unit_test(a_batch_without_an_output_file_has_no_answers),
        cmocka_unit_test(what_an_expired_batch_has_is_read),
        cmocka_unit_test(a_batch_that_has_none_says_why),
        cmocka_unit_test(a_file_that_comes_late_is_waited_for),
        cmocka_unit_test(a_download_that_is_cut_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
