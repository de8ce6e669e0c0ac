/* batch_write PROMPTS FILE N: N prompts of a file (see batch_prompts.h), which
 * it makes if FILE is "-", to a batch file, by the library. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#include <sys/resource.h>

#include "batch_prompts.h"

int main(int argc, char **argv)
{
    long n = argc == 4 ? atol(argv[3]) : 0;
    const char **texts;
    gptner_batch_create_config create;
    gptner_config config;
    gptner_client *client = NULL;
    gptner_batch_files *files = NULL;
    gptner_error err;
    gptner_status status;
    struct rusage usage;
    if (n <= 0) {
        fprintf(stderr, "usage: batch_write PROMPTS FILE.jsonl N\n");
        return 2;
    }
    if (strcmp(argv[2], "-") == 0) {
        return prompts_write(argv[1], n);
    }
    texts = prompts_map(argv[1], n);
    if (texts == NULL) {
        return 1;
    }
    memset(&config, 0, sizeof config);
    config.api_key = "";
    config.base_url = "http://127.0.0.1:1/v1";
    memset(&create, 0, sizeof create);
    create.texts = texts;
    create.n_prompts = (size_t)n;
    create.output_path = argv[2];
    status = gptner_client_new(&config, &client, &err);
    if (status == GPTNER_OK) {
        status = gptner_batch_create_file(client, &create, &files, &err);
    }
    if (status != GPTNER_OK) {
        fprintf(stderr, "batch_write: %s\n", err.message);
        return 1;
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("requests=%lld bytes=%lld peak_kib=%ld\n",
           (long long)files->requests, (long long)files->items[0].bytes,
           usage.ru_maxrss);
    gptner_batch_files_free(files);
    gptner_client_free(client);
    return 0;
}
