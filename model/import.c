#include "model/import.h"

#include "model/onnx_skeleton.h"
#include "model/onnx_tensor.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <openssl/evp.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ATTRS_MAX            100 /* of a node; ONNX has none with a quarter of that */
#define CONSTANT_OUTPUTS_MAX 64

/* Everything that lives only while a file is read. */
struct import {
    struct graph *graph;
    const Onnx__ModelProto *model;
    struct tensor_reader reader;
    void *values;     /* tsearch() tree of struct value by name */
    void *node_names; /* ... of struct node by name */
    struct err *err;
};

/* ---- decoding within a budget ----
 * protobuf-c makes about 60 bytes of a two-byte message. Its allocations are counted, so that a
 * file of nothing but those is refused instead of filling the memory. */

#define BUDGET_PER_BYTE 32
#define BUDGET_BASE     ((size_t)4 << 20)
#define BUDGET_MAX      ((size_t)256 << 20)
#define BUDGET_HEADER   (2 * sizeof(size_t)) /* in front of each allocation: its size */

struct budget {
    size_t left;
    bool exceeded;  /* an allocation was refused */
    bool no_memory; /* an allocation failed */
};

static void *budget_alloc(void *data, size_t size) {
    struct budget *budget = data;
    if (budget->left < BUDGET_HEADER || size > budget->left - BUDGET_HEADER) {
        budget->exceeded = true;
        return NULL;
    }
    size_t *memory = malloc(BUDGET_HEADER + size);
    if (!memory) {
        budget->no_memory = true;
        return NULL;
    }
    budget->left -= BUDGET_HEADER + size;
    memory[0] = size;
    return (char *)memory + BUDGET_HEADER;
}

static void budget_free(void *data, void *pointer) {
    struct budget *budget = data;
    if (!pointer)
        return;
    size_t *memory = (size_t *)(void *)((char *)pointer - BUDGET_HEADER);
    budget->left += BUDGET_HEADER + memory[0];
    free(memory);
}

static int decode(const uint8_t *data, size_t size, ProtobufCAllocator *allocator,
                  Onnx__ModelProto **ret_model, struct err *err) {
    struct budget *budget = allocator->allocator_data;
    uint8_t *skeleton;
    size_t skeleton_size;
    int rc = onnx_skeleton(data, size, &skeleton, &skeleton_size, err);
    if (rc < 0)
        return rc;
    Onnx__ModelProto *model = onnx__model_proto__unpack(allocator, skeleton_size, skeleton);
    free(skeleton);
    if (!model && budget->no_memory)
        return err_set(err, -ENOMEM, "out of memory");
    if (!model)
        return err_set(err, -EBADMSG, "not a valid ONNX file: %s",
                       budget->exceeded ? "far too many fields for its size"
                                        : "protobuf cannot decode it");
    *ret_model = model;
    return 0;
}

/* ---- names ---- */

static int compare_values(const void *a, const void *b) {
    return strcmp(((const struct value *)a)->name, ((const struct value *)b)->name);
}

static int compare_node_names(const void *a, const void *b) {
    return strcmp(((const struct node *)a)->name, ((const struct node *)b)->name);
}

static void forget(void *item) {
    (void)item; /* the graph's */
}

static struct value *find_value(const struct import *import, const char *name) {
    const struct value key = {.name = name};
    void *const *found = tfind(&key, &import->values, compare_values);
    return found ? *found : NULL;
}

/* A new value; a name that is taken is refused. */
static int add_value(struct import *import, const char *name, struct value **ret_value) {
    struct value *value = graph_add_value(import->graph, name, strlen(name));
    if (!value)
        return import->graph->values_count >= GRAPH_VALUES_MAX
                   ? err_set(import->err, -EBADMSG, "more than %d values", GRAPH_VALUES_MAX)
                   : err_set(import->err, -ENOMEM, "out of memory");
    void *const *found = tsearch(value, &import->values, compare_values);
    if (!found)
        return err_set(import->err, -ENOMEM, "out of memory");
    if (*found != value)
        return err_set(import->err, -EBADMSG, "the value \"%s\" is defined twice", name);
    *ret_value = value;
    return 0;
}

static int no_memory(const struct import *import) {
    return err_set(import->err, -ENOMEM, "out of memory");
}

/* ---- inputs and constants of the graph ---- */

static int add_initializers(struct import *import) {
    const Onnx__GraphProto *graph = import->model->graph;
    if (graph->n_sparse_initializer > 0)
        return err_set(import->err, -ENOTSUP, "sparse initializers are not supported");
    for (size_t i = 0; i < graph->n_initializer; i++) {
        const Onnx__TensorProto *tensor = graph->initializer[i];
        struct value *value;
        if (!tensor->name || tensor->name[0] == '\0')
            return err_set(import->err, -EBADMSG, "initializer %zu has no name", i);
        int rc = add_value(import, tensor->name, &value);
        if (rc < 0)
            return rc;
        struct constant *constant = graph_alloc(import->graph, sizeof(*constant));
        if (!constant)
            return no_memory(import);
        if ((rc = tensor_read(&import->reader, tensor, constant, import->err)) < 0)
            return err_prefix(import->err, rc, "initializer \"%s\"", tensor->name);
        constant->desc.name = value->name;
        value->constant = constant;
        value->desc = constant->desc;
    }
    return 0;
}

/* The declared type of a graph input. */
static int read_type(struct import *import, const Onnx__TypeProto *type, struct value *value) {
    const Onnx__TypeProto__Tensor *tensor = type ? type->tensor_type : NULL;
    if (!tensor)
        return err_set(import->err, type ? -ENOTSUP : -EBADMSG,
                       "input \"%s\" is not declared as a tensor", value->name);
    if (dtype_size((enum dtype)tensor->elem_type) == 0)
        return err_set(import->err, -ENOTSUP, "input \"%s\" has the element type %s (%d)",
                       value->name, tensor_onnx_type(tensor->elem_type), tensor->elem_type);
    value->desc.dtype = (enum dtype)tensor->elem_type;
    const Onnx__TensorShapeProto *shape = tensor->shape;
    if (!shape)
        return 0;
    if (shape->n_dim > TENSOR_MAX_RANK)
        return err_set(import->err, -ENOTSUP,
                       "input \"%s\" has %zu dimensions; supported are up to %d", value->name,
                       shape->n_dim, TENSOR_MAX_RANK);
    value->desc.rank = (int)shape->n_dim;
    for (size_t i = 0; i < shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *dim = shape->dim[i];
        /* Exporters write 0 or -1 where they do not know. */
        value->desc.dims[i] = dim->has_dim_value && dim->dim_value > 0 ? dim->dim_value : -1;
        if (value->desc.dims[i] < 0 && dim->dim_param && dim->dim_param[0] != '\0') {
            value->dim_names[i] =
                graph_strdup(import->graph, dim->dim_param, strlen(dim->dim_param));
            if (!value->dim_names[i])
                return no_memory(import);
        }
    }
    return 0;
}

static int add_inputs(struct import *import) {
    struct graph *graph = import->graph;
    const Onnx__GraphProto *proto = import->model->graph;
    graph->inputs = graph_alloc(graph, proto->n_input * sizeof(struct value *));
    if (!graph->inputs)
        return no_memory(import);
    for (size_t i = 0; i < proto->n_input; i++) {
        const char *name = proto->input[i]->name;
        if (!name || name[0] == '\0')
            return err_set(import->err, -EBADMSG, "input %zu of the graph has no name", i);
        struct value *value = find_value(import, name);
        if (value && value->constant) { /* an initializer: nobody has to feed it */
            const Onnx__TypeProto *type = proto->input[i]->type;
            int32_t declared = type && type->tensor_type ? type->tensor_type->elem_type : 0;
            if (declared != 0 && declared != (int32_t)value->desc.dtype)
                return err_set(import->err, -EBADMSG,
                               "input \"%s\" is declared as %s, but its initializer is %s", name,
                               tensor_onnx_type(declared), dtype_name(value->desc.dtype));
            continue;
        }
        int rc = add_value(import, name, &value);
        if (rc < 0 || (rc = read_type(import, proto->input[i]->type, value)) < 0)
            return rc;
        value->is_input = true;
        graph->inputs[graph->inputs_count++] = value;
    }
    return 0;
}

static int find_outputs(struct import *import) {
    struct graph *graph = import->graph;
    const Onnx__GraphProto *proto = import->model->graph;
    graph->outputs = graph_alloc(graph, proto->n_output * sizeof(struct value *));
    if (!graph->outputs)
        return no_memory(import);
    for (size_t i = 0; i < proto->n_output; i++) {
        const char *name = proto->output[i]->name ? proto->output[i]->name : "";
        struct value *value = find_value(import, name);
        if (!value)
            return err_set(import->err, -EBADMSG, "output \"%s\" of the graph is computed nowhere",
                           name);
        if (value->is_output)
            return err_set(import->err, -EBADMSG, "output \"%s\" of the graph is listed twice",
                           name);
        const Onnx__TypeProto *type = proto->output[i]->type;
        if (value->producer && type && type->tensor_type)
            value->declared = (enum dtype)type->tensor_type->elem_type;
        value->is_output = true;
        graph->outputs[graph->outputs_count++] = value;
    }
    return graph->outputs_count > 0 ? 0
                                    : err_set(import->err, -EBADMSG, "the graph has no outputs");
}

/* ---- attributes ---- */

static int read_string(struct import *import, const ProtobufCBinaryData *bytes, const char **ret_s,
                       size_t *ret_len) {
    *ret_s = graph_strdup(import->graph, (const char *)bytes->data, bytes->len);
    *ret_len = bytes->len;
    return *ret_s ? 0 : no_memory(import);
}

static int read_strings(struct import *import, const Onnx__AttributeProto *proto,
                        struct attr *attr) {
    size_t len;
    const char **strings = graph_alloc(import->graph, proto->n_strings * sizeof(*strings));
    if (!strings)
        return no_memory(import);
    for (size_t i = 0; i < proto->n_strings; i++)
        if (read_string(import, &proto->strings[i], &strings[i], &len) < 0)
            return -ENOMEM;
    attr->strings = strings;
    attr->count = proto->n_strings;
    return 0;
}

static int read_attr_tensor(struct import *import, const Onnx__AttributeProto *proto,
                            struct attr *attr) {
    struct constant *constant = graph_alloc(import->graph, sizeof(*constant));
    if (!constant)
        return no_memory(import);
    if (!proto->t)
        return err_set(import->err, -EBADMSG, "it has no tensor");
    attr->t = constant;
    return tensor_read(&import->reader, proto->t, constant, import->err);
}

/* A copy of count elements in the graph's memory. */
static int copy_list(struct import *import, const void *data, size_t count, size_t size,
                     void *ret_copy) {
    void *copy = graph_alloc(import->graph, count * size);
    if (!copy)
        return no_memory(import);
    if (count > 0)
        memcpy(copy, data, count * size);
    memcpy(ret_copy, &copy, sizeof(copy));
    return 0;
}

/* AttributeProto.type; 0 is what files of the first IR version have. */
enum attr_type {
    TYPE_UNDEFINED = 0,
    TYPE_FLOAT = 1,
    TYPE_INT = 2,
    TYPE_STRING = 3,
    TYPE_TENSOR = 4,
    TYPE_GRAPH = 5,
    TYPE_FLOATS = 6,
    TYPE_INTS = 7,
    TYPE_STRINGS = 8,
    TYPE_GRAPHS = 10
};

static int guess_type(const Onnx__AttributeProto *proto) {
    const struct {
        bool present;
        int type;
    } guesses[] = {
        {proto->has_f, TYPE_FLOAT},           {proto->has_i, TYPE_INT},
        {proto->has_s, TYPE_STRING},          {proto->t != NULL, TYPE_TENSOR},
        {proto->n_floats > 0, TYPE_FLOATS},   {proto->n_ints > 0, TYPE_INTS},
        {proto->n_strings > 0, TYPE_STRINGS},
    };
    for (size_t i = 0; i < sizeof(guesses) / sizeof(guesses[0]); i++)
        if (guesses[i].present)
            return guesses[i].type;
    return TYPE_UNDEFINED;
}

static int read_attr(struct import *import, const Onnx__AttributeProto *proto, struct attr *attr) {
    static const char *const kinds[] = {"undefined",      "float",   "int",    "string",
                                        "tensor",         "graph",   "floats", "ints",
                                        "strings",        "tensors", "graphs", "sparse tensor",
                                        "sparse tensors", "type",    "types"};
    int type = proto->type ? proto->type : guess_type(proto);
    if (proto->ref_attr_name && proto->ref_attr_name[0] != '\0')
        return err_set(import->err, -ENOTSUP, "it refers to an attribute of a function");
    switch (type) {
    case TYPE_FLOAT:
        attr->kind = ATTR_FLOAT;
        attr->f = proto->f;
        return 0;
    case TYPE_INT:
        attr->kind = ATTR_INT;
        attr->i = proto->i;
        return 0;
    case TYPE_STRING:
        attr->kind = ATTR_STRING;
        return read_string(import, &proto->s, &attr->s, &attr->count);
    case TYPE_TENSOR:
        attr->kind = ATTR_TENSOR;
        return read_attr_tensor(import, proto, attr);
    case TYPE_FLOATS:
        attr->kind = ATTR_FLOATS;
        attr->count = proto->n_floats;
        return copy_list(import, proto->floats, attr->count, sizeof(float), &attr->floats);
    case TYPE_INTS:
        attr->kind = ATTR_INTS;
        attr->count = proto->n_ints;
        return copy_list(import, proto->ints, attr->count, sizeof(int64_t), &attr->ints);
    case TYPE_STRINGS:
        attr->kind = ATTR_STRINGS;
        return read_strings(import, proto, attr);
    case TYPE_GRAPH:
    case TYPE_GRAPHS:
        return err_set(import->err, -ENOTSUP,
                       "control flow (If, Loop, Scan) is not supported; export the model without "
                       "it, for one set of shapes");
    default:
        return err_set(import->err, -ENOTSUP, "it is of kind %s (%d), which is not supported",
                       type > 0 && type < (int)(sizeof(kinds) / sizeof(kinds[0])) ? kinds[type]
                                                                                  : "unknown",
                       type);
    }
}

static int read_attrs(struct import *import, const Onnx__NodeProto *proto, struct node *node) {
    if (proto->n_attribute > ATTRS_MAX)
        return err_set(import->err, -EBADMSG, "it has more than %d attributes", ATTRS_MAX);
    node->attrs = graph_alloc(import->graph, proto->n_attribute * sizeof(*node->attrs));
    if (!node->attrs)
        return no_memory(import);
    for (size_t i = 0; i < proto->n_attribute; i++) {
        const char *name = proto->attribute[i]->name ? proto->attribute[i]->name : "";
        if (name[0] == '\0' || node_attr(node, name))
            return err_set(import->err, -EBADMSG, "attribute \"%s\" %s", name,
                           name[0] == '\0' ? "has no name" : "is there twice");
        struct attr *attr = &node->attrs[i];
        attr->name = graph_strdup(import->graph, name, strlen(name));
        if (!attr->name)
            return no_memory(import);
        int rc = read_attr(import, proto->attribute[i], attr);
        if (rc < 0)
            return err_prefix(import->err, rc, "attribute \"%s\"", name);
        node->attrs_count++;
    }
    return 0;
}

/* ---- nodes ---- */

/* The version that the file imports of a domain; 1 where it says nothing, as ONNX defines. */
static int opset_of(const Onnx__ModelProto *model, const char *domain) {
    int64_t version = 0;
    for (size_t i = 0; i < model->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *opset = model->opset_import[i];
        const char *of = opset->domain ? opset->domain : "";
        if (strcmp(strcmp(of, "ai.onnx") == 0 ? "" : of, domain) == 0 && opset->version > version)
            version = opset->version;
    }
    return version < 1 ? 1 : version > INT_MAX ? INT_MAX : (int)version;
}

/* A node's name, or its first output's where it has none of its own. */
static int name_node(struct import *import, const char *name, struct node *node) {
    const char *output = NULL;
    for (size_t i = 0; i < node->outputs_count && !output; i++)
        output = node->outputs[i] ? node->outputs[i]->name : NULL;
    if (!output)
        return err_set(import->err, -EBADMSG, "a node (%s \"%s\") has no output", node->op_type,
                       name ? name : "");
    node->name = output;
    if (!name || name[0] == '\0')
        return 0;
    node->name = graph_strdup(import->graph, name, strlen(name));
    if (!node->name)
        return no_memory(import);
    void *const *found = tsearch(node, &import->node_names, compare_node_names);
    if (!found)
        return no_memory(import);
    if (*found != node)
        node->name = output; /* the second of that name */
    return 0;
}

/* Makes a node and the values it produces; its inputs may not exist yet. */
static int add_node(struct import *import, const Onnx__NodeProto *proto, struct node **ret_node) {
    struct graph *graph = import->graph;
    struct node *node = graph_alloc(graph, sizeof(*node));
    const char *op_type = proto->op_type ? proto->op_type : "";
    const char *domain = proto->domain ? proto->domain : "";
    if (strcmp(domain, "ai.onnx") == 0)
        domain = "";
    if (op_type[0] == '\0')
        return err_set(import->err, -EBADMSG, "a node (\"%s\") has no operator",
                       proto->name ? proto->name : "");
    if (!node || !(node->op_type = graph_strdup(graph, op_type, strlen(op_type))) ||
        !(node->domain = graph_strdup(graph, domain, strlen(domain))) ||
        !(node->inputs = graph_alloc(graph, proto->n_input * sizeof(struct value *))) ||
        !(node->outputs = graph_alloc(graph, proto->n_output * sizeof(struct value *))))
        return no_memory(import);
    node->opset = opset_of(import->model, domain);
    node->inputs_count = proto->n_input;
    node->outputs_count = proto->n_output;
    for (size_t i = 0; i < proto->n_output; i++) {
        if (proto->output[i][0] == '\0')
            continue;
        int rc = add_value(import, proto->output[i], &node->outputs[i]);
        if (rc < 0)
            return rc;
        node->outputs[i]->producer = node;
    }
    *ret_node = node;
    return name_node(import, proto->name, node);
}

static int find_inputs(struct import *import, const Onnx__NodeProto *proto, struct node *node) {
    for (size_t i = 0; i < proto->n_input; i++) {
        if (proto->input[i][0] == '\0')
            continue;
        node->inputs[i] = find_value(import, proto->input[i]);
        if (!node->inputs[i])
            return err_set(import->err, -EBADMSG, "it reads \"%s\", which nothing produces",
                           proto->input[i]);
    }
    return 0;
}

/* What an attribute of a Constant node says. */
static int constant_of_attr(struct import *import, const struct attr *attr,
                            struct constant **ret_constant) {
    static const struct {
        const char *name;
        enum attr_kind kind;
        enum dtype dtype;
        bool is_list;
    } forms[] = {
        {"value", ATTR_TENSOR, DTYPE_NONE, false},
        {"value_float", ATTR_FLOAT, DTYPE_FLOAT, false},
        {"value_floats", ATTR_FLOATS, DTYPE_FLOAT, true},
        {"value_int", ATTR_INT, DTYPE_INT64, false},
        {"value_ints", ATTR_INTS, DTYPE_INT64, true},
    };
    const size_t forms_count = sizeof(forms) / sizeof(forms[0]);
    size_t form = 0;
    while (form < forms_count &&
           (strcmp(forms[form].name, attr->name) != 0 || forms[form].kind != attr->kind))
        form++;
    if (form == forms_count)
        return err_set(import->err, -ENOTSUP, "a constant given by \"%s\" is not supported",
                       attr->name);
    struct constant *constant = graph_alloc(import->graph, sizeof(*constant));
    if (!constant)
        return no_memory(import);
    if (attr->kind == ATTR_TENSOR) {
        *constant = *attr->t;
    } else {
        size_t count = forms[form].is_list ? attr->count : 1;
        constant->desc.dtype = forms[form].dtype;
        constant->desc.rank = forms[form].is_list ? 1 : 0;
        constant->desc.dims[0] = (int64_t)count;
        constant->bytes = count * dtype_size(forms[form].dtype);
        constant->data = forms[form].is_list ? (const void *)attr->ints : (const void *)&attr->i;
    }
    *ret_constant = constant;
    return 0;
}

/* A Constant node becomes the constant of its output. */
static int absorb_constant(struct import *import, struct node *node) {
    struct constant *constant = NULL;
    if (node->attrs_count != 1 || node->outputs_count != 1 || node->inputs_count != 0)
        return err_set(import->err, -EBADMSG,
                       "a Constant has one attribute, one output and no input");
    int rc = constant_of_attr(import, &node->attrs[0], &constant);
    if (rc < 0)
        return rc;
    struct value *value = node->outputs[0];
    constant->desc.name = value->name;
    value->constant = constant;
    value->desc = constant->desc;
    value->producer = NULL;
    return 0;
}

static bool is_named(char *const *names, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Whether a value is an output of the graph that no node reads. */
static bool is_only_output(const struct import *import, const char *name) {
    const Onnx__GraphProto *proto = import->model->graph;
    bool is_output = false;
    if (proto->n_output > CONSTANT_OUTPUTS_MAX) /* bounds the time this takes */
        return false;
    for (size_t i = 0; i < proto->n_output && !is_output; i++)
        is_output = proto->output[i]->name && strcmp(proto->output[i]->name, name) == 0;
    for (size_t i = 0; i < proto->n_node && is_output; i++)
        if (is_named(proto->node[i]->input, proto->node[i]->n_input, name))
            return false;
    return is_output;
}

/* A Constant node becomes a constant, unless its output is the graph's and nothing else: a model
 * may consist of such nodes. */
static bool is_absorbed(const struct import *import, const struct node *node) {
    return node->domain[0] == '\0' && strcmp(node->op_type, "Constant") == 0 &&
           !(node->outputs_count == 1 && node->outputs[0] &&
             is_only_output(import, node->outputs[0]->name));
}

static int add_nodes(struct import *import) {
    struct graph *graph = import->graph;
    const Onnx__GraphProto *proto = import->model->graph;
    int rc;
    if (proto->n_node > GRAPH_NODES_MAX)
        return err_set(import->err, -EBADMSG, "more than %d nodes", GRAPH_NODES_MAX);
    struct node **nodes = graph_alloc(graph, proto->n_node * sizeof(struct node *));
    graph->nodes = graph_alloc(graph, proto->n_node * sizeof(struct node *));
    if (!nodes || !graph->nodes)
        return no_memory(import);
    for (size_t i = 0; i < proto->n_node; i++)
        if ((rc = add_node(import, proto->node[i], &nodes[i])) < 0)
            return rc;
    for (size_t i = 0; i < proto->n_node; i++) {
        struct node *node = nodes[i];
        if ((rc = find_inputs(import, proto->node[i], node)) < 0 ||
            (rc = read_attrs(import, proto->node[i], node)) < 0 ||
            (is_absorbed(import, node) && (rc = absorb_constant(import, node)) < 0))
            return err_prefix(import->err, rc, "node \"%s\" (%s)", node->name, node->op_type);
        if (!is_absorbed(import, node))
            graph->nodes[graph->nodes_count++] = node;
    }
    return 0;
}

/* ---- order ----
 * Depth first from each node in the file's order, a node after all that it needs: a file that can
 * be executed as it stands keeps its order. node->note is the node's state, node->index the next
 * input to look at. */

static char state_open, state_done;

struct sorter {
    struct node **sorted, **stack;
    size_t sorted_count, depth;
};

/* Goes on with the node on top of the stack. */
static int sort_step(struct sorter *sorter, struct err *err) {
    struct node *node = sorter->stack[sorter->depth - 1];
    while (node->index < node->inputs_count) {
        const struct value *input = node->inputs[node->index++];
        struct node *needed = input ? input->producer : NULL;
        if (!needed || needed->note == &state_done)
            continue;
        if (needed->note == &state_open)
            return err_set(err, -EBADMSG,
                           "node \"%s\" (%s) needs its own result: the graph has a cycle",
                           needed->name, needed->op_type);
        needed->note = &state_open;
        sorter->stack[sorter->depth++] = needed;
        return 0;
    }
    node->note = &state_done;
    sorter->sorted[sorter->sorted_count++] = node;
    sorter->depth--;
    return 0;
}

static int sort_nodes(struct import *import) {
    struct graph *graph = import->graph;
    struct sorter sorter = {0};
    int rc = 0;
    sorter.sorted = graph_alloc(graph, graph->nodes_count * sizeof(struct node *));
    sorter.stack = calloc(graph->nodes_count + 1, sizeof(struct node *));
    if (!sorter.sorted || !sorter.stack)
        rc = no_memory(import);
    for (size_t i = 0; rc == 0 && i < graph->nodes_count; i++) {
        if (graph->nodes[i]->note == &state_done)
            continue;
        graph->nodes[i]->note = &state_open;
        sorter.stack[sorter.depth++] = graph->nodes[i];
        while (rc == 0 && sorter.depth > 0)
            rc = sort_step(&sorter, import->err);
    }
    free(sorter.stack);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < graph->nodes_count; i++)
        sorter.sorted[i]->note = NULL;
    graph->nodes = sorter.sorted;
    return 0;
}

/* ---- digest ---- */

#define DIGEST_CHUNK ((size_t)4 << 20) /* a multiple of every page size */

/* Hashes a mapping piece by piece; each piece's pages are given back. */
static bool digest_mapping(EVP_MD_CTX *ctx, const uint8_t *data, size_t size) {
    bool ok = true;
    madvise((void *)(uintptr_t)data, size, MADV_SEQUENTIAL);
    for (size_t at = 0; ok && at < size; at += DIGEST_CHUNK) {
        size_t chunk = size - at < DIGEST_CHUNK ? size - at : DIGEST_CHUNK;
        ok = EVP_DigestUpdate(ctx, data + at, chunk) == 1;
        madvise((void *)(uintptr_t)(data + at), chunk, MADV_DONTNEED);
    }
    madvise((void *)(uintptr_t)data, size, MADV_NORMAL);
    return ok;
}

/* The digest of the model and of the external files it mentions. */
static int digest_files(struct import *import) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
              digest_mapping(ctx, import->reader.file, import->reader.size);
    for (const struct external_file *file = import->reader.externals; ok && file; file = file->next)
        ok = digest_mapping(ctx, file->data, file->size);
    ok = ok && EVP_DigestFinal_ex(ctx, import->graph->digest, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? 0 : no_memory(import);
}

/* ---- the whole ---- */

static int build(struct import *import) {
    int rc;
    if (!import->model->graph)
        return err_set(import->err, -EBADMSG, "not a valid ONNX file: it has no graph");
    if (import->model->n_functions > 0)
        return err_set(import->err, -ENOTSUP, "functions inside a model are not supported");
    if ((rc = add_initializers(import)) < 0 || (rc = add_inputs(import)) < 0 ||
        (rc = add_nodes(import)) < 0 || (rc = find_outputs(import)) < 0 ||
        (rc = sort_nodes(import)) < 0)
        return rc;
    return graph_link(import->graph) < 0 ? no_memory(import) : 0;
}

/* Fills in an empty graph from the bytes of a model: a mapped file in that folder, or, when folder
 * is NULL, memory of the caller. */
static int import_bytes(struct graph *graph, const uint8_t *data, size_t size, const char *folder,
                        struct err *err) {
    struct budget budget = {.left = size < BUDGET_MAX / BUDGET_PER_BYTE
                                        ? BUDGET_BASE + BUDGET_PER_BYTE * size
                                        : BUDGET_MAX};
    ProtobufCAllocator allocator = {
        .alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};
    struct import import = {
        .graph = graph,
        .reader = {.graph = graph, .file = data, .size = size, .folder = folder},
        .err = err};
    Onnx__ModelProto *model = NULL;
    int rc = decode(data, size, &allocator, &model, err);
    if (rc < 0)
        return rc;
    import.model = model;
    rc = build(&import);
    if (rc == 0)
        rc = folder ? digest_files(&import) : sha256(data, size, graph->digest);
    tdestroy(import.values, forget);
    tdestroy(import.node_names, forget);
    onnx__model_proto__free_unpacked(model, &allocator);
    return rc;
}

int graph_import_memory(const void *data, size_t size, struct graph **ret_graph, struct err *err) {
    struct graph *graph = graph_new();
    if (!graph)
        return err_set(err, -ENOMEM, "out of memory");
    int rc = import_bytes(graph, data, size, NULL, err);
    if (rc < 0) {
        graph_free(graph);
        return rc;
    }
    *ret_graph = graph;
    return 0;
}

/* The model's folder without links, or NULL. To be freed with free(). */
static char *folder_of(const char *path) {
    char *copy = strdup(path);
    char *folder = copy ? realpath(dirname(copy), NULL) : NULL;
    free(copy);
    return folder;
}

int graph_import(const char *path, struct graph **ret_graph, struct err *err) {
    const uint8_t *data;
    size_t size;
    char *folder = NULL;
    struct graph *graph = graph_new();
    int rc = graph && (graph->path = graph_strdup(graph, path, strlen(path)))
                 ? graph_map_file(graph, path, &data, &size, err)
                 : err_set(err, -ENOMEM, "out of memory");
    if (rc == 0 && !(folder = folder_of(path)))
        rc = err_set(err, -errno, "cannot find the folder of %s: %s", path, strerror(errno));
    if (rc == 0 && (rc = import_bytes(graph, data, size, folder, err)) < 0)
        err_prefix(err, rc, "%s", path);
    free(folder);
    if (rc < 0) {
        graph_free(graph);
        return rc;
    }
    *ret_graph = graph;
    return 0;
}
