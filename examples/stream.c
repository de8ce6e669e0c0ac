/* Print an answer while it is being written.
 * cc -I. -o stream examples/stream.c -lmbedtls -lmbedx509 -lmbedcrypto \
 *    -lpthread
 */
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
#include <stdio.h>

static bool print_piece(const gptner_delta *delta, void *user)
{
    (void)user;
    if (delta->text.len > 0) { /* a piece may be of another kind */
        fwrite(delta->text.ptr, 1, delta->text.len, stdout);
    }
    return fflush(stdout) == 0; /* nobody listens: stop paying */
}

int main(int argc, char **argv)
{
    static gptner_prompt prompt; /* zero is the default of every field */
    gptner_client *client = NULL;
    gptner_result *answer = NULL;
    gptner_error err;

    prompt.system = gptner_str_from("Answer in one paragraph.");
    prompt.text = gptner_str_from(argc > 1 ? argv[1] : "Why is the sky blue?");

    gptner_status status = gptner_client_new(NULL, &client, &err);
    if (status == GPTNER_OK) {
        status = gptner_chat_stream(client, &prompt, print_piece, NULL, &answer,
                                    &err);
    }
    printf("\n");
    if (status != GPTNER_OK) {
        fprintf(stderr, "stream: %s\n", err.message);
    } else {
        fprintf(stderr, "%ld + %ld tokens\n", (long)answer->usage.prompt_tokens,
                (long)answer->usage.completion_tokens);
    }
    gptner_result_free(answer);
    gptner_client_free(client);
    return status == GPTNER_OK ? 0 : 1;
}
