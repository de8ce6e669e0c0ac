/* What is written beside the code agrees with it: the programs in manual and
 * README are files of examples/, and the gold entities of the demo's text are
 * where they say they are. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "test_common.h"

/* The whole of a file, NUL-terminated; the caller frees it. */
static char *load(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = (char *)calloc(1, 4 << 20);
    assert_non_null(file);
    assert_non_null(text);
    assert_true(fread(text, 1, (4 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

/* The code of an example: all that follows its first comment. */
static char *load_code(const char *path)
{
    char *text = load(path);
    char *code = strstr(text, "*/\n");
    assert_non_null(code);
    memmove(text, code + 3, strlen(code + 3) + 1);
    return text;
}

static void program_in_readme_is_hello(void **state)
{
    char *readme = load("README.md");
    char *code = load_code("examples/hello.c");
    char *start = strstr(readme, "```c\n");
    (void)state;
    assert_non_null(start);
    start += 5;
    *strstr(start, "```") = '\0';
    assert_string_equal(start, code);
    free(code);
    free(readme);
}

/* In the manual the program stands indented by four columns. */
static void program_in_manual_is_hello(void **state)
{
    char *header = load("gptner.h");
    char *code = load_code("examples/hello.c");
    char *at = strstr(header, "    #define GPTNER_IMPLEMENTATION\n");
    char *line = code;
    (void)state;
    assert_non_null(at);
    while (*line != '\0') {
        size_t len = strcspn(line, "\n") + 1;
        if (len > 1) {
            assert_memory_equal(at, "    ", 4);
            at += 4;
        }
        assert_memory_equal(at, line, len);
        at += len;
        line += len;
    }
    assert_int_equal(*at, '\n');
    free(code);
    free(header);
}

static void every_option_is_in_manual_and_readme(void **state)
{
    static const char *const options[] = {"GPTNER_STATIC",     "GPTNER_NO_TLS",
                                          "GPTNER_NO_THREADS", "GPTNER_NO_NER",
                                          "GPTNER_MALLOC",     "GPTNER_REALLOC",
                                          "GPTNER_FREE",       "GPTNER_ASSERT"};
    char *header = load("gptner.h");
    char *readme = load("README.md");
    (void)state;
    *strstr(header, "*/") = '\0'; /* the manual is the first comment */
    for (size_t i = 0; i < GPN_COUNT(options); i++) {
        assert_non_null(strstr(header, options[i]));
        assert_non_null(strstr(readme, options[i]));
    }
    free(readme);
    free(header);
}

static void every_example_is_in_readme(void **state)
{
    static const char *const examples[] = {
        "(examples/hello.c)",  "(examples/parallel.c)",
        "(examples/stream.c)", "(examples/conversation.c)",
        "(examples/raw.c)",    "(examples/batch_processing_example.c)"};
    char *readme = load("README.md");
    (void)state;
    for (size_t i = 0; i < GPN_COUNT(examples); i++) {
        assert_non_null(strstr(readme, examples[i]));
    }
    free(readme);
}

static void licence_in_header_is_the_file(void **state)
{
    char *header = load("gptner.h");
    char *licence = load("LICENSE");
    (void)state;
    assert_non_null(strstr(header, licence));
    free(licence);
    free(header);
}

/* Checks one line of the gold file against its sentence. */
static size_t check_gold(const char *gold, size_t gold_len, gptner_str sentence)
{
    gptner_json_doc *doc = NULL;
    gptner_str text, label;
    gptner_json_iter it;
    int64_t start, end, last = 0;
    size_t count = 0;

    assert_int_equal(gptner_json_parse(gold, gold_len, NULL, &doc, NULL),
                     GPTNER_OK);
    it = gptner_json_iterate(
        gptner_json_find(gptner_json_root(doc), "entities"));
    assert_true(gptner_json_get_str(
        gptner_json_find(gptner_json_root(doc), "text"), &text));
    assert_true(gpn_str_eq(text, sentence));
    while (gptner_json_iter_next(&it)) {
        gptner_str named;
        assert_true(
            gptner_json_get_int64(gptner_json_find(it.value, "start"), &start));
        assert_true(
            gptner_json_get_int64(gptner_json_find(it.value, "end"), &end));
        assert_true(
            gptner_json_get_str(gptner_json_find(it.value, "text"), &named));
        assert_true(
            gptner_json_get_str(gptner_json_find(it.value, "label"), &label));
        assert_true(last <= start && start < end && (size_t)end <= text.len);
        assert_true(gpn_str_eq(gpn_str(text.ptr + start, (size_t)(end - start)),
                               named));
        assert_true(gpn_str_eq_c(label, "PER") || gpn_str_eq_c(label, "ORG") ||
                    gpn_str_eq_c(label, "LOC") || gpn_str_eq_c(label, "DATE"));
        last = end;
        count++;
    }
    gptner_json_doc_free(doc);
    return count;
}

static bool is_utf8(const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        uint32_t cp;
        size_t n = gpn_utf8_get(text, left, &cp);
        if (n == 0) {
            return false;
        }
        text += n;
        left -= n;
    }
    return true;
}

static void gold_entities_are_where_they_say(void **state)
{
    char *news = load("examples/data/news.txt");
    char *gold = load("examples/data/news.gold.jsonl");
    char *line = news;
    char *object = gold;
    size_t lines = 0;
    size_t entities = 0;
    (void)state;
    assert_true(is_utf8(news));
    while (*line != '\0') {
        size_t len = strcspn(line, "\n");
        size_t object_len = strcspn(object, "\n");
        assert_int_equal(line[len], '\n');
        assert_int_equal(object[object_len], '\n');
        entities += check_gold(object, object_len, gpn_str(line, len));
        line += len + 1;
        object += object_len + 1;
        lines++;
    }
    assert_int_equal(*object, '\0');
    assert_true(lines >= 200);
    assert_true(entities >= 300);
    free(gold);
    free(news);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(program_in_readme_is_hello),
        cmocka_unit_test(program_in_manual_is_hello),
        cmocka_unit_test(every_option_is_in_manual_and_readme),
        cmocka_unit_test(every_example_is_in_readme),
        cmocka_unit_test(licence_in_header_is_the_file),
        cmocka_unit_test(gold_entities_are_where_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
