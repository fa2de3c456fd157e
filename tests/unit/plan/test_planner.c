/* The planner against a search through every line there is, on small random cases. */
#include "plan/planner.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS_MAX  8
#define DEVICES_MAX 5

/* A network and devices with room for their numbers. */
struct world {
    uint64_t cuts[LAYERS_MAX + 1], weights[LAYERS_MAX], arenas[LAYERS_MAX];
    double times[DEVICES_MAX][LAYERS_MAX];
    struct cost_network network;
    struct cost_device devices[DEVICES_MAX];
    size_t count, max_replicas;
};

static uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull >> 33;
}

static double pick(uint64_t *state, const double *from, size_t count) {
    return from[next_random(state) % count];
}

/* Few different numbers, so that ties, equal devices and rates that just suffice come up often. */
static void make_world(struct world *world, uint64_t seed) {
    static const double rates[] = {1, 2, 12.5, INFINITY}, speeds[] = {1, 1, 2, 3};
    uint64_t state = seed * 2654435761u + 1;
    size_t layers = 1 + next_random(&state) % LAYERS_MAX;
    memset(world, 0, sizeof(*world));
    world->count = 1 + next_random(&state) % DEVICES_MAX;
    world->max_replicas = 1 + next_random(&state) % 3;
    for (size_t i = 0; i <= layers; i++)
        world->cuts[i] = 10 * (next_random(&state) % 20);
    bool tight = next_random(&state) % 2, costs = next_random(&state) % 2;
    for (size_t i = 0; i < layers; i++) {
        world->weights[i] = next_random(&state) % 50;
        world->arenas[i] = next_random(&state) % 20;
        double time = (double)(1 + next_random(&state) % 12);
        for (size_t d = 0; d < DEVICES_MAX; d++)
            world->times[d][i] = time;
    }
    for (size_t d = 0; d < world->count; d++) {
        double speed = pick(&state, speeds, 4);
        for (size_t i = 0; i < layers; i++)
            world->times[d][i] /= speed;
        world->devices[d] = (struct cost_device){
            .node = "n",
            .layer_us = world->times[d],
            .workers = 1 + (int)(next_random(&state) % 2),
            .frame_us = (double)(next_random(&state) % 2),
            .send_rate = 10 * pick(&state, rates, 4),
            .receive_rate = 10 * pick(&state, rates, 4),
            .latency_us = (double)(next_random(&state) % 2),
            .byte_us = costs ? 0.01 * (double)(next_random(&state) % 5) : 0,
            .message_us = costs ? 0.5 * (double)(next_random(&state) % 2) : 0,
            .memory = tight ? 60 + next_random(&state) % 150 : UINT64_MAX,
        };
        if (d > 0 && next_random(&state) % 2)
            world->devices[d] = world->devices[d - 1];
    }
    world->network = (struct cost_network){.layers = layers,
                                           .cut_bytes = world->cuts,
                                           .weight_bytes = world->weights,
                                           .arena_bytes = world->arenas,
                                           .first_cut = 1 + next_random(&state) % 2};
}

/* ---- every line there is -----------------------------------------------------------------------
 */

struct all {
    const struct world *world;
    struct {
        size_t last, devices[3], replicas;
    } stages[LAYERS_MAX];
    size_t count;
    bool used[DEVICES_MAX];
    double limit;         /* only lines that keep this period count for latency */
    double best, latency; /* of all lines so far */
};

/* docs/planner.md, formula by formula. */
static void judge(struct all *all) {
    const struct world *w = all->world;
    double period = 0, latency = 0, results = (double)w->cuts[w->network.layers];
    for (size_t k = 0; k < all->count; k++) {
        size_t first = k ? all->stages[k - 1].last : 0, last = all->stages[k].last;
        double slowest = 0, share = (double)all->stages[k].replicas, hop = 0;
        for (size_t r = 0; r < all->stages[k].replicas; r++) {
            const struct cost_device *d = &w->devices[all->stages[k].devices[r]];
            double time = d->frame_us, in = 0, out = 0;
            uint64_t memory = 0, arena = 0;
            for (size_t i = first; i < last; i++) {
                time += d->layer_us[i];
                memory += w->weights[i];
                arena = w->arenas[i] > arena ? w->arenas[i] : arena;
            }
            if (memory + arena * (uint64_t)d->workers > d->memory)
                return;
            if (k > 0)
                time += d->byte_us * ((double)w->cuts[first] + results) + 2 * d->message_us;
            if (k + 1 < all->count)
                time += d->byte_us * ((double)w->cuts[last] + results) + 2 * d->message_us;
            in = (k ? (double)w->cuts[first] : 0) + (k + 1 < all->count ? results : 0);
            out = (k + 1 < all->count ? (double)w->cuts[last] : 0) + (k ? results : 0);
            period = fmax(period, time / d->workers / share);
            period = fmax(period, fmax(in / d->receive_rate, out / d->send_rate) / share);
            slowest = fmax(slowest, time);
            for (size_t q = 0; k && q < all->stages[k - 1].replicas; q++) {
                const struct cost_device *p = &w->devices[all->stages[k - 1].devices[q]];
                hop = fmax(hop, (double)w->cuts[first] / fmin(p->send_rate, d->receive_rate) +
                                    results / fmin(d->send_rate, p->receive_rate) +
                                    2 * (p->latency_us + d->latency_us));
            }
        }
        latency += slowest + hop;
    }
    all->best = fmin(all->best, period);
    if (period <= all->limit)
        all->latency = fmin(all->latency, latency);
}

static void add_stage(struct all *all);

/* Completes the last stage with devices after `from`, up to max_replicas, and goes on. */
static void add_devices(struct all *all, size_t from) {
    size_t k = all->count - 1, replicas = all->stages[k].replicas;
    if (replicas > 0) {
        if (all->stages[k].last == all->world->network.layers)
            judge(all);
        else
            add_stage(all);
    }
    if (replicas == all->world->max_replicas)
        return;
    for (size_t d = from; d < all->world->count; d++) {
        if (all->used[d])
            continue;
        all->used[d] = true;
        all->stages[k].devices[all->stages[k].replicas++] = d;
        add_devices(all, d + 1);
        all->stages[k].replicas--;
        all->used[d] = false;
    }
}

static void add_stage(struct all *all) {
    size_t first = all->stages[all->count - 1].last;
    all->count++;
    for (size_t last = first + 1; last <= all->world->network.layers; last++) {
        all->stages[all->count - 1].last = last;
        all->stages[all->count - 1].replicas = 0;
        add_devices(all, 1);
    }
    all->count--;
}

/* The smallest period there is, and the lowest latency of lines that keep `limit`. */
static void try_all(const struct world *world, double limit, double *ret_best,
                    double *ret_latency) {
    struct all all = {.world = world, .limit = limit, .best = INFINITY, .latency = INFINITY};
    size_t layers = world->network.layers;
    all.count = 1;
    all.stages[0].replicas = 1;
    all.used[0] = true;
    for (size_t last = 1; last <= layers; last++) {
        all.stages[0].last = last;
        if (last == layers)
            judge(&all);
        else if (last >= world->network.first_cut)
            add_stage(&all);
    }
    *ret_best = all.best;
    *ret_latency = all.latency;
}

static struct cost *new_cost(const struct world *world) {
    struct cost *cost = NULL;
    struct err err = {""};
    int rc = cost_new(&world->network, world->devices, world->count, &cost, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return cost;
}

/* Plans and checks that stages follow each other and no device stands twice. -ENOSPC or 0. */
static int plan_world(const struct world *world, double tolerance, struct planner_result *result) {
    struct cost *cost = new_cost(world);
    struct planner_options options = {.max_replicas = world->max_replicas, .tolerance = tolerance};
    struct err err = {""};
    int rc = planner_run(cost, &options, result, &err);
    cost_free(cost);
    if (rc < 0) {
        assert_int_equal(rc, -ENOSPC);
        assert_non_null(strstr(err.text, "memory"));
        return rc;
    }
    const struct cost_line *line = result->line;
    bool used[DEVICES_MAX] = {false};
    assert_int_equal(line->stages[0].devices[0], 0);
    for (size_t k = 0; k < line->count; k++) {
        assert_int_equal(line->stages[k].first, k ? line->stages[k - 1].last : 0);
        assert_true(line->stages[k].last > line->stages[k].first);
        for (size_t i = 0; i < line->stages[k].replicas; i++) {
            assert_false(used[line->stages[k].devices[i]]);
            used[line->stages[k].devices[i]] = true;
        }
    }
    assert_int_equal(line->stages[line->count - 1].last, world->network.layers);
    return 0;
}

static bool near(double a, double b) {
    return a == b || fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static void no_line_is_faster_and_none_as_fast_has_a_lower_latency(void **state) {
    size_t planned = 0, refused = 0, shared = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct world world;
        struct planner_result result;
        double best, latency, tolerance = seed % 3 ? 1e-9 : 0.1;
        make_world(&world, seed);
        int rc = plan_world(&world, tolerance, &result);
        try_all(&world, 0, &best, &latency);
        if (rc < 0) {
            assert_true(isinf(best));
            refused++;
            continue;
        }
        if (!near(result.best_period_us, best))
            fail_msg("seed %d: period %g, but there is %g", (int)seed, result.best_period_us, best);
        try_all(&world, best * (1 + tolerance) * (1 + 1e-12), &best, &latency);
        if (!result.latency_proved || !near(result.line->latency_us, latency))
            fail_msg("seed %d: latency %g, but there is %g", (int)seed, result.line->latency_us,
                     latency);
        assert_true(result.line->period_us <= best * (1 + tolerance) * (1 + 1e-12));
        for (size_t k = 0; k < result.line->count; k++)
            shared += result.line->stages[k].replicas > 1;
        planned++;
        cost_line_free(result.line);
    }
    /* The cases are what they are meant to be. */
    assert_true(planned > 2000 && refused > 50 && shared > 100);
}

/* The same layers take some devices longer and others no time at all. */
static void bend_profiles(struct world *world, uint64_t seed) {
    static const double factors[] = {0, 0.25, 1, 1, 4};
    uint64_t state = seed * 40503u + 7;
    for (size_t d = 0; d < world->count; d++) {
        for (size_t i = 0; i < world->network.layers; i++)
            world->times[d][i] *= pick(&state, factors, 5);
    }
}

static double sum_of_devices_alone(const struct cost *cost) {
    double sum = 0;
    for (size_t d = 0; d < cost_devices_count(cost); d++)
        sum += cost_alone_fps(cost, d);
    return sum;
}

static void no_line_passes_the_bound(void **state) {
    size_t planned = 0, beyond_the_sum = 0, finite = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct world world;
        make_world(&world, seed);
        bend_profiles(&world, seed);
        struct cost *cost = new_cost(&world);
        double bound = cost_ideal_fps(cost), sum = sum_of_devices_alone(cost);
        for (world.max_replicas = 1; world.max_replicas <= 3; world.max_replicas += 2) {
            struct planner_result result;
            if (plan_world(&world, 0.01, &result) < 0)
                continue;
            double fps = 1e6 / result.best_period_us;
            if (!(fps <= bound * (1 + 1e-9)))
                fail_msg("seed %d: %g frames/s, bound %g", (int)seed, fps, bound);
            planned++;
            beyond_the_sum += fps > sum * (1 + 1e-9);
            finite += isfinite(bound);
            cost_line_free(result.line);
        }
        cost_free(cost);
    }
    /* The cases are what they are meant to be. */
    assert_true(planned > 4000 && beyond_the_sum > 50 && finite > 2000);
}

/* ---- cases one can follow ----------------------------------------------------------------------
 */

/* Four layers of 10 us, cuts of 100 bytes, no results to speak of, equal devices at 100 bytes/us.
 */
static void make_plain(struct world *world, size_t count) {
    memset(world, 0, sizeof(*world));
    world->count = count;
    world->max_replicas = 1;
    for (size_t i = 0; i < 4; i++) {
        world->cuts[i] = 100;
        world->weights[i] = 1000;
    }
    for (size_t d = 0; d < count; d++) {
        for (size_t i = 0; i < 4; i++)
            world->times[d][i] = 10;
        world->devices[d] = (struct cost_device){.node = "n",
                                                 .layer_us = world->times[d],
                                                 .workers = 1,
                                                 .send_rate = 100,
                                                 .receive_rate = 100,
                                                 .memory = UINT64_MAX};
    }
    world->network = (struct cost_network){.layers = 4,
                                           .cut_bytes = world->cuts,
                                           .weight_bytes = world->weights,
                                           .arena_bytes = world->arenas,
                                           .first_cut = 1};
}

static void equal_layers_are_shared_equally(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_plain(&world, 4);

    assert_int_equal(plan_world(&world, 0.01, &result), 0);

    assert_int_equal(result.line->count, 4);
    assert_true(result.line->period_us == 10 && result.line->latency_us == 43);
    assert_int_equal(result.line->resource, COST_COMPUTE);
    cost_line_free(result.line);
}

static double bound_of(const struct world *world) {
    struct cost *cost = new_cost(world);
    double bound = cost_ideal_fps(cost);
    cost_free(cost);
    return bound;
}

static void bound_is_the_sum_of_the_devices_when_they_differ_by_a_factor(void **state) {
    struct world world;
    (void)state;
    make_plain(&world, 3);
    for (size_t i = 0; i < 4; i++)
        world.times[1][i] = 20;
    world.devices[1].workers = 2;
    world.devices[2].frame_us = 10;
    world.devices[2].memory = 0; /* memory does not count */

    /* Alone: a frame in 40 us, two in 80, one in 50. */
    assert_true(near(bound_of(&world), 1e6 / 40 + 2e6 / 80 + 1e6 / 50));
}

static void bound_counts_what_each_device_is_good_at(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_plain(&world, 2);
    for (size_t i = 0; i < 4; i++)
        world.times[i < 2][i] = 40; /* 10 10 40 40 and 40 40 10 10 */

    /* 10,000 frames/s each; the smallest shares are four times a tenth. Each does the half that it
     * is good at in 20 us. */
    assert_true(near(bound_of(&world), 50000));
    assert_int_equal(plan_world(&world, 0.01, &result), 0);
    assert_true(near(1e6 / result.best_period_us, 50000));
    cost_line_free(result.line);
}

static void bound_is_infinite_where_every_layer_is_free_somewhere(void **state) {
    struct world world;
    (void)state;
    make_plain(&world, 2);
    world.times[0][0] = world.times[0][1] = world.times[1][2] = world.times[1][3] = 0;
    assert_true(isinf(bound_of(&world)));

    /* Layers that take no time on a device that takes some for a frame: all shares are equal. */
    memset(world.times[0], 0, sizeof(world.times[0]));
    world.devices[0].frame_us = 10;
    world.times[1][2] = world.times[1][3] = 10;
    assert_true(near(bound_of(&world), 1e6 / 10 + 1e6 / 40));
    world.devices[0].frame_us = 0;
    assert_true(isinf(bound_of(&world)));
}

static void device_that_would_not_help_is_left_out(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_plain(&world, 4);
    for (size_t i = 0; i < 4; i++)
        world.times[3][i] = 50; /* one layer there takes longer than two elsewhere */
    world.devices[1].memory = 10;

    assert_int_equal(plan_world(&world, 0.01, &result), 0);

    assert_int_equal(result.line->count, 2);
    assert_int_equal(result.line->stages[1].devices[0], 2);
    assert_true(result.line->period_us == 20);
    cost_line_free(result.line);
}

static void slow_link_keeps_everything_on_the_ingress(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_plain(&world, 3);
    world.devices[0].send_rate = 1;

    assert_int_equal(plan_world(&world, 0.01, &result), 0);

    assert_int_equal(result.line->count, 1);
    assert_true(result.line->period_us == 40);
    cost_line_free(result.line);
}

static void cut_is_where_few_bytes_travel_when_the_link_is_the_limit(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_plain(&world, 2);
    world.devices[0].send_rate = 5;
    world.cuts[3] = 175; /* 35 us of sending */
    world.cuts[1] = 130;
    world.cuts[2] = 1000;

    assert_int_equal(plan_world(&world, 0, &result), 0);

    assert_int_equal(result.line->count, 2);
    assert_int_equal(result.line->stages[0].last, 1); /* 26 us of sending, 30 of computing */
    assert_true(result.line->period_us == 30);
    assert_int_equal(result.line->bottleneck, 1);
    cost_line_free(result.line);
}

/* The one case where the farthest cut is not the best one to have reached: the slow receiver can
 * only take over at a cut before the farthest. */
static void cut_before_the_farthest_is_kept_for_a_slow_receiver(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_plain(&world, 3);
    world.cuts[1] = world.cuts[3] = 1000;
    world.cuts[2] = 10;
    for (size_t i = 0; i < 4; i++)
        world.times[2][i] = 5;
    world.devices[2].receive_rate = 1; /* 10 us for cut 2, 1000 for the others */
    world.devices[1].memory = 2000;
    world.devices[0].memory = 1000;

    assert_int_equal(plan_world(&world, 0, &result), 0);

    assert_int_equal(result.line->count, 3);
    assert_int_equal(result.line->stages[1].last, 2);
    assert_int_equal(result.line->stages[2].devices[0], 2);
    cost_line_free(result.line);
}

static void network_too_large_for_one_device_is_cut_to_fit(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_plain(&world, 2);
    world.devices[0].memory = 3000;
    world.devices[1].memory = 1000;

    assert_int_equal(plan_world(&world, 0, &result), 0);
    assert_int_equal(result.line->stages[0].last, 3);
    assert_int_equal(result.line->stages[0].memory, 3000);
    cost_line_free(result.line);

    world.devices[1].memory = 999;
    assert_int_equal(plan_world(&world, 0, &result), -ENOSPC);
}

static void slow_stage_is_shared_when_that_is_allowed(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_plain(&world, 4);
    for (size_t d = 0; d < 4; d++)
        world.times[d][2] = 90;
    world.max_replicas = 3;

    assert_int_equal(plan_world(&world, 0.01, &result), 0);

    assert_int_equal(result.line->count, 2);
    assert_int_equal(result.line->stages[1].replicas, 3);
    assert_int_equal(result.line->stages[1].first, 2);
    assert_true(fabs(result.line->period_us - 100.0 / 3) < 1e-9);
    cost_line_free(result.line);
}

/* Two equal devices and an even network: a cut halves the work, but its messages cost more. */
static void a_cut_whose_messages_cost_more_than_it_gains_is_not_made(void **state) {
    struct world world;
    struct planner_result result;
    (void)state;
    make_world(&world, 1);
    world.count = 2;
    world.max_replicas = 1;
    world.network.layers = 4;
    world.network.first_cut = 1;
    for (size_t i = 0; i <= 4; i++)
        world.cuts[i] = i < 4 ? 1000 : 0;
    for (size_t d = 0; d < 2; d++) {
        for (size_t i = 0; i < 4; i++)
            world.times[d][i] = 10;
        world.devices[d] = (struct cost_device){.layer_us = world.times[d],
                                                .workers = 1,
                                                .send_rate = INFINITY,
                                                .receive_rate = INFINITY,
                                                .byte_us = 0.019,
                                                .memory = UINT64_MAX};
    }

    assert_int_equal(plan_world(&world, 0, &result), 0);
    assert_int_equal(result.line->count, 2);
    assert_true(fabs(result.line->period_us - 39) < 1e-9); /* 20 and 19 for the cut */
    cost_line_free(result.line);

    for (size_t d = 0; d < 2; d++)
        world.devices[d].message_us = 1; /* one each way */
    assert_int_equal(plan_world(&world, 0, &result), 0);
    assert_int_equal(result.line->count, 1);
    assert_true(result.line->period_us == 40);
    cost_line_free(result.line);
}

static void hundreds_of_equal_devices_are_one_kind(void **state) {
    enum { LAYERS = 300, DEVICES = 200 };
    static uint64_t cuts[LAYERS + 1], zeros[LAYERS];
    static double times[LAYERS];
    static struct cost_device devices[DEVICES];
    struct cost *cost;
    struct planner_result result;
    struct planner_options options = {.tolerance = 0};
    struct err err;
    (void)state;
    for (size_t i = 0; i < LAYERS; i++)
        times[i] = 1;
    for (size_t d = 0; d < DEVICES; d++)
        devices[d] = (struct cost_device){.layer_us = times,
                                          .workers = 1,
                                          .send_rate = INFINITY,
                                          .receive_rate = INFINITY,
                                          .memory = UINT64_MAX};
    struct cost_network network = {.layers = LAYERS,
                                   .cut_bytes = cuts,
                                   .weight_bytes = zeros,
                                   .arena_bytes = zeros,
                                   .first_cut = 1};
    assert_int_equal(cost_new(&network, devices, DEVICES, &cost, &err), 0);

    assert_int_equal(planner_run(cost, &options, &result, &err), 0);

    assert_true(result.line->period_us == 2);
    assert_true(result.line->count >= 150 && result.line->count <= DEVICES);
    cost_line_free(result.line);
    cost_free(cost);
}

static void too_many_different_devices_are_refused_with_a_remedy(void **state) {
    enum { DEVICES = 40 };
    static double times[DEVICES][1];
    static struct cost_device devices[DEVICES];
    static const uint64_t zeros[2];
    struct cost_network network = {.layers = 1,
                                   .cut_bytes = zeros,
                                   .weight_bytes = zeros,
                                   .arena_bytes = zeros,
                                   .first_cut = 1};
    struct planner_options options = {.tolerance = 0};
    struct planner_result result;
    struct cost *cost;
    struct err err;
    (void)state;
    for (size_t d = 0; d < DEVICES; d++) {
        times[d][0] = (double)d;
        devices[d] = (struct cost_device){
            .layer_us = times[d], .workers = 1, .send_rate = 1, .receive_rate = 1};
    }
    assert_int_equal(cost_new(&network, devices, DEVICES, &cost, &err), 0);

    assert_int_equal(planner_run(cost, &options, &result, &err), -E2BIG);

    assert_non_null(strstr(err.text, "40 devices of 39 different kinds"));
    cost_free(cost);
}

static void numbers_that_make_no_sense_are_refused(void **state) {
    struct world world;
    struct cost *cost;
    struct err err;
    (void)state;
    for (int i = 0; i < 6; i++) {
        make_plain(&world, 2);
        if (i == 0)
            world.times[1][2] = NAN;
        else if (i == 1)
            world.devices[1].workers = 0;
        else if (i == 2)
            world.devices[1].send_rate = 0;
        else if (i == 3)
            world.devices[1].latency_us = -1;
        else if (i == 4)
            world.network.first_cut = 0;
        else
            world.network.layers = 0;
        err.text[0] = '\0';
        assert_int_equal(cost_new(&world.network, world.devices, 2, &cost, &err), -EINVAL);
        assert_true(strlen(err.text) > 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_line_is_faster_and_none_as_fast_has_a_lower_latency),
        cmocka_unit_test(no_line_passes_the_bound),
        cmocka_unit_test(equal_layers_are_shared_equally),
        cmocka_unit_test(bound_is_the_sum_of_the_devices_when_they_differ_by_a_factor),
        cmocka_unit_test(bound_counts_what_each_device_is_good_at),
        cmocka_unit_test(bound_is_infinite_where_every_layer_is_free_somewhere),
        cmocka_unit_test(device_that_would_not_help_is_left_out),
        cmocka_unit_test(slow_link_keeps_everything_on_the_ingress),
        cmocka_unit_test(cut_is_where_few_bytes_travel_when_the_link_is_the_limit),
        cmocka_unit_test(cut_before_the_farthest_is_kept_for_a_slow_receiver),
        cmocka_unit_test(network_too_large_for_one_device_is_cut_to_fit),
        cmocka_unit_test(slow_stage_is_shared_when_that_is_allowed),
        cmocka_unit_test(a_cut_whose_messages_cost_more_than_it_gains_is_not_made),
        cmocka_unit_test(hundreds_of_equal_devices_are_one_kind),
        cmocka_unit_test(too_many_different_devices_are_refused_with_a_remedy),
        cmocka_unit_test(numbers_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
