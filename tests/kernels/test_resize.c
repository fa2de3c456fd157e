#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

/* ONNX's formulas, axis by axis and in double; random sizes keep away from the ties that float and
 * double would decide differently. */
struct axis {
    int in, out;
    double scale;
};

static double original(enum kn_resize_coord coord, const struct axis *a, int o) {
    switch (coord) {
    case KN_COORD_HALF_PIXEL:
        return (o + 0.5) / a->scale - 0.5;
    case KN_COORD_PYTORCH_HALF_PIXEL:
        return a->out > 1 ? (o + 0.5) / a->scale - 0.5 : 0.0;
    case KN_COORD_ALIGN_CORNERS:
        return a->out > 1 ? (double)o * (a->in - 1) / (a->out - 1) : 0.0;
    default:
        return o / a->scale;
    }
}

static int clamp(int i, int in) {
    return i < 0 ? 0 : i >= in ? in - 1 : i;
}

static double cubic(double a, double d) {
    d = fabs(d);
    if (d < 1)
        return (a + 2) * d * d * d - (a + 3) * d * d + 1;
    return d < 2 ? a * d * d * d - 5 * a * d * d + 8 * a * d - 4 * a : 0;
}

/* The weight of input cell i for output o. */
static double weight(const struct kn_resize *r, const struct axis *a, int o, int i) {
    double x = original(r->coord, a, o), sum = 0;
    int nearest;

    switch (r->mode) {
    case KN_RESIZE_NEAREST:
        nearest = (int)(r->round == KN_ROUND_PREFER_FLOOR  ? ceil(x - 0.5)
                        : r->round == KN_ROUND_PREFER_CEIL ? floor(x + 0.5)
                        : r->round == KN_ROUND_FLOOR       ? floor(x)
                                                           : ceil(x));
        return clamp(nearest, a->in) == i;
    case KN_RESIZE_LINEAR:
        x = x < 0 ? 0 : x > a->in - 1 ? a->in - 1 : x;
        return fmax(0.0, 1.0 - fabs(x - i));
    case KN_RESIZE_CUBIC:
        for (int k = (int)floor(x) - 1; k <= (int)floor(x) + 2; k++)
            sum += clamp(k, a->in) == i ? cubic((double)r->cubic_a, x - k) : 0.0;
        return sum;
    }
    return 0;
}

static void define(const struct kn_resize *r, const float *x, float *y) {
    const struct axis rows = {r->ih, r->oh, (double)r->scale_h};
    const struct axis cols = {r->iw, r->ow, (double)r->scale_w};

    for (int p = 0; p < r->planes; p++, x += r->ih * r->iw)
        for (int oy = 0; oy < r->oh; oy++)
            for (int ox = 0; ox < r->ow; ox++) {
                double sum = 0;
                for (int iy = 0; iy < r->ih; iy++)
                    for (int ix = 0; ix < r->iw; ix++)
                        sum += weight(r, &rows, oy, iy) * weight(r, &cols, ox, ix) *
                               (double)x[iy * r->iw + ix];
                *y++ = (float)sum;
            }
}

static void resizes_agree_with_their_definitions(void **state) {
    struct rng rng = {.state = 101};
    const struct tolerance tolerance = {.units = 64.0, .least = 1.0};

    (void)state;
    for (int round = 0; round < 800; round++) {
        struct kn_resize r = {
            .mode = (enum kn_resize_mode)(round % 3),
            .coord = (enum kn_resize_coord)rng_int(&rng, 0, 3),
            .round = (enum kn_resize_round)rng_int(&rng, 0, 3),
            .planes = rng_int(&rng, 1, 3),
            .ih = rng_int(&rng, 1, 7),
            .iw = rng_int(&rng, 1, 9),
            .oh = rng_int(&rng, 1, 15),
            .ow = rng_int(&rng, 1, round % 50 ? 20 : 600),
            .cubic_a = -0.75f,
        };
        char text[128];
        if (r.mode == KN_RESIZE_NEAREST) {
            /* Powers of two, so that every coordinate is exact. */
            r.coord = r.coord == KN_COORD_ALIGN_CORNERS ? KN_COORD_ASYMMETRIC : r.coord;
            r.oh = r.ih * 4;
            r.ow = r.iw * 2;
        }
        r.scale_h = (float)r.oh / (float)r.ih;
        r.scale_w = (float)r.ow / (float)r.iw;
        snprintf(text, sizeof(text), "resize mode %d coord %d round %d %dx%d -> %dx%d", (int)r.mode,
                 (int)r.coord, (int)r.round, r.ih, r.iw, r.oh, r.ow);
        size_t count = (size_t)(r.planes * r.oh * r.ow);
        struct guarded x = guarded_floats(&rng, (size_t)(r.planes * r.ih * r.iw));
        struct guarded want = guarded_new(count * sizeof(float));
        define(&r, x.data, want.data);
        for (int i = 0; i < POOLS; i++) {
            struct guarded y = guarded_new(count * sizeof(float));
            kn_resize(&r, x.data, y.data, check_pool(i));
            check_floats(y.data, want.data, count, &tolerance, text);
            guarded_free(&y, text);
        }
        guarded_free(&x, text);
        guarded_free(&want, text);
    }
}

static const float square[] = {1, 2, 3, 4};

/* ONNX's test resize_upsample_scales_linear. */
static void linear_upsampling_matches_onnx(void **state) {
    const struct kn_resize r = {.mode = KN_RESIZE_LINEAR,
                                .planes = 1,
                                .ih = 2,
                                .iw = 2,
                                .oh = 4,
                                .ow = 4,
                                .scale_h = 2,
                                .scale_w = 2};
    const float want[] = {1,    1.25f, 1.75f, 2,    1.5f, 1.75f, 2.25f, 2.5f,
                          2.5f, 2.75f, 3.25f, 3.5f, 3,    3.25f, 3.75f, 4};
    float y[16];

    (void)state;
    kn_resize(&r, square, y, NULL);
    assert_memory_equal(y, want, sizeof(want));
}

/* ONNX's test resize_upsample_scales_nearest: 2 x 3 with the default rounding. */
static void nearest_upsampling_matches_onnx(void **state) {
    const struct kn_resize r = {.mode = KN_RESIZE_NEAREST,
                                .planes = 1,
                                .ih = 2,
                                .iw = 2,
                                .oh = 4,
                                .ow = 6,
                                .scale_h = 2,
                                .scale_w = 3};
    const float want[] = {1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 3, 3, 3, 4, 4, 4};
    float y[24];

    (void)state;
    kn_resize(&r, square, y, NULL);
    assert_memory_equal(y, want, sizeof(want));
}

/* ONNX's test resize_upsample_sizes_nearest_floor_align_corners, on a line of four: 4 -> 8. */
static void ties_follow_the_rounding_mode(void **state) {
    struct kn_resize r = {.mode = KN_RESIZE_NEAREST,
                          .coord = KN_COORD_ASYMMETRIC,
                          .planes = 1,
                          .ih = 1,
                          .iw = 4,
                          .oh = 1,
                          .ow = 8,
                          .scale_h = 1,
                          .scale_w = 2};
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
        kn_resize(&r, square, y, NULL);
        assert_memory_equal(y, want[round], sizeof(y));
    }
}

/* ONNX's test resize_upsample_scales_cubic, its first row. */
static void cubic_upsampling_matches_onnx(void **state) {
    const struct kn_resize r = {.mode = KN_RESIZE_CUBIC,
                                .planes = 1,
                                .ih = 4,
                                .iw = 4,
                                .oh = 8,
                                .ow = 8,
                                .scale_h = 2,
                                .scale_w = 2,
                                .cubic_a = -0.75f};
    const float x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    const float want[] = {0.47265625f, 0.76953125f, 1.24609375f, 1.875f,
                          2.28125f,    2.91015625f, 3.38671875f, 3.68359375f};
    const struct tolerance tolerance = {.units = 8.0};
    float y[64];

    (void)state;
    kn_resize(&r, x, y, NULL);
    check_floats(y, want, 8, &tolerance, "cubic");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resizes_agree_with_their_definitions),
        cmocka_unit_test(linear_upsampling_matches_onnx),
        cmocka_unit_test(nearest_upsampling_matches_onnx),
        cmocka_unit_test(ties_follow_the_rounding_mode),
        cmocka_unit_test(cubic_upsampling_matches_onnx),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
