/* Fuzzes >>ner, reading answers. A file: one byte (strategy in the low two
 * bits; 4: no labels; 8: chosen markers; 16: what was read is written and read
 * again), then the source, a NUL, and the answer. The oracle: every offset is
 * in the source, on a character's border, in all three counts; what is exact is
 * what the model wrote; nothing is there twice; what is written reads back.
 *
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -DFUZZER -I. \
 *   tests/fuzz/fuzz_ner_answer.c -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
 * Without FUZZER it replays the files that it is given. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool right, const char *what)
{
    if (!right) {
        fprintf(stderr, "fuzz_ner_answer: %s\n", what);
        abort();
    }
}

static void count_units(gptner_str s, size_t to, gptner_span *points,
                        gptner_span *utf16, bool end)
{
    size_t at = 0, p = 0, u = 0;

    while (at < to) {
        uint32_t cp;
        size_t n = gpn_utf8_get(s.ptr + at, s.len - at, &cp);

        at += n > 0 ? n : 1;
        p++;
        u += n == 4 ? 2 : 1;
    }
    check(at == to, "an offset is inside a character");
    check(p == (end ? points->end : points->begin), "code points");
    check(u == (end ? utf16->end : utf16->begin), "UTF-16 units");
}

static void check_doc(const gptner_doc *doc)
{
    size_t i;

    for (i = 0; i < doc->n_entities; i++) {
        gptner_entity e = doc->entities[i];

        check(e.bytes.begin < e.bytes.end && e.bytes.end <= doc->text.len,
              "an offset is outside");
        count_units(doc->text, e.bytes.begin, &e.code_points, &e.utf16, false);
        count_units(doc->text, e.bytes.end, &e.code_points, &e.utf16, true);
        check(e.text.ptr == doc->text.ptr + e.bytes.begin &&
                  e.text.len == e.bytes.end - e.bytes.begin,
              "text is not what is there");
        check(e.match != GPTNER_MATCH_LOST, "an entity is lost");
        check(e.match != GPTNER_MATCH_EXACT || e.said.ptr == NULL,
              "an exact one differs");
        check(i == 0 || !gpn_mention_same(&doc->entities[i - 1], &e),
              "an entity is there twice");
    }
    for (i = 0; i < doc->n_lost; i++) {
        check(doc->lost[i].match == GPTNER_MATCH_LOST &&
                  doc->lost[i].said.ptr != NULL,
              "what is lost does not say what");
    }
}

static gptner_doc *read_answer(const gptner_answer_config *cfg)
{
    gptner_doc *doc;

    check(gptner_answer_read(cfg, &doc, NULL) == GPTNER_OK, "not read");
    check(gpn_str_eq(doc->text, cfg->source), "another text");
    check_doc(doc);
    return doc;
}

/* What was read, written as a perfect answer, reads back the same. */
static void check_again(gptner_answer_config cfg, const gptner_doc *doc)
{
    gptner_text *text;
    gptner_doc *again;
    size_t i;

    if (!gptner_markers_choose(&cfg.source, 1, &cfg.markers)) {
        return;
    }
    for (i = 0; i < doc->n_entities; i++) {
        gptner_str name = doc->entities[i].label;

        if (name.len == 0 || name.len > 60 || memchr(name.ptr, '|', name.len) ||
            memchr(name.ptr, '\n', name.len) || name.ptr[0] <= ' ' ||
            name.ptr[name.len - 1] <= ' ' ||
            gpn_seek(name.ptr, name.ptr + name.len,
                     gpn_str(cfg.markers.open, 1)) < name.ptr + name.len ||
            gpn_seek(name.ptr, name.ptr + name.len,
                     gpn_str(cfg.markers.close, 1)) < name.ptr + name.len) {
            return;
        }
    }
    cfg.strategy = GPTNER_STRATEGY_MARKER_ALL;
    check(gptner_answer_write(&cfg, doc, &text, NULL) == GPTNER_OK,
          "unwritten");
    cfg.answer = text->text;
    again = read_answer(&cfg);
    check(again->n_lost == 0 && again->n_entities == doc->n_entities,
          "the round trip lost some");
    for (i = 0; i < doc->n_entities; i++) {
        check(gpn_mention_same(&again->entities[i], &doc->entities[i]),
              "the round trip changed one");
    }
    gptner_doc_free(again);
    gptner_text_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const gptner_label items[] = {
        {{"PER", 3}, {"person", 6}, {NULL, 0}, NULL, 0},
        {{"LOC", 3}, {"location", 8}, {NULL, 0}, NULL, 0}};
    static const gptner_labels labels = {{"two", 3}, items, 2, true};
    gptner_answer_config cfg;
    gptner_doc *doc;
    const char *text = (const char *)data, *stop;

    if (size < 2 ||
        (stop = (const char *)memchr(text + 1, '\0', size - 1)) == NULL) {
        return 0;
    }
    memset(&cfg, 0, sizeof cfg);
    cfg.strategy = (gptner_strategy)((data[0] & 3) % 3);
    cfg.labels = (data[0] & 4) != 0 ? NULL : &labels;
    cfg.source = gpn_str(text + 1, (size_t)(stop - text) - 1);
    cfg.answer = gpn_str(stop + 1, size - (size_t)(stop - text) - 1);
    if ((data[0] & 8) != 0) {
        gptner_markers_choose(&cfg.source, 1, &cfg.markers);
    }
    doc = read_answer(&cfg);
    if ((data[0] & 16) != 0) {
        check_again(cfg, doc);
    }
    gptner_doc_free(doc);
    return 0;
}

#ifndef FUZZER
int main(int argc, char **argv)
{
    int i;

    for (i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        static uint8_t data[1 << 20];
        size_t n;

        if (file == NULL) {
            perror(argv[i]);
            return 1;
        }
        n = fread(data, 1, sizeof data, file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, n);
    }
    printf("%d files\n", argc - 1);
    return 0;
}
#endif
