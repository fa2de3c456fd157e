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

static const enum kn_type types[] = {KN_FLOAT, KN_DOUBLE, KN_INT8,  KN_UINT8,  KN_INT32,
                                     KN_INT64, KN_BOOL,   KN_INT16, KN_UINT16, KN_UINT32};

static size_t size_of(enum kn_type type) {
    switch (type) {
    case KN_FLOAT:
    case KN_INT32:
    case KN_UINT32:
        return 4;
    case KN_DOUBLE:
    case KN_INT64:
        return 8;
    case KN_INT16:
    case KN_UINT16:
        return 2;
    default:
        return 1;
    }
}

static bool is_real(enum kn_type type) {
    return type == KN_FLOAT || type == KN_DOUBLE;
}

static bool is_comparison(enum kn_binary op) {
    return op >= KN_EQUAL && op <= KN_LESS_EQUAL;
}

static bool is_logical(enum kn_binary op) {
    return op >= KN_AND && op <= KN_XOR;
}

static bool supported(enum kn_binary op, enum kn_type type) {
    if (is_comparison(op))
        return true;
    if (type == KN_BOOL || is_logical(op))
        return type == KN_BOOL && is_logical(op);
    if (op == KN_MOD)
        return !is_real(type);
    return op != KN_PRELU || (type != KN_UINT8 && type != KN_UINT16 && type != KN_UINT32);
}

static double load_real(enum kn_type type, const void *p, size_t i) {
    return type == KN_FLOAT ? (double)((const float *)p)[i] : ((const double *)p)[i];
}

static int64_t load_int(enum kn_type type, const void *p, size_t i) {
    switch (type) {
    case KN_INT8:
        return ((const int8_t *)p)[i];
    case KN_INT32:
        return ((const int32_t *)p)[i];
    case KN_INT64:
        return ((const int64_t *)p)[i];
    case KN_INT16:
        return ((const int16_t *)p)[i];
    case KN_UINT16:
        return ((const uint16_t *)p)[i];
    case KN_UINT32:
        return ((const uint32_t *)p)[i];
    default:
        return ((const uint8_t *)p)[i];
    }
}

static void store(enum kn_type type, void *p, size_t i, double real, int64_t integer) {
    if (type == KN_FLOAT)
        ((float *)p)[i] = (float)real;
    else if (type == KN_DOUBLE)
        ((double *)p)[i] = real;
    else if (type == KN_INT32 || type == KN_UINT32)
        ((int32_t *)p)[i] = (int32_t)integer;
    else if (type == KN_INT16 || type == KN_UINT16)
        ((int16_t *)p)[i] = (int16_t)integer;
    else if (type == KN_INT64)
        ((int64_t *)p)[i] = integer;
    else
        ((uint8_t *)p)[i] = (uint8_t)integer;
}

static bool compare(enum kn_binary op, bool less, bool equal, bool greater) {
    switch (op) {
    case KN_EQUAL:
        return equal;
    case KN_GREATER:
        return greater;
    case KN_GREATER_EQUAL:
        return greater || equal;
    case KN_LESS:
        return less;
    default:
        return less || equal;
    }
}

/* In double, whose product or sum of two floats is rounded once more: to float, which is exact for
 * + -
 * * / by the theorem on double rounding. */
static double define_real(enum kn_binary op, double p, double q) {
    switch (op) {
    case KN_ADD:
        return p + q;
    case KN_SUB:
        return p - q;
    case KN_MUL:
        return p * q;
    case KN_DIV:
        return p / q;
    case KN_POW:
        return pow(p, q);
    case KN_FMOD:
        return fmod(p, q);
    case KN_MIN:
        return isnan(p) ? p : isnan(q) ? q : p < q ? p : q;
    case KN_MAX:
        return isnan(p) ? p : isnan(q) ? q : p > q ? p : q;
    default:
        return p < 0 ? p * q : p;
    }
}

static int64_t define_power(int64_t p, int64_t q) {
    uint64_t value = 1;

    if (q < 0)
        return p == 1 ? 1 : p == -1 ? (q % 2 ? -1 : 1) : 0;
    for (uint64_t base = (uint64_t)p; q > 0; q /= 2, base *= base)
        value *= q % 2 ? base : 1;
    return (int64_t)value;
}

static int64_t define_int(enum kn_binary op, int64_t p, int64_t q) {
    int64_t r;

    switch (op) {
    case KN_ADD:
        return (int64_t)((uint64_t)p + (uint64_t)q);
    case KN_SUB:
        return (int64_t)((uint64_t)p - (uint64_t)q);
    case KN_MUL:
        return (int64_t)((uint64_t)p * (uint64_t)q);
    case KN_DIV:
        return q == 0 ? 0 : q == -1 ? (int64_t)(0 - (uint64_t)p) : p / q;
    case KN_POW:
        return define_power(p, q);
    case KN_MOD:
        r = q == 0 || q == -1 ? 0 : p % q;
        return r != 0 && (r < 0) != (q < 0) ? r + q : r;
    case KN_FMOD:
        return q == 0 || q == -1 ? 0 : p % q;
    case KN_MIN:
        return p < q ? p : q;
    case KN_MAX:
        return p > q ? p : q;
    case KN_PRELU:
        return p < 0 ? (int64_t)((uint64_t)p * (uint64_t)q) : p;
    case KN_AND:
        return p && q;
    case KN_OR:
        return p || q;
    default:
        return !p != !q;
    }
}

struct operand {
    int64_t strides[KN_MAX_RANK];
    struct guarded data;
    size_t count;
};

/* Some dimensions are repeated; missing leading ones are as well. */
static void operand_init(struct operand *o, struct rng *rng, enum kn_type type,
                         const struct kn_shape *shape, int repeat_percent) {
    size_t stride = 1;

    for (int i = shape->rank; i-- > 0;) {
        bool repeat = rng_chance(rng, repeat_percent);
        o->strides[i] = repeat ? 0 : (int64_t)stride;
        stride *= repeat ? 1 : (size_t)shape->dims[i];
    }
    o->count = stride;
    o->data = guarded_new((stride + 64) * size_of(type));
    for (size_t i = 0; i < stride; i++) {
        int64_t integer = rng_int(rng, -9, 9);
        double real = rng_chance(rng, 20) ? (double)integer : 4.0 * (double)rng_float(rng);
        if (type == KN_BOOL)
            integer = integer > 0;
        if (rng_chance(rng, 2)) {
            real = rng_chance(rng, 50) ? NAN : INFINITY;
            integer = type == KN_INT8    ? INT8_MIN
                      : type == KN_INT32 ? INT32_MIN
                      : type == KN_INT64 ? INT64_MIN
                                         : 0;
        }
        store(type, o->data.data, i, real, integer);
    }
}

static size_t offset(const struct kn_shape *shape, const int64_t *strides, size_t flat) {
    int64_t at = 0;

    for (int i = shape->rank; i-- > 0;) {
        at += (int64_t)(flat % (size_t)shape->dims[i]) * strides[i];
        flat /= (size_t)shape->dims[i];
    }
    return (size_t)at;
}

static struct kn_shape random_shape(struct rng *rng, size_t *ret_count) {
    struct kn_shape shape = {.rank = rng_int(rng, 0, 5)};

    *ret_count = 1;
    for (int i = 0; i < shape.rank; i++) {
        shape.dims[i] = rng_chance(rng, 2) ? 0 : rng_int(rng, 1, 9);
        *ret_count *= (size_t)shape.dims[i];
    }
    return shape;
}

static void define_all(enum kn_binary op, enum kn_type type, const struct kn_shape *shape,
                       const struct operand *a, const struct operand *b, size_t count, void *y) {
    enum kn_type out = op >= KN_AND ? KN_BOOL : type;

    for (size_t i = 0; i < count; i++) {
        size_t ia = offset(shape, a->strides, i), ib = offset(shape, b->strides, i);
        if (is_real(type)) {
            double p = load_real(type, a->data.data, ia), q = load_real(type, b->data.data, ib);
            store(out, y, i, is_comparison(op) ? 0.0 : define_real(op, p, q),
                  compare(op, p<q, p == q, p> q));
            continue;
        }
        int64_t p = load_int(type, a->data.data, ia), q = load_int(type, b->data.data, ib);
        store(out, y, i, 0.0,
              is_comparison(op) ? compare(op, p<q, p == q, p> q) : define_int(op, p, q));
    }
}

static void compare_results(enum kn_binary op, enum kn_type type, const struct guarded *got,
                            const struct guarded *want, size_t count, const char *text) {
    struct tolerance tolerance = {.units = op == KN_POW ? 4.0 : 0.0};

    if (type == KN_FLOAT && op < KN_AND) {
        check_floats(got->data, want->data, count, &tolerance, text);
        return;
    }
    for (size_t i = 0; type == KN_DOUBLE && op < KN_AND && i < count; i++) {
        double g = ((double *)got->data)[i], w = ((double *)want->data)[i];
        if (!(g == w || (isnan(g) && isnan(w))))
            fail_msg("%s: element %zu is %g, not %g", text, i, g, w);
    }
    if (type != KN_DOUBLE || op >= KN_AND)
        check_bytes(got->data, want->data, want->bytes, text);
}

static void check_binary(struct rng *rng, enum kn_binary op, enum kn_type type, int threads) {
    size_t count;
    struct kn_shape shape = random_shape(rng, &count);
    size_t bytes = count * size_of(op >= KN_AND ? KN_BOOL : type);
    struct operand a, b;
    char text[64];

    if (rng_chance(rng, 1)) {
        shape = (struct kn_shape){.rank = 2, .dims = {3, 40009}};
        count = 3 * 40009;
        bytes = count * size_of(op >= KN_AND ? KN_BOOL : type);
    }
    snprintf(text, sizeof(text), "binary %d of type %d, rank %d", (int)op, (int)type, shape.rank);
    operand_init(&a, rng, type, &shape, rng_chance(rng, 50) ? 0 : 30);
    operand_init(&b, rng, type, &shape, rng_chance(rng, 30) ? 0 : 40);
    struct guarded y = guarded_new(bytes), want = guarded_new(bytes);
    define_all(op, type, &shape, &a, &b, count, want.data);
    assert_int_equal(kn_binary(op, type, &shape, a.strides, b.strides, a.data.data, b.data.data,
                               y.data, check_pool(threads)),
                     0);
    compare_results(op, type, &y, &want, count, text);
    if (a.count == count && op < KN_AND) {
        assert_int_equal(kn_binary(op, type, &shape, a.strides, b.strides, a.data.data, b.data.data,
                                   a.data.data, check_pool(threads)),
                         0);
        a.data.bytes = bytes + 64 * size_of(type);
        compare_results(op, type, &a.data, &want, count, text);
    }
    guarded_free(&y, text);
    guarded_free(&want, text);
    guarded_free(&a.data, text);
    guarded_free(&b.data, text);
}

static void every_operation_agrees_with_its_definition_on_broadcast_shapes(void **state) {
    struct rng rng = {.state = 61};

    (void)state;
    for (int op = 0; op < KN_BINARY_COUNT; op++)
        for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
            for (int i = 0; i < 40 && supported((enum kn_binary)op, types[t]); i++)
                check_binary(&rng, (enum kn_binary)op, types[t], i % POOLS);
}

static void operations_that_a_type_does_not_have_are_refused(void **state) {
    const struct kn_shape shape = {0};
    double a = 0, y = 0;

    (void)state;
    for (int op = 0; op < KN_BINARY_COUNT; op++)
        for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
            if (!supported((enum kn_binary)op, types[t]))
                assert_int_equal(kn_binary((enum kn_binary)op, types[t], &shape, shape.dims,
                                           shape.dims, &a, &a, &y, NULL),
                                 -ENOTSUP);
    assert_int_equal(
        kn_binary(KN_ADD, (enum kn_type)10, &shape, shape.dims, shape.dims, &a, &a, &y, NULL),
        -ENOTSUP);
    assert_int_equal(
        kn_binary(KN_BINARY_COUNT, KN_FLOAT, &shape, shape.dims, shape.dims, &a, &a, &y, NULL),
        -ENOTSUP);
}

/* ONNX's tests mod_mixed_sign_int32 and mod_int64_fmod. */
static void the_sign_of_a_remainder_follows_onnx(void **state) {
    const int32_t a[] = {-4, 7, 5, 4, -7, 8}, b[] = {2, -3, 8, -2, 3, 5};
    const int32_t mod[] = {0, -2, 5, 0, 2, 3}, fmod_want[] = {0, 1, 5, 0, -1, 3};
    const struct kn_shape shape = {.rank = 1, .dims = {6}};
    const int64_t one[] = {1};
    int32_t y[6];

    (void)state;
    kn_binary(KN_MOD, KN_INT32, &shape, one, one, a, b, y, NULL);
    assert_memory_equal(y, mod, sizeof(mod));
    kn_binary(KN_FMOD, KN_INT32, &shape, one, one, a, b, y, NULL);
    assert_memory_equal(y, fmod_want, sizeof(fmod_want));
}

/* Where the highest bit is set, signed arithmetic would answer otherwise. */
static void unsigned_numbers_use_all_their_bits(void **state) {
    const uint64_t a[] = {UINT64_MAX, 7, UINT64_MAX - 1, 0}, b[] = {2, UINT64_MAX, UINT64_MAX, 0};
    const uint64_t min[] = {2, 7, UINT64_MAX - 1, 0}, mod[] = {1, 7, UINT64_MAX - 1, 0};
    const uint64_t div[] = {UINT64_MAX / 2, 0, 0, 0};
    const uint8_t less[] = {0, 1, 1, 0};
    const struct kn_shape shape = {.rank = 1, .dims = {4}};
    const int64_t one[] = {1};
    uint64_t y[4];

    (void)state;
    kn_binary(KN_MIN, KN_UINT64, &shape, one, one, a, b, y, NULL);
    assert_memory_equal(y, min, sizeof(min));
    kn_binary(KN_MOD, KN_UINT64, &shape, one, one, a, b, y, NULL);
    assert_memory_equal(y, mod, sizeof(mod));
    kn_binary(KN_DIV, KN_UINT64, &shape, one, one, a, b, y, NULL);
    assert_memory_equal(y, div, sizeof(div));
    kn_binary(KN_LESS, KN_UINT64, &shape, one, one, a, b, y, NULL);
    assert_memory_equal(y, less, sizeof(less));
}

static void integer_division_never_traps(void **state) {
    const int64_t a[] = {7, INT64_MIN, -7, 7}, b[] = {0, -1, 2, -2},
                  want[] = {0, INT64_MIN, -3, -3};
    const struct kn_shape shape = {.rank = 1, .dims = {4}};
    const int64_t one[] = {1};
    int64_t y[4];

    (void)state;
    kn_binary(KN_DIV, KN_INT64, &shape, one, one, a, b, y, NULL);
    assert_memory_equal(y, want, sizeof(want));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_agrees_with_its_definition_on_broadcast_shapes),
        cmocka_unit_test(operations_that_a_type_does_not_have_are_refused),
        cmocka_unit_test(the_sign_of_a_remainder_follows_onnx),
        cmocka_unit_test(unsigned_numbers_use_all_their_bits),
        cmocka_unit_test(integer_division_never_traps),
    };

    return cmocka_run_group_tests(tests, check_setup, check_teardown);
}
