#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

#define WINOGRAD_UNITS 2.0

/* One convolution with everything that it needs. */
struct problem {
    struct kn_conv conv;
    struct guarded w, bias, x, residual, want, magnitude;
    bool has_bias;
    size_t outputs;
    char text[256];
};

static size_t count_x(const struct kn_conv *c) {
    return (size_t)c->n * (size_t)c->ic * (size_t)c->ih * (size_t)c->iw;
}

static size_t count_y(const struct kn_conv *c) {
    return (size_t)c->n * (size_t)c->oc * (size_t)c->oh * (size_t)c->ow;
}

static size_t count_w(const struct kn_conv *c) {
    return (size_t)c->oc * (size_t)(c->ic / c->group) * (size_t)c->kh * (size_t)c->kw;
}

static void describe(struct problem *p) {
    const struct kn_conv *c = &p->conv;

    snprintf(p->text, sizeof(p->text),
             "conv n %d x %dx%dx%d y %dx%dx%d k %dx%d stride %dx%d dil %dx%d pad %d,%d group %d "
             "act %d%s%s",
             c->n, c->ic, c->ih, c->iw, c->oc, c->oh, c->ow, c->kh, c->kw, c->stride_h, c->stride_w,
             c->dil_h, c->dil_w, c->pad_top, c->pad_left, c->group, (int)c->act.kind,
             c->residual ? " residual" : "", p->has_bias ? " bias" : "");
}

/* The sums of absolute values, by the reference itself. */
static void make_magnitude(struct problem *p) {
    struct kn_conv plain = p->conv;
    struct guarded w = guarded_magnitude(&p->w), x = guarded_magnitude(&p->x);
    struct guarded bias = guarded_magnitude(&p->bias), residual = {0};

    plain.act = (struct kn_activation){KN_ACT_NONE, 0.0f, 0.0f};
    if (plain.residual)
        residual = guarded_magnitude(&p->residual);
    p->magnitude = guarded_new(p->outputs * sizeof(float));
    kn_conv_ref(&plain, w.data, p->has_bias ? bias.data : NULL, x.data, residual.data,
                p->magnitude.data);
    guarded_free(&w, p->text);
    guarded_free(&x, p->text);
    guarded_free(&bias, p->text);
    guarded_free(&residual, p->text);
}

static void problem_init(struct problem *p, struct rng *rng, const struct kn_conv *conv) {
    *p = (struct problem){.conv = *conv, .has_bias = rng_chance(rng, 70)};
    p->outputs = count_y(conv);
    describe(p);
    p->w = guarded_floats(rng, count_w(conv));
    p->bias = guarded_floats(rng, (size_t)conv->oc);
    p->x = guarded_floats(rng, count_x(conv));
    if (conv->residual)
        p->residual = guarded_floats(rng, p->outputs);
    p->want = guarded_new(p->outputs * sizeof(float));
    kn_conv_ref(conv, p->w.data, p->has_bias ? p->bias.data : NULL, p->x.data, p->residual.data,
                p->want.data);
    make_magnitude(p);
}

static void problem_fini(struct problem *p) {
    guarded_free(&p->w, p->text);
    guarded_free(&p->bias, p->text);
    guarded_free(&p->x, p->text);
    guarded_free(&p->residual, p->text);
    guarded_free(&p->want, p->text);
    guarded_free(&p->magnitude, p->text);
}

/* Packs from unaligned memory, as weights lie in a mapped file. */
static struct guarded pack_unaligned(const struct problem *p, const struct kn_conv_plan *plan) {
    struct guarded packed = guarded_new(plan->packed_bytes);
    size_t w_bytes = count_w(&p->conv) * sizeof(float);
    size_t bias_bytes = (size_t)p->conv.oc * sizeof(float);
    char *w = malloc(w_bytes + 1), *bias = malloc(bias_bytes + 3);

    assert_non_null(w);
    assert_non_null(bias);
    memcpy(w + 1, p->w.data, w_bytes);
    memcpy(bias + 3, p->bias.data, bias_bytes);
    const struct kn_conv_weights weights = {
        .w = (const float *)(const void *)(w + 1),
        .bias = p->has_bias ? (const float *)(const void *)(bias + 3) : NULL,
        .rows = p->conv.oc};
    kn_conv_pack(plan, &weights, packed.data);
    free(w);
    free(bias);
    return packed;
}

/* Runs with the given pool; y is given, and is the residual when it is that too. */
static void run(const struct problem *p, int threads, const float *residual, float *y) {
    struct kn_conv_plan plan;

    assert_int_equal(kn_conv_plan(&p->conv, threads + 1, &plan), 0);
    struct guarded packed = pack_unaligned(p, &plan);
    struct guarded workspace = guarded_new(plan.workspace_bytes);
    kn_conv_run(&plan, packed.data, p->x.data, residual, y, workspace.data, check_pool(threads));
    guarded_free(&packed, p->text);
    guarded_free(&workspace, p->text);
}

/* Winograd's algorithm adds up other numbers than the products, and as large everywhere in a tile:
 * its bound is in terms of the largest output's sum. */
static struct tolerance tolerance_of(const struct problem *p) {
    int depth = p->conv.ic / p->conv.group * p->conv.kh * p->conv.kw;
    const float *magnitude = p->magnitude.data;
    struct kn_conv_plan plan;
    /* An activation stretches a difference by less than two. */
    struct tolerance tolerance = {
        .units = 2.0 * (4.0 + sqrt((double)depth)), .magnitude = magnitude, .least = 1e-3};

    assert_int_equal(kn_conv_plan(&p->conv, 1, &plan), 0);
    if (strcmp(kn_conv_algo_name(&plan), "winograd") != 0)
        return tolerance;
    tolerance.units = 2.0 * WINOGRAD_UNITS;
    for (size_t i = 0; i < p->outputs; i++)
        if ((double)magnitude[i] > tolerance.least)
            tolerance.least = (double)magnitude[i];
    return tolerance;
}

/* What a piece at a time, with a scale of each channel, gives: the same as scaled weights at once.
 */
static void check_pieces(const struct problem *p) {
    size_t row = count_w(&p->conv) / (size_t)p->conv.oc, oc = (size_t)p->conv.oc;
    struct guarded scaled = guarded_new(count_w(&p->conv) * sizeof(float));
    const float *w = p->w.data, *bias = p->has_bias ? p->bias.data : NULL;
    double *scale = calloc(oc, sizeof(*scale));
    struct kn_conv_plan plan;

    assert_non_null(scale);
    assert_int_equal(kn_conv_plan(&p->conv, 1, &plan), 0);
    for (size_t i = 0; i < oc * row; i++) {
        scale[i / row] = 1.0 / (3.0 + (double)(i / row % 5));
        ((float *)scaled.data)[i] = (float)((double)w[i] * scale[i / row]);
    }
    struct guarded want = guarded_new(plan.packed_bytes), got = guarded_new(plan.packed_bytes);
    memset(want.data, 0, plan.packed_bytes);
    memset(got.data, 0, plan.packed_bytes);
    const struct kn_conv_weights all = {.w = scaled.data, .bias = bias, .rows = p->conv.oc};
    kn_conv_pack(&plan, &all, want.data);
    size_t step = p->conv.group == 1 ? KN_CONV_PIECE : oc;
    for (size_t end = oc, first; end > 0; end = first) { /* the last one first */
        first = (end - 1) / step * step;
        const struct kn_conv_weights piece = {.w = w + first * row,
                                              .bias = bias ? bias + first : NULL,
                                              .scale = scale + first,
                                              .first = (int)first,
                                              .rows = (int)(end - first)};
        kn_conv_pack(&plan, &piece, got.data);
    }
    check_bytes(got.data, want.data, plan.packed_bytes, p->text);
    guarded_free(&want, p->text);
    guarded_free(&got, p->text);
    guarded_free(&scaled, p->text);
    free(scale);
}

static void check_level(const struct problem *p) {
    struct tolerance tolerance = tolerance_of(p);
    size_t bytes = p->outputs * sizeof(float);
    struct guarded first = guarded_new(bytes);

    check_pieces(p);
    run(p, 0, p->residual.data, first.data);
    check_floats(first.data, p->want.data, p->outputs, &tolerance, p->text);
    for (int threads = 1; threads < POOLS; threads++) {
        struct guarded y = guarded_new(bytes);
        run(p, threads, p->residual.data, y.data);
        check_bytes(y.data, first.data, bytes, p->text);
        guarded_free(&y, p->text);
    }
    if (p->conv.residual) {
        struct guarded y = guarded_new(bytes);
        memcpy(y.data, p->residual.data, bytes);
        run(p, 1, y.data, y.data);
        check_bytes(y.data, first.data, bytes, p->text);
        guarded_free(&y, p->text);
    }
    guarded_free(&first, p->text);
}

/* On every instruction set. */
static void check_problem(const struct problem *p) {
    for (int level = 0; level < kn_simd_count(); level++) {
        kn_simd_use(level);
        check_level(p);
    }
}

static void check_conv(struct rng *rng, const struct kn_conv *conv) {
    struct problem p;

    problem_init(&p, rng, conv);
    check_problem(&p);
    problem_fini(&p);
}

static const struct kn_activation some_acts[] = {
    {KN_ACT_NONE, 0.0f, 0.0f}, {KN_ACT_RELU, 0.0f, 0.0f},       {KN_ACT_CLIP, -0.25f, 0.75f},
    {KN_ACT_SILU, 0.0f, 0.0f}, {KN_ACT_LEAKY_RELU, 0.1f, 0.0f}, {KN_ACT_HARD_SWISH, 0.0f, 0.0f},
    {KN_ACT_GELU, 0.0f, 0.0f},
};

/* Any output size that is not too large is legal: padding below and right follows from it, and may
 * be negative. */
static int random_out(struct rng *rng, int in, int kernel, int stride, int dil, int pad) {
    int natural = (in + pad + rng_int(rng, -1, 2) - (kernel - 1) * dil - 1) / stride + 1;

    return natural < 1 ? 1 : natural > 40 ? 40 : natural;
}

static struct kn_conv random_conv(struct rng *rng) {
    struct kn_conv c = {
        .n = rng_int(rng, 1, 3),
        .ih = rng_int(rng, 1, 19),
        .iw = rng_int(rng, 1, 23),
        .kh = rng_int(rng, 1, 5),
        .kw = rng_int(rng, 1, 5),
        .stride_h = rng_int(rng, 1, 3),
        .stride_w = rng_int(rng, 1, 3),
        .dil_h = rng_int(rng, 1, 3),
        .dil_w = rng_int(rng, 1, 3),
        .pad_top = rng_int(rng, -2, 4),
        .pad_left = rng_int(rng, -2, 4),
        .group = rng_chance(rng, 60) ? 1 : rng_int(rng, 2, 5),
        .act = some_acts[rng_int(rng, 0, 6)],
        .residual = rng_chance(rng, 40),
    };

    c.ic = c.group * rng_int(rng, 1, 6);
    c.oc = c.group * rng_int(rng, 1, 7);
    c.oh = random_out(rng, c.ih, c.kh, c.stride_h, c.dil_h, c.pad_top);
    c.ow = random_out(rng, c.iw, c.kw, c.stride_w, c.dil_w, c.pad_left);
    return c;
}

static void random_convolutions_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 1};

    (void)state;
    for (int i = 0; i < 1500; i++) {
        struct kn_conv c = random_conv(&rng);
        check_conv(&rng, &c);
    }
}

static void random_depthwise_convolutions_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 2};

    (void)state;
    for (int i = 0; i < 700; i++) {
        struct kn_conv c = random_conv(&rng);
        c.group = rng_int(&rng, 2, 9);
        c.ic = c.group;
        c.oc = c.group * (rng_chance(&rng, 80) ? 1 : rng_int(&rng, 2, 3));
        if (rng_chance(&rng, 60)) {
            c.kh = c.kw = rng_chance(&rng, 50) ? 3 : 5;
            c.stride_h = c.stride_w = rng_int(&rng, 1, 2);
            c.dil_h = c.dil_w = 1;
            c.iw = rng_int(&rng, 1, 70);
            c.pad_top = c.pad_left = c.kh / 2;
            c.oh = (c.ih + 2 * c.pad_top - c.kh) / c.stride_h + 1;
            c.ow = (c.iw + 2 * c.pad_left - c.kw) / c.stride_w + 1;
        }
        check_conv(&rng, &c);
    }
}

/* Rows of the width, and as many channels, as are computed with channels as lanes; on every level
 * some groups of lanes are full and some are not. */
static void random_depthwise_convolutions_of_many_channels_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 17};
    struct kn_conv_plan plan;
    int by_lanes = 0;

    (void)state;
    for (int i = 0; i < 400; i++) {
        struct kn_conv c = random_conv(&rng);
        c.group = c.ic = c.oc = rng_int(&rng, 2, 37);
        c.n = rng_int(&rng, 1, 2);
        c.kh = c.kw = 3 + 2 * rng_int(&rng, 0, 2);
        c.stride_h = c.stride_w = rng_int(&rng, 1, 2);
        c.dil_h = c.dil_w = 1;
        c.iw = rng_int(&rng, 1, rng_chance(&rng, 20) ? 70 : 20);
        c.pad_top = rng_int(&rng, 0, c.kh - 1);
        c.pad_left = rng_int(&rng, 0, c.kw - 1);
        c.oh = random_out(&rng, c.ih, c.kh, c.stride_h, 1, 2 * c.pad_top);
        c.ow = random_out(&rng, c.iw, c.kw, c.stride_w, 1, 2 * c.pad_left);
        c.residual = rng_chance(&rng, 10);
        assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
        by_lanes += strcmp(kn_conv_algo_name(&plan), "depthwise-lanes") == 0;
        check_conv(&rng, &c);
    }
    assert_true(by_lanes > 200);
}

/* First layers of networks. */
static void random_convolutions_of_few_channels_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 18};
    struct kn_conv_plan plan;
    int direct = 0;

    (void)state;
    for (int i = 0; i < 80; i++) {
        struct kn_conv c = random_conv(&rng);
        c.group = 1;
        c.n = rng_int(&rng, 1, 2);
        c.ic = rng_int(&rng, 1, 4);
        c.oc = rng_int(&rng, 8, 30);
        c.kh = c.kw = i % 8 == 0 ? 7 : i % 4 == 0 ? 5 : 3;
        c.stride_h = c.stride_w = rng_int(&rng, 1, 2);
        c.dil_h = c.dil_w = 1;
        c.ow = rng_int(&rng, 40, 110);
        c.pad_top = rng_int(&rng, 0, c.kh - 1);
        c.pad_left = rng_int(&rng, 0, c.kw - 1);
        c.iw = (c.ow - 1) * c.stride_w + c.kw - 2 * c.pad_left + rng_int(&rng, 0, 1);
        c.oh = random_out(&rng, c.ih, c.kh, c.stride_h, 1, 2 * c.pad_top);
        c.residual = rng_chance(&rng, 10);
        assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
        direct += strcmp(kn_conv_algo_name(&plan), "direct") == 0;
        check_conv(&rng, &c);
    }
    assert_true(direct > 40);
}

static void random_pointwise_convolutions_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 3};

    (void)state;
    for (int i = 0; i < 400; i++) {
        struct kn_conv c = random_conv(&rng);
        c.kh = c.kw = c.stride_h = c.stride_w = 1;
        c.pad_top = c.pad_left = 0;
        c.oh = c.ih;
        c.ow = c.iw;
        check_conv(&rng, &c);
    }
}

static void windows_as_large_as_the_picture_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 6};

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct kn_conv c = random_conv(&rng);
        c.group = c.oh = c.ow = 1;
        c.ic = rng_int(&rng, 1, 90);
        c.oc = rng_int(&rng, 1, 150);
        c.kh = c.ih = rng_chance(&rng, 60) ? 1 : rng_int(&rng, 1, 4);
        c.kw = c.iw = rng_chance(&rng, 60) ? 1 : rng_int(&rng, 1, 4);
        c.pad_top = c.pad_left = 0;
        c.dil_h = c.dil_w = 1;
        check_conv(&rng, &c);
    }
}

/* Planes and channels of the size that Winograd's algorithm is chosen for. */
static void random_3x3_and_5x5_convolutions_agree_with_the_reference(void **state) {
    struct rng rng = {.state = 6};
    struct kn_conv_plan plan;
    int winograd[2] = {0}, grouped = 0;

    (void)state;
    for (int i = 0; i < 180; i++) {
        struct kn_conv c = random_conv(&rng);
        c.kh = c.kw = i % 3 == 0 ? 5 : 3;
        c.stride_h = c.stride_w = c.dil_h = c.dil_w = c.group = 1;
        c.ic = rng_int(&rng, 1, 40);
        c.oc = rng_int(&rng, 10, 40);
        c.ih = rng_int(&rng, 5, 30);
        c.iw = rng_int(&rng, 5, rng_chance(&rng, 20) ? 150 : 30);
        c.oh = c.ih + rng_int(&rng, -1, 2);
        c.ow = c.iw + rng_int(&rng, -1, 2);
        if (i % 4 == 0) {
            c.group = rng_int(&rng, 2, 5);
            c.ic = c.group * rng_int(&rng, 7, 20);
            c.oc = c.group * rng_int(&rng, 7, rng_chance(&rng, 20) ? 40 : 20);
        }
        assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
        grouped += c.group > 1 && strcmp(kn_conv_algo_name(&plan), "winograd") == 0;
        winograd[c.kh == 5] += strcmp(kn_conv_algo_name(&plan), "winograd") == 0;
        check_conv(&rng, &c);
    }
    assert_true(winograd[0] > 40 && winograd[1] > 20 && grouped > 20);
}

/* 49 tiles of 2x2, 49 and 100 of 4x4: one or two strips, and a little more. */
static void tiles_that_nearly_fill_strips_agree_with_the_reference(void **state) {
    static const struct {
        int ic, oc, size;
    } shapes[] = {{130, 19, 14}, {100, 16, 28}, {80, 67, 40}};
    struct rng rng = {.state = 16};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct kn_conv conv = {.n = 2,
                                     .ic = shapes[i].ic,
                                     .ih = shapes[i].size,
                                     .iw = shapes[i].size,
                                     .oc = shapes[i].oc,
                                     .oh = shapes[i].size,
                                     .ow = shapes[i].size,
                                     .kh = 3,
                                     .kw = 3,
                                     .stride_h = 1,
                                     .stride_w = 1,
                                     .dil_h = 1,
                                     .dil_w = 1,
                                     .pad_top = 1,
                                     .pad_left = 1,
                                     .group = 1,
                                     .residual = true,
                                     .act = {KN_ACT_RELU, 0, 0}};
        check_conv(&rng, &conv);
    }
}

/* Several strips, several blocks of output channels, edges that are no multiple of anything. */
static void large_convolutions_agree_with_the_reference(void **state) {
    static const struct {
        int n, ic, ih, iw, oc, oh, ow, window, stride, pad, group;
        bool residual;
        struct kn_activation act;
    } shapes[] = {
        {1, 96, 41, 43, 21, 41, 43, 3, 1, 1, 1, false, {KN_ACT_RELU, 0, 0}},
        {2, 3, 97, 101, 13, 48, 51, 7, 2, 3, 1, false, {KN_ACT_RELU, 0, 0}},
        {1, 517, 7, 7, 613, 7, 7, 1, 1, 0, 1, true, {KN_ACT_RELU, 0, 0}},
        {1, 256, 7, 7, 130, 7, 7, 3, 1, 1, 1, true, {KN_ACT_NONE, 0, 0}},
        {1, 70, 53, 47, 30, 53, 47, 1, 1, 0, 2, true, {KN_ACT_NONE, 0, 0}},
        {1, 512, 1, 1, 1000, 1, 1, 1, 1, 0, 1, false, {KN_ACT_NONE, 0, 0}},
        {1, 64, 6, 6, 300, 1, 1, 6, 1, 0, 1, false, {KN_ACT_NONE, 0, 0}},
        {1, 16, 112, 112, 16, 56, 56, 3, 2, 0, 16, false, {KN_ACT_CLIP, 0, 6}},
        /* Winograd in blocks: the last a little larger; a few for each thread and one for all. */
        {1, 64, 56, 56, 20, 56, 56, 3, 1, 1, 1, false, {KN_ACT_NONE, 0, 0}},
        {1, 64, 60, 60, 20, 60, 60, 3, 1, 1, 1, true, {KN_ACT_RELU, 0, 0}},
    };
    struct rng rng = {.state = 4};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct kn_conv conv = {.n = shapes[i].n,
                                     .ic = shapes[i].ic,
                                     .ih = shapes[i].ih,
                                     .iw = shapes[i].iw,
                                     .oc = shapes[i].oc,
                                     .oh = shapes[i].oh,
                                     .ow = shapes[i].ow,
                                     .kh = shapes[i].window,
                                     .kw = shapes[i].window,
                                     .stride_h = shapes[i].stride,
                                     .stride_w = shapes[i].stride,
                                     .dil_h = 1,
                                     .dil_w = 1,
                                     .pad_top = shapes[i].pad,
                                     .pad_left = shapes[i].pad,
                                     .group = shapes[i].group,
                                     .residual = shapes[i].residual,
                                     .act = shapes[i].act};
        check_conv(&rng, &conv);
    }
}

/* A file may ask for it; no second row or column follows. */
static void a_stride_may_be_larger_than_any_picture(void **state) {
    struct rng rng = {.state = 19};

    (void)state;
    for (int i = 0; i < 60; i++) {
        struct kn_conv c = random_conv(&rng);
        c.stride_h = c.stride_w = INT_MAX;
        c.oh = c.ow = 1;
        if (i % 3 == 0)
            c.group = c.ic = c.oc = 5;
        check_conv(&rng, &c);
    }
}

/* A convolution of which the model layer relies that a picture's result does not depend on others.
 */
static void an_image_gives_the_same_bits_alone_and_in_a_batch(void **state) {
    struct rng rng = {.state = 5};
    struct problem batch, alone;

    (void)state;
    for (int i = 0; i < 60; i++) {
        struct kn_conv c = random_conv(&rng);
        c.n = 3;
        c.residual = false;
        problem_init(&batch, &rng, &c);
        alone = batch;
        alone.conv.n = 1;
        struct guarded y = guarded_new(batch.outputs * sizeof(float));
        struct guarded one = guarded_new(batch.outputs / 3 * sizeof(float));
        run(&batch, 1, NULL, y.data);
        run(&alone, 2, NULL, one.data);
        check_bytes(one.data, y.data, one.bytes, batch.text);
        guarded_free(&y, batch.text);
        guarded_free(&one, batch.text);
        problem_fini(&batch);
    }
}

static const struct kn_conv small = {.n = 1,
                                     .ic = 4,
                                     .ih = 8,
                                     .iw = 8,
                                     .oc = 4,
                                     .oh = 8,
                                     .ow = 8,
                                     .kh = 3,
                                     .kw = 3,
                                     .stride_h = 1,
                                     .stride_w = 1,
                                     .dil_h = 1,
                                     .dil_w = 1,
                                     .pad_top = 1,
                                     .pad_left = 1,
                                     .group = 1};

static void the_algorithm_follows_from_the_shape(void **state) {
    struct kn_conv c = small;
    struct kn_conv_plan plan;

    (void)state;
    c.ic = c.oc = 8;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
    assert_string_equal(kn_conv_algo_name(&plan), "window");
    c.ic = 3;
    c.ih = c.iw = c.oh = c.ow = 48;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
    assert_string_equal(kn_conv_algo_name(&plan), "direct");
    c = small;
    c.group = 4;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
    assert_string_equal(kn_conv_algo_name(&plan), "depthwise-lanes");
    c.residual = true;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
    assert_string_equal(kn_conv_algo_name(&plan), "depthwise");
    c = small;
    c.kh = c.kw = 1;
    c.pad_top = c.pad_left = 0;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
    assert_string_equal(kn_conv_algo_name(&plan), "1x1");
}

/* Five channels leave three of eight lanes empty: worth it where rows are narrow. */
static void lanes_are_channels_where_enough_of_them_are_filled(void **state) {
    struct kn_conv c = small;
    struct kn_conv_plan plan;

    (void)state;
    c.group = c.ic = c.oc = 5;
    for (int level = 0; level < kn_simd_count(); level++) {
        kn_simd_use(level);
        c.ih = c.iw = c.oh = c.ow = 7;
        assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
        assert_string_equal(kn_conv_algo_name(&plan), "depthwise-lanes");
        c.ih = c.iw = c.oh = c.ow = 28;
        assert_int_equal(kn_conv_plan(&c, 1, &plan), 0);
        assert_string_equal(kn_conv_algo_name(&plan), "depthwise");
    }
}

/* All rows as one band would take 4 GB and some bytes: more than 32 bits count. */
static void a_tall_plane_takes_the_scratch_of_a_band(void **state) {
    struct kn_conv c = {.n = 1,
                        .ic = 2,
                        .ih = 20001,
                        .iw = 1,
                        .oc = 2,
                        .oh = 10000,
                        .ow = 1,
                        .kh = 3,
                        .kw = 3,
                        .stride_h = 2,
                        .stride_w = 2,
                        .dil_h = 1,
                        .dil_w = 1,
                        .group = 2,
                        .residual = true};
    struct kn_conv_plan low, tall;

    (void)state;
    assert_int_equal(kn_conv_plan(&c, 1, &low), 0);
    assert_string_equal(kn_conv_algo_name(&low), "depthwise");
    c.ih = 1 << 24;
    c.oh = 1 << 23;
    assert_int_equal(kn_conv_plan(&c, 1, &tall), 0);
    assert_int_equal(tall.workspace_bytes, low.workspace_bytes);
}

static void the_plan_of_a_layer_is_the_same_for_any_number_of_threads(void **state) {
    struct kn_conv_plan one, many;

    (void)state;
    assert_int_equal(kn_conv_plan(&small, 1, &one), 0);
    assert_int_equal(kn_conv_plan(&small, 8, &many), 0);
    assert_ptr_equal(one.algo, many.algo);
    assert_int_equal(one.panel, many.panel);
    assert_int_equal(one.packed_bytes, many.packed_bytes);
    assert_int_equal(8 * one.workspace_bytes, many.workspace_bytes);
}

static void contradictory_shapes_are_refused(void **state) {
    struct kn_conv_plan plan;
    struct kn_conv c = small;

    (void)state;
    c.group = 3;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EINVAL);
    c = small;
    c.stride_h = 0;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EINVAL);
    c = small;
    c.oh = 0;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EINVAL);
    c = small;
    c.ic = -4;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EINVAL);
    c = small;
    c.act.kind = KN_ACT_COUNT;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EINVAL);
    assert_int_equal(kn_conv_plan(&small, 0, &plan), -EINVAL);
}

static void sizes_that_do_not_fit_are_refused(void **state) {
    struct kn_conv_plan plan;
    struct kn_conv c = small;

    (void)state;
    c.ic = c.oc = c.ih = c.iw = INT_MAX;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EOVERFLOW);
    c = small;
    c.oh = c.ow = 100000;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EOVERFLOW);
    c = small;
    c.stride_w = INT_MAX;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EOVERFLOW);
    c = small;
    c.dil_h = INT_MAX;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EOVERFLOW);
    c = small;
    c.pad_left = INT_MIN;
    assert_int_equal(kn_conv_plan(&c, 1, &plan), -EOVERFLOW);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_convolutions_agree_with_the_reference),
        cmocka_unit_test(random_depthwise_convolutions_agree_with_the_reference),
        cmocka_unit_test(random_depthwise_convolutions_of_many_channels_agree_with_the_reference),
        cmocka_unit_test(random_convolutions_of_few_channels_agree_with_the_reference),
        cmocka_unit_test(random_pointwise_convolutions_agree_with_the_reference),
        cmocka_unit_test(random_3x3_and_5x5_convolutions_agree_with_the_reference),
        cmocka_unit_test(windows_as_large_as_the_picture_agree_with_the_reference),
        cmocka_unit_test(tiles_that_nearly_fill_strips_agree_with_the_reference),
        cmocka_unit_test(large_convolutions_agree_with_the_reference),
        cmocka_unit_test(a_stride_may_be_larger_than_any_picture),
        cmocka_unit_test(an_image_gives_the_same_bits_alone_and_in_a_batch),
        cmocka_unit_test(the_algorithm_follows_from_the_shape),
        cmocka_unit_test(lanes_are_channels_where_enough_of_them_are_filled),
        cmocka_unit_test(a_tall_plane_takes_the_scratch_of_a_band),
        cmocka_unit_test(the_plan_of_a_layer_is_the_same_for_any_number_of_threads),
        cmocka_unit_test(contradictory_shapes_are_refused),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
