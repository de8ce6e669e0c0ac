/* What all fuzz targets share. A target is a function of some bytes that
 * breaks off (FUZZ_CHECK) when an answer is wrong; fuzz_main.h makes of it
 * libFuzzer's entry point, or a program that replays files and folders.
 * tests/test_fuzz.c includes all targets and replays tests/data/fuzz. */
#ifndef FUZZ_H
#define FUZZ_H

#ifndef GPTNER_IMPLEMENTATION
#define GPTNER_IMPLEMENTATION
#endif
#define GPTNER_STATIC
#ifndef GPTNER_NO_TLS
#define GPTNER_NO_TLS
#endif
#include "gptner.h"

#define MOCK_OPENAI_NO_TLS
#define MOCK_OPENAI_STATIC
#define MOCK_OPENAI_IMPLEMENTATION
#include "mock_server/mock_openai.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_CHECK(cond) \
    ((cond) ? (void)0 : fuzz_broken(#cond, __FILE__, __LINE__))

static void fuzz_broken(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

/* The next number of a sequence that depends on the input alone. */
static inline uint64_t fuzz_random(uint64_t *state)
{
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    return *state >> 33;
}

static inline uint64_t fuzz_seed(const uint8_t *data, size_t size)
{
    uint64_t h = 14695981039346656037U;
    size_t i;
    for (i = 0; i < size; i++) {
        h = (h ^ data[i]) * 1099511628211U;
    }
    return h;
}

/* How much of the rest comes next: all of it for mode 0, a byte for 1, else
 * anything. */
static inline size_t fuzz_piece(int mode, size_t left, uint64_t *state)
{
    size_t most = fuzz_random(state) % 4 == 0 ? 64 : 5;
    size_t n = mode == 0   ? left
               : mode == 1 ? 1
                           : 1 + (size_t)(fuzz_random(state) % most);
    return n < left ? n : left;
}

/* A copy in a block of just its size, so that a read beyond it is seen. */
static inline char *fuzz_copy(const void *data, size_t size)
{
    char *copy = (char *)malloc(size > 0 ? size : 1);
    if (copy == NULL) {
        exit(0); /* says nothing about the target */
    }
    if (size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

static inline void fuzz_env(gpn_env *env)
{
    FUZZ_CHECK(gpn_env_init(env, NULL, NULL));
}

/* Without the byte order mark that gptner.h passes over and the mock does not.
 */
static inline void fuzz_skip_mark(const uint8_t **data, size_t *size)
{
    if (*size >= 3 && memcmp(*data, "\xEF\xBB\xBF", 3) == 0) {
        *data += 3;
        *size -= 3;
    }
}

/* What happened, as text, to be compared. */
static inline void fuzz_note(gpn_buf *b, const char *what, gptner_str text)
{
    char number[32];
    gpn_buf_add_s(b, what);
    gpn_format(number, sizeof(number),
               "(%d):", text.ptr != NULL ? (int)text.len : -1);
    gpn_buf_add_s(b, number);
    gpn_buf_add_str(b, text);
    gpn_buf_add_c(b, '\n');
}

static inline void fuzz_note_int(gpn_buf *b, const char *what, int64_t n)
{
    char number[32];
    fuzz_note(b, what, gpn_str(number, gpn_fmt_i64(n, number)));
}

/* The two are the same; a difference is shown. */
static inline void fuzz_same(const gpn_buf *a, const gpn_buf *b)
{
    FUZZ_CHECK(a->status == GPTNER_OK && b->status == GPTNER_OK);
    if (a->len != b->len ||
        (a->len > 0 && memcmp(a->data, b->data, a->len) != 0)) {
        fprintf(stderr, "--- first\n%.*s\n--- second\n%.*s\n", (int)a->len,
                a->len > 0 ? a->data : "", (int)b->len,
                b->len > 0 ? b->data : "");
        fuzz_broken("both ways give the same", __FILE__, __LINE__);
    }
}

/* Calls note in one piece, byte by byte and in pieces; all must be noted the
 * same. */
static inline void fuzz_split(const uint8_t *data, size_t size,
                              void (*note)(const uint8_t *data, size_t size,
                                           int mode, gpn_buf *b))
{
    gpn_env env;
    gpn_buf whole, pieces;
    int mode;
    fuzz_env(&env);
    gpn_buf_init(&whole, &env, SIZE_MAX);
    gpn_buf_init(&pieces, &env, SIZE_MAX);
    note(data, size, 0, &whole);
    for (mode = 1; mode <= 3; mode++) {
        gpn_buf_clear(&pieces);
        note(data, size, mode, &pieces);
        fuzz_same(&whole, &pieces);
    }
    gpn_buf_deinit(&whole);
    gpn_buf_deinit(&pieces);
}

static gptner_client *fuzz_the_client;

/* A client that sends nothing, made at the first call. */
static inline gptner_client *fuzz_client(void)
{
    if (fuzz_the_client == NULL) {
        gptner_config cfg;
        memset(&cfg, 0, sizeof(cfg));
        cfg.api_key = "sk-fuzz";
        cfg.base_url = "http://127.0.0.1:9/v1";
        FUZZ_CHECK(gptner_client_new(&cfg, &fuzz_the_client, NULL) ==
                   GPTNER_OK);
    }
    return fuzz_the_client;
}

/* After the last input. */
static inline void fuzz_end(void)
{
    gptner_client_free(fuzz_the_client);
    fuzz_the_client = NULL;
}

#endif /* FUZZ_H */
