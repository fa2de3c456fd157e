#include "daemon/control/pilot.h"

#include "daemon/control/measure.h"
#include "daemon/device.h"
#include "daemon/log.h"
#include "model/numbers.h"
#include "plan/mover.h"
#include "plan/probe.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ASK_US          1000000 /* neighbours are asked, and plans made, so often */
#define AWAY_US         1000000 /* a link may be lost for so long before its device is planned around */
#define SETTLE_US       1500000  /* of a new plan, before its times count */
#define REFUSED_US      60000000 /* a device that has refused is left alone for so long */
#define RETRY_US        2000000  /* from a failed move to the next attempt */
#define LESS            0.8      /* of a stage's memory, where that was refused */
#define GATHER_US       2000000  /* the first plan waits so long for neighbours to answer */
#define PROFILE_SECONDS 0.7
#define FPS_US          6000000 /* of a new plan, before its frames per second count */
#define SLOW            0.8     /* of what was predicted: from here on a link may be to blame */
#define SLOW_SECONDS    2
#define FRAMES_LEAST    10
#define DOUBT_US        5000000 /* between two measurements of links for that; doubles each time */
#define PROBES_SMALL    8       /* messages that show what one costs ... */
#define PROBES          24      /* ... and with the larger ones, which show the rate */
#define PROBES_AHEAD    4       /* at least so many of those are on their way, and ... */
#define PROBE_AHEAD_US  20000   /* ... while frames flow no more than the link took in this time */
#define PROBE_SMALL     64      /* bytes */
#define PROBES_ENOUGH   (PROBES_SMALL + 4) /* answers that tell something */
#define PROBE_US        3000000            /* what has been answered by then is all that counts, */
#define PROBE_LONG_US   10000000           /* or by then, where that is too little */
#define PROBES_VOID     2 /* measurements in a row in which this device was away do not count */
#define PROBE_AGAIN_US  300000000 /* a rate that was not seen for so long is measured again; */
#define PROBE_SOON_US   10000000  /* one of a device that is not used sooner, then doubles */
#define CHANGE          0.15 /* of a device's slowness or rate: worth being named as the reason */
#define STATE_MAX       (CONFIG_NAME_MAX + 32)
#define SHARE_LEAST     0.01 /* of a core: nobody is believed to have less */

_Static_assert(CONFIG_NEIGHBOURS_MAX + 1 <= MOVER_DEVICES_MAX, "a mover has room for all");
_Static_assert(CONFIG_NEIGHBOURS_MAX + 1 <= DEPLOY_STAGES_MAX, "a deployment has room for all");

/* What a device said last, to tell how much has come since. */
struct report {
    uint64_t frames_out, bytes_out, when_us;
    uint64_t frames_before, frames_us; /* of the line as a whole: this device's only, ... */
    uint64_t loop_us, loop_frames;     /* ... and its loop's CPU time; 0: it says nothing */
};

/* Messages that show what a link can do (wire.md, Probe). */
struct probing {
    bool is_under_way, is_done;
    bool is_wanted;                             /* again */
    unsigned voids;                             /* how often it was begun anew */
    uint64_t again_us;                          /* until the next one, of a device not in use */
    uint64_t token;                             /* of its messages */
    uint64_t since_us, own_cpu_us, other_bytes; /* at the start */
    size_t sent, ahead, answers;
    uint64_t answered_us[PROBES], cpu_us[PROBES];
};

/* A device of the line-to-be; number 0 is this one. */
struct member {
    char *node, *address;
    struct link *link; /* NULL: this device */
    bool has_answered; /* since the link came up */
    bool has_idle_cores;
    double
        cpu_share; /* of a core that its loop's time is taken from, at most 1; see note_cores() */
    uint64_t lost_us; /* when the link was first seen down; 0: it is up */
    uint64_t refused_until_us;
    uint64_t memory_most;     /* less than what it has refused ... */
    uint64_t memory_until_us; /* ... and for how long that is believed */
    struct report report;
    struct probing probing;
    double told_slowness, told_rate; /* when the line was last moved */
    bool told_there;
};

struct measure_job {
    struct job job;
    struct pilot *pilot;
    struct config *config;
    int workers, threads;
    struct model *model;
    struct model_numbers numbers;
    struct measure measure;
    int rc;
    struct err err;
};

struct plan_job {
    struct job job;
    struct pilot *pilot;
    struct mover_problem *problem;
    struct cost_line *line, *best; /* the one that runs (NULL: none), and the best */
    double line_us, best_us;
    int rc;
    struct err err;
};

struct pilot {
    struct device *device; /* NULL: closed */
    struct member members[CONFIG_NEIGHBOURS_MAX + 1];
    size_t count;
    atomic_bool stop; /* the measurement */
    struct model_numbers numbers;
    double *layer_us; /* NULL: not measured yet */
    struct mover mover;
    struct cost_line *line, *next; /* the one that runs, and the one that is being deployed */
    double line_us;                /* predicted period of the one that runs; INFINITY: not known */
    unsigned slow_seconds;         /* in which it did less, one after the other */
    uint64_t doubt_us, doubt_wait_us; /* when its links were last measured for that; the pause */
    uint8_t plan[SHA256_SIZE];        /* of the one that runs */
    uint64_t asked_us, moved_us, measured_us;
    uint64_t retry_us; /* no attempt before; 0: there was no failure */
    bool has_job, is_deploying;
    double next_gain_from_us, next_gain_to_us; /* predicted periods of the move under way */
    uint64_t probings;                         /* ever */
    struct err decisions[PILOT_DECISIONS_MAX]; /* sentences, a ring */
    size_t decided;                            /* ever */
    struct log_repeat prepared, failure;       /* what was said last of each */
    int last_rc;                               /* of planning: a failure is said once */
};

/* ---- life --------------------------------------------------------------------------------------
 */

static void pilot_free(struct pilot *pilot) {
    if (pilot->device || pilot->has_job)
        return;
    for (size_t d = 0; d < pilot->count; d++) {
        free(pilot->members[d].node);
        free(pilot->members[d].address);
    }
    model_numbers_fini(&pilot->numbers);
    free(pilot->layer_us);
    cost_line_free(pilot->line);
    cost_line_free(pilot->next);
    free(pilot);
}

void pilot_close(struct device *device) {
    struct pilot *pilot = device->pilot;
    if (!pilot)
        return;
    device->pilot = NULL;
    atomic_store(&pilot->stop, true);
    for (size_t d = 1; d < pilot->count; d++)
        if (pilot->members[d].link)
            link_drop(pilot->members[d].link);
    pilot->device = NULL;
    deploy_disown(device, pilot);
    pilot_free(pilot);
}

static void decide(struct pilot *pilot, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Notes a decision, with the time of day, for status and the log. */
static void decide(struct pilot *pilot, const char *fmt, ...) {
    struct err *decision = &pilot->decisions[pilot->decided++ % PILOT_DECISIONS_MAX];
    char text[4 * sizeof(decision->text)], clock[16];
    time_t now = time(NULL);
    struct tm tm;
    va_list args;
    localtime_r(&now, &tm);
    strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    err_set(decision, 0, "%s %s", clock, text); /* cuts between characters */
    log_info("auto: %s", decision->text + strlen(clock) + 1);
}

size_t pilot_decisions(const struct device *device, char **ret_texts) {
    struct pilot *pilot = device->pilot;
    if (!pilot)
        return 0;
    size_t count = pilot->decided < PILOT_DECISIONS_MAX ? pilot->decided : PILOT_DECISIONS_MAX;
    for (size_t i = 0; i < count; i++)
        ret_texts[i] = pilot->decisions[(pilot->decided - count + i) % PILOT_DECISIONS_MAX].text;
    return count;
}

/* ---- what the devices say ----------------------------------------------------------------------
 */

/* The number of a device by its control link, or of this one. */
static struct member *find_member(struct pilot *pilot, const struct link *link) {
    for (size_t d = 1; d < pilot->count; d++)
        if (pilot->members[d].link == link)
            return &pilot->members[d];
    return NULL;
}

/* The device after number d in the line that runs, or SIZE_MAX: there is none, or several share its
 * stage or the next, whose frames share ports, so that no link shows what it could do. */
static size_t next_in_line(const struct pilot *pilot, size_t d) {
    for (size_t k = 0; pilot->line && k + 1 < pilot->line->count; k++) {
        const struct cost_stage *stage = &pilot->line->stages[k];
        if (stage->devices[0] == d && stage->replicas == 1 && stage[1].replicas == 1)
            return stage[1].devices[0];
    }
    return SIZE_MAX;
}

/* The link's rate, where the link was the limit. What was sent since the last report says for how
 * much of the time it can have been that: a few bytes that went into a buffer at once say nothing.
 */
static void note_link(struct pilot *pilot, size_t d, const Convoy__StageStatus *s,
                      uint64_t now_us) {
    struct report *report = &pilot->members[d].report;
    size_t next = next_in_line(pilot, d);
    double rate = s->send_mbit / 8, us = (double)(now_us - report->when_us);
    if (next != SIZE_MAX && s->send_full && s->bytes_out > report->bytes_out && rate > 0 &&
        report->when_us > 0)
        mover_note_rate(&pilot->mover, now_us, d, next, rate,
                        (double)(s->bytes_out - report->bytes_out) / (rate * us));
    report->bytes_out = s->bytes_out;
    report->when_us = now_us;
}

/* Where control groups allow a device less than its workers could use, what its loop takes keeps
 * them waiting for longer than that: for as long as the quota needs to grow back. */
static void note_cores(struct member *member, const Convoy__StageStatus *s) {
    double quota = s->cpu_quota > 0 ? s->cpu_quota : INFINITY;
    double busy = (double)s->workers * s->threads;
    member->has_idle_cores = busy < s->cores && busy < quota;
    member->cpu_share = fmax(SHARE_LEAST, fmin(1, quota / fmax(1, s->workers)));
}

/* Whether a plan may count on it. */
static bool is_usable(const struct member *member, uint64_t now_us) {
    return !member->link ||
           (member->has_answered && member->probing.is_done && now_us >= member->refused_until_us);
}

/* Whether a device has worked under the line that runs for long enough for its times to count. */
static bool is_settled(const struct pilot *pilot, const Convoy__StageStatus *s, uint64_t now_us) {
    return pilot->line && s->plan.len == SHA256_SIZE &&
           memcmp(s->plan.data, pilot->plan, SHA256_SIZE) == 0 &&
           now_us - pilot->moved_us > SETTLE_US;
}

/* available: bytes for one more stage; the one that it runs stays until the new one serves. */
static void note_status(struct pilot *pilot, size_t d, const Convoy__StageStatus *s,
                        uint64_t available) {
    struct member *member = &pilot->members[d];
    uint64_t now_us = device_now_us();
    member->has_answered = true;
    note_cores(member, s);
    if (is_usable(member, now_us))
        mover_device_there(&pilot->mover, d, (int)s->workers,
                           now_us < member->memory_until_us && member->memory_most < available
                               ? member->memory_most
                               : available);
    bool is_ours = is_settled(pilot, s, now_us);
    if (is_ours && s->frames_out > member->report.frames_out)
        mover_note_time(&pilot->mover, now_us, d, s->first, s->last, s->compute_ms * 1e3);
    if (is_ours)
        note_link(pilot, d, s, now_us);
    member->report.frames_out = s->frames_out;
}

/* What this device says itself; state is room for a text of ret_own. */
static void note_own(struct pilot *pilot, Convoy__StageStatus *ret_own, char state[STATE_MAX]) {
    status_own(pilot->device, ret_own, state, STATE_MAX);
    uint64_t allowed = device_settings(pilot->device).memory, left = ret_own->memory_available;
    note_status(pilot, 0, ret_own, left && left < allowed ? left : allowed);
}

/* ---- measuring ---------------------------------------------------------------------------------
 */

static void measure(struct job *job) {
    struct measure_job *m = (struct measure_job *)(uintptr_t)job;
    const struct profile_options options = {.workers = m->workers,
                                            .threads = m->threads,
                                            .seconds = PROFILE_SECONDS,
                                            .stop = &m->pilot->stop};
    m->rc = held_open_model(m->config, &m->model, &m->err);
    if (m->rc == 0 && model_numbers_init(&m->numbers, m->model) < 0)
        m->rc = err_set(&m->err, -ENOMEM, "out of memory");
    if (m->rc == 0)
        m->rc = measure_layers(m->model, &options, &m->measure, &m->err);
}

static void on_measured(struct job *job, bool is_closing) {
    struct measure_job *m = (struct measure_job *)(uintptr_t)job;
    struct pilot *pilot = m->pilot;
    Convoy__StageStatus own;
    char state[STATE_MAX];
    double sum = 0;
    pilot->has_job = false;
    if (is_closing || !pilot->device) {
        pilot_free(pilot);
    } else if (m->rc < 0) {
        decide(pilot, "nothing can be planned: %s", m->err.text);
    } else {
        pilot->numbers = m->numbers;
        pilot->layer_us = m->measure.layer_us;
        m->numbers = (struct model_numbers){.layers = 0};
        m->measure.layer_us = NULL;
        const struct cost_network network = {
            .layers = pilot->numbers.layers,
            .cut_bytes = pilot->numbers.cut_bytes,
            .weight_bytes = pilot->numbers.weight_bytes,
            .arena_bytes = pilot->numbers.arena_bytes,
            .first_cut = pilot->device->config->raw_input_stays ? pilot->numbers.first_mixed : 1};
        pilot->measured_us = device_now_us();
        mover_init(&pilot->mover, &network, pilot->layer_us, pilot->count, &mover_defaults);
        pilot->mover.max_replicas = (size_t)pilot->device->config->max_replicas;
        note_own(pilot, &own, state); /* what probes tell is judged by it */
        for (size_t i = 0; i < network.layers; i++)
            sum += pilot->layer_us[i];
        decide(pilot, "measured %zu layers here: %.2f ms per frame, %.1f frames/s alone",
               network.layers, sum / 1e3, sum > 0 ? 1e6 * m->workers / sum : 0);
    }
    model_unref(m->model);
    model_numbers_fini(&m->numbers);
    measure_fini(&m->measure);
    config_free(m->config);
    free(m);
}

static int submit_measuring(struct pilot *pilot) {
    const struct config *config = pilot->device->config;
    struct measure_job *m = calloc(1, sizeof(*m));
    if (!m || config_copy_for_model(config, &m->config) < 0) {
        free(m);
        return -ENOMEM;
    }
    m->job.work = measure;
    m->job.done = on_measured;
    m->pilot = pilot;
    m->workers = config->workers;
    m->threads = config->threads;
    pilot->has_job = true;
    builder_submit(pilot->device->builder, &m->job);
    return 0;
}

/* ---- what the links can do ---------------------------------------------------------------------
 */

static uint64_t loop_cpu_us(void) {
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* What frames have sent so far: they share this device's port with what is measured. */
static uint64_t frame_bytes(const struct device *device) {
    const struct link *link;
    uint64_t sum = 0, bytes;
    bool is_full;
    TAILQ_FOREACH(link, &device->links, entry) {
        if (link->kind != LINK_FRAMES)
            continue;
        link_rate(link, &bytes, &is_full);
        sum += bytes;
    }
    return sum;
}

static bool is_probing(const struct pilot *pilot) {
    for (size_t d = 1; d < pilot->count; d++)
        if (pilot->members[d].probing.is_under_way)
            return true;
    return false;
}

/* What frames cost this device's loop, while nothing else keeps it busy. */
static void note_loop(struct pilot *pilot, const Convoy__StageStatus *own, uint64_t now_us) {
    const struct member *member = &pilot->members[0];
    struct report *report = &pilot->members[0].report;
    uint64_t cpu_us = loop_cpu_us(), frames = own->frames_out - report->loop_frames;
    bool is_quiet = is_settled(pilot, own, now_us) && !pilot->is_deploying && !is_probing(pilot);
    if (is_quiet && report->loop_us > 0 && frames >= FRAMES_LEAST)
        mover_note_loop(&pilot->mover, now_us, 0, own->first, own->last,
                        member->has_idle_cores ? 0
                                               : (double)(cpu_us - report->loop_us) /
                                                     ((double)frames * member->cpu_share));
    report->loop_us = is_quiet ? cpu_us : 0;
    report->loop_frames = own->frames_out;
}

static int send_probe(const struct member *member, struct pool *pool, struct buffer *zeros,
                      size_t bytes) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Probe probe = CONVOY__PROBE__INIT;
    Convoy__Tensor tensor = CONVOY__TENSOR__INIT, *tensors[] = {&tensor};
    const struct segment segment = {zeros->data, bytes, zeros};
    int64_t dims[] = {(int64_t)bytes};
    struct buffer *header;
    size_t header_bytes;
    tensor.name = (char *)(uintptr_t) "probe";
    tensor.dtype = DTYPE_UINT8;
    tensor.dims = dims;
    tensor.n_dims = 1;
    tensor.size = bytes;
    probe.token = member->probing.token;
    probe.tensors = tensors;
    probe.n_tensors = 1;
    message.body_case = CONVOY__MESSAGE__BODY_PROBE;
    message.probe = &probe;
    int rc = conn_pack(pool, &message, bytes, &header, &header_bytes);
    return rc < 0 ? rc
                  : conn_send_packed(member->link->conn, header, header_bytes, &segment, 1, NULL,
                                     NULL);
}

/* Sends probes until so many have been, or all. */
static void send_probes(struct pilot *pilot, struct member *member, size_t until) {
    struct probing *probing = &member->probing;
    until = until < PROBES ? until : PROBES;
    struct pool *pool = pilot->device->pool;
    if (probing->sent >= until)
        return;
    struct buffer *zeros = pool_get(pool, DEPLOY_CHUNK);
    int rc = zeros ? 0 : -ENOMEM;
    if (zeros)
        memset(zeros->data, 0, DEPLOY_CHUNK);
    for (; rc == 0 && probing->sent < until; probing->sent++)
        rc = send_probe(member, pool, zeros,
                        probing->sent < PROBES_SMALL ? PROBE_SMALL : DEPLOY_CHUNK);
    buffer_unref(zeros);
}

/* How many probes may be on their way to a device: frames wait behind them. */
static size_t probes_ahead(const struct pilot *pilot, const struct member *member) {
    const struct mover_device *known = pilot->mover.devices;
    double rate = fmin(known[0].rate, known[member - pilot->members].rate);
    double ahead = rate * PROBE_AHEAD_US / DEPLOY_CHUNK;
    if (!pilot->line || flow_is_idle(pilot->device) || ahead > PROBES)
        return PROBES;
    return ahead > PROBES_AHEAD ? (size_t)ahead : PROBES_AHEAD;
}

static void start_probing(struct pilot *pilot, struct member *member, uint64_t now_us) {
    uint64_t again_us = member->probing.again_us ? 2 * member->probing.again_us : PROBE_SOON_US;
    member->probing =
        (struct probing){.is_under_way = true,
                         .is_done = member->probing.is_done, /* it stays there */
                         .voids = member->probing.voids,
                         .again_us = again_us < PROBE_AGAIN_US ? again_us : PROBE_AGAIN_US,
                         .token = ++pilot->probings,
                         .since_us = now_us,
                         .ahead = probes_ahead(pilot, member),
                         .own_cpu_us = loop_cpu_us(),
                         .other_bytes = frame_bytes(pilot->device)};
    pilot->members[0].report.loop_us = 0; /* the loop works for them, not for frames */
    send_probes(pilot, member, PROBES_SMALL + member->probing.ahead);
}

/* What has come of a measurement says nothing: it begins anew. */
static void void_probing(struct probing *probing) {
    probing->is_under_way = false;
    probing->is_wanted = true;
    probing->voids++;
}

/* CPU time of one message between two answers. */
static double cost_of(const struct probing *probing, size_t from, size_t to) {
    uint64_t first = probing->cpu_us[from], last = probing->cpu_us[to];
    return last > first ? (double)(last - first) / (double)(to - from) : 0;
}

/* All answers have come, or no more are waited for. A device whose workers leave cores idle has its
 * loop there: messages cost its layers nothing. */
static void finish_probing(struct pilot *pilot, struct member *member, uint64_t now_us) {
    struct probing *probing = &member->probing;
    const size_t d = (size_t)(member - pilot->members), first = PROBES_SMALL,
                 count = probing->answers;
    probing->is_under_way = false;
    probing->is_done = true;
    probing->voids = 0;
    if (count < PROBES_ENOUGH)
        return;
    double sent = (double)(count * DEPLOY_CHUNK), share = member->cpu_share;
    double small_us = cost_of(probing, 0, first - 1);
    uint64_t frames = frame_bytes(pilot->device); /* less than before: a link has gone */
    double others = frames > probing->other_bytes ? (double)(frames - probing->other_bytes) : 0;
    double rate = probe_rate(probing->answered_us + first, count - first, DEPLOY_CHUNK);
    mover_note_probe(&pilot->mover, now_us, d, rate * (1 + others / sent));
    if (member->has_idle_cores)
        mover_note_messages(&pilot->mover, d, 0, 0);
    else
        mover_note_messages(&pilot->mover, d, small_us / share,
                            fmax(0, cost_of(probing, first, count - 1) - small_us) /
                                (DEPLOY_CHUNK * share));
    share = pilot->members[0].cpu_share;
    if (!pilot->members[0].has_idle_cores && others == 0)
        mover_note_messages(&pilot->mover, 0, small_us / share,
                            (double)(loop_cpu_us() - probing->own_cpu_us) / (sent * share));
}

static bool is_in_line(const struct pilot *pilot, size_t d) {
    for (size_t k = 0; pilot->line && k < pilot->line->count; k++)
        for (size_t i = 0; i < pilot->line->stages[k].replicas; i++)
            if (pilot->line->stages[k].devices[i] == d)
                return true;
    return false;
}

/* Whether a rate has not been seen for long. One that keeps a device out of the line may have been
 * measured while that was busy, and no frame would show it. */
static bool is_old(const struct pilot *pilot, size_t d, uint64_t now_us) {
    const struct probing *probing = &pilot->members[d].probing;
    uint64_t limit_us = is_in_line(pilot, d) ? PROBE_AGAIN_US : probing->again_us;
    return now_us - probing->since_us > limit_us &&
           now_us - pilot->mover.devices[d].rate_us > limit_us;
}

/* Whether no more answers are waited for. */
static bool is_over(const struct probing *probing, uint64_t now_us) {
    bool is_slow = probing->answers > 0 && probing->answers < PROBES_ENOUGH;
    return now_us - probing->since_us > (is_slow ? PROBE_LONG_US : PROBE_US);
}

/* Measures one link at a time: they share this device's port. */
static void probe_links(struct pilot *pilot, uint64_t now_us) {
    struct member *next = NULL;
    for (size_t d = 1; d < pilot->count; d++) {
        struct member *member = &pilot->members[d];
        struct probing *probing = &member->probing;
        if (!link_is_up(member->link)) {
            probing->is_under_way = probing->is_done = false;
            probing->again_us = 0;
            continue;
        }
        if (probing->is_under_way && is_over(probing, now_us))
            finish_probing(pilot, member, now_us);
        if (probing->is_under_way)
            return;
        if (!next && member->has_answered &&
            (!probing->is_done || probing->is_wanted || is_old(pilot, d, now_us)))
            next = member;
    }
    if (next)
        start_probing(pilot, next, now_us);
}

/* What a device does, has, and can be given; pilot_status() is the answer. */
static void ask(const struct member *member) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__StatusRequest request = CONVOY__STATUS_REQUEST__INIT;
    request.token = device_now_us();
    request.alone = true;
    message.body_case = CONVOY__MESSAGE__BODY_STATUS_REQUEST;
    message.status_request = &request;
    if (link_is_up(member->link))
        conn_send(member->link->conn, &message);
}

void pilot_probed(struct device *device, const struct link *link, const Convoy__Probed *probed) {
    struct pilot *pilot = device->pilot;
    struct member *member = pilot && pilot->layer_us ? find_member(pilot, link) : NULL;
    struct probing *probing = member ? &member->probing : NULL;
    if (!probing || !probing->is_under_way || probing->answers == PROBES ||
        probed->token != probing->token)
        return; /* of an earlier measurement */
    probing->answered_us[probing->answers] = device_now_us();
    probing->cpu_us[probing->answers++] = probed->cpu_us;
    if (probing->answers < PROBES) {
        send_probes(pilot, member, probing->answers + probing->ahead);
        return;
    }
    bool is_first = !probing->is_done;
    finish_probing(pilot, member, device_now_us());
    if (!pilot->line) /* the first plan waits for them */
        probe_links(pilot, device_now_us());
    if (is_first) /* now its answer counts */
        ask(member);
}

void pilot_status(struct device *device, const struct link *link, const Convoy__Status *status) {
    struct pilot *pilot = device->pilot;
    struct member *member = pilot && pilot->layer_us ? find_member(pilot, link) : NULL;
    if (!member || status->n_stages == 0)
        return;
    const Convoy__StageStatus *own = status->stages[0];
    bool is_first = !member->has_answered;
    note_status(pilot, (size_t)(member - pilot->members), own,
                own->memory_available ? own->memory_available : UINT64_MAX);
    if (is_first)
        probe_links(pilot, device_now_us());
}

void pilot_link_up(struct device *device, const struct link *link) {
    struct pilot *pilot = device->pilot;
    struct member *member = pilot && pilot->layer_us ? find_member(pilot, link) : NULL;
    if (!member)
        return;
    if (member->probing.is_under_way) /* over the connection before */
        void_probing(&member->probing);
    ask(member);
}

void pilot_refused(struct device *device, const struct link *link,
                   const uint8_t plan[SHA256_SIZE]) {
    struct pilot *pilot = device->pilot;
    struct member *member = pilot && pilot->line ? find_member(pilot, link) : NULL;
    if (member && memcmp(plan, pilot->plan, SHA256_SIZE) == 0)
        member->refused_until_us = device_now_us() + REFUSED_US;
}

void pilot_excuse(struct device *device, uint64_t us, uint64_t now_us) {
    struct pilot *pilot = device->pilot;
    for (size_t d = 1; pilot && d < pilot->count; d++) {
        struct probing *probing = &pilot->members[d].probing;
        probing->since_us = conn_excused(probing->since_us, us, now_us);
        if (probing->is_under_way && probing->voids < PROBES_VOID)
            void_probing(probing);
    }
}

static bool is_lost(const struct member *member) {
    return member->link && !link_is_up(member->link);
}

/* Plans do without a device until it has answered again. */
static void lose(struct pilot *pilot, size_t device) {
    pilot->members[device].has_answered = false;
    mover_device_gone(&pilot->mover, device);
}

/* Devices come and go with their links. */
static void check_links(struct pilot *pilot, uint64_t now_us) {
    for (size_t d = 1; d < pilot->count; d++) {
        struct member *member = &pilot->members[d];
        if (link_is_up(member->link)) {
            member->lost_us = 0;
        } else if (member->lost_us == 0) {
            member->lost_us = now_us;
        } else if (now_us - member->lost_us > AWAY_US) {
            lose(pilot, d);
        }
        if (!is_usable(member, now_us))
            mover_device_gone(&pilot->mover, d);
    }
}

/* ---- planning ----------------------------------------------------------------------------------
 */

static void make_plan(struct job *job) {
    struct plan_job *p = (struct plan_job *)(uintptr_t)job;
    p->rc = mover_problem_plan(p->problem, &p->best, &p->err);
    p->line_us = p->line ? mover_problem_period(p->problem, p->line) : INFINITY;
    p->best_us = p->rc == 0 ? mover_problem_period(p->problem, p->best) : INFINITY;
}

/* "pi-a 0-12, pi-b + pi-c 13-38" */
static const char *line_text(const struct pilot *pilot, const struct cost_line *line, char *buf,
                             size_t size) {
    size_t used = 0;
    buf[0] = '\0';
    for (size_t k = 0; k < line->count; k++) {
        const struct cost_stage *stage = &line->stages[k];
        for (size_t i = 0; i < stage->replicas && used < size; i++)
            used += (size_t)snprintf(buf + used, size - used, "%s%s",
                                     i   ? " + "
                                     : k ? ", "
                                         : "",
                                     pilot->members[stage->devices[i]].node);
        if (used < size)
            used += (size_t)snprintf(buf + used, size - used, " %zu-%zu", stage->first,
                                     stage->last - 1);
    }
    return buf;
}

/* What has changed most since the last move: the reason, in words. */
static const char *reason_text(const struct pilot *pilot, char *buf, size_t size) {
    double most = log(1 + CHANGE);
    if (!pilot->line)
        return "it is the first plan";
    snprintf(buf, size, "of what was measured since the last move");
    for (size_t d = 0; d < pilot->count; d++) {
        const struct member *member = &pilot->members[d];
        const struct mover_device *known = &pilot->mover.devices[d];
        if (known->is_there != member->told_there) {
            snprintf(buf, size, "%s %s", member->node, known->is_there ? "has joined" : "is away");
            return buf;
        }
        double slowness = log(known->slowness / member->told_slowness);
        if (fabs(slowness) > most) {
            most = fabs(slowness);
            snprintf(buf, size, "%s takes %.2f times as long as was known", member->node,
                     exp(slowness));
        }
        double rate = isinf(known->rate)         ? 0
                      : isinf(member->told_rate) ? log(1 + CHANGE) * 1.001
                                                 : log(known->rate / member->told_rate);
        if (fabs(rate) > most) {
            most = fabs(rate);
            snprintf(buf, size, "the link of %s does %.0f Mbit/s", member->node, known->rate * 8);
        }
    }
    return buf;
}

static void remember_reasons(struct pilot *pilot) {
    for (size_t d = 0; d < pilot->count; d++) {
        const struct mover_device *known = &pilot->mover.devices[d];
        pilot->members[d].told_there = known->is_there;
        pilot->members[d].told_slowness = known->slowness;
        pilot->members[d].told_rate = known->rate;
    }
}

/* A device has refused its stage: it is asked for less, or left alone for a while. One that was
 * lost is away. */
static void note_refusal(struct pilot *pilot, const struct cost_stage *stage, size_t device,
                         Convoy__Code code, uint64_t now_us) {
    struct member *member = &pilot->members[device];
    if (code == CONVOY__CODE__CODE_NO_MEMORY) {
        member->memory_most = (uint64_t)((double)stage->memory * LESS);
        member->memory_until_us = now_us + REFUSED_US;
    } else if (is_lost(member)) {
        lose(pilot, device);
    } else if (code != CONVOY__CODE__CODE_OK && member->link) {
        member->refused_until_us = now_us + REFUSED_US;
    }
}

/* The line stays as it is. A failure that is no other device's is this one's. */
static void note_failure(struct pilot *pilot, const struct deploy_outcome *outcome,
                         uint64_t now_us) {
    bool is_own = true, has_lost = false;
    size_t n = 1; /* the outcome lists devices in the line's order */
    for (size_t k = 1; k < pilot->next->count; k++) {
        const struct cost_stage *stage = &pilot->next->stages[k];
        for (size_t i = 0; i < stage->replicas && n < outcome->devices_count; i++, n++) {
            const struct deploy_device *device = &outcome->devices[n];
            if (!device->is_bystander)
                note_refusal(pilot, stage, stage->devices[i], device->code, now_us);
            is_own = is_own && device->code == CONVOY__CODE__CODE_OK;
            has_lost = has_lost || is_lost(&pilot->members[stage->devices[i]]);
        }
    }
    if (is_own)
        note_refusal(pilot, &pilot->next->stages[0], 0, outcome->code, now_us);
    pilot->retry_us = has_lost ? now_us : now_us + RETRY_US; /* another line, at once */
    if (log_is_news(&pilot->failure, outcome->err.text, now_us))
        decide(pilot, "not moved: %s", outcome->err.text);
    cost_line_free(pilot->next);
    pilot->next = NULL;
}

static void on_deployed(void *arg, const struct deploy_outcome *outcome) {
    struct pilot *pilot = arg;
    char line[2 * sizeof(pilot->decisions[0].text)], reason[sizeof(pilot->decisions[0].text)];
    uint64_t now_us = device_now_us();
    pilot->is_deploying = false;
    mover_moved(&pilot->mover, now_us);
    if (outcome->code != CONVOY__CODE__CODE_OK) {
        note_failure(pilot, outcome, now_us);
        return;
    }
    line_text(pilot, pilot->next, line, sizeof(line));
    pilot->prepared.said_us = pilot->failure.said_us = 0;
    if (isinf(pilot->next_gain_from_us))
        decide(pilot, "%s: %.1f frames/s predicted; because %s", line, 1e6 / pilot->next_gain_to_us,
               reason_text(pilot, reason, sizeof(reason)));
    else
        decide(pilot, "%s: %.1f frames/s predicted instead of %.1f; because %s", line,
               1e6 / pilot->next_gain_to_us, 1e6 / pilot->next_gain_from_us,
               reason_text(pilot, reason, sizeof(reason)));
    cost_line_free(pilot->line);
    pilot->line = pilot->next;
    pilot->next = NULL;
    pilot->moved_us = now_us;
    memcpy(pilot->plan, outcome->plan, SHA256_SIZE);
    pilot->line_us = INFINITY; /* until it is planned again */
    pilot->doubt_wait_us = 0;
    remember_reasons(pilot);
}

/* Has a line deployed; takes it. */
static void move(struct pilot *pilot, struct cost_line *line) {
    struct deploy_stage stages[CONFIG_NEIGHBOURS_MAX + 1];
    struct deploy_request request = {.stages = stages,
                                     .is_retried = true,
                                     .away_ms = AWAY_US / 1000,
                                     .done = on_deployed,
                                     .arg = pilot};
    struct err err = {""};
    char text[2 * sizeof(err.text)];
    for (size_t k = 0; k < line->count; k++) {
        const struct cost_stage *stage = &line->stages[k];
        for (size_t i = 0; i < stage->replicas; i++) {
            const struct member *member = &pilot->members[stage->devices[i]];
            stages[request.count++] = (struct deploy_stage){.node = member->node,
                                                            .address = member->address,
                                                            .until = stage->last - 1,
                                                            .shares = i > 0};
        }
    }
    if (log_is_news(&pilot->prepared, line_text(pilot, line, text, sizeof(text)), device_now_us()))
        log_info("auto: %s is being prepared", text);
    pilot->is_deploying = true;
    pilot->next = line;
    int rc = deploy_run(pilot->device, &request, &err);
    if (rc == 0)
        return;
    pilot->is_deploying = false;
    pilot->next = NULL;
    cost_line_free(line);
    if (rc != -EBUSY && log_is_news(&pilot->failure, err.text, device_now_us()))
        decide(pilot, "not moved: %s", err.text);
}

static void free_plan_job(struct plan_job *p) {
    mover_problem_free(p->problem);
    cost_line_free(p->line);
    cost_line_free(p->best);
    free(p);
}

/* One that has been lost a moment ago may be back in another, or is planned around then. */
static bool all_are_there(const struct pilot *pilot, const struct cost_line *line) {
    for (size_t k = 0; k < line->count; k++)
        for (size_t i = 0; i < line->stages[k].replicas; i++)
            if (is_lost(&pilot->members[line->stages[k].devices[i]]))
                return false;
    return true;
}

static void on_planned(struct job *job, bool is_closing) {
    struct plan_job *p = (struct plan_job *)(uintptr_t)job;
    struct pilot *pilot = p->pilot;
    pilot->has_job = false;
    if (is_closing || !pilot->device) {
        pilot_free(pilot);
        free_plan_job(p);
        return;
    }
    if (p->rc < 0) {
        mover_end_alone(&pilot->mover);
        if (p->rc != pilot->last_rc)
            decide(pilot, "no plan: %s", p->err.text);
    } else if (!deploy_is_busy(pilot->device) && !pilot->device->draining &&
               device_now_us() >= pilot->retry_us && all_are_there(pilot, p->best) &&
               mover_decide(&pilot->mover, device_now_us(), p->line_us, p->best_us) == MOVER_MOVE) {
        pilot->next_gain_from_us = p->line_us;
        pilot->next_gain_to_us = p->best_us;
        move(pilot, p->best);
        p->best = NULL;
    }
    pilot->last_rc = p->rc;
    pilot->line_us = p->line_us;
    free_plan_job(p);
}

/* The first plan is of all neighbours, unless one does not answer. */
static bool has_gathered(const struct pilot *pilot, uint64_t now_us) {
    for (size_t d = 1; d < pilot->count; d++)
        if (!pilot->members[d].has_answered || !pilot->members[d].probing.is_done)
            return pilot->line || now_us - pilot->measured_us > GATHER_US;
    return true;
}

static void submit_planning(struct pilot *pilot, uint64_t now_us) {
    struct plan_job *p = calloc(1, sizeof(*p));
    if (!p)
        return; /* there is always another second */
    p->job.work = make_plan;
    p->job.done = on_planned;
    p->pilot = pilot;
    p->problem = mover_problem_new(&pilot->mover, now_us);
    p->line = pilot->line ? cost_line_copy(pilot->line) : NULL;
    if (!p->problem || (pilot->line && !p->line)) {
        free_plan_job(p);
        return;
    }
    pilot->has_job = true;
    builder_submit(pilot->device->builder, &p->job);
}

/* A line that does less than was predicted, while frames wait, may have a link that got slower: the
 * kernel does not tell when a frame fits the buffers on its way. So all links are measured anew. */
static void note_shortfall(struct pilot *pilot, const Convoy__StageStatus *own, uint64_t now_us) {
    struct report *report = &pilot->members[0].report;
    double us = (double)(now_us - report->frames_us);
    double frames = (double)(own->frames_out - report->frames_before);
    double expected = us / pilot->line_us; /* too few to be counted in a second: the average */
    bool is_slow = report->frames_us > 0 && own->queued > 0 &&
                   (expected > FRAMES_LEAST ? frames : own->fps * us / 1e6) < SLOW * expected;
    report->frames_us = now_us;
    report->frames_before = own->frames_out;
    pilot->slow_seconds = is_slow ? pilot->slow_seconds + 1 : 0;
    if (pilot->slow_seconds < SLOW_SECONDS || now_us < pilot->doubt_us + pilot->doubt_wait_us)
        return;
    pilot->doubt_us = now_us;
    pilot->doubt_wait_us = pilot->doubt_wait_us ? 2 * pilot->doubt_wait_us : DOUBT_US;
    if (pilot->doubt_wait_us > PROBE_AGAIN_US)
        pilot->doubt_wait_us = PROBE_AGAIN_US;
    for (size_t d = 1; d < pilot->count; d++)
        pilot->members[d].probing.is_wanted = pilot->members[d].probing.is_done;
}

/* A line that does less than this device would by itself is given up. */
static void note_fps(struct pilot *pilot, const Convoy__StageStatus *own, uint64_t now_us) {
    bool is_settled = pilot->line && pilot->line->count > 1 && now_us - pilot->moved_us > FPS_US;
    if (is_settled && !pilot->is_deploying)
        note_shortfall(pilot, own, now_us);
    else
        pilot->members[0].report.frames_us = 0;
    if (is_settled && !pilot->is_deploying &&
        mover_note_fps(&pilot->mover, now_us, own->fps, own->queued > 0))
        decide(pilot,
               "%.1f frames/s for %d s are fewer than %s would do alone: it does for a while",
               own->fps, (int)(MOVER_WORSE_US / 1000000), pilot->members[0].node);
}

/* ---- the clock ---------------------------------------------------------------------------------
 */

void pilot_tick(struct device *device, uint64_t now_us) {
    struct pilot *pilot = device->pilot;
    if (!pilot || !pilot->layer_us || device->draining || now_us - pilot->asked_us < ASK_US)
        return;
    Convoy__StageStatus own;
    char state[STATE_MAX];
    pilot->asked_us = now_us;
    check_links(pilot, now_us);
    note_own(pilot, &own, state);
    note_fps(pilot, &own, now_us);
    note_loop(pilot, &own, now_us);
    for (size_t d = 1; d < pilot->count; d++)
        ask(&pilot->members[d]);
    probe_links(pilot, now_us);
    if (!pilot->has_job && !pilot->is_deploying && has_gathered(pilot, now_us))
        submit_planning(pilot, now_us);
}

/* ---- the beginning -----------------------------------------------------------------------------
 */

static int add_member(struct pilot *pilot, const char *node, const char *address) {
    struct member *member = &pilot->members[pilot->count++];
    member->node = strdup(node);
    member->address = strdup(address);
    if (!member->node || !member->address)
        return -ENOMEM;
    if (pilot->count == 1)
        return 0;
    member->link = link_hold(pilot->device, node, address);
    return member->link ? 0 : -ENOMEM;
}

static int start(struct device *device) {
    const struct config *config = device->config;
    struct pilot *pilot = calloc(1, sizeof(*pilot));
    if (!pilot)
        return -ENOMEM;
    device->pilot = pilot;
    pilot->device = device;
    int rc = add_member(pilot, config->node, config->listen);
    for (size_t i = 0; rc == 0 && i < config->neighbours_count; i++) {
        const struct config_stage *neighbour = &config->neighbours[i];
        if (strcmp(neighbour->node, config->node) == 0)
            log_warning("`neighbours:` names this device itself (%s), which takes part anyway",
                        config->node);
        else
            rc = add_member(pilot, neighbour->node, neighbour->address);
    }
    return rc == 0 ? submit_measuring(pilot) : rc;
}

void pilot_configured(struct device *device) {
    pilot_close(device);
    if (!device->config->pipeline_auto)
        return;
    if (start(device) < 0) {
        log_error("auto: out of memory");
        pilot_close(device);
    }
}
