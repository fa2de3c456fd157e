#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/lib/kn_check.h"

static float random_value(struct rng *rng) {
    static const float odd[] = {NAN, -NAN, INFINITY, -INFINITY};
    static const float edges[] = {0.0f, -0.0f, 3.4e38f, -3.4e38f, 1e-45f, -1e-45f};
    if (rng_chance(rng, 3))
        return odd[rng_int(rng, 0, 3)];
    if (rng_chance(rng, 3))
        return edges[rng_int(rng, 0, 5)];
    return 1000 * rng_float(rng);
}

static void every_length_has_the_references_range(void **state) {
    struct rng rng = {.state = 17};
    (void)state;
    for (int count = 0; count < 200; count++) {
        struct guarded x = guarded_new((size_t)count * sizeof(float));
        struct kn_range got, want;
        float *values = x.data;
        for (int i = 0; i < count; i++)
            values[i] = random_value(&rng);
        memset(&got, 0xff, sizeof(got));
        kn_find_range(values, (size_t)count, &got);
        kn_find_range_ref(values, (size_t)count, &want);
        assert_true(got.min == want.min && got.max == want.max);
        assert_int_equal(got.odd, want.odd);
        guarded_free(&x, "range");
    }
}

/* Wherever it stands, one is found. */
static void one_value_that_is_none_is_counted(void **state) {
    float x[77] = {0};
    (void)state;
    for (size_t i = 0; i < 77; i++) {
        struct kn_range range;
        x[i] = i % 2 ? NAN : -INFINITY;
        kn_find_range(x, 77, &range);
        assert_int_equal(range.odd, 1);
        assert_true(range.min == 0 && range.max == 0);
        x[i] = 0;
    }
}

static void values_that_are_all_none_have_an_empty_range(void **state) {
    float x[40];
    struct kn_range range;
    (void)state;
    for (size_t i = 0; i < 40; i++)
        x[i] = NAN;
    kn_find_range(x, 40, &range);
    assert_int_equal(range.odd, 40);
    assert_true(range.min > range.max);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_has_the_references_range),
        cmocka_unit_test(one_value_that_is_none_is_counted),
        cmocka_unit_test(values_that_are_all_none_have_an_empty_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
