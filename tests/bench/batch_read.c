/* make bench: result lines of a batch to texts, in the order of the requests.
 * batch_read -g DIRECTORY N: writes requests.jsonl, output.jsonl (shuffled) and
 * errors.jsonl (1%), lines of about 1.5 KB as OpenAI writes them.
 * batch_read DIRECTORY N: reads them. Prints what all three programs print: the
 * number of texts, of errors, and a sum that depends on texts and order. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the generator ---- */

static uint64_t chance(uint64_t *seed)
{
    uint64_t x = *seed += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static const char *const words[] = {"the",        "of",
                                    "@@Berlin##", "\\\"quoted\\\"",
                                    "entity",     "was",
                                    "founded",    "caf\xC3\xA9",
                                    "in",         "1998",
                                    "company",    "located",
                                    "and",        "Z\xC3\xBCrich",
                                    "its",        "together",
                                    "research",   "people",
                                    "near",       "\xE6\x9D\xB1",
                                    "said",       "that",
                                    "university", "with",
                                    "line\\n"};

static void put_text(FILE *f, uint64_t *seed, int bytes)
{
    while (bytes > 0) {
        const char *word =
            words[chance(seed) % (sizeof words / sizeof words[0])];
        bytes -= fprintf(f, "%s ", word);
    }
}

static void put_row(FILE *f, uint64_t *seed, size_t i)
{
    fprintf(f,
            "{\"id\": \"batch_req_%016llx%016llx\", \"custom_id\": "
            "\"request-%zu\", \"response\": {\"status_code\": 200, "
            "\"request_id\": \"%016llx%016llx\", \"body\": {\"id\": "
            "\"chatcmpl-%016llx\", \"object\": \"chat.completion\", "
            "\"created\": 1772000000, \"model\": \"gpt-4o-mini-2024-07-18\", "
            "\"choices\": [{\"index\": 0, \"message\": {\"role\": "
            "\"assistant\", \"content\": \"",
            (unsigned long long)chance(seed), (unsigned long long)chance(seed),
            i, (unsigned long long)chance(seed),
            (unsigned long long)chance(seed), (unsigned long long)chance(seed));
    put_text(f, seed, 500 + (int)(chance(seed) % 400));
    fprintf(f, "\", \"refusal\": null, \"annotations\": []}, \"logprobs\": "
               "null, \"finish_reason\": \"stop\"}], \"usage\": "
               "{\"prompt_tokens\": 201, \"completion_tokens\": 188, "
               "\"total_tokens\": 389, \"prompt_tokens_details\": "
               "{\"cached_tokens\": 0, \"audio_tokens\": 0}, "
               "\"completion_tokens_details\": {\"reasoning_tokens\": 0, "
               "\"audio_tokens\": 0, \"accepted_prediction_tokens\": 0, "
               "\"rejected_prediction_tokens\": 0}}, \"service_tier\": "
               "\"default\", \"system_fingerprint\": \"fp_560af6e559\"}}, "
               "\"error\": null}\n");
}

static void put_error(FILE *f, uint64_t *seed, size_t i)
{
    fprintf(f,
            "{\"id\": \"batch_req_%016llx\", \"custom_id\": \"request-%zu\", "
            "\"response\": {\"status_code\": 429, \"request_id\": \"%016llx\", "
            "\"body\": {\"error\": {\"message\": \"Rate limit reached\", "
            "\"type\": \"tokens\", \"param\": null, \"code\": "
            "\"rate_limit_exceeded\"}}}, \"error\": null}\n",
            (unsigned long long)chance(seed), i,
            (unsigned long long)chance(seed));
}

static FILE *create(const char *dir, const char *name)
{
    char path[1024];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "wb");
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    return f;
}

static int generate(const char *dir, size_t n)
{
    FILE *requests = create(dir, "requests.jsonl");
    FILE *output = create(dir, "output.jsonl");
    FILE *errors = create(dir, "errors.jsonl");
    size_t *order = (size_t *)malloc(n * sizeof *order);
    uint64_t seed = 7;
    size_t i;
    if (order == NULL) {
        return 1;
    }
    for (i = 0; i < n; i++) {
        size_t k = (size_t)(chance(&seed) % (i + 1));
        order[i] = order[k];
        order[k] = i;
        fprintf(requests,
                "{\"custom_id\":\"request-%zu\",\"method\":\"POST\",\"url\":"
                "\"/v1/chat/completions\",\"body\":{\"model\":\"gpt-4o-mini\","
                "\"messages\":[{\"role\":\"user\",\"content\":\"",
                i);
        put_text(requests, &seed, 600);
        fprintf(requests, "\"}],\"temperature\":0,\"max_tokens\":512}}\n");
    }
    for (i = 0; i < n; i++) {
        if (order[i] % 100 == 99) {
            put_error(errors, &seed, order[i]);
        } else {
            put_row(output, &seed, order[i]);
        }
    }
    free(order);
    return fclose(requests) != 0 || fclose(output) != 0 || fclose(errors) != 0;
}

/* ---- the reader ---- */

typedef struct texts {
    char **list;
    size_t n;
    size_t bad;
} texts;

static bool keep(const gptner_result *r, void *user)
{
    texts *t = (texts *)user;
    char *copy = NULL;
    if (r->status != GPTNER_OK) {
        t->bad++;
    } else {
        copy = (char *)malloc(r->text.len + 1);
        if (copy == NULL) {
            return false;
        }
        memcpy(copy, r->text.ptr, r->text.len);
        copy[r->text.len] = '\0';
    }
    t->list[r->index] = copy;
    t->n++;
    return true;
}

static void report(const texts *t)
{
    unsigned long long sum = 0;
    size_t good = 0;
    size_t i;
    for (i = 0; i < t->n; i++) {
        if (t->list[i] != NULL) {
            sum = sum * 31 + (unsigned char)t->list[i][0];
            sum = sum * 31 + strlen(t->list[i]);
            good++;
        }
    }
    printf("texts=%zu errors=%zu sum=%llx ", good, t->bad, sum);
}

int main(int argc, char **argv)
{
    gptner_config cfg = GPN_ZERO;
    gptner_batch_retrieve_config in = GPN_ZERO;
    gptner_client *client = NULL;
    gptner_error err;
    gptner_status status;
    char path[3][1024];
    texts t = GPN_ZERO;
    if (argc == 4 && strcmp(argv[1], "-g") == 0) {
        return generate(argv[2], (size_t)atol(argv[3]));
    }
    if (argc != 3) {
        fprintf(stderr, "usage: batch_read [-g] DIRECTORY N\n");
        return 2;
    }
    snprintf(path[0], sizeof path[0], "%s/requests.jsonl", argv[1]);
    snprintf(path[1], sizeof path[1], "%s/output.jsonl", argv[1]);
    snprintf(path[2], sizeof path[2], "%s/errors.jsonl", argv[1]);
    cfg.api_key = "none";
    t.list = (char **)calloc((size_t)atol(argv[2]) + 1, sizeof *t.list);
    in.requests_path = path[0];
    in.result_fn = keep;
    in.as_completed = getenv("BENCH_IN_ORDER") == NULL;
    in.result_user = &t;
    status = gptner_client_new(&cfg, &client, &err);
    if (status == GPTNER_OK) {
        status = gptner_batch_read(client, path[1], path[2], &in, NULL, &err);
    }
    if (status != GPTNER_OK) {
        fprintf(stderr, "batch_read: %s\n", err.message);
        return 1;
    }
    gptner_client_free(client);
    report(&t);
    return 0;
}
