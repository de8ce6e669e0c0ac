/* The api layer without a network: bodies of requests, replies of every form,
 * errors and secrets, configuration, input and output of runs. A transport
 * that plays a script stands for the server. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "test_common.h"

#include <pthread.h>

/* ---- a server that plays a script ---------------------------------------- */

/* Replies come in turn; the last one repeats. A reply without "HTTP/" in front
 * is the body of a 200. */
typedef struct script {
    const char *const *replies;
    size_t n;
    size_t at; /* replies begun */
    int connects;
    char request[65536]; /* the last one */
    size_t request_len;
    char host[256];
    bool slow;            /* one byte at a time */
    pthread_mutex_t lock; /* workers are several */
    /* the test's own */
    gptner_config cfg;
    test_clock clock;
    gptner_transport transport;
    gptner_client *client;
    gptner_error err;
} script;

typedef struct script_conn {
    script *s;
    char *reply;
    size_t len;
    size_t given;
} script_conn;

static int script_connect(const char *host, int port, int timeout_ms,
                          void **conn, void *user)
{
    script *s = (script *)user;
    script_conn *c = (script_conn *)calloc(1, sizeof *c);
    (void)timeout_ms;
    pthread_mutex_lock(&s->lock);
    snprintf(s->host, sizeof s->host, "%s:%d", host, port);
    s->connects++;
    pthread_mutex_unlock(&s->lock);
    c->s = s;
    *conn = c;
    return 0;
}

/* A request starts a reply; what follows belongs to the same request. */
static int script_send(void *conn, const char *data, size_t len, int timeout_ms)
{
    script_conn *c = (script_conn *)conn;
    script *s = c->s;
    (void)timeout_ms;
    pthread_mutex_lock(&s->lock);
    if (c->reply == NULL || c->given == c->len) {
        size_t i = s->at < s->n ? s->at : s->n - 1;
        const char *text = s->replies[i];
        size_t size = strlen(text) + 256;
        free(c->reply);
        s->at++;
        s->request_len = 0;
        c->reply = (char *)malloc(size);
        c->given = 0;
        if (strncmp(text, "HTTP/", 5) == 0) {
            snprintf(c->reply, size, "%s", text);
        } else {
            snprintf(c->reply, size,
                     "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n"
                     "X-Request-Id: req_1\r\n\r\n%s",
                     (int)strlen(text), text);
        }
        c->len = strlen(c->reply);
    }
    if (s->request_len + len < sizeof s->request) {
        memcpy(s->request + s->request_len, data, len);
        s->request_len += len;
        s->request[s->request_len] = '\0';
    }
    pthread_mutex_unlock(&s->lock);
    return (int)len;
}

static int script_recv(void *conn, char *data, size_t cap, int timeout_ms)
{
    script_conn *c = (script_conn *)conn;
    size_t n = c->len - c->given;
    (void)timeout_ms;
    n = n < cap ? n : cap;
    if (c->s->slow && n > 1) {
        n = 1;
    }
    memcpy(data, c->reply + c->given, n);
    c->given += n;
    return (int)n;
}

static void script_close(void *conn)
{
    script_conn *c = (script_conn *)conn;
    free(c->reply);
    free(c);
}

static const char *const nothing[] = {"{}"};

static void script_init(script *s)
{
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    s->replies = nothing;
    s->n = 1;
    s->clock.now_ms = 1000;
    s->transport.connect_fn = script_connect;
    s->transport.send_fn = script_send;
    s->transport.recv_fn = script_recv;
    s->transport.close_fn = script_close;
    s->transport.is_secure = true;
    s->transport.user = s;
    s->cfg.base_url = "https://server.test/v1";
    s->cfg.api_key = "sk-secret-0123456789";
    s->cfg.transport = &s->transport;
    s->cfg.hooks = test_clock_hooks(&s->clock);
}

static void script_start(script *s)
{
    if (gptner_client_new(&s->cfg, &s->client, &s->err) != GPTNER_OK) {
        fail_msg("client: %s", s->err.message);
    }
}

static void script_play(script *s, const char *const *replies, size_t n)
{
    s->replies = replies;
    s->n = n;
    s->at = 0;
}

/* Ask "hi", to be answered by one reply. */
static gptner_result *script_ask(script *s, const char *reply)
{
    gptner_result *r = NULL;
    const char *one[1];
    one[0] = reply;
    script_play(s, one, 1);
    gptner_ask(s->client, "hi", &r, &s->err);
    s->replies = nothing;
    s->n = 1;
    assert_non_null(r);
    assert_int_equal(r->status, s->err.status);
    return r;
}

static void script_end(script *s)
{
    gptner_client_free(s->client);
    s->client = NULL;
}

static const char *script_body(script *s)
{
    const char *end = strstr(s->request, "\r\n\r\n");
    assert_non_null(end);
    return end + 4;
}

static void assert_str(gptner_str got, const char *want)
{
    if (want == NULL) {
        assert_null(got.ptr);
        return;
    }
    if (!gpn_str_eq_c(got, want)) {
        fail_msg("\"%.*s\" instead of \"%s\"", (int)got.len,
                 got.ptr != NULL ? got.ptr : "", want);
    }
}

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("no \"%s\" in \"%s\"", part, text);
    }
}

static void assert_lacks(const char *text, const char *part)
{
    if (strstr(text, part) != NULL) {
        fail_msg("\"%s\" in \"%s\"", part, text);
    }
}

static const char answer[] =
    "{\"id\":\"c1\",\"model\":\"m-1\",\"system_fingerprint\":\"fp\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"hello\"},\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,"
    "\"total_tokens\":5}}";

/* ---- bodies -------------------------------------------------------------- */

/* The body for options and prompt, as text to be freed. */
static char *body_of(script *s, const gptner_prompt *prompt,
                     const gptner_options *options, bool stream, unsigned adapt)
{
    gpn_ask ask;
    gpn_buf out;
    gptner_error err = GPN_ZERO;
    char *text;
    memset(&ask, 0, sizeof ask);
    ask.client = s->client;
    ask.prompt = prompt;
    ask.options = options;
    ask.stream = stream;
    ask.adapt = adapt;
    gpn_buf_init(&out, &s->client->env, 1 << 20);
    text = (char *)malloc(65536);
    if (gpn_body_write(&ask, &out, &err) == GPTNER_OK) {
        snprintf(text, 65536, "%.*s", (int)out.len, out.data);
    } else {
        snprintf(text, 65536, "%s: %s", gptner_status_name(err.status),
                 err.message);
    }
    gpn_buf_deinit(&out);
    return text;
}

static void assert_body(script *s, const gptner_prompt *prompt,
                        const gptner_options *options, const char *want)
{
    char *got = body_of(s, prompt, options, false, 0);
    assert_string_equal(got, want);
    free(got);
}

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void each_model_family_gets_the_fields_it_takes(void **state)
{
    /* effort NULL: not set. stop and penalty are always set. */
    static const struct {
        const char *model;
        const char *effort;
        const char *rest; /* behind the messages */
    } table[] = {
#define OLD_ALL                                     \
    ",\"temperature\":0,\"frequency_penalty\":0.5," \
    "\"max_tokens\":512,\"stop\":[\"END\"]"
#define NEW_ONLY ",\"max_completion_tokens\":512"
        {"gpt-4o-mini", NULL, OLD_ALL},
        {"gpt-4o-mini", "low", OLD_ALL},
        {"gpt-3.5-turbo", NULL, OLD_ALL},
        {"gpt-4", NULL, OLD_ALL},
        {"gpt-4.1-nano", NULL, OLD_ALL},
        {"chatgpt-4o-latest", NULL, OLD_ALL},
        {"llama3.1:8b", NULL, OLD_ALL},
        {"o1ympus", NULL, OLD_ALL},
        {"mistral-7b-instruct", NULL, OLD_ALL},
        {"ft:gpt-4o-mini:org::id", NULL, OLD_ALL},
        {"llama", "low", OLD_ALL ",\"reasoning_effort\":\"low\""},
        {"gpt-5-chat-latest", NULL,
         ",\"temperature\":0,\"frequency_penalty\":0.5"
         ",\"max_completion_tokens\":512,\"stop\":[\"END\"]"},
        {"o1", NULL, NEW_ONLY ",\"stop\":[\"END\"]"},
        {"o1-mini", "low",
         NEW_ONLY ",\"stop\":[\"END\"],\"reasoning_effort\":\"low\""},
        {"o3", NULL, NEW_ONLY},
        {"o4-mini-2025-04-16", NULL, NEW_ONLY},
        {"openai/o3-mini", NULL, NEW_ONLY},
        {"ft:o4-mini:org::id", NULL, NEW_ONLY},
        {"gpt-5", NULL, NEW_ONLY},
        {"gpt-5-mini", "none", NEW_ONLY ",\"reasoning_effort\":\"none\""},
        {"gpt-5.1", NULL, ",\"temperature\":0" NEW_ONLY},
        {"gpt-5.2-pro", "low", NEW_ONLY ",\"reasoning_effort\":\"low\""},
        {"gpt-5.4", NULL, NEW_ONLY},
        {"gpt-5.6-luna", "none",
         ",\"temperature\":0" NEW_ONLY ",\"reasoning_effort\":\"none\""},
        {"gpt-6-luna", "high", NEW_ONLY ",\"reasoning_effort\":\"high\""},
        {"gpt-6-astra", "none", NEW_ONLY ",\"reasoning_effort\":\"none\""},
        {"gpt-6.1-sol", "low", NEW_ONLY ",\"reasoning_effort\":\"low\""},
        {"gpt-6.1-terra", "none",
         ",\"temperature\":0" NEW_ONLY ",\"reasoning_effort\":\"none\""},
    };
    static const char *const stop[] = {"END"};
    gptner_prompt p = GPN_ZERO;
    script s;
    size_t i;
    (void)state;
    script_init(&s);
    script_start(&s);
    p.text = gptner_str_from("hi");
    for (i = 0; i < TEST_COUNT(table); i++) {
        gptner_options o = GPN_ZERO;
        char want[512];
        o.model = table[i].model;
        o.reasoning_effort = table[i].effort;
        o.frequency_penalty = 0.5;
        o.stop = stop;
        o.n_stop = 1;
        snprintf(want, sizeof want, "{\"model\":\"%s\"," HI "%s}",
                 table[i].model, table[i].rest);
        assert_body(&s, &p, &o, want);
    }
    script_end(&s);
}

static void completion_models_get_a_prompt(void **state)
{
    static const char *const models[] = {"gpt-3.5-turbo-instruct",
                                         "babbage-002", "davinci-002",
                                         "text-davinci-003"};
    gptner_prompt p = GPN_ZERO;
    gptner_options o = GPN_ZERO;
    script s;
    size_t i;
    (void)state;
    script_init(&s);
    s.cfg.system = "Be brief.";
    script_start(&s);
    p.text = gptner_str_from("h\ni");
    for (i = 0; i < TEST_COUNT(models); i++) {
        char want[512];
        o.model = models[i];
        snprintf(want, sizeof want,
                 "{\"model\":\"%s\",\"prompt\":\"Be brief.\\n\\nh\\ni\","
                 "\"temperature\":0,\"max_tokens\":512}",
                 models[i]);
        assert_body(&s, &p, &o, want);
    }
    o.model = "text-embedding-3-small";
    assert_body(&s, &p, &o,
                "GPTNER_ERR_INVALID_ARGUMENT: model text-embedding-3-small: "
                "makes embeddings; use gptner_embed()");
    o.model = "davinci-002";
    o.endpoint = GPTNER_ENDPOINT_CHAT;
    p.system = gptner_str_from("");
    p.text = gptner_str_from("hi");
    assert_body(&s, &p, &o,
                "{\"model\":\"davinci-002\"," HI ",\"temperature\":0,"
                "\"max_tokens\":512}");
    script_end(&s);
}

static void every_option_has_its_field(void **state)
{
    static const char *const stop[] = {"a\"", "b"};
    const int64_t seed = 0;
    gptner_prompt p = GPN_ZERO;
    gptner_options o = GPN_ZERO;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    p.text = gptner_str_from("hi");
    assert_body(&s, &p, &o,
                "{\"model\":\"gpt-4o-mini\"," HI ",\"temperature\":0,"
                "\"max_tokens\":512}");
    o.temperature = GPTNER_OMIT;
    o.max_tokens = GPTNER_OMIT;
    o.frequency_penalty = GPTNER_OMIT;
    assert_body(&s, &p, &o, "{\"model\":\"gpt-4o-mini\"," HI "}");
    o.temperature = 0.7;
    o.top_p = 0.1;
    o.frequency_penalty = -2;
    o.presence_penalty = 1.25;
    o.max_tokens = 7;
    o.token_field = GPTNER_TOKEN_FIELD_MAX_COMPLETION_TOKENS;
    o.n = 3;
    o.stop = stop;
    o.n_stop = 2;
    o.seed = &seed;
    o.format = GPTNER_FORMAT_JSON_SCHEMA;
    o.schema_json = "{\"type\":\"object\"}";
    o.tools_json = "[ {} ]";
    o.tool_choice_json = "\"auto\"";
    assert_body(
        &s, &p, &o,
        "{\"model\":\"gpt-4o-mini\"," HI ",\"temperature\":0.7,"
        "\"top_p\":0.1,\"frequency_penalty\":-2,\"presence_penalty\":1.25,"
        "\"max_completion_tokens\":7,\"n\":3,\"stop\":[\"a\\\"\",\"b\"],"
        "\"seed\":0,\"response_format\":{\"type\":\"json_schema\","
        "\"json_schema\":{\"name\":\"answer\",\"strict\":true,"
        "\"schema\":{\"type\":\"object\"}}},\"tools\":[ {} ],"
        "\"tool_choice\":\"auto\"}");
    script_end(&s);
}

static void sampling_can_be_forced_or_forbidden(void **state)
{
    gptner_prompt p = GPN_ZERO;
    gptner_options o = GPN_ZERO;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    p.text = gptner_str_from("hi");
    o.model = "o3";
    o.send_sampling = GPTNER_YES;
    o.presence_penalty = 1;
    assert_body(&s, &p, &o,
                "{\"model\":\"o3\"," HI ",\"temperature\":0,"
                "\"presence_penalty\":1,\"max_completion_tokens\":512}");
    o.model = "gpt-4o";
    o.send_sampling = GPTNER_NO;
    assert_body(&s, &p, &o, "{\"model\":\"gpt-4o\"," HI ",\"max_tokens\":512}");
    script_end(&s);
}

static void openai_itself_gets_the_new_limit(void **state)
{
    static const char *const hosts[] = {
        "https://api.openai.com/v1", "https://eu.api.openai.com/v1/",
        "https://my.openai.azure.com/openai/v1", "https://notopenai.com.test"};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(hosts); i++) {
        gptner_prompt p = GPN_ZERO;
        gptner_options o = GPN_ZERO;
        script s;
        char *body;
        script_init(&s);
        s.cfg.base_url = hosts[i];
        script_start(&s);
        p.text = gptner_str_from("hi");
        body = body_of(&s, &p, &o, true, 0);
        if (i < 2) {
            assert_has(body, "\"max_completion_tokens\":512");
            assert_has(body, "\"include_obfuscation\":false");
        } else {
            assert_has(body, "\"max_tokens\":512");
            assert_lacks(body, "obfuscation");
        }
        assert_has(body, "\"stream\":true,\"stream_options\":"
                         "{\"include_usage\":true");
        free(body);
        script_end(&s);
    }
}

static void extra_members_are_added_and_replace_ours(void **state)
{
    gptner_prompt p = GPN_ZERO;
    gptner_options o = GPN_ZERO;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    p.text = gptner_str_from("hi");
    o.extra_body_json =
        " { \"user\" : \"me\", \"temperature\":1, \"max_tokens\": 9,"
        "\"model\":\"x\" } ";
    assert_body(&s, &p, &o,
                "{" HI ",\"user\":\"me\",\"temperature\":1,"
                "\"max_tokens\":9,\"model\":\"x\"}");
    o.extra_body_json = "{}";
    assert_body(&s, &p, &o,
                "{\"model\":\"gpt-4o-mini\"," HI ",\"temperature\":0,"
                "\"max_tokens\":512}");
    o.extra_body_json = "[1]";
    assert_body(&s, &p, &o,
                "GPTNER_ERR_INVALID_ARGUMENT: options.extra_body_json: is not "
                "a JSON object");
    o.extra_body_json = "{\"stream\":true}";
    assert_body(&s, &p, &o,
                "GPTNER_ERR_INVALID_ARGUMENT: options.extra_body_json: holds "
                "\"stream\"; use gptner_chat_stream()");
    script_end(&s);
}

static void conversations_get_the_system_message_they_lack(void **state)
{
    gptner_message m[2];
    gptner_prompt p = GPN_ZERO;
    gptner_options o = GPN_ZERO;
    script s;
    (void)state;
    script_init(&s);
    s.cfg.system = "S";
    script_start(&s);
    o.temperature = GPTNER_OMIT;
    o.max_tokens = GPTNER_OMIT;
    memset(m, 0, sizeof m);
    m[0].role = gptner_str_from("user");
    m[0].content = gptner_str_from("q");
    m[1].json = gptner_str_from("{\"role\":\"assistant\",\"content\":null}");
    p.messages = m;
    p.n_messages = 2;
#define SYSTEM "{\"role\":\"system\",\"content\":\"S\"},"
#define TURNS                                \
    "{\"role\":\"user\",\"content\":\"q\"}," \
    "{\"role\":\"assistant\",\"content\":null}"
    assert_body(&s, &p, &o,
                "{\"model\":\"gpt-4o-mini\",\"messages\":[" SYSTEM TURNS "]}");
    m[0].role = gptner_str_from("developer");
    assert_body(&s, &p, &o,
                "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":"
                "\"developer\",\"content\":\"q\"},{\"role\":\"assistant\","
                "\"content\":null}]}");
    p.n_messages = 0;
    p.messages_json = gptner_str_from("[ " TURNS " ]");
    assert_body(&s, &p, &o,
                "{\"model\":\"gpt-4o-mini\",\"messages\":[" SYSTEM TURNS "]}");
    p.messages_json =
        gptner_str_from("[{\"content\":\"x\",\"role\":\"system\"}]");
    assert_body(&s, &p, &o,
                "{\"model\":\"gpt-4o-mini\",\"messages\":"
                "[{\"content\":\"x\",\"role\":\"system\"}]}");
    p.messages_json = gptner_str_from("[" TURNS "]");
    p.system = gptner_str_from("");
    assert_body(&s, &p, &o,
                "{\"model\":\"gpt-4o-mini\",\"messages\":[" TURNS "]}");
    p.messages_json = gptner_str_from("[1,]");
    assert_body(&s, &p, &o,
                "GPTNER_ERR_INVALID_ARGUMENT: messages_json: not JSON: line 1,"
                " column 4: a value is missing here");
    script_end(&s);
}

static void whole_bodies_go_as_they_stand(void **state)
{
    gptner_prompt p = GPN_ZERO;
    gptner_options o = GPN_ZERO;
    script s;
    char *body;
    (void)state;
    script_init(&s);
    script_start(&s);
    p.body_json = gptner_str_from(" {\"messages\" :[], \"x\":1e2}");
    assert_body(&s, &p, &o, " {\"messages\" :[], \"x\":1e2}");
    body = body_of(&s, &p, &o, true, 0);
    assert_string_equal(body, "{\"stream\":true,\"stream_options\":"
                              "{\"include_usage\":true},"
                              "\"messages\" :[], \"x\":1e2}");
    free(body);
    p.body_json = gptner_str_from("{\"stream\":true}");
    assert_body(&s, &p, &o,
                "GPTNER_ERR_INVALID_ARGUMENT: body_json: its member "
                "\"stream\" does not fit this call; leave it out");
    body = body_of(&s, &p, &o, true, 0);
    assert_string_equal(body, "{\"stream\":true}");
    free(body);
    p.body_json = gptner_str_from("[]");
    assert_body(&s, &p, &o,
                "GPTNER_ERR_INVALID_ARGUMENT: body_json: is not a JSON "
                "object");
    script_end(&s);
}

static void a_prompt_that_is_not_utf8_is_refused(void **state)
{
    gptner_prompt p = GPN_ZERO;
    gptner_options o = GPN_ZERO;
    script s;
    char *body;
    (void)state;
    script_init(&s);
    script_start(&s);
    p.text = gptner_str_from("caf\xE9");
    body = body_of(&s, &p, &o, false, 0);
    assert_has(body, "GPTNER_ERR_INVALID_ARGUMENT: request body: ");
    free(body);
    memset(&p, 0, sizeof p);
    body = body_of(&s, &p, &o, false, 0);
    assert_has(body, "has neither text nor messages nor a body");
    free(body);
    script_end(&s);
}

/* ---- requests ------------------------------------------------------------ */

static void a_request_has_the_right_head(void **state)
{
    static const gptner_header more[] = {{"X-Team", "ner"},
                                         {"user-agent", "mine/1"}};
    script s;
    (void)state;
    script_init(&s);
    s.cfg.organization = "org-1";
    s.cfg.project = "proj_1";
    s.cfg.headers = more;
    s.cfg.n_headers = 2;
    s.cfg.api_key = " sk-key-0123456789\r\n";
    script_start(&s);
    gptner_result_free(script_ask(&s, answer));
    assert_string_equal(s.host, "server.test:443");
    assert_has(s.request, "POST /v1/chat/completions HTTP/1.1\r\n"
                          "Host: server.test\r\n");
    assert_has(s.request, "\r\nAuthorization: Bearer sk-key-0123456789\r\n");
    assert_has(s.request, "\r\nContent-Type: application/json\r\n");
    assert_has(s.request, "\r\nAccept: application/json\r\n");
    assert_has(s.request, "\r\nAccept-Encoding: identity\r\n");
    assert_has(s.request, "\r\nOpenAI-Organization: org-1\r\n");
    assert_has(s.request, "\r\nOpenAI-Project: proj_1\r\n");
    assert_has(s.request, "\r\nX-Team: ner\r\n");
    assert_has(s.request, "\r\nuser-agent: mine/1\r\n");
    assert_lacks(s.request, "gptner/");
    assert_has(s.request, "\r\nContent-Length: 1");
    script_end(&s);
}

static void azure_urls_keep_their_query_and_version(void **state)
{
    static const struct {
        const char *base, *version, *target;
    } table[] = {
        {"https://x.test/openai/deployments/d/", "2024-10-21",
         "/openai/deployments/d/chat/completions?api-version=2024-10-21"},
        {"https://x.test/o?api-version=1", "2",
         "/o/chat/completions?"
         "api-version=1"},
        {"https://x.test/o?a=b", "2 3",
         "/o/chat/completions?a=b&"
         "api-version=2%203"},
        {"https://x.test", NULL, "/chat/completions"},
        {"https://x.test//v1//", NULL, "//v1/chat/completions"},
    };
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(table); i++) {
        script s;
        char want[256];
        script_init(&s);
        s.cfg.base_url = table[i].base;
        s.cfg.api_version = table[i].version;
        s.cfg.auth = GPTNER_AUTH_API_KEY;
        script_start(&s);
        gptner_result_free(script_ask(&s, answer));
        snprintf(want, sizeof want, "POST %s HTTP/1.1\r\n", table[i].target);
        assert_has(s.request, want);
        assert_has(s.request, "\r\napi-key: sk-secret-0123456789\r\n");
        assert_lacks(s.request, "Authorization");
        script_end(&s);
    }
}

static void the_environment_fills_what_is_not_given(void **state)
{
    script s;
    (void)state;
    script_init(&s);
    setenv("OPENAI_API_KEY", "sk-env-0123456789\n", 1);
    setenv("OPENAI_BASE_URL", "https://env.test/base", 1);
    setenv("OPENAI_ORG_ID", "org-env", 1);
    setenv("OPENAI_PROJECT_ID", "proj-env", 1);
    setenv("OPENAI_CUSTOM_HEADERS",
           "X-One: 1\r\n: \nno colon\n X-Two :  a:b \nx-given: env", 1);
    {
        static const gptner_header given[] = {{"X-Given", "cfg"}};
        gptner_client *c = NULL;
        s.cfg.headers = given;
        s.cfg.n_headers = 1;
        assert_int_equal(gptner_client_new(&s.cfg, &c, &s.err),
                         GPTNER_ERR_CONFIG); /* the line ": " */
        assert_null(c);
        setenv("OPENAI_CUSTOM_HEADERS",
               "X-One: 1\r\nno colon\n X-Two :  a:b \nx-given: env", 1);
        s.cfg.base_url = NULL;
        s.cfg.api_key = NULL;
        script_start(&s);
    }
    gptner_result_free(script_ask(&s, answer));
    assert_has(s.request, "POST /base/chat/completions ");
    assert_has(s.request, "\r\nHost: env.test\r\n");
    assert_has(s.request, "Bearer sk-env-0123456789\r\n");
    assert_has(s.request, "OpenAI-Organization: org-env\r\n");
    assert_has(s.request, "OpenAI-Project: proj-env\r\n");
    assert_has(s.request, "X-One: 1\r\n");
    assert_has(s.request, "X-Two: a:b\r\n");
    assert_has(s.request, "X-Given: cfg\r\n");
    assert_lacks(s.request, "x-given: env");
    script_end(&s);
    unsetenv("OPENAI_API_KEY");
    unsetenv("OPENAI_BASE_URL");
    unsetenv("OPENAI_ORG_ID");
    unsetenv("OPENAI_PROJECT_ID");
    unsetenv("OPENAI_CUSTOM_HEADERS");
}

static void a_wrong_configuration_says_what_is_wrong(void **state)
{
    static const gptner_header bad_name[] = {{"X Y", "1"}};
    static const gptner_header bad_value[] = {{"X", "1\r\nY: 2"}};
    static const gptner_header ours[] = {{"content-length", "1"}};
    int i;
    (void)state;
    unsetenv("OPENAI_API_KEY");
    for (i = 0; i < 13; i++) {
        gptner_client *c = NULL;
        const char *part = "";
        script s;
        script_init(&s);
        switch (i) {
        case 0:
            s.cfg.api_key = NULL;
            part = "api_key: not set; set OPENAI_API_KEY";
            break;
        case 1:
            s.cfg.api_key = "sk-1\r\nX: y";
            part = "api_key: holds a line break";
            break;
        case 2:
            s.cfg.base_url = "server.test/v1";
            part = "URL: must start with https://";
            break;
        case 3:
            s.cfg.base_url = "https://u:p@server.test";
            part = "base_url: holds a user name";
            break;
        case 4:
            s.cfg.headers = bad_name;
            s.cfg.n_headers = 1;
            part = "header \"X Y\": its name is none";
            break;
        case 5:
            s.cfg.headers = bad_value;
            s.cfg.n_headers = 1;
            part = "header \"X\": its name is none, or its value";
            break;
        case 6:
            s.cfg.headers = ours;
            s.cfg.n_headers = 1;
            part = "is set by the library";
            break;
        case 7:
            s.cfg.max_workers = -2;
            part = "max_workers";
            break;
        case 8:
            s.cfg.options.tools_json = "{}";
            part = "options.tools_json: is not a JSON array";
            break;
        case 9:
            s.cfg.options.format = GPTNER_FORMAT_JSON_SCHEMA;
            part = "options.schema_json: missing";
            break;
        case 10:
            s.cfg.client_cert_file = "x.pem";
            part = "client_cert_file";
            break;
        case 11:
            s.cfg.organization = "a\nb";
            part = "organization";
            break;
        default:
            s.transport.close_fn = NULL;
            part = "transport: a function is missing";
            break;
        }
        assert_int_equal(gptner_client_new(&s.cfg, &c, &s.err),
                         GPTNER_ERR_CONFIG);
        assert_int_equal(s.err.status, GPTNER_ERR_CONFIG);
        assert_null(c);
        assert_has(s.err.message, part);
        assert_lacks(s.err.message, "sk-");
    }
}

static void an_empty_key_sends_none(void **state)
{
    script s;
    (void)state;
    script_init(&s);
    s.cfg.api_key = "";
    script_start(&s);
    gptner_result_free(script_ask(&s, answer));
    assert_lacks(s.request, "Authorization");
    script_end(&s);
}

/* ---- replies ------------------------------------------------------------- */

static void a_plain_answer_is_taken_apart(void **state)
{
    script s;
    gptner_result *r;
    (void)state;
    script_init(&s);
    s.cfg.keep_raw = true;
    script_start(&s);
    r = script_ask(&s, answer);
    assert_int_equal(r->status, GPTNER_OK);
    assert_string_equal(r->message, "");
    assert_str(r->text, "hello");
    assert_int_equal(r->text.ptr[r->text.len], '\0');
    assert_str(r->finish_reason, "stop");
    assert_str(r->id, "c1");
    assert_str(r->model, "m-1");
    assert_str(r->system_fingerprint, "fp");
    assert_str(r->request_id, "req_1");
    assert_str(r->raw, answer);
    assert_int_equal(r->n_choices, 1);
    assert_int_equal(r->usage.prompt_tokens, 3);
    assert_int_equal(r->usage.completion_tokens, 2);
    assert_int_equal(r->usage.total_tokens, 5);
    assert_int_equal(r->usage.cached_tokens, -1);
    assert_int_equal(r->usage.reasoning_tokens, -1);
    assert_int_equal(r->attempts, 1);
    assert_int_equal(r->http_status, 200);
    assert_int_equal(r->retry_after_ms, -1);
    gptner_result_free(r);
    script_end(&s);
}

#define CHOICE(message) "{\"choices\":[{\"message\":" message "}]}"

static void every_shape_of_a_reply_is_understood(void **state)
{
    static const struct {
        const char *reply;
        gptner_status status;
        const char *text; /* NULL: none */
    } table[] = {
        {CHOICE("{\"content\":\"a\"}"), GPTNER_OK, "a"},
        {" \n\r\t" CHOICE("{\"content\":\"a\"}") "\n", GPTNER_OK, "a"},
        {"\xEF\xBB\xBF" CHOICE("{\"content\":\"a\"}"), GPTNER_OK, "a"},
        {CHOICE("{\"content\":\"\\ud800x\\u00e9\"}"), GPTNER_OK,
         "\xEF\xBF\xBDx\xC3\xA9"},
        {CHOICE("{\"content\":\"\"}"), GPTNER_OK, ""},
        {CHOICE("{\"content\":null}"), GPTNER_OK, NULL},
        {CHOICE("{}"), GPTNER_OK, NULL},
        {CHOICE("{\"content\":[]}"), GPTNER_OK, NULL},
        {CHOICE("{\"content\":[{\"type\":\"text\",\"text\":\"a\\n\"},"
                "{\"type\":\"thinking\",\"text\":\"no\"},"
                "{\"type\":\"output_text\",\"text\":\"b\"},"
                "{\"text\":\"c\"},\"d\",null,{\"type\":\"text\"}]}"),
         GPTNER_OK, "a\nbcd"},
        {CHOICE("{\"content\":\"old\",\"content\":\"new\"}"), GPTNER_OK, "new"},
        {"{\"choices\":[{\"text\":\"t\",\"logprobs\":null}]}", GPTNER_OK, "t"},
        {"{\"choices\":[{\"message\":{\"content\":\"m\"},\"text\":\"t\"}]}",
         GPTNER_OK, "m"},
        {"{\"choices\":[{\"index\":1,\"text\":\"b\"},"
         "{\"index\":0,\"text\":\"a\"}]}",
         GPTNER_OK, "a"},
        {"{\"choices\":[{\"index\":1e0,\"text\":\"b\"},"
         "{\"index\":0.0,\"text\":\"a\"}]}",
         GPTNER_OK, "a"},
        {"{\"error\":null,\"choices\":[{\"text\":\"t\"}]}", GPTNER_OK, "t"},
        {"{\"error\":false,\"choices\":[{\"text\":\"t\"}]}", GPTNER_OK, "t"},
        {"{\"error\":\"\",\"choices\":[{\"text\":\"t\"}]}", GPTNER_OK, "t"},
        {"{\"choices\":[{\"text\":\"t\",\"finish_reason\":null}],"
         "\"usage\":null,\"id\":7,\"model\":{}}",
         GPTNER_OK, "t"},
        {CHOICE("{\"content\":null,\"refusal\":\"no\"}"), GPTNER_ERR_REFUSED,
         NULL},
        {"{\"choices\":[{\"text\":\"cut\",\"finish_reason\":\"length\"}]}",
         GPTNER_ERR_TRUNCATED, "cut"},
        {"{\"choices\":[{\"message\":{\"content\":\"\"},"
         "\"finish_reason\":\"length\"}]}",
         GPTNER_ERR_TRUNCATED, ""},
        {"{\"choices\":[{\"text\":\"x\",\"finish_reason\":"
         "\"content_filter\"}]}",
         GPTNER_ERR_FILTERED, "x"},
        {"{\"choices\":[]}", GPTNER_ERR_BAD_REPLY, NULL},
        {"{\"choices\":{}}", GPTNER_ERR_BAD_REPLY, NULL},
        {"{\"choices\":[null]}", GPTNER_ERR_BAD_REPLY, NULL},
        {"{\"choices\":[{}]}", GPTNER_ERR_BAD_REPLY, NULL},
        {"{}", GPTNER_ERR_BAD_REPLY, NULL},
        {"[]", GPTNER_ERR_BAD_REPLY, NULL},
        {"null", GPTNER_ERR_BAD_REPLY, NULL},
        {"", GPTNER_ERR_BAD_REPLY, NULL},
        {"{\"choices\":[{\"text\":\"t\"}]", GPTNER_ERR_BAD_REPLY, NULL},
        {"{\"choices\":[{\"text\":\"t\"}]}x", GPTNER_ERR_BAD_REPLY, NULL},
        {"{\"choices\":[{\"text\":NaN}]}", GPTNER_ERR_BAD_REPLY, NULL},
        {"<html>", GPTNER_ERR_BAD_REPLY, NULL},
    };
    script s;
    size_t i;
    (void)state;
    script_init(&s);
    script_start(&s);
    for (i = 0; i < TEST_COUNT(table); i++) {
        gptner_result *r = script_ask(&s, table[i].reply);
        if (r->status != table[i].status) {
            fail_msg("%s: %s: %s", table[i].reply,
                     gptner_status_name(r->status), r->message);
        }
        if (r->status != GPTNER_ERR_BAD_REPLY) {
            assert_str(r->text, table[i].text);
            assert_int_equal(r->attempts, 1);
        } else {
            assert_int_equal(r->attempts, 3);
        }
        assert_true((r->status == GPTNER_OK) == (r->message[0] == '\0'));
        gptner_result_free(r);
    }
    script_end(&s);
}

static void text_keeps_u0000(void **state)
{
    script s;
    gptner_result *r;
    (void)state;
    script_init(&s);
    script_start(&s);
    r = script_ask(&s, CHOICE("{\"content\":\"a\\u0000b\"}"));
    assert_int_equal(r->text.len, 3);
    assert_memory_equal(r->text.ptr, "a\0b", 4);
    gptner_result_free(r);
    script_end(&s);
}

static void choices_hold_all_they_came_with(void **state)
{
    script s;
    gptner_result *r;
    (void)state;
    script_init(&s);
    script_start(&s);
    r = script_ask(&s,
                   "{\"choices\":["
                   "{\"index\":4,\"text\":\"e\"},{\"index\":3,\"text\":\"d\"},"
                   "{\"index\":2,\"text\":\"c\"},{\"index\":1,\"text\":\"b\","
                   "\"logprobs\":{\"content\":[]}},"
                   "{\"index\":5,\"text\":\"f\"},"
                   "{\"index\":0,\"finish_reason\":\"tool_calls\",\"message\":"
                   "{\"content\":null,\"reasoning\":\"why\",\"tool_calls\":"
                   "[{\"id\":\"1\\n\"}]}}],"
                   "\"usage\":{\"input_tokens\":10.0,\"output_tokens\":1e1,"
                   "\"input_tokens_details\":{\"cached_tokens\":4},"
                   "\"completion_tokens_details\":{\"reasoning_tokens\":6},"
                   "\"total_tokens\":-5}}");
    assert_int_equal(r->status, GPTNER_OK);
    assert_int_equal(r->n_choices, 6);
    assert_str(r->choices[5].text, "f");
    assert_str(r->choices[1].text, "b");
    assert_str(r->choices[1].logprobs_json, "{\"content\":[]}");
    assert_str(r->choices[0].tool_calls_json, "[{\"id\":\"1\\n\"}]");
    assert_str(r->choices[0].reasoning, "why");
    assert_str(r->finish_reason, "tool_calls");
    assert_null(r->text.ptr);
    assert_int_equal(r->usage.prompt_tokens, 10);
    assert_int_equal(r->usage.completion_tokens, 10);
    assert_int_equal(r->usage.cached_tokens, 4);
    assert_int_equal(r->usage.reasoning_tokens, 6);
    assert_int_equal(r->usage.total_tokens, -1);
    gptner_result_free(r);
    script_end(&s);
}

static void leading_thoughts_are_taken_off_on_request(void **state)
{
    script s;
    gptner_result *r;
    (void)state;
    script_init(&s);
    s.cfg.omit_reasoning = true;
    script_start(&s);
    r = script_ask(&s,
                   CHOICE("{\"content\":\"\\n<think>hm</think>\\n\\nyes\"}"));
    assert_str(r->text, "yes");
    assert_str(r->choices[0].reasoning, "hm");
    gptner_result_free(r);
    r = script_ask(&s, CHOICE("{\"content\":\"no <think>x</think>\"}"));
    assert_str(r->text, "no <think>x</think>");
    gptner_result_free(r);
    script_end(&s);
}

/* ---- errors -------------------------------------------------------------- */

#define HTTP(status, headers, body) \
    "HTTP/1.1 " status " X\r\nConnection: close\r\n" headers "\r\n" body

static void every_shape_of_an_error_is_understood(void **state)
{
    static const struct {
        const char *reply;
        gptner_status status;
        const char *type, *code, *param, *message;
    } table[] = {
        {HTTP("401", "",
              "{\"error\":{\"message\":\"Incorrect\",\"type\":"
              "\"invalid_request_error\",\"param\":null,\"code\":"
              "\"invalid_api_key\"}}"),
         GPTNER_ERR_AUTH, "invalid_request_error", "invalid_api_key", NULL,
         "Incorrect"},
        {HTTP("400", "",
              "{\"error\":{\"message\":\"m\",\"type\":\"BadRequestError\","
              "\"param\":\"p\",\"code\":400}}"),
         GPTNER_ERR_BAD_REQUEST, "BadRequestError", "400", "p", "m"},
        {HTTP("404", "",
              "{\"object\":\"error\",\"message\":\"flat\",\"type\":\"t\","
              "\"param\":null,\"code\":404}"),
         GPTNER_ERR_NOT_FOUND, "t", "404", NULL, "flat"},
        {HTTP("404", "", "{\"error\":\"model not found\"}"),
         GPTNER_ERR_NOT_FOUND, NULL, NULL, NULL, "model not found"},
        {HTTP("422", "", "{\"detail\":\"wrong\"}"), GPTNER_ERR_BAD_REQUEST,
         NULL, NULL, NULL, "wrong"},
        {HTTP("422", "",
              "{\"detail\":[{\"loc\":[\"body\",\"n\",0],\"msg\":\"too "
              "many\",\"type\":\"value_error\"},{\"msg\":\"other\"}]}"),
         GPTNER_ERR_BAD_REQUEST, "value_error", NULL, "0", "too many"},
        {HTTP("400", "", "[{\"error\":{\"message\":\"in array\"}}]"),
         GPTNER_ERR_BAD_REQUEST, NULL, NULL, NULL, "in array"},
        {HTTP("400", "", "{\"error\":{\"message\":\"cut"),
         GPTNER_ERR_BAD_REQUEST, NULL, NULL, NULL, NULL},
        {HTTP("403", "", "<html><head><TITLE>403 Forbidden</title>"),
         GPTNER_ERR_PERMISSION, NULL, NULL, NULL, "403 Forbidden"},
        {HTTP("403", "", "<p>go away</p>"), GPTNER_ERR_PERMISSION, NULL, NULL,
         NULL, ""},
        {HTTP("403", "", "\n go away \n"), GPTNER_ERR_PERMISSION, NULL, NULL,
         NULL, "go away"},
        {HTTP("403", "", ""), GPTNER_ERR_PERMISSION, NULL, NULL, NULL, ""},
        {HTTP("400", "",
              "{\"error\":{\"message\":\"x\",\"code\":"
              "\"context_length_exceeded\"}}"),
         GPTNER_ERR_CONTEXT_LENGTH, NULL, "context_length_exceeded", NULL, "x"},
        {HTTP("429", "",
              "{\"error\":{\"message\":\"x\",\"type\":"
              "\"insufficient_quota\"}}"),
         GPTNER_ERR_QUOTA, "insufficient_quota", NULL, NULL, "x"},
        {HTTP("307", "Location: https://other.test/\r\n", ""),
         GPTNER_ERR_REDIRECT, NULL, NULL, NULL, ""},
        /* errors within a 200 */
        {"{\"error\":{\"message\":\"no credit\",\"code\":401},"
         "\"choices\":[]}",
         GPTNER_ERR_AUTH, NULL, "401", NULL, "no credit"},
        {"{\"error\":{\"message\":\"m\",\"type\":"
         "\"exceed_context_size_error\",\"code\":400}}",
         GPTNER_ERR_CONTEXT_LENGTH, "exceed_context_size_error", "400", NULL,
         "m"},
        {"{\"error\":{\"message\":\"m\",\"type\":"
         "\"invalid_request_error\"}}",
         GPTNER_ERR_BAD_REQUEST, "invalid_request_error", NULL, NULL, "m"},
        {"{\"choices\":[{\"error\":{\"code\":403,\"message\":\"m\"}}]}",
         GPTNER_ERR_PERMISSION, NULL, "403", NULL, "m"},
    };
    script s;
    size_t i;
    (void)state;
    script_init(&s);
    script_start(&s);
    for (i = 0; i < TEST_COUNT(table); i++) {
        gptner_result *r = script_ask(&s, table[i].reply);
        if (r->status != table[i].status) {
            fail_msg("%s: %s: %s", table[i].reply,
                     gptner_status_name(r->status), r->message);
        }
        assert_int_equal(r->attempts, 1);
        assert_str(r->error_type, table[i].type);
        assert_str(r->error_code, table[i].code);
        assert_str(r->error_param, table[i].param);
        if (table[i].message != NULL) {
            assert_true(gpn_str_eq_c(r->error_message, table[i].message));
        }
        assert_has(r->message, "chat/completions: HTTP ");
        assert_int_equal(s.err.http_status, r->http_status);
        gptner_result_free(r);
    }
    script_end(&s);
}

static void keys_never_reach_an_error_text(void **state)
{
    static const struct {
        const char *message, *masked;
    } table[] = {
        {"Incorrect API key: sk-abcdefgh12345.", "Incorrect API key: "
                                                 "sk-**************"},
        {"key sk-ab***********xyz!", "key sk-****************!"},
        {"a task-forcefully-done", "a task-forcefully-done"},
        {"sk-short", "sk-short"},
        {"got hidden-key-77 here", "got ************* here"},
        {"got hidden-k", "got ********"},
        {"hidden-", "hidden-"},
    };
    script s;
    size_t i;
    (void)state;
    script_init(&s);
    s.cfg.api_key = "hidden-key-77";
    s.cfg.keep_raw = true;
    script_start(&s);
    for (i = 0; i < TEST_COUNT(table); i++) {
        char reply[512];
        gptner_result *r;
        snprintf(reply, sizeof reply,
                 HTTP("401", "", "{\"error\":{\"message\":\"%s\"}}"),
                 table[i].message);
        r = script_ask(&s, reply);
        assert_str(r->error_message, table[i].masked);
        assert_has(r->message, table[i].masked);
        assert_lacks(r->message, "hidden-key");
        assert_has(r->raw.ptr, table[i].masked);
        gptner_result_free(r);
    }
    script_end(&s);
}

static void delays_are_read_in_the_documented_order(void **state)
{
#define LIMITED(headers, message) \
    HTTP("429", headers, "{\"error\":{\"message\":\"" message "\"}}")
    static const struct {
        const char *reply;
        int64_t ms;
    } table[] = {
        {LIMITED("Retry-After-Ms: 1500\r\nRetry-After: 7\r\n", ""), 1500},
        {LIMITED("Retry-After-Ms: nan\r\nRetry-After: 7\r\n", ""), 7000},
        {LIMITED("Retry-After: 0.5\r\n", "try again in 9s"), 500},
        {LIMITED("Retry-After: 0\r\n", "Please try again in 1.2s."), 1200},
        {LIMITED("", "Please try again in 6m0s."), 360000},
        {LIMITED("", "slow down"), -1},
    };
    script s;
    size_t i;
    (void)state;
    script_init(&s);
    s.cfg.max_throttle_retries = -1;
    script_start(&s);
    for (i = 0; i < TEST_COUNT(table); i++) {
        gptner_result *r = script_ask(&s, table[i].reply);
        assert_int_equal(r->status, GPTNER_ERR_RATE_LIMITED);
        assert_int_equal(r->retry_after_ms, table[i].ms);
        assert_int_equal(s.err.retry_after_ms, table[i].ms);
        gptner_result_free(r);
    }
    script_end(&s);
}

static void a_retry_that_succeeds_leaves_no_trace_but_the_count(void **state)
{
    static const char *const replies[] = {
        HTTP("500", "", "{\"error\":{\"message\":\"m\",\"type\":\"t\"}}"),
        HTTP("503", "", ""), "{\"choices\":[]}", answer};
    script s;
    gptner_result *r = NULL;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, replies, 4);
    assert_int_equal(gptner_ask(s.client, "hi", &r, &s.err), GPTNER_OK);
    assert_int_equal(r->attempts, 4);
    assert_null(r->error_type.ptr);
    assert_int_equal(r->http_status, 200);
    assert_true(r->total_ms > 1000);
    gptner_result_free(r);
    script_end(&s);
}

/* ---- adaptation ---------------------------------------------------------- */

#define REFUSES(param, code)                                           \
    HTTP("400", "",                                                    \
         "{\"error\":{\"message\":\"Unsupported: '" param "'\","       \
         "\"type\":\"invalid_request_error\",\"param\":\"" param "\"," \
         "\"code\":\"" code "\"}}")

static void a_field_of_ours_that_is_refused_is_adapted_once(void **state)
{
    static const char *const replies[] = {
        REFUSES("max_tokens", "unsupported_parameter"),
        REFUSES("temperature", "unsupported_value"), answer, answer};
    script s;
    gptner_result *r = NULL;
    (void)state;
    script_init(&s);
    s.cfg.options.model = "new-model";
    script_start(&s);
    script_play(&s, replies, 4);
    assert_int_equal(gptner_ask(s.client, "hi", &r, &s.err), GPTNER_OK);
    assert_int_equal(r->attempts, 3);
    assert_string_equal(script_body(&s), "{\"model\":\"new-model\"," HI
                                         ",\"max_completion_tokens\":512}");
    gptner_result_free(r);
    /* remembered */
    assert_int_equal(gptner_ask(s.client, "hi", &r, &s.err), GPTNER_OK);
    assert_int_equal(r->attempts, 1);
    assert_has(script_body(&s), "max_completion_tokens");
    gptner_result_free(r);
    script_end(&s);
}

static void adaptation_never_loops(void **state)
{
    static const char *const replies[] = {
        REFUSES("max_tokens", "unsupported_parameter"),
        REFUSES("max_completion_tokens", "unsupported_parameter")};
    static const char *const other[] = {
        REFUSES("seed", "unsupported_parameter")};
    static const char *const value[] = {
        REFUSES("max_tokens", "unsupported_value")};
    script s;
    gptner_result *r = NULL;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, replies, 2);
    assert_int_equal(gptner_ask(s.client, "hi", &r, &s.err),
                     GPTNER_ERR_BAD_REQUEST);
    assert_int_equal(r->attempts, 2);
    assert_str(r->error_param, "max_completion_tokens");
    gptner_result_free(r);
    script_play(&s, other, 1);
    gptner_ask(s.client, "hi", &r, &s.err);
    assert_int_equal(r->attempts, 1);
    gptner_result_free(r);
    script_play(&s, value, 1);
    gptner_ask(s.client, "hi", &r, &s.err);
    assert_int_equal(r->attempts, 1);
    gptner_result_free(r);
    script_end(&s);
}

static void what_the_caller_insists_on_is_not_adapted(void **state)
{
    static const char *const replies[] = {
        REFUSES("temperature", "unsupported_value")};
    static const char *const limit[] = {
        REFUSES("max_tokens", "unsupported_parameter")};
    int i;
    (void)state;
    for (i = 0; i < 3; i++) {
        script s;
        gptner_result *r = NULL;
        script_init(&s);
        s.cfg.options.send_sampling = i == 0 ? GPTNER_YES : GPTNER_AUTO;
        s.cfg.options.token_field =
            i == 1 ? GPTNER_TOKEN_FIELD_MAX_TOKENS : GPTNER_TOKEN_FIELD_AUTO;
        s.cfg.options.extra_body_json = i == 2 ? "{\"temperature\":2}" : NULL;
        script_start(&s);
        script_play(&s, i == 1 ? limit : replies, 1);
        gptner_ask(s.client, "hi", &r, &s.err);
        assert_int_equal(r->attempts, 1);
        gptner_result_free(r);
        script_end(&s);
    }
}

static void the_table_of_what_was_learnt_is_bounded(void **state)
{
    script s;
    int i;
    (void)state;
    script_init(&s);
    script_start(&s);
    for (i = 0; i < 100; i++) {
        char model[32];
        snprintf(model, sizeof model, "model-%d", i);
        gpn_adapted(s.client, model, GPN_ADAPT_TOP_P);
        gpn_adapted(s.client, model, GPN_ADAPT_TEMPERATURE);
        assert_int_equal(gpn_adapted(s.client, model, 0),
                         GPN_ADAPT_TOP_P | GPN_ADAPT_TEMPERATURE);
    }
    assert_int_equal(gpn_adapted(s.client, "model-99", 0),
                     GPN_ADAPT_TOP_P | GPN_ADAPT_TEMPERATURE);
    assert_int_equal(gpn_adapted(s.client, "model-0", 0), 0);
    assert_int_equal(gpn_adapted(s.client, "model", 0), 0);
    script_end(&s);
}

/* ---- streams ------------------------------------------------------------- */

typedef struct heard {
    char text[1024];
    int calls;
    int stop_at;
} heard;

static bool hear(const gptner_delta *d, void *user)
{
    heard *h = (heard *)user;
    size_t len = strlen(h->text);
    snprintf(h->text + len, sizeof h->text - len, "%d:%.*s%s%.*s|",
             (int)d->choice, (int)d->text.len,
             d->text.ptr != NULL ? d->text.ptr : "",
             d->finish_reason.len > 0 ? "/" : "", (int)d->finish_reason.len,
             d->finish_reason.ptr != NULL ? d->finish_reason.ptr : "");
    return ++h->calls != h->stop_at;
}

#define STREAM(events)                                       \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" \
    "Connection: close\r\n\r\n" events
#define DELTA(i, text)                                                 \
    "data: {\"id\":\"s1\",\"model\":\"m\",\"choices\":[{\"index\":" #i \
    ",\"delta\":{\"content\":\"" text "\"},\"finish_reason\":null}]}\n\n"
#define FINISH(i, why)                                   \
    "data:{\"choices\":[{\"index\":" #i ",\"delta\":{}," \
    "\"finish_reason\":\"" why "\"}]}\r\n\r\n"

static gptner_status hear_all(script *s, heard *h, gptner_result **r)
{
    gptner_prompt p = GPN_ZERO;
    p.text = gptner_str_from("hi");
    return gptner_chat_stream(s->client, &p, hear, h, r, &s->err);
}

static void a_stream_is_handed_over_and_joined(void **state)
{
    static const char *const replies[] = {STREAM(
        ": hello\n\n" DELTA(0, "") DELTA(0, "a\\n") DELTA(1, "x") DELTA(0, "b")
            FINISH(1, "stop") FINISH(
                0,
                "stop") "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,"
                        "\"completion_tokens\":3}}\n\ndata: [DONE]\n\n")};
    int slow;
    (void)state;
    for (slow = 0; slow < 2; slow++) {
        script s;
        heard h = GPN_ZERO;
        gptner_result *r = NULL;
        script_init(&s);
        s.slow = slow != 0;
        script_start(&s);
        script_play(&s, replies, 1);
        assert_int_equal(hear_all(&s, &h, &r), GPTNER_OK);
        assert_string_equal(h.text, "0:a\n|1:x|0:b|1:/stop|0:/stop|");
        assert_str(r->text, "a\nb");
        assert_int_equal(r->n_choices, 2);
        assert_str(r->choices[1].text, "x");
        assert_str(r->id, "s1");
        assert_str(r->model, "m");
        assert_str(r->finish_reason, "stop");
        assert_int_equal(r->usage.prompt_tokens, 4);
        assert_int_equal(r->usage.total_tokens, -1);
        assert_has(script_body(&s), "\"stream\":true");
        gptner_result_free(r);
        script_end(&s);
    }
}

static void tool_calls_of_a_stream_are_joined_by_index(void **state)
{
#define TOOLS(json)                                                    \
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":" json \
    "}}]}\n\n"
    static const char *const replies[] = {STREAM(
        TOOLS("[{\"index\":1,\"id\":\"c2\",\"function\":{\"name\":\"g\","
              "\"arguments\":\"\"}}]")
            TOOLS("[{\"index\":0,\"id\":\"c1\",\"type\":\"function\","
                  "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\"}}]")
                TOOLS("[{\"index\":0,\"function\":{\"arguments\":\"\\\":1}"
                      "\"}}]") FINISH(0, "tool_calls") "data: [DONE]\n\n")};
    script s;
    heard h = GPN_ZERO;
    gptner_result *r = NULL;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, replies, 1);
    assert_int_equal(hear_all(&s, &h, &r), GPTNER_OK);
    assert_int_equal(h.calls, 4);
    assert_str(r->choices[0].tool_calls_json,
               "[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":"
               "\"f\",\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"c2\","
               "\"type\":\"function\",\"function\":{\"name\":\"g\","
               "\"arguments\":\"\"}}]");
    gptner_result_free(r);
    script_end(&s);
}

static void the_end_of_a_stream_is_judged(void **state)
{
    static const struct {
        const char *reply;
        gptner_status status;
        int attempts;
        const char *text;
    } table[] = {
        /* no [DONE], but all is there */
        {STREAM(DELTA(0, "a") FINISH(0, "stop")), GPTNER_OK, 1, "a"},
        /* [DONE], but no finish_reason */
        {STREAM(DELTA(0, "a") "data: [DONE]\n\n"), GPTNER_OK, 1, "a"},
        /* neither */
        {STREAM(DELTA(0, "a")), GPTNER_ERR_CONNECTION_LOST, 1, "a"},
        /* one choice ended, the other did not */
        {STREAM(DELTA(1, "b") DELTA(0, "a") FINISH(0, "stop")),
         GPTNER_ERR_CONNECTION_LOST, 1, "a"},
        {STREAM(""), GPTNER_ERR_CONNECTION_LOST, 6, NULL},
        {STREAM("data: [DONE]\n\n"), GPTNER_ERR_BAD_REPLY, 3, NULL},
        {STREAM("data: {]\n\n"), GPTNER_ERR_BAD_REPLY, 3, NULL},
        {STREAM(DELTA(0, "a") "data: {]\n\n"), GPTNER_ERR_BAD_REPLY, 1, "a"},
        {STREAM(DELTA(0, "a") FINISH(0, "length") "data: [DONE]\n\n"),
         GPTNER_ERR_TRUNCATED, 1, "a"},
        {STREAM(DELTA(0, "a") "data: {\"error\":{\"message\":\"m\",\"type\":"
                              "\"server_error\"}}\n\ndata: [DONE]\n\n"),
         GPTNER_ERR_SERVER, 1, "a"},
        {STREAM("event: error\ndata: {\"message\":\"m\",\"type\":"
                "\"invalid_request_error\"}\n\n"),
         GPTNER_ERR_BAD_REQUEST, 1, NULL},
        {STREAM("data: {\"error\":{\"message\":\"m\"}}\n\n"), GPTNER_ERR_SERVER,
         6, NULL},
        {HTTP("401", "", "{\"error\":{\"message\":\"m\"}}"), GPTNER_ERR_AUTH, 1,
         NULL},
        {HTTP("200", "Content-Type: application/json\r\n",
              "{\"choices\":[{\"text\":\"whole\"}]}"),
         GPTNER_OK, 1, "whole"},
    };
    script s;
    size_t i;
    (void)state;
    script_init(&s);
    script_start(&s);
    for (i = 0; i < TEST_COUNT(table); i++) {
        heard h = GPN_ZERO;
        gptner_result *r = NULL;
        script_play(&s, &table[i].reply, 1);
        hear_all(&s, &h, &r);
        if (r->status != table[i].status || r->attempts != table[i].attempts) {
            fail_msg("%s: %s, %d attempts: %s", table[i].reply,
                     gptner_status_name(r->status), r->attempts, r->message);
        }
        assert_str(r->text, table[i].text);
        gptner_result_free(r);
    }
    script_end(&s);
}

static void a_listener_can_stop_a_stream(void **state)
{
    static const char *const replies[] = {
        STREAM(DELTA(0, "a") DELTA(0, "b") FINISH(0, "stop"))};
    script s;
    heard h = GPN_ZERO;
    gptner_result *r = NULL;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, replies, 1);
    h.stop_at = 1;
    assert_int_equal(hear_all(&s, &h, &r), GPTNER_ERR_CANCELLED);
    assert_str(r->text, "a");
    assert_int_equal(r->attempts, 1);
    gptner_result_free(r);
    script_end(&s);
}

/* ---- runs ---------------------------------------------------------------- */

static char *read_text(const char *path)
{
    size_t len;
    char *text = test_slurp(path, &len);
    assert_non_null(text);
    return text;
}

static void a_text_file_becomes_a_text_file(void **state)
{
    static const char input[] =
        "\xEF\xBB\xBFone\r\n\n  \ntwo\rx\r\r\nthree\xE2\x80\xA8 still three";
    static const char *const replies[] = {
        CHOICE("{\"content\":\"a\\nb\\\\c\\rd\"}"),
        HTTP("400", "", "{\"error\":{\"message\":\"bad\\nthing\"}}"),
        CHOICE("{\"content\":\"\"}")};
    char in[256], out[256];
    script s;
    gptner_run_config run = GPN_ZERO;
    gptner_run_summary sum;
    char *text;
    (void)state;
    script_init(&s);
    script_start(&s);
    test_spit(test_tmp_path(in, "in.txt"), input, sizeof input - 1);
    script_play(&s, replies, 3);
    run.input_path = in;
    run.output_path = test_tmp_path(out, "out.txt");
    run.max_workers = 1;
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err), GPTNER_OK);
    text = read_text(out);
    assert_string_equal(text, "a\\nb\\\\c\\rd\n"
                              "ERROR: BAD_REQUEST: chat/completions: HTTP 400:"
                              " bad?thing\n\n");
    free(text);
    assert_int_equal(sum.total, 3);
    assert_int_equal(sum.ok, 2);
    assert_int_equal(sum.failed, 1);
    assert_has(script_body(&s), "three\xE2\x80\xA8 still three");
    script_end(&s);
}

static void lines_of_json_are_prompts(void **state)
{
    static const char input[] =
        "{\"prompt\":\"a\\nb\",\"custom_id\":\"x\",\"system\":\"S\"}\n"
        "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],"
        "\"custom_id\":17}\r\n"
        "\n"
        "{\"body\":{\"model\":\"m\",\"messages\":[]},\"prompt\":null}\n"
        "nonsense\n"
        "{\"prompt\":[]}\n"
        "{\"text\":\"no\"}\n"
        "{\"prompt\":\"last\",\"unknown\":[{}]}";
    char in[256], out[256];
    script s;
    gptner_run_config run = GPN_ZERO;
    gptner_run_summary sum;
    gptner_result **r = NULL;
    size_t n = 0;
    char *text;
    const char *one[1];
    (void)state;
    script_init(&s);
    script_start(&s);
    test_spit(test_tmp_path(in, "in.jsonl"), input, sizeof input - 1);
    one[0] = answer;
    script_play(&s, one, 1);
    run.input_path = in;
    run.output_path = test_tmp_path(out, "out.JSONL");
    run.results = &r;
    run.n_results = &n;
    run.max_workers = 1;
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err), GPTNER_OK);
    assert_int_equal(n, 7);
    assert_int_equal(sum.ok, 4);
    assert_int_equal(sum.requests, 4);
    assert_str(r[0]->custom_id, "x");
    assert_str(r[1]->custom_id, "17");
    assert_int_equal(r[3]->status, GPTNER_ERR_INVALID_ARGUMENT);
    assert_has(r[3]->message, "in.jsonl, line 5: neither true, false nor null");
    assert_has(r[4]->message, "line 6: not an object with a text");
    assert_has(r[5]->message, "line 7: not an object with a text");
    assert_int_equal(r[5]->index, 5);
    text = read_text(out);
    assert_has(text, "{\"index\":0,\"custom_id\":\"x\",\"status\":\"OK\","
                     "\"text\":\"hello\",\"finish_reason\":\"stop\","
                     "\"choices\":[{\"index\":0,\"text\":\"hello\","
                     "\"finish_reason\":\"stop\"}],\"usage\":{"
                     "\"prompt_tokens\":3,\"completion_tokens\":2,"
                     "\"total_tokens\":5},\"model\":\"m-1\",\"id\":\"c1\","
                     "\"request_id\":\"req_1\",\"system_fingerprint\":\"fp\","
                     "\"attempts\":1,");
    assert_has(text, "{\"index\":3,\"status\":\"INVALID_ARGUMENT\","
                     "\"message\":\"");
    free(text);
    gptner_results_free(r, n);
    script_end(&s);
}

/* Prompts "0" to "n-1", each modulo m. */
typedef struct source {
    size_t n, m, at;
    char text[32];
    char id[32];
    size_t seen;
    size_t shared;
    bool wrong;
    size_t stop_at;
} source;

static int source_next(gptner_prompt *p, gptner_error *err, void *user)
{
    source *g = (source *)user;
    (void)err;
    if (g->at == g->n) {
        return 0;
    }
    snprintf(g->text, sizeof g->text, "%zu", g->at % g->m);
    snprintf(g->id, sizeof g->id, "id-%zu", g->at++);
    p->text = gptner_str_from(g->text);
    p->custom_id = gptner_str_from(g->id);
    p->tag = g;
    return 1;
}

static bool source_result(const gptner_result *r, void *user)
{
    source *g = (source *)user;
    char id[32];
    snprintf(id, sizeof id, "id-%zu", r->index);
    g->wrong |=
        r->index != g->seen || !gpn_str_eq_c(r->custom_id, id) || r->tag != g;
    g->seen++;
    g->shared += r->shared;
    return g->seen != g->stop_at;
}

static void equal_prompts_are_sent_once(void **state)
{
    int array;
    (void)state;
    for (array = 0; array < 2; array++) {
        script s;
        source g = GPN_ZERO;
        gptner_run_config run = GPN_ZERO;
        gptner_run_summary sum;
        gptner_result **r = NULL;
        size_t n = 0;
        const char *one[1];
        script_init(&s);
        script_start(&s);
        one[0] = answer;
        script_play(&s, one, 1);
        g.n = 1000;
        g.m = 7;
        run.next_fn = source_next;
        run.next_user = &g;
        run.result_fn = source_result;
        run.result_user = &g;
        run.dedupe = true;
        run.max_workers = 3;
        if (array) {
            run.results = &r;
            run.n_results = &n;
        }
        assert_int_equal(gptner_run(s.client, &run, &sum, &s.err), GPTNER_OK);
        assert_false(g.wrong);
        assert_int_equal(g.seen, 1000);
        assert_int_equal(g.shared, 993);
        assert_int_equal(sum.requests, 7);
        assert_int_equal(sum.total, 1000);
        assert_int_equal(sum.ok, 1000);
        if (array) {
            assert_int_equal(n, 1000);
            assert_str(r[999]->text, "hello");
            assert_str(r[999]->custom_id, "id-999");
            assert_true(r[999]->shared);
            assert_false(r[6]->shared);
        }
        gptner_results_free(r, n);
        script_end(&s);
    }
}

static void equal_prompts_share_their_failure(void **state)
{
    static const char *const replies[] = {HTTP("400", "", "no")};
    script s;
    source g = GPN_ZERO;
    gptner_run_config run = GPN_ZERO;
    gptner_run_summary sum;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, replies, 1);
    g.n = 50;
    g.m = 50;
    run.next_fn = source_next;
    run.next_user = &g;
    run.result_fn = source_result;
    run.result_user = &g;
    run.dedupe = true;
    run.max_workers = 2;
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err), GPTNER_OK);
    assert_int_equal(g.seen, 50);
    assert_false(g.wrong);
    assert_int_equal(sum.failed, 50);
    script_end(&s);
}

static void a_hopeless_error_stops_the_run_with_a_result_for_each(void **state)
{
    static const char *const replies[] = {
        HTTP("401", "", "{\"error\":{\"message\":\"no\"}}")};
    static const char *texts[20];
    script s;
    gptner_run_config run = GPN_ZERO;
    gptner_run_summary sum;
    gptner_result **r = NULL;
    size_t n = 0, i;
    (void)state;
    for (i = 0; i < 20; i++) {
        texts[i] = "hi";
    }
    script_init(&s);
    script_start(&s);
    script_play(&s, replies, 1);
    run.texts = texts;
    run.n_prompts = 20;
    run.results = &r;
    run.n_results = &n;
    run.max_workers = 1;
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err), GPTNER_ERR_AUTH);
    assert_has(s.err.message, "check api_key");
    assert_int_equal(n, 20);
    assert_int_equal(r[0]->status, GPTNER_ERR_AUTH);
    for (i = 1; i < 20; i++) {
        assert_int_equal(r[i]->status, GPTNER_ERR_NOT_SENT);
        assert_int_equal(r[i]->index, i);
        assert_int_equal(r[i]->attempts, 0);
    }
    gptner_results_free(r, n);
    script_end(&s);
}

static void a_receiver_can_cancel(void **state)
{
    script s;
    source g = GPN_ZERO;
    gptner_run_config run = GPN_ZERO;
    gptner_run_summary sum;
    const char *one[1];
    (void)state;
    script_init(&s);
    script_start(&s);
    one[0] = answer;
    script_play(&s, one, 1);
    g.n = 100;
    g.m = 100;
    g.stop_at = 10;
    run.next_fn = source_next;
    run.next_user = &g;
    run.result_fn = source_result;
    run.result_user = &g;
    run.max_workers = 2;
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err),
                     GPTNER_ERR_CANCELLED);
    assert_false(g.wrong);
    assert_true(g.seen >= 10 && g.seen < 100);
    script_end(&s);
}

static void a_run_refuses_what_it_cannot_do(void **state)
{
    char path[256];
    script s;
    gptner_run_config run = GPN_ZERO;
    gptner_run_summary sum;
    (void)state;
    script_init(&s);
    script_start(&s);
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err), GPTNER_OK);
    assert_int_equal(sum.total, 0);
    run.input_path = test_tmp_path(path, "does-not-exist");
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err), GPTNER_ERR_FILE);
    assert_has(s.err.message, "does-not-exist: cannot be read: ");
    memset(&run, 0, sizeof run);
    run.output_path = test_tmp_path(path, "no/such/folder.txt");
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err), GPTNER_ERR_FILE);
    run.output_path = "x.txt";
    run.as_completed = true;
    assert_int_equal(gptner_run(s.client, &run, &sum, &s.err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_int_equal(gptner_run(NULL, &run, NULL, NULL),
                     GPTNER_ERR_INVALID_ARGUMENT);
    script_end(&s);
}

/* ---- embeddings, models, raw --------------------------------------------- */

static void embeddings_come_as_base64_or_numbers(void **state)
{
    static const char reply[] =
        "{\"data\":[{\"index\":1,\"embedding\":\"AACAPwAAAMAAAAAA\"},"
        "{\"index\":0,\"embedding\":[0.5,-1e1,3]}],\"model\":\"e\","
        "\"usage\":{\"prompt_tokens\":5,\"total_tokens\":5}}";
    const char *one[1];
    gptner_str texts[2];
    gptner_embeddings *e = NULL;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    one[0] = reply;
    script_play(&s, one, 1);
    texts[0] = gptner_str_from("a");
    texts[1] = gptner_str_from("b\"");
    assert_int_equal(gptner_embed(s.client, NULL, texts, 2, 3, &e, &s.err),
                     GPTNER_OK);
    assert_has(s.request, "POST /v1/embeddings HTTP/1.1\r\n");
    assert_string_equal(script_body(&s),
                        "{\"model\":\"text-embedding-3-small\",\"input\":"
                        "[\"a\",\"b\\\"\"],\"encoding_format\":\"base64\","
                        "\"dimensions\":3}");
    assert_int_equal(e->count, 2);
    assert_int_equal(e->dimensions, 3);
    assert_true(e->values[0] == 0.5f && e->values[1] == -10.0f &&
                e->values[2] == 3.0f);
    assert_true(e->values[3] == 1.0f && e->values[4] == -2.0f &&
                e->values[5] == 0.0f);
    assert_str(e->model, "e");
    assert_int_equal(e->usage.total_tokens, 5);
    assert_int_equal(e->usage.completion_tokens, -1);
    gptner_embeddings_free(e);
    script_end(&s);
}

static void broken_embeddings_are_bad_replies(void **state)
{
    static const char *const table[] = {
        "{\"data\":[{\"embedding\":[1]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":[1,2]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"index\":0,\"embedding\":[1]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"index\":2,\"embedding\":[1]}]}",
        "{\"data\":[{\"embedding\":[]},{\"embedding\":[]}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":[\"x\"]}]}",
        "{\"data\":[{\"embedding\":\"AACAPw==\"},{\"embedding\":\"!!\"}]}",
        "{\"data\":[{\"embedding\":\"A\"},{\"embedding\":\"A\"}]}",
        "{\"data\":[{\"embedding\":[1]},{\"embedding\":[1]}]",
        "{}",
        ""};
    gptner_str texts[2];
    script s;
    size_t i;
    (void)state;
    script_init(&s);
    s.cfg.max_bad_reply_retries = -1;
    script_start(&s);
    texts[0] = gptner_str_from("a");
    texts[1] = gptner_str_from("b");
    for (i = 0; i < TEST_COUNT(table); i++) {
        gptner_embeddings *e = NULL;
        script_play(&s, &table[i], 1);
        if (gptner_embed(s.client, "m", texts, 2, 0, &e, &s.err) !=
            GPTNER_ERR_BAD_REPLY) {
            fail_msg("%s: %s", table[i], s.err.message);
        }
        assert_null(e);
    }
    texts[1].len = 0;
    {
        gptner_embeddings *e = NULL;
        assert_int_equal(gptner_embed(s.client, "m", texts, 2, 0, &e, &s.err),
                         GPTNER_ERR_INVALID_ARGUMENT);
        assert_int_equal(gptner_embed(s.client, "m", texts, 0, 0, &e, &s.err),
                         GPTNER_ERR_INVALID_ARGUMENT);
    }
    script_end(&s);
}

static void models_are_listed_or_one_is_looked_up(void **state)
{
    static const char *const list[] = {
        "{\"object\":\"list\",\"data\":[{\"id\":\"a\\u002d1\",\"created\":"
        "1.5e9,\"owned_by\":\"me\"},null,{\"created\":\"17\",\"id\":\"b\"},"
        "{\"owned_by\":\"nobody\"}]}"};
    static const char *const single[] = {"{\"id\":\"ft:x\",\"created\":-1}"};
    static const char *const none[] = {"{\"object\":\"model\"}"};
    gptner_models *m = NULL;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, list, 1);
    assert_int_equal(gptner_models_list(s.client, &m, &s.err), GPTNER_OK);
    assert_has(s.request, "GET /v1/models HTTP/1.1\r\n");
    assert_lacks(s.request, "Content-");
    assert_int_equal(m->count, 2);
    assert_str(m->items[0].id, "a-1");
    assert_str(m->items[0].owned_by, "me");
    assert_int_equal(m->items[0].created, 1500000000);
    assert_int_equal(m->items[1].created, 17);
    gptner_models_free(m);
    script_play(&s, single, 1);
    assert_int_equal(gptner_models_get(s.client, "ft:a/../b", &m, &s.err),
                     GPTNER_OK);
    assert_has(s.request, "GET /v1/models/ft%3Aa%2F..%2Fb HTTP/1.1\r\n");
    assert_str(m->items[0].id, "ft:x");
    assert_int_equal(m->items[0].created, 0);
    gptner_models_free(m);
    script_play(&s, none, 1);
    assert_int_equal(gptner_models_get(s.client, "x", &m, &s.err),
                     GPTNER_ERR_BAD_REPLY);
    assert_null(m);
    script_end(&s);
}

static void a_raw_request_is_sent_as_asked(void **state)
{
    static const gptner_header mine[] = {{"Accept", "text/plain"},
                                         {"X-A", "1"}};
    static const char *const replies[] = {
        HTTP("201", "X-B: 2\r\nX-Empty:\r\n", "body")};
    gptner_raw_request q = GPN_ZERO;
    gptner_response *r = NULL;
    script s;
    (void)state;
    script_init(&s);
    s.cfg.base_url = "https://server.test/v1/?k=v";
    script_start(&s);
    script_play(&s, replies, 1);
    q.method = "PUT";
    q.path = "files?limit=5";
    q.body = gptner_str_from("x");
    q.content_type = "text/x";
    q.headers = mine;
    q.n_headers = 2;
    assert_int_equal(gptner_raw(s.client, &q, &r, &s.err), GPTNER_OK);
    assert_has(s.request, "PUT /v1/files?limit=5&k=v HTTP/1.1\r\n");
    assert_has(s.request, "\r\nAccept: text/plain\r\n");
    assert_lacks(s.request, "Accept: application/json");
    assert_has(s.request, "\r\nContent-Type: text/x\r\n");
    assert_has(s.request, "\r\nContent-Length: 1\r\n\r\nx");
    assert_int_equal(r->status, 201);
    assert_str(r->body, "body");
    assert_string_equal(gptner_response_header(r, "x-b"), "2");
    assert_string_equal(gptner_response_header(r, "X-EMPTY"), "");
    assert_null(gptner_response_header(r, "X-C"));
    assert_int_equal(r->body_bytes, 4);
    assert_int_equal(r->attempts, 1);
    gptner_response_free(r);
    memset(&q, 0, sizeof q);
    assert_int_equal(gptner_raw(s.client, &q, &r, &s.err), GPTNER_OK);
    assert_has(s.request, "GET /v1/?k=v HTTP/1.1\r\n");
    gptner_response_free(r);
    q.path = "/a b";
    assert_int_equal(gptner_raw(s.client, &q, &r, &s.err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    assert_null(r);
    q.path = "/a";
    q.method = "GE T";
    assert_int_equal(gptner_raw(s.client, &q, &r, &s.err),
                     GPTNER_ERR_INVALID_ARGUMENT);
    script_end(&s);
}

static void a_raw_failure_still_gives_the_response(void **state)
{
    static const char *const replies[] = {
        HTTP("404", "X-Request-Id: r\r\n",
             "{\"error\":{\"message\":\"gone\"}} sk-secret-0123456789")};
    gptner_raw_request q = GPN_ZERO;
    gptner_response *r = NULL;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, replies, 1);
    q.path = "/files/x";
    assert_int_equal(gptner_raw(s.client, &q, &r, &s.err),
                     GPTNER_ERR_NOT_FOUND);
    assert_has(s.err.message, "GET /v1/files/x: HTTP 404: gone");
    assert_int_equal(s.err.http_status, 404);
    assert_non_null(r);
    assert_int_equal(r->status, 404);
    assert_has(r->body.ptr, "\"gone\"");
    assert_lacks(r->body.ptr, "sk-secret");
    gptner_response_free(r);
    script_end(&s);
}

static void a_body_can_be_saved_whole_or_not_at_all(void **state)
{
    static const char *const good[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"};
    static const char *const empty[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
    static const char *const bad[] = {HTTP("404", "", "no")};
    char path[256];
    char *text;
    gptner_raw_request q = GPN_ZERO;
    gptner_response *r = NULL;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    q.path = "/f";
    q.save_path = test_tmp_path(path, "saved");
    script_play(&s, bad, 1);
    assert_int_equal(gptner_raw(s.client, &q, &r, &s.err),
                     GPTNER_ERR_NOT_FOUND);
    assert_str(r->body, "no");
    gptner_response_free(r);
    assert_int_equal(access(path, F_OK), -1);
    script_play(&s, good, 2);
    assert_int_equal(gptner_raw(s.client, &q, &r, &s.err), GPTNER_OK);
    assert_int_equal(r->attempts, 2);
    assert_int_equal(r->body.len, 0);
    assert_int_equal(r->body_bytes, 3);
    gptner_response_free(r);
    text = read_text(path);
    assert_string_equal(text, "abc");
    free(text);
    script_play(&s, empty, 1);
    assert_int_equal(gptner_raw(s.client, &q, NULL, &s.err), GPTNER_OK);
    text = read_text(path);
    assert_string_equal(text, "");
    free(text);
    script_end(&s);
}

static bool take_event(gptner_str type, gptner_str data, gptner_str id,
                       void *user)
{
    char *log = (char *)user;
    size_t len = strlen(log);
    snprintf(log + len, 256 - len, "%.*s=%.*s#%.*s;", (int)type.len, type.ptr,
             (int)data.len, data.ptr, (int)id.len, id.ptr);
    return true;
}

static bool take_body(const char *data, size_t len, void *user)
{
    strncat((char *)user, data, len);
    return false;
}

static void a_body_can_go_to_callbacks(void **state)
{
    static const char *const replies[] = {
        STREAM("id: 1\nevent: x\ndata: a\n\ndata: b\n\n")};
    char log[256] = "";
    gptner_raw_request q = GPN_ZERO;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, replies, 1);
    q.event_fn = take_event;
    q.user = log;
    assert_int_equal(gptner_raw(s.client, &q, NULL, &s.err), GPTNER_OK);
    assert_string_equal(log, "x=a#1;message=b#1;");
    q.event_fn = NULL;
    q.body_fn = take_body;
    log[0] = '\0';
    assert_int_equal(gptner_raw(s.client, &q, NULL, &s.err),
                     GPTNER_ERR_CANCELLED);
    assert_has(log, "id: 1");
    script_end(&s);
}

static void redirects_drop_the_key_and_never_leave_tls(void **state)
{
    static const struct {
        const char *location, *target, *host;
        bool key;
    } table[] = {
        {"/other?x=1#frag", "/other?x=1", "server.test", true},
        {"/../up/./x?q", "/../up/./x?q", "server.test", true},
        {"//cdn.test/x", "/x", "cdn.test", false},
        {"https://cdn.test:444/x/../y", NULL, "cdn.test:444", false},
        {"https://server.test:444/x", "/x", "server.test:444", false},
        {"HTTPS://SERVER.test/x", "/x", "server.test", true},
        {"http://server.test/x", NULL, NULL, false},
        {"ftp://server.test/x", NULL, NULL, false},
        {"next", NULL, NULL, false},
        {"?q", NULL, NULL, false},
        {"", NULL, NULL, false},
    };
    static const gptner_header mine[] = {{"X-Mine", "1"}};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(table); i++) {
        char first[512];
        const char *replies[2];
        gptner_raw_request q = GPN_ZERO;
        gptner_status status;
        script s;
        script_init(&s);
        s.cfg.organization = "org";
        s.cfg.headers = mine;
        s.cfg.n_headers = 1;
        script_start(&s);
        snprintf(first, sizeof first, HTTP("302", "Location: %s\r\n", ""),
                 table[i].location);
        replies[0] = first;
        replies[1] = HTTP("200", "", "there");
        script_play(&s, replies, 2);
        q.path = "/f";
        q.max_redirects = 1;
        status = gptner_raw(s.client, &q, NULL, &s.err);
        if (table[i].host == NULL) {
            assert_int_equal(status, GPTNER_ERR_REDIRECT);
            assert_int_equal(s.at, 1);
            script_end(&s);
            continue;
        }
        assert_int_equal(status, GPTNER_OK);
        if (table[i].target != NULL) {
            char want[256];
            snprintf(want, sizeof want, "GET %s HTTP/1.1\r\nHost: %s\r\n",
                     table[i].target, table[i].host);
            assert_has(s.request, want);
        }
        if (table[i].key) {
            assert_has(s.request, "Authorization");
            assert_has(s.request, "X-Mine");
        } else {
            assert_lacks(s.request, "Authorization");
            assert_lacks(s.request, "sk-");
            assert_lacks(s.request, "OpenAI-");
            assert_lacks(s.request, "X-Mine");
        }
        script_end(&s);
    }
}

static void redirects_are_counted_and_not_for_post(void **state)
{
    static const char *const loop[] = {HTTP("307", "Location: /f\r\n", "")};
    gptner_raw_request q = GPN_ZERO;
    gptner_response *r = NULL;
    script s;
    (void)state;
    script_init(&s);
    script_start(&s);
    script_play(&s, loop, 1);
    q.path = "/f";
    q.max_redirects = 5;
    assert_int_equal(gptner_raw(s.client, &q, &r, &s.err), GPTNER_ERR_REDIRECT);
    assert_int_equal(s.at, 6);
    assert_int_equal(r->status, 307);
    gptner_response_free(r);
    script_play(&s, loop, 1);
    q.method = "POST";
    assert_int_equal(gptner_raw(s.client, &q, NULL, &s.err),
                     GPTNER_ERR_REDIRECT);
    assert_int_equal(s.at, 1);
    script_end(&s);
}

static void a_form_is_sent_with_its_length(void **state)
{
    gptner_part parts[2];
    gptner_raw_request q = GPN_ZERO;
    script s;
    const char *body;
    (void)state;
    script_init(&s);
    script_start(&s);
    memset(parts, 0, sizeof parts);
    parts[0].name = "purpose";
    parts[0].value = gptner_str_from("batch");
    parts[1].name = "file";
    parts[1].filename = "a.jsonl";
    parts[1].value = gptner_str_from("{}\n");
    q.path = "/files";
    q.parts = parts;
    q.n_parts = 2;
    assert_int_equal(gptner_raw(s.client, &q, NULL, &s.err), GPTNER_OK);
    assert_has(s.request, "POST /v1/files HTTP/1.1\r\n");
    assert_has(s.request,
               "Content-Type: multipart/form-data; boundary=gptner-");
    body = strstr(s.request, "Content-Length: ");
    assert_non_null(body);
    assert_int_equal(atoi(body + 16), (int)strlen(script_body(&s)));
    assert_has(s.request, "filename=\"a.jsonl\"");
    script_end(&s);
}

/* ---- no memory ----------------------------------------------------------- */

/* Fails each allocation in turn, until one run succeeds without a failure. */
static void every_allocation_may_fail(void **state)
{
    static const char *const stop[] = {"x"};
    static const gptner_header more[] = {{"X-A", "1"}};
    static const char *const prompts[] = {"a", "b", "a"};
    const int64_t seed = 1;
    char out[256];
    long at;
    bool clean = false;
    (void)state;
    test_tmp_path(out, "memory.jsonl");
    for (at = 1; !clean; at++) {
        test_mem mem;
        script s;
        gptner_status status;
        memset(&mem, 0, sizeof mem);
        mem.fail_at = at;
        script_init(&s);
        s.cfg.allocator = test_mem_allocator(&mem);
        s.cfg.options.stop = stop;
        s.cfg.options.n_stop = 1;
        s.cfg.options.seed = &seed;
        s.cfg.headers = more;
        s.cfg.n_headers = 1;
        s.cfg.keep_raw = true;
        s.cfg.api_version = "1";
        s.cfg.ca_pem = gptner_str_from("x");
        status = gptner_client_new(&s.cfg, &s.client, &s.err);
        if (status == GPTNER_OK) {
            gptner_result *r = NULL;
            gptner_result **all = NULL;
            gptner_models *m = NULL;
            gptner_embeddings *e = NULL;
            gptner_response *w = NULL;
            gptner_run_config run = GPN_ZERO;
            gptner_raw_request q = GPN_ZERO;
            gptner_run_summary sum;
            heard h = GPN_ZERO;
            gptner_str text = gptner_str_from("t");
            size_t n = 0, i;
            const char *replies[5];
            replies[0] = answer;
            replies[1] = STREAM(DELTA(0, "a") FINISH(0, "stop"));
            replies[2] = "{\"data\":[{\"id\":\"x\"}]}";
            replies[3] = "{\"data\":[{\"embedding\":[1]}]}";
            script_play(&s, &replies[0], 1);
            status = gptner_ask(s.client, "hi", &r, &s.err);
            assert_int_equal(status, s.err.status);
            assert_true(r == NULL || r->status == status);
            gptner_result_free(r);
            script_play(&s, &replies[1], 1);
            hear_all(&s, &h, &r);
            gptner_result_free(r);
            script_play(&s, &replies[2], 1);
            gptner_models_list(s.client, &m, &s.err);
            gptner_models_free(m);
            script_play(&s, &replies[3], 1);
            gptner_embed(s.client, "m", &text, 1, 0, &e, &s.err);
            gptner_embeddings_free(e);
            q.path = "/x";
            gptner_raw(s.client, &q, &w, &s.err);
            gptner_response_free(w);
            script_play(&s, &replies[0], 1);
            run.texts = prompts;
            run.n_prompts = 3;
            run.output_path = out;
            run.results = &all;
            run.n_results = &n;
            run.dedupe = true;
            run.max_workers = 1;
            status = gptner_run(s.client, &run, &sum, &s.err);
            if (status == GPTNER_OK) {
                assert_int_equal(n, 3);
            }
            for (i = 0; i < n; i++) {
                assert_non_null(all[i]);
                assert_int_equal(all[i]->index, i);
            }
            gptner_results_free(all, n);
        } else {
            assert_int_equal(status, GPTNER_ERR_NO_MEMORY);
            assert_null(s.client);
        }
        script_end(&s);
        assert_int_equal(mem.blocks, 0);
        clean = mem.calls < at;
    }
    assert_true(at > 30);
}

/* Beyond the first prompts: the result, one block. An item is made anew only
 * when a text is longer than all before it. */
static void a_prompt_costs_one_allocation(void **state)
{
    test_mem mem;
    script s;
    const char *one[1];
    long calls[2];
    size_t round;
    (void)state;
    memset(&mem, 0, sizeof mem);
    script_init(&s);
    s.cfg.allocator = test_mem_allocator(&mem);
    script_start(&s);
    one[0] = answer;
    script_play(&s, one, 1);
    for (round = 0; round < 3; round++) {
        source g = GPN_ZERO;
        gptner_run_config run = GPN_ZERO;
        g.n = round < 2 ? 100 : 300;
        g.m = 1000;
        run.next_fn = source_next;
        run.next_user = &g;
        run.result_fn = source_result;
        run.result_user = &g;
        run.max_workers = 1;
        mem.calls = 0;
        assert_int_equal(gptner_run(s.client, &run, NULL, &s.err), GPTNER_OK);
        calls[round < 2 ? 0 : 1] = mem.calls;
    }
    assert_in_range(calls[1] - calls[0], 200, 202);
    script_end(&s);
    assert_int_equal(mem.blocks, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_model_family_gets_the_fields_it_takes),
        cmocka_unit_test(completion_models_get_a_prompt),
        cmocka_unit_test(every_option_has_its_field),
        cmocka_unit_test(sampling_can_be_forced_or_forbidden),
        cmocka_unit_test(openai_itself_gets_the_new_limit),
        cmocka_unit_test(extra_members_are_added_and_replace_ours),
        cmocka_unit_test(conversations_get_the_system_message_they_lack),
        cmocka_unit_test(whole_bodies_go_as_they_stand),
        cmocka_unit_test(a_prompt_that_is_not_utf8_is_refused),
        cmocka_unit_test(a_request_has_the_right_head),
        cmocka_unit_test(azure_urls_keep_their_query_and_version),
        cmocka_unit_test(the_environment_fills_what_is_not_given),
        cmocka_unit_test(a_wrong_configuration_says_what_is_wrong),
        cmocka_unit_test(an_empty_key_sends_none),
        cmocka_unit_test(a_plain_answer_is_taken_apart),
        cmocka_unit_test(every_shape_of_a_reply_is_understood),
        cmocka_unit_test(text_keeps_u0000),
        cmocka_unit_test(choices_hold_all_they_came_with),
        cmocka_unit_test(leading_thoughts_are_taken_off_on_request),
        cmocka_unit_test(every_shape_of_an_error_is_understood),
        cmocka_unit_test(keys_never_reach_an_error_text),
        cmocka_unit_test(delays_are_read_in_the_documented_order),
        cmocka_unit_test(a_retry_that_succeeds_leaves_no_trace_but_the_count),
        cmocka_unit_test(a_field_of_ours_that_is_refused_is_adapted_once),
        cmocka_unit_test(adaptation_never_loops),
        cmocka_unit_test(what_the_caller_insists_on_is_not_adapted),
        cmocka_unit_test(the_table_of_what_was_learnt_is_bounded),
        cmocka_unit_test(a_stream_is_handed_over_and_joined),
        cmocka_unit_test(tool_calls_of_a_stream_are_joined_by_index),
        cmocka_unit_test(the_end_of_a_stream_is_judged),
        cmocka_unit_test(a_listener_can_stop_a_stream),
        cmocka_unit_test(a_text_file_becomes_a_text_file),
        cmocka_unit_test(lines_of_json_are_prompts),
        cmocka_unit_test(equal_prompts_are_sent_once),
        cmocka_unit_test(equal_prompts_share_their_failure),
        cmocka_unit_test(a_hopeless_error_stops_the_run_with_a_result_for_each),
        cmocka_unit_test(a_receiver_can_cancel),
        cmocka_unit_test(a_run_refuses_what_it_cannot_do),
        cmocka_unit_test(embeddings_come_as_base64_or_numbers),
        cmocka_unit_test(broken_embeddings_are_bad_replies),
        cmocka_unit_test(models_are_listed_or_one_is_looked_up),
        cmocka_unit_test(a_raw_request_is_sent_as_asked),
        cmocka_unit_test(a_raw_failure_still_gives_the_response),
        cmocka_unit_test(a_body_can_be_saved_whole_or_not_at_all),
        cmocka_unit_test(a_body_can_go_to_callbacks),
        cmocka_unit_test(redirects_drop_the_key_and_never_leave_tls),
        cmocka_unit_test(redirects_are_counted_and_not_for_post),
        cmocka_unit_test(a_form_is_sent_with_its_length),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_prompt_costs_one_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
