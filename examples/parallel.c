/* Send the arguments as prompts, eight at a time, and print the answers in the
 * same order, each as soon as those before it are there.
 * cc -I. -o parallel examples/parallel.c -lmbedtls -lmbedx509 -lmbedcrypto \
 *    -lpthread
 */
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
#include <stdio.h>

/* Called once for each prompt, never by two threads at a time. The result dies
 * when this returns. */
static bool print_result(const gptner_result *result, void *user)
{
    (void)user;
    if (result->status == GPTNER_OK) {
        printf("%lu: %.*s\n", (unsigned long)result->index + 1,
               (int)result->text.len, result->text.ptr);
    } else {
        printf("%lu: %s: %s\n", (unsigned long)result->index + 1,
               gptner_status_name(result->status), result->message);
    }
    return true; /* false would cancel the run */
}

int main(int argc, char **argv)
{
    static gptner_config config; /* zero is the default of every field */
    static gptner_run_config run;
    static gptner_run_summary summary;
    gptner_client *client = NULL;
    gptner_error err;

    if (argc < 2) {
        fprintf(stderr, "usage: parallel PROMPT...\n");
        return 2;
    }
    config.max_workers = 8;
    run.result_fn = print_result;
    run.texts = (const char *const *)(argv + 1);
    run.n_prompts = (size_t)(argc - 1);

    gptner_status status = gptner_client_new(&config, &client, &err);
    if (status == GPTNER_OK) {
        status = gptner_run(client, &run, &summary, &err);
    }
    if (status != GPTNER_OK) {
        fprintf(stderr, "parallel: %s\n", err.message);
    }
    fprintf(stderr, "%ld of %ld answered, %ld requests, %ld tokens\n",
            (long)summary.ok, (long)summary.total, (long)summary.requests,
            (long)(summary.prompt_tokens + summary.completion_tokens));
    gptner_client_free(client);
    return status == GPTNER_OK && summary.failed == 0 ? 0 : 1;
}
