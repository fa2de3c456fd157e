/* Convolution of volumes: plane by plane, with the kernels for two dimensions. */
#include <errno.h>
#include <string.h>

#include "conv_internal.h"
#include "volume.h"

#define SIZE_LIMIT ((size_t)PTRDIFF_MAX / 8)

static size_t in_plane(const struct kn_conv *c) {
    return (size_t)c->ih * (size_t)c->iw;
}

static size_t out_plane(const struct kn_conv *c) {
    return (size_t)c->oh * (size_t)c->ow;
}

static size_t taps_of(const struct kn_conv *c) {
    return (size_t)c->kh * (size_t)c->kw;
}

static size_t float_bytes(size_t count) {
    return kn_round_up(count * sizeof(float), KN_ALIGN);
}

/* One frame's depth by itself, without what comes after the last sum. */
static struct kn_conv plane_of(const struct kn_conv3 *conv) {
    struct kn_conv plane = conv->plane;

    plane.n = 1;
    plane.act = (struct kn_activation){0};
    plane.residual = true;
    return plane;
}

/* Whether depths are possible and tensors of so many planes are. */
static int check_depth(const struct kn_conv3 *conv, const struct kn_conv *plane) {
    const int positive[] = {conv->id, conv->od, conv->kd, conv->stride_d, conv->dil_d};
    const size_t planes[][3] = {
        {in_plane(plane), (size_t)plane->ic, (size_t)conv->id},
        {out_plane(plane), (size_t)plane->oc, (size_t)conv->od},
        {taps_of(plane) * (size_t)(plane->ic / plane->group), (size_t)plane->oc, (size_t)conv->kd},
    };
    int64_t reach = (int64_t)conv->od * conv->stride_d + (int64_t)conv->kd * conv->dil_d;

    for (size_t i = 0; i < sizeof(positive) / sizeof(positive[0]); i++)
        if (positive[i] < 1)
            return -EINVAL;
    for (size_t i = 0; i < sizeof(planes) / sizeof(planes[0]); i++) {
        size_t count;
        if (__builtin_mul_overflow(planes[i][0], planes[i][1], &count) ||
            __builtin_mul_overflow(count, planes[i][2], &count) ||
            __builtin_mul_overflow(count, (size_t)conv->plane.n, &count) || count > SIZE_LIMIT)
            return -EOVERFLOW;
    }
    return reach > INT32_MAX || conv->pad_front > INT32_MAX / 2 ? -EOVERFLOW : 0;
}

int kn_conv3_plan(const struct kn_conv3 *conv, int threads, struct kn_conv3_plan *ret_plan) {
    struct kn_conv3_plan plan = {.conv = *conv};
    struct kn_conv plane = plane_of(conv);
    int rc = conv->plane.n < 1 ? -EINVAL : kn_conv_plan(&plane, threads, &plan.plane);

    if (rc == 0)
        rc = check_depth(conv, &plane);
    if (rc < 0)
        return rc;
    size_t tap = kn_round_up(plan.plane.packed_bytes, KN_ALIGN),
           bias = float_bytes((size_t)plane.oc);
    if (__builtin_mul_overflow(tap, (size_t)conv->kd, &plan.packed_bytes) ||
        __builtin_add_overflow(plan.packed_bytes, bias, &plan.packed_bytes))
        return -EOVERFLOW;
    plan.scratch_bytes =
        float_bytes((size_t)plane.oc * (size_t)(plane.ic / plane.group) * taps_of(&plane));
    size_t planes = float_bytes((size_t)plane.ic * in_plane(&plane)) +
                    float_bytes((size_t)plane.oc * out_plane(&plane));
    if (__builtin_add_overflow(plan.plane.workspace_bytes, planes, &plan.workspace_bytes))
        return -EOVERFLOW;
    *ret_plan = plan;
    return 0;
}

/* Copies rows of `count` floats that lie `stride` apart, from `from` on; they may be unaligned. */
static void gather(const float *from, size_t rows, size_t count, size_t stride, float *to) {
    for (size_t i = 0; i < rows; i++)
        memcpy(to + i * count, (const char *)from + i * stride * sizeof(float),
               count * sizeof(float));
}

static const char *packed_tap(const struct kn_conv3_plan *plan, const void *packed, int kz) {
    return (const char *)packed + float_bytes((size_t)plan->conv.plane.oc) +
           (size_t)kz * kn_round_up(plan->plane.packed_bytes, KN_ALIGN);
}

void kn_conv3_pack(const struct kn_conv3_plan *plan, const struct kn_conv_weights *weights,
                   void *packed, void *scratch) {
    const struct kn_conv *c = &plan->conv.plane;
    size_t taps = taps_of(c), rows = (size_t)c->oc * (size_t)(c->ic / c->group);
    size_t kd = (size_t)plan->conv.kd;

    memset(packed, 0, float_bytes((size_t)c->oc));
    if (weights->bias)
        memcpy(packed, weights->bias, (size_t)c->oc * sizeof(float));
    for (size_t kz = 0; kz < kd; kz++) {
        const char *tap = packed_tap(plan, packed, (int)kz);
        gather((const float *)(const void *)((const char *)weights->w + kz * taps * sizeof(float)),
               rows, taps, kd * taps, scratch);
        const struct kn_conv_weights part = {
            .w = scratch, .scale = weights->scale, .rows = weights->rows};
        kn_conv_pack(&plan->plane, &part, (void *)(uintptr_t)tap);
    }
}

/* One call's arrays. */
struct run {
    const struct kn_conv3_plan *plan;
    const void *packed;
    const float *x, *residual; /* of one image */
    float *y;
    float *slice, *sum;
    void *workspace;
    struct kn_threads *threads;
};

/* All channels of one output depth. */
static void run_depth(const struct run *r, ptrdiff_t oz) {
    const struct kn_conv3 *conv = &r->plan->conv;
    const struct kn_conv *c = &conv->plane;
    size_t in = in_plane(c), out = out_plane(c), depths = (size_t)conv->od;
    const float *bias = r->packed;
    ptrdiff_t start = oz * conv->stride_d - conv->pad_front, lo, hi;

    for (size_t o = 0; o < (size_t)c->oc; o++)
        for (size_t i = 0; i < out; i++)
            r->sum[o * out + i] =
                bias[o] + (r->residual ? r->residual[(o * depths + (size_t)oz) * out + i] : 0.0f);
    kn_valid_range(conv->id, conv->kd, conv->dil_d, start, &lo, &hi);
    for (ptrdiff_t kz = lo; kz < hi; kz++) {
        size_t iz = (size_t)(start + kz * conv->dil_d);
        gather(r->x + iz * in, (size_t)c->ic, in, (size_t)conv->id * in, r->slice);
        kn_conv_run(&r->plan->plane, packed_tap(r->plan, r->packed, (int)kz), r->slice, r->sum,
                    r->sum, r->workspace, r->threads);
    }
    kn_act_row(&c->act, r->sum, r->sum, (ptrdiff_t)((size_t)c->oc * out));
    for (size_t o = 0; o < (size_t)c->oc; o++)
        memcpy(r->y + (o * depths + (size_t)oz) * out, r->sum + o * out, out * sizeof(float));
}

void kn_conv3_run(const struct kn_conv3_plan *plan, const void *packed, const float *x,
                  const float *residual, float *y, void *workspace, struct kn_threads *threads) {
    const struct kn_conv *c = &plan->conv.plane;
    size_t slice = float_bytes((size_t)c->ic * in_plane(c));
    size_t in = (size_t)c->ic * (size_t)plan->conv.id * in_plane(c);
    size_t out = (size_t)c->oc * (size_t)plan->conv.od * out_plane(c);
    struct run r = {.plan = plan,
                    .packed = packed,
                    .slice = workspace,
                    .sum = (float *)(void *)((char *)workspace + slice),
                    .workspace =
                        (char *)workspace + slice + float_bytes((size_t)c->oc * out_plane(c)),
                    .threads = threads};

    for (size_t n = 0; n < (size_t)c->n; n++) {
        r.x = x + n * in;
        r.residual = residual ? residual + n * out : NULL;
        r.y = y + n * out;
        for (ptrdiff_t oz = 0; oz < plan->conv.od; oz++)
            run_depth(&r, oz);
    }
}

/* ---- ConvTranspose: every slice of the kernel spreads every plane */

int kn_conv3_transpose_workspace(const struct kn_conv3 *conv, size_t *ret_bytes) {
    struct kn_conv plane = plane_of(conv);
    size_t bytes = kn_conv_transpose_workspace(&plane);
    int rc = check_depth(conv, &plane);

    if (rc < 0)
        return rc;
    bytes += float_bytes((size_t)plane.ic * in_plane(&plane)) +
             float_bytes((size_t)plane.oc * out_plane(&plane)) +
             float_bytes((size_t)plane.ic * (size_t)(plane.oc / plane.group) * taps_of(&plane));
    if (bytes > SIZE_LIMIT)
        return -EOVERFLOW;
    *ret_bytes = bytes;
    return 0;
}

/* y[o][oz] += sum[o]. */
static void add_depth(const struct kn_conv3 *conv, const float *sum, ptrdiff_t oz, float *y) {
    size_t out = out_plane(&conv->plane), depths = (size_t)conv->od;

    for (size_t o = 0; o < (size_t)conv->plane.oc; o++) {
        float *to = y + (o * depths + (size_t)oz) * out;
        for (size_t i = 0; i < out; i++)
            to[i] += sum[o * out + i];
    }
}

void kn_conv3_transpose(const struct kn_conv3 *conv, const float *w, const float *bias,
                        const float *x, float *y, void *workspace, struct kn_threads *threads) {
    struct kn_conv plane = plane_of(conv);
    size_t in = in_plane(&plane), out = (size_t)conv->od * out_plane(&plane),
           taps = taps_of(&plane);
    size_t rows = (size_t)plane.ic * (size_t)(plane.oc / plane.group), depths = (size_t)conv->id;
    float *slice = workspace, *sum = slice + float_bytes((size_t)plane.ic * in) / sizeof(float);
    float *tap = sum + float_bytes((size_t)plane.oc * out_plane(&plane)) / sizeof(float);
    float *rest = tap + float_bytes(rows * taps) / sizeof(float);

    for (size_t n = 0; n < (size_t)conv->plane.n; n++, x += (size_t)plane.ic * depths * in) {
        for (size_t i = 0; i < (size_t)plane.oc * out; i++)
            y[i] = bias ? bias[i / out] : 0.0f;
        for (ptrdiff_t kz = 0; kz < conv->kd; kz++) {
            gather(w + (size_t)kz * taps, rows, taps, (size_t)conv->kd * taps, tap);
            for (ptrdiff_t iz = 0; iz < conv->id; iz++) {
                ptrdiff_t oz = iz * conv->stride_d + kz * conv->dil_d - conv->pad_front;
                if (oz < 0 || oz >= conv->od)
                    continue;
                gather(x + (size_t)iz * in, (size_t)plane.ic, in, depths * in, slice);
                kn_conv_transpose(&plane, tap, NULL, slice, sum, rest, threads);
                add_depth(conv, sum, oz, y);
            }
        }
        y += (size_t)plane.oc * out;
    }
}
