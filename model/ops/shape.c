/* Operators that move no data: another shape of the same bytes, or a shape itself. */
#include "model/ops/kinds.h"

#include <errno.h>
#include <string.h>

/* Output 0 is input 0's elements in a new shape; the file's numbers may contradict that. Bounds of
 * sizes are met one by one, not all at once. */
static int set_view(struct op_call *call, int rank, const int64_t *dims) {
    const struct tensor_desc *x = op_in(call, 0);
    char old[96];
    int rc = op_set(call, 0, x->dtype, rank, dims);
    if (rc < 0)
        return rc;
    const struct tensor_desc *y = op_out(call, 0);
    if (y && !call->inexact && op_count(y) != op_count(x))
        return op_fail(call, -EBADMSG, "%s cannot become a shape of %zu elements",
                       tensor_desc_format(x, old, sizeof(old)), op_count(y));
    call->view = true;
    return 0;
}

static int reshape_plan(struct op_call *call, void *ret) {
    (void)ret;
    int64_t dims[TENSOR_MAX_RANK];
    size_t rank, known = 1;
    int inferred = -1;
    bool keep_zero = node_int(call->node, "allowzero", 0) != 0;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_sizes(call, 1, dims, TENSOR_MAX_RANK, &rank);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    for (size_t i = 0; i < rank; i++) {
        if (dims[i] == 0 && !keep_zero) {
            if (i >= (size_t)x->rank)
                return op_fail(call, -EBADMSG, "shape copies dimension %zu of %d", i, x->rank);
            dims[i] = x->dims[i];
        }
        if (dims[i] < -1 || (dims[i] == -1 && inferred >= 0))
            return op_fail(call, -EBADMSG, "shape has %lld at %zu", (long long)dims[i], i);
        if (dims[i] == -1)
            inferred = (int)i;
        else if (__builtin_mul_overflow(known, (size_t)dims[i], &known))
            return op_fail(call, -EBADMSG, "shape is too large");
    }
    if (inferred >= 0) {
        if (known == 0 || op_count(x) % known != 0)
            return op_fail(call, -EBADMSG, "%zu elements cannot be divided by %zu", op_count(x),
                           known);
        dims[inferred] = (int64_t)(op_count(x) / known);
    }
    return set_view(call, (int)rank, dims);
}

static int flatten_plan(struct op_call *call, void *ret) {
    (void)ret;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    int64_t axis = node_int(call->node, "axis", 1);
    if (axis < -x->rank || axis > x->rank)
        return op_fail(call, -EBADMSG, "axis %lld of a tensor with %d dimensions", (long long)axis,
                       x->rank);
    int at = (int)(axis < 0 ? axis + x->rank : axis);
    return set_view(
        call, 2, (int64_t[]){(int64_t)op_product(x, 0, at), (int64_t)op_product(x, at, x->rank)});
}

/* Which of rank axes are listed; each once. */
static int mark_axes(const struct op_call *call, const int64_t *axes, size_t count, int rank,
                     bool marked[2 * TENSOR_MAX_RANK]) {
    memset(marked, 0, sizeof(bool) * 2 * TENSOR_MAX_RANK);
    for (size_t i = 0; i < count; i++) {
        int axis;
        int rc = op_axis(call, axes[i], rank, &axis);
        if (rc < 0)
            return rc;
        if (marked[axis])
            return op_fail(call, -EBADMSG, "axis %d is listed twice", axis);
        marked[axis] = true;
    }
    return 0;
}

static int squeeze_plan(struct op_call *call, void *ret) {
    (void)ret;
    int64_t axes[TENSOR_MAX_RANK], dims[TENSOR_MAX_RANK];
    bool marked[2 * TENSOR_MAX_RANK], given;
    size_t count;
    int rank = 0, rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_list(call, "axes", 1, axes, TENSOR_MAX_RANK, &count, &given);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    rc = mark_axes(call, axes, count, x->rank, marked);
    for (int i = 0; rc == 0 && i < x->rank; i++) {
        if (given && marked[i] && x->dims[i] != 1)
            return op_fail(call, -EBADMSG, "dimension %d is %lld, not 1", i, (long long)x->dims[i]);
        if (!(given ? marked[i] : x->dims[i] == 1))
            dims[rank++] = x->dims[i];
    }
    return rc < 0 ? rc : set_view(call, rank, dims);
}

static int unsqueeze_plan(struct op_call *call, void *ret) {
    (void)ret;
    int64_t axes[TENSOR_MAX_RANK], dims[2 * TENSOR_MAX_RANK];
    bool marked[2 * TENSOR_MAX_RANK], given;
    size_t count;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_list(call, "axes", 1, axes, TENSOR_MAX_RANK, &count, &given);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    int rank = x->rank + (int)count;
    rc = mark_axes(call, axes, count, rank, marked);
    for (int i = 0, from = 0; rc == 0 && i < rank; i++)
        dims[i] = marked[i] ? 1 : x->dims[from++];
    return rc < 0 ? rc : set_view(call, rank, dims);
}

static bool mask_wanted(const struct node *node) {
    const struct value *mask = node->outputs_count > 1 ? node->outputs[1] : NULL;
    return mask && (mask->is_output || mask->consumers_count > 0);
}

/* Whether a Dropout that is told to train would drop anything. */
static int drops(const struct op_call *call, bool *ret) {
    float ratio = 0.5f;
    size_t count = 0;
    int rc = op_known(call, 1) ? op_floats(call, 1, &ratio, 1, &count) : 0;
    *ret = op_in(call, 1) && count == 0 ? true : ratio != 0.0f;
    return rc;
}

/* Identity, and Dropout, which does nothing but when training. */
static int identity_plan(struct op_call *call, void *ret) {
    (void)ret;
    int64_t training = node_int(call->node, "is_test", 1) == 0;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc < 0)
        return rc;
    if (op_in(call, 2)) {
        if (!op_constant(call, 2) || op_in(call, 2)->dtype != DTYPE_BOOL)
            return op_fail(call, -ENOTSUP, "training_mode must be known at load");
        const void *mode;
        rc = op_numbers(call, 2, 1, &mode);
        if (rc < 0)
            return rc;
        bool dropping = false;
        training = op_count(op_in(call, 2)) > 0 && *(const char *)mode != 0;
        if (training)
            rc = drops(call, &dropping);
        if (rc < 0)
            return rc;
        training = dropping;
    }
    if (training)
        return op_fail(call, -ENOTSUP, "training_mode is not supported");
    const struct tensor_desc *x = op_in(call, 0);
    rc = set_view(call, x->rank, x->dims);
    call->view = !mask_wanted(call->node);
    return rc < 0 ? rc : op_set(call, 1, DTYPE_BOOL, x->rank, x->dims);
}

/* Only where somebody wants the mask: it keeps everything. */
static int identity_run(const struct op_args *args) {
    size_t count = op_count(&args->in[0]->desc);
    if (args->out[0] && count > 0)
        memcpy(args->out[0]->data, args->in[0]->data, count * dtype_size(args->in[0]->desc.dtype));
    if (args->out_count > 1 && args->out[1])
        memset(args->out[1]->data, 1, count);
    return 0;
}

const struct op_kind kind_reshape = {.plan = reshape_plan};
const struct op_kind kind_flatten = {.plan = flatten_plan};
const struct op_kind kind_squeeze = {.plan = squeeze_plan};
const struct op_kind kind_unsqueeze = {.plan = unsqueeze_plan};
const struct op_kind kind_identity = {.plan = identity_plan, .run = identity_run, .flags = OP_DROP};

/* ---- shapes as tensors ---- */

struct shape_plan {
    int start, end;
};

static int shape_plan(struct op_call *call, void *ret) {
    struct shape_plan *plan = ret;
    const struct tensor_desc *x = op_in(call, 0);
    int64_t start = node_int(call->node, "start", 0), end = node_int(call->node, "end", x->rank);
    start = start < 0 ? start + x->rank : start;
    end = end < 0 ? end + x->rank : end;
    plan->start = (int)(start < 0 ? 0 : start > x->rank ? x->rank : start);
    plan->end = (int)(end < plan->start ? plan->start : end > x->rank ? x->rank : end);
    return op_set(call, 0, DTYPE_INT64, 1, (int64_t[]){plan->end - plan->start});
}

static int shape_run(const struct op_args *args) {
    const struct shape_plan *plan = args->plan;
    memcpy(args->out[0]->data, args->in[0]->desc.dims + plan->start,
           (size_t)(plan->end - plan->start) * sizeof(int64_t));
    return 0;
}

const struct op_kind kind_shape = {
    .plan_size = sizeof(struct shape_plan),
    .plan = shape_plan,
    .run = shape_run,
    .flags = OP_SHAPE,
};

static int size_plan(struct op_call *call, void *ret) {
    (void)ret;
    return op_set(call, 0, DTYPE_INT64, 0, NULL);
}

static int size_run(const struct op_args *args) {
    *(int64_t *)args->out[0]->data = (int64_t)op_count(&args->in[0]->desc);
    return 0;
}

const struct op_kind kind_size = {.plan = size_plan, .run = size_run, .flags = OP_SHAPE};

/* ---- ConstantOfShape (9, 20): one number, everywhere ---- */

struct fill_plan {
    size_t size; /* of an element */
    unsigned char value[8];
};

static int fill_plan(struct op_call *call, void *ret) {
    struct fill_plan *plan = ret;
    const struct attr *attr = node_attr(call->node, "value");
    int64_t dims[TENSOR_MAX_RANK];
    size_t rank;
    enum dtype dtype = attr ? attr->t->desc.dtype : DTYPE_FLOAT;
    if (attr && (op_count(&attr->t->desc) != 1 || dtype_size(dtype) == 0 || !attr->t->data))
        return op_fail(call, -EBADMSG, "value must be one number");
    plan->size = dtype_size(dtype);
    if (attr)
        memcpy(plan->value, attr->t->data, plan->size);
    int rc = op_sizes(call, 0, dims, TENSOR_MAX_RANK, &rank);
    return rc < 0 ? rc : op_set(call, 0, dtype, (int)rank, dims);
}

static int fill_run(const struct op_args *args) {
    const struct fill_plan *plan = args->plan;
    kn_fill(plan->size, plan->value, op_count(&args->out[0]->desc), args->out[0]->data);
    return 0;
}

const struct op_kind kind_constant_of_shape = {
    .plan_size = sizeof(struct fill_plan), .plan = fill_plan, .run = fill_run};

/* ---- Constant (1, 11, 12, 13): only where it is an output of the graph; import.c makes constants
 * of the others ---- */

/* Where the numbers of the node's attribute lie, and what they are. */
static const void *constant_data(const struct node *node, struct tensor_desc *ret_desc) {
    const struct attr *attr = &node->attrs[0];
    *ret_desc = (struct tensor_desc){.rank = 0};
    if (attr->kind == ATTR_TENSOR) {
        *ret_desc = attr->t->desc;
        return attr->t->data;
    }
    bool is_list = attr->kind == ATTR_INTS || attr->kind == ATTR_FLOATS;
    ret_desc->dtype = attr->kind == ATTR_INT || attr->kind == ATTR_INTS ? DTYPE_INT64 : DTYPE_FLOAT;
    ret_desc->rank = is_list ? 1 : 0;
    ret_desc->dims[0] = (int64_t)attr->count;
    return is_list ? (const void *)attr->ints : (const void *)&attr->i;
}

static int constant_plan(struct op_call *call, void *ret) {
    struct tensor_desc desc;
    (void)ret;
    if (call->node->attrs_count != 1)
        return op_fail(call, -EBADMSG, "it has %zu attributes instead of one",
                       call->node->attrs_count);
    constant_data(call->node, &desc);
    return op_set(call, 0, desc.dtype, desc.rank, desc.dims);
}

static int constant_size(struct op_prep *prep) {
    struct tensor_desc desc;
    constant_data(prep->node, &desc);
    prep->bytes = op_count(&desc) * dtype_size(desc.dtype);
    return 0;
}

static int constant_pack(struct op_prep *prep) {
    struct tensor_desc desc;
    memcpy(prep->data, constant_data(prep->node, &desc), prep->bytes);
    return 0;
}

static int constant_run(const struct op_args *args) {
    size_t bytes = op_count(&args->out[0]->desc) * dtype_size(args->out[0]->desc.dtype);
    if (bytes > 0)
        memcpy(args->out[0]->data, args->packed, bytes);
    return 0;
}

const struct op_kind kind_constant = {
    .plan = constant_plan, .size = constant_size, .pack = constant_pack, .run = constant_run};
