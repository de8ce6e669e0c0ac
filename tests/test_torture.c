/* What happens when the system says no: the n-th allocation, file call, socket
 * call, TLS call, thread, clock or random number fails, alone or with all after
 * it, for every n until nothing was left to fail. Each time there must be a
 * typed error or success, and no leak, no open descriptor, no half file, no
 * hang. Only calls of gptner.h fail, those of the mock in this process do not.
 *   GPTNER_SLOW=1   in ever larger steps of n, for valgrind and TSan
 *   TORTURE_VERBOSE=1   how many n there were, and how long they took
 */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include <stddef.h>

/* All memory of the library, also where no allocator can be handed over. */
static void *counted_malloc(size_t size);
static void *counted_realloc(void *ptr, size_t size);
static void counted_free(void *ptr);
#define GPTNER_MALLOC(size)       counted_malloc(size)
#define GPTNER_REALLOC(ptr, size) counted_realloc(ptr, size)
#define GPTNER_FREE(ptr)          counted_free(ptr)
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

#define N_LINES 8 /* prompts in the input files */

static test_mem memory;     /* of GPTNER_MALLOC; */
static test_mem own_memory; /* of config.allocator */
static mock_server *plain, *secure;
static char input_txt[256], input_jsonl[256], output_txt[256];
static char output_jsonl[256], saved[256], ca_file[256], cert[256], key[256];
static char ca_dir[256],
    work_dir[256]; /* where outputs go: holds nothing else */
static char localhost_url[64];
static bool have_cert, slow, verbose;
static const char *wrong; /* what a callback did not like */

static void *counted_malloc(size_t size)
{
    return test_mem_alloc(size, &memory);
}

static void *counted_realloc(void *ptr, size_t size)
{
    return ptr != NULL ? test_mem_realloc(ptr, size, &memory)
                       : counted_malloc(size);
}

static void counted_free(void *ptr)
{
    if (ptr != NULL) {
        test_mem_free(ptr, &memory);
    }
}

/* ---- the command line, as a function ------------------------------------- */

int cli_main(int argc, char **argv);
#define main cli_main
#include "../examples/batch_processing_example.c"
#undef main

/* ---- the loop over kinds and n ------------------------------------------- */

/* clang-format off */
#define MALLOC_FAULT 15 /* not of gptner.h: malloc for all but the mock */
static const char *const kind_names[16] = {
    "", "ALLOC", "FILE", "SOCKET", "TLS", "THREAD", "CLOCK", "RANDOM",
    "RESOLVE", "", "", "", "", "", "", "MALLOC"
};
/* clang-format on */

static char label[128]; /* which n of what is being tried */
static const char *scene_name;
static bool quiet_run; /* no fault is set: success is expected */

static int n_broken, all_broken; /* of a kind; of a test */

/* Says what was broken and goes on, so that one run names everything. */
static void broken(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
static void broken(const char *format, ...)
{
    char text[512];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (++n_broken <= 30) {
        print_error("%s: %s\n", label, text);
    }
}

static void on_alarm(int number)
{
    static const char text[] = ": hangs\n";

    (void)number;
    if (write(2, label, strlen(label)) < 0 ||
        write(2, text, sizeof text - 1) < 0) {
        _exit(3);
    }
    _exit(2);
}

/* What a client must give back. The descriptors are compared with those of the
 * start, not of the try: a connection that the mock takes only after its client
 * has gone would be counted in before a try, and be missing after it. */
typedef struct things {
    long blocks, own, others, descriptors;
} things;

static long first_descriptors;

static long tracked_blocks(void);

static void count_things(things *t)
{
    int fd;

    t->blocks = __atomic_load_n(&memory.blocks, __ATOMIC_SEQ_CST);
    t->own = __atomic_load_n(&own_memory.blocks, __ATOMIC_SEQ_CST);
    t->others = tracked_blocks();
    t->descriptors = 0;
    for (fd = 0; fd < 256; fd++) {
        t->descriptors += fcntl(fd, F_GETFD) != -1;
    }
}

/* The mock closes its ends, and a helper thread ends, a little later. */
static void expect_nothing_left(const things *before)
{
    things now = {0, 0, 0, 0};
    int most = n_broken < 3 ? 20000 : 1000, i; /* some 10 s */

    for (i = 0; i < most; i++) {
        count_things(&now);
        if (memcmp(&now, before, sizeof now) == 0) {
            return;
        }
        usleep(i < 100 ? 50 : 500);
    }
    broken("left over: %ld + %ld blocks of the library's, %ld others, %ld "
           "descriptors",
           now.blocks - before->blocks, now.own - before->own,
           now.others - before->others, now.descriptors - before->descriptors);
}

static void expect_folder_clean(void)
{
    DIR *dir = opendir(work_dir);
    const struct dirent *entry;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            broken("%s is left over", entry->d_name);
        }
    }
    closedir(dir);
}

static void expect_typed(gptner_status status, const char *message)
{
    if (strcmp(gptner_status_text(status), "unknown status") == 0) {
        broken("status %d is unknown", (int)status);
    }
    if (status != GPTNER_OK && message[0] == '\0') {
        broken("%s without a message", gptner_status_name(status));
    }
    if (status != GPTNER_OK && quiet_run) {
        broken("%s: %s", gptner_status_name(status), message);
    }
}

static void arm_malloc(int n, bool from_then_on);
static bool disarm_malloc(void);

/* One try; false: there was no n-th call. */
static bool try_one(void (*scene)(void), int kind, int n, bool from_then_on)
{
    things before;
    bool fired;

    if (kind == 0) {
        snprintf(label, sizeof label, "%s: nothing fails", scene_name);
    } else {
        snprintf(label, sizeof label, "%s: %s call %d%s fails", scene_name,
                 kind_names[kind], n, from_then_on ? " and all after it" : "");
    }
    wrong = NULL;
    quiet_run = kind == 0;
    alarm(slow ? 300 : 40);
    if (kind == MALLOC_FAULT) {
        arm_malloc(n, from_then_on);
    } else {
        test_fault_set(kind, n, from_then_on);
    }
    count_things(&before);
    before.descriptors = first_descriptors;
    scene();
    expect_nothing_left(&before);
    fired = kind == MALLOC_FAULT ? disarm_malloc() : test_fault_fired();
    test_fault_clear();
    alarm(0);
    if (wrong != NULL) {
        broken("%s", wrong);
    }
    expect_folder_clean();
    return fired;
}

static void torture_kind(const char *name, void (*scene)(void), int kind,
                         bool from_then_on)
{
    int64_t from = mki_os_clock_ms();
    int n = 1, tries = 0, missed = 0, growth = 0;

    scene_name = name;
    n_broken = 0;
    if (slow) {
        growth = 2;
    } else if (kind == MALLOC_FAULT) {
        growth = 20;
    }
    while (missed < 2) { /* threads make the number of calls vary a little */
        missed = try_one(scene, kind, n, from_then_on) ? 0 : missed + 1;
        n += 1 + (growth > 0 ? n / growth : 0);
        tries++;
    }
    try_one(scene, 0, 0, false); /* nothing is broken for good */
    if (verbose) {
        print_error("%-8s %-8s %s n to %4d, %4d tries, %5d ms\n", name,
                    kind_names[kind], from_then_on ? "from" : "only", n - 2,
                    tries, (int)(mki_os_clock_ms() - from));
    }
    all_broken += n_broken;
}

static void torture(const char *name, void (*scene)(void))
{
    int kind;

    all_broken = 0;
    scene_name = name;
    try_one(scene, 0, 0, false);
    for (kind = GPN_FAULT_ALLOC; kind <= GPN_FAULT_RESOLVE; kind++) {
        torture_kind(name, scene, kind, false);
        torture_kind(name, scene, kind, true);
    }
    assert_int_equal(all_broken, 0);
}

/* ---- malloc for the whole process but the mock --------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(SANITIZED)
#define OWN_MALLOC 1
#endif

#ifdef OWN_MALLOC
static struct {
    int n, calls;
    bool armed, paused, from_then_on;
} mallocs;

void *real_malloc(size_t size) __asm__("__libc_malloc");
void *real_calloc(size_t n, size_t size) __asm__("__libc_calloc");
void *real_realloc(void *ptr, size_t size) __asm__("__libc_realloc");
void real_free(void *ptr) __asm__("__libc_free");

/* The blocks taken while a fault was armed: a hash table of addresses, with
 * linear probing. Whatever is not given back is a leak. */
#define TRACKED (1u << 16)
static struct {
    void *place[TRACKED];
    long count;
    int lock;
} tracked;

static unsigned tracked_at(const void *ptr)
{
    return (unsigned)((uintptr_t)ptr >> 4) * 2654435761u >> 16 & (TRACKED - 1);
}

static void *track(void *ptr)
{
    unsigned i = tracked_at(ptr);

    if (ptr == NULL || tracked.count > (long)TRACKED / 2) {
        return ptr;
    }
    while (__atomic_exchange_n(&tracked.lock, 1, __ATOMIC_ACQUIRE) != 0) {
    }
    while (tracked.place[i] != NULL) {
        i = (i + 1) & (TRACKED - 1);
    }
    tracked.place[i] = ptr;
    tracked.count++;
    __atomic_store_n(&tracked.lock, 0, __ATOMIC_RELEASE);
    return ptr;
}

/* Closes the gap, so that what was pushed on is found without marks. */
static void untrack(void *ptr)
{
    unsigned i = tracked_at(ptr), k;

    while (__atomic_exchange_n(&tracked.lock, 1, __ATOMIC_ACQUIRE) != 0) {
    }
    while (tracked.place[i] != NULL && tracked.place[i] != ptr) {
        i = (i + 1) & (TRACKED - 1);
    }
    if (tracked.place[i] != NULL) {
        tracked.count--;
        tracked.place[i] = NULL;
        for (k = (i + 1) & (TRACKED - 1); tracked.place[k] != NULL;
             k = (k + 1) & (TRACKED - 1)) {
            unsigned home = tracked_at(tracked.place[k]);
            if (((k - home) & (TRACKED - 1)) >= ((k - i) & (TRACKED - 1))) {
                tracked.place[i] = tracked.place[k];
                tracked.place[k] = NULL;
                i = k;
            }
        }
    }
    __atomic_store_n(&tracked.lock, 0, __ATOMIC_RELEASE);
}

static long tracked_blocks(void)
{
    return __atomic_load_n(&tracked.count, __ATOMIC_SEQ_CST);
}

/* Of a thread that is not the mock's, while faults are armed. */
static bool malloc_counts(void)
{
    return __atomic_load_n(&mallocs.armed, __ATOMIC_SEQ_CST) &&
           !mallocs.paused && !pthread_equal(pthread_self(), plain->thread) &&
           !pthread_equal(pthread_self(), secure->thread);
}

static bool malloc_fails(void)
{
    int call = __atomic_add_fetch(&mallocs.calls, 1, __ATOMIC_SEQ_CST);

    return mallocs.from_then_on ? call >= mallocs.n : call == mallocs.n;
}

void *malloc(size_t size)
{
    if (!malloc_counts()) {
        return real_malloc(size);
    }
    return malloc_fails() ? NULL : track(real_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    if (!malloc_counts()) {
        return real_calloc(n, size);
    }
    return malloc_fails() ? NULL : track(real_calloc(n, size));
}

void free(void *ptr)
{
    if (ptr != NULL && tracked_blocks() > 0) {
        untrack(ptr);
    }
    real_free(ptr);
}

void *realloc(void *ptr, size_t size)
{
    if (ptr == NULL) {
        return malloc(size);
    }
    if (!malloc_counts()) {
        return real_realloc(ptr, size); /* nothing of ours comes here */
    }
    if (malloc_fails()) {
        return NULL;
    }
    untrack(ptr);
    return track(real_realloc(ptr, size));
}

static void arm_malloc(int n, bool from_then_on)
{
    mallocs.n = n;
    mallocs.calls = 0;
    mallocs.from_then_on = from_then_on;
    __atomic_store_n(&mallocs.armed, true, __ATOMIC_SEQ_CST);
}

static bool disarm_malloc(void)
{
    __atomic_store_n(&mallocs.armed, false, __ATOMIC_SEQ_CST);
    return mallocs.calls >= mallocs.n;
}

/* What this test itself allocates in between must not fail. */
static void pause_malloc_faults(bool pause)
{
    mallocs.paused = pause;
}
#else
static long tracked_blocks(void)
{
    return 0;
}

static void arm_malloc(int n, bool from_then_on)
{
    (void)n;
    (void)from_then_on;
}

static bool disarm_malloc(void)
{
    return false;
}

static void pause_malloc_faults(bool pause)
{
    (void)pause;
}
#endif

/* ---- scenes: the life of a client ---------------------------------------- */

static void config_for(gptner_config *cfg, const mock_server *mock)
{
    memset(cfg, 0, sizeof *cfg);
    cfg->base_url = mock_server_base_url(mock);
    cfg->api_key = "sk-test-0123456789";
    cfg->proxy = "";
    cfg->max_retries = 1;
    cfg->max_throttle_retries = 1;
    cfg->max_bad_reply_retries = 1;
    cfg->backoff_ms = 1;
    cfg->max_backoff_ms = 2;
    if (mock == secure) {
        cfg->ca_pem = gptner_str_from(mock_server_ca_pem(mock));
    }
}

static void config_full(gptner_config *cfg)
{
    static const gptner_header headers[] = {{"X-One", "1"}, {"X-Two", "2"}};
    static const char *const stop[] = {"END", "STOP"};

    config_for(cfg, secure);
    cfg->ca_pem = gptner_str_from(NULL);
    cfg->ca_file = ca_file;
    cfg->ca_dir = ca_dir;
    if (have_cert) {
        cfg->client_cert_file = cert;
        cfg->client_key_file = key;
        cfg->client_key_password = "secret";
    }
    cfg->organization = "org";
    cfg->project = "proj";
    cfg->api_version = "2024-06-01";
    cfg->headers = headers;
    cfg->n_headers = 2;
    cfg->system = "You are terse.";
    cfg->no_proxy = "127.0.0.1,example.com";
    cfg->keep_raw = true;
    cfg->allocator = test_mem_allocator(&own_memory);
    cfg->options.model = "gpt-4o";
    cfg->options.stop = stop;
    cfg->options.n_stop = 2;
    cfg->options.format = GPTNER_FORMAT_JSON_SCHEMA;
    cfg->options.schema_name = "thing";
    cfg->options.schema_json =
        "{\"type\":\"object\",\"properties\":{},\"required\":[],"
        "\"additionalProperties\":false}";
    cfg->options.extra_body_json = "{\"user\":\"me\",\"store\":false}";
}

/* The client, or NULL after a look at the error. */
static gptner_client *new_client(const gptner_config *cfg)
{
    gptner_client *c = NULL;
    gptner_error err;
    gptner_status status;

    memset(&err, 0, sizeof err);
    status = gptner_client_new(cfg, &c, &err);
    expect_typed(status, err.message);
    if ((status == GPTNER_OK) != (c != NULL) || err.status != status) {
        broken("client_new: status and client or error differ");
    }
    return c;
}

static void scene_life(void)
{
    gptner_config cfg;

    config_full(&cfg);
    cfg.proxy = "http://user:word@127.0.0.1:9/";
    gptner_client_free(new_client(&cfg));
}

/* ---- scenes: one request ------------------------------------------------- */

static void look_at_result(gptner_status status, gptner_result *r,
                           const gptner_error *err, const char *want)
{
    expect_typed(status, err->message);
    if (err->status != status || (r != NULL && r->status != status)) {
        broken("call, error and result name different statuses");
    }
    if (r != NULL) {
        expect_typed(r->status, r->message);
    }
    if (status == GPTNER_OK && r == NULL) {
        broken("success without a result");
    }
    if (status == GPTNER_OK && r != NULL && want != NULL &&
        (r->text.len != strlen(want) ||
         memcmp(r->text.ptr, want, r->text.len) != 0)) {
        broken("answer \"%.*s\"", (int)r->text.len, r->text.ptr);
    }
    gptner_result_free(r);
}

static void ask_once(gptner_client *c, const char *want)
{
    gptner_result *r = NULL;
    gptner_error err;
    gptner_status status;

    memset(&err, 0, sizeof err);
    status = gptner_ask(c, "What is this?", &r, &err);
    look_at_result(status, r, &err, want);
}

static void scene_http(void)
{
    gptner_config cfg;
    gptner_client *c;

    config_for(&cfg, plain);
    c = new_client(&cfg);
    if (c != NULL) {
        ask_once(c, "What is this?");
        ask_once(c, "What is this?"); /* on the kept connection */
        gptner_client_free(c);
    }
}

static void scene_https(void)
{
    gptner_config cfg;
    gptner_client *c;

    config_full(&cfg);
    c = new_client(&cfg);
    if (c != NULL) {
        ask_once(c, NULL);
        gptner_client_free(c);
    }
}

static bool take_delta(const gptner_delta *delta, void *user)
{
    size_t *len = (size_t *)user;

    *len += delta->text.len;
    return true;
}

/* By name: the resolver takes part, and an address that refuses. */
static void scene_stream(void)
{
    gptner_config cfg;
    gptner_client *c;
    gptner_prompt p;
    gptner_result *r = NULL;
    gptner_error err;
    gptner_status status;
    size_t len = 0;

    config_for(&cfg, plain);
    cfg.base_url = localhost_url;
    c = new_client(&cfg);
    if (c == NULL) {
        return;
    }
    memset(&p, 0, sizeof p);
    memset(&err, 0, sizeof err);
    p.text = gptner_str_from("one two three four five");
    status = gptner_chat_stream(c, &p, take_delta, &len, &r, &err);
    look_at_result(status, r, &err, "one two three four five");
    if (status == GPTNER_OK && len != p.text.len) {
        broken("%d bytes of pieces", (int)len);
    }
    gptner_client_free(c);
}

static void embed_and_list(gptner_client *c)
{
    gptner_embeddings *v = NULL;
    gptner_models *m = NULL;
    gptner_error err;
    gptner_status status;
    gptner_str texts[2];

    memset(&err, 0, sizeof err);
    texts[0] = gptner_str_from("one");
    texts[1] = gptner_str_from("two");
    status = gptner_embed(c, NULL, texts, 2, 64, &v, &err);
    expect_typed(status, err.message);
    if ((status == GPTNER_OK) != (v != NULL && v->count == 2)) {
        broken("embed: status and vectors differ");
    }
    gptner_embeddings_free(v);
    memset(&err, 0, sizeof err);
    status = gptner_models_list(c, &m, &err);
    expect_typed(status, err.message);
    if ((status == GPTNER_OK) != (m != NULL && m->count > 0)) {
        broken("models: status and list differ");
    }
    gptner_models_free(m);
}

static void save_reply(gptner_client *c)
{
    gptner_raw_request q;
    gptner_response *r = NULL;
    gptner_error err;
    gptner_status status;
    size_t len = 0;
    char *text;

    memset(&q, 0, sizeof q);
    memset(&err, 0, sizeof err);
    q.path = "/models";
    q.save_path = saved;
    status = gptner_raw(c, &q, &r, &err);
    expect_typed(status, err.message);
    if (status == GPTNER_OK && r == NULL) {
        broken("raw: success without a response");
    }
    text = test_slurp(saved, &len);
    if ((status == GPTNER_OK) != (text != NULL)) {
        broken("raw: %s, but the file is %s", gptner_status_name(status),
               text != NULL ? "there" : "not there");
    }
    if (text != NULL && r != NULL &&
        ((int64_t)len != r->body_bytes || text[0] != '{' ||
         strrchr(text, '}') == NULL)) {
        broken("raw: half a file");
    }
    free(text);
    remove(saved);
    gptner_response_free(r);
}

/* A name that the server refuses for batches: the body of its 400 is kept. */
static void upload(gptner_client *c)
{
    gptner_raw_request q;
    gptner_part parts[2];
    gptner_response *r = NULL;
    gptner_error err;
    gptner_status status;

    memset(&q, 0, sizeof q);
    memset(parts, 0, sizeof parts);
    memset(&err, 0, sizeof err);
    parts[0].name = "purpose";
    parts[0].value = gptner_str_from("batch");
    parts[1].name = "file";
    parts[1].path = input_jsonl;
    parts[1].filename = "in.txt";
    q.path = "/files";
    q.parts = parts;
    q.n_parts = 2;
    status = gptner_raw(c, &q, &r, &err);
    if (status == GPTNER_OK || (quiet_run && (r == NULL || r->status < 400))) {
        broken("upload: %s", gptner_status_name(status));
    }
    if (r == NULL || r->status < 400) {
        expect_typed(status, err.message);
    }
    gptner_response_free(r);
}

static void scene_raw(void)
{
    gptner_config cfg;
    gptner_client *c;

    config_for(&cfg, plain);
    c = new_client(&cfg);
    if (c != NULL) {
        embed_and_list(c);
        save_reply(c);
        upload(c);
        gptner_client_free(c);
    }
}

/* ---- scenes: a run ------------------------------------------------------- */

static const char *const lines[N_LINES] = {"alpha", "beta",  "alpha", "gamma",
                                           "delta", "gamma", "omega", "alpha"};

typedef struct seen {
    size_t count;
} seen;

static bool take_result(const gptner_result *r, void *user)
{
    seen *s = (seen *)user;

    if (r->index != s->count++) {
        wrong = "results out of order";
    }
    if (r->status != GPTNER_OK && r->message[0] == '\0') {
        wrong = "a result failed without a message";
    }
    if (r->status == GPTNER_OK && r->index < N_LINES &&
        (r->text.len != strlen(lines[r->index]) ||
         memcmp(r->text.ptr, lines[r->index], r->text.len) != 0)) {
        wrong = "another prompt's answer";
    }
    return true;
}

/* Absent or whole; removes it. */
static void look_at_output(const char *path, bool must_be_there, int64_t total)
{
    size_t len = 0;
    char *text, *rest, *line;
    bool json = strstr(path, ".jsonl") != NULL;
    int64_t n = 0;

    pause_malloc_faults(true);
    text = rest = test_slurp(path, &len);
    pause_malloc_faults(false);
    if (text == NULL && must_be_there) {
        broken("no %s", path);
    }
    if (len > 0 && text[len - 1] != '\n') {
        broken("half a line in %s", path);
    }
    while ((line = test_cut(&rest, '\n')) != NULL) {
        bool good = false;
        if (json) {
            good = line[0] == '{' && line[strlen(line) - 1] == '}';
        } else if (n < N_LINES) {
            good =
                strcmp(line, lines[n]) == 0 || strncmp(line, "ERROR: ", 7) == 0;
        }
        if (!good) {
            broken("line %d of %s: %s", (int)n + 1, path, line);
        }
        n++;
    }
    if (text != NULL && total >= 0 && n != total) {
        broken("%d lines in %s for %d prompts", (int)n, path, (int)total);
    }
    free(text);
    remove(path);
}

static void look_at_results(gptner_status status, gptner_result **results,
                            size_t n, const gptner_run_summary *sum)
{
    size_t i;

    if (status == GPTNER_OK && n != N_LINES) {
        broken("%d results of the array", (int)n);
    }
    if ((int64_t)n > sum->total || (n > 0 && results == NULL)) {
        broken("array of %d results, %d prompts", (int)n, (int)sum->total);
    }
    for (i = 0; i < n; i++) {
        if (results[i] == NULL || results[i]->index != i) {
            broken("result %d is missing", (int)i);
            continue;
        }
        expect_typed(results[i]->status, results[i]->message);
    }
    gptner_results_free(results, n);
}

static void run_files(const mock_server *mock, const char *in, const char *out)
{
    gptner_config cfg;
    gptner_client *c;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_error err;
    gptner_status status;
    gptner_result **results = NULL;
    size_t n = 0;
    seen s;

    config_for(&cfg, mock);
    cfg.max_workers = 3;
    cfg.max_threads = 2;
    c = new_client(&cfg);
    if (c == NULL) {
        return;
    }
    memset(&run, 0, sizeof run);
    memset(&sum, 0, sizeof sum);
    memset(&err, 0, sizeof err);
    memset(&s, 0, sizeof s);
    run.input_path = in;
    run.output_path = out;
    run.results = &results;
    run.n_results = &n;
    run.result_fn = take_result;
    run.result_user = &s;
    run.dedupe = true;
    status = gptner_run(c, &run, &sum, &err);
    expect_typed(status, err.message);
    if ((int64_t)s.count != sum.total || sum.ok + sum.failed != sum.total ||
        (status == GPTNER_OK && sum.total != N_LINES) ||
        (quiet_run && sum.ok != N_LINES)) {
        broken("%s: %d prompts, %d ok, %d failed, %d results",
               gptner_status_name(status), (int)sum.total, (int)sum.ok,
               (int)sum.failed, (int)s.count);
    }
    look_at_results(status, results, n, &sum);
    look_at_output(out, status == GPTNER_OK, sum.total);
    gptner_client_free(c);
}

static void scene_run_txt(void)
{
    run_files(plain, input_txt, output_txt);
}

static void scene_run_jsonl(void)
{
    run_files(plain, input_jsonl, output_jsonl);
}

static void scene_run_https(void)
{
    run_files(secure, input_txt, output_jsonl);
}

/* ---- scene: the command line --------------------------------------------- */

static void scene_cli(void)
{
    const char *const words[] = {
        NAME,       "--input",       input_txt, "--output",
        output_txt, "--base-url",    NULL,      "--max-retries",
        "0",        "--max-workers", "3",       "--system",
        ""};
    char *argv[TEST_COUNT(words) + 1];
    char copies[TEST_COUNT(words)][256];
    int null = open("/dev/null", O_WRONLY);
    int old = dup(2);
    size_t i;
    int result;

    for (i = 0; i < TEST_COUNT(words); i++) {
        snprintf(copies[i], sizeof copies[i], "%s",
                 words[i] != NULL ? words[i] : mock_server_base_url(plain));
        argv[i] = copies[i];
    }
    argv[i] = NULL;
    dup2(null, 2);
    result = cli_main((int)i, argv);
    dup2(old, 2);
    close(old);
    close(null);
    if (result != EXIT_ANSWERED && (quiet_run || (result != EXIT_SOME_FAILED &&
                                                  result != EXIT_RUN_FAILED))) {
        broken("exit status %d", result);
    }
    look_at_output(output_txt, result != EXIT_RUN_FAILED,
                   result != EXIT_RUN_FAILED ? N_LINES : -1);
}

/* ---- tests --------------------------------------------------------------- */

static void the_life_of_a_client_survives_any_failure(void **state)
{
    (void)state;
    torture("life", scene_life);
}

static void requests_over_http_survive_any_failure(void **state)
{
    (void)state;
    torture("http", scene_http);
}

static void requests_over_https_survive_any_failure(void **state)
{
    (void)state;
    torture("https", scene_https);
}

static void streams_to_a_name_survive_any_failure(void **state)
{
    (void)state;
    torture("stream", scene_stream);
}

static void other_endpoints_survive_any_failure(void **state)
{
    (void)state;
    torture("raw", scene_raw);
}

static void a_run_from_text_to_text_survives_any_failure(void **state)
{
    (void)state;
    torture("run txt", scene_run_txt);
}

static void a_run_from_jsonl_to_jsonl_survives_any_failure(void **state)
{
    (void)state;
    torture("run json", scene_run_jsonl);
}

static void the_command_line_survives_any_failure(void **state)
{
    (void)state;
    torture("cli", scene_cli);
}

/* mbedTLS's own memory, too, and that of the C library. */
static void tls_survives_a_failing_malloc(void **state)
{
    (void)state;
#ifndef OWN_MALLOC
    skip();
#endif
    all_broken = 0;
    torture_kind("https", scene_https, MALLOC_FAULT, false);
    torture_kind("https", scene_https, MALLOC_FAULT, true);
    torture_kind("run tls", scene_run_https, MALLOC_FAULT, false);
    torture_kind("run tls", scene_run_https, MALLOC_FAULT, true);
    assert_int_equal(all_broken, 0);
}

static void write_inputs(void)
{
    char text[1024], json[1024];
    size_t a = 0, b = 0, i;

    for (i = 0; i < N_LINES; i++) {
        a += (size_t)snprintf(text + a, sizeof text - a, "%s\n", lines[i]);
        b += (size_t)snprintf(json + b, sizeof json - b,
                              "{\"prompt\":\"%s\",\"custom_id\":\"%d\"}\n",
                              lines[i], (int)i);
    }
    test_spit(input_txt, text, a);
    test_spit(input_jsonl, json, b);
}

static int start(void **state)
{
    mock_options opt;
    char why[256], command[900], path[256];
    things now;

    (void)state;
    signal(SIGALRM, on_alarm);
    slow = getenv("GPTNER_SLOW") != NULL;
    verbose = getenv("TORTURE_VERBOSE") != NULL;
    clearenv();
    setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
    setenv("OPENAI_API_KEY", "sk-test-0123456789", 1);
    memset(&opt, 0, sizeof opt);
    opt.reply = "echo";
    opt.expect_repeats = -1;
    if (!mock_server_start(&opt, &plain, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    opt.tls = true;
    if (!mock_server_start(&opt, &secure, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    snprintf(localhost_url, sizeof localhost_url, "http://localhost:%d/v1",
             mock_server_port(plain));
    strcpy(test_tmp.path, "/dev/shm/gptner-XXXXXX"); /* nothing to sync */
    if (mkdtemp(test_tmp.path) != NULL) {
        test_tmp.owner = getpid();
        atexit(test_tmp_remove);
    }
    test_tmp_path(input_txt, "in.txt");
    test_tmp_path(input_jsonl, "in.jsonl");
    test_tmp_path(ca_file, "ca.pem");
    test_tmp_path(ca_dir, "cas");
    assert_int_equal(mkdir(ca_dir, 0700), 0);
    test_tmp_path(path, "cas/ca.pem");
    test_tmp_path(cert, "client.pem");
    test_tmp_path(key, "client.key");
    test_tmp_path(work_dir, "out");
    assert_int_equal(mkdir(work_dir, 0700), 0);
    test_tmp_path(output_txt, "out/out.txt");
    test_tmp_path(output_jsonl, "out/out.jsonl");
    test_tmp_path(saved, "out/saved");
    write_inputs();
    test_spit(ca_file, mock_server_ca_pem(secure),
              strlen(mock_server_ca_pem(secure)));
    test_spit(path, mock_server_ca_pem(secure),
              strlen(mock_server_ca_pem(secure)));
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
             "-keyout %s -passout pass:secret -out %s -days 30 "
             "-subj /CN=client >/dev/null 2>&1",
             key, cert);
    have_cert = system(command) == 0;
    count_things(&now);
    first_descriptors = now.descriptors;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    mock_server_stop(plain);
    mock_server_stop(secure);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_life_of_a_client_survives_any_failure),
        cmocka_unit_test(requests_over_http_survive_any_failure),
        cmocka_unit_test(requests_over_https_survive_any_failure),
        cmocka_unit_test(streams_to_a_name_survive_any_failure),
        cmocka_unit_test(other_endpoints_survive_any_failure),
        cmocka_unit_test(a_run_from_text_to_text_survives_any_failure),
        cmocka_unit_test(a_run_from_jsonl_to_jsonl_survives_any_failure),
        cmocka_unit_test(the_command_line_survives_any_failure),
        cmocka_unit_test(tls_survives_a_failing_malloc),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
