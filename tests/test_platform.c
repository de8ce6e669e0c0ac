/* Tests of >>platform: memory, clock, threads, sockets, poller, files. Built a
 * second time with GPTNER_NO_EPOLL, for poll() and a pipe. */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "test_common.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

static gpn_env env;

static int set_up(void **state)
{
    (void)state;
    test_fault_clear();
    return gpn_env_init(&env, NULL, NULL) ? 0 : -1;
}

/* ---- memory ---- */

static void an_allocator_is_whole_or_refused(void **state)
{
    test_mem mem = {0, false, 0, 0, 0, 0};
    gptner_allocator a = test_mem_allocator(&mem);
    gpn_env e;

    (void)state;
    assert_true(gpn_env_init(&e, &a, NULL));
    a.realloc_fn = NULL;
    assert_false(gpn_env_init(&e, &a, NULL));
    a.alloc_fn = NULL;
    assert_false(gpn_env_init(&e, &a, NULL));
    a.free_fn = NULL; /* none at all: the default */
    assert_true(gpn_env_init(&e, &a, NULL));
    gpn_mem_free(&e, gpn_mem_alloc(&e, 10));
}

static void memory_comes_from_the_allocator_and_may_fail(void **state)
{
    test_mem mem = {0, false, 0, 0, 0, 0};
    gptner_allocator a = test_mem_allocator(&mem);
    gpn_env e;
    char *p;

    (void)state;
    assert_true(gpn_env_init(&e, &a, NULL));
    p = (char *)gpn_mem_alloc(&e, 0);
    assert_non_null(p);
    p = (char *)gpn_mem_realloc(&e, p, 0);
    assert_non_null(p);
    gpn_mem_free(&e, p);
    gpn_mem_free(&e, NULL);
    p = (char *)gpn_mem_zalloc(&e, 3);
    assert_memory_equal(p, "\0\0\0", 3);
    memcpy(p, "abc", 3);
    mem.fail_at = mem.calls + 1;
    assert_null(gpn_mem_realloc(&e, p, 100));
    assert_memory_equal(p, "abc", 3);
    p = (char *)gpn_mem_realloc(&e, p, 100);
    assert_memory_equal(p, "abc", 3);
    gpn_mem_wipe(p, 100);
    gpn_mem_wipe(NULL, 0);
    assert_memory_equal(p, "\0\0\0", 3);
    gpn_mem_free(&e, p);
    p = (char *)gpn_mem_realloc(&e, NULL, 5);
    assert_non_null(p);
    gpn_mem_free(&e, p);
    assert_int_equal(mem.blocks, 0);
    test_fault_set(GPN_FAULT_ALLOC, 2, true);
    p = (char *)gpn_mem_alloc(&e, 1);
    assert_non_null(p);
    assert_null(gpn_mem_alloc(&e, 1));
    assert_null(gpn_mem_zalloc(&e, 1));
    assert_null(gpn_mem_realloc(&e, p, 2));
    gpn_mem_free(&e, p);
}

static void sizes_are_added_and_multiplied_with_care(void **state)
{
    size_t n;

    (void)state;
    assert_true(gpn_size_add(SIZE_MAX - 1, 1, &n));
    assert_true(n == SIZE_MAX);
    assert_false(gpn_size_add(SIZE_MAX, 1, &n));
    assert_false(gpn_size_add(1, SIZE_MAX, &n));
    assert_true(gpn_size_mul(0, SIZE_MAX, &n));
    assert_true(gpn_size_mul(SIZE_MAX, 1, &n));
    assert_true(gpn_size_mul(SIZE_MAX / 2, 2, &n));
    assert_false(gpn_size_mul(SIZE_MAX / 2 + 1, 2, &n));
    assert_false(gpn_size_mul(2, SIZE_MAX / 2 + 1, &n));
}

/* ---- clock and chance ---- */

static void clocks_follow_the_system_or_the_hooks(void **state)
{
    test_clock clock = {1000, 5000, 7, 0};
    gptner_hooks hooks = test_clock_hooks(&clock);
    int64_t start = gpn_clock_ms(&env), passed;
    gpn_env virtual_env;
    uint64_t chance;

    (void)state;
    test_sleep_ms(20);
    passed = gpn_clock_ms(&env) - start;
    assert_true(passed >= 19 && passed < 5000);
    passed = gpn_clock_unix_ms(&env) - (int64_t)time(NULL) * 1000;
    assert_true(passed > -2000 && passed < 2000);
    assert_true(gpn_env_init(&virtual_env, NULL, &hooks));
    assert_true(gpn_clock_ms(&virtual_env) == 1000);
    assert_true(gpn_clock_unix_ms(&virtual_env) == 6000);
    clock.now_ms = 0;
    assert_true(gpn_clock_ms(&virtual_env) == 1);
    chance = gpn_random_u64(&virtual_env);
    clock.seed = 7;
    assert_true(gpn_random_u64(&virtual_env) == chance);
}

static void a_failing_clock_or_chance_gives_something_safe(void **state)
{
    uint64_t a, b;

    (void)state;
    test_fault_set(GPN_FAULT_CLOCK, 1, true);
    assert_true(gpn_clock_ms(&env) == 1);
    assert_true(gpn_clock_unix_ms(&env) == 0);
    test_fault_set(GPN_FAULT_RANDOM, 1, true);
    a = gpn_random_u64(&env);
    test_sleep_ms(2);
    b = gpn_random_u64(&env);
    assert_true(a != 0 && a != b);
    assert_true(test_fault_fired());
}

/* ---- threads ---- */

typedef struct shared {
    gpn_mutex mutex;
    gpn_atomic count;
    int guarded;
    bool blocked[NSIG];
} shared;

static void count_up(void *arg)
{
    shared *s = (shared *)arg;
    int i;

    for (i = 0; i < 1000; i++) {
        gpn_mutex_lock(&s->mutex);
        s->guarded++;
        gpn_mutex_unlock(&s->mutex);
        test_atomic_add(&s->count, 2);
    }
}

/* Wait until so many were counted under the mutex. */
static void wait_until_guarded(shared *s, int n)
{
    int now;

    do {
        gpn_mutex_lock(&s->mutex);
        now = s->guarded;
        gpn_mutex_unlock(&s->mutex);
        sched_yield();
    } while (now < n);
}

static void init_shared(shared *s)
{
    memset(s, 0, sizeof *s);
    assert_true(gpn_mutex_init(&s->mutex));
}

static void deinit_shared(shared *s)
{
    gpn_mutex_deinit(&s->mutex);
}

static void threads_share_counters(void **state)
{
    gpn_thread t[4];
    shared s;
    size_t i;

    (void)state;
    init_shared(&s);
    for (i = 0; i < 4; i++) { /* the last with the smallest stack */
        assert_true(gpn_thread_start(&t[i], count_up, &s, i == 3 ? 1 : 65536));
    }
    wait_until_guarded(&s, 4000);
    for (i = 0; i < 4; i++) {
        gpn_thread_join(&t[i]);
    }
    assert_int_equal(gpn_atomic_get(&s.count), 8000);
    gpn_atomic_set(&s.count, -1);
    assert_int_equal(test_atomic_add(&s.count, -1), -2);
    deinit_shared(&s);
}

static void note_mask(void *arg)
{
    shared *s = (shared *)arg;
    sigset_t now;
    int i;

    pthread_sigmask(SIG_SETMASK, NULL, &now);
    for (i = 1; i < NSIG; i++) {
        s->blocked[i] = sigismember(&now, i) == 1;
    }
}

static void our_threads_leave_signals_to_the_caller(void **state)
{
    static const int taken[] = {SIGINT,  SIGTERM, SIGHUP,  SIGUSR1,
                                SIGALRM, SIGCHLD, SIGPIPE, SIGWINCH};
    sigset_t before, after;
    gpn_thread t;
    shared s;
    size_t i;

    (void)state;
    init_shared(&s);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_true(gpn_thread_start(&t, note_mask, &s, 0));
    gpn_thread_join(&t);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (i = 0; i < TEST_COUNT(taken); i++) {
        assert_true(s.blocked[taken[i]]);
        assert_int_equal(sigismember(&before, taken[i]),
                         sigismember(&after, taken[i]));
    }
    assert_false(s.blocked[SIGSEGV]);
    deinit_shared(&s);
}

static void let_go(void *arg)
{
    shared *s = (shared *)arg;

    gpn_mutex_lock(&s->mutex);
    s->guarded = 1;
    gpn_mutex_unlock(&s->mutex);
}

static void a_detached_thread_needs_no_join(void **state)
{
    static shared s;
    gpn_thread t;

    (void)state;
    init_shared(&s);
    assert_true(gpn_thread_start(&t, let_go, &s, 0));
    gpn_thread_detach(&t);
    wait_until_guarded(&s, 1); /* the static s outlives the thread */
}

static void starting_a_thread_may_fail_at_every_step(void **state)
{
    gpn_thread t;
    shared s;
    int n = 0;
    bool ok;

    (void)state;
    init_shared(&s);
    do {
        n++;
        s.guarded = 0;
        test_fault_set(GPN_FAULT_THREAD, n, false);
        ok = gpn_thread_start(&t, count_up, &s, 0);
        assert_int_equal(ok, !test_fault_fired());
        if (ok) {
            gpn_thread_join(&t);
        }
        assert_int_equal(s.guarded, ok ? 1000 : 0);
    } while (!ok);
    assert_int_equal(n, 2);
    test_fault_clear();
    assert_false(gpn_thread_start(&t, count_up, &s, SIZE_MAX));
    assert_false(gpn_thread_start(&t, count_up, &s, SIZE_MAX / 2));
    test_fault_set(GPN_FAULT_THREAD, 1, true);
    assert_false(gpn_mutex_init(&s.mutex));
}

/* ---- texts, addresses, names ---- */

static void error_numbers_have_texts_without_a_locale(void **state)
{
    char buf[32];

    (void)state;
    assert_string_equal(gpn_os_text(ECONNREFUSED, buf, sizeof buf),
                        "connection refused");
    assert_string_equal(gpn_os_text(ENOSPC, buf, sizeof buf),
                        "no space left on device");
    assert_string_equal(gpn_os_text(99999, buf, sizeof buf), "error 99999");
}

static void ip_literals_are_told_from_names(void **state)
{
    static const char *const names[] = {"localhost", "1.2.3",
                                        "1.2.3.4.5", "256.1.1.1",
                                        "1.2.3.4 ",  "[::1]",
                                        "::1%lo",    "12345::",
                                        "",          "1.2.3.04x",
                                        "0x7f.1",    "127.1",
                                        "::g",       "1:2:3:4:5:6:7:8:9"};
    unsigned char bytes[16];
    gpn_addr a;
    char text[64];
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(names); i++) {
        assert_int_equal(gpn_addr_bytes(names[i], bytes), 0);
        assert_false(gpn_addr_parse(names[i], 1, &a));
    }
    assert_int_equal(gpn_addr_bytes("192.0.2.7", bytes), 4);
    assert_memory_equal(bytes, "\xc0\x00\x02\x07", 4);
    assert_true(gpn_addr_parse("192.0.2.7", 65535, &a));
    assert_false(gpn_addr_is_v6(&a));
    gpn_addr_text(&a, text, sizeof text);
    assert_string_equal(text, "192.0.2.7");
    assert_int_equal(gpn_addr_bytes("2001:db8::1", bytes), 16);
    assert_memory_equal(bytes, "\x20\x01\x0d\xb8", 4);
    assert_true(gpn_addr_parse("2001:DB8:0::1", 443, &a));
    assert_true(gpn_addr_is_v6(&a));
    gpn_addr_text(&a, text, sizeof text);
    assert_string_equal(text, "2001:db8::1");
    gpn_addr_text(&a, text, 4);
    assert_string_equal(text, "?");
}

static void a_name_is_resolved_or_the_reason_given(void **state)
{
    gpn_addr list[8];
    size_t n;
    char why[64], text[64];

    (void)state;
    assert_int_equal(gpn_resolve("127.0.0.1", 80, list, 8, &n, why, sizeof why),
                     0);
    assert_int_equal(n, 1);
    gpn_addr_text(&list[0], text, sizeof text);
    assert_string_equal(text, "127.0.0.1");
    assert_int_equal(gpn_resolve("localhost", 80, list, 1, &n, why, sizeof why),
                     0);
    assert_int_equal(n, 1);
    assert_int_not_equal(
        gpn_resolve("not a name", 80, list, 8, &n, why, sizeof why), 0);
    assert_int_equal(n, 0);
    assert_true(strlen(why) > 0);
    test_fault_set(GPN_FAULT_RESOLVE, 1, false);
    assert_int_not_equal(
        gpn_resolve("127.0.0.1", 80, list, 8, &n, why, sizeof why), 0);
    assert_string_equal(why, "the name server failed");
}

/* ---- sockets and poller ---- */

static int listen_on_loopback(gpn_addr *a)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof a->ss;

    assert_true(gpn_addr_parse("127.0.0.1", 0, a));
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a->ss, (socklen_t)a->len), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a->ss, &len), 0);
    return fd;
}

static int wait_for(gpn_poller *p, gpn_event *events, int ms)
{
    int64_t now = gpn_clock_ms(&env);

    return gpn_poller_wait(p, now, now + ms, events, 8);
}

/* Connects, and says what came of it. */
static gpn_io connect_to(gpn_poller *p, const gpn_addr *a, gpn_fd *fd,
                         int *oserr)
{
    gpn_io io = gpn_sock_connect(a, fd, oserr);
    gpn_event events[8];

    if (io == GPN_IO_WANT_WRITE) {
        assert_true(gpn_poller_set(p, *fd, GPN_POLL_OUT, p));
        assert_int_equal(wait_for(p, events, 5000), 1);
        assert_true((events[0].ready & GPN_POLL_OUT) != 0);
        io = gpn_sock_connected(*fd, oserr);
        gpn_poller_set(p, *fd, 0, NULL);
    }
    return io;
}

static void bytes_go_there_and_back_and_the_end_is_seen(void **state)
{
    gpn_poller p;
    gpn_event events[8];
    gpn_addr a;
    gpn_fd fd;
    int oserr = 0, listener = listen_on_loopback(&a), peer;
    size_t n;
    char buf[16];

    (void)state;
    assert_true(gpn_poller_init(&p, &env));
    assert_int_equal(connect_to(&p, &a, &fd, &oserr), GPN_IO_DONE);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    peer = accept(listener, NULL, NULL);
    assert_int_equal(gpn_sock_recv(fd, buf, sizeof buf, &n, &oserr),
                     GPN_IO_WANT_READ);
    assert_true(gpn_poller_set(&p, fd, GPN_POLL_IN, buf));
    assert_int_equal(wait_for(&p, events, 1), 0);
    assert_int_equal(write(peer, "hello", 5), 5);
    assert_int_equal(wait_for(&p, events, 5000), 1);
    assert_ptr_equal(events[0].tag, buf);
    assert_int_equal(events[0].ready, GPN_POLL_IN);
    assert_int_equal(wait_for(&p, events, 5000), 1); /* level-triggered */
    assert_int_equal(gpn_sock_recv(fd, buf, sizeof buf, &n, &oserr),
                     GPN_IO_DONE);
    assert_int_equal(n, 5);
    assert_memory_equal(buf, "hello", 5);
    assert_true(gpn_poller_set(&p, fd, GPN_POLL_IN | GPN_POLL_OUT, &n));
    assert_int_equal(wait_for(&p, events, 5000), 1);
    assert_ptr_equal(events[0].tag, &n);
    assert_int_equal(events[0].ready, GPN_POLL_OUT);
    assert_int_equal(gpn_sock_send(fd, "abc", 3, &n, &oserr), GPN_IO_DONE);
    assert_int_equal(n, 3);
    assert_int_equal(read(peer, buf, sizeof buf), 3);
    close(peer);
    assert_true(gpn_poller_set(&p, fd, GPN_POLL_IN, buf));
    assert_int_equal(wait_for(&p, events, 5000), 1);
    assert_int_equal(gpn_sock_recv(fd, buf, sizeof buf, &n, &oserr),
                     GPN_IO_EOF);
    assert_true(gpn_poller_set(&p, fd, 0, NULL));
    assert_int_equal(wait_for(&p, events, 1), 0);
    gpn_sock_close(&fd);
    assert_true(fd == GPN_FD_NONE);
    gpn_sock_close(&fd);
    gpn_poller_deinit(&p);
    close(listener);
}

static void a_refused_connection_says_so(void **state)
{
    gpn_poller p;
    gpn_addr a;
    gpn_fd fd;
    int oserr = 0;

    (void)state;
    close(listen_on_loopback(&a)); /* nobody listens there now */
    assert_true(gpn_poller_init(&p, &env));
    assert_int_equal(connect_to(&p, &a, &fd, &oserr), GPN_IO_FAILED);
    assert_int_equal(oserr, ECONNREFUSED);
    gpn_sock_close(&fd);
    gpn_poller_deinit(&p);
}

static void a_connection_in_progress_is_not_taken_for_made(void **state)
{
    /* not connected and no error: as while the SYN is under way */
    gpn_fd fd = gpn_sock_open(AF_INET, SOCK_STREAM);
    int oserr = 0;

    (void)state;
    assert_int_equal(gpn_sock_connected(fd, &oserr), GPN_IO_WANT_WRITE);
    gpn_sock_close(&fd);
}

static void writing_to_a_reset_connection_kills_nobody(void **state)
{
    struct linger hard = {1, 0};
    gpn_poller p;
    gpn_addr a;
    gpn_fd fd;
    int oserr = 0, listener = listen_on_loopback(&a), peer, i;
    size_t n;
    char buf[4];
    gpn_io io = GPN_IO_DONE;

    (void)state;
    assert_true(gpn_poller_init(&p, &env));
    assert_int_equal(connect_to(&p, &a, &fd, &oserr), GPN_IO_DONE);
    peer = accept(listener, NULL, NULL);
    setsockopt(peer, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(peer);
    for (i = 0; i < 100 && io != GPN_IO_FAILED; i++) {
        test_sleep_ms(1);
        io = gpn_sock_send(fd, "abc", 3, &n, &oserr);
    }
    assert_int_equal(io, GPN_IO_FAILED);
    assert_true(oserr == EPIPE || oserr == ECONNRESET);
    assert_int_equal(gpn_sock_send(fd, "abc", 3, &n, &oserr), GPN_IO_FAILED);
    assert_int_equal(oserr, EPIPE); /* and no SIGPIPE */
    io = gpn_sock_recv(fd, buf, sizeof buf, &n, &oserr);
    assert_true(io == GPN_IO_FAILED || io == GPN_IO_EOF);
    gpn_sock_close(&fd);
    gpn_poller_deinit(&p);
    close(listener);
}

static void a_full_socket_wants_to_write(void **state)
{
    static char big[1 << 20];
    gpn_poller p;
    gpn_event events[8];
    gpn_addr a;
    gpn_fd fd;
    int oserr = 0, listener = listen_on_loopback(&a), peer, i;
    size_t n;
    gpn_io io = GPN_IO_DONE;

    (void)state;
    assert_true(gpn_poller_init(&p, &env));
    assert_int_equal(connect_to(&p, &a, &fd, &oserr), GPN_IO_DONE);
    peer = accept(listener, NULL, NULL);
    for (i = 0; i < 1000 && io == GPN_IO_DONE; i++) {
        io = gpn_sock_send(fd, big, sizeof big, &n, &oserr);
    }
    assert_int_equal(io, GPN_IO_WANT_WRITE);
    assert_int_equal(n, 0);
    assert_true(gpn_poller_set(&p, fd, GPN_POLL_OUT, big));
    assert_int_equal(wait_for(&p, events, 1), 0);
    close(peer); /* an error makes it ready for both */
    assert_int_equal(wait_for(&p, events, 5000), 1);
    assert_int_equal(events[0].ready, GPN_POLL_IN | GPN_POLL_OUT);
    gpn_sock_close(&fd);
    gpn_poller_deinit(&p);
    close(listener);
}

static void socket_calls_fail_on_demand(void **state)
{
    gpn_poller p;
    gpn_event events[8];
    gpn_addr a;
    gpn_fd fd = 0;
    int oserr = 0;
    size_t n = 9;
    char buf[4];

    (void)state;
    assert_true(gpn_addr_parse("127.0.0.1", 9, &a));
    assert_true(gpn_poller_init(&p, &env));
    test_fault_set(GPN_FAULT_SOCKET, 1, true);
    assert_int_equal(gpn_sock_connect(&a, &fd, &oserr), GPN_IO_FAILED);
    assert_true(fd == GPN_FD_NONE);
    assert_int_equal(oserr, ECONNRESET);
    assert_int_equal(gpn_sock_connected(fd, &oserr), GPN_IO_FAILED);
    assert_int_equal(gpn_sock_send(fd, "a", 1, &n, &oserr), GPN_IO_FAILED);
    assert_int_equal(n, 0);
    assert_int_equal(gpn_sock_recv(fd, buf, 1, &n, &oserr), GPN_IO_FAILED);
    assert_false(gpn_poller_set(&p, 0, GPN_POLL_IN, &p));
    assert_true(gpn_poller_set(&p, 0, 0, NULL));
    assert_int_equal(wait_for(&p, events, 0), -1);
    gpn_poller_deinit(&p);
    assert_false(gpn_poller_init(&p, &env));
    gpn_poller_deinit(&p); /* harmless after a failure */
    test_fault_clear();
    assert_true(gpn_poller_init(&p, &env));
    gpn_poller_deinit(&p);
}

static int open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (d != NULL && readdir(d) != NULL) {
        n++;
    }
    if (d != NULL) {
        closedir(d);
    }
    return n;
}

/* A real shortage, at every place, not an injected one. */
static void a_poller_without_descriptors_leaks_none(void **state)
{
    struct rlimit old, tight;
    int before = open_files();
    gpn_poller p;
    gpn_addr a;
    gpn_fd fd;
    int oserr = 0, free_fd;
    rlim_t extra;

    (void)state;
    free_fd = dup(0);
    close(free_fd);
    assert_true(gpn_addr_parse("127.0.0.1", 9, &a));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    tight = old;
    for (extra = 0; extra < 2; extra++) {
        tight.rlim_cur = (rlim_t)free_fd + extra;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
        assert_false(gpn_poller_init(&p, &env));
        if (extra == 0) {
            assert_int_equal(gpn_sock_connect(&a, &fd, &oserr), GPN_IO_FAILED);
            assert_int_equal(oserr, EMFILE);
        }
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(open_files(), before);
}

/* With GPTNER_NO_EPOLL the poller needs memory. */
static void a_poller_without_memory_says_so(void **state)
{
    test_mem mem = {0, false, 0, 0, 0, 0};
    gptner_allocator alloc = test_mem_allocator(&mem);
    gpn_env e;
    gpn_poller p;
    gpn_event events[64];
    int fds[80], i, n = 0;
    bool ok;

    (void)state;
    assert_true(gpn_env_init(&e, &alloc, NULL));
    for (i = 0; i < 80; i += 2) {
        assert_int_equal(pipe(fds + i), 0);
        assert_int_equal(write(fds[i + 1], "x", 1), 1);
    }
    do {
        mem.calls = 0;
        mem.fail_at = ++n;
        ok = gpn_poller_init(&p, &e);
        for (i = 0; i < 80 && ok; i += 2) {
            ok = gpn_poller_set(&p, fds[i], GPN_POLL_IN, &fds[i]);
        }
        if (ok) {
            assert_int_equal(gpn_poller_wait(&p, 1, 1, events, 64), 40);
        }
        gpn_poller_deinit(&p);
        assert_int_equal(mem.blocks, 0);
    } while (!ok);
    for (i = 0; i < 80; i++) {
        close(fds[i]);
    }
}

static void no_socket_starves_when_the_list_is_short(void **state)
{
    gpn_poller p;
    gpn_event events[3];
    int fds[20], i, round;
    bool seen[20] = {false};

    (void)state;
    assert_true(gpn_poller_init(&p, &env));
    for (i = 0; i < 20; i += 2) {
        assert_int_equal(pipe(fds + i), 0);
        assert_int_equal(write(fds[i + 1], "x", 1), 1);
        assert_true(gpn_poller_set(&p, fds[i], GPN_POLL_IN, &fds[i]));
    }
    for (round = 0; round < 8; round++) {
        int n = gpn_poller_wait(&p, 1, 1, events, 3);

        assert_int_equal(n, 3);
        for (i = 0; i < n; i++) {
            seen[(int *)events[i].tag - fds] = true;
        }
    }
    for (i = 0; i < 20; i += 2) {
        assert_true(seen[i]);
        gpn_poller_set(&p, fds[i], 0, NULL);
        close(fds[i]);
        close(fds[i + 1]);
    }
    assert_int_equal(gpn_poller_wait(&p, 1, 1, events, 3), 0);
    gpn_poller_deinit(&p);
}

/* ---- waking ---- */

static void wake_later(void *poller)
{
    test_sleep_ms(30);
    gpn_poller_wake((gpn_poller *)poller);
}

static void another_thread_wakes_the_poller(void **state)
{
    gpn_poller p;
    gpn_event events[8];
    gpn_thread t;
    int i;

    (void)state;
    assert_true(gpn_poller_init(&p, &env));
    assert_true(gpn_thread_start(&t, wake_later, &p, 0));
    assert_int_equal(gpn_poller_wait(&p, 1, INT64_MAX, events, 8), 1);
    assert_null(events[0].tag);
    gpn_thread_join(&t);
    assert_int_equal(wait_for(&p, events, 1), 0); /* it has been drained */
    for (i = 0; i < 100000; i++) {                /* more than a pipe holds */
        gpn_poller_wake(&p);
    }
    assert_int_equal(wait_for(&p, events, 5000), 1);
    while (wait_for(&p, events, 0) == 1) { /* a pipe is drained in steps */
    }
    assert_int_equal(wait_for(&p, events, 1), 0);
    gpn_poller_deinit(&p);
}

static gpn_poller *signalled_poller;

static void on_signal(int number)
{
    (void)number;
    gpn_poller_wake(signalled_poller);
}

static void a_signal_handler_wakes_the_poller(void **state)
{
    struct sigaction action, old;
    int64_t start = gpn_clock_ms(&env);
    struct itimerval timer = {{0, 0}, {0, 30000}};
    gpn_poller p;
    gpn_event events[8];
    int n = 0;

    (void)state;
    assert_true(gpn_poller_init(&p, &env));
    signalled_poller = &p;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &timer, NULL);
    while (n == 0) { /* the interrupted wait itself gives no event */
        n = gpn_poller_wait(&p, 1, INT64_MAX, events, 8);
    }
    assert_int_equal(n, 1);
    assert_null(events[0].tag);
    assert_true(gpn_clock_ms(&env) - start >= 29);
    sigaction(SIGALRM, &old, NULL);
    errno = 4711;
    gpn_poller_wake(&p);
    assert_int_equal(errno, 4711);
    gpn_poller_deinit(&p);
}

static void a_wait_lasts_as_long_as_it_should(void **state)
{
    gpn_poller p;
    gpn_event events[8];
    int64_t start, passed;

    (void)state;
    assert_true(gpn_poller_init(&p, &env));
    start = gpn_clock_ms(&env);
    assert_int_equal(gpn_poller_wait(&p, start, start + 40, events, 8), 0);
    passed = gpn_clock_ms(&env) - start;
    assert_true(passed >= 40 && passed < 5000);
    start = gpn_clock_ms(&env);
    assert_int_equal(gpn_poller_wait(&p, start, start, events, 8), 0);
    assert_int_equal(gpn_poller_wait(&p, start, start - 50, events, 8), 0);
    assert_int_equal(gpn_poller_wait(&p, start, INT64_MIN, events, 8), 0);
    assert_true(gpn_clock_ms(&env) - start < 1000);
    gpn_poller_deinit(&p);
}

static bool decline_to_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    (void)now_ms;
    (void)until_ms;
    ((test_clock *)user)->waits++;
    return false;
}

static void hours_pass_in_no_time_with_a_wait_hook(void **state)
{
    test_clock clock = {1, 0, 1, 0};
    gptner_hooks hooks = test_clock_hooks(&clock);
    int64_t start = gpn_clock_ms(&env), hour = 3600 * 1000;
    gpn_env e;
    gpn_poller p;
    gpn_event events[8];
    int i;

    (void)state;
    assert_true(gpn_env_init(&e, NULL, &hooks));
    assert_true(gpn_poller_init(&p, &e));
    for (i = 0; i < 24; i++) {
        int64_t now = gpn_clock_ms(&e);

        assert_int_equal(gpn_poller_wait(&p, now, now + hour, events, 8), 0);
        assert_true(gpn_clock_ms(&e) == now + hour);
    }
    assert_int_equal(clock.waits, 24);
    gpn_poller_wake(&p); /* an event comes first, and time stands still */
    assert_int_equal(gpn_poller_wait(&p, 1, hour, events, 8), 1);
    assert_int_equal(clock.waits, 24);
    assert_int_equal(gpn_poller_wait(&p, 5, 5, events, 8), 0);
    assert_int_equal(clock.waits, 24); /* nothing to wait for */
    assert_true(gpn_clock_ms(&env) - start < 2000);
    e.hooks.wait_fn = decline_to_wait; /* then it is a real wait */
    start = gpn_clock_ms(&env);
    assert_int_equal(gpn_poller_wait(&p, 1, 31, events, 8), 0);
    assert_true(gpn_clock_ms(&env) - start >= 29);
    assert_int_equal(clock.waits, 25);
    gpn_poller_deinit(&p);
}

/* ---- files ---- */

/* A file to write to, as gpn_whole has it. */
static void open_new(gpn_file *f, const char *path)
{
    memset(f, 0, sizeof *f);
    f->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(f->fd >= 0);
    f->is_open = true;
}

static void a_file_is_written_and_read_back(void **state)
{
    char path[256], to[256], buf[16];
    gpn_file f;
    int oserr = 0;

    (void)state;
    test_tmp_path(path, "plain");
    test_tmp_path(to, "renamed");
    open_new(&f, path);
    assert_true(gpn_file_write(&f, "0123456789", 10, &oserr));
    assert_true(gpn_file_write(&f, "", 0, &oserr));
    assert_true(gpn_file_sync(&f, &oserr));
    assert_true(gpn_file_size(&f) == 10);
    assert_true(gpn_file_close(&f, &oserr));
    assert_true(gpn_file_close(&f, &oserr)); /* once is enough */
    assert_true(gpn_file_open_read(&f, &env, path, &oserr));
    assert_int_equal(gpn_file_read(&f, buf, 7, &oserr), 7);
    assert_int_equal(gpn_file_read(&f, buf, sizeof buf, &oserr), 3);
    assert_memory_equal(buf, "789", 3);
    assert_int_equal(gpn_file_read(&f, buf, sizeof buf, &oserr), 0);
    assert_true(gpn_file_close(&f, &oserr));
    assert_true(gpn_file_rename(path, to, &oserr));
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(access(to, F_OK), 0);
    assert_false(gpn_file_open_read(&f, &env, path, &oserr));
    assert_int_equal(oserr, ENOENT);
    assert_true(gpn_file_close(&f, &oserr));
    assert_false(gpn_file_rename(path, to, &oserr));
    gpn_file_remove(to);
    gpn_file_remove(to);
    assert_int_not_equal(access(to, F_OK), 0);
}

static void a_full_disk_and_other_refusals_are_reported(void **state)
{
    gpn_file f;
    int oserr = 0, ends[2];
    char buf[8];

    (void)state;
    assert_true(gpn_file_open_read(&f, &env, test_tmp_dir(), &oserr));
    assert_int_equal(gpn_file_read(&f, buf, 8, &oserr), -1);
    assert_int_equal(oserr, EISDIR);
    assert_true(gpn_file_size(&f) == -1);
    gpn_file_close(&f, &oserr);
    if (access("/dev/full", W_OK) == 0) {
        open_new(&f, "/dev/full");
        assert_false(gpn_file_write(&f, "x", 1, &oserr));
        assert_int_equal(oserr, ENOSPC);
        gpn_file_close(&f, &oserr);
    }
    assert_int_equal(pipe(ends), 0);
    memset(&f, 0, sizeof f);
    f.fd = ends[1];
    f.is_open = true;
    assert_true(gpn_file_sync(&f, &oserr)); /* a pipe has no disk */
    close(ends[0]);
    gpn_file_close(&f, &oserr);
}

static void file_calls_fail_on_demand(void **state)
{
    char path[256], buf[8];
    gpn_file f, g;
    int oserr = 0;

    (void)state;
    test_tmp_path(path, "faulty");
    open_new(&f, path);
    test_fault_set(GPN_FAULT_FILE, 1, true);
    assert_false(gpn_file_open_read(&g, &env, path, &oserr));
    assert_int_equal(oserr, EIO);
    assert_false(gpn_file_write(&f, "x", 1, &oserr));
    assert_int_equal(gpn_file_read(&f, buf, 8, &oserr), -1);
    assert_true(gpn_file_size(&f) == -1);
    assert_false(gpn_file_sync(&f, &oserr));
    assert_false(gpn_file_rename(path, path, &oserr));
    assert_false(gpn_file_close(&f, &oserr));
    assert_false(f.is_open); /* closed all the same */
    assert_int_equal(fcntl(f.fd, F_GETFD), -1);
    test_fault_clear();
    gpn_file_remove(path);
}

static void standard_streams_are_not_closed(void **state)
{
    gpn_file f;
    int oserr = 0;

    (void)state;
    gpn_file_std(&f, 0);
    assert_true(gpn_file_close(&f, &oserr));
    assert_true(fcntl(0, F_GETFD) >= 0);
    gpn_err_write("", 0);
    assert_true(gpn_err_columns() > 0);
    (void)gpn_err_is_terminal();
}

/* ---- whole files ---- */

/* The number of entries in the test's folder whose name contains part. */
static int count_named(const char *part)
{
    DIR *d = opendir(test_tmp_dir());
    struct dirent *e;
    int n = 0;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        n += strstr(e->d_name, part) != NULL ? 1 : 0;
    }
    closedir(d);
    return n;
}

static void assert_holds(const char *path, const char *text)
{
    size_t len;
    char *data = test_slurp(path, &len);

    assert_non_null(data);
    assert_string_equal(data, text);
    free(data);
}

static void a_whole_file_replaces_the_old_at_commit(void **state)
{
    char path[256], link_path[256];
    struct stat st;
    gpn_whole w;
    int oserr = 0;

    (void)state;
    test_tmp_path(path, "whole");
    test_spit(path, "old", 3);
    assert_int_equal(chmod(path, 0640), 0);
    assert_true(gpn_whole_begin(&w, &env, path, &oserr));
    assert_true(gpn_whole_write(&w, "new", 3, &oserr));
    assert_holds(path, "old");
    assert_int_equal(count_named("whole.part-"), 1);
    assert_true(gpn_whole_commit(&w, &oserr));
    assert_holds(path, "new");
    assert_int_equal(count_named(".part-"), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    gpn_whole_abort(&w); /* nothing left to do */
    assert_true(gpn_whole_begin(&w, &env, path, &oserr));
    assert_true(gpn_whole_write(&w, "never", 5, &oserr));
    gpn_whole_abort(&w);
    assert_holds(path, "new");
    assert_int_equal(count_named(".part-"), 0);
    test_tmp_path(link_path, "link"); /* the link stays, its target changes */
    assert_int_equal(symlink(path, link_path), 0);
    assert_true(gpn_whole_begin(&w, &env, link_path, &oserr));
    assert_true(gpn_whole_write(&w, "linked", 6, &oserr));
    assert_true(gpn_whole_commit(&w, &oserr));
    assert_holds(path, "linked");
    assert_int_equal(lstat(link_path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    memset(&w, 0, sizeof w);
    gpn_whole_abort(&w);
}

static void a_device_is_written_to_and_not_replaced(void **state)
{
    struct stat st;
    gpn_whole w;
    int oserr = 0;

    (void)state;
    assert_true(gpn_whole_begin(&w, &env, "/dev/null", &oserr));
    assert_true(gpn_whole_write(&w, "x", 1, &oserr));
    assert_true(gpn_whole_commit(&w, &oserr));
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    if (access("/dev/full", W_OK) == 0) {
        assert_true(gpn_whole_begin(&w, &env, "/dev/full", &oserr));
        assert_true(gpn_whole_write(&w, "x", 1, &oserr));
        assert_false(gpn_whole_commit(&w, &oserr));
        assert_int_equal(oserr, ENOSPC);
    }
}

/* Writes text of more than one buffer; true: committed. */
static bool write_whole(const gpn_env *e, const char *path, const char *text)
{
    gpn_whole w;
    int oserr = 0;
    size_t len = strlen(text);
    bool ok = gpn_whole_begin(&w, e, path, &oserr);

    if (!ok) {
        assert_int_not_equal(oserr, 0);
        return false;
    }
    ok = gpn_whole_write(&w, text, len / 2, &oserr) &&
         gpn_whole_write(&w, text + len / 2, len - len / 2, &oserr);
    ok = gpn_whole_commit(&w, &oserr) && ok;
    assert_int_equal(ok, oserr == 0);
    return ok;
}

static void a_whole_file_is_whole_or_not_there_whatever_fails(void **state)
{
    static char text[100001];
    static const int kinds[] = {GPN_FAULT_FILE, GPN_FAULT_ALLOC,
                                GPN_FAULT_RANDOM};
    char path[256];
    size_t k;
    int n;
    bool fired;

    (void)state;
    test_tmp_path(path, "torture");
    memset(text, 'n', sizeof text - 1);
    for (k = 0; k < TEST_COUNT(kinds); k++) {
        for (n = 1, fired = true; fired; n++) {
            bool ok;

            test_spit(path, "old", 3);
            test_fault_set(kinds[k], n, false);
            ok = write_whole(&env, path, text);
            fired = test_fault_fired();
            test_fault_clear();
            assert_holds(path, ok ? text : "old");
            assert_int_equal(count_named(".part-"), 0);
            assert_true(ok || fired);
            assert_true(!ok || !fired || kinds[k] == GPN_FAULT_RANDOM);
        }
    }
    assert_false(write_whole(&env, "/nowhere/at/all", "x"));
    assert_false(write_whole(&env, test_tmp_dir(), "x"));
    assert_int_equal(count_named(".part-"), 0);
}

static void whole_files_begun_together_do_not_collide(void **state)
{
    char path[256];
    gpn_whole a, b;
    int oserr = 0;
    test_clock clock = {1, 0, 3, 0};
    gptner_hooks hooks = test_clock_hooks(&clock);
    gpn_env seeded;

    (void)state;
    test_tmp_path(path, "both");
    assert_true(gpn_whole_begin(&a, &env, path, &oserr));
    assert_true(gpn_whole_begin(&b, &env, path, &oserr));
    assert_true(gpn_whole_write(&a, "a", 1, &oserr));
    assert_true(gpn_whole_write(&b, "b", 1, &oserr));
    assert_true(gpn_whole_commit(&b, &oserr));
    assert_true(gpn_whole_commit(&a, &oserr));
    assert_holds(path, "a");
    /* the same name twice is refused, and the first one's file survives */
    assert_true(gpn_env_init(&seeded, NULL, &hooks));
    assert_true(gpn_whole_begin(&a, &seeded, path, &oserr));
    clock.seed = 3;
    assert_false(gpn_whole_begin(&b, &seeded, path, &oserr));
    assert_int_equal(oserr, EEXIST);
    assert_true(gpn_whole_write(&a, "c", 1, &oserr));
    assert_true(gpn_whole_commit(&a, &oserr));
    assert_holds(path, "c");
}

/* ---- process ---- */

static bool count_root(const unsigned char *der, size_t len, void *ctx)
{
    (void)der;
    (void)len;
    *(int *)ctx += 1;
    return true;
}

static void variables_and_tables_are_there(void **state)
{
    int roots = 0;

    (void)state;
    setenv("GPTNER_TEST_VARIABLE", "value", 1);
    assert_string_equal(gpn_env_get("GPTNER_TEST_VARIABLE"), "value");
    setenv("GPTNER_TEST_VARIABLE", "", 1);
    assert_null(gpn_env_get("GPTNER_TEST_VARIABLE"));
    unsetenv("GPTNER_TEST_VARIABLE");
    assert_null(gpn_env_get("GPTNER_TEST_VARIABLE"));
    assert_string_equal(gpn_ca_paths()[0],
                        "/etc/ssl/certs/ca-certificates.crt");
    assert_string_equal(gpn_ca_dirs()[0], "/etc/ssl/certs");
    assert_false(gpn_system_roots(count_root, &roots));
    assert_int_equal(roots, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_allocator_is_whole_or_refused),
        cmocka_unit_test_setup(memory_comes_from_the_allocator_and_may_fail,
                               set_up),
        cmocka_unit_test(sizes_are_added_and_multiplied_with_care),
        cmocka_unit_test_setup(clocks_follow_the_system_or_the_hooks, set_up),
        cmocka_unit_test_setup(a_failing_clock_or_chance_gives_something_safe,
                               set_up),
        cmocka_unit_test_setup(threads_share_counters, set_up),
        cmocka_unit_test_setup(our_threads_leave_signals_to_the_caller, set_up),
        cmocka_unit_test_setup(a_detached_thread_needs_no_join, set_up),
        cmocka_unit_test_setup(starting_a_thread_may_fail_at_every_step,
                               set_up),
        cmocka_unit_test(error_numbers_have_texts_without_a_locale),
        cmocka_unit_test(ip_literals_are_told_from_names),
        cmocka_unit_test_setup(a_name_is_resolved_or_the_reason_given, set_up),
        cmocka_unit_test_setup(bytes_go_there_and_back_and_the_end_is_seen,
                               set_up),
        cmocka_unit_test_setup(a_refused_connection_says_so, set_up),
        cmocka_unit_test_setup(a_connection_in_progress_is_not_taken_for_made,
                               set_up),
        cmocka_unit_test_setup(writing_to_a_reset_connection_kills_nobody,
                               set_up),
        cmocka_unit_test_setup(a_full_socket_wants_to_write, set_up),
        cmocka_unit_test_setup(socket_calls_fail_on_demand, set_up),
        cmocka_unit_test_setup(a_poller_without_descriptors_leaks_none, set_up),
        cmocka_unit_test_setup(a_poller_without_memory_says_so, set_up),
        cmocka_unit_test_setup(no_socket_starves_when_the_list_is_short,
                               set_up),
        cmocka_unit_test_setup(another_thread_wakes_the_poller, set_up),
        cmocka_unit_test_setup(a_signal_handler_wakes_the_poller, set_up),
        cmocka_unit_test_setup(a_wait_lasts_as_long_as_it_should, set_up),
        cmocka_unit_test_setup(hours_pass_in_no_time_with_a_wait_hook, set_up),
        cmocka_unit_test_setup(a_file_is_written_and_read_back, set_up),
        cmocka_unit_test_setup(a_full_disk_and_other_refusals_are_reported,
                               set_up),
        cmocka_unit_test_setup(file_calls_fail_on_demand, set_up),
        cmocka_unit_test_setup(standard_streams_are_not_closed, set_up),
        cmocka_unit_test_setup(a_whole_file_replaces_the_old_at_commit, set_up),
        cmocka_unit_test_setup(a_device_is_written_to_and_not_replaced, set_up),
        cmocka_unit_test_setup(
            a_whole_file_is_whole_or_not_there_whatever_fails, set_up),
        cmocka_unit_test_setup(whole_files_begun_together_do_not_collide,
                               set_up),
        cmocka_unit_test_setup(variables_and_tables_are_there, set_up),
    };

    return cmocka_run_group_tests_name("platform", tests, NULL, NULL);
}
