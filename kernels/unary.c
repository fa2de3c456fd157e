#include <errno.h>
#include <math.h>

#include "internal.h"

typedef void (*unary_fn)(const void *x, void *y, ptrdiff_t count);

/* p is the element. */
#define EACH(name, in, out, expr)                                                                  \
    static KN_CLONES void each_##name(const void *vx, void *vy, ptrdiff_t count) {                 \
        const in *x = vx;                                                                          \
        out *y = vy;                                                                               \
        KN_IVDEP                                                                                   \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            in p = x[i];                                                                           \
            y[i] = (out)(expr);                                                                    \
        }                                                                                          \
    }

#define FLOAT_EACH(type, suffix)                                                                   \
    EACH(abs_##type, type, type, fabs##suffix(p))                                                  \
    EACH(neg_##type, type, type, -p)                                                               \
    EACH(exp_##type, type, type, exp##suffix(p))                                                   \
    EACH(log_##type, type, type, log##suffix(p))                                                   \
    EACH(sqrt_##type, type, type, sqrt##suffix(p))                                                 \
    EACH(reciprocal_##type, type, type, 1 / p)                                                     \
    EACH(floor_##type, type, type, floor##suffix(p))                                               \
    EACH(ceil_##type, type, type, ceil##suffix(p))                                                 \
    EACH(round_##type, type, type, rint##suffix(p))                                                \
    EACH(sign_##type, type, type, p > 0 ? 1 : p < 0 ? -1 : p)                                      \
    EACH(sin_##type, type, type, sin##suffix(p))                                                   \
    EACH(cos_##type, type, type, cos##suffix(p))                                                   \
    EACH(tan_##type, type, type, tan##suffix(p))                                                   \
    EACH(asin_##type, type, type, asin##suffix(p))                                                 \
    EACH(acos_##type, type, type, acos##suffix(p))                                                 \
    EACH(atan_##type, type, type, atan##suffix(p))                                                 \
    EACH(sinh_##type, type, type, sinh##suffix(p))                                                 \
    EACH(cosh_##type, type, type, cosh##suffix(p))                                                 \
    EACH(asinh_##type, type, type, asinh##suffix(p))                                               \
    EACH(acosh_##type, type, type, acosh##suffix(p))                                               \
    EACH(atanh_##type, type, type, atanh##suffix(p))                                               \
    EACH(is_nan_##type, type, uint8_t, p != p)                                                     \
    EACH(is_inf_##type, type, uint8_t, fabs##suffix(p) == (type)INFINITY)                          \
    EACH(is_positive_inf_##type, type, uint8_t, p == (type)INFINITY)                               \
    EACH(is_negative_inf_##type, type, uint8_t, p == -(type)INFINITY)

/* The smallest integer stays itself. */
#define SIGNED_EACH(type)                                                                          \
    EACH(abs_##type, type, type, p < 0 ? 0 - (uint64_t)p : (uint64_t)p)                            \
    EACH(neg_##type, type, type, 0 - (uint64_t)p)                                                  \
    EACH(sign_##type, type, type, (p > 0) - (p < 0))

#define UNSIGNED_EACH(type)                                                                        \
    EACH(abs_##type, type, type, p)                                                                \
    EACH(sign_##type, type, type, p != 0)

#define FLOATS(name) [KN_FLOAT] = each_##name##_float, [KN_DOUBLE] = each_##name##_double
#define SIGNED(name)                                                                               \
    [KN_INT8] = each_##name##_int8_t, [KN_INT16] = each_##name##_int16_t,                          \
    [KN_INT32] = each_##name##_int32_t, [KN_INT64] = each_##name##_int64_t
#define UNSIGNED(name)                                                                             \
    [KN_UINT8] = each_##name##_uint8_t, [KN_UINT16] = each_##name##_uint16_t,                      \
    [KN_UINT32] = each_##name##_uint32_t, [KN_UINT64] = each_##name##_uint64_t

FLOAT_EACH(float, f)
FLOAT_EACH(double, )
SIGNED_EACH(int8_t)
SIGNED_EACH(int16_t)
SIGNED_EACH(int32_t)
SIGNED_EACH(int64_t)
UNSIGNED_EACH(uint8_t)
UNSIGNED_EACH(uint16_t)
UNSIGNED_EACH(uint32_t)
UNSIGNED_EACH(uint64_t)
EACH(not, uint8_t, uint8_t, p == 0)

#define TYPES_MAX (KN_UINT64 + 1)

static const unary_fn table[KN_UNARY_COUNT][TYPES_MAX] = {
    [KN_ABS] = {FLOATS(abs), SIGNED(abs), UNSIGNED(abs)},
    [KN_NEG] = {FLOATS(neg), SIGNED(neg)},
    [KN_EXP] = {FLOATS(exp)},
    [KN_LOG] = {FLOATS(log)},
    [KN_SQRT] = {FLOATS(sqrt)},
    [KN_RECIPROCAL] = {FLOATS(reciprocal)},
    [KN_FLOOR] = {FLOATS(floor)},
    [KN_CEIL] = {FLOATS(ceil)},
    [KN_ROUND] = {FLOATS(round)},
    [KN_SIGN] = {FLOATS(sign), SIGNED(sign), UNSIGNED(sign)},
    [KN_NOT] = {[KN_BOOL] = each_not},
    [KN_SIN] = {FLOATS(sin)},
    [KN_COS] = {FLOATS(cos)},
    [KN_TAN] = {FLOATS(tan)},
    [KN_ASIN] = {FLOATS(asin)},
    [KN_ACOS] = {FLOATS(acos)},
    [KN_ATAN] = {FLOATS(atan)},
    [KN_SINH] = {FLOATS(sinh)},
    [KN_COSH] = {FLOATS(cosh)},
    [KN_ASINH] = {FLOATS(asinh)},
    [KN_ACOSH] = {FLOATS(acosh)},
    [KN_ATANH] = {FLOATS(atanh)},
    [KN_IS_NAN] = {FLOATS(is_nan)},
    [KN_IS_INF] = {FLOATS(is_inf)},
    [KN_IS_POSITIVE_INF] = {FLOATS(is_positive_inf)},
    [KN_IS_NEGATIVE_INF] = {FLOATS(is_negative_inf)},
};

int kn_unary(enum kn_unary op, enum kn_type type, const void *x, void *y, size_t count) {
    if (op < 0 || op >= KN_UNARY_COUNT || type < 0 || type >= TYPES_MAX || !table[op][type])
        return -ENOTSUP;
    table[op][type](x, y, (ptrdiff_t)count);
    return 0;
}
