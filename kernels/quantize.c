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

int kn_quantize(const struct kn_scaling *scaling, enum kn_type y_type, const float *x,
                const float *scale, const void *zero, void *y) {
    struct rows rows = rows_of(scaling);
    size_t size = kn_type_size(y_type);

    if (y_type < 0 || y_type >= TYPES || !quantize_rows[y_type])
        return -ENOTSUP;
    for (size_t r = 0; r < rows.count; r++) {
        size_t s = first_scale(&rows, r);
        quantize_rows[y_type](x + r * rows.length, scale + s, zero_at(zero, size, s), rows.step,
                              (char *)y + r * rows.length * size, (ptrdiff_t)rows.length);
    }
    return 0;
}

int kn_dequantize(const struct kn_scaling *scaling, enum kn_type x_type, const void *x,
                  const float *scale, const void *zero, float *y) {
    struct rows rows = rows_of(scaling);
    size_t size = kn_type_size(x_type);

    if (x_type < 0 || x_type >= TYPES || !dequantize_rows[x_type])
        return -ENOTSUP;
    for (size_t r = 0; r < rows.count; r++) {
        size_t s = first_scale(&rows, r);
        dequantize_rows[x_type]((const char *)x + r * rows.length * size, scale + s,
                                zero_at(zero, size, s), rows.step, y + r * rows.length,
                                (ptrdiff_t)rows.length);
    }
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
