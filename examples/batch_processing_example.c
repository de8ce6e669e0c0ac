/* The command line of gptner.h: prompts from a file, answers into a file, now
 * and in parallel, or at half the price by the Batch API.
 * cc -I. -o batch_processing_example examples/batch_processing_example.c \
 *    -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
 */
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <io.h>
#define isatty _isatty
#define fileno _fileno
#else
#include <unistd.h>
#endif

#define NAME "batch_processing_example"

/* Exit statuses; --help explains them. */
enum {
    EXIT_ANSWERED = 0,
    EXIT_SOME_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_RUN_FAILED = 3,
    EXIT_INTERRUPTED = 130
};

typedef struct arguments {
    const char *mode;
    const char *input;
    const char *output;
    const char *batch_file;
    const char *batch_id;
    const char *description;
    const char *endpoint;
    const char *job;
    const char *raw_output;
    const char *retry_failed;
    double poll_interval; /* seconds */
    double max_wait;      /* seconds */
    double max_requests;
    double max_bytes;
    double max_enqueued_tokens;
    double limit;
    double delete_remote;
    double json;
    const char *model;
    const char *system;
    const char *base_url;
    const char *ca_file;
    double temperature;
    double max_tokens;
    double max_workers;
    double max_retries;
    double timeout; /* seconds */
    double quiet;
    double verbose;
    double help;
    double version;
} arguments;

/* Of a number; see make_config(). */
#define NOT_GIVEN (-1.0)
#define NONE      (-2.0)

static arguments args;

/* One row an option: a text, a number within bounds, or, with value NULL, a
 * flag whose occurrences are counted. */
typedef struct option {
    const char *name;
    const char *value;
    const char *help;
    const char **text;
    double *number;
    double min, max;
    bool whole;    /* no fraction */
    bool may_omit; /* "none" leaves the field out of the request */
} option;

/* clang-format off */
static const option options[] = {
    {"mode", "MODE", "what to do; see above (parallel)",
     &args.mode, NULL, 0, 0, false, false},
    {"input", "FILE", "one prompt a line, or .jsonl; -: standard input",
     &args.input, NULL, 0, 0, false, false},
    {"output", "FILE", "one answer a line, or .jsonl; -: standard output",
     &args.output, NULL, 0, 0, false, false},
    {"engine", "NAME", "the model (gpt-4o-mini)",
     &args.model, NULL, 0, 0, false, false},
    {"model", "NAME", "the same as --engine",
     &args.model, NULL, 0, 0, false, false},
    {"system", "TEXT", "system message of every prompt",
     &args.system, NULL, 0, 0, false, false},
    {"temperature", "N", "0 to 2 (0); none: not sent",
     NULL, &args.temperature, 0, 2, false, true},
    {"max-tokens", "N", "length limit of an answer (512); none: not sent",
     NULL, &args.max_tokens, 1, 1e9, true, true},
    {"max-workers", "N", "requests at a time (10)",
     NULL, &args.max_workers, 1, 1e5, true, false},
    {"max-retries", "N", "retries of a prompt, for each kind of failure",
     NULL, &args.max_retries, 0, 1e6, true, false},
    {"timeout", "SECONDS", "time limit of one attempt (600)",
     NULL, &args.timeout, 0.001, 2e6, false, false},
    {"base-url", "URL", "the server ($OPENAI_BASE_URL)",
     &args.base_url, NULL, 0, 0, false, false},
    {"ca-file", "FILE", "trust these certificates (the system's)",
     &args.ca_file, NULL, 0, 0, false, false},
    {"batch-file", "FILE", "the requests of a batch, .jsonl",
     &args.batch_file, NULL, 0, 0, false, false},
    {"batch-id", "ID", "the batch",
     &args.batch_id, NULL, 0, 0, false, false},
    {"description", "TEXT", "kept with the batch (Batch processing)",
     &args.description, NULL, 0, 0, false, false},
    {"endpoint", "PATH", "of all requests, as /v1/responses (by the model)",
     &args.endpoint, NULL, 0, 0, false, false},
    {"job", "NAME", "submit: a name that makes submitting again harmless",
     &args.job, NULL, 0, 0, false, false},
    {"raw-output", "FILE", "retrieve: keep the result file as it came",
     &args.raw_output, NULL, 0, 0, false, false},
    {"poll-interval", "SECONDS", "between looks at a batch (60)",
     NULL, &args.poll_interval, 0.001, 1e6, false, false},
    {"max-wait", "SECONDS", "give up waiting after (wait: 90000; full: never)",
     NULL, &args.max_wait, 0.001, 1e9, false, false},
    {"max-requests", "N", "in a batch (50000)",
     NULL, &args.max_requests, 1, 50000, true, false},
    {"max-bytes", "N", "of a batch file (200000000)",
     NULL, &args.max_bytes, 1, 2e8, true, false},
    {"max-enqueued-tokens", "N", "of all batches at a time, about (no limit)",
     NULL, &args.max_enqueued_tokens, 1, 1e15, true, false},
    {"retry-failed", "HOW", "full: batch or parallel, for what failed",
     &args.retry_failed, NULL, 0, 0, false, false},
    {"delete-remote", NULL, "full: delete the server's files at the end",
     NULL, &args.delete_remote, 0, 0, false, false},
    {"limit", "N", "list: how many (20)",
     NULL, &args.limit, 1, 1e6, true, false},
    {"json", NULL, "print what the server says of a batch, as JSON",
     NULL, &args.json, 0, 0, false, false},
    {"quiet", NULL, "no progress and no summary",
     NULL, &args.quiet, 0, 0, false, false},
    {"verbose", NULL, "say what happens; twice: with prompts and answers",
     NULL, &args.verbose, 0, 0, false, false},
    {"help", NULL, "this text", NULL, &args.help, 0, 0, false, false},
    {"version", NULL, "the version", NULL, &args.version, 0, 0, false, false}
};
/* clang-format on */

#define N_OPTIONS (sizeof options / sizeof options[0])

/* One row a mode. */
typedef struct mode {
    const char *name;
    const char *needs; /* options, by their first letters; see given() */
    const char *help;
    int (*run)(void);
    bool no_key;
} mode;

static int run_parallel(void);
static int run_create(void);
static int run_validate(void);
static int run_submit(void);
static int run_status(void);
static int run_wait(void);
static int run_retrieve(void);
static int run_cancel(void);
static int run_list(void);
static int run_full(void);

/* clang-format off */
static const mode modes[] = {
    {"parallel", "input", "all prompts now, many at a time",
     run_parallel, false},
    {"full", "input output", "all prompts by batches; run again to resume",
     run_full, false},
    {"create", "input batch-file", "write the batch file; needs no key",
     run_create, true},
    {"validate", "batch-file", "check a batch file as the server will; no key",
     run_validate, true},
    {"submit", "batch-file", "upload it and start the batch; prints its id",
     run_submit, false},
    {"status", "batch-id", "what the server says of it",
     run_status, false},
    {"wait", "batch-id", "until it has ended",
     run_wait, false},
    {"retrieve", "batch-id", "its answers; --batch-file saves a fetch",
     run_retrieve, false},
    {"cancel", "batch-id", "what was done by then can be retrieved",
     run_cancel, false},
    {"list", "", "the batches of the account, newest first",
     run_list, false}
};
/* clang-format on */

#define N_MODES (sizeof modes / sizeof modes[0])

static void print_help(void)
{
    printf(
        "usage: " NAME " [--mode MODE] [option...]\n\n"
        "Sends every prompt of a file to an OpenAI-compatible API and writes "
        "the answers\nin the same order: now, many at a time, or by the "
        "Batch API, at half the price\nand within a day. The key is taken "
        "from OPENAI_API_KEY.\n\n");
    for (size_t i = 0; i < N_MODES; i++) {
        printf("  --mode %-9s %s\n", modes[i].name, modes[i].help);
    }
    printf("\n");
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const char *value = options[i].value ? options[i].value : "";
        printf("  --%-19s %-8s %s\n", options[i].name, value, options[i].help);
    }
    printf(
        "\nInput lines of a .jsonl are objects with prompt, messages or body, "
        "and if wanted\nsystem and custom_id. Line n of a .txt output answers "
        "prompt n; line breaks are\nwritten as \\n and backslashes as \\\\. A "
        ".jsonl output has all that is known.\nOutput files appear whole or "
        "not at all.\n\n"
        "The mode full can be killed at any time. Run again with the same "
        "options it goes\non where it was: nothing is lost, and nothing is "
        "paid twice. Its files begin with\nthe output's name and .job.\n\n"
        "Exit status: 0 every prompt was answered (wait: the batch was "
        "completed), 1 some\nwere not (they are named on stderr), 2 wrong "
        "usage, 3 the run failed, 130\ninterrupted (what was done by then is "
        "written or kept; a second signal ends at\nonce).\n");
}

static bool parse_number(const option *opt, const char *value)
{
    char *end = NULL;
    double number = strtod(value, &end);
    if (opt->may_omit && strcmp(value, "none") == 0) {
        *opt->number = NONE;
        return true;
    }
    if (end == value || *end != '\0' || !(number >= opt->min) ||
        !(number <= opt->max) || (opt->whole && number != (int)number)) {
        fprintf(stderr, NAME ": --%s %s: not a%s number from %.10g to %.10g\n",
                opt->name, value, opt->whole ? " whole" : "", opt->min,
                opt->max);
        return false;
    }
    *opt->number = number;
    return true;
}

/* Takes --name, --name value or --name=value at argv[*i]. */
static bool parse_option(int argc, char **argv, int *i)
{
    const char *name = argv[*i];
    size_t len = strcspn(name, "=");
    const option *opt = NULL;
    const char *value;

    for (size_t k = 0; k < N_OPTIONS && strncmp(name, "--", 2) == 0; k++) {
        if (strlen(options[k].name) == len - 2 &&
            memcmp(options[k].name, name + 2, len - 2) == 0) {
            opt = &options[k];
        }
    }
    if (!opt || (!opt->value && name[len] == '=')) {
        fprintf(stderr, NAME ": unknown option %s; see --help\n", name);
        return false;
    }
    if (!opt->value) {
        *opt->number += 1;
        return true;
    }
    value = name[len] == '=' ? name + len + 1 : argv[++*i];
    if (*i >= argc || !value) {
        fprintf(stderr, NAME ": --%s needs a value\n", opt->name);
        return false;
    }
    if (opt->text) {
        *opt->text = value;
        return true;
    }
    return parse_number(opt, value);
}

static const mode *mode_of(const char *name)
{
    for (size_t i = 0; i < N_MODES; i++) {
        if (strcmp(modes[i].name, name) == 0) {
            return &modes[i];
        }
    }
    return NULL;
}

/* Every option that the mode needs is there. */
static bool check_needs(const mode *m)
{
    static const struct {
        const char *name;
        const char **text;
    } all[] = {{"input", &args.input},
               {"output", &args.output},
               {"batch-file", &args.batch_file},
               {"batch-id", &args.batch_id}};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!*all[i].text && strstr(m->needs, all[i].name)) {
            fprintf(stderr, NAME ": --mode %s needs --%s; see --help\n",
                    m->name, all[i].name);
            return false;
        }
    }
    return true;
}

static bool parse_arguments(int argc, char **argv)
{
    const mode *m;

    memset(&args, 0, sizeof args);
    args.temperature = args.max_tokens = args.max_workers = args.max_retries =
        args.timeout = NOT_GIVEN;
    args.mode = "parallel";
    args.description = "Batch processing";

    for (int i = 1; i < argc; i++) {
        if (!parse_option(argc, argv, &i)) {
            return false;
        }
    }
    if (args.help > 0 || args.version > 0) {
        return true;
    }
    m = mode_of(args.mode);
    if (!m) {
        fprintf(stderr, NAME ": --mode %s: there is no such mode; see --help\n",
                args.mode);
        return false;
    }
    if (args.retry_failed && strcmp(args.retry_failed, "batch") != 0 &&
        strcmp(args.retry_failed, "parallel") != 0) {
        fprintf(stderr,
                NAME ": --retry-failed %s: neither batch nor parallel\n",
                args.retry_failed);
        return false;
    }
    return check_needs(m);
}

/* The bar stands in the last line of a terminal; a message takes its place,
 * and the bar is drawn again below. */
static void clear_bar(void)
{
    if (isatty(fileno(stderr))) {
        fputs("\r\033[K", stderr);
    }
}

static void log_line(gptner_log_level level, const char *text, void *user)
{
    (void)level;
    (void)user;
    fprintf(stderr, NAME ": %s\n", text);
}

static void make_config(gptner_config *config)
{
    if (args.temperature > NOT_GIVEN) {
        config->options.temperature = args.temperature;
    } else if (args.temperature < NOT_GIVEN) {
        config->options.temperature = GPTNER_OMIT;
    }
    if (args.max_tokens > NOT_GIVEN) {
        config->options.max_tokens = (int)args.max_tokens;
    } else if (args.max_tokens < NOT_GIVEN) {
        config->options.max_tokens = GPTNER_OMIT;
    }
    if (args.max_retries > NOT_GIVEN) {
        int retries = args.max_retries > 0 ? (int)args.max_retries : -1;
        config->max_retries = retries;
        config->max_throttle_retries = retries;
        config->max_bad_reply_retries = retries;
    }
    if (args.max_workers > NOT_GIVEN) {
        config->max_workers = (int)args.max_workers;
    }
    if (args.timeout > NOT_GIVEN) {
        config->timeout_ms = (int)(args.timeout * 1000);
    }
    config->options.model = args.model;
    config->system = args.system;
    config->base_url = args.base_url;
    config->ca_file = args.ca_file;
    if (args.verbose > 0) {
        config->log_fn = log_line;
        config->log_level =
            args.verbose > 1 ? GPTNER_LOG_DEBUG : GPTNER_LOG_INFO;
    }
}

/* Names a prompt that got no answer. In a run (user is NULL) those that were
 * never sent because it ended are counted in the summary instead. */
static bool name_failure(const gptner_result *result, void *user)
{
    if (result->status == GPTNER_OK ||
        (!user && (result->status == GPTNER_ERR_NOT_SENT ||
                   result->status == GPTNER_ERR_CANCELLED))) {
        return true;
    }
    clear_bar();
    fprintf(stderr, NAME ": prompt %lu", (unsigned long)result->index + 1);
    if (result->custom_id.len > 0) {
        fprintf(stderr, " (custom_id %.*s)", (int)result->custom_id.len,
                result->custom_id.ptr);
    }
    fprintf(stderr, ": %s: %s\n", gptner_status_name(result->status),
            result->message);
    return true;
}

static void print_summary(const gptner_run_summary *sum)
{
    fprintf(stderr,
            NAME ": %lld prompts: %lld answered, %lld failed (%lld not sent, "
                 "%lld cancelled)\n",
            (long long)sum->total, (long long)sum->ok, (long long)sum->failed,
            (long long)sum->not_sent, (long long)sum->cancelled);
    fprintf(stderr,
            NAME ": %lld requests, %lld of them retries, %lld throttled; %lld "
                 "connections, %lld resumed\n",
            (long long)sum->requests, (long long)sum->retries,
            (long long)sum->throttled, (long long)sum->connections,
            (long long)sum->resumed_sessions);
    fprintf(stderr, NAME ": %lld + %lld tokens in %.1f s\n",
            (long long)sum->prompt_tokens, (long long)sum->completion_tokens,
            (double)sum->elapsed_ms / 1000.0);
}

static gptner_client *client;
static volatile sig_atomic_t interrupted;

/* What a call came to; says what failed. */
static int exit_status(gptner_status status, const gptner_error *err,
                       bool some_failed)
{
    if (status == GPTNER_ERR_CANCELLED && interrupted) {
        fprintf(stderr, NAME ": interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (status != GPTNER_OK) {
        fprintf(stderr, NAME ": %s: %s\n", gptner_status_name(status),
                err->message);
        return EXIT_RUN_FAILED;
    }
    return some_failed ? EXIT_SOME_FAILED : EXIT_ANSWERED;
}

/* The first signal ends the run in good order, the second the program. */
static void on_signal(int number)
{
    if (interrupted) {
        _Exit(EXIT_INTERRUPTED);
    }
    interrupted = 1;
    signal(number, on_signal);
    gptner_client_cancel(client);
}

static int run_parallel(void)
{
    static gptner_bar bar; /* zero, and so are those below */
    gptner_run_config run;
    gptner_run_summary summary;
    gptner_error err;
    gptner_status status;

    memset(&bar, 0, sizeof bar);
    memset(&run, 0, sizeof run);
    memset(&summary, 0, sizeof summary);
    run.input_path = args.input;
    run.output_path = args.output ? args.output : "-";
    run.result_fn = name_failure;
    if (args.quiet <= 0) {
        run.progress_fn = gptner_progress_bar;
        run.progress_user = &bar;
    }
    status = gptner_run(client, &run, &summary, &err);
    if (args.quiet <= 0) {
        print_summary(&summary);
    }
    return exit_status(status, &err, summary.failed > 0);
}

/* ---- the Batch API ---- */

static int64_t milliseconds(double seconds)
{
    return (int64_t)(seconds * 1000.0 + 0.5);
}

static void fill_source(gptner_batch_create_config *source)
{
    source->input_path = args.input;
    source->output_path = args.batch_file;
    source->endpoint = args.endpoint;
    source->max_requests = (int64_t)args.max_requests;
    source->max_bytes = (int64_t)args.max_bytes;
}

static int run_create(void)
{
    gptner_batch_create_config config;
    gptner_batch_files *files;
    gptner_error err;
    gptner_status status;

    memset(&config, 0, sizeof config);
    fill_source(&config);
    config.max_tokens = (int64_t)args.max_enqueued_tokens;
    status = gptner_batch_create_file(client, &config, &files, &err);
    for (size_t i = 0; files && i < files->count; i++) {
        printf("%s\n", files->items[i].path);
        if (args.quiet <= 0) {
            fprintf(stderr,
                    NAME ": %s: %lld requests, %lld bytes, about %lld prompt "
                         "tokens\n",
                    files->items[i].path, (long long)files->items[i].requests,
                    (long long)files->items[i].bytes,
                    (long long)files->items[i].tokens);
        }
    }
    gptner_batch_files_free(files);
    return exit_status(status, &err, false);
}

static void print_issue(const gptner_batch_issue *issue, const char *where)
{
    fprintf(stderr, NAME ": %s", where);
    if (issue->line > 0) {
        fprintf(stderr, ", line %lld", (long long)issue->line);
    }
    fprintf(stderr, ": %.*s", (int)issue->code.len,
            issue->code.len > 0 ? issue->code.ptr : "");
    if (issue->param.len > 0) {
        fprintf(stderr, " (%.*s)", (int)issue->param.len, issue->param.ptr);
    }
    fprintf(stderr, ": %.*s\n", (int)issue->message.len,
            issue->message.len > 0 ? issue->message.ptr : "");
}

/* Names what the server would find. GPTNER_OK: nothing. */
static gptner_status validate(bool quiet, gptner_error *err)
{
    gptner_batch_report *report;
    gptner_status status = gptner_batch_validate_file(
        args.batch_file, args.endpoint, NULL, &report, err);

    for (size_t i = 0; report && i < report->count; i++) {
        print_issue(&report->items[i], args.batch_file);
    }
    if (report && report->found > (int64_t)report->count) {
        fprintf(stderr, NAME ": and %lld more\n",
                (long long)(report->found - (int64_t)report->count));
    }
    if (status == GPTNER_OK && !quiet) {
        fprintf(stderr, NAME ": %s: %lld requests, %lld bytes, %.*s, %.*s\n",
                args.batch_file, (long long)report->requests,
                (long long)report->bytes, (int)report->endpoint.len,
                report->endpoint.ptr, (int)report->model.len,
                report->model.ptr);
    }
    gptner_batch_report_free(report);
    return status;
}

static int run_validate(void)
{
    gptner_error err;
    gptner_status status = validate(args.quiet > 0, &err);

    return exit_status(status, &err, false);
}

static void show_upload(int64_t sent, int64_t total, void *user)
{
    int *last = (int *)user;
    int percent = total > 0 ? (int)(sent * 100 / total) : 100;

    if (percent != *last && isatty(fileno(stderr))) {
        fprintf(stderr, "\r" NAME ": uploading: %d%%%s", percent,
                percent == 100 ? "\n" : "");
    }
    *last = percent;
}

static int run_submit(void)
{
    gptner_batch_submit_config config;
    gptner_batch *batch = NULL;
    gptner_error err;
    int percent = -1;
    gptner_status status = validate(true, &err);

    if (status == GPTNER_OK) {
        memset(&config, 0, sizeof config);
        config.path = args.batch_file;
        config.endpoint = args.endpoint;
        config.description = args.description;
        config.job = args.job;
        if (args.quiet <= 0) {
            config.upload_fn = show_upload;
            config.upload_user = &percent;
        }
        status = gptner_batch_submit(client, &config, &batch, &err);
    }
    if (status == GPTNER_OK) {
        gptner_str text = args.json > 0 ? batch->raw : batch->id;
        printf("%.*s\n", (int)text.len, text.ptr);
    }
    gptner_batch_free(batch);
    return exit_status(status, &err, false);
}

static void print_time(const char *name, int64_t seconds)
{
    time_t t = (time_t)seconds;
    char text[40];

    if (seconds > 0 &&
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", gmtime(&t)) > 0) {
        printf("%-14s %s\n", name, text);
    }
}

static void print_text(const char *name, gptner_str text)
{
    if (text.len > 0) {
        printf("%-14s %.*s\n", name, (int)text.len, text.ptr);
    }
}

static void print_batch(const gptner_batch *b)
{
    if (args.json > 0) {
        printf("%.*s\n", (int)b->raw.len, b->raw.ptr);
        return;
    }
    print_text("id", b->id);
    print_text("status", b->status);
    print_text("endpoint", b->endpoint);
    print_text("model", b->model);
    printf("%-14s %lld of %lld, %lld failed\n", "completed",
           (long long)b->requests_completed, (long long)b->requests_total,
           (long long)b->requests_failed);
    print_time("created", b->created_at);
    print_time("in progress", b->in_progress_at);
    print_time("expires", b->expires_at);
    print_time("finalizing", b->finalizing_at);
    print_time("completed", b->completed_at);
    print_time("failed", b->failed_at);
    print_time("expired", b->expired_at);
    print_time("cancelling", b->cancelling_at);
    print_time("cancelled", b->cancelled_at);
    print_text("input file", b->input_file_id);
    print_text("output file", b->output_file_id);
    print_text("error file", b->error_file_id);
    for (size_t i = 0; i < b->n_metadata; i++) {
        printf("%-14s %.*s: %.*s\n", "metadata", (int)b->metadata[i].key.len,
               b->metadata[i].key.ptr, (int)b->metadata[i].value.len,
               b->metadata[i].value.len > 0 ? b->metadata[i].value.ptr : "");
    }
    for (size_t i = 0; i < b->n_errors; i++) {
        print_issue(&b->errors[i], "the server's check");
    }
}

static int run_status(void)
{
    gptner_batch *batch;
    gptner_error err;
    gptner_status status =
        gptner_batch_status(client, args.batch_id, &batch, &err);

    if (status == GPTNER_OK) {
        print_batch(batch);
    }
    gptner_batch_free(batch);
    return exit_status(status, &err, false);
}

static int run_cancel(void)
{
    gptner_batch *batch;
    gptner_error err;
    gptner_status status =
        gptner_batch_cancel(client, args.batch_id, &batch, &err);

    if (status == GPTNER_OK) {
        print_batch(batch);
    }
    gptner_batch_free(batch);
    return exit_status(status, &err, false);
}

static bool show_batch(const gptner_batch *b, void *user)
{
    (void)user;
    fprintf(stderr, NAME ": %.*s: %.*s, %lld of %lld\n", (int)b->id.len,
            b->id.ptr, (int)b->status.len, b->status.ptr,
            (long long)(b->requests_completed + b->requests_failed),
            (long long)b->requests_total);
    return true;
}

static int run_wait(void)
{
    gptner_batch_wait_config config;
    gptner_batch *batch;
    gptner_error err;
    gptner_status status;
    bool completed;

    memset(&config, 0, sizeof config);
    config.poll_ms = milliseconds(args.poll_interval);
    config.max_wait_ms = milliseconds(args.max_wait);
    config.batch_fn = args.quiet > 0 ? NULL : show_batch;
    status = gptner_batch_wait(client, args.batch_id, &config, &batch, &err);
    completed = batch && batch->state == GPTNER_BATCH_COMPLETED;
    if (status == GPTNER_OK) {
        print_batch(batch);
    }
    gptner_batch_free(batch);
    return exit_status(status, &err, !completed);
}

static int run_list(void)
{
    int left = args.limit > 0 ? (int)args.limit : 20;
    gptner_batches *page = NULL;
    gptner_status status = GPTNER_OK;
    gptner_error err;
    bool more = true;

    while (status == GPTNER_OK && more && left > 0) {
        gptner_batches *before = page;
        const char *after =
            before ? before->items[before->count - 1]->id.ptr : NULL;

        status = gptner_batch_list(client, after, left < 100 ? left : 100,
                                   &page, &err);
        gptner_batches_free(before);
        for (size_t i = 0; page && i < page->count; i++, left--) {
            const gptner_batch *b = page->items[i];
            if (args.json > 0) {
                printf("%.*s\n", (int)b->raw.len, b->raw.ptr);
            } else {
                printf("%.*s\t%.*s\t%lld/%lld\n", (int)b->id.len, b->id.ptr,
                       (int)b->status.len, b->status.ptr,
                       (long long)b->requests_completed,
                       (long long)b->requests_total);
            }
        }
        more = page && page->has_more && page->count > 0;
    }
    gptner_batches_free(page);
    return exit_status(status, &err, false);
}

static void print_batch_summary(const gptner_batch_summary *sum)
{
    fprintf(stderr,
            NAME ": %lld requests: %lld answered, %lld failed (%lld expired, "
                 "%lld cancelled, %lld missing)\n",
            (long long)sum->total, (long long)sum->ok, (long long)sum->failed,
            (long long)sum->expired, (long long)sum->cancelled,
            (long long)sum->missing);
    if (sum->malformed + sum->duplicates + sum->strangers > 0) {
        fprintf(stderr,
                NAME ": rows: %lld malformed, %lld twice, %lld of no request\n",
                (long long)sum->malformed, (long long)sum->duplicates,
                (long long)sum->strangers);
    }
    fprintf(stderr, NAME ": %lld + %lld tokens\n",
            (long long)sum->prompt_tokens, (long long)sum->completion_tokens);
}

static int run_retrieve(void)
{
    gptner_batch_retrieve_config config;
    gptner_batch_summary summary;
    gptner_error err;
    gptner_status status;

    memset(&config, 0, sizeof config);
    config.requests_path = args.batch_file;
    config.output_path = args.output ? args.output : "-";
    config.raw_output_path = args.raw_output;
    config.result_fn = name_failure;
    config.result_user = &summary;
    status =
        gptner_batch_retrieve(client, args.batch_id, &config, &summary, &err);
    if (status == GPTNER_OK && args.quiet <= 0) {
        print_batch_summary(&summary);
    }
    return exit_status(status, &err, summary.failed > 0);
}

static void show_job(const gptner_job_progress *p, void *user)
{
    bool *told = (bool *)user;

    if (p->resumed && !*told) {
        fprintf(stderr,
                NAME ": resumed: %lld prompts in %lld batches, %lld of "
                     "them ended\n",
                (long long)p->requests, (long long)p->batches,
                (long long)p->ended);
        *told = true;
    }
    if (p->event) {
        fprintf(stderr,
                NAME ": %s (%lld of %lld; batches: %lld wait, %lld "
                     "run, %lld ended)\n",
                p->event, (long long)p->done, (long long)p->requests,
                (long long)p->waiting, (long long)p->running,
                (long long)p->ended);
    }
}

static int run_full(void)
{
    gptner_job_config config;
    gptner_job_summary summary;
    gptner_error err;
    gptner_status status;
    bool told = false;

    memset(&config, 0, sizeof config);
    fill_source(&config.source);
    config.output_path = args.output;
    config.result_fn = name_failure;
    config.result_user = &summary;
    config.description = args.description;
    config.max_enqueued_tokens = (int64_t)args.max_enqueued_tokens;
    config.poll_ms = milliseconds(args.poll_interval);
    config.max_wait_ms = milliseconds(args.max_wait);
    config.delete_remote = args.delete_remote > 0;
    if (args.retry_failed) {
        config.retry_failed = strcmp(args.retry_failed, "batch") == 0
                                  ? GPTNER_RETRY_BATCH
                                  : GPTNER_RETRY_PARALLEL;
    }
    if (args.quiet <= 0) {
        config.progress_fn = show_job;
        config.progress_user = &told;
    }
    status = gptner_job_run(client, &config, &summary, &err);
    if (status == GPTNER_OK && args.quiet <= 0) {
        if (summary.was_done) {
            fprintf(stderr,
                    NAME ": the job was done before; remove %s.job to "
                         "begin it anew\n",
                    args.output);
        }
        print_batch_summary(&summary.results);
    }
    return exit_status(status, &err, summary.results.failed > 0);
}

int main(int argc, char **argv)
{
    gptner_config config;
    gptner_error err;
    int result;

    if (!parse_arguments(argc, argv)) {
        return EXIT_USAGE;
    }
    if (args.help > 0) {
        print_help();
        return EXIT_ANSWERED;
    }
    if (args.version > 0) {
        printf(NAME " %s\n", gptner_version());
        return EXIT_ANSWERED;
    }
    memset(&config, 0, sizeof config);
    make_config(&config);
    if (mode_of(args.mode)->no_key) {
        config.api_key = "";
    }
    if (gptner_client_new(&config, &client, &err) != GPTNER_OK) {
        fprintf(stderr, NAME ": %s\n", err.message);
        return EXIT_RUN_FAILED;
    }
    interrupted = 0;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    result = mode_of(args.mode)->run();
    if (fflush(stdout) != 0) {
        fprintf(stderr, NAME ": standard output cannot be written\n");
        result = EXIT_RUN_FAILED;
    }
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    gptner_client_free(client);
    client = NULL;
    return result;
}
