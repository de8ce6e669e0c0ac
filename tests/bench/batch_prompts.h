/* 50,000 prompts of about 600 bytes: prose in several scripts, with quotes and
 * line breaks. The same for every program that includes this. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT_ROOM = 1024 };

static const char *const prompt_words[] = {"the ",          "river ",
                                           "of ",           "Zürich, ",
                                           "\"quoted\" ",   "entity ",
                                           "is ",           "a ",
                                           "person ",       "in ",
                                           "Київ ",         "and ",
                                           "München.\n",    "label ",
                                           "following ",    "sentence: ",
                                           "organisation ", "東京都 ",
                                           "from ",         "1998 ",
                                           "naïve ",        "café\n\n",
                                           "which ",        "location ",
                                           "Reuters ",      "\xF0\x9F\x98\x80 ",
                                           "with ",         "@@Columbia## ",
                                           "said ",         "Tuesday, ",
                                           "that ",         "her \"friend\" "};

/* n texts, each in its own part of one block; NULL: no memory. */
static const char **prompts_make(size_t n)
{
    const char **texts = (const char **)malloc(n * sizeof *texts);
    char *at = (char *)malloc(n * PROMPT_ROOM);
    uint64_t x = 42;
    size_t i;
    if (texts == NULL || at == NULL) {
        return NULL;
    }
    for (i = 0; i < n; i++) {
        char *end = at + 560;
        texts[i] = at;
        at += sprintf(at, "Prompt %zu. Mark the entities:\n", i);
        while (at < end) {
            const char *word = prompt_words[x >> 59];
            size_t len = strlen(word);
            memcpy(at, word, len);
            at += len;
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        }
        *at++ = '\0';
    }
    return texts;
}
