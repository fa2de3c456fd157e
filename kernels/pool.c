#include <math.h>
#include <string.h>

#include "band.h"
#include "conv_internal.h"
#include "simd.h"

struct pool_job {
    const struct kn_pool *pool;
    const struct kn_band *band;
    const struct kn_slide *slide;
    const struct two_steps *steps;
    const float *x;
    float *y;
    int64_t *index;
};

static inline bool above(float v, float best) {
    return v > best || v != v;
}

/* ---- averages: sums are divided by the number of cells that count: those of the picture, and with
 * count_include_pad the padded ones, but never those that ceil_mode lets lie beyond. */

/* One axis of the windows, measured from the first cell that may count. */
struct axis {
    ptrdiff_t in, out, kernel, stride, dil;
    ptrdiff_t start; /* of output 0's window */
};

static struct axis rows_of(const struct kn_pool *p) {
    ptrdiff_t pads = p->count_include_pad ? p->pad_top + p->pad_bottom : 0;

    return (struct axis){.in = p->ih + pads,
                         .out = p->oh,
                         .kernel = p->kh,
                         .stride = p->stride_h,
                         .dil = p->dil_h,
                         .start = p->count_include_pad ? 0 : -p->pad_top};
}

static struct axis cols_of(const struct kn_pool *p) {
    ptrdiff_t pads = p->count_include_pad ? p->pad_left + p->pad_right : 0;

    return (struct axis){.in = p->iw + pads,
                         .out = p->ow,
                         .kernel = p->kw,
                         .stride = p->stride_w,
                         .dil = p->dil_w,
                         .start = p->count_include_pad ? 0 : -p->pad_left};
}

/* Taps of output o's window that count. */
static ptrdiff_t taps_that_count(const struct axis *axis, ptrdiff_t o) {
    ptrdiff_t lo, hi;

    kn_valid_range(axis->in, axis->kernel, axis->dil, axis->start + o * axis->stride, &lo, &hi);
    return hi - lo;
}

/* The outputs [*ret_lo, *ret_hi) whose every tap counts. */
static void full_windows(const struct axis *axis, ptrdiff_t *ret_lo, ptrdiff_t *ret_hi) {
    ptrdiff_t lo, hi, last = axis->start + (axis->kernel - 1) * axis->dil;

    kn_valid_range(axis->in, axis->out, axis->stride, axis->start, &lo, &hi);
    kn_valid_range(axis->in, axis->out, axis->stride, last, ret_lo, ret_hi);
    *ret_lo = kn_max(*ret_lo, lo);
    *ret_hi = kn_max(kn_min(*ret_hi, hi), *ret_lo);
}

static float divide(float sum, ptrdiff_t cells) {
    return cells > 0 ? sum / (float)cells : 0.0f;
}

static KN_CLONES void divide_all(float *y, float cells, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        y[i] /= cells;
}

/* Turns the sums of output row oy into averages. */
static void divide_row(const struct kn_pool *pool, ptrdiff_t oy, float *y) {
    struct axis rows = rows_of(pool), cols = cols_of(pool);
    ptrdiff_t lo, hi, cells = taps_that_count(&rows, oy);

    full_windows(&cols, &lo, &hi);
    for (ptrdiff_t ox = 0; ox < lo; ox++)
        y[ox] = divide(y[ox], cells * taps_that_count(&cols, ox));
    if (cells > 0) /* else the sums are 0, and stay it */
        divide_all(y + lo, (float)(cells * pool->kw), hi - lo);
    for (ptrdiff_t ox = hi; ox < pool->ow; ox++)
        y[ox] = divide(y[ox], cells * taps_that_count(&cols, ox));
}

/* ---- maxima of the usual windows */

#define TASK_OUTPUTS 8192 /* of one task, at least, where there are so many planes */

static bool slide_of(const struct kn_pool *pool, struct kn_slide *ret_slide) {
    *ret_slide = (struct kn_slide){.planes = pool->planes,
                                   .ih = pool->ih,
                                   .iw = pool->iw,
                                   .oh = pool->oh,
                                   .ow = pool->ow,
                                   .pad_top = pool->pad_top,
                                   .pad_left = pool->pad_left,
                                   .kernel = pool->kh,
                                   .stride = pool->stride_h};
    return pool->kind == KN_POOL_MAX && pool->kw == pool->kh && pool->stride_w == pool->stride_h &&
           pool->dil_h == 1 && pool->dil_w == 1 && kn_slide_init(ret_slide, false);
}

static ptrdiff_t planes_of_task(const struct kn_pool *pool) {
    return kn_max(TASK_OUTPUTS / ((ptrdiff_t)pool->oh * pool->ow), 1);
}

static void slide_task(void *arg, int task, int thread) {
    const struct pool_job *job = arg;
    const struct kn_pool *pool = job->pool;
    const struct kn_slide *slide = job->slide;
    const struct kn_simd *simd = kn_simd();
    ptrdiff_t count = planes_of_task(pool), first = task * count;
    ptrdiff_t size = (ptrdiff_t)pool->oh * pool->ow;
    _Alignas(KN_ALIGN) float scratch[KN_SLIDE_BYTES_MAX / sizeof(float)];

    (void)thread;
    for (ptrdiff_t plane = first; plane < kn_min(first + count, pool->planes); plane++)
        for (ptrdiff_t oy = 0; oy < pool->oh; oy += slide->rows) {
            struct kn_slide_band band = {.slide = slide,
                                         .scratch = scratch,
                                         .y = job->y + plane * size + oy * pool->ow,
                                         .rows = kn_min(slide->rows, pool->oh - oy),
                                         .room = size - oy * pool->ow};
            simd->slide_fill(slide, job->x + plane * pool->ih * pool->iw, oy, band.rows, -INFINITY,
                             plane > first && band.rows == pool->oh, scratch);
            (slide->narrow ? simd->slide_max_narrow : simd->slide_max)(&band);
        }
}

/* ---- other windows, in bands */

typedef int32_t mask __attribute__((vector_size(32), aligned(4), may_alias));

/* s where v is not above it. */
static inline __attribute__((always_inline)) void take_max(kn_vec *s, const kn_vec *from) {
    kn_vec v = *from;
    mask m = (v > *s) | (v != v); /* NaN. NOLINT(misc-redundant-expression) */

    *s = (kn_vec)(((mask)v & m) | ((mask)*s & ~m));
}

/* y[i] = the taps' maximum, for count results, rounded up to KN_UNIT. */
static KN_CLONES void max_taps(const float *x, const ptrdiff_t *offsets, ptrdiff_t taps, float *y,
                               ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += KN_UNIT) {
        kn_vec *to = (kn_vec *)(y + i);
        kn_vec s0 = (kn_vec){0} - INFINITY, s1 = s0, s2 = s0, s3 = s0;
        for (ptrdiff_t t = 0; t < taps; t++) {
            const kn_vec *from = (const kn_vec *)(x + i + offsets[t]);
            take_max(&s0, from);
            take_max(&s1, from + 1);
            take_max(&s2, from + 2);
            take_max(&s3, from + 3);
        }
        to[0] = s0;
        to[1] = s1;
        to[2] = s2;
        to[3] = s3;
    }
}

/* ---- maxima of large windows: of rows, then of columns of those. Ties and NaN come out as if
 * every window was read row by row. */

#define TAPS_MANY   16 /* of a window that is worth two steps */
#define ROWS_FLOATS ((ptrdiff_t)(KN_BAND_BYTES / sizeof(float)) - KN_UNIT)

/* A band of output rows takes input rows whose maxima lie in scratch: [taken][ow]. */
struct two_steps {
    struct kn_band across; /* windows of one row, over all rows and the padding above and below */
    ptrdiff_t rows;        /* output rows of a band */
    ptrdiff_t offsets[KN_BAND_TAPS_MAX]; /* of a column's taps in that scratch */
};

static bool two_steps_init(const struct kn_pool *pool, struct two_steps *steps) {
    ptrdiff_t reach = ((ptrdiff_t)pool->kh - 1) * pool->dil_h, ow = pool->ow;
    const struct kn_window across = {
        .ih = pool->ih,
        .iw = pool->iw,
        .oh = (ptrdiff_t)(pool->oh - 1) * pool->stride_h + reach + 1,
        .ow = ow,
        .kh = 1,
        .kw = pool->kw,
        .stride_h = 1,
        .stride_w = pool->stride_w,
        .dil_h = 1,
        .dil_w = pool->dil_w,
        .pad_top = pool->pad_top,
        .pad_left = pool->pad_left,
    };

    if (pool->kind != KN_POOL_MAX || pool->kh < 2 || pool->kw < 2 || pool->kh > KN_BAND_TAPS_MAX ||
        (ptrdiff_t)pool->kh * pool->kw < TAPS_MANY || reach >= ROWS_FLOATS / ow ||
        !kn_band_init(&steps->across, &across))
        return false;
    steps->rows = kn_min((ROWS_FLOATS / ow - reach - 1) / pool->stride_h + 1, pool->oh);
    for (ptrdiff_t ky = 0; ky < pool->kh; ky++)
        steps->offsets[ky] = ky * pool->dil_h * ow;
    return true;
}

/* to[i] = the maxima of input row first + i's windows, for count rows; the first row may lie in the
 * padding. */
static void max_across(const struct pool_job *job, const float *x, ptrdiff_t first, ptrdiff_t count,
                       float *to) {
    const struct kn_band *band = &job->steps->across;
    _Alignas(KN_ALIGN) float scratch[KN_BAND_BYTES / sizeof(float)];
    float *results = scratch + band->results;

    for (ptrdiff_t r = 0; r < count; r += band->rows) {
        ptrdiff_t rows = kn_min(band->rows, count - r);
        kn_band_fill(band, x, first + r, rows, -INFINITY, scratch);
        max_taps(scratch, band->offsets, band->taps, results, rows * band->pitch);
        for (ptrdiff_t i = 0; i < rows; i++, to += job->pool->ow)
            memcpy(to, results + i * band->pitch, (size_t)job->pool->ow * sizeof(float));
    }
}

/* The same of the band's columns, for `count` output rows. */
static void max_down(const struct pool_job *job, const float *from, ptrdiff_t count, float *y) {
    const struct kn_pool *pool = job->pool;
    ptrdiff_t rows = pool->stride_h == 1 ? count : 1; /* side by side, as what they need is */
    ptrdiff_t ow = pool->ow, size = rows * ow;
    float unit[KN_UNIT];

    for (ptrdiff_t r = 0; r < count; r += rows)
        for (ptrdiff_t i = 0; i < size; i += KN_UNIT) {
            max_taps(from + r * pool->stride_h * ow + i, job->steps->offsets, pool->kh, unit,
                     KN_UNIT);
            memcpy(y + r * ow + i, unit, (size_t)kn_min(KN_UNIT, size - i) * sizeof(float));
        }
}

static void two_steps_task(void *arg, int task, int thread) {
    const struct pool_job *job = arg;
    const struct kn_pool *pool = job->pool;
    const struct two_steps *steps = job->steps;
    ptrdiff_t ow = pool->ow, reach = ((ptrdiff_t)pool->kh - 1) * pool->dil_h;
    const float *x = job->x + (ptrdiff_t)task * pool->ih * pool->iw;
    float *y = job->y + (ptrdiff_t)task * pool->oh * ow;
    _Alignas(KN_ALIGN) float rows[KN_BAND_BYTES / sizeof(float)];

    (void)thread;
    for (ptrdiff_t oy = 0; oy < pool->oh; oy += steps->rows) {
        ptrdiff_t count = kn_min(steps->rows, pool->oh - oy);
        max_across(job, x, oy * pool->stride_h, (count - 1) * pool->stride_h + reach + 1, rows);
        max_down(job, rows, count, y + oy * ow);
    }
}

static KN_CLONES void sum_taps(const float *x, const ptrdiff_t *offsets, ptrdiff_t taps, float *y,
                               ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += KN_UNIT) {
        kn_vec *to = (kn_vec *)(y + i);
        kn_vec s0 = {0}, s1 = s0, s2 = s0, s3 = s0;
        for (ptrdiff_t t = 0; t < taps; t++) {
            const kn_vec *from = (const kn_vec *)(x + i + offsets[t]);
            s0 += from[0];
            s1 += from[1];
            s2 += from[2];
            s3 += from[3];
        }
        to[0] = s0;
        to[1] = s1;
        to[2] = s2;
        to[3] = s3;
    }
}

static void band_task(void *arg, int task, int thread) {
    const struct pool_job *job = arg;
    const struct kn_pool *pool = job->pool;
    const struct kn_band *band = job->band;
    const float *x = job->x + (ptrdiff_t)task * pool->ih * pool->iw;
    float *y = job->y + (ptrdiff_t)task * pool->oh * pool->ow;
    _Alignas(KN_ALIGN) float scratch[KN_BAND_BYTES / sizeof(float)];
    float *results = scratch + band->results;
    bool max = pool->kind == KN_POOL_MAX;

    (void)thread;
    for (ptrdiff_t oy = 0; oy < pool->oh; oy += band->rows) {
        ptrdiff_t rows = kn_min(band->rows, pool->oh - oy);
        kn_band_fill(band, x, oy, rows, max ? -INFINITY : 0.0f, scratch);
        (max ? max_taps : sum_taps)(scratch, band->offsets, band->taps, results,
                                    rows * band->pitch);
        for (ptrdiff_t r = 0; r < rows; r++, y += pool->ow) {
            for (ptrdiff_t i = 0; i < pool->ow; i++)
                y[i] = results[r * band->pitch + i];
            if (!max)
                divide_row(pool, oy + r, y);
        }
    }
}

/* ---- one window that is the whole plane */

#define LANES 16

typedef float quarter __attribute__((vector_size(LANES / 4 * sizeof(float))));

/* Planes of count elements, one behind the other: LANES sums side by side, then halves of them
 * added to each other until one is left, then what does not fill the lanes. */
static KN_CLONES void average_planes(const float *x, ptrdiff_t planes, ptrdiff_t count, float *y) {
    for (ptrdiff_t p = 0; p < planes; p++, x += count) {
        kn_vec low = {0}, high = {0};
        ptrdiff_t i = 0;
        for (; i + LANES <= count; i += LANES) {
            low += *(const kn_vec *)(x + i);
            high += *(const kn_vec *)(x + i + LANES / 2);
        }
        low += high;
        quarter four = __builtin_shufflevector(low, low, 0, 1, 2, 3) +
                       __builtin_shufflevector(low, low, 4, 5, 6, 7);
        four += __builtin_shufflevector(four, four, 2, 3, 0, 1);
        float sum = four[0] + four[1];
        for (; i < count; i++)
            sum += x[i];
        y[p] = sum / (float)count;
    }
}

static KN_CLONES float max_plane(const float *x, ptrdiff_t count) {
    float lanes[LANES], max = -INFINITY;
    ptrdiff_t i = 0;

    for (int j = 0; j < LANES; j++)
        lanes[j] = -INFINITY;
    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; j++)
            lanes[j] = above(x[i + j], lanes[j]) ? x[i + j] : lanes[j];
    for (int j = 0; j < LANES; j++)
        max = above(lanes[j], max) ? lanes[j] : max;
    for (; i < count; i++)
        max = above(x[i], max) ? x[i] : max;
    return max;
}

#define PLANES_ELEMENTS 16384 /* of a task */

static ptrdiff_t whole_planes_of_task(const struct kn_pool *pool) {
    return kn_max(1, PLANES_ELEMENTS / kn_max(1, (ptrdiff_t)pool->ih * pool->iw));
}

static void plane_task(void *arg, int task, int thread) {
    const struct pool_job *job = arg;
    ptrdiff_t count = (ptrdiff_t)job->pool->ih * job->pool->iw;
    ptrdiff_t first = task * whole_planes_of_task(job->pool);
    ptrdiff_t planes = kn_min(whole_planes_of_task(job->pool), job->pool->planes - first);
    const float *x = job->x + first * count;

    (void)thread;
    if (job->pool->kind != KN_POOL_MAX)
        average_planes(x, planes, count, job->y + first);
    for (ptrdiff_t p = 0; job->pool->kind == KN_POOL_MAX && p < planes; p++)
        job->y[first + p] = max_plane(x + p * count, count);
}

static bool is_whole_plane(const struct kn_pool *pool) {
    return pool->oh == 1 && pool->ow == 1 && pool->kh == pool->ih && pool->kw == pool->iw &&
           pool->dil_h == 1 && pool->dil_w == 1 && pool->pad_top == 0 && pool->pad_left == 0 &&
           pool->pad_bottom == 0 && pool->pad_right == 0;
}

/* ---- window by window: where indices are wanted, or a band would be too large */

/* Takes up one input row, whose first element is number `first` of x, into one output. */
static void take_row(const struct pool_job *job, ptrdiff_t first, ptrdiff_t ox, ptrdiff_t out) {
    const struct kn_pool *pool = job->pool;
    ptrdiff_t lo, hi, start = ox * pool->stride_w - pool->pad_left;

    kn_valid_range(pool->iw, pool->kw, pool->dil_w, start, &lo, &hi);
    for (ptrdiff_t kx = lo; kx < hi; kx++) {
        ptrdiff_t at = first + start + kx * pool->dil_w;
        if (pool->kind == KN_POOL_AVERAGE) {
            job->y[out] += job->x[at];
        } else if (above(job->x[at], job->y[out])) {
            job->y[out] = job->x[at];
            if (job->index)
                job->index[out] = at;
        }
    }
}

static void window_task(void *arg, int task, int thread) {
    const struct pool_job *job = arg;
    const struct kn_pool *pool = job->pool;
    ptrdiff_t out = (ptrdiff_t)task * pool->oh * pool->ow;

    (void)thread;
    for (ptrdiff_t oy = 0; oy < pool->oh; oy++) {
        for (ptrdiff_t ox = 0; ox < pool->ow; ox++, out++) {
            job->y[out] = pool->kind == KN_POOL_MAX ? -INFINITY : 0.0f;
            if (job->index)
                job->index[out] = 0;
            for (ptrdiff_t ky = 0; ky < pool->kh; ky++) {
                ptrdiff_t iy = oy * pool->stride_h + ky * pool->dil_h - pool->pad_top;
                if (iy >= 0 && iy < pool->ih)
                    take_row(job, ((ptrdiff_t)task * pool->ih + iy) * pool->iw, ox, out);
            }
        }
        if (pool->kind == KN_POOL_AVERAGE)
            divide_row(pool, oy, job->y + out - pool->ow);
    }
}

void kn_pool(const struct kn_pool *pool, const float *x, float *y, int64_t *ret_index,
             struct kn_threads *threads) {
    const struct kn_window window = {
        .ih = pool->ih,
        .iw = pool->iw,
        .oh = pool->oh,
        .ow = pool->ow,
        .kh = pool->kh,
        .kw = pool->kw,
        .stride_h = pool->stride_h,
        .stride_w = pool->stride_w,
        .dil_h = pool->dil_h,
        .dil_w = pool->dil_w,
        .pad_top = pool->pad_top,
        .pad_left = pool->pad_left,
    };
    struct kn_band band;
    struct kn_slide slide;
    struct two_steps steps;
    struct pool_job job = {.pool = pool,
                           .band = &band,
                           .slide = &slide,
                           .steps = &steps,
                           .x = x,
                           .y = y,
                           .index = ret_index};
    kn_task task = window_task;
    int tasks = pool->planes;

    if (!ret_index && is_whole_plane(pool)) {
        task = plane_task;
        tasks = (int)kn_ceil_div(pool->planes, whole_planes_of_task(pool));
    } else if (!ret_index && slide_of(pool, &slide)) {
        task = slide_task;
        tasks = (int)kn_ceil_div(pool->planes, planes_of_task(pool));
    } else if (!ret_index && two_steps_init(pool, &steps)) {
        task = two_steps_task;
    } else if (!ret_index && kn_band_init(&band, &window)) {
        task = band_task;
    }
    kn_parallel(threads, tasks, task, &job);
}
