/* TopK (1, 10, 11), ArgMax and ArgMin (1, 11, 12, 13). */
#include "model/ops/kinds.h"

#include <errno.h>
#include <string.h>

/* Whether the kernel can order that type: asked with nothing to compute. */
static bool ordered(enum dtype dtype) {
    const struct kn_arg nothing = {.type = (enum kn_type)dtype, .axis = 1};
    int64_t none;
    return kn_arg(&nothing, &none, &none) == 0;
}

static int check_order(const struct op_call *call) {
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0 && !ordered(op_in(call, 0)->dtype))
        return op_fail(call, -ENOTSUP, "type %s is not supported",
                       dtype_name(op_in(call, 0)->dtype));
    return rc;
}

/* k: an attribute, later an input. Where that is known when the node runs, INT64_MAX at load. */
static int read_k(struct op_call *call, int64_t *ret) {
    size_t count;
    *ret = node_int(call->node, "k", -1);
    if (call->node->opset >= 10) {
        *ret = INT64_MAX;
        if (!op_bounded(call, 1))
            return 0;
        int rc = op_sizes(call, 1, ret, 1, &count);
        if (rc < 0)
            return rc;
        if (count != 1)
            return op_fail(call, -EBADMSG, "input 1 must be one number");
    }
    return 0;
}

static int topk_plan(struct op_call *call, void *ret) {
    struct kn_topk *plan = ret;
    int64_t k, dims[TENSOR_MAX_RANK];
    int axis, rc = check_order(call);
    if (rc == 0)
        rc = read_k(call, &k);
    if (rc == 0)
        rc = op_axis(call, node_int(call->node, "axis", -1), op_in(call, 0)->rank, &axis);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    bool bound = call->node->opset >= 10 && !op_known(call, 1);
    if (bound && k > x->dims[axis])
        k = x->dims[axis];
    if (k < 0 || k > x->dims[axis])
        return op_fail(call, -EBADMSG, "%lld of %lld elements cannot be taken", (long long)k,
                       (long long)x->dims[axis]);
    *plan = (struct kn_topk){.type = (enum kn_type)x->dtype,
                             .outer = op_product(x, 0, axis),
                             .axis = (size_t)x->dims[axis],
                             .inner = op_product(x, axis + 1, x->rank),
                             .k = (size_t)k,
                             .smallest = node_int(call->node, "largest", 1) == 0};
    memcpy(dims, x->dims, sizeof(dims));
    dims[axis] = k;
    rc = op_set(call, 0, x->dtype, x->rank, dims);
    if (rc == 0)
        rc = op_set(call, 1, DTYPE_INT64, x->rank, dims);
    for (size_t i = 0; i < 2 && rc == 0 && bound; i++)
        op_set_bound(call, i, axis);
    return rc;
}

/* Scratch of the kernel, then the indices where nobody wants them. */
static size_t scratch_bytes(const struct kn_topk *plan) {
    return (plan->k * sizeof(int64_t) + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
}

static int topk_size(struct op_prep *prep) {
    const struct kn_topk *plan = prep->plan;
    size_t elements = plan->outer * plan->k * plan->inner, spare = 0;
    const struct node *node = prep->node;
    if (node->outputs_count < 2 || !node->outputs[1])
        spare = elements * sizeof(int64_t);
    prep->workspace_bytes = scratch_bytes(plan) + spare;
    return 0;
}

static int topk_run(const struct op_args *args) {
    const struct kn_topk *plan = args->plan;
    void *spare = (char *)args->workspace + scratch_bytes(plan);
    void *indices = args->out_count > 1 && args->out[1] ? args->out[1]->data : spare;
    return kn_topk(plan, args->in[0]->data, args->out[0]->data, indices, args->workspace);
}

const struct op_kind kind_topk = {
    .plan_size = sizeof(struct kn_topk),
    .plan = topk_plan,
    .size = topk_size,
    .run = topk_run,
};

/* ---- ArgMax and ArgMin ---- */

static int arg_plan(struct op_call *call, void *ret) {
    struct kn_arg *plan = ret;
    int64_t dims[TENSOR_MAX_RANK];
    int axis, rank = 0, rc = check_order(call);
    if (rc == 0)
        rc = op_axis(call, node_int(call->node, "axis", 0), op_in(call, 0)->rank, &axis);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    if (x->dims[axis] == 0)
        return op_fail(call, -ENOTSUP, "nothing to choose from along dimension %d", axis);
    *plan = (struct kn_arg){.type = (enum kn_type)x->dtype,
                            .outer = op_product(x, 0, axis),
                            .axis = (size_t)x->dims[axis],
                            .inner = op_product(x, axis + 1, x->rank),
                            .smallest = call->op->arg != 0,
                            .last = node_int(call->node, "select_last_index", 0) != 0};
    for (int i = 0; i < x->rank; i++) {
        if (i != axis)
            dims[rank++] = x->dims[i];
        else if (node_int(call->node, "keepdims", 1) != 0)
            dims[rank++] = 1;
    }
    return op_set(call, 0, DTYPE_INT64, rank, dims);
}

static int arg_run(const struct op_args *args) {
    return kn_arg(args->plan, args->in[0]->data, args->out[0]->data);
}

const struct op_kind kind_arg = {
    .plan_size = sizeof(struct kn_arg), .plan = arg_plan, .run = arg_run};
