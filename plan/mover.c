#include "plan/mover.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_ENOUGH 0.3 /* of the time: from here on a rate counts */
#define RATE_TOLERANCE                                                                             \
    0.8 /* a rate that is not below this share of the expected one is as expected */
#define SLOWNESS_MAX  1e4 /* either way; beyond it is no measurement */
#define LATENCY_US    200
#define WHOLE         0.1  /* of the model: a stage of less tells less of the other layers */
#define SPREAD_US     60e6 /* time constant of the variance of measurements */
#define SPREAD_MOST   0.3  /* a measurement that is farther off is a change, not noise */
#define SPREAD_FACTOR 2    /* standard deviations of noise that a gain must stand out of */
#define SURE_GAIN     0.3  /* a gain that is no noise for certain, with ... */
#define SURE_FACTOR   6    /* ... so many standard deviations */
#define KNOWN         10   /* measurements, after which a variance is believed */
#define ODD_FACTOR    4    /* standard deviations of single measurements: farther off is odd */
#define STREAK_MOST   4    /* moves in a row: more do not count ... */
#define COOL_MOST     8    /* ... and so many times as long is the longest time between two */
#define WORSE         0.95 /* of what the ingress would do alone: a line that does less is none */
#define TOLERANCE     0.02 /* of the planner: lines this near count as equal */

const struct mover_options mover_defaults = {.gain = 0.08,
                                             .hold_us = 3000000,
                                             .sure_us = 1000000,
                                             .cool_us = 6000000,
                                             .calm_us = 30000000,
                                             .smooth_us = 2000000,
                                             .forget_us = 600000000};

void mover_init(struct mover *mover, const struct cost_network *network, const double *reference_us,
                size_t count, const struct mover_options *options) {
    assert(count >= 1 && count <= MOVER_DEVICES_MAX);
    *mover = (struct mover){.network = *network,
                            .reference_us = reference_us,
                            .options = *options,
                            .count = count,
                            .latency_us = LATENCY_US};
    for (size_t d = 0; d < count; d++)
        mover->devices[d] = (struct mover_device){.slowness = 1, .rate = INFINITY};
}

void mover_device_there(struct mover *mover, size_t device, int workers, uint64_t memory) {
    struct mover_device *at = &mover->devices[device];
    if (!at->is_there) {
        mover->alone_until_us = 0;
        mover->streak = 0;
    }
    at->is_there = true;
    at->workers = workers > 1 ? workers : 1;
    at->memory = memory;
}

void mover_device_gone(struct mover *mover, size_t device) {
    mover->devices[device].is_there = false;
}

/* How much of a new sample counts after so long without one: all of the first. */
static double weight(uint64_t now_us, uint64_t last_us, double smooth_us) {
    if (last_us == 0 || now_us <= last_us)
        return last_us == 0 ? 1 : 0;
    return 1 - exp(-(double)(now_us - last_us) / smooth_us);
}

/* Takes a sample into an average, in logarithms: twice as much and half as much cancel out. */
static double blend(const struct mover *mover, double average, double sample, double trust,
                    uint64_t now_us, uint64_t last_us) {
    double share = trust * weight(now_us, last_us, (double)mover->options.smooth_us);
    return average * pow(sample / average, share);
}

void mover_note_time(struct mover *mover, uint64_t now_us, size_t device, size_t first, size_t last,
                     double time_us) {
    struct mover_device *at = &mover->devices[device];
    double reference = 0, total = 0;
    for (size_t i = 0; i < mover->network.layers; i++) {
        total += mover->reference_us[i];
        if (i >= first && i < last)
            reference += mover->reference_us[i];
    }
    double slowness = time_us / reference;
    if (!(time_us > 0) || !(reference > 0) || !(slowness < SLOWNESS_MAX) ||
        !(slowness > 1 / SLOWNESS_MAX))
        return;
    double off = log(slowness / at->slowness);
    if (at->time_us && fabs(off) < SPREAD_MOST)
        at->variance += (off * off - at->variance) * weight(now_us, at->time_us, SPREAD_US);
    bool is_far = at->samples >= KNOWN && reference >= WHOLE * total &&
                  fabs(off) > fmax(SPREAD_MOST, ODD_FACTOR * sqrt(at->variance));
    bool is_change = is_far && at->odd * off > 0 && fabs(off - at->odd) < SPREAD_MOST;
    if (is_change)
        at->slowness *= exp((off + at->odd) / 2);
    else if (!is_far || at->odd != 0) /* of two in a row one counts, however they differ */
        at->slowness = blend(mover, at->slowness, slowness, fmin(1, reference / total / WHOLE),
                             now_us, at->time_us);
    at->odd = is_far && !is_change ? log(slowness / at->slowness) : 0;
    at->samples += at->samples < KNOWN;
    at->time_us = now_us;
}

void mover_note_loop(struct mover *mover, uint64_t now_us, size_t device, size_t first, size_t last,
                     double loop_us) {
    struct mover_device *at = &mover->devices[device];
    size_t layers = mover->network.layers;
    const uint64_t *cuts = mover->network.cut_bytes;
    double ends = (double)((first > 0) + (last < layers));
    double bytes = (first > 0 ? (double)cuts[first] : 0) +
                   (last < layers ? (double)cuts[last] : 0) + ends * (double)cuts[layers];
    double own = fmax(0, loop_us - bytes * at->byte_us - 2 * ends * at->message_us);
    if (!(loop_us >= 0) || !isfinite(loop_us))
        return;
    at->frame_us +=
        (own - at->frame_us) * weight(now_us, at->frame_at, (double)mover->options.smooth_us);
    at->frame_at = now_us;
}

void mover_note_rate(struct mover *mover, uint64_t now_us, size_t from, size_t to, double rate,
                     double busy) {
    struct mover_device *a = &mover->devices[from], *b = &mover->devices[to];
    double expected = fmin(a->rate, b->rate);
    if (!(rate > 0) || !isfinite(rate) || !(busy >= BUSY_ENOUGH))
        return;
    if (rate < RATE_TOLERANCE * expected || isinf(expected)) {
        struct mover_device *at = to == 0 ? a : b;
        at->rate = isinf(at->rate) ? rate : blend(mover, at->rate, rate, 1, now_us, at->rate_us);
        at->rate_us = now_us;
    } else if (rate > expected) {
        for (int end = 0; end < 2; end++) {
            struct mover_device *at = end ? b : a;
            if (at->rate >= rate)
                continue;
            at->rate = blend(mover, at->rate, rate, 1, now_us, at->rate_us);
            at->rate_us = now_us;
        }
    }
}

void mover_note_probe(struct mover *mover, uint64_t now_us, size_t device, double rate) {
    struct mover_device *own = &mover->devices[0], *at = &mover->devices[device];
    if (!(rate > 0) || !isfinite(rate))
        return;
    at->rate = rate;
    at->rate_us = now_us;
    if (isinf(own->rate) || own->rate < rate) {
        own->rate = rate;
        own->rate_us = now_us;
    }
}

void mover_note_messages(struct mover *mover, size_t device, double message_us, double byte_us) {
    struct mover_device *at = &mover->devices[device];
    if (!(message_us >= 0) || !isfinite(message_us) || !(byte_us >= 0) || !isfinite(byte_us))
        return;
    at->message_us = message_us;
    at->byte_us = byte_us;
}

/* What the ingress would do by itself. */
static double alone_fps(const struct mover *mover) {
    double us = 0;
    for (size_t i = 0; i < mover->network.layers; i++)
        us += mover->reference_us[i] * mover->devices[0].slowness;
    us += mover->devices[0].frame_us;
    return us > 0 ? 1e6 * mover->devices[0].workers / us : 0;
}

/* ---- planning ----------------------------------------------------------------------------------
 */

struct mover_problem {
    struct cost_network network;
    uint64_t *cut_bytes, *weight_bytes, *arena_bytes;
    double *layer_us; /* [count][layers], of those that are there */
    size_t count, max_replicas;
    size_t index[MOVER_DEVICES_MAX];  /* mover's number of each */
    size_t number[MOVER_DEVICES_MAX]; /* the other way; SIZE_MAX: away */
    struct cost_device devices[MOVER_DEVICES_MAX];
    struct cost *cost; /* NULL: the ingress is away */
};

void mover_problem_free(struct mover_problem *problem) {
    if (!problem)
        return;
    cost_free(problem->cost);
    free(problem->cut_bytes);
    free(problem->weight_bytes);
    free(problem->arena_bytes);
    free(problem->layer_us);
    free(problem);
}

static uint64_t *copy(const uint64_t *from, size_t count) {
    uint64_t *to = calloc(count, sizeof(*to));
    if (to)
        memcpy(to, from, count * sizeof(*to));
    return to;
}

/* Slowness in steps of 2 %: devices that are nearly equal are equal for the planner, which makes
 * planning fast and plans stable. */
static double rounded(double slowness) {
    return exp(round(log(slowness) / 0.02) * 0.02);
}

static void add_device(struct mover_problem *problem, const struct mover *mover, size_t d,
                       uint64_t now_us) {
    const struct mover_device *at = &mover->devices[d];
    size_t n = problem->count++, layers = mover->network.layers;
    double *times = problem->layer_us + n * layers;
    bool is_old = at->time_us == 0 || now_us > at->time_us + mover->options.forget_us;
    double slowness = is_old ? 1 : rounded(at->slowness);
    for (size_t i = 0; i < layers; i++)
        times[i] = mover->reference_us[i] * slowness;
    problem->index[n] = d;
    problem->number[d] = n;
    problem->devices[n] = (struct cost_device){.layer_us = times,
                                               .workers = at->workers,
                                               .frame_us = at->frame_us,
                                               .send_rate = at->rate,
                                               .receive_rate = at->rate,
                                               .byte_us = at->byte_us,
                                               .message_us = at->message_us,
                                               .latency_us = mover->latency_us,
                                               .memory = at->memory};
}

struct mover_problem *mover_problem_new(const struct mover *mover, uint64_t now_us) {
    struct mover_problem *problem = calloc(1, sizeof(*problem));
    size_t layers = mover->network.layers;
    if (!problem)
        return NULL;
    problem->network = mover->network;
    problem->max_replicas = mover->max_replicas;
    problem->cut_bytes = copy(mover->network.cut_bytes, layers + 1);
    problem->weight_bytes = copy(mover->network.weight_bytes, layers);
    problem->arena_bytes = copy(mover->network.arena_bytes, layers);
    problem->layer_us = calloc(mover->count * layers, sizeof(*problem->layer_us));
    if (!problem->cut_bytes || !problem->weight_bytes || !problem->arena_bytes ||
        !problem->layer_us)
        goto fail;
    problem->network.cut_bytes = problem->cut_bytes;
    problem->network.weight_bytes = problem->weight_bytes;
    problem->network.arena_bytes = problem->arena_bytes;
    for (size_t d = 0; d < mover->count; d++) {
        problem->number[d] = SIZE_MAX;
        if (mover->devices[d].is_there && (d == 0 || now_us >= mover->alone_until_us))
            add_device(problem, mover, d, now_us);
    }
    if (problem->number[0] == 0 &&
        cost_new(&problem->network, problem->devices, problem->count, &problem->cost, NULL) < 0)
        goto fail;
    return problem;
fail:
    mover_problem_free(problem);
    return NULL;
}

/* Whether the ingress has the memory to run the whole network. */
static bool fits_alone(const struct mover *mover, uint64_t now_us) {
    struct mover_problem *problem = mover_problem_new(mover, now_us);
    bool fits = problem && problem->cost &&
                cost_memory(problem->cost, problem->number[0], 0, mover->network.layers) <=
                    mover->devices[0].memory;
    mover_problem_free(problem);
    return fits;
}

bool mover_note_fps(struct mover *mover, uint64_t now_us, double fps, bool is_full) {
    if (!is_full || !(fps < WORSE * alone_fps(mover)) || now_us < mover->alone_until_us) {
        mover->worse_us = 0;
        return false;
    }
    if (mover->worse_us == 0)
        mover->worse_us = now_us ? now_us : 1;
    if (now_us < mover->worse_us + MOVER_WORSE_US)
        return false;
    mover->worse_us = 0;
    if (!fits_alone(mover, now_us))
        return false;
    mover->alone_until_us = now_us + MOVER_ALONE_US;
    return true;
}

void mover_end_alone(struct mover *mover) {
    mover->alone_until_us = 0;
}

/* Exchanges device numbers of a line by a table. False when one has none. */
static bool renumber(struct cost_line *line, const size_t *table) {
    for (size_t k = 0; k < line->count; k++) {
        for (size_t i = 0; i < line->stages[k].replicas; i++) {
            size_t *device = &line->stages[k].devices[i];
            if (table[*device] == SIZE_MAX)
                return false;
            *device = table[*device];
        }
    }
    return true;
}

double mover_problem_period(const struct mover_problem *problem, const struct cost_line *line) {
    struct cost_line *own = cost_line_copy(line);
    double period = INFINITY;
    if (own && problem->cost && renumber(own, problem->number)) {
        cost_evaluate(problem->cost, own);
        period = own->period_us;
    }
    cost_line_free(own);
    return period;
}

int mover_problem_plan(const struct mover_problem *problem, struct cost_line **ret_line,
                       struct err *err) {
    struct planner_options options = {
        .tolerance = TOLERANCE,
        .max_replicas = problem->count <= MOVER_SHARING_MAX ? problem->max_replicas : 1};
    struct planner_result result;
    if (!problem->cost)
        return err_set(err, -ENODEV, "the ingress is not there");
    int rc = planner_run(problem->cost, &options, &result, err);
    if (rc < 0)
        return rc;
    renumber(result.line, problem->index);
    *ret_line = result.line;
    return 0;
}

/* ---- deciding ----------------------------------------------------------------------------------
 */

/* Standard deviation of the noisiest device's slowness as it is known, in logarithms: of the
 * average that samples once a second give. */
static double noise(const struct mover *mover) {
    double most = 0, share = 1 - exp(-1e6 / (double)mover->options.smooth_us);
    for (size_t d = 0; d < mover->count; d++)
        if (mover->devices[d].is_there)
            most = fmax(most, mover->devices[d].variance);
    return sqrt(most * share / (2 - share));
}

/* Whether the noise of all measurements is known. */
static bool is_noise_known(const struct mover *mover) {
    for (size_t d = 0; d < mover->count; d++)
        if (mover->devices[d].is_there && mover->devices[d].samples > 0 &&
            mover->devices[d].samples < KNOWN)
            return false;
    return true;
}

enum mover_verdict mover_decide(struct mover *mover, uint64_t now_us, double current_us,
                                double best_us) {
    const struct mover_options *options = &mover->options;
    if (isinf(current_us)) {
        mover->better_us = 0;
        return isinf(best_us) ? MOVER_KEEP : MOVER_MOVE;
    }
    if (!(best_us * (1 + options->gain + SPREAD_FACTOR * noise(mover)) <= current_us)) {
        mover->better_us = 0;
        return MOVER_KEEP;
    }
    if (mover->better_us == 0)
        mover->better_us = now_us ? now_us : 1;
    double sure_gain = fmax(SURE_GAIN, options->gain + SURE_FACTOR * noise(mover));
    bool is_sure = is_noise_known(mover) && best_us * (1 + sure_gain) <= current_us;
    if (now_us < mover->better_us + (is_sure ? options->sure_us : options->hold_us))
        return MOVER_WAIT;
    double cool_us = (double)options->cool_us * fmin(COOL_MOST, exp2(fmax(0, mover->streak - 1)));
    if (mover->moved_us && (double)now_us < (double)mover->moved_us + cool_us)
        return MOVER_COOL;
    return MOVER_MOVE;
}

void mover_moved(struct mover *mover, uint64_t now_us) {
    double calm = (double)(now_us - mover->moved_us) / (double)mover->options.calm_us;
    mover->streak = fmin(STREAK_MOST, fmax(0, mover->streak - calm) + 1);
    mover->moved_us = now_us ? now_us : 1;
    mover->better_us = 0;
}
