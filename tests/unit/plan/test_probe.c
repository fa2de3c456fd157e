/* The arithmetic of probes; devices that answer them are in the integration and system tests. */
#include "plan/probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void the_rate_is_that_of_answers_after_the_first_quarter(void **state) {
    /* 1000 bytes each: the first three at once from a shaper's savings, then one every 80 us. */
    uint64_t answered_us[12] = {100, 101, 102};
    (void)state;
    for (size_t i = 3; i < 12; i++)
        answered_us[i] = answered_us[2] + 80 * (i - 2);
    assert_float_equal(probe_rate(answered_us, 12, 1000), 12.5, 1e-9);
}

static void a_rate_takes_two_answers_at_different_times(void **state) {
    const uint64_t same[4] = {5, 5, 5, 5}, one[1] = {5};
    (void)state;
    assert_float_equal(probe_rate(one, 1, 1000), 0, 0);
    assert_float_equal(probe_rate(same, 4, 1000), 0, 0);
    assert_float_equal(probe_rate(NULL, 0, 1000), 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rate_is_that_of_answers_after_the_first_quarter),
        cmocka_unit_test(a_rate_takes_two_answers_at_different_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
