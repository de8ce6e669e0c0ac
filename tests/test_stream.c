/* The stream layer without TLS: names, races, plain TCP, transports, waking. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#define GPTNER_FAULT_INJECTION
#include "gptner.h"

#include <setjmp.h>
#include <cmocka.h>

#include <signal.h>
#include <unistd.h>

/* An atomic sum; the header itself needs none. */
#define test_atomic_add(a, n) \
    __atomic_add_fetch(&(a)->value, (n), __ATOMIC_SEQ_CST)

/* --- faults: of a kind, the n-th or each; a resolver that is stuck --- */

static gpn_atomic fault_kind;
static gpn_atomic fault_at; /* 0: never, -1: each */
static gpn_atomic fault_count;
static gpn_atomic resolved; /* names looked up so far */
static gpn_atomic stuck;    /* the next one hangs in the system */
static gpn_mutex gate = GPN_MUTEX_INIT;

int gptner_fault(int kind)
{
    int at = gpn_atomic_get(&fault_at);
    if (kind == GPN_FAULT_RESOLVE) {
        test_atomic_add(&resolved, 1);
        if (gpn_atomic_get(&stuck)) {
            gpn_mutex_lock(&gate);
            gpn_mutex_unlock(&gate);
        }
    }
    return kind == gpn_atomic_get(&fault_kind) &&
           (test_atomic_add(&fault_count, 1) == at || at < 0);
}

static void fault_set(int kind, int at)
{
    gpn_atomic_set(&fault_kind, kind);
    gpn_atomic_set(&fault_count, 0);
    gpn_atomic_set(&fault_at, at);
}

/* --- a client with one stream, and the server's end of it --- */

typedef struct rig {
    gpn_env env;
    gpn_poller poller;
    gpn_resolver *resolver;
    gpn_peer peer;
    gpn_stream s;
    gptner_error err;
    int listener;
    int fd; /* accepted */
} rig;

static int listen_on(const char *host, int *port)
{
    gpn_addr addr;
    socklen_t len = sizeof addr.ss;
    int fd;
    assert_true(gpn_addr_parse(host, *port, &addr));
    fd = socket(addr.ss.ss_family, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr.ss, addr.len) != 0 ||
        listen(fd, 8) != 0) {
        close(fd);
        return -1;
    }
    getsockname(fd, (struct sockaddr *)&addr.ss, &len);
    *port = ntohs(((struct sockaddr_in *)&addr.ss)->sin_port);
    return fd;
}

static void rig_start(rig *r)
{
    fault_set(0, 0); /* an earlier test may have failed in the middle */
    gpn_atomic_set(&stuck, 0);
    memset(r, 0, sizeof *r);
    assert_true(gpn_env_init(&r->env, NULL, NULL));
    assert_true(gpn_poller_init(&r->poller, &r->env));
    assert_int_equal(gpn_resolver_new(&r->env, &r->resolver, &r->err), 0);
    assert_true(gpn_bell_add(gpn_resolver_bell(r->resolver), &r->poller));
    r->fd = -1;
    r->listener = listen_on("127.0.0.1", &r->peer.port);
    assert_true(r->listener >= 0);
    r->peer.host = "127.0.0.1";
    gpn_stream_init(&r->s, &r->env, &r->poller, &r->s);
}

static void rig_end(rig *r)
{
    gpn_stream_close(&r->s);
    gpn_bell_remove(gpn_resolver_bell(r->resolver), &r->poller);
    gpn_resolver_free(r->resolver);
    gpn_poller_deinit(&r->poller);
    close(r->listener);
    if (r->fd >= 0) {
        close(r->fd);
    }
}

/* Wait for the poller as an exchange would; ready for what? */
static unsigned rig_wait(rig *r)
{
    gpn_event events[8];
    unsigned ready = 0;
    int64_t now = gpn_clock_ms(&r->env);
    int64_t until = now + 10000;
    int i, n;
    if (r->s.wake_at < until) {
        until = r->s.wake_at;
    }
    n = gpn_poller_wait(&r->poller, now, until, events, 8);
    for (i = 0; i < n; i++) {
        ready |= events[i].tag != NULL ? events[i].ready : 0;
    }
    return ready;
}

static gpn_io rig_open(rig *r)
{
    gpn_io io;
    memset(&r->err, 0, sizeof r->err);
    if (gpn_stream_open(&r->s, &r->peer, r->resolver, NULL, NULL, &r->err) !=
        GPTNER_OK) {
        return GPN_IO_FAILED;
    }
    while ((io = gpn_stream_connect(&r->s, gpn_clock_ms(&r->env), &r->err)) !=
               GPN_IO_DONE &&
           io != GPN_IO_FAILED) {
        rig_wait(r);
    }
    return io;
}

static void rig_connect(rig *r)
{
    if (rig_open(r) != GPN_IO_DONE) {
        fail_msg("%s", r->err.message);
    }
    r->fd = accept(r->listener, NULL, NULL);
    assert_true(r->fd >= 0);
}

/* Receive once something is there. */
static gpn_io rig_recv(rig *r, char *data, size_t cap, size_t *got)
{
    gpn_io io;
    while ((io = gpn_stream_recv(&r->s, data, cap, got, &r->err)) ==
           GPN_IO_WANT_READ) {
        rig_wait(r);
    }
    return io;
}

static void reset(int fd)
{
    struct linger hard;
    hard.l_onoff = 1;
    hard.l_linger = 0;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

/* --- plain TCP --- */

static void bytes_go_both_ways_over_plain_tcp(void **state)
{
    rig r;
    char data[16];
    size_t n = 0;
    GPN_UNUSED(state);
    rig_start(&r);
    rig_connect(&r);
    assert_int_equal(gpn_stream_send(&r.s, "ping", 4, &n, &r.err), GPN_IO_DONE);
    assert_int_equal(n, 4);
    assert_int_equal(recv(r.fd, data, sizeof data, 0), 4);
    assert_int_equal(gpn_stream_recv(&r.s, data, 8, &n, &r.err),
                     GPN_IO_WANT_READ);
    assert_int_equal(send(r.fd, "pong", 4, 0), 4);
    assert_int_equal(rig_recv(&r, data, sizeof data, &n), GPN_IO_DONE);
    assert_int_equal(n, 4);
    assert_memory_equal(data, "pong", 4);
    assert_false(gpn_stream_pending(&r.s));
    assert_false(gpn_stream_resumed(&r.s));
    rig_end(&r);
}

static void the_end_of_plain_tcp_is_an_end_and_a_reset_is_not(void **state)
{
    rig r;
    char data[16];
    size_t n = 0;
    GPN_UNUSED(state);
    rig_start(&r);
    rig_connect(&r);
    close(r.fd);
    assert_int_equal(rig_recv(&r, data, sizeof data, &n), GPN_IO_EOF);
    gpn_stream_close(&r.s);
    rig_connect(&r);
    reset(r.fd);
    r.fd = -1;
    assert_int_equal(rig_recv(&r, data, sizeof data, &n), GPN_IO_FAILED);
    assert_int_equal(r.err.status, GPTNER_ERR_CONNECTION_LOST);
    assert_false(gpn_stream_alive(&r.s));
    rig_end(&r);
}

static void room_is_watched_for_only_while_it_is_wanted(void **state)
{
    static char block[65536];
    rig r;
    size_t n = 0;
    size_t sent = 0;
    size_t seen = 0;
    gpn_io io;
    GPN_UNUSED(state);
    rig_start(&r);
    rig_connect(&r);
    assert_int_equal(r.s.interest, GPN_POLL_IN);
    while ((io = gpn_stream_send(&r.s, block, sizeof block, &n, &r.err)) ==
           GPN_IO_DONE) {
        sent += n;
        assert_int_equal(r.s.interest, GPN_POLL_IN);
    }
    assert_int_equal(io, GPN_IO_WANT_WRITE);
    assert_int_equal(r.s.interest, GPN_POLL_IN | GPN_POLL_OUT);
    while (seen < sent) {
        ssize_t got = recv(r.fd, block, sizeof block, 0);
        assert_true(got > 0);
        seen += (size_t)got;
    }
    assert_true((rig_wait(&r) & GPN_POLL_OUT) != 0);
    assert_int_equal(gpn_stream_send(&r.s, "x", 1, &n, &r.err), GPN_IO_DONE);
    assert_int_equal(r.s.interest, GPN_POLL_IN);
    rig_end(&r);
}

static void an_idle_connection_is_alive_until_anything_happens(void **state)
{
    rig r;
    GPN_UNUSED(state);
    rig_start(&r);
    assert_false(gpn_stream_alive(&r.s)); /* it was never open */
    rig_connect(&r);
    assert_true(gpn_stream_alive(&r.s));
    assert_true(gpn_stream_alive(&r.s));
    assert_int_equal(send(r.fd, "?", 1, 0), 1);
    rig_wait(&r);
    assert_false(gpn_stream_alive(&r.s)); /* nobody asked for that byte */
    assert_false(gpn_stream_alive(&r.s));
    gpn_stream_close(&r.s);
    close(r.fd);
    rig_connect(&r);
    close(r.fd);
    r.fd = -1;
    rig_wait(&r);
    assert_false(gpn_stream_alive(&r.s));
    rig_end(&r);
}

static void https_needs_a_build_with_tls(void **state)
{
    rig r;
    GPN_UNUSED(state);
    rig_start(&r);
    r.peer.tls = true;
    r.peer.name = "127.0.0.1";
    memset(&r.err, 0, sizeof r.err);
#ifdef GPTNER_NO_TLS
    assert_int_equal(
        gpn_stream_open(&r.s, &r.peer, r.resolver, NULL, NULL, &r.err),
        GPTNER_ERR_UNSUPPORTED);
    assert_non_null(strstr(r.err.message, "GPTNER_NO_TLS"));
#endif
    rig_end(&r);
}

/* --- connecting --- */

static void a_refused_connection_says_so(void **state)
{
    rig r;
    GPN_UNUSED(state);
    rig_start(&r);
    close(r.listener);
    assert_int_equal(rig_open(&r), GPN_IO_FAILED);
    assert_int_equal(r.err.status, GPTNER_ERR_CONNECT);
    assert_non_null(strstr(r.err.message, "connect to 127.0.0.1:"));
    assert_non_null(strstr(r.err.message, "check base_url"));
    gpn_stream_close(&r.s);
    r.peer.proxy_host = "127.0.0.1";
    r.peer.proxy_port = r.peer.port;
    r.peer.host = "never.asked.invalid";
    assert_int_equal(rig_open(&r), GPN_IO_FAILED);
    assert_non_null(strstr(r.err.message, "connect to proxy 127.0.0.1:"));
    r.listener = -1;
    rig_end(&r);
}

static void put(gpn_race *race, const char *host, int port)
{
    assert_true(gpn_addr_parse(host, port,
                               &race->answer.addrs[race->answer.n_addrs++]));
}

static void families_take_turns(void **state)
{
    static const char *const given[] = {"::1", "::2", "::3", "1.0.0.1",
                                        "1.0.0.2"};
    static const char *const wanted[] = {"::1", "1.0.0.1", "::2", "1.0.0.2",
                                         "::3"};
    gpn_race race;
    size_t i;
    GPN_UNUSED(state);
    memset(&race, 0, sizeof race);
    for (i = 0; i < 5; i++) {
        put(&race, given[i], 1);
    }
    gpn_race_order(&race);
    for (i = 0; i < 5; i++) {
        gpn_addr want;
        assert_true(gpn_addr_parse(wanted[i], 1, &want));
        assert_memory_equal(&race.answer.addrs[i], &want, sizeof want);
    }
}

/* A stream in the middle of a race whose first attempt hangs: the socket of
 * one is replaced by one that was never connected. */
static void race_with_a_hanging_first(rig *r, int64_t now)
{
    gpn_race *race;
    int hanging;
    memset(&r->err, 0, sizeof r->err);
    assert_int_equal(
        gpn_stream_open(&r->s, &r->peer, r->resolver, NULL, NULL, &r->err), 0);
    race = r->s.race;
    put(race, "127.0.0.1", r->peer.port);
    race->started = race->live = 1;
    race->next_at = now + GPN_RACE_STEP_MS;
    hanging = socket(AF_INET, SOCK_STREAM, 0);
    race->fds[0] = hanging;
}

static void the_second_address_starts_after_250_ms(void **state)
{
    rig r;
    GPN_UNUSED(state);
    rig_start(&r);
    race_with_a_hanging_first(&r, 1000);
    assert_int_equal(gpn_stream_connect(&r.s, 1000, &r.err), GPN_IO_WANT_WRITE);
    assert_int_equal(r.s.wake_at, 1250);
    assert_int_equal(gpn_stream_connect(&r.s, 1249, &r.err), GPN_IO_WANT_WRITE);
    assert_int_equal(r.s.race->started, 1);
    while (gpn_stream_connect(&r.s, 1250, &r.err) == GPN_IO_WANT_WRITE) {
        assert_int_equal(r.s.race->started, 2);
        assert_int_equal(r.s.wake_at, INT64_MAX);
        rig_wait(&r);
    }
    assert_int_equal(r.s.state, GPN_STREAM_OPEN); /* the second won */
    assert_null(r.s.race);
    r.fd = accept(r.listener, NULL, NULL);
    rig_end(&r);
}

static void the_second_address_starts_at_once_when_the_first_fails(void **state)
{
    rig r;
    int port;
    GPN_UNUSED(state);
    rig_start(&r);
    port = r.peer.port;
    r.peer.port = 1; /* nobody there, or at least not us */
    assert_int_equal(
        gpn_stream_open(&r.s, &r.peer, r.resolver, NULL, NULL, &r.err), 0);
    put(r.s.race, "127.0.0.1", port);
    while (gpn_stream_connect(&r.s, 1000, &r.err) == GPN_IO_WANT_WRITE) {
        assert_true(r.s.race->started == 1 || r.s.wake_at == INT64_MAX);
        r.s.wake_at = INT64_MAX;
        rig_wait(&r);
    }
    assert_int_equal(r.s.state, GPN_STREAM_OPEN);
    rig_end(&r);
}

static void a_race_can_be_given_up(void **state)
{
    rig r;
    GPN_UNUSED(state);
    rig_start(&r);
    race_with_a_hanging_first(&r, 1000);
    assert_int_equal(gpn_stream_connect(&r.s, 1000, &r.err), GPN_IO_WANT_WRITE);
    gpn_stream_close(&r.s);
    assert_int_equal(r.s.fd, GPN_FD_NONE);
    rig_connect(&r); /* and opened again */
    rig_end(&r);
}

/* --- names --- */

static void a_name_is_resolved_once_a_minute(void **state)
{
    rig r;
    gpn_name out;
    int64_t now = 1000;
    GPN_UNUSED(state);
    rig_start(&r);
    r.peer.host = "localhost";
    gpn_atomic_set(&resolved, 0);
    rig_connect(&r);
    assert_int_equal(gpn_atomic_get(&resolved), 1);
    gpn_stream_close(&r.s);
    close(r.fd);
    rig_connect(&r);
    assert_int_equal(gpn_atomic_get(&resolved), 1);
    r.resolver->names->until = now; /* it has become old */
    while (gpn_resolver_find(r.resolver, "localhost", r.peer.port, now, &out) ==
           GPN_IO_WAIT) {
        rig_wait(&r);
    }
    assert_int_equal(gpn_atomic_get(&resolved), 2);
    assert_int_equal(r.resolver->names->until, now + GPN_NAME_KEEP_MS);
    assert_int_equal(gpn_resolver_find(r.resolver, "localhost", r.peer.port,
                                       now + GPN_NAME_KEEP_MS - 1, &out),
                     GPN_IO_DONE);
    assert_int_equal(gpn_atomic_get(&resolved), 2);
    rig_end(&r);
}

static void an_address_is_never_looked_up(void **state)
{
    rig r;
    GPN_UNUSED(state);
    rig_start(&r);
    gpn_atomic_set(&resolved, 0);
    rig_connect(&r);
    assert_int_equal(gpn_atomic_get(&resolved), 0);
    rig_end(&r);
}

static void a_name_that_is_not_found_is_told_to_all_who_wait(void **state)
{
    rig r;
    gpn_name out;
    int i;
    GPN_UNUSED(state);
    rig_start(&r);
    r.peer.host = "nobody.invalid";
    fault_set(GPN_FAULT_RESOLVE, -1);
    gpn_atomic_set(&resolved, 0);
    assert_int_equal(rig_open(&r), GPN_IO_FAILED);
    assert_int_equal(r.err.status, GPTNER_ERR_RESOLVE);
    assert_non_null(strstr(r.err.message, "resolve nobody.invalid: "));
    for (i = 0; i < 3; i++) {
        assert_int_equal(gpn_resolver_find(r.resolver, "nobody.invalid",
                                           r.peer.port, gpn_clock_ms(&r.env),
                                           &out),
                         GPN_IO_FAILED);
    }
    assert_int_equal(gpn_atomic_get(&resolved), 1);
    fault_set(0, 0);
    rig_end(&r);
}

static void without_a_thread_names_are_resolved_in_place(void **state)
{
    rig r;
    gpn_name out;
    GPN_UNUSED(state);
    rig_start(&r);
    fault_set(GPN_FAULT_THREAD, -1);
    assert_int_equal(gpn_resolver_find(r.resolver, "localhost", 80, 1, &out),
                     GPN_IO_DONE);
    fault_set(0, 0);
    rig_end(&r);
}

static void a_resolver_that_is_stuck_is_left_behind(void **state)
{
    rig r;
    gpn_name out;
    GPN_UNUSED(state);
#ifdef GPTNER_NO_THREADS
    (void)r;
    (void)out;
#else
    rig_start(&r);
    gpn_mutex_lock(&gate);
    gpn_atomic_set(&stuck, 1);
    assert_int_equal(gpn_resolver_find(r.resolver, "localhost", 80, 1, &out),
                     GPN_IO_WAIT);
    assert_int_equal(gpn_resolver_find(r.resolver, "localhost", 80, 2, &out),
                     GPN_IO_WAIT);
    rig_end(&r); /* the helper goes on alone, and frees what is shared */
    gpn_atomic_set(&stuck, 0);
    gpn_mutex_unlock(&gate);
#endif
}

static void names_that_are_kept_have_a_limit(void **state)
{
    rig r;
    gpn_name out;
    char host[32];
    int i;
    GPN_UNUSED(state);
    rig_start(&r);
    fault_set(GPN_FAULT_RESOLVE, -1);
    for (i = 0; i < 3 * GPN_NAME_MAX; i++) {
        snprintf(host, sizeof host, "host-%d.invalid", i);
        while (gpn_resolver_find(r.resolver, host, 80, 1, &out) ==
               GPN_IO_WAIT) {
            rig_wait(&r);
        }
        assert_true(r.resolver->count <= GPN_NAME_MAX);
    }
    fault_set(0, 0);
    rig_end(&r);
}

/* --- waking --- */

static void the_bell_wakes_every_poller_on_its_list(void **state)
{
    gpn_poller pollers[9];
    gpn_event event;
    gpn_env env;
    gpn_bell bell;
    int i;
    GPN_UNUSED(state);
    assert_true(gpn_env_init(&env, NULL, NULL));
    assert_true(gpn_bell_init(&bell, &env));
    for (i = 0; i < 9; i++) {
        assert_true(gpn_poller_init(&pollers[i], &env));
        assert_true(gpn_bell_add(&bell, &pollers[i]));
    }
    gpn_bell_remove(&bell, &pollers[4]);
    gpn_bell_remove(&bell, &pollers[4]);
    gpn_bell_ring(&bell);
    for (i = 0; i < 9; i++) {
        assert_int_equal(gpn_poller_wait(&pollers[i], 1, 1, &event, 1),
                         i == 4 ? 0 : 1);
        gpn_poller_deinit(&pollers[i]);
    }
    gpn_bell_deinit(&bell);
}

static gpn_poller *to_wake;

static void on_signal(int number)
{
    GPN_UNUSED(number);
    gpn_poller_wake(to_wake);
}

static void a_signal_handler_wakes_a_stream_that_waits(void **state)
{
    struct sigaction action;
    gpn_event event;
    rig r;
    GPN_UNUSED(state);
    rig_start(&r);
    rig_connect(&r);
    to_wake = &r.poller;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    assert_int_equal(gpn_poller_wait(&r.poller, 1, INT64_MAX, &event, 1), 1);
    assert_null(event.tag);
    rig_end(&r);
}

/* --- a transport of the user's --- */

typedef struct tape {
    const char *reply;
    size_t at;
    char sent[64];
    size_t sent_len;
    int timeouts; /* before anything moves */
    int connect_ms;
    int closed;
    bool end_badly;
} tape;

static int tape_connect(const char *host, int port, int timeout_ms, void **conn,
                        void *user)
{
    tape *t = (tape *)user;
    t->connect_ms = timeout_ms;
    *conn = t;
    return strcmp(host, "tape.test") == 0 && port == 7 ? 0 : -1;
}

static int tape_send(void *conn, const char *data, size_t len, int timeout_ms)
{
    tape *t = (tape *)conn;
    GPN_UNUSED(timeout_ms);
    if (t->timeouts > 0) {
        t->timeouts--;
        return -2;
    }
    len = len > 3 ? 3 : len;
    memcpy(t->sent + t->sent_len, data, len);
    t->sent_len += len;
    return (int)len;
}

static int tape_recv(void *conn, char *data, size_t cap, int timeout_ms)
{
    tape *t = (tape *)conn;
    assert_true(timeout_ms > 0);
    if (t->timeouts > 0) {
        t->timeouts--;
        return -2;
    }
    if (t->reply[t->at] == '\0') {
        return t->end_badly ? -1 : 0;
    }
    assert_true(cap > 0);
    data[0] = t->reply[t->at++];
    return 1;
}

static void tape_close(void *conn)
{
    ((tape *)conn)->closed++;
}

static void a_transport_carries_the_bytes(void **state)
{
    tape t;
    gptner_transport transport = {tape_connect, tape_send, tape_recv,
                                  tape_close,   true,      NULL};
    rig r;
    char byte;
    size_t n = 0;
    GPN_UNUSED(state);
    rig_start(&r);
    memset(&t, 0, sizeof t);
    t.reply = "ab";
    transport.user = &t;
    r.peer.host = "tape.test";
    r.peer.port = 7;
    r.peer.tls = true; /* it sees to that by itself */
    assert_int_equal(
        gpn_stream_open(&r.s, &r.peer, r.resolver, NULL, &transport, &r.err),
        0);
    r.s.limit_at = 1500;
    assert_int_equal(gpn_stream_connect(&r.s, 1000, &r.err), GPN_IO_DONE);
    assert_int_equal(t.connect_ms, 500);
    assert_int_equal(gpn_stream_start_tls(&r.s, &r.err), GPN_IO_DONE);
    assert_int_equal(gpn_stream_handshake(&r.s, 1000, &r.err), GPN_IO_DONE);
    assert_int_equal(r.s.wake_at, INT64_MAX);
    t.timeouts = 1;
    assert_int_equal(gpn_stream_send(&r.s, "hello", 5, &n, &r.err),
                     GPN_IO_WANT_WRITE);
    assert_int_equal(r.s.wake_at, 0); /* no poller tells: step it again */
    assert_int_equal(gpn_stream_send(&r.s, "hello", 5, &n, &r.err),
                     GPN_IO_DONE);
    assert_int_equal(n, 3);
    assert_int_equal(r.s.wake_at, INT64_MAX);
    t.timeouts = 1;
    assert_int_equal(gpn_stream_recv(&r.s, &byte, 1, &n, &r.err),
                     GPN_IO_WANT_READ);
    assert_int_equal(r.s.wake_at, 0);
    assert_int_equal(gpn_stream_recv(&r.s, &byte, 1, &n, &r.err), GPN_IO_DONE);
    assert_int_equal(byte, 'a');
    assert_true(gpn_stream_alive(&r.s));
    assert_int_equal(gpn_stream_recv(&r.s, &byte, 1, &n, &r.err), GPN_IO_DONE);
    assert_int_equal(gpn_stream_recv(&r.s, &byte, 1, &n, &r.err), GPN_IO_EOF);
    t.end_badly = true;
    assert_int_equal(gpn_stream_recv(&r.s, &byte, 1, &n, &r.err),
                     GPN_IO_FAILED);
    assert_int_equal(r.err.status, GPTNER_ERR_CONNECTION_LOST);
    gpn_stream_close(&r.s);
    gpn_stream_close(&r.s);
    assert_int_equal(t.closed, 1);
    rig_end(&r);
}

static void a_transport_that_cannot_connect_says_so(void **state)
{
    tape t;
    gptner_transport transport = {tape_connect, tape_send, tape_recv,
                                  tape_close,   false,     NULL};
    rig r;
    GPN_UNUSED(state);
    rig_start(&r);
    memset(&t, 0, sizeof t);
    transport.user = &t;
    r.peer.host = "other.test";
    assert_int_equal(
        gpn_stream_open(&r.s, &r.peer, r.resolver, NULL, &transport, &r.err),
        0);
    assert_int_equal(gpn_stream_connect(&r.s, 1000, &r.err), GPN_IO_FAILED);
    assert_int_equal(t.connect_ms, GPN_CONNECT_MS);
    assert_int_equal(r.err.status, GPTNER_ERR_CONNECT);
    gpn_stream_close(&r.s);
    assert_int_equal(t.closed, 0);
    rig_end(&r);
}

/* --- every call fails once --- */

static void one_life(const char *host, int port, int kind, int at)
{
    rig r;
    char byte;
    size_t n = 0;
    gpn_io io = GPN_IO_FAILED;
    memset(&r, 0, sizeof r);
    assert_true(gpn_env_init(&r.env, NULL, NULL));
    assert_true(gpn_poller_init(&r.poller, &r.env));
    fault_set(kind, at);
    if (gpn_resolver_new(&r.env, &r.resolver, &r.err) == GPTNER_OK) {
        bool belled = gpn_bell_add(gpn_resolver_bell(r.resolver), &r.poller);
        r.peer.host = host;
        r.peer.port = port;
        gpn_stream_init(&r.s, &r.env, &r.poller, &r.s);
        io = belled ? rig_open(&r) : GPN_IO_DONE;
        if (belled && io == GPN_IO_DONE) {
            io = gpn_stream_send(&r.s, "x", 1, &n, &r.err);
        }
        if (belled && io == GPN_IO_DONE) {
            io = gpn_stream_recv(&r.s, &byte, 1, &n, &r.err);
        }
        gpn_stream_close(&r.s);
        gpn_bell_remove(gpn_resolver_bell(r.resolver), &r.poller);
    }
    if (io == GPN_IO_FAILED) {
        assert_int_not_equal(r.err.status, GPTNER_OK);
        assert_true(strlen(r.err.message) > 10);
    }
    gpn_resolver_free(r.resolver);
    gpn_poller_deinit(&r.poller);
}

static void each_call_may_fail(void **state)
{
    static const int kinds[] = {GPN_FAULT_ALLOC, GPN_FAULT_SOCKET,
                                GPN_FAULT_THREAD, GPN_FAULT_RESOLVE};
    size_t i;
    int port = 0;
    int fd = listen_on("127.0.0.1", &port);
    GPN_UNUSED(state);
    for (i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int at = 0;
        do {
            at++;
            one_life("localhost", port, kinds[i], at);
            while (true) { /* empty the listener's queue */
                struct timeval none = {0, 0};
                fd_set set;
                FD_ZERO(&set);
                FD_SET(fd, &set);
                if (select(fd + 1, &set, NULL, NULL, &none) != 1) {
                    break;
                }
                close(accept(fd, NULL, NULL));
            }
        } while (gpn_atomic_get(&fault_count) >= at && at < 100);
        fault_set(0, 0);
        assert_in_range(at, 2, 99);
    }
    close(fd);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways_over_plain_tcp),
        cmocka_unit_test(the_end_of_plain_tcp_is_an_end_and_a_reset_is_not),
        cmocka_unit_test(room_is_watched_for_only_while_it_is_wanted),
        cmocka_unit_test(an_idle_connection_is_alive_until_anything_happens),
        cmocka_unit_test(https_needs_a_build_with_tls),
        cmocka_unit_test(a_refused_connection_says_so),
        cmocka_unit_test(families_take_turns),
        cmocka_unit_test(the_second_address_starts_after_250_ms),
        cmocka_unit_test(
            the_second_address_starts_at_once_when_the_first_fails),
        cmocka_unit_test(a_race_can_be_given_up),
        cmocka_unit_test(a_name_is_resolved_once_a_minute),
        cmocka_unit_test(an_address_is_never_looked_up),
        cmocka_unit_test(a_name_that_is_not_found_is_told_to_all_who_wait),
        cmocka_unit_test(without_a_thread_names_are_resolved_in_place),
        cmocka_unit_test(a_resolver_that_is_stuck_is_left_behind),
        cmocka_unit_test(names_that_are_kept_have_a_limit),
        cmocka_unit_test(the_bell_wakes_every_poller_on_its_list),
        cmocka_unit_test(a_signal_handler_wakes_a_stream_that_waits),
        cmocka_unit_test(a_transport_carries_the_bytes),
        cmocka_unit_test(a_transport_that_cannot_connect_says_so),
        cmocka_unit_test(each_call_may_fail),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
