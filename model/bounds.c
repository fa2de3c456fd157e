#include "model/bounds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NUMBERS_MAX 64 /* a shape, or what shapes are computed from */

/* ---- which dimensions depend on data ---- */

/* The node's inputs with every bounded dimension at `least`. */
static void shrink(const struct op_call *call, int64_t least, struct tensor_desc *descs,
                   const struct tensor_desc **refs) {
    for (size_t i = 0; i < call->node->inputs_count; i++) {
        if (!call->in[i])
            continue;
        descs[i] = *call->in[i];
        refs[i] = &descs[i];
        for (int d = 0; d < descs[i].rank; d++)
            if ((descs[i].bounded & 1U << d) && descs[i].dims[d] > least)
                descs[i].dims[d] = least;
    }
}

static int compare(const struct op_call *call, const struct tensor_desc *least,
                   struct tensor_desc *most) {
    if (least->rank != most->rank)
        return op_fail(call, -ENOTSUP, "the number of its output's dimensions depends on data");
    for (int d = 0; d < most->rank; d++) {
        if (least->dims[d] > most->dims[d])
            return op_fail(call, -ENOTSUP,
                           "its output's dimension %d depends on data, and has no bound", d);
        if (least->dims[d] < most->dims[d])
            most->bounded |= (uint8_t)(1U << d);
    }
    return 0;
}

/* Room to plan a node once more. */
struct probe {
    struct tensor_desc *in, *out;
    const struct tensor_desc **in_refs;
    struct tensor_desc **out_refs;
    void *plan;
};

static void probe_fini(struct probe *p) {
    free(p->in);
    free(p->out);
    free(p->in_refs);
    free(p->out_refs);
    free(p->plan);
}

static int probe_init(struct probe *p, const struct op_call *call) {
    p->in = calloc(call->node->inputs_count + 1, sizeof(*p->in));
    p->out = calloc(call->node->outputs_count + 1, sizeof(*p->out));
    p->in_refs = calloc(call->node->inputs_count + 1, sizeof(*p->in_refs));
    p->out_refs = calloc(call->node->outputs_count + 1, sizeof(*p->out_refs));
    p->plan = malloc(call->op->kind->plan_size + 1);
    return p->in && p->out && p->in_refs && p->out_refs && p->plan ? 0 : -ENOMEM;
}

/* Plans for bounded dimensions of `least`. */
static int probe_run(struct probe *p, const struct op_call *call, int64_t least) {
    struct op_call again = *call;
    struct err ignored;
    shrink(call, least, p->in, p->in_refs);
    for (size_t i = 0; i < call->node->outputs_count; i++)
        if (call->out[i]) {
            p->out[i] = (struct tensor_desc){.name = call->out[i]->name};
            p->out_refs[i] = &p->out[i];
        }
    memset(p->plan, 0, call->op->kind->plan_size + 1);
    again.in = p->in_refs;
    again.out = p->out_refs;
    again.least = true;
    again.err = &ignored;
    return call->op->kind->plan(&again, p->plan);
}

int bounds_mark(const struct op_call *call) {
    struct probe p = {0};
    int rc = probe_init(&p, call);
    if (rc < 0) {
        probe_fini(&p);
        return op_fail(call, rc, "no memory to plan it");
    }
    /* Some operators do not take tensors without elements: then one row tells. */
    bool told = probe_run(&p, call, 0) == 0 || probe_run(&p, call, 1) == 0;
    for (size_t i = 0; rc == 0 && i < call->node->outputs_count; i++) {
        struct tensor_desc *out = call->out[i];
        if (!out)
            continue;
        if (told)
            rc = compare(call, &p.out[i], out);
        else
            out->bounded = (uint8_t)((1U << out->rank) - 1);
    }
    probe_fini(&p);
    return rc;
}

/* ---- bounds of numbers ---- */

/* What is known of an operator's growth. */
struct growth {
    const char *op;
    unsigned grows;   /* bit i: with input i; others must be constants. ALL: with each */
    unsigned shrinks; /* bit i: the other way round with input i */
    bool positive;    /* where no number is negative (a divisor: is 1 or more) */
};
#define ALL UINT32_MAX

static const struct growth growths[] = {
    {"Shape", 1, 0, false},     {"Size", 1, 0, false},      {"Gather", 1, 0, false},
    {"Slice", 1, 0, false},     {"Unsqueeze", 1, 0, false}, {"Squeeze", 1, 0, false},
    {"Reshape", 1, 0, false},   {"Flatten", 1, 0, false},   {"Transpose", 1, 0, false},
    {"Split", 1, 0, false},     {"Expand", 1, 0, false},    {"Tile", 1, 0, false},
    {"Cast", 1, 0, false},      {"Identity", 1, 0, false},  {"Floor", 1, 0, false},
    {"Ceil", 1, 0, false},      {"Relu", 1, 0, false},      {"ReduceSum", 1, 0, false},
    {"ReduceMax", 1, 0, false}, {"ReduceMin", 1, 0, false}, {"ReduceProd", 1, 0, true},
    {"Concat", ALL, 0, false},  {"Min", ALL, 0, false},     {"Max", ALL, 0, false},
    {"Sum", ALL, 0, false},     {"Add", ALL, 0, false},     {"Sub", ALL, 2, false},
    {"Mul", ALL, 0, true},      {"Div", ALL, 2, true},
};

static const struct growth *growth_of(const struct node *node) {
    for (size_t i = 0; i < sizeof(growths) / sizeof(growths[0]); i++)
        if (*node->domain == '\0' && strcmp(growths[i].op, node->op_type) == 0)
            return &growths[i];
    return NULL;
}

/* Whether no number is below least; false for types that are not looked at. */
static bool is_at_least(const struct tensor_desc *desc, const void *data, int least) {
    for (size_t i = 0; i < op_count(desc); i++) {
        int64_t l;
        int32_t s;
        float f;
        const char *at = (const char *)data + i * dtype_size(desc->dtype);
        bool good = false;
        if (desc->dtype == DTYPE_INT64)
            good = (memcpy(&l, at, sizeof(l)), l >= least);
        else if (desc->dtype == DTYPE_INT32)
            good = (memcpy(&s, at, sizeof(s)), s >= least);
        else if (desc->dtype == DTYPE_FLOAT)
            good = (memcpy(&f, at, sizeof(f)), f >= (float)least);
        if (!good)
            return false;
    }
    return true;
}

/* Everything that one evaluation needs; in has aligned copies of the inputs' numbers. */
struct evaluation {
    struct tensor *in, *out;
    const struct tensor **in_refs;
    struct tensor **out_refs;
};

static void evaluation_fini(struct evaluation *e, const struct node *node) {
    for (size_t i = 0; e->in && i < node->inputs_count; i++)
        tensor_buffer_free(e->in[i].data);
    for (size_t i = 0; e->out && i < node->outputs_count; i++)
        tensor_buffer_free(e->out[i].data);
    free(e->in);
    free(e->out);
    free(e->in_refs);
    free(e->out_refs);
}

/* The least (or the most) that input i can be. */
static int give_input(struct model *model, const struct node *node, size_t i, bool least,
                      struct tensor *ret, struct err *err) {
    struct value *value = node->inputs[i];
    const void *data = least ? value->least : value->most;
    ret->desc = value->desc;
    ret->desc.bounded = 0;
    for (int d = 0; d < value->desc.rank; d++)
        if (least && (value->desc.bounded & 1U << d))
            ret->desc.dims[d] = 0;
    if (model->nodes[node->index].op->kind->flags & OP_SHAPE)
        return 0;
    if (value->constant) {
        const struct constant *constant;
        int rc = fold_numbers(model->fold, value, &constant, err);
        if (rc < 0)
            return rc;
        data = constant->data;
    }
    size_t bytes = op_count(&ret->desc) * dtype_size(ret->desc.dtype);
    ret->data = tensor_buffer_new(bytes);
    if (!ret->data)
        return -ENOMEM;
    if (bytes > 0)
        memcpy(ret->data, data, bytes);
    return 0;
}

/* Computes one end of the outputs' numbers into buffers of the graph. 1, or 0 where it cannot. */
static int evaluate(struct model *model, const struct node *node, const struct growth *growth,
                    bool least, struct evaluation *e, struct err *err) {
    const struct net_node *known = &model->nodes[node->index];
    for (size_t i = 0; i < node->inputs_count; i++) {
        if (!node->inputs[i])
            continue;
        bool other = i < 32 && growth->shrinks >> i & 1U;
        int rc = give_input(model, node, i, least != other, &e->in[i], err);
        if (rc < 0)
            return rc;
        e->in_refs[i] = &e->in[i];
        if (growth->positive && !is_at_least(&e->in[i].desc, e->in[i].data, other ? 1 : 0))
            return 0;
    }
    for (size_t i = 0; i < node->outputs_count; i++) {
        if (!node->outputs[i])
            continue;
        size_t bytes = op_count(&node->outputs[i]->desc) * dtype_size(node->outputs[i]->desc.dtype);
        e->out[i] = (struct tensor){node->outputs[i]->desc, tensor_buffer_new(bytes)};
        e->out_refs[i] = &e->out[i];
        if (!e->out[i].data)
            return -ENOMEM;
        if (known->view && bytes > 0)
            memcpy(e->out[i].data, e->in[0].data, bytes);
    }
    if (!known->view && op_eval(known->op, node, known->plan, e->in_refs, e->out_refs, NULL) < 0)
        return 0;
    return 1;
}

static int compute_end(struct model *model, const struct node *node, const struct growth *growth,
                       bool least, struct err *err) {
    struct evaluation e = {.in = calloc(node->inputs_count + 1, sizeof(*e.in)),
                           .out = calloc(node->outputs_count + 1, sizeof(*e.out)),
                           .in_refs = calloc(node->inputs_count + 1, sizeof(*e.in_refs)),
                           .out_refs = calloc(node->outputs_count + 1, sizeof(*e.out_refs))};
    int rc = e.in && e.out && e.in_refs && e.out_refs
                 ? evaluate(model, node, growth, least, &e, err)
                 : -ENOMEM;
    for (size_t i = 0; rc == 1 && i < node->outputs_count; i++) {
        if (!node->outputs[i])
            continue;
        if (graph_adopt(model->graph, e.out[i].data) < 0) {
            rc = -ENOMEM;
            break;
        }
        *(least ? &node->outputs[i]->least : &node->outputs[i]->most) = e.out[i].data;
        e.out[i].data = NULL;
    }
    evaluation_fini(&e, node);
    return rc == -ENOMEM ? err_set(err, rc, "no memory for node '%s'", node->name) : rc;
}

static bool is_small(const struct value *value) {
    return value->desc.bounded == 0 && op_count(&value->desc) <= NUMBERS_MAX;
}

/* Whether the node's numbers follow from shapes and bounds, and are few. */
static bool follows(const struct model *model, const struct node *node,
                    const struct growth *growth) {
    bool shape = model->nodes[node->index].op->kind->flags & OP_SHAPE;
    for (size_t i = 0; i < node->inputs_count && !shape; i++) {
        const struct value *value = node->inputs[i];
        if (!value)
            continue;
        if (!is_small(value) || (!value->constant && !value->least) ||
            (!value->constant && !(i < 32 && growth->grows >> i & 1U)))
            return false;
    }
    for (size_t i = 0; i < node->outputs_count; i++)
        if (node->outputs[i] && !is_small(node->outputs[i]))
            return false;
    return true;
}

int bounds_compute(struct model *model, const struct node *node, struct err *err) {
    const struct growth *growth = growth_of(node);
    if (!growth || !follows(model, node, growth))
        return 0;
    int rc = compute_end(model, node, growth, true, err);
    if (rc == 1)
        rc = compute_end(model, node, growth, false, err);
    for (size_t i = 0; rc != 1 && i < node->outputs_count; i++)
        if (node->outputs[i])
            node->outputs[i]->least = node->outputs[i]->most = NULL;
    return rc < 0 ? rc : 0;
}
