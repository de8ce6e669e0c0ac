/* Ours: gptner_run() over N prompts, as a user of the library would call it,
 * to be measured beside peer_curl and peer_bare. With -r FILE nothing is sent:
 * one request is caught by a transport of our own and its bytes are written to
 * FILE, for peer_bare to send the same. */
#define GPTNER_IMPLEMENTATION
#include "gptner.h"

#include <stdio.h>
#include <string.h>

#include "bench_util.h"

typedef struct prompts {
    char text[BENCH_PROMPT_SIZE];
    size_t len;
    int64_t next, total;
} prompts;

static int next_prompt(gptner_prompt *prompt, gptner_error *err, void *user)
{
    prompts *p = (prompts *)user;
    (void)err;
    if (p->next == p->total) {
        return 0;
    }
    bench_prompt_number(p->text, p->next++);
    prompt->text.ptr = p->text;
    prompt->text.len = p->len;
    return 1;
}

static bool take_result(const gptner_result *result, void *user)
{
    if (result->status != GPTNER_OK || result->text.len == 0 ||
        result->usage.total_tokens <= 0) {
        fprintf(stderr, "bench_run: %s\n", result->message);
        return false;
    }
    ++*(int64_t *)user;
    return true;
}

/* ---- the transport that catches a request ---- */

static const char canned[] =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    "Content-Length: 170\r\n\r\n"
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"choices\":[{"
    "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"caught\"},"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"total_tokens\":1}}";

typedef struct trap {
    FILE *file;
    size_t given; /* of the canned reply */
} trap;

static int trap_connect(const char *host, int port, int timeout_ms, void **conn,
                        void *user)
{
    (void)host;
    (void)port;
    (void)timeout_ms;
    *conn = user;
    return 0;
}

static int trap_send(void *conn, const char *data, size_t len, int timeout_ms)
{
    (void)timeout_ms;
    return (int)fwrite(data, 1, len, ((trap *)conn)->file);
}

static int trap_recv(void *conn, char *data, size_t cap, int timeout_ms)
{
    trap *t = (trap *)conn;
    size_t left = sizeof canned - 1 - t->given;
    size_t n = left < cap ? left : cap;
    (void)timeout_ms;
    memcpy(data, canned + t->given, n);
    t->given += n;
    return (int)n;
}

static void trap_close(void *conn)
{
    (void)conn;
}

int main(int argc, char **argv)
{
    bench_options options = bench_options_parse(argc, argv);
    bench_figures figures = {0, 0, 0};
    char url[64];
    prompts source;
    trap catcher = {NULL, 0};
    gptner_transport transport;
    gptner_config config;
    gptner_run_config run;
    gptner_run_summary summary;
    gptner_client *client;
    gptner_error err;
    gptner_status status;

    memset(&transport, 0, sizeof transport);
    memset(&config, 0, sizeof config);
    memset(&run, 0, sizeof run);
    memset(&source, 0, sizeof source);
    bench_prompt_init(source.text);
    source.len = strlen(source.text);
    source.total = options.requests;
    snprintf(url, sizeof url, "https://127.0.0.1:%d/v1", options.port);
    config.base_url = url;
    config.api_key = "sk-bench";
    config.ca_file = options.ca_file;
    config.max_workers = options.workers;
    config.proxy = "";
    if (options.request_file != NULL) {
        catcher.file = fopen(options.request_file, "wb");
        if (catcher.file == NULL) {
            bench_die("bench_run: request file not writable");
        }
        transport.connect_fn = trap_connect;
        transport.send_fn = trap_send;
        transport.recv_fn = trap_recv;
        transport.close_fn = trap_close;
        transport.is_secure = true;
        transport.user = &catcher;
        config.transport = &transport;
        source.total = 1;
    }
    run.next_fn = next_prompt;
    run.next_user = &source;
    run.total = source.total;
    run.result_fn = take_result;
    run.result_user = &figures.answers;
    status = gptner_client_new(&config, &client, &err);
    if (status == GPTNER_OK) {
        status = gptner_run(client, &run, &summary, &err);
    }
    if (status != GPTNER_OK || summary.failed > 0) {
        fprintf(stderr, "bench_run: %s\n",
                status == GPTNER_OK ? "not every prompt was answered"
                                    : err.message);
        return 1;
    }
    figures.connections = summary.connections;
    figures.resumed = summary.resumed_sessions;
    bench_figures_print(&figures);
    gptner_client_free(client);
    if (catcher.file != NULL) {
        fclose(catcher.file);
    }
    return 0;
}
