/* The journal of a job. The lines of the input get the checksums that the
 * library would have written, unless the first byte is '!'. What is replayed
 * from a part of the journal is what is replayed from the whole up to there:
 * a crash can only cut it. */
#include "fuzz.h"

typedef struct fuzz_journal_run {
    gpn_job job;
    gpn_journal journal;
    gptner_job_config cfg;
    size_t records;
    size_t good;
    gptner_status status;
    gptner_error err;
} fuzz_journal_run;

static gptner_status fuzz_journal_record(void *ctx, const gpn_record *rec,
                                         gptner_error *err)
{
    fuzz_journal_run *run = (fuzz_journal_run *)ctx;
    size_t i;
    gptner_status status = gpn_job_replay(&run->job, rec, err);
    FUZZ_CHECK(rec->kind.ptr != NULL);
    run->records++;
    for (i = 0; i < run->job.n_shards; i++) {
        const gpn_shard *s = &run->job.shards[i];
        FUZZ_CHECK(s->round >= 0 && s->round <= GPN_ROUNDS_MAX &&
                   s->tries >= 0);
        FUZZ_CHECK(s->stage <= GPN_STAGE_SETTLED && s->all > 0);
        FUZZ_CHECK(memchr(s->message, 0, sizeof(s->message)) != NULL);
    }
    return status;
}

static void fuzz_journal_replay(const gpn_buf *text, size_t len,
                                fuzz_journal_run *run)
{
    gptner_client *client = fuzz_client();
    char *copy = fuzz_copy(text->data, len);
    memset(run, 0, sizeof(*run));
    run->job.client = client;
    run->job.cfg = &run->cfg;
    gpn_journal_init(&run->journal, &client->env, "journal");
    gpn_journal_init(&run->job.journal, &client->env, "journal");
    run->status = gpn_journal_replay(&run->journal, copy, len, &run->good,
                                     fuzz_journal_record, run, &run->err);
    FUZZ_CHECK(run->good <= len);
    FUZZ_CHECK(run->good == 0 || text->data[run->good - 1] == '\n');
    FUZZ_CHECK(run->status == GPTNER_OK || run->err.message[0] != '\0');
    gpn_journal_deinit(&run->journal);
    gpn_journal_deinit(&run->job.journal);
    gpn_mem_free(&client->env, run->job.shards);
    free(copy);
}

static void fuzz_journal_text(const uint8_t *data, size_t size, gpn_buf *text)
{
    char sum[17] = "";
    size_t at = 0;
    if (size > 0 && data[0] == '!') {
        gpn_buf_add(text, (const char *)data + 1, size - 1);
        return;
    }
    while (at < size) {
        const char *line = (const char *)data + at;
        const char *lf = (const char *)memchr(line, '\n', size - at);
        gptner_str json =
            gpn_str(line, lf != NULL ? (size_t)(lf - line) : size - at);
        char next[17];
        gpn_journal_sum(sum, json, next);
        memcpy(sum, next, sizeof(sum));
        gpn_buf_add(text, sum, 16);
        gpn_buf_add_c(text, ' ');
        gpn_buf_add_str(text, json);
        gpn_buf_add_s(text, lf != NULL ? "\n" : "");
        at += json.len + 1;
    }
}

static void fuzz_journal(const uint8_t *data, size_t size)
{
    uint64_t state = fuzz_seed(data, size);
    fuzz_journal_run *whole = (fuzz_journal_run *)malloc(sizeof(*whole));
    fuzz_journal_run *part = (fuzz_journal_run *)malloc(sizeof(*part));
    gpn_buf text;
    int i;
    FUZZ_CHECK(whole != NULL && part != NULL);
    gpn_buf_init(&text, &fuzz_client()->env, SIZE_MAX);
    fuzz_journal_text(data, size, &text);
    fuzz_journal_replay(&text, text.len, whole);
    for (i = 0; i < 3 && text.len > 0; i++) {
        size_t cut = (size_t)(fuzz_random(&state) % (text.len + 1));
        fuzz_journal_replay(&text, cut, part);
        FUZZ_CHECK(part->good <= whole->good &&
                   part->records <= whole->records);
        if (whole->status == GPTNER_OK || cut <= whole->good) {
            FUZZ_CHECK(part->status == GPTNER_OK);
        }
        if (cut >= whole->good) {
            FUZZ_CHECK(part->good == whole->good);
        }
    }
    gpn_buf_deinit(&text);
    free(whole);
    free(part);
}

#define FUZZ_ONE fuzz_journal
#include "fuzz_main.h"
