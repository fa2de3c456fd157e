#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

#define COORDS (KN_COORD_CROP + 1)

static size_t count_of(const struct kn_resize *r, bool out) {
    size_t count = 1;

    for (int i = 0; i < r->rank; i++)
        count *= (size_t)(out ? r->axes[i].out : r->axes[i].in);
    return count;
}

static struct kn_resize_axis axis_of(int in, int out) {
    return (struct kn_resize_axis){.in = in, .out = out, .scale = (double)out / in, .roi_end = 1.0};
}

/* Runs with scratch of its own. */
static void resize(const struct kn_resize *r, const void *x, void *y, int pool) {
    size_t bytes = 0;

    assert_int_equal(kn_resize_scratch(r, kn_threads_count(check_pool(pool)), &bytes), 0);
    struct guarded scratch = guarded_new(bytes);
    kn_resize(r, x, y, scratch.data, check_pool(pool));
    guarded_free(&scratch, "scratch");
}

static struct kn_resize random_floats(struct rng *rng, int round, const float *outside) {
    struct kn_resize r = {.mode = round % 2 ? KN_RESIZE_LINEAR : KN_RESIZE_CUBIC,
                          .coord = (enum kn_resize_coord)(round % COORDS),
                          .exclude_outside = rng_chance(rng, 20),
                          .antialias = rng_chance(rng, 30),
                          .cubic_a = rng_chance(rng, 50) ? -0.75f : -0.5f,
                          .elem_size = sizeof(float),
                          .outside = outside,
                          .rank = rng_int(rng, 1, 4)};

    for (int i = 0; i < r.rank; i++) {
        int in = rng_int(rng, 1, 6), out = rng_chance(rng, 30) ? in : rng_int(rng, 1, 9);
        if (i == r.rank - 1 && round % 40 == 0)
            out = 300;
        r.axes[i] = axis_of(in, out);
        if (rng_chance(rng, 20)) { /* a scale that does not give a whole number */
            r.axes[i].scale = (out + 0.3) / in;
            r.axes[i].scale = in * r.axes[i].scale == 1.0 ? 1.0 : r.axes[i].scale;
        }
        if (r.coord == KN_COORD_CROP) {
            r.axes[i].roi_begin = (double)rng_float(rng) / 3.0;
            r.axes[i].roi_end = 1.0 + (double)rng_float(rng) / 3.0;
        }
    }
    return r;
}

static void linear_and_cubic_agree_with_their_definition(void **state) {
    struct rng rng = {.state = 101};
    const struct tolerance tolerance = {.units = 64.0, .least = 1.0};
    const float outside = 7.5f;

    (void)state;
    for (int round = 0; round < 700; round++) {
        struct kn_resize r = random_floats(&rng, round, &outside);
        char text[160];
        int at = snprintf(text, sizeof(text),
                          "resize mode %d coord %d exclude %d antialias %d:", (int)r.mode,
                          (int)r.coord, r.exclude_outside, r.antialias);
        for (int i = 0; i < r.rank; i++)
            at += snprintf(text + at, sizeof(text) - (size_t)at, " %d>%d*%.3g", r.axes[i].in,
                           r.axes[i].out, r.axes[i].scale);
        struct guarded x = guarded_floats(&rng, count_of(&r, false));
        struct guarded want = guarded_new(count_of(&r, true) * sizeof(float));
        kn_resize_ref(&r, x.data, want.data);
        for (int i = 0; i < POOLS; i++) {
            struct guarded y = guarded_new(want.bytes);
            resize(&r, x.data, y.data, i);
            check_floats(y.data, want.data, count_of(&r, true), &tolerance, text);
            guarded_free(&y, text);
        }
        guarded_free(&x, text);
        guarded_free(&want, text);
    }
}

/* The input of output o; powers of two keep every coordinate exact. */
static int nearest(const struct kn_resize *r, const struct kn_resize_axis *a, int o) {
    double x = r->coord == KN_COORD_ASYMMETRIC          ? o / a->scale
               : r->coord == KN_COORD_HALF_PIXEL_FOR_NN ? (o + 0.5) / a->scale
                                                        : (o + 0.5) / a->scale - 0.5;
    int i = (int)(r->round == KN_ROUND_PREFER_FLOOR  ? ceil(x - 0.5)
                  : r->round == KN_ROUND_PREFER_CEIL ? floor(x + 0.5)
                  : r->round == KN_ROUND_FLOOR       ? floor(x)
                                                     : ceil(x));

    return a->in == a->out ? o : i < 0 ? 0 : i >= a->in ? a->in - 1 : i;
}

static void nearest_copies_elements_of_any_size(void **state) {
    static const enum kn_resize_coord coords[] = {KN_COORD_HALF_PIXEL, KN_COORD_ASYMMETRIC,
                                                  KN_COORD_HALF_PIXEL_FOR_NN};
    struct rng rng = {.state = 102};

    (void)state;
    for (int round = 0; round < 400; round++) {
        struct kn_resize r = {.mode = KN_RESIZE_NEAREST,
                              .coord = coords[round % 3],
                              .round = (enum kn_resize_round)rng_int(&rng, 0, 3),
                              .elem_size = (size_t)1 << rng_int(&rng, 0, 3),
                              .rank = rng_int(&rng, 1, 5)};
        for (int i = 0; i < r.rank; i++) {
            int in = 1 << rng_int(&rng, 0, 2);
            r.axes[i] = axis_of(in, rng_chance(&rng, 40) ? in : 1 << rng_int(&rng, 0, 3));
        }
        size_t out = count_of(&r, true), size = r.elem_size;
        struct guarded x = guarded_new(count_of(&r, false) * size), y = guarded_new(out * size);
        for (size_t i = 0; i < x.bytes; i++)
            ((uint8_t *)x.data)[i] = (uint8_t)rng_next(&rng);
        resize(&r, x.data, y.data, round % POOLS);
        for (size_t o = 0; o < out; o++) {
            size_t rest = o, at = 0, stride = 1;
            for (int d = r.rank; d-- > 0;) {
                at += (size_t)nearest(&r, &r.axes[d], (int)(rest % (size_t)r.axes[d].out)) * stride;
                rest /= (size_t)r.axes[d].out;
                stride *= (size_t)r.axes[d].in;
            }
            assert_memory_equal((char *)y.data + o * size, (char *)x.data + at * size, size);
        }
        guarded_free(&x, "x");
        guarded_free(&y, "nearest");
    }
}

/* A plane among two, with the same size on both axes. */
static struct kn_resize picture(enum kn_resize_mode mode, int in, int out) {
    return (struct kn_resize){.mode = mode,
                              .cubic_a = -0.75f,
                              .elem_size = sizeof(float),
                              .rank = 2,
                              .axes = {axis_of(in, out), axis_of(in, out)}};
}

static const float square[] = {1, 2, 3, 4};

/* ONNX's test resize_upsample_scales_linear. */
static void linear_upsampling_matches_onnx(void **state) {
    const struct kn_resize r = picture(KN_RESIZE_LINEAR, 2, 4);
    const float want[] = {1,    1.25f, 1.75f, 2,    1.5f, 1.75f, 2.25f, 2.5f,
                          2.5f, 2.75f, 3.25f, 3.5f, 3,    3.25f, 3.75f, 4};
    float y[16];

    (void)state;
    resize(&r, square, y, 0);
    assert_memory_equal(y, want, sizeof(want));
}

/* ONNX's test resize_upsample_scales_nearest: 2 x 3 with the default rounding. */
static void nearest_upsampling_matches_onnx(void **state) {
    struct kn_resize r = picture(KN_RESIZE_NEAREST, 2, 4);
    const float want[] = {1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 3, 3, 3, 4, 4, 4};
    float y[24];

    (void)state;
    r.axes[1] = axis_of(2, 6);
    resize(&r, square, y, 0);
    assert_memory_equal(y, want, sizeof(want));
}

/* A line of four: 4 -> 8. */
static void ties_follow_the_rounding_mode(void **state) {
    struct kn_resize r = {.mode = KN_RESIZE_NEAREST,
                          .coord = KN_COORD_ASYMMETRIC,
                          .elem_size = sizeof(float),
                          .rank = 1,
                          .axes = {axis_of(4, 8)}};
    static const float want[][8] = {
        [KN_ROUND_PREFER_FLOOR] = {1, 1, 2, 2, 3, 3, 4, 4},
        [KN_ROUND_PREFER_CEIL] = {1, 2, 2, 3, 3, 4, 4, 4},
        [KN_ROUND_FLOOR] = {1, 1, 2, 2, 3, 3, 4, 4},
        [KN_ROUND_CEIL] = {1, 2, 2, 3, 3, 4, 4, 4},
    };
    float y[8];

    (void)state;
    for (int round = 0; round < 4; round++) {
        r.round = (enum kn_resize_round)round;
        resize(&r, square, y, 0);
        assert_memory_equal(y, want[round], sizeof(y));
    }
}

/* 5 / 3 as a float is a little more than that: 5 is at 3, not just below. */
static void a_rounded_scale_does_not_move_ties(void **state) {
    const float x[] = {0, 1, 2, 3, 4, 5};
    struct kn_resize r = {.mode = KN_RESIZE_NEAREST,
                          .coord = KN_COORD_ASYMMETRIC,
                          .round = KN_ROUND_FLOOR,
                          .elem_size = sizeof(float),
                          .rank = 1,
                          .axes = {axis_of(6, 10)}};
    float y[10];

    (void)state;
    r.axes[0].scale = (double)(5.0f / 3.0f);
    resize(&r, x, y, 0);
    assert_true(y[5] == 3.0f);
}

/* ONNX's test resize_upsample_scales_cubic, its first row. */
static void cubic_upsampling_matches_onnx(void **state) {
    const struct kn_resize r = picture(KN_RESIZE_CUBIC, 4, 8);
    const float x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    const float want[] = {0.47265625f, 0.76953125f, 1.24609375f, 1.875f,
                          2.28125f,    2.91015625f, 3.38671875f, 3.68359375f};
    const struct tolerance tolerance = {.units = 8.0};
    float y[64];

    (void)state;
    resize(&r, x, y, 0);
    check_floats(y, want, 8, &tolerance, "cubic");
}

static void more_scratch_than_there_can_be_is_refused(void **state) {
    struct kn_resize r = picture(KN_RESIZE_LINEAR, INT32_MAX, 2);
    size_t bytes = 5;

    (void)state;
    r.antialias = true;
    assert_int_equal(kn_resize_scratch(&r, 1, &bytes), -EOVERFLOW);
    assert_int_equal(bytes, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_and_cubic_agree_with_their_definition),
        cmocka_unit_test(nearest_copies_elements_of_any_size),
        cmocka_unit_test(linear_upsampling_matches_onnx),
        cmocka_unit_test(nearest_upsampling_matches_onnx),
        cmocka_unit_test(ties_follow_the_rounding_mode),
        cmocka_unit_test(a_rounded_scale_does_not_move_ties),
        cmocka_unit_test(cubic_upsampling_matches_onnx),
        cmocka_unit_test(more_scratch_than_there_can_be_is_refused),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
