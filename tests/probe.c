/* build/probe: the parsers of gptner.h from the outside, so that anyone can
 * hold them against vectors of their own. Each command prints what the
 * library's own code makes of its input; nothing is written for the occasion
 * but the printing. Exit status 0: a result was printed (a rejection is one);
 * 2: wrong usage. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: probe fetch [--times N] [--ca FILE] [--timeout SECONDS]\n"
    "                   [--max-body BYTES] URL\n"
    "       probe json FILE...\n"
    "       probe json-rewrite FILE\n"
    "       probe number | string | shortest | url | reset   (lines of hex on "
    "stdin)\n"
    "       probe wait --now UNIX_SECONDS                    (lines of hex on "
    "stdin)\n"
    "       probe sse [--piece N] FILE\n"
    "       probe http [--piece N] FILE\n";

static int wrong_usage(void)
{
    fputs(usage, stderr);
    return 2;
}

/* --- JSON: json, json-rewrite, number, string, shortest -------------------
 * argv[0] is the command's name. Needs stdio, stdlib, string, inttypes and
 * the implementation of gptner.h above. */

/* The bytes of a stream, NUL-terminated; NULL if it cannot be read. */
static char *json_slurp(FILE *file, size_t *len)
{
    size_t cap = 65536;
    char *data = (char *)malloc(cap);
    *len = 0;
    while (data != NULL) {
        char *bigger;
        *len += fread(data + *len, 1, cap - 1 - *len, file);
        if (*len < cap - 1)
            break;
        cap *= 2;
        bigger = (char *)realloc(data, cap);
        if (bigger == NULL)
            free(data);
        data = bigger;
    }
    if (data != NULL)
        data[*len] = '\0';
    return data;
}

static char *json_slurp_path(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    char *data = file != NULL ? json_slurp(file, len) : NULL;
    if (file != NULL)
        fclose(file);
    if (data == NULL)
        fprintf(stderr, "probe: cannot read %s\n", path);
    return data;
}

static void json_put_hex(gptner_str text)
{
    if (text.len == 0)
        putchar('-');
    for (size_t i = 0; i < text.len; i++)
        printf("%02x", (unsigned)(unsigned char)text.ptr[i]);
}

static uint64_t json_bits(double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof(bits));
    return bits;
}

/* Longer numbers show no text in the .tree files. */
#define JSON_TREE_TEXT 400

/* One value as the .tree files show it. Recursion is bounded by the depth that
 * the reader allows. */
static void json_put_tree(const gptner_json_value *value)
{
    gptner_json_iter it = gptner_json_iterate(value);
    gptner_str text = {NULL, 0};
    double number = 0;
    bool truth = false;
    switch (gptner_json_type_of(value)) {
    case GPTNER_JSON_OBJECT:
        printf("obj %zu\n", gptner_json_size(value));
        break;
    case GPTNER_JSON_ARRAY:
        printf("arr %zu\n", gptner_json_size(value));
        break;
    case GPTNER_JSON_STRING:
        gptner_json_get_str(value, &text);
        fputs("str ", stdout);
        json_put_hex(text);
        putchar('\n');
        break;
    case GPTNER_JSON_NUMBER:
        gptner_json_get_number(value, &text);
        gptner_json_get_double(value, &number);
        if (text.len > JSON_TREE_TEXT)
            text = gptner_str_from("-");
        printf("num %016" PRIx64 " %.*s\n", json_bits(number), (int)text.len,
               text.ptr);
        break;
    case GPTNER_JSON_BOOL:
        gptner_json_get_bool(value, &truth);
        puts(truth ? "true" : "false");
        break;
    case GPTNER_JSON_NULL:
    case GPTNER_JSON_NONE:
        puts("null");
        break;
    }
    while (gptner_json_iter_next(&it)) {
        if (it.is_object) {
            fputs("key ", stdout);
            json_put_hex(it.key);
            putchar('\n');
        }
        json_put_tree(it.value);
    }
}

static int cmd_json(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    for (int i = 1; i < argc; i++) {
        gptner_json_doc *doc;
        gptner_json_error err;
        size_t len = 0;
        char *data = json_slurp_path(argv[i], &len);
        if (data == NULL)
            return 2;
        if (gptner_json_parse(data, len, NULL, &doc, &err) == GPTNER_OK) {
            printf("%s accept\n", argv[i]);
            json_put_tree(gptner_json_root(doc));
        } else {
            printf("%s reject %zu %s\n", argv[i], err.offset, err.message);
        }
        gptner_json_doc_free(doc);
        free(data);
    }
    fflush(stdout);
    return 0;
}

static int cmd_json_rewrite(int argc, char **argv)
{
    gptner_json_doc *doc;
    gptner_json_error err;
    gptner_json_writer *w = NULL;
    gptner_str text = {NULL, 0};
    size_t len = 0;
    char *data;
    if (argc != 2 || (data = json_slurp_path(argv[1], &len)) == NULL)
        return 2;
    if (gptner_json_parse(data, len, NULL, &doc, &err) != GPTNER_OK) {
        printf("reject %zu %s\n", err.offset, err.message);
    } else if (gptner_json_writer_new(NULL, &w) == GPTNER_OK) {
        gptner_json_write_value(w, gptner_json_root(doc));
        if (gptner_json_writer_finish(w, &text) == GPTNER_OK)
            fwrite(text.ptr, 1, text.len, stdout);
        else
            printf("reject 0 %s\n", gptner_json_writer_message(w));
    }
    fflush(stdout);
    gptner_json_writer_free(w);
    gptner_json_doc_free(doc);
    free(data);
    return 0;
}

/* Decode a line of hex in place ('-': nothing); its length, or SIZE_MAX. */
static size_t json_unhex(char *line, size_t len)
{
    size_t n = 0;
    if (len == 1 && line[0] == '-')
        return 0;
    if (len % 2 != 0)
        return SIZE_MAX;
    for (size_t i = 0; i < len; i += 2) {
        static const char digits[] = "0123456789abcdefABCDEF";
        char pair[3] = {line[i], line[i + 1], '\0'};
        if (strspn(pair, digits) != 2)
            return SIZE_MAX;
        line[n++] = (char)strtoul(pair, NULL, 16);
    }
    return n;
}

static void json_show_number(char *text, size_t len)
{
    gptner_json_doc *doc;
    const gptner_json_value *value;
    gptner_str written;
    double number = 0;
    int64_t i64 = 0;
    uint64_t u64 = 0;
    if (gptner_json_parse(text, len, NULL, &doc, NULL) != GPTNER_OK) {
        puts("reject");
        return;
    }
    value = gptner_json_root(doc);
    if (!gptner_json_get_double(value, &number)) {
        puts("reject");
    } else {
        printf("accept %016" PRIx64, json_bits(number));
        gptner_json_get_number(value, &written);
        if (memchr(written.ptr, '.', written.len) != NULL ||
            memchr(written.ptr, 'e', written.len) != NULL ||
            memchr(written.ptr, 'E', written.len) != NULL)
            putchar('\n');
        else if (gptner_json_get_int64(value, &i64))
            printf(" i64 %" PRId64 "\n", i64);
        else if (gptner_json_get_uint64(value, &u64))
            printf(" u64 %" PRIu64 "\n", u64);
        else
            putchar('\n');
    }
    gptner_json_doc_free(doc);
}

static void json_show_string(char *text, size_t len)
{
    gptner_json_reader r;
    gptner_str out;
    gptner_json_reader_init_in_place(&r, text, len, NULL);
    if (gptner_json_read_str(&r, &out) &&
        gptner_json_reader_finish(&r, NULL) == GPTNER_OK) {
        fputs("accept ", stdout);
        json_put_hex(out);
        putchar('\n');
    } else {
        puts("reject");
    }
}

/* A line of hex is binary64 here, big-endian. */
static void json_show_shortest(char *text, size_t len)
{
    gptner_json_writer *w = NULL;
    gptner_str out = {NULL, 0};
    uint64_t bits = 0;
    double number;
    for (size_t i = 0; i < len; i++)
        bits = bits << 8 | (unsigned char)text[i];
    memcpy(&number, &bits, sizeof(number));
    if (len == 8 && gptner_json_writer_new(NULL, &w) == GPTNER_OK) {
        gptner_json_write_double(w, number);
        gptner_json_writer_finish(w, &out);
    }
    if (out.ptr != NULL)
        printf("%.*s\n", (int)out.len, out.ptr);
    else
        puts("reject");
    gptner_json_writer_free(w);
}

/* Each line of stdin, decoded from hex, to show. */
static int json_lines(int argc, void (*show)(char *text, size_t len))
{
    size_t len = 0;
    char *data = argc == 1 ? json_slurp(stdin, &len) : NULL, *line = data;
    if (data == NULL)
        return 2;
    while (line < data + len) {
        char *end = (char *)memchr(line, '\n', (size_t)(data + len - line));
        size_t n;
        if (end == NULL)
            end = data + len;
        if (end > line && end[-1] == '\r')
            n = json_unhex(line, (size_t)(end - 1 - line));
        else
            n = json_unhex(line, (size_t)(end - line));
        if (n == SIZE_MAX)
            puts("reject");
        else
            show(line, n);
        line = end + 1;
    }
    fflush(stdout);
    free(data);
    return 0;
}

static int cmd_number(int argc, char **argv)
{
    (void)argv;
    return json_lines(argc, json_show_number);
}

static int cmd_string(int argc, char **argv)
{
    (void)argv;
    return json_lines(argc, json_show_string);
}

static int cmd_shortest(int argc, char **argv)
{
    (void)argv;
    return json_lines(argc, json_show_shortest);
}

/* --- printing --------------------------------------------------------------
 */

/* A JSON string; what is not UTF-8 becomes U+FFFD, or if latin1 each byte is a
 * character. */
static void put_string(gptner_str text, bool latin1)
{
    size_t at = 0;
    putchar('"');
    while (at < text.len) {
        unsigned char c = (unsigned char)text.ptr[at];
        uint32_t cp = c;
        size_t n = 1;
        if (c >= 0x80 && !latin1) {
            n = gpn_utf8_get(text.ptr + at, text.len - at, &cp);
            if (n == 0) {
                cp = 0xfffd;
                n = 1;
            }
        }
        at += n;
        if (cp == '"' || cp == '\\') {
            printf("\\%c", (char)cp);
        } else if (cp < 0x20 || cp == 0x7f || (latin1 && cp >= 0x80)) {
            printf("\\u%04x", (unsigned)cp);
        } else {
            char utf8[4];
            fwrite(utf8, 1, gpn_utf8_put(cp, utf8), stdout);
        }
    }
    putchar('"');
}

static void put_sha256(gpn_sha256_state *state)
{
    unsigned char sum[32];
    size_t i;
    gpn_sha256_final(state, sum);
    for (i = 0; i < sizeof(sum); i++) {
        printf("%02x", (unsigned)sum[i]);
    }
}

static void put_error(const gptner_error *err)
{
    printf("{\"ok\":false,\"error\":");
    put_string(gptner_str_from(err->message), false);
    printf(",\"status_name\":\"%s\"}\n", gptner_status_name(err->status));
}

/* --- input -----------------------------------------------------------------
 */

/* "--piece N" and one file name. */
static bool piece_options(int argc, char **argv, size_t *piece, char **path)
{
    int at = 1;
    *piece = 0;
    if (at + 1 < argc && strcmp(argv[at], "--piece") == 0) {
        uint64_t n;
        if (!gpn_parse_u64(gptner_str_from(argv[at + 1]), &n) || n > SIZE_MAX) {
            return false;
        }
        *piece = (size_t)n;
        at += 2;
    }
    *path = at < argc ? argv[at] : NULL;
    return at + 1 == argc;
}

/* The whole file in a block of just its size, so that a memory checker sees a
 * read past the end. */
static char *read_file(const char *path, size_t *len)
{
    char *data = json_slurp_path(path, len);
    char *exact = data != NULL ? (char *)malloc(*len > 0 ? *len : 1) : NULL;
    if (exact != NULL) {
        memcpy(exact, data, *len);
    }
    free(data);
    return exact;
}

static size_t piece_of(size_t piece, size_t left)
{
    return piece > 0 && piece < left ? piece : left;
}

/* Calls show for each line of hex on stdin, decoded into a block of its size;
 * "-" is the empty input. */
static int hex_lines(void (*show)(gptner_str text, const gpn_env *env,
                                  int64_t now_ms),
                     int64_t now_ms)
{
    gpn_env env;
    size_t len = 0, start, end;
    char *all = json_slurp(stdin, &len);
    if (all == NULL || !gpn_env_init(&env, NULL, NULL)) {
        return 2;
    }
    for (start = 0; start < len; start = end + 1) {
        size_t n;
        char *text;
        for (end = start; end < len && all[end] != '\n'; end++) {
        }
        n = json_unhex(all + start, end - start);
        if (n == SIZE_MAX) {
            puts("reject");
            continue;
        }
        text = (char *)malloc(n > 0 ? n : 1);
        if (text == NULL) {
            break;
        }
        memcpy(text, all + start, n);
        show(gpn_str(text, n), &env, now_ms);
        free(text);
    }
    free(all);
    return 0;
}

/* --- url, wait, reset ------------------------------------------------------
 */

static void show_url(gptner_str text, const gpn_env *env, int64_t now_ms)
{
    gpn_url url;
    (void)now_ms;
    if (gpn_url_parse(env, text, &url, NULL) != GPTNER_OK) {
        puts("reject");
        return;
    }
    printf("{\"scheme\":\"%s\",\"host\":", url.scheme);
    put_string(gptner_str_from(url.host), false);
    printf(",\"port\":%d,\"target\":", url.port);
    put_string(gptner_str_from(url.target), false);
    puts("}");
    gpn_url_deinit(&url);
}

static void show_wait(gptner_str text, const gpn_env *env, int64_t now_ms)
{
    int64_t ms;
    (void)env;
    if (gpn_wait_parse(text, now_ms, &ms)) {
        printf("%" PRId64 "\n", ms);
    } else {
        puts("reject");
    }
}

/* Milliseconds, with a fraction where there is one. */
static void show_reset(gptner_str text, const gpn_env *env, int64_t now_ms)
{
    char number[40];
    int64_t ns;
    (void)env;
    (void)now_ms;
    if (gpn_reset_parse_ns(gpn_str_trim(text), &ns)) {
        size_t n = ns % 1000000 == 0 ? gpn_fmt_i64(ns / 1000000, number)
                                     : gpn_fmt_double((double)ns / 1e6, number);
        printf("%.*s\n", (int)n, number);
    } else {
        puts("reject");
    }
}

static int cmd_wait(int argc, char **argv)
{
    uint64_t now;
    if (argc != 3 || strcmp(argv[1], "--now") != 0 ||
        !gpn_parse_u64(gptner_str_from(argv[2]), &now) ||
        now > INT64_MAX / 1000) {
        return wrong_usage();
    }
    return hex_lines(show_wait, (int64_t)now * 1000);
}

/* --- sse -------------------------------------------------------------------
 */

static int cmd_sse(int argc, char **argv)
{
    gpn_env env;
    gpn_sse sse;
    gptner_error err;
    char *path, *data;
    size_t piece, len, at = 0;
    gpn_sse_event event = GPN_SSE_MORE;
    if (!piece_options(argc, argv, &piece, &path) ||
        !gpn_env_init(&env, NULL, NULL)) {
        return wrong_usage();
    }
    data = read_file(path, &len);
    if (data == NULL) {
        return 2;
    }
    gpn_sse_init(&sse, &env, (size_t)64 << 20);
    while (at < len && event != GPN_SSE_FAILED) {
        size_t end = at + piece_of(piece, len - at), used;
        while (at < end && event != GPN_SSE_FAILED) {
            gpn_sse_message m;
            event = gpn_sse_next(&sse, data + at, end - at, &used, &m, &err);
            at += used;
            if (event == GPN_SSE_EVENT) {
                printf("{\"type\":");
                put_string(m.type, false);
                printf(",\"data\":");
                put_string(m.data, false);
                printf(",\"id\":");
                put_string(m.id, false);
                puts("}");
            }
        }
    }
    if (event == GPN_SSE_FAILED) {
        put_error(&err);
    } else if (sse.retry_ms < 0) {
        puts("{\"retry\":null}");
    } else {
        printf("{\"retry\":%" PRId64 "}\n", sse.retry_ms);
    }
    gpn_sse_deinit(&sse);
    free(data);
    return 0;
}

/* --- http ------------------------------------------------------------------
 */

static void put_fields(const gpn_http *http, size_t first, size_t n)
{
    size_t i;
    putchar('[');
    for (i = first; i < first + n; i++) {
        printf(i > first ? ",[" : "[");
        put_string(gpn_http_name(http, i), true);
        putchar(',');
        put_string(gpn_http_value(http, i), true);
        putchar(']');
    }
    putchar(']');
}

static void put_response(const gpn_http *http, gpn_sha256_state *body,
                         size_t leftover)
{
    static const char *const framings[] = {"none", "length", "chunked",
                                           "close"};
    const char *reusable = http->reusable && leftover == 0 ? "true" : "false";
    size_t i;
    printf("{\"ok\":true,\"status\":%d,\"body_len\":%" PRId64
           ",\"body_sha256\":\"",
           http->status, http->body_bytes);
    put_sha256(body);
    printf("\",\"reused_ok\":%s,\"headers\":", reusable);
    put_fields(http, 0, http->n_headers);
    printf(",\"interim\":[");
    for (i = 0; i < http->n_interim; i++) {
        printf(i > 0 ? ",%d" : "%d", (int)http->interim[i]);
    }
    printf("],\"trailers\":");
    put_fields(http, http->n_headers, http->n_trailers);
    printf(",\"framing\":\"%s\",\"reusable\":%s,\"leftover\":%" PRIu64 "}\n",
           framings[http->framing], reusable, (uint64_t)leftover);
}

static int cmd_http(int argc, char **argv)
{
    gpn_env env;
    gpn_http http;
    gpn_http_limits limits;
    gpn_sha256_state sum;
    gptner_error err;
    char *path, *data;
    size_t piece, len, at = 0;
    gpn_http_event event = GPN_HTTP_MORE;
    if (!piece_options(argc, argv, &piece, &path) ||
        !gpn_env_init(&env, NULL, NULL)) {
        return wrong_usage();
    }
    data = read_file(path, &len);
    if (data == NULL) {
        return 2;
    }
    memset(&limits, 0, sizeof(limits));
    gpn_sha256_init(&sum);
    gpn_http_init(&http, &env);
    gpn_http_reset(&http, false, false, &limits);
    while (event < GPN_HTTP_DONE && at < len) {
        size_t end = at + piece_of(piece, len - at), used;
        do {
            gptner_str body;
            event =
                gpn_http_next(&http, data + at, end - at, &used, &body, &err);
            at += used;
            if (event == GPN_HTTP_BODY) {
                gpn_sha256_update(&sum, body.ptr, body.len);
            }
        } while (event != GPN_HTTP_MORE && event < GPN_HTTP_DONE);
    }
    if (event < GPN_HTTP_DONE) {
        event = gpn_http_eof(&http, true, &err);
    }
    if (event == GPN_HTTP_DONE) {
        put_response(&http, &sum, len - at);
    } else {
        put_error(&err);
    }
    gpn_http_deinit(&http);
    free(data);
    return 0;
}

/* --- fetch -----------------------------------------------------------------
 */

/* A failure that stands for the status of a whole response is no failure
 * here. */
static bool is_about_status(gptner_status status, const gptner_response *r)
{
    switch (status) {
    case GPTNER_OK:
    case GPTNER_ERR_RATE_LIMITED:
    case GPTNER_ERR_QUOTA:
    case GPTNER_ERR_AUTH:
    case GPTNER_ERR_PERMISSION:
    case GPTNER_ERR_NOT_FOUND:
    case GPTNER_ERR_BAD_REQUEST:
    case GPTNER_ERR_CONTEXT_LENGTH:
    case GPTNER_ERR_SERVER:
    case GPTNER_ERR_HTTP:
    case GPTNER_ERR_REDIRECT:
    case GPTNER_ERR_FILTERED:
    case GPTNER_ERR_TOO_LARGE:
        return r != NULL;
    case GPTNER_ERR_TIMEOUT:
        return r != NULL && r->status == 408;
    case GPTNER_ERR_UNSUPPORTED:
        return r != NULL && r->status == 501;
    default:
        return false;
    }
}

static void fetch_once(gptner_client *client, const char *target)
{
    gptner_raw_request request;
    gptner_response *response = NULL;
    gptner_error err;
    gptner_status status;
    memset(&request, 0, sizeof(request));
    memset(&err, 0, sizeof(err));
    request.path = target;
    request.no_retry = true;
    status = gptner_raw(client, &request, &response, &err);
    if (is_about_status(status, response)) {
        gpn_sha256_state sum;
        gpn_sha256_init(&sum);
        gpn_sha256_update(&sum, response->body.ptr, response->body.len);
        printf("{\"ok\":true,\"status\":%d,\"body_len\":%" PRId64
               ",\"body_sha256\":\"",
               response->status, response->body_bytes);
        put_sha256(&sum);
        printf("\",\"reused_ok\":%s}\n", response->reusable ? "true" : "false");
    } else {
        put_error(&err);
    }
    fflush(stdout);
    gptner_response_free(response);
}

/* The client's options and the number of times; false: wrong usage. */
static bool fetch_options(int argc, char **argv, gptner_config *cfg,
                          uint64_t *times, const char **text)
{
    int at = 1;
    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        const char *name = argv[at] + 2, *value = argv[at + 1];
        double number = 0;
        bool ok = gpn_parse_double(gptner_str_from(value), &number) &&
                  number >= 0 && number < 9e15;
        if (strcmp(name, "ca") == 0) {
            cfg->ca_file = value;
            ok = true;
        } else if (strcmp(name, "timeout") == 0) {
            cfg->timeout_ms = number < 2e6 ? (int)(number * 1000) : INT_MAX;
            cfg->timeout_ms += cfg->timeout_ms == 0 ? 1 : 0;
        } else if (strcmp(name, "max-body") == 0) {
            cfg->max_body_bytes = (size_t)number;
            ok = ok && number >= 1;
        } else if (strcmp(name, "times") == 0) {
            *times = (uint64_t)number;
        } else {
            return false;
        }
        if (!ok) {
            return false;
        }
    }
    *text = at < argc ? argv[at] : NULL;
    return at + 1 == argc;
}

static int cmd_fetch(int argc, char **argv)
{
    gpn_env env;
    gpn_url url;
    gptner_config cfg;
    gptner_client *client = NULL;
    gptner_error err;
    gptner_status status;
    const char *text;
    char origin[400];
    uint64_t times = 1;
    memset(&cfg, 0, sizeof(cfg));
    memset(&err, 0, sizeof(err));
    if (!fetch_options(argc, argv, &cfg, &times, &text) ||
        !gpn_env_init(&env, NULL, NULL)) {
        return wrong_usage();
    }
    status = gpn_url_parse(&env, gptner_str_from(text), &url, &err);
    if (status != GPTNER_OK) {
        put_error(&err);
        return 0;
    }
    gpn_format(origin, sizeof(origin),
               url.host_is_v6 ? "%s://[%s]:%d" : "%s://%s:%d", url.scheme,
               url.host, url.port);
    cfg.base_url = origin;
    cfg.api_key = "";
    cfg.auth = GPTNER_AUTH_NONE;
    cfg.max_retries = -1;
    cfg.max_throttle_retries = -1;
    cfg.max_bad_reply_retries = -1;
    status = gptner_client_new(&cfg, &client, &err);
    for (; status == GPTNER_OK && times > 0; times--) {
        fetch_once(client, url.target);
    }
    if (status != GPTNER_OK) {
        put_error(&err);
    }
    gptner_client_free(client);
    gpn_url_deinit(&url);
    return 0;
}

/* --- commands --------------------------------------------------------------
 */

static int cmd_url(int argc, char **argv)
{
    (void)argv;
    return argc == 1 ? hex_lines(show_url, 0) : wrong_usage();
}

static int cmd_reset(int argc, char **argv)
{
    (void)argv;
    return argc == 1 ? hex_lines(show_reset, 0) : wrong_usage();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {
        {"fetch", cmd_fetch},
        {"json", cmd_json},
        {"json-rewrite", cmd_json_rewrite},
        {"number", cmd_number},
        {"string", cmd_string},
        {"shortest", cmd_shortest},
        {"sse", cmd_sse},
        {"http", cmd_http},
        {"url", cmd_url},
        {"wait", cmd_wait},
        {"reset", cmd_reset},
    };
    size_t i;
    for (i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return wrong_usage();
}
