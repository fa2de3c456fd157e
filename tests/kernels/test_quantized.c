/* Quantised arithmetic is exact: every level, every number of threads gives the reference's bytes.
 */
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
#include "kernels/quantized.h"
#include "tests/lib/kn_check.h"

static struct guarded random_bytes(struct rng *rng, size_t count) {
    struct guarded buffer = guarded_new(count);

    for (size_t i = 0; i < count; i++)
        ((uint8_t *)buffer.data)[i] = (uint8_t)rng_next(rng);
    return buffer;
}

static enum kn_type random_byte_type(struct rng *rng) {
    return rng_chance(rng, 50) ? KN_UINT8 : KN_INT8;
}

static size_t type_size(enum kn_type type) {
    return type == KN_INT32 ? 4 : type == KN_UINT16 || type == KN_INT16 ? 2 : 1;
}

/* ---- QuantizeLinear and DequantizeLinear */

static struct kn_scaling random_scaling(struct rng *rng, size_t *ret_count, size_t *ret_scales) {
    struct kn_scaling s = {.outer = (size_t)rng_int(rng, 1, 4),
                           .axis = (size_t)rng_int(rng, 1, 9),
                           .inner = (size_t)rng_int(rng, 1, 40),
                           .block = 1};
    size_t blocks;

    if (rng_chance(rng, 30))
        s.inner = 1;
    if (rng_chance(rng, 1))
        s.inner = 70001; /* cut into tasks */
    switch (rng_int(rng, 0, 2)) {
    case 0: /* one for all */
        s.inner *= s.axis * s.outer;
        s.axis = s.outer = 1;
        *ret_scales = 1;
        break;
    case 1: /* one per channel */
        s.axis_step = 1;
        *ret_scales = s.axis;
        break;
    default: /* blocks along the axis */
        s.block = (size_t)rng_int(rng, 1, 4);
        blocks = (s.axis + s.block - 1) / s.block;
        s.outer_step = blocks * s.inner;
        s.axis_step = s.inner;
        s.inner_step = 1;
        *ret_scales = s.outer * blocks * s.inner;
    }
    *ret_count = s.outer * s.axis * s.inner;
    return s;
}

static void quantizing_agrees_with_its_definition(void **state) {
    static const enum kn_type types[] = {KN_UINT8, KN_INT8, KN_UINT16, KN_INT16};
    struct rng rng = {.state = 501};

    (void)state;
    for (int i = 0; i < 2000; i++) {
        enum kn_type type = types[i % 4];
        size_t count, scales;
        struct kn_scaling s = random_scaling(&rng, &count, &scales);
        struct guarded x = guarded_floats(&rng, count), scale = guarded_floats(&rng, scales);
        struct guarded zero = random_bytes(&rng, scales * type_size(type));
        struct guarded y = guarded_new(count * type_size(type)), want = guarded_new(y.bytes);
        bool with_zero = rng_chance(&rng, 80);
        for (size_t k = 0; k < scales; k++)
            ((float *)scale.data)[k] = ldexpf(0.1f + fabsf(((float *)scale.data)[k]), -5);
        for (size_t k = 0; k < count; k++) /* also halves, and much too large */
            ((float *)x.data)[k] *= rng_chance(&rng, 10)   ? 1e30f
                                    : rng_chance(&rng, 50) ? 8.0f
                                                           : 1.0f;
        kn_quantize_ref(&s, type, x.data, scale.data, with_zero ? zero.data : NULL, want.data);
        assert_int_equal(kn_quantize(&s, type, x.data, scale.data, with_zero ? zero.data : NULL,
                                     y.data, check_pool(i % POOLS)),
                         0);
        check_bytes(y.data, want.data, y.bytes, "quantize");
        guarded_free(&x, "quantize");
        guarded_free(&scale, "quantize");
        guarded_free(&zero, "quantize");
        guarded_free(&y, "quantize");
        guarded_free(&want, "quantize");
    }
}

static void dequantizing_agrees_with_its_definition(void **state) {
    static const enum kn_type types[] = {KN_UINT8, KN_INT8, KN_UINT16, KN_INT16, KN_INT32};
    struct rng rng = {.state = 502};

    (void)state;
    for (int i = 0; i < 2000; i++) {
        enum kn_type type = types[i % 5];
        size_t count, scales;
        struct kn_scaling s = random_scaling(&rng, &count, &scales);
        struct guarded x = random_bytes(&rng, count * type_size(type));
        struct guarded scale = guarded_floats(&rng, scales);
        struct guarded zero = random_bytes(&rng, scales * type_size(type));
        struct guarded y = guarded_new(count * sizeof(float)), want = guarded_new(y.bytes);
        bool with_zero = rng_chance(&rng, 80);
        kn_dequantize_ref(&s, type, x.data, scale.data, with_zero ? zero.data : NULL, want.data);
        assert_int_equal(kn_dequantize(&s, type, x.data, scale.data, with_zero ? zero.data : NULL,
                                       y.data, check_pool(i % POOLS)),
                         0);
        check_bytes(y.data, want.data, y.bytes, "dequantize");
        guarded_free(&x, "dequantize");
        guarded_free(&scale, "dequantize");
        guarded_free(&zero, "dequantize");
        guarded_free(&y, "dequantize");
        guarded_free(&want, "dequantize");
    }
}

static void halves_round_to_even_and_the_rest_saturates(void **state) {
    const struct kn_scaling all = {.outer = 1, .axis = 1, .inner = 9, .block = 1};
    const float x[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 1000.0f, -1000.0f, INFINITY, NAN};
    const float one = 1.0f;
    const uint8_t zero = 128, want[] = {128, 130, 130, 128, 126, 255, 0, 255, 0};
    uint8_t y[9];

    (void)state;
    assert_int_equal(kn_quantize(&all, KN_UINT8, x, &one, &zero, y, NULL), 0);
    assert_memory_equal(y, want, sizeof(want));
}

static void types_that_cannot_be_quantised_are_refused(void **state) {
    const struct kn_scaling all = {.outer = 1, .axis = 1, .inner = 1, .block = 1};
    float x = 1.0f;
    double y;

    (void)state;
    assert_int_equal(kn_quantize(&all, KN_INT32, &x, &x, NULL, &y, NULL), -ENOTSUP);
    assert_int_equal(kn_quantize(&all, KN_BOOL, &x, &x, NULL, &y, NULL), -ENOTSUP);
    assert_int_equal(kn_dequantize(&all, KN_INT64, &y, &x, NULL, &x, NULL), -ENOTSUP);
}

/* ONNX's tests dynamicquantizelinear, _max_adjusted, _min_adjusted; and all zeros. */
static void the_range_of_numbers_reaches_zero(void **state) {
    const float x[] = {0, 2, -3, -2.5f, 1.34f, 0.5f};
    const float below[] = {-1.0f, -2.1f, -1.3f, -2.5f, -3.34f, -4.0f};
    const float above[] = {1, 2.1f, 1.3f, 2.5f, 3.34f, 4.0f, 1.5f, 2.6f, 3.9f, 4.0f, 3.0f, 2.345f};
    const float zeros[] = {0, 0};
    float scale;
    uint8_t zero;

    (void)state;
    kn_quantize_range(x, 6, &scale, &zero);
    assert_true(scale == 5.0f / 255.0f && zero == 153);
    kn_quantize_range(below, 6, &scale, &zero);
    assert_true(scale == 4.0f / 255.0f && zero == 255);
    kn_quantize_range(above, 12, &scale, &zero);
    assert_true(scale == 4.0f / 255.0f && zero == 0);
    kn_quantize_range(zeros, 2, &scale, &zero);
    assert_true(scale == 1.0f && zero == 0);
}

/* ---- convolution */

static struct kn_qconv random_conv(struct rng *rng) {
    int group = rng_chance(rng, 60) ? 1 : rng_int(rng, 2, 4);
    bool depthwise = rng_chance(rng, 25), pointwise = rng_chance(rng, 25);
    struct kn_conv c = {.n = rng_int(rng, 1, 2),
                        .ih = rng_int(rng, 1, 14),
                        .iw = rng_int(rng, 1, 40),
                        .kh = pointwise ? 1 : rng_int(rng, 1, 4),
                        .kw = pointwise ? 1 : rng_int(rng, 1, 4),
                        .stride_h = pointwise ? 1 : rng_int(rng, 1, 3),
                        .stride_w = pointwise ? 1 : rng_int(rng, 1, 3),
                        .dil_h = rng_chance(rng, 70) ? 1 : rng_int(rng, 2, 3),
                        .dil_w = rng_chance(rng, 70) ? 1 : rng_int(rng, 2, 3),
                        .pad_top = pointwise ? 0 : rng_int(rng, 0, 3),
                        .pad_left = pointwise ? 0 : rng_int(rng, 0, 3),
                        .group = group};

    c.ic = group * rng_int(rng, 1, 12);
    c.oc = group * rng_int(rng, 1, 20);
    if (depthwise)
        c.group = c.oc = c.ic = rng_int(rng, 1, 70);
    c.oh = rng_int(rng, 1, 12);
    c.ow = pointwise ? c.iw : rng_int(rng, 1, 45);
    if (pointwise)
        c.oh = c.ih;
    return (struct kn_qconv){.conv = c,
                             .x_type = random_byte_type(rng),
                             .w_type = random_byte_type(rng),
                             .y_type = rng_chance(rng, 30) ? KN_INT32 : random_byte_type(rng)};
}

/* Random numbers for a convolution, some of them absent. */
struct conv_case {
    struct guarded w, zeros, w_scale, bias, x;
    float x_scale, y_scale;
    struct kn_qconv_numbers numbers;
};

static void conv_case_init(struct conv_case *t, struct rng *rng, const struct kn_qconv *q) {
    const struct kn_conv *c = &q->conv;
    size_t oc = (size_t)c->oc;

    t->w = random_bytes(rng, oc * (size_t)(c->ic / c->group * c->kh * c->kw));
    t->x = random_bytes(rng, (size_t)c->n * (size_t)c->ic * (size_t)c->ih * (size_t)c->iw);
    t->zeros = random_bytes(rng, oc + 2);
    t->bias = random_bytes(rng, oc * sizeof(int32_t));
    for (size_t i = 0; i < oc; i++)
        ((int32_t *)t->bias.data)[i] /= 1 << 16;
    t->w_scale = guarded_floats(rng, oc);
    for (size_t i = 0; i < oc; i++)
        ((float *)t->w_scale.data)[i] = 0.01f + fabsf(((float *)t->w_scale.data)[i]);
    t->x_scale = 0.0131f;
    t->y_scale = 3.7f;
    const char *zeros = t->zeros.data;
    t->numbers = (struct kn_qconv_numbers){.w = t->w.data,
                                           .x_zero = rng_chance(rng, 80) ? zeros + oc : NULL,
                                           .y_zero = rng_chance(rng, 80) ? zeros + oc + 1 : NULL,
                                           .w_zero = rng_chance(rng, 80) ? zeros : NULL,
                                           .w_zero_step = rng_chance(rng, 50),
                                           .x_scale = &t->x_scale,
                                           .w_scale = t->w_scale.data,
                                           .y_scale = &t->y_scale,
                                           .w_scale_step = rng_chance(rng, 50),
                                           .bias = rng_chance(rng, 60) ? t->bias.data : NULL};
}

static void conv_case_fini(struct conv_case *t, const char *text) {
    guarded_free(&t->w, text);
    guarded_free(&t->x, text);
    guarded_free(&t->zeros, text);
    guarded_free(&t->w_scale, text);
    guarded_free(&t->bias, text);
}

static void check_conv(struct rng *rng, const struct kn_qconv *q) {
    const struct kn_conv *c = &q->conv;
    size_t y_bytes =
        (size_t)c->n * (size_t)c->oc * (size_t)c->oh * (size_t)c->ow * type_size(q->y_type);
    struct guarded want = guarded_new(y_bytes);
    struct conv_case t;
    char text[192];

    snprintf(
        text, sizeof(text),
        "qconv n %d ic %d %dx%d oc %d %dx%d k %dx%d s %dx%d d %dx%d p %d,%d g %d types %d %d %d",
        c->n, c->ic, c->ih, c->iw, c->oc, c->oh, c->ow, c->kh, c->kw, c->stride_h, c->stride_w,
        c->dil_h, c->dil_w, c->pad_top, c->pad_left, c->group, (int)q->x_type, (int)q->w_type,
        (int)q->y_type);
    conv_case_init(&t, rng, q);
    kn_qconv_ref(q, &t.numbers, t.x.data, want.data);
    for (int level = 0; level < kn_simd_count(); level++)
        for (int i = 0; i < POOLS; i++) {
            struct kn_qconv_plan plan;
            kn_simd_use(level);
            assert_int_equal(kn_qconv_plan(q, i + 1, &plan), 0);
            struct guarded packed = guarded_new(plan.packed_bytes);
            struct guarded workspace = guarded_new(plan.workspace_bytes);
            struct guarded y = guarded_new(y_bytes);
            kn_qconv_pack(&plan, &t.numbers, packed.data);
            kn_qconv_run(&plan, packed.data, t.x.data, y.data, workspace.data, check_pool(i));
            check_bytes(y.data, want.data, y_bytes, text);
            guarded_free(&packed, text);
            guarded_free(&workspace, text);
            guarded_free(&y, text);
        }
    conv_case_fini(&t, text);
    guarded_free(&want, text);
}

static void convolutions_are_exact_at_every_level(void **state) {
    struct rng rng = {.state = 511};

    (void)state;
    for (int i = 0; i < 500; i++) {
        struct kn_qconv q = random_conv(&rng);
        check_conv(&rng, &q);
    }
}

/* Weights that are all as small as they can be, far from their zero point, and deep sums. */
static void deep_sums_wrap_as_32_bits_do(void **state) {
    const struct kn_qconv q = {.conv = {.n = 1,
                                        .ic = 4099,
                                        .ih = 3,
                                        .iw = 3,
                                        .oc = 5,
                                        .oh = 1,
                                        .ow = 1,
                                        .kh = 3,
                                        .kw = 3,
                                        .stride_h = 1,
                                        .stride_w = 1,
                                        .dil_h = 1,
                                        .dil_w = 1,
                                        .group = 1},
                               .x_type = KN_UINT8,
                               .w_type = KN_UINT8,
                               .y_type = KN_INT32};
    const uint8_t zero = 255;
    size_t depth = 4099 * 9;
    struct kn_qconv_plan plan;
    uint8_t *x = calloc(depth, 1), *w = calloc(depth, 5);
    const struct kn_qconv_numbers numbers = {.w = w, .x_zero = &zero, .w_zero = &zero};
    int32_t y[5], want = (int32_t)(uint32_t)(depth * 255 * 255);

    (void)state;
    assert_int_equal(kn_qconv_plan(&q, 1, &plan), 0);
    void *packed = aligned_alloc(KN_ALIGN, plan.packed_bytes);
    void *workspace = aligned_alloc(KN_ALIGN, plan.workspace_bytes);
    assert_true(x && w && packed && workspace);
    for (int level = 0; level < kn_simd_count(); level++) {
        kn_simd_use(level);
        kn_qconv_pack(&plan, &numbers, packed);
        kn_qconv_run(&plan, packed, x, y, workspace, NULL);
        for (int i = 0; i < 5; i++)
            assert_int_equal(y[i], want);
    }
    free(x);
    free(w);
    free(packed);
    free(workspace);
}

static void impossible_convolutions_are_refused(void **state) {
    struct rng rng = {.state = 512};
    struct kn_qconv q = random_conv(&rng);
    struct kn_qconv_plan plan;

    (void)state;
    q.x_type = KN_INT16;
    assert_int_equal(kn_qconv_plan(&q, 1, &plan), -EINVAL);
    q.x_type = KN_INT8;
    q.y_type = KN_FLOAT;
    assert_int_equal(kn_qconv_plan(&q, 1, &plan), -EINVAL);
    q.y_type = KN_INT8;
    q.conv.kh = 0;
    assert_int_equal(kn_qconv_plan(&q, 1, &plan), -EINVAL);
}

/* ---- matrix products */

static int32_t byte_at(enum kn_type type, const void *x, size_t i) {
    return type == KN_UINT8 ? ((const uint8_t *)x)[i] : ((const int8_t *)x)[i];
}

/* Naive: a [m][k], b [k][n]. */
static int32_t define_sum(const struct kn_widen *a, const struct kn_widen *b, size_t i, size_t j) {
    int32_t sum = 0;

    for (size_t k = 0; k < a->k; k++)
        sum += (byte_at(a->type, a->x, i * a->row_step + k * a->step) -
                byte_at(a->type, a->zero, i * a->zero_step)) *
               (byte_at(b->type, b->x, j * b->row_step + k * b->step) -
                byte_at(b->type, b->zero, j * b->zero_step));
    return sum;
}

static void check_matmul(struct rng *rng, size_t m, size_t n, size_t k) {
    struct guarded a = random_bytes(rng, m * k), b = random_bytes(rng, k * n);
    struct guarded a_zero = random_bytes(rng, m), b_zero = random_bytes(rng, n);
    struct guarded a_scale = guarded_floats(rng, m), b_scale = guarded_floats(rng, n);
    const struct kn_widen rows = {
        random_byte_type(rng), a.data, a_zero.data, rng_chance(rng, 50), m, k, k, 1};
    const struct kn_widen columns = {
        random_byte_type(rng), b.data, b_zero.data, rng_chance(rng, 50), n, k, 1, n};
    struct kn_qmatmul q = {.m = (int)m,
                           .n = (int)n,
                           .k = (int)k,
                           .y_type = rng_chance(rng, 50) ? KN_INT32 : random_byte_type(rng),
                           .a_scale = a_scale.data,
                           .b_scale = b_scale.data,
                           .a_step = rng_chance(rng, 50),
                           .b_step = rng_chance(rng, 50),
                           .y_scale = 77.0f,
                           .y_zero = 11};
    struct guarded wide_a = guarded_new(m * kn_qdepth(k) * 2);
    struct guarded wide_b = guarded_new(n * kn_qdepth(k) * 2);
    size_t bytes = m * n * type_size(q.y_type);

    kn_qwiden(&rows, wide_a.data);
    kn_qwiden(&columns, wide_b.data);
    for (int i = 0; i < POOLS * kn_simd_count(); i++) {
        struct guarded y = guarded_new(bytes);
        kn_simd_use(i / POOLS);
        kn_qmatmul(&q, wide_a.data, wide_b.data, y.data, check_pool(i % POOLS));
        for (size_t e = 0; e < m * n; e++) {
            int32_t sum = define_sum(&rows, &columns, e / n, e % n);
            if (q.y_type == KN_INT32) {
                assert_int_equal(((int32_t *)y.data)[e], sum);
                continue;
            }
            float scale = ((float *)a_scale.data)[e / n * q.a_step] *
                          ((float *)b_scale.data)[e % n * q.b_step] / q.y_scale;
            double low = q.y_type == KN_UINT8 ? 0 : -128, high = low + 255;
            double want = fmin(fmax(rint((double)((float)sum * scale)) + 11, low), high);
            assert_int_equal(byte_at(q.y_type, y.data, e), (int)want);
        }
        guarded_free(&y, "qmatmul");
    }
    guarded_free(&a, "qmatmul");
    guarded_free(&b, "qmatmul");
    guarded_free(&a_zero, "qmatmul");
    guarded_free(&b_zero, "qmatmul");
    guarded_free(&a_scale, "qmatmul");
    guarded_free(&b_scale, "qmatmul");
    guarded_free(&wide_a, "qmatmul");
    guarded_free(&wide_b, "qmatmul");
}

static void matrix_products_are_exact_at_every_level(void **state) {
    struct rng rng = {.state = 521};

    (void)state;
    for (int i = 0; i < 200; i++)
        check_matmul(&rng, (size_t)rng_int(&rng, 1, 20), (size_t)rng_int(&rng, 1, 20),
                     (size_t)rng_int(&rng, 1, 100));
    check_matmul(&rng, 67, 259, 33);
    check_matmul(&rng, 1, 300, 64);
    check_matmul(&rng, 130, 1, 65);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantizing_agrees_with_its_definition),
        cmocka_unit_test(dequantizing_agrees_with_its_definition),
        cmocka_unit_test(halves_round_to_even_and_the_rest_saturates),
        cmocka_unit_test(types_that_cannot_be_quantised_are_refused),
        cmocka_unit_test(the_range_of_numbers_reaches_zero),
        cmocka_unit_test(convolutions_are_exact_at_every_level),
        cmocka_unit_test(deep_sums_wrap_as_32_bits_do),
        cmocka_unit_test(impossible_convolutions_are_refused),
        cmocka_unit_test(matrix_products_are_exact_at_every_level),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
