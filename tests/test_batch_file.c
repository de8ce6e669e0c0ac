/* Batch files: written from every source, split by every limit, whole or not
 * at all, and checked as the server would. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#define GPTNER_FAULT_INJECTION
#include "gptner.h"

#include "test_common.h"

#include <dirent.h>

typedef struct rig {
    gptner_config cfg;
    gptner_client *client;
    gptner_batch_create_config create;
    gptner_batch_files *files;
    gptner_error err;
    char path[256];
} rig;

static void rig_start(rig *r, const char *name)
{
    r->cfg.api_key = "";
    if (r->cfg.base_url == NULL) {
        r->cfg.base_url = "http://127.0.0.1:1/v1";
    }
    assert_int_equal(gptner_client_new(&r->cfg, &r->client, &r->err), 0);
    r->create.output_path = test_tmp_path(r->path, name);
}

static gptner_status rig_create(rig *r)
{
    gptner_batch_files_free(r->files);
    return gptner_batch_create_file(r->client, &r->create, &r->files, &r->err);
}

static void rig_end(rig *r)
{
    gptner_batch_files_free(r->files);
    gptner_client_free(r->client);
}

static void assert_created(rig *r)
{
    if (rig_create(r) != GPTNER_OK) {
        fail_msg("create: %s", r->err.message);
    }
}

static void assert_refused(rig *r, gptner_status status, const char *part)
{
    assert_int_equal(rig_create(r), status);
    assert_null(r->files);
    assert_int_equal(r->err.status, status);
    if (strstr(r->err.message, part) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", part, r->err.message);
    }
}

static void assert_file(const char *path, const char *want)
{
    size_t len;
    char *text = test_slurp(path, &len);
    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
}

/* files in the temporary folder whose names begin so */
static int count_files(const char *prefix)
{
    DIR *d = opendir(test_tmp_dir());
    struct dirent *e;
    int n = 0;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    }
    closedir(d);
    return n;
}

static void assert_valid(const gptner_batch_files *files)
{
    size_t i;
    int64_t requests = 0;
    for (i = 0; i < files->count; i++) {
        const gptner_batch_file *f = &files->items[i];
        gptner_batch_report *report = NULL;
        gptner_error err;
        if (gptner_batch_validate_file(f->path, files->endpoint, NULL, &report,
                                       &err) != GPTNER_OK) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(report->found, 0);
        assert_int_equal(report->requests, f->requests);
        assert_int_equal(report->bytes, f->bytes);
        assert_true(gpn_str_eq_c(report->endpoint, files->endpoint));
        requests += f->requests;
        gptner_batch_report_free(report);
    }
    assert_int_equal(requests, files->requests);
}

#define HEAD(id) "{\"custom_id\":\"" id "\",\"method\":\"POST\",\"url\":"
#define CHAT(id, text)                                              \
    HEAD(id)                                                        \
    "\"/v1/chat/completions\",\"body\":{\"model\":\"gpt-4o-mini\"," \
    "\"messages\":[{\"role\":\"user\",\"content\":\"" text          \
    "\"}],\"temperature\":0,\"max_tokens\":512}}\n"

/* ---- sources ------------------------------------------------------------ */

static void texts_become_lines(void **state)
{
    const char *texts[] = {"one", "zwei \"\xC3\xBC\"\n", ""};
    rig r = {0};
    (void)state;
    rig_start(&r, "texts.jsonl");
    r.create.texts = texts;
    r.create.n_prompts = 3;
    assert_created(&r);
    assert_file(r.path, CHAT("request-0", "one")
                            CHAT("request-1", "zwei \\\"\xC3\xBC\\\"\\n")
                                CHAT("request-2", ""));
    assert_int_equal(r.files->count, 1);
    assert_int_equal(r.files->requests, 3);
    assert_string_equal(r.files->items[0].path, r.path);
    assert_string_equal(r.files->endpoint, "/v1/chat/completions");
    assert_int_equal(r.files->items[0].requests, 3);
    assert_valid(r.files);
    rig_end(&r);
}

static void prompts_bring_ids_systems_and_options(void **state)
{
    gptner_prompt p[5];
    gptner_message talk[1];
    gptner_options hot;
    rig r = {0};
    (void)state;
    memset(p, 0, sizeof p);
    memset(talk, 0, sizeof talk);
    memset(&hot, 0, sizeof hot);
    hot.temperature = 0.5;
    hot.max_tokens = GPTNER_OMIT;
    talk[0].json =
        gptner_str_from("{\"role\":\"user\",\r\n \"content\":\"a\"}");
    p[0].text = gptner_str_from("a");
    p[0].custom_id = gptner_str_from("x\"\\!");
    p[1].text = gptner_str_from("b");
    p[1].system = gptner_str_from("Be\nbrief.");
    p[2].text = gptner_str_from("c");
    p[2].options = &hot;
    p[3].messages = talk;
    p[3].n_messages = 1;
    p[4].body_json =
        gptner_str_from("\xEF\xBB\xBF{\n \"model\" : \"gpt-4o-mini\",\r\n"
                        "\"messages\":[\"\\\" , \\\\\"] }\n");
    rig_start(&r, "prompts.jsonl");
    r.create.prompts = p;
    r.create.n_prompts = 5;
    assert_created(&r);
    assert_file(
        r.path,
        CHAT("x\\\"\\\\!", "a") HEAD(
            "request-1") "\"/v1/chat/"
                         "completions\",\"body\":{\"model\":\"gpt-4o-mini\","
                         "\"messages\":[{\"role\":\"system\",\"content\":"
                         "\"Be\\nbrief.\"},"
                         "{\"role\":\"user\",\"content\":\"b\"}],"
                         "\"temperature\":0,"
                         "\"max_tokens\":512}}\n" HEAD(
                             "request-2") "\"/v1/chat/"
                                          "completions\",\"body\":{\"model\":"
                                          "\"gpt-4o-mini\","
                                          "\"messages\":[{\"role\":\"user\","
                                          "\"content\":\"c\"}],"
                                          "\"temperature\":0.5}}\n" CHAT(
                                              "request-3", "a")
                                              HEAD("request-4") "\"/v1/chat/"
                                                                "completions\","
                                                                "\"body\":{"
                                                                "\"model\":"
                                                                "\"gpt-4o-"
                                                                "mini\","
                                                                "\"messages\":["
                                                                "\"\\\" , "
                                                                "\\\\\"]}}\n");
    assert_valid(r.files);
    rig_end(&r);
}

static void files_are_read_line_by_line(void **state)
{
    static const char text[] = "one\n\n  \ntwo\r\n";
    static const char jsonl[] =
        "{\"prompt\":\"one\"}\n{\"custom_id\":\"m\",\"messages\":"
        "[{\"role\":\"user\",\"content\":\"two\"}]}\n";
    char in[256];
    rig r = {0};
    (void)state;
    rig_start(&r, "lines.jsonl");
    r.create.input_path = test_tmp_path(in, "in.txt");
    test_spit(in, text, sizeof text - 1);
    assert_created(&r);
    assert_file(r.path, CHAT("request-0", "one") CHAT("request-1", "two"));
    r.create.input_path = test_tmp_path(in, "in.jsonl");
    test_spit(in, jsonl, sizeof jsonl - 1);
    assert_created(&r);
    assert_file(r.path, CHAT("request-0", "one") CHAT("m", "two"));
    test_spit(in, "{\"prompt\":\"one\"}\n\n[1]\n", 22);
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "in.jsonl, line 3: ");
    assert_file(r.path, CHAT("request-0", "one") CHAT("m", "two"));
    r.create.input_path = "/nonexistent/x.txt";
    assert_refused(&r, GPTNER_ERR_FILE, "/nonexistent/x.txt");
    rig_end(&r);
}

typedef struct source {
    size_t n, at, fail_at;
    size_t len; /* of a text */
    bool own_ids;
    char text[4096], id[32];
} source;

static int source_next(gptner_prompt *p, gptner_error *err, void *user)
{
    source *s = (source *)user;
    (void)err;
    if (s->fail_at > 0 && s->at + 1 == s->fail_at) {
        return -1;
    }
    if (s->at == s->n) {
        return 0;
    }
    memset(s->text, 'a' + (int)(s->at % 26), s->len);
    p->text = gpn_str(s->text, s->len);
    if (s->own_ids) {
        snprintf(s->id, sizeof s->id, "id-%zu", s->at);
        p->custom_id = gptner_str_from(s->id);
    }
    s->at++;
    return 1;
}

static void use_source(rig *r, source *s, size_t n, size_t len)
{
    memset(s, 0, sizeof *s);
    s->n = n;
    s->len = len;
    r->create.next_fn = source_next;
    r->create.next_user = s;
}

static void an_iterator_may_fail(void **state)
{
    source s;
    rig r = {0};
    (void)state;
    rig_start(&r, "iter.jsonl");
    use_source(&r, &s, 3, 2);
    assert_created(&r);
    assert_file(r.path, CHAT("request-0", "aa") CHAT("request-1", "bb")
                            CHAT("request-2", "cc"));
    remove(r.path);
    use_source(&r, &s, 3, 2);
    s.fail_at = 3;
    assert_refused(&r, GPTNER_ERR_FILE, "next_fn");
    assert_int_equal(count_files("iter"), 0);
    use_source(&r, &s, 0, 2);
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "no prompt");
    assert_int_equal(count_files("iter"), 0);
    rig_end(&r);
}

/* ---- splitting ---------------------------------------------------------- */

static void files_are_split_by_requests(void **state)
{
    char path[256];
    source s;
    rig r = {0};
    (void)state;
    rig_start(&r, "split.jsonl");
    use_source(&r, &s, 5, 1);
    r.create.max_requests = 2;
    assert_created(&r);
    assert_int_equal(r.files->count, 3);
    assert_int_equal(r.files->requests, 5);
    assert_string_equal(r.files->items[1].path,
                        test_tmp_path(path, "split-2.jsonl"));
    assert_file(r.path, CHAT("request-0", "a") CHAT("request-1", "b"));
    assert_file(path, CHAT("request-2", "c") CHAT("request-3", "d"));
    assert_file(test_tmp_path(path, "split-3.jsonl"), CHAT("request-4", "e"));
    assert_valid(r.files);
    rig_end(&r);
}

static void files_are_split_by_bytes_and_tokens(void **state)
{
    int64_t line = (int64_t)strlen(CHAT("request-0", "0123456789"));
    int64_t tokens;
    source s;
    rig r = {0};
    int i;
    (void)state;
    rig_start(&r, "bytes.jsonl");
    for (i = 0; i < 2; i++) {
        use_source(&r, &s, 9, 10);
        r.create.max_bytes = 3 * line - i;
        assert_created(&r);
        assert_int_equal(r.files->count, i == 0 ? 3 : 5);
        assert_int_equal(r.files->items[0].bytes, (i == 0 ? 3 : 2) * line);
        assert_valid(r.files);
    }
    tokens = r.files->items[0].tokens / 2;
    assert_int_equal(
        tokens, (line -
                 (int64_t)strlen(HEAD("request-0") "\"/v1/chat/completions\","
                                                   "\"body\":}\n") +
                 2) /
                    3);
    r.create.max_bytes = line - 1;
    use_source(&r, &s, 2, 10);
    assert_refused(&r, GPTNER_ERR_LIMIT, "prompt 0");
    r.create.max_bytes = 0;
    r.create.max_tokens = 4 * tokens;
    use_source(&r, &s, 9, 10);
    assert_created(&r);
    assert_int_equal(r.files->count, 3);
    assert_int_equal(r.files->items[0].tokens, 4 * tokens);
    use_source(&r, &s, 2, 10);
    r.create.max_tokens = tokens - 1;
    assert_refused(&r, GPTNER_ERR_LIMIT, "prompt 0");
    rig_end(&r);
}

static void limits_out_of_range_are_refused(void **state)
{
    const char *texts[] = {"a"};
    rig r = {0};
    (void)state;
    rig_start(&r, "range.jsonl");
    r.create.texts = texts;
    r.create.n_prompts = 1;
    r.create.max_requests = 50001;
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "max_requests");
    r.create.max_requests = 0;
    r.create.max_bytes = -1;
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "max_bytes");
    r.create.max_bytes = 0;
    r.create.output_path = "/tmp/x.json";
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, ".jsonl");
    r.create.output_path = NULL;
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, ".jsonl");
    r.create.output_path = "/nonexistent/x.jsonl";
    assert_refused(&r, GPTNER_ERR_FILE, "/nonexistent/x.jsonl");
    r.create.endpoint = "/v1/files";
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "/v1/files");
    assert_int_equal(gptner_batch_create_file(NULL, &r.create, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_batch_create_file(r.client, NULL, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    rig_end(&r);
}

/* ---- endpoints ---------------------------------------------------------- */

static void embeddings_are_written(void **state)
{
    static const char line[] =
        "\"/v1/embeddings\",\"body\":{\"model\":\"text-embedding-3-small\","
        "\"input\":\"a\",\"dimensions\":8}}\n";
    char want[512];
    const char *texts[] = {"a", "a", "a"};
    gptner_prompt own = {0};
    rig r = {0};
    size_t i;
    (void)state;
    r.cfg.options.model = "text-embedding-3-small";
    r.cfg.options.extra_body_json = "{\"dimensions\":8}";
    r.cfg.system = "not for embeddings";
    rig_start(&r, "emb.jsonl");
    r.create.texts = texts;
    r.create.n_prompts = 3;
    assert_created(&r);
    snprintf(want, sizeof want, "%s%s%s%s%s%s", HEAD("request-0"), line,
             HEAD("request-1"), line, HEAD("request-2"), line);
    assert_file(r.path, want);
    assert_valid(r.files);
    r.create.endpoint = "/v1/chat/completions";
    assert_created(&r); /* the caller has the last word */
    r.create.endpoint = NULL;
    r.create.texts = NULL;
    r.create.prompts = &own;
    r.create.n_prompts = 1;
    own.messages_json = gptner_str_from("[]");
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "conversation");
    for (i = 0; i < 2; i++) {
        /* an array counts its items */
        size_t n = 50000 + i, k;
        char *body = (char *)malloc(n * 4 + 100);
        size_t len = (size_t)sprintf(body, "{\"model\":\"m\",\"input\":[");
        for (k = 0; k < n; k++) {
            len += (size_t)sprintf(body + len, "%s\"a\"", k > 0 ? "," : "");
        }
        len += (size_t)sprintf(body + len, "]}");
        memset(&own, 0, sizeof own);
        own.body_json = gpn_str(body, len);
        if (i == 0) {
            assert_created(&r);
        } else {
            assert_refused(&r, GPTNER_ERR_LIMIT, "limits");
        }
        free(body);
    }
    rig_end(&r);
}

static void other_endpoints_need_bodies(void **state)
{
    gptner_prompt p[2];
    rig r = {0};
    (void)state;
    memset(p, 0, sizeof p);
    rig_start(&r, "resp.jsonl");
    r.create.prompts = p;
    r.create.n_prompts = 2;
    r.create.endpoint = "/v1/responses";
    p[0].body_json = gptner_str_from("{\"model\":\"m\",\"input\":\"a\"}");
    p[1].body_json = gptner_str_from("{\"model\":\"m\",\"input\":[]}");
    assert_created(&r);
    assert_file(r.path,
                HEAD("request-0") "\"/v1/responses\",\"body\":{"
                                  "\"model\":\"m\",\"input\":\"a\"}}\n" HEAD(
                                      "request-1") "\"/v1/"
                                                   "responses\",\"body\":{"
                                                   "\"model\":\"m\","
                                                   "\"input\":[]}}\n");
    assert_string_equal(r.files->endpoint, "/v1/responses");
    assert_valid(r.files);
    p[1].body_json = gpn_str(NULL, 0);
    p[1].text = gptner_str_from("a");
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "prompt 1: ");
    r.create.endpoint = "/v1/embeddings";
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "gpt-4o-mini");
    r.create.endpoint = "/v1/completions";
    r.create.prompts = p + 1;
    r.create.n_prompts = 1;
    assert_created(&r);
    assert_file(
        r.path,
        HEAD("request-0") "\"/v1/"
                          "completions\",\"body\":{\"model\":\"gpt-4o-mini\","
                          "\"prompt\":\"a\",\"temperature\":0,\"max_tokens\":"
                          "512}}\n");
    rig_end(&r);
}

/* ---- what is refused ---------------------------------------------------- */

typedef struct bad_case {
    const char *first, *second; /* bodies */
    const char *part;           /* of the message */
} bad_case;

static void bodies_that_do_not_fit_are_refused(void **state)
{
    static const bad_case cases[] = {
        {"{\"model\":\"m\"}", "{\"model\":\"n\"}",
         "prompt 1: is for the model"},
        {"{\"model\":\"m\"}", "{\"model\":\"m\",\"prompt\":\"\"}",
         "prompt 1: is for /v1/completions"},
        {"{\"model\":\"m\"}", "{\"model\":7}", "\"model\""},
        {"{\"model\":\"m\"}", "{}", "\"model\""},
        {"{\"model\":\"m\"}", "[]", "prompt 1: body_json"},
        {"{\"model\":\"m\"}", "{", "prompt 1: body_json"},
        {"{\"model\":\"m\",\"stream\":true}", "{\"model\":\"m\"}", "stream"}};
    gptner_prompt p[2];
    rig r = {0};
    size_t i;
    (void)state;
    memset(p, 0, sizeof p);
    rig_start(&r, "bad.jsonl");
    r.create.prompts = p;
    r.create.n_prompts = 2;
    for (i = 0; i < TEST_COUNT(cases); i++) {
        p[0].body_json = gptner_str_from(cases[i].first);
        p[1].body_json = gptner_str_from(cases[i].second);
        assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, cases[i].part);
        assert_int_equal(count_files("bad"), 0);
    }
    memset(p, 0, sizeof p);
    p[0].text = gptner_str_from("a");
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "prompt 1: ");
    p[1].text = gptner_str_from("a\xFF");
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "UTF-8");
    p[0].text = gptner_str_from("cut off \xE2\x82");
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "prompt 0: ");
    assert_int_equal(count_files("bad"), 0);
    rig_end(&r);
}

static void ids_must_be_fit_and_unique(void **state)
{
    static const char *const bad[] = {
        "",
        "a b",
        "\x7f",
        "\xC3\xBC",
        "\t",
        "12345678901234567890123456789012345678901234567890123456789012345"};
    gptner_prompt p[4];
    rig r = {0};
    size_t i;
    (void)state;
    memset(p, 0, sizeof p);
    rig_start(&r, "ids.jsonl");
    r.create.prompts = p;
    r.create.n_prompts = 4;
    for (i = 0; i < 4; i++) {
        p[i].text = gptner_str_from("a");
    }
    for (i = 0; i < TEST_COUNT(bad); i++) {
        p[2].custom_id = gptner_str_from(bad[i]);
        assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "prompt 2: custom_id");
    }
    p[2].custom_id = gptner_str_from("request-1");
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "used twice");
    p[2].custom_id = gptner_str_from("request-3");
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "prompt 3: ");
    p[2].custom_id = gptner_str_from("request-2");
    assert_created(&r);
    p[1].custom_id = p[2].custom_id = gptner_str_from("x");
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT,
                   "custom_id x is used twice");
    r.create.max_requests = 2; /* each in its own file */
    assert_created(&r);
    assert_valid(r.files);
    rig_end(&r);
}

/* ---- the shape of lines ------------------------------------------------- */

/* The same prompts again and again have a shape from the third on; each first
 * one does not. */
static void quick_lines_are_those_of_the_long_way(void **state)
{
    static const char *const texts[] = {
        "", "a", "\"\\\b\f\n\r\t\x01\x1f\x7f",
        "\xD0\x9A\xD0\xB8\xD1\x97\xD0\xB2 \xE6\x9D\xB1\xF0\x9F\x98\x80",
        "0123456789012345678901234567890123456789012345678901234567890123"
        "456789\n0123456789012345678901234567890123456789012345678901234"};
    gptner_options o[5];
    gptner_prompt p[4];
    rig r = {0};
    size_t i, k;
    (void)state;
    memset(o, 0, sizeof o);
    o[1].temperature = 0.25;
    o[2].extra_body_json = "{\"user\":\"u\"}";
    o[3].extra_body_json = "{\"messages\":[]}";
    o[4].endpoint = GPTNER_ENDPOINT_COMPLETIONS;
    rig_start(&r, "shape.jsonl");
    r.create.prompts = p;
    r.create.n_prompts = 4;
    for (i = 0; i < TEST_COUNT(texts) * TEST_COUNT(o) * 2; i++) {
        size_t len;
        char *text, *line[4];
        memset(p, 0, sizeof p);
        for (k = 0; k < 4; k++) {
            p[k].text = gptner_str_from(texts[i % TEST_COUNT(texts)]);
            p[k].options = &o[i / 2 / TEST_COUNT(texts)];
            if (i % 2 != 0) {
                p[k].system = gptner_str_from("\"sys\"");
            }
        }
        assert_created(&r);
        text = test_slurp(r.path, &len);
        line[0] = text;
        for (k = 1; k < 4; k++) {
            line[k] = strchr(line[k - 1], '\n');
            *line[k]++ = '\0';
            line[k - 1][strlen("{\"custom_id\":\"request-")] = '*';
        }
        line[3][strlen("{\"custom_id\":\"request-")] = '*';
        line[3][strlen(line[3]) - 1] = '\0';
        for (k = 1; k < 4; k++) {
            assert_string_equal(line[k], line[0]);
        }
        free(text);
        assert_valid(r.files);
    }
    rig_end(&r);
}

static uint64_t chance = 1;

static unsigned roll(unsigned n)
{
    chance = chance * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)(chance >> 33) % n;
}

/* Texts with everything at every offset, against the writer that takes one
 * piece after the other. */
static void quick_text_is_that_of_the_pieces(void **state)
{
    static const char *const parts[] = {"a",
                                        "plain text ",
                                        "\"",
                                        "\\",
                                        "\n",
                                        "\x01",
                                        "\xC3\xBC",
                                        "\xE0\xA4\x85",
                                        "\xE6\x9D\xB1",
                                        "\xED\x9F\xBF",
                                        "\xF0\x90\x80\x80",
                                        "\xF4\x8F\xBF\xBF",
                                        "\xC0\x80",
                                        "\xED\xA0\x80",
                                        "\xF5",
                                        "\x80",
                                        "\xE2\x82",
                                        "\xF0\x9F\x98"};
    gpn_env env;
    gpn_buf one, two;
    int round;
    (void)state;
    gpn_env_init(&env, NULL, NULL);
    gpn_buf_init(&one, &env, 1 << 20);
    gpn_buf_init(&two, &env, 1 << 20);
    for (round = 0; round < (getenv("GPTNER_SLOW") != NULL ? 2000 : 60000);
         round++) {
        unsigned kinds = roll(3) == 0 ? TEST_COUNT(parts) : 12;
        size_t len = 0, n = roll(60), i;
        gptner_json_writer w, v;
        char text[1024], *exact;
        while (n-- > 0) {
            const char *part = parts[roll(kinds)];
            memcpy(text + len, part, strlen(part));
            len += strlen(part);
        }
        exact = (char *)malloc(len > 0 ? len : 1);
        memcpy(exact, text, len);
        gpn_buf_clear(&one);
        gpn_buf_clear(&two);
        gpn_json_writer_init(&w, &one);
        gpn_json_writer_init(&v, &two);
        w.refuse_invalid = v.refuse_invalid = roll(2) == 0;
        gptner_json_write_str(&w, gpn_str(exact, len));
        gptner_json_write_str_begin(&v);
        for (i = 0; i < len; i++) {
            gptner_json_write_str_part(&v, gpn_str(exact + i, 1));
        }
        gptner_json_write_str_end(&v);
        assert_int_equal(gptner_json_writer_finish(&w, NULL),
                         gptner_json_writer_finish(&v, NULL));
        if (w.status == GPTNER_OK) {
            assert_int_equal(one.len, two.len);
            assert_memory_equal(one.data, two.data, one.len);
        }
        free(exact);
    }
    gpn_buf_deinit(&one);
    gpn_buf_deinit(&two);
}

/* ---- memory and faults -------------------------------------------------- */

static long peak_of(size_t n, bool own_ids)
{
    test_mem mem = {0};
    source s;
    rig r = {0};
    long peak;
    r.cfg.allocator = test_mem_allocator(&mem);
    rig_start(&r, "peak.jsonl");
    use_source(&r, &s, n, 600);
    s.own_ids = own_ids;
    assert_created(&r);
    assert_int_equal(r.files->requests, (int64_t)n);
    peak = mem.peak;
    rig_end(&r);
    assert_int_equal(mem.blocks, 0);
    return peak;
}

static void memory_does_not_grow(void **state)
{
    (void)state;
    /* a file more is a name more */
    assert_true(peak_of(100000, false) <= peak_of(1000, false) + 1024);
    assert_true(peak_of(100000, true) <= peak_of(1000, true) + 1024);
    assert_true(peak_of(100000, true) <= 2 << 20);
}

static int create_with(void *user, gptner_allocator *a)
{
    rig r = {0};
    source s;
    gptner_status status;
    (void)user;
    r.cfg.api_key = "";
    r.cfg.base_url = "http://127.0.0.1:1/v1";
    r.cfg.allocator = *a;
    status = gptner_client_new(&r.cfg, &r.client, &r.err);
    if (status == GPTNER_OK) {
        r.create.output_path = test_tmp_path(r.path, "fault.jsonl");
        use_source(&r, &s, 9, 2000);
        s.own_ids = true;
        r.create.max_requests = 4;
        status = rig_create(&r);
    }
    rig_end(&r);
    return (int)status;
}

static void every_failed_allocation_leaves_nothing(void **state)
{
    char path[256];
    bool done = false;
    long n;
    (void)state;
    for (n = 1; !done; n++) {
        test_mem mem = {0};
        int status;
        gptner_allocator a = test_mem_allocator(&mem);
        mem.fail_at = n;
        status = create_with(NULL, &a);
        assert_int_equal(mem.blocks, 0);
        if (status != 0) {
            assert_int_equal(status, GPTNER_ERR_NO_MEMORY);
            assert_int_equal(count_files("fault"), 0);
        }
        if (status == 0) { /* success, or one that can be done without */
            assert_int_equal(count_files("fault"), 3);
            remove(test_tmp_path(path, "fault.jsonl"));
            remove(test_tmp_path(path, "fault-2.jsonl"));
            remove(test_tmp_path(path, "fault-3.jsonl"));
        }
        done = mem.calls < n;
    }
    assert_true(n > 10);
}

static void every_failed_file_call_leaves_nothing(void **state)
{
    int n, failed = 0;
    (void)state;
    for (n = 1;; n++) {
        test_mem mem = {0};
        gptner_allocator a = test_mem_allocator(&mem);
        int status;
        test_fault_set(GPN_FAULT_FILE, n, false);
        status = create_with(NULL, &a);
        assert_int_equal(mem.blocks, 0);
        if (!test_fault_fired()) {
            test_fault_clear();
            assert_int_equal(status, 0);
            break;
        }
        test_fault_clear();
        failed++;
        assert_int_equal(status, GPTNER_ERR_FILE);
        assert_int_equal(count_files("fault"), 0);
    }
    assert_int_equal(count_files("fault"), 3);
    /* three files: open, write, sync, close, rename */
    assert_true(failed >= 15);
}

static void old_files_stay_when_writing_fails(void **state)
{
    const char *texts[] = {"a", "b", "\xFF"};
    rig r = {0};
    (void)state;
    rig_start(&r, "old.jsonl");
    test_spit(r.path, "old", 3);
    r.create.texts = texts;
    r.create.n_prompts = 3;
    r.create.max_requests = 1;
    assert_refused(&r, GPTNER_ERR_INVALID_ARGUMENT, "prompt 2");
    assert_file(r.path, "old");
    assert_int_equal(count_files("old"), 1);
    gptner_client_cancel(r.client);
    assert_refused(&r, GPTNER_ERR_CANCELLED, "cancelled");
    rig_end(&r);
}

/* ---- what the durable job needs ----------------------------------------- */

typedef struct watch {
    char bad[256];
    int64_t requests[8];
    size_t files;
    bool there;
} watch;

static bool watch_bad(void *ctx, size_t index, const gptner_error *why)
{
    watch *w = (watch *)ctx;
    size_t n = strlen(w->bad);
    snprintf(w->bad + n, sizeof w->bad - n, "%zu:%d ", index, why->status);
    return true;
}

static gptner_status watch_file(void *ctx, size_t number,
                                const gptner_batch_file *file,
                                gptner_error *err)
{
    watch *w = (watch *)ctx;
    (void)err;
    assert_int_equal(number, ++w->files);
    w->requests[number] = file->requests;
    w->there = access(file->path, R_OK) == 0;
    return GPTNER_OK;
}

static void lines_start(gpn_lines *j, rig *r, watch *w)
{
    memset(j, 0, sizeof *j);
    memset(w, 0, sizeof *w);
    j->client = r->client;
    j->cfg = &r->create;
    j->path = r->path;
    j->number_all = true;
    j->digest = true;
    j->bad_fn = watch_bad;
    j->file_fn = watch_file;
    j->ctx = w;
}

static void bad_prompts_are_told_and_left_out(void **state)
{
    const char *texts[] = {"\xFF", "a", "\xFF", "b", "c", "d"};
    unsigned char digest[32];
    char path[256];
    watch w;
    gpn_lines j;
    rig r = {0};
    (void)state;
    rig_start(&r, "job.jsonl");
    r.create.texts = texts;
    r.create.n_prompts = 6;
    r.create.max_requests = 2;
    lines_start(&j, &r, &w);
    j.each = true;
    assert_int_equal(gpn_lines_write(&j, &r.err), GPTNER_OK);
    assert_string_equal(w.bad, "0:2 2:2 ");
    assert_int_equal(j.bad, 2);
    assert_int_equal(j.requests, 4);
    assert_int_equal(j.n_files, 2);
    assert_true(w.there);
    memcpy(digest, j.sha256, 32);
    gpn_lines_deinit(&j);
    assert_file(test_tmp_path(path, "job-1.jsonl"),
                CHAT("request-1", "a") CHAT("request-3", "b"));
    assert_file(test_tmp_path(path, "job-2.jsonl"),
                CHAT("request-4", "c") CHAT("request-5", "d"));
    /* dry: the same counts and digest */
    remove(path);
    lines_start(&j, &r, &w);
    j.dry = true;
    assert_int_equal(gpn_lines_write(&j, &r.err), GPTNER_OK);
    assert_memory_equal(digest, j.sha256, 32);
    assert_int_equal(j.n_files, 2);
    assert_int_equal(w.requests[2], 2);
    gpn_lines_deinit(&j);
    assert_int_equal(count_files("job"), 1);
    /* from the second on, and not committed, and then committed */
    lines_start(&j, &r, &w);
    j.first = 2;
    assert_int_equal(gpn_lines_write(&j, &r.err), GPTNER_OK);
    assert_int_equal(count_files("job-2.jsonl.part"), 1);
    gpn_lines_deinit(&j);
    assert_int_equal(count_files("job"), 1);
    lines_start(&j, &r, &w);
    j.first = 2;
    assert_int_equal(gpn_lines_write(&j, &r.err), GPTNER_OK);
    assert_int_equal(gpn_lines_commit(&j, &r.err), GPTNER_OK);
    gpn_lines_deinit(&j);
    assert_file(path, CHAT("request-4", "c") CHAT("request-5", "d"));
    texts[3] = "B";
    lines_start(&j, &r, &w);
    j.dry = true;
    assert_int_equal(gpn_lines_write(&j, &r.err), GPTNER_OK);
    assert_memory_not_equal(digest, j.sha256, 32);
    gpn_lines_deinit(&j);
    rig_end(&r);
}

static void the_digest_is_that_of_the_lines(void **state)
{
    unsigned char want[32];
    source s;
    watch w;
    gpn_lines j;
    rig r = {0};
    size_t len;
    char *text;
    char path[256];
    (void)state;
    rig_start(&r, "sha.jsonl");
    use_source(&r, &s, 1000, 600);
    lines_start(&j, &r, &w);
    j.each = true;
    assert_int_equal(gpn_lines_write(&j, &r.err), GPTNER_OK);
    text = test_slurp(test_tmp_path(path, "sha-1.jsonl"), &len);
    test_sha256(text, len, want);
    assert_memory_equal(want, j.sha256, 32);
    free(text);
    gpn_lines_deinit(&j);
    rig_end(&r);
}

/* ---- the check ---------------------------------------------------------- */

static void golden_files_get_their_codes(void **state)
{
    char *table, *rest, *row;
    size_t len;
    (void)state;
    table = rest = test_slurp("tests/data/batch/expect.txt", &len);
    if (table == NULL) {
        skip();
    }
    while (*rest != '\0') {
        gptner_batch_report *report = NULL;
        gptner_error err = {0};
        char name[128], code[64], next[128], path[256];
        int line, used;
        size_t i = 0;
        gptner_status status;
        assert_int_equal(sscanf(rest, "%127s", name), 1);
        snprintf(path, sizeof path, "tests/data/batch/%s", name);
        status = gptner_batch_validate_file(path, NULL, NULL, &report, &err);
        assert_non_null(report);
        while (*rest != '\0' &&
               sscanf(rest, "%127s %63s %d\n%n", next, code, &line, &used) ==
                   3 &&
               strcmp(name, next) == 0) {
            row = rest;
            rest += used;
            if (strcmp(code, "ok") == 0) {
                if (status != GPTNER_OK) {
                    fail_msg("%s: %s", name, err.message);
                }
                continue;
            }
            if (i >= report->count ||
                !gpn_str_eq_c(report->items[i].code, code) ||
                report->items[i].line != line ||
                report->items[i].message.len == 0) {
                fail_msg("%.40s: not found; %s", row, err.message);
            }
            assert_int_equal(status, GPTNER_ERR_BATCH_INVALID);
            i++;
        }
        assert_int_equal(report->count, i);
        assert_int_equal(report->found, i);
        gptner_batch_report_free(report);
    }
    free(table);
}

static void limits_of_the_whole_file_are_checked(void **state)
{
    static const char line[] =
        "{\"custom_id\":\"%d\",\"method\":\"POST\",\"url\":\"%s\",\"body\":{"
        "\"model\":\"m\",\"input\":%s}}\n";
    gptner_batch_report *report = NULL;
    char path[256];
    int n, k;
    (void)state;
    test_tmp_path(path, "many.jsonl");
    for (k = 0; k < 4; k++) {
        FILE *f = fopen(path, "wb");
        for (n = 0; n < 50000 + (k == 1); n++) {
            fprintf(f, line, n, k < 2 ? "/v1/responses" : "/v1/embeddings",
                    k == 3 && n == 7 ? "[\"a\",\"b\"]" : "[1,2]");
        }
        fclose(f);
        gptner_batch_validate_file(path, NULL, NULL, &report, NULL);
        assert_non_null(report);
        assert_int_equal(report->found, k == 1 || k == 3);
        assert_int_equal(report->requests, 50000 + (k == 1));
        if (report->found > 0) {
            assert_true(gpn_str_eq_c(report->items[0].code, "too_many_tasks"));
            assert_int_equal(report->items[0].line, 0);
        }
        gptner_batch_report_free(report);
    }
    /* what is over the size is mostly blank here; a hundred are kept */
    {
        FILE *f = fopen(path, "wb");
        for (n = 0; n < 300; n++) {
            fprintf(f, "{}\n");
        }
        for (n = 0; n < 201; n++) {
            fprintf(f, "%*s\n", 999999, "");
        }
        fclose(f);
        gptner_batch_validate_file(path, NULL, NULL, &report, NULL);
        assert_int_equal(report->found, 301);
        assert_int_equal(report->count, 100);
        assert_true(gpn_str_eq_c(report->items[0].code, "file_too_large"));
        assert_int_equal(report->items[1].line, 1);
        assert_int_equal(report->items[99].line, 99);
        assert_true(report->bytes > 200000000);
        gptner_batch_report_free(report);
    }
    remove(path);
}

/* The mark is passed over before the end of the first line is looked for, which
 * a further read may have to bring. */
static void a_byte_order_mark_is_found_whatever_the_first_line(void **state)
{
    static const char *const ends[] = {"", "\n", "\n\n{}"};
    char path[256];
    size_t i, k;
    (void)state;
    test_tmp_path(path, "marked.jsonl");
    for (i = 0; i < 2 * TEST_COUNT(ends); i++) {
        gptner_batch_report *report = NULL;
        FILE *f = fopen(path, "wb");
        long size;
        fputs("\xEF\xBB\xBF{\"custom_id\":\"", f);
        for (k = 0; k < (i < TEST_COUNT(ends) ? 1U : 300000U); k++) {
            fputc('a', f);
        }
        fprintf(f,
                "\",\"method\":\"POST\",\"url\":\"/v1/responses\",\"body\":{"
                "\"model\":\"m\"}}%s",
                ends[i % TEST_COUNT(ends)]);
        size = ftell(f);
        fclose(f);
        gptner_batch_validate_file(path, NULL, NULL, &report, NULL);
        assert_non_null(report);
        assert_int_equal(report->bytes, size);
        assert_true(report->found > 0);
        assert_int_equal(report->items[0].line, 1);
        assert_non_null(
            strstr(report->items[0].message.ptr, "byte order mark"));
        gptner_batch_report_free(report);
    }
    remove(path);
}

static void a_check_has_an_endpoint_and_limits(void **state)
{
    gptner_batch_report *report = NULL;
    gptner_error err;
    char path[256];
    char *blank;
    (void)state;
    test_tmp_path(path, "check.jsonl");
    test_spit(path, CHAT("a", "x"), strlen(CHAT("a", "x")));
    assert_int_equal(gptner_batch_validate_file(path, "/v1/chat/completions",
                                                NULL, &report, &err),
                     GPTNER_OK);
    assert_true(gpn_str_eq_c(report->model, "gpt-4o-mini"));
    gptner_batch_report_free(report);
    assert_int_equal(gptner_batch_validate_file(path, "/v1/completions", NULL,
                                                &report, &err),
                     GPTNER_ERR_BATCH_INVALID);
    assert_true(gpn_str_eq_c(report->items[0].code, "url_mismatch"));
    assert_true(gpn_str_eq_c(report->items[0].param, "url"));
    assert_non_null(strstr(err.message, "url_mismatch"));
    assert_non_null(strstr(err.message, "line 1"));
    gptner_batch_report_free(report);
    assert_int_equal(
        gptner_batch_validate_file(path, "/v1/files", NULL, &report, &err),
        GPTNER_ERR_INVALID_ARGUMENT);
    assert_null(report);
    assert_int_equal(
        gptner_batch_validate_file(NULL, NULL, NULL, &report, &err),
        GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_batch_validate_file("/nonexistent.jsonl", NULL,
                                                NULL, &report, &err),
                     GPTNER_ERR_FILE);
    assert_null(report);
    assert_int_equal(gptner_batch_validate_file(path, NULL, NULL, NULL, NULL),
                     GPTNER_OK);
    blank = (char *)calloc(1, (size_t)65 << 20);
    test_spit(path, blank, (size_t)65 << 20);
    free(blank);
    assert_int_equal(
        gptner_batch_validate_file(path, NULL, NULL, &report, &err),
        GPTNER_ERR_LIMIT);
    assert_null(report);
    assert_non_null(strstr(err.message, "line 1"));
    gptner_batch_report_free(NULL);
    gptner_batch_files_free(NULL);
    remove(path);
}

static void a_check_survives_every_failure(void **state)
{
    static const char path[] = "tests/data/batch/many.jsonl";
    gptner_batch_report *report = NULL;
    int k;
    (void)state;
    if (access(path, R_OK) != 0) {
        skip();
    }
    for (k = 0; k < 2; k++) {
        int n;
        for (n = 1;; n++) {
            test_mem mem = {0};
            gptner_allocator a = test_mem_allocator(&mem);
            gptner_status status;
            bool fired;
            test_fault_set(k == 0 ? GPN_FAULT_ALLOC : GPN_FAULT_FILE, n, false);
            status = gptner_batch_validate_file(path, NULL, &a, &report, NULL);
            fired = test_fault_fired();
            test_fault_clear();
            if (status == GPTNER_ERR_BATCH_INVALID) {
                assert_int_equal(report->found, 5);
                gptner_batch_report_free(report);
            } else {
                assert_null(report);
                assert_int_equal(status, k == 0 ? GPTNER_ERR_NO_MEMORY
                                                : GPTNER_ERR_FILE);
            }
            assert_int_equal(mem.blocks, 0);
            if (!fired) {
                break;
            }
        }
        assert_true(n > 3);
    }
}

/* ---- whatever comes, what is written is valid --------------------------- */

static void random_prompt(gptner_prompt *p, const gptner_options *o, char *text,
                          size_t i)
{
    static const char *const parts[] = {"a",        "\"",  "\n",
                                        "\xC3\xBC", "\\",  "\xF0\x9F\x98\x80",
                                        "words ",   "\x02"};
    size_t n = roll(40);
    memset(p, 0, sizeof *p);
    *text = '\0';
    while (n-- > 0) {
        strcat(text, parts[roll(8)]);
    }
    if (roll(20) == 0) {
        p->body_json = gptner_str_from(
            "{\"messages\":[],\n \"model\":\"gpt-4o-mini\", \"n\":1}");
    } else if (roll(10) == 0) {
        p->messages_json = gptner_str_from("[{\"role\":\"user\","
                                           "\r\n\"content\":\" a  b \"}]");
    } else {
        p->text = gptner_str_from(text);
    }
    if (roll(3) == 0) {
        sprintf(text + 200, "i\"%zu\\", i);
        p->custom_id = gptner_str_from(text + 200);
    }
    if (roll(4) == 0) {
        p->system = gptner_str_from(roll(2) ? "" : "system\n");
    }
    if (roll(2) == 0) {
        p->options = &o[roll(3)];
    }
}

static void what_is_created_is_valid(void **state)
{
    enum { MOST = 60 };
    static char texts[MOST][256];
    gptner_prompt p[MOST];
    gptner_options o[3];
    rig r = {0};
    int round;
    (void)state;
    memset(o, 0, sizeof o);
    o[1].max_tokens = 7;
    o[1].n = 3;
    o[2].extra_body_json = "{ \"user\":\n\"u\" }";
    rig_start(&r, "random.jsonl");
    r.create.prompts = p;
    for (round = 0; round < (getenv("GPTNER_SLOW") != NULL ? 30 : 300);
         round++) {
        gptner_status status;
        size_t i;
        r.create.n_prompts = 1 + roll(MOST);
        for (i = 0; i < r.create.n_prompts; i++) {
            random_prompt(&p[i], o, texts[i], i);
        }
        r.create.max_requests = roll(2) ? 0 : 1 + roll(20);
        r.create.max_bytes = roll(2) ? 0 : 1000 + roll(3000);
        r.create.max_tokens = roll(2) ? 0 : 300 + roll(1000);
        status = rig_create(&r);
        if (status != GPTNER_OK) {
            fail_msg("round %d: %s", round, r.err.message);
        }
        assert_int_equal(r.files->requests, (int64_t)r.create.n_prompts);
        assert_valid(r.files);
        for (i = 0; i < r.files->count; i++) {
            const gptner_batch_file *f = &r.files->items[i];
            struct stat st;
            assert_int_equal(stat(f->path, &st), 0);
            assert_int_equal(st.st_size, f->bytes);
            assert_true(r.create.max_requests == 0 ||
                        f->requests <= r.create.max_requests);
            assert_true(r.create.max_bytes == 0 ||
                        f->bytes <= r.create.max_bytes);
            assert_true(r.create.max_tokens == 0 ||
                        f->tokens <= r.create.max_tokens);
        }
    }
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_become_lines),
        cmocka_unit_test(prompts_bring_ids_systems_and_options),
        cmocka_unit_test(files_are_read_line_by_line),
        cmocka_unit_test(an_iterator_may_fail),
        cmocka_unit_test(files_are_split_by_requests),
        cmocka_unit_test(files_are_split_by_bytes_and_tokens),
        cmocka_unit_test(limits_out_of_range_are_refused),
        cmocka_unit_test(embeddings_are_written),
        cmocka_unit_test(other_endpoints_need_bodies),
        cmocka_unit_test(bodies_that_do_not_fit_are_refused),
        cmocka_unit_test(ids_must_be_fit_and_unique),
        cmocka_unit_test(quick_lines_are_those_of_the_long_way),
        cmocka_unit_test(quick_text_is_that_of_the_pieces),
        cmocka_unit_test(memory_does_not_grow),
        cmocka_unit_test(every_failed_allocation_leaves_nothing),
        cmocka_unit_test(every_failed_file_call_leaves_nothing),
        cmocka_unit_test(old_files_stay_when_writing_fails),
        cmocka_unit_test(bad_prompts_are_told_and_left_out),
        cmocka_unit_test(the_digest_is_that_of_the_lines),
        cmocka_unit_test(golden_files_get_their_codes),
        cmocka_unit_test(limits_of_the_whole_file_are_checked),
        cmocka_unit_test(a_byte_order_mark_is_found_whatever_the_first_line),
        cmocka_unit_test(a_check_has_an_endpoint_and_limits),
        cmocka_unit_test(a_check_survives_every_failure),
        cmocka_unit_test(what_is_created_is_valid)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
