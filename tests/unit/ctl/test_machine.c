#include "ctl/bench.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* 100 GFLOP/s, 10 GB/s: the two lines meet at 10 FLOP per byte. */
static const struct machine machine = {
    .isa = "test", .threads = 1, .peak_flops = 100e9, .bytes_per_second = 10e9};

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-9 * fabs(b);
}

static void the_roof_is_the_lower_of_peak_and_what_memory_feeds(void **state) {
    (void)state;
    assert_true(near(machine_roof(&machine, 1e6, 1e6), 10e9));
    assert_true(near(machine_roof(&machine, 1e6, 1e5), 100e9));
    assert_true(near(machine_roof(&machine, 1e6, 1e3), 100e9));
    assert_true(near(machine_roof(&machine, 1e6, 0), 100e9));
}

static void a_layer_stands_below_the_line_that_bounds_it(void **state) {
    struct bench_layer dense = {.ms = 1, .macs = 25000000, .bytes = 1000000};
    struct bench_layer thin = {.ms = 1, .macs = 1250000, .bytes = 2500000};
    (void)state;
    assert_true(near(bench_layer_gflops(&dense), 50));
    assert_true(near(bench_layer_intensity(&dense), 50));
    assert_string_equal(bench_layer_bound(&machine, &dense), "compute");
    assert_true(near(bench_layer_share(&machine, &dense), 0.5));
    assert_string_equal(bench_layer_bound(&machine, &thin), "memory");
    assert_true(near(bench_layer_share(&machine, &thin), 0.25)); /* 2.5 of 10 GFLOP/s */
}

static void a_layer_that_only_moves_bytes_is_measured_by_them(void **state) {
    struct bench_layer move = {.ms = 2, .bytes = 10000000};
    (void)state;
    assert_string_equal(bench_layer_bound(&machine, &move), "memory");
    assert_true(near(bench_layer_share(&machine, &move), 0.5));
    assert_true(bench_layer_gflops(&move) == 0);
}

static void a_view_has_no_place_under_the_roof(void **state) {
    struct bench_layer view = {.algorithm = "view"};
    (void)state;
    assert_null(bench_layer_bound(&machine, &view));
    assert_true(bench_layer_share(&machine, &view) == 0);
}

static void json_of_a_layer_names_its_algorithm_and_bound(void **state) {
    struct bench_layer layers[] = {
        {.name = (char *)"c",
         .op = (char *)"Conv",
         .algorithm = "1x1",
         .ms = 1,
         .macs = 25000000,
         .bytes = 1000000},
        {.name = (char *)"r", .op = (char *)"Reshape", .algorithm = NULL}};
    struct bench_result result = {.layers = layers, .layers_count = 2, .machine = machine};
    (void)state;
    json_t *list = bench_layers_json(&result);
    assert_int_equal(json_array_size(list), 2);
    json_t *first = json_array_get(list, 0), *second = json_array_get(list, 1);
    assert_string_equal(json_string_value(json_object_get(first, "algorithm")), "1x1");
    assert_string_equal(json_string_value(json_object_get(first, "bound")), "compute");
    assert_true(near(json_number_value(json_object_get(first, "share_of_peak")), 0.5));
    assert_true(json_is_null(json_object_get(second, "algorithm")));
    assert_true(json_is_null(json_object_get(second, "bound")));
    json_decref(list);
}

static void a_measured_machine_computes_and_reads(void **state) {
    struct machine measured;
    struct err err = {0};
    (void)state;
    for (int threads = 1; threads <= 3; threads += 2) {
        assert_int_equal(machine_measure(threads, &measured, &err), 0);
        assert_int_equal(measured.threads, threads);
        assert_true(isfinite(measured.peak_flops) && measured.peak_flops > 0);
        assert_true(isfinite(measured.bytes_per_second) && measured.bytes_per_second > 0);
        assert_true(strlen(measured.isa) > 0);
    }
}

static void no_threads_and_too_many_are_refused(void **state) {
    struct machine measured = {.threads = -1};
    struct err err = {0};
    (void)state;
    assert_int_equal(machine_measure(0, &measured, &err), -EINVAL);
    assert_int_equal(machine_measure(MACHINE_THREADS_MAX + 1, &measured, &err), -EINVAL);
    assert_int_equal(measured.threads, -1);
    assert_non_null(strstr(err.text, "threads"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_roof_is_the_lower_of_peak_and_what_memory_feeds),
        cmocka_unit_test(a_layer_stands_below_the_line_that_bounds_it),
        cmocka_unit_test(a_layer_that_only_moves_bytes_is_measured_by_them),
        cmocka_unit_test(a_view_has_no_place_under_the_roof),
        cmocka_unit_test(json_of_a_layer_names_its_algorithm_and_bound),
        cmocka_unit_test(a_measured_machine_computes_and_reads),
        cmocka_unit_test(no_threads_and_too_many_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
