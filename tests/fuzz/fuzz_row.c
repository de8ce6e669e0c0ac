/* Rows of a batch's output. Each line is read twice: member by member, and by
 * the form learnt from the lines before it, which is the fast way; both must
 * see the same. */
#include "fuzz.h"

static void fuzz_row_note(gpn_join *j, bool ok, gpn_buf *b)
{
    const gpn_fields *f = &j->fields;
    size_t i;
    fuzz_note_int(b, "ok", ok);
    if (!ok) {
        return;
    }
    fuzz_note(b, "custom_id", j->head.custom_id);
    fuzz_note(b, "request_id", j->head.request_id);
    fuzz_note(b, "code", j->head.code);
    fuzz_note(b, "message", j->head.message);
    fuzz_note_int(b, "status", j->head.status);
    fuzz_note_int(b, "flags",
                  j->head.responded + 2 * j->head.has_body +
                      4 * j->head.failed);
    fuzz_note_int(b, "fields", f->listed + 2 * f->answered + 4 * f->failed);
    fuzz_note_int(b, "fields status", (int64_t)f->status);
    fuzz_note(b, "id", f->r.id);
    fuzz_note(b, "model", f->r.model);
    fuzz_note(b, "error", f->r.error_message);
    fuzz_note_int(b, "prompt", f->r.usage.prompt_tokens);
    fuzz_note_int(b, "completion", f->r.usage.completion_tokens);
    fuzz_note_int(b, "total", f->r.usage.total_tokens);
    fuzz_note_int(b, "cached", f->r.usage.cached_tokens);
    fuzz_note_int(b, "reasoning", f->r.usage.reasoning_tokens);
    for (i = 0; i < f->n_choices; i++) {
        fuzz_note_int(b, "index", f->choices[i].index);
        fuzz_note(b, "text", f->choices[i].text);
        fuzz_note(b, "finish", f->choices[i].finish_reason);
        fuzz_note(b, "refusal", f->choices[i].refusal);
        fuzz_note(b, "reasoning", f->choices[i].reasoning);
    }
}

static gpn_join *fuzz_row_join(void)
{
    gpn_join *j = (gpn_join *)calloc(1, sizeof(*j));
    FUZZ_CHECK(j != NULL);
    j->client = fuzz_client();
    gpn_buf_init(&j->body, &j->client->env, SIZE_MAX);
    gpn_fields_init(&j->fields, &j->client->env, NULL);
    return j;
}

static void fuzz_row_join_free(gpn_join *j)
{
    gpn_fields_deinit(&j->fields);
    gpn_buf_deinit(&j->body);
    free(j);
}

static void fuzz_row_line(gpn_join *slow, gpn_join *fast, const uint8_t *line,
                          size_t len)
{
    char *a = fuzz_copy(line, len);
    char *b = fuzz_copy(line, len);
    gptner_json_error why, same;
    gpn_buf first, second;
    bool ok;
    memset(&why, 0, sizeof(why));
    memset(&same, 0, sizeof(same));
    gpn_buf_init(&first, &slow->client->env, SIZE_MAX);
    gpn_buf_init(&second, &slow->client->env, SIZE_MAX);
    ok = gpn_row_parse(slow, a, len, &why);
    fuzz_row_note(slow, ok, &first);
    ok = gpn_row_read_any(fast, b, len, &same);
    fuzz_row_note(fast, ok, &second);
    fuzz_same(&first, &second);
    FUZZ_CHECK(ok || why.offset == same.offset);
    gpn_buf_deinit(&first);
    gpn_buf_deinit(&second);
    /* what is in the joins points into these */
    gpn_row_blank(slow, NULL);
    gpn_row_blank(fast, NULL);
    free(a);
    free(b);
}

static void fuzz_row(const uint8_t *data, size_t size)
{
    gpn_join *slow = fuzz_row_join();
    gpn_join *fast = fuzz_row_join();
    size_t at = 0;
    while (at < size) {
        const uint8_t *lf = (const uint8_t *)memchr(data + at, '\n', size - at);
        size_t len = lf != NULL ? (size_t)(lf - data) - at : size - at;
        fuzz_row_line(slow, fast, data + at, len);
        at += len + 1;
    }
    fuzz_row_join_free(slow);
    fuzz_row_join_free(fast);
}

#define FUZZ_ONE fuzz_row
#include "fuzz_main.h"
