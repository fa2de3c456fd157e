/* Rows brought to mean 0 and variance 1, or to length 1: InstanceNormalization and its relatives,
 * LpNormalization. */
#include <math.h>

#include "internal.h"

#define LANES 8
#define CHUNK 256 /* elements of a row, or adjacent lines, handled at once */
#define TASKS 1024

/* The sum of (x - mean) or of its square, side by side, always in the same order. */
static KN_CLONES double sum_row(const float *x, ptrdiff_t count, double mean, bool square) {
    double lanes[LANES] = {0}, sum = 0.0;
    ptrdiff_t i = 0;

    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double d = (double)x[i + j] - mean;
            lanes[j] += square ? d * d : d;
        }
    for (int j = 0; j < LANES; j++)
        sum += lanes[j];
    for (; i < count; i++) {
        double d = (double)x[i] - mean;
        sum += square ? d * d : d;
    }
    return sum;
}

static KN_CLONES void scale_run(const float *x, float mean, float scale, float bias, float *y,
                                ptrdiff_t count) {
    KN_IVDEP
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = (x[i] - mean) * scale + bias;
}

static KN_CLONES void scale_each(const float *x, float mean, float inverse, const float *scale,
                                 const float *bias, float *y, ptrdiff_t count) {
    KN_IVDEP
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = (x[i] - mean) * inverse * scale[i] + (bias ? bias[i] : 0.0f);
}

struct job {
    const struct kn_standardize *s;
    const float *scale, *bias, *x;
    float *y, *mean, *inverse;
    ptrdiff_t rows_per_task;
};

static void finish_row(const struct job *job, ptrdiff_t row, float mean, float inverse) {
    const struct kn_standardize *s = job->s;
    ptrdiff_t count = (ptrdiff_t)s->count, inner = (ptrdiff_t)s->inner;
    const float *x = job->x + row * count;
    float *y = job->y + row * count;

    if (inner == 1 && s->channels == s->count) {
        scale_each(x, mean, inverse, job->scale, job->bias, y, count);
        return;
    }
    for (ptrdiff_t i = 0; i < count; i += inner) {
        size_t c = ((size_t)row * s->count + (size_t)i) / s->inner % s->channels;
        scale_run(x + i, mean, inverse * job->scale[c], job->bias ? job->bias[c] : 0.0f, y + i,
                  kn_min(inner, count - i));
    }
}

static void standardize_task(void *arg, int task, int thread) {
    const struct job *job = arg;
    ptrdiff_t count = (ptrdiff_t)job->s->count, first = task * job->rows_per_task;
    ptrdiff_t end = kn_min(first + job->rows_per_task, (ptrdiff_t)job->s->rows);

    (void)thread;
    for (ptrdiff_t row = first; row < end; row++) {
        const float *x = job->x + row * count;
        double mean = sum_row(x, count, 0.0, false) / (double)count;
        double variance = sum_row(x, count, mean, true) / (double)count;
        float inverse = (float)(1.0 / sqrt(variance + (double)job->s->epsilon));
        finish_row(job, row, (float)mean, inverse);
        if (job->mean)
            job->mean[row] = (float)mean;
        if (job->inverse)
            job->inverse[row] = inverse;
    }
}

void kn_standardize(const struct kn_standardize *standardize, const float *scale, const float *bias,
                    const float *x, float *y, float *ret_mean, float *ret_inverse,
                    struct kn_threads *threads) {
    struct job job = {.s = standardize,
                      .scale = scale,
                      .bias = bias,
                      .x = x,
                      .y = y,
                      .mean = ret_mean,
                      .inverse = ret_inverse};
    ptrdiff_t rows = (ptrdiff_t)standardize->rows;

    if (rows == 0)
        return;
    job.rows_per_task = kn_ceil_div(rows, TASKS);
    kn_parallel(threads, (int)kn_ceil_div(rows, job.rows_per_task), standardize_task, &job);
}

/* ---- LpNormalization ---- */

static KN_CLONES void add_norms(const float *x, bool square, double *sum, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) {
        double v = (double)x[i];
        sum[i] += square ? v * v : fabs(v);
    }
}

/* Where the norm is 0, so are the elements. */
static KN_CLONES void divide_norms(const float *x, const double *norm, float *y, ptrdiff_t count) {
    KN_IVDEP
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = norm[i] == 0.0 ? 0.0f : (float)((double)x[i] / norm[i]);
}

void kn_lp_normalize(size_t outer, size_t axis, size_t inner, int p, const float *x, float *y) {
    double norm[CHUNK];

    for (size_t o = 0; o < outer; o++)
        for (size_t begin = 0; begin < inner; begin += CHUNK) {
            ptrdiff_t count = kn_min(CHUNK, (ptrdiff_t)(inner - begin));
            const float *from = x + o * axis * inner + begin;
            float *to = y + o * axis * inner + begin;
            for (ptrdiff_t i = 0; i < count; i++)
                norm[i] = 0.0;
            for (size_t a = 0; a < axis; a++)
                add_norms(from + a * inner, p == 2, norm, count);
            for (ptrdiff_t i = 0; i < count && p == 2; i++)
                norm[i] = sqrt(norm[i]);
            for (size_t a = 0; a < axis; a++)
                divide_norms(from + a * inner, norm, to + a * inner, count);
        }
}
