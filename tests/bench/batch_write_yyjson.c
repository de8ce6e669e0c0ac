/* batch_write_yyjson PROMPTS FILE N [BUFFER]: as batch_write, by yyjson: a
 * document a line, in memory that is used again, and fwrite() through stdio's
 * own buffer, or one of BUFFER bytes. */
#define _GNU_SOURCE
#include <yyjson.h>

#include "batch_prompts.h"

static int write_line(FILE *f, const yyjson_alc *alc, size_t i,
                      const char *text)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(alc);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *body, *message;
    char id[32], *line;
    size_t len;
    int ok;
    snprintf(id, sizeof id, "request-%zu", i);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "custom_id", id);
    yyjson_mut_obj_add_str(doc, root, "method", "POST");
    yyjson_mut_obj_add_str(doc, root, "url", "/v1/chat/completions");
    body = yyjson_mut_obj_add_obj(doc, root, "body");
    yyjson_mut_obj_add_str(doc, body, "model", "gpt-4o-mini");
    message = yyjson_mut_arr_add_obj(
        doc, yyjson_mut_obj_add_arr(doc, body, "messages"));
    yyjson_mut_obj_add_str(doc, message, "role", "user");
    yyjson_mut_obj_add_str(doc, message, "content", text);
    yyjson_mut_obj_add_int(doc, body, "temperature", 0);
    yyjson_mut_obj_add_int(doc, body, "max_tokens", 512);
    line = yyjson_mut_write_opts(doc, YYJSON_WRITE_NEWLINE_AT_END, alc, &len,
                                 NULL);
    ok = line != NULL && fwrite(line, 1, len, f) == len;
    alc->free(alc->ctx, line);
    yyjson_mut_doc_free(doc);
    return ok;
}

int main(int argc, char **argv)
{
    static char pool[1 << 16], out[1 << 18];
    long n = argc >= 4 ? atol(argv[3]) : 0, i, bytes;
    const char **texts = argc >= 4 ? prompts_map(argv[1], n) : NULL;
    FILE *f = argc >= 4 ? fopen(argv[2], "wb") : NULL;
    yyjson_alc alc;
    if (f == NULL || texts == NULL) {
        fprintf(stderr, "usage: batch_write_yyjson PROMPTS FILE.jsonl N\n");
        return 2;
    }
    if (argc > 4) {
        size_t size = (size_t)atol(argv[4]);
        setvbuf(f, out, _IOFBF, size < sizeof out ? size : sizeof out);
    }
    yyjson_alc_pool_init(&alc, pool, sizeof pool);
    for (i = 0; i < n; i++) {
        if (!write_line(f, &alc, (size_t)i, texts[i])) {
            perror(argv[2]);
            return 1;
        }
    }
    bytes = ftell(f);
    if (fflush(f) != 0 || fsync(fileno(f)) != 0 || fclose(f) != 0) {
        perror(argv[2]);
        return 1;
    }
    printf("requests=%ld bytes=%ld\n", n, bytes);
    return 0;
}
