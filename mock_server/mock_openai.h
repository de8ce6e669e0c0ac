/* mock_openai.h - an OpenAI-compatible HTTP(S) server for tests, in one header.
 *
 * It starts inside your test program on a free port, answers like the real API
 * (chat completions plain and streamed, completions, embeddings, models, files,
 * batches), and produces on demand, reproducibly, what a network and that API
 * do to clients: rate limits, errors of every kind, resets, truncated and
 * stalled answers, broken JSON, half streams. Afterwards it tells what it saw,
 * and judges it. build/mock_server is the same as a command. Licence: MIT, at
 * the end.
 *
 *     #define MOCK_OPENAI_IMPLEMENTATION
 *     #include "mock_openai.h"
 *
 *     mock_options opt = {0};
 *     mock_server *mock = NULL;
 *     char why[256];
 *
 *     opt.reply = "hash";
 *     if (!mock_server_start(&opt, &mock, why, sizeof why))
 *         ... why says what went wrong
 *     ... use mock_server_base_url(mock), e.g. http://127.0.0.1:40123/v1
 *     assert(mock_server_count(mock, "responses.200") == 1);
 *     mock_server_stop(mock);
 *
 * Needs a POSIX system, threads and mbedTLS 2.28, 3.6 or 4
 * (-lmbedtls -lmbedx509 -lmbedcrypto -lpthread); with MOCK_OPENAI_NO_TLS
 * defined no mbedTLS. It shares no code with gptner.h, so that a mistake in
 * one is not hidden by the same mistake in the other.
 *
 * CONTENTS
 *   >>platform   clock, threads, sockets, readiness, files
 *   >>bytes      buffers, arena, hashes, base64, UTF-8, random numbers
 *   >>json       strict reader into a tree; writer helpers
 *   >>tls        own CA and certificate; sessions
 *   >>http       request parser, response head
 *   >>multipart  form uploads, as they come
 *   >>fault      what goes wrong, when
 *   >>account    counters, the report card, the log
 *   >>store      files and batches, in memory and on disk
 *   >>models     known models and what they refuse
 *   >>check      validation of request bodies
 *   >>answer     replies: echo, hash, script, NER, schema instances, vectors
 *   >>vet        validation of a batch's input, line by line
 *   >>api        responses, and the endpoints of models
 *   >>batch      the endpoints of files and batches; batches run
 *   >>route      from the request to the endpoint
 *   >>server     connections, timers, the loop, the public functions
 *
 * REPLIES (options.reply)
 *   echo   the text of the last user message, exactly
 *   hash   the first 16 hex digits of SHA-256 over, for each message, its role,
 *          LF, its text, LF: a proof that the answer belongs to its prompt
 *   ner    the last sentence of the prompt with entities marked by @@ and ##,
 *          by simple honest rules (capitals, short lists of names and places)
 *   FILE   JSONL script: {"contains":"Paris","reply":"..."} or "replies":[...]
 *          given one after the other, the last one repeated; "status":N answers
 *          that HTTP error, "finish_reason":"length" and "delay_ms":N as they
 *          say. The first line whose text occurs in the prompt counts; without
 *          "contains" it always does. No line: echo.
 *   With response_format json_schema the answer is the smallest instance that
 *   the schema allows, with tool_choice required a call of the first tool,
 *   unless a script line says otherwise.
 *
 * FAULTS (options.faults, one text each)
 *   KIND:RATE        a share of the requests, 0 to 1. The choice depends on the
 *                    seed, the body and how often that body came: two runs of
 *                    the same work see the same faults in whatever order
 *   KIND@N           the N-th request, counted from 1
 *   KIND@every=N     each N-th request
 *   KIND@ROUTE       only chat, completions, embeddings, models, files (not
 *                    their content), upload, delete, content, batches, create,
 *                    status, cancel, list. @N then counts these alone:
 *                    500@content, 503@status@every=3, lost-reply@batches:0.5
 *   KIND             every request
 *   ,NAME=VALUE ...  parameters after a comma:
 *     path=TEXT          only requests whose path contains TEXT
 *     route=ROUTE        as @ROUTE
 *     times=N            at most N times
 *     retry-after=V      seconds (2, 0.5), a date, or the words date, ms,
 *                        float, huge, zero, garbage, none
 *     retry-after-ms=N
 *     should-retry=true|false    the header x-should-retry
 *     ms=N, bytes=N, first=N, status=N, to=URL, done=SHARE   of kinds below
 *
 *   Kinds that replace the answer (at most one a request):
 *     400 401 403 404 408 409 413 422 498 500 501 502 503 504 520 529 and any
 *     other status from 300 on; 429 (rate limit; default: 20 ms), quota and
 *     toolarge (the other kinds of 429); redirect (307 to=URL)
 *     reset (no answer; or after bytes=N), lost (answered and counted, then
 *     reset), lost-reply (the same for POST alone), truncate (half the body, or
 *     bytes=N of it, then FIN; notify: with close_notify), stall (nothing, or
 *     bytes=N, then silence for ms=N, for ever without), garbage, html (200),
 *     badjson, empty
 *     nodone, streamerror, earlyclose (streams); refusal, length, filter
 *   Kinds that only change how it travels (combine freely):
 *     slow (bytes=64 every ms=5), stale (the kept connection is closed ms=N
 *     after the answer; late: when the next request arrives), close
 *     (Connection: close), chunked (with extensions and trailer), bytechunks,
 *     http10, interim (100 and 103 come first), hints (only the 103: Node
 *     refuses a 100 that it did not ask for), crlf and comments (streams),
 *     noheaders (no x- headers)
 *   Kinds of files and batches (@N counts those that could have it):
 *     late-files (content answers 404, or status=403, the first=2 times),
 *     late-upload (a batch of a fresh file is answered 400 so often),
 *     upload-reset (after half the body, or bytes=N), content-redirect (302 to
 *     to=URL, or to this server as localhost; a key that arrives is a finding)
 *     batch-fails, batch-expires:0.6 (with 60% of the rows done), null-output
 *     (completed, but no output file), null-ids (ids absent instead of null),
 *     unknown-status ("paused" for a while), counts-lie (all completed),
 *     rows-in-order (else they are shuffled)
 *   Kinds of rows of a batch (@N counts rows), at most one a row:
 *     row-4xx, row-5xx (with status=N), row-429 (into the error file);
 *     row-4xx-in-output; row-status0 (no answer, yet counted as completed);
 *     row-refusal, row-cut (finish_reason length), row-malformed (breaks off
 *     behind its id), row-drop, row-duplicate, row-stranger (an unknown id
 *     beside it). The same body in another batch has another fate.
 *   Kinds of the lines they are written on: row-crlf, row-blank, row-u2028
 *
 * LIMITS OF AN ACCOUNT   options.rpm, tpm, rpd, tpd are buckets that start full
 *   and fill evenly, over a minute or a day; one account, whatever the key.
 *   A request is charged when it is admitted: one request, and as tokens the
 *   larger of max_tokens * n and a quarter of its bytes. With charge_usage that
 *   is corrected to its usage when the answer is out. With count_failed each
 *   request counts against rpm and rpd, also if it is refused or fails (as with
 *   the real API: who goes on asking is never let in). slice_ms: no more at
 *   once than the share of so many milliseconds; headers do not tell. Requests
 *   beyond a limit are answered 429 with retry-after and retry-after-ms.
 *   x-ratelimit-* describe the state behind the request as it came, before its
 *   latency; those of requests tell the limit of a day where there is one.
 *   options.reset_form: go (8.64s), seconds (9), unix (1790000009), rfc3339,
 *   none (no such header), minus1 (-1), azure (-1 for limit and remaining, 0).
 *   mock_server_limits() or POST /mock/limits {"rpm":N,"tpm":N,"rpd":N,"tpd":N,
 *   "slice_ms":N} changes what is named (0: no limit): what is left of the old
 *   limit is kept, cut to the new one; a first limit is full.
 *
 * COST   options.price_*: of every answer that was made, also if a fault loses
 *   or cuts it (not by a plain reset), of batches the half; not of errors.
 *   cached_share of the prompt tokens is told as cached, in steps of 128, where
 *   there are 1,024; not in batches.
 *
 * BATCHES   are checked when they are made and run when somebody looks past
 *   their end: nothing waits. The first 3% of options.batch_seconds they are
 *   validating, the last 3% finalizing. mock_server_advance() or POST
 *   /mock/clock {"advance_seconds":N} moves the date on. Uploads are spooled
 *   to disk; 50,000 rows take a second and 10 MB. Whatever was answered is in
 *   options.data_dir, even if the process is killed; the next one goes on.
 *
 * COUNTERS   GET /mock/stats (beside /v1, no key) or mock_server_stats():
 *   requests by route, complete responses by status, faults by kind,
 *   connections (that carried an API request) and tls_resumed among them,
 *   max_connections, max_concurrency, prompts_answered (different bodies with a
 *   complete 200), prompts_answered_again (a 200 for a body that had one, live
 *   or in a batch), tokens, batches_created, batches_by_job (by the value of
 *   the metadata "gptner_job"), batch_lines_billed, batch_lines_billed_again
 *   (the body was answered before, live or by another batch, and the mock did
 *   not spoil that answer), files_stored, ... Requests to /mock itself are not
 *   counted. POST /mock/reset starts afresh, without the batches made so far.
 *   cost, cost_batch (its part for batches; USD, exact), cost_microusd,
 *   cost_batch_microusd (rounded up); billed (tokens, without batches).
 *   limits; throttled: 429s by cause (requests, tokens, requests_day,
 *   tokens_day, slice_requests, slice_tokens, too_large; injected: by a fault);
 *   elapsed_ms, first_429_ms, last_429_ms: the mock's clock since the start or
 *   the last reset (-1: never). quota and since_mark (since POST /mock/mark or
 *   mock_server_mark(), else the start): replies, throttled, requests_charged,
 *   tokens_charged, and what rpm and tpm granted in that time as
 *   requests_allowed, tokens_allowed (without the full bucket at its begin):
 *   charged / allowed is the share of the quota that was used, also if limits
 *   changed. quota.requests_last_60s, tokens_last_60s; max_in_flight.
 *
 * REPORT CARD   GET /mock/report or mock_server_report():
 *   {"clean":true,"findings":[]}, else per code a count and a sentence:
 *   ignored_retry_after   a request before the end of a pause that a delivered
 *                         429 or 503 asked for (up to 60 s): the same body at
 *                         all, others once the client had 200 ms to hear of it
 *   retried_final         the same body again after 400, 401, 403, 404, 422,
 *                         no quota, too large, or x-should-retry: false
 *   stampeded             more than 8 connections within 10 ms after a pause
 *   key_to_other_host     a key with a foreign Host header, or sent to /mock
 *   duplicated            a body again after its complete 200 was delivered,
 *                         more often than options.expect_repeats allows
 *   too_many_connections  more open than 1.5 * options.expect_connections + 2
 *                         (replaced ones overlap), or new ones while more than
 *                         16 have been idle for 10 s
 *   no_keep_alive         ten or more connections given up after one request
 *   created_twice         a batch of the same gptner_job and the same lines as
 *                         one that runs or has answers
 *   polled_too_fast       an unfinished batch looked at five times or more,
 *                         oftener than every 2 s (batch_seconds / 50, if that
 *                         is less than a minute)
 *   downloaded_again      a file that had been delivered as a whole
 *   leaked_files          files that are left; with options.expect_clean_files
 *   A client is told apart by address and key. Faults that hide an answer
 * (lost, truncate, reset, ...) excuse the repeat.
 *
 * THREADS AND TIME   One loop drives all connections. Started normally it runs
 *   in a thread of its own; every function may be called from any thread. With
 *   options.manual there is no thread: call mock_server_step() in turn with the
 *   client's own step and give both the same options.clock_ms_fn: hours of
 *   back-off pass in milliseconds ("time travel"). All TLS of a server happens
 *   in its loop; if your mbedTLS lacks MBEDTLS_THREADING_C and your program
 *   uses TLS in other threads, use the manual mode or the command.
 *
 * LIMITS   Request heads 64 KiB, bodies options.max_body_bytes. HTTP/1.0
 * and 1.1 only. Token counts are an estimate (see mki_token_next). Bodies
 * remembered for the report: 4 million.
 */

#if defined(MOCK_OPENAI_IMPLEMENTATION) && defined(__linux__) && \
    !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#ifndef MOCK_OPENAI_H
#define MOCK_OPENAI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOCK_OPENAI_VERSION "0.1.0"

/* MOCK_OPENAI_STATIC keeps all functions private to the including file. */
#ifndef MOCK_API
#ifdef MOCK_OPENAI_STATIC
#if defined(__GNUC__) || defined(__clang__)
#define MOCK_API static __attribute__((unused))
#else
#define MOCK_API static
#endif
#else
#define MOCK_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* All zero is a plain HTTP server on a free port of 127.0.0.1 that echoes.
 * Everything is copied at the start. */
typedef struct mock_options {
    const char *host;  /* address to listen on; NULL: "127.0.0.1" */
    int port;          /* 0: any free one */
    bool tls;          /* HTTPS with a certificate made at the start */
    const char *names; /* more host names, "a.test,b.test": into the
                          certificate, and not foreign to the report card */
    const char
        *cert_file; /* PEM chain and key instead of the own certificate */
    const char *key_file;
    const char *api_key;   /* NULL: any key or none will do */
    int latency_ms;        /* before an answer; */
    int latency_jitter_ms; /* up to so much more, uniformly */
    const char *reply;     /* "echo" (NULL), "hash", "ner", or a script file */
    const char *script;    /* the script itself as text, instead of a file */
    const char *const *faults;
    size_t n_faults;
    uint64_t seed;
    int rpm;                /* requests a minute, true bucket; 0: no limit */
    int64_t tpm;            /* tokens a minute; 0: no limit */
    bool model_profiles;    /* refuse what real models refuse */
    const char *data_dir;   /* files and batches, kept; made if missing; NULL:
                               a folder of its own, removed at the end */
    const char *log_file;   /* one JSON line a request, appended */
    int expect_connections; /* report card: open at once, at most; 0: any */
    int expect_repeats;     /* how often one prompt may occur; 0: 1; -1: any */
    int idle_ms;            /* close kept connections after; 0: never */
    size_t max_body_bytes;  /* 0: 32 MiB; more is answered 413 */
    /* How long a batch takes, fractions allowed; 0: 1 second; less than 0: it
     * is over when it is looked at again. */
    double batch_seconds;
    int64_t enqueued_tokens; /* of unfinished batches, at most; 0: any number */
    bool expect_clean_files; /* report card: no file is left behind */
    bool manual;             /* no thread: you call mock_server_step() */
    /* Milliseconds, monotonic; NULL: the system's. For all waiting, rates. */
    int64_t (*clock_ms_fn)(void *user);
    /* Milliseconds since 1970; NULL: the system's at the start, then as the
     * clock above goes. */
    int64_t (*unix_ms_fn)(void *user);
    void *clock_user;
    /* A server under load: asked at each API request, in the mock's thread,
     * with the number of requests under way, this one included, and the delay
     * of the answer, which it may change. Returns 0: answer; else the status to
     * answer at once (429: too many at a time; 503, 529: overloaded). */
    int (*load_fn)(int under_way, int64_t *delay_ms, void *user);
    void *load_user;
    int rpd;           /* requests a day; 0: no limit */
    int64_t tpd;       /* tokens a day; 0: no limit */
    int slice_ms;      /* enforce rpm and tpm within such slices, too; 0: no */
    bool charge_usage; /* tokens: correct the charge when the answer is out */
    bool count_failed; /* failed and refused requests count against rpm, rpd */
    bool no_rate_headers;   /* no x-ratelimit-* at all */
    const char *reset_form; /* of x-ratelimit-reset-*: "go" (NULL), "seconds",
                               "unix", "rfc3339", "none", "minus1", "azure" */
    /* What answers cost, in USD per million tokens, to 6 decimals; batches take
     * half. price_cached 0: as price_in; less than 0: nothing. */
    double price_in, price_cached, price_out;
    double cached_share; /* of prompts from 1,024 tokens on, in usage: 0 to 1 */
} mock_options;

typedef struct mock_server mock_server;

/* Starts a server. opt NULL: all defaults. On success *out is ended by
 * mock_server_stop(). On failure *out is NULL and err says why. */
MOCK_API bool mock_server_start(const mock_options *opt, mock_server **out,
                                char *err, size_t cap);

/* Closes everything and frees the server. NULL may be given. */
MOCK_API void mock_server_stop(mock_server *server);

/* Manual mode: does whatever can be done without waiting. Returns the time (of
 * the mock's clock) at which it wants to be called even if no byte arrives, or
 * INT64_MAX. *progress (may be NULL) tells whether anything happened: step the
 * client and the mock until neither makes progress, then advance the clock. */
MOCK_API int64_t mock_server_step(mock_server *server, bool *progress);

/* "http://127.0.0.1:40123/v1"; lives as long as the server. */
MOCK_API const char *mock_server_base_url(const mock_server *server);
MOCK_API int mock_server_port(const mock_server *server);

/* The CA to trust, as PEM; NULL without TLS or with a certificate of yours. */
MOCK_API const char *mock_server_ca_pem(const mock_server *server);

/* Counters and report card as JSON, to be freed by mock_text_free(); NULL
 * without memory. */
MOCK_API char *mock_server_stats(mock_server *server);
MOCK_API char *mock_server_report(mock_server *server);
MOCK_API void mock_text_free(char *text);

/* One number of the counters by its path, e.g. "responses.429", "connections",
 * "requests.POST /v1/embeddings"; 0 when there is none. */
MOCK_API int64_t mock_server_count(mock_server *server, const char *path);

/* Number of findings of one code, or of all with NULL. */
MOCK_API int64_t mock_server_findings(mock_server *server, const char *code);

/* Counters, report card, and what is remembered of bodies start afresh. */
MOCK_API void mock_server_reset(mock_server *server);

/* Moves the date on, and with it batches and what expires. */
MOCK_API void mock_server_advance(mock_server *server, int64_t ms);

/* Other limits from now on; 0: none, less than 0: as it is. What is left of the
 * old one is kept, cut to the new one; headers tell the new one at once. */
MOCK_API void mock_server_limits(mock_server *server, int rpm, int64_t tpm);

/* "since_mark" of the counters begins here. */
MOCK_API void mock_server_mark(mock_server *server);

/* Adds a fault, or removes all (spec NULL), while the server runs. false and
 * err: the text is not understood. */
MOCK_API bool mock_server_fault(mock_server *server, const char *spec,
                                char *err, size_t cap);

#ifdef __cplusplus
}
#endif

#endif /* MOCK_OPENAI_H */

/* ---- end of the interface ----------------------------------------------- */

#ifdef MOCK_OPENAI_IMPLEMENTATION
#ifndef MOCK_OPENAI_IMPLEMENTATION_DONE
#define MOCK_OPENAI_IMPLEMENTATION_DONE

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h> /* vsnprintf and the log file */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef MOCK_OPENAI_NO_TLS
#include <mbedtls/version.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_cache.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/pk.h>
#include <mbedtls/x509_crt.h>
#if MBEDTLS_VERSION_NUMBER < 0x04000000
#include <mbedtls/bignum.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#endif
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
#include <psa/crypto.h>
#endif
#endif

#ifdef __cplusplus
#define MKI_ZERO \
    {            \
    }
#else
/* clang-format off */
#define MKI_ZERO {0}
/* clang-format on */
#endif

#define MKI_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#if defined(__GNUC__) || defined(__clang__)
#define MKI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define MKI_PRINTF(fmt, args)
#endif

/* ===========================================================================
 * >>platform   clock, threads, sockets, readiness, files
 *
 * Everything that differs between systems. Readiness is epoll on Linux, and
 * poll() elsewhere or with MOCK_OPENAI_NO_EPOLL; level-triggered in both.
 * ======================================================================== */

#if defined(__linux__) && !defined(MOCK_OPENAI_NO_EPOLL)
#define MKI_EPOLL 1
#include <sys/epoll.h>
#else
#define MKI_EPOLL 0
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS: SO_NOSIGPIPE does it */
#endif

enum { MKI_IN = 1, MKI_OUT = 2, MKI_GONE = 4 };

static int64_t mki_os_clock_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int64_t mki_os_unix_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool mki_fd_prepare(int fd)
{
    int flags = fcntl(fd, F_GETFL, 0);

    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

static void mki_sock_tune(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &one, sizeof one);
#endif
}

/* Opens a listening socket; *port receives the one chosen. -1: errno. */
static int mki_sock_listen(const char *host, int *port)
{
    struct sockaddr_storage ss;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    socklen_t len;
    int one = 1;
    int fd;

    memset(&ss, 0, sizeof ss);
    memset(&v4, 0, sizeof v4);
    memset(&v6, 0, sizeof v6);
    v4.sin_family = AF_INET;
    v4.sin_port = htons((uint16_t)*port);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons((uint16_t)*port);
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(&ss, &v4, sizeof v4);
        len = sizeof v4;
    } else if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(&ss, &v6, sizeof v6);
        len = sizeof v6;
    } else {
        errno = EINVAL;
        return -1;
    }
    fd = socket(ss.ss_family, SOCK_STREAM, 0);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!mki_fd_prepare(fd) || bind(fd, (struct sockaddr *)&ss, len) != 0 ||
        listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&ss, &len) != 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    memcpy(&v4, &ss, sizeof v4); /* the port lies at the same place in both */
    *port = ntohs(v4.sin_port);
    return fd;
}

/* A new connection and a number for its peer's address; -1: none. */
static int mki_sock_accept(int listener, uint64_t *peer)
{
    struct sockaddr_storage ss;
    struct sockaddr_in v4;
    socklen_t len = sizeof ss;
    int fd;

    memset(&ss, 0, sizeof ss);
#ifdef __linux__
    fd = accept4(listener, (struct sockaddr *)&ss, &len,
                 SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    fd = accept(listener, (struct sockaddr *)&ss, &len);
    if (fd >= 0 && !mki_fd_prepare(fd)) {
        close(fd);
        fd = -1;
    }
#endif
    if (fd < 0) {
        return -1;
    }
    mki_sock_tune(fd);
    *peer = 6;
    if (ss.ss_family == AF_INET) {
        memcpy(&v4, &ss, sizeof v4);
        *peer = v4.sin_addr.s_addr;
    }
    return fd;
}

/* > 0: bytes; 0: end; -1: nothing now; -2: broken. */
static int64_t mki_sock_recv(int fd, void *data, size_t cap)
{
    ssize_t n = recv(fd, data, cap, 0);

    if (n >= 0) {
        return (int64_t)n;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -1 : -2;
}

static int64_t mki_sock_send(int fd, const void *data, size_t len)
{
    ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

    if (n >= 0) {
        return (int64_t)n;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -1 : -2;
}

/* Sends FIN; what the peer still sends can be read. */
static void mki_sock_finish(int fd)
{
    shutdown(fd, SHUT_WR);
}

/* Closes; with reset the peer gets RST instead of FIN. */
static void mki_sock_close(int fd, bool reset)
{
    struct linger hard;

    if (reset) {
        hard.l_onoff = 1;
        hard.l_linger = 0;
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    close(fd);
}

typedef struct mki_event {
    void *tag;
    unsigned ready;
} mki_event;

typedef struct mki_poller {
    int epoll_fd; /* -1: poll() */
    int wake[2];
    struct pollfd *fds; /* poll() only: these three in step */
    void **tags;
    size_t n_fds, cap_fds;
} mki_poller;

/* Registers, changes (interest may be 0: only hang-ups) or forgets (-1). */
static bool mki_poller_set(mki_poller *p, int fd, int interest, void *tag)
{
#if MKI_EPOLL
    struct epoll_event ev;

    memset(&ev, 0, sizeof ev);
    ev.data.ptr = tag;
    if (interest < 0) {
        return epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, fd, &ev) == 0;
    }
    ev.events = ((interest & MKI_IN) != 0 ? (uint32_t)EPOLLIN : 0U) |
                ((interest & MKI_OUT) != 0 ? (uint32_t)EPOLLOUT : 0U);
    return epoll_ctl(p->epoll_fd, EPOLL_CTL_MOD, fd, &ev) == 0 ||
           (errno == ENOENT &&
            epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0);
#else
    size_t i = 0;

    while (i < p->n_fds && p->fds[i].fd != fd) {
        i++;
    }
    if (interest < 0) {
        if (i < p->n_fds) {
            p->n_fds--;
            p->fds[i] = p->fds[p->n_fds];
            p->tags[i] = p->tags[p->n_fds];
        }
        return true;
    }
    if (i == p->cap_fds) {
        size_t cap = p->cap_fds * 2 + 64;
        struct pollfd *fds =
            (struct pollfd *)realloc(p->fds, cap * sizeof *fds);
        void **tags;

        p->fds = fds != NULL ? fds : p->fds;
        tags =
            fds != NULL ? (void **)realloc(p->tags, cap * sizeof *tags) : NULL;
        if (tags == NULL) {
            return false;
        }
        p->tags = tags;
        p->cap_fds = cap;
    }
    p->n_fds += i == p->n_fds ? 1 : 0;
    p->fds[i].fd = fd;
    p->fds[i].events = (short)(((interest & MKI_IN) != 0 ? POLLIN : 0) |
                               ((interest & MKI_OUT) != 0 ? POLLOUT : 0));
    p->fds[i].revents = 0;
    p->tags[i] = tag;
    return true;
#endif
}

static void mki_poller_deinit(mki_poller *p)
{
    if (p->epoll_fd >= 0) {
        close(p->epoll_fd);
    }
    if (p->wake[0] >= 0) {
        close(p->wake[0]);
        close(p->wake[1]);
    }
    free(p->fds);
    free(p->tags);
}

static bool mki_poller_init(mki_poller *p)
{
    memset(p, 0, sizeof *p);
    p->epoll_fd = -1;
    p->wake[0] = -1;
#if MKI_EPOLL
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->epoll_fd < 0) {
        return false;
    }
#endif
    if (pipe(p->wake) != 0) {
        p->wake[0] = -1;
        mki_poller_deinit(p);
        return false;
    }
    if (!mki_fd_prepare(p->wake[0]) || !mki_fd_prepare(p->wake[1]) ||
        !mki_poller_set(p, p->wake[0], MKI_IN, NULL)) {
        mki_poller_deinit(p);
        return false;
    }
    return true;
}

static void mki_poller_wake(mki_poller *p)
{
    ssize_t n = write(p->wake[1], "w", 1);

    (void)n; /* a full pipe wakes as well */
}

static void mki_poller_drain(mki_poller *p)
{
    char sink[64];

    while (read(p->wake[0], sink, sizeof sink) > 0) {
    }
}

/* Waits up to timeout_ms (-1: for ever); fills at most cap events. */
static int mki_poller_wait(mki_poller *p, int timeout_ms, mki_event *out,
                           int cap)
{
    int n = 0;
#if MKI_EPOLL
    struct epoll_event evs[256];
    int got = epoll_wait(p->epoll_fd, evs, cap < 256 ? cap : 256, timeout_ms);
    int i;

    for (i = 0; i < got; i++) {
        uint32_t e = evs[i].events;

        if (evs[i].data.ptr == NULL) {
            mki_poller_drain(p);
            continue;
        }
        out[n].tag = evs[i].data.ptr;
        out[n].ready =
            ((e & EPOLLIN) != 0 ? (unsigned)MKI_IN : 0U) |
            ((e & EPOLLOUT) != 0 ? (unsigned)MKI_OUT : 0U) |
            ((e & (EPOLLERR | EPOLLHUP)) != 0 ? (unsigned)MKI_GONE : 0U);
        n++;
    }
#else
    size_t i;

    if (poll(p->fds, (nfds_t)p->n_fds, timeout_ms) <= 0) {
        return 0;
    }
    for (i = 0; i < p->n_fds && n < cap; i++) {
        short e = p->fds[i].revents;

        if (e == 0) {
            continue;
        }
        if (p->tags[i] == NULL) {
            mki_poller_drain(p);
            continue;
        }
        out[n].tag = p->tags[i];
        out[n].ready =
            ((e & POLLIN) != 0 ? (unsigned)MKI_IN : 0U) |
            ((e & POLLOUT) != 0 ? (unsigned)MKI_OUT : 0U) |
            ((e & (POLLERR | POLLHUP | POLLNVAL)) != 0 ? (unsigned)MKI_GONE
                                                       : 0U);
        n++;
    }
#endif
    return n;
}

/* Starts fn in a thread that takes no signals. */
static bool mki_thread_start(pthread_t *t, void *(*fn)(void *), void *arg)
{
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(t, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0;
}

/* A whole file with a NUL behind it; NULL: errno. */
static char *mki_file_read(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *data = NULL;
    size_t cap = 0;
    size_t got = 1;

    *len = 0;
    if (f == NULL) {
        return NULL;
    }
    while (got > 0) {
        if (cap - *len < 4097) {
            char *more = (char *)realloc(data, cap * 2 + 16384);

            if (more == NULL || cap > ((size_t)64 << 20)) {
                free(more != NULL ? more : data);
                fclose(f);
                errno = ENOMEM;
                return NULL;
            }
            data = more;
            cap = cap * 2 + 16384;
        }
        got = fread(data + *len, 1, cap - *len - 1, f);
        *len += got;
    }
    data[*len] = '\0';
    fclose(f);
    return data;
}

static bool mki_dir_make(const char *path)
{
    struct stat st;

    return mkdir(path, 0777) == 0 ||
           (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

/* Calls fn for each name in a directory; false: it cannot be read. */
static bool mki_dir_each(const char *path,
                         void (*fn)(void *ctx, const char *name), void *ctx)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    if (dir == NULL) {
        return false;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            fn(ctx, entry->d_name);
        }
    }
    closedir(dir);
    return true;
}

/* A folder that nobody else has, below TMPDIR. */
static bool mki_dir_private(char *out, size_t cap)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(out, cap, "%s/mock_openai-XXXXXX",
             tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
    return mkdtemp(out) != NULL;
}

/* Writes a file as a whole or not at all: a killed process leaves the old one,
 * or none. */
static bool mki_file_write(const char *path, const void *data, size_t len)
{
    char tmp[1200];
    FILE *f;
    bool ok;

    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    f = fopen(tmp, "wb");
    ok = f != NULL && (len == 0 || fwrite(data, 1, len, f) == len);
    ok = f != NULL && fclose(f) == 0 && ok;
    ok = ok && rename(tmp, path) == 0;
    if (!ok) {
        unlink(tmp);
    }
    return ok;
}

static bool mki_fd_write(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* ===========================================================================
 * >>bytes      buffers, arena, hashes, base64, UTF-8, random numbers
 * ======================================================================== */

#define MKI_BUF_MAX ((size_t)1 << 30) /* no buffer ever grows beyond */

/* A growable text. The first failure is remembered; later calls do nothing. */
typedef struct mki_buf {
    char *data;
    size_t len, cap;
    bool failed;
} mki_buf;

/* A view of bytes, not NUL-terminated. */
typedef struct mki_str {
    const char *ptr;
    size_t len;
} mki_str;

static bool mki_buf_reserve(mki_buf *b, size_t extra)
{
    size_t cap = b->cap < 256 ? 256 : b->cap;
    char *data;

    if (b->failed) {
        return false;
    }
    if (extra <= b->cap - b->len) {
        return true;
    }
    if (extra > MKI_BUF_MAX - b->len) {
        b->failed = true;
        return false;
    }
    while (cap < b->len + extra) {
        cap *= 2;
    }
    data = (char *)realloc(b->data, cap);
    if (data == NULL) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

static void mki_buf_add(mki_buf *b, const char *data, size_t len)
{
    if (len > 0 && mki_buf_reserve(b, len)) {
        memcpy(b->data + b->len, data, len);
        b->len += len;
    }
}

static void mki_buf_s(mki_buf *b, const char *text)
{
    mki_buf_add(b, text, strlen(text));
}

static void mki_buf_c(mki_buf *b, char c)
{
    mki_buf_add(b, &c, 1);
}

static void mki_buf_i64(mki_buf *b, int64_t value)
{
    char text[24];
    size_t i = sizeof text;
    uint64_t v = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

    do {
        text[--i] = (char)('0' + (int)(v % 10));
        v /= 10;
    } while (v > 0);
    if (value < 0) {
        text[--i] = '-';
    }
    mki_buf_add(b, text + i, sizeof text - i);
}

/* Short texts only: what does not fit into 512 bytes is cut. */
MKI_PRINTF(2, 3) static void mki_buf_f(mki_buf *b, const char *fmt, ...)
{
    char text[512];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n > 0) {
        mki_buf_add(b, text,
                    (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    }
}

static void mki_buf_hex(mki_buf *b, const unsigned char *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    size_t i;

    for (i = 0; i < len; i++) {
        mki_buf_c(b, digits[data[i] >> 4]);
        mki_buf_c(b, digits[data[i] & 15]);
    }
}

/* Removes the first n bytes. */
static void mki_buf_drop(mki_buf *b, size_t n)
{
    b->len -= n;
    if (b->len > 0) {
        memmove(b->data, b->data + n, b->len);
    }
}

static void mki_buf_free(mki_buf *b)
{
    free(b->data);
    memset(b, 0, sizeof *b);
}

static void mki_err(char *err, size_t cap, const char *fmt, const char *arg)
{
    if (err != NULL && cap > 0) {
        const char *at = strstr(fmt, "%s");
        size_t head = at != NULL ? (size_t)(at - fmt) : strlen(fmt);

        snprintf(err, cap, "%.*s%s%s", (int)head, fmt, at != NULL ? arg : "",
                 at != NULL ? at + 2 : "");
    }
}

static mki_str mki_s(const char *ptr, size_t len)
{
    mki_str s;

    s.ptr = ptr;
    s.len = len;
    return s;
}

static mki_str mki_sc(const char *text)
{
    return mki_s(text, text != NULL ? strlen(text) : 0);
}

static mki_str mki_buf_str(const mki_buf *b)
{
    return mki_s(b->data != NULL ? b->data : "", b->len);
}

static bool mki_eq(mki_str s, const char *text)
{
    size_t len = strlen(text);

    return s.len == len && (len == 0 || memcmp(s.ptr, text, len) == 0);
}

static bool mki_same(mki_str a, mki_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static bool mki_starts(mki_str s, const char *text)
{
    size_t len = strlen(text);

    return s.len >= len && memcmp(s.ptr, text, len) == 0;
}

static char mki_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool mki_ieq(mki_str s, const char *text)
{
    size_t i;

    for (i = 0; i < s.len && text[i] != '\0'; i++) {
        if (mki_lower(s.ptr[i]) != mki_lower(text[i])) {
            return false;
        }
    }
    return i == s.len && text[i] == '\0';
}

/* Position of needle at or behind from; SIZE_MAX: nowhere. */
static size_t mki_find(mki_str s, mki_str needle, size_t from)
{
    size_t i = from;

    if (needle.len == 0) {
        return from <= s.len ? from : SIZE_MAX;
    }
    while (i + needle.len <= s.len) {
        const char *at = (const char *)memchr(s.ptr + i, needle.ptr[0],
                                              s.len - needle.len - i + 1);

        if (at == NULL) {
            return SIZE_MAX;
        }
        i = (size_t)(at - s.ptr);
        if (memcmp(at, needle.ptr, needle.len) == 0) {
            return i;
        }
        i++;
    }
    return SIZE_MAX;
}

static bool mki_has(mki_str s, const char *text)
{
    return mki_find(s, mki_sc(text), 0) != SIZE_MAX;
}

static mki_str mki_trim(mki_str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

/* Whole string, decimal digits only. */
static bool mki_u64(mki_str s, uint64_t *out)
{
    uint64_t v = 0;
    size_t i;

    if (s.len == 0 || s.len > 19) {
        return false;
    }
    for (i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') {
            return false;
        }
        v = v * 10 + (uint64_t)(s.ptr[i] - '0');
    }
    *out = v;
    return true;
}

/* "0.05", "2": digits with at most one point, up to 18 of them. */
static bool mki_decimal(mki_str s, double *out)
{
    double v = 0;
    double unit = 0;
    size_t i;

    for (i = 0; i < s.len; i++) {
        if (s.ptr[i] == '.' && unit == 0) {
            unit = 1;
        } else if (s.ptr[i] >= '0' && s.ptr[i] <= '9') {
            v = v * 10 + (s.ptr[i] - '0');
            unit *= 10;
        } else {
            return false;
        }
    }
    *out = unit > 1 ? v / unit : v;
    return s.len > 0 && s.len <= 19;
}

/* Cuts what does not fit; always ends with a NUL. */
static void mki_copy(char *out, size_t cap, mki_str s)
{
    size_t n = s.len < cap ? s.len : cap - 1;

    if (n > 0) {
        memcpy(out, s.ptr, n);
    }
    out[n] = '\0';
}

static char *mki_dup(const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = (char *)malloc(len);

    if (copy != NULL) {
        memcpy(copy, text, len);
    }
    return copy;
}

/* Memory that dies together: chunks in a list, the newest first. */
typedef struct mki_chunk {
    struct mki_chunk *next;
    size_t used, cap;
} mki_chunk;

typedef struct mki_arena {
    mki_chunk *chunks;
    bool failed;
} mki_arena;

static void *mki_alloc(mki_arena *a, size_t size)
{
    mki_chunk *c = a->chunks;

    if (size > MKI_BUF_MAX) {
        a->failed = true;
        return NULL;
    }
    size = (size + 15) & ~(size_t)15;
    if (c == NULL || size > c->cap - c->used) {
        size_t cap = size > 65536 ? size : 65536;

        c = (mki_chunk *)malloc(sizeof *c + 16 + cap);
        if (c == NULL) {
            a->failed = true;
            return NULL;
        }
        c->next = a->chunks;
        c->used = 0;
        c->cap = cap;
        a->chunks = c;
    }
    c->used += size;
    return (char *)c + ((sizeof *c + 15) & ~(size_t)15) + (c->used - size);
}

/* Forgets everything; keeps one chunk of the usual size. */
static void mki_arena_reset(mki_arena *a, bool all)
{
    mki_chunk *keep = NULL;

    while (a->chunks != NULL) {
        mki_chunk *c = a->chunks;

        a->chunks = c->next;
        if (!all && keep == NULL && c->cap == 65536) {
            keep = c;
            keep->next = NULL;
            keep->used = 0;
        } else {
            free(c);
        }
    }
    a->chunks = keep;
    a->failed = false;
}

/* Mixes 64 bits (the finaliser of splitmix64). */
static uint64_t mki_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

/* A fast 64-bit hash of bytes; the same on every machine. */
static uint64_t mki_hash(uint64_t seed, const void *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    uint64_t h = mki_mix(seed ^ (uint64_t)len);
    size_t i;

    while (len > 0) {
        uint64_t word = 0;
        size_t n = len < 8 ? len : 8;

        for (i = 0; i < n; i++) {
            word |= (uint64_t)p[i] << (8 * i);
        }
        h = (h ^ word) * 0x9fb21c651e98df25U;
        h ^= h >> 32;
        p += n;
        len -= n;
    }
    return mki_mix(h);
}

/* Uniform in [0, 1). */
static double mki_unit(uint64_t random)
{
    return (double)(random >> 11) * (1.0 / 9007199254740992.0);
}

typedef struct mki_sha {
    uint32_t h[8];
    uint64_t total;
    unsigned char block[64];
} mki_sha;

static void mki_sha_init(mki_sha *s)
{
    static const uint32_t start[8] = {0x6a09e667U, 0xbb67ae85U, 0x3c6ef372U,
                                      0xa54ff53aU, 0x510e527fU, 0x9b05688cU,
                                      0x1f83d9abU, 0x5be0cd19U};

    memcpy(s->h, start, sizeof start);
    s->total = 0;
}

static uint32_t mki_ror(uint32_t x, int n)
{
    return (x >> n) | (x << (32 - n));
}

/* FIPS 180-4, 6.2.2 */
static void mki_sha_block(mki_sha *s)
{
    static const uint32_t k[64] = {
        0x428a2f98U, 0x71374491U, 0xb5c0fbcfU, 0xe9b5dba5U, 0x3956c25bU,
        0x59f111f1U, 0x923f82a4U, 0xab1c5ed5U, 0xd807aa98U, 0x12835b01U,
        0x243185beU, 0x550c7dc3U, 0x72be5d74U, 0x80deb1feU, 0x9bdc06a7U,
        0xc19bf174U, 0xe49b69c1U, 0xefbe4786U, 0x0fc19dc6U, 0x240ca1ccU,
        0x2de92c6fU, 0x4a7484aaU, 0x5cb0a9dcU, 0x76f988daU, 0x983e5152U,
        0xa831c66dU, 0xb00327c8U, 0xbf597fc7U, 0xc6e00bf3U, 0xd5a79147U,
        0x06ca6351U, 0x14292967U, 0x27b70a85U, 0x2e1b2138U, 0x4d2c6dfcU,
        0x53380d13U, 0x650a7354U, 0x766a0abbU, 0x81c2c92eU, 0x92722c85U,
        0xa2bfe8a1U, 0xa81a664bU, 0xc24b8b70U, 0xc76c51a3U, 0xd192e819U,
        0xd6990624U, 0xf40e3585U, 0x106aa070U, 0x19a4c116U, 0x1e376c08U,
        0x2748774cU, 0x34b0bcb5U, 0x391c0cb3U, 0x4ed8aa4aU, 0x5b9cca4fU,
        0x682e6ff3U, 0x748f82eeU, 0x78a5636fU, 0x84c87814U, 0x8cc70208U,
        0x90befffaU, 0xa4506cebU, 0xbef9a3f7U, 0xc67178f2U};
    uint32_t w[64];
    uint32_t v[8];
    int i;

    for (i = 0; i < 16; i++) {
        const unsigned char *p = s->block + 4 * i;

        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
               (uint32_t)p[2] << 8 | p[3];
    }
    for (i = 16; i < 64; i++) {
        uint32_t a = w[i - 15];
        uint32_t b = w[i - 2];

        w[i] = w[i - 16] + (mki_ror(a, 7) ^ mki_ror(a, 18) ^ (a >> 3)) +
               w[i - 7] + (mki_ror(b, 17) ^ mki_ror(b, 19) ^ (b >> 10));
    }
    memcpy(v, s->h, sizeof v);
    for (i = 0; i < 64; i++) {
        uint32_t t1 =
            v[7] + (mki_ror(v[4], 6) ^ mki_ror(v[4], 11) ^ mki_ror(v[4], 25)) +
            ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        uint32_t t2 =
            (mki_ror(v[0], 2) ^ mki_ror(v[0], 13) ^ mki_ror(v[0], 22)) +
            ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (i = 0; i < 8; i++) {
        s->h[i] += v[i];
    }
}

static void mki_sha_add(mki_sha *s, const void *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;

    while (len > 0) {
        size_t at = (size_t)(s->total % 64);
        size_t n = 64 - at < len ? 64 - at : len;

        memcpy(s->block + at, p, n);
        s->total += n;
        p += n;
        len -= n;
        if (at + n == 64) {
            mki_sha_block(s);
        }
    }
}

static void mki_sha_end(mki_sha *s, unsigned char out[32])
{
    static const unsigned char pad[64] = {0x80};
    uint64_t bits = s->total * 8;
    unsigned char tail[8];
    int i;

    mki_sha_add(s, pad, 1 + (size_t)((119 - s->total % 64) % 64));
    for (i = 0; i < 8; i++) {
        tail[i] = (unsigned char)(bits >> (56 - 8 * i));
    }
    mki_sha_add(s, tail, 8);
    for (i = 0; i < 32; i++) {
        out[i] = (unsigned char)(s->h[i / 4] >> (24 - 8 * (i % 4)));
    }
}

static void mki_buf_base64(mki_buf *b, const unsigned char *data, size_t len)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t i;

    for (i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16;
        char out[4];

        v |= i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0;
        v |= i + 2 < len ? (uint32_t)data[i + 2] : 0;
        out[0] = digits[v >> 18];
        out[1] = digits[(v >> 12) & 63];
        out[2] = i + 1 < len ? digits[(v >> 6) & 63] : '=';
        out[3] = i + 2 < len ? digits[v & 63] : '=';
        mki_buf_add(b, out, 4);
    }
}

/* Length of the valid UTF-8 character at p, 1 to 4; 0: none (RFC 3629). */
static size_t mki_utf8(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n, i;

    if (len == 0) {
        return 0;
    }
    if (p[0] < 0x80) {
        return 1;
    }
    n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n > len) {
        return 0;
    }
    for (i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) {
        return 0;
    }
    return n;
}

static size_t mki_utf8_put(uint32_t cp, char *out)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | (cp >> 6));
        out[1] = (char)(0x80 | (cp & 63));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | (cp >> 12));
        out[1] = (char)(0x80 | ((cp >> 6) & 63));
        out[2] = (char)(0x80 | (cp & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | (cp >> 18));
    out[1] = (char)(0x80 | ((cp >> 12) & 63));
    out[2] = (char)(0x80 | ((cp >> 6) & 63));
    out[3] = (char)(0x80 | (cp & 63));
    return 4;
}

/* Characters, not bytes: limits of the API count those. */
static size_t mki_utf8_count(mki_str s)
{
    size_t n = 0;
    size_t i;

    for (i = 0; i < s.len; i++) {
        n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80 ? 1 : 0;
    }
    return n;
}

/* As mki_copy, but what comes out is UTF-8 whatever went in. */
static void mki_copy_utf8(char *out, size_t cap, mki_str s)
{
    size_t len = 0;
    size_t i = 0;

    while (i < s.len) {
        size_t n = mki_utf8(s.ptr + i, s.len - i);

        if (len + (n > 0 ? n : 1) >= cap) {
            break;
        }
        memcpy(out + len, n > 0 ? s.ptr + i : "?", n > 0 ? n : 1);
        len += n > 0 ? n : 1;
        i += n > 0 ? n : 1;
    }
    out[len] = '\0';
}

/* ===========================================================================
 * >>json       strict reader into a tree; writer helpers
 * calls: >>bytes
 *
 * Small on purpose: one recursive descent into an arena, the depth bounded.
 * Texts without escapes are views of the input.
 * ======================================================================== */

#define MKI_JSON_DEPTH 200

typedef enum mki_type {
    MKI_NULL,
    MKI_FALSE,
    MKI_TRUE,
    MKI_INT,    /* exact, fits int64_t */
    MKI_NUMBER, /* any other number */
    MKI_STRING,
    MKI_ARRAY,
    MKI_OBJECT
} mki_type;

typedef struct mki_json {
    mki_type type;
    mki_str key;  /* of a member */
    mki_str text; /* of a string; as written of anything else */
    int64_t i;
    double d; /* of both kinds of number */
    size_t n; /* members or elements */
    struct mki_json *child, *next;
} mki_json;

typedef struct mki_reader {
    mki_arena *arena;
    const char *p, *end;
    int depth;
} mki_reader;

static void mki_json_space(mki_reader *r)
{
    while (r->p < r->end &&
           (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r')) {
        r->p++;
    }
}

/* Four hex digits at p, or -1. */
static int32_t mki_json_hex(const char *p, const char *end)
{
    int32_t v = 0;
    int i;

    if (end - p < 4) {
        return -1;
    }
    for (i = 0; i < 4; i++) {
        char c = mki_lower(p[i]);

        if (c >= '0' && c <= '9') {
            v = v * 16 + (c - '0');
        } else if (c >= 'a' && c <= 'f') {
            v = v * 16 + (c - 'a' + 10);
        } else {
            return -1;
        }
    }
    return v;
}

/* The escape at r->p (behind the backslash) into out; 0: not one. A lone
 * surrogate becomes U+FFFD. */
static size_t mki_json_escape(mki_reader *r, char *out)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    const char *at;
    int32_t cp, low;

    if (r->p >= r->end || *r->p == '\0') {
        return 0;
    }
    if (*r->p != 'u') {
        at = strchr(from, *r->p++);
        if (at == NULL) {
            return 0;
        }
        out[0] = to[at - from];
        return 1;
    }
    cp = mki_json_hex(r->p + 1, r->end);
    if (cp < 0) {
        return 0;
    }
    r->p += 5;
    if (cp >= 0xd800 && cp < 0xdc00 && r->end - r->p >= 6 && r->p[0] == '\\' &&
        r->p[1] == 'u') {
        low = mki_json_hex(r->p + 2, r->end);
        if (low >= 0xdc00 && low < 0xe000) {
            r->p += 6;
            cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    if (cp >= 0xd800 && cp < 0xe000) {
        cp = 0xfffd;
    }
    return mki_utf8_put((uint32_t)cp, out);
}

static bool mki_json_string(mki_reader *r, mki_str *out)
{
    const char *start = ++r->p;
    char *copy = NULL;
    size_t len = 0;

    while (r->p < r->end && *r->p != '"') {
        size_t n = mki_utf8(r->p, (size_t)(r->end - r->p));

        if (n == 0 || (unsigned char)*r->p < 0x20) {
            return false;
        }
        if (*r->p == '\\') {
            if (copy == NULL) {
                /* no escape is shorter than what it stands for */
                copy = (char *)mki_alloc(r->arena, (size_t)(r->end - start));
                if (copy == NULL) {
                    return false;
                }
                len = (size_t)(r->p - start);
                memcpy(copy, start, len);
            }
            r->p++;
            n = mki_json_escape(r, copy + len);
            if (n == 0) {
                return false;
            }
            len += n;
            continue;
        }
        if (copy != NULL) {
            memcpy(copy + len, r->p, n);
            len += n;
        }
        r->p += n;
    }
    if (r->p >= r->end) {
        return false;
    }
    *out =
        copy != NULL ? mki_s(copy, len) : mki_s(start, (size_t)(r->p - start));
    r->p++;
    return true;
}

static const char *mki_json_digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9') {
        p++;
    }
    return p;
}

/* Value of the checked number text; good to a few units in the last place,
 * which is enough to compare with the limits of the API. */
static double mki_json_double(mki_str s)
{
    double v = 0;
    int exp10 = 0;
    int shift = 0;
    size_t i = s.ptr[0] == '-' ? 1 : 0;
    bool point = false;
    bool minus = false;

    for (; i < s.len && s.ptr[i] != 'e' && s.ptr[i] != 'E'; i++) {
        if (s.ptr[i] == '.') {
            point = true;
        } else {
            v = v * 10 + (s.ptr[i] - '0');
            shift -= point ? 1 : 0;
        }
    }
    for (i++; i < s.len; i++) {
        minus = minus || s.ptr[i] == '-';
        if (s.ptr[i] >= '0' && exp10 < 10000) {
            exp10 = exp10 * 10 + (s.ptr[i] - '0');
        }
    }
    shift += minus ? -exp10 : exp10;
    for (; shift > 0 && v < 1e300; shift--) {
        v *= 10;
    }
    for (; shift < 0 && v > 0; shift++) {
        v /= 10;
    }
    return s.ptr[0] == '-' ? -v : v;
}

static bool mki_json_number(mki_reader *r, mki_json *v)
{
    const char *start = r->p;
    const char *p = r->p + (*r->p == '-' ? 1 : 0);
    const char *digits = p;
    uint64_t u = 0;

    p = mki_json_digits(p, r->end);
    if (p == digits || (*digits == '0' && p - digits > 1)) {
        return false;
    }
    v->type = mki_u64(mki_s(digits, (size_t)(p - digits)), &u) &&
                      u <= (uint64_t)INT64_MAX
                  ? MKI_INT
                  : MKI_NUMBER;
    u = v->type == MKI_INT ? u : 0;
    v->i = *start == '-' ? -(int64_t)u : (int64_t)u;
    if (p < r->end && *p == '.') {
        digits = ++p;
        p = mki_json_digits(p, r->end);
        if (p == digits) {
            return false;
        }
        v->type = MKI_NUMBER;
    }
    if (p < r->end && (*p == 'e' || *p == 'E')) {
        p++;
        p += p < r->end && (*p == '+' || *p == '-') ? 1 : 0;
        digits = p;
        p = mki_json_digits(p, r->end);
        if (p == digits) {
            return false;
        }
        v->type = MKI_NUMBER;
    }
    r->p = p;
    v->d = mki_json_double(mki_s(start, (size_t)(p - start)));
    if (v->type == MKI_NUMBER && v->d >= -1e15 && v->d <= 1e15 &&
        v->d == (double)(int64_t)v->d) {
        v->type = MKI_INT; /* 10.0 and 1e1 are integers, too */
        v->i = (int64_t)v->d;
    }
    return true;
}

static bool mki_json_word(mki_reader *r, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(r->end - r->p) < len || memcmp(r->p, word, len) != 0) {
        return false;
    }
    r->p += len;
    return true;
}

static mki_json *mki_json_value(mki_reader *r);

/* The inside of an array or object, r->p at its opening bracket. */
static bool mki_json_inside(mki_reader *r, mki_json *v)
{
    char close = *r->p == '[' ? ']' : '}';
    mki_json **tail = &v->child;

    r->p++;
    mki_json_space(r);
    if (r->p < r->end && *r->p == close) {
        r->p++;
        return true;
    }
    for (;;) {
        mki_str key = MKI_ZERO;
        mki_json *item;

        mki_json_space(r);
        if (close == '}') {
            if (r->p >= r->end || *r->p != '"' || !mki_json_string(r, &key)) {
                return false;
            }
            mki_json_space(r);
            if (r->p >= r->end || *r->p++ != ':') {
                return false;
            }
        }
        item = mki_json_value(r);
        if (item == NULL) {
            return false;
        }
        item->key = key;
        *tail = item;
        tail = &item->next;
        v->n++;
        mki_json_space(r);
        if (r->p >= r->end || (*r->p != ',' && *r->p != close)) {
            return false;
        }
        if (*r->p++ == close) {
            return true;
        }
    }
}

static mki_json *mki_json_value(mki_reader *r)
{
    mki_json *v = (mki_json *)mki_alloc(r->arena, sizeof *v);
    const char *start;
    bool ok;

    mki_json_space(r);
    if (v == NULL || r->p >= r->end) {
        return NULL;
    }
    memset(v, 0, sizeof *v);
    start = r->p;
    switch (*r->p) {
    case '{':
    case '[':
        v->type = *r->p == '{' ? MKI_OBJECT : MKI_ARRAY;
        ok = r->depth < MKI_JSON_DEPTH;
        r->depth++;
        ok = ok && mki_json_inside(r, v);
        r->depth--;
        break;
    case '"':
        v->type = MKI_STRING;
        if (!mki_json_string(r, &v->text)) {
            return NULL;
        }
        return v;
    case 't':
        v->type = MKI_TRUE;
        ok = mki_json_word(r, "true");
        break;
    case 'f':
        v->type = MKI_FALSE;
        ok = mki_json_word(r, "false");
        break;
    case 'n':
        ok = mki_json_word(r, "null");
        break;
    default:
        ok = mki_json_number(r, v);
        break;
    }
    v->text = mki_s(start, (size_t)(r->p - start));
    return ok ? v : NULL;
}

/* The tree of a whole document, living in arena; NULL: not JSON. */
static mki_json *mki_json_parse(mki_arena *arena, mki_str text)
{
    mki_reader r;
    mki_json *v;

    r.arena = arena;
    r.p = text.ptr;
    r.end = text.ptr + text.len;
    r.depth = 0;
    v = mki_json_value(&r);
    mki_json_space(&r);
    return v != NULL && r.p == r.end ? v : NULL;
}

/* The last member of that name; NULL: none, or not an object. */
static mki_json *mki_get(const mki_json *v, const char *key)
{
    mki_json *found = NULL;
    mki_json *m;

    if (v == NULL || v->type != MKI_OBJECT) {
        return NULL;
    }
    for (m = v->child; m != NULL; m = m->next) {
        if (mki_eq(m->key, key)) {
            found = m;
        }
    }
    return found;
}

/* As mki_get, but null counts as absent. */
static mki_json *mki_get_set(const mki_json *v, const char *key)
{
    mki_json *m = mki_get(v, key);

    return m != NULL && m->type == MKI_NULL ? NULL : m;
}

static mki_str mki_get_text(const mki_json *v, const char *key)
{
    mki_json *m = mki_get(v, key);

    return m != NULL && m->type == MKI_STRING ? m->text : mki_s(NULL, 0);
}

static int64_t mki_get_int(const mki_json *v, const char *key, int64_t absent)
{
    mki_json *m = mki_get(v, key);

    return m != NULL && m->type == MKI_INT ? m->i : absent;
}

static bool mki_get_true(const mki_json *v, const char *key)
{
    mki_json *m = mki_get(v, key);

    return m != NULL && m->type == MKI_TRUE;
}

/* What the API calls this type in its messages. */
static const char *mki_type_name(const mki_json *v)
{
    static const char *const names[] = {"null",       "a boolean", "a boolean",
                                        "an integer", "a decimal", "a string",
                                        "an array",   "an object"};

    return names[v->type];
}

/* The inside of a JSON string, without its quotes. */
static void mki_js_inside(mki_buf *b, mki_str s)
{
    size_t from = 0;
    size_t i;

    for (i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];

        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        mki_buf_add(b, s.ptr + from, i - from);
        from = i + 1;
        if (c == '\n') {
            mki_buf_s(b, "\\n");
        } else if (c < 0x20) {
            mki_buf_f(b, "\\u%04x", (unsigned)c);
        } else {
            mki_buf_c(b, '\\');
            mki_buf_c(b, (char)c);
        }
    }
    mki_buf_add(b, s.ptr + from, s.len - from);
}

static void mki_js(mki_buf *b, mki_str s)
{
    mki_buf_c(b, '"');
    mki_js_inside(b, s);
    mki_buf_c(b, '"');
}

/* ,"name": with the comma where one is needed */
static void mki_js_key(mki_buf *b, const char *name)
{
    if (b->len > 0 && b->data[b->len - 1] != '{' &&
        b->data[b->len - 1] != '[') {
        mki_buf_c(b, ',');
    }
    mki_js(b, mki_sc(name));
    mki_buf_c(b, ':');
}

static void mki_js_int(mki_buf *b, const char *name, int64_t value)
{
    mki_js_key(b, name);
    mki_buf_i64(b, value);
}

static void mki_js_str(mki_buf *b, const char *name, mki_str value)
{
    mki_js_key(b, name);
    mki_js(b, value);
}

/* The text as a string, or null. */
static void mki_js_text_or_null(mki_buf *b, const char *value)
{
    if (value != NULL) {
        mki_js(b, mki_sc(value));
    } else {
        mki_buf_s(b, "null");
    }
}

static void mki_js_maybe(mki_buf *b, const char *name, const char *value)
{
    mki_js_key(b, name);
    mki_js_text_or_null(b, value);
}

/* ===========================================================================
 * >>tls        own CA and certificate; sessions
 * calls: >>platform >>bytes
 *
 * A channel is a connected socket with or without TLS on it; its calls return
 * what the socket calls of >>platform return. All differences between versions
 * of mbedTLS are here. Resumption shows by the callbacks through which mbedTLS
 * fetches an old session; they fire inside the handshake of one channel, which
 * tls->current names meanwhile.
 * ======================================================================== */

#ifndef MOCK_OPENAI_NO_TLS

#define MKI_READ_AHEAD 4096 /* bytes; saves a recv() call a record */
#define MKI_SESSIONS   1000 /* kept for clients without tickets */

typedef struct mki_chan mki_chan;

typedef struct mki_tls {
    mbedtls_ssl_config conf;
    mbedtls_x509_crt cert;
    mbedtls_pk_context key;
    mbedtls_ssl_cache_context cache;
    mbedtls_ssl_ticket_context tickets;
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context rng;
#endif
    const char *alpn[2]; /* kept, not copied, by mbedTLS */
#if MBEDTLS_VERSION_NUMBER < 0x03010000
    mbedtls_ecp_group_id groups[4];
#else
    uint16_t groups[4];
#endif
    mki_chan *current;
    char *ca_pem;
} mki_tls;

struct mki_chan {
    int fd;
    bool handshaken, resumed, want_write;
    mbedtls_ssl_context *ssl; /* NULL: plain */
    size_t ahead_at, ahead_len;
    unsigned char *ahead;
};

#if MBEDTLS_VERSION_NUMBER >= 0x04000000
#define MKI_RNG(tls)
#else
#define MKI_RNG(tls) , mbedtls_ctr_drbg_random, &(tls)->rng
#endif

static bool mki_key_make(mki_tls *tls, mbedtls_pk_context *key)
{
#if MBEDTLS_VERSION_NUMBER >= 0x04000000
    psa_key_attributes_t attr = PSA_KEY_ATTRIBUTES_INIT;
    psa_key_id_t id;
    bool ok;

    (void)tls;
    psa_set_key_type(&attr, PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
    psa_set_key_bits(&attr, 256);
    psa_set_key_usage_flags(
        &attr, PSA_KEY_USAGE_SIGN_HASH | PSA_KEY_USAGE_SIGN_MESSAGE |
                   PSA_KEY_USAGE_EXPORT | PSA_KEY_USAGE_COPY);
    psa_set_key_algorithm(&attr, PSA_ALG_ECDSA(PSA_ALG_ANY_HASH));
    if (psa_generate_key(&attr, &id) != PSA_SUCCESS) {
        return false;
    }
    ok = mbedtls_pk_copy_from_psa(id, key) == 0;
    psa_destroy_key(id);
    return ok;
#else
    return mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)) ==
               0 &&
           mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key),
                               mbedtls_ctr_drbg_random, &tls->rng) == 0;
#endif
}

static bool mki_crt_serial(mbedtls_x509write_cert *crt, unsigned char number)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03040000
    unsigned char serial[9] = {0x4d, 0x6f, 0x63, 0x6b, 0, 0, 0, 0, 0};
    int64_t now = mki_os_unix_ms();
    int i;

    for (i = 0; i < 4; i++) {
        serial[4 + i] = (unsigned char)(now >> (8 * i));
    }
    serial[8] = number;
    return mbedtls_x509write_crt_set_serial_raw(crt, serial, sizeof serial) ==
           0;
#else
    mbedtls_mpi serial;
    bool ok;

    mbedtls_mpi_init(&serial);
    ok = mbedtls_mpi_lset(&serial, (int)(mki_os_unix_ms() & 0x3fffff)) == 0 &&
         mbedtls_mpi_mul_int(&serial, &serial, 256) == 0 &&
         mbedtls_mpi_add_int(&serial, &serial, number) == 0 &&
         mbedtls_x509write_crt_set_serial(crt, &serial) == 0;
    mbedtls_mpi_free(&serial);
    return ok;
#endif
}

/* YYYYMMDDhhmmss, days from now. */
static void mki_crt_date(int days, char out[15])
{
    time_t t = (time_t)(mki_os_unix_ms() / 1000 + (int64_t)days * 86400);
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(out, 15, "%Y%m%d%H%M%S", &tm);
}

/* The extension subjectAltName (RFC 5280, 4.2.1.6): the names of this machine
 * for itself, and those of the options. At most 900 bytes. */
static size_t mki_crt_names(const char *names, unsigned char out[1024])
{
    static const unsigned char own[] = {
        0x82, 9,   'l', 'o', 'c', 'a',  'l', 'h', 'o', 's', 't', 0x87,
        4,    127, 0,   0,   1,   0x87, 16,  0,   0,   0,   0,   0,
        0,    0,   0,   0,   0,   0,    0,   0,   0,   0,   1};
    size_t len = 4 + sizeof own;

    memcpy(out + 4, own, sizeof own);
    while (names != NULL && *names != '\0') {
        size_t n = strcspn(names, ",");

        if (n > 0 && n < 128 && len + n + 2 <= 900) {
            out[len++] = 0x82;
            out[len++] = (unsigned char)n;
            memcpy(out + len, names, n);
            len += n;
        }
        names += n + (names[n] == ',' ? 1 : 0);
    }
    out[0] = 0x30;
    out[1] = 0x82;
    out[2] = (unsigned char)((len - 4) >> 8);
    out[3] = (unsigned char)((len - 4) & 255);
    return len;
}

typedef struct mki_crt_want {
    mbedtls_pk_context *subject_key, *issuer_key;
    const char *subject;
    bool ca;
    const char *names;
} mki_crt_want;

/* Writes one certificate as PEM; out has room for 4096 bytes. */
static bool mki_crt_make(mki_tls *tls, const mki_crt_want *want, char *out)
{
    static const unsigned char eku[] = {0x30, 10, 0x06, 8, 0x2b, 6,
                                        1,    5,  5,    7, 3,    1};
    mbedtls_x509write_cert crt;
    unsigned char names[1024];
    char from[15];
    char to[15];
    bool ok;

    (void)tls;
    mki_crt_date(-1, from);
    mki_crt_date(want->ca ? 3650 : 365, to);
    mbedtls_x509write_crt_init(&crt);
    mbedtls_x509write_crt_set_version(&crt, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&crt, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&crt, want->subject_key);
    mbedtls_x509write_crt_set_issuer_key(&crt, want->issuer_key);
    ok = mbedtls_x509write_crt_set_subject_name(&crt, want->subject) == 0 &&
         mbedtls_x509write_crt_set_issuer_name(
             &crt, "CN=mock_openai test CA,O=mock_openai") == 0 &&
         mki_crt_serial(&crt, want->ca ? 1 : 2) &&
         mbedtls_x509write_crt_set_validity(&crt, from, to) == 0 &&
         mbedtls_x509write_crt_set_basic_constraints(&crt, want->ca ? 1 : 0,
                                                     want->ca ? 0 : -1) == 0 &&
         mbedtls_x509write_crt_set_key_usage(
             &crt,
             want->ca ? MBEDTLS_X509_KU_KEY_CERT_SIGN | MBEDTLS_X509_KU_CRL_SIGN
                      : MBEDTLS_X509_KU_DIGITAL_SIGNATURE) == 0;
#if defined(MBEDTLS_SHA1_C) || defined(PSA_WANT_ALG_SHA_1)
    ok = ok && mbedtls_x509write_crt_set_subject_key_identifier(&crt) == 0 &&
         mbedtls_x509write_crt_set_authority_key_identifier(&crt) == 0;
#endif
    if (ok && !want->ca) {
        size_t len = mki_crt_names(want->names, names);

        /* 2.5.29.17 subjectAltName, 2.5.29.37 extKeyUsage: serverAuth */
        ok = mbedtls_x509write_crt_set_extension(&crt, "\x55\x1d\x11", 3, 0,
                                                 names, len) == 0 &&
             mbedtls_x509write_crt_set_extension(&crt, "\x55\x1d\x25", 3, 0,
                                                 eku, sizeof eku) == 0;
    }
    ok = ok && mbedtls_x509write_crt_pem(&crt, (unsigned char *)out,
                                         4096 MKI_RNG(tls)) == 0;
    mbedtls_x509write_crt_free(&crt);
    return ok;
}

/* A CA that lives as long as the server, and a certificate signed by it. */
static bool mki_tls_own_cert(mki_tls *tls, const char *names)
{
    mbedtls_pk_context ca_key;
    mki_crt_want want;
    char pem[4096];
    bool ok;

    tls->ca_pem = (char *)malloc(4096);
    mbedtls_pk_init(&ca_key);
    want.subject_key = &ca_key;
    want.issuer_key = &ca_key;
    want.subject = "CN=mock_openai test CA,O=mock_openai";
    want.ca = true;
    want.names = names;
    ok = tls->ca_pem != NULL && mki_key_make(tls, &ca_key) &&
         mki_key_make(tls, &tls->key) && mki_crt_make(tls, &want, tls->ca_pem);
    want.subject_key = &tls->key;
    want.subject = "CN=localhost,O=mock_openai";
    want.ca = false;
    ok = ok && mki_crt_make(tls, &want, pem) &&
         mbedtls_x509_crt_parse(&tls->cert, (const unsigned char *)pem,
                                strlen(pem) + 1) == 0;
    mbedtls_pk_free(&ca_key);
    return ok;
}

static bool mki_tls_load_cert(mki_tls *tls, const char *cert, const char *key)
{
    size_t cert_len = 0;
    size_t key_len = 0;
    char *cert_pem = mki_file_read(cert, &cert_len);
    char *key_pem = mki_file_read(key, &key_len);
    bool ok =
        cert_pem != NULL && key_pem != NULL &&
        mbedtls_x509_crt_parse(&tls->cert, (const unsigned char *)cert_pem,
                               cert_len + 1) == 0;

#if MBEDTLS_VERSION_NUMBER >= 0x03000000 && MBEDTLS_VERSION_NUMBER < 0x04000000
    ok = ok && mbedtls_pk_parse_key(&tls->key, (const unsigned char *)key_pem,
                                    key_len + 1, NULL, 0 MKI_RNG(tls)) == 0;
#else
    ok = ok && mbedtls_pk_parse_key(&tls->key, (const unsigned char *)key_pem,
                                    key_len + 1, NULL, 0) == 0;
#endif
    free(cert_pem);
    free(key_pem);
    return ok;
}

#if MBEDTLS_VERSION_NUMBER >= 0x03000000
static int mki_cache_get(void *ctx, const unsigned char *id, size_t id_len,
                         mbedtls_ssl_session *session)
{
    mki_tls *tls = (mki_tls *)ctx;
    int rc = mbedtls_ssl_cache_get(&tls->cache, id, id_len, session);

    if (rc == 0 && tls->current != NULL) {
        tls->current->resumed = true;
    }
    return rc;
}

static int mki_cache_set(void *ctx, const unsigned char *id, size_t id_len,
                         const mbedtls_ssl_session *session)
{
    return mbedtls_ssl_cache_set(&((mki_tls *)ctx)->cache, id, id_len, session);
}
#else
static int mki_cache_get(void *ctx, mbedtls_ssl_session *session)
{
    mki_tls *tls = (mki_tls *)ctx;
    int rc = mbedtls_ssl_cache_get(&tls->cache, session);

    if (rc == 0 && tls->current != NULL) {
        tls->current->resumed = true;
    }
    return rc;
}

static int mki_cache_set(void *ctx, const mbedtls_ssl_session *session)
{
    return mbedtls_ssl_cache_set(&((mki_tls *)ctx)->cache, session);
}
#endif

static int mki_ticket_write(void *ctx, const mbedtls_ssl_session *session,
                            unsigned char *start, const unsigned char *end,
                            size_t *len, uint32_t *lifetime)
{
    return mbedtls_ssl_ticket_write(&((mki_tls *)ctx)->tickets, session, start,
                                    end, len, lifetime);
}

static int mki_ticket_parse(void *ctx, mbedtls_ssl_session *session,
                            unsigned char *buf, size_t len)
{
    mki_tls *tls = (mki_tls *)ctx;
    int rc = mbedtls_ssl_ticket_parse(&tls->tickets, session, buf, len);

    if (rc == 0 && tls->current != NULL) {
        tls->current->resumed = true;
    }
    return rc;
}

static bool mki_tls_configure(mki_tls *tls)
{
    mbedtls_ssl_config *conf = &tls->conf;

    tls->alpn[0] = "http/1.1";
    if (mbedtls_ssl_config_defaults(conf, MBEDTLS_SSL_IS_SERVER,
                                    MBEDTLS_SSL_TRANSPORT_STREAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT) != 0) {
        return false;
    }
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_ssl_conf_rng(conf, mbedtls_ctr_drbg_random, &tls->rng);
#endif
#if MBEDTLS_VERSION_NUMBER < 0x03020000
    mbedtls_ssl_conf_min_version(conf, MBEDTLS_SSL_MAJOR_VERSION_3,
                                 MBEDTLS_SSL_MINOR_VERSION_3);
#else
    mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
#endif
    /* The default of 2.28 begins with secp521r1, five times as slow. */
#if MBEDTLS_VERSION_NUMBER < 0x03010000
    tls->groups[0] = MBEDTLS_ECP_DP_SECP256R1;
    tls->groups[1] = MBEDTLS_ECP_DP_CURVE25519;
    tls->groups[2] = MBEDTLS_ECP_DP_SECP384R1;
    tls->groups[3] = MBEDTLS_ECP_DP_NONE;
    mbedtls_ssl_conf_curves(conf, tls->groups);
#else
    tls->groups[0] = MBEDTLS_SSL_IANA_TLS_GROUP_X25519;
    tls->groups[1] = MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1;
    tls->groups[2] = MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1;
    tls->groups[3] = MBEDTLS_SSL_IANA_TLS_GROUP_NONE;
    mbedtls_ssl_conf_groups(conf, tls->groups);
#endif
#ifdef MBEDTLS_SSL_ALPN
    if (mbedtls_ssl_conf_alpn_protocols(conf, tls->alpn) != 0) {
        return false;
    }
#endif
    mbedtls_ssl_cache_set_max_entries(&tls->cache, MKI_SESSIONS);
    mbedtls_ssl_conf_session_cache(conf, tls, mki_cache_get, mki_cache_set);
#ifdef MBEDTLS_SSL_SESSION_TICKETS
#if MBEDTLS_VERSION_NUMBER >= 0x04000000
    if (mbedtls_ssl_ticket_setup(&tls->tickets, PSA_ALG_GCM, PSA_KEY_TYPE_AES,
                                 256, 86400) != 0) {
        return false;
    }
#else
    if (mbedtls_ssl_ticket_setup(&tls->tickets, mbedtls_ctr_drbg_random,
                                 &tls->rng, MBEDTLS_CIPHER_AES_256_GCM,
                                 86400) != 0) {
        return false;
    }
#endif
    mbedtls_ssl_conf_session_tickets_cb(conf, mki_ticket_write,
                                        mki_ticket_parse, tls);
#endif
    return mbedtls_ssl_conf_own_cert(conf, &tls->cert, &tls->key) == 0;
}

static void mki_tls_free(mki_tls *tls)
{
    if (tls == NULL) {
        return;
    }
    mbedtls_ssl_ticket_free(&tls->tickets);
    mbedtls_ssl_cache_free(&tls->cache);
    mbedtls_ssl_config_free(&tls->conf);
    mbedtls_x509_crt_free(&tls->cert);
    mbedtls_pk_free(&tls->key);
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_ctr_drbg_free(&tls->rng);
    mbedtls_entropy_free(&tls->entropy);
#endif
    free(tls->ca_pem);
    free(tls);
}

/* NULL and err on failure. */
static mki_tls *mki_tls_new(const mock_options *opt, char *err, size_t cap)
{
    mki_tls *tls = (mki_tls *)calloc(1, sizeof *tls);
    bool ok = tls != NULL;

    if (!ok) {
        mki_err(err, cap, "out of memory", "");
        return NULL;
    }
    mbedtls_ssl_config_init(&tls->conf);
    mbedtls_x509_crt_init(&tls->cert);
    mbedtls_pk_init(&tls->key);
    mbedtls_ssl_cache_init(&tls->cache);
    mbedtls_ssl_ticket_init(&tls->tickets);
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_entropy_init(&tls->entropy);
    mbedtls_ctr_drbg_init(&tls->rng);
    ok = mbedtls_ctr_drbg_seed(&tls->rng, mbedtls_entropy_func, &tls->entropy,
                               (const unsigned char *)"mock_openai", 11) == 0;
#endif
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    ok = ok && psa_crypto_init() == PSA_SUCCESS;
#endif
    if (!ok) {
        mki_err(err, cap, "tls: no random numbers", "");
    } else if (opt->cert_file != NULL &&
               !mki_tls_load_cert(tls, opt->cert_file, opt->key_file)) {
        ok = false;
        mki_err(err, cap, "tls: cannot use certificate %s and its key",
                opt->cert_file);
    } else if (opt->cert_file == NULL && !mki_tls_own_cert(tls, opt->names)) {
        ok = false;
        mki_err(err, cap, "tls: cannot make a certificate", "");
    } else if (!mki_tls_configure(tls)) {
        ok = false;
        mki_err(err, cap, "tls: configuration refused by mbedTLS", "");
    }
    if (!ok) {
        mki_tls_free(tls);
        return NULL;
    }
    return tls;
}

static int mki_bio_send(void *ctx, const unsigned char *data, size_t len)
{
    int64_t n = mki_sock_send(((mki_chan *)ctx)->fd, data, len);

    return n >= 0    ? (int)n
           : n == -1 ? MBEDTLS_ERR_SSL_WANT_WRITE
                     : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

static int mki_bio_recv(void *ctx, unsigned char *data, size_t len)
{
    mki_chan *c = (mki_chan *)ctx;
    int64_t n;

    if (c->ahead_at == c->ahead_len) {
        n = mki_sock_recv(c->fd, c->ahead, MKI_READ_AHEAD);
        if (n <= 0) {
            return n == 0    ? 0
                   : n == -1 ? MBEDTLS_ERR_SSL_WANT_READ
                             : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
        }
        c->ahead_at = 0;
        c->ahead_len = (size_t)n;
    }
    if (len > c->ahead_len - c->ahead_at) {
        len = c->ahead_len - c->ahead_at;
    }
    memcpy(data, c->ahead + c->ahead_at, len);
    c->ahead_at += len;
    return (int)len;
}

static bool mki_chan_open(mki_chan *c, mki_tls *tls, int fd)
{
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->handshaken = tls == NULL;
    if (tls == NULL) {
        return true;
    }
    c->ahead = (unsigned char *)malloc(MKI_READ_AHEAD);
    c->ssl = (mbedtls_ssl_context *)malloc(sizeof *c->ssl);
    if (c->ssl == NULL || c->ahead == NULL) {
        free(c->ssl);
        free(c->ahead);
        c->ssl = NULL;
        c->ahead = NULL;
        return false;
    }
    mbedtls_ssl_init(c->ssl);
    if (mbedtls_ssl_setup(c->ssl, &tls->conf) != 0) {
        return false;
    }
    mbedtls_ssl_set_bio(c->ssl, c, mki_bio_send, mki_bio_recv, NULL);
    return true;
}

static int64_t mki_chan_code(mki_chan *c, int rc)
{
    c->want_write = rc == MBEDTLS_ERR_SSL_WANT_WRITE;
    return rc == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE
               ? -1
               : -2;
}

/* 1: done; -1: later; -2: failed. */
static int64_t mki_chan_handshake(mki_chan *c, mki_tls *tls)
{
    int rc;

    tls->current = c;
    rc = mbedtls_ssl_handshake(c->ssl);
    tls->current = NULL;
    if (rc != 0) {
        return mki_chan_code(c, rc);
    }
    c->handshaken = true;
    c->want_write = false;
    return 1;
}

static int64_t mki_chan_recv(mki_chan *c, void *data, size_t cap)
{
    int rc;

    if (c->ssl == NULL) {
        return mki_sock_recv(c->fd, data, cap);
    }
    rc = mbedtls_ssl_read(c->ssl, (unsigned char *)data, cap);
    if (rc >= 0) {
        return rc;
    }
    return rc == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY ? 0 : mki_chan_code(c, rc);
}

static int64_t mki_chan_send(mki_chan *c, const void *data, size_t len)
{
    int rc;

    if (c->ssl == NULL) {
        return mki_sock_send(c->fd, data, len);
    }
    rc = mbedtls_ssl_write(c->ssl, (const unsigned char *)data, len);
    return rc >= 0 ? rc : mki_chan_code(c, rc);
}

static void mki_chan_close(mki_chan *c, bool notify, bool reset)
{
    if (c->ssl != NULL) {
        if (notify && c->handshaken) {
            mbedtls_ssl_close_notify(c->ssl);
        }
        mbedtls_ssl_free(c->ssl);
        free(c->ssl);
    }
    free(c->ahead);
    mki_sock_close(c->fd, reset);
}

static const char *mki_tls_ca(const mki_tls *tls)
{
    return tls != NULL ? tls->ca_pem : NULL;
}

#else /* MOCK_OPENAI_NO_TLS */

typedef struct mki_tls {
    int unused;
} mki_tls;

typedef struct mki_chan {
    int fd;
    bool handshaken, resumed, want_write;
} mki_chan;

static mki_tls *mki_tls_new(const mock_options *opt, char *err, size_t cap)
{
    (void)opt;
    mki_err(err, cap, "tls: this build has none (MOCK_OPENAI_NO_TLS)", "");
    return NULL;
}

static void mki_tls_free(mki_tls *tls)
{
    (void)tls;
}

static bool mki_chan_open(mki_chan *c, mki_tls *tls, int fd)
{
    (void)tls;
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->handshaken = true;
    return true;
}

static int64_t mki_chan_handshake(mki_chan *c, mki_tls *tls)
{
    (void)c;
    (void)tls;
    return 1;
}

static int64_t mki_chan_recv(mki_chan *c, void *data, size_t cap)
{
    return mki_sock_recv(c->fd, data, cap);
}

static int64_t mki_chan_send(mki_chan *c, const void *data, size_t len)
{
    return mki_sock_send(c->fd, data, len);
}

static void mki_chan_close(mki_chan *c, bool notify, bool reset)
{
    (void)notify;
    mki_sock_close(c->fd, reset);
}

static const char *mki_tls_ca(const mki_tls *tls)
{
    (void)tls;
    return NULL;
}

#endif /* MOCK_OPENAI_NO_TLS */

/* ===========================================================================
 * >>http       request parser, response head
 * calls: >>bytes
 *
 * Strict where leniency would hide a mistake of the client: CRLF only, no
 * folded lines, one Host, one framing. The head is parsed twice: when it is
 * complete, to learn the length of the body, and with the body, for its views
 * into the buffer, which may have moved. The body of a chunked request is
 * joined in place.
 * ======================================================================== */

#define MKI_HEAD_MAX    65536
#define MKI_HEADERS_MAX 100
#define MKI_UPLOAD_MAX  ((size_t)1 << 30) /* larger ones are not even read */

typedef struct mki_field {
    mki_str name, value;
} mki_field;

typedef struct mki_request {
    mki_str method, target, path, query;
    int minor; /* HTTP/1.minor */
    size_t n;
    mki_field fields[MKI_HEADERS_MAX];
    mki_str body;
} mki_request;

/* What the connection remembers while a request comes in. */
typedef struct mki_incoming {
    size_t scanned;  /* no end of head before here */
    size_t head_len; /* 0: not complete yet */
    size_t body_len; /* Content-Length, or joined so far if chunked */
    size_t raw;      /* chunked: next byte to look at */
    size_t chunk_left;
    bool chunked, in_trailer, after_data, expects;
    bool upload;     /* its body does not stay in the buffer */
    size_t streamed; /* bytes of it that are gone */
    int refuse;      /* status instead of an answer; then the connection ends */
} mki_incoming;

static mki_str mki_header(const mki_request *q, const char *name)
{
    size_t i;

    for (i = 0; i < q->n; i++) {
        if (mki_ieq(q->fields[i].name, name)) {
            return q->fields[i].value;
        }
    }
    return mki_s(NULL, 0);
}

static bool mki_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool mki_token(mki_str s)
{
    size_t i;

    for (i = 0; i < s.len; i++) {
        if (!mki_token_char(s.ptr[i])) {
            return false;
        }
    }
    return s.len > 0;
}

/* METHOD SP target SP HTTP/1.x; 0 or the status that refuses it. */
static int mki_request_line(mki_request *q, mki_str line)
{
    size_t a = mki_find(line, mki_sc(" "), 0);
    size_t b = a == SIZE_MAX ? a : mki_find(line, mki_sc(" "), a + 1);
    size_t i;

    if (b == SIZE_MAX) {
        return 400;
    }
    q->method = mki_s(line.ptr, a);
    q->target = mki_s(line.ptr + a + 1, b - a - 1);
    line = mki_s(line.ptr + b + 1, line.len - b - 1);
    if (!mki_token(q->method) || q->target.len == 0 ||
        !mki_starts(line, "HTTP/")) {
        return 400;
    }
    if (!mki_eq(line, "HTTP/1.1") && !mki_eq(line, "HTTP/1.0")) {
        return 505;
    }
    q->minor = line.ptr[7] - '0';
    for (i = 0; i < q->target.len; i++) {
        if ((unsigned char)q->target.ptr[i] <= 0x20 ||
            (unsigned char)q->target.ptr[i] >= 0x7f) {
            return 400;
        }
    }
    q->path = q->target;
    if (mki_starts(q->path, "http://") || mki_starts(q->path, "https://")) {
        i = mki_find(q->path, mki_sc("/"), 8); /* absolute form: a proxy */
        q->path = i == SIZE_MAX ? mki_sc("/")
                                : mki_s(q->path.ptr + i, q->path.len - i);
    }
    if (q->path.ptr[0] != '/') {
        return 400;
    }
    i = mki_find(q->path, mki_sc("?"), 0);
    if (i != SIZE_MAX) {
        q->query = mki_s(q->path.ptr + i + 1, q->path.len - i - 1);
        q->path.len = i;
    }
    return 0;
}

static int mki_request_field(mki_request *q, mki_str line)
{
    size_t colon = mki_find(line, mki_sc(":"), 0);
    mki_field *f = &q->fields[q->n];
    size_t i;

    if (colon == SIZE_MAX || !mki_token(mki_s(line.ptr, colon))) {
        return 400; /* also a folded line */
    }
    if (q->n == MKI_HEADERS_MAX) {
        return 431;
    }
    f->name = mki_s(line.ptr, colon);
    f->value = mki_trim(mki_s(line.ptr + colon + 1, line.len - colon - 1));
    for (i = 0; i < f->value.len; i++) {
        unsigned char c = (unsigned char)f->value.ptr[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return 400;
        }
    }
    q->n++;
    return 0;
}

/* Parses a complete head; 0, or the status that refuses it. */
static int mki_request_head(mki_request *q, mki_str head)
{
    size_t hosts = 0;
    size_t from = 0;
    size_t i;
    int rc = 0;

    q->n = 0;
    q->query = mki_s("", 0);
    q->body = mki_s("", 0);
    for (i = 0; rc == 0 && from + 2 < head.len; i++) {
        size_t end = mki_find(head, mki_sc("\r\n"), from);
        mki_str line = mki_s(head.ptr + from, end - from);

        rc = i == 0 ? mki_request_line(q, line) : mki_request_field(q, line);
        from = end + 2;
    }
    for (i = 0; rc == 0 && i < q->n; i++) {
        hosts += mki_ieq(q->fields[i].name, "host") ? 1 : 0;
    }
    return rc != 0 ? rc : hosts > 1 || (hosts == 0 && q->minor > 0) ? 400 : 0;
}

/* POST .../files: a body that may be large. */
static bool mki_is_upload(const mki_request *q)
{
    return mki_eq(q->method, "POST") && q->path.len >= 9 &&
           (mki_eq(q->path, "/v1/files") || mki_eq(q->path, "/openai/files") ||
            mki_eq(q->path, "/openai/v1/files"));
}

/* Decides the framing of the body (RFC 9112, 6.3); 0 or a refusal. */
static int mki_incoming_frame(mki_incoming *in, const mki_request *q,
                              size_t max_body)
{
    bool has_length = false;
    uint64_t length = 0;
    size_t i;

    for (i = 0; i < q->n; i++) {
        uint64_t v;

        if (mki_ieq(q->fields[i].name, "transfer-encoding")) {
            if (!mki_ieq(q->fields[i].value, "chunked") || in->chunked) {
                return 501;
            }
            in->chunked = true;
        } else if (mki_ieq(q->fields[i].name, "content-length")) {
            if (!mki_u64(q->fields[i].value, &v) ||
                (has_length && v != length)) {
                return 400;
            }
            has_length = true;
            length = v;
        }
    }
    if (in->chunked && (has_length || q->minor == 0)) {
        return 400;
    }
    in->expects = mki_ieq(mki_header(q, "expect"), "100-continue");
    in->upload = mki_is_upload(q);
    if (length > (in->upload ? MKI_UPLOAD_MAX : max_body)) {
        return 413;
    }
    in->body_len = (size_t)length;
    return 0;
}

/* One step of joining a chunked body: true when there may be more to do. */
static bool mki_incoming_chunk(mki_incoming *in, mki_buf *b, size_t max_body)
{
    mki_str rest = mki_s(b->data + in->raw, b->len - in->raw);
    size_t end, i;
    uint64_t size = 0;

    if (in->chunk_left > 0) {
        size_t n = in->chunk_left < rest.len ? in->chunk_left : rest.len;

        memmove(b->data + in->head_len + in->body_len, rest.ptr, n);
        in->body_len += n;
        in->raw += n;
        in->chunk_left -= n;
        in->after_data = true;
        return n > 0 && in->chunk_left == 0;
    }
    end = mki_find(rest, mki_sc("\r\n"), 0);
    if (end == SIZE_MAX) {
        in->refuse = rest.len > 4096 ? 400 : 0;
        return false;
    }
    in->raw += end + 2;
    if (in->in_trailer) {
        in->chunked = end > 0;
        return end > 0;
    }
    if (in->after_data) {
        in->after_data = false; /* the CRLF behind a chunk's data */
        in->refuse = end > 0 ? 400 : 0;
        return end == 0;
    }
    for (i = 0; i < end && rest.ptr[i] != ';' && rest.ptr[i] != ' '; i++) {
        int32_t digit = mki_lower(rest.ptr[i]);

        digit = digit >= '0' && digit <= '9'   ? digit - '0'
                : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                                               : -1;
        if (digit < 0 || i >= 15) {
            in->refuse = 400;
            return false;
        }
        size = size * 16 + (uint64_t)digit;
    }
    if (i == 0) {
        in->refuse = 400;
        return false;
    }
    if (size > max_body - in->body_len) {
        in->refuse = 413;
        return false;
    }
    in->in_trailer = size == 0;
    in->chunk_left = (size_t)size;
    return true;
}

/* Looks at the buffer: 1 a request is complete (and q filled in), 0 more is
 * needed, -1 it is refused with in->refuse. *used: the bytes it occupies. */
static int mki_incoming_next(mki_incoming *in, mki_buf *b, size_t max_body,
                             mki_request *q, size_t *used)
{
    if (in->head_len == 0) {
        size_t from = in->scanned > 3 ? in->scanned - 3 : 0;
        size_t end;

        while (b->len >= 2 && from == 0 && memcmp(b->data, "\r\n", 2) == 0) {
            mki_buf_drop(b, 2); /* RFC 9112, 2.2: empty lines before */
        }
        end = mki_find(mki_buf_str(b), mki_sc("\r\n\r\n"), from);
        if (end == SIZE_MAX) {
            in->scanned = b->len;
            in->refuse = b->len > MKI_HEAD_MAX ? 431 : 0;
            if (b->len > 0 && in->refuse == 0 &&
                memchr(b->data, '\0', b->len) != NULL) {
                in->refuse = 400;
            }
            return in->refuse != 0 ? -1 : 0;
        }
        in->head_len = end + 4;
        in->refuse = mki_request_head(q, mki_s(b->data, in->head_len));
        if (in->refuse == 0) {
            in->refuse = mki_incoming_frame(in, q, max_body);
        }
        in->raw = in->head_len;
    }
    *used = in->raw;
    if (in->refuse == 0 && in->upload) {
        return 0; /* see mki_incoming_stream */
    }
    if (in->refuse == 0 && in->chunked) {
        while (in->refuse == 0 && in->chunked &&
               mki_incoming_chunk(in, b, max_body)) {
        }
        *used = in->raw;
        if (in->refuse == 0 && in->chunked) {
            return 0;
        }
    } else if (in->refuse == 0 && *used == in->head_len) {
        *used = in->head_len + in->body_len;
    }
    if (in->refuse != 0) {
        return -1;
    }
    if (b->len < *used) {
        return 0;
    }
    mki_request_head(q, mki_s(b->data, in->head_len));
    q->body = mki_s(b->data + in->head_len, in->body_len);
    return 1;
}

/* Hands the body of an upload to fn as it comes, and takes it out of the
 * buffer. Returns as mki_incoming_next; -2: fn has had enough. */
static int mki_incoming_stream(mki_incoming *in, mki_buf *b,
                               bool (*fn)(void *, const char *, size_t),
                               void *ctx)
{
    size_t n, from;

    while (in->chunked && in->refuse == 0 &&
           mki_incoming_chunk(in, b, MKI_UPLOAD_MAX - in->streamed)) {
    }
    if (in->refuse != 0) {
        return -1;
    }
    n = in->body_len;
    from = in->raw;
    if (in->raw == in->head_len) { /* not chunked, or no chunk has come */
        n = b->len - in->head_len < n ? b->len - in->head_len : n;
        from = in->head_len + n;
    }
    in->streamed += n;
    in->body_len -= n;
    if (n > 0 && !fn(ctx, b->data + in->head_len, n)) {
        return -2;
    }
    memmove(b->data + in->head_len, b->data + from, b->len - from);
    b->len -= from - in->head_len;
    in->raw = in->head_len;
    return in->body_len == 0 && !in->chunked ? 1 : 0;
}

static const char *mki_reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } table[] = {{200, "OK"},
                 {302, "Found"},
                 {307, "Temporary Redirect"},
                 {400, "Bad Request"},
                 {401, "Unauthorized"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {408, "Request Timeout"},
                 {409, "Conflict"},
                 {413, "Payload Too Large"},
                 {415, "Unsupported Media Type"},
                 {422, "Unprocessable Entity"},
                 {429, "Too Many Requests"},
                 {431, "Request Header Fields Too Large"},
                 {500, "Internal Server Error"},
                 {501, "Not Implemented"},
                 {502, "Bad Gateway"},
                 {503, "Service Unavailable"},
                 {504, "Gateway Timeout"},
                 {505, "HTTP Version Not Supported"}};
    size_t i;

    for (i = 0; i < MKI_COUNT(table); i++) {
        if (table[i].status == status) {
            return table[i].text;
        }
    }
    return "Unknown";
}

/* "Tue, 24 Nov 2026 05:38:00 GMT", by hand: strftime follows the locale. */
static void mki_http_date(mki_buf *b, int64_t unix_ms)
{
    static const char names[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t t = (time_t)(unix_ms / 1000);
    struct tm tm;

    gmtime_r(&t, &tm);
    mki_buf_f(b, "%.3s, %02d %.3s %d %02d:%02d:%02d GMT",
              names + 3 * tm.tm_wday, tm.tm_mday, months + 3 * tm.tm_mon,
              tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* A Go duration as the API writes it: 12ms, 8.64s, 6m0s, 1h0m0s. */
static void mki_duration(mki_buf *b, int64_t ms)
{
    int64_t s = ms / 1000;
    int64_t frac = ms % 1000;

    if (ms < 1000) {
        mki_buf_i64(b, ms);
        mki_buf_s(b, ms == 0 ? "s" : "ms");
        return;
    }
    if (s >= 3600) {
        mki_buf_i64(b, s / 3600);
        mki_buf_c(b, 'h');
    }
    if (s >= 60) {
        mki_buf_i64(b, s / 60 % 60);
        mki_buf_c(b, 'm');
    }
    mki_buf_i64(b, s % 60);
    if (frac > 0) {
        mki_buf_f(b, ".%03d", (int)frac);
        while (b->len > 0 && b->data[b->len - 1] == '0') {
            b->len--;
        }
    }
    mki_buf_c(b, 's');
}

/* ===========================================================================
 * >>multipart  form uploads, as they come
 * calls: >>bytes >>http
 *
 * RFC 2046 and 7578 over pieces of any size: what cannot be decided yet waits
 * in a buffer that never holds more than a delimiter, a part's headers or the
 * value of a text field. The bytes of the file part go to a function. A line
 * that only begins like the delimiter is data.
 * ======================================================================== */

#define MKI_PART_HEAD_MAX  16384 /* bytes of headers of one part */
#define MKI_PART_VALUE_MAX 1024  /* bytes of a text field */
#define MKI_PARTS_MAX      100
#define MKI_PADDING_MAX    256 /* blanks behind a delimiter */

typedef enum mki_form_state {
    MKI_FORM_PREAMBLE,
    MKI_FORM_HEADERS,
    MKI_FORM_DATA,
    MKI_FORM_END, /* the epilogue is ignored */
    MKI_FORM_BAD
} mki_form_state;

typedef struct mki_form {
    mki_form_state state;
    char delimiter[80]; /* CR LF -- boundary */
    mki_buf hold;
    size_t lead; /* bytes at the start of hold that are no data */
    int parts;
    /* of the part being read */
    char name[64];
    bool is_file, too_long;
    mki_buf value;
    /* of the form */
    char purpose[64], anchor[64], seconds[64];
    bool has_purpose, has_file, has_anchor, has_seconds;
    char filename[256];
    bool (*sink)(void *ctx, const char *data, size_t len);
    void *ctx;
    bool sink_failed;
} mki_form;

/* The value of a parameter of a header ("; name=value"), unquoted into out;
 * false: it has none. Names in any case. */
static bool mki_header_param(mki_str s, const char *name, char *out, size_t cap)
{
    size_t i = 0;

    while (i < s.len && s.ptr[i] != ';') {
        i++;
    }
    while (i < s.len) {
        size_t from, n = 0;
        bool wanted, quoted;

        i++; /* the semicolon */
        while (i < s.len && (s.ptr[i] == ' ' || s.ptr[i] == '\t')) {
            i++;
        }
        from = i;
        while (i < s.len && s.ptr[i] != '=' && s.ptr[i] != ';') {
            i++;
        }
        wanted = mki_ieq(mki_trim(mki_s(s.ptr + from, i - from)), name) &&
                 i < s.len && s.ptr[i] == '=';
        i += i < s.len && s.ptr[i] == '=' ? 1 : 0;
        quoted = i < s.len && s.ptr[i] == '"';
        i += quoted ? 1 : 0;
        while (i < s.len && s.ptr[i] != (quoted ? '"' : ';')) {
            if (quoted && s.ptr[i] == '\\' && i + 1 < s.len &&
                (s.ptr[i + 1] == '"' || s.ptr[i + 1] == '\\')) {
                i++;
            }
            if (wanted && n + 1 < cap) {
                out[n++] = s.ptr[i];
            }
            i++;
        }
        if (wanted) {
            while (!quoted && n > 0 && out[n - 1] == ' ') {
                n--;
            }
            out[n] = '\0';
            return !quoted || i < s.len;
        }
        while (i < s.len && s.ptr[i] != ';') {
            i++;
        }
    }
    return false;
}

/* %22 and the like in a name, as browsers write them. */
static void mki_percent(char *text)
{
    static const char *const codes[] = {"%22\"", "%0D\r", "%0A\n", "%0d\r",
                                        "%0a\n"};
    char *out = text;
    size_t k;

    for (; *text != '\0'; text++) {
        char c = *text;

        for (k = 0; k < MKI_COUNT(codes); k++) {
            if (strncmp(text, codes[k], 3) == 0) {
                c = codes[k][3];
                text += 2;
                break;
            }
        }
        *out++ = c;
    }
    *out = '\0';
}

/* false: the content type is not a form with a boundary. */
static bool mki_form_init(mki_form *f, mki_str type)
{
    size_t n = mki_find(type, mki_sc(";"), 0);
    size_t i;

    memset(f, 0, sizeof *f);
    memcpy(f->delimiter, "\r\n--", 5);
    if (n == SIZE_MAX ||
        !mki_ieq(mki_trim(mki_s(type.ptr, n)), "multipart/form-data") ||
        !mki_header_param(type, "boundary", f->delimiter + 4, 72)) {
        return false;
    }
    n = strlen(f->delimiter + 4);
    for (i = 0; i < n; i++) {
        if ((unsigned char)f->delimiter[4 + i] < 0x20) {
            return false;
        }
    }
    if (n == 0 || n > 70 || f->delimiter[3 + n] == ' ') {
        return false;
    }
    mki_buf_s(&f->hold, "\r\n"); /* the first delimiter may lack it */
    return true;
}

static void mki_form_free(mki_form *f)
{
    mki_buf_free(&f->hold);
    mki_buf_free(&f->value);
}

static bool mki_form_bad(mki_form *f)
{
    f->state = MKI_FORM_BAD;
    f->hold.len = 0;
    return false;
}

/* Data of the part that is being read. */
static void mki_form_data(mki_form *f, const char *data, size_t len)
{
    if (f->state != MKI_FORM_DATA) {
        return;
    }
    if (f->is_file) {
        f->sink_failed = f->sink_failed || !f->sink(f->ctx, data, len);
    } else if (len > MKI_PART_VALUE_MAX - f->value.len) {
        f->too_long = true;
    } else {
        mki_buf_add(&f->value, data, len);
    }
}

/* A text field is complete. */
static void mki_form_field(mki_form *f)
{
    static const char *const names[] = {"purpose", "expires_after[anchor]",
                                        "expires_after[seconds]"};
    char *values[3];
    bool *has[3];
    size_t i;

    values[0] = f->purpose;
    values[1] = f->anchor;
    values[2] = f->seconds;
    has[0] = &f->has_purpose;
    has[1] = &f->has_anchor;
    has[2] = &f->has_seconds;
    for (i = 0; i < 3 && !f->is_file; i++) {
        if (strcmp(f->name, names[i]) == 0) {
            *has[i] = true;
            mki_copy(values[i], 64,
                     f->too_long ? mki_sc("(too long)")
                                 : mki_buf_str(&f->value));
        }
    }
}

/* One header line of a part. */
static bool mki_form_header(mki_form *f, mki_str line, bool *named)
{
    size_t colon = mki_find(line, mki_sc(":"), 0);
    mki_str value;
    char filename[256];
    size_t semi;

    if (colon == SIZE_MAX || !mki_token(mki_s(line.ptr, colon)) ||
        memchr(line.ptr, '\0', line.len) != NULL) {
        return false;
    }
    if (!mki_ieq(mki_s(line.ptr, colon), "content-disposition")) {
        return true;
    }
    value = mki_trim(mki_s(line.ptr + colon + 1, line.len - colon - 1));
    semi = mki_find(value, mki_sc(";"), 0);
    if (*named || semi == SIZE_MAX ||
        !mki_ieq(mki_trim(mki_s(value.ptr, semi)), "form-data") ||
        !mki_header_param(value, "name", f->name, sizeof f->name)) {
        return false;
    }
    *named = true;
    if (strcmp(f->name, "file") == 0 &&
        mki_header_param(value, "filename", filename, sizeof filename)) {
        if (f->has_file) {
            return false;
        }
        mki_percent(filename);
        memcpy(f->filename, filename, sizeof filename);
        f->has_file = true;
        f->is_file = true;
    }
    return true;
}

/* The headers of a part, if they are all there: true, and go on. */
static bool mki_form_headers(mki_form *f)
{
    mki_str h = mki_buf_str(&f->hold);
    bool named = false;
    size_t from = 0;

    if (h.len >= 2 && memcmp(h.ptr, "\r\n", 2) == 0) {
        return mki_form_bad(f); /* no headers: no name */
    }
    if (mki_find(h, mki_sc("\r\n\r\n"), 0) == SIZE_MAX) {
        return h.len > MKI_PART_HEAD_MAX ? mki_form_bad(f) : false;
    }
    f->is_file = false;
    f->too_long = false;
    f->value.len = 0;
    for (;;) {
        size_t end = mki_find(h, mki_sc("\r\n"), from);

        if (end == from) {
            break;
        }
        if (!mki_form_header(f, mki_s(h.ptr + from, end - from), &named)) {
            return mki_form_bad(f);
        }
        from = end + 2;
    }
    if (!named || ++f->parts > MKI_PARTS_MAX) {
        return mki_form_bad(f);
    }
    /* The empty line stays: data that begins with a delimiter is empty. */
    mki_buf_drop(&f->hold, from);
    f->lead = 2;
    f->state = MKI_FORM_DATA;
    return true;
}

/* What follows a delimiter: 1 a part, 2 the end, 0 more is needed, -1 it is no
 * delimiter. *used: with what belongs to it. */
static int mki_form_tail(mki_str rest, size_t *used)
{
    size_t i = 0;

    if (rest.len >= 1 && rest.ptr[0] == '-') {
        return rest.len < 2 ? 0 : rest.ptr[1] == '-' ? 2 : -1;
    }
    while (i < rest.len && i < MKI_PADDING_MAX &&
           (rest.ptr[i] == ' ' || rest.ptr[i] == '\t')) {
        i++;
    }
    if (i + 2 <= rest.len) {
        *used = i + 2;
        return rest.ptr[i] == '\r' && rest.ptr[i + 1] == '\n' ? 1 : -1;
    }
    return i == rest.len || rest.ptr[i] == '\r' ? 0 : -1;
}

/* Passes data on up to the next delimiter; true: there is more to do. */
static bool mki_form_part(mki_form *f)
{
    mki_str h = mki_buf_str(&f->hold);
    size_t n = strlen(f->delimiter);
    size_t from = 0;
    size_t used = 0;

    for (;;) {
        size_t at = mki_find(h, mki_s(f->delimiter, n), from);
        size_t keep = h.len < n - 1 ? h.len : n - 1;
        int next;

        if (at == SIZE_MAX) { /* its beginning may be here already */
            while (keep > 0 &&
                   memcmp(h.ptr + h.len - keep, f->delimiter, keep) != 0) {
                keep--;
            }
            at = h.len - keep;
            next = 0;
        } else {
            next = mki_form_tail(mki_s(h.ptr + at + n, h.len - at - n), &used);
        }
        if (next < 0) {
            from = at + 1;
            continue;
        }
        if (at > f->lead) {
            mki_form_data(f, h.ptr + f->lead, at - f->lead);
        }
        f->lead -= at < f->lead ? at : f->lead;
        if (next == 0) {
            mki_buf_drop(&f->hold, at);
            return false;
        }
        if (f->state == MKI_FORM_DATA) {
            mki_form_field(f);
        }
        mki_buf_drop(&f->hold, at + n + (next == 1 ? used : 2));
        f->state = next == 1 ? MKI_FORM_HEADERS : MKI_FORM_END;
        return true;
    }
}

/* Takes the next bytes of the body. Returns the state. */
static mki_form_state mki_form_feed(mki_form *f, const char *data, size_t len)
{
    bool more = true;

    if (f->state == MKI_FORM_END || f->state == MKI_FORM_BAD) {
        return f->state;
    }
    mki_buf_add(&f->hold, data, len);
    while (more && f->state < MKI_FORM_END) {
        more = f->state == MKI_FORM_HEADERS ? mki_form_headers(f)
                                            : mki_form_part(f);
    }
    if (f->hold.failed || f->value.failed) {
        mki_form_bad(f);
    }
    return f->state;
}

/* ===========================================================================
 * >>fault      what goes wrong, when
 * calls: >>bytes >>http
 *
 * A request gets at most one fault that replaces its answer, and any number
 * that change its way. Scheduled ones come first, in their order; of those
 * with a rate one random number picks, so that rates add up exactly. That
 * number comes from the seed, the body and its count, not from the order of
 * arrival, which parallel clients cannot repeat.
 * ======================================================================== */

typedef enum mki_route {
    MKI_CHAT,
    MKI_COMPLETIONS,
    MKI_EMBEDDINGS,
    MKI_MODELS,
    MKI_MODEL,
    MKI_UPLOAD,
    MKI_FILES,
    MKI_FILE,
    MKI_FILE_DELETE,
    MKI_CONTENT,
    MKI_BATCH_NEW,
    MKI_BATCHES,
    MKI_BATCH,
    MKI_CANCEL,
    MKI_MOCK, /* /mock/...: counted nowhere */
    MKI_OTHER,
    MKI_ROUTES
} mki_route;

static const char *mki_route_name(size_t route)
{
    static const char *const names[MKI_ROUTES] = {
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/embeddings",
        "GET /v1/models",
        "GET /v1/models/{id}",
        "POST /v1/files",
        "GET /v1/files",
        "GET /v1/files/{id}",
        "DELETE /v1/files/{id}",
        "GET /v1/files/{id}/content",
        "POST /v1/batches",
        "GET /v1/batches",
        "GET /v1/batches/{id}",
        "POST /v1/batches/{id}/cancel",
        "mock",
        "other"};

    return names[route];
}

/* The routes that a fault may be bound to, as bits; 0: no such name. */
static unsigned mki_route_bits(mki_str name)
{
    static const struct {
        const char *name;
        unsigned bits;
    } table[] = {{"chat", 1U << MKI_CHAT},
                 {"completions", 1U << MKI_COMPLETIONS},
                 {"embeddings", 1U << MKI_EMBEDDINGS},
                 {"models", 1U << MKI_MODELS | 1U << MKI_MODEL},
                 {"files", 1U << MKI_UPLOAD | 1U << MKI_FILES | 1U << MKI_FILE |
                               1U << MKI_FILE_DELETE},
                 {"upload", 1U << MKI_UPLOAD},
                 {"delete", 1U << MKI_FILE_DELETE},
                 {"content", 1U << MKI_CONTENT},
                 {"batches", 1U << MKI_BATCH_NEW | 1U << MKI_BATCHES |
                                 1U << MKI_BATCH | 1U << MKI_CANCEL},
                 {"create", 1U << MKI_BATCH_NEW},
                 {"status", 1U << MKI_BATCH},
                 {"list", 1U << MKI_BATCHES | 1U << MKI_FILES},
                 {"cancel", 1U << MKI_CANCEL}};
    size_t i = 0;

    while (i < MKI_COUNT(table) && !mki_eq(name, table[i].name)) {
        i++;
    }
    return i < MKI_COUNT(table) ? table[i].bits : 0;
}

typedef enum mki_kind {
    MKI_F_NONE,
    /* these replace the answer */
    MKI_F_STATUS,
    MKI_F_QUOTA,
    MKI_F_TOO_LARGE,
    MKI_F_REDIRECT,
    MKI_F_RESET,
    MKI_F_LOST,
    MKI_F_TRUNCATE,
    MKI_F_STALL,
    MKI_F_GARBAGE,
    MKI_F_HTML,
    MKI_F_BAD_JSON,
    MKI_F_EMPTY,
    MKI_F_NO_DONE,
    MKI_F_STREAM_ERROR,
    MKI_F_EARLY_CLOSE,
    MKI_F_REFUSAL,
    MKI_F_LENGTH,
    MKI_F_FILTER,
    /* these only change its way */
    MKI_F_SLOW,
    MKI_F_STALE,
    MKI_F_CLOSE,
    MKI_F_CHUNKED,
    MKI_F_BYTE_CHUNKS,
    MKI_F_HTTP10,
    MKI_F_INTERIM,
    MKI_F_HINTS,
    MKI_F_CRLF,
    MKI_F_COMMENTS,
    MKI_F_NO_HEADERS,
    MKI_F_WAYS, /* none, but the end of those */
    /* these happen to uploads, downloads and batches */
    MKI_F_LATE_FILES,
    MKI_F_LATE_UPLOAD,
    MKI_F_CONTENT_REDIRECT,
    MKI_F_UPLOAD_RESET,
    MKI_F_BATCH_FAILS,
    MKI_F_BATCH_EXPIRES,
    MKI_F_NULL_OUTPUT,
    MKI_F_NULL_IDS,
    MKI_F_UNKNOWN_STATUS,
    MKI_F_COUNTS_LIE,
    MKI_F_ROWS_IN_ORDER,
    MKI_F_ROWS_SHUFFLED,
    /* these to rows of a batch, at most one of them */
    MKI_F_ROW_4XX,
    MKI_F_ROW_4XX_OUT,
    MKI_F_ROW_5XX,
    MKI_F_ROW_429,
    MKI_F_ROW_STATUS0,
    MKI_F_ROW_REFUSAL,
    MKI_F_ROW_CUT,
    MKI_F_ROW_MALFORMED,
    MKI_F_ROW_DROP,
    MKI_F_ROW_DUPLICATE,
    MKI_F_ROW_STRANGER,
    /* and these only to the line that they are written on */
    MKI_F_ROW_CRLF,
    MKI_F_ROW_BLANK,
    MKI_F_ROW_U2028,
    MKI_F_LAST
} mki_kind;

static const char *mki_kind_name(mki_kind kind)
{
    static const char *const names[MKI_F_LAST] = {"none",
                                                  "status",
                                                  "quota",
                                                  "toolarge",
                                                  "redirect",
                                                  "reset",
                                                  "lost",
                                                  "truncate",
                                                  "stall",
                                                  "garbage",
                                                  "html",
                                                  "badjson",
                                                  "empty",
                                                  "nodone",
                                                  "streamerror",
                                                  "earlyclose",
                                                  "refusal",
                                                  "length",
                                                  "filter",
                                                  "slow",
                                                  "stale",
                                                  "close",
                                                  "chunked",
                                                  "bytechunks",
                                                  "http10",
                                                  "interim",
                                                  "hints",
                                                  "crlf",
                                                  "comments",
                                                  "noheaders",
                                                  "",
                                                  "late-files",
                                                  "late-upload",
                                                  "content-redirect",
                                                  "upload-reset",
                                                  "batch-fails",
                                                  "batch-expires",
                                                  "null-output",
                                                  "null-ids",
                                                  "unknown-status",
                                                  "counts-lie",
                                                  "rows-in-order",
                                                  "rows-shuffled",
                                                  "row-4xx",
                                                  "row-4xx-in-output",
                                                  "row-5xx",
                                                  "row-429",
                                                  "row-status0",
                                                  "row-refusal",
                                                  "row-cut",
                                                  "row-malformed",
                                                  "row-drop",
                                                  "row-duplicate",
                                                  "row-stranger",
                                                  "row-crlf",
                                                  "row-blank",
                                                  "row-u2028"};

    return names[kind];
}

typedef struct mki_fault {
    mki_kind kind;
    int status;  /* MKI_F_STATUS, and other kinds with status=N */
    double rate; /* of those with no schedule */
    int64_t at;  /* > 0: the at-th request, or each at-th */
    bool every;
    unsigned routes; /* bits; 0: all */
    int64_t seen;    /* requests of these routes, or events of the kind */
    int64_t first;   /* late ones: so often; 0: not given */
    double share;    /* batch-expires: of the rows, done */
    bool sends;      /* lost-reply: only what makes something */
    int64_t times;   /* -1: any number */
    int64_t hits;
    int64_t ms, bytes; /* -1: not given */
    int64_t retry_ms;  /* -1: not given */
    int should_retry;  /* -1: not given, 0, 1 */
    bool late, notify;
    char label[24];       /* for the counters */
    char path[64];        /* "": any */
    char retry_after[48]; /* "": not given */
    char to[128];         /* redirect */
} mki_fault;

static bool mki_fault_kind(mki_fault *f, mki_str name)
{
    uint64_t status = 0;
    int k;

    mki_copy(f->label, sizeof f->label, name);
    if (mki_eq(name, "should-retry")) {
        name = mki_sc("503"); /* should-retry=... alone is a 503 with it */
    }
    if (mki_u64(name, &status) && status >= 300 && status <= 599) {
        f->kind = MKI_F_STATUS;
        f->status = (int)status;
        return true;
    }
    for (k = MKI_F_QUOTA; k < MKI_F_LAST; k++) {
        if (k != MKI_F_WAYS && mki_eq(name, mki_kind_name((mki_kind)k))) {
            f->kind = (mki_kind)k;
            f->status = k == MKI_F_ROW_5XX                             ? 500
                        : k == MKI_F_ROW_4XX || k == MKI_F_ROW_4XX_OUT ? 400
                                                                       : 0;
            return true;
        }
    }
    if (mki_eq(name, "lost-reply")) {
        f->kind = MKI_F_LOST;
        f->sends = true;
        return true;
    }
    if (mki_eq(name, "too-large")) {
        f->kind = MKI_F_TOO_LARGE;
        return true;
    }
    return false;
}

/* ":0.05", "@7", "@every=3", "@files": one of them. */
static bool mki_fault_one_when(mki_fault *f, mki_str when)
{
    bool share = f->kind == MKI_F_BATCH_EXPIRES;
    uint64_t n = 0;

    if (when.ptr[0] == ':') {
        double *to = share ? &f->share : &f->rate;

        return mki_decimal(mki_s(when.ptr + 1, when.len - 1), to) && *to <= 1;
    }
    when = mki_s(when.ptr + 1, when.len - 1);
    if (mki_route_bits(when) != 0) {
        f->routes = mki_route_bits(when);
        return true;
    }
    if (mki_starts(when, "every=")) {
        f->every = true;
        when = mki_s(when.ptr + 6, when.len - 6);
    }
    if (!mki_u64(when, &n) || n == 0 || n > INT32_MAX) {
        return false;
    }
    f->at = (int64_t)n;
    return true;
}

/* Any of them, one after the other: "@files@3", "@content:0.5". */
static bool mki_fault_when(mki_fault *f, mki_str when)
{
    while (when.len > 0) {
        size_t n = 1;

        while (n < when.len && when.ptr[n] != ':' && when.ptr[n] != '@') {
            n++;
        }
        if (!mki_fault_one_when(f, mki_s(when.ptr, n))) {
            return false;
        }
        when = mki_s(when.ptr + n, when.len - n);
    }
    return true;
}

static bool mki_fault_param(mki_fault *f, mki_str p)
{
    size_t eq = mki_find(p, mki_sc("="), 0);
    mki_str name = mki_s(p.ptr, eq == SIZE_MAX ? p.len : eq);
    mki_str value =
        eq == SIZE_MAX ? mki_sc("") : mki_s(p.ptr + eq + 1, p.len - eq - 1);
    uint64_t n = 0;
    bool number = mki_u64(value, &n) && n <= (uint64_t)INT64_MAX / 4;

    if (mki_eq(name, "retry-after")) {
        mki_copy(f->retry_after, sizeof f->retry_after, value);
        return value.len > 0;
    }
    if (mki_eq(name, "should-retry")) {
        f->should_retry = mki_eq(value, "true") ? 1 : 0;
        return f->should_retry == 1 || mki_eq(value, "false");
    }
    if (mki_eq(name, "path")) {
        mki_copy(f->path, sizeof f->path, value);
        return value.len > 0;
    }
    if (mki_eq(name, "route")) {
        f->routes = mki_route_bits(value);
        return f->routes != 0;
    }
    if (mki_eq(name, "done")) {
        return mki_decimal(value, &f->share) && f->share <= 1;
    }
    if (mki_eq(name, "to")) {
        mki_copy(f->to, sizeof f->to, value);
        return value.len > 0;
    }
    f->late = f->late || mki_eq(p, "late");
    f->notify = f->notify || mki_eq(p, "notify");
    if (mki_eq(name, "retry-after-ms")) {
        f->retry_ms = (int64_t)n;
    } else if (mki_eq(name, "ms")) {
        f->ms = (int64_t)n;
    } else if (mki_eq(name, "bytes")) {
        f->bytes = (int64_t)n;
    } else if (mki_eq(name, "times")) {
        f->times = (int64_t)n;
    } else if (mki_eq(name, "first")) {
        f->first = (int64_t)n;
    } else if (mki_eq(name, "status")) {
        f->status = n <= 599 ? (int)n : 0;
        number = number && n >= 300 && n <= 599;
    } else {
        return mki_eq(p, "late") || mki_eq(p, "notify");
    }
    return number;
}

/* A date has commas and blanks: it must come last. */
static bool mki_fault_parse(mki_fault *f, const char *text, char *err,
                            size_t cap)
{
    mki_str s = mki_sc(text);
    size_t end = strcspn(text, ":@,=");
    bool ok;

    memset(f, 0, sizeof *f);
    f->rate = 1;
    f->share = 0.5;
    f->times = -1;
    f->ms = -1;
    f->bytes = -1;
    f->retry_ms = -1;
    f->should_retry = -1;
    if (mki_starts(s, "should-retry=")) {
        end = strcspn(text, ":@,");
        ok = mki_fault_param(f, mki_s(text, end)) &&
             mki_fault_kind(f, mki_sc("should-retry"));
    } else {
        ok = mki_fault_kind(f, mki_s(text, end));
    }
    if (ok) {
        size_t n = strcspn(text + end, ",");

        ok = mki_fault_when(f, mki_s(text + end, n));
        end += n;
    }
    while (ok && text[end] == ',') {
        size_t n;

        end++;
        n = strncmp(text + end, "retry-after=", 12) == 0 &&
                    strchr(text + end, ' ') != NULL
                ? strlen(text + end)
                : strcspn(text + end, ",");
        ok = mki_fault_param(f, mki_s(text + end, n));
        end += n;
    }
    if (!ok) {
        mki_err(err, cap, "fault not understood: %s", text);
    }
    return ok;
}

/* What was chosen for one request: at most one fault of each kind. */
typedef struct mki_choice {
    const mki_fault *main; /* replaces the answer; NULL: none */
    const mki_fault *way[MKI_F_WAYS];
} mki_choice;

/* What was chosen for a row of a batch. */
typedef struct mki_lies {
    const mki_fault *main; /* NULL: none */
    bool crlf, blank, u2028;
} mki_lies;

typedef struct mki_faults {
    mki_fault *list;
    size_t n;
    uint64_t seed;
    int64_t count; /* requests so far */
    int64_t rows;  /* of batches */
} mki_faults;

static bool mki_fault_applies(const mki_fault *f, mki_route route, mki_str path)
{
    bool sends = route < MKI_MODELS || route == MKI_UPLOAD ||
                 route == MKI_BATCH_NEW || route == MKI_CANCEL;

    return (f->times < 0 || f->hits < f->times) && (!f->sends || sends) &&
           (f->routes == 0 || (f->routes >> route & 1) != 0) &&
           (f->path[0] == '\0' || mki_has(path, f->path));
}

/* Whether a schedule names this one; n: how many there have been. */
static bool mki_fault_scheduled(const mki_fault *f, int64_t n)
{
    return f->every ? n % f->at == 0 : n == f->at;
}

/* key and again identify the request for the random choice. */
static void mki_faults_choose(mki_faults *fs, mki_route route, mki_str path,
                              uint64_t key, uint32_t again, mki_choice *out)
{
    uint64_t random = mki_mix(fs->seed ^ mki_mix(key + again));
    double u = mki_unit(random);
    double sum = 0;
    bool drawn = false;
    size_t i;

    memset(out, 0, sizeof *out);
    fs->count++;
    for (i = 0; i < fs->n; i++) {
        mki_fault *f = &fs->list[i];
        bool main_kind = f->kind < MKI_F_SLOW;
        bool hit;

        if (f->kind >= MKI_F_WAYS || !mki_fault_applies(f, route, path)) {
            continue;
        }
        f->seen++;
        if (f->at > 0) {
            hit = mki_fault_scheduled(
                f, f->routes != 0 || f->sends ? f->seen : fs->count);
        } else if (main_kind) {
            hit = !drawn && u >= sum && u < sum + f->rate;
            sum += f->rate;
            drawn = drawn || hit;
        } else {
            hit = mki_unit(mki_mix(random + i + 1)) < f->rate;
        }
        if (!hit || (main_kind && out->main != NULL && f->at == 0)) {
            continue;
        }
        if (main_kind) {
            out->main = out->main == NULL || out->main->at == 0 ? f : out->main;
        } else {
            out->way[f->kind] = f;
        }
    }
    for (i = 0; i < fs->n; i++) {
        mki_fault *f = &fs->list[i];

        f->hits +=
            f->kind < MKI_F_WAYS && (f == out->main || f == out->way[f->kind])
                ? 1
                : 0;
    }
}

/* Whether a fault of this kind happens now; NULL: no. key: what to, for the
 * random choice. */
static const mki_fault *mki_faults_event(mki_faults *fs, mki_kind kind,
                                         mki_route route, uint64_t key)
{
    const mki_fault *found = NULL;
    size_t i;

    for (i = 0; i < fs->n; i++) {
        mki_fault *f = &fs->list[i];

        if (f->kind != kind || !mki_fault_applies(f, route, mki_sc(f->path))) {
            continue;
        }
        f->seen++;
        if (found == NULL &&
            (f->at > 0 ? mki_fault_scheduled(f, f->seen)
                       : mki_unit(mki_mix(fs->seed ^ (key + i))) < f->rate)) {
            f->hits++;
            found = f;
        }
    }
    return found;
}

/* What happens to a row of a batch. The same row that runs again, in another
 * batch, has another fate. */
static void mki_faults_row(mki_faults *fs, uint64_t key, uint32_t again,
                           mki_lies *out)
{
    uint64_t random = mki_mix(fs->seed ^ mki_mix(key + again));
    double u = mki_unit(random);
    double sum = 0;
    size_t i;

    memset(out, 0, sizeof *out);
    fs->rows++;
    for (i = 0; i < fs->n; i++) {
        mki_fault *f = &fs->list[i];
        bool main_kind = f->kind < MKI_F_ROW_CRLF;
        bool hit;

        if (f->kind < MKI_F_ROW_4XX || (f->times >= 0 && f->hits >= f->times)) {
            continue;
        }
        if (f->at > 0) {
            hit = mki_fault_scheduled(f, fs->rows);
        } else if (main_kind) {
            hit = u >= sum && u < sum + f->rate;
            sum += f->rate;
        } else {
            hit = mki_unit(mki_mix(random + i + 1)) < f->rate;
        }
        if (!hit || (main_kind && out->main != NULL)) {
            continue;
        }
        f->hits++;
        out->main = main_kind ? f : out->main;
        out->crlf = out->crlf || f->kind == MKI_F_ROW_CRLF;
        out->blank = out->blank || f->kind == MKI_F_ROW_BLANK;
        out->u2028 = out->u2028 || f->kind == MKI_F_ROW_U2028;
    }
}

/* ===========================================================================
 * >>account    counters, the report card, the log
 * calls: >>bytes >>json >>http
 *
 * Each different request (method, path, key, body) is remembered by a 64-bit
 * hash in an open-addressing table; each client (address and key) in a short
 * list. Pauses begin when the answer that asks for them has been handed to the
 * system, and bind requests whose first byte arrives later.
 * ======================================================================== */

#define MKI_BODIES_MAX  ((size_t)4 << 20)
#define MKI_CLIENTS_MAX 256

#define MKI_GRACE_MS     200   /* until all workers must know of a pause */
#define MKI_PAUSE_MAX_MS 60000 /* longer ones nobody is obliged to wait out */
#define MKI_STAMPEDE     8     /* more connections than this ... */
#define MKI_STAMPEDE_MS  10    /* ... within this time after a pause */
#define MKI_IDLE_CONNS   16    /* more kept ones than this, each idle for ... */
#define MKI_IDLE_MS      10000 /* ... so long, are waste */

typedef struct mki_body {
    uint64_t key;                      /* 0: free */
    uint32_t came, answers, delivered; /* 200s; those it surely got */
    uint32_t flying, flying_max;
    int64_t not_before;
    int final_status; /* told not to try again, or 0 */
} mki_body;

typedef struct mki_pause {
    int64_t told, until;
} mki_pause;

typedef struct mki_client {
    uint64_t id;
    mki_pause now, before;
    uint32_t pause_id;
    int64_t burst; /* connections that came right after the pause */
    int64_t open;
    int64_t short_lived, conns; /* closed after one request; all */
} mki_client;

typedef enum mki_code {
    MKI_R_RETRY_AFTER,
    MKI_R_FINAL,
    MKI_R_STAMPEDE,
    MKI_R_KEY,
    MKI_R_DUPLICATE,
    MKI_R_CONNECTIONS,
    MKI_R_KEEP_ALIVE,
    MKI_R_TWICE,
    MKI_R_POLLS,
    MKI_R_DOWNLOADS,
    MKI_R_LEAKED,
    MKI_R_LAST
} mki_code;

static const char *mki_code_name(size_t code)
{
    static const char *const names[MKI_R_LAST] = {
        "ignored_retry_after", "retried_final", "stampeded",
        "key_to_other_host",   "duplicated",    "too_many_connections",
        "no_keep_alive",       "created_twice", "polled_too_fast",
        "downloaded_again",    "leaked_files"};

    return names[code];
}

typedef struct mki_count {
    char name[24];
    int64_t n;
} mki_count;

/* The limits, and what else a 429 is for. Those of tokens are odd. */
typedef enum mki_cause {
    MKI_RPM,
    MKI_TPM,
    MKI_RPD,
    MKI_TPD,
    MKI_SLICE_R,
    MKI_SLICE_T,
    MKI_LIMITS,
    MKI_TOO_LARGE = MKI_LIMITS, /* for a limit of tokens, ever */
    MKI_INJECTED,               /* by a fault, a script or load_fn */
    MKI_CAUSES
} mki_cause;

/* What a benchmark needs; allowed: what rpm and tpm granted in that time. */
typedef struct mki_tally {
    int64_t at; /* of the mock's clock */
    int64_t replies, throttled;
    int64_t requests, tokens; /* charged */
    double requests_allowed, tokens_allowed;
    int64_t max_flying;
} mki_tally;

#define MKI_RECENT 60 /* cells of a second */

typedef struct mki_recent {
    int64_t second, requests, tokens;
} mki_recent;

typedef struct mki_account {
    mki_tally all, mark; /* since the start; that at the mark */
    mki_recent recent[MKI_RECENT];
    int64_t throttled[MKI_CAUSES];
    int64_t first_429, last_429;                  /* -1: none */
    int64_t billed_in, billed_cached, billed_out; /* not those of batches */
    int64_t requests[MKI_ROUTES];
    int64_t responses[600];
    mki_count faults[64];
    size_t n_faults;
    int64_t connections, resumed, open, max_open, accepted;
    int64_t flying, max_flying;
    int64_t answered, answered_again, cancelled;
    int64_t tokens_in, tokens_out;
    int64_t bytes_in, bytes_out;
    int64_t findings[MKI_R_LAST];
    char details[MKI_R_LAST][160]; /* of the first finding of each code */
    mki_body *bodies;
    size_t n_bodies, cap_bodies;
    mki_client *clients; /* MKI_CLIENTS_MAX */
    size_t n_clients;
    int expect_connections, expect_repeats;
} mki_account;

MKI_PRINTF(3, 4)
static void mki_finding(mki_account *a, mki_code code, const char *fmt, ...)
{
    va_list args;

    if (a->findings[code]++ == 0) {
        va_start(args, fmt);
        vsnprintf(a->details[code], sizeof a->details[code], fmt, args);
        va_end(args);
    }
}

static void mki_account_fault(mki_account *a, const char *label)
{
    size_t i = 0;

    while (i < a->n_faults && strcmp(a->faults[i].name, label) != 0) {
        i++;
    }
    if (i == a->n_faults) {
        if (i == MKI_COUNT(a->faults)) {
            return;
        }
        mki_copy(a->faults[i].name, sizeof a->faults[i].name, mki_sc(label));
        a->faults[i].n = 0;
        a->n_faults++;
    }
    a->faults[i].n++;
}

static mki_body *mki_body_slot(mki_body *table, size_t cap, uint64_t key)
{
    size_t i = (size_t)(key & (cap - 1));

    while (table[i].key != 0 && table[i].key != key) {
        i = (i + 1) & (cap - 1);
    }
    return &table[i];
}

/* The entry of a body, made if need be; NULL: the table is full. Valid until
 * the next call. */
static mki_body *mki_body_get(mki_account *a, uint64_t key)
{
    mki_body *found;
    size_t i;

    if (a->n_bodies * 4 >= a->cap_bodies * 3 &&
        a->cap_bodies < MKI_BODIES_MAX * 2) {
        size_t cap = a->cap_bodies == 0 ? 1024 : a->cap_bodies * 2;
        mki_body *table = (mki_body *)calloc(cap, sizeof *table);

        for (i = 0; table != NULL && i < a->cap_bodies; i++) {
            if (a->bodies[i].key != 0) {
                *mki_body_slot(table, cap, a->bodies[i].key) = a->bodies[i];
            }
        }
        if (table != NULL) {
            free(a->bodies);
            a->bodies = table;
            a->cap_bodies = cap;
        }
    }
    if (a->cap_bodies == 0) {
        return NULL;
    }
    found = mki_body_slot(a->bodies, a->cap_bodies, key);
    if (found->key == 0) {
        if (a->n_bodies * 8 >= a->cap_bodies * 7) {
            return NULL;
        }
        found->key = key;
        a->n_bodies++;
    }
    return found;
}

/* The client's place in the list; the last one is shared when it is full. */
static size_t mki_client_find(mki_account *a, uint64_t id)
{
    size_t i = 0;

    while (i < a->n_clients && a->clients[i].id != id) {
        i++;
    }
    if (i == MKI_CLIENTS_MAX) {
        return i - 1;
    }
    if (i == a->n_clients) {
        memset(&a->clients[i], 0, sizeof a->clients[i]);
        a->clients[i].id = id;
        a->n_clients++;
    }
    return i;
}

static bool mki_pause_broken(const mki_pause *p, int64_t t)
{
    return p->until > 0 && t > p->told + MKI_GRACE_MS &&
           t < p->until - 5 - (p->until - p->told) / 50;
}

/* Judges a request of a client; t: when its first byte came. */
static void mki_account_request(mki_account *a, mki_client *c, mki_body *body,
                                int64_t t, bool first_on_conn_since_pause)
{
    int repeats = a->expect_repeats == 0 ? 1 : a->expect_repeats;

    if (body != NULL) {
        int64_t limit = repeats < 0 ? INT64_MAX : repeats;

        /* Sent at the same time more than once: an input with repetitions,
         * where nothing can be held against a further one. */
        if (body->flying_max < 2 && body->came > 0 && repeats == 1) {
            if (body->final_status != 0) {
                mki_finding(a, MKI_R_FINAL, "the same body again after %d",
                            body->final_status);
            }
            if (t < body->not_before) {
                mki_finding(a, MKI_R_RETRY_AFTER,
                            "the same body %d ms before its pause ended",
                            (int)(body->not_before - t));
            }
        }
        if ((int64_t)body->delivered >= limit && body->flying_max < 2) {
            mki_finding(a, MKI_R_DUPLICATE,
                        "a body was sent again after %d complete answers",
                        (int)body->delivered);
        }
    }
    if (mki_pause_broken(&c->now, t) || mki_pause_broken(&c->before, t)) {
        mki_finding(a, MKI_R_RETRY_AFTER,
                    "a request %d ms after the client was told to pause, %d "
                    "ms too early",
                    (int)(t - c->now.told), (int)(c->now.until - t));
    }
    if (c->now.until > 0 && t >= c->now.until - 1 &&
        t < c->now.until + MKI_STAMPEDE_MS &&
        c->now.until - c->now.told >= 200 && first_on_conn_since_pause) {
        c->burst++;
        if (c->burst == MKI_STAMPEDE + 1) {
            mki_finding(a, MKI_R_STAMPEDE,
                        "more than %d connections within %d ms after a pause",
                        MKI_STAMPEDE, MKI_STAMPEDE_MS);
        }
    }
}

/* A pause was asked for by an answer that has been delivered. */
static void mki_account_pause(mki_client *c, mki_body *body, int64_t now,
                              int64_t delay)
{
    int64_t until = now + delay;

    if (delay <= 0 || delay > MKI_PAUSE_MAX_MS) {
        return;
    }
    if (body != NULL) {
        body->not_before = until - 5 - delay / 50;
    }
    if (until > c->now.until) {
        if (c->now.until > now) {
            c->before = c->now;
        }
        c->now.told = now;
        c->now.until = until;
        c->pause_id++;
        c->burst = 0;
    }
}

/* The connection was reset behind an answer: the client may never have read
 * it, so asking again is no fault. key 0: there was none. */
static void mki_account_unread(mki_account *a, uint64_t key)
{
    mki_body *body = key != 0 ? mki_body_get(a, key) : NULL;

    if (body != NULL && body->delivered > 0) {
        body->delivered--;
    }
}

static mki_recent *mki_recent_cell(mki_account *a, int64_t now)
{
    mki_recent *r = &a->recent[(uint64_t)now / 1000 % MKI_RECENT];

    if (r->second != now / 1000) {
        memset(r, 0, sizeof *r);
        r->second = now / 1000;
    }
    return r;
}

static void mki_account_charge(mki_account *a, int64_t now, int64_t requests,
                               int64_t tokens)
{
    mki_recent *r = mki_recent_cell(a, now);

    r->requests += requests;
    r->tokens += tokens;
    a->all.requests += requests;
    a->all.tokens += tokens;
}

static void mki_account_429(mki_account *a, int64_t now, mki_cause cause)
{
    a->all.throttled++;
    a->throttled[cause]++;
    a->last_429 = now;
    a->first_429 = a->first_429 < 0 ? now : a->first_429;
}

static void mki_account_flying(mki_account *a)
{
    a->flying++;
    a->max_flying = a->flying > a->max_flying ? a->flying : a->max_flying;
    if (a->flying > a->all.max_flying) {
        a->all.max_flying = a->flying;
    }
}

/* The highest number in flight is one since the mark. */
static void mki_account_mark(mki_account *a, int64_t now)
{
    a->all.max_flying = a->flying;
    a->mark = a->all;
    a->mark.at = now;
}

/* What has happened since t; no closing brace. */
static void mki_tally_stats(const mki_tally *all, const mki_tally *t,
                            mki_buf *b)
{
    mki_js_int(b, "replies", all->replies - t->replies);
    mki_js_int(b, "throttled", all->throttled - t->throttled);
    mki_js_int(b, "requests_charged", all->requests - t->requests);
    mki_js_int(b, "tokens_charged", all->tokens - t->tokens);
    mki_js_int(b, "requests_allowed",
               (int64_t)(all->requests_allowed - t->requests_allowed));
    mki_js_int(b, "tokens_allowed",
               (int64_t)(all->tokens_allowed - t->tokens_allowed));
}

/* How limits were kept and used. */
static void mki_quota_stats(mki_account *a, mki_buf *b, int64_t now)
{
    static const char *const causes[MKI_CAUSES] = {
        "requests",       "tokens",       "requests_day", "tokens_day",
        "slice_requests", "slice_tokens", "too_large",    "injected"};
    mki_tally none = MKI_ZERO;
    int64_t requests = 0;
    int64_t tokens = 0;
    size_t i;

    for (i = 0; i < MKI_RECENT; i++) {
        bool old = a->recent[i].second <= now / 1000 - MKI_RECENT;

        requests += old ? 0 : a->recent[i].requests;
        tokens += old ? 0 : a->recent[i].tokens;
    }
    mki_js_int(b, "elapsed_ms", now - a->all.at);
    mki_js_int(b, "first_429_ms",
               a->first_429 < 0 ? -1 : a->first_429 - a->all.at);
    mki_js_int(b, "last_429_ms",
               a->last_429 < 0 ? -1 : a->last_429 - a->all.at);
    mki_js_key(b, "throttled");
    mki_buf_c(b, '{');
    for (i = 0; i < MKI_CAUSES; i++) {
        mki_js_int(b, causes[i], a->throttled[i]);
    }
    mki_buf_c(b, '}');
    mki_js_key(b, "quota");
    mki_buf_c(b, '{');
    mki_tally_stats(&a->all, &none, b);
    mki_js_int(b, "requests_last_60s", requests);
    mki_js_int(b, "tokens_last_60s", tokens);
    mki_buf_c(b, '}');
    mki_js_key(b, "since_mark");
    mki_buf_c(b, '{');
    mki_js_int(b, "elapsed_ms", now - a->mark.at);
    mki_tally_stats(&a->all, &a->mark, b);
    mki_js_int(b, "max_in_flight", a->all.max_flying);
    mki_buf_c(b, '}');
}

/* Without the closing brace. */
static void mki_account_stats(const mki_account *a, mki_buf *b)
{
    size_t i;

    mki_buf_s(b, "{\"requests\":{");
    for (i = 0; i < MKI_ROUTES; i++) {
        if (a->requests[i] > 0) {
            mki_js_int(b, mki_route_name(i), a->requests[i]);
        }
    }
    mki_buf_s(b, "},\"responses\":{");
    for (i = 0; i < MKI_COUNT(a->responses); i++) {
        if (a->responses[i] > 0) {
            char name[8];

            snprintf(name, sizeof name, "%d", (int)i);
            mki_js_int(b, name, a->responses[i]);
        }
    }
    mki_buf_s(b, "},\"faults\":{");
    for (i = 0; i < a->n_faults; i++) {
        mki_js_int(b, a->faults[i].name, a->faults[i].n);
    }
    mki_buf_c(b, '}');
    mki_js_int(b, "connections", a->connections);
    mki_js_int(b, "tls_resumed", a->resumed);
    mki_js_int(b, "connections_open", a->open);
    mki_js_int(b, "connections_accepted", a->accepted);
    mki_js_int(b, "max_connections", a->max_open);
    mki_js_int(b, "max_concurrency", a->max_flying);
    mki_js_int(b, "max_in_flight", a->max_flying);
    mki_js_int(b, "prompts_answered", a->answered);
    mki_js_int(b, "prompts_answered_again", a->answered_again);
    mki_js_int(b, "cancelled", a->cancelled);
    mki_js_key(b, "tokens");
    mki_buf_c(b, '{');
    mki_js_int(b, "prompt_tokens", a->tokens_in);
    mki_js_int(b, "completion_tokens", a->tokens_out);
    mki_js_int(b, "total_tokens", a->tokens_in + a->tokens_out);
    mki_buf_c(b, '}');
    mki_js_int(b, "bytes_received", a->bytes_in);
    mki_js_int(b, "bytes_sent", a->bytes_out);
}

/* no_keep_alive is a matter of proportion: it is decided when asked. */
static void mki_account_habits(mki_account *a)
{
    int64_t n = 0;
    size_t i;

    for (i = 0; i < a->n_clients; i++) {
        mki_client *c = &a->clients[i];

        if (c->short_lived >= 10 && c->short_lived * 2 > c->conns) {
            n += c->short_lived;
            snprintf(a->details[MKI_R_KEEP_ALIVE],
                     sizeof a->details[MKI_R_KEEP_ALIVE],
                     "%d of %d connections were given up after one request",
                     (int)c->short_lived, (int)c->conns);
        }
    }
    a->findings[MKI_R_KEEP_ALIVE] = n;
}

static void mki_account_report(mki_account *a, mki_buf *b)
{
    bool clean = true;
    size_t i;

    for (i = 0; i < MKI_R_LAST; i++) {
        clean = clean && a->findings[i] == 0;
    }
    mki_buf_f(b, "{\"clean\":%s,\"findings\":[", clean ? "true" : "false");
    for (i = 0; i < MKI_R_LAST; i++) {
        if (a->findings[i] == 0) {
            continue;
        }
        if (b->data[b->len - 1] == '}') {
            mki_buf_c(b, ',');
        }
        mki_buf_c(b, '{');
        mki_js_str(b, "code", mki_sc(mki_code_name(i)));
        mki_js_int(b, "count", a->findings[i]);
        mki_js_str(b, "detail", mki_sc(a->details[i]));
        mki_buf_c(b, '}');
    }
    mki_buf_s(b, "]}\n");
}

/* Connections that are open now stay counted as open. */
static void mki_account_reset(mki_account *a, int64_t now)
{
    mki_account old = *a;
    size_t i;

    memset(a, 0, sizeof *a);
    a->all.at = now;
    a->first_429 = -1;
    a->last_429 = -1;
    a->expect_connections = old.expect_connections;
    a->expect_repeats = old.expect_repeats;
    a->clients = old.clients;
    a->n_clients = old.n_clients;
    a->open = old.open;
    a->max_open = old.open;
    a->flying = old.flying;
    a->max_flying = old.flying;
    mki_account_mark(a, now);
    for (i = 0; i < a->n_clients; i++) {
        mki_client *c = &a->clients[i];

        memset(&c->now, 0, sizeof c->now);
        memset(&c->before, 0, sizeof c->before);
        c->burst = 0;
        c->short_lived = 0;
        c->conns = 0;
    }
    free(old.bodies);
}

/* ===========================================================================
 * >>store      files and batches, in memory and on disk
 * calls: >>platform >>bytes >>json >>account
 *
 * What files hold lies in a folder: options.data_dir, or a private one that is
 * made for the first upload and removed at the end. Of a file F there are
 * F.data and F.json, of a batch B there are B.json, B.in (a second name of its
 * input, until it ends) and B.keys (hashes of the bodies that it ran). Each is
 * written under another name and renamed: a process that is killed leaves the
 * state before or after, and what ends in .tmp is swept away at the start.
 * ======================================================================== */

#define MKI_DAY_MS      86400000
#define MKI_FILE_DAYS   30
#define MKI_SANE_MAX    ((int64_t)1 << 50)   /* times, sizes and counts */
#define MKI_STORE_MAX   100000               /* files, and batches */
#define MKI_BATCH_BYTES ((int64_t)200 << 20) /* purpose batch */
#define MKI_FILE_BYTES  ((int64_t)512 << 20)

typedef struct mki_file {
    char id[32];
    char name[256], purpose[24];
    int64_t bytes, created_at, expires_at; /* expires_at 0: never */
    uint64_t serial;
    int64_t delivered;       /* complete downloads */
    int64_t refused, unseen; /* by late-files, by late-upload */
} mki_file;

typedef enum mki_phase {
    MKI_B_VALIDATING,
    MKI_B_FAILED,
    MKI_B_IN_PROGRESS,
    MKI_B_FINALIZING,
    MKI_B_COMPLETED,
    MKI_B_EXPIRED,
    MKI_B_CANCELLING,
    MKI_B_CANCELLED,
    MKI_B_PAUSED
} mki_phase;

/* The lies that a batch was created to tell. */
enum {
    MKI_L_EXPIRES = 1,
    MKI_L_NULL_OUTPUT = 2,
    MKI_L_NO_IDS = 4,
    MKI_L_UNKNOWN = 8,
    MKI_L_COUNTS = 16,
    MKI_L_IN_ORDER = 32
};

typedef struct mki_batch {
    char id[48];
    char endpoint[48], model[128];
    char input[32], output[32], error[32];
    uint64_t serial;
    uint64_t content; /* hash of the input's lines */
    int64_t created_ms, length_ms, cancel_ms, end_ms;
    mki_phase end; /* valid with end_ms > 0: it is over */
    int64_t total, completed, failed;
    int64_t prompt_tokens; /* estimated, for the limit */
    int64_t tokens_in, tokens_out, billed, billed_again;
    int64_t output_seconds;        /* until its files expire */
    int64_t lies, permille;        /* of the rows, done when it expires */
    char *metadata, *errors, *job; /* JSON; JSON; text; each may be NULL */
    int64_t polls, first_poll, last_poll;
    bool hurried; /* found once already */
} mki_batch;

/* A body that batches ran. */
typedef struct mki_bill {
    uint64_t key; /* 0: free; bit 0 is never set */
    uint32_t runs, answers;
    uint64_t by; /* serial of the batch that answered it last; 0: live */
} mki_bill;

typedef struct mki_store {
    char dir[1024];
    bool ready, is_private;
    mki_file **files; /* by serial */
    size_t n_files, cap_files;
    mki_batch **batches;
    size_t n_batches, cap_batches;
    uint64_t serial, counted_from;
    mki_bill *bills;
    size_t n_bills, cap_bills;
    int64_t limit_batch, limit_file;
} mki_store;

static void mki_store_path(const mki_store *t, const char *id, const char *end,
                           char out[1200])
{
    snprintf(out, 1200, "%s/%s%s", t->dir, id, end);
}

static void mki_batch_free(mki_batch *b)
{
    if (b != NULL) {
        free(b->metadata);
        free(b->errors);
        free(b->job);
        free(b);
    }
}

static void mki_store_remove(void *ctx, const char *name)
{
    const mki_store *t = (const mki_store *)ctx;
    char path[1200];

    mki_store_path(t, name, "", path);
    unlink(path);
}

static void mki_store_free(mki_store *t)
{
    size_t i;

    for (i = 0; i < t->n_files; i++) {
        free(t->files[i]);
    }
    for (i = 0; i < t->n_batches; i++) {
        mki_batch_free(t->batches[i]);
    }
    free(t->files);
    free(t->batches);
    free(t->bills);
    if (t->is_private && t->ready) {
        mki_dir_each(t->dir, mki_store_remove, t);
        rmdir(t->dir);
    }
    memset(t, 0, sizeof *t);
}

/* Room for one more pointer in a list that never exceeds MKI_STORE_MAX. */
static bool mki_list_room(void ***list, size_t n, size_t *cap)
{
    void **more;

    if (n >= MKI_STORE_MAX) {
        return false;
    }
    if (n < *cap) {
        return true;
    }
    more = (void **)realloc((void *)*list, (*cap * 2 + 64) * sizeof *more);
    if (more == NULL) {
        return false;
    }
    *list = more;
    *cap = *cap * 2 + 64;
    return true;
}

static bool mki_store_add_file(mki_store *t, mki_file *f)
{
    void **list = (void **)t->files;
    bool ok = mki_list_room(&list, t->n_files, &t->cap_files);

    t->files = (mki_file **)list;
    if (ok) {
        t->files[t->n_files++] = f;
        t->serial = f->serial > t->serial ? f->serial : t->serial;
    }
    return ok;
}

static bool mki_store_add_batch(mki_store *t, mki_batch *b)
{
    void **list = (void **)t->batches;
    bool ok = mki_list_room(&list, t->n_batches, &t->cap_batches);

    t->batches = (mki_batch **)list;
    if (ok) {
        t->batches[t->n_batches++] = b;
        t->serial = b->serial > t->serial ? b->serial : t->serial;
    }
    return ok;
}

/* The newest are asked for most. Index + 1, or 0. */
static size_t mki_store_file_at(const mki_store *t, mki_str id)
{
    size_t i = t->n_files;

    while (i > 0 && !mki_eq(id, t->files[i - 1]->id)) {
        i--;
    }
    return i;
}

static mki_file *mki_store_file(const mki_store *t, mki_str id)
{
    size_t i = mki_store_file_at(t, id);

    return i > 0 ? t->files[i - 1] : NULL;
}

static size_t mki_store_batch_at(const mki_store *t, mki_str id)
{
    size_t i = t->n_batches;

    while (i > 0 && !mki_eq(id, t->batches[i - 1]->id)) {
        i--;
    }
    return i;
}

/* ---- what bodies have been run ---- */

static mki_bill *mki_bill_slot(mki_bill *table, size_t cap, uint64_t key)
{
    size_t i = (size_t)(mki_mix(key) & (cap - 1));

    while (table[i].key != 0 && table[i].key != key) {
        i = (i + 1) & (cap - 1);
    }
    return &table[i];
}

/* The entry, made if need be; NULL: no room. Valid until the next call. */
static mki_bill *mki_bill_get(mki_store *t, uint64_t key)
{
    mki_bill *found;
    size_t i;

    key = (key & ~(uint64_t)1) != 0 ? key & ~(uint64_t)1 : 2;
    if (t->n_bills * 4 >= t->cap_bills * 3 &&
        t->cap_bills < MKI_BODIES_MAX * 2) {
        size_t cap = t->cap_bills == 0 ? 1024 : t->cap_bills * 2;
        mki_bill *table = (mki_bill *)calloc(cap, sizeof *table);

        for (i = 0; table != NULL && i < t->cap_bills; i++) {
            if (t->bills[i].key != 0) {
                *mki_bill_slot(table, cap, t->bills[i].key) = t->bills[i];
            }
        }
        if (table != NULL) {
            free(t->bills);
            t->bills = table;
            t->cap_bills = cap;
        }
    }
    if (t->cap_bills == 0) {
        return NULL;
    }
    found = mki_bill_slot(t->bills, t->cap_bills, key);
    if (found->key == 0) {
        if (t->n_bills * 8 >= t->cap_bills * 7) {
            return NULL;
        }
        found->key = key;
        t->n_bills++;
    }
    return found;
}

/* ---- to disk ---- */

static void mki_js_file(mki_buf *b, const mki_file *f)
{
    mki_buf_c(b, '{');
    mki_js_str(b, "id", mki_sc(f->id));
    mki_js_str(b, "object", mki_sc("file"));
    mki_js_int(b, "bytes", f->bytes);
    mki_js_int(b, "created_at", f->created_at);
    if (f->expires_at > 0) {
        mki_js_int(b, "expires_at", f->expires_at);
    }
    mki_js_str(b, "filename", mki_sc(f->name));
    mki_js_str(b, "purpose", mki_sc(f->purpose));
    mki_buf_s(b, ",\"status\":\"processed\",\"status_details\":null");
}

static bool mki_store_save(const mki_store *t, const char *id, const mki_buf *b)
{
    char path[1200];

    mki_store_path(t, id, ".json", path);
    return !b->failed && mki_file_write(path, b->data, b->len);
}

static bool mki_store_save_file(const mki_store *t, const mki_file *f)
{
    mki_buf b = MKI_ZERO;
    bool ok;

    mki_js_file(&b, f);
    mki_js_int(&b, "serial", (int64_t)f->serial);
    mki_buf_s(&b, "}\n");
    ok = mki_store_save(t, f->id, &b);
    mki_buf_free(&b);
    return ok;
}

/* The numbers of a batch and their names on disk. */
typedef struct mki_slot {
    const char *name;
    int64_t *value;
} mki_slot;

#define MKI_BATCH_SLOTS 16

static void mki_batch_slots(mki_batch *b, mki_slot out[MKI_BATCH_SLOTS])
{
    static const char *const names[MKI_BATCH_SLOTS] = {
        "created_ms",     "length_ms",  "cancel_ms", "end_ms",
        "total",          "completed",  "failed",    "prompt_tokens",
        "tokens_in",      "tokens_out", "billed",    "billed_again",
        "output_seconds", "lies",       "permille",  "polls"};
    int64_t *values[MKI_BATCH_SLOTS];
    size_t i;

    values[0] = &b->created_ms;
    values[1] = &b->length_ms;
    values[2] = &b->cancel_ms;
    values[3] = &b->end_ms;
    values[4] = &b->total;
    values[5] = &b->completed;
    values[6] = &b->failed;
    values[7] = &b->prompt_tokens;
    values[8] = &b->tokens_in;
    values[9] = &b->tokens_out;
    values[10] = &b->billed;
    values[11] = &b->billed_again;
    values[12] = &b->output_seconds;
    values[13] = &b->lies;
    values[14] = &b->permille;
    values[15] = &b->polls;
    for (i = 0; i < MKI_BATCH_SLOTS; i++) {
        out[i].name = names[i];
        out[i].value = values[i];
    }
}

static bool mki_store_save_batch(const mki_store *t, mki_batch *b)
{
    mki_slot slots[MKI_BATCH_SLOTS];
    mki_buf out = MKI_ZERO;
    size_t i;
    bool ok;

    mki_batch_slots(b, slots);
    mki_buf_c(&out, '{');
    mki_js_str(&out, "id", mki_sc(b->id));
    mki_js_int(&out, "serial", (int64_t)b->serial);
    mki_js_str(&out, "endpoint", mki_sc(b->endpoint));
    mki_js_str(&out, "model", mki_sc(b->model));
    mki_js_str(&out, "input", mki_sc(b->input));
    mki_js_str(&out, "output", mki_sc(b->output));
    mki_js_str(&out, "error", mki_sc(b->error));
    mki_js_int(&out, "content", (int64_t)b->content);
    mki_js_int(&out, "end", (int64_t)b->end);
    for (i = 0; i < MKI_BATCH_SLOTS; i++) {
        mki_js_int(&out, slots[i].name, *slots[i].value);
    }
    mki_js_maybe(&out, "job", b->job);
    mki_js_key(&out, "metadata");
    mki_buf_s(&out, b->metadata != NULL ? b->metadata : "null");
    mki_js_key(&out, "errors");
    mki_buf_s(&out, b->errors != NULL ? b->errors : "null");
    mki_buf_s(&out, "}\n");
    ok = mki_store_save(t, b->id, &out);
    mki_buf_free(&out);
    return ok;
}

/* ---- from disk ---- */

static char *mki_str_dup(mki_str s)
{
    char *copy = s.ptr != NULL ? (char *)malloc(s.len + 1) : NULL;

    if (copy != NULL) {
        mki_copy(copy, s.len + 1, s);
    }
    return copy;
}

/* The JSON of a member as it is written, or NULL for null and nothing. */
static char *mki_get_raw(const mki_json *v, const char *name)
{
    const mki_json *m = mki_get_set(v, name);

    return m != NULL ? mki_str_dup(m->text) : NULL;
}

/* A number as it was written, or 0 where somebody else has been at work. */
static int64_t mki_get_sane(const mki_json *v, const char *name)
{
    int64_t n = mki_get_int(v, name, 0);

    return n < 0 || n > MKI_SANE_MAX ? 0 : n;
}

static bool mki_store_load_file(mki_store *t, const mki_json *v)
{
    mki_file *f = (mki_file *)calloc(1, sizeof *f);

    if (f == NULL) {
        return false;
    }
    mki_copy(f->id, sizeof f->id, mki_get_text(v, "id"));
    mki_copy(f->name, sizeof f->name, mki_get_text(v, "filename"));
    mki_copy(f->purpose, sizeof f->purpose, mki_get_text(v, "purpose"));
    f->bytes = mki_get_sane(v, "bytes");
    f->created_at = mki_get_sane(v, "created_at");
    f->expires_at = mki_get_sane(v, "expires_at");
    f->serial = (uint64_t)mki_get_sane(v, "serial");
    if (!mki_store_add_file(t, f)) {
        free(f);
        return false;
    }
    return true;
}

static bool mki_store_load_batch(mki_store *t, const mki_json *v)
{
    mki_batch *b = (mki_batch *)calloc(1, sizeof *b);
    mki_slot slots[MKI_BATCH_SLOTS];
    size_t i;

    if (b == NULL) {
        return false;
    }
    mki_copy(b->id, sizeof b->id, mki_get_text(v, "id"));
    mki_copy(b->endpoint, sizeof b->endpoint, mki_get_text(v, "endpoint"));
    mki_copy(b->model, sizeof b->model, mki_get_text(v, "model"));
    mki_copy(b->input, sizeof b->input, mki_get_text(v, "input"));
    mki_copy(b->output, sizeof b->output, mki_get_text(v, "output"));
    mki_copy(b->error, sizeof b->error, mki_get_text(v, "error"));
    b->serial = (uint64_t)mki_get_sane(v, "serial");
    b->content = (uint64_t)mki_get_int(v, "content", 0);
    i = (size_t)mki_get_sane(v, "end");
    b->end = i > MKI_B_CANCELLED ? MKI_B_FAILED : (mki_phase)i;
    mki_batch_slots(b, slots);
    for (i = 0; i < MKI_BATCH_SLOTS; i++) {
        *slots[i].value = mki_get_sane(v, slots[i].name);
    }
    b->polls = 0;
    b->job = mki_str_dup(mki_get_text(v, "job"));
    b->metadata = mki_get_raw(v, "metadata");
    b->errors = mki_get_raw(v, "errors");
    if (!mki_store_add_batch(t, b)) {
        mki_batch_free(b);
        return false;
    }
    return true;
}

/* One name in the folder. */
static void mki_store_load_one(void *ctx, const char *name)
{
    mki_store *t = (mki_store *)ctx;
    size_t len = strlen(name);
    mki_arena arena = MKI_ZERO;
    char path[1200];
    char *text;
    mki_json *v;

    mki_store_path(t, name, "", path);
    if (len > 4 && strcmp(name + len - 4, ".tmp") == 0) {
        unlink(path);
        return;
    }
    if (len < 6 || strcmp(name + len - 5, ".json") != 0) {
        return;
    }
    text = mki_file_read(path, &len);
    v = text != NULL ? mki_json_parse(&arena, mki_s(text, len)) : NULL;
    if (v == NULL ||
        !mki_same(mki_get_text(v, "id"), mki_s(name, strlen(name) - 5))) {
        ; /* not ours */
    } else if (strncmp(name, "file-", 5) == 0 && strlen(name) < 32 + 5) {
        mki_store_load_file(t, v);
    } else if (strncmp(name, "batch_", 6) == 0 && strlen(name) < 48 + 5) {
        mki_store_load_batch(t, v);
    }
    mki_arena_reset(&arena, true);
    free(text);
}

/* What a finished batch ran; the lowest bit: with an answer. */
static void mki_store_load_keys(mki_store *t, const mki_batch *b)
{
    unsigned char raw[8];
    char path[1200];
    FILE *f;

    mki_store_path(t, b->id, ".keys", path);
    f = b->end_ms > 0 ? fopen(path, "rb") : NULL;
    while (f != NULL && fread(raw, 1, 8, f) == 8) {
        uint64_t key = 0;
        mki_bill *bill;
        int i;

        for (i = 0; i < 8; i++) {
            key |= (uint64_t)raw[i] << (8 * i);
        }
        bill = mki_bill_get(t, key);
        if (bill != NULL) {
            bill->runs++;
            bill->answers += (uint32_t)(key & 1);
            bill->by = (key & 1) != 0 ? b->serial : bill->by;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
}

static int mki_file_order(const void *a, const void *b)
{
    uint64_t x = (*(mki_file *const *)a)->serial;
    uint64_t y = (*(mki_file *const *)b)->serial;

    return x < y ? -1 : x > y;
}

static int mki_batch_order(const void *a, const void *b)
{
    uint64_t x = (*(mki_batch *const *)a)->serial;
    uint64_t y = (*(mki_batch *const *)b)->serial;

    return x < y ? -1 : x > y;
}

/* Forgets a file. */
static void mki_store_drop_file(mki_store *t, size_t at)
{
    char path[1200];

    mki_store_path(t, t->files[at]->id, ".json", path);
    unlink(path);
    mki_store_path(t, t->files[at]->id, ".data", path);
    unlink(path);
    free(t->files[at]);
    t->n_files--;
    memmove((void *)&t->files[at], (const void *)&t->files[at + 1],
            (t->n_files - at) * sizeof *t->files);
}

/* What a killed process left half done: data that no file owns, inputs of
 * batches that are over or were never made. */
static void mki_store_sweep_one(void *ctx, const char *name)
{
    const mki_store *t = (const mki_store *)ctx;
    const char *dot = strrchr(name, '.');
    mki_str id = mki_s(name, dot != NULL ? (size_t)(dot - name) : 0);
    size_t at = mki_store_batch_at(t, id);
    bool lost = false;

    if (dot != NULL && strncmp(name, "file-", 5) == 0) {
        lost = mki_store_file(t, id) == NULL;
    } else if (dot != NULL && strncmp(name, "batch_", 6) == 0) {
        lost = at == 0 ||
               (strcmp(dot, ".in") == 0 && t->batches[at - 1]->end_ms > 0);
    }
    if (lost) {
        mki_store_remove(ctx, name);
    }
}

/* Makes the folder, if there is none yet. */
static bool mki_store_open(mki_store *t)
{
    if (!t->ready) {
        t->is_private = true;
        t->ready = mki_dir_private(t->dir, sizeof t->dir);
    }
    return t->ready;
}

/* Whether a batch names this output. */
static bool mki_store_owned(const mki_store *t, const char *id)
{
    size_t i = 0;

    while (i < t->n_batches && strcmp(t->batches[i]->output, id) != 0 &&
           strcmp(t->batches[i]->error, id) != 0) {
        i++;
    }
    return i < t->n_batches;
}

/* Reads what an earlier server left in options.data_dir. */
static bool mki_store_load(mki_store *t, const char *dir)
{
    size_t i;

    mki_copy(t->dir, sizeof t->dir, mki_sc(dir));
    t->ready = strlen(dir) < sizeof t->dir - 100 &&
               mki_dir_each(dir, mki_store_load_one, t);
    if (t->n_files > 0) {
        qsort((void *)t->files, t->n_files, sizeof *t->files, mki_file_order);
    }
    if (t->n_batches > 0) {
        qsort((void *)t->batches, t->n_batches, sizeof *t->batches,
              mki_batch_order);
    }
    for (i = 0; i < t->n_batches; i++) {
        mki_store_load_keys(t, t->batches[i]);
    }
    for (i = t->n_files; i > 0; i--) { /* made by a batch that began to end */
        if (strcmp(t->files[i - 1]->purpose, "batch_output") == 0 &&
            !mki_store_owned(t, t->files[i - 1]->id)) {
            mki_store_drop_file(t, i - 1);
        }
    }
    mki_dir_each(dir, mki_store_sweep_one, t);
    return t->ready;
}

/* Takes f over, whose bytes lie at tmp; false: no room, and nothing is left. */
static bool mki_store_keep(mki_store *t, mki_file *f, const char *tmp)
{
    char path[1200];

    mki_store_path(t, f->id, ".data", path);
    if (rename(tmp, path) == 0 && mki_store_save_file(t, f) &&
        mki_store_add_file(t, f)) {
        return true;
    }
    unlink(tmp);
    unlink(path);
    mki_store_path(t, f->id, ".json", path);
    unlink(path);
    free(f);
    return false;
}

/* Files whose time has come. */
static void mki_store_expire(mki_store *t, int64_t unix_s)
{
    size_t i = t->n_files;

    while (i > 0) {
        i--;
        if (t->files[i]->expires_at > 0 && unix_s >= t->files[i]->expires_at) {
            mki_store_drop_file(t, i);
        }
    }
}

/* ===========================================================================
 * >>models     known models and what they refuse
 * calls: >>bytes >>json
 *
 * Data of 2026-11; a name is looked up exactly, then without a date or behind
 * "ft:". Refusals happen only with options.model_profiles.
 * ======================================================================== */

typedef enum mki_family {
    MKI_M_CLASSIC, /* everything is allowed */
    MKI_M_O,       /* o-series */
    MKI_M_5,       /* gpt-5: no sampling at all */
    MKI_M_51,      /* gpt-5.1 to 5.4: sampling with effort none, the default */
    MKI_M_56,      /* gpt-5.6 and most of 6: effort none must be sent */
    MKI_M_ASTRA,   /* no sampling, no effort none */
    MKI_M_TEXT,    /* /v1/completions only */
    MKI_M_VECTOR   /* /v1/embeddings only */
} mki_family;

typedef struct mki_model {
    const char *name;
    mki_family family;
    int32_t shutdown; /* YYYYMMDD, or 0 */
    int dims;
} mki_model;

static const mki_model mki_models[] = {
    {"gpt-4o-mini", MKI_M_CLASSIC, 20270114, 0},
    {"gpt-4o", MKI_M_CLASSIC, 20270114, 0},
    {"gpt-4.1", MKI_M_CLASSIC, 20270114, 0},
    {"gpt-4.1-mini", MKI_M_CLASSIC, 20270114, 0},
    {"gpt-4.1-nano", MKI_M_CLASSIC, 20261023, 0},
    {"gpt-4", MKI_M_CLASSIC, 20261023, 0},
    {"gpt-4-turbo", MKI_M_CLASSIC, 20261023, 0},
    {"gpt-3.5-turbo", MKI_M_CLASSIC, 20261023, 0},
    {"gpt-5-chat-latest", MKI_M_CLASSIC, 0, 0},
    {"o1", MKI_M_O, 20261023, 0},
    {"o3-mini", MKI_M_O, 20261023, 0},
    {"o4-mini", MKI_M_O, 20261023, 0},
    {"o3", MKI_M_O, 20261211, 0},
    {"gpt-5", MKI_M_5, 20261211, 0},
    {"gpt-5-mini", MKI_M_5, 20261211, 0},
    {"gpt-5-nano", MKI_M_5, 20261211, 0},
    {"gpt-5.1", MKI_M_51, 20270401, 0},
    {"gpt-5.2", MKI_M_51, 0, 0},
    {"gpt-5.4", MKI_M_51, 0, 0},
    {"gpt-5.4-mini", MKI_M_51, 0, 0},
    {"gpt-5.6-sol", MKI_M_56, 0, 0},
    {"gpt-5.6-terra", MKI_M_56, 0, 0},
    {"gpt-5.6-luna", MKI_M_56, 0, 0},
    {"gpt-6-sol", MKI_M_56, 0, 0},
    {"gpt-6-luna", MKI_M_56, 0, 0},
    {"gpt-6.1-terra", MKI_M_56, 0, 0},
    {"gpt-6-astra", MKI_M_ASTRA, 0, 0},
    {"gpt-6.1-sol", MKI_M_ASTRA, 0, 0},
    {"gpt-3.5-turbo-instruct", MKI_M_TEXT, 20260928, 0},
    {"babbage-002", MKI_M_TEXT, 20260928, 0},
    {"davinci-002", MKI_M_TEXT, 20260928, 0},
    {"text-davinci-003", MKI_M_TEXT, 20240104, 0},
    {"text-embedding-3-small", MKI_M_VECTOR, 0, 1536},
    {"text-embedding-3-large", MKI_M_VECTOR, 0, 3072},
    {"text-embedding-ada-002", MKI_M_VECTOR, 0, 1536},
};

/* Whether the end of a name is "-YYYY-MM-DD" or "-MMDD". */
static bool mki_model_dated(mki_str tail)
{
    size_t i;

    for (i = 1; i < tail.len; i++) {
        if (tail.ptr[i] != '-' && (tail.ptr[i] < '0' || tail.ptr[i] > '9')) {
            return false;
        }
    }
    return (tail.len == 11 || tail.len == 5) && tail.ptr[0] == '-';
}

/* NULL: no such model. */
static const mki_model *mki_model_find(mki_str name)
{
    size_t i;

    if (mki_starts(name, "ft:")) {
        size_t end = mki_find(name, mki_sc(":"), 3);

        name = mki_s(name.ptr + 3, (end == SIZE_MAX ? name.len : end) - 3);
    }
    for (i = 0; i < MKI_COUNT(mki_models); i++) {
        size_t len = strlen(mki_models[i].name);

        if (mki_starts(name, mki_models[i].name) &&
            (name.len == len ||
             mki_model_dated(mki_s(name.ptr + len, name.len - len)))) {
            return &mki_models[i];
        }
    }
    return NULL;
}

static int32_t mki_today(int64_t unix_ms)
{
    time_t t = (time_t)(unix_ms / 1000);
    struct tm tm;

    gmtime_r(&t, &tm);
    return (tm.tm_year + 1900) * 10000 + (tm.tm_mon + 1) * 100 + tm.tm_mday;
}

/* ===========================================================================
 * >>check      validation of request bodies
 * calls: >>json >>models
 *
 * Tables say which members a body may have, of which type and range; functions
 * check what a table cannot. The first problem found is the answer.
 * ======================================================================== */

typedef struct mki_problem {
    int status;
    const char *type, *code; /* code NULL: null */
    char param[96];          /* "": null */
    char message[640];
} mki_problem;

/* Fills in a 400 and returns false. param and code may be NULL. */
MKI_PRINTF(4, 5)
static bool mki_bad(mki_problem *p, const char *param, const char *code,
                    const char *fmt, ...)
{
    va_list args;

    p->status = 400;
    p->type = "invalid_request_error";
    p->code = code;
    mki_copy(p->param, sizeof p->param, mki_sc(param != NULL ? param : ""));
    va_start(args, fmt);
    vsnprintf(p->message, sizeof p->message, fmt, args);
    va_end(args);
    return false;
}

/* Text of the client inside a message: printable, bounded. */
static const char *mki_quote(mki_str s, char out[64])
{
    size_t i;

    mki_copy(out, 61, s);
    for (i = 0; out[i] != '\0'; i++) {
        if ((unsigned char)out[i] < 0x20 || (unsigned char)out[i] > 0x7e) {
            out[i] = '?';
        }
    }
    return out;
}

static bool mki_bad_type(mki_problem *p, const char *param, const char *wanted,
                         const mki_json *v)
{
    return mki_bad(p, param, "invalid_type",
                   "Invalid type for '%s': expected %s, but got %s instead.",
                   param, wanted, mki_type_name(v));
}

static bool mki_bad_missing(mki_problem *p, const char *param)
{
    return mki_bad(p, param, "missing_required_parameter",
                   "Missing required parameter: '%s'.", param);
}

typedef enum mki_want {
    MKI_W_ANY,
    MKI_W_STRING,
    MKI_W_INT,
    MKI_W_NUMBER,
    MKI_W_BOOL,
    MKI_W_ARRAY,
    MKI_W_OBJECT,
    MKI_W_STOP, /* a string, or up to four */
    MKI_W_WORD, /* one of the words in words */
    MKI_W_META, /* up to 16 pairs of text */
    MKI_W_BIAS  /* numbers from -100 to 100 */
} mki_want;

typedef struct mki_rule {
    const char *name;
    mki_want want;
    int lo, hi;        /* numbers; hi < lo: no upper limit */
    const char *words; /* " a b c " */
} mki_rule;

static const mki_rule mki_chat_rules[] = {
    {"model", MKI_W_STRING, 0, 0, NULL},
    {"messages", MKI_W_ARRAY, 0, 0, NULL},
    {"max_completion_tokens", MKI_W_INT, 1, 0, NULL},
    {"max_tokens", MKI_W_INT, 1, 0, NULL},
    {"temperature", MKI_W_NUMBER, 0, 2, NULL},
    {"top_p", MKI_W_NUMBER, 0, 1, NULL},
    {"frequency_penalty", MKI_W_NUMBER, -2, 2, NULL},
    {"presence_penalty", MKI_W_NUMBER, -2, 2, NULL},
    {"n", MKI_W_INT, 1, 128, NULL},
    {"stop", MKI_W_STOP, 0, 0, NULL},
    {"seed", MKI_W_INT, INT_MIN, INT_MIN, NULL},
    {"logprobs", MKI_W_BOOL, 0, 0, NULL},
    {"top_logprobs", MKI_W_INT, 0, 20, NULL},
    {"logit_bias", MKI_W_BIAS, 0, 0, NULL},
    {"response_format", MKI_W_OBJECT, 0, 0, NULL},
    {"tools", MKI_W_ARRAY, 0, 0, NULL},
    {"tool_choice", MKI_W_ANY, 0, 0, NULL},
    {"parallel_tool_calls", MKI_W_BOOL, 0, 0, NULL},
    {"stream", MKI_W_BOOL, 0, 0, NULL},
    {"stream_options", MKI_W_OBJECT, 0, 0, NULL},
    {"metadata", MKI_W_META, 0, 0, NULL},
    {"store", MKI_W_BOOL, 0, 0, NULL},
    {"service_tier", MKI_W_WORD, 0, 0,
     " auto default flex scale priority fast "},
    {"reasoning_effort", MKI_W_WORD, 0, 0,
     " none minimal low medium high xhigh max "},
    {"verbosity", MKI_W_WORD, 0, 0, " low medium high "},
    {"prompt_cache_key", MKI_W_STRING, 0, 0, NULL},
    {"prompt_cache_retention", MKI_W_WORD, 0, 0, " in_memory in-memory 24h "},
    {"prompt_cache_options", MKI_W_OBJECT, 0, 0, NULL},
    {"safety_identifier", MKI_W_STRING, 0, 64, NULL},
    {"user", MKI_W_STRING, 0, 0, NULL},
    {"prediction", MKI_W_OBJECT, 0, 0, NULL},
    {"modalities", MKI_W_ARRAY, 0, 0, NULL},
    {"audio", MKI_W_OBJECT, 0, 0, NULL},
    {"web_search_options", MKI_W_OBJECT, 0, 0, NULL},
    {"moderation", MKI_W_ANY, 0, 0, NULL},
    {"functions", MKI_W_ARRAY, 0, 0, NULL},
    {"function_call", MKI_W_ANY, 0, 0, NULL},
};

static const mki_rule mki_text_rules[] = {
    {"model", MKI_W_STRING, 0, 0, NULL},
    {"prompt", MKI_W_ANY, 0, 0, NULL},
    {"max_tokens", MKI_W_INT, 0, -1, NULL},
    {"temperature", MKI_W_NUMBER, 0, 2, NULL},
    {"top_p", MKI_W_NUMBER, 0, 1, NULL},
    {"frequency_penalty", MKI_W_NUMBER, -2, 2, NULL},
    {"presence_penalty", MKI_W_NUMBER, -2, 2, NULL},
    {"n", MKI_W_INT, 1, 128, NULL},
    {"best_of", MKI_W_INT, 0, 20, NULL},
    {"echo", MKI_W_BOOL, 0, 0, NULL},
    {"logprobs", MKI_W_INT, 0, 5, NULL},
    {"stop", MKI_W_STOP, 0, 0, NULL},
    {"suffix", MKI_W_STRING, 0, 0, NULL},
    {"seed", MKI_W_INT, INT_MIN, INT_MIN, NULL},
    {"logit_bias", MKI_W_BIAS, 0, 0, NULL},
    {"stream", MKI_W_BOOL, 0, 0, NULL},
    {"stream_options", MKI_W_OBJECT, 0, 0, NULL},
    {"user", MKI_W_STRING, 0, 0, NULL},
};

static const mki_rule mki_vector_rules[] = {
    {"model", MKI_W_STRING, 0, 0, NULL},
    {"input", MKI_W_ANY, 0, 0, NULL},
    {"encoding_format", MKI_W_WORD, 0, 0, " float base64 "},
    {"dimensions", MKI_W_INT, 1, 0, NULL},
    {"user", MKI_W_STRING, 0, 0, NULL},
};

static bool mki_check_word(const mki_rule *r, const mki_json *v, mki_problem *p)
{
    char padded[64];
    char shown[64];

    if (v->type != MKI_STRING) {
        return mki_bad_type(p, r->name, "a string", v);
    }
    mki_quote(v->text, shown);
    snprintf(padded, sizeof padded, " %.60s ", shown);
    if (v->text.len > 40 || strchr(shown, ' ') != NULL ||
        strstr(r->words, padded) == NULL) {
        return mki_bad(p, r->name, "invalid_value",
                       "Invalid value: '%s'. Supported values are:%s.", shown,
                       r->words);
    }
    return true;
}

static bool mki_check_range(const mki_rule *r, const mki_json *v,
                            mki_problem *p)
{
    bool whole = r->want == MKI_W_INT;
    const char *kind = whole ? "integer" : "decimal";
    char shown[64];

    mki_quote(v->text, shown);
    if (r->lo != INT_MIN && v->d < r->lo) {
        return mki_bad(p, r->name,
                       whole ? "integer_below_min_value"
                             : "decimal_below_min_value",
                       "Invalid '%s': %s below minimum value. Expected a value "
                       ">= %d, but got %s instead.",
                       r->name, kind, r->lo, shown);
    }
    if (r->hi > r->lo && v->d > r->hi) {
        return mki_bad(p, r->name,
                       whole ? "integer_above_max_value"
                             : "decimal_above_max_value",
                       "Invalid '%s': %s above maximum value. Expected a value "
                       "<= %d, but got %s instead.",
                       r->name, kind, r->hi, shown);
    }
    return true;
}

static bool mki_check_stop(const mki_json *v, mki_problem *p)
{
    const mki_json *m;

    if (v->type == MKI_STRING) {
        return true;
    }
    if (v->type != MKI_ARRAY) {
        return mki_bad_type(p, "stop", "a string or an array of strings", v);
    }
    if (v->n > 4) {
        return mki_bad(p, "stop", "array_above_max_length",
                       "Invalid 'stop': array too long. Expected an array with "
                       "maximum length 4, but got an array with length %d "
                       "instead.",
                       (int)v->n);
    }
    for (m = v->child; m != NULL; m = m->next) {
        if (m->type != MKI_STRING) {
            return mki_bad_type(p, "stop", "an array of strings", m);
        }
    }
    return true;
}

/* metadata and logit_bias */
static bool mki_check_map(const mki_rule *r, const mki_json *v, mki_problem *p)
{
    const mki_json *m;
    char param[128];
    char shown[64];

    if (v->type != MKI_OBJECT) {
        return mki_bad_type(p, r->name, "an object", v);
    }
    if (r->want == MKI_W_META && v->n > 16) {
        return mki_bad(p, r->name, "object_above_max_properties",
                       "Invalid 'metadata': too many properties. Expected at "
                       "most 16, but got %d instead.",
                       (int)v->n);
    }
    for (m = v->child; m != NULL; m = m->next) {
        snprintf(param, sizeof param, "%s.%s", r->name,
                 mki_quote(m->key, shown));
        if (r->want == MKI_W_BIAS) {
            if ((m->type != MKI_INT && m->type != MKI_NUMBER) || m->d < -100 ||
                m->d > 100) {
                return mki_bad(p, param, "invalid_value",
                               "Invalid '%s': expected a number from -100 to "
                               "100.",
                               param);
            }
        } else if (m->type != MKI_STRING) {
            return mki_bad_type(p, param, "a string", m);
        } else if (mki_utf8_count(m->key) > 64 ||
                   mki_utf8_count(m->text) > 512) {
            return mki_bad(p, param, "string_above_max_length",
                           "Invalid '%s': string too long (keys 64, values "
                           "512 characters).",
                           param);
        }
    }
    return true;
}

static bool mki_check_rule(const mki_rule *r, const mki_json *v, mki_problem *p)
{
    switch (r->want) {
    case MKI_W_STRING:
        if (v->type != MKI_STRING) {
            return mki_bad_type(p, r->name, "a string", v);
        }
        if (r->hi > 0 && mki_utf8_count(v->text) > (size_t)r->hi) {
            return mki_bad(p, r->name, "string_above_max_length",
                           "Invalid '%s': string too long. Expected a string "
                           "with maximum length %d.",
                           r->name, r->hi);
        }
        return true;
    case MKI_W_INT:
        return v->type != MKI_INT ? mki_bad_type(p, r->name, "an integer", v)
                                  : mki_check_range(r, v, p);
    case MKI_W_NUMBER:
        return v->type != MKI_INT && v->type != MKI_NUMBER
                   ? mki_bad_type(p, r->name, "a decimal", v)
                   : mki_check_range(r, v, p);
    case MKI_W_BOOL:
        return v->type == MKI_TRUE || v->type == MKI_FALSE ||
               mki_bad_type(p, r->name, "a boolean", v);
    case MKI_W_ARRAY:
        return v->type == MKI_ARRAY || mki_bad_type(p, r->name, "an array", v);
    case MKI_W_OBJECT:
        return v->type == MKI_OBJECT ||
               mki_bad_type(p, r->name, "an object", v);
    case MKI_W_STOP:
        return mki_check_stop(v, p);
    case MKI_W_WORD:
        return mki_check_word(r, v, p);
    case MKI_W_META:
    case MKI_W_BIAS:
        return mki_check_map(r, v, p);
    case MKI_W_ANY:
        break;
    }
    return true;
}

/* Every member of the body against the table; null counts as absent. */
static bool mki_check_fields(const mki_json *body, const mki_rule *rules,
                             size_t n, mki_problem *p)
{
    const mki_json *m;
    char shown[64];
    size_t i;

    for (m = body->child; m != NULL; m = m->next) {
        for (i = 0; i < n && !mki_eq(m->key, rules[i].name); i++) {
        }
        if (i == n) {
            mki_quote(m->key, shown);
            return mki_bad(p, shown, "unknown_parameter",
                           "Unknown parameter: '%s'.", shown);
        }
        if (m->type != MKI_NULL && !mki_check_rule(&rules[i], m, p)) {
            return false;
        }
    }
    return true;
}

static bool mki_check_part(const mki_json *part, const char *where,
                           mki_problem *p)
{
    static const char *const kinds[] = {"text", "image_url", "input_audio",
                                        "file", "refusal"};
    mki_str type = mki_get_text(part, "type");
    char param[96];
    char shown[64];
    size_t i;

    if (part->type != MKI_OBJECT) {
        return mki_bad_type(p, where, "an object", part);
    }
    if (type.ptr == NULL) {
        snprintf(param, sizeof param, "%.80s.type", where);
        return mki_bad_missing(p, param);
    }
    for (i = 0; i < MKI_COUNT(kinds); i++) {
        if (mki_eq(type, kinds[i])) {
            if (mki_get_set(part, kinds[i]) == NULL) {
                snprintf(param, sizeof param, "%.70s.%s", where, kinds[i]);
                return mki_bad_missing(p, param);
            }
            return true;
        }
    }
    return mki_bad(p, where, "invalid_value",
                   "Invalid value: '%s'. Supported values are: 'text', "
                   "'image_url', 'input_audio', 'refusal', 'audio', and "
                   "'file'.",
                   mki_quote(type, shown));
}

static bool mki_check_content(const mki_json *m, int index, bool optional,
                              mki_problem *p)
{
    const mki_json *content = mki_get_set(m, "content");
    const mki_json *part;
    char param[96];
    int i = 0;

    snprintf(param, sizeof param, "messages[%d].content", index);
    if (content == NULL) {
        return optional || (mki_get(m, "content") != NULL
                                ? mki_bad_type(p, param,
                                               "one of a string or array of "
                                               "objects",
                                               mki_get(m, "content"))
                                : mki_bad_missing(p, param));
    }
    if (content->type == MKI_STRING) {
        return true;
    }
    if (content->type != MKI_ARRAY) {
        return mki_bad_type(p, param, "one of a string or array of objects",
                            content);
    }
    for (part = content->child; part != NULL; part = part->next, i++) {
        snprintf(param, sizeof param, "messages[%d].content[%d]", index, i);
        if (!mki_check_part(part, param, p)) {
            return false;
        }
    }
    return true;
}

static bool mki_check_message(const mki_json *m, int index, mki_problem *p)
{
    static const char *const roles[] = {"system",    "developer", "user",
                                        "assistant", "tool",      "function"};
    mki_str role = mki_get_text(m, "role");
    char param[96];
    char shown[64];
    size_t i;
    bool optional;

    snprintf(param, sizeof param, "messages[%d]", index);
    if (m->type != MKI_OBJECT) {
        return mki_bad_type(p, param, "an object", m);
    }
    snprintf(param, sizeof param, "messages[%d].role", index);
    if (role.ptr == NULL) {
        return mki_get_set(m, "role") != NULL
                   ? mki_bad_type(p, param, "a string", mki_get(m, "role"))
                   : mki_bad_missing(p, param);
    }
    for (i = 0; i < MKI_COUNT(roles) && !mki_eq(role, roles[i]); i++) {
    }
    if (i == MKI_COUNT(roles)) {
        return mki_bad(p, param, "invalid_value",
                       "Invalid value: '%s'. Supported values are: 'system', "
                       "'assistant', 'user', 'function', 'tool', and "
                       "'developer'.",
                       mki_quote(role, shown));
    }
    if (i == 4 && mki_get_text(m, "tool_call_id").ptr == NULL) {
        snprintf(param, sizeof param, "messages[%d].tool_call_id", index);
        return mki_bad_missing(p, param);
    }
    optional = i == 3 && (mki_get_set(m, "tool_calls") != NULL ||
                          mki_get_set(m, "function_call") != NULL ||
                          mki_get_set(m, "refusal") != NULL);
    return mki_check_content(m, index, optional, p);
}

/* The strict subset (2.4 of the contract): a schema and all inside it. */
static bool mki_check_strict(const mki_json *s, int depth, int *count,
                             mki_problem *p)
{
    static const char *const banned[] = {
        "allOf", "not", "dependentRequired", "dependentSchemas", "if",
        "then",  "else"};
    const mki_json *props = mki_get_set(s, "properties");
    const mki_json *required = mki_get_set(s, "required");
    const mki_json *m;
    char shown[64];
    size_t i;
    const char *why = NULL;

    if (s->type != MKI_OBJECT) {
        return true;
    }
    for (i = 0; i < MKI_COUNT(banned); i++) {
        why = mki_get(s, banned[i]) != NULL ? banned[i] : why;
    }
    if (why != NULL) {
        return mki_bad(p, "response_format", NULL,
                       "Invalid schema for response_format: '%s' is not "
                       "permitted.",
                       why);
    }
    if (depth > 10) {
        return mki_bad(p, "response_format", NULL,
                       "Invalid schema for response_format: more than 10 "
                       "levels of nesting.");
    }
    if (mki_eq(mki_get_text(s, "type"), "object") || props != NULL) {
        const mki_json *extra = mki_get(s, "additionalProperties");

        if (extra == NULL || extra->type != MKI_FALSE) {
            return mki_bad(p, "response_format", NULL,
                           "Invalid schema for response_format: "
                           "'additionalProperties' is required to be supplied "
                           "and to be false.");
        }
    }
    for (m = props != NULL ? props->child : NULL; m != NULL; m = m->next) {
        const mki_json *r = required != NULL ? required->child : NULL;

        for (; r != NULL && !mki_same(r->text, m->key); r = r->next) {
        }
        if (r == NULL) {
            return mki_bad(p, "response_format", NULL,
                           "Invalid schema for response_format: 'required' is "
                           "required to be supplied and to be an array "
                           "including every key in properties. Missing '%s'.",
                           mki_quote(m->key, shown));
        }
        if (++*count > 5000) {
            return mki_bad(p, "response_format", NULL,
                           "Invalid schema for response_format: more than "
                           "5000 properties.");
        }
        if (!mki_check_strict(m, depth + 1, count, p)) {
            return false;
        }
    }
    for (m = s->child; m != NULL; m = m->next) {
        const mki_json *sub = m->type == MKI_OBJECT ? m : m->child;
        bool schemas = mki_eq(m->key, "items") || mki_eq(m->key, "anyOf");
        bool defs = mki_eq(m->key, "$defs") || mki_eq(m->key, "definitions");

        if (schemas && m->type == MKI_OBJECT) {
            if (!mki_check_strict(m, depth + 1, count, p)) {
                return false;
            }
        } else if (schemas || defs) {
            for (sub = m->child; sub != NULL; sub = sub->next) {
                if (!mki_check_strict(sub, depth + (defs ? 0 : 1), count, p)) {
                    return false;
                }
            }
        }
    }
    return true;
}

static bool mki_name_ok(mki_str s)
{
    size_t i;

    for (i = 0; i < s.len; i++) {
        char c = mki_lower(s.ptr[i]);

        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_' &&
            c != '-') {
            return false;
        }
    }
    return s.len >= 1 && s.len <= 64;
}

static bool mki_check_schema(const mki_json *format, mki_problem *p)
{
    const mki_json *js = mki_get_set(format, "json_schema");
    const mki_json *schema = mki_get_set(js, "schema");
    mki_str name = mki_get_text(js, "name");
    int count = 0;

    if (js == NULL) {
        return mki_bad_missing(p, "response_format.json_schema");
    }
    if (name.ptr == NULL) {
        return mki_bad_missing(p, "response_format.json_schema.name");
    }
    if (!mki_name_ok(name)) {
        return mki_bad(p, "response_format.json_schema.name", "invalid_value",
                       "Invalid 'response_format.json_schema.name': expected "
                       "a string that matches the pattern "
                       "'^[a-zA-Z0-9_-]+$', of at most 64 characters.");
    }
    if (schema == NULL || schema->type != MKI_OBJECT) {
        return schema == NULL
                   ? mki_bad_missing(p, "response_format.json_schema.schema")
                   : mki_bad_type(p, "response_format.json_schema.schema",
                                  "an object", schema);
    }
    if (!mki_get_true(js, "strict")) {
        return true;
    }
    if (!mki_eq(mki_get_text(schema, "type"), "object") ||
        mki_get(schema, "anyOf") != NULL) {
        return mki_bad(p, "response_format", NULL,
                       "Invalid schema for response_format '%.*s': schema must "
                       "be a JSON Schema of 'type: \"object\"', and not "
                       "'anyOf'.",
                       (int)name.len, name.ptr);
    }
    return mki_check_strict(schema, 1, &count, p);
}

/* Whether some message says "json", in any case. */
static bool mki_says_json(const mki_json *messages)
{
    const mki_json *m;
    size_t i;

    for (m = messages->child; m != NULL; m = m->next) {
        const mki_json *c = mki_get(m, "content");
        mki_str t = c != NULL ? c->text : mki_s("", 0);

        for (i = 0; i + 4 <= t.len; i++) {
            if (mki_ieq(mki_s(t.ptr + i, 4), "json")) {
                return true;
            }
        }
    }
    return false;
}

static bool mki_check_format(const mki_json *body, mki_problem *p)
{
    const mki_json *format = mki_get_set(body, "response_format");
    mki_str type = mki_get_text(format, "type");
    char shown[64];

    if (format == NULL || mki_eq(type, "text")) {
        return true;
    }
    if (type.ptr == NULL) {
        return mki_bad_missing(p, "response_format.type");
    }
    if (mki_eq(type, "json_schema")) {
        return mki_check_schema(format, p);
    }
    if (!mki_eq(type, "json_object")) {
        return mki_bad(p, "response_format.type", "invalid_value",
                       "Invalid value: '%s'. Supported values are: "
                       "'json_object', 'json_schema', and 'text'.",
                       mki_quote(type, shown));
    }
    if (!mki_says_json(mki_get(body, "messages"))) {
        return mki_bad(p, "messages", NULL,
                       "'messages' must contain the word 'json' in some form, "
                       "to use 'response_format' of type 'json_object'.");
    }
    return true;
}

static bool mki_check_tools(const mki_json *body, mki_problem *p)
{
    const mki_json *tools = mki_get_set(body, "tools");
    const mki_json *choice = mki_get_set(body, "tool_choice");
    const mki_json *t;
    char param[96];
    int i = 0;

    if (tools != NULL && tools->n == 0) {
        return mki_bad(p, "tools", "empty_array",
                       "Invalid 'tools': empty array. Expected an array with "
                       "minimum length 1, but got an empty array instead.");
    }
    if (tools == NULL && choice != NULL) {
        return mki_bad(p, "tool_choice", NULL,
                       "Invalid value for 'tool_choice': 'tool_choice' is only "
                       "allowed when 'tools' are specified.");
    }
    for (t = tools != NULL ? tools->child : NULL; t != NULL; t = t->next, i++) {
        mki_str type = mki_get_text(t, "type");
        mki_str name = mki_get_text(mki_get(t, "function"), "name");

        if (mki_eq(type, "custom")) {
            continue;
        }
        snprintf(param, sizeof param, "tools[%d].type", i);
        if (!mki_eq(type, "function")) {
            return type.ptr == NULL
                       ? mki_bad_missing(p, param)
                       : mki_bad(p, param, "invalid_value",
                                 "Invalid value for '%s'. Supported values "
                                 "are: 'function' and 'custom'.",
                                 param);
        }
        snprintf(param, sizeof param, "tools[%d].function.name", i);
        if (!mki_name_ok(name)) {
            return name.ptr == NULL
                       ? mki_bad_missing(p, param)
                       : mki_bad(p, param, "invalid_value",
                                 "Invalid '%s': string does not match "
                                 "pattern.",
                                 param);
        }
    }
    return true;
}

/* What the family refuses (2.2 of the contract). */
static bool mki_check_profile(const mki_json *body, const mki_model *model,
                              mki_problem *p)
{
    static const char *const sampling[] = {"temperature", "top_p", "logprobs"};
    static const char *const penalties[] = {"presence_penalty",
                                            "frequency_penalty", "stop"};
    static const char *const efforts[] = {"",
                                          "low medium high",
                                          "minimal low medium high",
                                          "none low medium high xhigh",
                                          "none low medium high xhigh max",
                                          "low medium high xhigh max"};
    mki_family f = model->family;
    mki_str effort = mki_get_text(body, "reasoning_effort");
    bool none = mki_eq(effort, "none") || (f == MKI_M_51 && effort.ptr == NULL);
    char shown[64];
    size_t i;

    if (f == MKI_M_CLASSIC) {
        return effort.ptr == NULL ||
               mki_bad(p, "reasoning_effort", "unsupported_parameter",
                       "Unsupported parameter: 'reasoning_effort' is not "
                       "supported with this model.");
    }
    if (mki_get_set(body, "max_tokens") != NULL) {
        return mki_bad(p, "max_tokens", "unsupported_parameter",
                       "Unsupported parameter: 'max_tokens' is not supported "
                       "with this model. Use 'max_completion_tokens' instead.");
    }
    if (effort.ptr != NULL &&
        !mki_has(mki_sc(efforts[f]), mki_quote(effort, shown))) {
        return mki_bad(p, "reasoning_effort", "unsupported_value",
                       "Unsupported value: 'reasoning_effort' does not support "
                       "'%s' with this model. Supported values are: %s.",
                       shown, efforts[f]);
    }
    for (i = 0; i < MKI_COUNT(sampling); i++) {
        const mki_json *v = mki_get_set(body, sampling[i]);

        if (v == NULL || ((f == MKI_M_51 || f == MKI_M_56) && none) ||
            (v->type == MKI_INT && v->i == 1) || v->type == MKI_FALSE) {
            continue;
        }
        return i == 0 ? mki_bad(p, sampling[i], "unsupported_value",
                                "Unsupported value: '%s' does not support %s "
                                "with this model: only the default (1) value "
                                "is supported.",
                                sampling[i], mki_quote(v->text, shown))
                      : mki_bad(p, sampling[i], "unsupported_parameter",
                                "Unsupported parameter: '%s' is not supported "
                                "with this model.",
                                sampling[i]);
    }
    for (i = 0; i < MKI_COUNT(penalties); i++) {
        const mki_json *v = mki_get_set(body, penalties[i]);

        if (v != NULL && !(v->type == MKI_INT && v->i == 0)) {
            return mki_bad(p, penalties[i], "unsupported_parameter",
                           "Unsupported parameter: '%s' is not supported with "
                           "this model.",
                           penalties[i]);
        }
    }
    if (mki_get_set(body, "tools") != NULL &&
        (f == MKI_M_ASTRA || (f == MKI_M_56 && !none))) {
        return mki_bad(p, "reasoning_effort", NULL,
                       "Function tools with reasoning_effort are not supported "
                       "for this model in /v1/chat/completions. Please use "
                       "/v1/responses or set reasoning_effort to 'none'.");
    }
    return true;
}

static bool mki_bad_model(mki_problem *p, const char *shown)
{
    mki_bad(p, NULL, "model_not_found",
            "The model `%s` does not exist or you do not have access to it.",
            shown);
    p->status = 404;
    return false;
}

/* Model against endpoint; only with profiles. */
static bool mki_check_model(mki_str name, mki_route route, int32_t today,
                            const mki_model **out, mki_problem *p)
{
    const mki_model *m = mki_model_find(name);
    char shown[64];

    mki_quote(name, shown);
    *out = m;
    if (m == NULL || (m->shutdown != 0 && today >= m->shutdown)) {
        return mki_bad_model(p, shown);
    }
    if (route == MKI_CHAT && m->family >= MKI_M_TEXT) {
        mki_bad(p, "model", NULL,
                "This is not a chat model and thus not supported in the "
                "v1/chat/completions endpoint. Did you mean to use "
                "v1/completions?");
    } else if (route == MKI_COMPLETIONS && m->family != MKI_M_TEXT) {
        mki_bad(p, "model", NULL,
                "This is a chat model and not supported in the v1/completions "
                "endpoint. Did you mean to use v1/chat/completions?");
    } else if (route == MKI_EMBEDDINGS && m->family != MKI_M_VECTOR) {
        mki_bad(p, NULL, NULL,
                "You are not allowed to generate embeddings from this model");
        p->status = 403;
        return false;
    } else {
        return true;
    }
    p->status = 404;
    return false;
}

/* The parts that need more than one member. */
static bool mki_check_chat(const mki_json *body, mki_problem *p)
{
    const mki_json *messages = mki_get_set(body, "messages");
    const mki_json *m;
    int i = 0;

    if (messages == NULL) {
        return mki_bad_missing(p, "messages");
    }
    if (messages->n == 0) {
        return mki_bad(p, "messages", "empty_array",
                       "Invalid 'messages': empty array. Expected an array "
                       "with minimum length 1, but got an empty array "
                       "instead.");
    }
    for (m = messages->child; m != NULL; m = m->next) {
        if (!mki_check_message(m, i++, p)) {
            return false;
        }
    }
    if (mki_get_set(body, "top_logprobs") != NULL &&
        !mki_get_true(body, "logprobs")) {
        return mki_bad(p, "top_logprobs", NULL,
                       "Invalid value for 'top_logprobs': must be set to null "
                       "when logprobs is not set to true.");
    }
    if (mki_get_set(body, "max_tokens") != NULL &&
        mki_get_set(body, "max_completion_tokens") != NULL) {
        return mki_bad(p, "max_tokens", "invalid_parameter_combination",
                       "Setting 'max_tokens' and 'max_completion_tokens' at "
                       "the same time is not supported.");
    }
    return mki_check_format(body, p) && mki_check_tools(body, p);
}

static bool mki_check_text(const mki_json *body, mki_problem *p)
{
    int64_t n = mki_get_int(body, "n", 1);
    int64_t best = mki_get_int(body, "best_of", n);
    const mki_json *prompt = mki_get_set(body, "prompt");

    if (prompt != NULL && prompt->type != MKI_STRING &&
        prompt->type != MKI_ARRAY) {
        return mki_bad_type(p, "prompt", "a string or an array", prompt);
    }
    if (best < n) {
        return mki_bad(p, "best_of", NULL,
                       "You requested that the server return more choices than "
                       "it will generate (HINT: you must set 'n' (currently "
                       "%d) to be at most 'best_of' (currently %d)).",
                       (int)n, (int)best);
    }
    if (best > n && mki_get_true(body, "stream")) {
        return mki_bad(p, "best_of", NULL,
                       "best_of cannot be used with stream.");
    }
    return true;
}

static bool mki_check_vector(const mki_json *body, const mki_model *model,
                             mki_problem *p)
{
    const mki_json *input = mki_get_set(body, "input");
    const mki_json *m;

    if (input == NULL) {
        return mki_bad_missing(p, "input");
    }
    if (input->type != MKI_STRING && input->type != MKI_ARRAY) {
        return mki_bad_type(p, "input", "a string or an array", input);
    }
    if (input->type == MKI_ARRAY && input->n == 0) {
        return mki_bad(p, "input", "empty_array",
                       "Invalid 'input': input cannot be an empty array.");
    }
    if (input->type == MKI_ARRAY && input->n > 2048 &&
        input->child->type != MKI_INT) {
        return mki_bad(p, "input", "array_above_max_length",
                       "Invalid 'input': array too long. Expected an array "
                       "with maximum length 2048, but got an array with length "
                       "%d instead.",
                       (int)input->n);
    }
    for (m = input->type == MKI_STRING ? input : input->child; m != NULL;
         m = m->next) {
        if (m->type == MKI_STRING && m->text.len == 0) {
            return mki_bad(p, "input", "invalid_value",
                           "Invalid 'input': input cannot be an empty "
                           "string.");
        }
        if (input->type == MKI_ARRAY && m->type != input->child->type) {
            return mki_bad_type(p, "input", "elements of one type", m);
        }
        if (input->type == MKI_STRING) {
            break;
        }
    }
    if (mki_get_set(body, "dimensions") != NULL) {
        int64_t dims = mki_get_int(body, "dimensions", 1);
        int64_t most = model != NULL ? model->dims : 3072;

        if (mki_eq(mki_get_text(body, "model"), "text-embedding-ada-002")) {
            return mki_bad(p, "dimensions", NULL,
                           "This model does not support specifying "
                           "dimensions.");
        }
        if (dims > most) {
            return mki_bad(p, "dimensions", "integer_above_max_value",
                           "Invalid 'dimensions': integer above maximum value. "
                           "Expected a value <= %d, but got %d instead.",
                           (int)most, (int)dims);
        }
    }
    return true;
}

static bool mki_check_stream(const mki_json *body, mki_problem *p)
{
    if (mki_get_set(body, "stream_options") != NULL &&
        !mki_get_true(body, "stream")) {
        return mki_bad(p, "stream_options", NULL,
                       "The 'stream_options' parameter is only allowed when "
                       "'stream' is enabled.");
    }
    return true;
}

typedef struct mki_check {
    mki_route route;
    bool profiles;
    int32_t today;
    mki_str deployment; /* Azure: takes the place of the model */
} mki_check;

/* The whole body of a POST; false: p says what is wrong. */
static bool mki_check_body(const mki_check *how, const mki_json *body,
                           mki_problem *p)
{
    const mki_rule *rules = how->route == MKI_CHAT          ? mki_chat_rules
                            : how->route == MKI_COMPLETIONS ? mki_text_rules
                                                            : mki_vector_rules;
    size_t n = how->route == MKI_CHAT          ? MKI_COUNT(mki_chat_rules)
               : how->route == MKI_COMPLETIONS ? MKI_COUNT(mki_text_rules)
                                               : MKI_COUNT(mki_vector_rules);
    mki_str name = mki_get_text(body, "model");
    const mki_model *model = NULL;

    if (!mki_check_fields(body, rules, n, p)) {
        return false;
    }
    name = how->deployment.len > 0 ? how->deployment : name;
    if (name.len == 0) {
        return mki_bad(p, NULL, NULL, "you must provide a model parameter");
    }
    model = mki_model_find(name);
    if (how->profiles && how->deployment.len == 0 &&
        !mki_check_model(name, how->route, how->today, &model, p)) {
        return false;
    }
    if (how->route == MKI_EMBEDDINGS) {
        return mki_check_vector(body, model, p);
    }
    if (!mki_check_stream(body, p)) {
        return false;
    }
    if (how->route == MKI_COMPLETIONS) {
        return mki_check_text(body, p);
    }
    return mki_check_chat(body, p) && (!how->profiles || model == NULL ||
                                       mki_check_profile(body, model, p));
}

/* ===========================================================================
 * >>answer     replies: echo, hash, script, NER, schema instances, vectors
 * calls: >>bytes >>json
 * ======================================================================== */

typedef enum mki_mode { MKI_ECHO, MKI_HASH, MKI_NER, MKI_SCRIPT } mki_mode;

/* One line of a script. */
typedef struct mki_line {
    const mki_json *json;
    size_t used;
} mki_line;

typedef struct mki_script {
    char *text;
    mki_arena arena;
    mki_line *lines;
    size_t n;
} mki_script;

static void mki_script_free(mki_script *s)
{
    free(s->text);
    free(s->lines);
    mki_arena_reset(&s->arena, true);
    memset(s, 0, sizeof *s);
}

/* Takes text over. */
static bool mki_script_parse(mki_script *s, char *text, char *err, size_t cap)
{
    size_t cap_lines = 0;
    char number[24];
    size_t at = 0;
    int line = 0;

    s->text = text;
    while (text[at] != '\0') {
        size_t n = strcspn(text + at, "\n");
        size_t used = n > 0 && text[at + n - 1] == '\r' ? n - 1 : n;
        const mki_json *json;

        line++;
        if (mki_trim(mki_s(text + at, used)).len > 0) {
            json = mki_json_parse(&s->arena, mki_s(text + at, used));
            if (json == NULL || json->type != MKI_OBJECT) {
                snprintf(number, sizeof number, "%d", line);
                mki_err(err, cap, "script: line %s is not a JSON object",
                        number);
                return false;
            }
            if (s->n == cap_lines) {
                size_t more = cap_lines * 2 + 16;
                mki_line *lines =
                    (mki_line *)realloc(s->lines, more * sizeof *lines);

                if (lines == NULL) {
                    mki_err(err, cap, "out of memory", "");
                    return false;
                }
                s->lines = lines;
                cap_lines = more;
            }
            s->lines[s->n].json = json;
            s->lines[s->n].used = 0;
            s->n++;
        }
        at += n + (text[at + n] == '\n' ? 1 : 0);
    }
    return true;
}

/* Length of the next token: blanks, then up to six letters or digits, or one
 * other character. About 4 bytes on English prose, as real tokenizers give. */
static size_t mki_token_next(mki_str s)
{
    size_t i = 0;
    size_t letters = 0;

    while (i < s.len && (s.ptr[i] == ' ' || s.ptr[i] == '\n')) {
        i++;
    }
    while (i < s.len && letters < 6) {
        char c = mki_lower(s.ptr[i]);
        size_t n = mki_utf8(s.ptr + i, s.len - i);

        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || n > 1) {
            i += n;
            letters += n > 2 ? 3 : n; /* dense scripts: fewer to a token */
            continue;
        }
        i += letters == 0 ? 1 : 0;
        break;
    }
    return i > 0 ? i : s.len > 0 ? 1 : 0;
}

static int64_t mki_tokens(mki_str s)
{
    int64_t n = 0;

    while (s.len > 0) {
        size_t step = mki_token_next(s);

        s.ptr += step;
        s.len -= step;
        n++;
    }
    return n;
}

/* ---- entities ---- */

enum {
    MKI_E_PERSON = 1,
    MKI_E_PLACE = 2,
    MKI_E_ORG = 4,
    MKI_E_DATE = 8,
    MKI_E_OTHER = 16,
    MKI_E_ALL = 31
};

/* Whether a word is in a list " a b c ", ignoring case. */
static bool mki_listed(mki_str word, const char *list)
{
    char padded[40];
    size_t i;

    if (word.len == 0 || word.len > 36) {
        return false;
    }
    padded[0] = ' ';
    for (i = 0; i < word.len; i++) {
        if (word.ptr[i] == ' ') {
            return false;
        }
        padded[i + 1] = mki_lower(word.ptr[i]);
    }
    padded[i + 1] = ' ';
    padded[i + 2] = '\0';
    return strstr(list, padded) != NULL;
}

static const char mki_w_first[] =
    " james john robert michael william david richard joseph thomas charles "
    "christopher daniel matthew anthony mark paul steven andrew george kevin "
    "brian edward peter martin frank simon henry jack oliver samuel benjamin "
    "alexander nicholas stephen eric adam lucas noah liam ethan leo max felix "
    "mary patricia jennifer linda elizabeth barbara susan jessica sarah karen "
    "nancy lisa margaret emily anna emma olivia sophia isabella mia charlotte "
    "amelia grace alice julia laura maria helen ruth eva clara nora ingrid "
    "hans klaus jürgen stefan wolfgang angela ursula greta pierre jean marie "
    "luc françois claire camille giovanni marco luca giulia elena carlos juan "
    "josé luis miguel diego pedro ana carmen sofia lucia joão paulo ivan "
    "dmitri sergei olga natalia vladimir yuki hiroshi kenji akira sakura wei "
    "li mei chen ming raj priya amit anita arjun sunita ravi ahmed mohammed "
    "ali omar fatima aisha hassan layla yusuf kwame amara chidi ngozi zola "
    "barack donald joe hillary bill steve jeff tim elon albert isaac marie "
    "somchai malee anong niran lars sven erik astrid bjorn tomas jan piotr "
    "katarzyna zofia mehmet ayşe leila tariq samir nadia rosa pablo frida ";

static const char mki_w_places[] =
    " paris london berlin madrid rome vienna prague warsaw moscow kyiv athens "
    "lisbon dublin oslo stockholm copenhagen helsinki brussels amsterdam "
    "zurich geneva bern munich hamburg frankfurt cologne milan venice naples "
    "barcelona lyon marseille budapest bucharest sofia belgrade istanbul "
    "ankara cairo lagos nairobi accra johannesburg casablanca tunis algiers "
    "tokyo kyoto osaka seoul beijing shanghai shenzhen taipei bangkok hanoi "
    "manila jakarta singapore mumbai delhi kolkata chennai bangalore dhaka "
    "karachi tehran baghdad riyadh dubai doha jerusalem beirut damascus "
    "sydney melbourne brisbane perth auckland wellington toronto vancouver "
    "montreal ottawa chicago boston seattle houston dallas denver miami "
    "atlanta philadelphia washington texas california florida london bristol "
    "manchester liverpool edinburgh glasgow belfast cardiff oxford cambridge "
    "lima bogotá santiago quito caracas havana brasília montevideo germany "
    "france spain italy portugal britain england scotland ireland wales "
    "poland ukraine russia austria switzerland belgium netherlands denmark "
    "norway sweden finland iceland greece turkey egypt nigeria kenya ghana "
    "morocco ethiopia china japan korea taiwan vietnam thailand indonesia "
    "malaysia philippines india pakistan bangladesh iran iraq israel syria "
    "lebanon australia canada mexico brazil argentina chile peru colombia "
    "venezuela cuba columbia europe asia africa america antarctica arctic "
    "alps himalayas sahara chiang ";

static const char mki_w_org_end[] =
    " inc inc. corp corp. corporation ltd ltd. llc plc gmbh ag company co co. "
    "group holdings bank university institute college school academy ministry "
    "department agency authority council committee commission association "
    "federation union party parliament senate congress court foundation "
    "society museum hospital airlines airways railways motors systems "
    "technologies industries laboratories labs press times post herald "
    "tribune club united city fc orchestra theatre theater office bureau "
    "board trust alliance league partners energy pharmaceuticals ";

static const char mki_w_place_end[] =
    " river lake sea ocean bay gulf island islands mountain mountains hill "
    "hills valley desert forest street road avenue square bridge harbour "
    "harbor port airport station park county province district state peninsula "
    "coast canal beach cape falls ";

static const char mki_w_titles[] =
    " mr mr. mrs mrs. ms ms. dr dr. prof prof. professor president minister "
    "chancellor senator governor mayor king queen prince princess general "
    "captain judge sir lady lord pope bishop secretary director ambassador "
    "chairman chairwoman spokesman spokeswoman coach ";

static const char mki_w_months[] =
    " january february march april may june july august september october "
    "november december monday tuesday wednesday thursday friday saturday "
    "sunday jan. feb. mar. apr. aug. sept. oct. nov. dec. ";

/* Capital only because they open a sentence. */
static const char mki_w_plain[] =
    " the a an in on at he she it they we you i his her its their our my this "
    "that these those there here when where while after before since until "
    "as if but and or nor so yet for from to by with without of about under "
    "over between during through against into upon however meanwhile also "
    "although because despite earlier later last next yesterday today "
    "tomorrow many most some all both each every no not only more several two "
    "three four five six seven eight nine ten one first second third another "
    "other according officials police researchers scientists experts critics "
    "shares what who why how which then now thousands hundreds dozens nearly "
    "almost still even just once never always often ";

typedef struct mki_word {
    size_t from, to;     /* without the punctuation around */
    bool capital, stops; /* stops: punctuation follows, the sequence ends */
    int kind;
} mki_word;

#define MKI_WORDS 400 /* of a sentence; what follows stays unmarked */

static mki_str mki_word_str(mki_str s, const mki_word *w)
{
    return mki_s(s.ptr + w->from, w->to - w->from);
}

static bool mki_punct(char c)
{
    return c != '\0' && strchr(",.;:!?\"'()[]{}-", c) != NULL;
}

/* A capital letter in ASCII or Latin-1's part of UTF-8. */
static bool mki_capital(mki_str w)
{
    unsigned char c = w.len > 0 ? (unsigned char)w.ptr[0] : 0;
    unsigned char d = w.len > 1 ? (unsigned char)w.ptr[1] : 0;

    return (c >= 'A' && c <= 'Z') || (c == 0xc3 && d >= 0x80 && d <= 0x9e);
}

static size_t mki_ner_words(mki_str s, mki_word *words)
{
    size_t n = 0;
    size_t i = 0;

    while (i < s.len && n < MKI_WORDS) {
        mki_word *w = &words[n];
        size_t end;

        while (i < s.len && (s.ptr[i] == ' ' || mki_punct(s.ptr[i]))) {
            i++;
        }
        if (i == s.len) {
            break;
        }
        w->from = i;
        while (i < s.len && s.ptr[i] != ' ') {
            i++;
        }
        end = i;
        while (end > w->from && mki_punct(s.ptr[end - 1])) {
            end--;
        }
        w->to = end;
        w->stops = end < i;
        if (mki_listed(mki_s(s.ptr + w->from, i - w->from), mki_w_titles)) {
            w->stops = false; /* the point of Mr. and Dr. */
        }
        if (end - w->from > 2 && memcmp(s.ptr + end - 2, "'s", 2) == 0) {
            w->to = end - 2;
            w->stops = true;
        }
        w->capital = mki_capital(mki_word_str(s, w));
        w->kind = 0;
        n++;
    }
    return n;
}

static bool mki_year(mki_str w)
{
    uint64_t v = 0;

    return w.len == 4 && mki_u64(w, &v) && v >= 1000 && v < 2100;
}

static bool mki_day(mki_str w)
{
    uint64_t v = 0;

    return w.len <= 2 && mki_u64(w, &v) && v >= 1 && v <= 31;
}

/* Marks dates: month or weekday names with the numbers beside, and years. */
static void mki_ner_dates(mki_str s, mki_word *w, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        mki_str t = mki_word_str(s, &w[i]);

        if (w[i].capital && mki_listed(t, mki_w_months)) {
            w[i].kind = MKI_E_DATE;
            if (i > 0 && mki_day(mki_word_str(s, &w[i - 1]))) {
                w[i - 1].kind = MKI_E_DATE;
            }
            if (i + 1 < n && mki_day(mki_word_str(s, &w[i + 1]))) {
                w[i + 1].kind = MKI_E_DATE;
                w[i].stops = false;
            }
        } else if (mki_year(t)) {
            w[i].kind = MKI_E_DATE;
            if (i > 0 && w[i - 1].kind == MKI_E_DATE) {
                w[i - 1].stops = false;
            }
        }
    }
}

/* The kind of the capitalised sequence w[from..to). */
static int mki_ner_kind(mki_str s, const mki_word *w, size_t from, size_t to)
{
    mki_str first = mki_word_str(s, &w[from]);
    mki_str last = mki_word_str(s, &w[to - 1]);
    mki_str before = from > 0 ? mki_word_str(s, &w[from - 1]) : mki_s("", 0);
    size_t i;
    bool caps = to - from == 1 && first.len >= 2 && first.len <= 5;

    for (i = 0; i < first.len; i++) {
        caps = caps && first.ptr[i] >= 'A' && first.ptr[i] <= 'Z';
    }
    if (caps || (to - from > 1 && mki_listed(last, mki_w_org_end)) ||
        (to - from > 2 && mki_listed(first, mki_w_org_end))) {
        return MKI_E_ORG;
    }
    if (mki_listed(before, mki_w_titles) || mki_listed(first, mki_w_titles)) {
        return MKI_E_PERSON;
    }
    if (to - from > 1 && mki_listed(first, mki_w_first)) {
        return MKI_E_PERSON;
    }
    if (mki_listed(first, mki_w_places) ||
        (to - from > 1 && (mki_listed(last, mki_w_place_end) ||
                           mki_listed(first, " lake mount port cape gulf new "
                                             "san saint st. los las el ")))) {
        return MKI_E_PLACE;
    }
    if (mki_listed(first, mki_w_first)) {
        return MKI_E_PERSON;
    }
    if (mki_listed(before, " in near from across outside around toward towards "
                           "throughout ")) {
        return MKI_E_PLACE;
    }
    return to - from == 2 ? MKI_E_PERSON : MKI_E_OTHER;
}

/* Marks sequences of capitalised words, joined also over "of" and the like. */
static void mki_ner_names(mki_str s, mki_word *w, size_t n)
{
    size_t i = 0;

    while (i < n) {
        size_t end = i + 1;
        size_t k;
        int kind;

        if (!w[i].capital || w[i].kind != 0 ||
            mki_listed(mki_word_str(s, &w[i]), mki_w_plain)) {
            i++;
            continue;
        }
        while (end < n && !w[end - 1].stops && w[end].kind == 0) {
            if (w[end].capital) {
                end++;
            } else if (end + 1 < n && w[end + 1].capital && !w[end].stops &&
                       mki_listed(mki_word_str(s, &w[end]),
                                  " of de van von der la & del bin al ")) {
                end += 2;
            } else {
                break;
            }
        }
        kind = mki_ner_kind(s, w, i, end);
        if (kind == MKI_E_PERSON && end - i > 1 &&
            mki_listed(mki_word_str(s, &w[i]), mki_w_titles)) {
            i++; /* the title is not part of the name */
        }
        if (kind == MKI_E_OTHER && i == 0 && end == 1) {
            kind = 0; /* most likely only the start of the sentence */
        }
        for (k = i; k < end; k++) {
            w[k].kind = kind;
            w[k].stops = k + 1 == end; /* neighbours stay apart */
        }
        i = end;
    }
}

/* The sentence with its entities of the wanted kinds between @@ and ##. */
static void mki_ner_mark(mki_buf *b, mki_str s, int wanted)
{
    mki_word words[MKI_WORDS];
    size_t n = mki_ner_words(s, words);
    size_t at = 0;
    size_t i = 0;

    mki_ner_dates(s, words, n);
    mki_ner_names(s, words, n);
    while (i < n) {
        size_t end = i + 1;

        if ((words[i].kind & wanted) == 0) {
            i++;
            continue;
        }
        while (end < n && words[end].kind == words[i].kind &&
               !words[end - 1].stops) {
            end++;
        }
        mki_buf_add(b, s.ptr + at, words[i].from - at);
        mki_buf_s(b, "@@");
        mki_buf_add(b, s.ptr + words[i].from,
                    words[end - 1].to - words[i].from);
        mki_buf_s(b, "##");
        at = words[end - 1].to;
        i = end;
    }
    mki_buf_add(b, s.ptr + at, s.len - at);
}

static int mki_ner_label_word(mki_str word)
{
    return mki_listed(word, " person persons people per name names human ")
               ? MKI_E_PERSON
           : mki_listed(word, " location locations place places loc gpe "
                              "geographical geo-political country city ")
               ? MKI_E_PLACE
           : mki_listed(word, " organization organisation organizations "
                              "organisations org company companies ")
               ? MKI_E_ORG
           : mki_listed(word, " date dates time times ")    ? MKI_E_DATE
           : mki_listed(word, " misc miscellaneous other ") ? MKI_E_OTHER
                                                            : 0;
}

/* The kinds asked for: the label words right before "entity" or "entities". */
static int mki_ner_wanted(mki_str head)
{
    int wanted = 0;
    size_t at = mki_find(head, mki_sc(" entit"), 0);

    while (at != SIZE_MAX) {
        size_t from = at;
        int kind;

        while (from > 0 && head.ptr[from - 1] != ' ' &&
               head.ptr[from - 1] != '\n') {
            from--;
        }
        kind = mki_ner_label_word(mki_s(head.ptr + from, at - from));
        wanted |= kind;
        at = mki_find(head, mki_sc(" entit"), at + 1);
    }
    return wanted != 0 ? wanted : MKI_E_ALL;
}

/* The last place of a marker, or SIZE_MAX. */
static size_t mki_find_last(mki_str s, const char *marker)
{
    size_t found = SIZE_MAX;
    size_t at = mki_find(s, mki_sc(marker), 0);

    while (at != SIZE_MAX) {
        found = at;
        at = mki_find(s, mki_sc(marker), at + 1);
    }
    return found;
}

static mki_str mki_line_at(mki_str s, size_t at)
{
    size_t end = mki_find(s, mki_sc("\n"), at);

    end = end == SIZE_MAX ? s.len : end;
    return mki_trim(mki_s(s.ptr + at, end - at));
}

/* The sentence to work on: behind the last marker, else the last line. */
static mki_str mki_ner_sentence(mki_str prompt, size_t *where)
{
    static const char *const markers[] = {
        "Input:", "The given sentence:", "Sentence:", "Text:"};
    size_t end = prompt.len;
    size_t at;
    size_t i;

    for (i = 0; i < MKI_COUNT(markers); i++) {
        at = mki_find_last(prompt, markers[i]);
        if (at != SIZE_MAX) {
            *where = at;
            return mki_line_at(prompt, at + strlen(markers[i]));
        }
    }
    while (end > 0 &&
           (prompt.ptr[end - 1] == '\n' || prompt.ptr[end - 1] == ' ')) {
        end--;
    }
    at = end;
    while (at > 0 && prompt.ptr[at - 1] != '\n') {
        at--;
    }
    *where = at;
    return mki_trim(mki_s(prompt.ptr + at, end - at));
}

/* Self-verification: is the quoted word such an entity? */
static bool mki_ner_verify(mki_buf *b, mki_str prompt, mki_str sentence,
                           int wanted)
{
    size_t at = mki_find_last(prompt, "Is the word \"");
    mki_buf marked = MKI_ZERO;
    mki_buf needle = MKI_ZERO;
    mki_str word;
    size_t end;

    if (at == SIZE_MAX) {
        return false;
    }
    at += 13;
    end = mki_find(prompt, mki_sc("\""), at);
    if (end == SIZE_MAX) {
        return false;
    }
    word = mki_s(prompt.ptr + at, end - at);
    mki_ner_mark(&marked, sentence, wanted);
    mki_buf_s(&needle, "@@");
    mki_buf_add(&needle, word.ptr, word.len);
    mki_buf_s(&needle, "##");
    mki_buf_s(b, mki_find(mki_buf_str(&marked), mki_buf_str(&needle), 0) !=
                         SIZE_MAX
                     ? "yes"
                     : "no");
    mki_buf_free(&marked);
    mki_buf_free(&needle);
    return true;
}

static void mki_ner_reply(mki_buf *b, mki_str prompt)
{
    size_t where = 0;
    mki_str sentence = mki_ner_sentence(prompt, &where);
    int wanted = mki_ner_wanted(prompt);

    if (!mki_ner_verify(b, prompt, sentence, wanted)) {
        mki_ner_mark(b, sentence, mki_ner_wanted(mki_s(prompt.ptr, where)));
    }
}

/* ---- the smallest instance of a schema ---- */

/* Follows "#/a/b" from the root; NULL: nowhere. */
static const mki_json *mki_ref(const mki_json *root, mki_str ref)
{
    size_t at = 1;

    if (ref.len == 0 || ref.ptr[0] != '#') {
        return NULL;
    }
    while (root != NULL && at < ref.len) {
        size_t end = mki_find(ref, mki_sc("/"), at + 1);
        char key[64];

        end = end == SIZE_MAX ? ref.len : end;
        mki_copy(key, sizeof key, mki_s(ref.ptr + at + 1, end - at - 1));
        root = mki_get(root, key);
        at = end;
    }
    return root;
}

static void mki_instance_text(mki_buf *b, const mki_json *s)
{
    static const char *const formats[][2] = {
        {"date-time", "2000-01-01T00:00:00Z"},
        {"date", "2000-01-01"},
        {"time", "00:00:00Z"},
        {"duration", "P1D"},
        {"email", "a@example.com"},
        {"hostname", "example.com"},
        {"ipv4", "127.0.0.1"},
        {"ipv6", "::1"},
        {"uuid", "00000000-0000-4000-8000-000000000000"}};
    mki_str format = mki_get_text(s, "format");
    int64_t least = mki_get_int(s, "minLength", 0);
    size_t i;

    mki_buf_c(b, '"');
    for (i = 0; i < MKI_COUNT(formats); i++) {
        if (mki_eq(format, formats[i][0])) {
            mki_buf_s(b, formats[i][1]);
            least = 0;
        }
    }
    for (; least > 0 && least < 10000; least--) {
        mki_buf_c(b, 'x');
    }
    mki_buf_c(b, '"');
}

static void mki_instance(mki_buf *b, const mki_json *root, const mki_json *s,
                         int depth);

static void mki_instance_object(mki_buf *b, const mki_json *root,
                                const mki_json *s, int depth)
{
    const mki_json *props = mki_get(s, "properties");
    const mki_json *required = mki_get_set(s, "required");
    const mki_json *r = required != NULL ? required->child : NULL;
    bool first = true;

    mki_buf_c(b, '{');
    for (; r != NULL; r = r->next) {
        const mki_json *m = props != NULL ? props->child : NULL;

        for (; m != NULL && !mki_same(m->key, r->text); m = m->next) {
        }
        mki_buf_s(b, first ? "" : ",");
        mki_js(b, r->text);
        mki_buf_c(b, ':');
        mki_instance(b, root, m, depth + 1);
        first = false;
    }
    mki_buf_c(b, '}');
}

static void mki_instance_number(mki_buf *b, const mki_json *s)
{
    const mki_json *least = mki_get_set(s, "minimum");
    const mki_json *above = mki_get_set(s, "exclusiveMinimum");
    const mki_json *most = mki_get_set(s, "maximum");
    const mki_json *step = mki_get_set(s, "multipleOf");
    const int64_t big = (int64_t)1 << 60; /* beyond it sums could overflow */
    int64_t v = 0;

    if (least != NULL && least->type == MKI_NUMBER && least->d > 0) {
        mki_buf_add(b, least->text.ptr, least->text.len);
        return;
    }
    if (least != NULL && least->type == MKI_INT && least->i > 0) {
        v = least->i;
    } else if (above != NULL && above->type == MKI_INT && above->i >= 0 &&
               above->i < big) {
        v = above->i + 1;
    } else if (most != NULL && most->type == MKI_INT && most->i < 0) {
        v = most->i;
    }
    if (step != NULL && step->type == MKI_INT && step->i > 0 && step->i < big &&
        v > -big && v < big && v % step->i != 0) {
        v += v > 0 ? step->i - v % step->i : -(v % step->i) - step->i;
    }
    mki_buf_i64(b, v);
}

/* s NULL (anything allowed), or too deep: null. */
static void mki_instance(mki_buf *b, const mki_json *root, const mki_json *s,
                         int depth)
{
    const mki_json *any = mki_get_set(s, "anyOf");
    const mki_json *values = mki_get_set(s, "enum");
    const mki_json *fixed = mki_get(s, "const");
    const mki_json *type = mki_get_set(s, "type");
    mki_str ref = mki_get_text(s, "$ref");
    mki_str name;
    int64_t i;

    fixed = fixed == NULL && values != NULL ? values->child : fixed;
    any = any == NULL ? mki_get_set(s, "oneOf") : any;
    if (depth > 40) {
        mki_buf_s(b, "null");
        return;
    }
    if (ref.ptr != NULL) {
        mki_instance(b, root, mki_ref(root, ref), depth + 1);
        return;
    }
    if (fixed != NULL) {
        if (fixed->type == MKI_STRING) {
            mki_js(b, fixed->text);
        } else {
            mki_buf_add(b, fixed->text.ptr, fixed->text.len);
        }
        return;
    }
    if (any != NULL && any->child != NULL) {
        const mki_json *m = any->child;

        /* null ends a recursion */
        for (; m->next != NULL && depth > 3 &&
               !mki_eq(mki_get_text(m, "type"), "null");
             m = m->next) {
        }
        mki_instance(b, root, depth > 3 ? m : any->child, depth + 1);
        return;
    }
    if (type != NULL && type->type == MKI_ARRAY) {
        type = type->child;
    }
    name = type != NULL && type->type == MKI_STRING ? type->text
           : mki_get(s, "properties") != NULL       ? mki_sc("object")
                                                    : mki_sc("null");
    if (mki_eq(name, "object")) {
        mki_instance_object(b, root, s, depth);
    } else if (mki_eq(name, "array")) {
        mki_buf_c(b, '[');
        for (i = 0; i < mki_get_int(s, "minItems", 0) && i < 1000; i++) {
            mki_buf_s(b, i > 0 ? "," : "");
            mki_instance(b, root, mki_get(s, "items"), depth + 1);
        }
        mki_buf_c(b, ']');
    } else if (mki_eq(name, "string")) {
        mki_instance_text(b, s);
    } else if (mki_eq(name, "integer") || mki_eq(name, "number")) {
        mki_instance_number(b, s);
    } else {
        mki_buf_s(b, mki_eq(name, "boolean") ? "false" : "null");
    }
}

/* ---- vectors ---- */

static double mki_sqrt(double x)
{
    double y = x > 1 ? x : 1;
    int i;

    for (i = 0; i < 60; i++) {
        y = (y + x / y) / 2;
    }
    return y;
}

/* -1.000000000 to 1.000000000; printf would be most of the time here. */
static void mki_vector_number(mki_buf *b, int64_t nano)
{
    char text[12];
    int64_t v = nano < 0 ? -nano : nano;
    size_t i;

    for (i = 11; i > 2; i--) {
        text[i] = (char)('0' + (int)(v % 10));
        v /= 10;
    }
    text[2] = '.';
    text[1] = (char)('0' + (int)v);
    text[0] = '-';
    mki_buf_add(b, nano < 0 ? text : text + 1, nano < 0 ? 12 : 11);
}

/* A unit vector that depends on model and text only. Its numbers are multiples
 * of 1e-9, so that both encodings say the same; the text has 9 decimals. */
static void mki_vector(mki_buf *b, mki_str model, mki_str text, size_t dims,
                       bool base64)
{
    uint64_t seed =
        mki_hash(mki_hash(1, model.ptr, model.len), text.ptr, text.len);
    unsigned char block[3 * 256];
    size_t used = 0;
    double norm = 0;
    size_t i;

    for (i = 0; i < dims; i++) {
        double v = mki_unit(mki_mix(seed + i)) - 0.5;

        norm += v * v;
    }
    norm = mki_sqrt(norm);
    mki_buf_c(b, base64 ? '"' : '[');
    for (i = 0; i < dims; i++) {
        double v = (mki_unit(mki_mix(seed + i)) - 0.5) / norm;
        int64_t nano = (int64_t)(v * 1e9 + (v < 0 ? -0.5 : 0.5));
        float f = (float)((double)nano / 1e9);
        uint32_t bits;

        if (base64) {
            memcpy(&bits, &f, sizeof bits);
            block[used++] = (unsigned char)(bits & 255);
            block[used++] = (unsigned char)(bits >> 8 & 255);
            block[used++] = (unsigned char)(bits >> 16 & 255);
            block[used++] = (unsigned char)(bits >> 24);
            if (used == sizeof block) {
                mki_buf_base64(b, block, used);
                used = 0;
            }
            continue;
        }
        mki_buf_s(b, i > 0 ? "," : "");
        mki_vector_number(b, nano);
    }
    if (used > 0) {
        mki_buf_base64(b, block, used);
    }
    mki_buf_c(b, base64 ? '"' : ']');
}

/* ===========================================================================
 * >>vet        validation of a batch's input, line by line
 * calls: >>bytes >>json >>check >>answer
 *
 * One error a line, the first found; 100 in all. Ids are compared by 64 bits of
 * hash: two different ones of 50,000 that look equal are not to be expected.
 * ======================================================================== */

#define MKI_ROWS_MAX   50000 /* requests of a batch, or embedding inputs */
#define MKI_ERRORS_MAX 100

typedef struct mki_vet {
    const char *endpoint;
    mki_buf errors; /* the elements of errors.data */
    int64_t n_errors;
    int64_t line, total, inputs, tokens;
    uint64_t content;
    char model[128]; /* of the first request, maybe cut; */
    uint64_t model_hash;
    uint64_t *ids; /* set of hashes; 0: free */
    size_t n_ids, cap_ids;
    mki_arena arena;
    bool failed; /* no memory */
} mki_vet;

static void mki_vet_free(mki_vet *v)
{
    mki_buf_free(&v->errors);
    free(v->ids);
    mki_arena_reset(&v->arena, true);
}

/* line 0: null */
MKI_PRINTF(5, 6)
static bool mki_vet_bad(mki_vet *v, int64_t line, const char *code,
                        const char *param, const char *fmt, ...)
{
    mki_buf *b = &v->errors;
    char message[512];
    va_list args;

    if (v->n_errors++ >= MKI_ERRORS_MAX) {
        return false;
    }
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    mki_buf_s(b, b->len > 0 ? ",{" : "{");
    mki_js_str(b, "code", mki_sc(code));
    mki_js_str(b, "message", mki_sc(message));
    mki_js_maybe(b, "param", param);
    mki_js_key(b, "line");
    if (line > 0) {
        mki_buf_i64(b, line);
    } else {
        mki_buf_s(b, "null");
    }
    mki_buf_c(b, '}');
    return false;
}

static bool mki_vet_missing(mki_vet *v, const char *param)
{
    return mki_vet_bad(v, v->line, "missing_required_parameter", param,
                       "Missing required parameter: '%s'.", param);
}

/* false: it was there already. */
static bool mki_vet_new_id(mki_vet *v, mki_str id)
{
    uint64_t key = mki_hash(77, id.ptr, id.len);
    size_t i;

    key = key != 0 ? key : 1;
    if (v->n_ids * 2 >= v->cap_ids) {
        size_t cap = v->cap_ids == 0 ? 1024 : v->cap_ids * 2;
        uint64_t *ids = (uint64_t *)calloc(cap, sizeof *ids);

        if (ids == NULL) {
            v->failed = true;
            return true;
        }
        for (i = 0; i < v->cap_ids; i++) {
            size_t k = (size_t)(v->ids[i] & (cap - 1));

            while (v->ids[i] != 0 && ids[k] != 0) {
                k = (k + 1) & (cap - 1);
            }
            ids[k] = v->ids[i] != 0 ? v->ids[i] : ids[k];
        }
        free(v->ids);
        v->ids = ids;
        v->cap_ids = cap;
    }
    i = (size_t)(key & (v->cap_ids - 1));
    while (v->ids[i] != 0 && v->ids[i] != key) {
        i = (i + 1) & (v->cap_ids - 1);
    }
    if (v->ids[i] == key) {
        return false;
    }
    v->ids[i] = key;
    v->n_ids++;
    return true;
}

/* The endpoints that batches accept. */
static bool mki_batch_endpoint(mki_str url)
{
    static const char *const table[] = {
        "/v1/responses",    "/v1/chat/completions",
        "/v1/embeddings",   "/v1/completions",
        "/v1/moderations",  "/v1/images/generations",
        "/v1/images/edits", "/v1/videos"};
    size_t i = 0;

    while (i < MKI_COUNT(table) && !mki_eq(url, table[i])) {
        i++;
    }
    return i < MKI_COUNT(table);
}

/* Prompt tokens as the endpoints count them: of a text, or of all in a list. */
static int64_t mki_prompt_tokens(const mki_json *v, int64_t *inputs)
{
    const mki_json *m;
    int64_t n = 0;

    *inputs = v != NULL ? 1 : 0;
    if (v == NULL || v->type == MKI_STRING) {
        return v != NULL ? mki_tokens(v->text) : 0;
    }
    if (v->type != MKI_ARRAY || v->child == NULL || v->child->type == MKI_INT) {
        return v->type == MKI_ARRAY ? (int64_t)v->n : 0;
    }
    for (m = v->child; m != NULL; m = m->next) {
        n += m->type == MKI_STRING ? mki_tokens(m->text) : (int64_t)m->n;
    }
    *inputs = (int64_t)v->n;
    return n;
}

static void mki_vet_tokens(mki_vet *v, const mki_json *body)
{
    const mki_json *m = mki_get_set(body, "messages");
    const mki_json *part;
    int64_t inputs = 0;

    for (m = m != NULL && m->type == MKI_ARRAY ? m->child : NULL; m != NULL;
         m = m->next) {
        const mki_json *content = mki_get_set(m, "content");

        v->tokens += 4;
        if (content != NULL && content->type == MKI_ARRAY) {
            for (part = content->child; part != NULL; part = part->next) {
                v->tokens += mki_tokens(mki_get_text(part, "text"));
            }
        } else if (content != NULL && content->type == MKI_STRING) {
            v->tokens += mki_tokens(content->text);
        }
    }
    v->tokens += mki_prompt_tokens(mki_get_set(body, "prompt"), &inputs);
    v->tokens += mki_prompt_tokens(mki_get_set(body, "input"), &inputs);
    v->inputs += strcmp(v->endpoint, "/v1/embeddings") == 0 ? inputs : 0;
}

static bool mki_vet_body(mki_vet *v, const mki_json *body)
{
    mki_str model = mki_get_text(body, "model");
    uint64_t hash = mki_hash(9, model.ptr, model.len);
    char shown[64];

    if (body == NULL || body->type != MKI_OBJECT) {
        return mki_vet_missing(v, "body");
    }
    if (model.len == 0) {
        return mki_vet_missing(v, "body.model");
    }
    if (v->model[0] == '\0') {
        mki_copy_utf8(v->model, sizeof v->model, model);
        v->model_hash = hash;
    }
    if (hash != v->model_hash) {
        return mki_vet_bad(v, v->line, "model_mismatch", "body.model",
                           "The model '%s' differs from the model of the first "
                           "request. All requests of a batch must use the same "
                           "model.",
                           mki_quote(model, shown));
    }
    if (mki_get_true(body, "stream")) {
        return mki_vet_bad(v, v->line, "invalid_request", "body.stream",
                           "Streaming is not supported in batches.");
    }
    mki_vet_tokens(v, body);
    return true;
}

static bool mki_vet_request(mki_vet *v, const mki_json *row)
{
    const mki_json *id = mki_get_set(row, "custom_id");
    const mki_json *method = mki_get_set(row, "method");
    const mki_json *url = mki_get_set(row, "url");
    char shown[64];

    if (row == NULL || row->type != MKI_OBJECT) {
        return mki_vet_bad(v, v->line, "invalid_json_line", NULL,
                           "This line is not parseable as valid JSON.");
    }
    if (id == NULL || id->type != MKI_STRING) {
        return mki_vet_missing(v, "custom_id");
    }
    if (!mki_vet_new_id(v, id->text)) {
        return mki_vet_bad(v, v->line, "duplicate_custom_id", "custom_id",
                           "The custom_id '%s' occurs more than once.",
                           mki_quote(id->text, shown));
    }
    if (method == NULL) {
        return mki_vet_missing(v, "method");
    }
    if (method->type != MKI_STRING || !mki_eq(method->text, "POST")) {
        return mki_vet_bad(v, v->line, "invalid_method", "method",
                           "Invalid method: '%s'. Expected 'POST'.",
                           mki_quote(method->text, shown));
    }
    if (url == NULL) {
        return mki_vet_missing(v, "url");
    }
    if (url->type != MKI_STRING || !mki_batch_endpoint(url->text)) {
        return mki_vet_bad(v, v->line, "invalid_url", "url",
                           "Invalid URL for batches: '%s'.",
                           mki_quote(url->text, shown));
    }
    if (!mki_eq(url->text, v->endpoint)) {
        return mki_vet_bad(v, v->line, "url_mismatch", "url",
                           "The URL '%s' differs from the batch's endpoint "
                           "'%s'.",
                           mki_quote(url->text, shown), v->endpoint);
    }
    return mki_vet_body(v, mki_get(row, "body"));
}

/* Whether there is nothing on a line but blanks. */
static bool mki_blank(mki_str s)
{
    size_t i = 0;

    while (i < s.len && (s.ptr[i] == ' ' || s.ptr[i] == '\t' ||
                         s.ptr[i] == '\r' || s.ptr[i] == '\n')) {
        i++;
    }
    return i == s.len;
}

static void mki_vet_line(mki_vet *v, mki_str line)
{
    v->line++;
    v->content = mki_hash(v->content, line.ptr, line.len);
    if (mki_blank(line)) {
        return;
    }
    v->total++;
    mki_vet_request(v, mki_json_parse(&v->arena, line));
    v->failed = v->failed || v->arena.failed;
    mki_arena_reset(&v->arena, false);
}

/* After the last line. */
static void mki_vet_end(mki_vet *v)
{
    if (v->total == 0) {
        mki_vet_bad(v, 0, "empty_file", NULL,
                    "The input file contains no requests.");
    }
    if (v->total > MKI_ROWS_MAX) {
        mki_vet_bad(v, 0, "too_many_tasks", NULL,
                    "The input file contains %" PRId64
                    " requests. A batch may have at most %d.",
                    v->total, MKI_ROWS_MAX);
    } else if (v->inputs > MKI_ROWS_MAX) {
        mki_vet_bad(v, 0, "too_many_tasks", NULL,
                    "The input file contains %" PRId64
                    " embedding inputs. A batch may have at most %d.",
                    v->inputs, MKI_ROWS_MAX);
    }
}

/* ===========================================================================
 * >>api        responses, and the endpoints of models
 * calls: >>http >>fault >>account >>check >>answer
 *
 * A request is answered in one go: everything that will be sent is put into
 * the connection's buffer, with a plan beside it that says when, how fast and
 * how far it goes out, and what it counts for once it has gone. No I/O here.
 * ======================================================================== */

typedef enum mki_after {
    MKI_KEEP,
    MKI_CLOSE,
    MKI_RESET,      /* RST */
    MKI_CUT,        /* FIN alone */
    MKI_CUT_NOTIFY, /* TLS: close_notify, then FIN */
    MKI_SILENT      /* nothing more, for stall_ms or ever */
} mki_after;

typedef struct mki_plan {
    int status;
    mki_after after;
    size_t cut;   /* bytes that really go out */
    bool whole;   /* a complete response, once all is sent */
    bool answers; /* and a good one: a 200 answers its prompt */
    bool excused; /* it may well be asked for again */
    bool lost;    /* counts although nothing goes out */
    int64_t delay_ms, stall_ms;
    size_t slice; /* 0: as fast as it goes */
    int64_t slice_ms;
    int64_t stale_ms; /* -1: stays open */
    bool stale_late;
    bool api;          /* counted at all */
    uint64_t body_key; /* 0: not a POST */
    uint64_t bill_key; /* 0: nothing that a batch could run */
    char content[32];  /* the file that goes out, "": none */
    int64_t pause_ms;  /* asked for by this answer */
    int final_status;
    int64_t tokens_in, tokens_out;
    int64_t charged; /* against limits of tokens; less than 0: not admitted */
    bool throttled;  /* counted as such */
    char fault[24];
    char method[16];
    char path[128];
} mki_plan;

typedef struct mki_bucket {
    double level, limit; /* limit 0: none */
    double full_ms;      /* from empty to full */
    int64_t at;
} mki_bucket;

typedef enum mki_reset_form {
    MKI_RESET_GO,
    MKI_RESET_SECONDS,
    MKI_RESET_UNIX,
    MKI_RESET_RFC3339,
    MKI_RESET_NONE,
    MKI_RESET_MINUS1,
    MKI_RESET_AZURE,
    MKI_RESET_FORMS
} mki_reset_form;

/* A file that is being uploaded. */
typedef struct mki_upload {
    mki_form form;
    int fd;
    char tmp[1200];
    int64_t bytes, limit; /* of the file */
    int64_t total;        /* of the body */
    int64_t reset_at;     /* -1: not */
    bool good_type, failed;
} mki_upload;

typedef struct mki_conn {
    mki_chan chan;
    uint64_t id, peer;
    int state;
    int interest;
    bool eof, blocked;
    bool counted;     /* has carried an API request; client is valid */
    bool client_left; /* it was the client who ended */
    size_t client;
    uint32_t pause_seen;
    int64_t n_requests;
    int64_t first_byte; /* when the request began to come */
    int64_t started;    /* when it was complete */
    int64_t rest_since; /* idle since; -1: it is not */
    mki_buf in, out;
    size_t out_base; /* bytes of the answer that were in out before */
    size_t sent, allowed;
    int content_fd; /* what the rest of the answer is read from, or -1 */
    size_t content_left;
    mki_upload *upload;
    mki_incoming incoming;
    mki_plan plan;
    int64_t due;
    size_t heap_at; /* SIZE_MAX: not in the heap */
    struct mki_conn *next, *prev;
} mki_conn;

struct mock_server {
    /* Options, copied. */
    mock_options opt;
    char *strings; /* all texts of opt */
    mki_mode mode;
    mki_script script;
    /* Fixed after the start. */
    mki_tls *tls;
    int listener;
    int port;
    char base_url[96];
    pthread_t thread;
    bool has_thread, has_mutex, has_poller;
    /* Guards all that follows; held while the loop works, not while it waits.
     * In manual mode only the caller is there. */
    pthread_mutex_t mutex;
    mki_poller poller;
    bool stopping, listening;
    mki_faults faults;
    mki_account account;
    mki_bucket limits[MKI_LIMITS];
    mki_reset_form reset_form;
    int64_t unix_offset; /* unix time minus clock, where no hook gives it */
    int64_t skew_ms;     /* as mock_server_advance() moved it */
    uint64_t ids, uploads, id_state;
    mki_store store;
    int64_t batch_ms;
    mki_conn row;                     /* no connection: rows of batches */
    mki_arena arena;                  /* of the request being answered */
    mki_buf body, conv, extra, event; /* scratch of the same */
    mki_request request;
    mki_conn *conns;
    size_t n_conns;
    uint64_t conn_ids;
    mki_conn **heap;
    size_t n_heap, cap_heap;
    FILE *log;
};

typedef enum mki_framing {
    MKI_LENGTH,
    MKI_CHUNKS,
    MKI_BYTE_CHUNKS,
    MKI_UNTIL_CLOSE
} mki_framing;

/* One request while it is being answered. */
typedef struct mki_call {
    mock_server *s;
    mki_conn *c;
    const mki_request *q;
    int64_t now;
    mki_route route;
    mki_str deployment, model_id;
    const char *wrong_method; /* the one that the path would take */
    const mki_json *body;
    mki_choice choice;
    mki_problem problem;
    mki_framing framing;
    uint64_t id;
    size_t head_end; /* in c->out */
    /* of an answer */
    mki_str model;
    bool stream, usage, obfuscate, logprobs;
    bool quiet;               /* a row of a batch: no head */
    bool counted;             /* as a request, before it is admitted */
    double taken[MKI_LIMITS]; /* for that */
    int64_t tokens_in;
    size_t stop_after; /* events; a stream that breaks off */
    size_t events;
} mki_call;

static int64_t mki_now(const mock_server *s)
{
    return s->opt.clock_ms_fn != NULL ? s->opt.clock_ms_fn(s->opt.clock_user)
                                      : mki_os_clock_ms();
}

static int64_t mki_unix(const mock_server *s)
{
    return s->skew_ms + (s->opt.unix_ms_fn != NULL
                             ? s->opt.unix_ms_fn(s->opt.clock_user)
                             : mki_now(s) + s->unix_offset);
}

/* The date moves on, and never beyond what can be written. */
static void mki_skew(mock_server *s, int64_t ms)
{
    if (ms > 0 && ms <= MKI_SANE_MAX / 8) {
        s->skew_ms += ms;
    }
    if (s->skew_ms > MKI_SANE_MAX / 8) {
        s->skew_ms = MKI_SANE_MAX / 8;
    }
}

/* ---- rate limits ----
 *
 * Buckets that fill evenly: in a minute, in a day, and within a slice up to the
 * slice's share of the minute. The share of a slice is one request at least;
 * a request of more tokens than the share passes when the slice is untouched,
 * and the next ones wait until that is made good. */

static bool mki_of_tokens(size_t cause)
{
    return cause % 2 == 1;
}

static void mki_bucket_fill(mki_bucket *b, int64_t now)
{
    if (now > b->at) {
        if (b->limit > 0) {
            b->level += b->limit * (double)(now - b->at) / b->full_ms;
        }
        b->at = now;
    }
    b->level = b->level > b->limit ? b->limit : b->level;
}

/* Milliseconds until the level is reached. */
static int64_t mki_bucket_wait(const mki_bucket *b, double level)
{
    double ms = b->limit > 0 ? (level - b->level) * b->full_ms / b->limit : 0;

    return ms <= 0 ? 0 : (int64_t)ms + 1;
}

/* A new limit takes what is left of the old one, a first one is full; one that
 * is less than 0 is none. */
static void mki_bucket_set(mki_bucket *b, double limit, double full_ms)
{
    limit = limit > 0 ? limit : 0;
    if (b->limit <= 0 || b->level > limit) {
        b->level = limit;
    }
    b->limit = limit;
    b->full_ms = full_ms;
}

static void mki_limits_fill(mock_server *s, int64_t now)
{
    mki_tally *t = &s->account.all;
    double minutes =
        now > s->limits[0].at ? (double)(now - s->limits[0].at) / 60000.0 : 0;
    size_t i;

    t->requests_allowed += s->limits[MKI_RPM].limit * minutes;
    t->tokens_allowed += s->limits[MKI_TPM].limit * minutes;
    for (i = 0; i < MKI_LIMITS; i++) {
        mki_bucket_fill(&s->limits[i], now);
    }
}

/* Makes s->opt's limits those of the buckets. */
static void mki_limits_set(mock_server *s, int64_t now)
{
    const mock_options *o = &s->opt;
    double share = (double)o->slice_ms / 60000.0;
    double requests = (double)o->rpm * share;
    double tokens = (double)o->tpm * share;
    bool less = requests > 0 && requests < 1; /* than one request a slice */

    mki_limits_fill(s, now);
    mki_bucket_set(&s->limits[MKI_RPM], o->rpm, 60000);
    mki_bucket_set(&s->limits[MKI_TPM], (double)o->tpm, 60000);
    mki_bucket_set(&s->limits[MKI_RPD], o->rpd, 86400000);
    mki_bucket_set(&s->limits[MKI_TPD], (double)o->tpd, 86400000);
    mki_bucket_set(&s->limits[MKI_SLICE_R], less ? 1 : requests,
                   less ? 60000.0 / o->rpm : o->slice_ms);
    mki_bucket_set(&s->limits[MKI_SLICE_T], tokens, o->slice_ms);
}

static void mki_rfc3339(mki_buf *b, int64_t unix_ms)
{
    time_t t = (time_t)(unix_ms / 1000);
    struct tm tm;

    gmtime_r(&t, &tm);
    mki_buf_f(b, "%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900,
              tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* When something is over, ms from now, in the form that was chosen; what has
 * no fractions is rounded up. */
static void mki_reset_value(mock_server *s, mki_buf *b, int64_t ms)
{
    switch (s->reset_form) {
    case MKI_RESET_SECONDS:
        mki_buf_i64(b, (ms + 999) / 1000);
        break;
    case MKI_RESET_UNIX:
        mki_buf_i64(b, (mki_unix(s) + ms + 999) / 1000);
        break;
    case MKI_RESET_RFC3339:
        mki_rfc3339(b, mki_unix(s) + ms + 999);
        break;
    case MKI_RESET_MINUS1:
        mki_buf_s(b, "-1");
        break;
    case MKI_RESET_AZURE:
        mki_buf_s(b, "0");
        break;
    default:
        mki_duration(b, ms);
        break;
    }
}

/* The state behind this request, which has been charged, if it was admitted.
 * Of requests the limit of a day is told where there is one, of tokens where
 * there is no other. */
static void mki_rate_headers(mock_server *s, mki_buf *b, int64_t now)
{
    static const char *const names[] = {"requests", "tokens"};
    int i;

    if (s->opt.no_rate_headers) {
        return;
    }
    mki_limits_fill(s, now);
    for (i = 0; i < 2; i++) {
        const mki_bucket *minute = &s->limits[i == 0 ? MKI_RPM : MKI_TPM];
        const mki_bucket *day = &s->limits[i == 0 ? MKI_RPD : MKI_TPD];
        const mki_bucket *k =
            day->limit > 0 && (i == 0 || minute->limit <= 0) ? day : minute;
        bool on = k->limit > 0;
        int64_t limit = on ? (int64_t)k->limit : i == 0 ? 30000 : 150000000;
        int64_t left = !on ? limit - 1 : k->level > 0 ? (int64_t)k->level : 0;
        bool unknown = s->reset_form == MKI_RESET_AZURE;

        mki_buf_f(b, "x-ratelimit-limit-%s: %" PRId64 "\r\n", names[i],
                  unknown ? -1 : limit);
        mki_buf_f(b, "x-ratelimit-remaining-%s: %" PRId64 "\r\n", names[i],
                  unknown ? -1 : left);
        if (s->reset_form != MKI_RESET_NONE) {
            mki_buf_f(b, "x-ratelimit-reset-%s: ", names[i]);
            mki_reset_value(s, b, on ? mki_bucket_wait(k, k->limit) : 2);
            mki_buf_s(b, "\r\n");
        }
    }
}

/* Counts a request before anybody knows what becomes of it. */
static void mki_count_request(mki_call *call)
{
    static const mki_cause causes[] = {MKI_RPM, MKI_RPD};
    mock_server *s = call->s;
    size_t i;

    mki_limits_fill(s, call->now);
    for (i = 0; i < MKI_COUNT(causes); i++) {
        mki_bucket *b = &s->limits[causes[i]];

        call->taken[causes[i]] = b->level < 0 ? 0 : b->level < 1 ? b->level : 1;
        b->level -= call->taken[causes[i]];
    }
    call->counted = true;
    mki_account_charge(&s->account, call->now, 1, 0);
}

/* Corrects what was charged for tokens once the answer is out. */
static void mki_limits_settle(mock_server *s, const mki_plan *p, int64_t now)
{
    int64_t used = p->status == 200 ? p->tokens_in + p->tokens_out : 0;
    size_t i;

    if (!s->opt.charge_usage || p->charged < 0) {
        return;
    }
    mki_limits_fill(s, now);
    for (i = MKI_TPM; i < MKI_LIMITS; i += 2) {
        s->limits[i].level += (double)(p->charged - used);
        mki_bucket_fill(&s->limits[i], now); /* not beyond its limit */
    }
    mki_account_charge(&s->account, now, 0, used - p->charged);
}

/* ---- the response as bytes ---- */

static void mki_out(mki_call *call, const char *data, size_t len)
{
    mki_buf *b = &call->c->out;
    size_t i;

    if (len == 0) {
        return;
    }
    if (call->framing == MKI_BYTE_CHUNKS) {
        for (i = 0; i < len; i++) {
            mki_buf_s(b, "1\r\n");
            mki_buf_c(b, data[i]);
            mki_buf_s(b, "\r\n");
        }
        return;
    }
    if (call->framing == MKI_CHUNKS) {
        mki_buf_f(b,
                  call->choice.way[MKI_F_CHUNKED] != NULL
                      ? "%zX;name=\"a;b\"\r\n"
                      : "%zx\r\n",
                  len);
    }
    mki_buf_add(b, data, len);
    if (call->framing == MKI_CHUNKS) {
        mki_buf_s(b, "\r\n");
    }
}

static void mki_out_end(mki_call *call)
{
    if (call->framing == MKI_CHUNKS || call->framing == MKI_BYTE_CHUNKS) {
        mki_buf_s(&call->c->out, call->choice.way[MKI_F_CHUNKED] != NULL
                                     ? "0\r\nx-trailer: mock\r\n\r\n"
                                     : "0\r\n\r\n");
    }
}

/* How the body will be delimited; a stream has no length. */
static void mki_choose_framing(mki_call *call, bool stream)
{
    const mki_fault *const *way = call->choice.way;

    call->framing = stream ? MKI_CHUNKS : MKI_LENGTH;
    if (way[MKI_F_CHUNKED] != NULL) {
        call->framing = MKI_CHUNKS;
    }
    if (way[MKI_F_BYTE_CHUNKS] != NULL) {
        call->framing = MKI_BYTE_CHUNKS;
    }
    if (way[MKI_F_HTTP10] != NULL ||
        (call->q->minor == 0 && call->framing != MKI_LENGTH)) {
        call->framing = MKI_UNTIL_CLOSE;
        call->c->plan.after = MKI_CLOSE;
    }
}

/* The head. s->extra holds more header lines. */
static void mki_out_head(mki_call *call, int status, const char *type,
                         bool stream, size_t length)
{
    mock_server *s = call->s;
    mki_buf *b = &call->c->out;
    mki_plan *plan = &call->c->plan;
    bool old = call->choice.way[MKI_F_HTTP10] != NULL;
    uint64_t id = mki_mix(s->opt.seed ^ call->id);

    plan->status = status;
    if (call->quiet) {
        return;
    }
    mki_choose_framing(call, stream);
    if (call->choice.way[MKI_F_INTERIM] != NULL && call->q->minor > 0) {
        mki_buf_s(b, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    if ((call->choice.way[MKI_F_INTERIM] != NULL ||
         call->choice.way[MKI_F_HINTS] != NULL) &&
        call->q->minor > 0) {
        mki_buf_s(b, "HTTP/1.1 103 Early Hints\r\n"
                     "link: </style.css>; rel=preload\r\n\r\n");
    }
    mki_buf_f(b, "HTTP/1.%d %d %s\r\ndate: ", old ? 0 : 1, status,
              mki_reason(status));
    mki_http_date(b, mki_unix(s));
    mki_buf_f(b, "\r\ncontent-type: %s\r\nserver: mock_openai\r\n", type);
    if (call->choice.way[MKI_F_NO_HEADERS] == NULL && plan->api) {
        mki_buf_f(b, "x-request-id: req_%016" PRIx64 "%016" PRIx64 "\r\n", id,
                  mki_mix(id));
        mki_buf_f(b,
                  "openai-organization: mock-org\r\n"
                  "openai-processing-ms: %d\r\n"
                  "openai-version: 2020-10-01\r\n",
                  (int)(plan->delay_ms + 1));
        mki_rate_headers(s, b, call->now);
    }
    mki_buf_add(b, s->extra.data, s->extra.len);
    if (call->framing == MKI_LENGTH) {
        mki_buf_s(b, "content-length: ");
        mki_buf_i64(b, (int64_t)length);
        mki_buf_s(b, "\r\n");
    } else if (call->framing != MKI_UNTIL_CLOSE) {
        mki_buf_s(b, "transfer-encoding: chunked\r\n");
    }
    if (plan->after == MKI_CLOSE && !old) {
        mki_buf_s(b, "connection: close\r\n");
    } else if (call->q->minor == 0 && plan->after == MKI_KEEP) {
        mki_buf_s(b, "connection: keep-alive\r\n");
    }
    mki_buf_s(b, "\r\n");
    call->head_end = b->len;
}

static void mki_respond(mki_call *call, int status, const char *type,
                        mki_str body)
{
    mki_out_head(call, status, type, false, body.len);
    mki_out(call, body.ptr, body.len);
    mki_out_end(call);
}

static void mki_respond_problem(mki_call *call, const mki_problem *p)
{
    mki_buf *b = &call->s->body;

    b->len = 0;
    mki_buf_s(b, "{\n  \"error\": {\n    \"message\": ");
    mki_js(b, mki_sc(p->message));
    mki_buf_f(b, ",\n    \"type\": \"%s\",\n    \"param\": ", p->type);
    mki_js_text_or_null(b, p->param[0] != '\0' ? p->param : NULL);
    mki_buf_s(b, ",\n    \"code\": ");
    mki_js_text_or_null(b, p->code);
    mki_buf_s(b, "\n  }\n}\n");
    mki_respond(call, p->status, "application/json", mki_buf_str(b));
}

/* ---- faults that are answers ---- */

static void mki_respond_html(mki_call *call, int status)
{
    mki_buf *b = &call->s->body;

    b->len = 0;
    mki_buf_f(b,
              "<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n"
              "<center><h1>%d %s</h1></center>\r\n<hr><center>cloudflare"
              "</center>\r\n</body>\r\n</html>\r\n",
              status, mki_reason(status), status, mki_reason(status));
    mki_respond(call, status, "text/html; charset=UTF-8", mki_buf_str(b));
}

/* Adds the headers that ask for a pause; returns its length, 0 for none that
 * a client could be held to. */
static int64_t mki_retry_headers(mki_call *call, const mki_fault *f)
{
    mki_buf *b = &call->s->extra;
    mki_str v = mki_sc(f->retry_after);
    int64_t ms = f->retry_ms;
    double seconds = 0;

    if (v.len == 0 && ms < 0 && (f->kind != MKI_F_STATUS || f->status != 429)) {
        return 0;
    }
    if (v.len == 0 || mki_eq(v, "ms")) {
        ms = ms >= 0 ? ms : v.len == 0 ? 20 : 50;
        mki_buf_f(b, "retry-after-ms: %" PRId64 "\r\n", ms);
        if (v.len == 0) {
            mki_buf_f(b, "retry-after: %" PRId64 "\r\n", (ms + 999) / 1000);
        }
        return ms;
    }
    if (mki_eq(v, "none")) {
        return 0;
    }
    mki_buf_s(b, "retry-after: ");
    if (mki_eq(v, "date")) {
        mki_http_date(b, mki_unix(call->s) + 2000);
        seconds = 1; /* the date has no fractions */
    } else if (mki_eq(v, "float")) {
        mki_buf_s(b, "0.05");
        seconds = 0.05;
    } else {
        mki_buf_s(b, mki_eq(v, "huge")      ? "86400"
                     : mki_eq(v, "zero")    ? "0"
                     : mki_eq(v, "garbage") ? "soon, or later"
                                            : f->retry_after);
        seconds = mki_decimal(v, &seconds) ? seconds : 0;
    }
    mki_buf_s(b, "\r\n");
    return (int64_t)(seconds * 1000);
}

static void mki_problem_429(mki_call *call, mki_cause cause, int64_t limit,
                            int64_t used, int64_t asked, int64_t wait_ms)
{
    static const struct {
        const char *what, *span, *name;
    } words[MKI_LIMITS] = {
        {"requests", "min", "RPM"}, {"tokens", "min", "TPM"},
        {"requests", "day", "RPD"}, {"tokens", "day", "TPD"},
        {"requests", "min", "RPM"}, {"tokens", "min", "TPM"}};
    mki_problem *p = &call->problem;
    mki_buf wait = MKI_ZERO;
    char shown[64];
    bool requests = !mki_of_tokens(cause);

    mki_duration(&wait, wait_ms);
    mki_bad(p, NULL, "rate_limit_exceeded",
            "Rate limit reached for %s in organization org-mock on %s per %s "
            "(%s): Limit %" PRId64 ", Used %" PRId64 ", Requested %" PRId64
            ". Please try again in %.*s. Visit https://platform.openai.com/"
            "account/rate-limits to learn more.",
            mki_quote(call->model, shown), words[cause].what, words[cause].span,
            words[cause].name, limit, used, asked, (int)wait.len, wait.data);
    p->type = requests ? "requests" : "tokens";
    p->status = 429;
    mki_buf_free(&wait);
}

static void mki_problem_too_large(mki_call *call, int64_t limit, int64_t asked)
{
    mki_problem *p = &call->problem;
    char shown[64];

    mki_bad(p, NULL, "rate_limit_exceeded",
            "Request too large for %s in organization org-mock on tokens per "
            "min (TPM): Limit %" PRId64 ", Requested %" PRId64
            ". The input or output tokens must be reduced in order to run "
            "successfully.",
            mki_quote(call->model, shown), limit, asked);
    p->type = "tokens";
    p->status = 429;
}

/* The words of the API for an injected status; generic where none are known. */
static void mki_problem_status(mki_problem *p, int status)
{
    static const struct {
        int status;
        const char *type, *code, *message;
    } table[] = {
        {400, "invalid_request_error", NULL,
         "We could not parse the JSON body of your request."},
        {401, "invalid_request_error", "invalid_api_key",
         "Incorrect API key provided: sk-m***mock."},
        {403, "request_forbidden", "unsupported_country_region_territory",
         "Country, region, or territory not supported"},
        {404, "invalid_request_error", "model_not_found",
         "The model does not exist or you do not have access to it."},
        {408, "server_error", NULL, "The request timed out."},
        {409, "conflict", NULL, "The resource is locked, try again later."},
        {413, "invalid_request_error", NULL, "Request body too large."},
        {422, "invalid_request_error", NULL, "Unprocessable entity."},
        {498, "capacity_exceeded", "capacity_exceeded",
         "Flex tier capacity exceeded."},
        {500, "server_error", NULL,
         "The server had an error while processing your request. Sorry about "
         "that!"},
        {501, "not_supported_error", NULL, "This server does not support it."},
        {503, "server_error", NULL,
         "The engine is currently overloaded, please try again later"},
        {529, "overloaded_error", NULL, "Overloaded"}};
    size_t i = 0;

    while (i < MKI_COUNT(table) && table[i].status != status) {
        i++;
    }
    if (i == MKI_COUNT(table)) {
        mki_bad(p, NULL, NULL, "Injected status %d.", status);
        p->type = status >= 500 ? "server_error" : "invalid_request_error";
    } else {
        mki_bad(p, NULL, table[i].code, "%s", table[i].message);
        p->type = table[i].type;
    }
    p->status = status;
}

static void mki_fault_status(mki_call *call, const mki_fault *f)
{
    mki_plan *plan = &call->c->plan;
    int64_t wait = mki_retry_headers(call, f);
    int status = f->status;

    if (status == 429 || status == 503) {
        plan->pause_ms = wait;
    }
    if (status == 429) {
        mki_problem_429(call, MKI_RPM, 500, 500, 1, wait > 0 ? wait : 20);
    } else if (status == 502 || status == 504 ||
               (status >= 520 && status < 529)) {
        mki_respond_html(call, status);
        return;
    } else {
        mki_problem_status(&call->problem, status);
    }
    mki_respond_problem(call, &call->problem);
}

/* true: the fault has given the answer, nothing else is to be done. */
static bool mki_fault_answer(mki_call *call, const mki_fault *f)
{
    mki_buf *extra = &call->s->extra;

    if (f->should_retry >= 0) {
        mki_buf_s(extra, f->should_retry == 1 ? "x-should-retry: true\r\n"
                                              : "x-should-retry: false\r\n");
    }
    switch (f->kind) {
    case MKI_F_STATUS:
        mki_fault_status(call, f);
        return true;
    case MKI_F_QUOTA:
        mki_retry_headers(call, f);
        mki_bad(&call->problem, NULL, "insufficient_quota",
                "You exceeded your current quota, please check your plan and "
                "billing details.");
        call->problem.type = "insufficient_quota";
        call->problem.status = 429;
        mki_respond_problem(call, &call->problem);
        return true;
    case MKI_F_TOO_LARGE:
        mki_problem_too_large(call, 30000, 40000);
        mki_respond_problem(call, &call->problem);
        return true;
    case MKI_F_REDIRECT:
        mki_buf_f(extra, "location: %s\r\n",
                  f->to[0] != '\0' ? f->to : "http://127.0.0.1:9/v1/elsewhere");
        mki_respond(call, 307, "text/plain", mki_sc("elsewhere\n"));
        return true;
    case MKI_F_HTML:
        mki_respond_html(call, 200);
        return true;
    case MKI_F_EMPTY:
        mki_respond(call, 200, "application/json", mki_s("", 0));
        return true;
    case MKI_F_GARBAGE:
        mki_buf_add(&call->c->out, "\x16\x03\x01\x02\x00\x01\xfc garbage\n\n",
                    17);
        call->c->plan.after = MKI_CUT;
        return true;
    default:
        return false;
    }
}

/* ---- answers of models ---- */

/* The text of a message: its string, or its text parts joined. */
static mki_str mki_content(mki_call *call, const mki_json *m)
{
    const mki_json *content = mki_get_set(m, "content");
    const mki_json *part;
    size_t len = 0;
    char *joined;

    if (content == NULL || content->type == MKI_STRING) {
        return content == NULL ? mki_s("", 0) : content->text;
    }
    joined = (char *)mki_alloc(&call->s->arena, content->text.len + 1);
    if (joined == NULL) {
        return mki_s("", 0);
    }
    for (part = content->child; part != NULL; part = part->next) {
        mki_str t = mki_get_text(part, "text");

        if (t.len > 0) {
            memcpy(joined + len, t.ptr, t.len);
            len += t.len;
        }
    }
    return mki_s(joined, len);
}

typedef struct mki_answer {
    mki_str text;
    const char *finish;
    bool refusal;
    mki_str tool; /* ptr NULL: none; text holds its arguments */
    int64_t tokens;
    int status; /* not 0: the script wants this error */
} mki_answer;

static mki_str mki_keep(mki_call *call, const mki_buf *b)
{
    char *copy = (char *)mki_alloc(&call->s->arena, b->len + 1);

    if (copy == NULL) {
        return mki_s("", 0);
    }
    if (b->len > 0) {
        memcpy(copy, b->data, b->len);
    }
    return mki_s(copy, b->len);
}

/* The script's word on this conversation; false: it has none. */
static bool mki_script_reply(mki_call *call, mki_answer *a)
{
    mki_script *script = &call->s->script;
    size_t i;

    for (i = 0; i < script->n; i++) {
        mki_line *line = &script->lines[i];
        mki_str wanted = mki_get_text(line->json, "contains");
        const mki_json *from = line->json;
        const mki_json *r = mki_get_set(from, "replies");
        size_t k = line->used;
        mki_str finish;

        if (wanted.len > 0 &&
            mki_find(mki_buf_str(&call->s->conv), wanted, 0) == SIZE_MAX) {
            continue;
        }
        line->used++;
        r = r != NULL ? r->child : mki_get_set(from, "reply");
        for (; r != NULL && mki_get_set(from, "replies") != NULL && k > 0 &&
               r->next != NULL;
             k--) {
            r = r->next;
        }
        from = r != NULL && r->type == MKI_OBJECT ? r : from;
        a->status = (int)mki_get_int(from, "status", 0);
        a->text = r != NULL && r->type == MKI_STRING
                      ? r->text
                      : mki_get_text(from, "reply");
        if (a->text.ptr == NULL) {
            a->text = mki_s("", 0);
        }
        finish = mki_get_text(from, "finish_reason");
        a->finish = mki_eq(finish, "length")           ? "length"
                    : mki_eq(finish, "content_filter") ? "content_filter"
                                                       : "stop";
        call->c->plan.delay_ms += mki_get_int(from, "delay_ms", 0);
        return true;
    }
    return false;
}

static void mki_mode_reply(mki_call *call, mki_answer *a, mki_str last)
{
    mock_server *s = call->s;
    unsigned char digest[32];
    mki_sha sha;

    a->finish = "stop";
    a->text = last;
    if (s->mode == MKI_HASH) {
        mki_sha_init(&sha);
        mki_sha_add(&sha, s->conv.data, s->conv.len);
        mki_sha_end(&sha, digest);
        s->event.len = 0;
        mki_buf_hex(&s->event, digest, 8);
        a->text = mki_keep(call, &s->event);
    } else if (s->mode == MKI_NER) {
        s->event.len = 0;
        mki_ner_reply(&s->event, last);
        a->text = mki_keep(call, &s->event);
    }
}

/* Wraps the answer in what response_format and tool_choice ask for. */
static void mki_shape_reply(mki_call *call, mki_answer *a)
{
    const mki_json *format = mki_get_set(call->body, "response_format");
    const mki_json *schema = mki_get(mki_get(format, "json_schema"), "schema");
    const mki_json *tools = mki_get_set(call->body, "tools");
    const mki_json *choice = mki_get_set(call->body, "tool_choice");
    const mki_json *tool = NULL;
    mki_buf *b = &call->s->event;
    mki_str named = mki_get_text(mki_get(choice, "function"), "name");

    if (tools != NULL && choice != NULL &&
        (mki_eq(choice->text, "required") || named.ptr != NULL)) {
        for (tool = tools->child; tool != NULL; tool = tool->next) {
            mki_str name = mki_get_text(mki_get(tool, "function"), "name");

            if (name.ptr != NULL &&
                (named.ptr == NULL || mki_same(name, named))) {
                a->tool = name;
                break;
            }
        }
    }
    b->len = 0;
    if (tool != NULL) {
        schema = mki_get(mki_get(tool, "function"), "parameters");
        if (schema == NULL) {
            mki_buf_s(b, "{}");
        } else {
            mki_instance(b, schema, schema, 0);
        }
        a->finish = named.ptr != NULL ? "stop" : "tool_calls";
    } else if (schema != NULL) {
        mki_instance(b, schema, schema, 0);
    } else if (mki_eq(mki_get_text(format, "type"), "json_object")) {
        mki_buf_s(b, "{\"text\":");
        mki_js(b, a->text);
        mki_buf_c(b, '}');
    } else {
        return;
    }
    a->text = mki_keep(call, b);
}

static void mki_cut_tokens(mki_answer *a, int64_t limit, const char *finish)
{
    mki_str rest = a->text;

    while (rest.len > 0 && limit > 0) {
        size_t n = mki_token_next(rest);

        rest.ptr += n;
        rest.len -= n;
        limit--;
    }
    if (rest.len > 0) {
        a->text.len -= rest.len;
        a->finish = finish;
    }
}

static void mki_cut_stop(const mki_json *stop, mki_answer *a)
{
    const mki_json *m = stop == NULL               ? NULL
                        : stop->type == MKI_STRING ? stop
                                                   : stop->child;

    for (; m != NULL; m = stop->type == MKI_STRING ? NULL : m->next) {
        size_t at = m->text.len > 0 ? mki_find(a->text, m->text, 0) : SIZE_MAX;

        if (at != SIZE_MAX) {
            a->text.len = at;
            a->finish = "stop";
        }
    }
}

/* The one answer to a conversation (in s->conv), after all that cuts it. */
static void mki_answer_make(mki_call *call, mki_str last, int64_t limit,
                            mki_answer *a)
{
    const mki_fault *f = call->choice.main;
    mki_kind kind = f != NULL ? f->kind : MKI_F_NONE;

    memset(a, 0, sizeof *a);
    if (call->s->script.n == 0 || !mki_script_reply(call, a)) {
        mki_mode_reply(call, a, last);
        mki_shape_reply(call, a);
    }
    if (a->tool.ptr == NULL) {
        mki_cut_stop(mki_get_set(call->body, "stop"), a);
    }
    if (limit >= 0) {
        mki_cut_tokens(a, limit, "length");
    }
    if (kind == MKI_F_LENGTH || kind == MKI_F_FILTER) {
        mki_cut_tokens(a, mki_tokens(a->text) / 2, "stop");
        a->finish = kind == MKI_F_LENGTH ? "length" : "content_filter";
    }
    if (kind == MKI_F_REFUSAL) {
        a->refusal = true;
        a->text = mki_sc("I'm sorry, I can't assist with that request.");
        a->tool.ptr = NULL;
        a->finish = "stop";
    }
    a->tokens = mki_tokens(a->text);
}

/* "chatcmpl-..." of 29 letters and digits. */
static void mki_js_id(mki_buf *b, const char *prefix, uint64_t seed)
{
    static const char digits[] =
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    int i;

    mki_buf_s(b, prefix);
    for (i = 0; i < 29; i++) {
        mki_buf_c(b, digits[mki_mix(seed + (uint64_t)i) % 62]);
    }
}

/* The dated name that the API reports for an alias. */
static void mki_js_model(mki_buf *b, mki_str model)
{
    mki_js_key(b, "model");
    mki_buf_c(b, '"');
    mki_js_inside(b, model);
    mki_buf_s(b, mki_eq(model, "gpt-4o-mini")    ? "-2024-07-18"
                 : mki_eq(model, "gpt-4o")       ? "-2024-08-06"
                 : mki_eq(model, "gpt-4.1")      ? "-2025-04-14"
                 : mki_eq(model, "gpt-4.1-mini") ? "-2025-04-14"
                                                 : "");
    mki_buf_c(b, '"');
}

/* {"id":...,"object":...,"created":...,"model":... */
static void mki_js_open(mki_call *call, mki_buf *b, const char *object)
{
    mki_buf_s(b, "{\"id\":\"");
    mki_js_id(b, call->route == MKI_CHAT ? "chatcmpl-" : "cmpl-",
              mki_mix(call->s->opt.seed + call->id));
    mki_buf_c(b, '"');
    mki_js_str(b, "object", mki_sc(object));
    mki_js_int(b, "created", mki_unix(call->s) / 1000);
    mki_js_model(b, call->model);
}

/* Of the prompt, in steps of 128; batches have none. */
static int64_t mki_cached(const mki_call *call)
{
    int64_t n = (int64_t)((double)call->tokens_in * call->s->opt.cached_share);

    n = n > call->tokens_in ? call->tokens_in : n;
    return call->quiet || call->tokens_in < 1024 || n < 0 ? 0 : n - n % 128;
}

static void mki_js_usage(mki_call *call, mki_buf *b, int64_t out)
{
    int64_t in = call->tokens_in;

    mki_js_key(b, "usage");
    mki_buf_c(b, '{');
    mki_js_int(b, "prompt_tokens", in);
    mki_js_int(b, "completion_tokens", out);
    mki_js_int(b, "total_tokens", in + out);
    mki_buf_s(b, ",\"prompt_tokens_details\":{");
    mki_js_int(b, "cached_tokens", mki_cached(call));
    mki_buf_s(b, ",\"audio_tokens\":0},"
                 "\"completion_tokens_details\":"
                 "{\"reasoning_tokens\":0,\"audio_tokens\":0,"
                 "\"accepted_prediction_tokens\":0,"
                 "\"rejected_prediction_tokens\":0}}");
}

/* "logprobs": of a text, token by token, or null. */
static void mki_js_logprobs(mki_call *call, mki_buf *b, mki_str text)
{
    bool first = true;

    mki_js_key(b, "logprobs");
    if (!call->logprobs) {
        mki_buf_s(b, "null");
        return;
    }
    mki_buf_s(b, "{\"content\":[");
    while (text.len > 0) {
        size_t n = mki_token_next(text);
        size_t i;

        mki_buf_s(b, first ? "{\"token\":" : ",{\"token\":");
        mki_js(b, mki_s(text.ptr, n));
        mki_buf_s(b, ",\"logprob\":-0.25,\"bytes\":[");
        for (i = 0; i < n; i++) {
            mki_buf_s(b, i > 0 ? "," : "");
            mki_buf_i64(b, (unsigned char)text.ptr[i]);
        }
        mki_buf_s(b, "],\"top_logprobs\":[]}");
        text.ptr += n;
        text.len -= n;
        first = false;
    }
    mki_buf_s(b, "],\"refusal\":null}");
}

static void mki_js_tool(mki_call *call, mki_buf *b, const mki_answer *a,
                        mki_str arguments, bool indexed)
{
    mki_js_key(b, "tool_calls");
    mki_buf_s(b, indexed ? "[{\"index\":0,\"id\":\"" : "[{\"id\":\"");
    mki_js_id(b, "call_", mki_mix(call->id));
    mki_buf_s(b, "\",\"type\":\"function\",\"function\":{");
    mki_js_str(b, "name", a->tool);
    mki_js_str(b, "arguments", arguments);
    mki_buf_s(b, "}}]");
}

static void mki_js_choice(mki_call *call, mki_buf *b, const mki_answer *a,
                          int64_t index)
{
    mki_buf_c(b, '{');
    if (call->route == MKI_COMPLETIONS) {
        mki_js_str(b, "text", a->text);
        mki_js_int(b, "index", index);
        mki_buf_s(b, ",\"logprobs\":null");
        mki_js_str(b, "finish_reason", mki_sc(a->finish));
        mki_buf_c(b, '}');
        return;
    }
    mki_js_int(b, "index", index);
    mki_js_key(b, "message");
    mki_buf_s(b, "{\"role\":\"assistant\",\"content\":");
    if (a->refusal || a->tool.ptr != NULL) {
        mki_buf_s(b, "null");
    } else {
        mki_js(b, a->text);
    }
    if (a->tool.ptr != NULL) {
        mki_js_tool(call, b, a, a->text, false);
    }
    mki_js_key(b, "refusal");
    if (a->refusal) {
        mki_js(b, a->text);
    } else {
        mki_buf_s(b, "null");
    }
    mki_buf_s(b, ",\"annotations\":[]}");
    mki_js_logprobs(call, b, a->text);
    mki_js_str(b, "finish_reason", mki_sc(a->finish));
    mki_buf_c(b, '}');
}

/* answers: n_answers of them, n choices each. */
static void mki_send_whole(mki_call *call, const mki_answer *answers,
                           size_t n_answers, int64_t n)
{
    mki_buf *b = &call->s->body;
    const mki_fault *f = call->choice.main;
    int64_t out = 0;
    size_t i;
    int64_t k;

    b->len = 0;
    mki_js_open(call, b,
                call->route == MKI_CHAT ? "chat.completion"
                                        : "text_completion");
    mki_buf_s(b, ",\"choices\":[");
    for (i = 0; i < n_answers; i++) {
        for (k = 0; k < n; k++) {
            mki_buf_s(b, i + (size_t)k > 0 ? "," : "");
            mki_js_choice(call, b, &answers[i], (int64_t)i * n + k);
            out += answers[i].tokens;
        }
    }
    mki_buf_c(b, ']');
    mki_js_usage(call, b, out);
    if (call->route == MKI_CHAT) {
        mki_buf_s(b, ",\"service_tier\":\"default\","
                     "\"system_fingerprint\":\"fp_0123456789\"");
    }
    mki_buf_s(b, "}\n");
    call->c->plan.tokens_out = out;
    if (f != NULL && f->kind == MKI_F_BAD_JSON) {
        b->len = b->len * 2 / 3;
    } else if (f != NULL && f->kind == MKI_F_STREAM_ERROR) {
        b->len = 0;
        mki_buf_s(b, "{\"error\":{\"message\":\"The server had an error while "
                     "processing your request.\",\"type\":\"server_error\"}}");
    } else if (f != NULL && f->kind == MKI_F_EARLY_CLOSE) {
        call->c->plan.after = MKI_CUT;
        call->c->plan.cut = b->len / 2; /* the head is added to it later */
    }
    mki_respond(call, 200, "application/json", mki_buf_str(b));
}

/* ---- streams ---- */

static void mki_sse(mki_call *call, mki_str data)
{
    mki_buf *b = &call->s->event;
    const char *end = call->choice.way[MKI_F_CRLF] != NULL ? "\r\n" : "\n";

    b->len = 0;
    if (call->choice.way[MKI_F_COMMENTS] != NULL) {
        mki_buf_s(b, ": keep-alive");
        mki_buf_s(b, end);
        mki_buf_s(b, call->events % 2 == 0 ? end : "");
    }
    mki_buf_s(b, "data: ");
    mki_buf_add(b, data.ptr, data.len);
    mki_buf_s(b, end);
    mki_buf_s(b, end);
    mki_out(call, b->data, b->len);
    call->events++;
}

/* One chunk: the choice's inside comes from the caller. */
static void mki_sse_open(mki_call *call, mki_buf *b, int64_t index)
{
    b->len = 0;
    mki_js_open(call, b,
                call->route == MKI_CHAT ? "chat.completion.chunk"
                                        : "text_completion");
    if (call->route == MKI_CHAT) {
        mki_buf_s(b, ",\"service_tier\":\"default\","
                     "\"system_fingerprint\":\"fp_0123456789\"");
    }
    mki_buf_s(b, ",\"choices\":[{");
    mki_js_int(b, "index", index);
}

static void mki_sse_close(mki_call *call, mki_buf *b)
{
    static const char pad[] = "aZ3kQ9xB7mWc";

    mki_buf_s(b, "}]");
    mki_buf_s(b, call->usage ? ",\"usage\":null" : "");
    if (call->obfuscate) {
        size_t at = (size_t)(mki_mix(call->id + call->events) % 10);

        mki_js_str(b, "obfuscation", mki_s(pad + at, 12 - at));
    }
    mki_buf_c(b, '}');
    if (call->events < call->stop_after) {
        mki_sse(call, mki_buf_str(b));
    }
}

/* A piece of text of one choice; finish NULL: it goes on. */
static void mki_sse_piece(mki_call *call, const mki_answer *a, int64_t index,
                          mki_str piece, const char *finish)
{
    mki_buf *b = &call->s->body;

    mki_sse_open(call, b, index);
    if (call->route == MKI_COMPLETIONS) {
        mki_js_str(b, "text", piece);
        mki_buf_s(b, ",\"logprobs\":null");
    } else {
        mki_js_key(b, "delta");
        mki_buf_c(b, '{');
        if (piece.len > 0 && a->tool.ptr != NULL) {
            mki_buf_s(b, "\"tool_calls\":[{\"index\":0,\"function\":{");
            mki_js_str(b, "arguments", piece);
            mki_buf_s(b, "}}]");
        } else if (piece.len > 0) {
            mki_js_str(b, a->refusal ? "refusal" : "content", piece);
        }
        mki_buf_c(b, '}');
        if (call->logprobs && piece.len > 0) {
            mki_js_logprobs(call, b, piece);
        } else {
            mki_buf_s(b, ",\"logprobs\":null");
        }
    }
    mki_js_maybe(b, "finish_reason", finish);
    mki_sse_close(call, b);
}

/* The first chunk of a chat choice: its role. */
static void mki_sse_role(mki_call *call, const mki_answer *a, int64_t index)
{
    mki_buf *b = &call->s->body;

    mki_sse_open(call, b, index);
    mki_buf_s(b, ",\"delta\":{\"role\":\"assistant\",\"content\":");
    mki_buf_s(b, a->tool.ptr != NULL || a->refusal ? "null" : "\"\"");
    if (a->tool.ptr != NULL) {
        mki_js_tool(call, b, a, mki_s("", 0), true);
    }
    mki_buf_s(b, ",\"refusal\":null},\"logprobs\":null,"
                 "\"finish_reason\":null");
    mki_sse_close(call, b);
}

/* What follows the last chunk of the choices, faults included. */
static void mki_sse_end(mki_call *call, int64_t out, bool broken)
{
    mki_buf *b = &call->s->body;
    mki_kind kind =
        call->choice.main != NULL ? call->choice.main->kind : MKI_F_NONE;

    if (broken && kind == MKI_F_STREAM_ERROR) {
        mki_sse(call,
                mki_sc("{\"error\":{\"message\":\"The server had an error "
                       "while processing your request. Sorry about that!\","
                       "\"type\":\"server_error\",\"param\":null,"
                       "\"code\":null}}"));
        call->c->plan.after = MKI_CLOSE;
        return;
    }
    if (broken) {
        return;
    }
    if (call->usage) {
        b->len = 0;
        mki_js_open(call, b,
                    call->route == MKI_CHAT ? "chat.completion.chunk"
                                            : "text_completion");
        mki_buf_s(b, ",\"choices\":[]");
        mki_js_usage(call, b, out);
        mki_buf_c(b, '}');
        mki_sse(call, mki_buf_str(b));
    }
    if (kind != MKI_F_NO_DONE) {
        mki_sse(call, mki_sc("[DONE]"));
    }
}

/* Choices interleave piece by piece, as those of the real API do. */
static void mki_send_stream(mki_call *call, const mki_answer *answers,
                            size_t n_answers, int64_t n)
{
    mki_kind kind =
        call->choice.main != NULL ? call->choice.main->kind : MKI_F_NONE;
    bool broken = kind == MKI_F_STREAM_ERROR || kind == MKI_F_EARLY_CLOSE ||
                  kind == MKI_F_BAD_JSON;
    size_t total = n_answers * (size_t)n;
    mki_str *rest = (mki_str *)mki_alloc(&call->s->arena, total * sizeof *rest);
    int64_t out = 0;
    size_t busy = total;
    size_t i;

    if (rest == NULL) {
        call->c->out.failed = true;
        return;
    }
    for (i = 0; i < total; i++) {
        rest[i] = answers[i / (size_t)n].text;
        out += answers[i / (size_t)n].tokens;
    }
    call->c->plan.tokens_out = out;
    call->stop_after =
        broken ? total + (size_t)(out / 2) : SIZE_MAX; /* half the pieces */
    mki_out_head(call, 200, "text/event-stream; charset=utf-8", true, 0);
    for (i = 0; call->route == MKI_CHAT && i < total; i++) {
        mki_sse_role(call, &answers[i / (size_t)n], (int64_t)i);
    }
    while (busy > 0 && call->events < call->stop_after) {
        busy = 0;
        for (i = 0; i < total; i++) {
            size_t step = mki_token_next(rest[i]);

            if (step > 0) {
                mki_sse_piece(call, &answers[i / (size_t)n], (int64_t)i,
                              mki_s(rest[i].ptr, step), NULL);
                rest[i].ptr += step;
                rest[i].len -= step;
                busy++;
            }
        }
    }
    for (i = 0; i < total; i++) {
        const mki_answer *a = &answers[i / (size_t)n];

        mki_sse_piece(call, a, (int64_t)i, mki_s("", 0), a->finish);
    }
    if (kind == MKI_F_BAD_JSON) {
        mki_sse(call, mki_sc("{\"id\":\"chatcmpl-broken\",\"choices\":[{"));
    }
    mki_sse_end(call, out, broken);
    mki_out_end(call);
}

/* ---- the endpoints proper ---- */

static void mki_send(mki_call *call, const mki_answer *answers, size_t count)
{
    int64_t n = mki_get_set(call->body, "n") != NULL
                    ? mki_get_int(call->body, "n", 1)
                    : 1;

    if (answers[0].status >= 300) {
        mki_problem_status(&call->problem, answers[0].status);
        mki_respond_problem(call, &call->problem);
    } else if (call->stream) {
        mki_send_stream(call, answers, count, n);
    } else {
        mki_send_whole(call, answers, count, n);
    }
}

static void mki_conv_add(mock_server *s, mki_str role, mki_str text)
{
    mki_buf_add(&s->conv, role.ptr, role.len);
    mki_buf_c(&s->conv, '\n');
    mki_buf_add(&s->conv, text.ptr, text.len);
    mki_buf_c(&s->conv, '\n');
}

static int64_t mki_limit(const mki_json *body, int64_t absent)
{
    int64_t limit = mki_get_int(body, "max_completion_tokens", -1);

    return limit >= 0 ? limit : mki_get_int(body, "max_tokens", absent);
}

static void mki_chat(mki_call *call)
{
    mock_server *s = call->s;
    const mki_json *m = mki_get(call->body, "messages")->child;
    mki_str last = mki_s("", 0);
    mki_answer answer;

    s->conv.len = 0;
    for (; m != NULL; m = m->next) {
        mki_str role = mki_get_text(m, "role");
        mki_str text = mki_content(call, m);

        mki_conv_add(s, role, text);
        call->tokens_in += 4 + mki_tokens(text);
        if (mki_eq(role, "user") || last.len == 0) {
            last = text;
        }
    }
    mki_answer_make(call, last, mki_limit(call->body, -1), &answer);
    mki_send(call, &answer, 1);
}

/* The i-th prompt; token arrays count, but have no text. */
static mki_str mki_prompt_at(const mki_json *prompt, size_t i)
{
    const mki_json *m;

    if (prompt == NULL) {
        return mki_sc("<|endoftext|>");
    }
    if (prompt->type == MKI_STRING) {
        return prompt->text;
    }
    for (m = prompt->child; m != NULL && i > 0; m = m->next) {
        i--;
    }
    return m != NULL && m->type == MKI_STRING ? m->text : mki_s("", 0);
}

static void mki_text(mki_call *call)
{
    mock_server *s = call->s;
    const mki_json *prompt = mki_get_set(call->body, "prompt");
    bool many = prompt != NULL && prompt->type == MKI_ARRAY &&
                prompt->child != NULL && prompt->child->type != MKI_INT;
    size_t count = many ? prompt->n : 1;
    mki_answer *answers =
        (mki_answer *)mki_alloc(&s->arena, count * sizeof *answers);
    size_t i;

    if (answers == NULL) {
        call->c->out.failed = true;
        return;
    }
    for (i = 0; i < count; i++) {
        mki_str text = mki_prompt_at(prompt, i);

        s->conv.len = 0;
        mki_conv_add(s, mki_sc("user"), text);
        call->tokens_in += mki_tokens(text);
        mki_answer_make(call, text, mki_limit(call->body, 16), &answers[i]);
        if (mki_get_true(call->body, "echo")) {
            s->event.len = 0;
            mki_buf_add(&s->event, text.ptr, text.len);
            mki_buf_add(&s->event, answers[i].text.ptr, answers[i].text.len);
            answers[i].text = mki_keep(call, &s->event);
        }
    }
    mki_send(call, answers, count);
}

static void mki_embeddings(mki_call *call)
{
    const mki_json *input = mki_get(call->body, "input");
    const mki_json *m = input;
    const mki_model *model = mki_model_find(call->model);
    bool base64 = mki_eq(mki_get_text(call->body, "encoding_format"), "base64");
    int64_t dims =
        mki_get_int(call->body, "dimensions",
                    model != NULL && model->dims > 0 ? model->dims : 1536);
    mki_buf *b = &call->s->body;
    int64_t index = 0;

    b->len = 0;
    if (input->type == MKI_ARRAY && input->child->type != MKI_INT) {
        m = input->child;
    }
    mki_buf_s(b, "{\"object\":\"list\",\"data\":[");
    for (; m != NULL; m = m == input ? NULL : m->next) {
        mki_buf_s(b, index > 0 ? "," : "");
        mki_buf_s(b, "{\"object\":\"embedding\"");
        mki_js_int(b, "index", index++);
        mki_js_key(b, "embedding");
        mki_vector(b, call->model, m->text, (size_t)dims, base64);
        mki_buf_c(b, '}');
        call->tokens_in +=
            m->type == MKI_STRING ? mki_tokens(m->text) : (int64_t)m->n;
    }
    mki_buf_c(b, ']');
    mki_js_model(b, call->model);
    mki_js_key(b, "usage");
    mki_buf_c(b, '{');
    mki_js_int(b, "prompt_tokens", call->tokens_in);
    mki_js_int(b, "total_tokens", call->tokens_in);
    mki_buf_s(b, "}}\n");
    if (call->choice.main != NULL &&
        call->choice.main->kind == MKI_F_BAD_JSON) {
        b->len = b->len * 2 / 3;
    }
    mki_respond(call, 200, "application/json", mki_buf_str(b));
}

static void mki_js_model_object(mki_buf *b, mki_str id, int32_t shutdown)
{
    mki_buf_c(b, '{');
    mki_js_str(b, "id", id);
    mki_buf_s(b, ",\"object\":\"model\",\"created\":1715367049,"
                 "\"owned_by\":\"system\",\"shutdown_date\":");
    if (shutdown == 0) {
        mki_buf_s(b, "null}");
    } else {
        mki_buf_f(b, "\"%04d-%02d-%02d\"}", (int)(shutdown / 10000),
                  (int)(shutdown / 100 % 100), (int)(shutdown % 100));
    }
}

/* Percent-decoding of the id in the path. */
static mki_str mki_unescape(mki_call *call, mki_str s)
{
    char *out = (char *)mki_alloc(&call->s->arena, s.len + 1);
    size_t n = 0;
    size_t i;

    for (i = 0; out != NULL && i < s.len; i++) {
        char hex[4] = {'0', '0', '0', '0'};
        int32_t v = -1;

        if (s.ptr[i] == '%' && i + 2 < s.len) {
            hex[2] = s.ptr[i + 1];
            hex[3] = s.ptr[i + 2];
            v = mki_json_hex(hex, hex + 4);
        }
        out[n++] = v >= 0 ? (char)(unsigned char)v : s.ptr[i];
        i += v >= 0 ? 2 : 0;
    }
    return mki_s(out, n);
}

static void mki_models_get(mki_call *call)
{
    mki_buf *b = &call->s->body;
    int32_t today = mki_today(mki_unix(call->s));
    mki_str id = mki_unescape(call, call->model_id);
    const mki_model *m = mki_model_find(id);
    char shown[64];
    bool first = true;
    size_t i;

    b->len = 0;
    if (call->route == MKI_MODEL) {
        if (m == NULL || (m->shutdown != 0 && today >= m->shutdown)) {
            mki_bad_model(&call->problem, mki_quote(id, shown));
            mki_copy(call->problem.param, 8, mki_sc("model"));
            mki_respond_problem(call, &call->problem);
            return;
        }
        mki_js_model_object(b, id, m->shutdown);
    } else {
        mki_buf_s(b, "{\"object\":\"list\",\"data\":[");
        for (i = 0; i < MKI_COUNT(mki_models); i++) {
            m = &mki_models[i];
            if (m->shutdown != 0 && today >= m->shutdown) {
                continue;
            }
            mki_buf_s(b, first ? "" : ",");
            mki_js_model_object(b, mki_sc(m->name), m->shutdown);
            first = false;
        }
        mki_buf_s(b, "]}\n");
    }
    mki_respond(call, 200, "application/json", mki_buf_str(b));
}

/* ---- routes ---- */

/* Whether the method is one that the path takes; sets the route. */
static void mki_route_method(mki_call *call, const char *method,
                             mki_route route)
{
    if (mki_eq(call->q->method, method)) {
        call->route = route;
        call->wrong_method = NULL;
    } else if (call->route == MKI_OTHER) {
        call->route = route;
        call->wrong_method = method;
    }
}

/* /files, /batches and what lies below them. */
static void mki_find_item(mki_call *call, mki_str path)
{
    bool files = mki_starts(path, "/files");
    mki_str rest;
    size_t slash;

    if (!files && !mki_starts(path, "/batches")) {
        return;
    }
    rest = mki_s(path.ptr + (files ? 6 : 8), path.len - (files ? 6 : 8));
    if (rest.len == 0) {
        mki_route_method(call, "GET", files ? MKI_FILES : MKI_BATCHES);
        mki_route_method(call, "POST", files ? MKI_UPLOAD : MKI_BATCH_NEW);
        return;
    }
    if (rest.ptr[0] != '/' || rest.len == 1) {
        return;
    }
    slash = mki_find(rest, mki_sc("/"), 1);
    call->model_id =
        mki_s(rest.ptr + 1, (slash == SIZE_MAX ? rest.len : slash) - 1);
    rest = slash == SIZE_MAX ? mki_s("", 0)
                             : mki_s(rest.ptr + slash, rest.len - slash);
    if (rest.len == 0) {
        mki_route_method(call, "GET", files ? MKI_FILE : MKI_BATCH);
        if (files) {
            mki_route_method(call, "DELETE", MKI_FILE_DELETE);
        }
    } else if (files && mki_eq(rest, "/content")) {
        mki_route_method(call, "GET", MKI_CONTENT);
    } else if (!files && mki_eq(rest, "/cancel")) {
        mki_route_method(call, "POST", MKI_CANCEL);
    }
}

/* Sets the route from the path: /v1/..., /openai/v1/..., /openai/... and
 * /openai/deployments/NAME/... (Azure), and /mock/... */
static void mki_find_route(mki_call *call)
{
    static const struct {
        const char *path;
        mki_route route;
        const char *method;
    } table[] = {{"/chat/completions", MKI_CHAT, "POST"},
                 {"/completions", MKI_COMPLETIONS, "POST"},
                 {"/embeddings", MKI_EMBEDDINGS, "POST"},
                 {"/models", MKI_MODELS, "GET"}};
    mki_str path = call->q->path;
    size_t i, end;

    call->route = MKI_OTHER;
    if (mki_starts(path, "/mock/")) {
        call->route = MKI_MOCK;
        return;
    }
    if (mki_starts(path, "/openai/deployments/")) {
        end = mki_find(path, mki_sc("/"), 20);
        end = end == SIZE_MAX ? path.len : end;
        call->deployment = mki_unescape(call, mki_s(path.ptr + 20, end - 20));
        path = mki_s(path.ptr + end, path.len - end);
    } else if (mki_starts(path, "/openai/v1/")) {
        path = mki_s(path.ptr + 10, path.len - 10);
    } else if (mki_starts(path, "/openai/")) {
        path = mki_s(path.ptr + 7, path.len - 7);
    } else if (mki_starts(path, "/v1/")) {
        path = mki_s(path.ptr + 3, path.len - 3);
    } else {
        return;
    }
    mki_find_item(call, path);
    for (i = 0; i < MKI_COUNT(table); i++) {
        if (mki_eq(path, table[i].path)) {
            call->route = table[i].route;
            call->wrong_method = mki_eq(call->q->method, table[i].method)
                                     ? NULL
                                     : table[i].method;
        }
    }
    if (mki_starts(path, "/models/") && path.len > 8) {
        call->route = MKI_MODEL;
        call->model_id = mki_s(path.ptr + 8, path.len - 8);
        call->wrong_method = mki_eq(call->q->method, "GET") ? NULL : "GET";
    }
}

/* Parses the body; false: call->problem says what is wrong. */
static bool mki_body_json(mki_call *call)
{
    mock_server *s = call->s;
    mki_str type = mki_header(call->q, "content-type");

    type = type.ptr == NULL ? mki_s("", 0) : type;
    if (type.len < 16 || !mki_ieq(mki_s(type.ptr, 16), "application/json")) {
        mki_bad(&call->problem, NULL, NULL,
                "Unsupported content type: '%.*s'. This API method only "
                "accepts 'application/json' requests.",
                (int)(type.len < 60 ? type.len : 60), type.ptr);
        call->problem.status = 415;
        return false;
    }
    call->body = mki_json_parse(&s->arena, call->q->body);
    if (call->body == NULL || call->body->type != MKI_OBJECT) {
        return mki_bad(&call->problem, NULL, NULL,
                       "We could not parse the JSON body of your request. "
                       "(HINT: This likely means you aren't using your HTTP "
                       "library correctly. The OpenAI API expects a JSON "
                       "payload, but what was sent was not valid JSON.)");
    }
    return true;
}

/* Parses and checks the body; false: call->problem says what is wrong. */
static bool mki_body_ok(mki_call *call)
{
    mock_server *s = call->s;
    mki_check how;

    if (!mki_body_json(call)) {
        return false;
    }
    call->model = call->deployment.len > 0 ? call->deployment
                                           : mki_get_text(call->body, "model");
    how.route = call->route;
    how.profiles = s->opt.model_profiles;
    how.today = mki_today(mki_unix(s));
    how.deployment = call->deployment;
    return mki_check_body(&how, call->body, &call->problem);
}

/* The answer to a body that has been checked. */
static void mki_model_answer(mki_call *call)
{
    const mki_json *options = mki_get_set(call->body, "stream_options");

    call->stream = mki_get_true(call->body, "stream");
    call->usage = mki_get_true(options, "include_usage");
    call->obfuscate = call->route == MKI_CHAT &&
                      (mki_get(options, "include_obfuscation") == NULL ||
                       mki_get_true(options, "include_obfuscation"));
    call->logprobs = mki_get_true(call->body, "logprobs");
    if (call->route == MKI_CHAT) {
        mki_chat(call);
    } else if (call->route == MKI_COMPLETIONS) {
        mki_text(call);
    } else {
        mki_embeddings(call);
    }
}

/* ===========================================================================
 * >>batch      the endpoints of files and batches; batches run
 * calls: >>multipart >>store >>vet >>api
 *
 * Nothing waits and nothing runs beside: a batch is checked when it is made,
 * and where it stands follows from the clock whenever somebody looks. The
 * first look past its end runs its lines, through the endpoints, from the
 * stored input to the stored output; then it is over, on disk as well. What
 * has been run is billed at that moment, so that a killed server bills once.
 *
 * Of the time that a batch takes, 3% are validating and 3% finalizing.
 * ======================================================================== */

static void mki_js_random(mki_buf *b, mock_server *s, bool hex, int n)
{
    static const char digits[] =
        "0123456789abcdefABCDEFGHIJKLMNOPQRSTUVWXYZghijklmnopqrstuvwxyz";
    int i;

    for (i = 0; i < n; i++) {
        s->id_state = mki_mix(s->id_state);
        mki_buf_c(b, digits[s->id_state % (hex ? 16 : 62)]);
    }
}

/* "file-" and 22 letters and digits, never used before. */
static void mki_file_new_id(mock_server *s, mki_file *f)
{
    mki_buf id = MKI_ZERO;

    f->serial = ++s->store.serial;
    do {
        id.len = 0;
        mki_buf_s(&id, "file-");
        mki_js_random(&id, s, false, 22);
        mki_copy(f->id, sizeof f->id, mki_buf_str(&id));
    } while (!id.failed && mki_store_file(&s->store, mki_sc(f->id)) != NULL);
    mki_buf_free(&id);
}

static void mki_not_found(mki_call *call, mki_str id)
{
    char shown[64];

    mki_bad(&call->problem, "id", NULL, "No such File object: %s",
            mki_quote(id, shown));
    call->problem.status = 404;
    mki_respond_problem(call, &call->problem);
}

static void mki_out_of_room(mki_call *call)
{
    mki_bad(&call->problem, NULL, NULL, "The mock cannot store it.");
    call->problem.status = 500;
    call->problem.type = "server_error";
    mki_respond_problem(call, &call->problem);
}

/* s->body as an object of the API. */
static void mki_respond_object(mki_call *call)
{
    mki_buf *b = &call->s->body;

    if (call->choice.main != NULL &&
        call->choice.main->kind == MKI_F_BAD_JSON) {
        b->len = b->len * 2 / 3;
    }
    mki_respond(call, 200, "application/json", mki_buf_str(b));
}

static void mki_respond_file(mki_call *call, const mki_file *f)
{
    mki_buf *b = &call->s->body;

    b->len = 0;
    mki_js_file(b, f);
    mki_buf_s(b, "}\n");
    mki_respond_object(call);
}

/* ---- uploads ---- */

static bool mki_upload_sink(void *ctx, const char *data, size_t len)
{
    mki_upload *u = (mki_upload *)ctx;

    u->bytes += (int64_t)len;
    if (u->bytes > u->limit) {
        return true; /* too large: the rest is only counted */
    }
    if (u->fd < 0) {
        u->fd = open(u->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    }
    return u->fd >= 0 && mki_fd_write(u->fd, data, len);
}

static void mki_upload_free(mki_conn *c)
{
    mki_upload *u = c->upload;

    if (u != NULL) {
        if (u->fd >= 0) {
            close(u->fd);
        }
        if (u->tmp[0] != '\0') {
            unlink(u->tmp);
        }
        mki_form_free(&u->form);
        free(u);
        c->upload = NULL;
    }
}

/* The head of an upload is complete; false: no memory. */
static bool mki_upload_begin(mock_server *s, mki_conn *c, const mki_request *q)
{
    mki_upload *u = (mki_upload *)calloc(1, sizeof *u);
    const mki_fault *f;
    int64_t whole = (int64_t)c->incoming.body_len;

    c->upload = u;
    if (u == NULL) {
        return false;
    }
    u->fd = -1;
    u->limit = s->store.limit_file;
    u->good_type = mki_form_init(&u->form, mki_header(q, "content-type"));
    u->form.sink = mki_upload_sink;
    u->form.ctx = u;
    u->reset_at = -1;
    u->failed = !mki_store_open(&s->store);
    if (!u->failed) {
        snprintf(u->tmp, sizeof u->tmp, "%s/upload-%" PRIu64 ".tmp",
                 s->store.dir, ++s->uploads);
    }
    f = mki_faults_event(&s->faults, MKI_F_UPLOAD_RESET, MKI_UPLOAD,
                         mki_mix(++s->ids));
    if (f != NULL) {
        u->reset_at = f->bytes >= 0 ? f->bytes : whole > 0 ? whole / 2 : 1000;
        mki_account_fault(&s->account, f->label);
        s->account.requests[MKI_UPLOAD]++;
    }
    return true;
}

/* The next bytes of the body; false: the connection is to be reset now. */
static bool mki_upload_feed(void *ctx, const char *data, size_t len)
{
    mki_upload *u = (mki_upload *)ctx;

    u->total += (int64_t)len;
    if (u->reset_at >= 0 && u->total >= u->reset_at) {
        return false;
    }
    if (u->good_type) {
        mki_form_feed(&u->form, data, len);
        u->failed = u->failed || u->form.sink_failed;
    }
    return true;
}

/* Checks what is not about the bytes; false: p says what is wrong. */
static bool mki_upload_fields(const mki_upload *u, int64_t *expires,
                              mki_problem *p)
{
    const mki_form *f = &u->form;
    uint64_t seconds = 0;
    char shown[64];

    if (!f->has_file) {
        return mki_bad_missing(p, "file");
    }
    if (!f->has_purpose || f->purpose[0] == '\0') {
        return mki_bad_missing(p, "purpose");
    }
    if (!mki_listed(mki_sc(f->purpose), " assistants batch fine-tune vision "
                                        "user_data evals ")) {
        return mki_bad(p, "purpose", "invalid_value",
                       "'%s' is not one of ['assistants', 'batch', "
                       "'fine-tune', 'vision', 'user_data', 'evals'] - "
                       "'purpose'",
                       mki_quote(mki_sc(f->purpose), shown));
    }
    if (f->has_anchor != f->has_seconds) {
        return mki_bad_missing(p, f->has_anchor ? "expires_after[seconds]"
                                                : "expires_after[anchor]");
    }
    if (f->has_anchor && strcmp(f->anchor, "created_at") != 0) {
        return mki_bad(p, "expires_after[anchor]", "invalid_value",
                       "Invalid 'expires_after[anchor]': expected "
                       "'created_at'.");
    }
    if (f->has_seconds && (!mki_u64(mki_sc(f->seconds), &seconds) ||
                           seconds < 3600 || seconds > 2592000)) {
        return mki_bad(p, "expires_after[seconds]", "invalid_value",
                       "Invalid 'expires_after[seconds]': expected an integer "
                       "from 3600 to 2592000.");
    }
    *expires = f->has_seconds                     ? (int64_t)seconds
               : strcmp(f->purpose, "batch") == 0 ? MKI_FILE_DAYS * 86400
                                                  : 0;
    return true;
}

/* The name and size of a file for batches; false: answered. */
static bool mki_upload_fits(mki_call *call, const mki_upload *u)
{
    const char *name = u->form.filename;
    size_t n = strlen(name);
    bool batch = strcmp(u->form.purpose, "batch") == 0;
    int64_t limit =
        batch ? call->s->store.limit_batch : call->s->store.limit_file;
    mki_buf *b = &call->s->body;
    const char *what = NULL;

    if (batch && (n < 6 || strcmp(name + n - 6, ".jsonl") != 0)) {
        what = "Invalid file format for Batch API. Must be .jsonl";
    } else if (u->bytes > limit) {
        what = "File is too large.";
    }
    if (what == NULL) {
        return true;
    }
    b->len = 0;
    mki_buf_f(b,
              "{\"error\":{\"message\":\"%s\",\"type\":"
              "\"invalid_request_error\",\"param\":null,\"code\":null}",
              what);
    if (what[0] == 'I') {
        mki_js_str(b, "detail", mki_sc(what));
    }
    mki_buf_s(b, "}\n");
    mki_respond(call, 400, "application/json", mki_buf_str(b));
    return false;
}

static void mki_upload_end(mki_call *call)
{
    mock_server *s = call->s;
    mki_upload *u = call->c->upload;
    int64_t expires = 0;
    mki_file *f;

    if (u == NULL || !u->good_type) {
        mki_bad(&call->problem, NULL, NULL,
                "Unsupported content type: this API method only accepts "
                "'multipart/form-data' requests with a boundary.");
        call->problem.status = 415;
        mki_respond_problem(call, &call->problem);
        return;
    }
    if (u->form.state != MKI_FORM_END) {
        mki_bad(&call->problem, NULL, NULL,
                "Could not parse multipart form: it is malformed or ends "
                "early.");
        mki_respond_problem(call, &call->problem);
        return;
    }
    if (!mki_upload_fields(u, &expires, &call->problem)) {
        mki_respond_problem(call, &call->problem);
        return;
    }
    if (!mki_upload_fits(call, u)) {
        return;
    }
    mki_upload_sink(u, "", 0); /* an empty file is one, too */
    f = u->failed || u->fd < 0 ? NULL : (mki_file *)calloc(1, sizeof *f);
    if (f != NULL) {
        mki_file_new_id(s, f);
        mki_copy_utf8(f->name, sizeof f->name, mki_sc(u->form.filename));
        mki_copy(f->purpose, sizeof f->purpose, mki_sc(u->form.purpose));
        f->bytes = u->bytes;
        f->created_at = mki_unix(s) / 1000;
        f->expires_at = expires > 0 ? f->created_at + expires : 0;
    }
    if (f == NULL || !mki_store_keep(&s->store, f, u->tmp)) {
        mki_out_of_room(call);
        return;
    }
    u->tmp[0] = '\0';
    mki_respond_file(call, f);
}

/* ---- files ---- */

/* A parameter of the query, percent-decoded; ptr NULL: it has none. */
static mki_str mki_query(mki_call *call, const char *name)
{
    mki_str rest = call->q->query;

    while (rest.len > 0) {
        size_t end = mki_find(rest, mki_sc("&"), 0);
        mki_str pair = mki_s(rest.ptr, end == SIZE_MAX ? rest.len : end);
        size_t eq = mki_find(pair, mki_sc("="), 0);

        if (eq != SIZE_MAX && mki_eq(mki_s(pair.ptr, eq), name)) {
            return mki_unescape(call,
                                mki_s(pair.ptr + eq + 1, pair.len - eq - 1));
        }
        rest = end == SIZE_MAX ? mki_s("", 0)
                               : mki_s(rest.ptr + end + 1, rest.len - end - 1);
    }
    return mki_s(NULL, 0);
}

typedef struct mki_page {
    uint64_t limit;
    bool ascending;
    mki_str after, purpose;
} mki_page;

/* false: p says which parameter is wrong. */
static bool mki_page_read(mki_call *call, uint64_t most, uint64_t standard,
                          mki_page *page)
{
    mki_str limit = mki_query(call, "limit");
    mki_str order = mki_query(call, "order");

    page->limit = standard;
    page->after = mki_query(call, "after");
    page->purpose = mki_query(call, "purpose");
    page->ascending = mki_eq(order, "asc");
    if (limit.ptr != NULL && (!mki_u64(limit, &page->limit) ||
                              page->limit < 1 || page->limit > most)) {
        return mki_bad(&call->problem, "limit", "invalid_value",
                       "Invalid 'limit': expected an integer from 1 to %d.",
                       (int)most);
    }
    if (order.ptr != NULL && !page->ascending && !mki_eq(order, "desc")) {
        return mki_bad(&call->problem, "order", "invalid_value",
                       "Invalid 'order': expected 'asc' or 'desc'.");
    }
    return true;
}

static bool mki_page_after(mki_call *call)
{
    mki_bad(&call->problem, "after", "invalid_value",
            "Invalid 'after': there is no such object.");
    mki_respond_problem(call, &call->problem);
    return false;
}

/* The ends of a page: first_id and so on. */
static void mki_page_end(mki_call *call, const char *first, const char *last,
                         bool more)
{
    mki_buf *b = &call->s->body;

    mki_buf_c(b, ']');
    mki_js_maybe(b, "first_id", first);
    mki_js_maybe(b, "last_id", last);
    mki_buf_s(b, more ? ",\"has_more\":true}\n" : ",\"has_more\":false}\n");
    mki_respond_object(call);
}

static void mki_files_list(mki_call *call)
{
    mki_store *t = &call->s->store;
    mki_buf *b = &call->s->body;
    const char *first = NULL;
    const char *last = NULL;
    mki_page page;
    uint64_t count = 0;
    size_t from = 0; /* so many are skipped */
    size_t i;

    if (!mki_page_read(call, 10000, 10000, &page)) {
        mki_respond_problem(call, &call->problem);
        return;
    }
    if (page.after.len > 0) {
        size_t at = mki_store_file_at(t, page.after);

        if (at == 0) {
            mki_page_after(call);
            return;
        }
        from = page.ascending ? at : t->n_files - at + 1;
    }
    b->len = 0;
    mki_buf_s(b, "{\"object\":\"list\",\"data\":[");
    for (i = from; i < t->n_files && count <= page.limit; i++) {
        const mki_file *f = t->files[page.ascending ? i : t->n_files - 1 - i];

        if (page.purpose.len > 0 && !mki_eq(page.purpose, f->purpose)) {
            continue;
        }
        if (++count > page.limit) {
            break;
        }
        mki_buf_s(b, count > 1 ? "," : "");
        mki_js_file(b, f);
        mki_buf_c(b, '}');
        first = first == NULL ? f->id : first;
        last = f->id;
    }
    mki_page_end(call, first, last, count > page.limit);
}

static void mki_file_delete(mki_call *call, mki_str id)
{
    mki_store *t = &call->s->store;
    size_t at = mki_store_file_at(t, id);
    mki_buf *b = &call->s->body;

    if (at == 0) {
        mki_not_found(call, id);
        return;
    }
    b->len = 0;
    mki_buf_c(b, '{');
    mki_js_str(b, "id", mki_sc(t->files[at - 1]->id));
    mki_buf_s(b, ",\"object\":\"file\",\"deleted\":true}\n");
    mki_store_drop_file(t, at - 1);
    mki_respond_object(call);
}

/* The bytes of a file: from the disk as they go out, unless they come in
 * chunks, which are made here. */
static void mki_file_send(mki_call *call, mki_file *f)
{
    mki_conn *c = call->c;
    char path[1200];
    char piece[16384];
    ssize_t n = 1;
    int fd;

    mki_store_path(&call->s->store, f->id, ".data", path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        mki_out_of_room(call);
        return;
    }
    mki_out_head(call, 200, "application/octet-stream", false,
                 (size_t)f->bytes);
    mki_copy(c->plan.content, sizeof c->plan.content, mki_sc(f->id));
    if (call->framing == MKI_LENGTH || call->framing == MKI_UNTIL_CLOSE) {
        c->content_fd = fd;
        c->content_left = (size_t)f->bytes;
        return;
    }
    while (n > 0 && !c->out.failed) {
        n = read(fd, piece, sizeof piece);
        mki_out(call, piece, n > 0 ? (size_t)n : 0);
    }
    mki_out_end(call);
    close(fd);
}

/* A file that is not there yet, or somewhere else; true: answered. */
static bool mki_file_late(mki_call *call, mki_file *f)
{
    mock_server *s = call->s;
    uint64_t key = mki_hash(3, f->id, strlen(f->id));
    const mki_fault *fault =
        mki_faults_event(&s->faults, MKI_F_LATE_FILES, MKI_CONTENT, key);

    if (fault != NULL && f->refused < (fault->first > 0 ? fault->first : 2)) {
        f->refused++;
        mki_account_fault(&s->account, fault->label);
        if (fault->status == 403) {
            mki_bad(&call->problem, NULL, NULL,
                    "Project does not have access to it");
            call->problem.status = 403;
            mki_respond_problem(call, &call->problem);
        } else {
            mki_not_found(call, mki_sc(f->id));
        }
        return true;
    }
    fault = mki_faults_event(&s->faults, MKI_F_CONTENT_REDIRECT, MKI_CONTENT,
                             mki_mix(key));
    if (fault == NULL) {
        return false;
    }
    mki_account_fault(&s->account, fault->label);
    if (fault->to[0] != '\0') {
        mki_buf_f(&s->extra, "location: %s\r\n", fault->to);
    } else {
        mki_buf_f(&s->extra, "location: %s://localhost:%d/mock/content/%s\r\n",
                  s->tls != NULL ? "https" : "http", s->port, f->id);
    }
    mki_respond(call, fault->status >= 300 ? fault->status : 302, "text/plain",
                mki_sc("elsewhere\n"));
    return true;
}

static void mki_files_endpoint(mki_call *call)
{
    mki_str id = mki_unescape(call, call->model_id);
    mki_file *f = mki_store_file(&call->s->store, id);

    if (call->route == MKI_UPLOAD) {
        mki_upload_end(call);
    } else if (call->route == MKI_FILES) {
        mki_files_list(call);
    } else if (call->route == MKI_FILE_DELETE) {
        mki_file_delete(call, id);
    } else if (f == NULL) {
        mki_not_found(call, id);
    } else if (call->route == MKI_FILE) {
        mki_respond_file(call, f);
    } else if (!mki_file_late(call, f)) {
        mki_file_send(call, f);
    }
}

/* ---- where a batch stands ---- */

static int64_t mki_batch_at(const mki_batch *b, int percent)
{
    return b->created_ms + b->length_ms / 100 * percent +
           b->length_ms % 100 * percent / 100;
}

static int64_t mki_batch_grace(const mki_batch *b)
{
    return b->length_ms / 20 < 600000 ? b->length_ms / 20 : 600000;
}

/* The moment at which it is over if nothing happens to it, and as what. */
static int64_t mki_batch_over(const mki_batch *b, mki_phase *as)
{
    if (b->cancel_ms > 0) {
        *as = MKI_B_CANCELLED;
        return b->cancel_ms + mki_batch_grace(b);
    }
    if (b->errors != NULL) {
        *as = MKI_B_FAILED;
        return mki_batch_at(b, 3);
    }
    *as = MKI_B_EXPIRED;
    if (b->length_ms > MKI_DAY_MS) {
        return b->created_ms + MKI_DAY_MS;
    }
    *as = (b->lies & MKI_L_EXPIRES) != 0 ? MKI_B_EXPIRED : MKI_B_COMPLETED;
    return mki_batch_at(b, 100);
}

static mki_phase mki_batch_phase(const mki_batch *b, int64_t t)
{
    if (b->end_ms > 0) {
        return b->end;
    }
    if (b->cancel_ms > 0) {
        return MKI_B_CANCELLING;
    }
    if (t < mki_batch_at(b, 3) || b->length_ms == 0) {
        return MKI_B_VALIDATING;
    }
    if (t >= mki_batch_at(b, 97) && (b->lies & MKI_L_EXPIRES) == 0) {
        return MKI_B_FINALIZING;
    }
    if ((b->lies & MKI_L_UNKNOWN) != 0 && t >= mki_batch_at(b, 30) &&
        t < mki_batch_at(b, 60)) {
        return MKI_B_PAUSED;
    }
    return MKI_B_IN_PROGRESS;
}

/* How many rows are done at t. */
static int64_t mki_batch_done(const mki_batch *b, int64_t t)
{
    int64_t from = mki_batch_at(b, 3);
    int64_t to = mki_batch_at(b, 97);
    double share = t <= from ? 0
                   : t >= to ? 1
                             : (double)(t - from) / (double)(to - from);

    if ((b->lies & MKI_L_EXPIRES) != 0) {
        share *= (double)b->permille / 1000;
    }
    return (int64_t)(share * (double)b->total + 1e-9);
}

/* ---- a batch runs ---- */

typedef struct mki_span {
    uint64_t at, len;
} mki_span;

/* One of the two files that a batch writes. */
typedef struct mki_spool {
    FILE *f;
    char tmp[1200];
    mki_span *lines;
    size_t n, cap;
    uint64_t len;
    bool failed;
} mki_spool;

typedef struct mki_run {
    mock_server *s;
    mki_batch *b;
    FILE *in;
    mki_spool out, err;
    mki_buf line, keys;
    int64_t seen, left; /* rows so far; still to be done */
    uint64_t random;
    mki_phase as;
} mki_run;

static void mki_spool_add(mki_spool *p, const mki_buf *line)
{
    if (p->n == p->cap) {
        size_t cap = p->cap * 2 + 256;
        mki_span *lines = (mki_span *)realloc(p->lines, cap * sizeof *lines);

        if (lines == NULL) {
            p->failed = true;
            return;
        }
        p->lines = lines;
        p->cap = cap;
    }
    if (p->f == NULL) {
        p->f = fopen(p->tmp, "wb+");
    }
    p->lines[p->n].at = p->len;
    p->lines[p->n].len = line->len;
    p->n++;
    p->len += line->len;
    p->failed = p->failed || line->failed || p->f == NULL ||
                fwrite(line->data, 1, line->len, p->f) != line->len;
}

/* Puts the lines into another order, in a second file. */
static void mki_spool_shuffle(mki_spool *p, uint64_t seed)
{
    char path[1216];
    FILE *f;
    mki_buf b = MKI_ZERO;
    size_t i;

    snprintf(path, sizeof path, "%.1195s.2.tmp", p->tmp);
    f = p->failed || fflush(p->f) != 0 ? NULL : fopen(path, "wb");
    for (i = p->n; f != NULL && i > 0 && !p->failed; i--) {
        size_t k = (size_t)(mki_mix(seed + i) % i);
        mki_span span = p->lines[k];

        p->lines[k] = p->lines[i - 1];
        b.len = 0;
        p->failed = !mki_buf_reserve(&b, (size_t)span.len + 1) ||
                    pread(fileno(p->f), b.data, (size_t)span.len,
                          (off_t)span.at) != (ssize_t)span.len ||
                    fwrite(b.data, 1, (size_t)span.len, f) != span.len;
    }
    mki_buf_free(&b);
    p->failed =
        f == NULL || fclose(f) != 0 || p->failed || rename(path, p->tmp) != 0;
}

static void mki_spool_free(mki_spool *p)
{
    if (p->f != NULL) {
        fclose(p->f);
        unlink(p->tmp);
    }
    free(p->lines);
}

/* Makes a file of the store of what was written; false: failed. id: "" if
 * there is none to make. */
static bool mki_spool_keep(mki_run *run, mki_spool *p, const char *what,
                           int64_t unix_s, char id[32])
{
    mki_batch *b = run->b;
    mki_file *f;

    if (p->n == 0 || p->failed) {
        return !p->failed;
    }
    if ((b->lies & MKI_L_IN_ORDER) == 0) {
        mki_spool_shuffle(p, mki_mix(run->random + b->serial));
    }
    f = (mki_file *)calloc(1, sizeof *f);
    p->failed = p->failed || f == NULL || fflush(p->f) != 0;
    if (p->failed) {
        free(f);
        return false;
    }
    mki_file_new_id(run->s, f);
    snprintf(f->name, sizeof f->name, "%s_%s.jsonl", b->id, what);
    mki_copy(f->purpose, sizeof f->purpose, mki_sc("batch_output"));
    f->bytes = (int64_t)p->len;
    f->created_at = unix_s;
    f->expires_at = unix_s + b->output_seconds;
    memcpy(id, f->id, 32);
    p->failed = !mki_store_keep(&run->s->store, f, p->tmp);
    return !p->failed;
}

/* A line of the input while it is answered. */
typedef struct mki_row {
    mki_str id;
    const mki_json *body;
    mki_lies lies;
    int status;
    mki_str answer; /* the body */
} mki_row;

/* What the endpoint answers, or the error that the row is to have. */
static void mki_row_answer(mki_run *run, mki_row *row, mki_call *call)
{
    const mki_fault *f = row->lies.main;
    mki_kind kind = f != NULL ? f->kind : MKI_F_NONE;
    mki_problem *p = &call->problem;
    mki_check how;

    how.route = call->route;
    how.profiles = run->s->opt.model_profiles;
    how.today = mki_today(mki_unix(run->s));
    how.deployment = mki_s(NULL, 0);
    if (kind == MKI_F_ROW_4XX || kind == MKI_F_ROW_4XX_OUT ||
        kind == MKI_F_ROW_5XX) {
        mki_problem_status(p, f->status);
    } else if (kind == MKI_F_ROW_429) {
        mki_problem_429(call, MKI_RPM, 500, 500, 1, 20);
    } else if (call->route > MKI_EMBEDDINGS) {
        mki_bad(p, NULL, NULL, "The mock has no %s.", run->b->endpoint);
        p->status = 404;
    } else if (mki_check_body(&how, row->body, p)) {
        mki_model_answer(call);
        return;
    }
    mki_respond_problem(call, p);
}

/* Gives the row its answer, as the endpoint gives it to a request. */
static void mki_row_run(mki_run *run, mki_row *row)
{
    mock_server *s = run->s;
    mki_kind kind = row->lies.main != NULL ? row->lies.main->kind : MKI_F_NONE;
    mki_request q;
    mki_fault inner;
    mki_call call;

    memset(&q, 0, sizeof q);
    memset(&call, 0, sizeof call);
    memset(&inner, 0, sizeof inner);
    memset(&s->row.plan, 0, sizeof s->row.plan);
    s->row.out.len = 0;
    q.minor = 1;
    q.path = mki_sc(run->b->endpoint);
    q.body = row->body->text;
    call.s = s;
    call.c = &s->row;
    call.q = &q;
    call.now = mki_now(s);
    call.id = ++s->ids;
    call.quiet = true;
    call.stop_after = SIZE_MAX;
    mki_find_route(&call);
    call.body = row->body;
    call.model = mki_get_text(row->body, "model");
    inner.kind = kind == MKI_F_ROW_REFUSAL ? MKI_F_REFUSAL : MKI_F_LENGTH;
    if (kind == MKI_F_ROW_REFUSAL || kind == MKI_F_ROW_CUT) {
        call.choice.main = &inner;
    }
    mki_row_answer(run, row, &call);
    row->status = s->row.plan.status;
    row->answer = mki_buf_str(&s->row.out);
    run->b->tokens_in += row->status == 200 ? call.tokens_in : 0;
    run->b->tokens_out += row->status == 200 ? s->row.plan.tokens_out : 0;
}

/* Adds JSON without its line breaks: those inside of texts are escaped. */
static void mki_buf_one_line(mki_buf *b, mki_str s)
{
    while (s.len > 0) {
        const char *end = (const char *)memchr(s.ptr, '\n', s.len);
        size_t n = end != NULL ? (size_t)(end - s.ptr) : s.len;

        mki_buf_add(b, s.ptr, n);
        n += end != NULL ? 1 : 0;
        s.ptr += n;
        s.len -= n;
    }
}

/* {"id":...,"custom_id":... */
static void mki_row_open(mki_run *run, mki_str id, bool u2028)
{
    mki_buf *b = &run->line;

    b->len = 0;
    mki_buf_s(b, "{\"id\":\"batch_req_");
    mki_js_random(b, run->s, true, 32);
    mki_buf_c(b, '"');
    if (u2028) { /* what some languages take for ends of lines */
        mki_buf_s(b, ",\"note\":\"a\xe2\x80\xa8"
                     "b\xe2\x80\xa9"
                     "c\xc2\x85"
                     "d\"");
    }
    mki_js_str(b, "custom_id", id);
}

/* Writes the row's line where it belongs. */
static void mki_row_write(mki_run *run, mki_row *row, mki_str id)
{
    mki_buf *b = &run->line;
    const mki_fault *f = row->lies.main;
    mki_kind kind = f != NULL ? f->kind : MKI_F_NONE;
    bool out = row->status == 200 || kind == MKI_F_ROW_4XX_OUT;
    mki_spool *spool = out && kind != MKI_F_ROW_STATUS0 ? &run->out : &run->err;

    mki_row_open(run, id, row->lies.u2028);
    if (kind == MKI_F_ROW_STATUS0) {
        mki_buf_s(b, ",\"response\":{\"status_code\":0,\"request_id\":\"\","
                     "\"body\":{}},\"error\":null}");
    } else {
        mki_js_key(b, "response");
        mki_buf_f(b, "{\"status_code\":%d,\"request_id\":\"", row->status);
        mki_js_random(b, run->s, true, 32);
        mki_buf_s(b, "\",\"body\":");
        mki_buf_one_line(b, row->answer);
        mki_buf_s(b, "},\"error\":null}");
    }
    if (kind == MKI_F_ROW_MALFORMED) {
        b->len -= b->len / 4; /* the answer is long, the id stands before */
    }
    mki_buf_s(b, row->lies.crlf ? "\r\n" : "\n");
    if (row->lies.blank) {
        mki_buf_s(b, "\n");
    }
    mki_spool_add(spool, b);
}

/* A row that never ran. */
static void mki_row_left(mki_run *run, mki_str id)
{
    bool expired = run->as == MKI_B_EXPIRED;

    mki_row_open(run, id, false);
    mki_buf_f(&run->line,
              ",\"response\":null,\"error\":{\"code\":\"%s\",\"message\":"
              "\"This request could not be executed before the %s.\"}}\n",
              expired ? "batch_expired" : "batch_cancelled",
              expired ? "completion window expired" : "batch was cancelled");
    mki_spool_add(&run->err, &run->line);
}

static uint64_t mki_bill_key(const char *endpoint, mki_str body)
{
    while (body.len > 0 && mki_blank(mki_s(body.ptr + body.len - 1, 1))) {
        body.len--;
    }
    return mki_hash(mki_hash(5, endpoint, strlen(endpoint)), body.ptr,
                    body.len);
}

/* Counts what the row cost, and remembers its body. */
static void mki_row_bill(mki_run *run, mki_row *row, mki_bill *bill)
{
    int repeats = run->s->opt.expect_repeats;
    mki_batch *b = run->b;
    bool answered = row->status == 200 && row->lies.main == NULL &&
                    (b->lies & MKI_L_NULL_OUTPUT) == 0;
    uint64_t key;
    int i;

    repeats = repeats == 0 ? 1 : repeats;
    if (row->status == 200) {
        b->completed++;
        b->billed++;
    } else {
        b->failed++;
    }
    if (bill == NULL) {
        return;
    }
    if (row->status == 200 && repeats > 0 &&
        bill->answers >= (uint32_t)repeats &&
        (repeats > 1 || bill->by != b->serial)) {
        b->billed_again++;
    }
    bill->runs++;
    if (answered) {
        bill->answers++;
        bill->by = b->serial;
    }
    key = bill->key | (answered ? 1 : 0);
    for (i = 0; i < 8; i++) {
        mki_buf_c(&run->keys, (char)(unsigned char)(key >> (8 * i)));
    }
}

/* One request of the input. */
static void mki_run_row(mki_run *run, const mki_json *json)
{
    mock_server *s = run->s;
    mki_row row;
    mki_bill *bill;
    uint64_t key;
    mki_kind kind;

    memset(&row, 0, sizeof row);
    row.id = mki_get_text(json, "custom_id");
    row.body = mki_get(json, "body");
    /* Of those that are left, each is as likely to be among the done ones. */
    run->random = mki_mix(run->random);
    if ((double)run->left <=
        mki_unit(run->random) * (double)(run->b->total - run->seen++)) {
        mki_row_left(run, row.id);
        return;
    }
    run->left--;
    key = mki_bill_key(run->b->endpoint, row.body->text);
    bill = mki_bill_get(&s->store, key);
    mki_faults_row(&s->faults, mki_hash(key, row.id.ptr, row.id.len),
                   bill != NULL ? bill->runs : 0, &row.lies);
    kind = row.lies.main != NULL ? row.lies.main->kind : MKI_F_NONE;
    if (row.lies.main != NULL) {
        mki_account_fault(&s->account, row.lies.main->label);
    }
    mki_row_run(run, &row);
    if (kind != MKI_F_ROW_DROP) {
        mki_row_write(run, &row, row.id);
    }
    if (kind == MKI_F_ROW_DUPLICATE) {
        mki_row_write(run, &row, row.id);
    } else if (kind == MKI_F_ROW_STRANGER) {
        mki_row_write(run, &row, mki_sc("stranger-nobody-asked-for"));
    }
    mki_row_bill(run, &row, bill);
}

/* Runs the lines, as far as they are done. */
static void mki_run_lines(mki_run *run)
{
    mock_server *s = run->s;
    mki_arena saved = s->arena;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    memset(&s->arena, 0, sizeof s->arena);
    while (run->in != NULL && (n = getline(&line, &cap, run->in)) >= 0) {
        const mki_json *json;

        if (mki_blank(mki_s(line, (size_t)n))) {
            continue;
        }
        json = mki_json_parse(&s->arena, mki_s(line, (size_t)n));
        if (json != NULL && mki_get(json, "body") != NULL) {
            mki_run_row(run, json);
        }
        mki_arena_reset(&s->arena, false);
    }
    free(line);
    mki_arena_reset(&s->arena, true);
    s->arena = saved;
}

/* The files of a batch that is over, and then the batch itself. */
static bool mki_run_keep(mki_run *run, int64_t end_ms)
{
    mki_store *t = &run->s->store;
    mki_batch *b = run->b;
    char path[1200];
    bool ok;

    if ((b->lies & MKI_L_NULL_OUTPUT) != 0) {
        run->out.n = 0;
    }
    mki_store_path(t, b->id, ".keys", path);
    ok = !run->keys.failed &&
         mki_file_write(path, run->keys.data, run->keys.len) &&
         mki_spool_keep(run, &run->out, "output", end_ms / 1000, b->output) &&
         mki_spool_keep(run, &run->err, "error", end_ms / 1000, b->error);
    b->end = ok ? run->as : MKI_B_FAILED;
    b->end_ms = end_ms;
    return mki_store_save_batch(t, b) && ok;
}

/* The time of a batch has come: what it did is done now. */
static void mki_batch_end(mock_server *s, mki_batch *b, int64_t end_ms,
                          mki_phase as)
{
    char path[1200];
    mki_run run;

    memset(&run, 0, sizeof run);
    run.s = s;
    run.b = b;
    run.as = as;
    run.random = mki_mix(s->opt.seed ^ b->content);
    run.left = as == MKI_B_COMPLETED   ? b->total
               : as == MKI_B_CANCELLED ? mki_batch_done(b, b->cancel_ms)
                                       : mki_batch_done(b, end_ms);
    mki_store_path(&s->store, b->id, ".out.tmp", run.out.tmp);
    mki_store_path(&s->store, b->id, ".err.tmp", run.err.tmp);
    mki_store_path(&s->store, b->id, ".in", path);
    if (as != MKI_B_FAILED && b->errors == NULL) {
        run.in = fopen(path, "rb");
        mki_run_lines(&run);
    }
    mki_run_keep(&run, end_ms);
    unlink(path);
    if (run.in != NULL) {
        fclose(run.in);
    }
    mki_spool_free(&run.out);
    mki_spool_free(&run.err);
    mki_buf_free(&run.line);
    mki_buf_free(&run.keys);
}

/* Brings a batch up to now. */
static void mki_batch_look(mock_server *s, mki_batch *b)
{
    int64_t now = mki_unix(s);
    mki_phase as;
    int64_t over;

    if (b->end_ms == 0) {
        over = mki_batch_over(b, &as);
        if (now >= over) {
            mki_batch_end(s, b, over > 0 ? over : 1, as);
        }
    }
}

/* Brings all batches up to now. */
static void mki_store_advance(mock_server *s)
{
    size_t i;

    for (i = 0; i < s->store.n_batches; i++) {
        mki_batch_look(s, s->store.batches[i]);
    }
    mki_store_expire(&s->store, mki_unix(s) / 1000);
}

/* ---- batch objects ---- */

static void mki_js_stamp(mki_buf *b, const char *name, int64_t ms)
{
    mki_js_key(b, name);
    if (ms > 0) {
        mki_buf_i64(b, ms / 1000);
    } else {
        mki_buf_s(b, "null");
    }
}

static void mki_js_stamps(mki_buf *b, const mki_batch *o, mki_phase phase,
                          int64_t t)
{
    bool over = o->end_ms > 0;
    int64_t ran = mki_batch_at(o, 3);
    int64_t final = mki_batch_at(o, 97);
    int64_t until = o->cancel_ms > 0 ? o->cancel_ms : t;

    mki_js_stamp(b, "created_at", o->created_ms);
    mki_js_stamp(b, "in_progress_at",
                 o->errors == NULL && phase != MKI_B_VALIDATING && until >= ran
                     ? ran
                     : 0);
    mki_js_stamp(b, "expires_at", o->created_ms + MKI_DAY_MS);
    mki_js_stamp(b, "finalizing_at",
                 phase == MKI_B_FINALIZING || phase == MKI_B_COMPLETED ? final
                                                                       : 0);
    mki_js_stamp(b, "completed_at", phase == MKI_B_COMPLETED ? o->end_ms : 0);
    mki_js_stamp(b, "failed_at", over && phase == MKI_B_FAILED ? o->end_ms : 0);
    mki_js_stamp(b, "expired_at", phase == MKI_B_EXPIRED ? o->end_ms : 0);
    mki_js_stamp(b, "cancelling_at", o->cancel_ms);
    mki_js_stamp(b, "cancelled_at", phase == MKI_B_CANCELLED ? o->end_ms : 0);
}

static void mki_js_result(mki_buf *b, const mki_batch *o, const char *name,
                          const char *id)
{
    if (id[0] != '\0' || (o->lies & MKI_L_NO_IDS) == 0) {
        mki_js_maybe(b, name, id[0] != '\0' ? id : NULL);
    }
}

static void mki_js_counts(mki_buf *b, const mki_batch *o, mki_phase phase,
                          int64_t t)
{
    bool early = phase == MKI_B_VALIDATING || o->errors != NULL;
    bool lie = (o->lies & MKI_L_COUNTS) != 0 && o->end_ms > 0;
    int64_t done = o->end_ms > 0      ? o->completed
                   : o->cancel_ms > 0 ? mki_batch_done(o, o->cancel_ms)
                                      : mki_batch_done(o, t);

    mki_js_key(b, "request_counts");
    mki_buf_c(b, '{');
    mki_js_int(b, "total", early ? 0 : o->total);
    mki_js_int(b, "completed", early ? 0 : lie ? o->total : done);
    mki_js_int(b, "failed", early || lie ? 0 : o->failed);
    mki_buf_c(b, '}');
    mki_js_key(b, "usage");
    mki_buf_s(b, "{\"input_tokens\":");
    mki_buf_i64(b, o->tokens_in);
    mki_buf_s(b, ",\"input_tokens_details\":{\"cached_tokens\":0},"
                 "\"output_tokens\":");
    mki_buf_i64(b, o->tokens_out);
    mki_buf_s(b, ",\"output_tokens_details\":{\"reasoning_tokens\":0},"
                 "\"total_tokens\":");
    mki_buf_i64(b, o->tokens_in + o->tokens_out);
    mki_buf_c(b, '}');
}

static void mki_js_batch(mki_buf *b, const mki_batch *o, int64_t t)
{
    static const char *const names[] = {
        "validating", "failed",     "in_progress", "finalizing", "completed",
        "expired",    "cancelling", "cancelled",   "paused"};
    mki_phase phase = mki_batch_phase(o, t);
    bool failed = phase == MKI_B_FAILED && o->errors != NULL;

    mki_buf_c(b, '{');
    mki_js_str(b, "id", mki_sc(o->id));
    mki_js_str(b, "object", mki_sc("batch"));
    mki_js_str(b, "endpoint", mki_sc(o->endpoint));
    if (phase != MKI_B_VALIDATING && o->model[0] != '\0') {
        mki_js_model(b, mki_sc(o->model));
    }
    mki_js_key(b, "errors");
    if (failed) {
        mki_buf_s(b, "{\"object\":\"list\",\"data\":");
        mki_buf_s(b, o->errors);
        mki_buf_c(b, '}');
    } else {
        mki_buf_s(b, "null");
    }
    mki_js_str(b, "input_file_id", mki_sc(o->input));
    mki_js_str(b, "completion_window", mki_sc("24h"));
    mki_js_str(b, "status", mki_sc(names[phase]));
    mki_js_result(b, o, "output_file_id", o->output);
    mki_js_result(b, o, "error_file_id", o->error);
    mki_js_stamps(b, o, phase, t);
    mki_js_counts(b, o, phase, t);
    mki_js_key(b, "metadata");
    mki_buf_s(b, o->metadata != NULL ? o->metadata : "null");
    mki_buf_c(b, '}');
}

static void mki_respond_batch(mki_call *call, const mki_batch *o)
{
    mki_buf *b = &call->s->body;

    b->len = 0;
    mki_js_batch(b, o, mki_unix(call->s));
    mki_buf_c(b, '\n');
    mki_respond_object(call);
}

/* ---- creation ---- */

/* All errors as a JSON list, to be freed; NULL: no memory. */
static char *mki_vet_list(const mki_vet *v)
{
    mki_buf all = MKI_ZERO;

    mki_buf_c(&all, '[');
    mki_buf_add(&all, v->errors.data, v->errors.len);
    mki_buf_add(&all, "]", 2); /* with its NUL */
    if (all.failed || v->errors.failed) {
        mki_buf_free(&all);
    }
    return all.data;
}

/* Reads and checks the input; what is wrong becomes o->errors. */
static bool mki_batch_vet(mock_server *s, mki_batch *o)
{
    char path[1200];
    FILE *f;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    mki_vet v;
    const mki_model *model;

    memset(&v, 0, sizeof v);
    v.endpoint = o->endpoint;
    mki_store_path(&s->store, o->id, ".in", path);
    f = fopen(path, "rb");
    while (f != NULL && (n = getline(&line, &cap, f)) >= 0) {
        mki_vet_line(&v, mki_s(line, (size_t)n));
    }
    free(line);
    v.failed = v.failed || f == NULL;
    if (f != NULL) {
        fclose(f);
    }
    mki_vet_end(&v);
    if (v.model[0] != '\0' && s->opt.model_profiles) {
        model = mki_model_find(mki_sc(v.model));
        if (model == NULL || (model->shutdown != 0 &&
                              mki_today(mki_unix(s)) >= model->shutdown)) {
            mki_vet_bad(&v, 0, "model_not_found", "body.model",
                        "The model '%s' does not exist or is not supported by "
                        "the Batch API.",
                        v.model);
        }
    }
    mki_copy(o->model, sizeof o->model, mki_sc(v.model));
    o->total = v.total;
    o->prompt_tokens = v.tokens;
    o->content = v.content;
    if (v.n_errors > 0) {
        o->errors = mki_vet_list(&v);
        v.failed = v.failed || o->errors == NULL;
    }
    mki_vet_free(&v);
    return !v.failed;
}

/* A failure that has nothing to do with a line; false: no memory. */
static bool mki_batch_doom(mki_batch *o, const char *code, const char *message)
{
    mki_vet v;

    memset(&v, 0, sizeof v);
    mki_vet_bad(&v, 0, code, NULL, "%s", message);
    o->errors = mki_vet_list(&v);
    mki_vet_free(&v);
    return o->errors != NULL;
}

/* The limit of enqueued tokens; false: no memory. */
static bool mki_batch_queue(mock_server *s, mki_batch *o)
{
    int64_t sum = o->prompt_tokens;
    int64_t now = mki_unix(s);
    mki_phase as;
    char message[384];
    size_t i;

    if (s->opt.enqueued_tokens <= 0 || o->errors != NULL) {
        return true;
    }
    for (i = 0; i < s->store.n_batches; i++) {
        const mki_batch *other = s->store.batches[i];

        if (other->end_ms == 0 && other->errors == NULL &&
            now < mki_batch_over(other, &as)) {
            sum += other->prompt_tokens;
        }
    }
    if (sum <= s->opt.enqueued_tokens) {
        return true;
    }
    snprintf(message, sizeof message,
             "Enqueued token limit reached for %.100s in organization org-mock."
             " Limit: %" PRId64 " enqueued tokens. Please try again once some "
             "in_progress batches have been completed.",
             o->model, s->opt.enqueued_tokens);
    return mki_batch_doom(o, "token_limit_exceeded", message);
}

/* The same job, the same input, and an earlier batch that is or was good. */
static void mki_batch_twice(mock_server *s, const mki_batch *o)
{
    size_t i;

    for (i = 0; o->job != NULL && i < s->store.n_batches; i++) {
        const mki_batch *other = s->store.batches[i];
        bool over = other->end_ms > 0;

        if (other->job == NULL || strcmp(other->job, o->job) != 0 ||
            other->content != o->content || other->errors != NULL ||
            other->cancel_ms > 0 ||
            (over && (other->end != MKI_B_COMPLETED || other->completed == 0 ||
                      (other->lies & MKI_L_NULL_OUTPUT) != 0))) {
            continue;
        }
        mki_finding(&s->account, MKI_R_TWICE,
                    "a second batch for job %.60s: %s", o->job, other->id);
        return;
    }
}

/* What this batch will lie about. */
static bool mki_batch_lies(mock_server *s, mki_batch *o)
{
    static const struct {
        mki_kind kind;
        int64_t bit;
    } table[] = {{MKI_F_BATCH_EXPIRES, MKI_L_EXPIRES},
                 {MKI_F_NULL_OUTPUT, MKI_L_NULL_OUTPUT},
                 {MKI_F_NULL_IDS, MKI_L_NO_IDS},
                 {MKI_F_UNKNOWN_STATUS, MKI_L_UNKNOWN},
                 {MKI_F_COUNTS_LIE, MKI_L_COUNTS},
                 {MKI_F_ROWS_IN_ORDER, MKI_L_IN_ORDER}};
    const mki_fault *f;
    size_t i;

    for (i = 0; i < MKI_COUNT(table); i++) {
        f = mki_faults_event(&s->faults, table[i].kind, MKI_BATCH_NEW,
                             mki_mix(o->serial + i * 1000003));
        if (f != NULL) {
            o->lies |= table[i].bit;
            o->permille = table[i].bit == MKI_L_EXPIRES
                              ? (int64_t)(f->share * 1000 + 0.5)
                              : o->permille;
            mki_account_fault(&s->account, f->label);
        }
    }
    f = mki_faults_event(&s->faults, MKI_F_BATCH_FAILS, MKI_BATCH_NEW,
                         mki_mix(o->serial + 7));
    if (f != NULL && o->errors == NULL) {
        mki_account_fault(&s->account, f->label);
        return mki_batch_doom(o, "server_error",
                              "The batch could not be processed.");
    }
    return true;
}

/* Checks the members; false: p says what is wrong. */
static bool mki_batch_fields(mki_call *call, mki_problem *p)
{
    static const char *const required[] = {"input_file_id", "endpoint",
                                           "completion_window"};
    static const mki_rule meta = {"metadata", MKI_W_META, 0, -1, NULL};
    const mki_json *after = mki_get_set(call->body, "output_expires_after");
    const mki_json *metadata = mki_get_set(call->body, "metadata");
    const mki_json *v;
    int64_t seconds = mki_get_int(after, "seconds", -1);
    size_t i;

    for (i = 0; i < 3; i++) {
        v = mki_get_set(call->body, required[i]);
        if (v == NULL) {
            return mki_bad_missing(p, required[i]);
        }
        if (v->type != MKI_STRING) {
            return mki_bad_type(p, required[i], "a string", v);
        }
    }
    if (!mki_batch_endpoint(mki_get_text(call->body, "endpoint"))) {
        return mki_bad(p, "endpoint", "invalid_value",
                       "Invalid value for 'endpoint': it is not supported by "
                       "the Batch API.");
    }
    if (!mki_eq(mki_get_text(call->body, "completion_window"), "24h")) {
        return mki_bad(p, "completion_window", "invalid_value",
                       "Invalid value for 'completion_window': expected "
                       "'24h'.");
    }
    if (metadata != NULL && !mki_check_map(&meta, metadata, p)) {
        return false;
    }
    if (after != NULL &&
        (!mki_eq(mki_get_text(after, "anchor"), "created_at") ||
         seconds < 3600 || seconds > 2592000)) {
        return mki_bad(p, "output_expires_after", "invalid_value",
                       "Invalid 'output_expires_after': expected an anchor "
                       "'created_at' and seconds from 3600 to 2592000.");
    }
    return true;
}

/* The input of a batch to be; NULL: answered. */
static mki_file *mki_batch_input(mki_call *call)
{
    mock_server *s = call->s;
    mki_str id = mki_get_text(call->body, "input_file_id");
    mki_file *f = mki_store_file(&s->store, id);
    const mki_fault *late;
    char shown[64];

    if (f == NULL) {
        mki_not_found(call, id);
        return NULL;
    }
    late = mki_faults_event(&s->faults, MKI_F_LATE_UPLOAD, MKI_BATCH_NEW,
                            mki_hash(4, f->id, strlen(f->id)));
    if (late != NULL && f->unseen < (late->first > 0 ? late->first : 2)) {
        f->unseen++;
        mki_account_fault(&s->account, late->label);
        mki_bad(&call->problem, "file_id", NULL,
                "Cannot find file %s, or "
                "organization org-mock does not have access to it.",
                mki_quote(id, shown));
    } else if (strcmp(f->purpose, "batch") != 0) {
        mki_bad(&call->problem, "input_file_id", "invalid_value",
                "Invalid purpose of the input file: expected 'batch'.");
    } else {
        return f;
    }
    mki_respond_problem(call, &call->problem);
    return NULL;
}

/* "batch_" and 32 hexadecimal digits, the first 8 of them the time. */
static void mki_batch_new_id(mock_server *s, mki_batch *o)
{
    mki_buf id = MKI_ZERO;

    o->serial = ++s->store.serial;
    o->created_ms = mki_unix(s);
    mki_buf_f(&id, "batch_%08x", (unsigned)(o->created_ms / 1000));
    mki_js_random(&id, s, true, 24);
    mki_copy(o->id, sizeof o->id, mki_buf_str(&id));
    mki_buf_free(&id);
}

static mki_batch *mki_batch_make(mki_call *call, const mki_file *input)
{
    mock_server *s = call->s;
    const mki_json *metadata = mki_get_set(call->body, "metadata");
    mki_batch *o = (mki_batch *)calloc(1, sizeof *o);
    char from[1200], to[1200];

    if (o == NULL) {
        return NULL;
    }
    mki_batch_new_id(s, o);
    memcpy(o->input, input->id, sizeof o->input);
    mki_copy(o->endpoint, sizeof o->endpoint,
             mki_get_text(call->body, "endpoint"));
    o->length_ms = s->batch_ms;
    o->output_seconds =
        mki_get_int(mki_get_set(call->body, "output_expires_after"), "seconds",
                    (int64_t)MKI_FILE_DAYS * 86400);
    o->metadata = metadata != NULL ? mki_str_dup(metadata->text) : NULL;
    o->job = mki_str_dup(mki_get_text(metadata, "gptner_job"));
    mki_store_path(&s->store, o->input, ".data", from);
    mki_store_path(&s->store, o->id, ".in", to);
    if ((metadata == NULL || o->metadata != NULL) && link(from, to) == 0) {
        if (mki_batch_vet(s, o) && mki_batch_queue(s, o) &&
            mki_batch_lies(s, o) && mki_store_save_batch(&s->store, o)) {
            mki_batch_twice(s, o);
            if (mki_store_add_batch(&s->store, o)) {
                return o;
            }
        }
        unlink(to);
    }
    mki_batch_free(o);
    return NULL;
}

static void mki_batch_create(mki_call *call)
{
    mki_file *input;
    mki_batch *o;

    if (!mki_body_json(call) || !mki_batch_fields(call, &call->problem)) {
        mki_respond_problem(call, &call->problem);
        return;
    }
    input = mki_batch_input(call);
    if (input == NULL) {
        return;
    }
    o = mki_batch_make(call, input);
    if (o == NULL) {
        mki_out_of_room(call);
        return;
    }
    mki_respond_batch(call, o);
}

/* ---- the other calls ---- */

static void mki_batches_list(mki_call *call)
{
    mki_store *t = &call->s->store;
    mki_buf *b = &call->s->body;
    size_t i = t->n_batches;
    mki_page page;
    const char *first = NULL;
    const char *last = NULL;
    uint64_t count = 0;

    if (!mki_page_read(call, 100, 20, &page)) {
        mki_respond_problem(call, &call->problem);
        return;
    }
    if (page.after.len > 0) {
        i = mki_store_batch_at(t, page.after);
        if (i == 0) {
            mki_page_after(call);
            return;
        }
        i--;
    }
    b->len = 0;
    mki_buf_s(b, "{\"object\":\"list\",\"data\":[");
    for (; i > 0 && count < page.limit; i--, count++) {
        mki_buf_s(b, count > 0 ? "," : "");
        mki_js_batch(b, t->batches[i - 1], mki_unix(call->s));
        first = first == NULL ? t->batches[i - 1]->id : first;
        last = t->batches[i - 1]->id;
    }
    mki_page_end(call, first, last, i > 0);
}

static void mki_batch_cancel(mki_call *call, mki_batch *o)
{
    if (o->end_ms > 0) {
        static const char *const names[] = {
            "validating", "failed",  "in_progress", "finalizing",
            "completed",  "expired", "cancelling",  "cancelled"};

        mki_bad(&call->problem, NULL, NULL,
                "Cannot cancel a batch with status '%s'.", names[o->end]);
        call->problem.status = 409;
        mki_respond_problem(call, &call->problem);
        return;
    }
    if (o->cancel_ms == 0) {
        o->cancel_ms = mki_unix(call->s);
        mki_store_save_batch(&call->s->store, o);
    }
    mki_respond_batch(call, o);
}

/* Polls of a batch that is not over: how fast, on the whole? */
static void mki_batch_polled(mki_call *call, mki_batch *o)
{
    int64_t now = mki_unix(call->s);
    int64_t least = o->length_ms >= 60000 ? 2000 : o->length_ms / 50;

    if (o->end_ms > 0 || call->choice.main != NULL) {
        return;
    }
    if (o->polls++ == 0) {
        o->first_poll = now;
    }
    if (o->polls >= 5 && !o->hurried &&
        (now - o->first_poll) < least * (o->polls - 1)) {
        o->hurried = true;
        mki_finding(&call->s->account, MKI_R_POLLS,
                    "%s was polled %d times within %d ms", o->id, (int)o->polls,
                    (int)(now - o->first_poll));
    }
}

static void mki_batches_endpoint(mki_call *call)
{
    mki_str id = mki_unescape(call, call->model_id);
    size_t at = mki_store_batch_at(&call->s->store, id);
    mki_batch *o = at > 0 ? call->s->store.batches[at - 1] : NULL;
    char shown[64];

    if (o != NULL) {
        mki_batch_look(call->s, o);
    }
    if (call->route == MKI_BATCH_NEW) {
        mki_batch_create(call);
    } else if (call->route == MKI_BATCHES) {
        mki_batches_list(call);
    } else if (o == NULL) {
        mki_bad(&call->problem, NULL, "batch_not_found",
                "No batch found with id '%s'.", mki_quote(id, shown));
        call->problem.status = 404;
        mki_respond_problem(call, &call->problem);
    } else if (call->route == MKI_CANCEL) {
        mki_batch_cancel(call, o);
    } else {
        mki_batch_polled(call, o);
        mki_respond_batch(call, o);
    }
}

/* ---- counters ---- */

/* Millionths of a millionth of a USD, so that sums are exact. */
static int64_t mki_price(double usd)
{
    return usd > 0 && usd <= 100000 ? (int64_t)(usd * 1e6 + 0.5) : 0;
}

/* As "0.0015": exact. */
static void mki_js_usd(mki_buf *b, const char *name, int64_t pico)
{
    mki_js_key(b, name);
    mki_buf_f(b, "%" PRId64 ".%012" PRId64, pico / 1000000000000,
              pico % 1000000000000);
    while (b->len > 1 && b->data[b->len - 1] == '0' &&
           b->data[b->len - 2] != '.') {
        b->len--;
    }
}

static void mki_cost_stats(mock_server *s, mki_buf *b)
{
    const mki_account *a = &s->account;
    int64_t in = mki_price(s->opt.price_in);
    int64_t out = mki_price(s->opt.price_out);
    int64_t cached =
        s->opt.price_cached == 0 ? in : mki_price(s->opt.price_cached);
    int64_t batch = 0;
    int64_t cost = (a->billed_in - a->billed_cached) * in +
                   a->billed_cached * cached + a->billed_out * out;
    size_t i;

    for (i = 0; i < s->store.n_batches; i++) {
        const mki_batch *o = s->store.batches[i];

        if (o->serial >= s->store.counted_from) {
            batch += o->tokens_in * in + o->tokens_out * out;
        }
    }
    batch = (batch + 1) / 2;
    cost += batch;
    mki_js_usd(b, "cost", cost);
    mki_js_int(b, "cost_microusd", (cost + 999999) / 1000000);
    mki_js_usd(b, "cost_batch", batch);
    mki_js_int(b, "cost_batch_microusd", (batch + 999999) / 1000000);
    mki_js_key(b, "billed");
    mki_buf_c(b, '{');
    mki_js_int(b, "prompt_tokens", a->billed_in);
    mki_js_int(b, "cached_tokens", a->billed_cached);
    mki_js_int(b, "completion_tokens", a->billed_out);
    mki_buf_c(b, '}');
}

static void mki_js_limits(const mock_server *s, mki_buf *b)
{
    mki_buf_c(b, '{');
    mki_js_int(b, "rpm", s->opt.rpm);
    mki_js_int(b, "tpm", s->opt.tpm);
    mki_js_int(b, "rpd", s->opt.rpd);
    mki_js_int(b, "tpd", s->opt.tpd);
    mki_js_int(b, "slice_ms", s->opt.slice_ms);
    mki_buf_c(b, '}');
}

static void mki_limits_stats(mock_server *s, mki_buf *b)
{
    int64_t now = mki_now(s);

    mki_limits_fill(s, now);
    mki_js_key(b, "limits");
    mki_js_limits(s, b);
    mki_quota_stats(&s->account, b, now);
}

static void mki_stats(mock_server *s, mki_buf *b)
{
    const mki_store *t = &s->store;
    int64_t sums[3] = {0, 0, 0};
    size_t i, k;

    mki_account_stats(&s->account, b);
    for (i = 0; i < t->n_batches; i++) {
        const mki_batch *o = t->batches[i];

        if (o->serial >= t->counted_from) {
            sums[0]++;
            sums[1] += o->billed;
            sums[2] += o->billed_again;
        }
    }
    mki_js_int(b, "batches_created", sums[0]);
    mki_js_key(b, "batches_by_job");
    mki_buf_c(b, '{');
    for (i = 0; i < t->n_batches; i++) {
        const char *job = t->batches[i]->job;
        int64_t n = 0;
        bool seen = false;

        for (k = 0; job != NULL && k < t->n_batches && !seen; k++) {
            const mki_batch *o = t->batches[k];
            bool same = o->serial >= t->counted_from && o->job != NULL &&
                        strcmp(o->job, job) == 0;

            seen = same && k < i;
            n += same ? 1 : 0;
        }
        if (n > 0 && !seen && t->batches[i]->serial >= t->counted_from) {
            mki_js_int(b, job, n);
        }
    }
    mki_buf_c(b, '}');
    mki_js_int(b, "batch_lines_billed", sums[1]);
    mki_js_int(b, "batch_lines_billed_again", sums[2]);
    mki_cost_stats(s, b);
    mki_limits_stats(s, b);
    mki_js_int(b, "files_stored", (int64_t)t->n_files);
    mki_buf_s(b, "}\n");
}

/* Findings that depend on how things stand when they are asked for. */
static void mki_report_now(mock_server *s)
{
    mki_account *a = &s->account;
    int64_t n = s->opt.expect_clean_files ? (int64_t)s->store.n_files : 0;

    mki_account_habits(a);
    a->findings[MKI_R_LEAKED] = n;
    snprintf(a->details[MKI_R_LEAKED], sizeof a->details[MKI_R_LEAKED],
             "%d files have not been deleted, the first is %s", (int)n,
             n > 0 ? s->store.files[0]->id : "none");
}

static void mki_reset(mock_server *s)
{
    size_t i;

    mki_account_reset(&s->account, mki_now(s));
    free(s->store.bills);
    s->store.bills = NULL;
    s->store.n_bills = 0;
    s->store.cap_bills = 0;
    s->store.counted_from = s->store.serial + 1;
    for (i = 0; i < s->store.n_files; i++) {
        s->store.files[i]->delivered = 0;
    }
}

/* ===========================================================================
 * >>route      from the request to the endpoint
 * calls: >>http >>fault >>account >>api >>batch
 * ======================================================================== */

static mki_str mki_key_of(const mki_request *q)
{
    mki_str key = mki_header(q, "authorization");

    if (key.ptr == NULL) {
        return mki_header(q, "api-key");
    }
    if (key.len > 7 && mki_ieq(mki_s(key.ptr, 7), "Bearer ")) {
        key = mki_trim(mki_s(key.ptr + 7, key.len - 7));
    }
    return key;
}

/* Whether the Host header names this server. */
static bool mki_host_ours(const mock_server *s, const mki_request *q)
{
    mki_str host = mki_header(q, "host");
    const char *names = s->opt.names;
    size_t colon;

    if (host.len > 0 && host.ptr[0] == '[') {
        colon = mki_find(host, mki_sc("]"), 0);
        host.len = colon == SIZE_MAX ? host.len : colon + 1;
    } else {
        colon = mki_find(host, mki_sc(":"), 0);
        host.len = colon == SIZE_MAX ? host.len : colon;
    }
    if (host.len == 0 || mki_ieq(host, "localhost") ||
        mki_starts(host, "127.") || mki_eq(host, "[::1]") ||
        mki_eq(host, s->opt.host)) {
        return true;
    }
    while (names != NULL && *names != '\0') {
        char one[128];
        size_t n = strcspn(names, ",");

        mki_copy(one, sizeof one, mki_s(names, n));
        if (mki_ieq(host, one)) {
            return true;
        }
        names += n + (names[n] == ',' ? 1 : 0);
    }
    return false;
}

/* {"advance_seconds":N} moves the date on. false: answered with a problem. */
static bool mki_mock_clock(mki_call *call)
{
    mock_server *s = call->s;
    const mki_json *body = mki_json_parse(&s->arena, call->q->body);
    const mki_json *v = mki_get(body, "advance_seconds");

    if (v == NULL || (v->type != MKI_INT && v->type != MKI_NUMBER) ||
        v->d < 0 || v->d > 1e9) {
        mki_bad(&call->problem, "advance_seconds", "invalid_value",
                "Expected {\"advance_seconds\":N}.");
        mki_respond_problem(call, &call->problem);
        return false;
    }
    mki_skew(s, (int64_t)(v->d * 1000));
    mki_store_advance(s);
    s->body.len = 0;
    mki_buf_c(&s->body, '{');
    mki_js_int(&s->body, "unix_ms", mki_unix(s));
    mki_buf_s(&s->body, "}\n");
    return true;
}

/* A limit of {"rpm":N,...}, if it is there; false: not a number of that kind.
 */
static bool mki_limit_read(const mki_json *body, const char *name, int64_t max,
                           int64_t *out)
{
    const mki_json *v = mki_get(body, name);

    if (v != NULL && (v->type != MKI_INT || v->i < 0 || v->i > max)) {
        return false;
    }
    *out = v != NULL ? v->i : *out;
    return true;
}

/* {"rpm":N,"tpm":N,"rpd":N,"tpd":N,"slice_ms":N}, each if it is to change, 0:
 * no limit. false: answered with a problem, and nothing has changed. */
static bool mki_mock_limits(mki_call *call)
{
    mock_server *s = call->s;
    const mki_json *body = mki_json_parse(&s->arena, call->q->body);
    int64_t rpm = s->opt.rpm;
    int64_t rpd = s->opt.rpd;
    int64_t tpm = s->opt.tpm;
    int64_t tpd = s->opt.tpd;
    int64_t slice = s->opt.slice_ms;

    if (body == NULL || body->type != MKI_OBJECT ||
        !mki_limit_read(body, "rpm", INT_MAX, &rpm) ||
        !mki_limit_read(body, "tpm", MKI_SANE_MAX / 1000, &tpm) ||
        !mki_limit_read(body, "rpd", INT_MAX, &rpd) ||
        !mki_limit_read(body, "tpd", MKI_SANE_MAX / 1000, &tpd) ||
        !mki_limit_read(body, "slice_ms", 60000, &slice)) {
        mki_bad(&call->problem, NULL, "invalid_value",
                "Expected {\"rpm\":N,\"tpm\":N,\"rpd\":N,\"tpd\":N,"
                "\"slice_ms\":N}, any of them.");
        mki_respond_problem(call, &call->problem);
        return false;
    }
    s->opt.rpm = (int)rpm;
    s->opt.rpd = (int)rpd;
    s->opt.tpm = tpm;
    s->opt.tpd = tpd;
    s->opt.slice_ms = (int)slice;
    mki_limits_set(s, call->now);
    mki_js_limits(s, &s->body);
    mki_buf_s(&s->body, "\n");
    return true;
}

static void mki_mark(mock_server *s)
{
    int64_t now = mki_now(s);

    mki_limits_fill(s, now);
    mki_account_mark(&s->account, now);
}

/* The answers to /mock/stats, /mock/report and so on. */
static void mki_mock_get(mki_call *call)
{
    mock_server *s = call->s;
    mki_str path = call->q->path;
    mki_file *file = mki_store_file(
        &s->store, path.len > 14 ? mki_s(path.ptr + 14, path.len - 14) : path);

    if (mki_key_of(call->q).len > 0) {
        mki_finding(&s->account, MKI_R_KEY, "a key was sent to %.*s",
                    (int)(path.len < 60 ? path.len : 60), path.ptr);
    }
    mki_store_advance(s);
    s->body.len = 0;
    if (mki_eq(path, "/mock/stats")) {
        mki_stats(s, &s->body);
    } else if (mki_eq(path, "/mock/report")) {
        mki_report_now(s);
        mki_account_report(&s->account, &s->body);
    } else if (mki_eq(path, "/mock/reset") && mki_eq(call->q->method, "POST")) {
        mki_reset(s);
        mki_buf_s(&s->body, "{\"reset\":true}\n");
    } else if (mki_eq(path, "/mock/clock") && mki_eq(call->q->method, "POST")) {
        if (!mki_mock_clock(call)) {
            return;
        }
    } else if (mki_eq(path, "/mock/limits") &&
               mki_eq(call->q->method, "POST")) {
        if (!mki_mock_limits(call)) {
            return;
        }
    } else if (mki_eq(path, "/mock/mark") && mki_eq(call->q->method, "POST")) {
        mki_mark(s);
        mki_buf_s(&s->body, "{\"marked\":true}\n");
    } else if (mki_starts(path, "/mock/content/") && file != NULL) {
        mki_file_send(call, file);
        return;
    } else {
        mki_bad(&call->problem, NULL, NULL,
                "The mock has GET /mock/stats, GET /mock/report, and POST "
                "/mock/reset, /mock/clock, /mock/limits and /mock/mark.");
        call->problem.status = 404;
        mki_respond_problem(call, &call->problem);
        return;
    }
    mki_respond(call, 200, "application/json", mki_buf_str(&s->body));
}

/* false: refused, and answered with 401. */
static bool mki_authorized(mki_call *call)
{
    mki_str key = mki_key_of(call->q);
    const char *wanted = call->s->opt.api_key;
    char shown[64];

    if (wanted == NULL || mki_eq(key, wanted)) {
        return true;
    }
    if (key.len == 0) {
        mki_bad(&call->problem, NULL, NULL,
                "You didn't provide an API key. You need to provide your API "
                "key in an Authorization header using Bearer auth (i.e. "
                "Authorization: Bearer YOUR_KEY).");
    } else {
        mki_quote(key, shown);
        mki_bad(&call->problem, NULL, "invalid_api_key",
                "Incorrect API key provided: %.*s*****%s. You can find your "
                "API key at https://platform.openai.com/account/api-keys.",
                key.len > 12 ? 4 : 1, shown,
                key.len > 12 ? shown + strlen(shown) - 4 : "");
    }
    call->problem.status = 401;
    mki_buf_s(&call->s->extra, "www-authenticate: Bearer\r\n");
    mki_respond_problem(call, &call->problem);
    return false;
}

/* What a bucket must hold for the request to pass. */
static double mki_need(const mki_call *call, size_t cause, int64_t asked)
{
    double limit = call->s->limits[cause].limit;
    double need = mki_of_tokens(cause) ? (double)asked : 1;

    /* more than a slice ever holds passes when that is full */
    return (cause >= MKI_SLICE_R && need > limit ? limit : need) -
           call->taken[cause];
}

/* The limit that the request has to wait for longest; MKI_LIMITS: for none. */
static mki_cause mki_over(const mki_call *call, int64_t asked, int64_t *wait)
{
    mki_cause cause = MKI_LIMITS;
    size_t i;

    *wait = 0;
    for (i = 0; i < MKI_LIMITS; i++) {
        const mki_bucket *b = &call->s->limits[i];
        double need = mki_need(call, i, asked);

        if (b->limit > 0 && b->level < need) {
            /* what was taken is gone */
            int64_t ms = mki_bucket_wait(b, need + call->taken[i]);

            if (ms > *wait) {
                *wait = ms;
                cause = (mki_cause)i;
            }
        }
    }
    return cause;
}

static void mki_charge(mki_call *call, int64_t asked)
{
    mock_server *s = call->s;
    size_t i;

    for (i = 0; i < MKI_LIMITS; i++) {
        if (s->limits[i].limit > 0) {
            s->limits[i].level -=
                (mki_of_tokens(i) ? (double)asked : 1) - call->taken[i];
        }
    }
    call->c->plan.charged = asked;
    mki_account_charge(&s->account, call->now, call->counted ? 0 : 1, asked);
}

/* A request that no waiting helps; 0: it is not one, else the limit. */
static int64_t mki_too_large_for(const mock_server *s, int64_t asked)
{
    double tpm = s->limits[MKI_TPM].limit;
    double tpd = s->limits[MKI_TPD].limit;

    return tpm > 0 && (double)asked > tpm   ? (int64_t)tpm
           : tpd > 0 && (double)asked > tpd ? (int64_t)tpd
                                            : 0;
}

static void mki_throttle(mki_call *call, mki_cause cause)
{
    mki_account_429(&call->s->account, call->now, cause);
    call->c->plan.throttled = true;
    mki_respond_problem(call, &call->problem);
}

/* What the client reads of a limit; a slice is not told as one. */
static void mki_over_limit(mki_call *call, mki_cause cause, int64_t asked,
                           int64_t wait)
{
    const mki_bucket *k =
        &call->s->limits[cause < MKI_SLICE_R ? cause : cause - MKI_SLICE_R];
    int64_t limit = (int64_t)k->limit;

    if (mki_of_tokens(cause)) {
        mki_problem_429(call, cause, limit, (int64_t)(k->limit - k->level),
                        asked, wait);
    } else {
        mki_problem_429(call, cause, limit,
                        k->level < 1 ? limit : limit - (int64_t)k->level, 1,
                        wait);
    }
}

/* false: over a limit, and answered with 429. */
static bool mki_admitted(mki_call *call)
{
    mock_server *s = call->s;
    int64_t asked = (int64_t)call->q->body.len / 4;
    int64_t limit = mki_limit(call->body, 0);
    int64_t wait;
    mki_cause cause;

    limit = limit > INT32_MAX ? INT32_MAX : limit; /* whatever was asked for */
    limit *= mki_get_int(call->body, "n", 1);
    asked = limit > asked ? limit : asked;
    mki_limits_fill(s, call->now);
    if (mki_too_large_for(s, asked) > 0) {
        mki_problem_too_large(call, mki_too_large_for(s, asked), asked);
        call->c->plan.final_status = 429;
        mki_throttle(call, MKI_TOO_LARGE);
        return false;
    }
    cause = mki_over(call, asked, &wait);
    if (cause == MKI_LIMITS) {
        mki_charge(call, asked);
        return true;
    }
    mki_over_limit(call, cause, asked, wait);
    call->c->plan.pause_ms = wait;
    mki_buf_f(&s->extra, "retry-after: %" PRId64 "\r\n", (wait + 999) / 1000);
    mki_buf_f(&s->extra, "retry-after-ms: %" PRId64 "\r\n", wait);
    mki_throttle(call, cause);
    return false;
}

/* Every answer that was made, whatever then becomes of it; a connection that is
 * reset before its first byte has none. */
static void mki_bill_call(const mki_call *call)
{
    mki_account *a = &call->s->account;
    const mki_fault *f = call->choice.main;

    if (call->c->plan.status != 200 ||
        (f != NULL && f->kind == MKI_F_RESET && f->bytes <= 0)) {
        return;
    }
    a->billed_in += call->tokens_in;
    a->billed_cached += mki_cached(call);
    a->billed_out += call->c->plan.tokens_out;
}

static void mki_endpoint(mki_call *call)
{
    if (call->route == MKI_MODELS || call->route == MKI_MODEL) {
        mki_models_get(call);
        return;
    }
    if (call->route >= MKI_UPLOAD && call->route <= MKI_CANCEL) {
        if (call->route == MKI_FILES || call->route == MKI_BATCHES) {
            mki_store_advance(call->s); /* others look at one batch at most */
        }
        mki_store_expire(&call->s->store, mki_unix(call->s) / 1000);
        if (call->route <= MKI_CONTENT) {
            mki_files_endpoint(call);
        } else {
            mki_batches_endpoint(call);
        }
        return;
    }
    if (!mki_body_ok(call)) {
        mki_respond_problem(call, &call->problem);
        return;
    }
    if (!mki_admitted(call)) {
        return;
    }
    mki_model_answer(call);
    call->c->plan.tokens_in = call->tokens_in;
    mki_bill_call(call);
}

/* Unknown paths and methods; false: answered. */
static bool mki_route_ok(mki_call *call)
{
    const mki_request *q = call->q;

    if (call->wrong_method != NULL) {
        mki_bad(&call->problem, NULL, NULL,
                "Not allowed to %.*s on %.*s (HINT: Perhaps you meant to use "
                "a different HTTP method?)",
                (int)q->method.len, q->method.ptr,
                (int)(q->path.len < 100 ? q->path.len : 100), q->path.ptr);
        call->problem.status = 405;
        mki_buf_f(&call->s->extra, "allow: %s\r\n", call->wrong_method);
    } else if (call->route == MKI_OTHER) {
        mki_bad(&call->problem, NULL, NULL, "Invalid URL (%.*s %.*s)",
                (int)q->method.len, q->method.ptr,
                (int)(q->path.len < 100 ? q->path.len : 100), q->path.ptr);
        call->problem.status = 404;
    } else {
        return true;
    }
    mki_respond_problem(call, &call->problem);
    return false;
}

/* The connection carries its first API request: it counts from now on, and its
 * client may have had enough of them. */
static void mki_note_connection(mki_call *call, uint64_t client_id)
{
    mki_account *a = &call->s->account;
    mki_conn *c = call->c;
    const mki_conn *other = call->s->conns;
    int64_t idle = 0;
    mki_client *client;

    c->counted = true;
    a->connections++;
    a->resumed += c->chan.resumed ? 1 : 0;
    a->open++;
    a->max_open = a->open > a->max_open ? a->open : a->max_open;
    c->client = mki_client_find(a, client_id);
    client = &a->clients[c->client];
    client->open++;
    client->conns++;
    if (a->expect_connections > 0 &&
        client->open > a->expect_connections * 3 / 2 + 2) {
        mki_finding(a, MKI_R_CONNECTIONS, "%d connections open, %d expected",
                    (int)client->open, a->expect_connections);
    }
    for (; client->open > MKI_IDLE_CONNS && other != NULL;
         other = other->next) {
        idle += other->counted && other->client == c->client &&
                        other->rest_since >= 0 &&
                        call->now - other->rest_since > MKI_IDLE_MS
                    ? 1
                    : 0;
    }
    if (idle > MKI_IDLE_CONNS) {
        mki_finding(a, MKI_R_CONNECTIONS,
                    "a connection was opened while %d were idle", (int)idle);
    }
}

/* Counts the request, finds its client and body, and judges it. */
static mki_body *mki_note_request(mki_call *call)
{
    mock_server *s = call->s;
    mki_account *a = &s->account;
    mki_conn *c = call->c;
    mki_str key = mki_key_of(call->q);
    uint64_t id = mki_hash(c->peer, key.ptr, key.len);
    mki_client *client;
    mki_body *body = NULL;
    bool fresh;

    a->requests[call->route]++;
    a->bytes_in += (int64_t)call->q->body.len;
    if (!c->counted) {
        mki_note_connection(call, id);
    }
    client = &a->clients[c->client];
    if (key.len > 0 && !mki_host_ours(s, call->q)) {
        mki_finding(a, MKI_R_KEY, "a key was sent for another host: %.*s",
                    (int)mki_header(call->q, "host").len,
                    mki_header(call->q, "host").ptr);
    }
    if (c->upload != NULL) {
        a->bytes_in += c->upload->total;
    }
    if (call->route <= MKI_EMBEDDINGS && call->deployment.len == 0) {
        c->plan.bill_key =
            mki_bill_key(mki_route_name(call->route) + 5, call->q->body);
    }
    /* Files and batches have rules of their own. */
    if (mki_eq(call->q->method, "POST") &&
        (call->route < MKI_UPLOAD || call->route > MKI_CANCEL)) {
        uint64_t h = mki_hash(id, call->q->path.ptr, call->q->path.len);

        h = mki_hash(h, call->q->body.ptr, call->q->body.len);
        c->plan.body_key = h != 0 ? h : 1;
        body = mki_body_get(a, c->plan.body_key);
    }
    fresh = c->pause_seen != client->pause_id;
    c->pause_seen = client->pause_id;
    mki_account_request(a, client, body, c->first_byte, fresh);
    if (body != NULL) {
        body->came++;
        body->flying++;
        body->flying_max =
            body->flying > body->flying_max ? body->flying : body->flying_max;
    }
    return body;
}

/* Turns faults of the way into the plan, once the answer is in the buffer. */
static void mki_plan_finish(mki_call *call)
{
    mki_plan *plan = &call->c->plan;
    const mki_fault *f = call->choice.main;
    const mki_fault *const *way = call->choice.way;
    size_t head_end = call->head_end;
    size_t len = call->c->out.len + call->c->content_left;
    size_t cut = plan->cut;

    plan->cut = len;
    plan->whole = true;
    plan->answers = true;
    if (f != NULL) {
        mki_copy(plan->fault, sizeof plan->fault, mki_sc(f->label));
        switch (f->kind) {
        case MKI_F_RESET:
        case MKI_F_LOST:
        case MKI_F_STALL:
            plan->after = f->kind == MKI_F_STALL ? MKI_SILENT : MKI_RESET;
            plan->cut = f->bytes > 0 ? (size_t)f->bytes : 0;
            plan->lost = f->kind == MKI_F_LOST;
            plan->stall_ms = f->ms;
            break;
        case MKI_F_TRUNCATE:
            plan->after = f->notify ? MKI_CUT_NOTIFY : MKI_CUT;
            plan->cut = head_end + (f->bytes >= 0 ? (size_t)f->bytes
                                                  : (len - head_end) / 2);
            break;
        case MKI_F_EARLY_CLOSE:
            plan->cut = cut > 0 ? head_end + cut : len;
            break;
        default:
            break;
        }
        plan->whole = f->kind < MKI_F_RESET ||
                      (f->kind > MKI_F_GARBAGE && f->kind != MKI_F_EARLY_CLOSE);
        plan->answers = plan->lost || f->kind == MKI_F_NO_DONE ||
                        f->kind > MKI_F_EARLY_CLOSE;
        plan->excused = !plan->whole || f->kind == MKI_F_NO_DONE;
    }
    plan->cut = plan->cut > len ? len : plan->cut;
    if (way[MKI_F_SLOW] != NULL) {
        plan->slice =
            way[MKI_F_SLOW]->bytes > 0 ? (size_t)way[MKI_F_SLOW]->bytes : 64;
        plan->slice_ms = way[MKI_F_SLOW]->ms >= 0 ? way[MKI_F_SLOW]->ms : 5;
    }
    if (way[MKI_F_STALE] != NULL) {
        plan->stale_late = way[MKI_F_STALE]->late;
        plan->stale_ms = way[MKI_F_STALE]->ms >= 0 ? way[MKI_F_STALE]->ms : 0;
    }
}

static void mki_count_faults(mki_call *call)
{
    int k;

    if (call->choice.main != NULL) {
        mki_account_fault(&call->s->account, call->choice.main->label);
    }
    for (k = MKI_F_SLOW; k < MKI_F_WAYS; k++) {
        if (call->choice.way[k] != NULL) {
            mki_account_fault(&call->s->account, call->choice.way[k]->label);
        }
    }
}

/* What an answer forbids: the same body again. */
static int mki_final_status(const mki_call *call)
{
    const mki_fault *f = call->choice.main;
    int status = call->c->plan.status;

    if (f != NULL && f->should_retry >= 0) {
        return f->should_retry == 0 ? status : 0;
    }
    if (f != NULL && (f->kind == MKI_F_QUOTA || f->kind == MKI_F_TOO_LARGE)) {
        return 429;
    }
    return status == 400 || status == 401 || status == 403 || status == 404 ||
                   status == 422
               ? status
               : call->c->plan.final_status;
}

/* How long the answer takes, and whether the server is too busy to give one. */
static bool mki_load_ok(mki_call *call)
{
    mock_server *s = call->s;
    mki_plan *plan = &call->c->plan;
    int status = 0;

    plan->delay_ms = s->opt.latency_ms;
    if (s->opt.latency_jitter_ms > 0) {
        plan->delay_ms += (int64_t)(mki_mix(s->opt.seed + call->id) %
                                    (uint64_t)(s->opt.latency_jitter_ms + 1));
    }
    if (s->opt.load_fn != NULL) {
        status = s->opt.load_fn((int)s->account.flying + 1, &plan->delay_ms,
                                s->opt.load_user);
    }
    if (status == 0) {
        return true;
    }
    plan->delay_ms = 0;
    mki_bad(&call->problem, NULL,
            status == 429 ? "too_many_concurrent_requests"
                          : "server_overloaded",
            "Too many requests at a time; the server is overloaded.");
    call->problem.type = "server_error";
    call->problem.status = status;
    mki_respond_problem(call, &call->problem);
    return false;
}

/* Fills c->out and c->plan with the answer to q. */
static void mki_api_answer(mock_server *s, mki_conn *c, const mki_request *q,
                           int64_t now)
{
    mki_call call;
    mki_body *body;
    bool closes =
        mki_ieq(mki_header(q, "connection"), "close") ||
        (q->minor == 0 && !mki_ieq(mki_header(q, "connection"), "keep-alive"));

    memset(&call, 0, sizeof call);
    call.s = s;
    call.c = c;
    call.q = q;
    call.now = now;
    call.id = ++s->ids;
    call.model = mki_sc("gpt-4o-mini");
    call.stop_after = SIZE_MAX;
    s->extra.len = 0;
    c->plan.after = closes ? MKI_CLOSE : MKI_KEEP;
    c->plan.stale_ms = -1;
    mki_copy(c->plan.method, sizeof c->plan.method, q->method);
    mki_copy(c->plan.path, sizeof c->plan.path, q->path);
    mki_find_route(&call);
    if (call.route == MKI_MOCK) {
        mki_mock_get(&call);
        mki_plan_finish(&call);
        mki_arena_reset(&s->arena, false);
        return;
    }
    c->plan.api = true;
    c->plan.charged = -1;
    body = mki_note_request(&call);
    if (s->opt.count_failed && call.route <= MKI_EMBEDDINGS) {
        mki_count_request(&call);
    }
    if (mki_authorized(&call) && mki_route_ok(&call) && mki_load_ok(&call)) {
        mki_faults_choose(
            &s->faults, call.route, q->path,
            c->plan.body_key != 0 ? c->plan.body_key
                                  : mki_hash(2, q->path.ptr, q->path.len),
            body != NULL ? body->came : (uint32_t)call.id, &call.choice);
        mki_count_faults(&call);
        if (call.choice.way[MKI_F_CLOSE] != NULL) {
            c->plan.after = MKI_CLOSE;
        }
        if (call.choice.main == NULL ||
            !mki_fault_answer(&call, call.choice.main)) {
            mki_endpoint(&call);
        }
    }
    c->plan.final_status = mki_final_status(&call);
    s->account.all.replies++;
    if (c->plan.status == 429 && !c->plan.throttled) {
        mki_account_429(&s->account, now, MKI_INJECTED);
    }
    mki_plan_finish(&call);
    mki_arena_reset(&s->arena, false);
}

/* ===========================================================================
 * >>server     connections, timers, the loop, the public functions
 * calls: >>platform >>tls >>http >>batch >>route
 *
 * A connection is in one of these states, and mki_conn_drive() moves it on as
 * far as it goes without waiting:
 *
 *   SHAKING -> READING -> WAITING (latency, slow pieces) <-> SENDING -> READING
 *                                    SENDING -> SILENT (stall), or the end
 *   LINGERING: answered and FIN sent, but the client still talks
 *
 * Each has at most one timer, kept in a heap. Connections die only in
 * mki_conn_end(), at the end of a drive.
 * ======================================================================== */

enum {
    MKI_S_SHAKING,
    MKI_S_READING,
    MKI_S_WAITING,
    MKI_S_SENDING,
    MKI_S_SILENT,
    MKI_S_LINGERING
};

#define MKI_IN_MAX   (65536 * 4) /* unread input while an answer is under way */
#define MKI_KEEP_MAX 65536 /* larger buffers an idle connection gives back */
#define MKI_SHAKES   4     /* handshake steps a turn: milliseconds each */

/* ---- timers ---- */

static void mki_heap_put(mock_server *s, size_t i, mki_conn *c)
{
    s->heap[i] = c;
    c->heap_at = i;
}

static void mki_heap_fix(mock_server *s, size_t i)
{
    mki_conn *c = s->heap[i];

    while (i > 0 && s->heap[(i - 1) / 2]->due > c->due) {
        mki_heap_put(s, i, s->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t k = 2 * i + 1;

        if (k + 1 < s->n_heap && s->heap[k + 1]->due < s->heap[k]->due) {
            k++;
        }
        if (k >= s->n_heap || s->heap[k]->due >= c->due) {
            break;
        }
        mki_heap_put(s, i, s->heap[k]);
        i = k;
    }
    mki_heap_put(s, i, c);
}

/* due INT64_MAX: no timer. The heap has room for all connections. */
static void mki_timer(mock_server *s, mki_conn *c, int64_t due)
{
    if (due == INT64_MAX) {
        size_t i = c->heap_at;

        if (i != SIZE_MAX) {
            c->heap_at = SIZE_MAX;
            s->n_heap--;
            if (i < s->n_heap) {
                mki_heap_put(s, i, s->heap[s->n_heap]);
                mki_heap_fix(s, i);
            }
        }
        return;
    }
    c->due = due;
    if (c->heap_at == SIZE_MAX) {
        mki_heap_put(s, s->n_heap++, c);
    }
    mki_heap_fix(s, c->heap_at);
}

/* ---- the log ---- */

static void mki_log(mock_server *s, const mki_conn *c, int64_t now, bool done)
{
    mki_buf *b = &s->event;
    const mki_plan *p = &c->plan;

    if (s->log == NULL || !p->api) {
        return;
    }
    b->len = 0;
    mki_buf_c(b, '{');
    mki_js_int(b, "time", mki_unix(s));
    mki_js_int(b, "connection", (int64_t)c->id);
    mki_js_str(b, "method", mki_sc(p->method));
    mki_js_str(b, "path", mki_sc(p->path));
    mki_js_int(b, "status", done && p->whole ? p->status : 0);
    mki_js_maybe(b, "fault", p->fault[0] != '\0' ? p->fault : NULL);
    mki_js_int(b, "sent", (int64_t)c->sent);
    mki_js_int(b, "ms", now - c->started);
    mki_js_int(b, "prompt_tokens", p->tokens_in);
    mki_js_int(b, "completion_tokens", p->tokens_out);
    mki_buf_s(b, "}\n");
    if (!b->failed) {
        fwrite(b->data, 1, b->len, s->log);
    }
}

/* ---- the life of a request on its connection ---- */

/* A file has gone out as a whole. */
static void mki_conn_delivered(mock_server *s, const mki_plan *p)
{
    mki_file *f = p->content[0] != '\0'
                      ? mki_store_file(&s->store, mki_sc(p->content))
                      : NULL;

    if (f != NULL && p->whole && !p->excused && p->status == 200 &&
        ++f->delivered > 1) {
        mki_finding(&s->account, MKI_R_DOWNLOADS,
                    "%s was downloaded %d times as a whole", f->id,
                    (int)f->delivered);
    }
}

/* The client may never have read it. */
static void mki_conn_unread(mock_server *s, const mki_plan *p)
{
    mki_file *f = p->content[0] != '\0'
                      ? mki_store_file(&s->store, mki_sc(p->content))
                      : NULL;

    if (f != NULL && f->delivered > 0) {
        f->delivered--;
    }
}

/* What belonged to the request alone. */
static void mki_conn_let_go(mki_conn *c)
{
    if (c->content_fd >= 0) {
        close(c->content_fd);
        c->content_fd = -1;
    }
    c->content_left = 0;
    mki_upload_free(c);
}

/* The request is over; done: the answer went out as planned. */
static void mki_conn_settle(mock_server *s, mki_conn *c, int64_t now, bool done)
{
    mki_account *a = &s->account;
    mki_plan *p = &c->plan;
    mki_body *body;

    mki_log(s, c, now, done);
    a->bytes_out += (int64_t)c->sent;
    if (!p->api) {
        return;
    }
    a->flying--;
    a->cancelled += done ? 0 : 1;
    mki_limits_settle(s, p, now);
    body = p->body_key != 0 ? mki_body_get(a, p->body_key) : NULL;
    if (body != NULL && body->flying > 0) {
        body->flying--;
    }
    if (!done || (!p->whole && !p->lost)) {
        return;
    }
    mki_conn_delivered(s, p);
    a->responses[p->status]++;
    if (p->whole && c->counted) {
        mki_account_pause(&a->clients[c->client], body, now, p->pause_ms);
    }
    if (body != NULL && p->whole) {
        body->final_status = p->final_status;
    }
    if (p->status != 200 || !p->answers || p->body_key == 0) {
        return;
    }
    a->tokens_in += p->tokens_in;
    a->tokens_out += p->tokens_out;
    if (body != NULL) {
        mki_bill *bill =
            p->bill_key != 0 ? mki_bill_get(&s->store, p->bill_key) : NULL;

        /* what a batch has answered was answered before, too */
        if (body->answers > 0 || (bill != NULL && bill->by != 0)) {
            a->answered_again++;
        } else {
            a->answered++;
        }
        if (bill != NULL) {
            bill->answers++;
        }
        body->answers++;
        body->delivered += p->excused ? 0 : 1;
    }
}

static void mki_conn_end(mock_server *s, mki_conn *c, int64_t now, bool notify,
                         bool reset)
{
    mki_account *a = &s->account;

    if (c->state == MKI_S_WAITING || c->state == MKI_S_SENDING ||
        c->state == MKI_S_SILENT) {
        mki_conn_settle(s, c, now, c->state == MKI_S_SILENT);
    }
    if (c->counted) {
        mki_client *client = &a->clients[c->client];

        a->open--;
        client->open--;
        client->short_lived += c->n_requests == 1 && c->client_left ? 1 : 0;
    }
    mki_conn_let_go(c);
    mki_timer(s, c, INT64_MAX);
    if (c->interest >= 0) {
        mki_poller_set(&s->poller, c->chan.fd, -1, NULL);
    }
    mki_chan_close(&c->chan, notify, reset);
    mki_buf_free(&c->in);
    mki_buf_free(&c->out);
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        s->conns = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    free(c);
    s->n_conns--;
    if (!s->listening) {
        s->listening = mki_poller_set(&s->poller, s->listener, MKI_IN, s);
    }
}

static void mki_conn_interest(mock_server *s, mki_conn *c)
{
    int want = 0;

    if (!c->eof && c->in.len < MKI_IN_MAX + s->opt.max_body_bytes) {
        want |= MKI_IN;
    }
    if (c->state > MKI_S_READING && c->in.len >= MKI_IN_MAX) {
        want &= ~(int)MKI_IN;
    }
    if (c->blocked) {
        want |= MKI_OUT;
    }
    if (want != c->interest &&
        mki_poller_set(&s->poller, c->chan.fd, want, c)) {
        c->interest = want;
    }
}

/* Reads once: as mki_sock_recv. */
static int64_t mki_conn_fill(mki_conn *c)
{
    int64_t n;

    if (!mki_buf_reserve(&c->in, c->upload != NULL ? 131072 : 4096)) {
        return -2;
    }
    n = mki_chan_recv(&c->chan, c->in.data + c->in.len, c->in.cap - c->in.len);
    if (n > 0) {
        c->in.len += (size_t)n;
    }
    return n;
}

/* Begins the answer that lies in c->out. */
static void mki_conn_begin(mock_server *s, mki_conn *c, int64_t now)
{
    mki_plan *p = &c->plan;

    c->sent = 0;
    c->out_base = 0;
    c->allowed = p->slice > 0 ? p->slice : SIZE_MAX;
    c->state = MKI_S_SENDING;
    if (p->delay_ms > 0) {
        c->state = MKI_S_WAITING;
        mki_timer(s, c, now + p->delay_ms);
    }
}

/* A complete request is in the buffer. */
static void mki_conn_request(mock_server *s, mki_conn *c, size_t used,
                             int64_t now)
{
    memset(&c->plan, 0, sizeof c->plan);
    c->out.len = 0;
    c->n_requests++;
    c->started = now;
    c->rest_since = -1;
    mki_timer(s, c, INT64_MAX);
    mki_api_answer(s, c, &s->request, now);
    mki_upload_free(c);
    mki_buf_drop(&c->in, used);
    memset(&c->incoming, 0, sizeof c->incoming);
    c->first_byte = now;
    if (c->plan.api) {
        mki_account_flying(&s->account);
    }
    mki_conn_begin(s, c, now);
}

/* Malformed or too large: an answer, and the end of the connection. */
static void mki_conn_refuse(mock_server *s, mki_conn *c, int64_t now)
{
    mki_buf *b = &s->body;
    int status = c->incoming.refuse;

    b->len = 0;
    mki_buf_f(b,
              "{\"error\":{\"message\":\"%s\",\"type\":"
              "\"invalid_request_error\",\"param\":null,\"code\":null}}\n",
              mki_reason(status));
    c->out.len = 0;
    mki_buf_f(&c->out,
              "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n"
              "content-length: %zu\r\nconnection: close\r\n\r\n",
              status, mki_reason(status), b->len);
    mki_buf_add(&c->out, b->data, b->len);
    memset(&c->plan, 0, sizeof c->plan);
    c->plan.cut = c->out.len;
    c->plan.after = MKI_CLOSE;
    c->plan.stale_ms = -1;
    s->account.requests[MKI_OTHER]++;
    s->account.responses[status]++;
    mki_conn_begin(s, c, now);
}

/* What a state's step tells the drive. */
enum { MKI_GO_ON, MKI_STOP, MKI_END, MKI_END_NOTIFY, MKI_END_RESET };

static int mki_step_shake(mock_server *s, mki_conn *c)
{
    int64_t rc = mki_chan_handshake(&c->chan, s->tls);

    c->blocked = rc == -1 && c->chan.want_write;
    if (rc == 1) {
        c->state = MKI_S_READING;
        return MKI_GO_ON;
    }
    return rc == -1 ? MKI_STOP : MKI_END;
}

/* Passes on what has come of an upload; as mki_incoming_next, or -2: reset. */
static int mki_conn_upload(mock_server *s, mki_conn *c, size_t *used)
{
    int rc;

    if (c->upload == NULL) {
        mki_request_head(&s->request, mki_s(c->in.data, c->incoming.head_len));
        if (!mki_upload_begin(s, c, &s->request)) {
            return -2;
        }
    }
    rc = mki_incoming_stream(&c->incoming, &c->in, mki_upload_feed, c->upload);
    if (rc == 1) {
        mki_request_head(&s->request, mki_s(c->in.data, c->incoming.head_len));
        *used = c->incoming.head_len;
    }
    return rc;
}

static int mki_step_read(mock_server *s, mki_conn *c, int64_t now)
{
    size_t used = 0;
    int rc;
    int64_t n;

    if (c->in.len > 0) {
        if (c->plan.stale_late) {
            return MKI_END;
        }
        rc = mki_incoming_next(&c->incoming, &c->in, s->opt.max_body_bytes,
                               &s->request, &used);
        if (rc == 0 && c->incoming.upload) {
            rc = mki_conn_upload(s, c, &used);
            if (rc < -1) {
                return MKI_END_RESET;
            }
        }
        if (rc > 0) {
            mki_conn_request(s, c, used, now);
            return MKI_GO_ON;
        }
        if (rc < 0) {
            mki_conn_refuse(s, c, now);
            return MKI_GO_ON;
        }
        if (c->incoming.expects && c->incoming.head_len > 0) {
            c->incoming.expects = false;
            mki_chan_send(&c->chan, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        }
    }
    n = mki_conn_fill(c);
    if (n > 0) {
        if (c->in.len == (size_t)n) {
            c->first_byte = now;
            mki_timer(s, c, INT64_MAX);
        }
        return MKI_GO_ON;
    }
    c->client_left = n != -1;
    if (n == -2) {
        mki_account_unread(&s->account, c->plan.body_key);
        mki_conn_unread(s, &c->plan);
    }
    return n == -1 ? MKI_STOP : n == 0 ? MKI_END_NOTIFY : MKI_END;
}

/* The answer is out, as far as it goes. */
static int mki_step_sent(mock_server *s, mki_conn *c, int64_t now)
{
    mki_plan *p = &c->plan;

    if (p->after == MKI_SILENT) {
        c->state = MKI_S_SILENT;
        if (p->stall_ms > 0) {
            mki_timer(s, c, now + p->stall_ms);
        }
        return MKI_GO_ON;
    }
    mki_conn_settle(s, c, now, !c->eof);
    mki_conn_let_go(c);
    c->state = MKI_S_READING;
    if (p->after == MKI_RESET) {
        return MKI_END_RESET;
    }
    if (p->after == MKI_CUT) {
        return MKI_END;
    }
    if (c->eof || p->after == MKI_CUT_NOTIFY) {
        return MKI_END_NOTIFY;
    }
    if (p->after == MKI_CLOSE) {
        if (c->in.len == 0 && c->incoming.refuse == 0) {
            return MKI_END_NOTIFY;
        }
        mki_sock_finish(c->chan.fd); /* closing at once would be a reset */
        c->state = MKI_S_LINGERING;
        mki_timer(s, c, now + 1000);
        return MKI_GO_ON;
    }
    c->rest_since = now;
    if (c->out.cap > MKI_KEEP_MAX) {
        mki_buf_free(&c->out);
    }
    if (c->in.cap > MKI_KEEP_MAX && c->in.len == 0) {
        mki_buf_free(&c->in);
    }
    if (p->stale_ms == 0 && !p->stale_late) {
        return MKI_END;
    }
    if (p->stale_ms > 0 && !p->stale_late) {
        mki_timer(s, c, now + p->stale_ms);
    } else if (s->opt.idle_ms > 0) {
        mki_timer(s, c, now + s->opt.idle_ms);
    }
    return MKI_GO_ON;
}

/* The next piece of the file that goes out. */
static bool mki_conn_refill(mki_conn *c)
{
    size_t want = c->content_left < 65536 ? c->content_left : 65536;
    ssize_t n;

    c->out_base += c->out.len;
    c->out.len = 0;
    if (c->content_fd < 0 || want == 0 || !mki_buf_reserve(&c->out, want)) {
        return false;
    }
    n = read(c->content_fd, c->out.data, want);
    if (n <= 0) {
        return false;
    }
    c->out.len = (size_t)n;
    c->content_left -= (size_t)n;
    return true;
}

static int mki_step_send(mock_server *s, mki_conn *c, int64_t now)
{
    size_t limit = c->plan.cut < c->allowed ? c->plan.cut : c->allowed;
    int64_t n;

    if (c->out.failed) {
        return MKI_END_RESET; /* no memory */
    }
    while (c->sent < limit) {
        size_t at = c->sent - c->out_base;
        size_t left;

        if (at == c->out.len && !mki_conn_refill(c)) {
            return MKI_END_RESET; /* a file has shrunk, or memory has */
        }
        at = c->sent - c->out_base;
        left = c->out.len - at < limit - c->sent ? c->out.len - at
                                                 : limit - c->sent;
        n = mki_chan_send(&c->chan, c->out.data + at, left);
        if (n < 0) {
            c->blocked = n == -1;
            return n == -1 ? MKI_STOP : MKI_END;
        }
        c->sent += (size_t)n;
    }
    c->blocked = false;
    if (c->sent < c->plan.cut) {
        c->allowed += c->plan.slice;
        c->state = MKI_S_WAITING;
        mki_timer(s, c, now + c->plan.slice_ms);
        return MKI_GO_ON;
    }
    return mki_step_sent(s, c, now);
}

/* While an answer is under way or withheld: notices a client that leaves. */
static int mki_step_watch(mki_conn *c, bool readable)
{
    bool deaf = c->state == MKI_S_SILENT || c->state == MKI_S_LINGERING;
    int64_t n = 1;

    while (readable && !c->eof && n > 0) {
        if (deaf) {
            c->in.len = 0;
        } else if (c->in.len >= MKI_IN_MAX) {
            break;
        }
        n = mki_conn_fill(c);
    }
    if (n == -2 || (n == 0 && deaf)) {
        return MKI_END;
    }
    c->eof = c->eof || n == 0;
    return MKI_STOP;
}

/* Moves a connection on; it may be gone afterwards. */
static void mki_conn_drive(mock_server *s, mki_conn *c, unsigned ready,
                           int64_t now)
{
    int next = MKI_GO_ON;

    if ((ready & MKI_GONE) != 0 && c->state >= MKI_S_WAITING) {
        next = MKI_END;
    }
    while (next == MKI_GO_ON) {
        switch (c->state) {
        case MKI_S_SHAKING:
            next = mki_step_shake(s, c);
            break;
        case MKI_S_READING:
            next = mki_step_read(s, c, now);
            break;
        case MKI_S_SENDING:
            next = mki_step_send(s, c, now);
            if (next == MKI_STOP) {
                next = mki_step_watch(c, (ready & MKI_IN) != 0);
            }
            break;
        default:
            next = mki_step_watch(c, (ready & MKI_IN) != 0);
            break;
        }
    }
    if (next == MKI_STOP) {
        mki_conn_interest(s, c);
    } else {
        mki_conn_end(s, c, now, next == MKI_END_NOTIFY, next == MKI_END_RESET);
    }
}

static void mki_conn_due(mock_server *s, mki_conn *c, int64_t now)
{
    mki_timer(s, c, INT64_MAX);
    if (c->state == MKI_S_WAITING) {
        c->state = MKI_S_SENDING;
        mki_conn_drive(s, c, 0, now);
    } else {
        mki_conn_end(s, c, now, false, false);
    }
}

static void mki_accept(mock_server *s, int64_t now)
{
    uint64_t peer = 0;
    int fd;
    mki_conn *c;

    while ((fd = mki_sock_accept(s->listener, &peer)) >= 0) {
        if (s->n_conns == s->cap_heap) {
            size_t cap = s->cap_heap * 2 + 64;
            mki_conn **heap = (mki_conn **)realloc(s->heap, cap * sizeof *heap);

            if (heap == NULL) {
                mki_sock_close(fd, true);
                return;
            }
            s->heap = heap;
            s->cap_heap = cap;
        }
        c = (mki_conn *)calloc(1, sizeof *c);
        if (c == NULL || !mki_chan_open(&c->chan, s->tls, fd)) {
            if (c != NULL) {
                mki_chan_close(&c->chan, false, true);
            } else {
                mki_sock_close(fd, true);
            }
            free(c);
            return;
        }
        s->n_conns++;
        s->account.accepted++;
        c->id = ++s->conn_ids;
        c->peer = peer;
        c->heap_at = SIZE_MAX;
        c->interest = -1;
        c->content_fd = -1;
        c->rest_since = -1;
        c->plan.stale_ms = -1;
        c->state = s->tls != NULL ? MKI_S_SHAKING : MKI_S_READING;
        c->next = s->conns;
        if (s->conns != NULL) {
            s->conns->prev = c;
        }
        s->conns = c;
        mki_conn_drive(s, c, MKI_IN, now);
    }
    if (errno == EMFILE || errno == ENFILE) {
        /* until a connection ends; else the loop would spin */
        s->listening = s->conns == NULL;
        mki_poller_set(&s->poller, s->listener, s->listening ? MKI_IN : 0, s);
    }
}

/* ---- the loop ---- */

/* Handles what is ready within timeout_ms; false: nothing was. The lock is
 * held except for the waiting itself. */
static bool mki_turn(mock_server *s, int timeout_ms)
{
    mki_event events[256];
    int n;
    int i;
    int shakes = 0;
    int64_t now;
    bool any;

    if (timeout_ms != 0) {
        pthread_mutex_unlock(&s->mutex);
    }
    n = mki_poller_wait(&s->poller, timeout_ms, events, 256);
    if (timeout_ms != 0) {
        pthread_mutex_lock(&s->mutex);
    }
    now = mki_now(s);
    any = n > 0;
    for (i = 0; i < n; i++) {
        mki_conn *c = (mki_conn *)events[i].tag;

        if (events[i].tag == (void *)s) {
            mki_accept(s, now);
        } else if (c->state != MKI_S_SHAKING || shakes++ < MKI_SHAKES) {
            mki_conn_drive(s, c, events[i].ready, now);
        } /* else it is still ready in the next turn */
    }
    while (s->n_heap > 0 && s->heap[0]->due <= now) {
        mki_conn_due(s, s->heap[0], now);
        any = true;
    }
    return any;
}

static void *mki_loop(void *arg)
{
    mock_server *s = (mock_server *)arg;

    pthread_mutex_lock(&s->mutex);
    while (!s->stopping) {
        int64_t wait = -1;

        if (s->n_heap > 0) {
            wait = s->heap[0]->due - mki_now(s);
            wait = wait < 0 ? 0 : wait > 60000 ? 60000 : wait;
        }
        if (s->opt.clock_ms_fn != NULL && (wait < 0 || wait > 20)) {
            wait = 20; /* a clock of the user's may jump at any time */
        }
        if (s->log != NULL && wait != 0) {
            fflush(s->log);
        }
        mki_turn(s, (int)wait);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* ---- the public functions ---- */

static char *mki_take(const char **text, char *room)
{
    size_t len;

    if (*text == NULL) {
        return room;
    }
    len = strlen(*text) + 1;
    memcpy(room, *text, len);
    *text = room;
    return room + len;
}

/* Copies the options with all their texts. */
static bool mki_options_copy(mock_server *s, const mock_options *opt)
{
    const char **texts[9];
    size_t total = 1;
    size_t i;
    char *room;

    if (opt != NULL) {
        s->opt = *opt;
    }
    texts[0] = &s->opt.host;
    texts[1] = &s->opt.names;
    texts[2] = &s->opt.cert_file;
    texts[3] = &s->opt.key_file;
    texts[4] = &s->opt.api_key;
    texts[5] = &s->opt.reply;
    texts[6] = &s->opt.script;
    texts[7] = &s->opt.data_dir;
    texts[8] = &s->opt.log_file;
    if (s->opt.host == NULL) {
        s->opt.host = "127.0.0.1";
    }
    for (i = 0; i < 9; i++) {
        total += *texts[i] != NULL ? strlen(*texts[i]) + 1 : 0;
    }
    room = (char *)malloc(total);
    s->strings = room;
    for (i = 0; room != NULL && i < 9; i++) {
        room = mki_take(texts[i], room);
    }
    if (s->opt.max_body_bytes == 0 || s->opt.max_body_bytes > MKI_BUF_MAX / 2) {
        s->opt.max_body_bytes = (size_t)32 << 20;
    }
    return s->strings != NULL;
}

static bool mki_fault_add(mock_server *s, const char *spec, char *err,
                          size_t cap)
{
    mki_fault f;
    mki_fault *list;

    if (!mki_fault_parse(&f, spec, err, cap)) {
        return false;
    }
    list =
        (mki_fault *)realloc(s->faults.list, (s->faults.n + 1) * sizeof *list);
    if (list == NULL) {
        mki_err(err, cap, "out of memory", "");
        return false;
    }
    list[s->faults.n] = f;
    s->faults.list = list;
    s->faults.n++;
    return true;
}

static bool mki_start_reply(mock_server *s, char *err, size_t cap)
{
    const char *reply = s->opt.reply != NULL ? s->opt.reply : "echo";
    char *text = NULL;
    size_t len = 0;

    s->mode = strcmp(reply, "hash") == 0  ? MKI_HASH
              : strcmp(reply, "ner") == 0 ? MKI_NER
                                          : MKI_ECHO;
    if (s->opt.script != NULL) {
        text = mki_dup(s->opt.script);
    } else if (s->mode == MKI_ECHO && strcmp(reply, "echo") != 0) {
        text = mki_file_read(reply, &len);
        if (text == NULL) {
            mki_err(err, cap, "cannot read script %s", reply);
            return false;
        }
    }
    return text == NULL || mki_script_parse(&s->script, text, err, cap);
}

/* Takes up what an earlier server left, and never goes back in time. */
static bool mki_start_store(mock_server *s)
{
    int64_t newest = 0;
    size_t i;

    if (!mki_store_load(&s->store, s->opt.data_dir)) {
        return false;
    }
    for (i = 0; i < s->store.n_batches; i++) {
        const mki_batch *b = s->store.batches[i];

        newest = b->created_ms > newest ? b->created_ms : newest;
        newest = b->end_ms > newest ? b->end_ms : newest;
    }
    if (s->opt.unix_ms_fn == NULL && mki_unix(s) < newest) {
        s->unix_offset += newest - mki_unix(s);
    }
    return true;
}

static bool mki_start_files(mock_server *s, char *err, size_t cap)
{
    if (s->opt.data_dir != NULL && !mki_dir_make(s->opt.data_dir)) {
        mki_err(err, cap, "cannot make directory %s", s->opt.data_dir);
        return false;
    }
    if (s->opt.data_dir != NULL && !mki_start_store(s)) {
        mki_err(err, cap, "cannot read directory %s", s->opt.data_dir);
        return false;
    }
    if (s->opt.log_file != NULL) {
        s->log = fopen(s->opt.log_file, "ab");
        if (s->log == NULL) {
            mki_err(err, cap, "cannot write log %s", s->opt.log_file);
            return false;
        }
    }
    return true;
}

static bool mki_start_listening(mock_server *s, char *err, size_t cap)
{
    char number[24];
    bool v6 = strchr(s->opt.host, ':') != NULL;

    s->port = s->opt.port;
    s->listener = mki_sock_listen(s->opt.host, &s->port);
    if (s->listener < 0) {
        snprintf(number, sizeof number, "%d", s->opt.port);
        mki_err(err, cap,
                errno == EADDRINUSE ? "port %s is in use"
                                    : "cannot listen on port %s",
                number);
        return false;
    }
    snprintf(s->base_url, sizeof s->base_url, "%s://%s%.40s%s:%d/v1",
             s->tls != NULL ? "https" : "http", v6 ? "[" : "", s->opt.host,
             v6 ? "]" : "", s->port);
    s->listening = mki_poller_set(&s->poller, s->listener, MKI_IN, s);
    return s->listening;
}

static bool mki_start_limits(mock_server *s, char *err, size_t cap)
{
    static const char *const forms[MKI_RESET_FORMS] = {
        "go", "seconds", "unix", "rfc3339", "none", "minus1", "azure"};
    const char *form = s->opt.reset_form != NULL ? s->opt.reset_form : "go";
    int64_t now = mki_now(s);
    size_t i;

    for (i = 0; i < MKI_RESET_FORMS && strcmp(form, forms[i]) != 0; i++) {
    }
    if (i == MKI_RESET_FORMS) {
        mki_err(err, cap, "no such form of a reset: %s", form);
        return false;
    }
    s->reset_form = (mki_reset_form)i;
    s->opt.reset_form = NULL; /* the caller's */
    for (i = 0; i < MKI_LIMITS; i++) {
        s->limits[i].at = now;
    }
    s->opt.slice_ms = s->opt.slice_ms > 60000 ? 60000 : s->opt.slice_ms;
    mki_limits_set(s, now);
    s->account.all.at = now;
    s->account.mark.at = now;
    s->account.first_429 = -1;
    s->account.last_429 = -1;
    return true;
}

static bool mki_start(mock_server *s, char *err, size_t cap)
{
    size_t i;

    s->account.clients =
        (mki_client *)calloc(MKI_CLIENTS_MAX, sizeof(mki_client));
    if (s->account.clients == NULL || !mki_poller_init(&s->poller)) {
        mki_err(err, cap, "out of memory or file descriptors", "");
        return false;
    }
    s->has_poller = true;
    s->has_mutex = pthread_mutex_init(&s->mutex, NULL) == 0;
    s->account.expect_connections = s->opt.expect_connections;
    s->account.expect_repeats = s->opt.expect_repeats;
    s->faults.seed = s->opt.seed;
    s->unix_offset = mki_os_unix_ms() - mki_now(s);
    s->id_state = mki_mix(s->opt.seed ^ (uint64_t)mki_unix(s));
    s->row.content_fd = -1;
    s->store.limit_batch = MKI_BATCH_BYTES;
    s->store.limit_file = MKI_FILE_BYTES;
    s->batch_ms = s->opt.batch_seconds < 0     ? 0
                  : s->opt.batch_seconds > 1e9 ? (int64_t)1000000000000
                  : s->opt.batch_seconds > 0
                      ? (int64_t)(s->opt.batch_seconds * 1000 + 0.5)
                      : 1000;
    if (!mki_start_limits(s, err, cap)) {
        return false;
    }
    for (i = 0; i < s->opt.n_faults; i++) {
        if (!mki_fault_add(s, s->opt.faults[i], err, cap)) {
            return false;
        }
    }
    s->opt.faults = NULL;
    if (!s->has_mutex || !mki_start_reply(s, err, cap) ||
        !mki_start_files(s, err, cap)) {
        return false;
    }
    if (s->opt.tls || s->opt.cert_file != NULL) {
        s->tls = mki_tls_new(&s->opt, err, cap);
        if (s->tls == NULL) {
            return false;
        }
    }
    if (!mki_start_listening(s, err, cap)) {
        return false;
    }
    if (!s->opt.manual) {
        s->has_thread = mki_thread_start(&s->thread, mki_loop, s);
        if (!s->has_thread) {
            mki_err(err, cap, "cannot start a thread", "");
        }
    }
    return s->opt.manual || s->has_thread;
}

MOCK_API void mock_server_stop(mock_server *s)
{
    if (s == NULL) {
        return;
    }
    if (s->has_thread) {
        pthread_mutex_lock(&s->mutex);
        s->stopping = true;
        pthread_mutex_unlock(&s->mutex);
        mki_poller_wake(&s->poller);
        pthread_join(s->thread, NULL);
    }
    s->listening = true; /* nobody is to turn it on again */
    while (s->conns != NULL) {
        mki_conn_end(s, s->conns, mki_now(s), true, false);
    }
    if (s->listener >= 0) {
        close(s->listener);
    }
    if (s->has_poller) {
        mki_poller_deinit(&s->poller);
    }
    if (s->has_mutex) {
        pthread_mutex_destroy(&s->mutex);
    }
    if (s->log != NULL) {
        fclose(s->log);
    }
    mki_store_free(&s->store);
    mki_buf_free(&s->row.out);
    mki_tls_free(s->tls);
    mki_script_free(&s->script);
    mki_arena_reset(&s->arena, true);
    mki_buf_free(&s->body);
    mki_buf_free(&s->conv);
    mki_buf_free(&s->extra);
    mki_buf_free(&s->event);
    free(s->faults.list);
    free(s->account.bodies);
    free(s->account.clients);
    free(s->heap);
    free(s->strings);
    free(s);
}

MOCK_API bool mock_server_start(const mock_options *opt, mock_server **out,
                                char *err, size_t cap)
{
    mock_server *s = (mock_server *)calloc(1, sizeof *s);

    *out = NULL;
    mki_err(err, cap, "cannot start", "");
    if (s == NULL) {
        return false;
    }
    s->listener = -1;
    if (!mki_options_copy(s, opt) || !mki_start(s, err, cap)) {
        mock_server_stop(s);
        return false;
    }
    mki_err(err, cap, "", "");
    *out = s;
    return true;
}

MOCK_API int64_t mock_server_step(mock_server *s, bool *progress)
{
    bool any = false;
    int64_t due;

    pthread_mutex_lock(&s->mutex);
    while (mki_turn(s, 0)) {
        any = true;
    }
    due = s->n_heap > 0 ? s->heap[0]->due : INT64_MAX;
    pthread_mutex_unlock(&s->mutex);
    if (progress != NULL) {
        *progress = any;
    }
    return due;
}

MOCK_API const char *mock_server_base_url(const mock_server *s)
{
    return s->base_url;
}

MOCK_API int mock_server_port(const mock_server *s)
{
    return s->port;
}

MOCK_API const char *mock_server_ca_pem(const mock_server *s)
{
    return mki_tls_ca(s->tls);
}

static char *mki_buf_text(mki_buf *b)
{
    mki_buf_c(b, '\0');
    if (b->failed) {
        mki_buf_free(b);
        return NULL;
    }
    return b->data;
}

MOCK_API char *mock_server_stats(mock_server *s)
{
    mki_buf b = MKI_ZERO;

    pthread_mutex_lock(&s->mutex);
    mki_store_advance(s);
    mki_stats(s, &b);
    pthread_mutex_unlock(&s->mutex);
    return mki_buf_text(&b);
}

MOCK_API char *mock_server_report(mock_server *s)
{
    mki_buf b = MKI_ZERO;

    pthread_mutex_lock(&s->mutex);
    mki_store_advance(s);
    mki_report_now(s);
    mki_account_report(&s->account, &b);
    pthread_mutex_unlock(&s->mutex);
    return mki_buf_text(&b);
}

MOCK_API void mock_text_free(char *text)
{
    free(text);
}

MOCK_API int64_t mock_server_count(mock_server *s, const char *path)
{
    mki_arena arena = MKI_ZERO;
    char *text = mock_server_stats(s);
    mki_json *v = text != NULL ? mki_json_parse(&arena, mki_sc(text)) : NULL;
    int64_t n;

    while (v != NULL && *path != '\0') {
        char key[64];
        size_t len = strcspn(path, ".");

        mki_copy(key, sizeof key, mki_s(path, len));
        v = mki_get(v, key);
        path += len + (path[len] == '.' ? 1 : 0);
    }
    n = v != NULL && v->type == MKI_INT ? v->i : 0;
    mki_arena_reset(&arena, true);
    mock_text_free(text);
    return n;
}

MOCK_API int64_t mock_server_findings(mock_server *s, const char *code)
{
    int64_t n = 0;
    size_t i;

    pthread_mutex_lock(&s->mutex);
    mki_store_advance(s);
    mki_report_now(s);
    for (i = 0; i < MKI_R_LAST; i++) {
        if (code == NULL || strcmp(code, mki_code_name(i)) == 0) {
            n += s->account.findings[i];
        }
    }
    pthread_mutex_unlock(&s->mutex);
    return n;
}

MOCK_API void mock_server_reset(mock_server *s)
{
    pthread_mutex_lock(&s->mutex);
    mki_store_advance(s);
    mki_reset(s);
    pthread_mutex_unlock(&s->mutex);
}

MOCK_API void mock_server_advance(mock_server *s, int64_t ms)
{
    pthread_mutex_lock(&s->mutex);
    mki_skew(s, ms);
    pthread_mutex_unlock(&s->mutex);
}

MOCK_API void mock_server_limits(mock_server *s, int rpm, int64_t tpm)
{
    pthread_mutex_lock(&s->mutex);
    s->opt.rpm = rpm >= 0 ? rpm : s->opt.rpm;
    s->opt.tpm = tpm >= 0 ? tpm : s->opt.tpm;
    mki_limits_set(s, mki_now(s));
    pthread_mutex_unlock(&s->mutex);
}

MOCK_API void mock_server_mark(mock_server *s)
{
    pthread_mutex_lock(&s->mutex);
    mki_mark(s);
    pthread_mutex_unlock(&s->mutex);
}

MOCK_API bool mock_server_fault(mock_server *s, const char *spec, char *err,
                                size_t cap)
{
    bool ok = true;

    pthread_mutex_lock(&s->mutex);
    if (spec == NULL) {
        free(s->faults.list);
        s->faults.list = NULL;
        s->faults.n = 0;
    } else {
        ok = mki_fault_add(s, spec, err, cap);
    }
    pthread_mutex_unlock(&s->mutex);
    return ok;
}

#endif /* MOCK_OPENAI_IMPLEMENTATION_DONE */
#endif /* MOCK_OPENAI_IMPLEMENTATION */

/*
 * MIT License
 *
 * Copyright (c) 2026 The gptner.h authors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy
 * of this software and associated documentation files (the "Software"), to
 * deal in the Software without restriction, including without limitation the
 * rights to use, copy, modify, merge, publish, distribute, sublicense, and/or
 * sell copies of the Software, and to permit persons to whom the Software is
 * furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in
 * all copies or substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 * IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 * FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 * AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
 * LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING
 * FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS
 * IN THE SOFTWARE.
 */
