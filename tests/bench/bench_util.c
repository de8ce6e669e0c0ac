#define _POSIX_C_SOURCE 200809L
#include "bench_util.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void bench_die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

bench_options bench_options_parse(int argc, char **argv)
{
    bench_options options = {0, 10, 1000, NULL, NULL, false};
    int c;
    while ((c = getopt(argc, argv, "p:w:n:a:r:m")) != -1) {
        switch (c) {
        case 'p':
            options.port = atoi(optarg);
            break;
        case 'w':
            options.workers = atoi(optarg);
            break;
        case 'n':
            options.requests = atoll(optarg);
            break;
        case 'a':
            options.ca_file = optarg;
            break;
        case 'r':
            options.request_file = optarg;
            break;
        case 'm':
            options.use_poll = true;
            break;
        default:
            exit(2);
        }
    }
    if (options.workers < 1 || options.requests < 1) {
        fprintf(stderr, "%s: workers and requests start at 1\n", argv[0]);
        exit(2);
    }
    return options;
}

static const char prompt_text[] =
    "0000000000 I am an excellent linguist. The task is to label person "
    "entities in the given sentence.\n"
    "Input: China says \"Taiwan spoils\" atmosphere for talks.\n"
    "Output: China says \"Taiwan spoils\" atmosphere for talks.\n"
    "Input: Foreign Ministry spokesman Shen Guofang told Reuters: \"The "
    "necessary atmosphere has been disrupted by the authorities.\"\n"
    "Output:";

void bench_prompt_init(char *text)
{
    memcpy(text, prompt_text, sizeof prompt_text);
}

void bench_prompt_number(char *text, int64_t number)
{
    for (int i = 9; i >= 0; i--) {
        text[i] = (char)('0' + number % 10);
        number /= 10;
    }
}

static int64_t peak_kib(void)
{
    char line[128];
    int64_t kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kib = atoll(line + 6);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return kib;
}

void bench_figures_print(const bench_figures *figures)
{
    printf("answers=%" PRId64 " connections=%" PRId64 " resumed=%" PRId64
           " peak_kib=%" PRId64 "\n",
           figures->answers, figures->connections, figures->resumed,
           peak_kib());
    fflush(stdout);
}
