/* Tests of >>ner: reading answers. A document is checked as text, one line for
 * each entity: "begin-end label match", then "lost: label said". */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "test_common.h"

static const gptner_label label_items[] = {
    {{"PER", 3}, {"person", 6}, {NULL, 0}, NULL, 0},
    {{"LOC", 3}, {"location", 8}, {NULL, 0}, NULL, 0},
    {{"ORG", 3}, {"organization", 12}, {NULL, 0}, NULL, 0}};
static const gptner_labels three = {{"three", 5}, label_items, 3, true};
static const gptner_labels only_per = {{"one", 3}, label_items, 1, true};

static gptner_answer_config config_of(gptner_strategy strategy,
                                      gptner_str source, gptner_str answer)
{
    gptner_answer_config cfg;

    memset(&cfg, 0, sizeof cfg);
    cfg.strategy = strategy;
    cfg.source = source;
    cfg.answer = answer;
    cfg.labels = strategy == GPTNER_STRATEGY_MARKER ? &only_per : &three;
    return cfg;
}

/* ---- what must hold of every document ---- */

static void count_units(gptner_str s, size_t to, size_t *points, size_t *utf16)
{
    size_t at = 0;

    *points = *utf16 = 0;
    while (at < to) {
        uint32_t cp;
        size_t n = gpn_utf8_get(s.ptr + at, s.len - at, &cp);

        at += n > 0 ? n : 1;
        ++*points;
        *utf16 += n == 4 ? 2 : 1;
    }
    assert_int_equal(at, to); /* else the place is inside a character */
}

static void check_doc(const gptner_answer_config *cfg, const gptner_doc *doc)
{
    size_t i, points, utf16;

    assert_true(gpn_str_eq(doc->text, cfg->source));
    assert_non_null(doc->message);
    for (i = 0; i < doc->n_entities; i++) {
        const gptner_entity *e = &doc->entities[i], *p = e - 1;

        assert_true(e->bytes.begin < e->bytes.end);
        assert_true(e->bytes.end <= doc->text.len);
        assert_true(e->text.ptr == doc->text.ptr + e->bytes.begin);
        assert_int_equal(e->text.len, e->bytes.end - e->bytes.begin);
        count_units(doc->text, e->bytes.begin, &points, &utf16);
        assert_int_equal(e->code_points.begin, points);
        assert_int_equal(e->utf16.begin, utf16);
        count_units(doc->text, e->bytes.end, &points, &utf16);
        assert_int_equal(e->code_points.end, points);
        assert_int_equal(e->utf16.end, utf16);
        assert_true(e->match < GPTNER_MATCH_LOST);
        assert_true(e->match != GPTNER_MATCH_EXACT || e->said.ptr == NULL);
        if (i > 0) {
            assert_true(p->bytes.begin < e->bytes.begin ||
                        (p->bytes.begin == e->bytes.begin &&
                         p->bytes.end >= e->bytes.end));
            assert_false(p->bytes.begin == e->bytes.begin &&
                         p->bytes.end == e->bytes.end &&
                         gpn_str_eq(p->label, e->label));
        }
    }
    for (i = 0; i < doc->n_lost; i++) {
        assert_int_equal(doc->lost[i].match, GPTNER_MATCH_LOST);
        assert_int_equal(doc->lost[i].bytes.end, 0);
        assert_non_null(doc->lost[i].said.ptr);
    }
}

static gptner_doc *read_answer(const gptner_answer_config *cfg)
{
    gptner_doc *doc;
    gptner_error err;

    assert_int_equal(gptner_answer_read(cfg, &doc, &err), GPTNER_OK);
    check_doc(cfg, doc);
    return doc;
}

/* The document as text, to be compared. */
static const char *doc_text(const gptner_doc *doc, char *out, size_t cap)
{
    static const char *const matches[] = {"", "~norm", "~fuzzy"};
    size_t n = 0, i;

    out[0] = '\0';
    for (i = 0; i < doc->n_entities; i++) {
        const gptner_entity *e = &doc->entities[i];

        n += (size_t)snprintf(out + n, cap - n, "%s%.*s[%zu]%.*s%s",
                              i > 0 ? " " : "", (int)e->label.len, e->label.ptr,
                              e->bytes.begin, (int)e->text.len, e->text.ptr,
                              matches[e->match]);
    }
    for (i = 0; i < doc->n_lost; i++)
        n += (size_t)snprintf(
            out + n, cap - n, " lost:%.*s:%.*s", (int)doc->lost[i].label.len,
            doc->lost[i].label.ptr, (int)doc->lost[i].said.len,
            doc->lost[i].said.ptr);
    if (doc->status != GPTNER_OK)
        snprintf(out + n, cap - n, " !%s",
                 gptner_status_name(doc->status) + 11);
    return out;
}

typedef struct answer_case {
    const char *source, *answer, *expected;
} answer_case;

static void check_cases(gptner_strategy strategy, const answer_case *cases,
                        size_t n)
{
    char text[2048];
    size_t i, wrong = 0;

    for (i = 0; i < n; i++) {
        gptner_answer_config cfg = config_of(
            strategy, gpn_str_c(cases[i].source), gpn_str_c(cases[i].answer));
        gptner_doc *doc = read_answer(&cfg);

        if (strcmp(doc_text(doc, text, sizeof text), cases[i].expected) != 0) {
            printf("source   %s\nanswer   %s\nexpected %s\ngot      %s\n",
                   cases[i].source, cases[i].answer, cases[i].expected, text);
            wrong++;
        }
        gptner_doc_free(doc);
    }
    assert_int_equal(wrong, 0);
}

/* ---- tables ---- */

#define SAILED "Columbus sailed from Spain. In Cuba Columbus met O'Hara."

static const answer_case marker_cases[] = {
    /* as asked for */
    {SAILED, SAILED, ""},
    {SAILED, "@@Columbus## sailed from Spain. In Cuba Columbus met O'Hara.",
     "PER[0]Columbus"},
    {SAILED, "Columbus sailed from Spain. In Cuba @@Columbus## met @@O'Hara##.",
     "PER[36]Columbus PER[49]O'Hara"},
    {"Bank of China", "@@Bank of @@China####",
     "PER[0]Bank of China PER[8]China"},
    {" a b ", "a @@b##", "PER[3]b"},
    {"a b", "  a @@b##\n\n", "PER[2]b"},
    {"a b c", "a @@b ##c", "PER[2]b"},
    {"a b c", "a@@ b## c", "PER[2]b"},
    /* dropped, added, re-cased, re-spaced words */
    {SAILED, "@@Columbus## from Spain. In Cuba Columbus met @@O'Hara##.",
     "PER[0]Columbus PER[49]O'Hara"},
    {SAILED,
     "Then @@Columbus## sailed away from Spain. In Cuba Columbus met "
     "O'Hara.",
     "PER[0]Columbus"},
    {SAILED,
     "Columbus sailed from Spain. In Cuba Columbus met with @@O'Hara##.",
     "PER[49]O'Hara"},
    {SAILED, "columbus sailed from spain. in cuba @@columbus## met @@o'hara##.",
     "PER[36]Columbus~norm PER[49]O'Hara~norm"},
    {SAILED,
     "Columbus  sailed\nfrom Spain .  In Cuba @@Columbus## met O'Hara .",
     "PER[36]Columbus"},
    {"New York is big", "@@NewYork## is big", "PER[0]New York~norm"},
    {"NewYork is big", "@@New York## is big", "PER[0]NewYork~norm"},
    {"I saw New   York", "I saw @@New York##", "PER[6]New   York~norm"},
    {SAILED, "In Cuba @@Columbus## met O'Hara.", "PER[36]Columbus"},
    /* rewritten */
    {"Christopher Columbus sailed", "@@Kristopher Columbus## sailed",
     "PER[0]Christopher Columbus~fuzzy"},
    {"Christopher Columbus sailed", "@@Christopher Colombus## sailed",
     "PER[0]Christopher Columbus~fuzzy"},
    {"Christopher Columbus sailed", "@@Christopher A. Columbus## sailed",
     "PER[0]Christopher Columbus~fuzzy"},
    {"the Dr. Hans Peter Meier spoke", "the @@Dr. Hans Meier## spoke",
     "PER[4]Dr. Hans Peter Meier~fuzzy"},
    {"we met Columbus there", "we met @@Napoleon## there",
     " lost:PER:Napoleon"},
    {"we met Columbus there", "we met @@Columbus## and @@Napoleon## there",
     "PER[7]Columbus lost:PER:Napoleon"},
    /* quotes, dashes, forms */
    {"the \"Jean-Luc\" film",
     "the \xe2\x80\x9c@@Jean\xe2\x80\x91Luc##\xe2\x80\x9d "
     "film",
     "PER[5]Jean-Luc~norm"},
    {"met O\xe2\x80\x99Hara there", "met @@O'Hara## there",
     "PER[4]O\xe2\x80\x99Hara~norm"},
    {"\xef\xbc\xa1\xef\xbc\xa2\xef\xbc\xa3 corp", "@@ABC## corp",
     "PER[0]\xef\xbc\xa1\xef\xbc\xa2\xef\xbc\xa3~norm"},
    {"in Zu\xcc\x88rich now", "in @@Z\xc3\xbcrich## now",
     "PER[3]Zu\xcc\x88rich~norm"},
    {"in Z\xc3\xbcrich now", "in @@Zurich## now", "PER[3]Z\xc3\xbcrich~norm"},
    {"\xce\x91\xce\xb8\xce\xae\xce\xbd\xce\xb1 x",
     "@@\xce\x91\xce\x98\xce\x97\xce\x9d\xce\x91## x",
     "PER[0]\xce\x91\xce\xb8\xce\xae\xce\xbd\xce\xb1~norm"},
    {"\xd0\x98\xd0\xb2\xd0\xb0\xd0\xbd x",
     "@@\xd0\x98\xd0\x92\xd0\x90\xd0\x9d## x",
     "PER[0]\xd0\x98\xd0\xb2\xd0\xb0\xd0\xbd~norm"},
    /* escapes */
    {"he said \"Bo\" twice", "he said \\\"@@Bo##\\\" twice", "PER[9]Bo"},
    {"a\nBo b", "a\\n@@Bo## b", "PER[2]Bo"},
    {"the AT&T shop", "the @@AT&amp;T## shop", "PER[4]AT&T~norm"},
    {"the Bo shop", "the <b>@@Bo##</b> shop", "PER[4]Bo"},
    {"the Bo shop", "the @@<b>Bo</b>## shop", "PER[4]Bo~norm"},
    {"the Bo shop", "the @@\"Bo\"## shop", "PER[4]Bo~norm"},
    {"the Bo shop", "the **@@Bo##** shop", "PER[4]Bo"},
    {"Z\xc3\xbcri x", "@@Z\\u00fcri## x", "PER[0]Z\xc3\xbcri~norm"},
    /* forgotten marks */
    {SAILED, "@@Columbus sailed from Spain. In Cuba @@Columbus## met O'Hara.",
     "PER[0]Columbus~fuzzy PER[36]Columbus"},
    {SAILED, "Columbus## sailed from Spain. In Cuba Columbus met O'Hara.",
     "PER[0]Columbus~fuzzy"},
    {"Then Anna Maria van Beek left.", "Then @@Anna Maria van Beek left.",
     "PER[5]Anna Maria van Beek~fuzzy"},
    {"Yet Anna Maria van Beek left.", "Yet Anna Maria van Beek## left.",
     "PER[4]Anna Maria van Beek~fuzzy"},
    {"they met Bo", "they met @@Bo", "PER[9]Bo~fuzzy"},
    /* nothing in them */
    {"a b c", "a @@## b c", " lost:PER:"},
    {"a b c", "a @@ ##b c", " lost:PER:"},
    {"", "@@x##", " lost:PER:x"},
    {"", "", ""},
    {"a b c", "", " !BAD_REPLY"},
    {"a b c", "I cannot help with that.", " !BAD_REPLY"},
    /* around, repeated, cut off */
    {SAILED,
     "Sure! Here is the text:\n\n```\n@@Columbus## sailed from Spain. In "
     "Cuba Columbus met O'Hara.\n```\nHope it helps!",
     "PER[0]Columbus"},
    {SAILED, "\"@@Columbus## sailed from Spain. In Cuba Columbus met O'Hara.\"",
     "PER[0]Columbus"},
    {SAILED,
     "@@Columbus## sailed from Spain. In Cuba Columbus met O'Hara.\n"
     "@@Columbus## sailed from Spain. In Cuba Columbus met O'Hara.",
     "PER[0]Columbus"},
    {SAILED,
     "Columbus sailed from Spain. In Cuba Columbus met @@O'Hara##.\n"
     "Here again: @@Columbus## sailed from Spain. In Cuba Columbus met "
     "O'Hara.",
     "PER[0]Columbus PER[49]O'Hara"},
    {SAILED " It was there that he saw the sea again.",
     "@@Columbus## sailed from Spain. In @@Cu",
     "PER[0]Columbus lost:PER:Cu !TRUNCATED"},
    /* scripts without spaces, emoji, sub-words */
    {"\xe5\x9c\xa8\xe5\x8c\x97\xe4\xba\xac\xe8\xa7\x81",
     "\xe5\x9c\xa8@@\xe5\x8c\x97\xe4\xba\xac##\xe8\xa7\x81",
     "PER[3]\xe5\x8c\x97\xe4\xba\xac"},
    {"\xe5\x9c\xa8\xe5\x8c\x97\xe4\xba\xac\xe8\xa7\x81",
     "@@\xe5\x8c\x97\xe4\xba\xac##\xe8\xa7\x81\xe3\x80\x82",
     "PER[3]\xe5\x8c\x97\xe4\xba\xac"},
    {"\xec\x84\x9c\xec\x9a\xb8\xec\x9d\x80 x!",
     "@@\xec\x84\x9c\xec\x9a\xb8##\xec\x9d\x80 x",
     "PER[0]\xec\x84\x9c\xec\x9a\xb8"},
    {"in Berlins Mitte!", "in @@Berlin##s Mitte", "PER[3]Berlin"},
    {"x \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac Bo!",
     "x @@\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac## @@Bo##",
     "PER[2]\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac PER[14]Bo"},
    /* an accent is never cut off */
    {"Re\xcc\x81 x", "@@Re##\xcc\x81 x", "PER[0]Re\xcc\x81~norm"},
    /* bytes that are no UTF-8 */
    {"a\xff\xc3 Bo \xe2\x82", "a\xff\xc3 @@Bo## \xe2\x82", "PER[4]Bo"},
    {"a\xff\xc3 Bo \xe2\x82!", "a\xff\xc3 @@Bo## \xe2\x82", "PER[4]Bo"},
};

static const answer_case typed_cases[] = {
    {SAILED,
     "@@PER|Columbus## sailed from @@LOC|Spain##. In @@LOC|Cuba## "
     "@@PER|Columbus## met @@PER|O'Hara##.",
     "PER[0]Columbus LOC[21]Spain LOC[31]Cuba PER[36]Columbus "
     "PER[49]O'Hara"},
    {"Bank of China", "@@ORG|Bank of @@LOC|China####",
     "ORG[0]Bank of China LOC[8]China"},
    {"Paris!", "@@PER|@@LOC|Paris####!", "LOC[0]Paris PER[0]Paris"},
    {"Bank of China !", "@@ORG|Bank of @@LOC|China##",
     "ORG[0]Bank of China~fuzzy LOC[8]China"},
    /* labels in other forms */
    {"met Bo", "met @@per|Bo##", "PER[4]Bo"},
    {"met Bo", "met @@Person: Bo##", "PER[4]Bo"},
    {"met Bo", "met @@ PER | Bo ##", "PER[4]Bo"},
    {"met Bo", "met @@Bo|PER##", "PER[4]Bo"},
    {"met Bo", "met @@DOG|Bo##", " lost:DOG:Bo"},
    {"met Bo", "met @@Bo##", " lost::Bo"},
    {"met Bo x", "met Bo## x", " lost::met Bo"},
    /* overlap: the text twice */
    {"the a b c end", "the @@PER|a b## c end\nthe a @@LOC|b c## end",
     "PER[4]a b LOC[6]b c"},
    {"the a b c end", "the @@PER|A b## c end\nthe a @@LOC|b c## end",
     "PER[4]a b~norm LOC[6]b c"},
};

#define TWO "Paris met Paris in Paris, France"

static const answer_case json_cases[] = {
    {SAILED,
     "{\"entities\":[{\"before\":\"\",\"text\":\"Columbus\","
     "\"label\":\"PER\"},{\"before\":\"from\",\"text\":\"Spain\","
     "\"label\":\"LOC\"}]}",
     "PER[0]Columbus LOC[21]Spain"},
    {SAILED, "{\"entities\":[]}", ""},
    {SAILED, "[]", ""},
    {TWO,
     "{\"entities\":[{\"before\":\"met\",\"text\":\"Paris\",\"label\":"
     "\"PER\"},{\"before\":\"in\",\"text\":\"Paris\",\"label\":\"LOC\"}]}",
     "PER[10]Paris LOC[19]Paris"},
    {TWO,
     "[{\"text\":\"Paris\",\"label\":\"PER\"},{\"text\":\"Paris\",\"label\":"
     "\"PER\"},{\"text\":\"Paris\",\"label\":\"LOC\"}]",
     "PER[0]Paris PER[10]Paris LOC[19]Paris"},
    {TWO, "[{\"text\":\"Paris\",\"label\":\"LOC\",\"occurrence\":3}]",
     "LOC[19]Paris"},
    {TWO, "[{\"text\":\"Paris\",\"label\":\"LOC\",\"after\":\", France\"}]",
     "LOC[19]Paris"},
    {TWO,
     "[{\"text\":\"France\",\"label\":\"LOC\"},{\"text\":\"France\",\"label\":"
     "\"LOC\"}]",
     "LOC[26]France"},
    /* around it, and other shapes */
    {SAILED,
     "Sure!\n```json\n{\"entities\":[{\"text\":\"Spain\",\"label\":"
     "\"LOC\"}]}\n```\nHope [this] helps.",
     "LOC[21]Spain"},
    {SAILED, "{\"Entities\":[{\"Text\":\"Spain\",\"Label\":\"location\"}]}",
     "LOC[21]Spain"},
    {SAILED,
     "[{\"entity\":\"Spain\",\"type\":\"LOC\"},{\"entity\":\"PER\","
     "\"word\":\"O'Hara\"},{\"name\":\"Cuba\",\"category\":\"loc\"}]",
     "LOC[21]Spain LOC[31]Cuba PER[49]O'Hara"},
    {SAILED, "{\"PER\":[\"Columbus\",\"O'Hara\"],\"LOC\":[\"Spain\"]}",
     "PER[0]Columbus LOC[21]Spain PER[49]O'Hara"},
    {SAILED, "{\"Spain\":\"LOC\",\"PER\":\"O'Hara\"}",
     "LOC[21]Spain PER[49]O'Hara"},
    {SAILED, "{\"entities\":{\"LOC\":[{\"text\":\"Spain\"}]}}", "LOC[21]Spain"},
    /* other words */
    {SAILED, "[{\"text\":\"spain\",\"label\":\"LOC\"}]", "LOC[21]Spain~norm"},
    {SAILED, "[{\"text\":\"Collumbus\",\"label\":\"PER\"}]",
     "PER[0]Columbus~fuzzy"},
    {SAILED, "[{\"text\":\"Napoleon\",\"label\":\"PER\"}]",
     " lost:PER:Napoleon"},
    {SAILED, "[{\"text\":\"Spa\",\"label\":\"LOC\"}]", " lost:LOC:Spa"},
    {SAILED, "[{\"text\":\"Spain\",\"label\":\"DOG\"}]", " lost:DOG:Spain"},
    {SAILED, "[{\"text\":\"  \",\"label\":\"LOC\"}]", " lost:LOC:"},
    {SAILED, "[\"Spain\"]", " lost::Spain"},
    {"to us in the US", "[{\"text\":\"US\",\"label\":\"LOC\"}]", "LOC[13]US"},
    {"a \"b\" c", "[{\"text\":\"\\\"b\\\"\",\"label\":\"LOC\"}]",
     "LOC[2]\"b\""},
    /* broken and cut off */
    {SAILED,
     "{\"entities\":[{\"text\":\"Spain\",\"label\":\"LOC\"},{\"text\":\"Cu",
     "LOC[21]Spain !TRUNCATED"},
    {SAILED,
     "[{\"text\":\"Spain\",\"label\":\"LOC\",},{\"text\":\"Cuba\","
     "\"label\":\"LOC\"}]",
     "LOC[21]Spain LOC[31]Cuba !BAD_REPLY"},
    {SAILED, "There are none.", " !BAD_REPLY"},
    {SAILED, "", " !BAD_REPLY"},
};

static void marked_answers_are_aligned(void **state)
{
    (void)state;
    check_cases(GPTNER_STRATEGY_MARKER, marker_cases, TEST_COUNT(marker_cases));
}

static void typed_answers_are_aligned(void **state)
{
    (void)state;
    check_cases(GPTNER_STRATEGY_MARKER_ALL, typed_cases,
                TEST_COUNT(typed_cases));
}

static void json_answers_are_aligned(void **state)
{
    (void)state;
    check_cases(GPTNER_STRATEGY_JSON, json_cases, TEST_COUNT(json_cases));
}

/* ---- random texts with entities ---- */

static const char *const vocabulary[] = {
    "Columbus",
    "sailed",
    "from",
    "Spain",
    "the",
    "of",
    "in",
    "and",
    "a",
    "Bank",
    "China",
    "O'Hara",
    "met",
    "New",
    "York",
    "treaty",
    "1492",
    "Z\xc3\xbcrich",
    "Garc\xc3\xad"
    "a",
    "Dvor\xcc\x8c"
    "a\xcc\x81k",
    "\xd0\x9c\xd0\xbe\xd1\x81\xd0\xba\xd0\xb2\xd0\xb0",
    "\xce\x91\xce\xb8\xce\xae\xce\xbd\xce\xb1",
    "\xe5\x8c\x97",
    "\xe4\xba\xac",
    "\xe5\xa4\xa7",
    "\xe5\xad\xa6",
    "\xe0\xb9\x84",
    "\xe0\xb8\x97",
    "\xe0\xb8\xa2",
    "\xe0\xb8\x81\xe0\xb8\xb4",
    "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac",
    "\xf0\x9f\x91\x8d\xf0\x9f"
    "\x8f\xbd",
    ",",
    ".",
    "\"",
    "(",
    ")",
    "AT&T",
    "well-known",
    "e-mail",
    "@home",
    "#1",
    "U.S.",
    "said",
    "river",
    "Amazon",
    "Werner",
    "Heisenberg",
    "physics",
    "uncertain",
    "Jean-Luc",
    "Godard",
    "\xec\x84\x9c\xec\x9a\xb8",
    "Helsinki",
    "prize",
    "winner",
    "Marie",
    "Curie",
    "radium",
    "Warsaw",
    "Pierre",
    "discovered",
    "polonium",
    "village",
    "mountain",
    "president"};

#define UNITS_MAX 80

typedef struct unit {
    char text[48]; /* as the answer has it */
    size_t begin, end;
    bool dropped, changed;
} unit;

/* A gold text. Entities are of units [first, last]. */
typedef struct gold {
    char text[UNITS_MAX * 24];
    size_t len, n, count;
    unit units[UNITS_MAX];
    gptner_entity entities[16];
    size_t first[16], last[16];
    gptner_doc doc;
} gold;

static uint64_t rng;

static size_t below(size_t n)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t)((rng >> 33) % n);
}

static bool crosses(const gold *g, size_t first, size_t last)
{
    size_t i;

    for (i = 0; i < g->count; i++) {
        if ((first < g->first[i] && last >= g->first[i] && last < g->last[i]) ||
            (first > g->first[i] && first <= g->last[i] && last > g->last[i])) {
            return true;
        }
    }
    return false;
}

static int by_place(const void *a, const void *b)
{
    gpn_mention x, y;

    memset(&x, 0, sizeof x);
    memset(&y, 0, sizeof y);
    x.e = *(const gptner_entity *)a;
    y.e = *(const gptner_entity *)b;
    return gpn_mention_order(&x, &y);
}

static void add_entity(gold *g, size_t first, size_t last)
{
    gptner_entity *e = &g->entities[g->count];
    size_t i;

    memset(e, 0, sizeof *e);
    e->bytes.begin = g->units[first].begin;
    e->bytes.end = g->units[last].end;
    e->label = label_items[below(3)].name;
    for (i = 0; i < g->count; i++) {
        if (g->entities[i].bytes.begin == e->bytes.begin &&
            g->entities[i].bytes.end == e->bytes.end) {
            return;
        }
    }
    g->first[g->count] = first;
    g->last[g->count++] = last;
}

static void make_gold(gold *g, bool crossing, size_t vocabulary_size)
{
    size_t i, tries;

    memset(g, 0, sizeof *g);
    g->n = 3 + below(UNITS_MAX - 3);
    for (i = 0; i < g->n; i++) {
        const char *word = vocabulary[below(vocabulary_size)];
        unit *u = &g->units[i];

        strcpy(u->text, word);
        u->begin = g->len;
        memcpy(g->text + g->len, word, strlen(word));
        g->len += strlen(word);
        u->end = g->len;
        if ((unsigned char)word[0] < 0xe0 || below(4) == 0) {
            g->text[g->len++] = below(12) == 0 ? '\n' : ' ';
        }
    }
    for (tries = below(8); tries > 0; tries--) {
        size_t first = below(g->n), last = first + below(3);

        last = last < g->n ? last : g->n - 1;
        if (crossing || !crosses(g, first, last)) {
            add_entity(g, first, last);
        }
    }
    /* first and last are not needed in order by those who need the order */
    if (crossing) {
        qsort(g->entities, g->count, sizeof g->entities[0], by_place);
    }
    g->doc.text = gpn_str(g->text, g->len);
    g->doc.entities = g->entities;
    g->doc.n_entities = g->count;
}

static bool has_entity(const gptner_doc *doc, const gptner_entity *e)
{
    size_t i;

    for (i = 0; i < doc->n_entities; i++) {
        if (doc->entities[i].bytes.begin == e->bytes.begin &&
            doc->entities[i].bytes.end == e->bytes.end &&
            gpn_str_eq(doc->entities[i].label, e->label)) {
            return true;
        }
    }
    return false;
}

/* Whether a gold entity with the label is there, at least in part: of one whose
 * words or marks were dropped, that is right. */
static bool overlaps_entity(const gptner_doc *doc, const gptner_entity *e)
{
    size_t i;

    for (i = 0; i < doc->n_entities; i++) {
        if (doc->entities[i].bytes.begin < e->bytes.end &&
            doc->entities[i].bytes.end > e->bytes.begin &&
            gpn_str_eq(doc->entities[i].label, e->label)) {
            return true;
        }
    }
    return false;
}

static void perfect_answers_give_every_entity_exactly(void **state)
{
    static gold g;
    size_t round, i;
    int strategy;

    (void)state;
    rng = 1;
    for (round = 0; round < 6000; round++) {
        make_gold(&g, true, round % 2 == 0 ? TEST_COUNT(vocabulary) : 12);
        for (strategy = 0; strategy < 3; strategy++) {
            gptner_answer_config cfg = config_of((gptner_strategy)strategy,
                                                 g.doc.text, gpn_str("", 0));
            gptner_text *answer;
            gptner_doc *doc;
            size_t expected = 0;

            gptner_markers_choose(&g.doc.text, 1, &cfg.markers);
            assert_int_equal(gptner_answer_write(&cfg, &g.doc, &answer, NULL),
                             GPTNER_OK);
            cfg.answer = answer->text;
            doc = read_answer(&cfg);
            for (i = 0; i < g.count; i++) {
                if (strategy == GPTNER_STRATEGY_MARKER &&
                    !gpn_str_eq(g.entities[i].label, label_items[0].name)) {
                    continue;
                }
                expected++;
                if (!has_entity(doc, &g.entities[i])) {
                    char text[4096];

                    printf("%s\n%s\nmissing %zu: %.*s\n%s\n", g.text,
                           answer->text.ptr, g.entities[i].bytes.begin,
                           (int)(g.entities[i].bytes.end -
                                 g.entities[i].bytes.begin),
                           g.text + g.entities[i].bytes.begin,
                           doc_text(doc, text, sizeof text));
                    fail();
                }
            }
            assert_int_equal(doc->n_entities, expected);
            assert_int_equal(doc->n_lost, 0);
            assert_int_equal(doc->status, GPTNER_OK);
            for (i = 0; i < doc->n_entities; i++) {
                assert_int_equal(doc->entities[i].match, GPTNER_MATCH_EXACT);
            }
            gptner_doc_free(doc);
            gptner_text_free(answer);
        }
    }
}

/* ---- damage ---- */

typedef struct damage {
    bool open_lost[16], close_lost[16], cut[16];
    const char *preamble, *ending;
    bool twice;
    size_t cut_at; /* units */
    char inserted[UNITS_MAX + 1][16];
    bool joined[UNITS_MAX];
} damage;

enum { DAMAGE_KINDS = 14 };

static void damage_unit(gold *g, damage *d, size_t kind)
{
    size_t i = below(g->n), k;
    unit *u = &g->units[i];
    char *p;

    switch (kind) {
    case 0:
        u->dropped = true;
        break;
    case 1:
        strcpy(d->inserted[i], vocabulary[below(20)]);
        break;
    case 2: /* re-case */
        for (p = u->text; *p != '\0'; p++) {
            *p = (char)(*p >= 'a' && *p <= 'z'   ? *p - 32
                        : *p >= 'A' && *p <= 'Z' ? *p + 32
                                                 : *p);
        }
        break;
    case 3:
        strcpy(d->inserted[i], below(2) == 0 ? "\n" : "   ");
        break;
    case 4: /* escape */
        if (strcmp(u->text, "\"") == 0) {
            strcpy(u->text, below(2) == 0 ? "\\\"" : "&quot;");
        } else if (strcmp(u->text, "AT&T") == 0) {
            strcpy(u->text, "AT&amp;T");
        }
        break;
    case 5: /* another word */
        strcpy(u->text, vocabulary[below(TEST_COUNT(vocabulary))]);
        u->changed = true;
        break;
    case 6: /* another letter */
        k = strlen(u->text);
        if (k >= 5 && (u->text[2] & 0x80) == 0) {
            u->text[2] = 'x';
            u->changed = true;
        }
        break;
    case 7: /* quotes, dashes */
        if (strcmp(u->text, "\"") == 0) {
            strcpy(u->text, "\xe2\x80\x9c");
        } else if ((p = strchr(u->text, '-')) != NULL) {
            memmove(p + 3, p + 1, strlen(p + 1) + 1);
            memcpy(p, "\xe2\x80\x93", 3);
        } else if ((p = strchr(u->text, '\'')) != NULL) {
            memmove(p + 3, p + 1, strlen(p + 1) + 1);
            memcpy(p, "\xe2\x80\x99", 3);
        }
        break;
    case 8:
        d->close_lost[below(16)] = true;
        break;
    case 9:
        d->open_lost[below(16)] = true;
        break;
    case 10:
        d->preamble = "Sure! Here is the text with the entities marked:\n";
        break;
    case 11:
        d->preamble = "```text\n";
        d->ending = "\n```";
        break;
    case 12:
        d->twice = true;
        break;
    default:
        d->cut_at = g->n / 2 + below(g->n / 2 + 1);
        break;
    }
}

/* Marks at the start (end) of a unit: outer entities first (last). */
static void put_marks(const gold *g, const damage *d, const gptner_markers *mk,
                      size_t i, bool open, gpn_buf *out)
{
    size_t len, k;

    for (len = 0; len <= 3; len++) {
        size_t units = open ? 3 - len : len;

        for (k = 0; k < g->count; k++) {
            if (g->last[k] - g->first[k] != units ||
                (open ? g->first[k] : g->last[k]) != i) {
                continue;
            }
            if (open && !d->open_lost[k]) {
                gpn_buf_add_s(out, mk->open);
                gpn_buf_add_str(out, g->entities[k].label);
                gpn_buf_add_c(out, '|');
            } else if (!open && !d->close_lost[k]) {
                gpn_buf_add_s(out, mk->close);
            }
        }
    }
}

static void put_answer(const gold *g, const damage *d, const gptner_markers *mk,
                       gpn_buf *out)
{
    int copy;
    size_t i;

    gpn_buf_add_s(out, d->preamble);
    for (copy = 0; copy <= (d->twice ? 1 : 0); copy++) {
        for (i = 0; i < g->n && i < d->cut_at; i++) {
            const unit *u = &g->units[i];
            size_t next = i + 1 < g->n ? g->units[i + 1].begin : g->len;

            gpn_buf_add_s(out, d->inserted[i]);
            if (d->inserted[i][0] > ' ') {
                gpn_buf_add_c(out, ' ');
            }
            put_marks(g, d, mk, i, true, out);
            if (!u->dropped) {
                gpn_buf_add_s(out, u->text);
            }
            put_marks(g, d, mk, i, false, out);
            gpn_buf_add(out, g->text + u->end, next - u->end);
        }
        gpn_buf_add_c(out, '\n');
    }
    gpn_buf_add_s(out, d->ending);
}

/* Whether an answer has all of an entity and both its marks, and no others
 * that were lost. */
static bool survives(const gold *g, const damage *d, size_t k)
{
    size_t i;

    if (d->open_lost[k] || d->close_lost[k] || g->last[k] >= d->cut_at) {
        return false;
    }
    for (i = g->first[k]; i <= g->last[k]; i++) {
        if (g->units[i].dropped || g->units[i].changed ||
            (i > g->first[k] && d->inserted[i][0] > ' ')) {
            return false;
        }
    }
    return true;
}

static void damaged_answers_give_what_survives(void **state)
{
    static gold g;
    static damage d;
    size_t round, i, edits, alive = 0, found = 0, exact = 0, wrong = 0;
    gpn_env env;
    gpn_buf out;

    (void)state;
    rng = 7;
    gpn_env_init(&env, NULL, NULL);
    gpn_buf_init(&out, &env, 1u << 20);
    for (round = 0; round < 40000; round++) {
        gptner_answer_config cfg;
        gptner_doc *doc;
        size_t kind = below(DAMAGE_KINDS);

        make_gold(&g, false, TEST_COUNT(vocabulary));
        cfg = config_of(GPTNER_STRATEGY_MARKER_ALL, g.doc.text, g.doc.text);
        gptner_markers_choose(&g.doc.text, 1, &cfg.markers);
        memset(&d, 0, sizeof d);
        d.preamble = d.ending = "";
        d.cut_at = SIZE_MAX;
        for (edits = below(4); edits > 0; edits--) {
            damage_unit(&g, &d, round % 2 == 0 ? kind : below(DAMAGE_KINDS));
        }
        gpn_buf_clear(&out);
        put_answer(&g, &d, &cfg.markers, &out);
        cfg.answer = gpn_str(out.data, out.len);
        doc = read_answer(&cfg);
        for (i = 0; i < g.count; i++) {
            bool good = has_entity(doc, &g.entities[i]);

            if (survives(&g, &d, i)) {
                alive++;
                found += good;
                if (!good && getenv("SHOW") != NULL) {
                    char text[4096];

                    printf("--- %s\n%.*s\nmissing %zu: %.*s\n%s\n", g.text,
                           (int)out.len, out.data, g.entities[i].bytes.begin,
                           (int)(g.entities[i].bytes.end -
                                 g.entities[i].bytes.begin),
                           g.text + g.entities[i].bytes.begin,
                           doc_text(doc, text, sizeof text));
                }
            }
        }
        for (i = 0; i < doc->n_entities; i++) {
            if (doc->entities[i].match == GPTNER_MATCH_EXACT) {
                bool right = overlaps_entity(&g.doc, &doc->entities[i]);

                exact++;
                wrong += !right;
                if (!right && getenv("SHOW") != NULL) {
                    char text[4096];

                    printf("=== %s\n%.*s\nwrong: %zu %.*s\n%s\n", g.text,
                           (int)out.len, out.data, doc->entities[i].bytes.begin,
                           (int)doc->entities[i].text.len,
                           doc->entities[i].text.ptr,
                           doc_text(doc, text, sizeof text));
                }
            }
        }
        gptner_doc_free(doc);
    }
    gpn_buf_deinit(&out);
    printf("marks: surviving %zu, found %zu (%.3f %%); exact %zu, wrong %zu\n",
           alive, found, 100.0 * (double)found / (double)alive, exact, wrong);
    assert_true(found * 1000 >= alive * 980);
    assert_true(wrong * 1000 <= exact); /* a word rewritten to another one */
}

/* ---- JSON, damaged ---- */

/* One entity as an offer, damaged in some way; what is left of it can still be
 * found. */
static void put_offer(gptner_json_writer *w, const gold *g,
                      const gptner_entity *e, size_t kind)
{
    char text[256], before[256];
    size_t at = gpn_offer_context(g->doc.text, e), n, i;

    n = e->bytes.end - e->bytes.begin;
    memcpy(text, g->text + e->bytes.begin, n);
    for (i = 0; i < n && kind == 1; i++) {
        text[i] = (char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 32
                         : text[i] == '\n'                ? ' '
                                                          : text[i]);
    }
    snprintf(before, sizeof before, "%.*s", (int)(e->bytes.begin - at),
             g->text + at);
    for (i = 0; before[i] != '\0' && kind == 2; i++) {
        before[i] = before[i] == '\n' ? ' ' : before[i];
    }
    gptner_json_write_object(w);
    gptner_json_put_string(w, kind == 3 ? "left" : "before", before);
    gptner_json_put_str(w, kind == 4 ? "Mention" : "text", gpn_str(text, n));
    gptner_json_put_string(w, kind == 4 ? "entity" : "label",
                           kind == 5 ? "Person" : (const char *)e->label.ptr);
    gptner_json_write_end(w);
}

static void damaged_json_gives_what_survives(void **state)
{
    static gold g;
    size_t round, i, alive = 0, found = 0, wrong = 0;
    gpn_env env;
    gpn_buf out;

    (void)state;
    rng = 3;
    gpn_env_init(&env, NULL, NULL);
    gpn_buf_init(&out, &env, 1u << 20);
    for (round = 0; round < 10000; round++) {
        gptner_answer_config cfg;
        gptner_json_writer w;
        gptner_doc *doc;
        size_t kind = below(6), cut = 0;

        make_gold(&g, true, TEST_COUNT(vocabulary));
        for (i = 0; kind == 5 && i < g.count; i++) {
            g.entities[i].label = label_items[0].name;
        }
        gpn_buf_clear(&out);
        gpn_buf_add_s(&out, below(2) == 0 ? "Here {it} is:\n```json\n" : "");
        gpn_json_writer_init(&w, &out);
        gptner_json_write_array(&w);
        for (i = 0; i < g.count; i++) {
            put_offer(&w, &g, &g.entities[i], kind);
            cut = out.len;
        }
        gptner_json_write_end(&w);
        assert_int_equal(gptner_json_writer_finish(&w, NULL), GPTNER_OK);
        if (below(4) == 0 && cut > 0) {
            out.len = cut; /* no closing bracket */
        } else {
            gpn_buf_add_s(&out, "\n```\n");
        }
        cfg = config_of(GPTNER_STRATEGY_JSON, g.doc.text,
                        gpn_str(out.data, out.len));
        doc = read_answer(&cfg);
        for (i = 0; i < g.count; i++) {
            alive++;
            found += has_entity(doc, &g.entities[i]);
        }
        for (i = 0; i < doc->n_entities; i++) {
            wrong += doc->entities[i].match == GPTNER_MATCH_EXACT &&
                     !has_entity(&g.doc, &doc->entities[i]);
        }
        gptner_doc_free(doc);
    }
    gpn_buf_deinit(&out);
    printf("JSON: surviving %zu, found %zu (%.3f %%), wrong %zu\n", alive,
           found, 100.0 * (double)found / (double)alive, wrong);
    assert_true(found * 1000 >= alive * 980);
}

/* ---- the rest ---- */

static void markers_do_not_occur_in_the_text(void **state)
{
    gptner_str texts[2];
    gptner_markers mk;
    char all[4096];
    size_t n = 0;
    uint32_t cp;

    (void)state;
    texts[0] = gpn_str_c("plain");
    texts[1] = gpn_str(NULL, 0);
    assert_true(gptner_markers_choose(texts, 2, &mk));
    assert_string_equal(mk.open, "@@");
    assert_string_equal(mk.close, "##");
    assert_true(gptner_markers_choose(NULL, 0, &mk));
    assert_string_equal(mk.open, "@@");
    texts[1] = gpn_str_c("mail me@example.org");
    assert_true(gptner_markers_choose(texts, 2, &mk));
    assert_string_equal(mk.open, "<<");
    texts[0] = gpn_str_c("#<[{\xe2\x9f\xa7\xe2\x9f\xaa\xe2\x94\x81");
    assert_true(gptner_markers_choose(texts, 2, &mk));
    assert_string_equal(mk.open, "\xe2\x94\x80");
    assert_string_equal(mk.close, "\xe2\x94\x82");
    memcpy(all, "#<[{", 4);
    for (n = 4, cp = 0x2500; cp < 0x2800; cp++) {
        n += gpn_utf8_put(cp, all + n);
    }
    texts[0] = gpn_str(all, n);
    assert_false(gptner_markers_choose(texts, 2, &mk));
    assert_string_equal(mk.close, "##");
}

static void text_with_the_markers_in_it_is_read_back(void **state)
{
    static const char source[] = "#1 @home: C# and <<x>> [[y]] ##";
    gptner_answer_config cfg =
        config_of(GPTNER_STRATEGY_MARKER_ALL, gpn_str_c(source), gpn_str_c(""));
    gptner_doc *doc;
    char text[256];

    (void)state;
    assert_true(gptner_markers_choose(&cfg.source, 1, &cfg.markers));
    assert_string_equal(cfg.markers.open, "{{");
    cfg.answer = gpn_str_c("{{ORG|#1}} {{LOC|@home}}: {{PER|C#}} and "
                           "<<{{PER|x}}>> [[y]] {{LOC|##}}");
    doc = read_answer(&cfg);
    assert_string_equal(doc_text(doc, text, sizeof text),
                        "ORG[0]#1 LOC[3]@home PER[10]C# PER[19]x LOC[29]##");
    gptner_doc_free(doc);
}

static void the_schema_is_strict(void **state)
{
    gptner_json_doc *json;
    const gptner_json_value *item;
    gptner_text *text;

    (void)state;
    assert_int_equal(gptner_answer_schema(&three, NULL, &text, NULL),
                     GPTNER_OK);
    assert_int_equal(
        gptner_json_parse(text->text.ptr, text->text.len, NULL, &json, NULL),
        GPTNER_OK);
    item =
        gptner_json_path(gptner_json_root(json), "properties.entities.items");
    assert_int_equal(gptner_json_size(gptner_json_find(item, "required")), 3);
    assert_int_equal(gptner_json_size(gptner_json_find(item, "properties")), 3);
    assert_int_equal(
        gptner_json_size(gptner_json_path(item, "properties.label.enum")), 3);
    gptner_json_doc_free(json);
    gptner_text_free(text);
    assert_int_equal(gptner_answer_schema(NULL, NULL, &text, NULL), GPTNER_OK);
    assert_true(gpn_str_find(text->text, "enum") == SIZE_MAX);
    gptner_text_free(text);
}

static void wrong_arguments_are_refused(void **state)
{
    gptner_answer_config cfg =
        config_of(GPTNER_STRATEGY_JSON, gpn_str(NULL, 0), gpn_str(NULL, 0));
    gptner_allocator half;
    gptner_doc *doc;
    gptner_text *text;

    (void)state;
    assert_int_equal(gptner_answer_read(NULL, &doc, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_answer_read(&cfg, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_answer_write(&cfg, NULL, &text, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    gptner_doc_free(read_answer(&cfg));
    cfg.answer.len = GPN_ANSWER_MAX + 1;
    cfg.answer.ptr = "";
    assert_int_equal(gptner_answer_read(&cfg, &doc, NULL), GPTNER_ERR_LIMIT);
    assert_null(doc);
    memset(&half, 0, sizeof half);
    half.alloc_fn = test_mem_alloc;
    cfg.allocator = &half;
    assert_int_equal(gptner_answer_read(&cfg, &doc, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    gptner_doc_free(NULL);
    gptner_text_free(NULL);
}

/* Quick, aligned, twice, with long entities; JSON with escapes. */
static const struct {
    gptner_strategy strategy;
    const char *answer;
} failing[] = {
    {GPTNER_STRATEGY_MARKER_ALL,
     "@@PER|Columbus## sailed from @@LOC|Spain##. In @@LOC|Cuba## "
     "@@PER|Columbus## met @@PER|O'Hara##."},
    {GPTNER_STRATEGY_MARKER_ALL,
     "@@PER|Collumbus## sailed @@LOC|Spain##. @@DOG|x## @@PER|columbus met"},
    {GPTNER_STRATEGY_JSON,
     "{\"entities\":[{\"text\":\"O\\u0027Hara\",\"label\":\"PER\"},{\"text\":"
     "\"Collumbus\",\"label\":\"PER\"},{\"text\":\"Y\",\"label\":\"PER\"}]}"},
};

static void every_allocation_may_fail(void **state)
{
    size_t i;
    int n;

    (void)state;
    for (i = 0; i < TEST_COUNT(failing); i++) {
        gptner_status status = GPTNER_ERR_NO_MEMORY;
        test_mem mem;
        gptner_allocator allocator;
        gptner_answer_config cfg =
            config_of(failing[i].strategy, gpn_str_c(SAILED),
                      gpn_str_c(failing[i].answer));

        memset(&mem, 0, sizeof mem);
        allocator = test_mem_allocator(&mem);
        cfg.allocator = &allocator;
        for (n = 1; status != GPTNER_OK; n++) {
            gptner_doc *doc, *copy;
            gptner_text *text = NULL;

            test_fault_set(GPN_FAULT_ALLOC, n, false);
            status = gptner_answer_read(&cfg, &doc, NULL);
            if (status == GPTNER_OK) {
                check_doc(&cfg, doc);
                copy = doc;
                status = gptner_answer_write(&cfg, copy, &text, NULL);
            }
            assert_true(status == GPTNER_OK || status == GPTNER_ERR_NO_MEMORY);
            gptner_doc_free(doc);
            gptner_text_free(text);
            assert_int_equal(mem.blocks, 0);
            assert_true(n < 200);
        }
        test_fault_clear();
    }
}

static void texts_end_where_they_end(void **state)
{
    test_page source, answer;
    size_t i, len;

    (void)state;
    test_page_init(&source, 4096);
    test_page_init(&answer, 4096);
    for (i = 0; i < TEST_COUNT(failing); i++) {
        for (len = strlen(failing[i].answer); len > 0; len--) {
            gptner_answer_config cfg = config_of(
                failing[i].strategy,
                gpn_str(test_page_put(&source, SAILED, strlen(SAILED)),
                        strlen(SAILED)),
                gpn_str(test_page_put(&answer, failing[i].answer, len), len));

            gptner_doc_free(read_answer(&cfg));
            cfg.answer = gpn_str_c(SAILED);
            cfg.source =
                gpn_str(test_page_put(&source, failing[i].answer, len), len);
            gptner_doc_free(read_answer(&cfg));
        }
    }
    test_page_deinit(&source);
    test_page_deinit(&answer);
}

static void long_and_hostile_answers_end(void **state)
{
    static const struct {
        gptner_strategy strategy;
        const char *source, *answer;
    } cases[] = {
        {GPTNER_STRATEGY_MARKER_ALL, "a b c a b ", "b @@PER|a a## "},
        {GPTNER_STRATEGY_MARKER_ALL, "a b c d e ", "f g @@PER|h## "},
        {GPTNER_STRATEGY_MARKER_ALL, "a b ", "@@PER|a "},
        {GPTNER_STRATEGY_MARKER_ALL, "A B ", "@@PER|A "},
        {GPTNER_STRATEGY_MARKER_ALL, "A B ", "@@PER|X "},
        {GPTNER_STRATEGY_MARKER_ALL, "a b ", "## "},
        {GPTNER_STRATEGY_MARKER_ALL, "a        ", "@@PER|@@DOG|"},
        {GPTNER_STRATEGY_MARKER_ALL, "a\xcc\x80", "@@PER|\xcc\x80##"},
        {GPTNER_STRATEGY_MARKER, "\xcc\x80", "@@\xcc\x80##\xcc\x80"},
        {GPTNER_STRATEGY_JSON, "a b ",
         "[{\"text\":\"a b\",\"label\":\"PER\"}]"},
        {GPTNER_STRATEGY_JSON, "ax bx ",
         "{\"text\":\"axbxx\",\"label\":\"PER\"}"},
        {GPTNER_STRATEGY_JSON, "a b ", "[{\"a\":"},
        {GPTNER_STRATEGY_JSON, "a b ", "[\""},
    };
    size_t i, k;

    (void)state;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        enum { SIZE = 20000 };
        static char source[SIZE + 64], answer[SIZE + 64];
        size_t n = strlen(cases[i].source), m = strlen(cases[i].answer);
        gptner_answer_config cfg;

        for (k = 0; k < SIZE; k += n) {
            memcpy(source + k, cases[i].source, n);
        }
        cfg = config_of(cases[i].strategy, gpn_str(source, k), gpn_str("", 0));
        for (k = 0; k < SIZE; k += m) {
            memcpy(answer + k, cases[i].answer, m);
        }
        cfg.answer = gpn_str(answer, k);
        gptner_doc_free(read_answer(&cfg));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marked_answers_are_aligned),
        cmocka_unit_test(typed_answers_are_aligned),
        cmocka_unit_test(json_answers_are_aligned),
        cmocka_unit_test(perfect_answers_give_every_entity_exactly),
        cmocka_unit_test(damaged_answers_give_what_survives),
        cmocka_unit_test(damaged_json_gives_what_survives),
        cmocka_unit_test(markers_do_not_occur_in_the_text),
        cmocka_unit_test(text_with_the_markers_in_it_is_read_back),
        cmocka_unit_test(the_schema_is_strict),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(texts_end_where_they_end),
        cmocka_unit_test(long_and_hostile_answers_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
