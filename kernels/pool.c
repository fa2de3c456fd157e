#include <math.h>

#include "conv_internal.h"

struct pool_job {
    const struct kn_pool *pool;
    const float *x;
    float *y;
    int64_t *index;
};

static inline bool above(float v, float best) {
    return v > best || v != v;
}

static KN_CLONES void max_tap(const float *restrict x, ptrdiff_t stride, float *restrict y,
                              ptrdiff_t count) {
    if (stride == 1)
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] = above(x[i], y[i]) ? x[i] : y[i];
    else if (stride == 2)
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] = above(x[2 * i], y[i]) ? x[2 * i] : y[i];
    else
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] = above(x[i * stride], y[i]) ? x[i * stride] : y[i];
}

static void max_tap_index(const float *x, ptrdiff_t stride, int64_t first, float *y, int64_t *index,
                          ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        if (above(x[i * stride], y[i])) {
            y[i] = x[i * stride];
            index[i] = first + i * stride;
        }
}

static KN_CLONES void sum_tap(const float *restrict x, ptrdiff_t stride, float *restrict y,
                              ptrdiff_t count) {
    if (stride == 1)
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] += x[i];
    else if (stride == 2)
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] += x[2 * i];
    else
        for (ptrdiff_t i = 0; i < count; i++)
            y[i] += x[i * stride];
}

/* Taps k of [0, kernel) with 0 <= k * dil + start < in. */
static ptrdiff_t taps_inside(ptrdiff_t kernel, ptrdiff_t dil, ptrdiff_t start, ptrdiff_t in) {
    ptrdiff_t lo, hi;

    kn_valid_range(in, kernel, dil, start, &lo, &hi);
    return hi - lo;
}

/* Divides the sums of output row oy by the number of cells that count: those of the picture, and
 * with count_include_pad the padded ones, but never those that ceil_mode lets lie beyond. */
static void divide_row(const struct kn_pool *pool, ptrdiff_t oy, float *y) {
    ptrdiff_t y0 = oy * pool->stride_h - pool->pad_top;
    ptrdiff_t pad_y = pool->count_include_pad ? pool->pad_top : 0;
    ptrdiff_t pad_x = pool->count_include_pad ? pool->pad_left : 0;
    ptrdiff_t in_h = pool->ih + (pool->count_include_pad ? pool->pad_top + pool->pad_bottom : 0);
    ptrdiff_t in_w = pool->iw + (pool->count_include_pad ? pool->pad_left + pool->pad_right : 0);
    ptrdiff_t rows = taps_inside(pool->kh, pool->dil_h, y0 + pad_y, in_h);

    for (ptrdiff_t ox = 0; ox < pool->ow; ox++) {
        ptrdiff_t x0 = ox * pool->stride_w - pool->pad_left;
        ptrdiff_t cells = rows * taps_inside(pool->kw, pool->dil_w, x0 + pad_x, in_w);
        y[ox] = cells > 0 ? y[ox] / (float)cells : 0.0f;
    }
}

/* Adds the taps of one input row (number `first` of x) to an output row. */
static void pool_row(const struct pool_job *job, ptrdiff_t first, float *y, int64_t *index) {
    const struct kn_pool *pool = job->pool;
    ptrdiff_t stride = pool->stride_w;

    for (ptrdiff_t kx = 0; kx < pool->kw; kx++) {
        ptrdiff_t offset = kx * pool->dil_w - pool->pad_left, lo, hi;
        kn_valid_range(pool->iw, pool->ow, stride, offset, &lo, &hi);
        ptrdiff_t from = first + lo * stride + offset;
        if (lo == hi)
            continue;
        if (pool->kind == KN_POOL_AVERAGE)
            sum_tap(job->x + from, stride, y + lo, hi - lo);
        else if (index)
            max_tap_index(job->x + from, stride, from, y + lo, index + lo, hi - lo);
        else
            max_tap(job->x + from, stride, y + lo, hi - lo);
    }
}

static void pool_task(void *arg, int task, int thread) {
    const struct pool_job *job = arg;
    const struct kn_pool *pool = job->pool;
    ptrdiff_t at = (ptrdiff_t)task * pool->oh * pool->ow;
    float start = pool->kind == KN_POOL_MAX ? -INFINITY : 0.0f;

    (void)thread;
    for (ptrdiff_t oy = 0; oy < pool->oh; oy++, at += pool->ow) {
        float *y = job->y + at;
        int64_t *index = job->index ? job->index + at : NULL;
        for (ptrdiff_t ox = 0; ox < pool->ow; ox++)
            y[ox] = start;
        for (ptrdiff_t ox = 0; index && ox < pool->ow; ox++)
            index[ox] = 0;
        for (ptrdiff_t ky = 0; ky < pool->kh; ky++) {
            ptrdiff_t iy = oy * pool->stride_h + ky * pool->dil_h - pool->pad_top;
            if (iy >= 0 && iy < pool->ih)
                pool_row(job, ((ptrdiff_t)task * pool->ih + iy) * pool->iw, y, index);
        }
        if (pool->kind == KN_POOL_AVERAGE)
            divide_row(pool, oy, y);
    }
}

#define LANES 16

/* The sum of count elements, always in the same order. */
static KN_CLONES float sum_plane(const float *x, ptrdiff_t count) {
    float lanes[LANES] = {0};
    float sum = 0.0f;
    ptrdiff_t i = 0;

    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] += x[i + j];
    for (int j = 0; j < LANES; j++)
        sum += lanes[j];
    for (; i < count; i++)
        sum += x[i];
    return sum;
}

static void global_average_task(void *arg, int task, int thread) {
    const struct pool_job *job = arg;
    ptrdiff_t count = (ptrdiff_t)job->pool->ih * job->pool->iw;

    (void)thread;
    job->y[task] = sum_plane(job->x + task * count, count) / (float)count;
}

static bool is_global(const struct kn_pool *pool) {
    return pool->oh == 1 && pool->ow == 1 && pool->kh == pool->ih && pool->kw == pool->iw &&
           pool->dil_h == 1 && pool->dil_w == 1 && pool->pad_top == 0 && pool->pad_left == 0 &&
           pool->pad_bottom == 0 && pool->pad_right == 0;
}

void kn_pool(const struct kn_pool *pool, const float *x, float *y, int64_t *ret_index,
             struct kn_threads *threads) {
    struct pool_job job = {.pool = pool, .x = x, .y = y, .index = ret_index};
    bool global = pool->kind == KN_POOL_AVERAGE && is_global(pool);

    kn_parallel(threads, pool->planes, global ? global_average_task : pool_task, &job);
}
