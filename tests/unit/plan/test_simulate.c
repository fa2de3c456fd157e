/* A simulated line against what the cost model predicts for it. */
#include "plan/planner.h"
#include "plan/simulate.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS_MAX  60
#define DEVICES_MAX 1000

static uint64_t cuts[LAYERS_MAX + 1], zeros[LAYERS_MAX];
static double times[DEVICES_MAX][LAYERS_MAX];
static struct cost_device devices[DEVICES_MAX];

static uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull >> 33;
}

static struct cost *new_cost(size_t layers, size_t count) {
    struct cost_network network = {.layers = layers,
                                   .cut_bytes = cuts,
                                   .weight_bytes = zeros,
                                   .arena_bytes = zeros,
                                   .first_cut = 1};
    struct cost *cost = NULL;
    struct err err = {""};
    assert_int_equal(cost_new(&network, devices, count, &cost, &err), 0);
    return cost;
}

/* A network and up to six unequal devices at 100 Mbit/s or so. */
static struct cost *make_cost(uint64_t seed) {
    uint64_t state = seed * 2654435761u + 1;
    size_t layers = 20 + next_random(&state) % (LAYERS_MAX - 20), count = 1 + seed % 6;
    double base[LAYERS_MAX];
    for (size_t i = 0; i < layers; i++) {
        base[i] = (double)(100 + next_random(&state) % 3000);
        cuts[i] = 1000 * (1 + next_random(&state) % 400);
    }
    cuts[layers] = next_random(&state) % 2 ? 4000 : 20000;
    for (size_t d = 0; d < count; d++) {
        double speed = 1 + (double)(next_random(&state) % 4) / 2;
        for (size_t i = 0; i < layers; i++)
            times[d][i] = base[i] / speed;
        devices[d] = (struct cost_device){.layer_us = times[d],
                                          .workers = 1 + (int)(next_random(&state) % 4),
                                          .send_rate = 4 + (double)(next_random(&state) % 20),
                                          .receive_rate = 4 + (double)(next_random(&state) % 20),
                                          .latency_us = 100,
                                          .frame_us = 50,
                                          .memory = UINT64_MAX};
    }
    return new_cost(layers, count);
}

static struct cost_line *plan(const struct cost *cost, size_t replicas) {
    struct planner_options options = {.max_replicas = replicas, .tolerance = 0.01};
    struct planner_result result = {.line = NULL};
    struct err err = {""};
    assert_int_equal(planner_run(cost, &options, &result, &err), 0);
    return result.line;
}

static struct simulate_result simulate(const struct cost *cost, const struct cost_line *line,
                                       const struct simulate_options *options) {
    struct simulate_result result = {.stages = NULL};
    struct err err = {""};
    int rc = simulate_run(cost, line, options, &result, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return result;
}

/* True when the devices that share a stage are equal, in each that is shared. */
static bool has_equal_replicas(const struct cost *cost, const struct cost_line *line) {
    for (size_t k = 0; k < line->count; k++)
        for (size_t i = 1; i < line->stages[k].replicas; i++)
            if (!cost_same_kind(cost, line->stages[k].devices[0], line->stages[k].devices[i]))
                return false;
    return true;
}

/* The prediction takes strict turns; unequal devices that are dealt as many frames as they answer
 * do better than that, and no worse. */
static void prediction_and_simulation_agree(void **state) {
    size_t shared = 0, unequal = 0, several = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        struct cost *cost = make_cost(seed);
        struct cost_line *line = plan(cost, 1 + seed % 3);
        struct simulate_options options = {.frames = 2000, .seed = seed};
        struct simulate_result result = simulate(cost, line, &options);

        double ratio = result.period_us / line->period_us;
        bool is_equal = has_equal_replicas(cost, line);
        if (ratio > 1.02 || (is_equal && ratio < 0.98))
            fail_msg("seed %d: %g us predicted, %g us simulated", (int)seed, line->period_us,
                     result.period_us);
        several += line->count > 2;
        unequal += !is_equal;
        for (size_t k = 0; k < line->count; k++)
            shared += line->stages[k].replicas > 1;
        simulate_fini(&result);
        cost_line_free(line);
        cost_free(cost);
    }
    assert_true(several > 20 && shared > 5 && unequal > 0 && unequal < 60);
}

/* Two devices behind the ingress share the rest of the model, one `slow` times slower. */
static struct cost_line *shared_line(double slow, struct cost **ret_cost) {
    static double fast_us[2], slow_us[2];
    static const uint64_t bytes[] = {1000, 1000, 40}, none[2];
    static struct cost_device pair[3];
    static const struct cost_network network = {
        .layers = 2, .cut_bytes = bytes, .weight_bytes = none, .arena_bytes = none, .first_cut = 1};
    struct err err = {""};
    fast_us[0] = 100;
    fast_us[1] = 3000;
    slow_us[0] = 100 * slow;
    slow_us[1] = 3000 * slow;
    for (size_t i = 0; i < 3; i++)
        pair[i] = (struct cost_device){.layer_us = i == 2 ? slow_us : fast_us,
                                       .workers = 1,
                                       .send_rate = INFINITY,
                                       .receive_rate = INFINITY,
                                       .memory = UINT64_MAX};
    assert_int_equal(cost_new(&network, pair, 3, ret_cost, &err), 0);
    struct cost_line *line = calloc(1, sizeof(*line));
    assert_non_null(line);
    line->count = 2;
    line->stages = calloc(2, sizeof(*line->stages));
    assert_non_null(line->stages);
    for (size_t k = 0; k < 2; k++) {
        line->stages[k] = (struct cost_stage){.first = k, .last = k + 1, .replicas = 1 + k};
        line->stages[k].devices = calloc(1 + k, sizeof(size_t));
        assert_non_null(line->stages[k].devices);
        for (size_t i = 0; i <= k; i++)
            line->stages[k].devices[i] = k + i;
    }
    cost_evaluate(*ret_cost, line);
    return line;
}

static void replicas_are_dealt_frames_by_their_speed(void **state) {
    static const double slows[] = {1, 2, 5};
    (void)state;
    for (size_t i = 0; i < sizeof(slows) / sizeof(slows[0]); i++) {
        struct cost *cost;
        struct cost_line *line = shared_line(slows[i], &cost);
        struct simulate_options options = {.frames = 4000};
        struct simulate_result result = simulate(cost, line, &options);

        double both = 3000 / (1 + 1 / slows[i]); /* rates add up */
        if (fabs(result.period_us / both - 1) > 0.02)
            fail_msg("%g times slower: %g us, not %g", slows[i], result.period_us, both);
        simulate_fini(&result);
        cost_line_free(line);
        cost_free(cost);
    }
}

/* With queues as the daemon has them, times that vary by a tenth cost less than a twentieth. */
static void jitter_of_a_tenth_costs_less_than_a_twentieth(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct cost *cost = make_cost(seed);
        struct cost_line *line = plan(cost, 1);
        struct simulate_options options = {.frames = 4000, .jitter = 0.1, .seed = seed};
        struct simulate_result result = simulate(cost, line, &options);

        if (fabs(result.period_us / line->period_us - 1) > 0.05)
            fail_msg("seed %d: %g us predicted, %g us simulated", (int)seed, line->period_us,
                     result.period_us);
        simulate_fini(&result);
        cost_line_free(line);
        cost_free(cost);
    }
}

static void frame_alone_takes_the_predicted_latency(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct cost *cost = make_cost(seed);
        struct cost_line *line = plan(cost, 1);
        struct simulate_options options = {.frames = 20, .interval_us = 1e7};
        struct simulate_result result = simulate(cost, line, &options);

        assert_true(fabs(result.p50_us / line->latency_us - 1) < 1e-9);
        assert_true(fabs(result.period_us / 1e7 - 1) < 1e-9);
        simulate_fini(&result);
        cost_line_free(line);
        cost_free(cost);
    }
}

/* Six equal layers on three equal devices with links that cost nothing. */
static struct cost *make_even(double time_us) {
    memset(cuts, 0, sizeof(cuts));
    for (size_t d = 0; d < 3; d++) {
        for (size_t i = 0; i < 6; i++)
            times[d][i] = time_us;
        devices[d] = (struct cost_device){.layer_us = times[d],
                                          .workers = 1,
                                          .send_rate = INFINITY,
                                          .receive_rate = INFINITY,
                                          .memory = UINT64_MAX};
    }
    return new_cost(6, 3);
}

static void short_queues_cost_throughput_when_times_vary(void **state) {
    (void)state;
    struct cost *cost = make_even(100);
    struct cost_line *line = plan(cost, 1);
    struct simulate_options options = {.frames = 4000, .jitter = 0.3, .queue = 1, .seed = 3};

    struct simulate_result tight = simulate(cost, line, &options);
    options.queue = 32;
    struct simulate_result loose = simulate(cost, line, &options);

    assert_true(tight.period_us > 1.1 * loose.period_us);
    assert_true(loose.period_us < 1.02 * line->period_us);
    assert_true(tight.p50_us < loose.p50_us);
    simulate_fini(&tight);
    simulate_fini(&loose);
    cost_line_free(line);
    cost_free(cost);
}

static void busy_shares_show_the_bottleneck(void **state) {
    (void)state;
    struct cost *cost = make_even(100);
    for (size_t i = 0; i < 6; i++)
        cuts[i] = 1000;
    devices[0].send_rate = 2.5; /* 400 us */
    cost_free(cost);
    cost = new_cost(6, 2);
    struct cost_line *line = plan(cost, 1);
    assert_int_equal(line->count, 2);
    assert_true(line->period_us == 400); /* of 600 that one device would take */
    struct simulate_options options = {.frames = 1000};

    struct simulate_result result = simulate(cost, line, &options);

    /* 400 us of sending, 600 of computing in two stages. */
    assert_true(result.stages[0].sending > 0.98);
    assert_true(fabs(result.stages[1].computing + result.stages[0].computing - 1.5) < 0.02);
    assert_true(result.stages[1].receiving < 0.01);
    simulate_fini(&result);
    cost_line_free(line);
    cost_free(cost);
}

static void same_seed_gives_the_same_run(void **state) {
    (void)state;
    struct cost *cost = make_cost(5);
    struct cost_line *line = plan(cost, 1);
    struct simulate_options options = {.frames = 500, .jitter = 0.2, .seed = 7};

    struct simulate_result one = simulate(cost, line, &options);
    struct simulate_result two = simulate(cost, line, &options);
    options.seed = 8;
    struct simulate_result other = simulate(cost, line, &options);

    assert_true(one.period_us == two.period_us && one.p99_us == two.p99_us);
    assert_true(one.period_us != other.period_us);
    simulate_fini(&one);
    simulate_fini(&two);
    simulate_fini(&other);
    cost_line_free(line);
    cost_free(cost);
}

/* One layer of each device: a line is as fast as its slowest stage, however long it is. */
static void line_of_a_thousand_devices_is_as_fast_as_its_slowest(void **state) {
    enum { COUNT = 1000 };
    static uint64_t bytes[COUNT + 1], none[COUNT];
    static double each[COUNT];
    struct cost_network network = {.layers = COUNT,
                                   .cut_bytes = bytes,
                                   .weight_bytes = none,
                                   .arena_bytes = none,
                                   .first_cut = 1};
    struct cost_line *line = calloc(1, sizeof(*line));
    struct simulate_options options = {.frames = 8000, .queue = 2};
    struct cost *cost;
    struct err err;
    (void)state;
    line->stages = calloc(COUNT, sizeof(*line->stages));
    for (size_t i = 0; i < COUNT; i++) {
        each[i] = i == 700 ? 1500 : 1000;
        bytes[i] = 5000;
        devices[i] = (struct cost_device){.layer_us = each,
                                          .workers = 1,
                                          .send_rate = 12.5,
                                          .receive_rate = 12.5,
                                          .latency_us = 50,
                                          .memory = UINT64_MAX};
        struct cost_stage *stage = &line->stages[line->count++];
        stage->first = i;
        stage->last = i + 1;
        stage->replicas = 1;
        stage->devices = calloc(1, sizeof(size_t));
        stage->devices[0] = i;
    }
    assert_int_equal(cost_new(&network, devices, COUNT, &cost, &err), 0);
    cost_evaluate(cost, line);

    struct simulate_result result = simulate(cost, line, &options);

    assert_true(line->period_us == 1500 && line->bottleneck == 700);
    assert_true(fabs(result.period_us / 1500 - 1) < 0.01);
    simulate_fini(&result);
    cost_line_free(line);
    cost_free(cost);
}

static void options_out_of_range_are_refused(void **state) {
    (void)state;
    struct cost *cost = make_even(10);
    struct cost_line *line = plan(cost, 1);
    const struct simulate_options bad[] = {{.frames = 15},   {.frames = SIMULATE_FRAMES_MAX + 1},
                                           {.jitter = -0.1}, {.jitter = NAN},
                                           {.queue = -1},    {.interval_us = INFINITY}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct simulate_result result;
        struct err err = {""};
        assert_int_equal(simulate_run(cost, line, &bad[i], &result, &err), -EINVAL);
        assert_true(err.text[0]);
    }
    cost_line_free(line);
    cost_free(cost);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prediction_and_simulation_agree),
        cmocka_unit_test(replicas_are_dealt_frames_by_their_speed),
        cmocka_unit_test(jitter_of_a_tenth_costs_less_than_a_twentieth),
        cmocka_unit_test(frame_alone_takes_the_predicted_latency),
        cmocka_unit_test(short_queues_cost_throughput_when_times_vary),
        cmocka_unit_test(busy_shares_show_the_bottleneck),
        cmocka_unit_test(same_seed_gives_the_same_run),
        cmocka_unit_test(line_of_a_thousand_devices_is_as_fast_as_its_slowest),
        cmocka_unit_test(options_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
