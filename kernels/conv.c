#include <errno.h>
#include <limits.h>

#include "conv_internal.h"
#include "simd.h"

/* The first that fits is taken. */
static const struct kn_conv_algo *const algos[] =
    {
        &kn_conv_depthwise_lanes, &kn_conv_depthwise, &kn_conv_banded,
        &kn_conv_vector,          &kn_conv_1x1,       &kn_conv_winograd,
        &kn_conv_direct,          &kn_conv_window,    &kn_conv_im2col, /* does everything */
};

#define TASK_PIXELS 64                /* fewer than any task computes of a larger plane */
#define COORD_MAX   (INT_MAX / 2)     /* of any row or column, inside or outside the picture */
#define COUNT_MAX   (PTRDIFF_MAX / 8) /* elements of a tensor */

static bool has_contradiction(const struct kn_conv *conv) {
    const int positive[] = {
        conv->n,  conv->ic, conv->ih,       conv->iw,       conv->oc,    conv->oh,    conv->ow,
        conv->kh, conv->kw, conv->stride_h, conv->stride_w, conv->dil_h, conv->dil_w, conv->group,
    };

    for (size_t i = 0; i < sizeof(positive) / sizeof(positive[0]); i++)
        if (positive[i] < 1)
            return true;
    return conv->ic % conv->group != 0 || conv->oc % conv->group != 0 || conv->act.kind < 0 ||
           conv->act.kind >= KN_ACT_COUNT;
}

/* Whether every input coordinate that one axis reaches for, o * stride + k * dilation - pad, fits.
 */
static bool axis_fits(int in, int out, int kernel, int stride, int dil, int pad) {
    int64_t reach = (int64_t)(out - 1) * stride;

    if (reach > COORD_MAX || (int64_t)(kernel - 1) * dil > COORD_MAX || in > COORD_MAX)
        return false;
    reach += (int64_t)(kernel - 1) * dil - pad;
    return reach <= COORD_MAX && pad <= COORD_MAX && pad >= -COORD_MAX;
}

/* Products that must not be larger than max. */
struct limit {
    int factors[4];
    size_t max;
};

static bool limit_holds(const struct limit *limit) {
    size_t value = 1;

    for (size_t i = 0; i < sizeof(limit->factors) / sizeof(limit->factors[0]); i++)
        if (__builtin_mul_overflow(value, (size_t)limit->factors[i], &value))
            return false;
    return value <= limit->max;
}

/* Tensors fit memory; what the GEMM library counts in int (rows, columns, distances) and tasks
 * (planes, and strips of planes) fit int. */
static int check_sizes(const struct kn_conv *conv) {
    int icg = conv->ic / conv->group;
    const struct limit limits[] = {
        {{conv->n, conv->ic, conv->ih, conv->iw}, COUNT_MAX},
        {{conv->n, conv->oc, conv->oh, conv->ow}, COUNT_MAX},
        {{conv->oc, icg, conv->kh, conv->kw}, COUNT_MAX},
        {{icg, conv->kh, conv->kw, 1}, INT_MAX},
        {{conv->ih, conv->iw, 1, 1}, INT_MAX},
        {{conv->oh, conv->ow, 1, 1}, INT_MAX},
        {{conv->n, conv->ic, 1, 1}, INT_MAX},
        {{conv->n, conv->oc, conv->oh, (conv->ow - 1) / TASK_PIXELS + 1}, INT_MAX},
    };

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        if (!limit_holds(&limits[i]))
            return -EOVERFLOW;
    if (!axis_fits(conv->ih, conv->oh, conv->kh, conv->stride_h, conv->dil_h, conv->pad_top) ||
        !axis_fits(conv->iw, conv->ow, conv->kw, conv->stride_w, conv->dil_w, conv->pad_left))
        return -EOVERFLOW;
    return 0;
}

int kn_conv_plan(const struct kn_conv *conv, int threads, struct kn_conv_plan *ret_plan) {
    struct kn_conv_plan plan = {.conv = *conv, .simd = kn_simd()};
    const struct kn_conv_algo *const *algo = algos;

    if (threads < 1 || has_contradiction(conv))
        return -EINVAL;
    int rc = check_sizes(conv);
    if (rc < 0)
        return rc;
    while (!(*algo)->fits(conv))
        algo++;
    plan.algo = *algo;
    rc = plan.algo->size(&plan);
    if (rc < 0)
        return rc;
    if (__builtin_mul_overflow(plan.workspace_bytes, (size_t)threads, &plan.workspace_bytes))
        return -EOVERFLOW;
    *ret_plan = plan;
    return 0;
}

const char *kn_conv_algo_name(const struct kn_conv_plan *plan) {
    return plan->algo->name;
}

void kn_conv_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                  void *packed) {
    plan->algo->pack(plan, weights, packed);
}

void kn_conv_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                 const float *residual, float *y, void *workspace, struct kn_threads *threads) {
    plan->algo->run(plan, packed, x, residual, y, workspace, threads);
}
