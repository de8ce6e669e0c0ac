/* Values of headers: Retry-After and its dates, x-ratelimit-reset-*. Whatever
 * is accepted lies in range; what the mock writes is read as it was meant; a
 * plain number of seconds is what strtod makes of it. */
#include "fuzz.h"

static void fuzz_header_number(gptner_str text, int64_t ms)
{
    char copy[32];
    size_t i, points = 0;
    double want;
    if (text.len == 0 || text.len > 9) {
        return;
    }
    for (i = 0; i < text.len; i++) {
        points += text.ptr[i] == '.' ? 1 : 0;
        if (text.ptr[i] != '.' && (text.ptr[i] < '0' || text.ptr[i] > '9')) {
            return;
        }
    }
    if (points > 1) {
        return;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    want = strtod(copy, NULL) * 1000;
    FUZZ_CHECK((double)ms > want - 1.5 && (double)ms < want + 1.5);
}

/* A time and a duration of the mock's, chosen by the input. */
static void fuzz_header_written(const uint8_t *data, size_t size)
{
    uint64_t state = fuzz_seed(data, size);
    int64_t unix_s = (int64_t)(fuzz_random(&state) % 4102444800U);
    int64_t now_s = unix_s - (int64_t)(fuzz_random(&state) % 100000);
    int64_t span = (int64_t)(fuzz_random(&state) % 100000000);
    int64_t got = -1;
    mki_buf b = MKI_ZERO;
    mki_http_date(&b, unix_s * 1000);
    if (unix_s > now_s && now_s >= 0) {
        FUZZ_CHECK(gpn_wait_parse(gpn_str(b.data, b.len), now_s * 1000, &got));
        FUZZ_CHECK(got == (unix_s - now_s) * 1000);
    }
    b.len = 0;
    mki_duration(&b, span);
    FUZZ_CHECK(gpn_reset_parse_ns(gpn_str(b.data, b.len), &got));
    FUZZ_CHECK(got == span * 1000000);
    mki_buf_free(&b);
}

static void fuzz_header(const uint8_t *data, size_t size)
{
    static const int64_t nows[] = {0, 1790000000000, INT64_C(1) << 52};
    gptner_str text = gpn_str((const char *)data, size);
    size_t i;
    int64_t v = 0;
    for (i = 0; i < 3; i++) {
        if (gpn_wait_parse(text, nows[i], &v)) {
            FUZZ_CHECK(v >= 0);
            fuzz_header_number(text, v);
        }
    }
    if (gpn_reset_parse_ns(text, &v)) {
        FUZZ_CHECK(v >= 0);
    }
    fuzz_header_written(data, size);
}

#define FUZZ_ONE fuzz_header
#include "fuzz_main.h"
