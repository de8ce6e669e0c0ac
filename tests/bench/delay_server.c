/* delay_server CERT KEY REPLY_FILE LATENCY_MS: an HTTPS server that answers
 * every request LATENCY_MS after its last byte came, to some microseconds.
 * nginx cannot serve for this: its timers count whole milliseconds and cost a
 * client up to 5% of workers/latency. Prints its port. One thread; good
 * for the clients of this directory and nothing else. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ticket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "bench_util.h"

typedef struct client {
    mbedtls_ssl_context ssl;
    int fd;
    bool open;   /* the handshake is over */
    bool queued; /* waits for its time */
    bool dead;   /* went away while it was queued */
    size_t got;
    int64_t due_us;
    struct client *next;
    char in[16384];
} client;

typedef struct server {
    int epoll_fd, timer_fd, listen_fd;
    int64_t latency_us;
    client *head, *tail; /* one latency for all: the queue is in time order */
    mbedtls_ssl_config config;
    mbedtls_ssl_ticket_context ticket;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    mbedtls_x509_crt cert;
    mbedtls_pk_context key;
    char reply[8192];
    size_t reply_len;
} server;

static int bio_send(void *ctx, const unsigned char *data, size_t len)
{
    ssize_t n = send(*(int *)ctx, data, len, MSG_NOSIGNAL);
    if (n < 0) {
        return errno == EAGAIN ? MBEDTLS_ERR_SSL_WANT_WRITE : -1;
    }
    return (int)n;
}

static int bio_recv(void *ctx, unsigned char *data, size_t len)
{
    ssize_t n = recv(*(int *)ctx, data, len, 0);
    if (n < 0) {
        return errno == EAGAIN ? MBEDTLS_ERR_SSL_WANT_READ : -1;
    }
    return (int)n;
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void watch(const server *s, int fd, void *tag)
{
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    event.data.ptr = tag;
    epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void client_close(client *c)
{
    if (c->fd >= 0) {
        mbedtls_ssl_close_notify(&c->ssl);
        mbedtls_ssl_free(&c->ssl);
        close(c->fd);
        c->fd = -1;
    }
    c->dead = true;
    if (!c->queued) {
        free(c);
    }
}

static void accept_clients(server *s)
{
    int on = 1, fd;
    while ((fd = accept4(s->listen_fd, NULL, NULL,
                         SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        client *c = (client *)calloc(1, sizeof *c);
        if (c == NULL || mbedtls_ssl_setup(&c->ssl, &s->config) != 0) {
            bench_die("delay_server: out of memory");
        }
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        mbedtls_ssl_set_bio(&c->ssl, &c->fd, bio_send, bio_recv, NULL);
        watch(s, fd, c);
    }
}

/* True when a request is whole: its head, and as much as that promises. */
static bool is_whole(client *c)
{
    const char *end, *field;
    c->in[c->got] = '\0';
    end = strstr(c->in, "\r\n\r\n");
    field = strcasestr(c->in, "\r\ncontent-length:");
    return end != NULL && field != NULL && field < end &&
           c->got >= (size_t)(end - c->in) + 4 + (size_t)atoll(field + 17);
}

static void arm_timer(const server *s)
{
    struct itimerspec at;
    memset(&at, 0, sizeof at);
    if (s->head != NULL) {
        at.it_value.tv_sec = s->head->due_us / 1000000;
        at.it_value.tv_nsec = s->head->due_us % 1000000 * 1000;
    }
    timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void enqueue(server *s, client *c)
{
    bool first = s->head == NULL;
    c->due_us = now_us() + s->latency_us;
    c->queued = true;
    c->next = NULL;
    c->got = 0;
    if (first) {
        s->head = c;
    } else {
        s->tail->next = c;
    }
    s->tail = c;
    if (first) {
        arm_timer(s);
    }
}

static void serve(server *s, client *c)
{
    int r;
    if (!c->open) {
        r = mbedtls_ssl_handshake(&c->ssl);
        c->open = r == 0;
        if (r != 0 && r != MBEDTLS_ERR_SSL_WANT_READ) {
            client_close(c);
        }
        return; /* epoll reports what has come meanwhile */
    }
    while ((r = mbedtls_ssl_read(&c->ssl, (unsigned char *)c->in + c->got,
                                 sizeof c->in - 1 - c->got)) > 0) {
        c->got += (size_t)r;
        if (is_whole(c)) {
            enqueue(s, c);
            return;
        }
    }
    if (r != MBEDTLS_ERR_SSL_WANT_READ) {
        client_close(c);
    }
}

static void answer_due(server *s)
{
    while (s->head != NULL && s->head->due_us <= now_us()) {
        client *c = s->head;
        s->head = c->next;
        c->queued = false;
        if (c->dead || mbedtls_ssl_write(&c->ssl, (unsigned char *)s->reply,
                                         s->reply_len) < 0) {
            client_close(c);
        }
    }
    arm_timer(s);
}

static void set_up_tls(server *s, const char *cert, const char *key)
{
    mbedtls_ssl_config_init(&s->config);
    mbedtls_ssl_ticket_init(&s->ticket);
    mbedtls_entropy_init(&s->entropy);
    mbedtls_ctr_drbg_init(&s->drbg);
    mbedtls_x509_crt_init(&s->cert);
    mbedtls_pk_init(&s->key);
    if (mbedtls_ctr_drbg_seed(&s->drbg, mbedtls_entropy_func, &s->entropy, NULL,
                              0) != 0 ||
        mbedtls_x509_crt_parse_file(&s->cert, cert) != 0 ||
        mbedtls_pk_parse_keyfile(&s->key, key, NULL) != 0 ||
        mbedtls_ssl_config_defaults(&s->config, MBEDTLS_SSL_IS_SERVER,
                                    MBEDTLS_SSL_TRANSPORT_STREAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT) != 0 ||
        mbedtls_ssl_ticket_setup(&s->ticket, mbedtls_ctr_drbg_random, &s->drbg,
                                 MBEDTLS_CIPHER_AES_256_GCM, 86400) != 0 ||
        mbedtls_ssl_conf_own_cert(&s->config, &s->cert, &s->key) != 0) {
        bench_die("delay_server: TLS set-up failed");
    }
    mbedtls_ssl_conf_rng(&s->config, mbedtls_ctr_drbg_random, &s->drbg);
    mbedtls_ssl_conf_session_tickets_cb(&s->config, mbedtls_ssl_ticket_write,
                                        mbedtls_ssl_ticket_parse, &s->ticket);
}

static void set_up_reply(server *s, const char *path)
{
    char body[4096];
    FILE *f = fopen(path, "rb");
    size_t n = f == NULL ? 0 : fread(body, 1, sizeof body - 1, f);
    if (n == 0) {
        bench_die("delay_server: no reply to give");
    }
    fclose(f);
    body[n] = '\0';
    s->reply_len =
        (size_t)snprintf(s->reply, sizeof s->reply,
                         "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                         "Content-Length: %zu\r\n\r\n%s",
                         n, body);
}

static int set_up_sockets(server *s)
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    s->listen_fd =
        socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(s->listen_fd, (struct sockaddr *)&address, len) != 0 ||
        listen(s->listen_fd, 1024) != 0 ||
        getsockname(s->listen_fd, (struct sockaddr *)&address, &len) != 0) {
        bench_die("delay_server: no socket");
    }
    watch(s, s->listen_fd, &s->listen_fd);
    watch(s, s->timer_fd, &s->timer_fd);
    return ntohs(address.sin_port);
}

int main(int argc, char **argv)
{
    static server s;
    struct epoll_event events[128];
    if (argc != 5) {
        bench_die("usage: delay_server CERT KEY REPLY_FILE LATENCY_MS");
    }
    s.latency_us = atoll(argv[4]) * 1000;
    set_up_tls(&s, argv[1], argv[2]);
    set_up_reply(&s, argv[3]);
    printf("%d\n", set_up_sockets(&s));
    fflush(stdout);
    for (;;) { /* until a signal ends it */
        int n = epoll_wait(s.epoll_fd, events, 128, -1);
        for (int i = 0; i < n; i++) {
            void *tag = events[i].data.ptr;
            if (tag == &s.listen_fd) {
                accept_clients(&s);
            } else if (tag == &s.timer_fd) {
                uint64_t expired;
                if (read(s.timer_fd, &expired, sizeof expired) > 0) {
                    answer_due(&s);
                }
            } else {
                serve(&s, (client *)tag);
            }
        }
    }
}
