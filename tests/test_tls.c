/* TLS of the stream layer: what must be refused, what must work, sessions.
 * Servers: "openssl s_server" on a port that the kernel chooses, an mbedTLS
 * server in this process where many connections are needed at once, and a
 * transport that damages what passes. The certificates come from pki.sh. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#define GPTNER_FAULT_INJECTION
#include "gptner.h"

#include <setjmp.h>
#include <cmocka.h>

#include <mbedtls/ssl_cache.h>
#include <mbedtls/ssl_ticket.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

/* An atomic sum; the header itself needs none. */
#define test_atomic_add(a, n) \
    __atomic_add_fetch(&(a)->value, (n), __ATOMIC_SEQ_CST)

/* An expectation by version: 2.28, 3.6, 4.x. */
#if MBEDTLS_VERSION_NUMBER < 0x03000000
#define BY_VERSION(v2, v3, v4) (v2)
#elif MBEDTLS_VERSION_NUMBER < 0x04000000
#define BY_VERSION(v2, v3, v4) (v3)
#else
#define BY_VERSION(v2, v3, v4) (v4)
#endif

#define CERTIFICATE GPTNER_ERR_CERTIFICATE
#define TLS         GPTNER_ERR_TLS
#define NAME        "api.example.test"

/* test_tls_lock.c wants only the tests with many connections. */
#ifndef TEST_TLS_MANY
#define TEST_TLS_MANY 0
#endif

static char pki[64]; /* the folder of certificates */

/* --- faults: the n-th call of a kind fails --- */

static gpn_atomic fault_kind;
static gpn_atomic fault_at;    /* 0: never */
static gpn_atomic fault_count; /* calls of that kind */

int gptner_fault(int kind)
{
    return kind == gpn_atomic_get(&fault_kind) &&
           test_atomic_add(&fault_count, 1) == gpn_atomic_get(&fault_at);
}

static void fault_set(int kind, int at)
{
    gpn_atomic_set(&fault_kind, kind);
    gpn_atomic_set(&fault_count, 0);
    gpn_atomic_set(&fault_at, at);
}

/* --- openssl s_server --- */

typedef struct server {
    pid_t pid;
    int port;
    FILE *out;
} server;

static void serve(server *v, const char *args)
{
    char text[1024];
    char *argv[64];
    int argc = 0;
    int ends[2];
    char *word;
    snprintf(text, sizeof text,
             "openssl s_server -accept 127.0.0.1:0 -rev -no_dhe %s", args);
    for (word = strtok(text, " "); word != NULL; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    assert_int_equal(pipe(ends), 0);
    v->pid = fork();
    assert_true(v->pid >= 0);
    if (v->pid == 0) {
        if (chdir(pki) == 0 && dup2(ends[1], 1) >= 0 &&
            freopen("server.log", "a", stderr) != NULL) {
            close(ends[0]);
            execvp(argv[0], argv);
        }
        _exit(127);
    }
    close(ends[1]);
    v->out = fdopen(ends[0], "r");
    v->port = 0;
    while (v->port == 0 && fgets(text, sizeof text, v->out) != NULL) {
        if (strncmp(text, "ACCEPT ", 7) == 0) {
            v->port = atoi(strrchr(text, ':') + 1);
        }
    }
    if (v->port == 0) {
        fail_msg("openssl s_server %s did not start, see %s/server.log", args,
                 pki);
    }
}

static void serve_end(server *v)
{
    fclose(v->out);
    kill(v->pid, SIGKILL);
    waitpid(v->pid, NULL, 0);
}

/* --- a client --- */

typedef struct client {
    gpn_env env;
    gpn_poller poller;
    gpn_resolver *resolver;
    gpn_tls *tls;
    const gptner_transport *transport;
    gpn_peer peer; /* of the latest connection */
    int opened;
} client;

static const char *in_pki(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", pki, name);
    return path;
}

static void client_start(client *c, const gpn_tls_config *given)
{
    gpn_tls_config cfg;
    gptner_error err;
    memset(c, 0, sizeof *c);
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_file = in_pki("ca.pem");
    assert_true(gpn_env_init(&c->env, NULL, NULL));
    assert_true(gpn_poller_init(&c->poller, &c->env));
    assert_int_equal(gpn_resolver_new(&c->env, &c->resolver, &err), 0);
    assert_int_equal(
        gpn_tls_new(&c->env, given != NULL ? given : &cfg, &c->tls, &err), 0);
    assert_true(gpn_bell_add(gpn_resolver_bell(c->resolver), &c->poller));
}

static void client_end(client *c)
{
    gpn_bell_remove(gpn_resolver_bell(c->resolver), &c->poller);
    gpn_tls_free(c->tls);
    gpn_resolver_free(c->resolver);
    gpn_poller_deinit(&c->poller);
}

static void pause_for(client *c, const gpn_stream *s)
{
    gpn_event events[8];
    int64_t now = gpn_clock_ms(&c->env);
    int64_t until = now + 10000;
    if (s->wake_at < until) {
        until = s->wake_at;
    }
    if (!gpn_stream_pending(s)) {
        gpn_poller_wait(&c->poller, now, until, events, 8);
    }
}

/* Connect and shake hands, again if the stream asks for it. */
static gpn_io client_connect(client *c, gpn_stream *s, gptner_error *err)
{
    int64_t end = gpn_clock_ms(&c->env) + 10000;
    gpn_io io;
    memset(err, 0, sizeof *err);
    do {
        gpn_stream_close(s);
        c->opened++;
        if (gpn_stream_open(s, &c->peer, c->resolver, c->tls, c->transport,
                            err) != GPTNER_OK) {
            return GPN_IO_FAILED;
        }
        for (;;) {
            int64_t now = gpn_clock_ms(&c->env);
            assert_true(now < end);
            io = gpn_stream_connect(s, now, err);
            if (io == GPN_IO_DONE || io == GPN_IO_FAILED) {
                break;
            }
            pause_for(c, s);
        }
        if (io == GPN_IO_DONE) {
            io = gpn_stream_start_tls(s, err);
        }
        while (io != GPN_IO_FAILED) {
            int64_t now = gpn_clock_ms(&c->env);
            assert_true(now < end);
            io = gpn_stream_handshake(s, now, err);
            if (io == GPN_IO_DONE) {
                return io;
            }
            if (io != GPN_IO_FAILED) {
                pause_for(c, s);
            }
        }
    } while (s->retry_connect);
    return io;
}

static void set_peer(client *c, int port, const char *name)
{
    memset(&c->peer, 0, sizeof c->peer);
    c->peer.host = "127.0.0.1";
    c->peer.port = port;
    c->peer.name = name;
    c->peer.tls = true;
}

static gpn_io send_all(client *c, gpn_stream *s, const char *text,
                       gptner_error *err)
{
    size_t len = strlen(text);
    while (len > 0) {
        size_t sent = 0;
        gpn_io io = gpn_stream_send(s, text, len, &sent, err);
        if (io == GPN_IO_FAILED) {
            return io;
        }
        if (io != GPN_IO_DONE) {
            pause_for(c, s);
        }
        text += sent;
        len -= sent;
    }
    return GPN_IO_DONE;
}

/* Receive up to a line's end, or the stream's. */
static gpn_io receive_line(client *c, gpn_stream *s, char *line, size_t cap,
                           gptner_error *err)
{
    size_t len = 0;
    line[0] = '\0';
    while (len + 1 < cap && strchr(line, '\n') == NULL) {
        size_t got = 0;
        gpn_io io = gpn_stream_recv(s, line + len, cap - 1 - len, &got, err);
        if (io == GPN_IO_EOF || io == GPN_IO_FAILED) {
            return io;
        }
        if (io != GPN_IO_DONE) {
            pause_for(c, s);
        }
        len += got;
        line[len] = '\0';
    }
    return GPN_IO_DONE;
}

/* One line there and back; s_server -rev reverses it. */
static void assert_answers(client *c, gpn_stream *s)
{
    gptner_error err;
    char line[64];
    memset(&err, 0, sizeof err);
    assert_int_equal(send_all(c, s, "hello\n", &err), GPN_IO_DONE);
    assert_int_equal(receive_line(c, s, line, sizeof line, &err), GPN_IO_DONE);
    assert_string_equal(line, "olleh\n");
}

/* --- tables of cases --- */

typedef struct tls_case {
    const char *what;
    const char *server; /* arguments; {CERT KEY CHAIN} or raw */
    const char *name;   /* NULL: NAME */
    gptner_status status;
    const char *text; /* in the message; NULL: not looked at */
} tls_case;

#define SERVER(cert, key, chain) \
    "-cert " cert ".pem -key " key ".key -cert_chain " chain ".pem"
#define ISSUED(cert) SERVER(cert, "ec", "inter")
#define SEC0         " -cipher ALL:@SECLEVEL=0"

static void run_case(client *c, const tls_case *k)
{
    gptner_error err;
    gpn_stream s;
    server v;
    gpn_io io;
    serve(&v, k->server);
    gpn_stream_init(&s, &c->env, &c->poller, &s);
    set_peer(c, v.port, k->name != NULL ? k->name : NAME);
    io = client_connect(c, &s, &err);
    if (k->status == GPTNER_OK) {
        if (io != GPN_IO_DONE) {
            fail_msg("%s: %s", k->what, err.message);
        }
        assert_answers(c, &s);
    } else if (io != GPN_IO_FAILED || err.status != k->status) {
        fail_msg("%s: status %s, expected %s: %s", k->what,
                 gptner_status_name(err.status), gptner_status_name(k->status),
                 err.message);
    } else if (k->text != NULL && strstr(err.message, k->text) == NULL) {
        fail_msg("%s: no \"%s\" in: %s", k->what, k->text, err.message);
    }
    gpn_stream_close(&s);
    serve_end(&v);
}

static void run_cases(const tls_case *cases, size_t n)
{
    client c;
    size_t i;
    client_start(&c, NULL);
    for (i = 0; i < n; i++) {
        run_case(&c, &cases[i]);
    }
    client_end(&c);
}

#define RUN(cases) run_cases(cases, sizeof(cases) / sizeof((cases)[0]))

static void certificates_out_of_their_time_are_refused(void **state)
{
    static const tls_case cases[] = {
        {"expired leaf", ISSUED("expired"), NULL, CERTIFICATE, "has expired"},
        {"expired intermediate", SERVER("by_expired", "ec", "inter_expired"),
         NULL, CERTIFICATE, "has expired"},
        {"not yet valid", ISSUED("future"), NULL, CERTIFICATE, "not valid yet"},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

static void names_are_compared_as_rfc_9525_says(void **state)
{
    static const char text[] = "is for another name";
    static const tls_case cases[] = {
        {"the name", ISSUED("good"), NULL, GPTNER_OK, NULL},
        {"upper case", ISSUED("upper"), NULL, GPTNER_OK, NULL},
        {"wildcard", ISSUED("good"), "a.wild.test", GPTNER_OK, NULL},
        {"wrong name", ISSUED("other"), NULL, CERTIFICATE, text},
        {"apex", ISSUED("good"), "wild.test", CERTIFICATE, text},
        {"two labels", ISSUED("good"), "a.b.wild.test", CERTIFICATE, text},
        {"inner", ISSUED("inner_wildcard"), NULL, CERTIFICATE, text},
        {"partial", ISSUED("partial_wildcard"), NULL, CERTIFICATE, text},
        {"*.tld", ISSUED("tld_wildcard"), "example.test", CERTIFICATE, text},
        {"NUL", ISSUED("nul_name"), NULL, CERTIFICATE, text},
        {"CN, not SAN", ISSUED("cn_not_san"), NULL, CERTIFICATE, text},
        {"CN only", ISSUED("cn_only"), NULL, CERTIFICATE, text},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

/* The dot goes into Host, but neither into SNI nor into what is compared. */
static void a_trailing_dot_of_the_host_is_no_part_of_its_name(void **state)
{
    tls_case k = {"trailing dot", ISSUED("good"), NULL, GPTNER_OK, NULL};
    gptner_error err;
    gpn_url url;
    client c;
    GPN_UNUSED(state);
    memset(&url, 0, sizeof url);
    client_start(&c, NULL);
    assert_int_equal(
        gpn_url_parse(&c.env, gptner_str_from("https://API.Example.test.:1/v1"),
                      &url, &err),
        GPTNER_OK);
    assert_string_equal(url.host, NAME ".");
    assert_string_equal(url.name, NAME);
    k.name = url.name;
    run_case(&c, &k);
    gpn_url_deinit(&url);
    client_end(&c);
}

static void addresses_match_address_entries_only(void **state)
{
    static const char text[] = "is for another name";
    static const char ip[] = "127.0.0.1";
    static const tls_case cases[] = {
        {"IPv4", ISSUED("good"), ip, GPTNER_OK, NULL},
        {"IPv6", ISSUED("good"), "::1", GPTNER_OK, NULL},
        {"another IPv6", ISSUED("good"), "::2", CERTIFICATE, text},
        {"another IPv4", ISSUED("other"), ip, CERTIFICATE, text},
        {"dNSName", ISSUED("ip_as_dns"), ip, CERTIFICATE, text},
        {"wildcard", ISSUED("ip_wildcard"), ip, CERTIFICATE, text},
        {"CN only", ISSUED("cn_only"), ip, CERTIFICATE, text},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

static void chains_must_lead_to_a_trusted_root(void **state)
{
    static const char text[] = "not signed by a trusted CA";
    static const tls_case cases[] = {
        {"RSA", SERVER("good_rsa", "rsa", "inter_rsa") " -tls1_2", NULL,
         GPTNER_OK, NULL},
        {"self-signed", "-cert self_signed.pem -key ec.key", NULL, CERTIFICATE,
         text},
        {"unknown root", "-cert by_stranger.pem -key ec.key", NULL, CERTIFICATE,
         text},
        {"unknown root, sent", SERVER("by_stranger", "ec", "stranger"), NULL,
         CERTIFICATE, text},
        {"look-alike root", SERVER("by_lookalike", "ec", "lookalike"), NULL,
         CERTIFICATE, text},
        {"no intermediate", "-cert good.pem -key ec.key", NULL, CERTIFICATE,
         text},
        {"wrong intermediate", SERVER("good", "ec", "inter_stranger"), NULL,
         CERTIFICATE, text},
        {"leaf as CA", SERVER("by_leaf", "ec", "good"), NULL, CERTIFICATE,
         text},
        {"no keyCertSign", SERVER("by_no_sign", "ec", "inter_no_sign"), NULL,
         CERTIFICATE, text},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

static void a_path_longer_than_allowed_is_refused(void **state)
{
    static const tls_case cases[] = {
        {"path length", SERVER("by_below", "ec", "two"), NULL, CERTIFICATE,
         "not signed by a trusted CA"},
    };
    char command[256];
    GPN_UNUSED(state);
    snprintf(command, sizeof command,
             "cd %s && cat inter_below.pem inter_zero.pem > two.pem", pki);
    assert_int_equal(system(command), 0);
    RUN(cases);
}

static void weak_certificates_are_refused(void **state)
{
    static const char hash[] = "weak signature hash";
    static const char key[] = "weak key";
    static const tls_case cases[] = {
        {"SHA-1", ISSUED("sha1") SEC0, NULL, CERTIFICATE, hash},
        {"MD5", SERVER("md5", "rsa", "inter_rsa") SEC0 " -tls1_2", NULL,
         CERTIFICATE, BY_VERSION(hash, hash, NULL)},
        {"SHA-1 above", SERVER("by_sha1", "ec", "inter_sha1") SEC0, NULL,
         CERTIFICATE, hash},
        {"RSA-1024", SERVER("weak", "weak", "inter") SEC0 " -tls1_2", NULL,
         CERTIFICATE, key},
        {"RSA-1024 above", SERVER("by_weak", "ec", "inter_weak") SEC0, NULL,
         CERTIFICATE, key},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

static void certificates_for_something_else_are_refused(void **state)
{
    static const tls_case cases[] = {
        {"for clients", ISSUED("for_clients"), NULL, CERTIFICATE,
         "not meant for a server"},
        {"no digitalSignature",
         SERVER("no_signing", "rsa", "inter_rsa") " -tls1_2", NULL, CERTIFICATE,
         "not meant for this key use"},
        {"unknown critical extension", ISSUED("unknown_critical"), NULL,
         CERTIFICATE, "cannot be used"},
        {"critical name constraints, kept",
         SERVER("by_critical", "ec", "inter_critical"), NULL, CERTIFICATE,
         NULL},
        {"critical name constraints, violated",
         SERVER("by_violated", "ec", "inter_violated"), NULL, CERTIFICATE,
         NULL},
        /* mbedTLS does not look at them */
        {"name constraints", SERVER("by_limited", "ec", "inter_limited"), NULL,
         GPTNER_OK, NULL},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

static void old_protocols_and_ciphers_are_refused(void **state)
{
    static const tls_case cases[] = {
        {"TLS 1.0", ISSUED("good") " -tls1" SEC0, NULL, TLS, NULL},
        {"TLS 1.1", ISSUED("good") " -tls1_1" SEC0, NULL, TLS, NULL},
        {"NULL cipher", ISSUED("good") " -tls1_2 -cipher NULL:@SECLEVEL=0",
         NULL, TLS, NULL},
        {"CBC", ISSUED("good") " -tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256",
         NULL, TLS, NULL},
        {"static RSA",
         SERVER("good_rsa", "rsa",
                "inter_rsa") " -tls1_2 -cipher AES128-GCM-SHA256",
         NULL, TLS, NULL},
        {"h2 only", ISSUED("good") " -alpn h2", NULL, TLS, "refused"},
        {"http/1.1 by ALPN", ISSUED("good") " -alpn h2,http/1.1", NULL,
         GPTNER_OK, NULL},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

static void versions_and_signatures_that_differ_by_mbedtls(void **state)
{
    static const tls_case cases[] = {
        {"TLS 1.2, PSS preferred",
         SERVER("good_rsa", "rsa",
                "inter_rsa") " -tls1_2 -sigalgs RSA-PSS+SHA256:RSA+SHA256 "
                             "-serverpref",
         NULL, GPTNER_OK, NULL},
        {"TLS 1.2, PSS only",
         SERVER("good_rsa", "rsa",
                "inter_rsa") " -tls1_2 -sigalgs RSA-PSS+SHA256",
         NULL, BY_VERSION(TLS, TLS, GPTNER_OK), NULL},
        {"TLS 1.3 only", ISSUED("good") " -tls1_3", NULL,
         BY_VERSION(TLS, GPTNER_OK, GPTNER_OK), NULL},
        {"TLS 1.2 only", ISSUED("good") " -tls1_2", NULL, GPTNER_OK, NULL},
        {"512-byte records", ISSUED("large") " -max_send_frag 512", NULL,
         BY_VERSION(TLS, GPTNER_OK, GPTNER_OK), NULL},
        {"10 KB certificate", ISSUED("large"), NULL, GPTNER_OK, NULL},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

static void a_certificate_message_beyond_16_kb_is_refused(void **state)
{
    static const tls_case cases[] = {
        {"20 KB certificate", ISSUED("too_large"), NULL, GPTNER_ERR_TLS, NULL},
    };
    GPN_UNUSED(state);
    RUN(cases);
}

/* --- where CA certificates come from --- */

static void assert_load(const gpn_tls_config *cfg, gptner_status status,
                        const char *text)
{
    gptner_error err;
    client c;
    client_start(&c, cfg);
    memset(&err, 0, sizeof err);
    if (gpn_tls_load(c.tls, &err) != status) {
        fail_msg("not %s: %s", gptner_status_name(status), err.message);
    }
    if (text != NULL && strstr(err.message, text) == NULL) {
        fail_msg("no \"%s\" in: %s", text, err.message);
    }
    client_end(&c);
}

static void assert_ca_file(const char *name, gptner_status status,
                           const char *text)
{
    gpn_tls_config cfg;
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_file = in_pki(name);
    assert_load(&cfg, status, text);
}

static void a_ca_file_must_bring_a_certificate(void **state)
{
    GPN_UNUSED(state);
    assert_ca_file("ca.pem", GPTNER_OK, NULL);
    assert_ca_file("ca.der", GPTNER_OK, NULL);
    assert_ca_file("partly_bad.pem", GPTNER_OK, NULL);
    assert_ca_file("empty.pem", GPTNER_ERR_CA, "no usable certificate");
    assert_ca_file("ec.key", GPTNER_ERR_CA, "no usable certificate");
    assert_ca_file("missing.pem", GPTNER_ERR_CA, "missing.pem");
    assert_ca_file("missing.pem", GPTNER_ERR_CA, "ca_file");
    assert_ca_file("folder", GPTNER_ERR_CA, "folder");
}

static void a_ca_folder_and_ca_text_are_read(void **state)
{
    gpn_tls_config cfg;
    char data[4096];
    FILE *file = fopen(in_pki("root.pem"), "r");
    GPN_UNUSED(state);
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_dir = in_pki("folder");
    assert_load(&cfg, GPTNER_OK, NULL);
    cfg.ca_dir = in_pki("nowhere");
    assert_load(&cfg, GPTNER_ERR_CA, "ca_dir");
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_pem.len = fread(data, 1, sizeof data, file);
    cfg.ca_pem.ptr = data;
    fclose(file);
    data[cfg.ca_pem.len] = 'x'; /* not NUL-terminated */
    assert_load(&cfg, GPTNER_OK, NULL);
    cfg.ca_pem.len = 40;
    assert_load(&cfg, GPTNER_ERR_CA, "ca_pem");
}

static void the_environment_names_ca_certificates(void **state)
{
    gpn_tls_config cfg;
    char list[256];
    GPN_UNUSED(state);
    memset(&cfg, 0, sizeof cfg);
    setenv("SSL_CERT_FILE", in_pki("ca.pem"), 1);
    assert_load(&cfg, GPTNER_OK, NULL);
    setenv("SSL_CERT_FILE", "/nowhere/ca.pem", 1);
    assert_load(&cfg, GPTNER_ERR_CA, "/nowhere/ca.pem (from SSL_CERT_FILE)");
    unsetenv("SSL_CERT_FILE");
    snprintf(list, sizeof list, "/nowhere:%s", in_pki("folder"));
    setenv("SSL_CERT_DIR", list, 1);
    assert_load(&cfg, GPTNER_OK, NULL);
    setenv("SSL_CERT_DIR", "/nowhere:/never", 1);
    assert_load(&cfg, GPTNER_ERR_CA, "SSL_CERT_DIR");
    cfg.ca_file = in_pki("ca.pem"); /* goes before the environment */
    assert_load(&cfg, GPTNER_OK, NULL);
    unsetenv("SSL_CERT_DIR");
}

static void without_any_ca_the_error_names_what_was_tried(void **state)
{
    gptner_error err;
    client c;
    GPN_UNUSED(state);
    client_start(&c, NULL);
    gpn_tls_init_contexts(c.tls);
    fault_set(GPN_FAULT_TLS, 1);
    if (gpn_ca_load_system(c.tls, &err) != GPTNER_OK) {
        assert_int_equal(err.status, GPTNER_ERR_CA);
        assert_non_null(strstr(err.message, "/etc/ssl/certs"));
        assert_non_null(strstr(err.message, "SSL_CERT_FILE"));
    }
    fault_set(0, 0);
    gpn_tls_free_contexts(c.tls);
    client_end(&c);
}

/* --- client certificates, no verification --- */

static void assert_client_certificate(const char *cert, const char *key,
                                      const char *password,
                                      gptner_status status, const char *text)
{
    gpn_tls_config cfg;
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_file = in_pki("ca.pem");
    cfg.client_cert_file = cert != NULL ? in_pki(cert) : NULL;
    cfg.client_key_file = key != NULL ? in_pki(key) : NULL;
    cfg.client_key_password = password;
    assert_load(&cfg, status, text);
}

static void a_client_certificate_is_checked_when_it_is_read(void **state)
{
    GPN_UNUSED(state);
    assert_client_certificate("client.pem", "rsa.key", NULL, GPTNER_OK, NULL);
    assert_client_certificate("client.pem", "locked.key", "secret", GPTNER_OK,
                              NULL);
    assert_client_certificate("client.pem", "locked.key", "wrong",
                              GPTNER_ERR_CONFIG, "client_key_password");
    assert_client_certificate("client.pem", "ec.key", NULL, GPTNER_ERR_CONFIG,
                              "does not belong");
    assert_client_certificate("client.pem", NULL, NULL, GPTNER_ERR_CONFIG,
                              "go together");
    assert_client_certificate("missing.pem", "rsa.key", NULL, GPTNER_ERR_FILE,
                              "missing.pem");
    assert_client_certificate("client.pem", "missing.key", NULL,
                              GPTNER_ERR_FILE, "missing.key");
    assert_client_certificate("empty.pem", "rsa.key", NULL, GPTNER_ERR_CONFIG,
                              "cannot be parsed");
}

static void a_server_that_asks_gets_the_client_certificate(void **state)
{
    static const char args[] = ISSUED("good") " -Verify 2 -CAfile ca.pem "
                                              "-verify_return_error";
    gpn_tls_config cfg;
    gptner_error err;
    gpn_stream s;
    char line[64];
    server v;
    client c;
    GPN_UNUSED(state);
    serve(&v, args);
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_file = in_pki("ca.pem");
    cfg.client_cert_file = in_pki("client.pem");
    cfg.client_key_file = in_pki("rsa.key");
    client_start(&c, &cfg);
    gpn_stream_init(&s, &c.env, &c.poller, &s);
    set_peer(&c, v.port, NAME);
    assert_int_equal(client_connect(&c, &s, &err), GPN_IO_DONE);
    assert_answers(&c, &s);
    gpn_stream_close(&s);
    client_end(&c);
    /* without one: refused, under TLS 1.3 only when bytes are read */
    client_start(&c, NULL);
    gpn_stream_init(&s, &c.env, &c.poller, &s);
    set_peer(&c, v.port, NAME);
    if (client_connect(&c, &s, &err) == GPN_IO_DONE) {
        send_all(&c, &s, "hello\n", &err);
        memset(&err, 0, sizeof err);
        assert_int_equal(receive_line(&c, &s, line, sizeof line, &err),
                         GPN_IO_FAILED);
    }
    assert_int_equal(err.status, TLS);
    gpn_stream_close(&s);
    client_end(&c);
    serve_end(&v);
}

static void verification_can_be_switched_off(void **state)
{
    gpn_tls_config cfg;
    gptner_error err;
    gpn_stream s;
    server v;
    client c;
    GPN_UNUSED(state);
    serve(&v, "-cert self_signed.pem -key ec.key");
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_file = "/not/even/read";
    cfg.insecure_skip_verify = true;
    client_start(&c, &cfg);
    gpn_stream_init(&s, &c.env, &c.poller, &s);
    set_peer(&c, v.port, "whatever.test");
    assert_int_equal(client_connect(&c, &s, &err), GPN_IO_DONE);
    assert_answers(&c, &s);
    gpn_stream_close(&s);
    client_end(&c);
    serve_end(&v);
}

static void a_clock_at_1970_is_named(void **state)
{
    char text[200];
    client c;
    gpn_stream s;
    GPN_UNUSED(state);
    client_start(&c, NULL);
    gpn_stream_init(&s, &c.env, NULL, NULL);
    assert_non_null(strstr(
        gpn_tls_flags_text(&s, MBEDTLS_X509_BADCERT_FUTURE, text, sizeof text),
        "check the server or this machine's clock"));
    assert_string_equal(text, "certificate is not valid yet");
    gpn_tls_flags_text(
        &s, MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_CN_MISMATCH,
        text, sizeof text);
    assert_string_equal(text, "certificate is for another name, has expired");
    client_end(&c);
}

/* --- a transport that damages what passes --- */

typedef struct damage {
    int fd;
    size_t seen;     /* bytes received */
    size_t stop_at;  /* then the end of the stream */
    size_t reset_at; /* then an error */
    size_t flip_at;  /* this byte is altered; each 0: never */
    size_t late_stop, late_reset, late_flip; /* from the handshake's end */
    size_t piece;                            /* received at most at a time */
    size_t sent_piece;
    const char *canned; /* instead of the server */
    size_t canned_len;
    bool silent;
} damage;

static damage hurt; /* one connection at a time */

static int hurt_connect(const char *host, int port, int timeout_ms, void **conn,
                        void *user)
{
    gpn_addr addr;
    GPN_UNUSED(timeout_ms);
    GPN_UNUSED(user);
    hurt.fd = -1;
    hurt.seen = 0;
    *conn = &hurt;
    if (hurt.canned != NULL || hurt.silent) {
        return 0;
    }
    if (!gpn_addr_parse(host, port, &addr)) {
        return -1;
    }
    hurt.fd = socket(addr.ss.ss_family, SOCK_STREAM, 0);
    return connect(hurt.fd, (struct sockaddr *)&addr.ss, addr.len);
}

static int hurt_send(void *conn, const char *data, size_t len, int timeout_ms)
{
    GPN_UNUSED(conn);
    GPN_UNUSED(timeout_ms);
    if (hurt.fd < 0) {
        return (int)len;
    }
    if (hurt.sent_piece > 0 && len > hurt.sent_piece) {
        len = hurt.sent_piece;
    }
    return (int)send(hurt.fd, data, len, MSG_NOSIGNAL);
}

static int hurt_recv(void *conn, char *data, size_t cap, int timeout_ms)
{
    struct pollfd p;
    size_t limit = hurt.stop_at > 0 ? hurt.stop_at : hurt.reset_at;
    ssize_t n;
    GPN_UNUSED(conn);
    if (limit > 0 && hurt.seen >= limit) {
        return hurt.stop_at > 0 ? 0 : -1;
    }
    if (hurt.silent && hurt.seen == hurt.canned_len) {
        return -2;
    }
    if (limit > 0 && cap > limit - hurt.seen) {
        cap = limit - hurt.seen;
    }
    if (hurt.piece > 0 && cap > hurt.piece) {
        cap = hurt.piece;
    }
    if (hurt.canned != NULL) {
        n = (ssize_t)(hurt.canned_len - hurt.seen);
        n = n > (ssize_t)cap ? (ssize_t)cap : n;
        memcpy(data, hurt.canned + hurt.seen, (size_t)n);
    } else {
        p.fd = hurt.fd;
        p.events = POLLIN;
        if (poll(&p, 1, timeout_ms) == 0) {
            return -2;
        }
        n = recv(hurt.fd, data, cap, 0);
    }
    if (hurt.flip_at > hurt.seen && hurt.flip_at <= hurt.seen + (size_t)n) {
        data[hurt.flip_at - hurt.seen - 1] ^= 1;
    }
    hurt.seen += n > 0 ? (size_t)n : 0;
    return (int)n;
}

static void hurt_close(void *conn)
{
    GPN_UNUSED(conn);
    if (hurt.fd >= 0) {
        close(hurt.fd);
    }
}

static const gptner_transport hurting = {hurt_connect, hurt_send, hurt_recv,
                                         hurt_close,   false,     NULL};

/* Connect through the transport; then a line there and back. */
static gpn_io hurt_exchange(client *c, gpn_stream *s, int port,
                            gptner_error *err)
{
    char line[64];
    gpn_io io;
    memset(err, 0, sizeof *err);
    gpn_stream_init(s, &c->env, &c->poller, s);
    set_peer(c, port, NAME);
    c->transport = &hurting;
    io = client_connect(c, s, err);
    hurt.stop_at = hurt.late_stop ? hurt.seen + hurt.late_stop : hurt.stop_at;
    hurt.reset_at =
        hurt.late_reset ? hurt.seen + hurt.late_reset : hurt.reset_at;
    hurt.flip_at = hurt.late_flip ? hurt.seen + hurt.late_flip : hurt.flip_at;
    if (io == GPN_IO_DONE) {
        io = send_all(c, s, "hello\n", err);
    }
    if (io == GPN_IO_DONE) {
        io = receive_line(c, s, line, sizeof line, err);
    }
    return io;
}

static void tls_runs_above_a_transport_of_the_users(void **state)
{
    gptner_error err;
    gpn_stream s;
    server v;
    client c;
    GPN_UNUSED(state);
    serve(&v, ISSUED("good"));
    client_start(&c, NULL);
    memset(&hurt, 0, sizeof hurt);
    assert_int_equal(hurt_exchange(&c, &s, v.port, &err), GPN_IO_DONE);
    gpn_stream_close(&s);
    hurt.piece = 1; /* byte by byte, both ways */
    hurt.sent_piece = 1;
    assert_int_equal(hurt_exchange(&c, &s, v.port, &err), GPN_IO_DONE);
    assert_true(gpn_stream_resumed(&s) || gpn_tls_is_13(s.secure));
    gpn_stream_close(&s);
    client_end(&c);
    serve_end(&v);
}

/* The stream ends at that byte of all, or of those after the handshake: by FIN
 * and by RST. */
static void assert_cut(client *c, int port, size_t at, size_t late)
{
    gptner_error err;
    gpn_stream s;
    int fin;
    for (fin = 0; fin < 2; fin++) {
        memset(&hurt, 0, sizeof hurt);
        *(fin ? &hurt.stop_at : &hurt.reset_at) = at;
        *(fin ? &hurt.late_stop : &hurt.late_reset) = late;
        assert_int_equal(hurt_exchange(c, &s, port, &err), GPN_IO_FAILED);
        assert_int_equal(err.status, GPTNER_ERR_CONNECTION_LOST);
        assert_int_equal(s.lost_by_fin, fin);
        gpn_stream_close(&s);
    }
}

static void a_stream_cut_anywhere_is_never_a_clean_end(void **state)
{
    gptner_error err;
    gpn_stream s;
    size_t whole, at;
    server v;
    client c;
    gpn_tls_config cfg;
    GPN_UNUSED(state);
    serve(&v, ISSUED("good") " -no_ticket -no_cache -num_tickets 0");
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_file = in_pki("ca.pem");
    cfg.no_session_reuse = true; /* each time nearly the same bytes */
    client_start(&c, &cfg);
    memset(&hurt, 0, sizeof hurt);
    assert_int_equal(hurt_exchange(&c, &s, v.port, &err), GPN_IO_DONE);
    gpn_stream_close(&s);
    whole = hurt.seen - 50; /* signatures differ in length */
    for (at = 1; at < whole; at += 1 + whole / 24) {
        assert_cut(&c, v.port, at, 0);
    }
    for (at = 1; at < 28; at += 3) { /* in the record of the answer */
        assert_cut(&c, v.port, 0, at);
    }
    memset(&hurt, 0, sizeof hurt);
    hurt.late_flip = 25;
    assert_int_equal(hurt_exchange(&c, &s, v.port, &err), GPN_IO_FAILED);
    assert_int_equal(err.status, TLS);
    assert_non_null(strstr(err.message, "damaged"));
    gpn_stream_close(&s);
    client_end(&c);
    serve_end(&v);
}

static void what_is_no_tls_is_named(void **state)
{
    static const char http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    static const char alert[] = "\x15\x03\x03\x00\x02\x02\x28";
    gptner_error err;
    gpn_stream s;
    client c;
    GPN_UNUSED(state);
    client_start(&c, NULL);
    memset(&hurt, 0, sizeof hurt);
    hurt.canned = http;
    hurt.canned_len = sizeof http - 1;
    assert_int_equal(hurt_exchange(&c, &s, 443, &err), GPN_IO_FAILED);
    assert_int_equal(err.status, TLS);
    assert_non_null(strstr(err.message, "plain HTTP"));
    gpn_stream_close(&s);
    memset(&hurt, 0, sizeof hurt);
    hurt.canned = alert;
    hurt.canned_len = sizeof alert - 1;
    assert_int_equal(hurt_exchange(&c, &s, 443, &err), GPN_IO_FAILED);
    assert_int_equal(err.status, TLS);
    assert_non_null(strstr(err.message, "refused"));
    gpn_stream_close(&s);
    client_end(&c);
}

static void a_silent_server_keeps_nobody_waiting(void **state)
{
    static const size_t heard[] = {0, 3};
    gptner_error err;
    gpn_stream s;
    client c;
    size_t i;
    GPN_UNUSED(state);
    client_start(&c, NULL);
    c.transport = &hurting;
    for (i = 0; i < 2; i++) {
        memset(&hurt, 0, sizeof hurt);
        hurt.silent = true;
        hurt.canned = "\x16\x03\x03";
        hurt.canned_len = heard[i];
        gpn_stream_init(&s, &c.env, &c.poller, &s);
        set_peer(&c, 443, NAME);
        assert_int_equal(
            gpn_stream_open(&s, &c.peer, c.resolver, c.tls, &hurting, &err), 0);
        assert_int_equal(gpn_stream_connect(&s, 1, &err), GPN_IO_DONE);
        assert_int_equal(gpn_stream_start_tls(&s, &err), GPN_IO_DONE);
        assert_int_equal(gpn_stream_handshake(&s, 1, &err), GPN_IO_WANT_READ);
        assert_int_equal(gpn_stream_handshake(&s, 2, &err), GPN_IO_WANT_READ);
        assert_int_equal(s.wake_at, 0); /* again, when it is our turn */
        gpn_stream_close(&s);
    }
    client_end(&c);
}

static void the_end_by_close_notify_is_clean(void **state)
{
    gptner_error err;
    gpn_stream s;
    char line[64];
    server v;
    client c;
    GPN_UNUSED(state);
    serve(&v, ISSUED("good"));
    client_start(&c, NULL);
    gpn_stream_init(&s, &c.env, &c.poller, &s);
    set_peer(&c, v.port, NAME);
    assert_int_equal(client_connect(&c, &s, &err), GPN_IO_DONE);
    assert_answers(&c, &s);
    assert_true(gpn_stream_alive(&s));
    send_all(&c, &s, "CLOSE\n", &err);
    assert_int_equal(receive_line(&c, &s, line, sizeof line, &err), GPN_IO_EOF);
    assert_false(gpn_stream_alive(&s));
    gpn_stream_close(&s);
    /* and a connection that the server ended while it was idle */
    assert_int_equal(client_connect(&c, &s, &err), GPN_IO_DONE);
    send_all(&c, &s, "CLOSE\n", &err);
    pause_for(&c, &s);
    while (gpn_stream_alive(&s)) { /* tickets may come first */
        pause_for(&c, &s);
    }
    gpn_stream_close(&s);
    client_end(&c);
    serve_end(&v);
}

/* --- sessions, one connection after the other --- */

/* Connect, a line there and back, close. Was the session resumed? */
static bool visit(client *c, int port, const char *name)
{
    gptner_error err;
    gpn_stream s;
    bool resumed;
    gpn_stream_init(&s, &c->env, &c->poller, &s);
    set_peer(c, port, name);
    if (client_connect(c, &s, &err) != GPN_IO_DONE) {
        fail_msg("%s", err.message);
    }
    assert_answers(c, &s);
    resumed = gpn_stream_resumed(&s);
    gpn_stream_close(&s);
    return resumed;
}

static void assert_resumes(const char *args, bool expected)
{
    server v;
    client c;
    int i;
    serve(&v, args);
    client_start(&c, NULL);
    assert_false(visit(&c, v.port, NAME));
    for (i = 0; i < 8; i++) {
        assert_int_equal(visit(&c, v.port, NAME), expected);
    }
    /* the key of the cache: another name is another server */
    assert_false(visit(&c, v.port, "a.wild.test"));
    assert_int_equal(c.tls->full, expected ? 2 : 10);
    assert_int_equal(c.tls->resumed, expected ? 8 : 0);
    client_end(&c);
    serve_end(&v);
}

static void sessions_are_resumed_by_ticket_and_by_id(void **state)
{
    GPN_UNUSED(state);
    assert_resumes(ISSUED("good") " -tls1_2", true);
    assert_resumes(ISSUED("good") " -tls1_2 -no_ticket", true);
    assert_resumes(ISSUED("good") " -tls1_2 -no_ticket -no_cache", false);
}

static void tickets_of_tls_1_3_are_resumed(void **state)
{
    GPN_UNUSED(state);
#ifdef GPN_TLS_13
    assert_resumes(ISSUED("good") " -tls1_3", true);
    assert_resumes(ISSUED("good") " -tls1_3 -num_tickets 1", true);
    assert_resumes(ISSUED("good") " -tls1_3 -num_tickets 0", false);
#else
    print_message("skip: no TLS 1.3 in this mbedTLS\n");
#endif
}

static void a_server_that_lost_its_ticket_key_is_no_problem(void **state)
{
    server first, second;
    client c;
    GPN_UNUSED(state);
    serve(&first, ISSUED("good"));
    serve(&second, ISSUED("good"));
    client_start(&c, NULL);
    assert_false(visit(&c, first.port, NAME));
    c.tls->hosts->port = second.port;
    assert_false(visit(&c, second.port, NAME));
    assert_true(visit(&c, second.port, NAME));
    client_end(&c);
    serve_end(&first);
    serve_end(&second);
}

static void a_session_never_opens_another_name(void **state)
{
    gptner_error err;
    gpn_stream s;
    server v;
    client c;
    GPN_UNUSED(state);
    serve(&v, ISSUED("good"));
    client_start(&c, NULL);
    assert_false(visit(&c, v.port, NAME));
    assert_true(visit(&c, v.port, NAME));
    gpn_stream_init(&s, &c.env, &c.poller, &s);
    set_peer(&c, v.port, "elsewhere.test");
    assert_int_equal(client_connect(&c, &s, &err), GPN_IO_FAILED);
    assert_int_equal(err.status, CERTIFICATE);
    gpn_stream_close(&s);
    c.peer.name = NAME;
    c.peer.proxy_host = "127.0.0.1"; /* another way: another key */
    c.peer.proxy_port = v.port;
    assert_int_equal(client_connect(&c, &s, &err), GPN_IO_DONE);
    assert_false(gpn_stream_resumed(&s));
    gpn_stream_close(&s);
    client_end(&c);
    serve_end(&v);
}

static void a_session_that_does_harm_is_dropped(void **state)
{
    GPN_UNUSED(state);
#ifdef GPN_TLS_13
    {
        server v;
        client c;
        serve(&v, ISSUED("good") " -tls1_3");
        client_start(&c, NULL);
        assert_false(visit(&c, v.port, NAME));
        c.opened = 0;
        /* as long as NAME; mbedTLS refuses to offer it for another name */
        memcpy(c.tls->hosts->name, "abcdef.wild.test", sizeof NAME);
        assert_false(visit(&c, v.port, "abcdef.wild.test"));
        assert_int_equal(c.opened, 2);
        assert_true(visit(&c, v.port, "abcdef.wild.test"));
        client_end(&c);
        serve_end(&v);
    }
#endif
}

/* --- a server for many connections: mbedTLS, a thread a connection --- */

enum { LOTS = 100 };

typedef struct lots_server {
    int fd;
    int port;
    gpn_tls *own; /* certificate, key, random numbers */
    mbedtls_ssl_config conf;
    mbedtls_ssl_cache_context cache;
    mbedtls_ssl_ticket_context tickets;
    size_t record; /* bytes; the answers are cut into such */
    pthread_t thread;
    pthread_t each[4 * LOTS];
    int count;
} lots_server;

typedef struct lots_conn {
    lots_server *server;
    int fd;
} lots_conn;

/* In builds without threading the server's calls take their turns as well. */
static int lots_send(void *ctx, const unsigned char *data, size_t len)
{
    int n;
    gpn_tls_leave();
    n = (int)send(*(int *)ctx, data, len, MSG_NOSIGNAL);
    gpn_tls_enter();
    return n;
}

static int lots_recv(void *ctx, unsigned char *data, size_t len)
{
    int n;
    gpn_tls_leave();
    n = (int)recv(*(int *)ctx, data, len, 0);
    gpn_tls_enter();
    return n;
}

/* Reverses lines until the client leaves. */
static void lots_talk(mbedtls_ssl_context *ssl, size_t record)
{
    unsigned char line[256];
    int n, i;
    while ((n = mbedtls_ssl_read(ssl, line, sizeof line)) > 1) {
        for (i = 0; i < (n - 1) / 2; i++) {
            unsigned char kept = line[i];
            line[i] = line[n - 2 - i];
            line[n - 2 - i] = kept;
        }
        for (i = 0; i < n;) {
            size_t len = (size_t)(n - i);
            int r = mbedtls_ssl_write(
                ssl, line + i, record > 0 && len > record ? record : len);
            if (r <= 0) {
                return;
            }
            i += r;
        }
    }
}

static void *lots_serve(void *arg)
{
    lots_conn *conn = (lots_conn *)arg;
    mbedtls_ssl_context ssl;
    gpn_tls_enter();
    mbedtls_ssl_init(&ssl);
    if (mbedtls_ssl_setup(&ssl, &conn->server->conf) == 0) {
        int r;
        mbedtls_ssl_set_bio(&ssl, &conn->fd, lots_send, lots_recv, NULL);
        do {
            r = mbedtls_ssl_handshake(&ssl);
        } while (r == MBEDTLS_ERR_SSL_WANT_READ ||
                 r == MBEDTLS_ERR_SSL_WANT_WRITE);
        if (r == 0) {
            lots_talk(&ssl, conn->server->record);
        }
    }
    mbedtls_ssl_free(&ssl);
    gpn_tls_leave();
    close(conn->fd);
    free(conn);
    return NULL;
}

static void *lots_accept(void *arg)
{
    lots_server *v = (lots_server *)arg;
    for (;;) {
        int one = 1;
        lots_conn *conn;
        int fd = accept(v->fd, NULL, NULL);
        if (fd < 0 || v->count >= 4 * LOTS) {
            return NULL;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn = (lots_conn *)malloc(sizeof *conn);
        conn->server = v;
        conn->fd = fd;
        pthread_create(&v->each[v->count++], NULL, lots_serve, conn);
    }
}

typedef enum lots_mode { BY_TICKET, BY_ID, NOT_AT_ALL } lots_mode;

static void lots_configure(lots_server *v, lots_mode mode, bool tls13)
{
    mbedtls_ssl_config *conf = &v->conf;
    assert_int_equal(mbedtls_ssl_config_defaults(conf, MBEDTLS_SSL_IS_SERVER,
                                                 MBEDTLS_SSL_TRANSPORT_STREAM,
                                                 MBEDTLS_SSL_PRESET_DEFAULT),
                     0);
    gpn_tls_set_versions(conf, !tls13);
    gpn_tls_set_groups(conf);
    mbedtls_ssl_conf_own_cert(conf, &v->own->own, &v->own->key);
    mbedtls_ssl_cache_init(&v->cache);
    mbedtls_ssl_ticket_init(&v->tickets);
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_ssl_conf_rng(conf, gpn_tls_random, v->own);
#endif
    if (mode == BY_ID) {
        mbedtls_ssl_conf_session_cache(conf, &v->cache, mbedtls_ssl_cache_get,
                                       mbedtls_ssl_cache_set);
    } else if (mode == BY_TICKET) {
#if MBEDTLS_VERSION_NUMBER < 0x04000000
        assert_int_equal(
            mbedtls_ssl_ticket_setup(&v->tickets, gpn_tls_random, v->own,
                                     MBEDTLS_CIPHER_AES_256_GCM, 86400),
            0);
#else
        assert_int_equal(mbedtls_ssl_ticket_setup(&v->tickets, PSA_ALG_GCM,
                                                  PSA_KEY_TYPE_AES, 256, 86400),
                         0);
#endif
        mbedtls_ssl_conf_session_tickets_cb(conf, mbedtls_ssl_ticket_write,
                                            mbedtls_ssl_ticket_parse,
                                            &v->tickets);
    }
}

static void lots_start(lots_server *v, client *keys, lots_mode mode, bool tls13)
{
    gpn_addr addr;
    socklen_t len = sizeof addr.ss;
    gpn_tls_config cfg;
    gptner_error err;
    memset(v, 0, sizeof *v);
    memset(&cfg, 0, sizeof cfg);
    cfg.ca_file = in_pki("ca.pem");
    cfg.client_cert_file = in_pki("chain.pem");
    cfg.client_key_file = in_pki("ec.key");
    client_start(keys, &cfg);
    assert_int_equal(gpn_tls_load(keys->tls, &err), 0);
    v->own = keys->tls;
    mbedtls_ssl_config_init(&v->conf);
    lots_configure(v, mode, tls13);
    assert_true(gpn_addr_parse("127.0.0.1", 0, &addr));
    v->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(v->fd, (struct sockaddr *)&addr.ss, addr.len), 0);
    assert_int_equal(listen(v->fd, 4 * LOTS), 0);
    getsockname(v->fd, (struct sockaddr *)&addr.ss, &len);
    v->port = ntohs(((struct sockaddr_in *)&addr.ss)->sin_port);
    assert_int_equal(pthread_create(&v->thread, NULL, lots_accept, v), 0);
}

/* All clients have closed. */
static void lots_end(lots_server *v, client *keys)
{
    int i;
    shutdown(v->fd, SHUT_RDWR);
    pthread_join(v->thread, NULL);
    close(v->fd);
    for (i = 0; i < v->count; i++) {
        pthread_join(v->each[i], NULL);
    }
    mbedtls_ssl_config_free(&v->conf);
    mbedtls_ssl_cache_free(&v->cache);
    mbedtls_ssl_ticket_free(&v->tickets);
    client_end(keys);
}

/* --- many connections at once --- */

enum { CONNECTING, SHAKING, SENDING, RECEIVING, DONE_, BROKEN };

typedef struct slot {
    gpn_stream stream;
    int state;
    char line[16];
    size_t len;
    gptner_error err;
} slot;

/* As the exchange does it: as far as it goes. */
static void slot_step(client *c, slot *k)
{
    gpn_io io = GPN_IO_DONE;
    while (io == GPN_IO_DONE && k->state < DONE_) {
        int64_t now = gpn_clock_ms(&c->env);
        size_t n = 0;
        switch (k->state) {
        case CONNECTING:
            io = gpn_stream_connect(&k->stream, now, &k->err);
            if (io == GPN_IO_DONE) {
                io = gpn_stream_start_tls(&k->stream, &k->err);
            }
            break;
        case SHAKING:
            io = gpn_stream_handshake(&k->stream, now, &k->err);
            break;
        case SENDING:
            io = gpn_stream_send(&k->stream, "hello\n", 6, &n, &k->err);
            break;
        default:
            io = gpn_stream_recv(&k->stream, k->line + k->len,
                                 sizeof k->line - k->len, &n, &k->err);
            k->len += n;
            if (k->len < 6) {
                k->state -= io == GPN_IO_DONE; /* more */
            }
            break;
        }
        k->state += io == GPN_IO_DONE;
    }
    if (io == GPN_IO_FAILED || io == GPN_IO_EOF) {
        k->state = BROKEN;
    }
}

/* n slots of one thread, until all are done. Nothing is closed. */
static void slots_run(client *c, slot *slots, int n)
{
    int64_t end = gpn_clock_ms(&c->env) + 200000;
    int left = n;
    int i;
    for (i = 0; i < n; i++) {
        gpn_stream_init(&slots[i].stream, &c->env, &c->poller, &slots[i]);
        if (gpn_stream_open(&slots[i].stream, &c->peer, c->resolver, c->tls,
                            NULL, &slots[i].err) != GPTNER_OK) {
            slots[i].state = BROKEN;
        }
        slot_step(c, &slots[i]);
    }
    while (left > 0) {
        gpn_event events[16];
        int64_t now = gpn_clock_ms(&c->env);
        int64_t until = end;
        bool woken = false;
        int got;
        if (now > end) {
            return;
        }
        for (i = 0, left = 0; i < n; i++) {
            if (slots[i].state < DONE_) {
                left++;
                until = slots[i].stream.wake_at < until
                            ? slots[i].stream.wake_at
                            : until;
            }
        }
        got =
            left > 0 ? gpn_poller_wait(&c->poller, now, until, events, 16) : 0;
        for (i = 0; i < got; i++) {
            woken = woken || events[i].tag == NULL;
            if (events[i].tag != NULL) {
                slot_step(c, (slot *)events[i].tag);
            }
        }
        now = gpn_clock_ms(&c->env);
        for (i = 0; i < n; i++) {
            if (woken || slots[i].stream.wake_at <= now) {
                slot_step(c, &slots[i]);
            }
        }
    }
}

typedef struct team {
    client *shared;
    client own;
    slot *slots;
    int n;
} team;

static void *team_run(void *arg)
{
    team *t = (team *)arg;
    slots_run(&t->own, t->slots, t->n);
    return NULL;
}

/* n connections at once, by so many threads; how many were resumed? */
static int lots_at_once(lots_server *v, int n, int threads, bool warm,
                        const char *why)
{
    slot *slots = (slot *)calloc((size_t)n, sizeof *slots);
    team teams[4];
    pthread_t ids[4];
    client c;
    int resumed = 0;
    int i;
    client_start(&c, NULL);
    if (warm) {
        visit(&c, v->port, NAME);
    }
    set_peer(&c, v->port, NAME);
    for (i = 0; i < threads; i++) {
        teams[i].own = c;
        teams[i].slots = slots + i * (n / threads);
        teams[i].n = n / threads;
        assert_true(gpn_poller_init(&teams[i].own.poller, &c.env));
        gpn_bell_add(gpn_resolver_bell(c.resolver), &teams[i].own.poller);
        assert_int_equal(pthread_create(&ids[i], NULL, team_run, &teams[i]), 0);
    }
    for (i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
    }
    for (i = 0; i < n; i++) {
        if (slots[i].state != DONE_) {
            fail_msg("%s, connection %d: state %d: %s", why, i, slots[i].state,
                     slots[i].err.message);
        }
        assert_memory_equal(slots[i].line, "olleh\n", 6);
        assert_int_equal(slots[i].stream.interest, GPN_POLL_IN);
        resumed += gpn_stream_resumed(&slots[i].stream);
        gpn_stream_close(&slots[i].stream);
    }
    assert_int_equal(c.tls->resumed, resumed);
    assert_int_equal(c.tls->full, n - resumed + warm);
    for (i = 0; i < threads; i++) {
        gpn_bell_remove(gpn_resolver_bell(c.resolver), &teams[i].own.poller);
        gpn_poller_deinit(&teams[i].own.poller);
    }
    client_end(&c);
    free(slots);
    return resumed;
}

static void assert_lots(int n, lots_mode mode, bool tls13, int threads,
                        const char *why)
{
    lots_server *v = (lots_server *)malloc(sizeof *v);
    client keys;
    int resumed;
    lots_start(v, &keys, mode, tls13);
    /* an mbedTLS server stores a session a little after it has told its id */
    resumed = lots_at_once(v, n, threads, mode == BY_ID, why);
    if (mode == NOT_AT_ALL ? resumed != 0 : resumed < n - 1) {
        fail_msg("%s: %d of %d resumed", why, resumed, n);
    }
    lots_end(v, &keys);
    free(v);
}

static void of_100_at_once_99_are_resumed(void **state)
{
    GPN_UNUSED(state);
    if (getenv("GPTNER_SLOW") != NULL) {
        /* The others wait for the scout 3 s at most: valgrind needs longer. */
        print_message("skip: GPTNER_SLOW, handshakes would take too long\n");
        skip();
    }
    assert_lots(LOTS, BY_TICKET, false, 1, "TLS 1.2, tickets, one thread");
    assert_lots(LOTS, BY_TICKET, false, 4, "TLS 1.2, tickets, four threads");
    assert_lots(LOTS, BY_ID, false, 4, "TLS 1.2, ids, four threads");
#ifdef GPN_TLS_13
    assert_lots(LOTS, BY_TICKET, true, 1, "TLS 1.3, one thread");
    assert_lots(LOTS, BY_TICKET, true, 4, "TLS 1.3, four threads");
#endif
}

static void where_nothing_is_resumed_all_are_served(void **state)
{
    GPN_UNUSED(state);
    assert_lots(20, NOT_AT_ALL, false, 2, "TLS 1.2, no sessions");
#ifdef GPN_TLS_13
    assert_lots(20, NOT_AT_ALL, true, 2, "TLS 1.3, no tickets");
#endif
}

static void every_byte_in_its_own_record_arrives(void **state)
{
    lots_server *v = (lots_server *)malloc(sizeof *v);
    client keys;
    client c;
    GPN_UNUSED(state);
    lots_start(v, &keys, BY_TICKET, true);
    v->record = 1;
    client_start(&c, NULL);
    visit(&c, v->port, NAME);
    client_end(&c);
    lots_end(v, &keys);
    free(v);
}

/* --- the scout --- */

static void the_others_wait_for_the_scout_but_not_for_ever(void **state)
{
    gptner_error err;
    gpn_stream s[4];
    client c;
    int i;
    GPN_UNUSED(state);
    client_start(&c, NULL);
    memset(&hurt, 0, sizeof hurt);
    hurt.silent = true;
    set_peer(&c, 443, NAME);
    for (i = 0; i < 4; i++) {
        gpn_stream_init(&s[i], &c.env, &c.poller, &s[i]);
        gpn_stream_open(&s[i], &c.peer, c.resolver, c.tls, &hurting, &err);
        assert_int_equal(gpn_stream_connect(&s[i], 1, &err), GPN_IO_DONE);
        assert_int_equal(gpn_stream_start_tls(&s[i], &err), GPN_IO_DONE);
        assert_int_equal(gpn_stream_handshake(&s[i], 1, &err),
                         i == 0 ? GPN_IO_WANT_READ : GPN_IO_WAIT);
    }
    assert_int_equal(s[1].wake_at, 1 + GPN_SCOUT_MS);
    assert_int_equal(gpn_stream_handshake(&s[1], GPN_SCOUT_MS, &err),
                     GPN_IO_WAIT);
    assert_int_equal(gpn_stream_handshake(&s[1], 1 + GPN_SCOUT_MS, &err),
                     GPN_IO_WANT_READ);
    /* the scout gives up: the next one takes its place */
    gpn_stream_close(&s[0]);
    assert_int_equal(gpn_stream_handshake(&s[2], 2, &err), GPN_IO_WANT_READ);
    assert_int_equal(gpn_stream_handshake(&s[3], 3, &err), GPN_IO_WAIT);
    for (i = 1; i < 4; i++) {
        gpn_stream_close(&s[i]);
    }
    client_end(&c);
}

static void hosts_that_are_remembered_have_a_limit(void **state)
{
    gpn_tls_host *hosts[GPN_TLS_HOST_MAX];
    client c;
    gpn_peer p;
    int i;
    GPN_UNUSED(state);
    client_start(&c, NULL);
    memset(&p, 0, sizeof p);
    p.name = NAME;
    for (i = 0; i < GPN_TLS_HOST_MAX; i++) {
        p.port = i + 1;
        hosts[i] = gpn_tls_host_take(c.tls, &p);
        assert_non_null(hosts[i]);
    }
    p.port = 1;
    assert_ptr_equal(gpn_tls_host_take(c.tls, &p), hosts[0]);
    p.port = 1000;
    assert_null(gpn_tls_host_take(c.tls, &p)); /* all are in use */
    hosts[3]->users = 0;
    assert_non_null(gpn_tls_host_take(c.tls, &p));
    assert_int_equal(c.tls->n_hosts, GPN_TLS_HOST_MAX);
    client_end(&c);
}

/* --- random numbers after a fork --- */

static void a_forked_child_draws_other_random_numbers(void **state)
{
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    unsigned char mine[16], its[16];
    gptner_error err;
    int ends[2];
    pid_t pid;
    client c;
    client_start(&c, NULL);
    assert_int_equal(gpn_tls_load(c.tls, &err), 0);
    assert_int_equal(pipe(ends), 0);
    pid = fork();
    if (pid == 0) {
        gpn_tls_random(c.tls, mine, sizeof mine);
        _exit(write(ends[1], mine, sizeof mine) != sizeof mine);
    }
    assert_int_equal(gpn_tls_random(c.tls, mine, sizeof mine), 0);
    assert_int_equal(read(ends[0], its, sizeof its), sizeof its);
    waitpid(pid, NULL, 0);
    assert_memory_not_equal(mine, its, sizeof mine);
    close(ends[0]);
    close(ends[1]);
    client_end(&c);
#endif
    GPN_UNUSED(state);
}

/* --- every call fails once --- */

/* A client's life with one connection. No leak (the sanitizers see to that),
 * and each failure has its status and its text. */
static void one_life(int port, int kind, int at)
{
    gpn_tls_config cfg;
    gptner_error err;
    client c;
    gpn_stream s;
    char line[64];
    gpn_io io = GPN_IO_FAILED;
    memset(&c, 0, sizeof c);
    memset(&cfg, 0, sizeof cfg);
    memset(&err, 0, sizeof err);
    cfg.ca_file = in_pki("ca.pem");
    cfg.client_cert_file = in_pki("client.pem");
    cfg.client_key_file = in_pki("rsa.key");
    assert_true(gpn_env_init(&c.env, NULL, NULL));
    assert_true(gpn_poller_init(&c.poller, &c.env));
    fault_set(kind, at);
    if (gpn_resolver_new(&c.env, &c.resolver, &err) == GPTNER_OK &&
        gpn_tls_new(&c.env, &cfg, &c.tls, &err) == GPTNER_OK) {
        gpn_stream_init(&s, &c.env, &c.poller, &s);
        set_peer(&c, port, NAME);
        io = client_connect(&c, &s, &err);
        if (io == GPN_IO_DONE) {
            io = send_all(&c, &s, "hello\n", &err);
        }
        if (io == GPN_IO_DONE) {
            io = receive_line(&c, &s, line, sizeof line, &err);
        }
        if (io == GPN_IO_DONE) {
            gpn_stream_alive(&s);
        }
        gpn_stream_close(&s);
    }
    gpn_tls_free(c.tls);
    gpn_resolver_free(c.resolver);
    gpn_poller_deinit(&c.poller);
    if (io != GPN_IO_DONE) {
        assert_int_not_equal(err.status, GPTNER_OK);
        assert_true(strlen(err.message) > 10);
    }
}

static void each_call_may_fail(void **state)
{
    static const int kinds[] = {GPN_FAULT_ALLOC, GPN_FAULT_FILE,
                                GPN_FAULT_SOCKET, GPN_FAULT_TLS,
                                GPN_FAULT_THREAD};
    lots_server *v = (lots_server *)malloc(sizeof *v);
    client keys;
    size_t i;
    GPN_UNUSED(state);
    lots_start(v, &keys, BY_TICKET, true);
    for (i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int at = 0;
        do {
            at++;
            one_life(v->port, kinds[i], at);
        } while (gpn_atomic_get(&fault_count) >= at && at < 200);
        fault_set(0, 0);
        assert_in_range(at, 2, 199);
    }
    lots_end(v, &keys);
    free(v);
}

/* --- set-up --- */

static int make_pki(void **state)
{
    char command[256];
    const char *script = getenv("GPTNER_PKI");
    GPN_UNUSED(state);
    signal(SIGPIPE, SIG_IGN);
    unsetenv("SSL_CERT_FILE");
    unsetenv("SSL_CERT_DIR");
    strcpy(pki, "/tmp/gptner-pki-XXXXXX");
    if (mkdtemp(pki) == NULL) {
        return -1;
    }
    snprintf(command, sizeof command,
             "sh %s %s >/dev/null && cd %s && "
             "cat good.pem inter.pem >chain.pem",
             script != NULL ? script : "tests/pki.sh", pki, pki);
    return system(command);
}

static int remove_pki(void **state)
{
    char command[128];
    GPN_UNUSED(state);
    snprintf(command, sizeof command, "rm -rf %s", pki);
    return system(command);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(certificates_out_of_their_time_are_refused),
        cmocka_unit_test(names_are_compared_as_rfc_9525_says),
        cmocka_unit_test(a_trailing_dot_of_the_host_is_no_part_of_its_name),
        cmocka_unit_test(addresses_match_address_entries_only),
        cmocka_unit_test(chains_must_lead_to_a_trusted_root),
        cmocka_unit_test(a_path_longer_than_allowed_is_refused),
        cmocka_unit_test(weak_certificates_are_refused),
        cmocka_unit_test(certificates_for_something_else_are_refused),
        cmocka_unit_test(old_protocols_and_ciphers_are_refused),
        cmocka_unit_test(versions_and_signatures_that_differ_by_mbedtls),
        cmocka_unit_test(a_certificate_message_beyond_16_kb_is_refused),
        cmocka_unit_test(a_ca_file_must_bring_a_certificate),
        cmocka_unit_test(a_ca_folder_and_ca_text_are_read),
        cmocka_unit_test(the_environment_names_ca_certificates),
        cmocka_unit_test(without_any_ca_the_error_names_what_was_tried),
        cmocka_unit_test(a_client_certificate_is_checked_when_it_is_read),
        cmocka_unit_test(a_server_that_asks_gets_the_client_certificate),
        cmocka_unit_test(verification_can_be_switched_off),
        cmocka_unit_test(a_clock_at_1970_is_named),
        cmocka_unit_test(what_is_no_tls_is_named),
        cmocka_unit_test(a_silent_server_keeps_nobody_waiting),
        cmocka_unit_test(the_end_by_close_notify_is_clean),
        cmocka_unit_test(a_stream_cut_anywhere_is_never_a_clean_end),
        cmocka_unit_test(a_server_that_lost_its_ticket_key_is_no_problem),
        cmocka_unit_test(a_session_never_opens_another_name),
        cmocka_unit_test(a_session_that_does_harm_is_dropped),
        cmocka_unit_test(the_others_wait_for_the_scout_but_not_for_ever),
        cmocka_unit_test(hosts_that_are_remembered_have_a_limit),
        cmocka_unit_test(a_forked_child_draws_other_random_numbers),
        cmocka_unit_test(sessions_are_resumed_by_ticket_and_by_id),
        cmocka_unit_test(tickets_of_tls_1_3_are_resumed),
    };
    static const struct CMUnitTest many[] = {
        cmocka_unit_test(tls_runs_above_a_transport_of_the_users),
        cmocka_unit_test(every_byte_in_its_own_record_arrives),
        cmocka_unit_test(of_100_at_once_99_are_resumed),
        cmocka_unit_test(where_nothing_is_resumed_all_are_served),
        cmocka_unit_test(each_call_may_fail),
    };
    int failed = 0;
    if (!TEST_TLS_MANY) {
        failed = cmocka_run_group_tests(tests, make_pki, remove_pki);
    }
    return failed + cmocka_run_group_tests(many, make_pki, remove_pki);
}
