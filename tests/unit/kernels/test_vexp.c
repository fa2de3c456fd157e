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

typedef float (*float_fn)(float x);
typedef double (*double_fn)(double x);

/* The worst of steps points from lo to hi. */
static double worst_units(float_fn fn, double_fn want, double lo, double hi, int steps) {
    double worst = 0.0;

    for (int i = 0; i <= steps; i++) {
        float x = (float)(lo + (hi - lo) * i / steps);
        worst = fmax(worst, units(fn(x), want((double)x)));
    }
    return worst;
}

static void exp_is_within_three_units_in_the_last_place(void **state) {
    (void)state;
    assert_true(worst_units(kn_exp, exp, -87.3, 88.7, 400000) < 3.0);
    assert_true(worst_units(kn_exp, exp, -1e-3, 1e-3, 20000) < 3.0);
}

static void exp_underflows_gradually_and_overflows_to_infinity(void **state) {
    (void)state;
    assert_true(worst_units(kn_exp, exp, -103.0, -87.3, 20000) < 3.0);
    assert_true(kn_exp(-104.0f) == 0.0f && kn_exp(-INFINITY) == 0.0f && kn_exp(-FLT_MAX) == 0.0f);
    assert_true(isinf(kn_exp(89.0f)) && isinf(kn_exp(INFINITY)) && isinf(kn_exp(FLT_MAX)));
    assert_true(kn_exp(0.0f) == 1.0f && kn_exp(-0.0f) == 1.0f);
    assert_true(isnan(kn_exp(NAN)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_three_units_in_the_last_place),
        cmocka_unit_test(exp_underflows_gradually_and_overflows_to_infinity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
