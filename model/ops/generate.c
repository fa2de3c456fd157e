/* Operators that make numbers: OneHot (9, 11), CumSum (11, 14), Range (11), EyeLike (9, 22). */
#include "model/ops/kinds.h"

#include <errno.h>
#include <string.h>

/* ---- OneHot ---- */

struct one_hot_plan {
    size_t outer, depth, inner;
};

/* depth and the indices may be of any type: they are read as integers. */
static int read_depth(struct op_call *call, int64_t *ret) {
    const void *number;
    size_t count;
    int rc = op_type(call, 1, OP_NUMBERS);
    if (rc < 0)
        return rc;
    if (op_count(op_in(call, 1)) != 1)
        return op_fail(call, -EBADMSG, "input 1 must be one number");
    enum dtype dtype = op_in(call, 1)->dtype;
    if (!op_known(call, 1) && op_bounded(call, 1)) {
        rc = op_sizes(call, 1, ret, 1, &count);
    } else {
        rc = op_numbers(call, 1, 1, &number);
        uint64_t aligned;
        if (rc == 0)
            memcpy(&aligned, number, dtype_size(dtype));
        if (rc == 0)
            kn_cast((enum kn_type)dtype, KN_INT64, &aligned, ret, 1);
    }
    if (rc < 0)
        return rc;
    if (call->least && *ret < 1)
        *ret = 1;
    if (*ret < 1 || *ret > OP_DIM_MAX)
        return op_fail(call, -EBADMSG, "depth cannot be %lld", (long long)*ret);
    return 0;
}

static int one_hot_plan(struct op_call *call, void *ret) {
    struct one_hot_plan *plan = ret;
    int64_t depth, dims[TENSOR_MAX_RANK + 1];
    int axis, rc = op_type(call, 0, OP_NUMBERS);
    if (rc == 0)
        rc = read_depth(call, &depth);
    if (rc == 0)
        rc = op_type(call, 2, OP_TYPES);
    if (rc == 0)
        rc = op_axis(call, node_int(call->node, "axis", -1), op_in(call, 0)->rank + 1, &axis);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    if (op_count(op_in(call, 2)) != 2)
        return op_fail(call, -EBADMSG, "input 2 must be two numbers");
    *plan = (struct one_hot_plan){.outer = op_product(x, 0, axis),
                                  .depth = (size_t)depth,
                                  .inner = op_product(x, axis, x->rank)};
    for (int i = 0; i <= x->rank; i++)
        dims[i] = i == axis ? depth : x->dims[i < axis ? i : i - 1];
    return op_set(call, 0, op_in(call, 2)->dtype, x->rank + 1, dims);
}

static int one_hot_size(struct op_prep *prep) {
    const struct one_hot_plan *plan = prep->plan;
    prep->workspace_bytes = plan->outer * plan->inner * sizeof(int64_t);
    return 0;
}

static int one_hot_run(const struct op_args *args) {
    const struct one_hot_plan *plan = args->plan;
    kn_cast((enum kn_type)args->in[0]->desc.dtype, KN_INT64, args->in[0]->data, args->workspace,
            plan->outer * plan->inner);
    kn_one_hot(dtype_size(args->out[0]->desc.dtype), plan->outer, plan->depth, plan->inner,
               args->workspace, args->in[2]->data, args->out[0]->data);
    return 0;
}

const struct op_kind kind_one_hot = {
    .plan_size = sizeof(struct one_hot_plan),
    .plan = one_hot_plan,
    .size = one_hot_size,
    .run = one_hot_run,
};

/* ---- CumSum ---- */

static int cumsum_plan(struct op_call *call, void *ret) {
    struct kn_cumsum *plan = ret;
    int64_t listed;
    size_t count;
    int axis, rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_ints(call, 1, &listed, 1, &count);
    if (rc == 0 && count != 1)
        return op_fail(call, -EBADMSG, "input 1 must be one number");
    if (rc == 0)
        rc = op_axis(call, listed, op_in(call, 0)->rank, &axis);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    const struct kn_cumsum nothing = {.type = (enum kn_type)x->dtype};
    if (kn_cumsum(&nothing, NULL, NULL) < 0)
        return op_fail(call, -ENOTSUP, "type %s is not supported", dtype_name(x->dtype));
    *plan = (struct kn_cumsum){.type = (enum kn_type)x->dtype,
                               .outer = op_product(x, 0, axis),
                               .axis = (size_t)x->dims[axis],
                               .inner = op_product(x, axis + 1, x->rank),
                               .exclusive = node_int(call->node, "exclusive", 0) != 0,
                               .reverse = node_int(call->node, "reverse", 0) != 0};
    return op_set(call, 0, x->dtype, x->rank, x->dims);
}

static int cumsum_run(const struct op_args *args) {
    return kn_cumsum(args->plan, args->in[0]->data, args->out[0]->data);
}

const struct op_kind kind_cumsum = {
    .plan_size = sizeof(struct kn_cumsum), .plan = cumsum_plan, .run = cumsum_run};

/* ---- Range ---- */

static int range_plan(struct op_call *call, void *ret) {
    (void)ret;
    uint64_t numbers[3] = {0}; /* of any type; aligned */
    enum dtype dtype = op_in(call, 0)->dtype;
    for (size_t i = 0; i < 3; i++) {
        const void *number = NULL;
        int64_t limit;
        size_t found;
        int rc = op_type(call, i, OP_TYPE(dtype));
        if (rc == 0 && op_count(op_in(call, i)) != 1)
            return op_fail(call, -EBADMSG, "input %zu must be one number", i);
        /* The limit may follow from shapes that depend on data: it grows with them. */
        if (rc == 0 && i == 1 && dtype == DTYPE_INT64 && !op_known(call, i))
            rc = op_sizes(call, i, &limit, 1, &found);
        else if (rc == 0)
            rc = op_numbers(call, i, 1, &number);
        if (rc < 0)
            return rc;
        memcpy(&numbers[i], number ? number : (const void *)&limit, dtype_size(dtype));
    }
    double count = kn_range_count((enum kn_type)dtype, &numbers[0], &numbers[1], &numbers[2]);
    if (!(count <= (double)OP_DIM_MAX))
        return op_fail(call, -ENOTSUP, "%g numbers of type %s are not supported", count,
                       dtype_name(dtype));
    return op_set(call, 0, dtype, 1, (int64_t[]){count > 0.0 ? (int64_t)count : 0});
}

static int range_run(const struct op_args *args) {
    kn_range((enum kn_type)args->out[0]->desc.dtype, args->in[0]->data, args->in[2]->data,
             op_count(&args->out[0]->desc), args->out[0]->data);
    return 0;
}

const struct op_kind kind_range = {.plan = range_plan, .run = range_run};

/* ---- EyeLike ---- */

static int eye_plan(struct op_call *call, void *ret) {
    int64_t *diagonal = ret;
    const int64_t one = 1;
    uint64_t number;
    int rc = op_rank(call, 0, 2, 2);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    int64_t dtype = node_int(call->node, "dtype", (int64_t)x->dtype);
    *diagonal = node_int(call->node, "k", 0);
    if (dtype < 0 || dtype > INT8_MAX ||
        kn_cast(KN_INT64, (enum kn_type)dtype, &one, &number, 1) < 0)
        return op_fail(call, -ENOTSUP, "type %lld is not supported", (long long)dtype);
    if (*diagonal < -OP_DIM_MAX || *diagonal > OP_DIM_MAX)
        return op_fail(call, -EBADMSG, "k cannot be %lld", (long long)*diagonal);
    return op_set(call, 0, (enum dtype)dtype, 2, x->dims);
}

static int eye_run(const struct op_args *args) {
    const struct tensor *y = args->out[0];
    const int64_t one = 1;
    uint64_t number;
    kn_cast(KN_INT64, (enum kn_type)y->desc.dtype, &one, &number, 1);
    kn_eye(dtype_size(y->desc.dtype), (size_t)y->desc.dims[0], (size_t)y->desc.dims[1],
           *(const int64_t *)args->plan, &number, y->data);
    return 0;
}

const struct op_kind kind_eye = {
    .plan_size = sizeof(int64_t), .plan = eye_plan, .run = eye_run, .flags = OP_SHAPE};
