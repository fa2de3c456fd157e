#include "model/composed.h"

#include "model/ops/kinds.h"
#include "model/passes.h"

#include <math.h>

/* What is being matched: parts are collected on the way up from the last operator. */
struct match {
    struct model *model;
    struct layer **parts;
    size_t count;
};

static bool near(float a, double b) {
    return fabs((double)a - b) <= 1e-4 * fabs(b) + 1e-12;
}

static bool is_binary(const struct layer *layer, enum kn_binary op) {
    return layer && layer->op->kind == &kind_binary && layer->op->arg == (int)op &&
           layer->nodes_count == 1;
}

/* One number, known at load. */
static bool scalar(struct model *model, struct value *value, float *ret) {
    const struct constant *constant;
    if (!value->constant || value->desc.dtype != DTYPE_FLOAT || op_count(&value->desc) != 1 ||
        fold_numbers(model->fold, value, &constant, NULL) < 0)
        return false;
    __builtin_memcpy(ret, constant->data, sizeof(*ret));
    return true;
}

/* The layer is `other op number` (either side for Add and Mul): returns other. */
static struct value *with_number(struct match *m, struct layer *layer, enum kn_binary op,
                                 double number) {
    float f;
    if (!is_binary(layer, op))
        return NULL;
    for (size_t i = 0; i < 2; i++) {
        struct value *other = layer->in[1 - i];
        if ((i == 1 || op == KN_ADD || op == KN_MUL) && !other->constant &&
            scalar(m->model, layer->in[i], &f) && near(f, number) &&
            layer->out[0]->desc.rank == other->desc.rank)
            return other;
    }
    return NULL;
}

/* Divided by number, whichever way it is written. */
static struct value *divided(struct match *m, struct layer *layer, double number) {
    struct value *other = with_number(m, layer, KN_DIV, number);
    return other ? other : with_number(m, layer, KN_MUL, 1.0 / number);
}

static bool is_activation(const struct layer *layer, enum kn_act kind, double a, double b) {
    struct kn_activation act;
    return layer && activation_of(layer->op, layer->plan, &act) && act.kind == kind &&
           (a < 0.0 || near(act.a, a)) && (b < 0.0 || near(act.b, b));
}

/* The layer that makes value, taken as a part when nothing but the parts reads it. */
static struct layer *part(struct match *m, struct value *value, struct layer *reader) {
    struct layer *layer = passes_producer(m->model, value);
    if (!layer || !passes_private(m->model, value, reader) || m->count == COMPOSED_PARTS_MAX)
        return NULL;
    m->parts[m->count++] = layer;
    return layer;
}

/* value is Clip(x + 3, 0, 6): returns x. */
static struct value *relu6_of_plus3(struct match *m, struct value *value, struct layer *reader) {
    struct layer *clip = part(m, value, reader);
    if (!is_activation(clip, KN_ACT_CLIP, 0.0, 6.0))
        return NULL;
    struct layer *add = part(m, clip->in[0], clip);
    return with_number(m, add, KN_ADD, 3.0);
}

/* Clip(x + 3, 0, 6) / 6 */
static struct value *hard_sigmoid(struct match *m, struct layer *last) {
    struct value *clipped = divided(m, last, 6.0);
    return clipped ? relu6_of_plus3(m, clipped, last) : NULL;
}

/* x * Clip(x + 3, 0, 6) / 6, the product first */
static struct value *hard_swish(struct match *m, struct layer *last) {
    struct value *product = divided(m, last, 6.0);
    struct layer *mul = product ? part(m, product, last) : NULL;
    if (!is_binary(mul, KN_MUL))
        return NULL;
    size_t before = m->count;
    for (size_t i = 0; i < 2; i++) {
        m->count = before;
        struct value *x = relu6_of_plus3(m, mul->in[i], mul);
        if (x && x == mul->in[1 - i])
            return x;
    }
    return NULL;
}

/* x * f(x) where f is an activation: Sigmoid, HardSigmoid with a slope of 1/6, Tanh of Softplus. */
static struct value *gated(struct match *m, struct layer *last, enum kn_act *ret) {
    if (!is_binary(last, KN_MUL))
        return NULL;
    for (size_t i = 0; i < 2; i++) {
        struct value *x = last->in[1 - i];
        m->count = 1;
        struct layer *gate = part(m, last->in[i], last);
        struct layer *inner = NULL;
        if (is_activation(gate, KN_ACT_SIGMOID, -1.0, -1.0))
            *ret = KN_ACT_SILU;
        else if (is_activation(gate, KN_ACT_HARD_SIGMOID, 1.0 / 6.0, 0.5))
            *ret = KN_ACT_HARD_SWISH;
        else if (is_activation(gate, KN_ACT_TANH, -1.0, -1.0) &&
                 (inner = part(m, gate->in[0], gate)) != NULL &&
                 is_activation(inner, KN_ACT_SOFTPLUS, -1.0, -1.0))
            *ret = KN_ACT_MISH;
        else
            continue;
        if ((inner ? inner : gate)->in[0] == x)
            return x;
    }
    return NULL;
}

/* value is erf(x / sqrt(2)) + 1: returns x. */
static struct value *erf_plus1(struct match *m, struct value *value, struct layer *reader) {
    struct layer *add = part(m, value, reader);
    struct value *e = add ? with_number(m, add, KN_ADD, 1.0) : NULL;
    struct layer *erf = e ? part(m, e, add) : NULL;
    if (!is_activation(erf, KN_ACT_ERF, -1.0, -1.0))
        return NULL;
    struct layer *div = part(m, erf->in[0], erf);
    return div ? divided(m, div, sqrt(2.0)) : NULL;
}

/* (x * (erf(x / sqrt(2)) + 1)) * 0.5, or (x * 0.5) * (erf(x / sqrt(2)) + 1) */
static struct value *gelu(struct match *m, struct layer *last) {
    struct value *product = with_number(m, last, KN_MUL, 0.5);
    struct layer *mul = product ? part(m, product, last) : last;
    if (!is_binary(mul, KN_MUL))
        return NULL;
    size_t before = m->count;
    for (size_t i = 0; i < 2; i++) {
        m->count = before;
        struct value *x = erf_plus1(m, mul->in[i], mul), *other = mul->in[1 - i];
        if (x && mul == last) {
            struct layer *half = part(m, other, last);
            other = half ? with_number(m, half, KN_MUL, 0.5) : NULL;
        }
        if (x && x == other)
            return x;
    }
    return NULL;
}

size_t composed_match(struct model *model, struct layer *last, struct kn_activation *ret_act,
                      struct value **ret_x, struct layer *ret_parts[COMPOSED_PARTS_MAX]) {
    struct match m = {.model = model, .parts = ret_parts};
    static struct value *(*const patterns[])(struct match *, struct layer *) = {hard_sigmoid,
                                                                                hard_swish, gelu};
    static const struct kn_activation acts[] = {{KN_ACT_HARD_SIGMOID, 1.0f / 6.0f, 0.5f},
                                                {KN_ACT_HARD_SWISH, 0.0f, 0.0f},
                                                {KN_ACT_GELU, 0.0f, 0.0f}};
    ret_parts[0] = last;
    if (last->op->kind != &kind_binary || last->out[0]->desc.dtype != DTYPE_FLOAT)
        return 0;
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        m.count = 1;
        *ret_x = patterns[i](&m, last);
        *ret_act = acts[i];
        if (*ret_x)
            return m.count;
    }
    *ret_act = (struct kn_activation){0};
    *ret_x = gated(&m, last, &ret_act->kind);
    return *ret_x ? m.count : 0;
}
