#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>

#include "kernels/vexp.h"

/* Distance of got from want in units of got's last place. */
static double units(float got, double want) {
    int exponent;

    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1.0, exponent > -125 ? exponent - 24 : -149);
}

static void exp_is_within_three_units_in_the_last_place(void **state) {
    double worst = 0.0;

    (void)state;
    for (float x = -87.3f; x < 88.7f; x += 0.000493f)
        worst = fmax(worst, units(kn_exp(x), exp((double)x)));
    assert_true(worst < 3.0);
    for (float x = -1e-3f; x < 1e-3f; x += 1e-7f)
        worst = fmax(worst, units(kn_exp(x), exp((double)x)));
    assert_true(worst < 3.0);
}

static void exp_underflows_gradually_and_overflows_to_infinity(void **state) {
    (void)state;
    for (float x = -103.0f; x < -87.3f; x += 0.00071f)
        assert_true(units(kn_exp(x), exp((double)x)) < 3.0);
    assert_true(kn_exp(-104.0f) == 0.0f && kn_exp(-INFINITY) == 0.0f && kn_exp(-FLT_MAX) == 0.0f);
    assert_true(isinf(kn_exp(89.0f)) && isinf(kn_exp(INFINITY)) && isinf(kn_exp(FLT_MAX)));
    assert_true(kn_exp(0.0f) == 1.0f && kn_exp(-0.0f) == 1.0f);
    assert_true(isnan(kn_exp(NAN)));
}

static void tanh_is_within_four_units_in_the_last_place(void **state) {
    double worst = 0.0;

    (void)state;
    for (float x = -12.0f; x < 12.0f; x += 0.0000731f)
        worst = fmax(worst, units(kn_tanh(x), tanh((double)x)));
    for (float x = 1e-30f; x < 1.0f; x *= 1.01f)
        worst = fmax(worst, units(kn_tanh(-x), tanh(-(double)x)));
    assert_true(worst < 4.0);
    assert_true(kn_tanh(INFINITY) == 1.0f && kn_tanh(-INFINITY) == -1.0f);
    assert_true(kn_tanh(0.0f) == 0.0f && signbit(kn_tanh(-0.0f)) && isnan(kn_tanh(NAN)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_three_units_in_the_last_place),
        cmocka_unit_test(exp_underflows_gradually_and_overflows_to_infinity),
        cmocka_unit_test(tanh_is_within_four_units_in_the_last_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
