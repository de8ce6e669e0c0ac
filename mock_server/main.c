/* mock_server: the mock of mock_openai.h as a command.
 *
 *     cc -o mock_server main.c -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
 *
 * Prints one line when it is ready and runs until SIGTERM or SIGINT. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#define MOCK_OPENAI_STATIC
#define MOCK_OPENAI_IMPLEMENTATION
#include "mock_openai.h"

#include <sys/resource.h>

static const char usage[] =
    "usage: mock_server [options]\n"
    "An OpenAI-compatible server that answers without a model, for tests.\n"
    "\n"
    "  --port N               listen on port N; 0 (default): any free one\n"
    "  --host ADDRESS         listen on ADDRESS (default 127.0.0.1)\n"
    "  --tls                  HTTPS with a certificate made at the start\n"
    "  --ca-out FILE          write the CA that signed it, as PEM\n"
    "  --cert FILE --key FILE HTTPS with this certificate chain and key\n"
    "  --names A,B            more host names, also for the certificate\n"
    "  --api-key K            answer 401 to any other key\n"
    "  --latency MS[:JITTER]  wait before each answer\n"
    "  --reply echo|hash|ner|FILE.jsonl   what to answer (default echo)\n"
    "  --fault SPEC           what goes wrong; may be repeated:\n"
    "                         429:0.05  500@3  reset@every=10  slow:0.1,ms=5\n"
    "                         (all kinds: see the top of mock_openai.h)\n"
    "  --seed N               other faults, the same each time\n"
    "  --rpm N  --tpm N       requests and tokens a minute\n"
    "  --rpd N  --tpd N       requests and tokens a day\n"
    "  --slice MS             rpm and tpm also hold within such slices\n"
    "  --charge admission|usage   what tokens count against the limits: what\n"
    "                         was asked for, or corrected to the usage\n"
    "  --count-failed         failed and refused requests count, too\n"
    "  --no-rate-headers      no x-ratelimit-* in the answers\n"
    "  --reset-form go|seconds|unix|rfc3339|none|minus1|azure\n"
    "                         of x-ratelimit-reset-* (default go: 8.64s)\n"
    "  --price IN[:CACHED]:OUT    USD per million tokens; see cost in the\n"
    "                         counters\n"
    "  --cached SHARE         of long prompts, told as cached (0 to 1)\n"
    "  --model-profiles       refuse what the real models refuse\n"
    "  --expect-connections N report more open connections than N\n"
    "  --expect-repeats N     one prompt may occur N times (-1: any)\n"
    "  --idle MS              close connections idle for so long\n"
    "  --batch-seconds S      how long a batch takes (default 1; 0: it is "
    "over\n"
    "                         when it is looked at again)\n"
    "  --enqueued-tokens N    prompt tokens of unfinished batches, at most\n"
    "  --expect-clean-files   report files that have not been deleted\n"
    "  --data-dir DIR         keep files and batches here, over restarts\n"
    "  --log FILE             append one JSON line a request\n"
    "  --help  --version\n"
    "\n"
    "Prints \"listening on URL\" when ready. Counters: GET /mock/stats;\n"
    "report card on the client: GET /mock/report. POST /mock/clock with\n"
    "{\"advance_seconds\":N} moves the date on; /mock/limits with\n"
    "{\"rpm\":N,...} changes the limits. SIGTERM ends it.\n";

typedef struct main_options {
    mock_options mock;
    const char *ca_out;
    const char **faults;
    bool leave; /* --help or --version: done */
} main_options;

static bool usage_error(const char *what, const char *arg)
{
    fprintf(stderr, "mock_server: %s: %s (--help shows the options)\n", what,
            arg);
    return false;
}

static bool read_number(const char *text, int64_t lo, int64_t hi, int64_t *out)
{
    bool minus = text[0] == '-';
    uint64_t v = 0;

    if (!mki_u64(mki_sc(text + (minus ? 1 : 0)), &v) || v > (uint64_t)hi) {
        return false;
    }
    *out = minus ? -(int64_t)v : (int64_t)v;
    return *out >= lo;
}

/* 0 becomes less than 0, as mock_options has it. */
static bool read_batch_seconds(const char *text, mock_options *o)
{
    double seconds = 0;

    if (!mki_decimal(mki_sc(text), &seconds) || seconds > 1e9) {
        return false;
    }
    o->batch_seconds = seconds > 0 ? seconds : -1;
    return true;
}

static bool read_latency(const char *text, mock_options *o)
{
    char first[24];
    size_t n = strcspn(text, ":");
    int64_t ms = 0;
    int64_t jitter = 0;

    mki_copy(first, sizeof first, mki_s(text, n));
    if (!read_number(first, 0, 86400000, &ms) ||
        (text[n] == ':' && !read_number(text + n + 1, 0, 86400000, &jitter))) {
        return false;
    }
    o->latency_ms = (int)ms;
    o->latency_jitter_ms = (int)jitter;
    return true;
}

/* An option whose value is a text: where it goes; NULL: not one. */
static const char **text_option(main_options *m, const char *name)
{
    mock_options *o = &m->mock;

    return strcmp(name, "--host") == 0         ? &o->host
           : strcmp(name, "--cert") == 0       ? &o->cert_file
           : strcmp(name, "--key") == 0        ? &o->key_file
           : strcmp(name, "--names") == 0      ? &o->names
           : strcmp(name, "--api-key") == 0    ? &o->api_key
           : strcmp(name, "--reply") == 0      ? &o->reply
           : strcmp(name, "--data-dir") == 0   ? &o->data_dir
           : strcmp(name, "--log") == 0        ? &o->log_file
           : strcmp(name, "--reset-form") == 0 ? &o->reset_form
           : strcmp(name, "--ca-out") == 0     ? &m->ca_out
                                               : NULL;
}

/* IN:OUT or IN:CACHED:OUT. */
static bool read_price(const char *text, mock_options *o)
{
    double prices[3] = {0, 0, 0};
    size_t n = 0;

    while (n < 3) {
        size_t len = strcspn(text, ":");

        if (!mki_decimal(mki_s(text, len), &prices[n]) || prices[n] > 100000) {
            return false;
        }
        n++;
        if (text[len] == '\0') {
            o->price_in = prices[0];
            o->price_out = prices[n - 1];
            /* less than 0: nothing, where 0 is as without */
            o->price_cached = n < 3 ? 0 : prices[1] > 0 ? prices[1] : -1;
            return n > 1;
        }
        text += len + 1;
    }
    return false;
}

static bool read_charge(const char *text, mock_options *o)
{
    o->charge_usage = strcmp(text, "usage") == 0;
    return o->charge_usage || strcmp(text, "admission") == 0;
}

/* As number_option(), for what an account may use and pays. */
static bool account_option(mock_options *o, const char *name, const char *value,
                           bool *known)
{
    int64_t v = 0;
    bool ok = true;

    *known = true;
    if (strcmp(name, "--rpm") == 0) {
        ok = read_number(value, 0, INT_MAX, &v);
        o->rpm = (int)v;
    } else if (strcmp(name, "--tpm") == 0) {
        ok = read_number(value, 0, INT64_MAX / 1000, &v);
        o->tpm = v;
    } else if (strcmp(name, "--rpd") == 0) {
        ok = read_number(value, 0, INT_MAX, &v);
        o->rpd = (int)v;
    } else if (strcmp(name, "--tpd") == 0) {
        ok = read_number(value, 0, INT64_MAX / 1000, &v);
        o->tpd = v;
    } else if (strcmp(name, "--slice") == 0) {
        ok = read_number(value, 0, 60000, &v);
        o->slice_ms = (int)v;
    } else if (strcmp(name, "--charge") == 0) {
        ok = read_charge(value, o);
    } else if (strcmp(name, "--price") == 0) {
        ok = read_price(value, o);
    } else if (strcmp(name, "--cached") == 0) {
        ok = mki_decimal(mki_sc(value), &o->cached_share) &&
             o->cached_share <= 1;
    } else {
        *known = false;
    }
    return ok;
}

/* true: a number, and stored. *known: it is such an option. */
static bool number_option(main_options *m, const char *name, const char *value,
                          bool *known)
{
    mock_options *o = &m->mock;
    int64_t v = 0;
    bool ok = true;

    *known = true;
    if (strcmp(name, "--port") == 0) {
        ok = read_number(value, 0, 65535, &v);
        o->port = (int)v;
    } else if (strcmp(name, "--seed") == 0) {
        ok = read_number(value, 0, INT64_MAX, &v);
        o->seed = (uint64_t)v;
    } else if (strcmp(name, "--idle") == 0) {
        ok = read_number(value, 0, INT_MAX, &v);
        o->idle_ms = (int)v;
    } else if (strcmp(name, "--expect-connections") == 0) {
        ok = read_number(value, 0, 1000000, &v);
        o->expect_connections = (int)v;
    } else if (strcmp(name, "--expect-repeats") == 0) {
        ok = read_number(value, -1, INT_MAX, &v);
        o->expect_repeats = (int)v;
    } else if (strcmp(name, "--enqueued-tokens") == 0) {
        ok = read_number(value, 0, INT64_MAX / 2, &v);
        o->enqueued_tokens = v;
    } else if (strcmp(name, "--batch-seconds") == 0) {
        ok = read_batch_seconds(value, o);
    } else if (strcmp(name, "--latency") == 0) {
        ok = read_latency(value, o);
    } else {
        ok = account_option(o, name, value, known);
    }
    return ok;
}

/* An option without a value; NULL: not one. */
static bool *flag_option(mock_options *o, const char *name)
{
    return strcmp(name, "--tls") == 0                  ? &o->tls
           : strcmp(name, "--expect-clean-files") == 0 ? &o->expect_clean_files
           : strcmp(name, "--model-profiles") == 0     ? &o->model_profiles
           : strcmp(name, "--count-failed") == 0       ? &o->count_failed
           : strcmp(name, "--no-rate-headers") == 0    ? &o->no_rate_headers
                                                       : NULL;
}

/* One option at argv[*i]; moves *i over its value. */
static bool read_option(main_options *m, int argc, char **argv, int *i)
{
    const char *name = argv[*i];
    const char *value = *i + 1 < argc ? argv[*i + 1] : NULL;
    const char **text = text_option(m, name);
    bool known = false;

    if (strcmp(name, "--help") == 0) {
        fputs(usage, stdout);
        m->leave = true;
        return true;
    }
    if (strcmp(name, "--version") == 0) {
        puts("mock_server " MOCK_OPENAI_VERSION);
        m->leave = true;
        return true;
    }
    if (flag_option(&m->mock, name) != NULL) {
        *flag_option(&m->mock, name) = true;
        return true;
    }
    if (text == NULL && strcmp(name, "--fault") != 0 &&
        (number_option(m, name, "0", &known), !known)) {
        return usage_error("unknown option", name);
    }
    if (value == NULL) {
        return usage_error("value missing for", name);
    }
    ++*i;
    if (text != NULL) {
        *text = value;
        return true;
    }
    if (strcmp(name, "--fault") == 0) {
        m->faults[m->mock.n_faults++] = value;
        return true;
    }
    return number_option(m, name, value, &known) ||
           usage_error("not a valid value", value);
}

static bool read_options(main_options *m, int argc, char **argv)
{
    int i;

    for (i = 1; i < argc && !m->leave; i++) {
        if (!read_option(m, argc, argv, &i)) {
            return false;
        }
    }
    m->mock.faults = m->faults;
    if ((m->mock.cert_file == NULL) != (m->mock.key_file == NULL)) {
        return usage_error("--cert and --key", "one without the other");
    }
    if (m->ca_out != NULL && (!m->mock.tls || m->mock.cert_file != NULL)) {
        return usage_error("--ca-out", "needs --tls without --cert");
    }
    return true;
}

static bool write_ca(const char *path, const char *pem)
{
    FILE *f = fopen(path, "wb");
    bool ok = f != NULL && fputs(pem, f) >= 0;

    ok = f != NULL && fclose(f) == 0 && ok;
    if (!ok) {
        fprintf(stderr, "mock_server: cannot write %s\n", path);
    }
    return ok;
}

/* As many connections as the system lets us have. */
static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int run(const main_options *m)
{
    mock_server *server = NULL;
    char why[256];
    sigset_t ends;
    int signal_number = 0;

    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    raise_limit();
    if (!mock_server_start(&m->mock, &server, why, sizeof why)) {
        fprintf(stderr, "mock_server: %s\n", why);
        return 2;
    }
    if (m->ca_out != NULL && !write_ca(m->ca_out, mock_server_ca_pem(server))) {
        mock_server_stop(server);
        return 2;
    }
    printf("listening on %s\n", mock_server_base_url(server));
    fflush(stdout);
    sigwait(&ends, &signal_number);
    mock_server_stop(server);
    return 0;
}

int main(int argc, char **argv)
{
    main_options m;
    int status = 2;

    memset(&m, 0, sizeof m);
    m.faults = (const char **)calloc((size_t)argc + 1, sizeof *m.faults);
    if (m.faults != NULL && read_options(&m, argc, argv)) {
        status = m.leave ? 0 : run(&m);
    }
    free((void *)m.faults);
    return status;
}
