#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/volume.h"
#include "tests/lib/kn_check.h"

/* ---- convolution */

static struct kn_conv3 random_conv(struct rng *rng) {
    int group = rng_chance(rng, 70) ? 1 : rng_int(rng, 2, 3);
    struct kn_conv c = {.n = rng_int(rng, 1, 2),
                        .ic = group * rng_int(rng, 1, 4),
                        .oc = group * rng_int(rng, 1, 4),
                        .ih = rng_int(rng, 1, 6),
                        .iw = rng_int(rng, 1, 9),
                        .oh = rng_int(rng, 1, 6),
                        .ow = rng_int(rng, 1, 9),
                        .kh = rng_int(rng, 1, 3),
                        .kw = rng_int(rng, 1, 3),
                        .stride_h = rng_int(rng, 1, 2),
                        .stride_w = rng_int(rng, 1, 2),
                        .dil_h = rng_int(rng, 1, 2),
                        .dil_w = rng_int(rng, 1, 2),
                        .pad_top = rng_int(rng, 0, 2),
                        .pad_left = rng_int(rng, 0, 2),
                        .group = group,
                        .act = {.kind = rng_chance(rng, 50) ? KN_ACT_RELU : KN_ACT_NONE},
                        .residual = rng_chance(rng, 40)};

    return (struct kn_conv3){.plane = c,
                             .id = rng_int(rng, 1, 6),
                             .od = rng_int(rng, 1, 6),
                             .kd = rng_int(rng, 1, 3),
                             .stride_d = rng_int(rng, 1, 3),
                             .dil_d = rng_int(rng, 1, 3),
                             .pad_front = rng_int(rng, 0, 3)};
}

/* What a random convolution reads. */
struct conv_case {
    struct guarded x, w, bias, residual, want;
    size_t y_count;
    char text[224];
};

static void conv_case_init(struct conv_case *t, struct rng *rng, const struct kn_conv3 *v,
                           bool transpose) {
    const struct kn_conv *c = &v->plane;
    size_t taps = (size_t)v->kd * (size_t)c->kh * (size_t)c->kw;
    size_t rows = transpose ? (size_t)c->ic * (size_t)(c->oc / c->group)
                            : (size_t)c->oc * (size_t)(c->ic / c->group);

    t->y_count = (size_t)c->n * (size_t)c->oc * (size_t)v->od * (size_t)c->oh * (size_t)c->ow;
    t->x = guarded_floats(rng, (size_t)c->n * (size_t)c->ic * (size_t)v->id * (size_t)c->ih *
                                   (size_t)c->iw);
    t->w = guarded_floats(rng, rows * taps);
    t->bias = guarded_floats(rng, (size_t)c->oc);
    t->residual = guarded_floats(rng, t->y_count);
    t->want = guarded_new(t->y_count * sizeof(float));
    snprintf(t->text, sizeof(t->text),
             "n %d ic %d oc %d g %d x %dx%dx%d y %dx%dx%d k %dx%dx%d s %dx%dx%d d %dx%dx%d", c->n,
             c->ic, c->oc, c->group, v->id, c->ih, c->iw, v->od, c->oh, c->ow, v->kd, c->kh, c->kw,
             v->stride_d, c->stride_h, c->stride_w, v->dil_d, c->dil_h, c->dil_w);
}

static void conv_case_fini(struct conv_case *t) {
    guarded_free(&t->x, t->text);
    guarded_free(&t->w, t->text);
    guarded_free(&t->bias, t->text);
    guarded_free(&t->residual, t->text);
    guarded_free(&t->want, t->text);
}

static void run_conv(const struct kn_conv3 *v, const struct conv_case *t, bool with_bias,
                     int threads, void *y) {
    struct kn_conv3_plan plan;
    assert_int_equal(kn_conv3_plan(v, threads + 1, &plan), 0);
    struct guarded packed = guarded_new(plan.packed_bytes);
    struct guarded workspace = guarded_new(plan.workspace_bytes);
    struct guarded scratch = guarded_new(plan.scratch_bytes);

    const struct kn_conv_weights weights = {
        .w = t->w.data, .bias = with_bias ? t->bias.data : NULL, .rows = plan.conv.plane.oc};
    kn_conv3_pack(&plan, &weights, packed.data, scratch.data);
    kn_conv3_run(&plan, packed.data, t->x.data, v->plane.residual ? t->residual.data : NULL, y,
                 workspace.data, check_pool(threads));
    guarded_free(&packed, t->text);
    guarded_free(&workspace, t->text);
    guarded_free(&scratch, t->text);
}

static void volumes_are_convolved_as_defined(void **state) {
    const struct tolerance tolerance = {.units = 64.0, .least = 8.0};
    struct rng rng = {.state = 601};

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct kn_conv3 v = random_conv(&rng);
        struct conv_case t;
        bool with_bias = rng_chance(&rng, 60);
        conv_case_init(&t, &rng, &v, false);
        kn_conv3_ref(&v, t.w.data, with_bias ? t.bias.data : NULL, t.x.data,
                     v.plane.residual ? t.residual.data : NULL, t.want.data);
        struct guarded first = guarded_new(t.want.bytes);
        for (int threads = 0; threads < POOLS; threads++) {
            struct guarded y = guarded_new(t.want.bytes);
            run_conv(&v, &t, with_bias, threads, y.data);
            check_floats(y.data, t.want.data, t.y_count, &tolerance, t.text);
            if (threads == 0)
                memcpy(first.data, y.data, y.bytes);
            check_bytes(y.data, first.data, y.bytes, t.text);
            guarded_free(&y, t.text);
        }
        if (v.plane.residual) { /* y may be the residual */
            run_conv(&v, &t, with_bias, 0, t.residual.data);
            check_bytes(t.residual.data, first.data, first.bytes, t.text);
        }
        guarded_free(&first, t.text);
        conv_case_fini(&t);
    }
}

static void volumes_are_spread_as_defined(void **state) {
    const struct tolerance tolerance = {.units = 64.0, .least = 8.0};
    struct rng rng = {.state = 602};

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct kn_conv3 v = random_conv(&rng);
        struct conv_case t;
        bool with_bias = rng_chance(&rng, 60);
        size_t bytes;
        v.plane.act = (struct kn_activation){0};
        conv_case_init(&t, &rng, &v, true);
        kn_conv3_transpose_ref(&v, t.w.data, with_bias ? t.bias.data : NULL, t.x.data, t.want.data);
        assert_int_equal(kn_conv3_transpose_workspace(&v, &bytes), 0);
        for (int threads = 0; threads < POOLS; threads++) {
            struct guarded y = guarded_new(t.want.bytes), workspace = guarded_new(bytes);
            kn_conv3_transpose(&v, t.w.data, with_bias ? t.bias.data : NULL, t.x.data, y.data,
                               workspace.data, check_pool(threads));
            check_floats(y.data, t.want.data, t.y_count, &tolerance, t.text);
            guarded_free(&y, t.text);
            guarded_free(&workspace, t.text);
        }
        conv_case_fini(&t);
    }
}

static void impossible_volumes_are_refused(void **state) {
    struct rng rng = {.state = 603};
    struct kn_conv3 v = random_conv(&rng), bad = v;
    struct kn_conv3_plan plan;
    size_t bytes;

    (void)state;
    bad.kd = 0;
    assert_int_equal(kn_conv3_plan(&bad, 1, &plan), -EINVAL);
    bad = v;
    bad.plane.n = 0;
    assert_int_equal(kn_conv3_plan(&bad, 1, &plan), -EINVAL);
    bad = v;
    bad.od = 1 << 30;
    bad.stride_d = 4;
    assert_int_equal(kn_conv3_plan(&bad, 1, &plan), -EOVERFLOW);
    bad = v;
    bad.plane.ih = bad.plane.iw = 1 << 15;
    bad.id = 1 << 30;
    bad.plane.n = 1 << 20;
    assert_int_equal(kn_conv3_transpose_workspace(&bad, &bytes), -EOVERFLOW);
}

/* ---- pooling */

static struct kn_pool3 random_pool(struct rng *rng) {
    static const enum kn_type types[] = {KN_FLOAT, KN_DOUBLE, KN_UINT8, KN_INT8};
    static const float norms[] = {1.0f, 2.0f, 3.0f, 2.5f};
    struct kn_pool3 p = {.kind = (enum kn_pool_kind)rng_int(rng, 0, 2),
                         .type = KN_FLOAT,
                         .planes = rng_int(rng, 1, 5),
                         .count_include_pad = rng_chance(rng, 50),
                         .column_major = rng_chance(rng, 30),
                         .p = norms[rng_int(rng, 0, 3)]};

    if (p.kind == KN_POOL_MAX)
        p.type = types[rng_int(rng, 0, 3)];
    for (int axis = 0; axis < 3; axis++) {
        p.in[axis] = rng_int(rng, 1, 7);
        p.out[axis] = rng_int(rng, 1, 5);
        p.kernel[axis] = rng_int(rng, 1, 3);
        p.stride[axis] = rng_int(rng, 1, 3);
        p.dil[axis] = rng_int(rng, 1, 2);
        p.begin[axis] = rng_int(rng, 0, 2);
        p.end[axis] = rng_int(rng, 0, 2);
    }
    return p;
}

static size_t size_of(enum kn_type type) {
    return type == KN_FLOAT ? 4 : type == KN_DOUBLE ? 8 : 1;
}

/* Random elements of a type; a few floats are NaN or infinite. */
static struct guarded random_elements(struct rng *rng, enum kn_type type, size_t count) {
    struct guarded x = guarded_new(count * size_of(type));

    for (size_t i = 0; i < count; i++) {
        double v = 10.0 * (double)rng_float(rng);
        if (type == KN_FLOAT)
            ((float *)x.data)[i] = (float)v;
        else if (type == KN_DOUBLE)
            ((double *)x.data)[i] = rng_chance(rng, 2) ? (double)NAN : v;
        else
            ((uint8_t *)x.data)[i] = (uint8_t)rng_next(rng);
    }
    return x;
}

static void check_pool3(struct rng *rng, const struct kn_pool3 *p) {
    size_t in = (size_t)p->planes * (size_t)p->in[0] * (size_t)p->in[1] * (size_t)p->in[2];
    size_t out = (size_t)p->planes * (size_t)p->out[0] * (size_t)p->out[1] * (size_t)p->out[2];
    const struct tolerance tolerance = {.units = p->kind == KN_POOL_MAX ? 0.0 : 4.0, .least = 1.0};
    struct guarded x = random_elements(rng, p->type, in);
    struct guarded want = guarded_new(out * size_of(p->type));
    struct guarded want_index = guarded_new(out * sizeof(int64_t));
    bool with_index = p->kind == KN_POOL_MAX && rng_chance(rng, 70);
    char text[128];

    snprintf(text, sizeof(text), "pool3 %d type %d x %dx%dx%d k %dx%dx%d", (int)p->kind,
             (int)p->type, p->in[0], p->in[1], p->in[2], p->kernel[0], p->kernel[1], p->kernel[2]);
    kn_pool3_ref(p, x.data, want.data, with_index ? want_index.data : NULL);
    for (int i = 0; i < POOLS; i++) {
        struct guarded y = guarded_new(want.bytes), index = guarded_new(want_index.bytes);
        kn_pool3(p, x.data, y.data, with_index ? index.data : NULL, check_pool(i));
        if (p->type == KN_FLOAT)
            check_floats(y.data, want.data, out, &tolerance, text);
        else
            check_bytes(y.data, want.data, y.bytes, text);
        check_bytes(index.data, want_index.data, index.bytes, text);
        guarded_free(&y, text);
        guarded_free(&index, text);
    }
    guarded_free(&x, text);
    guarded_free(&want, text);
    guarded_free(&want_index, text);
}

static void volumes_are_pooled_as_defined(void **state) {
    struct rng rng = {.state = 611};

    (void)state;
    for (int i = 0; i < 1500; i++) {
        struct kn_pool3 p = random_pool(&rng);
        check_pool3(&rng, &p);
    }
}

/* The definition for two dimensions, which knows nothing of the third. */
static void a_flat_volume_is_a_plane(void **state) {
    const struct tolerance tolerance = {.units = 8.0, .least = 1.0};
    struct rng rng = {.state = 612};
    float x[4 * 7 * 7], y[4 * 5 * 5], want[4 * 5 * 5];

    (void)state;
    for (int i = 0; i < 200; i++) {
        struct kn_pool3 p = random_pool(&rng);
        p.type = KN_FLOAT;
        p.kind = i % 2 ? KN_POOL_MAX : KN_POOL_AVERAGE;
        p.planes = 4;
        p.in[0] = p.out[0] = p.kernel[0] = p.stride[0] = p.dil[0] = 1;
        p.begin[0] = p.end[0] = 0;
        struct kn_pool flat = {
            p.kind,      4,           p.in[1],     p.in[2],     p.out[1],           p.out[2],
            p.kernel[1], p.kernel[2], p.stride[1], p.stride[2], p.dil[1],           p.dil[2],
            p.begin[1],  p.begin[2],  p.end[1],    p.end[2],    p.count_include_pad};
        for (size_t k = 0; k < sizeof(x) / sizeof(x[0]); k++)
            x[k] = rng_float(&rng);
        kn_pool3(&p, x, y, NULL, NULL);
        kn_pool_ref(&flat, x, want, NULL);
        check_floats(y, want, (size_t)(4 * p.out[1] * p.out[2]), &tolerance, "flat volume");
    }
}

/* ONNX's test maxunpool_export_with_output_shape. */
static void what_was_pooled_goes_back_to_its_place(void **state) {
    const struct kn_shape inner = {.rank = 4, .dims = {1, 1, 4, 4}};
    const struct kn_shape whole = {.rank = 4, .dims = {1, 1, 5, 5}};
    const float x[] = {5, 6, 7, 8};
    const int64_t index[] = {5, 7, 13, 15}, outside[] = {5, 7, 13, 16}, negative[] = {-1, 0, 0, 0};
    const float want[25] = {[6] = 5, [8] = 6, [16] = 7, [18] = 8};
    struct guarded y = guarded_new(sizeof(want));

    (void)state;
    assert_int_equal(kn_unpool(4, &inner, &whole, x, index, 4, y.data), 0);
    check_bytes(y.data, want, sizeof(want), "unpool");
    assert_int_equal(kn_unpool(4, &inner, &whole, x, outside, 4, y.data), -EINVAL);
    assert_int_equal(kn_unpool(4, &inner, &whole, x, negative, 4, y.data), -EINVAL);
    guarded_free(&y, "unpool");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_are_convolved_as_defined),
        cmocka_unit_test(volumes_are_spread_as_defined),
        cmocka_unit_test(impossible_volumes_are_refused),
        cmocka_unit_test(volumes_are_pooled_as_defined),
        cmocka_unit_test(a_flat_volume_is_a_plane),
        cmocka_unit_test(what_was_pooled_goes_back_to_its_place),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
