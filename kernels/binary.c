#include <errno.h>
#include <math.h>

#include "internal.h"

/* One row: count elements, operand strides in elements. */
typedef void (*row_fn)(const void *a, ptrdiff_t sa, const void *b, ptrdiff_t sb, void *y,
                       ptrdiff_t count);

/* A row function. The strides that occur all the time get loops of their own, which vectorise. */
#define ROW(name, in, out, expr)                                                                   \
    static KN_CLONES void row_##name(const void *va, ptrdiff_t sa, const void *vb, ptrdiff_t sb,   \
                                     void *vy, ptrdiff_t count) {                                  \
        const in *a = va, *b = vb;                                                                 \
        out *y = vy;                                                                               \
        if (sa == 1 && sb == 1) {                                                                  \
            KN_IVDEP                                                                               \
            for (ptrdiff_t i = 0; i < count; i++) {                                                \
                in p = a[i], q = b[i];                                                             \
                y[i] = (out)(expr);                                                                \
            }                                                                                      \
        } else if (sa == 1 && sb == 0) {                                                           \
            in q = b[0];                                                                           \
            KN_IVDEP                                                                               \
            for (ptrdiff_t i = 0; i < count; i++) {                                                \
                in p = a[i];                                                                       \
                y[i] = (out)(expr);                                                                \
            }                                                                                      \
        } else if (sa == 0 && sb == 1) {                                                           \
            in p = a[0];                                                                           \
            KN_IVDEP                                                                               \
            for (ptrdiff_t i = 0; i < count; i++) {                                                \
                in q = b[i];                                                                       \
                y[i] = (out)(expr);                                                                \
            }                                                                                      \
        } else {                                                                                   \
            for (ptrdiff_t i = 0; i < count; i++) {                                                \
                in p = a[i * sa], q = b[i * sb];                                                   \
                y[i] = (out)(expr);                                                                \
            }                                                                                      \
        }                                                                                          \
    }

/* Integer arithmetic wraps, as two's complement does, and never traps. */
#define SIGNED_HELPERS(type)                                                                       \
    static inline type div_##type(type a, type b) {                                                \
        return (type)(b == 0 ? 0 : b == -1 ? (type)(0 - (uint64_t)a) : a / b);                     \
    }                                                                                              \
    static inline type rem_##type(type a, type b) {                                                \
        return (type)(b == 0 || b == -1 ? 0 : a % b);                                              \
    }                                                                                              \
    static inline type mod_##type(type a, type b) {                                                \
        type r = rem_##type(a, b);                                                                 \
        return (type)(r != 0 && (r < 0) != (b < 0) ? r + b : r);                                   \
    }                                                                                              \
    static inline type pow_##type(type a, type b) {                                                \
        if (b >= 0)                                                                                \
            return (type)power_integer((uint64_t)a, (uint64_t)b);                                  \
        return (type)(a == 1 ? 1 : a != -1 ? 0 : b % 2 == 0 ? 1 : -1);                             \
    }

static inline uint64_t power_integer(uint64_t base, uint64_t exponent) {
    uint64_t value = 1;

    for (; exponent > 0; exponent /= 2, base *= base)
        if (exponent % 2 != 0)
            value *= base;
    return value;
}

#define UNSIGNED_HELPERS(type)                                                                     \
    static inline type div_##type(type a, type b) {                                                \
        return (type)(b == 0 ? 0 : a / b);                                                         \
    }                                                                                              \
    static inline type rem_##type(type a, type b) {                                                \
        return (type)(b == 0 ? 0 : a % b);                                                         \
    }                                                                                              \
    static inline type mod_##type(type a, type b) {                                                \
        return rem_##type(a, b);                                                                   \
    }                                                                                              \
    static inline type pow_##type(type a, type b) {                                                \
        return (type)power_integer(a, b);                                                          \
    }

#define INTEGER_ROWS(type)                                                                         \
    ROW(add_##type, type, type, (uint64_t)p + (uint64_t)q)                                         \
    ROW(sub_##type, type, type, (uint64_t)p - (uint64_t)q)                                         \
    ROW(mul_##type, type, type, (uint64_t)p *(uint64_t)q)                                          \
    ROW(div_##type, type, type, div_##type(p, q))                                                  \
    ROW(pow_##type, type, type, pow_##type(p, q))                                                  \
    ROW(mod_##type, type, type, mod_##type(p, q))                                                  \
    ROW(fmod_##type, type, type, rem_##type(p, q))                                                 \
    ROW(min_##type, type, type, p < q ? p : q)                                                     \
    ROW(max_##type, type, type, p > q ? p : q)

#define SIGNED_ROWS(type)                                                                          \
    SIGNED_HELPERS(type)                                                                           \
    INTEGER_ROWS(type)                                                                             \
    ROW(prelu_##type, type, type, p < 0 ? (uint64_t)p * (uint64_t)q : (uint64_t)p)

#define UNSIGNED_ROWS(type)                                                                        \
    UNSIGNED_HELPERS(type)                                                                         \
    INTEGER_ROWS(type)

#define FLOAT_ROWS(type, pow_fn, fmod_fn)                                                          \
    ROW(add_##type, type, type, p + q)                                                             \
    ROW(sub_##type, type, type, p - q)                                                             \
    ROW(mul_##type, type, type, p *q)                                                              \
    ROW(div_##type, type, type, p / q)                                                             \
    ROW(pow_##type, type, type, pow_fn(p, q))                                                      \
    ROW(fmod_##type, type, type, fmod_fn(p, q))                                                    \
    ROW(min_##type, type, type, p < q || p != p ? p : q)                                           \
    ROW(max_##type, type, type, p > q || p != p ? p : q)                                           \
    ROW(prelu_##type, type, type, p < 0 ? p * q : p)

#define COMPARE_ROWS(type)                                                                         \
    ROW(equal_##type, type, uint8_t, p == q)                                                       \
    ROW(greater_##type, type, uint8_t, p > q)                                                      \
    ROW(greater_equal_##type, type, uint8_t, p >= q)                                               \
    ROW(less_##type, type, uint8_t, p < q)                                                         \
    ROW(less_equal_##type, type, uint8_t, p <= q)

/* Powers that networks use, exactly as pow() would round them. */
static inline float power_float(float p, float q) {
    return q == 2.0f ? p * p : q == 1.0f ? p : powf(p, q);
}

FLOAT_ROWS(float, power_float, fmodf)
FLOAT_ROWS(double, pow, fmod)
SIGNED_ROWS(int8_t)
SIGNED_ROWS(int16_t)
SIGNED_ROWS(int32_t)
SIGNED_ROWS(int64_t)
UNSIGNED_ROWS(uint8_t)
UNSIGNED_ROWS(uint16_t)
UNSIGNED_ROWS(uint32_t)
UNSIGNED_ROWS(uint64_t)
COMPARE_ROWS(float)
COMPARE_ROWS(double)
COMPARE_ROWS(int8_t)
COMPARE_ROWS(uint8_t)
COMPARE_ROWS(int16_t)
COMPARE_ROWS(uint16_t)
COMPARE_ROWS(int32_t)
COMPARE_ROWS(uint32_t)
COMPARE_ROWS(int64_t)
COMPARE_ROWS(uint64_t)
ROW(and, uint8_t, uint8_t, (p != 0) & (q != 0))
ROW(or, uint8_t, uint8_t, (p != 0) | (q != 0))
ROW(xor, uint8_t, uint8_t, (p != 0) ^ (q != 0))

#define TYPES_MAX (KN_UINT64 + 1)

#define SIGNED_INTEGERS(name)                                                                      \
    [KN_INT8] = row_##name##_int8_t, [KN_INT16] = row_##name##_int16_t,                            \
    [KN_INT32] = row_##name##_int32_t, [KN_INT64] = row_##name##_int64_t
#define UNSIGNED_INTEGERS(name)                                                                    \
    [KN_UINT8] = row_##name##_uint8_t, [KN_UINT16] = row_##name##_uint16_t,                        \
    [KN_UINT32] = row_##name##_uint32_t, [KN_UINT64] = row_##name##_uint64_t
#define SIGNED(name)                                                                               \
    [KN_FLOAT] = row_##name##_float, [KN_DOUBLE] = row_##name##_double, SIGNED_INTEGERS(name)
#define NUMBERS(name)     SIGNED(name), UNSIGNED_INTEGERS(name)
#define COMPARISONS(name) NUMBERS(name), [KN_BOOL] = row_##name##_uint8_t

static const row_fn rows[KN_BINARY_COUNT][TYPES_MAX] = {
    [KN_ADD] = {NUMBERS(add)},
    [KN_SUB] = {NUMBERS(sub)},
    [KN_MUL] = {NUMBERS(mul)},
    [KN_DIV] = {NUMBERS(div)},
    [KN_POW] = {NUMBERS(pow)},
    [KN_MOD] = {SIGNED_INTEGERS(mod), UNSIGNED_INTEGERS(mod)},
    [KN_FMOD] = {NUMBERS(fmod)},
    [KN_MIN] = {NUMBERS(min)},
    [KN_MAX] = {NUMBERS(max)},
    [KN_PRELU] = {SIGNED(prelu)},
    [KN_AND] = {[KN_BOOL] = row_and},
    [KN_OR] = {[KN_BOOL] = row_or},
    [KN_XOR] = {[KN_BOOL] = row_xor},
    [KN_EQUAL] = {COMPARISONS(equal)},
    [KN_GREATER] = {COMPARISONS(greater)},
    [KN_GREATER_EQUAL] = {COMPARISONS(greater_equal)},
    [KN_LESS] = {COMPARISONS(less)},
    [KN_LESS_EQUAL] = {COMPARISONS(less_equal)},
};

#define TASK_ELEMENTS 32768

struct binary_job {
    row_fn fn;
    const struct kn_walk *walk;
    size_t in_size, out_size;
    const char *a, *b;
    char *y;
    ptrdiff_t rows;
    ptrdiff_t rows_per_task, pieces, piece; /* of a task; a row is cut into pieces of so many */
};

static void binary_task(void *arg, int task, int thread) {
    const struct binary_job *job = arg;
    const struct kn_walk *walk = job->walk;
    int last = walk->rank - 1;
    ptrdiff_t sa = walk->strides[0][last], sb = walk->strides[1][last];
    ptrdiff_t first = task / job->pieces * job->rows_per_task;
    ptrdiff_t begin = task % job->pieces * job->piece;
    ptrdiff_t count = kn_min(job->piece, walk->dims[last] - begin);
    ptrdiff_t end = kn_min(first + job->rows_per_task, job->rows);
    struct kn_walk_pos pos;

    (void)thread;
    kn_walk_start(walk, first, &pos);
    for (ptrdiff_t row = first; row < end; row++, kn_walk_next(walk, &pos))
        job->fn(job->a + (pos.offsets[0] + begin * sa) * (ptrdiff_t)job->in_size, sa,
                job->b + (pos.offsets[1] + begin * sb) * (ptrdiff_t)job->in_size, sb,
                job->y + (pos.offsets[2] + begin) * (ptrdiff_t)job->out_size, count);
}

int kn_binary(enum kn_binary op, enum kn_type type, const struct kn_shape *shape,
              const int64_t *a_strides, const int64_t *b_strides, const void *a, const void *b,
              void *y, struct kn_threads *threads) {
    const int64_t *strides[] = {a_strides, b_strides, NULL};
    struct kn_walk walk;

    if (op < 0 || op >= KN_BINARY_COUNT || type < 0 || type >= TYPES_MAX || !rows[op][type])
        return -ENOTSUP;
    kn_walk_init(&walk, shape, 3, strides);

    ptrdiff_t inner = walk.dims[walk.rank - 1];
    struct binary_job job = {.fn = rows[op][type], .walk = &walk, .a = a, .b = b, .y = y};
    job.rows = kn_walk_rows(&walk);
    job.in_size = kn_type_size(type);
    job.out_size = op >= KN_AND ? 1 : job.in_size;
    if (job.rows == 0)
        return 0;
    ptrdiff_t grain = kn_max(TASK_ELEMENTS, kn_ceil_div(job.rows * inner, 1024));
    job.piece = kn_min(inner, grain);
    job.pieces = kn_ceil_div(inner, job.piece);
    job.rows_per_task = kn_max(1, grain / inner);
    kn_parallel(threads, (int)(kn_ceil_div(job.rows, job.rows_per_task) * job.pieces), binary_task,
                &job);
    return 0;
}
