/* A stream of events: the same however it is cut, and as a second reader,
 * written after WHATWG HTML 9.2.6 alone, has it. */
#include "fuzz.h"

static void fuzz_sse_note(const uint8_t *data, size_t size, int mode,
                          gpn_buf *b)
{
    uint64_t state = fuzz_seed(data, size) + (uint64_t)mode;
    gpn_sse sse;
    gptner_error err;
    size_t at = 0;
    gpn_sse_event event = GPN_SSE_MORE;
    gpn_sse_init(&sse, b->env, (size_t)1 << 20);
    while (at < size && event != GPN_SSE_FAILED) {
        size_t n = fuzz_piece(mode, size - at, &state), from = 0;
        char *piece = fuzz_copy(data + at, n);
        while (from < n && event != GPN_SSE_FAILED) {
            gpn_sse_message m;
            size_t used = 0;
            event = gpn_sse_next(&sse, piece + from, n - from, &used, &m, &err);
            FUZZ_CHECK(used <= n - from && used + (size_t)event > 0);
            from += used;
            if (event == GPN_SSE_EVENT) {
                FUZZ_CHECK(m.data.ptr[m.data.len] == '\0');
                fuzz_note(b, "type", m.type);
                fuzz_note(b, "data", m.data);
                fuzz_note(b, "id",
                          gpn_str(m.id.len > 0 ? m.id.ptr : "", m.id.len));
            }
        }
        at += n;
        free(piece);
    }
    FUZZ_CHECK(event != GPN_SSE_FAILED);
    fuzz_note_int(b, "retry", sse.retry_ms);
    gpn_sse_deinit(&sse);
}

typedef struct fuzz_sse_other {
    gpn_buf data, type, id;
    int64_t retry;
} fuzz_sse_other;

static void fuzz_sse_field(fuzz_sse_other *o, gptner_str name, gptner_str value)
{
    uint64_t n;
    if (gpn_str_eq_c(name, "data")) {
        gpn_buf_add_str(&o->data, value);
        gpn_buf_add_c(&o->data, '\n');
    } else if (gpn_str_eq_c(name, "event")) {
        gpn_buf_clear(&o->type);
        gpn_buf_add_str(&o->type, value);
    } else if (gpn_str_eq_c(name, "id") &&
               (value.len == 0 || memchr(value.ptr, 0, value.len) == NULL)) {
        gpn_buf_clear(&o->id);
        gpn_buf_add_str(&o->id, value);
    } else if (gpn_str_eq_c(name, "retry") && gpn_parse_u64(value, &n) &&
               n <= INT64_MAX) {
        o->retry = (int64_t)n;
    }
}

static void fuzz_sse_line(fuzz_sse_other *o, gptner_str line, gpn_buf *b)
{
    const char *colon;
    gptner_str name = line, value = {"", 0};
    if (line.len == 0) {
        if (o->data.len > 0) {
            fuzz_note(b, "type",
                      o->type.len > 0 ? gpn_str(o->type.data, o->type.len)
                                      : gptner_str_from("message"));
            fuzz_note(b, "data", gpn_str(o->data.data, o->data.len - 1));
            fuzz_note(b, "id",
                      gpn_str(o->id.len > 0 ? o->id.data : "", o->id.len));
        }
        gpn_buf_clear(&o->data);
        gpn_buf_clear(&o->type);
        return;
    }
    colon = (const char *)memchr(line.ptr, ':', line.len);
    if (colon != NULL) {
        name.len = (size_t)(colon - line.ptr);
        value = gpn_str(colon + 1, line.len - name.len - 1);
        if (value.len > 0 && value.ptr[0] == ' ') {
            value = gpn_str(value.ptr + 1, value.len - 1);
        }
    }
    fuzz_sse_field(o, name, value);
}

/* Line by line; a last line without an end is no line. */
static void fuzz_sse_second(const uint8_t *data, size_t size, gpn_buf *b)
{
    fuzz_sse_other o;
    const char *text = (const char *)data;
    size_t at = size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    size_t end;
    gpn_buf_init(&o.data, b->env, SIZE_MAX);
    gpn_buf_init(&o.type, b->env, SIZE_MAX);
    gpn_buf_init(&o.id, b->env, SIZE_MAX);
    o.retry = -1;
    for (; at < size; at = end) {
        for (end = at; end < size && text[end] != '\r' && text[end] != '\n';
             end++) {
        }
        if (end == size) {
            break;
        }
        fuzz_sse_line(&o, gpn_str(text + at, end - at), b);
        end += end + 1 < size && text[end] == '\r' && text[end + 1] == '\n' ? 2
                                                                            : 1;
    }
    fuzz_note_int(b, "retry", o.retry);
    gpn_buf_deinit(&o.data);
    gpn_buf_deinit(&o.type);
    gpn_buf_deinit(&o.id);
}

static void fuzz_sse(const uint8_t *data, size_t size)
{
    gpn_env env;
    gpn_buf first, second;
    fuzz_split(data, size, fuzz_sse_note);
    fuzz_env(&env);
    gpn_buf_init(&first, &env, SIZE_MAX);
    gpn_buf_init(&second, &env, SIZE_MAX);
    fuzz_sse_note(data, size, 0, &first);
    fuzz_sse_second(data, size, &second);
    fuzz_same(&first, &second);
    gpn_buf_deinit(&first);
    gpn_buf_deinit(&second);
}

#define FUZZ_ONE fuzz_sse
#include "fuzz_main.h"
