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

/* What one output has seen, in whatever order. */
struct seen {
    double sum, abs, square, exp, max, min, prod, count;
};

static double result(enum kn_reduce op, const struct seen *s) {
    switch (op) {
    case KN_REDUCE_SUM:
        return s->sum;
    case KN_REDUCE_MEAN:
        return s->sum / s->count;
    case KN_REDUCE_MAX:
        return s->max;
    case KN_REDUCE_MIN:
        return s->min;
    case KN_REDUCE_PROD:
        return s->prod;
    case KN_REDUCE_L1:
        return s->abs;
    case KN_REDUCE_L2:
        return sqrt(s->square);
    case KN_REDUCE_LOG_SUM:
        return log(s->sum);
    case KN_REDUCE_LOG_SUM_EXP:
        return log(s->exp);
    default:
        return s->square;
    }
}

static void see(struct seen *s, double v) {
    s->sum += v;
    s->abs += fabs(v);
    s->square += v * v;
    s->exp += exp(v);
    s->max = s->count == 0 || v > s->max ? v : s->max;
    s->min = s->count == 0 || v < s->min ? v : s->min;
    s->prod *= v;
    s->count++;
}

struct problem {
    struct kn_shape shape;
    bool reduced[KN_MAX_RANK];
    size_t count, outputs;
};

static struct problem random_problem(struct rng *rng) {
    struct problem p = {.count = 1, .outputs = 1};
    int most = rng_chance(rng, 10) ? 40 : 7;

    p.shape.rank = rng_int(rng, 0, most > 7 ? 3 : 5);
    for (int i = 0; i < p.shape.rank; i++) {
        p.shape.dims[i] = rng_int(rng, 1, most);
        p.reduced[i] = rng_chance(rng, 50);
        p.count *= (size_t)p.shape.dims[i];
        p.outputs *= p.reduced[i] ? 1 : (size_t)p.shape.dims[i];
    }
    return p;
}

static size_t output_of(const struct problem *p, size_t flat) {
    size_t out = 0, stride = 1;

    for (int i = p->shape.rank; i-- > 0;) {
        if (!p->reduced[i]) {
            out += flat % (size_t)p->shape.dims[i] * stride;
            stride *= (size_t)p->shape.dims[i];
        }
        flat /= (size_t)p->shape.dims[i];
    }
    return out;
}

static struct seen *see_all(const struct problem *p, const double *x) {
    struct seen *seen = test_calloc(p->outputs, sizeof(*seen));

    for (size_t i = 0; i < p->outputs; i++)
        seen[i].prod = 1.0;
    for (size_t i = 0; i < p->count; i++)
        see(&seen[output_of(p, i)], x[i]);
    return seen;
}

static void check_reduce(struct rng *rng, enum kn_reduce op) {
    struct problem p = random_problem(rng);
    const struct tolerance tolerance = {.units = 4.0, .least = 1.0};
    struct guarded x = guarded_floats(rng, p.count);
    struct guarded y = guarded_new(p.outputs * sizeof(float));
    struct guarded want = guarded_new(p.outputs * sizeof(float));
    double *wide = test_malloc(p.count * sizeof(double));
    char text[64];

    snprintf(text, sizeof(text), "reduce %d of %zu to %zu", (int)op, p.count, p.outputs);
    for (size_t i = 0; i < p.count; i++) {
        if (op == KN_REDUCE_LOG_SUM)
            ((float *)x.data)[i] = fabsf(((float *)x.data)[i]) + 0.5f;
        wide[i] = (double)((float *)x.data)[i];
    }
    struct seen *seen = see_all(&p, wide);
    for (size_t i = 0; i < p.outputs; i++)
        ((float *)want.data)[i] = (float)result(op, &seen[i]);
    assert_int_equal(kn_reduce(op, KN_FLOAT, &p.shape, p.reduced, x.data, y.data), 0);
    check_floats(y.data, want.data, p.outputs, &tolerance, text);
    struct guarded wide_y = guarded_new(p.outputs * sizeof(double));
    assert_int_equal(kn_reduce(op, KN_DOUBLE, &p.shape, p.reduced, wide, wide_y.data), 0);
    for (size_t i = 0; i < p.outputs; i++) {
        double r = result(op, &seen[i]), d = ((double *)wide_y.data)[i] - r;
        if (!(fabs(d) <= 1e-12 * (1.0 + fabs(r))))
            fail_msg("%s: double %zu", text, i);
    }
    guarded_free(&wide_y, text);
    test_free(seen);
    test_free(wide);
    guarded_free(&x, text);
    guarded_free(&y, text);
    guarded_free(&want, text);
}

static void reductions_of_floats_agree_with_their_definitions(void **state) {
    struct rng rng = {.state = 81};

    (void)state;
    for (int op = 0; op < KN_REDUCE_COUNT; op++)
        for (int i = 0; i < 80; i++)
            check_reduce(&rng, (enum kn_reduce)op);
}

static void reductions_of_integers_agree_with_their_definitions(void **state) {
    struct rng rng = {.state = 82};

    (void)state;
    for (int round = 0; round < 500; round++) {
        enum kn_reduce op = (enum kn_reduce)(round % KN_REDUCE_COUNT);
        struct problem p = random_problem(&rng);
        int32_t *x = test_malloc(p.count * 4), *y = test_malloc(p.outputs * 4);
        int64_t *wide_x = test_malloc(p.count * 8), *wide_y = test_malloc(p.outputs * 8);
        double *real = test_malloc(p.count * sizeof(double));
        if (op == KN_REDUCE_LOG_SUM_EXP || op == KN_REDUCE_PROD)
            op = KN_REDUCE_SUM;
        for (size_t i = 0; i < p.count; i++) {
            wide_x[i] = x[i] = rng_int(&rng, op == KN_REDUCE_LOG_SUM ? 1 : -50, 50);
            real[i] = x[i];
        }
        struct seen *seen = see_all(&p, real);
        assert_int_equal(kn_reduce(op, KN_INT32, &p.shape, p.reduced, x, y), 0);
        assert_int_equal(kn_reduce(op, KN_INT64, &p.shape, p.reduced, wide_x, wide_y), 0);
        for (size_t i = 0; i < p.outputs; i++) {
            assert_int_equal(y[i], (int64_t)result(op, &seen[i]));
            assert_true(wide_y[i] == y[i]);
        }
        test_free(seen);
        test_free(x);
        test_free(y);
        test_free(wide_x);
        test_free(wide_y);
        test_free(real);
    }
}

static void products_of_integers_are_exact(void **state) {
    const struct kn_shape shape = {.rank = 2, .dims = {2, 3}};
    const bool reduced[] = {false, true};
    const int64_t x[] = {224, 224, 3, 1000000007, 1000000009, -1};
    int64_t y[2];

    (void)state;
    assert_int_equal(kn_reduce(KN_REDUCE_PROD, KN_INT64, &shape, reduced, x, y), 0);
    assert_true(y[0] == 150528 && y[1] == -1000000016000000063);
}

static void a_sum_of_exponentials_does_not_overflow(void **state) {
    const struct kn_shape shape = {.rank = 1, .dims = {3}};
    const bool reduced[] = {true};
    const float x[] = {1000, 1000, -INFINITY}, none[] = {-INFINITY, -INFINITY, -INFINITY};
    float y;

    (void)state;
    assert_int_equal(kn_reduce(KN_REDUCE_LOG_SUM_EXP, KN_FLOAT, &shape, reduced, x, &y), 0);
    assert_true(fabsf(y - 1000.693147f) < 1e-3f);
    assert_int_equal(kn_reduce(KN_REDUCE_LOG_SUM_EXP, KN_FLOAT, &shape, reduced, none, &y), 0);
    assert_true(y == -INFINITY);
}

static void reducing_nothing_gives_the_neutral_element(void **state) {
    const struct kn_shape shape = {.rank = 2, .dims = {2, 0}};
    const bool reduced[] = {false, true};
    float y[2] = {NAN, NAN};

    (void)state;
    assert_int_equal(kn_reduce(KN_REDUCE_SUM, KN_FLOAT, &shape, reduced, y, y), 0);
    assert_true(y[0] == 0.0f && y[1] == 0.0f);
    assert_int_equal(kn_reduce(KN_REDUCE_MAX, KN_FLOAT, &shape, reduced, y, y), 0);
    assert_true(y[0] == -INFINITY && y[1] == -INFINITY);
    assert_int_equal(kn_reduce(KN_REDUCE_LOG_SUM, KN_FLOAT, &shape, reduced, y, y), 0);
    assert_true(y[0] == -INFINITY && y[1] == -INFINITY);
    assert_int_equal(kn_reduce(KN_REDUCE_LOG_SUM_EXP, KN_FLOAT, &shape, reduced, y, y), 0);
    assert_true(y[0] == -INFINITY && y[1] == -INFINITY);
    assert_int_equal(kn_reduce(KN_REDUCE_MEAN, KN_FLOAT, &shape, reduced, y, y), 0);
    assert_true(isnan(y[0]) && isnan(y[1]));
}

/* The largest and the smallest of 200, 100 and nothing, as each type has them. */
static void the_order_of_integers_is_that_of_their_type(void **state) {
    static const struct {
        enum kn_type type;
        int64_t most, least, of_none, of_none_least;
    } cases[] = {
        {KN_UINT8, 200, 100, 0, 255},
        {KN_INT8, 100, -56, -128, 127},
        {KN_UINT16, 200, 100, 0, 65535},
        {KN_INT16, 200, 100, -32768, 32767},
        {KN_UINT32, 200, 100, 0, 4294967295},
        {KN_UINT64, 200, 100, 0, -1},
        {KN_INT64, 200, 100, INT64_MIN, INT64_MAX},
        {KN_BOOL, 1, 1, 0, 1},
    };
    const struct kn_shape shape = {.rank = 1, .dims = {2}}, none = {.rank = 1, .dims = {0}};
    const int64_t numbers[] = {200, 100};
    const bool reduced[] = {true};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum kn_type type = cases[i].type;
        int64_t x[2], y = 0, wide;
        kn_cast(KN_INT64, type, numbers, x, 2);
        assert_int_equal(kn_reduce(KN_REDUCE_MAX, type, &shape, reduced, x, &y), 0);
        kn_cast(type, KN_INT64, &y, &wide, 1);
        assert_true(wide == cases[i].most);
        assert_int_equal(kn_reduce(KN_REDUCE_MIN, type, &shape, reduced, x, &y), 0);
        kn_cast(type, KN_INT64, &y, &wide, 1);
        assert_true(wide == cases[i].least);
        assert_int_equal(kn_reduce(KN_REDUCE_MAX, type, &none, reduced, x, &y), 0);
        kn_cast(type, KN_INT64, &y, &wide, 1);
        assert_true(wide == cases[i].of_none);
        assert_int_equal(kn_reduce(KN_REDUCE_MIN, type, &none, reduced, x, &y), 0);
        kn_cast(type, KN_INT64, &y, &wide, 1);
        assert_true(wide == cases[i].of_none_least);
    }
}

static void unsigned_integers_are_ordered_without_a_sign(void **state) {
    const struct kn_shape shape = {.rank = 1, .dims = {2}};
    const bool reduced[] = {true};
    const uint64_t x[] = {UINT64_MAX, 1};
    uint64_t y = 0;

    (void)state;
    assert_int_equal(kn_reduce(KN_REDUCE_MAX, KN_UINT64, &shape, reduced, x, &y), 0);
    assert_true(y == UINT64_MAX);
    assert_int_equal(kn_reduce(KN_REDUCE_MIN, KN_UINT64, &shape, reduced, x, &y), 0);
    assert_true(y == 1);
    assert_int_equal(kn_reduce(KN_REDUCE_SUM, KN_UINT64, &shape, reduced, x, &y), 0);
    assert_true(y == 0);
}

static void types_without_reductions_are_refused(void **state) {
    const struct kn_shape shape = {0};
    double x = 0;

    (void)state;
    assert_int_equal(kn_reduce(KN_REDUCE_SUM, KN_BOOL, &shape, NULL, &x, &x), -ENOTSUP);
    assert_int_equal(kn_reduce(KN_REDUCE_SUM, KN_FLOAT16, &shape, NULL, &x, &x), -ENOTSUP);
    assert_int_equal(kn_reduce(KN_REDUCE_LOG_SUM_EXP, KN_INT32, &shape, NULL, &x, &x), -ENOTSUP);
    assert_int_equal(kn_reduce(KN_REDUCE_COUNT, KN_FLOAT, &shape, NULL, &x, &x), -ENOTSUP);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reductions_of_floats_agree_with_their_definitions),
        cmocka_unit_test(reductions_of_integers_agree_with_their_definitions),
        cmocka_unit_test(products_of_integers_are_exact),
        cmocka_unit_test(a_sum_of_exponentials_does_not_overflow),
        cmocka_unit_test(reducing_nothing_gives_the_neutral_element),
        cmocka_unit_test(the_order_of_integers_is_that_of_their_type),
        cmocka_unit_test(unsigned_integers_are_ordered_without_a_sign),
        cmocka_unit_test(types_without_reductions_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
