/* QuantizeLinear and DequantizeLinear (10, 13, 19, 21), DynamicQuantizeLinear (11). */
#include "model/onnx_tensor.h"
#include "model/ops/kinds.h"

#include "kernels/quantized.h"

#include <errno.h>
#include <string.h>

#define BYTES     (OP_TYPE(DTYPE_UINT8) | OP_TYPE(DTYPE_INT8))
#define QUANTISED (BYTES | OP_TYPE(DTYPE_UINT16) | OP_TYPE(DTYPE_INT16))

/* Scales of blocks along an axis: shaped like the input, but for the axis. */
static int read_blocks(const struct op_call *call, int64_t block, int axis,
                       struct kn_scaling *scaling) {
    const struct tensor_desc *x = op_in(call, 0), *scale = op_in(call, 1);
    if (block < 1 || scale->rank != x->rank)
        return op_fail(call, -EBADMSG,
                       "a scale with %d dimensions and block_size %lld do not fit an input with %d",
                       scale->rank, (long long)block, x->rank);
    for (int i = 0; i < x->rank; i++) {
        int64_t want = i == axis ? (x->dims[i] + block - 1) / block : x->dims[i];
        if (scale->dims[i] != want)
            return op_fail(call, -EBADMSG, "dimension %d of the scale is %lld instead of %lld", i,
                           (long long)scale->dims[i], (long long)want);
    }
    scaling->block = (size_t)block;
    scaling->inner_step = 1;
    scaling->axis_step = scaling->inner;
    scaling->outer_step = (size_t)scale->dims[axis] * scaling->inner;
    return 0;
}

/* How the scales of input 1 lie over input 0; input 2, when it is there, is as many zeros. */
static int read_scaling(const struct op_call *call, struct kn_scaling *ret) {
    const struct tensor_desc *x = op_in(call, 0), *scale = op_in(call, 1), *zero = op_in(call, 2);
    int64_t block = node_int(call->node, "block_size", 0);
    int axis, rc;
    if (zero &&
        (op_count(zero) != op_count(scale) || (zero->rank > scale->rank && op_count(zero) != 1)))
        return op_fail(call, -EBADMSG, "%zu zero points for %zu scales", op_count(zero),
                       op_count(scale));
    *ret = (struct kn_scaling){.outer = 1, .axis = 1, .inner = op_count(x), .block = 1};
    if (block == 0 && op_count(scale) == 1 && scale->rank < 2)
        return 0;
    rc = op_axis(call, node_int(call->node, "axis", 1), x->rank, &axis);
    if (rc < 0)
        return rc;
    ret->outer = op_product(x, 0, axis);
    ret->axis = (size_t)x->dims[axis];
    ret->inner = op_product(x, axis + 1, x->rank);
    if (block != 0)
        return read_blocks(call, block, axis, ret);
    if (scale->rank != 1 || scale->dims[0] != x->dims[axis])
        return op_fail(call, -EBADMSG, "%zu scales for %lld channels", op_count(scale),
                       (long long)x->dims[axis]);
    ret->axis_step = 1;
    return 0;
}

/* ---- QuantizeLinear ---- */

struct quantize_plan {
    struct kn_scaling scaling;
    bool widens; /* input 0 is int32: made floats first */
};

static int quantize_plan(struct op_call *call, void *ret) {
    struct quantize_plan *plan = ret;
    int64_t wanted = node_int(call->node, "output_dtype", 0);
    const struct tensor_desc *x = op_in(call, 0), *zero = op_in(call, 2);
    enum dtype dtype = zero ? zero->dtype : wanted == 0 ? DTYPE_UINT8 : (enum dtype)wanted;
    int rc = op_type(call, 0, OP_FLOAT | OP_TYPE(DTYPE_INT32));
    if (rc == 0)
        rc = op_type(call, 1, OP_FLOAT);
    if (rc < 0)
        return rc;
    if (wanted < 0 || wanted > 31 || !(OP_TYPE(dtype) & QUANTISED))
        return op_fail(call, -ENOTSUP, "to %s is not supported",
                       tensor_onnx_type(zero ? (int32_t)dtype : (int32_t)wanted));
    if (wanted != 0 && (enum dtype)wanted != dtype)
        return op_fail(call, -EBADMSG, "output_dtype and the zero point's type contradict");
    plan->widens = x->dtype == DTYPE_INT32;
    rc = read_scaling(call, &plan->scaling);
    return rc < 0 ? rc : op_set(call, 0, dtype, x->rank, x->dims);
}

static int quantize_size(struct op_prep *prep) {
    const struct quantize_plan *plan = prep->plan;
    if (plan->widens)
        prep->workspace_bytes = op_count(&prep->node->inputs[0]->desc) * sizeof(float);
    return 0;
}

static int quantize_run(const struct op_args *args) {
    const struct quantize_plan *plan = args->plan;
    const void *x = args->in[0]->data;
    const void *zero = args->in_count > 2 && args->in[2] ? args->in[2]->data : NULL;
    if (plan->widens) {
        kn_cast(KN_INT32, KN_FLOAT, x, args->workspace, op_count(&args->in[0]->desc));
        x = args->workspace;
    }
    return kn_quantize(&plan->scaling, (enum kn_type)args->out[0]->desc.dtype, x, args->in[1]->data,
                       zero, args->out[0]->data, args->threads);
}

const struct op_kind kind_quantize = {
    .plan_size = sizeof(struct quantize_plan),
    .plan = quantize_plan,
    .size = quantize_size,
    .run = quantize_run,
};

/* ---- DequantizeLinear ---- */

static int dequantize_plan(struct op_call *call, void *ret) {
    const struct tensor_desc *x = op_in(call, 0);
    int rc = op_type(call, 0, QUANTISED | OP_TYPE(DTYPE_INT32));
    if (rc == 0)
        rc = op_type(call, 1, OP_FLOAT);
    if (rc == 0 && op_in(call, 2))
        rc = op_type(call, 2, OP_TYPE(x->dtype));
    if (rc == 0)
        rc = read_scaling(call, ret);
    return rc < 0 ? rc : op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
}

static int dequantize_run(const struct op_args *args) {
    const void *zero = args->in_count > 2 && args->in[2] ? args->in[2]->data : NULL;
    int rc = kn_dequantize(args->plan, (enum kn_type)args->in[0]->desc.dtype, args->in[0]->data,
                           args->in[1]->data, zero, args->out[0]->data, args->threads);
    op_activate(args);
    return rc;
}

const struct op_kind kind_dequantize = {
    .plan_size = sizeof(struct kn_scaling),
    .plan = dequantize_plan,
    .run = dequantize_run,
    .flags = OP_ACT,
};

/* ---- DynamicQuantizeLinear ---- */

static int dynamic_plan(struct op_call *call, void *ret) {
    const struct tensor_desc *x = op_in(call, 0);
    (void)ret;
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_set(call, 0, DTYPE_UINT8, x->rank, x->dims);
    if (rc == 0)
        rc = op_set(call, 1, DTYPE_FLOAT, 0, NULL);
    return rc < 0 ? rc : op_set(call, 2, DTYPE_UINT8, 0, NULL);
}

static int dynamic_run(const struct op_args *args) {
    size_t count = op_count(&args->in[0]->desc);
    const struct kn_scaling all = {.outer = 1, .axis = 1, .inner = count, .block = 1};
    float scale;
    uint8_t zero;
    kn_quantize_range(args->in[0]->data, count, &scale, &zero);
    if (args->out_count > 1 && args->out[1])
        memcpy(args->out[1]->data, &scale, sizeof(scale));
    if (args->out_count > 2 && args->out[2])
        memcpy(args->out[2]->data, &zero, sizeof(zero));
    if (!args->out[0])
        return 0;
    return kn_quantize(&all, KN_UINT8, args->in[0]->data, &scale, &zero, args->out[0]->data,
                       args->threads);
}

const struct op_kind kind_dynamic_quantize = {.plan = dynamic_plan, .run = dynamic_run};
