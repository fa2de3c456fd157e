/* Pad (2, 11, 13, 18, 19). */
#include "model/ops/pad.h"

#include <errno.h>
#include <string.h>

static int pad_mode(const struct op_call *call, enum kn_pad_mode *ret) {
    static const char *const names[] = {[KN_PAD_CONSTANT] = "constant",
                                        [KN_PAD_REFLECT] = "reflect",
                                        [KN_PAD_EDGE] = "edge",
                                        [KN_PAD_WRAP] = "wrap"};
    int mode = 0;
    int rc = op_choice(call, "mode", "constant", names, sizeof(names) / sizeof(names[0]), &mode);
    *ret = (enum kn_pad_mode)mode;
    return rc;
}

/* pads of all axes: listed for all of them, or for those in input 3. */
static int read_pads(const struct op_call *call, struct pad_plan *plan) {
    int64_t pads[2 * TENSOR_MAX_RANK], axes[TENSOR_MAX_RANK];
    size_t count, axes_count;
    bool given;
    int rank = op_in(call, 0)->rank;
    int rc = op_list(call, "pads", 1, pads, 2 * TENSOR_MAX_RANK, &count, &given);
    if (rc == 0)
        rc = op_ints(call, 3, axes, TENSOR_MAX_RANK, &axes_count);
    if (rc < 0)
        return rc;
    size_t listed = op_in(call, 3) ? axes_count : (size_t)rank;
    if (count != 2 * listed)
        return op_fail(call, -EBADMSG, "%zu pads for %zu dimensions", count, listed);
    for (size_t i = 0; i < listed; i++) {
        int axis;
        rc = op_axis(call, op_in(call, 3) ? axes[i] : (int64_t)i, rank, &axis);
        if (rc < 0)
            return rc;
        plan->begin[axis] = pads[i];
        plan->end[axis] = pads[listed + i];
    }
    return 0;
}

/* The number that pads are filled with: 0, an attribute, or input 2 (perhaps only when it runs). */
static int read_value(const struct op_call *call, struct pad_plan *plan) {
    const struct tensor_desc *x = op_in(call, 0), *value = op_in(call, 2);
    plan->known = true;
    if (x->dtype == DTYPE_FLOAT) {
        float f = node_float(call->node, "value", 0.0f);
        memcpy(plan->value, &f, sizeof(f));
    }
    if (!value)
        return 0;
    if (value->dtype != x->dtype || op_count(value) != 1)
        return op_fail(call, -EBADMSG, "input 2 must be one number of the input's type");
    plan->known = op_constant(call, 2);
    if (!plan->known)
        return 0;
    const void *number;
    int rc = op_numbers(call, 2, 1, &number);
    if (rc == 0)
        memcpy(plan->value, number, dtype_size(x->dtype));
    return rc;
}

/* What is left of the input can be repeated as often as it takes, but for nothing. */
static int check_axis(const struct op_call *call, const struct pad_plan *plan, int axis) {
    int64_t dim = plan->shape.dims[axis], begin = plan->begin[axis], end = plan->end[axis];
    if (begin < -OP_DIM_MAX || begin > OP_DIM_MAX || end < -OP_DIM_MAX || end > OP_DIM_MAX)
        return op_fail(call, -EBADMSG, "pads cannot be %lld and %lld", (long long)begin,
                       (long long)end);
    if (begin < -dim || end < -dim || begin + end + dim < 0)
        return op_fail(call, -EBADMSG, "pads take more than the %lld there are", (long long)dim);
    bool more = begin > 0 || end > 0,
         left = dim + (begin < 0 ? begin : 0) + (end < 0 ? end : 0) > 0;
    if (plan->mode != KN_PAD_CONSTANT && more && !left)
        return op_fail(call, -EBADMSG, "nothing to repeat along dimension %d", axis);
    return 0;
}

static int pad_plan(struct op_call *call, void *ret) {
    struct pad_plan *plan = ret;
    int64_t dims[TENSOR_MAX_RANK];
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = pad_mode(call, &plan->mode);
    if (rc == 0)
        rc = read_pads(call, plan);
    if (rc == 0)
        rc = read_value(call, plan);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    op_shape(x, &plan->shape);
    call->view = true;
    for (int i = 0; rc == 0 && i < x->rank; i++) {
        rc = check_axis(call, plan, i);
        if (rc < 0)
            return rc;
        dims[i] = x->dims[i] + plan->begin[i] + plan->end[i];
        if (plan->begin[i] != 0 || plan->end[i] != 0)
            call->view = false;
    }
    return rc < 0 ? rc : op_set(call, 0, x->dtype, x->rank, dims);
}

static int pad_run(const struct op_args *args) {
    const struct pad_plan *plan = args->plan;
    kn_pad(dtype_size(args->out[0]->desc.dtype), plan->mode, &plan->shape, plan->begin, plan->end,
           plan->known ? plan->value : args->in[2]->data, args->in[0]->data, args->out[0]->data);
    return 0;
}

const struct op_kind kind_pad = {
    .plan_size = sizeof(struct pad_plan), .plan = pad_plan, .run = pad_run};
