/* What the programs under tests/bench/ share: options, the prompts, the line
 * of figures that a client prints for run.sh. */
#ifndef BENCH_UTIL_H
#define BENCH_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bench_options {
    int port;
    int workers;
    int64_t requests;
    const char *ca_file;
    const char *request_file; /* written by bench_run, read by peer_bare */
    bool use_poll;            /* peer_curl: curl_multi_poll, not epoll */
} bench_options;

/* -p PORT -w WORKERS -n REQUESTS -a CA_FILE [-r REQUEST_FILE] [-m]; ends the
 * program with status 2 if they are wrong. */
bench_options bench_options_parse(int argc, char **argv);

/* The prompts: all of one length, each different, as a GPT-NER user sends
 * them, with line breaks and quotes to escape. text has BENCH_PROMPT_SIZE. */
#define BENCH_PROMPT_SIZE 512
void bench_prompt_init(char *text);
void bench_prompt_number(char *text, int64_t number);

typedef struct bench_figures {
    int64_t answers; /* replies whose text and usage were read */
    int64_t connections;
    int64_t resumed; /* -1: not known */
} bench_figures;

/* One line of name=value pairs, among them the peak memory so far. */
void bench_figures_print(const bench_figures *figures);

/* Says what failed and ends the program with status 1. */
void bench_die(const char *what);

#endif
