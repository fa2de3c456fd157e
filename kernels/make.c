/* Operators that make numbers: OneHot, CumSum, Range, EyeLike. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "internal.h"

void kn_fill(size_t elem_size, const void *value, size_t count, void *y) {
    if (count == 0)
        return;
    memcpy(y, value, elem_size);
    for (size_t done = 1; done < count;) {
        size_t more = done < count - done ? done : count - done;
        memcpy((char *)y + done * elem_size, y, more * elem_size);
        done += more;
    }
}

void kn_one_hot(size_t elem_size, size_t outer, size_t depth, size_t inner, const int64_t *indices,
                const void *values, void *y) {
    const char *on = (const char *)values + elem_size;

    kn_fill(elem_size, values, outer * depth * inner, y);
    for (size_t o = 0; o < outer; o++)
        for (size_t i = 0; i < inner; i++) {
            int64_t at = indices[o * inner + i];
            at = at < 0 ? at + (int64_t)depth : at;
            if (at >= 0 && at < (int64_t)depth)
                memcpy((char *)y + ((o * depth + (size_t)at) * inner + i) * elem_size, on,
                       elem_size);
        }
}

/* ---- CumSum ---- */

typedef void (*sum_fn)(const struct kn_cumsum *c, const void *x, void *y);

/* Rows of inner elements, each the one before plus x; integers wrap around. */
#define CUMSUM(name, type, unsigned_type)                                                          \
    static void cumsum_##name(const struct kn_cumsum *c, const void *vx, void *vy) {               \
        ptrdiff_t inner = (ptrdiff_t)c->inner, axis = (ptrdiff_t)c->axis;                          \
        ptrdiff_t step = c->reverse ? -inner : inner, first = c->reverse ? (axis - 1) * inner : 0; \
        for (ptrdiff_t o = 0; o < (ptrdiff_t)c->outer; o++) {                                      \
            const type *x = (const type *)vx + o * axis * inner + first;                           \
            type *y = (type *)vy + o * axis * inner + first;                                       \
            for (ptrdiff_t i = 0; i < inner && axis > 0; i++)                                      \
                y[i] = c->exclusive ? 0 : x[i];                                                    \
            for (ptrdiff_t a = 1; a < axis; a++, x += step, y += step)                             \
                for (ptrdiff_t i = 0; i < inner; i++)                                              \
                    y[step + i] = (type)((unsigned_type)y[i] +                                     \
                                         (unsigned_type)(c->exclusive ? x[i] : x[step + i]));      \
        }                                                                                          \
    }

CUMSUM(float, float, float)
CUMSUM(double, double, double)
CUMSUM(int32, int32_t, uint32_t)
CUMSUM(int64, int64_t, uint64_t)
CUMSUM(uint32, uint32_t, uint32_t)
CUMSUM(uint64, uint64_t, uint64_t)

#define TYPES_MAX (KN_UINT64 + 1)

static const sum_fn sums[TYPES_MAX] = {
    [KN_FLOAT] = cumsum_float, [KN_DOUBLE] = cumsum_double, [KN_INT32] = cumsum_int32,
    [KN_INT64] = cumsum_int64, [KN_UINT32] = cumsum_uint32, [KN_UINT64] = cumsum_uint64,
};

int kn_cumsum(const struct kn_cumsum *cumsum, const void *x, void *y) {
    if (cumsum->type < 0 || cumsum->type >= TYPES_MAX || !sums[cumsum->type])
        return -ENOTSUP;
    if (cumsum->outer > 0 && cumsum->axis > 0 && cumsum->inner > 0)
        sums[cumsum->type](cumsum, x, y);
    return 0;
}

/* ---- Range ---- */

#define RANGE_COUNT(type)                                                                          \
    {                                                                                              \
        type from, to, by;                                                                         \
        memcpy(&from, start, sizeof(from));                                                        \
        memcpy(&to, limit, sizeof(to));                                                            \
        memcpy(&by, delta, sizeof(by));                                                            \
        return by != 0 ? ceil(((double)to - (double)from) / (double)by) : NAN;                     \
    }

double kn_range_count(enum kn_type type, const void *start, const void *limit, const void *delta) {
    switch (type) {
    case KN_FLOAT:
        RANGE_COUNT(float)
    case KN_DOUBLE:
        RANGE_COUNT(double)
    case KN_INT16:
        RANGE_COUNT(int16_t)
    case KN_INT32:
        RANGE_COUNT(int32_t)
    case KN_INT64:
        RANGE_COUNT(int64_t)
    default:
        return NAN;
    }
}

#define RANGE(type, unsigned_type)                                                                 \
    {                                                                                              \
        type from, by;                                                                             \
        memcpy(&from, start, sizeof(from));                                                        \
        memcpy(&by, delta, sizeof(by));                                                            \
        for (size_t i = 0; i < count; i++)                                                         \
            ((type *)y)[i] = (type)((unsigned_type)from + (unsigned_type)i * (unsigned_type)by);   \
        break;                                                                                     \
    }

void kn_range(enum kn_type type, const void *start, const void *delta, size_t count, void *y) {
    switch (type) {
    case KN_FLOAT:
        RANGE(float, float)
    case KN_DOUBLE:
        RANGE(double, double)
    case KN_INT16:
        RANGE(int16_t, uint32_t)
    case KN_INT32:
        RANGE(int32_t, uint32_t)
    case KN_INT64:
        RANGE(int64_t, uint64_t)
    default:
        break;
    }
}

void kn_eye(size_t elem_size, size_t rows, size_t cols, int64_t diagonal, const void *one,
            void *y) {
    memset(y, 0, rows * cols * elem_size);
    for (size_t r = 0; r < rows; r++) {
        int64_t c = (int64_t)r + diagonal;
        if (c >= 0 && c < (int64_t)cols)
            memcpy((char *)y + (r * cols + (size_t)c) * elem_size, one, elem_size);
    }
}
