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
    int most_requests;     /* the same of requests */
    int went[600];
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
    int went = 0;
    int i;
    for (; s->sent_at < slot; s->sent_at++) {
        s->sent[(s->sent_at + 1) % 600] = 0;
        s->went[(s->sent_at + 1) % 600] = 0;
    }
    s->sent[slot % 600] += tokens;
    s->went[slot % 600]++;
    for (i = 0; i < 600; i++) {
        sum += s->sent[i];
        went += s->went[i];
    }
    s->most_requests = went > s->most_requests ? went : s->most_requests;
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
    sim_check_sets(SIM_BOTH, 0.95, 0.07); /* some at the very start */
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
    sim_check_sets(SIM_WINDOW, 0.93, 0.02);
}

static void short_slices_are_kept_after_the_first_refusal(void **state)
{
    (void)state;
    sim_check_sets(SIM_SLICES, 0.95, 0.12); /* the first burst */
}

static void a_server_that_tells_nothing_is_paced_by_what_was_told(void **state)
{
    static const unsigned how[] = {SIM_NO_HEADERS, SIM_NO_HEADERS | SIM_USAGE,
                                   SIM_NO_HEADERS | SIM_WINDOW};
    size_t i;
    (void)state;
    for (i = 0; i < TEST_COUNT(how); i++) {
        sim s;
        sim_start(&s, how[i], 500, 30000, 10, true);
        sim_run(&s);
        if (sim_share(&s) < 0.85 || s.server.refused * 20 > s.server.replies) {
            fail_msg("how %u: used %f, %d of %d refused", how[i], sim_share(&s),
                     s.server.refused, s.server.replies);
        }
        gpn_pace_deinit(&s.pace);
    }
}

static void limits_told_too_high_are_found_out(void **state)
{
    sim s;
    (void)state;
    sim_start(&s, SIM_NO_HEADERS | SIM_USAGE, 500, 30000, 10, true);
    s.server.limit[1] /= 2;
    s.server.level[1] /= 2;
    s.from = 600000;
    s.to = 3000000;
    sim_run(&s);
    if (sim_share(&s) < 0.85 || s.server.refused * 20 > s.server.replies) {
        fail_msg("used %f, %d of %d refused", sim_share(&s), s.server.refused,
                 s.server.replies);
    }
    gpn_pace_deinit(&s.pace);
}

static void a_day_is_not_used_up_in_an_hour_again(void **state)
{
    sim s;
    (void)state;
    /* 200 requests a day, told by the server alone */
    sim_start(&s, SIM_BY_DAY, 200, 2000000, 10, false);
    s.from = 2 * 3600000;
    s.to = 50 * 3600000;
    sim_run(&s);
    assert_true(sim_share(&s) > 0.95 && sim_share(&s) < 1.05);
    assert_true(s.server.refused <= 2);
    gpn_pace_deinit(&s.pace);
    /* and told by the user */
    sim_start(&s, SIM_BY_DAY | SIM_NO_HEADERS, 200, 2000000, 10, false);
    s.told.requests_per_day = 200;
    gpn_pace_deinit(&s.pace);
    assert_true(gpn_pace_init(&s.pace, &s.told, false));
    s.from = 2 * 3600000;
    s.to = 50 * 3600000;
    sim_run(&s);
    assert_true(sim_share(&s) > 0.95 && sim_share(&s) < 1.05);
    assert_int_equal(s.server.refused, 0);
    gpn_pace_deinit(&s.pace);
}

static void no_minute_sees_more_than_was_told(void **state)
{
    sim s;
    (void)state;
    sim_start(&s, SIM_NO_HEADERS, 500, 10000000, 100, true);
    s.told.tokens_per_minute = 0;
    gpn_pace_deinit(&s.pace);
    assert_true(gpn_pace_init(&s.pace, &s.told, false));
    sim_run(&s);
    assert_int_equal(s.server.refused, 0);
    assert_true(s.most_requests <= 500);
    assert_true(s.most_requests >= 480);
    gpn_pace_deinit(&s.pace);
}

/* ---- the limiter alone --------------------------------------------------- */

typedef struct one {
    gpn_pace pace;
    gptner_limits told;
    gpn_ticket tickets[64];
    gpn_load load;
    gpn_ticket *call;
    gpn_heard heard;
} one;

static void one_start(one *o, int64_t rpm, int64_t tpm)
{
    memset(o, 0, sizeof *o);
    o->told.requests_per_minute = rpm;
    o->told.tokens_per_minute = tpm;
    assert_true(gpn_pace_init(&o->pace, &o->told, true));
    o->load.model = 7;
    o->load.prompt = 100;
    o->load.answer = 100;
    o->heard.replied = true;
}

static int64_t one_enter(one *o, int i, int64_t now)
{
    return gpn_pace_enter(&o->pace, &o->tickets[i], &o->load, now, &o->call);
}

static gpn_ticket *one_settle(one *o, int i, int64_t now)
{
    return gpn_pace_settle(&o->pace, &o->tickets[i], &o->load, &o->heard, now);
}

static void one_tell(one *o, int64_t limit, int64_t left, int64_t reset_ms)
{
    int r;
    o->heard.told = true;
    for (r = 0; r < GPN_RESOURCES; r++) {
        o->heard.quota[r].limit = limit;
        o->heard.quota[r].left = left;
        o->heard.quota[r].reset_ms = reset_ms;
    }
}

static void some_go_before_the_first_reply_and_then_all(void **state)
{
    one o;
    int i;
    (void)state;
    one_start(&o, 0, 0);
    o.load.answer = 2500;
    for (i = 0; i < 20; i++) {
        assert_true(one_enter(&o, i, 5) == (i < 10 ? 0 : INT64_MAX));
    }
    /* a lost connection is no reply, but makes room for one */
    assert_ptr_equal(gpn_pace_leave(&o.pace, &o.tickets[0]), &o.tickets[10]);
    assert_int_equal(one_enter(&o, 10, 6), 0);
    assert_ptr_equal(o.call, &o.tickets[11]);
    assert_true(one_enter(&o, 11, 6) == INT64_MAX);
    /* a reply without limits: none is ever held again */
    assert_ptr_equal(one_settle(&o, 1, 7), &o.tickets[11]);
    for (i = 11; i < 20; i++) {
        assert_int_equal(one_enter(&o, i, 7), 0);
    }
    for (i = 20; i < 60; i++) {
        assert_int_equal(one_enter(&o, i, 8), 0);
    }
    assert_null(o.pace.limiters[0].head);
    gpn_pace_deinit(&o.pace);
    /* no more than fifty, however small; but one, however large */
    one_start(&o, 0, 0);
    for (i = 0; i < 60; i++) {
        assert_true(one_enter(&o, i, 5) == (i < 50 ? 0 : INT64_MAX));
    }
    gpn_pace_deinit(&o.pace);
    one_start(&o, 0, 0);
    o.load.answer = 1000000;
    assert_int_equal(one_enter(&o, 0, 5), 0);
    assert_true(one_enter(&o, 1, 5) == INT64_MAX);
    gpn_pace_deinit(&o.pace);
}

static void limits_that_appear_later_count_from_then_on(void **state)
{
    one o;
    (void)state;
    one_start(&o, 0, 0);
    assert_int_equal(one_enter(&o, 0, 5), 0);
    one_settle(&o, 0, 6);
    assert_int_equal(gpn_atomic_get(&o.pace.idle), 1);
    assert_int_equal(one_enter(&o, 0, 7), 0);
    one_tell(&o, 60, 0, 60000);
    assert_null(one_settle(&o, 0, 8));
    assert_int_equal(one_enter(&o, 0, 9), 0); /* known by its reply at last */
    one_settle(&o, 0, 10);
    assert_true(one_enter(&o, 0, 11) > 500);
    gpn_pace_deinit(&o.pace);
}

static void the_queue_is_first_come_first_served(void **state)
{
    one o;
    int64_t when;
    (void)state;
    one_start(&o, 60, 6000);
    assert_int_equal(one_enter(&o, 0, 1000), 0);
    o.load.prompt = 4000;
    when = one_enter(&o, 1, 1000); /* large */
    assert_true(when > 1000 && when < INT64_MAX);
    o.load.prompt = 1;
    o.load.answer = 1;
    assert_true(one_enter(&o, 2, 1000) == INT64_MAX); /* small, behind it */
    assert_true(one_enter(&o, 3, 1000) == INT64_MAX);
    /* the second gives up, then the first */
    assert_null(gpn_pace_leave(&o.pace, &o.tickets[2]));
    assert_ptr_equal(gpn_pace_leave(&o.pace, &o.tickets[1]), &o.tickets[3]);
    when = one_enter(&o, 3, 1000);
    assert_true(when > 1000 && when < 4000);
    assert_int_equal(one_enter(&o, 3, when), 0);
    assert_null(o.call);
    gpn_pace_deinit(&o.pace);
}

static void each_model_has_its_own_limits_up_to_eight(void **state)
{
    one o;
    int i;
    (void)state;
    one_start(&o, 1, 0);
    for (i = 0; i < 8; i++) {
        o.load.model = (uint64_t)i;
        assert_int_equal(one_enter(&o, i, 1000), 0);
    }
    o.load.model = 99; /* shares the last one */
    assert_true(one_enter(&o, 8, 1000) > 1000);
    assert_int_equal(o.pace.n, 8);
    gpn_pace_deinit(&o.pace);
}

static void a_request_that_never_fits_is_refused_at_once(void **state)
{
    one o;
    int i;
    (void)state;
    one_start(&o, 0, 1000);
    o.load.answer = 1001;
    assert_int_equal(one_enter(&o, 0, 1000), -1);
    assert_int_equal(o.tickets[0].most, 1000);
    o.load.answer = 1000;
    assert_int_equal(one_enter(&o, 0, 1000), 0);
    gpn_pace_deinit(&o.pace);
    /* what is learnt must have been told twice */
    one_start(&o, 0, 0);
    o.load.answer = 1001;
    for (i = 0; i < 2; i++) {
        one_tell(&o, 1000, 1000, 0);
        assert_int_equal(one_enter(&o, 0, 1000 + i), 0);
        one_settle(&o, 0, 1000 + i);
    }
    assert_int_equal(one_enter(&o, 0, 2000), -1);
    gpn_pace_deinit(&o.pace);
}

/* Whatever a server tells, nobody waits longer than a quarter of an hour. */
static void absurd_words_do_no_harm(void **state)
{
    static const int64_t limits[] = {0, 1, 2, 500, 1000000000000000, INT64_MAX};
    static const int64_t resets[] = {
        -1, 0, 1, 1000, 60000, 86400000, INT64_C(10000000000000), INT64_MAX};
    uint64_t random = 5;
    int64_t now = 1000;
    one o;
    int i, k;
    (void)state;
    one_start(&o, 0, 0);
    for (i = 0; i < 20000; i++) {
        int64_t waited = 0;
        for (k = 0; k < GPN_RESOURCES; k++) {
            gpn_quota *q = &o.heard.quota[k];
            random = random * 6364136223846793005u + 1442695040888963407u;
            q->limit = limits[(random >> 33) % TEST_COUNT(limits)];
            q->left = q->limit / (int64_t)(1 + (random >> 40) % 5);
            q->left = (random >> 43) % 3 == 0 ? 0 : q->left;
            q->reset_ms = resets[(random >> 50) % TEST_COUNT(resets)];
        }
        o.heard.told = (random >> 55) % 4 != 0;
        o.heard.refused = (random >> 57) % 4 == 0;
        o.heard.prompt = (random >> 58) % 2 == 0 ? 0 : INT64_MAX / 4;
        o.load.prompt = (int64_t)(random >> 60);
        o.load.answer = (random >> 59) % 2 == 0 ? -1 : 20;
        for (;;) {
            int64_t when = one_enter(&o, 0, now);
            if (when <= 0) {
                break;
            }
            assert_true(when > now);
            waited += when - now;
            now = when;
        }
        assert_true(waited <= GPN_TRUST_MS + 1);
        one_settle(&o, 0, now);
        now += 20;
    }
    gpn_pace_deinit(&o.pace);
}

/* ---- headers ------------------------------------------------------------- */

static void headers_are_read_in_every_form(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } resets[] = {{"12ms", 12},
                  {"1s", 1000},
                  {"8.64s", 8640},
                  {"6m0s", 360000},
                  {"1h0m0s", 3600000},
                  {" 0 ", 0},
                  {"0s", 0},
                  {"7", 7000},
                  {"0.25", 250},
                  {"1772366460", 60000},
                  {"1772366399", 0},
                  {"1772366401500", 1500},
                  {"2026-03-01T12:00:30Z", 30000},
                  {"2026-03-01T12:00:30.125Z", 30000},
                  {"2026-03-01T11:00:30Z", 0},
                  {"Sun, 01 Mar 2026 12:00:02 GMT", 2000},
                  {"99999999999999999999", GPN_WAIT_MAX - 1772366400000},
                  {"-1", -1},
                  {"", -1},
                  {"soon", -1},
                  {"2026-13-01T12:00:30Z", -1},
                  {"2026-03-01T12:00:30+01:00", -1},
                  {"2026-03-01", -1},
                  {"1s1", -1}};
    static const struct {
        const char *text;
        int64_t n;
    } counts[] = {{"5000", 5000},
                  {" 7 ", 7},
                  {"0", 0},
                  {"10.0", 10},
                  {"100, 100;w=60", 100},
                  {"-1", -1},
                  {"", -1},
                  {"many", -1},
                  {"99999999999999999999", GPN_WAIT_MAX}};
    test_page page;
    size_t i;
    (void)state;
    test_page_init(&page, 100);
    for (i = 0; i < TEST_COUNT(resets); i++) {
        size_t len = strlen(resets[i].text);
        int64_t ms = gpn_quota_reset(
            gpn_str(test_page_put(&page, resets[i].text, len), len),
            INT64_C(1772366400000));
        if (ms != resets[i].ms) {
            fail_msg("\"%s\": %lld", resets[i].text, (long long)ms);
        }
    }
    for (i = 0; i < TEST_COUNT(counts); i++) {
        size_t len = strlen(counts[i].text);
        int64_t n = gpn_quota_count(
            gpn_str(test_page_put(&page, counts[i].text, len), len));
        if (n != counts[i].n) {
            fail_msg("\"%s\": %lld", counts[i].text, (long long)n);
        }
    }
    test_page_deinit(&page);
}

/* ---- the client and the mock --------------------------------------------- */

typedef struct env {
    mock_options mock_opt;
    mock_server *mock;
    gptner_config cfg;
    gptner_client *client;
    gptner_run_config run;
    gptner_run_summary sum;
    gptner_error err;
    int64_t now;
    uint64_t random;
    char text[2048];
    int n; /* prompts left */
    int64_t end_ms;
    int by_status[64];
    char message[256]; /* of the last result that is not OK */
    int64_t waiting;   /* most that progress told */
    int64_t halve_ms;
    int64_t cancel_ms;
    int64_t longest_ms; /* total_ms of a result */
} env;

static int64_t env_ms(void *user)
{
    return ((env *)user)->now;
}

static int64_t env_unix_ms(void *user)
{
    return ((env *)user)->now + INT64_C(1790000000000);
}

static uint64_t env_random(void *user)
{
    env *e = (env *)user;
    e->random = e->random * 6364136223846793005u + 1442695040888963407u;
    return e->random;
}

static bool env_wait(int64_t now_ms, int64_t until_ms, void *user)
{
    env *e = (env *)user;
    bool progress = false;
    int64_t next = mock_server_step(e->mock, &progress);
    (void)now_ms;
    if (!progress) {
        int64_t to = until_ms < next ? until_ms : next;
        if (to == INT64_MAX) {
            fail_msg("client and mock wait for each other for ever");
        }
        e->now = to > e->now ? to : e->now + 1;
        if (e->halve_ms != 0 && e->now >= e->halve_ms) {
            e->halve_ms = 0;
            mock_server_limits(e->mock, e->mock->opt.rpm / 2,
                               e->mock->opt.tpm / 2);
        }
        if (e->cancel_ms != 0 && e->now >= e->cancel_ms) {
            gptner_client_cancel(e->client);
        }
    }
    return true;
}

static int env_next(gptner_prompt *prompt, gptner_error *err, void *user)
{
    env *e = (env *)user;
    (void)err;
    if (e->n-- <= 0 || (e->end_ms != 0 && e->now >= e->end_ms)) {
        return 0;
    }
    prompt->text = gpn_str(e->text, (size_t)(env_random(e) >> 33) % 1500 + 1);
    return 1;
}

static bool env_result(const gptner_result *r, void *user)
{
    env *e = (env *)user;
    e->by_status[r->status & 63]++;
    e->longest_ms = r->total_ms > e->longest_ms ? r->total_ms : e->longest_ms;
    if (r->status != GPTNER_OK) {
        snprintf(e->message, sizeof e->message, "%s", r->message);
    }
    return true;
}

static void env_progress(const gptner_progress *p, void *user)
{
    env *e = (env *)user;
    e->waiting = p->waiting > e->waiting ? p->waiting : e->waiting;
}

static void env_init(env *e, int rpm, int64_t tpm, bool told)
{
    memset(e, 0, sizeof *e);
    memset(e->text, 'x', sizeof e->text);
    e->now = 1000;
    e->random = 42;
    e->mock_opt.manual = true;
    e->mock_opt.seed = 7;
    e->mock_opt.reply = "hash";
    e->mock_opt.rpm = rpm;
    e->mock_opt.tpm = tpm;
    e->mock_opt.expect_repeats = -1;
    e->mock_opt.clock_ms_fn = env_ms;
    e->mock_opt.unix_ms_fn = env_unix_ms;
    e->mock_opt.clock_user = e;
    e->mock_opt.latency_ms = 800;
    e->mock_opt.latency_jitter_ms = 700;
    e->cfg.api_key = "sk-test-0123456789";
    e->cfg.max_threads = 1;
    e->cfg.hooks.monotonic_ms_fn = env_ms;
    e->cfg.hooks.unix_ms_fn = env_unix_ms;
    e->cfg.hooks.random_fn = env_random;
    e->cfg.hooks.wait_fn = env_wait;
    e->cfg.hooks.user = e;
    if (told) {
        e->cfg.limits.requests_per_minute = rpm;
        e->cfg.limits.tokens_per_minute = tpm;
    }
    e->run.next_fn = env_next;
    e->run.next_user = e;
    e->run.result_fn = env_result;
    e->run.result_user = e;
    e->run.progress_fn = env_progress;
    e->run.progress_user = e;
}

static void env_start(env *e)
{
    char why[256];
    if (!mock_server_start(&e->mock_opt, &e->mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    e->cfg.base_url = mock_server_base_url(e->mock);
    if (gptner_client_new(&e->cfg, &e->client, &e->err) != GPTNER_OK) {
        fail_msg("client: %s", e->err.message);
    }
}

static void env_end(env *e)
{
    gptner_client_free(e->client);
    mock_server_stop(e->mock);
}

static gptner_status env_run(env *e, int n)
{
    e->n = n;
    memset(e->by_status, 0, sizeof e->by_status);
    return gptner_run(e->client, &e->run, &e->sum, &e->err);
}

static void a_run_is_not_throttled_told_or_untold(void **state)
{
    static const int workers[] = {1, 10, 100};
    env e;
    int i;
    (void)state;
    for (i = 0; i < 6; i++) {
        env_init(&e, 500, 30000, i % 2 == 0);
        e.cfg.max_workers = workers[i / 2];
        e.end_ms = 1000 + 240000;
        e.halve_ms = 1000 + 120000;
        env_start(&e);
        assert_int_equal(env_run(&e, 1000000), GPTNER_OK);
        assert_int_equal(mock_server_count(e.mock, "responses.429"), 0);
        /* 58 a minute, then 29, and the bucket that was full at the start;
         * less what the pace that was told has left of it */
        assert_true(e.sum.ok >= 170);
        env_end(&e);
    }
}

static void learning_can_be_switched_off(void **state)
{
    env e;
    (void)state;
    env_init(&e, 500, 30000, false);
    e.cfg.learn_limits = GPTNER_NO;
    e.cfg.max_workers = 100;
    env_start(&e);
    assert_int_equal(env_run(&e, 100), GPTNER_OK);
    assert_true(mock_server_count(e.mock, "responses.429") > 0);
    env_end(&e);
}

static void a_prompt_that_never_fits_has_its_result_at_once(void **state)
{
    env e;
    gptner_result *r = NULL;
    (void)state;
    env_init(&e, 500, 400, true);
    env_start(&e);
    assert_int_equal(gptner_ask(e.client, "a short question", &r, &e.err),
                     GPTNER_ERR_TOO_LARGE);
    assert_non_null(strstr(e.err.message, "512"));
    assert_non_null(strstr(e.err.message, "400"));
    assert_non_null(strstr(e.err.message, "max_tokens"));
    assert_int_equal(r->attempts, 0);
    assert_int_equal(e.now, 1000);
    gptner_result_free(r);
    /* nor is the rest of a run held up */
    assert_int_equal(env_run(&e, 5), GPTNER_OK);
    assert_int_equal(e.by_status[GPTNER_ERR_TOO_LARGE], 5);
    assert_int_equal(mock_server_count(e.mock, "connections"), 0);
    env_end(&e);
}

static void waiting_ends_with_the_run(void **state)
{
    env e;
    (void)state;
    env_init(&e, 10, 0, true);
    e.run.timeout_ms = 30000;
    e.cfg.max_workers = 20;
    env_start(&e);
    assert_int_equal(env_run(&e, 50), GPTNER_ERR_TIMEOUT);
    assert_int_equal(e.now, 31000);
    assert_true(e.by_status[GPTNER_OK] >= 4);
    assert_true(e.sum.not_sent >= 15);
    assert_true(e.waiting >= 15);
    /* and the queue is empty: the client can be used on */
    e.run.timeout_ms = 0;
    assert_int_equal(env_run(&e, 10), GPTNER_OK);
    assert_int_equal(e.sum.ok, 10);
    env_end(&e);
}

static void waiting_ends_when_it_is_cancelled(void **state)
{
    env e;
    (void)state;
    env_init(&e, 10, 0, true);
    e.cfg.max_workers = 20;
    e.cancel_ms = 20000;
    env_start(&e);
    assert_int_equal(env_run(&e, 50), GPTNER_ERR_CANCELLED);
    assert_true(e.now < 27000); /* the step that passed 20 s */
    e.cancel_ms = 0;
    gptner_client_reset(e.client);
    assert_int_equal(env_run(&e, 10), GPTNER_OK);
    env_end(&e);
}

static void waiting_ends_when_the_run_is_hopeless(void **state)
{
    static const char *const faults[] = {"quota@3"};
    env e;
    (void)state;
    env_init(&e, 10, 0, true);
    e.mock_opt.faults = faults;
    e.mock_opt.n_faults = 1;
    e.cfg.max_workers = 20;
    env_start(&e);
    assert_int_equal(env_run(&e, 50), GPTNER_ERR_QUOTA);
    assert_true(e.sum.not_sent >= 15);
    assert_true(e.now < 60000);
    env_end(&e);
}

static void the_time_of_an_item_begins_when_it_is_sent(void **state)
{
    env e;
    (void)state;
    env_init(&e, 10, 0, true);
    e.cfg.item_timeout_ms = 5000;
    e.cfg.max_workers = 20;
    env_start(&e);
    assert_int_equal(env_run(&e, 30), GPTNER_OK);
    assert_int_equal(e.sum.ok, 30);
    assert_true(e.now > 100000);
    assert_true(e.longest_ms < 5000);
    env_end(&e);
}

static void a_retry_has_no_time_to_wait_for_its_turn(void **state)
{
    static const char *const faults[] = {"500:1"};
    env e;
    (void)state;
    env_init(&e, 3, 0, true);
    e.mock_opt.faults = faults;
    e.mock_opt.n_faults = 1;
    e.cfg.item_timeout_ms = 10000;
    e.cfg.max_workers = 1;
    env_start(&e);
    assert_int_equal(env_run(&e, 1), GPTNER_OK);
    assert_int_equal(e.by_status[GPTNER_ERR_TIMEOUT], 1);
    assert_non_null(strstr(e.message, "limits"));
    assert_int_equal(e.now, 11000);
    env_end(&e);
}

static void what_makes_no_tokens_is_not_limited(void **state)
{
    env e;
    gptner_models *models = NULL;
    gptner_embeddings *vectors = NULL;
    gptner_str text;
    (void)state;
    env_init(&e, 1, 0, true);
    e.mock_opt.rpm = 0;
    env_start(&e);
    text = gpn_str_c("text");
    assert_int_equal(env_run(&e, 1), GPTNER_OK);
    assert_int_equal(gptner_models_list(e.client, &models, &e.err), GPTNER_OK);
    assert_true(e.now < 10000);
    gptner_models_free(models);
    /* another model, another limiter; then it has to wait */
    assert_int_equal(
        gptner_embed(e.client, NULL, &text, 1, 0, &vectors, &e.err), GPTNER_OK);
    gptner_embeddings_free(vectors);
    assert_true(e.now < 10000);
    assert_int_equal(
        gptner_embed(e.client, NULL, &text, 1, 0, &vectors, &e.err), GPTNER_OK);
    gptner_embeddings_free(vectors);
    assert_true(e.now > 60000);
    env_end(&e);
}

static void negative_limits_are_none(void **state)
{
    gptner_config cfg;
    gptner_client *client;
    gptner_error err;
    int i;
    (void)state;
    for (i = 0; i < 5; i++) {
        memset(&cfg, 0, sizeof cfg);
        cfg.api_key = "sk-test";
        (&cfg.limits.requests_per_minute)[i] = -1;
        assert_int_equal(gptner_client_new(&cfg, &client, &err), GPTNER_OK);
        assert_false(gpn_pace_told(&client->pool->pace));
        gptner_client_free(client);
    }
}

/* ---- several threads ----------------------------------------------------- */

typedef struct threaded {
    gptner_client *client;
    gpn_thread thread;
    gptner_run_summary sum;
    gptner_status status;
    int n;
} threaded;

static int threaded_next(gptner_prompt *prompt, gptner_error *err, void *user)
{
    (void)err;
    prompt->text = gpn_str_c("a question");
    return ((threaded *)user)->n-- > 0;
}

static void threaded_run(void *arg)
{
    threaded *t = (threaded *)arg;
    gptner_run_config run;
    gptner_error err;
    memset(&run, 0, sizeof run);
    run.next_fn = threaded_next;
    run.next_user = t;
    t->status = gptner_run(t->client, &run, &t->sum, &err);
}

/* In real time, at 200 a second, so that all of them wait in turn. */
static void two_runs_share_the_limits_of_their_client(void **state)
{
    threaded runs[2];
    gptner_config cfg;
    mock_options opt;
    mock_server *mock;
    gptner_client *client;
    gptner_error err;
    char why[256];
    int64_t began = gpn_clock_os_ms();
    int i;
    (void)state;
    memset(&opt, 0, sizeof opt);
    memset(&cfg, 0, sizeof cfg);
    opt.reply = "hash";
    opt.expect_repeats = -1;
    if (!mock_server_start(&opt, &mock, why, sizeof why)) {
        fail_msg("mock: %s", why);
    }
    cfg.base_url = mock_server_base_url(mock);
    cfg.api_key = "sk-test-0123456789";
    cfg.max_workers = 16;
    cfg.max_threads = 4;
    cfg.limits.requests_per_minute = 12000;
    cfg.learn_limits = GPTNER_NO;
    assert_int_equal(gptner_client_new(&cfg, &client, &err), GPTNER_OK);
    for (i = 0; i < 2; i++) {
        runs[i].client = client;
        runs[i].n = 300;
        assert_true(gpn_thread_start(&runs[i].thread, threaded_run, &runs[i],
                                     128 * 1024));
    }
    for (i = 0; i < 2; i++) {
        gpn_thread_join(&runs[i].thread);
        assert_int_equal(runs[i].status, GPTNER_OK);
        assert_int_equal(runs[i].sum.ok, 300);
    }
    /* 600, less the burst of 240, at 196 a second; never faster */
    assert_true(gpn_clock_os_ms() - began >= 1800);
    gptner_client_free(client);
    mock_server_stop(mock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bucket_told_of_at_the_start_is_used_up),
        cmocka_unit_test(a_bucket_told_of_at_the_reply_is_used_up),
        cmocka_unit_test(a_server_that_counts_usage_is_used_up),
        cmocka_unit_test(fixed_windows_are_used_up_evenly),
        cmocka_unit_test(short_slices_are_kept_after_the_first_refusal),
        cmocka_unit_test(a_server_that_tells_nothing_is_paced_by_what_was_told),
        cmocka_unit_test(limits_told_too_high_are_found_out),
        cmocka_unit_test(a_day_is_not_used_up_in_an_hour_again),
        cmocka_unit_test(no_minute_sees_more_than_was_told),
        cmocka_unit_test(some_go_before_the_first_reply_and_then_all),
        cmocka_unit_test(limits_that_appear_later_count_from_then_on),
        cmocka_unit_test(the_queue_is_first_come_first_served),
        cmocka_unit_test(each_model_has_its_own_limits_up_to_eight),
        cmocka_unit_test(a_request_that_never_fits_is_refused_at_once),
        cmocka_unit_test(absurd_words_do_no_harm),
        cmocka_unit_test(headers_are_read_in_every_form),
        cmocka_unit_test(a_run_is_not_throttled_told_or_untold),
        cmocka_unit_test(learning_can_be_switched_off),
        cmocka_unit_test(a_prompt_that_never_fits_has_its_result_at_once),
        cmocka_unit_test(waiting_ends_with_the_run),
        cmocka_unit_test(waiting_ends_when_it_is_cancelled),
        cmocka_unit_test(waiting_ends_when_the_run_is_hopeless),
        cmocka_unit_test(the_time_of_an_item_begins_when_it_is_sent),
        cmocka_unit_test(a_retry_has_no_time_to_wait_for_its_turn),
        cmocka_unit_test(what_makes_no_tokens_is_not_limited),
        cmocka_unit_test(negative_limits_are_none),
        cmocka_unit_test(two_runs_share_the_limits_of_their_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
