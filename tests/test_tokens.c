/* The estimate of tokens against counts of a real vocabulary, and what a
 * prompt weighs. tests/data/tokens.tsv holds texts and their tokens in o200k
 * (see tests/tokens/); none of them was used to find the prices. */
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

static int64_t estimate(const char *text)
{
    return gptner_tokens_estimate(gptner_str_from(text));
}

/* ---- against the reference ------------------------------------------------
 */

typedef struct kind {
    char name[12];
    int mean;  /* percent: mean error of a text of 50 tokens and more, at most;
                  gptner_tokens_estimate() has what was measured */
    int total; /* of all texts of the kind together */
    int texts;
    int long_texts;
    double errors;
    int64_t actual;
    int64_t estimated;
} kind;

static kind kinds[] = {
    {"english", 3, 2, 0, 0, 0, 0, 0},  {"c", 3, 3, 0, 0, 0, 0, 0},
    {"python", 4, 3, 0, 0, 0, 0, 0},   {"json", 7, 6, 0, 0, 0, 0, 0},
    {"chinese", 8, 5, 0, 0, 0, 0, 0},  {"thai", 7, 2, 0, 0, 0, 0, 0},
    {"mixed", 4, 2, 0, 0, 0, 0, 0},    {"ner", 6, 5, 0, 0, 0, 0, 0},
    {"russian", 9, 5, 0, 0, 0, 0, 0},  {"arabic", 6, 3, 0, 0, 0, 0, 0},
    {"japanese", 8, 3, 0, 0, 0, 0, 0}, {"korean", 9, 3, 0, 0, 0, 0, 0},
    {"hindi", 9, 4, 0, 0, 0, 0, 0},    {"german", 6, 4, 0, 0, 0, 0, 0},
    {"french", 4, 3, 0, 0, 0, 0, 0},   {"spanish", 4, 3, 0, 0, 0, 0, 0},
};

/* Undo \\ \n \r \t where the text lies. */
static size_t unescape(char *text)
{
    char *to = text;
    const char *from;
    for (from = text; *from != '\0'; from++) {
        if (*from == '\\' && from[1] != '\0') {
            from++;
            *to++ = (char)(*from == 'n'   ? '\n'
                           : *from == 'r' ? '\r'
                           : *from == 't' ? '\t'
                                          : *from);
        } else {
            *to++ = *from;
        }
    }
    return (size_t)(to - text);
}

static void take_sample(const char *name, int64_t actual, gptner_str text)
{
    int64_t n = gptner_tokens_estimate(text);
    size_t i;
    for (i = 0; i < GPN_COUNT(kinds); i++) {
        kind *k = &kinds[i];
        if (strcmp(k->name, name) != 0) {
            continue;
        }
        k->texts++;
        k->actual += actual;
        k->estimated += n;
        if (actual >= 50) {
            k->long_texts++;
            k->errors +=
                (double)(n > actual ? n - actual : actual - n) / (double)actual;
        }
        return;
    }
    fail_msg("tokens.tsv: a text of kind \"%s\"", name);
}

static void read_samples(void)
{
    size_t len;
    char *data = test_slurp("tests/data/tokens.tsv", &len);
    char *line, *next;
    assert_non_null(data);
    for (line = data; *line != '\0'; line = next) {
        char *count = strchr(line, '\t');
        char *text = count != NULL ? strchr(count + 1, '\t') : NULL;
        assert_non_null(text);
        *count = '\0';
        next = strchr(text + 1, '\n');
        assert_non_null(next);
        *next++ = '\0';
        take_sample(line, strtoll(count + 1, NULL, 10),
                    gpn_str(text + 1, unescape(text + 1)));
    }
    free(data);
}

static void every_kind_of_text_is_within_its_error(void **state)
{
    size_t i;
    int bad = 0;
    (void)state;
    read_samples();
    for (i = 0; i < GPN_COUNT(kinds); i++) {
        const kind *k = &kinds[i];
        double mean = 100.0 * k->errors / k->long_texts;
        double total =
            100.0 * (double)(k->estimated - k->actual) / (double)k->actual;
        print_message("%-9s %2d texts, %5lld tokens: mean error %.1f%%, "
                      "together %+.1f%%\n",
                      k->name, k->texts, (long long)k->actual, mean, total);
        bad += k->texts < (i < 8 ? 20 : 6) || mean > k->mean ||
               total > k->total || -total > k->total;
    }
    assert_int_equal(bad, 0);
}

/* ---- any bytes ------------------------------------------------------------
 */

static void what_the_tokenizer_cuts_is_exact(void **state)
{
    (void)state;
    assert_int_equal(estimate("12345678901"), 4); /* digits in threes */
    assert_int_equal(estimate(" 7"), 2);          /* no space in front */
    assert_int_equal(estimate("the"), 1);
    assert_int_equal(estimate(" the"), 1);
    assert_int_equal(estimate("the cat"), 2);
    assert_int_equal(estimate("            the"), 2); /* all spaces but one */
    assert_int_equal(estimate("the\n\n\nthe"), 3);
    assert_int_equal(estimate("don't"), 1);
    assert_int_equal(estimate("userName"), 2);
    assert_int_equal(estimate("----------------------------------------"), 2);
}

static void nothing_has_no_tokens_and_anything_has_one(void **state)
{
    gptner_str none = GPN_ZERO;
    char byte;
    int i;
    (void)state;
    assert_int_equal(gptner_tokens_estimate(none), 0);
    assert_int_equal(estimate(""), 0);
    for (i = 0; i < 256; i++) {
        byte = (char)i;
        assert_int_equal(gptner_tokens_estimate(gpn_str(&byte, 1)), 1);
    }
}

/* Bytes of all sorts, of one sort, and cut characters, flush against an
 * unmapped page at every alignment. */
static void any_bytes_give_one_token_to_one_a_byte(void **state)
{
    static const char *const sorts[] = {"aA",
                                        "aZ09 \n'",
                                        "\"{}[]:,",
                                        "\xe4\xb8\xad\xe3\x81\x82",
                                        "\xd0\xb1 ",
                                        "\xf0\x9f\x98\x80",
                                        "\xff\xfe\x80\xc3",
                                        "\0x",
                                        "\xc3\xa9"
                                        "e",
                                        " \t\r\n"};
    test_page page;
    uint64_t seed = 7;
    char data[64];
    int round;
    (void)state;
    test_page_init(&page, sizeof data);
    for (round = 0; round < 20000; round++) {
        const char *sort = sorts[round % (int)GPN_COUNT(sorts)];
        size_t len = (size_t)(round / 10) % sizeof data + 1, i;
        int64_t n;
        for (i = 0; i < len; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1;
            data[i] =
                round % 20 < 10 ? sort[(seed >> 33) % 2] : (char)(seed >> 40);
        }
        n = gptner_tokens_estimate(
            gpn_str(test_page_put(&page, data, len), len));
        if (n < 1 || n > (int64_t)len) {
            fail_msg("%d: %d bytes, %d tokens", round, (int)len, (int)n);
        }
        assert_int_equal(n, gptner_tokens_estimate(gpn_str(data, len)));
    }
    test_page_deinit(&page);
}

static void two_texts_together_have_about_the_tokens_of_both(void **state)
{
    size_t len, at;
    char *data = test_slurp("tests/data/tokens.tsv", &len);
    int64_t both, apart;
    (void)state;
    assert_non_null(data);
    for (at = 1000; at + 1000 < len; at += 997) {
        const char *from = data + at - 1000;
        apart = gptner_tokens_estimate(gpn_str(from, 1000)) +
                gptner_tokens_estimate(gpn_str(from + 1000, 1000));
        both = gptner_tokens_estimate(
            gpn_str(from, 2000 < len - (at - 1000) ? 2000 : len - (at - 1000)));
        if (both > apart + apart / 20 + 3 || both < apart - apart / 20 - 3) {
            fail_msg("at %d: %d together, %d apart", (int)at, (int)both,
                     (int)apart);
        }
    }
    free(data);
}

/* Time is not measured: what a byte costs does not depend on what stands
 * before it, so twice the run is twice the tokens. */
static void long_runs_grow_in_proportion(void **state)
{
    static const char *const pieces[] = {
        "a",  "A",  "7",   "-", "\xe4\xb8\xad", "\xd0\xb1", "\xf0\x9f\x98\x80",
        "x ", "\n", "\xff"};
    size_t n = 1 << 20, i, k;
    char *text = (char *)malloc(n);
    (void)state;
    assert_non_null(text);
    for (i = 0; i < GPN_COUNT(pieces); i++) {
        size_t len = strlen(pieces[i]);
        size_t whole = n / len * len;
        int64_t all, half;
        for (k = 0; k < whole; k++) {
            text[k] = pieces[i][k % len];
        }
        all = gptner_tokens_estimate(gpn_str(text, whole));
        half = gptner_tokens_estimate(gpn_str(text, whole / len / 2 * len));
        assert_true(all >= 2 * half - 100 && all <= 2 * half + 100);
    }
    free(text);
}

/* ---- what a prompt weighs -------------------------------------------------
 */

typedef struct scene {
    gptner_config cfg;
    gptner_options o;
    gptner_prompt p;
    gptner_client *client;
    gpn_weight w;
} scene;

static void scene_weigh(scene *s)
{
    gptner_error err;
    if (s->client == NULL) {
        s->cfg.api_key = "sk-test-0123456789";
        s->cfg.base_url = "http://127.0.0.1:9/v1";
        if (gptner_client_new(&s->cfg, &s->client, &err) != GPTNER_OK) {
            fail_msg("client: %s", err.message);
        }
    }
    gpn_prompt_weigh(s->client, &s->p, &s->o, &s->w);
    assert_true(s->w.prompt_max == -1 || s->w.prompt_max >= s->w.prompt);
}

static void scene_end(scene *s)
{
    gptner_client_free(s->client);
    memset(s, 0, sizeof *s);
}

static void every_message_weighs_its_text_and_four(void **state)
{
    gptner_message turns[3] = {{{NULL, 0}, {NULL, 0}, {NULL, 0}}};
    scene s = GPN_ZERO;
    int64_t text = estimate("What is the capital of France?");
    (void)state;
    s.p.text = gptner_str_from("What is the capital of France?");
    scene_weigh(&s);
    assert_int_equal(text, 7);
    assert_int_equal(s.w.prompt, text + 4 + 3);
    assert_int_equal(s.w.counted, s.w.prompt);
    assert_true(s.w.prompt_max >= 30 && s.w.prompt_max < 200);
    assert_int_equal(s.w.completion_max, 512);
    s.p.system = gptner_str_from("Be brief.");
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, text + 4 + 3 + estimate("Be brief.") + 4);
    s.p.system = gptner_str_from("");
    turns[0].content = s.p.text;
    turns[1].json =
        gptner_str_from("{\"role\":\"assistant\",\"content\":\"the cat\"}");
    turns[2].json = gptner_str_from(
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
        "\"the\\ncat\"}],\"name\":\"the\"}");
    s.p.messages = turns;
    s.p.n_messages = 3;
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, text + 4 + 2 + 4 + 3 + 4 + 2 + 3);
    s.p.n_messages = 0;
    s.p.messages_json =
        gptner_str_from("[{\"role\":\"user\",\"content\":\"the cat\"}]");
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, 2 + 4 + 3);
    scene_end(&s);
}

static void the_systems_of_prompt_and_config_weigh_alike(void **state)
{
    scene s = GPN_ZERO;
    int64_t before;
    (void)state;
    s.cfg.system = "You label entities.";
    s.p.text = gptner_str_from("the cat");
    scene_weigh(&s);
    before = s.w.prompt;
    assert_int_equal(before, 2 + 4 + 3 + 4 + estimate(s.cfg.system));
    s.p.system = gptner_str_from("You label entities.");
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, before);
    scene_end(&s);
}

static void tools_and_schema_weigh_too(void **state)
{
    scene s = GPN_ZERO;
    int64_t bare;
    (void)state;
    s.p.text = gptner_str_from("the cat");
    scene_weigh(&s);
    bare = s.w.prompt;
    s.o.tools_json = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
    scene_weigh(&s);
    assert_true(s.w.prompt > bare + 8 && s.w.prompt < bare + 40);
    s.o.tools_json = NULL;
    s.o.format = GPTNER_FORMAT_JSON_SCHEMA;
    s.o.schema_json = "{\"type\":\"object\",\"properties\":{}}";
    scene_weigh(&s);
    assert_true(s.w.prompt > bare + 8 && s.w.prompt < bare + 40);
    scene_end(&s);
}

static void only_the_texts_of_a_completion_weigh(void **state)
{
    scene s = GPN_ZERO;
    (void)state;
    s.o.model = "gpt-3.5-turbo-instruct";
    s.p.text = gptner_str_from("the cat");
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, 2);
    memset(&s.p, 0, sizeof s.p);
    s.p.body_json = gptner_str_from("{\"prompt\":[\"the cat\",\"the\"],"
                                    "\"max_tokens\":10,\"best_of\":3}");
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, 3);
    assert_int_equal(s.w.completion_max, 2 * 3 * 10);
    s.p.body_json = gptner_str_from("{\"prompt\":[1,2,3,4],\"max_tokens\":9}");
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, 4);
    assert_int_equal(s.w.completion_max, 9);
    s.p.body_json = gptner_str_from("{\"input\":[[1,2],[3]]}");
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, 3);
    assert_int_equal(s.w.completion_max, 0);
    scene_end(&s);
}

typedef struct limit_case {
    int max_tokens, n;
    const char *extra;
    const char *body;
    int64_t most;
} limit_case;

static void the_answer_is_bounded_by_what_is_sent(void **state)
{
#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"the\"}]"
    static const limit_case cases[] = {
        {0, 0, NULL, NULL, 512},
        {100, 0, NULL, NULL, 100},
        {100, 4, NULL, NULL, 400},
        {GPTNER_OMIT, 4, NULL, NULL, -1},
        {0, 0, "{\"max_tokens\":77}", NULL, 77},
        {0, 5, "{\"max_completion_tokens\":77,\"n\":2}", NULL, 154},
        {0, 0, "{\"max_tokens\":null}", NULL, -1},
        {0, 0, "{\"top_k\":1}", NULL, 512},
        {100, 9, NULL, "{" ASK "}", -1},
        {100, 9, NULL, "{\"max_tokens\":5,\"n\":3," ASK "}", 15},
        {0, 0, NULL, "{\"max_completion_tokens\":6," ASK "}", 6},
        {0, 0, NULL, "{\"max_output_tokens\":6," ASK "}", 6},
        {0, 0, NULL, "{\"max_tokens\":7,\"max_completion_tokens\":6," ASK "}",
         7},
        {0, 0, NULL,
         "{\"max_tokens\":9223372036854775807,\"n\":9223372036854775807," ASK
         "}",
         GPN_WEIGH_CAP},
    };
    size_t i;
    (void)state;
    for (i = 0; i < GPN_COUNT(cases); i++) {
        const limit_case *c = &cases[i];
        scene s = GPN_ZERO;
        s.p.text = gptner_str_from("the cat");
        s.p.body_json = gptner_str_from(c->body);
        s.o.max_tokens = c->max_tokens;
        s.o.n = c->n;
        s.o.extra_body_json = c->extra;
        scene_weigh(&s);
        if (s.w.completion_max != c->most) {
            fail_msg("case %d: %lld", (int)i, (long long)s.w.completion_max);
        }
        if (c->body != NULL) {
            assert_int_equal(s.w.prompt, 1 + 4 + 3);
        }
        scene_end(&s);
    }
}

static void what_no_text_tells_has_no_bound(void **state)
{
    static const char *const bodies[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
        "\"image_url\",\"image_url\":{\"url\":\"http://x/y\"}}]}]}",
        "{\"messages\":[{\"content\":[{\"type\":\"input_audio\"}]}]}",
        "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"file\"}]}]}",
        "{\"messages\":[{\"role\":\"assistant\",\"audio\":{\"id\":\"a\"}}]}",
        "{\"previous_response_id\":\"resp_1\",\"messages\":[]}",
        "{\"web_search_options\":{},\"messages\":[]}"};
    static const char *const bounded[] = {
        "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]}",
        "{\"messages\":[{\"content\":[{\"type\":\"refusal\"}]}]}",
        "{\"messages\":[{\"role\":\"assistant\",\"audio\":null}]}"};
    scene s = GPN_ZERO;
    size_t i;
    (void)state;
    for (i = 0; i < GPN_COUNT(bodies); i++) {
        s.p.body_json = gptner_str_from(bodies[i]);
        scene_weigh(&s);
        assert_int_equal(s.w.prompt_max, -1);
        assert_true(s.w.prompt >= 0);
    }
    for (i = 0; i < GPN_COUNT(bounded); i++) {
        s.p.body_json = gptner_str_from(bounded[i]);
        scene_weigh(&s);
        assert_true(s.w.prompt_max > 0);
    }
    scene_end(&s);
}

/* Cut and broken JSON gives some weight and no other harm. */
static void json_that_is_broken_is_guessed(void **state)
{
    static const char body[] =
        "{\"model\":\"m\\u0041\",\"messages\":[{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"a\\n\\ud83d\\ude00b\"}],\"name\":1},"
        "7,\"x\",[],null],\"n\":\"2\",\"max_tokens\":1e9,\"prompt\":{},"
        "\"tools\":[[]],\"input\":[null,[\"a\",1]]}";
    test_page page;
    scene s = GPN_ZERO;
    size_t len;
    (void)state;
    test_page_init(&page, sizeof body);
    for (len = 0; len < sizeof body; len++) {
        gptner_str json = gpn_str(test_page_put(&page, body, len), len);
        memset(&s.p, 0, sizeof s.p);
        s.p.body_json = json;
        scene_weigh(&s);
        assert_true(s.w.prompt >= 0 && s.w.prompt_max >= s.w.prompt);
        memset(&s.p, 0, sizeof s.p);
        s.p.messages_json = json;
        scene_weigh(&s);
        assert_true(s.w.prompt >= 0 && s.w.prompt_max >= s.w.prompt);
    }
    test_page_deinit(&page);
    scene_end(&s);
}

/* A long text with escapes is decoded in memory of its own; where there is
 * none, it counts as it stands. */
static void a_long_text_with_escapes_needs_no_memory(void **state)
{
    size_t len = 4000, i;
    char *json = (char *)malloc(len + 100);
    scene s = GPN_ZERO;
    int64_t told;
    (void)state;
    assert_non_null(json);
    i = (size_t)sprintf(json, "[{\"role\":\"user\",\"content\":\"");
    while (i < len) {
        i += (size_t)sprintf(json + i, "the cat\\n");
    }
    sprintf(json + i, "\"}]");
    s.p.messages_json = gptner_str_from(json);
    scene_weigh(&s);
    told = s.w.prompt;
    assert_in_range(told, 1200, 1500); /* 3 for every 9 bytes */
    test_fault_set(GPN_FAULT_ALLOC, 1, true);
    scene_weigh(&s);
    test_fault_clear();
    assert_in_range(s.w.prompt, (uintmax_t)(told / 2), (uintmax_t)(2 * told));
    scene_end(&s);
    free(json);
}

static void the_model_is_that_of_the_body(void **state)
{
    gptner_options o = GPN_ZERO;
    gptner_prompt p = GPN_ZERO;
    (void)state;
    assert_true(gpn_str_eq_c(gpn_prompt_model(&p, &o), "gpt-4o-mini"));
    o.model = "gpt-4o";
    assert_true(gpn_str_eq_c(gpn_prompt_model(&p, &o), "gpt-4o"));
    o.extra_body_json = "{\"model\":\"other\"}";
    assert_true(gpn_str_eq_c(gpn_prompt_model(&p, &o), "other"));
    p.body_json = gptner_str_from("{\"model\":\"own\",\"n\":1}");
    assert_true(gpn_str_eq_c(gpn_prompt_model(&p, &o), "own"));
    p.body_json = gptner_str_from("{\"model\":7}");
    assert_true(gpn_str_eq_c(gpn_prompt_model(&p, &o), "gpt-4o"));
}

/* ---- the user's own count ------------------------------------------------ */

typedef struct counter {
    int calls;
    int64_t answer;
    char model[64];
} counter;

static int64_t count_it(gptner_str text, const char *model, void *user)
{
    counter *c = (counter *)user;
    (void)text;
    c->calls++;
    snprintf(c->model, sizeof c->model, "%s", model);
    return c->answer;
}

static void the_users_count_goes_before_the_estimate(void **state)
{
    counter c = {0, 1000, ""};
    scene s = GPN_ZERO;
    (void)state;
    s.cfg.count_fn = count_it;
    s.cfg.count_user = &c;
    s.o.model = "gpt-4o";
    s.p.text = gptner_str_from("the cat");
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, 1000 + 4 + 3);
    assert_true(s.w.prompt_max >= s.w.prompt);
    assert_string_equal(c.model, "gpt-4o");
    c.answer = -1;
    scene_weigh(&s);
    assert_int_equal(s.w.prompt, 2 + 4 + 3);
    assert_int_equal(c.calls, 2);
    c.answer = INT64_MAX;
    scene_weigh(&s);
    assert_true(s.w.prompt >= GPN_WEIGH_CAP && s.w.prompt_max > 0);
    gpn_weigh_learn(s.client, "gpt-4o", 100, 200);
    assert_int_equal(gpn_weigh_ratio(s.client, "gpt-4o"), GPN_WEIGH_ONE);
    scene_end(&s);
}

/* ---- what is learnt ------------------------------------------------------ */

static void a_model_that_counts_otherwise_is_learnt(void **state)
{
    scene s = GPN_ZERO;
    int64_t counted;
    int i;
    (void)state;
    s.o.model = "qwen";
    s.p.text = gptner_str_from("the cat");
    scene_weigh(&s);
    counted = s.w.counted;
    gpn_weigh_learn(s.client, "qwen", GPN_WEIGH_LEAST - 1, 1000); /* too few */
    gpn_weigh_learn(s.client, "qwen", 100, -1);                   /* not told */
    assert_int_equal(gpn_weigh_ratio(s.client, "qwen"), GPN_WEIGH_ONE);
    gpn_weigh_learn(s.client, "qwen", 100, 150);
    assert_int_equal(gpn_weigh_ratio(s.client, "qwen"), 1536);
    assert_int_equal(gpn_weigh_ratio(s.client, "other"), GPN_WEIGH_ONE);
    scene_weigh(&s);
    assert_int_equal(s.w.counted, counted);
    assert_int_equal(s.w.prompt, counted * 3 / 2);
    gpn_weigh_learn(s.client, "qwen", 100, 100); /* an eighth of the way */
    assert_int_equal(gpn_weigh_ratio(s.client, "qwen"), 1472);
    for (i = 0; i < 100; i++) {
        gpn_weigh_learn(s.client, "qwen", 100, 100000);
    }
    assert_in_range(gpn_weigh_ratio(s.client, "qwen"), 4 * GPN_WEIGH_ONE - 4,
                    4 * GPN_WEIGH_ONE);
    for (i = 0; i < 100; i++) {
        gpn_weigh_learn(s.client, "qwen", 100000, 1);
    }
    assert_in_range(gpn_weigh_ratio(s.client, "qwen"), GPN_WEIGH_ONE / 4,
                    GPN_WEIGH_ONE / 4 + 4);
    scene_end(&s);
}

/* The mock counts in its own way; the next prompt is weighed in that. */
static void the_usage_of_a_reply_corrects_the_next_weight(void **state)
{
    static const char text[] =
        "Please tell me everything about the harbour, the boats that come and "
        "go, the price of herring on the market, and the woman in the yellow "
        "coat who counts the masts every morning before the sun is up.";
    mock_options opt = {0};
    gptner_config cfg = {0};
    gptner_options o = {0};
    gptner_prompt p = {0};
    gptner_client *client;
    gptner_result *result;
    gptner_error err;
    mock_server *mock;
    gpn_weight before, after;
    char why[256];
    (void)state;
    if (!mock_server_start(&opt, &mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    cfg.base_url = mock_server_base_url(mock);
    cfg.api_key = "sk-test-0123456789";
    assert_int_equal(gptner_client_new(&cfg, &client, &err), GPTNER_OK);
    p.text = gptner_str_from(text);
    gpn_prompt_weigh(client, &p, &o, &before);
    assert_int_equal(gptner_ask(client, text, &result, &err), GPTNER_OK);
    gpn_prompt_weigh(client, &p, &o, &after);
    assert_int_equal(after.counted, before.counted);
    assert_true(result->usage.prompt_tokens != before.prompt);
    assert_in_range(after.prompt, (uintmax_t)result->usage.prompt_tokens - 1,
                    (uintmax_t)result->usage.prompt_tokens);
    gptner_result_free(result);
    gptner_client_free(client);
    mock_server_stop(mock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_text_is_within_its_error),
        cmocka_unit_test(what_the_tokenizer_cuts_is_exact),
        cmocka_unit_test(nothing_has_no_tokens_and_anything_has_one),
        cmocka_unit_test(any_bytes_give_one_token_to_one_a_byte),
        cmocka_unit_test(two_texts_together_have_about_the_tokens_of_both),
        cmocka_unit_test(long_runs_grow_in_proportion),
        cmocka_unit_test(every_message_weighs_its_text_and_four),
        cmocka_unit_test(the_systems_of_prompt_and_config_weigh_alike),
        cmocka_unit_test(tools_and_schema_weigh_too),
        cmocka_unit_test(only_the_texts_of_a_completion_weigh),
        cmocka_unit_test(the_answer_is_bounded_by_what_is_sent),
        cmocka_unit_test(what_no_text_tells_has_no_bound),
        cmocka_unit_test(json_that_is_broken_is_guessed),
        cmocka_unit_test(a_long_text_with_escapes_needs_no_memory),
        cmocka_unit_test(the_model_is_that_of_the_body),
        cmocka_unit_test(the_users_count_goes_before_the_estimate),
        cmocka_unit_test(a_model_that_counts_otherwise_is_learnt),
        cmocka_unit_test(the_usage_of_a_reply_corrects_the_next_weight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
