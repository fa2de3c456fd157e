/* Whether cuts move when they should, and stay when they should: a small world with devices whose
 * true speeds are known, and measurements of them that are noisy. */
#include "plan/mover.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS  40
#define DEVICES 4
#define SECOND  UINT64_C(1000000)

struct world {
    uint64_t cuts[LAYERS + 1], weights[LAYERS], arenas[LAYERS], random;
    double reference[LAYERS];
    double slowness[DEVICES], rate[DEVICES]; /* the truth */
    double noise;                            /* of a measurement: standard deviation */
    struct cost_network network;
    struct mover mover;
    struct cost_line *line; /* that runs; NULL: none yet */
    uint64_t now_us;
    unsigned moves;
};

static double next_uniform(struct world *world) {
    world->random ^= world->random >> 12;
    world->random ^= world->random << 25;
    world->random ^= world->random >> 27;
    return (double)(world->random * 0x2545f4914f6cdd1dull >> 11) / (double)(1ull << 53);
}

static double noisy(struct world *world, double value) {
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += next_uniform(world);
    return value * fmax(0.2, 1 + world->noise * sum);
}

static void make_world(struct world *world, double noise) {
    memset(world, 0, sizeof(*world));
    world->random = 12345;
    world->noise = noise;
    world->now_us = SECOND;
    for (size_t i = 0; i < LAYERS; i++) {
        world->reference[i] = 500 + (double)(i * 37 % 11) * 100;
        world->cuts[i] = 40000 + i * 7919 % 13 * 5000;
        world->weights[i] = 1000;
    }
    world->cuts[LAYERS] = 4000;
    world->network = (struct cost_network){.layers = LAYERS,
                                           .cut_bytes = world->cuts,
                                           .weight_bytes = world->weights,
                                           .arena_bytes = world->arenas,
                                           .first_cut = 1};
    mover_init(&world->mover, &world->network, world->reference, DEVICES, &mover_defaults);
    for (size_t d = 0; d < DEVICES; d++) {
        world->slowness[d] = 1;
        world->rate[d] = 12.5;
        mover_device_there(&world->mover, d, 1, UINT64_MAX);
    }
}

static void free_world(struct world *world) {
    cost_line_free(world->line);
}

/* What a line of the mover's numbers does in truth. */
static double true_period(const struct world *world, const struct cost_line *line) {
    double period = 0;
    for (size_t k = 0; k < line->count; k++) {
        const struct cost_stage *stage = &line->stages[k];
        size_t d = stage->devices[0];
        double time = 0;
        for (size_t i = stage->first; i < stage->last; i++)
            time += world->reference[i] * world->slowness[d];
        period = fmax(period, time);
        if (k + 1 < line->count) {
            double rate = fmin(world->rate[d], world->rate[line->stages[k + 1].devices[0]]);
            period = fmax(period, (double)world->cuts[stage->last] / rate);
        }
    }
    return period;
}

/* What the devices of the line would report. A link is busy for its share of the period. */
static void measure(struct world *world) {
    double period = true_period(world, world->line);
    for (size_t k = 0; k < world->line->count; k++) {
        const struct cost_stage *stage = &world->line->stages[k];
        size_t d = stage->devices[0];
        double time = 0;
        for (size_t i = stage->first; i < stage->last; i++)
            time += world->reference[i] * world->slowness[d];
        mover_note_time(&world->mover, world->now_us, d, stage->first, stage->last,
                        noisy(world, time));
        if (k + 1 == world->line->count)
            continue;
        size_t next = world->line->stages[k + 1].devices[0];
        double rate = fmin(world->rate[d], world->rate[next]);
        double busy = (double)world->cuts[stage->last] / rate / period;
        mover_note_rate(&world->mover, world->now_us, d, next, noisy(world, rate), busy);
    }
}

/* One second: measurements, a plan, a decision. */
static enum mover_verdict step(struct world *world) {
    struct cost_line *best = NULL;
    struct err err = {""};
    if (world->line)
        measure(world);
    struct mover_problem *problem = mover_problem_new(&world->mover, world->now_us);
    assert_non_null(problem);
    assert_int_equal(mover_problem_plan(problem, &best, &err), 0);
    double current = world->line ? mover_problem_period(problem, world->line) : INFINITY;
    double planned = mover_problem_period(problem, best);
    enum mover_verdict verdict = mover_decide(&world->mover, world->now_us, current, planned);
    if (verdict == MOVER_MOVE) {
        mover_moved(&world->mover, world->now_us);
        cost_line_free(world->line);
        world->line = best;
        best = NULL;
        world->moves++;
    }
    cost_line_free(best);
    mover_problem_free(problem);
    world->now_us += SECOND;
    return verdict;
}

static void run_seconds(struct world *world, unsigned seconds) {
    for (unsigned i = 0; i < seconds; i++)
        step(world);
}

/* The best that there is in truth, by the planner. */
static double best_period(const struct world *world) {
    static double times[DEVICES][LAYERS];
    struct cost_device devices[DEVICES];
    struct planner_options options = {.tolerance = 0};
    struct planner_result result;
    struct cost *cost;
    struct err err;
    for (size_t d = 0; d < DEVICES; d++) {
        for (size_t i = 0; i < LAYERS; i++)
            times[d][i] = world->reference[i] * world->slowness[d];
        devices[d] = (struct cost_device){.layer_us = times[d],
                                          .workers = 1,
                                          .send_rate = world->rate[d],
                                          .receive_rate = world->rate[d],
                                          .memory = UINT64_MAX};
    }
    assert_int_equal(cost_new(&world->network, devices, DEVICES, &cost, &err), 0);
    assert_int_equal(planner_run(cost, &options, &result, &err), 0);
    double period = result.best_period_us;
    cost_line_free(result.line);
    cost_free(cost);
    return period;
}

/* Seconds until the line is within a tenth of the best in truth; fails after `most`. */
static unsigned seconds_until_good(struct world *world, unsigned most) {
    double best = best_period(world);
    for (unsigned i = 0; i <= most; i++) {
        if (world->line && true_period(world, world->line) <= 1.1 * best)
            return i;
        step(world);
    }
    fail_msg("after %u s: %g us, the best is %g us", most, true_period(world, world->line), best);
    return most;
}

static void noise_does_not_move_the_cuts(void **state) {
    static const double noises[] = {0.03, 0.1, 0.2};
    (void)state;
    for (size_t i = 0; i < sizeof(noises) / sizeof(*noises); i++) {
        struct world world;
        make_world(&world, noises[i]);
        world.slowness[2] = 2;
        run_seconds(&world, 60);
        unsigned settled = world.moves;

        run_seconds(&world, 3600);

        if (settled > 3 || world.moves > settled + (noises[i] > 0.15 ? 8 : 0))
            fail_msg("noise %g: %u moves in a minute, %u in the hour after it", noises[i], settled,
                     world.moves - settled);
        assert_true(true_period(&world, world.line) <= 1.2 * best_period(&world));
        free_world(&world);
    }
}

static void line_starts_at_once_and_learns_the_speeds(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0.03);
    world.slowness[1] = 2;
    world.slowness[2] = 4;

    assert_int_equal(step(&world), MOVER_MOVE);

    seconds_until_good(&world, 20);
    assert_true(world.moves <= 4);
    free_world(&world);
}

static void device_that_becomes_half_as_fast_is_given_less(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0.03);
    run_seconds(&world, 60);
    unsigned moves = world.moves;
    world.slowness[1] = 2;

    assert_true(seconds_until_good(&world, 4) > 0);
    assert_int_equal(world.moves, moves + 1);

    world.slowness[1] = 1;
    assert_true(seconds_until_good(&world, 16) > 0);
    free_world(&world);
}

static void link_that_becomes_slow_is_given_a_smaller_cut(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0.03);
    run_seconds(&world, 60);
    world.rate[2] = 3.75; /* 30 Mbit/s */

    seconds_until_good(&world, 12);

    run_seconds(&world, 60);
    unsigned moves = world.moves;
    run_seconds(&world, 300);
    assert_int_equal(world.moves, moves);
    free_world(&world);
}

static void probed_rate_counts_at_once_and_the_ingress_has_the_fastest(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0);
    mover_note_probe(&world.mover, SECOND, 1, 3.75);
    mover_note_probe(&world.mover, SECOND, 2, 12.5);
    mover_note_probe(&world.mover, SECOND, 3, 6);
    assert_true(world.mover.devices[1].rate == 3.75 && world.mover.devices[2].rate == 12.5);
    assert_true(world.mover.devices[3].rate == 6 && world.mover.devices[0].rate == 12.5);
    mover_note_probe(&world.mover, SECOND, 1, 0); /* says nothing */
    mover_note_probe(&world.mover, SECOND, 1, INFINITY);
    assert_true(world.mover.devices[1].rate == 3.75);
    mover_note_probe(&world.mover, 2 * SECOND, 1, 10); /* its cable was changed */
    assert_true(world.mover.devices[1].rate == 10);
    free_world(&world);
}

static void cost_of_messages_that_is_no_number_does_not_count(void **state) {
    static const double odd[] = {INFINITY, NAN, -1};
    struct world world;
    (void)state;
    make_world(&world, 0);
    mover_note_messages(&world.mover, 1, 50, 0.25);
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        mover_note_messages(&world.mover, 1, odd[i], 0);
        mover_note_messages(&world.mover, 1, 0, odd[i]);
    }
    assert_true(world.mover.devices[1].message_us == 50 && world.mover.devices[1].byte_us == 0.25);
    free_world(&world);
}

/* Lines planned now have only the ingress. */
static bool plans_alone(struct world *world) {
    struct mover_problem *problem = mover_problem_new(&world->mover, world->now_us);
    struct cost_line *line = NULL;
    assert_non_null(problem);
    assert_int_equal(mover_problem_plan(problem, &line, NULL), 0);
    bool is_alone = line->count == 1;
    cost_line_free(line);
    mover_problem_free(problem);
    return is_alone;
}

static void line_that_does_less_than_one_device_is_given_up_for_a_while(void **state) {
    struct world world;
    double alone = 0;
    (void)state;
    make_world(&world, 0);
    for (size_t i = 0; i < LAYERS; i++)
        alone += world.reference[i];
    alone = 1e6 / alone;
    assert_false(plans_alone(&world));
    uint64_t start = world.now_us;
    for (; world.now_us < start + 60 * SECOND; world.now_us += SECOND) {
        assert_false(mover_note_fps(&world.mover, world.now_us, alone * 0.97, true));
        assert_false(mover_note_fps(&world.mover, world.now_us, alone * 0.5, false)); /* no need */
    }
    start = world.now_us;
    while (!mover_note_fps(&world.mover, world.now_us, alone * 0.9, true))
        world.now_us += SECOND;
    assert_int_equal(world.now_us - start, MOVER_WORSE_US);
    assert_true(plans_alone(&world));
    assert_false(mover_note_fps(&world.mover, world.now_us + SECOND, alone * 0.9, true));
    world.now_us += MOVER_ALONE_US;
    assert_false(plans_alone(&world));
    free_world(&world);
}

/* However little the line does: a device of it may be away. */
static void ingress_without_the_memory_for_all_is_not_left_alone(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0);
    uint64_t start = world.now_us;
    mover_device_there(&world.mover, 0, 1, LAYERS * 1000 - 1); /* its weights take one byte more */
    for (; world.now_us < start + 3 * MOVER_WORSE_US; world.now_us += SECOND)
        assert_false(mover_note_fps(&world.mover, world.now_us, 0, true));
    assert_false(plans_alone(&world));

    mover_device_there(&world.mover, 0, 1, LAYERS * 1000);
    while (!mover_note_fps(&world.mover, world.now_us, 0, true))
        world.now_us += SECOND;
    assert_true(plans_alone(&world));
    mover_end_alone(&world.mover); /* it was refused there all the same */
    assert_false(plans_alone(&world));
    free_world(&world);
}

/* Two layers, of which the second takes long, and count devices: what the best line shares it by.
 */
static size_t replicas_of_heavy_layer(size_t count, size_t max_replicas) {
    static const uint64_t cuts[] = {1000, 1000, 1000}, none[2];
    static const double times[] = {100, 10000};
    const struct cost_network network = {2, cuts, none, none, 1};
    struct mover mover;
    struct cost_line *line = NULL;
    struct err err = {""};
    mover_init(&mover, &network, times, count, &mover_defaults);
    mover.max_replicas = max_replicas;
    for (size_t d = 0; d < count; d++) {
        mover_device_there(&mover, d, 1, UINT64_MAX);
        mover_note_time(&mover, SECOND, d, 0, 2, (1 + 0.1 * (double)d) * 10100);
    }
    struct mover_problem *problem = mover_problem_new(&mover, 2 * SECOND);
    assert_non_null(problem);
    if (mover_problem_plan(problem, &line, &err) < 0)
        fail_msg("%s", err.text);
    size_t replicas = line->stages[line->count - 1].replicas;
    double period = mover_problem_period(problem, line);
    assert_true(period > 9000.0 / (double)replicas && period < 20000.0 / (double)replicas);
    cost_line_free(line);
    mover_problem_free(problem);
    return replicas;
}

static void stages_are_shared_where_that_is_allowed(void **state) {
    (void)state;
    assert_int_equal(replicas_of_heavy_layer(4, 0), 1);
    assert_int_equal(replicas_of_heavy_layer(4, 1), 1);
    assert_int_equal(replicas_of_heavy_layer(4, 2), 2);
    assert_int_equal(replicas_of_heavy_layer(4, 8), 3);
    assert_int_equal(replicas_of_heavy_layer(MOVER_SHARING_MAX, 2), 2);
    assert_int_equal(replicas_of_heavy_layer(MOVER_SHARING_MAX + 1, 2), 1);
}

static void device_that_joins_ends_the_time_alone(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0);
    mover_device_gone(&world.mover, 3);
    while (!mover_note_fps(&world.mover, world.now_us, 1, true))
        world.now_us += SECOND;
    assert_true(plans_alone(&world));
    mover_device_there(&world.mover, 2, 1, UINT64_MAX); /* it was there all the time */
    assert_true(plans_alone(&world));

    mover_device_there(&world.mover, 3, 1, UINT64_MAX);

    assert_false(plans_alone(&world));
    free_world(&world);
}

/* Notes what a device with times of the reference times `slowness` says, so many seconds long. */
static void note_seconds(struct world *world, size_t device, double slowness, int seconds) {
    double time = 0;
    for (size_t i = 0; i < 20; i++)
        time += world->reference[i] * slowness;
    for (int i = 0; i < seconds; i++, world->now_us += SECOND)
        mover_note_time(&world->mover, world->now_us, device, 0, 20, time);
}

static void change_counts_whole_when_it_is_seen_twice(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0);
    const double *slowness = &world.mover.devices[1].slowness;
    note_seconds(&world, 1, 1, 20);
    note_seconds(&world, 1, 2, 1);
    assert_true(fabs(*slowness - 1) < 1e-9); /* it may have been one slow second */
    note_seconds(&world, 1, 1, 1);
    note_seconds(&world, 1, 0.5, 1); /* and a fast one is not the same */
    assert_true(*slowness > 0.7);

    note_seconds(&world, 1, 2, 2);

    assert_true(fabs(*slowness - 2) < 0.01);
    note_seconds(&world, 1, 1.6, 1); /* a step too small for that counts a little */
    assert_true(*slowness > 1.6 && *slowness < 2);
    free_world(&world);
}

static void device_whose_times_spread_widely_is_known_to_be_slower(void **state) {
    static const double spread[] = {2.2, 4.5, 2.6, 5, 2.1, 4.2};
    struct world world;
    (void)state;
    make_world(&world, 0);
    const double *slowness = &world.mover.devices[1].slowness;
    note_seconds(&world, 1, 1, 20);
    for (size_t i = 0; i < 30; i++) /* no two in a row are near each other */
        note_seconds(&world, 1, spread[i % 6], 1);
    assert_true(*slowness > 2.2 && *slowness < 4.5);

    for (size_t i = 0; i < 30; i++) /* neither slower nor faster, on average */
        note_seconds(&world, 1, i % 2 ? 6 : 1.5, 1);
    assert_true(*slowness > 1.9 && *slowness < 5);
    free_world(&world);
}

static void clients_cost_the_ingress_time_in_every_line(void **state) {
    struct world world;
    double alone = 0;
    (void)state;
    make_world(&world, 0);
    struct mover_device *ingress = &world.mover.devices[0];
    for (size_t i = 0; i < LAYERS; i++)
        alone += world.reference[i];
    ingress->byte_us = 0.001;
    ingress->message_us = 50;
    double messages = 0.001 * (double)(world.cuts[10] + world.cuts[LAYERS]) + 2 * 50;

    mover_note_loop(&world.mover, world.now_us, 0, 0, 10, messages + 0.2 * alone);
    assert_true(fabs(ingress->frame_us - 0.2 * alone) < 1e-6);
    mover_note_loop(&world.mover, 100 * SECOND, 0, 0, LAYERS, 0.2 * alone); /* no messages */
    assert_true(fabs(ingress->frame_us - 0.2 * alone) < 1e-6);
    mover_note_loop(&world.mover, 200 * SECOND, 0, 0, 10, NAN);
    mover_note_loop(&world.mover, 200 * SECOND, 0, 0, 10, -1);
    assert_true(fabs(ingress->frame_us - 0.2 * alone) < 1e-6);

    /* Alone it would do 1 / 1.2 as much as its layers allow: 0.82 is as good. */
    for (world.now_us = 0; world.now_us < 60 * SECOND; world.now_us += SECOND)
        assert_false(mover_note_fps(&world.mover, world.now_us, 0.82e6 / alone, true));
    world.line = calloc(1, sizeof(*world.line));
    assert_non_null(world.line);
    world.line->stages = calloc(1, sizeof(*world.line->stages));
    assert_non_null(world.line->stages);
    world.line->stages[world.line->count++] =
        (struct cost_stage){.last = LAYERS, .replicas = 1, .devices = calloc(1, sizeof(size_t))};
    struct mover_problem *problem = mover_problem_new(&world.mover, world.now_us);
    assert_true(fabs(mover_problem_period(problem, world.line) - 1.2 * alone) < 1e-6 * alone);
    mover_problem_free(problem);
    free_world(&world);
}

static void device_that_leaves_is_planned_around_at_once(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0.03);
    run_seconds(&world, 60);
    assert_true(world.line->count == DEVICES);
    size_t gone = world.line->stages[2].devices[0];

    mover_device_gone(&world.mover, gone);
    assert_int_equal(step(&world), MOVER_MOVE);
    for (size_t k = 0; k < world.line->count; k++)
        assert_int_not_equal(world.line->stages[k].devices[0], gone);

    mover_device_there(&world.mover, gone, 1, UINT64_MAX);
    run_seconds(&world, 15);
    assert_int_equal(world.line->count, DEVICES);
    free_world(&world);
}

static void gain_must_hold_before_it_moves_anything(void **state) {
    struct mover mover;
    static const uint64_t zeros[2];
    static const double one[] = {1};
    struct cost_network network = {1, zeros, zeros, zeros, 1};
    (void)state;
    mover_init(&mover, &network, one, 1, &mover_defaults);

    assert_int_equal(mover_decide(&mover, 10 * SECOND, 100, 95), MOVER_KEEP);
    assert_int_equal(mover_decide(&mover, 11 * SECOND, 100, 80), MOVER_WAIT);
    assert_int_equal(mover_decide(&mover, 13 * SECOND, 100, 80), MOVER_WAIT);
    assert_int_equal(mover_decide(&mover, 13500000, 100, 99), MOVER_KEEP); /* begins anew */
    assert_int_equal(mover_decide(&mover, 15 * SECOND, 100, 80), MOVER_WAIT);
    assert_int_equal(mover_decide(&mover, 18 * SECOND, 100, 80), MOVER_MOVE);
    mover_moved(&mover, 18 * SECOND);
    assert_int_equal(mover_decide(&mover, 19 * SECOND, 100, 80), MOVER_WAIT);
    assert_int_equal(mover_decide(&mover, 22 * SECOND, 100, 80), MOVER_COOL);
    assert_int_equal(mover_decide(&mover, 24 * SECOND, 100, 80), MOVER_MOVE);
    /* What is no noise for certain need not hold for as long. */
    mover_device_there(&mover, 0, 1, UINT64_MAX); /* this move is not one of a row */
    mover_moved(&mover, 24 * SECOND);
    assert_int_equal(mover_decide(&mover, 31 * SECOND, 100, 76), MOVER_WAIT);
    assert_int_equal(mover_decide(&mover, 31900000, 100, 76), MOVER_WAIT);
    assert_int_equal(mover_decide(&mover, 32 * SECOND, 100, 76), MOVER_MOVE);
    mover_moved(&mover, 32 * SECOND);
    mover.devices[0].variance = 0.25;
    mover.devices[0].samples = 100;
    assert_int_equal(mover_decide(&mover, 40 * SECOND, 100, 50), MOVER_WAIT);
    assert_int_equal(mover_decide(&mover, 42 * SECOND, 100, 50), MOVER_WAIT);
    assert_int_equal(mover_decide(&mover, 43 * SECOND, 100, 50), MOVER_MOVE);
    /* What cannot run is replaced whatever there was, if there is something. */
    mover_moved(&mover, 24 * SECOND);
    assert_int_equal(mover_decide(&mover, 24 * SECOND, INFINITY, 80), MOVER_MOVE);
    assert_int_equal(mover_decide(&mover, 24 * SECOND, INFINITY, INFINITY), MOVER_KEEP);
}

/* Seconds until a gain that is there all the time is taken. */
static int wait_move(struct mover *mover, uint64_t *now_us) {
    int seconds = 0;
    while (mover_decide(mover, *now_us, 100, 80) != MOVER_MOVE) {
        *now_us += SECOND;
        seconds++;
    }
    mover_moved(mover, *now_us);
    return seconds;
}

static void moves_one_after_the_other_come_ever_more_slowly(void **state) {
    struct mover mover;
    static const uint64_t zeros[2];
    static const double one[] = {1};
    struct cost_network network = {1, zeros, zeros, zeros, 1};
    uint64_t now_us = 100 * SECOND;
    (void)state;
    mover_init(&mover, &network, one, 1, &mover_defaults);
    mover_device_there(&mover, 0, 1, UINT64_MAX);
    assert_int_equal(wait_move(&mover, &now_us), 3);

    int first = wait_move(&mover, &now_us), second = wait_move(&mover, &now_us);
    int third = wait_move(&mover, &now_us);

    assert_int_equal(first, 6);
    assert_true(second > 9 && third > 12);
    for (int i = 0; i < 100; i++)
        assert_true(wait_move(&mover, &now_us) <= 48);
    for (int i = 0; i < 1000; i++) /* what cannot run is replaced again and again */
        mover_moved(&mover, now_us += SECOND);
    now_us += 300 * SECOND;
    assert_int_equal(wait_move(&mover, &now_us), 3);
    assert_int_equal(wait_move(&mover, &now_us), 6);
    wait_move(&mover, &now_us);
    mover_device_gone(&mover, 0);
    mover_device_there(&mover, 0, 1, UINT64_MAX); /* the world is another */
    assert_int_equal(wait_move(&mover, &now_us), 6);
}

static void seldom_used_link_says_nothing_about_its_rate(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0);

    mover_note_rate(&world.mover, 5 * SECOND, 0, 1, 0.01, 0.29);
    assert_true(isinf(world.mover.devices[1].rate));
    mover_note_rate(&world.mover, 5 * SECOND, 0, 1, 12.5, 0.9);
    assert_true(world.mover.devices[1].rate == 12.5 && isinf(world.mover.devices[0].rate));
    mover_note_rate(&world.mover, 60 * SECOND, 1, 2, 25, 0.9); /* device 1 is faster than that */
    assert_true(fabs(world.mover.devices[1].rate - 25) < 1e-3);
    mover_note_rate(&world.mover, 70 * SECOND, 1, 0, 2, 0.9); /* the ingress is not blamed */
    assert_true(isinf(world.mover.devices[0].rate) && world.mover.devices[1].rate < 3);
}

static void what_is_no_measurement_does_not_count(void **state) {
    static const double times[] = {0, -1, NAN, INFINITY, 1e-9, 1e15};
    struct world world;
    (void)state;
    make_world(&world, 0);
    for (size_t i = 0; i < sizeof(times) / sizeof(*times); i++)
        mover_note_time(&world.mover, SECOND, 1, 0, 4, times[i]);
    mover_note_time(&world.mover, SECOND, 1, 4, 4, 100);
    assert_true(world.mover.devices[1].slowness == 1 && world.mover.devices[1].time_us == 0);
}

static void device_that_was_slow_is_tried_again_after_a_while(void **state) {
    struct world world;
    (void)state;
    make_world(&world, 0);
    mover_note_time(&world.mover, SECOND, 3, 0, 10, 1e6);
    struct cost_line *line = NULL;
    for (int later = 0; later < 2; later++) {
        uint64_t now_us = later ? 700 * SECOND : 2 * SECOND;
        struct mover_problem *problem = mover_problem_new(&world.mover, now_us);
        assert_int_equal(mover_problem_plan(problem, &line, NULL), 0);
        assert_int_equal(line->count, later ? DEVICES : DEVICES - 1);
        cost_line_free(line);
        mover_problem_free(problem);
    }
}

static void without_the_ingress_there_is_no_plan(void **state) {
    struct world world;
    struct cost_line *line = NULL;
    struct err err = {""};
    (void)state;
    make_world(&world, 0);
    mover_device_gone(&world.mover, 0);
    struct mover_problem *problem = mover_problem_new(&world.mover, SECOND);

    assert_int_equal(mover_problem_plan(problem, &line, &err), -ENODEV);
    assert_null(line);
    mover_problem_free(problem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_does_not_move_the_cuts),
        cmocka_unit_test(line_starts_at_once_and_learns_the_speeds),
        cmocka_unit_test(device_that_becomes_half_as_fast_is_given_less),
        cmocka_unit_test(link_that_becomes_slow_is_given_a_smaller_cut),
        cmocka_unit_test(device_that_leaves_is_planned_around_at_once),
        cmocka_unit_test(gain_must_hold_before_it_moves_anything),
        cmocka_unit_test(moves_one_after_the_other_come_ever_more_slowly),
        cmocka_unit_test(seldom_used_link_says_nothing_about_its_rate),
        cmocka_unit_test(probed_rate_counts_at_once_and_the_ingress_has_the_fastest),
        cmocka_unit_test(cost_of_messages_that_is_no_number_does_not_count),
        cmocka_unit_test(line_that_does_less_than_one_device_is_given_up_for_a_while),
        cmocka_unit_test(ingress_without_the_memory_for_all_is_not_left_alone),
        cmocka_unit_test(stages_are_shared_where_that_is_allowed),
        cmocka_unit_test(device_that_joins_ends_the_time_alone),
        cmocka_unit_test(change_counts_whole_when_it_is_seen_twice),
        cmocka_unit_test(device_whose_times_spread_widely_is_known_to_be_slower),
        cmocka_unit_test(clients_cost_the_ingress_time_in_every_line),
        cmocka_unit_test(what_is_no_measurement_does_not_count),
        cmocka_unit_test(device_that_was_slow_is_tried_again_after_a_while),
        cmocka_unit_test(without_the_ingress_there_is_no_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
