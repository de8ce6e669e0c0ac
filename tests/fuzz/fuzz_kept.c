/* Answers kept on disk, for a run that is resumed and in the cache. Each line
 * of the input gets the sum that the library would have written, unless it
 * begins with '!'; what is read of it is sound, and listed only if it is read.
 * The input as an answer is written and read as the same. */
#include "fuzz.h"

static void fuzz_kept_read(const char *line, size_t len)
{
    char *copy = fuzz_copy(line, len);
    gpn_spot spot;
    gpn_store *s = (gpn_store *)calloc(1, sizeof(*s));
    gpn_kept k;
    bool read;
    FUZZ_CHECK(s != NULL);
    s->spots = &spot;
    s->room = 1;
    gpn_journal_enter(s, gpn_str(copy, len), 0);
    FUZZ_CHECK(s->n_spots <= 1);
    read = gpn_kept_read(copy, len, &k);
    if (read) {
        FUZZ_CHECK(k.key.len == GPN_KEY_TEXT && k.body.ptr != NULL);
        FUZZ_CHECK(k.body.ptr >= copy && k.body.ptr + k.body.len <= copy + len);
        FUZZ_CHECK(k.index >= 0 && k.attempts >= 0 && k.http_status >= 0);
    }
    free(s);
    free(copy);
}

static void fuzz_kept_line(const uint8_t *data, size_t size)
{
    gpn_buf line;
    char sum[17];
    if (size > 0 && data[0] == '!') {
        fuzz_kept_read((const char *)data + 1, size - 1);
        return;
    }
    gpn_buf_init(&line, &fuzz_client()->env, SIZE_MAX);
    gpn_kept_sum(gpn_str((const char *)data, size), sum);
    gpn_buf_add(&line, sum, 16);
    gpn_buf_add_c(&line, ' ');
    gpn_buf_add(&line, (const char *)data, size);
    fuzz_kept_read(line.data, line.len);
    gpn_buf_deinit(&line);
}

static bool fuzz_kept_is_utf8(gptner_str text)
{
    uint32_t cp;
    while (text.len > 0) {
        size_t n = gpn_utf8_get(text.ptr, text.len, &cp);
        if (n == 0) {
            return false;
        }
        text = gpn_str(text.ptr + n, text.len - n);
    }
    return true;
}

static void fuzz_kept_round(gptner_str body)
{
    char key[GPN_KEY_TEXT + 1];
    gptner_result r;
    gpn_buf line;
    gpn_kept k;
    memset(key, 'a', GPN_KEY_TEXT);
    key[GPN_KEY_TEXT] = '\0';
    memset(&r, 0, sizeof(r));
    r.index = body.len;
    r.http_status = 200;
    r.cost_usd = (double)body.len / 1e7;
    gpn_buf_init(&line, &fuzz_client()->env, SIZE_MAX);
    gpn_kept_write(&line, key, &r, body);
    FUZZ_CHECK(line.status == GPTNER_OK && line.data[line.len - 1] == '\n');
    FUZZ_CHECK(memchr(line.data, '\n', line.len) == line.data + line.len - 1);
    if (fuzz_kept_is_utf8(body)) {
        FUZZ_CHECK(gpn_kept_read(line.data, line.len - 1, &k));
        FUZZ_CHECK(
            k.body.len == body.len &&
            (body.len == 0 || memcmp(k.body.ptr, body.ptr, body.len) == 0));
        FUZZ_CHECK(k.index == (int64_t)body.len && k.http_status == 200);
    }
    gpn_buf_deinit(&line);
}

static void fuzz_kept(const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (at < size) {
        const uint8_t *lf = (const uint8_t *)memchr(data + at, '\n', size - at);
        size_t len = lf != NULL ? (size_t)(lf - data) - at : size - at;
        fuzz_kept_line(data + at, len);
        at += len + 1;
    }
    fuzz_kept_round(gpn_str((const char *)data, size));
}

#define FUZZ_ONE fuzz_kept
#include "fuzz_main.h"
