/* Resize (10, 11, 13) and Upsample (7, 9) of the two last axes. */
#include "model/ops/kinds.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Names of an enumeration's values, in its order. */
static int lookup(const struct op_call *call, const char *attr, const char *fallback,
                  const char *const *names, size_t count, int *ret) {
    const char *name = node_string(call->node, attr, fallback);
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = (int)i;
            return 0;
        }
    return op_fail(call, -ENOTSUP, "%s '%.40s' is not supported", attr, name);
}

static int read_modes(const struct op_call *call, const char *coord, struct kn_resize *ret) {
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    static const char *const coords[] = {"half_pixel", "pytorch_half_pixel", "align_corners",
                                         "asymmetric"};
    static const char *const rounds[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                         "ceil"};
    int mode = 0, coordinate = 0, rounding = 0;
    const char *old = call->node->opset <= 10 ? "floor" : "round_prefer_floor";
    int rc = lookup(call, "mode", "nearest", modes, 3, &mode);
    if (rc == 0)
        rc = lookup(call, "coordinate_transformation_mode", coord, coords, 4, &coordinate);
    if (rc == 0)
        rc = lookup(call, "nearest_mode", old, rounds, 4, &rounding);
    if (rc < 0)
        return rc;
    if (node_int(call->node, "exclude_outside", 0) != 0)
        return op_fail(call, -ENOTSUP, "exclude_outside is not supported");
    ret->mode = (enum kn_resize_mode)mode;
    ret->coord = (enum kn_resize_coord)coordinate;
    ret->round = (enum kn_resize_round)rounding;
    ret->cubic_a = node_float(call->node, "cubic_coeff_a", -0.75f);
    return 0;
}

/* Sets dims and scales of the output from whichever the node gives; sizes may be NULL. */
static int resize_set(struct op_call *call, const float *scales, const int64_t *sizes, size_t count,
                      struct kn_resize *plan) {
    const struct tensor_desc *x = op_in(call, 0);
    int64_t dims[TENSOR_MAX_RANK];
    double scale[2] = {1.0, 1.0};
    if (count != (size_t)x->rank)
        return op_fail(call, -EBADMSG, "%zu scales or sizes for %d dimensions", count, x->rank);
    if (x->rank < 1 || op_count(x) == 0)
        return op_fail(call, -ENOTSUP, "an empty tensor or scalar is not supported");
    for (int i = 0; i < x->rank; i++) {
        double s = sizes ? (double)sizes[i] / (double)x->dims[i] : (double)scales[i];
        double out = sizes ? (double)sizes[i] : floor((double)x->dims[i] * s);
        if (!(s > 0.0) || !(out >= 1.0) || out > (double)OP_DIM_MAX)
            return op_fail(call, -EBADMSG, "dimension %d would be scaled by %g", i, s);
        dims[i] = (int64_t)out;
        if (i >= x->rank - 2)
            scale[i - (x->rank - 2)] = s;
        else if (dims[i] != x->dims[i])
            return op_fail(call, -ENOTSUP, "only the two last dimensions can be resized");
    }
    size_t planes = op_product(x, 0, x->rank > 2 ? x->rank - 2 : 0);
    if (planes > OP_DIM_MAX)
        return op_fail(call, -ENOTSUP, "%zu planes are not supported", planes);
    bool flat = x->rank == 1;
    plan->planes = (int)planes;
    plan->ih = flat ? 1 : (int)x->dims[x->rank - 2];
    plan->iw = (int)x->dims[x->rank - 1];
    plan->oh = flat ? 1 : (int)dims[x->rank - 2];
    plan->ow = (int)dims[x->rank - 1];
    plan->scale_h = flat ? 1.0f : (float)scale[0];
    plan->scale_w = (float)scale[1];
    return op_set(call, 0, DTYPE_FLOAT, x->rank, dims);
}

static int resize_plan(struct op_call *call, void *ret) {
    float scales[TENSOR_MAX_RANK];
    int64_t sizes[TENSOR_MAX_RANK];
    size_t scales_count, sizes_count = 0;
    bool old = call->node->opset <= 10; /* inputs X, scales; later X, roi, scales, sizes */
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = read_modes(call, old ? "asymmetric" : "half_pixel", ret);
    if (rc == 0)
        rc = op_floats(call, old ? 1 : 2, scales, TENSOR_MAX_RANK, &scales_count);
    if (rc == 0 && !old)
        rc = op_ints(call, 3, sizes, TENSOR_MAX_RANK, &sizes_count);
    if (rc < 0)
        return rc;
    return resize_set(call, scales, sizes_count > 0 ? sizes : NULL,
                      sizes_count > 0 ? sizes_count : scales_count, ret);
}

static int upsample_plan(struct op_call *call, void *ret) {
    float scales[TENSOR_MAX_RANK];
    struct kn_resize *plan = ret;
    size_t count, given;
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = read_modes(call, "asymmetric", plan);
    if (rc < 0)
        return rc;
    plan->round = KN_ROUND_FLOOR;
    const float *listed = node_floats(call->node, "scales", &given);
    if (listed)
        return resize_set(call, listed, NULL, given, plan);
    rc = op_floats(call, 1, scales, TENSOR_MAX_RANK, &count);
    return rc < 0 ? rc : resize_set(call, scales, NULL, count, plan);
}

static int resize_run(const struct op_args *args) {
    kn_resize(args->plan, args->in[0]->data, args->out[0]->data, args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_resize = {
    .plan_size = sizeof(struct kn_resize),
    .plan = resize_plan,
    .run = resize_run,
    .flags = OP_ACT,
};
const struct op_kind kind_upsample = {
    .plan_size = sizeof(struct kn_resize),
    .plan = upsample_plan,
    .run = resize_run,
    .flags = OP_ACT,
};
