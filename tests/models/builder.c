#include "tests/models/builder.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPSET      14 /* unless builder_set_opset() says otherwise */
#define NODES_MAX  1000
#define INPUTS_MAX 8
#define ATTRS_MAX  8

/* How a constant's numbers are drawn: evenly from low to high. */
struct weight {
    struct value *value;
    float low, high;
    bool is_param;
};

#define WEIGHTS_MAX (4 * NODES_MAX)

struct builder {
    struct graph *graph;
    uint64_t seed;
    int opset;
    bool failed;
    struct node *nodes[NODES_MAX];
    size_t nodes_count;
    struct weight weights[WEIGHTS_MAX];
    size_t weights_count;
    struct value *input;
};

struct builder *builder_new(uint64_t seed) {
    struct builder *builder = calloc(1, sizeof(*builder));
    if (!builder || !(builder->graph = graph_new())) {
        free(builder);
        return NULL;
    }
    builder->seed = seed;
    builder->opset = OPSET;
    return builder;
}

void builder_set_opset(struct builder *builder, int opset) {
    builder->opset = opset;
}

void builder_free(struct builder *builder) {
    if (!builder)
        return;
    graph_free(builder->graph);
    free(builder);
}

static struct value *fail(struct builder *builder) {
    builder->failed = true;
    return NULL;
}

/* A value named name + suffix. */
static struct value *add_value(struct builder *builder, const char *name, const char *suffix,
                               const struct tensor_desc *desc) {
    char full[256];
    int len = snprintf(full, sizeof(full), "%s%s", name, suffix);
    if (len < 0 || (size_t)len >= sizeof(full))
        return fail(builder);
    struct value *value = graph_add_value(builder->graph, full, (size_t)len);
    if (!value)
        return fail(builder);
    value->desc = *desc;
    value->desc.name = value->name;
    return value;
}

static struct tensor_desc shape_of(int rank, const int64_t *dims) {
    struct tensor_desc desc = {.dtype = DTYPE_FLOAT, .rank = rank};
    memcpy(desc.dims, dims, (size_t)rank * sizeof(*dims));
    return desc;
}

/* A constant whose numbers builder_write() will draw from [low, high). */
static struct value *add_weight(struct builder *builder, const char *name, const char *suffix,
                                struct tensor_desc desc, float low, float high, bool is_param) {
    struct value *value = add_value(builder, name, suffix, &desc);
    struct constant *constant = graph_alloc(builder->graph, sizeof(*constant));
    if (!value || !constant || builder->weights_count == WEIGHTS_MAX ||
        tensor_desc_bytes(&value->desc, &constant->bytes) < 0)
        return fail(builder);
    constant->desc = value->desc;
    value->constant = constant;
    builder->weights[builder->weights_count++] =
        (struct weight){.value = value, .low = low, .high = high, .is_param = is_param};
    return value;
}

static struct value *add_spread(struct builder *builder, const char *name, const char *suffix,
                                struct tensor_desc desc, float spread, bool is_param) {
    return add_weight(builder, name, suffix, desc, -spread, spread, is_param);
}

/* The half-width of an even distribution of variance gain / fan_in; gain 2 is He's for ReLU. */
static float he_spread(int64_t fan_in, float gain) {
    return sqrtf(3.0F * gain / (float)fan_in);
}

/* ---- nodes ---- */

struct node_spec {
    const char *op, *name;
    struct value *inputs[INPUTS_MAX]; /* up to the first NULL */
    struct attr attrs[ATTRS_MAX];     /* up to the first without a name */
    struct tensor_desc output;
};

static struct attr int_attr(const char *name, int64_t value) {
    return (struct attr){.name = name, .kind = ATTR_INT, .i = value};
}

static struct attr float_attr(const char *name, float value) {
    return (struct attr){.name = name, .kind = ATTR_FLOAT, .f = value};
}

/* count times the same integer. */
static struct attr ints_attr(struct builder *builder, const char *name, int64_t value,
                             size_t count) {
    int64_t *ints = graph_alloc(builder->graph, count * sizeof(*ints));
    for (size_t i = 0; ints && i < count; i++)
        ints[i] = value;
    builder->failed |= !ints;
    return (struct attr){.name = name, .kind = ATTR_INTS, .count = ints ? count : 0, .ints = ints};
}

static struct value *add_node(struct builder *builder, const struct node_spec *spec) {
    struct graph *graph = builder->graph;
    struct node *node = graph_alloc(graph, sizeof(*node));
    if (!node || builder->nodes_count == NODES_MAX)
        return fail(builder);
    while (node->inputs_count < INPUTS_MAX && spec->inputs[node->inputs_count])
        node->inputs_count++;
    while (node->attrs_count < ATTRS_MAX && spec->attrs[node->attrs_count].name)
        node->attrs_count++;
    node->name = graph_strdup(graph, spec->name, strlen(spec->name));
    node->op_type = spec->op;
    node->domain = "";
    node->opset = builder->opset;
    node->inputs = graph_alloc(graph, sizeof(spec->inputs));
    node->outputs = graph_alloc(graph, sizeof(struct value *));
    node->attrs = graph_alloc(graph, sizeof(spec->attrs));
    if (!node->name || !node->inputs || !node->outputs || !node->attrs)
        return fail(builder);
    memcpy(node->inputs, spec->inputs, sizeof(spec->inputs));
    memcpy(node->attrs, spec->attrs, sizeof(spec->attrs));
    node->outputs_count = 1;
    node->outputs[0] = add_value(builder, spec->name, "_out", &spec->output);
    builder->nodes[builder->nodes_count++] = node;
    return node->outputs[0];
}

struct value *builder_input(struct builder *builder, const char *name, int channels, int size) {
    struct tensor_desc desc = shape_of(4, (int64_t[]){1, channels, size, size});
    builder->input = add_value(builder, name, "", &desc);
    return builder->input;
}

/* The extent after a window of that kernel, stride and pad. */
static int64_t windows(int64_t size, int kernel, int stride, int pad, bool ceil) {
    int64_t span = size + 2 * pad - kernel + (ceil ? stride - 1 : 0);
    int64_t count = span / stride + 1;
    if (ceil && (count - 1) * stride >= size + pad)
        count--; /* a window must start inside */
    return count;
}

struct value *builder_conv(struct builder *builder, const char *name, struct value *x,
                           struct conv_shape shape) {
    if (!x)
        return NULL;
    int group = shape.group ? shape.group : 1;
    int64_t ic = x->desc.dims[1] / group, kernel = shape.kernel;
    float spread = he_spread(ic * kernel * kernel, 2);
    struct node_spec spec = {.op = "Conv", .name = name, .output = x->desc};
    spec.inputs[0] = x;
    spec.inputs[1] =
        add_spread(builder, name, ".weight", shape_of(4, (int64_t[]){shape.oc, ic, kernel, kernel}),
                   spread, true);
    if (shape.bias)
        spec.inputs[2] =
            add_spread(builder, name, ".bias", shape_of(1, (int64_t[]){shape.oc}), 0.1F, true);
    struct attr attrs[] = {
        ints_attr(builder, "kernel_shape", kernel, 2),
        ints_attr(builder, "strides", shape.stride, 2),
        ints_attr(builder, "pads", shape.pad, 4),
        ints_attr(builder, "dilations", 1, 2),
        int_attr("group", group),
    };
    memcpy(spec.attrs, attrs, sizeof(attrs));
    spec.output.dims[1] = shape.oc;
    for (int i = 2; i < 4; i++)
        spec.output.dims[i] =
            windows(x->desc.dims[i], shape.kernel, shape.stride, shape.pad, false);
    return add_node(builder, &spec);
}

struct value *builder_batchnorm(struct builder *builder, const char *name, struct value *x,
                                float epsilon, float gain) {
    if (!x)
        return NULL;
    struct tensor_desc each = shape_of(1, &x->desc.dims[1]);
    struct node_spec spec = {
        .op = "BatchNormalization",
        .name = name,
        .inputs = {x, add_weight(builder, name, ".weight", each, 0.8F * gain, 1.2F * gain, true),
                   add_spread(builder, name, ".bias", each, 0.1F, true),
                   add_spread(builder, name, ".running_mean", each, 0.1F, false),
                   add_weight(builder, name, ".running_var", each, 0.7F, 1.3F, false)},
        .attrs = {float_attr("epsilon", epsilon)},
        .output = x->desc};
    return add_node(builder, &spec);
}

struct value *builder_pool(struct builder *builder, const char *name, struct value *x,
                           struct pool_shape shape) {
    if (!x)
        return NULL;
    struct node_spec spec = {.op = shape.op,
                             .name = name,
                             .inputs = {x},
                             .output = x->desc,
                             .attrs = {ints_attr(builder, "kernel_shape", shape.kernel, 2),
                                       ints_attr(builder, "strides", shape.stride, 2),
                                       ints_attr(builder, "pads", shape.pad, 4),
                                       int_attr("ceil_mode", shape.ceil)}};
    for (int i = 2; i < 4; i++)
        spec.output.dims[i] =
            windows(x->desc.dims[i], shape.kernel, shape.stride, shape.pad, shape.ceil);
    return add_node(builder, &spec);
}

struct value *builder_unary(struct builder *builder, const char *op, const char *name,
                            struct value *x) {
    if (!x)
        return NULL;
    struct node_spec spec = {.op = op, .name = name, .inputs = {x}, .output = x->desc};
    if (strcmp(op, "GlobalAveragePool") == 0)
        spec.output.dims[2] = spec.output.dims[3] = 1;
    return add_node(builder, &spec);
}

struct value *builder_clip(struct builder *builder, const char *name, struct value *x, float min,
                           float max) {
    if (!x)
        return NULL;
    struct tensor_desc scalar = {.dtype = DTYPE_FLOAT};
    if (builder->opset < 11) {
        struct node_spec old = {.op = "Clip",
                                .name = name,
                                .inputs = {x},
                                .attrs = {float_attr("min", min), float_attr("max", max)},
                                .output = x->desc};
        return add_node(builder, &old);
    }
    struct node_spec spec = {.op = "Clip",
                             .name = name,
                             .inputs = {x,
                                        add_weight(builder, name, ".min", scalar, min, min, false),
                                        add_weight(builder, name, ".max", scalar, max, max, false)},
                             .output = x->desc};
    return add_node(builder, &spec);
}

struct value *builder_binary(struct builder *builder, const char *op, const char *name,
                             struct value *a, struct value *b) {
    if (!a || !b)
        return NULL;
    struct node_spec spec = {.op = op, .name = name, .inputs = {a, b}, .output = a->desc};
    return add_node(builder, &spec);
}

struct value *builder_hard_sigmoid(struct builder *builder, const char *name, struct value *x) {
    if (!x)
        return NULL;
    struct node_spec spec = {.op = "HardSigmoid",
                             .name = name,
                             .inputs = {x},
                             .attrs = {float_attr("alpha", 1.0F / 6)},
                             .output = x->desc};
    return add_node(builder, &spec);
}

struct value *builder_concat(struct builder *builder, const char *name, struct value *const *parts,
                             size_t count) {
    struct node_spec spec = {.op = "Concat", .name = name, .attrs = {int_attr("axis", 1)}};
    if (count == 0 || count > INPUTS_MAX)
        return fail(builder);
    for (size_t i = 0; i < count; i++) {
        if (!parts[i])
            return NULL;
        int64_t channels = i > 0 ? spec.output.dims[1] : 0;
        spec.inputs[i] = parts[i];
        spec.output = parts[i]->desc;
        spec.output.dims[1] += channels;
    }
    return add_node(builder, &spec);
}

bool builder_halve(struct builder *builder, const char *name, struct value *x,
                   struct value *ret_halves[2]) {
    if (!x)
        return false;
    struct node_spec spec = {.op = "Split",
                             .name = name,
                             .inputs = {x},
                             .attrs = {int_attr("axis", 1)},
                             .output = x->desc};
    spec.output.dims[1] /= 2;
    ret_halves[0] = add_node(builder, &spec);
    struct node *node = ret_halves[0] ? builder->nodes[builder->nodes_count - 1] : NULL;
    struct value **outputs = graph_alloc(builder->graph, 2 * sizeof(struct value *));
    ret_halves[1] = add_value(builder, name, "_out2", &spec.output);
    if (!node || !outputs || !ret_halves[1])
        return fail(builder);
    memcpy(outputs, ret_halves, 2 * sizeof(struct value *));
    node->outputs = outputs;
    node->outputs_count = 2;
    return true;
}

/* A constant of known integers. */
static struct value *add_ints(struct builder *builder, const char *name, const char *suffix,
                              const int64_t *ints, size_t count) {
    struct tensor_desc desc = {.dtype = DTYPE_INT64, .rank = 1, .dims = {(int64_t)count}};
    struct value *value = add_value(builder, name, suffix, &desc);
    struct constant *constant = graph_alloc(builder->graph, sizeof(*constant));
    int64_t *data = graph_alloc(builder->graph, count * sizeof(*data));
    if (!value || !constant || !data)
        return fail(builder);
    memcpy(data, ints, count * sizeof(*data));
    *constant =
        (struct constant){.desc = value->desc, .data = data, .bytes = count * sizeof(*data)};
    value->constant = constant;
    return value;
}

static struct value *add_reshape(struct builder *builder, const char *name, struct value *x,
                                 int rank, const int64_t *dims) {
    if (!x)
        return NULL;
    struct node_spec spec = {.op = "Reshape",
                             .name = name,
                             .inputs = {x, add_ints(builder, name, ".shape", dims, (size_t)rank)},
                             .output = shape_of(rank, dims)};
    return add_node(builder, &spec);
}

struct value *builder_shuffle(struct builder *builder, const char *name, struct value *x,
                              int groups) {
    char part[256];
    int64_t *perm = graph_alloc(builder->graph, 5 * sizeof(*perm));
    if (!x || !perm)
        return NULL;
    const int64_t *d = x->desc.dims;
    const int64_t last[4] = {d[0], d[1], d[2], d[3]};
    const int64_t split[5] = {d[0], groups, d[1] / groups, d[2], d[3]};
    const int64_t swapped[5] = {d[0], d[1] / groups, groups, d[2], d[3]};
    memcpy(perm, (int64_t[]){0, 2, 1, 3, 4}, 5 * sizeof(*perm));
    snprintf(part, sizeof(part), "%s.split", name);
    x = add_reshape(builder, part, x, 5, split);
    snprintf(part, sizeof(part), "%s.swap", name);
    struct node_spec spec = {
        .op = "Transpose",
        .name = part,
        .inputs = {x},
        .attrs = {{.name = "perm", .kind = ATTR_INTS, .count = 5, .ints = perm}},
        .output = shape_of(5, swapped)};
    return x ? add_reshape(builder, name, add_node(builder, &spec), 4, last) : NULL;
}

struct value *builder_mean(struct builder *builder, const char *name, struct value *x) {
    int64_t *axes = graph_alloc(builder->graph, 2 * sizeof(*axes));
    if (!x || !axes)
        return NULL;
    axes[0] = 2;
    axes[1] = 3;
    struct node_spec spec = {
        .op = "ReduceMean",
        .name = name,
        .inputs = {x},
        .attrs = {{.name = "axes", .kind = ATTR_INTS, .count = 2, .ints = axes},
                  int_attr("keepdims", 0)},
        .output = shape_of(2, x->desc.dims)};
    return add_node(builder, &spec);
}

struct value *builder_flatten(struct builder *builder, const char *name, struct value *x) {
    size_t count;
    if (!x)
        return NULL;
    if (tensor_desc_count(&x->desc, &count) < 0)
        return fail(builder);
    struct node_spec spec = {.op = "Flatten",
                             .name = name,
                             .inputs = {x},
                             .attrs = {int_attr("axis", 1)},
                             .output = shape_of(2, (int64_t[]){1, (int64_t)count})};
    return add_node(builder, &spec);
}

struct value *builder_linear(struct builder *builder, const char *name, struct value *x,
                             int outputs) {
    if (!x)
        return NULL;
    int64_t inputs = x->desc.dims[1];
    struct node_spec spec = {
        .op = "Gemm",
        .name = name,
        .inputs = {x,
                   add_spread(builder, name, ".weight", shape_of(2, (int64_t[]){outputs, inputs}),
                              he_spread(inputs, 2), true),
                   add_spread(builder, name, ".bias", shape_of(1, (int64_t[]){outputs}), 0.1F,
                              true)},
        .attrs = {int_attr("transB", 1)},
        .output = shape_of(2, (int64_t[]){1, outputs})};
    return add_node(builder, &spec);
}

/* ---- numbers ---- */

uint64_t builder_params(const struct builder *builder) {
    uint64_t params = 0;
    for (size_t i = 0; i < builder->weights_count; i++)
        if (builder->weights[i].is_param)
            params += builder->weights[i].value->constant->bytes / sizeof(float);
    return params;
}

/* splitmix64: one step of Vigna's generator, which mixes a counter. */
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
    x = (x ^ x >> 27) * 0x94d049bb133111ebU;
    return x ^ x >> 31;
}

static int draw(struct builder *builder, const struct weight *weight) {
    struct constant *constant = weight->value->constant;
    if (constant->data)
        return 0;
    float *data = tensor_buffer_new(constant->bytes);
    if (!data)
        return -ENOMEM;
    if (graph_adopt(builder->graph, data) < 0) {
        tensor_buffer_free(data);
        return -ENOMEM;
    }
    uint64_t state = mix(builder->seed + weight->value->id);
    for (size_t i = 0; i < constant->bytes / sizeof(float); i++) {
        float unit = (float)(mix(state += 0x9e3779b97f4a7c15U) >> 40) * 0x1p-24F;
        data[i] = weight->low + (weight->high - weight->low) * unit;
    }
    constant->data = data;
    return 0;
}

int builder_write(struct builder *builder, struct value *output, const char *path,
                  struct err *err) {
    if (builder->failed || !output || !builder->input)
        return err_set(err, -EINVAL, "%s: the network could not be built", path);
    for (size_t i = 0; i < builder->weights_count; i++)
        if (draw(builder, &builder->weights[i]) < 0)
            return err_set(err, -ENOMEM, "%s: out of memory", path);
    const struct graph_part part = {.nodes = builder->nodes,
                                    .nodes_count = builder->nodes_count,
                                    .inputs = &builder->input->desc,
                                    .inputs_count = 1,
                                    .outputs = &output->desc,
                                    .outputs_count = 1};
    return graph_export(builder->graph, &part, path, err);
}
