/* Pooling of volumes, window by window, one plane a task; and MaxUnpool. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "conv_internal.h"
#include "volume.h"

struct pool3_job {
    const struct kn_pool3 *pool;
    const void *x;
    void *y;
    int64_t *index;
};

/* The cells of the picture that a window has: taps [lo, hi) of each axis, from start on. */
struct reach {
    ptrdiff_t start[3], lo[3], hi[3];
};

static void reach_of(const struct kn_pool3 *p, ptrdiff_t out, struct reach *ret) {
    for (int axis = 3; axis-- > 0; out /= p->out[axis]) {
        ret->start[axis] = out % p->out[axis] * p->stride[axis] - p->begin[axis];
        kn_valid_range(p->in[axis], p->kernel[axis], p->dil[axis], ret->start[axis], &ret->lo[axis],
                       &ret->hi[axis]);
    }
}

/* Cells of a window that an average is divided by: never those beyond the padding. */
static double cells_of(const struct kn_pool3 *p, const struct reach *reach) {
    double cells = 1.0;

    for (int axis = 0; axis < 3; axis++) {
        ptrdiff_t lo = reach->lo[axis], hi = reach->hi[axis];
        if (p->count_include_pad)
            kn_valid_range((ptrdiff_t)p->in[axis] + p->begin[axis] + p->end[axis], p->kernel[axis],
                           p->dil[axis], reach->start[axis] + p->begin[axis], &lo, &hi);
        cells *= (double)(hi - lo);
    }
    return cells;
}

static int64_t index_of(const struct kn_pool3 *p, ptrdiff_t z, ptrdiff_t y, ptrdiff_t x) {
    if (p->column_major)
        return ((int64_t)x * p->in[1] + y) * p->in[0] + z;
    return ((int64_t)z * p->in[1] + y) * p->in[2] + x;
}

/* Walks the cells of a window: at is their place in the plane. */
#define EACH_CELL(p, r, body)                                                                      \
    for (ptrdiff_t kz = (r)->lo[0]; kz < (r)->hi[0]; kz++)                                         \
        for (ptrdiff_t ky = (r)->lo[1]; ky < (r)->hi[1]; ky++)                                     \
            for (ptrdiff_t kx = (r)->lo[2]; kx < (r)->hi[2]; kx++) {                               \
                ptrdiff_t cz = (r)->start[0] + kz * (p)->dil[0];                                   \
                ptrdiff_t cy = (r)->start[1] + ky * (p)->dil[1];                                   \
                ptrdiff_t cx = (r)->start[2] + kx * (p)->dil[2];                                   \
                ptrdiff_t at = (cz * (p)->in[1] + cy) * (p)->in[2] + cx;                           \
                body                                                                               \
            }

static ptrdiff_t in_count(const struct kn_pool3 *p) {
    return (ptrdiff_t)p->in[0] * p->in[1] * p->in[2];
}

static ptrdiff_t out_count(const struct kn_pool3 *p) {
    return (ptrdiff_t)p->out[0] * p->out[1] * p->out[2];
}

/* NaN wins; integers have none. */
#define MAX_TASK(type, least)                                                                      \
    static void max_##type(void *arg, int task, int thread) {                                      \
        const struct pool3_job *job = arg;                                                         \
        const struct kn_pool3 *p = job->pool;                                                      \
        const type *x = (const type *)job->x + task * in_count(p);                                 \
        ptrdiff_t count = out_count(p), first = task * count;                                      \
        struct reach r;                                                                            \
        (void)thread;                                                                              \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            type best = (least);                                                                   \
            int64_t best_at = -1;                                                                  \
            reach_of(p, i, &r);                                                                    \
            EACH_CELL(p, &r, {                                                                     \
                if (best_at >= 0 && !(x[at] > best || x[at] != x[at]))                             \
                    continue;                                                                      \
                best = x[at];                                                                      \
                best_at = index_of(p, cz, cy, cx) + task * in_count(p);                            \
            })                                                                                     \
            ((type *)job->y)[first + i] = best;                                                    \
            if (job->index)                                                                        \
                job->index[first + i] = best_at < 0 ? 0 : best_at;                                 \
        }                                                                                          \
    }

MAX_TASK(float, -INFINITY)
MAX_TASK(double, -INFINITY)
MAX_TASK(uint8_t, 0)
MAX_TASK(int8_t, INT8_MIN)

static void average_task(void *arg, int task, int thread) {
    const struct pool3_job *job = arg;
    const struct kn_pool3 *p = job->pool;
    const float *x = (const float *)job->x + task * in_count(p);
    float *y = (float *)job->y + task * out_count(p);
    struct reach r;

    (void)thread;
    for (ptrdiff_t i = 0; i < out_count(p); i++) {
        double sum = 0.0;
        reach_of(p, i, &r);
        EACH_CELL(p, &r, { sum += (double)x[at]; })
        double cells = cells_of(p, &r);
        y[i] = cells > 0.0 ? (float)(sum / cells) : 0.0f;
    }
}

static void lp_task(void *arg, int task, int thread) {
    const struct pool3_job *job = arg;
    const struct kn_pool3 *p = job->pool;
    const float *x = (const float *)job->x + task * in_count(p);
    float *y = (float *)job->y + task * out_count(p);
    double power = (double)p->p;
    struct reach r;

    (void)thread;
    for (ptrdiff_t i = 0; i < out_count(p); i++) {
        double sum = 0.0;
        reach_of(p, i, &r);
        EACH_CELL(p, &r, {
            double v = fabs((double)x[at]);
            sum += power == 2.0 ? v * v : power == 1.0 ? v : pow(v, power);
        })
        y[i] = (float)(power == 2.0 ? sqrt(sum) : power == 1.0 ? sum : pow(sum, 1.0 / power));
    }
}

static kn_task task_of(const struct kn_pool3 *pool) {
    if (pool->kind != KN_POOL_MAX)
        return pool->kind == KN_POOL_LP ? lp_task : average_task;
    switch (pool->type) {
    case KN_DOUBLE:
        return max_double;
    case KN_UINT8:
        return max_uint8_t;
    case KN_INT8:
        return max_int8_t;
    default:
        return max_float;
    }
}

void kn_pool3(const struct kn_pool3 *pool, const void *x, void *y, int64_t *ret_index,
              struct kn_threads *threads) {
    struct pool3_job job = {.pool = pool, .x = x, .y = y, .index = ret_index};

    kn_parallel(threads, pool->planes, task_of(pool), &job);
}

int kn_unpool(size_t elem_size, const struct kn_shape *inner, const struct kn_shape *y_shape,
              const void *x, const int64_t *index, size_t count, void *y) {
    size_t room = 1, total = 1;

    for (int i = 0; i < inner->rank; i++) {
        room *= (size_t)inner->dims[i];
        total *= (size_t)y_shape->dims[i];
    }
    memset(y, 0, total * elem_size);
    for (size_t i = 0; i < count; i++) {
        size_t left = (size_t)index[i], at = 0, stride = 1;
        if (index[i] < 0 || left >= room)
            return -EINVAL;
        for (int d = inner->rank; d-- > 0; left /= (size_t)inner->dims[d]) {
            at += left % (size_t)inner->dims[d] * stride;
            stride *= (size_t)y_shape->dims[d];
        }
        memcpy((char *)y + at * elem_size, (const char *)x + i * elem_size, elem_size);
    }
    return 0;
}
