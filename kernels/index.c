/* Operators that find places in a tensor: ScatterElements and ScatterND, NonZero. (Gather's
 * relatives are kn_gather().) */
#include <errno.h>
#include <string.h>

#include "internal.h"

/* y[i] = y[i] op x[i] */
typedef void (*combine_fn)(const void *x, void *y, ptrdiff_t count);

#define COMBINE(name, type, expr)                                                                  \
    static void combine_##name(const void *vx, void *vy, ptrdiff_t count) {                        \
        const type *x = vx;                                                                        \
        type *y = vy;                                                                              \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            type p = y[i], q = x[i];                                                               \
            y[i] = (type)(expr);                                                                   \
        }                                                                                          \
    }

/* Integers wrap around. A NaN wins every minimum and maximum. */
#define COMBINE_INTEGERS(type)                                                                     \
    COMBINE(add_##type, type, (uint64_t)p + (uint64_t)q)                                           \
    COMBINE(mul_##type, type, (uint64_t)p *(uint64_t)q)                                            \
    COMBINE(min_##type, type, p < q ? p : q)                                                       \
    COMBINE(max_##type, type, p > q ? p : q)
#define COMBINE_FLOATS(type)                                                                       \
    COMBINE(add_##type, type, p + q)                                                               \
    COMBINE(mul_##type, type, p *q)                                                                \
    COMBINE(min_##type, type, p < q || p != p ? p : q)                                             \
    COMBINE(max_##type, type, p > q || p != p ? p : q)

COMBINE_FLOATS(float)
COMBINE_FLOATS(double)
COMBINE_INTEGERS(uint8_t)
COMBINE_INTEGERS(int8_t)
COMBINE_INTEGERS(uint16_t)
COMBINE_INTEGERS(int16_t)
COMBINE_INTEGERS(uint32_t)
COMBINE_INTEGERS(int32_t)
COMBINE_INTEGERS(uint64_t)
COMBINE_INTEGERS(int64_t)

#define TYPES_MAX (KN_UINT64 + 1)
#define ALL(name)                                                                                  \
    {                                                                                              \
        [KN_FLOAT] = combine_##name##_float, [KN_DOUBLE] = combine_##name##_double,                \
        [KN_UINT8] = combine_##name##_uint8_t, [KN_INT8] = combine_##name##_int8_t,                \
        [KN_INT32] = combine_##name##_int32_t, [KN_INT64] = combine_##name##_int64_t,              \
        [KN_UINT16] = combine_##name##_uint16_t, [KN_INT16] = combine_##name##_int16_t,            \
        [KN_UINT32] = combine_##name##_uint32_t, [KN_UINT64] = combine_##name##_uint64_t,          \
    }

static const combine_fn combine[KN_SCATTER_COUNT][TYPES_MAX] = {
    [KN_SCATTER_ADD] = ALL(add),
    [KN_SCATTER_MUL] = ALL(mul),
    [KN_SCATTER_MIN] = ALL(min),
    [KN_SCATTER_MAX] = ALL(max),
};

int kn_scatter(enum kn_scatter how, enum kn_type type, size_t inner, const int64_t *places,
               size_t count, const void *x, void *y) {
    size_t bytes = inner * kn_type_size(type);
    combine_fn fn;

    if (how < 0 || how >= KN_SCATTER_COUNT || type < 0 || type >= TYPES_MAX)
        return -ENOTSUP;
    fn = combine[how][type];
    if (how != KN_SCATTER_NONE && !fn)
        return -ENOTSUP;
    for (size_t i = 0; i < count; i++) {
        const char *from = (const char *)x + i * bytes;
        char *to = (char *)y + (size_t)places[i] * bytes;
        if (fn)
            fn(from, to, (ptrdiff_t)inner);
        else
            memcpy(to, from, bytes);
    }
    return 0;
}

/* ---- NonZero ---- */

static bool is_zero(enum kn_type type, const void *x, size_t i) {
    switch (type) {
    case KN_FLOAT:
        return ((const float *)x)[i] == 0.0f;
    case KN_DOUBLE:
        return ((const double *)x)[i] == 0.0;
    default:
        break;
    }
    switch (kn_type_size(type)) {
    case 1:
        return ((const uint8_t *)x)[i] == 0;
    case 2: /* of a float16 the sign does not count */
        return (((const uint16_t *)x)[i] & (type == KN_FLOAT16 ? 0x7fff : 0xffff)) == 0;
    case 4:
        return ((const uint32_t *)x)[i] == 0;
    default:
        return ((const uint64_t *)x)[i] == 0;
    }
}

size_t kn_count_nonzero(enum kn_type type, size_t count, const void *x) {
    size_t found = 0;

    for (size_t i = 0; i < count; i++)
        found += !is_zero(type, x, i);
    return found;
}

void kn_nonzero(enum kn_type type, const struct kn_shape *shape, const void *x, size_t found,
                int64_t *y) {
    int64_t index[KN_MAX_RANK] = {0};

    for (size_t i = 0, at = 0; at < found; i++) {
        if (!is_zero(type, x, i)) {
            for (int d = 0; d < shape->rank; d++)
                y[(size_t)d * found + at] = index[d];
            at++;
        }
        for (int d = shape->rank; d-- > 0 && ++index[d] == shape->dims[d];)
            index[d] = 0;
    }
}
