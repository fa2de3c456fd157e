#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

/* The output size as ONNX computes it, floor or ceil. */
static int out_size(int in, int kernel, int stride, int dil, int pads, bool ceil_mode) {
    int room = in + pads - (kernel - 1) * dil - 1;

    return room < 0 ? 1 : (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
}

static struct kn_pool random_pool(struct rng *rng) {
    struct kn_pool p = {
        .kind = rng_chance(rng, 50) ? KN_POOL_MAX : KN_POOL_AVERAGE,
        .planes = rng_int(rng, 1, 7),
        .ih = rng_int(rng, 1, 20),
        .iw = rng_int(rng, 1, 40),
        .kh = rng_int(rng, 1, 5),
        .kw = rng_int(rng, 1, 5),
        .stride_h = rng_int(rng, 1, 3),
        .stride_w = rng_int(rng, 1, 3),
        .dil_h = rng_chance(rng, 70) ? 1 : rng_int(rng, 2, 3),
        .dil_w = rng_chance(rng, 70) ? 1 : rng_int(rng, 2, 3),
        .pad_top = rng_int(rng, 0, 2),
        .pad_left = rng_int(rng, 0, 2),
        .pad_bottom = rng_int(rng, 0, 2),
        .pad_right = rng_int(rng, 0, 2),
        .count_include_pad = rng_chance(rng, 50),
    };
    bool ceil_mode = rng_chance(rng, 50);

    p.oh = out_size(p.ih, p.kh, p.stride_h, p.dil_h, p.pad_top + p.pad_bottom, ceil_mode);
    p.ow = out_size(p.iw, p.kw, p.stride_w, p.dil_w, p.pad_left + p.pad_right, ceil_mode);
    if (rng_chance(rng, 10)) {
        p.kh = p.ih;
        p.kw = p.iw;
        p.oh = p.ow = p.dil_h = p.dil_w = 1;
        p.pad_top = p.pad_left = p.pad_bottom = p.pad_right = 0;
    }
    return p;
}

static void check_pool_against_ref(struct rng *rng, const struct kn_pool *p, bool with_nan) {
    size_t x_count = (size_t)p->planes * (size_t)p->ih * (size_t)p->iw;
    size_t y_count = (size_t)p->planes * (size_t)p->oh * (size_t)p->ow;
    bool with_index = p->kind == KN_POOL_MAX && rng_chance(rng, 50);
    struct guarded x = guarded_floats(rng, x_count);
    struct guarded want = guarded_new(y_count * sizeof(float));
    struct guarded want_index = guarded_new(y_count * sizeof(int64_t));
    struct tolerance tolerance = {.units = with_nan || p->kind == KN_POOL_MAX ? 0.0 : 8.0,
                                  .least = 1.0};
    char text[192];

    snprintf(text, sizeof(text),
             "pool %d planes %d x %dx%d y %dx%d k %dx%d s %dx%d d %dx%d pads %d,%d,%d,%d incl %d",
             (int)p->kind, p->planes, p->ih, p->iw, p->oh, p->ow, p->kh, p->kw, p->stride_h,
             p->stride_w, p->dil_h, p->dil_w, p->pad_top, p->pad_left, p->pad_bottom, p->pad_right,
             p->count_include_pad);
    for (int i = 0; with_nan && i < 5; i++)
        ((float *)x.data)[rng_int(rng, 0, (int)x_count - 1)] = i % 2 ? -INFINITY : NAN;
    kn_pool_ref(p, x.data, want.data, with_index ? want_index.data : NULL);
    for (int i = 0; i < POOLS * kn_simd_count(); i++) { /* on every instruction set */
        kn_simd_use(i / POOLS);
        struct guarded y = guarded_new(y_count * sizeof(float));
        struct guarded index = guarded_new(y_count * sizeof(int64_t));
        kn_pool(p, x.data, y.data, with_index ? index.data : NULL, check_pool(i % POOLS));
        check_floats(y.data, want.data, y_count, &tolerance, text);
        check_bytes(index.data, want_index.data, index.bytes, text);
        guarded_free(&y, text);
        guarded_free(&index, text);
    }
    guarded_free(&x, text);
    guarded_free(&want, text);
    guarded_free(&want_index, text);
}

static void random_pools_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 31};

    (void)state;
    for (int i = 0; i < 1500; i++) {
        struct kn_pool p = random_pool(&rng);
        check_pool_against_ref(&rng, &p, false);
    }
}

/* What networks have: planes alike, of all widths; several in one task. */
static struct kn_pool usual_pool(struct rng *rng) {
    struct kn_pool p = random_pool(rng);

    p.kind = KN_POOL_MAX;
    p.planes = rng_int(rng, 1, 20);
    p.ih = rng_int(rng, 3, 30);
    p.iw = rng_int(rng, 3, 75);
    p.kh = p.kw = rng_int(rng, 2, 3);
    p.stride_h = p.stride_w = rng_int(rng, 1, 2);
    p.dil_h = p.dil_w = 1;
    p.pad_top = p.pad_left = p.pad_bottom = p.pad_right = rng_int(rng, 0, 1);
    p.oh = out_size(p.ih, p.kh, p.stride_h, 1, 2 * p.pad_top, rng_chance(rng, 50));
    p.ow = out_size(p.iw, p.kw, p.stride_w, 1, 2 * p.pad_left, rng_chance(rng, 50));
    return p;
}

static void the_usual_maxima_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 33};

    (void)state;
    for (int i = 0; i < 500; i++) {
        struct kn_pool p = usual_pool(&rng);
        check_pool_against_ref(&rng, &p, i % 2);
    }
}

/* What pyramids of pools have, and windows of many taps with strides and dilations besides; planes
 * of which not all rows fit a band. */
static struct kn_pool large_pool(struct rng *rng) {
    struct kn_pool p = random_pool(rng);
    bool pyramid = rng_chance(rng, 40);

    p.kind = KN_POOL_MAX;
    p.planes = rng_int(rng, 1, 4);
    p.ih = rng_int(rng, 6, 60);
    p.iw = rng_int(rng, 6, rng_chance(rng, 20) ? 900 : 60);
    p.kh = rng_int(rng, 3, 14);
    p.kw = rng_int(rng, 5, 14);
    if (pyramid) {
        p.kh = p.kw = rng_int(rng, 2, 7) * 2 + 1;
        p.stride_h = p.stride_w = p.dil_h = p.dil_w = 1;
        p.pad_top = p.pad_left = p.pad_bottom = p.pad_right = p.kh / 2;
    }
    p.oh = out_size(p.ih, p.kh, p.stride_h, p.dil_h, p.pad_top + p.pad_bottom, false);
    p.ow = out_size(p.iw, p.kw, p.stride_w, p.dil_w, p.pad_left + p.pad_right, false);
    return p;
}

static void large_maxima_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 35};

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct kn_pool p = large_pool(&rng);
        check_pool_against_ref(&rng, &p, i % 2);
    }
}

/* A file may ask for it; no row follows. */
static void a_stride_may_be_larger_than_any_plane(void **state) {
    struct rng rng = {.state = 36};
    struct kn_pool p = {.kind = KN_POOL_MAX,
                        .planes = 2,
                        .ih = 5,
                        .iw = 9,
                        .oh = 1,
                        .ow = 6,
                        .kh = 5,
                        .kw = 4,
                        .stride_h = INT_MAX,
                        .stride_w = 1,
                        .dil_h = 1,
                        .dil_w = 1};

    (void)state;
    check_pool_against_ref(&rng, &p, false);
    p.stride_w = INT_MAX;
    p.ow = 1;
    check_pool_against_ref(&rng, &p, false);
    p.kind = KN_POOL_AVERAGE;
    check_pool_against_ref(&rng, &p, false);
}

/* Windows that are the whole plane: more planes than one task takes, the last task not full. */
static void whole_planes_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 34};

    (void)state;
    for (int i = 0; i < 60; i++) {
        struct kn_pool p = {.kind = i % 3 ? KN_POOL_AVERAGE : KN_POOL_MAX,
                            .ih = rng_int(&rng, 1, 15),
                            .iw = rng_int(&rng, 1, 15),
                            .oh = 1,
                            .ow = 1,
                            .stride_h = 1,
                            .stride_w = 1,
                            .dil_h = 1,
                            .dil_w = 1};
        p.kh = p.ih;
        p.kw = p.iw;
        p.planes = rng_int(&rng, 1, 50000) / (p.ih * p.iw) + 1;
        check_pool_against_ref(&rng, &p, false);
    }
}

static void nan_wins_the_maximum(void **state) {
    struct rng rng = {.state = 32};

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct kn_pool p = random_pool(&rng);
        p.kind = KN_POOL_MAX;
        check_pool_against_ref(&rng, &p, true);
    }
}

/* ONNX's test averagepool_2d_ceil: 4x4, kernel 3, stride 2, ceil_mode: windows hang over the edge.
 */
static void cells_beyond_the_padding_do_not_count(void **state) {
    const float x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    const float want[] = {6, 7.5f, 12, 13.5f};
    struct kn_pool p = {.kind = KN_POOL_AVERAGE,
                        .planes = 1,
                        .ih = 4,
                        .iw = 4,
                        .oh = 2,
                        .ow = 2,
                        .kh = 3,
                        .kw = 3,
                        .stride_h = 2,
                        .stride_w = 2,
                        .dil_h = 1,
                        .dil_w = 1};
    float y[4];

    (void)state;
    kn_pool(&p, x, y, NULL, NULL);
    assert_memory_equal(y, want, sizeof(want));
    p.count_include_pad = true;
    kn_pool(&p, x, y, NULL, NULL);
    assert_memory_equal(y, want, sizeof(want));
}

/* ONNX's test averagepool_2d_precomputed_pads_count_include_pad, its first row. */
static void padded_cells_count_when_asked(void **state) {
    const float x[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13,
                       14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25};
    const float included[] = {2.52f, 3.6f, 4.8f, 4.08f, 3.24f};
    const float excluded[] = {7, 7.5f, 8, 8.5f, 9};
    const struct tolerance tolerance = {.units = 2.0};
    struct kn_pool p = {.kind = KN_POOL_AVERAGE,
                        .planes = 1,
                        .ih = 5,
                        .iw = 5,
                        .oh = 5,
                        .ow = 5,
                        .kh = 5,
                        .kw = 5,
                        .stride_h = 1,
                        .stride_w = 1,
                        .dil_h = 1,
                        .dil_w = 1,
                        .pad_top = 2,
                        .pad_left = 2,
                        .pad_bottom = 2,
                        .pad_right = 2};
    float y[25];

    (void)state;
    kn_pool(&p, x, y, NULL, NULL);
    check_floats(y, excluded, 5, &tolerance, "without padding");
    p.count_include_pad = true;
    kn_pool(&p, x, y, NULL, NULL);
    check_floats(y, included, 5, &tolerance, "with padding");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_pools_agree_with_the_reference),
        cmocka_unit_test(large_maxima_agree_with_the_reference),
        cmocka_unit_test(a_stride_may_be_larger_than_any_plane),
        cmocka_unit_test(the_usual_maxima_agree_with_the_reference),
        cmocka_unit_test(whole_planes_agree_with_the_reference),
        cmocka_unit_test(nan_wins_the_maximum),
        cmocka_unit_test(cells_beyond_the_padding_do_not_count),
        cmocka_unit_test(padded_cells_count_when_asked),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
