#include "model/affine.h"

#include "model/ops/kinds.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static bool is_batch_norm(const struct op *op) {
    return op->kind == &kind_batch_norm;
}

static bool is_arithmetic(const struct op *op) {
    return op->kind == &kind_binary &&
           (op->arg == KN_ADD || op->arg == KN_SUB || op->arg == KN_MUL || op->arg == KN_DIV);
}

/* Whether c, broadcast to x, differs along axis at most. */
static bool per_channel(const struct tensor_desc *c, const struct tensor_desc *x, int axis) {
    if (c->rank > x->rank)
        return false;
    for (int i = 1; i <= c->rank; i++) {
        int at = x->rank - i;
        int64_t dim = c->dims[c->rank - i];
        if (dim != 1 && (at != axis || dim != x->dims[axis]))
            return false;
    }
    return true;
}

bool affine_matches(const struct model *model, const struct node *node, const struct value *x,
                    int axis) {
    const struct op *op = model->nodes[node->index].op;
    if (x->constant || x->desc.dtype != DTYPE_FLOAT || axis < 0 || axis >= x->desc.rank)
        return false;
    if (is_batch_norm(op)) {
        for (size_t i = 1; i < 5; i++)
            if (!node->inputs[i]->constant)
                return false;
        return node->inputs[0] == x && axis == 1 && node_int(node, "spatial", 1) != 0;
    }
    if (!is_arithmetic(op))
        return false;
    const struct value *a = node->inputs[0], *b = node->inputs[1];
    if (node->opset < 7 && op_count(&b->desc) != 1)
        return false; /* broadcast by another rule */
    if (a == x && b->constant)
        return per_channel(&b->desc, &x->desc, axis);
    return b == x && a->constant && op->arg != KN_DIV && per_channel(&a->desc, &x->desc, axis);
}

struct value *affine_operand(const struct model *model, const struct node *node, int axis) {
    for (size_t i = 0; i < node->inputs_count && i < 2; i++)
        if (node->inputs[i] && affine_matches(model, node, node->inputs[i], axis))
            return node->inputs[i];
    return NULL;
}

int affine_axis(const struct layer *layer) {
    if (layer->op->kind == &kind_gemm || layer->op->kind == &kind_matmul)
        return layer->out[0]->desc.rank - 1;
    return 1;
}

/* Element i of a constant that is one number or one per channel. */
static double number_at(const struct constant *constant, size_t i) {
    float f;
    size_t at = op_count(&constant->desc) == 1 ? 0 : i;
    memcpy(&f, (const char *)constant->data + at * sizeof(f), sizeof(f));
    return (double)f;
}

static int fold_batch_norm(const struct model *model, const struct node *node, size_t channels,
                           double *scale, double *shift, struct err *err) {
    const struct constant *numbers[4];
    double epsilon = (double)node_float(node, "epsilon", 1e-5f);
    for (size_t i = 0; i < 4; i++) {
        int rc = fold_numbers(model->fold, node->inputs[i + 1], &numbers[i], err);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < channels; i++) {
        double s = number_at(numbers[0], i) / sqrt(number_at(numbers[3], i) + epsilon);
        scale[i] *= s;
        shift[i] = (shift[i] - number_at(numbers[2], i)) * s + number_at(numbers[1], i);
    }
    return 0;
}

static int fold_arithmetic(const struct model *model, const struct node *node, size_t channels,
                           double *scale, double *shift, struct err *err) {
    bool first = node->inputs[0]->constant != NULL; /* the constant is the left operand */
    const struct constant *constant;
    int rc = fold_numbers(model->fold, node->inputs[first ? 0 : 1], &constant, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < channels; i++) {
        double c = number_at(constant, i);
        switch (model->nodes[node->index].op->arg) {
        case KN_ADD:
            shift[i] += c;
            break;
        case KN_SUB:
            scale[i] = first ? -scale[i] : scale[i];
            shift[i] = first ? c - shift[i] : shift[i] - c;
            break;
        case KN_MUL:
            scale[i] *= c;
            shift[i] *= c;
            break;
        default:
            scale[i] /= c;
            shift[i] /= c;
            break;
        }
    }
    return 0;
}

int affine_numbers(const struct model *model, const struct layer *layer, size_t channels,
                   double *scale, double *shift, struct err *err) {
    int rc = 0;
    for (size_t i = 0; i < channels; i++) {
        scale[i] = 1.0;
        shift[i] = 0.0;
    }
    for (size_t i = 0; rc == 0 && i < layer->affine_count; i++) {
        const struct node *node = layer->affine[i];
        if (is_batch_norm(model->nodes[node->index].op))
            rc = fold_batch_norm(model, node, channels, scale, shift, err);
        else
            rc = fold_arithmetic(model, node, channels, scale, shift, err);
    }
    return rc;
}

/* ---- the operator ---- */

struct affine_plan {
    int n, c;
    size_t inner;
};

void *affine_plan_new(struct graph *graph, const struct tensor_desc *x) {
    struct affine_plan *plan = graph_alloc(graph, sizeof(*plan));
    if (!plan)
        return NULL;
    plan->n = (int)x->dims[0];
    plan->c = (int)x->dims[1];
    plan->inner = op_product(x, 2, x->rank);
    return plan;
}

static int affine_size(struct op_prep *prep) {
    const struct affine_plan *plan = prep->plan;
    prep->bytes = 2 * (size_t)plan->c * sizeof(float);
    return 0;
}

static int affine_pack(struct op_prep *prep) {
    const struct affine_plan *plan = prep->plan;
    float *data = prep->data;
    for (int i = 0; i < plan->c; i++) {
        data[i] = (float)prep->scale[i];
        data[plan->c + i] = (float)prep->shift[i];
    }
    return 0;
}

static int affine_run(const struct op_args *args) {
    const struct affine_plan *plan = args->plan;
    const float *scale = args->packed;
    kn_scale_shift(plan->n, plan->c, plan->inner, scale, scale + plan->c, &args->act,
                   args->in[0]->data, args->out[0]->data, args->threads);
    return 0;
}

static const struct op_kind kind_affine = {
    .size = affine_size,
    .pack = affine_pack,
    .run = affine_run,
    .flags = OP_ACT | OP_AFFINE | OP_INPLACE,
};

const struct op affine_op = {.name = "Affine", .kind = &kind_affine};
