/* Pictures read between their pixels, where data says: GridSample and RoiAlign. */
#include <math.h>

#include "internal.h"

/* ---- GridSample ---- */

#define POINTS   32 /* whose taps are made at once, on the stack, for all channels */
#define TAPS_MAX 64 /* 4 in each of 3 dimensions */
#define FAR      4e9f

/* Where one point reads: places in a channel, and their weights. */
struct taps {
    ptrdiff_t at[TAPS_MAX];
    float weight[TAPS_MAX];
    int count;
};

/* -1 .. 1 to pixels. Numbers that are none or out of all proportion end up far outside. */
static float denormalize(const struct kn_grid_sample *s, float n, int in) {
    float x = s->align_corners ? (n + 1.0f) / 2.0f * (float)(in - 1)
                               : ((n + 1.0f) * (float)in - 1.0f) / 2.0f;

    return x < FAR ? (x > -FAR ? x : -FAR) : x == x ? FAR : -FAR;
}

/* x thrown back at both borders as often as it takes. */
static float reflect(const struct kn_grid_sample *s, float x, int in) {
    float low = s->align_corners ? 0.0f : -0.5f, range = (float)(s->align_corners ? in - 1 : in);

    if (range == 0.0f)
        return low;
    if (x >= low && x <= low + range)
        return x;
    float beyond = x < low ? low - x : x - low - range, times = truncf(beyond / range);
    float rest = beyond - times * range;
    bool even = fmodf(times, 2.0f) == 0.0f;
    return (x < low) == even ? low + rest : low + range - rest;
}

/* The pixel that stands for i, or -1 for none. */
static ptrdiff_t pixel(const struct kn_grid_sample *s, ptrdiff_t i, int in) {
    if (i >= 0 && i < in)
        return i;
    if (s->pad == KN_SAMPLE_ZEROS)
        return -1;
    if (s->pad == KN_SAMPLE_REFLECTION)
        i = (ptrdiff_t)reflect(s, (float)i, in);
    return kn_min(kn_max(i, 0), in - 1);
}

static float cubic(float d) {
    const float a = -0.75f;

    d = fabsf(d);
    if (d <= 1.0f)
        return ((a + 2.0f) * d - (a + 3.0f)) * d * d + 1.0f;
    return d < 2.0f ? ((a * d - 5.0f * a) * d + 8.0f * a) * d - 4.0f * a : 0.0f;
}

/* Pixels and weights of one coordinate; how many there are. */
static int line_taps(const struct kn_grid_sample *s, float n, int in, ptrdiff_t *ret_pixels,
                     float *ret_weights) {
    float x = denormalize(s, n, in), low = s->align_corners ? 0.0f : -0.5f;
    int count = s->mode == KN_RESIZE_NEAREST ? 1 : s->mode == KN_RESIZE_LINEAR ? 2 : 4;

    x = s->mode == KN_RESIZE_NEAREST ? rintf(x) : x;
    if (x < low || x > (float)(in - 1) - low) {
        if (s->pad == KN_SAMPLE_BORDER)
            x = x < 0.0f ? 0.0f : (float)(in - 1);
        else if (s->pad == KN_SAMPLE_REFLECTION)
            x = reflect(s, x, in);
    }
    float base = s->mode == KN_RESIZE_NEAREST ? truncf(x) : floorf(x), part = x - base;
    for (int i = 0; i < count; i++) {
        int step = count == 4 ? i - 1 : i;
        ret_pixels[i] = pixel(s, (ptrdiff_t)base + step, in);
        ret_weights[i] = count == 1   ? 1.0f
                         : count == 2 ? (i ? part : 1.0f - part)
                                      : cubic((float)step - part);
    }
    return count;
}

/* Every pixel that a point reads: one of each coordinate's, weights multiplied. The first number of
 * a grid's point is the last coordinate. */
static void point_taps(const struct kn_grid_sample *s, const float *point, struct taps *ret) {
    ret->count = 1;
    ret->at[0] = 0;
    ret->weight[0] = 1.0f;
    for (int d = 0; d < s->rank; d++) {
        ptrdiff_t pixels[4];
        float weights[4];
        int lines = line_taps(s, point[s->rank - 1 - d], s->in[d], pixels, weights), count = 0;
        struct taps before = *ret;
        for (int i = 0; i < before.count; i++)
            for (int k = 0; k < lines; k++) {
                if (pixels[k] < 0)
                    continue;
                ret->at[count] = before.at[i] * s->in[d] + pixels[k];
                ret->weight[count++] = before.weight[i] * weights[k];
            }
        ret->count = count;
    }
}

struct sample_job {
    const struct kn_grid_sample *s;
    const float *x, *grid;
    float *y;
    ptrdiff_t plane, chunks; /* pixels of a channel; tasks of one batch */
};

static void sample_task(void *arg, int task, int thread) {
    const struct sample_job *job = arg;
    const struct kn_grid_sample *s = job->s;
    ptrdiff_t n = task / job->chunks, first = task % job->chunks * POINTS;
    ptrdiff_t points = (ptrdiff_t)s->points, count = kn_min(POINTS, points - first);
    const float *grid = job->grid + (n * points + first) * s->rank;
    struct taps taps[POINTS];

    (void)thread;
    for (ptrdiff_t p = 0; p < count; p++)
        point_taps(s, grid + p * s->rank, &taps[p]);
    for (ptrdiff_t c = n * s->channels; c < (n + 1) * s->channels; c++)
        for (ptrdiff_t p = 0; p < count; p++) {
            const float *x = job->x + c * job->plane;
            float sum = 0.0f;
            for (int t = 0; t < taps[p].count; t++)
                sum += taps[p].weight[t] * x[taps[p].at[t]];
            job->y[c * points + first + p] = sum;
        }
}

void kn_grid_sample(const struct kn_grid_sample *sample, const float *x, const float *grid,
                    float *y, struct kn_threads *threads) {
    struct sample_job job = {.s = sample, .x = x, .grid = grid, .y = y, .plane = 1};

    for (int d = 0; d < sample->rank; d++)
        job.plane *= sample->in[d];
    job.chunks = kn_ceil_div((ptrdiff_t)sample->points, POINTS);
    kn_parallel(threads, (int)(sample->batches * job.chunks), sample_task, &job);
}

/* ---- RoiAlign ---- */

#define CHANNELS 16   /* that are pooled together */
#define GRID_MAX 1024 /* samples along one side of a bin: bounds what a wrong region can cost */

/* One coordinate of a sample: two pixels and their weights; both 0 outside the picture. */
struct between {
    ptrdiff_t low, high;
    float low_weight, high_weight;
};

static struct between between_pixels(float x, int in) {
    if (!(x >= -1.0f) || x > (float)in)
        return (struct between){0};
    x = fmaxf(x, 0.0f);
    ptrdiff_t low = (ptrdiff_t)x;
    if (low >= in - 1)
        return (struct between){.low = in - 1, .high = in - 1, .low_weight = 1.0f};
    float part = x - (float)low;
    return (struct between){low, low + 1, 1.0f - part, part};
}

/* One side of a region: where its bins begin, how large they are, samples of each. */
struct side {
    float start, bin;
    int grid;
};

static struct side side_of(const struct kn_roi_align *r, float from, float to, int bins) {
    float offset = r->half_pixel ? 0.5f : 0.0f, length;
    struct side side = {.start = from * r->scale - offset, .grid = r->sampling};

    length = to * r->scale - offset - side.start;
    if (!r->half_pixel)
        length = fmaxf(length, 1.0f);
    side.bin = length / (float)bins;
    if (r->sampling <= 0)
        side.grid = side.bin > 0.0f ? (int)fminf(ceilf(side.bin), (float)GRID_MAX) : 0;
    return side;
}

static struct between sample_at(const struct side *side, int bin, int i, int in) {
    float step = ((float)i + 0.5f) * side->bin / (float)side->grid;

    return between_pixels(side->start + (float)bin * side->bin + step, in);
}

/* Adds one sample of count channels to acc. */
static void take_sample(const struct kn_roi_align *r, const float *x, const struct between *v,
                        const struct between *h, bool first, float *acc, ptrdiff_t count) {
    ptrdiff_t top = v->low * r->iw, bottom = v->high * r->iw, plane = (ptrdiff_t)r->ih * r->iw;
    float w[] = {v->low_weight * h->low_weight, v->low_weight * h->high_weight,
                 v->high_weight * h->low_weight, v->high_weight * h->high_weight};

    for (ptrdiff_t c = 0; c < count; c++, x += plane) {
        float a = w[0] * x[top + h->low], b = w[1] * x[top + h->high];
        float d = w[2] * x[bottom + h->low], e = w[3] * x[bottom + h->high];
        if (r->maximum) {
            float most = fmaxf(fmaxf(a, b), fmaxf(d, e));
            acc[c] = first ? most : fmaxf(acc[c], most);
        } else {
            acc[c] += a + b + d + e;
        }
    }
}

struct roi_job {
    const struct kn_roi_align *r;
    const float *x, *rois;
    const int64_t *batches;
    float *y;
    ptrdiff_t blocks; /* of channels */
};

static void roi_task(void *arg, int task, int thread) {
    const struct roi_job *job = arg;
    const struct kn_roi_align *r = job->r;
    ptrdiff_t roi = task / job->blocks, c = task % job->blocks * CHANNELS;
    ptrdiff_t count = kn_min(CHANNELS, r->channels - c), cells = (ptrdiff_t)r->oh * r->ow;
    const float *box = job->rois + 4 * roi;
    const float *x =
        job->x + ((ptrdiff_t)job->batches[roi] * r->channels + c) * ((ptrdiff_t)r->ih * r->iw);
    float *y = job->y + (roi * r->channels + c) * cells;
    struct side w = side_of(r, box[0], box[2], r->ow), h = side_of(r, box[1], box[3], r->oh);

    (void)thread;
    for (int cell = 0; cell < cells; cell++) {
        float acc[CHANNELS] = {0};
        for (int i = 0; i < h.grid; i++) {
            struct between v = sample_at(&h, cell / r->ow, i, r->ih);
            for (int k = 0; k < w.grid; k++) {
                struct between across = sample_at(&w, cell % r->ow, k, r->iw);
                take_sample(r, x, &v, &across, i == 0 && k == 0, acc, count);
            }
        }
        float samples = r->maximum ? 1.0f : fmaxf((float)h.grid * (float)w.grid, 1.0f);
        for (ptrdiff_t k = 0; k < count; k++)
            y[k * cells + cell] = acc[k] / samples;
    }
}

void kn_roi_align(const struct kn_roi_align *align, const float *x, const float *rois,
                  const int64_t *batches, float *y, struct kn_threads *threads) {
    struct roi_job job = {.r = align, .x = x, .rois = rois, .batches = batches, .y = y};

    job.blocks = kn_ceil_div(align->channels, CHANNELS);
    kn_parallel(threads, (int)(align->rois * job.blocks), roi_task, &job);
}
