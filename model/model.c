#include "model/model.h"

#include "model/import.h"
#include "model/net.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void model_free(struct model *model) {
    fold_free(model->fold);
    graph_free(model->graph);
    free(model->nodes);
    free(model->layers);
    free(model->prepared);
    pthread_mutex_destroy(&model->lock);
    free(model);
}

static int model_build(struct model *model, const struct model_options *options, struct err *err) {
    int rc = net_widen(model->graph, err);
    if (rc < 0)
        return rc;
    model->nodes = calloc(model->graph->nodes_count + 1, sizeof(*model->nodes));
    model->fold = model->nodes ? fold_new(model->graph, model->nodes) : NULL;
    if (!model->fold)
        return err_set(err, -ENOMEM, "no memory");
    rc = net_infer(model, options, err);
    if (rc == 0)
        rc = net_passes(model, err);
    if (rc == 0)
        rc = net_describe(model, err);
    if (rc == 0)
        rc = net_cuts(model, err);
    if (rc < 0)
        return rc;
    fold_loaded(model->fold);
    model->prepared = calloc(model->layers_count, sizeof(*model->prepared));
    return model->prepared ? 0 : err_set(err, -ENOMEM, "no memory");
}

/* A model of which nothing has been read. NULL: no memory. */
static struct model *model_new(void) {
    kn_init();
    struct model *model = calloc(1, sizeof(*model));
    if (model && pthread_mutex_init(&model->lock, NULL) != 0) {
        free(model);
        return NULL;
    }
    if (model)
        atomic_init(&model->refs, 1);
    return model;
}

int model_open(const char *path, const struct model_options *options, struct model **ret_model,
               struct err *err) {
    struct model *model = model_new();
    if (!model)
        return err_set(err, -ENOMEM, "no memory for model '%s'", path);
    int rc = graph_import(path, &model->graph, err);
    if (rc == 0) {
        rc = model_build(model, options, err);
        if (rc < 0)
            err_prefix(err, rc, "%s", path);
    }
    if (rc < 0) {
        model_free(model);
        return rc;
    }
    *ret_model = model;
    return 0;
}

int model_open_memory(const void *data, size_t size, const struct model_options *options,
                      struct model **ret_model, struct err *err) {
    struct model *model = model_new();
    if (!model)
        return err_set(err, -ENOMEM, "no memory for a model");
    int rc = graph_import_memory(data, size, &model->graph, err);
    if (rc == 0)
        rc = model_build(model, options, err);
    if (rc < 0) {
        model_free(model);
        return rc;
    }
    *ret_model = model;
    return 0;
}

struct model *model_ref(struct model *model) {
    atomic_fetch_add(&model->refs, 1);
    return model;
}

void model_unref(struct model *model) {
    if (model && atomic_fetch_sub(&model->refs, 1) == 1)
        model_free(model);
}

const char *model_path(const struct model *model) {
    return model->graph->path;
}

const uint8_t *model_digest(const struct model *model) {
    return model->graph->digest;
}

int model_identity(const struct model *model, uint8_t ret_id[SHA256_SIZE]) {
    char shape[TENSOR_MAX_RANK * 24 + 64];
    char *text = NULL;
    size_t size = 0, count;
    const struct tensor_desc *inputs = model_cut(model, 0, &count);
    FILE *file = open_memstream(&text, &size);
    if (!file)
        return -ENOMEM;
    fwrite(model_digest(model), 1, SHA256_SIZE, file);
    for (size_t i = 0; i < count; i++)
        fprintf(file, "%s %s\n", inputs[i].name,
                tensor_desc_format(&inputs[i], shape, sizeof(shape)));
    int rc = fclose(file) == 0 ? sha256(text, size, ret_id) : -ENOMEM;
    free(text);
    return rc;
}

size_t model_layers_count(const struct model *model) {
    return model->layers_count;
}

const struct model_layer *model_layer(const struct model *model, size_t index) {
    return index < model->layers_count ? &model->layers[index]->info : NULL;
}

const struct tensor_desc *model_cut(const struct model *model, size_t at, size_t *ret_count) {
    *ret_count = model->cuts[at].count;
    return model->cuts[at].descs;
}

/* ---- finding a layer ---- */

static bool parse_index(const char *name, size_t *ret) {
    if (!isdigit((unsigned char)*name))
        return false;
    char *end;
    errno = 0;
    unsigned long long index = strtoull(name, &end, 10);
    *ret = (size_t)index;
    return *end == '\0' && errno == 0;
}

/* The layer that computes a node, or what a node without effect passes on; NULL for constants. */
static const struct layer *layer_of(const struct model *model, const struct node *node) {
    while (node) {
        const struct net_node *known = &model->nodes[node->index];
        if (known->layer)
            return known->layer;
        const struct value *from =
            known->dropped && node->inputs_count > 0 ? node->inputs[0] : NULL;
        node = from ? from->producer : NULL;
    }
    return NULL;
}

static int suggest(const struct model *model, const char *name, struct err *err) {
    for (size_t i = 0; i < model->graph->nodes_count; i++) {
        const struct node *node = model->graph->nodes[i];
        if (strcmp(node->name, name) != 0)
            continue;
        const struct layer *layer = layer_of(model, node);
        if (layer)
            return err_set(err, -ENOENT, "operator '%s' is part of layer '%s' (%s): name that one",
                           name, layer->info.name, layer->info.op);
        return err_set(err, -ENOENT, "operator '%s' is computed at load: it is no layer", name);
    }
    const char **names = calloc(model->layers_count + 1, sizeof(*names));
    const char *nearest = NULL;
    for (size_t i = 0; names && i < model->layers_count; i++)
        names[i] = model->layers[i]->info.name;
    if (names)
        nearest = err_nearest(name, names, model->layers_count);
    int rc = nearest ? err_set(err, -ENOENT, "no layer is called '%s'; did you mean '%s'?", name,
                               nearest)
                     : err_set(err, -ENOENT,
                               "no layer is called '%s'; `convoyctl inspect` lists them", name);
    free(names);
    return rc;
}

int model_find_layer(const struct model *model, const char *name, size_t *ret_index,
                     struct err *err) {
    size_t index;
    for (size_t i = 0; i < model->layers_count; i++)
        if (strcmp(model->layers[i]->info.name, name) == 0) {
            *ret_index = i;
            return 0;
        }
    if (!parse_index(name, &index))
        return suggest(model, name, err);
    if (index >= model->layers_count)
        return err_set(err, -ENOENT, "layer %s: the model has layers 0 to %zu", name,
                       model->layers_count - 1);
    *ret_index = index;
    return 0;
}

/* ---- parts ---- */

/* Whether a part carries the operator that makes a constant, not its numbers: they would be larger
 * than all that it reads, which is in the file. So are widened and dequantised weights. */
static bool is_made_smaller(const struct model *model, const struct value *value) {
    const struct node *node = value->constant ? value->producer : NULL;
    uint64_t bytes = 0;
    if (!node || node->outputs_count != 1 || !model->nodes[node->index].constant)
        return false;
    for (size_t i = 0; i < node->inputs_count; i++) {
        const struct value *input = node->inputs[i];
        if (input && (!input->constant || input->producer))
            return false;
        bytes += input ? input->constant->bytes : 0;
    }
    return bytes < value->constant->bytes;
}

/* The nodes of layers [first, last), behind those that make their constants smaller. */
static int part_nodes(const struct model *model, size_t first, size_t last, struct node ***ret,
                      size_t *ret_count) {
    bool *carried = calloc(model->graph->nodes_count + 1, sizeof(*carried));
    struct node **nodes = calloc(model->graph->nodes_count + 1, sizeof(struct node *));
    size_t count = 0;
    for (size_t l = first; carried && nodes && l < last; l++)
        for (size_t i = 0; i < model->layers[l]->nodes_count; i++) {
            const struct node *node = model->layers[l]->nodes[i];
            for (size_t k = 0; k < node->inputs_count; k++) {
                const struct value *value = node->inputs[k];
                if (!value || !is_made_smaller(model, value) || carried[value->producer->index])
                    continue;
                carried[value->producer->index] = true;
                nodes[count++] = value->producer;
            }
        }
    for (size_t l = first; carried && nodes && l < last; l++)
        for (size_t i = 0; i < model->layers[l]->nodes_count; i++)
            nodes[count++] = model->layers[l]->nodes[i];
    bool good = carried && nodes;
    free(carried);
    if (!good) {
        free(nodes);
        return -ENOMEM;
    }
    *ret = nodes;
    *ret_count = count;
    return 0;
}

/* Computes every constant that the layers' nodes read or that is an output. Under fold_lock(). */
static int fetch_constants(const struct model *model, struct node *const *nodes, size_t count,
                           const struct cut *outputs, struct err *err) {
    const struct constant *ignored;
    for (size_t i = 0; i < outputs->count; i++) {
        int rc = outputs->values[i]->constant
                     ? fold_numbers(model->fold, outputs->values[i], &ignored, err)
                     : 0;
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < nodes[i]->inputs_count; k++) {
            struct value *value = nodes[i]->inputs[k];
            if (!value || !value->constant || is_made_smaller(model, value))
                continue;
            int rc = fold_numbers(model->fold, value, &ignored, err);
            if (rc < 0)
                return rc;
        }
    return 0;
}

int model_write_part(const struct model *model, size_t first, size_t last, const char *path,
                     struct err *err) {
    if (first >= last || last > model->layers_count)
        return err_set(err, -EINVAL, "layers %zu to %zu are no part of %zu", first, last,
                       model->layers_count);
    struct node **nodes;
    size_t count;
    if (part_nodes(model, first, last, &nodes, &count) < 0)
        return err_set(err, -ENOMEM, "no memory for %zu operators", model->graph->nodes_count);
    struct graph_part part = {.nodes = nodes,
                              .nodes_count = count,
                              .inputs = model->cuts[first].descs,
                              .inputs_count = model->cuts[first].count,
                              .outputs = model->cuts[last].descs,
                              .outputs_count = model->cuts[last].count};
    fold_lock(model->fold);
    int rc = fetch_constants(model, nodes, count, &model->cuts[last], err);
    if (rc == 0)
        rc = graph_export(model->graph, &part, path, err);
    fold_drop(model->fold);
    fold_unlock(model->fold);
    free(nodes);
    return rc;
}
