/* The limits of an account: the limiter against simulated servers that count
 * in all the ways that are met, and the client as it is against the mock. All
 * in virtual time. */
#define GPTNER_IMPLEMENTATION
#define GPTNER_STATIC
#include "gptner.h"

#define MOCK_OPENAI_IMPLEMENTATION
#define MOCK_OPENAI_STATIC
#include "../mock_server/mock_openai.h"

#include "test_common.h"

/* ---- a server in numbers ------------------------------------------------- */

enum {
    SIM_REPLY_HEADERS = 1, /* told as it stands at the reply */
    SIM_NO_HEADERS = 2,
    SIM_USAGE = 4,      /* counts what is used, at the start */
    SIM_USAGE_LATE = 8, /* the same at the reply */
    SIM_WINDOW = 16,    /* fixed minutes instead of a bucket */
    SIM_SLICES = 32,    /* no more than 1/60 of the limit within a second */
    SIM_BOTH = 64,      /* counts prompt and longest answer */
    SIM_SECONDS = 128,  /* resets in whole seconds */
    SIM_BY_DAY = 256    /* the limits are a day's */
};

typedef struct sim_server {
    unsigned how;
    double limit[GPN_RESOURCES];
    double level[GPN_RESOURCES];
    double slice[GPN_RESOURCES];
    int64_t at_ms;
    double used[GPN_RESOURCES]; /* in the part that is measured */
    int refused;
    int replies;
    int late; /* refused after the first ten seconds */
} sim_server;

static double sim_period(const sim_server *s)
{
    return (s->how & SIM_BY_DAY) != 0 ? 86400000.0 : 60000.0;
}

static void sim_fill(sim_server *s, int64_t now)
{
    double dt = (double)(now - s->at_ms);
    int r;
    for (r = 0; r < GPN_RESOURCES; r++) {
        s->level[r] += s->limit[r] * dt / sim_period(s);
        if ((s->how & SIM_WINDOW) != 0) {
            s->level[r] -= s->limit[r] * dt / sim_period(s);
            if (now / 60000 != s->at_ms / 60000) {
                s->level[r] = s->limit[r];
            }
        }
        if (now / 1000 != s->at_ms / 1000) {
            s->slice[r] = s->limit[r] / 60;
        }
        if (s->level[r] > s->limit[r]) {
            s->level[r] = s->limit[r];
        }
    }
    s->at_ms = now;
}

static void sim_tell(sim_server *s, int64_t now, gpn_heard *h)
{
    int r;
    if ((s->how & SIM_NO_HEADERS) != 0) {
        return;
    }
    sim_fill(s, now);
    h->told = true;
    for (r = 0; r < GPN_RESOURCES; r++) {
        double rest = s->limit[r] - s->level[r];
        gpn_quota *q = &h->quota[r];
        q->limit = (int64_t)s->limit[r];
        q->left = s->level[r] > 0 ? (int64_t)s->level[r] : 0;
        q->reset_ms = (int64_t)(rest * sim_period(s) / s->limit[r]) + 1;
        if ((s->how & SIM_WINDOW) != 0) {
            q->reset_ms = 60000 - now % 60000;
        }
        if ((s->how & SIM_SECONDS) != 0) {
            q->reset_ms = (q->reset_ms + 999) / 1000 * 1000;
        }
    }
}

/* ---- clients in numbers -------------------------------------------------- */

enum { SIM_WORKERS = 128 };

enum { SIM_FREE, SIM_WAITS, SIM_TRAVELS, SIM_SERVED };

typedef struct sim_worker {
    int state;
    int64_t until;
    gpn_ticket ticket;
    gpn_load load;
    double answer; /* that it will be */
    double asked;  /* by the server */
    gpn_heard heard;
    int64_t since; /* waiting */
    bool large;
} sim_worker;

typedef struct sim {
    sim_server server;
    gpn_pace pace;
    gptner_limits told;
    bool learn;
    int workers;
    int64_t now;
    int64_t from; /* what is measured */
    int64_t to;
    int64_t latency_ms;
    int64_t pause_until; /* as the gate has it */
    uint64_t random;
    int64_t longest_wait;  /* of a large request */
    double most_in_minute; /* tokens that were let go within any 60 s */
    double sent[600];      /* by tenths of a second */
    int64_t sent_at;
    sim_worker worker[SIM_WORKERS];
} sim;

static int64_t sim_random(sim *s, int64_t n)
{
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((s->random >> 33) % (uint64_t)n);
}

static void sim_load(sim *s, sim_worker *w)
{
    int64_t kind = sim_random(s, 10);
    w->large = kind == 9;
    w->load.model = 1;
    w->load.prompt = kind < 6   ? 20 + sim_random(s, 200)
                     : kind < 9 ? 200 + sim_random(s, 800)
                                : 1000 + sim_random(s, 3000);
    w->load.answer = 512;
    w->answer = (double)(20 + sim_random(s, 80));
    w->since = s->now;
}

static void sim_call(sim *s, const gpn_ticket *t)
{
    if (t != NULL) {
        ((sim_worker *)t->owner)->until = s->now;
    }
}

/* The tokens that were sent in the last minute. */
static void sim_sent(sim *s, double tokens)
{
    int64_t slot = s->now / 100;
    double sum = 0;
    int i;
    for (; s->sent_at < slot; s->sent_at++) {
        s->sent[(s->sent_at + 1) % 600] = 0;
    }
    s->sent[slot % 600] += tokens;
    for (i = 0; i < 600; i++) {
        sum += s->sent[i];
    }
    s->most_in_minute = sum > s->most_in_minute ? sum : s->most_in_minute;
}

static void sim_ask(sim *s, sim_worker *w)
{
    gpn_ticket *call;
    int64_t when;
    if (s->now < s->pause_until) {
        w->until = s->pause_until;
        return;
    }
    if (w->state == SIM_FREE) {
        sim_load(s, w);
        w->state = SIM_WAITS;
    }
    when = gpn_pace_enter(&s->pace, &w->ticket, &w->load, s->now, &call);
    sim_call(s, call);
    assert_true(when >= 0);
    if (when != 0) {
        assert_true(when > s->now);
        w->until = when;
        return;
    }
    if (w->large && s->now - w->since > s->longest_wait) {
        s->longest_wait = s->now - w->since;
    }
    sim_sent(s, w->ticket.cost[GPN_TOKENS][GPN_UNIT_MORE]);
    w->state = SIM_TRAVELS;
    w->until = s->now + (s->workers > 1 ? 20 + sim_random(s, 60) : 5);
}

static void sim_arrive(sim *s, sim_worker *w)
{
    sim_server *v = &s->server;
    double prompt = (double)w->load.prompt;
    double most = (double)w->load.answer;
    bool slices = (v->how & SIM_SLICES) != 0, room;
    memset(&w->heard, 0, sizeof w->heard);
    sim_fill(v, s->now);
    w->asked = prompt > most ? prompt : most;
    if ((v->how & SIM_BOTH) != 0) {
        w->asked = prompt + most;
    } else if ((v->how & (SIM_USAGE | SIM_USAGE_LATE)) != 0) {
        w->asked = prompt + w->answer;
    }
    room = v->level[0] >= 1 && v->level[1] >= w->asked;
    /* a slice lets one request through, however large */
    room = room && (!slices || (v->slice[0] >= 1 && v->slice[1] > 0));
    w->heard.replied = true;
    w->heard.refused = !room;
    if (room) {
        v->level[0] -= 1;
        v->slice[0] -= 1;
        v->slice[1] -= w->asked;
        v->level[1] -= (v->how & SIM_USAGE_LATE) != 0 ? 0 : w->asked;
        w->heard.prompt = w->load.prompt;
        w->heard.answer = (int64_t)w->answer;
    }
    sim_tell(v, s->now, &w->heard);
    w->state = SIM_SERVED;
    w->until = s->now + 5;
    if (room) {
        w->until += s->latency_ms / 2 + sim_random(s, s->latency_ms);
    }
}

static void sim_reply(sim *s, sim_worker *w)
{
    sim_server *v = &s->server;
    gpn_heard *h = &w->heard;
    sim_fill(v, s->now);
    v->replies++;
    if (h->refused) {
        v->refused++;
        v->late += s->now > 10000;
        s->pause_until = s->now + 500 + sim_random(s, 200);
    } else {
        v->level[1] -= (v->how & SIM_USAGE_LATE) != 0 ? w->asked : 0;
        if (s->now >= s->from && s->now < s->to) {
            v->used[0] += 1;
            v->used[1] += w->asked;
        }
    }
    if ((v->how & SIM_REPLY_HEADERS) != 0) {
        sim_tell(v, s->now, h);
    }
    sim_call(s, gpn_pace_settle(&s->pace, &w->ticket, &w->load, h, s->now));
    w->state = h->refused ? SIM_WAITS : SIM_FREE;
    w->until = s->now;
}

static void sim_run(sim *s)
{
    int i;
    for (;;) {
        sim_worker *next = &s->worker[0];
        for (i = 1; i < s->workers; i++) {
            next = s->worker[i].until < next->until ? &s->worker[i] : next;
        }
        assert_true(next->until < INT64_MAX); /* not all for ever */
        s->now = next->until > s->now ? next->until : s->now;
        if (s->now >= s->to) {
            break;
        }
        next->until = INT64_MAX;
        if (next->state <= SIM_WAITS) {
            sim_ask(s, next);
        } else if (next->state == SIM_TRAVELS) {
            sim_arrive(s, next);
        } else {
            sim_reply(s, next);
        }
    }
}

static void sim_start(sim *s, unsigned how, int64_t rpm, int64_t tpm,
                      int workers, bool told)
{
    int i;
    memset(s, 0, sizeof *s);
    s->server.how = how;
    s->server.limit[0] = s->server.level[0] = (double)rpm;
    s->server.limit[1] = s->server.level[1] = (double)tpm;
    s->server.at_ms = s->now = 1;
    s->workers = workers;
    s->random = 99;
    s->latency_ms = workers == 1 ? 10 : workers == 10 ? 600 : 3000;
    s->from = 120000;
    s->to = 480000;
    if (told) {
        s->told.requests_per_minute = rpm;
        s->told.tokens_per_minute = tpm;
    }
    assert_true(gpn_pace_init(&s->pace, &s->told, true));
    for (i = 0; i < workers; i++) {
        s->worker[i].ticket.owner = &s->worker[i];
        s->worker[i].until = s->now;
    }
}

static double sim_share(const sim *s)
{
    double periods = (double)(s->to - s->from) / sim_period(&s->server);
    double a = s->server.used[0] / s->server.limit[0] / periods;
    double b = s->server.used[1] / s->server.limit[1] / periods;
    return a > b ? a : b;
}

/* Each way of counting with few and many workers, told and untold. */
static void sim_check(unsigned how, int64_t rpm, int64_t tpm, double least,
                      double most_refused)
{
    static const int workers[] = {1, 10, 100};
    int i, told;
    for (i = 0; i < 6; i++) {
        sim s;
        double refused;
        told = i % 2;
        sim_start(&s, how, rpm, tpm, workers[i / 2], told != 0);
        sim_run(&s);
        refused = (double)s.server.refused / (double)s.server.replies;
        if (getenv("SIM_SHOW") != NULL) {
            printf("how %3u %5d/%6d workers %3d %s: used %.3f refused %d "
                   "(%d late) of %d, large waits %d, minute %.3f\n",
                   how, (int)rpm, (int)tpm, s.workers, told ? "told" : "    ",
                   sim_share(&s), s.server.refused, s.server.late,
                   s.server.replies, (int)s.longest_wait,
                   s.most_in_minute / (double)tpm);
        } else if (sim_share(&s) < least || refused > most_refused) {
            fail_msg("how %u, %d workers, told %d: used %f, refused %f", how,
                     s.workers, told, sim_share(&s), refused);
        }
        gpn_pace_deinit(&s.pace);
    }
}

static void sim_check_sets(unsigned how, double least, double most_refused)
{
    sim_check(how, 500, 30000, least, most_refused);
    sim_check(how, 5000, 450000, least, most_refused);
    sim_check(how, 60, 10000000, least, most_refused);
}

static void a_bucket_told_of_at_the_start_is_used_up(void **state)
{
    (void)state;
    sim_check_sets(0, 0.95, 0.01);
    sim_check_sets(SIM_SECONDS, 0.95, 0.01);
    sim_check_sets(SIM_BOTH, 0.95, 0.01);
}

static void a_bucket_told_of_at_the_reply_is_used_up(void **state)
{
    (void)state;
    sim_check_sets(SIM_REPLY_HEADERS, 0.95, 0.01);
}

static void a_server_that_counts_usage_is_used_up(void **state)
{
    (void)state;
    sim_check_sets(SIM_USAGE, 0.95, 0.01);
    sim_check_sets(SIM_USAGE | SIM_REPLY_HEADERS, 0.95, 0.01);
    sim_check_sets(SIM_USAGE_LATE | SIM_REPLY_HEADERS, 0.95, 0.01);
}

static void fixed_windows_are_used_up_evenly(void **state)
{
    (void)state;
    sim_check_sets(SIM_WINDOW, 0.9, 0.02);
}

static void short_slices_are_kept(void **state)
{
    (void)state;
    sim_check_sets(SIM_SLICES, 0.9, 0.05);
}

static void a_server_that_tells_nothing_is_paced_by_what_was_told(void **state)
{
    (void)state;
    sim_check_sets(SIM_NO_HEADERS, 0.9, 0.05);
    sim_check_sets(SIM_NO_HEADERS | SIM_USAGE, 0.9, 0.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bucket_told_of_at_the_start_is_used_up),
        cmocka_unit_test(a_bucket_told_of_at_the_reply_is_used_up),
        cmocka_unit_test(a_server_that_counts_usage_is_used_up),
        cmocka_unit_test(fixed_windows_are_used_up_evenly),
        cmocka_unit_test(short_slices_are_kept),
        cmocka_unit_test(a_server_that_tells_nothing_is_paced_by_what_was_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
