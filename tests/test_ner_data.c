/* Tests of >>ner: labels, reading and writing data. Documents are checked as
 * text: "text|" and "begin-end label" for each entity. */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "test_common.h"

static gptner_data_config config_of(gptner_data format, gptner_tags tags)
{
    gptner_data_config cfg;

    memset(&cfg, 0, sizeof cfg);
    cfg.format = format;
    cfg.tags = tags;
    return cfg;
}

/* ---- what must hold of all documents that were read ---- */

static void check_docs(const gptner_docs *docs)
{
    size_t i, k, n, at;

    for (i = 0; i < docs->count; i++) {
        const gptner_doc *d = &docs->items[i];

        assert_non_null(d->text.ptr);
        assert_non_null(d->message);
        for (k = 0; k < d->n_entities; k++) {
            const gptner_entity *e = &d->entities[k];

            assert_true(e->bytes.begin < e->bytes.end);
            assert_true(e->bytes.end <= d->text.len);
            assert_true(e->text.ptr == d->text.ptr + e->bytes.begin);
            assert_true(e->label.len > 0);
            for (n = at = 0; at < e->bytes.begin; n++) {
                uint32_t cp;

                at += gpn_char_get(d->text.ptr + at, d->text.len - at, &cp);
            }
            assert_int_equal(e->code_points.begin, n);
            assert_true(k == 0 || gpn_mention_order(e - 1, e) < 0);
        }
        for (k = 0, at = 0; k < d->n_tokens; k++) {
            assert_true(d->tokens[k].begin >= at);
            assert_true(d->tokens[k].begin < d->tokens[k].end);
            at = d->tokens[k].end;
        }
        assert_true(at <= d->text.len);
        assert_int_equal(d->n_sentences, d->n_tokens > 0 ? 1 : 0);
        if (d->n_sentences > 0) {
            assert_int_equal(d->sentences[0].begin, 0);
            assert_int_equal(d->sentences[0].end, d->text.len);
        }
    }
}

/* All documents as text, for free(). */
static char *show(const gptner_docs *docs)
{
    size_t i, k, cap = 64, len = 0;
    char *out;

    for (i = 0; i < docs->count; i++) {
        cap += docs->items[i].id.len + docs->items[i].text.len + 16;
        for (k = 0; k < docs->items[i].n_entities; k++) {
            cap += docs->items[i].entities[k].label.len + 64;
        }
    }
    out = (char *)malloc(cap);
    out[0] = '\0';
    for (i = 0; i < docs->count; i++) {
        const gptner_doc *d = &docs->items[i];

        len += (size_t)sprintf(out + len, "%.*s%s%.*s|", (int)d->id.len,
                               d->id.ptr != NULL ? d->id.ptr : "",
                               d->id.ptr != NULL ? ": " : "", (int)d->text.len,
                               d->text.ptr);
        for (k = 0; k < d->n_entities; k++) {
            const gptner_entity *e = &d->entities[k];

            len += (size_t)sprintf(out + len, " %d-%d %.*s",
                                   (int)e->bytes.begin, (int)e->bytes.end,
                                   (int)e->label.len, e->label.ptr);
        }
        len += (size_t)sprintf(out + len, "\n");
    }
    return out;
}

static gptner_docs *parse(gptner_str text, gptner_data_config cfg,
                          gptner_data_report *report)
{
    gptner_docs *docs;
    gptner_error err;
    gptner_status status;

    memset(&err, 0, sizeof err);
    status = gptner_docs_parse(text, &cfg, &docs, report, &err);
    if (status != GPTNER_OK) {
        printf("%s\n", err.message);
    }
    assert_int_equal(status, GPTNER_OK);
    check_docs(docs);
    return docs;
}

static gptner_text *format(const gptner_docs *docs, gptner_data_config cfg,
                           gptner_data_report *report)
{
    gptner_text *text;

    assert_int_equal(gptner_docs_format(docs, &cfg, &text, report, NULL),
                     GPTNER_OK);
    return text;
}

/* ---- labels ---- */

static void ready_made_sets_are_complete(void **state)
{
    static const struct {
        const char *name;
        size_t count;
        bool nested;
    } sets[] = {{"conll2003", 4, false}, {"ontonotes5", 18, false},
                {"ace2004", 7, true},    {"ace2005", 7, true},
                {"genia", 5, true},      {"wnut17", 6, false},
                {"general", 8, false}};
    size_t i, k, n;

    (void)state;
    for (i = 0; i < TEST_COUNT(sets); i++) {
        const gptner_labels *l = gptner_labels_get(sets[i].name);

        assert_non_null(l);
        assert_true(gpn_str_eq_c(l->name, sets[i].name));
        assert_int_equal(l->count, sets[i].count);
        assert_int_equal(l->nested, sets[i].nested);
        for (k = 0; k < l->count; k++) {
            assert_true(gpn_label_tag_ok(l->items[k].name));
            assert_true(l->items[k].title.len > 0);
            assert_true(l->items[k].definition.len > 15);
            assert_in_range(l->items[k].n_examples, 1, 3);
            for (n = 0; n < l->items[k].n_examples; n++) {
                assert_true(l->items[k].examples[n].len > 0);
            }
            for (n = 0; n < k; n++) {
                assert_false(gpn_str_eq(l->items[n].name, l->items[k].name));
            }
        }
    }
    assert_null(gptner_labels_get("conll"));
    assert_null(gptner_labels_get(NULL));
}

#define MINE                                                            \
    "{\"name\":\"mine\",\"nested\":true,\"labels\":[{\"name\":\"PER\"," \
    "\"title\":\"person\",\"definition\":\"People.\",\"examples\":["    \
    "\"Zo\\u00eb\",\"Ann\"]},{\"name\":\"X-Y\",\"more\":[1]}]}"

static void own_labels_are_loaded(void **state)
{
    char path[256];
    gptner_labels *l;
    gptner_error err;

    (void)state;
    test_tmp_path(path, "labels.json");
    test_spit(path, MINE, strlen(MINE));
    assert_int_equal(gptner_labels_load(path, NULL, &l, &err), GPTNER_OK);
    assert_true(gpn_str_eq_c(l->name, "mine"));
    assert_true(l->nested);
    assert_int_equal(l->count, 2);
    assert_true(gpn_str_eq_c(l->items[0].name, "PER"));
    assert_true(gpn_str_eq_c(l->items[0].title, "person"));
    assert_true(gpn_str_eq_c(l->items[0].definition, "People."));
    assert_int_equal(l->items[0].n_examples, 2);
    assert_true(gpn_str_eq_c(l->items[0].examples[0], "Zo\xc3\xab"));
    assert_true(gpn_str_eq_c(l->items[1].title, "X-Y"));
    assert_int_equal(l->items[1].n_examples, 0);
    gptner_labels_free(l);
    gptner_labels_free(NULL);
}

static void bad_label_files_are_refused_by_place(void **state)
{
    static const struct {
        const char *text;
        gptner_status status;
        const char *says;
    } cases[] = {
        {"", GPTNER_ERR_JSON, "line 1, column 1"},
        {"{\n\"labels\": [}", GPTNER_ERR_JSON, "line 2, column 12"},
        {"[]", GPTNER_ERR_DATA, "\"labels\""},
        {"{\"labels\":[]}", GPTNER_ERR_DATA, "\"labels\""},
        {"{\"labels\":[1]}", GPTNER_ERR_DATA, "label 1: needs a \"name\""},
        {"{\"labels\":[{\"name\":\"A\"},{\"name\":\"A\"}]}", GPTNER_ERR_DATA,
         "label 2: has the"},
        {"{\"labels\":[{\"name\":\"A|B\"}]}", GPTNER_ERR_DATA, "label 1"},
        {"{\"labels\":[{\"name\":\"A\\n\"}]}", GPTNER_ERR_DATA, "label 1"},
        {"{\"labels\":[{\"name\":7}]}", GPTNER_ERR_DATA, "is no text"},
        {"{\"labels\":[{\"name\":\"A\",\"examples\":[1]}]}", GPTNER_ERR_DATA,
         "an example"},
        {"{\"labels\":[{\"name\":\"A\",\"examples\":{}}]}", GPTNER_ERR_DATA,
         "no array"},
        {"{\"nested\":1,\"labels\":[{\"name\":\"A\"}]}", GPTNER_ERR_DATA,
         "\"nested\""},
    };
    char path[256];
    gptner_labels *l;
    gptner_error err;
    size_t i;

    (void)state;
    test_tmp_path(path, "bad.json");
    for (i = 0; i < TEST_COUNT(cases); i++) {
        test_spit(path, cases[i].text, strlen(cases[i].text));
        assert_int_equal(gptner_labels_load(path, NULL, &l, &err),
                         cases[i].status);
        assert_null(l);
        assert_non_null(strstr(err.message, path));
        if (strstr(err.message, cases[i].says) == NULL) {
            fail_msg("%s lacks %s", err.message, cases[i].says);
        }
    }
    assert_int_equal(gptner_labels_load("/nowhere", NULL, &l, &err),
                     GPTNER_ERR_FILE);
    assert_int_equal(gptner_labels_load(NULL, NULL, &l, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_labels_load(path, NULL, NULL, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
}

/* ---- columns ---- */

static void columns_of_all_schemes_are_read(void **state)
{
    static const struct {
        const char *text;
        gptner_tags given, found;
        size_t repaired;
        const char *expected;
    } cases[] = {
        {"", GPTNER_TAGS_AUTO, GPTNER_TAGS_BIO, 0, ""},
        {"\n\n \t\n", GPTNER_TAGS_AUTO, GPTNER_TAGS_BIO, 0, ""},
        {"New\tB-LOC\nYork\tI-LOC\n.\tO\n\nYes\tO", GPTNER_TAGS_AUTO,
         GPTNER_TAGS_BIO, 0, "New York .| 0-8 LOC\nYes|\n"},
        {"A\tB-X\nB\tB-X\nC\tI-X\nD\tI-Y\n", GPTNER_TAGS_AUTO, GPTNER_TAGS_BIO,
         1, "A B C D| 0-1 X 2-5 X 6-7 Y\n"},
        {"A I-X\nB B-X\nC O\nD I-Y\n", GPTNER_TAGS_AUTO, GPTNER_TAGS_IOB1, 0,
         "A B C D| 0-1 X 2-3 X 6-7 Y\n"},
        {"A I-X\nB B-X\nC O\nD I-Y\n", GPTNER_TAGS_BIO, GPTNER_TAGS_BIO, 2,
         "A B C D| 0-1 X 2-3 X 6-7 Y\n"},
        {"A S-X\nB B-X\nC I-X\nD E-X\nE E-Y\nF I-Y\n\n", GPTNER_TAGS_AUTO,
         GPTNER_TAGS_BIOES, 3, "A B C D E F| 0-1 X 2-7 X 8-9 Y 10-11 Y\n"},
        {"A U-X\nB B-X\nC L-X\n", GPTNER_TAGS_AUTO, GPTNER_TAGS_BIOES, 0,
         "A B C| 0-1 X 2-5 X\n"},
        {"A B-X\nB O\nC S-X\n", GPTNER_TAGS_BIOES, GPTNER_TAGS_BIOES, 1,
         "A B C| 0-1 X 4-5 X\n"},
        {"\xef\xbb\xbf-DOCSTART- -X- O O\r\n\r\nEU NNP I-NP I-ORG\r\n. . O "
         "O\r\n",
         GPTNER_TAGS_AUTO, GPTNER_TAGS_IOB1, 0, "EU .| 0-2 ORG\n"},
        {"# id a-1\tdomain=en\nX\t_\t_\tB-creative-work\n\n# text = no O!\n"
         "#\tO\n#tag\tO\n\n# id b\n# O\n",
         GPTNER_TAGS_AUTO, GPTNER_TAGS_BIO, 0,
         "a-1: X| 0-1 creative-work\n# #tag|\nb: #|\n"},
        {"\xe6\x9d\xb1 O\n\xf0\x9f\x98\x80 B-E\n\xff\xfe B-E\n",
         GPTNER_TAGS_AUTO, GPTNER_TAGS_BIO, 0,
         "\xe6\x9d\xb1 \xf0\x9f\x98\x80 \xff\xfe| 4-8 E 9-11 E\n"},
    };
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gptner_data_report report;
        gptner_docs *docs =
            parse(gpn_str_c(cases[i].text),
                  config_of(GPTNER_DATA_CONLL, cases[i].given), &report);
        char *seen = show(docs);

        assert_string_equal(seen, cases[i].expected);
        assert_int_equal(report.tags, cases[i].found);
        assert_int_equal(report.repaired, cases[i].repaired);
        assert_int_equal(report.message[0] != '\0', report.repaired > 0);
        assert_int_equal(report.documents, docs->count);
        free(seen);
        gptner_docs_free(docs);
    }
}

static void offsets_are_counted_in_all_units(void **state)
{
    gptner_docs *docs =
        parse(gpn_str_c("\xf0\x9f\x98\x80 O\n\xc3\x89va B-P\n"),
              config_of(GPTNER_DATA_CONLL, GPTNER_TAGS_AUTO), NULL);
    const gptner_entity *e = &docs->items[0].entities[0];

    (void)state;
    assert_int_equal(e->bytes.begin, 5);
    assert_int_equal(e->bytes.end, 9);
    assert_int_equal(e->code_points.begin, 2);
    assert_int_equal(e->code_points.end, 5);
    assert_int_equal(e->utf16.begin, 3);
    assert_int_equal(e->utf16.end, 6);
    assert_true(gpn_str_eq_c(e->text, "\xc3\x89va"));
    gptner_docs_free(docs);
}

static void bad_files_are_refused_by_line(void **state)
{
    static const struct {
        gptner_data format;
        const char *text;
        gptner_status status;
        const char *says;
    } cases[] = {
        {GPTNER_DATA_CONLL, "A O\nB\n", GPTNER_ERR_DATA, "line 2"},
        {GPTNER_DATA_CONLL, "A PER\n", GPTNER_ERR_DATA, "line 1"},
        {GPTNER_DATA_CONLL, "\n\nA B-\n", GPTNER_ERR_DATA, "line 3"},
        {GPTNER_DATA_CONLL, "\tO\n", GPTNER_ERR_DATA, "line 1"},
        {GPTNER_DATA_CONLL, "O\n", GPTNER_ERR_DATA, "line 1"},
        {GPTNER_DATA_CONLL, "A\tX-PER\x01\n", GPTNER_ERR_DATA, "line 1"},
        {GPTNER_DATA_JSONL, "{\"text\":\"a\"}\n{", GPTNER_ERR_JSON,
         "line 2, column 2"},
        {GPTNER_DATA_JSONL, "[]", GPTNER_ERR_DATA, "\"text\""},
        {GPTNER_DATA_JSONL, "{\"text\":\"a\",\"entities\":7}", GPTNER_ERR_DATA,
         "no array"},
        {GPTNER_DATA_JSONL, "{\"text\":\"a\",\"entities\":[7]}",
         GPTNER_ERR_DATA, "\"start\""},
        {GPTNER_DATA_JSONL,
         "{\"text\":\"a\",\"entities\":[{\"start\":0,\"end\":2,\"label\":\"X\"}"
         "]}",
         GPTNER_ERR_DATA, "out of the text"},
        {GPTNER_DATA_JSONL,
         "{\"text\":\"a\",\"entities\":[{\"start\":1,\"end\":1,\"label\":\"X\"}"
         "]}",
         GPTNER_ERR_DATA, "empty"},
        {GPTNER_DATA_JSONL,
         "{\"text\":\"a\",\"entities\":[{\"start\":-1,\"end\":1,\"label\":"
         "\"X\"}]}",
         GPTNER_ERR_DATA, "\"start\""},
        {GPTNER_DATA_JSONL,
         "{\"text\":\"a\",\"entities\":[{\"start\":0,\"end\":"
         "18446744073709551615,\"label\":\"X\"}]}",
         GPTNER_ERR_DATA, "out of the text"},
        {GPTNER_DATA_JSONL,
         "{\"text\":\"\xc3\xa9 b\",\"entities\":[{\"start\":1,\"end\":3,"
         "\"label\":\"X\",\"text\":\"b\"}]}",
         GPTNER_ERR_DATA, "code points"},
    };
    size_t i;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        gptner_data_config cfg = config_of(cases[i].format, GPTNER_TAGS_AUTO);
        gptner_data_report report;
        gptner_docs *docs;
        gptner_error err;

        assert_int_equal(gptner_docs_parse(gpn_str_c(cases[i].text), &cfg,
                                           &docs, &report, &err),
                         cases[i].status);
        assert_null(docs);
        assert_int_equal(report.documents, 0);
        if (strstr(err.message, cases[i].says) == NULL) {
            fail_msg("%s lacks %s", err.message, cases[i].says);
        }
    }
}

/* ---- writing ---- */

#define TEXT "Bank of Spain in Spain."

static gptner_entity entity_of(const char *label, size_t begin, size_t end)
{
    gptner_entity e;

    memset(&e, 0, sizeof e);
    e.label = gpn_str_c(label);
    e.bytes.begin = begin;
    e.bytes.end = end;
    return e;
}

static void what_columns_cannot_express_is_reported(void **state)
{
    gptner_entity e[8];
    gptner_doc doc;
    gptner_docs docs;
    gptner_text *text;
    gptner_data_report report;
    gptner_span token = {0, 99};
    gptner_data_config cfg = config_of(GPTNER_DATA_CONLL, GPTNER_TAGS_AUTO);

    (void)state;
    memset(&doc, 0, sizeof doc);
    doc.text = gpn_str_c(TEXT);
    doc.id = gpn_str_c("a\nb");
    e[0] = entity_of("ORG", 0, 13);
    e[1] = entity_of("LOC", 8, 13);   /* nested */
    e[2] = entity_of("LOC", 17, 22);  /* cut off the point */
    e[3] = entity_of("LOC", 17, 99);  /* out of the text */
    e[4] = entity_of("LOC", 5, 5);    /* empty */
    e[5] = entity_of("A\nB", 14, 16); /* no tag */
    e[6] = entity_of("", 14, 16);
    e[7] = entity_of("LOC", 16, 22); /* begins with a space */
    doc.entities = e;
    doc.n_entities = 8;
    docs.items = &doc;
    docs.count = 1;
    text = format(&docs, cfg, &report);
    assert_string_equal(
        text->text.ptr,
        "# id a b\nBank\tB-ORG\nof\tI-ORG\nSpain\tI-ORG\nin\tO\n"
        "Spain\tB-LOC\n.\tO\n\n");
    assert_int_equal(report.entities, 2);
    assert_int_equal(report.left_out, 6);
    assert_non_null(strstr(report.message, "document 1: not written: LOC at "
                                           "bytes 8 to 13, which crosses"));
    gptner_text_free(text);
    doc.tokens = &token;
    doc.n_tokens = 1;
    assert_int_equal(gptner_docs_format(&docs, &cfg, &text, &report, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_null(text);
    doc.n_tokens = 0;
    cfg.format = GPTNER_DATA_JSONL;
    text = format(&docs, cfg, &report);
    assert_int_equal(report.entities, 5);
    assert_int_equal(report.left_out, 3);
    gptner_text_free(text);
}

static uint64_t seed_state;

static size_t chance(size_t n)
{
    seed_state =
        seed_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (size_t)(seed_state >> 33) % n;
}

/* Random sentences with flat entities, as the writer would be given them. */
static void spans_survive_columns_of_every_scheme(void **state)
{
    static const char *const words[] = {
        "a",     "\xc3\xa9t\xc3\xa9",       "#", "O", "\xf0\x9f\x98\x80", "B-X",
        "x\xff", "\xe6\x9d\xb1\xe4\xba\xac"};
    static const char *const labels[] = {"X", "Y", "a b", "creative-work"};
    int round;

    (void)state;
    seed_state = 7;
    for (round = 0; round < 400; round++) {
        char text[512];
        gptner_span tokens[16];
        gptner_entity e[16];
        gptner_doc doc;
        gptner_docs docs, *back;
        size_t n = 1 + chance(15), i, len = 0, begin;
        int tags;

        memset(&doc, 0, sizeof doc);
        for (i = 0; i < n; i++) {
            const char *word = words[chance(TEST_COUNT(words))];

            if (i > 0) {
                text[len++] = ' ';
            }
            tokens[i].begin = len;
            memcpy(text + len, word, strlen(word));
            len += strlen(word);
            tokens[i].end = len;
        }
        for (i = 0; i < n; i++) {
            if (chance(2) == 0) {
                continue;
            }
            begin = i;
            i += chance(3);
            i = i < n ? i : n - 1;
            e[doc.n_entities++] = entity_of(labels[chance(TEST_COUNT(labels))],
                                            tokens[begin].begin, tokens[i].end);
        }
        doc.text = gpn_str(text, len);
        doc.entities = e;
        if (chance(2) == 0) {
            doc.tokens = tokens;
            doc.n_tokens = n;
        }
        docs.items = &doc;
        docs.count = 1;
        for (tags = GPTNER_TAGS_AUTO; tags <= (int)GPTNER_TAGS_IOB1; tags++) {
            gptner_data_config cfg =
                config_of(GPTNER_DATA_CONLL, (gptner_tags)tags);
            gptner_data_report report;
            gptner_text *out = format(&docs, cfg, &report);
            char *before, *after;

            assert_int_equal(report.left_out, 0);
            if (tags == GPTNER_TAGS_AUTO) {
                cfg.tags = GPTNER_TAGS_BIO;
            }
            back = parse(out->text, cfg, &report);
            assert_int_equal(report.repaired, 0);
            before = show(&docs);
            after = show(back);
            assert_string_equal(before, after);
            free(before);
            free(after);
            gptner_docs_free(back);
            gptner_text_free(out);
        }
    }
}

static void spans_survive_lines_of_json(void **state)
{
    static const char line[] =
        "{\"id\":\"a\",\"text\":\"\xf0\x9f\x98\x80 Bank of \xc3\x89spana\","
        "\"entities\":[{\"start\":2,\"end\":16,\"label\":\"ORG\",\"text\":"
        "\"Bank of \xc3\x89spana\"},{\"start\":10,\"end\":16,\"label\":\"LOC\","
        "\"text\":\"\xc3\x89spana\"}]}\n";
    gptner_data_config cfg = config_of(GPTNER_DATA_JSONL, GPTNER_TAGS_AUTO);
    gptner_data_report report;
    gptner_docs *docs = parse(gpn_str_c(line), cfg, &report);
    gptner_text *text;
    char *seen = show(docs);

    (void)state;
    assert_string_equal(seen, "a: \xf0\x9f\x98\x80 Bank of \xc3\x89spana| "
                              "5-20 ORG 13-20 LOC\n");
    text = format(docs, cfg, &report);
    assert_string_equal(text->text.ptr, line);
    assert_int_equal(report.entities, 2);
    gptner_text_free(text);
    gptner_docs_free(docs);
    free(seen);
    docs = parse(gpn_str_c("\n {\"id\":7,\"text\":\"ab\",\"meta\":{},"
                           "\"entities\":[{\"start\":1,\"end\":2,\"label\":"
                           "\"X\"},{\"start\":0,\"end\":1,\"label\":\"X\"},"
                           "{\"start\":1,\"end\":2,\"label\":\"X\"}]}\r\n"
                           "{\"text\":\"\"}"),
                 cfg, &report);
    seen = show(docs);
    assert_string_equal(seen, "7: ab| 0-1 X 1-2 X\n|\n");
    assert_int_equal(report.repaired, 1);
    free(seen);
    gptner_docs_free(docs);
}

/* Long texts of mixed characters, some broken: every place is found back. */
static void places_in_code_points_are_exact(void **state)
{
    static const char *const parts[] = {
        "a",    "\xc3\xa9", "\xe6\x9d\xb1", "\xf0\x9f\x98\x80",
        "\xff", "\xe6\x9d"};
    char text[4096];
    size_t len, i, at, n;
    int round;
    gpn_env env;
    gpn_points p;

    (void)state;
    seed_state = 11;
    gpn_env_init(&env, NULL, NULL);
    memset(&p, 0, sizeof p);
    gpn_buf_init(&p.places, &env, SIZE_MAX / 2);
    for (round = 0; round < 40; round++) {
        n = round < 8 ? 62 + (size_t)round : chance(900);
        for (i = len = 0; i < n; i++) {
            const char *part = parts[chance(round < 4 ? 1 : 6)];

            memcpy(text + len, part, strlen(part));
            len += strlen(part);
        }
        assert_true(gpn_points_set(&p, gpn_str(text, len)));
        for (at = n = 0; at < len; n++) {
            size_t next = gpn_points_next(p.text, at);

            assert_int_equal(gpn_points_byte(&p, n), at);
            assert_int_equal(gpn_points_before(&p, at), n);
            for (i = at + 1; i < next; i++) {
                assert_true(gpn_points_before(&p, i) == SIZE_MAX);
            }
            at = next;
        }
        assert_int_equal(gpn_points_byte(&p, n), len);
        assert_int_equal(gpn_points_before(&p, len), n);
        assert_true(gpn_points_byte(&p, n + 1) == SIZE_MAX);
        assert_true(gpn_points_byte(&p, UINT64_MAX) == SIZE_MAX);
        assert_true(gpn_points_before(&p, len + 1) == SIZE_MAX);
    }
    gpn_buf_deinit(&p.places);
}

static void broken_text_is_written_as_valid_json(void **state)
{
    gptner_entity e = entity_of("X", 2, 4);
    gptner_doc doc;
    gptner_docs docs, *back;
    gptner_text *text;
    gptner_data_report report;
    gptner_data_config cfg = config_of(GPTNER_DATA_JSONL, GPTNER_TAGS_AUTO);

    (void)state;
    memset(&doc, 0, sizeof doc);
    doc.text = gpn_str_c("\xe6\x9d"
                         "b\xff");
    doc.entities = &e;
    doc.n_entities = 1;
    doc.lost = &e;
    doc.n_lost = 1;
    docs.items = &doc;
    docs.count = 1;
    text = format(&docs, cfg, &report);
    assert_int_equal(report.left_out, 0);
    assert_non_null(strstr(text->text.ptr, "\"lost\":[{\"label\":\"X\""));
    back = parse(text->text, cfg, &report);
    assert_true(gpn_str_eq_c(back->items[0].text, "\xef\xbf\xbd"
                                                  "b\xef\xbf\xbd"));
    assert_int_equal(back->items[0].entities[0].bytes.begin, 3);
    gptner_docs_free(back);
    gptner_text_free(text);
}

/* ---- files, memory, hostile bytes ---- */

static void files_are_read_and_written(void **state)
{
    static const char line[] = "A\tB-X\nb\tO\n\n";
    gptner_data_config cfg = config_of(GPTNER_DATA_CONLL, GPTNER_TAGS_AUTO);
    gptner_docs *docs;
    gptner_data_report report;
    gptner_error err;
    char path[256], copy[256];
    size_t len;
    char *bytes;

    (void)state;
    test_tmp_path(path, "a.conll");
    test_tmp_path(copy, "b.conll");
    test_spit(path, line, sizeof line - 1);
    assert_int_equal(gptner_docs_read(path, NULL, &docs, &report, &err),
                     GPTNER_OK);
    assert_int_equal(report.tokens, 2);
    assert_int_equal(gptner_docs_write(copy, docs, NULL, &report, &err),
                     GPTNER_OK);
    bytes = test_slurp(copy, &len);
    assert_string_equal(bytes, line);
    free(bytes);
    assert_int_equal(gptner_docs_write("/nowhere/x", docs, NULL, NULL, &err),
                     GPTNER_ERR_FILE);
    assert_int_equal(gptner_docs_write(NULL, docs, NULL, NULL, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_docs_write(copy, NULL, NULL, NULL, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    gptner_docs_free(docs);
    assert_int_equal(gptner_docs_read("/nowhere", NULL, &docs, NULL, &err),
                     GPTNER_ERR_FILE);
    assert_int_equal(gptner_docs_read(NULL, NULL, &docs, NULL, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    cfg.max_bytes = sizeof line - 2;
    assert_int_equal(gptner_docs_read(path, &cfg, &docs, NULL, &err),
                     GPTNER_ERR_LIMIT);
    cfg.max_bytes++;
    assert_int_equal(gptner_docs_read(path, &cfg, &docs, NULL, &err),
                     GPTNER_OK);
    gptner_docs_free(docs);
    cfg.format = (gptner_data)99;
    assert_int_equal(gptner_docs_read(path, &cfg, &docs, NULL, &err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    gptner_docs_free(NULL);
}

#define MANY_JSON                                                            \
    "{\"id\":\"q\",\"text\":\"ab cd\",\"entities\":[{\"start\":3,\"end\":5," \
    "\"label\":\"X\"},{\"start\":0,\"end\":2,\"label\":\"Y\"}]}\n"

static void every_allocation_and_file_call_may_fail(void **state)
{
    static const char *const texts[] = {"# id q\nA\tB-X\nb\tI-X\n\nc\tO\n",
                                        MANY_JSON};
    char path[256], copy[256], names[256];
    int format_of, kind, n;

    (void)state;
    test_tmp_path(path, "in");
    test_tmp_path(copy, "out");
    test_tmp_path(names, "names.json");
    test_spit(names, MINE, strlen(MINE));
    for (format_of = 0; format_of < 2; format_of++) {
        test_spit(path, texts[format_of], strlen(texts[format_of]));
        for (kind = GPN_FAULT_ALLOC; kind <= GPN_FAULT_FILE; kind++) {
            bool fired = true;

            for (n = 1; fired; n++) {
                gptner_data_config cfg =
                    config_of((gptner_data)format_of, GPTNER_TAGS_AUTO);
                gptner_status status, want = kind == GPN_FAULT_ALLOC
                                                 ? GPTNER_ERR_NO_MEMORY
                                                 : GPTNER_ERR_FILE;
                test_mem mem;
                gptner_allocator allocator;
                gptner_docs *docs = NULL;
                gptner_labels *labels = NULL;
                gptner_text *text = NULL;
                gptner_error err;

                memset(&mem, 0, sizeof mem);
                allocator = test_mem_allocator(&mem);
                cfg.allocator = &allocator;
                test_fault_set(kind, n, false);
                status = gptner_labels_load(names, &allocator, &labels, &err);
                if (status == GPTNER_OK) {
                    status = gptner_docs_read(path, &cfg, &docs, NULL, &err);
                }
                if (status == GPTNER_OK) {
                    status = gptner_docs_format(docs, &cfg, &text, NULL, &err);
                }
                if (status == GPTNER_OK) {
                    status = gptner_docs_write(copy, docs, &cfg, NULL, &err);
                }
                fired = test_fault_fired();
                test_fault_clear();
                if (status != GPTNER_OK) {
                    assert_true(fired);
                    assert_true(status == want || status == GPTNER_ERR_FILE);
                    assert_int_equal(err.status, status);
                }
                gptner_labels_free(labels);
                gptner_docs_free(docs);
                gptner_text_free(text);
                assert_int_equal(mem.blocks, 0);
                assert_true(n < 1000);
            }
        }
    }
}

/* Damaged files: no crash, and what is read is sound. */
static void hostile_bytes_do_no_harm(void **state)
{
    static const char *const seeds[] = {
        "# id a\nNew\tB-LOC\nYork\tI-LOC\n\nx S-A\ny\tE-A\n-DOCSTART- O\n",
        MANY_JSON MANY_JSON};
    static const char bytes[] = "\n\t O-BIES#\"{}[],:\\0\xff\xc3\xf0 ";
    test_page page;
    int round;

    (void)state;
    seed_state = 3;
    test_page_init(&page, 1024);
    for (round = 0; round < 6000; round++) {
        gptner_data_config cfg =
            config_of((gptner_data)(round & 1), (gptner_tags)chance(4));
        gptner_data_report report;
        gptner_docs *docs;
        gptner_text *text;
        size_t len = strlen(seeds[round & 1]), k, edits = 1 + chance(4);
        char *p;

        len -= chance(3) == 0 ? chance(len) : 0;
        p = test_page_put(&page, seeds[round & 1], len);
        for (k = 0; k < edits && len > 0; k++) {
            p[chance(len)] = bytes[chance(sizeof bytes)];
        }
        if (gptner_docs_parse(gpn_str(p, len), &cfg, &docs, &report, NULL) !=
            GPTNER_OK) {
            assert_null(docs);
            continue;
        }
        check_docs(docs);
        cfg.format = (gptner_data)chance(2);
        text = format(docs, cfg, &report);
        gptner_docs_free(docs);
        docs = parse(text->text, cfg, &report);
        gptner_docs_free(docs);
        gptner_text_free(text);
    }
    test_page_deinit(&page);
}

static void wnut17_is_read_and_written_back(void **state)
{
    static const char *const names[] = {
        "wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"};
    const char *root = getenv("GPTNER_DATA");
    size_t i, k, n, total = 0;

    (void)state;
    for (i = 0; i < TEST_COUNT(names); i++) {
        gptner_data_config cfg = config_of(GPTNER_DATA_CONLL, GPTNER_TAGS_AUTO);
        gptner_data_report in, out;
        gptner_docs *docs, *back;
        gptner_text *text;
        gptner_error err;
        char path[1024], *before, *after;

        snprintf(path, sizeof path, "%s/wnut17/%s",
                 root != NULL ? root : "../shared/data", names[i]);
        if (access(path, R_OK) != 0) {
            printf("SKIPPED: no %s (set GPTNER_DATA to its folder)\n", path);
            skip();
        }
        assert_int_equal(gptner_docs_read(path, &cfg, &docs, &in, &err),
                         GPTNER_OK);
        check_docs(docs);
        assert_int_equal(in.tags, GPTNER_TAGS_BIO);
        printf("%s: %d sentences, %d words, %d entities, %d repaired: %s\n",
               names[i], (int)in.documents, (int)in.tokens, (int)in.entities,
               (int)in.repaired, in.message);
        for (k = 0; k < docs->count; k++) {
            for (n = 0; n < docs->items[k].n_entities; n++) {
                gptner_str label = docs->items[k].entities[n].label;

                assert_true(
                    gpn_label_known(gptner_labels_get("wnut17"), &label));
            }
        }
        for (k = 0; k < 2; k++) {
            cfg.format = (gptner_data)k;
            text = format(docs, cfg, &out);
            assert_int_equal(out.left_out, 0);
            assert_int_equal(out.entities, in.entities);
            back = parse(text->text, cfg, &out);
            before = show(docs);
            after = show(back);
            assert_string_equal(before, after);
            free(before);
            free(after);
            gptner_docs_free(back);
            gptner_text_free(text);
        }
        total += in.entities;
        gptner_docs_free(docs);
    }
    assert_int_equal(total, 3890); /* tags that begin with B */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ready_made_sets_are_complete),
        cmocka_unit_test(own_labels_are_loaded),
        cmocka_unit_test(bad_label_files_are_refused_by_place),
        cmocka_unit_test(columns_of_all_schemes_are_read),
        cmocka_unit_test(offsets_are_counted_in_all_units),
        cmocka_unit_test(bad_files_are_refused_by_line),
        cmocka_unit_test(what_columns_cannot_express_is_reported),
        cmocka_unit_test(spans_survive_columns_of_every_scheme),
        cmocka_unit_test(spans_survive_lines_of_json),
        cmocka_unit_test(places_in_code_points_are_exact),
        cmocka_unit_test(broken_text_is_written_as_valid_json),
        cmocka_unit_test(files_are_read_and_written),
        cmocka_unit_test(every_allocation_and_file_call_may_fail),
        cmocka_unit_test(hostile_bytes_do_no_harm),
        cmocka_unit_test(wnut17_is_read_and_written_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
