/* Passes over the whole graph before it is cut: what has no effect is removed, the other operators
 * become layers, and layers are joined where one kernel does the work of several. They look at the
 * structure alone, and at no more than a layer and its neighbours: a part of the model that was
 * written by model_write_part() is grouped in the same way when it is read again.
 */
#include "model/passes.h"

#include "model/affine.h"
#include "model/composed.h"
#include "model/ops/kinds.h"
#include "model/ops/pad.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct layer *passes_producer(const struct model *model, const struct value *value) {
    struct layer *layer =
        value->producer && !value->constant ? model->nodes[value->producer->index].layer : NULL;
    return layer && !layer->dynamic ? layer : NULL;
}

bool passes_private(const struct model *model, const struct value *value,
                    const struct layer *only) {
    for (size_t i = 0; i < value->consumers_count; i++) {
        const struct net_node *known = &model->nodes[value->consumers[i]->index];
        if (!known->constant && !known->dropped && known->layer != only)
            return false;
    }
    return !value->is_output;
}

/* ---- nodes that do nothing ---- */

/* Nodes whose outputs nobody reads, from the last to the first. */
static void drop_dead(struct model *model) {
    for (size_t i = model->graph->nodes_count; i-- > 0;) {
        struct node *node = model->graph->nodes[i];
        bool used = false;
        for (size_t k = 0; k < node->outputs_count && !used; k++) {
            const struct value *value = node->outputs[k];
            used = value && value->is_output;
            for (size_t c = 0; value && !used && c < value->consumers_count; c++) {
                const struct net_node *known = &model->nodes[value->consumers[c]->index];
                used = !known->constant && !known->dropped && !value->constant;
            }
        }
        if (!used)
            model->nodes[i].dropped = true;
    }
}

/* Identity and Dropout: their readers read what they read. */
static void drop_identities(struct model *model) {
    for (size_t i = 0; i < model->graph->nodes_count; i++) {
        struct node *node = model->graph->nodes[i];
        struct net_node *known = &model->nodes[i];
        if (known->constant || known->dropped || !(known->op->kind->flags & OP_DROP) ||
            !node->outputs[0] || node->outputs[0]->is_output)
            continue;
        bool alone = true;
        for (size_t k = 1; k < node->outputs_count; k++)
            alone = alone && (!node->outputs[k] || (!node->outputs[k]->is_output &&
                                                    node->outputs[k]->consumers_count == 0));
        if (!alone)
            continue;
        for (size_t c = 0; c < node->outputs[0]->consumers_count; c++) {
            struct node *reader = node->outputs[0]->consumers[c];
            for (size_t k = 0; k < reader->inputs_count; k++)
                if (reader->inputs[k] == node->outputs[0])
                    reader->inputs[k] = node->inputs[0];
        }
        known->dropped = true;
    }
}

/* ---- layers ---- */

static struct layer *layer_new(struct model *model, struct node *node) {
    struct graph *graph = model->graph;
    struct net_node *known = &model->nodes[node->index];
    struct layer *layer = graph_alloc(graph, sizeof(*layer));
    if (!layer)
        return NULL;
    layer->nodes = graph_alloc(graph, sizeof(struct node *));
    layer->in = graph_alloc(graph, (node->inputs_count + 1) * sizeof(struct value *));
    layer->out = graph_alloc(graph, (node->outputs_count + 1) * sizeof(struct value *));
    if (!layer->nodes || !layer->in || !layer->out)
        return NULL;
    layer->op = known->op;
    layer->main = node;
    layer->plan = known->plan;
    layer->view = known->view;
    layer->dynamic = known->dynamic;
    layer->nodes[layer->nodes_count++] = node;
    layer->in_count = node->inputs_count;
    layer->out_count = node->outputs_count;
    memcpy(layer->in, node->inputs, node->inputs_count * sizeof(struct value *));
    memcpy(layer->out, node->outputs, node->outputs_count * sizeof(struct value *));
    known->layer = layer;
    return layer;
}

static uint32_t position(const struct layer *layer) {
    return layer->nodes[layer->nodes_count - 1]->index;
}

/* Gives all nodes of `from` to `to`, in order; `from` is then nobody's. */
static int layer_absorb(struct model *model, struct layer *to, struct layer *from) {
    size_t count = to->nodes_count + from->nodes_count, a = 0, b = 0;
    struct node **nodes = graph_alloc(model->graph, count * sizeof(struct node *));
    if (!nodes)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        bool first = b == from->nodes_count ||
                     (a < to->nodes_count && to->nodes[a]->index < from->nodes[b]->index);
        nodes[i] = first ? to->nodes[a++] : from->nodes[b++];
        model->nodes[nodes[i]->index].layer = to;
    }
    to->nodes = nodes;
    to->nodes_count = count;
    from->nodes_count = 0;
    return 0;
}

/* `next` is computed together with `layer`, whose output is now the next one's. */
static int layer_extend(struct model *model, struct layer *layer, struct layer *next) {
    int rc = layer_absorb(model, layer, next);
    if (rc == 0) {
        layer->out = next->out;
        layer->out_count = next->out_count;
        layer->view = false;
    }
    return rc;
}

/* ---- joining: each returns 1 when it has joined the layer to another, 0 when not ---- */

/* The layer that makes value, when `layer` may be computed with it: it has one output, read by
 * nobody else, and its kernel has the flag. */
static struct layer *candidate(const struct model *model, const struct value *value,
                               const struct layer *layer, unsigned flag) {
    struct layer *before = passes_producer(model, value);
    if (!before || before == layer || before->view || !(before->op->kind->flags & flag) ||
        before->act.kind != KN_ACT_NONE || value->desc.dtype != DTYPE_FLOAT ||
        before->out[0] != value || !passes_private(model, value, layer))
        return NULL;
    for (size_t i = 1; i < before->out_count; i++)
        if (before->out[i])
            return NULL;
    return before;
}

static int join_composed(struct model *model, struct layer *layer) {
    static const struct op composed = {.name = "Activation", .kind = &kind_activation};
    struct layer *parts[COMPOSED_PARTS_MAX];
    struct kn_activation act;
    struct value *x;
    size_t count = composed_match(model, layer, &act, &x, parts);
    if (count == 0 || !tensor_desc_same(&x->desc, &layer->out[0]->desc))
        return 0;
    for (size_t i = 1; i < count; i++) {
        int rc = layer_absorb(model, layer, parts[i]);
        if (rc < 0)
            return rc;
    }
    layer->op = &composed;
    layer->plan = activation_plan_new(model->graph, &act);
    layer->in[0] = x;
    layer->in_count = 1;
    return layer->plan ? 1 : -ENOMEM;
}

/* Pads of zeros move into the convolution that reads them. */
static int join_pad(struct model *model, struct layer *layer) {
    static const unsigned char zero[8] = {0};
    if (layer->op->kind != &kind_conv)
        return 0;
    struct layer *before = passes_producer(model, layer->in[0]);
    if (!before || before->op->kind != &kind_pad || before->view ||
        !passes_private(model, layer->in[0], layer))
        return 0;
    for (size_t i = 1; i < layer->in_count; i++)
        if (layer->in[i] == layer->in[0]) /* padded numbers that are weights as well */
            return 0;
    const struct pad_plan *pad = before->plan;
    if (pad->mode != KN_PAD_CONSTANT || !pad->known || memcmp(pad->value, zero, sizeof(zero)) != 0)
        return 0;
    for (int i = 0; i < pad->shape.rank; i++)
        if (pad->begin[i] < 0 || pad->end[i] < 0 ||
            (i < 2 && (pad->begin[i] > 0 || pad->end[i] > 0)))
            return 0;
    if (!conv_absorb_pad(layer->plan, pad))
        return 0;
    layer->in[0] = before->in[0];
    int rc = layer_absorb(model, layer, before);
    return rc < 0 ? rc : 1;
}

/* Room for one more node in the layer's list of affine ones. */
static int add_affine(struct model *model, struct layer *layer, struct node *node) {
    struct node **nodes =
        graph_alloc(model->graph, (layer->affine_count + 1) * sizeof(struct node *));
    if (!nodes)
        return -ENOMEM;
    if (layer->affine_count > 0)
        memcpy(nodes, layer->affine, layer->affine_count * sizeof(struct node *));
    nodes[layer->affine_count++] = node;
    layer->affine = nodes;
    return 0;
}

/* Makes a layer of one Add, Sub, Mul or Div with a constant per channel into a scale and shift,
 * which can take others in. */
static int promote_affine(struct model *model, struct layer *layer) {
    struct value *x = affine_operand(model, layer->main, 1);
    if (layer->op->kind != &kind_binary || !x || x->desc.rank < 2 || layer->nodes_count != 1 ||
        !tensor_desc_same(&x->desc, &layer->out[0]->desc))
        return 0;
    layer->plan = affine_plan_new(model->graph, &x->desc);
    int rc = layer->plan ? add_affine(model, layer, layer->main) : -ENOMEM;
    if (rc < 0)
        return rc;
    layer->op = &affine_op;
    layer->in[0] = x;
    layer->in_count = 1;
    return 1;
}

/* Whether scale and shift can be folded into the layer's weights: those are known at load. */
static bool takes_affine(const struct layer *layer) {
    for (size_t i = 1; i < layer->in_count; i++)
        if (layer->in[i] && !layer->in[i]->constant)
            return false;
    if (layer->op->kind == &kind_matmul)
        return layer->in[1]->desc.rank == 2 && layer->out[0]->desc.rank >= 2;
    return true;
}

static int join_affine(struct model *model, struct layer *layer) {
    if (layer->nodes_count != 1 ||
        (layer->op->kind != &kind_binary && layer->op->kind != &kind_batch_norm))
        return 0;
    for (size_t i = 0; i < layer->in_count && i < 2; i++) {
        struct value *x = layer->in[i];
        if (x->constant || !tensor_desc_same(&x->desc, &layer->out[0]->desc))
            continue;
        struct layer *before = candidate(model, x, layer, OP_AFFINE | OP_ACT);
        if (!before || before->residual ||
            !affine_matches(model, layer->main, x, affine_axis(before)))
            continue;
        if (!(before->op->kind->flags & OP_AFFINE)) {
            int rc = promote_affine(model, before);
            if (rc <= 0)
                return rc;
        }
        if (!takes_affine(before))
            continue;
        int rc = add_affine(model, before, layer->main);
        if (rc == 0)
            rc = layer_extend(model, before, layer);
        return rc < 0 ? rc : 1;
    }
    return 0;
}

/* A sum of a convolution and something that is there when it runs. Of two convolutions the later
 * one adds the earlier one's result. */
static int join_residual(struct model *model, struct layer *layer) {
    bool sum = (layer->op->kind == &kind_binary || layer->op->kind == &kind_nary) &&
               layer->op->arg == KN_ADD && layer->in_count == 2 && layer->nodes_count == 1;
    struct layer *best = NULL;
    struct value *other = NULL;
    for (size_t i = 0; sum && i < 2; i++) {
        struct value *x = layer->in[i], *r = layer->in[1 - i];
        if (x == r || x->constant || r->constant ||
            !tensor_desc_same(&x->desc, &layer->out[0]->desc) ||
            !tensor_desc_same(&r->desc, &layer->out[0]->desc))
            continue;
        struct layer *before = candidate(model, x, layer, OP_RESIDUAL);
        if (!before || before->residual || (best && position(best) > position(before)))
            continue;
        best = before;
        other = r;
    }
    if (!best)
        return 0;
    best->residual = other;
    int rc = layer_extend(model, best, layer);
    return rc < 0 ? rc : 1;
}

static int join_activation(struct model *model, struct layer *layer) {
    struct kn_activation act;
    if (!activation_of(layer->op, layer->plan, &act))
        return 0;
    struct layer *before = candidate(model, layer->in[0], layer, OP_ACT);
    if (!before)
        return 0;
    before->act = act;
    int rc = layer_extend(model, before, layer);
    return rc < 0 ? rc : 1;
}

/* ---- all of it ---- */

static int each_layer(struct model *model, int (*join)(struct model *, struct layer *)) {
    for (size_t i = 0; i < model->layers_count; i++) {
        if (model->layers[i]->nodes_count == 0 || model->layers[i]->dynamic)
            continue;
        int rc = join(model, model->layers[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int join_before(struct model *model, struct layer *layer) {
    int rc = join_pad(model, layer);
    if (rc >= 0)
        rc = join_affine(model, layer);
    if (rc == 0)
        rc = join_residual(model, layer);
    if (rc == 0)
        rc = join_activation(model, layer);
    return rc;
}

static int compare_layers(const void *a, const void *b) {
    uint32_t pa = position(*(struct layer *const *)a), pb = position(*(struct layer *const *)b);
    return pa < pb ? -1 : pa > pb;
}

/* Keeps the layers that still have nodes, in the order of their last ones: everything that a layer
 * reads is then made before it. */
static void settle(struct model *model) {
    size_t count = 0;
    for (size_t i = 0; i < model->layers_count; i++)
        if (model->layers[i]->nodes_count > 0)
            model->layers[count++] = model->layers[i];
    model->layers_count = count;
    qsort(model->layers, count, sizeof(struct layer *), compare_layers);
    for (size_t i = 0; i < count; i++)
        model->layers[i]->index = (uint32_t)i;
}

int net_passes(struct model *model, struct err *err) {
    struct graph *graph = model->graph;
    drop_dead(model);
    drop_identities(model);
    int rc = graph_link(graph);
    model->layers = calloc(graph->nodes_count + 1, sizeof(struct layer *));
    if (rc < 0 || !model->layers)
        return err_set(err, -ENOMEM, "no memory for %zu operators", graph->nodes_count);
    for (size_t i = 0; i < graph->nodes_count; i++) {
        if (model->nodes[i].constant || model->nodes[i].dropped)
            continue;
        struct layer *layer = layer_new(model, graph->nodes[i]);
        if (!layer)
            return err_set(err, -ENOMEM, "no memory for %zu operators", graph->nodes_count);
        model->layers[model->layers_count++] = layer;
    }
    rc = each_layer(model, join_composed);
    if (rc == 0)
        rc = each_layer(model, join_before);
    if (rc < 0)
        return err_set(err, rc, "no memory for the passes");
    settle(model);
    if (model->layers_count == 0)
        return err_set(err, -ENOTSUP, "nothing in the model needs to be computed");
    if (model->layers_count > NET_LAYERS_MAX)
        return err_set(err, -ENOTSUP, "%zu layers; at most %d are supported", model->layers_count,
                       NET_LAYERS_MAX);
    return 0;
}
