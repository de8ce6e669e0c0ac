/* What the tests of all sections share. Include it after gptner.h, whose
 * feature-test macros come first. A test that defines GPTNER_FAULT_INJECTION
 * gets gptner_fault() here. Everything may be called from several threads. */
#ifndef TEST_COMMON_H
#define TEST_COMMON_H

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TEST_HELPER   static __attribute__((unused))
#define TEST_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- faults: fail the n-th call of a kind (1 is the next), or that and all
 * after it. Counting goes on when nothing is set to fail. ---- */

typedef struct test_fault_state {
    int kind, n;
    bool from_then_on;
    int calls[16]; /* by kind, since test_fault_set */
    int fired;
} test_fault_state;

static __attribute__((unused)) test_fault_state test_faults;

#ifdef GPTNER_FAULT_INJECTION
int gptner_fault(int kind)
{
    test_fault_state *f = &test_faults;
    int call = __atomic_add_fetch(&f->calls[kind & 15], 1, __ATOMIC_SEQ_CST);

    if (kind != f->kind || (f->from_then_on ? call < f->n : call != f->n)) {
        return 0;
    }
    __atomic_add_fetch(&f->fired, 1, __ATOMIC_SEQ_CST);
    return 1;
}
#endif

/* kind 0: none fails. Not while other threads run. */
TEST_HELPER void test_fault_set(int kind, int n, bool from_then_on)
{
    memset(&test_faults, 0, sizeof test_faults);
    test_faults.kind = kind;
    test_faults.n = n;
    test_faults.from_then_on = from_then_on;
}

TEST_HELPER void test_fault_clear(void)
{
    test_fault_set(0, 0, false);
}

/* Has the fault happened? When not, n was larger than the number of calls. */
TEST_HELPER bool test_fault_fired(void)
{
    return __atomic_load_n(&test_faults.fired, __ATOMIC_SEQ_CST) > 0;
}

TEST_HELPER int test_fault_calls(int kind)
{
    return __atomic_load_n(&test_faults.calls[kind & 15], __ATOMIC_SEQ_CST);
}

/* ---- an allocator that counts, and fails the fail_at-th call (0: none) ----
 */

typedef struct test_mem {
    long fail_at;
    bool from_then_on;
    long calls;  /* alloc and realloc */
    long blocks; /* not yet freed: 0 at the end, or it leaks */
    long bytes, peak;
} test_mem;

TEST_HELPER bool test_mem_fails(test_mem *m)
{
    long call = __atomic_add_fetch(&m->calls, 1, __ATOMIC_SEQ_CST);

    return m->fail_at > 0 &&
           (m->from_then_on ? call >= m->fail_at : call == m->fail_at);
}

TEST_HELPER void test_mem_account(test_mem *m, long blocks, long bytes)
{
    long now = __atomic_add_fetch(&m->bytes, bytes, __ATOMIC_SEQ_CST);
    long peak = __atomic_load_n(&m->peak, __ATOMIC_SEQ_CST);

    __atomic_add_fetch(&m->blocks, blocks, __ATOMIC_SEQ_CST);
    while (now > peak &&
           !__atomic_compare_exchange_n(&m->peak, &peak, now, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
}

#define TEST_MEM_HEAD 16 /* bytes; holds the size */

TEST_HELPER void *test_mem_alloc(size_t size, void *user)
{
    test_mem *m = (test_mem *)user;
    char *p = test_mem_fails(m) ? NULL : (char *)malloc(size + TEST_MEM_HEAD);

    if (p == NULL) {
        return NULL;
    }
    memcpy(p, &size, sizeof size);
    memset(p + TEST_MEM_HEAD, 0xa5, size); /* nobody may count on zeros */
    test_mem_account(m, 1, (long)size);
    return p + TEST_MEM_HEAD;
}

TEST_HELPER void test_mem_free(void *ptr, void *user)
{
    char *p = (char *)ptr - TEST_MEM_HEAD;
    size_t size;

    memcpy(&size, p, sizeof size);
    memset(ptr, 0x5a, size);
    test_mem_account((test_mem *)user, -1, -(long)size);
    free(p);
}

/* Always moves, so that a stale pointer shows. */
TEST_HELPER void *test_mem_realloc(void *ptr, size_t size, void *user)
{
    void *moved = test_mem_alloc(size, user);
    size_t old;

    if (moved != NULL) {
        memcpy(&old, (char *)ptr - TEST_MEM_HEAD, sizeof old);
        memcpy(moved, ptr, old < size ? old : size);
        test_mem_free(ptr, user);
    }
    return moved;
}

TEST_HELPER gptner_allocator test_mem_allocator(test_mem *m)
{
    gptner_allocator a;

    a.alloc_fn = test_mem_alloc;
    a.realloc_fn = test_mem_realloc;
    a.free_fn = test_mem_free;
    a.user = m;
    return a;
}

/* ---- a virtual clock: waiting advances it, and nobody waits ---- */

typedef struct test_clock {
    int64_t now_ms;       /* start it at 1 or more */
    int64_t unix_zero_ms; /* added to now_ms */
    uint64_t seed;
    int waits;
} test_clock;

TEST_HELPER int64_t test_clock_monotonic(void *user)
{
    return __atomic_load_n(&((test_clock *)user)->now_ms, __ATOMIC_SEQ_CST);
}

TEST_HELPER int64_t test_clock_unix(void *user)
{
    return test_clock_monotonic(user) + ((test_clock *)user)->unix_zero_ms;
}

TEST_HELPER uint64_t test_clock_random(void *user)
{
    uint64_t x =
        __atomic_add_fetch(&((test_clock *)user)->seed,
                           UINT64_C(0x9e3779b97f4a7c15), __ATOMIC_SEQ_CST);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Without a limit there is nothing to advance to: a real wait. */
TEST_HELPER bool test_clock_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    test_clock *c = (test_clock *)user;
    int64_t seen = now_ms;

    if (until_ms == INT64_MAX) {
        return false;
    }
    __atomic_add_fetch(&c->waits, 1, __ATOMIC_SEQ_CST);
    __atomic_compare_exchange_n(&c->now_ms, &seen, until_ms, false,
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return true;
}

TEST_HELPER gptner_hooks test_clock_hooks(test_clock *c)
{
    gptner_hooks h;

    h.monotonic_ms_fn = test_clock_monotonic;
    h.unix_ms_fn = test_clock_unix;
    h.random_fn = test_clock_random;
    h.wait_fn = test_clock_wait;
    h.user = c;
    return h;
}

TEST_HELPER void test_sleep_ms(int ms)
{
    struct timespec t;

    t.tv_sec = ms / 1000;
    t.tv_nsec = (ms % 1000) * 1000000;
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

/* ---- memory whose end borders an unmapped page ---- */

typedef struct test_page {
    char *map;
    size_t size; /* usable bytes */
} test_page;

TEST_HELPER void test_page_init(test_page *p, size_t max)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    p->size = (max / page + 1) * page;
    p->map = (char *)mmap(NULL, p->size + page, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p->map != MAP_FAILED);
    assert_int_equal(mprotect(p->map + p->size, page, PROT_NONE), 0);
}

TEST_HELPER void test_page_deinit(test_page *p)
{
    munmap(p->map, p->size + (size_t)sysconf(_SC_PAGESIZE));
}

/* A copy of data (NULL: whatever is there) that ends at the border. */
TEST_HELPER char *test_page_put(test_page *p, const void *data, size_t len)
{
    assert_true(len <= p->size);
    if (data != NULL && len > 0) {
        memcpy(p->map + p->size - len, data, len);
    }
    return p->map + p->size - len;
}

/* ---- files ---- */

/* All of a file with a NUL behind it, to be freed; NULL: cannot be read. */
TEST_HELPER char *test_slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    size_t cap = 65536, n;
    char *data;

    *len = 0;
    if (f == NULL) {
        return NULL;
    }
    data = (char *)malloc(cap + 1);
    while ((n = fread(data + *len, 1, cap - *len, f)) > 0) {
        *len += n;
        if (*len == cap) {
            cap *= 2;
            data = (char *)realloc(data, cap + 1);
        }
    }
    fclose(f);
    data[*len] = '\0';
    return data;
}

TEST_HELPER void test_spit(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

typedef struct test_tmp_state {
    char path[64];
    pid_t owner; /* a forked child must not remove it */
} test_tmp_state;

static __attribute__((unused)) test_tmp_state test_tmp;

TEST_HELPER int test_tmp_remove_one(const char *path, const struct stat *st,
                                    int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

TEST_HELPER void test_tmp_remove(void)
{
    if (test_tmp.owner == getpid()) {
        nftw(test_tmp.path, test_tmp_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
}

/* A folder of this program's own, removed with all in it at the end. */
TEST_HELPER const char *test_tmp_dir(void)
{
    if (test_tmp.owner == 0) {
        snprintf(test_tmp.path, sizeof test_tmp.path, "/tmp/gptner-XXXXXX");
        assert_non_null(mkdtemp(test_tmp.path));
        test_tmp.owner = getpid();
        atexit(test_tmp_remove);
    }
    return test_tmp.path;
}

TEST_HELPER char *test_tmp_path(char path[256], const char *name)
{
    snprintf(path, 256, "%s/%s", test_tmp_dir(), name);
    return path;
}

/* The path of a file of the corpus in path, or NULL after a line that says
 * what is skipped; then the test calls skip(). */
TEST_HELPER char *test_corpus(char path[1024], const char *name)
{
    const char *root = getenv("GPTNER_CORPUS");

    snprintf(path, 1024, "%s/%s", root != NULL ? root : "../shared/corpus",
             name);
    if (access(path, R_OK) == 0) {
        return path;
    }
    printf("SKIPPED: no %s (set GPTNER_CORPUS to the corpus folder)\n", path);
    return NULL;
}

/* ---- text tables: cut lines, then fields, off a text in place ---- */

/* The next part of *rest up to end; NULL: none left. */
TEST_HELPER char *test_cut(char **rest, char end)
{
    char *part = *rest, *at;

    if (part == NULL || (end == '\n' && *part == '\0')) {
        return NULL;
    }
    at = strchr(part, end);
    *rest = at != NULL ? at + 1 : NULL;
    if (at != NULL) {
        *at = '\0';
    }
    return part;
}

/* Decodes pairs of hexadecimal digits up to the first other character;
 * returns the number of bytes. out may be text itself. */
TEST_HELPER size_t test_unhex(const char *text, void *out)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char *p = (unsigned char *)out;
    size_t n = 0;
    const char *a, *b;

    for (;; text += 2) {
        a = text[0] != '\0' ? strchr(digits, text[0] | 0x20) : NULL;
        b = a != NULL && text[1] != '\0' ? strchr(digits, text[1] | 0x20)
                                         : NULL;
        if (b == NULL) {
            return n;
        }
        p[n++] = (unsigned char)((a - digits) << 4 | (b - digits));
    }
}

/* An atomic sum for threads of tests; the header itself needs none. */
#define test_atomic_add(a, n) \
    __atomic_add_fetch(&(a)->value, (n), __ATOMIC_SEQ_CST)

static inline void test_sha256(const void *data, size_t len,
                               unsigned char out[32])
{
    gpn_sha256_state state;

    gpn_sha256_init(&state);
    gpn_sha256_update(&state, data, len);
    gpn_sha256_final(&state, out);
}

#endif
