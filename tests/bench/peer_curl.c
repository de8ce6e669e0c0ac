/* The packaged peer: libcurl's multi interface with cJSON, as somebody would
 * write it who knows both. One easy handle a worker, used again and again;
 * kept connections and TLS sessions shared through the multi handle; the body
 * printed into the worker's own buffer; epoll through curl_multi_socket_action
 * or, with -m, curl_multi_poll and curl_multi_perform. */
#define _GNU_SOURCE
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench_util.h"

typedef struct worker {
    CURL *easy;
    char prompt[BENCH_PROMPT_SIZE];
    char body[2048];
    char *reply;
    size_t reply_len, reply_cap;
} worker;

typedef struct loop {
    CURLM *multi;
    int epoll_fd;
    long timeout_ms;
    int64_t next, left; /* number of the next prompt; answers to come */
    bench_figures figures;
} loop;

static size_t on_reply(char *data, size_t size, size_t n, void *user)
{
    worker *w = (worker *)user;
    size_t len = size * n;
    if (w->reply_cap - w->reply_len < len + 1) {
        size_t cap = (w->reply_len + len + 1) * 2;
        char *grown = (char *)realloc(w->reply, cap);
        if (grown == NULL) {
            return 0;
        }
        w->reply = grown;
        w->reply_cap = cap;
    }
    memcpy(w->reply + w->reply_len, data, len);
    w->reply_len += len;
    return len;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user,
                     void *known)
{
    loop *l = (loop *)user;
    struct epoll_event event;
    (void)easy;
    memset(&event, 0, sizeof event);
    event.data.fd = fd;
    event.events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0U) |
                   (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0U);
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    if (known == NULL) {
        curl_multi_assign(l->multi, fd, l);
    }
    epoll_ctl(l->epoll_fd, known == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd,
              &event);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
    (void)multi;
    ((loop *)user)->timeout_ms = timeout_ms;
    return 0;
}

static void write_body(worker *w, int64_t number)
{
    cJSON *root = cJSON_CreateObject();
    cJSON *message = cJSON_CreateObject();
    cJSON *messages;
    bench_prompt_number(w->prompt, number);
    cJSON_AddStringToObject(root, "model", "gpt-4o-mini");
    messages = cJSON_AddArrayToObject(root, "messages");
    cJSON_AddStringToObject(message, "role", "user");
    cJSON_AddStringToObject(message, "content", w->prompt);
    cJSON_AddItemToArray(messages, message);
    cJSON_AddNumberToObject(root, "max_tokens", 512);
    cJSON_AddNumberToObject(root, "temperature", 0);
    if (!cJSON_PrintPreallocated(root, w->body, (int)sizeof w->body, 0)) {
        bench_die("peer_curl: body too long");
    }
    cJSON_Delete(root);
}

static void start_request(loop *l, worker *w)
{
    write_body(w, l->next++);
    w->reply_len = 0;
    curl_easy_setopt(w->easy, CURLOPT_POSTFIELDSIZE, (long)strlen(w->body));
    curl_easy_setopt(w->easy, CURLOPT_POSTFIELDS, w->body);
    curl_multi_add_handle(l->multi, w->easy);
}

/* The text and the token counts, as a user of the answers needs them. */
static bool read_reply(const worker *w)
{
    cJSON *root = cJSON_ParseWithLength(w->reply, w->reply_len);
    const cJSON *choice =
        cJSON_GetArrayItem(cJSON_GetObjectItem(root, "choices"), 0);
    const cJSON *message = cJSON_GetObjectItem(choice, "message");
    const cJSON *usage = cJSON_GetObjectItem(root, "usage");
    const char *content =
        cJSON_GetStringValue(cJSON_GetObjectItem(message, "content"));
    double tokens =
        cJSON_GetNumberValue(cJSON_GetObjectItem(usage, "total_tokens"));
    bool ok = content != NULL && *content != '\0' && tokens > 0;
    cJSON_Delete(root);
    return ok;
}

static void finish_requests(loop *l)
{
    int queued;
    CURLMsg *message;
    while ((message = curl_multi_info_read(l->multi, &queued)) != NULL) {
        CURL *easy = message->easy_handle;
        long status = 0, connects = 0;
        char *user = NULL;
        worker *w;
        if (message->data.result != CURLE_OK) {
            bench_die(curl_easy_strerror(message->data.result));
        }
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &user);
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
        w = (worker *)(void *)user;
        l->figures.connections += connects;
        if (status != 200 || !read_reply(w)) {
            bench_die("peer_curl: a reply without an answer");
        }
        l->figures.answers++;
        l->left--;
        curl_multi_remove_handle(l->multi, easy);
        if (l->left > 0 && l->next < l->figures.answers + l->left) {
            start_request(l, w);
        }
    }
}

static void drive_epoll(loop *l)
{
    struct epoll_event events[128];
    int running;
    curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    while (l->left > 0) {
        int n = epoll_wait(l->epoll_fd, events, 128, (int)l->timeout_ms);
        for (int i = 0; i < n; i++) {
            uint32_t e = events[i].events;
            int flags = (e & EPOLLIN ? CURL_CSELECT_IN : 0) |
                        (e & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                        (e & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
            curl_multi_socket_action(l->multi, events[i].data.fd, flags,
                                     &running);
        }
        if (n == 0) {
            curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0,
                                     &running);
        }
        finish_requests(l);
    }
}

static void drive_poll(loop *l)
{
    while (l->left > 0) {
        int running;
        curl_multi_perform(l->multi, &running);
        finish_requests(l);
        if (l->left > 0) {
            curl_multi_poll(l->multi, NULL, 0, 1000, NULL);
        }
    }
}

static void worker_init(worker *w, const bench_options *options,
                        struct curl_slist *headers)
{
    char url[128];
    snprintf(url, sizeof url, "https://127.0.0.1:%d/v1/chat/completions",
             options->port);
    bench_prompt_init(w->prompt);
    w->easy = curl_easy_init();
    curl_easy_setopt(w->easy, CURLOPT_URL, url);
    curl_easy_setopt(w->easy, CURLOPT_CAINFO, options->ca_file);
    curl_easy_setopt(w->easy, CURLOPT_HTTP_VERSION,
                     (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(w->easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(w->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(w->easy, CURLOPT_TIMEOUT_MS, 600000L);
    curl_easy_setopt(w->easy, CURLOPT_WRITEFUNCTION, on_reply);
    curl_easy_setopt(w->easy, CURLOPT_WRITEDATA, w);
    curl_easy_setopt(w->easy, CURLOPT_PRIVATE, w);
}

int main(int argc, char **argv)
{
    bench_options options = bench_options_parse(argc, argv);
    size_t n = (size_t)options.workers;
    worker *workers = (worker *)calloc(n, sizeof *workers);
    struct curl_slist *headers = NULL;
    loop l;
    memset(&l, 0, sizeof l);
    l.left = options.requests;
    l.figures.resumed = -1;
    l.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (workers == NULL || l.epoll_fd < 0 ||
        curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        bench_die("peer_curl: set-up failed");
    }
    headers = curl_slist_append(headers, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Authorization: Bearer sk-bench");
    l.multi = curl_multi_init();
    curl_multi_setopt(l.multi, CURLMOPT_MAXCONNECTS, (long)n);
    if (!options.use_poll) {
        curl_multi_setopt(l.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
        curl_multi_setopt(l.multi, CURLMOPT_SOCKETDATA, &l);
        curl_multi_setopt(l.multi, CURLMOPT_TIMERFUNCTION, on_timer);
        curl_multi_setopt(l.multi, CURLMOPT_TIMERDATA, &l);
    }
    for (size_t i = 0; i < n && l.next < options.requests; i++) {
        worker_init(&workers[i], &options, headers);
        start_request(&l, &workers[i]);
    }
    if (options.use_poll) {
        drive_poll(&l);
    } else {
        drive_epoll(&l);
    }
    bench_figures_print(&l.figures);
    for (size_t i = 0; i < n; i++) {
        curl_easy_cleanup(workers[i].easy);
        free(workers[i].reply);
    }
    curl_multi_cleanup(l.multi);
    curl_slist_free_all(headers);
    curl_global_cleanup();
    close(l.epoll_fd);
    free(workers);
    return 0;
}
