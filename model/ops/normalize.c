/* BatchNormalization (6, 7, 9, 14, 15; inference), LRN (1, 13), Softmax, LogSoftmax, Hardmax (1,
 * 11, 13). */
#include "model/ops/kinds.h"

#include <errno.h>
#include <math.h>
#include <string.h>

struct batch_norm_plan {
    int n, c; /* c: scales */
    int channels;
    size_t inner;
    float epsilon;
};

static int batch_norm_plan(struct op_call *call, void *ret) {
    struct batch_norm_plan *plan = ret;
    const struct tensor_desc *x = op_in(call, 0);
    int rc = op_rank(call, 0, 2, TENSOR_MAX_RANK);
    for (size_t i = 0; rc == 0 && i < 5; i++)
        rc = op_type(call, i, OP_FLOAT);
    bool spatial = node_int(call->node, "spatial", 1) != 0; /* else each element has its own */
    for (size_t i = 1; rc == 0 && i < 5; i++)
        if (op_in(call, i)->rank != (spatial ? 1 : x->rank - 1) ||
            memcmp(op_in(call, i)->dims, x->dims + 1,
                   sizeof(x->dims[0]) * (size_t)op_in(call, i)->rank) != 0)
            return op_fail(call, -EBADMSG, "input %zu does not have %lld elements", i,
                           (long long)op_product(x, 1, spatial ? 2 : x->rank));
    if (rc < 0)
        return rc;
    if (node_int(call->node, "training_mode", 0) != 0 || node_int(call->node, "is_test", 1) == 0)
        return op_fail(call, -ENOTSUP, "training_mode is not supported");
    if (op_product(x, 1, spatial ? 2 : x->rank) > OP_DIM_MAX)
        return op_fail(call, -ENOTSUP, "so many scales are not supported");
    plan->n = (int)x->dims[0];
    plan->c = (int)op_product(x, 1, spatial ? 2 : x->rank);
    plan->inner = spatial ? op_product(x, 2, x->rank) : 1;
    plan->channels = (int)x->dims[1];
    plan->epsilon = node_float(call->node, "epsilon", 1e-5f);
    return op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
}

static uint64_t batch_norm_macs(const struct node *node, const void *plan) {
    (void)plan;
    return op_count(&node->inputs[0]->desc);
}

static bool statistics_known(const struct node *node) {
    for (size_t i = 1; i < 5; i++)
        if (!node->inputs[i]->constant)
            return false;
    return true;
}

/* pack() writes scale[c] and shift[c]; where the statistics are not known at load they are made in
 * the workspace. */
static int batch_norm_size(struct op_prep *prep) {
    const struct batch_norm_plan *plan = prep->plan;
    size_t bytes = 2 * (size_t)plan->c * sizeof(float);
    if (statistics_known(prep->node)) {
        prep->bytes = bytes;
        prep->absorbed = 0x1e;
    } else {
        prep->workspace_bytes = bytes;
    }
    return 0;
}

static float float_at(const void *data, size_t i) {
    float f;
    memcpy(&f, (const char *)data + i * sizeof(f), sizeof(f));
    return f;
}

/* numbers: scale, bias, mean, variance. */
static void fold_statistics(const struct batch_norm_plan *plan, const void *const numbers[4],
                            const double *scale, const double *shift, float *ret) {
    for (size_t i = 0; i < (size_t)plan->c; i++) {
        size_t channel = i / (size_t)(plan->c / plan->channels);
        double s = (double)float_at(numbers[0], i) /
                   sqrt((double)float_at(numbers[3], i) + (double)plan->epsilon);
        double t = (double)float_at(numbers[1], i) - (double)float_at(numbers[2], i) * s;
        ret[i] = (float)(scale ? s * scale[channel] : s);
        ret[(size_t)plan->c + i] = (float)(scale ? t * scale[channel] + shift[channel] : t);
    }
}

static int batch_norm_pack(struct op_prep *prep) {
    const void *numbers[4];
    for (size_t i = 0; i < 4; i++)
        numbers[i] = prep->numbers[i + 1]->data;
    fold_statistics(prep->plan, numbers, prep->affine ? prep->scale : NULL, prep->shift,
                    prep->data);
    return 0;
}

static int batch_norm_run(const struct op_args *args) {
    const struct batch_norm_plan *plan = args->plan;
    const float *scale = args->packed;
    if (!scale) {
        const void *numbers[4];
        for (size_t i = 0; i < 4; i++)
            numbers[i] = args->in[i + 1]->data;
        fold_statistics(plan, numbers, NULL, NULL, args->workspace);
        scale = args->workspace;
    }
    kn_scale_shift(plan->n, plan->c, plan->inner, scale, scale + plan->c, &args->act,
                   args->in[0]->data, args->out[0]->data, args->threads);
    return 0;
}

const struct op_kind kind_batch_norm = {
    .plan_size = sizeof(struct batch_norm_plan),
    .plan = batch_norm_plan,
    .macs = batch_norm_macs,
    .size = batch_norm_size,
    .pack = batch_norm_pack,
    .run = batch_norm_run,
    .flags = OP_ACT | OP_AFFINE | OP_INPLACE,
};

/* ---- LRN ---- */

struct lrn_plan {
    int n, c, size;
    size_t inner;
    float alpha, beta, bias;
};

static int lrn_plan(struct op_call *call, void *ret) {
    struct lrn_plan *plan = ret;
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_rank(call, 0, 2, TENSOR_MAX_RANK);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    int64_t size = node_int(call->node, "size", 0);
    if (size < 1 || size > OP_DIM_MAX)
        return op_fail(call, -EBADMSG, "size cannot be %lld", (long long)size);
    *plan = (struct lrn_plan){.n = (int)x->dims[0],
                              .c = (int)x->dims[1],
                              .size = (int)size,
                              .inner = op_product(x, 2, x->rank),
                              .alpha = node_float(call->node, "alpha", 1e-4f),
                              .beta = node_float(call->node, "beta", 0.75f),
                              .bias = node_float(call->node, "bias", 1.0f)};
    return op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
}

static uint64_t lrn_macs(const struct node *node, const void *data) {
    const struct lrn_plan *plan = data;
    return op_count(&node->inputs[0]->desc) *
           (uint64_t)(plan->size < plan->c ? plan->size : plan->c);
}

static int lrn_run(const struct op_args *args) {
    const struct lrn_plan *plan = args->plan;
    kn_lrn(plan->n, plan->c, plan->inner, plan->size, plan->alpha, plan->beta, plan->bias,
           args->in[0]->data, args->out[0]->data, args->threads);
    return 0;
}

const struct op_kind kind_lrn = {
    .plan_size = sizeof(struct lrn_plan), .plan = lrn_plan, .macs = lrn_macs, .run = lrn_run};

/* ---- Softmax and its relatives ---- */

struct softmax_plan {
    size_t outer, axis, inner;
};

static int softmax_start(struct op_call *call, int64_t fallback, int *ret_axis) {
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    int64_t axis = node_int(call->node, "axis", fallback);
    if (x->rank == 0)
        return op_fail(call, -ENOTSUP, "a scalar is not supported");
    rc = op_axis(call, axis, x->rank, ret_axis);
    return rc < 0 ? rc : op_set(call, 0, DTYPE_FLOAT, x->rank, x->dims);
}

/* Opset 13: along one axis. */
static int softmax_plan(struct op_call *call, void *ret) {
    struct softmax_plan *plan = ret;
    int axis;
    int rc = softmax_start(call, -1, &axis);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    plan->outer = op_product(x, 0, axis);
    plan->axis = (size_t)x->dims[axis];
    plan->inner = op_product(x, axis + 1, x->rank);
    return 0;
}

/* Before: over everything from axis on, as one. */
static int softmax_flat_plan(struct op_call *call, void *ret) {
    struct softmax_plan *plan = ret;
    const struct tensor_desc *x = op_in(call, 0);
    int axis;
    int rc = softmax_start(call, x->rank > 1 ? 1 : 0, &axis);
    if (rc < 0)
        return rc;
    plan->outer = op_product(x, 0, axis);
    plan->axis = op_product(x, axis, x->rank);
    plan->inner = 1;
    return 0;
}

static int softmax_run(const struct op_args *args) {
    const struct softmax_plan *plan = args->plan;
    kn_softmax((enum kn_softmax_kind)args->op->arg, plan->outer, plan->axis, plan->inner,
               args->in[0]->data, args->out[0]->data);
    return 0;
}

const struct op_kind kind_softmax = {
    .plan_size = sizeof(struct softmax_plan),
    .plan = softmax_plan,
    .run = softmax_run,
    .flags = OP_INPLACE,
};
const struct op_kind kind_softmax_flat = {
    .plan_size = sizeof(struct softmax_plan),
    .plan = softmax_flat_plan,
    .run = softmax_run,
    .flags = OP_INPLACE,
};
