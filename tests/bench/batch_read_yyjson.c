/* The peer of batch_read.c with yyjson: line by line, a document each, as its
 * manual shows; with -DTUNED in memory that is used again, and by larger reads.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

typedef struct map {
    char **ids;     /* by index */
    uint32_t *slot; /* index + 1 */
    size_t n;
    size_t mask;
} map;

static size_t hash(const char *s, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    size_t i;
    for (i = 0; i < len; i++) {
        h = (h ^ (unsigned char)s[i]) * UINT64_C(0x100000001b3);
    }
    return (size_t)(h ^ h >> 32);
}

static uint32_t *find(const map *m, const char *id, size_t len)
{
    size_t at = hash(id, len) & m->mask;
    while (m->slot[at] != 0) {
        const char *other = m->ids[m->slot[at] - 1];
        if (strncmp(other, id, len) == 0 && other[len] == '\0') {
            break;
        }
        at = (at + 1) & m->mask;
    }
    return &m->slot[at];
}

typedef struct reader {
    char *pool;
    size_t pool_size;
    map ids;
    char **texts;
    size_t bad;
} reader;

#ifndef TUNED
static yyjson_doc *parse(reader *r, char *line, size_t len)
{
    (void)r;
    return yyjson_read(line, len, 0);
}
#else
static yyjson_doc *parse(reader *r, char *line, size_t len)
{
    yyjson_alc alc;
    size_t need = yyjson_read_max_memory_usage(len, 0) + 64;
    if (need > r->pool_size) {
        free(r->pool);
        r->pool_size = 2 * need;
        r->pool = (char *)malloc(r->pool_size);
    }
    yyjson_alc_pool_init(&alc, r->pool, r->pool_size);
    return yyjson_read_opts(line, len, 0, &alc, NULL);
}
#endif

static void read_request(reader *r, yyjson_val *root)
{
    yyjson_val *id = yyjson_obj_get(root, "custom_id");
    uint32_t *slot = find(&r->ids, yyjson_get_str(id), yyjson_get_len(id));
    r->ids.ids[r->ids.n] = strdup(yyjson_get_str(id));
    *slot = (uint32_t)++r->ids.n;
}

static void read_row(reader *r, yyjson_val *root)
{
    yyjson_val *id = yyjson_obj_get(root, "custom_id");
    yyjson_val *response = yyjson_obj_get(root, "response");
    yyjson_val *body = yyjson_obj_get(response, "body");
    yyjson_val *choice = yyjson_arr_get_first(yyjson_obj_get(body, "choices"));
    yyjson_val *text =
        yyjson_obj_get(yyjson_obj_get(choice, "message"), "content");
    const char *finish =
        yyjson_get_str(yyjson_obj_get(choice, "finish_reason"));
    uint32_t slot = *find(&r->ids, yyjson_get_str(id), yyjson_get_len(id));
    if (slot == 0) {
        return;
    }
    if (yyjson_get_int(yyjson_obj_get(response, "status_code")) != 200 ||
        finish == NULL || strcmp(finish, "stop") != 0 || !yyjson_is_str(text)) {
        r->bad++;
        return;
    }
    r->texts[slot - 1] = (char *)malloc(yyjson_get_len(text) + 1);
    memcpy(r->texts[slot - 1], yyjson_get_str(text), yyjson_get_len(text) + 1);
}

static void each_line(reader *r, const char *dir, const char *name,
                      void (*fn)(reader *, yyjson_val *))
{
    char path[1024];
    char *line = NULL;
    size_t room = 0;
    ssize_t len;
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        exit(1);
    }
#ifdef TUNED
    setvbuf(f, NULL, _IOFBF, 1 << 17);
#endif
    while ((len = getline(&line, &room, f)) > 0) {
        yyjson_doc *doc = parse(r, line, (size_t)len);
        if (doc == NULL) {
            r->bad++;
        } else {
            fn(r, yyjson_doc_get_root(doc));
#ifndef TUNED
            yyjson_doc_free(doc);
#endif
        }
    }
    free(line);
    fclose(f);
}

int main(int argc, char **argv)
{
    reader r;
    size_t n, i, good = 0;
    unsigned long long sum = 0;
    if (argc != 3) {
        fprintf(stderr, "usage: batch_read_yyjson DIRECTORY N\n");
        return 2;
    }
    n = (size_t)atol(argv[2]);
    memset(&r, 0, sizeof r);
    r.ids.mask = 1;
    while (r.ids.mask < n * 2) {
        r.ids.mask *= 2;
    }
    r.ids.slot = (uint32_t *)calloc(r.ids.mask--, sizeof *r.ids.slot);
    r.ids.ids = (char **)calloc(n + 1, sizeof *r.ids.ids);
    r.texts = (char **)calloc(n + 1, sizeof *r.texts);
    each_line(&r, argv[1], "requests.jsonl", read_request);
    each_line(&r, argv[1], "output.jsonl", read_row);
    each_line(&r, argv[1], "errors.jsonl", read_row);
    for (i = 0; i < n; i++) {
        if (r.texts[i] != NULL) {
            sum = sum * 31 + (unsigned char)r.texts[i][0];
            sum = sum * 31 + strlen(r.texts[i]);
            good++;
        }
    }
    printf("texts=%zu errors=%zu sum=%llx ", good, r.bad, sum);
    return 0;
}
