/* Quantised convolution. The picture is widened once to 16 bits, its zero point taken away, with
 * the channels of a pixel side by side: then padding is 0, and every output is a product of two
 * rows along memory. Each strip of output pixels gathers its rows (a 1x1 convolution finds them in
 * the picture) and multiplies them with all weights while they are in cache; depthwise convolutions
 * work on blocks of channels instead. Nothing depends on the order of sums, so tasks may be cut
 * anyhow; they are cut by the shape.
 */
#include <errno.h>
#include <string.h>

#include "conv_internal.h"
#include "quantized_internal.h"

#define STRIP_MAX    64 /* output pixels */
#define STRIP_MIN    16
#define STRIP_BYTES  (24 * 1024) /* of a strip's rows, as far as STRIP_MIN allows */
#define BLOCK_ROWS   64          /* output channels whose sums are made before they are rounded */
#define WIDEN_PIXELS 64          /* of one task */
#define FEW_TASKS    16 /* with fewer strips than this, output channels are shared out too */
#define RUN_MAX      32 /* output pixels of a depthwise row at a time */

/* What packed begins with; scales, biases and weights follow. */
struct head {
    int32_t x_zero, y_zero;
};

#define HEAD_BYTES kn_round_up(sizeof(struct head), KN_ALIGN)

static ptrdiff_t taps_of(const struct kn_conv *c) {
    return (ptrdiff_t)c->kh * c->kw;
}

/* Bytes of one number per output channel. */
static size_t row_bytes(const struct kn_conv *c) {
    return kn_round_up(kn_round_up((size_t)c->oc, KN_QCHANNELS) * sizeof(float), KN_ALIGN);
}

static float *scales_of(const struct kn_conv *c, void *packed) {
    (void)c;
    return (float *)(void *)((char *)packed + HEAD_BYTES);
}

static int32_t *biases_of(const struct kn_conv *c, void *packed) {
    return (int32_t *)(void *)((char *)packed + HEAD_BYTES + row_bytes(c));
}

static int16_t *weights_of(const struct kn_conv *c, void *packed) {
    return (int16_t *)(void *)((char *)packed + HEAD_BYTES + 2 * row_bytes(c));
}

static size_t weights_count(const struct kn_qconv_plan *plan) {
    const struct kn_conv *c = &plan->q.conv;

    return plan->depthwise ? (size_t)taps_of(c) * kn_round_up((size_t)c->oc, KN_QCHANNELS)
                           : (size_t)c->oc * plan->depth;
}

static bool is_direct(const struct kn_conv *c) {
    return c->kh == 1 && c->kw == 1 && c->stride_h == 1 && c->stride_w == 1 && c->pad_top == 0 &&
           c->pad_left == 0 && c->oh == c->ih && c->ow == c->iw && c->group == 1;
}

static bool is_byte(enum kn_type type) {
    return type == KN_UINT8 || type == KN_INT8;
}

int kn_qconv_plan(const struct kn_qconv *q, int threads, struct kn_qconv_plan *ret_plan) {
    const struct kn_conv *c = &q->conv;
    struct kn_conv_plan shape;
    struct kn_qconv_plan plan = {.q = *q};

    if (!is_byte(q->x_type) || !is_byte(q->w_type) ||
        (q->y_type != KN_INT32 && !is_byte(q->y_type)))
        return -EINVAL;
    int rc = kn_conv_plan(c, threads, &shape); /* the same limits */
    if (rc < 0)
        return rc;
    plan.depthwise = c->group == c->ic && c->oc == c->ic;
    plan.direct = !plan.depthwise && is_direct(c);
    plan.pitch =
        plan.depthwise || plan.direct ? kn_round_up((size_t)c->ic, KN_QCHANNELS) : (size_t)c->ic;
    plan.depth = kn_qdepth((size_t)(c->ic / c->group) * (size_t)taps_of(c));
    size_t fitting = STRIP_BYTES / sizeof(int16_t) / plan.depth & ~(size_t)3;
    plan.strip = (int)kn_min(kn_max((ptrdiff_t)fitting, STRIP_MIN), STRIP_MAX);
    if (!plan.direct && !plan.depthwise)
        plan.panel_bytes = (size_t)plan.strip * plan.depth * sizeof(int16_t);
    size_t panels, pixels = (size_t)c->ih * (size_t)c->iw;
    if (__builtin_mul_overflow(pixels, plan.pitch * sizeof(int16_t), &plan.picture_bytes) ||
        __builtin_mul_overflow(plan.panel_bytes, (size_t)threads, &panels) ||
        plan.picture_bytes > PTRDIFF_MAX / 4 || panels > PTRDIFF_MAX / 4)
        return -EOVERFLOW;
    plan.picture_bytes = kn_round_up(plan.picture_bytes, KN_ALIGN);
    plan.workspace_bytes = plan.picture_bytes + panels;
    plan.packed_bytes = kn_round_up(
        HEAD_BYTES + 2 * row_bytes(c) + weights_count(&plan) * sizeof(int16_t), KN_ALIGN);
    *ret_plan = plan;
    return 0;
}

/* ---- weights */

static float float_at(const float *x, size_t i) {
    float f;

    memcpy(&f, (const char *)x + i * sizeof(f), sizeof(f));
    return f;
}

/* Depthwise: [block of channels][tap][channel]. Others: one row per output channel, a tap's
 * channels side by side. */
static size_t weight_place(const struct kn_qconv_plan *plan, size_t o, size_t i, size_t tap) {
    const struct kn_conv *c = &plan->q.conv;

    if (plan->depthwise)
        return (o / KN_QCHANNELS * (size_t)taps_of(c) + tap) * KN_QCHANNELS + o % KN_QCHANNELS;
    return o * plan->depth + tap * (size_t)(c->ic / c->group) + i;
}

void kn_qconv_pack(const struct kn_qconv_plan *plan, const struct kn_qconv_numbers *numbers,
                   void *packed) {
    const struct kn_qconv *q = &plan->q;
    const struct kn_conv *c = &q->conv;
    size_t icg = (size_t)(c->ic / c->group), taps = (size_t)taps_of(c);
    float *scales = scales_of(c, packed);
    int32_t *biases = biases_of(c, packed);
    int16_t *weights = weights_of(c, packed);
    struct head head = {.x_zero = kn_byte(q->x_type, numbers->x_zero, 0)};

    memset(packed, 0, plan->packed_bytes);
    if (q->y_type != KN_INT32)
        head.y_zero = kn_byte(q->y_type, numbers->y_zero, 0);
    memcpy(packed, &head, sizeof(head));
    for (size_t o = 0; o < (size_t)c->oc; o++) {
        int32_t zero = kn_byte(q->w_type, numbers->w_zero, o * numbers->w_zero_step);
        if (q->y_type != KN_INT32)
            scales[o] = float_at(numbers->x_scale, 0) *
                        float_at(numbers->w_scale, o * numbers->w_scale_step) /
                        float_at(numbers->y_scale, 0);
        if (numbers->bias)
            memcpy(&biases[o], (const char *)numbers->bias + o * sizeof(int32_t), sizeof(int32_t));
        for (size_t i = 0; i < icg; i++)
            for (size_t tap = 0; tap < taps; tap++)
                weights[weight_place(plan, o, i, tap)] =
                    (int16_t)(kn_byte(q->w_type, numbers->w, (o * icg + i) * taps + tap) - zero);
    }
}

/* ---- running */

struct qconv_job {
    const struct kn_qconv_plan *plan;
    const float *scales;
    const int32_t *biases;
    const int16_t *weights;
    int32_t x_zero, y_zero;
    const uint8_t *x; /* of one image */
    void *y;          /* of the whole batch */
    ptrdiff_t image;  /* element of y where this image begins */
    int16_t *picture;
    char *panels;
    ptrdiff_t strips, blocks, block_rows;
};

/* [channels][pixels] -> [pixels][pitch], some pixels of it. */
static void widen_task(void *arg, int task, int thread) {
    const struct qconv_job *job = arg;
    const struct kn_conv *c = &job->plan->q.conv;
    ptrdiff_t pixels = (ptrdiff_t)c->ih * c->iw, pitch = (ptrdiff_t)job->plan->pitch;
    ptrdiff_t begin = (ptrdiff_t)task * WIDEN_PIXELS;
    ptrdiff_t end = kn_min(begin + WIDEN_PIXELS, pixels);
    bool is_signed = job->plan->q.x_type == KN_INT8;

    (void)thread;
    for (ptrdiff_t i0 = 0; i0 < c->ic; i0 += KN_QCHANNELS) {
        ptrdiff_t i1 = kn_min(i0 + KN_QCHANNELS, c->ic);
        for (ptrdiff_t p = begin; p < end; p++) {
            const uint8_t *x = job->x + p;
            int16_t *to = job->picture + p * pitch;
            for (ptrdiff_t i = i0; i < i1; i++) {
                uint8_t bits = x[i * pixels];
                to[i] = (int16_t)((is_signed ? (int8_t)bits : bits) - job->x_zero);
            }
        }
    }
    for (ptrdiff_t p = begin; p < end; p++)
        for (ptrdiff_t i = c->ic; i < pitch; i++)
            job->picture[p * pitch + i] = 0;
}

/* The row of one output pixel: its taps one after the other, the group's channels of each. */
static void gather_row(const struct qconv_job *job, ptrdiff_t pixel, ptrdiff_t group,
                       int16_t *row) {
    const struct kn_conv *c = &job->plan->q.conv;
    ptrdiff_t icg = c->ic / c->group, pitch = (ptrdiff_t)job->plan->pitch;
    ptrdiff_t y0 = pixel / c->ow * c->stride_h - c->pad_top;
    ptrdiff_t x0 = pixel % c->ow * c->stride_w - c->pad_left;
    int16_t *end = row + job->plan->depth;

    for (ptrdiff_t ky = 0; ky < c->kh; ky++)
        for (ptrdiff_t kx = 0; kx < c->kw; kx++, row += icg) {
            ptrdiff_t iy = y0 + ky * c->dil_h, ix = x0 + kx * c->dil_w;
            if (iy < 0 || iy >= c->ih || ix < 0 || ix >= c->iw) {
                memset(row, 0, (size_t)icg * sizeof(*row));
                continue;
            }
            const int16_t *from = job->picture + (iy * c->iw + ix) * pitch + group * icg;
            for (ptrdiff_t i = 0; i < icg; i++)
                row[i] = from[i];
        }
    memset(row, 0, (size_t)(end - row) * sizeof(*row));
}

/* Results of rows output channels from `first` on, cols pixels from `begin` on. */
static void finish_rows(const struct qconv_job *job, int32_t *sums, ptrdiff_t ld, ptrdiff_t first,
                        ptrdiff_t rows, ptrdiff_t begin, ptrdiff_t cols) {
    const struct kn_conv *c = &job->plan->q.conv;
    ptrdiff_t pixels = (ptrdiff_t)c->oh * c->ow;

    for (ptrdiff_t r = 0; r < rows; r++) {
        uint32_t bias = (uint32_t)job->biases[first + r];
        for (ptrdiff_t i = 0; i < cols; i++)
            sums[r * ld + i] = (int32_t)((uint32_t)sums[r * ld + i] + bias);
        kn_requantize_row(job->plan->q.y_type, sums + r * ld, job->scales + first + r, 0,
                          job->y_zero, job->y, job->image + (first + r) * pixels + begin, cols);
    }
}

/* One strip of pixels, one block of a group's output channels. */
static void strip_task(void *arg, int task, int thread) {
    const struct qconv_job *job = arg;
    const struct kn_qconv_plan *plan = job->plan;
    const struct kn_conv *c = &plan->q.conv;
    ptrdiff_t depth = (ptrdiff_t)plan->depth, pixels = (ptrdiff_t)c->oh * c->ow;
    ptrdiff_t block = task % job->blocks, strip = task / job->blocks % job->strips;
    ptrdiff_t group = task / job->blocks / job->strips, ocg = c->oc / c->group;
    ptrdiff_t begin = strip * plan->strip, cols = kn_min(plan->strip, pixels - begin);
    ptrdiff_t row = block * job->block_rows, last = kn_min(row + job->block_rows, ocg);
    int16_t *panel = (int16_t *)(void *)(job->panels + (size_t)thread * plan->panel_bytes);
    _Alignas(KN_ALIGN) int32_t sums[BLOCK_ROWS * STRIP_MAX];

    for (ptrdiff_t i = 0; !plan->direct && i < cols; i++)
        gather_row(job, begin + i, group, panel + i * depth);
    for (; row < last; row += BLOCK_ROWS) {
        ptrdiff_t first = group * ocg + row;
        struct kn_qdots dots = {.a = job->weights + first * depth,
                                .b = plan->direct ? job->picture + begin * depth : panel,
                                .y = sums,
                                .m = kn_min(BLOCK_ROWS, last - row),
                                .n = cols,
                                .k = depth,
                                .lda = depth,
                                .ldb = depth,
                                .ldy = STRIP_MAX};
        kn_simd()->qdots(&dots);
        finish_rows(job, sums, STRIP_MAX, first, dots.m, begin, cols);
    }
}

/* ---- depthwise */

/* How many output pixels from ox on have the same taps inside the picture: a run. */
static ptrdiff_t run_length(const struct kn_conv *c, ptrdiff_t ox, ptrdiff_t lo, ptrdiff_t hi) {
    ptrdiff_t count = 1, next_lo, next_hi;

    for (; ox + count < c->ow && count < RUN_MAX; count++) {
        kn_valid_range(c->iw, c->kw, c->dil_w, (ox + count) * c->stride_w - c->pad_left, &next_lo,
                       &next_hi);
        if (next_lo != lo || next_hi != hi)
            break;
    }
    return count;
}

/* sums [count][KN_QCHANNELS] -> [channel][count]. */
static void turn(const int32_t *sums, ptrdiff_t channels, ptrdiff_t count, int32_t *turned) {
    for (ptrdiff_t i = 0; i < channels; i++)
        for (ptrdiff_t p = 0; p < count; p++)
            turned[i * RUN_MAX + p] = sums[p * KN_QCHANNELS + i];
}

/* One output row of one block of channels. */
static void depthwise_task(void *arg, int task, int thread) {
    const struct qconv_job *job = arg;
    const struct kn_conv *c = &job->plan->q.conv;
    ptrdiff_t pitch = (ptrdiff_t)job->plan->pitch;
    ptrdiff_t oy = task % c->oh, block = task / c->oh, first = block * KN_QCHANNELS;
    ptrdiff_t channels = kn_min(KN_QCHANNELS, c->oc - first);
    ptrdiff_t y0 = oy * c->stride_h - c->pad_top, y_lo, y_hi, lo, hi, count;
    const int16_t *weights = job->weights + block * taps_of(c) * KN_QCHANNELS;
    _Alignas(KN_ALIGN) int32_t sums[RUN_MAX * KN_QCHANNELS], turned[RUN_MAX * KN_QCHANNELS];

    (void)thread;
    kn_valid_range(c->ih, c->kh, c->dil_h, y0, &y_lo, &y_hi);
    for (ptrdiff_t ox = 0; ox < c->ow; ox += count) {
        ptrdiff_t x0 = ox * c->stride_w - c->pad_left;
        kn_valid_range(c->iw, c->kw, c->dil_w, x0, &lo, &hi);
        count = run_length(c, ox, lo, hi);
        bool any = y_lo < y_hi && lo < hi;
        ptrdiff_t at = any ? (y0 + y_lo * c->dil_h) * c->iw + x0 + lo * c->dil_w : 0;
        struct kn_qwindows windows = {.x = job->picture + at * pitch + first,
                                      .w = weights + (y_lo * c->kw + lo) * KN_QCHANNELS,
                                      .y = sums,
                                      .count = count,
                                      .taps_h = any ? y_hi - y_lo : 0,
                                      .taps_w = hi - lo,
                                      .x_next = c->stride_w * pitch,
                                      .x_row = (ptrdiff_t)c->dil_h * c->iw * pitch,
                                      .x_column = c->dil_w * pitch,
                                      .w_row = (ptrdiff_t)c->kw * KN_QCHANNELS};
        kn_simd()->qwindows(&windows);
        turn(sums, channels, count, turned);
        finish_rows(job, turned, RUN_MAX, first, channels, oy * c->ow + ox, count);
    }
}

static void cut_tasks(struct qconv_job *job) {
    const struct kn_conv *c = &job->plan->q.conv;
    ptrdiff_t ocg = c->oc / c->group;

    job->strips = kn_ceil_div((ptrdiff_t)c->oh * c->ow, job->plan->strip);
    job->block_rows = job->strips * c->group < FEW_TASKS ? BLOCK_ROWS : ocg;
    job->blocks = kn_ceil_div(ocg, job->block_rows);
}

void kn_qconv_run(const struct kn_qconv_plan *plan, const void *packed, const void *x, void *y,
                  void *workspace, struct kn_threads *threads) {
    const struct kn_conv *c = &plan->q.conv;
    ptrdiff_t pixels = (ptrdiff_t)c->ih * c->iw;
    void *data = (void *)(uintptr_t)packed; /* only read */
    struct head head;
    struct qconv_job job = {.plan = plan,
                            .scales = scales_of(c, data),
                            .biases = biases_of(c, data),
                            .weights = weights_of(c, data),
                            .y = y,
                            .picture = workspace,
                            .panels = (char *)workspace + plan->picture_bytes};

    memcpy(&head, packed, sizeof(head));
    job.x_zero = head.x_zero;
    job.y_zero = head.y_zero;
    cut_tasks(&job);
    for (ptrdiff_t n = 0; n < c->n; n++) {
        job.x = (const uint8_t *)x + n * c->ic * pixels;
        job.image = n * c->oc * c->oh * c->ow;
        kn_parallel(threads, (int)kn_ceil_div(pixels, WIDEN_PIXELS), widen_task, &job);
        if (plan->depthwise)
            kn_parallel(threads, (int)(kn_ceil_div(c->oc, KN_QCHANNELS) * c->oh), depthwise_task,
                        &job);
        else
            kn_parallel(threads, (int)(c->group * job.strips * job.blocks), strip_task, &job);
    }
}
