#include "model/prepare.h"

#include <errno.h>
#include <string.h>

/* "Conv+BatchNormalization+Relu" */
static const char *join_ops(struct graph *graph, const struct layer *layer) {
    size_t len = 0;
    for (size_t i = 0; i < layer->nodes_count; i++)
        len += strlen(layer->nodes[i]->op_type) + 1;
    char *text = graph_alloc(graph, len + 1), *p = text;
    for (size_t i = 0; text && i < layer->nodes_count; i++) {
        if (i > 0)
            *p++ = '+';
        p = stpcpy(p, layer->nodes[i]->op_type);
    }
    return text;
}

/* Elements of the float constants that the layer's operators read. */
static uint64_t count_params(const struct layer *layer) {
    uint64_t count = 0;
    for (size_t i = 0; i < layer->nodes_count; i++)
        for (size_t k = 0; k < layer->nodes[i]->inputs_count; k++) {
            const struct value *value = layer->nodes[i]->inputs[k];
            if (value && value->constant && value->desc.dtype == DTYPE_FLOAT)
                count += op_count(&value->desc);
        }
    return count;
}

static uint64_t count_input_bytes(const struct layer *layer) {
    uint64_t sum = 0;
    size_t bytes;
    for (size_t i = 0; i < layer->in_count; i++)
        if (layer->in[i] && !layer->in[i]->constant &&
            tensor_desc_bytes(&layer->in[i]->desc, &bytes) == 0)
            sum += bytes;
    if (layer->residual && tensor_desc_bytes(&layer->residual->desc, &bytes) == 0)
        sum += bytes;
    return sum;
}

static int describe(struct model *model, struct layer *layer, struct err *err) {
    struct model_layer *info = &layer->info;
    struct tensor_desc *outputs =
        graph_alloc(model->graph, (layer->out_count + 1) * sizeof(*outputs));
    info->name = layer->nodes[layer->nodes_count - 1]->name;
    info->op = join_ops(model->graph, layer);
    if (!outputs || !info->op)
        return err_set(err, -ENOMEM, "no memory for layer '%s'", info->name);
    for (size_t i = 0; i < layer->out_count; i++) {
        if (!layer->out[i])
            continue;
        size_t bytes;
        outputs[info->outputs_count++] = layer->out[i]->desc;
        if (tensor_desc_bytes(&layer->out[i]->desc, &bytes) == 0)
            info->output_bytes += bytes;
    }
    info->outputs = outputs;
    info->params = count_params(layer);
    if (!layer->view)
        info->input_bytes = count_input_bytes(layer);
    if (layer->op->kind->macs && !layer->view)
        info->macs = layer->op->kind->macs(layer->main, layer->plan);
    return prepare_bytes(layer, &info->weight_bytes, err);
}

int net_describe(struct model *model, struct err *err) {
    for (size_t i = 0; i < model->layers_count; i++) {
        int rc = describe(model, model->layers[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
