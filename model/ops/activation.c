/* Functions of one float each that can also be fused behind other operators. */
#include "model/ops/kinds.h"

#include <errno.h>
#include <float.h>
#include <string.h>

struct activation_plan {
    struct kn_activation act;
    bool known;       /* else Clip's bounds are inputs: read when it runs */
    enum dtype dtype; /* Relu and Clip know others than float32; those are never fused */
};

/* Defaults of alpha and beta (or gamma) where the operator has them. */
static const struct {
    const char *a_name, *b_name;
    float a, b;
    enum kn_act kind;
} defaults[] = {
    {"alpha", NULL, 0.01f, 0.0f, KN_ACT_LEAKY_RELU},
    {"alpha", "beta", 0.2f, 0.5f, KN_ACT_HARD_SIGMOID},
    {"alpha", NULL, 1.0f, 0.0f, KN_ACT_ELU},
    {"alpha", "gamma", 1.67326319217681884765625f, 1.05070102214813232421875f, KN_ACT_SELU},
    {"alpha", NULL, 1.0f, 0.0f, KN_ACT_CELU},
    {"alpha", NULL, 1.0f, 0.0f, KN_ACT_THRESHOLDED_RELU},
    {"min", "max", -FLT_MAX, FLT_MAX, KN_ACT_CLIP},
};

static int clip_bounds(const struct op_call *call, struct activation_plan *plan) {
    for (size_t i = 1; i <= 2; i++) {
        const struct tensor_desc *bound = op_in(call, i);
        size_t count = 0;
        if (!bound)
            continue;
        int rc = op_type(call, i, OP_TYPE(plan->dtype));
        if (rc == 0 && op_count(bound) != 1)
            return op_fail(call, -EBADMSG, "input %zu must be one number", i);
        if (rc == 0 && (!op_constant(call, i) || plan->dtype != DTYPE_FLOAT))
            plan->known = false;
        else if (rc == 0)
            rc = op_floats(call, i, i == 1 ? &plan->act.a : &plan->act.b, 1, &count);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static unsigned types_of(enum kn_act kind) {
    if (kind == KN_ACT_CLIP)
        return OP_NUMBERS;
    return kind != KN_ACT_RELU
               ? OP_FLOAT
               : OP_FLOAT | OP_TYPE(DTYPE_DOUBLE) | OP_TYPE(DTYPE_INT8) | OP_TYPE(DTYPE_INT16) |
                     OP_TYPE(DTYPE_INT32) | OP_TYPE(DTYPE_INT64);
}

static int activation_plan(struct op_call *call, void *ret) {
    struct activation_plan *plan = ret;
    plan->act.kind = (enum kn_act)call->op->arg;
    plan->dtype = op_in(call, 0)->dtype;
    plan->known = plan->dtype == DTYPE_FLOAT;
    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++) {
        if (defaults[i].kind != plan->act.kind)
            continue;
        plan->act.a = node_float(call->node, defaults[i].a_name, defaults[i].a);
        if (defaults[i].b_name)
            plan->act.b = node_float(call->node, defaults[i].b_name, defaults[i].b);
    }
    static const char *const approximations[] = {"none", "tanh"};
    int approximation = 0;
    int rc = op_choice(call, "approximate", "none", approximations, 2, &approximation);
    if (approximation == 1)
        plan->act.kind = KN_ACT_GELU_TANH;
    if (rc == 0)
        rc = op_type(call, 0, types_of(plan->act.kind));
    if (rc == 0 && plan->act.kind == KN_ACT_CLIP)
        rc = clip_bounds(call, plan);
    const struct tensor_desc *x = op_in(call, 0);
    return rc < 0 ? rc : op_set(call, 0, x->dtype, x->rank, x->dims);
}

/* y = op(x, bound), of any type. */
static void limit(enum kn_binary op, const struct op_args *args, const void *x, const void *bound) {
    const struct tensor_desc *y = &args->out[0]->desc;
    const struct kn_shape all = {.rank = 1, .dims = {(int64_t)op_count(y)}};
    const int64_t each[] = {1}, repeated[] = {0};
    kn_binary(op, (enum kn_type)y->dtype, &all, each, repeated, x, bound, args->out[0]->data,
              args->threads);
}

/* Relu and Clip of other types than float32. */
static void limit_all(const struct op_args *args, enum kn_act kind) {
    static const uint64_t zero = 0; /* of every type */
    const struct tensor *low = args->in_count > 1 ? args->in[1] : NULL;
    const struct tensor *high = args->in_count > 2 ? args->in[2] : NULL;
    const void *x = args->in[0]->data;
    size_t bytes = op_count(&args->in[0]->desc) * dtype_size(args->in[0]->desc.dtype);
    if (kind == KN_ACT_RELU || low) {
        limit(KN_MAX, args, x, kind == KN_ACT_RELU ? &zero : low->data);
        x = args->out[0]->data;
    }
    if (high)
        limit(KN_MIN, args, x, high->data);
    else if (x != args->out[0]->data && bytes > 0)
        memcpy(args->out[0]->data, x, bytes);
}

static int activation_run(const struct op_args *args) {
    const struct activation_plan *plan = args->plan;
    struct kn_activation act = plan->act;
    if (plan->dtype != DTYPE_FLOAT) {
        limit_all(args, act.kind);
        return 0;
    }
    for (size_t i = 1; i < args->in_count && !plan->known; i++)
        if (args->in[i])
            *(i == 1 ? &act.a : &act.b) = *(const float *)args->in[i]->data;
    kn_activate(&act, args->in[0]->data, args->out[0]->data, op_count(&args->out[0]->desc),
                args->threads);
    return 0;
}

void *activation_plan_new(struct graph *graph, const struct kn_activation *act) {
    struct activation_plan *plan = graph_alloc(graph, sizeof(*plan));
    if (plan)
        *plan = (struct activation_plan){.act = *act, .known = true, .dtype = DTYPE_FLOAT};
    return plan;
}

bool activation_of(const struct op *op, const void *data, struct kn_activation *ret) {
    const struct activation_plan *plan = data;
    if (op->kind != &kind_activation || !plan->known)
        return false;
    *ret = plan->act;
    return true;
}

const struct op_kind kind_activation = {
    .plan_size = sizeof(struct activation_plan),
    .plan = activation_plan,
    .run = activation_run,
    .flags = OP_INPLACE,
};
