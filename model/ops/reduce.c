/* ReduceMean and its relatives (1, 11, 13, 18, 20). */
#include "model/ops/kinds.h"

#include <errno.h>
#include <string.h>

struct reduce_plan {
    struct kn_shape shape;
    bool reduced[KN_MAX_RANK];
};

static int reduce_axes(const struct op_call *call, struct reduce_plan *plan, bool *ret_given) {
    int64_t axes[TENSOR_MAX_RANK];
    size_t count;
    int rank = op_in(call, 0)->rank;
    int rc = op_list(call, "axes", 1, axes, TENSOR_MAX_RANK, &count, ret_given);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        int axis;
        rc = op_axis(call, axes[i], rank, &axis);
        if (rc == 0)
            plan->reduced[axis] = true;
    }
    if (rc == 0 && count == 0)
        *ret_given = false;
    return rc;
}

static int reduce_plan(struct op_call *call, void *ret) {
    struct reduce_plan *plan = ret;
    bool given, keep = node_int(call->node, "keepdims", 1) != 0;
    int64_t dims[TENSOR_MAX_RANK];
    int rank = 0;
    int rc = op_type(call, 0, OP_FLOAT | OP_TYPE(DTYPE_INT32) | OP_TYPE(DTYPE_INT64));
    if (rc == 0)
        rc = reduce_axes(call, plan, &given);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    op_shape(x, &plan->shape);
    if (!given && node_int(call->node, "noop_with_empty_axes", 0) != 0) {
        call->view = true;
        return op_set(call, 0, x->dtype, x->rank, x->dims);
    }
    for (int i = 0; i < x->rank; i++) {
        if (!given)
            plan->reduced[i] = true;
        if (plan->reduced[i] && x->dims[i] == 0)
            return op_fail(call, -ENOTSUP, "nothing to reduce along dimension %d", i);
        if (!plan->reduced[i])
            dims[rank++] = x->dims[i];
        else if (keep)
            dims[rank++] = 1;
    }
    return op_set(call, 0, x->dtype, rank, dims);
}

static int reduce_run(const struct op_args *args) {
    const struct reduce_plan *plan = args->plan;
    return kn_reduce((enum kn_reduce)args->op->arg, (enum kn_type)args->in[0]->desc.dtype,
                     &plan->shape, plan->reduced, args->in[0]->data, args->out[0]->data);
}

const struct op_kind kind_reduce = {
    .plan_size = sizeof(struct reduce_plan), .plan = reduce_plan, .run = reduce_run};
