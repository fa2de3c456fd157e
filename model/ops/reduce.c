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

/* Whether the kernel knows the operator for that type: asked with nothing to compute. */
static int check_type(const struct op_call *call) {
    const struct kn_shape nothing = {.rank = 1};
    const bool reduced[1] = {false};
    char none[8];
    enum dtype dtype = op_in(call, 0)->dtype;
    if (kn_reduce((enum kn_reduce)call->op->arg, (enum kn_type)dtype, &nothing, reduced, none,
                  none) < 0)
        return op_fail(call, -ENOTSUP, "type %s is not supported", dtype_name(dtype));
    return 0;
}

/* Over no axes, these change nothing; others still take a square, an absolute value, a logarithm.
 */
static bool is_identity(enum kn_reduce op) {
    return op != KN_REDUCE_L1 && op != KN_REDUCE_L2 && op != KN_REDUCE_LOG_SUM &&
           op != KN_REDUCE_SUM_SQUARE;
}

static int reduce_plan(struct op_call *call, void *ret) {
    struct reduce_plan *plan = ret;
    bool given, keep = node_int(call->node, "keepdims", 1) != 0;
    int64_t dims[TENSOR_MAX_RANK];
    int rank = 0;
    int rc = op_type(call, 0, OP_NUMBERS | OP_TYPE(DTYPE_BOOL));
    if (rc == 0)
        rc = check_type(call);
    if (rc == 0)
        rc = reduce_axes(call, plan, &given);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    op_shape(x, &plan->shape);
    bool none = !given && node_int(call->node, "noop_with_empty_axes", 0) != 0;
    call->view = none && is_identity((enum kn_reduce)call->op->arg);
    for (int i = 0; i < x->rank; i++) {
        if (!given)
            plan->reduced[i] = !none;
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
