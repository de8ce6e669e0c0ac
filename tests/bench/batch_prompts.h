/* Prompts of about 600 bytes: prose in several scripts, with quotes and line
 * breaks. They lie in a file, each with a NUL, and are mapped from there: to
 * make them would cost as much as to write them. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* 0, or 1 if that failed. */
static inline int prompts_write(const char *path, long n)
{
    FILE *f = fopen(path, "wb");
    uint64_t x = 42;
    long i;
    if (f == NULL) {
        return 1;
    }
    for (i = 0; i < n; i++) {
        size_t len = (size_t)fprintf(f, "Prompt %ld. Mark the entities:\n", i);
        while (len < 560) {
            const char *word = prompt_words[x >> 59];
            len += fwrite(word, 1, strlen(word), f);
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        }
        fputc('\0', f);
    }
    return fclose(f) != 0;
}

/* n texts; NULL: the file cannot be mapped. */
static inline const char **prompts_map(const char *path, long n)
{
    const char **texts = (const char **)malloc((size_t)n * sizeof *texts);
    int fd = open(path, O_RDONLY);
    struct stat st;
    const char *at = (const char *)MAP_FAILED;
    long i;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        at = (const char *)mmap(NULL, (size_t)st.st_size, PROT_READ,
                                MAP_PRIVATE | MAP_POPULATE, fd, 0);
    }
    if (texts == NULL || at == (const char *)MAP_FAILED) {
        perror(path);
        return NULL;
    }
    for (i = 0; i < n; i++) {
        texts[i] = at;
        at += strlen(at) + 1;
    }
    return texts;
}
