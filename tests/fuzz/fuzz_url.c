/* A URL that is accepted has sound parts, and put together again it gives the
 * same parts. */
#include "fuzz.h"

static void fuzz_url_sound(const gpn_url *u)
{
    const char *p;
    FUZZ_CHECK(strcmp(u->scheme, u->tls ? "https" : "http") == 0);
    FUZZ_CHECK(u->port > 0 && u->port <= 65535);
    FUZZ_CHECK(u->host[0] != '\0' && u->target[0] == '/');
    for (p = u->host; *p != '\0'; p++) {
        FUZZ_CHECK((unsigned char)*p > 0x20 && (unsigned char)*p != 0x7f &&
                   !(*p >= 'A' && *p <= 'Z') && *p != '/' && *p != '@');
    }
    for (p = u->target; *p != '\0'; p++) {
        FUZZ_CHECK((unsigned char)*p > 0x20 && (unsigned char)*p < 0x7f &&
                   *p != '#');
    }
}

static void fuzz_url(const uint8_t *data, size_t size)
{
    gpn_env env;
    gpn_url a, b;
    gpn_buf text;
    gptner_error err;
    char port[16];
    memset(&err, 0, sizeof(err));
    fuzz_env(&env);
    if (gpn_url_parse(&env, gpn_str((const char *)data, size), &a, &err) !=
        GPTNER_OK) {
        FUZZ_CHECK(err.message[0] != '\0');
        return;
    }
    fuzz_url_sound(&a);
    gpn_buf_init(&text, &env, SIZE_MAX);
    gpn_buf_add_s(&text, a.scheme);
    gpn_buf_add_s(&text, a.host_is_v6 ? "://[" : "://");
    gpn_buf_add_s(&text, a.host);
    gpn_format(port, sizeof(port), a.host_is_v6 ? "]:%d" : ":%d", a.port);
    gpn_buf_add_s(&text, port);
    gpn_buf_add_s(&text, a.target);
    FUZZ_CHECK(gpn_url_parse(&env, gpn_str(text.data, text.len), &b, NULL) ==
               GPTNER_OK);
    FUZZ_CHECK(strcmp(a.scheme, b.scheme) == 0 && a.port == b.port);
    FUZZ_CHECK(strcmp(a.host, b.host) == 0 && strcmp(a.name, b.name) == 0);
    FUZZ_CHECK(strcmp(a.target, b.target) == 0);
    gpn_url_deinit(&b);
    gpn_url_deinit(&a);
    gpn_buf_deinit(&text);
}

#define FUZZ_ONE fuzz_url
#include "fuzz_main.h"
