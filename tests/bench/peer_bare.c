/* The lower bound: a plain mbedTLS poll loop that writes a request made
 * beforehand (with -r: the very bytes of ours) and reads until the reply's
 * length, which it takes from the first reply. One thread, epoll, the usual
 * non-blocking BIO. No JSON, no HTTP, no deadline, no error handling. The first
 * session is kept and resumed by the other connections. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/ssl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench_util.h"

typedef struct connection {
    mbedtls_ssl_context ssl;
    int fd;
    size_t got;
    bool open;    /* the handshake is over */
    bool used;    /* has sent its first request, which is not in unsent */
    int verified; /* calls of the verify callback; 0: resumed */
} connection;

static char request[65536];
static size_t request_len;
static char reply[65536]; /* all connections read into one place */
static size_t reply_len;  /* 0: not known yet */

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

static int on_verify(void *ctx, mbedtls_x509_crt *crt, int depth,
                     uint32_t *flags)
{
    (void)crt;
    (void)depth;
    (void)flags;
    ++*(int *)ctx;
    return 0;
}

/* Without -r: what ours is expected to send. */
static void make_request(const bench_options *options)
{
    static const char head[] =
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\","
        "\"content\":\"";
    static const char tail[] = "\"}],\"max_tokens\":512,\"temperature\":0}";
    char prompt[BENCH_PROMPT_SIZE], text[2 * BENCH_PROMPT_SIZE];
    size_t n = 0;
    bench_prompt_init(prompt);
    for (const char *p = prompt; *p != '\0'; p++) {
        if (*p == '"' || *p == '\n') {
            text[n++] = '\\';
        }
        text[n++] = *p == '\n' ? 'n' : *p;
    }
    text[n] = '\0';
    request_len = (size_t)snprintf(
        request, sizeof request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        "User-Agent: peer_bare/1.0\r\nAccept: application/json\r\n"
        "Accept-Encoding: identity\r\nAuthorization: Bearer sk-bench\r\n"
        "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n"
        "%s%s%s",
        options->port, sizeof head - 1 + n + sizeof tail - 1, head, text, tail);
}

static void load_request(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        bench_die("peer_bare: request file not readable");
    }
    request_len = fread(request, 1, sizeof request, f);
    fclose(f);
}

static void open_socket(connection *c, int port, int epoll_fd)
{
    struct sockaddr_in address;
    struct epoll_event event;
    int on = 1;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0) {
        bench_die("peer_bare: connect failed");
    }
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    event.data.ptr = c;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void open_connection(connection *c, const mbedtls_ssl_config *config,
                            mbedtls_ssl_session *session, int port,
                            int epoll_fd)
{
    open_socket(c, port, epoll_fd);
    mbedtls_ssl_init(&c->ssl);
    if (mbedtls_ssl_setup(&c->ssl, config) != 0 ||
        mbedtls_ssl_set_hostname(&c->ssl, "localhost") != 0 ||
        (session != NULL && mbedtls_ssl_set_session(&c->ssl, session) != 0)) {
        bench_die("peer_bare: TLS set-up failed");
    }
    mbedtls_ssl_set_verify(&c->ssl, on_verify, &c->verified);
    mbedtls_ssl_set_bio(&c->ssl, &c->fd, bio_send, bio_recv, NULL);
}

static void send_request(connection *c)
{
    c->got = 0;
    for (size_t sent = 0; sent < request_len;) {
        int r = mbedtls_ssl_write(
            &c->ssl, (const unsigned char *)request + sent, request_len - sent);
        if (r < 0) {
            bench_die("peer_bare: write failed"); /* never blocks: too small */
        }
        sent += (size_t)r;
    }
}

/* The length of the reply in the buffer: head and Content-Length. */
static size_t measure_reply(size_t len)
{
    const char *end, *field;
    reply[len < sizeof reply ? len : sizeof reply - 1] = '\0';
    end = strstr(reply, "\r\n\r\n");
    field = strstr(reply, "Content-Length: ");
    if (end == NULL || field == NULL ||
        strncmp(reply, "HTTP/1.1 200 ", 13) != 0) {
        bench_die("peer_bare: not the reply that was expected");
    }
    return (size_t)(end - reply) + 4 + (size_t)atoll(field + 16);
}

/* True when the reply is whole. */
static bool read_reply(connection *c)
{
    while (reply_len == 0 || c->got < reply_len) {
        int r = mbedtls_ssl_read(&c->ssl, (unsigned char *)reply + c->got,
                                 sizeof reply - c->got);
        if (r == MBEDTLS_ERR_SSL_WANT_READ) {
            return false;
        }
        if (r <= 0) {
            bench_die("peer_bare: read failed");
        }
        c->got += (size_t)r;
        if (reply_len == 0) {
            reply_len = measure_reply(c->got);
        }
    }
    return true;
}

/* The handshake alone, on a connection whose socket polls by itself. */
static void finish_handshake(connection *c, int epoll_fd)
{
    struct epoll_event event;
    int r;
    while ((r = mbedtls_ssl_handshake(&c->ssl)) != 0) {
        if (r != MBEDTLS_ERR_SSL_WANT_READ && r != MBEDTLS_ERR_SSL_WANT_WRITE) {
            bench_die("peer_bare: handshake failed");
        }
        epoll_wait(epoll_fd, &event, 1, 1000);
    }
    c->open = true;
}

typedef struct loop {
    int epoll_fd;
    int64_t unsent, left;
    bench_figures figures;
} loop;

/* Goes on as far as it can; once idle, the connection takes a request. */
static void step(loop *l, connection *c)
{
    if (!c->open) {
        int r = mbedtls_ssl_handshake(&c->ssl);
        if (r == MBEDTLS_ERR_SSL_WANT_READ) {
            return;
        }
        if (r != 0) {
            bench_die("peer_bare: handshake failed");
        }
        c->open = true;
        l->figures.resumed += c->verified == 0;
    } else if (read_reply(c)) {
        l->left--;
        l->figures.answers++;
    } else {
        return;
    }
    if (!c->used || l->unsent > 0) {
        l->unsent -= c->used;
        c->used = true;
        send_request(c);
    }
}

static void drive(loop *l)
{
    struct epoll_event events[128];
    while (l->left > 0) {
        int n = epoll_wait(l->epoll_fd, events, 128, -1);
        for (int i = 0; i < n; i++) {
            step(l, (connection *)events[i].data.ptr);
        }
    }
}

/* What ours sets: TLS 1.2, x25519 first, AEAD suites. */
static void configure(mbedtls_ssl_config *config, mbedtls_x509_crt *ca,
                      mbedtls_ctr_drbg_context *drbg)
{
    static const int suites[] = {0xC02B, 0xC02F, 0xC02C, 0xC030,
                                 0xCCA9, 0xCCA8, 0};
    static const mbedtls_ecp_group_id curves[] = {
        MBEDTLS_ECP_DP_CURVE25519, MBEDTLS_ECP_DP_SECP256R1,
        MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_NONE};
    mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_CLIENT,
                                MBEDTLS_SSL_TRANSPORT_STREAM,
                                MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(config, ca, NULL);
    mbedtls_ssl_conf_rng(config, mbedtls_ctr_drbg_random, drbg);
    mbedtls_ssl_conf_min_version(config, 3, 3);
    mbedtls_ssl_conf_ciphersuites(config, suites);
    mbedtls_ssl_conf_curves(config, curves);
}

int main(int argc, char **argv)
{
    bench_options options = bench_options_parse(argc, argv);
    size_t n = (size_t)(options.workers < options.requests ? options.workers
                                                           : options.requests);
    connection *connections = (connection *)calloc(n, sizeof *connections);
    loop l = {epoll_create1(EPOLL_CLOEXEC), 0, 0, {0, 0, 0}};
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    mbedtls_ssl_config config;
    mbedtls_ssl_session session;
    mbedtls_x509_crt ca;
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&drbg);
    mbedtls_ssl_config_init(&config);
    mbedtls_ssl_session_init(&session);
    mbedtls_x509_crt_init(&ca);
    if (connections == NULL || l.epoll_fd < 0 ||
        mbedtls_ctr_drbg_seed(&drbg, mbedtls_entropy_func, &entropy, NULL, 0) !=
            0 ||
        mbedtls_x509_crt_parse_file(&ca, options.ca_file) != 0) {
        bench_die("peer_bare: set-up failed");
    }
    configure(&config, &ca, &drbg);
    if (options.request_file != NULL) {
        load_request(options.request_file);
    } else {
        make_request(&options);
    }
    open_connection(&connections[0], &config, NULL, options.port, l.epoll_fd);
    finish_handshake(&connections[0], l.epoll_fd);
    mbedtls_ssl_get_session(&connections[0].ssl, &session);
    l.unsent = options.requests - (int64_t)n;
    l.left = options.requests;
    connections[0].used = true;
    send_request(&connections[0]);
    for (size_t i = 1; i < n; i++) {
        open_connection(&connections[i], &config, &session, options.port,
                        l.epoll_fd);
        step(&l, &connections[i]);
    }
    l.figures.connections = (int64_t)n;
    drive(&l);
    bench_figures_print(&l.figures);
    for (size_t i = 0; i < n; i++) {
        mbedtls_ssl_close_notify(&connections[i].ssl);
        mbedtls_ssl_free(&connections[i].ssl);
        close(connections[i].fd);
    }
    mbedtls_ssl_session_free(&session);
    mbedtls_ssl_config_free(&config);
    mbedtls_x509_crt_free(&ca);
    mbedtls_ctr_drbg_free(&drbg);
    mbedtls_entropy_free(&entropy);
    free(connections);
    close(l.epoll_fd);
    return 0;
}
