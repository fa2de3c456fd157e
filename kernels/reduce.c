#include <errno.h>
#include <math.h>

#include "internal.h"

/* Adjacent outputs are reduced together, so that rows are read along memory. Sums of floats are
 * accumulated in double. */
#define BLOCK 128

/* What folding does to an accumulator; a mean is a sum, and so on: finish() tells them apart. */
enum fold { FOLD_SUM, FOLD_ABS, FOLD_SQUARE, FOLD_EXP, FOLD_MAX, FOLD_MIN, FOLD_PROD };

static const enum fold folds[KN_REDUCE_COUNT] = {
    [KN_REDUCE_SUM] = FOLD_SUM,         [KN_REDUCE_MEAN] = FOLD_SUM,
    [KN_REDUCE_MAX] = FOLD_MAX,         [KN_REDUCE_MIN] = FOLD_MIN,
    [KN_REDUCE_PROD] = FOLD_PROD,       [KN_REDUCE_L1] = FOLD_ABS,
    [KN_REDUCE_L2] = FOLD_SQUARE,       [KN_REDUCE_LOG_SUM] = FOLD_SUM,
    [KN_REDUCE_LOG_SUM_EXP] = FOLD_EXP, [KN_REDUCE_SUM_SQUARE] = FOLD_SQUARE,
};

/* acc[i * step] takes up x[i * stride]; shift is only for FOLD_EXP. */
#define FOLD_LOOP(expr)                                                                            \
    for (ptrdiff_t i = 0; i < count; i++) {                                                        \
        p = x[i * stride];                                                                         \
        t = acc[i * step];                                                                         \
        acc[i * step] = (expr);                                                                    \
    }                                                                                              \
    break

#define LANES 8

/* The sum of a dense row, side by side, always in the same order. */
static KN_CLONES double sum_row(const float *x, ptrdiff_t count) {
    double lanes[LANES] = {0}, sum = 0.0;
    ptrdiff_t i = 0;

    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] += (double)x[i + j];
    for (int j = 0; j < LANES; j++)
        sum += lanes[j];
    for (; i < count; i++)
        sum += (double)x[i];
    return sum;
}

static double sum_row_double(const double *x, ptrdiff_t count) {
    double sum = 0.0;

    for (ptrdiff_t i = 0; i < count; i++)
        sum += x[i];
    return sum;
}

/* count elements of x, stride apart, into accumulators step apart. */
typedef void (*fold_real_fn)(enum fold fold, const void *x, ptrdiff_t stride, double *acc,
                             ptrdiff_t step, ptrdiff_t count, const double *shift);

#define FOLD_REAL(type, sum)                                                                       \
    static void fold_##type(enum fold fold, const void *vx, ptrdiff_t stride, double *acc,         \
                            ptrdiff_t step, ptrdiff_t count, const double *shift) {                \
        const type *x = vx;                                                                        \
        double p, t;                                                                               \
                                                                                                   \
        if (fold == FOLD_SUM && step == 0 && stride == 1) {                                        \
            *acc += sum(x, count);                                                                 \
            return;                                                                                \
        }                                                                                          \
        switch (fold) {                                                                            \
        case FOLD_SUM:                                                                             \
            FOLD_LOOP(t + p);                                                                      \
        case FOLD_ABS:                                                                             \
            FOLD_LOOP(t + fabs(p));                                                                \
        case FOLD_SQUARE:                                                                          \
            FOLD_LOOP(t + p * p);                                                                  \
        case FOLD_EXP:                                                                             \
            FOLD_LOOP(t + exp(p - shift[i * step]));                                               \
        case FOLD_MAX:                                                                             \
            FOLD_LOOP(p > t || p != p ? p : t);                                                    \
        case FOLD_MIN:                                                                             \
            FOLD_LOOP(p < t || p != p ? p : t);                                                    \
        case FOLD_PROD:                                                                            \
            FOLD_LOOP(t *p);                                                                       \
        }                                                                                          \
    }

FOLD_REAL(float, sum_row)
FOLD_REAL(double, sum_row_double)

/* Integers wrap around in 64 bits. */
static int64_t fold_integer(enum fold fold, int64_t t, int64_t p) {
    switch (fold) {
    case FOLD_SUM:
        return (int64_t)((uint64_t)t + (uint64_t)p);
    case FOLD_ABS:
        return (int64_t)((uint64_t)t + (p < 0 ? 0 - (uint64_t)p : (uint64_t)p));
    case FOLD_SQUARE:
        return (int64_t)((uint64_t)t + (uint64_t)p * (uint64_t)p);
    case FOLD_MAX:
        return p > t ? p : t;
    case FOLD_MIN:
        return p < t ? p : t;
    case FOLD_PROD:
        return (int64_t)((uint64_t)t * (uint64_t)p);
    case FOLD_EXP:
        break;
    }
    return t;
}

static double finish_float(enum kn_reduce op, double acc, double count, double shift) {
    switch (op) {
    case KN_REDUCE_MEAN:
        return acc / count;
    case KN_REDUCE_L2:
        return sqrt(acc);
    case KN_REDUCE_LOG_SUM:
        return log(acc);
    case KN_REDUCE_LOG_SUM_EXP:
        return log(acc) + shift;
    default:
        return acc;
    }
}

static int64_t finish_integer(enum kn_reduce op, int64_t acc, int64_t count) {
    switch (op) {
    case KN_REDUCE_MEAN:
        return count ? acc / count : 0;
    case KN_REDUCE_L2:
        return (int64_t)sqrt((double)acc);
    case KN_REDUCE_LOG_SUM:
        return acc > 0 ? (int64_t)log((double)acc) : 0;
    default:
        return acc;
    }
}

struct reduction {
    enum kn_reduce op;
    enum kn_type type;
    size_t size;           /* of an element */
    struct kn_walk kept;   /* one operand: x; its last dimension is walked in blocks */
    struct kn_walk folded; /* one operand: x */
    ptrdiff_t count;       /* elements of x per element of y */
};

/* The part of shape whose reduced[] is want, walked with the strides it has in x. */
static void part_walk(const struct kn_shape *shape, const bool *reduced, bool want,
                      struct kn_walk *ret_walk) {
    struct kn_shape part = {0};
    int64_t strides[KN_MAX_RANK], stride = 1, all[KN_MAX_RANK];
    const int64_t *const operands[] = {strides};

    for (int i = shape->rank; i-- > 0;) {
        all[i] = stride;
        stride *= shape->dims[i];
    }
    for (int i = 0; i < shape->rank; i++)
        if (reduced[i] == want) {
            strides[part.rank] = all[i];
            part.dims[part.rank++] = shape->dims[i];
        }
    kn_walk_init(ret_walk, &part, 1, operands);
}

/* Folds everything below `count` adjacent outputs, `stride` apart in x, whose first begins at x.
 * One output: along the folded rows; several: across them, element by element. */
static void fold_rows(const struct reduction *r, enum fold fold, const char *x, ptrdiff_t stride,
                      double *acc, ptrdiff_t count, const double *shift) {
    const struct kn_walk *walk = &r->folded;
    ptrdiff_t rows = kn_walk_rows(walk), inner = walk->dims[walk->rank - 1];
    ptrdiff_t inner_stride = walk->strides[0][walk->rank - 1], size = (ptrdiff_t)r->size;
    fold_real_fn fn = r->type == KN_FLOAT ? fold_float : fold_double;
    struct kn_walk_pos pos;

    kn_walk_start(walk, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(walk, &pos)) {
        const char *at = x + pos.offsets[0] * size;
        if (inner_stride < stride)
            for (ptrdiff_t j = 0; j < count; j++)
                fn(fold, at + j * stride * size, inner_stride, acc + j, 0, inner, shift + j);
        else
            for (ptrdiff_t i = 0; i < inner; i++)
                fn(fold, at + i * inner_stride * size, stride, acc, 1, count, shift);
    }
}

static void reduce_block(const struct reduction *r, const char *x, ptrdiff_t stride, void *y,
                         ptrdiff_t at, ptrdiff_t count) {
    double acc[BLOCK], shift[BLOCK];
    enum fold fold = folds[r->op];

    for (ptrdiff_t i = 0; i < count; i++)
        shift[i] = -INFINITY;
    if (fold == FOLD_EXP)
        fold_rows(r, FOLD_MAX, x, stride, shift, count, shift);
    for (ptrdiff_t i = 0; i < count; i++) {
        shift[i] = isinf(shift[i]) ? 0.0 : shift[i];
        acc[i] = fold == FOLD_MAX    ? -INFINITY
                 : fold == FOLD_MIN  ? INFINITY
                 : fold == FOLD_PROD ? 1.0
                                     : 0.0;
    }
    fold_rows(r, fold, x, stride, acc, count, shift);
    for (ptrdiff_t i = 0; i < count; i++) {
        double value = finish_float(r->op, acc[i], (double)r->count, shift[i]);
        if (r->type == KN_FLOAT)
            ((float *)y)[at + i] = (float)value;
        else
            ((double *)y)[at + i] = value;
    }
}

static void reduce_reals(const struct reduction *r, const char *x, void *y) {
    const struct kn_walk *kept = &r->kept;
    ptrdiff_t rows = kn_walk_rows(kept), inner = kept->dims[kept->rank - 1], out = 0;
    ptrdiff_t stride = kept->strides[0][kept->rank - 1], size = (ptrdiff_t)r->size;
    struct kn_walk_pos pos;

    kn_walk_start(kept, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(kept, &pos))
        for (ptrdiff_t i = 0; i < inner; i += BLOCK) {
            ptrdiff_t count = kn_min(BLOCK, inner - i);
            reduce_block(r, x + (pos.offsets[0] + i * stride) * size, stride, y, out, count);
            out += count;
        }
}

/* ---- integers: shape arithmetic, never much ---- */

struct limits {
    int64_t least, most;
};

/* Of each integer type; bool is false and true. An unsigned 64-bit integer is compared with its
 * sign bit turned round. */
static const struct limits limits[KN_UINT64 + 1] = {
    [KN_UINT8] = {0, UINT8_MAX},
    [KN_INT8] = {INT8_MIN, INT8_MAX},
    [KN_UINT16] = {0, UINT16_MAX},
    [KN_INT16] = {INT16_MIN, INT16_MAX},
    [KN_UINT32] = {0, UINT32_MAX},
    [KN_INT32] = {INT32_MIN, INT32_MAX},
    [KN_UINT64] = {INT64_MIN, INT64_MAX},
    [KN_INT64] = {INT64_MIN, INT64_MAX},
    [KN_BOOL] = {0, 1},
};

static bool is_order(enum fold fold) {
    return fold == FOLD_MAX || fold == FOLD_MIN;
}

static int64_t turn_sign(const struct reduction *r, int64_t value) {
    bool turned = r->type == KN_UINT64 && is_order(folds[r->op]);
    return turned ? (int64_t)((uint64_t)value ^ (uint64_t)1 << 63) : value;
}

static void reduce_integer(const struct reduction *r, const char *x, char *y) {
    const struct kn_walk *walk = &r->folded;
    ptrdiff_t rows = kn_walk_rows(walk), inner = walk->dims[walk->rank - 1];
    ptrdiff_t stride = walk->strides[0][walk->rank - 1], size = (ptrdiff_t)r->size;
    enum fold fold = folds[r->op];
    int64_t acc = fold == FOLD_MAX    ? limits[r->type].least
                  : fold == FOLD_MIN  ? limits[r->type].most
                  : fold == FOLD_PROD ? 1
                                      : 0;
    struct kn_walk_pos pos;

    kn_walk_start(walk, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(walk, &pos))
        for (ptrdiff_t i = 0; i < inner; i++) {
            int64_t value;
            kn_cast(r->type, KN_INT64, x + (pos.offsets[0] + i * stride) * size, &value, 1);
            acc = fold_integer(fold, acc, turn_sign(r, value));
        }
    acc = turn_sign(r, finish_integer(r->op, acc, r->count));
    kn_cast(KN_INT64, r->type, &acc, y, 1);
}

static void reduce_integers(const struct reduction *r, const char *x, char *y) {
    const struct kn_walk *kept = &r->kept;
    ptrdiff_t rows = kn_walk_rows(kept), inner = kept->dims[kept->rank - 1];
    ptrdiff_t stride = kept->strides[0][kept->rank - 1], size = (ptrdiff_t)r->size;
    struct kn_walk_pos pos;

    kn_walk_start(kept, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(kept, &pos))
        for (ptrdiff_t i = 0; i < inner; i++, y += size)
            reduce_integer(r, x + (pos.offsets[0] + i * stride) * size, y);
}

static bool is_real(enum kn_type type) {
    return type == KN_FLOAT || type == KN_DOUBLE;
}

/* Sums of exponentials are for reals; bool has an order only. */
static bool is_known(enum kn_reduce op, enum kn_type type) {
    if (op < 0 || op >= KN_REDUCE_COUNT || type < 0 || type > KN_UINT64)
        return false;
    if (is_real(type))
        return true;
    return limits[type].most != 0 && op != KN_REDUCE_LOG_SUM_EXP &&
           (type != KN_BOOL || is_order(folds[op]));
}

int kn_reduce(enum kn_reduce op, enum kn_type type, const struct kn_shape *shape,
              const bool *reduced, const void *x, void *y) {
    struct reduction r = {.op = op, .type = type, .size = kn_type_size(type), .count = 1};

    if (!is_known(op, type))
        return -ENOTSUP;
    for (int i = 0; i < shape->rank; i++)
        if (reduced[i])
            r.count *= (ptrdiff_t)shape->dims[i];
    part_walk(shape, reduced, false, &r.kept);
    part_walk(shape, reduced, true, &r.folded);
    if (is_real(type))
        reduce_reals(&r, x, y);
    else
        reduce_integers(&r, x, y);
    return 0;
}
