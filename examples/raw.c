/* Any request of the API, with the client's connection, retries and limits:
 * GET a path below the base URL and copy the body to stdout as it arrives.
 * cc -I. -o raw examples/raw.c -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
 */
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
#include <stdio.h>
#include <stdlib.h>

static bool print_piece(const char *data, size_t len, void *user)
{
    (void)user;
    return fwrite(data, 1, len, stdout) == len;
}

int main(int argc, char **argv)
{
    static gptner_config config; /* zero is the default of every field */
    static gptner_raw_request request;
    gptner_client *client = NULL;
    gptner_response *response = NULL;
    gptner_error err;

    if (argc != 2) {
        fprintf(stderr, "usage: raw PATH    e.g. raw /models\n");
        return 2;
    }
    request.path = argv[1];
    request.body_fn = print_piece;

    if (getenv("OPENAI_API_KEY") == NULL) {
        config.api_key = ""; /* a server of your own may want none */
    }
    gptner_status status = gptner_client_new(&config, &client, &err);
    if (status == GPTNER_OK) {
        status = gptner_raw(client, &request, &response, &err);
    }
    if (status != GPTNER_OK) {
        fprintf(stderr, "raw: %s\n", err.message);
    } else if (fflush(stdout) != 0) {
        fprintf(stderr, "raw: cannot write\n");
        status = GPTNER_ERR_FILE;
    }
    gptner_response_free(response);
    gptner_client_free(client);
    return status == GPTNER_OK ? 0 : 1;
}
