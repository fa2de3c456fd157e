/* Which tensors are alive before each layer: what a message carries when the model is cut there. */
#include "model/net.h"

#include <errno.h>
#include <stdlib.h>

#define CUT_TENSORS_MAX 1000000 /* of all cuts together */

/* The last layer that reads each value, by id; layers_count for outputs of the graph, -1 for what
 * nobody reads. Constants are read by no layer. */
static int64_t *last_uses(const struct model *model) {
    const struct graph *graph = model->graph;
    int64_t *last = malloc((graph->values_count + 1) * sizeof(*last));
    if (!last)
        return NULL;
    for (size_t i = 0; i < graph->values_count; i++)
        last[i] = graph->values[i]->is_output ? (int64_t)model->layers_count : -1;
    for (size_t l = 0; l < model->layers_count; l++) {
        const struct layer *layer = model->layers[l];
        for (size_t i = 0; i < layer->in_count; i++) {
            const struct value *value = layer->in[i];
            if (value && !value->constant && last[value->id] < (int64_t)l)
                last[value->id] = (int64_t)l;
        }
        if (layer->residual && last[layer->residual->id] < (int64_t)l)
            last[layer->residual->id] = (int64_t)l;
    }
    return last;
}

static int cut_set(struct model *model, struct cut *cut, struct value *const *values,
                   size_t count) {
    cut->descs = graph_alloc(model->graph, (count + 1) * sizeof(*cut->descs));
    cut->values = graph_alloc(model->graph, (count + 1) * sizeof(*cut->values));
    if (!cut->descs || !cut->values)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        cut->values[i] = values[i];
        cut->descs[i] = values[i]->desc;
    }
    cut->count = count;
    return 0;
}

/* Keeps those of live that are still read at layer `at` or later. */
static size_t keep_live(struct value **live, size_t count, const int64_t *last, size_t at) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (last[live[i]->id] >= (int64_t)at)
            live[kept++] = live[i];
    return kept;
}

static int inner_cuts(struct model *model, const int64_t *last, struct value **live,
                      struct err *err) {
    size_t count = 0, total = 0;
    for (size_t i = 0; i < model->graph->inputs_count; i++)
        live[count++] = model->graph->inputs[i];
    for (size_t at = 1; at < model->layers_count; at++) {
        const struct layer *before = model->layers[at - 1];
        count = keep_live(live, count, last, at);
        for (size_t i = 0; i < before->out_count; i++)
            if (before->out[i] && last[before->out[i]->id] >= (int64_t)at)
                live[count++] = before->out[i];
        total += count;
        if (total > CUT_TENSORS_MAX)
            return err_set(err, -ENOTSUP, "too many tensors are alive at the same time");
        if (cut_set(model, &model->cuts[at], live, count) < 0)
            return -ENOMEM;
    }
    return 0;
}

int net_cuts(struct model *model, struct err *err) {
    struct graph *graph = model->graph;
    int64_t *last = last_uses(model);
    struct value **live = calloc(graph->values_count + 1, sizeof(struct value *));
    model->cuts = graph_alloc(graph, (model->layers_count + 1) * sizeof(*model->cuts));
    int rc = last && live && model->cuts ? 0 : -ENOMEM;
    if (rc == 0)
        rc = cut_set(model, &model->cuts[0], graph->inputs, graph->inputs_count);
    if (rc == 0)
        rc =
            cut_set(model, &model->cuts[model->layers_count], graph->outputs, graph->outputs_count);
    if (rc == 0)
        rc = inner_cuts(model, last, live, err);
    free(live);
    free(last);
    return rc == -ENOMEM ? err_set(err, rc, "no memory for the cuts") : rc;
}
