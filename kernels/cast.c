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
    case KN_UINT16:
    case KN_INT16:
    case KN_FLOAT16:
        return 2;
    case KN_FLOAT:
    case KN_INT32:
    case KN_UINT32:
        return 4;
    case KN_INT64:
    case KN_UINT64:
    case KN_DOUBLE:
        return 8;
    }
    return 0;
}

/* ---- float16: a sign, 5 bits of exponent, 10 of fraction. Plain integer arithmetic, which
 * vectorises and gives the same bits on every CPU. */

union word {
    float f;
    uint32_t u;
};

#define SIGN      0x80000000u
#define SCALE     0x1p112f    /* float's exponents start so much lower */
#define TOO_LARGE 0x47800000u /* 65536: infinite, as everything above it */
#define LEAST     0x38800000u /* 2^-14: below it float16 has no more exponents */
#define SHIFTER   0x3f000000u /* 0.5: adding it leaves multiples of 2^-24, rounded half to even */

static inline float from_half(uint16_t half) {
    union word w = {.u = (uint32_t)(half & 0x7fff) << 13};

    w.f *= SCALE; /* exact, and subnormal numbers become normal ones */
    w.u |= w.u >= TOO_LARGE ? 0x7f800000u : 0;
    w.u |= (uint32_t)(half & 0x8000) << 16;
    return w.f;
}

static inline uint16_t to_half(float f) {
    union word w = {.f = f}, shifter = {.u = SHIFTER};
    uint32_t sign = w.u & SIGN, normal, small;

    w.u &= ~SIGN;
    normal = (w.u - ((127u - 15u) << 23) + 0xfff + (w.u >> 13 & 1)) >> 13;
    shifter.f += w.u < LEAST ? w.f : 0.0f;
    small = shifter.u - SHIFTER;
    uint32_t half = w.u < LEAST ? small : normal;
    half = w.u >= TOO_LARGE ? 0x7c00 : half;
    half = w.u > 0x7f800000u ? 0x7e00 | (w.u >> 13 & 0x1ff) : half;
    return (uint16_t)(half | sign >> 16);
}

/* By way of a float that is rounded to odd: then the second rounding is the only one. */
static inline uint16_t double_to_half(double d) {
    union word w = {.f = (float)d};
    double back = (double)w.f;

    if (back != d && d == d) {
        w.u -= fabs(back) > fabs(d) ? 1 : 0;
        w.u |= 1;
    }
    return to_half(w.f);
}

/* ---- loops; p is the number that load has made of an element */

#define AS_IT_IS(x) (x)

#define CAST(clones, from_name, from, number, load, to_name, to, expr)                             \
    static clones void cast_##from_name##_##to_name(const void *vx, void *vy, ptrdiff_t count) {   \
        const from *x = vx;                                                                        \
        to *y = vy;                                                                                \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            number p = load(x[i]);                                                                 \
            y[i] = (to)(expr);                                                                     \
        }                                                                                          \
    }

/* ONNX leaves numbers out of range undefined; here they saturate and NaN is 0, on every CPU. */

#define SATURATE(to, least, low, beyond, most)                                                     \
    (p >= (beyond) ? (most) : p < (low) ? (least) : p != p ? 0 : (to)p)

#define FROM_FLOAT(clones, name, from, number, load, halve)                                        \
    CAST(clones, name, from, number, load, float, float, p)                                        \
    CAST(clones, name, from, number, load, double, double, p)                                      \
    CAST(clones, name, from, number, load, half, uint16_t, halve(p))                               \
    CAST(clones, name, from, number, load, truth, uint8_t, p != 0)                                 \
    CAST(clones, name, from, number, load, uint8, uint8_t,                                         \
         p >= 255 ? 255                                                                            \
         : p > 0  ? (uint8_t)p                                                                     \
                  : 0)                                                                              \
    CAST(clones, name, from, number, load, uint16, uint16_t,                                       \
         p >= 65535 ? 65535                                                                        \
         : p > 0    ? (uint16_t)p                                                                  \
                    : 0)                                                                              \
    CAST(clones, name, from, number, load, uint32, uint32_t,                                       \
         p >= 0x1p32f ? UINT32_MAX                                                                 \
         : p > 0      ? (uint32_t)p                                                                \
                      : 0)                                                                              \
    CAST(clones, name, from, number, load, uint64, uint64_t,                                       \
         p >= 0x1p64f ? UINT64_MAX                                                                 \
         : p > 0      ? (uint64_t)p                                                                \
                      : 0)                                                                              \
    CAST(clones, name, from, number, load, int8, int8_t, SATURATE(int8_t, -128, -128, 128, 127))   \
    CAST(clones, name, from, number, load, int16, int16_t,                                         \
         SATURATE(int16_t, -32768, -32768, 32768, 32767))                                          \
    CAST(clones, name, from, number, load, int32, int32_t,                                         \
         SATURATE(int32_t, INT32_MIN, -0x1p31f, 0x1p31f, INT32_MAX))                               \
    CAST(clones, name, from, number, load, int64, int64_t,                                         \
         SATURATE(int64_t, INT64_MIN, -0x1p63f, 0x1p63f, INT64_MAX))

/* Integers keep their low bits. */
#define FROM_INTEGER(name, from)                                                                   \
    CAST(, name, from, from, AS_IT_IS, float, float, p)                                            \
    CAST(, name, from, from, AS_IT_IS, double, double, p)                                          \
    CAST(, name, from, from, AS_IT_IS, half, uint16_t, double_to_half((double)p))                  \
    CAST(, name, from, from, AS_IT_IS, truth, uint8_t, p != 0)                                     \
    CAST(, name, from, from, AS_IT_IS, uint8, uint8_t, p)                                          \
    CAST(, name, from, from, AS_IT_IS, int8, int8_t, p)                                            \
    CAST(, name, from, from, AS_IT_IS, uint16, uint16_t, p)                                        \
    CAST(, name, from, from, AS_IT_IS, int16, int16_t, p)                                          \
    CAST(, name, from, from, AS_IT_IS, uint32, uint32_t, p)                                        \
    CAST(, name, from, from, AS_IT_IS, int32, int32_t, p)                                          \
    CAST(, name, from, from, AS_IT_IS, uint64, uint64_t, p)                                        \
    CAST(, name, from, from, AS_IT_IS, int64, int64_t, p)

FROM_FLOAT(KN_CLONES, half, uint16_t, float, from_half, to_half)
FROM_FLOAT(KN_CLONES, float, float, float, AS_IT_IS, to_half)
FROM_FLOAT(, double, double, double, AS_IT_IS, double_to_half)
FROM_INTEGER(truth, uint8_t)
FROM_INTEGER(uint8, uint8_t)
FROM_INTEGER(int8, int8_t)
FROM_INTEGER(uint16, uint16_t)
FROM_INTEGER(int16, int16_t)
FROM_INTEGER(uint32, uint32_t)
FROM_INTEGER(int32, int32_t)
FROM_INTEGER(uint64, uint64_t)
FROM_INTEGER(int64, int64_t)

#define TYPES_MAX (KN_UINT64 + 1)

#define TO_ALL(from)                                                                               \
    {                                                                                              \
        [KN_FLOAT] = cast_##from##_float, [KN_DOUBLE] = cast_##from##_double,                      \
        [KN_FLOAT16] = cast_##from##_half, [KN_BOOL] = cast_##from##_truth,                        \
        [KN_UINT8] = cast_##from##_uint8, [KN_INT8] = cast_##from##_int8,                          \
        [KN_UINT16] = cast_##from##_uint16, [KN_INT16] = cast_##from##_int16,                      \
        [KN_UINT32] = cast_##from##_uint32, [KN_INT32] = cast_##from##_int32,                      \
        [KN_UINT64] = cast_##from##_uint64, [KN_INT64] = cast_##from##_int64,                      \
    }

static const cast_fn table[TYPES_MAX][TYPES_MAX] = {
    [KN_FLOAT] = TO_ALL(float),   [KN_DOUBLE] = TO_ALL(double), [KN_FLOAT16] = TO_ALL(half),
    [KN_BOOL] = TO_ALL(truth),    [KN_UINT8] = TO_ALL(uint8),   [KN_INT8] = TO_ALL(int8),
    [KN_UINT16] = TO_ALL(uint16), [KN_INT16] = TO_ALL(int16),   [KN_UINT32] = TO_ALL(uint32),
    [KN_INT32] = TO_ALL(int32),   [KN_UINT64] = TO_ALL(uint64), [KN_INT64] = TO_ALL(int64),
};

int kn_cast(enum kn_type from, enum kn_type to, const void *x, void *y, size_t count) {
    if (from < 0 || from >= TYPES_MAX || to < 0 || to >= TYPES_MAX || !table[from][to])
        return -ENOTSUP;
    table[from][to](x, y, (ptrdiff_t)count);
    return 0;
}
