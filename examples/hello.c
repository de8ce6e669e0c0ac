/* Ask one question and print the answer. The key is in OPENAI_API_KEY.
 * cc -I. -o hello examples/hello.c -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
 */
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
#include <stdio.h>

int main(void)
{
    gptner_client *client = NULL;
    gptner_result *answer = NULL;
    gptner_error err;
    gptner_status status = gptner_client_new(NULL, &client, &err);
    if (status == GPTNER_OK) {
        status = gptner_ask(client, "Say hello in Welsh.", &answer, &err);
    }
    if (status == GPTNER_OK) {
        printf("%.*s\n", (int)answer->text.len, answer->text.ptr);
    } else {
        fprintf(stderr, "hello: %s\n", err.message);
    }
    gptner_result_free(answer);
    gptner_client_free(client);
    return status == GPTNER_OK ? 0 : 1;
}
