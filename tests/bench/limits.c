/* How well a run keeps to the limits of an account: the client as it is against
 * the mock server in the same process, in virtual time, so that ten minutes
 * pass in some milliseconds. Prints for each scenario how much of what the
 * server would have let through was used, before and after the server halves
 * its limits in the middle of the run, and how many replies were 429.
 *
 *   limits [SCENARIO]   a part of a name: only those
 *
 * Used is what the server charged (max_tokens or a quarter of the body's bytes,
 * whichever is more) between two instants of the steady part. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../../mock_server/mock_openai.h"

enum {
    SETTLE = 90000, /* ms: the steady part begins */
    HALVE = 300000,
    SETTLED = 390000, /* after the change */
    END = 600000,
    CLIENTS_MAX = 2,
    BODY = 125 /* bytes of a request around its text */
};

typedef struct scenario {
    const char *name;
    int64_t rpm, tpm;
    int workers, clients;
    bool told;
    bool shared;    /* by a pace_file */
    int max_tokens; /* 0: the default, 512 */
    int longest;    /* text, in bytes */
} scenario;

struct world;

typedef struct client {
    struct world *world;
    gptner_client *client;
    pthread_t thread;
    uint64_t random;
    int64_t until; /* what it waits for */
    bool failed;
    char *text;
    gptner_run_summary sum;
    gptner_error err;
} client;

/* Clients take turns: time goes on only when all of them wait and the server
 * has nothing to do. */
typedef struct world {
    const scenario *s;
    char pace_file[64];
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t turn;
    uint64_t turns;
    int64_t now;
    int active, waiting;
    bool halved;
    mock_server *mock;
    client clients[CLIENTS_MAX];
    double tokens[2], requests[2]; /* charged, in either steady part */
    int64_t refused_at[4];         /* 429 so far at 10 s, SETTLE, HALVE, END */
    int64_t replies_at[4];
    int marks;
    int64_t by_status[64];
} world;

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static int64_t world_ms(void *user)
{
    return ((client *)user)->world->now;
}

static int64_t world_unix_ms(void *user)
{
    return world_ms(user) + INT64_C(1790000000000);
}

static uint64_t world_random(void *user)
{
    client *c = (client *)user;
    return next_random(&c->random) << 33 ^ next_random(&c->random);
}

static void world_release(world *w)
{
    w->waiting = 0;
    w->turns++;
    pthread_cond_broadcast(&w->turn);
}

static void world_mark(world *w)
{
    static const int64_t at[] = {10000, SETTLE, HALVE, END};
    while (w->marks < 4 && w->now >= at[w->marks]) {
        w->refused_at[w->marks] = mock_server_count(w->mock, "responses.429");
        w->replies_at[w->marks] = mock_server_count(w->mock, "responses.200") +
                                  w->refused_at[w->marks];
        w->marks++;
    }
    if (!w->halved && w->now >= HALVE) {
        w->halved = true;
        mock_server_limits(w->mock, w->mock->opt.rpm / 2, w->mock->opt.tpm / 2);
    }
}

static bool world_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    client *c = (client *)user;
    world *w = c->world;
    bool progress = false;
    int64_t next;
    uint64_t turn;
    int i;
    (void)now_ms;
    pthread_mutex_lock(&w->mutex);
    next = mock_server_step(w->mock, &progress);
    c->until = until_ms;
    turn = w->turns;
    if (progress) {
        world_release(w);
    } else if (++w->waiting == w->active) {
        for (i = 0; i < w->s->clients; i++) {
            next = w->clients[i].until < next ? w->clients[i].until : next;
        }
        w->now = next > w->now ? next : w->now + 1;
        world_mark(w);
        world_release(w);
    } else {
        while (turn == w->turns) {
            pthread_cond_wait(&w->turn, &w->mutex);
        }
    }
    pthread_mutex_unlock(&w->mutex);
    return true;
}

/* Six of ten texts are short, one is very long. */
static int next_prompt(gptner_prompt *prompt, gptner_error *err, void *user)
{
    client *c = (client *)user;
    int64_t longest = c->world->s->longest;
    uint64_t kind = next_random(&c->random) % 10;
    int64_t most = kind < 6 ? longest / 20 : kind < 9 ? longest / 4 : longest;
    int64_t len = most / 5 + (int64_t)(next_random(&c->random) %
                                       (uint64_t)(most - most / 5));
    (void)err;
    if (c->world->now >= END) {
        return 0;
    }
    prompt->text = gpn_str(c->text, (size_t)len);
    prompt->tag = (void *)(uintptr_t)len;
    return 1;
}

static bool take_result(const gptner_result *r, void *user)
{
    world *w = ((client *)user)->world;
    double asked = (double)((int64_t)(uintptr_t)r->tag + BODY) / 4;
    double most = w->s->max_tokens > 0 ? w->s->max_tokens : 512;
    int part = w->now >= SETTLED;
    pthread_mutex_lock(&w->mutex);
    w->by_status[r->status & 63]++;
    if (r->status == GPTNER_OK && w->now >= SETTLE && w->now < END &&
        (part == 1 || w->now < HALVE)) {
        w->tokens[part] += asked > most ? asked : most;
        w->requests[part]++;
    }
    pthread_mutex_unlock(&w->mutex);
    return true;
}

static void *client_run(void *arg)
{
    client *c = (client *)arg;
    world *w = c->world;
    gptner_run_config run = GPN_ZERO;
    run.next_fn = next_prompt;
    run.next_user = c;
    run.result_fn = take_result;
    run.result_user = c;
    run.as_completed = true;
    c->failed = gptner_run(c->client, &run, &c->sum, &c->err) != GPTNER_OK;
    pthread_mutex_lock(&w->mutex);
    w->active--;
    c->until = INT64_MAX;
    world_release(w);
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static bool client_start(world *w, client *c)
{
    static const char words[] = "The committee met in the old town hall on "
                                "Tuesday to discuss the new bridge. ";
    const scenario *s = w->s;
    gptner_config cfg = GPN_ZERO;
    size_t i;
    cfg.base_url = mock_server_base_url(w->mock);
    cfg.api_key = "sk-bench";
    cfg.max_workers = s->workers;
    cfg.max_threads = 1;
    cfg.pace_file = s->shared ? w->pace_file : NULL;
    cfg.options.max_tokens = s->max_tokens;
    cfg.hooks.monotonic_ms_fn = world_ms;
    cfg.hooks.unix_ms_fn = world_unix_ms;
    cfg.hooks.random_fn = world_random;
    cfg.hooks.wait_fn = world_wait;
    cfg.hooks.user = c;
    if (s->told) {
        cfg.limits.requests_per_minute = s->rpm;
        cfg.limits.tokens_per_minute = s->tpm;
    }
    c->world = w;
    c->random = (uint64_t)(c - w->clients) + 7;
    c->until = INT64_MAX;
    c->text = (char *)malloc((size_t)s->longest);
    if (c->text == NULL) {
        return false;
    }
    /* words, for tokens are estimated from what they look like */
    for (i = 0; i < (size_t)s->longest; i++) {
        c->text[i] = words[i % (sizeof words - 1)];
    }
    if (gptner_client_new(&cfg, &c->client, &c->err) != GPTNER_OK) {
        fprintf(stderr, "limits: %s\n", c->err.message);
        return false;
    }
    return true;
}

/* The larger of both shares: a run is bound by one limit. */
static double used(const world *w, int part)
{
    double minutes = (part == 0 ? HALVE - SETTLE : END - SETTLED) / 60000.0;
    double quota = part == 0 ? 1 : 0.5;
    double tokens = w->tokens[part] / ((double)w->s->tpm * quota * minutes);
    double requests = w->requests[part] / ((double)w->s->rpm * quota * minutes);
    return 100 * (tokens > requests ? tokens : requests);
}

static void report(const world *w)
{
    const scenario *s = w->s;
    int64_t refused = w->refused_at[3], all = w->replies_at[3];
    int64_t lost = 0;
    int i;
    for (i = 1; i < 64; i++) {
        lost += w->by_status[i];
    }
    printf("%-27s %4d x %d  %5.1f%%  %5.1f%%  %6.2f%%  %5lld %5lld %5lld "
           "%7lld  %lld\n",
           s->name, s->workers, s->clients, used(w, 0), used(w, 1),
           all > 0 ? 100.0 * (double)refused / (double)all : 0,
           (long long)w->refused_at[0],
           (long long)(w->refused_at[2] - w->refused_at[0]),
           (long long)(refused - w->refused_at[2]), (long long)all,
           (long long)lost);
    fflush(stdout);
    for (i = 0; i < s->clients; i++) {
        if (w->clients[i].failed) {
            printf("  failed: %s\n", w->clients[i].err.message);
        }
    }
}

typedef struct figures {
    double used[2]; /* per cent, before and after the limits are halved */
    int64_t replies, refused;
} figures;

/* out NULL: print. */
static bool run_scenario(const scenario *s, figures *out)
{
    world *w = (world *)calloc(1, sizeof *w);
    mock_options opt = MKI_ZERO;
    char why[256];
    bool ok = w != NULL;
    int i;
    if (!ok) {
        return false;
    }
    w->s = s;
    snprintf(w->pace_file, sizeof w->pace_file, "/tmp/gptner-pace-%d",
             (int)getpid());
    unlink(w->pace_file);
    w->now = 1;
    w->clients[0].world = w;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->turn, NULL);
    opt.manual = true;
    opt.reply = "hash";
    opt.seed = 7;
    opt.rpm = (int)s->rpm;
    opt.tpm = s->tpm;
    opt.expect_repeats = -1;
    opt.clock_ms_fn = world_ms;
    opt.unix_ms_fn = world_unix_ms;
    opt.clock_user = &w->clients[0];
    /* one worker can use a large quota only if the answers are quick */
    opt.latency_ms = s->workers == 1 ? 30 : s->workers == 10 ? 300 : 1500;
    opt.latency_jitter_ms = opt.latency_ms;
    if (!mock_server_start(&opt, &w->mock, why, sizeof why)) {
        fprintf(stderr, "limits: %s\n", why);
        free(w);
        return false;
    }
    for (i = 0; ok && i < s->clients; i++) {
        ok = client_start(w, &w->clients[i]);
    }
    w->active = s->clients;
    for (i = 0; ok && i < s->clients; i++) {
        ok = pthread_create(&w->clients[i].thread, NULL, client_run,
                            &w->clients[i]) == 0;
    }
    for (i = 0; ok && i < s->clients; i++) {
        pthread_join(w->clients[i].thread, NULL);
    }
    if (ok && out == NULL) {
        report(w);
    } else if (ok) {
        out->used[0] = used(w, 0);
        out->used[1] = used(w, 1);
        out->replies = w->replies_at[3];
        out->refused = w->refused_at[3];
        ok = !w->clients[0].failed && !w->clients[s->clients - 1].failed;
    }
    for (i = 0; i < s->clients; i++) {
        gptner_client_free(w->clients[i].client);
        free(w->clients[i].text);
    }
    mock_server_stop(w->mock);
    unlink(w->pace_file);
    free(w);
    return ok;
}

int main(int argc, char **argv)
{
    static const int workers[] = {1, 10, 100};
    static const struct {
        const char *name;
        int64_t rpm, tpm;
        int max_tokens, longest;
    } sets[] = {{"500/30k", 500, 30000, 0, 16000},
                {"5000/450k", 5000, 450000, 0, 16000},
                {"500/30k small", 500, 30000, 16, 300}};
    size_t i, k;
    int told, group; /* of clients: one; two; two with a pace_file */
    bool ok = true;
    printf("%-27s %8s  %6s  %6s  %7s  %s\n", "", "workers", "used", "halved",
           "429", "429 <10s  then halved replies failed");
    for (group = 0; group < 3; group++) {
        for (i = 0; i < sizeof sets / sizeof sets[0]; i++) {
            for (told = 1; told >= 0; told--) {
                for (k = 0; k < 3; k++) {
                    char name[64];
                    scenario s;
                    memset(&s, 0, sizeof s);
                    snprintf(name, sizeof name, "%s %s%s", sets[i].name,
                             told ? "told" : "untold",
                             group == 2 ? " shared" : "");
                    s.name = name;
                    s.rpm = sets[i].rpm;
                    s.tpm = sets[i].tpm;
                    s.max_tokens = sets[i].max_tokens;
                    s.longest = sets[i].longest;
                    s.workers = workers[k];
                    s.clients = group == 0 ? 1 : 2;
                    s.shared = group == 2;
                    s.told = told != 0;
                    if (argc < 2 || strstr(name, argv[1]) != NULL) {
                        ok = run_scenario(&s, NULL) && ok;
                    }
                }
            }
        }
    }
    return ok ? 0 : 1;
}
