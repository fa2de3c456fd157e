#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

/* The definitions, in double. The limits at the infinities are the mathematical ones. */
static double sigmoid(double v) {
    return 1.0 / (1.0 + exp(-v));
}

static double clamp01(double v) {
    return v < 0.0 ? 0.0 : v > 1.0 ? 1.0 : v;
}

static double softplus(double v) {
    return v > 30.0 ? v + exp(-v) : log1p(exp(v));
}

static double define(const struct kn_activation *act, double v) {
    double a = (double)act->a, b = (double)act->b;

    switch (act->kind) {
    case KN_ACT_NONE:
    case KN_ACT_COUNT:
        return v;
    case KN_ACT_RELU:
        return v < 0 ? 0 : v;
    case KN_ACT_CLIP:
        v = v < a ? a : v;
        return v > b ? b : v;
    case KN_ACT_LEAKY_RELU:
        return v < 0 ? a * v : v;
    case KN_ACT_SIGMOID:
        return sigmoid(v);
    case KN_ACT_TANH:
        return tanh(v);
    case KN_ACT_HARD_SIGMOID:
        return clamp01(a * v + b);
    case KN_ACT_HARD_SWISH:
        return v == -INFINITY ? 0 : v * clamp01(v / 6 + 0.5);
    case KN_ACT_SILU:
        return v == -INFINITY ? 0 : v * sigmoid(v);
    case KN_ACT_ELU:
        return v < 0 ? a * expm1(v) : v;
    case KN_ACT_SELU:
        return b * (v < 0 ? a * expm1(v) : v);
    case KN_ACT_CELU:
        return v < 0 ? a * expm1(v / a) : v;
    case KN_ACT_SOFTPLUS:
        return softplus(v);
    case KN_ACT_SOFTSIGN:
        return isinf(v) ? copysign(1, v) : v / (1 + fabs(v));
    case KN_ACT_THRESHOLDED_RELU:
        return v > a ? v : 0;
    case KN_ACT_ERF:
        return erf(v);
    case KN_ACT_MISH:
        return v == -INFINITY ? 0 : v * tanh(softplus(v));
    case KN_ACT_GELU:
        return v == -INFINITY ? 0 : 0.5 * v * (1 + erf(v / sqrt(2.0)));
    case KN_ACT_GELU_TANH:
        return v == -INFINITY
                   ? 0
                   : 0.5 * v * (1 + tanh(0.79788456080286536 * (v + 0.044715 * v * v * v)));
    }
    return v;
}

static const struct kn_activation acts[] = {
    {KN_ACT_NONE, 0, 0},
    {KN_ACT_RELU, 0, 0},
    {KN_ACT_CLIP, 0.0f, 6.0f},
    {KN_ACT_CLIP, -INFINITY, 1.0f},
    {KN_ACT_CLIP, 2.0f, -1.0f},
    {KN_ACT_LEAKY_RELU, 0.01f, 0},
    {KN_ACT_SIGMOID, 0, 0},
    {KN_ACT_TANH, 0, 0},
    {KN_ACT_HARD_SIGMOID, 0.2f, 0.5f},
    {KN_ACT_HARD_SWISH, 0, 0},
    {KN_ACT_SILU, 0, 0},
    {KN_ACT_ELU, 1.5f, 0},
    {KN_ACT_SELU, 1.67326319f, 1.05070102f},
    {KN_ACT_CELU, 2.0f, 0},
    {KN_ACT_SOFTPLUS, 0, 0},
    {KN_ACT_SOFTSIGN, 0, 0},
    {KN_ACT_THRESHOLDED_RELU, 1.0f, 0},
    {KN_ACT_ERF, 0, 0},
    {KN_ACT_MISH, 0, 0},
    {KN_ACT_GELU, 0, 0},
    {KN_ACT_GELU_TANH, 0, 0},
};

#define ACTS (sizeof(acts) / sizeof(acts[0]))

static void check_level(const struct kn_activation *act, const struct guarded *x, size_t count,
                        int threads) {
    /* Gates are products of rounded factors around 1: least is their share of v. */
    const struct tolerance tolerance = {.units = 4.0, .least = 1.0};
    struct guarded y = guarded_new(count * sizeof(float));
    struct guarded want = guarded_new(count * sizeof(float));
    char text[64];

    snprintf(text, sizeof(text), "activation %d", (int)act->kind);
    for (size_t i = 0; i < count; i++)
        ((float *)want.data)[i] = (float)define(act, (double)((const float *)x->data)[i]);
    kn_activate(act, x->data, y.data, count, check_pool(threads));
    check_floats(y.data, want.data, count, &tolerance, text);
    memcpy(want.data, x->data, count * sizeof(float));
    kn_activate(act, want.data, want.data, count, check_pool(threads));
    check_bytes(want.data, y.data, count * sizeof(float), text);
    guarded_free(&y, text);
    guarded_free(&want, text);
}

/* On every instruction set. */
static void check_act(const struct kn_activation *act, const struct guarded *x, size_t count,
                      int threads) {
    for (int level = 0; level < kn_simd_count(); level++) {
        kn_simd_use(level);
        check_level(act, x, count, threads);
    }
}

static void activations_agree_with_their_definitions(void **state) {
    struct rng rng = {.state = 51};

    (void)state;
    for (size_t k = 0; k < ACTS; k++)
        for (int round = 0; round < 6; round++) {
            size_t count = round == 0 ? 40000 : (size_t)rng_int(&rng, 1, 100);
            struct guarded x = guarded_floats(&rng, count);
            for (size_t i = 0; i < count; i++)
                ((float *)x.data)[i] *= round % 2 ? 4.0f : 100.0f;
            check_act(&acts[k], &x, count, round % POOLS);
            guarded_free(&x, "x");
        }
}

static void activations_are_right_at_the_ends(void **state) {
    static const float ends[] = {INFINITY, -INFINITY, NAN,     0.0f,  -0.0f,  3e38f,
                                 -3e38f,   1e-40f,    -1e-40f, 88.8f, -88.8f, 104.0f,
                                 -104.0f,  3.0f,      -3.0f,   1.0f,  -1.0f};
    struct guarded x = guarded_new(sizeof(ends));

    (void)state;
    memcpy(x.data, ends, sizeof(ends));
    for (size_t k = 0; k < ACTS; k++)
        check_act(&acts[k], &x, sizeof(ends) / sizeof(ends[0]), 0);
    guarded_free(&x, "x");
}

/* The worst distance from want, in units of the last place, of the values that got has of x. */
static double worst_units(const struct kn_activation *act, const float *x, size_t count) {
    double worst = 0.0;
    struct guarded y = guarded_new(count * sizeof(float));

    kn_activate(act, x, y.data, count, NULL);
    for (size_t i = 0; i < count; i++) {
        int exponent;
        double want = define(act, (double)x[i]);
        frexp(want, &exponent);
        worst = fmax(worst, fabs((double)((const float *)y.data)[i] - want) /
                                ldexp(1.0, exponent > -125 ? exponent - 24 : -149));
    }
    guarded_free(&y, "y");
    return worst;
}

#define STEPS 20000

static void tanh_and_erf_are_within_four_units_in_the_last_place(void **state) {
    static const struct kn_activation odd[] = {{KN_ACT_TANH, 0, 0}, {KN_ACT_ERF, 0, 0}};
    float x[STEPS], zeros[2] = {0.0f, -0.0f};

    (void)state;
    for (int level = 0; level < kn_simd_count(); level++)
        for (size_t k = 0; k < sizeof(odd) / sizeof(odd[0]); k++) {
            kn_simd_use(level);
            for (int i = 0; i < STEPS; i++)
                x[i] = 12.0f * (2.0f * (float)i / STEPS - 1.0f);
            assert_true(worst_units(&odd[k], x, STEPS) < 4.0);
            for (int i = 0; i < STEPS; i++)
                x[i] = ldexpf(1.0f + (float)(i % 100) / 100.0f, i / 100 - 100);
            assert_true(worst_units(&odd[k], x, STEPS / 2) < 4.0);
            kn_activate(&odd[k], zeros, x, 2, NULL);
            assert_true(x[0] == 0.0f && x[1] == 0.0f && signbit(x[1]));
        }
}

/* exp() is cut off where floats end: nothing may be left of it, nor of the gate. */
static void gates_are_open_or_shut_where_floats_end(void **state) {
    static const float x[] = {-INFINITY, -FLT_MAX, -200.0f, -89.0f, 89.0f, FLT_MAX, INFINITY};
    static const struct kn_activation sigmoid = {KN_ACT_SIGMOID, 0, 0}, silu = {KN_ACT_SILU, 0, 0};
    enum { COUNT = sizeof(x) / sizeof(x[0]) };
    float y[COUNT], padded[COUNT + KN_TAIL / sizeof(float)] = {0};

    (void)state;
    memcpy(padded, x, sizeof(x));
    for (int level = 0; level < kn_simd_count(); level++) {
        kn_simd_use(level);
        kn_activate(&sigmoid, padded, y, COUNT, NULL);
        for (int i = 0; i < COUNT; i++)
            assert_true(y[i] >= 0.0f && fabsf(y[i] - (x[i] > 0)) < FLT_MIN);
        kn_activate(&silu, padded, y, COUNT, NULL);
        for (int i = 0; i < COUNT; i++)
            assert_true(x[i] > 0 ? y[i] == x[i] : fabsf(y[i]) < 1e-34f);
        assert_true(y[0] == 0.0f && y[1] == 0.0f);
    }
}

static void small_gates_keep_their_digits(void **state) {
    static const struct kn_activation sigmoid = {KN_ACT_SIGMOID, 0, 0};
    float x[STEPS];

    (void)state;
    for (int i = 0; i < STEPS; i++)
        x[i] = -80.0f * (float)i / STEPS;
    for (int level = 0; level < kn_simd_count(); level++) {
        kn_simd_use(level);
        assert_true(worst_units(&sigmoid, x, STEPS / 8) < 16.0);
        assert_true(worst_units(&sigmoid, x, STEPS) < 64.0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_agree_with_their_definitions),
        cmocka_unit_test(activations_are_right_at_the_ends),
        cmocka_unit_test(gates_are_open_or_shut_where_floats_end),
        cmocka_unit_test(small_gates_keep_their_digits),
        cmocka_unit_test(tanh_and_erf_are_within_four_units_in_the_last_place),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
