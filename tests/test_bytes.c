/* Tests of >>bytes: views, UTF-8, base64, numbers, buffers, arenas, texts. */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "test_common.h"

#include <locale.h>

static gpn_env env;

static int set_up(void **state)
{
    (void)state;
    test_fault_clear();
    return gpn_env_init(&env, NULL, NULL) ? 0 : -1;
}

/* ---- views ---- */

static void views_compare_by_bytes_and_by_letters(void **state)
{
    gptner_str s = gpn_str_c("Content-Type");

    (void)state;
    assert_true(gpn_str_eq(s, gpn_str("Content-Type!", 12)));
    assert_false(gpn_str_eq_c(s, "content-type"));
    assert_true(gpn_str_ieq_c(s, "content-tYPE"));
    assert_false(gpn_str_ieq_c(s, "content-typ"));
    assert_false(gpn_str_ieq_c(gpn_str_c("@["), "`{"));
    assert_true(gpn_str_starts(s, "Content"));
    assert_true(gpn_str_starts(s, ""));
    assert_false(gpn_str_starts(s, "content"));
    assert_true(gpn_str_istarts(s, "CONTENT-"));
    assert_false(gpn_str_istarts(gpn_str(s.ptr, 4), "content"));
    assert_true(gpn_str_eq_c(gpn_str_c(NULL), ""));
    assert_true(gpn_str_ieq_c(gpn_str_c(NULL), ""));
    assert_null(gptner_str_from(NULL).ptr);
    assert_int_equal(gptner_str_from("abc").len, 3);
}

static void views_are_searched_and_trimmed(void **state)
{
    test_page page;
    gptner_str s;

    (void)state;
    test_page_init(&page, 64);
    s = gpn_str(test_page_put(&page, "one two TWO tw", 14), 14);
    assert_int_equal(gpn_str_find(s, "two"), 4);
    assert_int_equal(gpn_str_find(s, "TWO"), 8);
    assert_int_equal(gpn_str_ifind(s, "TWO"), 4);
    assert_int_equal(gpn_str_find(s, "two "), 4);
    assert_int_equal(gpn_str_ifind(s, "tw"), 4);
    assert_int_equal(gpn_str_find(s, ""), 0);
    assert_true(gpn_str_find(s, "twx") == SIZE_MAX);
    assert_true(gpn_str_find(gpn_str_c(NULL), "a") == SIZE_MAX);
    s = gpn_str(test_page_put(&page, " \t a\tb \t", 8), 8);
    assert_true(gpn_str_eq_c(gpn_str_trim(s), "a\tb"));
    assert_int_equal(gpn_str_trim(gpn_str(s.ptr, 3)).len, 0);
    test_page_deinit(&page);
}

static void a_copy_ends_in_nul_or_there_is_no_memory(void **state)
{
    char *copy;

    (void)state;
    copy = gpn_str_dup(&env, gpn_str("abcd", 3));
    assert_string_equal(copy, "abc");
    gpn_mem_free(&env, copy);
    copy = gpn_str_dup(&env, gpn_str(NULL, 0));
    assert_string_equal(copy, "");
    gpn_mem_free(&env, copy);
    assert_null(gpn_str_dup(&env, gpn_str("a", SIZE_MAX)));
    test_fault_set(GPN_FAULT_ALLOC, 1, false);
    assert_null(gpn_str_dup(&env, gpn_str_c("a")));
}

/* ---- UTF-8 ---- */

/* Every sequence of up to 4 bytes around the edges, against the table of
 * well-formed sequences in the Unicode standard (table 3-7). */
static bool table_3_7(const unsigned char *p, size_t n)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t i, need;

    if (p[0] <= 0x7f) {
        return n == 1;
    }
    need = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n != need) {
        return false;
    }
    low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    for (i = 1; i < n; i++) {
        if (p[i] < low || p[i] > high) {
            return false;
        }
        low = 0x80;
        high = 0xbf;
    }
    return true;
}

static void utf8_is_judged_as_the_standard_does(void **state)
{
    static const unsigned char later[] = {0x00, 0x7f, 0x80, 0x8f, 0x90,
                                          0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    unsigned char s[4];
    test_page page;
    size_t n, tail;
    unsigned first;
    uint32_t cp;

    (void)state;
    test_page_init(&page, 16);
    for (first = 0; first < 256; first++) {
        for (tail = 0; tail < 1000; tail++) {
            s[0] = (unsigned char)first;
            s[1] = later[tail / 100];
            s[2] = later[tail / 10 % 10];
            s[3] = later[tail % 10];
            for (n = 1; n <= 4; n++) {
                char *p = test_page_put(&page, s, n);
                size_t got = gpn_utf8_get(p, n, &cp);

                if ((got == n) != table_3_7(s, n) || got > n) {
                    fail_msg("%02x %02x %02x %02x, %d", s[0], s[1], s[2], s[3],
                             (int)n);
                }
            }
        }
    }
    assert_int_equal(gpn_utf8_get(NULL, 0, &cp), 0);
    test_page_deinit(&page);
}

static void every_code_point_goes_there_and_back(void **state)
{
    char s[4];
    uint32_t cp, back;
    size_t n;

    (void)state;
    for (cp = 0; cp <= 0x110010; cp++) {
        n = gpn_utf8_put(cp, s);
        assert_true(gpn_utf8_get(s, n, &back) == n);
        if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) {
            assert_true(back == 0xfffd);
        } else {
            assert_true(back == cp);
        }
    }
}

/* Leading bytes that are valid, character by character. */
static size_t valid_bytes(const char *text, size_t len)
{
    size_t at = 0;

    while (at < len) {
        uint32_t cp;
        size_t n = gpn_utf8_get(text + at, len - at, &cp);

        if (n == 0) {
            break;
        }
        at += n;
    }
    return at;
}

static void the_first_bad_byte_is_found_at_every_place(void **state)
{
    char text[64];
    size_t len, at;
    test_page page;

    (void)state;
    test_page_init(&page, 64);
    for (len = 0; len < 40; len++) {
        memset(text, 'a', sizeof text);
        assert_int_equal(valid_bytes(test_page_put(&page, text, len), len),
                         len);
        for (at = 0; at < len; at++) {
            memset(text, 'a', sizeof text);
            text[at] = (char)0x80;
            assert_int_equal(valid_bytes(test_page_put(&page, text, len), len),
                             at);
            text[at] = (char)0xc3; /* followed by 'a', or by the end */
            assert_int_equal(valid_bytes(test_page_put(&page, text, len), len),
                             at);
        }
    }
    for (at = 0; at < 24; at++) { /* a whole character at each place */
        memset(text, 'a', sizeof text);
        memcpy(text + at, "\xf0\x9f\x98\x80", 4);
        for (len = at; len < at + 12; len++) {
            assert_int_equal(valid_bytes(test_page_put(&page, text, len), len),
                             len < at + 4 ? at : len);
            assert_int_equal(gpn_utf8_cut(text, len), len < at + 4 ? at : len);
        }
    }
    test_page_deinit(&page);
}

/* ---- base64 ---- */

static void base64_knows_the_vectors_of_the_rfc(void **state)
{
    static const char *const cases[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xff\xff\xbe", "//++"}};
    char text[32];
    unsigned char data[32];
    size_t i, n, len;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        n = gpn_base64_encode(cases[i][0], strlen(cases[i][0]), text);
        assert_true(gpn_str_eq_c(gpn_str(text, n), cases[i][1]));
        len = strlen(cases[i][0]);
        assert_true(gpn_base64_decode(gpn_str(text, n), data, len, &n));
        assert_int_equal(n, len);
        assert_memory_equal(data, cases[i][0], len);
        len = strcspn(cases[i][1], "="); /* without padding */
        assert_true(gpn_base64_decode(gpn_str(text, len), data, 32, &n));
        assert_int_equal(n, strlen(cases[i][0]));
    }
}

static void base64_refuses_what_is_not(void **state)
{
    static const char *const cases[] = {
        "Z",    "Zg=",  "Zg===", "=",      "==",   "===",  "====",  "Zm9v=",
        "Zh==", "Zm9=", "Zm 9v", "Zm9v\n", "Zm-_", "Z=m8", "Zm8==", "Zg==Zg=="};
    unsigned char data[32];
    size_t i, n;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        if (gpn_base64_decode(gpn_str_c(cases[i]), data, 32, &n)) {
            fail_msg("took \"%s\"", cases[i]);
        }
        assert_int_equal(n, 0);
    }
    assert_false(gpn_base64_decode(gpn_str_c("Zm9v"), data, 2, &n));
}

static void base64_of_any_length_returns(void **state)
{
    unsigned char data[80], back[80];
    char text[120];
    test_page page;
    size_t len, i, n;

    (void)state;
    test_page_init(&page, 128);
    for (len = 0; len < sizeof data; len++) {
        for (i = 0; i < len; i++) {
            data[i] = (unsigned char)(i * 37 + len * 11);
        }
        n = gpn_base64_encode(test_page_put(&page, data, len), len, text);
        assert_int_equal(n, (len + 2) / 3 * 4);
        assert_true(gpn_base64_decode(gpn_str(test_page_put(&page, text, n), n),
                                      back, len, &n));
        assert_int_equal(n, len);
        assert_memory_equal(back, data, len);
    }
    test_page_deinit(&page);
}

/* ---- integers ---- */

static void integers_are_written_and_read_to_their_limits(void **state)
{
    char out[24];
    uint64_t value;

    (void)state;
    assert_int_equal(gpn_fmt_u64(0, out), 1);
    assert_string_equal(out, "0");
    assert_int_equal(gpn_fmt_u64(UINT64_MAX, out), 20);
    assert_string_equal(out, "18446744073709551615");
    assert_true(gpn_parse_u64(gpn_str_c(out), &value));
    assert_true(value == UINT64_MAX);
    assert_false(gpn_parse_u64(gpn_str_c("18446744073709551616"), &value));
    assert_false(gpn_parse_u64(gpn_str_c("99999999999999999999"), &value));
    assert_false(gpn_parse_u64(gpn_str_c("184467440737095516150"), &value));
    assert_false(gpn_parse_u64(gpn_str_c(""), &value));
    assert_false(gpn_parse_u64(gpn_str_c("-1"), &value));
    assert_false(gpn_parse_u64(gpn_str_c("+1"), &value));
    assert_false(gpn_parse_u64(gpn_str_c("1 "), &value));
    assert_false(gpn_parse_u64(gpn_str_c("1:"), &value));
    assert_true(gpn_parse_u64(gpn_str_c("007"), &value));
    assert_true(value == 7);
    assert_int_equal(gpn_fmt_i64(INT64_MIN, out), 20);
    assert_string_equal(out, "-9223372036854775808");
    assert_int_equal(gpn_fmt_i64(-1, out), 2);
    assert_string_equal(out, "-1");
    gpn_fmt_i64(INT64_MAX, out);
    assert_string_equal(out, "9223372036854775807");
}

/* ---- doubles ---- */

static uint64_t bits_of(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double from_bits(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

typedef struct number_case {
    const char *text;
    uint64_t bits;
} number_case;

static const number_case numbers[] = {
    {"0", 0},
    {"-0", UINT64_C(0x8000000000000000)},
    {"-0.0e99999999999999999999", UINT64_C(0x8000000000000000)},
    {"1", UINT64_C(0x3ff0000000000000)},
    {"1E0", UINT64_C(0x3ff0000000000000)},
    {"0.1", UINT64_C(0x3fb999999999999a)},
    {"0.7", UINT64_C(0x3fe6666666666666)},
    {"1e22", UINT64_C(0x4480f0cf064dd592)},
    {"1e23", UINT64_C(0x44b52d02c7e14af6)},
    /* ties: to even, and a digit far behind breaks them */
    {"9007199254740993", UINT64_C(0x4340000000000000)},
    {"9007199254740995", UINT64_C(0x4340000000000002)},
    {"9007199254740993.0000000000000000000000001",
     UINT64_C(0x4340000000000001)},
    {"0.500000000000000166533453693773481063544750213623046875",
     UINT64_C(0x3fe0000000000002)},
    {"0.500000000000000055511151231257827021181583404541015625",
     UINT64_C(0x3fe0000000000000)},
    /* the smallest normal number and the one below */
    {"2.2250738585072014e-308", UINT64_C(0x0010000000000000)},
    {"2.2250738585072011e-308", UINT64_C(0x000fffffffffffff)},
    {"2.2250738585072012e-308", UINT64_C(0x0010000000000000)},
    /* half the smallest: to even, which is 0 */
    {"4.9406564584124654e-324", 1},
    {"5e-324", 1},
    {"3e-324", 1},
    {"2e-324", 0},
    {"2.4703282292062327e-324", 0},
    {"2.4703282292062328e-324", 1},
    {"1e-400", 0},
    {"1e-99999999999999999999", 0},
    /* the largest, and the border of infinity: 2^1024 - 2^970 */
    {"1.7976931348623157e308", UINT64_C(0x7fefffffffffffff)},
    {"1.7976931348623158e308", UINT64_C(0x7fefffffffffffff)},
    {"1.7976931348623159e308", UINT64_C(0x7ff0000000000000)},
    {"1e309", UINT64_C(0x7ff0000000000000)},
    {"-1e99999999999999999999", UINT64_C(0xfff0000000000000)},
    {"123456789012345678901234567890", UINT64_C(0x45f8ee90ff6c373e)},
    {"0.000000000000000000000000000000000000000000001e45",
     UINT64_C(0x3ff0000000000000)},
};

static void numbers_are_rounded_correctly(void **state)
{
    size_t i;
    double value;

    (void)state;
    for (i = 0; i < TEST_COUNT(numbers); i++) {
        assert_true(gpn_parse_double(gpn_str_c(numbers[i].text), &value));
        if (bits_of(value) != numbers[i].bits) {
            fail_msg("%s is %016llx", numbers[i].text,
                     (unsigned long long)bits_of(value));
        }
    }
}

static void texts_that_are_no_numbers_are_refused(void **state)
{
    static const char *const cases[] = {
        "",    "-",   "+1",    "01",    "-01", "1.",  ".5",  "1.e1",
        "1e",  "1e+", "1e1.5", " 1",    "1 ",  "1,5", "0x1", "inf",
        "nan", "--1", "1..2",  "1e5e5", "-.5", "0.",  "1-",  "e5"};
    test_page page;
    size_t i, n;
    double value;

    (void)state;
    test_page_init(&page, 64);
    for (i = 0; i < TEST_COUNT(cases); i++) {
        n = strlen(cases[i]);
        if (gpn_parse_double(gpn_str(test_page_put(&page, cases[i], n), n),
                             &value)) {
            fail_msg("took \"%s\"", cases[i]);
        }
    }
    test_page_deinit(&page);
}

/* The decimal of odd * 2^-1075, which is the middle between two of the smallest
 * doubles: the digits of odd * 5^1075 and "e-1075". Returns the length of the
 * digits, which are 768 for the largest. */
static size_t write_midpoint(uint64_t odd, char text[800])
{
    char digits[24], turned[800];
    size_t n = gpn_fmt_u64(odd, digits), i;
    int times, carry = 0;

    for (i = 0; i < n; i++) {
        turned[i] = (char)(digits[n - 1 - i] - '0');
    }
    for (times = 0; times < 1075; times++) {
        for (i = 0; i < n || carry > 0; i++) {
            carry += i < n ? turned[i] * 5 : 0;
            turned[i] = (char)(carry % 10);
            carry /= 10;
        }
        n = i;
    }
    for (i = 0; i < n; i++) {
        text[i] = (char)(turned[n - 1 - i] + '0');
    }
    memcpy(text + n, "e-1075", 7);
    return n;
}

static void a_midpoint_of_768_digits_is_decided_by_the_last(void **state)
{
    static const uint64_t halves[] = {1, 3, (UINT64_C(1) << 53) - 3,
                                      (UINT64_C(1) << 53) - 1};
    static char text[800], longer[2000];
    double value;
    size_t i, n = 0;

    (void)state;
    for (i = 0; i < TEST_COUNT(halves); i++) {
        uint64_t below = halves[i] / 2; /* as bits: the double below */

        n = write_midpoint(halves[i], text);
        assert_true(gpn_parse_double(gpn_str_c(text), &value));
        assert_true(bits_of(value) == below + (below & 1)); /* to even */
        memset(longer, '0', sizeof longer);
        memcpy(longer, text, n);
        memcpy(longer + n, ".", 1);
        longer[n + 1000] = '1'; /* 1000 places later: just above */
        memcpy(longer + n + 1001, "e-1075", 7);
        assert_true(gpn_parse_double(gpn_str_c(longer), &value));
        assert_true(bits_of(value) == below + 1);
        text[n - 1]--; /* the last digit is a 5: just below */
        assert_true(gpn_parse_double(gpn_str_c(text), &value));
        assert_true(bits_of(value) == below);
    }
    assert_int_equal(n, 768);
}

static void very_long_numbers_take_little_time(void **state)
{
    static char text[1000003];
    double value;

    (void)state;
    memset(text, '9', sizeof text);
    text[1] = '.';
    assert_true(gpn_parse_double(gpn_str(text, 1000000), &value));
    assert_true(value == 10.0);
    memset(text, '0', 999999);
    text[1] = '.';
    text[999990] = '5';
    memcpy(text + 999991, "e999989", 7);
    assert_true(gpn_parse_double(gpn_str(text, 999998), &value));
    assert_true(value == 5.0);
}

static void corpus_numbers(const char *name)
{
    char path[1024], *data, *rest, *line;
    size_t len, seen = 0;

    if (test_corpus(path, name) == NULL) {
        skip();
    }
    data = rest = test_slurp(path, &len);
    while ((line = test_cut(&rest, '\n')) != NULL) {
        char *verdict = test_cut(&line, '\t'), *hex = test_cut(&line, '\t');
        double value;
        bool ok;

        if (verdict[0] == '#') {
            continue;
        }
        test_cut(&line, '\t');
        test_cut(&line, '\t');
        ok = gpn_parse_double(gpn_str_c(line), &value);
        seen++;
        if (strcmp(verdict, "reject") == 0) {
            if (ok) {
                fail_msg("took %s", line);
            }
        } else if (strcmp(verdict, "overflow") == 0) {
            assert_true(ok && value - value != 0.0);
        } else if (!ok || bits_of(value) != strtoull(hex, NULL, 16)) {
            fail_msg("%s is %016llx, not %s", line,
                     (unsigned long long)bits_of(value), hex);
        }
    }
    printf("%s: %d numbers\n", name, (int)seen);
    free(data);
}

static void the_corpus_numbers_are_read(void **state)
{
    (void)state;
    corpus_numbers("json/NUMBERS.tsv");
}

static void the_corpus_numbers_of_our_own_are_read(void **state)
{
    (void)state;
    corpus_numbers("json/NUMBERS_OWN.tsv");
}

/* "-123e-5" from value, in the manner of SHORTEST.tsv. */
static void shortest(double value, char out[64])
{
    char digits[24];
    int point;
    size_t n = gpn_double_digits(value < 0 ? -value : value, digits, &point);

    snprintf(out, 64, "%s%.*se%d", value < 0 ? "-" : "", (int)n, digits,
             point - (int)n);
}

static void the_corpus_digits_are_written(void **state)
{
    char path[1024], out[64], text[40], *data, *rest, *line;
    size_t len, seen = 0;

    (void)state;
    if (test_corpus(path, "json/SHORTEST.tsv") == NULL) {
        skip();
    }
    data = rest = test_slurp(path, &len);
    while ((line = test_cut(&rest, '\n')) != NULL) {
        char *hex = test_cut(&line, '\t'), *want = test_cut(&line, '\t');
        double value, back;

        if (hex[0] == '#') {
            continue;
        }
        value = from_bits(strtoull(hex, NULL, 16));
        if (value != 0) {
            shortest(value, out);
            if (strcmp(out, want) != 0) {
                fail_msg("%s: %s, not %s", hex, out, want);
            }
        }
        gpn_fmt_double(value, text);
        assert_true(gpn_parse_double(gpn_str_c(text), &back));
        assert_true(bits_of(back) == bits_of(value));
        seen++;
    }
    printf("SHORTEST.tsv: %d numbers\n", (int)seen);
    free(data);
}

static void doubles_look_as_json_wants_them(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.0, "0"},
                 {-0.0, "-0.0"},
                 {1.0, "1"},
                 {-1.5, "-1.5"},
                 {0.7, "0.7"},
                 {0.25, "0.25"},
                 {1e-3, "0.001"},
                 {1e-6, "0.000001"},
                 {1e-7, "1e-7"},
                 {-1.25e-7, "-1.25e-7"},
                 {1e20, "100000000000000000000"},
                 {1e21, "1e21"},
                 {1.5e300, "1.5e300"},
                 {123456789012345680000.0, "123456789012345680000"},
                 {9007199254740991.0, "9007199254740991"},
                 {9007199254740992.0, "9007199254740992"},
                 {9007199254740994.0, "9007199254740994"},
                 {5e-324, "5e-324"},
                 {1.7976931348623157e308, "1.7976931348623157e308"},
                 {2.2250738585072014e-308, "2.2250738585072014e-308"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {100.0, "100"},
                 {1e15, "1000000000000000"},
                 {0.1, "0.1"},
                 {1e23, "1e23"},
                 {9.5367431640625e-07, "9.5367431640625e-7"},
                 {4.35, "4.35"}};
    char out[40];
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        assert_int_equal(gpn_fmt_double(cases[i].value, out),
                         strlen(cases[i].text));
        assert_string_equal(out, cases[i].text);
    }
}

/* Random bits, random decimals and every power of two: what is written reads
 * back, by us as by the C library, and no text of fewer digits does. */
static void check_round_trip(double value)
{
    char out[40], c_text[64], digits[24];
    double back;
    int point;
    size_t n;

    gpn_fmt_double(value, out);
    assert_true(gpn_parse_double(gpn_str_c(out), &back));
    if (bits_of(back) != bits_of(value) || strtod(out, NULL) != value) {
        fail_msg("%016llx became %s", (unsigned long long)bits_of(value), out);
    }
    n = gpn_double_digits(value < 0 ? -value : value, digits, &point);
    if (n > 1) {
        snprintf(c_text, sizeof c_text, "%.*e", (int)n - 2, value);
        if (strtod(c_text, NULL) == value) {
            fail_msg("%s is shorter than %s", c_text, out);
        }
    }
    snprintf(c_text, sizeof c_text, "%.20e", value); /* 21 digits: big path */
    assert_true(gpn_parse_double(gpn_str_c(c_text), &back));
    assert_true(bits_of(back) == bits_of(value));
}

static void written_doubles_read_back_and_none_is_longer_than_need(void **state)
{
    test_clock chance = {1, 0, 42, 0};
    char text[64];
    double value, ours;
    int i;

    (void)state;
    for (i = 0; i < 2046; i++) {
        check_round_trip(from_bits((uint64_t)(i + 1) << 52));
        check_round_trip(from_bits(((uint64_t)(i + 1) << 52) - 1));
    }
    for (i = 0; i < 20000; i++) {
        value = from_bits(test_clock_random(&chance));
        if (value - value == 0.0 && value != 0.0) {
            check_round_trip(value);
        }
        snprintf(text, sizeof text, "%llue%d",
                 (unsigned long long)test_clock_random(&chance),
                 (int)(test_clock_random(&chance) % 660) - 345);
        value = strtod(text, NULL);
        assert_true(gpn_parse_double(gpn_str_c(text), &ours));
        if (bits_of(ours) != bits_of(value)) {
            fail_msg("%s", text);
        }
    }
}

static void numbers_do_not_follow_the_locale(void **state)
{
    char out[40];
    double value;

    (void)state;
    if (setlocale(LC_ALL, "de_DE.UTF-8") == NULL) {
        printf("SKIPPED: no locale de_DE.UTF-8\n");
        skip();
    }
    gpn_fmt_double(1234.5, out);
    assert_true(gpn_parse_double(gpn_str_c("0.5"), &value));
    setlocale(LC_ALL, "C");
    assert_string_equal(out, "1234.5");
    assert_true(value == 0.5);
}

/* ---- buffer ---- */

static void a_buffer_grows_up_to_its_ceiling(void **state)
{
    gpn_buf b;
    int i;

    (void)state;
    gpn_buf_init(&b, &env, 1000);
    for (i = 0; i < 100; i++) {
        gpn_buf_add(&b, "0123456789", 10);
    }
    assert_int_equal(b.status, GPTNER_OK);
    assert_int_equal(b.len, 1000);
    assert_true(b.cap <= 1000);
    gpn_buf_add_c(&b, 'x');
    assert_int_equal(b.status, GPTNER_ERR_LIMIT);
    assert_int_equal(b.len, 1000);
    gpn_buf_drop(&b, 995);
    assert_memory_equal(b.data, "56789", 5);
    gpn_buf_add_c(&b, 'x'); /* there is room now, but the failure stays */
    assert_int_equal(b.len, 5);
    gpn_buf_clear(&b);
    gpn_buf_add_s(&b, "ab");
    gpn_buf_add_str(&b, gpn_str_c("cd"));
    gpn_buf_add_str(&b, gpn_str_c(NULL));
    gpn_buf_add_u64(&b, 12);
    assert_true(gpn_str_eq_c(gpn_str(b.data, b.len), "abcd12"));
    assert_false(gpn_buf_reserve(&b, SIZE_MAX));
    assert_int_equal(b.status, GPTNER_ERR_LIMIT);
    gpn_buf_deinit(&b);
    gpn_buf_deinit(&b);
}

static void a_buffer_without_memory_keeps_what_it_has(void **state)
{
    test_mem mem = {0, false, 0, 0, 0, 0};
    gptner_allocator a = test_mem_allocator(&mem);
    gpn_env counted;
    gpn_buf b;

    (void)state;
    assert_true(gpn_env_init(&counted, &a, NULL));
    gpn_buf_init(&b, &counted, SIZE_MAX);
    gpn_buf_add_s(&b, "kept");
    mem.fail_at = 2;
    assert_false(gpn_buf_reserve(&b, 5000));
    assert_int_equal(b.status, GPTNER_ERR_NO_MEMORY);
    assert_memory_equal(b.data, "kept", 4);
    gpn_buf_clear(&b);
    assert_true(gpn_buf_reserve(&b, 5000));
    gpn_buf_deinit(&b);
    assert_int_equal(mem.blocks, 0);
    assert_int_equal(mem.bytes, 0);
}

/* ---- arena ---- */

typedef struct owner {
    gpn_arena arena;
    const char *name;
} owner;

static void an_arena_carries_its_owner_and_dies_whole(void **state)
{
    test_mem mem = {0, false, 0, 0, 0, 0};
    gptner_allocator alloc = test_mem_allocator(&mem);
    gpn_env counted;
    gpn_arena a;
    owner *o;
    int i;

    (void)state;
    assert_true(gpn_env_init(&counted, &alloc, NULL));
    gpn_arena_init(&a, &counted, 200);
    o = (owner *)gpn_arena_alloc(&a, sizeof *o);
    assert_non_null(o);
    o->arena = a;
    o->name = gpn_arena_cstr(&o->arena, "a name");
    assert_non_null(gpn_arena_alloc(&o->arena, 88));
    assert_int_equal(mem.calls, 1); /* the first chunk has room for all */
    for (i = 0; i < 2000; i++) {
        char *p = (char *)gpn_arena_alloc(&o->arena, (size_t)i);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 8, 0);
        memset(p, i, (size_t)i);
    }
    assert_true(mem.calls < 60);
    assert_string_equal(o->name, "a name");
    assert_null(gpn_arena_alloc(&o->arena, SIZE_MAX));
    assert_null(gpn_arena_alloc(&o->arena, SIZE_MAX - 20));
    gpn_arena_deinit(&o->arena);
    assert_int_equal(mem.blocks, 0);
}

static void an_arena_copies_texts_and_tells_none_from_empty(void **state)
{
    gpn_arena a;
    gptner_str s;

    (void)state;
    gpn_arena_init(&a, &env, 64);
    s = gpn_arena_str(&a, gpn_str("abcd", 2));
    assert_int_equal(s.len, 2);
    assert_string_equal(s.ptr, "ab");
    s = gpn_arena_str(&a, gpn_str("", 0));
    assert_string_equal(s.ptr, "");
    assert_null(gpn_arena_str(&a, gpn_str(NULL, 0)).ptr);
    assert_null(gpn_arena_cstr(&a, NULL));
    test_fault_set(GPN_FAULT_ALLOC, 1, true);
    assert_null(gpn_arena_alloc(&a, 1000));
    assert_non_null(gpn_arena_alloc(&a, 8)); /* the old chunk has room */
    gpn_arena_deinit(&a);
}

/* ---- texts ---- */

static void formats_are_cut_between_characters(void **state)
{
    char out[8];

    (void)state;
    assert_int_equal(gpn_format(out, sizeof out, "%d%%%.*s", -5, 2, "abc"), 5);
    assert_string_equal(out, "-5%ab");
    assert_int_equal(gpn_format(out, sizeof out, "12345678"), 7);
    assert_string_equal(out, "1234567");
    assert_int_equal(gpn_format(out, sizeof out, "12345\xe2\x82\xac"), 5);
    assert_string_equal(out, "12345");
    assert_int_equal(gpn_format(out, sizeof out, "1234\xe2\x82\xac"), 7);
    assert_int_equal(gpn_format(out, 1, "abc"), 0);
    assert_string_equal(out, "");
    assert_int_equal(gpn_format(NULL, 0, "abc"), 0);
    gpn_format(out, sizeof out, "%llu", (unsigned long long)1234567);
    assert_string_equal(out, "1234567");
    gpn_format(out, sizeof out, "%zu %x", (size_t)7, 255u);
    assert_string_equal(out, "7 ff");
}

static void an_error_text_is_one_clean_line(void **state)
{
    gptner_error e;
    char long_text[600];
    size_t i;

    (void)state;
    memset(&e, 0x55, sizeof e);
    assert_int_equal(gpn_fail(&e, GPTNER_ERR_FILE, "a\r\nb\x1b[c\x7f%s",
                              "\xc2\x9b\xff\xc3\xa4"),
                     GPTNER_ERR_FILE);
    assert_int_equal(e.status, GPTNER_ERR_FILE);
    assert_int_equal(e.http_status, 0);
    assert_true(e.retry_after_ms == -1);
    assert_string_equal(e.message, "a??b?[c?"
                                   "???"
                                   "\xc3\xa4");
    assert_int_equal(gpn_fail(NULL, GPTNER_ERR_JSON, "x"), GPTNER_ERR_JSON);
    for (i = 0; i < 4; i++) { /* cut at each byte of a 4-byte character */
        size_t n = sizeof e.message - 1 - i;

        memset(long_text, 'a', sizeof long_text);
        memcpy(long_text + n, "\xf0\x9f\x98\x80", 4);
        long_text[sizeof long_text - 1] = '\0';
        gpn_fail(&e, GPTNER_ERR_FILE, "%s", long_text);
        assert_int_equal(strlen(e.message), n);
    }
    gpn_fail(&e, GPTNER_ERR_FILE, "old");
    gpn_fail(&e, GPTNER_ERR_TIMEOUT, "new after %s", e.message);
    assert_string_equal(e.message, "new after old");
}

typedef struct log_seen {
    int lines;
    gptner_log_level level;
    char text[1200];
} log_seen;

static void log_fn(gptner_log_level level, const char *text, void *user)
{
    log_seen *seen = (log_seen *)user;

    seen->lines++;
    seen->level = level;
    snprintf(seen->text, sizeof seen->text, "%s", text);
}

static void a_log_line_is_filtered_by_level_and_stays_one_line(void **state)
{
    log_seen seen = {0, GPTNER_LOG_DEBUG, ""};
    char big[2000];

    (void)state;
    gpn_log(&env, GPTNER_LOG_ERROR, "nobody listens");
    env.log_fn = log_fn;
    env.log_user = &seen;
    env.log_level = GPTNER_LOG_WARN;
    gpn_log(&env, GPTNER_LOG_INFO, "too quiet");
    assert_int_equal(seen.lines, 0);
    gpn_log(&env, GPTNER_LOG_WARN, "%s", "two\nlines");
    assert_int_equal(seen.lines, 1);
    assert_int_equal(seen.level, GPTNER_LOG_WARN);
    assert_string_equal(seen.text, "two?lines");
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    gpn_log(&env, GPTNER_LOG_ERROR, "%s", big);
    assert_int_equal(strlen(seen.text), 1023);
}

/* ---- SHA-256 ---- */

static void sha256_knows_its_vectors(void **state)
{
    static const char *const cases[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb924"
             "27ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223"
                "b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039"
         "a33ce45964ff2167f6ecedd419db06c1"}};
    unsigned char out[32], want[32], parts[32];
    gpn_sha256_state s;
    size_t i, n;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        test_sha256(cases[i][0], strlen(cases[i][0]), out);
        assert_int_equal(test_unhex(cases[i][1], want), 32);
        assert_memory_equal(out, want, 32);
    }
    gpn_sha256_init(&s);
    for (i = 0; i < 1000000; i++) {
        gpn_sha256_update(&s, "a", 1);
    }
    gpn_sha256_final(&s, out);
    test_unhex("cdc76e5c9914fb9281a1c7e284d73e67"
               "f1809a48a497200e046d39ccc7112cd0",
               want);
    assert_memory_equal(out, want, 32);
    for (n = 0; n < 200; n++) { /* every length around the blocks, in two */
        char data[200];

        memset(data, 'q', sizeof data);
        test_sha256(data, n, out);
        gpn_sha256_init(&s);
        gpn_sha256_update(&s, data, n / 3);
        gpn_sha256_update(&s, data + n / 3, n - n / 3);
        gpn_sha256_final(&s, parts);
        assert_memory_equal(out, parts, 32);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(views_compare_by_bytes_and_by_letters, set_up),
        cmocka_unit_test_setup(views_are_searched_and_trimmed, set_up),
        cmocka_unit_test_setup(a_copy_ends_in_nul_or_there_is_no_memory,
                               set_up),
        cmocka_unit_test(utf8_is_judged_as_the_standard_does),
        cmocka_unit_test(every_code_point_goes_there_and_back),
        cmocka_unit_test(the_first_bad_byte_is_found_at_every_place),
        cmocka_unit_test(base64_knows_the_vectors_of_the_rfc),
        cmocka_unit_test(base64_refuses_what_is_not),
        cmocka_unit_test(base64_of_any_length_returns),
        cmocka_unit_test(integers_are_written_and_read_to_their_limits),
        cmocka_unit_test(numbers_are_rounded_correctly),
        cmocka_unit_test(texts_that_are_no_numbers_are_refused),
        cmocka_unit_test(a_midpoint_of_768_digits_is_decided_by_the_last),
        cmocka_unit_test(very_long_numbers_take_little_time),
        cmocka_unit_test(the_corpus_numbers_are_read),
        cmocka_unit_test(the_corpus_numbers_of_our_own_are_read),
        cmocka_unit_test(the_corpus_digits_are_written),
        cmocka_unit_test(doubles_look_as_json_wants_them),
        cmocka_unit_test(
            written_doubles_read_back_and_none_is_longer_than_need),
        cmocka_unit_test(numbers_do_not_follow_the_locale),
        cmocka_unit_test_setup(a_buffer_grows_up_to_its_ceiling, set_up),
        cmocka_unit_test_setup(a_buffer_without_memory_keeps_what_it_has,
                               set_up),
        cmocka_unit_test_setup(an_arena_carries_its_owner_and_dies_whole,
                               set_up),
        cmocka_unit_test_setup(an_arena_copies_texts_and_tells_none_from_empty,
                               set_up),
        cmocka_unit_test(formats_are_cut_between_characters),
        cmocka_unit_test_setup(an_error_text_is_one_clean_line, set_up),
        cmocka_unit_test_setup(
            a_log_line_is_filtered_by_level_and_stays_one_line, set_up),
        cmocka_unit_test(sha256_knows_its_vectors),
    };

    return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
