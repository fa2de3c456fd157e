/* Static shape inference: dimensions of inputs are bound once, then every node is planned in
 * order. After it every value has its type and shape, and constants are marked. */
#include "model/bounds.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct model_dim *find_dim(const struct model_options *options, const char *name) {
    for (size_t i = 0; options && i < options->dims_count; i++)
        if (name && strcmp(options->dims[i].name, name) == 0)
            return &options->dims[i];
    return NULL;
}

/* A dimension that is named "<=100" depends on data: it has that bound. So are inputs written whose
 * shapes an earlier part of the model finds (export.c). */
static bool is_bound(const char *name, int64_t *ret) {
    char *end;
    if (!name || strncmp(name, "<=", 2) != 0 || name[2] < '0' || name[2] > '9')
        return false;
    errno = 0;
    *ret = strtoll(name + 2, &end, 10);
    return *end == '\0' && errno == 0;
}

/* What the user says dimension d of an input is, or NULL. */
static const struct model_dim *said(const struct value *input, int d,
                                    const struct model_options *options) {
    const struct model_dim *dim = find_dim(options, input->dim_names[d]);
    return dim ? dim : find_dim(options, "*");
}

/* What is to be said of the dimensions that nobody knows: " --dim h=VALUE --dim w=VALUE". */
static void list_unsaid(const struct graph *graph, const struct model_options *options, char *buf,
                        size_t size) {
    size_t used = 0;
    int64_t bound;
    *buf = '\0';
    for (size_t i = 0; i < graph->inputs_count; i++) {
        const struct value *input = graph->inputs[i];
        for (int d = 1; d < input->desc.rank; d++) {
            char option[128];
            const char *name = input->dim_names[d];
            if (input->desc.dims[d] >= 0 || is_bound(name, &bound) || said(input, d, options))
                continue;
            snprintf(option, sizeof(option), " --dim %.100s=VALUE", name ? name : "'*'");
            if (!strstr(buf, option) && used < size)
                used += (size_t)snprintf(buf + used, size - used, "%s", option);
        }
    }
}

/* The value of dimension d of an input: as declared, as the user says, or 1 where it is first. */
static int bind_dim(const struct graph *graph, struct value *input, int d,
                    const struct model_options *options, struct err *err) {
    const char *name = input->dim_names[d];
    int64_t *ret = &input->desc.dims[d];
    if (*ret < 0 && is_bound(name, ret)) {
        input->desc.bounded |= (uint8_t)(1U << d);
    } else if (*ret < 0) {
        const struct model_dim *dim = said(input, d, options);
        char unsaid[300];
        list_unsaid(graph, options, unsaid, sizeof(unsaid));
        if (!dim && d > 0)
            return err_set(err, -ENOTSUP, "input '%s': dimension %d ('%s') is not known; say%s",
                           input->name, d, name ? name : "unnamed", unsaid);
        *ret = dim ? dim->value : 1;
    }
    if (*ret < 0 || *ret > OP_DIM_MAX)
        return err_set(err, -EBADMSG, "input '%s': dimension %d cannot be %lld", input->name, d,
                       (long long)*ret);
    return 0;
}

/* The names of the model's unknown dimensions, each once: "'h', 'w'". Empty when there are none. */
static void list_dims(const struct graph *graph, char *buf, size_t size) {
    size_t used = 0;
    *buf = '\0';
    for (size_t i = 0; i < graph->inputs_count; i++)
        for (int d = 0; d < graph->inputs[i]->desc.rank; d++) {
            char quoted[GRAPH_NAME_MAX + 3];
            const char *name = graph->inputs[i]->dim_names[d];
            if (!name)
                continue;
            snprintf(quoted, sizeof(quoted), "'%s'", name);
            if (!strstr(buf, quoted) && used < size)
                used += (size_t)snprintf(buf + used, size - used, "%s%s", used ? ", " : "", quoted);
        }
}

/* A value for a dimension that no input has is a mistake. */
static int check_dims(const struct graph *graph, const struct model_options *options,
                      struct err *err) {
    for (size_t k = 0; options && k < options->dims_count; k++) {
        const char *name = options->dims[k].name;
        bool found = strcmp(name, "*") == 0;
        for (size_t i = 0; i < graph->inputs_count && !found; i++)
            for (int d = 0; d < graph->inputs[i]->desc.rank && !found; d++)
                found = graph->inputs[i]->dim_names[d] &&
                        strcmp(graph->inputs[i]->dim_names[d], name) == 0;
        if (found)
            continue;
        char names[256];
        list_dims(graph, names, sizeof(names));
        return err_set(err, -EINVAL, "no input has a dimension '%.100s'; %s%s", name,
                       *names ? "the unknown ones are " : "every dimension is known", names);
    }
    return 0;
}

static int bind_input(const struct graph *graph, struct value *input,
                      const struct model_options *options, struct err *err) {
    if (input->desc.rank < 0)
        return err_set(err, -ENOTSUP,
                       "input '%s': the file does not say its shape; export it with one",
                       input->name);
    if (dtype_size(input->desc.dtype) == 0)
        return err_set(err, -ENOTSUP, "input '%s': its element type is not supported", input->name);
    for (int d = 0; d < input->desc.rank; d++) {
        int rc = bind_dim(graph, input, d, options, err);
        if (rc < 0)
            return rc;
    }
    input->desc.name = input->name;
    size_t bytes;
    if (tensor_desc_bytes(&input->desc, &bytes) < 0 || bytes > OP_TENSOR_BYTES_MAX)
        return err_set(err, -ENOTSUP, "input '%s' is too large", input->name);
    return 0;
}

/* Whether everything that the node reads is known at load. */
static bool reads_constants(const struct node *node, const struct op *op) {
    if (op->kind->flags & OP_SHAPE)
        return node->inputs[0]->desc.bounded == 0;
    for (size_t i = 0; i < node->inputs_count; i++)
        if (node->inputs[i] && !node->inputs[i]->constant)
            return false;
    return true;
}

/* The outputs become constants. A node that makes outputs of the graph and nothing else stays a
 * layer as well: a model may consist of such nodes. Where others read its outputs too, it does not:
 * they must find a constant in every part of the model, and the last stage copies it. */
static int mark_constant(struct model *model, const struct node *node, struct net_node *known) {
    bool is_output = false, is_read = false;
    for (size_t i = 0; i < node->outputs_count; i++) {
        struct value *value = node->outputs[i];
        if (!value)
            continue;
        int rc = fold_mark(model->fold, value);
        if (rc < 0)
            return rc;
        is_output = is_output || value->is_output;
        is_read = is_read || value->consumers_count > 0;
    }
    known->constant = is_read || !is_output;
    return 0;
}

/* A node of constants whose result's shape is in its numbers: it is computed now, once. */
static int settle_shapes(struct model *model, const struct node *node, struct err *err) {
    for (size_t i = 0; i < node->outputs_count; i++) {
        struct value *value = node->outputs[i];
        const struct constant *constant;
        if (!value || value->desc.bounded == 0)
            continue;
        int rc = fold_numbers(model->fold, value, &constant, err);
        if (rc < 0)
            return rc;
        memcpy(value->desc.dims, constant->desc.dims, sizeof(value->desc.dims));
        value->desc.bounded = 0;
    }
    return 0;
}

/* Descriptions of what the node reads and makes, for its plan(). */
static int call_init(struct op_call *call, struct model *model, const struct node *node) {
    const struct tensor_desc **in =
        graph_alloc(model->graph, (node->inputs_count + 1) * sizeof(*in));
    struct tensor_desc **out = graph_alloc(model->graph, (node->outputs_count + 1) * sizeof(*out));
    if (!in || !out)
        return -ENOMEM;
    for (size_t i = 0; i < node->inputs_count; i++)
        in[i] = node->inputs[i] ? &node->inputs[i]->desc : NULL;
    for (size_t i = 0; i < node->outputs_count; i++) {
        if (!node->outputs[i])
            continue;
        out[i] = &node->outputs[i]->desc;
        *out[i] = (struct tensor_desc){.name = node->outputs[i]->name, .dtype = DTYPE_NONE};
    }
    call->in = in;
    call->out = out;
    return 0;
}

static bool any_bounded(const struct tensor_desc *const *descs, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (descs[i] && descs[i]->bounded)
            return true;
    return false;
}

/* Its shapes depend on data: for which dimensions, and whether the operator can do with that. */
static int infer_dynamic(const struct op_call *call, struct net_node *known) {
    const struct node *node = call->node;
    bool reads = any_bounded(call->in, node->inputs_count);
    if (reads || call->inexact) {
        int rc = bounds_mark(call);
        if (rc < 0)
            return rc;
    }
    known->dynamic = reads || call->inexact ||
                     any_bounded((const struct tensor_desc *const *)call->out, node->outputs_count);
    /* Joining bytes is for shapes that stay: an Expand that is a view of five elements of five is
     * none of five elements of one. */
    if (known->dynamic && known->op->kind->run)
        known->view = false;
    struct op_prep prep = {.node = node, .plan = known->plan, .threads = 1};
    if (!reads || !known->op->kind->pack || known->op->kind->size(&prep) < 0 || prep.bytes == 0)
        return 0;
    for (size_t i = 0; i < node->inputs_count; i++)
        if (call->in[i] &&
            (call->in[i]->bounded & ~(i == 0 && known->op->kind->flags & OP_ROWS ? 1U : 0U)))
            return op_fail(call, -ENOTSUP,
                           "dimensions of input %zu ('%s') depend on data; that is supported for "
                           "the first dimension of %s",
                           i, node->inputs[i]->name,
                           known->op->kind->flags & OP_ROWS ? "input 0 only" : "no input");
    return 0;
}

/* Values for outputs that have no name but are written: nobody reads them. */
static int add_outputs(struct model *model, struct node *node, const struct op *op) {
    size_t count = op->kind->flags & OP_OUTPUTS ? node->outputs_count : 1;
    for (size_t i = 0; i < count; i++) {
        if (node->outputs[i])
            continue;
        char name[64];
        int len = snprintf(name, sizeof(name), "unnamed output %zu of node %u", i, node->index);
        struct value *value = graph_add_value(model->graph, name, (size_t)len);
        if (!value)
            return -ENOMEM;
        value->producer = node;
        node->outputs[i] = value;
    }
    return 0;
}

static int infer_node(struct model *model, struct node *node, struct err *err) {
    struct net_node *known = &model->nodes[node->index];
    int rc = op_find(node, &known->op, err);
    if (rc < 0)
        return rc;
    struct op_call call = {.node = node, .op = known->op, .fold = model->fold, .err = err};
    known->plan = graph_alloc(model->graph, known->op->kind->plan_size + 1);
    if (!known->plan || add_outputs(model, node, known->op) < 0 ||
        call_init(&call, model, node) < 0)
        return err_set(err, -ENOMEM, "no memory for node '%s'", node->name);
    rc = known->op->kind->plan(&call, known->plan);
    if (rc < 0)
        return rc;
    known->view = call.view;
    for (size_t i = 0; i < node->outputs_count; i++)
        if (node->outputs[i] && node->outputs[i]->desc.dtype == DTYPE_NONE)
            return op_fail(&call, -ENOTSUP, "output %zu is not supported", i);
    if (reads_constants(node, known->op)) {
        rc = mark_constant(model, node, known);
        return rc < 0 ? rc : settle_shapes(model, node, err);
    }
    rc = infer_dynamic(&call, known);
    return rc < 0 ? rc : bounds_compute(model, node, err);
}

/* Initializers: the description is the data's. */
static int infer_initializer(struct value *value, struct err *err) {
    value->desc = value->constant->desc;
    value->desc.name = value->name;
    size_t bytes;
    if (tensor_desc_bytes(&value->desc, &bytes) < 0 || bytes > OP_TENSOR_BYTES_MAX)
        return err_set(err, -ENOTSUP, "constant '%s' is too large or of an unsupported type",
                       value->name);
    for (int d = 0; d < value->desc.rank; d++)
        if (value->desc.dims[d] > OP_DIM_MAX)
            return err_set(err, -ENOTSUP, "constant '%s' is too large", value->name);
    return 0;
}

int net_infer(struct model *model, const struct model_options *options, struct err *err) {
    struct graph *graph = model->graph;
    int rc = check_dims(graph, options, err);
    for (size_t i = 0; rc == 0 && i < graph->values_count; i++)
        if (graph->values[i]->constant)
            rc = infer_initializer(graph->values[i], err);
    for (size_t i = 0; rc == 0 && i < graph->inputs_count; i++)
        rc = bind_input(graph, graph->inputs[i], options, err);
    for (size_t i = 0; rc == 0 && i < graph->nodes_count; i++)
        rc = infer_node(model, graph->nodes[i], err);
    return rc;
}
