#include <errno.h>
#include <math.h>

#include "internal.h"

typedef void (*cast_fn)(const void *x, void *y, ptrdiff_t count);

size_t kn_type_size(enum kn_type type) {
    switch (type) {
    case KN_UINT8:
    case KN_INT8:
    case KN_BOOL:
        return 1;
    case KN_FLOAT:
    case KN_INT32:
        return 4;
    case KN_INT64:
    case KN_DOUBLE:
        return 8;
    }
    return 0;
}

#define CAST(from_name, from, to_name, to, expr)                                                   \
    static void cast_##from_name##_##to_name(const void *vx, void *vy, ptrdiff_t count) {          \
        const from *x = vx;                                                                        \
        to *y = vy;                                                                                \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            from p = x[i];                                                                         \
            y[i] = (to)(expr);                                                                     \
        }                                                                                          \
    }

/* ONNX leaves numbers out of range undefined; here they saturate and NaN is 0, on every CPU. */

#define FROM_FLOAT(name, from)                                                                     \
    CAST(name, from, float, float, p)                                                              \
    CAST(name, from, double, double, p)                                                            \
    CAST(name, from, truth, uint8_t, p != 0)                                                       \
    CAST(name, from, uint8, uint8_t, p >= 255 ? 255 : p > 0 ? (uint8_t)p : 0)                      \
    CAST(name, from, int8, int8_t, p >= 127 ? 127 : p <= -128 ? -128 : p != p ? 0 : (int8_t)p)     \
    CAST(name, from, int32, int32_t,                                                               \
         p >= 0x1p31f   ? INT32_MAX                                                                \
         : p < -0x1p31f ? INT32_MIN                                                                \
         : p != p       ? 0                                                                        \
                        : (int32_t)p)                                                                    \
    CAST(name, from, int64, int64_t,                                                               \
         p >= 0x1p63f   ? INT64_MAX                                                                \
         : p < -0x1p63f ? INT64_MIN                                                                \
         : p != p       ? 0                                                                        \
                        : (int64_t)p)

/* Integers keep their low bits. */
#define FROM_INTEGER(name, from)                                                                   \
    CAST(name, from, float, float, p)                                                              \
    CAST(name, from, double, double, p)                                                            \
    CAST(name, from, truth, uint8_t, p != 0)                                                       \
    CAST(name, from, uint8, uint8_t, p)                                                            \
    CAST(name, from, int8, int8_t, p)                                                              \
    CAST(name, from, int32, int32_t, p)                                                            \
    CAST(name, from, int64, int64_t, p)

FROM_FLOAT(float, float)
FROM_FLOAT(double, double)
FROM_INTEGER(truth, uint8_t)
FROM_INTEGER(uint8, uint8_t)
FROM_INTEGER(int8, int8_t)
FROM_INTEGER(int32, int32_t)
FROM_INTEGER(int64, int64_t)

#define TYPES_MAX (KN_DOUBLE + 1)

#define TO_ALL(from)                                                                               \
    {                                                                                              \
        [KN_FLOAT] = cast_##from##_float, [KN_DOUBLE] = cast_##from##_double,                      \
        [KN_BOOL] = cast_##from##_truth, [KN_UINT8] = cast_##from##_uint8,                         \
        [KN_INT8] = cast_##from##_int8, [KN_INT32] = cast_##from##_int32,                          \
        [KN_INT64] = cast_##from##_int64,                                                          \
    }

static const cast_fn table[TYPES_MAX][TYPES_MAX] = {
    [KN_FLOAT] = TO_ALL(float), [KN_DOUBLE] = TO_ALL(double), [KN_BOOL] = TO_ALL(truth),
    [KN_UINT8] = TO_ALL(uint8), [KN_INT8] = TO_ALL(int8),     [KN_INT32] = TO_ALL(int32),
    [KN_INT64] = TO_ALL(int64),
};

int kn_cast(enum kn_type from, enum kn_type to, const void *x, void *y, size_t count) {
    if (from < 0 || from >= TYPES_MAX || to < 0 || to >= TYPES_MAX || !table[from][to])
        return -ENOTSUP;
    table[from][to](x, y, (ptrdiff_t)count);
    return 0;
}
