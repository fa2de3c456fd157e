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

static double define(enum kn_unary op, double v) {
    switch (op) {
    case KN_ABS:
        return fabs(v);
    case KN_NEG:
        return -v;
    case KN_EXP:
        return exp(v);
    case KN_LOG:
        return log(v);
    case KN_SQRT:
        return sqrt(v);
    case KN_RECIPROCAL:
        return 1 / v;
    case KN_FLOOR:
        return floor(v);
    case KN_CEIL:
        return ceil(v);
    case KN_ROUND:
        return nearbyint(v);
    case KN_SIGN:
        return isnan(v) ? v : (double)((v > 0) - (v < 0));
    case KN_SIN:
        return sin(v);
    default:
        return cos(v);
    }
}

static void functions_of_floats_agree_with_their_definitions(void **state) {
    struct rng rng = {.state = 71};
    const struct tolerance tolerance = {.units = 2.0};

    (void)state;
    for (int op = 0; op < KN_UNARY_COUNT; op++) {
        float x[203], y[203], want[203];
        double dx[203], dy[203];
        char text[32];
        if (op == KN_NOT || op == KN_IS_NAN)
            continue;
        for (int i = 0; i < 203; i++) {
            dx[i] = x[i] = i == 0   ? NAN
                           : i == 1 ? INFINITY
                           : i == 2 ? -INFINITY
                           : i == 3 ? 0.0f
                                    : rng_float(&rng) * 30.0f;
            want[i] = (float)define((enum kn_unary)op, dx[i]);
        }
        snprintf(text, sizeof(text), "unary %d", op);
        assert_int_equal(kn_unary((enum kn_unary)op, KN_FLOAT, x, y, 203), 0);
        check_floats(y, want, 203, &tolerance, text);
        assert_int_equal(kn_unary((enum kn_unary)op, KN_FLOAT, x, x, 203), 0);
        check_bytes(x, y, sizeof(x), text);
        assert_int_equal(kn_unary((enum kn_unary)op, KN_DOUBLE, dx, dy, 203), 0);
        for (int i = 0; i < 203; i++)
            assert_true(dy[i] == define((enum kn_unary)op, dx[i]) || isnan(dy[i]));
    }
}

static void halves_round_to_even(void **state) {
    const float x[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0.49999997f, 2.3f};
    const float want[] = {0, 2, 2, -0.0f, -2, -2, 0, 2};
    float y[8];

    (void)state;
    assert_int_equal(kn_unary(KN_ROUND, KN_FLOAT, x, y, 8), 0);
    assert_memory_equal(y, want, sizeof(want));
}

static void functions_of_integers_wrap(void **state) {
    const int8_t x[] = {-128, -5, 0, 7}, abs_want[] = {-128, 5, 0, 7},
                 neg_want[] = {-128, 5, 0, -7};
    const int64_t wide[] = {INT64_MIN, 3}, sign_want[] = {-1, 1};
    int8_t y[4];
    int64_t z[2];

    (void)state;
    assert_int_equal(kn_unary(KN_ABS, KN_INT8, x, y, 4), 0);
    assert_memory_equal(y, abs_want, 4);
    assert_int_equal(kn_unary(KN_NEG, KN_INT8, x, y, 4), 0);
    assert_memory_equal(y, neg_want, 4);
    assert_int_equal(kn_unary(KN_SIGN, KN_INT64, wide, z, 2), 0);
    assert_memory_equal(z, sign_want, sizeof(z));
    assert_int_equal(kn_unary(KN_ABS, KN_INT64, wide, z, 2), 0);
    assert_true(z[0] == INT64_MIN);
}

static void truths_are_bytes_of_zero_and_one(void **state) {
    const float x[] = {NAN, 1, INFINITY};
    const uint8_t flags[] = {0, 1, 1};
    uint8_t y[3];

    (void)state;
    assert_int_equal(kn_unary(KN_IS_NAN, KN_FLOAT, x, y, 3), 0);
    assert_true(y[0] == 1 && y[1] == 0 && y[2] == 0);
    assert_int_equal(kn_unary(KN_NOT, KN_BOOL, flags, y, 3), 0);
    assert_true(y[0] == 1 && y[1] == 0 && y[2] == 0);
}

static void functions_that_a_type_does_not_have_are_refused(void **state) {
    double x = 0, y;

    (void)state;
    assert_int_equal(kn_unary(KN_EXP, KN_INT32, &x, &y, 1), -ENOTSUP);
    assert_int_equal(kn_unary(KN_NOT, KN_FLOAT, &x, &y, 1), -ENOTSUP);
    assert_int_equal(kn_unary(KN_NEG, KN_UINT8, &x, &y, 1), -ENOTSUP);
    assert_int_equal(kn_unary(KN_ABS, (enum kn_type)10, &x, &y, 1), -ENOTSUP);
    assert_int_equal(kn_unary(KN_UNARY_COUNT, KN_FLOAT, &x, &y, 1), -ENOTSUP);
}

static void casts_cut_towards_zero_and_saturate(void **state) {
    const float x[] = {2.9f, -2.9f, NAN, 1e30f, -1e30f, 300.0f, -0.5f};
    const int32_t want32[] = {2, -2, 0, INT32_MAX, INT32_MIN, 300, 0};
    const int64_t want64[] = {2, -2, 0, INT64_MAX, INT64_MIN, 300, 0};
    const int8_t want8[] = {2, -2, 0, 127, -128, 127, 0};
    const uint8_t want_u8[] = {2, 0, 0, 255, 0, 255, 0}, want_bool[] = {1, 1, 1, 1, 1, 1, 1};
    int32_t y32[7];
    int64_t y64[7];
    uint8_t y8[7];

    (void)state;
    assert_int_equal(kn_cast(KN_FLOAT, KN_INT32, x, y32, 7), 0);
    assert_memory_equal(y32, want32, sizeof(want32));
    assert_int_equal(kn_cast(KN_FLOAT, KN_INT64, x, y64, 7), 0);
    assert_memory_equal(y64, want64, sizeof(want64));
    assert_int_equal(kn_cast(KN_FLOAT, KN_INT8, x, y8, 7), 0);
    assert_memory_equal(y8, want8, sizeof(want8));
    assert_int_equal(kn_cast(KN_FLOAT, KN_UINT8, x, y8, 7), 0);
    assert_memory_equal(y8, want_u8, sizeof(want_u8));
    assert_int_equal(kn_cast(KN_FLOAT, KN_BOOL, x, y8, 7), 0);
    assert_memory_equal(y8, want_bool, sizeof(want_bool));
}

/* Doubles near the limits of int32, which float cannot tell apart. */
static void casts_of_doubles_are_exact_at_the_limits(void **state) {
    const double x[] = {2147483647.0, 2147483648.0, -2147483648.5, -2147483649.0, 2147483646.5};
    const int32_t want[] = {INT32_MAX, INT32_MAX, INT32_MIN, INT32_MIN, 2147483646};
    int32_t y[5];

    (void)state;
    assert_int_equal(kn_cast(KN_DOUBLE, KN_INT32, x, y, 5), 0);
    assert_memory_equal(y, want, sizeof(want));
}

static void every_pair_of_types_casts_small_numbers(void **state) {
    static const enum kn_type types[] = {KN_FLOAT, KN_DOUBLE, KN_INT8, KN_UINT8,
                                         KN_INT32, KN_INT64,  KN_BOOL};
    const float x[] = {0, 1, 1, 0, 1};
    double a[5], b[5];
    float y[5];

    (void)state;
    for (size_t i = 0; i < 7; i++)
        for (size_t j = 0; j < 7; j++) {
            assert_int_equal(kn_cast(KN_FLOAT, types[i], x, a, 5), 0);
            assert_int_equal(kn_cast(types[i], types[j], a, b, 5), 0);
            assert_int_equal(kn_cast(types[j], KN_FLOAT, b, y, 5), 0);
            assert_memory_equal(y, x, sizeof(x));
        }
    assert_int_equal(kn_cast(KN_FLOAT, (enum kn_type)16, x, y, 5), -ENOTSUP);
    assert_int_equal(kn_cast((enum kn_type)10, KN_FLOAT, x, y, 5), -ENOTSUP);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_of_floats_agree_with_their_definitions),
        cmocka_unit_test(halves_round_to_even),
        cmocka_unit_test(functions_of_integers_wrap),
        cmocka_unit_test(truths_are_bytes_of_zero_and_one),
        cmocka_unit_test(functions_that_a_type_does_not_have_are_refused),
        cmocka_unit_test(casts_cut_towards_zero_and_saturate),
        cmocka_unit_test(casts_of_doubles_are_exact_at_the_limits),
        cmocka_unit_test(every_pair_of_types_casts_small_numbers),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
