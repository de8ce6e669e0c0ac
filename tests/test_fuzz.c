/* The fuzz targets over tests/data/fuzz: their seeds, and every input that was
 * once a finding. No clang is needed; `make fuzz` looks for new ones. */
#define FUZZ_TOGETHER
#include "fuzz/fuzz.h"

#include "test_common.h"

#include "fuzz/fuzz_batch_file.c"
#include "fuzz/fuzz_chunked.c"
#include "fuzz/fuzz_header.c"
#include "fuzz/fuzz_http.c"
#include "fuzz/fuzz_journal.c"
#include "fuzz/fuzz_json.c"
#include "fuzz/fuzz_kept.c"
#include "fuzz/fuzz_limits.c"
#include "fuzz/fuzz_mock_form.c"
#include "fuzz/fuzz_mock_http.c"
#include "fuzz/fuzz_prices.c"
#include "fuzz/fuzz_replay.h"
#include "fuzz/fuzz_row.c"
#include "fuzz/fuzz_sse.c"
#include "fuzz/fuzz_tokens.c"
#include "fuzz/fuzz_url.c"

static const struct {
    const char *name;
    void (*one)(const uint8_t *data, size_t size);
} targets[] = {{"batch_file", fuzz_batch_file},
               {"chunked", fuzz_chunked},
               {"header", fuzz_header},
               {"http", fuzz_http},
               {"journal", fuzz_journal},
               {"json", fuzz_json},
               {"kept", fuzz_kept},
               {"limits", fuzz_limits},
               {"mock_form", fuzz_mock_form},
               {"mock_http", fuzz_mock_http},
               {"prices", fuzz_prices},
               {"row", fuzz_row},
               {"sse", fuzz_sse},
               {"tokens", fuzz_tokens},
               {"url", fuzz_url}};

static size_t at; /* of the target at hand */

/* The input, and each beginning of it that is not long. */
static int replay(const uint8_t *data, size_t size)
{
    size_t n;
    targets[at].one(data, size);
    for (n = 0; n < size && n < 64; n++) {
        char *part = fuzz_copy(data, n);
        targets[at].one((const uint8_t *)part, n);
        free(part);
    }
    return 0;
}

static void kept_inputs_of_all_targets_are_answered_rightly(void **state)
{
    (void)state;
    for (at = 0; at < TEST_COUNT(targets); at++) {
        char folder[64];
        snprintf(folder, sizeof(folder), "tests/data/fuzz/%s",
                 targets[at].name);
        print_message("%s\n", folder);
        assert_true(fuzz_replay(folder, replay) > 0);
    }
    fuzz_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_inputs_of_all_targets_are_answered_rightly)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
