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
    EXIT_BUDGET = 4,
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
    const char *tier;
    const char *limits_file;
    const char *pace_file;
    const char *prices_file;
    const char *cache_dir;
    double rpm;
    double tpm;
    double rpd;
    double tpd;
    double max_cost; /* dollars */
    double expect_tokens;
    double sample;
    double resume;
    double dedupe;
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
    bool whole;       /* no fraction */
    const char *word; /* may stand for the number: it is then NONE */
} option;

/* clang-format off */
static const option options[] = {
    {"mode", "MODE", "what to do; see above (parallel)",
     &args.mode, NULL, 0, 0, false, NULL},
    {"input", "FILE", "one prompt a line, or .jsonl; -: standard input",
     &args.input, NULL, 0, 0, false, NULL},
    {"output", "FILE", "one answer a line, or .jsonl; -: standard output",
     &args.output, NULL, 0, 0, false, NULL},
    {"engine", "NAME", "the model (gpt-4o-mini)",
     &args.model, NULL, 0, 0, false, NULL},
    {"model", "NAME", "the same as --engine",
     &args.model, NULL, 0, 0, false, NULL},
    {"system", "TEXT", "system message of every prompt",
     &args.system, NULL, 0, 0, false, NULL},
    {"temperature", "N", "0 to 2 (0); none: not sent",
     NULL, &args.temperature, 0, 2, false, "none"},
    {"max-tokens", "N", "length limit of an answer (512); none: not sent",
     NULL, &args.max_tokens, 1, 1e9, true, "none"},
    {"max-workers", "N", "requests at a time (10); auto: as many as help",
     NULL, &args.max_workers, 1, 1e5, true, "auto"},
    {"max-retries", "N", "retries of a prompt, for each kind of failure",
     NULL, &args.max_retries, 0, 1e6, true, NULL},
    {"timeout", "SECONDS", "time limit of one attempt (600)",
     NULL, &args.timeout, 0.001, 2e6, false, NULL},
    {"base-url", "URL", "the server ($OPENAI_BASE_URL)",
     &args.base_url, NULL, 0, 0, false, NULL},
    {"ca-file", "FILE", "trust these certificates (the system's)",
     &args.ca_file, NULL, 0, 0, false, NULL},
    {"tier", "TIER", "the account's: free, or 1 to 5 (what replies tell)",
     &args.tier, NULL, 0, 0, false, NULL},
    {"rpm", "N", "requests a minute (the tier's)",
     NULL, &args.rpm, 1, 1e12, true, NULL},
    {"tpm", "N", "tokens a minute (the tier's)",
     NULL, &args.tpm, 1, 1e12, true, NULL},
    {"rpd", "N", "requests a day (the tier's)",
     NULL, &args.rpd, 1, 1e12, true, NULL},
    {"tpd", "N", "tokens a day (the tier's)",
     NULL, &args.tpd, 1, 1e12, true, NULL},
    {"limits-file", "FILE", "limits of tiers and models, JSON (a table)",
     &args.limits_file, NULL, 0, 0, false, NULL},
    {"pace-file", "FILE", "shared with other processes on the account",
     &args.pace_file, NULL, 0, 0, false, NULL},
    {"prices-file", "FILE", "prices of models, JSON (a table)",
     &args.prices_file, NULL, 0, 0, false, NULL},
    {"max-cost", "DOLLARS", "the run will not cost more",
     NULL, &args.max_cost, 1e-6, 1e9, false, NULL},
    {"resume", NULL, "parallel: go on after a crash, by a journal",
     NULL, &args.resume, 0, 0, false, NULL},
    {"cache-dir", "FOLDER", "keep answers here, and send nothing twice",
     &args.cache_dir, NULL, 0, 0, false, NULL},
    {"dedupe", NULL, "parallel: send equal requests once",
     NULL, &args.dedupe, 0, 0, false, NULL},
    {"expect-tokens", "N", "estimate: of an answer (its text's and a third)",
     NULL, &args.expect_tokens, 1, 1e9, true, NULL},
    {"sample", "N", "estimate: by sending N prompts; this costs money",
     NULL, &args.sample, 1, 1e6, true, NULL},
    {"batch-file", "FILE", "the requests of a batch, .jsonl",
     &args.batch_file, NULL, 0, 0, false, NULL},
    {"batch-id", "ID", "the batch",
     &args.batch_id, NULL, 0, 0, false, NULL},
    {"description", "TEXT", "kept with the batch (Batch processing)",
     &args.description, NULL, 0, 0, false, NULL},
    {"endpoint", "PATH", "of all requests, as /v1/responses (by the model)",
     &args.endpoint, NULL, 0, 0, false, NULL},
    {"job", "NAME", "submit: a name that makes submitting again harmless",
     &args.job, NULL, 0, 0, false, NULL},
    {"raw-output", "FILE", "retrieve: keep the result file as it came",
     &args.raw_output, NULL, 0, 0, false, NULL},
    {"poll-interval", "SECONDS", "between looks at a batch (60)",
     NULL, &args.poll_interval, 0.001, 1e6, false, NULL},
    {"max-wait", "SECONDS", "give up waiting after (wait: 90000; full: never)",
     NULL, &args.max_wait, 0.001, 1e9, false, NULL},
    {"max-requests", "N", "in a batch (50000)",
     NULL, &args.max_requests, 1, 50000, true, NULL},
    {"max-bytes", "N", "of a batch file (200000000)",
     NULL, &args.max_bytes, 1, 2e8, true, NULL},
    {"max-enqueued-tokens", "N", "of all batches at a time, about (no limit)",
     NULL, &args.max_enqueued_tokens, 1, 1e15, true, NULL},
    {"retry-failed", "HOW", "full: batch or parallel, for what failed",
     &args.retry_failed, NULL, 0, 0, false, NULL},
    {"delete-remote", NULL, "full: delete the server's files at the end",
     NULL, &args.delete_remote, 0, 0, false, NULL},
    {"limit", "N", "list: how many (20)",
     NULL, &args.limit, 1, 1e6, true, NULL},
    {"json", NULL, "print an estimate or a batch as JSON",
     NULL, &args.json, 0, 0, false, NULL},
    {"quiet", NULL, "no progress and no summary",
     NULL, &args.quiet, 0, 0, false, NULL},
    {"verbose", NULL, "say what happens; twice: with prompts and answers",
     NULL, &args.verbose, 0, 0, false, NULL},
    {"help", NULL, "this text", NULL, &args.help, 0, 0, false, NULL},
    {"version", NULL, "the version", NULL, &args.version, 0, 0, false, NULL}
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
static int run_estimate(void);
static int run_auto(void);

/* clang-format off */
static const mode modes[] = {
    {"parallel", "input", "all prompts now, many at a time",
     run_parallel, false},
    {"full", "input output", "all prompts by batches; run again to resume",
     run_full, false},
    {"estimate", "input", "what it would cost and take; sends nothing, no key",
     run_estimate, true},
    {"auto", "input output", "parallel or full, as the estimate advises",
     run_auto, false},
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
        "The modes full and auto, and parallel with --resume, can be killed at "
        "any time.\nRun again with the same options they go on where they "
        "were: nothing is lost, and\nnothing is paid twice but what was in "
        "flight in parallel. Their files begin with\nthe output's name and "
        ".job or .run.\n\n"
        "Limits are those of --tier, but for what --limits-file and --rpm, "
        "--tpm, --rpd and\n--tpd say; without any, what the server's replies "
        "tell is kept to. --max-cost sets\naside what a request can cost at "
        "most before it is sent. Under 10,000 prompts in\nparallel, beyond "
        "that by batch: --mode estimate weighs that against money, limits\n"
        "and time, and --mode auto does what it advises.\n\n"
        "Exit status: 0 every prompt was answered (wait: the batch was "
        "completed), 1 some\nwere not (they are named on stderr), 2 wrong "
        "usage, 3 the run failed, 4 the budget\nended it, 130 interrupted "
        "(what was done by then is written or kept; a second\nsignal ends at "
        "once).\n");
}

static bool parse_number(const option *opt, const char *value)
{
    char *end = NULL;
    double number = strtod(value, &end);
    if (opt->word && strcmp(value, opt->word) == 0) {
        *opt->number = NONE;
        return true;
    }
    if (end == value || *end != '\0' || !(number >= opt->min) ||
        !(number <= opt->max) ||
        (opt->whole && number != (double)(long long)number)) {
        fprintf(
            stderr, NAME ": --%s %s: not a%s number from %.10g to %.10g%s%s\n",
            opt->name, value, opt->whole ? " whole" : "", opt->min, opt->max,
            opt->word ? ", nor " : "", opt->word ? opt->word : "");
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

/* An option that would be passed over in this mode, and must not be. */
static bool check_fits(const mode *m)
{
    bool parallel = m->run == run_parallel || m->run == run_auto;
    bool planned = m->run == run_estimate || m->run == run_auto;
    const char *what = NULL;

    if (args.max_cost > 0 && !parallel && !planned && m->run != run_full) {
        what = "max-cost";
    } else if (args.resume > 0 && !parallel) {
        what = "resume";
    } else if ((args.sample > 0 || args.expect_tokens > 0) && !planned) {
        what = args.sample > 0 ? "sample" : "expect-tokens";
    }
    if (what) {
        fprintf(stderr, NAME ": --%s is not for --mode %s; see --help\n", what,
                m->name);
        return false;
    }
    if (args.resume > 0 && (!args.output || strcmp(args.output, "-") == 0)) {
        fprintf(stderr, NAME ": --resume needs --output FILE, for the journal "
                             "stands beside it\n");
        return false;
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
    return check_needs(m) && check_fits(m);
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
    } else if (args.max_workers < NOT_GIVEN) {
        config->max_workers = GPTNER_WORKERS_AUTO;
    }
    if (args.timeout > NOT_GIVEN) {
        config->timeout_ms = (int)(args.timeout * 1000);
    }
    config->tier = args.tier;
    config->limits.requests_per_minute = (int64_t)args.rpm;
    config->limits.tokens_per_minute = (int64_t)args.tpm;
    config->limits.requests_per_day = (int64_t)args.rpd;
    config->limits.tokens_per_day = (int64_t)args.tpd;
    config->limits_file = args.limits_file;
    config->pace_file = args.pace_file;
    config->prices_file = args.prices_file;
    config->cache_dir = args.cache_dir;
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

/* Dollars, to cents, or where that would say little to more digits. */
static const char *dollars(char out[32], double usd)
{
    if (usd < 0) {
        snprintf(out, 32, "unknown");
    } else {
        snprintf(out, 32, "$%.*f", usd < 1 ? 6 : usd < 100 ? 4 : 2, usd);
    }
    return out;
}

/* The end of a line of the summary. */
static void print_cost(double usd)
{
    char text[32];

    if (usd >= 0) {
        fprintf(stderr, "; cost %s", dollars(text, usd));
    } else {
        fprintf(stderr, "; cost unknown, see --prices-file");
    }
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
    if (sum->cached + sum->resumed > 0) {
        fprintf(stderr,
                NAME
                ": not sent again: %lld of the cache, %lld of the journal\n",
                (long long)sum->cached, (long long)sum->resumed);
    }
    fprintf(stderr, NAME ": %lld + %lld tokens in %.1f s",
            (long long)sum->prompt_tokens, (long long)sum->completion_tokens,
            (double)sum->elapsed_ms / 1000.0);
    print_cost(sum->cost_usd);
    if (sum->cost_unknown > 0 && sum->cost_usd >= 0) {
        fprintf(stderr, ", %lld lost replies at their most",
                (long long)sum->cost_unknown);
    }
    fprintf(stderr, "\n");
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
        return status == GPTNER_ERR_BUDGET ? EXIT_BUDGET : EXIT_RUN_FAILED;
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

/* The journal of a parallel run, beside its output. */
static const char *journal_path(void)
{
    static char path[4096];
    int len = snprintf(path, sizeof path, "%s.run", args.output);

    return len > 0 && (size_t)len < sizeof path ? path : args.output;
}

static void fill_run(gptner_run_config *run, gptner_bar *bar)
{
    memset(bar, 0, sizeof *bar);
    memset(run, 0, sizeof *run);
    run->input_path = args.input;
    run->output_path = args.output ? args.output : "-";
    run->result_fn = name_failure;
    run->dedupe = args.dedupe > 0;
    run->max_cost_usd = args.max_cost;
    if (args.resume > 0) {
        run->journal_path = journal_path();
    }
    if (args.quiet <= 0) {
        run->progress_fn = gptner_progress_bar;
        run->progress_user = bar;
    }
}

static int run_parallel(void)
{
    static gptner_bar bar;
    gptner_run_config run;
    gptner_run_summary summary;
    gptner_error err;
    gptner_status status;

    memset(&summary, 0, sizeof summary);
    fill_run(&run, &bar);
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
    fprintf(stderr, NAME ": %lld + %lld tokens", (long long)sum->prompt_tokens,
            (long long)sum->completion_tokens);
    print_cost(sum->cost_usd);
    fprintf(stderr, "\n");
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

static void fill_job(gptner_job_config *config, bool *told)
{
    memset(config, 0, sizeof *config);
    fill_source(&config->source);
    config->output_path = args.output;
    config->result_fn = name_failure;
    config->result_user = config; /* names also what was not sent */
    config->description = args.description;
    config->max_enqueued_tokens = (int64_t)args.max_enqueued_tokens;
    config->poll_ms = milliseconds(args.poll_interval);
    config->max_wait_ms = milliseconds(args.max_wait);
    config->delete_remote = args.delete_remote > 0;
    config->max_cost_usd = args.max_cost;
    if (args.retry_failed) {
        config->retry_failed = strcmp(args.retry_failed, "batch") == 0
                                   ? GPTNER_RETRY_BATCH
                                   : GPTNER_RETRY_PARALLEL;
    }
    *told = false;
    if (args.quiet <= 0) {
        config->progress_fn = show_job;
        config->progress_user = told;
    }
}

static void print_job_summary(const gptner_job_summary *sum)
{
    if (sum->was_done) {
        fprintf(stderr,
                NAME ": the job was done before; remove %s.job to begin it "
                     "anew\n",
                args.output);
    }
    print_batch_summary(&sum->results);
}

static int run_full(void)
{
    gptner_job_config config;
    gptner_job_summary summary;
    gptner_error err;
    gptner_status status;
    bool told;

    fill_job(&config, &told);
    status = gptner_job_run(client, &config, &summary, &err);
    if (status == GPTNER_OK && args.quiet <= 0) {
        print_job_summary(&summary);
    }
    return exit_status(status, &err, summary.results.failed > 0);
}

/* ---- choosing the way ---- */

static void put_way(gptner_json_writer *w, const char *name, double usd,
                    double most, int64_t ms, const char *why)
{
    gptner_json_put_object(w, name);
    gptner_json_put_bool(w, "possible", *why == '\0');
    if (*why != '\0') {
        gptner_json_put_string(w, "why_not", why);
    }
    gptner_json_write_key(w, "usd");
    if (usd >= 0) {
        gptner_json_write_double(w, usd);
    } else {
        gptner_json_write_null(w);
    }
    gptner_json_write_key(w, "usd_at_most");
    if (most >= 0) {
        gptner_json_write_double(w, most);
    } else {
        gptner_json_write_null(w);
    }
    gptner_json_put_double(w, "seconds", (double)ms / 1000.0);
}

static void put_limits(gptner_json_writer *w, const gptner_limits *l)
{
    gptner_json_put_object(w, "limits");
    gptner_json_put_int64(w, "requests_per_minute", l->requests_per_minute);
    gptner_json_put_int64(w, "tokens_per_minute", l->tokens_per_minute);
    gptner_json_put_int64(w, "requests_per_day", l->requests_per_day);
    gptner_json_put_int64(w, "tokens_per_day", l->tokens_per_day);
    gptner_json_put_int64(w, "batch_queue_tokens", l->batch_queue_tokens);
    gptner_json_write_end(w);
}

static gptner_status print_plan_json(const gptner_plan *p)
{
    gptner_json_writer *w;
    gptner_str text;
    gptner_status status = gptner_json_writer_new(NULL, &w);

    if (status != GPTNER_OK) {
        return status;
    }
    gptner_json_write_object(w);
    gptner_json_put_string(
        w, "advice", p->advice == GPTNER_WAY_BATCH ? "batch" : "parallel");
    gptner_json_put_string(w, "why", p->why);
    gptner_json_put_int64(w, "prompts", p->prompts);
    gptner_json_put_int64(w, "requests", p->requests);
    gptner_json_put_int64(w, "bad", p->bad);
    gptner_json_put_int64(w, "equal", p->equal);
    gptner_json_put_int64(w, "prompt_tokens", p->prompt_tokens);
    gptner_json_put_int64(w, "completion_tokens", p->completion_tokens);
    if (p->completion_tokens_max >= 0) {
        gptner_json_put_int64(w, "completion_tokens_at_most",
                              p->completion_tokens_max);
    }
    gptner_json_put_int64(w, "sampled", p->sampled);
    put_way(w, "parallel", p->parallel_usd, p->parallel_usd_max, p->parallel_ms,
            p->parallel_why);
    gptner_json_put_string(w, "bound", p->parallel_bound);
    gptner_json_write_end(w);
    put_way(w, "batch", p->batch_usd, p->batch_usd_max, p->batch_ms,
            p->batch_why);
    gptner_json_put_int64(w, "batches", p->batches);
    gptner_json_put_int64(w, "turns", p->waves);
    gptner_json_write_end(w);
    put_limits(w, &p->limits);
    gptner_json_write_end(w);
    status = gptner_json_writer_finish(w, &text);
    if (status == GPTNER_OK) {
        printf("%.*s\n", (int)text.len, text.ptr);
    }
    gptner_json_writer_free(w);
    return status;
}

static const char *duration(char out[32], int64_t ms)
{
    double s = (double)ms / 1000.0;

    if (s < 120) {
        snprintf(out, 32, "%.1f s", s);
    } else if (s < 7200) {
        snprintf(out, 32, "%.0f min", s / 60);
    } else if (s < 172800) {
        snprintf(out, 32, "%.1f hours", s / 3600);
    } else {
        snprintf(out, 32, "%.1f days", s / 86400);
    }
    return out;
}

static void print_limit(const char *name, int64_t limit)
{
    if (limit > 0) {
        printf(" %lld %s;", (long long)limit, name);
    }
}

static void print_limits(const gptner_limits *l)
{
    printf("limits         ");
    if (l->requests_per_minute + l->tokens_per_minute + l->requests_per_day +
            l->tokens_per_day + l->batch_queue_tokens ==
        0) {
        printf(" not told: see --tier, --rpm, --tpm\n");
        return;
    }
    print_limit("requests a minute", l->requests_per_minute);
    print_limit("tokens a minute", l->tokens_per_minute);
    print_limit("requests a day", l->requests_per_day);
    print_limit("tokens a day", l->tokens_per_day);
    print_limit("tokens in batches", l->batch_queue_tokens);
    printf("\n");
}

static void print_plan(const gptner_plan *p)
{
    char one[32];
    char two[32];
    char three[32];

    printf("requests        %lld", (long long)p->requests);
    if (p->bad > 0) {
        printf(", and %lld prompts that make none", (long long)p->bad);
    }
    if (p->equal > 0) {
        printf("; %lld equal another", (long long)p->equal);
    }
    printf("\nprompt tokens   about %lld\n", (long long)p->prompt_tokens);
    printf("answer tokens   about %lld", (long long)p->completion_tokens);
    if (p->completion_tokens_max >= 0) {
        printf(", at most %lld", (long long)p->completion_tokens_max);
    }
    if (p->sampled > 0) {
        printf(" (by a sample of %lld, %s)\n", (long long)p->sampled,
               dollars(one, p->sample_usd));
    } else if (args.expect_tokens > 0) {
        printf(" (%.0f each, as told)\n", args.expect_tokens);
    } else {
        printf(
            "\n                if answers are a third longer than texts; see "
            "--expect-tokens, --sample\n");
    }
    print_limits(&p->limits);
    printf("in parallel     about %s, at most %s; about %s (%s)\n",
           dollars(one, p->parallel_usd), dollars(two, p->parallel_usd_max),
           duration(three, p->parallel_ms), p->parallel_bound);
    if (p->parallel_why[0] != '\0') {
        printf("                not possible: %s\n", p->parallel_why);
    }
    if (p->batch_why[0] == '\0') {
        printf("by batch        about %s, at most %s; within %s (%lld batch%s",
               dollars(one, p->batch_usd), dollars(two, p->batch_usd_max),
               duration(three, p->batch_ms), (long long)p->batches,
               p->batches == 1 ? "" : "es");
        printf(p->waves > 1 ? ", in %lld turns)\n" : ")\n",
               (long long)p->waves);
    } else {
        printf("by batch        not possible: %s\n", p->batch_why);
    }
    if (args.max_cost > 0) {
        printf("budget          %s\n", dollars(one, args.max_cost));
    }
    printf("advice          %s: %s\n",
           p->advice == GPTNER_WAY_BATCH ? "by batch" : "in parallel", p->why);
}

static void fill_plan(gptner_plan_config *config, gptner_bar *bar, bool *told)
{
    memset(config, 0, sizeof *config);
    fill_run(&config->run, bar);
    fill_job(&config->job, told);
    config->expected_completion_tokens = (int64_t)args.expect_tokens;
    config->sample = (int64_t)args.sample;
}

static int run_estimate(void)
{
    static gptner_bar bar;
    gptner_plan_config config;
    gptner_plan plan;
    gptner_error err;
    gptner_status status;
    bool told;

    fill_plan(&config, &bar, &told);
    if (!args.output) {
        config.run.output_path = "answers.txt"; /* not written */
    }
    status = gptner_plan_run(client, &config, &plan, &err);
    if (status == GPTNER_OK && args.json > 0) {
        status = print_plan_json(&plan);
        snprintf(err.message, sizeof err.message, "the estimate, as JSON");
    } else if (status == GPTNER_OK) {
        print_plan(&plan);
    }
    return exit_status(status, &err, plan.bad > 0);
}

static bool show_plan(const gptner_plan *p, void *user)
{
    bool batch = p->advice == GPTNER_WAY_BATCH;
    char one[32];
    char two[32];

    (void)user;
    fprintf(stderr, NAME ": %s: %s\n", batch ? "by batch" : "in parallel",
            p->why);
    fprintf(stderr, NAME ": about %s, at most %s\n",
            dollars(one, batch ? p->batch_usd : p->parallel_usd),
            dollars(two, batch ? p->batch_usd_max : p->parallel_usd_max));
    return true;
}

static int run_auto(void)
{
    static gptner_bar bar;
    gptner_plan_config config;
    gptner_auto_summary summary;
    gptner_error err;
    gptner_status status;
    bool told;

    fill_plan(&config, &bar, &told);
    config.run.journal_path = journal_path();
    config.plan_fn = args.quiet > 0 ? NULL : show_plan;
    status = gptner_auto_run(client, &config, &summary, &err);
    if (args.quiet <= 0 && summary.way == GPTNER_WAY_PARALLEL) {
        print_summary(&summary.run);
    } else if (args.quiet <= 0 && status == GPTNER_OK) {
        print_job_summary(&summary.job);
    }
    return exit_status(status, &err,
                       summary.run.failed + summary.job.results.failed > 0);
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
    if (mode_of(args.mode)->no_key && args.sample <= 0) {
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
