/* Element by element with numpy's broadcasting (opset 7 and later): binary operators, sums of any
 * number of inputs, functions of one element, Where and Cast. */
#include "model/onnx_tensor.h"
#include "model/ops/kinds.h"

#include <errno.h>
#include <string.h>

/* Whether the kernel knows op for type: asked with nothing to compute. */
static bool binary_known(enum kn_binary op, enum dtype dtype) {
    const struct kn_shape nothing = {.rank = 1, .dims = {0}};
    const int64_t strides[1] = {1};
    char none[8] = {0};
    return kn_binary(op, (enum kn_type)dtype, &nothing, strides, strides, none, none, none, NULL) ==
           0;
}

static bool is_comparison(enum kn_binary op) {
    return op >= KN_EQUAL && op <= KN_LESS_EQUAL;
}

struct binary_plan {
    enum kn_binary op;
    enum dtype dtype;  /* of input 0 and the output */
    enum dtype b_type; /* input 1's: Pow allows another */
    enum dtype wide;   /* that both are computed in */
    struct kn_shape shape;
    int64_t a_strides[KN_MAX_RANK], b_strides[KN_MAX_RANK];
};

/* Before opset 7, input 1 was broadcast only when an attribute said so, from `axis` on (by default
 * to the last dimensions); PRelu's slopes are those of channels. Gives input 1 dimensions of one
 * element behind its own, so that numpy's rule does the same. */
static int align_operand(const struct op_call *call, const struct tensor_desc *a,
                         struct tensor_desc *b) {
    bool slopes = call->op->arg == KN_PRELU;
    if (call->node->opset >= 7 || op_count(b) == 1)
        return 0;
    int64_t axis = node_int(call->node, "axis", slopes ? 1 : a->rank - b->rank);
    if (!slopes && node_int(call->node, "broadcast", 0) == 0 && a->rank != b->rank)
        return op_fail(call, -EBADMSG, "inputs of %d and %d dimensions without broadcast", a->rank,
                       b->rank);
    if (axis < 0 || axis + b->rank > a->rank)
        return op_fail(call, -EBADMSG, "axis %lld for inputs of %d and %d dimensions",
                       (long long)axis, a->rank, b->rank);
    while ((int)axis + b->rank < a->rank)
        b->dims[b->rank++] = 1;
    return 0;
}

static int check_broadcast(const struct op_call *call, const struct tensor_desc *a,
                           const struct tensor_desc *b, struct kn_shape *shape) {
    char one[96], other[96];
    if (op_broadcast(a->dims, a->rank, b->dims, b->rank, shape->dims, &shape->rank) < 0)
        return op_fail(call, -EBADMSG, "%s and %s cannot be broadcast",
                       tensor_desc_format(a, one, sizeof(one)),
                       tensor_desc_format(b, other, sizeof(other)));
    return 0;
}

static bool is_real(enum dtype dtype) {
    return dtype == DTYPE_FLOAT || dtype == DTYPE_DOUBLE;
}

static int binary_plan(struct op_call *call, void *ret) {
    struct binary_plan *plan = ret;
    const struct tensor_desc *a = op_in(call, 0), *b = op_in(call, 1);
    plan->op = (enum kn_binary)call->op->arg;
    if (plan->op == KN_MOD && node_int(call->node, "fmod", 0) != 0)
        plan->op = KN_FMOD;
    plan->dtype = a->dtype;
    plan->b_type = b->dtype;
    plan->wide = is_real(a->dtype) ? a->dtype : is_real(b->dtype) ? DTYPE_DOUBLE : DTYPE_INT64;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_type(call, 1, plan->op == KN_POW ? OP_NUMBERS : OP_TYPE(a->dtype));
    if (rc == 0 && !binary_known(plan->op, plan->dtype))
        return op_fail(call, -ENOTSUP, "type %s is not supported", dtype_name(plan->dtype));
    struct tensor_desc aligned = *b;
    if (rc == 0)
        rc = align_operand(call, a, &aligned);
    if (rc == 0)
        rc = check_broadcast(call, a, &aligned, &plan->shape);
    if (rc < 0)
        return rc;
    op_strides(a, &plan->shape, plan->a_strides);
    op_strides(&aligned, &plan->shape, plan->b_strides);
    return op_set(call, 0, is_comparison(plan->op) ? DTYPE_BOOL : plan->dtype, plan->shape.rank,
                  plan->shape.dims);
}

/* Where the types differ: both operands and the result in the type that is computed in. */
struct widened {
    size_t a, b, y; /* offsets in the workspace */
    size_t bytes;
};

static struct widened widen(const struct binary_plan *plan, const struct tensor_desc *a,
                            const struct tensor_desc *b, const struct tensor_desc *y) {
    struct widened w = {0};
    const size_t counts[] = {op_count(a), op_count(b), op_count(y)};
    size_t *const offsets[] = {&w.a, &w.b, &w.y};
    for (int i = 0; i < 3; i++) {
        *offsets[i] = w.bytes;
        w.bytes += (counts[i] * dtype_size(plan->wide) / TENSOR_ALIGN + 2) * TENSOR_ALIGN;
    }
    return w;
}

static int binary_size(struct op_prep *prep) {
    const struct binary_plan *plan = prep->plan;
    const struct node *node = prep->node;
    if (plan->b_type != plan->dtype)
        prep->workspace_bytes =
            widen(plan, &node->inputs[0]->desc, &node->inputs[1]->desc, &node->outputs[0]->desc)
                .bytes;
    return 0;
}

static int mixed_run(const struct op_args *args) {
    const struct binary_plan *plan = args->plan;
    const struct tensor *a = args->in[0], *b = args->in[1], *y = args->out[0];
    struct widened w = widen(plan, &a->desc, &b->desc, &y->desc);
    char *workspace = args->workspace;
    enum kn_type wide = (enum kn_type)plan->wide;
    kn_cast((enum kn_type)plan->dtype, wide, a->data, workspace + w.a, op_count(&a->desc));
    kn_cast((enum kn_type)plan->b_type, wide, b->data, workspace + w.b, op_count(&b->desc));
    kn_binary(plan->op, wide, &plan->shape, plan->a_strides, plan->b_strides, workspace + w.a,
              workspace + w.b, workspace + w.y, args->threads);
    return kn_cast(wide, (enum kn_type)plan->dtype, workspace + w.y, y->data, op_count(&y->desc));
}

static int binary_run(const struct op_args *args) {
    const struct binary_plan *plan = args->plan;
    int rc = 0;
    if (plan->b_type != plan->dtype)
        rc = mixed_run(args);
    else
        kn_binary(plan->op, (enum kn_type)plan->dtype, &plan->shape, plan->a_strides,
                  plan->b_strides, args->in[0]->data, args->in[1]->data, args->out[0]->data,
                  args->threads);
    op_activate(args);
    return rc;
}

const struct op_kind kind_binary = {
    .plan_size = sizeof(struct binary_plan),
    .plan = binary_plan,
    .size = binary_size,
    .run = binary_run,
    .flags = OP_INPLACE | OP_ACT,
};

/* ---- Sum, Min, Max, Mean of any number; arg is the binary operator, KN_BINARY_COUNT is Mean ----
 */

struct nary_plan {
    enum kn_binary op;
    bool mean;
    struct kn_shape shape;
};

static int nary_plan(struct op_call *call, void *ret) {
    struct nary_plan *plan = ret;
    const struct tensor_desc *first = op_in(call, 0);
    plan->mean = call->op->arg == KN_BINARY_COUNT;
    plan->op = plan->mean ? KN_ADD : (enum kn_binary)call->op->arg;
    int rc = op_type(call, 0, plan->mean ? OP_FLOAT : OP_NUMBERS);
    if (rc == 0 && !binary_known(plan->op, first->dtype))
        return op_fail(call, -ENOTSUP, "type %s is not supported", dtype_name(first->dtype));
    op_shape(first, &plan->shape);
    for (size_t i = 1; rc == 0 && i < call->node->inputs_count; i++) {
        rc = op_type(call, i, OP_TYPE(first->dtype));
        if (rc < 0)
            return rc;
        const struct tensor_desc *in = op_in(call, i);
        if (op_broadcast(plan->shape.dims, plan->shape.rank, in->dims, in->rank, plan->shape.dims,
                         &plan->shape.rank) < 0)
            return op_fail(call, -EBADMSG, "input %zu cannot be broadcast to the others", i);
    }
    call->view = rc == 0 && call->node->inputs_count == 1;
    return rc < 0 ? rc : op_set(call, 0, first->dtype, plan->shape.rank, plan->shape.dims);
}

static int nary_run(const struct op_args *args) {
    const struct nary_plan *plan = args->plan;
    const struct tensor_desc *out = &args->out[0]->desc;
    enum kn_type type = (enum kn_type)out->dtype;
    int64_t a_strides[KN_MAX_RANK], b_strides[KN_MAX_RANK];
    void *y = args->out[0]->data;
    op_strides(&args->in[0]->desc, &plan->shape, a_strides);
    for (size_t i = 1; i < args->in_count; i++) {
        op_strides(&args->in[i]->desc, &plan->shape, b_strides);
        kn_binary(plan->op, type, &plan->shape, a_strides, b_strides,
                  i == 1 ? args->in[0]->data : y, args->in[i]->data, y, args->threads);
        op_strides(out, &plan->shape, a_strides);
    }
    if (plan->mean) {
        const float divisor = (float)args->in_count;
        const int64_t repeated[KN_MAX_RANK] = {0};
        kn_binary(KN_DIV, type, &plan->shape, a_strides, repeated, y, &divisor, y, args->threads);
    }
    op_activate(args);
    return 0;
}

const struct op_kind kind_nary = {
    .plan_size = sizeof(struct nary_plan),
    .plan = nary_plan,
    .run = nary_run,
    .flags = OP_INPLACE | OP_ACT,
};

/* ---- one element ---- */

/* Which infinities IsInf looks for; KN_UNARY_COUNT: none. */
static enum kn_unary infinities(const struct op_call *call) {
    bool positive = node_int(call->node, "detect_positive", 1) != 0;
    bool negative = node_int(call->node, "detect_negative", 1) != 0;
    if (positive && negative)
        return KN_IS_INF;
    return positive ? KN_IS_POSITIVE_INF : negative ? KN_IS_NEGATIVE_INF : KN_UNARY_COUNT;
}

static int unary_plan(struct op_call *call, void *ret) {
    enum kn_unary *plan = ret, op = (enum kn_unary)call->op->arg;
    const struct tensor_desc *x = op_in(call, 0);
    char none[8] = {0};
    *plan = op == KN_IS_INF ? infinities(call) : op;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0 && kn_unary(op, (enum kn_type)x->dtype, none, none, 0) < 0)
        return op_fail(call, -ENOTSUP, "type %s is not supported", dtype_name(x->dtype));
    enum dtype dtype = op >= KN_IS_NAN ? DTYPE_BOOL : x->dtype;
    return rc < 0 ? rc : op_set(call, 0, dtype, x->rank, x->dims);
}

static int unary_run(const struct op_args *args) {
    const struct tensor *x = args->in[0];
    enum kn_unary op = *(const enum kn_unary *)args->plan;
    if (op == KN_UNARY_COUNT) {
        memset(args->out[0]->data, 0, op_count(&x->desc));
        return 0;
    }
    return kn_unary(op, (enum kn_type)x->desc.dtype, x->data, args->out[0]->data,
                    op_count(&x->desc));
}

const struct op_kind kind_unary = {
    .plan_size = sizeof(enum kn_unary),
    .plan = unary_plan,
    .run = unary_run,
    .flags = OP_INPLACE,
};

/* ---- Where ---- */

static int where_plan(struct op_call *call, void *ret) {
    struct kn_shape *shape = ret;
    const struct tensor_desc *c = op_in(call, 0), *a = op_in(call, 1), *b = op_in(call, 2);
    int rc = op_type(call, 0, OP_TYPE(DTYPE_BOOL));
    if (rc == 0)
        rc = op_type(call, 1, OP_TYPES);
    if (rc == 0)
        rc = op_type(call, 2, OP_TYPE(a->dtype));
    if (rc < 0)
        return rc;
    if (op_broadcast(a->dims, a->rank, b->dims, b->rank, shape->dims, &shape->rank) < 0 ||
        op_broadcast(shape->dims, shape->rank, c->dims, c->rank, shape->dims, &shape->rank) < 0)
        return op_fail(call, -EBADMSG, "inputs cannot be broadcast");
    return op_set(call, 0, a->dtype, shape->rank, shape->dims);
}

static int where_run(const struct op_args *args) {
    const struct kn_shape *shape = args->plan;
    int64_t strides[3][KN_MAX_RANK];
    for (int i = 0; i < 3; i++)
        op_strides(&args->in[i]->desc, shape, strides[i]);
    kn_where(dtype_size(args->out[0]->desc.dtype), shape, strides[0], strides[1], strides[2],
             args->in[0]->data, args->in[1]->data, args->in[2]->data, args->out[0]->data);
    return 0;
}

const struct op_kind kind_where = {
    .plan_size = sizeof(struct kn_shape),
    .plan = where_plan,
    .run = where_run,
};

/* ---- Cast ---- */

static int cast_plan(struct op_call *call, void *ret) {
    (void)ret;
    const struct tensor_desc *x = op_in(call, 0);
    int64_t to = node_int(call->node, "to", 0);
    char none[8] = {0};
    if (to < 0 || to > INT32_MAX || dtype_size((enum dtype)to) == 0)
        return op_fail(call, -ENOTSUP, "to %s (%lld) is not supported",
                       tensor_onnx_type((int32_t)to), (long long)to);
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0 && (enum dtype)to == x->dtype)
        call->view = true;
    else if (rc == 0 && kn_cast((enum kn_type)x->dtype, (enum kn_type)to, none, none, 0) < 0)
        return op_fail(call, -ENOTSUP, "from %s to %s is not supported", dtype_name(x->dtype),
                       dtype_name((enum dtype)to));
    return rc < 0 ? rc : op_set(call, 0, (enum dtype)to, x->rank, x->dims);
}

static int cast_run(const struct op_args *args) {
    const struct tensor *x = args->in[0];
    return kn_cast((enum kn_type)x->desc.dtype, (enum kn_type)args->out[0]->desc.dtype, x->data,
                   args->out[0]->data, op_count(&x->desc));
}

const struct op_kind kind_cast = {.plan = cast_plan, .run = cast_run};
