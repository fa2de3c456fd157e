/* Operators that read or write at places given by a tensor: Gather and GatherElements (1, 11, 13),
 * GatherND (11, 12, 13), Scatter (9) and ScatterElements, ScatterND (11, 13, 16, 18). All of them
 * check the places and make them absolute in the workspace first. */
#include "model/ops/kinds.h"

#include <errno.h>
#include <string.h>

#define INDICES (OP_TYPE(DTYPE_INT32) | OP_TYPE(DTYPE_INT64))

static int64_t index_at(const struct tensor *tensor, size_t i) {
    return tensor->desc.dtype == DTYPE_INT32 ? ((const int32_t *)tensor->data)[i]
                                             : ((const int64_t *)tensor->data)[i];
}

/* Index i of the tensor, counted from the end when negative, within [0, dim). */
static int checked_index(const struct op_args *args, const struct tensor *tensor, size_t i,
                         int64_t dim, int64_t *ret) {
    int64_t at = index_at(tensor, i);
    if (at < -dim || at >= dim)
        return err_set(args->err, -EINVAL, "index %lld is not within %lld elements", (long long)at,
                       (long long)dim);
    *ret = at < 0 ? at + dim : at;
    return 0;
}

/* One place for each index: of Gather and its relatives. */
static int places_size(struct op_prep *prep) {
    prep->workspace_bytes = op_count(&prep->node->inputs[1]->desc) * sizeof(int64_t);
    return 0;
}

/* ---- Gather ---- */

struct gather_plan {
    size_t outer, axis, inner, count;
};

static int gather_plan(struct op_call *call, void *ret) {
    struct gather_plan *plan = ret;
    int64_t dims[2 * TENSOR_MAX_RANK];
    int axis, rank = 0, rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_type(call, 1, INDICES);
    if (rc == 0)
        rc = op_axis(call, node_int(call->node, "axis", 0), op_in(call, 0)->rank, &axis);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0), *index = op_in(call, 1);
    *plan = (struct gather_plan){.outer = op_product(x, 0, axis),
                                 .axis = (size_t)x->dims[axis],
                                 .inner = op_product(x, axis + 1, x->rank),
                                 .count = op_count(index)};
    for (int i = 0; i < axis; i++)
        dims[rank++] = x->dims[i];
    for (int i = 0; i < index->rank; i++)
        dims[rank++] = index->dims[i];
    for (int i = axis + 1; i < x->rank; i++)
        dims[rank++] = x->dims[i];
    return op_set(call, 0, x->dtype, rank, dims);
}

static int gather_run(const struct op_args *args) {
    const struct gather_plan *plan = args->plan;
    int64_t *places = args->workspace;
    for (size_t i = 0; i < plan->count; i++) {
        int rc = checked_index(args, args->in[1], i, (int64_t)plan->axis, &places[i]);
        if (rc < 0)
            return rc;
    }
    kn_gather(dtype_size(args->out[0]->desc.dtype), plan->outer, plan->axis, plan->inner, places,
              plan->count, args->in[0]->data, args->out[0]->data);
    return 0;
}

const struct op_kind kind_gather = {
    .plan_size = sizeof(struct gather_plan),
    .plan = gather_plan,
    .size = places_size,
    .run = gather_run,
};

/* ---- GatherElements and ScatterElements: a place is the index's own, but along one axis ---- */

struct elements_plan {
    int axis;
    enum kn_scatter how;
};

static int elements_plan(struct op_call *call, struct elements_plan *plan) {
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_type(call, 1, INDICES);
    if (rc == 0)
        rc = op_axis(call, node_int(call->node, "axis", 0), op_in(call, 0)->rank, &plan->axis);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0), *index = op_in(call, 1);
    bool fits = index->rank == x->rank;
    for (int i = 0; fits && i < x->rank; i++)
        fits = i == plan->axis || index->dims[i] <= x->dims[i];
    if (!fits)
        return op_fail(call, -EBADMSG, "the indices' shape does not fit into the input's");
    return 0;
}

/* The absolute place of every index, in order. */
static int element_places(const struct op_args *args, int axis, int64_t *places) {
    const struct tensor_desc *x = &args->in[0]->desc, *index = &args->in[1]->desc;
    size_t strides[TENSOR_MAX_RANK], at[TENSOR_MAX_RANK] = {0}, count = op_count(index), base = 0;
    for (int d = 0; d < x->rank; d++)
        strides[d] = op_product(x, d + 1, x->rank);
    for (size_t i = 0; i < count; i++) {
        int rc = checked_index(args, args->in[1], i, x->dims[axis], &places[i]);
        if (rc < 0)
            return rc;
        places[i] = (int64_t)(base + (size_t)places[i] * strides[axis]);
        for (int d = index->rank - 1; d >= 0; d--) {
            size_t step = d == axis ? 0 : strides[d];
            base += step;
            if (++at[d] < (size_t)index->dims[d])
                break;
            base -= at[d] * step;
            at[d] = 0;
        }
    }
    return 0;
}

static int gather_elements_plan(struct op_call *call, void *ret) {
    int rc = elements_plan(call, ret);
    const struct tensor_desc *index = op_in(call, 1);
    return rc < 0 ? rc : op_set(call, 0, op_in(call, 0)->dtype, index->rank, index->dims);
}

static int gather_elements_run(const struct op_args *args) {
    const struct elements_plan *plan = args->plan;
    int rc = element_places(args, plan->axis, args->workspace);
    if (rc == 0)
        kn_gather(dtype_size(args->out[0]->desc.dtype), 1, 0, 1, args->workspace,
                  op_count(&args->in[1]->desc), args->in[0]->data, args->out[0]->data);
    return rc;
}

const struct op_kind kind_gather_elements = {
    .plan_size = sizeof(struct elements_plan),
    .plan = gather_elements_plan,
    .size = places_size,
    .run = gather_elements_run,
};

/* ---- what both Scatters share ---- */

static int read_reduction(const struct op_call *call, enum kn_scatter *ret) {
    static const char *const names[] = {[KN_SCATTER_NONE] = "none",
                                        [KN_SCATTER_ADD] = "add",
                                        [KN_SCATTER_MUL] = "mul",
                                        [KN_SCATTER_MIN] = "min",
                                        [KN_SCATTER_MAX] = "max"};
    enum dtype dtype = op_in(call, 0)->dtype;
    int64_t none = 0;
    int how = 0;
    int rc = op_choice(call, "reduction", "none", names, KN_SCATTER_COUNT, &how);
    if (rc < 0)
        return rc;
    *ret = (enum kn_scatter)how;
    if (kn_scatter(*ret, (enum kn_type)dtype, 0, &none, 0, &none, &none) < 0)
        return op_fail(call, -ENOTSUP, "reduction '%s' of type %s is not supported", names[how],
                       dtype_name(dtype));
    return 0;
}

static void copy_data(const struct op_args *args) {
    size_t bytes = op_count(&args->in[0]->desc) * dtype_size(args->in[0]->desc.dtype);
    if (bytes > 0)
        memcpy(args->out[0]->data, args->in[0]->data, bytes);
}

static int scatter_elements_plan(struct op_call *call, void *ret) {
    struct elements_plan *plan = ret;
    int rc = elements_plan(call, plan);
    if (rc == 0)
        rc = op_type(call, 2, OP_TYPE(op_in(call, 0)->dtype));
    if (rc == 0)
        rc = read_reduction(call, &plan->how);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0), *index = op_in(call, 1), *u = op_in(call, 2);
    if (u->rank != index->rank ||
        memcmp(u->dims, index->dims, sizeof(u->dims[0]) * (size_t)u->rank) != 0)
        return op_fail(call, -EBADMSG, "updates and indices are not of one shape");
    return op_set(call, 0, x->dtype, x->rank, x->dims);
}

static int scatter_elements_run(const struct op_args *args) {
    const struct elements_plan *plan = args->plan;
    int rc = element_places(args, plan->axis, args->workspace);
    if (rc < 0)
        return rc;
    copy_data(args);
    return kn_scatter(plan->how, (enum kn_type)args->in[0]->desc.dtype, 1, args->workspace,
                      op_count(&args->in[1]->desc), args->in[2]->data, args->out[0]->data);
}

const struct op_kind kind_scatter_elements = {
    .plan_size = sizeof(struct elements_plan),
    .plan = scatter_elements_plan,
    .size = places_size,
    .run = scatter_elements_run,
};

/* ---- GatherND and ScatterND: the last dimension of the indices is a place in x ---- */

struct nd_plan {
    int batch_dims;
    int depth;           /* numbers in one place */
    size_t count, inner; /* places; elements at each */
    enum kn_scatter how;
};

static int nd_plan(struct op_call *call, struct nd_plan *plan) {
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_type(call, 1, OP_TYPE(DTYPE_INT64));
    if (rc == 0)
        rc = op_rank(call, 0, 1, TENSOR_MAX_RANK);
    if (rc == 0)
        rc = op_rank(call, 1, 1, TENSOR_MAX_RANK);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0), *index = op_in(call, 1);
    int64_t batch = node_int(call->node, "batch_dims", 0), depth = index->dims[index->rank - 1];
    int least = x->rank < index->rank ? x->rank : index->rank;
    if (batch < 0 || batch >= least)
        return op_fail(call, -EBADMSG, "batch_dims cannot be %lld", (long long)batch);
    for (int i = 0; i < (int)batch; i++)
        if (x->dims[i] != index->dims[i])
            return op_fail(call, -EBADMSG, "dimension %d of input and indices differ", i);
    if (depth < 1 || depth > x->rank - batch)
        return op_fail(call, -EBADMSG, "places of %lld numbers in %d dimensions", (long long)depth,
                       x->rank - (int)batch);
    plan->batch_dims = (int)batch;
    plan->depth = (int)depth;
    plan->count = op_product(index, 0, index->rank - 1);
    plan->inner = op_product(x, (int)(batch + depth), x->rank);
    return 0;
}

static int nd_size(struct op_prep *prep) {
    const struct nd_plan *plan = prep->plan;
    prep->workspace_bytes = plan->count * sizeof(int64_t);
    return 0;
}

/* Absolute places, in blocks of inner elements. */
static int nd_places(const struct op_args *args, const struct nd_plan *plan, int64_t *places) {
    const struct tensor_desc *x = &args->in[0]->desc, *index = &args->in[1]->desc;
    size_t per_batch = op_product(index, plan->batch_dims, index->rank - 1);
    for (size_t i = 0; i < plan->count; i++) {
        size_t place = per_batch > 0 ? i / per_batch : 0;
        for (int d = 0; d < plan->depth; d++) {
            int64_t dim = x->dims[plan->batch_dims + d], at = 0;
            int rc =
                checked_index(args, args->in[1], i * (size_t)plan->depth + (size_t)d, dim, &at);
            if (rc < 0)
                return rc;
            place = place * (size_t)dim + (size_t)at;
        }
        places[i] = (int64_t)place;
    }
    return 0;
}

static int gather_nd_plan(struct op_call *call, void *ret) {
    struct nd_plan *plan = ret;
    int64_t dims[2 * TENSOR_MAX_RANK];
    int rank = 0, rc = nd_plan(call, plan);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0), *index = op_in(call, 1);
    for (int i = 0; i < index->rank - 1; i++)
        dims[rank++] = index->dims[i];
    for (int i = plan->batch_dims + plan->depth; i < x->rank; i++)
        dims[rank++] = x->dims[i];
    return op_set(call, 0, x->dtype, rank, dims);
}

static int gather_nd_run(const struct op_args *args) {
    const struct nd_plan *plan = args->plan;
    int rc = nd_places(args, plan, args->workspace);
    if (rc == 0)
        kn_gather(dtype_size(args->out[0]->desc.dtype), 1, 0, plan->inner, args->workspace,
                  plan->count, args->in[0]->data, args->out[0]->data);
    return rc;
}

const struct op_kind kind_gather_nd = {
    .plan_size = sizeof(struct nd_plan),
    .plan = gather_nd_plan,
    .size = nd_size,
    .run = gather_nd_run,
};

static int scatter_nd_plan(struct op_call *call, void *ret) {
    struct nd_plan *plan = ret;
    int rc = nd_plan(call, plan);
    if (rc == 0)
        rc = op_type(call, 2, OP_TYPE(op_in(call, 0)->dtype));
    if (rc == 0)
        rc = read_reduction(call, &plan->how);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0), *index = op_in(call, 1), *u = op_in(call, 2);
    bool fits = u->rank == index->rank - 1 + x->rank - plan->depth;
    for (int i = 0; fits && i < u->rank; i++)
        fits = u->dims[i] == (i < index->rank - 1 ? index->dims[i]
                                                  : x->dims[i - (index->rank - 1) + plan->depth]);
    if (!fits)
        return op_fail(call, -EBADMSG, "the updates' shape does not fit the indices and the input");
    return op_set(call, 0, x->dtype, x->rank, x->dims);
}

static int scatter_nd_run(const struct op_args *args) {
    const struct nd_plan *plan = args->plan;
    int rc = nd_places(args, plan, args->workspace);
    if (rc < 0)
        return rc;
    copy_data(args);
    return kn_scatter(plan->how, (enum kn_type)args->in[0]->desc.dtype, plan->inner,
                      args->workspace, plan->count, args->in[2]->data, args->out[0]->data);
}

const struct op_kind kind_scatter_nd = {
    .plan_size = sizeof(struct nd_plan),
    .plan = scatter_nd_plan,
    .size = nd_size,
    .run = scatter_nd_run,
};
