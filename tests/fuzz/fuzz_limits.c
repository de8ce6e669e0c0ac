/* A file of an account's limits: what is accepted is JSON to the mock's reader,
 * too, and each row is sane. */
#include "fuzz.h"

static void fuzz_limits(const uint8_t *data, size_t size)
{
    gptner_json_reader r;
    gptner_json_error why;
    mki_arena arena = MKI_ZERO;
    gpn_env env;
    gpn_buf rows;
    char *text = fuzz_copy(data, size);
    size_t i, k;
    fuzz_env(&env);
    gpn_buf_init(&rows, &env, SIZE_MAX);
    gptner_json_reader_init_in_place(&r, text, size, NULL);
    gpn_limits_read(&r, &rows);
    if (gptner_json_reader_finish(&r, &why) == GPTNER_OK) {
        fuzz_skip_mark(&data, &size);
        FUZZ_CHECK(mki_json_parse(&arena, mki_s((const char *)data, size)) !=
                       NULL ||
                   size > MKI_JSON_DEPTH);
        for (i = 0; i < rows.len / sizeof(gpn_limit_row); i++) {
            gpn_limit_row row;
            memcpy(&row, rows.data + i * sizeof(row), sizeof(row));
            for (k = 0; k < GPN_COUNT(row.values); k++) {
                FUZZ_CHECK(row.values[k] >= -1);
            }
            FUZZ_CHECK(row.tier == NULL || row.tier[0] != '\0');
            FUZZ_CHECK(row.model == NULL || row.model[0] != '\0');
        }
    } else {
        FUZZ_CHECK(why.offset <= size && why.message[0] != '\0');
    }
    mki_arena_reset(&arena, true);
    gpn_buf_deinit(&rows);
    free(text);
}

#define FUZZ_ONE fuzz_limits
#include "fuzz_main.h"
