/* Files and batches of the mock server, driven by bytes on sockets that this
 * file writes itself, under a clock of its own: nobody sleeps. */
#define MOCK_OPENAI_STATIC
#define MOCK_OPENAI_IMPLEMENTATION
#include "../mock_server/mock_openai.h"

#include <setjmp.h>
#include <sys/wait.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define DAY_MS   86400000

/* ---- the rig: a mock in manual mode, its clock, the last reply ---- */

typedef struct rig {
    mock_options opt;
    mock_server *mock;
    int64_t now;
    char *data;
    size_t len, cap;
    bool closed;
    int status;
    const char *body; /* in data, NUL-terminated */
    size_t body_len;
} rig;

static int64_t rig_clock(void *user)
{
    return ((rig *)user)->now;
}

static int64_t rig_unix(void *user)
{
    return ((rig *)user)->now + 1790000000000; /* 2026-09-21 */
}

static void rig_start(rig *r)
{
    char why[256];

    r->now = r->now > 0 ? r->now : 1000;
    r->opt.manual = true;
    r->opt.clock_ms_fn = rig_clock;
    r->opt.unix_ms_fn = rig_unix;
    r->opt.clock_user = r;
    if (!mock_server_start(&r->opt, &r->mock, why, sizeof why)) {
        fail_msg("%s", why);
    }
}

static rig *rig_new(void)
{
    rig *r = (rig *)calloc(1, sizeof *r);

    assert_non_null(r);
    r->opt.reply = "hash";
    r->opt.batch_seconds = 1000;
    return r;
}

static rig *rig_with(const char *fault)
{
    static const char *faults[1];
    rig *r = rig_new();

    faults[0] = fault;
    r->opt.faults = faults;
    r->opt.n_faults = fault != NULL ? 1 : 0;
    r->opt.price_in = 4;
    rig_start(r);
    return r;
}

static void rig_free(rig *r)
{
    mock_server_stop(r->mock);
    free(r->data);
    free(r);
}

static void rig_fault(rig *r, const char *spec)
{
    char why[128];

    mock_server_fault(r->mock, NULL, NULL, 0);
    if (spec != NULL && !mock_server_fault(r->mock, spec, why, sizeof why)) {
        fail_msg("%s", why);
    }
}

static int rig_connect(const rig *r)
{
    struct sockaddr_in to;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;

    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)mock_server_port(r->mock));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Sends while the mock reads; false: the connection broke. */
static bool rig_send(rig *r, int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno != EAGAIN) {
            return false;
        }
        mock_server_step(r->mock, NULL);
    }
    return true;
}

static void rig_text(rig *r, int fd, const char *text)
{
    assert_true(rig_send(r, fd, text, strlen(text)));
}

/* Whether the reply that is here is complete, by its own framing. */
static bool rig_complete(const rig *r)
{
    const char *end = r->len > 0 ? strstr(r->data, "\r\n\r\n") : NULL;
    const char *length =
        end != NULL ? strstr(r->data, "content-length: ") : NULL;

    return length != NULL && length < end &&
           r->len - (size_t)(end + 4 - r->data) >=
               (size_t)strtoull(length + 16, NULL, 10);
}

static void rig_read(rig *r, int fd)
{
    int idle = 0;

    r->len = 0;
    r->closed = false;
    while (idle < 4 && !r->closed && !rig_complete(r)) {
        struct pollfd p;
        bool progress = false;
        ssize_t n;

        mock_server_step(r->mock, &progress);
        idle = progress ? 0 : idle + 1;
        if (r->cap - r->len < 65536) {
            r->cap = r->cap * 2 + 131072;
            r->data = (char *)realloc(r->data, r->cap);
            assert_non_null(r->data);
        }
        p.fd = fd;
        p.events = POLLIN;
        poll(&p, 1, idle > 0 ? 2 : 0);
        n = recv(fd, r->data + r->len, r->cap - r->len - 1, MSG_DONTWAIT);
        if (n > 0) {
            r->len += (size_t)n;
            idle = 0;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            r->closed = true;
        }
        r->data[r->len] = '\0';
    }
}

static void rig_parse(rig *r)
{
    char *at = r->len > 0 ? strstr(r->data, "\r\n\r\n") : NULL;

    r->status = at != NULL ? (int)strtol(r->data + 9, NULL, 10) : 0;
    r->body = at != NULL ? at + 4 : "";
    r->body_len = at != NULL ? r->len - (size_t)(at + 4 - r->data) : 0;
}

static const char *rig_header(const rig *r, const char *name)
{
    static char value[512]; /* tests run one after the other */
    char needle[64];
    const char *at;

    snprintf(needle, sizeof needle, "\r\n%s: ", name);
    at = strstr(r->data, needle);
    if (at == NULL || at > r->body) {
        return "";
    }
    at += strlen(needle);
    snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\r"), at);
    return value;
}

/* One exchange over a connection of its own. */
static void ask(rig *r, const char *method, const char *path,
                const char *headers, const char *body, size_t len)
{
    char head[1024];
    int fd = rig_connect(r);

    snprintf(head, sizeof head,
             "%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n"
             "\r\n",
             method, path, headers, len);
    r->len = 0;
    if (rig_send(r, fd, head, strlen(head)) && rig_send(r, fd, body, len)) {
        rig_read(r, fd);
    }
    rig_parse(r);
    close(fd);
    mock_server_step(r->mock, NULL);
}

#define KEY "Authorization: Bearer sk-test\r\n"

static void get(rig *r, const char *path)
{
    ask(r, "GET", path, "", "", 0);
}

/* The text (or number, or word) at a path of the reply's JSON. */
static const char *in_json(const char *json, size_t len, const char *path)
{
    static char out[8][4096];
    static int turn;
    mki_arena arena = MKI_ZERO;
    const mki_json *v = mki_json_parse(&arena, mki_s(json, len));
    char *text = out[turn = (turn + 1) % 8];

    while (v != NULL && *path != '\0') {
        char key[64];
        size_t n = strcspn(path, ".");
        size_t i;

        snprintf(key, sizeof key, "%.*s", (int)n, path);
        if (v->type == MKI_ARRAY) {
            i = (size_t)strtol(key, NULL, 10);
            for (v = v->child; v != NULL && i > 0; i--) {
                v = v->next;
            }
        } else {
            v = mki_get(v, key);
        }
        path += n + (path[n] == '.' ? 1 : 0);
    }
    snprintf(text, 4096, "%.*s", v != NULL ? (int)v->text.len : 6,
             v != NULL ? v->text.ptr : "(none)");
    mki_arena_reset(&arena, true);
    return text;
}

static const char *json(const rig *r, const char *path)
{
    return in_json(r->body, r->body_len, path);
}

static void assert_json(const rig *r, const char *path, const char *wanted)
{
    if (strcmp(json(r, path), wanted) != 0) {
        print_error("%s: \"%s\", not \"%s\" in\n%s\n", path, json(r, path),
                    wanted, r->body);
        fail();
    }
}

static int64_t counted(const rig *r, const char *path)
{
    return mock_server_count(r->mock, path);
}

static void assert_card(rig *r, const char *code, int n)
{
    if (mock_server_findings(r->mock, code) != n) {
        char *card = mock_server_report(r->mock);

        print_error("%s", card);
        mock_text_free(card);
        fail_msg("%s: %d expected", code != NULL ? code : "all", n);
    }
}

/* This client never keeps a connection: that finding does not count. */
static void assert_clean(rig *r)
{
    assert_card(r, NULL, (int)mock_server_findings(r->mock, "no_keep_alive"));
}

/* ---- files and batches in a line each ---- */

#define FORM "Content-Type: multipart/form-data; boundary=XX\r\n"

static void upload_as(rig *r, const char *name, const char *purpose,
                      const char *data, size_t len)
{
    size_t cap = len + 1024;
    char *body = (char *)malloc(cap);
    size_t n;

    assert_non_null(body);
    n = (size_t)snprintf(
        body, cap,
        "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n%s\r\n"
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\""
        "\r\nContent-Type: application/jsonl\r\n\r\n",
        purpose, name);
    memcpy(body + n, data, len);
    n += len;
    memcpy(body + n, "\r\n--XX--\r\n", 10);
    ask(r, "POST", "/v1/files", FORM KEY, body, n + 10);
    free(body);
}

/* The id of a new file, in a buffer that lasts for some calls. */
static const char *upload(rig *r, const char *text)
{
    upload_as(r, "in.jsonl", "batch", text, strlen(text));
    assert_int_equal(r->status, 200);
    return json(r, "id");
}

#define CHAT "/v1/chat/completions"

static void create_with(rig *r, const char *file, const char *endpoint,
                        const char *more)
{
    char body[2048];

    snprintf(body, sizeof body,
             "{\"input_file_id\":\"%s\",\"endpoint\":\"%s\","
             "\"completion_window\":\"24h\"%s}",
             file, endpoint, more);
    ask(r, "POST", "/v1/batches", "Content-Type: application/json\r\n" KEY,
        body, strlen(body));
}

static void keep(char out[64], const char *id)
{
    snprintf(out, 64, "%s", id);
}

static void create(rig *r, const char *file, char id[64])
{
    create_with(r, file, CHAT, "");
    assert_int_equal(r->status, 200);
    keep(id, json(r, "id"));
}

static void look(rig *r, const char *id)
{
    char path[128];

    snprintf(path, sizeof path, "/v1/batches/%s", id);
    get(r, path);
    assert_int_equal(r->status, 200);
}

static void content(rig *r, const char *id)
{
    char path[128];

    snprintf(path, sizeof path, "/v1/files/%s/content", id);
    get(r, path);
}

/* n requests "r0", "r1", ... with prompts "prompt 0", ... */
static char *rows(int from, int n)
{
    char *text = (char *)malloc((size_t)n * 256 + 1);
    size_t len = 0;
    int i;

    assert_non_null(text);
    for (i = from; i < from + n; i++) {
        len += (size_t)snprintf(
            text + len, 256,
            "{\"custom_id\":\"r%d\",\"method\":\"POST\",\"url\":\"" CHAT
            "\",\"body\":{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":"
            "\"user\",\"content\":\"prompt %d\"}]}}\n",
            i, i);
    }
    return text;
}

/* Uploads n rows and makes a batch of them. */
static void batch_of(rig *r, int n, char id[64])
{
    char *text = rows(0, n);
    char file[64];

    keep(file, upload(r, text));
    free(text);
    create(r, file, id);
}

static void proof(int i, char out[17])
{
    char text[64];
    mki_buf b = MKI_ZERO;
    unsigned char digest[32];
    mki_sha sha;

    snprintf(text, sizeof text, "user\nprompt %d\n", i);
    mki_sha_init(&sha);
    mki_sha_add(&sha, text, strlen(text));
    mki_sha_end(&sha, digest);
    mki_buf_hex(&b, digest, 8);
    memcpy(out, b.data, 16);
    out[16] = '\0';
    mki_buf_free(&b);
}

/* What a result file says, line by line. */
typedef struct tally {
    int lines, good, wrong, bad_json, strangers, again;
    int shorter; /* finish_reason length */
    int refused, status0, left;
    int by_hundred[6];
    bool in_order;
    int seen[100000];
} tally;

static void tally_line(tally *t, const char *line, size_t len)
{
    int status =
        (int)strtol(in_json(line, len, "response.status_code"), NULL, 10);
    const char *id = in_json(line, len, "custom_id");
    char want[17];
    int n;

    t->lines++;
    if (strcmp(id, "(none)") == 0) {
        t->bad_json++;
        assert_non_null(strstr(line, "\"custom_id\":\"r"));
        return;
    }
    if (id[0] != 'r') {
        t->strangers++;
        return;
    }
    n = (int)strtol(id + 1, NULL, 10);
    assert_true(n >= 0 && n < 100000);
    t->again += t->seen[n]++ > 0 ? 1 : 0;
    t->in_order = t->in_order && n == t->lines - 1;
    if (strcmp(in_json(line, len, "response"), "null") == 0) {
        t->left++;
        return;
    }
    t->by_hundred[status / 100]++;
    t->status0 += status == 0 ? 1 : 0;
    if (status != 200) {
        return;
    }
    if (strcmp(in_json(line, len, "response.body.choices.0.finish_reason"),
               "length") == 0) {
        t->shorter++;
        return;
    }
    if (strcmp(in_json(line, len, "response.body.choices.0.message.refusal"),
               "null") != 0) {
        t->refused++;
        return;
    }
    proof(n, want);
    n = strcmp(in_json(line, len, "response.body.choices.0.message.content"),
               want);
    t->good += n == 0 ? 1 : 0;
    t->wrong += n != 0 ? 1 : 0;
}

static tally *tally_file(rig *r, const char *id)
{
    tally *t = (tally *)calloc(1, sizeof *t);
    const char *at;

    assert_non_null(t);
    t->in_order = true;
    content(r, id);
    assert_int_equal(r->status, 200);
    for (at = r->body; at < r->body + r->body_len;) {
        size_t n = strcspn(at, "\n");

        if (!mki_blank(mki_s(at, n))) {
            tally_line(t, at, n);
        }
        at += n + 1;
    }
    assert_int_equal(t->wrong, 0);
    return t;
}

/* A batch of n rows under a fault, run to its end; both files counted. */
static rig *lied(const char *fault, int n, tally **out, tally **err)
{
    rig *r = rig_with(fault);
    char id[64], output[64], error[64];

    batch_of(r, n, id);
    r->now += 2 * DAY_MS;
    look(r, id);
    assert_json(r, "status", "completed");
    keep(output, json(r, "output_file_id"));
    keep(error, json(r, "error_file_id"));
    *out = output[0] == 'f' ? tally_file(r, output) : NULL;
    *err = error[0] == 'f' ? tally_file(r, error) : NULL;
    return r;
}

static void lied_free(rig *r, tally *out, tally *err)
{
    free(out);
    free(err);
    rig_free(r);
}

/* ---- the multipart parser ---- */

typedef struct sink {
    char data[256];
    size_t len;
} sink;

static bool sink_add(void *ctx, const char *data, size_t len)
{
    sink *s = (sink *)ctx;

    assert_true(len <= sizeof s->data - s->len);
    memcpy(s->data + s->len, data, len);
    s->len += len;
    return true;
}

/* Feeds a body in two or three pieces, each a block of its own so that a
 * sanitizer sees a step beyond it. */
static mki_form_state form(mki_form *f, sink *to, const char *type,
                           const char *body, size_t len, size_t a, size_t b)
{
    const size_t cuts[4] = {0, a, b, len};
    int i;

    to->len = 0;
    if (!mki_form_init(f, mki_sc(type))) {
        return MKI_FORM_BAD;
    }
    f->sink = sink_add;
    f->ctx = to;
    for (i = 0; i < 3; i++) {
        size_t n = cuts[i + 1] - cuts[i];
        char *piece = (char *)malloc(n + 1);

        assert_non_null(piece);
        memcpy(piece, body + cuts[i], n);
        mki_form_feed(f, piece, n);
        free(piece);
    }
    return f->state;
}

static const char good_form[] =
    "preamble, to be ignored\r\n--a b'c\t \r\n"
    "CONTENT-disposition:form-data; NAME=\"file\"; filename=\"a\\\"b\\\\%22.x\""
    "\r\nContent-Type: text/plain\r\n\r\n"
    "one\r\n--a b'cx\r\n--a b'c-\n\r\n-\r\r\n\r\n--a b'c\r\n"
    "x-other: 1\r\nContent-Disposition: form-data; name=purpose\r\n\r\n"
    "batch\r\n--a b'c\r\n"
    "Content-Disposition: form-data; name=\"expires_after[seconds]\"\r\n\r\n"
    "3600\r\n--a b'c\r\n"
    "Content-Disposition: form-data; name=\"expires_after[anchor]\"\r\n\r\n"
    "\r\n--a b'c--\r\nepilogue --a b'c\r\n";

static void forms_may_come_in_any_pieces(void **state)
{
    static const char data[] = "one\r\n--a b'cx\r\n--a b'c-\n\r\n-\r\r\n";
    size_t len = sizeof good_form - 1;
    size_t a, b;

    (void)state;
    for (a = 0; a <= len; a++) {
        for (b = a; b <= len; b += b < a + 4 ? 1 : 37) {
            mki_form f;
            sink to;

            assert_int_equal(form(&f, &to,
                                  "Multipart/Form-Data; x=\"; boundary=no\"; "
                                  "BOUNDARY=\"a b'c\"",
                                  good_form, len, a, b),
                             MKI_FORM_END);
            assert_int_equal(to.len, sizeof data - 1);
            assert_memory_equal(to.data, data, sizeof data - 1);
            assert_string_equal(f.filename, "a\"b\\\".x");
            assert_string_equal(f.purpose, "batch");
            assert_string_equal(f.seconds, "3600");
            assert_true(f.has_anchor && f.anchor[0] == '\0');
            mki_form_free(&f);
        }
    }
}

static void forms_that_end_early_never_end(void **state)
{
    const char *end = strstr(good_form, "--\r\nepilogue");
    size_t n;

    (void)state;
    for (n = 0; n < (size_t)(end + 2 - good_form); n++) {
        mki_form f;
        sink to;

        assert_int_not_equal(form(&f, &to,
                                  "multipart/form-data; boundary=\"a b'c\"",
                                  good_form, n, n / 2, n / 2),
                             MKI_FORM_END);
        mki_form_free(&f);
    }
}

static void forms_that_are_none_are_refused(void **state)
{
    static const char *const types[] = {"",
                                        "multipart/form-data",
                                        "multipart/form-data; boundary=",
                                        "multipart/form-data; boundary=\"\"",
                                        "multipart/form-data; boundary=\"a",
                                        "multipart/form-data; boundary=\"a \"",
                                        "multipart/mixed; boundary=a",
                                        "application/json; boundary=a",
                                        "multipart/form-data; boundary="
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    static const char *const bodies[] = {
        "--a\r\n\r\n",
        "--a\r\nno colon\r\n\r\nx\r\n--a--",
        "--a\r\nContent-Type: x\r\n\r\nx\r\n--a--",
        "--a\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n--a--",
        "--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--",
        "--a\r\nContent-Disposition: form-data; name=\"x\r\n\r\nx\r\n--a--",
        ("--a\r\nContent-Disposition: form-data; name=x\r\n"
         "Content-Disposition: form-data; name=y\r\n\r\nx\r\n--a--"),
        "--a\r\n folded: x\r\n\r\nx\r\n--a--"};
    mki_form f;
    sink to;
    size_t i;
    char many[256];

    (void)state;
    for (i = 0; i < COUNT(types); i++) {
        assert_false(mki_form_init(&f, mki_sc(types[i])));
    }
    for (i = 0; i < COUNT(bodies); i++) {
        assert_int_equal(form(&f, &to, "multipart/form-data;boundary=a",
                              bodies[i], strlen(bodies[i]), 3, 4),
                         MKI_FORM_BAD);
        mki_form_free(&f);
    }
    assert_true(mki_form_init(&f, mki_sc("multipart/form-data;boundary=a")));
    mki_form_feed(&f, "--a\r\n", 5);
    memset(many, 'h', sizeof many);
    for (i = 0; i < 1000 && f.state != MKI_FORM_BAD; i++) {
        mki_form_feed(&f, many, sizeof many);
    }
    assert_true(i < 100); /* headers are bounded */
    mki_form_free(&f);
}

/* ---- files ---- */

static void an_upload_has_the_documented_shape(void **state)
{
    rig *r = rig_with(NULL);
    char id[64], path[128];

    (void)state;
    upload_as(r, "a \\\"b\\\".jsonl", "batch", "{}\n\r\n--X", 9);
    assert_int_equal(r->status, 200);
    assert_json(r, "object", "file");
    assert_json(r, "bytes", "9");
    assert_json(r, "created_at", "1790000001");
    assert_json(r, "expires_at", "1792592001");
    assert_json(r, "filename", "a \"b\".jsonl");
    assert_json(r, "purpose", "batch");
    assert_json(r, "status", "processed");
    assert_json(r, "status_details", "null");
    keep(id, json(r, "id"));
    assert_int_equal(strlen(id), 27);
    snprintf(path, sizeof path, "/v1/files/%s", id);
    get(r, path);
    assert_int_equal(r->status, 200);
    assert_json(r, "id", id);
    content(r, id);
    assert_int_equal(r->status, 200);
    assert_string_equal(rig_header(r, "content-length"), "9");
    assert_string_equal(r->body, "{}\n\r\n--X");
    assert_int_equal(counted(r, "files_stored"), 1);
    ask(r, "DELETE", path, KEY, "", 0);
    assert_int_equal(r->status, 200);
    assert_json(r, "deleted", "true");
    assert_json(r, "id", id);
    ask(r, "DELETE", path, KEY, "", 0);
    assert_int_equal(r->status, 404);
    get(r, path);
    assert_int_equal(r->status, 404);
    assert_json(r, "error.param", "id");
    assert_non_null(strstr(r->body, "No such File object"));
    content(r, id);
    assert_int_equal(r->status, 404);
    assert_int_equal(counted(r, "files_stored"), 0);
    assert_int_equal(counted(r, "requests.DELETE /v1/files/{id}"), 2);
    upload_as(r, "bad \xff\xc3.bin", "assistants", "", 0);
    assert_int_equal(r->status, 200);
    assert_json(r, "filename", "bad ??.bin");
    assert_json(r, "expires_at", "(none)");
    assert_json(r, "bytes", "0");
    rig_free(r);
}

static void uploads_are_checked(void **state)
{
    static const struct {
        const char *body, *param, *code, *text;
    } cases[] = {
        {"--XX\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch"
         "\r\n--XX--",
         "file", "missing_required_parameter", "file"},
        {"--XX\r\nContent-Disposition: form-data; name=file\r\n\r\nbatch"
         "\r\n--XX--",
         "file", "missing_required_parameter", "file"},
        {"--XX\r\nContent-Disposition: form-data; name=file; filename=a.jsonl"
         "\r\n\r\nbatch\r\n--XX--",
         "purpose", "missing_required_parameter", "purpose"},
        {"--XX\r\nContent-Disposition: form-data; name=file; filename=a.jsonl"
         "\r\n\r\nbatch\r\n--XX\r\nContent-Disposition: form-data; name="
         "purpose\r\n\r\nfun\r\n--XX--",
         "purpose", "invalid_value", "fun"},
        {"--XX\r\nContent-Disposition: form-data; name=file; filename=a.json"
         "\r\n\r\nbatch\r\n--XX\r\nContent-Disposition: form-data; name="
         "purpose\r\n\r\nbatch\r\n--XX--",
         "null", "null", "Invalid file format for Batch API"},
        {"--XX\r\nContent-Disposition: form-data; name=file; filename=a.jsonl"
         "\r\n\r\nbatch\r\n--XX\r\nContent-Disposition: form-data; name="
         "purpose\r\n\r\nbatch\r\n--XX\r\nContent-Disposition: form-data; "
         "name=\"expires_after[anchor]\"\r\n\r\ncreated_at\r\n--XX--",
         "expires_after[seconds]", "missing_required_parameter", "seconds"},
        {"--XX\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch",
         "null", "null", "multipart"},
        {"no form at all", "null", "null", "multipart"}};
    rig *r = rig_with(NULL);
    char bytes[201];
    size_t i;

    (void)state;
    memset(bytes, '-', sizeof bytes);
    for (i = 0; i < COUNT(cases); i++) {
        ask(r, "POST", "/v1/files", FORM KEY, cases[i].body,
            strlen(cases[i].body));
        assert_int_equal(r->status, 400);
        assert_json(r, "error.param", cases[i].param);
        assert_json(r, "error.code", cases[i].code);
        assert_non_null(strstr(r->body, cases[i].text));
        assert_int_equal(strstr(r->body, "\"detail\"") != NULL, i == 4);
    }
    ask(r, "POST", "/v1/files", "Content-Type: application/json\r\n", "{}", 2);
    assert_int_equal(r->status, 415);
    ask(r, "PUT", "/v1/files", "", "", 0);
    assert_int_equal(r->status, 405);
    r->mock->store.limit_batch = 100;
    r->mock->store.limit_file = 200;
    upload_as(r, "a.jsonl", "batch", bytes, 101);
    assert_int_equal(r->status, 400);
    assert_json(r, "error.message", "File is too large.");
    upload_as(r, "a.jsonl", "batch", bytes, 100);
    assert_int_equal(r->status, 200);
    upload_as(r, "a.jsonl", "evals", bytes, 200);
    assert_int_equal(r->status, 200);
    upload_as(r, "a.jsonl", "evals", bytes, 201);
    assert_int_equal(r->status, 400);
    assert_int_equal(counted(r, "files_stored"), 2);
    rig_free(r);
}

static void chunked_and_large_uploads_arrive_whole(void **state)
{
    size_t len = (size_t)20 << 20;
    char *data = (char *)malloc(len);
    rig *r = rig_with(NULL);
    char id[64], path[128], chunk[128];
    const char *at;
    size_t i;
    int fd;

    (void)state;
    assert_non_null(data);
    for (i = 0; i < len; i++) {
        data[i] = (char)(i * 2654435761U >> 13);
    }
    upload_as(r, "a.jsonl", "batch", data, len);
    assert_int_equal(r->status, 200);
    keep(id, json(r, "id"));
    content(r, id);
    assert_int_equal(r->body_len, len);
    assert_memory_equal(r->body, data, len);
    free(data);
    snprintf(path, sizeof path, "/v1/files/%s", id);
    ask(r, "DELETE", path, "", "", 0);

    fd = rig_connect(r);
    rig_text(r, fd,
             "POST /v1/files HTTP/1.1\r\nHost: a\r\n"
             "Transfer-Encoding: chunked\r\n" FORM "\r\n");
    for (i = 0; i < 500; i++) { /* each byte of a form is a chunk */
        static const char text[] =
            "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n"
            "batch\r\n--XX\r\nContent-Disposition: form-data; name=\"file\"; "
            "filename=\"c.jsonl\"\r\n\r\n{\"x\":1}\n\r\n--XX--\r\n";

        if (i < sizeof text - 1) {
            snprintf(chunk, sizeof chunk, "1;x=y\r\n%c\r\n", text[i]);
            rig_text(r, fd, chunk);
        }
    }
    rig_text(r, fd,
             "0\r\nt: 1\r\n\r\nGET /v1/files HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_read(r, fd);
    rig_parse(r);
    assert_int_equal(r->status, 200);
    assert_non_null(strstr(r->body, "\"bytes\":8,"));
    at = strstr(r->body, "file-");
    snprintf(id, sizeof id, "%.27s", at);
    while (strstr(at, "\"data\":[{\"id\":\"file-") == NULL) {
        rig_read(r, fd); /* the answer to the one behind it on the line */
        at = r->data;
    }
    close(fd);
    content(r, id);
    assert_string_equal(r->body, "{\"x\":1}\n");
    rig_free(r);
}

static void lists_of_files_have_pages(void **state)
{
    rig *r = rig_with(NULL);
    char ids[5][64], path[160];
    int i;

    (void)state;
    get(r, "/v1/files");
    assert_json(r, "data", "[]");
    assert_json(r, "first_id", "null");
    assert_json(r, "has_more", "false");
    for (i = 0; i < 5; i++) {
        upload_as(r, "a.jsonl", i == 2 ? "evals" : "batch", "x", 1);
        keep(ids[i], json(r, "id"));
        r->now += 1000;
    }
    get(r, "/v1/files?limit=2");
    assert_json(r, "object", "list");
    assert_json(r, "data.0.id", ids[4]);
    assert_json(r, "data.1.id", ids[3]);
    assert_json(r, "data.2.id", "(none)");
    assert_json(r, "first_id", ids[4]);
    assert_json(r, "last_id", ids[3]);
    assert_json(r, "has_more", "true");
    snprintf(path, sizeof path, "/v1/files?purpose=batch&limit=2&after=%s",
             ids[3]);
    get(r, path);
    assert_json(r, "data.0.id", ids[1]);
    assert_json(r, "data.1.id", ids[0]);
    assert_json(r, "has_more", "false");
    snprintf(path, sizeof path, "/v1/files?order=asc&after=%s", ids[2]);
    get(r, path);
    assert_json(r, "data.0.id", ids[3]);
    assert_json(r, "data.1.id", ids[4]);
    for (i = 0; i < 4; i++) {
        static const char *const bad[] = {"limit=0", "limit=10001", "limit=x",
                                          "order=up"};

        snprintf(path, sizeof path, "/v1/files?%s", bad[i]);
        get(r, path);
        assert_int_equal(r->status, 400);
    }
    get(r, "/v1/files?after=file-nothing");
    assert_int_equal(r->status, 400);
    rig_free(r);
}

static void files_expire(void **state)
{
    static const char form_text[] =
        "--XX\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch"
        "\r\n--XX\r\nContent-Disposition: form-data; name="
        "\"expires_after[anchor]\"\r\n\r\ncreated_at\r\n--XX\r\n"
        "Content-Disposition: form-data; name=\"expires_after[seconds]\""
        "\r\n\r\n3600\r\n--XX\r\nContent-Disposition: form-data; name=file; "
        "filename=a.jsonl\r\n\r\nx\r\n--XX--\r\n";
    rig *r = rig_with(NULL);
    char id[64];

    (void)state;
    ask(r, "POST", "/v1/files", FORM, form_text, sizeof form_text - 1);
    assert_json(r, "expires_at", "1790003601");
    keep(id, json(r, "id"));
    upload(r, "y");
    r->now += 3599000;
    content(r, id);
    assert_int_equal(r->status, 200);
    r->now += 1000;
    content(r, id);
    assert_int_equal(r->status, 404);
    assert_int_equal(counted(r, "files_stored"), 1);
    r->now += 30 * (int64_t)DAY_MS;
    assert_int_equal(counted(r, "files_stored"), 0);
    rig_free(r);
}

/* ---- the life of a batch ---- */

static void a_batch_goes_through_its_states(void **state)
{
    static const struct {
        int at; /* of 1000 s */
        const char *status, *in_progress, *finalizing, *done;
        const char *total, *completed;
    } steps[] = {
        {0, "validating", "null", "null", "null", "0", "0"},
        {29, "validating", "null", "null", "null", "0", "0"},
        {30, "in_progress", "1790000031", "null", "null", "10", "0"},
        {500, "in_progress", "1790000031", "null", "null", "10", "5"},
        {970, "finalizing", "1790000031", "1790000971", "null", "10", "10"},
        {1000, "completed", "1790000031", "1790000971", "1790001001", "10",
         "10"},
        {9000, "completed", "1790000031", "1790000971", "1790001001", "10",
         "10"}};
    rig *r = rig_with(NULL);
    char id[64], file[64];
    char *text = rows(0, 10);
    tally *t;
    size_t i;

    (void)state;
    keep(file, upload(r, text));
    free(text);
    create_with(r, file, CHAT,
                ",\"metadata\":{\"a\":\"b\",\"gptner_job\":\"j\"},"
                "\"output_expires_after\":{\"anchor\":\"created_at\","
                "\"seconds\":3600}");
    keep(id, json(r, "id"));
    assert_int_equal(strlen(id), 38);
    for (i = 0; i < COUNT(steps); i++) {
        r->now = 1000 + steps[i].at * 1000;
        look(r, id);
        assert_json(r, "id", id);
        assert_json(r, "object", "batch");
        assert_json(r, "status", steps[i].status);
        assert_json(r, "created_at", "1790000001");
        assert_json(r, "expires_at", "1790086401");
        assert_json(r, "in_progress_at", steps[i].in_progress);
        assert_json(r, "finalizing_at", steps[i].finalizing);
        assert_json(r, "completed_at", steps[i].done);
        assert_json(r, "failed_at", "null");
        assert_json(r, "expired_at", "null");
        assert_json(r, "cancelling_at", "null");
        assert_json(r, "cancelled_at", "null");
        assert_json(r, "request_counts.total", steps[i].total);
        assert_json(r, "request_counts.completed", steps[i].completed);
        assert_json(r, "request_counts.failed", "0");
        assert_json(r, "metadata.a", "b");
        assert_json(r, "endpoint", CHAT);
        assert_json(r, "completion_window", "24h");
        assert_json(r, "input_file_id", file);
        assert_json(r, "errors", "null");
        assert_json(r, "error_file_id", "null");
        if (steps[i].at < 1000) {
            assert_json(r, "output_file_id", "null");
        }
        if (i > 0 && i == COUNT(steps) - 2) {
            keep(file, json(r, "output_file_id"));
            assert_json(r, "usage.input_tokens", "60");
            assert_json(r, "model", "gpt-4o-mini-2024-07-18");
            t = tally_file(r, file);
            assert_int_equal(t->good, 10);
            assert_false(t->in_order);
            free(t);
            break;
        }
    }
    assert_int_equal(counted(r, "batches_created"), 1);
    assert_int_equal(counted(r, "batches_by_job.j"), 1);
    assert_int_equal(counted(r, "batch_lines_billed"), 10);
    assert_int_equal(counted(r, "batch_lines_billed_again"), 0);
    assert_int_equal(counted(r, "files_stored"), 2);
    /* half of 60 tokens at 4 millionths each; that of the answers is 0 */
    assert_int_equal(counted(r, "cost_batch_microusd"), 120);
    assert_int_equal(counted(r, "cost_microusd"), 120);
    assert_clean(r);
    r->now = 1000 + 1000 * 1000 + 3600 * 1000; /* the output's own hour */
    content(r, file);
    assert_int_equal(r->status, 404);
    rig_free(r);
}

static void a_live_answer_and_a_row_are_the_same(void **state)
{
    static const char body[] =
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\","
        "\"content\":\"prompt 0\"}]}";
    rig *r = rig_with(NULL);
    char id[64], file[64];
    char live[64];

    (void)state;
    ask(r, "POST", CHAT, "Content-Type: application/json\r\n", body,
        sizeof body - 1);
    keep(live, json(r, "choices.0.message.content"));
    batch_of(r, 1, id);
    r->now += 1000000;
    look(r, id);
    keep(file, json(r, "output_file_id"));
    content(r, file);
    assert_json(r, "response.body.choices.0.message.content", live);
    assert_json(r, "response.body.object", "chat.completion");
    assert_json(r, "response.status_code", "200");
    assert_json(r, "error", "null");
    assert_int_equal(strncmp(json(r, "id"), "batch_req_", 10), 0);
    /* Answered live before: billed again. And the other way round. */
    assert_int_equal(counted(r, "batch_lines_billed_again"), 1);
    assert_int_equal(counted(r, "prompts_answered_again"), 0);
    mock_server_reset(r->mock);
    assert_int_equal(counted(r, "batches_created"), 0);
    batch_of(r, 1, id);
    r->now += 1000000;
    assert_int_equal(counted(r, "batch_lines_billed"), 1);
    assert_int_equal(counted(r, "batch_lines_billed_again"), 0);
    ask(r, "POST", CHAT, "Content-Type: application/json\r\n", body,
        sizeof body - 1);
    assert_int_equal(counted(r, "prompts_answered_again"), 1);
    rig_free(r);
}

static void other_endpoints_run_and_bad_rows_fail_alone(void **state)
{
    static const struct {
        const char *endpoint, *body, *object, *status;
    } cases[] = {
        {"/v1/completions", "\"prompt\":\"x y\"", "text_completion", "200"},
        {"/v1/embeddings", "\"input\":[\"x\",\"y\"]", "list", "200"},
        {CHAT, "\"messages\":[]", "(none)", "400"},
        {CHAT, "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"n\":0",
         "(none)", "400"},
        {"/v1/responses", "\"input\":\"x\"", "(none)", "404"}};
    rig *r = rig_with(NULL);
    char line[512], id[64], file[64];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        bool good = cases[i].status[0] == '2';

        snprintf(line, sizeof line,
                 "{\"custom_id\":\"r1\",\"method\":\"POST\",\"url\":\"%s\","
                 "\"body\":{\"model\":\"m\",%s}}",
                 cases[i].endpoint, cases[i].body);
        keep(file, upload(r, line));
        create_with(r, file, cases[i].endpoint, "");
        keep(id, json(r, "id"));
        r->now += 1000000;
        look(r, id);
        assert_json(r, "status", "completed");
        assert_json(r, good ? "error_file_id" : "output_file_id", "null");
        assert_json(r, "request_counts.failed", good ? "0" : "1");
        keep(file, json(r, good ? "output_file_id" : "error_file_id"));
        content(r, file);
        assert_json(r, "response.status_code", cases[i].status);
        assert_json(r, "response.body.object", cases[i].object);
        assert_json(r, "error", "null");
        assert_int_equal(strlen(r->body), strcspn(r->body, "\n") + 1);
    }
    rig_free(r);
}

static void batches_can_be_cancelled_once(void **state)
{
    rig *r = rig_with(NULL);
    char id[64], path[128], file[64];
    tally *t;

    (void)state;
    batch_of(r, 20, id);
    snprintf(path, sizeof path, "/v1/batches/%s/cancel", id);
    r->now += 500000;
    ask(r, "POST", path, KEY, "", 0);
    assert_int_equal(r->status, 200);
    assert_json(r, "status", "cancelling");
    assert_json(r, "cancelling_at", "1790000501");
    assert_json(r, "in_progress_at", "1790000031");
    r->now += 1000;
    ask(r, "POST", path, KEY, "", 0);
    assert_json(r, "cancelling_at", "1790000501");
    r->now += 49000;
    look(r, id);
    assert_json(r, "status", "cancelled");
    assert_json(r, "cancelled_at", "1790000551");
    assert_json(r, "request_counts.completed", "10");
    keep(file, json(r, "error_file_id"));
    keep(id, json(r, "output_file_id"));
    t = tally_file(r, id);
    assert_int_equal(t->good, 10);
    free(t);
    t = tally_file(r, file);
    assert_int_equal(t->left, 10);
    free(t);
    assert_non_null(strstr(r->body, "batch_cancelled"));
    ask(r, "POST", path, KEY, "", 0);
    assert_int_equal(r->status, 409);
    assert_json(r, "error.code", "null");
    assert_json(r, "error.type", "invalid_request_error");
    assert_non_null(strstr(r->body, "Cannot cancel a batch with status"));
    assert_int_equal(counted(r, "batch_lines_billed"), 10);
    /* while it was validating: nothing ran */
    batch_of(r, 3, id);
    snprintf(path, sizeof path, "/v1/batches/%s/cancel", id);
    ask(r, "POST", path, KEY, "", 0);
    r->now += 50000;
    look(r, id);
    assert_json(r, "status", "cancelled");
    assert_json(r, "in_progress_at", "null");
    assert_json(r, "output_file_id", "null");
    get(r, path);
    assert_int_equal(r->status, 405);
    rig_free(r);
}

static void batches_expire_after_24_hours(void **state)
{
    rig *r = rig_new();
    char id[64], file[64];
    tally *t;

    (void)state;
    r->opt.batch_seconds = 2 * 86400;
    rig_start(r);
    batch_of(r, 100, id);
    r->now += DAY_MS - 1000;
    look(r, id);
    assert_json(r, "status", "in_progress");
    r->now += 1000;
    look(r, id);
    assert_json(r, "status", "expired");
    assert_json(r, "expired_at", "1790086401");
    assert_json(r, "expires_at", "1790086401");
    assert_json(r, "completed_at", "null");
    assert_json(r, "request_counts.completed", "50");
    keep(file, json(r, "error_file_id"));
    keep(id, json(r, "output_file_id"));
    t = tally_file(r, id);
    assert_int_equal(t->good, 50);
    free(t);
    t = tally_file(r, file);
    assert_int_equal(t->left, 50);
    free(t);
    assert_non_null(strstr(r->body, "batch_expired"));
    rig_free(r);
    r = rig_with("batch-expires:0.6@1");
    batch_of(r, 10, id);
    r->now += 1000000;
    look(r, id);
    assert_json(r, "status", "expired");
    assert_json(r, "request_counts.completed", "6");
    batch_of(r, 10, id);
    r->now += 1000000;
    look(r, id);
    assert_json(r, "status", "completed");
    rig_free(r);
}

static void the_next_look_may_be_the_end(void **state)
{
    rig *r = rig_new();
    char id[64];

    (void)state;
    r->opt.batch_seconds = -1;
    rig_start(r);
    batch_of(r, 3, id);
    assert_json(r, "status", "validating");
    look(r, id);
    assert_json(r, "status", "completed");
    rig_free(r);
}

static void the_input_may_go_while_the_batch_runs(void **state)
{
    rig *r = rig_with(NULL);
    char id[64], path[128];

    (void)state;
    batch_of(r, 3, id);
    snprintf(path, sizeof path, "/v1/files/%s", json(r, "input_file_id"));
    ask(r, "DELETE", path, "", "", 0);
    assert_int_equal(r->status, 200);
    mock_server_advance(r->mock, 1000000);
    look(r, id);
    assert_json(r, "status", "completed");
    assert_json(r, "request_counts.completed", "3");
    rig_free(r);
}

static void lists_of_batches_have_pages(void **state)
{
    rig *r = rig_with(NULL);
    char ids[25][64], path[160], file[64];
    char *text = rows(0, 1);
    int i;

    (void)state;
    keep(file, upload(r, text));
    free(text);
    for (i = 0; i < 25; i++) {
        create(r, file, ids[i]);
    }
    get(r, "/v1/batches");
    assert_json(r, "data.0.id", ids[24]);
    assert_json(r, "data.19.id", ids[5]);
    assert_json(r, "data.20.id", "(none)");
    assert_json(r, "first_id", ids[24]);
    assert_json(r, "last_id", ids[5]);
    assert_json(r, "has_more", "true");
    snprintf(path, sizeof path, "/v1/batches?limit=100&after=%s", ids[5]);
    get(r, path);
    assert_json(r, "data.0.id", ids[4]);
    assert_json(r, "data.4.id", ids[0]);
    assert_json(r, "has_more", "false");
    get(r, "/v1/batches?limit=101");
    assert_int_equal(r->status, 400);
    assert_json(r, "error.param", "limit");
    get(r, "/v1/batches/batch_none");
    assert_int_equal(r->status, 404);
    assert_json(r, "error.code", "batch_not_found");
    rig_free(r);
}

static void creation_is_checked(void **state)
{
    static const char long_value[] =
        "{\"input_file_id\":\"f\",\"endpoint\":\"" CHAT
        "\",\"completion_window\":\"24h\",\"metadata\":{\"%s\":\"%s\"}}";
    static const struct {
        const char *body, *param, *code;
    } cases[] = {
        {"nothing", "null", "null"},
        {"{\"endpoint\":\"" CHAT "\",\"completion_window\":\"24h\"}",
         "input_file_id", "missing_required_parameter"},
        {"{\"input_file_id\":1,\"endpoint\":\"" CHAT
         "\",\"completion_window\":\"24h\"}",
         "input_file_id", "invalid_type"},
        {"{\"input_file_id\":\"f\",\"completion_window\":\"24h\"}", "endpoint",
         "missing_required_parameter"},
        {"{\"input_file_id\":\"f\",\"endpoint\":\"" CHAT "\"}",
         "completion_window", "missing_required_parameter"},
        {"{\"input_file_id\":\"f\",\"endpoint\":\"/v1/fun\","
         "\"completion_window\":\"24h\"}",
         "endpoint", "invalid_value"},
        {"{\"input_file_id\":\"f\",\"endpoint\":\"" CHAT
         "\",\"completion_window\":\"48h\"}",
         "completion_window", "invalid_value"},
        {"{\"input_file_id\":\"f\",\"endpoint\":\"" CHAT
         "\",\"completion_window\":\"24h\",\"metadata\":{\"a\":1}}",
         "metadata.a", "invalid_type"},
        {"{\"input_file_id\":\"f\",\"endpoint\":\"" CHAT
         "\",\"completion_window\":\"24h\",\"metadata\":{\"a\":\"\",\"b\":\"\","
         "\"c\":\"\",\"d\":\"\",\"e\":\"\",\"f\":\"\",\"g\":\"\",\"h\":\"\","
         "\"i\":\"\",\"j\":\"\",\"k\":\"\",\"l\":\"\",\"m\":\"\",\"n\":\"\","
         "\"o\":\"\",\"p\":\"\",\"q\":\"\"}}",
         "metadata", "object_above_max_properties"},
        {"{\"input_file_id\":\"f\",\"endpoint\":\"" CHAT
         "\",\"completion_window\":\"24h\",\"output_expires_after\":{"
         "\"anchor\":\"created_at\",\"seconds\":3599}}",
         "output_expires_after", "invalid_value"}};
    rig *r = rig_with(NULL);
    char text[2048], key[65], value[514];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        ask(r, "POST", "/v1/batches", "Content-Type: application/json\r\n",
            cases[i].body, strlen(cases[i].body));
        assert_int_equal(r->status, 400);
        assert_json(r, "error.param", cases[i].param);
        assert_json(r, "error.code", cases[i].code);
    }
    for (i = 0; i < 2; i++) { /* one character more is too much */
        memset(key, 'k', 64);
        memset(value, 'v', 513);
        key[64] = '\0';
        value[512 + i] = '\0';
        snprintf(text, sizeof text, long_value, key, value);
        ask(r, "POST", "/v1/batches", "Content-Type: application/json\r\n",
            text, strlen(text));
        assert_int_equal(r->status, i == 0 ? 404 : 400);
    }
    create_with(r, "file-never", CHAT, "");
    assert_int_equal(r->status, 404);
    assert_non_null(strstr(r->body, "No such File object"));
    upload_as(r, "x.jsonl", "evals", "x", 1);
    keep(key, json(r, "id"));
    create_with(r, key, CHAT, "");
    assert_int_equal(r->status, 400);
    assert_int_equal(counted(r, "batches_created"), 0);
    rig_free(r);
}

/* ---- validation ---- */

#define LINE(id, more)                                                         \
    "{\"custom_id\":\"" id "\",\"method\":\"POST\",\"url\":\"" CHAT "\"," more \
    "}\n"
#define BODY "\"body\":{\"model\":\"gpt-4o-mini\",\"messages\":[]}"

/* Fails a batch; its errors are in the reply. */
static void failed(rig *r, const char *text, const char *endpoint)
{
    char file[64], id[64];

    keep(file, upload(r, text));
    create_with(r, file, endpoint, "");
    assert_int_equal(r->status, 200);
    assert_json(r, "status", "validating");
    assert_json(r, "errors", "null");
    keep(id, json(r, "id"));
    r->now += 29000;
    look(r, id);
    assert_json(r, "status", "validating");
    r->now += 1000;
    look(r, id);
    assert_json(r, "status", "failed");
    assert_json(r, "errors.object", "list");
    assert_json(r, "output_file_id", "null");
    assert_json(r, "error_file_id", "null");
    assert_json(r, "in_progress_at", "null");
    assert_json(r, "request_counts.total", "0");
    assert_string_not_equal(json(r, "failed_at"), "null");
}

static void each_line_is_validated(void **state)
{
    static const struct {
        const char *text, *code, *line, *param;
    } cases[] = {
        {LINE("a", BODY) "nothing\n", "invalid_json_line", "2", "null"},
        {LINE("a", BODY) "\n \t\r\n[1]\n", "invalid_json_line", "4", "null"},
        {"\xef\xbb\xbf" LINE("a", BODY), "invalid_json_line", "1", "null"},
        {"{\"custom_id\":\"\xff\"}\n", "invalid_json_line", "1", "null"},
        {LINE("a", BODY) LINE("b", BODY) LINE("a", BODY), "duplicate_custom_id",
         "3", "custom_id"},
        {"{\"method\":\"GET\"}\n", "missing_required_parameter", "1",
         "custom_id"},
        {"{\"custom_id\":7}\n", "missing_required_parameter", "1", "custom_id"},
        {"{\"custom_id\":\"a\",\"url\":\"" CHAT "\"," BODY "}",
         "missing_required_parameter", "1", "method"},
        {"{\"custom_id\":\"a\",\"method\":\"GET\"}", "invalid_method", "1",
         "method"},
        {"{\"custom_id\":\"a\",\"method\":\"POST\"," BODY "}",
         "missing_required_parameter", "1", "url"},
        {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/x\"}",
         "invalid_url", "1", "url"},
        {"{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/embeddings\"}",
         "url_mismatch", "1", "url"},
        {LINE("a", "\"x\":1"), "missing_required_parameter", "1", "body"},
        {LINE("a", "\"body\":[]"), "missing_required_parameter", "1", "body"},
        {LINE("a", "\"body\":{}"), "missing_required_parameter", "1",
         "body.model"},
        {LINE("a", BODY) LINE("b", "\"body\":{\"model\":\"gpt-4o\"}"),
         "model_mismatch", "2", "body.model"},
        {LINE("a", "\"body\":{\"model\":\"m\",\"stream\":true}"),
         "invalid_request", "1", "body.stream"},
        {"", "empty_file", "null", "null"},
        {"\n\r\n  \n", "empty_file", "null", "null"}};
    rig *r = rig_with(NULL);
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        failed(r, cases[i].text, CHAT);
        assert_json(r, "errors.data.0.code", cases[i].code);
        assert_json(r, "errors.data.0.line", cases[i].line);
        assert_json(r, "errors.data.0.param", cases[i].param);
        assert_json(r, "errors.data.1", "(none)");
    }
    failed(r, LINE("a", BODY) "x\ny\n" LINE("a", BODY), CHAT);
    assert_json(r, "errors.data.0.line", "2");
    assert_json(r, "errors.data.1.line", "3");
    assert_json(r, "errors.data.2.code", "duplicate_custom_id");
    assert_int_equal(counted(r, "batch_lines_billed"), 0);
    rig_free(r);
}

static void limits_of_a_batch_are_kept(void **state)
{
    rig *r = rig_with(NULL);
    char *text = rows(0, 50001);
    mki_buf b = MKI_ZERO;
    char id[64];
    size_t i;

    (void)state;
    failed(r, text, CHAT);
    assert_json(r, "errors.data.0.code", "too_many_tasks");
    assert_json(r, "errors.data.0.line", "null");
    text[strlen(text) - 1] = '\0';
    *strrchr(text, '\n') = '\0'; /* the last line goes */
    create(r, upload(r, text), id);
    r->now += 1000000;
    look(r, id);
    assert_json(r, "status", "completed");
    assert_json(r, "request_counts.completed", "50000");
    free(text);
    mki_buf_s(&b, "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":"
                  "\"/v1/embeddings\",\"body\":{\"model\":\"m\",\"input\":[");
    for (i = 0; i <= 50000; i++) {
        mki_buf_s(&b, i == 0 ? "\"x\"" : ",\"x\"");
    }
    mki_buf_add(&b, "]}}\n", 5);
    failed(r, b.data, "/v1/embeddings");
    assert_json(r, "errors.data.0.code", "too_many_tasks");
    b.len = 0;
    for (i = 0; i < 150; i++) {
        mki_buf_s(&b, "bad\n");
    }
    mki_buf_c(&b, '\0');
    failed(r, b.data, CHAT);
    assert_json(r, "errors.data.99.line", "100");
    assert_json(r, "errors.data.100", "(none)");
    mki_buf_free(&b);
    rig_free(r);
}

static void models_are_known_with_profiles(void **state)
{
    rig *r = rig_new();

    (void)state;
    r->opt.model_profiles = true;
    rig_start(r);
    failed(r, LINE("a", "\"body\":{\"model\":\"no-model\"}"), CHAT);
    assert_json(r, "errors.data.0.code", "model_not_found");
    assert_json(r, "errors.data.0.line", "null");
    rig_free(r);
}

static void enqueued_tokens_are_limited(void **state)
{
    rig *r = rig_new();
    char first[64], second[64];

    (void)state;
    r->opt.enqueued_tokens = 100; /* 6 a row */
    rig_start(r);
    batch_of(r, 10, first);
    batch_of(r, 10, second);
    assert_json(r, "status", "validating");
    r->now += 30000;
    look(r, second);
    assert_json(r, "status", "failed");
    assert_json(r, "errors.data.0.code", "token_limit_exceeded");
    assert_json(r, "errors.data.0.line", "null");
    assert_non_null(strstr(r->body, "Enqueued token limit reached for"));
    batch_of(r, 6, second); /* 96 together: fits */
    r->now += 30000;
    look(r, second);
    assert_json(r, "status", "in_progress");
    r->now += 1000000;
    batch_of(r, 16, second); /* both are over */
    r->now += 30000;
    look(r, second);
    assert_json(r, "status", "in_progress");
    batch_of(r, 17, second);
    r->now += 2000000;
    look(r, second);
    assert_json(r, "status", "failed");
    rig_free(r);
}

/* ---- lies ---- */

static void rows_lie_as_told(void **state)
{
    static const struct {
        const char *fault;
        int out, err; /* lines */
        int good, shorter, refused, bad_json, strangers, again, status0;
        int out_4xx, err_4xx, err_5xx;
    } cases[] = {
        {"row-4xx@every=10", 90, 10, 90, 0, 0, 0, 0, 0, 0, 0, 10, 0},
        {"row-4xx-in-output@every=10", 100, 0, 90, 0, 0, 0, 0, 0, 0, 10, 0, 0},
        {"row-4xx@every=10,status=422", 90, 10, 90, 0, 0, 0, 0, 0, 0, 0, 10, 0},
        {"row-5xx@every=10", 90, 10, 90, 0, 0, 0, 0, 0, 0, 0, 0, 10},
        {"row-429@every=10", 90, 10, 90, 0, 0, 0, 0, 0, 0, 0, 10, 0},
        {"row-status0@every=10", 90, 10, 90, 0, 0, 0, 0, 0, 10, 0, 0, 0},
        {"row-refusal@every=10", 100, 0, 90, 0, 10, 0, 0, 0, 0, 0, 0, 0},
        {"row-cut@every=10", 100, 0, 90, 10, 0, 0, 0, 0, 0, 0, 0, 0},
        {"row-malformed@every=10", 100, 0, 90, 0, 0, 10, 0, 0, 0, 0, 0, 0},
        {"row-drop@every=10", 90, 0, 90, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {"row-duplicate@every=10", 110, 0, 110, 0, 0, 0, 0, 10, 0, 0, 0, 0},
        {"row-stranger@every=10", 110, 0, 100, 0, 0, 0, 10, 0, 0, 0, 0, 0},
        {"row-drop@7", 99, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {"row-drop,times=3", 97, 0, 97, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {"row-u2028", 100, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {"row-crlf", 100, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {"row-blank", 100, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0},
        {"row-5xx:1", 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100}};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        tally *out, *err;
        rig *r = lied(cases[i].fault, 100, &out, &err);

        print_message("  %s\n", cases[i].fault);
        assert_int_equal(out != NULL ? out->lines : 0, cases[i].out);
        assert_int_equal(err != NULL ? err->lines : 0, cases[i].err);
        if (out != NULL) {
            assert_int_equal(out->good, cases[i].good);
            assert_int_equal(out->shorter, cases[i].shorter);
            assert_int_equal(out->refused, cases[i].refused);
            assert_int_equal(out->bad_json, cases[i].bad_json);
            assert_int_equal(out->strangers, cases[i].strangers);
            assert_int_equal(out->again, cases[i].again);
            assert_int_equal(out->by_hundred[4], cases[i].out_4xx);
        }
        if (err != NULL) {
            assert_int_equal(err->status0, cases[i].status0);
            assert_int_equal(err->by_hundred[4], cases[i].err_4xx);
            assert_int_equal(err->by_hundred[5], cases[i].err_5xx);
        }
        lied_free(r, out, err);
    }
}

static void lines_are_written_as_told(void **state)
{
    static const struct {
        const char *fault, *bytes;
        int n;
    } cases[] = {{"row-u2028", "\xe2\x80\xa8", 3},
                 {"row-crlf", "}\r\n", 3},
                 {"row-blank", "}\n\n", 3},
                 {"rows-shuffled", "\n\n", 0}};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        rig *r = rig_with(cases[i].fault);
        char id[64];
        const char *at;
        int n = 0;

        batch_of(r, 3, id);
        r->now += DAY_MS;
        look(r, id);
        content(r, json(r, "output_file_id"));
        for (at = r->body; (at = strstr(at, cases[i].bytes)) != NULL; at++) {
            n++;
        }
        assert_int_equal(n, cases[i].n);
        rig_free(r);
    }
}

static void lies_are_seeded_and_a_second_try_is_another(void **state)
{
    rig *r = rig_with("row-5xx:0.3");
    char id[64], error[2][64];
    tally *t[2];
    int i, both = 0;

    (void)state;
    for (i = 0; i < 2; i++) {
        batch_of(r, 200, id);
        r->now += DAY_MS;
        look(r, id);
        keep(error[i], json(r, "error_file_id"));
        t[i] = tally_file(r, error[i]);
        assert_true(t[i]->lines > 30 && t[i]->lines < 90);
    }
    for (i = 0; i < 200; i++) {
        both += t[0]->seen[i] && t[1]->seen[i] ? 1 : 0;
    }
    assert_true(both < 45); /* of 60, about 18 */
    rig_free(r);
    free(t[1]);
    r = rig_with("row-5xx:0.3"); /* the same work sees the same */
    batch_of(r, 200, id);
    r->now += DAY_MS;
    look(r, id);
    t[1] = tally_file(r, json(r, "error_file_id"));
    assert_memory_equal(t[0]->seen, t[1]->seen, sizeof t[0]->seen);
    free(t[0]);
    free(t[1]);
    rig_free(r);
}

static void order_is_kept_only_if_told(void **state)
{
    tally *out, *err;
    rig *r = lied("rows-in-order", 50, &out, &err);

    (void)state;
    assert_true(out->in_order);
    lied_free(r, out, err);
    r = lied(NULL, 50, &out, &err);
    assert_false(out->in_order);
    lied_free(r, out, err);
}

static void batches_lie_as_told(void **state)
{
    rig *r = rig_with("null-output");
    char id[64];

    (void)state;
    batch_of(r, 3, id);
    r->now += DAY_MS;
    look(r, id);
    assert_json(r, "status", "completed");
    assert_json(r, "output_file_id", "null");
    assert_json(r, "request_counts.completed", "3");
    rig_fault(r, "null-ids");
    batch_of(r, 3, id);
    look(r, id);
    assert_json(r, "output_file_id", "(none)");
    r->now += DAY_MS;
    look(r, id);
    assert_json(r, "error_file_id", "(none)");
    assert_int_equal(strncmp(json(r, "output_file_id"), "file-", 5), 0);
    rig_fault(r, "batch-fails");
    batch_of(r, 3, id);
    r->now += 30000;
    look(r, id);
    assert_json(r, "status", "failed");
    assert_json(r, "errors.data.0.code", "server_error");
    rig_fault(r, "unknown-status");
    batch_of(r, 3, id);
    r->now += 400000;
    look(r, id);
    assert_json(r, "status", "paused");
    r->now += 300000;
    look(r, id);
    assert_json(r, "status", "in_progress");
    rig_fault(r, NULL);
    mock_server_fault(r->mock, "counts-lie", NULL, 0);
    mock_server_fault(r->mock, "row-5xx", NULL, 0);
    batch_of(r, 3, id);
    r->now += DAY_MS;
    look(r, id);
    assert_json(r, "request_counts.completed", "3");
    assert_json(r, "request_counts.failed", "0");
    assert_json(r, "output_file_id", "null");
    rig_free(r);
}

static void files_come_late_or_elsewhere(void **state)
{
    rig *r = rig_with("late-files,first=2");
    char id[64], path[128];
    char *text = rows(0, 1);

    (void)state;
    keep(id, upload(r, text));
    content(r, id);
    assert_int_equal(r->status, 404);
    content(r, id);
    assert_int_equal(r->status, 404);
    content(r, id);
    assert_int_equal(r->status, 200);
    rig_fault(r, "late-files,status=403,first=3");
    content(r, id);
    assert_int_equal(r->status, 403);
    rig_fault(r, "late-upload,first=1");
    create_with(r, id, CHAT, "");
    assert_int_equal(r->status, 400);
    assert_json(r, "error.param", "file_id");
    assert_json(r, "error.code", "null");
    assert_non_null(strstr(r->body, "Cannot find file"));
    create_with(r, id, CHAT, "");
    assert_int_equal(r->status, 200);
    assert_clean(r);
    rig_fault(r, "content-redirect");
    content(r, id);
    assert_int_equal(r->status, 302);
    snprintf(path, sizeof path, "http://localhost:%d/mock/content/%s",
             mock_server_port(r->mock), id);
    assert_string_equal(rig_header(r, "location"), path);
    snprintf(path, sizeof path, "/mock/content/%s", id);
    get(r, path);
    assert_int_equal(r->status, 200);
    assert_string_equal(r->body, text);
    assert_clean(r);
    ask(r, "GET", path, KEY, "", 0);
    assert_card(r, "key_to_other_host", 1);
    rig_fault(r, "content-redirect,to=http://a.test/x");
    content(r, id);
    assert_string_equal(rig_header(r, "location"), "http://a.test/x");
    free(text);
    rig_free(r);
}

static void replies_are_lost_on_the_routes_told(void **state)
{
    rig *r = rig_with("lost-reply@files@1");
    char *text = rows(0, 1);
    char file[64];

    (void)state;
    upload_as(r, "a.jsonl", "batch", text, strlen(text));
    assert_int_equal(r->status, 0);
    assert_int_equal(counted(r, "files_stored"), 1);
    keep(file, upload(r, text));
    rig_fault(r, "lost-reply@batches,times=1");
    get(r, "/v1/batches"); /* only what makes something */
    assert_int_equal(r->status, 200);
    create_with(r, file, CHAT, ",\"metadata\":{\"gptner_job\":\"x\"}");
    assert_int_equal(r->status, 0);
    assert_int_equal(counted(r, "batches_created"), 1);
    assert_int_equal(counted(r, "faults.lost-reply"), 2);
    create_with(r, file, CHAT, ",\"metadata\":{\"gptner_job\":\"x\"}");
    assert_int_equal(r->status, 200);
    assert_int_equal(counted(r, "batches_by_job.x"), 2);
    assert_card(r, "created_twice", 1);
    rig_fault(r, "500@content");
    content(r, file);
    assert_int_equal(r->status, 500);
    get(r, "/v1/files");
    assert_int_equal(r->status, 200);
    rig_fault(r, "503@list@every=2");
    get(r, "/v1/files");
    assert_int_equal(r->status, 200);
    content(r, file);
    get(r, "/v1/files");
    assert_int_equal(r->status, 503);
    rig_fault(r, "badjson,route=batches");
    get(r, "/v1/batches");
    assert_json(r, "data", "(none)");
    rig_fault(r, "upload-reset");
    upload_as(r, "a.jsonl", "batch", text, strlen(text));
    assert_int_equal(r->status, 0);
    assert_int_equal(counted(r, "files_stored"), 2);
    rig_fault(r, "upload-reset,bytes=100,times=1");
    upload_as(r, "a.jsonl", "batch", text, strlen(text));
    assert_int_equal(r->status, 0);
    upload(r, text);
    free(text);
    rig_free(r);
}

static void downloads_break_off(void **state)
{
    static const struct {
        const char *way;
        bool has_length;
    } cases[] = {{NULL, true}, {"http10", false}, {"chunked", false}};
    char *text = rows(0, 500);
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        rig *r = rig_with(NULL);
        char file[64];

        keep(file, upload(r, text));
        if (cases[i].way != NULL) {
            rig_fault(r, cases[i].way);
            content(r, file);
            assert_int_equal(r->status, 200);
            assert_true(r->body_len >= strlen(text));
        }
        mock_server_fault(r->mock, "truncate@content", NULL, 0);
        content(r, file);
        assert_int_equal(r->status, 200);
        assert_true(r->closed);
        assert_int_equal(rig_header(r, "content-length")[0] != '\0',
                         cases[i].has_length);
        assert_true(r->body_len < strlen(text) * 6 / 10);
        assert_true(r->body_len > strlen(text) * 4 / 10);
        rig_fault(r, "slow,bytes=40000,ms=0");
        content(r, file);
        assert_int_equal(r->body_len, strlen(text));
        assert_card(r, "downloaded_again", cases[i].way != NULL ? 1 : 0);
        rig_free(r);
    }
    free(text);
}

static void fault_texts_are_understood_or_refused(void **state)
{
    static const char *const good[] = {
        "row-4xx:0.01",       "row-4xx-in-output:0.5,status=404",
        "batch-expires:0.25", "batch-expires@2,done=0.25",
        "lost-reply@batches", "lost-reply:0.5@files",
        "500@content@2",      "429@status@every=3",
        "late-files,first=3", "reset,route=cancel"};
    static const char *const bad[] = {
        "row-6xx",          "",     "row-drop:2", "batch-expires:1.5",
        "500@nowhere",      "500@", "500@files@", "500,route=x",
        "row-4xx,status=20"};
    mki_fault f;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(good); i++) {
        if (!mki_fault_parse(&f, good[i], NULL, 0)) {
            fail_msg("%s", good[i]);
        }
    }
    for (i = 0; i < COUNT(bad); i++) {
        if (mki_fault_parse(&f, bad[i], NULL, 0)) {
            fail_msg("%s", bad[i]);
        }
    }
}

/* ---- the report card ---- */

static void a_job_created_twice_is_found(void **state)
{
    rig *r = rig_new();
    char *text = rows(0, 3);
    char first[64], again[64];

    (void)state;
    r->opt.enqueued_tokens = 30;
    rig_start(r);
    keep(first, upload(r, text));
    keep(again, upload(r, text));
    create_with(r, first, CHAT, ",\"metadata\":{\"gptner_job\":\"x\"}");
    create_with(r, again, CHAT, ",\"metadata\":{\"gptner_job\":\"y\"}");
    r->now += DAY_MS; /* the second one failed: 36 tokens */
    create_with(r, again, CHAT, ",\"metadata\":{\"gptner_job\":\"y\"}");
    r->now += DAY_MS;
    assert_clean(r);
    assert_int_equal(counted(r, "batches_by_job.y"), 2);
    create_with(r, again, CHAT, ",\"metadata\":{\"gptner_job\":\"x\"}");
    r->now += DAY_MS;
    assert_card(r, "created_twice", 1);
    assert_int_equal(counted(r, "batch_lines_billed"), 9);
    assert_int_equal(counted(r, "batch_lines_billed_again"), 6);
    free(text);
    rig_free(r);
}

static void rows_that_the_mock_lost_may_be_sent_again(void **state)
{
    rig *r = rig_with("row-drop@every=2");
    char id[64];

    (void)state;
    batch_of(r, 10, id);
    r->now += DAY_MS;
    assert_int_equal(counted(r, "batch_lines_billed"), 10);
    rig_fault(r, NULL);
    batch_of(r, 10, id);
    r->now += DAY_MS;
    assert_int_equal(counted(r, "batch_lines_billed"), 20);
    assert_int_equal(counted(r, "batch_lines_billed_again"), 5);
    rig_free(r);
}

static void impatient_polls_are_found(void **state)
{
    rig *r = rig_with(NULL);
    char id[64];
    int i;

    (void)state;
    batch_of(r, 1, id);
    for (i = 0; i < 20; i++) {
        look(r, id);
        r->now += 2000;
    }
    assert_clean(r);
    batch_of(r, 1, id);
    for (i = 0; i < 20; i++) {
        look(r, id);
        r->now += 1900;
    }
    assert_card(r, "polled_too_fast", 1);
    r->now += DAY_MS;
    for (i = 0; i < 20; i++) { /* it is over: no matter */
        look(r, id);
    }
    assert_card(r, "polled_too_fast", 1);
    rig_free(r);
    r = rig_new();
    r->opt.batch_seconds = 10; /* every 0.2 s will do */
    rig_start(r);
    batch_of(r, 1, id);
    for (i = 0; i < 20; i++) {
        look(r, id);
        r->now += 200;
    }
    assert_clean(r);
    rig_free(r);
}

static void files_left_behind_are_found_if_that_is_expected(void **state)
{
    rig *r = rig_new();
    char id[64], path[128];

    (void)state;
    r->opt.expect_clean_files = true;
    rig_start(r);
    assert_clean(r);
    keep(id, upload(r, "x"));
    assert_card(r, "leaked_files", 1);
    snprintf(path, sizeof path, "/v1/files/%s", id);
    ask(r, "DELETE", path, "", "", 0);
    assert_clean(r);
    get(r, "/mock/report");
    assert_json(r, "clean", "true");
    assert_json(r, "findings", "[]");
    rig_free(r);
}

static void the_clock_can_be_moved_over_http(void **state)
{
    rig *r = rig_with(NULL);
    char id[64];

    (void)state;
    batch_of(r, 1, id);
    ask(r, "POST", "/mock/clock", "", "{\"advance_seconds\":1000.5}", 26);
    assert_int_equal(r->status, 200);
    look(r, id);
    assert_json(r, "status", "completed");
    ask(r, "POST", "/mock/clock", "", "{\"advance_seconds\":-1}", 22);
    assert_int_equal(r->status, 400);
    ask(r, "POST", "/mock/clock", "", "x", 1);
    assert_int_equal(r->status, 400);
    rig_free(r);
}

/* ---- over restarts ---- */

static void folder_remove_one(void *ctx, const char *name)
{
    char path[512];

    snprintf(path, sizeof path, "%s/%s", (const char *)ctx, name);
    assert_int_equal(unlink(path), 0);
}

static void folder_remove(char *dir)
{
    assert_true(mki_dir_each(dir, folder_remove_one, dir));
    assert_int_equal(rmdir(dir), 0);
}

static int folder_count;

static void folder_count_one(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    folder_count++;
}

/* Stops the mock without a word to its folder, and starts another. */
static void restart(rig *r)
{
    mock_server_stop(r->mock);
    rig_start(r);
}

static void all_is_still_there_after_a_restart(void **state)
{
    char dir[64] = "/tmp/mock-batch-XXXXXX";
    rig *r = rig_new();
    char done[64], open[64], bad[64], output[64], path[128];
    char *text = rows(0, 30);
    tally *t;

    (void)state;
    assert_non_null(mkdtemp(dir));
    r->opt.data_dir = dir;
    rig_start(r);
    create_with(r, upload(r, text), CHAT,
                ",\"metadata\":{\"gptner_job\":\"caf\xc3\xa9 \\\"1\\\"\"}");
    keep(done, json(r, "id"));
    create(r, upload(r, "nothing"), bad);
    r->now += DAY_MS;
    look(r, done);
    keep(output, json(r, "output_file_id"));
    batch_of(r, 30, open);
    r->now += 500000;
    restart(r);
    look(r, done);
    assert_json(r, "status", "completed");
    assert_json(r, "output_file_id", output);
    assert_json(r, "metadata.gptner_job", "caf\xc3\xa9 \"1\"");
    assert_json(r, "request_counts.completed", "30");
    assert_json(r, "usage.input_tokens", "180");
    t = tally_file(r, output);
    assert_int_equal(t->good, 30);
    free(t);
    look(r, bad);
    assert_json(r, "status", "failed");
    assert_json(r, "errors.data.0.code", "invalid_json_line");
    look(r, open);
    assert_json(r, "status", "in_progress");
    assert_json(r, "request_counts.completed", "15");
    assert_int_equal(counted(r, "batches_created"), 3);
    assert_int_equal(counted(r, "batches_by_job.caf\xc3\xa9 \"1\""), 1);
    assert_int_equal(counted(r, "batch_lines_billed"), 30);
    assert_int_equal(counted(r, "files_stored"), 4);
    snprintf(path, sizeof path, "/v1/batches/%s/cancel", open);
    ask(r, "POST", path, "", "", 0);
    restart(r);
    look(r, open);
    assert_json(r, "status", "cancelling");
    r->now += 50000;
    look(r, open);
    assert_json(r, "status", "cancelled");
    /* billed in the first batch, and known in spite of the restart */
    assert_int_equal(counted(r, "batch_lines_billed_again"), 15);
    get(r, "/v1/batches");
    assert_json(r, "data.0.id", open);
    assert_json(r, "data.2.id", done);
    snprintf(path, sizeof path, "/v1/files/%s", output);
    ask(r, "DELETE", path, "", "", 0);
    restart(r);
    get(r, path);
    assert_int_equal(r->status, 404);
    free(text);
    rig_free(r);
    folder_remove(dir);
}

static void halves_of_a_killed_process_are_swept_away(void **state)
{
    static const char *const halves[] = {
        "upload-1.tmp",        "file-aaaaaaaaaaaaaaaaaaaaaa.data",
        "batch_none.in",       "batch_none.keys",
        "batch_none.json.tmp", "batch_none.out.tmp",
        "batch_none.out.2.tmp"};
    char dir[64] = "/tmp/mock-batch-XXXXXX";
    rig *r = rig_new();
    char path[256], id[64];
    size_t i;
    mki_batch *b;

    (void)state;
    assert_non_null(mkdtemp(dir));
    r->opt.data_dir = dir;
    rig_start(r);
    batch_of(r, 5, id);
    r->now += DAY_MS;
    b = r->mock->store.batches[0];
    /* as if the process had died before the batch was written */
    mki_batch_end(r->mock, b, r->now, MKI_B_COMPLETED);
    b->end_ms = 0;
    b->output[0] = '\0';
    b->completed = b->billed = b->tokens_in = b->tokens_out = 0;
    assert_true(mki_store_save_batch(&r->mock->store, b));
    snprintf(path, sizeof path, "%s/%s.data", dir, b->input);
    snprintf(r->data, r->cap, "%s/%s.in", dir, b->id);
    assert_int_equal(link(path, r->data), 0);
    for (i = 0; i < COUNT(halves); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, halves[i]);
        assert_true(mki_file_write(path, "x", 1));
    }
    restart(r);
    assert_int_equal(counted(r, "files_stored"), 2);
    look(r, id);
    assert_json(r, "status", "completed");
    assert_int_equal(counted(r, "batch_lines_billed"), 5);
    assert_int_equal(counted(r, "batch_lines_billed_again"), 0);
    folder_count = 0;
    mki_dir_each(dir, folder_count_one, NULL);
    assert_int_equal(folder_count, 6); /* 2 files of 2, a batch of 2 */
    rig_free(r);
    folder_remove(dir);
}

static void nonsense_in_the_folder_is_no_reason_to_fall(void **state)
{
    static const struct {
        const char *name, *text;
    } cases[] = {
        {"file-a.json", "{"},
        {"file-b.json", "[]"},
        {"file-c.json", "{\"id\":\"file-other\"}"},
        {"file-d.json", "{\"id\":\"file-d\",\"bytes\":-5,\"serial\":\"x\"}"},
        {"batch_a.json", "{\"id\":\"batch_a\",\"end\":77,\"end_ms\":1}"},
        {"batch_b.json", "{\"id\":\"batch_b\",\"created_ms\":"
                         "9223372036854775807,\"total\":-1}"},
        {"batch_c.json", "{\"id\":\"batch_c\",\"length_ms\":1e300}"},
        {"batch_a.keys", "short"},
        {"batch_.json", ""},
        {".json", "{}"},
        {"x", "x"}};
    char dir[64] = "/tmp/mock-batch-XXXXXX";
    rig *r = rig_new();
    char path[256];
    size_t i;

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (i = 0; i < COUNT(cases); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, cases[i].name);
        assert_true(mki_file_write(path, cases[i].text, strlen(cases[i].text)));
    }
    r->opt.data_dir = dir;
    rig_start(r);
    get(r, "/v1/files");
    assert_int_equal(r->status, 200);
    assert_json(r, "data.0.id", "file-d");
    content(r, "file-d");
    assert_int_equal(r->status, 500); /* its bytes are not there */
    get(r, "/v1/batches");
    assert_int_equal(r->status, 200);
    assert_json(r, "data.2.object", "batch");
    assert_int_equal(counted(r, "batches_created"), 3);
    get(r, "/v1/batches/..%2f..%2fetc");
    assert_int_equal(r->status, 404);
    rig_free(r);
    snprintf(path, sizeof path, "%s/.json", dir);
    unlink(path);
    folder_remove(dir);
}

/* Forms made of pieces of forms, in any order. */
static void random_forms_do_no_harm(void **state)
{
    static const char *const pieces[] = {
        "--XX",
        "\r\n",
        "--",
        "\r\n--XX\r\n",
        "\r",
        "\n",
        "\"",
        ";",
        "\\",
        "Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n",
        "Content-Disposition: form-data; name=purpose\r\n",
        "\r\n\r\n",
        " ",
        "batch",
        "Content-Disposition:",
        "form-data",
        "name=",
        "\t",
        "x: y"};
    uint64_t random = 1;
    int ends = 0;
    int i;

    (void)state;
    for (i = 0; i < 20000; i++) {
        mki_buf b = MKI_ZERO;
        mki_form f;
        sink to;
        int k;

        mki_buf_s(&b, "--XX\r\n");
        for (k = 0; k < 12; k++) {
            random = mki_mix(random);
            mki_buf_s(&b, pieces[random % COUNT(pieces)]);
        }
        mki_buf_s(&b, "\r\n--XX--");
        random = mki_mix(random);
        k = (int)(random % b.len);
        ends += form(&f, &to, "multipart/form-data; boundary=XX", b.data, b.len,
                     (size_t)k, (size_t)k) == MKI_FORM_END
                    ? 1
                    : 0;
        mki_form_free(&f);
        mki_buf_free(&b);
    }
    assert_true(ends > 100);
}

/* Started with a thread of its own, asked from this one. */
static void a_thread_serves_while_others_count(void **state)
{
    static const char body[] =
        "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n"
        "batch\r\n--XX\r\nContent-Disposition: form-data; name=\"file\"; "
        "filename=\"c.jsonl\"\r\n\r\n{\"x\":1}\n\r\n--XX--\r\n";
    rig *r = rig_new();
    char why[128], reply[4096], text[1024];
    int i, fd;

    (void)state;
    r->opt.batch_seconds = -1;
    assert_true(mock_server_start(&r->opt, &r->mock, why, sizeof why));
    for (i = 0; i < 20; i++) {
        size_t len = 0;
        ssize_t n = 1;

        fd = rig_connect(r);
        snprintf(text, sizeof text,
                 "POST /v1/files HTTP/1.1\r\nHost: a\r\n" FORM
                 "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                 sizeof body - 1, body);
        assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL),
                         (ssize_t)strlen(text));
        while (n > 0 && len < sizeof reply - 1) {
            counted(r, "files_stored");
            n = recv(fd, reply + len, sizeof reply - 1 - len, 0);
            len += n > 0 ? (size_t)n : 0;
        }
        reply[len] = '\0';
        assert_non_null(strstr(reply, "\"bytes\":8,"));
        close(fd);
        mock_server_advance(r->mock, 1000);
    }
    assert_int_equal(counted(r, "files_stored"), 20);
    rig_free(r);
}

/* A server in another process, killed while it works; what it answered holds.
 */
static void kill_9_loses_nothing_that_was_answered(void **state)
{
    char dir[64] = "/tmp/mock-batch-XXXXXX";
    rig *r = rig_new();
    char *text = rows(0, 2000);
    char ids[8][64];
    int n = 0;
    int i;

    (void)state;
    assert_non_null(mkdtemp(dir));
    r->opt.data_dir = dir;
    for (i = 0; i < 8; i++) {
        int to[2];
        pid_t pid;

        assert_int_equal(pipe(to), 0);
        pid = fork();
        if (pid == 0) {
            rig_start(r);
            for (;;) {
                char id[64];
                ssize_t sent;

                create(r, upload(r, text), id);
                sent = write(to[1], id, sizeof id);
                (void)sent;
                r->now += 10 * DAY_MS;
                counted(r, "batches_created");
            }
        }
        close(to[1]);
        if (read(to[0], ids[n], sizeof ids[n]) == (ssize_t)sizeof ids[n]) {
            n++;
        }
        poll(NULL, 0, i * 3);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(to[0]);
    }
    assert_int_equal(n, 8);
    r->now = 1000 * (int64_t)DAY_MS;
    rig_start(r);
    for (i = 0; i < n; i++) {
        look(r, ids[i]);
        assert_json(r, "status", "completed");
        assert_json(r, "request_counts.completed", "2000");
    }
    assert_int_equal(counted(r, "batch_lines_billed"),
                     2000 * counted(r, "batches_created"));
    free(text);
    rig_free(r);
    folder_remove(dir);
}

static void a_private_folder_is_removed(void **state)
{
    rig *r = rig_with(NULL);
    char dir[1024];
    char id[64];

    (void)state;
    assert_false(r->mock->store.ready); /* none is made before it is needed */
    batch_of(r, 2, id);
    snprintf(dir, sizeof dir, "%s", r->mock->store.dir);
    assert_int_equal(access(dir, F_OK), 0);
    r->now += DAY_MS;
    look(r, id);
    rig_free(r);
    assert_int_not_equal(access(dir, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_may_come_in_any_pieces),
        cmocka_unit_test(forms_that_end_early_never_end),
        cmocka_unit_test(forms_that_are_none_are_refused),
        cmocka_unit_test(an_upload_has_the_documented_shape),
        cmocka_unit_test(uploads_are_checked),
        cmocka_unit_test(chunked_and_large_uploads_arrive_whole),
        cmocka_unit_test(lists_of_files_have_pages),
        cmocka_unit_test(files_expire),
        cmocka_unit_test(a_batch_goes_through_its_states),
        cmocka_unit_test(a_live_answer_and_a_row_are_the_same),
        cmocka_unit_test(other_endpoints_run_and_bad_rows_fail_alone),
        cmocka_unit_test(batches_can_be_cancelled_once),
        cmocka_unit_test(batches_expire_after_24_hours),
        cmocka_unit_test(the_next_look_may_be_the_end),
        cmocka_unit_test(the_input_may_go_while_the_batch_runs),
        cmocka_unit_test(lists_of_batches_have_pages),
        cmocka_unit_test(creation_is_checked),
        cmocka_unit_test(each_line_is_validated),
        cmocka_unit_test(limits_of_a_batch_are_kept),
        cmocka_unit_test(models_are_known_with_profiles),
        cmocka_unit_test(enqueued_tokens_are_limited),
        cmocka_unit_test(rows_lie_as_told),
        cmocka_unit_test(lines_are_written_as_told),
        cmocka_unit_test(lies_are_seeded_and_a_second_try_is_another),
        cmocka_unit_test(order_is_kept_only_if_told),
        cmocka_unit_test(batches_lie_as_told),
        cmocka_unit_test(files_come_late_or_elsewhere),
        cmocka_unit_test(replies_are_lost_on_the_routes_told),
        cmocka_unit_test(downloads_break_off),
        cmocka_unit_test(fault_texts_are_understood_or_refused),
        cmocka_unit_test(a_job_created_twice_is_found),
        cmocka_unit_test(rows_that_the_mock_lost_may_be_sent_again),
        cmocka_unit_test(impatient_polls_are_found),
        cmocka_unit_test(files_left_behind_are_found_if_that_is_expected),
        cmocka_unit_test(the_clock_can_be_moved_over_http),
        cmocka_unit_test(all_is_still_there_after_a_restart),
        cmocka_unit_test(halves_of_a_killed_process_are_swept_away),
        cmocka_unit_test(nonsense_in_the_folder_is_no_reason_to_fall),
        cmocka_unit_test(random_forms_do_no_harm),
        cmocka_unit_test(a_thread_serves_while_others_count),
        cmocka_unit_test(kill_9_loses_nothing_that_was_answered),
        cmocka_unit_test(a_private_folder_is_removed)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
