/* The estimate of tokens: of any bytes, never more than they are, never none,
 * and the same wherever they lie. */
#include "fuzz.h"

static void fuzz_tokens(const uint8_t *data, size_t size)
{
    gptner_str text = gpn_str((const char *)data, size);
    int64_t n = gptner_tokens_estimate(text);
    char *moved = (char *)malloc(size + 3);
    FUZZ_CHECK(n <= (int64_t)size && (n > 0) == (size > 0));
    FUZZ_CHECK(moved != NULL);
    if (size > 0) {
        memcpy(moved + 3, data, size);
    }
    FUZZ_CHECK(gptner_tokens_estimate(gpn_str(moved + 3, size)) == n);
    free(moved);
}

#define FUZZ_ONE fuzz_tokens
#include "fuzz_main.h"
