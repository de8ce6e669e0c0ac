/* batch_write FILE N: N prompts in memory to a batch file, by the library. N 0
 * does nothing but to start; -N makes the prompts and writes none of them. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include "batch_prompts.h"

int main(int argc, char **argv)
{
    long n = argc == 3 ? atol(argv[2]) : 0;
    const char **texts = prompts_make((size_t)labs(n));
    gptner_batch_create_config create;
    gptner_config config;
    gptner_client *client = NULL;
    gptner_batch_files *files = NULL;
    gptner_error err;
    gptner_status status;
    if (argc != 3 || (n != 0 && texts == NULL)) {
        fprintf(stderr, "usage: batch_write FILE.jsonl N\n");
        return 2;
    }
    if (n <= 0) {
        return 0;
    }
    memset(&config, 0, sizeof config);
    config.api_key = "";
    config.base_url = "http://127.0.0.1:1/v1";
    memset(&create, 0, sizeof create);
    create.texts = texts;
    create.n_prompts = (size_t)n;
    create.output_path = argv[1];
    status = gptner_client_new(&config, &client, &err);
    if (status == GPTNER_OK) {
        status = gptner_batch_create_file(client, &create, &files, &err);
    }
    if (status != GPTNER_OK) {
        fprintf(stderr, "batch_write: %s\n", err.message);
        return 1;
    }
    printf("requests=%lld bytes=%lld\n", (long long)files->requests,
           (long long)files->items[0].bytes);
    gptner_batch_files_free(files);
    gptner_client_free(client);
    return 0;
}
