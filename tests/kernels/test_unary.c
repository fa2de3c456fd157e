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
    case KN_COS:
        return cos(v);
    case KN_TAN:
        return tan(v);
    case KN_ASIN:
        return asin(v);
    case KN_ACOS:
        return acos(v);
    case KN_ATAN:
        return atan(v);
    case KN_SINH:
        return sinh(v);
    case KN_COSH:
        return cosh(v);
    case KN_ASINH:
        return asinh(v);
    case KN_ACOSH:
        return acosh(v);
    default:
        return atanh(v);
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
        if (op == KN_NOT || op >= KN_IS_NAN)
            continue;
        for (int i = 0; i < 203; i++) {
            dx[i] = x[i] = i == 0   ? NAN
                           : i == 1 ? INFINITY
                           : i == 2 ? -INFINITY
                           : i == 3 ? 0.0f
                                    : rng_float(&rng) * (i % 2 ? 30.0f : 1.0f);
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
    assert_int_equal(kn_unary(KN_ABS, KN_FLOAT16, &x, &y, 1), -ENOTSUP);
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
    static const enum kn_type types[] = {KN_FLOAT,   KN_DOUBLE, KN_INT8,   KN_UINT8,
                                         KN_INT16,   KN_UINT16, KN_INT32,  KN_UINT32,
                                         KN_FLOAT16, KN_INT64,  KN_UINT64, KN_BOOL};
    const size_t count = sizeof(types) / sizeof(types[0]);
    const float x[] = {0, 1, 1, 0, 1};
    double a[5], b[5];
    float y[5];

    (void)state;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            assert_int_equal(kn_cast(KN_FLOAT, types[i], x, a, 5), 0);
            assert_int_equal(kn_cast(types[i], types[j], a, b, 5), 0);
            assert_int_equal(kn_cast(types[j], KN_FLOAT, b, y, 5), 0);
            assert_memory_equal(y, x, sizeof(x));
        }
    assert_int_equal(kn_cast(KN_FLOAT, (enum kn_type)16, x, y, 5), -ENOTSUP);
    assert_int_equal(kn_cast((enum kn_type)8, KN_FLOAT, x, y, 5), -ENOTSUP);
}

/* What the bits of a float16 stand for. */
static double half_value(uint16_t half) {
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double value = exponent == 31 ? (fraction ? (double)NAN : (double)INFINITY)
                   : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                  : ldexp(fraction, -24);

    return half & 0x8000 ? -value : value;
}

static void every_float16_widens_exactly_and_comes_back(void **state) {
    static uint16_t halves[65536], back[65536];
    static float y[65536];
    static double z[65536];

    (void)state;
    for (size_t i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    assert_int_equal(kn_cast(KN_FLOAT16, KN_FLOAT, halves, y, 65536), 0);
    assert_int_equal(kn_cast(KN_FLOAT16, KN_DOUBLE, halves, z, 65536), 0);
    assert_int_equal(kn_cast(KN_FLOAT, KN_FLOAT16, y, back, 65536), 0);
    for (size_t i = 0; i < 65536; i++) {
        double want = half_value((uint16_t)i);
        if (isnan(want)) {
            assert_true(isnan(y[i]) && isnan(z[i]));
            assert_int_equal(back[i], i | 0x200); /* quiet */
            continue;
        }
        assert_true((double)y[i] == want && !signbit(y[i]) == !signbit(want));
        assert_true(z[i] == want);
        assert_int_equal(back[i], i);
    }
}

/* Between two neighbours, at their middle, and right beside it: all that rounding can meet. */
static void numbers_round_to_the_nearest_float16_and_halves_to_even(void **state) {
    (void)state;
    for (unsigned i = 0; i < 0x7bff; i++) {
        double low = half_value((uint16_t)i), high = half_value((uint16_t)(i + 1));
        float middle = (float)((low + high) / 2);
        double near = nextafter((double)middle, -1.0), far = nextafter((double)middle, 1e9);
        const float x[] = {nextafterf(middle, -1.0f), middle, nextafterf(middle, 1e9f), -middle};
        const double z[] = {near, (double)middle, far, -far};
        unsigned even = i & 1 ? i + 1 : i;
        uint16_t y[4];
        kn_cast(KN_FLOAT, KN_FLOAT16, x, y, 4);
        assert_true(y[0] == i && y[1] == even && y[2] == i + 1 && y[3] == (even | 0x8000));
        kn_cast(KN_DOUBLE, KN_FLOAT16, z, y, 4);
        assert_true(y[0] == i && y[1] == even && y[2] == i + 1 && y[3] == ((i + 1) | 0x8000));
    }
}

static void what_float16_cannot_hold_is_infinite(void **state) {
    const float x[] = {65504.0f, 65519.996f, 65520.0f, 1e30f, -INFINITY, 1e-30f, -1e-30f};
    const uint16_t want[] = {0x7bff, 0x7bff, 0x7c00, 0x7c00, 0xfc00, 0, 0x8000};
    const int64_t integers[] = {65519, 65520, -1099511627776};
    const uint16_t want_integers[] = {0x7bff, 0x7c00, 0xfc00};
    uint16_t y[7];

    (void)state;
    kn_cast(KN_FLOAT, KN_FLOAT16, x, y, 7);
    assert_memory_equal(y, want, sizeof(want));
    kn_cast(KN_INT64, KN_FLOAT16, integers, y, 3);
    assert_memory_equal(y, want_integers, sizeof(want_integers));
}

static void casts_saturate_at_unsigned_and_sixteen_bit_limits(void **state) {
    const float x[] = {-1.0f, 40000.0f, 70000.0f, 5e9f, 1e20f, NAN};
    const uint16_t want_u16[] = {0, 40000, 65535, 65535, 65535, 0};
    const int16_t want_i16[] = {-1, 32767, 32767, 32767, 32767, 0};
    const uint32_t want_u32[] = {0, 40000, 70000, UINT32_MAX, UINT32_MAX, 0};
    const uint64_t want_u64[] = {0, 40000, 70000, 5000000000u, UINT64_MAX, 0};
    uint64_t y[6];

    (void)state;
    kn_cast(KN_FLOAT, KN_UINT16, x, y, 6);
    assert_memory_equal(y, want_u16, sizeof(want_u16));
    kn_cast(KN_FLOAT, KN_INT16, x, y, 6);
    assert_memory_equal(y, want_i16, sizeof(want_i16));
    kn_cast(KN_FLOAT, KN_UINT32, x, y, 6);
    assert_memory_equal(y, want_u32, sizeof(want_u32));
    kn_cast(KN_FLOAT, KN_UINT64, x, y, 6);
    assert_memory_equal(y, want_u64, sizeof(want_u64));
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
        cmocka_unit_test(every_float16_widens_exactly_and_comes_back),
        cmocka_unit_test(numbers_round_to_the_nearest_float16_and_halves_to_even),
        cmocka_unit_test(what_float16_cannot_hold_is_infinite),
        cmocka_unit_test(casts_saturate_at_unsigned_and_sixteen_bit_limits),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
