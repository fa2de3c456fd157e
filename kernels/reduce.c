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

static void fold_float(enum fold fold, const float *x, ptrdiff_t stride, double *acc,
                       ptrdiff_t step, ptrdiff_t count, const double *shift) {
    double p, t;

    if (fold == FOLD_SUM && step == 0 && stride == 1) {
        *acc += sum_row(x, count);
        return;
    }
    switch (fold) {
    case FOLD_SUM:
        FOLD_LOOP(t + p);
    case FOLD_ABS:
        FOLD_LOOP(t + fabs(p));
    case FOLD_SQUARE:
        FOLD_LOOP(t + p * p);
    case FOLD_EXP:
        FOLD_LOOP(t + exp(p - shift[i * step]));
    case FOLD_MAX:
        FOLD_LOOP(p > t || p != p ? p : t);
    case FOLD_MIN:
        FOLD_LOOP(p < t || p != p ? p : t);
    case FOLD_PROD:
        FOLD_LOOP(t * p);
    }
}

/* Integers wrap around in 64 bits. */
#define FOLD_INTEGER(type)                                                                         \
    static void fold_##type(enum fold fold, const type *x, ptrdiff_t stride, int64_t *acc,         \
                            ptrdiff_t step, ptrdiff_t count) {                                     \
        int64_t p, t;                                                                              \
                                                                                                   \
        switch (fold) {                                                                            \
        case FOLD_SUM:                                                                             \
            FOLD_LOOP((int64_t)((uint64_t)t + (uint64_t)p));                                       \
        case FOLD_ABS:                                                                             \
            FOLD_LOOP((int64_t)((uint64_t)t + (p < 0 ? 0 - (uint64_t)p : (uint64_t)p)));           \
        case FOLD_SQUARE:                                                                          \
            FOLD_LOOP((int64_t)((uint64_t)t + (uint64_t)p * (uint64_t)p));                         \
        case FOLD_EXP:                                                                             \
            break;                                                                                 \
        case FOLD_MAX:                                                                             \
            FOLD_LOOP(p > t ? p : t);                                                              \
        case FOLD_MIN:                                                                             \
            FOLD_LOOP(p < t ? p : t);                                                              \
        case FOLD_PROD:                                                                            \
            FOLD_LOOP((int64_t)((uint64_t)t * (uint64_t)p));                                       \
        }                                                                                          \
    }

FOLD_INTEGER(int32_t)
FOLD_INTEGER(int64_t)

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
static void fold_rows_float(const struct reduction *r, enum fold fold, const float *x,
                            ptrdiff_t stride, double *acc, ptrdiff_t count, const double *shift) {
    const struct kn_walk *walk = &r->folded;
    ptrdiff_t rows = kn_walk_rows(walk), inner = walk->dims[walk->rank - 1];
    ptrdiff_t inner_stride = walk->strides[0][walk->rank - 1];
    struct kn_walk_pos pos;

    kn_walk_start(walk, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(walk, &pos)) {
        const float *at = x + pos.offsets[0];
        if (inner_stride < stride)
            for (ptrdiff_t j = 0; j < count; j++)
                fold_float(fold, at + j * stride, inner_stride, acc + j, 0, inner, shift + j);
        else
            for (ptrdiff_t i = 0; i < inner; i++)
                fold_float(fold, at + i * inner_stride, stride, acc, 1, count, shift);
    }
}

static void reduce_block_float(const struct reduction *r, const float *x, ptrdiff_t stride,
                               float *y, ptrdiff_t count) {
    double acc[BLOCK], shift[BLOCK];
    enum fold fold = folds[r->op];

    for (ptrdiff_t i = 0; i < count; i++)
        shift[i] = -INFINITY;
    if (fold == FOLD_EXP)
        fold_rows_float(r, FOLD_MAX, x, stride, shift, count, shift);
    for (ptrdiff_t i = 0; i < count; i++) {
        shift[i] = isinf(shift[i]) ? 0.0 : shift[i];
        acc[i] = fold == FOLD_MAX    ? -INFINITY
                 : fold == FOLD_MIN  ? INFINITY
                 : fold == FOLD_PROD ? 1.0
                                     : 0.0;
    }
    fold_rows_float(r, fold, x, stride, acc, count, shift);
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = (float)finish_float(r->op, acc[i], (double)r->count, shift[i]);
}

static void fold_integer(const struct reduction *r, const void *x, ptrdiff_t at, ptrdiff_t stride,
                         int64_t *acc, ptrdiff_t step, ptrdiff_t count) {
    if (r->type == KN_INT32)
        fold_int32_t(folds[r->op], (const int32_t *)x + at, stride, acc, step, count);
    else
        fold_int64_t(folds[r->op], (const int64_t *)x + at, stride, acc, step, count);
}

static int64_t start_integer(enum fold fold, enum kn_type type) {
    switch (fold) {
    case FOLD_MAX:
        return type == KN_INT32 ? INT32_MIN : INT64_MIN;
    case FOLD_MIN:
        return type == KN_INT32 ? INT32_MAX : INT64_MAX;
    case FOLD_PROD:
        return 1;
    default:
        return 0;
    }
}

/* One output; integers are shape arithmetic, never much. */
static int64_t reduce_integer(const struct reduction *r, const void *x, ptrdiff_t at) {
    const struct kn_walk *walk = &r->folded;
    ptrdiff_t rows = kn_walk_rows(walk);
    int64_t acc = start_integer(folds[r->op], r->type);
    struct kn_walk_pos pos;

    kn_walk_start(walk, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(walk, &pos))
        fold_integer(r, x, at + pos.offsets[0], walk->strides[0][walk->rank - 1], &acc, 0,
                     walk->dims[walk->rank - 1]);
    return finish_integer(r->op, acc, r->count);
}

static void reduce_all_integer(const struct reduction *r, const void *x, void *y) {
    const struct kn_walk *kept = &r->kept;
    ptrdiff_t rows = kn_walk_rows(kept), inner = kept->dims[kept->rank - 1], out = 0;
    ptrdiff_t stride = kept->strides[0][kept->rank - 1];
    struct kn_walk_pos pos;

    kn_walk_start(kept, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(kept, &pos))
        for (ptrdiff_t i = 0; i < inner; i++, out++) {
            int64_t value = reduce_integer(r, x, pos.offsets[0] + i * stride);
            if (r->type == KN_INT32)
                ((int32_t *)y)[out] = (int32_t)(uint32_t)value;
            else
                ((int64_t *)y)[out] = value;
        }
}

static void reduce_all_float(const struct reduction *r, const float *x, float *y) {
    const struct kn_walk *kept = &r->kept;
    ptrdiff_t rows = kn_walk_rows(kept), inner = kept->dims[kept->rank - 1];
    ptrdiff_t stride = kept->strides[0][kept->rank - 1];
    struct kn_walk_pos pos;

    kn_walk_start(kept, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(kept, &pos))
        for (ptrdiff_t i = 0; i < inner; i += BLOCK) {
            ptrdiff_t count = kn_min(BLOCK, inner - i);
            reduce_block_float(r, x + pos.offsets[0] + i * stride, stride, y, count);
            y += count;
        }
}

int kn_reduce(enum kn_reduce op, enum kn_type type, const struct kn_shape *shape,
              const bool *reduced, const void *x, void *y) {
    struct reduction r = {.op = op, .type = type, .count = 1};

    if (op < 0 || op >= KN_REDUCE_COUNT ||
        (type != KN_FLOAT && type != KN_INT32 && type != KN_INT64) ||
        (type != KN_FLOAT && op == KN_REDUCE_LOG_SUM_EXP))
        return -ENOTSUP;
    for (int i = 0; i < shape->rank; i++)
        if (reduced[i])
            r.count *= (ptrdiff_t)shape->dims[i];
    part_walk(shape, reduced, false, &r.kept);
    part_walk(shape, reduced, true, &r.folded);
    if (type == KN_FLOAT)
        reduce_all_float(&r, x, y);
    else
        reduce_all_integer(&r, x, y);
    return 0;
}
