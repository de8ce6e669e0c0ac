/* Talk with the model: each line of stdin is a turn, and the model sees the
 * turns before it.
 * cc -I. -o conversation examples/conversation.c -lmbedtls -lmbedx509 \
 *    -lmbedcrypto -lpthread
 */
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
#include <stdio.h>
#include <string.h>

#define TURNS 20 /* a longer conversation is ended */

typedef struct turn {
    char question[1000];
    gptner_result *answer;
} turn;

/* Send everything that was said up to turns[n]. */
static gptner_status ask(gptner_client *client, turn *turns, size_t n,
                         gptner_error *err)
{
    static gptner_message messages[2 * TURNS];
    static gptner_prompt prompt; /* zero is the default of every field */

    for (size_t i = 0; i <= n; i++) {
        messages[2 * i].role = gptner_str_from("user");
        messages[2 * i].content = gptner_str_from(turns[i].question);
        if (i < n) {
            messages[2 * i + 1].role = gptner_str_from("assistant");
            messages[2 * i + 1].content = turns[i].answer->text;
        }
    }
    prompt.system = gptner_str_from("Answer briefly.");
    prompt.messages = messages;
    prompt.n_messages = 2 * n + 1;
    return gptner_chat(client, &prompt, &turns[n].answer, err);
}

int main(void)
{
    static turn turns[TURNS];
    gptner_client *client = NULL;
    gptner_error err;

    gptner_status status = gptner_client_new(NULL, &client, &err);
    for (size_t n = 0; n < TURNS && status == GPTNER_OK; n++) {
        char *question = turns[n].question;
        printf("> ");
        fflush(stdout);
        if (!fgets(question, sizeof turns[n].question, stdin)) {
            break;
        }
        question[strcspn(question, "\n")] = '\0';
        status = ask(client, turns, n, &err);
        if (status == GPTNER_OK) {
            printf("%.*s\n", (int)turns[n].answer->text.len,
                   turns[n].answer->text.ptr);
        }
    }
    if (status != GPTNER_OK) {
        fprintf(stderr, "conversation: %s\n", err.message);
    }
    for (size_t n = 0; n < TURNS; n++) {
        gptner_result_free(turns[n].answer);
    }
    gptner_client_free(client);
    return status == GPTNER_OK ? 0 : 1;
}
