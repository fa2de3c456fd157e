/* Operators that bring parts of a tensor to mean 0 and variance 1, or to length 1:
 * InstanceNormalization (6, 22), LayerNormalization (17), GroupNormalization (18, 21),
 * MeanVarianceNormalization (9, 13), LpNormalization (1, 22). */
#include "model/ops/kinds.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* x is a float tensor with a batch and channels. */
static int check_picture(const struct op_call *call) {
    int rc = op_type(call, 0, OP_FLOAT);
    return rc < 0 ? rc : op_rank(call, 0, 2, TENSOR_MAX_RANK);
}

/* Inputs 1 and 2 are one number for each of count channels. */
static int check_channels(const struct op_call *call, int64_t count) {
    for (size_t i = 1; i < 3; i++) {
        int rc = op_type(call, i, OP_FLOAT);
        if (rc < 0)
            return rc;
        if (op_in(call, i)->rank != 1 || op_in(call, i)->dims[0] != count)
            return op_fail(call, -EBADMSG, "input %zu does not have %lld elements", i,
                           (long long)count);
    }
    return 0;
}

static uint64_t element_macs(const struct node *node, const void *plan) {
    (void)plan;
    return 2 * op_count(&node->inputs[0]->desc);
}

/* ---- InstanceNormalization and GroupNormalization ---- */

static int instance_plan(struct op_call *call, void *ret) {
    struct kn_standardize *plan = ret;
    int rc = check_picture(call);
    if (rc == 0)
        rc = check_channels(call, op_in(call, 0)->dims[1]);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    *plan = (struct kn_standardize){.rows = op_product(x, 0, 2),
                                    .count = op_product(x, 2, x->rank),
                                    .channels = (size_t)x->dims[1],
                                    .inner = op_product(x, 2, x->rank),
                                    .epsilon = node_float(call->node, "epsilon", 1e-5f)};
    return op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
}

/* Before opset 21, scale and bias are those of groups, later of channels. */
static int group_plan(struct op_call *call, void *ret) {
    struct kn_standardize *plan = ret;
    int64_t groups = node_int(call->node, "num_groups", 0);
    bool by_group = call->node->opset < 21;
    int rc = check_picture(call);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    if (groups < 1 || x->dims[1] % groups != 0)
        return op_fail(call, -EBADMSG, "%lld channels cannot be divided into %lld groups",
                       (long long)x->dims[1], (long long)groups);
    rc = check_channels(call, by_group ? groups : x->dims[1]);
    if (rc < 0)
        return rc;
    size_t area = op_product(x, 2, x->rank), part = (size_t)(x->dims[1] / groups) * area;
    *plan = (struct kn_standardize){.rows = (size_t)x->dims[0] * (size_t)groups,
                                    .count = part,
                                    .channels = (size_t)(by_group ? groups : x->dims[1]),
                                    .inner = by_group ? part : area,
                                    .epsilon = node_float(call->node, "epsilon", 1e-5f)};
    return op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
}

static int standardize_run(const struct op_args *args) {
    const struct kn_standardize *plan = args->plan;
    if (op_count(&args->out[0]->desc) > 0)
        kn_standardize(plan, args->in[1]->data, args->in[2]->data, args->in[0]->data,
                       args->out[0]->data, NULL, NULL, args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_instance_norm = {
    .plan_size = sizeof(struct kn_standardize),
    .plan = instance_plan,
    .macs = element_macs,
    .run = standardize_run,
    .flags = OP_ACT | OP_INPLACE,
};
const struct op_kind kind_group_norm = {
    .plan_size = sizeof(struct kn_standardize),
    .plan = group_plan,
    .macs = element_macs,
    .run = standardize_run,
    .flags = OP_ACT | OP_INPLACE,
};

/* ---- LayerNormalization ---- */

struct layer_plan {
    struct kn_standardize rows;
    struct kn_shape shape; /* of one row */
};

static int layer_plan(struct op_call *call, void *ret) {
    struct layer_plan *plan = ret;
    int64_t dims[TENSOR_MAX_RANK];
    int axis, rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_axis(call, node_int(call->node, "axis", -1), op_in(call, 0)->rank, &axis);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    if (node_int(call->node, "stash_type", 1) != DTYPE_FLOAT)
        return op_fail(call, -ENOTSUP, "a stash_type other than float32 is not supported");
    plan->shape.rank = x->rank - axis;
    memcpy(plan->shape.dims, x->dims + axis, sizeof(x->dims[0]) * (size_t)plan->shape.rank);
    for (size_t i = 1; i < 3 && op_in(call, i); i++) {
        int64_t both[TENSOR_MAX_RANK];
        int rank;
        const struct tensor_desc *in = op_in(call, i);
        rc = op_type(call, i, OP_FLOAT);
        if (rc < 0)
            return rc;
        if (op_broadcast(in->dims, in->rank, plan->shape.dims, plan->shape.rank, both, &rank) < 0 ||
            rank != plan->shape.rank ||
            memcmp(both, plan->shape.dims, sizeof(both[0]) * (size_t)rank) != 0)
            return op_fail(call, -EBADMSG, "input %zu cannot be broadcast to what is normalized",
                           i);
    }
    size_t count = op_product(x, axis, x->rank);
    plan->rows = (struct kn_standardize){.rows = op_product(x, 0, axis),
                                         .count = count,
                                         .channels = count,
                                         .inner = 1,
                                         .epsilon = node_float(call->node, "epsilon", 1e-5f)};
    memcpy(dims, x->dims, sizeof(dims));
    for (int i = axis; i < x->rank; i++)
        dims[i] = 1;
    rc = op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
    if (rc == 0)
        rc = op_set(call, 1, DTYPE_FLOAT, x->rank, dims);
    return rc < 0 ? rc : op_set(call, 2, DTYPE_FLOAT, x->rank, dims);
}

/* Room for scale and bias where they are broadcast. */
static int layer_size(struct op_prep *prep) {
    const struct layer_plan *plan = prep->plan;
    for (size_t i = 1; i < prep->node->inputs_count && prep->node->inputs[i]; i++)
        if (op_count(&prep->node->inputs[i]->desc) != plan->rows.count)
            prep->workspace_bytes = 2 * plan->rows.count * sizeof(float);
    return 0;
}

/* Input i with as many numbers as a row. */
static const float *layer_numbers(const struct op_args *args, size_t i) {
    const struct layer_plan *plan = args->plan;
    int64_t from[KN_MAX_RANK], to[KN_MAX_RANK], stride = 1;
    if (i >= args->in_count || !args->in[i])
        return NULL;
    if (op_count(&args->in[i]->desc) == plan->rows.count)
        return args->in[i]->data;
    float *numbers = (float *)args->workspace + (i - 1) * plan->rows.count;
    op_strides(&args->in[i]->desc, &plan->shape, from);
    for (int d = plan->shape.rank - 1; d >= 0; d--) {
        to[d] = stride;
        stride *= plan->shape.dims[d];
    }
    kn_copy(sizeof(float), &plan->shape, from, args->in[i]->data, to, numbers);
    return numbers;
}

static float *wanted(const struct op_args *args, size_t i) {
    return i < args->out_count && args->out[i] ? args->out[i]->data : NULL;
}

static int layer_run(const struct op_args *args) {
    const struct layer_plan *plan = args->plan;
    if (plan->rows.count > 0)
        kn_standardize(&plan->rows, layer_numbers(args, 1), layer_numbers(args, 2),
                       args->in[0]->data, args->out[0]->data, wanted(args, 1), wanted(args, 2),
                       args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_layer_norm = {
    .plan_size = sizeof(struct layer_plan),
    .plan = layer_plan,
    .macs = element_macs,
    .size = layer_size,
    .run = layer_run,
    .flags = OP_ACT,
};

/* ---- MeanVarianceNormalization: over any axes, so with the kernels of ReduceMean and others ----
 */

struct mvn_plan {
    struct kn_shape shape;
    bool reduced[KN_MAX_RANK];
    int64_t x_strides[KN_MAX_RANK], mean_strides[KN_MAX_RANK]; /* over shape */
    size_t kept, count;                                        /* means; elements of each */
};

static int mvn_plan(struct op_call *call, void *ret) {
    static const int64_t usual[] = {0, 2, 3};
    struct mvn_plan *plan = ret;
    size_t count;
    const int64_t *axes = node_ints(call->node, "axes", &count);
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    struct tensor_desc mean = *x;
    if (!axes) {
        axes = usual;
        count = 3;
    }
    plan->kept = plan->count = 1;
    for (size_t i = 0; i < count; i++) {
        int axis;
        rc = op_axis(call, axes[i], x->rank, &axis);
        if (rc < 0)
            return rc;
        plan->reduced[axis] = true;
        mean.dims[axis] = 1;
    }
    for (int i = 0; i < x->rank; i++)
        *(plan->reduced[i] ? &plan->count : &plan->kept) *= (size_t)x->dims[i];
    op_shape(x, &plan->shape);
    op_strides(x, &plan->shape, plan->x_strides);
    op_strides(&mean, &plan->shape, plan->mean_strides);
    return op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
}

static int mvn_size(struct op_prep *prep) {
    const struct mvn_plan *plan = prep->plan;
    prep->workspace_bytes = plan->kept * sizeof(float);
    return 0;
}

static int mvn_run(const struct op_args *args) {
    const struct mvn_plan *plan = args->plan;
    float *numbers = args->workspace, *y = args->out[0]->data;
    if (plan->count == 0)
        return 0;
    kn_reduce(KN_REDUCE_MEAN, KN_FLOAT, &plan->shape, plan->reduced, args->in[0]->data, numbers);
    kn_binary(KN_SUB, KN_FLOAT, &plan->shape, plan->x_strides, plan->mean_strides,
              args->in[0]->data, numbers, y, args->threads);
    kn_reduce(KN_REDUCE_SUM_SQUARE, KN_FLOAT, &plan->shape, plan->reduced, y, numbers);
    for (size_t i = 0; i < plan->kept; i++) /* as ONNX has it: a constant becomes 0, not NaN */
        numbers[i] = sqrtf(numbers[i] / (float)plan->count) + 1e-9f;
    kn_binary(KN_DIV, KN_FLOAT, &plan->shape, plan->x_strides, plan->mean_strides, y, numbers, y,
              args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_mvn = {
    .plan_size = sizeof(struct mvn_plan),
    .plan = mvn_plan,
    .macs = element_macs,
    .size = mvn_size,
    .run = mvn_run,
    .flags = OP_ACT,
};

/* ---- LpNormalization ---- */

struct lp_plan {
    size_t outer, axis, inner;
    int p;
};

static int lp_plan(struct op_call *call, void *ret) {
    struct lp_plan *plan = ret;
    int64_t p = node_int(call->node, "p", 2);
    int axis, rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_axis(call, node_int(call->node, "axis", -1), op_in(call, 0)->rank, &axis);
    if (rc < 0)
        return rc;
    if (p != 1 && p != 2)
        return op_fail(call, -EBADMSG, "p cannot be %lld", (long long)p);
    const struct tensor_desc *x = op_in(call, 0);
    *plan = (struct lp_plan){.outer = op_product(x, 0, axis),
                             .axis = (size_t)x->dims[axis],
                             .inner = op_product(x, axis + 1, x->rank),
                             .p = (int)p};
    return op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
}

static int lp_run(const struct op_args *args) {
    const struct lp_plan *plan = args->plan;
    kn_lp_normalize(plan->outer, plan->axis, plan->inner, plan->p, args->in[0]->data,
                    args->out[0]->data);
    op_activate(args);
    return 0;
}

const struct op_kind kind_lp_norm = {
    .plan_size = sizeof(struct lp_plan),
    .plan = lp_plan,
    .macs = element_macs,
    .run = lp_run,
    .flags = OP_ACT | OP_INPLACE,
};
