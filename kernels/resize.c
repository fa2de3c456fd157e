#include <math.h>

#include "internal.h"

/* Columns whose coordinates are computed at once, on the stack, for all rows of a plane. */
#define CHUNK 256
#define TAPS  4

/* The input cells of one output coordinate, inside [0, in), and their weights. */
struct taps {
    int index[TAPS];
    float weight[TAPS];
};

struct axis {
    int in, out;
    float scale;
};

/* ONNX's coordinate transformations, in float, as other runtimes compute them. */
static float original(enum kn_resize_coord coord, const struct axis *axis, int o) {
    switch (coord) {
    case KN_COORD_ALIGN_CORNERS:
        return axis->out == 1 ? 0.0f : (float)o * (float)(axis->in - 1) / (float)(axis->out - 1);
    case KN_COORD_ASYMMETRIC:
        return (float)o / axis->scale;
    case KN_COORD_PYTORCH_HALF_PIXEL:
        if (axis->out == 1)
            return 0.0f;
        break;
    case KN_COORD_HALF_PIXEL:
        break;
    }
    return ((float)o + 0.5f) / axis->scale - 0.5f;
}

static float round_nearest(enum kn_resize_round mode, float x) {
    switch (mode) {
    case KN_ROUND_PREFER_FLOOR:
        return ceilf(x - 0.5f);
    case KN_ROUND_PREFER_CEIL:
        return floorf(x + 0.5f);
    case KN_ROUND_FLOOR:
        return floorf(x);
    case KN_ROUND_CEIL:
        return ceilf(x);
    }
    return x;
}

static int clamp(float x, int in) {
    return x <= 0.0f ? 0 : x >= (float)(in - 1) ? in - 1 : (int)x;
}

static void nearest_taps(const struct kn_resize *resize, const struct axis *axis, float x,
                         struct taps *ret_taps) {
    *ret_taps = (struct taps){.index = {clamp(round_nearest(resize->round, x), axis->in)}};
}

static void linear_taps(const struct kn_resize *resize, const struct axis *axis, float x,
                        struct taps *ret_taps) {
    float at = fminf(fmaxf(x, 0.0f), (float)(axis->in - 1));
    int lo = clamp(at, axis->in), hi = lo + 1 < axis->in ? lo + 1 : lo;

    (void)resize;
    *ret_taps = (struct taps){.index = {lo, hi}};
    ret_taps->weight[1] = at - (float)lo;
    ret_taps->weight[0] = 1.0f - ret_taps->weight[1];
}

/* Keys' cubic convolution; cells outside the picture repeat its border. */
static void cubic_taps(const struct kn_resize *resize, const struct axis *axis, float x,
                       struct taps *ret_taps) {
    float a = resize->cubic_a, base = floorf(x), t = x - base, u = 1.0f - t;
    float *w = ret_taps->weight;

    for (int i = 0; i < TAPS; i++)
        ret_taps->index[i] = clamp(base + (float)(i - 1), axis->in);
    w[0] = ((a * (t + 1.0f) - 5.0f * a) * (t + 1.0f) + 8.0f * a) * (t + 1.0f) - 4.0f * a;
    w[1] = ((a + 2.0f) * t - (a + 3.0f)) * t * t + 1.0f;
    w[2] = ((a + 2.0f) * u - (a + 3.0f)) * u * u + 1.0f;
    w[3] = ((a * (u + 1.0f) - 5.0f * a) * (u + 1.0f) + 8.0f * a) * (u + 1.0f) - 4.0f * a;
}

typedef void (*taps_fn)(const struct kn_resize *resize, const struct axis *axis, float x,
                        struct taps *ret_taps);

static const taps_fn taps_of[] = {
    [KN_RESIZE_NEAREST] = nearest_taps,
    [KN_RESIZE_LINEAR] = linear_taps,
    [KN_RESIZE_CUBIC] = cubic_taps,
};

static void find_taps(const struct kn_resize *resize, const struct axis *axis, int o,
                      struct taps *ret_taps) {
    taps_of[resize->mode](resize, axis, original(resize->coord, axis, o), ret_taps);
}

struct resize_job {
    const struct kn_resize *resize;
    const float *x;
    float *y;
    struct axis rows, cols;
};

/* One row's share of a chunk: count outputs from the plane x, with the row's taps. */
static void resize_row(const struct kn_resize *resize, const float *x, const struct taps *row,
                       const struct taps *cols, float *y, int count) {
    const float *r[TAPS];

    for (int i = 0; i < TAPS; i++)
        r[i] = x + (ptrdiff_t)row->index[i] * resize->iw;
    switch (resize->mode) {
    case KN_RESIZE_NEAREST:
        for (int i = 0; i < count; i++)
            y[i] = r[0][cols[i].index[0]];
        break;
    case KN_RESIZE_LINEAR:
        for (int i = 0; i < count; i++) {
            const int *c = cols[i].index;
            const float *w = cols[i].weight;
            float top = w[0] * r[0][c[0]] + w[1] * r[0][c[1]];
            float bottom = w[0] * r[1][c[0]] + w[1] * r[1][c[1]];
            y[i] = row->weight[0] * top + row->weight[1] * bottom;
        }
        break;
    case KN_RESIZE_CUBIC:
        for (int i = 0; i < count; i++) {
            y[i] = 0.0f;
            for (int j = 0; j < TAPS; j++) {
                float sum = 0.0f;
                for (int k = 0; k < TAPS; k++)
                    sum += cols[i].weight[k] * r[j][cols[i].index[k]];
                y[i] += row->weight[j] * sum;
            }
        }
        break;
    }
}

static void resize_task(void *arg, int task, int thread) {
    const struct resize_job *job = arg;
    const struct kn_resize *resize = job->resize;
    const float *x = job->x + (ptrdiff_t)task * resize->ih * resize->iw;
    float *y = job->y + (ptrdiff_t)task * resize->oh * resize->ow;
    struct taps cols[CHUNK], row;

    (void)thread;
    for (int begin = 0; begin < resize->ow; begin += CHUNK) {
        int count = (int)kn_min(CHUNK, resize->ow - begin);
        for (int i = 0; i < count; i++)
            find_taps(resize, &job->cols, begin + i, &cols[i]);
        for (int oy = 0; oy < resize->oh; oy++) {
            find_taps(resize, &job->rows, oy, &row);
            resize_row(resize, x, &row, cols, y + (ptrdiff_t)oy * resize->ow + begin, count);
        }
    }
}

void kn_resize(const struct kn_resize *resize, const float *x, float *y,
               struct kn_threads *threads) {
    struct resize_job job = {
        .resize = resize,
        .x = x,
        .y = y,
        .rows = {.in = resize->ih, .out = resize->oh, .scale = resize->scale_h},
        .cols = {.in = resize->iw, .out = resize->ow, .scale = resize->scale_w},
    };

    kn_parallel(threads, resize->planes, resize_task, &job);
}
