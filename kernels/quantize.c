/* Between numbers and quantised numbers. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "quantized_internal.h"

/* Adding and taking away this number rounds to an integer, half to even, in any vector unit; for
 * numbers below 2^22, which clamping sees to. */
#define ROUNDER 0x1.8p23f

/* saturate(round(v) + zero): clamped before it is rounded, between integers, which is the same. */
#define SATURATED(v, zero, least, most)                                                            \
    float low = (float)((least) - (zero)), high = (float)((most) - (zero));                        \
    float clamped = (v) > low ? (v) : low;                                                         \
    clamped = clamped < high ? clamped : high;                                                     \
    int32_t q = (int32_t)((clamped + ROUNDER) - ROUNDER) + (zero)

/* One row: its scales and zeros are step apart, 0 for one of all. */
#define ROW(type, least, most)                                                                     \
    static KN_CLONES void quantize_##type(const float *x, const float *scale, const void *vzero,   \
                                          size_t step, void *vy, ptrdiff_t count) {                \
        const type *zeros = vzero;                                                                 \
        type *y = vy;                                                                              \
        if (step == 0) {                                                                           \
            int32_t zero = zeros ? zeros[0] : 0;                                                   \
            float s = scale[0];                                                                    \
            for (ptrdiff_t i = 0; i < count; i++) {                                                \
                float v = x[i] / s;                                                                \
                SATURATED(v, zero, least, most);                                                   \
                y[i] = (type)q;                                                                    \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            int32_t zero = zeros ? zeros[i] : 0;                                                   \
            float v = x[i] / scale[i];                                                             \
            SATURATED(v, zero, least, most);                                                       \
            y[i] = (type)q;                                                                        \
        }                                                                                          \
    }                                                                                              \
    DEQUANTIZE(type, int32_t)

#define DEQUANTIZE(type, wide)                                                                     \
    static KN_CLONES void dequantize_##type(const void *vx, const float *scale, const void *vzero, \
                                            size_t step, float *y, ptrdiff_t count) {              \
        const type *x = vx, *zeros = vzero;                                                        \
        if (step == 0) {                                                                           \
            wide zero = zeros ? zeros[0] : 0;                                                      \
            float s = scale[0];                                                                    \
            for (ptrdiff_t i = 0; i < count; i++)                                                  \
                y[i] = (float)(x[i] - zero) * s;                                                   \
            return;                                                                                \
        }                                                                                          \
        for (ptrdiff_t i = 0; i < count; i++)                                                      \
            y[i] = (float)(x[i] - (zeros ? zeros[i] : (wide)0)) * scale[i];                        \
    }

ROW(uint8_t, 0, UINT8_MAX)
ROW(int8_t, INT8_MIN, INT8_MAX)
ROW(uint16_t, 0, UINT16_MAX)
ROW(int16_t, INT16_MIN, INT16_MAX)
DEQUANTIZE(int32_t, int64_t)

typedef void (*quantize_fn)(const float *x, const float *scale, const void *zero, size_t step,
                            void *y, ptrdiff_t count);
typedef void (*dequantize_fn)(const void *x, const float *scale, const void *zero, size_t step,
                              float *y, ptrdiff_t count);

#define TYPES (KN_INT32 + 1)

static const quantize_fn quantize_rows[TYPES] = {
    [KN_UINT8] = quantize_uint8_t,
    [KN_INT8] = quantize_int8_t,
    [KN_UINT16] = quantize_uint16_t,
    [KN_INT16] = quantize_int16_t,
};

static const dequantize_fn dequantize_rows[TYPES] = {
    [KN_UINT8] = dequantize_uint8_t,   [KN_INT8] = dequantize_int8_t,
    [KN_UINT16] = dequantize_uint16_t, [KN_INT16] = dequantize_int16_t,
    [KN_INT32] = dequantize_int32_t,
};

/* The rows of a tensor, one after the other: along the axis where that is the last one and every
 * element has a scale of its own. */
struct rows {
    const struct kn_scaling *scaling;
    size_t count, length, step;
    bool along_axis;
};

static struct rows rows_of(const struct kn_scaling *s) {
    bool along = s->inner == 1 && s->block == 1;

    return (struct rows){.scaling = s,
                         .along_axis = along,
                         .count = along ? s->outer : s->outer * s->axis,
                         .length = along ? s->axis : s->inner,
                         .step = along ? s->axis_step : s->inner_step};
}

static size_t first_scale(const struct rows *rows, size_t row) {
    const struct kn_scaling *s = rows->scaling;

    if (rows->along_axis)
        return row * s->outer_step;
    return row / s->axis * s->outer_step + row % s->axis / s->block * s->axis_step;
}

static const void *zero_at(const void *zero, size_t size, size_t i) {
    return zero ? (const char *)zero + i * size : NULL;
}

#define TASK_ELEMENTS 32768

/* One call: exactly one of quantize and dequantize is set. */
struct scale_job {
    quantize_fn quantize;
    dequantize_fn dequantize;
    struct rows rows;
    size_t size; /* of a quantised number */
    const char *x;
    const float *scale;
    const void *zero;
    char *y;
    size_t piece, pieces, rows_per_task; /* of a task: rows, or a piece of one */
};

/* Elements [begin, begin + count) of a row. */
static void scale_piece(const struct scale_job *job, size_t row, size_t begin, size_t count) {
    size_t s = first_scale(&job->rows, row) + begin * job->rows.step;
    size_t at = row * job->rows.length + begin;
    const void *zero = zero_at(job->zero, job->size, s);

    if (job->quantize)
        job->quantize((const float *)(const void *)job->x + at, job->scale + s, zero,
                      job->rows.step, job->y + at * job->size, (ptrdiff_t)count);
    else
        job->dequantize(job->x + at * job->size, job->scale + s, zero, job->rows.step,
                        (float *)(void *)job->y + at, (ptrdiff_t)count);
}

static void scale_task(void *arg, int task, int thread) {
    const struct scale_job *job = arg;
    size_t first = (size_t)task / job->pieces * job->rows_per_task;
    size_t begin = (size_t)task % job->pieces * job->piece;
    size_t last =
        (size_t)kn_min((ptrdiff_t)(first + job->rows_per_task), (ptrdiff_t)job->rows.count);
    size_t count = (size_t)kn_min((ptrdiff_t)job->piece, (ptrdiff_t)(job->rows.length - begin));

    (void)thread;
    for (size_t row = first; row < last; row++)
        scale_piece(job, row, begin, count);
}

static void scale_all(struct scale_job *job, struct kn_threads *threads) {
    ptrdiff_t rows = (ptrdiff_t)job->rows.count, length = (ptrdiff_t)job->rows.length;

    if (rows == 0 || length == 0)
        return;
    ptrdiff_t grain = kn_max(TASK_ELEMENTS, kn_ceil_div(rows * length, 1024));
    job->piece = (size_t)kn_min(length, grain);
    job->pieces = (size_t)kn_ceil_div(length, (ptrdiff_t)job->piece);
    job->rows_per_task = (size_t)kn_max(1, grain / length);
    kn_parallel(threads,
                (int)(kn_ceil_div(rows, (ptrdiff_t)job->rows_per_task) * (ptrdiff_t)job->pieces),
                scale_task, job);
}

int kn_quantize(const struct kn_scaling *scaling, enum kn_type y_type, const float *x,
                const float *scale, const void *zero, void *y, struct kn_threads *threads) {
    struct scale_job job = {.rows = rows_of(scaling),
                            .size = kn_type_size(y_type),
                            .x = (const char *)x,
                            .scale = scale,
                            .zero = zero,
                            .y = y};

    if (y_type < 0 || y_type >= TYPES || !quantize_rows[y_type])
        return -ENOTSUP;
    job.quantize = quantize_rows[y_type];
    scale_all(&job, threads);
    return 0;
}

int kn_dequantize(const struct kn_scaling *scaling, enum kn_type x_type, const void *x,
                  const float *scale, const void *zero, float *y, struct kn_threads *threads) {
    struct scale_job job = {.rows = rows_of(scaling),
                            .size = kn_type_size(x_type),
                            .x = x,
                            .scale = scale,
                            .zero = zero,
                            .y = (char *)y};

    if (x_type < 0 || x_type >= TYPES || !dequantize_rows[x_type])
        return -ENOTSUP;
    job.dequantize = dequantize_rows[x_type];
    scale_all(&job, threads);
    return 0;
}

void kn_quantize_range(const float *x, size_t count, float *ret_scale, uint8_t *ret_zero) {
    float least = 0.0f, most = 0.0f;

    for (size_t i = 0; i < count; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    float scale = (most - least) / 255.0f;
    *ret_scale = scale > 0.0f ? scale : 1.0f;
    float zero = rintf(0.0f - least / *ret_scale);
    *ret_zero = (uint8_t)(zero < 255.0f ? zero : 255.0f);
}

/* ---- what the products share */

#define REQUANTIZE(type, least, most)                                                              \
    static KN_CLONES void requantize_##type(const int32_t *sums, const float *scale, size_t step,  \
                                            int32_t zero, type *y, ptrdiff_t count) {              \
        if (step == 0) {                                                                           \
            float s = scale[0];                                                                    \
            for (ptrdiff_t i = 0; i < count; i++) {                                                \
                float v = (float)sums[i] * s;                                                      \
                SATURATED(v, zero, least, most);                                                   \
                y[i] = (type)q;                                                                    \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            float v = (float)sums[i] * scale[i];                                                   \
            SATURATED(v, zero, least, most);                                                       \
            y[i] = (type)q;                                                                        \
        }                                                                                          \
    }

REQUANTIZE(uint8_t, 0, UINT8_MAX)
REQUANTIZE(int8_t, INT8_MIN, INT8_MAX)

void kn_requantize_row(enum kn_type type, const int32_t *sums, const float *scale, size_t step,
                       int32_t zero, void *y, ptrdiff_t at, ptrdiff_t count) {
    if (type == KN_INT32)
        memcpy((int32_t *)y + at, sums, (size_t)count * sizeof(*sums));
    else if (type == KN_UINT8)
        requantize_uint8_t(sums, scale, step, zero, (uint8_t *)y + at, count);
    else
        requantize_int8_t(sums, scale, step, zero, (int8_t *)y + at, count);
}

int32_t kn_byte(enum kn_type type, const void *x, size_t i) {
    if (!x)
        return 0;
    return type == KN_UINT8 ? ((const uint8_t *)x)[i] : ((const int8_t *)x)[i];
}

size_t kn_qdepth(size_t k) {
    return kn_round_up(k, KN_DOT_DEPTH);
}
