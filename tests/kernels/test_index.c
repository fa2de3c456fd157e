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

static double combined(enum kn_scatter how, double a, double b) {
    switch (how) {
    case KN_SCATTER_ADD:
        return a + b;
    case KN_SCATTER_MUL:
        return a * b;
    case KN_SCATTER_MIN:
        return b < a ? b : a;
    case KN_SCATTER_MAX:
        return b > a ? b : a;
    default:
        return b;
    }
}

static void scatter_combines_block_after_block(void **state) {
    struct rng rng = {.state = 21};

    (void)state;
    for (int round = 0; round < 300; round++) {
        enum kn_scatter how = (enum kn_scatter)(round % KN_SCATTER_COUNT);
        int rows = rng_int(&rng, 1, 6), inner = rng_int(&rng, 1, 9), count = rng_int(&rng, 0, 9);
        size_t size = (size_t)(rows * inner), updates = (size_t)(count * inner);
        struct guarded y = guarded_new(size * 8), i32 = guarded_new(size * 4);
        struct guarded x = guarded_new(updates * 8), x32 = guarded_new(updates * 4);
        double want[64];
        int64_t places[16];
        for (size_t i = 0; i < size; i++) {
            want[i] = ((double *)y.data)[i] = rng_int(&rng, -4, 4);
            ((int32_t *)i32.data)[i] = (int32_t)want[i];
        }
        for (size_t i = 0; i < updates; i++) {
            ((double *)x.data)[i] = rng_int(&rng, -4, 4);
            ((int32_t *)x32.data)[i] = (int32_t)((double *)x.data)[i];
        }
        for (int i = 0; i < count; i++) {
            places[i] = rng_int(&rng, 0, rows - 1);
            for (int k = 0; k < inner; k++) {
                double *at = &want[places[i] * inner + k];
                *at = combined(how, *at, ((double *)x.data)[i * inner + k]);
            }
        }
        assert_int_equal(
            kn_scatter(how, KN_DOUBLE, (size_t)inner, places, (size_t)count, x.data, y.data), 0);
        assert_int_equal(
            kn_scatter(how, KN_INT32, (size_t)inner, places, (size_t)count, x32.data, i32.data), 0);
        for (size_t i = 0; i < size; i++) {
            assert_true(((double *)y.data)[i] == want[i]);
            assert_int_equal(((int32_t *)i32.data)[i], (int32_t)want[i]);
        }
        guarded_free(&y, "scatter");
        guarded_free(&i32, "scatter");
        guarded_free(&x, "updates");
        guarded_free(&x32, "updates");
    }
}

static void scatter_takes_any_type_where_it_only_copies(void **state) {
    const int64_t place = 1;
    bool y[2] = {false, false};
    const bool yes = true;

    (void)state;
    assert_int_equal(kn_scatter(KN_SCATTER_ADD, KN_BOOL, 1, &place, 1, &yes, y), -ENOTSUP);
    assert_int_equal(kn_scatter(KN_SCATTER_NONE, KN_BOOL, 1, &place, 1, &yes, y), 0);
    assert_true(!y[0] && y[1]);
}

static void scatter_lets_nan_win(void **state) {
    const int64_t places[] = {0, 0, 1};
    const float x[] = {NAN, 1, NAN};
    float y[] = {0, 0};

    (void)state;
    assert_int_equal(kn_scatter(KN_SCATTER_MAX, KN_FLOAT, 1, places, 3, x, y), 0);
    assert_true(isnan(y[0]) && isnan(y[1]));
    y[0] = y[1] = 0;
    assert_int_equal(kn_scatter(KN_SCATTER_MIN, KN_FLOAT, 1, places, 3, x, y), 0);
    assert_true(isnan(y[0]) && isnan(y[1]));
}

static void nonzero_finds_every_place_once(void **state) {
    static const enum kn_type types[] = {KN_FLOAT, KN_BOOL, KN_INT32, KN_INT64, KN_DOUBLE};
    struct rng rng = {.state = 22};

    (void)state;
    for (int round = 0; round < 200; round++) {
        struct kn_shape shape = {.rank = rng_int(&rng, 0, 4)};
        enum kn_type type = types[round % 5];
        size_t count = 1, found = 0, at = 0;
        int64_t one = 1;
        for (int i = 0; i < shape.rank; i++) {
            shape.dims[i] = rng_int(&rng, 1, 6);
            count *= (size_t)shape.dims[i];
        }
        struct guarded flags = guarded_new(count * 8), x = guarded_new(count * 8);
        for (size_t i = 0; i < count; i++) {
            ((int64_t *)flags.data)[i] = rng_chance(&rng, 40) ? one : 0;
            found += ((int64_t *)flags.data)[i] != 0;
        }
        kn_cast(KN_INT64, type, flags.data, x.data, count);
        assert_int_equal(kn_count_nonzero(type, count, x.data), found);
        struct guarded y = guarded_new((size_t)shape.rank * found * 8);
        kn_nonzero(type, &shape, x.data, found, y.data);
        for (size_t i = 0; i < count; i++) {
            size_t rest = i;
            for (int d = shape.rank; d-- > 0 && ((int64_t *)flags.data)[i];) {
                assert_int_equal(((int64_t *)y.data)[(size_t)d * found + at],
                                 rest % (size_t)shape.dims[d]);
                rest /= (size_t)shape.dims[d];
            }
            at += ((int64_t *)flags.data)[i] != 0;
        }
        guarded_free(&flags, "flags");
        guarded_free(&x, "x");
        guarded_free(&y, "places");
    }
}

static void gather_takes_blocks_of_every_size(void **state) {
    struct rng rng = {.state = 23};

    (void)state;
    for (int round = 0; round < 200; round++) {
        size_t size = (size_t)1 << rng_int(&rng, 0, 3), outer = (size_t)rng_int(&rng, 1, 3);
        size_t axis = (size_t)rng_int(&rng, 1, 5), inner = (size_t)rng_int(&rng, 1, 4);
        size_t count = (size_t)rng_int(&rng, 0, 7), block = inner * size;
        int64_t indices[8];
        struct guarded x = guarded_new(outer * axis * block);
        struct guarded y = guarded_new(outer * count * block);
        for (size_t i = 0; i < x.bytes; i++)
            ((uint8_t *)x.data)[i] = (uint8_t)rng_next(&rng);
        for (size_t i = 0; i < count; i++)
            indices[i] = rng_int(&rng, 0, (int)axis - 1);
        kn_gather(size, outer, axis, inner, indices, count, x.data, y.data);
        for (size_t i = 0; i < outer * count; i++)
            assert_memory_equal(
                (char *)y.data + i * block,
                (char *)x.data + (i / count * axis + (size_t)indices[i % count]) * block, block);
        guarded_free(&x, "x");
        guarded_free(&y, "gathered");
    }
}

static void sums_add_up_along_the_axis(void **state) {
    struct rng rng = {.state = 24};

    (void)state;
    for (int round = 0; round < 200; round++) {
        const struct kn_cumsum c = {.type = KN_INT64,
                                    .outer = (size_t)rng_int(&rng, 1, 3),
                                    .axis = (size_t)rng_int(&rng, 0, 6),
                                    .inner = (size_t)rng_int(&rng, 1, 4),
                                    .exclusive = rng_chance(&rng, 50),
                                    .reverse = rng_chance(&rng, 50)};
        size_t count = c.outer * c.axis * c.inner;
        struct guarded x = guarded_new(count * 8), y = guarded_new(count * 8);
        for (size_t i = 0; i < count; i++)
            ((int64_t *)x.data)[i] = rng_int(&rng, -9, 9);
        assert_int_equal(kn_cumsum(&c, x.data, y.data), 0);
        for (size_t i = 0; i < count; i++) {
            size_t at = i / c.inner % c.axis, line = i - at * c.inner;
            int64_t sum = 0;
            for (size_t k = 0; k < c.axis; k++)
                if (k == at ? !c.exclusive : (k < at) != c.reverse)
                    sum += ((int64_t *)x.data)[line + k * c.inner];
            assert_int_equal(((int64_t *)y.data)[i], sum);
        }
        guarded_free(&x, "x");
        guarded_free(&y, "sums");
    }
}

static void fill_writes_every_element(void **state) {
    (void)state;
    for (size_t size = 1; size <= 8; size *= 2)
        for (size_t count = 0; count < 70; count++) {
            struct guarded y = guarded_new(size * count);
            const uint8_t value[] = {1, 2, 3, 4, 5, 6, 7, 8};
            kn_fill(size, value, count, y.data);
            for (size_t i = 0; i < count; i++)
                assert_memory_equal((char *)y.data + i * size, value, size);
            guarded_free(&y, "filled");
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scatter_combines_block_after_block),
        cmocka_unit_test(scatter_takes_any_type_where_it_only_copies),
        cmocka_unit_test(scatter_lets_nan_win),
        cmocka_unit_test(nonzero_finds_every_place_once),
        cmocka_unit_test(gather_takes_blocks_of_every_size),
        cmocka_unit_test(sums_add_up_along_the_axis),
        cmocka_unit_test(fill_writes_every_element),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
