/* gptner.h - prompts in, answers out: OpenAI-compatible APIs from C. MIT.

One header. It sends one prompt or a million to an OpenAI-compatible API,
many at a time, or by the Batch API at half the price, over its own verified
HTTPS, and gives exactly one result for each: an answer, or a typed error.
Besides the C library it needs mbedTLS (2.28, 3.6 or 4.x).

A COMPLETE PROGRAM (examples/hello.c)

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

    cc hello.c -lmbedtls -lmbedx509 -lmbedcrypto -lpthread
    OPENAI_API_KEY=... ./a.out

Define GPTNER_IMPLEMENTATION in exactly one file of a program, before its
first #include; the other files include the header alone. More programs:
examples/parallel.c (many prompts), stream.c (an answer while it is being
written), conversation.c, raw.c (any request), and the command line program
batch_processing_example.c (from file to file).

CONTENTS. The interface comes first and ends at "end of the interface". The
implementation follows in layers, each calling only those above it in this
list. Search for the tag.

    >>platform  layer 1   memory, clock, threads, sockets, files, random
    >>bytes     layer 2   buffer, arena, views, UTF-8, base64, numbers, texts
    >>json      layer 3   strict reader, document, writer
    >>stream    layer 4   names, TCP, TLS by mbedTLS, the user's transport
    >>http      layer 5   URL, request writer, response parser, SSE, multipart
    >>pace      layer 6   what is retried, when, and the gate of all workers
    >>pool      layer 7   workers driven by threads, ordered results, progress
    >>api       layer 8   client, request bodies, replies, runs, raw requests
    >>batch     layer 9   batch files, submission, results, the durable job
    >>ner       layer 10  labels, answers, data, scores, demonstrations

WHAT TO CALL

    gptner_client_new, _free    a server, an account, open connections
    gptner_ask                  one question
    gptner_chat                 one prompt with all that belongs to it
    gptner_chat_stream          the same, piece by piece
    gptner_run                  many prompts: array, file or iterator
    gptner_embed                vectors of texts
    gptner_models_list          what the account may use
    gptner_raw                  any other request
    gptner_job_run              many prompts by the Batch API, at half the price
    gptner_batch_...            its steps one by one
    gptner_json_...             reader and writer, useful alone

Every configuration works when it is all zero: zero is the default of each
field, and its comment says which. In C:

    gptner_config config = {.max_workers = 20, .timeout_ms = 30000};

In C++ before C++20: gptner_config config = {}; config.max_workers = 20;

OPTIONS. Macros, to be defined before the header is included. They change
neither a struct nor a signature; what was compiled out returns
GPTNER_ERR_UNSUPPORTED.

    GPTNER_IMPLEMENTATION   this file holds the implementation
    GPTNER_STATIC           all functions are static: the library is private
                            to the file
    GPTNER_API              linkage of the functions, e.g. a dllexport
    GPTNER_NO_TLS           no mbedTLS: http URLs only, and https by a
                            transport of your own
    GPTNER_NO_THREADS       no threads: requests still run in parallel, all
                            driven by the calling thread; resolving a name
                            then blocks
    GPTNER_NO_BATCH         without the Batch API
    GPTNER_NO_NER           without named-entity recognition
    GPTNER_NO_COST          without prices, budgets and estimates of a run
    GPTNER_NO_STORE         without the journal of parallel runs and without
                            the cache of answers
    GPTNER_MALLOC(size), GPTNER_REALLOC(ptr, size), GPTNER_FREE(ptr)
                            default memory functions: all three or none
    GPTNER_ASSERT(cond)     checks of our own invariants; default: none
    GPTNER_FAULT_INJECTION  for tests: see the prologue

MEMORY AND OWNERSHIP

- gptner_x_new() and every out-parameter that is a pointer give something
  that is ended by gptner_x_free(). All strings in it die with it. NULL may
  be freed. After a failure out-parameters are NULL or zero, unless the
  function's comment says that the result explains the failure.
- What a callback is given dies when the callback returns. Copy what you
  want to keep.
- Text is a gptner_str: pointer and length, not NUL-terminated. Print it
  with printf("%.*s", (int)text.len, text.ptr). ptr NULL means "none".
- A config is copied by gptner_client_new(), strings and all. Prompts and
  run configs are borrowed for the time of the call.
- The client's allocator (or the macros above) provides all memory but that
  of mbedTLS. It may fail at any time: the call then ends with
  GPTNER_ERR_NO_MEMORY, and nothing leaks.
- A run that streams, from a file or iterator into a file or callback, needs
  memory for its workers and for the results that wait for an earlier one
  (max_ahead), however many prompts there are.

THREADS AND CANCELLATION

- A client may be used by several threads at once; a result, a document or a
  config by one at a time. Clients share nothing.
- gptner_run() drives its workers by a few threads, and has ended them when
  it returns. Callbacks run in one of them, one call at a time and under no
  lock, so they may use the client. They delay the run while they last.
- gptner_client_cancel() ends all calls on the client, at once. It may be
  called from any thread and from a signal handler. A run that is cancelled
  hands over what it has: each prompt that was read has its result.
- Every wait has a limit: see the times in gptner_config.
- If mbedTLS was built without threading (as OpenWrt and some boards do), the
  library takes one lock around every call to it. It cannot keep other users
  of mbedTLS in the same process out.

ERRORS

- What can fail returns a gptner_status; 0 is GPTNER_OK. The gptner_error
  that comes last in the call may be NULL; its message says what failed, on
  what, why, and what to do about it.
- In a run, the status of each result is what became of its prompt. The run
  itself fails only when going on is pointless: bad key, no quota, unreadable
  input, cancelled, out of time.
- Retried are failures that may pass: lost connections, HTTP 408, 409, 429
  and 5xx, and replies that make no sense. The wait is the one that the server
  asks for, else it grows from backoff_ms to max_backoff_ms with some chance
  in it. A 429 slows down all workers. HTTP 400, 401, 403, 404 and an empty
  account are not retried.
- A request may reach the server and its reply be lost. Then it is sent again,
  which can cost twice; raw requests can forbid that (no_retry).
- An answer is GPTNER_OK only if it is whole: one that was cut off by
  max_tokens is GPTNER_ERR_TRUNCATED, with the text that there was.

THE BATCH API

- Half the price, answers within a day. A batch has at most 50,000 requests and
  200 MB; gptner_batch_create_file() and gptner_job_run() split what is more.
- gptner_job_run() does it all and may be killed at any instant. Called again
  with the same arguments it goes on: OUT.job, beside the output OUT, is its
  journal. Each step that costs money stands there, synced, before it is taken.
  Creating a batch is not repeatable at the server, so after any doubt (a lost
  reply, a crash) it is looked for by what we put into its metadata.
- Answers come in the order of the prompts, one result for each, whatever the
  server's files hold: rows in another order, twice, of strangers, malformed,
  or none at all. A batch that expired or was cancelled gives what it has.
- Of a follow-up that is sent in parallel (GPTNER_RETRY_PARALLEL) a power cut
may lose up to 64 answers and the requests in flight, which are then paid again.
- Uploads and downloads take as long as they move: timeout_ms does not bound
  them, gap_timeout_ms and item_timeout_ms (an hour) do.

SECURITY

- Verified: the server's certificate chain and its name (or IP address), in
  every connection, unless insecure_skip_verify is set. TLS 1.2 or 1.3.
  There is no fall-back to http. Certificates are not checked for revocation.
- Trusted, in this order: ca_pem, ca_file and ca_dir of the config; the
  variables SSL_CERT_FILE and SSL_CERT_DIR; the first bundle found in the
  known places of the system; on Windows its certificate store. What is named
  but cannot be read is an error, and the error says what was tried.
- The key goes to the host of the base URL alone, and not along with a
  redirect to another. It is in no log line, no error text and no result, and
  its memory is wiped. Prompts and answers are logged at GPTNER_LOG_DEBUG
  only, and only if log_fn is set.
- Proxies: config.proxy, else the variables https_proxy, HTTPS_PROXY,
  all_proxy, ALL_PROXY for https, and http_proxy (small letters only),
  all_proxy, ALL_PROXY for http; no_proxy and NO_PROXY name exceptions. An
  https connection goes through the proxy by CONNECT, encrypted end to end.
  Only http proxies, with basic authentication. proxy "" uses none.
- Environment variables are ignored in set-uid programs.
- Bounded, and by which field:

    body of a reply            max_body_bytes     64 MiB
    status line and headers    max_head_bytes     256 KiB
    number of headers          max_headers        2048
    nesting of JSON            max_depth          512
    resolve and connect        connect_timeout_ms, handshake_timeout_ms
    waiting for a reply        first_byte_timeout_ms, gap_timeout_ms
    an attempt, a prompt, run  timeout_ms, item_timeout_ms, run.timeout_ms
    retries                    max_retries, max_throttle_retries,
                               max_bad_reply_retries
    a server's own delay       max_retry_after_ms 2 minutes
    prompts begun ahead        max_ahead          1024 or 8 a worker

- What cannot be sent safely (a line break in a header, a control character
  in a path) is refused with GPTNER_ERR_INVALID_ARGUMENT.

THE PROCESS IS YOURS. The library never exits, aborts, prints (but for
gptner_progress_bar, on request), installs a signal handler, raises SIGPIPE
or changes the locale. It has no global state but the lock that mbedTLS needs.

LIMITS, AND WHAT IT DOES NOT DO

- HTTP/1.1 only, one request at a time on a connection; no HTTP/2, no
  compression, no cookies, no SOCKS.
- It does not count tokens before it sends, and does not cut prompts to fit;
  the Batch API's limits are kept by an estimate (bytes of a request / 3).
- Tools are passed through as JSON, not called.
- Named-entity recognition by prompting is to come; the layers that carry it
  are these.
- mbedTLS cannot use CA certificates with critical name constraints and does
  not fetch missing intermediate certificates.

CHANGES. 0.1.0: first version. CHANGELOG.md has them all.
*/
#if defined(GPTNER_IMPLEMENTATION) && defined(__linux__) && \
    !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#if defined(GPTNER_IMPLEMENTATION) && !defined(_FILE_OFFSET_BITS)
#define _FILE_OFFSET_BITS 64
#endif

#ifndef GPTNER_H
#define GPTNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---------------------------------------------------------------------------
 * version and linkage
 * ------------------------------------------------------------------------ */
#define GPTNER_VERSION_MAJOR 0
#define GPTNER_VERSION_MINOR 1
#define GPTNER_VERSION_PATCH 0
#define GPTNER_VERSION       "0.1.0"

/* GPTNER_STATIC makes every function of the library private to the file that
 * implements it. GPTNER_API may be defined by the user, e.g. as dllexport. */
#ifndef GPTNER_API
#ifdef GPTNER_STATIC
#if defined(__GNUC__) || defined(__clang__)
#define GPTNER_API static __attribute__((unused))
#else
#define GPTNER_API static
#endif
#else
#define GPTNER_API extern
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the implementation, "MAJOR.MINOR.PATCH". Any thread. */
GPTNER_API const char *gptner_version(void);

/* ---------------------------------------------------------------------------
 * status and errors
 * ------------------------------------------------------------------------ */

/* name, value (never reused), text. */
/* clang-format off */
#define GPTNER_ERROR_LIST(X)                                                   \
    X(NO_MEMORY,          1, "out of memory")                                  \
    X(INVALID_ARGUMENT,   2, "invalid argument")                               \
    X(UNSUPPORTED,        3, "not supported by this build or server")          \
    X(FILE,               4, "file operation failed")                          \
    X(LIMIT,              5, "a configured limit was exceeded")                \
    X(JSON,               6, "not valid JSON")                                 \
    X(THREAD,             7, "could not start a thread")                       \
    X(CONFIG,             8, "invalid configuration")                          \
    X(TIMEOUT,           10, "timed out")                                      \
    X(CANCELLED,         11, "cancelled")                                      \
    X(RESOLVE,           12, "host name not resolved")                         \
    X(CONNECT,           13, "could not connect")                              \
    X(CONNECTION_LOST,   14, "connection lost")                                \
    X(TLS,               15, "TLS failed")                                     \
    X(CERTIFICATE,       16, "server certificate refused")                     \
    X(CA,                17, "no usable CA certificates")                      \
    X(PROXY,             18, "proxy failed")                                   \
    X(PROTOCOL,          19, "malformed HTTP")                                 \
    X(RATE_LIMITED,      20, "rate limited by the server")                     \
    X(QUOTA,             21, "account has no quota left")                      \
    X(AUTH,              22, "API key refused")                                \
    X(PERMISSION,        23, "permission denied")                              \
    X(NOT_FOUND,         24, "not found")                                      \
    X(BAD_REQUEST,       25, "request refused by the server")                  \
    X(CONTEXT_LENGTH,    26, "prompt longer than the model's context")         \
    X(SERVER,            27, "server error")                                   \
    X(HTTP,              28, "unexpected HTTP status")                         \
    X(REDIRECT,          29, "redirect not followed")                          \
    X(BAD_REPLY,         30, "reply could not be understood")                  \
    X(REFUSED,           31, "refused by the model")                           \
    X(FILTERED,          32, "stopped by the content filter")                  \
    X(TRUNCATED,         33, "answer cut off by the token limit")              \
    X(TOO_LARGE,         34, "request larger than the rate limit allows")      \
    X(BUDGET,            35, "budget used up")                                 \
    X(NOT_SENT,          40, "not sent")                                       \
    X(EXPIRED,           41, "expired before it was answered")                 \
    X(MISSING,           42, "not among the results")                          \
    X(NOT_FINISHED,      43, "batch has not ended yet")                        \
    X(BATCH_FAILED,      44, "batch failed the server's check")                \
    X(BATCH_INVALID,     45, "batch file is not valid")                        \
    X(BUSY,              46, "in use by another process")                      \
    X(CHANGED,           47, "differs from what was begun")
/* clang-format on */

typedef enum gptner_status {
    GPTNER_OK = 0,
#define GPTNER_X(name, value, text) GPTNER_ERR_##name = value,
    GPTNER_ERROR_LIST(GPTNER_X)
#undef GPTNER_X
        GPTNER_STATUS_LAST = 0x7fff /* widens the type; never returned */
} gptner_status;

/* Why a call failed. Plain data; the caller owns it. */
typedef struct gptner_error {
    gptner_status status;   /* the value the function returned */
    int http_status;        /* 0 when no response arrived */
    int64_t retry_after_ms; /* -1 when the server named no delay */
    char message[384];      /* for a person; UTF-8; never holds a secret */
} gptner_error;

/* "timed out" and "GPTNER_ERR_TIMEOUT" for a status; never NULL. Any thread. */
GPTNER_API const char *gptner_status_text(gptner_status status);
GPTNER_API const char *gptner_status_name(gptner_status status);

/* ---------------------------------------------------------------------------
 * small types
 * ------------------------------------------------------------------------ */

/* Text that somebody else owns: len bytes at ptr, not NUL-terminated. ptr NULL
 * means "none", which differs from the empty text where that matters. */
typedef struct gptner_str {
    const char *ptr;
    size_t len;
} gptner_str;

/* A view of a C string; NULL gives the none view. */
GPTNER_API gptner_str gptner_str_from(const char *text);

/* The memory functions of a client. All three or none; user is handed back.
 * They must be callable from several threads at once. realloc_fn is never
 * called with size 0 or a NULL pointer. */
typedef struct gptner_allocator {
    void *(*alloc_fn)(size_t size, void *user);
    void *(*realloc_fn)(void *ptr, size_t size, void *user);
    void (*free_fn)(void *ptr, void *user);
    void *user;
} gptner_allocator;

/* Time and chance, for tests and for systems without a usable clock. Any
 * member may be NULL: then the operating system is asked. */
typedef struct gptner_hooks {
    /* Monotonic time in milliseconds from any start; never runs backwards. */
    int64_t (*monotonic_ms_fn)(void *user);
    /* Milliseconds since 1970-01-01 UTC. */
    int64_t (*unix_ms_fn)(void *user);
    /* 64 random bits for jitter and boundaries (TLS has its own source). */
    uint64_t (*random_fn)(void *user);
    /* Called by a thread that has nothing to do before until_ms (monotonic;
     * INT64_MAX: no limit) unless a socket becomes ready. Returns true when it
     * has dealt with the time itself: the engine then only looks whether a
     * socket is ready, without waiting, and goes on. With a virtual clock this
     * is the place that advances it. false: wait as usual. */
    bool (*wait_fn)(int64_t now_ms, int64_t until_ms, void *user);
    void *user;
} gptner_hooks;

typedef enum gptner_log_level {
    GPTNER_LOG_ERROR = 1,
    GPTNER_LOG_WARN,
    GPTNER_LOG_INFO,
    GPTNER_LOG_DEBUG
} gptner_log_level;

/* One complete line without its end. May be called from any thread of the
 * client, never under a lock. Holds no prompt text above GPTNER_LOG_DEBUG and
 * no secret at any level. */
typedef void (*gptner_log_fn)(gptner_log_level level, const char *text,
                              void *user);

typedef struct gptner_header {
    const char *name;
    const char *value;
} gptner_header;

/* ---------------------------------------------------------------------------
 * JSON (RFC 8259); useful alone, needs no client
 *
 * Three tools: a document (read all, look up what you want), a pull reader
 * (one pass, no memory of its own) and a writer. The two readers accept the
 * same language: RFC 8259 without any extension, in valid UTF-8, with at most
 * one byte-order mark in front. A text has one value and white space around.
 *
 * Numbers keep their text. As a double they are correctly rounded; beyond
 * binary64 they read as the infinity of their sign or as 0, never as an error.
 * NaN and Infinity are not JSON: readers and writer refuse them.
 * Of equal keys in one object the last wins in look-ups; iteration and the
 * pull reader show all. Strings may hold U+0000, hence pointer and length. An
 * escape that is half a surrogate pair becomes U+FFFD, unless refused.
 * ------------------------------------------------------------------------ */

/* Nesting of arrays and objects: what is meant by 0, and the most that can be
 * asked for. */
#define GPTNER_JSON_DEPTH_DEFAULT 512
#define GPTNER_JSON_DEPTH_MAX     1024

typedef struct gptner_json_options {
    size_t max_depth; /* 0: 512; at most 1024 */
    /* Memory of one document, its copy of the text included; 0: 1 GiB. The
     * pull reader needs none. */
    size_t max_bytes;
    bool refuse_lone_surrogates;       /* an error instead of U+FFFD */
    const gptner_allocator *allocator; /* NULL: GPTNER_MALLOC and friends */
} gptner_json_options;

/* Where and why reading failed. message is static text, never NULL. */
typedef struct gptner_json_error {
    gptner_status status; /* GPTNER_ERR_JSON, _LIMIT, _NO_MEMORY, ... */
    size_t offset;        /* of the offending byte; the length at the end */
    size_t line;          /* from 1; lines end with LF */
    size_t column;        /* from 1; in bytes */
    const char *message;
} gptner_json_error;

typedef enum gptner_json_type {
    GPTNER_JSON_NONE = 0, /* there is no value */
    GPTNER_JSON_NULL,
    GPTNER_JSON_BOOL,
    GPTNER_JSON_NUMBER,
    GPTNER_JSON_STRING,
    GPTNER_JSON_ARRAY,
    GPTNER_JSON_OBJECT
} gptner_json_type;

/* --- document ------------------------------------------------------------
 * A value is a pointer into the document and lives as long as it. Every
 * function below takes NULL for a value: "not there" has type NONE, size 0, no
 * members, and fits no getter. So look-ups chain without checks:
 *     gptner_json_get_int64(gptner_json_path(root, "usage.total_tokens"), &n)
 * A document never changes; any number of threads may read it. */
typedef struct gptner_json_doc gptner_json_doc;
typedef struct gptner_json_value gptner_json_value;

/* Read len bytes of text, which is copied. opt may be NULL for the defaults,
 * err may be NULL. On success *out is owned by the caller; end it with
 * gptner_json_doc_free(). On failure *out is NULL and err holds the reason.
 * Any thread. */
GPTNER_API gptner_status gptner_json_parse(const char *text, size_t len,
                                           const gptner_json_options *opt,
                                           gptner_json_doc **out,
                                           gptner_json_error *err);

/* Frees the document and all values and strings in it. NULL is fine. */
GPTNER_API void gptner_json_doc_free(gptner_json_doc *doc);

/* The value that the text consists of. NULL only for doc NULL. */
GPTNER_API const gptner_json_value *
gptner_json_root(const gptner_json_doc *doc);

GPTNER_API gptner_json_type gptner_json_type_of(const gptner_json_value *value);

/* Items of an array, members of an object (equal keys counted each), bytes of
 * a string; else 0. */
GPTNER_API size_t gptner_json_size(const gptner_json_value *value);

/* A member by key, or NULL. Time grows with the size of the object. */
GPTNER_API const gptner_json_value *
gptner_json_find(const gptner_json_value *object, const char *key);
GPTNER_API const gptner_json_value *
gptner_json_find_str(const gptner_json_value *object, gptner_str key);

/* An item of an array by index from 0, or NULL. Time grows with the index:
 * to visit all items use an iterator. */
GPTNER_API const gptner_json_value *
gptner_json_at(const gptner_json_value *array, size_t index);

/* A value further down, or NULL: keys parted by '.', indices in brackets, as in
 * "choices[0].message.content"; "" is the value itself. Keys that hold '.' or
 * '[' need gptner_json_find(). */
GPTNER_API const gptner_json_value *
gptner_json_path(const gptner_json_value *value, const char *path);

/* Visit the children of an array or object in the order of the text:
 *     gptner_json_iter it = gptner_json_iterate(object);
 *     while (gptner_json_iter_next(&it))
 *         use(it.key, it.value);
 */
typedef struct gptner_json_iter {
    gptner_str key; /* of the member; none in an array */
    const gptner_json_value *value;
    const gptner_json_value *next; /* private */
    size_t left;                   /* private */
    bool is_object;                /* private */
} gptner_json_iter;
GPTNER_API gptner_json_iter gptner_json_iterate(const gptner_json_value *value);
GPTNER_API bool gptner_json_iter_next(gptner_json_iter *it);

/* Getters: true if the value is of that kind and fits exactly, else *out is
 * zero (false, the none view). An integer may be written 10, 10.0 or 1e1. A
 * double takes any number, rounded; see above for those too large. str is
 * decoded and has a '\0' after its end; number is the text of a number. */
GPTNER_API bool gptner_json_get_bool(const gptner_json_value *value, bool *out);
GPTNER_API bool gptner_json_get_int64(const gptner_json_value *value,
                                      int64_t *out);
GPTNER_API bool gptner_json_get_uint64(const gptner_json_value *value,
                                       uint64_t *out);
GPTNER_API bool gptner_json_get_double(const gptner_json_value *value,
                                       double *out);
GPTNER_API bool gptner_json_get_str(const gptner_json_value *value,
                                    gptner_str *out);
GPTNER_API bool gptner_json_get_number(const gptner_json_value *value,
                                       gptner_str *out);

/* A string as C string, or otherwise (which may be NULL) if it is none or
 * holds U+0000. Lives as long as the document. */
GPTNER_API const char *gptner_json_get_cstr(const gptner_json_value *value,
                                            const char *otherwise);

/* --- pull reader -----------------------------------------------------------
 * One pass over a whole text in memory without allocating anything:
 *
 *     gptner_json_reader_init_in_place(&r, text, len, NULL);
 *     if (gptner_json_enter_object(&r)) {
 *         while (gptner_json_next_key(&r, &key)) {
 *             if (strcmp(key.ptr, "id") == 0)
 *                 gptner_json_read_str(&r, &id);
 *             else if (strcmp(key.ptr, "data") == 0 &&
 *                      gptner_json_enter_array(&r))
 *                 while (gptner_json_next_item(&r))
 *                     gptner_json_read_double(&r, &data[n++]);
 *         }
 *     }
 *     status = gptner_json_reader_finish(&r, &err);
 *
 * - What is not read is skipped by the next call, at full validation.
 * - A read (or enter) that meets a value of another kind skips it, gives false
 *   and zero, and the loop goes on: answers of servers vary. Ask
 *   gptner_json_peek() first where the kind matters.
 * - The first error in the text latches: every later call gives false, all
 *   loops end, and gptner_json_reader_finish() says what and where. Only when
 *   it returns GPTNER_OK was the text JSON as a whole.
 * One reader, one thread; it may be copied to remember a place, unless it
 * decodes in place. */
typedef struct gptner_json_reader {
    gptner_json_error error; /* status GPTNER_OK: none so far */
    size_t depth;            /* arrays and objects now open */
    /* private: */
    const char *text, *pos, *end, *line_start;
    char *edit; /* text, when it may be written to */
    char *scratch;
    size_t scratch_size, line, max_depth;
    int state;
    bool refuse_lone;
    uint32_t nest[GPTNER_JSON_DEPTH_MAX / 32]; /* a bit a level: object */
} gptner_json_reader;

/* Read len bytes at text, which stay as they are and must outlive the reader
 * and the views it gives. A string (or key) with escapes needs room to be
 * decoded: see gptner_json_reader_scratch(). opt may be NULL. */
GPTNER_API void gptner_json_reader_init(gptner_json_reader *r, const char *text,
                                        size_t len,
                                        const gptner_json_options *opt);

/* The same, but strings that are read are decoded where they stand and get a
 * '\0' after their end in place of the quote: all views stay good as long as
 * the text, which afterwards is no JSON any more. */
GPTNER_API void
gptner_json_reader_init_in_place(gptner_json_reader *r, char *text, size_t len,
                                 const gptner_json_options *opt);

/* Room for decoding without gptner_json_reader_init_in_place(). Each string or
 * key with an escape overwrites the one before; one that does not fit latches
 * GPTNER_ERR_LIMIT. The view is never longer than its text between quotes. */
GPTNER_API void gptner_json_reader_scratch(gptner_json_reader *r, char *room,
                                           size_t size);

/* The kind of the value that is next to be read; NONE if none is: at the end,
 * after a value before next_key or next_item, and after an error. */
GPTNER_API gptner_json_type gptner_json_peek(gptner_json_reader *r);

/* Enter the next value if it is an object (array). Then call next_key
 * (next_item) until it returns false; or leave early. */
GPTNER_API bool gptner_json_enter_object(gptner_json_reader *r);
GPTNER_API bool gptner_json_enter_array(gptner_json_reader *r);

/* Go to the next member (item) of the innermost object (array), past what was
 * not read of the one before. false: there is none, and the object (array) has
 * been left; or an error. In the wrong kind of container it latches
 * GPTNER_ERR_INVALID_ARGUMENT. */
GPTNER_API bool gptner_json_next_key(gptner_json_reader *r, gptner_str *key);
GPTNER_API bool gptner_json_next_item(gptner_json_reader *r);

/* Go to the next member whose key is in names (closed by NULL), past all
 * others. *which is its index; at false it is the number of names. */
GPTNER_API bool gptner_json_next_member(gptner_json_reader *r,
                                        const char *const *names,
                                        size_t *which);

/* Skip what is left of the innermost object or array and leave it. */
GPTNER_API void gptner_json_leave(gptner_json_reader *r);

/* Read the next value; see the getters of the document for what fits. */
GPTNER_API bool gptner_json_read_str(gptner_json_reader *r, gptner_str *out);
GPTNER_API bool gptner_json_read_int64(gptner_json_reader *r, int64_t *out);
GPTNER_API bool gptner_json_read_uint64(gptner_json_reader *r, uint64_t *out);
GPTNER_API bool gptner_json_read_double(gptner_json_reader *r, double *out);
GPTNER_API bool gptner_json_read_bool(gptner_json_reader *r, bool *out);
GPTNER_API bool gptner_json_read_null(gptner_json_reader *r);

/* The text of the next value of any kind, as it stands, fully validated; of a
 * number its text, of a string with its quotes. Nothing in it is decoded. */
GPTNER_API bool gptner_json_read_raw(gptner_json_reader *r, gptner_str *out);

/* Skip the next value, fully validated. */
GPTNER_API bool gptner_json_skip(gptner_json_reader *r);

/* Skip and validate all that is left, to the end of the text. Returns
 * r->error.status; err may be NULL. */
GPTNER_API gptner_status gptner_json_reader_finish(gptner_json_reader *r,
                                                   gptner_json_error *err);

/* --- writer ----------------------------------------------------------------
 * Text grows in memory, or goes out through a callback piece by piece. Commas,
 * colons and quotes come by themselves:
 *
 *     gptner_json_write_object(w);
 *     gptner_json_put_string(w, "model", "gpt-4o-mini");
 *     gptner_json_put_array(w, "stop");
 *     gptner_json_write_string(w, "\n");
 *     gptner_json_write_end(w);
 *     gptner_json_write_end(w);
 *     status = gptner_json_writer_finish(w, &text);
 *
 * The first failure latches, later calls do nothing: no call needs a check but
 * the last. Failures: no memory, a limit, a value where none or a key is due
 * (GPTNER_ERR_INVALID_ARGUMENT), a number that is not finite, raw text that is
 * not JSON, and what the callback refused. One writer, one thread. */
typedef struct gptner_json_writer gptner_json_writer;

typedef struct gptner_json_writer_options {
    int indent;      /* spaces a level, at most 16; 0: compact, in one line */
    bool ascii_only; /* everything beyond ASCII as \u escapes */
    /* Text that is not UTF-8 is an error instead of getting U+FFFD for each
     * bad part. */
    bool refuse_invalid_utf8;
    bool trust_raw;   /* write_raw takes its text as it stands, unchecked */
    size_t max_bytes; /* of the text in memory; 0: 1 GiB */
    /* If set: gets the text in pieces of a few KiB, in order; false latches
     * GPTNER_ERR_CANCELLED. Then little is held in memory. */
    bool (*write_fn)(const char *data, size_t len, void *user);
    void *write_user;
    const gptner_allocator *allocator; /* NULL: GPTNER_MALLOC and friends */
} gptner_json_writer_options;

/* Make a writer; opt may be NULL. End it with gptner_json_writer_free(). On
 * failure *out is NULL. */
GPTNER_API gptner_status gptner_json_writer_new(
    const gptner_json_writer_options *opt, gptner_json_writer **out);
GPTNER_API void gptner_json_writer_free(gptner_json_writer *w);

/* Begin a new text, whatever the state; memory is kept. */
GPTNER_API void gptner_json_writer_reset(gptner_json_writer *w);

/* End the text: fails if it is not one whole value. *out (may be NULL) is the
 * text, good until the next call with w and with a '\0' after its end; with a
 * callback, which gets the last piece now, it is the none view. */
GPTNER_API gptner_status gptner_json_writer_finish(gptner_json_writer *w,
                                                   gptner_str *out);

/* The latched failure, GPTNER_OK if none; and what it was, never NULL. */
GPTNER_API gptner_status gptner_json_writer_status(const gptner_json_writer *w);
GPTNER_API const char *gptner_json_writer_message(const gptner_json_writer *w);

/* Open an object or array; write_end closes the innermost. */
GPTNER_API void gptner_json_write_object(gptner_json_writer *w);
GPTNER_API void gptner_json_write_array(gptner_json_writer *w);
GPTNER_API void gptner_json_write_end(gptner_json_writer *w);

/* The key of the member whose value is written next. */
GPTNER_API void gptner_json_write_key(gptner_json_writer *w, const char *key);
GPTNER_API void gptner_json_write_key_str(gptner_json_writer *w,
                                          gptner_str key);

/* One value. A NULL string or none view is written as null. Doubles get the
 * fewest digits that read back as the same. raw is one JSON value, of which
 * only the white space between tokens is dropped (so that a line stays a
 * line); value is copied from a document. */
GPTNER_API void gptner_json_write_string(gptner_json_writer *w,
                                         const char *text);
GPTNER_API void gptner_json_write_str(gptner_json_writer *w, gptner_str text);
GPTNER_API void gptner_json_write_int64(gptner_json_writer *w, int64_t number);
GPTNER_API void gptner_json_write_uint64(gptner_json_writer *w,
                                         uint64_t number);
GPTNER_API void gptner_json_write_double(gptner_json_writer *w, double number);
GPTNER_API void gptner_json_write_bool(gptner_json_writer *w, bool truth);
GPTNER_API void gptner_json_write_null(gptner_json_writer *w);
GPTNER_API void gptner_json_write_raw(gptner_json_writer *w, gptner_str json);
GPTNER_API void gptner_json_write_value(gptner_json_writer *w,
                                        const gptner_json_value *value);

/* A string made of parts: begin, any number of parts, end. UTF-8 may be cut
 * anywhere between parts. */
GPTNER_API void gptner_json_write_str_begin(gptner_json_writer *w);
GPTNER_API void gptner_json_write_str_part(gptner_json_writer *w,
                                           gptner_str part);
GPTNER_API void gptner_json_write_str_end(gptner_json_writer *w);

/* Key and value in one call. */
GPTNER_API void gptner_json_put_object(gptner_json_writer *w, const char *key);
GPTNER_API void gptner_json_put_array(gptner_json_writer *w, const char *key);
GPTNER_API void gptner_json_put_string(gptner_json_writer *w, const char *key,
                                       const char *text);
GPTNER_API void gptner_json_put_str(gptner_json_writer *w, const char *key,
                                    gptner_str text);
GPTNER_API void gptner_json_put_int64(gptner_json_writer *w, const char *key,
                                      int64_t number);
GPTNER_API void gptner_json_put_uint64(gptner_json_writer *w, const char *key,
                                       uint64_t number);
GPTNER_API void gptner_json_put_double(gptner_json_writer *w, const char *key,
                                       double number);
GPTNER_API void gptner_json_put_bool(gptner_json_writer *w, const char *key,
                                     bool truth);
GPTNER_API void gptner_json_put_null(gptner_json_writer *w, const char *key);
GPTNER_API void gptner_json_put_raw(gptner_json_writer *w, const char *key,
                                    gptner_str json);

/* ---------------------------------------------------------------------------
 * transport of the user's own                                     >>stream
 * ------------------------------------------------------------------------ */

/* Replaces TCP (and, if is_secure, TLS) for a program that has its own way to
 * the server. All functions may block, but not beyond timeout_ms; each worker
 * then gets a thread of its own, and they must be callable from several
 * threads (one connection is used by one thread at a time).
 * connect_fn: 0 and *conn set, or a negative number.
 * send_fn, recv_fn: bytes moved (more than 0), 0 at the end of the stream
 * (recv_fn), or negative: -1 failed, -2 timed out. */
typedef struct gptner_transport {
    int (*connect_fn)(const char *host, int port, int timeout_ms, void **conn,
                      void *user);
    int (*send_fn)(void *conn, const char *data, size_t len, int timeout_ms);
    int (*recv_fn)(void *conn, char *data, size_t cap, int timeout_ms);
    void (*close_fn)(void *conn);
    bool is_secure; /* true: the transport verifies and encrypts by itself;
                       false: an https URL runs our TLS above it */
    void *user;
} gptner_transport;

/* ---------------------------------------------------------------------------
 * configuration                                                   >>api
 * ------------------------------------------------------------------------ */

/* Negative values of a gptner_options number mean "do not send". */
#define GPTNER_OMIT (-1000)

typedef enum gptner_endpoint {
    GPTNER_ENDPOINT_AUTO = 0, /* by the table of models */
    GPTNER_ENDPOINT_CHAT,
    GPTNER_ENDPOINT_COMPLETIONS,
    GPTNER_ENDPOINT_EMBEDDINGS
} gptner_endpoint;

typedef enum gptner_token_field {
    GPTNER_TOKEN_FIELD_AUTO = 0, /* by model, then by host */
    GPTNER_TOKEN_FIELD_MAX_TOKENS,
    GPTNER_TOKEN_FIELD_MAX_COMPLETION_TOKENS
} gptner_token_field;

typedef enum gptner_format {
    GPTNER_FORMAT_TEXT = 0,
    GPTNER_FORMAT_JSON_OBJECT, /* the word JSON must occur in the messages */
    GPTNER_FORMAT_JSON_SCHEMA  /* schema_json and schema_name say which */
} gptner_format;

typedef enum gptner_toggle {
    GPTNER_AUTO = 0,
    GPTNER_YES,
    GPTNER_NO
} gptner_toggle;

/* What goes into the body of a request. All zero: the defaults of the Python
 * tool. A field that the model refuses (see the table under >>api) is left
 * out. Strings are borrowed by calls and copied by gptner_client_new(). */
typedef struct gptner_options {
    const char *model; /* NULL: "gpt-4o-mini" */
    gptner_endpoint endpoint;
    double temperature;       /* 0 is sent as 0; GPTNER_OMIT: not sent */
    double top_p;             /* 0 or 1: not sent */
    double frequency_penalty; /* 0: not sent */
    double presence_penalty;  /* 0: not sent */
    int max_tokens;           /* 0: 512; GPTNER_OMIT: no limit sent */
    gptner_token_field token_field;
    int n;                   /* choices; 0: 1 */
    const char *const *stop; /* up to 4 */
    size_t n_stop;
    const int64_t *seed;          /* NULL: not sent */
    const char *reasoning_effort; /* NULL: not sent */
    gptner_format format;
    const char *schema_name;      /* NULL: "answer" */
    const char *schema_json;      /* the JSON schema */
    gptner_toggle schema_strict;  /* AUTO: yes */
    const char *tools_json;       /* JSON array, passed through */
    const char *tool_choice_json; /* JSON value, passed through */
    /* A JSON object whose members are added to the body; a member that we
     * would write ourselves is replaced by it. */
    const char *extra_body_json;
    gptner_toggle send_sampling; /* AUTO: by the table of models; NO: neither
                                    temperature, top_p nor penalties; YES: as
                                    they stand, whatever the table says */
} gptner_options;

typedef enum gptner_auth {
    GPTNER_AUTH_BEARER = 0, /* Authorization: Bearer KEY */
    GPTNER_AUTH_API_KEY,    /* api-key: KEY (Azure) */
    GPTNER_AUTH_NONE
} gptner_auth;

/* What an account may use; 0: not told, not limited by this. */
typedef struct gptner_limits {
    int64_t requests_per_minute;
    int64_t tokens_per_minute;
    int64_t requests_per_day;
    int64_t tokens_per_day;
    int64_t batch_queue_tokens; /* prompt tokens of all unfinished batches */
} gptner_limits;

/* What a model costs, in US dollars a million tokens. Negative: not known. */
typedef struct gptner_price {
    const char *model; /* a name, or how names begin; the longest that fits */
    double input;
    double cached; /* input that the server had in its cache */
    double output;
    double batch_factor; /* of all three in a batch; 0: 0.5 */
} gptner_price;

/* Counts the tokens of a text; for who has the model's own tokenizer. Called
 * from several threads. */
typedef int64_t (*gptner_count_fn)(gptner_str text, const char *model,
                                   void *user);

/* For max_workers: as many as latency and limits need, found while running. */
#define GPTNER_WORKERS_AUTO (-1)

/* All zero is the recommended set-up. Everything is copied by
 * gptner_client_new(); a temporary will do. Times are in milliseconds; where
 * 0 means a default, a negative value means "no limit" unless stated. */
typedef struct gptner_config {
    /* server and account */
    const char *base_url; /* NULL: OPENAI_BASE_URL, then
                             https://api.openai.com/v1 */
    const char *api_key;  /* NULL: OPENAI_API_KEY; "" sends none */
    gptner_auth auth;
    const char *organization; /* NULL: OPENAI_ORG_ID, else not sent */
    const char *project;      /* NULL: OPENAI_PROJECT_ID, else not sent */
    const char *api_version;  /* Azure's query parameter api-version */
    /* Added to every request; one of a name that the library would send (such
     * as User-Agent) replaces it. The lines "Name: value" of the variable
     * OPENAI_CUSTOM_HEADERS are added behind them. */
    const gptner_header *headers;
    size_t n_headers;
    /* requests */
    gptner_options options;
    const char *system;  /* system message of every prompt; NULL: none */
    bool keep_raw;       /* results carry the raw JSON of the reply; not
                            of a streamed one */
    bool omit_reasoning; /* strip a leading <think>...</think> from the
                            result's text (deltas come as they are) */
    /* workers */
    int max_workers;           /* requests in flight; 0: 10;
                                  GPTNER_WORKERS_AUTO */
    int max_threads;           /* 0: as many as can use the cores */
    size_t thread_stack_bytes; /* 0: 128 KiB */
    /* retries, each counted apart; 0: 5, 2 for bad answers; -1: none */
    int max_retries;          /* transport failures, 408, 409, 5xx */
    int max_throttle_retries; /* 429; 0: 20 */
    int max_bad_reply_retries;
    int backoff_ms;         /* first delay; 0: 500 */
    int max_backoff_ms;     /* 0: 8000 */
    int max_retry_after_ms; /* a server that asks for more is not waited for;
                               0: 120000 */
    /* time limits */
    int connect_timeout_ms;    /* resolve and connect; 0: 10000 */
    int handshake_timeout_ms;  /* proxy and TLS; 0: 10000 */
    int first_byte_timeout_ms; /* from the last byte sent; 0: 300000 */
    int gap_timeout_ms;        /* between two bytes, both ways; 0: 60000 */
    int timeout_ms;            /* one attempt, whole; 0: 600000 */
    int64_t item_timeout_ms;   /* all attempts and waits of one prompt;
                                  0: 3600000 */
    /* sizes */
    size_t max_body_bytes; /* 0: 64 MiB; longer is GPTNER_ERR_LIMIT */
    size_t max_head_bytes; /* 0: 256 KiB, trailers included */
    size_t max_headers;    /* 0: 2048 */
    /* TLS */
    const char *ca_file; /* PEM or DER; NULL: see the manual, SECURITY */
    const char *ca_dir;
    gptner_str ca_pem;            /* PEM or DER in memory */
    const char *client_cert_file; /* PEM chain */
    const char *client_key_file;
    const char *client_key_password;
    bool insecure_skip_verify; /* no check of the peer at all */
    bool no_session_reuse;
    /* proxy */
    const char *proxy;    /* NULL: from the environment; "": none */
    const char *no_proxy; /* NULL: from the environment */
    /* the account's limits */
    const char *tier;        /* "free", "1" to "5": by the table of tiers; NULL:
                                what the server's replies tell */
    gptner_limits limits;    /* by hand: a field that is set goes before the
                                tier's */
    const char *limits_file; /* JSON, before the table of tiers */
    gptner_toggle learn_limits; /* AUTO: yes; NO: x-ratelimit-* of the replies
                                   are not looked at */
    const char *pace_file;      /* shared by the processes of this machine that
                                   use one account; NULL: this client alone */
    /* money */
    const gptner_price *prices; /* before those of the file */
    size_t n_prices;
    const char *prices_file; /* JSON, before the table of prices */
    /* answers kept on disk: the same request is not sent again; NULL: none */
    const char *cache_dir;
    /* parts that the user supplies */
    gptner_count_fn count_fn; /* NULL: gptner_tokens_estimate() */
    void *count_user;
    const gptner_transport *transport; /* NULL: TCP */
    gptner_allocator allocator;        /* all NULL: GPTNER_MALLOC and friends */
    gptner_hooks hooks;
    gptner_log_fn log_fn; /* NULL: silent */
    void *log_user;
    gptner_log_level log_level; /* 0: GPTNER_LOG_WARN */
} gptner_config;

/* ---------------------------------------------------------------------------
 * client                                                          >>api
 * ------------------------------------------------------------------------ */

/* A server, an account, and the connections to it. May be used by several
 * threads at once. */
typedef struct gptner_client gptner_client;

/* Create a client from cfg, or from the defaults if cfg is NULL. No connection
 * is made yet. On success *out is the caller's; end it with
 * gptner_client_free(). On failure *out is NULL and err, if given, holds the
 * reason: GPTNER_ERR_CONFIG for a setting that is wrong (no key, a URL that is
 * none, a header with a line break, options that are not JSON), or
 * GPTNER_ERR_NO_MEMORY. Any thread. */
GPTNER_API gptner_status gptner_client_new(const gptner_config *cfg,
                                           gptner_client **out,
                                           gptner_error *err);

/* Close the connections, wipe the key, free all. No call may be running on
 * the client. Results may be freed later. NULL may be freed. */
GPTNER_API void gptner_client_free(gptner_client *client);

/* End all calls that run on the client now, at once, with
 * GPTNER_ERR_CANCELLED; later calls end so too until gptner_client_reset().
 * May be called from any thread and from a signal handler. */
GPTNER_API void gptner_client_cancel(gptner_client *client);
GPTNER_API void gptner_client_reset(gptner_client *client);

/* ---------------------------------------------------------------------------
 * prompts and results                                             >>api
 * ------------------------------------------------------------------------ */

typedef struct gptner_message {
    gptner_str role;    /* "system", "developer", "user", "assistant", "tool" */
    gptner_str content; /* text */
    gptner_str json;    /* if set: the whole message as a JSON object */
} gptner_message;

/* One unit of work. The first of body_json, messages, messages_json and text
 * that is set makes the request. Text must be UTF-8. The system message goes
 * in front of a conversation too, unless that begins with its own; body_json
 * gets nothing added, and must not ask for a stream by itself. */
typedef struct gptner_prompt {
    gptner_str text;                /* one user message */
    gptner_str system;              /* ptr NULL: the config's; empty: none */
    const gptner_message *messages; /* a whole conversation */
    size_t n_messages;
    gptner_str messages_json;      /* the same, as a JSON array */
    gptner_str body_json;          /* a whole request body, sent as it stands */
    gptner_str custom_id;          /* handed back in the result */
    const gptner_options *options; /* NULL: the config's. It must live until
                                      the end of the call or the run */
    void *tag;                     /* handed back in the result */
} gptner_prompt;

/* Token counts as the server gave them; -1: not told. */
typedef struct gptner_usage {
    int64_t prompt_tokens;     /* cached_tokens included */
    int64_t completion_tokens; /* reasoning_tokens included */
    int64_t total_tokens;
    int64_t cached_tokens;
    int64_t reasoning_tokens;
} gptner_usage;

typedef struct gptner_choice {
    int64_t index;
    gptner_str text;
    gptner_str finish_reason;
    gptner_str refusal;
    gptner_str reasoning;       /* reasoning_content or reasoning */
    gptner_str tool_calls_json; /* JSON array */
    gptner_str logprobs_json;
} gptner_choice;

/* What became of one prompt. status GPTNER_OK: text is a whole answer.
 * REFUSED, FILTERED and TRUNCATED keep the text that there was. Any other
 * status: no answer. All strings die with the result. */
typedef struct gptner_result {
    size_t index; /* of the prompt, from 0 */
    gptner_status status;
    const char *message; /* what failed, for a person; "" if nothing */
    gptner_str custom_id;
    void *tag;
    gptner_str text; /* of the first choice */
    gptner_str finish_reason;
    const gptner_choice *choices; /* in the order of their index */
    size_t n_choices;
    gptner_usage usage;
    gptner_str model; /* as the server named it */
    gptner_str id;
    gptner_str request_id; /* header x-request-id */
    gptner_str system_fingerprint;
    int attempts;       /* requests sent for this prompt */
    int64_t latency_ms; /* of the last attempt */
    int64_t total_ms;   /* from the first attempt to the end, waits included */
    /* of an error that the server sent */
    int http_status;
    gptner_str error_type;
    gptner_str error_code;
    gptner_str error_param;
    gptner_str error_message;
    int64_t retry_after_ms; /* -1: none */
    gptner_str raw; /* the reply's body, if keep_raw; keys in an error masked */
    bool shared;    /* an equal prompt's answer (option dedupe) */
    bool cached;    /* from the cache on disk: nothing was sent */
    bool resumed;   /* from the journal of an earlier run: nothing was sent */
    double cost_usd; /* of all attempts; -1: not known */
} gptner_result;

GPTNER_API void gptner_result_free(gptner_result *result);

/* ---------------------------------------------------------------------------
 * one request                                                     >>api
 * ------------------------------------------------------------------------ */

/* Ask one question. *out is set whenever memory allows, also on failure (its
 * status is the value returned); free it with gptner_result_free(). out and
 * err may be NULL. Blocks; retries as the config says. Any thread. */
GPTNER_API gptner_status gptner_ask(gptner_client *client, const char *text,
                                    gptner_result **out, gptner_error *err);
GPTNER_API gptner_status gptner_chat(gptner_client *client,
                                     const gptner_prompt *prompt,
                                     gptner_result **out, gptner_error *err);

/* One piece of a streamed answer. */
typedef struct gptner_delta {
    int64_t choice;
    gptner_str text;
    gptner_str reasoning;
    gptner_str refusal;
    gptner_str tool_calls_json; /* the delta's array as it came */
    gptner_str finish_reason;   /* set in the last piece of a choice */
} gptner_delta;

/* Return false to stop; the call then ends with GPTNER_ERR_CANCELLED. */
typedef bool (*gptner_delta_fn)(const gptner_delta *delta, void *user);

/* Like gptner_chat(), with the answer handed over as it is written. *out
 * holds the whole at the end, or what came before a failure. Once a piece was
 * handed over nothing is retried. delta_fn runs in the calling thread. */
GPTNER_API gptner_status gptner_chat_stream(gptner_client *client,
                                            const gptner_prompt *prompt,
                                            gptner_delta_fn delta_fn,
                                            void *user, gptner_result **out,
                                            gptner_error *err);

/* ---------------------------------------------------------------------------
 * many requests                                                   >>pool
 * ------------------------------------------------------------------------ */

typedef struct gptner_progress {
    int64_t total; /* -1: not known yet */
    int64_t done;
    int64_t ok;
    int64_t failed;
    int64_t retries;
    int64_t in_flight;
    int64_t waiting; /* for a retry or for the server's pause */
    int64_t prompt_tokens;
    int64_t completion_tokens;
    int64_t elapsed_ms;
    double per_second;   /* recent */
    int64_t eta_ms;      /* -1: not known */
    double cost_usd;     /* so far; -1: the price is not known */
    double max_cost_usd; /* 0: no budget */
    bool finished;       /* the last call of the run */
} gptner_progress;

typedef void (*gptner_progress_fn)(const gptner_progress *progress, void *user);

/* A ready-made gptner_progress_fn: a bar on stderr where that is a terminal,
 * otherwise a plain line now and then. user: a gptner_bar, all zero at first
 * but for label. */
typedef struct gptner_bar {
    const char *label; /* NULL: "prompts" */
    int64_t reserved[8];
} gptner_bar;
GPTNER_API void gptner_progress_bar(const gptner_progress *progress,
                                    void *user);

/* Fill *prompt with the next prompt; its strings must live until the next
 * call. Return 1: filled, 0: no more, -1: failed (ends the run; err may be
 * filled). Called from one thread at a time, never under a lock. */
typedef int (*gptner_next_fn)(gptner_prompt *prompt, gptner_error *err,
                              void *user);

/* Takes a result; it dies when the function returns. Called from one thread at
 * a time, never under a lock. Return false to cancel the run. */
typedef bool (*gptner_result_fn)(const gptner_result *result, void *user);

typedef struct gptner_run_config {
    /* where prompts come from: the first that is set */
    const gptner_prompt *prompts;
    const char *const *texts; /* plain prompts */
    size_t n_prompts;         /* of prompts or texts */
    /* A file, "-" for stdin. Lines end with LF (a CR before it goes, too);
     * those with nothing but white space are no prompts. One prompt a line, or,
     * if the name ends in .jsonl, an object a line with "prompt", "messages" or
     * "body", and perhaps "system" and "custom_id"; a line that is none gets
     * the result GPTNER_ERR_INVALID_ARGUMENT. */
    const char *input_path;
    gptner_next_fn next_fn;
    void *next_user;
    int64_t total; /* for progress, with next_fn; 0: unknown */
    /* where results go: any of these */
    gptner_result_fn result_fn;
    void *result_user;
    /* A file that appears whole or not at all, "-" for stdout. If its name
     * ends in .jsonl: an object a prompt with all that is known. Else an answer
     * a line, where \n, \r and \\ stand for line breaks and backslashes; for
     * a prompt without an answer the line is "ERROR: NAME: message". It is kept
     * also when the run is cancelled or stopped by a hopeless error, not when
     * the input cannot be read to its end. */
    const char *output_path;
    gptner_result ***results; /* an array of n results, input order; free it
                                 with gptner_results_free() */
    size_t *n_results;
    /* how */
    bool as_completed; /* results as they finish, not in input order; an
                          output_path must then end in .jsonl */
    /* Equal requests are sent once, and the answer goes to all (shared). Up to
     * 65,536 different requests and about 64 MiB of their answers are
     * remembered, and 16,384 equal prompts wait for delivery; beyond that a
     * request may be sent again. Costs 56 bytes for each request remembered. */
    bool dedupe;
    size_t max_ahead;   /* prompts begun beyond the oldest unfinished one;
                           0: 1024 or 8 times the workers */
    int max_workers;    /* 0: the client's; GPTNER_WORKERS_AUTO */
    int64_t timeout_ms; /* of the whole run; 0: none */
    /* A budget, 0: none. What the next request can cost at most is set aside
     * before it is sent, with all that is in flight; what does not fit any
     * more gets the result GPTNER_ERR_NOT_SENT, and the run ends with
     * GPTNER_ERR_BUDGET. Needs a known price and a limit of tokens. */
    double max_cost_usd;
    /* A journal of the answers: a run that was killed, called again with the
     * same prompts and options, sends only what is missing or failed. It is
     * removed when every prompt has its answer. NULL: none. */
    const char *journal_path;
    gptner_progress_fn progress_fn;
    void *progress_user;
    int progress_every_ms; /* 0: 100 */
} gptner_run_config;

typedef struct gptner_run_summary {
    int64_t total; /* prompts read; those that share an answer included here
                      and in ok and failed, but not in the tokens */
    int64_t ok;
    int64_t failed; /* all that is not ok, the two below included */
    int64_t cancelled;
    int64_t not_sent;
    int64_t requests; /* sent, retries included */
    int64_t retries;
    int64_t throttled; /* 429 replies */
    int64_t resent;    /* after a kept connection was found closed */
    int64_t connections;
    int64_t resumed_sessions;
    int64_t prompt_tokens;
    int64_t completion_tokens;
    int64_t elapsed_ms;
    int64_t cached;       /* answers from the cache on disk */
    int64_t resumed;      /* answers from the journal */
    int64_t workers;      /* requests at a time, at most */
    double cost_usd;      /* of all attempts; -1: the price is not known */
    int64_t cost_unknown; /* attempts that may have been billed, but the reply
                             was lost: in cost_usd at what they can cost at
                             most */
} gptner_run_summary;

/* Send every prompt, and give exactly one result for each, in input order.
 * Returns GPTNER_OK when every prompt has its result, whatever that is: look
 * at summary->failed. Another status when the run as a whole failed (bad key,
 * no quota, unreadable input, cancelled, out of time); also then each prompt
 * that was read has its result (GPTNER_ERR_NOT_SENT, GPTNER_ERR_CANCELLED...).
 * Blocks; callbacks run in this or another thread, one at a time. */
GPTNER_API gptner_status gptner_run(gptner_client *client,
                                    const gptner_run_config *run,
                                    gptner_run_summary *summary,
                                    gptner_error *err);
GPTNER_API void gptner_results_free(gptner_result **results, size_t n);

/* ---------------------------------------------------------------------------
 * other endpoints                                                 >>api
 * ------------------------------------------------------------------------ */

typedef struct gptner_embeddings {
    float *values; /* count * dimensions, row after row */
    size_t count;
    size_t dimensions;
    gptner_usage usage;
    gptner_str model;
} gptner_embeddings;

/* Vectors of n texts (1 to 2048, none empty), in their order, whether the
 * server sends them as base64, as asked, or as numbers. dimensions 0: the
 * model's. model NULL: "text-embedding-3-small". On success *out is the
 * caller's; end it with gptner_embeddings_free(). On failure it is NULL; a
 * reply without exactly n vectors of one size is GPTNER_ERR_BAD_REPLY. */
GPTNER_API gptner_status gptner_embed(gptner_client *client, const char *model,
                                      const gptner_str *texts, size_t n,
                                      int dimensions, gptner_embeddings **out,
                                      gptner_error *err);
GPTNER_API void gptner_embeddings_free(gptner_embeddings *embeddings);

typedef struct gptner_model {
    gptner_str id;
    gptner_str owned_by;
    int64_t created; /* Unix seconds; 0: not told */
} gptner_model;

typedef struct gptner_models {
    gptner_model *items;
    size_t count;
} gptner_models;

/* All models of the account, or that of an id alone (which may hold any
 * character). End *out with gptner_models_free(). */
GPTNER_API gptner_status gptner_models_list(gptner_client *client,
                                            gptner_models **out,
                                            gptner_error *err);
GPTNER_API gptner_status gptner_models_get(gptner_client *client,
                                           const char *id, gptner_models **out,
                                           gptner_error *err);
GPTNER_API void gptner_models_free(gptner_models *models);

/* A part of a multipart/form-data body. */
typedef struct gptner_part {
    const char *name;
    gptner_str value;         /* text, or, with path NULL, a file's content */
    const char *path;         /* content streamed from this file */
    const char *filename;     /* NULL: no file name (a plain field) */
    const char *content_type; /* NULL: none (field) or
                                 application/octet-stream (file) */
} gptner_part;

/* Takes a piece of the body; return false to stop (GPTNER_ERR_CANCELLED). */
typedef bool (*gptner_body_fn)(const char *data, size_t len, void *user);

/* One event of a text/event-stream reply. */
typedef bool (*gptner_event_fn)(gptner_str type, gptner_str data, gptner_str id,
                                void *user);

/* Any request of the API, with the client's connection, retries and limits.
 * Headers of the request replace those of the client of the same name; those
 * that frame the message (Host, Content-Length, ...) are refused. A redirect
 * that is followed to another scheme, host or port gets neither the key nor any
 * header of the user's; from https to http none is followed. */
typedef struct gptner_raw_request {
    const char *method; /* NULL: GET, or POST when there is a body */
    const char *path;   /* appended to the base URL, e.g. "/files?limit=5" */
    gptner_str body;
    const char *content_type; /* NULL: application/json when there is a body */
    const gptner_part *parts; /* instead of body */
    size_t n_parts;
    const gptner_header *headers;
    size_t n_headers;
    /* where a 2xx body goes; all unset: into the response */
    const char *save_path; /* whole or not at all */
    gptner_body_fn body_fn;
    gptner_event_fn event_fn; /* server-sent events */
    void *user;
    bool no_retry; /* not repeatable: one attempt, and no resend after a byte
                      was written */
    int max_redirects; /* GET and HEAD only; 0: none. To a whole URL or an
                          absolute path; others are GPTNER_ERR_REDIRECT */
} gptner_raw_request;

typedef struct gptner_response {
    int status;
    gptner_header *headers; /* as received, trailers excluded */
    size_t n_headers;
    gptner_str body;
    int64_t body_bytes; /* also of one that went elsewhere */
    int attempts;
    bool reused; /* the connection had served an earlier request */
    bool reusable;
} gptner_response;

/* *out is set whenever a response arrived, also when its status makes the
 * call fail (all but 2xx do; keys in such a body are masked). It is freed with
 * gptner_response_free(). Once body_fn or event_fn got a byte nothing is
 * retried. */
GPTNER_API gptner_status gptner_raw(gptner_client *client,
                                    const gptner_raw_request *request,
                                    gptner_response **out, gptner_error *err);
GPTNER_API void gptner_response_free(gptner_response *response);
/* The value of a header (any case), or NULL. */
GPTNER_API const char *gptner_response_header(const gptner_response *response,
                                              const char *name);

/* ---------------------------------------------------------------------------
 * the Batch API: half the price, within a day                     >>batch
 *
 * One step at a time: gptner_batch_create_file(), _submit(), _wait() and
 * _retrieve(). All in one, safe against being killed: gptner_job_run().
 * With GPTNER_NO_BATCH all of it returns GPTNER_ERR_UNSUPPORTED.
 * ------------------------------------------------------------------------ */

/* Limits of the API (openai-api.md 5.2). Whether its MB is 10^6 bytes is not
 * said, so the smaller meaning is taken. */
#define GPTNER_BATCH_REQUESTS_MAX 50000
#define GPTNER_BATCH_BYTES_MAX    200000000
#define GPTNER_BATCH_ID_MAX       64 /* bytes of a custom_id */

/* How prompts become the lines of batch files. */
typedef struct gptner_batch_create_config {
    /* where prompts come from: as in gptner_run_config, the first that is set.
     * A prompt may have a custom_id of its own: at most 64 bytes of printable
     * ASCII, unique in its file; the others get "request-<index>", from 0. */
    const gptner_prompt *prompts;
    const char *const *texts;
    size_t n_prompts;
    const char *input_path;
    gptner_next_fn next_fn;
    void *next_user;
    /* The endpoint of all lines, e.g. "/v1/responses"; NULL: chat, completions
     * or embeddings by the table of models, or by what a body holds. Prompts
     * of an endpoint that the library cannot write need body_json. */
    const char *endpoint;
    /* "batch.jsonl"; what does not fit goes to "batch-2.jsonl" and so on. */
    const char *output_path;
    int64_t max_requests; /* a file; 0: 50,000 */
    int64_t max_bytes;    /* a file; 0: 200,000,000 */
    int64_t max_tokens;   /* a file, prompt tokens as estimated; 0: no limit */
} gptner_batch_create_config;

typedef struct gptner_batch_file {
    const char *path;
    int64_t requests;
    int64_t bytes;
    int64_t tokens; /* of the prompts, as estimated: bytes / 3, rounded up */
} gptner_batch_file;

typedef struct gptner_batch_files {
    const gptner_batch_file *items;
    size_t count;
    int64_t requests; /* of all */
    const char *endpoint;
} gptner_batch_files;

/* Write the requests of all prompts into as many files as the limits ask for.
 * Nothing is sent, and no key is needed. All files appear, each whole, or none:
 * a prompt that makes no request (named with its line), a custom_id that is not
 * allowed or used twice, different models or endpoints in one file
 * (GPTNER_ERR_INVALID_ARGUMENT), a single line over the limits
 * (GPTNER_ERR_LIMIT) and a failed write (GPTNER_ERR_FILE) leave nothing behind.
 * No prompts at all are an error, too. Memory does not grow with their number.
 * *out is the caller's; end it with gptner_batch_files_free(). Any thread. */
GPTNER_API gptner_status gptner_batch_create_file(
    gptner_client *client, const gptner_batch_create_config *cfg,
    gptner_batch_files **out, gptner_error *err);
GPTNER_API void gptner_batch_files_free(gptner_batch_files *files);

/* One finding of a check, the server's or ours. */
typedef struct gptner_batch_issue {
    gptner_str code; /* e.g. "duplicate_custom_id" */
    gptner_str message;
    gptner_str param;
    int64_t line; /* from 1; 0: of the file as a whole */
} gptner_batch_issue;

typedef struct gptner_batch_report {
    const gptner_batch_issue *items; /* at most 100 */
    size_t count;
    int64_t found; /* all, also those beyond the 100 */
    int64_t requests;
    int64_t bytes;
    gptner_str endpoint; /* of the first line */
    gptner_str model;    /* of the first line */
} gptner_batch_report;

/* Check a batch file as the server will, with its codes and line numbers,
 * before a byte is sent (openai-api.md 5.1, 5.2, 5.7): invalid_json_line,
 * duplicate_custom_id, missing_required_parameter, invalid_method, invalid_url,
 * url_mismatch, model_mismatch, invalid_request (a stream), empty_file,
 * too_many_tasks; and file_too_large, which the server says at the upload.
 * endpoint NULL: that of the first line. allocator may be NULL. Needs no
 * client. GPTNER_OK: no finding; GPTNER_ERR_BATCH_INVALID: there are some, and
 * err has the first; other errors: the file could not be read. *out is set for
 * the first two; end it with gptner_batch_report_free(). Any thread. */
GPTNER_API gptner_status gptner_batch_validate_file(
    const char *path, const char *endpoint, const gptner_allocator *allocator,
    gptner_batch_report **out, gptner_error *err);
GPTNER_API void gptner_batch_report_free(gptner_batch_report *report);

typedef enum gptner_batch_state {
    GPTNER_BATCH_UNKNOWN = 0, /* a state that this version does not know */
    GPTNER_BATCH_VALIDATING,
    GPTNER_BATCH_IN_PROGRESS,
    GPTNER_BATCH_FINALIZING,
    GPTNER_BATCH_CANCELLING,
    GPTNER_BATCH_COMPLETED, /* this and all below: it has ended */
    GPTNER_BATCH_FAILED,
    GPTNER_BATCH_EXPIRED,
    GPTNER_BATCH_CANCELLED
} gptner_batch_state;

typedef struct gptner_pair {
    gptner_str key;
    gptner_str value;
} gptner_pair;

/* A batch as the server describes it (openai-api.md 5.5). Times are Unix
 * seconds, 0: not yet. A text that is not there has ptr NULL. */
typedef struct gptner_batch {
    gptner_str id;
    gptner_batch_state state;
    bool ended;        /* nothing will change any more */
    gptner_str status; /* the word the server used */
    gptner_str endpoint;
    gptner_str model;
    gptner_str completion_window;
    gptner_str input_file_id;
    gptner_str output_file_id;
    gptner_str error_file_id;
    int64_t created_at;
    int64_t in_progress_at;
    int64_t expires_at;
    int64_t finalizing_at;
    int64_t completed_at;
    int64_t failed_at;
    int64_t expired_at;
    int64_t cancelling_at;
    int64_t cancelled_at;
    /* Advisory: servers were seen to count wrongly. 0 while validating. */
    int64_t requests_total;
    int64_t requests_completed;
    int64_t requests_failed;
    gptner_usage usage;
    const gptner_batch_issue *errors; /* of a failed batch */
    size_t n_errors;
    const gptner_pair *metadata;
    size_t n_metadata;
    gptner_str raw; /* the object as it came, JSON */
} gptner_batch;

GPTNER_API void gptner_batch_free(gptner_batch *batch);

/* Bytes of a file sent so far; total is its size with the form around it. */
typedef void (*gptner_upload_fn)(int64_t sent, int64_t total, void *user);

typedef struct gptner_batch_submit_config {
    const char *path;        /* the batch file; its name ends in .jsonl */
    const char *endpoint;    /* NULL: that of its first line */
    const char *description; /* NULL or "": "GPT-NER batch processing" */
    const gptner_pair *metadata;
    size_t n_metadata; /* at most 14: two are ours */
    /* Names this submission; it stands in the name of the uploaded file and in
     * the metadata as "gptner_job". Submit again with the same job and what is
     * there already is found, not made again. NULL: a random one. At most 64
     * letters, digits, '-', '_' and '.'. */
    const char *job;
    int64_t output_expires_s; /* 3600 to 2592000; 0: the server's 30 days */
    gptner_upload_fn upload_fn;
    void *upload_user;
} gptner_batch_submit_config;

/* Upload a batch file, streamed from disk, and create its batch. Neither is
 * repeatable at the server: after a timeout, a lost connection or a 5xx the
 * file is looked for by its name, and the batch by its metadata, before
 * anything is sent again. An "unknown file" just after the upload is waited
 * out. *out is the caller's; end it with gptner_batch_free(). Any thread. */
GPTNER_API gptner_status gptner_batch_submit(
    gptner_client *client, const gptner_batch_submit_config *cfg,
    gptner_batch **out, gptner_error *err);

/* Ask for a batch. One that the server does not know (any more) is
 * GPTNER_ERR_NOT_FOUND. Any thread. */
GPTNER_API gptner_status gptner_batch_status(gptner_client *client,
                                             const char *id, gptner_batch **out,
                                             gptner_error *err);

/* Cancel a batch. One that has ended already is described as it is, with
 * GPTNER_OK: look at state. What was done by then is kept, and paid. */
GPTNER_API gptner_status gptner_batch_cancel(gptner_client *client,
                                             const char *id, gptner_batch **out,
                                             gptner_error *err);

typedef struct gptner_batches {
    gptner_batch **items; /* newest first */
    size_t count;
    bool has_more; /* go on with after = the last one's id */
} gptner_batches;

/* A page of the account's batches: limit 1 to 100 (0: 20) of those before the
 * one with the id after (NULL: from the newest). */
GPTNER_API gptner_status gptner_batch_list(gptner_client *client,
                                           const char *after, int limit,
                                           gptner_batches **out,
                                           gptner_error *err);
GPTNER_API void gptner_batches_free(gptner_batches *batches);

/* Looks at a batch after each poll; return false to stop waiting
 * (GPTNER_ERR_CANCELLED). The batch dies when the function returns. */
typedef bool (*gptner_batch_fn)(const gptner_batch *batch, void *user);

typedef struct gptner_batch_wait_config {
    int64_t poll_ms; /* 0: 60000 */
    /* 0: 25 hours, for a batch may take 24; then GPTNER_ERR_TIMEOUT */
    int64_t max_wait_ms;
    gptner_batch_fn batch_fn;
    void *user;
} gptner_batch_wait_config;

/* Poll until the batch has ended, in whatever way. A poll that fails (network
 * loss, a server that restarts) is repeated at the next; only a key that is
 * refused and a batch that stays unknown end the wait. The time limit is the
 * call's: it ends in time also while the server does not answer. The wait ends
 * at once on gptner_client_cancel(). *out holds what was last known of the
 * batch, also after a failure. Any thread. */
GPTNER_API gptner_status gptner_batch_wait(gptner_client *client,
                                           const char *id,
                                           const gptner_batch_wait_config *cfg,
                                           gptner_batch **out,
                                           gptner_error *err);

typedef struct gptner_batch_summary {
    int64_t total; /* requests of the batch: results handed out */
    int64_t ok;
    int64_t failed; /* all that is not ok: the five below and the rest */
    int64_t expired;
    int64_t cancelled;
    int64_t missing;   /* in neither file */
    int64_t malformed; /* the line could not be read */
    int64_t unsent;    /* prompts that made no request */
    /* rows that belong to no result */
    int64_t duplicates;
    int64_t strangers;
    int64_t prompt_tokens;
    int64_t completion_tokens;
    double cost_usd; /* at the price of a batch; -1: not known */
} gptner_batch_summary;

typedef struct gptner_batch_retrieve_config {
    /* The batch file that was submitted: it gives the requests and their order.
     * NULL: it is fetched from the server; if that has it no more, the order is
     * that of "request-<n>", and what is not named so follows. */
    const char *requests_path;
    /* where results go: as in gptner_run_config */
    gptner_result_fn result_fn;
    void *result_user;
    const char *output_path;
    gptner_result ***results;
    size_t *n_results;
    /* The files as they came, to be kept; NULL: they are removed again. The
     * one that the server does not have is written empty. */
    const char *raw_output_path;
    const char *raw_error_path;
    /* Where they are kept meanwhile: names that begin with this; NULL: with
     * output_path or requests_path, else in the current folder. */
    const char *temp_prefix;
    gptner_progress_fn progress_fn;
    void *progress_user;
    /* Good answers as they stand in the files and the others last, each once:
     * look at index. Rows are then read once, which saves a third of the time.
     * An output_path must end in .jsonl. */
    bool as_completed;
} gptner_batch_retrieve_config;

/* The results of a batch that has ended, in the order of its requests: exactly
 * one for each. GPTNER_ERR_EXPIRED, _CANCELLED and _MISSING say why there is no
 * answer, other statuses are as in a run; http_status is that of the row.
 * Partial output of expired and cancelled batches is read, too. A batch that
 * has not ended is GPTNER_ERR_NOT_FINISHED, one that failed the server's check
 * GPTNER_ERR_BATCH_FAILED, with its first error. The files are streamed to disk
 * first; memory is 16 bytes a request beyond a fixed part, unless results are
 * gathered. summary may be NULL. Any thread. */
GPTNER_API gptner_status
gptner_batch_retrieve(gptner_client *client, const char *id,
                      const gptner_batch_retrieve_config *cfg,
                      gptner_batch_summary *summary, gptner_error *err);

/* The same from files that are here already; error_path may be NULL, and so
 * may cfg->requests_path only if ids are "request-<n>". Nothing is sent. */
GPTNER_API gptner_status gptner_batch_read(
    gptner_client *client, const char *output_path, const char *error_path,
    const gptner_batch_retrieve_config *cfg, gptner_batch_summary *summary,
    gptner_error *err);

typedef enum gptner_retry_failed {
    GPTNER_RETRY_NONE = 0,
    GPTNER_RETRY_BATCH,   /* by a follow-up batch, at most three in a row */
    GPTNER_RETRY_PARALLEL /* at once, at the full price */
} gptner_retry_failed;

typedef enum gptner_job_stage {
    GPTNER_JOB_PLANNING = 1, /* the batch files are being written */
    GPTNER_JOB_RUNNING,
    GPTNER_JOB_FINISHING, /* answers are being written */
    GPTNER_JOB_DONE
} gptner_job_stage;

typedef struct gptner_job_progress {
    gptner_job_stage stage;
    bool resumed;       /* an earlier run had begun the job */
    int64_t requests;   /* all of the job */
    int64_t done;       /* as the server counts, finished batches included */
    int64_t batches;    /* to be run, follow-ups included */
    int64_t waiting;    /* of them, not yet submitted */
    int64_t running;    /* of them */
    int64_t ended;      /* of them */
    int64_t elapsed_ms; /* of this run */
    const char *event;  /* what has just happened, for a person; or NULL */
} gptner_job_progress;

typedef void (*gptner_job_fn)(const gptner_job_progress *progress, void *user);

typedef struct gptner_job_config {
    /* The prompts, the endpoint and the limits of a batch, as for
     * gptner_batch_create_file(); its output_path is not used. A prompt that
     * makes no request gets its result and does not end the job. */
    gptner_batch_create_config source;
    /* The answers, as in gptner_run_config; it appears at the end, whole. The
     * job's own files stand beside it and begin with its name and ".job": the
     * journal, and until the end the batch files and what was fetched. */
    const char *output_path;
    gptner_result_fn result_fn; /* each result too, when all are there */
    void *result_user;
    const char *description;
    const gptner_pair *metadata;
    size_t n_metadata;
    int max_batches;             /* at a time; 0: 20 */
    int64_t max_enqueued_tokens; /* of all running batches, as estimated; 0: as
                                    many as the server takes */
    int64_t poll_ms;             /* 0: 60000 */
    int64_t max_wait_ms; /* of this run; 0: none. Then GPTNER_ERR_TIMEOUT, and
                            the job can be taken up again */
    gptner_retry_failed retry_failed;
    bool delete_remote;  /* the files at the server, once the job is done */
    double max_cost_usd; /* as in gptner_run_config; of the whole job,
                            follow-ups included: a batch that does not fit is
                            not submitted */
    gptner_job_fn progress_fn;
    void *progress_user;
} gptner_job_config;

typedef struct gptner_job_summary {
    gptner_batch_summary results;
    int64_t batches; /* that ran, follow-ups included */
    bool resumed;
    bool was_done; /* by an earlier run: nothing was left to do */
    int64_t elapsed_ms;
} gptner_job_summary;

/* A job of any size: prompts in, answers out, by as many batches as it takes.
 * Every step that costs money stands in the journal before it is taken, and its
 * outcome after; both are synced. Killed at any instant, call it again with the
 * same arguments and it goes on: no request is lost, none is submitted twice,
 * no file is half-written. Refused are: a second process on the same job
 * (GPTNER_ERR_BUSY), and a job whose prompts, options or server have changed
 * (GPTNER_ERR_CHANGED). When it has ended well only output_path and the journal
 * remain; remove the journal to begin anew. GPTNER_OK: every prompt has its
 * result, whatever that is. summary may be NULL. Any thread; blocks for hours,
 * and ends at once on gptner_client_cancel(). */
GPTNER_API gptner_status gptner_job_run(gptner_client *client,
                                        const gptner_job_config *cfg,
                                        gptner_job_summary *summary,
                                        gptner_error *err);

/* ---------------------------------------------------------------------------
 * named-entity recognition by prompting                           >>ner
 *
 * With GPTNER_NO_NER all of it returns GPTNER_ERR_UNSUPPORTED.
 * ------------------------------------------------------------------------ */

/* ---- labels ---- */

/* A kind of entity. */
typedef struct gptner_label {
    gptner_str name;       /* as in data and results, e.g. "PER" */
    gptner_str title;      /* in prompts, e.g. "person" */
    gptner_str definition; /* one or two sentences, for the model */
    const gptner_str *examples;
    size_t n_examples;
} gptner_label;

typedef struct gptner_labels {
    gptner_str name; /* e.g. "conll2003" */
    const gptner_label *items;
    size_t count;
    bool nested; /* entities may contain others */
} gptner_labels;

/* ---- documents and entities ---- */

/* From begin up to, not including, end. */
typedef struct gptner_span {
    size_t begin;
    size_t end;
} gptner_span;

/* How an answer's mention was found in the source. */
typedef enum gptner_match {
    GPTNER_MATCH_EXACT = 0,  /* the very bytes */
    GPTNER_MATCH_NORMALISED, /* but for case, space, quotes, dashes, escapes,
                                or the form of characters */
    GPTNER_MATCH_FUZZY,      /* with a few characters or words changed */
    GPTNER_MATCH_LOST        /* the source does not contain it: no offsets */
} gptner_match;

/* What verification said. */
typedef enum gptner_verdict {
    GPTNER_VERDICT_NONE = 0, /* not asked */
    GPTNER_VERDICT_YES,
    GPTNER_VERDICT_NO,
    GPTNER_VERDICT_UNCLEAR /* no answer that could be understood: kept */
} gptner_verdict;

/* An entity; all strings belong to the document that it is in. */
typedef struct gptner_entity {
    gptner_str label;
    gptner_span bytes;       /* in the untouched text of the document */
    gptner_span code_points; /* the same place, counted in code points */
    gptner_span utf16;       /* and in UTF-16 code units */
    gptner_str text;         /* what the document has there */
    gptner_str said;         /* what the model wrote, if that differs */
    gptner_match match;
    gptner_verdict verdict;
    double confidence; /* 0 to 1; -1: not known */
} gptner_entity;

/* A text with its entities: one of a gold file, or a result. */
typedef struct gptner_doc {
    gptner_str id; /* ptr NULL: none */
    gptner_str text;
    const gptner_entity *entities; /* by begin, the longer first, then label */
    size_t n_entities;
    const gptner_entity *lost; /* that the text does not contain */
    size_t n_lost;
    const gptner_span *tokens; /* of formats with columns; else none */
    size_t n_tokens;
    const gptner_span *sentences; /* where the source tells; else none */
    size_t n_sentences;
    gptner_status status; /* of a result: OK, or why parts are missing */
    const char *message;
} gptner_doc;

typedef struct gptner_docs {
    const gptner_doc *items;
    size_t count;
} gptner_docs;

/* ---- reading answers ---- */

/* What a model is asked to answer. */
typedef enum gptner_strategy {
    /* the text again, with marks around what has one label:
     * "@@Columbus## sailed from Spain." */
    GPTNER_STRATEGY_MARKER = 0,
    /* for all labels at once, nested if need be:
     * "@@PER|Columbus## sailed for the @@ORG|Bank of @@LOC|Spain####." */
    GPTNER_STRATEGY_MARKER_ALL,
    /* {"entities": [{"before": "sailed from", "text": "Spain",
     * "label": "LOC"}]}: in the order of the text, with a few words that stand
     * before each, which tell repeated mentions apart */
    GPTNER_STRATEGY_JSON
} gptner_strategy;

/* What stands around a mention. */
typedef struct gptner_markers {
    char open[8]; /* "": both are "@@" and "##" */
    char close[8];
} gptner_markers;

/* Markers none of whose characters occur in the texts, so that a marked text
 * can be read back whatever it contains: "@@" and "##" if possible, as models
 * know them. Use the same for a text and the examples in its prompt. false:
 * the texts hold all that we could think of; out is then "@@" and "##". Any
 * thread. */
GPTNER_API bool gptner_markers_choose(const gptner_str *texts, size_t count,
                                      gptner_markers *out);

typedef struct gptner_answer_config {
    gptner_str source; /* the text that was asked about */
    gptner_str answer; /* what the model wrote */
    gptner_strategy strategy;
    /* What was asked for; NULL or empty: anything. Of MARKER the first is
     * meant. A label is also known in another case, or by its title. */
    const gptner_labels *labels;
    gptner_markers markers;
    const gptner_allocator *allocator; /* NULL: GPTNER_MALLOC and friends */
} gptner_answer_config;

/* Read an answer: find in the source what it says are entities. The answer may
 * have dropped, added, re-cased, re-spaced, escaped and rewritten words, have
 * forgotten or nested its marks, stand in a fence or behind a preamble, be
 * repeated, or cut off: what it mentions is aligned to the source, each mention
 * to the occurrence that its place in the answer or its context says.
 * (*out)->entities are all in the source, and none twice; how surely says their
 * match. What the source does not contain, or not so that one could tell where,
 * and what has no label that was asked for, is in (*out)->lost, with what the
 * model said. An entity whose end the model forgot to mark ends where the name
 * seems to, and is FUZZY. (*out)->status is GPTNER_OK; GPTNER_ERR_TRUNCATED if
 * the answer seems to be cut off; GPTNER_ERR_BAD_REPLY if it is not what was
 * asked for: then there may be fewer entities than there should be, and message
 * says why. Neither is a failure of this call.
 * Time and memory are bounded by a multiple of the two lengths, whatever the
 * answer. *out is ended by gptner_doc_free(). GPTNER_ERR_LIMIT: a text of more
 * than 512 MiB. Any thread. */
GPTNER_API gptner_status gptner_answer_read(const gptner_answer_config *cfg,
                                            gptner_doc **out,
                                            gptner_error *err);

/* End a document that was returned by itself; NULL is fine. */
GPTNER_API void gptner_doc_free(gptner_doc *doc);

/* A text that is handed over; end it with gptner_text_free(). */
typedef struct gptner_text {
    gptner_str text; /* with a '\0' after its end */
} gptner_text;

GPTNER_API void gptner_text_free(gptner_text *text);

/* Write what a perfect model would answer about doc->text: for examples in a
 * prompt, for people, for tests. Of cfg it takes strategy, markers, allocator,
 * and for MARKER the first of labels; else all entities are written. Entities
 * that overlap without one being in the other cannot be marked together: the
 * text is then repeated on a further line for those that are left. Reading it
 * back gives the same entities. Entities out of the text are left out. */
GPTNER_API gptner_status gptner_answer_write(const gptner_answer_config *cfg,
                                             const gptner_doc *doc,
                                             gptner_text **out,
                                             gptner_error *err);

/* The strict JSON schema of the answers of GPTNER_STRATEGY_JSON, for
 * gptner_options.schema_json. labels NULL or empty: any label. */
GPTNER_API gptner_status gptner_answer_schema(const gptner_labels *labels,
                                              const gptner_allocator *allocator,
                                              gptner_text **out,
                                              gptner_error *err);

/* ---- reading and writing data ---- */

/* ---- scoring ---- */

/* ---- demonstrations ---- */

/* ---- recognition ---- */

#ifdef __cplusplus
}
#endif
#endif /* GPTNER_H */

/* ======================== end of the interface ======================== */

#ifdef GPTNER_IMPLEMENTATION
#ifndef GPTNER_IMPLEMENTATION_DONE
#define GPTNER_IMPLEMENTATION_DONE

/* ---------------------------------------------------------------------------
 * prologue: differences of compilers and of C and C++
 * ------------------------------------------------------------------------ */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h> /* vsnprintf; no stream is ever written */
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
#define GPN_ZERO \
    {            \
    }
#else
/* clang-format off */
#define GPN_ZERO {0}
/* clang-format on */
#endif

#define GPN_UNUSED(x)    ((void)(x))
#define GPN_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#if defined(__GNUC__) || defined(__clang__)
#if defined(__MINGW32__) && !defined(__clang__)
#define GPN_PRINTF(fmt, args) __attribute__((format(gnu_printf, fmt, args)))
#else
#define GPN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#endif
/* For functions which -Os would copy or merge into others, to be larger. */
#define GPN_NOINLINE __attribute__((noinline))
#else
#define GPN_PRINTF(fmt, args)
#define GPN_NOINLINE
#endif

/* Who compiles for size gets the plain loop where there is also a quick one;
 * the results are the same. */
#if defined(__OPTIMIZE_SIZE__) && !defined(GPN_SMALL)
#define GPN_SMALL
#endif

/* Checks our own invariants only: never arguments, memory or input. */
#ifndef GPTNER_ASSERT
#define GPTNER_ASSERT(condition) ((void)0)
#endif

#if defined(GPTNER_MALLOC) || defined(GPTNER_REALLOC) || defined(GPTNER_FREE)
#if !defined(GPTNER_MALLOC) || !defined(GPTNER_REALLOC) || !defined(GPTNER_FREE)
#error "define all of GPTNER_MALLOC, GPTNER_REALLOC and GPTNER_FREE, or none"
#endif
#else
#define GPTNER_MALLOC(size)       malloc(size)
#define GPTNER_REALLOC(ptr, size) realloc(ptr, size)
#define GPTNER_FREE(ptr)          free(ptr)
#endif

/* Tests fail the n-th call of a kind: GPTNER_FAULT_INJECTION makes every
 * function that can fail ask the program's gptner_fault() first. */
enum {
    GPN_FAULT_ALLOC = 1,
    GPN_FAULT_FILE,
    GPN_FAULT_SOCKET,
    GPN_FAULT_TLS,
    GPN_FAULT_THREAD,
    GPN_FAULT_CLOCK,
    GPN_FAULT_RANDOM,
    GPN_FAULT_RESOLVE
};
#ifdef GPTNER_FAULT_INJECTION
#ifdef __cplusplus
extern "C"
#endif
    int
    gptner_fault(int kind);
#define GPN_FAULT(kind) (gptner_fault(kind) != 0)
#else
#define GPN_FAULT(kind) false
#endif

GPTNER_API const char *gptner_version(void)
{
    return GPTNER_VERSION;
}

/* The status of each line in the texts below. */
static const unsigned char gpn_status_values[] = {
#define GPTNER_X(name, value, text) value,
    GPTNER_ERROR_LIST(GPTNER_X)
#undef GPTNER_X
        GPTNER_OK};

/* Of texts that stand one behind the other, with a NUL after each, the one
 * that belongs to status; the last is for all others. */
static const char *gpn_status_find(const char *texts, gptner_status status)
{
    size_t i = 0;
    while (i < GPN_COUNT(gpn_status_values) &&
           gpn_status_values[i] != (unsigned)status) {
        texts += strlen(texts) + 1;
        i++;
    }
    return texts;
}

GPTNER_API const char *gptner_status_text(gptner_status status)
{
#define GPTNER_X(name, value, text) text "\0"
    return gpn_status_find(GPTNER_ERROR_LIST(GPTNER_X) "ok\0unknown status",
                           status);
#undef GPTNER_X
}

GPTNER_API const char *gptner_status_name(gptner_status status)
{
#define GPTNER_X(name, value, text) "GPTNER_ERR_" #name "\0"
    return gpn_status_find(
        GPTNER_ERROR_LIST(GPTNER_X) "GPTNER_OK\0GPTNER_ERR_UNKNOWN", status);
#undef GPTNER_X
}

/* ===========================================================================
 * >>platform   layer 1   memory, clock, threads, sockets, files, random
 * calls: the operating system
 *
 * The only place that knows which system it runs on. Each function that can
 * fail in the real world first asks GPN_FAULT, so that a test can make the
 * n-th call fail. Errors are the system's own numbers (errno, GetLastError,
 * WSAGetLastError) in *oserr; gpn_os_text names them without a locale.
 * ======================================================================== */
#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <bcrypt.h>
#include <process.h>
#include <wincrypt.h>
#ifdef _MSC_VER
#pragma comment(lib, "ws2_32")
#pragma comment(lib, "bcrypt")
#pragma comment(lib, "crypt32")
#endif
#else
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
/* Strict C hides what POSIX adds from whoever includes a header too early. */
#ifndef O_CLOEXEC
#error "include gptner.h before all other headers, or define _GNU_SOURCE"
#endif
#ifndef GPTNER_NO_THREADS
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#endif
#if defined(__linux__) && !defined(GPTNER_NO_EPOLL)
#include <sys/epoll.h>
#include <sys/eventfd.h>
#define GPN_EPOLL 1
#else
#include <poll.h>
#endif
#endif

#ifdef _WIN32
typedef SOCKET gpn_fd;
typedef size_t gpn_text_len; /* what inet_ntop takes */
#define GPN_FD_NONE  INVALID_SOCKET
#define GPN_E_IO     ERROR_WRITE_FAULT
#define GPN_E_MEMORY ERROR_NOT_ENOUGH_MEMORY
#define GPN_E_NAME   ERROR_INVALID_NAME
#define GPN_E_ABSENT ERROR_FILE_NOT_FOUND
#define GPN_E_RESET  WSAECONNRESET
#else
typedef int gpn_fd;
typedef socklen_t gpn_text_len; /* what inet_ntop takes */
#define GPN_FD_NONE  (-1)
#define GPN_E_IO     EIO
#define GPN_E_MEMORY ENOMEM
#define GPN_E_NAME   ENAMETOOLONG
#define GPN_E_ABSENT ENOENT
#define GPN_E_RESET  ECONNRESET
#endif

/* ---- memory ---- */

/* What every object of a client points to; complete, shared, never written
 * after set-up. */
typedef struct gpn_env {
    gptner_allocator mem;
    gptner_hooks hooks;
    gptner_log_fn log_fn;
    void *log_user;
    gptner_log_level log_level;
} gpn_env;

static void *gpn_mem_default_alloc(size_t size, void *user)
{
    GPN_UNUSED(user);
    return GPTNER_MALLOC(size);
}

static void *gpn_mem_default_realloc(void *ptr, size_t size, void *user)
{
    GPN_UNUSED(user);
    return GPTNER_REALLOC(ptr, size);
}

static void gpn_mem_default_free(void *ptr, void *user)
{
    GPN_UNUSED(user);
    GPTNER_FREE(ptr);
}

/* Both arguments may be NULL. Logging is off until the caller sets it.
 * false: an allocator with some of its functions missing. */
static bool gpn_env_init(gpn_env *env, const gptner_allocator *mem,
                         const gptner_hooks *hooks)
{
    memset(env, 0, sizeof *env);
    env->log_level = GPTNER_LOG_INFO;
    if (hooks != NULL) {
        env->hooks = *hooks;
    }
    if (mem != NULL) {
        env->mem = *mem;
    }
    if (env->mem.alloc_fn == NULL && env->mem.realloc_fn == NULL &&
        env->mem.free_fn == NULL) {
        env->mem.alloc_fn = gpn_mem_default_alloc;
        env->mem.realloc_fn = gpn_mem_default_realloc;
        env->mem.free_fn = gpn_mem_default_free;
    }
    return env->mem.alloc_fn != NULL && env->mem.realloc_fn != NULL &&
           env->mem.free_fn != NULL;
}

static void *gpn_mem_alloc(const gpn_env *env, size_t size)
{
    if (GPN_FAULT(GPN_FAULT_ALLOC)) {
        return NULL;
    }
    return env->mem.alloc_fn(size > 0 ? size : 1, env->mem.user);
}

static void *gpn_mem_zalloc(const gpn_env *env, size_t size)
{
    void *ptr = gpn_mem_alloc(env, size);

    if (ptr != NULL) {
        memset(ptr, 0, size);
    }
    return ptr;
}

static void *gpn_mem_realloc(const gpn_env *env, void *ptr, size_t size)
{
    if (ptr == NULL) {
        return gpn_mem_alloc(env, size);
    }
    if (GPN_FAULT(GPN_FAULT_ALLOC)) {
        return NULL;
    }
    return env->mem.realloc_fn(ptr, size > 0 ? size : 1, env->mem.user);
}

static void gpn_mem_free(const gpn_env *env, void *ptr)
{
    if (ptr != NULL) {
        env->mem.free_fn(ptr, env->mem.user);
    }
}

/* Overwrites a secret; the compiler may not leave it out. */
static void gpn_mem_wipe(void *ptr, size_t size)
{
#if defined(__GNUC__) || defined(__clang__)
    if (size > 0) {
        memset(ptr, 0, size);
        __asm__ __volatile__("" : : "r"(ptr) : "memory");
    }
#else
    volatile unsigned char *p = (volatile unsigned char *)ptr;

    while (size-- > 0) {
        *p++ = 0;
    }
#endif
}

static bool gpn_size_add(size_t a, size_t b, size_t *out)
{
    *out = a + b;
    return b <= SIZE_MAX - a;
}

static bool gpn_size_mul(size_t a, size_t b, size_t *out)
{
    *out = a * b;
    return a == 0 || b <= SIZE_MAX / a;
}

/* ---- clock and chance ---- */

/* The system's monotonic clock; 0 when it fails. */
static int64_t gpn_clock_os_ms(void)
{
    if (GPN_FAULT(GPN_FAULT_CLOCK)) {
        return 0;
    }
#ifdef _WIN32
    return (int64_t)GetTickCount64();
#else
    {
        struct timespec t;

        if (clock_gettime(CLOCK_MONOTONIC, &t) != 0) {
            return 0;
        }
        return (int64_t)t.tv_sec * 1000 + (int64_t)(t.tv_nsec / 1000000);
    }
#endif
}

/* Monotonic milliseconds, at least 1. A clock that fails reads 1: a deadline
 * computed from that has already passed, so nothing waits for ever. */
static int64_t gpn_clock_ms(const gpn_env *env)
{
    int64_t ms;

    if (env->hooks.monotonic_ms_fn != NULL) {
        ms = env->hooks.monotonic_ms_fn(env->hooks.user);
    } else {
        ms = gpn_clock_os_ms();
    }
    return ms > 0 ? ms : 1;
}

/* Milliseconds since 1970-01-01 UTC; 0 when the clock fails. */
static int64_t gpn_clock_unix_ms(const gpn_env *env)
{
    if (env->hooks.unix_ms_fn != NULL) {
        return env->hooks.unix_ms_fn(env->hooks.user);
    }
    if (GPN_FAULT(GPN_FAULT_CLOCK)) {
        return 0;
    }
#ifdef _WIN32
    {
        FILETIME ft;
        uint64_t ticks; /* 100 ns since 1601 */

        GetSystemTimeAsFileTime(&ft);
        ticks = ((uint64_t)ft.dwHighDateTime << 32) | ft.dwLowDateTime;
        return (int64_t)(ticks / 10000) - INT64_C(11644473600000);
    }
#else
    {
        struct timespec t;

        if (clock_gettime(CLOCK_REALTIME, &t) != 0) {
            return 0;
        }
        return (int64_t)t.tv_sec * 1000 + (int64_t)(t.tv_nsec / 1000000);
    }
#endif
}

static int gpn_pid(void)
{
#ifdef _WIN32
    return (int)GetCurrentProcessId();
#else
    return (int)getpid();
#endif
}

/* Random bytes from the system; never blocks for entropy. */
static bool gpn_random_os(void *out, size_t size)
{
    if (GPN_FAULT(GPN_FAULT_RANDOM)) {
        return false;
    }
#if defined(_WIN32)
    return BCryptGenRandom(NULL, (PUCHAR)out, (ULONG)size,
                           BCRYPT_USE_SYSTEM_PREFERRED_RNG) == 0;
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) || \
    defined(__NetBSD__) || defined(__DragonFly__)
    arc4random_buf(out, size);
    return true;
#else
    {
        int fd;
        bool ok;

#ifdef SYS_getrandom /* by number: older C libraries have no wrapper */
        if (syscall(SYS_getrandom, out, size, 1 /* GRND_NONBLOCK */) ==
            (int)size) {
            return true;
        }
#endif
        fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            return false;
        }
        ok = read(fd, out, size) == (ssize_t)size;
        close(fd);
        return ok;
    }
#endif
}

/* 64 bits for jitter, names and boundaries. Where the system has no random
 * numbers, time and addresses, mixed (splitmix64), have to do: never use this
 * for keys. */
static uint64_t gpn_random_u64(const gpn_env *env)
{
    uint64_t x = 0;

    if (env->hooks.random_fn != NULL) {
        return env->hooks.random_fn(env->hooks.user);
    }
    if (gpn_random_os(&x, sizeof x)) {
        return x;
    }
    x = (uint64_t)gpn_clock_unix_ms(env) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= (uint64_t)(uintptr_t)&x + ((uint64_t)gpn_pid() << 40);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* ---- threads ---- */

/* A mutex may also be static: gpn_mutex m = GPN_MUTEX_INIT. */
#if defined(GPTNER_NO_THREADS)
typedef struct gpn_mutex {
    char unused;
} gpn_mutex;
typedef struct gpn_thread {
    char unused;
} gpn_thread;
/* clang-format off */
#define GPN_MUTEX_INIT {0}
/* clang-format on */
#elif defined(_WIN32)
typedef struct gpn_mutex {
    SRWLOCK lock;
} gpn_mutex;
typedef struct gpn_thread {
    HANDLE handle;
    void (*fn)(void *arg);
    void *arg;
} gpn_thread;
/* clang-format off */
#define GPN_MUTEX_INIT {SRWLOCK_INIT}
/* clang-format on */
#else
typedef struct gpn_mutex {
    pthread_mutex_t lock;
} gpn_mutex;
typedef struct gpn_thread {
    pthread_t id;
    void (*fn)(void *arg);
    void *arg;
} gpn_thread;
/* clang-format off */
#define GPN_MUTEX_INIT {PTHREAD_MUTEX_INITIALIZER}
/* clang-format on */
#endif

static bool gpn_mutex_init(gpn_mutex *m)
{
    memset(m, 0, sizeof *m);
    if (GPN_FAULT(GPN_FAULT_THREAD)) {
        return false;
    }
#if defined(GPTNER_NO_THREADS)
    return true;
#elif defined(_WIN32)
    InitializeSRWLock(&m->lock);
    return true;
#else
    return pthread_mutex_init(&m->lock, NULL) == 0;
#endif
}

static void gpn_mutex_deinit(gpn_mutex *m)
{
#if defined(GPTNER_NO_THREADS) || defined(_WIN32)
    GPN_UNUSED(m);
#else
    pthread_mutex_destroy(&m->lock);
#endif
}

static void gpn_mutex_lock(gpn_mutex *m)
{
#if defined(GPTNER_NO_THREADS)
    GPN_UNUSED(m);
#elif defined(_WIN32)
    AcquireSRWLockExclusive(&m->lock);
#else
    pthread_mutex_lock(&m->lock);
#endif
}

static void gpn_mutex_unlock(gpn_mutex *m)
{
#if defined(GPTNER_NO_THREADS)
    GPN_UNUSED(m);
#elif defined(_WIN32)
    ReleaseSRWLockExclusive(&m->lock);
#else
    pthread_mutex_unlock(&m->lock);
#endif
}

#ifndef GPTNER_NO_THREADS
#ifdef _WIN32
static unsigned __stdcall gpn_thread_entry(void *thread)
{
    gpn_thread *t = (gpn_thread *)thread;
    t->fn(t->arg);
    return 0;
}

static bool gpn_thread_create(gpn_thread *t, size_t stack_bytes)
{
    t->handle =
        (HANDLE)_beginthreadex(NULL, (unsigned)stack_bytes, gpn_thread_entry, t,
                               STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    return t->handle != NULL;
}
#else
static void *gpn_thread_entry(void *thread)
{
    gpn_thread *t = (gpn_thread *)thread;
    t->fn(t->arg);
    return NULL;
}

static bool gpn_thread_set_stack(pthread_attr_t *attr, size_t bytes)
{
    if (bytes == 0) {
        return true;
    }
    if (bytes < (size_t)PTHREAD_STACK_MIN) {
        bytes = (size_t)PTHREAD_STACK_MIN;
    }
    if (bytes > SIZE_MAX - 0xffff) {
        return false;
    }
    /* some systems insist on whole pages; none has larger ones */
    bytes = (bytes + 0xffff) & ~(size_t)0xffff;
    return pthread_attr_setstacksize(attr, bytes) == 0;
}

/* The new thread inherits a mask with every signal blocked but those that
 * report a fault of its own: the caller's threads take the signals. */
static bool gpn_thread_create(gpn_thread *t, size_t stack_bytes)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    pthread_attr_t attr;
    sigset_t block, old;
    size_t i;
    bool ok;

    if (pthread_attr_init(&attr) != 0) {
        return false;
    }
    sigfillset(&block);
    for (i = 0; i < GPN_COUNT(faults); i++) {
        sigdelset(&block, faults[i]);
    }
    ok = gpn_thread_set_stack(&attr, stack_bytes) &&
         pthread_sigmask(SIG_SETMASK, &block, &old) == 0;
    if (ok) {
        ok = pthread_create(&t->id, &attr, gpn_thread_entry, t) == 0;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    pthread_attr_destroy(&attr);
    return ok;
}
#endif

/* stack_bytes 0: the system's default. End it with join or detach; *t stays
 * where it is until fn has begun. */
static bool gpn_thread_start(gpn_thread *t, void (*fn)(void *arg), void *arg,
                             size_t stack_bytes)
{
    if (GPN_FAULT(GPN_FAULT_THREAD)) {
        return false;
    }
    t->fn = fn;
    t->arg = arg;
    return gpn_thread_create(t, stack_bytes);
}

static void gpn_thread_join(gpn_thread *t)
{
#ifdef _WIN32
    WaitForSingleObject(t->handle, INFINITE);
    CloseHandle(t->handle);
#else
    pthread_join(t->id, NULL);
#endif
}

static void gpn_thread_detach(gpn_thread *t)
{
#ifdef _WIN32
    CloseHandle(t->handle);
#else
    pthread_detach(t->id);
#endif
}
#else
static bool gpn_thread_start(gpn_thread *t, void (*fn)(void *arg), void *arg,
                             size_t stack_bytes)
{
    GPN_UNUSED(t);
    GPN_UNUSED(fn);
    GPN_UNUSED(arg);
    GPN_UNUSED(stack_bytes);
    return false;
}

static void gpn_thread_join(gpn_thread *t)
{
    GPN_UNUSED(t);
}

static void gpn_thread_detach(gpn_thread *t)
{
    GPN_UNUSED(t);
}
#endif

/* An int for any thread and for signal handlers. */
#if defined(_MSC_VER) && !defined(__clang__)
typedef struct gpn_atomic {
    volatile LONG value;
} gpn_atomic;

static int gpn_atomic_get(const gpn_atomic *a)
{
    return (int)ReadAcquire(&a->value);
}

static void gpn_atomic_set(gpn_atomic *a, int value)
{
    InterlockedExchange(&a->value, (LONG)value);
}

#else
typedef struct gpn_atomic {
    int value;
} gpn_atomic;

static int gpn_atomic_get(const gpn_atomic *a)
{
    return __atomic_load_n(&a->value, __ATOMIC_ACQUIRE);
}

static void gpn_atomic_set(gpn_atomic *a, int value)
{
    __atomic_store_n(&a->value, value, __ATOMIC_RELEASE);
}

#endif

/* The processors this process may use, at least 1. */
static int gpn_cpu_count(void)
{
    int n = 0;
#if defined(_WIN32)
    SYSTEM_INFO info;

    GetSystemInfo(&info);
    n = (int)info.dwNumberOfProcessors;
#else
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        n = CPU_COUNT(&set);
    }
#endif
    if (n < 1) {
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    }
#endif
    return n > 0 ? n : 1;
}

/* ---- error texts ---- */

typedef struct gpn_os_message {
    int code;
    const char *text;
} gpn_os_message;

/* The text for code. Any other number follows the text of the list's last
 * entry, which n does not count, in buf. */
static const char *gpn_os_message_find(const gpn_os_message *list, size_t n,
                                       int code, char *buf, size_t cap)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (list[i].code == code) {
            return list[i].text;
        }
    }
    snprintf(buf, cap, "%s %d", list[n].text, code);
    return buf;
}

/* Never the C library's text: that follows the locale, and strerror is not
 * safe among threads. Unknown numbers are written into buf. */
static GPN_NOINLINE const char *gpn_os_text(int oserr, char *buf, size_t cap)
{
    static const gpn_os_message messages[] = {
#ifdef _WIN32
        {ERROR_FILE_NOT_FOUND, "no such file or directory"},
        {ERROR_PATH_NOT_FOUND, "no such file or directory"},
        {ERROR_ACCESS_DENIED, "permission denied"},
        {ERROR_SHARING_VIOLATION, "file is in use"},
        {ERROR_FILE_EXISTS, "file exists"},
        {ERROR_DISK_FULL, "no space left on device"},
        {ERROR_HANDLE_DISK_FULL, "no space left on device"},
        {ERROR_NOT_ENOUGH_MEMORY, "out of memory"},
        {ERROR_INVALID_NAME, "invalid file name"},
        {ERROR_WRITE_FAULT, "input/output error"},
        {WSAECONNREFUSED, "connection refused"},
        {WSAECONNRESET, "connection reset by peer"},
        {WSAECONNABORTED, "connection aborted"},
        {WSAETIMEDOUT, "connection timed out"},
        {WSAENETUNREACH, "network unreachable"},
        {WSAEHOSTUNREACH, "no route to host"},
        {WSAEADDRNOTAVAIL, "address not available"},
        {WSAEMFILE, "too many open files"},
        {WSAENOBUFS, "out of memory"},
#else
        {ENOENT, "no such file or directory"},
        {EACCES, "permission denied"},
        {EPERM, "operation not permitted"},
        {EEXIST, "file exists"},
        {EISDIR, "is a directory"},
        {ENOTDIR, "not a directory"},
        {ENOSPC, "no space left on device"},
        {EDQUOT, "disk quota exceeded"},
        {EFBIG, "file too large"},
        {EROFS, "read-only file system"},
        {ENAMETOOLONG, "file name too long"},
        {EMFILE, "too many open files"},
        {ENFILE, "too many open files in the system"},
        {ENOMEM, "out of memory"},
        {EIO, "input/output error"},
        {EPIPE, "broken pipe"},
        {ECONNREFUSED, "connection refused"},
        {ECONNRESET, "connection reset by peer"},
        {ECONNABORTED, "connection aborted"},
        {ETIMEDOUT, "connection timed out"},
        {ENETUNREACH, "network unreachable"},
        {EHOSTUNREACH, "no route to host"},
        {EADDRNOTAVAIL, "address not available"},
        {EAFNOSUPPORT, "address family not supported"},
#endif
        {0, "error"} /* any other */
    };

    return gpn_os_message_find(messages, GPN_COUNT(messages) - 1, oserr, buf,
                               cap);
}

/* ---- addresses and names ---- */

typedef struct gpn_addr {
    struct sockaddr_storage ss;
    unsigned len;
} gpn_addr;

static bool gpn_addr_is_v6(const gpn_addr *a)
{
    return a->ss.ss_family == AF_INET6;
}

/* The bytes of an IP literal: 4 or 16 of them, 0 for anything else. */
static int gpn_addr_bytes(const char *host, unsigned char out[16])
{
    if (inet_pton(AF_INET, host, out) == 1) {
        return 4;
    }
    return inet_pton(AF_INET6, host, out) == 1 ? 16 : 0;
}

/* Where the IP bytes lie in the address. */
static size_t gpn_addr_at(const gpn_addr *a)
{
    return gpn_addr_is_v6(a) ? offsetof(struct sockaddr_in6, sin6_addr)
                             : offsetof(struct sockaddr_in, sin_addr);
}

/* IP literals only: v4 as a dotted quad, v6 without brackets. */
static bool gpn_addr_parse(const char *host, int port, gpn_addr *out)
{
    unsigned char bytes[16];
    int n = gpn_addr_bytes(host, bytes);
    uint16_t net_port = htons((uint16_t)port);
    char *raw = (char *)&out->ss;

    memset(out, 0, sizeof *out);
    if (n > 0) {
        out->ss.ss_family = n == 4 ? AF_INET : AF_INET6;
        out->len = n == 4 ? (unsigned)sizeof(struct sockaddr_in)
                          : (unsigned)sizeof(struct sockaddr_in6);
        /* the port has the same place in both */
        memcpy(raw + offsetof(struct sockaddr_in, sin_port), &net_port, 2);
        memcpy(raw + gpn_addr_at(out), bytes, (size_t)n);
    }
    return n > 0;
}

/* "192.0.2.1" or "2001:db8::1", without the port. */
static void gpn_addr_text(const gpn_addr *a, char *buf, size_t cap)
{
    if (inet_ntop(a->ss.ss_family, (const char *)&a->ss + gpn_addr_at(a), buf,
                  (gpn_text_len)cap) == NULL) {
        snprintf(buf, cap, "?");
    }
}

#ifdef _WIN32
static BOOL CALLBACK gpn_net_start_once(PINIT_ONCE once, PVOID unused,
                                        PVOID *context)
{
    WSADATA data;

    GPN_UNUSED(once);
    GPN_UNUSED(unused);
    GPN_UNUSED(context);
    return WSAStartup(MAKEWORD(2, 2), &data) == 0;
}
#endif

/* Winsock wants to be started; it is never stopped, because a resolver thread
 * may outlive everything else. */
static void gpn_net_start(void)
{
#ifdef _WIN32
    static INIT_ONCE started = INIT_ONCE_STATIC_INIT;

    InitOnceExecuteOnce(&started, gpn_net_start_once, NULL, NULL);
#endif
}

/* The addresses that "localhost" always has (RFC 6761 6.3), for systems whose
 * files do not say so, such as an empty root without /etc/hosts. */
static size_t gpn_resolve_localhost(const char *host, int port, gpn_addr *out,
                                    size_t cap)
{
    size_t n = 0;

    if (strcmp(host, "localhost") == 0) {
        n += n < cap && gpn_addr_parse("127.0.0.1", port, &out[n]);
        n += n < cap && gpn_addr_parse("::1", port, &out[n]);
    }
    return n;
}

/* Blocks in getaddrinfo, which nothing can interrupt: for a helper thread.
 * *n is the number of addresses written to out, in the system's order. 0: ok;
 * otherwise why says what happened. */
static int gpn_resolve(const char *host, int port, gpn_addr *out, size_t cap,
                       size_t *n, char *why, size_t why_cap)
{
    static const gpn_os_message messages[] = {
        {EAI_NONAME, "no such host"},
        {EAI_AGAIN, "the name server gave no answer"},
        {EAI_FAIL, "the name server failed"},
        {EAI_MEMORY, "out of memory"},
        {0, "resolver error"}}; /* any other */
    struct addrinfo hints, *list = NULL, *a;
    char service[12];
    int code, tries = 2; /* the first query after a pause often fails */

    *n = 0;
    gpn_net_start();
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    snprintf(service, sizeof service, "%d", port);
    if (GPN_FAULT(GPN_FAULT_RESOLVE)) {
        code = EAI_FAIL;
    } else {
        do {
            code = getaddrinfo(host, service, &hints, &list);
        } while (code == EAI_AGAIN && --tries > 0);
    }
    if (code == 0) {
        for (a = list; a != NULL && *n < cap; a = a->ai_next) {
            if ((a->ai_family == AF_INET || a->ai_family == AF_INET6) &&
                a->ai_addrlen <= sizeof out->ss) {
                memset(&out[*n], 0, sizeof *out);
                memcpy(&out[*n].ss, a->ai_addr, a->ai_addrlen);
                out[*n].len = (unsigned)a->ai_addrlen;
                *n += 1;
            }
        }
        freeaddrinfo(list);
        code = *n > 0 ? 0 : EAI_NONAME;
    } else if (code != EAI_FAIL) {
        *n = gpn_resolve_localhost(host, port, out, cap);
        code = *n > 0 ? 0 : code;
    }
    if (code != 0 && why_cap > 0) {
        char number[32];

        snprintf(why, why_cap, "%s",
                 gpn_os_message_find(messages, GPN_COUNT(messages) - 1, code,
                                     number, sizeof number));
    }
    return code;
}

/* ---- sockets ---- */

typedef enum gpn_io {
    GPN_IO_DONE,
    GPN_IO_WANT_READ,
    GPN_IO_WANT_WRITE,
    GPN_IO_WAIT, /* for neither: a wake-up or a time */
    GPN_IO_EOF,
    GPN_IO_FAILED
} gpn_io;

static int gpn_sock_error(void)
{
#ifdef _WIN32
    return WSAGetLastError();
#else
    return errno;
#endif
}

static bool gpn_sock_would_block(int oserr)
{
#ifdef _WIN32
    return oserr == WSAEWOULDBLOCK;
#else
    return oserr == EAGAIN || oserr == EWOULDBLOCK;
#endif
}

static void gpn_sock_close(gpn_fd *fd)
{
    if (*fd != GPN_FD_NONE) {
#ifdef _WIN32
        closesocket(*fd);
#else
        close(*fd);
#endif
        *fd = GPN_FD_NONE;
    }
}

#if !defined(_WIN32) && \
    !(defined(GPN_EPOLL) && defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK))
/* Non-blocking and closed on exec, where it could not be said at creation. */
static bool gpn_fd_prepare(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}
#endif

/* A non-blocking socket that children do not inherit. */
static gpn_fd gpn_sock_open(int family, int type)
{
    gpn_fd fd;
#if defined(_WIN32)
    u_long on = 1;

    gpn_net_start();
    fd = WSASocketW(family, type, 0, NULL, 0,
                    WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (fd != GPN_FD_NONE && ioctlsocket(fd, (int)FIONBIO, &on) != 0) {
        gpn_sock_close(&fd);
    }
#elif defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
    fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
#else
    fd = socket(family, type, 0);
    if (fd >= 0 && !gpn_fd_prepare(fd)) {
        gpn_sock_close(&fd);
    }
#endif
    return fd;
}

/* Small requests go out at once; a peer that vanished during a long silent
 * answer is noticed after about 3 minutes (60 + 4 * 30 s), not after the
 * system's 2 hours. */
static void gpn_sock_tune(gpn_fd fd)
{
    static const struct {
        int level, name, value;
    } options[] = {{IPPROTO_TCP, TCP_NODELAY, 1},
#ifdef TCP_KEEPIDLE
                   {IPPROTO_TCP, TCP_KEEPIDLE, 60},
#endif
#ifdef TCP_KEEPINTVL
                   {IPPROTO_TCP, TCP_KEEPINTVL, 30},
#endif
#ifdef TCP_KEEPCNT
                   {IPPROTO_TCP, TCP_KEEPCNT, 4},
#endif
#ifdef SO_NOSIGPIPE
                   {SOL_SOCKET, SO_NOSIGPIPE, 1},
#endif
                   {SOL_SOCKET, SO_KEEPALIVE, 1}};
    size_t i;

    for (i = 0; i < GPN_COUNT(options); i++) {
        /* best effort: a socket without it still works */
        setsockopt(fd, options[i].level, options[i].name,
                   (const char *)&options[i].value, sizeof options[i].value);
    }
}

/* Opens a socket and starts to connect. DONE, WANT_WRITE (in progress), or
 * FAILED with nothing left open. */
static gpn_io gpn_sock_connect(const gpn_addr *addr, gpn_fd *fd, int *oserr)
{
    int code;

    *fd = GPN_FD_NONE;
    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        *oserr = GPN_E_RESET;
        return GPN_IO_FAILED;
    }
    *fd = gpn_sock_open(addr->ss.ss_family, SOCK_STREAM);
    if (*fd == GPN_FD_NONE) {
        *oserr = gpn_sock_error();
        return GPN_IO_FAILED;
    }
    gpn_sock_tune(*fd);
    if (connect(*fd, (const struct sockaddr *)&addr->ss,
                (socklen_t)addr->len) == 0) {
        return GPN_IO_DONE;
    }
    code = gpn_sock_error();
#ifdef _WIN32
    if (code == WSAEWOULDBLOCK || code == WSAEINPROGRESS) {
        return GPN_IO_WANT_WRITE;
    }
#else
    if (code == EINPROGRESS || code == EINTR) { /* EINTR: it goes on */
        return GPN_IO_WANT_WRITE;
    }
#endif
    *oserr = code;
    gpn_sock_close(fd);
    return GPN_IO_FAILED;
}

/* To be asked when the socket is writable; WANT_WRITE: still in progress. */
static gpn_io gpn_sock_connected(gpn_fd fd, int *oserr)
{
    int code = 0;
    socklen_t len = sizeof code;
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;

    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        *oserr = GPN_E_RESET;
        return GPN_IO_FAILED;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, (char *)&code, &len) != 0) {
        code = gpn_sock_error();
    }
    if (code != 0) {
        *oserr = code;
        return GPN_IO_FAILED;
    }
    /* no error yet does not mean connected */
    if (getpeername(fd, (struct sockaddr *)&peer, &peer_len) != 0) {
        return GPN_IO_WANT_WRITE;
    }
    return GPN_IO_DONE;
}

/* The end of a send or recv that returned n, below 0: failed. */
static gpn_io gpn_sock_moved(int64_t n, gpn_io want, size_t *moved, int *oserr)
{
    if (n >= 0) {
        *moved = (size_t)n;
        return GPN_IO_DONE;
    }
    *oserr = gpn_sock_error();
    return gpn_sock_would_block(*oserr) ? want : GPN_IO_FAILED;
}

static bool gpn_sock_interrupted(void)
{
#ifdef _WIN32
    return false;
#else
    return errno == EINTR;
#endif
}

static gpn_io gpn_sock_send(gpn_fd fd, const char *data, size_t len,
                            size_t *sent, int *oserr)
{
    int64_t n;

    *sent = 0;
    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        *oserr = GPN_E_RESET;
        return GPN_IO_FAILED;
    }
    do {
#if defined(_WIN32)
        n = send(fd, data, len > INT_MAX ? INT_MAX : (int)len, 0);
#elif defined(MSG_NOSIGNAL)
        n = send(fd, data, len, MSG_NOSIGNAL);
#else
        n = send(fd, data, len, 0);
#endif
    } while (n < 0 && gpn_sock_interrupted());
    return gpn_sock_moved(n, GPN_IO_WANT_WRITE, sent, oserr);
}

/* EOF: the peer has sent FIN. */
static gpn_io gpn_sock_recv(gpn_fd fd, char *data, size_t cap, size_t *got,
                            int *oserr)
{
    int64_t n;

    *got = 0;
    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        *oserr = GPN_E_RESET;
        return GPN_IO_FAILED;
    }
    do {
#ifdef _WIN32
        n = recv(fd, data, cap > INT_MAX ? INT_MAX : (int)cap, 0);
#else
        n = recv(fd, data, cap, 0);
#endif
    } while (n < 0 && gpn_sock_interrupted());
    if (n == 0) {
        return GPN_IO_EOF;
    }
    return gpn_sock_moved(n, GPN_IO_WANT_READ, got, oserr);
}

/* ---- readiness ----
 * One poller a thread, level-triggered. Only gpn_poller_wake may be called by
 * others. A batch of events may name a socket that the handler of an earlier
 * event has removed: the owner of the tag has to bear that. */

#ifdef GPN_EPOLL /* the system's own bits: nothing to translate */
#define GPN_POLL_IN  ((unsigned)EPOLLIN)
#define GPN_POLL_OUT ((unsigned)EPOLLOUT)
#else
#define GPN_POLL_IN  1u
#define GPN_POLL_OUT 2u
#endif

typedef struct gpn_event {
    void *tag;      /* NULL: woken */
    unsigned ready; /* GPN_POLL_IN, _OUT; an error or a hang-up sets both */
} gpn_event;

/* A finite wait is cut into slices: with a clock that fails or jumps, no wait
 * is much longer than this. In milliseconds. */
#define GPN_POLL_SLICE 10000

#ifdef GPN_EPOLL
typedef struct gpn_poller {
    const gpn_env *env;
    int epoll_fd;
    int wake_fd; /* an eventfd */
} gpn_poller;

static void gpn_poller_deinit(gpn_poller *p)
{
    gpn_sock_close(&p->wake_fd);
    gpn_sock_close(&p->epoll_fd);
}

static bool gpn_poller_init(gpn_poller *p, const gpn_env *env)
{
    struct epoll_event e;

    p->env = env;
    p->epoll_fd = p->wake_fd = GPN_FD_NONE;
    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        return false;
    }
    memset(&e, 0, sizeof e);
    e.events = EPOLLIN;
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->epoll_fd < 0 || p->wake_fd < 0 ||
        epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->wake_fd, &e) != 0) {
        gpn_poller_deinit(p);
        return false;
    }
    return true;
}

/* interest 0 removes the socket, which cannot fail. tag is not NULL. */
static bool gpn_poller_set(gpn_poller *p, gpn_fd fd, unsigned interest,
                           void *tag)
{
    struct epoll_event e;

    memset(&e, 0, sizeof e);
    if (interest == 0) {
        epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, fd, &e);
        return true;
    }
    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        return false;
    }
    e.events = interest;
    e.data.ptr = tag;
    if (epoll_ctl(p->epoll_fd, EPOLL_CTL_MOD, fd, &e) == 0) {
        return true;
    }
    return errno == ENOENT &&
           epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0;
}

static void gpn_poller_drain(gpn_poller *p)
{
    uint64_t count;

    if (read(p->wake_fd, &count, sizeof count) < 0) {
        return; /* somebody else's signal came in between; or nothing there */
    }
}

/* One system call. timeout in ms, -1: none. Interrupted: no events. */
static int gpn_poller_look(gpn_poller *p, int timeout, gpn_event *events,
                           int cap)
{
    struct epoll_event list[64];
    int i, n;

    if (cap > (int)GPN_COUNT(list)) {
        cap = (int)GPN_COUNT(list);
    }
    n = epoll_wait(p->epoll_fd, list, cap, timeout);
    if (n < 0) {
        return errno == EINTR ? 0 : -1;
    }
    for (i = 0; i < n; i++) {
        events[i].tag = list[i].data.ptr;
        events[i].ready = list[i].events & (GPN_POLL_IN | GPN_POLL_OUT);
        if ((list[i].events & (EPOLLERR | EPOLLHUP)) != 0) {
            events[i].ready = GPN_POLL_IN | GPN_POLL_OUT;
        }
        if (events[i].tag == NULL) {
            gpn_poller_drain(p);
        }
    }
    return n;
}
#else
#ifdef _WIN32
typedef WSAPOLLFD gpn_pollfd;
#else
typedef struct pollfd gpn_pollfd;
#endif

/* The poll() form: fds[0] is the wake-up, tags[i] belongs to fds[i]. */
typedef struct gpn_poller {
    const gpn_env *env;
    gpn_pollfd *fds;
    void **tags;
    size_t len, cap;
    size_t next; /* where the next look begins, so that none is starved */
    gpn_fd wake_in;
    gpn_fd wake_out; /* the same socket on Windows */
} gpn_poller;

static bool gpn_poller_grow(gpn_poller *p)
{
    size_t cap = p->cap > 0 ? p->cap * 2 : 16;
    void *fds, *tags;

    if (p->len < p->cap) {
        return true;
    }
    fds = gpn_mem_realloc(p->env, p->fds, cap * sizeof *p->fds);
    if (fds == NULL) {
        return false;
    }
    p->fds = (gpn_pollfd *)fds;
    tags = gpn_mem_realloc(p->env, p->tags, cap * sizeof *p->tags);
    if (tags == NULL) {
        return false;
    }
    p->tags = (void **)tags;
    p->cap = cap;
    return true;
}

static void gpn_poller_deinit(gpn_poller *p)
{
    if (p->wake_out == p->wake_in) {
        p->wake_out = GPN_FD_NONE;
    }
    gpn_sock_close(&p->wake_in);
    gpn_sock_close(&p->wake_out);
    gpn_mem_free(p->env, p->fds);
    gpn_mem_free(p->env, p->tags);
    p->fds = NULL;
    p->tags = NULL;
    p->len = p->cap = 0;
}

#ifdef _WIN32
/* WSAPoll takes sockets only: a datagram socket on the loopback interface,
 * connected to itself, so that nobody else can write to it. */
static bool gpn_poller_open_wake(gpn_poller *p)
{
    gpn_addr a;
    int len;

    if (!gpn_addr_parse("127.0.0.1", 0, &a)) {
        return false;
    }
    len = (int)a.len;
    p->wake_in = p->wake_out = gpn_sock_open(AF_INET, SOCK_DGRAM);
    return p->wake_in != GPN_FD_NONE &&
           bind(p->wake_in, (const struct sockaddr *)&a.ss, len) == 0 &&
           getsockname(p->wake_in, (struct sockaddr *)&a.ss, &len) == 0 &&
           connect(p->wake_in, (const struct sockaddr *)&a.ss, len) == 0;
}
#else
static bool gpn_poller_open_wake(gpn_poller *p)
{
    int ends[2];

    if (pipe(ends) != 0) {
        return false;
    }
    p->wake_in = ends[0];
    p->wake_out = ends[1];
    return gpn_fd_prepare(ends[0]) && gpn_fd_prepare(ends[1]);
}
#endif

static bool gpn_poller_add(gpn_poller *p, gpn_fd fd, int16_t flags, void *tag)
{
    if (!gpn_poller_grow(p)) {
        return false;
    }
    memset(&p->fds[p->len], 0, sizeof p->fds[0]);
    p->fds[p->len].fd = fd;
    p->fds[p->len].events = flags;
    p->tags[p->len] = tag;
    p->len++;
    return true;
}

static bool gpn_poller_init(gpn_poller *p, const gpn_env *env)
{
    memset(p, 0, sizeof *p);
    p->env = env;
    p->wake_in = p->wake_out = GPN_FD_NONE;
    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        return false;
    }
    if (!gpn_poller_open_wake(p) ||
        !gpn_poller_add(p, p->wake_in, POLLIN, NULL)) {
        gpn_poller_deinit(p);
        return false;
    }
    return true;
}

/* interest 0 removes the socket, which cannot fail. tag is not NULL. */
static bool gpn_poller_set(gpn_poller *p, gpn_fd fd, unsigned interest,
                           void *tag)
{
    int16_t flags = 0;
    size_t i;

    for (i = 1; i < p->len && p->fds[i].fd != fd; i++) {
    }
    if (interest == 0) {
        if (i < p->len) {
            p->len--;
            p->fds[i] = p->fds[p->len];
            p->tags[i] = p->tags[p->len];
        }
        return true;
    }
    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        return false;
    }
    if ((interest & GPN_POLL_IN) != 0) {
        flags = (int16_t)(flags | POLLIN);
    }
    if ((interest & GPN_POLL_OUT) != 0) {
        flags = (int16_t)(flags | POLLOUT);
    }
    if (i == p->len) {
        return gpn_poller_add(p, fd, flags, tag);
    }
    p->fds[i].events = flags;
    p->tags[i] = tag;
    return true;
}

static void gpn_poller_drain(gpn_poller *p)
{
    char bytes[64];

#ifdef _WIN32
    while (recv(p->wake_in, bytes, sizeof bytes, 0) > 0) {
    }
#else
    while (read(p->wake_in, bytes, sizeof bytes) > 0) {
    }
#endif
}

#ifdef _WIN32
/* WSAPoll did not report a refused connection before Windows 10 2004; select
 * does. While a socket waits to write, waits are short. */
static int gpn_poller_system(gpn_poller *p, int timeout)
{
    struct timeval none = {0, 0};
    bool connecting = false;
    fd_set failed;
    size_t i;
    int n;

    for (i = 1; i < p->len; i++) {
        connecting = connecting || (p->fds[i].events & POLLOUT) != 0;
    }
    if (connecting && (timeout < 0 || timeout > 100)) {
        timeout = 100;
    }
    n = WSAPoll(p->fds, (ULONG)p->len, timeout);
    for (i = 1; n >= 0 && i < p->len; i++) {
        if ((p->fds[i].events & POLLOUT) == 0 || p->fds[i].revents != 0) {
            continue;
        }
        FD_ZERO(&failed);
        FD_SET(p->fds[i].fd, &failed);
        if (select(0, NULL, NULL, &failed, &none) > 0) {
            p->fds[i].revents = POLLERR;
            n++;
        }
    }
    return n;
}
#else
static int gpn_poller_system(gpn_poller *p, int timeout)
{
    int n = poll(p->fds, (nfds_t)p->len, timeout);

    return n < 0 && errno == EINTR ? 0 : n;
}
#endif

/* One look. timeout in ms, -1: none. Interrupted: no events. */
static int gpn_poller_look(gpn_poller *p, int timeout, gpn_event *events,
                           int cap)
{
    int n = 0;
    size_t i, at = 0;

    if (gpn_poller_system(p, timeout) < 0) {
        return -1;
    }
    for (i = 0; i < p->len && n < cap; i++) {
        int flags;

        at = (p->next + i) % p->len;
        flags = p->fds[at].revents;
        if (flags == 0) {
            continue;
        }
        p->fds[at].revents = 0;
        events[n].tag = p->tags[at];
        events[n].ready = 0;
        if ((flags & POLLIN) != 0) {
            events[n].ready |= GPN_POLL_IN;
        }
        if ((flags & POLLOUT) != 0) {
            events[n].ready |= GPN_POLL_OUT;
        }
        if ((flags & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
            events[n].ready = GPN_POLL_IN | GPN_POLL_OUT;
        }
        if (at == 0) {
            gpn_poller_drain(p);
        }
        n++;
    }
    p->next = at + 1;
    return n;
}
#endif

/* Waits until a socket is ready, somebody wakes, or until_ms (INT64_MAX: no
 * limit). Returns the number of events, which may be 0 early (a signal, a
 * slice): the caller looks at the clock. -1: failed. */
static int gpn_poller_wait(gpn_poller *p, int64_t now_ms, int64_t until_ms,
                           gpn_event *events, int cap)
{
    const gptner_hooks *hooks = &p->env->hooks;
    int timeout = GPN_POLL_SLICE;

    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        return -1;
    }
    if (until_ms <= now_ms) {
        timeout = 0;
    } else if (until_ms == INT64_MAX) {
        timeout = -1;
    } else if (until_ms - now_ms < GPN_POLL_SLICE) {
        timeout = (int)(until_ms - now_ms);
    }
    if (timeout != 0 && hooks->wait_fn != NULL) {
        int n = gpn_poller_look(p, 0, events, cap);

        if (n != 0) {
            return n;
        }
        if (hooks->wait_fn(now_ms, until_ms, hooks->user)) {
            timeout = 0;
        }
    }
    return gpn_poller_look(p, timeout, events, cap);
}

/* From any thread and from signal handlers. Wake-ups are not counted: one or
 * many before the next wait give one event. */
static void gpn_poller_wake(gpn_poller *p)
{
#ifdef _WIN32
    send(p->wake_out, "", 1, 0);
#else
    static const uint64_t one = 1;
    int saved = errno; /* a signal handler must leave it alone */
    ssize_t n;

    /* a full pipe or counter is as good: somebody has woken it already */
#ifdef GPN_EPOLL
    n = write(p->wake_fd, &one, sizeof one);
#else
    n = write(p->wake_out, &one, 1);
#endif
    GPN_UNUSED(n);
    errno = saved;
#endif
}

/* ---- files ---- */

/* Zero-initialised: closed. */
typedef struct gpn_file {
#ifdef _WIN32
    HANDLE handle;
#else
    int fd;
#endif
    bool is_open;
    bool is_borrowed; /* a standard stream: never closed */
} gpn_file;

/* The most one read or write is asked to do; some systems fail from 2 GiB. */
#define GPN_FILE_CHUNK ((size_t)1 << 30)

static int gpn_file_error(void)
{
#ifdef _WIN32
    return (int)GetLastError();
#else
    return errno;
#endif
}

#ifdef _WIN32
#define GPN_PATH_MAX 1024 /* UTF-16 units */

static bool gpn_path_wide(const char *path, WCHAR out[GPN_PATH_MAX])
{
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, out,
                               GPN_PATH_MAX) > 0;
}
#endif

typedef enum gpn_file_mode {
    GPN_FILE_READ,
    GPN_FILE_TRUNCATE, /* create or empty */
    GPN_FILE_FRESH,    /* create; fails if it exists */
    GPN_FILE_APPEND    /* create or go on at its end */
} gpn_file_mode;

static bool gpn_file_open(gpn_file *f, const char *path, gpn_file_mode mode,
                          int *oserr)
{
    memset(f, 0, sizeof *f);
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return false;
    }
#ifdef _WIN32
    {
        WCHAR wide[GPN_PATH_MAX];
        bool reads = mode == GPN_FILE_READ;
        DWORD how = CREATE_ALWAYS;

        if (!gpn_path_wide(path, wide)) {
            *oserr = GPN_E_NAME;
            return false;
        }
        if (reads) {
            how = OPEN_EXISTING;
        } else if (mode == GPN_FILE_FRESH) {
            how = CREATE_NEW;
        } else if (mode == GPN_FILE_APPEND) {
            how = OPEN_ALWAYS;
        }
        f->handle = CreateFileW(wide,
                                reads                     ? GENERIC_READ
                                : mode == GPN_FILE_APPEND ? FILE_APPEND_DATA
                                                          : GENERIC_WRITE,
                                FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, how,
                                FILE_ATTRIBUTE_NORMAL, NULL);
        f->is_open = f->handle != INVALID_HANDLE_VALUE;
    }
#else
    {
        int flags = O_WRONLY | O_CREAT | O_TRUNC;

        if (mode == GPN_FILE_READ) {
            flags = O_RDONLY;
        } else if (mode == GPN_FILE_FRESH) {
            flags = O_WRONLY | O_CREAT | O_EXCL;
        } else if (mode == GPN_FILE_APPEND) {
            flags = O_WRONLY | O_CREAT | O_APPEND;
        }
        do {
            f->fd = open(path, flags | O_CLOEXEC, 0666);
        } while (f->fd < 0 && errno == EINTR);
        f->is_open = f->fd >= 0;
    }
#endif
    if (!f->is_open) {
        *oserr = gpn_file_error();
    }
    return f->is_open;
}

static bool gpn_file_open_read(gpn_file *f, const gpn_env *env,
                               const char *path, int *oserr)
{
    GPN_UNUSED(env);
    return gpn_file_open(f, path, GPN_FILE_READ, oserr);
}

/* 0, 1, 2: the standard streams. */
static GPN_NOINLINE void gpn_file_std(gpn_file *f, int number)
{
    memset(f, 0, sizeof *f);
#ifdef _WIN32
    f->handle = GetStdHandle(number == 0   ? STD_INPUT_HANDLE
                             : number == 1 ? STD_OUTPUT_HANDLE
                                           : STD_ERROR_HANDLE);
#else
    f->fd = number;
#endif
    f->is_open = true;
    f->is_borrowed = true;
}

/* The number of bytes read, 0 at the end, -1: failed. */
static int64_t gpn_file_read(gpn_file *f, char *data, size_t cap, int *oserr)
{
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return -1;
    }
    if (cap > GPN_FILE_CHUNK) {
        cap = GPN_FILE_CHUNK;
    }
#ifdef _WIN32
    {
        DWORD n = 0;

        if (ReadFile(f->handle, data, (DWORD)cap, &n, NULL)) {
            return (int64_t)n;
        }
        if (GetLastError() == ERROR_BROKEN_PIPE) { /* the end of a pipe */
            return 0;
        }
    }
#else
    for (;;) {
        ssize_t n = read(f->fd, data, cap);

        if (n >= 0) {
            return (int64_t)n;
        }
        if (errno != EINTR) {
            break;
        }
    }
#endif
    *oserr = gpn_file_error();
    return -1;
}

#ifndef GPTNER_NO_BATCH
/* Reads from any place of a file that is no pipe, until cap bytes are there or
 * the file ends. The number of bytes read, -1: failed. Do not mix with
 * gpn_file_read(): on Windows this moves its place. */
static int64_t gpn_file_read_at(gpn_file *f, char *data, size_t cap, int64_t at,
                                int *oserr)
{
    size_t have = 0;

    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return -1;
    }
    while (have < cap) {
        size_t part = cap - have < GPN_FILE_CHUNK ? cap - have : GPN_FILE_CHUNK;
        uint64_t from = (uint64_t)at + have;
#ifdef _WIN32
        OVERLAPPED place;
        DWORD n = 0;

        memset(&place, 0, sizeof place);
        place.Offset = (DWORD)(from & 0xffffffffu);
        place.OffsetHigh = (DWORD)(from >> 32);
        if (!ReadFile(f->handle, data + have, (DWORD)part, &n, &place) &&
            GetLastError() != ERROR_HANDLE_EOF) {
            *oserr = gpn_file_error();
            return -1;
        }
#else
        ssize_t n = pread(f->fd, data + have, part, (off_t)from);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            *oserr = errno;
            return -1;
        }
#endif
        if (n == 0) {
            break;
        }
        have += (size_t)n;
    }
    return (int64_t)have;
}
#endif

/* All of it, or false. */
static bool gpn_file_write(gpn_file *f, const char *data, size_t len,
                           int *oserr)
{
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return false;
    }
    while (len > 0) {
        size_t part = len < GPN_FILE_CHUNK ? len : GPN_FILE_CHUNK;
#ifdef _WIN32
        DWORD n = 0;

        if (!WriteFile(f->handle, data, (DWORD)part, &n, NULL) || n == 0) {
            *oserr = gpn_file_error();
            return false;
        }
#else
        ssize_t n = write(f->fd, data, part);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            *oserr = n < 0 ? errno : ENOSPC;
            return false;
        }
#endif
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* -1: unknown, as with a pipe. */
static int64_t gpn_file_size(gpn_file *f)
{
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        return -1;
    }
#ifdef _WIN32
    {
        LARGE_INTEGER size;

        return GetFileSizeEx(f->handle, &size) ? size.QuadPart : -1;
    }
#else
    {
        struct stat st;

        if (fstat(f->fd, &st) != 0 || !S_ISREG(st.st_mode)) {
            return -1;
        }
        return (int64_t)st.st_size;
    }
#endif
}

/* To the disk; fine for what has none (a pipe, a terminal). */
static bool gpn_file_sync(gpn_file *f, int *oserr)
{
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return false;
    }
#ifdef _WIN32
    if (GetFileType(f->handle) != FILE_TYPE_DISK ||
        FlushFileBuffers(f->handle)) {
        return true;
    }
#else
    {
        int code;

        do {
            code = fsync(f->fd);
        } while (code != 0 && errno == EINTR);
        if (code == 0 || errno == EINVAL || errno == EROFS) {
            return true;
        }
    }
#endif
    *oserr = gpn_file_error();
    return false;
}

/* Always closed afterwards; false: something written may be lost. */
static bool gpn_file_close(gpn_file *f, int *oserr)
{
    bool ok = true;

    if (!f->is_open) {
        return true;
    }
    f->is_open = false;
    if (!f->is_borrowed) {
#ifdef _WIN32
        ok = CloseHandle(f->handle) != 0;
#else
        ok = close(f->fd) == 0 || errno == EINTR;
#endif
        if (!ok) {
            *oserr = gpn_file_error();
        }
    }
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return false;
    }
    return ok;
}

/* Replaces what is there, at once. */
static bool gpn_file_rename(const char *from, const char *to, int *oserr)
{
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return false;
    }
#ifdef _WIN32
    {
        WCHAR wide_from[GPN_PATH_MAX], wide_to[GPN_PATH_MAX];

        if (!gpn_path_wide(from, wide_from) || !gpn_path_wide(to, wide_to)) {
            *oserr = GPN_E_NAME;
            return false;
        }
        if (MoveFileExW(wide_from, wide_to,
                        MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) {
            return true;
        }
    }
#else
    if (rename(from, to) == 0) {
        return true;
    }
#endif
    *oserr = gpn_file_error();
    return false;
}

static void gpn_file_remove(const char *path)
{
#ifdef _WIN32
    WCHAR wide[GPN_PATH_MAX];

    if (gpn_path_wide(path, wide)) {
        DeleteFileW(wide);
    }
#else
    unlink(path);
#endif
}

#ifndef GPTNER_NO_BATCH
/* A file that one process at a time can hold, made if it is not there. false
 * with *busy: another has it. It ends with the process that holds it; a file
 * that was removed meanwhile holds nobody off, so its name is looked at. */
static bool gpn_lock_take(gpn_file *f, const char *path, bool *busy, int *oserr)
{
    memset(f, 0, sizeof *f);
    *busy = false;
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return false;
    }
#ifdef _WIN32
    {
        WCHAR wide[GPN_PATH_MAX];

        if (!gpn_path_wide(path, wide)) {
            *oserr = GPN_E_NAME;
            return false;
        }
        f->handle = CreateFileW(wide, GENERIC_WRITE, 0, NULL, OPEN_ALWAYS,
                                FILE_ATTRIBUTE_NORMAL, NULL);
        f->is_open = f->handle != INVALID_HANDLE_VALUE;
        *oserr = f->is_open ? 0 : gpn_file_error();
        *busy = *oserr == ERROR_SHARING_VIOLATION;
        return f->is_open;
    }
#else
    for (;;) {
        struct stat held, named;
        int ignored;

        if (!gpn_file_open(f, path, GPN_FILE_APPEND, oserr)) {
            return false;
        }
        if (flock(f->fd, LOCK_EX | LOCK_NB) != 0) {
            *oserr = errno;
            *busy = errno == EWOULDBLOCK;
            gpn_file_close(f, &ignored);
            return false;
        }
        if (fstat(f->fd, &held) == 0 && stat(path, &named) == 0 &&
            held.st_ino == named.st_ino && held.st_dev == named.st_dev) {
            return true;
        }
        gpn_file_close(f, &ignored);
    }
#endif
}

/* Gives it back, and removes the file. */
static void gpn_lock_give(gpn_file *f, const char *path)
{
    int ignored;

    if (!f->is_open) {
        return;
    }
#ifdef _WIN32
    gpn_file_close(f, &ignored);
    gpn_file_remove(path);
#else
    gpn_file_remove(path);
    gpn_file_close(f, &ignored);
#endif
}
#endif

/* ---- files that appear whole or not at all ---- */

#define GPN_WHOLE_BUFFER 16384 /* bytes */

/* Zero-initialised: nothing begun. path, part and buffer are one block. */
typedef struct gpn_whole {
    const gpn_env *env;
    gpn_file file;
    char *path;
    char *part; /* what is written to, renamed to path; NULL: path itself */
    char *buffer;
    size_t len;
    int oserr; /* the first failure */
} gpn_whole;

/* What stands at path decides how it is replaced: a symbolic link's target is
 * (resolved must hold PATH_MAX), a device or a pipe (/dev/null, /dev/stdout)
 * is written to directly. *mode: of the file to replace, 0: none. */
static const char *gpn_whole_target(const char *path, char *resolved,
                                    bool *direct, unsigned *mode)
{
    *direct = false;
    *mode = 0;
#ifndef _WIN32
    {
        struct stat st;

        if (stat(path, &st) != 0) {
            return path;
        }
        *direct = !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
        *mode = (unsigned)st.st_mode & 0777u;
        if (!*direct && lstat(path, &st) == 0 && S_ISLNK(st.st_mode) &&
            realpath(path, resolved) != NULL) {
            return resolved;
        }
    }
#else
    GPN_UNUSED(resolved);
#endif
    return path;
}

static bool gpn_whole_open(gpn_whole *w, bool direct, unsigned mode)
{
    if (direct) {
        w->part = NULL;
        return gpn_file_open(&w->file, w->path, GPN_FILE_TRUNCATE, &w->oserr);
    }
    if (!gpn_file_open(&w->file, w->part, GPN_FILE_FRESH, &w->oserr)) {
        return false;
    }
#ifndef _WIN32
    if (mode != 0 && fchmod(w->file.fd, (mode_t)mode) != 0) {
        return true; /* the new file then has the usual mode */
    }
#else
    GPN_UNUSED(mode);
#endif
    return true;
}

/* Ends the writer; whatever was not committed is gone. */
static void gpn_whole_abort(gpn_whole *w)
{
    int ignored;

    if (w->path == NULL) {
        return;
    }
    if (w->file.is_open) {
        gpn_file_close(&w->file, &ignored);
    }
    if (w->part != NULL) {
        gpn_file_remove(w->part);
    }
    gpn_mem_free(w->env, w->path);
    w->path = w->part = w->buffer = NULL;
}

/* Opens path + ".part-" + 16 random digits, which is on the same file system
 * and cannot be guessed or exist. On failure nothing is left to end. */
static bool gpn_whole_begin(gpn_whole *w, const gpn_env *env, const char *path,
                            int *oserr)
{
#ifdef _WIN32
    char *resolved = NULL;
#else
    char resolved[PATH_MAX];
#endif
    uint64_t chance = gpn_random_u64(env);
    bool direct;
    unsigned mode;
    size_t size;

    memset(w, 0, sizeof *w);
    w->env = env;
    path = gpn_whole_target(path, resolved, &direct, &mode);
    size = strlen(path) + 1;
    w->path = (char *)gpn_mem_alloc(env, 2 * size + 22 + GPN_WHOLE_BUFFER);
    if (w->path == NULL) {
        *oserr = GPN_E_MEMORY;
        return false;
    }
    w->part = w->path + size;
    w->buffer = w->part + size + 22;
    memcpy(w->path, path, size);
    snprintf(w->part, size + 22, "%s.part-%08x%08x", path,
             (unsigned)(chance >> 32), (unsigned)(chance & 0xffffffffu));
    if (!gpn_whole_open(w, direct, mode)) {
        *oserr = w->oserr;
        w->part = NULL; /* not ours */
        gpn_whole_abort(w);
        return false;
    }
    return true;
}

static GPN_NOINLINE bool gpn_whole_flush(gpn_whole *w)
{
    bool ok = gpn_file_write(&w->file, w->buffer, w->len, &w->oserr);

    w->len = 0;
    return ok;
}

/* The first failure stays: later calls fail the same way. What is longer than
 * the buffer does not go through it. */
static bool gpn_whole_write(gpn_whole *w, const char *data, size_t len,
                            int *oserr)
{
    while (len > 0 && w->oserr == 0) {
        size_t part = GPN_WHOLE_BUFFER - w->len;

        if (w->len == 0 && len >= GPN_WHOLE_BUFFER) {
            gpn_file_write(&w->file, data, len, &w->oserr);
            break;
        }
        if (part > len) {
            part = len;
        }
        memcpy(w->buffer + w->len, data, part);
        w->len += part;
        data += part;
        len -= part;
        if (w->len == GPN_WHOLE_BUFFER) {
            gpn_whole_flush(w);
        }
    }
    *oserr = w->oserr;
    return w->oserr == 0;
}

#ifndef _WIN32
/* The folder in which path stands; false: too long. */
static bool gpn_folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);

    if (len >= PATH_MAX) {
        return false;
    }
    memcpy(folder, path, len);
    folder[len] = '\0';
    if (len == 0) {
        memcpy(folder, slash == NULL ? "." : "/", 2);
    }
    return true;
}
#endif

/* So that names in the folder of path survive a power cut, too: in that of its
 * target, if it is a symbolic link. true where that cannot be done, as in a
 * folder that may not be read or on a file system that knows no such thing. */
static bool gpn_folder_flush(const char *path, int *oserr)
{
#ifdef _WIN32
    GPN_UNUSED(path);
    GPN_UNUSED(oserr);
    return true;
#else
    char resolved[PATH_MAX], folder[PATH_MAX];
    bool ok, direct;
    unsigned mode;
    int fd;

    path = gpn_whole_target(path, resolved, &direct, &mode);
    if (!gpn_folder_of(path, folder)) {
        return true;
    }
    fd = open(folder, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        *oserr = errno;
        return errno == EACCES || errno == EPERM;
    }
    ok = fsync(fd) == 0 || (errno != EIO && errno != ENOSPC);
    *oserr = ok ? 0 : errno;
    close(fd);
    return ok;
#endif
}

/* The same, where a failure counts. */
#ifndef GPTNER_NO_BATCH
static bool gpn_folder_sync(const char *path, int *oserr)
{
    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return false;
    }
    return gpn_folder_flush(path, oserr);
}
#endif

#ifndef GPTNER_NO_BATCH
/* Show ours_fn what follows in each name that begins with path, and remove the
 * files for which it returns true. false: the folder cannot be listed. */
static bool gpn_folder_sweep(const char *path,
                             bool (*ours_fn)(const char *rest, void *ctx),
                             void *ctx, int *oserr)
{
#ifdef _WIN32
    WCHAR wide[GPN_PATH_MAX];
    char name[3 * MAX_PATH + 1], full[4 * GPN_PATH_MAX];
    const char *base = path + strlen(path);
    WIN32_FIND_DATAW entry;
    HANDLE find = INVALID_HANDLE_VALUE;

    while (base > path && base[-1] != '/' && base[-1] != '\\') {
        base--;
    }
    snprintf(full, sizeof full, "%s*", path);
    if (gpn_path_wide(full, wide)) {
        find = FindFirstFileW(wide, &entry);
    }
    if (find == INVALID_HANDLE_VALUE) {
        *oserr = gpn_file_error();
        return *oserr == ERROR_FILE_NOT_FOUND;
    }
    do {
        if (WideCharToMultiByte(CP_UTF8, 0, entry.cFileName, -1, name,
                                (int)sizeof name, NULL, NULL) > 0 &&
            strncmp(name, base, strlen(base)) == 0 &&
            ours_fn(name + strlen(base), ctx)) {
            snprintf(full, sizeof full, "%.*s%s", (int)(base - path), path,
                     name);
            gpn_file_remove(full);
        }
    } while (FindNextFileW(find, &entry));
    FindClose(find);
#else
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    size_t len = strlen(base);
    const struct dirent *entry;
    DIR *dir = NULL;

    if (GPN_FAULT(GPN_FAULT_FILE)) {
        *oserr = GPN_E_IO;
        return false;
    }
    if (gpn_folder_of(path, folder)) {
        dir = opendir(folder);
    }
    if (dir == NULL) {
        *oserr = errno;
        return errno == EACCES || errno == EPERM;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, base, len) == 0 &&
            ours_fn(entry->d_name + len, ctx)) {
            unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    closedir(dir);
#endif
    return true;
}
#endif

/* Everything is on the disk, and the file is closed. */
static bool gpn_whole_finish(gpn_whole *w)
{
    return w->oserr == 0 &&
           (!w->file.is_open ||
            (gpn_whole_flush(w) && gpn_file_sync(&w->file, &w->oserr) &&
             gpn_file_close(&w->file, &w->oserr)));
}

#ifndef GPTNER_NO_BATCH
/* Writes no more, but still has to be put in its place, or aborted; what is
 * held until then are the names. */
static bool gpn_whole_seal(gpn_whole *w, int *oserr)
{
    bool ok = gpn_whole_finish(w);
    size_t part = w->part != NULL ? (size_t)(w->part - w->path) : 0;
    char *names =
        (char *)gpn_mem_realloc(w->env, w->path, (size_t)(w->buffer - w->path));

    if (names != NULL) { /* else they stay where they are */
        w->path = names;
        w->part = w->part != NULL ? names + part : NULL;
        w->buffer = NULL;
    }
    *oserr = w->oserr;
    return ok;
}
#endif

/* Puts the file in its place. Ends the writer in either case; false: path is
 * as it was before. */
static bool gpn_whole_commit(gpn_whole *w, int *oserr)
{
    bool ok = gpn_whole_finish(w);

    if (ok && w->part != NULL) {
        ok = gpn_file_rename(w->part, w->path, &w->oserr);
        if (ok) {
            int ignored; /* the file is in its place */

            w->part = NULL;
            gpn_folder_flush(w->path, &ignored);
        }
    }
    *oserr = w->oserr;
    gpn_whole_abort(w);
    return ok;
}

/* ---- process ---- */

/* NULL for an empty variable, and always in programs that run with more
 * rights than their user has. Valid until the environment changes. */
static const char *gpn_env_get(const char *name)
{
    const char *value;

#if defined(_WIN32)
    value = getenv(name);
#elif defined(__GLIBC__) && defined(__USE_GNU)
    value = secure_getenv(name);
#else
    if (getuid() != geteuid() || getgid() != getegid()) {
        return NULL;
    }
    value = getenv(name);
#endif
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool gpn_err_is_terminal(void)
{
#ifdef _WIN32
    DWORD mode;

    return GetConsoleMode(GetStdHandle(STD_ERROR_HANDLE), &mode) != 0;
#else
    return isatty(2) == 1;
#endif
}

/* The width of the terminal; 80 when it does not say. */
static int gpn_err_columns(void)
{
#ifdef _WIN32
    CONSOLE_SCREEN_BUFFER_INFO info;

    if (GetConsoleScreenBufferInfo(GetStdHandle(STD_ERROR_HANDLE), &info)) {
        return info.srWindow.Right - info.srWindow.Left + 1;
    }
#else
    struct winsize size;

    if (ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
#endif
    return 80;
}

/* To stderr; nobody is told when that fails. */
static void gpn_err_write(const char *data, size_t len)
{
    gpn_file f;
    int ignored;

    gpn_file_std(&f, 2);
    gpn_file_write(&f, data, len, &ignored);
}

#ifndef GPTNER_NO_TLS
/* Hands each certificate of the system's own store to fn until that returns
 * false; false when there is none to ask (all but Windows). */
static bool gpn_system_roots(bool (*fn)(const unsigned char *der, size_t len,
                                        void *ctx),
                             void *ctx)
{
#ifdef _WIN32
    HCERTSTORE store = CertOpenSystemStoreW(0, L"ROOT");
    PCCERT_CONTEXT cert = NULL;

    if (store == NULL) {
        return false;
    }
    while ((cert = CertEnumCertificatesInStore(store, cert)) != NULL) {
        if (!fn(cert->pbCertEncoded, cert->cbCertEncoded, ctx)) {
            CertFreeCertificateContext(cert);
            break;
        }
    }
    CertCloseStore(store, 0);
    return true;
#else
    GPN_UNUSED(fn);
    GPN_UNUSED(ctx);
    return false;
#endif
}

/* Where systems keep the bundle of CA certificates; the first that exists is
 * the one. NULL-terminated. */
static const char *const *gpn_ca_paths(void)
{
    static const char *const paths[] = {
        /* Debian, Ubuntu, Arch, Alpine, Gentoo, NixOS, OpenWrt, Yocto */
        "/etc/ssl/certs/ca-certificates.crt",
        /* Fedora, RHEL */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/pki/tls/certs/ca-bundle.crt", /* older ones, Amazon Linux */
        "/etc/ssl/ca-bundle.pem",           /* openSUSE */
        "/var/lib/ca-certificates/ca-bundle.pem",
        "/etc/pki/tls/cacert.pem", /* OpenELEC */
        "/etc/ssl/cert.pem",       /* macOS, OpenBSD, FreeBSD, Alpine */
        "/usr/local/etc/ssl/cert.pem",
        "/usr/local/share/certs/ca-root-nss.crt", /* FreeBSD, DragonFly */
        "/etc/openssl/certs/ca-certificates.crt", /* NetBSD */
        "/etc/certs/ca-certificates.crt",         /* illumos */
        "/etc/ssl/cacert.pem", "/var/ssl/certs/ca-bundle.crt", /* AIX */
        "/usr/local/etc/openssl@3/cert.pem",                   /* Homebrew */
        "/opt/homebrew/etc/ca-certificates/cert.pem",
        "/data/data/com.termux/files/usr/etc/tls/cert.pem", NULL};

    return paths;
}

/* Folders with one certificate a file, if there is no bundle. */
static const char *const *gpn_ca_dirs(void)
{
    static const char *const dirs[] = {
        "/etc/ssl/certs",
        "/etc/pki/tls/certs",
        "/usr/local/share/certs",
        "/apex/com.android.conscrypt/cacerts", /* Android 14 */
        "/system/etc/security/cacerts",
        NULL};

    return dirs;
}
#endif

/* An event that stays until it is lowered, and that every poller can watch:
 * the wake-up half of a poller. Raising it is async-signal-safe. */
typedef struct gpn_flag {
    gpn_poller half;
} gpn_flag;

static gpn_fd gpn_flag_fd(const gpn_flag *f)
{
#ifdef GPN_EPOLL
    return f->half.wake_fd;
#else
    return f->half.wake_in;
#endif
}

static void gpn_flag_deinit(gpn_flag *f)
{
    gpn_poller_deinit(&f->half);
}

static bool gpn_flag_init(gpn_flag *f)
{
    bool ok;
    memset(f, 0, sizeof *f);
    if (GPN_FAULT(GPN_FAULT_SOCKET)) {
        return false;
    }
#ifdef GPN_EPOLL
    f->half.epoll_fd = GPN_FD_NONE;
    f->half.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ok = f->half.wake_fd >= 0;
#else
    gpn_net_start();
    f->half.wake_in = f->half.wake_out = GPN_FD_NONE;
    ok = gpn_poller_open_wake(&f->half);
#endif
    if (!ok) {
        gpn_flag_deinit(f);
    }
    return ok;
}

static void gpn_flag_raise(gpn_flag *f)
{
    gpn_poller_wake(&f->half);
}

static void gpn_flag_lower(gpn_flag *f)
{
    gpn_poller_drain(&f->half);
}

/* ===========================================================================
 * >>bytes      layer 2   buffer, arena, views, UTF-8, base64, numbers, texts
 * calls: >>platform
 *
 * Numbers take no help from the C library, because that follows the locale. A
 * decimal becomes the nearest double in three steps: exact arithmetic in
 * doubles if digits and power are small; else 64-bit arithmetic with a known
 * error, which settles all but a few in a thousand; else an exact comparison
 * of big integers on the stack. The other way, the shortest digits that read
 * back, up to 15 digits are found by trying, and the rest from the exact digits
 * of a big integer, by reading back. Tables of powers, as Eisel-Lemire or Ryu
 * have them, would be faster still and larger than all of this section.
 * ======================================================================== */
#include <float.h>

/* ---- views ---- */

static gptner_str gpn_str(const char *ptr, size_t len)
{
    gptner_str s;

    s.ptr = ptr;
    s.len = len;
    return s;
}

static gptner_str gpn_str_c(const char *text)
{
    return gpn_str(text, text != NULL ? strlen(text) : 0);
}

GPTNER_API gptner_str gptner_str_from(const char *text)
{
    return gpn_str_c(text);
}

static bool gpn_str_eq(gptner_str a, gptner_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static bool gpn_str_eq_c(gptner_str a, const char *text)
{
    return gpn_str_eq(a, gpn_str_c(text));
}

static int gpn_char_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/* Whether n bytes are equal; fold: but for the case of ASCII letters. */
static bool gpn_char_eq(const char *a, const char *b, size_t n, bool fold)
{
    while (n > 0 &&
           (*a == *b || (fold && gpn_char_lower(*a) == gpn_char_lower(*b)))) {
        a++;
        b++;
        n--;
    }
    return n == 0;
}

static bool gpn_str_begins(gptner_str a, const char *text, bool fold)
{
    size_t n = strlen(text);

    return a.len >= n && gpn_char_eq(a.ptr, text, n, fold);
}

/* Equal but for the case of ASCII letters. */
static bool gpn_str_ieq_c(gptner_str a, const char *text)
{
    return a.len == strlen(text) && gpn_str_begins(a, text, true);
}

static bool gpn_str_starts(gptner_str a, const char *text)
{
    return gpn_str_begins(a, text, false);
}

static GPN_NOINLINE bool gpn_str_istarts(gptner_str a, const char *text)
{
    return gpn_str_begins(a, text, true);
}

static size_t gpn_str_search(gptner_str a, const char *text, bool fold)
{
    size_t n = strlen(text), i;

    for (i = 0; i + n <= a.len; i++) {
        if (gpn_char_eq(a.ptr + i, text, n, fold)) {
            return i;
        }
    }
    return n > 0 ? SIZE_MAX : 0;
}

/* Where text begins in a; SIZE_MAX: nowhere. */
static size_t gpn_str_find(gptner_str a, const char *text)
{
    return gpn_str_search(a, text, false);
}

static size_t gpn_str_ifind(gptner_str a, const char *text)
{
    return gpn_str_search(a, text, true);
}

/* Without the spaces and tabs at both ends. */
static gptner_str gpn_str_trim(gptner_str a)
{
    while (a.len > 0 && (a.ptr[0] == ' ' || a.ptr[0] == '\t')) {
        a.ptr++;
        a.len--;
    }
    while (a.len > 0 && (a.ptr[a.len - 1] == ' ' || a.ptr[a.len - 1] == '\t')) {
        a.len--;
    }
    return a;
}

/* A copy with a NUL behind it, for gpn_mem_free; NULL: no memory. */
static char *gpn_str_dup(const gpn_env *env, gptner_str s)
{
    char *copy = NULL;
    size_t size;

    if (gpn_size_add(s.len, 1, &size)) {
        copy = (char *)gpn_mem_alloc(env, size);
    }
    if (copy != NULL) {
        if (s.len > 0) {
            memcpy(copy, s.ptr, s.len);
        }
        copy[s.len] = '\0';
    }
    return copy;
}

/* ---- UTF-8 ---- */

/* How many bytes at text (at least one) are the start of one character, at
 * least 1; *need is how many it takes, 0 if none starts so. Table 3-7 of the
 * Unicode standard: after leads from 0xE0 on, only some quarters of the range
 * of the second byte are allowed. */
static size_t gpn_utf8_scan(const char *text, size_t len, size_t *need)
{
    static const unsigned char quarters[] = {12, 15, 15, 15, 15, 15, 15,
                                             15, 15, 15, 15, 15, 15, 3,
                                             15, 15, 14, 15, 15, 15, 1};
    const unsigned char *p = (const unsigned char *)text;
    unsigned lead = p[0];
    size_t n = 1;

    *need = lead < 0x80                  ? 1
            : lead < 0xc2 || lead > 0xf4 ? 0
            : lead < 0xe0                ? 2
            : lead < 0xf0                ? 3
                                         : 4;
    while (n < *need && n < len && (p[n] & 0xc0) == 0x80) {
        if (n == 1 && lead >= 0xe0 &&
            (quarters[lead - 0xe0] >> (p[1] >> 4 & 3) & 1) == 0) {
            break;
        }
        n++;
    }
    return n;
}

/* The length of the first character and its code point; 0: not valid (also
 * overlong forms, surrogates, and what lies above U+10FFFF) or incomplete. */
static size_t gpn_utf8_get(const char *s, size_t len, uint32_t *cp)
{
    size_t need = 0, i;
    uint32_t c;

    *cp = 0;
    if (len == 0 || gpn_utf8_scan(s, len, &need) != need) {
        return 0;
    }
    c = (unsigned char)s[0];
    if (need > 1) {
        c &= 0x7fu >> need; /* what the lead holds of the code point */
    }
    for (i = 1; i < need; i++) {
        c = c << 6 | ((unsigned char)s[i] & 0x3fu);
    }
    *cp = c;
    return need;
}

/* Returns the number of bytes written. What is not a character becomes
 * U+FFFD. */
static size_t gpn_utf8_put(uint32_t cp, char out[4])
{
    size_t n, i;

    if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) {
        cp = 0xfffd;
    }
    n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (i = n; --i > 0; cp >>= 6) {
        out[i] = (char)(0x80 | (cp & 0x3f));
    }
    /* n ones and a zero begin the lead, unless it is alone */
    out[0] = (char)(n == 1 ? cp : (0xf00u >> n & 0xff) | cp);
    return n;
}

/* len, less the beginning of a character whose end has been cut off. */
static size_t gpn_utf8_cut(const char *s, size_t len)
{
    size_t back, need;

    for (back = 1; back <= 3 && back <= len; back++) {
        if ((s[len - back] & 0xc0) != 0x80) {
            gpn_utf8_scan(s + len - back, back, &need);
            return need > back ? len - back : len;
        }
    }
    return len;
}

/* ---- numbers as text ---- */

/* At most 20 digits and a NUL; returns the length without it. */
static size_t gpn_fmt_digits(uint64_t value, char *out)
{
    char digits[20];
    size_t n = 0, i;

    do {
        digits[n++] = (char)('0' + (int)(value % 10));
        value /= 10;
    } while (value > 0);
    for (i = 0; i < n; i++) {
        out[i] = digits[n - 1 - i];
    }
    out[n] = '\0';
    return n;
}

static size_t gpn_fmt_u64(uint64_t value, char out[24])
{
    return gpn_fmt_digits(value, out);
}

static size_t gpn_fmt_i64(int64_t value, char out[24])
{
    if (value >= 0) {
        return gpn_fmt_digits((uint64_t)value, out);
    }
    out[0] = '-';
    return 1 + gpn_fmt_digits(0 - (uint64_t)value, out + 1);
}

/* Digits only, any number of them; false: something else, or too large. */
static bool gpn_parse_u64(gptner_str s, uint64_t *out)
{
    uint64_t value = 0;
    size_t i;

    *out = 0;
    for (i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(s.ptr[i] - '0');

        if (digit > 9 || value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    return s.len > 0;
}

/* ---- big integers ---- */

/* Never more than 2,600 bits: 769 digits on one side of a comparison, 54 bits
 * times 5^1092 on the other. */
#define GPN_BIG_WORDS 88

typedef struct gpn_big {
    size_t n; /* words in use; the highest is not 0 */
    uint32_t w[GPN_BIG_WORDS];
} gpn_big;

static GPN_NOINLINE void gpn_big_set(gpn_big *a, uint64_t value)
{
    a->n = 0;
    while (value > 0) {
        a->w[a->n++] = (uint32_t)value;
        value >>= 32;
    }
}

static void gpn_big_mul_add(gpn_big *a, uint32_t factor, uint32_t add)
{
    uint64_t carry = add;
    size_t i;

    for (i = 0; i < a->n; i++) {
        carry += (uint64_t)a->w[i] * factor;
        a->w[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry > 0) {
        GPTNER_ASSERT(a->n < GPN_BIG_WORDS);
        a->w[a->n++] = (uint32_t)carry;
    }
}

static void gpn_big_mul_pow5(gpn_big *a, int power)
{
    for (; power >= 13; power -= 13) {
        gpn_big_mul_add(a, 1220703125u, 0); /* 5^13 */
    }
    for (; power > 0; power--) {
        gpn_big_mul_add(a, 5, 0);
    }
}

static void gpn_big_shift(gpn_big *a, int bits)
{
    size_t words = (size_t)(bits / 32);

    if (a->n == 0) {
        return;
    }
    gpn_big_mul_add(a, (uint32_t)1 << (bits % 32), 0);
    if (words > 0) {
        GPTNER_ASSERT(a->n + words <= GPN_BIG_WORDS);
        memmove(a->w + words, a->w, a->n * sizeof a->w[0]);
        memset(a->w, 0, words * sizeof a->w[0]);
        a->n += words;
    }
}

static int gpn_big_cmp(const gpn_big *a, const gpn_big *b)
{
    size_t i = a->n;

    if (a->n != b->n) {
        return a->n < b->n ? -1 : 1;
    }
    while (i-- > 0) {
        if (a->w[i] != b->w[i]) {
            return a->w[i] < b->w[i] ? -1 : 1;
        }
    }
    return 0;
}

/* Divides; returns the remainder. */
static uint32_t gpn_big_div(gpn_big *a, uint32_t divisor)
{
    uint64_t rest = 0;
    size_t i = a->n;

    while (i-- > 0) {
        rest = rest << 32 | a->w[i];
        a->w[i] = (uint32_t)(rest / divisor);
        rest %= divisor;
    }
    while (a->n > 0 && a->w[a->n - 1] == 0) {
        a->n--;
    }
    return (uint32_t)rest;
}

/* ---- decimal to double ---- */

/* The last fast power: 10^22 is the largest that a double holds exactly. */
#define GPN_POW10_LAST 22

static double gpn_pow10(int power)
{
    static const double powers[GPN_POW10_LAST + 1] = {
        1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

    return powers[power];
}

/* Where operations on doubles are done in a wider format (x87), their results
 * are rounded twice: then the slower ways have to do. */
static bool gpn_double_is_exact(void)
{
    return FLT_EVAL_METHOD == 0;
}

static const char *gpn_digits_end(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9') {
        p++;
    }
    return p;
}

/* A number in the grammar of JSON, taken apart: the digits, which may have one
 * point among them, end at end; times 10^exp10. */
typedef struct gpn_number {
    const char *digits, *end;
    int64_t exp10;
    bool negative;
} gpn_number;

/* Reads the number at *at, which is moved behind it; false: *at is where a
 * digit is missing. The exponent saturates far beyond what any number of
 * digits in memory could make up for. */
static bool gpn_number_read(gpn_number *number, const char **at,
                            const char *end)
{
    const char *p = *at, *from;
    bool minus = false;

    number->exp10 = 0;
    number->negative = p < end && *p == '-';
    from = p += number->negative ? 1 : 0;
    number->digits = p;
    if (p < end && *p == '0') {
        p++;
    } else {
        p = gpn_digits_end(p, end);
    }
    if (p > from && p < end && *p == '.') {
        from = p + 1;
        p = gpn_digits_end(from, end);
    }
    number->end = p;
    if (p > from && p < end && (*p | 0x20) == 'e') {
        from = p + 1;
        if (from < end && (*from == '+' || *from == '-')) {
            minus = *from++ == '-';
        }
        for (p = from; p < end && *p >= '0' && *p <= '9'; p++) {
            if (number->exp10 < (int64_t)1 << 56) {
                number->exp10 = number->exp10 * 10 + (*p - '0');
            }
        }
        number->exp10 = minus ? -number->exp10 : number->exp10;
    }
    *at = p;
    return p > from;
}

/* A decimal: first to last are digits, perhaps with a point among them, which
 * form an integer of count digits; its value is that times 10^power. */
typedef struct gpn_decimal {
    const char *first;
    const char *last; /* behind the last digit that is not 0 */
    size_t count;
    int64_t power;
} gpn_decimal;

/* Digits beyond these can only break a tie: they become one final 1. */
#define GPN_DECIMAL_DIGITS 768

static void gpn_decimal_read(gpn_decimal *d, const gpn_number *number)
{
    const char *p, *end = number->end, *point = end;

    d->first = d->last = end;
    for (p = number->digits; p < end; p++) {
        if (*p == '.') {
            point = p;
        } else if (*p != '0') {
            if (d->first == end) {
                d->first = p;
            }
            d->last = p + 1;
        }
    }
    d->count = 0;
    d->power = number->exp10;
    if (d->first == end) {
        return;
    }
    d->count = (size_t)(d->last - d->first);
    if (d->last <= point) {
        d->power += point - d->last;
    } else {
        d->power -= d->last - point - 1;
        d->count -= d->first < point ? 1 : 0;
    }
}

/* The first max digits as an integer. */
static uint64_t gpn_decimal_head(const gpn_decimal *d, size_t max)
{
    const char *p;
    uint64_t value = 0;

    for (p = d->first; p < d->last && max > 0; p++) {
        if (*p != '.') {
            value = value * 10 + (uint64_t)(*p - '0');
            max--;
        }
    }
    return value;
}

/* All digits as an integer, with a final 1 in place of those that do not fit;
 * returns the power of ten that goes with it. */
static int gpn_decimal_big(const gpn_decimal *d, gpn_big *out)
{
    const char *p;
    size_t left = GPN_DECIMAL_DIGITS;

    gpn_big_set(out, 0);
    for (p = d->first; p < d->last && left > 0; p++) {
        if (*p != '.') {
            gpn_big_mul_add(out, 10, (uint32_t)(*p - '0'));
            left--;
        }
    }
    if (d->count <= GPN_DECIMAL_DIGITS) {
        return (int)d->power;
    }
    gpn_big_mul_add(out, 10, 1);
    return (int)(d->power + (int64_t)(d->count - GPN_DECIMAL_DIGITS) - 1);
}

/* Is the decimal below (-1), at (0) or above (1) half * 2^exp2? Exact. */
static int gpn_decimal_cmp(const gpn_decimal *d, uint64_t half, int exp2)
{
    gpn_big a, b;
    int power = gpn_decimal_big(d, &a);
    int shift = exp2 - power; /* 10^power = 5^power * 2^power */

    gpn_big_set(&b, half);
    if (power >= 0) {
        gpn_big_mul_pow5(&a, power);
    } else {
        gpn_big_mul_pow5(&b, -power);
    }
    if (shift >= 0) {
        gpn_big_shift(&b, shift);
    } else {
        gpn_big_shift(&a, -shift);
    }
    return gpn_big_cmp(&a, &b);
}

#define GPN_DOUBLE_INFINITE (UINT64_C(0x7ff) << 52)

static double gpn_double_from_bits(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

#ifdef GPN_SMALL
#define GPN_HEAD_DIGITS 18 /* fit an int64_t */

/* Whether the nearest double is one above that of these bits. */
static bool gpn_decimal_above(const gpn_decimal *d, uint64_t bits)
{
    uint64_t kept = bits & ((UINT64_C(1) << 52) - 1);
    int exp2 = (int)(bits >> 52), side;

    if (exp2 > 0) {
        kept |= UINT64_C(1) << 52;
        exp2--;
    }
    side = gpn_decimal_cmp(d, kept * 2 + 1, exp2 - 1075);
    return side > 0 || (side == 0 && (bits & 1) != 0);
}

/* The double nearest to the decimal, of which value * 10^power is an
 * approximation: some steps from what doubles make of that. */
static double gpn_decimal_round(const gpn_decimal *d, double value, int power)
{
    uint64_t bits;

    while (power != 0) {
        int part = power > GPN_POW10_LAST    ? GPN_POW10_LAST
                   : power < -GPN_POW10_LAST ? -GPN_POW10_LAST
                                             : power;

        value = part > 0 ? value * gpn_pow10(part) : value / gpn_pow10(-part);
        power -= part;
    }
    memcpy(&bits, &value, sizeof bits);
    while (bits > 0 && !gpn_decimal_above(d, bits - 1)) {
        bits--;
    }
    while (bits < GPN_DOUBLE_INFINITE && gpn_decimal_above(d, bits)) {
        bits++;
    }
    return gpn_double_from_bits(bits);
}
#else
#define GPN_HEAD_DIGITS 19

/* mantissa * 2^exp2, the highest bit set; off by less than error in the last
 * bit. */
typedef struct gpn_scaled {
    uint64_t mantissa;
    int exp2;
    unsigned error;
} gpn_scaled;

/* One rounding of a table entry and one of the product: less than 3 units. */
static void gpn_scaled_mul(gpn_scaled *x, uint64_t mantissa, int exp2)
{
    uint64_t a = x->mantissa >> 32, b = x->mantissa & 0xffffffffu;
    uint64_t c = mantissa >> 32, d = mantissa & 0xffffffffu;
    uint64_t bd = b * d, mid = a * d + (bd >> 32), low;

    low = b * c + (mid & 0xffffffffu);
    x->mantissa = a * c + (mid >> 32) + (low >> 32);
    x->exp2 += exp2 + 64;
    x->error += 3;
    if (x->mantissa >> 63 == 0) {
        x->mantissa = x->mantissa << 1 | (low >> 31 & 1);
        x->exp2--;
    }
}

/* value * 10^power, for a power of -511 to 511. */
static void gpn_scaled_set(gpn_scaled *x, uint64_t value, int power)
{
    static const uint64_t mantissas[2][9] = {
        {UINT64_C(0xa000000000000000), UINT64_C(0xc800000000000000),
         UINT64_C(0x9c40000000000000), UINT64_C(0xbebc200000000000),
         UINT64_C(0x8e1bc9bf04000000), UINT64_C(0x9dc5ada82b70b59e),
         UINT64_C(0xc2781f49ffcfa6d5), UINT64_C(0x93ba47c980e98ce0),
         UINT64_C(0xaa7eebfb9df9de8e)},
        {UINT64_C(0xcccccccccccccccd), UINT64_C(0xa3d70a3d70a3d70a),
         UINT64_C(0xd1b71758e219652c), UINT64_C(0xabcc77118461cefd),
         UINT64_C(0xe69594bec44de15b), UINT64_C(0xcfb11ead453994ba),
         UINT64_C(0xa87fea27a539e9a5), UINT64_C(0xddd0467c64bce4a1),
         UINT64_C(0xc0314325637a193a)}};
    static const int16_t exps[2][9] = {
        {-60, -57, -50, -37, -10, 43, 149, 362, 787},
        {-67, -70, -77, -90, -117, -170, -276, -489, -914}};
    int side = power < 0 ? 1 : 0, i;

    x->mantissa = value;
    x->exp2 = 0;
    x->error = 1;
    while (x->mantissa >> 63 == 0) {
        x->mantissa <<= 1;
        x->exp2--;
    }
    power = power < 0 ? -power : power;
    for (i = 0; power >> i > 0; i++) { /* 10^(2^i) for each bit */
        if ((power >> i & 1) != 0) {
            gpn_scaled_mul(x, mantissas[side][i], exps[side][i]);
        }
    }
}

/* The bits of the double nearest to the decimal, of which x is an
 * approximation. */
static uint64_t gpn_scaled_round(const gpn_scaled *x, const gpn_decimal *d)
{
    /* 53 bits are kept, fewer below 2^-1022, where the last is 2^-1074 */
    int drop = x->exp2 + 11 < -1074 ? -1074 - x->exp2 : 11;
    int unit = x->exp2 + drop, up;
    uint64_t kept = 0, rest, half;
    bool unclear = true;

    if (drop < 64) {
        kept = x->mantissa >> drop;
        rest = x->mantissa - (kept << drop);
        half = UINT64_C(1) << (drop - 1);
        up = rest >= half ? 1 : -1;
        unclear = (rest >= half ? rest - half : half - rest) <= x->error;
    }
    if (unclear) {
        up = gpn_decimal_cmp(d, kept * 2 + 1, unit - 1);
    }
    if (up > 0 || (up == 0 && (kept & 1) != 0)) {
        kept++;
    }
    if (unit == -1074) { /* its 53rd bit, if set, is the exponent's first */
        return kept;
    }
    kept += (uint64_t)(unit + 1074) << 52;
    return kept < GPN_DOUBLE_INFINITE ? kept : GPN_DOUBLE_INFINITE;
}
#endif

/* The double nearest to the number, but for its sign; ties to even. Infinity
 * when it is too large. Any length. */
static double gpn_double_from_number(const gpn_number *number)
{
    gpn_decimal d;
    uint64_t head;
    size_t used;
    int64_t magnitude;
#ifndef GPN_SMALL
    gpn_scaled x;
#endif

    gpn_decimal_read(&d, number);
    magnitude = d.power + (int64_t)d.count; /* below 10^magnitude */
    if (d.count == 0 || magnitude < -323) {
        return 0;
    }
    if (magnitude > 309) {
        return gpn_double_from_bits(GPN_DOUBLE_INFINITE);
    }
    used = d.count < GPN_HEAD_DIGITS ? d.count : GPN_HEAD_DIGITS;
    head = gpn_decimal_head(&d, used);
    if (used == d.count && head <= UINT64_C(1) << 53 &&
        (d.power == 0 || (gpn_double_is_exact() && d.power >= -GPN_POW10_LAST &&
                          d.power <= GPN_POW10_LAST))) {
        double value = (double)(int64_t)head;

        return d.power >= 0 ? value * gpn_pow10((int)d.power)
                            : value / gpn_pow10((int)-d.power);
    }
#ifdef GPN_SMALL
    return gpn_decimal_round(&d, (double)(int64_t)head,
                             (int)(d.power + (int64_t)(d.count - used)));
#else
    gpn_scaled_set(&x, head, (int)(d.power + (int64_t)(d.count - used)));
    if (used < d.count) {
        x.error += 20; /* less than 1 of 10^18, in units of 2^-64 */
    }
    return gpn_double_from_bits(gpn_scaled_round(&x, &d));
#endif
}

/* The whole text is one number in the grammar of JSON. Too large a number is
 * infinite, too small a one 0, neither an error. */
static bool gpn_parse_double(gptner_str s, double *out)
{
    gpn_number number;
    const char *p = s.ptr;

    *out = 0;
    if (s.len == 0 || !gpn_number_read(&number, &p, s.ptr + s.len) ||
        p != s.ptr + s.len) {
        return false;
    }
    *out = gpn_double_from_number(&number);
    *out = number.negative ? -*out : *out;
    return true;
}

/* ---- double to decimal ---- */

#ifndef GPN_SMALL
/* At most 15 digits, if so few read back as value > 0. For every count of
 * places, at most one decimal of 15 digits can, and the arithmetic below finds
 * it, since both operands of the division are exact. 0: none. */
static uint64_t gpn_double_few_digits(double value, int *power)
{
    int places;

    for (places = 0; gpn_double_is_exact() && places <= GPN_POW10_LAST;
         places++) {
        double scaled = value * gpn_pow10(places);
        int64_t digits;

        if (scaled >= 1e15) {
            break;
        }
        digits = (int64_t)(scaled + 0.5);
        if ((double)digits / gpn_pow10(places) == value) {
            *power = -places;
            return (uint64_t)digits;
        }
    }
    return 0;
}
#endif

/* fraction * 2^exp2, exactly: 18 digits, and a 19th that is 0 if nothing
 * follows; times 10^*power. */
static uint64_t gpn_double_exact(uint64_t fraction, int exp2, int *power)
{
    char text[800]; /* 2^54 times 5^1074 has 767 digits; 19 zeros follow */
    char *end = text + 777, *first = end;
    int tens = exp2 < 0 ? -exp2 : 0, i;
    gpn_big big;

    memset(text, '0', sizeof text);
    gpn_big_set(&big, fraction);
    gpn_big_mul_pow5(&big, tens); /* 2^exp2 = 5^tens / 10^tens */
    gpn_big_shift(&big, exp2 + tens);
    while (big.n > 0) {
        uint32_t part = gpn_big_div(&big, 1000000000u);

        for (i = 0; i < 9; i++, part /= 10) {
            *--first = (char)('0' + (int)(part % 10));
        }
    }
    while (*first == '0') {
        first++;
    }
    *power = (int)(end - first) - 19 - tens;
    fraction = 0;
    for (i = 0; i < 18; i++) {
        fraction = fraction * 10 + (uint64_t)(*first++ - '0');
    }
    while (first < end && *first == '0') {
        first++;
    }
    return fraction * 10 + (first < end ? 1 : 0);
}

/* Whether digits * 10^power reads back as value. */
static GPN_NOINLINE bool gpn_double_is(double value, uint64_t digits, int power)
{
    char text[24];
    gpn_number number;

    number.digits = text;
    number.end = text + gpn_fmt_digits(digits, text);
    number.exp10 = power;
    return gpn_double_from_number(&number) == value;
}

/* The fewest digits that read back as value > 0 and, among those, the nearest,
 * of two the even ones; times 10^*power. Of each count of digits, only the
 * decimals next to value need trying: 17 digits always will do, and if some
 * do, so do more. */
static uint64_t gpn_double_shortest(double value, int *power)
{
    uint64_t bits, exact, unit, digits = 0;
    int exp2, places;

    memcpy(&bits, &value, sizeof bits);
    exp2 = (int)(bits >> 52 & 0x7ff);
    bits &= (UINT64_C(1) << 52) - 1;
    if (exp2 > 0) {
        bits |= UINT64_C(1) << 52;
        exp2--;
    }
    exact = gpn_double_exact(bits, exp2 - 1074, &places);
    places += 2;
    for (unit = 100; unit <= UINT64_C(1000000000000000000); unit *= 10) {
        uint64_t nearer = exact / unit, farther = nearer + 1,
                 rest = exact % unit;

        if (rest > unit / 2 || (rest == unit / 2 && (nearer & 1) != 0)) {
            farther = nearer++;
        }
        if (!gpn_double_is(value, nearer, places)) {
            if (!gpn_double_is(value, farther, places)) {
                break;
            }
            nearer = farther;
        }
        digits = nearer;
        *power = places++;
    }
    return digits;
}

/* The shortest digits that read back as value and, among those, the nearest:
 * value is 0.DIGITS times 10^*point. For finite values above 0; digits holds
 * 24 for the benefit of gpn_fmt_u64. */
static size_t gpn_double_digits(double value, char digits[24], int *point)
{
    uint64_t all = 0;
    size_t n;

#ifndef GPN_SMALL
    all = gpn_double_few_digits(value, point);
#endif
    if (all == 0) {
        all = gpn_double_shortest(value, point);
    }
    n = gpn_fmt_u64(all, digits);
    *point += (int)n;
    while (n > 1 && digits[n - 1] == '0') {
        n--;
    }
    return n;
}

/* The shortest JSON text that reads back as value, which must be finite: plain
 * from 1e-6 to below 1e21 and with an exponent otherwise (as JavaScript prints
 * it, but for the "+"); -0 is "-0.0". A NUL follows; returns the length. */
static size_t gpn_fmt_double(double value, char out[40])
{
    char digits[24] = "00";
    size_t len = 0;
    uint64_t bits;
    int n, i, whole, point = 1; /* whole: digits before the point */

    memcpy(&bits, &value, sizeof bits);
    if (bits >> 63 != 0) {
        out[len++] = '-';
        value = -value;
    }
    n = 1 + (int)len;
    if (value > 0) {
        n = (int)gpn_double_digits(value, digits, &point);
    }
    whole = point > 21 || point < -5 ? 1 : point;
    for (i = whole < 1 ? whole - 1 : 0; i < n || i < whole; i++) {
        if (i == whole) {
            out[len++] = '.';
        }
        out[len++] = i >= 0 && i < n ? digits[i] : '0';
    }
    out[len] = '\0';
    if (whole != point) {
        out[len++] = 'e';
        len += gpn_fmt_i64(point - 1, out + len);
    }
    return len;
}

/* ---- buffer ---- */

/* Grows up to max bytes. The first failure stays in status, and what is added
 * later is ignored, so that one check at the end is enough. */
typedef struct gpn_buf {
    const gpn_env *env;
    char *data;
    size_t len, cap, max;
    gptner_status status;
    bool secret; /* memory is wiped before it is given back */
} gpn_buf;

#define GPN_BUF_FIRST 256 /* bytes */

static void gpn_buf_init(gpn_buf *b, const gpn_env *env, size_t max)
{
    memset(b, 0, sizeof *b);
    b->env = env;
    b->max = max;
}

static void gpn_buf_release(const gpn_buf *b)
{
    if (b->secret && b->data != NULL) {
        gpn_mem_wipe(b->data, b->cap);
    }
    gpn_mem_free(b->env, b->data);
}

static void gpn_buf_deinit(gpn_buf *b)
{
    gpn_buf_release(b);
    b->data = NULL;
    b->len = b->cap = 0;
}

/* Empty again; the memory is kept. */
static GPN_NOINLINE void gpn_buf_clear(gpn_buf *b)
{
    b->len = 0;
    b->status = GPTNER_OK;
}

/* Room for extra more bytes, or false and a status of LIMIT or NO_MEMORY. */
static bool gpn_buf_reserve(gpn_buf *b, size_t extra)
{
    size_t need, cap;
    void *data;

    if (b->status != GPTNER_OK) {
        return false;
    }
    if (!gpn_size_add(b->len, extra, &need) || need > b->max) {
        b->status = GPTNER_ERR_LIMIT;
        return false;
    }
    if (need <= b->cap) {
        return true;
    }
    cap = b->cap > 0 ? b->cap : GPN_BUF_FIRST;
    while (cap < need) {
        cap = cap <= b->max / 2 ? cap * 2 : b->max;
    }
    if (cap > b->max) {
        cap = b->max;
    }
    if (!b->secret) {
        data = gpn_mem_realloc(b->env, b->data, cap);
    } else { /* no copy stays behind */
        data = gpn_mem_alloc(b->env, cap);
        if (data != NULL && b->data != NULL) {
            memcpy(data, b->data, b->len);
            gpn_buf_release(b);
        }
    }
    if (data == NULL) {
        b->status = GPTNER_ERR_NO_MEMORY;
        return false;
    }
    b->data = (char *)data;
    b->cap = cap;
    return true;
}

static void gpn_buf_add(gpn_buf *b, const char *data, size_t len)
{
    if (len > 0 && gpn_buf_reserve(b, len)) {
        memcpy(b->data + b->len, data, len);
        b->len += len;
    }
}

static void gpn_buf_add_c(gpn_buf *b, char c)
{
    if (gpn_buf_reserve(b, 1)) {
        b->data[b->len++] = c;
    }
}

static void gpn_buf_add_s(gpn_buf *b, const char *text)
{
    gpn_buf_add(b, text, strlen(text));
}

static void gpn_buf_add_str(gpn_buf *b, gptner_str s)
{
    gpn_buf_add(b, s.ptr, s.len);
}

static void gpn_buf_add_u64(gpn_buf *b, uint64_t value)
{
    char text[24];

    gpn_buf_add(b, text, gpn_fmt_u64(value, text));
}

/* Removes the first n bytes. */
static void gpn_buf_drop(gpn_buf *b, size_t n)
{
    GPTNER_ASSERT(n <= b->len);
    if (n > 0) {
        b->len -= n;
        memmove(b->data, b->data + n, b->len);
    }
}

/* ---- arena ---- */

/* Many small pieces that die together. Not thread-safe. What is given to it is
 * bounded by whoever gives it. */
typedef struct gpn_chunk {
    struct gpn_chunk *next;
    size_t used, cap; /* bytes behind this head */
} gpn_chunk;

typedef struct gpn_arena {
    const gpn_env *env;
    gpn_chunk *chunks; /* the newest first */
    size_t next_size;
} gpn_arena;

#define GPN_ARENA_ALIGN 8 /* bytes; int64_t, double and pointers */
#define GPN_ARENA_CHUNK ((size_t)65536) /* bytes; chunks double up to this */

/* first_chunk: the bytes to take at the first need, 0: 512. */
static void gpn_arena_init(gpn_arena *a, const gpn_env *env, size_t first_chunk)
{
    a->env = env;
    a->chunks = NULL;
    a->next_size = first_chunk > 0 ? first_chunk : 512;
}

static size_t gpn_arena_round(size_t size)
{
    return (size + (GPN_ARENA_ALIGN - 1)) & ~(size_t)(GPN_ARENA_ALIGN - 1);
}

static bool gpn_arena_grow(gpn_arena *a, size_t size)
{
    size_t head = gpn_arena_round(sizeof(gpn_chunk)), total;
    size_t cap = size > a->next_size ? size : gpn_arena_round(a->next_size);
    gpn_chunk *c = NULL;

    if (gpn_size_add(head, cap, &total)) {
        c = (gpn_chunk *)gpn_mem_alloc(a->env, total);
    }
    if (c == NULL) {
        return false;
    }
    c->next = a->chunks;
    c->used = 0;
    c->cap = cap;
    a->chunks = c;
    if (a->next_size < GPN_ARENA_CHUNK) {
        a->next_size *= 2;
    }
    return true;
}

/* Aligned for any type of ours, not zeroed; NULL: no memory. */
static void *gpn_arena_alloc(gpn_arena *a, size_t size)
{
    char *base;

    if (size > SIZE_MAX - GPN_ARENA_ALIGN) {
        return NULL;
    }
    size = gpn_arena_round(size > 0 ? size : 1);
    if ((a->chunks == NULL || a->chunks->cap - a->chunks->used < size) &&
        !gpn_arena_grow(a, size)) {
        return NULL;
    }
    base = (char *)a->chunks + gpn_arena_round(sizeof(gpn_chunk));
    base += a->chunks->used;
    a->chunks->used += size;
    return base;
}

/* The arena may lie in its own memory. */
static void gpn_arena_deinit(gpn_arena *a)
{
    const gpn_env *env = a->env;
    gpn_chunk *c = a->chunks, *next;

    a->chunks = NULL;
    for (; c != NULL; c = next) {
        next = c->next;
        gpn_mem_free(env, c);
    }
}

/* A copy with a NUL behind it. ptr NULL: s is none, or there is no memory. */
static gptner_str gpn_arena_str(gpn_arena *a, gptner_str s)
{
    char *copy;

    if (s.ptr == NULL || s.len == SIZE_MAX) {
        return gpn_str(NULL, 0);
    }
    copy = (char *)gpn_arena_alloc(a, s.len + 1);
    if (copy == NULL) {
        return gpn_str(NULL, 0);
    }
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return gpn_str(copy, s.len);
}

static const char *gpn_arena_cstr(gpn_arena *a, const char *text)
{
    return gpn_arena_str(a, gpn_str_c(text)).ptr;
}

/* ---- base64 (RFC 4648, section 4) ---- */

/* out needs 4 bytes for each 3, begun ones included; returns the length. */
static size_t gpn_base64_encode(const void *data, size_t len, char *out)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                   "abcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)data;
    size_t n = 0, i;

    while (len > 0) {
        size_t have = len < 3 ? len : 3;
        unsigned bits = (unsigned)p[0] << 16;

        bits |= have > 1 ? (unsigned)p[1] << 8 : 0;
        bits |= have > 2 ? (unsigned)p[2] : 0;
        for (i = 0; i < 4; i++, bits <<= 6) {
            out[n++] = i <= have ? alphabet[bits >> 18 & 63] : '=';
        }
        p += have;
        len -= have;
    }
    return n;
}

/* The value of a base64 digit, 64: none. */
static unsigned gpn_base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return (unsigned)(c - 'A');
    }
    if (c >= 'a' && c <= 'z') {
        return (unsigned)(c - 'a') + 26;
    }
    if (c >= '0' && c <= '9') {
        return (unsigned)(c - '0') + 52;
    }
    if (c == '+') {
        return 62;
    }
    return c == '/' ? 63 : 64;
}

/* With all its padding or with none; anything else in the text, bits left over
 * that are not 0, or more than cap bytes: false. */
static bool gpn_base64_decode(gptner_str s, unsigned char *out, size_t cap,
                              size_t *len)
{
    unsigned bits = 0;
    size_t i, n = 0;

    *len = 0;
    if (s.len > 0 && s.len % 4 == 0 && s.ptr[s.len - 1] == '=') {
        s.len -= s.ptr[s.len - 2] == '=' ? 2 : 1;
    }
    for (i = 0; i < s.len; i++) {
        unsigned digit = gpn_base64_digit(s.ptr[i]);

        if (digit > 63) {
            return false;
        }
        bits = (bits << 6 | digit) & 0xffffu;
        if (i % 4 != 0) {
            if (n == cap) {
                return false;
            }
            out[n++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
        }
    }
    if (s.len % 4 == 1 || (s.len % 4 == 2 && (bits & 15) != 0) ||
        (s.len % 4 == 3 && (bits & 3) != 0)) {
        return false;
    }
    *len = n;
    return true;
}

/* ---- texts for people ---- */

/* Makes one line of valid UTF-8 without control characters: a '?' takes the
 * place of each byte that is not. Texts come from the network, too. */
static void gpn_text_clean(char *text, size_t len)
{
    uint32_t cp;
    size_t at, n;

    for (at = 0; at < len; at += n) {
        n = gpn_utf8_get(text + at, len - at, &cp);
        if (n == 0 || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            n = n > 0 ? n : 1;
            memset(text + at, '?', n);
        }
    }
}

/* Like vsnprintf, but returns the length of what is there, and never cuts a
 * character in two. Only %s %.*s %c %d %u %x %lld %llu %zu %%: these do not
 * depend on the locale. */
GPN_PRINTF(3, 0)
static size_t gpn_vformat(char *out, size_t cap, const char *fmt, va_list args)
{
    int n;
    size_t len;

    if (cap == 0) {
        return 0;
    }
    n = vsnprintf(out, cap, fmt, args);
    len = n > 0 ? (size_t)n : 0;
    if (len >= cap) {
        len = gpn_utf8_cut(out, cap - 1);
    }
    out[len] = '\0';
    return len;
}

GPN_PRINTF(3, 4)
static size_t gpn_format(char *out, size_t cap, const char *fmt, ...)
{
    va_list args;
    size_t len;

    va_start(args, fmt);
    len = gpn_vformat(out, cap, fmt, args);
    va_end(args);
    return len;
}

GPN_PRINTF(3, 0)
static GPN_NOINLINE void gpn_vformat_line(char *out, size_t cap,
                                          const char *fmt, va_list args)
{
    gpn_text_clean(out, gpn_vformat(out, cap, fmt, args));
}

/* One line to the log callback, if level is wanted. Never under a lock. */
GPN_PRINTF(3, 4)
static void gpn_log(const gpn_env *env, gptner_log_level level, const char *fmt,
                    ...)
{
    char line[1024];
    va_list args;

    if (env->log_fn == NULL || level > env->log_level) {
        return;
    }
    va_start(args, fmt);
    gpn_vformat_line(line, sizeof line, fmt, args);
    va_end(args);
    env->log_fn(level, line, env->log_user);
}

/* Fills *err, which may be NULL, with status and text; returns status. The
 * arguments may point into err->message. */
GPN_PRINTF(3, 4)
static gptner_status gpn_fail(gptner_error *err, gptner_status status,
                              const char *fmt, ...)
{
    gptner_error e;
    va_list args;

    if (err == NULL) {
        return status;
    }
    memset(&e, 0, sizeof e);
    e.status = status;
    e.retry_after_ms = -1;
    va_start(args, fmt);
    gpn_vformat_line(e.message, sizeof e.message, fmt, args);
    va_end(args);
    *err = e;
    return status;
}

/* ---- SipHash-1-3: who does not know the seed finds no two texts alike ---- */

static uint64_t gpn_sip_turn(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void gpn_sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = gpn_sip_turn(v[1], 13) ^ v[0];
    v[3] = gpn_sip_turn(v[3], 16) ^ v[2];
    v[0] = gpn_sip_turn(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = gpn_sip_turn(v[1], 17) ^ v[2];
    v[3] = gpn_sip_turn(v[3], 21) ^ v[0];
    v[2] = gpn_sip_turn(v[2], 32);
}

static uint64_t gpn_sip(const uint64_t seed[2], gptner_str s)
{
    uint64_t v[4] = {UINT64_C(0x736f6d6570736575), UINT64_C(0x646f72616e646f6d),
                     UINT64_C(0x6c7967656e657261),
                     UINT64_C(0x7465646279746573)};
    size_t at = 0;
    size_t i;
    for (i = 0; i < 4; i++)
        v[i] ^= seed[i % 2];
    do {
        unsigned char last[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        uint64_t word; /* as this machine orders bytes: hashes stay here */
        if (at + 8 > s.len) {
            if (s.len > at)
                memcpy(last, s.ptr + at, s.len - at);
            last[7] = (unsigned char)s.len;
        }
        memcpy(&word, at + 8 > s.len ? (const char *)last : s.ptr + at, 8);
        v[3] ^= word;
        gpn_sip_round(v);
        v[0] ^= word;
        at += 8;
    } while (at <= s.len);
    v[2] ^= 0xff;
    for (i = 0; i < 3; i++)
        gpn_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#ifndef GPTNER_NO_BATCH
/* ---- SHA-256 (FIPS 180-4) ---- */

typedef struct gpn_sha256_state {
    uint32_t h[8];
    uint64_t bytes;
    unsigned char block[64];
} gpn_sha256_state;

static GPN_NOINLINE void gpn_sha256_init(gpn_sha256_state *s)
{
    static const uint32_t start[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u,
                                      0xa54ff53au, 0x510e527fu, 0x9b05688cu,
                                      0x1f83d9abu, 0x5be0cd19u};

    memcpy(s->h, start, sizeof s->h);
    s->bytes = 0;
}

static uint32_t gpn_sha256_turn(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void gpn_sha256_block(uint32_t h[8], const unsigned char *p)
{
    static const uint32_t k[64] = {
        0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu,
        0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u, 0xd807aa98u, 0x12835b01u,
        0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u,
        0xc19bf174u, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu,
        0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau, 0x983e5152u,
        0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u,
        0x06ca6351u, 0x14292967u, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu,
        0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
        0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u,
        0xd6990624u, 0xf40e3585u, 0x106aa070u, 0x19a4c116u, 0x1e376c08u,
        0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu,
        0x682e6ff3u, 0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u,
        0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u};
    uint32_t w[64], v[8], a, b;
    int i;

    for (i = 0; i < 16; i++, p += 4) {
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
               (uint32_t)p[2] << 8 | p[3];
    }
    for (; i < 64; i++) {
        a = gpn_sha256_turn(w[i - 15], 7) ^ gpn_sha256_turn(w[i - 15], 18) ^
            w[i - 15] >> 3;
        b = gpn_sha256_turn(w[i - 2], 17) ^ gpn_sha256_turn(w[i - 2], 19) ^
            w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(v, h, sizeof v);
    for (i = 0; i < 64; i++) {
        a = gpn_sha256_turn(v[4], 6) ^ gpn_sha256_turn(v[4], 11) ^
            gpn_sha256_turn(v[4], 25);
        a += v[7] + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        b = gpn_sha256_turn(v[0], 2) ^ gpn_sha256_turn(v[0], 13) ^
            gpn_sha256_turn(v[0], 22);
        b += (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += a;
        v[0] = a + b;
    }
    for (i = 0; i < 8; i++) {
        h[i] += v[i];
    }
}

static void gpn_sha256_update(gpn_sha256_state *s, const void *data, size_t len)
{
    const unsigned char *p = (const unsigned char *)data;

    while (len > 0) {
        size_t at = (size_t)(s->bytes % 64), part = 64 - at;

        part = part < len ? part : len;
        memcpy(s->block + at, p, part);
        s->bytes += part;
        p += part;
        len -= part;
        if (at + part == 64) {
            gpn_sha256_block(s->h, s->block);
        }
    }
}

static void gpn_sha256_final(gpn_sha256_state *s, unsigned char out[32])
{
    uint64_t bits = s->bytes * 8;
    unsigned char end[8];
    int i;

    for (i = 7; i >= 0; i--, bits >>= 8) {
        end[i] = (unsigned char)bits;
    }
    gpn_sha256_update(s, "\x80", 1);
    while (s->bytes % 64 != 56) {
        gpn_sha256_update(s, "", 1);
    }
    gpn_sha256_update(s, end, sizeof end);
    for (i = 0; i < 32; i++) {
        out[i] = (unsigned char)(s->h[i / 4] >> (24 - 8 * (i % 4)));
    }
}
#endif

/* ===========================================================================
 * >>json       layer 3   strict reader, document, writer
 * calls: >>bytes >>platform
 *
 * All reading is one machine, the pull reader: a position, one bit for each
 * open array or object, and what is due next. gpn_json_walk() runs it to the
 * end of a value; without a tape that is skipping, with one it makes a
 * document. So both accept the same language, and neither recurses.
 *
 * A document is a copy of the text, whose strings are decoded in place, and a
 * tape of nodes of two words each in the order of the text: a container is
 * followed by its children (key, value, key, value) and an end node. Numbers
 * stay text until asked for: that costs nothing for those never looked at and
 * keeps all of their digits.
 * ======================================================================== */

/* What the reader takes next. */
enum {
    GPN_JSON_VALUE, /* a value, of which pos is the first byte */
    GPN_JSON_FIRST, /* the first child, or the end of the container */
    GPN_JSON_AFTER, /* a comma or the end, of the container or of the text */
    GPN_JSON_DEAD   /* nothing: an error has latched */
};

#define GPN_JSON_MAX_BYTES ((size_t)1 << 30)

/* --- bytes of text ------------------------------------------------------ */

#ifndef GPN_SMALL
#define GPN_JSON_ONES 0x0101010101010101u

/* The top bits of those of the eight bytes at p that are not plain: plain is
 * what stands for itself in a string and is ASCII. A byte minus 0x20, or minus
 * 1 once quote and backslash are made 0, borrows into its top bit, and a borrow
 * crosses only from a byte that is a hit itself, so the lowest hit is exact. */
static uint64_t gpn_json_hits(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    uint64_t x = (uint64_t)b[0] | (uint64_t)b[1] << 8 | (uint64_t)b[2] << 16 |
                 (uint64_t)b[3] << 24 | (uint64_t)b[4] << 32 |
                 (uint64_t)b[5] << 40 | (uint64_t)b[6] << 48 |
                 (uint64_t)b[7] << 56;
    uint64_t quote = (x ^ GPN_JSON_ONES * '"') - GPN_JSON_ONES;
    uint64_t slash = (x ^ GPN_JSON_ONES * '\\') - GPN_JSON_ONES;
    uint64_t low = x - GPN_JSON_ONES * 0x20;
    return (x | quote | slash | low) & GPN_JSON_ONES * 0x80;
}

/* How many bytes stand before the lowest hit, of which there is one. */
static size_t gpn_json_first(uint64_t hits)
{
    uint64_t below = (hits & (~hits + 1)) - 1;
    return (size_t)((below & GPN_JSON_ONES) * GPN_JSON_ONES >> 56) - 1;
}
#endif

/* The first byte from p on that is not plain. */
static const char *gpn_json_plain(const char *p, const char *end)
{
#ifndef GPN_SMALL
    while (end - p >= 8) {
        uint64_t hits = gpn_json_hits(p);
        if (hits != 0)
            return p + gpn_json_first(hits);
        p += 8;
    }
#endif
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 &&
           *p != '"' && *p != '\\')
        p++;
    return p;
}

/* The length of the character beyond ASCII at text; 0: none, or cut off. As
 * gpn_utf8_scan() sees it, but quicker. */
static size_t gpn_json_multi(const char *text, size_t len)
{
#ifdef GPN_SMALL
    size_t need, n = gpn_utf8_scan(text, len, &need);
    return n == need ? n : 0;
#else
    const unsigned char *p = (const unsigned char *)text;
    unsigned lead = p[0];
    if (len < 2 || lead < 0xc2 || (p[1] & 0xc0) != 0x80)
        return 0;
    if (lead < 0xe0)
        return 2;
    if (len < 3 || (p[2] & 0xc0) != 0x80)
        return 0;
    if (lead < 0xf0)
        return (lead == 0xe0 && p[1] < 0xa0) || (lead == 0xed && p[1] >= 0xa0)
                   ? 0
                   : 3;
    if (len < 4 || (p[3] & 0xc0) != 0x80 || lead > 0xf4)
        return 0;
    return (lead == 0xf0 && p[1] < 0x90) || (lead == 0xf4 && p[1] >= 0x90) ? 0
                                                                           : 4;
#endif
}

/* Past characters beyond ASCII: to the first byte that is ASCII, or is at
 * least 0x80 and no UTF-8. */
static const char *gpn_json_beyond(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p >= 0x80) {
        size_t n = gpn_json_multi(p, (size_t)(end - p));
        if (n == 0)
            break;
        p += n;
    }
    return p;
}

/* The code unit of the \uXXXX at p; -1: there is none. */
static int gpn_json_unit(const char *p, const char *end)
{
    int value = 0;
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        int c = (unsigned char)p[i];
        int lower = c | 0x20;
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value * 16 + (lower - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* The escape at p (a backslash): its length, 0 if it is none. A pair of
 * surrogates is one escape; *cp is a surrogate only where one stands alone. */
static size_t gpn_json_escape(const char *p, const char *end, uint32_t *cp)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int unit, low;
    if (end - p >= 2 && p[1] != 'u') {
        const char *found = (const char *)memchr(from, p[1], sizeof(from) - 1);
        if (found == NULL)
            return 0;
        *cp = (uint32_t)to[found - from];
        return 2;
    }
    unit = gpn_json_unit(p, end);
    if (unit < 0)
        return 0;
    *cp = (uint32_t)unit;
    low = (unit & 0xFC00) == 0xD800 ? gpn_json_unit(p + 6, end) : -1;
    if (low < 0xDC00 || low > 0xDFFF)
        return 6;
    *cp = 0x10000 + (((uint32_t)unit & 0x3FF) << 10) + ((uint32_t)low & 0x3FF);
    return 12;
}

/* Decode the inside of a string that has been validated, to dst, which may be
 * src: no escape is shorter than what it stands for. Returns the length. */
static size_t gpn_json_decode(const char *src, size_t len, char *dst)
{
    const char *end = src + len;
    char *out = dst;
    while (src < end) {
        const char *slash =
            (const char *)memchr(src, '\\', (size_t)(end - src));
        size_t run = (size_t)((slash != NULL ? slash : end) - src);
        uint32_t cp = 0;
        if (out != src)
            memmove(out, src, run);
        out += run;
        src += run;
        if (slash == NULL)
            break;
        src += gpn_json_escape(src, end, &cp);
        out += gpn_utf8_put(cp, out);
    }
    return (size_t)(out - dst);
}

/* --- numbers ------------------------------------------------------------ */

/* Whether the number is an integer below 2^64 in magnitude, and which. ptr
 * NULL: there is none. */
static bool gpn_json_magnitude(gptner_str text, uint64_t *magnitude,
                               bool *negative)
{
    gpn_number number;
    gpn_decimal d;
    const char *p = text.ptr;
    int64_t left; /* digits */
    *magnitude = 0;
    *negative = false;
    if (p == NULL)
        return false;
    if (gpn_parse_u64(text, magnitude)) /* most are digits and nothing else */
        return true;
    gpn_number_read(&number, &p, text.ptr + text.len);
    *negative = number.negative;
    gpn_decimal_read(&d, &number);
    if (d.count == 0)
        return true;
    if (d.power < 0 || d.power > 19 || d.power + (int64_t)d.count > 20)
        return false;
    for (left = d.power + (int64_t)d.count; left > 0; left--) {
        uint64_t digit = 0; /* behind the last digit */
        d.first += d.first < d.last && *d.first == '.';
        if (d.first < d.last)
            digit = (uint64_t)(*d.first++ - '0');
        if (*magnitude > (UINT64_MAX - digit) / 10)
            return false;
        *magnitude = *magnitude * 10 + digit;
    }
    return true;
}

/* Both take the text of a number, or ptr NULL: then, and if the number does
 * not fit, false and 0. */
static bool gpn_json_to_int64(gptner_str text, int64_t *out)
{
    uint64_t magnitude = 0;
    bool negative = false;
    *out = 0;
    if (!gpn_json_magnitude(text, &magnitude, &negative) ||
        magnitude > (uint64_t)INT64_MAX + negative)
        return false;
    if (negative)
        magnitude = 0 - magnitude;
    memcpy(out, &magnitude, sizeof(*out)); /* int64_t is two's complement */
    return true;
}

static bool gpn_json_to_uint64(gptner_str text, uint64_t *out)
{
    bool negative = false;
    if (gpn_json_magnitude(text, out, &negative) && (!negative || *out == 0))
        return true;
    *out = 0;
    return false;
}

/* --- the machine -------------------------------------------------------- */

/* Latches the first error, at a byte of the text; always false. */
static bool gpn_json_stop(gptner_json_reader *r, gptner_status status,
                          const char *at, const char *message)
{
    if (r->error.status == GPTNER_OK) {
        r->error.status = status;
        r->error.offset = (size_t)(at - r->text);
        r->error.line = r->line;
        r->error.column = (size_t)(at - r->line_start) + 1;
        r->error.message = message;
    }
    r->state = GPN_JSON_DEAD;
    return false;
}

/* The text is wrong at this byte, or has ended there. */
static bool gpn_json_bad(gptner_json_reader *r, const char *at,
                         const char *message)
{
    if (at >= r->end)
        message = "the text ends too early";
    return gpn_json_stop(r, GPTNER_ERR_JSON, at, message);
}

/* Past white space; lines are counted here since LF is allowed nowhere else. */
static void gpn_json_space(gptner_json_reader *r)
{
    const char *p = r->pos;
    for (; p < r->end && (unsigned char)*p <= ' '; p++) {
        if (*p == '\n') {
            r->line++;
            r->line_start = p + 1;
        } else if (*p != ' ' && *p != '\t' && *p != '\r') {
            break;
        }
    }
    r->pos = p;
}

/* Whether the innermost of depth open containers is an object. */
static bool gpn_json_in_object(const uint32_t *nest, size_t depth)
{
    size_t level = depth - 1;
    return depth > 0 && (nest[level / 32] >> level % 32 & 1) != 0;
}

/* Note what the container opened inside depth others is. */
static void gpn_json_nest(uint32_t *nest, size_t depth, bool object)
{
    uint32_t bit = (uint32_t)1 << depth % 32;
    nest[depth / 32] =
        object ? nest[depth / 32] | bit : nest[depth / 32] & ~bit;
}

static bool gpn_json_open(gptner_json_reader *r, bool object)
{
    if (r->depth >= r->max_depth)
        return gpn_json_stop(r, GPTNER_ERR_LIMIT, r->pos,
                             "nested deeper than the limit");
    gpn_json_nest(r->nest, r->depth, object);
    r->depth++;
    r->pos++;
    r->state = GPN_JSON_FIRST;
    return true;
}

/* A string from its opening quote (where pos is) to behind the closing one:
 * its inside, and whether anything in it wants decoding. */
static bool gpn_json_string(gptner_json_reader *r, gptner_str *inside,
                            bool *escapes)
{
    const char *p = r->pos + 1, *end = r->end;
    *escapes = false;
    for (;;) {
        uint32_t cp = 0;
        p = gpn_json_plain(p, end);
        if (p == end)
            return gpn_json_bad(r, p, "");
        if (*p == '"')
            break;
        if (*p == '\\') {
            size_t n = gpn_json_escape(p, end, &cp);
            if (n == 0)
                return gpn_json_bad(r, p, "not an escape that JSON has");
            if (r->refuse_lone && cp >= 0xD800 && cp <= 0xDFFF)
                return gpn_json_bad(r, p, "half a surrogate pair");
            *escapes = true;
            p += n;
            continue;
        }
        if ((unsigned char)*p < 0x20)
            return gpn_json_bad(r, p, "a control character in a string");
        p = gpn_json_beyond(p, end);
        if (p < end && (unsigned char)*p >= 0x80)
            return gpn_json_bad(r, p, "a string is not valid UTF-8");
    }
    inside->ptr = r->pos + 1;
    inside->len = (size_t)(p - inside->ptr);
    r->pos = p + 1;
    return true;
}

static bool gpn_json_number(gptner_json_reader *r, gptner_str *text)
{
    gpn_number number;
    const char *p = r->pos;
    if (!gpn_number_read(&number, &p, r->end))
        return gpn_json_bad(r, p, "a number needs a digit here");
    text->ptr = r->pos;
    text->len = (size_t)(p - r->pos);
    r->pos = p;
    return true;
}

static bool gpn_json_word(gptner_json_reader *r, const char *word, size_t len)
{
    if ((size_t)(r->end - r->pos) < len || memcmp(r->pos, word, len) != 0)
        return gpn_json_bad(r, r->pos, "neither true, false nor null");
    r->pos += len;
    return true;
}

static gptner_json_type gpn_json_kind(gptner_json_reader *r)
{
    /* for each byte from '"' to '{', the type as a digit */
    static const char types[] = "4000000000030033333333330000000000000000000000"
                                "00000000000500000000002000000010000020000006";
    unsigned c = r->pos < r->end ? (unsigned char)*r->pos : 0, at = c - '"';
    if (at < sizeof(types) - 1 && types[at] != '0')
        return (gptner_json_type)(types[at] - '0');
    gpn_json_bad(r, r->pos,
                 c == 'N' || c == 'I' ? "NaN and Infinity are not JSON"
                                      : "a value is missing here");
    return GPTNER_JSON_NONE;
}

/* Past this byte and the white space behind it. */
static bool gpn_json_pass(gptner_json_reader *r, char c, const char *message)
{
    if (r->pos >= r->end || *r->pos != c)
        return gpn_json_bad(r, r->pos, message);
    r->pos++;
    gpn_json_space(r);
    return true;
}

/* Inside a container, before a child or its end: false if the end has been
 * passed (or an error latched), else pos is at the child. */
static bool gpn_json_more(gptner_json_reader *r, bool object)
{
    gpn_json_space(r);
    if (r->pos < r->end && *r->pos == (object ? '}' : ']')) {
        r->pos++;
        r->depth--;
        r->state = GPN_JSON_AFTER;
        return false;
    }
    if (r->state == GPN_JSON_AFTER &&
        !gpn_json_pass(r, ',',
                       object ? "neither ',' nor '}' after a member"
                              : "neither ',' nor ']' after an item"))
        return false;
    r->state = GPN_JSON_VALUE;
    return true;
}

/* A key, its colon, and up to the value. */
static bool gpn_json_key(gptner_json_reader *r, gptner_str *key, bool *escapes)
{
    if (r->pos >= r->end || *r->pos != '"')
        return gpn_json_bad(r, r->pos, "a key in quotes is missing here");
    if (!gpn_json_string(r, key, escapes))
        return false;
    gpn_json_space(r);
    return gpn_json_pass(r, ':', "a key needs ':' after it");
}

/* Decode in place and close with a '\0' where the quote was (at the latest). */
static void gpn_json_settle(gptner_json_reader *r, gptner_str *inside,
                            bool escapes)
{
    char *at = r->edit + (inside->ptr - r->text);
    if (escapes)
        inside->len = gpn_json_decode(at, inside->len, at);
    at[inside->len] = '\0';
}

/* --- the tape ----------------------------------------------------------- */

/* A type beside the public ones: closes a container on the tape. */
#define GPN_JSON_END 7

/* head is the size (see gptner_json_size) times 8 plus the type; a bool has
 * its truth for size, a number the length of its text. */
struct gptner_json_value {
    size_t head;
    union {
        const char *text; /* string, number */
        size_t skip;      /* container: nodes up to its next sibling */
    } u;
};

struct gptner_json_doc {
    gpn_env env;
    gptner_json_value *nodes;
    size_t len, cap, step, max_nodes;
    /* While reading: the innermost open container, whose skip meanwhile is the
     * one around it; SIZE_MAX for none. */
    size_t open;
};

static gptner_json_value *gpn_json_push(gptner_json_reader *r,
                                        gptner_json_doc *doc, unsigned type,
                                        gptner_str text)
{
    gptner_json_value *node;
    if (doc->len == doc->cap) {
        size_t cap = doc->cap * 2 + doc->step;
        if (cap > doc->max_nodes)
            cap = doc->max_nodes;
        if (cap <= doc->len) {
            gpn_json_stop(r, GPTNER_ERR_LIMIT, r->pos,
                          "the document needs more memory than max_bytes");
            return NULL;
        }
        node = (gptner_json_value *)gpn_mem_realloc(&doc->env, doc->nodes,
                                                    cap * sizeof(*node));
        if (node == NULL) {
            gpn_json_stop(r, GPTNER_ERR_NO_MEMORY, r->pos, "out of memory");
            return NULL;
        }
        doc->nodes = node;
        doc->cap = cap;
    }
    node = &doc->nodes[doc->len++];
    node->head = text.len << 3 | type;
    node->u.text = text.ptr;
    return node;
}

/* Put one value that is no key on the tape; a container stays open. */
static bool gpn_json_add(gptner_json_reader *r, gptner_json_doc *doc,
                         gptner_json_type type, gptner_str text)
{
    gptner_json_value *node = gpn_json_push(r, doc, (unsigned)type, text);
    if (node == NULL)
        return false;
    if (doc->open != SIZE_MAX)
        doc->nodes[doc->open].head += 8;
    if (type >= GPTNER_JSON_ARRAY) {
        node->u.skip = doc->open;
        doc->open = doc->len - 1;
    }
    return true;
}

static bool gpn_json_add_key(gptner_json_reader *r, gptner_json_doc *doc,
                             gptner_str key, bool escapes)
{
    gpn_json_settle(r, &key, escapes);
    return gpn_json_push(r, doc, GPTNER_JSON_STRING, key) != NULL;
}

static bool gpn_json_add_end(gptner_json_reader *r, gptner_json_doc *doc)
{
    size_t closed = doc->open;
    if (gpn_json_push(r, doc, GPN_JSON_END, gpn_str(NULL, 0)) == NULL)
        return false;
    doc->open = doc->nodes[closed].u.skip;
    doc->nodes[closed].u.skip = doc->len - closed;
    return true;
}

/* Take one value of a type that is known from its first byte, or enter it.
 * text: the inside of a string, a number, a bool (length 1: true); never NULL
 * after success. */
static bool gpn_json_scan(gptner_json_reader *r, gptner_json_type type,
                          gptner_str *text, bool *escapes)
{
    bool ok;
    *text = gpn_str(r->pos, 0);
    *escapes = false;
    if (type >= GPTNER_JSON_ARRAY)
        return gpn_json_open(r, type == GPTNER_JSON_OBJECT);
    if (type == GPTNER_JSON_STRING) {
        ok = gpn_json_string(r, text, escapes);
    } else if (type == GPTNER_JSON_NUMBER) {
        ok = gpn_json_number(r, text);
    } else if (type == GPTNER_JSON_BOOL) {
        text->len = *r->pos == 't';
        ok = text->len > 0 ? gpn_json_word(r, "true", 4)
                           : gpn_json_word(r, "false", 5);
    } else {
        ok = type == GPTNER_JSON_NULL && gpn_json_word(r, "null", 4);
    }
    if (ok)
        r->state = GPN_JSON_AFTER;
    return ok;
}

/* Take one value whole, or enter it; onto the tape if there is one. */
static bool gpn_json_take(gptner_json_reader *r, gptner_json_doc *doc)
{
    gptner_json_type type = gpn_json_kind(r);
    gptner_str text;
    bool escapes;
    if (!gpn_json_scan(r, type, &text, &escapes))
        return false;
    if (doc == NULL)
        return true;
    if (type == GPTNER_JSON_STRING)
        gpn_json_settle(r, &text, escapes);
    return gpn_json_add(r, doc, type, text);
}

/* Run until no value is due and depth containers are open; onto the tape if
 * there is one. */
static bool gpn_json_walk(gptner_json_reader *r, gptner_json_doc *doc,
                          size_t depth)
{
    for (;;) {
        bool object, escapes = false;
        gptner_str key = {NULL, 0};
        if (r->state == GPN_JSON_VALUE) {
            if (!gpn_json_take(r, doc))
                return false;
            continue;
        }
        if (r->state == GPN_JSON_DEAD)
            return false;
        if (r->depth <= depth)
            return true;
        object = gpn_json_in_object(r->nest, r->depth);
        if (gpn_json_more(r, object)) {
            if (object && !gpn_json_key(r, &key, &escapes))
                return false;
            if (object && doc != NULL &&
                !gpn_json_add_key(r, doc, key, escapes))
                return false;
        } else if (r->state == GPN_JSON_DEAD ||
                   (doc != NULL && !gpn_json_add_end(r, doc))) {
            return false;
        }
    }
}

/* --- pull reader -------------------------------------------------------- */

GPTNER_API void gptner_json_reader_init(gptner_json_reader *r, const char *text,
                                        size_t len,
                                        const gptner_json_options *opt)
{
    size_t depth = opt != NULL ? opt->max_depth : 0;
    memset(r, 0, offsetof(gptner_json_reader, nest));
    r->text = text != NULL ? text : "";
    r->end = r->text + (text != NULL ? len : 0);
    r->pos = r->text;
    if (r->end - r->pos >= 3 && memcmp(r->pos, "\xEF\xBB\xBF", 3) == 0)
        r->pos += 3;
    r->line = 1;
    r->line_start = r->pos;
    if (depth == 0)
        depth = GPTNER_JSON_DEPTH_DEFAULT;
    r->max_depth =
        depth < GPTNER_JSON_DEPTH_MAX ? depth : GPTNER_JSON_DEPTH_MAX;
    r->refuse_lone = opt != NULL && opt->refuse_lone_surrogates;
    r->error.message = "no error";
    gpn_json_space(r);
    r->state = GPN_JSON_VALUE;
}

GPTNER_API void gptner_json_reader_init_in_place(gptner_json_reader *r,
                                                 char *text, size_t len,
                                                 const gptner_json_options *opt)
{
    gptner_json_reader_init(r, text, len, opt);
    r->edit = text;
}

GPTNER_API void gptner_json_reader_scratch(gptner_json_reader *r, char *room,
                                           size_t size)
{
    r->scratch = room;
    r->scratch_size = size;
}

/* What a string that has been passed is for the caller. */
static bool gpn_json_hand_out(gptner_json_reader *r, gptner_str inside,
                              bool escapes, gptner_str *out)
{
    if (r->edit != NULL) {
        gpn_json_settle(r, &inside, escapes);
    } else if (escapes) {
        if (inside.len > r->scratch_size)
            return gpn_json_stop(r, GPTNER_ERR_LIMIT, inside.ptr - 1,
                                 "no room to decode a string with escapes");
        inside.len = gpn_json_decode(inside.ptr, inside.len, r->scratch);
        inside.ptr = r->scratch;
    }
    *out = inside;
    return true;
}

GPTNER_API gptner_json_type gptner_json_peek(gptner_json_reader *r)
{
    if (r->state != GPN_JSON_VALUE)
        return GPTNER_JSON_NONE;
    return gpn_json_kind(r);
}

/* Whether a value is due at all. */
static bool gpn_json_due(gptner_json_reader *r)
{
    if (r->state == GPN_JSON_VALUE)
        return true;
    return gpn_json_stop(r, GPTNER_ERR_INVALID_ARGUMENT, r->pos,
                         "read without a next_key or next_item before");
}

GPTNER_API bool gptner_json_skip(gptner_json_reader *r)
{
    return gpn_json_due(r) && gpn_json_walk(r, NULL, r->depth);
}

/* The next value if it is of this type, as gpn_json_scan() gives it, a string
 * decoded; ptr NULL if not: any other value is skipped. */
static gptner_str gpn_json_read(gptner_json_reader *r, gptner_json_type type)
{
    gptner_str out = {NULL, 0}, text;
    bool escapes;
    if (!gpn_json_due(r))
        return out;
    if (gpn_json_kind(r) != type)
        gpn_json_walk(r, NULL, r->depth); /* not after an error */
    else if (!gpn_json_scan(r, type, &text, &escapes))
        return out;
    else if (type == GPTNER_JSON_STRING)
        gpn_json_hand_out(r, text, escapes, &out);
    else
        out = text;
    return out;
}

GPTNER_API bool gptner_json_enter_object(gptner_json_reader *r)
{
    return gpn_json_read(r, GPTNER_JSON_OBJECT).ptr != NULL;
}

GPTNER_API bool gptner_json_enter_array(gptner_json_reader *r)
{
    return gpn_json_read(r, GPTNER_JSON_ARRAY).ptr != NULL;
}

/* To the next child of the innermost container, if it is of this kind. */
static bool gpn_json_next(gptner_json_reader *r, bool object)
{
    if (r->state == GPN_JSON_VALUE && r->depth > 0)
        gpn_json_walk(r, NULL, r->depth);
    if (r->state == GPN_JSON_DEAD)
        return false;
    if (r->depth == 0 || gpn_json_in_object(r->nest, r->depth) != object)
        return gpn_json_stop(r, GPTNER_ERR_INVALID_ARGUMENT, r->pos,
                             object ? "next_key outside an object"
                                    : "next_item outside an array");
    return gpn_json_more(r, object);
}

GPTNER_API bool gptner_json_next_key(gptner_json_reader *r, gptner_str *key)
{
    gptner_str inside = {NULL, 0};
    bool escapes = false;
    *key = inside;
    return gpn_json_next(r, true) && gpn_json_key(r, &inside, &escapes) &&
           gpn_json_hand_out(r, inside, escapes, key);
}

GPTNER_API bool gptner_json_next_item(gptner_json_reader *r)
{
    return gpn_json_next(r, false);
}

GPTNER_API bool gptner_json_next_member(gptner_json_reader *r,
                                        const char *const *names, size_t *which)
{
    gptner_str key;
    bool more;
    do {
        more = gptner_json_next_key(r, &key);
        *which = 0;
        while (names[*which] != NULL &&
               !(more && gpn_str_eq_c(key, names[*which])))
            ++*which;
    } while (more && names[*which] == NULL);
    return more;
}

GPTNER_API void gptner_json_leave(gptner_json_reader *r)
{
    if (r->depth > 0)
        gpn_json_walk(r, NULL, r->depth - 1);
}

GPTNER_API bool gptner_json_read_str(gptner_json_reader *r, gptner_str *out)
{
    *out = gpn_json_read(r, GPTNER_JSON_STRING);
    return out->ptr != NULL;
}

GPTNER_API bool gptner_json_read_int64(gptner_json_reader *r, int64_t *out)
{
    return gpn_json_to_int64(gpn_json_read(r, GPTNER_JSON_NUMBER), out);
}

GPTNER_API bool gptner_json_read_uint64(gptner_json_reader *r, uint64_t *out)
{
    return gpn_json_to_uint64(gpn_json_read(r, GPTNER_JSON_NUMBER), out);
}

GPTNER_API bool gptner_json_read_double(gptner_json_reader *r, double *out)
{
    return gpn_parse_double(gpn_json_read(r, GPTNER_JSON_NUMBER), out);
}

GPTNER_API bool gptner_json_read_bool(gptner_json_reader *r, bool *out)
{
    gptner_str text = gpn_json_read(r, GPTNER_JSON_BOOL);
    *out = text.len > 0;
    return text.ptr != NULL;
}

GPTNER_API bool gptner_json_read_null(gptner_json_reader *r)
{
    return gpn_json_read(r, GPTNER_JSON_NULL).ptr != NULL;
}

GPTNER_API bool gptner_json_read_raw(gptner_json_reader *r, gptner_str *out)
{
    const char *from = r->pos;
    out->ptr = NULL;
    out->len = 0;
    if (!gptner_json_skip(r))
        return false;
    out->ptr = from;
    out->len = (size_t)(r->pos - from);
    return true;
}

GPTNER_API gptner_status gptner_json_reader_finish(gptner_json_reader *r,
                                                   gptner_json_error *err)
{
    if (gpn_json_walk(r, NULL, 0)) {
        gpn_json_space(r);
        if (r->pos < r->end)
            gpn_json_bad(r, r->pos, "more text after the value");
    }
    if (err != NULL)
        *err = r->error;
    return r->error.status;
}

/* --- document ----------------------------------------------------------- */

/* The memory for a document of len bytes of text, which follow it. */
static gptner_json_doc *gpn_json_doc_new(const gpn_env *env, size_t len,
                                         size_t max_bytes)
{
    gptner_json_doc *doc;
    size_t size = sizeof(*doc) + len + 1;
    doc = (gptner_json_doc *)gpn_mem_alloc(env, size);
    if (doc == NULL)
        return NULL;
    memset(doc, 0, sizeof(*doc));
    doc->env = *env;
    doc->step = len / 32 + 4;
    doc->max_nodes = (max_bytes - size) / sizeof(gptner_json_value);
    doc->open = SIZE_MAX;
    return doc;
}

/* Give back what the tape does not need; that this fails does no harm. */
static void gpn_json_doc_trim(gptner_json_doc *doc)
{
    void *nodes = gpn_mem_realloc(&doc->env, doc->nodes,
                                  doc->len * sizeof(gptner_json_value));
    if (nodes != NULL) {
        doc->nodes = (gptner_json_value *)nodes;
        doc->cap = doc->len;
    }
}

GPTNER_API gptner_status gptner_json_parse(const char *text, size_t len,
                                           const gptner_json_options *opt,
                                           gptner_json_doc **out,
                                           gptner_json_error *err)
{
    gpn_env env;
    gptner_json_reader r;
    gptner_json_doc *doc = NULL;
    size_t max = opt != NULL ? opt->max_bytes : 0;
    *out = NULL;
    max = max != 0 ? max : GPN_JSON_MAX_BYTES;
    len = text != NULL ? len : 0;
    gptner_json_reader_init(&r, text, len, opt);
    if (!gpn_env_init(&env, opt != NULL ? opt->allocator : NULL, NULL))
        gpn_json_stop(&r, GPTNER_ERR_INVALID_ARGUMENT, r.text,
                      "the allocator lacks a function");
    else if (max < sizeof(*doc) + 1 || len > max - sizeof(*doc) - 1 ||
             len > SIZE_MAX >> 4)
        gpn_json_stop(&r, GPTNER_ERR_LIMIT, r.text,
                      "the document needs more memory than max_bytes");
    else if ((doc = gpn_json_doc_new(&env, len, max)) == NULL)
        gpn_json_stop(&r, GPTNER_ERR_NO_MEMORY, r.text, "out of memory");
    if (doc != NULL) {
        char *copy = (char *)(doc + 1);
        if (len > 0)
            memcpy(copy, text, len);
        copy[len] = '\0';
        gptner_json_reader_init_in_place(&r, copy, len, opt);
        if (gpn_json_walk(&r, doc, 0) &&
            gptner_json_reader_finish(&r, NULL) == GPTNER_OK) {
            gpn_json_doc_trim(doc);
            *out = doc;
            doc = NULL;
        }
    }
    gptner_json_doc_free(doc);
    if (err != NULL)
        *err = r.error;
    return r.error.status;
}

GPTNER_API void gptner_json_doc_free(gptner_json_doc *doc)
{
    if (doc != NULL) {
        gpn_mem_free(&doc->env, doc->nodes);
        gpn_mem_free(&doc->env, doc); /* its env is not looked at after */
    }
}

GPTNER_API const gptner_json_value *gptner_json_root(const gptner_json_doc *doc)
{
    return doc != NULL ? doc->nodes : NULL;
}

GPTNER_API gptner_json_type gptner_json_type_of(const gptner_json_value *value)
{
    return value != NULL ? (gptner_json_type)(value->head & 7)
                         : GPTNER_JSON_NONE;
}

static bool gpn_json_is(const gptner_json_value *value, gptner_json_type type)
{
    return gptner_json_type_of(value) == type;
}

GPTNER_API size_t gptner_json_size(const gptner_json_value *value)
{
    return gptner_json_type_of(value) >= GPTNER_JSON_STRING ? value->head >> 3
                                                            : 0;
}

/* The text of a string or number. */
static gptner_str gpn_json_text(const gptner_json_value *value)
{
    return gpn_str(value->u.text, value->head >> 3);
}

/* The same if the value is of this type; else ptr is NULL. */
static gptner_str gpn_json_text_of(const gptner_json_value *value,
                                   gptner_json_type type)
{
    return gpn_json_is(value, type) ? gpn_json_text(value) : gpn_str(NULL, 0);
}

GPTNER_API gptner_json_iter gptner_json_iterate(const gptner_json_value *value)
{
    gptner_json_iter it = GPN_ZERO;
    it.is_object = gpn_json_is(value, GPTNER_JSON_OBJECT);
    if (it.is_object || gpn_json_is(value, GPTNER_JSON_ARRAY)) {
        it.next = value + 1;
        it.left = value->head >> 3;
    }
    return it;
}

GPTNER_API bool gptner_json_iter_next(gptner_json_iter *it)
{
    bool container;
    if (it->left == 0) {
        gptner_json_iter none = GPN_ZERO;
        *it = none;
        return false;
    }
    it->left--;
    if (it->is_object)
        it->key = gpn_json_text(it->next++);
    it->value = it->next;
    container = gpn_json_is(it->value, GPTNER_JSON_OBJECT) ||
                gpn_json_is(it->value, GPTNER_JSON_ARRAY);
    it->next += container ? it->value->u.skip : 1;
    return true;
}

GPTNER_API const gptner_json_value *
gptner_json_find_str(const gptner_json_value *object, gptner_str key)
{
    const gptner_json_value *found = NULL;
    gptner_json_iter it = gptner_json_iterate(object);
    if (!it.is_object)
        return NULL;
    while (gptner_json_iter_next(&it))
        if (gpn_str_eq(it.key, key))
            found = it.value;
    return found;
}

GPTNER_API const gptner_json_value *
gptner_json_find(const gptner_json_value *object, const char *key)
{
    return gptner_json_find_str(object, gpn_str_c(key));
}

GPTNER_API const gptner_json_value *
gptner_json_at(const gptner_json_value *array, size_t index)
{
    gptner_json_iter it = gptner_json_iterate(array);
    if (it.is_object || index >= it.left)
        return NULL;
    do
        gptner_json_iter_next(&it);
    while (index-- > 0);
    return it.value;
}

/* The index between brackets, *path at the opening one, which is moved behind
 * the closing one; SIZE_MAX if there is none. */
static size_t gpn_json_path_index(const char **path)
{
    const char *p = *path + 1;
    size_t index = 0;
    if (*p == ']')
        return SIZE_MAX;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (index > SIZE_MAX / 16)
            return SIZE_MAX;
        index = index * 10 + (size_t)(*p - '0');
    }
    *path = p + 1;
    return *p == ']' ? index : SIZE_MAX;
}

GPTNER_API const gptner_json_value *
gptner_json_path(const gptner_json_value *value, const char *path)
{
    const char *p = path;
    while (value != NULL && *p != '\0') {
        if (*p == '[') {
            size_t index = gpn_json_path_index(&p);
            if (index == SIZE_MAX)
                return NULL;
            value = gptner_json_at(value, index);
        } else {
            gptner_str key;
            p += *p == '.' && p != path;
            key.ptr = p;
            key.len = strcspn(p, ".[");
            value = gptner_json_find_str(value, key);
            p += key.len;
        }
    }
    return value;
}

GPTNER_API bool gptner_json_get_bool(const gptner_json_value *value, bool *out)
{
    *out = gpn_json_is(value, GPTNER_JSON_BOOL) && value->head >> 3 != 0;
    return gpn_json_is(value, GPTNER_JSON_BOOL);
}

GPTNER_API bool gptner_json_get_number(const gptner_json_value *value,
                                       gptner_str *out)
{
    *out = gpn_json_text_of(value, GPTNER_JSON_NUMBER);
    return out->ptr != NULL;
}

GPTNER_API bool gptner_json_get_str(const gptner_json_value *value,
                                    gptner_str *out)
{
    *out = gpn_json_text_of(value, GPTNER_JSON_STRING);
    return out->ptr != NULL;
}

GPTNER_API bool gptner_json_get_int64(const gptner_json_value *value,
                                      int64_t *out)
{
    return gpn_json_to_int64(gpn_json_text_of(value, GPTNER_JSON_NUMBER), out);
}

GPTNER_API bool gptner_json_get_uint64(const gptner_json_value *value,
                                       uint64_t *out)
{
    return gpn_json_to_uint64(gpn_json_text_of(value, GPTNER_JSON_NUMBER), out);
}

GPTNER_API bool gptner_json_get_double(const gptner_json_value *value,
                                       double *out)
{
    return gpn_parse_double(gpn_json_text_of(value, GPTNER_JSON_NUMBER), out);
}

GPTNER_API const char *gptner_json_get_cstr(const gptner_json_value *value,
                                            const char *otherwise)
{
    gptner_str text;
    if (!gptner_json_get_str(value, &text) || strlen(text.ptr) != text.len)
        return otherwise;
    return text.ptr;
}

/* --- writer ------------------------------------------------------------- */

/* With a callback: the text is handed over from this size on. */
#define GPN_JSON_PIECE 4096

/* What the writer takes next. */
enum {
    GPN_JSON_W_VALUE, /* the value: of the text, or after a key */
    GPN_JSON_W_FIRST, /* the first child, or the end, of a container */
    GPN_JSON_W_NEXT,  /* another one, or the end */
    GPN_JSON_W_PART,  /* parts of a string */
    GPN_JSON_W_DONE   /* nothing; the text is whole */
};

struct gptner_json_writer {
    gpn_buf *out;
    size_t start; /* where in out the text begins */
    gptner_status status;
    const char *message;
    size_t depth, indent;
    bool (*write_fn)(const char *data, size_t len, void *user);
    void *write_user;
    int state;
    bool ascii_only, refuse_invalid, trust_raw;
    char carry[4]; /* the start of a character that the next part completes */
    size_t carried;
    uint32_t nest[GPTNER_JSON_DEPTH_MAX / 32]; /* a bit a level: object */
};

/* What gptner_json_writer_new() makes: a writer with a buffer of its own. */
typedef struct gpn_json_owner {
    gptner_json_writer w; /* first: the two have one address */
    gpn_env env;
    gpn_buf buf;
} gpn_json_owner;

/* A writer on the stack that appends to a buffer of the caller, compact. It
 * holds nothing: there is no deinit. Fields may be set after this. */
static void gpn_json_writer_init(gptner_json_writer *w, gpn_buf *out)
{
    memset(w, 0, sizeof(*w));
    w->out = out;
    w->start = out->len;
    w->message = "no error";
}

static void gpn_json_w_fail(gptner_json_writer *w, gptner_status status,
                            const char *message)
{
    if (gptner_json_writer_status(w) == GPTNER_OK) {
        w->status = status;
        w->message = message;
    }
}

/* Whether all is well so far, this included; if not, message latches. */
static bool gpn_json_w_check(gptner_json_writer *w, bool right,
                             const char *message)
{
    if (!right)
        gpn_json_w_fail(w, GPTNER_ERR_INVALID_ARGUMENT, message);
    return gptner_json_writer_status(w) == GPTNER_OK;
}

/* Hand over what has gathered. */
static void gpn_json_w_flush(gptner_json_writer *w)
{
    if (w->out->len > 0 && gptner_json_writer_status(w) == GPTNER_OK &&
        !w->write_fn(w->out->data, w->out->len, w->write_user))
        gpn_json_w_fail(w, GPTNER_ERR_CANCELLED,
                        "the callback refused the text");
    w->out->len = 0;
}

static void gpn_json_w_add(gptner_json_writer *w, const char *text, size_t len)
{
    while (w->write_fn != NULL && w->out->len + len > GPN_JSON_PIECE) {
        size_t part = GPN_JSON_PIECE - w->out->len;
        gpn_buf_add(w->out, text, part);
        text += part;
        len -= part;
        gpn_json_w_flush(w);
    }
    gpn_buf_add(w->out, text, len);
}

static void gpn_json_w_char(gptner_json_writer *w, char c)
{
    gpn_json_w_add(w, &c, 1);
}

static void gpn_json_w_line(gptner_json_writer *w)
{
    static const char spaces[] = "                ";
    if (w->indent == 0)
        return;
    gpn_json_w_char(w, '\n');
    for (size_t i = 0; i < w->depth; i++)
        gpn_json_w_add(w, spaces, w->indent);
}

/* Before a child of a container: comma, line, indentation. */
static void gpn_json_w_child(gptner_json_writer *w)
{
    if (w->state == GPN_JSON_W_NEXT)
        gpn_json_w_char(w, ',');
    gpn_json_w_line(w);
}

/* Before a value: whether one may stand here. */
static bool gpn_json_w_begin(gptner_json_writer *w)
{
    bool in_object = gpn_json_in_object(w->nest, w->depth);
    if (w->state == GPN_JSON_W_VALUE)
        return gpn_json_w_check(w, true, "");
    if (!gpn_json_w_check(w, w->state < GPN_JSON_W_PART && !in_object,
                          w->state == GPN_JSON_W_DONE
                              ? "a second value in one text"
                          : w->state == GPN_JSON_W_PART
                              ? "a string is not ended"
                              : "a value without a key in an object"))
        return false;
    gpn_json_w_child(w);
    return true;
}

static void gpn_json_w_end(gptner_json_writer *w)
{
    w->state = w->depth > 0 ? GPN_JSON_W_NEXT : GPN_JSON_W_DONE;
}

static void gpn_json_w_value(gptner_json_writer *w, const char *text,
                             size_t len)
{
    if (gpn_json_w_begin(w)) {
        gpn_json_w_add(w, text, len);
        gpn_json_w_end(w);
    }
}

static char *gpn_json_w_unit(char *to, uint32_t unit)
{
    static const char hex[] = "0123456789abcdef";
    *to++ = '\\';
    *to++ = 'u';
    for (int shift = 12; shift >= 0; shift -= 4)
        *to++ = hex[unit >> shift & 15];
    return to;
}

/* A character that does not stand for itself. */
static void gpn_json_w_escape(gptner_json_writer *w, uint32_t cp)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *found = NULL;
    char text[12], *end = text;
    if (cp > 0 && cp < 0x80)
        found = strchr(from, (int)cp);
    if (found != NULL) {
        *end++ = '\\';
        *end++ = to[found - from];
    } else {
        if (cp >= 0x10000) {
            end = gpn_json_w_unit(end, 0xD7C0 + (cp >> 10));
            cp = 0xDC00 + (cp & 0x3FF);
        }
        end = gpn_json_w_unit(end, cp);
    }
    gpn_json_w_add(w, text, (size_t)(end - text));
}

/* In place of bytes that are no UTF-8. */
static void gpn_json_w_replace(gptner_json_writer *w)
{
    if (w->refuse_invalid)
        gpn_json_w_fail(w, GPTNER_ERR_INVALID_ARGUMENT,
                        "text to be written is not valid UTF-8");
    else if (w->ascii_only)
        gpn_json_w_escape(w, 0xFFFD);
    else
        gpn_json_w_add(w, "\xEF\xBF\xBD", 3);
}

#if defined(__SSE2__) && defined(__GNUC__) && !defined(GPN_SMALL)
#define GPN_JSON_BLOCKS
#include <emmintrin.h>

/* What 64 bytes hold, a bit a byte, the first one lowest. */
typedef struct gpn_json_block {
    uint64_t escapes; /* does not stand for itself */
    uint64_t beyond;  /* not ASCII; the others are only set if there are such */
    uint64_t inner;   /* not the first byte of a character */
    uint64_t three;   /* first of three or four */
    uint64_t four;    /* first of four */
    uint64_t rare;    /* first, and the second one has to be looked at */
} gpn_json_block;

static uint64_t gpn_json_mask(__m128i a, __m128i b, __m128i c, __m128i d)
{
    unsigned low = (unsigned)_mm_movemask_epi8(b) << 16;
    unsigned high = (unsigned)_mm_movemask_epi8(d) << 16;
    low |= (unsigned)_mm_movemask_epi8(a);
    high |= (unsigned)_mm_movemask_epi8(c);
    return (uint64_t)high << 32 | low;
}

static __m128i gpn_json_equal(__m128i x, unsigned c)
{
    return _mm_cmpeq_epi8(x, _mm_set1_epi8((char)c));
}

static __m128i gpn_json_least(__m128i x, unsigned c)
{
    return _mm_cmpeq_epi8(_mm_max_epu8(x, _mm_set1_epi8((char)c)), x);
}

static __m128i gpn_json_odd(__m128i x)
{
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
    return _mm_or_si128(
        low, _mm_or_si128(gpn_json_equal(x, '"'), gpn_json_equal(x, '\\')));
}

/* C0, C1, E0, ED. */
static __m128i gpn_json_rare(__m128i x)
{
    __m128i even = _mm_and_si128(x, _mm_set1_epi8((char)0xfe));
    return _mm_or_si128(
        gpn_json_equal(even, 0xc0),
        _mm_or_si128(gpn_json_equal(x, 0xe0), gpn_json_equal(x, 0xed)));
}

static __m128i gpn_json_inner(__m128i x)
{
    return _mm_cmplt_epi8(x, _mm_set1_epi8((char)0xc0));
}

static void gpn_json_survey(const char *p, gpn_json_block *b)
{
    const __m128i *at = (const __m128i *)(const void *)p;
    __m128i v = _mm_loadu_si128(at), x = _mm_loadu_si128(at + 1);
    __m128i y = _mm_loadu_si128(at + 2), z = _mm_loadu_si128(at + 3);
    b->escapes = gpn_json_mask(gpn_json_odd(v), gpn_json_odd(x),
                               gpn_json_odd(y), gpn_json_odd(z));
    b->beyond = gpn_json_mask(v, x, y, z);
    b->inner = b->three = b->four = b->rare = 0;
    if (b->beyond == 0)
        return;
    b->inner = gpn_json_mask(gpn_json_inner(v), gpn_json_inner(x),
                             gpn_json_inner(y), gpn_json_inner(z));
    b->three = gpn_json_mask(gpn_json_least(v, 0xe0), gpn_json_least(x, 0xe0),
                             gpn_json_least(y, 0xe0), gpn_json_least(z, 0xe0));
    b->rare = gpn_json_mask(gpn_json_rare(v), gpn_json_rare(x),
                            gpn_json_rare(y), gpn_json_rare(z));
    if (b->three == 0)
        return;
    b->four = gpn_json_mask(gpn_json_least(v, 0xf0), gpn_json_least(x, 0xf0),
                            gpn_json_least(y, 0xf0), gpn_json_least(z, 0xf0));
    b->rare |= b->four;
}

/* Whether the block at p is UTF-8, when those of the bits of *due that are set
 * are inner bytes of a character begun before; *due for the next block. */
static bool gpn_json_block_good(const gpn_json_block *b, const char *p,
                                const char *end, uint64_t *due)
{
    uint64_t first = b->beyond & ~b->inner, rare = b->rare;
    uint64_t inner = first << 1 | b->three << 2 | b->four << 3 | *due;
    *due = first >> 63 | b->three >> 62 | b->four >> 61;
    if (inner != b->inner)
        return false;
    for (; rare != 0; rare &= rare - 1) {
        const char *c = p + __builtin_ctzll(rare);
        if (gpn_json_multi(c, (size_t)(end - c)) == 0)
            return false;
    }
    return true;
}

/* A block at p, of which n bytes count, up to 112 can be read, and those of the
 * bits of escapes want one. Returns where the output ends, behind which up to
 * 64 bytes are spoilt. */
static char *gpn_json_w_block(const char *p, size_t n, uint64_t escapes,
                              char *to)
{
    /* what follows the backslash; 'u': no short form */
    static const char form['\\' + 1] = {
        'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r',
        'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
        'u', 'u', 'u', 'u', 0,   0,   '"', 0,   0,   0,   0,   0,   0,   0,
        0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
        0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
        0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
        0,   0,   0,   0,   0,   0,   0,   0,   '\\'};
    size_t from = 0, next;
    for (; escapes != 0; escapes &= escapes - 1) {
        unsigned c;
        next = (size_t)__builtin_ctzll(escapes);
        c = (unsigned char)p[next];
        memcpy(to, p + from, 48);
        if (next - from > 48)
            memcpy(to + 48, p + from + 48, 16);
        to += next - from;
        from = next + 1;
        to[0] = '\\';
        to[1] = form[c];
        to += 2;
        if (form[c] == 'u')
            to = gpn_json_w_unit(to - 2, c);
    }
    memcpy(to, p + from, 48);
    if (n - from > 48)
        memcpy(to + 48, p + from + 48, 16);
    return to + (n - from);
}

/* The quick way into memory for most of a text, if not all, 64 bytes a step.
 * Returns where it stopped: at the end, or at a character that is none or not
 * whole, or when little is left of what the buffer may hold. */
static const char *gpn_json_w_quick(gptner_json_writer *w, const char *p,
                                    const char *end)
{
    enum { ROOM = 6 * 64 + 64 }; /* \u00xx 64 times, and what is spoilt */
    gpn_buf *out = w->out;
    char last[224]; /* the end of the text, and what may be read behind it */
    const char *from = p; /* there, or still in the text */
    gpn_json_block b;
    uint64_t due = 0, next;
    while (p < end &&
           (out->cap - out->len >= ROOM ||
            (out->max - out->len >= ROOM && gpn_buf_reserve(out, ROOM)))) {
        size_t n = (size_t)(end - p);
        char *to = out->data + out->len;
        if (n < 112 && from == p) {
            memset(last + n, ' ', 112);
            memcpy(last, p, n);
            from = last;
        }
        n = n < 64 ? n : 64;
        next = due;
        gpn_json_survey(from, &b);
        if ((b.beyond | due) != 0 && !gpn_json_block_good(&b, p, end, &next))
            break;
        due = next;
        out->len += (size_t)(gpn_json_w_block(from, n, b.escapes, to) - to);
        p += n;
        from += n;
    }
    if (due != 0) { /* back to where that character begins */
        do {
            out->len--;
            p--;
        } while (((unsigned char)*p & 0xc0) == 0x80);
    }
    return p;
}
#endif

/* Text inside a string; a character cut off by its end is carried over. */
static void gpn_json_w_text(gptner_json_writer *w, const char *p, size_t len)
{
    const char *end = p + len, *run;
#ifdef GPN_JSON_BLOCKS
    if (w->write_fn == NULL && !w->ascii_only)
        p = gpn_json_w_quick(w, p, end);
    if (p == end)
        return;
#endif
    run = p;
    while ((p = gpn_json_plain(p, end)) < end) {
        size_t need = 1, n = 1;
        uint32_t cp = (unsigned char)*p;
        if (cp >= 0x80 && !w->ascii_only) {
            const char *from = p;
            p = gpn_json_beyond(p, end);
            if (p > from)
                continue;
        }
        gpn_json_w_add(w, run, (size_t)(p - run));
        if (cp >= 0x80)
            n = gpn_utf8_scan(p, (size_t)(end - p), &need);
        if (n < need && p + n == end) {
            memcpy(w->carry, p, n);
            w->carried = n;
        } else if (n != need) {
            gpn_json_w_replace(w);
        } else {
            gpn_utf8_get(p, n, &cp);
            gpn_json_w_escape(w, cp);
        }
        p += n;
        run = p;
    }
    gpn_json_w_add(w, run, (size_t)(p - run));
}

/* Complete the character carried over. Returns how many bytes that took. */
static size_t gpn_json_w_carry(gptner_json_writer *w, gptner_str part)
{
    size_t used = 0, need = 0;
    while (w->carried > 0 && used < part.len) {
        size_t n;
        w->carry[w->carried] = part.ptr[used];
        n = gpn_utf8_scan(w->carry, w->carried + 1, &need);
        if (n <= w->carried) {
            w->carried = 0;
            gpn_json_w_replace(w);
            break;
        }
        w->carried++;
        used++;
        if (n == need) {
            w->carried = 0;
            gpn_json_w_text(w, w->carry, n);
        }
    }
    return used;
}

/* The end of a string; a character that is still cut off is none. */
static void gpn_json_w_close(gptner_json_writer *w)
{
    if (w->carried > 0)
        gpn_json_w_replace(w);
    w->carried = 0;
    gpn_json_w_char(w, '"');
}

static void gpn_json_w_quoted(gptner_json_writer *w, gptner_str text)
{
    gpn_json_w_char(w, '"');
    gpn_json_w_text(w, text.ptr, text.len);
    gpn_json_w_close(w);
}

GPTNER_API gptner_status gptner_json_writer_new(
    const gptner_json_writer_options *opt, gptner_json_writer **out)
{
    gptner_json_writer_options none = GPN_ZERO;
    gpn_json_owner *owner;
    gpn_env env;
    *out = NULL;
    opt = opt != NULL ? opt : &none;
    if (!gpn_env_init(&env, opt->allocator, NULL) || opt->indent < 0 ||
        opt->indent > 16)
        return GPTNER_ERR_INVALID_ARGUMENT;
    owner = (gpn_json_owner *)gpn_mem_alloc(&env, sizeof(*owner));
    if (owner == NULL)
        return GPTNER_ERR_NO_MEMORY;
    owner->env = env;
    gpn_buf_init(&owner->buf, &owner->env,
                 opt->max_bytes != 0 ? opt->max_bytes : GPN_JSON_MAX_BYTES);
    gpn_json_writer_init(&owner->w, &owner->buf);
    owner->w.indent = (size_t)opt->indent;
    owner->w.ascii_only = opt->ascii_only;
    owner->w.refuse_invalid = opt->refuse_invalid_utf8;
    owner->w.trust_raw = opt->trust_raw;
    owner->w.write_fn = opt->write_fn;
    owner->w.write_user = opt->write_user;
    *out = &owner->w;
    return GPTNER_OK;
}

GPTNER_API void gptner_json_writer_free(gptner_json_writer *w)
{
    gpn_json_owner *owner = (gpn_json_owner *)(void *)w;
    if (w != NULL) {
        gpn_buf_deinit(&owner->buf);
        gpn_mem_free(&owner->env, owner); /* env is not looked at after */
    }
}

GPTNER_API void gptner_json_writer_reset(gptner_json_writer *w)
{
    gpn_buf_clear(w->out);
    w->start = 0;
    w->status = GPTNER_OK;
    w->message = "no error";
    w->state = GPN_JSON_W_VALUE;
    w->depth = 0;
    w->carried = 0;
}

GPTNER_API gptner_status gptner_json_writer_finish(gptner_json_writer *w,
                                                   gptner_str *out)
{
    gptner_str text = {NULL, 0};
    gpn_json_w_check(w, w->state == GPN_JSON_W_DONE,
                     "the text was finished before its value was whole");
    if (w->write_fn != NULL) {
        gpn_json_w_flush(w);
    } else if (gpn_buf_reserve(w->out, 1)) {
        w->out->data[w->out->len] = '\0';
        if (w->status == GPTNER_OK)
            text = gpn_str(w->out->data + w->start, w->out->len - w->start);
    }
    if (out != NULL)
        *out = text;
    return gptner_json_writer_status(w);
}

GPTNER_API gptner_status gptner_json_writer_status(const gptner_json_writer *w)
{
    return w->status != GPTNER_OK ? w->status : w->out->status;
}

GPTNER_API const char *gptner_json_writer_message(const gptner_json_writer *w)
{
    return w->status != GPTNER_OK || w->out->status == GPTNER_OK
               ? w->message
               : gptner_status_text(w->out->status);
}

static void gpn_json_w_open(gptner_json_writer *w, bool object)
{
    if (w->depth >= GPTNER_JSON_DEPTH_MAX) {
        gpn_json_w_fail(w, GPTNER_ERR_LIMIT, "nested deeper than 1024 levels");
        return;
    }
    if (!gpn_json_w_begin(w))
        return;
    gpn_json_nest(w->nest, w->depth, object);
    w->depth++;
    w->state = GPN_JSON_W_FIRST;
    gpn_json_w_char(w, object ? '{' : '[');
}

GPTNER_API void gptner_json_write_object(gptner_json_writer *w)
{
    gpn_json_w_open(w, true);
}

GPTNER_API void gptner_json_write_array(gptner_json_writer *w)
{
    gpn_json_w_open(w, false);
}

/* Whether a child or the end of a container is due. */
static bool gpn_json_w_inside(const gptner_json_writer *w)
{
    return w->state == GPN_JSON_W_FIRST || w->state == GPN_JSON_W_NEXT;
}

GPTNER_API void gptner_json_write_end(gptner_json_writer *w)
{
    bool object = gpn_json_in_object(w->nest, w->depth);
    if (!gpn_json_w_check(w, gpn_json_w_inside(w),
                          "an end where nothing can be closed"))
        return;
    w->depth--;
    if (w->state == GPN_JSON_W_NEXT)
        gpn_json_w_line(w);
    gpn_json_w_char(w, object ? '}' : ']');
    gpn_json_w_end(w);
}

GPTNER_API void gptner_json_write_key_str(gptner_json_writer *w, gptner_str key)
{
    if (!gpn_json_w_check(w,
                          key.ptr != NULL && gpn_json_w_inside(w) &&
                              gpn_json_in_object(w->nest, w->depth),
                          "a key where none is due"))
        return;
    gpn_json_w_child(w);
    gpn_json_w_quoted(w, key);
    gpn_json_w_add(w, ": ", w->indent > 0 ? 2 : 1);
    w->state = GPN_JSON_W_VALUE;
}

GPTNER_API void gptner_json_write_key(gptner_json_writer *w, const char *key)
{
    gptner_json_write_key_str(w, gpn_str_c(key));
}

GPTNER_API void gptner_json_write_str(gptner_json_writer *w, gptner_str text)
{
    if (text.ptr == NULL) {
        gptner_json_write_null(w);
    } else if (gpn_json_w_begin(w)) {
        gpn_json_w_quoted(w, text);
        gpn_json_w_end(w);
    }
}

GPTNER_API void gptner_json_write_string(gptner_json_writer *w,
                                         const char *text)
{
    gptner_json_write_str(w, gpn_str_c(text));
}

GPTNER_API void gptner_json_write_str_begin(gptner_json_writer *w)
{
    if (gpn_json_w_begin(w)) {
        gpn_json_w_char(w, '"');
        w->state = GPN_JSON_W_PART;
    }
}

/* Whether parts of a string are due. */
static bool gpn_json_w_part(gptner_json_writer *w)
{
    return gpn_json_w_check(w, w->state == GPN_JSON_W_PART,
                            "a part of a string that was not begun");
}

GPTNER_API void gptner_json_write_str_part(gptner_json_writer *w,
                                           gptner_str part)
{
    size_t used;
    if (part.len == 0 || !gpn_json_w_part(w))
        return;
    used = gpn_json_w_carry(w, part);
    gpn_json_w_text(w, part.ptr + used, part.len - used);
}

GPTNER_API void gptner_json_write_str_end(gptner_json_writer *w)
{
    if (gpn_json_w_part(w)) {
        gpn_json_w_close(w);
        gpn_json_w_end(w);
    }
}

GPTNER_API void gptner_json_write_int64(gptner_json_writer *w, int64_t number)
{
    char text[24];
    gpn_json_w_value(w, text, gpn_fmt_i64(number, text));
}

GPTNER_API void gptner_json_write_uint64(gptner_json_writer *w, uint64_t number)
{
    char text[24];
    gpn_json_w_value(w, text, gpn_fmt_u64(number, text));
}

GPTNER_API void gptner_json_write_double(gptner_json_writer *w, double number)
{
    char text[40];
    /* the difference is 0 but for infinities and NaN */
    if (gpn_json_w_check(w, number - number == 0,
                         "a number that is not finite"))
        gpn_json_w_value(w, text, gpn_fmt_double(number, text));
}

GPTNER_API void gptner_json_write_bool(gptner_json_writer *w, bool truth)
{
    gpn_json_w_value(w, truth ? "true" : "false", truth ? 4 : 5);
}

GPTNER_API void gptner_json_write_null(gptner_json_writer *w)
{
    gpn_json_w_value(w, "null", 4);
}

/* Valid JSON without the white space between its tokens. */
static void gpn_json_w_tokens(gptner_json_writer *w, gptner_str json)
{
    const char *p = json.ptr, *end = p + json.len, *run = p;
    bool inside = false;
    for (; p < end; p++) {
        if (*p == '"')
            inside = !inside;
        else if (*p == '\\')
            p++; /* only ever inside a string, and never its last byte */
        if (inside || (unsigned char)*p > ' ')
            continue;
        gpn_json_w_add(w, run, (size_t)(p - run));
        run = p + 1;
    }
    gpn_json_w_add(w, run, (size_t)(p - run));
}

GPTNER_API void gptner_json_write_raw(gptner_json_writer *w, gptner_str json)
{
    gptner_json_reader r;
    if (w->trust_raw) {
        gpn_json_w_value(w, json.ptr, json.len);
        return;
    }
    gptner_json_reader_init(&r, json.ptr, json.len, NULL);
    json = gpn_str(r.pos, (size_t)(r.end - r.pos)); /* less a mark before it */
    if (gptner_json_reader_finish(&r, NULL) != GPTNER_OK) {
        gpn_json_w_fail(w, r.error.status, r.error.message);
    } else if (gpn_json_w_begin(w)) {
        gpn_json_w_tokens(w, json);
        gpn_json_w_end(w);
    }
}

GPTNER_API void gptner_json_write_value(gptner_json_writer *w,
                                        const gptner_json_value *value)
{
    size_t depth = w->depth;
    while (gpn_json_w_check(w, value != NULL, "a value that is not there")) {
        switch (value->head & 7) {
        case GPTNER_JSON_NULL:
            gptner_json_write_null(w);
            break;
        case GPTNER_JSON_BOOL:
            gptner_json_write_bool(w, value->head >> 3 != 0);
            break;
        case GPTNER_JSON_NUMBER:
            gpn_json_w_value(w, value->u.text, value->head >> 3);
            break;
        case GPTNER_JSON_STRING:
            if (w->depth > depth && w->state != GPN_JSON_W_VALUE &&
                gpn_json_in_object(w->nest, w->depth))
                gptner_json_write_key_str(w, gpn_json_text(value));
            else
                gptner_json_write_str(w, gpn_json_text(value));
            break;
        case GPN_JSON_END:
            gptner_json_write_end(w);
            break;
        default:
            gpn_json_w_open(w, (value->head & 7) == GPTNER_JSON_OBJECT);
        }
        if (w->depth <= depth)
            return;
        value++;
    }
}

static GPN_NOINLINE gptner_json_writer *gpn_json_w_key(gptner_json_writer *w,
                                                       const char *key)
{
    gptner_json_write_key(w, key);
    return w;
}

GPTNER_API void gptner_json_put_object(gptner_json_writer *w, const char *key)
{
    gptner_json_write_object(gpn_json_w_key(w, key));
}

GPTNER_API void gptner_json_put_array(gptner_json_writer *w, const char *key)
{
    gptner_json_write_array(gpn_json_w_key(w, key));
}

GPTNER_API void gptner_json_put_string(gptner_json_writer *w, const char *key,
                                       const char *text)
{
    gptner_json_write_string(gpn_json_w_key(w, key), text);
}

GPTNER_API void gptner_json_put_str(gptner_json_writer *w, const char *key,
                                    gptner_str text)
{
    gptner_json_write_str(gpn_json_w_key(w, key), text);
}

GPTNER_API void gptner_json_put_int64(gptner_json_writer *w, const char *key,
                                      int64_t number)
{
    gptner_json_write_int64(gpn_json_w_key(w, key), number);
}

GPTNER_API void gptner_json_put_uint64(gptner_json_writer *w, const char *key,
                                       uint64_t number)
{
    gptner_json_write_uint64(gpn_json_w_key(w, key), number);
}

GPTNER_API void gptner_json_put_double(gptner_json_writer *w, const char *key,
                                       double number)
{
    gptner_json_write_double(gpn_json_w_key(w, key), number);
}

GPTNER_API void gptner_json_put_bool(gptner_json_writer *w, const char *key,
                                     bool truth)
{
    gptner_json_write_bool(gpn_json_w_key(w, key), truth);
}

GPTNER_API void gptner_json_put_null(gptner_json_writer *w, const char *key)
{
    gptner_json_write_null(gpn_json_w_key(w, key));
}

GPTNER_API void gptner_json_put_raw(gptner_json_writer *w, const char *key,
                                    gptner_str json)
{
    gptner_json_write_raw(gpn_json_w_key(w, key), json);
}

/* ===========================================================================
 * >>stream     layer 4   names, TCP, TLS by mbedTLS, the user's transport
 * calls: >>platform >>bytes
 *
 * A gpn_stream is one connection. None of its functions blocks (but for a
 * transport of the user's, which may, for a slice of time): each goes as far as
 * it can and says by a gpn_io what it waits for. The life of a stream:
 *   open -> connect (resolve, race) -> [start_tls -> handshake] -> send, recv
 *   -> close, and open again
 * The stream keeps its own registration with the poller: IN for as long as it
 * is connected, OUT only while something waits for room. So a request over an
 * open connection costs no call to the poller but the wait itself.
 *
 * Names are resolved by a helper thread, because getaddrinfo() can neither be
 * cancelled nor be given a deadline. It shares a counted block with the
 * resolver, which it may outlive.
 *
 * TLS: a full handshake costs 2 to 10 ms, a resumed one 0.1. What is known of
 * a server is kept in a gpn_tls_host: when several connections start at once,
 * the first is the scout, the others wait for the session that it brings,
 * bounded in time. A server that gives no session is remembered as such.
 * ======================================================================== */

/* --- bell: wakes all threads that may wait for a name or a session --- */

typedef struct gpn_bell {
    gpn_mutex mutex; /* guards all below */
    gpn_buf pollers; /* gpn_poller *[] */
} gpn_bell;

static bool gpn_bell_init(gpn_bell *bell, const gpn_env *env)
{
    gpn_buf_init(&bell->pollers, env, SIZE_MAX);
    return gpn_mutex_init(&bell->mutex);
}

static void gpn_bell_deinit(gpn_bell *bell)
{
    gpn_buf_deinit(&bell->pollers);
    gpn_mutex_deinit(&bell->mutex);
}

static bool gpn_bell_add(gpn_bell *bell, gpn_poller *poller)
{
    bool ok;
    gpn_mutex_lock(&bell->mutex);
    gpn_buf_add(&bell->pollers, (const char *)(const void *)&poller,
                sizeof poller);
    ok = bell->pollers.status == GPTNER_OK;
    bell->pollers.status = GPTNER_OK; /* the next may find room */
    gpn_mutex_unlock(&bell->mutex);
    return ok;
}

static gpn_poller **gpn_bell_pollers(gpn_bell *bell, size_t *count)
{
    void *table = bell->pollers.data;
    *count = bell->pollers.len / sizeof(gpn_poller *);
    return (gpn_poller **)table;
}

static void gpn_bell_remove(gpn_bell *bell, gpn_poller *poller)
{
    gpn_poller **pollers;
    size_t count, i;
    gpn_mutex_lock(&bell->mutex);
    pollers = gpn_bell_pollers(bell, &count);
    for (i = 0; i < count; i++) {
        if (pollers[i] == poller) {
            pollers[i] = pollers[count - 1];
            bell->pollers.len -= sizeof poller;
            break;
        }
    }
    gpn_mutex_unlock(&bell->mutex);
}

/* Under the mutex, so that no poller ends meanwhile; a wake never blocks. */
static void gpn_bell_ring(gpn_bell *bell)
{
    gpn_poller **pollers;
    size_t count, i;
    gpn_mutex_lock(&bell->mutex);
    pollers = gpn_bell_pollers(bell, &count);
    for (i = 0; i < count; i++) {
        gpn_poller_wake(pollers[i]);
    }
    gpn_mutex_unlock(&bell->mutex);
}

/* --- resolver --- */

enum {
    GPN_ADDR_MAX = 8,            /* addresses of one name that are tried */
    GPN_NAME_MAX = 16,           /* names kept */
    GPN_NAME_KEEP_MS = 60000,    /* a good answer */
    GPN_NAME_FAILED_MS = 500,    /* a bad one: all who wait shall see it */
    GPN_NAME_STACK = 256 * 1024, /* glibc's resolver alone wants over 20 KiB */
    GPN_RACE_STEP_MS = 250,      /* RFC 8305 5, Connection Attempt Delay */
    GPN_CONNECT_MS = 10000,      /* a transport's connect without a limit */
    GPN_SLICE_MS = 200           /* a transport's send and receive */
};

typedef enum gpn_name_state {
    GPN_NAME_NEW,
    GPN_NAME_RUNNING,
    GPN_NAME_DONE,
    GPN_NAME_FAILED
} gpn_name_state;

typedef struct gpn_name {
    struct gpn_resolver *owner;
    struct gpn_name *next;
    gpn_name_state state;
    bool joinable; /* thread has to be joined or detached */
    int64_t until; /* DONE and FAILED: good up to then; 0: not yet looked at */
    gpn_thread thread;
    int port;
    /* Written by the helper while RUNNING, read by others afterwards. */
    size_t n_addrs;
    gpn_addr addrs[GPN_ADDR_MAX];
    char why[128];
    char host[1]; /* longer; allocated with the struct */
} gpn_name;

/* Lives on the default allocator and its own env: a helper thread that is
 * stuck in the operating system may outlive the client and its hooks. */
typedef struct gpn_resolver {
    gpn_mutex mutex; /* guards up to count, and what gpn_name does not except */
    gpn_name *names;
    size_t count;
    int refs; /* the client, and each running helper */
    gpn_env env;
    gpn_bell bell;
} gpn_resolver;

static gptner_status gpn_resolver_new(const gpn_env *env, gpn_resolver **out,
                                      gptner_error *err)
{
    gpn_env own;
    gpn_resolver *r = NULL;
    GPN_UNUSED(env);
    *out = NULL;
    if (gpn_env_init(&own, NULL, NULL)) {
        r = (gpn_resolver *)gpn_mem_zalloc(&own, sizeof *r);
    }
    if (r == NULL) {
        return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "resolver: out of memory");
    }
    r->env = own;
    r->refs = 1;
    if (gpn_mutex_init(&r->mutex)) {
        if (gpn_bell_init(&r->bell, &r->env)) {
            *out = r;
            return GPTNER_OK;
        }
        gpn_mutex_deinit(&r->mutex);
    }
    gpn_mem_free(&own, r);
    return gpn_fail(err, GPTNER_ERR_THREAD, "resolver: no mutex");
}

static gpn_bell *gpn_resolver_bell(gpn_resolver *r)
{
    return &r->bell;
}

/* Drop one reference, mutex held; it is released. */
static void gpn_resolver_unref(gpn_resolver *r)
{
    gpn_env env = r->env;
    bool last = --r->refs == 0;
    gpn_mutex_unlock(&r->mutex);
    if (!last) {
        return;
    }
    while (r->names != NULL) {
        gpn_name *name = r->names;
        r->names = name->next;
        gpn_mem_free(&env, name);
    }
    gpn_bell_deinit(&r->bell);
    gpn_mutex_deinit(&r->mutex);
    gpn_mem_free(&env, r);
}

/* End with the thread of a name, mutex held: one that has answered ends at
 * once and is joined, another is left to itself. */
static void gpn_name_leave(gpn_name *name)
{
    if (name->joinable) {
        name->joinable = false;
        if (name->state == GPN_NAME_RUNNING) {
            gpn_thread_detach(&name->thread);
        } else {
            gpn_thread_join(&name->thread);
        }
    }
}

static void gpn_resolver_free(gpn_resolver *r)
{
    gpn_name *name;
    if (r == NULL) {
        return;
    }
    gpn_mutex_lock(&r->mutex);
    for (name = r->names; name != NULL; name = name->next) {
        gpn_name_leave(name);
    }
    gpn_resolver_unref(r);
}

static gpn_name_state gpn_name_resolve(gpn_name *name)
{
    int r = gpn_resolve(name->host, name->port, name->addrs, GPN_ADDR_MAX,
                        &name->n_addrs, name->why, sizeof name->why);
    return r == 0 && name->n_addrs > 0 ? GPN_NAME_DONE : GPN_NAME_FAILED;
}

static void gpn_name_thread(void *arg)
{
    gpn_name *name = (gpn_name *)arg;
    gpn_resolver *r = name->owner;
    gpn_name_state state = gpn_name_resolve(name);
    gpn_mutex_lock(&r->mutex);
    name->state = state;
    gpn_bell_ring(&r->bell);
    gpn_resolver_unref(r);
}

/* Begin to resolve, mutex held: in a thread, or else here. */
static void gpn_name_start(gpn_resolver *r, gpn_name *name)
{
    gpn_name_leave(name);
    name->until = 0;
    name->n_addrs = 0;
    name->why[0] = '\0';
    name->state = GPN_NAME_RUNNING;
    r->refs++;
    name->joinable =
        gpn_thread_start(&name->thread, gpn_name_thread, name, GPN_NAME_STACK);
    if (!name->joinable) {
        gpn_name_state state;
        gpn_mutex_unlock(&r->mutex);
        state = gpn_name_resolve(name);
        gpn_mutex_lock(&r->mutex);
        r->refs--; /* ours remains */
        name->state = state;
    }
}

/* Make room when there are too many names, mutex held. */
static void gpn_resolver_evict(gpn_resolver *r)
{
    gpn_name **at = &r->names;
    while (*at != NULL && r->count >= GPN_NAME_MAX) {
        gpn_name *name = *at;
        if (name->state == GPN_NAME_RUNNING) {
            at = &name->next;
            continue;
        }
        gpn_name_leave(name);
        *at = name->next;
        gpn_mem_free(&r->env, name);
        r->count--;
    }
}

/* The entry of a name, made if it is not there; NULL: no memory. */
static gpn_name *gpn_resolver_entry(gpn_resolver *r, const char *host, int port)
{
    size_t len = strlen(host);
    gpn_name *name;
    for (name = r->names; name != NULL; name = name->next) {
        if (name->port == port && strcmp(name->host, host) == 0) {
            return name;
        }
    }
    gpn_resolver_evict(r);
    name = (gpn_name *)gpn_mem_zalloc(&r->env, sizeof *name + len);
    if (name != NULL) {
        memcpy(name->host, host, len + 1);
        name->owner = r;
        name->port = port;
        name->next = r->names;
        r->names = name;
        r->count++;
    }
    return name;
}

/* Look a name up. DONE: addrs and n are filled. WAIT: the bell will ring.
 * FAILED: why tells. */
static gpn_io gpn_resolver_find(gpn_resolver *r, const char *host, int port,
                                int64_t now, gpn_name *out)
{
    gpn_io io = GPN_IO_WAIT;
    gpn_name *name;
    gpn_mutex_lock(&r->mutex);
    name = gpn_resolver_entry(r, host, port);
    if (name == NULL) {
        gpn_format(out->why, sizeof out->why, "out of memory");
        io = GPN_IO_FAILED;
        goto done;
    }
    if (name->state == GPN_NAME_NEW ||
        (name->state != GPN_NAME_RUNNING && name->until != 0 &&
         now >= name->until)) {
        gpn_name_start(r, name);
    }
    if (name->state != GPN_NAME_RUNNING) {
        bool ok = name->state == GPN_NAME_DONE;
        if (name->until == 0) {
            name->until = now + (ok ? GPN_NAME_KEEP_MS : GPN_NAME_FAILED_MS);
        }
        memcpy(out->addrs, name->addrs, sizeof out->addrs);
        memcpy(out->why, name->why, sizeof out->why);
        out->n_addrs = name->n_addrs;
        io = ok ? GPN_IO_DONE : GPN_IO_FAILED;
    }
done:
    gpn_mutex_unlock(&r->mutex);
    return io;
}

/* --- the stream itself, and the bytes below TLS --- */

/* A server and the way to it. All strings outlive the stream. */
typedef struct gpn_peer {
    const char *host; /* as the resolver wants it: no brackets */
    int port;
    bool tls;
    const char *name; /* for TLS: lower case, no trailing dot, no brackets */
    const char *proxy_host; /* NULL: direct */
    int proxy_port;
    const char *proxy_auth; /* value of Proxy-Authorization; NULL: none */
} gpn_peer;

/* While a connection is being made: all that is tried for it. */
typedef struct gpn_race {
    size_t started;
    size_t live;
    size_t failed; /* the address that failed last */
    int oserr;     /* and why */
    int64_t next_at;
    gpn_fd fds[GPN_ADDR_MAX];
    gpn_name answer; /* addrs and n_addrs in the order of trying, why */
} gpn_race;

typedef struct gpn_tls gpn_tls;
typedef struct gpn_tls_conn gpn_tls_conn;

typedef enum gpn_stream_state {
    GPN_STREAM_CLOSED,
    GPN_STREAM_RESOLVING,
    GPN_STREAM_RACING,
    GPN_STREAM_OPEN
} gpn_stream_state;

typedef struct gpn_stream {
    bool lost_by_fin;   /* FAILED: the peer ended without close_notify */
    bool retry_connect; /* FAILED: open again at once, it may well work */
    bool retried;       /* that was asked for already */
    bool resumed;
    bool broken; /* an error was seen: no close_notify, no reuse */
    const gpn_env *env;
    gpn_poller *poller; /* may be NULL while nothing is waited for */
    void *tag;
    const gpn_peer *peer;
    const char *hop_host; /* the proxy's, or else the peer's */
    int hop_port;
    gpn_resolver *resolver;
    gpn_tls *tls;
    const gptner_transport *transport; /* NULL: TCP */
    void *transport_conn;
    gpn_race *race;       /* RESOLVING and RACING only */
    gpn_tls_conn *secure; /* NULL: no TLS of ours */
    int64_t wake_at;  /* to be stepped then at the latest; INT64_MAX: none */
    int64_t limit_at; /* a blocking connect must end by then; the owner's */
    gpn_fd fd;
    unsigned interest; /* what the poller watches fd for */
    gpn_stream_state state;
    int oserr;
} gpn_stream;

static void gpn_stream_init(gpn_stream *s, const gpn_env *env,
                            gpn_poller *poller, void *tag)
{
    memset(s, 0, sizeof *s);
    s->env = env;
    s->poller = poller;
    s->tag = tag;
    s->fd = GPN_FD_NONE;
    s->wake_at = INT64_MAX;
    s->limit_at = INT64_MAX;
}

/* Ends a step in failure: "what host:port: why". */
static gpn_io gpn_stream_fail(gpn_stream *s, gptner_status status,
                              const char *what, const char *why,
                              gptner_error *err)
{
    s->broken = true;
    gpn_fail(err, status, "%s %s:%d: %s", what, s->peer->host, s->peer->port,
             why);
    return GPN_IO_FAILED;
}

/* Ends a step with io: the poller watches for room only while it is waited
 * for. Free when nothing changes. */
static gpn_io gpn_stream_settle(gpn_stream *s, gpn_io io, gptner_error *err)
{
    unsigned want = GPN_POLL_IN;
    if (io == GPN_IO_WANT_WRITE) {
        want |= GPN_POLL_OUT;
    }
    if (want == s->interest || s->broken || s->fd == GPN_FD_NONE) {
        return io;
    }
    if (s->poller != NULL && !gpn_poller_set(s->poller, s->fd, want, s->tag)) {
        return gpn_stream_fail(s, GPTNER_ERR_CONNECT, "connection to",
                               "the system cannot watch another socket", err);
    }
    s->interest = want;
    return io;
}

/* What a call of the user's transport means. */
static gpn_io gpn_transport_io(gpn_stream *s, int moved, size_t *count,
                               gpn_io want)
{
    if (moved > 0) {
        *count = (size_t)moved;
        return GPN_IO_DONE;
    }
    if (moved == -2) { /* it has waited a slice: again, when it is our turn */
        s->wake_at = 0;
        return want;
    }
    s->oserr = 0;
    return moved == 0 && want == GPN_IO_WANT_READ ? GPN_IO_EOF : GPN_IO_FAILED;
}

static gpn_io gpn_raw_send(gpn_stream *s, const char *data, size_t len,
                           size_t *sent)
{
    if (s->transport == NULL) {
        return gpn_sock_send(s->fd, data, len, sent, &s->oserr);
    }
    return gpn_transport_io(
        s, s->transport->send_fn(s->transport_conn, data, len, GPN_SLICE_MS),
        sent, GPN_IO_WANT_WRITE);
}

static gpn_io gpn_raw_recv(gpn_stream *s, char *data, size_t cap, size_t *got)
{
    if (s->transport == NULL) {
        return gpn_sock_recv(s->fd, data, cap, got, &s->oserr);
    }
    return gpn_transport_io(
        s, s->transport->recv_fn(s->transport_conn, data, cap, GPN_SLICE_MS),
        got, GPN_IO_WANT_READ);
}

static gpn_io gpn_stream_lost(gpn_stream *s, const char *what,
                              gptner_error *err)
{
    char buf[96];
    return gpn_stream_fail(s, GPTNER_ERR_CONNECTION_LOST, what,
                           s->oserr == 0
                               ? "transport failed"
                               : gpn_os_text(s->oserr, buf, sizeof buf),
                           err);
}

/* --- connecting: RFC 8305 --- */

/* Let families take turns, beginning with the system's first choice. */
static void gpn_race_order(gpn_race *race)
{
    gpn_addr *a = race->answer.addrs;
    size_t n = race->answer.n_addrs;
    size_t at, i;
    for (at = 1; at < n; at++) {
        bool want = !gpn_addr_is_v6(&a[at - 1]);
        for (i = at; i < n && gpn_addr_is_v6(&a[i]) != want; i++) {
        }
        if (i < n) {
            gpn_addr found = a[i];
            memmove(&a[at + 1], &a[at], (i - at) * sizeof *a);
            a[at] = found;
        }
    }
}

/* Close a socket of the stream, which the poller may watch. */
static bool gpn_stream_drop(gpn_stream *s, gpn_fd *fd)
{
    if (*fd == GPN_FD_NONE) {
        return false;
    }
    if (s->poller != NULL) {
        gpn_poller_set(s->poller, *fd, 0, s->tag);
    }
    gpn_sock_close(fd);
    return true;
}

static void gpn_race_drop(gpn_stream *s, size_t i)
{
    if (gpn_stream_drop(s, &s->race->fds[i])) {
        s->race->live--;
    }
}

static void gpn_race_end(gpn_stream *s)
{
    size_t i;
    if (s->race != NULL) {
        for (i = 0; i < s->race->started; i++) {
            gpn_race_drop(s, i);
        }
        gpn_mem_free(s->env, s->race);
        s->race = NULL;
    }
}

static gpn_io gpn_race_won(gpn_stream *s, size_t i, gptner_error *err)
{
    s->fd = s->race->fds[i];
    s->race->fds[i] = GPN_FD_NONE;
    gpn_race_end(s);
    s->state = GPN_STREAM_OPEN;
    s->wake_at = INT64_MAX;
    s->interest = 0;
    return gpn_stream_settle(s, GPN_IO_DONE, err);
}

/* The way to the first hop is barred; where says at which address. */
static gpn_io gpn_hop_fail(gpn_stream *s, gptner_status status,
                           const char *what, const char *where, const char *why,
                           gptner_error *err)
{
    bool direct = s->peer->proxy_host == NULL;
    s->broken = true;
    gpn_fail(err, status, "%s %s%s%s: %s; check %s and the network", what,
             direct ? "" : "proxy ", s->hop_host, where, why,
             direct ? "base_url" : "the proxy settings");
    return GPN_IO_FAILED;
}

static gpn_io gpn_race_lost(gpn_stream *s, gptner_error *err)
{
    gpn_race *race = s->race;
    char addr[64];
    char where[112];
    char why[96];
    gpn_addr_text(&race->answer.addrs[race->failed], addr, sizeof addr);
    gpn_format(where, sizeof where, ":%d (%s%s)", s->hop_port, addr,
               race->answer.n_addrs > 1 ? " was the last tried" : "");
    return gpn_hop_fail(s, GPTNER_ERR_CONNECT, "connect to", where,
                        gpn_os_text(race->oserr, why, sizeof why), err);
}

/* Look after the attempts under way. DONE: *won is the one. */
static gpn_io gpn_race_check(gpn_stream *s, int64_t now, size_t *won)
{
    gpn_race *race = s->race;
    size_t i;
    for (i = 0; i < race->started; i++) {
        gpn_io io;
        if (race->fds[i] == GPN_FD_NONE) {
            continue;
        }
        io = gpn_sock_connected(race->fds[i], &race->oserr);
        if (io == GPN_IO_DONE) {
            *won = i;
            return io;
        }
        if (io == GPN_IO_FAILED) {
            race->failed = i;
            race->next_at = now; /* no need to wait for the next one */
            gpn_race_drop(s, i);
        }
    }
    return GPN_IO_WANT_WRITE;
}

/* Begin with the next address. */
static gpn_io gpn_race_start(gpn_stream *s, int64_t now)
{
    gpn_race *race = s->race;
    size_t i = race->started++;
    gpn_io io =
        gpn_sock_connect(&race->answer.addrs[i], &race->fds[i], &race->oserr);
    if (io == GPN_IO_FAILED) {
        race->failed = i;
        return io;
    }
    race->live++;
    race->next_at = now + GPN_RACE_STEP_MS;
    if (io == GPN_IO_WANT_WRITE && s->poller != NULL &&
        !gpn_poller_set(s->poller, race->fds[i], GPN_POLL_OUT, s->tag)) {
        race->failed = i;
        gpn_race_drop(s, i);
        return GPN_IO_FAILED;
    }
    return io;
}

static gpn_io gpn_race_step(gpn_stream *s, int64_t now, gptner_error *err)
{
    gpn_race *race = s->race;
    size_t won = 0;
    if (gpn_race_check(s, now, &won) == GPN_IO_DONE) {
        return gpn_race_won(s, won, err);
    }
    while (race->started < race->answer.n_addrs &&
           (race->live == 0 || now >= race->next_at)) {
        if (gpn_race_start(s, now) == GPN_IO_DONE) {
            return gpn_race_won(s, race->started - 1, err);
        }
    }
    if (race->live == 0) {
        return gpn_race_lost(s, err);
    }
    s->wake_at =
        race->started < race->answer.n_addrs ? race->next_at : INT64_MAX;
    return GPN_IO_WANT_WRITE;
}

/* Begin to connect; gpn_stream_connect() goes on. The stream is closed. */
static gptner_status gpn_stream_open(gpn_stream *s, const gpn_peer *peer,
                                     gpn_resolver *resolver, gpn_tls *tls,
                                     const gptner_transport *transport,
                                     gptner_error *err)
{
    bool direct = peer->proxy_host == NULL;
    s->peer = peer;
    s->hop_host = direct ? peer->host : peer->proxy_host;
    s->hop_port = direct ? peer->port : peer->proxy_port;
    s->resolver = resolver;
    s->tls = tls;
    s->transport = transport;
    s->oserr = 0;
    s->wake_at = INT64_MAX;
    s->lost_by_fin = s->retry_connect = s->resumed = s->broken = false;
#ifdef GPTNER_NO_TLS
    if (peer->tls && (transport == NULL || !transport->is_secure)) {
        return gpn_fail(err, GPTNER_ERR_UNSUPPORTED,
                        "https to %s: this build has no TLS (GPTNER_NO_TLS)",
                        peer->host);
    }
#endif
    s->state = GPN_STREAM_RESOLVING;
    if (transport != NULL) {
        return GPTNER_OK;
    }
    s->race = (gpn_race *)gpn_mem_zalloc(s->env, sizeof *s->race);
    if (s->race == NULL) {
        s->state = GPN_STREAM_CLOSED;
        return gpn_fail(err, GPTNER_ERR_NO_MEMORY,
                        "connect to %s: out of memory", s->hop_host);
    }
    if (gpn_addr_parse(s->hop_host, s->hop_port, &s->race->answer.addrs[0])) {
        s->race->answer.n_addrs = 1;
        s->state = GPN_STREAM_RACING;
    }
    return GPTNER_OK;
}

static int64_t gpn_clamp_ms(int64_t ms, int64_t low, int64_t high)
{
    return ms < low ? low : ms > high ? high : ms;
}

/* The user's transport connects, and may block for as long as limit_at lets
 * it. */
static gpn_io gpn_transport_connect(gpn_stream *s, int64_t now,
                                    gptner_error *err)
{
    int64_t ms = GPN_CONNECT_MS;
    char where[16];
    if (s->limit_at != INT64_MAX) {
        ms = gpn_clamp_ms(s->limit_at - now, 1, INT_MAX);
    }
    s->transport_conn = NULL;
    if (s->transport->connect_fn(s->hop_host, s->hop_port, (int)ms,
                                 &s->transport_conn, s->transport->user) != 0) {
        s->transport_conn = NULL;
        gpn_format(where, sizeof where, ":%d", s->hop_port);
        return gpn_hop_fail(s, GPTNER_ERR_CONNECT, "connect to", where,
                            "transport failed", err);
    }
    s->state = GPN_STREAM_OPEN;
    return GPN_IO_DONE;
}

/* Step until DONE. WAIT: for the resolver's bell; WANT_WRITE: for a socket or
 * wake_at. */
static gpn_io gpn_stream_connect(gpn_stream *s, int64_t now, gptner_error *err)
{
    gpn_io io;
    if (s->state == GPN_STREAM_OPEN) {
        return GPN_IO_DONE;
    }
    if (s->transport != NULL) {
        return gpn_transport_connect(s, now, err);
    }
    if (s->state == GPN_STREAM_RESOLVING) {
        io = gpn_resolver_find(s->resolver, s->hop_host, s->hop_port, now,
                               &s->race->answer);
        if (io == GPN_IO_FAILED) {
            return gpn_hop_fail(s, GPTNER_ERR_RESOLVE, "resolve", "",
                                s->race->answer.why, err);
        }
        if (io != GPN_IO_DONE) {
            return io;
        }
        gpn_race_order(s->race);
        s->state = GPN_STREAM_RACING;
    }
    return gpn_race_step(s, now, err);
}

/* --- TLS: set-up, one a client --- */

/* Strings are borrowed for the client's life. */
typedef struct gpn_tls_config {
    const char *ca_file;
    const char *ca_dir;
    gptner_str ca_pem;
    const char *client_cert_file;
    const char *client_key_file;
    const char *client_key_password;
    bool insecure_skip_verify;
    bool no_session_reuse;
} gpn_tls_config;

#ifdef GPTNER_NO_TLS
struct gpn_tls {
    const gpn_env *env;
};

static gptner_status gpn_tls_new(const gpn_env *env, const gpn_tls_config *cfg,
                                 gpn_tls **out, gptner_error *err)
{
    GPN_UNUSED(cfg);
    *out = (gpn_tls *)gpn_mem_zalloc(env, sizeof **out);
    if (*out == NULL) {
        return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "TLS: out of memory");
    }
    (*out)->env = env;
    return GPTNER_OK;
}

static void gpn_tls_free(gpn_tls *tls)
{
    if (tls != NULL) {
        gpn_mem_free(tls->env, tls);
    }
}

#else /* GPTNER_NO_TLS */
#include <mbedtls/version.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>
#include <mbedtls/pk.h>
#if MBEDTLS_VERSION_NUMBER < 0x04000000
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#endif
#if MBEDTLS_VERSION_NUMBER >= 0x04000000 || defined(MBEDTLS_USE_PSA_CRYPTO) || \
    (MBEDTLS_VERSION_NUMBER >= 0x03000000 &&                                   \
     defined(MBEDTLS_SSL_PROTO_TLS1_3))
#define GPN_TLS_PSA
#include <psa/crypto.h>
#endif
/* 3.6.0 does not call the verify callback under TLS 1.3: it stays at 1.2. */
#if MBEDTLS_VERSION_NUMBER >= 0x03020000 && \
    MBEDTLS_VERSION_NUMBER != 0x03060000 && defined(MBEDTLS_SSL_PROTO_TLS1_3)
#define GPN_TLS_13
#endif
/* Without threading in mbedTLS all calls into it take turns. (FORCE: tests) */
#if !defined(MBEDTLS_THREADING_C) || defined(GPN_TLS_FORCE_LOCK)
#define GPN_TLS_SERIAL
#endif

enum {
    GPN_READ_AHEAD = 4096,   /* bytes; one recv() takes a whole small reply */
    GPN_SESSION_MAX = 4,     /* tickets kept of one server */
    GPN_TLS_HOST_MAX = 32,   /* servers remembered */
    GPN_SCOUT_MS = 3000,     /* the others wait so long for its handshake */
    GPN_TICKET_MIN_MS = 100, /* and so long for its tickets (TLS 1.3) */
    GPN_TICKET_MAX_MS = 1000,
    GPN_CA_MAX = 64 << 20,     /* bytes; the largest file of certificates */
    GPN_TLS_RECORD = 16384,    /* bytes; RFC 8446 5.1 */
    GPN_TLS_IO_ERROR = -0x004E /* what our BIO functions fail with */
};

typedef struct gpn_session {
    mbedtls_ssl_session data;
    bool once; /* TLS 1.3: a ticket is best used once, RFC 8446 C.4 */
} gpn_session;

/* What is known of a server, by way of a proxy or not. */
typedef struct gpn_tls_host {
    struct gpn_tls_host *next;
    int64_t scout_until; /* others wait no longer than that */
    size_t count;
    int users;        /* connections that point here */
    bool scouted;     /* one is on its way to the first session */
    bool no_sessions; /* it gave none */
    bool max_tls12;   /* see gpn_tls_second_chance() */
    int port;
    int proxy_port;
    const char *proxy;                     /* into name[], or NULL */
    gpn_session sessions[GPN_SESSION_MAX]; /* the newest is the last */
    char name[1]; /* longer; allocated with the struct */
} gpn_tls_host;

struct gpn_tls {
    const gpn_env *env;
    gpn_mutex mutex; /* guards up to resumed, and drbg when it is reseeded */
    gpn_tls_host *hosts;
    size_t n_hosts;
    uint64_t full; /* handshakes so far */
    uint64_t resumed;
    gpn_tls_config cfg;
    gpn_mutex load_mutex; /* guards loaded, and the files read meanwhile */
    bool loaded;
    /* Set up before the first connection, then read only. */
    mbedtls_ssl_config conf;
#ifdef GPN_TLS_13
    mbedtls_ssl_config conf12; /* at most TLS 1.2 */
#endif
    mbedtls_x509_crt ca;
    mbedtls_x509_crt own;
    mbedtls_pk_context key;
    const char *alpn[2];
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context drbg;
    gpn_atomic pid; /* of the process that seeded drbg */
#endif
};

/* TLS of one connection. */
struct gpn_tls_conn {
    gpn_tls_host *host; /* NULL: nothing is kept of this server */
    int64_t began_ms;
    size_t resend;  /* length of the record that waits for room; 0: none */
    uint32_t flags; /* of the verification, as far as it came */
    int ip_len;     /* the name is an IP address; 0: it is not */
    unsigned char ip[16];
    bool scouting;    /* the host's scout is this one */
    bool started;     /* the handshake; the context exists */
    bool established; /* it is over */
    bool offered;     /* with a session */
    bool tls12;       /* with conf12 */
    bool asked;       /* the verify callback was called */
    bool matched;     /* and it liked the name */
    bool blocked;     /* the last call found the socket not ready */
    bool has_early;
    unsigned char early; /* a byte that came before it was asked for */
    size_t in_at;
    size_t in_len;
    mbedtls_ssl_context ssl;
    unsigned char in[GPN_READ_AHEAD];
};

/* mbedTLS keeps state of the whole process (PSA, what the processor can do):
 * this is the one writable static of the library. */
static gpn_mutex gpn_tls_process_lock = GPN_MUTEX_INIT;

/* Around every call into mbedTLS after the set-up. */
static void gpn_tls_enter(void)
{
#ifdef GPN_TLS_SERIAL
    gpn_mutex_lock(&gpn_tls_process_lock);
#endif
}

static void gpn_tls_leave(void)
{
#ifdef GPN_TLS_SERIAL
    gpn_mutex_unlock(&gpn_tls_process_lock);
#endif
}

#if MBEDTLS_VERSION_NUMBER < 0x04000000
/* A generator that a fork has doubled must not repeat itself. */
static int gpn_tls_random(void *ctx, unsigned char *out, size_t len)
{
    gpn_tls *tls = (gpn_tls *)ctx;
    int pid = gpn_pid();
    int r = 0;
    if (gpn_atomic_get(&tls->pid) != pid) {
        gpn_mutex_lock(&tls->mutex);
        if (gpn_atomic_get(&tls->pid) != pid) {
            r = mbedtls_ctr_drbg_reseed(&tls->drbg, (unsigned char *)&pid,
                                        sizeof pid);
            if (r == 0) {
                gpn_atomic_set(&tls->pid, pid);
            }
        }
        gpn_mutex_unlock(&tls->mutex);
    }
    return r != 0 ? r : mbedtls_ctr_drbg_random(&tls->drbg, out, len);
}
#endif

static GPN_NOINLINE void gpn_tls_init_contexts(gpn_tls *tls)
{
    mbedtls_ssl_config_init(&tls->conf);
#ifdef GPN_TLS_13
    mbedtls_ssl_config_init(&tls->conf12);
#endif
    mbedtls_x509_crt_init(&tls->ca);
    mbedtls_x509_crt_init(&tls->own);
    mbedtls_pk_init(&tls->key);
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_entropy_init(&tls->entropy);
    mbedtls_ctr_drbg_init(&tls->drbg);
#endif
}

static void gpn_tls_free_contexts(gpn_tls *tls)
{
    mbedtls_ssl_config_free(&tls->conf);
#ifdef GPN_TLS_13
    mbedtls_ssl_config_free(&tls->conf12);
#endif
    mbedtls_x509_crt_free(&tls->ca);
    mbedtls_x509_crt_free(&tls->own);
    mbedtls_pk_free(&tls->key);
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_ctr_drbg_free(&tls->drbg);
    mbedtls_entropy_free(&tls->entropy);
#endif
}

/* Cheap: certificates are read when the first connection wants them. */
static gptner_status gpn_tls_new(const gpn_env *env, const gpn_tls_config *cfg,
                                 gpn_tls **out, gptner_error *err)
{
    gpn_tls *tls = (gpn_tls *)gpn_mem_zalloc(env, sizeof *tls);
    *out = NULL;
    if (tls == NULL) {
        return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "TLS: out of memory");
    }
    tls->env = env;
    tls->cfg = *cfg;
    tls->alpn[0] = "http/1.1";
    if (gpn_mutex_init(&tls->load_mutex)) {
        if (gpn_mutex_init(&tls->mutex)) {
            *out = tls;
            return GPTNER_OK;
        }
        gpn_mutex_deinit(&tls->load_mutex);
    }
    gpn_mem_free(env, tls);
    return gpn_fail(err, GPTNER_ERR_THREAD, "TLS: no mutex");
}

static void gpn_tls_host_clear(gpn_tls_host *host)
{
    while (host->count > 0) {
        mbedtls_ssl_session_free(&host->sessions[--host->count].data);
    }
}

/* No connection is left that uses it. */
static void gpn_tls_free(gpn_tls *tls)
{
    if (tls == NULL) {
        return;
    }
    gpn_tls_enter();
    while (tls->hosts != NULL) {
        gpn_tls_host *host = tls->hosts;
        tls->hosts = host->next;
        gpn_tls_host_clear(host);
        gpn_mem_free(tls->env, host);
    }
    if (tls->loaded) {
        gpn_tls_free_contexts(tls);
    }
    gpn_tls_leave();
    gpn_mutex_deinit(&tls->mutex);
    gpn_mutex_deinit(&tls->load_mutex);
    gpn_mem_free(tls->env, tls);
}

/* --- certificates of authorities and the client's own --- */

static size_t gpn_crt_count(const mbedtls_x509_crt *crt)
{
    size_t n = 0;
    for (; crt != NULL; crt = crt->next) {
        n += crt->raw.len > 0 ? 1 : 0;
    }
    return n;
}

/* The whole file with a NUL behind it. NULL: failed, and *oserr may say why. */
static char *gpn_tls_read_file(gpn_tls *tls, const char *path, size_t *len,
                               int *oserr)
{
    gpn_file file = GPN_ZERO;
    char *data = NULL;
    int ignored;
    int64_t size;
    int64_t n = 1;
    if (!gpn_file_open_read(&file, tls->env, path, oserr)) {
        return NULL;
    }
    size = gpn_file_size(&file);
    if (size >= 0 && size <= GPN_CA_MAX) {
        data = (char *)gpn_mem_alloc(tls->env, (size_t)size + 1);
    }
    while (data != NULL && n > 0 && *len < (size_t)size) {
        n = gpn_file_read(&file, data + *len, (size_t)size - *len, oserr);
        *len += n > 0 ? (size_t)n : 0;
    }
    gpn_file_close(&file, &ignored);
    if (n < 0) { /* it may be a key */
        gpn_mem_wipe(data, *len);
        gpn_mem_free(tls->env, data);
        return NULL;
    }
    if (data != NULL) {
        data[*len] = '\0';
    }
    return data;
}

/* mbedTLS wants the NUL counted in with PEM, and not with DER. */
static size_t gpn_pem_len(const char *data, size_t len)
{
    return strstr(data, "-----BEGIN ") != NULL ? len + 1 : len;
}

/* A kind of file, and what is said of one that is no good. */
typedef struct gpn_tls_file {
    const char *what;
    gptner_status unread;
    gptner_status unusable;
    const char *problem; /* of one that can be read */
    int (*parse_fn)(gpn_tls *tls, const char *data, size_t len,
                    const char *path); /* 0: good; or an error of mbedTLS */
} gpn_tls_file;

/* Reads and parses a file; from is the setting that names it. */
static gptner_status gpn_tls_load_file(gpn_tls *tls, const gpn_tls_file *kind,
                                       const char *path, const char *from,
                                       gptner_error *err)
{
    gptner_status status = kind->unread;
    const char *text = "cannot be read";
    char why[128];
    size_t len = 0;
    int oserr = 0;
    char *data = gpn_tls_read_file(tls, path, &len, &oserr);
    if (data != NULL) {
        int r = kind->parse_fn(tls, data, gpn_pem_len(data, len), path);
        gpn_mem_wipe(data, len);
        gpn_mem_free(tls->env, data);
        if (r == 0) {
            return GPTNER_OK;
        }
        status = kind->unusable;
        text = why;
        gpn_format(why, sizeof why, "%s (-0x%04x)", kind->problem,
                   (unsigned)(r < 0 ? -r : r));
    } else if (oserr != 0) {
        text = gpn_os_text(oserr, why, sizeof why);
    }
    return gpn_fail(err, status, "%s %s (from %s): %s", kind->what, path, from,
                    text);
}

/* A parse function's result: negative is a failure, and so is a success that
 * brought nothing; positive counts entries that were skipped. */
static int gpn_ca_added(gpn_tls *tls, int r, size_t before, const char *from)
{
    size_t now = gpn_crt_count(&tls->ca);
    if (now == before) {
        return r < 0 ? r : MBEDTLS_ERR_X509_INVALID_FORMAT;
    }
    if (r > 0) {
        gpn_log(tls->env, GPTNER_LOG_WARN,
                "%s: %d entries are no usable certificates", from, r);
    }
    return 0;
}

static int gpn_ca_add(gpn_tls *tls, const char *data, size_t len,
                      const char *from)
{
    size_t before = gpn_crt_count(&tls->ca);
    int r = GPN_FAULT(GPN_FAULT_TLS)
                ? -1
                : mbedtls_x509_crt_parse(&tls->ca, (const unsigned char *)data,
                                         len);
    return gpn_ca_added(tls, r, before, from);
}

static const gpn_tls_file gpn_ca_file = {
    "CA file", GPTNER_ERR_CA, GPTNER_ERR_CA, "holds no usable certificate",
    gpn_ca_add};

/* PEM in memory need not end with a NUL, which the parser wants. */
static bool gpn_ca_add_text(gpn_tls *tls, gptner_str text)
{
    char *copy = gpn_str_dup(tls->env, text);
    bool ok = copy != NULL &&
              gpn_ca_add(tls, copy, gpn_pem_len(copy, text.len), "ca_pem") == 0;
    gpn_mem_free(tls->env, copy);
    return ok;
}

static bool gpn_ca_add_dir(gpn_tls *tls, const char *path)
{
#ifdef MBEDTLS_FS_IO
    size_t before = gpn_crt_count(&tls->ca);
    int r = GPN_FAULT(GPN_FAULT_FILE)
                ? -1
                : mbedtls_x509_crt_parse_path(&tls->ca, path);
    return gpn_ca_added(tls, r, before, path) == 0;
#else
    GPN_UNUSED(tls);
    GPN_UNUSED(path);
    return false;
#endif
}

/* A list of folders, separated by ':' or, as on Windows, by ';'. There a ':'
 * belongs to the drive letter before it. */
static bool gpn_ca_add_dirs(gpn_tls *tls, const char *list)
{
    bool any = false;
    while (*list != '\0') {
        char path[512];
        size_t n = strcspn(list, ";:");
        if (n == 1 && list[1] == ':' && (list[2] == '\\' || list[2] == '/')) {
            n += 1 + strcspn(list + 2, ";:");
        }
        if (n > 0 && n < sizeof path) {
            gpn_format(path, sizeof path, "%.*s", (int)n, list);
            any = gpn_ca_add_dir(tls, path) || any;
        }
        list += n + (list[n] != '\0' ? 1 : 0);
    }
    return any;
}

static bool gpn_ca_add_der(const unsigned char *der, size_t len, void *ctx)
{
    mbedtls_x509_crt_parse_der(&((gpn_tls *)ctx)->ca, der, len);
    return true; /* one that cannot be read does not spoil the others */
}

/* The system's own store, file or folder: the first that there is. */
static gptner_status gpn_ca_load_system(gpn_tls *tls, gptner_error *err)
{
    const char *const *path;
    char tried[320];
    size_t n = 0;
    int folders;
    if (gpn_system_roots(gpn_ca_add_der, tls) && gpn_crt_count(&tls->ca) > 0) {
        return GPTNER_OK;
    }
    tried[0] = '\0';
    for (folders = 0; folders < 2; folders++) {
        path = folders > 0 ? gpn_ca_dirs() : gpn_ca_paths();
        for (; *path != NULL; path++) {
            if (folders > 0 ? gpn_ca_add_dir(tls, *path)
                            : gpn_tls_load_file(tls, &gpn_ca_file, *path, "",
                                                NULL) == GPTNER_OK) {
                return GPTNER_OK;
            }
            n += gpn_format(tried + n, sizeof tried - n, " %s", *path);
        }
    }
    return gpn_fail(err, GPTNER_ERR_CA,
                    "no CA certificates: install ca-certificates, or set "
                    "ca_file or SSL_CERT_FILE; tried%s",
                    tried);
}

/* What the configuration names, or else the environment, or else the system.
 * What is named must be good: nothing else is tried in its place. */
static gptner_status gpn_ca_load(gpn_tls *tls, gptner_error *err)
{
    const gpn_tls_config *cfg = &tls->cfg;
    const char *file = cfg->ca_file;
    const char *dir = cfg->ca_dir;
    const char *file_from = "ca_file";
    const char *dir_from = "ca_dir";
    gptner_status status = GPTNER_OK;
    if (file == NULL && dir == NULL && cfg->ca_pem.len == 0) {
        file_from = "SSL_CERT_FILE";
        dir_from = "SSL_CERT_DIR";
        file = gpn_env_get(file_from);
        dir = file == NULL ? gpn_env_get(dir_from) : NULL;
        if (file == NULL && dir == NULL) {
            return gpn_ca_load_system(tls, err);
        }
    }
    if (cfg->ca_pem.len > 0 && !gpn_ca_add_text(tls, cfg->ca_pem)) {
        return gpn_fail(err, GPTNER_ERR_CA,
                        "ca_pem: holds no usable certificate");
    }
    if (file != NULL) {
        status = gpn_tls_load_file(tls, &gpn_ca_file, file, file_from, err);
    }
    if (status == GPTNER_OK && dir != NULL && !gpn_ca_add_dirs(tls, dir)) {
        status = gpn_fail(err, GPTNER_ERR_CA,
                          "CA folder %s (from %s): holds no usable certificate",
                          dir, dir_from);
    }
    return status;
}

static int gpn_tls_parse_own(gpn_tls *tls, const char *data, size_t len,
                             const char *path)
{
    GPN_UNUSED(path);
    return GPN_FAULT(GPN_FAULT_TLS)
               ? -1
               : mbedtls_x509_crt_parse(&tls->own, (const unsigned char *)data,
                                        len);
}

static int gpn_tls_parse_key(gpn_tls *tls, const char *data, size_t len,
                             const char *path)
{
    const unsigned char *pw =
        (const unsigned char *)tls->cfg.client_key_password;
    size_t pw_len = pw != NULL ? strlen(tls->cfg.client_key_password) : 0;
    const unsigned char *key = (const unsigned char *)data;
    GPN_UNUSED(path);
    if (GPN_FAULT(GPN_FAULT_TLS)) {
        return -1;
    }
#if MBEDTLS_VERSION_NUMBER >= 0x03000000 && MBEDTLS_VERSION_NUMBER < 0x04000000
    return mbedtls_pk_parse_key(&tls->key, key, len, pw, pw_len, gpn_tls_random,
                                tls);
#else
    return mbedtls_pk_parse_key(&tls->key, key, len, pw, pw_len);
#endif
}

static bool gpn_tls_key_fits(gpn_tls *tls)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03000000 && MBEDTLS_VERSION_NUMBER < 0x04000000
    return mbedtls_pk_check_pair(&tls->own.pk, &tls->key, gpn_tls_random,
                                 tls) == 0;
#else
    return mbedtls_pk_check_pair(&tls->own.pk, &tls->key) == 0;
#endif
}

static gptner_status gpn_tls_load_own(gpn_tls *tls, gptner_error *err)
{
    static const gpn_tls_file own = {"client certificate", GPTNER_ERR_FILE,
                                     GPTNER_ERR_CONFIG, "cannot be parsed",
                                     gpn_tls_parse_own};
    static const gpn_tls_file key = {
        "client key", GPTNER_ERR_FILE, GPTNER_ERR_CONFIG,
        "cannot be parsed; check the file and client_key_password",
        gpn_tls_parse_key};
    const char *path = tls->cfg.client_cert_file;
    const char *key_path = tls->cfg.client_key_file;
    gptner_status status;
    if (path == NULL && key_path == NULL) {
        return GPTNER_OK;
    }
    if (path == NULL || key_path == NULL) {
        return gpn_fail(err, GPTNER_ERR_CONFIG,
                        "client_cert_file and client_key_file go together");
    }
    status = gpn_tls_load_file(tls, &own, path, "client_cert_file", err);
    if (status == GPTNER_OK) {
        status = gpn_tls_load_file(tls, &key, key_path, "client_key_file", err);
    }
    if (status == GPTNER_OK && !gpn_tls_key_fits(tls)) {
        status = gpn_fail(err, GPTNER_ERR_CONFIG,
                          "client key %s: does not belong to certificate %s",
                          key_path, path);
    }
    return status;
}

/* --- settings --- */

static void gpn_tls_set_groups(mbedtls_ssl_config *conf)
{
    /* x25519 is the fastest; the others also for certificates */
#if MBEDTLS_VERSION_NUMBER >= 0x03010000
    static const uint16_t groups[] = {0x001D, 0x0017, 0x0018, 0x0019, 0};
    mbedtls_ssl_conf_groups(conf, groups);
#elif defined(MBEDTLS_ECP_C)
    static const mbedtls_ecp_group_id curves[] = {
#ifdef MBEDTLS_ECP_DP_CURVE25519_ENABLED
        MBEDTLS_ECP_DP_CURVE25519,
#endif
#ifdef MBEDTLS_ECP_DP_SECP256R1_ENABLED
        MBEDTLS_ECP_DP_SECP256R1,
#endif
#ifdef MBEDTLS_ECP_DP_SECP384R1_ENABLED
        MBEDTLS_ECP_DP_SECP384R1,
#endif
#ifdef MBEDTLS_ECP_DP_SECP521R1_ENABLED
        MBEDTLS_ECP_DP_SECP521R1,
#endif
        MBEDTLS_ECP_DP_NONE};
    mbedtls_ssl_conf_curves(conf, curves);
#endif
}

static void gpn_tls_set_versions(mbedtls_ssl_config *conf, bool max_tls12)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03020000
    mbedtls_ssl_conf_min_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
    if (max_tls12) {
        mbedtls_ssl_conf_max_tls_version(conf, MBEDTLS_SSL_VERSION_TLS1_2);
    }
#else
    mbedtls_ssl_conf_min_version(conf, 3, 3); /* TLS 1.2 on the wire */
    if (max_tls12) {
        mbedtls_ssl_conf_max_version(conf, 3, 3);
    }
#endif
}

static int gpn_tls_configure(gpn_tls *tls, mbedtls_ssl_config *conf,
                             bool max_tls12)
{
    /* TLS 1.3, then forward secrecy with AEAD; unknown ones are skipped */
    static const int suites[] = {0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F,
                                 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0};
    int r = GPN_FAULT(GPN_FAULT_TLS)
                ? -1
                : mbedtls_ssl_config_defaults(conf, MBEDTLS_SSL_IS_CLIENT,
                                              MBEDTLS_SSL_TRANSPORT_STREAM,
                                              MBEDTLS_SSL_PRESET_DEFAULT);
    if (r != 0) {
        return r;
    }
    mbedtls_ssl_conf_authmode(conf, tls->cfg.insecure_skip_verify
                                        ? MBEDTLS_SSL_VERIFY_NONE
                                        : MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(conf, &tls->ca, NULL);
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    mbedtls_ssl_conf_rng(conf, gpn_tls_random, tls);
#endif
    gpn_tls_set_versions(conf, max_tls12);
    gpn_tls_set_groups(conf);
    mbedtls_ssl_conf_ciphersuites(conf, suites);
#ifdef MBEDTLS_SSL_SESSION_TICKETS
    mbedtls_ssl_conf_session_tickets(
        conf, tls->cfg.no_session_reuse ? MBEDTLS_SSL_SESSION_TICKETS_DISABLED
                                        : MBEDTLS_SSL_SESSION_TICKETS_ENABLED);
#endif
#ifdef MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED
    mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(
        conf, tls->cfg.no_session_reuse
                  ? MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_DISABLED
                  : MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
#endif
#ifdef MBEDTLS_SSL_ALPN
    r = mbedtls_ssl_conf_alpn_protocols(conf, tls->alpn);
#endif
    if (r == 0 && tls->cfg.client_cert_file != NULL) {
        r = mbedtls_ssl_conf_own_cert(conf, &tls->own, &tls->key);
    }
    return r;
}

/* The random generator and what mbedTLS keeps for the process. */
static int gpn_tls_seed(gpn_tls *tls)
{
    if (GPN_FAULT(GPN_FAULT_TLS)) {
        return -1;
    }
#ifdef GPN_TLS_PSA
    if (psa_crypto_init() != PSA_SUCCESS) { /* never freed: others may use it */
        return -1;
    }
#endif
#if MBEDTLS_VERSION_NUMBER < 0x04000000
    gpn_atomic_set(&tls->pid, gpn_pid());
    return mbedtls_ctr_drbg_seed(&tls->drbg, mbedtls_entropy_func,
                                 &tls->entropy, (const unsigned char *)"gptner",
                                 6);
#else
    GPN_UNUSED(tls);
    return 0;
#endif
}

static gptner_status gpn_tls_set_up(gpn_tls *tls, gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    int r;
    gpn_mutex_lock(&gpn_tls_process_lock);
    gpn_tls_init_contexts(tls);
    r = gpn_tls_seed(tls);
    gpn_mutex_unlock(&gpn_tls_process_lock);
    gpn_tls_enter();
    if (r == 0 && !tls->cfg.insecure_skip_verify) {
        status = gpn_ca_load(tls, err);
    }
    if (r == 0 && status == GPTNER_OK) {
        status = gpn_tls_load_own(tls, err);
    }
    if (r == 0 && status == GPTNER_OK) {
        r = gpn_tls_configure(tls, &tls->conf, false);
#ifdef GPN_TLS_13
        if (r == 0) {
            r = gpn_tls_configure(tls, &tls->conf12, true);
        }
#endif
    }
    if (r != 0) {
        status = gpn_fail(err, GPTNER_ERR_TLS,
                          "TLS set-up: mbedTLS failed (-0x%04x)", (unsigned)-r);
    }
    if (status != GPTNER_OK) {
        gpn_tls_free_contexts(tls);
    }
    gpn_tls_leave();
    return status;
}

/* At the first connection; the others wait for it. The reading of a file under
 * the lock is wanted: nobody could go on without it. */
static gptner_status gpn_tls_load(gpn_tls *tls, gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    gpn_mutex_lock(&tls->load_mutex);
    if (!tls->loaded) {
        status = gpn_tls_set_up(tls, err);
        tls->loaded = status == GPTNER_OK;
    }
    gpn_mutex_unlock(&tls->load_mutex);
    return status;
}

/* --- sessions --- */

static bool gpn_tls_host_is(const gpn_tls_host *host, const gpn_peer *p)
{
    if (host->port != p->port || strcmp(host->name, p->name) != 0) {
        return false;
    }
    if (host->proxy == NULL || p->proxy_host == NULL) {
        return host->proxy == p->proxy_host;
    }
    return host->proxy_port == p->proxy_port &&
           strcmp(host->proxy, p->proxy_host) == 0;
}

static gpn_tls_host *gpn_tls_host_new(gpn_tls *tls, const gpn_peer *p)
{
    size_t name = strlen(p->name) + 1;
    size_t proxy = p->proxy_host != NULL ? strlen(p->proxy_host) + 1 : 0;
    gpn_tls_host *host =
        (gpn_tls_host *)gpn_mem_zalloc(tls->env, sizeof *host + name + proxy);
    if (host != NULL) {
        memcpy(host->name, p->name, name);
        host->port = p->port;
        if (proxy > 0) {
            memcpy(host->name + name, p->proxy_host, proxy);
            host->proxy = host->name + name;
            host->proxy_port = p->proxy_port;
        }
    }
    return host;
}

/* The entry of a server, for gpn_tls_host_drop(). NULL when there is no room:
 * then nothing is kept, which harms nobody. */
static gpn_tls_host *gpn_tls_host_take(gpn_tls *tls, const gpn_peer *p)
{
    gpn_tls_host **at = &tls->hosts;
    gpn_tls_host **unused = NULL;
    gpn_tls_host *host;
    gpn_mutex_lock(&tls->mutex);
    while (*at != NULL && !gpn_tls_host_is(*at, p)) {
        if ((*at)->users == 0) {
            unused = at; /* the last is the oldest */
        }
        at = &(*at)->next;
    }
    host = *at;
    if (host == NULL && tls->n_hosts >= GPN_TLS_HOST_MAX && unused != NULL) {
        host = *unused;
        *unused = host->next;
        tls->n_hosts--;
        gpn_tls_host_clear(host);
        gpn_mem_free(tls->env, host);
        host = NULL;
    }
    if (host == NULL && tls->n_hosts < GPN_TLS_HOST_MAX) {
        host = gpn_tls_host_new(tls, p);
        if (host != NULL) {
            host->next = tls->hosts;
            tls->hosts = host;
            tls->n_hosts++;
        }
    }
    if (host != NULL) {
        host->users++;
    }
    gpn_mutex_unlock(&tls->mutex);
    return host;
}

/* The scout comes back, with a session or without: the others may go. */
static void gpn_tls_scout_done(gpn_stream *s, bool no_sessions)
{
    gpn_tls *tls = s->tls;
    gpn_tls_conn *t = s->secure;
    if (!t->scouting) {
        return;
    }
    t->scouting = false;
    gpn_mutex_lock(&tls->mutex);
    t->host->scouted = false;
    t->host->no_sessions = no_sessions;
    gpn_mutex_unlock(&tls->mutex);
    gpn_bell_ring(gpn_resolver_bell(s->resolver));
}

static void gpn_tls_host_drop(gpn_stream *s)
{
    gpn_tls_scout_done(s, false);
    if (s->secure->host != NULL) {
        gpn_mutex_lock(&s->tls->mutex);
        s->secure->host->users--;
        gpn_mutex_unlock(&s->tls->mutex);
        s->secure->host = NULL;
    }
}

/* May this handshake begin now? Otherwise *until says when at the latest. */
static bool gpn_tls_may_start(gpn_stream *s, int64_t now, int64_t *until)
{
    gpn_tls_conn *t = s->secure;
    gpn_tls_host *host = t->host;
    bool go = true;
    if (host == NULL || s->tls->cfg.no_session_reuse) {
        return true;
    }
    gpn_mutex_lock(&s->tls->mutex);
    if (host->count == 0 && !host->no_sessions) {
        if (!host->scouted) {
            host->scouted = t->scouting = true;
            host->scout_until = now + GPN_SCOUT_MS;
        } else if (now < host->scout_until) {
            *until = host->scout_until;
            go = false;
        }
    }
    gpn_mutex_unlock(&s->tls->mutex);
    return go;
}

/* Offer a session, the newest. A ticket of TLS 1.3 is used up by that, unless
 * it is the last. */
static void gpn_tls_offer(gpn_stream *s)
{
    gpn_tls_conn *t = s->secure;
    gpn_tls_host *host = t->host;
    if (host == NULL || s->retried) {
        return;
    }
    gpn_mutex_lock(&s->tls->mutex);
    if (host->count > 0 && !GPN_FAULT(GPN_FAULT_TLS)) {
        gpn_session *session = &host->sessions[host->count - 1];
        t->offered = mbedtls_ssl_set_session(&t->ssl, &session->data) == 0;
        if (session->once && host->count > 1) {
            mbedtls_ssl_session_free(&session->data);
            host->count--;
        }
    }
    gpn_mutex_unlock(&s->tls->mutex);
}

static bool gpn_session_usable(const mbedtls_ssl_session *session)
{
    bool usable;
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    usable = session->MBEDTLS_PRIVATE(id_len) > 0;
#ifdef MBEDTLS_SSL_SESSION_TICKETS
    usable = usable || session->MBEDTLS_PRIVATE(ticket_len) > 0;
#endif
#else
    usable = session->id_len > 0;
#ifdef MBEDTLS_SSL_SESSION_TICKETS
    usable = usable || session->ticket_len > 0;
#endif
#endif
    return usable;
}

/* Keep the connection's session, in place of all others (TLS 1.2) or beside
 * them (a ticket of TLS 1.3). false: there is none to keep. The caller is
 * inside gpn_tls_enter(). */
static bool gpn_tls_keep(gpn_stream *s, bool once)
{
    gpn_tls_conn *t = s->secure;
    gpn_tls_host *host = t->host;
    gpn_session fresh;
    if (host == NULL || s->tls->cfg.no_session_reuse) {
        return false;
    }
    mbedtls_ssl_session_init(&fresh.data);
    fresh.once = once;
    if (GPN_FAULT(GPN_FAULT_TLS) ||
        mbedtls_ssl_get_session(&t->ssl, &fresh.data) != 0 ||
        !(once || gpn_session_usable(&fresh.data))) {
        mbedtls_ssl_session_free(&fresh.data);
        return false;
    }
    gpn_mutex_lock(&s->tls->mutex);
    if (!once) {
        gpn_tls_host_clear(host);
    }
    if (host->count == GPN_SESSION_MAX) {
        mbedtls_ssl_session_free(&host->sessions[0].data);
        host->count--;
        memmove(&host->sessions[0], &host->sessions[1],
                host->count * sizeof host->sessions[0]);
    }
    host->sessions[host->count++] = fresh; /* moved, not copied */
    host->no_sessions = false;
    gpn_mutex_unlock(&s->tls->mutex);
    return true;
}

/* --- what a failure means --- */

typedef struct gpn_tls_text {
    uint32_t code;
    const char *text;
} gpn_tls_text;

/* The flags of mbedtls_ssl_get_verify_result(), the worst first. */
static const char *gpn_tls_flags_text(const gpn_stream *s, uint32_t flags,
                                      char *buf, size_t cap)
{
    static const gpn_tls_text texts[] = {
        {MBEDTLS_X509_BADCERT_NOT_TRUSTED, "is not signed by a trusted CA"},
        {MBEDTLS_X509_BADCERT_CN_MISMATCH, "is for another name"},
        {MBEDTLS_X509_BADCERT_EXPIRED, "has expired"},
        {MBEDTLS_X509_BADCERT_FUTURE, "is not valid yet"},
        {MBEDTLS_X509_BADCERT_REVOKED, "is revoked"},
        {MBEDTLS_X509_BADCERT_KEY_USAGE, "is not meant for this key use"},
        {MBEDTLS_X509_BADCERT_EXT_KEY_USAGE, "is not meant for a server"},
        {MBEDTLS_X509_BADCERT_BAD_MD, "has a weak signature hash"},
        {MBEDTLS_X509_BADCERT_BAD_PK, "has a key of a bad type"},
        {MBEDTLS_X509_BADCERT_BAD_KEY, "has a weak key or a bad curve"}};
    const char *hint = "check base_url and the server";
    size_t n = 0;
    size_t i;
    buf[0] = '\0';
    for (i = 0; i < GPN_COUNT(texts); i++) {
        if ((flags & texts[i].code) != 0) {
            n += gpn_format(buf + n, cap - n, "%s%s",
                            n > 0 ? ", " : "certificate ", texts[i].text);
        }
    }
    if (n == 0) {
        gpn_format(buf, cap, "certificate refused (0x%x)", (unsigned)flags);
    }
    if ((flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) != 0) {
        hint = "give its CA by ca_file, or look for a missing intermediate";
    } else if ((flags & (MBEDTLS_X509_BADCERT_EXPIRED |
                         MBEDTLS_X509_BADCERT_FUTURE)) != 0) {
        /* 2020-01-01: a board without a clock starts in 1970 */
        hint = gpn_clock_unix_ms(s->env) < INT64_C(1577836800000)
                   ? "this machine's clock is wrong, set it"
                   : "check the server or this machine's clock";
    }
    return hint;
}

/* Error codes that can be met; the first that fits. X.509 and ASN.1 codes come
 * from a certificate that cannot be parsed. */
static GPN_NOINLINE const char *gpn_tls_code_text(int code,
                                                  gptner_status *status)
{
    static const gpn_tls_text texts[] = {
        {0x6600, "the server's parameters are not acceptable"},
        {0x6E80, "the server offers no TLS 1.2 or later"},
        {0x7080, "the server uses a feature that mbedTLS lacks"},
        {0x7180, "damaged record; something on the way alters data"},
        {0x7200, "the answer is no TLS; does the server speak plain HTTP?"},
        {0x7400, "no random numbers"},
        {0x7780, "the server refused: no common version, cipher or protocol, "
                 "or it wants another client certificate"},
        {0x7900, "the server's hello cannot be accepted"},
        {0x7980, "the server's hello cannot be accepted"}};
    uint32_t c = code < 0 ? (uint32_t)-code : 0;
    uint32_t high = c & 0xFF80;
    uint32_t low = c > 128 && c < 160 ? 0 : c & 0x7F; /* those are PSA's */
    size_t i;
    *status = GPTNER_ERR_TLS;
    if (high == 0x7F00 || high == 0x2880 || high == 0x3F80 || c == 141 ||
        low == 0x10 || low == 0x6A) {
        *status = GPTNER_ERR_NO_MEMORY;
        return "out of memory";
    }
    for (i = 0; i < GPN_COUNT(texts); i++) {
        if (texts[i].code == high) {
            return texts[i].text;
        }
    }
    if ((high >= 0x2080 && high <= 0x3000) || high == 0x7A00 ||
        (high >= 0x3900 && high <= 0x3F80) || (c >= 0x60 && c < 0x6A)) {
        *status = GPTNER_ERR_CERTIFICATE;
        return "the server's certificate cannot be used";
    }
    return "mbedTLS failed";
}

/* --- TLS: handshake --- */

static GPN_NOINLINE bool gpn_ascii_same(const unsigned char *a, const char *b,
                                        size_t len)
{
    size_t i;
    for (i = 0; i < len; i++) {
        unsigned char c = a[i];
        if (c >= 'A' && c <= 'Z') {
            c = (unsigned char)(c + 32);
        }
        if (c != (unsigned char)b[i]) {
            return false;
        }
    }
    return true;
}

/* RFC 9525 6.3: the whole name, or '*' in place of its first label, and then
 * at least two more. name is in lower case. */
static GPN_NOINLINE bool gpn_dns_matches(const unsigned char *san, size_t len,
                                         const char *name)
{
    size_t name_len = strlen(name);
    if (len > 2 && san[0] == '*' && san[1] == '.') {
        size_t label = strcspn(name, ".");
        return label > 0 && name_len - label == len - 1 &&
               memchr(san + 2, '.', len - 2) != NULL &&
               gpn_ascii_same(san + 1, name + label, len - 1);
    }
    return len == name_len && gpn_ascii_same(san, name, len);
}

/* Our own check of the name, beside the library's: it knows IP addresses (2.28
 * does not), and looks at subjectAltName only. */
static bool gpn_tls_name_ok(const gpn_stream *s, const mbedtls_x509_crt *crt)
{
    const gpn_tls_conn *t = s->secure;
    const mbedtls_x509_sequence *san;
    for (san = &crt->subject_alt_names; san != NULL; san = san->next) {
        int kind = san->buf.tag & 0x1F; /* RFC 5280 4.2.1.6 */
        if (san->buf.p == NULL) {
            continue;
        }
        if (t->ip_len > 0
                ? kind == 7 && san->buf.len == (size_t)t->ip_len &&
                      memcmp(san->buf.p, t->ip, san->buf.len) == 0
                : kind == 2 && gpn_dns_matches(san->buf.p, san->buf.len,
                                               s->peer->name)) {
            return true;
        }
    }
    return false;
}

/* Called for each certificate of the chain; not when a session is resumed. */
static int gpn_tls_verify(void *ctx, mbedtls_x509_crt *crt, int depth,
                          uint32_t *flags)
{
    gpn_stream *s = (gpn_stream *)ctx;
    gpn_tls_conn *t = s->secure;
    t->asked = true;
    if (depth == 0) {
        t->matched = gpn_tls_name_ok(s, crt);
        if (!t->matched) {
            *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
        }
    }
    t->flags |= *flags;
    return 0;
}

/* A transport may block: others can use mbedTLS meanwhile. */
static int gpn_bio_result(gpn_stream *s, gpn_io io, size_t count, int want)
{
    if (io == GPN_IO_DONE) {
        return (int)count;
    }
    if (io == GPN_IO_EOF) {
        return 0;
    }
    if (io == GPN_IO_FAILED) {
        return GPN_TLS_IO_ERROR;
    }
    s->secure->blocked = true;
    return want;
}

static int gpn_bio_send(void *ctx, const unsigned char *data, size_t len)
{
    gpn_stream *s = (gpn_stream *)ctx;
    size_t sent = 0;
    gpn_io io;
    if (s->transport != NULL) {
        gpn_tls_leave();
    }
    io = gpn_raw_send(s, (const char *)data, len, &sent);
    if (s->transport != NULL) {
        gpn_tls_enter();
    }
    return gpn_bio_result(s, io, sent, MBEDTLS_ERR_SSL_WANT_WRITE);
}

/* mbedTLS asks for the 5 bytes of a record's header first: read what there is
 * at once. What is larger than our buffer goes past it. */
static int gpn_bio_recv(void *ctx, unsigned char *data, size_t len)
{
    gpn_stream *s = (gpn_stream *)ctx;
    gpn_tls_conn *t = s->secure;
    size_t got = 0;
    if (t->in_at == t->in_len) {
        bool direct = len >= sizeof t->in;
        gpn_io io;
        if (s->transport != NULL) {
            gpn_tls_leave();
        }
        io = gpn_raw_recv(s, (char *)(direct ? data : t->in),
                          direct ? len : sizeof t->in, &got);
        if (s->transport != NULL) {
            gpn_tls_enter();
        }
        if (direct || io != GPN_IO_DONE) {
            return gpn_bio_result(s, io, got, MBEDTLS_ERR_SSL_WANT_READ);
        }
        t->in_at = 0;
        t->in_len = got;
    }
    if (len > t->in_len - t->in_at) {
        len = t->in_len - t->in_at;
    }
    memcpy(data, t->in + t->in_at, len);
    t->in_at += len;
    return (int)len;
}

/* After the connection is made, and, through a proxy, after its answer to
 * CONNECT. DONE, or FAILED. */
static gpn_io gpn_stream_start_tls(gpn_stream *s, gptner_error *err)
{
    gpn_tls_conn *t;
    if (s->transport != NULL && s->transport->is_secure) {
        return GPN_IO_DONE;
    }
    s->broken = true; /* unless all goes well */
    if (gpn_tls_load(s->tls, err) != GPTNER_OK) {
        return GPN_IO_FAILED;
    }
    t = (gpn_tls_conn *)gpn_mem_alloc(s->env, sizeof *t);
    if (t == NULL) {
        return gpn_stream_fail(s, GPTNER_ERR_NO_MEMORY, "TLS with",
                               "out of memory", err);
    }
    memset(t, 0, offsetof(gpn_tls_conn, in));
    t->ip_len = gpn_addr_bytes(s->peer->name, t->ip);
    s->secure = t;
    gpn_tls_enter();
    mbedtls_ssl_init(&t->ssl);
    t->host = gpn_tls_host_take(s->tls, s->peer);
    gpn_tls_leave();
    s->broken = false;
    return GPN_IO_DONE;
}

/* Create the context, just before the handshake. */
static int gpn_tls_begin(gpn_stream *s)
{
    gpn_tls_conn *t = s->secure;
    const mbedtls_ssl_config *conf = &s->tls->conf;
    int r = -0x7F00; /* no memory */
    t->started = true;
#ifdef GPN_TLS_13
    if (t->host != NULL) {
        gpn_mutex_lock(&s->tls->mutex);
        t->tls12 = t->host->max_tls12;
        gpn_mutex_unlock(&s->tls->mutex);
        conf = t->tls12 ? &s->tls->conf12 : conf;
    }
#endif
    if (!GPN_FAULT(GPN_FAULT_TLS)) {
        r = mbedtls_ssl_setup(&t->ssl, conf);
    }
    if (r == 0) { /* NULL: no SNI for an IP address, RFC 6066 3 */
        r = mbedtls_ssl_set_hostname(&t->ssl,
                                     t->ip_len > 0 ? NULL : s->peer->name);
    }
    if (r == 0) {
        mbedtls_ssl_set_verify(&t->ssl, gpn_tls_verify, s);
        mbedtls_ssl_set_bio(&t->ssl, s, gpn_bio_send, gpn_bio_recv, NULL);
        gpn_tls_offer(s);
    }
    return r;
}

/* Waiting for the scout: has the server lost patience? */
static gpn_io gpn_tls_wait(gpn_stream *s, int64_t until, gptner_error *err)
{
    gpn_tls_conn *t = s->secure;
    gpn_io io = GPN_IO_WANT_READ;
    if (s->transport == NULL && t->in_len == 0) {
        io = gpn_raw_recv(s, (char *)t->in, sizeof t->in, &t->in_len);
    }
    if (io == GPN_IO_EOF || io == GPN_IO_FAILED) {
        s->oserr = io == GPN_IO_EOF ? 0 : s->oserr;
        s->lost_by_fin = io == GPN_IO_EOF;
        return gpn_stream_lost(s, "wait for a TLS session with", err);
    }
    s->wake_at = until;
    return GPN_IO_WAIT;
}

/* A failed handshake that is worth another try at once; each only once.
 * - A session that the server cannot bear: it is dropped.
 * - 3.6.6 and 4.1.0 refuse the RSA-PSS signatures that they offer themselves
 *   when the server stays at TLS 1.2 (Mbed-TLS/mbedtls#10668): a configuration
 *   that ends at TLS 1.2 does not offer them. For this error alone. */
static bool gpn_tls_second_chance(gpn_stream *s, int code)
{
    gpn_tls_conn *t = s->secure;
    bool again = false;
    if (t->host == NULL || s->retried || code == GPN_TLS_IO_ERROR) {
        return false;
    }
    gpn_mutex_lock(&s->tls->mutex);
#ifdef GPN_TLS_13
    if (code == MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER && !t->tls12) {
        t->host->max_tls12 = true;
        again = true;
    }
#endif
    if (t->offered && !t->asked && code != MBEDTLS_ERR_SSL_CONN_EOF) {
        gpn_tls_host_clear(t->host);
        again = true;
    }
    gpn_mutex_unlock(&s->tls->mutex);
    return again;
}

/* A call into mbedTLS for this purpose ended with code, which is no success. */
static gpn_io gpn_tls_result(gpn_stream *s, int code, const char *what,
                             gptner_error *err)
{
    gpn_tls_conn *t = s->secure;
    gptner_status status;
    const char *text;
    char full[320];
    if (code == MBEDTLS_ERR_SSL_WANT_READ) {
        return GPN_IO_WANT_READ;
    }
    if (code == MBEDTLS_ERR_SSL_WANT_WRITE) {
        return GPN_IO_WANT_WRITE;
    }
    s->broken = true;
    gpn_tls_scout_done(s, false);
    if (code == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY && t->established) {
        return GPN_IO_EOF;
    }
    if (code == GPN_TLS_IO_ERROR) {
        return gpn_stream_lost(s, what, err);
    }
    if (code == 0 || code == MBEDTLS_ERR_SSL_CONN_EOF ||
        code == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
        s->lost_by_fin = true;
        return gpn_stream_fail(
            s, GPTNER_ERR_CONNECTION_LOST, what,
            t->established ? "closed without close_notify, data may be missing"
                           : "the server closed the connection",
            err);
    }
    text = gpn_tls_code_text(code, &status);
    if (t->established) {
        if (code == MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE) { /* e.g. KeyUpdate */
            status = GPTNER_ERR_CONNECTION_LOST;
            text = "a message that mbedTLS does not know";
        }
    } else if (t->flags != 0 && status != GPTNER_ERR_NO_MEMORY) {
        char why[200];
        text = gpn_tls_flags_text(s, t->flags, why, sizeof why);
        gpn_format(full, sizeof full, "%s; %s", why, text);
        return gpn_stream_fail(s, GPTNER_ERR_CERTIFICATE, what, full, err);
    }
    gpn_format(full, sizeof full, "%s (-0x%04x)", text, (unsigned)-code);
    return gpn_stream_fail(s, status, what, full, err);
}

/* The handshake failed, or goes on. */
static gpn_io gpn_tls_shake_result(gpn_stream *s, int code, gptner_error *err)
{
    gpn_tls_conn *t = s->secure;
    if (code != MBEDTLS_ERR_SSL_WANT_READ &&
        code != MBEDTLS_ERR_SSL_WANT_WRITE) {
        uint32_t flags = mbedtls_ssl_get_verify_result(&t->ssl);
        if (flags != 0 && flags != 0xFFFFFFFFu) {
            t->flags = flags;
        }
        s->retry_connect = s->retried = gpn_tls_second_chance(s, code);
    }
    return gpn_tls_result(s, code, "TLS handshake with", err);
}

static bool gpn_tls_is_13(const gpn_tls_conn *t)
{
#ifdef GPN_TLS_13
    return mbedtls_ssl_get_version_number(&t->ssl) ==
           MBEDTLS_SSL_VERSION_TLS1_3;
#else
    GPN_UNUSED(t);
    return false;
#endif
}

/* Has a call that returned r brought a session ticket? (TLS 1.3; not an error,
 * the call is made again.) It has to be fetched now. */
static bool gpn_tls_took_ticket(gpn_stream *s, int r)
{
#ifdef MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET
    if (r == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) {
        bool kept;
        gpn_tls_enter();
        kept = gpn_tls_keep(s, true);
        gpn_tls_leave();
        if (kept) {
            gpn_tls_scout_done(s, false);
        }
        return true;
    }
#else
    GPN_UNUSED(s);
    GPN_UNUSED(r);
#endif
    return false;
}

/* Is a call that returned r to be made again at once? */
static bool gpn_tls_again(gpn_stream *s, int r)
{
    return gpn_tls_took_ticket(s, r) ||
           (!s->secure->blocked && (r == MBEDTLS_ERR_SSL_WANT_READ ||
                                    r == MBEDTLS_ERR_SSL_WANT_WRITE));
}

/* Tickets may have come with the server's last flight and lie in our buffer,
 * where no poller sees them. */
static void gpn_tls_eat_tickets(gpn_stream *s)
{
    gpn_tls_conn *t = s->secure;
    while (t->in_at < t->in_len && !t->has_early) {
        int r;
        t->blocked = false;
        gpn_tls_enter();
        r = mbedtls_ssl_read(&t->ssl, &t->early, 1);
        gpn_tls_leave();
        t->has_early = r == 1;
        if (r <= 0 && !gpn_tls_again(s, r)) {
            break; /* an error comes again with the next call */
        }
    }
}

/* The handshake is over. false: the peer was not verified after all, which
 * cannot be unless mbedTLS has a fault (as 3.6.0 has). */
static bool gpn_tls_finish(gpn_stream *s, int64_t now)
{
    gpn_tls_conn *t = s->secure;
    gpn_tls *tls = s->tls;
    bool kept = false;
    bool is_13;
    if (!tls->cfg.insecure_skip_verify && !t->matched &&
        (!t->offered || t->asked)) {
        return false;
    }
    t->established = true;
    s->retried = false;
    /* without verification nobody tells; better to count a full one */
    s->resumed = t->offered && !t->asked && !tls->cfg.insecure_skip_verify;
    gpn_tls_enter();
    is_13 = gpn_tls_is_13(t);
    if (!is_13 && !s->resumed) {
        kept = gpn_tls_keep(s, false);
    }
    gpn_tls_leave();
    gpn_mutex_lock(&tls->mutex);
    if (s->resumed) {
        tls->resumed++;
    } else {
        tls->full++;
    }
    if (t->scouting && is_13) {
        t->host->scout_until = /* tickets take one round trip more */
            now + gpn_clamp_ms(2 * (now - t->began_ms), GPN_TICKET_MIN_MS,
                               GPN_TICKET_MAX_MS);
    }
    gpn_mutex_unlock(&tls->mutex);
    if (is_13) {
        gpn_tls_eat_tickets(s);
    } else {
        gpn_tls_scout_done(s, !kept && !s->resumed);
    }
    return true;
}

static int gpn_tls_shake(gpn_stream *s)
{
    gpn_tls_conn *t = s->secure;
    int r;
    if (GPN_FAULT(GPN_FAULT_TLS)) {
        return -0x7F00;
    }
    do {
        t->blocked = false;
        gpn_tls_enter();
        r = mbedtls_ssl_handshake(&t->ssl);
        gpn_tls_leave();
    } while (gpn_tls_again(s, r));
    return r;
}

/* Step until DONE. WAIT: until the bell rings or wake_at. */
static gpn_io gpn_stream_handshake(gpn_stream *s, int64_t now,
                                   gptner_error *err)
{
    gpn_tls_conn *t = s->secure;
    int64_t until = INT64_MAX;
    int r = 0;
    gpn_io io;
    if (t == NULL) { /* the transport is secure by itself */
        return GPN_IO_DONE;
    }
    s->wake_at = INT64_MAX;
    if (!t->started) {
        if (!gpn_tls_may_start(s, now, &until)) {
            return gpn_tls_wait(s, until, err);
        }
        t->began_ms = now;
        gpn_tls_enter();
        r = gpn_tls_begin(s);
        gpn_tls_leave();
    }
    if (r == 0) {
        r = gpn_tls_shake(s);
    }
    if (r == 0 && !gpn_tls_finish(s, now)) {
        r = MBEDTLS_ERR_X509_CERT_VERIFY_FAILED;
    }
    io = r == 0 ? GPN_IO_DONE : gpn_tls_shake_result(s, r, err);
    return gpn_stream_settle(s, io, err);
}

/* --- TLS: bytes --- */

static gpn_io gpn_tls_send(gpn_stream *s, const char *data, size_t len,
                           size_t *sent, gptner_error *err)
{
    gpn_tls_conn *t = s->secure;
    /* a record that waits is encrypted already: the length must be the same */
    size_t now = t->resend;
    int r;
    if (now == 0) {
        now = len < GPN_TLS_RECORD ? len : (size_t)GPN_TLS_RECORD;
    }
    do {
        t->blocked = false;
        gpn_tls_enter();
        r = GPN_FAULT(GPN_FAULT_TLS)
                ? MBEDTLS_ERR_SSL_INTERNAL_ERROR
                : mbedtls_ssl_write(&t->ssl, (const unsigned char *)data, now);
        gpn_tls_leave();
        if (r > 0) {
            t->resend = 0;
            *sent = (size_t)r;
            return GPN_IO_DONE;
        }
        t->resend = now;
    } while (gpn_tls_again(s, r));
    return gpn_tls_result(s, r, "send to", err);
}

static gpn_io gpn_tls_recv(gpn_stream *s, char *data, size_t cap, size_t *got,
                           gptner_error *err)
{
    gpn_tls_conn *t = s->secure;
    int r;
    if (t->has_early) {
        t->has_early = false;
        data[0] = (char)t->early;
        *got = 1;
        return GPN_IO_DONE;
    }
    do {
        t->blocked = false;
        gpn_tls_enter();
        r = GPN_FAULT(GPN_FAULT_TLS)
                ? MBEDTLS_ERR_SSL_INTERNAL_ERROR
                : mbedtls_ssl_read(&t->ssl, (unsigned char *)data, cap);
        gpn_tls_leave();
        if (r > 0) {
            *got = (size_t)r;
            gpn_tls_scout_done(s, true); /* there was no ticket before it */
            return GPN_IO_DONE;
        }
    } while (gpn_tls_again(s, r));
    return gpn_tls_result(s, r, "receive from", err);
}

static bool gpn_tls_pending(const gpn_stream *s)
{
    const gpn_tls_conn *t = s->secure;
    return t->has_early || t->in_at < t->in_len ||
           (t->established && mbedtls_ssl_get_bytes_avail(&t->ssl) > 0);
}

static void gpn_tls_close(gpn_stream *s)
{
    gpn_tls_conn *t = s->secure;
    gpn_tls_enter();
    if (t->established && !s->broken && t->resend == 0) {
        mbedtls_ssl_close_notify(&t->ssl); /* one try; nobody waits for it */
    }
    mbedtls_ssl_free(&t->ssl);
    gpn_tls_leave();
    gpn_tls_host_drop(s);
    gpn_mem_free(s->env, t);
    s->secure = NULL;
}
#endif /* GPTNER_NO_TLS */

/* --- the stream: bytes, whatever is below --- */

#ifdef GPTNER_NO_TLS
static gpn_io gpn_stream_start_tls(gpn_stream *s, gptner_error *err)
{
    if (s->transport != NULL && s->transport->is_secure) {
        return GPN_IO_DONE;
    }
    gpn_fail(err, GPTNER_ERR_UNSUPPORTED,
             "https to %s: this build has no TLS (GPTNER_NO_TLS)",
             s->peer->host);
    return GPN_IO_FAILED;
}

static gpn_io gpn_stream_handshake(gpn_stream *s, int64_t now,
                                   gptner_error *err)
{
    GPN_UNUSED(now);
    return gpn_stream_start_tls(s, err);
}
#endif

/* DONE: *sent is more than 0, and may be less than len. After WANT_READ or
 * WANT_WRITE the same bytes must be sent again. */
static gpn_io gpn_stream_send(gpn_stream *s, const char *data, size_t len,
                              size_t *sent, gptner_error *err)
{
    gpn_io io;
    *sent = 0;
    if (len == 0) {
        return GPN_IO_DONE;
    }
    if (s->transport != NULL) {
        s->wake_at = INT64_MAX;
    }
#ifndef GPTNER_NO_TLS
    if (s->secure != NULL) {
        io = gpn_tls_send(s, data, len, sent, err);
        return gpn_stream_settle(s, io, err);
    }
#endif
    io = gpn_raw_send(s, data, len, sent);
    if (io == GPN_IO_FAILED) {
        return gpn_stream_lost(s, "send to", err);
    }
    return gpn_stream_settle(s, io, err);
}

/* DONE: *got is more than 0. EOF: the stream ended as it should (TLS: with
 * close_notify). FAILED: anything else. */
static gpn_io gpn_stream_recv(gpn_stream *s, char *data, size_t cap,
                              size_t *got, gptner_error *err)
{
    gpn_io io;
    *got = 0;
    if (s->transport != NULL) {
        s->wake_at = INT64_MAX;
    }
#ifndef GPTNER_NO_TLS
    if (s->secure != NULL) {
        io = gpn_tls_recv(s, data, cap, got, err);
        if (io == GPN_IO_WANT_WRITE ||
            (s->interest != GPN_POLL_IN && s->secure->resend == 0)) {
            return gpn_stream_settle(s, io, err);
        }
        return io;
    }
#endif
    io = gpn_raw_recv(s, data, cap, got);
    if (io == GPN_IO_FAILED) {
        return gpn_stream_lost(s, "receive from", err);
    }
    return io;
}

/* Are there bytes that no poller can tell of? Then receive before waiting. */
static bool gpn_stream_pending(const gpn_stream *s)
{
#ifndef GPTNER_NO_TLS
    if (s->secure != NULL) {
        return gpn_tls_pending(s);
    }
#endif
    GPN_UNUSED(s);
    return false;
}

/* Is an idle connection still good? Eats tickets; any other byte, an end or an
 * error says no. A transport cannot be asked without waiting: yes. */
static bool gpn_stream_alive(gpn_stream *s)
{
    gptner_error ignored;
    char byte;
    size_t got = 0;
    if (s->state != GPN_STREAM_OPEN || s->broken) {
        return false;
    }
    if (s->transport != NULL) {
        return !gpn_stream_pending(s);
    }
    if (gpn_stream_recv(s, &byte, 1, &got, &ignored) != GPN_IO_WANT_READ) {
        s->broken = true;
        return false;
    }
    return true;
}

static bool gpn_stream_resumed(const gpn_stream *s)
{
    return s->resumed;
}

/* End the connection, in any state; it can be opened again. */
static void gpn_stream_close(gpn_stream *s)
{
#ifndef GPTNER_NO_TLS
    if (s->secure != NULL) {
        gpn_tls_close(s);
    }
#endif
    gpn_race_end(s);
    gpn_stream_drop(s, &s->fd);
    if (s->transport != NULL && s->transport_conn != NULL) {
        s->transport->close_fn(s->transport_conn);
        s->transport_conn = NULL;
    }
    s->interest = 0;
    s->state = GPN_STREAM_CLOSED;
    s->wake_at = INT64_MAX;
}

/* ===========================================================================
 * >>http       layer 5   URL, request writer, response parser, SSE, multipart
 * calls: >>platform >>bytes
 *
 * Everything here is a function from bytes to bytes: no socket is touched, so
 * the same input gives the same result however the network cut it. The parsers
 * keep only what is incomplete; the body of a response is never copied.
 * Where two readers of one stream could disagree (a bare CR, NUL, two lengths,
 * a coding under "chunked") the response is refused: guessing there is what
 * request smuggling lives on.
 * ======================================================================== */

/* ---- characters ---------------------------------------------------------- */

enum {
    GPN_CHAR_TOKEN = 1, /* RFC 9110 5.6.2, token */
    GPN_CHAR_PLAIN = 2, /* RFC 3986 2.3, unreserved */
    GPN_CHAR_DELIM = 4  /* RFC 3986 2.2, sub-delims */
};

/* A sum of the above; the table starts at '!' and ends at '~'. */
static unsigned gpn_char_class(char c)
{
    static const char classes[] = "5015155445543303333333333040400"
                                  "03333333333333333333333333300013"
                                  "1333333333333333333333333330103";
    unsigned at = (unsigned)(unsigned char)c - 0x21u;
    return at < sizeof(classes) - 1 ? (unsigned)(classes[at] - '0') : 0u;
}

/* Names are mostly letters, which need no table. */
static bool gpn_char_is_token(char c)
{
    return ((unsigned)(unsigned char)c | 0x20u) - 'a' < 26u ||
           (gpn_char_class(c) & GPN_CHAR_TOKEN) != 0;
}

/* 0 to 15, or -1. */
static int gpn_hex_value(char c)
{
    int lower = gpn_char_lower(c);
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* A number of exactly n digits; -1: it is none. */
static GPN_NOINLINE int gpn_digits_fixed(const char *p, int n)
{
    int value = 0;
    for (; n > 0; n--, p++) {
        if (*p < '0' || *p > '9') {
            return -1;
        }
        value = value * 10 + (*p - '0');
    }
    return value;
}

/* Digits only, at least one; false also beyond INT64_MAX. */
static bool gpn_digits_parse(gptner_str text, int64_t *out)
{
    uint64_t value;
    bool ok = gpn_parse_u64(text, &value) && value <= (uint64_t)INT64_MAX;
    *out = ok ? (int64_t)value : 0;
    return ok;
}

/* The next element of a comma-separated list, trimmed; *rest moves on. */
static bool gpn_list_next(gptner_str *rest, gptner_str *item)
{
    const char *comma;
    if (rest->ptr == NULL) {
        return false;
    }
    comma = (const char *)memchr(rest->ptr, ',', rest->len);
    item->ptr = rest->ptr;
    item->len = comma != NULL ? (size_t)(comma - rest->ptr) : rest->len;
    rest->len -= item->len;
    rest->ptr = NULL;
    if (comma != NULL) {
        rest->ptr = comma + 1;
        rest->len--;
    }
    *item = gpn_str_trim(*item);
    return true;
}

/* ---- URL ----------------------------------------------------------------- */

enum { GPN_URL_MAX = 65535 /* bytes; more is a mistake or an attack */ };

typedef struct gpn_url {
    const gpn_env *env;
    char *block; /* the one allocation; the strings point into it */
    size_t block_len;
    const char *scheme; /* "http" or "https" */
    const char *host;   /* lower case, no brackets, a trailing dot kept */
    const char *name;   /* host without trailing dot, for TLS */
    const char *target; /* path and query, from '/' on, no fragment */
    gptner_str user;    /* percent-decoded; ptr NULL: none */
    gptner_str password;
    int port;
    bool tls;
    bool host_is_v6;
} gpn_url;

static void gpn_url_deinit(gpn_url *url)
{
    if (url->block != NULL) {
        gpn_mem_wipe(url->block, url->block_len);
        gpn_mem_free(url->env, url->block);
    }
    memset(url, 0, sizeof(*url));
}

/* The pieces of a URL behind "scheme://", as views. */
typedef struct gpn_url_view {
    gptner_str userinfo;
    gptner_str host;
    gptner_str target;
    bool bracketed;
    int64_t port; /* -1: none given */
} gpn_url_view;

/* RFC 3986: only the characters of the given classes, those of extra, and
 * well-formed percent-encodings. */
static bool gpn_url_chars_ok(gptner_str text, const char *extra)
{
    size_t i;
    for (i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (gpn_char_class(c) >= GPN_CHAR_PLAIN ||
            (c != '\0' && strchr(extra, c) != NULL)) {
            continue;
        }
        if (c != '%' || text.len - i < 3 ||
            gpn_hex_value(text.ptr[i + 1]) < 0 ||
            gpn_hex_value(text.ptr[i + 2]) < 0) {
            return false;
        }
        i += 2;
    }
    return true;
}

/* False for names whose last label is a number although the whole is no
 * dotted quad: "1.2.3", "0x7f.1". Resolvers read those as addresses, each in
 * its own way. */
static bool gpn_url_name_ok(const char *host, size_t len)
{
    unsigned char bytes[16];
    size_t end = len, at, i;
    bool digits = true;
    if (end > 1 && host[end - 1] == '.') {
        end--;
    }
    for (at = end; at > 0 && host[at - 1] != '.'; at--) {
    }
    if (end - at > 1 && host[at] == '0' && host[at + 1] == 'x') {
        for (i = at + 2; i < end; i++) {
            digits = digits && gpn_hex_value(host[i]) >= 0;
        }
    } else {
        for (i = at; i < end; i++) {
            digits = digits && host[i] >= '0' && host[i] <= '9';
        }
    }
    return at == end || !digits || gpn_addr_bytes(host, bytes) == 4;
}

/* Splits "user:pw@[host]:port"; NULL or what is wrong with it. */
static const char *gpn_url_split_authority(gptner_str text, gpn_url_view *v)
{
    const char *at = (const char *)memchr(text.ptr, '@', text.len);
    const char *end = text.ptr + text.len;
    const char *p;
    if (at != NULL) {
        v->userinfo = gpn_str(text.ptr, (size_t)(at - text.ptr));
        if (!gpn_url_chars_ok(v->userinfo, ":")) {
            return "user and password must be percent-encoded";
        }
        text.ptr = at + 1;
    }
    p = text.ptr;
    v->bracketed = p < end && *p == '[';
    if (v->bracketed) {
        p = (const char *)memchr(p, ']', (size_t)(end - p));
        if (p == NULL) {
            return "']' missing after the IPv6 address";
        }
        v->host = gpn_str(text.ptr + 1, (size_t)(p - text.ptr - 1));
        p++;
    } else {
        while (p < end && gpn_char_class(*p) >= GPN_CHAR_PLAIN) {
            p++;
        }
        v->host = gpn_str(text.ptr, (size_t)(p - text.ptr));
    }
    if (v->host.len == 0) {
        return "no host name";
    }
    if (p < end && *p != ':') {
        return "a character that no host name can have";
    }
    if (end - p > 1 &&
        (!gpn_digits_parse(gpn_str(p + 1, (size_t)(end - p - 1)), &v->port) ||
         v->port < 1 || v->port > 65535)) {
        return "the port must be 1 to 65535";
    }
    return NULL;
}

/* Splits what follows "scheme://"; NULL or what is wrong with it. */
static GPN_NOINLINE const char *gpn_url_split(gptner_str text, gpn_url_view *v)
{
    const char *why;
    size_t i = 0;
    memset(v, 0, sizeof(*v));
    v->port = -1;
    while (i < text.len && text.ptr[i] != '/' && text.ptr[i] != '?' &&
           text.ptr[i] != '#') {
        i++;
    }
    why = gpn_url_split_authority(gpn_str(text.ptr, i), v);
    if (why != NULL) {
        return why;
    }
    v->target = gpn_str(text.ptr + i, text.len - i);
    for (i = 0; i < v->target.len && v->target.ptr[i] != '#'; i++) {
    }
    text = gpn_str(v->target.ptr + i, v->target.len - i);
    v->target.len = i; /* the fragment is never sent (RFC 9110 7.1) */
    if (!gpn_url_chars_ok(v->target, ":@/?") ||
        !gpn_url_chars_ok(text, ":@/?#")) {
        return "a character that must be percent-encoded";
    }
    return NULL;
}

/* Decodes into *at, NUL after it, and moves *at on. False: a control. */
static bool gpn_url_decode(char **at, gptner_str text, gptner_str *out)
{
    char *to = *at;
    size_t i;
    for (i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            c = (char)(gpn_hex_value(text.ptr[i + 1]) * 16 +
                       gpn_hex_value(text.ptr[i + 2]));
            i += 2;
        }
        if ((unsigned char)c < 0x20 || c == 0x7f) {
            return false;
        }
        *to++ = c;
    }
    *out = gpn_str(*at, (size_t)(to - *at));
    *to++ = '\0';
    *at = to;
    return true;
}

/* Copies text to *at, NUL after it, and moves *at on. */
static char *gpn_url_put(char **at, gptner_str text)
{
    char *to = *at;
    memcpy(to, text.ptr, text.len);
    to[text.len] = '\0';
    *at += text.len + 1;
    return to;
}

/* Copies the pieces into one block. */
static const char *gpn_url_fill(gpn_url *url, const gpn_url_view *v)
{
    unsigned char bytes[16];
    char *at = url->block;
    gptner_str user = v->userinfo;
    gptner_str host = v->host;
    const char *colon;
    char *p;
    url->host = p = gpn_url_put(&at, host);
    for (; *p != '\0'; p++) {
        *p = (char)gpn_char_lower(*p);
    }
    if (host.len > 1 && host.ptr[host.len - 1] == '.') {
        host.len--;
    }
    host.ptr = url->host;
    url->name = gpn_url_put(&at, host);
    url->target = at;
    if (v->target.len == 0 || v->target.ptr[0] != '/') {
        *at++ = '/';
    }
    gpn_url_put(&at, v->target);
    url->host_is_v6 = v->bracketed;
    if (v->bracketed ? gpn_addr_bytes(url->host, bytes) != 16
                     : !gpn_url_name_ok(url->host, v->host.len)) {
        return "not a valid IP address";
    }
    if (user.ptr == NULL) {
        return NULL;
    }
    colon = (const char *)memchr(user.ptr, ':', user.len);
    if (colon != NULL) {
        user.len = (size_t)(colon - user.ptr);
        if (!gpn_url_decode(&at,
                            gpn_str(colon + 1, v->userinfo.len - user.len - 1),
                            &url->password)) {
            return "a control character in the password";
        }
    }
    return gpn_url_decode(&at, user, &url->user)
               ? NULL
               : "a control character in the user name";
}

/* Parses what follows "scheme://". */
static gptner_status gpn_url_parse_rest(const gpn_env *env, gptner_str text,
                                        bool tls, gpn_url *out,
                                        gptner_error *err)
{
    gpn_url_view view;
    const char *why = "longer than 65535 bytes";
    memset(out, 0, sizeof(*out));
    if (text.len <= GPN_URL_MAX) {
        why = gpn_url_split(text, &view);
    }
    if (why == NULL) {
        out->env = env;
        out->block_len = 2 * text.len + 8; /* host twice, ends, one '/' */
        out->block = (char *)gpn_mem_alloc(env, out->block_len);
        if (out->block == NULL) {
            return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "URL: out of memory");
        }
        out->tls = tls;
        out->scheme = tls ? "https" : "http";
        out->port = view.port > 0 ? (int)view.port : tls ? 443 : 80;
        why = gpn_url_fill(out, &view);
    }
    if (why != NULL) {
        gpn_url_deinit(out);
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "URL: %s; it looks like https://host:port/path", why);
    }
    return GPTNER_OK;
}

/* Parses an absolute http or https URL. The message never repeats the text,
 * which may hold a password. *out is all zero on failure. */
static gptner_status gpn_url_parse(const gpn_env *env, gptner_str text,
                                   gpn_url *out, gptner_error *err)
{
    bool tls = gpn_str_istarts(text, "https://");
    size_t skip = tls ? 8 : 7;
    memset(out, 0, sizeof(*out));
    if (!tls && !gpn_str_istarts(text, "http://")) {
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "URL: must start with https:// or http://");
    }
    return gpn_url_parse_rest(env, gpn_str(text.ptr + skip, text.len - skip),
                              tls, out, err);
}

/* "host:port", IPv6 in brackets, as CONNECT wants it. False: no room. */
static bool gpn_url_authority(const gpn_url *url, char *out, size_t cap)
{
    if (strlen(url->host) + sizeof("[]:65535") > cap) {
        return false;
    }
    gpn_format(out, cap, url->host_is_v6 ? "[%s]:%d" : "%s:%d", url->host,
               url->port);
    return true;
}

/* The same for the field Host, which omits a default port. */
static bool gpn_url_header_host(const gpn_url *url, char *out, size_t cap)
{
    if (!gpn_url_authority(url, out, cap)) {
        return false;
    }
    if (url->port == (url->tls ? 443 : 80)) {
        *strrchr(out, ':') = '\0';
    }
    return true;
}

/* ---- request head -------------------------------------------------------- */

static bool gpn_http_token_ok(gptner_str text)
{
    size_t i;
    for (i = 0; i < text.len; i++) {
        if (!gpn_char_is_token(text.ptr[i])) {
            return false;
        }
    }
    return text.len > 0;
}

/* No control but HT: no line can end inside the value (RFC 9110 5.5). */
static bool gpn_http_value_ok(gptner_str text)
{
    size_t i;
    for (i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

/* Visible ASCII without '#', from '/' on. */
static bool gpn_http_target_ok(gptner_str text)
{
    size_t i;
    for (i = 0; i < text.len; i++) {
        if (text.ptr[i] <= 0x20 || text.ptr[i] >= 0x7f || text.ptr[i] == '#') {
            return false;
        }
    }
    return text.len > 0;
}

static void gpn_http_refuse(gpn_buf *out)
{
    if (out->status == GPTNER_OK) {
        out->status = GPTNER_ERR_INVALID_ARGUMENT;
    }
}

/* The request line. What would break it latches INVALID_ARGUMENT in out. */
static void gpn_http_begin(gpn_buf *out, const char *method, gptner_str target)
{
    if (!gpn_http_token_ok(gpn_str_c(method)) || !gpn_http_target_ok(target)) {
        gpn_http_refuse(out);
        return;
    }
    gpn_buf_add_s(out, method);
    gpn_buf_add_c(out, ' ');
    gpn_buf_add_str(out, target);
    gpn_buf_add_s(out, " HTTP/1.1\r\n");
}

static void gpn_http_header(gpn_buf *out, const char *name, gptner_str value)
{
    if (!gpn_http_token_ok(gpn_str_c(name)) || !gpn_http_value_ok(value)) {
        gpn_http_refuse(out);
        return;
    }
    gpn_buf_add_s(out, name);
    gpn_buf_add(out, ": ", 2);
    gpn_buf_add_str(out, value);
    gpn_buf_add(out, "\r\n", 2);
}

static GPN_NOINLINE void gpn_http_header_c(gpn_buf *out, const char *name,
                                           const char *value)
{
    gpn_http_header(out, name, gpn_str_c(value));
}

static void gpn_http_end_head(gpn_buf *out)
{
    gpn_buf_add(out, "\r\n", 2);
}

/* For one piece of a path, such as an id: all but unreserved characters are
 * encoded, and so are "." and "..", which would climb. */
static void gpn_percent_encode(gpn_buf *out, gptner_str text)
{
    static const char hex[] = "0123456789ABCDEF";
    bool dots = gpn_str_eq_c(text, ".") || gpn_str_eq_c(text, "..");
    size_t i;
    for (i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if ((gpn_char_class((char)c) & GPN_CHAR_PLAIN) != 0 && !dots) {
            gpn_buf_add_c(out, (char)c);
        } else {
            gpn_buf_add_c(out, '%');
            gpn_buf_add_c(out, hex[c >> 4]);
            gpn_buf_add_c(out, hex[c & 15]);
        }
    }
}

/* ---- response ------------------------------------------------------------ */

enum { GPN_INTERIM_MAX = 100 /* 1xx responses before the final one */ };

/* 0: the default in brackets. */
typedef struct gpn_http_limits {
    size_t max_head;           /* bytes of one head [256 KiB] */
    size_t max_headers;        /* fields of head and trailers [2048] */
    size_t max_trailer;        /* bytes [64 KiB] */
    size_t max_interim;        /* [100], at most 100 */
    size_t max_chunk_overhead; /* bytes of extensions and padding [64 KiB] */
    int64_t max_body;          /* bytes [no limit] */
} gpn_http_limits;

typedef enum gpn_http_event {
    GPN_HTTP_MORE,    /* all was consumed; more is needed */
    GPN_HTTP_INTERIM, /* a 1xx response was skipped */
    GPN_HTTP_HEAD,    /* status and headers are complete */
    GPN_HTTP_BODY,    /* *body is the next piece, a view of the input */
    GPN_HTTP_DONE,    /* the response is whole; the rest is not part of it */
    GPN_HTTP_FAILED
} gpn_http_event;

typedef enum gpn_http_framing {
    GPN_FRAMING_NONE,
    GPN_FRAMING_LENGTH,
    GPN_FRAMING_CHUNKED,
    GPN_FRAMING_CLOSE
} gpn_http_framing;

typedef enum gpn_http_state {
    GPN_HTTP_IN_STATUS,
    GPN_HTTP_IN_HEADERS,
    GPN_HTTP_IN_COUNTED, /* Content-Length */
    GPN_HTTP_IN_REST,    /* until the connection closes */
    GPN_HTTP_IN_SIZE,    /* of a chunk */
    GPN_HTTP_IN_PADDING, /* white space after the size */
    GPN_HTTP_IN_EXTENSION,
    GPN_HTTP_IN_SIZE_LF,
    GPN_HTTP_IN_CHUNK,
    GPN_HTTP_IN_CHUNK_CR,
    GPN_HTTP_IN_CHUNK_LF,
    GPN_HTTP_IN_TRAILERS,
    GPN_HTTP_COMPLETE,
    GPN_HTTP_BROKEN
} gpn_http_state;

/* A field, as offsets into the copied head. */
typedef struct gpn_http_field {
    uint32_t name, name_len;
    uint32_t value, value_len;
} gpn_http_field;

typedef struct gpn_http {
    /* to be read */
    int status;    /* of the final response; 0 before its head is complete */
    int minor;     /* HTTP/1.minor */
    bool started;  /* at least one byte was seen */
    bool reusable; /* at DONE: if nothing is left over, the connection can
                      carry another request */
    gpn_http_framing framing;
    int64_t content_length; /* -1: none */
    int64_t body_bytes;     /* so far */
    size_t n_headers;
    size_t n_trailers; /* fields n_headers .. n_headers + n_trailers - 1 */
    size_t n_interim;  /* of interim[] */
    /* private */
    gpn_http_state state;
    int code;          /* of the head being read */
    size_t line_start; /* in head */
    uint64_t left;     /* of the body or the chunk */
    size_t digits;     /* of a chunk's size */
    size_t overhead;
    bool head_request;
    bool connect_request;
    gptner_error *err; /* of the call under way */
    gpn_buf head;      /* lines of head and trailers as they came */
    gpn_buf fields;    /* gpn_http_field[]; these two outlive a reset */
    gpn_http_limits limits;
    /* Last, as it is large: the others are within reach of a short offset. */
    uint16_t interim[GPN_INTERIM_MAX];
} gpn_http;

static void gpn_http_init(gpn_http *h, const gpn_env *env)
{
    memset(h, 0, sizeof(*h));
    gpn_buf_init(&h->head, env, SIZE_MAX);
    gpn_buf_init(&h->fields, env, SIZE_MAX);
    h->content_length = -1;
}

static void gpn_http_deinit(gpn_http *h)
{
    gpn_buf_deinit(&h->head);
    gpn_buf_deinit(&h->fields);
}

static GPN_NOINLINE void gpn_http_clear_head(gpn_http *h)
{
    gpn_buf_clear(&h->head);
    gpn_buf_clear(&h->fields);
    h->head.max = h->limits.max_head;
    h->line_start = 0;
    h->n_headers = 0;
    h->state = GPN_HTTP_IN_STATUS;
}

/* value, or the default for 0, but not more than most. */
static GPN_NOINLINE size_t gpn_http_limit(size_t value, size_t otherwise,
                                          size_t most)
{
    value = value > 0 ? value : otherwise;
    return value < most ? value : most;
}

/* Ready for the next response; the memory is kept. */
static void gpn_http_reset(gpn_http *h, bool head_request, bool connect_request,
                           const gpn_http_limits *limits)
{
    enum { MOST = 1 << 30 }; /* offsets are 32 bits wide */
    memset(h, 0, offsetof(gpn_http, head));
    h->limits.max_head = gpn_http_limit(limits->max_head, 256 << 10, MOST);
    h->limits.max_headers = gpn_http_limit(limits->max_headers, 2048, MOST);
    h->limits.max_trailer = gpn_http_limit(limits->max_trailer, 64 << 10, MOST);
    h->limits.max_interim =
        gpn_http_limit(limits->max_interim, GPN_INTERIM_MAX, GPN_INTERIM_MAX);
    h->limits.max_chunk_overhead =
        gpn_http_limit(limits->max_chunk_overhead, 64 << 10, MOST);
    h->limits.max_body = limits->max_body > 0 ? limits->max_body : INT64_MAX;
    h->head_request = head_request;
    h->connect_request = connect_request;
    h->content_length = -1;
    gpn_http_clear_head(h);
}

static const gpn_http_field *gpn_http_field_at(const gpn_http *h, size_t i)
{
    const void *table = h->fields.data;
    return (const gpn_http_field *)table + i;
}

/* Name and value as they were sent; valid until the next reset. */
static gptner_str gpn_http_name(const gpn_http *h, size_t i)
{
    const gpn_http_field *f = gpn_http_field_at(h, i);
    return gpn_str(h->head.data + f->name, f->name_len);
}

static gptner_str gpn_http_value(const gpn_http *h, size_t i)
{
    const gpn_http_field *f = gpn_http_field_at(h, i);
    return gpn_str(h->head.data + f->value, f->value_len);
}

static bool gpn_http_is(const gpn_http *h, size_t i, const char *name)
{
    return gpn_str_ieq_c(gpn_http_name(h, i), name);
}

/* The first header of that name, trailers excluded; ptr NULL: none. */
static gptner_str gpn_http_find(const gpn_http *h, const char *name)
{
    gptner_str none = GPN_ZERO;
    size_t i;
    for (i = 0; i < h->n_headers; i++) {
        if (gpn_http_is(h, i, name)) {
            return gpn_http_value(h, i);
        }
    }
    return none;
}

/* Is token in the list that all headers of that name make together? */
static bool gpn_http_has_token(const gpn_http *h, const char *name,
                               const char *token)
{
    size_t i;
    for (i = 0; i < h->n_headers; i++) {
        if (gpn_http_is(h, i, name)) {
            gptner_str rest = gpn_http_value(h, i), item;
            while (gpn_list_next(&rest, &item)) {
                if (gpn_str_ieq_c(item, token)) {
                    return true;
                }
            }
        }
    }
    return false;
}

static gpn_http_event gpn_http_fail(gpn_http *h, gptner_status status,
                                    const char *why)
{
    h->state = GPN_HTTP_BROKEN;
    h->reusable = false;
    gpn_fail(h->err, status, "HTTP response: %s", why);
    return GPN_HTTP_FAILED;
}

static gpn_http_event gpn_http_malformed(gpn_http *h, const char *why)
{
    return gpn_http_fail(h, GPTNER_ERR_PROTOCOL, why);
}

/* A limit is exceeded. */
static gpn_http_event gpn_http_too_much(gpn_http *h, const char *why)
{
    return gpn_http_fail(h, GPTNER_ERR_LIMIT, why);
}

/* A buffer latched its failure. */
static gpn_http_event gpn_http_no_room(gpn_http *h, gptner_status status)
{
    return gpn_http_fail(h, status,
                         status == GPTNER_ERR_NO_MEMORY
                             ? "out of memory"
                             : "headers longer than max_head_bytes");
}

typedef struct gpn_http_input {
    const char *data;
    size_t len;
    size_t at;
    gptner_str *body;
} gpn_http_input;

/* "HTTP/1.1 200 OK", with or without the space before an empty reason. */
static const char *gpn_http_status_line(gpn_http *h, const char *p, size_t len)
{
    if (len < 12 || memcmp(p, "HTTP/1.", 7) != 0 ||
        (p[7] != '0' && p[7] != '1') || p[8] != ' ' ||
        (len > 12 && p[12] != ' ')) {
        return "not an HTTP/1.1 status line";
    }
    h->code = gpn_digits_fixed(p + 9, 3);
    if (h->code < 100) {
        return h->code < 0 ? "the status is not a number"
                           : "the status is below 100";
    }
    h->minor = p[7] - '0';
    h->state = GPN_HTTP_IN_HEADERS;
    return NULL;
}

static size_t gpn_http_field_count(const gpn_http *h)
{
    return h->fields.len / sizeof(gpn_http_field);
}

/* obs-fold (RFC 9112 5.2): the line goes on with the value before it, from
 * which one space parts it. */
static const char *gpn_http_fold(gpn_http *h, size_t first, size_t len)
{
    void *table = h->fields.data;
    gpn_http_field *f = (gpn_http_field *)table;
    gptner_str more = gpn_str_trim(gpn_str(h->head.data + h->line_start, len));
    size_t n = gpn_http_field_count(h);
    char *end;
    if (n <= first) {
        return "white space before the first header";
    }
    f += n - 1;
    if (more.len > 0) {
        end = h->head.data + f->value + f->value_len;
        if (f->value_len > 0) {
            *end++ = ' ';
        }
        memmove(end, more.ptr, more.len);
        f->value_len =
            (uint32_t)((size_t)(end - h->head.data) + more.len - f->value);
    }
    return NULL;
}

/* One line of the head or the trailer; NULL, or what is wrong. */
static const char *gpn_http_field_line(gpn_http *h, size_t first, size_t len)
{
    const char *p = h->head.data + h->line_start;
    gpn_http_field field;
    gptner_str value;
    size_t i = 0;
    if (*p == ' ' || *p == '\t') {
        return gpn_http_fold(h, first, len);
    }
    while (i < len && gpn_char_is_token(p[i])) {
        i++;
    }
    if (i == 0 || i == len || p[i] != ':') {
        return "a header without a proper name and colon";
    }
    field.name = (uint32_t)h->line_start;
    field.name_len = (uint32_t)i;
    value = gpn_str_trim(gpn_str(p + i + 1, len - i - 1));
    field.value = (uint32_t)(value.ptr - h->head.data);
    field.value_len = (uint32_t)value.len;
    gpn_buf_add(&h->fields, (const char *)(const void *)&field, sizeof(field));
    return NULL;
}

/* Digits, or a list of equal ones, which counts as one (RFC 9110 8.6). */
static const char *gpn_http_length(gpn_http *h, gptner_str value)
{
    gptner_str item;
    while (gpn_list_next(&value, &item)) {
        int64_t n;
        if (!gpn_digits_parse(item, &n)) {
            return "Content-Length is not a number";
        }
        if (h->content_length >= 0 && h->content_length != n) {
            return "two different values of Content-Length";
        }
        h->content_length = n;
    }
    return NULL;
}

/* How the body ends: RFC 9112 6.3, in its order. */
static const char *gpn_http_frame(gpn_http *h)
{
    bool coded = false, keep;
    size_t i;
    keep = !gpn_http_has_token(h, "connection", "close") &&
           (h->minor > 0 || gpn_http_has_token(h, "connection", "keep-alive"));
    h->reusable = keep;
    h->framing = GPN_FRAMING_NONE;
    h->state = GPN_HTTP_COMPLETE;
    if (h->head_request || h->code == 204 || h->code == 304 ||
        (h->connect_request && h->code / 100 == 2)) {
        return NULL;
    }
    for (i = 0; i < h->n_headers; i++) {
        const char *why = NULL;
        if (gpn_http_is(h, i, "content-length")) {
            why = gpn_http_length(h, gpn_http_value(h, i));
        } else if (gpn_http_is(h, i, "transfer-encoding")) {
            if (coded || !gpn_str_ieq_c(gpn_http_value(h, i), "chunked")) {
                why = "a Transfer-Encoding other than \"chunked\"";
            }
            coded = true;
        }
        if (why != NULL) {
            return why;
        }
    }
    if (coded) {
        /* With a length as well, or in HTTP/1.0, another reader may have seen
         * another end (6.1): the connection is not used again. */
        h->reusable = keep && h->content_length < 0 && h->minor > 0;
        h->content_length = -1;
        h->framing = GPN_FRAMING_CHUNKED;
        h->state = GPN_HTTP_IN_SIZE;
        h->left = h->digits = 0;
    } else if (h->content_length >= 0) {
        h->framing = GPN_FRAMING_LENGTH;
        h->left = (uint64_t)h->content_length;
        h->state = h->left > 0 ? GPN_HTTP_IN_COUNTED : GPN_HTTP_COMPLETE;
    } else {
        h->reusable = false;
        h->framing = GPN_FRAMING_CLOSE;
        h->state = GPN_HTTP_IN_REST;
    }
    return NULL;
}

/* The empty line after a head was read. */
static gpn_http_event gpn_http_head_end(gpn_http *h)
{
    const char *why;
    if (h->code == 101) {
        return gpn_http_malformed(h, "switches protocols, unasked");
    }
    if (h->code < 200) {
        if (h->n_interim >= h->limits.max_interim) {
            return gpn_http_too_much(h, "too many interim (1xx) responses");
        }
        h->interim[h->n_interim++] = (uint16_t)h->code;
        gpn_http_clear_head(h);
        return GPN_HTTP_INTERIM;
    }
    h->n_headers = gpn_http_field_count(h);
    h->status = h->code;
    why = gpn_http_frame(h);
    if (why != NULL) {
        return gpn_http_malformed(h, why);
    }
    if (h->content_length > h->limits.max_body) {
        return gpn_http_too_much(h, "body longer than max_body_bytes");
    }
    return GPN_HTTP_HEAD;
}

/* A whole line of len bytes stands at line_start. */
static gpn_http_event gpn_http_line(gpn_http *h, size_t len)
{
    const char *p = h->head.data + h->line_start, *why = NULL;
    size_t first = h->state == GPN_HTTP_IN_TRAILERS ? h->n_headers : 0;
    bool is_status = h->state == GPN_HTTP_IN_STATUS;
    if (is_status) {
        why = gpn_http_status_line(h, p, len);
    }
    if (why == NULL &&
        (memchr(p, '\r', len) != NULL || memchr(p, '\0', len) != NULL)) {
        why = "a bare CR or a NUL in a line";
    }
    if (why != NULL || is_status) {
        /* Done, or lost. */
    } else if (len > 0) {
        if (gpn_http_field_count(h) >= h->limits.max_headers && *p > ' ') {
            return gpn_http_too_much(h, "more headers than max_headers");
        }
        why = gpn_http_field_line(h, first, len);
    } else if (h->state == GPN_HTTP_IN_HEADERS) {
        return gpn_http_head_end(h);
    } else {
        h->n_trailers = gpn_http_field_count(h) - h->n_headers;
        h->state = GPN_HTTP_COMPLETE;
        return GPN_HTTP_DONE;
    }
    if (why != NULL) {
        return gpn_http_malformed(h, why);
    }
    if (h->fields.status != GPTNER_OK) {
        return gpn_http_no_room(h, h->fields.status);
    }
    h->line_start = h->head.len;
    return GPN_HTTP_MORE;
}

/* Takes the next line, or what there is of it, into head. */
static gpn_http_event gpn_http_read_line(gpn_http *h, gpn_http_input *in)
{
    static const char start[] = "HTTP/1.";
    const char *from = in->data + in->at;
    const char *lf = (const char *)memchr(from, '\n', in->len - in->at);
    size_t n = lf != NULL ? (size_t)(lf - from) + 1 : in->len - in->at;
    gpn_buf_add(&h->head, from, n);
    if (h->head.status != GPTNER_OK) {
        return gpn_http_no_room(h, h->head.status);
    }
    in->at += n;
    n = h->head.len - h->line_start;
    if (lf == NULL) {
        /* A peer that does not speak HTTP may never send an LF. */
        n = n < 7 ? n : 7;
        if (h->state == GPN_HTTP_IN_STATUS &&
            memcmp(h->head.data, start, n) != 0) {
            return gpn_http_malformed(h, "not an HTTP/1.1 status line");
        }
        return GPN_HTTP_MORE;
    }
    n--;
    if (n > 0 && h->head.data[h->line_start + n - 1] == '\r') {
        n--;
    }
    return gpn_http_line(h, n);
}

/* Hands out up to h->left bytes of the input. */
static gpn_http_event gpn_http_take(gpn_http *h, gpn_http_input *in,
                                    gpn_http_state next)
{
    size_t n = in->len - in->at;
    uint64_t room = (uint64_t)(h->limits.max_body - h->body_bytes);
    if ((uint64_t)n > h->left) {
        n = (size_t)h->left;
    }
    if ((uint64_t)n > room) {
        n = (size_t)room;
    }
    if (n == 0) {
        return gpn_http_too_much(h, "body longer than max_body_bytes");
    }
    *in->body = gpn_str(in->data + in->at, n);
    in->at += n;
    h->body_bytes += (int64_t)n;
    h->left -= n;
    if (h->left == 0) {
        h->state = next;
    }
    return GPN_HTTP_BODY;
}

/* After a chunk's size line. */
static void gpn_http_size_end(gpn_http *h)
{
    if (h->left > 0) {
        h->state = GPN_HTTP_IN_CHUNK;
    } else {
        h->line_start = h->head.len;
        h->head.max = h->head.len + h->limits.max_trailer;
        h->state = GPN_HTTP_IN_TRAILERS;
    }
}

/* One byte of a chunk's size line; NULL, or what is wrong (RFC 9112 7.1). */
static const char *gpn_http_size_byte(gpn_http *h, char c)
{
    int digit = gpn_hex_value(c);
    if (h->state == GPN_HTTP_IN_SIZE) {
        if (digit >= 0) {
            if (h->left > (uint64_t)INT64_MAX >> 4) {
                return "a chunk of absurd size";
            }
            h->left = h->left * 16 + (unsigned)digit;
            h->overhead += ++h->digits > 16 ? 1 : 0;
            return NULL;
        }
        if (h->digits == 0) {
            return "a chunk without a size";
        }
        h->state = GPN_HTTP_IN_PADDING;
    }
    if (c == '\r') {
        h->state = GPN_HTTP_IN_SIZE_LF;
        return NULL;
    }
    h->overhead++;
    if (c == '\n' || c == '\0') {
        return "a chunk size without CRLF";
    }
    if (c == ';') {
        h->state = GPN_HTTP_IN_EXTENSION;
    } else if (h->state == GPN_HTTP_IN_PADDING && c != ' ' && c != '\t') {
        return "a chunk size that is not hex";
    }
    return NULL;
}

/* One byte of the lines round a chunk. */
static gpn_http_event gpn_http_chunk_byte(gpn_http *h, char c)
{
    const char *why = NULL;
    switch (h->state) {
    case GPN_HTTP_IN_CHUNK_CR:
        h->state = GPN_HTTP_IN_CHUNK_LF;
        why = c == '\r' ? NULL : "no CRLF after a chunk";
        break;
    case GPN_HTTP_IN_SIZE_LF:
    case GPN_HTTP_IN_CHUNK_LF:
        if (c != '\n') {
            why = "a CR without LF round a chunk";
        } else if (h->state == GPN_HTTP_IN_SIZE_LF) {
            gpn_http_size_end(h);
        } else {
            h->left = h->digits = 0;
            h->state = GPN_HTTP_IN_SIZE;
        }
        break;
    default:
        why = gpn_http_size_byte(h, c);
        break;
    }
    if (why != NULL) {
        return gpn_http_malformed(h, why);
    }
    return h->overhead > h->limits.max_chunk_overhead
               ? gpn_http_too_much(h, "chunk extensions longer than 64 KiB")
               : GPN_HTTP_MORE;
}

/* Reads on to the next event. data is what is new; *used says how much of it
 * was consumed. Call again with the rest after HEAD, INTERIM and BODY, also
 * when nothing is left: DONE may need no further byte. */
static gpn_http_event gpn_http_next(gpn_http *h, const char *data, size_t len,
                                    size_t *used, gptner_str *body,
                                    gptner_error *err)
{
    gpn_http_input in;
    gpn_http_event event = GPN_HTTP_MORE;
    in.data = data;
    in.len = len;
    in.at = 0;
    in.body = body;
    h->err = err;
    body->ptr = NULL;
    body->len = 0;
    if (h->state == GPN_HTTP_BROKEN) {
        event = gpn_http_malformed(h, "read after a failure");
    } else if (h->state == GPN_HTTP_COMPLETE) {
        event = GPN_HTTP_DONE;
    }
    h->started = h->started || len > 0;
    while (event == GPN_HTTP_MORE && in.at < len) {
        switch (h->state) {
        case GPN_HTTP_IN_STATUS:
        case GPN_HTTP_IN_HEADERS:
        case GPN_HTTP_IN_TRAILERS:
            event = gpn_http_read_line(h, &in);
            break;
        case GPN_HTTP_IN_COUNTED:
            event = gpn_http_take(h, &in, GPN_HTTP_COMPLETE);
            break;
        case GPN_HTTP_IN_REST:
            h->left = UINT64_MAX;
            event = gpn_http_take(h, &in, GPN_HTTP_IN_REST);
            break;
        case GPN_HTTP_IN_CHUNK:
            event = gpn_http_take(h, &in, GPN_HTTP_IN_CHUNK_CR);
            break;
        default:
            event = gpn_http_chunk_byte(h, data[in.at++]);
            break;
        }
    }
    *used = in.at;
    return event;
}

/* The connection ended; clean: in an orderly way (TLS: close_notify, plain TCP:
 * FIN). DONE only if that is how this response ends. */
static gpn_http_event gpn_http_eof(gpn_http *h, bool clean, gptner_error *err)
{
    const char *why = "the connection ended before the end of the body";
    h->err = err;
    switch (h->state) {
    case GPN_HTTP_COMPLETE:
        return GPN_HTTP_DONE;
    case GPN_HTTP_BROKEN:
        return gpn_http_malformed(h, "read after a failure");
    case GPN_HTTP_IN_REST:
        if (clean) {
            h->state = GPN_HTTP_COMPLETE;
            return GPN_HTTP_DONE;
        }
        why = "the connection broke off; the body may be incomplete";
        break;
    case GPN_HTTP_IN_STATUS:
    case GPN_HTTP_IN_HEADERS:
        why = h->started ? "the connection ended within the head"
                         : "the connection ended before a response came";
        break;
    default:
        break;
    }
    return gpn_http_fail(h, GPTNER_ERR_CONNECTION_LOST, why);
}

/* ---- server-sent events -------------------------------------------------- */

typedef enum gpn_sse_event {
    GPN_SSE_MORE, /* all was consumed */
    GPN_SSE_EVENT,
    GPN_SSE_FAILED
} gpn_sse_event;

/* Valid until the next call. data is the parser's own memory: it may be
 * changed in place, and a NUL stands after it. */
typedef struct gpn_sse_message {
    gptner_str type; /* "message" when the server named none */
    gptner_str data;
    gptner_str id; /* the last one sent, also with an earlier event */
} gpn_sse_message;

enum {
    GPN_SSE_LINE, /* the beginning of a line whose end has not come */
    GPN_SSE_DATA, /* of the event being read, an LF after each line */
    GPN_SSE_TYPE,
    GPN_SSE_ID,
    GPN_SSE_TEXTS
};

/* WHATWG HTML 9.2.6. Invalid UTF-8 is passed on as it came. */
typedef struct gpn_sse {
    int64_t retry_ms; /* -1: none sent */
    bool begun;       /* past the first line, which may have a BOM */
    bool after_cr;    /* an LF would belong to the last line's end */
    bool skipping;    /* in a comment, which is not kept */
    bool handed_out;
    gpn_buf text[GPN_SSE_TEXTS];
} gpn_sse;

/* max_event bounds a line and an event, each. */
static void gpn_sse_init(gpn_sse *s, const gpn_env *env, size_t max_event)
{
    int i;
    memset(s, 0, sizeof(*s));
    s->retry_ms = -1;
    for (i = 0; i < GPN_SSE_TEXTS; i++) {
        gpn_buf_init(&s->text[i], env, max_event);
    }
}

static GPN_NOINLINE void gpn_sse_reset(gpn_sse *s)
{
    int i;
    for (i = 0; i < GPN_SSE_TEXTS; i++) {
        gpn_buf_clear(&s->text[i]);
    }
    s->retry_ms = -1;
    s->begun = s->after_cr = s->skipping = s->handed_out = false;
}

static GPN_NOINLINE void gpn_sse_deinit(gpn_sse *s)
{
    int i;
    for (i = 0; i < GPN_SSE_TEXTS; i++) {
        gpn_buf_deinit(&s->text[i]);
    }
}

static void gpn_sse_field(gpn_sse *s, gptner_str name, gptner_str value)
{
    static const char names[GPN_SSE_TEXTS][6] = {"", "data", "event", "id"};
    int64_t ms;
    int i;
    for (i = GPN_SSE_DATA; i < GPN_SSE_TEXTS; i++) {
        gpn_buf *text = &s->text[i];
        if (!gpn_str_eq_c(name, names[i])) {
            continue;
        }
        if (i == GPN_SSE_DATA) {
            gpn_buf_add_str(text, value);
            gpn_buf_add_c(text, '\n');
        } else if (i == GPN_SSE_TYPE || value.len == 0 ||
                   memchr(value.ptr, '\0', value.len) == NULL) {
            gpn_buf_clear(text);
            gpn_buf_add_str(text, value);
        }
        return;
    }
    if (gpn_str_eq_c(name, "retry") && gpn_digits_parse(value, &ms)) {
        s->retry_ms = ms;
    }
}

/* True when the line was empty and an event is to be handed out. */
static GPN_NOINLINE bool gpn_sse_line(gpn_sse *s, gptner_str line)
{
    const char *colon;
    gptner_str value = GPN_ZERO;
    if (!s->begun && gpn_str_starts(line, "\xef\xbb\xbf")) {
        line.ptr += 3;
        line.len -= 3;
    }
    s->begun = true;
    if (line.len == 0) {
        s->handed_out = true;
        return s->text[GPN_SSE_DATA].len > 0;
    }
    colon = (const char *)memchr(line.ptr, ':', line.len);
    if (colon != NULL) {
        value = gpn_str(colon + 1, line.len - (size_t)(colon - line.ptr) - 1);
        line.len -= value.len + 1;
        if (value.len > 0 && *value.ptr == ' ') {
            value.ptr++;
            value.len--;
        }
    }
    if (line.len > 0) {
        gpn_sse_field(s, line, value);
    }
    return false;
}

static gpn_sse_event gpn_sse_fail(const gpn_sse *s, gptner_error *err)
{
    int i;
    for (i = 0; i < GPN_SSE_TEXTS; i++) {
        gptner_status status = s->text[i].status;
        if (status != GPTNER_OK) {
            gpn_fail(err, status, "event stream: %s",
                     status == GPTNER_ERR_NO_MEMORY
                         ? "out of memory"
                         : "an event longer than max_body_bytes");
            return GPN_SSE_FAILED;
        }
    }
    return GPN_SSE_MORE;
}

/* The line that ends with these bytes, completed by what was kept of it. */
static gptner_str gpn_sse_whole(gpn_sse *s, const char *data, size_t len)
{
    gpn_buf *kept = &s->text[GPN_SSE_LINE];
    if (s->skipping) {
        return gpn_str(":", 1);
    }
    if (kept->len > 0) {
        gpn_buf_add(kept, data, len);
        return gpn_str(kept->data, kept->len);
    }
    if (len > kept->max && *data != ':') {
        kept->status = GPTNER_ERR_LIMIT; /* as if it had come in pieces */
    }
    return gpn_str(data, len);
}

static void gpn_sse_hand_out(gpn_sse *s, gpn_sse_message *out)
{
    gpn_buf *data = &s->text[GPN_SSE_DATA];
    const gpn_buf *type = &s->text[GPN_SSE_TYPE], *id = &s->text[GPN_SSE_ID];
    data->data[--data->len] = '\0'; /* instead of the last LF */
    out->data = gpn_str(data->data, data->len);
    out->type =
        type->len > 0 ? gpn_str(type->data, type->len) : gpn_str("message", 7);
    out->id = gpn_str(id->len > 0 ? id->data : "", id->len);
}

/* Reads on to the next event. Loop while *used is below len. */
static gpn_sse_event gpn_sse_next(gpn_sse *s, const char *data, size_t len,
                                  size_t *used, gpn_sse_message *out,
                                  gptner_error *err)
{
    size_t at = 0, i;
    bool event = false;
    memset(out, 0, sizeof(*out));
    while (at < len && !event) {
        if (s->handed_out) {
            gpn_buf_clear(&s->text[GPN_SSE_DATA]);
            gpn_buf_clear(&s->text[GPN_SSE_TYPE]);
            s->handed_out = false;
        }
        if (s->after_cr && data[at] == '\n') {
            at++;
            s->after_cr = false;
            continue;
        }
        s->after_cr = false;
        for (i = at; i < len && data[i] != '\n' && data[i] != '\r'; i++) {
        }
        if (i < len) {
            event = gpn_sse_line(s, gpn_sse_whole(s, data + at, i - at));
            s->after_cr = data[i] == '\r';
            s->text[GPN_SSE_LINE].len = 0;
            s->skipping = false;
            i++;
        } else if (!s->skipping) {
            s->skipping = s->text[GPN_SSE_LINE].len == 0 && data[at] == ':';
            if (!s->skipping) {
                gpn_buf_add(&s->text[GPN_SSE_LINE], data + at, i - at);
            }
        }
        at = i;
        if (gpn_sse_fail(s, err) != GPN_SSE_MORE) {
            *used = at;
            return GPN_SSE_FAILED;
        }
    }
    *used = at;
    if (event) {
        gpn_sse_hand_out(s, out);
    }
    return event ? GPN_SSE_EVENT : GPN_SSE_MORE;
}

/* ---- multipart/form-data (RFC 7578) -------------------------------------- */

typedef struct gpn_multipart_piece {
    size_t head_end; /* where the part's head ends in text */
    int64_t size;    /* of the content */
} gpn_multipart_piece;

typedef struct gpn_multipart {
    const gpn_env *env;
    const gptner_part *parts; /* borrowed */
    size_t n_parts;
    int64_t length; /* of the whole body */
    gpn_buf text;   /* all heads and the tail, without the contents */
    gpn_multipart_piece *pieces;
    /* how far it was read */
    size_t part; /* n_parts: in the tail */
    size_t text_at;
    int64_t content_at;
    bool file_open;
    gpn_file file;
    gptner_upload_fn sent_fn; /* told what was read; NULL: nobody */
    void *sent_user;
    int64_t sent;
    char boundary[48]; /* for the field Content-Type */
} gpn_multipart;

static void gpn_multipart_shut(gpn_multipart *m)
{
    int oserr;
    if (m->file_open) {
        gpn_file_close(&m->file, &oserr); /* was only read */
        m->file_open = false;
    }
}

/* Back to the beginning, for a resend. */
static void gpn_multipart_rewind(gpn_multipart *m)
{
    gpn_multipart_shut(m);
    m->part = 0;
    m->text_at = 0;
    m->content_at = 0;
    m->sent = 0;
}

static void gpn_multipart_deinit(gpn_multipart *m)
{
    if (m->env != NULL) {
        gpn_multipart_rewind(m);
        gpn_buf_deinit(&m->text);
        gpn_mem_free(m->env, m->pieces);
        memset(m, 0, sizeof(*m));
    }
}

/* In quotes, escaped as browsers do (WHATWG form submission). */
static void gpn_multipart_quote(gpn_buf *out, const char *text)
{
    gpn_buf_add_c(out, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"') {
            gpn_buf_add_s(out, "%22");
        } else if (*text == '\r' || *text == '\n') {
            gpn_buf_add_s(out, *text == '\r' ? "%0D" : "%0A");
        } else {
            gpn_buf_add_c(out, *text);
        }
    }
    gpn_buf_add_c(out, '"');
}

static void gpn_multipart_delimiter(gpn_multipart *m)
{
    gpn_buf_add_s(&m->text, m->text.len > 0 ? "\r\n--" : "--");
    gpn_buf_add_s(&m->text, m->boundary);
}

static void gpn_multipart_head(gpn_multipart *m, const gptner_part *part)
{
    gpn_buf *out = &m->text;
    const char *type = part->content_type;
    gpn_multipart_delimiter(m);
    gpn_buf_add_s(out, "\r\nContent-Disposition: form-data; name=");
    gpn_multipart_quote(out, part->name);
    if (part->filename != NULL) {
        gpn_buf_add_s(out, "; filename=");
        gpn_multipart_quote(out, part->filename);
        type = type != NULL ? type : "application/octet-stream";
    }
    gpn_buf_add_s(out, "\r\n");
    if (type != NULL) {
        gpn_http_header_c(out, "Content-Type", type);
    }
    gpn_buf_add_s(out, "\r\n");
}

static gptner_status gpn_multipart_file_error(gptner_error *err,
                                              const char *path,
                                              const char *what, int oserr)
{
    char text[64];
    return gpn_fail(err, GPTNER_ERR_FILE, "upload %s: %s%s%s", path, what,
                    oserr != 0 ? ": " : "",
                    oserr != 0 ? gpn_os_text(oserr, text, sizeof(text)) : "");
}

/* Open the file of a part unless it is. */
static gptner_status gpn_multipart_open(gpn_multipart *m, const char *path,
                                        gptner_error *err)
{
    int oserr = 0;
    if (!m->file_open && !gpn_file_open_read(&m->file, m->env, path, &oserr)) {
        return gpn_multipart_file_error(err, path, "cannot open", oserr);
    }
    m->file_open = true;
    return GPTNER_OK;
}

/* The size of a part's content, asked before a byte is sent. */
static gptner_status gpn_multipart_size(gpn_multipart *m,
                                        const gptner_part *part, int64_t *size,
                                        gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    *size = (int64_t)part->value.len;
    if (part->path != NULL) {
        status = gpn_multipart_open(m, part->path, err);
        if (status == GPTNER_OK) {
            *size = gpn_file_size(&m->file);
            gpn_multipart_shut(m);
        }
        if (*size < 0) {
            status = gpn_multipart_file_error(
                err, part->path, "has no size; only a regular file can be sent",
                0);
        }
    }
    return status;
}

/* The body becomes n bytes longer. */
static GPN_NOINLINE gptner_status gpn_multipart_grow(gpn_multipart *m,
                                                     int64_t n,
                                                     gptner_error *err)
{
    if (n > INT64_MAX - m->length) {
        return gpn_fail(err, GPTNER_ERR_LIMIT, "multipart: too long");
    }
    m->length += n;
    return GPTNER_OK;
}

static gptner_status gpn_multipart_build(gpn_multipart *m, gptner_error *err)
{
    size_t i;
    for (i = 0; i < m->n_parts; i++) {
        const gptner_part *part = &m->parts[i];
        gptner_status status;
        if (part->name == NULL) {
            return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                            "multipart: part %u has no name", (unsigned)i);
        }
        status = gpn_multipart_size(m, part, &m->pieces[i].size, err);
        if (status == GPTNER_OK) {
            status = gpn_multipart_grow(m, m->pieces[i].size, err);
        }
        if (status != GPTNER_OK) {
            return status;
        }
        gpn_multipart_head(m, part);
        m->pieces[i].head_end = m->text.len;
    }
    gpn_multipart_delimiter(m);
    gpn_buf_add_s(&m->text, "--\r\n");
    if (m->text.status != GPTNER_OK) {
        return gpn_fail(err, m->text.status, "multipart: heads of the parts");
    }
    return gpn_multipart_grow(m, (int64_t)m->text.len, err);
}

/* parts, their strings and values are borrowed until deinit. On success length
 * is what will be read, to the byte. */
static GPN_NOINLINE gptner_status gpn_multipart_init(gpn_multipart *m,
                                                     const gpn_env *env,
                                                     const gptner_part *parts,
                                                     size_t n,
                                                     gptner_error *err)
{
    enum { TEXT_MAX = 1 << 24 }; /* bytes of all heads; far above any use */
    uint64_t a = gpn_random_u64(env), b = gpn_random_u64(env);
    gptner_status status;
    size_t bytes;
    memset(m, 0, sizeof(*m));
    m->env = env;
    m->parts = parts;
    m->n_parts = n;
    gpn_buf_init(&m->text, env, TEXT_MAX);
    gpn_format(m->boundary, sizeof(m->boundary), "gptner-%08x%08x%08x%08x",
               (unsigned)(a >> 32), (unsigned)(a & 0xffffffffu),
               (unsigned)(b >> 32), (unsigned)(b & 0xffffffffu));
    if (gpn_size_mul(n, sizeof(*m->pieces), &bytes)) {
        m->pieces = (gpn_multipart_piece *)gpn_mem_alloc(env, bytes);
    }
    if (m->pieces == NULL) {
        status = gpn_fail(err, GPTNER_ERR_NO_MEMORY, "multipart: no memory");
    } else {
        status = gpn_multipart_build(m, err);
    }
    if (status != GPTNER_OK) {
        gpn_multipart_deinit(m);
    }
    return status;
}

/* Up to cap bytes of the current part's content into out. */
static gptner_status gpn_multipart_content(gpn_multipart *m, char *out,
                                           size_t cap, size_t *got,
                                           gptner_error *err)
{
    const gptner_part *part = &m->parts[m->part];
    int64_t left = m->pieces[m->part].size - m->content_at;
    int64_t n = left < (int64_t)cap ? left : (int64_t)cap;
    int oserr = 0;
    if (part->path == NULL) {
        memcpy(out, part->value.ptr + m->content_at, (size_t)n);
    } else {
        gptner_status status = gpn_multipart_open(m, part->path, err);
        if (status != GPTNER_OK) {
            return status;
        }
        n = gpn_file_read(&m->file, out, (size_t)n, &oserr);
        if (n <= 0) {
            /* Padding would send other content than the file's. */
            return gpn_multipart_file_error(
                err, part->path,
                n < 0 ? "cannot read" : "became shorter while it was sent",
                n < 0 ? oserr : 0);
        }
    }
    m->content_at += n;
    *got = (size_t)n;
    return GPTNER_OK;
}

/* The next bytes of the body, at most cap (above 0); *got 0: the end. */
static gptner_status gpn_multipart_read(gpn_multipart *m, char *out, size_t cap,
                                        size_t *got, gptner_error *err)
{
    size_t at = 0;
    *got = 0;
    while (at < cap) {
        bool tail = m->part == m->n_parts;
        size_t end = tail ? m->text.len : m->pieces[m->part].head_end;
        size_t n = end - m->text_at;
        if (n > 0) {
            n = n < cap - at ? n : cap - at;
            memcpy(out + at, m->text.data + m->text_at, n);
            m->text_at += n;
            at += n;
        } else if (tail) {
            break;
        } else if (m->content_at < m->pieces[m->part].size) {
            gptner_status status =
                gpn_multipart_content(m, out + at, cap - at, &n, err);
            if (status != GPTNER_OK) {
                return status;
            }
            at += n;
        } else {
            gpn_multipart_shut(m);
            m->part++;
            m->content_at = 0;
        }
    }
    *got = at;
    m->sent += (int64_t)at;
    if (m->sent_fn != NULL && at > 0) {
        m->sent_fn(m->sent, m->length, m->sent_user);
    }
    return GPTNER_OK;
}

/* ---- proxy --------------------------------------------------------------- */

/* "10.0.0.0/8", "::1", "192.0.2.7": an address or a range of them. */
static bool gpn_no_proxy_address(gptner_str entry, const unsigned char *host,
                                 int host_len)
{
    const char *slash = (const char *)memchr(entry.ptr, '/', entry.len);
    unsigned char bytes[16];
    char text[64];
    int64_t bits = host_len * 8;
    int i;
    if (slash != NULL) {
        size_t n = (size_t)(slash - entry.ptr);
        if (!gpn_digits_parse(gpn_str(slash + 1, entry.len - n - 1), &bits)) {
            return false;
        }
        entry.len = n;
    }
    if (entry.len >= sizeof(text) || host_len == 0) {
        return false;
    }
    memcpy(text, entry.ptr, entry.len);
    text[entry.len] = '\0';
    if (gpn_addr_bytes(text, bytes) != host_len || bits > host_len * 8) {
        return false;
    }
    for (i = 0; bits > 0; i++, bits -= 8) {
        unsigned mask = bits >= 8 ? 0xffu : (0xffu << (8 - bits)) & 0xffu;
        if (((unsigned)(host[i] ^ bytes[i]) & mask) != 0) {
            return false;
        }
    }
    return true;
}

/* Cuts ":port" and brackets off. False: the port is another one. */
static bool gpn_no_proxy_port(gptner_str *entry, int port)
{
    const char *end = entry->ptr + entry->len;
    const char *colon = (const char *)memchr(entry->ptr, ':', entry->len);
    int64_t number = port;
    if (entry->ptr[0] == '[') {
        const char *close = (const char *)memchr(entry->ptr, ']', entry->len);
        if (close == NULL) {
            return false;
        }
        colon = close + 1 < end && close[1] == ':' ? close + 1 : NULL;
        entry->ptr++;
        entry->len = (size_t)(close - entry->ptr);
    } else if (colon != NULL &&
               memchr(colon + 1, ':', (size_t)(end - colon - 1)) == NULL) {
        entry->len = (size_t)(colon - entry->ptr);
    } else {
        return true; /* no port, or a bare IPv6 address */
    }
    return colon == NULL ||
           (gpn_digits_parse(gpn_str(colon + 1, (size_t)(end - colon - 1)),
                             &number) &&
            number == port);
}

/* A name matches itself and, on a dot boundary, what lies below it. */
static bool gpn_no_proxy_name(gptner_str entry, const char *name)
{
    size_t len = strlen(name);
    if (gpn_str_starts(entry, "*.")) {
        entry.ptr++;
        entry.len--;
    }
    if (entry.len > 0 && entry.ptr[0] == '.') {
        entry.ptr++;
        entry.len--;
    }
    if (entry.len > 0 && entry.ptr[entry.len - 1] == '.') {
        entry.len--;
    }
    if (entry.len == 0 || entry.len > len) {
        return false;
    }
    name += len - entry.len;
    return gpn_str_ieq_c(entry, name) && (entry.len == len || name[-1] == '.');
}

/* Is target in a NO_PROXY list? Addresses are compared with literals only:
 * nothing is looked up. */
static bool gpn_no_proxy_match(gptner_str list, const gpn_url *target)
{
    unsigned char host[16];
    int host_len = gpn_addr_bytes(target->name, host);
    gptner_str entry;
    while (gpn_list_next(&list, &entry)) {
        if (gpn_str_eq_c(entry, "*")) {
            return true;
        }
        if (entry.len == 0 || !gpn_no_proxy_port(&entry, target->port) ||
            entry.len == 0) {
            continue;
        }
        if (host_len > 0 ? gpn_no_proxy_address(entry, host, host_len)
                         : gpn_no_proxy_name(entry, target->name)) {
            return true;
        }
    }
    return false;
}

static const char *gpn_env_either(const char *lower, const char *upper)
{
    const char *value = gpn_env_get(lower);
    return value != NULL ? value : gpn_env_get(upper);
}

/* HTTP_PROXY in capitals is not read: a CGI program gets it from the request
 * header "Proxy" of whoever calls it. */
static const char *gpn_proxy_from_environment(bool tls)
{
    const char *value = tls ? gpn_env_either("https_proxy", "HTTPS_PROXY")
                            : gpn_env_get("http_proxy");
    return value != NULL ? value : gpn_env_either("all_proxy", "ALL_PROXY");
}

/* Which proxy leads to target. cfg_proxy and cfg_no_proxy NULL: what the
 * environment says; cfg_proxy "": none. proxy_out is all zero (host NULL) when
 * the way is direct, and on failure. */
static gptner_status gpn_proxy_for(const gpn_env *env, const char *cfg_proxy,
                                   const char *cfg_no_proxy,
                                   const gpn_url *target, gpn_url *proxy_out,
                                   gptner_error *err)
{
    gptner_status status;
    gptner_str text;
    size_t at;
    memset(proxy_out, 0, sizeof(*proxy_out));
    if (cfg_proxy == NULL) {
        cfg_proxy = gpn_proxy_from_environment(target->tls);
    }
    if (cfg_no_proxy == NULL) {
        cfg_no_proxy = gpn_env_either("no_proxy", "NO_PROXY");
    }
    if (cfg_proxy == NULL || cfg_proxy[0] == '\0' ||
        gpn_no_proxy_match(gpn_str_c(cfg_no_proxy), target)) {
        return GPTNER_OK;
    }
    text = gpn_str_c(cfg_proxy);
    at = gpn_str_find(text, "://");
    if (at != SIZE_MAX) {
        if (!gpn_str_istarts(text, "http://")) {
            return gpn_fail(err, GPTNER_ERR_UNSUPPORTED,
                            "proxy: only http:// proxies are supported, not "
                            "socks or https; check the proxy setting");
        }
        text.ptr += at + 3;
        text.len -= at + 3;
    }
    status = gpn_url_parse_rest(env, text, false, proxy_out, err);
    if (status != GPTNER_OK) {
        return gpn_fail(
            err, status == GPTNER_ERR_NO_MEMORY ? status : GPTNER_ERR_CONFIG,
            "proxy: not understood; it looks like "
            "http://user:password@host:port");
    }
    return GPTNER_OK;
}

/* ---- HTTP-date (RFC 9110 5.6.7) ------------------------------------------ */

/* Index of the three letters at p in a list of such, or -1. */
static int gpn_date_word(const char *p, const char *list)
{
    int i;
    for (i = 0; list[3 * i] != '\0'; i++) {
        if (memcmp(p, list + 3 * i, 3) == 0) {
            return i;
        }
    }
    return -1;
}

enum {
    GPN_DATE_YEAR,
    GPN_DATE_MONTH,
    GPN_DATE_DAY,
    GPN_DATE_HOUR,
    GPN_DATE_MINUTE,
    GPN_DATE_SECOND,
    GPN_DATE_WEEKDAY,
    GPN_DATE_FIELDS
};

/* Matches text against a pattern: w weekday and m month of three letters, d
 * day, e day padded by a space, y year of two and Y of four digits, h i s the
 * time; the rest as it stands. */
static bool gpn_date_match(gptner_str text, const char *pattern, int *fields)
{
    static const char codes[] = "Yymdehisw";
    static const char widths[] = "423222223";
    static const unsigned char targets[] = {
        GPN_DATE_YEAR,   GPN_DATE_YEAR,   GPN_DATE_MONTH,
        GPN_DATE_DAY,    GPN_DATE_DAY,    GPN_DATE_HOUR,
        GPN_DATE_MINUTE, GPN_DATE_SECOND, GPN_DATE_WEEKDAY};
    const char *p = text.ptr, *end = text.ptr + text.len;
    for (; *pattern != '\0'; pattern++) {
        const char *code = strchr(codes, *pattern);
        int n = code != NULL ? widths[code - codes] - '0' : 1, value;
        if (end - p < n) {
            return false;
        }
        if (code == NULL) {
            value = *p == *pattern ? 0 : -1;
        } else if (*code == 'w') {
            value = gpn_date_word(p, "MonTueWedThuFriSatSun");
        } else if (*code == 'm') {
            value = gpn_date_word(p, "JanFebMarAprMayJunJulAugSepOctNovDec");
        } else {
            bool padded = *code == 'e' && *p == ' ';
            value = gpn_digits_fixed(p + padded, n - padded);
        }
        if (value < 0) {
            return false;
        }
        if (code != NULL) {
            fields[targets[code - codes]] = value;
        }
        p += n;
    }
    return p == end;
}

/* "Monday, " and so on at the front, or nothing, is cut off. */
static void gpn_date_skip_long_weekday(gptner_str *text)
{
    static const char *const rest[] = {
        "day, ", "sday, ", "nesday, ", "rsday, ", "day, ", "urday, ", "day, "};
    int day =
        text->len > 3 ? gpn_date_word(text->ptr, "MonTueWedThuFriSatSun") : -1;
    gptner_str tail = gpn_str(text->ptr + 3, day >= 0 ? text->len - 3 : 0);
    if (day >= 0 && gpn_str_starts(tail, rest[day])) {
        size_t n = strlen(rest[day]);
        *text = gpn_str(tail.ptr + n, tail.len - n);
    }
}

/* Days from 1970-01-01 in the Gregorian calendar; year from 1 on. */
static int64_t gpn_date_days(int year, int month, int day)
{
    /* Years that begin in March put the leap day last. */
    int64_t y = month < 2 ? year - 1 : year;
    int shifted = (month + 10) % 12;
    int64_t in_year = (153 * shifted + 2) / 5 + day - 1;
    return y * 365 + y / 4 - y / 100 + y / 400 + in_year - 719468;
}

/* The three forms of an HTTP-date. A wrong weekday does not matter: the rest
 * says which instant is meant. */
static bool gpn_http_date(gptner_str text, int64_t *unix_s)
{
    int f[GPN_DATE_FIELDS] = GPN_ZERO, year, month;
    int64_t first, next;
    gptner_str rest = text;
    if (!gpn_date_match(text, "w, d m Y h:i:s GMT", f) &&
        !gpn_date_match(text, "w m e h:i:s Y", f)) {
        gpn_date_skip_long_weekday(&rest);
        if (rest.len == text.len ||
            !gpn_date_match(rest, "d-m-y h:i:s GMT", f)) {
            return false;
        }
        /* Two digits: 1969 to 2068, as POSIX has it. */
        f[GPN_DATE_YEAR] += f[GPN_DATE_YEAR] < 69 ? 2000 : 1900;
    }
    year = f[GPN_DATE_YEAR];
    month = f[GPN_DATE_MONTH];
    first = gpn_date_days(year, month, 1);
    next = gpn_date_days(year + (month + 1) / 12, (month + 1) % 12, 1);
    if (year < 1 || f[GPN_DATE_DAY] < 1 || f[GPN_DATE_DAY] > next - first ||
        f[GPN_DATE_HOUR] > 23 || f[GPN_DATE_MINUTE] > 59 ||
        f[GPN_DATE_SECOND] > 60) { /* a leap second */
        return false;
    }
    *unix_s = (first + f[GPN_DATE_DAY] - 1) * 86400 + f[GPN_DATE_HOUR] * 3600 +
              f[GPN_DATE_MINUTE] * 60 + f[GPN_DATE_SECOND];
    return true;
}

/* ---------------------------------------------------------------------------
 * http, part 2: a connection and its exchange
 *
 * A gpn_conn carries one exchange at a time over a connection that it keeps.
 * gpn_conn_step() never blocks: it takes readiness and the clock, moves as far
 * as it can, and leaves in `until` when it must be called at the latest. The
 * states run
 *   CONNECT (resolve, race) -> [TUNNEL: CONNECT to the proxy] -> [HANDSHAKE]
 *   -> SEND -> RECEIVE -> IDLE
 * A kept connection starts at SEND. The received bytes pass through a buffer
 * of the thread, not of the connection: the parser takes all that it is given.
 * ------------------------------------------------------------------------ */

typedef struct gpn_request {
    const gpn_peer *peer; /* outlives the exchange */
    bool is_head;         /* method HEAD */
    bool repeatable;      /* may be sent again though it may have arrived */
    bool bulk;            /* as long as it moves: no limit of the attempt */
    gpn_buf head;         /* complete, with Content-Length and empty line */
    gpn_buf body;
    gpn_multipart *parts; /* NULL: body is the body */
} gpn_request;

/* What an attempt came to. Valid until the connection's next exchange. */
typedef struct gpn_reply {
    gptner_status status; /* OK: a whole response arrived */
    gptner_error *error;  /* filled when status is not OK */
    int http_status;      /* also when only the head arrived; 0: none */
    gpn_http *http;       /* the head, when http_status is not 0 */
    char *body;           /* mutable, NUL after; empty when it was diverted */
    size_t body_len;
    int64_t body_bytes; /* received, wherever they went */
    bool handed_over;   /* body_fn got at least a byte */
    bool reused;        /* the connection had served a request before */
    bool reusable;
    bool sent; /* a byte of the request was written */
    int64_t latency_ms;
    int64_t now_ms;
    int64_t unix_ms;
} gpn_reply;

/* What the owner of an exchange decides while it goes on. */
typedef struct gpn_sink {
    /* May a request be sent again at once? NULL: yes. */
    bool (*resend_fn)(void *ctx, int64_t now);
    /* Shall this body go to body_fn instead of memory? NULL: no. */
    bool (*divert_fn)(void *ctx, const gpn_http *http);
    gptner_status (*body_fn)(void *ctx, const char *data, size_t len,
                             gptner_error *err);
    void *ctx;
} gpn_sink;

typedef struct gpn_time_limits { /* milliseconds; INT64_MAX: none */
    int64_t connect_ms;
    int64_t handshake_ms;
    int64_t first_byte_ms;
    int64_t gap_ms;
    int64_t attempt_ms;
} gpn_time_limits;

/* What all connections of a client share. */
typedef struct gpn_link {
    const gpn_env *env;
    gpn_tls *tls;
    gpn_resolver *resolver;
    const gptner_transport *transport;
    gpn_time_limits times;
    gpn_http_limits http;
    size_t max_body;
} gpn_link;

typedef enum gpn_phase {
    GPN_PHASE_IDLE,
    GPN_PHASE_CONNECT,
    GPN_PHASE_TUNNEL_SEND,
    GPN_PHASE_TUNNEL_RECEIVE,
    GPN_PHASE_HANDSHAKE,
    GPN_PHASE_SEND,
    GPN_PHASE_RECEIVE
} gpn_phase;

enum {
    GPN_RECORD = 16384,       /* bytes; largest TLS record, RFC 8446 5.1 */
    GPN_IDLE_MS = 50000,      /* shorter than the idle limits of servers */
    GPN_PROBE_IDLE_MS = 1000, /* idle longer: look before writing */
    GPN_HEAD_CAP = 1 << 20,   /* bytes; a request head, ours */
    GPN_REOPEN_MAX = 3        /* fresh connections within one attempt */
};

/* The buffer that a thread receives into. */
typedef struct gpn_scratch {
    char data[GPN_RECORD];
} gpn_scratch;

typedef struct gpn_conn { /* what is used most is within a short offset */
    const gpn_peer *peer; /* of the open connection; NULL: closed */
    const gpn_link *link;
    gpn_phase phase;
    int reopened;    /* within this attempt */
    unsigned served; /* exchanges over this connection */
    bool whole;      /* the response is complete */
    bool diverted;
    bool early;    /* the response came before the request was sent */
    bool was_open; /* the exchange began on a kept connection */
    bool must_probe;
    char nothing[1]; /* an empty body */
    /* the part of the request that is being sent */
    const char *out;
    size_t out_len;
    size_t body_sent;
    /* times: gpn_clock_ms() */
    int64_t phase_ms;    /* when the phase began */
    int64_t progress_ms; /* last byte that moved */
    int64_t sent_ms;     /* first byte of the request */
    int64_t received;    /* bytes of this exchange's response */
    int64_t until;       /* step at the latest then; INT64_MAX: never */
    gptner_error error;
    gpn_request request;
    gpn_stream stream;
    gpn_reply reply;
    gpn_sink sink; /* divert_fn NULL: all bodies to memory */
    gpn_buf body;
    gpn_buf upload; /* a piece of a multipart body; the CONNECT request */
    gpn_http http;
    int64_t started_ms;
    int64_t hard_ms; /* caller's limit */
    int64_t idle_ms; /* since when it is idle */
    int64_t idle_limit_ms;
    /* counted for the run's summary, cleared by the pool */
    unsigned opened;
    unsigned resumed;
    unsigned resent;
} gpn_conn;

static GPN_NOINLINE void gpn_conn_init(gpn_conn *c, const gpn_link *link,
                                       gpn_poller *poller, void *tag)
{
    memset(c, 0, sizeof *c);
    c->link = link;
    gpn_stream_init(&c->stream, link->env, poller, tag);
    gpn_http_init(&c->http, link->env);
    gpn_buf_init(&c->request.head, link->env, GPN_HEAD_CAP);
    gpn_buf_init(&c->request.body, link->env, SIZE_MAX / 2);
    gpn_buf_init(&c->body, link->env, SIZE_MAX / 2);
    gpn_buf_init(&c->upload, link->env, GPN_HEAD_CAP);
    c->request.head.secret = true; /* it holds the key, */
    c->upload.secret = true;       /* and this perhaps the proxy's password */
    c->phase = GPN_PHASE_IDLE;
    c->until = INT64_MAX;
}

static void gpn_conn_close(gpn_conn *c)
{
    if (c->peer != NULL) {
        gpn_stream_close(&c->stream);
    }
    c->peer = NULL;
    c->served = 0;
}

static void gpn_conn_deinit(gpn_conn *c)
{
    gpn_conn_close(c);
    gpn_http_deinit(&c->http);
    gpn_buf_deinit(&c->request.head);
    gpn_buf_deinit(&c->request.body);
    gpn_buf_deinit(&c->body);
    gpn_buf_deinit(&c->upload);
}

/* Give back the memory of an unusually large exchange. */
static void gpn_conn_trim(gpn_conn *c)
{
    if (c->body.cap > 4 * GPN_RECORD) {
        gpn_buf_deinit(&c->body);
        gpn_buf_init(&c->body, c->link->env, SIZE_MAX / 2);
    }
    if (c->request.body.cap > 4 * GPN_RECORD) {
        gpn_buf_deinit(&c->request.body);
        gpn_buf_init(&c->request.body, c->link->env, SIZE_MAX / 2);
    }
}

static GPN_NOINLINE int64_t gpn_time_add(int64_t t, int64_t ms)
{
    return ms > INT64_MAX - t ? INT64_MAX : t + ms;
}

static int64_t gpn_time_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static GPN_NOINLINE void gpn_conn_enter(gpn_conn *c, gpn_phase phase,
                                        int64_t now)
{
    c->phase = phase;
    c->phase_ms = now;
    c->progress_ms = now;
}

typedef struct gpn_phase_limit {
    char what[55];
    bool moves; /* from the last byte that moved, not from the phase's begin */
    uint16_t time; /* in gpn_time_limits */
} gpn_phase_limit;

/* By gpn_phase; behind them that of a response which has begun. */
static const gpn_phase_limit gpn_phase_limits[] = {
    {"", false, 0},
    {"connect (connect_timeout_ms)", false,
     offsetof(gpn_time_limits, connect_ms)},
    {"CONNECT to the proxy (handshake_timeout_ms)", false,
     offsetof(gpn_time_limits, handshake_ms)},
    {"CONNECT to the proxy (handshake_timeout_ms)", false,
     offsetof(gpn_time_limits, handshake_ms)},
    {"TLS handshake (handshake_timeout_ms)", false,
     offsetof(gpn_time_limits, handshake_ms)},
    {"sending the request (gap_timeout_ms)", true,
     offsetof(gpn_time_limits, gap_ms)},
    {"waiting for the first byte (first_byte_timeout_ms)", false,
     offsetof(gpn_time_limits, first_byte_ms)},
    {"waiting for more of the response (gap_timeout_ms)", true,
     offsetof(gpn_time_limits, gap_ms)}};

/* The deadline of the present phase, and its name for the message. */
static int64_t gpn_conn_deadline(const gpn_conn *c, const char **what)
{
    const gpn_time_limits *t = &c->link->times;
    bool begun = c->phase == GPN_PHASE_RECEIVE && c->received > 0;
    const gpn_phase_limit *limit = &gpn_phase_limits[c->phase + begun];
    int64_t all = c->request.bulk ? INT64_MAX
                                  : gpn_time_add(c->started_ms, t->attempt_ms);
    int64_t own =
        gpn_time_add(limit->moves ? c->progress_ms : c->phase_ms,
                     *(const int64_t *)((const char *)t + limit->time));
    *what = limit->what;
    if (c->phase == GPN_PHASE_IDLE) {
        return INT64_MAX;
    }
    if (all < own) {
        *what = "the whole attempt (timeout_ms)";
        own = all;
    }
    if (c->hard_ms < own) {
        *what = "the prompt or the run as a whole";
        own = c->hard_ms;
    }
    return own;
}

/* End the exchange. status OK: a whole response; otherwise c->error tells. */
static bool gpn_conn_finish(gpn_conn *c, gptner_status status, int64_t now)
{
    gpn_reply *r = &c->reply;
    r->status = status;
    r->error = &c->error;
    r->http = &c->http;
    c->nothing[0] = '\0';
    r->body = c->nothing;
    if (c->body.len > 0) { /* gpn_conn_take_body() kept room for the NUL */
        r->body = c->body.data;
        r->body[c->body.len] = '\0';
    }
    r->body_len = c->body.len;
    r->reused = c->was_open;
    r->now_ms = now;
    r->unix_ms = gpn_clock_unix_ms(c->link->env);
    r->latency_ms = c->sent_ms != 0 ? now - c->sent_ms : 0;
    r->sent = c->sent_ms != 0;
    c->phase = GPN_PHASE_IDLE;
    c->until = INT64_MAX;
    c->idle_ms = now;
    c->served++;
    if (status != GPTNER_OK || !r->reusable) {
        gpn_conn_close(c);
    }
    return true;
}

static bool gpn_conn_fail(gpn_conn *c, int64_t now)
{
    if (c->error.status == GPTNER_OK) {
        gpn_fail(&c->error, GPTNER_ERR_CONNECTION_LOST,
                 "exchange with %s:%d: failed for an unknown reason",
                 c->request.peer->host, c->request.peer->port);
    }
    c->reply.reusable = false;
    return gpn_conn_finish(c, c->error.status, now);
}

static bool gpn_conn_open(gpn_conn *c, int64_t now)
{
    const char *what;
    gpn_conn_close(c);
    if (gpn_stream_open(&c->stream, c->request.peer, c->link->resolver,
                        c->link->tls, c->link->transport,
                        &c->error) != GPTNER_OK) {
        return false;
    }
    c->peer = c->request.peer;
    c->was_open = false;
    c->must_probe = false;
    gpn_conn_enter(c, GPN_PHASE_CONNECT, now);
    c->stream.limit_at = gpn_conn_deadline(c, &what);
    return true;
}

/* Open the connection anew within the same attempt: after a kept connection
 * was found closed, or when the stream asks for it. false: too often. */
static bool gpn_conn_reopen(gpn_conn *c, int64_t now)
{
    if (c->reopened >= GPN_REOPEN_MAX) {
        return false;
    }
    c->reopened++;
    memset(&c->error, 0, sizeof c->error);
    return gpn_conn_open(c, now);
}

/* Point out/out_len to the first piece: the head, joined by as much of the
 * body as fits one record, so that a small request is one write. */
static bool gpn_conn_rewind(gpn_conn *c)
{
    gpn_request *q = &c->request;
    size_t head = q->head.len;
    size_t room = head < GPN_RECORD ? GPN_RECORD - head : 0;
    size_t joined = q->body.len < room ? q->body.len : room;
    c->body_sent = 0;
    c->received = 0;
    c->early = false;
    c->whole = false;
    if (q->parts != NULL) {
        gpn_multipart_rewind(q->parts);
        joined = 0;
    }
    if (!gpn_buf_reserve(&q->head, joined)) {
        gpn_fail(&c->error, q->head.status, "request to %s: out of memory",
                 q->peer->host);
        return false;
    }
    if (joined > 0) { /* behind the head, but not part of head.len */
        memcpy(q->head.data + head, q->body.data, joined);
    }
    c->body_sent = joined;
    c->out = q->head.data;
    c->out_len = head + joined;
    return true;
}

/* The next piece of the body. false: failed. out_len 0: nothing is left. */
static bool gpn_conn_refill(gpn_conn *c)
{
    gpn_request *q = &c->request;
    if (q->parts == NULL) {
        c->out_len = q->body.len - c->body_sent;
        if (c->out_len == 0) {
            return true; /* an empty body has no address to add to */
        }
        c->out = q->body.data + c->body_sent;
        if (c->out_len > GPN_RECORD) {
            c->out_len = GPN_RECORD;
        }
        c->body_sent += c->out_len;
        return true;
    }
    gpn_buf_clear(&c->upload);
    if (!gpn_buf_reserve(&c->upload, GPN_RECORD)) {
        gpn_fail(&c->error, c->upload.status, "upload: out of memory");
        return false;
    }
    c->out = c->upload.data;
    return gpn_multipart_read(q->parts, c->upload.data, GPN_RECORD, &c->out_len,
                              &c->error) == GPTNER_OK;
}

static bool gpn_conn_start_send(gpn_conn *c, int64_t now)
{
    gpn_http_reset(&c->http, c->request.is_head, false, &c->link->http);
    gpn_buf_clear(&c->body);
    c->diverted = false;
    c->reply.http_status = 0;
    c->reply.body_bytes = 0;
    c->reply.reusable = false;
    gpn_conn_enter(c, GPN_PHASE_SEND, now);
    return gpn_conn_rewind(c);
}

/* Can the open connection take this request? Probes it when it was idle for
 * long, or when a lost request could not be repeated. */
static bool gpn_conn_usable(gpn_conn *c, int64_t now)
{
    if (c->peer == NULL || c->peer != c->request.peer || c->served == 0 ||
        now - c->idle_ms >= c->idle_limit_ms) {
        return false;
    }
    if (c->must_probe || !c->request.repeatable ||
        now - c->idle_ms >= GPN_PROBE_IDLE_MS) {
        c->must_probe = false;
        return gpn_stream_alive(&c->stream);
    }
    return true;
}

/* Begin the exchange that c->request describes; gpn_conn_step() follows. */
static void gpn_conn_begin(gpn_conn *c, int64_t now, int64_t hard_ms)
{
    bool ok;
    memset(&c->error, 0, sizeof c->error);
    c->error.retry_after_ms = -1;
    memset(&c->reply, 0, sizeof c->reply);
    c->started_ms = now;
    c->sent_ms = 0;
    c->whole = false;
    c->hard_ms = hard_ms;
    c->reopened = 0;
    c->received = 0;
    c->was_open = gpn_conn_usable(c, now);
    ok = c->was_open ? gpn_conn_start_send(c, now) : gpn_conn_open(c, now);
    if (!ok) {
        c->phase = GPN_PHASE_SEND; /* the step finds c->error set */
    }
    c->until = now;
}

/* --- the steps: GPN_IO_DONE leads on to the next phase --- */

/* "host:port", as CONNECT and its Host field want it. */
static void gpn_conn_write_connect(gpn_buf *out, const gpn_peer *peer)
{
    char where[300];
    bool v6 = strchr(peer->host, ':') != NULL;
    gptner_str target;
    target.len = gpn_format(where, sizeof where, "%s%s%s:%d", v6 ? "[" : "",
                            peer->host, v6 ? "]" : "", peer->port);
    target.ptr = where;
    gpn_buf_clear(out);
    gpn_http_begin(out, "CONNECT", target);
    gpn_http_header(out, "Host", target);
    if (peer->proxy_auth != NULL) {
        gpn_http_header_c(out, "Proxy-Authorization", peer->proxy_auth);
    }
    gpn_http_end_head(out);
}

static gpn_io gpn_conn_step_connect(gpn_conn *c, int64_t now)
{
    gpn_io io = gpn_stream_connect(&c->stream, now, &c->error);
    if (io != GPN_IO_DONE) {
        return io;
    }
    c->opened++;
    if (!c->peer->tls) {
        return gpn_conn_start_send(c, now) ? GPN_IO_DONE : GPN_IO_FAILED;
    }
    if (c->peer->proxy_host != NULL) {
        gpn_conn_write_connect(&c->upload, c->peer);
        if (c->upload.status != GPTNER_OK) {
            gpn_fail(&c->error, c->upload.status,
                     "CONNECT through proxy %s: cannot be written",
                     c->peer->proxy_host);
            return GPN_IO_FAILED;
        }
        c->out = c->upload.data;
        c->out_len = c->upload.len;
        gpn_http_reset(&c->http, false, true, &c->link->http);
        gpn_conn_enter(c, GPN_PHASE_TUNNEL_SEND, now);
        return GPN_IO_DONE;
    }
    gpn_conn_enter(c, GPN_PHASE_HANDSHAKE, now);
    return gpn_stream_start_tls(&c->stream, &c->error);
}

/* Send c->out; DONE when it is gone. */
static gpn_io gpn_conn_send_out(gpn_conn *c, int64_t now)
{
    while (c->out_len > 0) {
        size_t sent = 0;
        gpn_io io =
            gpn_stream_send(&c->stream, c->out, c->out_len, &sent, &c->error);
        if (io != GPN_IO_DONE) {
            return io;
        }
        if (c->phase == GPN_PHASE_SEND && c->sent_ms == 0) {
            c->sent_ms = now;
        }
        c->progress_ms = now;
        c->out += sent;
        c->out_len -= sent;
    }
    return GPN_IO_DONE;
}

static gpn_io gpn_conn_step_tunnel_send(gpn_conn *c, int64_t now)
{
    gpn_io io = gpn_conn_send_out(c, now);
    if (io == GPN_IO_DONE) {
        c->phase = GPN_PHASE_TUNNEL_RECEIVE; /* one limit for both */
    }
    return io;
}

static gpn_io gpn_conn_tunnel_refused(gpn_conn *c)
{
    int code = c->http.status;
    gpn_fail(&c->error, GPTNER_ERR_PROXY,
             "CONNECT %s:%d through proxy %s:%d: the proxy answered %d%s",
             c->peer->host, c->peer->port, c->peer->proxy_host,
             c->peer->proxy_port, code,
             code == 407 ? "; it wants user:password in the proxy URL" : "");
    c->error.http_status = code;
    return GPN_IO_FAILED;
}

/* Read the proxy's answer. Its status decides; a 2xx has no body, and nothing
 * may follow before our ClientHello. */
static gpn_io gpn_conn_step_tunnel_receive(gpn_conn *c, int64_t now,
                                           gpn_scratch *scratch)
{
    size_t got = 0;
    size_t at = 0;
    gpn_io io = gpn_stream_recv(&c->stream, scratch->data, sizeof scratch->data,
                                &got, &c->error);
    if (io == GPN_IO_EOF) {
        gpn_fail(&c->error, GPTNER_ERR_PROXY,
                 "CONNECT through proxy %s:%d: closed without an answer",
                 c->peer->proxy_host, c->peer->proxy_port);
        return GPN_IO_FAILED;
    }
    if (io != GPN_IO_DONE) {
        return io;
    }
    for (;;) {
        size_t used = 0;
        gptner_str piece;
        gpn_http_event ev = gpn_http_next(&c->http, scratch->data + at,
                                          got - at, &used, &piece, &c->error);
        at += used;
        if (ev == GPN_HTTP_FAILED) {
            return GPN_IO_FAILED;
        }
        if (ev == GPN_HTTP_HEAD && c->http.status / 100 != 2) {
            return gpn_conn_tunnel_refused(c);
        }
        if (ev == GPN_HTTP_DONE) {
            if (at < got) {
                gpn_fail(&c->error, GPTNER_ERR_PROXY,
                         "CONNECT through proxy %s:%d: bytes after its answer",
                         c->peer->proxy_host, c->peer->proxy_port);
                return GPN_IO_FAILED;
            }
            gpn_conn_enter(c, GPN_PHASE_HANDSHAKE, now);
            return gpn_stream_start_tls(&c->stream, &c->error);
        }
        if (ev == GPN_HTTP_MORE) {
            return GPN_IO_DONE; /* receive again */
        }
    }
}

static gpn_io gpn_conn_step_handshake(gpn_conn *c, int64_t now)
{
    gpn_io io = gpn_stream_handshake(&c->stream, now, &c->error);
    if (io != GPN_IO_DONE) {
        return io;
    }
    if (gpn_stream_resumed(&c->stream)) {
        c->resumed++;
    }
    return gpn_conn_start_send(c, now) ? GPN_IO_DONE : GPN_IO_FAILED;
}

static GPN_NOINLINE gptner_status gpn_conn_body_too_long(gpn_conn *c)
{
    return gpn_fail(&c->error, GPTNER_ERR_LIMIT,
                    "response of %s: body longer than max_body_bytes (%zu)",
                    c->peer->host, c->link->max_body);
}

static gptner_status gpn_conn_take_body(gpn_conn *c, gptner_str piece)
{
    c->reply.body_bytes += (int64_t)piece.len;
    if (c->diverted) {
        c->reply.handed_over = true;
        return c->sink.body_fn(c->sink.ctx, piece.ptr, piece.len, &c->error);
    }
    if (piece.len > c->link->max_body - c->body.len) {
        return gpn_conn_body_too_long(c);
    }
    if (!gpn_buf_reserve(&c->body, piece.len + 1)) { /* 1: a NUL at the end */
        return gpn_fail(&c->error, c->body.status,
                        "response of %s: out of memory", c->peer->host);
    }
    gpn_buf_add(&c->body, piece.ptr, piece.len);
    return GPTNER_OK;
}

static gptner_status gpn_conn_take_head(gpn_conn *c)
{
    c->reply.http_status = c->http.status;
    c->diverted =
        c->sink.divert_fn != NULL && c->sink.divert_fn(c->sink.ctx, &c->http);
    if (!c->diverted && !c->request.is_head && c->http.content_length > 0 &&
        (uint64_t)c->http.content_length > c->link->max_body) {
        return gpn_conn_body_too_long(c);
    }
    return GPTNER_OK;
}

/* A whole response is there: may the connection carry another one? */
static void gpn_conn_judge_reuse(gpn_conn *c, size_t leftover)
{
    int64_t limit = GPN_IDLE_MS;
    gptner_str hint = gpn_http_find(&c->http, "keep-alive");
    size_t at = hint.ptr != NULL ? gpn_str_ifind(hint, "timeout=") : SIZE_MAX;
    if (at != SIZE_MAX) {
        int64_t seconds = 0;
        for (at += 8; at < hint.len && seconds < 100000; at++) {
            if (hint.ptr[at] < '0' || hint.ptr[at] > '9') {
                break;
            }
            seconds = seconds * 10 + (hint.ptr[at] - '0');
        }
        limit = gpn_time_min(limit, (seconds - 1) * 1000);
    }
    c->idle_limit_ms = limit;
    /* Without TLS anything that follows is a fault; with it, a ticket may. */
    c->must_probe = gpn_stream_pending(&c->stream);
    c->reply.reusable =
        c->http.reusable && leftover == 0 && !c->early && limit > 0;
}

/* Feed received bytes to the parser. DONE: the response is whole; WANT_READ:
 * more is needed. */
static gpn_io gpn_conn_feed(gpn_conn *c, const char *data, size_t len)
{
    size_t at = 0;
    for (;;) { /* an event a call; the last is MORE or DONE */
        size_t used = 0;
        gptner_str piece = GPN_ZERO;
        gptner_status status = GPTNER_OK;
        gpn_http_event ev = gpn_http_next(&c->http, data + at, len - at, &used,
                                          &piece, &c->error);
        at += used;
        switch (ev) {
        case GPN_HTTP_FAILED:
            return GPN_IO_FAILED;
        case GPN_HTTP_HEAD:
            status = gpn_conn_take_head(c);
            break;
        case GPN_HTTP_BODY:
            status = gpn_conn_take_body(c, piece);
            break;
        case GPN_HTTP_DONE:
            gpn_conn_judge_reuse(c, len - at);
            c->whole = true;
            return GPN_IO_DONE;
        case GPN_HTTP_MORE:
            return GPN_IO_WANT_READ;
        case GPN_HTTP_INTERIM:
            break;
        }
        if (status != GPTNER_OK) {
            return GPN_IO_FAILED;
        }
    }
}

/* The stream ended. clean: by close_notify, or by FIN where there is no TLS. */
static gpn_io gpn_conn_ended(gpn_conn *c, bool clean)
{
    gptner_error ignored;
    gpn_http_event ev;
    if (c->received == 0) {
        if (c->error.status == GPTNER_OK) {
            gpn_fail(&c->error, GPTNER_ERR_CONNECTION_LOST,
                     "%s:%d closed the connection without a response",
                     c->peer->host, c->peer->port);
        }
        return GPN_IO_FAILED;
    }
    ev = gpn_http_eof(&c->http, clean,
                      c->error.status == GPTNER_OK ? &c->error : &ignored);
    if (ev == GPN_HTTP_DONE) {
        c->reply.reusable = false;
        c->whole = true;
        memset(&c->error, 0, sizeof c->error);
        return GPN_IO_DONE;
    }
    return GPN_IO_FAILED;
}

static gpn_io gpn_conn_step_receive(gpn_conn *c, int64_t now,
                                    gpn_scratch *scratch)
{
    for (;;) {
        size_t got = 0;
        gpn_io io = gpn_stream_recv(&c->stream, scratch->data,
                                    sizeof scratch->data, &got, &c->error);
        if (io == GPN_IO_EOF || io == GPN_IO_FAILED) {
            return gpn_conn_ended(c, io == GPN_IO_EOF);
        }
        if (io != GPN_IO_DONE) {
            return io;
        }
        c->received += (int64_t)got;
        c->progress_ms = now;
        io = gpn_conn_feed(c, scratch->data, got);
        if (io != GPN_IO_WANT_READ) {
            return io;
        }
        if (got < sizeof scratch->data && c->link->transport == NULL &&
            !gpn_stream_pending(&c->stream)) {
            return GPN_IO_WANT_READ; /* the poller tells when there is more */
        }
    }
}

/* Sending is stuck or failed: has the server answered already? (RFC 9112 9.5)
 * DONE: yes, the phase is now RECEIVE. */
static gpn_io gpn_conn_early_reply(gpn_conn *c, int64_t now,
                                   gpn_scratch *scratch)
{
    gptner_error ignored; /* that of sending stays */
    size_t got = 0;
    gpn_io io = gpn_stream_recv(&c->stream, scratch->data, sizeof scratch->data,
                                &got, &ignored);
    if (io != GPN_IO_DONE) {
        return io;
    }
    c->early = true;
    c->received += (int64_t)got;
    gpn_conn_enter(c, GPN_PHASE_RECEIVE, now);
    return gpn_conn_feed(c, scratch->data, got);
}

static gpn_io gpn_conn_step_send(gpn_conn *c, int64_t now, unsigned ready,
                                 gpn_scratch *scratch)
{
    for (;;) {
        gpn_io io = gpn_conn_send_out(c, now);
        if (io == GPN_IO_FAILED ||
            (io != GPN_IO_DONE && (ready & GPN_POLL_IN) != 0)) {
            gpn_io early = gpn_conn_early_reply(c, now, scratch);
            if (c->phase == GPN_PHASE_RECEIVE) {
                memset(&c->error, 0, sizeof c->error);
                c->error.retry_after_ms = -1;
                return early;
            }
            return io == GPN_IO_FAILED || early == GPN_IO_EOF ||
                           early == GPN_IO_FAILED
                       ? GPN_IO_FAILED
                       : io;
        }
        if (io != GPN_IO_DONE) {
            return io;
        }
        if (!gpn_conn_refill(c)) {
            return GPN_IO_FAILED;
        }
        if (c->out_len == 0) {
            gpn_conn_enter(c, GPN_PHASE_RECEIVE, now);
            return c->link->transport != NULL ? GPN_IO_DONE : GPN_IO_WANT_READ;
        }
    }
}

/* A failed step: may the exchange go on over a fresh connection, unnoticed?
 * The rule for a kept connection that the server had closed is that not one
 * byte of a response came, and that the request may be repeated or was not
 * written (https: RFC 9110 9.2.2, RFC 9112 9.3.1). */
static bool gpn_conn_second_chance(gpn_conn *c, int64_t now)
{
    bool stale =
        c->was_open && c->received == 0 &&
        c->error.status == GPTNER_ERR_CONNECTION_LOST &&
        (c->request.repeatable || c->sent_ms == 0) &&
        (c->sink.resend_fn == NULL || c->sink.resend_fn(c->sink.ctx, now));
    bool asked =
        c->peer != NULL && c->stream.retry_connect &&
        (c->phase == GPN_PHASE_CONNECT || c->phase == GPN_PHASE_HANDSHAKE);
    if (!stale && !asked) {
        return false;
    }
    if (!gpn_conn_reopen(c, now)) {
        return false;
    }
    if (stale) {
        c->resent++;
    }
    return true;
}

static bool gpn_conn_timed_out(gpn_conn *c, int64_t now, const char *what)
{
    gpn_fail(&c->error, GPTNER_ERR_TIMEOUT,
             "%s:%d: timed out after %lld ms: %s", c->request.peer->host,
             c->request.peer->port, (long long)(now - c->started_ms), what);
    return gpn_conn_fail(c, now);
}

static gpn_io gpn_conn_step_phase(gpn_conn *c, int64_t now, unsigned ready,
                                  gpn_scratch *scratch)
{
    switch (c->phase) {
    case GPN_PHASE_CONNECT:
        return gpn_conn_step_connect(c, now);
    case GPN_PHASE_TUNNEL_SEND:
        return gpn_conn_step_tunnel_send(c, now);
    case GPN_PHASE_TUNNEL_RECEIVE:
        return gpn_conn_step_tunnel_receive(c, now, scratch);
    case GPN_PHASE_HANDSHAKE:
        return gpn_conn_step_handshake(c, now);
    case GPN_PHASE_SEND:
        return gpn_conn_step_send(c, now, ready, scratch);
    case GPN_PHASE_RECEIVE:
        return gpn_conn_step_receive(c, now, scratch);
    case GPN_PHASE_IDLE:
        break;
    }
    return GPN_IO_WANT_READ;
}

/* Move the exchange as far as it goes. true: it ended, c->reply tells how.
 * Data that has arrived is always taken before a deadline is looked at, so a
 * thread that comes late does not fail what was in time. */
static GPN_NOINLINE bool gpn_conn_step(gpn_conn *c, int64_t now, unsigned ready,
                                       gpn_scratch *scratch)
{
    const char *what = "";
    int64_t deadline;
    gpn_io io;
    do {
        if (c->error.status != GPTNER_OK) {
            return gpn_conn_fail(c, now);
        }
        io = gpn_conn_step_phase(c, now, ready, scratch);
        if (io == GPN_IO_DONE && c->whole) {
            return gpn_conn_finish(c, GPTNER_OK, now);
        }
        if (io == GPN_IO_FAILED || io == GPN_IO_EOF) {
            if (!gpn_conn_second_chance(c, now)) {
                return gpn_conn_fail(c, now);
            }
            io = GPN_IO_DONE;
        }
    } while (io == GPN_IO_DONE);
    deadline = gpn_conn_deadline(c, &what);
    if (now >= deadline) {
        return gpn_conn_timed_out(c, now, what);
    }
    c->until = deadline;
    if (c->phase == GPN_PHASE_CONNECT || c->phase == GPN_PHASE_HANDSHAKE ||
        c->link->transport != NULL) {
        c->until = gpn_time_min(deadline, c->stream.wake_at);
    }
    return false;
}

/* Drop the exchange, whatever its state. */
static void gpn_conn_abort(gpn_conn *c)
{
    if (c->phase != GPN_PHASE_IDLE) {
        gpn_conn_close(c);
        c->phase = GPN_PHASE_IDLE;
        c->until = INT64_MAX;
    }
}

/* Something happened on an idle connection: a ticket, or the server's end. */
static void gpn_conn_idle_event(gpn_conn *c)
{
    if (c->peer != NULL && !gpn_stream_alive(&c->stream)) {
        gpn_conn_close(c);
    }
}

/* ===========================================================================
 * >>pace       layer 6   what is retried, when, and the gate of all workers
 * calls: >>platform >>bytes >>http
 *
 * Decisions only: time is handed in, nothing waits here.
 *
 * The gate: one worker's 429 shuts it for all. When the pause is over, the
 * first request goes alone; the others follow one by one, a step apart, where
 * the step grows with the pause. Each success shortens the step until the gate
 * stands open again. Opening at once would send W requests in one instant into
 * a bucket that has just begun to fill: the next 429 would be certain.
 * ======================================================================== */

/* ---- delays as servers write them ---------------------------------------- */

/* ms; about 300 years. A longer wait is cut down to this, never refused: it
 * must not fall back to a short one. */
#define GPN_WAIT_MAX INT64_C(10000000000000)

static int64_t gpn_clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static bool gpn_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "12" or "1.5" times unit_ms, rounded up. */
static bool gpn_decimal_ms(gptner_str text, int64_t unit_ms, int64_t *ms)
{
    int64_t whole = 0, part = 0, scale = 1;
    size_t i = 0;
    for (; i < text.len && gpn_is_digit(text.ptr[i]); i++) {
        whole = whole * 10 + (text.ptr[i] - '0');
        whole = gpn_clamp(whole, 0, GPN_WAIT_MAX / unit_ms);
    }
    if (i == 0) {
        return false;
    }
    if (i < text.len && text.ptr[i] == '.') {
        for (i++; i < text.len && gpn_is_digit(text.ptr[i]); i++) {
            if (scale < 1000000000) {
                part = part * 10 + (text.ptr[i] - '0');
                scale *= 10;
            }
        }
    }
    *ms = whole * unit_ms + (part * unit_ms + scale - 1) / scale;
    return i == text.len;
}

/* Retry-After: seconds, also with a fraction, or an HTTP-date. */
static bool gpn_wait_parse(gptner_str retry_after, int64_t now_unix_ms,
                           int64_t *ms)
{
    int64_t unix_s;
    retry_after = gpn_str_trim(retry_after);
    if (gpn_decimal_ms(retry_after, 1000, ms)) {
        return true;
    }
    if (!gpn_http_date(retry_after, &unix_s)) {
        return false;
    }
    *ms = unix_s * 1000 > now_unix_ms ? unix_s * 1000 - now_unix_ms : 0;
    return true;
}

/* retry-after-ms: milliseconds, also with a fraction. */
static bool gpn_wait_parse_ms(gptner_str retry_after_ms, int64_t *ms)
{
    return gpn_decimal_ms(gpn_str_trim(retry_after_ms), 1, ms);
}

/* The length of the unit that text begins with; 0: none. */
static size_t gpn_duration_unit(gptner_str text, int64_t *ns)
{
    static const struct {
        char name[4];
        int64_t ns;
    } units[] = {{"ns", 1},
                 {"us", 1000},
                 {"\xc2\xb5s", 1000}, /* micro sign */
                 {"\xce\xbcs", 1000}, /* Greek mu */
                 {"ms", 1000000},
                 {"s", 1000000000},
                 {"m", INT64_C(60000000000)},
                 {"h", INT64_C(3600000000000)},
                 {"d", INT64_C(86400000000000)}};
    size_t i;
    for (i = 0; i < GPN_COUNT(units); i++) {
        if (gpn_str_starts(text, units[i].name)) {
            *ns = units[i].ns;
            return strlen(units[i].name);
        }
    }
    return 0;
}

/* One "1.5h" in nanoseconds; the number of bytes, 0: none. */
static size_t gpn_duration_term(gptner_str text, int64_t *ns)
{
    size_t i = 0, dot, unit_len;
    int64_t unit, whole = 0;
    while (i < text.len && gpn_is_digit(text.ptr[i])) {
        i++;
    }
    dot = i;
    if (i < text.len && text.ptr[i] == '.') {
        while (++i < text.len && gpn_is_digit(text.ptr[i])) {
        }
    }
    unit_len = gpn_duration_unit(gpn_str(text.ptr + i, text.len - i), &unit);
    if (unit_len == 0 || (dot == 0 && i < 2)) {
        return 0;
    }
    if (dot > 0 && (!gpn_digits_parse(gpn_str(text.ptr, dot), &whole) ||
                    whole > INT64_MAX / 4 / unit)) {
        return 0;
    }
    *ns = whole * unit;
    for (dot++; dot < i; dot++) {
        unit /= 10;
        *ns += (text.ptr[dot] - '0') * unit;
    }
    return i + unit_len;
}

/* x-ratelimit-reset-*: a Go duration such as "6m0s" or "12ms", or "0". */
static bool gpn_reset_parse_ns(gptner_str text, int64_t *ns)
{
    size_t at = 0, n;
    int64_t term;
    *ns = 0;
    if (gpn_str_eq_c(text, "0")) {
        return true;
    }
    while (at < text.len) {
        n = gpn_duration_term(gpn_str(text.ptr + at, text.len - at), &term);
        if (n == 0 || term > INT64_MAX / 2 - *ns) {
            return false;
        }
        *ns += term;
        at += n;
    }
    return at > 0;
}

/* The same in milliseconds, rounded up. */
static GPN_NOINLINE bool gpn_reset_parse(gptner_str text, int64_t *ms)
{
    int64_t ns;
    bool ok = gpn_reset_parse_ns(gpn_str_trim(text), &ns);
    *ms = ok ? (ns + 999999) / 1000000 : 0;
    return ok;
}

/* "1m2.5s. ..." or "20 seconds ...", at the start of a text. */
static bool gpn_prose_delay(gptner_str text, int64_t *ms)
{
    static const struct {
        char word[12];
        int64_t ms;
    } units[] = {{"second", 1000},
                 {"minute", 60000},
                 {"hour", 3600000},
                 {"millisecond", 1}};
    gptner_str token = text, rest;
    size_t i = 0;
    while (i < text.len && text.ptr[i] != ' ') {
        i++;
    }
    rest = gpn_str_trim(gpn_str(text.ptr + i, text.len - i));
    token.len = i;
    while (token.len > 0 && strchr(".,;!)", token.ptr[token.len - 1]) != NULL) {
        token.len--;
    }
    if (gpn_reset_parse(token, ms)) {
        return true;
    }
    for (i = 0; i < GPN_COUNT(units); i++) {
        if (gpn_str_istarts(rest, units[i].word)) {
            return gpn_decimal_ms(token, units[i].ms, ms);
        }
    }
    return false;
}

/* "... Please try again in 1m2.5s. ..." and "... retry after 20 seconds". */
static bool gpn_try_again_parse(gptner_str message, int64_t *ms)
{
    static const char *const phrases[] = {"try again in ", "retry after "};
    size_t i, at;
    for (i = 0; i < GPN_COUNT(phrases); i++) {
        at = gpn_str_ifind(message, phrases[i]);
        if (at != SIZE_MAX) {
            at += strlen(phrases[i]);
            if (gpn_prose_delay(gpn_str(message.ptr + at, message.len - at),
                                ms)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- what a reply means -------------------------------------------------- */

typedef enum gpn_class {
    GPN_CLASS_OK,
    GPN_CLASS_ADAPT,     /* repeat at once, changed */
    GPN_CLASS_THROTTLED, /* repeat later; all workers slow down */
    GPN_CLASS_TRANSIENT, /* repeat later */
    GPN_CLASS_BAD_REPLY, /* a 200 that makes no sense: repeat, rarely */
    GPN_CLASS_FAIL,      /* this item will not succeed */
    GPN_CLASS_FATAL      /* no item will */
} gpn_class;

/* The first number behind word, commas allowed: "Limit 10,000"; -1: none. */
static int64_t gpn_number_after(gptner_str text, const char *word)
{
    size_t at = gpn_str_ifind(text, word), i;
    while (at != SIZE_MAX) {
        int64_t value = 0;
        at += strlen(word);
        text = gpn_str(text.ptr + at, text.len - at);
        for (i = 0; i < text.len && (text.ptr[i] == ' ' || text.ptr[i] == ':');
             i++) {
        }
        if (i > 0 && i < text.len && gpn_is_digit(text.ptr[i])) {
            for (; i < text.len && value < GPN_WAIT_MAX &&
                   (gpn_is_digit(text.ptr[i]) || text.ptr[i] == ',');
                 i++) {
                value = text.ptr[i] == ',' ? value
                                           : value * 10 + (text.ptr[i] - '0');
            }
            return value;
        }
        at = gpn_str_ifind(text, word);
    }
    return -1;
}

/* Does one request ask for more than a whole minute's tokens? */
static bool gpn_pace_too_large(gptner_str message)
{
    int64_t limit = gpn_number_after(message, "limit");
    int64_t requested = gpn_number_after(message, "requested");
    if (limit >= 0 && requested >= 0) {
        return requested > limit;
    }
    return gpn_str_ifind(message, "request too large for") != SIZE_MAX;
}

/* What the code or type of an error says more exactly than the HTTP status;
 * GPTNER_OK: nothing. */
static gptner_status gpn_pace_word(gptner_str word)
{
    static const struct {
        const char *word;
        gptner_status status;
    } words[] = {{"insufficient_quota", GPTNER_ERR_QUOTA},
                 {"billing_hard_limit_reached", GPTNER_ERR_QUOTA},
                 {"billing_not_active", GPTNER_ERR_QUOTA},
                 {"context_length_exceeded", GPTNER_ERR_CONTEXT_LENGTH},
                 {"content_policy_violation", GPTNER_ERR_FILTERED},
                 {"content_filter", GPTNER_ERR_FILTERED},
                 {"invalid_prompt", GPTNER_ERR_FILTERED}};
    size_t i;
    for (i = 0; i < GPN_COUNT(words); i++) {
        if (gpn_str_eq_c(word, words[i].word)) {
            return words[i].status;
        }
    }
    return GPTNER_OK;
}

/* Client errors, by openai-api.md 6.2. */
static GPN_NOINLINE gpn_class gpn_pace_client_error(int http_status,
                                                    gptner_status word,
                                                    gptner_str message,
                                                    gptner_status *status)
{
    static const struct {
        int http_status;
        gptner_status status;
        gpn_class what;
    } errors[] = {
        {401, GPTNER_ERR_AUTH, GPN_CLASS_FATAL},
        {402, GPTNER_ERR_QUOTA, GPN_CLASS_FATAL}, /* elsewhere: no credit */
        {403, GPTNER_ERR_PERMISSION, GPN_CLASS_FATAL},
        {404, GPTNER_ERR_NOT_FOUND, GPN_CLASS_FAIL},
        {408, GPTNER_ERR_TIMEOUT, GPN_CLASS_TRANSIENT},
        /* a lock held for a moment; final for a cancel: api's matter */
        {409, GPTNER_ERR_HTTP, GPN_CLASS_TRANSIENT},
        {429, GPTNER_ERR_RATE_LIMITED, GPN_CLASS_THROTTLED},
        {498, GPTNER_ERR_RATE_LIMITED, GPN_CLASS_THROTTLED}}; /* Groq: full */
    size_t i;
    *status = GPTNER_ERR_BAD_REQUEST;
    if (http_status == 400) {
        if (word != GPTNER_OK) {
            *status = word;
        }
        if (gpn_str_ifind(message, "maximum context length") != SIZE_MAX) {
            *status = GPTNER_ERR_CONTEXT_LENGTH;
        }
    } else if (http_status == 429 && gpn_pace_too_large(message)) {
        *status = GPTNER_ERR_TOO_LARGE;
        return GPN_CLASS_FAIL;
    }
    for (i = 0; i < GPN_COUNT(errors); i++) {
        if (errors[i].http_status == http_status) {
            *status = errors[i].status;
            return errors[i].what;
        }
    }
    return GPN_CLASS_FAIL;
}

static gpn_class gpn_pace_server_error(int http_status, gptner_str message,
                                       gptner_status *status)
{
    *status = GPTNER_ERR_SERVER;
    if (http_status == 501) {
        *status = GPTNER_ERR_UNSUPPORTED;
        return GPN_CLASS_FAIL;
    }
    if (http_status == 529 ||
        (http_status == 503 &&
         (gpn_str_ifind(message, "slow down") != SIZE_MAX ||
          gpn_str_ifind(message, "overloaded") != SIZE_MAX))) {
        return GPN_CLASS_THROTTLED;
    }
    return GPN_CLASS_TRANSIENT;
}

/* What to do about an HTTP status and the error that came with it (none views
 * where there was none), and the status for the caller. Never ADAPT or
 * BAD_REPLY: only the api knows what it added to a request and what it
 * expects in a reply. */
static gpn_class gpn_pace_classify(int http_status, gptner_str type,
                                   gptner_str code, gptner_str message,
                                   gptner_str should_retry,
                                   gptner_status *status)
{
    gpn_class what = GPN_CLASS_FAIL;
    gptner_status word = gpn_pace_word(code);
    int hundreds = http_status / 100;
    *status = GPTNER_ERR_HTTP;
    if (http_status >= 400 &&
        (word == GPTNER_ERR_QUOTA || gpn_pace_word(type) == GPTNER_ERR_QUOTA)) {
        *status = GPTNER_ERR_QUOTA;
        return GPN_CLASS_FATAL;
    }
    if (hundreds == 2) {
        *status = GPTNER_OK;
        return GPN_CLASS_OK;
    }
    if (hundreds == 3) {
        *status = GPTNER_ERR_REDIRECT;
        return GPN_CLASS_FAIL;
    }
    if (hundreds == 4) {
        what = gpn_pace_client_error(http_status, word, message, status);
    } else if (hundreds == 5) {
        what = gpn_pace_server_error(http_status, message, status);
    }
    if (*status == GPTNER_ERR_QUOTA) {
        return what; /* no server can mean that a retry would be paid */
    }
    if (gpn_str_ieq_c(should_retry, "true")) {
        return what == GPN_CLASS_THROTTLED ? what : GPN_CLASS_TRANSIENT;
    }
    if (gpn_str_ieq_c(should_retry, "false") && what != GPN_CLASS_FATAL) {
        return GPN_CLASS_FAIL;
    }
    return what;
}

/* May a failure without a response go away by itself? */
static bool gpn_pace_retryable_status(gptner_status status)
{
    switch (status) {
    case GPTNER_ERR_TIMEOUT:
    case GPTNER_ERR_RESOLVE:
    case GPTNER_ERR_CONNECT:
    case GPTNER_ERR_CONNECTION_LOST:
    case GPTNER_ERR_TLS:
    case GPTNER_ERR_PROXY:
    case GPTNER_ERR_PROTOCOL:
        return true;
    default:
        return false;
    }
}

/* ---- retries ------------------------------------------------------------- */

enum { GPN_ADAPT_MAX = 3 /* changes of one request */ };

/* What an item has used up so far. */
typedef struct gpn_budget {
    int transient;
    int throttled;
    int bad_reply;
    int adapted;
    int attempts; /* requests sent; kept by the pool */
} gpn_budget;

typedef struct gpn_rules {
    int max_retries;
    int max_throttle_retries;
    int max_bad_reply_retries;
    int64_t backoff_ms;
    int64_t max_backoff_ms;
    int64_t max_retry_after_ms; /* negative: no limit */
} gpn_rules;

/* Before retry attempt = 0, 1, ...: min(first * 2^attempt, max), less up to a
 * quarter, as the official SDKs do it. */
static int64_t gpn_backoff(const gpn_env *env, int attempt, int64_t first_ms,
                           int64_t max_ms)
{
    int64_t ms = first_ms;
    uint64_t chance = gpn_random_u64(env) >> 32;
    for (; attempt > 0 && ms < max_ms; attempt--) {
        ms = ms <= max_ms / 2 ? ms * 2 : max_ms;
    }
    ms = ms < max_ms ? ms : max_ms;
    ms = ms < GPN_WAIT_MAX ? ms : GPN_WAIT_MAX;
    return ms - (int64_t)((uint64_t)(ms / 4 > 0xffffff ? 0xffffff : ms / 4) *
                              chance >>
                          32);
}

/* True: again after *delay_ms, and the budget is charged. False: give up. The
 * server's delay (0 or less: none) goes before ours; if it asks for more than
 * the rules allow, waiting is pointless and so is asking earlier. */
static bool gpn_pace_retry(const gpn_env *env, const gpn_rules *rules,
                           gpn_budget *budget, gpn_class what,
                           int64_t server_delay_ms, int64_t *delay_ms)
{
    int *used, most;
    *delay_ms = 0;
    switch (what) {
    case GPN_CLASS_ADAPT:
        return budget->adapted++ < GPN_ADAPT_MAX;
    case GPN_CLASS_THROTTLED:
        used = &budget->throttled;
        most = rules->max_throttle_retries;
        break;
    case GPN_CLASS_TRANSIENT:
        used = &budget->transient;
        most = rules->max_retries;
        break;
    case GPN_CLASS_BAD_REPLY:
        used = &budget->bad_reply;
        most = rules->max_bad_reply_retries;
        break;
    default:
        return false;
    }
    if (*used >= most || (rules->max_retry_after_ms >= 0 &&
                          server_delay_ms > rules->max_retry_after_ms)) {
        return false;
    }
    *delay_ms = server_delay_ms > 0 ? server_delay_ms
                                    : gpn_backoff(env, *used, rules->backoff_ms,
                                                  rules->max_backoff_ms);
    ++*used;
    return true;
}

/* ---- the gate ------------------------------------------------------------ */

enum {
    GPN_GATE_SHARE = 16,    /* the step is this part of the pause, */
    GPN_GATE_STEP_MIN = 4,  /* but at least, */
    GPN_GATE_STEP_MAX = 250 /* and at most so many ms */
};

typedef struct gpn_gate {
    gpn_mutex mutex; /* guards all that follows */
    int64_t step_ms; /* between two starts; 0: the gate is open */
    int64_t next_ms; /* no start before */
    int64_t slot_ms; /* the next time to be handed to somebody who waits */
    bool shut;       /* nobody has started since the pause */
    bool fresh;      /* the pause has not got its jitter yet */
} gpn_gate;

static bool gpn_gate_init(gpn_gate *gate)
{
    memset(gate, 0, sizeof(*gate));
    return gpn_mutex_init(&gate->mutex);
}

static void gpn_gate_deinit(gpn_gate *gate)
{
    gpn_mutex_deinit(&gate->mutex);
}

/* 0: start now. Otherwise the time at which to ask again: each caller gets
 * another one. (It may be put off once more if another 429 came meanwhile.) */
static GPN_NOINLINE int64_t gpn_gate_enter(gpn_gate *gate, const gpn_env *env,
                                           int64_t now)
{
    int64_t answer = 0, step;
    gpn_mutex_lock(&gate->mutex);
    step = gate->step_ms;
    if (step > 0) {
        if (gate->fresh) {
            /* Two clients that were throttled together part here. */
            gate->next_ms +=
                (int64_t)(gpn_random_u64(env) % ((uint64_t)step + 1));
            gate->slot_ms = gate->next_ms;
            gate->fresh = false;
        }
        if (now >= gate->next_ms) {
            /* Late comers keep the rhythm; a gap is not made up for. */
            gate->next_ms = gate->next_ms > now - step ? gate->next_ms : now;
            gate->next_ms += gate->shut ? 2 * step : step;
            gate->slot_ms =
                gate->slot_ms > gate->next_ms ? gate->slot_ms : gate->next_ms;
            gate->shut = false;
        } else {
            answer = gate->slot_ms;
            gate->slot_ms +=
                gate->shut && answer == gate->next_ms ? 2 * step : step;
        }
    }
    gpn_mutex_unlock(&gate->mutex);
    return answer;
}

/* Is there no pause now? Takes no slot. */
static bool gpn_gate_open(gpn_gate *gate, int64_t now)
{
    bool open;
    gpn_mutex_lock(&gate->mutex);
    open = gate->step_ms == 0 || now >= gate->next_ms;
    gpn_mutex_unlock(&gate->mutex);
    return open;
}

/* The server asked for a pause of delay_ms: nobody starts before it is over. */
static GPN_NOINLINE void gpn_gate_throttled(gpn_gate *gate, int64_t now,
                                            int64_t delay_ms)
{
    int64_t step;
    delay_ms = gpn_clamp(delay_ms, 1, GPN_WAIT_MAX);
    step = gpn_clamp(delay_ms / GPN_GATE_SHARE, GPN_GATE_STEP_MIN,
                     GPN_GATE_STEP_MAX);
    gpn_mutex_lock(&gate->mutex);
    if (!gate->shut && step < 2 * gate->step_ms) {
        /* Again, in the middle of the recovery. */
        step = gpn_clamp(2 * gate->step_ms, 0, GPN_GATE_STEP_MAX);
    }
    if (!gate->shut || now + delay_ms > gate->next_ms) {
        gate->step_ms = step > gate->step_ms ? step : gate->step_ms;
        gate->next_ms = now + delay_ms;
        gate->slot_ms = gate->next_ms;
        gate->shut = gate->fresh = true;
    }
    gpn_mutex_unlock(&gate->mutex);
}

/* A request succeeded: the starts may follow closer. One that was sent before
 * the pause says nothing about what comes after it. */
static void gpn_gate_succeeded(gpn_gate *gate)
{
    gpn_mutex_lock(&gate->mutex);
    if (!gate->shut) {
        gate->step_ms -= (gate->step_ms + 3) / 4;
    }
    gpn_mutex_unlock(&gate->mutex);
}

/* ===========================================================================
 * >>pool       layer 7   workers driven by threads, ordered results, progress
 * calls: >>pace >>http >>stream >>bytes >>platform
 *
 * A run has a source of works, max_workers slots (a connection each), and a
 * place to deliver. A driver is what a thread runs: a poller, a receive buffer
 * and its share of the slots; the calling thread is one of them. A free slot
 * takes a work that is due for a retry, else a new one from the source. A work
 * whose attempt failed is parked until its time, without holding a slot. A
 * finished work waits in a ring until all before it are delivered; the ring's
 * size bounds how far the run reads ahead, and so its memory.
 *
 * Drivers outlive the run with their open connections: the next call on the
 * client takes them up again.
 *
 * Stopping: soft (a hopeless error: nothing new is sent, what is in flight
 * ends by itself) or hard (cancelled, out of time: all ends now). Either way
 * every work gets its result.
 * ======================================================================== */

typedef struct gpn_work {
    size_t index;
    gpn_budget budget;
    int64_t started_ms; /* first attempt; 0: none yet */
    int64_t deadline_ms;
    int64_t due_ms; /* parked until then */
    int64_t prompt_tokens;
    int64_t completion_tokens;
    bool ok;
} gpn_work;

typedef struct gpn_work_ops {
    /* 1: *work set; 0: no more; -1: failed, err filled. Serial. */
    int (*next_fn)(void *ctx, gpn_work **work, gptner_error *err);
    /* Not OK: the work is settled with err. */
    gptner_status (*build_fn)(void *ctx, gpn_work *work, gpn_request *request,
                              gptner_error *err);
    /* NULL: every body goes to memory. Asked once a response. */
    bool (*divert_fn)(void *ctx, gpn_work *work, const gpn_http *http);
    gptner_status (*body_fn)(void *ctx, gpn_work *work, const char *data,
                             size_t len, gptner_error *err);
    /* Every attempt ends here. Fills err for every class but OK; keeps the
     * result in work for OK, FAIL and FATAL. */
    gpn_class (*judge_fn)(void *ctx, gpn_work *work, gpn_reply *reply,
                          int64_t *server_delay_ms, gptner_error *err);
    /* The work ends without a (further) attempt. Must not fail. */
    void (*settle_fn)(void *ctx, gpn_work *work, const gptner_error *err);
    /* Serial. Takes the work and frees it. false: cancel the run. */
    bool (*deliver_fn)(void *ctx, gpn_work *work);
} gpn_work_ops;

typedef struct gpn_pool_config { /* complete: no zero stands for a default */
    int max_workers;
    int max_threads; /* 0: by cores */
    size_t stack_bytes;
    gpn_rules rules;
    gpn_time_limits times;
    int64_t item_ms;
    gpn_http_limits http;
    size_t max_body;
    gpn_tls_config tls;
    const gptner_transport *transport;
} gpn_pool_config;

typedef struct gpn_run_spec {
    const gpn_work_ops *ops;
    void *ctx;
    int max_workers;  /* 0: the pool's */
    size_t max_ahead; /* 0: 1024, or 8 for each worker */
    bool as_completed;
    bool single;        /* one work, in the calling thread */
    bool drain;         /* after a stop read the source to its end */
    int64_t timeout_ms; /* 0: none */
    int64_t total;      /* -1: unknown */
    gptner_progress_fn progress_fn;
    void *progress_user;
    int progress_every_ms; /* 0: 100 */
} gpn_run_spec;

typedef struct gpn_driver gpn_driver;

typedef struct gpn_pool { /* the large members last: short offsets */
    const gpn_env *env;
    gpn_atomic cancelled;
    int made;       /* parts that are to be unmade: lock, gate, flag */
    gpn_mutex lock; /* guards idle */
    gpn_driver *idle;
    gpn_gate gate;
    gpn_flag cancel_flag; /* wakes every driver's poller */
    gpn_link link;
    gpn_pool_config config;
} gpn_pool;

enum {
    GPN_EVENTS = 64,
    GPN_DRIVERS_MAX = 64,
    GPN_GATE_PART = 8 /* of an item's own back-off, for all the others */
};

typedef enum gpn_stop { GPN_STOP_NONE, GPN_STOP_SOFT, GPN_STOP_HARD } gpn_stop;

typedef struct gpn_run { /* what is used most is within a short offset */
    gpn_mutex lock;      /* guards all from ring to why */
    const gpn_run_spec *spec;
    gpn_pool *pool;
    gpn_work **ring;
    gpn_work **parked; /* a heap by due_ms, room for max_ahead */
    size_t n_parked;
    size_t begun; /* works taken from the source */
    size_t finished;
    size_t delivered; /* handed to deliver_fn, or being so */
    size_t in_flight; /* in slots */
    bool calling;     /* a driver is in a callback: next, deliver, progress */
    bool source_ended;
    bool starved; /* a driver waits for the source or the window */
    gpn_stop stop;
    gptner_run_summary sum;
    gptner_error why; /* of the stop */
    /* these do not change while drivers run */
    size_t mask; /* of ring; its size is a power of two, >= max_ahead */
    size_t max_ahead;
    int64_t started_ms;
    int64_t deadline_ms;
    size_t n_drivers;
    gpn_driver *drivers[GPN_DRIVERS_MAX];
    /* used by the calling thread alone */
    int64_t progress_ms;
    int64_t progress_done;
    gptner_progress progress;
} gpn_run;

typedef struct gpn_slot {
    gpn_driver *driver;
    size_t number;  /* in driver->slots */
    gpn_work *work; /* NULL: free */
    bool running;   /* an exchange is under way; else it waits to start */
    gpn_conn conn;
} gpn_slot;

struct gpn_driver {
    gpn_driver *next; /* in the pool's list */
    gpn_pool *pool;
    gpn_run *run;
    gpn_poller poller;
    gpn_thread thread;
    gpn_slot **slots;
    int64_t *until; /* of each slot; INT64_MAX: nothing is due */
    size_t n_slots;
    size_t used; /* slots that this run may fill */
    size_t n_free;
    int64_t requests;
    int64_t throttled;
    bool muted; /* the cancel flag was seen, and is not watched any more */
    gpn_scratch scratch;
};

/* --- drivers and slots --- */

static void gpn_driver_free(gpn_driver *d)
{
    const gpn_env *env = d->pool->env;
    size_t i;
    for (i = 0; i < d->n_slots; i++) {
        gpn_conn_deinit(&d->slots[i]->conn);
        gpn_mem_free(env, d->slots[i]);
    }
    gpn_mem_free(env, d->slots);
    gpn_mem_free(env, d->until);
    gpn_bell_remove(gpn_resolver_bell(d->pool->link.resolver), &d->poller);
    gpn_poller_deinit(&d->poller);
    gpn_mem_free(env, d);
}

static gpn_driver *gpn_driver_new(gpn_pool *pool)
{
    gpn_driver *d = (gpn_driver *)gpn_mem_zalloc(pool->env, sizeof *d);
    if (d == NULL) {
        return NULL;
    }
    d->pool = pool;
    d->muted = true;
    if (!gpn_poller_init(&d->poller, pool->env)) {
        gpn_mem_free(pool->env, d);
        return NULL;
    }
    if (!gpn_bell_add(gpn_resolver_bell(pool->link.resolver), &d->poller)) {
        gpn_poller_deinit(&d->poller);
        gpn_mem_free(pool->env, d);
        return NULL;
    }
    return d;
}

/* Watch the cancel flag, or not: it stays raised, and would wake for ever. */
static bool gpn_driver_mute(gpn_driver *d, bool mute)
{
    if (d->muted != mute) {
        if (!gpn_poller_set(&d->poller, gpn_flag_fd(&d->pool->cancel_flag),
                            mute ? 0 : GPN_POLL_IN, &d->pool->cancel_flag)) {
            return false;
        }
        d->muted = mute;
    }
    return true;
}

static bool gpn_driver_add_slot(gpn_driver *d)
{
    const gpn_env *env = d->pool->env;
    gpn_slot *slot = (gpn_slot *)gpn_mem_zalloc(env, sizeof *slot);
    if (slot == NULL) {
        return false;
    }
    gpn_conn_init(&slot->conn, &d->pool->link, &d->poller, slot);
    slot->driver = d;
    slot->number = d->n_slots;
    d->until[d->n_slots] = INT64_MAX;
    d->slots[d->n_slots++] = slot;
    return true;
}

/* Let the driver use n slots. false: it has fewer; used tells how many. */
static bool gpn_driver_resize(gpn_driver *d, size_t n)
{
    const gpn_env *env = d->pool->env;
    if (n > d->n_slots) {
        void *slots = gpn_mem_realloc(env, d->slots, n * sizeof *d->slots);
        void *until = NULL;
        if (slots != NULL) {
            d->slots = (gpn_slot **)slots;
            until = gpn_mem_realloc(env, d->until, n * sizeof *d->until);
        }
        if (until != NULL) {
            d->until = (int64_t *)until;
            while (d->n_slots < n && gpn_driver_add_slot(d)) {
            }
        }
    }
    d->used = n < d->n_slots ? n : d->n_slots;
    d->n_free = d->used;
    return d->used == n;
}

static GPN_NOINLINE gpn_driver *gpn_pool_take_driver(gpn_pool *pool)
{
    gpn_driver *d;
    gpn_mutex_lock(&pool->lock);
    d = pool->idle;
    if (d != NULL) {
        pool->idle = d->next;
    }
    gpn_mutex_unlock(&pool->lock);
    return d != NULL ? d : gpn_driver_new(pool);
}

static void gpn_pool_put_driver(gpn_pool *pool, gpn_driver *d)
{
    size_t i;
    for (i = 0; i < d->n_slots; i++) {
        gpn_conn_trim(&d->slots[i]->conn);
    }
    d->run = NULL;
    gpn_mutex_lock(&pool->lock);
    d->next = pool->idle;
    pool->idle = d;
    gpn_mutex_unlock(&pool->lock);
}

/* --- the run: parked works, source, delivery. Names end in _locked where the
 *     caller holds run->lock. --- */

static void gpn_run_park_locked(gpn_run *run, gpn_work *work)
{
    gpn_work **heap = run->parked;
    size_t i = run->n_parked++;
    while (i > 0 && heap[(i - 1) / 2]->due_ms > work->due_ms) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = work;
}

static gpn_work *gpn_run_unpark_locked(gpn_run *run)
{
    gpn_work **heap = run->parked;
    gpn_work *top = heap[0];
    gpn_work *last = heap[--run->n_parked];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= run->n_parked) {
            break;
        }
        if (child + 1 < run->n_parked &&
            heap[child + 1]->due_ms < heap[child]->due_ms) {
            child++;
        }
        if (heap[child]->due_ms >= last->due_ms) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static bool gpn_run_over_locked(const gpn_run *run)
{
    return run->source_ended && run->in_flight == 0 && run->n_parked == 0 &&
           run->delivered == run->begun && !run->calling;
}

static bool gpn_run_over(gpn_run *run)
{
    bool over;
    gpn_mutex_lock(&run->lock);
    over = gpn_run_over_locked(run);
    gpn_mutex_unlock(&run->lock);
    return over;
}

/* Wake the drivers; their list does not change while they run. */
static void gpn_run_wake(gpn_run *run)
{
    size_t i;
    for (i = 0; i < run->n_drivers; i++) {
        gpn_poller_wake(&run->drivers[i]->poller);
    }
}

static void gpn_run_stop(gpn_run *run, gpn_stop stop, const gptner_error *why)
{
    bool first;
    gpn_mutex_lock(&run->lock);
    first = run->stop == GPN_STOP_NONE;
    if (first) {
        run->why = *why;
    }
    if (stop > run->stop) {
        run->stop = stop;
    }
    gpn_mutex_unlock(&run->lock);
    gpn_run_wake(run);
    if (first && why->status != GPTNER_ERR_CANCELLED) {
        gpn_log(run->pool->env, GPTNER_LOG_ERROR, "run stopped: %s",
                why->message);
    }
}

/* Hand over what is next in the ring. One driver at a time does so, without
 * the lock, and goes on as long as there is something. Who is in another
 * callback does it afterwards. */
static void gpn_run_deliver_locked(gpn_run *run)
{
    bool moved = false;
    if (run->calling) {
        return;
    }
    run->calling = true;
    for (;;) {
        gpn_work **place = &run->ring[run->delivered & run->mask];
        gpn_work *work = *place;
        bool go_on;
        if (work == NULL) {
            break;
        }
        *place = NULL;
        run->delivered++;
        moved = true;
        gpn_mutex_unlock(&run->lock);
        go_on = run->spec->ops->deliver_fn(run->spec->ctx, work);
        if (!go_on) {
            gptner_error why;
            gpn_fail(&why, GPTNER_ERR_CANCELLED,
                     "run cancelled by the receiver of its results");
            gpn_run_stop(run, GPN_STOP_HARD, &why);
        }
        gpn_mutex_lock(&run->lock);
    }
    run->calling = false;
    if (moved && run->starved) {
        run->starved = false;
        gpn_run_wake(run);
    }
}

/* Take a new work from the source; the lock is released meanwhile. */
static gpn_work *gpn_run_read_locked(gpn_run *run)
{
    gpn_work *work = NULL;
    gptner_error err = GPN_ZERO;
    bool wake;
    int got;
    run->calling = true;
    gpn_mutex_unlock(&run->lock);
    got = run->spec->ops->next_fn(run->spec->ctx, &work, &err);
    if (got < 0) {
        gpn_run_stop(run, GPN_STOP_SOFT, &err);
    }
    gpn_mutex_lock(&run->lock);
    run->calling = false;
    if (got > 0) {
        work->index = run->begun++;
    } else {
        work = NULL;
        run->source_ended = true;
    }
    gpn_run_deliver_locked(run); /* what became ready meanwhile */
    wake = run->starved || run->source_ended;
    run->starved = false;
    if (wake) {
        gpn_run_wake(run);
    }
    return work;
}

/* A work for a free slot, or NULL; *again is then when to ask next. After a
 * stop (*stop) it hands out what there is, whatever its time, to be settled. */
static gpn_work *gpn_run_take(gpn_run *run, int64_t now, int64_t *again,
                              gpn_stop *stop)
{
    gpn_work *work = NULL;
    *again = INT64_MAX;
    gpn_mutex_lock(&run->lock);
    if (run->stop != GPN_STOP_NONE && !run->spec->drain && !run->calling) {
        run->source_ended = true;
    }
    if (run->n_parked > 0 &&
        (run->parked[0]->due_ms <= now || run->stop != GPN_STOP_NONE)) {
        work = gpn_run_unpark_locked(run);
    } else if (!run->source_ended) {
        if (!run->calling && run->begun - run->delivered < run->max_ahead) {
            work = gpn_run_read_locked(run);
        } else {
            run->starved = true;
        }
    }
    if (work != NULL) {
        run->in_flight++;
    } else if (run->n_parked > 0) {
        *again = run->parked[0]->due_ms;
    }
    *stop = run->stop;
    gpn_mutex_unlock(&run->lock);
    return work;
}

static void gpn_run_count_locked(gpn_run *run, const gpn_work *work)
{
    if (work->ok) {
        run->sum.ok++;
    } else {
        run->sum.failed++;
    }
    run->sum.prompt_tokens += work->prompt_tokens;
    run->sum.completion_tokens += work->completion_tokens;
}

/* The work has its result. */
static void gpn_run_finish(gpn_run *run, gpn_work *work)
{
    size_t place;
    gpn_mutex_lock(&run->lock);
    gpn_run_count_locked(run, work);
    place = run->spec->as_completed ? run->finished : work->index;
    run->finished++;
    run->in_flight--;
    run->ring[place & run->mask] = work;
    gpn_run_deliver_locked(run);
    if (gpn_run_over_locked(run)) {
        gpn_run_wake(run);
    }
    gpn_mutex_unlock(&run->lock);
}

/* End a work because the run stopped. */
static void gpn_run_settle_stopped(gpn_run *run, gpn_work *work)
{
    gptner_error err;
    gpn_stop stop;
    gpn_mutex_lock(&run->lock);
    err = run->why;
    stop = run->stop;
    gpn_mutex_unlock(&run->lock);
    if (work->budget.attempts == 0 || stop != GPN_STOP_HARD) {
        gpn_fail(&err, GPTNER_ERR_NOT_SENT, "not sent%s: the run stopped: %s",
                 work->budget.attempts > 0 ? " again" : "", err.message);
    }
    run->spec->ops->settle_fn(run->spec->ctx, work, &err);
    gpn_mutex_lock(&run->lock);
    if (err.status == GPTNER_ERR_CANCELLED) {
        run->sum.cancelled++;
    } else if (work->budget.attempts == 0) {
        run->sum.not_sent++;
    }
    gpn_mutex_unlock(&run->lock);
    gpn_run_finish(run, work);
}

/* --- one attempt --- */

static bool gpn_slot_may_resend(void *ctx, int64_t now)
{
    return gpn_gate_open(&((gpn_slot *)ctx)->driver->pool->gate, now);
}

static bool gpn_slot_divert(void *ctx, const gpn_http *http)
{
    gpn_slot *slot = (gpn_slot *)ctx;
    const gpn_run_spec *spec = slot->driver->run->spec;
    return spec->ops->divert_fn(spec->ctx, slot->work, http);
}

static gptner_status gpn_slot_body(void *ctx, const char *data, size_t len,
                                   gptner_error *err)
{
    gpn_slot *slot = (gpn_slot *)ctx;
    const gpn_run_spec *spec = slot->driver->run->spec;
    return spec->ops->body_fn(spec->ctx, slot->work, data, len, err);
}

static void gpn_slot_release(gpn_slot *slot)
{
    gpn_driver *d = slot->driver;
    slot->work = NULL;
    slot->running = false;
    d->until[slot->number] = INT64_MAX;
    d->n_free++;
}

static void gpn_slot_finish(gpn_slot *slot)
{
    gpn_work *work = slot->work;
    gpn_slot_release(slot);
    gpn_run_finish(slot->driver->run, work);
}

static void gpn_slot_settle(gpn_slot *slot, const gptner_error *err)
{
    const gpn_run_spec *spec = slot->driver->run->spec;
    spec->ops->settle_fn(spec->ctx, slot->work, err);
    gpn_slot_finish(slot);
}

static void gpn_slot_park(gpn_slot *slot, int64_t due_ms)
{
    gpn_run *run = slot->driver->run;
    gpn_work *work = slot->work;
    work->due_ms = due_ms;
    gpn_slot_release(slot);
    gpn_mutex_lock(&run->lock);
    run->in_flight--;
    run->sum.retries++;
    gpn_run_park_locked(run, work);
    gpn_mutex_unlock(&run->lock);
}

/* The attempt failed in a way that may pass. */
static void gpn_slot_retry(gpn_slot *slot, gpn_class cls, int64_t server_ms,
                           const gptner_error *err)
{
    gpn_driver *d = slot->driver;
    gpn_work *work = slot->work;
    const gpn_env *env = d->pool->env;
    int64_t now = slot->conn.reply.now_ms;
    int64_t delay = 0;
    if (cls == GPN_CLASS_THROTTLED) {
        d->throttled++;
    }
    if (!gpn_pace_retry(env, &d->pool->config.rules, &work->budget, cls,
                        server_ms, &delay)) {
        gpn_slot_settle(slot, err);
        return;
    }
    if (cls == GPN_CLASS_THROTTLED) {
        /* A delay that the server told is for all of us; one that we made up
         * is this item's, the others only slow down. */
        gpn_gate_throttled(&d->pool->gate, now,
                           server_ms > 0 ? server_ms : delay / GPN_GATE_PART);
    }
    if (cls == GPN_CLASS_ADAPT) {
        d->until[slot->number] = now; /* changed, and sent again at once */
        return;
    }
    if (gpn_time_add(now, delay) >= work->deadline_ms) {
        gpn_slot_settle(slot, err);
        return;
    }
    gpn_log(env, GPTNER_LOG_INFO, "prompt %zu: again in %lld ms: %s",
            work->index, (long long)delay, err->message);
    gpn_slot_park(slot, gpn_time_add(now, delay));
}

/* The exchange ended: have the reply judged, and do what the verdict says. */
static void gpn_slot_ended(gpn_slot *slot)
{
    gpn_driver *d = slot->driver;
    const gpn_run_spec *spec = d->run->spec;
    gptner_error err = GPN_ZERO;
    int64_t server_ms = -1;
    gpn_class cls;
    slot->running = false;
    cls = spec->ops->judge_fn(spec->ctx, slot->work, &slot->conn.reply,
                              &server_ms, &err);
    switch (cls) {
    case GPN_CLASS_OK:
        gpn_gate_succeeded(&d->pool->gate);
        gpn_slot_finish(slot);
        return;
    case GPN_CLASS_FAIL:
        gpn_slot_finish(slot);
        return;
    case GPN_CLASS_FATAL:
        if (!spec->single) {
            gpn_run_stop(d->run, GPN_STOP_SOFT, &err);
        }
        gpn_slot_finish(slot);
        return;
    case GPN_CLASS_ADAPT:
    case GPN_CLASS_THROTTLED:
    case GPN_CLASS_TRANSIENT:
    case GPN_CLASS_BAD_REPLY:
        gpn_slot_retry(slot, cls, server_ms, &err);
        return;
    }
}

static void gpn_slot_step(gpn_slot *slot, int64_t now, unsigned ready)
{
    gpn_driver *d = slot->driver;
    if (gpn_conn_step(&slot->conn, now, ready, &d->scratch)) {
        gpn_slot_ended(slot);
    } else {
        d->until[slot->number] = slot->conn.until;
    }
}

/* Start an attempt, unless the gate says later. */
static void gpn_slot_start(gpn_slot *slot, int64_t now)
{
    gpn_driver *d = slot->driver;
    gpn_pool *pool = d->pool;
    const gpn_run_spec *spec = d->run->spec;
    gpn_conn *conn = &slot->conn;
    gpn_work *work = slot->work;
    gptner_error err = GPN_ZERO;
    int64_t later = gpn_gate_enter(&pool->gate, pool->env, now);
    if (later > now) {
        d->until[slot->number] = gpn_time_min(later, d->run->deadline_ms);
        return;
    }
    if (work->started_ms == 0) {
        work->started_ms = now;
        work->deadline_ms = gpn_time_add(now, pool->config.item_ms);
    }
    gpn_buf_clear(&conn->request.head);
    gpn_buf_clear(&conn->request.body);
    conn->request.parts = NULL;
    conn->request.is_head = false;
    conn->request.repeatable = true;
    if (spec->ops->build_fn(spec->ctx, work, &conn->request, &err) !=
        GPTNER_OK) {
        gpn_slot_settle(slot, &err);
        return;
    }
    conn->sink.resend_fn = gpn_slot_may_resend;
    conn->sink.divert_fn =
        spec->ops->divert_fn != NULL ? gpn_slot_divert : NULL;
    conn->sink.body_fn = gpn_slot_body;
    conn->sink.ctx = slot;
    work->budget.attempts++;
    d->requests++;
    slot->running = true;
    gpn_conn_begin(conn, now,
                   gpn_time_min(work->deadline_ms, d->run->deadline_ms));
    gpn_slot_step(slot, now, 0);
}

/* --- a driver's loop --- */

static gpn_stop gpn_run_stopped(gpn_run *run)
{
    gpn_stop stop;
    gpn_mutex_lock(&run->lock);
    stop = run->stop;
    gpn_mutex_unlock(&run->lock);
    return stop;
}

/* How the run is stopped, if it is: as was seen in stop, or by cancellation or
 * its deadline. */
static gpn_stop gpn_driver_check(gpn_driver *d, int64_t now, gpn_stop stop)
{
    gpn_run *run = d->run;
    gptner_error why;
    if (stop == GPN_STOP_HARD) {
        return stop;
    }
    if (gpn_atomic_get(&d->pool->cancelled) != 0) {
        gpn_driver_mute(d, true);
        gpn_fail(&why, GPTNER_ERR_CANCELLED, "cancelled");
    } else if (now >= run->deadline_ms) {
        gpn_fail(&why, GPTNER_ERR_TIMEOUT,
                 "run: timed out after %lld ms (timeout_ms)",
                 (long long)(now - run->started_ms));
    } else {
        return stop;
    }
    gpn_run_stop(run, GPN_STOP_HARD, &why);
    return GPN_STOP_HARD;
}

/* End the works in this driver's slots: after a hard stop all of them, after a
 * soft one those that wait to start. */
static void gpn_driver_stop_slots(gpn_driver *d, gpn_stop stop)
{
    size_t i;
    for (i = 0; i < d->used; i++) {
        gpn_slot *slot = d->slots[i];
        gpn_work *work = slot->work;
        if (work != NULL && (stop == GPN_STOP_HARD || !slot->running)) {
            gpn_conn_abort(&slot->conn);
            gpn_slot_release(slot);
            gpn_run_settle_stopped(d->run, work);
        }
    }
}

/* Give the free slots something to do. Returns when to try again. */
static int64_t gpn_driver_fill(gpn_driver *d, int64_t now)
{
    gpn_run *run = d->run;
    int64_t again = INT64_MAX;
    size_t i = 0;
    while (d->n_free > 0 && i < d->used) {
        gpn_slot *slot = d->slots[i];
        gpn_work *work;
        gpn_stop stop;
        if (slot->work != NULL) {
            i++;
            continue;
        }
        work = gpn_run_take(run, now, &again, &stop);
        if (work == NULL) {
            break;
        }
        if (gpn_driver_check(d, now, stop) != GPN_STOP_NONE) {
            gpn_run_settle_stopped(run, work);
            continue;
        }
        slot->work = work;
        d->n_free--;
        gpn_slot_start(slot, now);
        if (slot->work == NULL) { /* a transport that blocks has done it all */
            now = gpn_clock_ms(d->pool->env);
        }
    }
    return again;
}

static void gpn_run_report(gpn_run *run, int64_t now, bool finished)
{
    gptner_progress *p = &run->progress;
    int64_t dt = now - run->progress_ms;
    int64_t window;
    gpn_mutex_lock(&run->lock);
    if (run->calling) { /* another callback is under way: later */
        gpn_mutex_unlock(&run->lock);
        return;
    }
    run->calling = true;
    p->total = run->spec->total;
    if (p->total < 0 && run->source_ended) {
        p->total = (int64_t)run->begun;
    }
    p->done = (int64_t)run->finished;
    p->ok = run->sum.ok;
    p->failed = run->sum.failed;
    p->retries = run->sum.retries;
    p->waiting = (int64_t)run->n_parked;
    p->in_flight = (int64_t)run->in_flight;
    p->prompt_tokens = run->sum.prompt_tokens;
    p->completion_tokens = run->sum.completion_tokens;
    gpn_mutex_unlock(&run->lock);
    p->elapsed_ms = now - run->started_ms;
    if (dt > 0) { /* smoothed over about three seconds */
        window = gpn_time_min(p->elapsed_ms, dt + 3000);
        p->per_second += ((double)(p->done - run->progress_done) * 1000.0 -
                          p->per_second * (double)dt) /
                         (double)window;
        run->progress_done = p->done;
        run->progress_ms = now;
    }
    p->eta_ms = -1;
    if (p->total >= 0 && p->per_second > 0.0) {
        p->eta_ms =
            (int64_t)((double)(p->total - p->done) * 1000.0 / p->per_second);
    }
    p->finished = finished;
    run->spec->progress_fn(p, run->spec->progress_user);
    gpn_mutex_lock(&run->lock);
    run->calling = false;
    gpn_run_deliver_locked(run);
    if (run->starved) { /* somebody waits for the callbacks to be free */
        run->starved = false;
        gpn_run_wake(run);
    }
    gpn_mutex_unlock(&run->lock);
}

/* When this driver must look again, and the progress that is due. Only the
 * calling thread (the first driver) reports. */
static int64_t gpn_driver_until(gpn_driver *d, int64_t now, int64_t again)
{
    gpn_run *run = d->run;
    int64_t until = gpn_time_min(again, run->deadline_ms);
    size_t i;
    for (i = 0; i < d->used; i++) {
        until = gpn_time_min(until, d->until[i]);
    }
    if (run->spec->progress_fn != NULL && d == run->drivers[0]) {
        int64_t every = run->spec->progress_every_ms;
        if (now - run->progress_ms >= every) {
            gpn_run_report(run, now, false);
        }
        until = gpn_time_min(until, gpn_time_add(now, every));
    }
    return until;
}

/* The bell may have rung for a name or a session that somebody waits for. */
static void gpn_driver_rung(gpn_driver *d, int64_t now)
{
    size_t i;
    for (i = 0; i < d->used; i++) {
        gpn_slot *slot = d->slots[i];
        if (slot->running && (slot->conn.phase == GPN_PHASE_CONNECT ||
                              slot->conn.phase == GPN_PHASE_HANDSHAKE)) {
            gpn_slot_step(slot, now, 0);
        }
    }
}

static void gpn_driver_handle(gpn_driver *d, const gpn_event *event,
                              int64_t now)
{
    gpn_slot *slot;
    if (event->tag == (void *)&d->pool->cancel_flag) {
        return; /* woken; the loop looks why */
    }
    if (event->tag == NULL) {
        gpn_driver_rung(d, now);
        return;
    }
    slot = (gpn_slot *)event->tag;
    if (slot->running) {
        gpn_slot_step(slot, now, event->ready);
    } else {
        gpn_conn_idle_event(&slot->conn);
    }
}

static void gpn_driver_due(gpn_driver *d, int64_t now)
{
    size_t i;
    for (i = 0; i < d->used; i++) {
        gpn_slot *slot = d->slots[i];
        if (d->until[i] > now || slot->work == NULL) {
            continue;
        }
        if (slot->running) {
            gpn_slot_step(slot, now, 0);
        } else {
            gpn_slot_start(slot, now);
        }
    }
}

/* The system does not tell any more what its sockets do. */
static void gpn_driver_blind(gpn_driver *d)
{
    gptner_error why;
    gpn_fail(&why, GPTNER_ERR_CONNECTION_LOST,
             "run: waiting for sockets fails; raise the limit of open files");
    gpn_run_stop(d->run, GPN_STOP_HARD, &why);
}

#define GPN_BLIND_MAX 100 /* failed waits in a row; one may be short memory */

static void gpn_driver_loop(void *arg)
{
    gpn_driver *d = (gpn_driver *)arg;
    gpn_run *run = d->run;
    gpn_event events[GPN_EVENTS];
    int blind = 0;
    for (;;) {
        int64_t now = gpn_clock_ms(d->pool->env);
        gpn_stop stop = gpn_driver_check(d, now, gpn_run_stopped(run));
        int64_t until;
        int n;
        int i;
        if (stop != GPN_STOP_NONE) {
            gpn_driver_stop_slots(d, stop);
        }
        until = gpn_driver_until(d, now, gpn_driver_fill(d, now));
        if (gpn_run_over(run)) {
            break;
        }
        n = gpn_poller_wait(&d->poller, now, until, events, GPN_EVENTS);
        blind = n < 0 && blind < GPN_BLIND_MAX ? blind + 1 : 0;
        if (blind == GPN_BLIND_MAX) {
            gpn_driver_blind(d);
        }
        now = gpn_clock_ms(d->pool->env);
        for (i = 0; i < n; i++) {
            gpn_driver_handle(d, &events[i], now);
        }
        gpn_driver_due(d, now);
    }
}

/* --- a run --- */

static bool gpn_run_init(gpn_run *run, gpn_pool *pool, const gpn_run_spec *spec,
                         size_t workers)
{
    size_t size = 1;
    memset(run, 0, sizeof *run);
    run->pool = pool;
    run->spec = spec;
    run->max_ahead = spec->max_ahead;
    if (run->max_ahead == 0) {
        run->max_ahead = workers * 8 > 1024 ? workers * 8 : 1024;
    }
    if (spec->single) {
        run->max_ahead = 1;
    }
    while (size < run->max_ahead) {
        size *= 2;
    }
    run->mask = size - 1;
    run->why.retry_after_ms = -1;
    run->ring =
        (gpn_work **)gpn_mem_zalloc(pool->env, 2 * size * sizeof *run->ring);
    if (run->ring == NULL) {
        return false;
    }
    run->parked = run->ring + size;
    if (!gpn_mutex_init(&run->lock)) {
        gpn_mem_free(pool->env, run->ring);
        return false;
    }
    run->started_ms = gpn_clock_ms(pool->env);
    run->progress_ms = run->started_ms;
    run->deadline_ms = spec->timeout_ms > 0
                           ? gpn_time_add(run->started_ms, spec->timeout_ms)
                           : INT64_MAX;
    return true;
}

static size_t gpn_run_threads(const gpn_pool *pool, const gpn_run_spec *spec,
                              size_t workers)
{
    size_t n = (workers + 3) / 4; /* fewer slots are not worth a thread */
    size_t most = pool->config.max_threads > 0
                      ? (size_t)pool->config.max_threads
                      : (size_t)gpn_cpu_count();
    if (spec->single) {
        return 1;
    }
    if (pool->config.transport != NULL) {
        n = workers; /* its calls block */
        most = workers;
    }
    n = n < most ? n : most;
    return n < GPN_DRIVERS_MAX ? n : (size_t)GPN_DRIVERS_MAX;
}

/* Engage drivers[0] for the calling thread and up to threads-1 more. What a
 * driver cannot take falls to the first; a run with one slot still works. */
static bool gpn_run_engage(gpn_run *run, size_t workers, size_t threads)
{
    size_t share = workers / threads;
    size_t extra = workers % threads;
    size_t i;
    for (i = 0; i < threads; i++) {
        gpn_driver *d = gpn_pool_take_driver(run->pool);
        if (d == NULL) {
            break;
        }
        gpn_driver_resize(d, share + (i < extra ? 1 : 0));
        if (d->used == 0 || !gpn_driver_mute(d, false)) {
            gpn_pool_put_driver(run->pool, d);
            break;
        }
        d->run = run;
        d->requests = 0;
        d->throttled = 0;
        run->drivers[run->n_drivers++] = d;
    }
    return run->n_drivers > 0;
}

/* Start the threads; a driver without one gives its slots to the first. */
static size_t gpn_run_start_threads(gpn_run *run)
{
    gpn_driver *first = run->drivers[0];
    size_t n = run->n_drivers;
    size_t started = 1;
    while (started < n &&
           gpn_thread_start(&run->drivers[started]->thread, gpn_driver_loop,
                            run->drivers[started],
                            run->pool->config.stack_bytes)) {
        started++;
    }
    if (started < n && run->pool->config.transport == NULL) {
        size_t total = first->used;
        size_t i;
        for (i = started; i < n; i++) {
            total += run->drivers[i]->used;
        }
        gpn_driver_resize(first, total);
    }
    return started;
}

static GPN_NOINLINE void gpn_run_disengage(gpn_run *run)
{
    size_t k;
    for (k = run->n_drivers; k > 0; k--) {
        gpn_driver *d = run->drivers[k - 1];
        size_t i;
        for (i = 0; i < d->n_slots; i++) {
            gpn_conn *conn = &d->slots[i]->conn;
            run->sum.connections += conn->opened;
            run->sum.resumed_sessions += conn->resumed;
            run->sum.resent += conn->resent;
            conn->opened = 0;
            conn->resumed = 0;
            conn->resent = 0;
        }
        run->sum.requests += d->requests;
        run->sum.throttled += d->throttled;
        gpn_pool_put_driver(run->pool, d);
    }
}

/* Drive the run to its end with the calling thread and helpers. */
static void gpn_run_drive(gpn_run *run)
{
    size_t started = gpn_run_start_threads(run);
    size_t i;
    gpn_driver_loop(run->drivers[0]);
    for (i = 1; i < started; i++) {
        gpn_thread_join(&run->drivers[i]->thread);
    }
    if (run->spec->progress_fn != NULL) {
        gpn_run_report(run, gpn_clock_ms(run->pool->env), true);
    }
    run->sum.total = (int64_t)run->begun;
    run->sum.elapsed_ms = gpn_clock_ms(run->pool->env) - run->started_ms;
}

/* Run spec's works. OK when all were settled by themselves, else why the run
 * stopped. */
static gptner_status gpn_pool_run(gpn_pool *pool, const gpn_run_spec *spec,
                                  gptner_run_summary *summary,
                                  gptner_error *err)
{
    gpn_run_spec own = *spec;
    gpn_run run;
    int asked =
        spec->max_workers > 0 ? spec->max_workers : pool->config.max_workers;
    size_t workers = spec->single ? 1 : (size_t)asked;
    if (summary != NULL) {
        memset(summary, 0, sizeof *summary);
    }
    if (own.progress_every_ms <= 0) {
        own.progress_every_ms = 100;
    }
    if (!gpn_run_init(&run, pool, &own, workers)) {
        return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "run: out of memory");
    }
    if (gpn_run_engage(&run, workers, gpn_run_threads(pool, &own, workers))) {
        gpn_run_drive(&run);
    } else {
        gpn_fail(&run.why, GPTNER_ERR_NO_MEMORY,
                 "run: no memory or descriptors for a single worker");
    }
    gpn_run_disengage(&run);
    gpn_mutex_deinit(&run.lock);
    gpn_mem_free(pool->env, run.ring);
    if (summary != NULL) {
        *summary = run.sum;
    }
    if (err != NULL && run.why.status != GPTNER_OK) {
        *err = run.why;
    }
    return run.why.status;
}

/* --- the pool --- */

#ifndef GPTNER_NO_BATCH
/* Wait for ms; ends at once when the pool is cancelled. */
static gptner_status gpn_pool_pause(gpn_pool *pool, int64_t ms,
                                    gptner_error *err)
{
    gpn_driver *d = gpn_pool_take_driver(pool);
    int64_t now = gpn_clock_ms(pool->env);
    int64_t until = gpn_time_add(now, ms);
    gpn_event events[8];
    int blind = 0;
    if (d == NULL || !gpn_driver_mute(d, false)) {
        if (d != NULL) {
            gpn_pool_put_driver(pool, d);
        }
        return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "pause: out of memory");
    }
    while (now < until && gpn_atomic_get(&pool->cancelled) == 0 &&
           blind < GPN_BLIND_MAX) {
        int n = gpn_poller_wait(&d->poller, now, until, events, 8);
        blind = n < 0 ? blind + 1 : 0;
        while (n-- > 0) {
            void *tag = events[n].tag;
            if (tag != NULL && tag != (void *)&pool->cancel_flag) {
                gpn_conn_idle_event(&((gpn_slot *)tag)->conn);
            }
        }
        now = gpn_clock_ms(pool->env);
    }
    gpn_pool_put_driver(pool, d);
    if (gpn_atomic_get(&pool->cancelled) != 0) {
        return gpn_fail(err, GPTNER_ERR_CANCELLED, "cancelled");
    }
    return now >= until ? GPTNER_OK
                        : gpn_fail(err, GPTNER_ERR_CONNECTION_LOST,
                                   "pause: waiting fails");
}
#endif

static void gpn_pool_cancel(gpn_pool *pool)
{
    gpn_atomic_set(&pool->cancelled, 1);
    gpn_flag_raise(&pool->cancel_flag);
}

static void gpn_pool_reset(gpn_pool *pool)
{
    gpn_atomic_set(&pool->cancelled, 0);
    gpn_flag_lower(&pool->cancel_flag);
}

static void gpn_pool_free(gpn_pool *pool)
{
    const gpn_env *env;
    if (pool == NULL) {
        return;
    }
    env = pool->env;
    while (pool->idle != NULL) {
        gpn_driver *d = pool->idle;
        pool->idle = d->next;
        gpn_driver_free(d);
    }
    gpn_tls_free(pool->link.tls);
    gpn_resolver_free(pool->link.resolver);
    if (pool->made > 2)
        gpn_flag_deinit(&pool->cancel_flag);
    if (pool->made > 1)
        gpn_gate_deinit(&pool->gate);
    if (pool->made > 0)
        gpn_mutex_deinit(&pool->lock);
    gpn_mem_free(env, pool);
}

static gptner_status gpn_pool_start(gpn_pool *pool, gptner_error *err)
{
    gpn_link *link = &pool->link;
    gptner_status status;
    pool->made += gpn_mutex_init(&pool->lock);
    if (pool->made == 1)
        pool->made += gpn_gate_init(&pool->gate);
    if (pool->made < 2)
        return gpn_fail(err, GPTNER_ERR_THREAD, "client: no mutex");
    if (!gpn_flag_init(&pool->cancel_flag))
        return gpn_fail(err, GPTNER_ERR_LIMIT,
                        "client: no file descriptor for cancellation");
    pool->made++;
    status = gpn_resolver_new(pool->env, &link->resolver, err);
    if (status == GPTNER_OK)
        status = gpn_tls_new(pool->env, &pool->config.tls, &link->tls, err);
    return status;
}

/* env and the strings in cfg outlive the pool. */
static gptner_status gpn_pool_new(const gpn_env *env,
                                  const gpn_pool_config *cfg, gpn_pool **out,
                                  gptner_error *err)
{
    gpn_pool *pool = (gpn_pool *)gpn_mem_zalloc(env, sizeof *pool);
    gptner_status status;
    *out = NULL;
    if (pool == NULL) {
        return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "client: out of memory");
    }
    pool->env = env;
    pool->config = *cfg;
    pool->link.env = env;
    pool->link.transport = cfg->transport;
    pool->link.times = cfg->times;
    pool->link.http = cfg->http;
    pool->link.max_body = cfg->max_body;
    status = gpn_pool_start(pool, err);
    if (status != GPTNER_OK) {
        gpn_pool_free(pool);
        return status;
    }
    *out = pool;
    return GPTNER_OK;
}

/* --- the bar --- */

enum { GPN_BAR_LAST, GPN_BAR_WIDTH, GPN_BAR_KIND, GPN_BAR_NEXT };

/* "1:02:03" or "02:03" */
static void gpn_bar_time(char *out, size_t cap, int64_t ms)
{
    int64_t s = ms / 1000;
    if (ms < 0) {
        gpn_format(out, cap, "?");
    } else if (s >= 3600) {
        gpn_format(out, cap, "%d:%02d:%02d", (int)(s / 3600),
                   (int)(s / 60 % 60), (int)(s % 60));
    } else {
        gpn_format(out, cap, "%02d:%02d", (int)(s / 60), (int)(s % 60));
    }
}

/* "950", "12.3k", "4.5M" */
static void gpn_bar_count(char *out, size_t cap, int64_t n)
{
    bool kilo = n < 1000000;
    int64_t tenths = n / (kilo ? 100 : 100000);
    if (n < 10000) {
        gpn_format(out, cap, "%d", (int)n);
    } else {
        gpn_format(out, cap, "%lld.%d%c", (long long)(tenths / 10),
                   (int)(tenths % 10), kilo ? 'k' : 'M');
    }
}

/* What stands right of the bar: "37/100 [00:04<00:06, 9.1/s, ...]". */
static size_t gpn_bar_tail(char *out, size_t cap, const gptner_progress *p)
{
    char elapsed[24];
    char eta[24];
    char tokens[24];
    char total[24];
    char more[64];
    int64_t tenths = (int64_t)(p->per_second * 10.0 + 0.5);
    gpn_bar_time(elapsed, sizeof elapsed, p->elapsed_ms);
    gpn_bar_time(eta, sizeof eta, p->eta_ms);
    gpn_bar_count(tokens, sizeof tokens,
                  p->prompt_tokens + p->completion_tokens);
    total[0] = '\0';
    if (p->total >= 0) {
        gpn_format(total, sizeof total, "/%lld", (long long)p->total);
    }
    more[0] = '\0';
    if (p->retries > 0 || p->failed > 0) {
        gpn_format(more, sizeof more, ", %lld retries, %lld failed",
                   (long long)p->retries, (long long)p->failed);
    }
    return gpn_format(out, cap, "%lld%s [%s<%s, %lld.%d/s%s, %s tokens]",
                      (long long)p->done, total, elapsed, eta,
                      (long long)(tenths / 10), (int)(tenths % 10), more,
                      tokens);
}

/* " 37%|#####     | " of the given width; nothing when the total is unknown */
static void gpn_bar_draw(char *out, size_t cap, const gptner_progress *p,
                         int width)
{
    int filled;
    int i;
    size_t len;
    out[0] = '\0';
    if (p->total <= 0 || width < 4 || (size_t)width + 16 > cap) {
        return;
    }
    filled = (int)((double)width * (double)p->done / (double)p->total);
    len = gpn_format(out, cap, "%3d%%|",
                     (int)(100.0 * (double)p->done / (double)p->total));
    for (i = 0; i < width; i++) {
        out[len++] = i < filled ? '#' : ' ';
    }
    gpn_format(out + len, cap - len, "| ");
}

static void gpn_bar_write(const gptner_progress *p, const char *label,
                          bool terminal)
{
    char tail[256];
    char bar[128];
    char line[512];
    size_t len = gpn_bar_tail(tail, sizeof tail, p);
    int room;
    if (!terminal) {
        len = gpn_format(line, sizeof line, "%s: %s%s\n", label, tail,
                         p->finished ? " done" : "");
    } else {
        room = gpn_err_columns() - (int)len - (int)strlen(label) - 12;
        gpn_bar_draw(bar, sizeof bar, p, room > 60 ? 60 : room);
        /* back to the left edge; the rest of the line is cleared */
        len = gpn_format(line, sizeof line, "\r%s: %s%s\033[K%s", label, bar,
                         tail, p->finished ? "\n" : "");
    }
    gpn_err_write(line, len);
}

GPTNER_API void gptner_progress_bar(const gptner_progress *progress, void *user)
{
    gptner_bar *bar = (gptner_bar *)user;
    const char *label =
        bar != NULL && bar->label != NULL ? bar->label : "prompts";
    if (bar == NULL || bar->reserved[GPN_BAR_KIND] == 1 ||
        (bar->reserved[GPN_BAR_KIND] == 0 && gpn_err_is_terminal())) {
        if (bar != NULL) {
            bar->reserved[GPN_BAR_KIND] = 1;
        }
        gpn_bar_write(progress, label, true);
        return;
    }
    bar->reserved[GPN_BAR_KIND] = 2;
    /* without a terminal: after 5 seconds, then at growing distances */
    if (!progress->finished &&
        progress->elapsed_ms < bar->reserved[GPN_BAR_NEXT] + 5000) {
        return;
    }
    bar->reserved[GPN_BAR_NEXT] =
        progress->elapsed_ms + progress->elapsed_ms / 4;
    gpn_bar_write(progress, label, false);
}

/* ===========================================================================
 * >>api        layer 8   client, request bodies, replies, runs, raw requests
 * calls: >>pool >>pace >>http >>stream >>json >>bytes >>platform
 *
 * One builder and one decoder. gpn_body_write() turns a prompt into the body
 * of a request, whoever carries it; gpn_fields_read() takes a reply apart where
 * it lies, without memory of its own, and what it found is copied once, into
 * the block that is the result. Errors take the same way: the views found in
 * an error body, or none, become a result with a status.
 *
 * A prompt under way is a gpn_item. It holds a spare result inside, so that
 * also a prompt for which no memory was left gets its result; the item then is
 * the result's block.
 * ======================================================================== */

static gptner_status gpn_no_memory(gptner_error *err, const char *what)
{
    return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "%s: out of memory", what);
}

/* An argument that is wrong. */
static gptner_status gpn_refuse(gptner_error *err, const char *text)
{
    return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT, "%s", text);
}

static gptner_status gpn_file_fail(gptner_error *err, const char *path,
                                   const char *what, int oserr)
{
    char why[64];
    return gpn_fail(err, GPTNER_ERR_FILE, "%s: %s: %s", path, what,
                    gpn_os_text(oserr, why, sizeof why));
}

/* --- results: one block each --- */

/* Stands before every object that is handed out: how to free it without its
 * client, which may be gone. */
typedef union gpn_owner {
    struct {
        gptner_allocator mem;
        void *block;
    } own;
    int64_t align_int;
    double align_double;
} gpn_owner;

static void gpn_owner_set(void *object, const gpn_env *env, void *block)
{
    gpn_owner *owner = (gpn_owner *)object - 1;
    owner->own.mem = env->mem;
    owner->own.block = block;
}

/* A zeroed object of size bytes, or NULL. */
static void *gpn_owned_new(const gpn_env *env, size_t size)
{
    gpn_owner *owner;
    size_t total;
    if (!gpn_size_add(size, sizeof *owner, &total))
        return NULL;
    owner = (gpn_owner *)gpn_mem_zalloc(env, total);
    if (owner == NULL)
        return NULL;
    gpn_owner_set(owner + 1, env, owner);
    return owner + 1;
}

static void gpn_owned_free(void *object)
{
    if (object != NULL) {
        gpn_owner *owner = (gpn_owner *)object - 1;
        gptner_allocator mem = owner->own.mem;
        mem.free_fn(owner->own.block, mem.user);
    }
}

/* A member of an object, by its offset. */
static void *gpn_at(void *object, size_t offset)
{
    return (char *)object + offset;
}

/* Texts of an object, by their offsets, are copied to at, each with a NUL, or
 * only counted if at is NULL. Returns their size. */
static size_t gpn_pack(void *object, const uint16_t *texts, size_t n, char *at)
{
    size_t size = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        gptner_str *s = (gptner_str *)gpn_at(object, texts[i]);
        if (s->ptr == NULL)
            continue;
        if (at != NULL) {
            memcpy(at + size, s->ptr, s->len);
            at[size + s->len] = '\0';
            s->ptr = at + size;
        }
        size += s->len + 1;
    }
    return size;
}

/* What a result is made of, wherever it is: a copy is one block. */
typedef struct gpn_result_parts {
    gptner_result r;
    gptner_str message; /* of r */
} gpn_result_parts;

static const uint16_t gpn_result_texts[] = {
    offsetof(gpn_result_parts, message),
    offsetof(gpn_result_parts, r.custom_id),
    offsetof(gpn_result_parts, r.model),
    offsetof(gpn_result_parts, r.id),
    offsetof(gpn_result_parts, r.request_id),
    offsetof(gpn_result_parts, r.system_fingerprint),
    offsetof(gpn_result_parts, r.error_type),
    offsetof(gpn_result_parts, r.error_code),
    offsetof(gpn_result_parts, r.error_param),
    offsetof(gpn_result_parts, r.error_message),
    offsetof(gpn_result_parts, r.raw)};

static const uint16_t gpn_choice_texts[] = {
    offsetof(gptner_choice, text),
    offsetof(gptner_choice, finish_reason),
    offsetof(gptner_choice, refusal),
    offsetof(gptner_choice, reasoning),
    offsetof(gptner_choice, tool_calls_json),
    offsetof(gptner_choice, logprobs_json)};

static size_t gpn_result_pack(gpn_result_parts *p, gptner_choice *choices,
                              char *at)
{
    size_t size =
        gpn_pack(p, gpn_result_texts, GPN_COUNT(gpn_result_texts), at);
    size_t i;
    for (i = 0; i < p->r.n_choices; i++)
        size +=
            gpn_pack(&choices[i], gpn_choice_texts, GPN_COUNT(gpn_choice_texts),
                     at != NULL ? at + size : NULL);
    return size;
}

/* A result with copies of all that view points to; NULL: no memory. */
static gptner_result *gpn_result_copy(const gpn_env *env,
                                      const gptner_result *view)
{
    gpn_result_parts p;
    gptner_result *copy;
    gptner_choice *choices;
    size_t list = view->n_choices * sizeof *choices;
    size_t size;
    p.r = *view;
    p.message = gptner_str_from(view->message);
    /* counting does not write */
    size = gpn_result_pack(&p, (gptner_choice *)(uintptr_t)view->choices, NULL);
    copy = (gptner_result *)gpn_owned_new(env, sizeof *copy + list + size);
    if (copy == NULL)
        return NULL;
    choices = (gptner_choice *)(copy + 1);
    if (list > 0)
        memcpy(choices, view->choices, list);
    gpn_result_pack(&p, choices, (char *)choices + list);
    p.r.message = p.message.ptr;
    if (list > 0) {
        p.r.choices = choices;
        p.r.text = choices[0].text;
        p.r.finish_reason = choices[0].finish_reason;
    }
    *copy = p.r;
    return copy;
}

GPTNER_API void gptner_result_free(gptner_result *result)
{
    gpn_owned_free(result);
}

/* All the client's, for which zero would say something. */
static void gpn_result_blank(gptner_result *r)
{
    memset(r, 0, sizeof *r);
    r->message = "";
    r->retry_after_ms = -1;
    memset(&r->usage, 0xff, sizeof r->usage); /* -1: not told */
}

/* Without the white space in front. */
static gptner_str gpn_skip_space(gptner_str s)
{
    while (s.len > 0 && (unsigned char)*s.ptr <= ' ') {
        s.ptr++;
        s.len--;
    }
    return s;
}

/* Case does not matter. */
static bool gpn_text_ends(const char *text, const char *end)
{
    size_t len = strlen(text);
    size_t tail = strlen(end);
    return len >= tail && gpn_str_ieq_c(gpn_str(text + len - tail, tail), end);
}

/* --- the table of models --- */

enum {
    GPN_MODEL_NEW_LIMIT = 1,     /* only max_completion_tokens */
    GPN_MODEL_NO_SAMPLING = 2,   /* neither temperature nor top_p */
    GPN_MODEL_IF_NOT_EFFORT = 4, /* sampling while effort is unset or "none" */
    GPN_MODEL_IF_NONE = 8,       /* sampling while effort "none" is sent */
    GPN_MODEL_NO_PENALTY = 16,
    GPN_MODEL_NO_STOP = 32,
    GPN_MODEL_NO_EFFORT = 64,
    GPN_MODEL_COMPLETIONS = 128,
    GPN_MODEL_EMBEDDINGS = 256,
    GPN_MODEL_REASONS = 1 | 16 /* new limit, no penalty */
};

typedef struct gpn_model_rule {
    char prefix[24]; /* one that ends in '-' fits the name without it, too */
    unsigned flags;
} gpn_model_rule;

/* The flags of a model: those of the first prefix that fits, none for others,
 * which are chat models that take all. "ft:BASE:..." is as BASE. */
static unsigned gpn_model_flags(const char *model)
{
    /* clang-format off */
    static const gpn_model_rule rules[] = {
        {"gpt-3.5-turbo-instruct", GPN_MODEL_COMPLETIONS},
        {"babbage-002",     GPN_MODEL_COMPLETIONS},
        {"davinci-002",     GPN_MODEL_COMPLETIONS},
        {"text-davinci-",   GPN_MODEL_COMPLETIONS},
        {"text-embedding-", GPN_MODEL_EMBEDDINGS},
        {"gpt-3.5-",        GPN_MODEL_NO_EFFORT},
        {"gpt-4",           GPN_MODEL_NO_EFFORT},
        {"chatgpt-4o-",     GPN_MODEL_NO_EFFORT},
        {"gpt-5-chat-",     GPN_MODEL_NEW_LIMIT | GPN_MODEL_NO_EFFORT},
        {"o1-",  GPN_MODEL_REASONS | GPN_MODEL_NO_SAMPLING},
        {"o3-",  GPN_MODEL_REASONS | GPN_MODEL_NO_SAMPLING | GPN_MODEL_NO_STOP},
        {"o4-",  GPN_MODEL_REASONS | GPN_MODEL_NO_SAMPLING | GPN_MODEL_NO_STOP},
        {"gpt-5.1-",        GPN_MODEL_REASONS | GPN_MODEL_IF_NOT_EFFORT |
                            GPN_MODEL_NO_STOP},
        {"gpt-5.2-",        GPN_MODEL_REASONS | GPN_MODEL_IF_NOT_EFFORT |
                            GPN_MODEL_NO_STOP},
        {"gpt-5.",          GPN_MODEL_REASONS | GPN_MODEL_IF_NONE |
                            GPN_MODEL_NO_STOP},
        {"gpt-5-",          GPN_MODEL_REASONS | GPN_MODEL_NO_SAMPLING |
                            GPN_MODEL_NO_STOP},
        {"gpt-6-astra-",    GPN_MODEL_REASONS | GPN_MODEL_NO_SAMPLING |
                            GPN_MODEL_NO_STOP},
        {"gpt-6.1-sol-",    GPN_MODEL_REASONS | GPN_MODEL_NO_SAMPLING |
                            GPN_MODEL_NO_STOP},
        {"gpt-6",           GPN_MODEL_REASONS | GPN_MODEL_IF_NONE |
                            GPN_MODEL_NO_STOP}};
    /* clang-format on */
    gptner_str name = gptner_str_from(model);
    size_t i;
    if (gpn_str_starts(name, "openai/")) { /* as routers call them */
        name.ptr += 7;
        name.len -= 7;
    }
    if (gpn_str_starts(name, "ft:")) {
        const char *end = (const char *)memchr(name.ptr + 3, ':', name.len - 3);
        name.ptr += 3;
        name.len = end != NULL ? (size_t)(end - name.ptr) : name.len - 3;
    }
    for (i = 0; i < GPN_COUNT(rules); i++) {
        size_t len = strlen(rules[i].prefix);
        if (len == name.len + 1 && rules[i].prefix[len - 1] == '-')
            len--;
        if (name.len >= len && memcmp(name.ptr, rules[i].prefix, len) == 0)
            return rules[i].flags;
    }
    return 0;
}

static GPN_NOINLINE const char *gpn_model_of(const gptner_options *o)
{
    return o->model != NULL ? o->model : "gpt-4o-mini";
}

static gptner_endpoint gpn_model_endpoint(const gptner_options *o,
                                          unsigned flags)
{
    if (o->endpoint != GPTNER_ENDPOINT_AUTO)
        return o->endpoint;
    if ((flags & GPN_MODEL_COMPLETIONS) != 0)
        return GPTNER_ENDPOINT_COMPLETIONS;
    if ((flags & GPN_MODEL_EMBEDDINGS) != 0)
        return GPTNER_ENDPOINT_EMBEDDINGS;
    return GPTNER_ENDPOINT_CHAT;
}

/* The flags as they stand with these options: GPN_MODEL_NO_SAMPLING,
 * NO_PENALTY and COMPLETIONS are decided. */
static GPN_NOINLINE unsigned gpn_model_resolve(const gptner_options *o,
                                               unsigned flags,
                                               gptner_endpoint endpoint)
{
    unsigned both = GPN_MODEL_NO_SAMPLING | GPN_MODEL_NO_PENALTY;
    const char *effort = o->reasoning_effort;
    bool none = effort != NULL && strcmp(effort, "none") == 0;
    flags &= ~(unsigned)GPN_MODEL_COMPLETIONS;
    if (endpoint == GPTNER_ENDPOINT_COMPLETIONS)
        flags |= GPN_MODEL_COMPLETIONS;
    if (o->send_sampling == GPTNER_YES)
        return flags & ~both;
    if (o->send_sampling == GPTNER_NO)
        return flags | both;
    if (((flags & GPN_MODEL_IF_NOT_EFFORT) != 0 && effort != NULL && !none) ||
        ((flags & GPN_MODEL_IF_NONE) != 0 && !none))
        flags |= GPN_MODEL_NO_SAMPLING;
    return flags;
}

/* --- the client --- */

/* A server that requests go to: that of the base URL, or of a redirect. Lives
 * as long as the client, for connections are told apart by their peer. */
typedef struct gpn_origin {
    struct gpn_origin *next;
    gpn_url url;
    gpn_url proxy;
    gpn_peer peer;
    char host[300];       /* value of the header Host */
    char proxy_auth[512]; /* value of Proxy-Authorization */
    bool plain_proxy;     /* requests name the whole URL (RFC 9112 3.2.2) */
} gpn_origin;

enum { GPN_ORIGINS_MAX = 16, GPN_LEARNT_MAX = 16 };

/* What a server refused for a model (openai-api.md 2.2). */
enum {
    GPN_ADAPT_NEW_LIMIT = 1, /* max_completion_tokens instead of max_tokens */
    GPN_ADAPT_OLD_LIMIT = 2, /* the other way round */
    GPN_ADAPT_TEMPERATURE = 4,
    GPN_ADAPT_TOP_P = 8,
    GPN_ADAPT_FREQUENCY = 16,
    GPN_ADAPT_PRESENCE = 32,
    GPN_ADAPT_STREAM_OPTIONS = 64
};

typedef struct gpn_learnt {
    uint64_t model; /* hash of the name; 0: free */
    unsigned bits;  /* GPN_ADAPT_* */
} gpn_learnt;

struct gptner_client { /* the large members last: short offsets */
    gpn_env env;
    gpn_pool *pool;
    bool official;  /* the server is OpenAI's own */
    bool no_memory; /* latched while the strings are copied */
    gpn_atomic has_learnt;
    gptner_config cfg; /* its strings are in the arena */
    gpn_arena arena;
    gptner_str path;       /* of the base URL, without '/' at its end */
    gptner_str query;      /* of the base URL and api_version, without '?' */
    gptner_str targets[2]; /* of chat and of completions */
    gpn_buf head;          /* the header fields that every JSON request has */
    gpn_origin home;
    gpn_mutex lock; /* guards all below */
    gpn_learnt learnt[GPN_LEARNT_MAX];
    size_t learnt_next;
    gpn_origin *origins; /* of redirects */
    size_t n_origins;
};

static const char *gpn_client_keep(gptner_client *c, const char *text)
{
    const char *copy;
    if (text == NULL)
        return NULL;
    copy = gpn_arena_cstr(&c->arena, text);
    if (copy == NULL)
        c->no_memory = true;
    return copy;
}

static const uint16_t gpn_config_strings[] = {
    offsetof(gptner_config, base_url),
    offsetof(gptner_config, api_key),
    offsetof(gptner_config, organization),
    offsetof(gptner_config, project),
    offsetof(gptner_config, api_version),
    offsetof(gptner_config, system),
    offsetof(gptner_config, ca_file),
    offsetof(gptner_config, ca_dir),
    offsetof(gptner_config, client_cert_file),
    offsetof(gptner_config, client_key_file),
    offsetof(gptner_config, client_key_password),
    offsetof(gptner_config, proxy),
    offsetof(gptner_config, no_proxy),
    offsetof(gptner_config, options.model),
    offsetof(gptner_config, options.reasoning_effort),
    offsetof(gptner_config, options.schema_name),
    offsetof(gptner_config, options.schema_json),
    offsetof(gptner_config, options.tools_json),
    offsetof(gptner_config, options.tool_choice_json),
    offsetof(gptner_config, options.extra_body_json)};

/* Memory that lives as long as the client: a copy of size bytes at from. */
static void *gpn_client_copy(gptner_client *c, const void *from, size_t size)
{
    void *copy = gpn_arena_alloc(&c->arena, size);
    if (copy == NULL)
        c->no_memory = true;
    else if (from != NULL)
        memcpy(copy, from, size);
    return copy;
}

/* The environment fills what was not given. The first four strings. */
static void gpn_config_complete(gptner_config *k)
{
    static const char names[][20] = {"OPENAI_BASE_URL", "OPENAI_API_KEY",
                                     "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"};
    size_t i;
    for (i = 0; i < GPN_COUNT(names); i++) {
        const char **s = (const char **)gpn_at(k, gpn_config_strings[i]);
        if (*s == NULL)
            *s = gpn_env_get(names[i]);
    }
    if (k->base_url == NULL)
        k->base_url = "https://api.openai.com/v1";
}

/* Copy every string of the configuration, and what else it points to. */
static void gpn_client_keep_config(gptner_client *c)
{
    gptner_config *k = &c->cfg;
    const char **stop = NULL;
    size_t i;
    gpn_config_complete(k);
    for (i = 0; i < GPN_COUNT(gpn_config_strings); i++) {
        const char **s = (const char **)gpn_at(k, gpn_config_strings[i]);
        *s = gpn_client_keep(c, *s);
    }
    if (k->ca_pem.ptr != NULL)
        k->ca_pem.ptr =
            (const char *)gpn_client_copy(c, k->ca_pem.ptr, k->ca_pem.len);
    if (k->options.n_stop > 0)
        stop = (const char **)gpn_client_copy(c, k->options.stop,
                                              k->options.n_stop * sizeof *stop);
    for (i = 0; stop != NULL && i < k->options.n_stop; i++)
        stop[i] = gpn_client_keep(c, stop[i]);
    k->options.stop = stop;
    if (k->options.seed != NULL)
        k->options.seed = (const int64_t *)gpn_client_copy(
            c, k->options.seed, sizeof *k->options.seed);
    if (k->transport != NULL)
        k->transport = (const gptner_transport *)gpn_client_copy(
            c, k->transport, sizeof *k->transport);
}

/* Cut white space and line ends off a copy, at both ends. */
static char *gpn_cut(const char *text)
{
    char *s = (char *)(uintptr_t)text; /* a copy of ours */
    size_t len;
    while (*s != '\0' && (unsigned char)*s <= ' ')
        s++;
    len = strlen(s);
    while (len > 0 && (unsigned char)s[len - 1] <= ' ')
        s[--len] = '\0';
    return s;
}

/* Trim the key where it lies and look whether it fits into a header. */
static gptner_status gpn_client_check_key(gptner_client *c, gptner_error *err)
{
    gptner_config *k = &c->cfg;
    if (k->auth == GPTNER_AUTH_NONE ||
        (k->api_key != NULL && *k->api_key == '\0')) {
        k->api_key = NULL;
        return GPTNER_OK;
    }
    if (k->api_key != NULL)
        k->api_key = gpn_cut(k->api_key);
    if (k->api_key == NULL || *k->api_key == '\0')
        return gpn_fail(err, GPTNER_ERR_CONFIG,
                        "api_key: not set; set OPENAI_API_KEY or "
                        "config.api_key (\"\" for a server without keys)");
    if (!gpn_http_value_ok(gptner_str_from(k->api_key)))
        return gpn_fail(err, GPTNER_ERR_CONFIG,
                        "api_key: holds a line break or control character; "
                        "check OPENAI_API_KEY");
    return GPTNER_OK;
}

/* Is name in a list with commas? Case does not matter. */
static bool gpn_listed(const char *list, const char *name)
{
    gptner_str rest = gptner_str_from(list);
    gptner_str item;
    while (gpn_list_next(&rest, &item))
        if (gpn_str_ieq_c(item, name))
            return true;
    return false;
}

/* Fields that frame the message or name its target are the library's. */
static gptner_status gpn_header_check(const gptner_header *h, gptner_error *err)
{
    const char *name = h->name != NULL ? h->name : "";
    const char *wrong = NULL;
    if (h->value == NULL || !gpn_http_token_ok(gptner_str_from(name)) ||
        !gpn_http_value_ok(gptner_str_from(h->value)))
        wrong = "its name is none, or its value is missing or holds a line "
                "break or control character";
    else if (gpn_listed("Host,Content-Length,Transfer-Encoding,Connection,"
                        "Accept-Encoding,Upgrade,Expect,TE,Trailer,Keep-Alive",
                        name))
        wrong = "is set by the library";
    if (wrong == NULL)
        return GPTNER_OK;
    return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT, "header \"%s\": %s", name,
                    wrong);
}

static bool gpn_header_in(const gptner_header *list, size_t n, const char *name)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (gpn_str_ieq_c(gptner_str_from(list[i].name), name))
            return true;
    return false;
}

/* The headers given, then those of the environment that were not given: a
 * line "Name: value" each. A line without a colon is none. */
static gptner_status gpn_client_keep_headers(gptner_client *c,
                                             const gptner_config *cfg,
                                             gptner_error *err)
{
    const char *kept = gpn_client_keep(c, gpn_env_get("OPENAI_CUSTOM_HEADERS"));
    char *line = (char *)(uintptr_t)kept; /* our copy, cut into pieces */
    size_t given = cfg->headers != NULL ? cfg->n_headers : 0;
    size_t room = given + 1;
    gptner_header *all;
    size_t n, i;
    for (i = 0; kept != NULL && kept[i] != '\0'; i++)
        room += kept[i] == '\n';
    all = (gptner_header *)gpn_client_copy(c, NULL, room * sizeof *all);
    for (n = 0; all != NULL && n < given; n++) {
        all[n].name = gpn_client_keep(c, cfg->headers[n].name);
        all[n].value = gpn_client_keep(c, cfg->headers[n].value);
    }
    while (all != NULL && line != NULL) {
        char *end = strchr(line, '\n');
        char *colon;
        if (end != NULL)
            *end++ = '\0';
        colon = strchr(line, ':');
        if (colon != NULL) {
            *colon = '\0';
            all[n].name = gpn_cut(line);
            all[n].value = gpn_cut(colon + 1);
            n += !gpn_header_in(all, n, all[n].name);
        }
        line = end;
    }
    for (i = 0; i < n && !c->no_memory; i++) {
        gptner_status status = gpn_header_check(&all[i], err);
        if (status != GPTNER_OK)
            return status;
    }
    c->cfg.headers = all;
    c->cfg.n_headers = all != NULL ? n : 0;
    return GPTNER_OK;
}

/* --- where requests go --- */

static void gpn_origin_deinit(gpn_origin *o)
{
    gpn_mem_wipe(o->proxy_auth, sizeof o->proxy_auth);
    gpn_url_deinit(&o->proxy);
    gpn_url_deinit(&o->url);
}

static gptner_status gpn_origin_set_proxy(gptner_client *c, gpn_origin *o,
                                          gptner_error *err)
{
    gptner_str user, password;
    gptner_status status;
    char plain[340];
    size_t len;
    if (c->cfg.transport != NULL)
        return GPTNER_OK; /* the user's own way to the server */
    status = gpn_proxy_for(&c->env, c->cfg.proxy, c->cfg.no_proxy, &o->url,
                           &o->proxy, err);
    if (status != GPTNER_OK || o->proxy.host == NULL)
        return status;
    o->peer.proxy_host = o->proxy.host;
    o->peer.proxy_port = o->proxy.port;
    o->plain_proxy = !o->url.tls;
    user = o->proxy.user;
    password = o->proxy.password;
    if (user.ptr == NULL)
        return GPTNER_OK;
    if (user.len + password.len + 1 >= sizeof plain)
        return gpn_fail(err, GPTNER_ERR_CONFIG,
                        "proxy %s: user name and password are too long",
                        o->proxy.host);
    len = gpn_format(plain, sizeof plain, "%.*s:%.*s", (int)user.len, user.ptr,
                     (int)password.len, password.len > 0 ? password.ptr : "");
    memcpy(o->proxy_auth, "Basic ", 6);
    len = gpn_base64_encode(plain, len, o->proxy_auth + 6);
    o->proxy_auth[6 + len] = '\0';
    gpn_mem_wipe(plain, sizeof plain);
    o->peer.proxy_auth = o->proxy_auth;
    return GPTNER_OK;
}

static gptner_status gpn_origin_init(gptner_client *c, gpn_origin *o,
                                     gptner_str url, gptner_error *err)
{
    gptner_status status = gpn_url_parse(&c->env, url, &o->url, err);
    if (status != GPTNER_OK)
        return status;
    if (!gpn_url_header_host(&o->url, o->host, sizeof o->host))
        return gpn_fail(err, GPTNER_ERR_CONFIG, "URL: host name too long");
    o->peer.host = o->url.host;
    o->peer.port = o->url.port;
    o->peer.tls = o->url.tls;
    o->peer.name = o->url.name;
    return gpn_origin_set_proxy(c, o, err);
}

/* What stands before the target of a request there. */
static GPN_NOINLINE void gpn_origin_add(const gpn_origin *o, gpn_buf *target)
{
    if (o->plain_proxy) {
        gpn_buf_add_s(target, "http://");
        gpn_buf_add_s(target, o->host);
    }
}

static void gpn_origin_free(const gptner_client *c, gpn_origin *o)
{
    gpn_origin_deinit(o);
    gpn_mem_free(&c->env, o);
}

static bool gpn_origin_same(const gpn_url *a, const gpn_url *b)
{
    return a->tls == b->tls && a->port == b->port &&
           strcmp(a->host, b->host) == 0;
}

/* Where url leads: its origin, remembered until the client is freed, and the
 * target that a request there names. */
static gptner_status gpn_client_origin(gptner_client *c, gptner_str url,
                                       bool from_tls, const gpn_origin **out,
                                       gpn_buf *target, gptner_error *err)
{
    gpn_origin *fresh = (gpn_origin *)gpn_mem_zalloc(&c->env, sizeof *fresh);
    const gpn_origin *o = &c->home;
    gptner_status status;
    if (fresh == NULL)
        return gpn_no_memory(err, "redirect");
    status = gpn_origin_init(c, fresh, url, err);
    if (status == GPTNER_ERR_INVALID_ARGUMENT || status == GPTNER_ERR_LIMIT ||
        (status == GPTNER_OK && from_tls && !fresh->url.tls))
        status = gpn_fail(err, GPTNER_ERR_REDIRECT,
                          "redirect: its Location is no http or https URL, or "
                          "leads from https to http");
    if (status == GPTNER_OK) {
        gpn_buf_clear(target);
        gpn_origin_add(fresh, target);
        gpn_buf_add_s(target, fresh->url.target);
        gpn_mutex_lock(&c->lock);
        if (!gpn_origin_same(&o->url, &fresh->url))
            for (o = c->origins;
                 o != NULL && !gpn_origin_same(&o->url, &fresh->url);)
                o = o->next;
        if (o == NULL && c->n_origins < GPN_ORIGINS_MAX) {
            o = fresh;
            fresh->next = c->origins;
            c->origins = fresh;
            c->n_origins++;
        }
        gpn_mutex_unlock(&c->lock);
        if (o == NULL)
            status = gpn_fail(err, GPTNER_ERR_REDIRECT,
                              "redirect to %s: to more than %d other servers",
                              fresh->url.host, (int)GPN_ORIGINS_MAX);
        *out = o;
    }
    if (status != GPTNER_OK || o != fresh)
        gpn_origin_free(c, fresh);
    return status;
}

/* path below the base URL, with the queries of both joined. path NULL or empty:
 * the base URL as it stands. */
static void gpn_target_add(const gptner_client *c, gpn_buf *out,
                           const char *path)
{
    bool query = path != NULL && strchr(path, '?') != NULL;
    gpn_origin_add(&c->home, out);
    if (path == NULL || *path == '\0') {
        gpn_buf_add_s(out, c->home.url.target);
        return;
    }
    gpn_buf_add_str(out, c->path);
    if (*path != '/')
        gpn_buf_add_c(out, '/');
    gpn_buf_add_s(out, path);
    if (c->query.len > 0) {
        gpn_buf_add_c(out, query ? '&' : '?');
        gpn_buf_add_str(out, c->query);
    }
}

/* The text in b, which ends here, for as long as the client lives. */
static gptner_str gpn_client_take(gptner_client *c, gpn_buf *b)
{
    gptner_str text = gpn_str("", 0);
    if (b->len > 0)
        text = gpn_arena_str(&c->arena, gpn_str(b->data, b->len));
    c->no_memory |= b->status != GPTNER_OK || text.ptr == NULL;
    gpn_buf_deinit(b);
    return text;
}

static gptner_str gpn_client_target(gptner_client *c, const char *path)
{
    gpn_buf b;
    gpn_buf_init(&b, &c->env, 1 << 16);
    gpn_target_add(c, &b, path);
    return gpn_client_take(c, &b);
}

/* Take the base URL apart: origin, path, query (with Azure's api-version). */
static gptner_status gpn_client_set_base(gptner_client *c, gptner_error *err)
{
    gptner_str target;
    gpn_buf b;
    size_t mark;
    gptner_status status = gpn_origin_init(
        c, &c->home, gpn_str_trim(gptner_str_from(c->cfg.base_url)), err);
    if (status != GPTNER_OK)
        return status;
    if (c->home.url.user.ptr != NULL)
        return gpn_refuse(err, "base_url: holds a user name; give it by "
                               "config.headers instead");
    target = gptner_str_from(c->home.url.target);
    gpn_buf_init(&b, &c->env, 1 << 16);
    mark = gpn_str_find(target, "?");
    if (mark < target.len) {
        gpn_buf_add_s(&b, target.ptr + mark + 1);
        target.len = mark;
    }
    while (target.len > 0 && target.ptr[target.len - 1] == '/')
        target.len--;
    c->path = target;
    if (c->cfg.api_version != NULL &&
        strstr(c->home.url.target, "api-version=") == NULL) {
        gpn_buf_add_s(&b, b.len > 0 ? "&api-version=" : "api-version=");
        gpn_percent_encode(&b, gptner_str_from(c->cfg.api_version));
    }
    c->query = gpn_client_take(c, &b);
    c->targets[0] = gpn_client_target(c, "/chat/completions");
    c->targets[1] = gpn_client_target(c, "/completions");
    c->official = gpn_text_ends(c->home.url.name, "openai.com");
    return GPTNER_OK;
}

/* --- heads of requests --- */

/* What a head is made of. */
typedef struct gpn_head {
    gptner_client *client;
    const gpn_origin *origin;
    bool own; /* the client's own server: it gets the key */
    bool has_body;
    const char *content_type;     /* of the body */
    const gptner_header *headers; /* of this request; they replace the rest */
    size_t n_headers;
} gpn_head;

static bool gpn_head_replaced(const gpn_head *h, const char *name)
{
    const gptner_config *cfg = &h->client->cfg;
    return gpn_header_in(h->headers, h->n_headers, name) ||
           (h->own && gpn_header_in(cfg->headers, cfg->n_headers, name));
}

static void gpn_head_field(const gpn_head *h, gpn_buf *out, const char *name,
                           const char *value)
{
    if (value != NULL && !gpn_head_replaced(h, name))
        gpn_http_header_c(out, name, value);
}

/* The key, in the field that the server reads. It was checked before. */
static void gpn_head_auth(const gpn_head *h, gpn_buf *out)
{
    const gptner_config *cfg = &h->client->cfg;
    bool bearer = cfg->auth == GPTNER_AUTH_BEARER;
    if (cfg->api_key == NULL ||
        gpn_head_replaced(h, bearer ? "Authorization" : "api-key"))
        return;
    gpn_buf_add_s(out, bearer ? "Authorization: Bearer " : "api-key: ");
    gpn_buf_add_s(out, cfg->api_key);
    gpn_buf_add_s(out, "\r\n");
}

/* All header fields but those that depend on the body's length. A server that
 * is not the client's own gets neither key nor anything the user added. */
static void gpn_head_fields(const gpn_head *h, gpn_buf *out)
{
    const gptner_config *cfg = &h->client->cfg;
    size_t i;
    gpn_http_header_c(out, "Host", h->origin->host);
    if (h->origin->plain_proxy && h->origin->peer.proxy_auth != NULL)
        gpn_http_header_c(out, "Proxy-Authorization", h->origin->proxy_auth);
    gpn_head_field(h, out, "User-Agent", "gptner/" GPTNER_VERSION);
    gpn_head_field(h, out, "Accept", "application/json");
    gpn_http_header_c(out, "Accept-Encoding", "identity");
    if (h->has_body)
        gpn_head_field(h, out, "Content-Type", h->content_type);
    if (!h->own)
        return;
    gpn_head_auth(h, out);
    gpn_head_field(h, out, "OpenAI-Organization", cfg->organization);
    gpn_head_field(h, out, "OpenAI-Project", cfg->project);
    for (i = 0; i < cfg->n_headers; i++)
        if (!gpn_header_in(h->headers, h->n_headers, cfg->headers[i].name))
            gpn_http_header_c(out, cfg->headers[i].name, cfg->headers[i].value);
    for (i = 0; i < h->n_headers; i++)
        gpn_http_header_c(out, h->headers[i].name, h->headers[i].value);
}

static void gpn_head_end(gpn_buf *out, bool has_body, uint64_t length)
{
    if (has_body) {
        gpn_buf_add_s(out, "Content-Length: ");
        gpn_buf_add_u64(out, length);
        gpn_buf_add_s(out, "\r\n");
    }
    gpn_http_end_head(out);
}

static gptner_status gpn_client_set_head(gptner_client *c, gptner_error *err)
{
    gpn_head h = GPN_ZERO;
    h.client = c;
    h.origin = &c->home;
    h.own = true;
    h.has_body = true;
    h.content_type = "application/json";
    gpn_buf_init(&c->head, &c->env, GPN_HEAD_CAP);
    c->head.secret = true;
    gpn_head_fields(&h, &c->head);
    if (c->head.status == GPTNER_OK)
        return GPTNER_OK;
    return gpn_fail(err,
                    c->head.status == GPTNER_ERR_NO_MEMORY
                        ? GPTNER_ERR_NO_MEMORY
                        : GPTNER_ERR_CONFIG,
                    "headers: organization, project or another value holds a "
                    "line break, or all together exceed 1 MiB");
}

/* --- making and ending a client --- */

/* Numbers of the configuration and what 0 means for them; a negative one means
 * no limit, or for a count none. */
typedef struct gpn_limit {
    uint16_t from; /* an int */
    uint16_t to;   /* an int64_t, or an int if is_count */
    int standard;
    bool is_count;
} gpn_limit;

static const gpn_limit gpn_limits[] = {
    {offsetof(gptner_config, max_retries),
     offsetof(gpn_pool_config, rules.max_retries), 5, true},
    {offsetof(gptner_config, max_throttle_retries),
     offsetof(gpn_pool_config, rules.max_throttle_retries), 20, true},
    {offsetof(gptner_config, max_bad_reply_retries),
     offsetof(gpn_pool_config, rules.max_bad_reply_retries), 2, true},
    {offsetof(gptner_config, max_workers),
     offsetof(gpn_pool_config, max_workers), 10, true},
    {offsetof(gptner_config, backoff_ms),
     offsetof(gpn_pool_config, rules.backoff_ms), 500, false},
    {offsetof(gptner_config, max_backoff_ms),
     offsetof(gpn_pool_config, rules.max_backoff_ms), 8000, false},
    {offsetof(gptner_config, max_retry_after_ms),
     offsetof(gpn_pool_config, rules.max_retry_after_ms), 120000, false},
    {offsetof(gptner_config, connect_timeout_ms),
     offsetof(gpn_pool_config, times.connect_ms), 10000, false},
    {offsetof(gptner_config, handshake_timeout_ms),
     offsetof(gpn_pool_config, times.handshake_ms), 10000, false},
    {offsetof(gptner_config, first_byte_timeout_ms),
     offsetof(gpn_pool_config, times.first_byte_ms), 300000, false},
    {offsetof(gptner_config, gap_timeout_ms),
     offsetof(gpn_pool_config, times.gap_ms), 60000, false},
    {offsetof(gptner_config, timeout_ms),
     offsetof(gpn_pool_config, times.attempt_ms), 600000, false}};

/* What goes to the pool as it stands. */
typedef struct gpn_pass {
    uint16_t from;
    uint16_t to;
    uint16_t size;
} gpn_pass;

/* clang-format off */
#define GPN_PASS(from, to)                                         \
    {offsetof(gptner_config, from), offsetof(gpn_pool_config, to), \
     sizeof((gpn_pool_config *)NULL)->to}
/* clang-format on */
static const gpn_pass gpn_passes[] = {
    GPN_PASS(max_threads, max_threads),
    GPN_PASS(max_head_bytes, http.max_head),
    GPN_PASS(max_headers, http.max_headers),
    GPN_PASS(max_body_bytes, max_body),
    GPN_PASS(transport, transport),
    GPN_PASS(ca_file, tls.ca_file),
    GPN_PASS(ca_dir, tls.ca_dir),
    GPN_PASS(ca_pem, tls.ca_pem),
    GPN_PASS(client_cert_file, tls.client_cert_file),
    GPN_PASS(client_key_file, tls.client_key_file),
    GPN_PASS(client_key_password, tls.client_key_password),
    GPN_PASS(insecure_skip_verify, tls.insecure_skip_verify),
    GPN_PASS(no_session_reuse, tls.no_session_reuse)};
#undef GPN_PASS

static void gpn_client_pool_config(gptner_config *k, gpn_pool_config *p)
{
    size_t i;
    memset(p, 0, sizeof *p);
    for (i = 0; i < GPN_COUNT(gpn_limits); i++) {
        const gpn_limit *l = &gpn_limits[i];
        int given = *(const int *)gpn_at(k, l->from);
        if (given == 0)
            given = l->standard;
        if (l->is_count)
            *(int *)gpn_at(p, l->to) = given < 0 ? 0 : given;
        else
            *(int64_t *)gpn_at(p, l->to) = given < 0 ? INT64_MAX : given;
    }
    if (p->rules.backoff_ms == INT64_MAX)
        p->rules.backoff_ms = 0;
    p->item_ms = k->item_timeout_ms == 0  ? 3600000
                 : k->item_timeout_ms < 0 ? INT64_MAX
                                          : k->item_timeout_ms;
    p->stack_bytes =
        k->thread_stack_bytes > 0 ? k->thread_stack_bytes : (size_t)128 * 1024;
    for (i = 0; i < GPN_COUNT(gpn_passes); i++)
        memcpy(gpn_at(p, gpn_passes[i].to), gpn_at(k, gpn_passes[i].from),
               gpn_passes[i].size);
}

/* A reader of text, with scratch for keys that are decoded. */
static GPN_NOINLINE void gpn_json_reader_on(gptner_json_reader *r,
                                            gptner_str text, char *scratch,
                                            size_t cap)
{
    gptner_json_reader_init(r, text.ptr, text.len, NULL);
    gptner_json_reader_scratch(r, scratch, cap);
}

/* Whether text is one JSON value of this type. */
static gptner_status gpn_json_require(const char *what, gptner_str text,
                                      gptner_json_type type, gptner_error *err)
{
    gptner_json_reader r;
    gptner_json_error why;
    gptner_json_type found;
    gptner_json_reader_init(&r, text.ptr, text.len, NULL);
    found = gptner_json_peek(&r);
    if (gptner_json_reader_finish(&r, &why) != GPTNER_OK)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "%s: not JSON: line %d, column %d: %s", what,
                        (int)why.line, (int)why.column, why.message);
    if (type != GPTNER_JSON_NONE && found != type)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "%s: is not a JSON %s", what,
                        type == GPTNER_JSON_ARRAY ? "array" : "object");
    return GPTNER_OK;
}

/* Does the object have this member? Keys that need much decoding are not those
 * we look for. */
static bool gpn_json_has(const char *object, const char *name)
{
    const char *names[2];
    char scratch[64];
    size_t which;
    gptner_json_reader r;
    names[0] = name;
    names[1] = NULL;
    if (object == NULL)
        return false;
    gpn_json_reader_on(&r, gpn_str_c(object), scratch, sizeof scratch);
    return gptner_json_enter_object(&r) &&
           gptner_json_next_member(&r, names, &which);
}

typedef struct gpn_json_option {
    char name[29];
    uint8_t type;  /* gptner_json_type; NONE: any */
    uint16_t from; /* in gptner_options */
} gpn_json_option;

/* The JSON texts of options, before they are taken as they stand. */
static gptner_status gpn_options_check(const gptner_options *o,
                                       gptner_error *err)
{
    static const gpn_json_option all[] = {
        {"options.tools_json", GPTNER_JSON_ARRAY,
         offsetof(gptner_options, tools_json)},
        {"options.tool_choice_json", GPTNER_JSON_NONE,
         offsetof(gptner_options, tool_choice_json)},
        {"options.extra_body_json", GPTNER_JSON_OBJECT,
         offsetof(gptner_options, extra_body_json)},
        {"options.schema_json", GPTNER_JSON_OBJECT,
         offsetof(gptner_options, schema_json)}};
    bool schema = o->format == GPTNER_FORMAT_JSON_SCHEMA;
    size_t i;
    if (o->n_stop > 4 || (o->n_stop > 0 && o->stop == NULL))
        return gpn_refuse(err, "options.stop: at most 4 texts");
    if (schema && o->schema_json == NULL)
        return gpn_refuse(err, "options.schema_json: missing");
    for (i = 0; i < (schema ? 4 : 3); i++) {
        const char *text =
            *(const char *const *)((const char *)o + all[i].from);
        if (text != NULL) {
            gptner_status status =
                gpn_json_require(all[i].name, gptner_str_from(text),
                                 (gptner_json_type)all[i].type, err);
            if (status != GPTNER_OK)
                return status;
        }
    }
    if (gpn_json_has(o->extra_body_json, "stream"))
        return gpn_refuse(err, "options.extra_body_json: holds \"stream\"; "
                               "use gptner_chat_stream()");
    return GPTNER_OK;
}

static gptner_status gpn_client_check(const gptner_config *k, gptner_error *err)
{
    if (k->max_workers < 0 || k->max_workers > 100000 || k->max_threads < 0)
        return gpn_fail(err, GPTNER_ERR_CONFIG,
                        "max_workers, max_threads: out of range (0: default)");
    if (k->transport != NULL &&
        (k->transport->connect_fn == NULL || k->transport->send_fn == NULL ||
         k->transport->recv_fn == NULL || k->transport->close_fn == NULL))
        return gpn_fail(err, GPTNER_ERR_CONFIG,
                        "transport: a function is missing");
    if ((k->client_cert_file == NULL) != (k->client_key_file == NULL))
        return gpn_fail(err, GPTNER_ERR_CONFIG,
                        "client_cert_file and client_key_file: one is "
                        "missing");
    return gpn_options_check(&k->options, err);
}

static gptner_status gpn_client_init(gptner_client *c, const gptner_config *cfg,
                                     gptner_error *err)
{
    gpn_pool_config pool;
    gptner_status status = gpn_client_check(cfg, err);
    if (status != GPTNER_OK)
        return status;
    c->cfg = *cfg;
    c->cfg.headers = NULL;
    c->cfg.n_headers = 0;
    if (cfg->max_body_bytes == 0)
        c->cfg.max_body_bytes = (size_t)64 << 20;
    gpn_client_keep_config(c);
    status = gpn_client_keep_headers(c, cfg, err);
    if (status == GPTNER_OK && !c->no_memory)
        status = gpn_client_check_key(c, err);
    if (status == GPTNER_OK && !c->no_memory)
        status = gpn_client_set_base(c, err);
    if (status == GPTNER_OK && !c->no_memory)
        status = gpn_client_set_head(c, err);
    if (status == GPTNER_OK && c->no_memory)
        status = gpn_no_memory(err, "client");
    if (status != GPTNER_OK)
        return status;
    if (!c->home.url.tls && c->cfg.api_key != NULL &&
        strncmp(c->home.url.host, "127.", 4) != 0 &&
        strcmp(c->home.url.host, "localhost") != 0)
        gpn_log(&c->env, GPTNER_LOG_WARN,
                "base_url: http:// sends the key to %s unencrypted",
                c->home.url.host);
    gpn_client_pool_config(&c->cfg, &pool);
    return gpn_pool_new(&c->env, &pool, &c->pool, err);
}

GPTNER_API gptner_status gptner_client_new(const gptner_config *cfg,
                                           gptner_client **out,
                                           gptner_error *err)
{
    gptner_config none = GPN_ZERO;
    gpn_env env;
    gptner_client *c;
    gptner_status status;
    if (out == NULL)
        return gpn_refuse(err, "client: out is NULL");
    *out = NULL;
    if (cfg == NULL)
        cfg = &none;
    if (!gpn_env_init(&env, &cfg->allocator, &cfg->hooks))
        return gpn_fail(err, GPTNER_ERR_CONFIG,
                        "allocator: set all three functions or none");
    env.log_fn = cfg->log_fn;
    env.log_user = cfg->log_user;
    env.log_level = cfg->log_level != 0 ? cfg->log_level : GPTNER_LOG_WARN;
    c = (gptner_client *)gpn_mem_zalloc(&env, sizeof *c);
    if (c == NULL)
        return gpn_no_memory(err, "client");
    c->env = env;
    if (!gpn_mutex_init(&c->lock)) {
        gpn_mem_free(&env, c);
        return gpn_fail(err, GPTNER_ERR_THREAD, "client: no mutex");
    }
    gpn_arena_init(&c->arena, &c->env, 2048);
    status = gpn_client_init(c, cfg, err);
    if (status != GPTNER_OK) {
        gptner_client_free(c);
        if (status == GPTNER_ERR_INVALID_ARGUMENT)
            status = GPTNER_ERR_CONFIG;
        if (err != NULL)
            err->status = status;
        return status;
    }
    *out = c;
    return GPTNER_OK;
}

/* The arena has the key, passwords, and headers that may be secrets. */
static void gpn_client_wipe(const gpn_arena *arena)
{
    gpn_chunk *chunk;
    for (chunk = arena->chunks; chunk != NULL; chunk = chunk->next)
        gpn_mem_wipe((char *)chunk + gpn_arena_round(sizeof *chunk),
                     chunk->used);
}

GPTNER_API void gptner_client_free(gptner_client *client)
{
    if (client == NULL)
        return;
    gpn_pool_free(client->pool);
    while (client->origins != NULL) {
        gpn_origin *o = client->origins;
        client->origins = o->next;
        gpn_origin_free(client, o);
    }
    gpn_origin_deinit(&client->home);
    gpn_buf_deinit(&client->head);
    gpn_client_wipe(&client->arena);
    gpn_arena_deinit(&client->arena);
    gpn_mutex_deinit(&client->lock);
    gpn_mem_free(&client->env, client);
}

GPTNER_API void gptner_client_cancel(gptner_client *client)
{
    gpn_pool_cancel(client->pool);
}

GPTNER_API void gptner_client_reset(gptner_client *client)
{
    gpn_pool_reset(client->pool);
}

/* --- what a server refused, remembered --- */

/* FNV-1a. Two models with one hash would share what was learnt. */
static uint64_t gpn_model_hash(const char *model)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *model != '\0'; model++)
        hash = (hash ^ (unsigned char)*model) * UINT64_C(0x100000001b3);
    return hash;
}

/* The bits learnt for this model, more added. When the table is full the
 * oldest entry gives way: it is learnt again at the price of one request. */
static unsigned gpn_adapted(gptner_client *c, const char *model, unsigned more)
{
    uint64_t hash;
    gpn_learnt *l;
    size_t i;
    if (more == 0 && gpn_atomic_get(&c->has_learnt) == 0)
        return 0;
    hash = gpn_model_hash(model);
    gpn_mutex_lock(&c->lock);
    for (i = 0; i < GPN_LEARNT_MAX && c->learnt[i].model != hash;)
        i++;
    if (i == GPN_LEARNT_MAX && more != 0) {
        i = c->learnt_next++ % GPN_LEARNT_MAX;
        c->learnt[i].model = hash;
        c->learnt[i].bits = 0;
        gpn_atomic_set(&c->has_learnt, 1);
    }
    if (i < GPN_LEARNT_MAX) {
        l = &c->learnt[i];
        more |= l->bits;
        l->bits = more;
    }
    gpn_mutex_unlock(&c->lock);
    return more;
}

typedef struct gpn_adapt_rule {
    char param[24];
    unsigned bit;
} gpn_adapt_rule;

/* The bit that answers a refusal of param; 0: it is not ours to change. */
static unsigned gpn_adapt_bit(const gptner_options *o, gptner_str param,
                              bool bad_value)
{
    static const gpn_adapt_rule rules[] = {
        {"max_tokens", GPN_ADAPT_NEW_LIMIT},
        {"max_completion_tokens", GPN_ADAPT_OLD_LIMIT},
        {"temperature", GPN_ADAPT_TEMPERATURE},
        {"top_p", GPN_ADAPT_TOP_P},
        {"frequency_penalty", GPN_ADAPT_FREQUENCY},
        {"presence_penalty", GPN_ADAPT_PRESENCE},
        {"stream_options", GPN_ADAPT_STREAM_OPTIONS}};
    size_t i;
    for (i = 0; i < GPN_COUNT(rules); i++) {
        if (!gpn_str_eq_c(param, rules[i].param))
            continue;
        if (i < 2 && (bad_value || o->token_field != GPTNER_TOKEN_FIELD_AUTO))
            return 0;
        if (i >= 2 && i < 6 && o->send_sampling != GPTNER_AUTO)
            return 0;
        if (o->extra_body_json != NULL &&
            gpn_json_has(o->extra_body_json, rules[i].param))
            return 0; /* the caller's own */
        return rules[i].bit;
    }
    return 0;
}

/* --- request bodies --- */

/* What becomes a body. */
typedef struct gpn_ask {
    const gptner_client *client;
    const gptner_prompt *prompt;
    const gptner_options *options;
    unsigned adapt; /* GPN_ADAPT_* */
    bool stream;
    gptner_endpoint endpoint; /* set by gpn_body_write() */
} gpn_ask;

/* How a member of the body comes out of the options. */
typedef enum gpn_part {
    GPN_PART_MODEL,
    GPN_PART_PROMPT,      /* messages, or the prompt of a completion */
    GPN_PART_TEMPERATURE, /* not below 0 */
    GPN_PART_TOP_P,       /* above 0, not 1 */
    GPN_PART_PENALTY,     /* not 0, not GPTNER_OMIT */
    GPN_PART_LIMIT,
    GPN_PART_COUNT, /* above 1 */
    GPN_PART_STOP,
    GPN_PART_SEED,
    GPN_PART_TEXT, /* if there is one */
    GPN_PART_JSON, /* the same */
    GPN_PART_FORMAT,
    GPN_PART_STREAM,
    GPN_PART_STREAM_OPTIONS
} gpn_part;

typedef struct gpn_body_member {
    char key[24];
    uint16_t from;   /* offset in gptner_options */
    uint16_t unless; /* GPN_MODEL_* that forbid it */
    uint8_t refused; /* GPN_ADAPT_* that forbid it */
    uint8_t part;    /* gpn_part */
} gpn_body_member;

typedef struct gpn_body {
    const gpn_ask *ask;
    const gptner_options *o;
    unsigned flags; /* GPN_MODEL_*, resolved for these options */
    bool chat;
    gptner_json_writer w;
} gpn_body;

static bool gpn_role_leads(gptner_str role)
{
    return gpn_str_eq_c(role, "system") || gpn_str_eq_c(role, "developer");
}

static void gpn_body_message(gpn_body *b, gptner_str role, gptner_str content)
{
    gptner_json_write_object(&b->w);
    gptner_json_put_str(&b->w, "role", role);
    gptner_json_put_str(&b->w, "content", content);
    gptner_json_write_end(&b->w);
}

/* The system message, unless the conversation begins with its own. */
static void gpn_body_lead(gpn_body *b, gptner_str system, gptner_str first)
{
    if (system.len > 0 && !gpn_role_leads(first))
        gpn_body_message(b, gptner_str_from("system"), system);
}

/* The items of a conversation in JSON. */
static void gpn_body_items(gpn_body *b, gptner_str json, gptner_str system)
{
    static const char *const names[] = {"role", NULL};
    char scratch[64];
    size_t which;
    gptner_str text = GPN_ZERO;
    gptner_json_reader r;
    gpn_json_reader_on(&r, json, scratch, sizeof scratch);
    gptner_json_enter_array(&r);
    if (gptner_json_next_item(&r) && gptner_json_enter_object(&r) &&
        gptner_json_next_member(&r, names, &which))
        gptner_json_read_str(&r, &text);
    gpn_body_lead(b, system, text);
    gpn_json_reader_on(&r, json, scratch, sizeof scratch);
    gptner_json_enter_array(&r);
    while (gptner_json_next_item(&r) && gptner_json_read_raw(&r, &text))
        gptner_json_write_raw(&b->w, text);
}

static void gpn_body_messages(gpn_body *b, gptner_str system)
{
    const gptner_prompt *p = b->ask->prompt;
    gptner_str none = GPN_ZERO;
    gptner_str user = gptner_str_from("user");
    size_t i;
    gptner_json_write_array(&b->w);
    if (p->n_messages > 0) {
        gpn_body_lead(b, system, p->messages[0].role);
        for (i = 0; i < p->n_messages; i++) {
            const gptner_message *m = &p->messages[i];
            if (m->json.ptr != NULL)
                gptner_json_write_raw(&b->w, m->json);
            else
                gpn_body_message(b, m->role.ptr != NULL ? m->role : user,
                                 m->content);
        }
    } else if (p->messages_json.ptr != NULL) {
        gpn_body_items(b, p->messages_json, system);
    } else {
        gpn_body_lead(b, system, none);
        gpn_body_message(b, user, p->text);
    }
    gptner_json_write_end(&b->w);
}

/* messages; for a completion the system text, an empty line, and the text. */
static void gpn_body_prompt(gpn_body *b)
{
    gptner_str system = b->ask->prompt->system;
    if (system.ptr == NULL)
        system = gptner_str_from(b->ask->client->cfg.system);
    gptner_json_write_key(&b->w, b->chat ? "messages" : "prompt");
    if (b->chat) {
        gpn_body_messages(b, system);
        return;
    }
    gptner_json_write_str_begin(&b->w);
    if (system.len > 0) {
        gptner_json_write_str_part(&b->w, system);
        gptner_json_write_str_part(&b->w, gpn_str("\n\n", 2));
    }
    gptner_json_write_str_part(&b->w, b->ask->prompt->text);
    gptner_json_write_str_end(&b->w);
}

/* The limit of the answer, under the name that model and server read: the new
 * one goes to OpenAI itself, the old one elsewhere, for servers are known that
 * ignore the new one without a word (openai-api.md 2.2). */
static void gpn_body_limit(gpn_body *b)
{
    const gptner_options *o = b->o;
    bool renamed =
        (b->flags & GPN_MODEL_NEW_LIMIT) != 0 || b->ask->client->official;
    int limit = o->max_tokens != 0 ? o->max_tokens : 512;
    if (o->token_field != GPTNER_TOKEN_FIELD_AUTO)
        renamed = o->token_field == GPTNER_TOKEN_FIELD_MAX_COMPLETION_TOKENS;
    else if ((b->ask->adapt & GPN_ADAPT_NEW_LIMIT) != 0)
        renamed = true;
    else if ((b->ask->adapt & GPN_ADAPT_OLD_LIMIT) != 0)
        renamed = false;
    if (limit > 0)
        gptner_json_put_int64(
            &b->w, renamed && b->chat ? "max_completion_tokens" : "max_tokens",
            limit);
}

static void gpn_body_stop(gpn_body *b)
{
    size_t i;
    gptner_json_put_array(&b->w, "stop");
    for (i = 0; i < b->o->n_stop; i++)
        gptner_json_write_string(&b->w, b->o->stop[i]);
    gptner_json_write_end(&b->w);
}

static void gpn_body_format(gpn_body *b)
{
    const gptner_options *o = b->o;
    bool schema = o->format == GPTNER_FORMAT_JSON_SCHEMA;
    gptner_json_put_object(&b->w, "response_format");
    gptner_json_put_string(&b->w, "type",
                           schema ? "json_schema" : "json_object");
    if (schema) {
        gptner_json_put_object(&b->w, "json_schema");
        gptner_json_put_string(
            &b->w, "name", o->schema_name != NULL ? o->schema_name : "answer");
        gptner_json_put_bool(&b->w, "strict", o->schema_strict != GPTNER_NO);
        gptner_json_put_raw(&b->w, "schema", gptner_str_from(o->schema_json));
        gptner_json_write_end(&b->w);
    }
    gptner_json_write_end(&b->w);
}

static void gpn_body_stream_options(gpn_body *b)
{
    /* obfuscation is random padding, which costs bytes */
    static const char official[] =
        "{\"include_usage\":true,\"include_obfuscation\":false}";
    gptner_json_put_raw(&b->w, "stream_options",
                        gpn_str_c(b->ask->client->official
                                      ? official
                                      : "{\"include_usage\":true}"));
}

static const gpn_body_member gpn_body_members[] = {
    {"model", 0, 0, 0, GPN_PART_MODEL},
    {"messages", 0, 0, 0, GPN_PART_PROMPT},
    {"temperature", offsetof(gptner_options, temperature),
     GPN_MODEL_NO_SAMPLING, GPN_ADAPT_TEMPERATURE, GPN_PART_TEMPERATURE},
    {"top_p", offsetof(gptner_options, top_p), GPN_MODEL_NO_SAMPLING,
     GPN_ADAPT_TOP_P, GPN_PART_TOP_P},
    {"frequency_penalty", offsetof(gptner_options, frequency_penalty),
     GPN_MODEL_NO_PENALTY, GPN_ADAPT_FREQUENCY, GPN_PART_PENALTY},
    {"presence_penalty", offsetof(gptner_options, presence_penalty),
     GPN_MODEL_NO_PENALTY, GPN_ADAPT_PRESENCE, GPN_PART_PENALTY},
    {"max_tokens", 0, 0, 0, GPN_PART_LIMIT},
    {"n", offsetof(gptner_options, n), 0, 0, GPN_PART_COUNT},
    {"stop", 0, GPN_MODEL_NO_STOP, 0, GPN_PART_STOP},
    {"seed", 0, 0, 0, GPN_PART_SEED},
    {"reasoning_effort", offsetof(gptner_options, reasoning_effort),
     GPN_MODEL_NO_EFFORT | GPN_MODEL_COMPLETIONS, 0, GPN_PART_TEXT},
    {"response_format", 0, GPN_MODEL_COMPLETIONS, 0, GPN_PART_FORMAT},
    {"tools", offsetof(gptner_options, tools_json), GPN_MODEL_COMPLETIONS, 0,
     GPN_PART_JSON},
    {"tool_choice", offsetof(gptner_options, tool_choice_json),
     GPN_MODEL_COMPLETIONS, 0, GPN_PART_JSON},
    {"stream", 0, 0, 0, GPN_PART_STREAM},
    {"stream_options", 0, 0, GPN_ADAPT_STREAM_OPTIONS,
     GPN_PART_STREAM_OPTIONS}};

/* A number that is worth sending. */
static bool gpn_body_sends(unsigned part, double v)
{
    if (part == GPN_PART_TEMPERATURE)
        return !(v < 0.0); /* a NaN is refused by the writer */
    if (part == GPN_PART_TOP_P)
        return v > 0.0 && (v < 1.0 || v > 1.0);
    return v > GPTNER_OMIT && (v < 0.0 || v > 0.0);
}

static void gpn_body_put(gpn_body *b, const gpn_body_member *m)
{
    const gptner_options *o = b->o;
    const void *from = (const char *)o + m->from;
    const char *text;
    switch (m->part) {
    case GPN_PART_MODEL:
        gptner_json_put_string(&b->w, m->key, gpn_model_of(o));
        break;
    case GPN_PART_PROMPT:
        gpn_body_prompt(b);
        break;
    case GPN_PART_TEMPERATURE:
    case GPN_PART_TOP_P:
    case GPN_PART_PENALTY:
        if (gpn_body_sends(m->part, *(const double *)from))
            gptner_json_put_double(&b->w, m->key, *(const double *)from);
        break;
    case GPN_PART_LIMIT:
        gpn_body_limit(b);
        break;
    case GPN_PART_COUNT:
        if (o->n > 1)
            gptner_json_put_int64(&b->w, m->key, o->n);
        break;
    case GPN_PART_STOP:
        if (o->n_stop > 0)
            gpn_body_stop(b);
        break;
    case GPN_PART_SEED:
        if (o->seed != NULL)
            gptner_json_put_int64(&b->w, m->key, *o->seed);
        break;
    case GPN_PART_TEXT:
    case GPN_PART_JSON:
        text = *(const char *const *)from;
        if (text != NULL && m->part == GPN_PART_TEXT)
            gptner_json_put_string(&b->w, m->key, text);
        else if (text != NULL)
            gptner_json_put_raw(&b->w, m->key, gptner_str_from(text));
        break;
    case GPN_PART_FORMAT:
        if (o->format != GPTNER_FORMAT_TEXT)
            gpn_body_format(b);
        break;
    case GPN_PART_STREAM:
        if (b->ask->stream)
            gptner_json_put_bool(&b->w, m->key, true);
        break;
    default:
        if (b->ask->stream)
            gpn_body_stream_options(b);
        break;
    }
}

/* The caller's members, as they stand. */
static void gpn_body_extra(gpn_body *b)
{
    char scratch[256];
    gptner_json_reader r;
    gptner_str key, value;
    gptner_str extra = gptner_str_from(b->o->extra_body_json);
    gpn_json_reader_on(&r, extra, scratch, sizeof scratch);
    gptner_json_enter_object(&r);
    while (gptner_json_next_key(&r, &key)) {
        gptner_json_write_key_str(&b->w, key);
        gptner_json_read_raw(&r, &value);
        gptner_json_write_raw(&b->w, value);
    }
    if (r.error.status != GPTNER_OK)
        gpn_json_w_fail(&b->w, GPTNER_ERR_INVALID_ARGUMENT,
                        "extra_body_json: a key is too long");
}

/* Does one of the caller's extra members stand in for ours? */
static bool gpn_body_replaced(const gpn_body *b, const gpn_body_member *m)
{
    const char *extra = b->o->extra_body_json;
    if (extra == NULL)
        return false;
    if (m->part == GPN_PART_PROMPT && !b->chat)
        return gpn_json_has(extra, "prompt");
    return gpn_json_has(extra, m->key) ||
           (m->part == GPN_PART_LIMIT &&
            gpn_json_has(extra, "max_completion_tokens"));
}

static void gpn_body_write_members(gpn_body *b)
{
    size_t i;
    for (i = 0; i < GPN_COUNT(gpn_body_members); i++) {
        const gpn_body_member *m = &gpn_body_members[i];
        if ((b->flags & m->unless) == 0 && (b->ask->adapt & m->refused) == 0 &&
            !gpn_body_replaced(b, m))
            gpn_body_put(b, m);
    }
    if (b->o->extra_body_json != NULL)
        gpn_body_extra(b);
}

/* A body that the caller wrote. Its endpoint follows from what it holds. A
 * stream is asked for by putting the member in front. */
static gptner_status gpn_body_own(gpn_ask *ask, gpn_buf *out, gptner_error *err)
{
    static const char *const names[] = {"messages", "prompt",         "input",
                                        "stream",   "stream_options", NULL};
    gptner_str seen[5]; /* the members of these names, as they stand */
    gptner_str body = ask->prompt->body_json;
    char scratch[256];
    gptner_json_reader r;
    size_t which;
    gptner_status status =
        gpn_json_require("body_json", body, GPTNER_JSON_OBJECT, err);
    if (status != GPTNER_OK)
        return status;
    memset(seen, 0, sizeof seen);
    gpn_json_reader_on(&r, body, scratch, sizeof scratch);
    gptner_json_enter_object(&r);
    while (gptner_json_next_member(&r, names, &which))
        gptner_json_read_raw(&r, &seen[which]);
    ask->endpoint = ask->options->endpoint;
    if (ask->endpoint == GPTNER_ENDPOINT_AUTO)
        ask->endpoint = seen[0].ptr != NULL   ? GPTNER_ENDPOINT_CHAT
                        : seen[1].ptr != NULL ? GPTNER_ENDPOINT_COMPLETIONS
                        : seen[2].ptr != NULL ? GPTNER_ENDPOINT_EMBEDDINGS
                                              : GPTNER_ENDPOINT_CHAT;
    if (seen[3].ptr != NULL && gpn_str_eq_c(seen[3], "true") != ask->stream)
        return gpn_refuse(err, "body_json: its member \"stream\" does not fit "
                               "this call; leave it out");
    if (ask->stream && seen[3].ptr == NULL) {
        size_t open = gpn_str_find(body, "{") + 1;
        body = gpn_skip_space(gpn_str(body.ptr + open, body.len - open));
        gpn_buf_add_s(out, "{\"stream\":true");
        if (seen[4].ptr == NULL && (ask->adapt & GPN_ADAPT_STREAM_OPTIONS) == 0)
            gpn_buf_add_s(out, ",\"stream_options\":{\"include_usage\":true}");
        gpn_buf_add_s(out, *body.ptr == '}' ? "" : ",");
    }
    gpn_buf_add_str(out, body);
    return out->status == GPTNER_OK ? GPTNER_OK
                                    : gpn_no_memory(err, "request body");
}

/* JSON from the caller that goes into a body. */
static gptner_status gpn_ask_check(const gpn_ask *ask, gptner_error *err)
{
    const gptner_prompt *p = ask->prompt;
    gptner_status status = GPTNER_OK;
    size_t i;
    if (ask->options != &ask->client->cfg.options)
        status = gpn_options_check(ask->options, err);
    for (i = 0; i < p->n_messages && status == GPTNER_OK; i++)
        if (p->messages[i].json.ptr != NULL)
            status = gpn_json_require("a message's json", p->messages[i].json,
                                      GPTNER_JSON_OBJECT, err);
    if (status != GPTNER_OK || p->n_messages > 0)
        return status;
    if (p->messages_json.ptr != NULL)
        return gpn_json_require("messages_json", p->messages_json,
                                GPTNER_JSON_ARRAY, err);
    if (p->text.ptr == NULL)
        status =
            gpn_refuse(err, "prompt: has neither text nor messages nor a body");
    return status;
}

/* Append the body of the request that ask describes to out: the same text for
 * a request now and for a line of a batch. Sets ask->endpoint. */
static gptner_status gpn_body_write(gpn_ask *ask, gpn_buf *out,
                                    gptner_error *err)
{
    const char *model = gpn_model_of(ask->options);
    const char *wrong = NULL;
    gpn_body b;
    gptner_status status;
    if (ask->prompt->body_json.ptr != NULL)
        return gpn_body_own(ask, out, err);
    status = gpn_ask_check(ask, err);
    if (status != GPTNER_OK)
        return status;
    b.ask = ask;
    b.o = ask->options;
    b.flags = gpn_model_flags(model);
    ask->endpoint = gpn_model_endpoint(b.o, b.flags);
    b.flags = gpn_model_resolve(b.o, b.flags, ask->endpoint);
    b.chat = ask->endpoint == GPTNER_ENDPOINT_CHAT;
    if (ask->endpoint == GPTNER_ENDPOINT_EMBEDDINGS)
        wrong = "makes embeddings; use gptner_embed()";
    else if (!b.chat && (ask->prompt->n_messages > 0 ||
                         ask->prompt->messages_json.ptr != NULL))
        wrong = "takes a text, no conversation; or set options.endpoint";
    if (wrong != NULL)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT, "model %s: %s", model,
                        wrong);
    gpn_json_writer_init(&b.w, out);
    b.w.refuse_invalid = true;
    b.w.trust_raw = true; /* gpn_ask_check() has seen it */
    gptner_json_write_object(&b.w);
    gpn_body_write_members(&b);
    gptner_json_write_end(&b.w);
    status = gptner_json_writer_finish(&b.w, NULL);
    if (status == GPTNER_OK)
        return GPTNER_OK;
    return gpn_fail(err, status, "request body: %s",
                    gptner_json_writer_message(&b.w));
}

/* --- replies --- */

enum { GPN_CHOICES_FEW = 4, GPN_CHOICES_MAX = 1024 };

/* What was found in a reply, as views into it. */
typedef struct gpn_fields {
    const gpn_env *env;
    char *text; /* the reply, which is decoded in place */
    gptner_str owned_by;
    int64_t created;
    /* Takes an item of the list in the reply; NULL: it is a choice. */
    void (*item_fn)(struct gpn_fields *f, gptner_json_reader *r);
    void *items;            /* for item_fn */
    gptner_choice *choices; /* few, or on the heap */
    size_t n_choices;
    size_t room;
    bool listed;          /* there was a list */
    bool answered;        /* a choice had a message or a text */
    bool failed;          /* there was an error that is true */
    gptner_status status; /* no memory; too many choices */
    gptner_result r;      /* all but its choices */
    gptner_choice few[GPN_CHOICES_FEW];
} gpn_fields;

static void gpn_fields_init(gpn_fields *f, const gpn_env *env, char *text)
{
    memset(f, 0, sizeof *f);
    gpn_result_blank(&f->r);
    f->env = env;
    f->text = text;
    f->choices = f->few;
    f->room = GPN_CHOICES_FEW;
}

static void gpn_fields_deinit(gpn_fields *f)
{
    if (f->choices != f->few)
        gpn_mem_free(f->env, f->choices);
}

/* The bytes behind a view into the reply. */
static char *gpn_fields_edit(const gpn_fields *f, gptner_str view)
{
    return f->text + (view.ptr - f->text);
}

static gptner_choice *gpn_fields_add(gpn_fields *f)
{
    gptner_choice *c;
    if (f->n_choices == f->room) {
        void *more = f->room < GPN_CHOICES_MAX
                         ? gpn_mem_alloc(f->env, 4 * f->room * sizeof *c)
                         : NULL;
        if (more == NULL) {
            f->status = f->room < GPN_CHOICES_MAX ? GPTNER_ERR_NO_MEMORY
                                                  : GPTNER_ERR_LIMIT;
            return NULL;
        }
        memcpy(more, f->choices, f->room * sizeof *c);
        gpn_fields_deinit(f);
        f->choices = (gptner_choice *)more;
        f->room *= 4;
    }
    c = &f->choices[f->n_choices];
    memset(c, 0, sizeof *c);
    c->index = (int64_t)f->n_choices++;
    return c;
}

/* How a member is read. The offset that stands beside is that of what it goes
 * to; a nested object goes on from there with a table of its own. */
typedef enum gpn_kind {
    GPN_KIND_SKIP,
    GPN_KIND_TEXT,  /* a string, or the text of a number: codes are either */
    GPN_KIND_FLAT,  /* the same, of an error without an object of its own */
    GPN_KIND_FIRST, /* a string, unless there is one */
    GPN_KIND_JSON,  /* an array or object as it stands, unless empty */
    GPN_KIND_COUNT, /* an integer; one below 0 or none changes nothing */
    GPN_KIND_TIME,  /* Unix seconds as integer, fraction or string */
    GPN_KIND_CONTENT,
    GPN_KIND_MESSAGE,
    GPN_KIND_USAGE,
    GPN_KIND_CACHED,
    GPN_KIND_REASONING,
    GPN_KIND_FUNCTION, /* of a tool call in a stream */
    GPN_KIND_LIST,
    GPN_KIND_ERROR,
    GPN_KIND_DETAIL,
    GPN_KIND_VECTOR, /* a string, or an array as it stands */
    GPN_KIND_LAST    /* of an array of texts */
} gpn_kind;

typedef struct gpn_member {
    char key[27]; /* "" ends a table */
    uint8_t kind;
    uint16_t to;
} gpn_member;

static const gpn_member gpn_message_members[] = {
    {"content", GPN_KIND_CONTENT, offsetof(gptner_choice, text)},
    {"refusal", GPN_KIND_TEXT, offsetof(gptner_choice, refusal)},
    {"reasoning_content", GPN_KIND_FIRST, offsetof(gptner_choice, reasoning)},
    {"reasoning", GPN_KIND_FIRST, offsetof(gptner_choice, reasoning)},
    {"tool_calls", GPN_KIND_JSON, offsetof(gptner_choice, tool_calls_json)},
    {"", GPN_KIND_SKIP, 0}};

static const gpn_member gpn_choice_members[] = {
    {"message", GPN_KIND_MESSAGE, 0},
    {"delta", GPN_KIND_MESSAGE, 0},
    {"text", GPN_KIND_FIRST, offsetof(gptner_choice, text)},
    {"finish_reason", GPN_KIND_TEXT, offsetof(gptner_choice, finish_reason)},
    {"index", GPN_KIND_COUNT, offsetof(gptner_choice, index)},
    {"logprobs", GPN_KIND_JSON, offsetof(gptner_choice, logprobs_json)},
    {"error", GPN_KIND_ERROR, 0},
    {"", GPN_KIND_SKIP, 0}};

static const gpn_member gpn_usage_members[] = {
    {"prompt_tokens", GPN_KIND_COUNT, offsetof(gptner_usage, prompt_tokens)},
    {"input_tokens", GPN_KIND_COUNT, offsetof(gptner_usage, prompt_tokens)},
    {"completion_tokens", GPN_KIND_COUNT,
     offsetof(gptner_usage, completion_tokens)},
    {"output_tokens", GPN_KIND_COUNT,
     offsetof(gptner_usage, completion_tokens)},
    {"total_tokens", GPN_KIND_COUNT, offsetof(gptner_usage, total_tokens)},
    {"prompt_cache_hit_tokens", GPN_KIND_COUNT,
     offsetof(gptner_usage, cached_tokens)},
    {"prompt_tokens_details", GPN_KIND_CACHED, 0},
    {"input_tokens_details", GPN_KIND_CACHED, 0},
    {"completion_tokens_details", GPN_KIND_REASONING, 0},
    {"output_tokens_details", GPN_KIND_REASONING, 0},
    {"", GPN_KIND_SKIP, 0}};

static const gpn_member gpn_cached_members[] = {
    {"cached_tokens", GPN_KIND_COUNT, offsetof(gptner_usage, cached_tokens)},
    {"", GPN_KIND_SKIP, 0}};

static const gpn_member gpn_reasoning_members[] = {
    {"reasoning_tokens", GPN_KIND_COUNT,
     offsetof(gptner_usage, reasoning_tokens)},
    {"", GPN_KIND_SKIP, 0}};

/* Of an error. */
static const gpn_member gpn_error_members[] = {
    {"message", GPN_KIND_TEXT, offsetof(gptner_result, error_message)},
    {"detail", GPN_KIND_TEXT, offsetof(gptner_result, error_message)},
    {"msg", GPN_KIND_TEXT, offsetof(gptner_result, error_message)},
    {"type", GPN_KIND_TEXT, offsetof(gptner_result, error_type)},
    {"code", GPN_KIND_TEXT, offsetof(gptner_result, error_code)},
    {"param", GPN_KIND_TEXT, offsetof(gptner_result, error_param)},
    {"loc", GPN_KIND_LAST, offsetof(gptner_result, error_param)},
    {"", GPN_KIND_SKIP, 0}};

static const gpn_member gpn_reply_members[] = {
    {"choices", GPN_KIND_LIST, 0},
    {"data", GPN_KIND_LIST, 0},
    {"usage", GPN_KIND_USAGE, offsetof(gpn_fields, r.usage)},
    {"id", GPN_KIND_TEXT, offsetof(gpn_fields, r.id)},
    {"model", GPN_KIND_TEXT, offsetof(gpn_fields, r.model)},
    {"system_fingerprint", GPN_KIND_TEXT,
     offsetof(gpn_fields, r.system_fingerprint)},
    {"error", GPN_KIND_ERROR, 0},
    {"message", GPN_KIND_FLAT, offsetof(gpn_fields, r.error_message)},
    {"type", GPN_KIND_FLAT, offsetof(gpn_fields, r.error_type)},
    {"code", GPN_KIND_FLAT, offsetof(gpn_fields, r.error_code)},
    {"param", GPN_KIND_FLAT, offsetof(gpn_fields, r.error_param)},
    {"detail", GPN_KIND_DETAIL, 0},
    {"owned_by", GPN_KIND_TEXT, offsetof(gpn_fields, owned_by)},
    {"created", GPN_KIND_TIME, offsetof(gpn_fields, created)},
    {"", GPN_KIND_SKIP, 0}};

static const gpn_member gpn_function_members[] = {
    {"name", GPN_KIND_TEXT, 0},
    {"arguments", GPN_KIND_TEXT, sizeof(gptner_str)},
    {"", GPN_KIND_SKIP, 0}};

static void gpn_read_value(gpn_fields *f, gptner_json_reader *r, unsigned kind,
                           void *to);

/* Read the next value if it is an object, by its table. */
static bool gpn_read_object(gpn_fields *f, gptner_json_reader *r,
                            const gpn_member *members, void *base)
{
    gptner_str key;
    if (!gptner_json_enter_object(r))
        return false;
    while (gptner_json_next_key(r, &key)) {
        const gpn_member *m = members;
        while (m->key[0] != '\0' &&
               (m->key[0] != *key.ptr || !gpn_str_eq_c(key, m->key)))
            m++;
        if (m->kind != GPN_KIND_SKIP)
            gpn_read_value(f, r, m->kind, gpn_at(base, m->to));
    }
    return true;
}

static void gpn_read_text(gptner_json_reader *r, gptner_str *out)
{
    if (gptner_json_peek(r) == GPTNER_JSON_NUMBER)
        gptner_json_read_raw(r, out);
    else
        gptner_json_read_str(r, out);
}

/* Append a text to out; what lies between is closed up. */
static void gpn_read_join(const gpn_fields *f, gptner_str *out, gptner_str more)
{
    if (out->ptr == NULL) {
        *out = more;
    } else if (more.ptr != NULL) {
        memmove(gpn_fields_edit(f, *out) + out->len, more.ptr, more.len);
        out->len += more.len;
    }
}

/* content: a string, or an array of parts of which the texts are joined. */
static void gpn_read_content(gpn_fields *f, gptner_json_reader *r,
                             gptner_str *out)
{
    static const gpn_member members[] = {
        {"type", GPN_KIND_TEXT, 0},
        {"text", GPN_KIND_TEXT, sizeof(gptner_str)},
        {"", GPN_KIND_SKIP, 0}};
    if (gptner_json_peek(r) != GPTNER_JSON_ARRAY) {
        gptner_json_read_str(r, out);
        return;
    }
    memset(out, 0, sizeof *out);
    gptner_json_enter_array(r);
    while (gptner_json_next_item(r)) {
        gptner_str part[2]; /* type, text */
        memset(part, 0, sizeof part);
        if (gptner_json_peek(r) == GPTNER_JSON_STRING)
            gptner_json_read_str(r, &part[1]);
        else
            gpn_read_object(f, r, members, part);
        if (part[0].ptr == NULL || gpn_str_eq_c(part[0], "text") ||
            gpn_str_eq_c(part[0], "output_text"))
            gpn_read_join(f, out, part[1]);
    }
}

/* An error: an object, a text, or something else that is true. Its members
 * stand in for those beside it. */
static void gpn_read_error(gpn_fields *f, gptner_json_reader *r)
{
    gptner_result *to = &f->r;
    double number = 0.0;
    bool truth = false;
    switch (gptner_json_peek(r)) {
    case GPTNER_JSON_STRING:
        gptner_json_read_str(r, &to->error_message);
        truth = to->error_message.len > 0;
        break;
    case GPTNER_JSON_BOOL:
        gptner_json_read_bool(r, &truth);
        break;
    case GPTNER_JSON_NUMBER:
        gptner_json_read_double(r, &number);
        truth = number < 0.0 || number > 0.0;
        break;
    case GPTNER_JSON_OBJECT:
        memset(&to->error_type, 0, sizeof to->error_type);
        memset(&to->error_code, 0, sizeof to->error_code);
        memset(&to->error_param, 0, sizeof to->error_param);
        memset(&to->error_message, 0, sizeof to->error_message);
        truth = gpn_read_object(f, r, gpn_error_members, to);
        break;
    default:
        break;
    }
    f->failed |= truth;
}

static void gpn_read_list(gpn_fields *f, gptner_json_reader *r)
{
    if (!gptner_json_enter_array(r))
        return;
    f->listed = true;
    while (gptner_json_next_item(r)) {
        gptner_choice *c;
        if (f->item_fn != NULL) {
            f->item_fn(f, r);
        } else if (gptner_json_peek(r) == GPTNER_JSON_OBJECT) {
            c = gpn_fields_add(f);
            if (c == NULL)
                continue;
            gpn_read_object(f, r, gpn_choice_members, c);
            f->answered |= c->text.ptr != NULL;
        }
    }
}

/* FastAPI's detail: a text, or an array of {"loc", "msg", "type"}, of which
 * the first is taken. */
static void gpn_read_detail(gpn_fields *f, gptner_json_reader *r)
{
    if (gptner_json_peek(r) == GPTNER_JSON_STRING)
        gptner_json_read_str(r, &f->r.error_message);
    else if (gptner_json_enter_array(r) && gptner_json_next_item(r)) {
        gpn_read_object(f, r, gpn_error_members, &f->r);
        gptner_json_leave(r);
    }
}

static void gpn_read_count(gptner_json_reader *r, int64_t *out)
{
    int64_t n;
    if (gptner_json_read_int64(r, &n) && n >= 0)
        *out = n;
}

static void gpn_read_time(gptner_json_reader *r, int64_t *out)
{
    gptner_str text = GPN_ZERO;
    double d;
    gpn_read_text(r, &text);
    if (gpn_parse_double(text, &d) && d > 0.0 && d < 1e15)
        *out = (int64_t)d;
}

/* An array or object as it stands; other kinds, [] and {} say nothing. */
static void gpn_read_json(gptner_json_reader *r, gptner_str *out)
{
    gptner_json_type type = gptner_json_peek(r);
    memset(out, 0, sizeof *out);
    if ((type == GPTNER_JSON_ARRAY || type == GPTNER_JSON_OBJECT) &&
        gptner_json_read_raw(r, out) && out->len == 2)
        memset(out, 0, sizeof *out);
}

static GPN_NOINLINE void gpn_read_value(gpn_fields *f, gptner_json_reader *r,
                                        unsigned kind, void *to)
{
    static const gpn_member *const nested[] = {
        gpn_usage_members, gpn_cached_members, gpn_reasoning_members,
        gpn_function_members};
    gptner_str *str = (gptner_str *)to;
    switch (kind) {
    case GPN_KIND_FIRST:
        if (str->ptr != NULL)
            return;
        gptner_json_read_str(r, str);
        return;
    case GPN_KIND_JSON:
        gpn_read_json(r, str);
        return;
    case GPN_KIND_COUNT:
        gpn_read_count(r, (int64_t *)to);
        return;
    case GPN_KIND_TIME:
        gpn_read_time(r, (int64_t *)to);
        return;
    case GPN_KIND_CONTENT:
        gpn_read_content(f, r, str);
        return;
    case GPN_KIND_MESSAGE:
        f->answered |= gpn_read_object(f, r, gpn_message_members, to);
        return;
    case GPN_KIND_USAGE:
    case GPN_KIND_CACHED:
    case GPN_KIND_REASONING:
    case GPN_KIND_FUNCTION:
        gpn_read_object(f, r, nested[kind - GPN_KIND_USAGE], to);
        return;
    case GPN_KIND_LIST:
        gpn_read_list(f, r);
        return;
    case GPN_KIND_ERROR:
        gpn_read_error(f, r);
        return;
    case GPN_KIND_DETAIL:
        if (!f->failed)
            gpn_read_detail(f, r);
        return;
    case GPN_KIND_FLAT:
        if (!f->failed)
            gpn_read_text(r, str);
        return;
    case GPN_KIND_VECTOR:
        if (gptner_json_peek(r) == GPTNER_JSON_ARRAY)
            gptner_json_read_raw(r, str);
        else
            gptner_json_read_str(r, str);
        return;
    case GPN_KIND_LAST:
        if (gptner_json_enter_array(r))
            while (gptner_json_next_item(r))
                gpn_read_text(r, str);
        return;
    default:
        gpn_read_text(r, str);
        return;
    }
}

/* By index; choices that come in order cost one comparison each. */
static void gpn_fields_sort(gpn_fields *f)
{
    size_t i, k;
    for (i = 1; i < f->n_choices; i++) {
        gptner_choice c = f->choices[i];
        for (k = i; k > 0 && f->choices[k - 1].index > c.index; k--)
            f->choices[k] = f->choices[k - 1];
        f->choices[k] = c;
    }
}

/* Take apart a reply of any endpoint, a piece of a stream, or an error in any
 * of its forms. OK: it was JSON; why is filled otherwise. */
static gptner_status gpn_fields_read(gpn_fields *f, size_t len,
                                     gptner_json_error *why)
{
    gptner_json_reader r;
    gptner_json_reader_init_in_place(&r, f->text, len, NULL);
    if (gptner_json_peek(&r) == GPTNER_JSON_ARRAY) { /* some wrap errors so */
        gptner_json_enter_array(&r);
        gptner_json_next_item(&r);
    }
    gpn_read_object(f, &r, gpn_reply_members, f);
    gpn_fields_sort(f);
    return gptner_json_reader_finish(&r, why);
}

/* --- secrets that servers echo --- */

static bool gpn_secret_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
           (c >= 'a' && c <= 'z') || c == '-' || c == '_' || c == '*' ||
           c == '.';
}

/* How much of text, from its start, is (the beginning of) the key, or looks
 * like any key of OpenAI. Keys of less than four bytes are no secrets. */
static size_t gpn_secret_length(const char *key, gptner_str text, bool inside)
{
    size_t have = key != NULL ? strlen(key) : 0;
    size_t least = have < 8 ? have : 8;
    size_t n = 0;
    while (n < have && n < text.len && text.ptr[n] == key[n])
        n++;
    if (have >= 4 && n >= least)
        return n;
    if (inside || !gpn_str_starts(text, "sk-"))
        return 0;
    for (n = 3; n < text.len && gpn_secret_char(text.ptr[n]);)
        n++;
    return n >= 11 ? n : 0;
}

/* Replace keys in a text of the server by '*', "sk-" excepted. */
static void gpn_secret_mask(const gptner_client *c, char *text, size_t len)
{
    size_t i = 0;
    bool inside = false; /* of a word: "task-" has no key */
    while (i < len) {
        gptner_str rest = gpn_str(text + i, len - i);
        size_t n = gpn_secret_length(c->cfg.api_key, rest, inside);
        size_t keep = n > 3 && gpn_str_starts(rest, "sk-") ? 3 : 0;
        if (n > 0)
            memset(text + i + keep, '*', n - keep);
        inside = n == 0 && gpn_secret_char(text[i]) && text[i] != '.';
        i += n > 0 ? n : 1;
    }
}

/* --- errors of the server --- */

/* The text of a body that is not JSON: the title of a page, or the beginning.
 * The status line says the rest. */
static gptner_str gpn_page_text(gptner_str body)
{
    size_t start, end;
    body = gpn_skip_space(body);
    if (body.len > 4096)
        body.len = 4096;
    start = gpn_str_ifind(body, "<title>");
    if (start < body.len) {
        body.ptr += start + 7;
        body.len -= start + 7;
        end = gpn_str_ifind(body, "</title>");
        body.len = end < body.len ? end : 0;
    } else if (body.len > 0 && *body.ptr == '<') {
        body.len = 0;
    }
    if (body.len > 300)
        body.len = gpn_utf8_cut(body.ptr, 300);
    while (body.len > 0 && (unsigned char)body.ptr[body.len - 1] <= ' ')
        body.len--;
    return body;
}

static void gpn_fields_mask(gpn_fields *f, const gptner_client *c)
{
    static const uint16_t texts[] = {offsetof(gptner_result, error_type),
                                     offsetof(gptner_result, error_code),
                                     offsetof(gptner_result, error_param),
                                     offsetof(gptner_result, error_message)};
    size_t i;
    for (i = 0; i < GPN_COUNT(texts); i++) {
        const gptner_str *s = (const gptner_str *)gpn_at(&f->r, texts[i]);
        if (s->len > 0)
            gpn_secret_mask(c, gpn_fields_edit(f, *s), s->len);
    }
}

/* Read a reply of len bytes, and mask the keys in the error that it may be. */
static gptner_status gpn_fields_load(gpn_fields *f, const gptner_client *c,
                                     size_t len, const char *what,
                                     gptner_error *err)
{
    gptner_json_error why;
    if (gpn_fields_read(f, len, &why) != GPTNER_OK)
        return gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                        "%s: reply is not JSON: byte %lld of %lld: %s", what,
                        (long long)why.offset, (long long)len, why.message);
    if (f->failed)
        gpn_fields_mask(f, c);
    return GPTNER_OK;
}

/* Fill f from the body of an error reply, whatever it is. */
static void gpn_fields_read_error(gpn_fields *f, const gptner_client *c,
                                  size_t len)
{
    gptner_str body = gpn_str(f->text, len);
    gptner_json_error why;
    size_t i = 0;
    while (i < len && ((unsigned char)body.ptr[i] <= ' ' ||
                       (unsigned char)body.ptr[i] >= 0xBB))
        i++; /* white space, a byte-order mark */
    if (i < len && (body.ptr[i] == '{' || body.ptr[i] == '[')) {
        gpn_fields_read(f, len, &why);
        f->failed = true;
    } else {
        f->r.error_message = gpn_page_text(body);
    }
    gpn_fields_mask(f, c);
}

static const char *gpn_status_advice(gptner_status status)
{
    switch (status) {
    case GPTNER_ERR_AUTH:
        return "; check api_key or OPENAI_API_KEY";
    case GPTNER_ERR_QUOTA:
        return "; check the account's plan and billing";
    case GPTNER_ERR_NOT_FOUND:
        return "; check base_url and the model or id";
    case GPTNER_ERR_CONTEXT_LENGTH:
        return "; shorten the prompt";
    case GPTNER_ERR_TOO_LARGE:
        return "; shorten the prompt or lower max_tokens";
    case GPTNER_ERR_TRUNCATED:
        return "; raise max_tokens or lower reasoning_effort";
    case GPTNER_ERR_REDIRECT:
        return "; set base_url to the address it names";
    default:
        return "";
    }
}

/* The server's delay, in the order of openai-api.md 7.2. */
static int64_t gpn_reply_delay(const gpn_reply *reply, gptner_str message)
{
    int64_t ms = -1;
    gptner_str value = gpn_http_find(reply->http, "retry-after-ms");
    if (value.ptr != NULL && gpn_wait_parse_ms(value, &ms) && ms > 0)
        return ms;
    value = gpn_http_find(reply->http, "retry-after");
    if (value.ptr != NULL && gpn_wait_parse(value, reply->unix_ms, &ms) &&
        ms > 0)
        return ms;
    if (message.ptr != NULL && gpn_try_again_parse(message, &ms) && ms > 0)
        return ms;
    return -1;
}

/* The HTTP status that an error within a 2xx reply stands for. */
static int gpn_fields_http_status(const gpn_fields *f)
{
    static const struct {
        char type[20]; /* how it begins */
        int status;
    } known[] = {{"insufficient_quota", 429}, {"rate_limit", 429},
                 {"requests", 429},           {"tokens", 429},
                 {"invalid_request", 400},    {"exceed_context", 400},
                 {"authentication", 401},     {"not_found", 404}};
    uint64_t code;
    size_t i;
    if (gpn_parse_u64(f->r.error_code, &code) && code >= 400 && code <= 599)
        return (int)code;
    for (i = 0; i < GPN_COUNT(known); i++)
        if (gpn_str_starts(f->r.error_type, known[i].type))
            return known[i].status;
    return 500;
}

/* An attempt without a whole response. */
static gpn_class gpn_judge_transport(const gpn_reply *reply, gptner_error *err)
{
    *err = *reply->error;
    err->http_status = reply->http_status;
    if (reply->status == GPTNER_ERR_CERTIFICATE ||
        reply->status == GPTNER_ERR_CA)
        return GPN_CLASS_FATAL; /* it will not get better */
    if (reply->status == GPTNER_ERR_BAD_REPLY)
        return GPN_CLASS_BAD_REPLY;
    return gpn_pace_retryable_status(reply->status) ? GPN_CLASS_TRANSIENT
                                                    : GPN_CLASS_FAIL;
}

/* What an HTTP status and what came with it mean; f holds what that says. */
static gpn_class gpn_judge_http(int http_status, gptner_str should_retry,
                                const gpn_fields *f, const char *what,
                                gptner_error *err)
{
    int http = http_status;
    gptner_status status = GPTNER_ERR_HTTP;
    gptner_str text = f->r.error_message;
    gptner_str type = f->r.error_type;
    gptner_str code = f->r.error_code;
    gptner_str name = code.ptr != NULL ? code : type;
    gpn_class cls;
    if (http / 100 == 2)
        http = gpn_fields_http_status(f);
    cls = gpn_pace_classify(http, type, code, text, should_retry, &status);
    if (gpn_str_starts(type, "exceed_context"))
        status = GPTNER_ERR_CONTEXT_LENGTH; /* llama.cpp */
    if (text.len == 0)
        text = gptner_str_from(gptner_status_text(status));
    gpn_fail(err, status, "%s: HTTP %d%s%.*s%s: %.*s%s", what, http_status,
             name.len > 0 ? " (" : "", (int)name.len,
             name.len > 0 ? name.ptr : "", name.len > 0 ? ")" : "",
             (int)(text.len < 300 ? text.len : 300), text.ptr,
             gpn_status_advice(status));
    err->http_status = http_status;
    return cls;
}

/* A response that says what went wrong. */
static gpn_class gpn_judge_error(const gpn_reply *reply, const gpn_fields *f,
                                 const char *what, int64_t *delay_ms,
                                 gptner_error *err)
{
    gpn_class cls = gpn_judge_http(reply->http_status,
                                   gpn_http_find(reply->http, "x-should-retry"),
                                   f, what, err);
    *delay_ms = gpn_reply_delay(reply, f->r.error_message);
    err->retry_after_ms = *delay_ms;
    return cls;
}

/* --- answers --- */

/* Take a leading <think>...</think> off the text; it becomes the reasoning
 * unless there is one. */
static void gpn_choice_strip(gptner_choice *c)
{
    gptner_str text = gpn_skip_space(c->text);
    size_t end;
    if (!gpn_str_starts(text, "<think>"))
        return;
    end = gpn_str_find(text, "</think>");
    if (end >= text.len)
        return;
    if (c->reasoning.ptr == NULL)
        c->reasoning = gpn_str(text.ptr + 7, end - 7);
    c->text = gpn_skip_space(gpn_str(text.ptr + end + 8, text.len - end - 8));
}

/* The choices are there; is the first one a whole answer? */
static gpn_class gpn_judge_choices(const gptner_client *c, gpn_fields *f,
                                   const char *what, gptner_error *err)
{
    gptner_choice *first = &f->choices[0];
    gptner_status status = GPTNER_OK;
    size_t i;
    if (f->status != GPTNER_OK) {
        gpn_fail(err, f->status, "%s: %s", what,
                 f->status == GPTNER_ERR_LIMIT ? "more choices than 1024"
                                               : "out of memory");
        return GPN_CLASS_FAIL;
    }
    if (f->n_choices == 0 || !f->answered) {
        gpn_fail(err, GPTNER_ERR_BAD_REPLY, "%s: reply without an answer: %s",
                 what, f->n_choices == 0 ? "no choices" : "no message");
        return GPN_CLASS_BAD_REPLY;
    }
    for (i = 0; i < f->n_choices && c->cfg.omit_reasoning; i++)
        gpn_choice_strip(&f->choices[i]);
    if (first->refusal.len > 0)
        status = GPTNER_ERR_REFUSED;
    else if (gpn_str_eq_c(first->finish_reason, "content_filter"))
        status = GPTNER_ERR_FILTERED;
    else if (gpn_str_eq_c(first->finish_reason, "length"))
        status = GPTNER_ERR_TRUNCATED;
    if (status == GPTNER_OK)
        return GPN_CLASS_OK;
    gpn_fail(err, status, "%s: %s%s%s", what, gptner_status_text(status),
             first->text.len == 0 && first->refusal.len == 0
                 ? ", and no text before that"
                 : "",
             gpn_status_advice(status));
    return GPN_CLASS_FAIL;
}

/* A 2xx reply in memory. */
static gpn_class gpn_judge_body(const gptner_client *c, const gpn_reply *reply,
                                gpn_fields *f, const char *what,
                                int64_t *delay_ms, gptner_error *err)
{
    if (gpn_fields_load(f, c, reply->body_len, what, err) != GPTNER_OK)
        return GPN_CLASS_BAD_REPLY;
    if (f->failed)
        return gpn_judge_error(reply, f, what, delay_ms, err);
    return gpn_judge_choices(c, f, what, err);
}

/* --- objects written by tables --- */

/* A tool call; a piece of one, too. */
typedef struct gpn_tool {
    int64_t index;
    gptner_str id;
    gptner_str type;
    gptner_str name;
    gptner_str arguments;
} gpn_tool;

/* How a member is written; what is not known is left out. */
enum {
    GPN_OUT_END,
    GPN_OUT_TEXT,
    GPN_OUT_JSON,
    GPN_OUT_COUNT,  /* an int64_t, known from 0 on */
    GPN_OUT_NUMBER, /* an int, known unless 0 */
    GPN_OUT_CHOICES,
    GPN_OUT_USAGE,
    GPN_OUT_ERROR,
    GPN_OUT_FUNCTION /* of a tool call */
};

static const gpn_member gpn_out_choice[] = {
    {"index", GPN_OUT_COUNT, offsetof(gptner_choice, index)},
    {"text", GPN_OUT_TEXT, offsetof(gptner_choice, text)},
    {"finish_reason", GPN_OUT_TEXT, offsetof(gptner_choice, finish_reason)},
    {"refusal", GPN_OUT_TEXT, offsetof(gptner_choice, refusal)},
    {"reasoning", GPN_OUT_TEXT, offsetof(gptner_choice, reasoning)},
    {"tool_calls", GPN_OUT_JSON, offsetof(gptner_choice, tool_calls_json)},
    {"logprobs", GPN_OUT_JSON, offsetof(gptner_choice, logprobs_json)},
    {"", GPN_OUT_END, 0}};

static const gpn_member gpn_out_usage[] = {
    {"prompt_tokens", GPN_OUT_COUNT, offsetof(gptner_usage, prompt_tokens)},
    {"completion_tokens", GPN_OUT_COUNT,
     offsetof(gptner_usage, completion_tokens)},
    {"total_tokens", GPN_OUT_COUNT, offsetof(gptner_usage, total_tokens)},
    {"cached_tokens", GPN_OUT_COUNT, offsetof(gptner_usage, cached_tokens)},
    {"reasoning_tokens", GPN_OUT_COUNT,
     offsetof(gptner_usage, reasoning_tokens)},
    {"", GPN_OUT_END, 0}};

static const gpn_member gpn_out_error[] = {
    {"message", GPN_OUT_TEXT, offsetof(gptner_result, error_message)},
    {"type", GPN_OUT_TEXT, offsetof(gptner_result, error_type)},
    {"code", GPN_OUT_TEXT, offsetof(gptner_result, error_code)},
    {"param", GPN_OUT_TEXT, offsetof(gptner_result, error_param)},
    {"", GPN_OUT_END, 0}};

static const gpn_member gpn_out_members[] = {
    {"text", GPN_OUT_TEXT, offsetof(gptner_result, text)},
    {"finish_reason", GPN_OUT_TEXT, offsetof(gptner_result, finish_reason)},
    {"choices", GPN_OUT_CHOICES, 0},
    {"usage", GPN_OUT_USAGE, offsetof(gptner_result, usage)},
    {"model", GPN_OUT_TEXT, offsetof(gptner_result, model)},
    {"id", GPN_OUT_TEXT, offsetof(gptner_result, id)},
    {"request_id", GPN_OUT_TEXT, offsetof(gptner_result, request_id)},
    {"system_fingerprint", GPN_OUT_TEXT,
     offsetof(gptner_result, system_fingerprint)},
    {"attempts", GPN_OUT_NUMBER, offsetof(gptner_result, attempts)},
    {"latency_ms", GPN_OUT_COUNT, offsetof(gptner_result, latency_ms)},
    {"total_ms", GPN_OUT_COUNT, offsetof(gptner_result, total_ms)},
    {"http_status", GPN_OUT_NUMBER, offsetof(gptner_result, http_status)},
    {"error", GPN_OUT_ERROR, 0},
    {"retry_after_ms", GPN_OUT_COUNT, offsetof(gptner_result, retry_after_ms)},
    {"raw", GPN_OUT_TEXT, offsetof(gptner_result, raw)},
    {"", GPN_OUT_END, 0}};

static const gpn_member gpn_out_function[] = {
    {"name", GPN_OUT_TEXT, offsetof(gpn_tool, name)},
    {"arguments", GPN_OUT_TEXT, offsetof(gpn_tool, arguments)},
    {"", GPN_OUT_END, 0}};

static const gpn_member gpn_out_tool[] = {
    {"id", GPN_OUT_TEXT, offsetof(gpn_tool, id)},
    {"type", GPN_OUT_TEXT, offsetof(gpn_tool, type)},
    {"function", GPN_OUT_FUNCTION, 0},
    {"", GPN_OUT_END, 0}};

/* From GPN_OUT_USAGE on. */
static const gpn_member *const gpn_out_objects[] = {
    gpn_out_usage, gpn_out_error, gpn_out_function};

static void gpn_out_put(gptner_json_writer *w, const gpn_member *m,
                        const void *base)
{
    for (; m->kind != GPN_OUT_END; m++) {
        const void *from = (const char *)base + m->to;
        const gptner_result *r = (const gptner_result *)base;
        const gptner_str *str = (const gptner_str *)from;
        size_t i;
        switch (m->kind) {
        case GPN_OUT_TEXT:
            if (str->ptr != NULL)
                gptner_json_put_str(w, m->key, *str);
            break;
        case GPN_OUT_JSON:
            if (str->len > 0)
                gptner_json_put_raw(w, m->key, *str);
            break;
        case GPN_OUT_COUNT:
            if (*(const int64_t *)from >= 0)
                gptner_json_put_int64(w, m->key, *(const int64_t *)from);
            break;
        case GPN_OUT_NUMBER:
            if (*(const int *)from != 0)
                gptner_json_put_int64(w, m->key, *(const int *)from);
            break;
        case GPN_OUT_CHOICES:
            gptner_json_put_array(w, m->key);
            for (i = 0; i < r->n_choices; i++) {
                gptner_json_write_object(w);
                gpn_out_put(w, gpn_out_choice, &r->choices[i]);
                gptner_json_write_end(w);
            }
            gptner_json_write_end(w);
            break;
        case GPN_OUT_ERROR:
            if (r->error_message.ptr == NULL && r->error_type.ptr == NULL &&
                r->error_code.ptr == NULL)
                break;
            /* fall through */
        default:
            gptner_json_put_object(w, m->key);
            gpn_out_put(w, gpn_out_objects[m->kind - GPN_OUT_USAGE], from);
            gptner_json_write_end(w);
            break;
        }
    }
}

/* --- a streamed answer: pieces joined again --- */

enum {
    GPN_STRAND_PARTS = 7,
    GPN_STRANDS_MAX = 4096,
    GPN_STRAND_WHOLE = -1 /* in the place of a choice's number */
};

/* Texts of an object that come in pieces. */
typedef struct gpn_strand_form {
    uint16_t to[GPN_STRAND_PARTS]; /* offsets */
    uint16_t n;
    uint16_t grows; /* bits: those that follow each other; others come whole,
                       and perhaps again in every piece */
} gpn_strand_form;

static const gpn_strand_form gpn_choice_form = {
    {offsetof(gptner_choice, finish_reason), offsetof(gptner_choice, text),
     offsetof(gptner_choice, refusal), offsetof(gptner_choice, reasoning)},
    4,
    2 | 4 | 8};

static const gpn_strand_form gpn_tool_form = {
    {offsetof(gpn_tool, id), offsetof(gpn_tool, type), offsetof(gpn_tool, name),
     offsetof(gpn_tool, arguments)},
    4,
    8};

/* Of the answer as a whole; an event that is no error has but the first three.
 */
static const gpn_strand_form gpn_whole_form = {
    {offsetof(gptner_result, id), offsetof(gptner_result, model),
     offsetof(gptner_result, system_fingerprint),
     offsetof(gptner_result, error_type), offsetof(gptner_result, error_code),
     offsetof(gptner_result, error_param),
     offsetof(gptner_result, error_message)},
    7,
    0};

/* Texts that grow: those of a choice, of a tool call (tool >= 0), or of the
 * whole; the last part of a choice is its tool calls joined. */
typedef struct gpn_strand {
    struct gpn_strand *next; /* by choice, then by tool */
    int64_t choice;
    int64_t tool;
    gpn_buf part[GPN_STRAND_PARTS];
} gpn_strand;

typedef struct gpn_live {
    gptner_client *client;
    gptner_delta_fn fn;
    void *user;
    gpn_strand *strands;
    size_t n_strands;
    gptner_usage usage;
    size_t bytes;  /* received */
    bool diverted; /* this reply is a stream */
    bool done;     /* the server said that it is whole */
    bool handed;   /* a delta went to the caller */
    bool failed;   /* an error came within */
    gpn_sse sse;
} gpn_live;

static void gpn_live_reset(gpn_live *l)
{
    while (l->strands != NULL) {
        gpn_strand *s = l->strands;
        size_t i;
        l->strands = s->next;
        for (i = 0; i < GPN_STRAND_PARTS; i++)
            gpn_buf_deinit(&s->part[i]);
        gpn_mem_free(&l->client->env, s);
    }
    memset(&l->usage, 0xff, sizeof l->usage); /* -1: not told */
    l->n_strands = 0;
    l->bytes = 0;
    l->diverted = false;
    l->done = false;
    l->failed = false;
    gpn_sse_reset(&l->sse);
}

/* The strand of a choice and tool, made if there is none; NULL: no memory, or
 * more than any answer has. */
static gpn_strand *gpn_live_strand(gpn_live *l, int64_t choice, int64_t tool)
{
    gpn_strand **at = &l->strands;
    gpn_strand *s;
    size_t i;
    while (*at != NULL && ((*at)->choice < choice ||
                           ((*at)->choice == choice && (*at)->tool < tool)))
        at = &(*at)->next;
    if (*at != NULL && (*at)->choice == choice && (*at)->tool == tool)
        return *at;
    if (l->n_strands >= GPN_STRANDS_MAX)
        return NULL;
    s = (gpn_strand *)gpn_mem_zalloc(&l->client->env, sizeof *s);
    if (s == NULL)
        return NULL;
    for (i = 0; i < GPN_STRAND_PARTS; i++)
        gpn_buf_init(&s->part[i], &l->client->env,
                     l->client->cfg.max_body_bytes);
    s->choice = choice;
    s->tool = tool;
    s->next = *at;
    *at = s;
    l->n_strands++;
    return s;
}

/* Add the first n texts of a form, which are in base, to a strand. */
static bool gpn_live_add(gpn_live *l, int64_t choice, int64_t tool,
                         const gpn_strand_form *form, size_t n, void *base)
{
    gpn_strand *s = gpn_live_strand(l, choice, tool);
    bool ok = s != NULL;
    size_t i;
    for (i = 0; ok && i < n; i++) {
        gpn_buf *b = &s->part[i];
        if (b->len == 0 || (form->grows >> i & 1) != 0)
            gpn_buf_add_str(b, *(gptner_str *)gpn_at(base, form->to[i]));
        ok = b->status == GPTNER_OK;
    }
    return ok;
}

/* Have the texts of a form in base be those of a strand. */
static void gpn_strand_show(const gpn_strand *s, const gpn_strand_form *form,
                            void *base)
{
    size_t i;
    for (i = 0; i < form->n; i++)
        *(gptner_str *)gpn_at(base, form->to[i]) =
            gpn_str(s->part[i].data, s->part[i].len);
}

static const gpn_member gpn_tool_members[] = {
    {"index", GPN_KIND_COUNT, offsetof(gpn_tool, index)},
    {"id", GPN_KIND_TEXT, offsetof(gpn_tool, id)},
    {"type", GPN_KIND_TEXT, offsetof(gpn_tool, type)},
    {"function", GPN_KIND_FUNCTION, offsetof(gpn_tool, name)},
    {"", GPN_KIND_SKIP, 0}};

/* The pieces of tool calls of one delta. */
static bool gpn_live_tools(gpn_live *l, gpn_fields *f, const gptner_choice *c)
{
    gptner_json_reader r;
    bool ok = true;
    int64_t position = 0;
    gptner_json_reader_init_in_place(&r, gpn_fields_edit(f, c->tool_calls_json),
                                     c->tool_calls_json.len, NULL);
    gptner_json_enter_array(&r);
    while (gptner_json_next_item(&r)) {
        gpn_tool tool = GPN_ZERO;
        tool.index = position++;
        if (gpn_read_object(f, &r, gpn_tool_members, &tool))
            ok = ok && gpn_live_add(l, c->index, tool.index, &gpn_tool_form, 4,
                                    &tool);
    }
    return ok;
}

/* Hand a piece to the caller, if there is something in it. */
static bool gpn_live_hand(gpn_live *l, const gptner_choice *c)
{
    gptner_delta d = GPN_ZERO;
    d.choice = c->index;
    d.text = c->text;
    d.reasoning = c->reasoning;
    d.refusal = c->refusal;
    d.tool_calls_json = c->tool_calls_json;
    d.finish_reason = c->finish_reason;
    if (d.text.len + d.reasoning.len + d.refusal.len + d.tool_calls_json.len +
            d.finish_reason.len ==
        0)
        return true;
    l->handed = true;
    return l->fn == NULL || l->fn(&d, l->user);
}

static gptner_status gpn_live_stopped(gptner_error *err)
{
    return gpn_fail(err, GPTNER_ERR_CANCELLED, "stream: stopped by delta_fn");
}

static gptner_status gpn_live_choice(gpn_live *l, gpn_fields *f,
                                     gptner_choice *c, gptner_error *err)
{
    bool ok = gpn_live_add(l, c->index, -1, &gpn_choice_form, 4, c);
    if (ok && !gpn_live_hand(l, c))
        return gpn_live_stopped(err);
    if (ok && c->tool_calls_json.len > 0)
        ok = gpn_live_tools(l, f, c);
    return ok ? GPTNER_OK : gpn_no_memory(err, "stream");
}

/* One event of the stream. data may be changed. */
static gptner_status gpn_live_event(gpn_live *l, gpn_fields *f, size_t len,
                                    bool is_error, gptner_error *err)
{
    gptner_status status = gpn_fields_load(f, l->client, len, "stream", err);
    size_t i;
    if (status != GPTNER_OK)
        return status;
    if (is_error) {
        f->failed = true;
        gpn_fields_mask(f, l->client);
    }
    if (!gpn_live_add(l, GPN_STRAND_WHOLE, -1, &gpn_whole_form,
                      f->failed ? gpn_whole_form.n : 3, &f->r) ||
        f->status != GPTNER_OK)
        return gpn_no_memory(err, "stream");
    l->failed |= f->failed;
    l->usage = f->r.usage;
    for (i = 0; i < f->n_choices && status == GPTNER_OK && !f->failed; i++)
        status = gpn_live_choice(l, f, &f->choices[i], err);
    return status;
}

/* The message of an event is in l->sse. */
static gptner_status gpn_live_message(void *ctx, const gpn_sse_message *m,
                                      gptner_error *err)
{
    gpn_live *l = (gpn_live *)ctx;
    gptner_status status;
    gpn_fields f;
    if (l->done || m->data.len == 0)
        return GPTNER_OK;
    l->done = gpn_str_starts(m->data, "[DONE]");
    if (l->done)
        return GPTNER_OK;
    gpn_fields_init(&f, &l->client->env, l->sse.text[GPN_SSE_DATA].data);
    f.r.usage = l->usage; /* what is told anew replaces it */
    status =
        gpn_live_event(l, &f, m->data.len, gpn_str_eq_c(m->type, "error"), err);
    gpn_fields_deinit(&f);
    return status;
}

/* Take bytes of a stream, cut anywhere, and hand its events to fn. */
static gptner_status gpn_sse_feed(gpn_sse *sse, gptner_str bytes, void *ctx,
                                  gptner_status (*fn)(void *,
                                                      const gpn_sse_message *,
                                                      gptner_error *),
                                  gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    while (bytes.len > 0 && status == GPTNER_OK) {
        gpn_sse_message m;
        size_t used = 0;
        gpn_sse_event event =
            gpn_sse_next(sse, bytes.ptr, bytes.len, &used, &m, err);
        bytes.ptr += used;
        bytes.len -= used;
        if (event == GPN_SSE_FAILED)
            return err->status;
        if (event == GPN_SSE_EVENT)
            status = fn(ctx, &m, err);
    }
    return status;
}

/* Bytes of the stream. */
static gptner_status gpn_live_body(gpn_live *l, const char *data, size_t len,
                                   gptner_error *err)
{
    if (len > l->client->cfg.max_body_bytes - l->bytes)
        return gpn_fail(err, GPTNER_ERR_LIMIT,
                        "stream: longer than max_body_bytes");
    l->bytes += len;
    return gpn_sse_feed(&l->sse, gpn_str(data, len), l, gpn_live_message, err);
}

/* The tool calls of a choice, joined, as the array of a whole reply. */
static gptner_str gpn_live_write_tools(gpn_strand *choice)
{
    gpn_buf *out = &choice->part[GPN_STRAND_PARTS - 1];
    const gpn_strand *s = choice->next;
    gptner_json_writer w;
    if (s == NULL || s->choice != choice->choice)
        return gpn_str(NULL, 0);
    gpn_buf_clear(out);
    gpn_json_writer_init(&w, out);
    gptner_json_write_array(&w);
    for (; s != NULL && s->choice == choice->choice; s = s->next) {
        gpn_tool tool;
        gpn_strand_show(s, &gpn_tool_form, &tool);
        if (tool.type.len == 0)
            tool.type = gpn_str("function", 8);
        if (tool.arguments.len == 0)
            tool.arguments = gpn_str("", 0);
        gptner_json_write_object(&w);
        gpn_out_put(&w, gpn_out_tool, &tool);
        gptner_json_write_end(&w);
    }
    gptner_json_write_end(&w);
    if (gptner_json_writer_finish(&w, NULL) != GPTNER_OK)
        return gpn_str(NULL, 0);
    return gpn_str(out->data, out->len);
}

/* Everything that came, as if it had been one reply. *whole: each choice has
 * its finish_reason. */
static void gpn_live_collect(gpn_live *l, gpn_fields *f, bool *whole)
{
    gpn_strand *s;
    *whole = true;
    f->r.usage = l->usage;
    f->failed = l->failed;
    for (s = l->strands; s != NULL; s = s->next) {
        gptner_choice *c;
        if (s->tool >= 0)
            continue;
        if (s->choice == GPN_STRAND_WHOLE) {
            gpn_strand_show(s, &gpn_whole_form, &f->r);
            continue;
        }
        c = gpn_fields_add(f);
        if (c == NULL)
            break;
        gpn_strand_show(s, &gpn_choice_form, c);
        c->tool_calls_json = gpn_live_write_tools(s);
        *whole = *whole && c->finish_reason.len > 0;
        f->answered = true;
        c->index = s->choice;
    }
    *whole = *whole && f->answered;
}

/* The stream has ended: was it whole? (openai-api.md 2.6) */
static gpn_class gpn_live_judge(gpn_live *l, const gpn_reply *reply,
                                gpn_fields *f, const char *what,
                                int64_t *delay_ms, gptner_error *err)
{
    gpn_class cls;
    bool whole;
    gpn_live_collect(l, f, &whole);
    if (l->failed)
        cls = gpn_judge_error(reply, f, what, delay_ms, err);
    else if (reply->status != GPTNER_OK &&
             (reply->status == GPTNER_ERR_CANCELLED || (!l->done && !whole)))
        cls = gpn_judge_transport(reply, err);
    else if (l->done || whole)
        cls = gpn_judge_choices(l->client, f, what, err);
    else {
        gpn_fail(err, GPTNER_ERR_CONNECTION_LOST,
                 "%s: the stream ended before the answer did", what);
        cls = GPN_CLASS_TRANSIENT;
    }
    if (l->handed && cls != GPN_CLASS_OK && cls != GPN_CLASS_FATAL)
        cls = GPN_CLASS_FAIL; /* a second start would repeat text */
    return cls;
}

/* --- prompts under way --- */

typedef struct gpn_twin gpn_twin;

typedef struct gpn_item {
    gpn_work work;         /* first: the pool's pointer is this item's */
    gptner_result *result; /* what there is so far, or &spare */
    const gptner_options *options;
    gpn_twin *twin;
    unsigned adapt; /* GPN_ADAPT_*: how it was last sent */
    gptner_endpoint endpoint;
    size_t index;
    gptner_prompt prompt;
    struct gpn_item *next; /* in the queue of followers; of those at hand */
    size_t room;           /* for texts */
    uint64_t line;         /* of the input; 0: not from a file */
    const char *bad;       /* why the line is no prompt; NULL: it is one */
    char spare_text[128];
    gpn_owner owner; /* directly before spare */
    gptner_result spare;
    /* texts follow */
} gpn_item;

enum { GPN_ITEM_KEPT = 16384 /* bytes of texts; larger items are not kept */ };

/* An item with room for texts: the first of those at hand, if that is large
 * enough, else a new one. */
static gpn_item *gpn_item_alloc(const gpn_env *env, gpn_item **at_hand,
                                size_t room)
{
    gpn_item *it = *at_hand;
    size_t size;
    if (it != NULL)
        *at_hand = it->next;
    if (it != NULL && it->room < room) {
        gpn_mem_free(env, it);
        it = NULL;
    }
    if (it != NULL)
        room = it->room;
    else if (gpn_size_add(sizeof *it, room, &size))
        it = (gpn_item *)gpn_mem_alloc(env, size);
    if (it == NULL)
        return NULL;
    memset(it, 0, sizeof *it);
    it->room = room;
    gpn_owner_set(&it->spare, env, it);
    return it;
}

/* Where the texts of an item begin. */
static char *gpn_item_room(gpn_item *it)
{
    return (char *)(it + 1);
}

static const uint16_t gpn_message_texts[] = {offsetof(gptner_message, role),
                                             offsetof(gptner_message, content),
                                             offsetof(gptner_message, json)};

static const uint16_t gpn_prompt_texts[] = {
    offsetof(gptner_prompt, custom_id), offsetof(gptner_prompt, text),
    offsetof(gptner_prompt, system), offsetof(gptner_prompt, messages_json),
    offsetof(gptner_prompt, body_json)};

static GPN_NOINLINE size_t gpn_messages_pack(gptner_message *list, size_t n,
                                             char *at)
{
    size_t size = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        size += gpn_pack(&list[i], gpn_message_texts, 3,
                         at != NULL ? at + size : NULL);
    }
    return size;
}

/* An item for a prompt, whose texts are copied if they will not last. The
 * custom_id is always, for the spare result may outlive the prompt. */
static gpn_item *gpn_item_new(const gpn_env *env, gpn_item **at_hand,
                              const gptner_prompt *prompt, bool copy)
{
    gptner_prompt p = *prompt;
    size_t n = copy ? GPN_COUNT(gpn_prompt_texts) : 1;
    size_t list = 0;
    size_t size = gpn_pack(&p, gpn_prompt_texts, n, NULL);
    gptner_message *messages;
    gpn_item *it;
    if (p.messages == NULL)
        p.n_messages = 0;
    if (copy) {
        list = p.n_messages * sizeof *messages;
        size += gpn_messages_pack((gptner_message *)(uintptr_t)p.messages,
                                  p.n_messages, NULL); /* only counts */
    }
    it = gpn_item_alloc(env, at_hand, list + size);
    if (it == NULL)
        return NULL;
    messages = (gptner_message *)(void *)gpn_item_room(it);
    size = gpn_pack(&p, gpn_prompt_texts, n, (char *)messages + list);
    if (list > 0) {
        memcpy(messages, p.messages, list);
        p.messages = messages;
        gpn_messages_pack(messages, p.n_messages,
                          (char *)messages + list + size);
    }
    it->prompt = p;
    return it;
}

/* What every result says about its prompt. */
static GPN_NOINLINE void gpn_item_describe(const gpn_item *it, int64_t now,
                                           gptner_result *r)
{
    r->index = it->index;
    r->custom_id = it->prompt.custom_id;
    r->tag = it->prompt.tag;
    r->attempts = it->work.budget.attempts;
    r->total_ms = it->work.started_ms != 0 ? now - it->work.started_ms : 0;
}

/* Give the item a result, a copy of view; if there is no memory for one, its
 * spare result, which then says so unless it had to say something else.
 * false: view was a good one, and could not be kept. */
static bool gpn_item_keep(const gpn_env *env, gpn_item *it,
                          const gptner_result *view)
{
    gptner_result *r = gpn_result_copy(env, view);
    bool lost = r == NULL && view->status == GPTNER_OK;
    if (r == NULL) {
        r = &it->spare;
        gpn_format(it->spare_text, sizeof it->spare_text, "%s",
                   lost ? "no memory for the result" : view->message);
        gpn_result_blank(r);
        r->index = view->index;
        r->custom_id = it->prompt.custom_id;
        r->tag = view->tag;
        r->attempts = view->attempts;
        r->total_ms = view->total_ms;
        r->status = lost ? GPTNER_ERR_NO_MEMORY : view->status;
        r->message = it->spare_text;
        r->http_status = view->http_status;
        r->retry_after_ms = view->retry_after_ms;
    }
    if (it->result != &it->spare)
        gpn_owned_free(it->result);
    it->result = r;
    return !lost;
}

/* Put an error into a view of a result. */
static GPN_NOINLINE void gpn_result_fail(gptner_result *view,
                                         const gptner_error *err)
{
    view->status = err->status;
    view->message = err->message;
    view->retry_after_ms = err->retry_after_ms;
}

/* --- a task: prompts from a source, results to their places --- */

typedef struct gpn_out {
    gpn_whole whole;
    gpn_file std;
    gpn_buf buffer; /* before std; its memory is there from the start */
    gpn_buf piece;  /* of JSON; the same */
    bool open;
    bool to_std;
    bool jsonl;
    int oserr;
} gpn_out;

/* An answer that equal prompts share. */
struct gpn_twin {
    uint64_t key[2]; /* hashes of body and endpoint, by two seeds */
    gptner_result *result;
    size_t waiting; /* followers that have not had it yet */
    bool used;
    bool done;   /* result is there */
    bool shares; /* and good for prompts still to come */
    bool owned;  /* to be freed with the twin */
};

enum {
    GPN_TWIN_WAYS = 4,
    GPN_TWINS_MAX = 65536,      /* different requests remembered */
    GPN_FOLLOWERS_MAX = 16384,  /* equal prompts waiting for delivery */
    GPN_TWIN_BYTES = 64 << 20,  /* answers remembered, about */
    GPN_TWIN_BYTES_EACH = 1024, /* beside its text, about */
    GPN_LINE_READ = 65536       /* bytes read from the input at once */
};

typedef struct gpn_task { /* what is used most is within a short offset */
    gpn_mutex lock;       /* guards results, room, and from twins to body */
    gptner_client *client;
    const gptner_run_config *cfg;
    bool keep_raw;            /* as in the client's configuration */
    const gptner_prompt *one; /* instead of cfg: a single prompt */
    gpn_live *live;           /* its stream */
    /* Items of prompts that are done, for the next ones: no more than were
     * under way at one time. As the pool asks for a prompt, or delivers one,
     * but one call at a time, no lock guards them. */
    gpn_item *at_hand;
    /* the places */
    size_t delivered; /* prompts, in order */
    gptner_result **results;
    size_t room; /* of results */
    /* the source */
    size_t read; /* prompts taken; the index of the next */
    bool jsonl;
    bool input_ended;
    bool input_failed;
    size_t lines_at;
    gpn_buf lines; /* read ahead, from lines_at on */
    uint64_t line;
    gpn_file input;
    gptner_result *single;
    /* equal prompts */
    gpn_twin *twins;
    gpn_item *first;
    gpn_item *last;
    size_t n_twins;
    uint64_t seed[4]; /* of their keys */
    size_t twin_bytes;
    size_t followers;
    int64_t shared; /* followers read */
    int64_t shared_ok;
    int64_t shared_failed;
    gpn_buf body;
    gpn_out out;
    gptner_error failure; /* of a place; status OK: none */
} gpn_task;

/* An item ends. What its result is made of stays until that is freed. */
static void gpn_task_put_item(gpn_task *t, gpn_item *it)
{
    if (it->result == &it->spare)
        return;
    if (it->room > GPN_ITEM_KEPT || t->one != NULL) {
        gpn_mem_free(&t->client->env, it);
    } else {
        it->next = t->at_hand;
        t->at_hand = it;
    }
}

static const char *gpn_item_what(const gpn_item *it)
{
    return it->endpoint == GPTNER_ENDPOINT_COMPLETIONS ? "completions"
                                                       : "chat/completions";
}

static void gpn_item_ask(const gpn_task *t, const gpn_item *it, gpn_ask *ask)
{
    memset(ask, 0, sizeof *ask);
    ask->client = t->client;
    ask->prompt = &it->prompt;
    ask->options = it->options;
    ask->stream = t->live != NULL;
    ask->adapt = it->adapt;
}

static gptner_status gpn_item_build(void *ctx, gpn_work *work, gpn_request *q,
                                    gptner_error *err)
{
    gpn_task *t = (gpn_task *)ctx;
    gpn_item *it = (gpn_item *)work;
    gptner_client *c = t->client;
    gptner_status status;
    gpn_ask ask;
    if (it->bad != NULL)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT, "%s, line %lld: %s",
                        t->cfg->input_path, (long long)it->line, it->bad);
    it->adapt |= gpn_adapted(c, gpn_model_of(it->options), 0);
    gpn_item_ask(t, it, &ask);
    status = gpn_body_write(&ask, &q->body, err);
    if (status == GPTNER_OK && ask.endpoint == GPTNER_ENDPOINT_EMBEDDINGS)
        status = gpn_refuse(
            err, "body_json: asks for embeddings; use gptner_embed()");
    if (status != GPTNER_OK)
        return status;
    it->endpoint = ask.endpoint;
    if (t->live != NULL)
        gpn_live_reset(t->live);
    q->peer = &c->home.peer;
    gpn_http_begin(&q->head, "POST",
                   c->targets[it->endpoint == GPTNER_ENDPOINT_COMPLETIONS]);
    gpn_buf_add(&q->head, c->head.data, c->head.len);
    gpn_head_end(&q->head, true, q->body.len);
    if (q->head.status != GPTNER_OK)
        return gpn_fail(err, q->head.status, "request: out of memory");
    return GPTNER_OK;
}

static bool gpn_item_divert(void *ctx, gpn_work *work, const gpn_http *http)
{
    gpn_task *t = (gpn_task *)ctx;
    gptner_str type = gpn_http_find(http, "content-type");
    GPN_UNUSED(work);
    t->live->diverted =
        http->status / 100 == 2 && !gpn_str_istarts(type, "application/json");
    return t->live->diverted;
}

static gptner_status gpn_item_body(void *ctx, gpn_work *work, const char *data,
                                   size_t len, gptner_error *err)
{
    gpn_task *t = (gpn_task *)ctx;
    GPN_UNUSED(work);
    return gpn_live_body(t->live, data, len, err);
}

/* A 400 about a field that we chose ourselves: send it otherwise, once. What
 * was learnt helps the prompts to come. */
static bool gpn_item_adapt(gpn_task *t, gpn_item *it, const gpn_reply *reply,
                           const gpn_fields *f)
{
    const char *model = gpn_model_of(it->options);
    bool value = gpn_str_eq_c(f->r.error_code, "unsupported_value");
    unsigned limit = GPN_ADAPT_NEW_LIMIT | GPN_ADAPT_OLD_LIMIT;
    unsigned bit;
    if (reply->http_status != 400 || it->prompt.body_json.ptr != NULL ||
        (!value && !gpn_str_eq_c(f->r.error_code, "unsupported_parameter")))
        return false;
    bit = gpn_adapt_bit(it->options, f->r.error_param, value);
    if ((bit & limit) == 0)
        limit = bit;
    if (bit == 0 || (it->adapt & limit) != 0)
        return false;
    it->adapt |= bit;
    gpn_adapted(t->client, model, bit);
    gpn_log(&t->client->env, GPTNER_LOG_INFO, "model %s: refuses %.*s; adapted",
            model, (int)f->r.error_param.len, f->r.error_param.ptr);
    return true;
}

static GPN_NOINLINE gpn_class gpn_item_decide(gpn_task *t, gpn_item *it,
                                              gpn_reply *reply, gpn_fields *f,
                                              int64_t *delay_ms,
                                              gptner_error *err)
{
    const char *what = gpn_item_what(it);
    gpn_live *live = t->live;
    gpn_class cls;
    size_t i;
    if (live != NULL && live->diverted)
        return gpn_live_judge(live, reply, f, what, delay_ms, err);
    if (reply->status != GPTNER_OK)
        return gpn_judge_transport(reply, err);
    if (reply->http_status / 100 != 2) {
        gpn_fields_read_error(f, t->client, reply->body_len);
        cls = gpn_judge_error(reply, f, what, delay_ms, err);
        if (cls == GPN_CLASS_FAIL && gpn_item_adapt(t, it, reply, f))
            cls = GPN_CLASS_ADAPT;
        return cls;
    }
    cls = gpn_judge_body(t->client, reply, f, what, delay_ms, err);
    if (live != NULL && (cls == GPN_CLASS_OK || f->n_choices > 0)) {
        for (i = 0; i < f->n_choices; i++) /* a server that cannot stream */
            if (!gpn_live_hand(live, &f->choices[i])) {
                gpn_live_stopped(err);
                return GPN_CLASS_FAIL;
            }
        if (live->handed && cls != GPN_CLASS_OK)
            cls = GPN_CLASS_FAIL;
    }
    return cls;
}

static gpn_class gpn_item_judge(void *ctx, gpn_work *work, gpn_reply *reply,
                                int64_t *delay_ms, gptner_error *err)
{
    gpn_task *t = (gpn_task *)ctx;
    gpn_item *it = (gpn_item *)work;
    const gpn_env *env = &t->client->env;
    gpn_fields f;
    gptner_result *view = &f.r;
    gpn_class cls;
    char *raw = NULL;
    size_t raw_len = reply->body_len;
    if ((t->keep_raw || t->client->cfg.keep_raw) && raw_len > 0) {
        raw = gpn_str_dup(env, gpn_str(reply->body, raw_len));
        if (raw != NULL && reply->http_status / 100 != 2)
            gpn_secret_mask(t->client, raw, raw_len);
    }
    gpn_fields_init(&f, env, reply->body);
    cls = gpn_item_decide(t, it, reply, &f, delay_ms, err);
    gpn_item_describe(it, reply->now_ms, view);
    view->choices = f.choices;
    view->n_choices = f.n_choices;
    view->latency_ms = reply->latency_ms;
    view->http_status = reply->http_status;
    if (reply->http_status != 0)
        view->request_id = gpn_http_find(reply->http, "x-request-id");
    view->raw = gpn_str(raw, raw != NULL ? raw_len : 0);
    if (cls != GPN_CLASS_OK)
        gpn_result_fail(view, err);
    if (!gpn_item_keep(env, it, view)) {
        gpn_no_memory(err, "result");
        cls = GPN_CLASS_FAIL;
    }
    work->ok = cls == GPN_CLASS_OK;
    work->prompt_tokens =
        view->usage.prompt_tokens > 0 ? view->usage.prompt_tokens : 0;
    work->completion_tokens =
        view->usage.completion_tokens > 0 ? view->usage.completion_tokens : 0;
    gpn_fields_deinit(&f);
    gpn_mem_free(env, raw);
    return cls;
}

/* The item ends without a further attempt. What the last one said stays in
 * the result beside the reason of the end. */
static void gpn_item_settle(void *ctx, gpn_work *work, const gptner_error *err)
{
    gpn_task *t = (gpn_task *)ctx;
    gpn_item *it = (gpn_item *)work;
    const gpn_env *env = &t->client->env;
    gptner_result view;
    if (it->result != NULL) {
        view = *it->result;
    } else {
        gpn_result_blank(&view);
        view.http_status = err->http_status;
    }
    gpn_item_describe(it, gpn_clock_ms(env), &view);
    gpn_result_fail(&view, err);
    gpn_item_keep(env, it, &view);
    work->ok = false;
}

/* --- sources --- */

/* The next line without its end; one CR before the LF goes, too. 1, 0 or -1.
 * The view is good until the next call. */
static int gpn_task_line(gpn_task *t, gptner_str *line, gptner_error *err)
{
    gpn_buf *b = &t->lines;
    size_t seen = 0; /* bytes without an LF */
    for (;;) {
        const char *from = b->data != NULL ? b->data + t->lines_at : "";
        size_t have = b->len - t->lines_at;
        const char *lf =
            have > seen ? (const char *)memchr(from + seen, '\n', have - seen)
                        : NULL;
        int64_t got;
        int oserr = 0;
        if (lf != NULL || (t->input_ended && have > 0)) {
            size_t len = lf != NULL ? (size_t)(lf - from) : have;
            t->lines_at += len + (lf != NULL);
            t->line++;
            *line = gpn_str(from, len);
            if (len > 0 && from[len - 1] == '\r')
                line->len--;
            return 1;
        }
        if (t->input_ended)
            return 0;
        seen = have;
        gpn_buf_drop(b, t->lines_at);
        t->lines_at = 0;
        if (!gpn_buf_reserve(b, GPN_LINE_READ)) {
            gpn_fail(err, b->status, "%s: line %lld: %s", t->cfg->input_path,
                     (long long)(t->line + 1),
                     b->status == GPTNER_ERR_LIMIT
                         ? "longer than max_body_bytes"
                         : "out of memory");
            return -1;
        }
        got = gpn_file_read(&t->input, b->data + b->len, GPN_LINE_READ, &oserr);
        if (got < 0) {
            gpn_file_fail(err, t->cfg->input_path, "reading failed", oserr);
            return -1;
        }
        if (t->line == 0 && b->len == 0 && got >= 3 &&
            memcmp(b->data, "\xEF\xBB\xBF", 3) == 0)
            t->lines_at = 3;
        b->len += (size_t)got;
        t->input_ended = got == 0;
    }
}

/* The members of a line, texts and then JSON, and where they go. */
static const char *const gpn_line_names[] = {"prompt",   "system", "custom_id",
                                             "messages", "body",   NULL};
static const uint16_t gpn_line_places[] = {
    offsetof(gptner_prompt, text), offsetof(gptner_prompt, system),
    offsetof(gptner_prompt, custom_id), offsetof(gptner_prompt, messages_json),
    offsetof(gptner_prompt, body_json)};

/* Take a line of JSON apart where it lies in the item. */
static void gpn_item_parse(gpn_item *it, char *text, size_t len)
{
    gptner_prompt *p = &it->prompt;
    gptner_json_reader r;
    gptner_json_error why;
    size_t which;
    bool object;
    gptner_json_reader_init_in_place(&r, text, len, NULL);
    object = gptner_json_enter_object(&r);
    while (object && gptner_json_next_member(&r, gpn_line_names, &which)) {
        gptner_str *to = (gptner_str *)gpn_at(p, gpn_line_places[which]);
        if (which < 3)
            gpn_read_text(&r, to);
        else
            gpn_read_json(&r, to);
    }
    if (gptner_json_reader_finish(&r, &why) != GPTNER_OK)
        it->bad = why.message;
    else if (!object || (p->text.ptr == NULL && p->messages_json.ptr == NULL &&
                         p->body_json.ptr == NULL))
        it->bad = "not an object with a text \"prompt\", an array "
                  "\"messages\" or an object \"body\"";
}

/* A prompt from the input file. Lines without text are no prompts. */
static int gpn_task_read_file(gpn_task *t, gpn_item **out, gptner_error *err)
{
    gptner_str line;
    gpn_item *it;
    char *room;
    int got;
    do {
        got = gpn_task_line(t, &line, err);
    } while (got > 0 && gpn_str_trim(line).len == 0);
    if (got <= 0)
        return got;
    it = gpn_item_alloc(&t->client->env, &t->at_hand, line.len + 1);
    if (it == NULL) {
        gpn_fail(err, GPTNER_ERR_NO_MEMORY, "%s: line %lld: out of memory",
                 t->cfg->input_path, (long long)t->line);
        return -1;
    }
    room = gpn_item_room(it);
    memcpy(room, line.ptr, line.len);
    room[line.len] = '\0';
    it->line = t->line;
    if (t->jsonl)
        gpn_item_parse(it, room, line.len);
    else
        it->prompt.text = gpn_str(room, line.len);
    *out = it;
    return 1;
}

/* A prompt from the program. */
static int gpn_task_read_given(gpn_task *t, gpn_item **out, gptner_error *err)
{
    const gptner_run_config *cfg = t->cfg;
    gptner_prompt p = GPN_ZERO;
    bool copy = false;
    if (t->one != NULL || cfg->prompts != NULL || cfg->texts != NULL) {
        if (t->read >= (t->one != NULL ? 1 : cfg->n_prompts))
            return 0;
        if (t->one != NULL)
            p = *t->one;
        else if (cfg->prompts != NULL)
            p = cfg->prompts[t->read];
        else
            p.text = gptner_str_from(cfg->texts[t->read]);
    } else if (cfg->next_fn != NULL) {
        int got = cfg->next_fn(&p, err, cfg->next_user);
        if (got < 0 && err->status == GPTNER_OK)
            gpn_fail(err, GPTNER_ERR_FILE, "next_fn failed");
        if (got <= 0)
            return got < 0 ? -1 : 0;
        copy = true;
    } else {
        return 0;
    }
    *out = gpn_item_new(&t->client->env, &t->at_hand, &p, copy);
    if (*out != NULL)
        return 1;
    gpn_fail(err, GPTNER_ERR_NO_MEMORY, "prompt %lld: out of memory",
             (long long)t->read);
    return -1;
}

static bool gpn_task_has_array(const gpn_task *t)
{
    return t->cfg != NULL && t->cfg->results != NULL;
}

/* A place for the result of the next prompt, before that is read. */
static bool gpn_task_make_room(gpn_task *t)
{
    gptner_result **more, **old;
    size_t room = t->room > 0 ? 2 * t->room : 64;
    if (!gpn_task_has_array(t) || t->read < t->room)
        return true;
    if (t->room == 0 && t->cfg->n_prompts > 0)
        room = t->cfg->n_prompts;
    if (room > SIZE_MAX / sizeof *more)
        return false;
    more =
        (gptner_result **)gpn_owned_new(&t->client->env, room * sizeof *more);
    if (more == NULL)
        return false;
    gpn_mutex_lock(&t->lock); /* results arrive meanwhile */
    if (t->room > 0)
        memcpy(more, t->results, t->room * sizeof *more);
    old = t->results;
    t->results = more;
    t->room = room;
    gpn_mutex_unlock(&t->lock);
    gpn_owned_free(old);
    return true;
}

/* The next prompt of the source, whatever that is. */
static int gpn_task_read(gpn_task *t, gpn_item **out, gptner_error *err)
{
    gpn_item *it = NULL;
    int got;
    if (!gpn_task_make_room(t)) {
        gpn_no_memory(err, "results");
        got = -1;
    } else if (t->input.is_open) {
        got = gpn_task_read_file(t, &it, err);
    } else {
        got = gpn_task_read_given(t, &it, err);
    }
    t->input_failed |= got < 0;
    if (got <= 0)
        return got;
    it->index = t->read++;
    it->options = it->prompt.options != NULL ? it->prompt.options
                                             : &t->client->cfg.options;
    *out = it;
    return 1;
}

/* --- places --- */

static GPN_NOINLINE bool gpn_out_direct(gpn_out *o, const char *data,
                                        size_t len)
{
    return gpn_file_write(&o->std, data, len, &o->oserr);
}

static bool gpn_out_write(gpn_out *o, const char *data, size_t len)
{
    if (o->oserr != 0)
        return false;
    if (!o->to_std)
        return gpn_whole_write(&o->whole, data, len, &o->oserr);
    if (o->buffer.len + len > o->buffer.cap) {
        if (!gpn_out_direct(o, o->buffer.data, o->buffer.len))
            return false;
        gpn_buf_clear(&o->buffer);
        if (len > o->buffer.cap)
            return gpn_out_direct(o, data, len);
    }
    gpn_buf_add(&o->buffer, data, len);
    return true;
}

static bool gpn_out_piece(const char *data, size_t len, void *user)
{
    return gpn_out_write((gpn_out *)user, data, len);
}

/* One line: line breaks and backslashes are escaped, so that lines of output
 * and prompts correspond. */
static void gpn_out_escaped(gpn_out *o, gptner_str text)
{
    size_t from = 0;
    size_t i;
    for (i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c != '\n' && c != '\r' && c != '\\')
            continue;
        gpn_out_write(o, text.ptr + from, i - from);
        gpn_out_write(o, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\\\", 2);
        from = i + 1;
    }
    if (text.len > from)
        gpn_out_write(o, text.ptr + from, text.len - from);
}

/* "TIMEOUT" for GPTNER_ERR_TIMEOUT. */
static const char *gpn_status_short(gptner_status status)
{
    const char *name = gptner_status_name(status);
    return name + (status == GPTNER_OK ? 7 : 11);
}

static void gpn_out_text(gpn_out *o, const gptner_result *r)
{
    if (r->status != GPTNER_OK) {
        const char *name = gpn_status_short(r->status);
        gpn_out_write(o, "ERROR: ", 7);
        gpn_out_write(o, name, strlen(name));
        gpn_out_write(o, ": ", 2);
        gpn_out_escaped(o, gptner_str_from(r->message));
    } else {
        gpn_out_escaped(o, r->text);
    }
    gpn_out_write(o, "\n", 1);
}

static void gpn_out_result(gpn_out *o, const gptner_result *r)
{
    gptner_json_writer w;
    if (!o->jsonl) {
        gpn_out_text(o, r);
        return;
    }
    gpn_buf_clear(&o->piece);
    gpn_json_writer_init(&w, &o->piece);
    w.write_fn = gpn_out_piece;
    w.write_user = o;
    gptner_json_write_object(&w);
    gptner_json_put_uint64(&w, "index", r->index);
    if (r->custom_id.ptr != NULL)
        gptner_json_put_str(&w, "custom_id", r->custom_id);
    gptner_json_put_string(&w, "status", gpn_status_short(r->status));
    if (r->message[0] != '\0')
        gptner_json_put_string(&w, "message", r->message);
    if (r->shared)
        gptner_json_put_bool(&w, "shared", true);
    gpn_out_put(&w, gpn_out_members, r);
    gptner_json_write_end(&w);
    gptner_json_writer_finish(&w, NULL);
    gpn_out_write(o, "\n", 1);
}

static GPN_NOINLINE bool gpn_path_is_jsonl(const char *path)
{
    return gpn_text_ends(path, ".jsonl");
}

static gptner_status gpn_out_open(gpn_out *o, const gpn_env *env,
                                  const char *path, gptner_error *err)
{
    o->jsonl = gpn_path_is_jsonl(path);
    o->to_std = strcmp(path, "-") == 0;
    gpn_buf_init(&o->piece, env, GPN_JSON_PIECE);
    gpn_buf_init(&o->buffer, env, GPN_JSON_PIECE);
    if ((o->jsonl && !gpn_buf_reserve(&o->piece, GPN_JSON_PIECE)) ||
        (o->to_std && !gpn_buf_reserve(&o->buffer, GPN_JSON_PIECE)))
        return gpn_fail(err, GPTNER_ERR_NO_MEMORY, "%s: out of memory", path);
    if (o->to_std)
        gpn_file_std(&o->std, 1);
    else if (!gpn_whole_begin(&o->whole, env, path, &o->oserr))
        return gpn_file_fail(err, path, "cannot be created", o->oserr);
    o->open = true;
    return GPTNER_OK;
}

/* keep: the file takes its place; otherwise nothing is left of it. */
static bool gpn_out_close(gpn_out *o, bool keep)
{
    bool ok = o->oserr == 0;
    if (o->open && o->to_std)
        ok = ok && gpn_out_direct(o, o->buffer.data, o->buffer.len);
    else if (o->open && keep && ok)
        ok = gpn_whole_commit(&o->whole, &o->oserr);
    else if (o->open)
        gpn_whole_abort(&o->whole);
    o->open = false;
    gpn_buf_deinit(&o->buffer);
    gpn_buf_deinit(&o->piece);
    return ok;
}

static GPN_NOINLINE void gpn_task_write_failed(gpn_task *t)
{
    gpn_file_fail(&t->failure, t->cfg->output_path, "writing failed",
                  t->out.oserr);
}

/* Hand a result to the places that only look at it. */
static bool gpn_task_show(gpn_task *t, const gptner_result *r)
{
    const gptner_run_config *cfg = t->cfg;
    t->delivered++;
    if (cfg == NULL)
        return true;
    if (t->out.open && t->failure.status == GPTNER_OK) {
        gpn_out_result(&t->out, r);
        if (t->out.oserr != 0)
            gpn_task_write_failed(t);
    }
    if (cfg->result_fn != NULL && !cfg->result_fn(r, cfg->result_user))
        return false;
    return t->failure.status == GPTNER_OK;
}

/* --- equal prompts --- */

static GPN_NOINLINE size_t gpn_twin_bytes(const gptner_result *r)
{
    return GPN_TWIN_BYTES_EACH + r->text.len + r->raw.len;
}

static void gpn_twin_drop(gpn_task *t, gpn_twin *twin)
{
    if (twin->owned) {
        t->twin_bytes -= gpn_twin_bytes(twin->result);
        gpn_owned_free(twin->result);
    }
    memset(twin, 0, sizeof *twin);
}

/* The twin of this request. *follows: another prompt makes it. NULL: all that
 * the request could be remembered in are busy. Lock held. */
static gpn_twin *gpn_twin_find_locked(gpn_task *t, const uint64_t key[2],
                                      bool *follows)
{
    size_t at = (size_t)(key[1] % (t->n_twins / GPN_TWIN_WAYS));
    gpn_twin *set = &t->twins[at * GPN_TWIN_WAYS];
    gpn_twin *place = NULL;
    size_t i;
    *follows = false;
    for (i = 0; i < GPN_TWIN_WAYS; i++) {
        gpn_twin *w = &set[i];
        if (w->used && (!w->done || w->shares) &&
            memcmp(w->key, key, sizeof w->key) == 0) {
            *follows = true;
            return w;
        }
        if (place == NULL || place->used)
            place = !w->used || (w->done && w->waiting == 0) ? w : place;
    }
    if (place != NULL) {
        gpn_twin_drop(t, place);
        place->used = true;
        memcpy(place->key, key, sizeof place->key);
    }
    return place;
}

/* Is the item's request the same as an earlier one's? Then it waits in the
 * queue of followers, and true is returned. */
static bool gpn_task_follow(gpn_task *t, gpn_item *it)
{
    uint64_t key[2];
    gptner_str body;
    gpn_twin *twin;
    bool follows = false;
    gpn_ask ask;
    if (it->bad != NULL)
        return false;
    gpn_item_ask(t, it, &ask);
    gpn_buf_clear(&t->body);
    if (gpn_body_write(&ask, &t->body, NULL) != GPTNER_OK)
        return false; /* its own request fails the same way, and says why */
    gpn_buf_add_c(&t->body, (char)ask.endpoint);
    if (t->body.status != GPTNER_OK)
        return false; /* it is sent, though it may be a twin */
    body = gpn_str(t->body.data, t->body.len);
    key[0] = gpn_sip(t->seed, body);
    key[1] = gpn_sip(t->seed + 2, body);
    gpn_mutex_lock(&t->lock);
    twin = gpn_twin_find_locked(t, key, &follows);
    if (follows && t->followers >= GPN_FOLLOWERS_MAX) {
        follows = false;
        twin = NULL;
    }
    it->twin = twin;
    if (follows) {
        twin->waiting++;
        if (t->last != NULL)
            t->last->next = it;
        else
            t->first = it;
        t->last = it;
        t->followers++;
        t->shared++;
    }
    gpn_mutex_unlock(&t->lock);
    return follows;
}

/* Whether followers may have this answer: also a refusal is one. */
static bool gpn_result_shares(const gptner_result *r)
{
    return r->status == GPTNER_OK || r->status == GPTNER_ERR_REFUSED ||
           r->status == GPTNER_ERR_FILTERED ||
           r->status == GPTNER_ERR_TRUNCATED;
}

/* A result was shown: it goes to its twin, to the array, or away. */
static void gpn_task_store(gpn_task *t, gpn_item *it)
{
    gpn_twin *twin = it->twin;
    gptner_result *r = it->result;
    bool kept = false;
    if (gpn_task_has_array(t)) {
        gpn_mutex_lock(&t->lock);
        t->results[it->index] = r;
        gpn_mutex_unlock(&t->lock);
        kept = true;
    } else if (t->one != NULL) {
        t->single = r;
        kept = true;
    }
    if (twin != NULL) {
        gpn_mutex_lock(&t->lock);
        twin->done = true;
        twin->result = r;
        twin->shares =
            gpn_result_shares(r) &&
            (kept || t->twin_bytes + gpn_twin_bytes(r) <= GPN_TWIN_BYTES);
        if (!kept && (twin->shares || twin->waiting > 0)) {
            twin->owned = true;
            t->twin_bytes += gpn_twin_bytes(r);
            kept = true;
        } else if (!kept) {
            memset(twin, 0, sizeof *twin);
        }
        gpn_mutex_unlock(&t->lock);
    }
    gpn_task_put_item(t, it); /* unless it is the result */
    if (!kept)
        gpn_owned_free(r);
}

/* The first follower, if its time has come: when its answer is there, and, in
 * order, when all before it were delivered. */
static gpn_item *gpn_task_next_follower(gpn_task *t, bool in_order)
{
    gpn_item *it;
    gpn_mutex_lock(&t->lock);
    it = t->first;
    if (it != NULL &&
        (!it->twin->done || (in_order && it->index != t->delivered)))
        it = NULL;
    if (it != NULL) {
        t->first = it->next;
        if (t->first == NULL)
            t->last = NULL;
        t->followers--;
    }
    gpn_mutex_unlock(&t->lock);
    return it;
}

/* Give a follower its copy of the answer and deliver it. */
static bool gpn_task_share(gpn_task *t, gpn_item *it)
{
    const gpn_env *env = &t->client->env;
    gpn_twin *twin = it->twin;
    gptner_result view = *twin->result;
    bool go_on;
    gpn_item_describe(it, 0, &view);
    view.shared = true;
    it->twin = NULL;
    if (gpn_task_has_array(t)) {
        gpn_item_keep(env, it, &view);
        go_on = gpn_task_show(t, it->result);
    } else {
        go_on = gpn_task_show(t, &view);
    }
    gpn_mutex_lock(&t->lock);
    if (view.status == GPTNER_OK)
        t->shared_ok++;
    else
        t->shared_failed++;
    twin->waiting--;
    if (twin->waiting == 0 && !twin->shares)
        gpn_twin_drop(t, twin);
    gpn_mutex_unlock(&t->lock);
    if (it->result != NULL)
        gpn_task_store(t, it);
    else
        gpn_task_put_item(t, it);
    return go_on;
}

static bool gpn_task_share_due(gpn_task *t, bool in_order)
{
    bool go_on = true;
    gpn_item *it;
    if (t->twins == NULL)
        return true;
    while ((it = gpn_task_next_follower(t, in_order)) != NULL)
        go_on = gpn_task_share(t, it) && go_on;
    return go_on;
}

static gptner_status gpn_task_open_twins(gpn_task *t, gptner_error *err)
{
    size_t n = 1024;
    int64_t total = t->cfg->n_prompts > 0 ? (int64_t)t->cfg->n_prompts
                    : t->cfg->total > 0   ? t->cfg->total
                                          : 16384;
    while (n < GPN_TWINS_MAX && (int64_t)n < total)
        n *= 2;
    gpn_buf_init(&t->body, &t->client->env, SIZE_MAX / 2);
    t->twins =
        (gpn_twin *)gpn_mem_zalloc(&t->client->env, n * sizeof *t->twins);
    t->n_twins = n;
    if (t->twins == NULL)
        return gpn_no_memory(err, "dedupe");
    for (n = 0; n < GPN_COUNT(t->seed); n++)
        t->seed[n] = gpn_random_u64(&t->client->env);
    return GPTNER_OK;
}

static void gpn_task_close_twins(gpn_task *t)
{
    size_t i;
    if (t->twins == NULL)
        return;
    for (i = 0; i < t->n_twins; i++)
        gpn_twin_drop(t, &t->twins[i]);
    gpn_mem_free(&t->client->env, t->twins);
    gpn_buf_deinit(&t->body);
}

/* --- what the pool asks --- */

static int gpn_task_next(void *ctx, gpn_work **work, gptner_error *err)
{
    gpn_task *t = (gpn_task *)ctx;
    gpn_item *it = NULL;
    int got;
    do {
        got = gpn_task_read(t, &it, err);
    } while (got > 0 && t->twins != NULL && gpn_task_follow(t, it));
    if (got > 0)
        *work = &it->work;
    return got;
}

static bool gpn_task_deliver(void *ctx, gpn_work *work)
{
    gpn_task *t = (gpn_task *)ctx;
    gpn_item *it = (gpn_item *)work;
    bool in_order = t->cfg == NULL || !t->cfg->as_completed;
    /* followers read since the last delivery may stand before this one */
    bool go_on = !in_order || gpn_task_share_due(t, true);
    go_on = gpn_task_show(t, it->result) && go_on;
    gpn_task_store(t, it);
    return gpn_task_share_due(t, in_order) && go_on;
}

static const gpn_work_ops gpn_task_ops = {
    gpn_task_next,   gpn_item_build,  NULL, NULL, gpn_item_judge,
    gpn_item_settle, gpn_task_deliver};

static const gpn_work_ops gpn_live_ops = {
    gpn_task_next,  gpn_item_build,  gpn_item_divert, gpn_item_body,
    gpn_item_judge, gpn_item_settle, gpn_task_deliver};

/* One work, in the calling thread. */
static GPN_NOINLINE gptner_status gpn_run_single(gptner_client *c,
                                                 const gpn_work_ops *ops,
                                                 void *ctx, int64_t limit_ms,
                                                 gptner_error *err)
{
    gpn_run_spec spec;
    memset(&spec, 0, sizeof spec);
    spec.timeout_ms = limit_ms;
    spec.ops = ops;
    spec.ctx = ctx;
    spec.single = true;
    spec.total = 1;
    return gpn_pool_run(c->pool, &spec, NULL, err);
}

/* --- one prompt --- */

static void gpn_result_to_error(const gptner_result *r, gptner_error *err)
{
    if (err == NULL)
        return;
    gpn_fail(err, r->status, "%s", r->message);
    err->http_status = r->http_status;
    err->retry_after_ms = r->retry_after_ms;
}

static gptner_status gpn_task_single(gptner_client *client,
                                     const gptner_prompt *prompt,
                                     gpn_live *live, gptner_result **out,
                                     gptner_error *err)
{
    gpn_task t;
    gptner_error why = GPN_ZERO;
    gptner_status status;
    if (out != NULL)
        *out = NULL;
    if (client == NULL || prompt == NULL)
        return gpn_refuse(err, "chat: client or prompt is NULL");
    memset(&t, 0, sizeof t);
    t.client = client;
    t.one = prompt;
    t.live = live;
    status = gpn_run_single(
        client, live != NULL ? &gpn_live_ops : &gpn_task_ops, &t, 0, &why);
    if (t.single == NULL) { /* nothing was begun */
        gptner_result view;
        gpn_result_blank(&view);
        view.status = status;
        view.message = why.message;
        view.custom_id = prompt->custom_id;
        view.tag = prompt->tag;
        t.single = gpn_result_copy(&client->env, &view);
    }
    if (t.single == NULL)
        return gpn_fail(err, status, "%s", why.message);
    status = t.single->status;
    gpn_result_to_error(t.single, err);
    if (out != NULL)
        *out = t.single;
    else
        gptner_result_free(t.single);
    return status;
}

GPTNER_API gptner_status gptner_chat(gptner_client *client,
                                     const gptner_prompt *prompt,
                                     gptner_result **out, gptner_error *err)
{
    return gpn_task_single(client, prompt, NULL, out, err);
}

GPTNER_API gptner_status gptner_ask(gptner_client *client, const char *text,
                                    gptner_result **out, gptner_error *err)
{
    gptner_prompt prompt = GPN_ZERO;
    prompt.text = gptner_str_from(text);
    return gpn_task_single(client, &prompt, NULL, out, err);
}

GPTNER_API gptner_status gptner_chat_stream(gptner_client *client,
                                            const gptner_prompt *prompt,
                                            gptner_delta_fn delta_fn,
                                            void *user, gptner_result **out,
                                            gptner_error *err)
{
    gpn_live live;
    gptner_status status;
    if (client == NULL)
        return gpn_task_single(client, prompt, NULL, out, err);
    memset(&live, 0, sizeof live);
    live.client = client;
    live.fn = delta_fn;
    live.user = user;
    gpn_sse_init(&live.sse, &client->env, client->cfg.max_body_bytes);
    status = gpn_task_single(client, prompt, &live, out, err);
    gpn_live_reset(&live);
    gpn_sse_deinit(&live.sse);
    return status;
}

/* --- many prompts --- */

static gptner_status gpn_task_check(const gptner_run_config *cfg,
                                    gptner_error *err)
{
    if (cfg->max_workers < 0 || cfg->max_workers > 100000)
        return gpn_refuse(err,
                          "run: max_workers out of range (0: the client's)");
    if (cfg->as_completed && cfg->output_path != NULL &&
        !gpn_path_is_jsonl(cfg->output_path))
        return gpn_refuse(err,
                          "run: as_completed needs an output_path that ends in "
                          ".jsonl, for lines of text have no index");
    return GPTNER_OK;
}

static gptner_status gpn_task_open(gpn_task *t, gptner_error *err)
{
    const gptner_run_config *cfg = t->cfg;
    const gpn_env *env = &t->client->env;
    gptner_status status = GPTNER_OK;
    int oserr = 0;
    if (cfg->prompts == NULL && cfg->texts == NULL && cfg->input_path != NULL) {
        t->jsonl = gpn_path_is_jsonl(cfg->input_path);
        if (strcmp(cfg->input_path, "-") == 0)
            gpn_file_std(&t->input, 0);
        else if (!gpn_file_open_read(&t->input, env, cfg->input_path, &oserr))
            return gpn_file_fail(err, cfg->input_path, "cannot be read", oserr);
        gpn_buf_init(&t->lines, env,
                     t->client->cfg.max_body_bytes + GPN_LINE_READ);
    }
    if (cfg->dedupe)
        status = gpn_task_open_twins(t, err);
    if (status == GPTNER_OK && cfg->output_path != NULL)
        status = gpn_out_open(&t->out, env, cfg->output_path, err);
    return status;
}

static GPN_NOINLINE void gpn_task_close(gpn_task *t)
{
    int oserr;
    gpn_task_close_twins(t);
    while (t->at_hand != NULL) {
        gpn_item *it = t->at_hand;
        t->at_hand = it->next;
        gpn_mem_free(&t->client->env, it);
    }
    if (t->input.is_open)
        gpn_file_close(&t->input, &oserr); /* was only read */
    gpn_buf_deinit(&t->lines);
    gpn_mutex_deinit(&t->lock);
}

/* The pool's numbers know nothing of prompts that share an answer. */
static void gpn_task_progress(const gptner_progress *progress, void *user)
{
    gpn_task *t = (gpn_task *)user;
    gptner_progress p = *progress;
    gpn_mutex_lock(&t->lock);
    if (p.total >= 0)
        p.total += t->shared;
    p.done += t->shared_ok + t->shared_failed;
    p.ok += t->shared_ok;
    p.failed += t->shared_failed;
    gpn_mutex_unlock(&t->lock);
    if (t->cfg->n_prompts > 0)
        p.total = (int64_t)t->cfg->n_prompts;
    t->cfg->progress_fn(&p, t->cfg->progress_user);
}

static void gpn_task_spec(gpn_task *t, gpn_run_spec *spec)
{
    const gptner_run_config *cfg = t->cfg;
    bool array = cfg->prompts != NULL || cfg->texts != NULL;
    memset(spec, 0, sizeof *spec);
    spec->ops = &gpn_task_ops;
    spec->ctx = t;
    spec->max_workers = cfg->max_workers;
    spec->max_ahead = cfg->max_ahead;
    spec->as_completed = cfg->as_completed;
    spec->timeout_ms = cfg->timeout_ms;
    spec->total = array ? (int64_t)cfg->n_prompts : -1;
    if (!array && !t->input.is_open && cfg->total > 0)
        spec->total = cfg->total;
    /* what is known to end is read to its end, a result for each prompt */
    spec->drain = array || (t->input.is_open && !t->input.is_borrowed);
    spec->progress_fn = cfg->progress_fn;
    spec->progress_user = cfg->progress_user;
    spec->progress_every_ms = cfg->progress_every_ms;
    if (t->twins != NULL) {
        spec->total = -1;
        if (cfg->progress_fn != NULL) {
            spec->progress_fn = gpn_task_progress;
            spec->progress_user = t;
        }
    }
}

/* Give the results away and make up the books. */
static gptner_status gpn_task_finish(gpn_task *t, gptner_status status,
                                     gptner_run_summary *sum, gptner_error *err)
{
    bool keep = !t->input_failed && t->failure.status == GPTNER_OK;
    gpn_task_share_due(t, false);
    if (sum != NULL) {
        sum->total += t->shared;
        sum->ok += t->shared_ok;
        sum->failed += t->shared_failed;
    }
    if (!gpn_out_close(&t->out, keep) && t->failure.status == GPTNER_OK)
        gpn_task_write_failed(t);
    if (t->failure.status != GPTNER_OK) {
        status = t->failure.status;
        if (err != NULL)
            *err = t->failure;
    }
    if (t->cfg->results != NULL)
        *t->cfg->results = t->results;
    if (t->cfg->n_results != NULL)
        *t->cfg->n_results = t->cfg->results != NULL ? t->read : 0;
    return status;
}

static gptner_status gpn_run_prompts(gptner_client *client,
                                     const gptner_run_config *run,
                                     bool keep_raw, gptner_run_summary *summary,
                                     gptner_error *err)
{
    gpn_task t;
    gpn_run_spec spec;
    gptner_status status;
    if (summary != NULL)
        memset(summary, 0, sizeof *summary);
    if (run != NULL && run->results != NULL)
        *run->results = NULL;
    if (run != NULL && run->n_results != NULL)
        *run->n_results = 0;
    if (client == NULL || run == NULL)
        return gpn_refuse(err, "run: client or configuration is NULL");
    status = gpn_task_check(run, err);
    if (status != GPTNER_OK)
        return status;
    memset(&t, 0, sizeof t);
    t.client = client;
    t.cfg = run;
    t.keep_raw = keep_raw;
    if (!gpn_mutex_init(&t.lock))
        return gpn_fail(err, GPTNER_ERR_THREAD, "run: no mutex");
    status = gpn_task_open(&t, err);
    if (status == GPTNER_OK) {
        gpn_task_spec(&t, &spec);
        if (err != NULL)
            memset(err, 0, sizeof *err);
        status = gpn_pool_run(client->pool, &spec, summary, err);
        status = gpn_task_finish(&t, status, summary, err);
    } else {
        gpn_out_close(&t.out, false);
    }
    gpn_task_close(&t);
    return status;
}

GPTNER_API gptner_status gptner_run(gptner_client *client,
                                    const gptner_run_config *run,
                                    gptner_run_summary *summary,
                                    gptner_error *err)
{
    return gpn_run_prompts(client, run, false, summary, err);
}

GPTNER_API void gptner_results_free(gptner_result **results, size_t n)
{
    size_t i;
    for (i = 0; i < n && results != NULL; i++)
        gptner_result_free(results[i]);
    gpn_owned_free(results);
}

/* --- any request --- */

typedef struct gpn_call gpn_call;

/* A request that is no prompt. */
struct gpn_call {
    gpn_work work; /* first: the pool's pointer is this call's */
    const gptner_raw_request *raw;
    gpn_head head;
    const char *method;
    gpn_buf target;
    gpn_multipart *parts; /* &form, if there are any */
    bool saving;          /* whole is open */
    bool taken;           /* by the pool */
    bool handed;          /* a piece went to the caller */
    bool sent;            /* a byte of the last attempt went out */
    int64_t limit_ms;     /* of the call as a whole; 0: none but the item's */
    /* Takes a 2xx body that is in memory, which it may change. */
    gptner_status (*decode_fn)(gpn_call *call, char *body, size_t len,
                               gptner_error *err);
    void *product; /* of decode_fn */
    gptner_response *response;
    gptner_status status;
    gpn_whole whole;
    gpn_sse sse;
    gpn_multipart form;
    char form_type[96];
    gptner_error error;
};

static int gpn_call_next(void *ctx, gpn_work **work, gptner_error *err)
{
    gpn_call *call = (gpn_call *)ctx;
    GPN_UNUSED(err);
    *work = &call->work;
    if (call->taken)
        return 0;
    call->taken = true;
    return 1;
}

static void gpn_call_drop_file(gpn_call *call)
{
    if (call->saving)
        gpn_whole_abort(&call->whole);
    call->saving = false;
}

static gptner_status gpn_call_build(void *ctx, gpn_work *work, gpn_request *q,
                                    gptner_error *err)
{
    gpn_call *call = (gpn_call *)ctx;
    const gptner_raw_request *raw = call->raw;
    GPN_UNUSED(work);
    gpn_call_drop_file(call);
    gpn_sse_reset(&call->sse);
    gpn_http_begin(&q->head, call->method,
                   gpn_str(call->target.data, call->target.len));
    gpn_head_fields(&call->head, &q->head);
    gpn_head_end(&q->head, call->head.has_body,
                 call->parts != NULL ? (uint64_t)call->parts->length
                                     : raw->body.len);
    gpn_buf_add_str(&q->body, raw->body);
    q->peer = &call->head.origin->peer;
    q->is_head = strcmp(call->method, "HEAD") == 0;
    q->repeatable = !raw->no_retry;
    q->bulk = call->parts != NULL || raw->save_path != NULL;
    q->parts = call->parts;
    if (q->head.status == GPTNER_ERR_INVALID_ARGUMENT)
        return gpn_refuse(err,
                          "request: method, path or a header holds a character "
                          "that does not belong there");
    if (q->head.status != GPTNER_OK || q->body.status != GPTNER_OK)
        return gpn_no_memory(err, "request");
    return GPTNER_OK;
}

static bool gpn_call_divert(void *ctx, gpn_work *work, const gpn_http *http)
{
    const gpn_call *call = (const gpn_call *)ctx;
    const gptner_raw_request *raw = call->raw;
    GPN_UNUSED(work);
    return http->status / 100 == 2 &&
           (raw->save_path != NULL || raw->body_fn != NULL ||
            raw->event_fn != NULL);
}

static gptner_status gpn_call_file_error(const gpn_call *call, int oserr,
                                         gptner_error *err)
{
    return gpn_file_fail(err, call->raw->save_path, "writing failed", oserr);
}

static gptner_status gpn_call_save(gpn_call *call, const char *data, size_t len,
                                   gptner_error *err)
{
    int oserr = 0;
    if (!call->saving)
        call->saving = gpn_whole_begin(&call->whole, &call->head.client->env,
                                       call->raw->save_path, &oserr);
    if (!call->saving || !gpn_whole_write(&call->whole, data, len, &oserr))
        return gpn_call_file_error(call, oserr, err);
    return GPTNER_OK;
}

static gptner_status gpn_call_stopped(gptner_error *err)
{
    return gpn_fail(err, GPTNER_ERR_CANCELLED,
                    "request: stopped by its callback");
}

static gptner_status gpn_call_event(void *ctx, const gpn_sse_message *m,
                                    gptner_error *err)
{
    const gptner_raw_request *raw = ((gpn_call *)ctx)->raw;
    return raw->event_fn(m->type, m->data, m->id, raw->user)
               ? GPTNER_OK
               : gpn_call_stopped(err);
}

static gptner_status gpn_call_body(void *ctx, gpn_work *work, const char *data,
                                   size_t len, gptner_error *err)
{
    gpn_call *call = (gpn_call *)ctx;
    const gptner_raw_request *raw = call->raw;
    GPN_UNUSED(work);
    if (raw->save_path != NULL)
        return gpn_call_save(call, data, len, err);
    call->handed = true;
    if (raw->event_fn != NULL)
        return gpn_sse_feed(&call->sse, gpn_str(data, len), call,
                            gpn_call_event, err);
    return raw->body_fn(data, len, raw->user) ? GPTNER_OK
                                              : gpn_call_stopped(err);
}

/* Names and values in turn. */
static gptner_str gpn_response_text(const gpn_http *http, size_t i)
{
    return i % 2 == 0 ? gpn_http_name(http, i / 2)
                      : gpn_http_value(http, i / 2);
}

/* The response as the caller sees it, in one block; NULL: no memory. */
static GPN_NOINLINE gptner_response *gpn_response_new(const gptner_client *c,
                                                      const gpn_reply *reply)
{
    const gpn_http *http = reply->http;
    size_t n = http->n_headers;
    size_t size = n * sizeof(gptner_header) + reply->body_len + 1;
    gptner_response *r;
    char *at;
    size_t i;
    for (i = 0; i < 2 * n; i++)
        size += gpn_response_text(http, i).len + 1;
    r = (gptner_response *)gpn_owned_new(&c->env, sizeof *r + size);
    if (r == NULL)
        return NULL;
    r->status = reply->http_status;
    r->headers = (gptner_header *)(r + 1);
    r->n_headers = n;
    at = (char *)(r->headers + n);
    for (i = 0; i < 2 * n; i++) {
        gptner_str text = gpn_response_text(http, i);
        if (text.len > 0)
            memcpy(at, text.ptr, text.len); /* the NUL is there */
        *(i % 2 == 0 ? &r->headers[i / 2].name : &r->headers[i / 2].value) = at;
        at += text.len + 1;
    }
    memcpy(at, reply->body, reply->body_len);
    r->body = gpn_str(at, reply->body_len);
    if (reply->http_status / 100 != 2)
        gpn_secret_mask(c, at, reply->body_len);
    r->body_bytes = reply->body_bytes;
    r->reused = reply->reused;
    r->reusable = reply->reusable;
    return r;
}

/* A 2xx response is there: see that it arrives where it is wanted. */
static gptner_status gpn_call_finish(gpn_call *call, gpn_reply *reply,
                                     gptner_error *err)
{
    int oserr = 0;
    gptner_status status = GPTNER_OK;
    if (call->decode_fn != NULL)
        return call->decode_fn(call, reply->body, reply->body_len, err);
    if (call->raw->save_path == NULL)
        return GPTNER_OK;
    status = gpn_call_save(call, "", 0, err); /* the body may be empty */
    if (status != GPTNER_OK)
        return status;
    call->saving = false;
    return gpn_whole_commit(&call->whole, &oserr)
               ? GPTNER_OK
               : gpn_call_file_error(call, oserr, err);
}

static gpn_class gpn_call_decide(gpn_call *call, gpn_reply *reply,
                                 int64_t *delay_ms, gptner_error *err)
{
    gpn_fields f;
    gpn_class cls;
    char what[160];
    if (reply->status != GPTNER_OK)
        return gpn_judge_transport(reply, err);
    if (call->decode_fn == NULL) {
        call->response = gpn_response_new(call->head.client, reply);
        if (call->response == NULL) {
            gpn_no_memory(err, "response");
            return GPN_CLASS_FAIL;
        }
    }
    if (reply->http_status / 100 == 2) {
        gptner_status status = gpn_call_finish(call, reply, err);
        if (status != GPTNER_OK)
            err->http_status = reply->http_status;
        return status == GPTNER_OK              ? GPN_CLASS_OK
               : status == GPTNER_ERR_BAD_REPLY ? GPN_CLASS_BAD_REPLY
                                                : GPN_CLASS_FAIL;
    }
    gpn_format(what, sizeof what, "%s %.*s", call->method,
               (int)(call->target.len < 120 ? call->target.len : 120),
               call->target.data);
    gpn_fields_init(&f, &call->head.client->env, reply->body);
    gpn_fields_read_error(&f, call->head.client, reply->body_len);
    cls = gpn_judge_error(reply, &f, what, delay_ms, err);
    gpn_fields_deinit(&f);
    return cls;
}

static gpn_class gpn_call_judge(void *ctx, gpn_work *work, gpn_reply *reply,
                                int64_t *delay_ms, gptner_error *err)
{
    gpn_call *call = (gpn_call *)ctx;
    gpn_class cls;
    gpn_owned_free(call->response);
    call->response = NULL;
    call->sent = reply->sent;
    cls = gpn_call_decide(call, reply, delay_ms, err);
    if ((call->handed || call->raw->no_retry) && cls != GPN_CLASS_OK)
        cls = GPN_CLASS_FAIL;
    if (call->response != NULL)
        call->response->attempts = work->budget.attempts;
    work->ok = cls == GPN_CLASS_OK;
    call->status = work->ok ? GPTNER_OK : err->status;
    if (!work->ok)
        call->error = *err;
    return cls;
}

static void gpn_call_settle(void *ctx, gpn_work *work, const gptner_error *err)
{
    gpn_call *call = (gpn_call *)ctx;
    work->ok = false;
    call->status = err->status;
    call->error = *err;
}

static bool gpn_call_deliver(void *ctx, gpn_work *work)
{
    GPN_UNUSED(ctx);
    GPN_UNUSED(work);
    return true;
}

/* Prepare a call; gpn_call_deinit() follows in any case. */
static gptner_status gpn_call_init(gpn_call *call, gptner_client *c,
                                   const gptner_raw_request *raw,
                                   gptner_error *err)
{
    bool form = raw->parts != NULL;
    size_t i;
    memset(call, 0, sizeof *call);
    call->raw = raw;
    call->method = raw->method;
    if (call->method == NULL)
        call->method = form || raw->body.ptr != NULL ? "POST" : "GET";
    call->head.client = c;
    call->head.origin = &c->home;
    call->head.own = true;
    call->head.headers = raw->headers;
    call->head.n_headers = raw->n_headers;
    call->head.has_body = form || raw->body.ptr != NULL ||
                          gpn_listed("POST,PUT,PATCH", call->method);
    call->head.content_type = raw->content_type;
    if (call->head.content_type == NULL && raw->body.ptr != NULL)
        call->head.content_type = "application/json";
    gpn_buf_init(&call->target, &c->env, GPN_URL_MAX);
    gpn_sse_init(&call->sse, &c->env, c->cfg.max_body_bytes);
    for (i = 0; i < raw->n_headers; i++) {
        gptner_status status = gpn_header_check(&raw->headers[i], err);
        if (status != GPTNER_OK)
            return status;
    }
    gpn_target_add(c, &call->target, raw->path);
    if (call->target.status != GPTNER_OK)
        return gpn_fail(err, call->target.status, "request: path too long");
    if (form) {
        gptner_status status = gpn_multipart_init(
            &call->form, &c->env, raw->parts, raw->n_parts, err);
        if (status != GPTNER_OK)
            return status;
        call->parts = &call->form;
        gpn_format(call->form_type, sizeof call->form_type,
                   "multipart/form-data; boundary=%s", call->form.boundary);
        call->head.content_type = call->form_type;
    }
    return GPTNER_OK;
}

static void gpn_call_deinit(gpn_call *call)
{
    gpn_call_drop_file(call);
    if (call->parts != NULL)
        gpn_multipart_deinit(&call->form);
    gpn_sse_deinit(&call->sse);
    gpn_buf_deinit(&call->target);
}

static const gpn_work_ops gpn_call_ops = {
    gpn_call_next,  gpn_call_build,  gpn_call_divert, gpn_call_body,
    gpn_call_judge, gpn_call_settle, gpn_call_deliver};

static gptner_status gpn_call_run(gpn_call *call, gptner_error *err)
{
    gptner_status status;
    memset(&call->work, 0, sizeof call->work);
    call->taken = false;
    call->sent = false;
    call->status = GPTNER_OK;
    status = gpn_run_single(call->head.client, &gpn_call_ops, call,
                            call->limit_ms, &call->error);
    if (!call->taken)
        call->status = status;
    if (call->status != GPTNER_OK && err != NULL)
        *err = call->error;
    return call->status;
}

/* --- redirects (RFC 9110 15.4) --- */

GPTNER_API const char *gptner_response_header(const gptner_response *response,
                                              const char *name)
{
    size_t i;
    for (i = 0; response != NULL && name != NULL && i < response->n_headers;
         i++)
        if (gpn_str_ieq_c(gptner_str_from(response->headers[i].name), name))
            return response->headers[i].value;
    return NULL;
}

/* Point the call to where its redirect leads: a whole URL, or a path of the
 * server that it was at. Other references (RFC 3986 4.2) no API sends. Without
 * the key for another server, and never from https to http. */
static GPN_NOINLINE gptner_status gpn_call_redirect(gpn_call *call,
                                                    const char *location,
                                                    gptner_error *err)
{
    const gpn_origin *from = call->head.origin;
    gptner_client *c = call->head.client;
    gptner_str to = gpn_str_trim(gptner_str_from(location));
    size_t hash = gpn_str_find(to, "#");
    gptner_status status;
    gpn_buf url;
    if (hash < to.len)
        to.len = hash;
    gpn_buf_init(&url, &c->env, GPN_URL_MAX);
    if (gpn_str_starts(to, "/")) {
        gpn_buf_add_s(&url, from->url.scheme);
        gpn_buf_add_c(&url, ':');
        if (!gpn_str_starts(to, "//")) {
            gpn_buf_add_s(&url, "//");
            gpn_buf_add_s(&url, from->host);
        }
    }
    gpn_buf_add_str(&url, to);
    status = url.status;
    if (status == GPTNER_OK)
        status = gpn_client_origin(c, gpn_str(url.data, url.len), from->url.tls,
                                   &call->head.origin, &call->target, err);
    gpn_buf_deinit(&url);
    if (status != GPTNER_OK)
        return status;
    if (call->head.origin != &c->home) { /* for good: it may lead back */
        call->head.own = false;
        call->head.n_headers = 0;
    }
    return call->target.status;
}

/* Run the call, and again for every redirect that may be followed. */
static gptner_status gpn_call_follow(gpn_call *call, gptner_error *err)
{
    gptner_status status = gpn_call_run(call, err);
    int left = call->raw->max_redirects;
    if (!gpn_listed("GET,HEAD", call->method))
        left = 0;
    for (; status == GPTNER_ERR_REDIRECT && left > 0; left--) {
        const char *location =
            gptner_response_header(call->response, "Location");
        if (location == NULL || call->response->status == 304)
            break;
        status = gpn_call_redirect(call, location, err);
        if (status != GPTNER_OK)
            break;
        status = gpn_call_run(call, err);
    }
    return status;
}

GPTNER_API void gptner_response_free(gptner_response *response)
{
    gpn_owned_free(response);
}

GPTNER_API gptner_status gptner_raw(gptner_client *client,
                                    const gptner_raw_request *request,
                                    gptner_response **out, gptner_error *err)
{
    gpn_call call;
    gptner_status status;
    if (out != NULL)
        *out = NULL;
    if (client == NULL || request == NULL)
        return gpn_refuse(err, "raw: client or request is NULL");
    status = gpn_call_init(&call, client, request, err);
    if (status == GPTNER_OK)
        status = gpn_call_follow(&call, err);
    gpn_call_deinit(&call);
    if (out != NULL)
        *out = call.response;
    else
        gptner_response_free(call.response);
    return status;
}

/* A call whose reply decode_fn turns into *product. */
static gptner_status gpn_call_decoded(
    gptner_client *client, const gptner_raw_request *raw,
    gptner_status (*decode_fn)(gpn_call *, char *, size_t, gptner_error *),
    void **product, gptner_error *err)
{
    gpn_call call;
    gptner_status status = gpn_call_init(&call, client, raw, err);
    call.decode_fn = decode_fn;
    call.product = *product;
    if (status == GPTNER_OK)
        status = gpn_call_run(&call, err);
    gpn_call_deinit(&call);
    *product = status == GPTNER_OK ? call.product : NULL;
    return status;
}

/* Read the reply of a call into f, which is ready for it. */
static gptner_status gpn_call_read(gpn_call *call, gpn_fields *f, size_t len,
                                   gptner_error *err)
{
    gptner_str text;
    gptner_status status =
        gpn_fields_load(f, call->head.client, len, call->raw->path, err);
    if (status != GPTNER_OK || !f->failed)
        return status;
    text = f->r.error_message;
    return gpn_fail(err, GPTNER_ERR_SERVER, "%s: %.*s", call->raw->path,
                    (int)text.len, text.len > 0 ? text.ptr : "");
}

/* --- embeddings --- */

enum { GPN_EMBED_MAX = 2048, GPN_EMBED_DIMENSIONS_MAX = 1 << 20 };

typedef struct gpn_row {
    int64_t index;
    gptner_str vector; /* base64, or the text of an array */
} gpn_row;

/* The vectors as they stand in the reply, by index. */
typedef struct gpn_rows {
    size_t n;
    int64_t position;  /* of the next item */
    bool wrong;        /* an index is out of range or there twice */
    gptner_str row[1]; /* n */
} gpn_rows;

static void gpn_rows_add(gpn_fields *f, gptner_json_reader *r)
{
    static const gpn_member members[] = {
        {"index", GPN_KIND_COUNT, offsetof(gpn_row, index)},
        {"embedding", GPN_KIND_VECTOR, offsetof(gpn_row, vector)},
        {"", GPN_KIND_SKIP, 0}};
    gpn_rows *rows = (gpn_rows *)f->items;
    gpn_row row = GPN_ZERO;
    row.index = rows->position++;
    if (!gpn_read_object(f, r, members, &row))
        return;
    if (row.index >= (int64_t)rows->n || rows->row[row.index].ptr != NULL)
        rows->wrong = true;
    else
        rows->row[row.index] = row.vector;
}

/* The values of a row: little-endian binary32 in base64, or numbers. out NULL:
 * only counts (base64 may be counted one too high by a broken length; reading
 * then fails). false: not exactly n of them. */
static bool gpn_row_read(gptner_str row, float *out, size_t *n)
{
    gptner_json_reader r;
    size_t i = 0;
    if (*row.ptr != '[') {
        unsigned char *bytes = (unsigned char *)out;
        size_t len = row.len;
        if (out == NULL) {
            while (len > 0 && row.ptr[len - 1] == '=')
                len--;
            *n = len / 16 * 3 + len % 16 * 3 / 16;
            return true;
        }
        if (!gpn_base64_decode(row, bytes, *n * 4, &len) || len != *n * 4)
            return false;
        for (; i < *n; i++) {
            const unsigned char *b = bytes + 4 * i;
            uint32_t bits = (uint32_t)b[0] | (uint32_t)b[1] << 8 |
                            (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
            memcpy(&out[i], &bits, sizeof bits);
        }
        return true;
    }
    gptner_json_reader_init(&r, row.ptr, row.len, NULL);
    gptner_json_enter_array(&r);
    while (gptner_json_next_item(&r)) {
        double d = 0.0;
        if (out != NULL && (i >= *n || !gptner_json_read_double(&r, &d)))
            return false;
        if (out != NULL)
            out[i] = (float)d;
        i++;
    }
    if (out == NULL)
        *n = i;
    return i == *n;
}

static gptner_status gpn_embed_decode(gpn_call *call, char *body, size_t len,
                                      gptner_error *err)
{
    static const uint16_t texts[] = {offsetof(gptner_embeddings, model)};
    gpn_rows *rows = (gpn_rows *)call->product;
    gptner_embeddings *e;
    size_t dimensions = 0;
    size_t i = 0;
    gpn_fields f;
    gptner_status status;
    memset(rows->row, 0, rows->n * sizeof rows->row[0]);
    rows->position = 0;
    rows->wrong = false;
    gpn_fields_init(&f, &call->head.client->env, body);
    f.item_fn = gpn_rows_add;
    f.items = rows;
    status = gpn_call_read(call, &f, len, err);
    if (status != GPTNER_OK)
        return status;
    while (i < rows->n && rows->row[i].len > 0)
        i++;
    if (i == rows->n && !rows->wrong)
        gpn_row_read(rows->row[0], NULL, &dimensions);
    if (dimensions == 0 || dimensions > GPN_EMBED_DIMENSIONS_MAX)
        return gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                        "embeddings: vectors are missing, empty or twice "
                        "there");
    e = (gptner_embeddings *)gpn_owned_new(
        f.env,
        sizeof *e + rows->n * dimensions * sizeof(float) + f.r.model.len + 1);
    if (e == NULL)
        return gpn_no_memory(err, "embeddings");
    e->values = (float *)(void *)(e + 1);
    e->count = rows->n;
    e->dimensions = dimensions;
    e->usage = f.r.usage;
    e->model = f.r.model;
    gpn_pack(e, texts, 1, (char *)(e->values + rows->n * dimensions));
    for (i = 0; i < rows->n; i++)
        if (!gpn_row_read(rows->row[i], e->values + i * dimensions,
                          &dimensions)) {
            gpn_owned_free(e);
            return gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                            "embeddings: vectors of different or broken form");
        }
    call->product = e;
    return GPTNER_OK;
}

static gptner_status gpn_embed_write(gpn_buf *out, const char *model,
                                     const gptner_str *texts, size_t n,
                                     int dimensions, gptner_error *err)
{
    gptner_json_writer w;
    gptner_status status;
    size_t i;
    gpn_json_writer_init(&w, out);
    w.refuse_invalid = true;
    gptner_json_write_object(&w);
    gptner_json_put_string(&w, "model", model);
    gptner_json_put_array(&w, "input");
    for (i = 0; i < n; i++) {
        if (texts[i].len == 0)
            return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                            "embed: text %d is empty", (int)i);
        gptner_json_write_str(&w, texts[i]);
    }
    gptner_json_write_end(&w);
    gptner_json_put_string(&w, "encoding_format", "base64");
    if (dimensions > 0)
        gptner_json_put_int64(&w, "dimensions", dimensions);
    gptner_json_write_end(&w);
    status = gptner_json_writer_finish(&w, NULL);
    if (status == GPTNER_OK)
        return GPTNER_OK;
    return gpn_fail(err, status, "embed: %s", gptner_json_writer_message(&w));
}

GPTNER_API gptner_status gptner_embed(gptner_client *client, const char *model,
                                      const gptner_str *texts, size_t n,
                                      int dimensions, gptner_embeddings **out,
                                      gptner_error *err)
{
    gptner_raw_request raw = GPN_ZERO;
    gpn_rows *rows;
    void *product;
    gptner_status status;
    gpn_buf body;
    if (out != NULL)
        *out = NULL;
    if (client == NULL || out == NULL || texts == NULL || n == 0 ||
        n > GPN_EMBED_MAX)
        return gpn_refuse(err, "embed: needs client, out, and 1 to 2048 texts");
    rows = (gpn_rows *)gpn_mem_zalloc(&client->env,
                                      sizeof *rows + n * sizeof rows->row[0]);
    if (rows == NULL)
        return gpn_no_memory(err, "embed");
    rows->n = n;
    gpn_buf_init(&body, &client->env, SIZE_MAX / 2);
    status =
        gpn_embed_write(&body, model != NULL ? model : "text-embedding-3-small",
                        texts, n, dimensions, err);
    if (status == GPTNER_OK) {
        raw.path = "/embeddings";
        raw.body = gpn_str(body.data, body.len);
        product = rows;
        status =
            gpn_call_decoded(client, &raw, gpn_embed_decode, &product, err);
        *out = (gptner_embeddings *)product;
    }
    gpn_buf_deinit(&body);
    gpn_mem_free(&client->env, rows);
    return status;
}

GPTNER_API void gptner_embeddings_free(gptner_embeddings *embeddings)
{
    gpn_owned_free(embeddings);
}

/* --- models --- */

/* Counts the models of a list; with room behind m they are kept. */
static void gpn_models_add(gpn_fields *f, gptner_json_reader *r)
{
    static const gpn_member members[] = {
        {"id", GPN_KIND_TEXT, offsetof(gptner_model, id)},
        {"owned_by", GPN_KIND_TEXT, offsetof(gptner_model, owned_by)},
        {"created", GPN_KIND_TIME, offsetof(gptner_model, created)},
        {"", GPN_KIND_SKIP, 0}};
    gptner_models *m = (gptner_models *)f->items;
    gptner_model *one = &m->items[m->count];
    if (gpn_read_object(f, r, members, one) && one->id.ptr != NULL)
        m->count++;
    else
        memset(one, 0, sizeof *one);
}

/* The reply is copied behind the list, and decoded there. No model takes less
 * than the ten bytes of {"id":"x"}. */
static gptner_status gpn_models_decode(gpn_call *call, char *body, size_t len,
                                       gptner_error *err)
{
    size_t room = len / 10 + 1;
    gptner_models *m = (gptner_models *)gpn_owned_new(
        &call->head.client->env, sizeof *m + room * sizeof *m->items + len + 1);
    char *text;
    gpn_fields f;
    gptner_status status;
    if (m == NULL)
        return gpn_no_memory(err, "models");
    m->items = (gptner_model *)(m + 1);
    text = (char *)(m->items + room);
    memcpy(text, body, len);
    gpn_fields_init(&f, &call->head.client->env, text);
    f.item_fn = gpn_models_add;
    f.items = m;
    status = gpn_call_read(call, &f, len, err);
    if (status == GPTNER_OK && !f.listed) {
        m->items[0].id = f.r.id;
        m->items[0].owned_by = f.owned_by;
        m->items[0].created = f.created;
        m->count = f.r.id.ptr != NULL;
        if (m->count == 0)
            status = gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                              "models: no model in the reply");
    }
    if (status != GPTNER_OK)
        gpn_owned_free(m);
    else
        call->product = m;
    return status;
}

static gptner_status gpn_models_fetch(gptner_client *client, const char *id,
                                      gptner_models **out, gptner_error *err)
{
    gptner_raw_request raw = GPN_ZERO;
    void *product = NULL;
    gptner_status status;
    gpn_buf path;
    if (out != NULL)
        *out = NULL;
    if (client == NULL || out == NULL)
        return gpn_refuse(err, "models: client or out is NULL");
    gpn_buf_init(&path, &client->env, GPN_URL_MAX);
    gpn_buf_add_s(&path, "/models");
    if (id != NULL) {
        gpn_buf_add_c(&path, '/');
        gpn_percent_encode(&path, gptner_str_from(id));
    }
    gpn_buf_add_c(&path, '\0');
    status = path.status;
    if (status == GPTNER_OK) {
        raw.path = path.data;
        status =
            gpn_call_decoded(client, &raw, gpn_models_decode, &product, err);
        *out = (gptner_models *)product;
    } else {
        gpn_fail(err, status, "models: id too long, or out of memory");
    }
    gpn_buf_deinit(&path);
    return status;
}

GPTNER_API gptner_status gptner_models_list(gptner_client *client,
                                            gptner_models **out,
                                            gptner_error *err)
{
    return gpn_models_fetch(client, NULL, out, err);
}

GPTNER_API gptner_status gptner_models_get(gptner_client *client,
                                           const char *id, gptner_models **out,
                                           gptner_error *err)
{
    if (id == NULL || *id == '\0') {
        if (out != NULL)
            *out = NULL;
        return gpn_refuse(err, "models: id is missing");
    }
    return gpn_models_fetch(client, id, out, err);
}

GPTNER_API void gptner_models_free(gptner_models *models)
{
    gpn_owned_free(models);
}

/* ===========================================================================
 * >>batch      layer 9   batch files, submission, results, the durable job
 * calls: >>api >>pool >>http >>json >>bytes >>platform
 * ======================================================================== */
#ifndef GPTNER_NO_BATCH

/* --- batch files --- */

/* Endpoints that batches support (openai-api.md 5.3). The first three are
 * those that the library writes bodies for, in the order of gptner_endpoint. */
static const char gpn_batch_urls[][24] = {
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings",
    "/v1/responses",        "/v1/moderations", "/v1/images/generations",
    "/v1/images/edits",     "/v1/videos"};

/* The one of these that url is; NULL: none. */
static const char *gpn_batch_url(gptner_str url)
{
    size_t i;
    for (i = 0; i < GPN_COUNT(gpn_batch_urls); i++)
        if (gpn_str_eq_c(url, gpn_batch_urls[i]))
            return gpn_batch_urls[i];
    return NULL;
}

/* Ids that a file has, by seeded hashes of 64 bits in an open table, 16 to 32
 * bytes for each. That two of 50,000 different ids have one hash happens in
 * one of 10^10 files. */
typedef struct gpn_marks {
    const gpn_env *env;
    uint64_t *slots; /* 0: free */
    size_t mask;
    size_t used;
    uint64_t seed;
} gpn_marks;

/* For up to n ids. */
static bool gpn_marks_init(gpn_marks *m, const gpn_env *env, size_t n)
{
    size_t room = 64;
    while (room < 2 * n)
        room *= 2;
    m->env = env;
    m->mask = room - 1;
    m->used = 0;
    m->seed = gpn_random_u64(env);
    m->slots = (uint64_t *)gpn_mem_zalloc(env, room * sizeof *m->slots);
    return m->slots != NULL;
}

static void gpn_marks_deinit(gpn_marks *m)
{
    gpn_mem_free(m->env, m->slots);
    m->slots = NULL;
}

static void gpn_marks_clear(gpn_marks *m)
{
    memset(m->slots, 0, (m->mask + 1) * sizeof *m->slots);
    m->used = 0;
}

/* splitmix64 over eight bytes at a time. */
static uint64_t gpn_marks_hash(const gpn_marks *m, gptner_str id)
{
    uint64_t h = m->seed ^ id.len;
    do {
        size_t n = id.len < 8 ? id.len : 8;
        uint64_t word = 0;
        if (n > 0)
            memcpy(&word, id.ptr, n);
        h = (h ^ word) + UINT64_C(0x9e3779b97f4a7c15);
        h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
        h ^= h >> 31;
        id.ptr += n;
        id.len -= n;
    } while (id.len > 0);
    return h != 0 ? h : 1;
}

/* false: it is there already. Beyond three quarters nothing is added, for then
 * the file is too long in any case. */
static bool gpn_marks_add(gpn_marks *m, gptner_str id)
{
    uint64_t hash = gpn_marks_hash(m, id);
    size_t at = (size_t)hash & m->mask;
    while (m->slots[at] != 0 && m->slots[at] != hash)
        at = (at + 1) & m->mask;
    if (m->slots[at] == hash)
        return false;
    if (m->used < m->mask - m->mask / 4) {
        m->slots[at] = hash;
        m->used++;
    }
    return true;
}

enum { GPN_LINES_PIECE = 131072, GPN_LINE_MODEL = 256 };

/* A line on its way into a file. */
typedef struct gpn_line {
    char id[GPTNER_BATCH_ID_MAX + 1];
    size_t id_len;
    const char *url;  /* one of gpn_batch_urls */
    int64_t inputs;   /* to be embedded; 0 elsewhere */
    int64_t tokens;   /* as estimated */
    size_t model_len; /* of model */
    char model[GPN_LINE_MODEL];
} gpn_line;

/* A file that is full. */
typedef struct gpn_lines_file {
    gpn_whole whole; /* sealed; its path NULL: in its place, or not written */
    size_t name;     /* where in names its path is */
    int64_t requests, bytes, tokens;
} gpn_lines_file;

/* Turns prompts into the lines of batch files. Used by
 * gptner_batch_create_file() and by the durable job: fill in the first part,
 * the rest being zero, call gpn_lines_write() once, look at the second part,
 * call gpn_lines_commit() to put the files in their places, and end it with
 * gpn_lines_deinit(), after which files not committed are gone. */
typedef struct gpn_lines {
    /* what the caller sets */
    gptner_client *client;
    const gptner_batch_create_config *cfg; /* but for its output_path */
    const char *path; /* of the first file; its name ends in .jsonl */
    bool number_all;  /* the first file's name has a number, too: X-1.jsonl */
    bool each;        /* a file takes its place as soon as it is full; else all
                         do by gpn_lines_commit() */
    bool dry;         /* no file at all: only counts and digest */
    bool digest;
    size_t first; /* files before this number are only counted (and told by
                     file_fn); from 1, or 0 */
    /* A prompt that makes no line (why->status is INVALID_ARGUMENT or LIMIT) is
     * left out, and told here; its index is not given to another. false ends
     * all with CANCELLED. bad_fn NULL: such a prompt ends all, with its own
     * status. */
    bool (*bad_fn)(void *ctx, size_t index, const gptner_error *why);
    /* A file is full, and with each it is in its place. May be NULL. number is
     * from 1. Another status than OK ends all. */
    gptner_status (*file_fn)(void *ctx, size_t number,
                             const gptner_batch_file *file, gptner_error *err);
    void *ctx;
    /* what came of it */
    int64_t requests; /* lines in all files */
    int64_t bad;      /* prompts left out; both together: prompts read */
    size_t n_files;
    const char *url;          /* of all lines; NULL: there was none */
    unsigned char sha256[32]; /* over all lines, if digest */
    /* private */
    int64_t max_requests, max_bytes, max_tokens;
    gpn_task task;
    gptner_run_config run;
    gpn_marks marks;
    gpn_buf files; /* of gpn_lines_file */
    gpn_buf names; /* their paths, each with a NUL */
    gpn_buf out;   /* lines not written yet */
    gpn_sha256_state sha;
    /* the file that is being filled */
    gpn_lines_file now;
    int64_t inputs;
    size_t unmarked; /* its lines from this index on have ids by their index,
                        none is left out, and marks does not know them */
    bool marking;    /* all are in marks */
    /* what all lines share */
    size_t model_len;
    char model[GPN_LINE_MODEL];
    /* The shape of a line that holds nothing but a text: what stands around
     * that is the same for all prompts with these options and this system
     * message. Made when a second one comes. */
    const gptner_options *shape_options;
    gptner_options shape_copy; /* for a caller that fills them in anew */
    gpn_buf shape_system;
    bool shape_has_system;
    bool shape_tried;
    bool shape_good;
    gpn_buf shape_head;   /* from the end of the id to the text */
    gpn_buf shape_tail;   /* from its end to the end of the line */
    size_t shape_outside; /* bytes of the head before the body */
    gpn_line shape_line;
    gptner_json_writer writer; /* of texts to out */
} gpn_lines;

/* The texts in an "input": one, or those of an array. An array of numbers is
 * one text in tokens. */
static int64_t gpn_line_inputs(gptner_json_reader *r)
{
    int64_t n = 0;
    if (gptner_json_peek(r) != GPTNER_JSON_ARRAY) {
        gptner_json_skip(r);
        return 1;
    }
    gptner_json_enter_array(r);
    while (gptner_json_next_item(r))
        if (gptner_json_peek(r) != GPTNER_JSON_NUMBER || n == 0)
            n++;
    return n;
}

/* What a body says of itself: its model, whether it asks for a stream, and how
 * many texts it wants embedded. */
static gptner_status gpn_line_inspect(gpn_line *l, gptner_str body,
                                      gptner_error *err)
{
    static const char *const names[] = {"model", "stream", "input", NULL};
    char scratch[GPN_LINE_MODEL];
    gptner_json_reader r;
    gptner_json_error why;
    gptner_str model = GPN_ZERO;
    bool stream = false;
    size_t which;
    gptner_json_reader_init(&r, body.ptr, body.len, NULL);
    gptner_json_reader_scratch(&r, scratch, sizeof scratch);
    l->inputs = 1;
    l->model_len = GPN_LINE_MODEL + 1;
    gptner_json_enter_object(&r);
    while (gptner_json_next_member(&r, names, &which)) {
        if (which == 0) {
            gptner_json_read_str(&r, &model);
            l->model_len = model.ptr != NULL ? model.len : GPN_LINE_MODEL + 1;
            if (l->model_len <= GPN_LINE_MODEL && model.len > 0)
                memcpy(l->model, model.ptr, model.len);
        } else if (which == 1) {
            gptner_json_read_bool(&r, &stream);
        } else {
            l->inputs = gpn_line_inputs(&r);
        }
    }
    if (gptner_json_reader_finish(&r, &why) != GPTNER_OK)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT, "request body: %s",
                        why.message);
    if (stream)
        return gpn_refuse(err, "request body: asks for a stream, which a "
                               "batch cannot have");
    if (l->model_len > GPN_LINE_MODEL)
        return gpn_refuse(err, "request body: has no text \"model\", or one "
                               "over 256 bytes");
    return GPTNER_OK;
}

/* White space between the tokens goes, for a line must not break inside. */
static void gpn_line_join(gpn_buf *out, size_t from)
{
    const char *p = out->data + from, *end = out->data + out->len;
    char *to = out->data + from;
    bool inside = false;
    if (memchr(p, '\n', (size_t)(end - p)) == NULL &&
        memchr(p, '\r', (size_t)(end - p)) == NULL)
        return;
    for (; p < end; p++) {
        if (*p == '"')
            inside = !inside;
        else if (!inside && (unsigned char)*p <= ' ')
            continue;
        else if (*p == '\\')
            *to++ = *p++; /* only ever inside a string, not its last byte */
        *to++ = *p;
    }
    out->len = (size_t)(to - out->data);
}

/* A text to be embedded. */
static gptner_status gpn_line_embed(gpn_ask *ask, gpn_buf *out,
                                    gptner_error *err)
{
    static const gpn_body_member model = {"model", 0, 0, 0, GPN_PART_MODEL};
    const gptner_prompt *p = ask->prompt;
    gpn_body b;
    gptner_status status = gpn_ask_check(ask, err);
    if (status != GPTNER_OK)
        return status;
    if (p->n_messages > 0 || p->messages_json.ptr != NULL)
        return gpn_refuse(err, "embeddings are made of a text, not of a "
                               "conversation");
    b.ask = ask;
    b.o = ask->options;
    b.flags = 0;
    b.chat = true; /* a key stands for itself */
    gpn_json_writer_init(&b.w, out);
    b.w.refuse_invalid = true;
    b.w.trust_raw = true; /* gpn_ask_check() has seen it */
    gptner_json_write_object(&b.w);
    if (!gpn_body_replaced(&b, &model))
        gpn_body_put(&b, &model);
    if (!gpn_json_has(b.o->extra_body_json, "input"))
        gptner_json_put_str(&b.w, "input", p->text);
    if (b.o->extra_body_json != NULL)
        gpn_body_extra(&b);
    gptner_json_write_end(&b.w);
    status = gptner_json_writer_finish(&b.w, NULL);
    if (status == GPTNER_OK)
        return GPTNER_OK;
    return gpn_fail(err, status, "request body: %s",
                    gptner_json_writer_message(&b.w));
}

/* The endpoint of a prompt that we write the body of, if the job has one. */
static gptner_status gpn_lines_direct(const gpn_lines *j, gptner_options *o,
                                      gptner_error *err)
{
    static const gptner_endpoint kinds[] = {GPTNER_ENDPOINT_CHAT,
                                            GPTNER_ENDPOINT_COMPLETIONS,
                                            GPTNER_ENDPOINT_EMBEDDINGS};
    size_t i = 0;
    if (j->cfg->endpoint == NULL)
        return GPTNER_OK;
    while (i < GPN_COUNT(kinds) &&
           strcmp(j->cfg->endpoint, gpn_batch_urls[i]) != 0)
        i++;
    if (i == GPN_COUNT(kinds))
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "a prompt for %s needs body_json", j->cfg->endpoint);
    if (o->endpoint != GPTNER_ENDPOINT_AUTO && o->endpoint != kinds[i])
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "options.endpoint is not %s", j->cfg->endpoint);
    if (kinds[i] == GPTNER_ENDPOINT_EMBEDDINGS && o->endpoint != kinds[i] &&
        (gpn_model_flags(gpn_model_of(o)) & GPN_MODEL_EMBEDDINGS) == 0)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "model %s is not known to make embeddings; if it does, "
                        "set options.endpoint",
                        gpn_model_of(o));
    o->endpoint = kinds[i];
    return GPTNER_OK;
}

/* Append the body of a request to out, as it stands in a line, and note what
 * the line has to know of it. */
static gptner_status gpn_lines_body(gpn_lines *j, const gptner_prompt *prompt,
                                    const gptner_options *options, gpn_buf *out,
                                    gpn_line *l, gptner_error *err)
{
    gptner_prompt p = *prompt;
    gptner_options o = *options;
    size_t from = out->len;
    gpn_ask ask;
    gptner_status status = GPTNER_OK;
    bool own = p.body_json.ptr != NULL;
    memset(&ask, 0, sizeof ask);
    ask.client = j->client;
    ask.prompt = &p;
    ask.options = options;
    if (own && (int64_t)p.body_json.len > j->max_bytes)
        return gpn_fail(err, GPTNER_ERR_LIMIT,
                        "body_json: alone over the limits of a file");
    if (own && gpn_str_starts(p.body_json, "\xEF\xBB\xBF"))
        p.body_json = gpn_str(p.body_json.ptr + 3, p.body_json.len - 3);
    if (!own) {
        status = gpn_lines_direct(j, &o, err);
        if (status == GPTNER_OK && o.endpoint != options->endpoint)
            ask.options = &o;
        ask.endpoint =
            gpn_model_endpoint(&o, gpn_model_flags(gpn_model_of(&o)));
    }
    if (status != GPTNER_OK)
        return status;
    status = ask.endpoint == GPTNER_ENDPOINT_EMBEDDINGS
                 ? gpn_line_embed(&ask, out, err)
                 : gpn_body_write(&ask, out, err);
    if (status != GPTNER_OK)
        return status;
    gpn_line_join(out, from);
    l->url = j->cfg->endpoint != NULL
                 ? gpn_batch_url(gpn_str_c(j->cfg->endpoint))
                 : gpn_batch_urls[(int)ask.endpoint - 1];
    status =
        gpn_line_inspect(l, gpn_str(out->data + from, out->len - from), err);
    if (l->url != gpn_batch_urls[2])
        l->inputs = 0;
    return status;
}

static bool gpn_str_same(gptner_str a, gptner_str b)
{
    return (a.ptr == NULL) == (b.ptr == NULL) && gpn_str_eq(a, b);
}

/* Find out the shape of lines with these options and this system message: the
 * bodies of two texts differ from where the text stands. */
static gptner_status gpn_lines_shape(gpn_lines *j, const gptner_prompt *prompt,
                                     const gptner_options *options)
{
    gptner_prompt p = GPN_ZERO;
    gpn_buf *one = &j->shape_tail, *other = &j->shape_head;
    gptner_status status;
    size_t n = 0;
    j->shape_tried = true;
    gpn_buf_clear(one);
    gpn_buf_clear(other);
    p.system = prompt->system;
    p.text = gpn_str("", 0);
    status = gpn_lines_body(j, &p, options, one, &j->shape_line, NULL);
    p.text = gpn_str("a", 1);
    if (status == GPTNER_OK)
        status = gpn_lines_body(j, &p, options, other, &j->shape_line, NULL);
    if (status != GPTNER_OK)
        return status;
    while (n < one->len && one->data[n] == other->data[n])
        n++;
    if (n == one->len)
        return GPTNER_OK; /* what we write was replaced by the caller's */
    gpn_buf_clear(other);
    gpn_buf_add_s(other, "\",\"method\":\"POST\",\"url\":\"");
    gpn_buf_add_s(other, j->shape_line.url);
    gpn_buf_add_s(other, "\",\"body\":");
    j->shape_outside = other->len;
    gpn_buf_add(other, one->data, n);
    gpn_buf_drop(one, n);
    gpn_buf_add_s(one, "}\n");
    j->shape_good = other->status == GPTNER_OK && one->status == GPTNER_OK;
    return GPTNER_OK;
}

/* Is the shape good for this prompt? */
static bool gpn_lines_fits(gpn_lines *j, const gptner_prompt *p,
                           const gptner_options *options)
{
    gptner_str system = gpn_str(j->shape_has_system ? "" : NULL, 0);
    if (p->body_json.ptr != NULL || p->messages_json.ptr != NULL ||
        p->n_messages > 0 || p->text.ptr == NULL)
        return false;
    if (j->shape_system.len > 0)
        system = gpn_str(j->shape_system.data, j->shape_system.len);
    if (j->shape_options == options && gpn_str_same(p->system, system) &&
        memcmp(&j->shape_copy, options, sizeof *options) == 0) {
        if (!j->shape_tried)
            gpn_lines_shape(j, p, options);
        return j->shape_good;
    }
    gpn_buf_clear(&j->shape_system);
    gpn_buf_add_str(&j->shape_system, p->system);
    j->shape_has_system = p->system.ptr != NULL;
    j->shape_options = j->shape_system.status == GPTNER_OK ? options : NULL;
    memcpy(&j->shape_copy, options, sizeof *options);
    j->shape_tried = j->shape_good = false;
    return false;
}

static void gpn_line_number(gpn_line *l, size_t index)
{
    memcpy(l->id, "request-", 8);
    l->id_len = 8 + gpn_fmt_u64(index, l->id + 8);
}

/* The line's id: the prompt's own, or one made of its index. */
static gptner_status gpn_line_name(gpn_line *l, const gpn_item *it,
                                   gptner_error *err)
{
    gptner_str id = it->prompt.custom_id;
    size_t i;
    if (id.ptr == NULL) {
        gpn_line_number(l, it->index);
        return GPTNER_OK;
    }
    if (id.len < 1 || id.len > GPTNER_BATCH_ID_MAX)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "custom_id: %s; 1 to 64 bytes are allowed",
                        id.len < 1 ? "empty" : "too long");
    for (i = 0; i < id.len; i++)
        if (id.ptr[i] < 0x21 || id.ptr[i] > 0x7e)
            return gpn_refuse(err, "custom_id: printable ASCII without "
                                   "spaces is allowed, nothing else");
    memcpy(l->id, id.ptr, id.len);
    l->id_len = id.len;
    return GPTNER_OK;
}

static void gpn_line_begin(const gpn_line *l, gpn_buf *out)
{
    size_t i;
    gpn_buf_add(out, "{\"custom_id\":\"", 14);
    if (memchr(l->id, '"', l->id_len) == NULL &&
        memchr(l->id, '\\', l->id_len) == NULL) {
        gpn_buf_add(out, l->id, l->id_len);
        return;
    }
    for (i = 0; i < l->id_len; i++) {
        if (l->id[i] == '"' || l->id[i] == '\\')
            gpn_buf_add_c(out, '\\');
        gpn_buf_add_c(out, l->id[i]);
    }
}

/* Append the line of a prompt whose shape is known; false: something is wrong
 * with its text. */
static bool gpn_lines_quick(gpn_lines *j, gptner_str text, gpn_line *l)
{
    gptner_json_writer *w = &j->writer;
    size_t from;
    gpn_line_begin(l, &j->out);
    from = j->out.len + j->shape_outside;
    gpn_buf_add(&j->out, j->shape_head.data, j->shape_head.len);
    w->status = GPTNER_OK;
    w->carried = 0;
    gpn_json_w_text(w, text.ptr, text.len);
    gpn_buf_add(&j->out, j->shape_tail.data, j->shape_tail.len);
    if (w->carried > 0 || gptner_json_writer_status(w) != GPTNER_OK)
        return false;
    l->url = j->shape_line.url;
    l->inputs = j->shape_line.inputs;
    l->model_len = j->shape_line.model_len;
    memcpy(l->model, j->shape_line.model, l->model_len);
    l->tokens = (int64_t)(j->out.len - 2 - from + 2) / 3;
    return true;
}

/* Append the line of a prompt. */
static gptner_status gpn_lines_compose(gpn_lines *j, const gpn_item *it,
                                       gpn_line *l, gptner_error *err)
{
    gpn_buf *out = &j->out;
    size_t from = out->len, at, url;
    gptner_status status;
    if (it->bad != NULL)
        return gpn_refuse(err, it->bad);
    status = gpn_line_name(l, it, err);
    if (status != GPTNER_OK)
        return status;
    if (gpn_lines_fits(j, &it->prompt, it->options)) {
        if (gpn_lines_quick(j, it->prompt.text, l))
            return GPTNER_OK;
        out->len = from; /* the long way says what is wrong */
    }
    gpn_line_begin(l, out);
    gpn_buf_add_s(out, "\",\"method\":\"POST\",\"url\":\"");
    url = out->len; /* known when the body is */
    gpn_buf_add_s(out, "\",\"body\":");
    at = out->len;
    status = gpn_lines_body(j, &it->prompt, it->options, out, l, err);
    if (status != GPTNER_OK)
        return status;
    l->tokens = (int64_t)(out->len - at + 2) / 3;
    at = strlen(l->url);
    if (gpn_buf_reserve(out, at + 2)) {
        memmove(out->data + url + at, out->data + url, out->len - url);
        memcpy(out->data + url, l->url, at);
        out->len += at;
        gpn_buf_add(out, "}\n", 2);
    }
    return out->status == GPTNER_OK ? GPTNER_OK
                                    : gpn_fail(err, out->status, "line: %s",
                                               gptner_status_text(out->status));
}

/* The path of file number n, behind those that are there. */
static gptner_status gpn_lines_add_name(gpn_lines *j, size_t n,
                                        gptner_error *err)
{
    gpn_buf *b = &j->names;
    size_t stem = strlen(j->path) - 6; /* .jsonl */
    gpn_buf_add(b, j->path, stem);
    if (n > 1 || j->number_all) {
        gpn_buf_add_c(b, '-');
        gpn_buf_add_u64(b, n);
    }
    gpn_buf_add(b, j->path + stem, 7); /* and its NUL */
    return b->status == GPTNER_OK ? GPTNER_OK : gpn_no_memory(err, j->path);
}

static bool gpn_lines_writes(const gpn_lines *j)
{
    return !j->dry && j->n_files + 1 >= j->first;
}

static const char *gpn_lines_path(const gpn_lines *j, size_t name)
{
    return j->names.data + name;
}

/* A file is begun with its first line. */
static gptner_status gpn_lines_begin_file(gpn_lines *j, gptner_error *err)
{
    int oserr = 0;
    const char *path;
    gptner_status status;
    memset(&j->now, 0, sizeof j->now);
    j->inputs = 0;
    j->now.name = j->names.len;
    status = gpn_lines_add_name(j, j->n_files + 1, err);
    if (status != GPTNER_OK || !gpn_lines_writes(j))
        return status;
    path = gpn_lines_path(j, j->now.name);
    if (!gpn_whole_begin(&j->now.whole, &j->client->env, path, &oserr))
        return oserr == GPN_E_MEMORY
                   ? gpn_no_memory(err, path)
                   : gpn_file_fail(err, path, "cannot be created", oserr);
    return GPTNER_OK;
}

/* The first len bytes of out go to the file. */
static gptner_status gpn_lines_flush(gpn_lines *j, size_t len,
                                     gptner_error *err)
{
    int oserr = 0;
    if (j->digest)
        gpn_sha256_update(&j->sha, j->out.data, len);
    if (j->now.whole.path != NULL &&
        !gpn_whole_write(&j->now.whole, j->out.data, len, &oserr))
        return gpn_file_fail(err, gpn_lines_path(j, j->now.name),
                             "writing failed", oserr);
    gpn_buf_drop(&j->out, len);
    return GPTNER_OK;
}

/* What is handed out about a file. */
static void gpn_lines_describe(const gpn_lines *j, const gpn_lines_file *f,
                               gptner_batch_file *file)
{
    file->path = gpn_lines_path(j, f->name);
    file->requests = f->requests;
    file->bytes = f->bytes;
    file->tokens = f->tokens;
}

/* The file ends with the first len bytes of out; what follows is of the next.
 */
static gptner_status gpn_lines_end_file(gpn_lines *j, size_t len,
                                        gptner_error *err)
{
    gptner_batch_file file;
    gptner_status status = gpn_lines_flush(j, len, err);
    int oserr = 0;
    bool ok = true;
    if (status != GPTNER_OK)
        return status;
    if (!gpn_buf_reserve(&j->files, sizeof j->now))
        return gpn_no_memory(err, "list of files");
    if (j->now.whole.path != NULL && j->each)
        ok = gpn_whole_commit(&j->now.whole, &oserr);
    else if (j->now.whole.path != NULL)
        ok = gpn_whole_seal(&j->now.whole, &oserr);
    gpn_lines_describe(j, &j->now, &file);
    if (!ok)
        return gpn_file_fail(err, file.path, "writing failed", oserr);
    gpn_buf_add(&j->files, (const char *)&j->now, sizeof j->now);
    memset(&j->now, 0, sizeof j->now);
    j->n_files++;
    if (j->marking)
        gpn_marks_clear(&j->marks);
    j->marking = false;
    if (j->file_fn != NULL)
        return j->file_fn(j->ctx, j->n_files, &file, err);
    return GPTNER_OK;
}

/* Would the file be too large with this line? */
static bool gpn_lines_full(const gpn_lines *j, const gpn_line *l, int64_t bytes)
{
    const gpn_lines_file *f = &j->now;
    return f->requests + 1 > j->max_requests ||
           f->bytes + bytes > j->max_bytes ||
           f->tokens + l->tokens > j->max_tokens ||
           j->inputs + l->inputs > GPTNER_BATCH_REQUESTS_MAX;
}

/* What stands against a line: it differs from the first, or fits no file. */
static gptner_status gpn_lines_check(const gpn_lines *j, const gpn_line *l,
                                     int64_t bytes, gptner_error *err)
{
    if (bytes > j->max_bytes || l->tokens > j->max_tokens ||
        l->inputs > GPTNER_BATCH_REQUESTS_MAX)
        return gpn_fail(err, GPTNER_ERR_LIMIT,
                        "alone over the limits of a file: %lld bytes, about "
                        "%lld tokens",
                        (long long)bytes, (long long)l->tokens);
    if (j->url == NULL)
        return GPTNER_OK;
    if (j->url != l->url)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "is for %s, the first one for %s; a batch has one "
                        "endpoint",
                        l->url, j->url);
    if (j->model_len != l->model_len ||
        memcmp(j->model, l->model, l->model_len) != 0)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "is for the model %.*s, the first one for %.*s; a "
                        "batch has one model",
                        (int)l->model_len, l->model, (int)j->model_len,
                        j->model);
    return GPTNER_OK;
}

/* From here on each id of this file is looked up. That is not needed, nor the
 * memory, as long as all have the ids that come from their index. */
static gptner_status gpn_lines_mark(gpn_lines *j, size_t index,
                                    gptner_error *err)
{
    gpn_line l;
    if (j->marks.slots == NULL &&
        !gpn_marks_init(&j->marks, &j->client->env, (size_t)j->max_requests))
        return gpn_no_memory(err, "batch");
    for (; j->unmarked < index && !j->marking; j->unmarked++) {
        gpn_line_number(&l, j->unmarked);
        gpn_marks_add(&j->marks, gpn_str(l.id, l.id_len));
    }
    j->marking = true;
    return GPTNER_OK;
}

/* The line at the end of out, from from on, into this file or the next. *why:
 * what stands against it; *err: what ends all. */
static gptner_status gpn_lines_admit(gpn_lines *j, const gpn_item *it,
                                     const gpn_line *l, size_t from,
                                     gptner_error *why, gptner_error *err)
{
    int64_t bytes = (int64_t)(j->out.len - from);
    gptner_status status = gpn_lines_check(j, l, bytes, why);
    if (status != GPTNER_OK)
        return status;
    if (j->now.requests > 0 && gpn_lines_full(j, l, bytes)) {
        status = gpn_lines_end_file(j, from, err);
        if (status != GPTNER_OK)
            return status;
    }
    if (j->now.requests == 0)
        j->unmarked = it->index;
    if (it->prompt.custom_id.ptr != NULL && !j->marking)
        status = gpn_lines_mark(j, it->index, err);
    if (status != GPTNER_OK)
        return status;
    if (j->marking && !gpn_marks_add(&j->marks, gpn_str(l->id, l->id_len)))
        return gpn_fail(why, GPTNER_ERR_INVALID_ARGUMENT,
                        "custom_id %.*s is used twice", (int)l->id_len, l->id);
    if (j->now.requests == 0)
        status = gpn_lines_begin_file(j, err);
    if (status != GPTNER_OK)
        return status;
    j->now.requests++;
    j->now.bytes += bytes;
    j->now.tokens += l->tokens;
    j->inputs += l->inputs;
    j->requests++;
    if (j->url == NULL) {
        j->url = l->url;
        j->model_len = l->model_len;
        memcpy(j->model, l->model, l->model_len);
    }
    return j->out.len >= GPN_LINES_PIECE /* whole pages are written faster */
               ? gpn_lines_flush(j, j->out.len & ~(size_t)4095, err)
               : GPTNER_OK;
}

/* Take a prompt in. */
static gptner_status gpn_lines_take(gpn_lines *j, const gpn_item *it,
                                    gptner_error *err)
{
    gptner_error why = GPN_ZERO;
    gpn_line l;
    size_t from = j->out.len;
    gptner_status status = gpn_lines_compose(j, it, &l, &why);
    if (status == GPTNER_OK)
        status = gpn_lines_admit(j, it, &l, from, &why, err);
    if (status == GPTNER_OK || why.status == GPTNER_OK)
        return status;
    if (status != GPTNER_ERR_INVALID_ARGUMENT && status != GPTNER_ERR_LIMIT) {
        *err = why;
        return status;
    }
    if (it->line != 0)
        gpn_fail(&why, status, "%s, line %lld: %s", j->cfg->input_path,
                 (long long)it->line, why.message);
    else
        gpn_fail(&why, status, "prompt %lld: %s", (long long)it->index,
                 why.message);
    if (j->bad_fn == NULL) {
        *err = why;
        return status;
    }
    j->out.len = from;
    j->out.status = GPTNER_OK;
    j->bad++;
    status = gpn_lines_mark(j, it->index, err);
    if (status != GPTNER_OK)
        return status;
    return j->bad_fn(j->ctx, it->index, &why)
               ? GPTNER_OK
               : gpn_fail(err, GPTNER_ERR_CANCELLED, "cancelled");
}

static gptner_status gpn_lines_begin(gpn_lines *j, gptner_error *err)
{
    const gptner_batch_create_config *cfg = j->cfg;
    const gpn_env *env = &j->client->env;
    j->max_requests =
        cfg->max_requests != 0 ? cfg->max_requests : GPTNER_BATCH_REQUESTS_MAX;
    j->max_bytes =
        cfg->max_bytes != 0 ? cfg->max_bytes : GPTNER_BATCH_BYTES_MAX;
    j->max_tokens = cfg->max_tokens != 0 ? cfg->max_tokens : INT64_MAX / 2;
    if (j->max_requests < 0 || j->max_requests > GPTNER_BATCH_REQUESTS_MAX ||
        j->max_bytes < 0 || j->max_bytes > GPTNER_BATCH_BYTES_MAX ||
        j->max_tokens < 0 || j->max_tokens > INT64_MAX / 2)
        return gpn_refuse(err, "batch: max_requests, max_bytes or max_tokens "
                               "out of range (0: as many as are allowed)");
    if (j->path == NULL || !gpn_path_is_jsonl(j->path))
        return gpn_refuse(err, "batch: the name of a batch file must end in "
                               ".jsonl, or the server refuses it");
    if (cfg->endpoint != NULL &&
        gpn_batch_url(gpn_str_c(cfg->endpoint)) == NULL)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "batch: %s is no endpoint of batches", cfg->endpoint);
    if (!gpn_mutex_init(&j->task.lock))
        return gpn_fail(err, GPTNER_ERR_THREAD, "batch: no mutex");
    gpn_buf_init(&j->files, env, SIZE_MAX / 2);
    gpn_buf_init(&j->names, env, SIZE_MAX / 2);
    gpn_buf_init(&j->out, env, (size_t)j->max_bytes + 2 * GPN_LINES_PIECE);
    gpn_buf_init(&j->shape_system, env, (size_t)j->max_bytes);
    gpn_buf_init(&j->shape_head, env, (size_t)j->max_bytes);
    gpn_buf_init(&j->shape_tail, env, (size_t)j->max_bytes);
    gpn_json_writer_init(&j->writer, &j->out);
    j->writer.refuse_invalid = true;
    gpn_sha256_init(&j->sha);
    j->run.prompts = cfg->prompts;
    j->run.texts = cfg->texts;
    j->run.n_prompts = cfg->n_prompts;
    j->run.input_path = cfg->input_path;
    j->run.next_fn = cfg->next_fn;
    j->run.next_user = cfg->next_user;
    j->task.client = j->client;
    j->task.cfg = &j->run;
    return gpn_task_open(&j->task, err);
}

static gpn_lines_file *gpn_lines_at(gpn_lines *j, size_t i)
{
    return (gpn_lines_file *)(void *)j->files.data + i;
}

/* All files that wait for it take their places, or none does. */
static gptner_status gpn_lines_commit(gpn_lines *j, gptner_error *err)
{
    size_t i;
    int oserr = 0;
    for (i = 0; i < j->n_files; i++) {
        gpn_lines_file *f = gpn_lines_at(j, i);
        if (f->whole.path == NULL || gpn_whole_commit(&f->whole, &oserr))
            continue;
        gpn_file_fail(err, gpn_lines_path(j, f->name), "cannot be put there",
                      oserr);
        while (i-- > 0)
            gpn_file_remove(gpn_lines_path(j, gpn_lines_at(j, i)->name));
        return err->status;
    }
    return GPTNER_OK;
}

/* What was not committed goes. */
static void gpn_lines_deinit(gpn_lines *j)
{
    size_t i;
    gpn_whole_abort(&j->now.whole);
    for (i = 0; i < j->n_files; i++)
        gpn_whole_abort(&gpn_lines_at(j, i)->whole);
    j->n_files = 0;
    if (j->out.env == NULL) /* nothing was begun */
        return;
    gpn_task_close(&j->task);
    gpn_marks_deinit(&j->marks);
    gpn_buf_deinit(&j->files);
    gpn_buf_deinit(&j->names);
    gpn_buf_deinit(&j->out);
    gpn_buf_deinit(&j->shape_system);
    gpn_buf_deinit(&j->shape_head);
    gpn_buf_deinit(&j->shape_tail);
}

/* Write all prompts into files, as j says, which still have to be committed.
 * err may not be NULL. */
static gptner_status gpn_lines_write(gpn_lines *j, gptner_error *err)
{
    gpn_item *it = NULL;
    gptner_status status;
    int got = 1;
    memset(err, 0, sizeof *err);
    status = gpn_lines_begin(j, err);
    while (status == GPTNER_OK && got > 0) {
        if (gpn_atomic_get(&j->client->pool->cancelled) != 0)
            return gpn_fail(err, GPTNER_ERR_CANCELLED, "cancelled");
        got = gpn_task_read(&j->task, &it, err);
        if (got > 0) {
            status = gpn_lines_take(j, it, err);
            gpn_task_put_item(&j->task, it);
        } else if (got < 0) {
            status = err->status;
        }
    }
    if (status == GPTNER_OK && j->now.requests > 0)
        status = gpn_lines_end_file(j, j->out.len, err);
    if (status == GPTNER_OK && j->digest)
        gpn_sha256_final(&j->sha, j->sha256);
    return status;
}

/* The list of files, to be handed out. */
static gptner_batch_files *gpn_lines_list(gpn_lines *j)
{
    size_t size = j->n_files * sizeof(gptner_batch_file);
    gptner_batch_files *list = (gptner_batch_files *)gpn_owned_new(
        &j->client->env, sizeof *list + size + j->names.len);
    gptner_batch_file *items;
    char *names;
    size_t i;
    if (list == NULL)
        return NULL;
    items = (gptner_batch_file *)(void *)(list + 1);
    names = (char *)(items + j->n_files);
    memcpy(names, j->names.data, j->names.len);
    for (i = 0; i < j->n_files; i++) {
        const gpn_lines_file *f = gpn_lines_at(j, i);
        gpn_lines_describe(j, f, &items[i]);
        items[i].path = names + f->name;
    }
    list->items = items;
    list->count = j->n_files;
    list->requests = j->requests;
    list->endpoint = j->url;
    return list;
}

GPTNER_API gptner_status gptner_batch_create_file(
    gptner_client *client, const gptner_batch_create_config *cfg,
    gptner_batch_files **out, gptner_error *err)
{
    gptner_error why = GPN_ZERO;
    gptner_batch_files *list = NULL;
    gptner_status status;
    gpn_lines j;
    if (out != NULL)
        *out = NULL;
    if (client == NULL || cfg == NULL)
        return gpn_refuse(err, "batch: client or configuration is NULL");
    memset(&j, 0, sizeof j);
    j.client = client;
    j.cfg = cfg;
    j.path = cfg->output_path;
    status = gpn_lines_write(&j, &why);
    if (status == GPTNER_OK && j.requests == 0)
        status = gpn_refuse(&why, "batch: there is no prompt");
    if (status == GPTNER_OK) { /* before anything takes its place */
        list = gpn_lines_list(&j);
        status = list != NULL ? gpn_lines_commit(&j, &why)
                              : gpn_no_memory(&why, "batch");
    }
    gpn_lines_deinit(&j);
    if (status == GPTNER_OK && out != NULL) {
        *out = list;
        list = NULL;
    }
    gptner_batch_files_free(list);
    if (status != GPTNER_OK && err != NULL)
        *err = why;
    return status;
}

GPTNER_API void gptner_batch_files_free(gptner_batch_files *files)
{
    gpn_owned_free(files);
}

/* --- the check of a batch file --- */

enum {
    GPN_CHECK_KEPT = 100,
    GPN_CHECK_TEXT = 160,
    GPN_CHECK_WHOLE = 4, /* findings about the file as a whole, at most */
    GPN_CHECK_LINE = 64 << 20
};

/* The report with all that it points to, in one block. Findings about the
 * whole file are known last and stand first, so lines wait in a list. */
typedef struct gpn_check {
    gptner_batch_report report;
    gptner_batch_issue items[GPN_CHECK_KEPT + GPN_CHECK_WHOLE];
    char texts[GPN_CHECK_KEPT + GPN_CHECK_WHOLE][GPN_CHECK_TEXT];
    char model[GPN_LINE_MODEL];
    size_t n_whole;
    size_t n_lines;
    const char *url; /* of the batch */
    uint64_t model_hash;
    bool has_model;
    int64_t inputs;
    gpn_marks marks;
} gpn_check;

/* The members of a line: ptr NULL if there is none. */
typedef struct gpn_check_line {
    gptner_str id;
    gptner_str method;
    gptner_str url;
    gptner_str model;
    bool has_body;
    bool stream;
    int64_t inputs;
} gpn_check_line;

/* Note a finding; line 0: of the whole file. */
GPN_PRINTF(5, 6)
static void gpn_check_note(gpn_check *c, const char *code, const char *param,
                           int64_t line, const char *fmt, ...)
{
    size_t at = line == 0 ? c->n_whole++ : GPN_CHECK_WHOLE + c->n_lines;
    gptner_batch_issue *issue;
    va_list args;
    c->report.found++;
    if (at == GPN_COUNT(c->items))
        return;
    c->n_lines += line != 0;
    issue = &c->items[at];
    issue->code = gpn_str_c(code);
    issue->param = gpn_str_c(param);
    issue->line = line;
    va_start(args, fmt);
    gpn_vformat_line(c->texts[at], GPN_CHECK_TEXT, fmt, args);
    va_end(args);
    issue->message = gpn_str_c(c->texts[at]);
}

/* A text, or none. */
static gptner_str gpn_check_string(gptner_json_reader *r)
{
    gptner_str text;
    gptner_json_read_str(r, &text);
    return text;
}

/* A text; what else is there has length 0, but null is none at all. */
static gptner_str gpn_check_text(gptner_json_reader *r)
{
    gptner_str text = GPN_ZERO;
    bool null = gptner_json_peek(r) == GPTNER_JSON_NULL;
    if (!gptner_json_read_str(r, &text))
        text = gpn_str(null ? NULL : "", 0);
    return text;
}

static void gpn_check_body(gptner_json_reader *r, gpn_check_line *l)
{
    static const char *const names[] = {"model", "stream", "input", NULL};
    size_t which;
    l->model = gpn_str(NULL, 0);
    l->stream = false;
    l->inputs = 1;
    l->has_body = gptner_json_enter_object(r);
    while (l->has_body && gptner_json_next_member(r, names, &which)) {
        if (which == 0)
            l->model = gpn_check_string(r);
        else if (which == 1)
            gptner_json_read_bool(r, &l->stream);
        else
            l->inputs = gpn_line_inputs(r);
    }
}

/* Take a line apart where it stands; the last of equal members counts. NULL,
 * or why it is no JSON object. */
static const char *gpn_check_parse(char *text, size_t len, gpn_check_line *l)
{
    static const char *const names[] = {"custom_id", "method", "url", "body",
                                        NULL};
    gptner_json_options opt = GPN_ZERO;
    gptner_json_reader r;
    gptner_json_error why;
    size_t which;
    bool object;
    memset(l, 0, sizeof *l);
    if (len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        return "begins with a byte order mark";
    opt.max_depth = GPTNER_JSON_DEPTH_MAX;
    gptner_json_reader_init_in_place(&r, text, len, &opt);
    object = gptner_json_enter_object(&r);
    while (object && gptner_json_next_member(&r, names, &which)) {
        if (which == 0)
            l->id = gpn_check_string(&r);
        else if (which == 1)
            l->method = gpn_check_text(&r);
        else if (which == 2)
            l->url = gpn_check_text(&r);
        else
            gpn_check_body(&r, l);
    }
    if (gptner_json_reader_finish(&r, &why) != GPTNER_OK)
        return why.message;
    return object ? NULL : "not an object";
}

/* The model of the first line is that of all. */
static bool gpn_check_model(gpn_check *c, gptner_str model)
{
    uint64_t hash = gpn_marks_hash(&c->marks, model);
    size_t len = model.len;
    if (c->has_model)
        return c->model_hash == hash;
    c->has_model = true;
    c->model_hash = hash;
    if (len > sizeof c->model)
        len = gpn_utf8_cut(model.ptr, sizeof c->model);
    if (len > 0)
        memcpy(c->model, model.ptr, len);
    c->report.model = gpn_str(c->model, len);
    return true;
}

/* What the server would say of a line first, as a code; NULL: nothing. *param
 * is the member that it is about, *value what that holds. */
static const char *gpn_check_judge(gpn_check *c, const gpn_check_line *l,
                                   const char **param, gptner_str *value)
{
    static const char missing[] = "missing_required_parameter";
    const char *url = gpn_batch_url(l->url);
    *param = "custom_id";
    *value = l->id;
    if (l->id.ptr == NULL)
        return missing;
    if (!gpn_marks_add(&c->marks, l->id))
        return "duplicate_custom_id";
    *param = "method";
    *value = l->method;
    if (l->method.ptr == NULL)
        return missing;
    if (!gpn_str_eq_c(l->method, "POST"))
        return "invalid_method";
    *param = "url";
    *value = l->url;
    if (l->url.ptr == NULL)
        return missing;
    if (url == NULL)
        return "invalid_url";
    if (c->report.endpoint.ptr == NULL)
        c->report.endpoint = gpn_str_c(url);
    if (c->url == NULL)
        c->url = url;
    if (c->url != url)
        return "url_mismatch";
    *param = "body";
    *value = gpn_str(NULL, 0);
    if (!l->has_body)
        return missing;
    *param = "body.model";
    *value = l->model;
    if (l->model.ptr == NULL)
        return missing;
    if (!gpn_check_model(c, l->model))
        return "model_mismatch";
    *param = "body.stream";
    *value = gpn_str("true", 4);
    return l->stream ? "invalid_request" : NULL;
}

static const char *gpn_check_explain(const char *code)
{
    static const char *const texts[][2] = {
        {"duplicate_custom_id", "was used before"},
        {"invalid_method", "is not \"POST\""},
        {"invalid_url", "is no endpoint of batches"},
        {"url_mismatch", "is not the batch's endpoint"},
        {"model_mismatch", "is not the model of the first line"},
        {"invalid_request", "a batch cannot stream"},
        {"missing_required_parameter", "is missing"}};
    size_t i = 0;
    while (i < GPN_COUNT(texts) - 1 && strcmp(code, texts[i][0]) != 0)
        i++;
    return texts[i][1];
}

/* A line that is not blank. */
static void gpn_check_take(gpn_check *c, char *text, size_t len, bool marked,
                           int64_t n)
{
    const char *code, *param;
    gptner_str value;
    gpn_check_line l;
    const char *bad = marked ? "begins with a byte order mark"
                             : gpn_check_parse(text, len, &l);
    c->report.requests++;
    if (bad != NULL) {
        gpn_check_note(c, "invalid_json_line", NULL, n, "not a JSON object: %s",
                       bad);
        return;
    }
    code = gpn_check_judge(c, &l, &param, &value);
    if (code != NULL && value.ptr != NULL)
        gpn_check_note(c, code, param, n, "%s \"%.*s\": %s", param,
                       value.len < 64 ? (int)value.len : 64, value.ptr,
                       gpn_check_explain(code));
    else if (code != NULL)
        gpn_check_note(c, code, param, n, "%s %s", param,
                       gpn_check_explain(code));
    else if (c->url == gpn_batch_urls[2])
        c->inputs += l.inputs;
}

static bool gpn_check_blank(gptner_str line)
{
    return gpn_skip_space(line).len == 0;
}

/* All lines of a file that is open. */
static gptner_status gpn_check_lines(gpn_check *c, gpn_task *t,
                                     gptner_error *err)
{
    gptner_str line;
    int got;
    while ((got = gpn_task_line(t, &line, err)) > 0) {
        char *text = t->lines.data + (line.ptr - t->lines.data);
        /* what stands before the first line is a mark that was passed over */
        size_t mark = t->line == 1 ? (size_t)(text - t->lines.data) : 0;
        c->report.bytes +=
            (int64_t)((size_t)(t->lines.data + t->lines_at - text) + mark);
        if (mark > 0 || !gpn_check_blank(line))
            gpn_check_take(c, text, line.len, mark > 0, (int64_t)t->line);
    }
    if (got < 0 && err->status == GPTNER_ERR_LIMIT)
        gpn_fail(err, GPTNER_ERR_LIMIT, "%s, line %lld: longer than 64 MiB",
                 t->cfg->input_path, (long long)(t->line + 1));
    return got < 0 ? err->status : GPTNER_OK;
}

/* What can be said when all lines are known. */
static void gpn_check_end(gpn_check *c)
{
    gptner_batch_report *r = &c->report;
    if (r->bytes > GPTNER_BATCH_BYTES_MAX)
        gpn_check_note(c, "file_too_large", NULL, 0,
                       "%lld bytes; at most 200,000,000 are allowed",
                       (long long)r->bytes);
    if (r->requests > GPTNER_BATCH_REQUESTS_MAX ||
        c->inputs > GPTNER_BATCH_REQUESTS_MAX)
        gpn_check_note(c, "too_many_tasks", NULL, 0,
                       "%lld requests, %lld texts to be embedded; at most "
                       "50,000 are allowed",
                       (long long)r->requests, (long long)c->inputs);
    if (r->requests == 0)
        gpn_check_note(c, "empty_file", NULL, 0, "there is no request");
    r->items = &c->items[GPN_CHECK_WHOLE - c->n_whole];
    memmove(&c->items[GPN_CHECK_WHOLE - c->n_whole], c->items,
            c->n_whole * sizeof *c->items);
    r->count = c->n_whole + c->n_lines;
    if (r->count > GPN_CHECK_KEPT)
        r->count = GPN_CHECK_KEPT;
}

static gptner_status gpn_check_file(gpn_check *c, const gpn_env *env,
                                    const char *path, gptner_error *err)
{
    gptner_run_config run = GPN_ZERO;
    gptner_status status;
    size_t most = GPTNER_BATCH_REQUESTS_MAX;
    int64_t size;
    int oserr = 0;
    gpn_task t;
    memset(&t, 0, sizeof t);
    run.input_path = path;
    t.cfg = &run;
    if (!gpn_file_open_read(&t.input, env, path, &oserr))
        return gpn_file_fail(err, path, "cannot be read", oserr);
    size = gpn_file_size(&t.input);
    if (size >= 0 && size / 16 < (int64_t)most) /* no line is shorter */
        most = (size_t)(size / 16) + 1;
    gpn_buf_init(&t.lines, env, GPN_CHECK_LINE + GPN_LINE_READ);
    if (!gpn_text_ends(path, ".jsonl"))
        gpn_check_note(c, "invalid_file_format", NULL, 0,
                       "the name does not end in .jsonl");
    if (gpn_marks_init(&c->marks, env, most))
        status = gpn_check_lines(c, &t, err);
    else
        status = gpn_no_memory(err, path);
    gpn_marks_deinit(&c->marks);
    gpn_file_close(&t.input, &oserr); /* was only read */
    gpn_buf_deinit(&t.lines);
    if (status == GPTNER_OK)
        gpn_check_end(c);
    return status;
}

GPTNER_API gptner_status gptner_batch_validate_file(
    const char *path, const char *endpoint, const gptner_allocator *allocator,
    gptner_batch_report **out, gptner_error *err)
{
    const gptner_batch_issue *first;
    gptner_error why = GPN_ZERO;
    gpn_env env;
    gpn_check *c;
    gptner_status status;
    if (out != NULL)
        *out = NULL;
    if (path == NULL || !gpn_env_init(&env, allocator, NULL))
        return gpn_refuse(err, "batch: path is NULL, or a function of the "
                               "allocator is missing");
    if (endpoint != NULL && gpn_batch_url(gpn_str_c(endpoint)) == NULL)
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "batch: %s is no endpoint of batches", endpoint);
    c = (gpn_check *)gpn_owned_new(&env, sizeof *c);
    if (c == NULL)
        return gpn_no_memory(err, path);
    c->url = gpn_batch_url(gpn_str_c(endpoint));
    status = gpn_check_file(c, &env, path, &why);
    if (status == GPTNER_OK && c->report.found > 0) {
        first = c->report.items;
        status = gpn_fail(&why, GPTNER_ERR_BATCH_INVALID,
                          "%s, line %lld: %s: %s", path, (long long)first->line,
                          first->code.ptr, first->message.ptr);
    }
    if (status != GPTNER_OK && err != NULL)
        *err = why;
    if (out != NULL &&
        (status == GPTNER_OK || status == GPTNER_ERR_BATCH_INVALID))
        *out = &c->report; /* stands first in the block */
    else
        gpn_owned_free(c);
    return status;
}

GPTNER_API void gptner_batch_report_free(gptner_batch_report *report)
{
    gpn_owned_free(report);
}

/* --- the server's side --- */

/* An id of the server's, copied: ids are opaque, and bounded by us. */
typedef struct gpn_id {
    char text[128];
} gpn_id;

/* false: no id that we would send again in a path or a body. */
static bool gpn_id_set(gpn_id *id, gptner_str text)
{
    size_t i;
    memset(id, 0, sizeof *id);
    if (text.len == 0 || text.len >= sizeof id->text ||
        gpn_str_eq_c(text, ".") || gpn_str_eq_c(text, ".."))
        return false;
    for (i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] <= ' ' ||
            (unsigned char)text.ptr[i] >= 0x7f)
            return false;
    memcpy(id->text, text.ptr, text.len);
    return true;
}

/* Wait between two calls. Ends at once on gptner_client_cancel(). */
static gptner_status gpn_client_pause(gptner_client *c, int64_t ms,
                                      gptner_error *err)
{
    return gpn_pool_pause(c->pool, ms, err);
}

/* 1 s, 2 s, 4 s ... at most 30 s, and what the server asks for. */
static gptner_status gpn_client_back_off(gptner_client *c, int tries,
                                         int64_t asked_ms, gptner_error *err)
{
    int64_t ms = tries < 5 ? (int64_t)1000 << tries : 30000;
    if (asked_ms > ms)
        ms = asked_ms < 600000 ? asked_ms : 600000;
    return gpn_client_pause(c, ms, err);
}

/* "/batches/ID", then rest, with a NUL. false: err says why. */
static gptner_status gpn_path_make(gpn_buf *path, const char *before,
                                   const char *id, const char *rest,
                                   gptner_error *err)
{
    gpn_buf_clear(path);
    gpn_buf_add_s(path, before);
    gpn_percent_encode(path, gptner_str_from(id));
    gpn_buf_add_s(path, rest);
    gpn_buf_add_c(path, '\0');
    if (path->status == GPTNER_OK)
        return GPTNER_OK;
    return gpn_fail(err, path->status, "%s: id too long, or out of memory",
                    before);
}

/* A call of this layer; what its reply becomes is decode_fn's and product. */
typedef struct gpn_ask_server {
    const char *method;
    const char *before; /* of the path */
    const char *id;     /* NULL: none */
    const char *rest;
    gptner_str body;
    gptner_status (*decode_fn)(gpn_call *, char *, size_t, gptner_error *);
    void *product;
    bool once;        /* not repeatable */
    int64_t limit_ms; /* 0: none */
    bool sent;        /* out: a byte of the last attempt went out */
} gpn_ask_server;

static gptner_status gpn_ask_run(gptner_client *c, gpn_ask_server *a,
                                 gptner_error *err)
{
    gptner_raw_request raw = GPN_ZERO;
    gptner_status status;
    gpn_call call;
    gpn_buf path;
    a->sent = false;
    gpn_buf_init(&path, &c->env, GPN_URL_MAX);
    status = gpn_path_make(&path, a->before, a->id,
                           a->rest != NULL ? a->rest : "", err);
    if (status == GPTNER_OK) {
        raw.method = a->method;
        raw.path = path.data;
        raw.body = a->body;
        raw.no_retry = a->once;
        status = gpn_call_init(&call, c, &raw, err);
        call.decode_fn = a->decode_fn;
        call.product = a->product;
        call.limit_ms = a->limit_ms;
        if (status == GPTNER_OK)
            status = gpn_call_run(&call, err);
        a->product = call.product;
        a->sent = call.sent;
        gptner_response_free(call.response); /* where nothing is decoded */
        gpn_call_deinit(&call);
    }
    gpn_buf_deinit(&path);
    return status;
}

/* --- the batch object --- */

static const gpn_member gpn_batch_members[] = {
    {"id", GPN_KIND_TEXT, offsetof(gptner_batch, id)},
    {"status", GPN_KIND_TEXT, offsetof(gptner_batch, status)},
    {"endpoint", GPN_KIND_TEXT, offsetof(gptner_batch, endpoint)},
    {"model", GPN_KIND_TEXT, offsetof(gptner_batch, model)},
    {"completion_window", GPN_KIND_TEXT,
     offsetof(gptner_batch, completion_window)},
    {"input_file_id", GPN_KIND_TEXT, offsetof(gptner_batch, input_file_id)},
    {"output_file_id", GPN_KIND_TEXT, offsetof(gptner_batch, output_file_id)},
    {"error_file_id", GPN_KIND_TEXT, offsetof(gptner_batch, error_file_id)},
    {"created_at", GPN_KIND_TIME, offsetof(gptner_batch, created_at)},
    {"in_progress_at", GPN_KIND_TIME, offsetof(gptner_batch, in_progress_at)},
    {"expires_at", GPN_KIND_TIME, offsetof(gptner_batch, expires_at)},
    {"finalizing_at", GPN_KIND_TIME, offsetof(gptner_batch, finalizing_at)},
    {"completed_at", GPN_KIND_TIME, offsetof(gptner_batch, completed_at)},
    {"failed_at", GPN_KIND_TIME, offsetof(gptner_batch, failed_at)},
    {"expired_at", GPN_KIND_TIME, offsetof(gptner_batch, expired_at)},
    {"cancelling_at", GPN_KIND_TIME, offsetof(gptner_batch, cancelling_at)},
    {"cancelled_at", GPN_KIND_TIME, offsetof(gptner_batch, cancelled_at)},
    {"usage", GPN_KIND_USAGE, offsetof(gptner_batch, usage)},
    {"", GPN_KIND_SKIP, 0}};

static const gpn_member gpn_batch_counts[] = {
    {"total", GPN_KIND_COUNT, offsetof(gptner_batch, requests_total)},
    {"completed", GPN_KIND_COUNT, offsetof(gptner_batch, requests_completed)},
    {"failed", GPN_KIND_COUNT, offsetof(gptner_batch, requests_failed)},
    {"", GPN_KIND_SKIP, 0}};

static const gpn_member gpn_issue_members[] = {
    {"code", GPN_KIND_TEXT, offsetof(gptner_batch_issue, code)},
    {"message", GPN_KIND_TEXT, offsetof(gptner_batch_issue, message)},
    {"param", GPN_KIND_TEXT, offsetof(gptner_batch_issue, param)},
    {"line", GPN_KIND_COUNT, offsetof(gptner_batch_issue, line)},
    {"", GPN_KIND_SKIP, 0}};

/* The word of the server, in any case, for a state. */
static gptner_batch_state gpn_batch_state_of(gptner_str word)
{
    /* clang-format off */
    static const struct {
        char word[12];
        uint8_t state;
    } all[] = {
        {"validating", GPTNER_BATCH_VALIDATING},
        {"in_progress", GPTNER_BATCH_IN_PROGRESS},
        {"finalizing", GPTNER_BATCH_FINALIZING},
        {"cancelling", GPTNER_BATCH_CANCELLING},
        {"completed", GPTNER_BATCH_COMPLETED},
        {"failed", GPTNER_BATCH_FAILED},
        {"expired", GPTNER_BATCH_EXPIRED},
        {"cancelled", GPTNER_BATCH_CANCELLED},
        {"canceled", GPTNER_BATCH_CANCELLED}};
    /* clang-format on */
    size_t i;
    for (i = 0; i < GPN_COUNT(all); i++)
        if (word.len == strlen(all[i].word) &&
            gpn_str_istarts(word, all[i].word))
            return (gptner_batch_state)all[i].state;
    return GPTNER_BATCH_UNKNOWN;
}

/* What a request without a row is when the batch has ended in this state. */
static gptner_status gpn_batch_lost(gptner_batch_state state)
{
    return state == GPTNER_BATCH_EXPIRED     ? GPTNER_ERR_EXPIRED
           : state == GPTNER_BATCH_CANCELLED ? GPTNER_ERR_CANCELLED
                                             : GPTNER_ERR_MISSING;
}

/* What a batch holds of its lists; more is left out, for no server sends it: a
 * line of a file is told of once or twice, and metadata are 16 pairs. */
enum { GPN_ISSUES_MAX = 65536, GPN_PAIRS_MAX = 1024 };

/* The lists of a batch, and how many there is room for. */
typedef struct gpn_batch_lists {
    gptner_batch_issue *issues;
    gptner_pair *pairs;
    size_t n_issues;
    size_t n_pairs;
    size_t room_issues;
    size_t room_pairs;
} gpn_batch_lists;

/* {"object":"list","data":[...]}, or a bare array. */
static void gpn_batch_read_errors(gptner_json_reader *r, gpn_batch_lists *l)
{
    static const char *const names[] = {"data", NULL};
    size_t which;
    bool object = gptner_json_peek(r) == GPTNER_JSON_OBJECT;
    l->n_issues = 0;
    if (object && (!gptner_json_enter_object(r) ||
                   !gptner_json_next_member(r, names, &which)))
        return;
    if (gptner_json_enter_array(r))
        while (gptner_json_next_item(r))
            if (l->n_issues < l->room_issues) {
                gptner_batch_issue *issue = &l->issues[l->n_issues++];
                memset(issue, 0, sizeof *issue);
                gpn_read_object(NULL, r, gpn_issue_members, issue);
            }
    if (object)
        gptner_json_leave(r);
}

static void gpn_batch_read_metadata(gptner_json_reader *r, gpn_batch_lists *l)
{
    gptner_str key;
    l->n_pairs = 0;
    if (!gptner_json_enter_object(r))
        return;
    while (gptner_json_next_key(r, &key))
        if (l->n_pairs < l->room_pairs) {
            gptner_pair *pair = &l->pairs[l->n_pairs++];
            memset(pair, 0, sizeof *pair);
            pair->key = key;
            gpn_read_text(r, &pair->value);
        }
}

/* Read a batch object where it lies. */
static void gpn_batch_read_object(gptner_json_reader *r, gptner_batch *b,
                                  gpn_batch_lists *l)
{
    gptner_str key;
    if (!gptner_json_enter_object(r))
        return;
    while (gptner_json_next_key(r, &key)) {
        const gpn_member *m = gpn_batch_members;
        if (gpn_str_eq_c(key, "errors"))
            gpn_batch_read_errors(r, l);
        else if (gpn_str_eq_c(key, "metadata"))
            gpn_batch_read_metadata(r, l);
        else if (gpn_str_eq_c(key, "request_counts"))
            gpn_read_object(NULL, r, gpn_batch_counts, b);
        else {
            while (m->key[0] != '\0' && !gpn_str_eq_c(key, m->key))
                m++;
            if (m->kind != GPN_KIND_SKIP)
                gpn_read_value(NULL, r, m->kind, gpn_at(b, m->to));
        }
    }
}

/* More room than the lists of this text take: each item begins with '{', each
 * pair has a ':'. */
static void gpn_batch_room(gptner_str json, gpn_batch_lists *l)
{
    size_t i;
    memset(l, 0, sizeof *l);
    for (i = 0; i < json.len; i++) {
        l->room_issues += (json.ptr[i] == '{' || json.ptr[i] == ',') &&
                          l->room_issues < GPN_ISSUES_MAX;
        l->room_pairs += json.ptr[i] == ':' && l->room_pairs < GPN_PAIRS_MAX;
    }
}

/* A batch from its JSON, which is kept; NULL: err says why. */
static gptner_batch *gpn_batch_new(const gpn_env *env, gptner_str json,
                                   gptner_error *err)
{
    gpn_batch_lists l;
    gptner_json_reader r;
    gptner_json_error why;
    gptner_batch *b;
    char *text;
    gpn_batch_room(json, &l);
    b = (gptner_batch *)gpn_owned_new(
        env, sizeof *b + l.room_issues * sizeof *l.issues +
                 l.room_pairs * sizeof *l.pairs + 2 * (json.len + 1));
    if (b == NULL) {
        gpn_no_memory(err, "batch");
        return NULL;
    }
    l.issues = (gptner_batch_issue *)(void *)(b + 1);
    l.pairs = (gptner_pair *)(void *)(l.issues + l.room_issues);
    text = (char *)(l.pairs + l.room_pairs);
    memset(&b->usage, 0xff, sizeof b->usage);
    memcpy(text, json.ptr, json.len);
    b->raw = gpn_str(text, json.len);
    text += json.len + 1;
    memcpy(text, json.ptr, json.len);
    gptner_json_reader_init_in_place(&r, text, json.len, NULL);
    gpn_batch_read_object(&r, b, &l);
    if (gptner_json_reader_finish(&r, &why) != GPTNER_OK || b->id.len == 0 ||
        b->status.len == 0) {
        gpn_fail(err, GPTNER_ERR_BAD_REPLY, "batch: %s",
                 why.status != GPTNER_OK ? why.message
                                         : "the reply has no id or status");
        gpn_owned_free(b);
        return NULL;
    }
    b->state = gpn_batch_state_of(b->status);
    b->ended = b->state >= GPTNER_BATCH_COMPLETED;
    b->errors = l.issues;
    b->n_errors = l.n_issues;
    b->metadata = l.pairs;
    b->n_metadata = l.n_pairs;
    return b;
}

GPTNER_API void gptner_batch_free(gptner_batch *batch)
{
    gpn_owned_free(batch);
}

static gptner_status gpn_batch_decode(gpn_call *call, char *body, size_t len,
                                      gptner_error *err)
{
    gptner_error why = GPN_ZERO;
    gptner_batch *b =
        gpn_batch_new(&call->head.client->env, gpn_str(body, len), &why);
    if (b == NULL) {
        if (err != NULL)
            *err = why;
        return why.status;
    }
    gptner_batch_free((gptner_batch *)call->product);
    call->product = b;
    return GPTNER_OK;
}

static gptner_status gpn_batch_get(gptner_client *c, const char *id,
                                   int64_t limit_ms, gptner_batch **out,
                                   gptner_error *err)
{
    gpn_ask_server a = GPN_ZERO;
    gptner_status status;
    a.before = "/batches/";
    a.id = id;
    a.decode_fn = gpn_batch_decode;
    a.limit_ms = limit_ms;
    status = gpn_ask_run(c, &a, err);
    *out = (gptner_batch *)a.product;
    return status;
}

static gptner_status gpn_batch_args(const gptner_client *client, const char *id,
                                    gptner_batch **out, gptner_error *err)
{
    gpn_id checked;
    if (out != NULL)
        *out = NULL;
    if (client == NULL || out == NULL ||
        !gpn_id_set(&checked, gptner_str_from(id)))
        return gpn_refuse(err, "batch: needs client, out, and an id of 1 to "
                               "127 visible ASCII characters");
    return GPTNER_OK;
}

GPTNER_API gptner_status gptner_batch_status(gptner_client *client,
                                             const char *id, gptner_batch **out,
                                             gptner_error *err)
{
    gptner_status status = gpn_batch_args(client, id, out, err);
    if (status != GPTNER_OK)
        return status;
    return gpn_batch_get(client, id, 0, out, err);
}

/* Failures that the same call may survive when it is made again. */
static bool gpn_status_passes(gptner_status status)
{
    return gpn_pace_retryable_status(status) ||
           status == GPTNER_ERR_RATE_LIMITED || status == GPTNER_ERR_SERVER ||
           status == GPTNER_ERR_BAD_REPLY;
}

GPTNER_API gptner_status gptner_batch_cancel(gptner_client *client,
                                             const char *id, gptner_batch **out,
                                             gptner_error *err)
{
    gptner_status status = gpn_batch_args(client, id, out, err);
    gptner_error why = GPN_ZERO;
    int tries = 0;
    while (status == GPTNER_OK) {
        gpn_ask_server a = GPN_ZERO;
        a.method = "POST";
        a.before = "/batches/";
        a.id = id;
        a.rest = "/cancel";
        a.decode_fn = gpn_batch_decode;
        a.once = true; /* a 409 is the answer that it has ended */
        status = gpn_ask_run(client, &a, &why);
        *out = (gptner_batch *)a.product;
        if (status == GPTNER_OK)
            return status;
        if (why.http_status == 409)
            return gpn_batch_get(client, id, 0, out, err);
        if (!gpn_status_passes(status) ||
            tries++ >= client->pool->config.rules.max_retries)
            break;
        status =
            gpn_client_back_off(client, tries - 1, why.retry_after_ms, &why);
    }
    if (err != NULL && why.status != GPTNER_OK)
        *err = why;
    return status;
}

/* --- lists --- */

/* One page: what is in "data", as it stands, handed to item_fn. */
typedef struct gpn_page {
    const gpn_env *env;
    gptner_status (*item_fn)(struct gpn_page *page, gptner_str item,
                             gptner_error *err);
    bool has_more;
    size_t count;
    gpn_id last; /* id of the last item */
    /* for the item_fn that looks for a file or a batch */
    const char *name;
    int64_t bytes;
    gpn_id found;
    gptner_batches *batches;
    size_t room;
} gpn_page;

static void gpn_page_last(gpn_page *page, gptner_str item)
{
    static const char *const names[] = {"id", NULL};
    gptner_str id = GPN_ZERO;
    gptner_json_reader r;
    size_t which;
    gptner_json_reader_init(&r, item.ptr, item.len, NULL);
    if (gptner_json_enter_object(&r))
        while (gptner_json_next_member(&r, names, &which))
            gptner_json_read_str(&r, &id);
    gpn_id_set(&page->last, id);
}

static gptner_status gpn_page_decode(gpn_call *call, char *body, size_t len,
                                     gptner_error *err)
{
    static const char *const names[] = {"data", "has_more", NULL};
    gpn_page *page = (gpn_page *)call->product;
    gptner_status status = GPTNER_OK;
    gptner_json_reader r;
    gptner_json_error why;
    gptner_str item;
    bool listed = false;
    size_t which;
    page->count = 0;
    page->has_more = false;
    while (page->batches != NULL && page->batches->count > 0)
        gptner_batch_free(page->batches->items[--page->batches->count]);
    gptner_json_reader_init(&r, body, len, NULL);
    if (gptner_json_enter_object(&r))
        while (gptner_json_next_member(&r, names, &which)) {
            if (which == 1) {
                gptner_json_read_bool(&r, &page->has_more);
                continue;
            }
            listed = gptner_json_enter_array(&r);
            while (listed && gptner_json_next_item(&r)) {
                if (!gptner_json_read_raw(&r, &item) || status != GPTNER_OK)
                    continue;
                page->count++;
                gpn_page_last(page, item);
                status = page->item_fn(page, item, err);
            }
        }
    if (gptner_json_reader_finish(&r, &why) != GPTNER_OK || !listed)
        return gpn_fail(err, GPTNER_ERR_BAD_REPLY, "%s: %s", call->raw->path,
                        listed ? why.message : "the reply is no list");
    return status;
}

/* The page after page->last; it is left empty for the first. */
static gptner_status gpn_page_fetch(gptner_client *c, const char *path,
                                    gpn_page *page, gptner_error *err)
{
    gpn_ask_server a = GPN_ZERO;
    gpn_id after = page->last;
    a.before = path;
    if (after.text[0] != '\0')
        a.id = after.text;
    a.decode_fn = gpn_page_decode;
    a.product = page;
    return gpn_ask_run(c, &a, err);
}

enum { GPN_PAGES_MAX = 1000 };

/* Look through all pages until something is found. path ends in "after=" when
 * it is continued. */
static gptner_status gpn_page_search(gptner_client *c, const char *first,
                                     const char *next, gpn_page *page,
                                     gptner_error *err)
{
    int i;
    page->env = &c->env;
    memset(&page->found, 0, sizeof page->found);
    memset(&page->last, 0, sizeof page->last);
    for (i = 0; i < GPN_PAGES_MAX; i++) {
        gptner_status status =
            gpn_page_fetch(c, i == 0 ? first : next, page, err);
        if (status != GPTNER_OK || page->found.text[0] != '\0')
            return status;
        if (!page->has_more || page->count == 0)
            return GPTNER_OK;
        if (page->last.text[0] == '\0')
            return gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                            "%s: the last item of a page has no id to go on "
                            "from",
                            first);
    }
    return gpn_fail(err, GPTNER_ERR_LIMIT, "%s: more than %d pages", first,
                    (int)GPN_PAGES_MAX);
}

static gptner_status gpn_page_keep_batch(gpn_page *page, gptner_str item,
                                         gptner_error *err)
{
    gptner_batches *list = page->batches;
    gptner_error why = GPN_ZERO;
    if (list->count == page->room)
        return GPTNER_OK; /* more than was asked for */
    list->items[list->count] = gpn_batch_new(page->env, item, &why);
    if (list->items[list->count] == NULL)
        return gpn_fail(err, why.status, "%s", why.message);
    list->count++;
    return GPTNER_OK;
}

GPTNER_API void gptner_batches_free(gptner_batches *batches)
{
    size_t i;
    for (i = 0; batches != NULL && i < batches->count; i++)
        gptner_batch_free(batches->items[i]);
    gpn_owned_free(batches);
}

GPTNER_API gptner_status gptner_batch_list(gptner_client *client,
                                           const char *after, int limit,
                                           gptner_batches **out,
                                           gptner_error *err)
{
    gptner_batches *list;
    gptner_status status;
    gpn_page page = GPN_ZERO;
    char path[64];
    if (out != NULL)
        *out = NULL;
    if (client == NULL || out == NULL || limit < 0 || limit > 100)
        return gpn_refuse(err, "batch list: needs client and out, and a limit "
                               "from 1 to 100");
    limit = limit > 0 ? limit : 20;
    if (after != NULL && !gpn_id_set(&page.last, gptner_str_from(after)))
        return gpn_refuse(err, "batch list: after is no id");
    list = (gptner_batches *)gpn_owned_new(
        &client->env, sizeof *list + (size_t)limit * sizeof *list->items);
    if (list == NULL)
        return gpn_no_memory(err, "batch list");
    list->items = (gptner_batch **)(void *)(list + 1);
    page.env = &client->env;
    page.item_fn = gpn_page_keep_batch;
    page.batches = list;
    page.room = (size_t)limit;
    gpn_format(path, sizeof path, "/batches?limit=%d%s", limit,
               after != NULL ? "&after=" : "");
    status = gpn_page_fetch(client, path, &page, err);
    list->has_more = page.has_more;
    if (status != GPTNER_OK) {
        gptner_batches_free(list);
        list = NULL;
    }
    *out = list;
    return status;
}

/* --- what must not be done twice --- */

/* What became of a call that may cost money. */
typedef enum gpn_outcome {
    GPN_OUTCOME_DONE,
    GPN_OUTCOME_REFUSED, /* not done, and it never will be */
    GPN_OUTCOME_AGAIN,   /* not done; it may be tried again */
    GPN_OUTCOME_DOUBT    /* perhaps done: look before it is tried again */
} gpn_outcome;

/* By what the server answered; without a whole answer by whether anything was
 * sent. */
static gpn_outcome gpn_outcome_of(gptner_status status, bool sent,
                                  const gptner_error *err)
{
    int http = err->http_status;
    if (status == GPTNER_OK)
        return GPN_OUTCOME_DONE;
    if (status == GPTNER_ERR_RATE_LIMITED)
        return GPN_OUTCOME_AGAIN;
    if (http >= 400 && http < 500 && http != 408 && http != 409)
        return GPN_OUTCOME_REFUSED;
    if (sent)
        return GPN_OUTCOME_DOUBT;
    return gpn_status_passes(status) ? GPN_OUTCOME_AGAIN : GPN_OUTCOME_REFUSED;
}

/* Something to be made once at the server. */
typedef struct gpn_once {
    gptner_client *client;
    const char *what; /* for messages */
    int looks;        /* before it is believed not to be there */
    /* Make it: *sent, when a byte went out. */
    gptner_status (*send_fn)(struct gpn_once *o, bool *sent, gptner_error *err);
    /* Look for it; made is empty when it is not there. */
    gptner_status (*look_fn)(struct gpn_once *o, gptner_error *err);
    gpn_id made;   /* out: its id */
    bool nameless; /* out: it was made, but its id is none that we would send */
} gpn_once;

static gptner_status gpn_once_look(gpn_once *o, gptner_error *err)
{
    int i;
    for (i = 0; i < o->looks; i++) {
        gptner_status status = GPTNER_OK;
        if (i > 0)
            status = gpn_client_back_off(o->client, i - 1, 0, err);
        if (status == GPTNER_OK)
            status = o->look_fn(o, err);
        if (status != GPTNER_OK)
            return status;
        if (o->made.text[0] != '\0') {
            gpn_log(&o->client->env, GPTNER_LOG_INFO, "%s: found %s", o->what,
                    o->made.text);
            return GPTNER_OK;
        }
    }
    return GPTNER_OK;
}

/* A batch made just after its upload may not find its file yet (openai-api.md
 * 4.6). */
static bool gpn_once_too_early(const gptner_error *err)
{
    gptner_str text = gptner_str_from(err->message);
    return (err->http_status == 400 &&
            gpn_str_ifind(text, "cannot find file") < text.len) ||
           (err->http_status == 404 &&
            gpn_str_ifind(text, "no such file") < text.len);
}

/* Make it, unless it is there: doubt says that an earlier attempt may have made
 * it. When this fails, *doubt says whether it may have been made. */
static gptner_status gpn_once_make(gpn_once *o, bool *doubt, gptner_error *err)
{
    const gpn_rules *rules = &o->client->pool->config.rules;
    gptner_error why = GPN_ZERO;
    gptner_status status;
    int tries = 0;
    int throttled = 0;
    memset(&o->made, 0, sizeof o->made);
    for (;;) {
        gpn_outcome outcome;
        bool sent = false;
        bool early;
        status = *doubt ? gpn_once_look(o, &why) : GPTNER_OK;
        if (status != GPTNER_OK || o->made.text[0] != '\0')
            break;
        status = o->send_fn(o, &sent, &why);
        outcome = gpn_outcome_of(status, sent, &why);
        early = gpn_once_too_early(&why);
        *doubt = *doubt || outcome == GPN_OUTCOME_DOUBT;
        if (outcome == GPN_OUTCOME_DONE || status == GPTNER_ERR_CANCELLED ||
            o->nameless || (outcome == GPN_OUTCOME_REFUSED && !early))
            break;
        if (status == GPTNER_ERR_RATE_LIMITED
                ? throttled++ >= rules->max_throttle_retries
                : tries++ >= rules->max_retries)
            break;
        gpn_log(&o->client->env, GPTNER_LOG_WARN, "%s: %s", o->what,
                why.message);
        status =
            gpn_client_back_off(o->client, early ? 1 : tries + throttled - 1,
                                why.retry_after_ms, &why);
        if (status != GPTNER_OK)
            break;
    }
    if (status != GPTNER_OK && err != NULL)
        *err = why;
    if (status == GPTNER_OK)
        *doubt = false;
    return status;
}

/* --- upload --- */

typedef struct gpn_upload {
    gpn_once once; /* first */
    const char *path;
    const char *name; /* at the server */
    int64_t bytes;
    gptner_upload_fn sent_fn;
    void *sent_user;
} gpn_upload;

/* What is looked at of a file object. */
typedef struct gpn_remote {
    gptner_str id;
    gptner_str filename;
    int64_t bytes;
} gpn_remote;

static const gpn_member gpn_remote_members[] = {
    {"id", GPN_KIND_TEXT, offsetof(gpn_remote, id)},
    {"filename", GPN_KIND_TEXT, offsetof(gpn_remote, filename)},
    {"bytes", GPN_KIND_COUNT, offsetof(gpn_remote, bytes)},
    {"", GPN_KIND_SKIP, 0}};

/* Texts with escapes read as none: not what we named so. */
static bool gpn_remote_read(gptner_str json, gpn_remote *file)
{
    gptner_json_reader r;
    gptner_json_error why;
    memset(file, 0, sizeof *file);
    file->bytes = -1;
    gptner_json_reader_init(&r, json.ptr, json.len, NULL);
    gpn_read_object(NULL, &r, gpn_remote_members, file);
    return gptner_json_reader_finish(&r, &why) == GPTNER_OK && file->id.len > 0;
}

static gptner_status gpn_upload_decode(gpn_call *call, char *body, size_t len,
                                       gptner_error *err)
{
    gpn_once *o = (gpn_once *)call->product;
    gpn_remote file;
    if (!gpn_remote_read(gpn_str(body, len), &file))
        return gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                        "upload: the reply has no file id");
    o->nameless = !gpn_id_set(&o->made, file.id);
    if (o->nameless)
        return gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                        "upload: the file's id is too long, or holds "
                        "characters that we would not send");
    return GPTNER_OK;
}

static gptner_status gpn_upload_send(gpn_once *o, bool *sent, gptner_error *err)
{
    gpn_upload *u = (gpn_upload *)(void *)o;
    gptner_raw_request raw = GPN_ZERO;
    gptner_part parts[2];
    gptner_status status;
    gpn_call call;
    memset(parts, 0, sizeof parts);
    parts[0].name = "purpose";
    parts[0].value = gptner_str_from("batch");
    parts[1].name = "file";
    parts[1].path = u->path;
    parts[1].filename = u->name;
    parts[1].content_type = "application/jsonl";
    raw.path = "/files";
    raw.parts = parts;
    raw.n_parts = 2;
    raw.no_retry = true;
    status = gpn_call_init(&call, o->client, &raw, err);
    call.decode_fn = gpn_upload_decode;
    call.product = o;
    call.form.sent_fn = u->sent_fn;
    call.form.sent_user = u->sent_user;
    if (status == GPTNER_OK)
        status = gpn_call_run(&call, err);
    *sent = call.sent;
    gpn_call_deinit(&call);
    return status;
}

static gptner_status gpn_page_match_file(gpn_page *page, gptner_str item,
                                         gptner_error *err)
{
    gpn_remote file;
    GPN_UNUSED(err);
    if (page->found.text[0] == '\0' && gpn_remote_read(item, &file) &&
        gpn_str_eq_c(file.filename, page->name) &&
        (file.bytes < 0 || file.bytes == page->bytes))
        gpn_id_set(&page->found, file.id);
    return GPTNER_OK;
}

static gptner_status gpn_upload_look(gpn_once *o, gptner_error *err)
{
    const gpn_upload *u = (const gpn_upload *)(const void *)o;
    gpn_page page = GPN_ZERO;
    gptner_status status;
    page.item_fn = gpn_page_match_file;
    page.name = u->name;
    page.bytes = u->bytes;
    status =
        gpn_page_search(o->client, "/files?purpose=batch&limit=1000",
                        "/files?purpose=batch&limit=1000&after=", &page, err);
    o->made = page.found;
    return status;
}

/* Upload a file once; u->once.made is its id. */
static gptner_status gpn_upload_run(gpn_upload *u, gptner_client *c,
                                    bool *doubt, gptner_error *err)
{
    gpn_file file;
    int oserr = 0;
    if (!gpn_file_open_read(&file, &c->env, u->path, &oserr))
        return gpn_file_fail(err, u->path, "cannot be read", oserr);
    u->bytes = gpn_file_size(&file);
    gpn_file_close(&file, &oserr);
    if (u->bytes < 0)
        return gpn_file_fail(err, u->path, "is no file", 0);
    u->once.client = c;
    u->once.what = "upload";
    u->once.looks = 2; /* a second file would cost space, not money */
    u->once.send_fn = gpn_upload_send;
    u->once.look_fn = gpn_upload_look;
    return gpn_once_make(&u->once, doubt, err);
}

/* --- creation --- */

typedef struct gpn_create {
    gpn_once once; /* first */
    const char *file_id;
    const char *endpoint;
    const char *description;
    const gptner_pair *metadata;
    size_t n_metadata;
    const char *job;
    int64_t output_expires_s;
    gptner_batch *batch; /* out, when it was made or found */
} gpn_create;

static void gpn_create_write(const gpn_create *k, gptner_json_writer *w)
{
    const char *text = k->description;
    size_t i;
    if (text == NULL || *text == '\0')
        text = "GPT-NER batch processing";
    gptner_json_write_object(w);
    gptner_json_put_string(w, "input_file_id", k->file_id);
    gptner_json_put_string(w, "endpoint", k->endpoint);
    gptner_json_put_string(w, "completion_window", "24h");
    gptner_json_put_object(w, "metadata");
    gptner_json_put_string(w, "description", text);
    gptner_json_put_string(w, "gptner_job", k->job);
    for (i = 0; i < k->n_metadata; i++) {
        gptner_json_write_key_str(w, k->metadata[i].key);
        gptner_json_write_str(w, k->metadata[i].value);
    }
    gptner_json_write_end(w);
    if (k->output_expires_s > 0) {
        gptner_json_put_object(w, "output_expires_after");
        gptner_json_put_string(w, "anchor", "created_at");
        gptner_json_put_int64(w, "seconds", k->output_expires_s);
        gptner_json_write_end(w);
    }
    gptner_json_write_end(w);
}

static gptner_status gpn_create_send(gpn_once *o, bool *sent, gptner_error *err)
{
    gpn_create *k = (gpn_create *)(void *)o;
    gpn_ask_server a = GPN_ZERO;
    gptner_json_writer w;
    gptner_status status;
    gpn_buf body;
    gpn_buf_init(&body, &o->client->env, 1 << 20);
    gpn_json_writer_init(&w, &body);
    w.refuse_invalid = true;
    gpn_create_write(k, &w);
    status = gptner_json_writer_finish(&w, NULL);
    if (status == GPTNER_OK) {
        a.method = "POST";
        a.before = "/batches";
        a.body = gpn_str(body.data, body.len);
        a.decode_fn = gpn_batch_decode;
        a.once = true;
        status = gpn_ask_run(o->client, &a, err);
        k->batch = (gptner_batch *)a.product;
        *sent = a.sent;
        o->nameless =
            status == GPTNER_OK && !gpn_id_set(&o->made, k->batch->id);
        if (o->nameless) {
            gptner_batch_free(k->batch);
            k->batch = NULL;
            status = gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                              "batch: it was made, but its id is too long, or "
                              "holds characters that we would not send");
        }
    } else {
        gpn_fail(err, status, "batch: %s", gptner_json_writer_message(&w));
    }
    gpn_buf_deinit(&body);
    return status;
}

static gptner_status gpn_page_match_batch(gpn_page *page, gptner_str item,
                                          gptner_error *err)
{
    gptner_error why = GPN_ZERO;
    gptner_batch *b;
    size_t i;
    if (page->found.text[0] != '\0' ||
        gpn_str_find(item, page->name) == item.len)
        return GPTNER_OK;
    b = gpn_batch_new(page->env, item, &why);
    if (b == NULL)
        return gpn_fail(err, why.status, "%s", why.message);
    for (i = 0; i < b->n_metadata; i++)
        if (gpn_str_eq_c(b->metadata[i].key, "gptner_job") &&
            gpn_str_eq_c(b->metadata[i].value, page->name))
            gpn_id_set(&page->found, b->id);
    gptner_batch_free(b);
    return GPTNER_OK;
}

static gptner_status gpn_create_look(gpn_once *o, gptner_error *err)
{
    const gpn_create *k = (const gpn_create *)(const void *)o;
    gpn_page page = GPN_ZERO;
    gptner_status status;
    page.item_fn = gpn_page_match_batch;
    page.name = k->job;
    status = gpn_page_search(o->client, "/batches?limit=100",
                             "/batches?limit=100&after=", &page, err);
    o->made = page.found;
    return status;
}

/* Create a batch once: k->once.made is its id; k->batch its description, where
 * it was not found but made. */
static gptner_status gpn_create_run(gpn_create *k, gptner_client *c,
                                    bool *doubt, gptner_error *err)
{
    k->once.client = c;
    k->once.what = "batch";
    k->once.looks = 4; /* a second batch costs money: 7 s are worth it */
    k->once.send_fn = gpn_create_send;
    k->once.look_fn = gpn_create_look;
    return gpn_once_make(&k->once, doubt, err);
}

/* --- submission --- */

enum { GPN_JOB_NAME_MAX = 64, GPN_METADATA_MAX = 14 };

static bool gpn_job_name_ok(const char *name)
{
    size_t i;
    for (i = 0; name[i] != '\0'; i++)
        if (!(name[i] == '-' || name[i] == '.' || gpn_secret_char(name[i])) ||
            name[i] == '*' || i >= GPN_JOB_NAME_MAX)
            return false;
    return i > 0;
}

/* Characters, not bytes; SIZE_MAX: it is no UTF-8. */
static size_t gpn_utf8_count(gptner_str s)
{
    size_t n = 0;
    uint32_t cp;
    while (s.len > 0) {
        size_t len = gpn_utf8_get(s.ptr, s.len, &cp);
        if (len == 0)
            return SIZE_MAX;
        s.ptr += len;
        s.len -= len;
        n++;
    }
    return n;
}

static gptner_status gpn_metadata_check(const char *description,
                                        const gptner_pair *list, size_t n,
                                        gptner_error *err)
{
    size_t i;
    if (gpn_utf8_count(gptner_str_from(description)) > 512)
        return gpn_refuse(err, "description: longer than 512 characters, or "
                               "no UTF-8");
    if (n > GPN_METADATA_MAX || (n > 0 && list == NULL))
        return gpn_refuse(err, "metadata: more than 14 pairs");
    for (i = 0; i < n; i++)
        if (list[i].key.len == 0 || gpn_utf8_count(list[i].key) > 64 ||
            gpn_utf8_count(list[i].value) > 512)
            return gpn_refuse(err, "metadata: a key is empty or longer than 64 "
                                   "characters, or a value than 512, or one of "
                                   "them is no UTF-8");
        else if (gpn_str_eq_c(list[i].key, "gptner_job") ||
                 gpn_str_eq_c(list[i].key, "description"))
            return gpn_refuse(err, "metadata: the keys gptner_job and "
                                   "description are ours");
    return GPTNER_OK;
}

/* The member "url" of the first line, which stands near its beginning. */
static gptner_status gpn_batch_endpoint(const gpn_env *env, const char *path,
                                        char *out, size_t cap,
                                        gptner_error *err)
{
    static const char *const names[] = {"url", NULL};
    char scratch[256];
    gptner_json_reader r;
    gptner_str url = GPN_ZERO;
    size_t which;
    gpn_file file;
    int64_t got = -1;
    int oserr = 0;
    const size_t room = 65536;
    char *text = (char *)gpn_mem_alloc(env, room);
    if (text == NULL)
        return gpn_no_memory(err, "batch");
    if (gpn_file_open_read(&file, env, path, &oserr)) {
        got = gpn_file_read(&file, text, room, &oserr);
        gpn_file_close(&file, &oserr);
    }
    if (got >= 0) {
        gptner_json_reader_init(&r, text, (size_t)got, NULL);
        gptner_json_reader_scratch(&r, scratch, sizeof scratch);
        if (gptner_json_enter_object(&r) &&
            gptner_json_next_member(&r, names, &which))
            gptner_json_read_str(&r, &url);
    }
    if (url.len > 0 && url.len < cap) {
        memcpy(out, url.ptr, url.len);
        out[url.len] = '\0';
    }
    gpn_mem_free(env, text);
    if (got < 0)
        return gpn_file_fail(err, path, "cannot be read", oserr);
    if (url.len > 0 && url.len < cap)
        return GPTNER_OK;
    return gpn_fail(err, GPTNER_ERR_BATCH_INVALID,
                    "%s: its first line has no url; name the endpoint", path);
}

/* "STEM-JOB.jsonl" for ".../STEM.jsonl", so that the file can be found. */
static void gpn_upload_name(const char *path, const char *job, char *out,
                            size_t cap)
{
    const char *stem = path;
    size_t len, i;
    for (i = 0; path[i] != '\0'; i++)
        if (path[i] == '/' || path[i] == '\\')
            stem = path + i + 1;
    len = strlen(stem);
    if (gpn_text_ends(stem, ".jsonl"))
        len -= 6;
    len = len < 60 ? len : 60;
    gpn_format(out, cap, "%.*s-%s.jsonl", (int)len, stem, job);
    for (i = 0; out[i] != '\0'; i++)
        if (!gpn_secret_char(out[i]))
            out[i] = '_';
}

static void gpn_job_name_make(const gpn_env *env, char out[17])
{
    uint64_t n = gpn_random_u64(env);
    gpn_format(out, 17, "%08x%08x", (unsigned)(n >> 32),
               (unsigned)(n & 0xffffffffu));
}

static gptner_status gpn_submit_check(const gptner_batch_submit_config *cfg,
                                      gptner_error *err)
{
    if (cfg->path == NULL || !gpn_text_ends(cfg->path, ".jsonl"))
        return gpn_refuse(err, "batch: path is missing or does not end in "
                               ".jsonl, as the server wants it");
    if (cfg->job != NULL && !gpn_job_name_ok(cfg->job))
        return gpn_refuse(err, "batch: job is not 1 to 64 letters, digits, "
                               "'-', '_' and '.'");
    if (cfg->output_expires_s != 0 &&
        (cfg->output_expires_s < 3600 || cfg->output_expires_s > 2592000))
        return gpn_refuse(err, "batch: output_expires_s is not from 3600 to "
                               "2592000");
    return gpn_metadata_check(cfg->description, cfg->metadata, cfg->n_metadata,
                              err);
}

GPTNER_API gptner_status gptner_batch_submit(
    gptner_client *client, const gptner_batch_submit_config *cfg,
    gptner_batch **out, gptner_error *err)
{
    char name[160], endpoint[128], job[17];
    bool doubt;
    gptner_status status;
    gpn_upload u;
    gpn_create k;
    if (out != NULL)
        *out = NULL;
    if (client == NULL || cfg == NULL || out == NULL)
        return gpn_refuse(err, "batch: needs client, configuration and out");
    status = gpn_submit_check(cfg, err);
    memset(&u, 0, sizeof u);
    memset(&k, 0, sizeof k);
    k.endpoint = cfg->endpoint;
    if (status == GPTNER_OK && cfg->endpoint == NULL) {
        status = gpn_batch_endpoint(&client->env, cfg->path, endpoint,
                                    sizeof endpoint, err);
        k.endpoint = endpoint;
    }
    if (status != GPTNER_OK)
        return status;
    gpn_job_name_make(&client->env, job);
    k.job = cfg->job != NULL ? cfg->job : job;
    gpn_upload_name(cfg->path, k.job, name, sizeof name);
    doubt = cfg->job != NULL; /* it may be there from an earlier call */
    k.once.client = client;
    k.once.what = "batch";
    if (doubt)
        status = gpn_create_look(&k.once, err);
    if (status == GPTNER_OK && k.once.made.text[0] == '\0') {
        u.path = cfg->path;
        u.name = name;
        u.sent_fn = cfg->upload_fn;
        u.sent_user = cfg->upload_user;
        status = gpn_upload_run(&u, client, &doubt, err);
    }
    if (status == GPTNER_OK && k.once.made.text[0] == '\0') {
        k.file_id = u.once.made.text;
        k.description = cfg->description;
        k.metadata = cfg->metadata;
        k.n_metadata = cfg->n_metadata;
        k.output_expires_s = cfg->output_expires_s;
        doubt = false;
        status = gpn_create_run(&k, client, &doubt, err);
    }
    if (status == GPTNER_OK && k.batch == NULL)
        status = gpn_batch_get(client, k.once.made.text, 0, &k.batch, err);
    *out = k.batch;
    return status;
}

/* --- waiting for a batch --- */

enum { GPN_UNKNOWN_MAX = 3 }; /* polls that find no batch, in a row */

/* Does a poll that failed so end the wait? */
static bool gpn_poll_hopeless(gptner_status status, int *unknown)
{
    *unknown = status == GPTNER_ERR_NOT_FOUND ? *unknown + 1 : 0;
    return *unknown >= GPN_UNKNOWN_MAX || status == GPTNER_ERR_AUTH ||
           status == GPTNER_ERR_PERMISSION || status == GPTNER_ERR_CANCELLED ||
           status == GPTNER_ERR_CERTIFICATE || status == GPTNER_ERR_CA ||
           status == GPTNER_ERR_NO_MEMORY || status == GPTNER_ERR_BAD_REQUEST;
}

/* The same, for gptner_batch_wait() once its arguments are known. *out is
 * replaced by what is newer. */
static gptner_status gpn_wait_run(gptner_client *c, const char *id,
                                  const gptner_batch_wait_config *cfg,
                                  gptner_batch **out, gptner_error *err)
{
    int64_t poll = cfg->poll_ms > 0 ? cfg->poll_ms : 60000;
    int64_t limit = cfg->max_wait_ms > 0 ? cfg->max_wait_ms : 90000000;
    int64_t until = gpn_time_add(gpn_clock_ms(&c->env), limit);
    int unknown = 0;
    for (;;) {
        gptner_batch *b = NULL;
        gptner_error why = GPN_ZERO;
        int64_t left = until - gpn_clock_ms(&c->env);
        gptner_status status = GPTNER_OK;
        if (left <= 0)
            return gpn_fail(err, GPTNER_ERR_TIMEOUT,
                            "batch %s: has not ended within %lld s; it goes "
                            "on, and can be waited for again",
                            id, (long long)(limit / 1000));
        status = gpn_batch_get(c, id, left, &b, &why);
        if (status == GPTNER_OK) {
            gptner_batch_free(*out);
            *out = b;
            unknown = 0;
            if (cfg->batch_fn != NULL && !cfg->batch_fn(b, cfg->user))
                return gpn_fail(err, GPTNER_ERR_CANCELLED,
                                "batch %s: waiting was stopped", id);
            if (b->ended)
                return GPTNER_OK;
        } else if (gpn_poll_hopeless(status, &unknown)) {
            if (err != NULL)
                *err = why;
            return status;
        } else {
            gpn_log(&c->env, GPTNER_LOG_WARN, "batch %s: a poll failed: %s", id,
                    why.message);
        }
        left = until - gpn_clock_ms(&c->env);
        if (left > 0) {
            status = gpn_client_pause(c, left < poll ? left : poll, err);
            if (status != GPTNER_OK)
                return status;
        }
    }
}

GPTNER_API gptner_status gptner_batch_wait(gptner_client *client,
                                           const char *id,
                                           const gptner_batch_wait_config *cfg,
                                           gptner_batch **out,
                                           gptner_error *err)
{
    gptner_batch_wait_config standard = GPN_ZERO;
    gptner_status status = gpn_batch_args(client, id, out, err);
    if (status != GPTNER_OK)
        return status;
    return gpn_wait_run(client, id, cfg != NULL ? cfg : &standard, out, err);
}

/* --- results ---
 * The requests of one batch are joined with the rows that came back for them,
 * of which neither the order nor the number can be trusted.
 *
 * First the hash of each request's custom_id goes into an open table of 8-byte
 * slots, 44 bits of the hash beside 20 of the request's number. Then the rows
 * are passed over once: only the custom_id of each is looked at, and where it
 * stands is noted in 6 bytes for its request. At last the rows are read again,
 * in the order of the requests, checked and decoded where they lie. So a
 * request costs at most 10 bytes of table and 6 of place, and no row is parsed
 * twice but those of a request that has several. Hashes have a secret seed:
 * that a strange id is taken for another happens once in 2^44. Mapping the
 * files into memory would save the system calls, but a file that shrinks or a
 * disk that fails would then end the process.
 *
 * gpn_join_open(); gpn_join_add() for each file of rows, which is of a round:
 * later ones answer what earlier ones left open; gpn_join_index(); then
 * gpn_join_next() until it returns 0, and gpn_join_close() in every case. Paths
 * must outlive the join. */

enum {
    GPN_JOIN_FILES = 16,
    GPN_JOIN_REQUESTS = 1000000,
    GPN_JOIN_NUMBERED = 10000000, /* numbers of "request-<n>" */
    GPN_JOIN_ID = 256,            /* room to decode a custom_id with escapes */
    GPN_JOIN_BLOCK = 262144,      /* bytes of a file, read at once */
    GPN_JOIN_PLACE = 6            /* bytes of a place */
};

/* How good a row is as the answer to its request. */
typedef enum gpn_rank {
    GPN_RANK_NONE, /* not looked at yet */
    GPN_RANK_MALFORMED,
    GPN_RANK_ERROR,
    GPN_RANK_ANSWER, /* refused, filtered or cut short */
    GPN_RANK_OK,
    GPN_RANK_DONE /* the result was handed out already */
} gpn_rank;

/* What can be done for a request (openai-api.md 5.9). */
typedef enum gpn_fate {
    GPN_FATE_OK,
    GPN_FATE_FAILED, /* sent again, it would fail again */
    GPN_FATE_RETRY
} gpn_fate;

/* Lines of a file, one after the other. */
typedef struct gpn_feed {
    gpn_file *file;
    const char *path;
    size_t max; /* bytes of a line; of a longer one only the head is given */
    gpn_buf buf;
    size_t at;      /* of the next line, in buf */
    int64_t offset; /* of buf, in the file */
    bool ended;
    bool passing; /* over what is left of a line that is too long */
    /* of the line handed out: */
    gptner_str line; /* without LF; good until the next call */
    int64_t line_at; /* in the file */
    int64_t number;  /* from 1 */
    bool cut;
} gpn_feed;

static void gpn_feed_init(gpn_feed *l, const gpn_env *env, gpn_file *file,
                          const char *path, size_t max)
{
    memset(l, 0, sizeof *l);
    l->file = file;
    l->path = path;
    l->max = max;
    gpn_buf_init(&l->buf, env,
                 max < SIZE_MAX / 4 ? 2 * max + 2 * (size_t)GPN_JOIN_BLOCK
                                    : SIZE_MAX);
}

/* Read on, behind what is left in buf. */
static bool gpn_feed_fill(gpn_feed *l, gptner_error *err)
{
    gpn_buf *b = &l->buf;
    bool first = l->offset == 0 && b->len == 0;
    size_t room;
    int64_t got;
    int oserr = 0;
    gpn_buf_drop(b, l->at);
    l->offset += (int64_t)l->at;
    l->at = 0;
    if (b->cap - b->len < GPN_JOIN_BLOCK / 2 &&
        !gpn_buf_reserve(b, GPN_JOIN_BLOCK)) {
        gpn_no_memory(err, l->path);
        return false;
    }
    room = b->cap - b->len;
    got = gpn_file_read_at(l->file, b->data + b->len, room,
                           l->offset + (int64_t)b->len, &oserr);
    if (got < 0) {
        gpn_file_fail(err, l->path, "reading failed", oserr);
        return false;
    }
    b->len += (size_t)got;
    l->ended = (size_t)got < room;
    if (first && got >= 3 && memcmp(b->data, "\xEF\xBB\xBF", 3) == 0)
        l->at = 3;
    return true;
}

/* The next line that is not blank. 1, 0 or -1. */
static int gpn_feed_next(gpn_feed *l, gptner_error *err)
{
    size_t seen = 0; /* bytes without an LF */
    if (l->buf.data == NULL && !gpn_feed_fill(l, err))
        return -1;
    for (;;) {
        const char *from = l->buf.data + l->at;
        size_t have = l->buf.len - l->at;
        const char *lf =
            have > seen ? (const char *)memchr(from + seen, '\n', have - seen)
                        : NULL;
        if (lf != NULL || (l->ended && have > 0) || have > l->max) {
            size_t len = lf != NULL ? (size_t)(lf - from) : have;
            bool rest = l->passing;
            l->passing = lf == NULL && !l->ended;
            l->line = gpn_str(from, len);
            l->line_at = l->offset + (int64_t)l->at;
            l->cut = len > l->max;
            l->at += len + (lf != NULL);
            l->number += !rest;
            if (!rest && gpn_skip_space(l->line).len > 0)
                return 1;
            seen = 0;
            continue;
        }
        if (l->ended)
            return 0;
        seen = have;
        if (!gpn_feed_fill(l, err))
            return -1;
    }
}

/* The text behind "custom_id": in a line that is no JSON; ptr NULL: none. */
static gptner_str gpn_line_recover_id(gptner_str line, char *room)
{
    static const char key[] = "\"custom_id\"";
    gptner_json_reader r;
    gptner_str id = GPN_ZERO;
    while (id.ptr == NULL) {
        size_t at = gpn_str_find(line, key);
        if (at >= line.len)
            break;
        line = gpn_str(line.ptr + at + sizeof key - 1,
                       line.len - at - (sizeof key - 1));
        line = gpn_skip_space(line);
        if (line.len == 0 || *line.ptr != ':')
            continue;
        gptner_json_reader_init(&r, line.ptr + 1, line.len - 1, NULL);
        gptner_json_reader_scratch(&r, room, GPN_JOIN_ID);
        gptner_json_read_str(&r, &id);
    }
    return id;
}

/* The custom_id of a line, which is read no further than to it. room: of
 * GPN_JOIN_ID bytes. ptr NULL: it has none. */
static gptner_str gpn_line_id(gptner_str line, char *room)
{
    static const char usual[] = "{\"custom_id\":\"";
    gptner_json_reader r;
    gptner_str id = GPN_ZERO;
    gptner_str key;
    if (gpn_str_starts(line, usual)) { /* as we write it */
        const char *from = line.ptr + sizeof usual - 1;
        const char *end = line.ptr + line.len;
        const char *quote = gpn_json_plain(from, end);
        if (quote < end && *quote == '"')
            return gpn_str(from, (size_t)(quote - from));
    }
    gptner_json_reader_init(&r, line.ptr, line.len, NULL);
    gptner_json_reader_scratch(&r, room, GPN_JOIN_ID);
    if (gptner_json_enter_object(&r)) {
        while (gptner_json_next_key(&r, &key)) {
            if (!gpn_str_eq_c(key, "custom_id"))
                continue;
            gptner_json_read_str(&r, &id);
            return id;
        }
    }
    if (r.error.status != GPTNER_OK)
        id = gpn_line_recover_id(line, room);
    return id;
}

/* --- the join --- */

/* What a row says beside the body in it. */
typedef struct gpn_row_head {
    gptner_str custom_id;
    gptner_str request_id;
    gptner_str code;
    gptner_str message;
    int64_t status;  /* -1: none */
    bool responded;  /* response is an object */
    bool has_body;   /* which is an object */
    bool failed;     /* there is an error */
    gptner_str body; /* as it came, if that was asked for */
} gpn_row_head;

enum {
    GPN_FORM_TOKENS = 64,
    GPN_FORM_BYTES = 2048,
    GPN_FORM_MISSES = 8,  /* answers that look otherwise, before it is learnt
                             anew */
    GPN_FORM_LEARNT = 32, /* forms of a join */
    GPN_FORM_NOWHERE = 255
};

/* What most rows of a file have in common: all but the strings and numbers
 * that are values. See gpn_form_match(). */
typedef struct gpn_form {
    size_t n; /* tokens; 0: there is no form yet */
    size_t bytes;
    int learnt;
    int missed;
    struct {
        uint16_t before; /* bytes of the form up to it */
        bool number;
        uint8_t to; /* GPN_FORM_NOWHERE: its value does not matter */
    } tokens[GPN_FORM_TOKENS];
    char text[GPN_FORM_BYTES];
} gpn_form;

typedef struct gpn_join_file {
    gpn_file file;
    const char *path;
    int round;
} gpn_join_file;

typedef struct gpn_join {
    gptner_client *client;
    gpn_file file; /* of the requests, if requests is set */
    const char *requests;
    gpn_join_file files[GPN_JOIN_FILES];
    size_t n_files;
    uint64_t seed[2];
    uint64_t *slots; /* tag << 20 | index; 0: free */
    size_t n_slots;
    unsigned char *places; /* GPN_JOIN_PLACE bytes a request; all ones: none */
    size_t room;           /* of places, while there are no requests */
    size_t count;          /* of results */
    size_t numbered;       /* of them "request-<n>", without requests */
    size_t named;          /* of them others, without requests */
    int64_t duplicates;
    int64_t strangers;
    gptner_status lost; /* of requests without a row; 0: _MISSING */
    bool raw;           /* keep bodies */
    bool foreign;       /* the last one was of an endpoint without choices */
    bool formed;        /* the next row to be read was, by its form */
    /* Takes good results while rows are passed over, in their order; NULL:
     * all are handed out by gpn_join_next(). */
    gptner_status (*early_fn)(struct gpn_join *j, gptner_error *err);
    void *early_ctx;
    gpn_feed lines;
    size_t lines_read; /* requests, lines is behind */
    /* a part of a file of rows, read ahead */
    gpn_buf ahead;
    size_t ahead_file;
    int64_t ahead_at;
    bool ahead_ended;
    int64_t expected; /* where the row behind the last one is */
    /* The result handed out; all of it is good until the next call. */
    size_t next; /* its index, plus 1 */
    gptner_result view;
    gpn_fate fate;
    gpn_rank rank; /* of the row; NONE: there is none */
    gpn_fields fields;
    gpn_row_head head;
    gpn_form form;
    gpn_buf body; /* a copy, or two */
    gptner_error error;
    char id_room[GPN_JOIN_ID];
    char id_text[32]; /* of a request that is only known by its number */
    char what[80];
} gpn_join;

static void gpn_join_close(gpn_join *j)
{
    const gpn_env *env = &j->client->env;
    int oserr;
    size_t i;
    for (i = 0; i < j->n_files; i++)
        gpn_file_close(&j->files[i].file, &oserr); /* was only read */
    gpn_file_close(&j->file, &oserr);
    gpn_mem_free(env, j->slots);
    gpn_mem_free(env, j->places);
    gpn_buf_deinit(&j->lines.buf);
    gpn_buf_deinit(&j->ahead);
    gpn_buf_deinit(&j->body);
    gpn_fields_deinit(&j->fields);
}

/* requests NULL: see gptner_batch_retrieve_config. */
static gptner_status gpn_join_open(gpn_join *j, gptner_client *c,
                                   const char *requests, gptner_error *err)
{
    size_t max = c->cfg.max_body_bytes;
    int oserr = 0;
    memset(j, 0, sizeof *j);
    j->client = c;
    j->requests = requests;
    j->raw = c->cfg.keep_raw;
    j->lost = GPTNER_ERR_MISSING;
    gpn_fields_init(&j->fields, &c->env, NULL);
    gpn_feed_init(&j->lines, &c->env, NULL, NULL, max);
    gpn_buf_init(&j->ahead, &c->env, j->lines.buf.max);
    gpn_buf_init(&j->body, &c->env, j->lines.buf.max);
    if (requests != NULL &&
        !gpn_file_open_read(&j->file, &c->env, requests, &oserr))
        return gpn_file_fail(err, requests, "cannot be read", oserr);
    return GPTNER_OK;
}

/* A file of rows; those of a round that is higher come later. */
static gptner_status gpn_join_add(gpn_join *j, const char *path, int round,
                                  gptner_error *err)
{
    gpn_join_file *f = &j->files[j->n_files];
    int oserr = 0;
    if (j->n_files == GPN_JOIN_FILES)
        return gpn_fail(err, GPTNER_ERR_LIMIT, "%s: more than 16 result files",
                        path);
    if (!gpn_file_open_read(&f->file, &j->client->env, path, &oserr))
        return gpn_file_fail(err, path, "cannot be read", oserr);
    f->path = path;
    f->round = round;
    j->n_files++;
    return GPTNER_OK;
}

/* Begin to read a file from its start. */
static void gpn_join_read(gpn_join *j, gpn_file *file, const char *path)
{
    gpn_buf kept = j->lines.buf;
    gpn_feed_init(&j->lines, &j->client->env, file, path,
                  j->client->cfg.max_body_bytes);
    gpn_buf_clear(&kept);
    j->lines.buf = kept;
}

/* --- places: 4 bits of file number, 3 of rank, 6 of size, 35 of offset --- */

typedef struct gpn_place {
    size_t file; /* GPN_JOIN_FILES: there is no row */
    gpn_rank rank;
    size_t size; /* to be read at once; longer rows take more than one read */
    int64_t at;
} gpn_place;

#define GPN_PLACE_MAX ((int64_t)1 << 35) /* bytes of a file */

/* 512 bytes to 120 KiB, in steps of an eighth or less. */
static size_t gpn_place_size(unsigned code)
{
    return (size_t)(8 + (code & 7)) << (6 + (code >> 3));
}

static gpn_place gpn_place_get(const gpn_join *j, size_t index)
{
    const unsigned char *p = j->places + index * GPN_JOIN_PLACE;
    uint64_t bits = (uint64_t)p[5] << 40 | (uint64_t)p[4] << 32 |
                    (uint64_t)p[3] << 24 | (uint64_t)p[2] << 16 |
                    (uint64_t)p[1] << 8 | p[0];
    gpn_place place;
    place.file = (size_t)(bits >> 44);
    place.rank = (gpn_rank)(bits >> 41 & 7);
    place.size = gpn_place_size((unsigned)(bits >> 35 & 63));
    place.at = (int64_t)(bits & ((UINT64_C(1) << 35) - 1));
    if ((bits >> 41 & 7) == 7)
        place.file = GPN_JOIN_FILES;
    return place;
}

static void gpn_place_set(gpn_join *j, size_t index, gpn_place place)
{
    unsigned char *p = j->places + index * GPN_JOIN_PLACE;
    unsigned code = 0;
    uint64_t bits;
    int i;
    while (code < 63 && gpn_place_size(code) < place.size)
        code++;
    bits = (uint64_t)place.file << 44 | (uint64_t)place.rank << 41 |
           (uint64_t)code << 35 | (uint64_t)place.at;
    for (i = 0; i < GPN_JOIN_PLACE; i++)
        p[i] = (unsigned char)(bits >> 8 * i & 0xff);
}

/* Where the row is that was found last. */
static gpn_place gpn_place_here(const gpn_join *j, size_t file)
{
    gpn_place place;
    place.file = file;
    place.rank = GPN_RANK_NONE;
    place.size = j->lines.line.len + 1;
    place.at = j->lines.line_at;
    return place;
}

/* Room for more places, none of them taken. */
static bool gpn_places_grow(gpn_join *j, size_t room)
{
    void *more;
    if (room <= j->room)
        return true;
    more = gpn_mem_realloc(&j->client->env, j->places, room * GPN_JOIN_PLACE);
    if (more == NULL)
        return false;
    j->places = (unsigned char *)more;
    memset(j->places + j->room * GPN_JOIN_PLACE, 0xff,
           (room - j->room) * GPN_JOIN_PLACE);
    j->room = room;
    return true;
}

/* --- the table --- */

static gptner_status gpn_join_no_memory(const gpn_join *j, gptner_error *err)
{
    return gpn_no_memory(err, j->requests != NULL ? j->requests : "results");
}

/* A table of n slots, and a new seed. */
static gptner_status gpn_table_new(gpn_join *j, size_t n, gptner_error *err)
{
    const gpn_env *env = &j->client->env;
    gpn_mem_free(env, j->slots);
    j->n_slots = n;
    j->seed[0] = gpn_random_u64(env);
    j->seed[1] = gpn_random_u64(env);
    j->slots = (uint64_t *)gpn_mem_zalloc(env, n * sizeof *j->slots);
    return j->slots != NULL ? GPTNER_OK : gpn_join_no_memory(j, err);
}

/* The slot of an id, or the free one where it belongs, and its tag. */
static uint64_t *gpn_table_find(const gpn_join *j, gptner_str id, uint64_t *tag)
{
    uint64_t hash = gpn_sip(j->seed, id);
    size_t at = (size_t)((hash >> 32) * j->n_slots >> 32);
    *tag = hash & ((UINT64_C(1) << 44) - 1);
    *tag += *tag == 0;
    while (j->slots[at] != 0 && j->slots[at] >> 20 != *tag)
        at = at + 1 < j->n_slots ? at + 1 : 0;
    return &j->slots[at];
}

static size_t gpn_slot_index(uint64_t slot)
{
    return (size_t)(slot & ((1u << 20) - 1));
}

/* Put the id of each request into the table and count them. Once the table is
 * too full they are only counted. *twice: the line of an id that was there
 * before, 0: none. */
static gptner_status gpn_join_enter(gpn_join *j, int64_t *twice,
                                    gptner_error *err)
{
    size_t most = j->n_slots - j->n_slots / 16 - 1;
    int got;
    *twice = 0;
    j->count = 0;
    gpn_join_read(j, &j->file, j->requests);
    while ((got = gpn_feed_next(&j->lines, err)) > 0) {
        gptner_str id;
        uint64_t tag;
        uint64_t *slot;
        if (j->count++ >= most)
            continue;
        id = gpn_line_id(j->lines.line, j->id_room);
        if (id.ptr == NULL)
            return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                            "%s: line %lld has no custom_id", j->requests,
                            (long long)j->lines.number);
        slot = gpn_table_find(j, id, &tag);
        if (*slot != 0) {
            *twice = j->lines.number;
            return GPTNER_OK;
        }
        *slot = tag << 20 | (j->count - 1);
    }
    if (got < 0)
        return err->status;
    if (j->count > GPN_JOIN_REQUESTS)
        return gpn_fail(err, GPTNER_ERR_LIMIT,
                        "%s: more than 1,000,000 requests", j->requests);
    return GPTNER_OK;
}

/* About how many requests there are: by the length of the first ones. */
static gptner_status gpn_join_estimate(gpn_join *j, size_t *n,
                                       gptner_error *err)
{
    int64_t size = gpn_file_size(&j->file);
    int64_t seen;
    int got;
    gpn_join_read(j, &j->file, j->requests);
    do
        got = gpn_feed_next(&j->lines, err);
    while (got > 0 && (size_t)j->lines.number < 64);
    if (got < 0)
        return err->status;
    seen = j->lines.offset + (int64_t)j->lines.at;
    *n = (size_t)j->lines.number;
    if (got > 0 && size > seen)
        *n = (size_t)(size / seen + 1) * *n;
    if (*n > GPN_JOIN_REQUESTS)
        *n = GPN_JOIN_REQUESTS;
    return GPTNER_OK;
}

/* Make the table of the requests. Its size is that of an estimate if this turns
 * out to be good, so that most files are read once. It is at most 15/16 full,
 * and not less than 4/5. */
static gptner_status gpn_join_requests(gpn_join *j, gptner_error *err)
{
    size_t n = 0;
    gptner_status status = gpn_join_estimate(j, &n, err);
    int64_t twice = 0;
    int again = 0; /* two different ids may have one hash, once */
    n += n / 8 + 16;
    while (status == GPTNER_OK) {
        size_t right;
        status = gpn_table_new(j, n, err);
        if (status == GPTNER_OK)
            status = gpn_join_enter(j, &twice, err);
        if (status == GPTNER_OK && twice != 0 && again++ > 0)
            status = gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                              "%s: line %lld has the custom_id of another line",
                              j->requests, (long long)twice);
        right = j->count + j->count / 4 + 32;
        if (twice == 0 && n <= right && j->count < n - n / 16)
            break;
        if (twice == 0)
            n = right;
    }
    if (status == GPTNER_OK && !gpn_places_grow(j, j->count))
        status = gpn_join_no_memory(j, err);
    return status;
}

/* --- a row --- */

/* Find the row at a place, in memory. false: reading failed. */
static bool gpn_join_fetch(gpn_join *j, gpn_place place, gptner_str *row,
                           gptner_error *err)
{
    gpn_buf *b = &j->ahead;
    gpn_join_file *f = &j->files[place.file];
    size_t file = place.file;
    int64_t at = place.at;
    size_t most = j->client->cfg.max_body_bytes;
    size_t size = at == j->expected ? (size_t)GPN_JOIN_BLOCK : place.size;
    int oserr = 0;
    for (;;) {
        size_t have = 0;
        int64_t got;
        if (file == j->ahead_file && at >= j->ahead_at &&
            at - j->ahead_at < (int64_t)b->len) {
            char *from = b->data + (at - j->ahead_at);
            const char *lf;
            have = b->len - (size_t)(at - j->ahead_at);
            lf = (const char *)memchr(from, '\n', have);
            if (lf != NULL || j->ahead_ended || have > most) {
                *row = gpn_str(from, lf != NULL ? (size_t)(lf - from) : have);
                j->expected = at + (int64_t)row->len + 1;
                return true;
            }
        }
        while (size <= have)
            size *= 2;
        gpn_buf_clear(b);
        if (!gpn_buf_reserve(b, size)) {
            gpn_no_memory(err, f->path);
            return false;
        }
        got = gpn_file_read_at(&f->file, b->data, size, at, &oserr);
        if (got <= 0) {
            gpn_file_fail(err, f->path, "reading failed", oserr);
            return false;
        }
        b->len = (size_t)got;
        j->ahead_file = file;
        j->ahead_at = at;
        j->ahead_ended = b->len < size;
    }
}

static const gpn_member gpn_row_error_members[] = {
    {"code", GPN_KIND_TEXT, offsetof(gpn_row_head, code)},
    {"message", GPN_KIND_TEXT, offsetof(gpn_row_head, message)},
    {"", GPN_KIND_SKIP, 0}};

/* Copies before decoding changes what is copied. */
static void gpn_row_body(gpn_join *j, gptner_json_reader *r, gpn_row_head *h)
{
    gptner_json_type type = gptner_json_peek(r);
    if (j->raw) {
        gptner_json_reader start = *r;
        if (!gptner_json_read_raw(r, &h->body))
            return;
        gpn_buf_clear(&j->body);
        gpn_buf_add_str(&j->body, h->body);
        h->body = gpn_str(j->body.data, j->body.len);
        *r = start;
    }
    h->has_body = type == GPTNER_JSON_OBJECT;
    if (h->has_body)
        gpn_read_object(&j->fields, r, gpn_reply_members, &j->fields);
    else
        gptner_json_read_str(r, &j->fields.r.error_message);
    gpn_fields_sort(&j->fields);
}

static void gpn_row_response(gpn_join *j, gptner_json_reader *r,
                             gpn_row_head *h)
{
    gptner_str key;
    h->responded = gptner_json_enter_object(r);
    if (!h->responded)
        return;
    while (gptner_json_next_key(r, &key)) {
        if (gpn_str_eq_c(key, "body"))
            gpn_row_body(j, r, h);
        else if (gpn_str_eq_c(key, "status_code"))
            gpn_read_count(r, &h->status);
        else if (gpn_str_eq_c(key, "request_id"))
            gpn_read_text(r, &h->request_id);
    }
}

static void gpn_row_error(gptner_json_reader *r, gpn_row_head *h)
{
    gptner_json_type type = gptner_json_peek(r);
    h->failed = type == GPTNER_JSON_OBJECT || type == GPTNER_JSON_STRING;
    if (type == GPTNER_JSON_OBJECT)
        gpn_read_object(NULL, r, gpn_row_error_members, h);
    else
        gptner_json_read_str(r, &h->message);
}

/* Nothing is known of the row at text. */
static void gpn_row_blank(gpn_join *j, char *text)
{
    gpn_fields_deinit(&j->fields);
    gpn_fields_init(&j->fields, &j->client->env, text);
    memset(&j->head, 0, sizeof j->head);
    j->head.status = -1;
}

/* Take a row apart where it lies. false: it is no JSON object; why says what
 * it is. */
static bool gpn_row_parse(gpn_join *j, char *text, size_t len,
                          gptner_json_error *why)
{
    gpn_row_head *h = &j->head;
    gptner_json_reader r;
    gptner_str key;
    bool object;
    gpn_row_blank(j, text);
    gptner_json_reader_init_in_place(&r, text, len, NULL);
    object = gptner_json_enter_object(&r);
    while (object && gptner_json_next_key(&r, &key)) {
        if (gpn_str_eq_c(key, "custom_id") && h->custom_id.ptr == NULL)
            gptner_json_read_str(&r, &h->custom_id);
        else if (gpn_str_eq_c(key, "response"))
            gpn_row_response(j, &r, h);
        else if (gpn_str_eq_c(key, "error"))
            gpn_row_error(&r, h);
    }
    if (gptner_json_reader_finish(&r, why) == GPTNER_OK && !object)
        why->message = "no object";
    return why->status == GPTNER_OK && object;
}

/* --- forms ---
 * The rows of a batch are written by one program, and differ only in the values
 * of some members. So one good row is taken apart into literal text and,
 * between its pieces, strings and numbers. A row in which the same text is
 * found, and each string and number is a valid one, is JSON, for the first row
 * was, and means the same. That takes a third of the time that reading it
 * member by member does; a row that does not fit is read so. */

/* Where values go, from the join on. */
typedef struct gpn_form_target {
    uint16_t at;
    bool number; /* an int64_t; else a gptner_str */
} gpn_form_target;

#define GPN_FORM_CHOICE offsetof(gpn_join, fields.few)

static const gpn_form_target gpn_form_targets[] = {
    {offsetof(gpn_join, head.custom_id), false},
    {offsetof(gpn_join, head.request_id), false},
    {offsetof(gpn_join, head.status), true},
    {offsetof(gpn_join, fields.r.id), false},
    {offsetof(gpn_join, fields.r.model), false},
    {offsetof(gpn_join, fields.r.system_fingerprint), false},
    {offsetof(gpn_join, fields.r.usage.prompt_tokens), true},
    {offsetof(gpn_join, fields.r.usage.completion_tokens), true},
    {offsetof(gpn_join, fields.r.usage.total_tokens), true},
    {offsetof(gpn_join, fields.r.usage.cached_tokens), true},
    {offsetof(gpn_join, fields.r.usage.reasoning_tokens), true},
    {GPN_FORM_CHOICE + offsetof(gptner_choice, index), true},
    {GPN_FORM_CHOICE + offsetof(gptner_choice, text), false},
    {GPN_FORM_CHOICE + offsetof(gptner_choice, finish_reason), false},
    {GPN_FORM_CHOICE + offsetof(gptner_choice, refusal), false},
    {GPN_FORM_CHOICE + offsetof(gptner_choice, reasoning), false}};

enum { GPN_FORM_MARK = 7000 }; /* the value of token 0, for a moment */

/* Cut a row, which is valid, into the form, and write to marked what it would
 * be with a value for each token that tells which it is. */
static bool gpn_form_cut(gpn_form *f, gptner_str row, gpn_buf *marked)
{
    gptner_json_reader r;
    size_t from = 0; /* of the literal text not yet taken */
    size_t at = 0;
    f->n = f->bytes = 0;
    gptner_json_reader_init(&r, row.ptr, row.len, NULL);
    while (at <= row.len) {
        char c = at < row.len ? row.ptr[at] : '\0';
        bool string = c == '"';
        bool number = c == '-' || (c >= '0' && c <= '9');
        gptner_str text;
        bool escapes;
        char value[24];
        size_t end = at;
        if (string || number) {
            r.pos = row.ptr + at;
            if (string ? !gpn_json_string(&r, &text, &escapes)
                       : !gpn_json_number(&r, &text))
                return false;
            end = (size_t)(r.pos - row.ptr);
            gpn_json_space(&r);
            if (r.pos < r.end && *r.pos == ':') { /* a key */
                at = end;
                continue;
            }
        } else if (at < row.len) {
            at++;
            continue;
        }
        if (f->bytes + at - from > GPN_FORM_BYTES || f->n == GPN_FORM_TOKENS)
            return false;
        memcpy(f->text + f->bytes, row.ptr + from, at - from);
        f->bytes += at - from;
        gpn_buf_add(marked, row.ptr + from, at - from);
        if (at == row.len)
            break;
        f->tokens[f->n].before = (uint16_t)f->bytes;
        f->tokens[f->n].number = number;
        f->tokens[f->n].to = GPN_FORM_NOWHERE;
        gpn_format(value, sizeof value, number ? "%d" : "\"%d\"",
                   GPN_FORM_MARK + (int)f->n);
        gpn_buf_add_s(marked, value);
        f->n++;
        at = from = end;
    }
    return marked->status == GPTNER_OK;
}

/* Whether the marked row, which was read, is an answer of the plain kind. */
static bool gpn_form_plain(const gpn_join *j)
{
    const gpn_fields *f = &j->fields;
    const gptner_choice *c = &f->few[0];
    return j->head.responded && j->head.has_body && !j->head.failed &&
           f->answered && !f->failed && f->n_choices == 1 &&
           f->choices == f->few && c->tool_calls_json.ptr == NULL &&
           c->logprobs_json.ptr == NULL && f->r.error_message.ptr == NULL &&
           f->r.error_type.ptr == NULL && f->r.error_code.ptr == NULL &&
           f->r.error_param.ptr == NULL;
}

/* See which token arrived at which target. false: a value did that is none of
 * them. */
static bool gpn_form_trace(gpn_join *j)
{
    gpn_form *f = &j->form;
    size_t i;
    for (i = 0; i < GPN_COUNT(gpn_form_targets); i++) {
        const gpn_form_target *t = &gpn_form_targets[i];
        const void *from = gpn_at(j, t->at);
        gptner_str text = GPN_ZERO;
        uint64_t mark = 0;
        if (t->number) {
            const int64_t *n = (const int64_t *)from;
            mark = (uint64_t)*n;
            if (mark == UINT64_MAX || mark == 0) /* none */
                continue;
        } else {
            text = *(const gptner_str *)from;
            if (text.ptr == NULL)
                continue;
            if (!gpn_parse_u64(text, &mark))
                return false;
        }
        mark -= GPN_FORM_MARK;
        if (mark >= f->n || f->tokens[mark].number != t->number ||
            f->tokens[mark].to != GPN_FORM_NOWHERE)
            return false;
        f->tokens[mark].to = (uint8_t)i;
    }
    return true;
}

/* Learn a form from a good row, as it was before it was read. What had been
 * found in the join's fields is gone. */
static void gpn_form_learn(gpn_join *j, gptner_str row)
{
    gpn_form *f = &j->form;
    gpn_form old = *f;
    gptner_json_error why;
    gpn_buf marked;
    gpn_buf_init(&marked, &j->client->env, 4 * GPN_FORM_BYTES);
    if (!gpn_form_cut(f, row, &marked) ||
        !gpn_row_parse(j, marked.data, marked.len, &why) ||
        !gpn_form_plain(j) || !gpn_form_trace(j))
        *f = old;
    f->learnt = old.learnt + 1;
    f->missed = 0;
    gpn_row_blank(j, NULL); /* nothing points into marked */
    gpn_buf_deinit(&marked);
}

/* The values of a row that has the form. false: it has not, or a value is none
 * that JSON has or that is wanted. Nothing is decoded yet. */
static bool gpn_form_scan(const gpn_form *f, gptner_json_reader *r,
                          gptner_str *values, bool *escapes)
{
    uint64_t number;
    size_t at = 0;
    size_t i;
    for (i = 0; i <= f->n; i++) {
        size_t to = i < f->n ? f->tokens[i].before : f->bytes;
        if ((size_t)(r->end - r->pos) < to - at ||
            memcmp(r->pos, f->text + at, to - at) != 0)
            return false;
        r->pos += to - at;
        at = to;
        if (i == f->n)
            break;
        if (r->pos == r->end)
            return false;
        if (f->tokens[i].number) {
            if (!gpn_json_number(r, &values[i]) ||
                (f->tokens[i].to != GPN_FORM_NOWHERE &&
                 (values[i].len > 18 || !gpn_parse_u64(values[i], &number))))
                return false;
        } else if (*r->pos != '"' ||
                   !gpn_json_string(r, &values[i], &escapes[i])) {
            return false;
        }
    }
    return r->pos == r->end;
}

/* Does the row have the form? If so its values are in the join, else nothing
 * has changed. */
static bool gpn_form_match(gpn_join *j, char *text, size_t len)
{
    const gpn_form *f = &j->form;
    gptner_str values[GPN_FORM_TOKENS];
    bool escapes[GPN_FORM_TOKENS];
    gptner_json_reader r;
    uint64_t number = 0;
    size_t i;
    gptner_json_reader_init_in_place(&r, text, len, NULL);
    r.pos = text;
    if (!gpn_form_scan(f, &r, values, escapes))
        return false;
    gpn_row_blank(j, text);
    memset(&j->fields.few[0], 0, sizeof j->fields.few[0]);
    j->fields.n_choices = 1;
    j->fields.listed = j->fields.answered = true;
    j->head.responded = j->head.has_body = true;
    for (i = 0; i < f->n; i++) {
        void *to;
        if (f->tokens[i].to == GPN_FORM_NOWHERE)
            continue;
        to = gpn_at(j, gpn_form_targets[f->tokens[i].to].at);
        if (f->tokens[i].number) {
            gpn_parse_u64(values[i], &number);
            *(int64_t *)to = (int64_t)number;
        } else {
            gpn_json_settle(&r, &values[i], escapes[i]);
            *(gptner_str *)to = values[i];
        }
    }
    return true;
}

/* Read a row by its form, or member by member; then a form is learnt where it
 * is due. */
static bool gpn_row_read_any(gpn_join *j, char *text, size_t len,
                             gptner_json_error *why)
{
    gpn_form *f = &j->form;
    gptner_json_reader r;
    bool learn = !j->raw && len <= 2 * GPN_FORM_BYTES &&
                 (f->n == 0 || f->missed >= GPN_FORM_MISSES) &&
                 f->learnt < GPN_FORM_LEARNT;
    if (j->formed) {
        j->formed = false;
        return true;
    }
    if (!j->raw && f->n > 0 && gpn_form_match(j, text, len))
        return true;
    if (learn) {
        gptner_json_reader_init(&r, text, len, NULL);
        if (gptner_json_reader_finish(&r, NULL) == GPTNER_OK)
            gpn_form_learn(j, gpn_str(text, len));
        if (f->n > 0 && gpn_form_match(j, text, len))
            return true;
    }
    f->missed++;
    return gpn_row_parse(j, text, len, why);
}

/* The answer in a body of /v1/responses (openai-api.md 3.4): the texts of its
 * messages. body is changed. */
static void gpn_row_output(gpn_fields *f, gptner_json_reader *r,
                           gptner_choice *c)
{
    static const gpn_member members[] = {
        {"type", GPN_KIND_TEXT, offsetof(gptner_choice, finish_reason)},
        {"content", GPN_KIND_CONTENT, offsetof(gptner_choice, text)},
        {"", GPN_KIND_SKIP, 0}};
    if (!gptner_json_enter_array(r))
        return;
    while (gptner_json_next_item(r)) {
        gptner_choice item;
        memset(&item, 0, sizeof item);
        gpn_read_object(f, r, members, &item);
        if (gpn_str_eq_c(item.finish_reason, "message"))
            gpn_read_join(f, &c->text, item.text);
    }
}

/* A good body without choices, of another endpoint than those of the client.
 * Its text is found if it is of /v1/responses, else raw alone has it. false:
 * no endpoint answers so. */
static bool gpn_row_foreign(gpn_join *j, gpn_row_head *h)
{
    static const char *const names[] = {"output",  "status", "data",
                                        "results", "object", NULL};
    gpn_fields *f = &j->fields;
    size_t len = h->body.len;
    gptner_json_reader r;
    gptner_choice c;
    gptner_str status = GPN_ZERO;
    bool output = false;
    bool other = false;
    size_t which;
    gpn_buf_add_str(&j->body, h->body); /* reserved by the caller */
    memset(&c, 0, sizeof c);
    f->text = j->body.data + len;
    gptner_json_reader_init_in_place(&r, f->text, len, NULL);
    gptner_json_enter_object(&r);
    while (gptner_json_next_member(&r, names, &which)) {
        if (which == 0) {
            output = gptner_json_peek(&r) == GPTNER_JSON_ARRAY;
            gpn_row_output(f, &r, &c);
        } else if (which == 1) {
            gptner_json_read_str(&r, &status);
        } else {
            other |= which < 4;
        }
    }
    f->n_choices = 0;
    f->status = GPTNER_OK;
    if (output && gpn_fields_add(f) != NULL) {
        f->choices[0] = c;
        f->choices[0].finish_reason = gptner_str_from(
            gpn_str_eq_c(status, "incomplete") ? "length" : "stop");
        f->answered = true;
    }
    return output || other;
}

/* --- what a row means --- */

static gpn_fate gpn_fate_of(gpn_class cls)
{
    switch (cls) {
    case GPN_CLASS_OK:
        return GPN_FATE_OK;
    case GPN_CLASS_FAIL:
    case GPN_CLASS_FATAL:
        return GPN_FATE_FAILED;
    default:
        return GPN_FATE_RETRY;
    }
}

/* The request was not run: row.error says why. */
static gpn_fate gpn_row_judge_unrun(gpn_join *j, const gpn_row_head *h)
{
    gptner_status status = GPTNER_ERR_SERVER;
    gptner_str text = h->message;
    gpn_fate fate = GPN_FATE_RETRY;
    j->fields.r.error_code = h->code;
    j->fields.r.error_message = h->message;
    if (gpn_str_eq_c(h->code, "batch_expired")) {
        status = GPTNER_ERR_EXPIRED;
    } else if (gpn_str_eq_c(h->code, "batch_cancelled")) {
        status = GPTNER_ERR_CANCELLED;
        fate = GPN_FATE_FAILED;
    }
    if (text.len == 0)
        text = gptner_str_from(gptner_status_text(status));
    gpn_fields_mask(&j->fields, j->client);
    gpn_fail(&j->error, status, "%s: %.*s%s%.*s", j->what,
             (int)(h->code.len < 64 ? h->code.len : 64),
             h->code.len > 0 ? h->code.ptr : "", h->code.len > 0 ? ": " : "",
             (int)(text.len < 300 ? text.len : 300), text.ptr);
    return fate;
}

/* A reply that is no answer. */
static gpn_fate gpn_row_judge_failed(gpn_join *j, const gpn_row_head *h)
{
    gpn_fields *f = &j->fields;
    f->n_choices = 0;
    if (h->status == 0) {
        gpn_fail(&j->error, GPTNER_ERR_SERVER,
                 "%s: the server gave no answer (status 0)", j->what);
        return GPN_FATE_RETRY;
    }
    gpn_fields_mask(f, j->client);
    if (h->body.len > 0)
        gpn_secret_mask(j->client, j->body.data, h->body.len);
    return gpn_fate_of(gpn_judge_http(h->status < 0 ? 200 : (int)h->status,
                                      gpn_str(NULL, 0), f, j->what, &j->error));
}

static gpn_fate gpn_row_judge(gpn_join *j, gpn_row_head *h)
{
    gpn_fields *f = &j->fields;
    bool good = h->status < 0 || h->status / 100 == 2;
    gpn_class cls;
    j->rank = GPN_RANK_ERROR;
    j->foreign = false;
    if (h->failed && !(h->responded && (!good || f->answered)))
        return gpn_row_judge_unrun(j, h);
    if (!h->responded) {
        j->rank = GPN_RANK_MALFORMED;
        gpn_fail(&j->error, GPTNER_ERR_BAD_REPLY,
                 "%s: a row without response and error", j->what);
        return GPN_FATE_RETRY;
    }
    if (!good || f->failed)
        return gpn_row_judge_failed(j, h);
    if (!f->answered && h->body.len > 0)
        j->foreign = gpn_row_foreign(j, h);
    if (j->foreign && !f->answered) {
        j->rank = GPN_RANK_OK;
        return GPN_FATE_OK;
    }
    cls = gpn_judge_choices(j->client, f, j->what, &j->error);
    if (cls == GPN_CLASS_OK)
        j->rank = GPN_RANK_OK;
    else if (f->answered && cls == GPN_CLASS_FAIL)
        j->rank = GPN_RANK_ANSWER;
    return gpn_fate_of(cls);
}

static void gpn_row_malformed(gpn_join *j, gpn_place place, bool cut,
                              const char *why)
{
    j->rank = GPN_RANK_MALFORMED;
    j->fate = GPN_FATE_RETRY;
    gpn_fields_deinit(&j->fields);
    gpn_fields_init(&j->fields, &j->client->env, NULL);
    j->view = j->fields.r;
    gpn_fail(&j->error, cut ? GPTNER_ERR_LIMIT : GPTNER_ERR_BAD_REPLY,
             "malformed line at byte %lld of %s: %s", (long long)place.at,
             j->files[place.file].path, why);
}

static void gpn_join_name(gpn_join *j, gptner_str id)
{
    size_t len = id.len < sizeof j->what ? id.len : sizeof j->what - 1;
    if (len > 0)
        memcpy(j->what, id.ptr, len);
    j->what[len] = '\0';
}

/* Judge a row, which lies at text: rank, fate, fields, error and a part of view
 * are set. *again: it has to be read once more, with its body kept. Not OK: the
 * whole join fails. */
static gptner_status gpn_join_take(gpn_join *j, gpn_place place, char *text,
                                   size_t len, bool *again, gptner_error *err)
{
    gptner_result *view = &j->view;
    gpn_row_head *head = &j->head;
    bool cut = len > j->client->cfg.max_body_bytes;
    gptner_json_error why;
    memset(&j->error, 0, sizeof j->error);
    why.message = "longer than max_body_bytes";
    if (cut || !gpn_row_read_any(j, text, len, &why)) {
        gpn_row_malformed(j, place, cut, why.message);
        return GPTNER_OK;
    }
    if (!j->raw && head->has_body && !j->fields.answered &&
        head->status / 100 == 2 && !j->fields.failed) {
        j->raw = true; /* the rows of an endpoint whose bodies are kept */
        *again = true;
        return GPTNER_OK;
    }
    if (head->body.len > 0 && gpn_buf_reserve(&j->body, head->body.len))
        head->body.ptr = j->body.data;
    if (j->body.status == GPTNER_ERR_NO_MEMORY ||
        j->fields.status == GPTNER_ERR_NO_MEMORY)
        return gpn_join_no_memory(j, err);
    gpn_join_name(j, head->custom_id);
    j->fate = gpn_row_judge(j, head);
    *view = j->fields.r;
    view->custom_id = head->custom_id;
    view->request_id = head->request_id;
    j->raw = j->client->cfg.keep_raw || j->foreign;
    if (j->raw)
        view->raw = head->body;
    view->http_status = head->status > 0 ? (int)head->status : 0;
    view->attempts = head->responded && head->status != 0;
    return GPTNER_OK;
}

/* The same with the row at a place, which is read. */
static gptner_status gpn_join_load(gpn_join *j, gpn_place place,
                                   gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    bool again = true;
    while (again && status == GPTNER_OK) {
        gptner_str row;
        again = false;
        if (!gpn_join_fetch(j, place, &row, err))
            return err->status;
        status =
            gpn_join_take(j, place, j->ahead.data + (row.ptr - j->ahead.data),
                          row.len, &again, err);
        if (again)
            j->ahead.len = 0;
    }
    return status;
}

/* Complete the view of a result. */
static void gpn_join_view(gpn_join *j, size_t index)
{
    gptner_result *view = &j->view;
    view->index = index;
    view->choices = j->fields.choices;
    view->n_choices = j->fields.n_choices;
    if (view->n_choices > 0) {
        view->text = j->fields.choices[0].text;
        view->finish_reason = j->fields.choices[0].finish_reason;
    }
    if (j->fate != GPN_FATE_OK)
        gpn_result_fail(view, &j->error);
}

/* --- from rows to places --- */

/* A second row for a request: keep the better one, or the later. */
static gptner_status gpn_join_choose(gpn_join *j, size_t file, size_t index,
                                     gptner_error *err)
{
    gpn_place old = gpn_place_get(j, index);
    gpn_place place = gpn_place_here(j, file);
    gptner_status status;
    int older = j->files[old.file].round;
    int round = j->files[file].round;
    j->formed = false; /* it is read from its file */
    if (old.rank == GPN_RANK_DONE) {
        j->duplicates += round == older;
        return GPTNER_OK;
    }
    if (old.rank == GPN_RANK_NONE) {
        j->ahead.len = 0; /* what was decoded there is no JSON any more */
        status = gpn_join_load(j, old, err);
        if (status != GPTNER_OK)
            return status;
        old.rank = j->rank;
        gpn_place_set(j, index, old);
    }
    j->ahead.len = 0;
    status = gpn_join_load(j, place, err);
    if (status != GPTNER_OK)
        return status;
    j->duplicates += round == older;
    if (j->rank > old.rank || (j->rank == old.rank && round > older)) {
        place.rank = j->rank;
        gpn_place_set(j, index, place);
    }
    return GPTNER_OK;
}

static gptner_status gpn_join_place(gpn_join *j, size_t file, size_t index,
                                    gptner_error *err)
{
    gpn_place place = gpn_place_get(j, index);
    gptner_status status = GPTNER_OK;
    char *text = j->lines.buf.data;
    bool again = false;
    if (place.file < GPN_JOIN_FILES)
        return gpn_join_choose(j, file, index, err);
    place = gpn_place_here(j, file);
    if (j->early_fn != NULL) {
        status = gpn_join_take(j, place, text + (j->lines.line.ptr - text),
                               j->lines.line.len, &again, err);
        if (!again && status == GPTNER_OK)
            place.rank = j->rank;
        if (place.rank == GPN_RANK_OK) {
            place.rank = GPN_RANK_DONE;
            place.size = 0; /* it is not read again */
            gpn_join_view(j, index);
            status = j->early_fn(j, err);
        }
    }
    gpn_place_set(j, index, place);
    return status;
}

static void gpn_join_stranger(gpn_join *j, gptner_str id)
{
    j->strangers++;
    gpn_log(&j->client->env, GPTNER_LOG_WARN,
            "%s: line %lld: no request has the custom_id \"%.*s\"",
            j->lines.path, (long long)j->lines.number,
            (int)(id.len < 64 ? id.len : 64), id.len > 0 ? id.ptr : "");
}

/* n of "request-<n>", written as we write it. */
static bool gpn_id_number(gptner_str id, size_t *n)
{
    uint64_t number;
    if (!gpn_str_starts(id, "request-"))
        return false;
    id = gpn_str(id.ptr + 8, id.len - 8);
    if (!gpn_parse_u64(id, &number) || number > GPN_JOIN_NUMBERED ||
        (*id.ptr == '0' && id.len > 1))
        return false;
    *n = (size_t)number;
    return true;
}

/* A row where the requests are known. */
static gptner_status gpn_join_row(gpn_join *j, size_t file, gptner_error *err)
{
    char *data = j->lines.buf.data;
    gptner_str line = j->lines.line;
    gptner_str id;
    uint64_t tag;
    const uint64_t *slot;
    j->formed = j->early_fn != NULL && !j->raw && !j->lines.cut &&
                j->form.n > 0 &&
                gpn_form_match(j, data + (line.ptr - data), line.len);
    id = j->formed ? j->head.custom_id : gpn_line_id(line, j->id_room);
    slot = id.ptr != NULL ? gpn_table_find(j, id, &tag) : NULL;
    if (slot != NULL && *slot != 0)
        return gpn_join_place(j, file, gpn_slot_index(*slot), err);
    j->formed = false;
    gpn_join_stranger(j, id);
    return GPTNER_OK;
}

/* A row where they are not, first time: those with a number get their places,
 * the others are counted. */
static gptner_status gpn_join_row_numbered(gpn_join *j, size_t file,
                                           gptner_error *err)
{
    gptner_str id = gpn_line_id(j->lines.line, j->id_room);
    size_t n;
    if (id.ptr == NULL) {
        gpn_join_stranger(j, id);
        return GPTNER_OK;
    }
    if (!gpn_id_number(id, &n)) {
        j->named++;
        return GPTNER_OK;
    }
    if (n >= j->room && !gpn_places_grow(j, n + 1 > j->room + j->room / 2
                                                ? n + 1
                                                : j->room + j->room / 2))
        return gpn_join_no_memory(j, err);
    if (n >= j->count)
        j->count = n + 1;
    return gpn_join_place(j, file, n, err);
}

/* Second time: the others, behind, as they come. */
static gptner_status gpn_join_row_named(gpn_join *j, size_t file,
                                        gptner_error *err)
{
    gptner_str id = gpn_line_id(j->lines.line, j->id_room);
    uint64_t *slot;
    uint64_t tag;
    size_t n;
    if (id.ptr == NULL || gpn_id_number(id, &n))
        return GPTNER_OK;
    slot = gpn_table_find(j, id, &tag);
    if (*slot == 0)
        *slot = tag << 20 | (j->count++ - j->numbered);
    return gpn_join_place(j, file, j->numbered + gpn_slot_index(*slot), err);
}

/* Show all rows of all files to row_fn. */
static gptner_status gpn_join_scan(gpn_join *j,
                                   gptner_status (*row_fn)(gpn_join *, size_t,
                                                           gptner_error *),
                                   gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    size_t i;
    for (i = 0; i < j->n_files && status == GPTNER_OK; i++) {
        int got = 1;
        gpn_join_read(j, &j->files[i].file, j->files[i].path);
        while (status == GPTNER_OK) {
            got = gpn_feed_next(&j->lines, err);
            if (got <= 0)
                break;
            if (j->lines.line_at >= GPN_PLACE_MAX)
                return gpn_fail(err, GPTNER_ERR_LIMIT, "%s: too large",
                                j->lines.path);
            status = row_fn(j, i, err);
        }
        if (got < 0)
            return err->status;
    }
    return status;
}

static gptner_status gpn_join_index_alone(gpn_join *j, gptner_error *err)
{
    gptner_status status = gpn_join_scan(j, gpn_join_row_numbered, err);
    if (status != GPTNER_OK)
        return status;
    j->numbered = j->count;
    if (j->named == 0)
        return GPTNER_OK;
    if (j->named > GPN_JOIN_REQUESTS)
        return gpn_fail(err, GPTNER_ERR_LIMIT,
                        "results: more than 1,000,000 requests");
    status = gpn_table_new(j, j->named + j->named / 4 + 1, err);
    if (status != GPTNER_OK)
        return status;
    if (!gpn_places_grow(j, j->numbered + j->named))
        return gpn_join_no_memory(j, err);
    return gpn_join_scan(j, gpn_join_row_named, err);
}

/* Find the row of every request. Afterwards count is the number of results,
 * and duplicates and strangers are known. err is not NULL. */
static gptner_status gpn_join_index(gpn_join *j, gptner_error *err)
{
    gptner_status status;
    if (j->requests == NULL) {
        status = gpn_join_index_alone(j, err);
    } else {
        status = j->slots != NULL ? GPTNER_OK : gpn_join_requests(j, err);
        if (status == GPTNER_OK)
            status = gpn_join_scan(j, gpn_join_row, err);
    }
    gpn_mem_free(&j->client->env, j->slots);
    j->slots = NULL;
    j->ahead.len = 0;
    j->expected = 0;
    gpn_join_read(j, &j->file, j->requests); /* for gpn_join_request() */
    return status;
}

/* --- results, in order --- */

/* The line of the request whose result was handed out last. It is read from
 * the file of requests only when it is asked for. */
static gptner_status gpn_join_request(gpn_join *j, gptner_str *line,
                                      gptner_error *err)
{
    while (j->lines_read < j->next) {
        int got = gpn_feed_next(&j->lines, err);
        if (got < 0)
            return err->status;
        if (got == 0)
            return gpn_fail(err, GPTNER_ERR_FILE, "%s: has become shorter",
                            j->requests);
        j->lines_read++;
    }
    *line = j->lines.line;
    return GPTNER_OK;
}

/* The custom_id of the request, where its row does not tell it. */
static gptner_status gpn_join_id(gpn_join *j, gptner_error *err)
{
    gptner_str line;
    gptner_status status;
    if (j->requests != NULL) {
        status = gpn_join_request(j, &line, err);
        if (status == GPTNER_OK)
            j->view.custom_id = gpn_line_id(line, j->id_room);
        return status;
    }
    gpn_format(j->id_text, sizeof j->id_text, "request-%llu",
               (unsigned long long)(j->next - 1));
    j->view.custom_id =
        gptner_str_from(j->next <= j->numbered ? j->id_text : NULL);
    return GPTNER_OK;
}

static void gpn_join_missing(gpn_join *j)
{
    gpn_fields_deinit(&j->fields);
    gpn_fields_init(&j->fields, &j->client->env, NULL);
    j->view = j->fields.r;
    j->rank = GPN_RANK_NONE;
    j->fate =
        j->lost == GPTNER_ERR_CANCELLED ? GPN_FATE_FAILED : GPN_FATE_RETRY;
}

static gptner_status gpn_join_step(gpn_join *j, gptner_error *err)
{
    gpn_place place = gpn_place_get(j, j->next);
    gptner_status status = GPTNER_OK;
    if (place.file < GPN_JOIN_FILES)
        status = gpn_join_load(j, place, err);
    else
        gpn_join_missing(j);
    j->next++;
    if (status == GPTNER_OK && j->view.custom_id.ptr == NULL)
        status = gpn_join_id(j, err);
    if (place.file == GPN_JOIN_FILES) {
        gpn_join_name(j, j->view.custom_id);
        gpn_fail(&j->error, j->lost, "%s: %s", j->what,
                 j->lost == GPTNER_ERR_MISSING
                     ? "the batch has no result for it"
                     : gptner_status_text(j->lost));
    }
    return status;
}

/* The result of the next request: j->view, with fate and rank beside it, good
 * until the next call. 1, 0: there are no more, -1: failed. */
static int gpn_join_next(gpn_join *j, gptner_error *err)
{
    while (j->early_fn != NULL && j->next < j->count &&
           gpn_place_get(j, j->next).rank == GPN_RANK_DONE)
        j->next++;
    if (j->next == j->count)
        return 0;
    if (gpn_join_step(j, err) != GPTNER_OK)
        return -1;
    gpn_join_view(j, j->next - 1);
    return 1;
}

/* --- where results go --- */

typedef struct gpn_tray {
    gptner_client *client;
    const gptner_batch_retrieve_config *cfg;
    gptner_batch_summary sum;
    gpn_out out;
    gptner_result **results;
    size_t total; /* results to come */
    int64_t started_ms;
    int64_t shown_ms; /* the last progress */
} gpn_tray;

static gptner_status gpn_tray_open(gpn_tray *s, gptner_client *c,
                                   const gptner_batch_retrieve_config *cfg,
                                   size_t total, gptner_error *err)
{
    memset(s, 0, sizeof *s);
    s->client = c;
    s->cfg = cfg;
    s->total = total;
    s->started_ms = s->shown_ms = gpn_clock_ms(&c->env);
    if (cfg->results != NULL) {
        s->results = (gptner_result **)gpn_owned_new(
            &c->env, (total + 1) * sizeof *s->results);
        if (s->results == NULL)
            return gpn_no_memory(err, "results");
    }
    if (cfg->output_path == NULL)
        return GPTNER_OK;
    return gpn_out_open(&s->out, &c->env, cfg->output_path, err);
}

static void gpn_tray_progress(gpn_tray *s, bool finished)
{
    const gptner_batch_summary *sum = &s->sum;
    int64_t now;
    gptner_progress p;
    if (s->cfg->progress_fn == NULL || (sum->total % 256 != 0 && !finished))
        return;
    now = gpn_clock_ms(&s->client->env);
    if (now - s->shown_ms < 100 && !finished)
        return;
    s->shown_ms = now;
    memset(&p, 0, sizeof p);
    p.total = (int64_t)s->total;
    p.done = sum->total;
    p.ok = sum->ok;
    p.failed = sum->failed;
    p.prompt_tokens = sum->prompt_tokens;
    p.completion_tokens = sum->completion_tokens;
    p.elapsed_ms = now - s->started_ms;
    p.eta_ms = -1;
    if (p.elapsed_ms > 0 && p.done > 0) {
        p.per_second = (double)p.done * 1000.0 / (double)p.elapsed_ms;
        p.eta_ms = p.elapsed_ms * (p.total - p.done) / p.done;
    }
    p.finished = finished;
    s->cfg->progress_fn(&p, s->cfg->progress_user);
}

static void gpn_tray_count(gptner_batch_summary *sum, const gptner_result *r,
                           bool malformed)
{
    sum->total++;
    sum->ok += r->status == GPTNER_OK;
    sum->failed += r->status != GPTNER_OK;
    sum->expired += r->status == GPTNER_ERR_EXPIRED;
    sum->cancelled += r->status == GPTNER_ERR_CANCELLED;
    sum->missing += r->status == GPTNER_ERR_MISSING;
    sum->malformed += malformed;
    if (r->usage.prompt_tokens > 0)
        sum->prompt_tokens += r->usage.prompt_tokens;
    if (r->usage.completion_tokens > 0)
        sum->completion_tokens += r->usage.completion_tokens;
}

/* Hand a result to all places. Not OK: no more of them. */
static gptner_status gpn_tray_put(gpn_tray *s, const gptner_result *r,
                                  bool malformed, gptner_error *err)
{
    const gptner_batch_retrieve_config *cfg = s->cfg;
    gpn_tray_count(&s->sum, r, malformed);
    if (s->results != NULL) {
        s->results[r->index] = gpn_result_copy(&s->client->env, r);
        if (s->results[r->index] == NULL)
            return gpn_no_memory(err, "results");
    }
    if (s->out.open) {
        gpn_out_result(&s->out, r);
        if (s->out.oserr != 0)
            return gpn_file_fail(err, cfg->output_path, "writing failed",
                                 s->out.oserr);
    }
    if (cfg->result_fn != NULL && !cfg->result_fn(r, cfg->result_user))
        return gpn_fail(err, GPTNER_ERR_CANCELLED,
                        "results: stopped by the callback");
    if (gpn_atomic_get(&s->client->pool->cancelled) != 0)
        return gpn_fail(err, GPTNER_ERR_CANCELLED, "cancelled");
    gpn_tray_progress(s, false);
    return GPTNER_OK;
}

/* The file takes its place and the results are given away, or nothing is left
 * of both. Returns status, or why that could not be done. */
static gptner_status gpn_tray_close(gpn_tray *s, gptner_status status,
                                    gptner_error *err)
{
    if (s->client == NULL)
        return status;
    if (!gpn_out_close(&s->out, status == GPTNER_OK) && status == GPTNER_OK)
        status = gpn_file_fail(err, s->cfg->output_path, "writing failed",
                               s->out.oserr);
    gpn_tray_progress(s, true);
    if (status == GPTNER_OK && s->cfg->results != NULL) {
        *s->cfg->results = s->results;
        if (s->cfg->n_results != NULL)
            *s->cfg->n_results = s->total;
        s->results = NULL;
    }
    gptner_results_free(s->results, s->total);
    s->results = NULL;
    return status;
}

/* --- one batch --- */

static gptner_status gpn_tray_early(gpn_join *j, gptner_error *err)
{
    return gpn_tray_put((gpn_tray *)j->early_ctx, &j->view, false, err);
}

/* Hand out all results of a join that is open and knows its files. Where their
 * order does not matter, or they are put in order by being gathered, the good
 * ones go out while the rows are passed over; for that the number of requests
 * has to be known. */
static gptner_status gpn_join_run(gpn_join *j,
                                  const gptner_batch_retrieve_config *cfg,
                                  gptner_batch_summary *summary,
                                  gptner_error *err)
{
    gpn_tray tray = GPN_ZERO;
    bool gathered = cfg->result_fn == NULL && cfg->output_path == NULL;
    gptner_status status = GPTNER_OK;
    if (j->requests != NULL && (cfg->as_completed || gathered)) {
        status = gpn_join_requests(j, err);
        if (status == GPTNER_OK)
            status = gpn_tray_open(&tray, j->client, cfg, j->count, err);
        j->early_fn = gpn_tray_early;
        j->early_ctx = &tray;
    }
    if (status == GPTNER_OK)
        status = gpn_join_index(j, err);
    if (status == GPTNER_OK && j->early_fn == NULL)
        status = gpn_tray_open(&tray, j->client, cfg, j->count, err);
    while (status == GPTNER_OK) {
        int got = gpn_join_next(j, err);
        if (got == 0)
            break;
        status = got < 0 ? err->status
                         : gpn_tray_put(&tray, &j->view,
                                        j->rank == GPN_RANK_MALFORMED, err);
    }
    tray.sum.duplicates = j->duplicates;
    tray.sum.strangers = j->strangers;
    status = gpn_tray_close(&tray, status, err);
    if (summary != NULL)
        *summary = tray.sum;
    return status;
}

/* Before anything else. own takes the place of err if that is NULL. */
static gptner_status gpn_retrieve_begin(const gptner_client *client,
                                        const gptner_batch_retrieve_config *cfg,
                                        gptner_batch_summary *summary,
                                        gptner_error *err)
{
    memset(err, 0, sizeof *err);
    if (summary != NULL)
        memset(summary, 0, sizeof *summary);
    if (cfg != NULL && cfg->results != NULL)
        *cfg->results = NULL;
    if (cfg != NULL && cfg->n_results != NULL)
        *cfg->n_results = 0;
    if (client == NULL || cfg == NULL)
        return gpn_refuse(err, "results: client or configuration is NULL");
    if (cfg->as_completed && cfg->output_path != NULL &&
        !gpn_path_is_jsonl(cfg->output_path))
        return gpn_refuse(err,
                          "results: as_completed needs an output_path that "
                          "ends in .jsonl, for lines of text have no "
                          "index");
    return GPTNER_OK;
}

static gptner_status gpn_results_read(gptner_client *client,
                                      const char *const *paths, size_t n_paths,
                                      gptner_status lost,
                                      const gptner_batch_retrieve_config *cfg,
                                      gptner_batch_summary *summary,
                                      gptner_error *err)
{
    gpn_join j;
    gptner_status status = gpn_join_open(&j, client, cfg->requests_path, err);
    size_t i;
    for (i = 0; i < n_paths && status == GPTNER_OK; i++)
        if (paths[i] != NULL)
            status = gpn_join_add(&j, paths[i], 0, err);
    j.lost = lost;
    if (status == GPTNER_OK)
        status = gpn_join_run(&j, cfg, summary, err);
    gpn_join_close(&j);
    return status;
}

GPTNER_API gptner_status gptner_batch_read(
    gptner_client *client, const char *output_path, const char *error_path,
    const gptner_batch_retrieve_config *cfg, gptner_batch_summary *summary,
    gptner_error *err)
{
    const char *paths[2];
    gptner_error own;
    gptner_status status;
    if (err == NULL)
        err = &own;
    status = gpn_retrieve_begin(client, cfg, summary, err);
    if (status != GPTNER_OK)
        return status;
    paths[0] = output_path;
    paths[1] = error_path;
    return gpn_results_read(client, paths, 2, GPTNER_ERR_MISSING, cfg, summary,
                            err);
}

/* --- files fetched from the server --- */

enum { GPN_FETCH_PATH = 1024, GPN_FETCH_TRIES = 9 };

/* One file of a batch. */
typedef struct gpn_fetched {
    char path[GPN_FETCH_PATH];
    bool ours; /* to be removed */
    bool there;
} gpn_fetched;

/* A file of this name with nothing in it. */
static gptner_status gpn_fetch_none(gptner_client *c, const char *path,
                                    gptner_error *err)
{
    gpn_whole whole;
    int oserr = 0;
    if (!gpn_whole_begin(&whole, &c->env, path, &oserr) ||
        !gpn_whole_commit(&whole, &oserr))
        return gpn_file_fail(err, path, "writing failed", oserr);
    return GPTNER_OK;
}

/* Save the content of a remote file at path. One that was just made may be
 * denied for a while: that is waited out, unless late is false. */
static gptner_status gpn_fetch_file(gptner_client *c, gptner_str id,
                                    const char *path, bool late,
                                    gptner_error *err)
{
    gptner_raw_request raw = GPN_ZERO;
    gptner_status status;
    gpn_buf target;
    gpn_id name;
    int tries;
    if (!gpn_id_set(&name, id))
        return gpn_fail(err, GPTNER_ERR_BAD_REPLY,
                        "batch: a file id that is none");
    gpn_buf_init(&target, &c->env, GPN_URL_MAX);
    status = gpn_path_make(&target, "/files/", name.text, "/content", err);
    raw.path = target.data;
    raw.save_path = path;
    raw.max_redirects = 5;
    for (tries = 1; status == GPTNER_OK; tries++) {
        status = gptner_raw(c, &raw, NULL, err);
        if (!late || tries == GPN_FETCH_TRIES ||
            (err->http_status != 404 && err->http_status != 403) ||
            status == GPTNER_OK)
            break;
        gpn_log(&c->env, GPTNER_LOG_INFO, "%s: not there yet; asking again",
                name.text);
        status = gpn_client_pause(c, tries < 5 ? 1000 * tries : 5000, err);
    }
    gpn_buf_deinit(&target);
    return status;
}

/* Where files are kept meanwhile. */
static const char *gpn_fetch_prefix(const gptner_batch_retrieve_config *cfg)
{
    if (cfg->temp_prefix != NULL)
        return cfg->temp_prefix;
    if (cfg->output_path != NULL && strcmp(cfg->output_path, "-") != 0)
        return cfg->output_path;
    return cfg->requests_path != NULL ? cfg->requests_path : "";
}

/* Give a file its name: keep, if it is to be kept, else a random one. */
static gptner_status gpn_fetched_name(gptner_client *c, gpn_fetched *f,
                                      const char *keep, const char *prefix,
                                      const char *end, gptner_error *err)
{
    size_t len;
    uint64_t chance = gpn_random_u64(&c->env);
    memset(f, 0, sizeof *f);
    if (keep != NULL)
        len = gpn_format(f->path, sizeof f->path, "%s", keep);
    else
        len = gpn_format(f->path, sizeof f->path, "%s.gptner-%08x%08x%s",
                         prefix, (unsigned)(chance >> 32),
                         (unsigned)(chance & 0xffffffffu), end);
    if (len >= sizeof f->path - 4) /* it may have been cut */
        return gpn_fail(err, GPTNER_ERR_INVALID_ARGUMENT,
                        "results: a path is longer than 1000 bytes");
    f->ours = keep == NULL;
    return GPTNER_OK;
}

/* Output, errors and, if need be, requests. */
typedef struct gpn_fetch {
    gptner_client *client;
    const gptner_batch *batch;
    gpn_fetched files[3];
} gpn_fetch;

static gptner_status gpn_fetch_rows(gpn_fetch *t, size_t i, gptner_str id,
                                    gptner_error *err)
{
    gpn_fetched *f = &t->files[i];
    gptner_status status = GPTNER_OK;
    if (id.len > 0) {
        status = gpn_fetch_file(t->client, id, f->path, true, err);
        f->there = status == GPTNER_OK;
    } else if (!f->ours) {
        status = gpn_fetch_none(t->client, f->path, err);
    }
    return status;
}

/* The requests, if the server still has them: if not, one does without. */
static gptner_status gpn_fetch_requests(gpn_fetch *t, gptner_error *err)
{
    gpn_fetched *f = &t->files[2];
    gptner_status status;
    if (t->batch->input_file_id.len == 0)
        return GPTNER_OK;
    status =
        gpn_fetch_file(t->client, t->batch->input_file_id, f->path, false, err);
    f->there = status == GPTNER_OK;
    if (status != GPTNER_OK && err->http_status / 100 == 4 &&
        status != GPTNER_ERR_AUTH && !gpn_status_passes(status)) {
        gpn_log(&t->client->env, GPTNER_LOG_WARN,
                "the file of requests is gone; their order is taken from the "
                "results");
        status = GPTNER_OK;
    }
    return status;
}

static gptner_status gpn_fetch_all(gpn_fetch *t,
                                   const gptner_batch_retrieve_config *cfg,
                                   gptner_error *err)
{
    const char *prefix = gpn_fetch_prefix(cfg);
    gptner_client *c = t->client;
    gptner_status status;
    status = gpn_fetched_name(c, &t->files[0], cfg->raw_output_path, prefix,
                              ".out", err);
    if (status == GPTNER_OK)
        status = gpn_fetched_name(c, &t->files[1], cfg->raw_error_path, prefix,
                                  ".err", err);
    if (status == GPTNER_OK)
        status = gpn_fetched_name(c, &t->files[2], NULL, prefix, ".in", err);
    if (status == GPTNER_OK)
        status = gpn_fetch_rows(t, 0, t->batch->output_file_id, err);
    if (status == GPTNER_OK)
        status = gpn_fetch_rows(t, 1, t->batch->error_file_id, err);
    if (status == GPTNER_OK && cfg->requests_path == NULL)
        status = gpn_fetch_requests(t, err);
    return status;
}

/* Has the batch results? */
static gptner_status gpn_batch_has_results(const gptner_batch *batch,
                                           gptner_error *err)
{
    const gptner_batch_issue *issue = batch->errors;
    if (!batch->ended)
        return gpn_fail(err, GPTNER_ERR_NOT_FINISHED,
                        "batch %.*s has not ended: it is %.*s",
                        (int)batch->id.len, batch->id.ptr,
                        (int)batch->status.len, batch->status.ptr);
    if (batch->state != GPTNER_BATCH_FAILED)
        return GPTNER_OK;
    if (batch->n_errors == 0)
        return gpn_fail(err, GPTNER_ERR_BATCH_FAILED, "batch %.*s failed",
                        (int)batch->id.len, batch->id.ptr);
    return gpn_fail(err, GPTNER_ERR_BATCH_FAILED,
                    "batch %.*s failed: line %lld: %.*s: %.*s",
                    (int)batch->id.len, batch->id.ptr, (long long)issue->line,
                    (int)issue->code.len, issue->code.ptr,
                    (int)issue->message.len, issue->message.ptr);
}

/* Fetch the results of a batch and hand them out; the arguments are sound. */
static gptner_status gpn_retrieve_files(gptner_client *client,
                                        const gptner_batch *batch,
                                        const gptner_batch_retrieve_config *cfg,
                                        gptner_batch_summary *summary,
                                        gptner_error *err)
{
    gptner_batch_retrieve_config own = *cfg;
    const char *paths[2] = {NULL, NULL};
    gptner_status status = gpn_batch_has_results(batch, err);
    gpn_fetch t;
    size_t i;
    if (status != GPTNER_OK)
        return status;
    memset(&t, 0, sizeof t);
    t.client = client;
    t.batch = batch;
    status = gpn_fetch_all(&t, cfg, err);
    for (i = 0; i < 2; i++)
        if (t.files[i].there)
            paths[i] = t.files[i].path;
    if (t.files[2].there)
        own.requests_path = t.files[2].path;
    if (status == GPTNER_OK)
        status = gpn_results_read(
            client, paths, 2, gpn_batch_lost(batch->state), &own, summary, err);
    for (i = 0; i < 3; i++)
        if (t.files[i].ours && t.files[i].there)
            gpn_file_remove(t.files[i].path);
    return status;
}

GPTNER_API gptner_status
gptner_batch_retrieve(gptner_client *client, const char *id,
                      const gptner_batch_retrieve_config *cfg,
                      gptner_batch_summary *summary, gptner_error *err)
{
    gptner_batch *batch = NULL;
    gptner_error own;
    gptner_status status;
    if (err == NULL)
        err = &own;
    status = gpn_retrieve_begin(client, cfg, summary, err);
    if (status == GPTNER_OK)
        status = gptner_batch_status(client, id, &batch, err);
    if (status == GPTNER_OK)
        status = gpn_retrieve_files(client, batch, cfg, summary, err);
    if (status == GPTNER_OK) /* what was waited out is no error any more */
        memset(err, 0, sizeof *err);
    gptner_batch_free(batch);
    return status;
}

/* --- the durable job ---
 *
 * Beside the output stand, while the job lives:
 *     OUT.job          the journal
 *     OUT.job.lock     held by the process that works on it
 *     OUT.job-bad      prompts that make no request
 *     OUT.job-K.jsonl  the K-th batch file (a shard), and for its follow-ups
 *     OUT.job-K-R.jsonl; what was fetched for them is .out and .err
 *     OUT.job-K.now    rows of what was finished in parallel
 *
 * All but the journal and .now appear whole, synced before they get their name.
 * A record of the journal is a line: 16 hex digits, a space, a JSON object. The
 * digits are of the SHA-256 over those of the record before and the object, so
 * that a torn or foreign line is known. A record is written and synced before
 * the step that it announces, or after the one that it reports; a last line
 * that is not whole was never acted upon, and is dropped. At every start the
 * journal is written anew, for what is read after a failed sync need not be on
 * the disk.
 *
 * Every shard goes its own way: upload, create, run, fetch, and perhaps again
 * with a follow-up of what failed. An intent without its outcome means that the
 * step may have been done: it is looked for at the server first. */

typedef struct gpn_journal {
    const gpn_env *env;
    const char *path;
    gpn_file file;
    gpn_buf line;
    gptner_json_writer w;
    char sum[17];
    bool broken; /* a write or sync failed: nothing is added any more */
} gpn_journal;

/* One record, as read; what it does not have is none or -1. */
typedef struct gpn_record {
    gptner_str kind;
    gptner_str id;
    gptner_str digest;
    gptner_str server;
    gptner_str file;
    gptner_str batch;
    gptner_str output;
    gptner_str error;
    gptner_str state;
    gptner_str message;
    int64_t version;
    int64_t shard;
    int64_t round;
    int64_t tries;
    int64_t requests;
    int64_t tokens;
    gptner_batch_summary sum;
} gpn_record;

static const gpn_member gpn_record_members[] = {
    {"kind", GPN_KIND_TEXT, offsetof(gpn_record, kind)},
    {"id", GPN_KIND_TEXT, offsetof(gpn_record, id)},
    {"digest", GPN_KIND_TEXT, offsetof(gpn_record, digest)},
    {"server", GPN_KIND_TEXT, offsetof(gpn_record, server)},
    {"file", GPN_KIND_TEXT, offsetof(gpn_record, file)},
    {"batch", GPN_KIND_TEXT, offsetof(gpn_record, batch)},
    {"output", GPN_KIND_TEXT, offsetof(gpn_record, output)},
    {"error", GPN_KIND_TEXT, offsetof(gpn_record, error)},
    {"state", GPN_KIND_TEXT, offsetof(gpn_record, state)},
    {"message", GPN_KIND_TEXT, offsetof(gpn_record, message)},
    {"version", GPN_KIND_COUNT, offsetof(gpn_record, version)},
    {"shard", GPN_KIND_COUNT, offsetof(gpn_record, shard)},
    {"round", GPN_KIND_COUNT, offsetof(gpn_record, round)},
    {"tries", GPN_KIND_COUNT, offsetof(gpn_record, tries)},
    {"requests", GPN_KIND_COUNT, offsetof(gpn_record, requests)},
    {"tokens", GPN_KIND_COUNT, offsetof(gpn_record, tokens)},
    {"total", GPN_KIND_COUNT, offsetof(gpn_record, sum.total)},
    {"ok", GPN_KIND_COUNT, offsetof(gpn_record, sum.ok)},
    {"failed", GPN_KIND_COUNT, offsetof(gpn_record, sum.failed)},
    {"expired", GPN_KIND_COUNT, offsetof(gpn_record, sum.expired)},
    {"cancelled", GPN_KIND_COUNT, offsetof(gpn_record, sum.cancelled)},
    {"missing", GPN_KIND_COUNT, offsetof(gpn_record, sum.missing)},
    {"malformed", GPN_KIND_COUNT, offsetof(gpn_record, sum.malformed)},
    {"unsent", GPN_KIND_COUNT, offsetof(gpn_record, sum.unsent)},
    {"duplicates", GPN_KIND_COUNT, offsetof(gpn_record, sum.duplicates)},
    {"strangers", GPN_KIND_COUNT, offsetof(gpn_record, sum.strangers)},
    {"prompt_tokens", GPN_KIND_COUNT, offsetof(gpn_record, sum.prompt_tokens)},
    {"completion_tokens", GPN_KIND_COUNT,
     offsetof(gpn_record, sum.completion_tokens)},
    {"", GPN_KIND_SKIP, 0}};

/* The first of the members that are of sum. */
#define GPN_RECORD_SUM 16

/* Two digits for each of n bytes, and a NUL. */
static void gpn_hex_write(const unsigned char *bytes, size_t n, char *out)
{
    size_t i;
    for (i = 0; i < n; i++)
        gpn_format(out + 2 * i, 3, "%02x", (unsigned)bytes[i]);
}

/* The checksum of a record that follows the one with the checksum before. */
static void gpn_journal_sum(const char *before, gptner_str json, char out[17])
{
    unsigned char hash[32];
    gpn_sha256_state sha;
    gpn_sha256_init(&sha);
    gpn_sha256_update(&sha, before, strlen(before));
    gpn_sha256_update(&sha, json.ptr, json.len);
    gpn_sha256_final(&sha, hash);
    gpn_hex_write(hash, 8, out);
}

/* Begin a record; members of j->w may follow, then gpn_journal_text(). */
static void gpn_journal_begin(gpn_journal *j, const char *kind)
{
    gpn_buf_clear(&j->line);
    gpn_json_writer_init(&j->w, &j->line);
    gptner_json_write_object(&j->w);
    gptner_json_put_string(&j->w, "kind", kind);
}

/* End the record: its line, checksum and all, is in j->line. */
static gptner_status gpn_journal_text(gpn_journal *j, gptner_error *err)
{
    char sum[17];
    size_t len;
    gptner_json_write_end(&j->w);
    gptner_json_writer_finish(&j->w, NULL);
    len = j->line.len;
    gpn_buf_reserve(&j->line, 18);
    if (j->line.status != GPTNER_OK)
        return gpn_no_memory(err, "journal");
    gpn_journal_sum(j->sum, gpn_str(j->line.data, len), sum);
    memmove(j->line.data + 17, j->line.data, len);
    memcpy(j->line.data, sum, 16);
    j->line.data[16] = ' ';
    j->line.data[17 + len] = '\n';
    j->line.len = len + 18;
    memcpy(j->sum, sum, sizeof sum);
    return GPTNER_OK;
}

/* End the record, write it and sync it: from here on it holds. */
static gptner_status gpn_journal_end(gpn_journal *j, gptner_error *err)
{
    int oserr = 0;
    gptner_status status = gpn_journal_text(j, err);
    if (status != GPTNER_OK || j->broken) {
        j->broken = true;
        return status != GPTNER_OK
                   ? status
                   : gpn_file_fail(err, j->path, "writing failed before", 0);
    }
    if (gpn_file_write(&j->file, j->line.data, j->line.len, &oserr) &&
        gpn_file_sync(&j->file, &oserr))
        return GPTNER_OK;
    j->broken = true;
    return gpn_file_fail(err, j->path, "writing the journal failed", oserr);
}

static void gpn_journal_init(gpn_journal *j, const gpn_env *env,
                             const char *path)
{
    memset(j, 0, sizeof *j);
    j->env = env;
    j->path = path;
    gpn_buf_init(&j->line, env, 1 << 20);
}

static void gpn_journal_deinit(gpn_journal *j)
{
    int oserr;
    if (j->file.is_open)
        gpn_file_close(&j->file, &oserr); /* each record was synced */
    gpn_buf_deinit(&j->line);
}

/* Read one line into *rec, whose texts are views into it. false: it is no
 * record that follows the one before. */
static bool gpn_record_read(gpn_journal *j, char *line, size_t len,
                            gpn_record *rec)
{
    gptner_json_reader r;
    gptner_json_error why;
    char sum[17];
    memset(rec, 0, sizeof *rec);
    rec->version = rec->shard = rec->round = rec->tries = -1;
    rec->requests = rec->tokens = -1;
    if (len < 19 || line[16] != ' ')
        return false;
    gpn_journal_sum(j->sum, gpn_str(line + 17, len - 17), sum);
    if (memcmp(sum, line, 16) != 0)
        return false;
    memcpy(j->sum, sum, sizeof sum);
    gptner_json_reader_init_in_place(&r, line + 17, len - 17, NULL);
    return gpn_read_object(NULL, &r, gpn_record_members, rec) &&
           gptner_json_reader_finish(&r, &why) == GPTNER_OK &&
           rec->kind.ptr != NULL;
}

/* Hand the records of text to record_fn, in order. *good: bytes of whole
 * records. The text is decoded where it stands. */
static gptner_status
gpn_journal_replay(gpn_journal *j, char *text, size_t len, size_t *good,
                   gptner_status (*record_fn)(void *ctx, const gpn_record *rec,
                                              gptner_error *err),
                   void *ctx, gptner_error *err)
{
    *good = 0;
    j->sum[0] = '\0';
    while (*good < len) {
        char *line = text + *good;
        char *lf = (char *)memchr(line, '\n', len - *good);
        gptner_status status;
        gpn_record rec;
        char before[17];
        memcpy(before, j->sum, sizeof before);
        if (lf == NULL ||
            !gpn_record_read(j, line, (size_t)(lf - line), &rec)) {
            memcpy(j->sum, before, sizeof before);
            if (lf == NULL || lf + 1 == text + len)
                return GPTNER_OK; /* the last line, which was never whole */
            return gpn_fail(err, GPTNER_ERR_CHANGED,
                            "%s: damaged at byte %lld; restore it, or remove "
                            "it to begin the job anew",
                            j->path, (long long)*good);
        }
        status = record_fn(ctx, &rec, err);
        if (status != GPTNER_OK)
            return status;
        *good = (size_t)(lf + 1 - text);
    }
    return GPTNER_OK;
}

/* Is the file there? What cannot be looked at is not taken to be gone. */
static gptner_status gpn_file_look(const gpn_env *env, const char *path,
                                   bool *there, gptner_error *err)
{
    gpn_file file;
    int oserr = 0;
    *there = gpn_file_open_read(&file, env, path, &oserr);
    if (!*there && oserr != GPN_E_ABSENT)
        return gpn_file_fail(err, path, "cannot be read", oserr);
    gpn_file_close(&file, &oserr);
    return GPTNER_OK;
}

enum { GPN_JOURNAL_MAX = 256 << 20 };

/* The whole file; *text NULL: there is none. */
static gptner_status gpn_read_whole(const gpn_env *env, const char *path,
                                    char **text, size_t *len, gptner_error *err)
{
    gpn_file file;
    int64_t size;
    int oserr = 0;
    *text = NULL;
    *len = 0;
    if (!gpn_file_open_read(&file, env, path, &oserr))
        return oserr == GPN_E_ABSENT
                   ? GPTNER_OK
                   : gpn_file_fail(err, path, "cannot be read", oserr);
    size = gpn_file_size(&file);
    if (size >= 0 && size < GPN_JOURNAL_MAX)
        *text = (char *)gpn_mem_alloc(env, (size_t)size + 1);
    while (*text != NULL && (int64_t)*len < size) {
        int64_t got =
            gpn_file_read(&file, *text + *len, (size_t)size - *len, &oserr);
        if (got <= 0) {
            size = got < 0 ? -1 : (int64_t)*len;
            break;
        }
        *len += (size_t)got;
    }
    gpn_file_close(&file, &oserr);
    if (*text != NULL && size >= 0)
        return GPTNER_OK;
    gpn_mem_free(env, *text);
    *text = NULL;
    return size < 0 ? gpn_file_fail(err, path, "cannot be read", oserr)
                    : gpn_no_memory(err, path);
}

/* Write the journal anew, as text, and go on after it. */
static gptner_status gpn_journal_restart(gpn_journal *j, gptner_str text,
                                         gptner_error *err)
{
    gpn_whole w;
    int oserr = 0;
    bool ok = gpn_folder_sync(j->path, &oserr) && /* what it speaks of */
              gpn_whole_begin(&w, j->env, j->path, &oserr);
    if (ok && gpn_whole_write(&w, text.ptr, text.len, &oserr))
        ok = gpn_whole_commit(&w, &oserr) && gpn_folder_sync(j->path, &oserr);
    else if (ok) {
        gpn_whole_abort(&w);
        ok = false;
    }
    if (ok)
        ok = gpn_file_open(&j->file, j->path, GPN_FILE_APPEND, &oserr);
    return ok ? GPTNER_OK
              : gpn_file_fail(err, j->path, "cannot be written", oserr);
}

typedef enum gpn_stage {
    GPN_STAGE_UPLOAD,
    GPN_STAGE_CREATE,
    GPN_STAGE_RUN,
    GPN_STAGE_FETCH,
    GPN_STAGE_SETTLED
} gpn_stage;

enum { GPN_ROUNDS_MAX = 4, GPN_FETCHES_MAX = 5 };

typedef struct gpn_shard {
    gpn_stage stage;
    int round;                /* 0: the shard itself, else its follow-ups */
    int tries;                /* batches created for this round before */
    int fetches;              /* that failed */
    bool doubt;               /* the step may have been taken */
    bool fresh;               /* its batch may yet be refused for the queue */
    bool lost;                /* the uploaded file was, in this run */
    int64_t due_ms;           /* nothing is to be done before */
    int64_t all;              /* requests of round 0 */
    int64_t requests;         /* of the round */
    int64_t tokens;           /* of the round */
    int64_t done;             /* of the round, as the server counts */
    gptner_batch_state state; /* of the last batch that ended */
    gpn_id file;
    gpn_id batch;
    gpn_id output;
    gpn_id error;
    char message[200]; /* why the server's check failed */
} gpn_shard;

typedef struct gpn_job {
    gptner_client *client;
    const gptner_job_config *cfg;
    gpn_journal journal;
    gpn_file lock;
    gpn_buf path;      /* of the journal, with a NUL */
    gpn_buf lock_path; /* the same */
    gpn_buf name;      /* of the file at hand, the same */
    gpn_shard *shards;
    size_t n_shards;
    size_t room;
    int64_t started_ms;
    int64_t deadline_ms;
    int64_t poll_ms;
    int64_t prompts; /* all, those that make no request included */
    int64_t batches;
    bool resumed;
    bool tight;  /* a batch was refused for the queue */
    int refused; /* batches, since one was taken */
    bool written;
    bool done;
    char id[17];
    char digest[65];
    gptner_job_stage stage;
    gptner_batch_summary sum; /* once it is written */
    gpn_whole bad;            /* while planning: prompts without request */
    bool bad_open;
} gpn_job;

/* "OUT.job-K-R" and what: the name of a file of the job, good until the next
 * call. NULL: no memory. */
static const char *gpn_job_file(gpn_job *job, size_t k, int round,
                                const char *what)
{
    char number[48];
    gpn_buf_clear(&job->name);
    gpn_buf_add_s(&job->name, job->path.data);
    gpn_format(number, sizeof number, round > 0 ? "-%d-%d" : "-%d", (int)k + 1,
               round);
    gpn_buf_add_s(&job->name, number);
    gpn_buf_add_s(&job->name, what);
    gpn_buf_add_c(&job->name, '\0');
    return job->name.status == GPTNER_OK ? job->name.data : NULL;
}

static const char *gpn_job_bad_file(gpn_job *job)
{
    gpn_buf_clear(&job->name);
    gpn_buf_add_s(&job->name, job->path.data);
    gpn_buf_add_s(&job->name, "-bad");
    gpn_buf_add_c(&job->name, '\0');
    return job->name.status == GPTNER_OK ? job->name.data : NULL;
}

/* What names a batch of ours at the server, for ever: job, shard, round, and
 * for its creation the try. */
static void gpn_job_nonce(const gpn_job *job, size_t k, bool with_try,
                          char out[64])
{
    const gpn_shard *s = &job->shards[k];
    gpn_format(out, 64, with_try ? "%s-%d-%d-%d" : "%s-%d-%d", job->id,
               (int)k + 1, s->round, s->tries);
}

static void gpn_job_tell(gpn_job *job, const char *event)
{
    gptner_job_progress p;
    size_t i;
    if (event != NULL)
        gpn_log(&job->client->env, GPTNER_LOG_INFO, "job %s: %s", job->id,
                event);
    if (job->cfg->progress_fn == NULL)
        return;
    memset(&p, 0, sizeof p);
    p.stage = job->stage;
    p.resumed = job->resumed;
    p.requests = job->prompts;
    p.elapsed_ms = gpn_clock_ms(&job->client->env) - job->started_ms;
    p.event = event;
    for (i = 0; i < job->n_shards; i++) {
        const gpn_shard *s = &job->shards[i];
        p.waiting += s->stage < GPN_STAGE_RUN;
        p.running += s->stage == GPN_STAGE_RUN;
        p.ended += s->round + (s->stage > GPN_STAGE_RUN);
        p.done += s->all - s->requests +
                  (s->stage > GPN_STAGE_RUN ? s->requests : s->done);
    }
    p.batches = p.waiting + p.running + p.ended;
    job->cfg->progress_fn(&p, job->cfg->progress_user);
}

/* A record about shard k. */
static void gpn_job_record(gpn_job *job, size_t k, const char *kind)
{
    const gpn_shard *s = &job->shards[k];
    gpn_journal_begin(&job->journal, kind);
    gptner_json_put_int64(&job->journal.w, "shard", (int64_t)k);
    gptner_json_put_int64(&job->journal.w, "round", s->round);
    gptner_json_put_int64(&job->journal.w, "tries", s->tries);
}

static bool gpn_job_add_shard(gpn_job *job, int64_t requests, int64_t tokens)
{
    gpn_shard *s;
    if (job->n_shards == job->room) {
        size_t room = job->room > 0 ? 2 * job->room : 16;
        void *more = job->room > 0
                         ? gpn_mem_realloc(&job->client->env, job->shards,
                                           room * sizeof *s)
                         : gpn_mem_alloc(&job->client->env, room * sizeof *s);
        if (more == NULL)
            return false;
        job->shards = (gpn_shard *)more;
        job->room = room;
    }
    s = &job->shards[job->n_shards++];
    memset(s, 0, sizeof *s);
    s->all = s->requests = requests;
    s->tokens = tokens;
    return true;
}

/* --- taking a job up again --- */

static gptner_status gpn_job_strange(const gpn_job *job, const gpn_record *rec,
                                     gptner_error *err)
{
    return gpn_fail(err, GPTNER_ERR_CHANGED,
                    "%s: record \"%.*s\" does not follow; was it written by "
                    "another version?",
                    job->journal.path, (int)rec->kind.len, rec->kind.ptr);
}

static void gpn_copy_text(char *out, size_t cap, gptner_str text)
{
    size_t len =
        text.len < cap - 1 ? text.len : gpn_utf8_cut(text.ptr, cap - 1);
    if (len > 0)
        memcpy(out, text.ptr, len);
    out[len] = '\0';
}

static gptner_status gpn_job_replay_head(gpn_job *job, const gpn_record *rec,
                                         gptner_error *err)
{
    if (rec->version != 1 || rec->id.len != 16 || rec->digest.len != 64 ||
        rec->requests < 0)
        return gpn_job_strange(job, rec, err);
    if (!gpn_str_eq_c(rec->server, job->client->cfg.base_url))
        return gpn_fail(err, GPTNER_ERR_CHANGED,
                        "%s: the job was begun at %.*s, not at %s; remove the "
                        "journal to begin anew",
                        job->journal.path, (int)rec->server.len,
                        rec->server.ptr, job->client->cfg.base_url);
    gpn_copy_text(job->id, sizeof job->id, rec->id);
    gpn_copy_text(job->digest, sizeof job->digest, rec->digest);
    job->prompts = rec->requests;
    return GPTNER_OK;
}

/* A record about a shard: where it had come to. */
static bool gpn_shard_replay(gpn_job *job, gpn_shard *s, const gpn_record *rec)
{
    gptner_str kind = rec->kind;
    bool ok = true;
    s->doubt = false;
    if (gpn_str_eq_c(kind, "upload") || gpn_str_eq_c(kind, "create")) {
        s->doubt = true;
        s->stage = *kind.ptr == 'u' ? GPN_STAGE_UPLOAD : GPN_STAGE_CREATE;
    } else if (gpn_str_eq_c(kind, "lost")) {
        s->stage = GPN_STAGE_UPLOAD;
    } else if (gpn_str_eq_c(kind, "uploaded")) {
        ok = gpn_id_set(&s->file, rec->file);
        s->stage = GPN_STAGE_CREATE;
    } else if (gpn_str_eq_c(kind, "created")) {
        ok = gpn_id_set(&s->batch, rec->batch);
        s->stage = GPN_STAGE_RUN;
        job->batches++;
    } else if (gpn_str_eq_c(kind, "ended")) {
        gpn_id_set(&s->output, rec->output);
        gpn_id_set(&s->error, rec->error);
        s->state = gpn_batch_state_of(rec->state);
        gpn_copy_text(s->message, sizeof s->message, rec->message);
        s->stage = GPN_STAGE_FETCH;
    } else if (gpn_str_eq_c(kind, "again")) {
        s->tries++;
        s->stage = GPN_STAGE_CREATE;
    } else if (gpn_str_eq_c(kind, "round")) {
        s->round = (int)rec->round;
        s->tries = 0;
        s->requests = rec->requests;
        s->tokens = rec->tokens;
        s->stage = GPN_STAGE_UPLOAD;
    } else if (gpn_str_eq_c(kind, "settled")) {
        s->stage = GPN_STAGE_SETTLED;
    } else {
        ok = false;
    }
    return ok;
}

static gptner_status gpn_job_replay(void *ctx, const gpn_record *rec,
                                    gptner_error *err)
{
    gpn_job *job = (gpn_job *)ctx;
    if (gpn_str_eq_c(rec->kind, "job"))
        return gpn_job_replay_head(job, rec, err);
    if (job->id[0] == '\0')
        return gpn_job_strange(job, rec, err);
    if (gpn_str_eq_c(rec->kind, "plan")) {
        if (rec->requests <= 0 || rec->tokens < 0)
            return gpn_job_strange(job, rec, err);
        return gpn_job_add_shard(job, rec->requests, rec->tokens)
                   ? GPTNER_OK
                   : gpn_no_memory(err, "job");
    }
    if (gpn_str_eq_c(rec->kind, "written")) {
        job->written = true;
        job->sum = rec->sum;
    }
    job->done |= gpn_str_eq_c(rec->kind, "done");
    if (job->written || job->done)
        return GPTNER_OK;
    if (rec->shard < 0 || rec->shard >= (int64_t)job->n_shards ||
        rec->round < 0 || rec->round > GPN_ROUNDS_MAX || rec->tries < 0 ||
        rec->tries > INT_MAX ||
        !gpn_shard_replay(job, &job->shards[rec->shard], rec))
        return gpn_job_strange(job, rec, err);
    return GPTNER_OK;
}

/* Take up the journal, if there is one: job->resumed. */
static gptner_status gpn_job_resume(gpn_job *job, gptner_error *err)
{
    const gpn_env *env = &job->client->env;
    char *text = NULL;
    char *copy = NULL;
    size_t len, good;
    gptner_status status =
        gpn_read_whole(env, job->path.data, &text, &len, err);
    if (status != GPTNER_OK || text == NULL)
        return status;
    copy = gpn_str_dup(env, gpn_str(text, len));
    if (copy == NULL)
        status = gpn_no_memory(err, "journal");
    else
        status = gpn_journal_replay(&job->journal, copy, len, &good,
                                    gpn_job_replay, job, err);
    job->resumed = status == GPTNER_OK && job->id[0] != '\0';
    if (status == GPTNER_OK && !job->resumed)
        status = gpn_fail(err, GPTNER_ERR_CHANGED,
                          "%s: is no journal of a job; remove it to begin one",
                          job->path.data);
    if (job->resumed)
        status = gpn_journal_restart(&job->journal, gpn_str(text, good), err);
    gpn_mem_free(env, copy);
    gpn_mem_free(env, text);
    return status;
}

/* --- planning --- */

/* A prompt that makes no request: its result waits in a file of its own. */
static bool gpn_job_keep_bad(void *ctx, size_t index, const gptner_error *why)
{
    gpn_job *job = (gpn_job *)ctx;
    gpn_journal *j = &job->journal;
    gptner_json_writer *w = &j->w;
    int oserr = 0;
    if (job->resumed)
        return true;
    gpn_buf_clear(&j->line);
    gpn_json_writer_init(w, &j->line);
    gptner_json_write_object(w);
    gptner_json_put_uint64(w, "requests", index);
    gptner_json_put_int64(w, "tokens", why->status);
    gptner_json_put_string(w, "message", why->message);
    gptner_json_write_end(w);
    gptner_json_writer_finish(w, NULL);
    gpn_buf_add_c(&j->line, '\n');
    if (!job->bad_open && gpn_job_bad_file(job) != NULL)
        job->bad_open = gpn_whole_begin(&job->bad, &job->client->env,
                                        job->name.data, &oserr);
    return job->bad_open && j->line.status == GPTNER_OK &&
           gpn_whole_write(&job->bad, j->line.data, j->line.len, &oserr);
}

static gptner_status gpn_job_keep_shard(void *ctx, size_t number,
                                        const gptner_batch_file *file,
                                        gptner_error *err)
{
    gpn_job *job = (gpn_job *)ctx;
    GPN_UNUSED(number);
    if (job->resumed)
        return GPTNER_OK;
    if (!gpn_job_add_shard(job, file->requests, file->tokens))
        return gpn_no_memory(err, "job");
    gpn_job_tell(job, NULL);
    return GPTNER_OK;
}

/* Turn the prompts into requests: into the files of a new job, or, when one is
 * taken up, only to see that they are still the same. err is not NULL. */
static gptner_status gpn_job_lines(gpn_job *job, char digest[65],
                                   int64_t *prompts, gptner_error *err)
{
    gptner_batch_create_config source = job->cfg->source;
    gptner_status status;
    gpn_lines lines;
    gpn_buf path;
    int64_t most = job->cfg->max_enqueued_tokens;
    if (most > 0 && (source.max_tokens <= 0 || source.max_tokens > most))
        source.max_tokens = most;
    gpn_buf_init(&path, &job->client->env, 1 << 16);
    gpn_buf_add_s(&path, job->path.data);
    gpn_buf_add(&path, ".jsonl", 7);
    if (path.status != GPTNER_OK) {
        gpn_buf_deinit(&path);
        return gpn_no_memory(err, "job");
    }
    memset(&lines, 0, sizeof lines);
    lines.client = job->client;
    lines.cfg = &source;
    lines.path = path.data;
    lines.number_all = true;
    lines.each = true;
    lines.dry = job->resumed;
    lines.digest = true;
    lines.bad_fn = gpn_job_keep_bad;
    lines.file_fn = gpn_job_keep_shard;
    lines.ctx = job;
    status = gpn_lines_write(&lines, err);
    *prompts = lines.requests + lines.bad;
    gpn_hex_write(lines.sha256, sizeof lines.sha256, digest);
    gpn_lines_deinit(&lines);
    gpn_buf_deinit(&path);
    return status;
}

/* The file of bad prompts takes its place, or goes. */
static gptner_status gpn_job_end_bad(gpn_job *job, gptner_status status,
                                     gptner_error *err)
{
    int oserr = 0;
    if (!job->bad_open)
        return status;
    job->bad_open = false;
    if (status != GPTNER_OK)
        gpn_whole_abort(&job->bad);
    else if (!gpn_whole_commit(&job->bad, &oserr))
        status = gpn_file_fail(err, job->path.data, "writing failed", oserr);
    return status;
}

/* The journal's beginning: what the job is, and its shards. It appears whole:
 * from then on the plan holds. */
static gptner_status gpn_job_commit_plan(gpn_job *job, gptner_error *err)
{
    gpn_journal *j = &job->journal;
    gptner_status status;
    gpn_buf text;
    size_t k;
    gpn_buf_init(&text, &job->client->env, GPN_JOURNAL_MAX);
    gpn_journal_begin(j, "job");
    gptner_json_put_int64(&j->w, "version", 1);
    gptner_json_put_string(&j->w, "id", job->id);
    gptner_json_put_string(&j->w, "digest", job->digest);
    gptner_json_put_string(&j->w, "server", job->client->cfg.base_url);
    gptner_json_put_int64(&j->w, "requests", job->prompts);
    status = gpn_journal_text(j, err);
    gpn_buf_add(&text, j->line.data, j->line.len);
    for (k = 0; k < job->n_shards && status == GPTNER_OK; k++) {
        gpn_journal_begin(j, "plan");
        gptner_json_put_int64(&j->w, "requests", job->shards[k].requests);
        gptner_json_put_int64(&j->w, "tokens", job->shards[k].tokens);
        status = gpn_journal_text(j, err);
        gpn_buf_add(&text, j->line.data, j->line.len);
    }
    if (status == GPTNER_OK && text.status != GPTNER_OK)
        status = gpn_no_memory(err, "journal");
    if (status == GPTNER_OK)
        status = gpn_journal_restart(j, gpn_str(text.data, text.len), err);
    gpn_buf_deinit(&text);
    return status;
}

/* The names of all files of the job are on the disk, before a record counts on
 * them. */
static gptner_status gpn_job_sync_names(const char *path, gptner_error *err)
{
    int oserr = 0;
    return gpn_folder_sync(path, &oserr)
               ? GPTNER_OK
               : gpn_file_fail(err, path, "its folder cannot be synced", oserr);
}

/* Does the name end in that of a part of a file that did not become whole? Then
 * *len is that of the rest. */
static bool gpn_name_is_part(const char *name, size_t *len)
{
    static const char mark[] = ".part-"; /* and 16 digits */
    size_t end = sizeof mark - 1 + 16;
    *len = strlen(name);
    if (*len < end || memcmp(name + *len - end, mark, sizeof mark - 1) != 0 ||
        strspn(name + *len - 16, "0123456789abcdef") != 16)
        return false;
    *len -= end;
    return true;
}

/* Is OUT and rest the name of a file of the job, other than its output and its
 * journal? *ctx: parts of files are looked for, nothing else. */
static bool gpn_job_owns(const char *rest, void *ctx)
{
    static const char *const kinds[] = {".jsonl", ".out", ".err", ".now"};
    size_t len;
    size_t i;
    bool part = gpn_name_is_part(rest, &len);
    gptner_str name = gpn_str(rest, len);
    if (part && (len == 0 || gpn_str_eq_c(name, ".job")))
        return true;
    if ((!part && *(const bool *)ctx) || !gpn_str_starts(name, ".job-"))
        return false;
    if (gpn_str_eq_c(name, ".job-bad"))
        return true;
    rest += 5;
    if (strspn(rest, "0123456789") == 0)
        return false;
    rest += strspn(rest, "0123456789-");
    name = gpn_str(rest, len - (size_t)(rest - name.ptr));
    for (i = 0; i < GPN_COUNT(kinds); i++)
        if (gpn_str_eq_c(name, kinds[i]))
            return true;
    return false;
}

/* Remove the files of the job, or only what became no whole file when a process
 * was killed. That they are gone is then on the disk, too. */
static gptner_status gpn_job_sweep(gpn_job *job, bool parts, gptner_error *err)
{
    const char *path = job->cfg->output_path;
    int oserr = 0;
    if (gpn_folder_sweep(path, gpn_job_owns, &parts, &oserr) &&
        gpn_folder_sync(job->path.data, &oserr))
        return GPTNER_OK;
    return gpn_file_fail(err, path, "its folder cannot be tidied up", oserr);
}

/* Begin a job. What stands there of one that was killed here, or that was
 * before this one, goes first; so does, on the disk, a journal that the user
 * has removed: the files of the new job would be taken for those of the old
 * one if a power cut brought it back. */
static gptner_status gpn_job_plan(gpn_job *job, gptner_error *err)
{
    gptner_status status = gpn_job_sync_names(job->path.data, err);
    job->stage = GPTNER_JOB_PLANNING;
    gpn_job_name_make(&job->client->env, job->id);
    gpn_job_tell(job, NULL);
    if (status == GPTNER_OK)
        status = gpn_job_sweep(job, false, err);
    if (status == GPTNER_OK)
        status = gpn_job_lines(job, job->digest, &job->prompts, err);
    status = gpn_job_end_bad(job, status, err);
    if (status == GPTNER_OK && job->prompts == 0)
        status = gpn_refuse(err, "job: there is no prompt");
    return status == GPTNER_OK ? gpn_job_commit_plan(job, err) : status;
}

/* A job that is taken up must be the one that was begun. */
static gptner_status gpn_job_check_same(gpn_job *job, gptner_error *err)
{
    char digest[65];
    int64_t prompts = 0;
    gptner_status status = gpn_job_lines(job, digest, &prompts, err);
    if (status != GPTNER_OK)
        return status;
    if (strcmp(digest, job->digest) == 0 && prompts == job->prompts)
        return GPTNER_OK;
    return gpn_fail(err, GPTNER_ERR_CHANGED,
                    "%s: the prompts or options are not those that the job was "
                    "begun with (%lld prompts now, %lld then); restore them, "
                    "or remove this file to begin anew",
                    job->path.data, (long long)prompts,
                    (long long)job->prompts);
}

/* --- the steps of a shard --- */

static int64_t gpn_job_now(const gpn_job *job)
{
    return gpn_clock_ms(&job->client->env);
}

/* A step failed: what may pass is tried again after a while. */
static gptner_status gpn_job_step_failed(gpn_job *job, gpn_shard *s,
                                         gptner_status status,
                                         const gptner_error *why,
                                         gptner_error *err)
{
    if (status == GPTNER_ERR_CANCELLED || !gpn_status_passes(status)) {
        if (err != NULL)
            *err = *why;
        return status;
    }
    s->due_ms = gpn_time_add(gpn_job_now(job), job->poll_ms);
    gpn_job_tell(job, why->message);
    return GPTNER_OK;
}

static gptner_status gpn_job_upload(gpn_job *job, size_t k, gptner_error *err)
{
    gpn_shard *s = &job->shards[k];
    gptner_error why = GPN_ZERO;
    gptner_status status = GPTNER_OK;
    char name[160], nonce[64];
    gpn_upload u;
    if (!s->doubt) {
        gpn_job_record(job, k, "upload");
        status = gpn_journal_end(&job->journal, err);
    }
    if (status != GPTNER_OK)
        return status;
    memset(&u, 0, sizeof u);
    u.path = gpn_job_file(job, k, s->round, ".jsonl");
    if (u.path == NULL)
        return gpn_no_memory(err, "job");
    gpn_job_nonce(job, k, false, nonce);
    gpn_upload_name("gptner.jsonl", nonce, name, sizeof name);
    u.name = name;
    status = gpn_upload_run(&u, job->client, &s->doubt, &why);
    if (status != GPTNER_OK)
        return gpn_job_step_failed(job, s, status, &why, err);
    s->file = u.once.made;
    s->stage = GPN_STAGE_CREATE;
    gpn_job_record(job, k, "uploaded");
    gptner_json_put_string(&job->journal.w, "file", s->file.text);
    return gpn_journal_end(&job->journal, err);
}

/* The server does not know the uploaded file any more: it has expired, or was
 * deleted. Once a run it is uploaded again. */
static gptner_status gpn_job_lost_file(gpn_job *job, size_t k,
                                       gptner_error *err)
{
    gpn_shard *s = &job->shards[k];
    s->lost = true;
    s->doubt = false;
    s->stage = GPN_STAGE_UPLOAD;
    s->due_ms = gpn_job_now(job);
    gpn_job_record(job, k, "lost");
    gpn_job_tell(job, "an uploaded file is gone, and is uploaded again");
    return gpn_journal_end(&job->journal, err);
}

static gptner_status gpn_job_create(gpn_job *job, size_t k, gptner_error *err)
{
    gpn_shard *s = &job->shards[k];
    gptner_error why = GPN_ZERO;
    gptner_status status = GPTNER_OK;
    char nonce[64], endpoint[128], event[240];
    const char *path = gpn_job_file(job, k, s->round, ".jsonl");
    gpn_create c;
    if (path == NULL)
        return gpn_no_memory(err, "job");
    status = gpn_batch_endpoint(&job->client->env, path, endpoint,
                                sizeof endpoint, err);
    if (status == GPTNER_OK && !s->doubt) {
        gpn_job_record(job, k, "create");
        status = gpn_journal_end(&job->journal, err);
    }
    if (status != GPTNER_OK)
        return status;
    gpn_job_nonce(job, k, true, nonce);
    memset(&c, 0, sizeof c);
    c.file_id = s->file.text;
    c.endpoint = endpoint;
    c.job = nonce;
    c.description = job->cfg->description;
    c.metadata = job->cfg->metadata;
    c.n_metadata = job->cfg->n_metadata;
    status = gpn_create_run(&c, job->client, &s->doubt, &why);
    gptner_batch_free(c.batch);
    if (status != GPTNER_OK && gpn_once_too_early(&why) && !s->lost)
        return gpn_job_lost_file(job, k, err);
    if (status != GPTNER_OK)
        return gpn_job_step_failed(job, s, status, &why, err);
    s->batch = c.once.made;
    s->stage = GPN_STAGE_RUN;
    s->done = 0;
    s->fetches = 0;
    s->fresh = true;
    s->due_ms = gpn_job_now(job);
    job->batches++;
    gpn_job_record(job, k, "created");
    gptner_json_put_string(&job->journal.w, "batch", s->batch.text);
    status = gpn_journal_end(&job->journal, err);
    gpn_format(event, sizeof event, "submitted %s: %lld requests",
               s->batch.text, (long long)s->requests);
    gpn_job_tell(job, event);
    return status;
}

/* The account's enqueued tokens would have been exceeded: nothing was run. */
static bool gpn_batch_is_queue_full(const gptner_batch *b)
{
    size_t i;
    if (b->state != GPTNER_BATCH_FAILED)
        return false;
    for (i = 0; i < b->n_errors; i++)
        if (gpn_str_eq_c(b->errors[i].code, "token_limit_exceeded") ||
            gpn_str_ifind(b->errors[i].message, "enqueued token limit") <
                b->errors[i].message.len)
            return true;
    return false;
}

/* Why the server's check failed, for a person. */
static void gpn_batch_explain(const gptner_batch *b, char *out, size_t cap)
{
    const gptner_batch_issue *e = b->errors;
    if (b->n_errors == 0) {
        gpn_format(out, cap, "batch %.*s failed without saying why",
                   (int)b->id.len, b->id.ptr);
        return;
    }
    gpn_format(out, cap, "%.*s, line %lld: %.*s (%d in all)",
               (int)(e->code.len < 64 ? e->code.len : 64),
               e->code.len > 0 ? e->code.ptr : "?", (long long)e->line,
               (int)(e->message.len < 100 ? e->message.len : 100),
               e->message.len > 0 ? e->message.ptr : "", (int)b->n_errors);
}

/* A batch was refused for the queue. It waits until one of ours has ended, or
 * for ever more polls, for each attempt leaves a failed batch at the server. */
static gptner_status gpn_job_queue_full(gpn_job *job, size_t k,
                                        gptner_error *err)
{
    int64_t wait = job->poll_ms;
    size_t i;
    job->tight = true;
    job->refused += job->refused < 4;
    if (wait < INT64_MAX >> 4)
        wait <<= job->refused;
    gpn_job_record(job, k, "again");
    job->shards[k].tries++;
    job->shards[k].stage = GPN_STAGE_CREATE;
    for (i = 0; i < job->n_shards; i++) /* nor is there room for others */
        if (job->shards[i].stage < GPN_STAGE_RUN)
            job->shards[i].due_ms = gpn_time_add(gpn_job_now(job), wait);
    gpn_job_tell(job, "the account's queue is full; the batch waits");
    return gpn_journal_end(&job->journal, err);
}

static gptner_status gpn_job_ended(gpn_job *job, size_t k,
                                   const gptner_batch *b, gptner_error *err)
{
    gpn_shard *s = &job->shards[k];
    gpn_journal *j = &job->journal;
    gptner_status status;
    char event[240];
    size_t i;
    if (gpn_batch_is_queue_full(b))
        return gpn_job_queue_full(job, k, err);
    gpn_id_set(&s->output, b->output_file_id);
    gpn_id_set(&s->error, b->error_file_id);
    s->state = b->state;
    s->message[0] = '\0';
    if (b->state == GPTNER_BATCH_FAILED)
        gpn_batch_explain(b, s->message, sizeof s->message);
    gpn_job_record(job, k, "ended");
    gptner_json_put_str(&j->w, "state", b->status);
    gptner_json_put_string(&j->w, "output", s->output.text);
    gptner_json_put_string(&j->w, "error", s->error.text);
    gptner_json_put_string(&j->w, "message", s->message);
    s->stage = GPN_STAGE_FETCH;
    s->fetches = 0;
    s->due_ms = gpn_job_now(job);
    for (i = 0; i < job->n_shards; i++) /* there is room in the queue */
        if (job->shards[i].stage < GPN_STAGE_RUN)
            job->shards[i].due_ms = s->due_ms;
    status = gpn_journal_end(j, err);
    gpn_format(event, sizeof event, "%s has ended: %.*s", s->batch.text,
               (int)b->status.len, b->status.ptr);
    gpn_job_tell(job, event);
    return status;
}

static gptner_status gpn_job_poll(gpn_job *job, size_t k, gptner_error *err)
{
    gpn_shard *s = &job->shards[k];
    gptner_error why = GPN_ZERO;
    gptner_batch *b = NULL;
    int64_t left = job->deadline_ms - gpn_job_now(job);
    gptner_status status = gpn_batch_get(job->client, s->batch.text,
                                         job->deadline_ms == INT64_MAX ? 0
                                         : left > 0                    ? left
                                                                       : 1,
                                         &b, &why);
    s->due_ms = gpn_time_add(gpn_job_now(job), job->poll_ms);
    if (status != GPTNER_OK) {
        if (gpn_poll_hopeless(status, &s->fetches)) {
            if (err != NULL)
                *err = why;
            return status;
        }
        gpn_job_tell(job, why.message);
        return GPTNER_OK;
    }
    s->fetches = 0;
    s->done = b->requests_completed + b->requests_failed;
    if (s->fresh && b->state > GPTNER_BATCH_VALIDATING &&
        b->state != GPTNER_BATCH_FAILED) {
        s->fresh = false;
        job->refused = 0;
    }
    if (b->ended)
        status = gpn_job_ended(job, k, b, err);
    else
        gpn_job_tell(job, NULL);
    gptner_batch_free(b);
    return status;
}

/* Fetch one result file, unless it is here. One that the server cannot give
 * after several polls counts as empty: its requests are missing. */
static gptner_status gpn_job_fetch_one(gpn_job *job, size_t k, const gpn_id *id,
                                       const char *what, gptner_error *why)
{
    gpn_shard *s = &job->shards[k];
    const char *path = gpn_job_file(job, k, s->round, what);
    gptner_status status;
    bool there;
    if (path == NULL)
        return gpn_no_memory(why, "job");
    if (id->text[0] == '\0')
        return GPTNER_OK;
    status = gpn_file_look(&job->client->env, path, &there, why);
    if (status != GPTNER_OK || there)
        return status;
    status = gpn_fetch_file(job->client, gptner_str_from(id->text), path, false,
                            why);
    if ((status == GPTNER_ERR_NOT_FOUND || status == GPTNER_ERR_PERMISSION) &&
        ++s->fetches >= GPN_FETCHES_MAX) {
        gpn_job_tell(job, "a result file is not to be had; its requests count "
                          "as missing");
        return gpn_fetch_none(job->client, path, why);
    }
    return status;
}

/* --- what failed, once more --- */

enum { GPN_JOB_PATHS = 2 * GPN_ROUNDS_MAX + 2 };

/* All rows that were fetched for a shard, later rounds over earlier ones. */
typedef struct gpn_job_rows {
    const gpn_env *env;
    gpn_join join;
    char *paths[GPN_JOB_PATHS];
    int n_paths;
    bool open;
} gpn_job_rows;

static void gpn_job_rows_close(gpn_job_rows *rows)
{
    if (rows->open)
        gpn_join_close(&rows->join);
    while (rows->n_paths > 0)
        gpn_mem_free(rows->env, rows->paths[--rows->n_paths]);
}

/* A copy of a file's name that lives as long as rows; NULL: no memory. */
static const char *gpn_job_rows_path(gpn_job *job, gpn_job_rows *rows, size_t k,
                                     int round, const char *what)
{
    const char *path = gpn_job_file(job, k, round, what);
    char *copy = NULL;
    if (path != NULL && rows->n_paths < GPN_JOB_PATHS)
        copy = gpn_str_dup(rows->env, gptner_str_from(path));
    if (copy != NULL)
        rows->paths[rows->n_paths++] = copy;
    return copy;
}

/* Add a file of rows, if it is there. */
static gptner_status gpn_job_rows_add(gpn_job *job, gpn_job_rows *rows,
                                      size_t k, int round, const char *what,
                                      gptner_error *err)
{
    const gpn_shard *s = &job->shards[k];
    const gpn_id *id = what[1] == 'o' ? &s->output : &s->error;
    bool now = round > s->round; /* finished in parallel */
    const char *path = gpn_job_rows_path(job, rows, k, now ? 0 : round, what);
    gptner_status status;
    bool there;
    if (path == NULL)
        return gpn_no_memory(err, "job");
    status = gpn_file_look(rows->env, path, &there, err);
    if (status != GPTNER_OK)
        return status;
    if (there)
        return gpn_join_add(&rows->join, path, round, err);
    if (round == s->round && id->text[0] != '\0')
        return gpn_fail(err, GPTNER_ERR_CHANGED,
                        "%s: is gone, but had been fetched; restore it, or "
                        "remove %s to begin the job anew",
                        path, job->path.data);
    return GPTNER_OK;
}

/* gpn_job_rows_close() follows in any case. err is not NULL. */
static gptner_status gpn_job_rows_open(gpn_job *job, size_t k,
                                       gpn_job_rows *rows, gptner_error *err)
{
    const gpn_shard *s = &job->shards[k];
    gptner_status status;
    const char *path;
    int round;
    memset(rows, 0, sizeof *rows);
    rows->env = &job->client->env;
    path = gpn_job_rows_path(job, rows, k, 0, ".jsonl");
    if (path == NULL)
        return gpn_no_memory(err, "job");
    rows->open = true;
    status = gpn_join_open(&rows->join, job->client, path, err);
    for (round = 0; round <= s->round && status == GPTNER_OK; round++) {
        status = gpn_job_rows_add(job, rows, k, round, ".out", err);
        if (status == GPTNER_OK)
            status = gpn_job_rows_add(job, rows, k, round, ".err", err);
    }
    if (status == GPTNER_OK)
        status = gpn_job_rows_add(job, rows, k, round, ".now", err);
    rows->join.lost = gpn_batch_lost(s->state);
    if (status == GPTNER_OK)
        status = gpn_join_index(&rows->join, err);
    return status;
}

static gptner_status gpn_job_settled(gpn_job *job, size_t k, gptner_error *err)
{
    gptner_status status = gpn_job_sync_names(job->path.data, err);
    if (status != GPTNER_OK)
        return status;
    job->shards[k].stage = GPN_STAGE_SETTLED;
    gpn_job_record(job, k, "settled");
    return gpn_journal_end(&job->journal, err);
}

/* Copy the requests that may succeed another time. */
static gptner_status gpn_job_copy_round(gpn_join *join, gpn_whole *w,
                                        const char *path, int64_t *n,
                                        int64_t *tokens, gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    gptner_str line = GPN_ZERO;
    int oserr = 0;
    int got;
    while (status == GPTNER_OK && (got = gpn_join_next(join, err)) != 0) {
        if (got < 0)
            return err->status;
        if (join->fate != GPN_FATE_RETRY)
            continue;
        status = gpn_join_request(join, &line, err);
        if (status == GPTNER_OK &&
            (!gpn_whole_write(w, line.ptr, line.len, &oserr) ||
             !gpn_whole_write(w, "\n", 1, &oserr)))
            status = gpn_file_fail(err, path, "writing failed", oserr);
        *n += 1;
        *tokens += (int64_t)line.len / 3 + 1;
    }
    return status;
}

/* Write the requests that may succeed another time to the file of the next
 * round. *n: how many; none leave no file. */
static gptner_status gpn_job_write_round(gpn_job *job, size_t k, int64_t *n,
                                         int64_t *tokens, gptner_error *err)
{
    gpn_job_rows rows;
    gpn_whole w;
    int oserr = 0;
    const char *path = NULL;
    gptner_status status = gpn_job_rows_open(job, k, &rows, err);
    *n = *tokens = 0;
    if (status == GPTNER_OK) {
        path = gpn_job_file(job, k, job->shards[k].round + 1, ".jsonl");
        if (path == NULL)
            status = gpn_no_memory(err, "job");
        else if (!gpn_whole_begin(&w, rows.env, path, &oserr))
            status = gpn_file_fail(err, path, "cannot be created", oserr);
    }
    if (status == GPTNER_OK) {
        status = gpn_job_copy_round(&rows.join, &w, path, n, tokens, err);
        if (status != GPTNER_OK || *n == 0)
            gpn_whole_abort(&w);
        else if (!gpn_whole_commit(&w, &oserr))
            status = gpn_file_fail(err, path, "writing failed", oserr);
    }
    gpn_job_rows_close(&rows);
    return status;
}

/* The next round of a shard, or its end. */
static gptner_status gpn_job_follow_up(gpn_job *job, size_t k,
                                       gptner_error *err)
{
    gpn_shard *s = &job->shards[k];
    int64_t n = 0, tokens = 0;
    gptner_status status = gpn_job_write_round(job, k, &n, &tokens, err);
    if (status == GPTNER_OK)
        status = gpn_job_sync_names(job->path.data, err);
    if (status != GPTNER_OK)
        return status;
    if (n == 0)
        return gpn_job_settled(job, k, err);
    s->round++;
    s->tries = 0;
    s->stage = GPN_STAGE_UPLOAD;
    s->doubt = false;
    s->requests = n;
    s->tokens = tokens;
    s->due_ms = gpn_job_now(job);
    gpn_job_record(job, k, "round");
    gptner_json_put_int64(&job->journal.w, "requests", n);
    gptner_json_put_int64(&job->journal.w, "tokens", tokens);
    gpn_job_tell(job, "a follow-up batch for what failed");
    return gpn_journal_end(&job->journal, err);
}

/* Requests of a shard that are sent one by one, and the rows of their answers.
 */
typedef struct gpn_now {
    gpn_job *job;
    gpn_job_rows rows;
    gpn_file file;
    const char *path;
    gpn_buf line;
    gptner_options chat; /* read by other threads while the run lasts */
    gptner_options completions;
    gptner_error why; /* of a failure here; status OK: none */
    int unsynced;     /* rows */
} gpn_now;

enum { GPN_NOW_SYNC = 64 }; /* rows that a power cut may lose, and cost twice */

static int gpn_now_next(gptner_prompt *prompt, gptner_error *err, void *user)
{
    static const gpn_member members[] = {
        {"url", GPN_KIND_TEXT, offsetof(gptner_prompt, text)},
        {"body", GPN_KIND_JSON, offsetof(gptner_prompt, body_json)},
        {"", GPN_KIND_SKIP, 0}};
    gpn_now *now = (gpn_now *)user;
    gpn_join *join = &now->rows.join;
    gptner_json_reader r;
    gptner_str line = GPN_ZERO;
    int got;
    do {
        got = gpn_join_next(join, err);
    } while (got > 0 && join->fate != GPN_FATE_RETRY);
    if (got <= 0)
        return got;
    if (gpn_join_request(join, &line, err) != GPTNER_OK)
        return -1;
    memset(prompt, 0, sizeof *prompt);
    gptner_json_reader_init(&r, line.ptr, line.len, NULL);
    gpn_read_object(NULL, &r, members, prompt);
    prompt->options = gpn_str_eq_c(prompt->text, "/v1/completions")
                          ? &now->completions
                          : &now->chat;
    if (prompt->options == &now->chat &&
        !gpn_str_eq_c(prompt->text, "/v1/chat/completions")) {
        gpn_fail(err, GPTNER_ERR_UNSUPPORTED,
                 "job: %.*s cannot be finished in parallel, only chat and "
                 "completions",
                 (int)prompt->text.len, prompt->text.ptr);
        return -1;
    }
    memset(&prompt->text, 0, sizeof prompt->text);
    prompt->custom_id = join->view.custom_id;
    return 1;
}

/* What was understood of a reply, where there was no memory to keep it as it
 * came: it has been paid. */
static void gpn_now_body(gptner_json_writer *w, const gptner_result *r)
{
    size_t i;
    gptner_json_put_object(w, "body");
    gptner_json_put_array(w, "choices");
    for (i = 0; i < r->n_choices; i++) {
        const gptner_choice *c = &r->choices[i];
        gptner_json_write_object(w);
        gptner_json_put_int64(w, "index", c->index);
        gptner_json_put_object(w, "message");
        gptner_json_put_str(w, "content", c->text);
        if (c->refusal.len > 0)
            gptner_json_put_str(w, "refusal", c->refusal);
        if (c->tool_calls_json.len > 0)
            gptner_json_put_raw(w, "tool_calls", c->tool_calls_json);
        gptner_json_write_end(w);
        gptner_json_put_str(w, "finish_reason", c->finish_reason);
        gptner_json_write_end(w);
    }
    gptner_json_write_end(w);
    gptner_json_put_object(w, "usage");
    gptner_json_put_int64(w, "prompt_tokens", r->usage.prompt_tokens);
    gptner_json_put_int64(w, "completion_tokens", r->usage.completion_tokens);
    gptner_json_write_end(w);
    gptner_json_write_end(w);
}

/* A result as a row of a batch's output. */
static void gpn_now_write(gptner_json_writer *w, const gptner_result *r)
{
    bool body = r->raw.len > 0 && r->http_status > 0;
    gptner_json_reader reader;
    if (body) {
        gptner_json_reader_init(&reader, r->raw.ptr, r->raw.len, NULL);
        body = gptner_json_reader_finish(&reader, NULL) == GPTNER_OK;
    }
    gptner_json_write_object(w);
    gptner_json_put_str(w, "custom_id", r->custom_id);
    if (body || r->n_choices > 0) {
        gptner_json_put_object(w, "response");
        gptner_json_put_int64(w, "status_code", r->http_status);
        if (r->request_id.ptr != NULL)
            gptner_json_put_str(w, "request_id", r->request_id);
        if (body)
            gptner_json_put_raw(w, "body", r->raw);
        else
            gpn_now_body(w, r);
        gptner_json_write_end(w);
    } else {
        gptner_json_put_object(w, "error");
        gptner_json_put_string(w, "code", gpn_status_short(r->status));
        gptner_json_put_string(w, "message", r->message);
        gptner_json_write_end(w);
    }
    gptner_json_write_end(w);
}

/* Did it fail for a reason that has nothing to do with the request, but with
 * us, the account or the way to the server? */
static bool gpn_now_is_undone(gptner_status status)
{
    switch (status) {
    case GPTNER_ERR_NO_MEMORY:
    case GPTNER_ERR_FILE:
    case GPTNER_ERR_THREAD:
    case GPTNER_ERR_CONFIG:
    case GPTNER_ERR_RESOLVE:
    case GPTNER_ERR_CONNECT:
    case GPTNER_ERR_TLS:
    case GPTNER_ERR_CERTIFICATE:
    case GPTNER_ERR_CA:
    case GPTNER_ERR_PROXY:
    case GPTNER_ERR_AUTH:
    case GPTNER_ERR_QUOTA:
        return true;
    default:
        return false;
    }
}

static bool gpn_now_result(const gptner_result *r, void *user)
{
    gpn_now *now = (gpn_now *)user;
    gptner_json_writer w;
    int oserr = 0;
    if (r->status == GPTNER_ERR_CANCELLED || r->status == GPTNER_ERR_NOT_SENT)
        return true; /* as if it had not been begun */
    if (gpn_now_is_undone(
            r->status)) { /* the same, and the job goes on later */
        if (now->why.status == GPTNER_OK)
            gpn_fail(&now->why, r->status, "%s", r->message);
        return true;
    }
    gpn_buf_clear(&now->line);
    gpn_json_writer_init(&w, &now->line);
    gpn_now_write(&w, r);
    if (gptner_json_writer_finish(&w, NULL) != GPTNER_OK) {
        gpn_no_memory(&now->why, "job");
        return false;
    }
    gpn_buf_add_c(&now->line, '\n');
    if (now->line.status == GPTNER_OK &&
        gpn_file_write(&now->file, now->line.data, now->line.len, &oserr) &&
        (++now->unsynced % GPN_NOW_SYNC != 0 ||
         gpn_file_sync(&now->file, &oserr)))
        return true;
    gpn_file_fail(&now->why, now->path, "writing failed", oserr);
    return false;
}

/* The rows of a run that was ended, written anew: what is read after a failed
 * sync need not be on the disk. A last row that was cut off gets its end. */
static gptner_status gpn_now_renew(gpn_now *now, gptner_error *err)
{
    enum { GPN_PIECE = 65536 };
    const gpn_env *env = &now->job->client->env;
    gpn_file old;
    gpn_whole w;
    int64_t got = 1;
    int oserr = 0;
    int ignored; /* was only read */
    bool ok;
    if (!gpn_file_open_read(&old, env, now->path, &oserr))
        return oserr == GPN_E_ABSENT
                   ? GPTNER_OK
                   : gpn_file_fail(err, now->path, "cannot be read", oserr);
    gpn_buf_clear(&now->line);
    ok = gpn_buf_reserve(&now->line, GPN_PIECE);
    if (!ok)
        oserr = GPN_E_MEMORY;
    ok = ok && gpn_whole_begin(&w, env, now->path, &oserr);
    while (ok && got > 0) {
        got = gpn_file_read(&old, now->line.data, GPN_PIECE, &oserr);
        if (got < 0 || !gpn_whole_write(&w, got > 0 ? now->line.data : "\n",
                                        got > 0 ? (size_t)got : 1, &oserr)) {
            gpn_whole_abort(&w);
            ok = false;
        }
    }
    ok = ok && gpn_whole_commit(&w, &oserr);
    gpn_file_close(&old, &ignored);
    return ok ? GPTNER_OK
              : gpn_file_fail(err, now->path, "writing failed", oserr);
}

/* Send now what failed. Rows are added as they come, so that a run that is
 * killed sends only the rest. */
static gptner_status gpn_job_run_now(gpn_now *now, gptner_error *err)
{
    gptner_client *c = now->job->client;
    gptner_run_config run = GPN_ZERO;
    gptner_status status;
    int oserr = 0;
    if (!gpn_file_open(&now->file, now->path, GPN_FILE_APPEND, &oserr))
        return gpn_file_fail(err, now->path, "cannot be written", oserr);
    run.next_fn = gpn_now_next;
    run.next_user = now;
    run.result_fn = gpn_now_result;
    run.result_user = now;
    run.as_completed = true;
    status = gpn_run_prompts(c, &run, true, NULL, err);
    if (now->why.status != GPTNER_OK) {
        status = now->why.status;
        if (err != NULL)
            *err = now->why;
    }
    if (!gpn_file_sync(&now->file, &oserr) && status == GPTNER_OK)
        status = gpn_file_fail(err, now->path, "syncing failed", oserr);
    gpn_file_close(&now->file, &oserr);
    return status;
}

static gptner_status gpn_job_parallel(gpn_job *job, size_t k, gptner_error *err)
{
    gptner_status status;
    gpn_now now;
    memset(&now, 0, sizeof now);
    now.job = job;
    now.chat = job->client->cfg.options;
    now.chat.endpoint = GPTNER_ENDPOINT_CHAT;
    now.chat.extra_body_json = NULL; /* the bodies have it already */
    now.completions = now.chat;
    now.completions.endpoint = GPTNER_ENDPOINT_COMPLETIONS;
    gpn_buf_init(&now.line, &job->client->env, SIZE_MAX / 2);
    now.path = gpn_job_file(job, k, 0, ".now");
    status =
        now.path != NULL ? gpn_now_renew(&now, err) : gpn_no_memory(err, "job");
    if (status == GPTNER_OK)
        status = gpn_job_rows_open(job, k, &now.rows, err);
    if (status == GPTNER_OK) {
        now.path = gpn_job_rows_path(job, &now.rows, k, 0, ".now");
        gpn_job_tell(job, "what failed is sent now, in parallel");
        status = now.path != NULL ? gpn_job_run_now(&now, err)
                                  : gpn_no_memory(err, "job");
    }
    gpn_job_rows_close(&now.rows);
    gpn_buf_deinit(&now.line);
    if (status == GPTNER_OK)
        return gpn_job_settled(job, k, err);
    return now.why.status != GPTNER_OK
               ? gpn_job_step_failed(job, &job->shards[k], status, &now.why,
                                     err)
               : status;
}

/* A round of a shard has been fetched. */
static gptner_status gpn_job_settle(gpn_job *job, size_t k, gptner_error *err)
{
    const gpn_shard *s = &job->shards[k];
    bool again =
        s->state == GPTNER_BATCH_COMPLETED || s->state == GPTNER_BATCH_EXPIRED;
    if (again && job->cfg->retry_failed == GPTNER_RETRY_PARALLEL)
        return gpn_job_parallel(job, k, err);
    if (again && job->cfg->retry_failed == GPTNER_RETRY_BATCH &&
        s->round < GPN_ROUNDS_MAX - 1)
        return gpn_job_follow_up(job, k, err);
    return gpn_job_settled(job, k, err);
}

static gptner_status gpn_job_fetch(gpn_job *job, size_t k, gptner_error *err)
{
    gpn_shard *s = &job->shards[k];
    gptner_error why = GPN_ZERO;
    gptner_status status = gpn_job_fetch_one(job, k, &s->output, ".out", &why);
    if (status == GPTNER_OK)
        status = gpn_job_fetch_one(job, k, &s->error, ".err", &why);
    if (status == GPTNER_ERR_NOT_FOUND || status == GPTNER_ERR_PERMISSION) {
        s->due_ms = gpn_time_add(gpn_job_now(job), job->poll_ms);
        gpn_job_tell(job, why.message);
        return GPTNER_OK;
    }
    if (status != GPTNER_OK)
        return gpn_job_step_failed(job, s, status, &why, err);
    return gpn_job_settle(job, k, err);
}

/* May another batch be begun beside those that run? Once the server has refused
 * one for the queue, they are begun one by one. */
static bool gpn_job_has_room(const gpn_job *job, const gpn_shard *next)
{
    int64_t tokens = 0;
    int running = 0;
    size_t i;
    for (i = 0; i < job->n_shards; i++)
        if (job->shards[i].stage == GPN_STAGE_RUN) {
            if (job->tight && job->shards[i].fresh)
                return false;
            running++;
            tokens += job->shards[i].tokens;
        }
    if (running >= (job->cfg->max_batches > 0 ? job->cfg->max_batches : 20))
        return false;
    return running == 0 || job->cfg->max_enqueued_tokens <= 0 ||
           tokens + next->tokens <= job->cfg->max_enqueued_tokens;
}

/* One step of a shard, if one is due. */
static gptner_status gpn_job_step(gpn_job *job, size_t k, gptner_error *err)
{
    gpn_shard *s = &job->shards[k];
    gptner_status status = GPTNER_OK;
    if (s->stage == GPN_STAGE_SETTLED || gpn_job_now(job) < s->due_ms ||
        (s->stage < GPN_STAGE_RUN && !gpn_job_has_room(job, s)))
        return GPTNER_OK;
    if (s->stage == GPN_STAGE_UPLOAD)
        status = gpn_job_upload(job, k, err);
    if (status == GPTNER_OK && s->stage == GPN_STAGE_CREATE &&
        gpn_job_now(job) >= s->due_ms)
        return gpn_job_create(job, k, err);
    if (status == GPTNER_OK && s->stage == GPN_STAGE_RUN)
        status = gpn_job_poll(job, k, err);
    if (status == GPTNER_OK && s->stage == GPN_STAGE_FETCH &&
        gpn_job_now(job) >= s->due_ms)
        status = gpn_job_fetch(job, k, err);
    return status;
}

/* When the next step is due; INT64_MAX: all is settled. */
static int64_t gpn_job_until(const gpn_job *job)
{
    int64_t until = INT64_MAX;
    size_t k;
    for (k = 0; k < job->n_shards; k++) {
        const gpn_shard *s = &job->shards[k];
        if (s->stage == GPN_STAGE_SETTLED ||
            (s->stage < GPN_STAGE_RUN && !gpn_job_has_room(job, s)))
            continue;
        if (s->due_ms < until)
            until = s->due_ms;
    }
    return until;
}

/* Every shard through its steps, until all are settled. */
static gptner_status gpn_job_drive(gpn_job *job, gptner_error *err)
{
    job->stage = GPTNER_JOB_RUNNING;
    for (;;) {
        gptner_status status = GPTNER_OK;
        int64_t now, until;
        size_t k;
        for (k = 0; k < job->n_shards && status == GPTNER_OK; k++)
            status = gpn_job_step(job, k, err);
        if (status != GPTNER_OK)
            return status;
        until = gpn_job_until(job);
        if (until == INT64_MAX)
            return GPTNER_OK;
        now = gpn_job_now(job);
        if (now >= job->deadline_ms)
            return gpn_fail(err, GPTNER_ERR_TIMEOUT,
                            "job: has not ended within max_wait; its batches "
                            "go on: call again to take it up");
        if (until > job->deadline_ms)
            until = job->deadline_ms;
        if (until > now)
            status = gpn_client_pause(job->client, until - now, err);
        if (status != GPTNER_OK)
            return status;
    }
}

/* --- the end of a job --- */

static gptner_status gpn_delete_file(gptner_client *c, gptner_str id,
                                     gptner_error *err)
{
    gpn_ask_server a = GPN_ZERO;
    gptner_error why = GPN_ZERO;
    gptner_status status;
    gpn_id copy;
    if (!gpn_id_set(&copy, id))
        return GPTNER_OK;
    a.method = "DELETE";
    a.before = "/files/";
    a.id = copy.text;
    status = gpn_ask_run(c, &a, &why);
    if (status == GPTNER_OK || status == GPTNER_ERR_NOT_FOUND)
        return GPTNER_OK;
    if (err != NULL)
        *err = why;
    return status;
}

static gptner_status gpn_job_delete_record(void *ctx, const gpn_record *rec,
                                           gptner_error *err)
{
    gptner_client *c = ((gpn_job *)ctx)->client;
    gptner_status status = gpn_delete_file(c, rec->file, err);
    if (status == GPTNER_OK)
        status = gpn_delete_file(c, rec->output, err);
    if (status == GPTNER_OK)
        status = gpn_delete_file(c, rec->error, err);
    return status;
}

/* A file of this job by its name: also one whose upload was in doubt. */
static gptner_status gpn_page_match_ours(gpn_page *page, gptner_str item,
                                         gptner_error *err)
{
    gpn_remote file;
    GPN_UNUSED(err);
    if (page->found.text[0] == '\0' && gpn_remote_read(item, &file) &&
        gpn_str_find(file.filename, page->name) < file.filename.len)
        gpn_id_set(&page->found, file.id);
    return GPTNER_OK;
}

/* Delete every file that the job has at the server: those in the journal, and
 * what else bears its name. */
static gptner_status gpn_job_delete_remote(gpn_job *job, gptner_error *err)
{
    const gpn_env *env = &job->client->env;
    gptner_status status;
    gpn_journal replay;
    char *text = NULL;
    size_t len, good;
    int i;
    status = gpn_read_whole(env, job->path.data, &text, &len, err);
    if (status != GPTNER_OK || text == NULL)
        return status;
    gpn_journal_init(&replay, env, job->path.data);
    status = gpn_journal_replay(&replay, text, len, &good,
                                gpn_job_delete_record, job, err);
    gpn_journal_deinit(&replay);
    gpn_mem_free(env, text);
    for (i = 0; i < 1000 && status == GPTNER_OK; i++) {
        gpn_page page = GPN_ZERO;
        page.item_fn = gpn_page_match_ours;
        page.name = job->id;
        status = gpn_page_search(
            job->client, "/files?purpose=batch&limit=1000",
            "/files?purpose=batch&limit=1000&after=", &page, err);
        if (status != GPTNER_OK || page.found.text[0] == '\0')
            break;
        status =
            gpn_delete_file(job->client, gptner_str_from(page.found.text), err);
    }
    return status;
}

static gptner_status gpn_job_mark(gpn_job *job, const char *kind,
                                  gptner_error *err)
{
    gpn_journal_begin(&job->journal, kind);
    if (*kind == 'w') {
        const gpn_member *m = &gpn_record_members[GPN_RECORD_SUM];
        gpn_record rec;
        rec.sum = job->sum;
        for (; m->key[0] != '\0'; m++)
            gptner_json_put_int64(&job->journal.w, m->key,
                                  *(const int64_t *)gpn_at(&rec, m->to));
    }
    return gpn_journal_end(&job->journal, err);
}

/* The next prompt without request, read ahead: its index is in requests, its
 * status in tokens. */
typedef struct gpn_job_bads {
    gpn_file file;
    gpn_feed feed;
    gpn_record next;
    char room[512];
} gpn_job_bads;

static gptner_status gpn_job_bads_next(gpn_job_bads *b, gptner_error *err)
{
    gptner_json_reader r;
    int got = 0;
    b->next.requests = INT64_MAX;
    if (b->file.is_open)
        got = gpn_feed_next(&b->feed, err);
    if (got <= 0)
        return got < 0 ? err->status : GPTNER_OK;
    gptner_json_reader_init(&r, b->feed.line.ptr, b->feed.line.len, NULL);
    gptner_json_reader_scratch(&r, b->room, sizeof b->room);
    gpn_read_object(NULL, &r, gpn_record_members, &b->next);
    return GPTNER_OK;
}

static gptner_status gpn_job_bads_open(gpn_job *job, gpn_job_bads *b,
                                       gptner_error *err)
{
    const gpn_env *env = &job->client->env;
    int oserr = 0;
    const char *path = gpn_job_bad_file(job);
    memset(b, 0, sizeof *b);
    if (path == NULL)
        return gpn_no_memory(err, "job");
    if (!gpn_file_open_read(&b->file, env, path, &oserr) &&
        oserr != GPN_E_ABSENT)
        return gpn_file_fail(err, path, "cannot be read", oserr);
    gpn_feed_init(&b->feed, env, &b->file, job->path.data, 1 << 20);
    return gpn_job_bads_next(b, err);
}

/* Hand out the prompts without request that stand before the next result. */
static gptner_status gpn_job_put_bads(gpn_job_bads *b, gpn_tray *tray,
                                      gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    while (status == GPTNER_OK && b->next.requests <= tray->sum.total) {
        gptner_result view;
        char message[sizeof err->message];
        gpn_result_blank(&view);
        gpn_copy_text(message, sizeof message, b->next.message);
        view.index = (size_t)tray->sum.total;
        view.status = (gptner_status)b->next.tokens;
        view.message = message;
        tray->sum.unsent++;
        status = gpn_tray_put(tray, &view, false, err);
        if (status == GPTNER_OK)
            status = gpn_job_bads_next(b, err);
    }
    return status;
}

static gptner_status gpn_job_put_shard(gpn_job *job, size_t k, gpn_job_bads *b,
                                       gpn_tray *tray, gptner_error *err)
{
    const gpn_shard *s = &job->shards[k];
    gpn_job_rows rows;
    gptner_status status = gpn_job_rows_open(job, k, &rows, err);
    gptner_result *view = &rows.join.view;
    while (status == GPTNER_OK) {
        int got = gpn_join_next(&rows.join, err);
        if (got == 0)
            break;
        if (got < 0) {
            status = err->status;
            break;
        }
        if (rows.join.rank == GPN_RANK_NONE &&
            s->state == GPTNER_BATCH_FAILED) {
            view->status = GPTNER_ERR_BATCH_FAILED;
            view->message = s->message;
        }
        status = gpn_job_put_bads(b, tray, err);
        view->index = (size_t)tray->sum.total;
        if (status == GPTNER_OK)
            status = gpn_tray_put(tray, view,
                                  rows.join.rank == GPN_RANK_MALFORMED, err);
    }
    tray->sum.duplicates += rows.open ? rows.join.duplicates : 0;
    tray->sum.strangers += rows.open ? rows.join.strangers : 0;
    gpn_job_rows_close(&rows);
    return status;
}

/* The answers, in the order of the prompts, into their file. */
static gptner_status gpn_job_write(gpn_job *job, gptner_error *err)
{
    gptner_batch_retrieve_config cfg = GPN_ZERO;
    gpn_tray tray = GPN_ZERO;
    gpn_job_bads bads;
    gptner_status status;
    int oserr;
    size_t k;
    cfg.output_path = job->cfg->output_path;
    cfg.result_fn = job->cfg->result_fn;
    cfg.result_user = job->cfg->result_user;
    status = gpn_job_bads_open(job, &bads, err);
    if (status == GPTNER_OK)
        status =
            gpn_tray_open(&tray, job->client, &cfg, (size_t)job->prompts, err);
    for (k = 0; k < job->n_shards && status == GPTNER_OK; k++)
        status = gpn_job_put_shard(job, k, &bads, &tray, err);
    if (status == GPTNER_OK)
        status = gpn_job_put_bads(&bads, &tray, err);
    if (status == GPTNER_OK && tray.sum.total != job->prompts)
        status = gpn_fail(err, GPTNER_ERR_CHANGED,
                          "%s: the job's files hold %lld requests, not %lld",
                          job->path.data, (long long)tray.sum.total,
                          (long long)job->prompts);
    status = gpn_tray_close(&tray, status, err);
    job->sum = tray.sum;
    if (bads.feed.buf.env != NULL)
        gpn_buf_deinit(&bads.feed.buf);
    gpn_file_close(&bads.file, &oserr);
    return status;
}

/* All is settled: write the answers, and tidy up. */
static gptner_status gpn_job_finish(gpn_job *job, gptner_error *err)
{
    gptner_status status = GPTNER_OK;
    job->stage = GPTNER_JOB_FINISHING;
    gpn_job_tell(job, NULL);
    if (!job->written) {
        status = gpn_job_write(job, err);
        if (status == GPTNER_OK)
            status = gpn_job_sync_names(job->cfg->output_path, err);
        if (status == GPTNER_OK)
            status = gpn_job_mark(job, "written", err);
    }
    if (status == GPTNER_OK && job->cfg->delete_remote)
        status = gpn_job_delete_remote(job, err);
    if (status == GPTNER_OK)
        status = gpn_job_sweep(job, false, err);
    if (status == GPTNER_OK)
        status = gpn_job_mark(job, "done", err);
    if (status != GPTNER_OK)
        return status;
    job->stage = GPTNER_JOB_DONE;
    gpn_job_tell(job, "done");
    return GPTNER_OK;
}

/* --- the whole job --- */

static gptner_status gpn_job_check(const gptner_job_config *cfg,
                                   gptner_error *err)
{
    if (cfg->output_path == NULL || *cfg->output_path == '\0' ||
        strcmp(cfg->output_path, "-") == 0)
        return gpn_refuse(err, "job: output_path must name a file, for the "
                               "journal stands beside it");
    if (cfg->max_batches < 0 || cfg->max_enqueued_tokens < 0)
        return gpn_refuse(err, "job: max_batches or max_enqueued_tokens below "
                               "0");
    return gpn_metadata_check(cfg->description, cfg->metadata, cfg->n_metadata,
                              err);
}

static gptner_status gpn_job_lock(gpn_job *job, gptner_error *err)
{
    bool busy = false;
    int oserr = 0;
    if (gpn_lock_take(&job->lock, job->lock_path.data, &busy, &oserr))
        return GPTNER_OK;
    if (!busy)
        return gpn_file_fail(err, job->lock_path.data, "cannot be locked",
                             oserr);
    return gpn_fail(err, GPTNER_ERR_BUSY,
                    "%s: another process works on this job; wait for it, or "
                    "end it",
                    job->cfg->output_path);
}

/* The job is locked: begin it or take it up, and bring it to its end. */
static gptner_status gpn_job_work(gpn_job *job, gptner_error *err)
{
    const char *output = job->cfg->output_path;
    bool there = true;
    gptner_status status = gpn_job_resume(job, err);
    if (status == GPTNER_OK && job->resumed)
        status = gpn_job_sweep(job, true, err);
    if (status == GPTNER_OK)
        status = job->resumed ? gpn_job_check_same(job, err)
                              : gpn_job_plan(job, err);
    if (status == GPTNER_OK && job->written)
        status = gpn_file_look(&job->client->env, output, &there, err);
    if (status != GPTNER_OK)
        return status;
    if (!there)
        return gpn_fail(err, GPTNER_ERR_CHANGED,
                        "%s: is gone, but its job was done; remove %s to begin "
                        "it anew",
                        output, job->path.data);
    if (job->done)
        return GPTNER_OK;
    if (!job->written)
        status = gpn_job_drive(job, err);
    return status == GPTNER_OK ? gpn_job_finish(job, err) : status;
}

static gptner_status gpn_job_init(gpn_job *job, gptner_client *client,
                                  const gptner_job_config *cfg,
                                  gptner_error *err)
{
    const gpn_env *env = &client->env;
    memset(job, 0, sizeof *job);
    job->client = client;
    job->cfg = cfg;
    job->started_ms = gpn_clock_ms(env);
    job->deadline_ms = cfg->max_wait_ms > 0
                           ? gpn_time_add(job->started_ms, cfg->max_wait_ms)
                           : INT64_MAX;
    job->poll_ms = cfg->poll_ms > 0 ? cfg->poll_ms : 60000;
    gpn_buf_init(&job->path, env, 1 << 16);
    gpn_buf_init(&job->lock_path, env, 1 << 16);
    gpn_buf_init(&job->name, env, 1 << 16);
    gpn_buf_add_s(&job->path, cfg->output_path);
    gpn_buf_add(&job->path, ".job", 5);
    gpn_buf_add_s(&job->lock_path, cfg->output_path);
    gpn_buf_add(&job->lock_path, ".job.lock", 10);
    gpn_journal_init(&job->journal, env, job->path.data);
    if (job->path.status != GPTNER_OK || job->lock_path.status != GPTNER_OK)
        return gpn_no_memory(err, "job");
    return gpn_job_lock(job, err);
}

static void gpn_job_deinit(gpn_job *job)
{
    gpn_journal_deinit(&job->journal);
    gpn_lock_give(&job->lock, job->lock_path.data);
    gpn_mem_free(&job->client->env, job->shards);
    gpn_buf_deinit(&job->path);
    gpn_buf_deinit(&job->lock_path);
    gpn_buf_deinit(&job->name);
}

GPTNER_API gptner_status gptner_job_run(gptner_client *client,
                                        const gptner_job_config *cfg,
                                        gptner_job_summary *summary,
                                        gptner_error *err)
{
    gptner_error own = GPN_ZERO;
    gptner_status status;
    gpn_job job;
    if (summary != NULL)
        memset(summary, 0, sizeof *summary);
    if (client == NULL || cfg == NULL)
        return gpn_refuse(err, "job: client or configuration is NULL");
    status = gpn_job_check(cfg, err);
    if (status != GPTNER_OK)
        return status;
    status = gpn_job_init(&job, client, cfg, &own);
    if (status == GPTNER_OK) {
        status = gpn_job_work(&job, &own);
        if (summary != NULL) {
            summary->results = job.sum;
            summary->batches = job.batches;
            summary->resumed = job.resumed;
            summary->was_done = job.done;
            summary->elapsed_ms = gpn_job_now(&job) - job.started_ms;
        }
    }
    gpn_job_deinit(&job);
    if (status != GPTNER_OK && err != NULL)
        *err = own;
    return status;
}

#else /* GPTNER_NO_BATCH */

/* What every call does: with no use for its arguments it zeroes what it would
 * have filled, and says so. */
static gptner_status gpn_batch_absent(const void *one, const void *other,
                                      void *out, size_t size, gptner_error *err)
{
    GPN_UNUSED(one);
    GPN_UNUSED(other);
    if (out != NULL)
        memset(out, 0, size);
    return gpn_fail(err, GPTNER_ERR_UNSUPPORTED,
                    "the Batch API was compiled out (GPTNER_NO_BATCH)");
}

GPTNER_API gptner_status gptner_batch_create_file(
    gptner_client *client, const gptner_batch_create_config *cfg,
    gptner_batch_files **out, gptner_error *err)
{
    return gpn_batch_absent(client, cfg, out, sizeof *out, err);
}

GPTNER_API gptner_status gptner_batch_validate_file(
    const char *path, const char *endpoint, const gptner_allocator *allocator,
    gptner_batch_report **out, gptner_error *err)
{
    GPN_UNUSED(allocator);
    return gpn_batch_absent(path, endpoint, out, sizeof *out, err);
}

GPTNER_API gptner_status gptner_batch_submit(
    gptner_client *client, const gptner_batch_submit_config *cfg,
    gptner_batch **out, gptner_error *err)
{
    return gpn_batch_absent(client, cfg, out, sizeof *out, err);
}

GPTNER_API gptner_status gptner_batch_status(gptner_client *client,
                                             const char *id, gptner_batch **out,
                                             gptner_error *err)
{
    return gpn_batch_absent(client, id, out, sizeof *out, err);
}

GPTNER_API gptner_status gptner_batch_cancel(gptner_client *client,
                                             const char *id, gptner_batch **out,
                                             gptner_error *err)
{
    return gpn_batch_absent(client, id, out, sizeof *out, err);
}

GPTNER_API gptner_status gptner_batch_list(gptner_client *client,
                                           const char *after, int limit,
                                           gptner_batches **out,
                                           gptner_error *err)
{
    GPN_UNUSED(limit);
    return gpn_batch_absent(client, after, out, sizeof *out, err);
}

GPTNER_API gptner_status gptner_batch_wait(gptner_client *client,
                                           const char *id,
                                           const gptner_batch_wait_config *cfg,
                                           gptner_batch **out,
                                           gptner_error *err)
{
    GPN_UNUSED(cfg);
    return gpn_batch_absent(client, id, out, sizeof *out, err);
}

GPTNER_API gptner_status
gptner_batch_retrieve(gptner_client *client, const char *id,
                      const gptner_batch_retrieve_config *cfg,
                      gptner_batch_summary *summary, gptner_error *err)
{
    GPN_UNUSED(cfg);
    return gpn_batch_absent(client, id, summary, sizeof *summary, err);
}

GPTNER_API gptner_status gptner_batch_read(
    gptner_client *client, const char *output_path, const char *error_path,
    const gptner_batch_retrieve_config *cfg, gptner_batch_summary *summary,
    gptner_error *err)
{
    GPN_UNUSED(error_path);
    GPN_UNUSED(cfg);
    return gpn_batch_absent(client, output_path, summary, sizeof *summary, err);
}

GPTNER_API gptner_status gptner_job_run(gptner_client *client,
                                        const gptner_job_config *cfg,
                                        gptner_job_summary *summary,
                                        gptner_error *err)
{
    return gpn_batch_absent(client, cfg, summary, sizeof *summary, err);
}

GPTNER_API void gptner_batch_files_free(gptner_batch_files *nothing)
{
    GPN_UNUSED(nothing);
}

GPTNER_API void gptner_batch_report_free(gptner_batch_report *nothing)
{
    GPN_UNUSED(nothing);
}

GPTNER_API void gptner_batch_free(gptner_batch *nothing)
{
    GPN_UNUSED(nothing);
}

GPTNER_API void gptner_batches_free(gptner_batches *nothing)
{
    GPN_UNUSED(nothing);
}

#endif /* GPTNER_NO_BATCH */

/* ===========================================================================
 * >>ner        layer 10  labels, answers, data, scores, demonstrations
 * calls: >>batch >>api >>pool >>json >>bytes >>platform
 *
 * Texts in, typed spans out. Whatever a model answers, an entity is a place in
 * the untouched source, or it is lost; no text is ever taken from an answer.
 * ======================================================================== */

#ifndef GPTNER_NO_NER

/* --- labels --- */

/* --- answers: marks and offers ---
 *
 * Marked text is read by one scan, in one of two modes. Quick: the answer is
 * compared with the source while it is read, and a mark's place in the source
 * is known at once; that is all for an answer that equals the source but for
 * marks. At the first difference it starts again in the other mode: text goes
 * to a.plain, and marks have their places there, to be aligned with the source
 * afterwards. Both read marks by the same code, so they agree. An entity under
 * way uses fields that are set later: see gpn_mention. */

#define GPN_ANSWER_MAX   ((size_t)512 << 20) /* bytes of a text */
#define GPN_ANSWER_DEPTH 64u /* mentions in each other; bounds time */
#define GPN_ANSWER_STEPS ((int64_t)1 << 26) /* of searching: 0.2 s or so */

/* An entity while the answer is read: e.bytes is its place in plain (quick: in
 * the source). */
typedef struct gpn_mention {
    gptner_entity e;
    size_t outer;        /* the open mention around it, from 1; 0: none */
    size_t depth;        /* how many are open with it */
    bool opened, closed; /* by a mark */
    bool unknown;        /* its label was not asked for */
} gpn_mention;

typedef struct gpn_answer {
    const gpn_env *env;
    const gptner_answer_config *cfg;
    gptner_str source, bare; /* bare: without white space around */
    gptner_str open, close;
    gpn_buf found;  /* gpn_mention */
    gpn_buf plain;  /* the answer without its marks */
    gpn_arena kept; /* texts of JSON that had escapes */
    bool quick;
    size_t at;        /* quick: how much of bare has been repeated */
    size_t innermost; /* the mention that is open, from 1; 0: none */
    gptner_status status;
    const char *message; /* of the document */
} gpn_answer;

static gpn_mention *gpn_mentions(const gpn_answer *a, size_t *count)
{
    *count = a->found.len / sizeof(gpn_mention);
    return (gpn_mention *)(void *)a->found.data;
}

/* A further mention; NULL: no memory. */
static gpn_mention *gpn_mention_add(gpn_answer *a, gptner_str label, size_t at)
{
    gpn_mention m;
    size_t count;
    memset(&m, 0, sizeof m);
    m.e.label = label;
    m.e.bytes.begin = m.e.bytes.end = at;
    m.e.confidence = -1;
    if (a->found.cap == 0)
        gpn_buf_reserve(&a->found, 16 * sizeof m);
    gpn_buf_add(&a->found, (const char *)&m, sizeof m);
    if (a->found.status != GPTNER_OK)
        return NULL;
    return gpn_mentions(a, &count) + a->found.len / sizeof m - 1;
}

/* Where what stands first, or end. */
static const char *gpn_seek(const char *p, const char *end, gptner_str what)
{
    while ((size_t)(end - p) >= what.len &&
           (p = (const char *)memchr(
                p, what.ptr[0], (size_t)(end - p) - what.len + 1)) != NULL) {
        if (memcmp(p, what.ptr, what.len) == 0)
            return p;
        p++;
    }
    return end;
}

static gptner_str gpn_strip(gptner_str s)
{
    s = gpn_skip_space(s);
    while (s.len > 0 && (unsigned char)s.ptr[s.len - 1] <= ' ')
        s.len--;
    return s;
}

static bool gpn_labels_any(const gptner_labels *labels)
{
    return labels == NULL || labels->count == 0;
}

/* The label that is meant where none is said: the only one. */
static gptner_str gpn_label_only(const gpn_answer *a)
{
    const gptner_labels *labels = a->cfg->labels;
    if (!gpn_labels_any(labels) &&
        (labels->count == 1 || a->cfg->strategy == GPTNER_STRATEGY_MARKER))
        return labels->items[0].name;
    return gpn_str("", 0);
}

/* Makes *said the label's name; by name, in another case, or by title. false:
 * none of those that were asked for. */
static bool gpn_label_known(const gptner_labels *labels, gptner_str *said)
{
    size_t i;
    int how;
    if (gpn_labels_any(labels))
        return said->len > 0;
    for (how = 0; how < 3 && said->len > 0; how++) {
        for (i = 0; i < labels->count; i++) {
            const gptner_label *l = &labels->items[i];
            gptner_str name = how < 2 ? l->name : l->title;
            if (name.len == said->len &&
                gpn_char_eq(name.ptr, said->ptr, name.len, how > 0)) {
                *said = l->name;
                return true;
            }
        }
    }
    return false;
}

/* The length of name and the '|' or ':' behind it, at the start of s. */
static size_t gpn_mark_prefix(gptner_str s, gptner_str name)
{
    size_t n = name.len;
    if (n == 0 || s.len <= n || !gpn_char_eq(s.ptr, name.ptr, n, true))
        return 0;
    while (n < s.len && s.ptr[n] == ' ')
        n++;
    return n < s.len && (s.ptr[n] == '|' || s.ptr[n] == ':') ? n + 1 : 0;
}

/* The label at the start of a mention, "PER|": its length, 0 if there is none.
 * Also of one that was not asked for, unless one that was stands behind: in
 * "Columbus|PER". */
static size_t gpn_mark_label(const gpn_answer *a, gptner_str s,
                             gptner_str *label)
{
    const gptner_labels *labels = a->cfg->labels;
    gptner_str rest = gpn_skip_space(s), other;
    const char *p = rest.ptr, *end, *stop;
    size_t best = 0, i, n;
    for (i = 0; !gpn_labels_any(labels) && i < labels->count; i++) {
        const gptner_label *l = &labels->items[i];
        n = gpn_mark_prefix(rest, l->name);
        best = n > best ? n : best;
        n = gpn_mark_prefix(rest, l->title);
        best = n > best ? n : best;
    }
    if (best == 0) {
        end = p + (rest.len < 96 ? rest.len : 96);
        end = gpn_seek(p, end, gpn_str("\n", 1));
        end = gpn_seek(p, end, a->open);
        end = gpn_seek(p, end, a->close);
        stop = gpn_seek(p, end, gpn_str("|", 1));
        other = stop < end
                    ? gpn_strip(gpn_str(stop + 1, (size_t)(end - stop) - 1))
                    : rest;
        if (stop == end ||
            (!gpn_labels_any(labels) && gpn_label_known(labels, &other)))
            return 0;
        best = (size_t)(stop - p) + 1;
    }
    *label = gpn_strip(gpn_str(p, best - 1));
    return (size_t)(p - s.ptr) + best;
}

static size_t gpn_marks_here(const gpn_answer *a)
{
    return a->quick ? (size_t)(a->bare.ptr - a->source.ptr) + a->at
                    : a->plain.len;
}

/* Text between marks. false: it is not the source's. The source may come
 * several times, with white space between. */
static bool gpn_marks_text(gpn_answer *a, const char *p, const char *end)
{
    if (!a->quick) {
        gpn_buf_add(&a->plain, p, (size_t)(end - p));
        return true;
    }
    for (;;) {
        size_t n = a->bare.len - a->at;
        if (a->at == 0 || n == 0)
            p = gpn_skip_space(gpn_str(p, (size_t)(end - p))).ptr;
        if (p == end)
            return true;
        if (n == 0) {
            if (a->innermost != 0 || a->bare.len == 0)
                return false;
            a->at = 0;
            continue;
        }
        n = (size_t)(end - p) < n ? (size_t)(end - p) : n;
        if (memcmp(p, a->bare.ptr + a->at, n) != 0)
            return false;
        p += n;
        a->at += n;
    }
}

/* An opening mark; *p is behind it, and then behind the label. */
static bool gpn_marks_open(gpn_answer *a, const char **p, const char *end)
{
    gptner_str label = gpn_label_only(a);
    bool known = true;
    gpn_mention *m;
    size_t count;
    if (a->cfg->strategy == GPTNER_STRATEGY_MARKER_ALL) {
        *p += gpn_mark_label(a, gpn_str(*p, (size_t)(end - *p)), &label);
        known = gpn_label_known(a->cfg->labels, &label);
    }
    if (a->quick && a->at == a->bare.len && a->innermost == 0)
        a->at = 0;
    m = gpn_mention_add(a, label, gpn_marks_here(a));
    if (m == NULL || (a->quick && !known))
        return false;
    m->opened = true;
    m->unknown = !known;
    m->outer = a->innermost;
    m->depth = 1;
    if (m->outer != 0)
        m->depth += gpn_mentions(a, &count)[m->outer - 1].depth;
    if (m->depth > GPN_ANSWER_DEPTH) { /* those around: nobody closes them */
        m->outer = 0;
        m->depth = 1;
        if (a->quick)
            return false;
    }
    a->innermost = a->found.len / sizeof *m;
    return true;
}

/* Of "Columbus|PER" the label, if it was asked for; plain then ends before. */
static bool gpn_mark_suffix(gpn_answer *a, gpn_mention *m)
{
    size_t at = a->plain.len;
    gptner_str label;
    while (at > m->e.bytes.begin && a->plain.data[at - 1] != '|' &&
           a->plain.len - at < 64)
        at--;
    if (at == m->e.bytes.begin || a->plain.data[at - 1] != '|')
        return false;
    /* plain moves as it grows, but names stay */
    label = gpn_strip(gpn_str(a->plain.data + at, a->plain.len - at));
    if (gpn_labels_any(a->cfg->labels) ||
        !gpn_label_known(a->cfg->labels, &label))
        return false;
    m->e.label = label;
    a->plain.len = at - 1;
    return true;
}

static bool gpn_marks_close(gpn_answer *a)
{
    size_t here = gpn_marks_here(a), count;
    gpn_mention *m;
    if (a->innermost == 0) {
        m = a->quick ? NULL : gpn_mention_add(a, gpn_label_only(a), here);
        if (m == NULL)
            return false;
        m->closed = true;
        m->unknown =
            m->e.label.len == 0 && a->cfg->strategy != GPTNER_STRATEGY_MARKER;
        return true;
    }
    m = gpn_mentions(a, &count) + a->innermost - 1;
    a->innermost = m->outer;
    if (m->unknown && !a->quick && gpn_mark_suffix(a, m)) {
        m->unknown = false;
        here = a->plain.len;
    }
    m->e.bytes.end = here;
    m->closed = true;
    return !a->quick || here > m->e.bytes.begin;
}

/* Finds all marks. false: no memory; in quick mode also where the answer is
 * not the source with marks. */
static bool gpn_marks_scan(gpn_answer *a, bool quick)
{
    const char *p = a->cfg->answer.ptr, *end = p + a->cfg->answer.len;
    const char *open = gpn_seek(p, end, a->open);
    const char *close = gpn_seek(p, end, a->close);
    bool good = true;
    a->quick = quick;
    a->at = a->innermost = 0;
    gpn_buf_clear(&a->found);
    while (good && (open < end || close < end)) {
        bool opens = open < close || (open == close && a->innermost == 0);
        const char *mark = opens ? open : close;
        good = gpn_marks_text(a, p, mark);
        p = mark + (opens ? a->open.len : a->close.len);
        good =
            good && (opens ? gpn_marks_open(a, &p, end) : gpn_marks_close(a));
        if (open < p)
            open = gpn_seek(p, end, a->open);
        if (close < p)
            close = gpn_seek(p, end, a->close);
    }
    good = good && gpn_marks_text(a, p, end);
    if (quick)
        return good && a->at == a->bare.len && a->innermost == 0;
    return good && a->found.status == GPTNER_OK && a->plain.status == GPTNER_OK;
}

/* Pairs of markers, the opening one first, the best first. */
static const char gpn_marker_list[] = "@@\0##\0<<\0>>\0[[\0]]\0{{\0}}\0"
                                      "\xe2\x9f\xa6\0\xe2\x9f\xa7\0"
                                      "\xe2\x9f\xaa\0\xe2\x9f\xab\0";

/* Whether one of the texts has the first character of marker. */
static bool gpn_marker_occurs(const gptner_str *texts, size_t count,
                              const char *marker)
{
    size_t n = (marker[0] & 0x80) != 0 ? strlen(marker) : 1, i;
    for (i = 0; i < count; i++) {
        const char *end = texts[i].ptr + texts[i].len;
        if (texts[i].len > 0 &&
            gpn_seek(texts[i].ptr, end, gpn_str(marker, n)) < end)
            return true;
    }
    return false;
}

GPTNER_API bool gptner_markers_choose(const gptner_str *texts, size_t count,
                                      gptner_markers *out)
{
    const char *p = gpn_marker_list;
    uint32_t cp;
    memset(out, 0, sizeof *out);
    for (; *p != '\0'; p += strlen(p) + 1) {
        memcpy(out->open, p, strlen(p) + 1);
        p += strlen(p) + 1;
        memcpy(out->close, p, strlen(p) + 1);
        if (!gpn_marker_occurs(texts, count, out->open) &&
            !gpn_marker_occurs(texts, count, out->close))
            return true;
    }
    memset(out, 0, sizeof *out);
    for (cp = 0x2500; cp < 0x2800; cp++) { /* boxes, shapes, signs */
        char *marker = out->open[0] == '\0' ? out->open : out->close;
        gpn_utf8_put(cp, marker);
        if (gpn_marker_occurs(texts, count, marker))
            memset(marker, 0, sizeof out->open);
        else if (marker == out->close)
            return true;
    }
    memcpy(out->open, "@@", 3);
    memcpy(out->close, "##", 3);
    return false;
}

/* The entities that can be marked together with those before them: their
 * numbers go to stack, their mark in done. Writes the text with them. */
static void gpn_marks_pass(gpn_buf *out, const gptner_doc *doc,
                           const gptner_answer_config *cfg, size_t *stack,
                           bool *done)
{
    const gptner_markers *mk = &cfg->markers;
    size_t depth = 0, at = 0, i = 0;
    while (i < doc->n_entities || depth > 0) {
        const gptner_entity *e = &doc->entities[i < doc->n_entities ? i : 0];
        size_t end =
            depth > 0 ? doc->entities[stack[depth - 1]].bytes.end : SIZE_MAX;
        if (i < doc->n_entities &&
            (done[i] || e->bytes.begin < at ||
             (e->bytes.begin < end && e->bytes.end > end))) {
            i++;
            continue;
        }
        if (i == doc->n_entities || e->bytes.begin >= end) {
            gpn_buf_add(out, doc->text.ptr + at, end - at);
            gpn_buf_add_s(out, mk->close);
            at = end;
            depth--;
            continue;
        }
        gpn_buf_add(out, doc->text.ptr + at, e->bytes.begin - at);
        gpn_buf_add_s(out, mk->open);
        if (cfg->strategy == GPTNER_STRATEGY_MARKER_ALL) {
            gpn_buf_add_str(out, e->label);
            gpn_buf_add_c(out, '|');
        }
        at = e->bytes.begin;
        done[i] = true;
        stack[depth++] = i++;
    }
    gpn_buf_add(out, doc->text.ptr + at, doc->text.len - at);
}

/* The text of doc with marks, as gptner_answer_write() says. */
static void gpn_marks_write(gpn_buf *out, const gptner_doc *doc,
                            const gptner_answer_config *cfg)
{
    bool single =
        cfg->strategy == GPTNER_STRATEGY_MARKER && !gpn_labels_any(cfg->labels);
    size_t n = doc->n_entities, size, i;
    size_t *stack = NULL;
    bool *done, first = true;
    if (gpn_size_mul(n, sizeof *stack + 1, &size))
        stack = (size_t *)gpn_mem_alloc(out->env, size);
    if (stack == NULL) {
        out->status = GPTNER_ERR_NO_MEMORY;
        return;
    }
    done = (bool *)(stack + n);
    for (i = 0; i < n; i++) {
        const gptner_entity *e = &doc->entities[i];
        done[i] = e->bytes.begin >= e->bytes.end ||
                  e->bytes.end > doc->text.len ||
                  (single && !gpn_str_eq(e->label, cfg->labels->items[0].name));
    }
    do {
        if (!first)
            gpn_buf_add_c(out, '\n');
        first = false;
        gpn_marks_pass(out, doc, cfg, stack, done);
        for (i = 0; i < n && done[i]; i++) {
        }
    } while (i < n && out->status == GPTNER_OK);
    gpn_mem_free(out->env, stack);
}

/* Where the words before a mention begin that tell it from others like it:
 * three, or more if these and the mention stand elsewhere, too. */
static size_t gpn_offer_context(gptner_str text, const gptner_entity *e)
{
    const char *end = text.ptr + text.len;
    size_t at = e->bytes.begin;
    int words;
    for (words = 0; at > 0 && words < 40; words++) {
        gptner_str part = gpn_str(text.ptr + at, e->bytes.end - at);
        const char *hit = gpn_seek(text.ptr, end, part);
        if (words >= 3 && hit == part.ptr &&
            gpn_seek(hit + 1, end, part) == end)
            break;
        while (at > 0 && (unsigned char)text.ptr[at - 1] <= ' ')
            at--;
        for (part.len = 0;
             at > 0 && (unsigned char)text.ptr[at - 1] > ' ' && part.len < 24;
             part.len++)
            at--;
        while (at > 0 && (text.ptr[at] & 0xc0) == 0x80)
            at--;
    }
    return at;
}

/* The entities of doc as the JSON that is asked for. */
static void gpn_offers_write(gptner_json_writer *w, const gptner_doc *doc)
{
    size_t i;
    gptner_json_write_object(w);
    gptner_json_put_array(w, "entities");
    for (i = 0; i < doc->n_entities; i++) {
        const gptner_entity *e = &doc->entities[i];
        size_t at = 0;
        if (e->bytes.begin >= e->bytes.end || e->bytes.end > doc->text.len)
            continue;
        at = gpn_offer_context(doc->text, e);
        gptner_json_write_object(w);
        gptner_json_put_str(
            w, "before",
            gpn_strip(gpn_str(doc->text.ptr + at, e->bytes.begin - at)));
        gptner_json_put_str(w, "text",
                            gpn_str(doc->text.ptr + e->bytes.begin,
                                    e->bytes.end - e->bytes.begin));
        gptner_json_put_str(w, "label", e->label);
        gptner_json_write_end(w);
    }
    gptner_json_write_end(w);
    gptner_json_write_end(w);
}

/* The start of the schema of an object that has all of the keys, which are
 * closed by NULL, and no others; its properties are to follow. */
static void gpn_schema_object(gptner_json_writer *w, const char *const *keys)
{
    gptner_json_put_string(w, "type", "object");
    gptner_json_put_bool(w, "additionalProperties", false);
    gptner_json_put_array(w, "required");
    for (; *keys != NULL; keys++)
        gptner_json_write_string(w, *keys);
    gptner_json_write_end(w);
    gptner_json_put_object(w, "properties");
}

static void gpn_schema_write(gptner_json_writer *w, const gptner_labels *labels)
{
    static const char *const outer[] = {"entities", NULL};
    static const char *const inner[] = {"before", "text", "label", NULL};
    static const char *const what[] = {
        "the words right before the entity, copied; empty at the start",
        "the entity, copied from the text", "what kind of entity it is"};
    size_t i, k;
    gptner_json_write_object(w);
    gpn_schema_object(w, outer);
    gptner_json_put_object(w, outer[0]);
    gptner_json_put_string(w, "type", "array");
    gptner_json_put_object(w, "items");
    gpn_schema_object(w, inner);
    for (i = 0; inner[i] != NULL; i++) {
        gptner_json_put_object(w, inner[i]);
        gptner_json_put_string(w, "type", "string");
        gptner_json_put_string(w, "description", what[i]);
        if (i == 2 && !gpn_labels_any(labels)) {
            gptner_json_put_array(w, "enum");
            for (k = 0; k < labels->count; k++)
                gptner_json_write_str(w, labels->items[k].name);
            gptner_json_write_end(w);
        }
        gptner_json_write_end(w);
    }
    for (i = 0; i < 5; i++) /* inner, items, the array, outer, all */
        gptner_json_write_end(w);
}

/* --- answers: the alignment ---
 *
 * Source and answer become words of folded characters (glyphs): without case,
 * accents, white space, escapes, and with one kind of quotes and dashes; a
 * character of a script without spaces is a word. The words are aligned by
 * Myers' O(ND) difference in linear space, given up on at GPN_DIFF_MAX edits a
 * part for the furthest point reached, which bounds time for hostile answers.
 * A mention whose first and last words have partners is between these. Else it
 * is looked for, by edit distance, between the partners of its neighbours. What
 * stands in a long part of the answer without partners (the text once more, or
 * in another order) is tried again with that part alone. Offers of JSON have no
 * place in an answer: all occurrences are scored by context and order.
 *
 * Aligning characters instead of words was rejected: it finds partners for the
 * letters of any word in any other. */

/* What a character is to the alignment. */
enum {
    GPN_GLYPH_SPACE,
    GPN_GLYPH_WORD,   /* makes words with its like */
    GPN_GLYPH_SINGLE, /* a word by itself: Han, Kana, Hangul, Thai, ... */
    GPN_GLYPH_PUNCT,  /* also a word by itself */
    GPN_GLYPH_MARK,   /* belongs to the one before, and is not compared */
    GPN_GLYPH_SIGN,   /* belongs to the one before, and is compared */
    GPN_GLYPH_VOID    /* as if it were not there */
};

#define GPN_GLYPH_INVALID 0x110000u /* and the byte */

/* The first character of each stretch of the same kind, and the kind in the
 * low bits. From the general categories and word breaks of Unicode 15, less
 * what makes no difference here. */
#define S(cp) (cp##u << 3 | GPN_GLYPH_SPACE)
#define W(cp) (cp##u << 3 | GPN_GLYPH_WORD)
#define C(cp) (cp##u << 3 | GPN_GLYPH_SINGLE)
#define P(cp) (cp##u << 3 | GPN_GLYPH_PUNCT)
#define M(cp) (cp##u << 3 | GPN_GLYPH_MARK)
#define G(cp) (cp##u << 3 | GPN_GLYPH_SIGN)
#define V(cp) (cp##u << 3 | GPN_GLYPH_VOID)
/* clang-format off */
static const uint32_t gpn_glyph_kinds[] = {
    S(0x0), P(0x21), W(0x30), P(0x3a), W(0x41), P(0x5b), W(0x5f), P(0x60),
    W(0x61), P(0x7b), V(0x7f), S(0x80), P(0xa1), W(0xaa), P(0xab), V(0xad),
    P(0xae), W(0xb5), P(0xb6), W(0xba), P(0xbb), W(0xc0), P(0xd7), W(0xd8),
    P(0xf7), W(0xf8), M(0x300), W(0x370), M(0x483), W(0x48a), P(0x55a),
    W(0x560), P(0x589), M(0x591), P(0x5be), M(0x5bf), P(0x5c0), M(0x5c1),
    P(0x5c3), M(0x5c4), P(0x5c6), M(0x5c7), W(0x5c8), P(0x5f3), W(0x5f5),
    M(0x610), P(0x61b), V(0x61c), P(0x61d), W(0x620), V(0x640), W(0x641),
    M(0x64b), W(0x660), P(0x66a), W(0x66e), M(0x670), W(0x671), P(0x6d4),
    W(0x6d5), M(0x6d6), W(0x6ee), P(0x700), W(0x710), G(0x900), W(0x904),
    G(0x93a), W(0x93d), G(0x93e), W(0x950), G(0x951), W(0x958), G(0x962),
    P(0x964), W(0x966), C(0xe00), G(0xe31), C(0xe32), G(0xe34), C(0xe3b),
    G(0xe47), C(0xe4f), G(0xeb1), C(0xeb2), G(0xeb4), C(0xebd), G(0xec8),
    C(0xecf), G(0xf71), C(0xf85), G(0xf8d), C(0xfbd), G(0x102b), C(0x103f),
    G(0x1056), C(0x105a), W(0x10a0), C(0x1100), G(0x1160), W(0x1200),
    M(0x135d), P(0x1360), W(0x1369), S(0x1680), W(0x1681), C(0x1780),
    G(0x17b4), C(0x17d4), W(0x1800), M(0x180b), W(0x1810), M(0x1ab0),
    W(0x1b00), M(0x1dc0), W(0x1e00), S(0x2000), V(0x200b), M(0x200d),
    V(0x200e), P(0x2010), S(0x2028), V(0x202a), S(0x202f), P(0x2030),
    S(0x205f), V(0x2060), W(0x2070), P(0x20a0), M(0x20d0), P(0x2100),
    W(0x2150), P(0x2190), W(0x2c00), P(0x2e00), C(0x2e80), S(0x3000),
    P(0x3001), C(0x3005), P(0x3008), C(0x3021), M(0x302a), P(0x3030),
    C(0x3031), G(0x3099), C(0x309b), P(0x30fb), C(0x30fc), W(0xa4d0),
    C(0xac00), W(0xd7b0), P(0xe000), C(0xf900), W(0xfb00), P(0xfd3e),
    W(0xfd40), M(0xfe00), P(0xfe10), M(0xfe20), P(0xfe30), W(0xfe70),
    V(0xfeff), P(0xff00), C(0xff66), G(0xff9e), C(0xffa0), P(0xffe0),
    W(0x10000), P(0x1d000), W(0x1d400), P(0x1f000), M(0x1f3fb), P(0x1f400),
    C(0x20000), M(0xe0000), P(0xf0000)};
/* clang-format on */
#undef S
#undef W
#undef C
#undef P
#undef M
#undef G
#undef V

/* Latin letters without case and accents: letter and, from '0', how many code
 * points in a row; '?': none of ours. From U+00C0 to U+024F, and U+1E00 on. */
static const char gpn_latin[] =
    "a7c1e4i4d1n1o5?1o1u4y1t1s1a7c1e4i4d1n1o5?1o1u4y1t1y1a6c8d4e:g8h4i<j2k3"
    "l:n9o8r6s8t6u<w2y3z6s1"
    "?Po2?=u2?La2i2o2u:?1a4?4g2k2o4?2j1?3g2?2n2a2?4a4e4i4o4r4u4s2t2?2h2?6a2"
    "e2o8y2?L";
static const char gpn_latin_more[] =
    "a2b6c2d:e:f2g2h:i4k6l8m6n8o8p4r8s:t8u:v4w:x4y2z6h1t1w1y1a1s4d1aHe@i4oH"
    "u>y8l2v2y2";

/* The same of Greek from U+0386 to U+03CE, as bytes above U+0300. */
static const char gpn_greek[] =
    "\xb1\x87\xb5\xb7\xb9\x8b\xbf\x8d\xc5\xc9\xb9\xb1\xb2\xb3\xb4\xb5\xb6\xb7"
    "\xb8\xb9\xba\xbb\xbc\xbd\xbe\xbf\xc0\xc1\xa2\xc3\xc4\xc5\xc6\xc7\xc8\xc9"
    "\xb9\xc5\xb1\xb5\xb7\xb9\xc5\xb1\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xbb"
    "\xbc\xbd\xbe\xbf\xc0\xc1\xc3\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xb9\xc5\xbf\xc5"
    "\xc9";

/* Stretches that stand for one ASCII character. */
static const struct {
    uint16_t first, last;
    char to;
} gpn_signs[] = {
    {0xab, 0xab, '"'},     {0xb4, 0xb4, '"'},     {0xbb, 0xbb, '"'},
    {0x2010, 0x2015, '-'}, {0x2018, 0x201f, '"'}, {0x2026, 0x2026, '.'},
    {0x2032, 0x2037, '"'}, {0x2039, 0x203a, '"'}, {0x2212, 0x2212, '-'},
    {0x3001, 0x3001, ','}, {0x3002, 0x3002, '.'}, {0x300c, 0x300f, '"'},
    {0xfe58, 0xfe58, '-'}, {0xfe63, 0xfe63, '-'}};

static uint32_t gpn_latin_fold(const char *runs, uint32_t cp, uint32_t at)
{
    for (; at >= (uint32_t)(runs[1] - '0'); runs += 2)
        at -= (uint32_t)(runs[1] - '0');
    return *runs != '?' ? (unsigned char)*runs : cp;
}

static uint32_t gpn_glyph_fold(uint32_t cp)
{
    size_t i;
    if (cp >= 0xff01 && cp <= 0xff5e)
        cp -= 0xfee0;
    if (cp < 0x80)
        return cp == '\'' || cp == '`' ? '"'
                                       : (uint32_t)gpn_char_lower((char)cp);
    if (cp >= 0xc0 && cp < 0x250)
        return gpn_latin_fold(gpn_latin, cp, cp - 0xc0);
    if (cp >= 0x1e00 && cp < 0x1f00)
        return gpn_latin_fold(gpn_latin_more, cp, cp - 0x1e00);
    if (cp >= 0x386 && cp <= 0x3ce)
        return 0x300u + (unsigned char)gpn_greek[cp - 0x386];
    if (cp >= 0x400 && cp < 0x482) {
        cp += cp < 0x410 ? 80 : cp < 0x430 ? 32 : cp >= 0x460 ? ~cp & 1 : 0;
        return cp == 0x451 ? 0x435 : cp == 0x439 ? 0x438 : cp; /* yo, short i */
    }
    if (cp >= 0x531 && cp <= 0x556)
        return cp + 48;
    for (i = 0; i < GPN_COUNT(gpn_signs); i++)
        if (cp >= gpn_signs[i].first && cp <= gpn_signs[i].last)
            return (unsigned char)gpn_signs[i].to;
    return cp;
}

/* A capital or a digit; of some Latin letters a guess. */
static bool gpn_glyph_is_upper(uint32_t cp)
{
    return (cp >= '0' && cp <= '9') || (cp >= 'A' && cp <= 'Z') ||
           (cp >= 0xc0 && cp <= 0xde) ||
           (((cp >= 0x100 && cp < 0x250) || (cp >= 0x1e00 && cp < 0x1f00)) &&
            (cp & 1) == 0) ||
           (cp >= 0x386 && cp <= 0x3ab) || (cp >= 0x400 && cp <= 0x42f) ||
           (cp >= 0x531 && cp <= 0x556);
}

static uint32_t gpn_glyph_kind(uint32_t cp)
{
    size_t low = 0, high = GPN_COUNT(gpn_glyph_kinds);
    if (cp >= 0x980 && cp < 0xe00) /* scripts of India, in the same order */
        cp = 0x900 + (cp & 0x7f);
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (gpn_glyph_kinds[middle] >> 3 <= cp)
            low = middle;
        else
            high = middle;
    }
    return gpn_glyph_kinds[low] & 7;
}

/* One character, or one byte that is none: its length. */
static size_t gpn_char_get(const char *p, size_t len, uint32_t *cp)
{
    size_t n = gpn_utf8_get(p, len, cp);
    if (n == 0) {
        *cp = GPN_GLYPH_INVALID + (unsigned char)*p;
        n = 1;
    }
    return n;
}

/* --- places in a text --- */

/* Whether a character, or what belongs to it, goes on at the byte at. */
static bool gpn_spot_inside(gptner_str s, size_t at)
{
    uint32_t cp, kind;
    size_t back;
    if (at == 0 || at >= s.len || (s.ptr[at] & 0x80) == 0)
        return false;
    for (back = 1; back <= 3 && back <= at; back++)
        if (gpn_utf8_get(s.ptr + at - back, s.len - at + back, &cp) > back)
            return true;
    gpn_char_get(s.ptr + at, s.len - at, &cp);
    kind = gpn_glyph_kind(cp);
    return kind == GPN_GLYPH_MARK || kind == GPN_GLYPH_SIGN;
}

/* The span without white space around, and widened to whole characters with
 * their marks. May become empty. */
static void gpn_span_tidy(gptner_str s, gptner_span *span)
{
    int i;
    while (span->begin < span->end && (unsigned char)s.ptr[span->begin] <= ' ')
        span->begin++;
    while (span->begin < span->end &&
           (unsigned char)s.ptr[span->end - 1] <= ' ')
        span->end--;
    if (span->begin == span->end)
        return;
    /* bounded: a character with a thousand marks is cut, but never inside one
     * of them */
    for (i = 0; (i < 128 || (s.ptr[span->begin] & 0xc0) == 0x80) &&
                gpn_spot_inside(s, span->begin);
         i++)
        span->begin--;
    for (i = 0; (i < 128 ||
                 (span->end < s.len && (s.ptr[span->end] & 0xc0) == 0x80)) &&
                gpn_spot_inside(s, span->end);
         i++)
        span->end++;
}

/* A place in all three counts. */
typedef struct gpn_spot {
    size_t byte, code_points, utf16;
} gpn_spot;

/* Goes on to a later byte, where a character begins. */
static void gpn_spot_move(gpn_spot *p, gptner_str s, size_t to)
{
    while (p->byte < to) {
        uint64_t eight;
        uint32_t cp;
        if (to - p->byte >= 8) {
            memcpy(&eight, s.ptr + p->byte, 8);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                p->byte += 8;
                p->code_points += 8;
                p->utf16 += 8;
                continue;
            }
        }
        p->byte += gpn_char_get(s.ptr + p->byte, s.len - p->byte, &cp);
        p->code_points++;
        p->utf16 += cp >= 0x10000 && cp < GPN_GLYPH_INVALID ? 2 : 1;
    }
}

#define GPN_SPOT_STEP 256 /* bytes */

/* The place of a byte that may be before p; places keeps one a step, so that
 * many long entities inside each other take no more time than short ones. */
static gpn_spot gpn_spot_find(gpn_buf *places, gptner_str s, gpn_spot p,
                              size_t to)
{
    if (to - p.byte > GPN_SPOT_STEP) {
        gpn_spot *known, at;
        size_t n = places->len / sizeof at;
        memset(&at, 0, sizeof at);
        known = (gpn_spot *)(void *)places->data;
        if (n > 0)
            at = known[n - 1];
        for (; n <= to / GPN_SPOT_STEP; n++) {
            gpn_spot_move(&at, s, n * GPN_SPOT_STEP);
            gpn_buf_add(places, (const char *)&at, sizeof at);
        }
        known = (gpn_spot *)(void *)places->data;
        if (places->status == GPTNER_OK) {
            p = known[to / GPN_SPOT_STEP];
            if (p.byte > to) /* the last character before a step is cut by it */
                p = known[to / GPN_SPOT_STEP - 1];
        }
    }
    gpn_spot_move(&p, s, to);
    return p;
}

/* --- words of folded characters --- */

typedef struct gpn_glyph {
    uint32_t code;       /* the folded character, its kind above */
    uint32_t begin, end; /* in the text, with what belongs to it */
    uint32_t word;
} gpn_glyph;

#define GPN_NO_WORD 0xffffffffu

typedef struct gpn_word {
    uint32_t first; /* glyph */
    uint32_t hash;
    uint32_t match;     /* of an answer: the word of the source */
    uint32_t low, high; /* between which words of the source it stands */
} gpn_word;

/* What answers escape, though the source does not. */
enum {
    GPN_ESCAPE_SLASH = 1, /* \" \n */
    GPN_ESCAPE_AMP = 2,   /* &amp; */
    GPN_ESCAPE_TAG = 4    /* <b> */
};

typedef struct gpn_folded {
    gptner_str text;
    gpn_buf glyph_buf, word_buf;
    gpn_glyph *glyphs;
    gpn_word *words; /* one more: the end */
    size_t n_glyphs, n_words;
    unsigned escapes;
} gpn_folded;

static void gpn_folded_init(gpn_folded *f, const gpn_env *env)
{
    memset(f, 0, sizeof *f);
    gpn_buf_init(&f->glyph_buf, env, SIZE_MAX / 2);
    gpn_buf_init(&f->word_buf, env, SIZE_MAX / 2);
}

static void gpn_folded_deinit(gpn_folded *f)
{
    gpn_buf_deinit(&f->glyph_buf);
    gpn_buf_deinit(&f->word_buf);
}

/* The reference of HTML at p: its length, 0 if it is none that we know. */
static size_t gpn_html_reference(const char *p, size_t len, uint32_t *cp)
{
    static const char names[] = "&amp;\0&lt;\0<&gt;\0>&quot;\0\"&apos;\0'"
                                "&#39;\0'&#x27;\0'&nbsp;\0 ";
    const char *name = names;
    *cp = '&';
    while (name < names + sizeof names - 1) {
        if (gpn_str_istarts(gpn_str(p, len), name))
            return strlen(name);
        name += strlen(name) + 1;
        *cp = (unsigned char)*name;
        name += *name != '&' ? 1 : 0;
    }
    return 0;
}

/* The tag of HTML at p: its length, 0 if it is none. */
static size_t gpn_html_tag(const char *p, size_t len)
{
    size_t n = len > 1 && p[1] == '/' ? 2 : 1;
    if (len <= n || gpn_char_lower(p[n]) < 'a' || gpn_char_lower(p[n]) > 'z')
        return 0;
    while (n < len && n < 24 && p[n] != '>' && p[n] != '<' && p[n] != '\n')
        n++;
    return n < len && p[n] == '>' ? n + 1 : 0;
}

/* One character or escape at p: its length, and the folded code. */
static size_t gpn_glyph_read(const char *p, size_t len, unsigned escapes,
                             uint32_t *code)
{
    uint32_t cp = 0xad; /* a soft hyphen: void */
    size_t n = 0;
    if (*p == '\\' && (escapes & GPN_ESCAPE_SLASH) != 0) {
        n = gpn_json_escape(p, p + len, &cp);
        n = n > 0 ? n : 1;
    } else if (*p == '&' && (escapes & GPN_ESCAPE_AMP) != 0) {
        n = gpn_html_reference(p, len, &cp);
    } else if (*p == '<' && (escapes & GPN_ESCAPE_TAG) != 0) {
        n = gpn_html_tag(p, len);
    }
    if (n == 0)
        n = gpn_char_get(p, len, &cp);
    cp = gpn_glyph_fold(cp);
    *code = gpn_glyph_kind(cp) << 24 | cp;
    return n;
}

/* Which escapes cannot be the text's own, as the source has none of them. */
static unsigned gpn_escapes(gptner_str source)
{
    unsigned escapes = GPN_ESCAPE_SLASH | GPN_ESCAPE_AMP | GPN_ESCAPE_TAG;
    uint32_t cp;
    size_t i;
    for (i = 0; i < source.len; i++) {
        const char *p = source.ptr + i;
        if (*p == '\\')
            escapes &= ~(unsigned)GPN_ESCAPE_SLASH;
        else if (*p == '&' && gpn_html_reference(p, source.len - i, &cp) > 0)
            escapes &= ~(unsigned)GPN_ESCAPE_AMP;
        else if (*p == '<' && gpn_html_tag(p, source.len - i) > 0)
            escapes &= ~(unsigned)GPN_ESCAPE_TAG;
    }
    return escapes;
}

/* Adds a glyph, in the last word or as a new one. */
static void gpn_folded_add(gpn_folded *f, gpn_glyph *g, bool same_word)
{
    gpn_word *w;
    if (!same_word) {
        gpn_word fresh;
        memset(&fresh, 0, sizeof fresh);
        fresh.first = (uint32_t)f->n_glyphs;
        fresh.hash = 0x811c9dc5; /* FNV-1a, 32 bits */
        fresh.match = GPN_NO_WORD;
        gpn_buf_add(&f->word_buf, (const char *)&fresh, sizeof fresh);
        f->n_words++;
    }
    if (f->word_buf.status != GPTNER_OK)
        return;
    w = (gpn_word *)(void *)f->word_buf.data + f->n_words - 1;
    w->hash = (w->hash ^ g->code) * 0x01000193;
    g->word = (uint32_t)(f->n_words - 1);
    gpn_buf_add(&f->glyph_buf, (const char *)g, sizeof *g);
    f->n_glyphs++;
}

/* Folds a text anew. false: no memory. */
static bool gpn_fold(gpn_folded *f, gptner_str text)
{
    uint32_t word_kind = GPN_GLYPH_SPACE; /* of what the word begins with */
    bool joined = false;                  /* by a zero-width joiner */
    gpn_glyph g;
    size_t at, n;
    gpn_buf_clear(&f->glyph_buf);
    gpn_buf_clear(&f->word_buf);
    memset(&g, 0, sizeof g);
    f->text = text;
    f->n_glyphs = f->n_words = 0;
    for (at = 0; at < text.len && f->glyph_buf.status == GPTNER_OK; at += n) {
        uint32_t kind;
        bool same;
        n = gpn_glyph_read(text.ptr + at, text.len - at, f->escapes, &g.code);
        kind = g.code >> 24;
        g.begin = (uint32_t)at;
        g.end = (uint32_t)(at + n);
        if (kind == GPN_GLYPH_SPACE) {
            word_kind = GPN_GLYPH_SPACE;
        } else if (kind == GPN_GLYPH_MARK) {
            joined = (g.code & 0xffffff) == 0x200d;
            if (f->n_glyphs > 0 && word_kind != GPN_GLYPH_SPACE)
                ((gpn_glyph *)(void *)f->glyph_buf.data + f->n_glyphs - 1)
                    ->end = g.end;
        } else if (kind != GPN_GLYPH_VOID) {
            same = word_kind != GPN_GLYPH_SPACE &&
                   (kind == GPN_GLYPH_SIGN || joined ||
                    (kind == GPN_GLYPH_WORD && word_kind == kind));
            gpn_folded_add(f, &g, same);
            word_kind = same ? word_kind : kind;
            joined = false;
        }
    }
    n = f->n_words;
    gpn_folded_add(f, &g, false); /* the end */
    f->glyphs = (gpn_glyph *)(void *)f->glyph_buf.data;
    f->words = (gpn_word *)(void *)f->word_buf.data;
    f->n_glyphs--;
    f->n_words = n;
    return f->glyph_buf.status == GPTNER_OK && f->word_buf.status == GPTNER_OK;
}

static uint32_t gpn_word_kind(const gpn_folded *f, size_t word)
{
    return f->glyphs[f->words[word].first].code >> 24;
}

static size_t gpn_word_len(const gpn_folded *f, size_t word)
{
    return f->words[word + 1].first - f->words[word].first;
}

/* --- the difference of two texts --- */

#define GPN_DIFF_MAX 256 /* edits from each side of a part */

/* What an alignment needs; source and answer stay as they are. */
typedef struct gpn_align {
    gpn_answer *a;
    gpn_folded source, answer, before, after;
    int64_t steps; /* of searching that are left */
    size_t cursor; /* where the last offer was */
    gpn_buf cells; /* of gpn_near */
    int32_t
        ahead[2 * GPN_DIFF_MAX + 4]; /* by diagonal: how far it is reached */
    int32_t back[2 * GPN_DIFF_MAX + 4];
} gpn_align;

/* A part of the answer (x) and one of the source (y). */
typedef struct gpn_zone {
    size_t x0, x1, y0, y1;
} gpn_zone;

static bool gpn_diff_equal(const gpn_align *al, size_t x, size_t y)
{
    return al->answer.words[x].hash == al->source.words[y].hash;
}

/* One more edit, from the start (dir 1) or the end (-1) of the part: how far
 * each diagonal gets. true: it met the other side at *x, *y. */
static bool gpn_diff_step(gpn_align *al, const gpn_zone *p, int32_t d,
                          bool forward, int32_t *x, int32_t *y)
{
    int32_t n = (int32_t)(p->x1 - p->x0), m = (int32_t)(p->y1 - p->y0);
    const int32_t zero = GPN_DIFF_MAX + 1;
    int32_t *mine = (forward ? al->ahead : al->back) + zero;
    const int32_t *other = (forward ? al->back : al->ahead) + zero;
    int32_t odd = (n - m) & 1, reach = forward ? d - 1 : d, k;
    for (k = -(d - 2 * (d > m ? d - m : 0)); k <= d - 2 * (d > n ? d - n : 0);
         k += 2) {
        int32_t i = k == -d || (k != d && mine[k - 1] < mine[k + 1])
                        ? mine[k + 1]
                        : mine[k - 1] + 1;
        int32_t j = i - k, z = n - m - k;
        while (i < n && j < m &&
               (forward
                    ? gpn_diff_equal(al, p->x0 + (size_t)i, p->y0 + (size_t)j)
                    : gpn_diff_equal(al, p->x1 - 1 - (size_t)i,
                                     p->y1 - 1 - (size_t)j))) {
            i++;
            j++;
        }
        mine[k] = i;
        if (odd == (forward ? 1 : 0) && z >= -reach && z <= reach &&
            i + other[z] >= n) {
            *x = forward ? i : n - i;
            *y = forward ? j : m - j;
            return true;
        }
    }
    return false;
}

/* A point inside the part that a good alignment goes through: in the middle of
 * the best one, or the furthest that was reached. */
static void gpn_diff_split(gpn_align *al, const gpn_zone *p, size_t *x,
                           size_t *y)
{
    int32_t n = (int32_t)(p->x1 - p->x0), m = (int32_t)(p->y1 - p->y0);
    int32_t best = -1, d, i = 0, j = 0, k, max = (n + m + 1) / 2;
    max = max < GPN_DIFF_MAX ? max : GPN_DIFF_MAX;
    memset(al->ahead, 0, sizeof al->ahead);
    memset(al->back, 0, sizeof al->back);
    for (d = 0; d <= max; d++)
        if (gpn_diff_step(al, p, d, true, &i, &j) ||
            gpn_diff_step(al, p, d, false, &i, &j))
            break;
    for (k = -max; d > max && k <= max; k++) {
        int32_t f = al->ahead[k + GPN_DIFF_MAX + 1];
        int32_t b = al->back[k + GPN_DIFF_MAX + 1];
        if (f <= n && f - k <= m && f >= k && 2 * f - k > best) {
            best = 2 * f - k;
            i = f;
            j = f - k;
        }
        if (b <= n && b - k <= m && b >= k && 2 * b - k > best) {
            best = 2 * b - k;
            i = n - b;
            j = m - (b - k);
        }
    }
    *x = p->x0 + (size_t)i;
    *y = p->y0 + (size_t)j;
}

/* Gives the words of the answer in p their partners in the source. */
static void gpn_diff(gpn_align *al, gpn_zone p)
{
    for (;;) {
        gpn_zone left, right;
        while (p.x0 < p.x1 && p.y0 < p.y1 && gpn_diff_equal(al, p.x0, p.y0))
            al->answer.words[p.x0++].match = (uint32_t)p.y0++;
        while (p.x0 < p.x1 && p.y0 < p.y1 &&
               gpn_diff_equal(al, p.x1 - 1, p.y1 - 1))
            al->answer.words[--p.x1].match = (uint32_t)--p.y1;
        if (p.x0 == p.x1 || p.y0 == p.y1)
            return;
        left = right = p;
        gpn_diff_split(al, &p, &left.x1, &left.y1);
        right.x0 = left.x1;
        right.y0 = left.y1;
        if ((left.x0 == left.x1 && left.y0 == left.y1) ||
            (right.x0 == right.x1 && right.y0 == right.y1))
            return; /* cannot be; but then it would not end */
        if (left.x1 - left.x0 + left.y1 - left.y0 <
            right.x1 - right.x0 + right.y1 - right.y0) {
            gpn_diff(al, left);
            p = right;
        } else {
            gpn_diff(al, right);
            p = left;
        }
    }
}

/* Aligns some words of the answer with the whole source, and tells each
 * between which words of the source it stands. */
static void gpn_align_words(gpn_align *al, size_t from, size_t to)
{
    uint32_t edge = 0;
    gpn_zone p;
    size_t i;
    p.x0 = from;
    p.x1 = to;
    p.y0 = 0;
    p.y1 = al->source.n_words;
    gpn_diff(al, p);
    for (i = from; i < to; i++) {
        gpn_word *w = &al->answer.words[i];
        w->low = edge;
        if (w->match != GPN_NO_WORD)
            edge = w->match + 1;
    }
    edge = (uint32_t)al->source.n_words;
    for (i = to; i-- > from;) {
        gpn_word *w = &al->answer.words[i];
        w->high = edge;
        if (w->match != GPN_NO_WORD)
            edge = w->match;
    }
}

/* --- from mentions to the source --- */

/* A stretch of glyphs of one text. */
typedef struct gpn_stretch {
    const gpn_folded *f;
    size_t begin, end;
} gpn_stretch;

static gpn_stretch gpn_stretch_of(const gpn_folded *f, size_t begin, size_t end)
{
    gpn_stretch run;
    run.f = f;
    run.begin = begin;
    run.end = end;
    return run;
}

static const gpn_glyph *gpn_stretch_glyphs(const gpn_stretch *r)
{
    return r->f->glyphs + r->begin;
}

static bool gpn_stretch_equal(const gpn_stretch *a, const gpn_stretch *b)
{
    size_t n = a->end - a->begin, i;
    for (i = 0; i < n && n == b->end - b->begin; i++)
        if (gpn_stretch_glyphs(a)[i].code != gpn_stretch_glyphs(b)[i].code)
            return false;
    return n == b->end - b->begin;
}

static bool gpn_glyph_starts(const gpn_folded *f, size_t i)
{
    return i == 0 || i >= f->n_glyphs ||
           f->glyphs[i].word != f->glyphs[i - 1].word;
}

/* The edit distance of what is like text and the part of place nearest to it
 * (whole: all of place), which *place becomes. SIZE_MAX: too far to look, or
 * no memory. Sellers' algorithm: a column of costs, each with its start. */
static size_t gpn_near(gpn_align *al, const gpn_stretch *text,
                       gpn_stretch *place, bool whole)
{
    size_t np = text->end - text->begin, n = place->end - place->begin;
    size_t best = SIZE_MAX, end = 0, begin = 0, i, j;
    const gpn_glyph *p = gpn_stretch_glyphs(text),
                    *t = gpn_stretch_glyphs(place);
    uint32_t *cost;
    size_t room;
    if (np == 0 || n == 0 || np > 4096 || (int64_t)n > al->steps / (int64_t)np)
        return SIZE_MAX;
    al->steps -= (int64_t)(n * np);
    room = (np + 1) * 2 * sizeof *cost;
    gpn_buf_clear(&al->cells);
    if (!gpn_buf_reserve(&al->cells, room))
        return SIZE_MAX;
    cost = (uint32_t *)(void *)al->cells.data; /* and start, in turns */
    for (i = 0; i <= np; i++) {
        cost[2 * i] = (uint32_t)i;
        cost[2 * i + 1] = 0;
    }
    for (j = 0; j < n; j++) {
        uint32_t corner = cost[0], corner_start = cost[1];
        bool ends = gpn_glyph_starts(place->f, place->begin + j + 1);
        cost[0] = whole ? (uint32_t)(j + 1) : 0;
        cost[1] = whole ? 0 : (uint32_t)(j + 1);
        for (i = 1; i <= np; i++) {
            uint32_t *c = cost + 2 * i;
            uint32_t least = corner + (p[i - 1].code != t[j].code);
            uint32_t start = corner_start;
            corner = c[0];
            corner_start = c[1];
            if (c[0] + 1 < least) {
                least = c[0] + 1;
                start = c[1];
            }
            if (c[-2] + 1 < least) {
                least = c[-2] + 1;
                start = c[-1];
            }
            c[0] = least;
            c[1] = start;
        }
        if ((!whole || j + 1 == n) &&
            (cost[2 * np] < best ||
             (cost[2 * np] == best && ends &&
              !gpn_glyph_starts(place->f, place->begin + end)))) {
            best = cost[2 * np];
            begin = cost[2 * np + 1];
            end = j + 1;
        }
    }
    place->end = place->begin + end;
    place->begin += begin;
    return best;
}

/* Takes words whole that are in for half or more, and leaves out the others. */
static void gpn_stretch_snap(gpn_stretch *r)
{
    const gpn_folded *f = r->f;
    const gpn_word *w;
    if (r->begin < r->end && !gpn_glyph_starts(f, r->begin)) {
        w = &f->words[f->glyphs[r->begin].word];
        r->begin = r->begin - w[0].first <= w[1].first - r->begin ? w[0].first
                                                                  : w[1].first;
    }
    if (r->begin < r->end && !gpn_glyph_starts(f, r->end)) {
        w = &f->words[f->glyphs[r->end].word];
        r->end = w[1].first - r->end <= r->end - w[0].first ? w[1].first
                                                            : w[0].first;
    }
}

/* The mention is in place: its span and how well it fits. */
static void gpn_settle(gpn_mention *m, const gpn_stretch *place, bool fuzzy,
                       gptner_str source)
{
    const gpn_glyph *g = gpn_stretch_glyphs(place);
    gptner_entity *e = &m->e;
    e->bytes.begin = g[0].begin;
    e->bytes.end = place->f->glyphs[place->end - 1].end;
    gpn_span_tidy(source, &e->bytes);
    if (gpn_str_eq(e->said, gpn_str(source.ptr + e->bytes.begin,
                                    e->bytes.end - e->bytes.begin)))
        e->match = GPTNER_MATCH_EXACT;
    else
        e->match = fuzzy ? GPTNER_MATCH_FUZZY : GPTNER_MATCH_NORMALISED;
}

/* Looks in hull for what is like text: exactly, or a third of it different.
 * *fuzzy says which. */
static bool gpn_find_near(gpn_align *al, const gpn_stretch *text,
                          gpn_stretch *hull, bool *fuzzy)
{
    size_t np = text->end - text->begin;
    size_t cost = gpn_near(al, text, hull, false);
    *fuzzy = false;
    if (cost == 0 && gpn_glyph_starts(hull->f, hull->begin) &&
        gpn_glyph_starts(hull->f, hull->end))
        return true;
    if (cost > np / 3)
        return false;
    gpn_stretch_snap(hull);
    if (hull->begin >= hull->end)
        return false;
    *fuzzy = true;
    return gpn_near(al, text, hull, true) <= np / 3;
}

/* The next place from word on that reads like text: *place. 2: whole words; 1:
 * the last one goes on for up to three characters, as in other cases of nouns;
 * 0: there is none. *word is where to go on. */
static int gpn_find_next(gpn_align *al, const gpn_stretch *text, size_t *word,
                         gpn_stretch *place)
{
    const gpn_folded *f = &al->source;
    size_t np = text->end - text->begin;
    while (*word < f->n_words && al->steps > 0) {
        size_t at = f->words[(*word)++].first, past;
        al->steps--;
        if (at + np > f->n_glyphs)
            return 0;
        if (f->glyphs[at].code != gpn_stretch_glyphs(text)[0].code)
            continue;
        al->steps -= (int64_t)np / 8;
        *place = gpn_stretch_of(f, at, at + np);
        if (!gpn_stretch_equal(text, place))
            continue;
        if (gpn_glyph_starts(f, place->end))
            return 2;
        past = f->words[f->glyphs[place->end].word + 1].first;
        if (np >= 4 && past - place->end <= 3)
            return 1;
    }
    return 0;
}

/* --- marked answers --- */

/* The first word that ends after a byte of the answer. */
static size_t gpn_word_at(const gpn_folded *f, size_t byte)
{
    size_t low = 0, high = f->n_words;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (f->glyphs[f->words[middle + 1].first - 1].end <= byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The glyphs of the answer that a span of it has. */
static gpn_stretch gpn_stretch_in(const gpn_folded *f, const gptner_span *span)
{
    size_t w = gpn_word_at(f, span->begin), i, k;
    i = f->words[w].first;
    while (i < f->n_glyphs && f->glyphs[i].end <= span->begin)
        i++;
    k = f->words[gpn_word_at(f, span->end)].first;
    while (k < f->n_glyphs && f->glyphs[k].begin < span->end)
        k++;
    return gpn_stretch_of(f, i, k > i ? k : i);
}

/* A name's word, or one that may stand inside a name. */
static bool gpn_word_upper(const gpn_folded *f, size_t w)
{
    const gpn_glyph *g = &f->glyphs[f->words[w].first];
    uint32_t cp;
    if (w >= f->n_words || gpn_word_kind(f, w) != GPN_GLYPH_WORD)
        return false;
    gpn_char_get(f->text.ptr + g->begin, g->end - g->begin, &cp);
    return gpn_glyph_is_upper(cp);
}

/* Whether a word of a name has another one d words (1 or -1) further on, with
 * none, a hyphen, or a short word between. Returns how many words further on
 * that is; 0: there is none. */
static size_t gpn_name_more(const gpn_folded *f, size_t w, bool forward)
{
    size_t n = f->n_words, next = forward ? w + 1 : w - 1;
    size_t third = forward ? w + 2 : w - 2;
    if (next >= n) /* before the first, too */
        return 0;
    if (gpn_word_upper(f, next)) {
        /* a short word in front of all begins the sentence */
        bool first =
            next == 0 || (gpn_word_kind(f, next - 1) == GPN_GLYPH_PUNCT &&
                          gpn_word_len(f, next) > 1);
        return !forward && first && gpn_word_len(f, next) <= 3 ? 0 : 1;
    }
    if (third >= n || !gpn_word_upper(f, third) || gpn_word_len(f, next) > 3)
        return 0;
    if (gpn_word_kind(f, next) == GPN_GLYPH_WORD)
        return 2;
    return strchr("-\"&", (int)(f->glyphs[f->words[next].first].code & 0x7f)) !=
                       NULL &&
                   gpn_word_len(f, next) == 1
               ? 2
               : 0;
}

/* Of a mention with one mark: where the name there seems to end. false: there
 * is none, or the answer was cut off in it. */
static bool gpn_guess(gpn_align *al, gpn_mention *m)
{
    const gpn_folded *f = &al->answer;
    bool forward = m->opened;
    size_t w = gpn_word_at(f, m->e.bytes.begin), from, more = 1;
    int words = 0; /* bounds time where all is capitals */
    if (!forward && w > 0 &&
        (w == f->n_words ||
         f->glyphs[f->words[w].first].begin >= m->e.bytes.begin))
        w--;
    from = w;
    if (w >= f->n_words || gpn_word_kind(f, w) != GPN_GLYPH_WORD)
        return false;
    for (; words < 16 && gpn_word_upper(f, w) && more > 0; words++) {
        more = gpn_name_more(f, w, forward);
        w = forward ? w + more : w - more;
    }
    if (forward && w + 1 == f->n_words &&
        (f->words[w].match == GPN_NO_WORD || al->a->status != GPTNER_OK))
        return false;
    if (!forward) {
        m->e.bytes.begin = f->glyphs[f->words[w].first].begin;
        w = from;
    }
    m->e.bytes.end = f->glyphs[f->words[w + 1].first - 1].end;
    return true;
}

/* The words between the partners of the first and the last word of a mention:
 * *place. false: they have none, or what is between has little in common. From
 * text it takes quotes and the like that the answer put around. */
static bool gpn_find_partners(const gpn_align *al, gpn_stretch *text,
                              gpn_stretch *place)
{
    const gpn_folded *f = &al->answer;
    const gpn_word *in = f->words, *s = al->source.words;
    size_t x0 = f->glyphs[text->begin].word, x1 = f->glyphs[text->end - 1].word;
    size_t shared = 0, said, there, i;
    uint32_t y0, y1;
    for (; x0 < x1 && in[x0].match == GPN_NO_WORD &&
           gpn_word_kind(f, x0) == GPN_GLYPH_PUNCT;
         x0++)
        text->begin = in[x0 + 1].first;
    for (; x0 < x1 && in[x1].match == GPN_NO_WORD &&
           gpn_word_kind(f, x1) == GPN_GLYPH_PUNCT;
         x1--)
        text->end = in[x1].first;
    y0 = in[x0].match;
    y1 = in[x1].match;
    if (y0 == GPN_NO_WORD || y1 == GPN_NO_WORD || y1 < y0)
        return false;
    for (i = x0; i <= x1; i++)
        shared += in[i].match != GPN_NO_WORD;
    said = x1 - x0 + 1;
    there = y1 - y0 + 1;
    *place =
        gpn_stretch_of(&al->source, s[y0].first + text->begin - in[x0].first,
                       s[y1].first + text->end - in[x1].first);
    return place->begin < place->end && place->end <= al->source.n_glyphs &&
           2 * shared >= (said > there ? said : there);
}

/* Finds a mention in the source by the alignment. */
static bool gpn_trace(gpn_align *al, gpn_mention *m, gpn_stretch *text)
{
    const gpn_folded *f = &al->answer, *s = &al->source;
    size_t x0 = f->glyphs[text->begin].word, x1 = f->glyphs[text->end - 1].word;
    bool fuzzy;
    gpn_stretch place;
    if (gpn_find_partners(al, text, &place)) {
        gpn_settle(m, &place, !gpn_stretch_equal(text, &place), al->a->source);
        return true;
    }
    if (f->words[x0].low >= f->words[x1].high)
        return false;
    place = gpn_stretch_of(s, s->words[f->words[x0].low].first,
                           s->words[f->words[x1].high].first);
    if (!gpn_find_near(al, text, &place, &fuzzy))
        return false;
    gpn_settle(m, &place, fuzzy, al->a->source);
    return true;
}

/* The words around a mention that have no partners are aligned with the whole
 * source by themselves, if they are some and were not before (*tried). What
 * comes of it counts only with a neighbour in the right place. */
static bool gpn_trace_again(gpn_align *al, gpn_mention *m, gpn_stretch *text,
                            size_t *tried, int *left)
{
    gpn_folded *f = &al->answer;
    size_t x0 = f->glyphs[text->begin].word, x1 = f->glyphs[text->end - 1].word;
    size_t from = x0, to = x1 + 1, i;
    if (x0 >= *tried) {
        for (i = x0; i <= x1; i++)
            if (f->words[i].match != GPN_NO_WORD)
                return false;
        if (*left == 0)
            return false;
        while (from > *tried && f->words[from - 1].match == GPN_NO_WORD)
            from--;
        while (to < f->n_words && f->words[to].match == GPN_NO_WORD)
            to++;
        if (to - from < x1 - x0 + 3)
            return false;
        --*left;
        *tried = to;
        gpn_align_words(al, from, to);
    }
    return (x0 > 0 && f->words[x0].match != GPN_NO_WORD &&
            f->words[x0 - 1].match + 1 == f->words[x0].match) ||
                   (f->words[x1].match != GPN_NO_WORD && x1 + 1 < f->n_words &&
                    f->words[x1].match + 1 == f->words[x1 + 1].match)
               ? gpn_trace(al, m, text)
               : false;
}

/* The only place in the source that reads like the mention; not if the words
 * around it have partners: then it stands for something else there. */
static bool gpn_trace_only(gpn_align *al, gpn_mention *m, gpn_stretch *text)
{
    const gpn_folded *f = &al->answer;
    size_t x0 = f->glyphs[text->begin].word, x1 = f->glyphs[text->end - 1].word;
    gpn_stretch place, other;
    size_t word = 0;
    if (x0 > 0 && f->words[x0 - 1].match != GPN_NO_WORD &&
        x1 + 1 < f->n_words && f->words[x1 + 1].match != GPN_NO_WORD)
        return false;
    if (gpn_find_next(al, text, &word, &place) != 2 ||
        gpn_find_next(al, text, &word, &other) != 0 || al->steps <= 0)
        return false;
    gpn_settle(m, &place, false, al->a->source);
    return true;
}

/* Of a lost mention with one mark: some of the line behind it, or before. */
static void gpn_mention_cut(gpn_mention *m, gptner_str plain)
{
    gptner_span *b = &m->e.bytes;
    while (m->opened && b->end < plain.len && b->end - b->begin < 80 &&
           plain.ptr[b->end] != '\n')
        b->end++;
    while (!m->opened && b->begin > 0 && b->end - b->begin < 80 &&
           plain.ptr[b->begin - 1] != '\n')
        b->begin--;
    gpn_span_tidy(plain, b);
}

/* What the alignment tells of the answer as a whole. */
static void gpn_align_judge(gpn_align *al)
{
    const gpn_folded *f = &al->answer;
    size_t n = al->source.n_words, i, reached = 0, last = 0;
    for (i = 0; i < f->n_words; i++)
        if (f->words[i].match != GPN_NO_WORD) {
            reached = f->words[i].match + 1;
            last = i + 1;
        }
    if (n > 0 && reached == 0) {
        al->a->status = GPTNER_ERR_BAD_REPLY;
        al->a->message = "the answer does not repeat the text";
    } else if (n - reached > 2 + n / 16 && f->n_words - last < 3) {
        al->a->status = GPTNER_ERR_TRUNCATED;
        al->a->message = "the answer ends before the text does";
    }
}

/* Marked text that is not the source's: align it. false: no memory. */
static bool gpn_align_marks(gpn_align *al)
{
    gpn_answer *a = al->a;
    gptner_str plain = a->plain.len > 0 ? gpn_str(a->plain.data, a->plain.len)
                                        : gpn_str("", 0);
    size_t count, i, tried = 0;
    gpn_mention *m = gpn_mentions(a, &count);
    int left = 8; /* times that parts are aligned again */
    if (!gpn_fold(&al->answer, plain))
        return false;
    gpn_align_words(al, 0, al->answer.n_words);
    gpn_align_judge(al);
    for (i = 0; i < count; i++, m++) {
        bool whole = m->opened && m->closed;
        bool good = !m->unknown && (whole || gpn_guess(al, m));
        gpn_stretch text;
        if (!good && !whole)
            gpn_mention_cut(m, plain);
        text = gpn_stretch_in(&al->answer, &m->e.bytes);
        m->e.said = gpn_strip(gpn_str(plain.ptr + m->e.bytes.begin,
                                      m->e.bytes.end - m->e.bytes.begin));
        good = good && text.begin < text.end &&
               (gpn_trace(al, m, &text) ||
                gpn_trace_again(al, m, &text, &tried, &left) ||
                gpn_trace_only(al, m, &text));
        if (!good)
            m->e.match = GPTNER_MATCH_LOST;
        else if (!whole)
            m->e.match = GPTNER_MATCH_FUZZY;
    }
    return al->cells.status == GPTNER_OK;
}

/* --- answers in JSON --- */

typedef struct gpn_offer {
    gptner_str text, label, either, before, after;
    int64_t occurrence; /* from 1; 0: not told */
} gpn_offer;

/* How many glyphs of context agree with those of the source: before, from its
 * end backwards, or after. */
static size_t gpn_context(const gpn_folded *context, const gpn_folded *s,
                          size_t at, bool before)
{
    size_t n = context->n_glyphs, i;
    for (i = 0; i < n && (before ? i < at : at + i < s->n_glyphs); i++)
        if (before
                ? context->glyphs[n - 1 - i].code != s->glyphs[at - 1 - i].code
                : context->glyphs[i].code != s->glyphs[at + i].code)
            break;
    return i;
}

/* How well a place fits an offer. The words before and after say most; then
 * the very bytes, then that no other offer has it, then order. */
static int64_t gpn_offer_score(const gpn_align *al, const gpn_offer *o,
                               const gpn_stretch *place, gpn_mention *m,
                               int64_t *nth)
{
    const gpn_folded *s = &al->source;
    const gpn_word *w = &s->words[s->glyphs[place->begin].word];
    int64_t score;
    size_t count;
    gpn_settle(m, place, false, al->a->source);
    score = 8 * (int64_t)(gpn_context(&al->before, s, place->begin, true) +
                          gpn_context(&al->after, s, place->end, false));
    score += m->e.match == GPTNER_MATCH_EXACT ? 9 : 0;
    score += m->e.bytes.begin >= al->cursor ? 2 : 0;
    if (gpn_glyph_starts(s, place->end))
        score += ++*nth == o->occurrence ? 7 : 0;
    else
        score -= 40;
    if (w->low == 0 ||
        m->e.bytes.end != gpn_mentions(al->a, &count)[w->low - 1].e.bytes.end)
        score += 6;
    return score;
}

/* The mention at the place of the source that fits the offer best. */
static bool gpn_offer_place(gpn_align *al, const gpn_offer *o, gpn_mention *m)
{
    const gpn_stretch text =
        gpn_stretch_of(&al->answer, 0, al->answer.n_glyphs);
    gpn_stretch place, best = text;
    int64_t score = INT64_MIN, nth = 0, here;
    size_t word = 0;
    bool fuzzy = false;
    if (text.end == 0)
        return false;
    while (gpn_find_next(al, &text, &word, &place) > 0) {
        here = gpn_offer_score(al, o, &place, m, &nth);
        al->steps -= 8;
        if (here > score) {
            score = here;
            best = place;
        }
    }
    if (score == INT64_MIN) {
        best = gpn_stretch_of(&al->source, 0, al->source.n_glyphs);
        if (text.end < 4 || !gpn_find_near(al, &text, &best, &fuzzy))
            return false;
    }
    gpn_settle(m, &best, fuzzy, al->a->source);
    return true;
}

/* A copy of a text, which lives as long as the answer is read. Only what had
 * escapes is copied. */
static gptner_str gpn_offer_keep(gpn_answer *a, gptner_str s)
{
    const char *p = a->cfg->answer.ptr;
    if (s.len == 0)
        return gpn_str("", 0);
    if ((uintptr_t)s.ptr >= (uintptr_t)p &&
        (uintptr_t)s.ptr < (uintptr_t)p + a->cfg->answer.len)
        return s;
    s = gpn_arena_str(&a->kept, s);
    if (s.ptr == NULL)
        a->found.status = GPTNER_ERR_NO_MEMORY;
    return s;
}

/* Takes an offer. */
static void gpn_offer_add(gpn_align *al, const gpn_offer *o)
{
    gpn_answer *a = al->a;
    gptner_str label =
        o->label.ptr != NULL ? gpn_strip(o->label) : gpn_label_only(a);
    bool known = gpn_label_known(a->cfg->labels, &label);
    gpn_mention *m = gpn_mention_add(a, label, 0);
    size_t number, begin;
    if (m == NULL || !gpn_fold(&al->answer, o->text) ||
        !gpn_fold(&al->before, o->before) || !gpn_fold(&al->after, o->after)) {
        a->found.status = GPTNER_ERR_NO_MEMORY;
        return;
    }
    m->e.said = gpn_strip(o->text);
    if (!known || !gpn_offer_place(al, o, m)) {
        m->e.match = GPTNER_MATCH_LOST;
        return;
    }
    gpn_mentions(a, &number);
    begin = m->e.bytes.begin;
    al->cursor = begin;
    al->source.words[gpn_word_at(&al->source, begin)].low = (uint32_t)number;
}

/* Which of the names, each closed by a NUL, and all by another, key is; from 1,
 * 0: none. */
static size_t gpn_key_rank(const char *names, gptner_str key)
{
    size_t rank;
    for (rank = 1; *names != '\0'; rank++, names += strlen(names) + 1)
        if (gpn_str_ieq_c(key, names))
            return rank;
    return 0;
}

static void gpn_offers_read(gpn_align *al, gptner_json_reader *r,
                            gptner_str label);

/* The names of what we read, the best first. */
static const char gpn_text_keys[] = "text\0mention\0span\0word\0phrase\0"
                                    "surface\0value\0name\0";
static const char gpn_label_keys[] =
    "label\0type\0category\0tag\0class\0entity_type\0entity_label\0"
    "entity_group\0kind\0";

/* One text of an object. */
static void gpn_offer_member(gpn_align *al, gpn_offer *o, gptner_str key,
                             gptner_str value, size_t ranks[2])
{
    const gptner_labels *labels = al->a->cfg->labels;
    size_t text = gpn_key_rank(gpn_text_keys, key);
    size_t label = gpn_key_rank(gpn_label_keys, key);
    gptner_str name = key;
    gpn_offer other;
    if (text != 0 && (ranks[0] == 0 || text < ranks[0])) {
        ranks[0] = text;
        o->text = value;
    } else if (label != 0 && (ranks[1] == 0 || label < ranks[1])) {
        ranks[1] = label;
        o->label = value;
    } else if (gpn_str_ieq_c(key, "entity")) {
        o->either = value;
    } else if (gpn_str_ieq_c(key, "before")) {
        o->before = value;
    } else if (gpn_str_ieq_c(key, "after")) {
        o->after = value;
    } else if (text == 0 && label == 0 && !gpn_labels_any(labels)) {
        memset(&other, 0, sizeof other);
        if (gpn_label_known(labels, &name)) { /* {"LOC": "Spain"} */
            other.label = name;
            other.text = value;
        } else if (gpn_label_known(labels, &value)) { /* {"Spain": "LOC"} */
            other.label = value;
            other.text = key;
        }
        if (other.text.ptr != NULL)
            gpn_offer_add(al, &other);
    }
}

/* An entity, or an object that holds some. */
static void gpn_offers_object(gpn_align *al, gptner_json_reader *r,
                              gptner_str label)
{
    const gptner_labels *labels = al->a->cfg->labels;
    size_t ranks[2] = {0, 0};
    gpn_offer o;
    gptner_str key, value;
    memset(&o, 0, sizeof o);
    gptner_json_enter_object(r);
    while (gptner_json_next_key(r, &key)) {
        gptner_json_type type = gptner_json_peek(r);
        key = gpn_offer_keep(al->a, key);
        if (type == GPTNER_JSON_STRING && gptner_json_read_str(r, &value)) {
            gpn_offer_member(al, &o, key, gpn_offer_keep(al->a, value), ranks);
        } else if (type == GPTNER_JSON_NUMBER &&
                   gpn_str_ieq_c(key, "occurrence")) {
            gptner_json_read_int64(r, &o.occurrence);
        } else if (type >= GPTNER_JSON_ARRAY) {
            gptner_str inner = key; /* {"LOC": ["Spain"]} */
            if (gpn_labels_any(labels) ? gpn_str_ieq_c(key, "entities")
                                       : !gpn_label_known(labels, &inner))
                inner = o.label.ptr != NULL ? o.label : label;
            if (inner.len > 256) /* none, but many may be inside */
                inner = gpn_str(NULL, 0);
            gpn_offers_read(al, r, inner);
        }
    }
    if (o.text.ptr == NULL)
        o.text = o.either;
    else if (o.label.ptr == NULL)
        o.label = o.either;
    if (o.label.ptr == NULL)
        o.label = label;
    /* a cut object still counts if what matters was there */
    if (o.text.ptr != NULL &&
        (r->error.status == GPTNER_OK || o.label.ptr != NULL))
        gpn_offer_add(al, &o);
}

/* A value in which there may be entities; label: theirs, as far as known. */
static void gpn_offers_read(gpn_align *al, gptner_json_reader *r,
                            gptner_str label)
{
    gptner_json_type type = gptner_json_peek(r);
    gpn_offer o;
    if (type == GPTNER_JSON_OBJECT) {
        gpn_offers_object(al, r, label);
    } else if (type == GPTNER_JSON_ARRAY && gptner_json_enter_array(r)) {
        while (gptner_json_next_item(r))
            gpn_offers_read(al, r, label);
    } else if (type == GPTNER_JSON_STRING) {
        memset(&o, 0, sizeof o);
        if (gptner_json_read_str(r, &o.text)) {
            o.text = gpn_offer_keep(al->a, o.text);
            o.label = label;
            gpn_offer_add(al, &o);
        }
    }
}

/* Reads every value of JSON in the answer, whatever is around. After what is
 * no JSON it goes on at the next bracket. false: no memory. */
static bool gpn_align_offers(gpn_align *al)
{
    gpn_answer *a = al->a;
    gptner_str s = a->cfg->answer;
    gptner_json_options opt;
    gptner_json_reader r;
    size_t at = 0, values = 0;
    char *scratch = (char *)gpn_arena_alloc(&a->kept, s.len);
    if (scratch == NULL)
        return false;
    memset(&opt, 0, sizeof opt);
    opt.max_depth = 24;
    while (at < s.len && a->found.status == GPTNER_OK) {
        if (s.ptr[at] != '{' && s.ptr[at] != '[') {
            at++;
            continue;
        }
        gptner_json_reader_init(&r, s.ptr + at, s.len - at, &opt);
        gptner_json_reader_scratch(&r, scratch, s.len);
        gpn_offers_read(al, &r, gpn_str(NULL, 0));
        if (r.error.status == GPTNER_OK) {
            values++;
            at += (size_t)(r.pos - r.text);
            continue;
        }
        if (s.ptr[at] == '{' || r.depth > 1) {
            bool cut = r.error.offset + at >= s.len;
            a->status = cut ? GPTNER_ERR_TRUNCATED : GPTNER_ERR_BAD_REPLY;
            a->message = cut ? "the answer ends within its JSON"
                             : "the answer's JSON is broken";
        }
        at += r.error.offset > 1 ? r.error.offset : 1;
    }
    if (values == 0 && a->status == GPTNER_OK) {
        a->status = GPTNER_ERR_BAD_REPLY;
        a->message = "the answer holds no JSON";
    }
    return a->found.status == GPTNER_OK && al->cells.status == GPTNER_OK;
}

/* --- the document --- */

/* By place, the longer first, then label, then the better match; what is lost
 * comes last, in the order of the answer. */
static int gpn_mention_order(const void *left, const void *right)
{
    const gptner_entity *a = &((const gpn_mention *)left)->e;
    const gptner_entity *b = &((const gpn_mention *)right)->e;
    bool a_lost = a->match == GPTNER_MATCH_LOST;
    size_t n = a->label.len < b->label.len ? a->label.len : b->label.len;
    int order;
    if (a_lost != (b->match == GPTNER_MATCH_LOST))
        return a_lost ? 1 : -1;
    if (a->bytes.begin != b->bytes.begin)
        return a->bytes.begin < b->bytes.begin ? -1 : 1;
    if (a->bytes.end != b->bytes.end)
        return a->bytes.end > b->bytes.end ? -1 : 1;
    order = n > 0 ? memcmp(a->label.ptr, b->label.ptr, n) : 0;
    if (order == 0 && a->label.len != b->label.len)
        order = a->label.len < b->label.len ? -1 : 1;
    return order != 0 ? order : (int)a->match - (int)b->match;
}

static bool gpn_mention_same(const gptner_entity *a, const gptner_entity *b)
{
    return a->match != GPTNER_MATCH_LOST && b->match != GPTNER_MATCH_LOST &&
           a->bytes.begin == b->bytes.begin && a->bytes.end == b->bytes.end &&
           gpn_str_eq(a->label, b->label);
}

/* Sorts the mentions, drops those that are there twice, and counts: *lost are
 * the last of *count. */
static void gpn_mentions_settle(gpn_answer *a, size_t *count, size_t *lost)
{
    gpn_mention *m = gpn_mentions(a, count);
    size_t i, n = 0;
    bool sorted = true;
    *lost = 0;
    for (i = 0; i < *count; i++)
        if (m[i].e.match == GPTNER_MATCH_LOST) {
            m[i].e.bytes.begin = i; /* keeps the order */
            m[i].e.bytes.end = i;
            ++*lost;
        }
    for (i = 1; i < *count && sorted; i++)
        sorted = gpn_mention_order(&m[i - 1], &m[i]) <= 0;
    if (!sorted)
        qsort(m, *count, sizeof *m, gpn_mention_order);
    for (i = 0; i < *count; i++)
        if (n == 0 || !gpn_mention_same(&m[n - 1].e, &m[i].e))
            m[n++] = m[i];
    *count = n;
}

static const uint16_t gpn_doc_texts[] = {offsetof(gptner_doc, text)};
static const uint16_t gpn_entity_texts[] = {offsetof(gptner_entity, label),
                                            offsetof(gptner_entity, said)};

/* Sets the offsets of entities that lie in text in order, from their bytes.
 * false: no memory. */
static bool gpn_entities_count(const gpn_env *env, gptner_str text,
                               gptner_entity *e, size_t n)
{
    gpn_buf places;
    gpn_spot at, end;
    bool good;
    gpn_buf_init(&places, env, SIZE_MAX / 2);
    memset(&at, 0, sizeof at);
    for (; n > 0; n--, e++) {
        gpn_spot_move(&at, text, e->bytes.begin);
        end = gpn_spot_find(&places, text, at, e->bytes.end);
        e->code_points.begin = at.code_points;
        e->code_points.end = end.code_points;
        e->utf16.begin = at.utf16;
        e->utf16.end = end.utf16;
        e->text =
            gpn_str(text.ptr + e->bytes.begin, e->bytes.end - e->bytes.begin);
    }
    good = places.status == GPTNER_OK;
    gpn_buf_deinit(&places);
    return good;
}

/* The document of all that was found; NULL: no memory. */
static gptner_doc *gpn_answer_doc(gpn_answer *a)
{
    size_t count, lost, size, i, used;
    gpn_mention *m;
    gptner_doc *doc, head;
    gptner_entity *e;
    gpn_mentions_settle(a, &count, &lost);
    m = gpn_mentions(a, &i);
    memset(&head, 0, sizeof head);
    head.text = a->source;
    head.status = a->status;
    head.message = a->message;
    head.n_entities = count - lost;
    head.n_lost = lost;
    size = sizeof head + count * sizeof *e +
           gpn_pack(&head, gpn_doc_texts, 1, NULL);
    for (i = 0; i < count; i++) {
        if (m[i].e.match == GPTNER_MATCH_EXACT)
            m[i].e.said = gpn_str(NULL, 0);
        if (m[i].e.match == GPTNER_MATCH_LOST)
            memset(&m[i].e.bytes, 0, sizeof m[i].e.bytes);
        size += gpn_pack(&m[i].e, gpn_entity_texts, 2, NULL);
    }
    doc = (gptner_doc *)gpn_owned_new(a->env, size);
    if (doc == NULL)
        return NULL;
    *doc = head;
    e = (gptner_entity *)(doc + 1);
    used = sizeof head + count * sizeof *e;
    used += gpn_pack(doc, gpn_doc_texts, 1, (char *)doc + used);
    for (i = 0; i < count; i++) {
        e[i] = m[i].e;
        used += gpn_pack(&e[i], gpn_entity_texts, 2, (char *)doc + used);
    }
    doc->entities = e;
    doc->lost = e + doc->n_entities;
    if (!gpn_entities_count(a->env, doc->text, e, doc->n_entities)) {
        gpn_owned_free(doc);
        return NULL;
    }
    return doc;
}

/* Each mention of the quick mode has its place. */
static void gpn_quick_settle(gpn_answer *a)
{
    size_t count, i;
    gpn_mention *m = gpn_mentions(a, &count);
    for (i = 0; i < count; i++, m++) {
        gptner_span said;
        gpn_span_tidy(gpn_str(a->source.ptr, m->e.bytes.end), &m->e.bytes);
        said = m->e.bytes;
        m->e.said = gpn_str(a->source.ptr + said.begin, said.end - said.begin);
        if (said.begin == said.end) {
            m->e.match = GPTNER_MATCH_LOST;
            continue;
        }
        gpn_span_tidy(a->source, &m->e.bytes);
        if (m->e.bytes.begin != said.begin || m->e.bytes.end != said.end)
            m->e.match = GPTNER_MATCH_NORMALISED;
    }
}

/* What the quick mode cannot. false: no memory. */
static bool gpn_answer_align(gpn_answer *a)
{
    static const uint16_t texts[] = {
        offsetof(gpn_align, source), offsetof(gpn_align, answer),
        offsetof(gpn_align, before), offsetof(gpn_align, after)};
    gpn_align *al = (gpn_align *)gpn_mem_zalloc(a->env, sizeof *al);
    size_t i;
    bool good;
    if (al == NULL)
        return false;
    al->a = a;
    al->steps = GPN_ANSWER_STEPS;
    gpn_buf_init(&al->cells, a->env, SIZE_MAX / 2);
    for (i = 0; i < GPN_COUNT(texts); i++)
        gpn_folded_init((gpn_folded *)gpn_at(al, texts[i]), a->env);
    al->answer.escapes = gpn_escapes(a->source);
    al->before.escapes = al->after.escapes = al->answer.escapes;
    good = gpn_fold(&al->source, a->source) &&
           (a->cfg->strategy == GPTNER_STRATEGY_JSON ? gpn_align_offers(al)
                                                     : gpn_align_marks(al));
    for (i = 0; i < GPN_COUNT(texts); i++)
        gpn_folded_deinit((gpn_folded *)gpn_at(al, texts[i]));
    gpn_buf_deinit(&al->cells);
    gpn_mem_free(a->env, al);
    return good;
}

/* Reads the answer; *a is set up. NULL: no memory. */
static gptner_doc *gpn_answer_run(gpn_answer *a)
{
    bool good;
    if (a->cfg->strategy == GPTNER_STRATEGY_JSON) {
        good = gpn_answer_align(a);
    } else if (gpn_marks_scan(a, true)) {
        gpn_quick_settle(a);
        good = true;
    } else {
        good = a->found.status == GPTNER_OK && gpn_marks_scan(a, false) &&
               gpn_answer_align(a);
    }
    return good ? gpn_answer_doc(a) : NULL;
}

static const char gpn_answer_lacks[] =
    "answer: needs a config, a document to write, a place for the outcome, and "
    "all functions of the allocator or none";

/* The markers of a config, or the usual ones. */
static gptner_answer_config gpn_answer_defaults(const gptner_answer_config *cfg)
{
    gptner_answer_config full = *cfg;
    if (full.source.ptr == NULL)
        full.source = gpn_str("", 0);
    if (full.answer.ptr == NULL)
        full.answer = gpn_str("", 0);
    if (full.markers.open[0] == '\0')
        memcpy(full.markers.open, "@@", 3);
    if (full.markers.close[0] == '\0')
        memcpy(full.markers.close, "##", 3);
    full.markers.open[sizeof full.markers.open - 1] = '\0';
    full.markers.close[sizeof full.markers.close - 1] = '\0';
    return full;
}

GPTNER_API gptner_status gptner_answer_read(const gptner_answer_config *cfg,
                                            gptner_doc **out, gptner_error *err)
{
    gptner_answer_config full;
    gpn_env env;
    gpn_answer a;
    if (out != NULL)
        *out = NULL;
    if (out == NULL || cfg == NULL || !gpn_env_init(&env, cfg->allocator, NULL))
        return gpn_refuse(err, gpn_answer_lacks);
    if (cfg->source.len > GPN_ANSWER_MAX || cfg->answer.len > GPN_ANSWER_MAX)
        return gpn_fail(err, GPTNER_ERR_LIMIT,
                        "answer: more than 512 MiB of text; cut it in chunks");
    full = gpn_answer_defaults(cfg);
    memset(&a, 0, sizeof a);
    a.env = &env;
    a.cfg = &full;
    a.source = full.source;
    a.bare = gpn_strip(full.source);
    a.open = gpn_str_c(full.markers.open);
    a.close = gpn_str_c(full.markers.close);
    a.message = "";
    gpn_buf_init(&a.found, &env, SIZE_MAX / 2);
    gpn_buf_init(&a.plain, &env, SIZE_MAX / 2);
    gpn_arena_init(&a.kept, &env, 0);
    *out = gpn_answer_run(&a);
    gpn_arena_deinit(&a.kept);
    gpn_buf_deinit(&a.found);
    gpn_buf_deinit(&a.plain);
    return *out != NULL ? GPTNER_OK : gpn_no_memory(err, "answer");
}

GPTNER_API void gptner_doc_free(gptner_doc *doc)
{
    gpn_owned_free(doc);
}

GPTNER_API void gptner_text_free(gptner_text *text)
{
    gpn_owned_free(text);
}

/* Hands over what is in the buffer, which is emptied. */
static gptner_status gpn_text_take(gpn_buf *b, gptner_status status,
                                   gptner_text **out, gptner_error *err)
{
    gptner_text *text = NULL;
    status = b->status != GPTNER_OK ? b->status : status;
    if (status == GPTNER_OK) {
        text = (gptner_text *)gpn_owned_new(b->env, sizeof *text + b->len + 1);
        status = text == NULL ? GPTNER_ERR_NO_MEMORY : GPTNER_OK;
    }
    if (text != NULL) {
        if (b->len > 0)
            memcpy(text + 1, b->data, b->len);
        text->text = gpn_str((const char *)(text + 1), b->len);
    }
    gpn_buf_deinit(b);
    *out = text;
    return status == GPTNER_OK ? status
                               : gpn_fail(err, status, "answer: no text: %s",
                                          gptner_status_text(status));
}

/* Whether a text can be made: an empty buffer and its env. */
static bool gpn_text_begin(gpn_buf *b, gpn_env *env,
                           const gptner_allocator *allocator, gptner_text **out)
{
    bool good = gpn_env_init(env, allocator, NULL) && out != NULL;
    if (out != NULL)
        *out = NULL;
    gpn_buf_init(b, env, SIZE_MAX / 2);
    return good;
}

GPTNER_API gptner_status gptner_answer_write(const gptner_answer_config *cfg,
                                             const gptner_doc *doc,
                                             gptner_text **out,
                                             gptner_error *err)
{
    gptner_answer_config full;
    gptner_json_writer w;
    gptner_status status = GPTNER_OK;
    gpn_env env;
    gpn_buf b;
    if (!gpn_text_begin(&b, &env, cfg != NULL ? cfg->allocator : NULL, out) ||
        cfg == NULL || doc == NULL)
        return gpn_refuse(err, gpn_answer_lacks);
    full = gpn_answer_defaults(cfg);
    if (full.strategy != GPTNER_STRATEGY_JSON) {
        gpn_marks_write(&b, doc, &full);
    } else {
        gpn_json_writer_init(&w, &b);
        gpn_offers_write(&w, doc);
        status = gptner_json_writer_finish(&w, NULL);
    }
    return gpn_text_take(&b, status, out, err);
}

GPTNER_API gptner_status gptner_answer_schema(const gptner_labels *labels,
                                              const gptner_allocator *allocator,
                                              gptner_text **out,
                                              gptner_error *err)
{
    gptner_json_writer w;
    gpn_env env;
    gpn_buf b;
    if (!gpn_text_begin(&b, &env, allocator, out))
        return gpn_refuse(err, gpn_answer_lacks);
    gpn_json_writer_init(&w, &b);
    gpn_schema_write(&w, labels);
    return gpn_text_take(&b, gptner_json_writer_finish(&w, NULL), out, err);
}

/* --- data: documents --- */

/* --- data: readers --- */

/* --- data: writers --- */

/* --- scores --- */

/* --- demonstrations --- */

/* --- recognition --- */

#else /* GPTNER_NO_NER */

/* What every call does: it has no use for its arguments. */
static gptner_status gpn_ner_absent(const void *one, const void *other,
                                    void *out, size_t size, gptner_error *err)
{
    GPN_UNUSED(one);
    GPN_UNUSED(other);
    if (out != NULL)
        memset(out, 0, size);
    return gpn_fail(err, GPTNER_ERR_UNSUPPORTED,
                    "named entities were compiled out (GPTNER_NO_NER)");
}

GPTNER_API bool gptner_markers_choose(const gptner_str *texts, size_t count,
                                      gptner_markers *out)
{
    GPN_UNUSED(count);
    return gpn_ner_absent(texts, NULL, out, sizeof *out, NULL) == GPTNER_OK;
}

GPTNER_API gptner_status gptner_answer_read(const gptner_answer_config *cfg,
                                            gptner_doc **out, gptner_error *err)
{
    return gpn_ner_absent(cfg, NULL, out, sizeof *out, err);
}

GPTNER_API gptner_status gptner_answer_write(const gptner_answer_config *cfg,
                                             const gptner_doc *doc,
                                             gptner_text **out,
                                             gptner_error *err)
{
    return gpn_ner_absent(cfg, doc, out, sizeof *out, err);
}

GPTNER_API gptner_status gptner_answer_schema(const gptner_labels *labels,
                                              const gptner_allocator *allocator,
                                              gptner_text **out,
                                              gptner_error *err)
{
    return gpn_ner_absent(labels, allocator, out, sizeof *out, err);
}

GPTNER_API void gptner_doc_free(gptner_doc *nothing)
{
    GPN_UNUSED(nothing);
}

GPTNER_API void gptner_text_free(gptner_text *nothing)
{
    GPN_UNUSED(nothing);
}

#endif /* GPTNER_NO_NER */

#endif /* GPTNER_IMPLEMENTATION_DONE */
#endif /* GPTNER_IMPLEMENTATION */

/* ---------------------------------------------------------------------------
MIT License

Copyright (c) 2026 the gptner.h authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
 * ------------------------------------------------------------------------ */
