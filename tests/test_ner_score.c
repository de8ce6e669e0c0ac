/* Tests of >>ner: scoring. Cases are written as text: documents are lines, and
 * an entity is "begin-end label". */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "test_common.h"

enum {
    MAX_DOCS = 8,
    MAX_ENTITIES = 16,
    TEXT = 12,
    STRICT = GPTNER_CRITERION_STRICT,
    EXACT = GPTNER_CRITERION_EXACT,
    PARTIAL = GPTNER_CRITERION_PARTIAL,
    TYPE = GPTNER_CRITERION_TYPE
};

static const char text[] = "abcdefghijkl";
static const char *const names[] = {"A", "B", "C"};

typedef struct side {
    gptner_docs docs;
    gptner_doc items[MAX_DOCS];
    gptner_entity entities[MAX_DOCS][MAX_ENTITIES];
} side;

static void side_init(side *s, size_t count)
{
    size_t i;

    memset(s, 0, sizeof *s);
    s->docs.items = s->items;
    s->docs.count = count;
    for (i = 0; i < count; i++) {
        s->items[i].text = gpn_str_c(text);
        s->items[i].entities = s->entities[i];
    }
}

static void side_add(side *s, size_t doc, size_t begin, size_t end,
                     const char *label)
{
    gptner_entity *e = &s->entities[doc][s->items[doc].n_entities++];

    assert_true(s->items[doc].n_entities <= MAX_ENTITIES);
    e->bytes.begin = begin;
    e->bytes.end = end;
    e->label = gpn_str_c(label);
}

/* "0-3A 4-6B|1-2A": two documents; labels are one letter. */
static void side_parse(side *s, const char *spec)
{
    static char letters[26][2];
    size_t count = 1, doc = 0;
    const char *p;

    for (p = spec; *p != '\0'; p++) {
        count += *p == '|';
    }
    side_init(s, count);
    for (p = spec; *p != '\0'; p++) {
        unsigned begin, end;
        char label;
        int used;

        if (*p == '|') {
            doc++;
        } else if (*p != ' ') {
            assert_int_equal(
                sscanf(p, "%u-%u%c%n", &begin, &end, &label, &used), 3);
            letters[label - 'A'][0] = label;
            side_add(s, doc, begin, end, letters[label - 'A']);
            p += used - 1;
        }
    }
}

static gptner_scores *score_of(const side *gold, const side *found)
{
    gptner_scores *out;
    gptner_error err;

    assert_int_equal(gptner_score(&gold->docs, &found->docs, NULL, &out, &err),
                     GPTNER_OK);
    assert_non_null(out);
    return out;
}

static void near(double a, double b)
{
    assert_true(a - b < 1e-12 && b - a < 1e-12);
}

/* ---- known cases ---- */

static void known_cases_have_their_scores(void **state)
{
    /* how many are correct by each criterion; partial: by PARTIAL */
    static const struct {
        const char *gold, *found;
        unsigned n_gold, n_found, strict, exact, partial, type;
    } cases[] = {
        {"", "", 0, 0, 0, 0, 0, 0},
        {"0-3A", "", 1, 0, 0, 0, 0, 0},
        {"", "0-3A", 0, 1, 0, 0, 0, 0},
        {"0-3A", "0-3A", 1, 1, 1, 1, 0, 1},
        {"0-3A", "0-3B", 1, 1, 0, 1, 0, 0},
        {"0-3A", "0-4A", 1, 1, 0, 0, 1, 1},
        {"0-3A", "0-4B", 1, 1, 0, 0, 1, 0},
        {"0-3A", "3-5A", 1, 1, 0, 0, 0, 0}, /* neighbours */
        /* the conlleval rules: one entity cut in two, two joined */
        {"0-6A", "0-3A 3-6A", 1, 2, 0, 0, 1, 1},
        {"0-3A 3-6A", "0-6A", 2, 1, 0, 0, 1, 1},
        {"0-3A", "0-3A 0-3A", 1, 1, 1, 1, 0, 1}, /* twice counts once */
        {"0-9A 2-4B 2-4A", "2-4B 0-9A 2-4A", 3, 3, 3, 3, 0, 3}, /* nested */
        {"0-9A 2-4B", "0-9B 2-4B", 2, 2, 1, 2, 0, 1},
        {"0-3A 0-3B", "0-3C", 2, 1, 0, 1, 0, 0}, /* two labels in a place */
        {"0-3A 0-3B", "0-3B 0-3C", 2, 2, 1, 2, 0, 1},
        /* the exact one, not the first; the larger overlap, not the first */
        {"2-6A", "0-9A 2-6A", 1, 2, 1, 1, 0, 1},
        {"4-9A 0-5A", "4-8A", 2, 1, 0, 0, 1, 1},
        /* TYPE pairs each label for itself */
        {"0-4A", "0-4B 0-2A", 1, 2, 0, 1, 0, 1},
        {"0-4A|0-4A", "0-4A|", 2, 1, 1, 1, 0, 1},
        {"0-4A|", "|0-4A", 1, 1, 0, 0, 0, 0}, /* not in another document */
    };
    size_t i, c;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        side gold, found;
        gptner_scores *s;
        uint64_t correct[GPTNER_CRITERIA];

        side_parse(&gold, cases[i].gold);
        side_parse(&found, cases[i].found);
        s = score_of(&gold, &found);
        correct[STRICT] = cases[i].strict;
        correct[EXACT] = correct[PARTIAL] = cases[i].exact;
        correct[TYPE] = cases[i].type;
        for (c = 0; c < GPTNER_CRITERIA; c++) {
            const gptner_tally *t = &s->micro[c];
            uint64_t partial = c == PARTIAL ? cases[i].partial : 0;

            assert_int_equal(t->gold.total, cases[i].n_gold);
            assert_int_equal(t->found.total, cases[i].n_found);
            assert_int_equal(t->gold.correct, correct[c]);
            assert_int_equal(t->found.correct, correct[c]);
            assert_int_equal(t->gold.partial, partial);
            assert_int_equal(t->found.partial, partial);
        }
        gptner_scores_free(s);
    }
}

static void rates_are_means_of_labels_or_of_entities(void **state)
{
    side gold, found;
    gptner_scores *s;

    (void)state;
    side_parse(&gold, "0-1A 2-3A 4-5A 6-8B");
    side_parse(&found, "0-1A 2-3A 6-7B 9-10C");
    s = score_of(&gold, &found);
    assert_int_equal(s->n_labels, 3);
    near(s->micro[STRICT].rates.precision, 2 / 4.0);
    near(s->micro[STRICT].rates.recall, 2 / 4.0);
    near(s->micro[PARTIAL].rates.f1, 2.5 / 4);
    near(s->micro[TYPE].rates.recall, 3 / 4.0);
    near(s->labels[0].by[STRICT].rates.precision, 1);
    near(s->labels[0].by[STRICT].rates.recall, 2 / 3.0);
    near(s->labels[0].by[STRICT].rates.f1, 0.8);
    near(s->labels[1].by[PARTIAL].rates.f1, 0.5);
    near(s->labels[2].by[PARTIAL].rates.precision, 0);
    near(s->labels[2].by[PARTIAL].rates.recall, 0); /* no support */
    near(s->macro[STRICT].precision, 1 / 3.0);
    near(s->macro[STRICT].recall, 2 / 9.0);
    near(s->macro[STRICT].f1, 0.8 / 3);
    near(s->macro[PARTIAL].f1, 1.3 / 3);
    gptner_scores_free(s);
}

static void confusions_tell_what_was_taken_for_what(void **state)
{
    /* rows: A B C none of gold; columns: A B C none found */
    static const uint64_t want[] = {1, 1, 0, 1, 0, 0, 1, 1,
                                    0, 0, 0, 0, 1, 0, 1, 0};
    side gold, found;
    gptner_scores *s;

    (void)state;
    side_parse(&gold, "0-1A 2-3A 4-5A 6-8B 9-10B");
    side_parse(&found, "0-1A 2-3B 6-7C 9-10C 11-12A");
    s = score_of(&gold, &found);
    assert_int_equal(s->n_labels, 3);
    assert_memory_equal(s->confusions, want, sizeof want);
    gptner_scores_free(s);
}

static void a_perfect_answer_scores_exactly_one(void **state)
{
    enum { LABELS = 100 };
    static gptner_entity e[LABELS];
    static char label[LABELS][8], plain[LABELS * 2 + 1];
    gptner_doc doc;
    gptner_docs docs;
    gptner_scores *s;
    size_t n, i, c;

    (void)state;
    memset(plain, 'x', sizeof plain - 1);
    memset(&doc, 0, sizeof doc);
    doc.text = gpn_str_c(plain);
    doc.entities = e;
    docs.items = &doc;
    docs.count = 1;
    for (i = 0; i < LABELS; i++) {
        snprintf(label[i], sizeof label[i], "L%d", (int)i);
        e[i].label = gpn_str_c(label[i]);
        e[i].bytes.begin = 2 * i;
        e[i].bytes.end = 2 * i + 1 + i % 2;
    }
    for (n = 1; n <= LABELS; n++) {
        doc.n_entities = n;
        assert_int_equal(gptner_score(&docs, &docs, NULL, &s, NULL), GPTNER_OK);
        assert_int_equal(s->n_labels, n);
        for (c = 0; c < GPTNER_CRITERIA; c++) {
            assert_true(s->micro[c].rates.f1 >= 1);
            assert_true(s->micro[c].rates.f1 <= 1);
            assert_true(s->macro[c].f1 >= 1 && s->macro[c].f1 <= 1);
        }
        for (i = 1; i < n; i++) { /* sorted by bytes */
            assert_true(
                strcmp(s->labels[i - 1].label.ptr, s->labels[i].label.ptr) < 0);
        }
        gptner_scores_free(s);
    }
}

/* ---- another implementation: sets as tables of what is there ---- */

typedef struct table {
    bool has[TEXT][TEXT + 1][3];
} table;

typedef struct naive {
    unsigned gold[3], found[3];
    /* of each criterion: full and half, of gold and found, by label */
    unsigned hits[GPTNER_CRITERIA][2][2][3];
    unsigned confused[4][4];
} naive;

static void table_fill(table *t, const gptner_doc *doc)
{
    size_t i;

    memset(t, 0, sizeof *t);
    for (i = 0; i < doc->n_entities; i++) {
        const gptner_entity *e = &doc->entities[i];

        t->has[e->bytes.begin][e->bytes.end][e->label.ptr[0] - 'A'] = true;
    }
}

#define EACH_PLACE(b, e)             \
    for ((b) = 0; (b) < TEXT; (b)++) \
        for ((e) = TEXT; (e) > (b); (e)--)

static void naive_hit(naive *n, int criterion, int half, int gold, int found)
{
    n->hits[criterion][half][0][gold]++;
    n->hits[criterion][half][1][found]++;
}

/* What overlaps most, of the labels allowed; repeated until nothing does. */
static void naive_overlaps(naive *n, table *g, table *f, int criterion,
                           int only)
{
    for (;;) {
        int best = 0, b, e, l, b2, e2, l2, at[6] = {0, 0, 0, 0, 0, 0};

        EACH_PLACE(b, e)
        {
            for (l = 0; l < 3; l++) {
                if (!g->has[b][e][l] || (only >= 0 && l != only)) {
                    continue;
                }
                EACH_PLACE(b2, e2)
                {
                    for (l2 = 0; l2 < 3; l2++) {
                        int common = (e < e2 ? e : e2) - (b > b2 ? b : b2);

                        if (f->has[b2][e2][l2] && common > best &&
                            (only < 0 || l2 == only)) {
                            best = common;
                            at[0] = b, at[1] = e, at[2] = l;
                            at[3] = b2, at[4] = e2, at[5] = l2;
                        }
                    }
                }
            }
        }
        if (best == 0) {
            return;
        }
        naive_hit(n, criterion, criterion == PARTIAL, at[2], at[5]);
        g->has[at[0]][at[1]][at[2]] = false;
        f->has[at[3]][at[4]][at[5]] = false;
    }
}

/* Takes what both have: with the same label, then in the same place. */
static void naive_equal(naive *n, table *g, table *f)
{
    int b, e, l, l2;

    EACH_PLACE(b, e)
    {
        for (l = 0; l < 3; l++) {
            if (g->has[b][e][l] && f->has[b][e][l]) {
                naive_hit(n, STRICT, 0, l, l);
                naive_hit(n, EXACT, 0, l, l);
                naive_hit(n, PARTIAL, 0, l, l);
                n->confused[l][l]++;
                g->has[b][e][l] = f->has[b][e][l] = false;
            }
        }
        for (l = 0; l < 3; l++) {
            for (l2 = 0; l2 < 3; l2++) {
                if (g->has[b][e][l] && f->has[b][e][l2]) {
                    naive_hit(n, EXACT, 0, l, l2);
                    naive_hit(n, PARTIAL, 0, l, l2);
                    n->confused[l][l2]++;
                    g->has[b][e][l] = f->has[b][e][l2] = false;
                }
            }
        }
        for (l = 0; l < 3; l++) {
            n->confused[l][3] += g->has[b][e][l];
            n->confused[3][l] += f->has[b][e][l];
        }
    }
}

static void naive_doc(naive *n, const gptner_doc *gold, const gptner_doc *found)
{
    table g, f;
    int b, e, l;

    table_fill(&g, gold);
    table_fill(&f, found);
    EACH_PLACE(b, e)
    {
        for (l = 0; l < 3; l++) {
            n->gold[l] += g.has[b][e][l];
            n->found[l] += f.has[b][e][l];
        }
    }
    naive_equal(n, &g, &f);
    naive_overlaps(n, &g, &f, PARTIAL, -1);
    table_fill(&g, gold);
    table_fill(&f, found);
    EACH_PLACE(b, e)
    {
        for (l = 0; l < 3; l++) {
            if (g.has[b][e][l] && f.has[b][e][l]) {
                naive_hit(n, TYPE, 0, l, l);
                g.has[b][e][l] = f.has[b][e][l] = false;
            }
        }
    }
    for (l = 0; l < 3; l++) {
        naive_overlaps(n, &g, &f, TYPE, l);
    }
}

/* Precision, recall and F1 of counts of halves. */
static void naive_rates(const gptner_rates *r, double gold_hits,
                        double found_hits, double gold, double found)
{
    double recall = gold_hits / (gold > 0 ? gold : 1) / 2;
    double precision = found_hits / (found > 0 ? found : 1) / 2;
    double sum = recall + precision;

    near(r->recall, recall);
    near(r->precision, precision);
    near(r->f1, sum > 0 ? 2 / (1 / recall + 1 / precision) : 0);
}

static void check_criterion(const naive *n, const gptner_scores *s, int c)
{
    double gold = 0, found = 0, hits = 0;
    gptner_rates mean = {0, 0, 0};
    size_t at = 0;
    int l;

    for (l = 0; l < 3; l++) {
        const gptner_tally *t = &s->labels[at].by[c];
        unsigned g, f;

        if (n->gold[l] + n->found[l] == 0) {
            continue;
        }
        assert_true(gpn_str_eq(s->labels[at].label, gpn_str_c(names[l])));
        assert_int_equal(t->gold.total, n->gold[l]);
        assert_int_equal(t->found.total, n->found[l]);
        assert_int_equal(t->gold.correct, n->hits[c][0][0][l]);
        assert_int_equal(t->found.correct, n->hits[c][0][1][l]);
        assert_int_equal(t->gold.partial, n->hits[c][1][0][l]);
        assert_int_equal(t->found.partial, n->hits[c][1][1][l]);
        g = 2 * n->hits[c][0][0][l] + n->hits[c][1][0][l];
        f = 2 * n->hits[c][0][1][l] + n->hits[c][1][1][l];
        naive_rates(&t->rates, g, f, n->gold[l], n->found[l]);
        gold += n->gold[l];
        found += n->found[l];
        hits += g;
        mean.precision += t->rates.precision;
        mean.recall += t->rates.recall;
        mean.f1 += t->rates.f1;
        at++;
    }
    assert_int_equal(s->n_labels, at);
    naive_rates(&s->micro[c].rates, hits, hits, gold, found);
    if (at > 0) {
        near(s->macro[c].precision, mean.precision / (double)at);
        near(s->macro[c].recall, mean.recall / (double)at);
        near(s->macro[c].f1, mean.f1 / (double)at);
    }
}

static void check_scores(const side *gold, const side *found)
{
    gptner_scores *s = score_of(gold, found);
    naive n;
    size_t i, row = 0, column;
    int l, l2, c;

    memset(&n, 0, sizeof n);
    for (i = 0; i < gold->docs.count; i++) {
        naive_doc(&n, &gold->items[i], &found->items[i]);
    }
    for (c = 0; c < GPTNER_CRITERIA; c++) {
        check_criterion(&n, s, c);
    }
    for (l = 0; l < 4; l++) {
        if (l < 3 && n.gold[l] + n.found[l] == 0) {
            continue;
        }
        for (l2 = 0, column = 0; l2 < 4; l2++) {
            if (l2 == 3 || n.gold[l2] + n.found[l2] > 0) {
                assert_int_equal(
                    s->confusions[row * (s->n_labels + 1) + column++],
                    n.confused[l][l2]);
            }
        }
        row++;
    }
    gptner_scores_free(s);
}

static unsigned roll(test_clock *c, unsigned n)
{
    return (unsigned)(test_clock_random(c) >> 32) % n;
}

static void random_entity(side *s, size_t doc, test_clock *c)
{
    size_t begin = roll(c, TEXT);
    size_t most = roll(c, 3) > 0 && TEXT - begin > 4 ? 4 : TEXT - begin;

    side_add(s, doc, begin, begin + 1 + roll(c, (unsigned)most),
             names[roll(c, 3)]);
}

static void random_cases_agree_with_another_implementation(void **state)
{
    test_clock c;
    int i;

    (void)state;
    memset(&c, 0, sizeof c);
    for (i = 0; i < 10000; i++) {
        size_t count = roll(&c, 4), doc, k;
        unsigned most = 1 + roll(&c, 7);
        side gold, found;

        side_init(&gold, count);
        side_init(&found, count);
        for (doc = 0; doc < count; doc++) {
            for (k = roll(&c, most); k > 0; k--) {
                random_entity(&gold, doc, &c);
            }
            for (k = roll(&c, most); k > 0; k--) {
                random_entity(&found, doc, &c);
            }
            for (k = gold.items[doc].n_entities; k > 0; k--) {
                const gptner_entity *e = &gold.entities[doc][k - 1];
                bool shorter = roll(&c, 4) == 0;

                if (roll(&c, 2) == 0) {
                    side_add(&found, doc, e->bytes.begin,
                             shorter ? e->bytes.begin + 1 : e->bytes.end,
                             roll(&c, 3) == 0 ? names[roll(&c, 3)]
                                              : e->label.ptr);
                }
            }
        }
        check_scores(&gold, &found);
    }
}

/* ---- what is refused, and what fails ---- */

static void refused(const side *gold, const side *found, gptner_status status,
                    const char *message)
{
    gptner_scores *s = (gptner_scores *)1;
    gptner_error err;

    assert_int_equal(gptner_score(&gold->docs, &found->docs, NULL, &s, &err),
                     status);
    assert_null(s);
    assert_int_equal(err.status, status);
    assert_non_null(strstr(err.message, message));
}

static void what_cannot_be_compared_is_refused(void **state)
{
    side gold, found;
    gptner_scores *s;
    gptner_allocator half;

    (void)state;
    side_parse(&gold, "0-3A|0-3A");
    side_parse(&found, "0-3A");
    refused(&gold, &found, GPTNER_ERR_INVALID_ARGUMENT,
            "2 documents of gold, but 1 found");
    side_parse(&found, "0-3A|0-3A");
    found.items[1].text.len--;
    refused(&gold, &found, GPTNER_ERR_INVALID_ARGUMENT,
            "document 2 of 2: the texts differ");
    side_parse(&found, "0-3A|3-3A");
    refused(&gold, &found, GPTNER_ERR_INVALID_ARGUMENT,
            "document 2 of 2: an entity is empty");
    side_parse(&found, "0-13A|0-3A");
    refused(&gold, &found, GPTNER_ERR_INVALID_ARGUMENT, "document 1 of 2");
    refused(&found, &gold, GPTNER_ERR_INVALID_ARGUMENT, "document 1 of 2");
    assert_int_equal(gptner_score(NULL, &gold.docs, NULL, &s, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_score(&gold.docs, NULL, NULL, &s, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_score(&gold.docs, &gold.docs, NULL, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    memset(&half, 0, sizeof half);
    half.free_fn = test_mem_free;
    assert_int_equal(gptner_score(&gold.docs, &gold.docs, &half, &s, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    gptner_scores_free(NULL);
}

/* n entities in one document, all with a byte in common, or n labels. */
static gptner_status score_many(size_t n, bool nested)
{
    gptner_entity *e = (gptner_entity *)calloc(n, sizeof *e);
    char *plain = (char *)calloc(2 * n, 1);
    gptner_doc doc;
    gptner_docs docs;
    gptner_scores *s;
    gptner_status status;
    size_t i;

    assert_true(e != NULL && plain != NULL);
    for (i = 0; i < n; i++) {
        e[i].bytes.begin = i;
        e[i].bytes.end = nested ? 2 * n - i : i + 1;
        e[i].label = nested ? gpn_str_c("A") : gpn_str(plain, i);
    }
    memset(&doc, 0, sizeof doc);
    doc.text = gpn_str(plain, 2 * n);
    doc.entities = e;
    doc.n_entities = n;
    docs.items = &doc;
    docs.count = 1;
    status = gptner_score(&docs, &docs, NULL, &s, NULL);
    if (status == GPTNER_OK) {
        assert_int_equal(s->micro[STRICT].gold.correct, n);
        assert_int_equal(s->micro[TYPE].found.correct, n);
        assert_int_equal(s->n_labels, nested ? 1 : n);
    }
    gptner_scores_free(s);
    free(plain);
    free(e);
    return status;
}

static void too_much_is_refused(void **state)
{
    (void)state;
    assert_int_equal(score_many(500, true), GPTNER_OK);
    assert_int_equal(score_many(2049, true), GPTNER_ERR_LIMIT);
    assert_int_equal(score_many(1000, false), GPTNER_OK);
    assert_int_equal(score_many(4097, false), GPTNER_ERR_LIMIT);
}

static void every_allocation_may_fail(void **state)
{
    gptner_status status = GPTNER_ERR_NO_MEMORY;
    gptner_allocator allocator;
    side gold, found;
    test_mem mem;
    int n;

    (void)state;
    memset(&mem, 0, sizeof mem);
    allocator = test_mem_allocator(&mem);
    side_parse(&gold, "0-3A 4-6B 5-9C 0-9D|1-2A 1-7E 0-1F 0-2G 0-3H 0-4I 0-5J "
                      "0-6K 0-7L 0-8M 0-9N 0-11O 0-12P");
    side_parse(&found, "0-3A 4-6B 5-9C 0-9D|1-2A 1-7Q 0-1R 0-2S 0-3H 0-4I 0-5J "
                       "0-6K 0-7L 0-8M 0-9N 0-11O 0-12P");
    for (n = 1; status != GPTNER_OK; n++) {
        gptner_scores *s;
        gptner_error err;

        test_fault_set(GPN_FAULT_ALLOC, n, false);
        status = gptner_score(&gold.docs, &found.docs, &allocator, &s, &err);
        assert_true((status == GPTNER_OK) == !test_fault_fired());
        if (status != GPTNER_OK) {
            assert_int_equal(status, GPTNER_ERR_NO_MEMORY);
            assert_null(s);
        }
        gptner_scores_free(s);
        assert_int_equal(mem.blocks, 0);
        assert_true(n < 100);
    }
    assert_true(n > 5);
    test_fault_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_cases_have_their_scores),
        cmocka_unit_test(rates_are_means_of_labels_or_of_entities),
        cmocka_unit_test(confusions_tell_what_was_taken_for_what),
        cmocka_unit_test(a_perfect_answer_scores_exactly_one),
        cmocka_unit_test(random_cases_agree_with_another_implementation),
        cmocka_unit_test(what_cannot_be_compared_is_refused),
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
