/* The command line of gptner.h: prompts from a file, answers into a file.
 * cc -I. -o batch_processing_example examples/batch_processing_example.c \
 *    -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
 */
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    {"mode", "MODE", "parallel: all prompts now (the default)",
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
    {"quiet", NULL, "no progress bar and no summary",
     NULL, &args.quiet, 0, 0, false, false},
    {"verbose", NULL, "say what happens; twice: with prompts and answers",
     NULL, &args.verbose, 0, 0, false, false},
    {"help", NULL, "this text", NULL, &args.help, 0, 0, false, false},
    {"version", NULL, "the version", NULL, &args.version, 0, 0, false, false}
};
/* clang-format on */

#define N_OPTIONS (sizeof options / sizeof options[0])

static void print_help(void)
{
    printf("usage: " NAME " --input FILE [option...]\n\n"
           "Sends every prompt of a file to an OpenAI-compatible API, many at "
           "a time, and\nwrites the answers in the same order. The key is "
           "taken from OPENAI_API_KEY.\n\n");
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const char *value = options[i].value ? options[i].value : "";
        printf("  --%-11s %-8s %s\n", options[i].name, value, options[i].help);
    }
    printf(
        "\nInput lines of a .jsonl are objects with prompt, messages or body, "
        "and if wanted\nsystem and custom_id. Line n of a .txt output answers "
        "prompt n; line breaks are\nwritten as \\n and backslashes as \\\\. A "
        ".jsonl output has all that is known.\nOutput files appear whole or "
        "not at all.\n\n"
        "Exit status: 0 every prompt was answered, 1 some were not (they are "
        "named on\nstderr), 2 wrong usage, 3 the run failed, 130 interrupted "
        "(what was done by then\nis written; a second signal ends at once).\n");
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

static bool parse_arguments(int argc, char **argv)
{
    memset(&args, 0, sizeof args);
    args.temperature = args.max_tokens = args.max_workers = args.max_retries =
        args.timeout = NOT_GIVEN;
    args.mode = "parallel";
    args.output = "-";

    for (int i = 1; i < argc; i++) {
        if (!parse_option(argc, argv, &i)) {
            return false;
        }
    }
    if (args.help > 0 || args.version > 0) {
        return true;
    }
    if (strcmp(args.mode, "parallel") != 0) {
        fprintf(stderr, NAME ": --mode %s: only parallel is there yet\n",
                args.mode);
        return false;
    }
    if (!args.input) {
        fprintf(stderr, NAME ": --input is needed; see --help\n");
        return false;
    }
    return true;
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

/* Names a prompt that got no answer. Those that were never sent because the
 * run ended are counted in the summary instead. */
static bool name_failure(const gptner_result *result, void *user)
{
    (void)user;
    if (result->status == GPTNER_OK || result->status == GPTNER_ERR_NOT_SENT ||
        result->status == GPTNER_ERR_CANCELLED) {
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
    run.output_path = args.output;
    run.result_fn = name_failure;
    if (args.quiet <= 0) {
        run.progress_fn = gptner_progress_bar;
        run.progress_user = &bar;
    }
    status = gptner_run(client, &run, &summary, &err);
    if (args.quiet <= 0) {
        print_summary(&summary);
    }
    if (status == GPTNER_ERR_CANCELLED && interrupted) {
        fprintf(stderr, NAME ": interrupted\n");
        return EXIT_INTERRUPTED;
    }
    if (status != GPTNER_OK) {
        fprintf(stderr, NAME ": %s: %s\n", gptner_status_name(status),
                err.message);
        return EXIT_RUN_FAILED;
    }
    return summary.failed > 0 ? EXIT_SOME_FAILED : EXIT_ANSWERED;
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
    if (gptner_client_new(&config, &client, &err) != GPTNER_OK) {
        fprintf(stderr, NAME ": %s\n", err.message);
        return EXIT_RUN_FAILED;
    }
    interrupted = 0;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    result = run_parallel();
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    gptner_client_free(client);
    client = NULL;
    return result;
}
