#include <math.h>

#include "internal.h"

struct scale_job {
    ptrdiff_t c, inner;
    const float *scale, *shift, *x;
    const struct kn_activation *act;
    float *y;
};

static KN_CLONES void scale_row(float scale, float shift, const float *x, float *y,
                                ptrdiff_t count) {
    KN_IVDEP
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] = x[i] * scale + shift;
}

#define SCALE_CHUNK 2048 /* elements that stay in the first cache until they are activated */

static void scale_task(void *arg, int task, int thread) {
    const struct scale_job *job = arg;
    ptrdiff_t c = task % job->c, at = task * job->inner, end = at + job->inner;

    (void)thread;
    for (; at < end; at += SCALE_CHUNK) {
        ptrdiff_t count = kn_min(SCALE_CHUNK, end - at);
        scale_row(job->scale[c], job->shift[c], job->x + at, job->y + at, count);
        kn_act_row(job->act, job->y + at, job->y + at, count);
    }
}

void kn_scale_shift(int n, int c, size_t inner, const float *scale, const float *shift,
                    const struct kn_activation *act, const float *x, float *y,
                    struct kn_threads *threads) {
    struct scale_job job = {.c = c,
                            .inner = (ptrdiff_t)inner,
                            .scale = scale,
                            .shift = shift,
                            .x = x,
                            .act = act,
                            .y = y};

    kn_parallel(threads, n * c, scale_task, &job);
}

#define LRN_CHUNK 512

struct lrn_job {
    ptrdiff_t c, inner, size;
    float alpha, beta, bias;
    const float *x;
    float *y;
};

static KN_CLONES void add_squares(const float *restrict x, float *restrict sum, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        sum[i] += x[i] * x[i];
}

/* y = x / d^beta with d in sum; the usual beta needs no pow(). */
static KN_CLONES void divide_power(float beta, const float *restrict x, const float *restrict sum,
                                   float *restrict y, ptrdiff_t count) {
    if (beta == 0.75f)
        for (ptrdiff_t i = 0; i < count; i++) {
            float root = sqrtf(sum[i]);
            y[i] = x[i] / (root * sqrtf(root));
        }
    else
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] = x[i] / powf(sum[i], beta);
}

static void lrn_task(void *arg, int task, int thread) {
    const struct lrn_job *job = arg;
    ptrdiff_t c = task % job->c, n = task / job->c;
    ptrdiff_t lo = kn_max(0, c - (job->size - 1) / 2);
    ptrdiff_t hi = kn_min(job->c, c + job->size / 2 + 1);
    float factor = job->alpha / (float)job->size;

    (void)thread;
    for (ptrdiff_t at = 0; at < job->inner; at += LRN_CHUNK) {
        float sum[LRN_CHUNK] = {0};
        ptrdiff_t count = kn_min(LRN_CHUNK, job->inner - at);
        ptrdiff_t here = task * job->inner + at;
        for (ptrdiff_t i = lo; i < hi; i++)
            add_squares(job->x + (n * job->c + i) * job->inner + at, sum, count);
        for (ptrdiff_t i = 0; i < count; i++)
            sum[i] = job->bias + factor * sum[i];
        divide_power(job->beta, job->x + here, sum, job->y + here, count);
    }
}

void kn_lrn(int n, int c, size_t inner, int size, float alpha, float beta, float bias,
            const float *x, float *y, struct kn_threads *threads) {
    struct lrn_job job = {.c = c,
                          .inner = (ptrdiff_t)inner,
                          .size = size,
                          .alpha = alpha,
                          .beta = beta,
                          .bias = bias,
                          .x = x,
                          .y = y};

    kn_parallel(threads, n * c, lrn_task, &job);
}
