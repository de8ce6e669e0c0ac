/* How fast the library's parsers and writers are, beside cJSON, http_parser,
 * strtod, printf and memcpy over the same bytes. An argument other than 0:
 * quicker and rougher. CPU time of this process; of each pair the medians of
 * runs taken in turn. */
#define _GNU_SOURCE
#include <cjson/cJSON.h>
#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

enum { RUNS_MAX = 9, NUMBERS = 1000 };

static int runs = 7;
static double run_seconds = 0.04;
static volatile double keep; /* results go here, so that none is left out */

/* What a function works on. */
typedef struct text {
    const char *data;
    size_t len;
    char *copy; /* as long, with room for a NUL */
} text;

typedef void (*work_fn)(const text *t);

static gpn_env env;

/* ---- memcpy ---- */

static void copy_work(const text *t)
{
    memcpy(t->copy, t->data, t->len);
    keep = t->copy[t->len / 2];
}

/* ---- JSON: a chat reply, its text and its token count ---- */

static void read_choice(gptner_json_reader *r, gptner_str *content)
{
    gptner_str key;
    while (gptner_json_next_key(r, &key)) {
        if (gpn_str_eq_c(key, "message") && gptner_json_enter_object(r)) {
            while (gptner_json_next_key(r, &key)) {
                if (gpn_str_eq_c(key, "content")) {
                    gptner_json_read_str(r, content);
                }
            }
        }
    }
}

static void read_usage(gptner_json_reader *r, int64_t *tokens)
{
    gptner_str key;
    while (gptner_json_next_key(r, &key)) {
        if (gpn_str_eq_c(key, "total_tokens")) {
            gptner_json_read_int64(r, tokens);
        }
    }
}

static void reply_pull(const text *t)
{
    gptner_json_reader r;
    gptner_str key, content = {NULL, 0};
    int64_t tokens = 0;
    memcpy(t->copy, t->data, t->len); /* it decodes in place */
    gptner_json_reader_init_in_place(&r, t->copy, t->len, NULL);
    gptner_json_enter_object(&r);
    while (gptner_json_next_key(&r, &key)) {
        if (gpn_str_eq_c(key, "choices") && gptner_json_enter_array(&r)) {
            while (gptner_json_next_item(&r)) {
                if (gptner_json_enter_object(&r)) {
                    read_choice(&r, &content);
                }
            }
        } else if (gpn_str_eq_c(key, "usage") && gptner_json_enter_object(&r)) {
            read_usage(&r, &tokens);
        }
    }
    if (gptner_json_reader_finish(&r, NULL) != GPTNER_OK || tokens == 0) {
        abort();
    }
    keep = (double)content.len;
}

static void reply_document(const text *t)
{
    gptner_json_doc *doc;
    const gptner_json_value *root;
    gptner_str content;
    int64_t tokens;
    if (gptner_json_parse(t->data, t->len, NULL, &doc, NULL) != GPTNER_OK) {
        abort();
    }
    root = gptner_json_root(doc);
    gptner_json_get_str(gptner_json_path(root, "choices[0].message.content"),
                        &content);
    gptner_json_get_int64(gptner_json_path(root, "usage.total_tokens"),
                          &tokens);
    keep = (double)content.len + (double)tokens;
    gptner_json_doc_free(doc);
}

static void reply_cjson(const text *t)
{
    cJSON *root = cJSON_ParseWithLength(t->data, t->len);
    const cJSON *choice =
        cJSON_GetArrayItem(cJSON_GetObjectItem(root, "choices"), 0);
    const cJSON *content =
        cJSON_GetObjectItem(cJSON_GetObjectItem(choice, "message"), "content");
    const cJSON *tokens =
        cJSON_GetObjectItem(cJSON_GetObjectItem(root, "usage"), "total_tokens");
    keep = (double)strlen(cJSON_GetStringValue(content)) +
           cJSON_GetNumberValue(tokens);
    cJSON_Delete(root);
}

/* ---- JSON: anything, read as a document ---- */

static void any_document(const text *t)
{
    gptner_json_doc *doc;
    if (gptner_json_parse(t->data, t->len, NULL, &doc, NULL) != GPTNER_OK) {
        abort();
    }
    keep = (double)gptner_json_size(gptner_json_root(doc));
    gptner_json_doc_free(doc);
}

static void any_skip(const text *t)
{
    gptner_json_reader r;
    gptner_json_reader_init(&r, t->data, t->len, NULL);
    if (gptner_json_reader_finish(&r, NULL) != GPTNER_OK) {
        abort();
    }
}

static void any_cjson(const text *t)
{
    cJSON *root = cJSON_ParseWithLength(t->data, t->len);
    keep = cJSON_GetArraySize(root);
    cJSON_Delete(root);
}

/* ---- JSON: a request's body. t is the prompt ---- */

static gptner_json_writer *writer;

static void body_ours(const text *t)
{
    gptner_json_writer *w = writer;
    gptner_str prompt, out;
    prompt.ptr = t->data;
    prompt.len = t->len;
    gptner_json_writer_reset(w);
    gptner_json_write_object(w);
    gptner_json_put_string(w, "model", "gpt-4o-mini");
    gptner_json_put_array(w, "messages");
    gptner_json_write_object(w);
    gptner_json_put_string(w, "role", "user");
    gptner_json_put_str(w, "content", prompt);
    gptner_json_write_end(w);
    gptner_json_write_end(w);
    gptner_json_put_int64(w, "max_tokens", 512);
    gptner_json_put_double(w, "temperature", 0);
    gptner_json_write_end(w);
    if (gptner_json_writer_finish(w, &out) != GPTNER_OK) {
        abort();
    }
    keep = (double)out.len;
}

static void body_cjson(const text *t)
{
    cJSON *root = cJSON_CreateObject();
    cJSON *message = cJSON_CreateObject();
    cJSON *messages;
    cJSON_AddStringToObject(root, "model", "gpt-4o-mini");
    messages = cJSON_AddArrayToObject(root, "messages");
    cJSON_AddStringToObject(message, "role", "user");
    cJSON_AddStringToObject(message, "content", t->data);
    cJSON_AddItemToArray(messages, message);
    cJSON_AddNumberToObject(root, "max_tokens", 512);
    cJSON_AddNumberToObject(root, "temperature", 0);
    if (!cJSON_PrintPreallocated(root, t->copy, (int)t->len * 2 + 256, 0)) {
        abort();
    }
    cJSON_Delete(root);
}

/* ---- tokens of a prompt, beside writing its request ---- */

static void tokens_ours(const text *t)
{
    gptner_str prompt;
    prompt.ptr = t->data;
    prompt.len = t->len;
    keep = (double)gptner_tokens_estimate(prompt);
}

/* ---- HTTP: a response with Content-Length ---- */

static gpn_http http;

static void http_ours(const text *t)
{
    static const gpn_http_limits limits = {0, 0, 0, 0, 0, 0};
    gpn_http_event event;
    size_t at = 0, body_len = 0;
    gpn_http_reset(&http, false, false, &limits);
    do {
        size_t used = 0;
        gptner_str piece = {NULL, 0};
        event = gpn_http_next(&http, t->data + at, t->len - at, &used, &piece,
                              NULL);
        at += used;
        if (event == GPN_HTTP_BODY) {
            body_len += piece.len;
        } else if (event == GPN_HTTP_FAILED || event == GPN_HTTP_MORE) {
            abort();
        }
    } while (event != GPN_HTTP_DONE);
    keep = (double)body_len;
}

static int on_piece(http_parser *p, const char *at, size_t len)
{
    (void)at;
    *(size_t *)p->data += len;
    return 0;
}

static void http_peer(const text *t)
{
    static http_parser_settings settings;
    http_parser p;
    size_t sum = 0;
    settings.on_header_field = on_piece;
    settings.on_header_value = on_piece;
    settings.on_body = on_piece;
    http_parser_init(&p, HTTP_RESPONSE);
    p.data = &sum;
    if (http_parser_execute(&p, &settings, t->data, t->len) != t->len) {
        abort();
    }
    keep = (double)sum;
}

/* ---- numbers: lines of text, each a number ---- */

static double numbers[NUMBERS];

static void double_ours(const text *t)
{
    const char *p = t->data;
    double value = 0, sum = 0;
    while (p < t->data + t->len) {
        const char *end = (const char *)memchr(p, '\n', 32);
        gptner_str one;
        one.ptr = p;
        one.len = (size_t)(end - p);
        if (!gpn_parse_double(one, &value)) {
            abort();
        }
        sum += value;
        p = end + 1;
    }
    keep = sum;
}

static void double_strtod(const text *t)
{
    const char *p = t->data;
    double sum = 0;
    while (p < t->data + t->len) {
        char *end;
        sum += strtod(p, &end);
        p = end + 1;
    }
    keep = sum;
}

static void print_ours(const text *t)
{
    char out[40];
    size_t sum = 0;
    (void)t;
    for (int i = 0; i < NUMBERS; i++) {
        sum += gpn_fmt_double(numbers[i], out);
    }
    keep = (double)sum;
}

/* The C library's way to the same digits. */
static void print_tries(const text *t)
{
    char out[40];
    int sum = 0;
    (void)t;
    for (int i = 0; i < NUMBERS; i++) {
        int digits = 15, n;
        do {
            n = snprintf(out, sizeof out, "%.*g", digits, numbers[i]);
        } while (digits++ < 17 && strtod(out, NULL) != numbers[i]);
        sum += n;
    }
    keep = sum;
}

/* ---- measuring ---- */

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* MB a second of one run, which lasts as long as run_seconds. */
static double speed(work_fn fn, const text *t)
{
    double start = cpu_seconds(), end;
    size_t rounds = 0, batch = 1 + 20000 / t->len;
    do {
        for (size_t i = 0; i < batch; i++) {
            fn(t);
        }
        rounds += batch;
        end = cpu_seconds();
    } while (end - start < run_seconds);
    return (double)rounds * (double)t->len / (end - start) / 1e6;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void row(const char *title, const text *t, work_fn ours, work_fn peer)
{
    double own[RUNS_MAX], other[RUNS_MAX], copied[RUNS_MAX];
    for (int i = 0; i < runs; i++) {
        own[i] = speed(ours, t);
        other[i] = speed(peer, t);
        copied[i] = speed(copy_work, t);
    }
    qsort(own, (size_t)runs, sizeof own[0], by_size);
    qsort(other, (size_t)runs, sizeof own[0], by_size);
    qsort(copied, (size_t)runs, sizeof own[0], by_size);
    printf("%-44s %9.0f %9.0f %8.2f %9.0f %8.4f\n", title, own[runs / 2],
           other[runs / 2], own[runs / 2] / other[runs / 2], copied[runs / 2],
           own[runs / 2] / copied[runs / 2]);
    fflush(stdout);
}

/* ---- the texts ---- */

static const char reply_json[] =
    "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":"
    "\"chat.completion\",\"created\":1741569952,\"model\":"
    "\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":{"
    "\"role\":\"assistant\",\"content\":\"Foreign Ministry spokesman @@Shen "
    "Guofang## told Reuters: \\\"The necessary atmosphere has been disrupted "
    "by the authorities.\\\"\",\"refusal\":null,\"annotations\":[]},"
    "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
    "\"prompt_tokens\":98,\"completion_tokens\":25,\"total_tokens\":123,"
    "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
    "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,"
    "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},"
    "\"system_fingerprint\":\"fp_06737a9306\"}";

static const char reply_head[] =
    "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n"
    "Date: Tue, 24 Nov 2026 05:43:41 GMT\r\nContent-Type: application/json\r\n"
    "Content-Length: %zu\r\nConnection: keep-alive\r\n"
    "x-request-id: req_8f2d1c0b9a7e4d5f6a3b2c1d0e9f8a7b\r\n"
    "openai-organization: bench\r\nopenai-processing-ms: 312\r\n"
    "openai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 10000\r\n"
    "x-ratelimit-limit-tokens: 2000000\r\n"
    "x-ratelimit-remaining-requests: 9999\r\n"
    "x-ratelimit-remaining-tokens: 1999864\r\n"
    "x-ratelimit-reset-requests: 6ms\r\nx-ratelimit-reset-tokens: 4ms\r\n\r\n";

static const char prompt[] =
    "I am an excellent linguist. The task is to label person entities in the "
    "given sentence.\nInput: China says \"Taiwan spoils\" atmosphere for talks."
    "\nOutput: China says \"Taiwan spoils\" atmosphere for talks.\nInput: "
    "Foreign Ministry spokesman Shen Guofang told Reuters: \"The necessary "
    "atmosphere has been disrupted by the authorities.\"\nOutput:";

static text text_of(char *data, size_t len)
{
    text t;
    t.data = data;
    t.len = len;
    t.copy = (char *)malloc(2 * len + 512);
    if (data == NULL || t.copy == NULL) {
        abort();
    }
    return t;
}

static text text_copied(const char *data)
{
    return text_of(strdup(data), strlen(data));
}

static text response_text(void)
{
    char *all = (char *)malloc(sizeof reply_head + sizeof reply_json + 32);
    int head =
        all == NULL ? 0 : sprintf(all, reply_head, sizeof reply_json - 1);
    if (head > 0) {
        memcpy(all + head, reply_json, sizeof reply_json);
    }
    return text_of(all, (size_t)head + sizeof reply_json - 1);
}

/* [ value, value, ... ] of about a megabyte */
static text array_of(const char *(*next_fn)(void))
{
    size_t len = 0, cap = 1 << 20;
    char *all = (char *)malloc(cap + 4096);
    if (all == NULL) {
        abort();
    }
    all[len++] = '[';
    do {
        const char *one = next_fn();
        size_t n = strlen(one);
        memcpy(all + len, one, n);
        len += n;
        all[len++] = ',';
    } while (len < cap);
    all[len - 1] = ']';
    all[len] = '\0';
    return text_of(all, len);
}

static const char *next_reply(void)
{
    return reply_json;
}

/* xorshift64: the same numbers in every run */
static double next_fraction(void)
{
    static uint64_t x = 88172645463325252u;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (double)(x >> 11) / 9007199254740992.0 - 0.5;
}

/* as the API writes the numbers of an embedding */
static const char *next_number(void)
{
    static char one[32];
    snprintf(one, sizeof one, "%.8f", next_fraction() / 10);
    return one;
}

static text number_lines(bool whole)
{
    char *all = (char *)malloc(NUMBERS * 32);
    size_t len = 0;
    if (all == NULL) {
        abort();
    }
    for (int i = 0; i < NUMBERS; i++) {
        numbers[i] = next_fraction();
        len += (size_t)snprintf(all + len, 32, whole ? "%.17g\n" : "%.8f\n",
                                numbers[i]);
    }
    return text_of(all, len);
}

int main(int argc, char **argv)
{
    text reply = text_copied(reply_json), body = text_copied(prompt);
    text replies = array_of(next_reply), vector = array_of(next_number);
    text response = response_text();
    text short_numbers = number_lines(false), long_numbers;
    long_numbers = number_lines(true);
    if (argc > 1 && strcmp(argv[1], "0") != 0) {
        runs = 3;
        run_seconds = 0.02;
    }
    if (!gpn_env_init(&env, NULL, NULL) ||
        gptner_json_writer_new(NULL, &writer) != GPTNER_OK) {
        return 1;
    }
    gpn_http_init(&http, &env);
    printf("%-44s %9s %9s %8s %9s %8s\n", "one thread, MB/s", "gptner", "peer",
           "ratio", "memcpy", "ratio");
    row("read a chat reply, pull / cJSON", &reply, reply_pull, reply_cjson);
    row("read a chat reply, document / cJSON", &reply, reply_document,
        reply_cjson);
    row("1 MB of chat replies, skip / cJSON", &replies, any_skip, any_cjson);
    row("1 MB of chat replies, document / cJSON", &replies, any_document,
        any_cjson);
    row("1 MB of embeddings, document / cJSON", &vector, any_document,
        any_cjson);
    row("write a chat request, prompt's MB / cJSON", &body, body_ours,
        body_cjson);
    row("tokens of a prompt / writing its request", &body, tokens_ours,
        body_ours);
    row("HTTP response, 16 fields / http_parser", &response, http_ours,
        http_peer);
    row("numbers of 8 decimals / strtod", &short_numbers, double_ours,
        double_strtod);
    row("numbers of 17 digits / strtod", &long_numbers, double_ours,
        double_strtod);
    row("print a double, shortest / printf, strtod", &long_numbers, print_ours,
        print_tries);
    gptner_json_writer_free(writer);
    gpn_http_deinit(&http);
    return 0;
}
