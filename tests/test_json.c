/* >>json: strict reader, document, pull reader, writer.
 *
 * The vectors in this file stand alone. Where the shared corpus is found
 * (GPTNER_CORPUS, else ../shared/corpus) its vectors run too. Every text is
 * read flush against an unmapped page, by the document, by the pull reader
 * with room of its own, and in place; all must agree. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

/* --- text against an unmapped page -------------------------------------- */

typedef struct fence {
    char *map, *text;
    size_t pages;
} fence;

static char *fence_text(fence *f, const char *text, size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    f->pages = (len + page - 1) / page * page + page;
    f->map = (char *)mmap(NULL, f->pages, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f->map != MAP_FAILED);
    assert_int_equal(mprotect(f->map + f->pages - page, page, PROT_NONE), 0);
    f->text = f->map + f->pages - page - len;
    if (len > 0)
        memcpy(f->text, text, len);
    return f->text;
}

static void fence_free(fence *f)
{
    munmap(f->map, f->pages);
}

/* --- an allocator that counts, and fails at a chosen call --------------- */

typedef struct counter {
    int calls, fail_at, live;
} counter;

static void *count_alloc(size_t size, void *user)
{
    counter *c = (counter *)user;
    void *ptr = ++c->calls == c->fail_at ? NULL : malloc(size);
    c->live += ptr != NULL;
    return ptr;
}

static void *count_realloc(void *ptr, size_t size, void *user)
{
    counter *c = (counter *)user;
    return ++c->calls == c->fail_at ? NULL : realloc(ptr, size);
}

static void count_free(void *ptr, void *user)
{
    counter *c = (counter *)user;
    c->live--;
    free(ptr);
}

static gptner_allocator counting(counter *c)
{
    gptner_allocator a;
    a.alloc_fn = count_alloc;
    a.realloc_fn = count_realloc;
    a.free_fn = count_free;
    a.user = c;
    return a;
}

/* --- a value as a tree, in the form of the corpus ----------------------- */

typedef struct tree {
    char *text;
    size_t len, cap;
} tree;

GPN_PRINTF(2, 3)
static void tree_add(tree *t, const char *format, ...)
{
    va_list args;
    int n;
    if (t->cap - t->len < 512) {
        t->cap = t->cap * 2 + 1024;
        t->text = (char *)realloc(t->text, t->cap);
        assert_non_null(t->text);
    }
    va_start(args, format);
    n = vsnprintf(t->text + t->len, t->cap - t->len, format, args);
    va_end(args);
    assert_true(n >= 0 && n < 512);
    t->len += (size_t)n;
}

static void tree_add_hex(tree *t, const char *word, gptner_str text)
{
    tree_add(t, "%s %s", word, text.len == 0 ? "-" : "");
    for (size_t i = 0; i < text.len; i++)
        tree_add(t, "%02x", (unsigned)(unsigned char)text.ptr[i]);
    tree_add(t, "\n");
}

static uint64_t bits_of(double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof(bits));
    return bits;
}

static double double_of(uint64_t bits)
{
    double number;
    memcpy(&number, &bits, sizeof(number));
    return number;
}

/* Long numbers have no text in a tree. */
static void tree_add_number(tree *t, double number, gptner_str text)
{
    bool shown = text.len <= 400;
    tree_add(t, "num %016" PRIx64 " %.*s\n", bits_of(number),
             shown ? (int)text.len : 1, shown ? text.ptr : "-");
}

static void tree_of_value(tree *t, const gptner_json_value *value)
{
    gptner_json_iter it = gptner_json_iterate(value);
    gptner_str text;
    double number;
    bool truth;
    switch (gptner_json_type_of(value)) {
    case GPTNER_JSON_OBJECT:
        tree_add(t, "obj %zu\n", gptner_json_size(value));
        break;
    case GPTNER_JSON_ARRAY:
        tree_add(t, "arr %zu\n", gptner_json_size(value));
        break;
    case GPTNER_JSON_STRING:
        assert_true(gptner_json_get_str(value, &text));
        assert_int_equal(text.ptr[text.len], '\0');
        assert_int_equal(gptner_json_size(value), text.len);
        tree_add_hex(t, "str", text);
        break;
    case GPTNER_JSON_NUMBER:
        assert_true(gptner_json_get_number(value, &text));
        assert_true(gptner_json_get_double(value, &number));
        tree_add_number(t, number, text);
        break;
    case GPTNER_JSON_BOOL:
        assert_true(gptner_json_get_bool(value, &truth));
        tree_add(t, truth ? "true\n" : "false\n");
        break;
    case GPTNER_JSON_NULL:
        tree_add(t, "null\n");
        break;
    case GPTNER_JSON_NONE:
        fail();
    }
    while (gptner_json_iter_next(&it)) {
        if (it.is_object)
            tree_add_hex(t, "key", it.key);
        tree_of_value(t, it.value);
    }
}

static void tree_of_reader(tree *t, gptner_json_reader *r);

/* Children are counted by a copy of the reader that runs ahead; where strings
 * are decoded in place a second reader over the untouched text does it. */
static size_t count_children(gptner_json_reader ahead, bool object)
{
    gptner_str key;
    size_t n = 0;
    while (object ? gptner_json_next_key(&ahead, &key)
                  : gptner_json_next_item(&ahead))
        n++;
    return n;
}

static void tree_of_object(tree *t, gptner_json_reader *r)
{
    gptner_str key;
    assert_true(gptner_json_enter_object(r) || r->error.status != GPTNER_OK);
    if (r->error.status == GPTNER_OK && r->edit == NULL)
        tree_add(t, "obj %zu\n", count_children(*r, true));
    else
        tree_add(t, "obj\n");
    while (gptner_json_next_key(r, &key)) {
        tree_add_hex(t, "key", key);
        tree_of_reader(t, r);
    }
}

static void tree_of_array(tree *t, gptner_json_reader *r)
{
    assert_true(gptner_json_enter_array(r) || r->error.status != GPTNER_OK);
    if (r->error.status == GPTNER_OK && r->edit == NULL)
        tree_add(t, "arr %zu\n", count_children(*r, false));
    else
        tree_add(t, "arr\n");
    while (gptner_json_next_item(r))
        tree_of_reader(t, r);
}

static void tree_of_reader(tree *t, gptner_json_reader *r)
{
    gptner_json_reader ahead = *r;
    gptner_str text;
    double number;
    bool truth;
    switch (gptner_json_peek(r)) {
    case GPTNER_JSON_OBJECT:
        tree_of_object(t, r);
        break;
    case GPTNER_JSON_ARRAY:
        tree_of_array(t, r);
        break;
    case GPTNER_JSON_STRING:
        if (gptner_json_read_str(r, &text))
            tree_add_hex(t, "str", text);
        break;
    case GPTNER_JSON_NUMBER:
        if (gptner_json_read_double(r, &number)) {
            assert_true(gptner_json_read_raw(&ahead, &text));
            tree_add_number(t, number, text);
        }
        break;
    case GPTNER_JSON_BOOL:
        if (gptner_json_read_bool(r, &truth))
            tree_add(t, truth ? "true\n" : "false\n");
        break;
    case GPTNER_JSON_NULL:
        if (gptner_json_read_null(r))
            tree_add(t, "null\n");
        break;
    case GPTNER_JSON_NONE:
        break;
    }
}

static void assert_same_error(gptner_json_error a, gptner_json_error b)
{
    assert_int_equal(a.status, b.status);
    assert_int_equal(a.offset, b.offset);
    assert_int_equal(a.line, b.line);
    assert_int_equal(a.column, b.column);
    assert_string_equal(a.message, b.message);
}

/* Without the counts that a reader in place does not know. */
static void assert_same_shape(const tree *full, const tree *bare)
{
    const char *a = full->text, *b = bare->text;
    while (*a != '\0' && *b != '\0') {
        size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");
        bool container =
            strncmp(a, "obj ", 4) == 0 || strncmp(a, "arr ", 4) == 0;
        assert_int_equal(container ? 3 : n, m);
        assert_memory_equal(a, b, m);
        a += n + 1;
        b += m + 1;
    }
    assert_int_equal(*a, *b);
}

static void read_in_place(const char *text, size_t len,
                          const gptner_json_options *opt, const tree *want,
                          gptner_json_error want_err)
{
    gptner_json_reader r;
    gptner_json_error err;
    tree got = {NULL, 0, 0};
    fence f;
    char *copy = fence_text(&f, text, len);
    gptner_json_reader_init_in_place(&r, copy, len, opt);
    tree_of_reader(&got, &r);
    gptner_json_reader_finish(&r, &err);
    assert_same_error(err, want_err);
    if (err.status == GPTNER_OK)
        assert_same_shape(want, &got);
    free(got.text);
    fence_free(&f);
}

/* Read a text in every way, which must agree. *out gets the tree (to be freed)
 * if the text is JSON. */
static gptner_json_error read_all_ways(const char *text, size_t len,
                                       const gptner_json_options *opt,
                                       char **out)
{
    gptner_json_doc *doc;
    gptner_json_reader r;
    gptner_json_error err, other;
    tree dom = {NULL, 0, 0}, pull = {NULL, 0, 0};
    char *room = (char *)malloc(len + 1);
    fence f;
    const char *fenced = fence_text(&f, text, len);
    assert_non_null(room);
    gptner_json_parse(fenced, len, opt, &doc, &err);
    assert_int_equal(err.status == GPTNER_OK, doc != NULL);
    if (doc != NULL)
        tree_of_value(&dom, gptner_json_root(doc));

    gptner_json_reader_init(&r, fenced, len, opt);
    gptner_json_reader_finish(&r, &other);
    assert_same_error(err, other);

    gptner_json_reader_init(&r, fenced, len, opt);
    gptner_json_reader_scratch(&r, room, len + 1);
    tree_of_reader(&pull, &r);
    assert_int_equal(gptner_json_reader_finish(&r, &other), other.status);
    assert_same_error(err, other);
    if (doc != NULL)
        assert_string_equal(dom.text, pull.text);

    read_in_place(text, len, opt, &dom, err);
    gptner_json_doc_free(doc);
    fence_free(&f);
    free(room);
    free(pull.text);
    *out = dom.text;
    return err;
}

/* --- own vectors: documents --------------------------------------------- */

#define V(text) text, sizeof(text) - 1

static const struct {
    const char *text;
    size_t len;
    const char *tree;
} good_docs[] = {
    {V("null"), "null\n"},
    {V(" \t\r\ntrue \n"), "true\n"},
    {V("\xEF\xBB\xBF[false]"), "arr 1\nfalse\n"},
    {V("\"\""), "str -\n"},
    {V("[]"), "arr 0\n"},
    {V("[ ]"), "arr 0\n"},
    {V("{ }"), "obj 0\n"},
    {V("[[],{},[[]]]"), "arr 3\narr 0\nobj 0\narr 1\narr 0\n"},
    {V("{\"a\":1,\"a\":2}"), "obj 2\nkey 61\nnum 3ff0000000000000 1\n"
                             "key 61\nnum 4000000000000000 2\n"},
    {V("{\"\":\"\\u0000\"}"), "obj 1\nkey -\nstr 00\n"},
    {V("[\"a\\\"b\",\"\\/\\\\\\b\\f\\n\\r\\t\"]"),
     "arr 2\nstr 612262\nstr 2f5c080c0a0d09\n"},
    {V("\"\\ud834\\udd1e\\u00e9\""), "str f09d849ec3a9\n"},
    {V("\"\\uDBFF\\uDFFF\""), "str f48fbfbf\n"},
    {V("\"\\ud800\""), "str efbfbd\n"},
    {V("\"\\udc00\\ud800\""), "str efbfbdefbfbd\n"},
    {V("\"\\ud800\\ud800\\udc00\""), "str efbfbdf0908080\n"},
    {V("\"\\ud800\\u0041\""), "str efbfbd41\n"},
    {V("\"\x7f\xC2\x80\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80"
       "\xF4\x8F\xBF\xBF\""),
     "str 7fc280e0a080ed9fbfee8080f0908080f48fbfbf\n"},
    {V("[1e999,-1e999,1e-999]"),
     "arr 3\nnum 7ff0000000000000 1e999\nnum fff0000000000000 -1e999\n"
     "num 0000000000000000 1e-999\n"},
    {V("[0,-0,-0.0,0e5]"),
     "arr 4\nnum 0000000000000000 0\nnum 8000000000000000 -0\n"
     "num 8000000000000000 -0.0\nnum 0000000000000000 0e5\n"},
};

/* offset, line and column of the byte that is wrong */
static const struct {
    const char *text;
    size_t len;
    size_t offset, line, column;
} bad_docs[] = {
    {V(""), 0, 1, 1},
    {V(" \n"), 2, 2, 1},
    {V("\xEF\xBB\xBF"), 3, 1, 1},
    {V("\xEF\xBB\xBF\xEF\xBB\xBF[]"), 3, 1, 1},
    {V("\xFF\xFE[\0]\0"), 0, 1, 1},
    {V("[1,]"), 3, 1, 4},
    {V("[,1]"), 1, 1, 2},
    {V("[1 2]"), 3, 1, 4},
    {V("[1"), 2, 1, 3},
    {V("["), 1, 1, 2},
    {V("]"), 0, 1, 1},
    {V("[1}"), 2, 1, 3},
    {V("{\"a\":1]"), 6, 1, 7},
    {V("{\"a\"}"), 4, 1, 5},
    {V("{\"a\" 1}"), 5, 1, 6},
    {V("{\"a\":}"), 5, 1, 6},
    {V("{\"a\":1,}"), 7, 1, 8},
    {V("{a:1}"), 1, 1, 2},
    {V("{1:1}"), 1, 1, 2},
    {V("{\n  \"a\": tru\n}"), 9, 2, 8},
    {V("[\n\n1,\n x]"), 7, 4, 2},
    {V("nul"), 0, 1, 1},
    {V("True"), 0, 1, 1},
    {V("NaN"), 0, 1, 1},
    {V("[Infinity]"), 1, 1, 2},
    {V("-Infinity"), 1, 1, 2},
    {V("'a'"), 0, 1, 1},
    {V("// c\n1"), 0, 1, 1},
    {V("1 2"), 2, 1, 3},
    {V("[]]"), 2, 1, 3},
    {V("1\0"), 1, 1, 2},
    {V("[1\v]"), 2, 1, 3},
    {V("[1\xC2\xA0]"), 2, 1, 3},
    {V("01"), 1, 1, 2},
    {V("-01"), 2, 1, 3},
    {V("-"), 1, 1, 2},
    {V("+1"), 0, 1, 1},
    {V(".5"), 0, 1, 1},
    {V("1."), 2, 1, 3},
    {V("1.e3"), 2, 1, 3},
    {V("1e"), 2, 1, 3},
    {V("1e+"), 3, 1, 4},
    {V("1e+-1"), 3, 1, 4},
    {V("0x10"), 1, 1, 2},
    {V("1_000"), 1, 1, 2},
    {V("1,5"), 1, 1, 2},
    {V("\"abc"), 4, 1, 5},
    {V("\"abc\\"), 4, 1, 5},
    {V("\"abc\\\""), 6, 1, 7},
    {V("\"\\x41\""), 1, 1, 2},
    {V("\"\\u12\""), 1, 1, 2},
    {V("\"\\u12g4\""), 1, 1, 2},
    {V("\"ab\\'\""), 3, 1, 4},
    {V("\"\\\0\""), 1, 1, 2},
    {V("\"a\nb\""), 2, 1, 3},
    {V("\"01234567\t\""), 9, 1, 10},
    {V("\"\0\""), 1, 1, 2},
    {V("\"\x1f\""), 1, 1, 2},
    {V("\"\x80\""), 1, 1, 2},
    {V("\"\xC0\x80\""), 1, 1, 2},
    {V("\"\xC1\xBF\""), 1, 1, 2},
    {V("\"\xE0\x9F\xBF\""), 1, 1, 2},
    {V("\"\xED\xA0\x80\""), 1, 1, 2},
    {V("\"\xF0\x8F\xBF\xBF\""), 1, 1, 2},
    {V("\"\xF4\x90\x80\x80\""), 1, 1, 2},
    {V("\"\xF5\x80\x80\x80\""), 1, 1, 2},
    {V("\"\xC3\""), 1, 1, 2},
    {V("\"\xE2\x82"), 1, 1, 2},
    {V("\"01234\xF0\x9F\x98\""), 6, 1, 7},
    {V("{\"\xFF\":1}"), 2, 1, 3},
};

static void documents_give_their_tree_whichever_way_they_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < GPN_COUNT(good_docs); i++) {
        char *got;
        gptner_json_error err =
            read_all_ways(good_docs[i].text, good_docs[i].len, NULL, &got);
        assert_int_equal(err.status, GPTNER_OK);
        assert_string_equal(got, good_docs[i].tree);
        free(got);
    }
}

static void malformed_text_is_refused_at_the_byte_that_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < GPN_COUNT(bad_docs); i++) {
        char *got;
        gptner_json_error err =
            read_all_ways(bad_docs[i].text, bad_docs[i].len, NULL, &got);
        assert_null(got);
        if (err.status != GPTNER_ERR_JSON || err.offset != bad_docs[i].offset ||
            err.line != bad_docs[i].line || err.column != bad_docs[i].column)
            fail_msg("bad_docs[%zu] %s: %zu %zu:%zu %s", i, bad_docs[i].text,
                     err.offset, err.line, err.column, err.message);
    }
}

static const char sample[] =
    "{\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
    "\"assistant\",\"content\":\"Hello \\u00fc \\ud83d\\ude00\\n\xE2\x82\xAC"
    "\"},\"finish_reason\":null}],\"usage\":{\"total_tokens\":12e0},"
    "\"ok\":true,\"list\":[1,-2.5,[],{}]}";

static void a_text_cut_short_anywhere_is_refused_at_its_end(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof(sample) - 1; len++) {
        char *got;
        gptner_json_error err = read_all_ways(sample, len, NULL, &got);
        assert_int_equal(err.status, GPTNER_ERR_JSON);
        assert_true(err.offset <= len);
        free(got);
    }
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static void readers_agree_on_randomly_damaged_text(void **state)
{
    static const char bytes[] = "{}[]\",:\\u0e1-. tfn\n\xE2\x82\xFF\0\x1f";
    uint64_t seed = 1;
    (void)state;
    for (int round = 0; round < 4000; round++) {
        char text[sizeof(sample)], *got;
        size_t len = sizeof(sample) - 1 - next_random(&seed) % 8;
        memcpy(text, sample, len);
        for (uint32_t n = next_random(&seed) % 3 + 1; n > 0; n--)
            text[next_random(&seed) % len] =
                bytes[next_random(&seed) % (sizeof(bytes) - 1)];
        read_all_ways(text, len, NULL, &got);
        free(got);
    }
}

static void strings_are_read_whatever_their_place_in_a_block(void **state)
{
    static const char *const odd[] = {
        "\\n", "\\\"", "\xC3\xA9", "\\u20ac", "\xF0\x9F\x98\x80", "\x7f"};
    static const char *const odd_hex[] = {"0a",     "22",       "c3a9",
                                          "e282ac", "f09f9880", "7f"};
    (void)state;
    for (size_t i = 0; i < GPN_COUNT(odd); i++)
        for (size_t before = 0; before < 20; before++) {
            char text[80] = "\"", want[160] = "str ", *got;
            for (size_t k = 0; k < before; k++) {
                strcat(text, "x");
                strcat(want, "78");
            }
            strcat(strcat(text, odd[i]), "yz\"");
            strcat(strcat(want, odd_hex[i]), "797a\n");
            read_all_ways(text, strlen(text), NULL, &got);
            assert_non_null(got);
            assert_string_equal(got, want);
            free(got);
        }
}

static void half_a_surrogate_pair_is_refused_on_request(void **state)
{
    gptner_json_options opt = GPN_ZERO;
    char *got;
    (void)state;
    opt.refuse_lone_surrogates = true;
    assert_int_equal(
        read_all_ways(V("[\"\\ud83d\\ude00\",\"a\\ud800\"]"), &opt, &got)
            .offset,
        18);
    assert_null(got);
    assert_int_equal(read_all_ways(V("{\"\\udc00\":1}"), &opt, &got).status,
                     GPTNER_ERR_JSON);
    assert_int_equal(read_all_ways(V("\"\\ud83d\\ude00\""), &opt, &got).status,
                     GPTNER_OK);
    free(got);
}

static gptner_json_error read_nested(size_t levels, size_t max_depth)
{
    gptner_json_options opt = GPN_ZERO;
    gptner_json_error err;
    gptner_json_reader r;
    gptner_json_doc *doc;
    char *text = (char *)malloc(levels * 6 + 1);
    size_t len = 0;
    assert_non_null(text);
    opt.max_depth = max_depth;
    for (size_t i = 0; i < levels; i++)
        len += (size_t)sprintf(text + len, i % 3 == 1 ? "{\"\":" : "[");
    if (levels % 3 == 2) /* the innermost is an object and wants a value */
        text[len++] = '0';
    for (size_t i = levels; i-- > 0;)
        text[len++] = i % 3 == 1 ? '}' : ']';
    gptner_json_parse(text, len, &opt, &doc, &err);
    gptner_json_doc_free(doc);
    gptner_json_reader_init(&r, text, len, &opt);
    assert_int_equal(gptner_json_reader_finish(&r, NULL), err.status);
    assert_same_error(r.error, err);
    free(text);
    return err;
}

static void nesting_is_bounded_without_recursion(void **state)
{
    (void)state;
    assert_int_equal(read_nested(512, 0).status, GPTNER_OK);
    assert_int_equal(read_nested(513, 0).status, GPTNER_ERR_LIMIT);
    assert_int_equal(read_nested(1, 1).status, GPTNER_OK);
    assert_int_equal(read_nested(2, 1).status, GPTNER_ERR_LIMIT);
    assert_int_equal(read_nested(2, 1).offset, 1);
    assert_int_equal(read_nested(1024, 1024).status, GPTNER_OK);
    assert_int_equal(read_nested(1025, 9999999).status, GPTNER_ERR_LIMIT);
    assert_int_equal(read_nested(1000000, 0).status, GPTNER_ERR_LIMIT);
}

/* --- own vectors: numbers ----------------------------------------------- */

enum { NO_INT, I64, U64 };
static const struct {
    const char *text;
    uint64_t bits;
    int kind;
    uint64_t integer; /* as two's complement for I64 */
} numbers[] = {
    {"0", 0, I64, 0},
    {"-0", 0x8000000000000000u, I64, 0},
    {"-0.0e-5", 0x8000000000000000u, I64, 0},
    {"1", 0x3ff0000000000000u, I64, 1},
    {"-1", 0xbff0000000000000u, I64, UINT64_MAX},
    {"10.0", 0x4024000000000000u, I64, 10},
    {"1e1", 0x4024000000000000u, I64, 10},
    {"1E+1", 0x4024000000000000u, I64, 10},
    {"100e-1", 0x4024000000000000u, I64, 10},
    {"0.001e4", 0x4024000000000000u, I64, 10},
    {"1000000000000000000000e-20", 0x4024000000000000u, I64, 10},
    {"0.00000000000000000000000000000001e33", 0x4024000000000000u, I64, 10},
    {"1.5", 0x3ff8000000000000u, NO_INT, 0},
    {"15e-1", 0x3ff8000000000000u, NO_INT, 0},
    {"0e99999999999999999999", 0, I64, 0},
    {"9007199254740993", 0x4340000000000000u, I64, 9007199254740993u},
    {"9223372036854775807", 0x43e0000000000000u, I64, INT64_MAX},
    {"9223372036854775808", 0x43e0000000000000u, U64, (uint64_t)1 << 63},
    {"-9223372036854775808", 0xc3e0000000000000u, I64, (uint64_t)1 << 63},
    {"-9223372036854775809", 0xc3e0000000000000u, NO_INT, 0},
    {"18446744073709551615", 0x43f0000000000000u, U64, UINT64_MAX},
    {"18446744073709551615.00", 0x43f0000000000000u, U64, UINT64_MAX},
    {"18446744073709551616", 0x43f0000000000000u, NO_INT, 0},
    {"1e19", 0x43e158e460913d00u, U64, 10000000000000000000u},
    {"1e20", 0x4415af1d78b58c40u, NO_INT, 0},
    {"1e99999999999999999999", 0x7ff0000000000000u, NO_INT, 0},
    {"1e-99999999999999999999", 0, NO_INT, 0},
    {"0.1", 0x3fb999999999999au, NO_INT, 0},
    {"1e23", 0x44b52d02c7e14af6u, NO_INT, 0},
    {"8.5e22", 0x44b1ffdbf6b2b2ebu, NO_INT, 0},
    {"4.9e-324", 1, NO_INT, 0},
    {"2.4703282292062327208e-324", 0, NO_INT, 0},
    {"2.4703282292062328e-324", 1, NO_INT, 0},
    {"2.2250738585072014e-308", 0x0010000000000000u, NO_INT, 0},
    {"1.7976931348623157e308", 0x7fefffffffffffffu, NO_INT, 0},
    {"1.7976931348623159e308", 0x7ff0000000000000u, NO_INT, 0},
    {"-0.0026378266356788132", 0xbf659bec643f8e25u, NO_INT, 0},
    {"9007199254740993.0000000000000000000000000000000001", 0x4340000000000001u,
     NO_INT, 0},
};

static void check_number(const char *text, size_t len, uint64_t bits, int kind,
                         uint64_t integer)
{
    gptner_json_doc *doc;
    const gptner_json_value *value;
    gptner_json_reader r, again;
    gptner_str written;
    double number = 0, pulled = 0;
    int64_t i64 = 1, pulled_i64 = 1;
    uint64_t u64 = 1, pulled_u64 = 1;
    bool is_i64, is_u64;
    fence f;
    const char *fenced = fence_text(&f, text, len);
    assert_int_equal(gptner_json_parse(fenced, len, NULL, &doc, NULL),
                     GPTNER_OK);
    value = gptner_json_root(doc);
    assert_true(gptner_json_get_number(value, &written));
    assert_true(gptner_json_get_double(value, &number));
    if (bits_of(number) != bits)
        fail_msg("%.*s: %016" PRIx64 " instead of %016" PRIx64, (int)len, text,
                 bits_of(number), bits);
    is_i64 = gptner_json_get_int64(value, &i64);
    is_u64 = gptner_json_get_uint64(value, &u64);
    assert_int_equal(is_i64, kind == I64);
    assert_int_equal(is_u64,
                     kind == U64 || (kind == I64 && (int64_t)integer >= 0));
    assert_true((uint64_t)i64 == (is_i64 ? integer : 0));
    assert_true(u64 == (is_u64 ? integer : 0));

    gptner_json_reader_init(&r, fenced, len, NULL);
    again = r;
    assert_true(gptner_json_read_double(&again, &pulled));
    assert_int_equal(gptner_json_reader_finish(&again, NULL), GPTNER_OK);
    assert_true(bits_of(pulled) == bits);
    again = r;
    assert_int_equal(gptner_json_read_int64(&again, &pulled_i64), is_i64);
    assert_int_equal(gptner_json_reader_finish(&again, NULL), GPTNER_OK);
    assert_true(pulled_i64 == i64);
    again = r;
    assert_int_equal(gptner_json_read_uint64(&again, &pulled_u64), is_u64);
    assert_true(pulled_u64 == u64);
    gptner_json_doc_free(doc);
    fence_free(&f);
}

static void numbers_are_exact_integers_and_correctly_rounded(void **state)
{
    (void)state;
    for (size_t i = 0; i < GPN_COUNT(numbers); i++)
        check_number(numbers[i].text, strlen(numbers[i].text), numbers[i].bits,
                     numbers[i].kind, numbers[i].integer);
}

static void doubles_survive_writing_and_reading(void **state)
{
    uint64_t seed = 7;
    gptner_json_writer *w;
    (void)state;
    assert_int_equal(gptner_json_writer_new(NULL, &w), GPTNER_OK);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = (uint64_t)next_random(&seed) << 62 ^
                        (uint64_t)next_random(&seed) << 31 ^ next_random(&seed);
        double number = double_of(bits), back;
        gptner_json_reader r;
        gptner_str text;
        if (i % 2 != 0) /* what embeddings are made of */
            number = (float)((int)(bits % 200001) - 100000) / 1234567.0f;
        if (number - number != 0)
            continue;
        gptner_json_writer_reset(w);
        gptner_json_write_double(w, number);
        assert_int_equal(gptner_json_writer_finish(w, &text), GPTNER_OK);
        gptner_json_reader_init(&r, text.ptr, text.len, NULL);
        assert_true(gptner_json_read_double(&r, &back));
        assert_int_equal(gptner_json_reader_finish(&r, NULL), GPTNER_OK);
        assert_true(bits_of(back) == bits_of(number));
    }
    gptner_json_writer_free(w);
}

/* --- document ----------------------------------------------------------- */

static void values_are_found_by_key_index_and_path(void **state)
{
    static const char text[] =
        "{\"a\":{\"b\":[10,{\"c\":\"deep\"},[1,2,3]]},\"a.b\":1,"
        "\"dup\":1,\"dup\":2,\"\":7}";
    gptner_json_doc *doc;
    const gptner_json_value *root;
    gptner_str key = {"dup", 3};
    int64_t n = 0;
    (void)state;
    assert_int_equal(gptner_json_parse(V(text), NULL, &doc, NULL), GPTNER_OK);
    root = gptner_json_root(doc);
    assert_int_equal(gptner_json_size(root), 5);
    assert_ptr_equal(gptner_json_path(root, ""), root);
    assert_string_equal(
        gptner_json_get_cstr(gptner_json_path(root, "a.b[1].c"), "?"), "deep");
    assert_true(gptner_json_get_int64(gptner_json_path(root, "a.b[2][2]"), &n));
    assert_int_equal(n, 3);
    assert_true(gptner_json_get_int64(gptner_json_find(root, "a.b"), &n));
    assert_int_equal(n, 1);
    assert_true(gptner_json_get_int64(gptner_json_find_str(root, key), &n));
    assert_int_equal(n, 2); /* the last of equal keys */
    assert_true(gptner_json_get_int64(gptner_json_find(root, ""), &n));
    assert_int_equal(n, 7);
    static const char *const missing[] = {
        "x",       "a.x",
        "a.b[3]",  "a.b[0].c",
        "a[0]",    "[0]",
        "a.b[",    "a.b[1",
        "a.b[]",   "a.b[-1]",
        "a.b.c",   "a.b[1]c.",
        "a..b[0]", "a.b[99999999999999999999999999]"};
    for (size_t i = 0; i < GPN_COUNT(missing); i++)
        assert_null(gptner_json_path(root, missing[i]));
    assert_null(gptner_json_at(root, 0));
    assert_null(gptner_json_find(gptner_json_path(root, "a.b"), "c"));
    gptner_json_doc_free(doc);
}

static void a_missing_value_fits_nothing_and_breaks_nothing(void **state)
{
    gptner_str text = {"x", 1};
    gptner_json_iter it = gptner_json_iterate(NULL);
    double number = 1;
    int64_t i64 = 1;
    uint64_t u64 = 1;
    bool truth = true;
    (void)state;
    assert_null(gptner_json_root(NULL));
    gptner_json_doc_free(NULL);
    assert_int_equal(gptner_json_type_of(NULL), GPTNER_JSON_NONE);
    assert_int_equal(gptner_json_size(NULL), 0);
    assert_null(gptner_json_find(NULL, "a"));
    assert_null(gptner_json_at(NULL, 0));
    assert_null(gptner_json_path(NULL, "a[0]"));
    assert_false(gptner_json_iter_next(&it));
    assert_false(gptner_json_get_bool(NULL, &truth));
    assert_false(gptner_json_get_int64(NULL, &i64));
    assert_false(gptner_json_get_uint64(NULL, &u64));
    assert_false(gptner_json_get_double(NULL, &number));
    assert_false(gptner_json_get_str(NULL, &text));
    assert_true(!truth && i64 == 0 && u64 == 0 && number == 0);
    assert_null(text.ptr);
    assert_null(gptner_json_get_cstr(NULL, NULL));
}

static void getters_give_zero_for_values_of_another_kind(void **state)
{
    gptner_json_doc *doc;
    const gptner_json_value *root;
    gptner_json_iter it;
    (void)state;
    assert_int_equal(gptner_json_parse(V("[null,\"5\",[],{},\"a\\u0000b\"]"),
                                       NULL, &doc, NULL),
                     GPTNER_OK);
    root = gptner_json_root(doc);
    for (it = gptner_json_iterate(root); gptner_json_iter_next(&it);) {
        int64_t i64 = 1;
        double number = 1;
        bool truth = true;
        assert_null(it.key.ptr);
        assert_false(gptner_json_get_int64(it.value, &i64));
        assert_false(gptner_json_get_double(it.value, &number));
        assert_false(gptner_json_get_bool(it.value, &truth));
        assert_true(i64 == 0 && number == 0 && !truth);
    }
    assert_null(it.value);
    assert_string_equal(gptner_json_get_cstr(gptner_json_at(root, 1), ""), "5");
    assert_string_equal(gptner_json_get_cstr(gptner_json_at(root, 4), "no"),
                        "no");
    gptner_json_doc_free(doc);
}

static void every_failing_allocation_of_parse_is_reported(void **state)
{
    char text[4000] = "[";
    gptner_status status = GPTNER_ERR_NO_MEMORY;
    (void)state;
    for (int i = 0; i < 900; i++)
        strcat(text, i > 0 ? ",[]" : "1");
    strcat(text, "]");
    for (int n = 1; n < 100 && status != GPTNER_OK; n++) {
        counter c = {0, n, 0};
        gptner_allocator a = counting(&c);
        gptner_json_options opt = GPN_ZERO;
        gptner_json_error err;
        gptner_json_doc *doc;
        opt.allocator = &a;
        status = gptner_json_parse(text, strlen(text), &opt, &doc, &err);
        assert_int_equal(status, err.status);
        assert_int_equal(doc != NULL, status == GPTNER_OK);
        if (doc == NULL)
            assert_int_equal(status, GPTNER_ERR_NO_MEMORY);
        else
            assert_int_equal(gptner_json_size(gptner_json_root(doc)), 900);
        gptner_json_doc_free(doc);
        assert_int_equal(c.live, 0);
    }
    assert_int_equal(status, GPTNER_OK);
}

static void memory_of_a_document_is_bounded(void **state)
{
    gptner_json_options opt = GPN_ZERO;
    gptner_json_error err;
    gptner_json_doc *doc;
    gptner_allocator half = GPN_ZERO;
    char text[2001];
    bool fitted = false;
    (void)state;
    for (int i = 0; i < 1000; i++)
        memcpy(text + 2 * i, i == 0 ? "[0" : ",0", 2);
    text[2000] = ']';
    for (opt.max_bytes = 1; opt.max_bytes < 40000; opt.max_bytes += 37) {
        gptner_status status =
            gptner_json_parse(text, sizeof(text), &opt, &doc, &err);
        assert_int_equal(status,
                         fitted || doc != NULL ? GPTNER_OK : GPTNER_ERR_LIMIT);
        fitted = doc != NULL;
        gptner_json_doc_free(doc);
    }
    assert_true(fitted);
    half.alloc_fn = count_alloc;
    opt.allocator = &half;
    opt.max_bytes = 0;
    assert_int_equal(gptner_json_parse("1", 1, &opt, &doc, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_json_parse(NULL, 0, NULL, &doc, NULL),
                     GPTNER_ERR_JSON);
}

/* --- pull reader -------------------------------------------------------- */

static void what_is_not_read_is_skipped(void **state)
{
    static const char text[] =
        "{\"a\":[1,{\"x\":[]}],\"b\":{\"c\":1,\"d\":[2]},"
        "\"e\":\"last\",\"f\":{\"g\":1,\"h\":2}}";
    gptner_json_reader r;
    gptner_str key, value = {NULL, 0};
    char seen[16] = "";
    (void)state;
    gptner_json_reader_init(&r, V(text), NULL);
    assert_true(gptner_json_enter_object(&r));
    while (gptner_json_next_key(&r, &key)) {
        strncat(seen, key.ptr, key.len);
        if (*key.ptr == 'e')
            assert_true(gptner_json_read_str(&r, &value));
        if (*key.ptr == 'f') {
            assert_true(gptner_json_enter_object(&r));
            assert_true(gptner_json_next_key(&r, &key));
            gptner_json_leave(&r);
        }
    }
    assert_string_equal(seen, "abef");
    assert_memory_equal(value.ptr, "last", 4);
    assert_int_equal(r.depth, 0);
    assert_int_equal(gptner_json_reader_finish(&r, NULL), GPTNER_OK);
}

static void what_is_skipped_is_validated_all_the_same(void **state)
{
    gptner_json_reader r;
    gptner_json_error err;
    gptner_str key;
    (void)state;
    gptner_json_reader_init(&r, V("{\"a\":{\"b\":[1,2,,3]},\"c\":1}"), NULL);
    assert_true(gptner_json_enter_object(&r));
    assert_true(gptner_json_next_key(&r, &key));
    assert_false(gptner_json_next_key(&r, &key));
    assert_null(key.ptr);
    assert_false(gptner_json_next_key(&r, &key));
    assert_false(gptner_json_skip(&r));
    assert_int_equal(gptner_json_peek(&r), GPTNER_JSON_NONE);
    assert_int_equal(gptner_json_reader_finish(&r, &err), GPTNER_ERR_JSON);
    assert_int_equal(err.offset, 15);
    /* finish alone runs from wherever the reader is to the end */
    gptner_json_reader_init(&r, V("[[1,[2]],3] x"), NULL);
    assert_true(gptner_json_enter_array(&r));
    assert_true(gptner_json_next_item(&r));
    assert_true(gptner_json_enter_array(&r));
    assert_int_equal(gptner_json_reader_finish(&r, &err), GPTNER_ERR_JSON);
    assert_int_equal(err.offset, 12);
}

static void a_value_of_another_kind_is_passed_over(void **state)
{
    gptner_json_reader r;
    gptner_str text = {"x", 1};
    int64_t n = 1;
    uint64_t u = 1;
    double number = 1;
    bool truth = true;
    (void)state;
    gptner_json_reader_init(&r, V("[null,{\"a\":[1]},\"s\",1.5,-1,[],true,7]"),
                            NULL);
    assert_true(gptner_json_enter_array(&r));
    assert_true(gptner_json_next_item(&r));
    assert_false(gptner_json_read_str(&r, &text));
    assert_null(text.ptr);
    assert_true(gptner_json_next_item(&r));
    assert_false(gptner_json_enter_array(&r));
    assert_true(gptner_json_next_item(&r));
    assert_false(gptner_json_read_double(&r, &number));
    assert_true(gptner_json_next_item(&r));
    assert_false(gptner_json_read_int64(&r, &n));
    assert_true(gptner_json_next_item(&r));
    assert_false(gptner_json_read_uint64(&r, &u));
    assert_true(gptner_json_next_item(&r));
    assert_false(gptner_json_read_bool(&r, &truth));
    assert_true(gptner_json_next_item(&r));
    assert_false(gptner_json_read_null(&r));
    assert_true(number == 0 && n == 0 && u == 0 && !truth);
    assert_true(gptner_json_next_item(&r));
    assert_int_equal(gptner_json_peek(&r), GPTNER_JSON_NUMBER);
    assert_true(gptner_json_read_int64(&r, &n));
    assert_int_equal(n, 7);
    assert_int_equal(gptner_json_peek(&r), GPTNER_JSON_NONE);
    assert_false(gptner_json_next_item(&r));
    assert_int_equal(gptner_json_reader_finish(&r, NULL), GPTNER_OK);
}

static void calls_out_of_order_latch_invalid_argument(void **state)
{
    gptner_json_reader r;
    gptner_str key;
    int64_t n;
    (void)state;
    gptner_json_reader_init(&r, V("[1,2]"), NULL);
    assert_true(gptner_json_enter_array(&r));
    assert_false(gptner_json_next_key(&r, &key));
    assert_int_equal(gptner_json_reader_finish(&r, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    gptner_json_reader_init(&r, V("[1,2]"), NULL);
    assert_false(gptner_json_next_item(&r));
    assert_int_equal(r.error.status, GPTNER_ERR_INVALID_ARGUMENT);
    gptner_json_reader_init(&r, V("[1,2]"), NULL);
    assert_true(gptner_json_enter_array(&r));
    assert_true(gptner_json_next_item(&r));
    assert_true(gptner_json_read_int64(&r, &n));
    assert_false(gptner_json_read_int64(&r, &n));
    assert_int_equal(r.error.status, GPTNER_ERR_INVALID_ARGUMENT);
    gptner_json_reader_init(&r, V("1"), NULL);
    gptner_json_leave(&r); /* nothing is open: nothing happens */
    assert_true(gptner_json_read_int64(&r, &n));
    assert_false(gptner_json_skip(&r));
    assert_int_equal(r.error.status, GPTNER_ERR_INVALID_ARGUMENT);
}

static void members_are_matched_against_a_table(void **state)
{
    static const char *const names[] = {"id", "choices", "c\n", NULL};
    char text[] = "{\"x\":[1],\"i\":0,\"idx\":0,\"choices\":[2],\"id\":3,"
                  "\"\\u0063\\n\":4,\"y\":{}}";
    gptner_json_reader r;
    size_t which, n = 0, order[4];
    (void)state;
    gptner_json_reader_init_in_place(&r, text, sizeof(text) - 1, NULL);
    assert_true(gptner_json_enter_object(&r));
    while (gptner_json_next_member(&r, names, &which))
        order[n++] = which;
    assert_int_equal(n, 3);
    assert_true(order[0] == 1 && order[1] == 0 && order[2] == 2);
    assert_int_equal(which, 3);
    assert_int_equal(gptner_json_reader_finish(&r, NULL), GPTNER_OK);
}

static void strings_are_decoded_where_they_stand(void **state)
{
    char text[] = "{\"k\\u0065y\":\"a\\nb\",\"plain\":\"as is\", \"n\":5}\n x";
    gptner_json_reader r;
    gptner_json_error err;
    gptner_str key, value, plain_key, plain;
    (void)state;
    gptner_json_reader_init_in_place(&r, text, sizeof(text) - 1, NULL);
    assert_true(gptner_json_enter_object(&r));
    assert_true(gptner_json_next_key(&r, &key));
    assert_true(gptner_json_read_str(&r, &value));
    assert_true(gptner_json_next_key(&r, &plain_key));
    assert_true(gptner_json_read_str(&r, &plain));
    assert_int_equal(gptner_json_reader_finish(&r, &err), GPTNER_ERR_JSON);
    assert_string_equal(key.ptr, "key"); /* '\0' stands where the quote was */
    assert_string_equal(value.ptr, "a\nb");
    assert_string_equal(plain_key.ptr, "plain");
    assert_string_equal(plain.ptr, "as is");
    assert_true(key.ptr > text && plain.ptr < text + sizeof(text));
    /* decoded line feeds do not count as lines */
    assert_int_equal(err.line, 2);
    assert_int_equal(err.column, 2);
}

static void without_place_to_decode_only_escapes_need_room(void **state)
{
    static const char text[] = "[\"plain\",\"a\\tb\",\"\\u20ac\"]";
    gptner_json_reader r;
    gptner_str value;
    char room[4];
    (void)state;
    gptner_json_reader_init(&r, V(text), NULL);
    gptner_json_reader_scratch(&r, room, sizeof(room));
    assert_true(gptner_json_enter_array(&r) && gptner_json_next_item(&r));
    assert_true(gptner_json_read_str(&r, &value));
    assert_ptr_equal(value.ptr, text + 2);
    assert_true(gptner_json_next_item(&r));
    assert_true(gptner_json_read_str(&r, &value));
    assert_ptr_equal(value.ptr, room);
    assert_memory_equal(value.ptr, "a\tb", 3);
    assert_true(gptner_json_next_item(&r));
    assert_false(gptner_json_read_str(&r, &value));
    assert_null(value.ptr);
    assert_int_equal(r.error.status, GPTNER_ERR_LIMIT);
    assert_int_equal(r.error.offset, 16);
}

static void raw_text_of_any_value_is_a_view(void **state)
{
    static const char text[] = " [ {\"a\" : [1, 2]} , \"\\u0041\" ,-1.50e+1 ] ";
    static const char *const want[] = {"{\"a\" : [1, 2]}", "\"\\u0041\"",
                                       "-1.50e+1"};
    gptner_json_reader r;
    gptner_str raw;
    size_t n = 0;
    (void)state;
    gptner_json_reader_init(&r, V(text), NULL);
    assert_true(gptner_json_enter_array(&r));
    for (; gptner_json_next_item(&r); n++) {
        assert_true(gptner_json_read_raw(&r, &raw));
        assert_int_equal(raw.len, strlen(want[n]));
        assert_memory_equal(raw.ptr, want[n], raw.len);
    }
    assert_int_equal(n, 3);
    assert_int_equal(gptner_json_reader_finish(&r, NULL), GPTNER_OK);
    gptner_json_reader_init(&r, V("[1,}"), NULL);
    assert_false(gptner_json_read_raw(&r, &raw));
    assert_null(raw.ptr);
}

/* --- writer ------------------------------------------------------------- */

static gptner_json_writer *writer(const gptner_json_writer_options *opt)
{
    gptner_json_writer *w;
    assert_int_equal(gptner_json_writer_new(opt, &w), GPTNER_OK);
    return w;
}

static void assert_text(gptner_json_writer *w, const char *want)
{
    gptner_str text;
    assert_int_equal(gptner_json_writer_finish(w, &text), GPTNER_OK);
    assert_string_equal(text.ptr, want);
    assert_int_equal(text.len, strlen(want));
}

static void write_sample(gptner_json_writer *w)
{
    gptner_json_write_object(w);
    gptner_json_put_string(w, "s", "x");
    gptner_json_put_str(w, "t", gpn_str("a\0b", 3));
    gptner_json_put_int64(w, "i", INT64_MIN);
    gptner_json_put_uint64(w, "u", UINT64_MAX);
    gptner_json_put_double(w, "d", 0.5);
    gptner_json_put_bool(w, "b", true);
    gptner_json_put_null(w, "n");
    gptner_json_put_string(w, "none", NULL);
    gptner_json_put_raw(w, "r", gpn_str_c("[ 1 , \"a b\\\"\" ]"));
    gptner_json_put_array(w, "e");
    gptner_json_write_end(w);
    gptner_json_put_object(w, "o");
    gptner_json_write_end(w);
    gptner_json_put_array(w, "l");
    gptner_json_write_int64(w, 1);
    gptner_json_write_array(w);
    gptner_json_write_bool(w, false);
    gptner_json_write_end(w);
    gptner_json_write_end(w);
    gptner_json_write_end(w);
}

static const char sample_compact[] =
    "{\"s\":\"x\",\"t\":\"a\\u0000b\",\"i\":-9223372036854775808,"
    "\"u\":18446744073709551615,\"d\":0.5,\"b\":true,\"n\":null,"
    "\"none\":null,\"r\":[1,\"a b\\\"\"],\"e\":[],\"o\":{},"
    "\"l\":[1,[false]]}";

static void commas_colons_and_nesting_come_by_themselves(void **state)
{
    gptner_json_writer_options opt = GPN_ZERO;
    gptner_json_writer *w = writer(NULL);
    (void)state;
    write_sample(w);
    assert_text(w, sample_compact);
    gptner_json_writer_reset(w);
    gptner_json_write_null(w);
    assert_text(w, "null");
    gptner_json_writer_free(w);
    gptner_json_writer_free(NULL);

    opt.indent = 2;
    w = writer(&opt);
    gptner_json_write_object(w);
    gptner_json_put_array(w, "a");
    gptner_json_write_int64(w, 1);
    gptner_json_write_object(w);
    gptner_json_write_end(w);
    gptner_json_write_end(w);
    gptner_json_put_null(w, "b");
    gptner_json_write_end(w);
    assert_text(w, "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": null\n}");
    gptner_json_writer_free(w);
    opt.indent = 17;
    assert_int_equal(gptner_json_writer_new(&opt, &w),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_null(w);
}

static const struct {
    const char *text;
    size_t len;
    const char *want, *ascii; /* NULL: the same */
    bool valid;
} written[] = {
    {V(""), "\"\"", NULL, true},
    {V("\"\\/\b\f\n\r\t\x01\x1f\x7f"),
     "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"", NULL, true},
    {V("0123456789\"0123456789"), "\"0123456789\\\"0123456789\"", NULL, true},
    {V("\xC3\xBC\xE2\x82\xAC\xF0\x9F\x98\x80"),
     "\"\xC3\xBC\xE2\x82\xAC\xF0\x9F\x98\x80\"",
     "\"\\u00fc\\u20ac\\ud83d\\ude00\"", true},
    {V("\xF4\x8F\xBF\xBF"), "\"\xF4\x8F\xBF\xBF\"", "\"\\udbff\\udfff\"", true},
    {V("a\x80z"), "\"a\xEF\xBF\xBDz\"", "\"a\\ufffdz\"", false},
    {V("\xE2\x82"), "\"\xEF\xBF\xBD\"", "\"\\ufffd\"", false},
    {V("\xE2\x82z"), "\"\xEF\xBF\xBDz\"", "\"\\ufffdz\"", false},
    {V("\xE2\x82\xE2\x82\xAC"), "\"\xEF\xBF\xBD\xE2\x82\xAC\"",
     "\"\\ufffd\\u20ac\"", false},
    {V("\xF0\x9F\x98\"\xC3"), "\"\xEF\xBF\xBD\\\"\xEF\xBF\xBD\"",
     "\"\\ufffd\\\"\\ufffd\"", false},
    {V("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"",
     "\"\\ufffd\\ufffd\\ufffd\"", false},
};

static void strings_are_escaped_and_always_valid_utf8(void **state)
{
    gptner_json_writer_options opt = GPN_ZERO;
    (void)state;
    for (int ascii = 0; ascii < 2; ascii++) {
        opt.ascii_only = ascii != 0;
        for (size_t i = 0; i < GPN_COUNT(written); i++) {
            gptner_json_writer *w = writer(&opt);
            gptner_json_write_str(w, gpn_str(written[i].text, written[i].len));
            assert_text(w, ascii && written[i].ascii ? written[i].ascii
                                                     : written[i].want);
            gptner_json_writer_free(w);
        }
    }
    opt.refuse_invalid_utf8 = true;
    for (size_t i = 0; i < GPN_COUNT(written); i++) {
        gptner_json_writer *w = writer(&opt);
        gptner_json_write_str(w, gpn_str(written[i].text, written[i].len));
        assert_int_equal(gptner_json_writer_finish(w, NULL),
                         written[i].valid ? GPTNER_OK
                                          : GPTNER_ERR_INVALID_ARGUMENT);
        gptner_json_writer_free(w);
    }
}

static void a_string_in_parts_is_the_string_however_it_is_cut(void **state)
{
    gptner_json_writer *w = writer(NULL);
    (void)state;
    for (size_t i = 0; i < GPN_COUNT(written); i++) {
        const char *text = written[i].text;
        for (size_t cut = 0; cut <= written[i].len; cut++) {
            gptner_json_writer_reset(w);
            gptner_json_write_str_begin(w);
            gptner_json_write_str_part(w, gpn_str(text, cut));
            gptner_json_write_str_part(
                w, gpn_str(text + cut, written[i].len - cut));
            gptner_json_write_str_end(w);
            assert_text(w, written[i].want);
        }
        gptner_json_writer_reset(w);
        gptner_json_write_str_begin(w);
        for (size_t k = 0; k < written[i].len; k++)
            gptner_json_write_str_part(w, gpn_str(text + k, 1));
        gptner_json_write_str_end(w);
        assert_text(w, written[i].want);
    }
    gptner_json_writer_free(w);
}

static void misuse_latch_array(gptner_json_writer *w)
{
    gptner_json_write_array(w);
    gptner_json_write_key(w, "k");
}

static void misuse_latch_object(gptner_json_writer *w)
{
    gptner_json_write_object(w);
    gptner_json_write_int64(w, 1);
}

static void misuse_two_keys(gptner_json_writer *w)
{
    gptner_json_write_object(w);
    gptner_json_write_key(w, "k");
    gptner_json_write_key(w, "k");
}

static void misuse_key_without_value(gptner_json_writer *w)
{
    gptner_json_write_object(w);
    gptner_json_write_key(w, "k");
    gptner_json_write_end(w);
}

static void misuse_null_key(gptner_json_writer *w)
{
    gptner_json_write_object(w);
    gptner_json_put_null(w, NULL);
    gptner_json_write_end(w);
}

static void misuse_two_values(gptner_json_writer *w)
{
    gptner_json_write_null(w);
    gptner_json_write_null(w);
}

static void misuse_end_of_nothing(gptner_json_writer *w)
{
    gptner_json_write_end(w);
}

static void misuse_open_at_finish(gptner_json_writer *w)
{
    gptner_json_write_array(w);
}

static void misuse_infinity(gptner_json_writer *w)
{
    gptner_json_write_double(w, double_of(0x7ff0000000000000u));
}

static void misuse_nan(gptner_json_writer *w)
{
    gptner_json_write_double(w, double_of(0x7ff8000000000001u));
}

static void misuse_value_in_string(gptner_json_writer *w)
{
    gptner_json_write_str_begin(w);
    gptner_json_write_null(w);
}

static void misuse_part_outside(gptner_json_writer *w)
{
    gptner_json_write_str_part(w, gpn_str_c("x"));
}

static void misuse_missing_value(gptner_json_writer *w)
{
    gptner_json_write_value(w, NULL);
}

static void misuse_nothing(gptner_json_writer *w)
{
    (void)w;
}

static void the_first_misuse_latches(void **state)
{
    static void (*const misuse[])(gptner_json_writer *) = {
        misuse_latch_array,       misuse_latch_object,
        misuse_two_keys,          misuse_two_values,
        misuse_key_without_value, misuse_null_key,
        misuse_end_of_nothing,    misuse_open_at_finish,
        misuse_infinity,          misuse_nan,
        misuse_value_in_string,   misuse_part_outside,
        misuse_missing_value,     misuse_nothing};
    gptner_json_writer *w = writer(NULL);
    (void)state;
    for (size_t i = 0; i < GPN_COUNT(misuse); i++) {
        gptner_str text = {"x", 1};
        gptner_json_writer_reset(w);
        assert_string_equal(gptner_json_writer_message(w), "no error");
        misuse[i](w);
        assert_int_equal(gptner_json_writer_finish(w, &text),
                         GPTNER_ERR_INVALID_ARGUMENT);
        assert_null(text.ptr);
        assert_string_not_equal(gptner_json_writer_message(w), "no error");
        write_sample(w);
        assert_int_equal(gptner_json_writer_status(w),
                         GPTNER_ERR_INVALID_ARGUMENT);
    }
    gptner_json_writer_free(w);
}

static void raw_json_is_checked_and_loses_its_white_space(void **state)
{
    static const char *const bad[] = {"", " ", "[1", "1 2", "{,}", "\"\xFF\""};
    gptner_json_writer_options opt = GPN_ZERO;
    gptner_json_writer *w = writer(NULL);
    (void)state;
    for (size_t i = 0; i < GPN_COUNT(bad); i++) {
        gptner_json_writer_reset(w);
        gptner_json_write_raw(w, gpn_str_c(bad[i]));
        assert_int_equal(gptner_json_writer_finish(w, NULL), GPTNER_ERR_JSON);
    }
    gptner_json_writer_reset(w);
    gptner_json_write_raw(
        w, gpn_str_c("\xEF\xBB\xBF {\r\n\t\"a b\\\\\" : [ 1 ,\n 2.50 ] } \n"));
    assert_text(w, "{\"a b\\\\\":[1,2.50]}");
    gptner_json_writer_free(w);
    opt.trust_raw = true;
    w = writer(&opt);
    gptner_json_write_raw(w, gpn_str_c("[ 1]"));
    assert_text(w, "[ 1]");
    gptner_json_writer_free(w);
}

static void the_writer_nests_as_deep_as_it_says(void **state)
{
    gptner_json_writer *w = writer(NULL);
    (void)state;
    for (int i = 0; i < GPTNER_JSON_DEPTH_MAX; i++)
        gptner_json_write_array(w);
    assert_int_equal(gptner_json_writer_status(w), GPTNER_OK);
    for (int i = 0; i < GPTNER_JSON_DEPTH_MAX; i++)
        gptner_json_write_end(w);
    assert_int_equal(gptner_json_writer_finish(w, NULL), GPTNER_OK);
    gptner_json_writer_reset(w);
    for (int i = 0; i <= GPTNER_JSON_DEPTH_MAX; i++)
        gptner_json_write_array(w);
    assert_int_equal(gptner_json_writer_finish(w, NULL), GPTNER_ERR_LIMIT);
    gptner_json_writer_free(w);
}

static void every_failing_allocation_of_the_writer_latches(void **state)
{
    gptner_status status = GPTNER_ERR_NO_MEMORY;
    (void)state;
    for (int n = 1; n < 100 && status != GPTNER_OK; n++) {
        counter c = {0, n, 0};
        gptner_allocator a = counting(&c);
        gptner_json_writer_options opt = GPN_ZERO;
        gptner_json_writer *w;
        gptner_str text = {NULL, 0};
        opt.allocator = &a;
        status = gptner_json_writer_new(&opt, &w);
        if (status == GPTNER_OK) {
            write_sample(w);
            status = gptner_json_writer_finish(w, &text);
        }
        assert_int_equal(text.ptr != NULL, status == GPTNER_OK);
        if (status == GPTNER_OK)
            assert_string_equal(text.ptr, sample_compact);
        else
            assert_int_equal(status, GPTNER_ERR_NO_MEMORY);
        gptner_json_writer_free(w);
        assert_int_equal(c.live, 0);
    }
    assert_int_equal(status, GPTNER_OK);
}

static void the_text_in_memory_is_bounded(void **state)
{
    gptner_json_writer_options opt = GPN_ZERO;
    gptner_json_writer *w;
    (void)state;
    opt.max_bytes = 100;
    w = writer(&opt);
    write_sample(w);
    assert_int_equal(gptner_json_writer_finish(w, NULL), GPTNER_ERR_LIMIT);
    assert_string_equal(gptner_json_writer_message(w),
                        gptner_status_text(GPTNER_ERR_LIMIT));
    gptner_json_writer_free(w);
}

typedef struct sink {
    char *text;
    size_t len, biggest;
    int pieces, refuse_at;
} sink;

static bool sink_write(const char *data, size_t len, void *user)
{
    sink *s = (sink *)user;
    if (++s->pieces == s->refuse_at)
        return false;
    s->text = (char *)realloc(s->text, s->len + len + 1);
    memcpy(s->text + s->len, data, len);
    s->len += len;
    s->text[s->len] = '\0';
    if (len > s->biggest)
        s->biggest = len;
    return true;
}

static void a_callback_gets_the_same_text_in_pieces(void **state)
{
    gptner_json_writer_options opt = GPN_ZERO;
    gptner_json_writer *plain = writer(NULL), *w;
    gptner_str text, none = {"x", 1};
    sink s = {NULL, 0, 0, 0, 0};
    counter c = {0, 0, 0};
    gptner_allocator a = counting(&c);
    char big[20000];
    (void)state;
    memset(big, 'x', sizeof(big));
    opt.write_fn = sink_write;
    opt.write_user = &s;
    opt.allocator = &a;
    opt.max_bytes = 8192; /* little is held, however long the text */
    w = writer(&opt);
    for (int which = 0; which < 2; which++) {
        gptner_json_writer *to = which ? w : plain;
        gptner_json_write_array(to);
        for (int i = 0; i < 500; i++)
            gptner_json_write_int64(to, i);
        gptner_json_write_str(to, gpn_str(big, sizeof(big)));
        gptner_json_write_end(to);
    }
    assert_int_equal(gptner_json_writer_finish(plain, &text), GPTNER_OK);
    assert_int_equal(gptner_json_writer_finish(w, &none), GPTNER_OK);
    assert_null(none.ptr);
    assert_string_equal(s.text, text.ptr);
    assert_true(s.pieces > 3 && s.biggest <= 4096);
    for (s.refuse_at = 1; s.refuse_at < 3; s.refuse_at++) {
        s.pieces = 0;
        gptner_json_writer_reset(w);
        gptner_json_write_str(w, gpn_str(big, sizeof(big)));
        assert_int_equal(gptner_json_writer_finish(w, NULL),
                         GPTNER_ERR_CANCELLED);
        assert_int_equal(s.pieces, s.refuse_at); /* never called again */
    }
    gptner_json_writer_free(plain);
    gptner_json_writer_free(w);
    assert_int_equal(c.live, 0);
    free(s.text);
}

static void a_writer_over_a_buffer_appends_to_it(void **state)
{
    gpn_env env;
    gpn_buf buf;
    gptner_json_writer w;
    gptner_str text;
    (void)state;
    assert_true(gpn_env_init(&env, NULL, NULL));
    gpn_buf_init(&buf, &env, 1000);
    gpn_buf_add(&buf, "head:", 5);
    gpn_json_writer_init(&w, &buf);
    gptner_json_write_bool(&w, true);
    assert_int_equal(gptner_json_writer_finish(&w, &text), GPTNER_OK);
    assert_int_equal(text.len, 4);
    assert_int_equal(buf.len, 9);
    assert_memory_equal(buf.data, "head:true", 9);
    gpn_buf_deinit(&buf);
}

/* --- round trips -------------------------------------------------------- */

static void write_random(gptner_json_writer *w, uint64_t *seed, int depth)
{
    uint32_t kind = next_random(seed) % (depth > 6 ? 6 : 10);
    char text[24];
    size_t len = next_random(seed) % sizeof(text);
    for (size_t i = 0; i < len; i++)
        text[i] = (char)(next_random(seed) % 0xA0);
    switch (kind) {
    case 0:
        gptner_json_write_null(w);
        break;
    case 1:
        gptner_json_write_bool(w, len % 2 != 0);
        break;
    case 2:
        gptner_json_write_int64(w, (int64_t)next_random(seed) *
                                       ((int64_t)next_random(seed) - 1000000));
        break;
    case 3:
        gptner_json_write_double(w, (double)next_random(seed) / 1000.0);
        break;
    case 4:
    case 5:
        gptner_json_write_str(w, gpn_str(text, len));
        break;
    default:
        if (kind < 8)
            gptner_json_write_array(w);
        else
            gptner_json_write_object(w);
        for (uint32_t n = next_random(seed) % 6; n > 0; n--) {
            if (kind >= 8)
                gptner_json_write_key_str(w, gpn_str(text, len));
            write_random(w, seed, depth + 1);
        }
        gptner_json_write_end(w);
    }
}

/* Write a document again with opt and read that: the same tree. */
static void assert_rewrites(const char *text, size_t len,
                            const gptner_json_writer_options *opt,
                            bool same_bytes)
{
    gptner_json_doc *doc;
    gptner_json_writer *w = writer(opt);
    gptner_str again;
    char *before, *after;
    assert_int_equal(gptner_json_parse(text, len, NULL, &doc, NULL), GPTNER_OK);
    gptner_json_write_value(w, gptner_json_root(doc));
    assert_int_equal(gptner_json_writer_finish(w, &again), GPTNER_OK);
    if (same_bytes) {
        assert_int_equal(again.len, len);
        assert_memory_equal(again.ptr, text, len);
    }
    assert_int_equal(read_all_ways(text, len, NULL, &before).status, GPTNER_OK);
    assert_int_equal(read_all_ways(again.ptr, again.len, NULL, &after).status,
                     GPTNER_OK);
    assert_string_equal(before, after);
    free(before);
    free(after);
    gptner_json_writer_free(w);
    gptner_json_doc_free(doc);
}

static void random_documents_survive_writing_and_reading(void **state)
{
    gptner_json_writer_options pretty = GPN_ZERO;
    gptner_json_writer *w = writer(NULL);
    uint64_t seed = 42;
    (void)state;
    pretty.indent = 3;
    pretty.ascii_only = true;
    for (int i = 0; i < 400; i++) {
        gptner_str text;
        gptner_json_writer_reset(w);
        gptner_json_write_array(w);
        write_random(w, &seed, 0);
        write_random(w, &seed, 0);
        gptner_json_write_end(w);
        assert_int_equal(gptner_json_writer_finish(w, &text), GPTNER_OK);
        assert_rewrites(text.ptr, text.len, NULL, true);
        assert_rewrites(text.ptr, text.len, &pretty, false);
    }
    gptner_json_writer_free(w);
}

static void a_value_can_be_written_into_another_text(void **state)
{
    gptner_json_doc *doc;
    gptner_json_writer *w = writer(NULL);
    const gptner_json_value *root;
    (void)state;
    assert_int_equal(
        gptner_json_parse(V("{\"a\":[1,{\"b\":\"c\"}],\"d\":1.50}"), NULL, &doc,
                          NULL),
        GPTNER_OK);
    root = gptner_json_root(doc);
    gptner_json_write_object(w);
    gptner_json_write_key(w, "x");
    gptner_json_write_value(w, gptner_json_find(root, "a"));
    gptner_json_write_key(w, "y");
    gptner_json_write_value(w, gptner_json_path(root, "a[1].b"));
    gptner_json_write_key(w, "z");
    gptner_json_write_value(w, root);
    gptner_json_write_end(w);
    assert_text(w, "{\"x\":[1,{\"b\":\"c\"}],\"y\":\"c\","
                   "\"z\":{\"a\":[1,{\"b\":\"c\"}],\"d\":1.50}}");
    gptner_json_doc_free(doc);
    gptner_json_writer_free(w);
}

/* --- the corpus --------------------------------------------------------- */

static char *corpus_read(const char *name, size_t *len)
{
    const char *root = getenv("GPTNER_CORPUS");
    char path[1024], *data;
    FILE *file;
    long size;
    snprintf(path, sizeof(path), "%s/json/%s",
             root != NULL ? root : "../shared/corpus", name);
    file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    data = (char *)malloc((size_t)size + 1);
    assert_non_null(data);
    *len = fread(data, 1, (size_t)size, file);
    data[*len] = '\0';
    fclose(file);
    return data;
}

/* The next line of a table that is no comment, cut at tabs into fields; the
 * last field takes the rest of the line. 0: no line left. */
static size_t corpus_row(char **next, char **fields, size_t max)
{
    size_t n = 1;
    char *line = *next, *end;
    while (*line == '#')
        line = strchr(line, '\n') + 1;
    end = strchr(line, '\n');
    if (end == NULL)
        return 0;
    *end = '\0';
    *next = end + 1;
    fields[0] = line;
    while (n < max && (line = strchr(line, '\t')) != NULL) {
        *line++ = '\0';
        fields[n++] = line;
    }
    return n;
}

static char *corpus_table(const char *name)
{
    size_t len;
    char *table = corpus_read(name, &len);
    if (table == NULL) {
        print_message("SKIPPED: no corpus at GPTNER_CORPUS or "
                      "../shared/corpus (json/%s)\n",
                      name);
        skip();
    }
    return table;
}

static size_t unhex(const char *hex, char *out)
{
    size_t n = 0;
    for (; hex[0] != '\0' && hex[0] != '-' && hex[0] != '!'; hex += 2) {
        char pair[3] = {hex[0], hex[1], '\0'};
        out[n++] = (char)strtoul(pair, NULL, 16);
    }
    return n;
}

/* What the trees call "-" because it is long. */
static void check_tree(const char *name, const char *got)
{
    char path[256], *want;
    size_t len;
    const char *text =
        strcmp(name + strlen(name) - 5, ".json") == 0 ? name : "";
    snprintf(path, sizeof(path), "doc/%s.tree", name);
    want = corpus_read(path, &len);
    if (want == NULL && *text != '\0') {
        snprintf(path, sizeof(path), "doc/%.*s.tree", (int)strlen(name) - 5,
                 name);
        want = corpus_read(path, &len);
    }
    if (want == NULL)
        fail_msg("%s has no tree", name);
    if (strcmp(want, got) != 0)
        fail_msg("%s: another tree", name);
    free(want);
}

static void corpus_documents_behave_as_expected(void **state)
{
    char *table = corpus_table("DOCS.tsv"), *next = table, *f[10];
    size_t rows = 0;
    (void)state;
    for (; corpus_row(&next, f, 10) == 10; rows++) {
        char path[256], *text, *got;
        size_t len;
        gptner_json_error err;
        snprintf(path, sizeof(path), "doc/%s", f[0]);
        text = corpus_read(path, &len);
        if (text == NULL)
            fail_msg("no %s", path);
        err = read_all_ways(text, len, NULL, &got);
        if ((strcmp(f[1], "accept") == 0 && err.status != GPTNER_OK) ||
            (strcmp(f[1], "reject") == 0 && err.status == GPTNER_OK))
            fail_msg("%s should %s: %s at %zu", f[0], f[1], err.message,
                     err.offset);
        if (err.status == GPTNER_OK) {
            if (strcmp(f[2], "tree") == 0)
                check_tree(f[0], got);
            assert_rewrites(text, len, NULL, strncmp(f[9], "bytes", 5) == 0);
        }
        free(got);
        free(text);
    }
    print_message("%zu documents\n", rows);
    assert_true(rows > 100);
    free(table);
}

static void corpus_numbers(const char *name)
{
    char *table = corpus_table(name), *next = table, *f[5];
    size_t rows = 0;
    for (; corpus_row(&next, f, 5) == 5; rows++) {
        size_t len = strlen(f[4]);
        char *got;
        if (strcmp(f[0], "reject") == 0) {
            gptner_json_error err = read_all_ways(f[4], len, NULL, &got);
            if (err.status != GPTNER_ERR_JSON)
                fail_msg("%s should be refused", f[4]);
        } else if (strpbrk(f[4], ".eE") == NULL) {
            bool i64 = strcmp(f[2], "i64") == 0, u64 = strcmp(f[2], "u64") == 0;
            uint64_t integer = i64   ? (uint64_t)strtoll(f[4], NULL, 10)
                               : u64 ? strtoull(f[4], NULL, 10)
                                     : 0;
            check_number(f[4], len, strtoull(f[1], NULL, 16),
                         i64   ? I64
                         : u64 ? U64
                               : NO_INT,
                         integer);
        } else {
            gptner_json_reader r;
            double number;
            fence fenced;
            gptner_json_reader_init(&r, fence_text(&fenced, f[4], len), len,
                                    NULL);
            assert_true(gptner_json_read_double(&r, &number));
            assert_int_equal(gptner_json_reader_finish(&r, NULL), GPTNER_OK);
            if (bits_of(number) != strtoull(f[1], NULL, 16))
                fail_msg("%s: %016" PRIx64, f[4], bits_of(number));
            fence_free(&fenced);
        }
    }
    print_message("%zu numbers\n", rows);
    assert_true(rows > 100);
    free(table);
}

static void corpus_numbers_behave_as_expected(void **state)
{
    (void)state;
    corpus_numbers("NUMBERS.tsv");
    corpus_numbers("NUMBERS_OWN.tsv");
}

static void corpus_strings_behave_as_expected(void **state)
{
    char *table = corpus_table("STRINGS.tsv"), *next = table, *f[4];
    size_t rows = 0;
    (void)state;
    for (; corpus_row(&next, f, 4) >= 3; rows++) {
        char *json = (char *)malloc(strlen(f[1]) + 1), *got;
        tree want = {NULL, 0, 0};
        size_t len = unhex(f[1], json);
        gptner_json_error err = read_all_ways(json, len, NULL, &got);
        bool refused = strcmp(f[0], "reject") == 0;
        if ((err.status != GPTNER_OK) != refused)
            fail_msg("%s should %s", f[1], f[0]);
        if (*f[2] != '!') {
            len = unhex(f[2], json);
            tree_add_hex(&want, "str", gpn_str(json, len));
            assert_string_equal(got, want.text);
        } else if (got != NULL) { /* half a pair */
            assert_non_null(strstr(got, "efbfbd"));
        }
        free(want.text);
        free(got);
        free(json);
    }
    print_message("%zu strings\n", rows);
    assert_true(rows > 100);
    free(table);
}

/* The digits of a written number, without point and zeros around, and the
 * power of ten, as the corpus has it. */
static void normalize(const char *text, char *out)
{
    char digits[64];
    size_t n = 0;
    int exponent = 0, point = 0;
    const char *p = text + (*text == '-');
    for (; *p != '\0' && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            point = 1;
            continue;
        }
        exponent -= point;
        if (*p != '0' || n > 0)
            digits[n++] = *p;
    }
    if (*p != '\0')
        exponent += atoi(p + 1);
    while (n > 0 && digits[n - 1] == '0') {
        n--;
        exponent++;
    }
    sprintf(out, "%s%.*s", *text == '-' ? "-" : "", (int)n, digits);
    sprintf(out + strlen(out), n > 0 ? "e%d" : "0e0", exponent);
}

static void corpus_doubles_are_written_with_the_fewest_digits(void **state)
{
    char *table = corpus_table("SHORTEST.tsv"), *next = table, *f[3];
    gptner_json_writer *w = writer(NULL);
    size_t rows = 0;
    (void)state;
    for (; corpus_row(&next, f, 3) == 3; rows++) {
        char got[80];
        double back;
        gptner_str text;
        gptner_json_reader r;
        gptner_json_writer_reset(w);
        gptner_json_write_double(w, double_of(strtoull(f[0], NULL, 16)));
        assert_int_equal(gptner_json_writer_finish(w, &text), GPTNER_OK);
        normalize(text.ptr, got);
        if (strcmp(got, f[1]) != 0)
            fail_msg("%s: %s instead of %s", f[0], text.ptr, f[1]);
        gptner_json_reader_init(&r, text.ptr, text.len, NULL);
        assert_true(gptner_json_read_double(&r, &back));
        assert_true(bits_of(back) == strtoull(f[0], NULL, 16));
    }
    print_message("%zu doubles\n", rows);
    gptner_json_writer_free(w);
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_give_their_tree_whichever_way_they_are_read),
        cmocka_unit_test(malformed_text_is_refused_at_the_byte_that_is_wrong),
        cmocka_unit_test(a_text_cut_short_anywhere_is_refused_at_its_end),
        cmocka_unit_test(readers_agree_on_randomly_damaged_text),
        cmocka_unit_test(strings_are_read_whatever_their_place_in_a_block),
        cmocka_unit_test(half_a_surrogate_pair_is_refused_on_request),
        cmocka_unit_test(nesting_is_bounded_without_recursion),
        cmocka_unit_test(numbers_are_exact_integers_and_correctly_rounded),
        cmocka_unit_test(doubles_survive_writing_and_reading),
        cmocka_unit_test(values_are_found_by_key_index_and_path),
        cmocka_unit_test(a_missing_value_fits_nothing_and_breaks_nothing),
        cmocka_unit_test(getters_give_zero_for_values_of_another_kind),
        cmocka_unit_test(every_failing_allocation_of_parse_is_reported),
        cmocka_unit_test(memory_of_a_document_is_bounded),
        cmocka_unit_test(what_is_not_read_is_skipped),
        cmocka_unit_test(what_is_skipped_is_validated_all_the_same),
        cmocka_unit_test(a_value_of_another_kind_is_passed_over),
        cmocka_unit_test(calls_out_of_order_latch_invalid_argument),
        cmocka_unit_test(members_are_matched_against_a_table),
        cmocka_unit_test(strings_are_decoded_where_they_stand),
        cmocka_unit_test(without_place_to_decode_only_escapes_need_room),
        cmocka_unit_test(raw_text_of_any_value_is_a_view),
        cmocka_unit_test(commas_colons_and_nesting_come_by_themselves),
        cmocka_unit_test(strings_are_escaped_and_always_valid_utf8),
        cmocka_unit_test(a_string_in_parts_is_the_string_however_it_is_cut),
        cmocka_unit_test(the_first_misuse_latches),
        cmocka_unit_test(raw_json_is_checked_and_loses_its_white_space),
        cmocka_unit_test(the_writer_nests_as_deep_as_it_says),
        cmocka_unit_test(every_failing_allocation_of_the_writer_latches),
        cmocka_unit_test(the_text_in_memory_is_bounded),
        cmocka_unit_test(a_callback_gets_the_same_text_in_pieces),
        cmocka_unit_test(a_writer_over_a_buffer_appends_to_it),
        cmocka_unit_test(random_documents_survive_writing_and_reading),
        cmocka_unit_test(a_value_can_be_written_into_another_text),
        cmocka_unit_test(corpus_documents_behave_as_expected),
        cmocka_unit_test(corpus_numbers_behave_as_expected),
        cmocka_unit_test(corpus_strings_behave_as_expected),
        cmocka_unit_test(corpus_doubles_are_written_with_the_fewest_digits),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
