/* The cache of answers on disk: what is the same, what enters it, what happens
 * to files that are damaged, foreign or cannot be written. */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

#include <signal.h>
#include <sys/wait.h>

typedef struct env {
    mock_options mock_opt;
    mock_server *mock;
    gptner_config cfg;
    gptner_client *client;
    gptner_error err;
    gptner_result *result;
    gptner_run_config run;
    gptner_run_summary sum;
    test_mem memory;
    char dir[256];
    int warnings;
} env;

static void on_log(gptner_log_level level, const char *text, void *user)
{
    env *e = (env *)user;

    if (level == GPTNER_LOG_WARN && strstr(text, "cannot be kept") != NULL) {
        e->warnings++;
    }
}

static void env_client(env *e)
{
    gptner_client_free(e->client);
    e->client = NULL;
    if (gptner_client_new(&e->cfg, &e->client, &e->err) != GPTNER_OK) {
        fail_msg("client: %s", e->err.message);
    }
}

static void env_start(env *e, const char *const *faults, size_t n)
{
    static int number;
    char why[256], name[32];

    snprintf(name, sizeof name, "cache-%d", number++);
    test_tmp_path(e->dir, name);
    e->mock_opt.reply = "hash";
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
    e->cfg.max_threads = 1;
    e->cfg.cache_dir = e->dir;
    e->cfg.log_fn = on_log;
    e->cfg.log_user = e;
    e->cfg.allocator = test_mem_allocator(&e->memory);
    env_client(e);
}

static void env_end(env *e)
{
    gptner_result_free(e->result);
    gptner_client_free(e->client);
    mock_server_stop(e->mock);
    assert_int_equal(e->memory.blocks, 0);
}

static gptner_status ask(env *e, const char *text)
{
    gptner_result_free(e->result);
    return gptner_ask(e->client, text, &e->result, &e->err);
}

static void assert_answer(const env *e, const char *text, bool cached)
{
    char data[256], want[17];
    unsigned char hash[32];
    int len = snprintf(data, sizeof data, "user\n%s\n", text);

    test_sha256(data, (size_t)len, hash);
    gpn_hex_write(hash, 8, want);
    assert_int_equal(e->result->status, GPTNER_OK);
    assert_int_equal(e->result->cached, cached);
    assert_int_equal(e->result->text.len, 16);
    assert_memory_equal(e->result->text.ptr, want, 16);
}

static int64_t requests(const env *e)
{
    return mock_server_count(e->mock, "requests.POST /v1/chat/completions");
}

/* The files of a cache: their number, and the path of the last. */
static char last_file[512];
static int n_files, bad_modes;

static int see_file(const char *path, const struct stat *st, int type,
                    struct FTW *at)
{
    (void)at;
    if (type == FTW_F) {
        n_files++;
        snprintf(last_file, sizeof last_file, "%s", path);
    }
    bad_modes += (st->st_mode & 077) != 0;
    return 0;
}

static int count_files(const env *e)
{
    n_files = bad_modes = 0;
    nftw(e->dir, see_file, 16, FTW_PHYS);
    return n_files;
}

static void the_same_question_is_asked_once(void **state)
{
    env e = {0};
    gptner_result *first;

    (void)state;
    e.cfg.keep_raw = true;
    env_start(&e, NULL, 0);
    assert_int_equal(ask(&e, "one"), GPTNER_OK);
    assert_answer(&e, "one", false);
    assert_int_equal(e.result->attempts, 1);
    first = e.result;
    e.result = NULL;
    env_client(&e);
    assert_int_equal(ask(&e, "one"), GPTNER_OK);
    assert_answer(&e, "one", true);
    assert_int_equal(e.result->attempts, 0);
    assert_int_equal(e.result->latency_ms, 0);
    assert_true(e.result->cost_usd >= 0.0 && e.result->cost_usd <= 0.0);
    assert_true(gpn_str_eq(e.result->id, first->id));
    assert_true(gpn_str_eq(e.result->model, first->model));
    assert_true(gpn_str_eq(e.result->raw, first->raw));
    assert_true(gpn_str_eq(e.result->request_id, first->request_id));
    assert_memory_equal(&e.result->usage, &first->usage, sizeof first->usage);
    assert_int_equal(e.result->http_status, 200);
    assert_int_equal(requests(&e), 1);
    assert_int_equal(count_files(&e), 1);
    assert_int_equal(bad_modes, 0);
    gptner_result_free(first);
    env_end(&e);
}

static void what_differs_is_asked_again(void **state)
{
    env e = {0};
    gptner_header header = {"X-Variant", "two"};
    char url[128];

    (void)state;
    env_start(&e, NULL, 0);
    ask(&e, "one");
    e.cfg.options.max_tokens = 99;
    env_client(&e);
    ask(&e, "one");
    assert_answer(&e, "one", false);
    e.cfg.organization = "org";
    env_client(&e);
    ask(&e, "one");
    assert_answer(&e, "one", false);
    e.cfg.headers = &header;
    e.cfg.n_headers = 1;
    env_client(&e);
    ask(&e, "one");
    assert_answer(&e, "one", false);
    snprintf(url, sizeof url, "http://localhost:%d/v1",
             mock_server_port(e.mock));
    e.cfg.base_url = url;
    env_client(&e);
    ask(&e, "one");
    assert_answer(&e, "one", false);
    assert_int_equal(requests(&e), 5);
    e.cfg.api_key = "sk-another-key-9876"; /* the key alone does not matter */
    env_client(&e);
    ask(&e, "one");
    assert_answer(&e, "one", true);
    assert_int_equal(requests(&e), 5);
    assert_int_equal(count_files(&e), 5);
    env_end(&e);
}

static void failures_never_enter(void **state)
{
    env e = {0};
    static const char *const faults[] = {"500@1", "refusal@2", "length@3",
                                         "badjson@4", "truncate@5"};

    (void)state;
    e.cfg.max_bad_reply_retries = -1;
    env_start(&e, faults, TEST_COUNT(faults));
    assert_int_equal(ask(&e, "one"), GPTNER_ERR_SERVER);
    assert_int_equal(ask(&e, "one"), GPTNER_ERR_REFUSED);
    assert_int_equal(ask(&e, "one"), GPTNER_ERR_TRUNCATED);
    assert_int_equal(ask(&e, "one"), GPTNER_ERR_BAD_REPLY);
    assert_int_not_equal(ask(&e, "one"), GPTNER_OK);
    assert_int_equal(count_files(&e), 0);
    assert_int_equal(ask(&e, "one"), GPTNER_OK);
    assert_answer(&e, "one", false);
    assert_int_equal(ask(&e, "one"), GPTNER_OK);
    assert_answer(&e, "one", true);
    env_end(&e);
}

static void a_run_sends_only_what_is_new(void **state)
{
    env e = {0};
    const char *texts[200];
    static char room[200][16];
    char path[256], journal[256];
    char *text, *at;
    size_t len;
    int i, n = 0;

    (void)state;
    env_start(&e, NULL, 0);
    for (i = 0; i < 200; i++) {
        snprintf(room[i], sizeof room[i], "p%d", i % 100);
        texts[i] = room[i];
    }
    test_tmp_path(path, "out.jsonl");
    test_tmp_path(journal, "cached.journal");
    e.run.texts = texts;
    e.run.n_prompts = 60;
    assert_int_equal(gptner_run(e.client, &e.run, &e.sum, &e.err), GPTNER_OK);
    assert_int_equal(e.sum.requests, 60);
    assert_int_equal(e.sum.cached, 0);
    e.run.n_prompts = 200;
    e.run.dedupe = true;
    e.run.output_path = path;
    e.run.journal_path = journal;
    assert_int_equal(gptner_run(e.client, &e.run, &e.sum, &e.err), GPTNER_OK);
    assert_int_equal(e.sum.requests, 40);
    assert_int_equal(e.sum.cached, 60);
    assert_int_equal(e.sum.resumed, 0);
    assert_int_equal(e.sum.ok, 200);
    text = test_slurp(path, &len);
    for (at = text; (at = strstr(at, "\"cached\":true")) != NULL; at++) {
        n++;
    }
    assert_int_equal(n, 120); /* and those that share their answer */
    free(text);
    assert_int_equal(gptner_run(e.client, &e.run, &e.sum, &e.err), GPTNER_OK);
    assert_int_equal(e.sum.requests, 0);
    assert_int_equal(e.sum.connections, 0);
    assert_int_equal(e.sum.cached, 100);
    assert_int_equal(e.sum.prompt_tokens, 0);
    env_end(&e);
}

static bool take_delta(const gptner_delta *delta, void *user)
{
    (void)delta;
    (void)user;
    return true;
}

static void streams_neither_use_nor_fill_it(void **state)
{
    env e = {0};
    gptner_prompt prompt = {0};

    (void)state;
    env_start(&e, NULL, 0);
    prompt.text = gptner_str_from("one");
    ask(&e, "one");
    gptner_result_free(e.result);
    e.result = NULL;
    assert_int_equal(gptner_chat_stream(e.client, &prompt, take_delta, NULL,
                                        &e.result, &e.err),
                     GPTNER_OK);
    assert_answer(&e, "one", false);
    assert_int_equal(count_files(&e), 1);
    env_end(&e);
}

static void damaged_and_foreign_files_are_replaced(void **state)
{
    env e = {0};
    char path[512], *one, *other;
    size_t len, other_len, i;
    int64_t sent;

    (void)state;
    env_start(&e, NULL, 0);
    ask(&e, "other");
    count_files(&e);
    other = test_slurp(last_file, &other_len);
    unlink(last_file);
    ask(&e, "one");
    assert_int_equal(count_files(&e), 1);
    snprintf(path, sizeof path, "%s", last_file);
    one = test_slurp(path, &len);
    sent = requests(&e);
    for (i = 0; i < len; i += getenv("GPTNER_SLOW") != NULL ? 53 : 7) {
        char *copy = (char *)malloc(len);

        memcpy(copy, one, len);
        copy[i] ^= 0x10;
        test_spit(path, copy, i % 2 == 0 ? len : i);
        ask(&e, "one");
        assert_answer(&e, "one", false);
        assert_int_equal(requests(&e), ++sent);
        ask(&e, "one");
        assert_answer(&e, "one", true);
        free(copy);
    }
    test_spit(path, other, other_len); /* sound, but not what is asked for */
    ask(&e, "one");
    assert_answer(&e, "one", false);
    test_spit(path, one, len);
    ask(&e, "one");
    assert_answer(&e, "one", true);
    free(one);
    free(other);
    env_end(&e);
}

static void a_folder_that_cannot_be_made_is_an_error(void **state)
{
    env e = {0};
    char path[256];
    gptner_client *client = NULL;

    (void)state;
    env_start(&e, NULL, 0);
    e.cfg.cache_dir = test_tmp_path(path, "no/such/folder");
    assert_int_equal(gptner_client_new(&e.cfg, &client, &e.err),
                     GPTNER_ERR_FILE);
    assert_null(client);
    assert_non_null(strstr(e.err.message, "no/such/folder"));
    test_tmp_path(path, "a-file");
    test_spit(path, "x", 1);
    assert_int_equal(gptner_client_new(&e.cfg, &client, &e.err),
                     GPTNER_ERR_FILE);
    env_end(&e);
}

static void a_folder_that_cannot_be_written_is_told_once(void **state)
{
    env e = {0};
    int i;

    (void)state;
    env_start(&e, NULL, 0);
    assert_int_equal(rmdir(e.dir), 0);
    test_spit(e.dir, "a file is in the way", 20);
    for (i = 0; i < 3; i++) {
        assert_int_equal(ask(&e, "one"), GPTNER_OK);
        assert_answer(&e, "one", false);
    }
    assert_int_equal(e.warnings, 1);
    assert_int_equal(requests(&e), 3);
    env_end(&e);
}

static void failing_file_calls_cost_no_answer(void **state)
{
    env e = {0};
    int n, fired = 1;

    (void)state;
    env_start(&e, NULL, 0);
    for (n = 1; fired; n++) {
        char text[32];

        snprintf(text, sizeof text, "question %d", n / 2);
        test_fault_set(GPN_FAULT_FILE, n, false);
        assert_int_equal(ask(&e, text), GPTNER_OK);
        fired = test_fault_fired();
        test_fault_clear();
        assert_int_equal(e.result->status, GPTNER_OK);
        assert_int_equal(ask(&e, text), GPTNER_OK);
        assert_int_equal(ask(&e, text), GPTNER_OK);
        assert_answer(&e, text, true);
    }
    assert_in_range(n, 5, 50);
    env_end(&e);
}

static void no_memory_at_any_time_leaks_nothing(void **state)
{
    env e = {0};
    long n;
    int missed = 0;

    (void)state;
    env_start(&e, NULL, 0);
    ask(&e, "warm up");
    for (n = 1; n < 60; n++) {
        char text[32];
        gptner_status status;

        snprintf(text, sizeof text, "question %ld", n % 2);
        gptner_result_free(e.result);
        e.result = NULL;
        e.memory.calls = 0;
        e.memory.fail_at = n;
        status = gptner_ask(e.client, text, &e.result, &e.err);
        missed += e.memory.calls < n;
        e.memory.fail_at = 0;
        if (status == GPTNER_OK) {
            assert_answer(&e, text, e.result->cached);
        }
    }
    assert_true(missed > 0);
    env_end(&e);
}

static void several_processes_share_it(void **state)
{
    env e = {0};
    pid_t pids[4];
    char text[32];
    int i, k, how;

    (void)state;
    env_start(&e, NULL, 0);
    for (i = 0; i < 4; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            gptner_client *client = NULL;
            gptner_result *r = NULL;
            int bad = gptner_client_new(&e.cfg, &client, NULL) != GPTNER_OK;

            for (k = 0; k < 60 && !bad; k++) {
                snprintf(text, sizeof text, "question %d", k);
                bad = gptner_ask(client, text, &r, NULL) != GPTNER_OK;
                gptner_result_free(r);
            }
            gptner_client_free(client);
            if (!bad) {
                raise(SIGKILL); /* valgrind would call what it has of its
                                   parent a leak */
            }
            _exit(1);
        }
    }
    for (i = 0; i < 4; i++) {
        assert_int_equal(waitpid(pids[i], &how, 0), pids[i]);
        assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    }
    assert_int_equal(count_files(&e), 60); /* and no part of one */
    for (k = 0; k < 60; k++) {
        snprintf(text, sizeof text, "question %d", k);
        assert_int_equal(ask(&e, text), GPTNER_OK);
        assert_answer(&e, text, true);
    }
    env_end(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_question_is_asked_once),
        cmocka_unit_test(what_differs_is_asked_again),
        cmocka_unit_test(failures_never_enter),
        cmocka_unit_test(a_run_sends_only_what_is_new),
        cmocka_unit_test(streams_neither_use_nor_fill_it),
        cmocka_unit_test(damaged_and_foreign_files_are_replaced),
        cmocka_unit_test(a_folder_that_cannot_be_made_is_an_error),
        cmocka_unit_test(a_folder_that_cannot_be_written_is_told_once),
        cmocka_unit_test(failing_file_calls_cost_no_answer),
        cmocka_unit_test(no_memory_at_any_time_leaks_nothing),
        cmocka_unit_test(several_processes_share_it),
    };

    cmocka_set_test_filter(getenv("TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
