/* Resize (10, 11, 13, 18, 19) and Upsample (7, 9). */
#include "model/ops/kinds.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* What is wanted of an axis that does not grow or shrink by one factor with the others. */
enum aspect { STRETCH, NOT_LARGER, NOT_SMALLER };

struct resize_plan {
    struct kn_resize resize;
    enum dtype dtype;
    float extrapolation;
};

static int read_modes(const struct op_call *call, const char *coord, struct resize_plan *plan) {
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    static const char *const coords[] = {[KN_COORD_HALF_PIXEL] = "half_pixel",
                                         [KN_COORD_PYTORCH_HALF_PIXEL] = "pytorch_half_pixel",
                                         [KN_COORD_ALIGN_CORNERS] = "align_corners",
                                         [KN_COORD_ASYMMETRIC] = "asymmetric",
                                         [KN_COORD_HALF_PIXEL_SYMMETRIC] = "half_pixel_symmetric",
                                         [KN_COORD_HALF_PIXEL_FOR_NN] = "tf_half_pixel_for_nn",
                                         [KN_COORD_CROP] = "tf_crop_and_resize"};
    static const char *const rounds[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                         "ceil"};
    struct kn_resize *resize = &plan->resize;
    int mode = 0, coordinate = 0, rounding = 0;
    const char *old = call->node->opset <= 10 ? "floor" : "round_prefer_floor";
    int rc = op_choice(call, "mode", "nearest", modes, 3, &mode);
    if (rc == 0)
        rc = op_choice(call, "coordinate_transformation_mode", coord, coords,
                       sizeof(coords) / sizeof(coords[0]), &coordinate);
    if (rc == 0)
        rc = op_choice(call, "nearest_mode", old, rounds, 4, &rounding);
    if (rc < 0)
        return rc;
    resize->mode = (enum kn_resize_mode)mode;
    resize->coord = (enum kn_resize_coord)coordinate;
    resize->round = (enum kn_resize_round)rounding;
    resize->exclude_outside = node_int(call->node, "exclude_outside", 0) != 0;
    resize->antialias = node_int(call->node, "antialias", 0) != 0;
    resize->cubic_a = node_float(call->node, "cubic_coeff_a", -0.75f);
    plan->extrapolation = node_float(call->node, "extrapolation_value", 0.0f);
    if (resize->antialias && resize->mode == KN_RESIZE_NEAREST)
        return op_fail(call, -EBADMSG, "antialias cannot go with mode nearest");
    return 0;
}

/* The axes that scales, sizes and roi are about: listed, or all. */
struct axes {
    int list[TENSOR_MAX_RANK];
    size_t count;
};

static int read_axes(const struct op_call *call, struct axes *ret) {
    size_t count;
    int rank = op_in(call, 0)->rank;
    bool used[TENSOR_MAX_RANK] = {false};
    const int64_t *listed = node_ints(call->node, "axes", &count);
    ret->count = listed ? count : (size_t)rank;
    if (ret->count > (size_t)rank)
        return op_fail(call, -EBADMSG, "%zu axes for %d dimensions", count, rank);
    for (size_t i = 0; i < ret->count; i++) {
        int rc = op_axis(call, listed ? listed[i] : (int64_t)i, rank, &ret->list[i]);
        if (rc < 0)
            return rc;
        if (used[ret->list[i]])
            return op_fail(call, -EBADMSG, "axis %d is listed twice", ret->list[i]);
        used[ret->list[i]] = true;
    }
    return 0;
}

/* Every axis as it is; checks that there is something to resize. */
static int start(const struct op_call *call, struct resize_plan *plan) {
    const struct tensor_desc *x = op_in(call, 0);
    int rc = op_type(call, 0,
                     plan->resize.mode == KN_RESIZE_NEAREST ? OP_TYPES
                                                            : OP_NUMBERS | OP_TYPE(DTYPE_FLOAT16));
    if (rc < 0)
        return rc;
    if (x->rank < 1 || op_count(x) == 0)
        return op_fail(call, -ENOTSUP, "an empty tensor or scalar is not supported");
    if (op_count(x) > OP_DIM_MAX)
        return op_fail(call, -ENOTSUP, "a tensor of %zu elements is not supported", op_count(x));
    plan->dtype = x->dtype;
    plan->resize.elem_size = dtype_size(x->dtype);
    plan->resize.rank = x->rank;
    for (int i = 0; i < x->rank; i++)
        plan->resize.axes[i] = (struct kn_resize_axis){
            .in = (int)x->dims[i], .out = (int)x->dims[i], .scale = 1.0, .roi_end = 1.0};
    return 0;
}

static int set_axis(const struct op_call *call, struct kn_resize_axis *axis, double out,
                    double scale) {
    if (!(scale > 0.0) || !(out >= 1.0) || out > (double)OP_DIM_MAX)
        return op_fail(call, -EBADMSG, "a dimension of %d would be scaled by %g", axis->in, scale);
    axis->out = (int)out;
    axis->scale = scale;
    return 0;
}

/* In float, as ONNX's shape inference has it: 10 * 0.7f is 7. */
static int set_scales(const struct op_call *call, const struct axes *axes, const float *scales,
                      struct resize_plan *plan) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < axes->count; i++) {
        struct kn_resize_axis *axis = &plan->resize.axes[axes->list[i]];
        rc = set_axis(call, axis, (double)floorf((float)axis->in * scales[i]), (double)scales[i]);
    }
    return rc;
}

static int set_sizes(const struct op_call *call, const struct axes *axes, const int64_t *sizes,
                     struct resize_plan *plan) {
    static const char *const names[] = {"stretch", "not_larger", "not_smaller"};
    int policy = STRETCH;
    int rc = op_choice(call, "keep_aspect_ratio_policy", "stretch", names, 3, &policy);
    double common = 0.0;
    for (size_t i = 0; i < axes->count; i++) {
        double scale = (double)sizes[i] / plan->resize.axes[axes->list[i]].in;
        if (i == 0 || (policy == NOT_LARGER ? scale < common : scale > common))
            common = scale;
    }
    for (size_t i = 0; rc == 0 && i < axes->count; i++) {
        struct kn_resize_axis *axis = &plan->resize.axes[axes->list[i]];
        if (policy == STRETCH)
            rc = set_axis(call, axis, (double)sizes[i], (double)sizes[i] / axis->in);
        else
            rc = set_axis(call, axis, floor(common * axis->in + 0.5), common);
    }
    return rc;
}

static int set_outputs(struct op_call *call, struct resize_plan *plan) {
    int64_t dims[TENSOR_MAX_RANK];
    size_t scratch;
    bool same = true;
    for (int i = 0; i < plan->resize.rank; i++) {
        const struct kn_resize_axis *axis = &plan->resize.axes[i];
        dims[i] = axis->out;
        same = same && axis->out == axis->in && axis->scale == 1.0;
    }
    if (kn_resize_scratch(&plan->resize, 1, &scratch) < 0)
        return op_fail(call, -ENOTSUP, "shrinking so much is not supported");
    call->view = same && plan->resize.coord != KN_COORD_CROP && !call->inexact &&
                 op_in(call, 0)->bounded == 0;
    return op_set(call, 0, plan->dtype, plan->resize.rank, dims);
}

/* The part that is shown, of tf_crop_and_resize. */
static int read_roi(const struct op_call *call, const struct axes *axes, struct resize_plan *plan) {
    const void *roi;
    double numbers[2 * TENSOR_MAX_RANK];
    if (plan->resize.coord != KN_COORD_CROP)
        return 0;
    int rc = op_type(call, 1, OP_FLOAT | OP_TYPE(DTYPE_DOUBLE) | OP_TYPE(DTYPE_FLOAT16));
    if (rc == 0)
        rc = op_numbers(call, 1, 2 * TENSOR_MAX_RANK, &roi);
    if (rc < 0)
        return rc;
    const struct tensor_desc *desc = op_in(call, 1);
    if (op_count(desc) != 2 * axes->count)
        return op_fail(call, -EBADMSG, "roi has %zu numbers for %zu dimensions", op_count(desc),
                       axes->count);
    uint64_t aligned[2 * TENSOR_MAX_RANK];
    memcpy(aligned, roi, op_count(desc) * dtype_size(desc->dtype));
    kn_cast((enum kn_type)desc->dtype, KN_DOUBLE, aligned, numbers, 2 * axes->count);
    for (size_t i = 0; i < axes->count; i++) {
        struct kn_resize_axis *axis = &plan->resize.axes[axes->list[i]];
        axis->roi_begin = numbers[i];
        axis->roi_end = numbers[axes->count + i];
        if (!isfinite(axis->roi_begin) || !isfinite(axis->roi_end))
            return op_fail(call, -EBADMSG, "roi has a number that is not finite");
    }
    return 0;
}

static int resize_plan(struct op_call *call, void *ret) {
    struct resize_plan *plan = ret;
    float scales[TENSOR_MAX_RANK];
    int64_t sizes[TENSOR_MAX_RANK];
    size_t scales_count, sizes_count = 0;
    struct axes axes;
    bool old = call->node->opset <= 10; /* inputs X, scales; later X, roi, scales, sizes */
    int rc = read_modes(call, old ? "asymmetric" : "half_pixel", plan);
    if (rc == 0)
        rc = start(call, plan);
    if (rc == 0)
        rc = read_axes(call, &axes);
    if (rc == 0 && !old)
        rc = read_roi(call, &axes, plan);
    if (rc == 0)
        rc = op_floats(call, old ? 1 : 2, scales, TENSOR_MAX_RANK, &scales_count);
    if (rc == 0 && !old && op_in(call, 3) && scales_count == 0)
        rc = op_sizes(call, 3, sizes, TENSOR_MAX_RANK, &sizes_count);
    if (rc < 0)
        return rc;
    if (scales_count + sizes_count != axes.count)
        return op_fail(call, -EBADMSG, "%zu scales or sizes for %zu dimensions",
                       scales_count + sizes_count, axes.count);
    rc = sizes_count > 0 ? set_sizes(call, &axes, sizes, plan)
                         : set_scales(call, &axes, scales, plan);
    return rc < 0 ? rc : set_outputs(call, plan);
}

static int upsample_plan(struct op_call *call, void *ret) {
    struct resize_plan *plan = ret;
    float scales[TENSOR_MAX_RANK];
    struct axes axes;
    size_t count, given;
    int rc = read_modes(call, "asymmetric", plan);
    if (rc == 0)
        rc = start(call, plan);
    if (rc == 0)
        rc = read_axes(call, &axes);
    if (rc < 0)
        return rc;
    const float *listed = node_floats(call->node, "scales", &given);
    if (!listed) {
        rc = op_floats(call, 1, scales, TENSOR_MAX_RANK, &given);
        if (rc < 0)
            return rc;
        listed = scales;
    }
    count = axes.count;
    if (given != count)
        return op_fail(call, -EBADMSG, "%zu scales for %zu dimensions", given, count);
    plan->resize.round = KN_ROUND_FLOOR;
    rc = set_scales(call, &axes, listed, plan);
    return rc < 0 ? rc : set_outputs(call, plan);
}

/* Linear and cubic are computed in float: other types have room for both tensors behind the
 * scratch.
 */
static bool converts(const struct resize_plan *plan) {
    return plan->resize.mode != KN_RESIZE_NEAREST && plan->dtype != DTYPE_FLOAT;
}

static size_t room(size_t elements) {
    return (elements * sizeof(float) + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN +
           TENSOR_ALIGN;
}

static int resize_size(struct op_prep *prep) {
    const struct resize_plan *plan = prep->plan;
    size_t bytes;
    int rc = kn_resize_scratch(&plan->resize, prep->threads, &bytes);
    if (rc < 0)
        return rc;
    prep->workspace_bytes = bytes;
    if (converts(plan))
        prep->workspace_bytes += room(op_count(&prep->node->inputs[0]->desc)) +
                                 room(op_count(&prep->node->outputs[0]->desc));
    return 0;
}

static int resize_run(const struct op_args *args) {
    const struct resize_plan *plan = args->plan;
    struct kn_resize resize = plan->resize;
    enum kn_type type = (enum kn_type)plan->dtype;
    const struct tensor *x = args->in[0], *y = args->out[0];
    size_t in = op_count(&x->desc), out = op_count(&y->desc), bytes = 0;
    uint64_t outside;
    if (!converts(plan)) {
        kn_cast(KN_FLOAT, type, &plan->extrapolation, &outside, 1);
        resize.outside = &outside;
        kn_resize(&resize, x->data, y->data, args->workspace, args->threads);
        op_activate(args);
        return 0;
    }
    kn_resize_scratch(&resize, kn_threads_count(args->threads), &bytes);
    float *from = (float *)((char *)args->workspace + bytes);
    float *to = (float *)((char *)from + room(in));
    resize.elem_size = sizeof(float);
    resize.outside = &plan->extrapolation;
    kn_cast(type, KN_FLOAT, x->data, from, in);
    kn_resize(&resize, from, to, args->workspace, args->threads);
    if (plan->dtype != DTYPE_DOUBLE && plan->dtype != DTYPE_FLOAT16)
        kn_unary(KN_ROUND, KN_FLOAT, to, to, out);
    return kn_cast(KN_FLOAT, type, to, y->data, out);
}

const struct op_kind kind_resize = {
    .plan_size = sizeof(struct resize_plan),
    .plan = resize_plan,
    .size = resize_size,
    .run = resize_run,
    .flags = OP_ACT,
};
const struct op_kind kind_upsample = {
    .plan_size = sizeof(struct resize_plan),
    .plan = upsample_plan,
    .size = resize_size,
    .run = resize_run,
    .flags = OP_ACT,
};
