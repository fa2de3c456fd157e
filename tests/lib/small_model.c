#include "tests/lib/small_model.h"

#include "onnx.pb-c.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ITEMS_MAX 64 /* of every kind */
/* AttributeProto.type */
enum { IS_FLOAT = 1, IS_INT = 2, IS_STRING = 3, IS_TENSOR = 4, IS_FLOATS = 6, IS_INTS = 7 };

#define BLOCKS 4096 /* allocations of one file */

/* Everything is freed at once, when the file is written. */
struct writer {
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
    Onnx__OperatorSetIdProto opset;
    Onnx__OperatorSetIdProto *opsets[1];
    Onnx__NodeProto *nodes[ITEMS_MAX];
    Onnx__TensorProto *constants[ITEMS_MAX];
    Onnx__ValueInfoProto *inputs[ITEMS_MAX], *outputs[ITEMS_MAX];
    void *blocks[BLOCKS];
    size_t blocks_count;
};

static void *take(struct writer *w, size_t size) {
    assert_true(w->blocks_count < BLOCKS);
    void *block = calloc(1, size + 1);
    assert_non_null(block);
    w->blocks[w->blocks_count++] = block;
    return block;
}

static char *copy(struct writer *w, const char *text, size_t len) {
    char *s = take(w, len);
    memcpy(s, text, len);
    return s;
}

/* The next word of a line; NULL at its end. */
static char *word(char **p) {
    *p += strspn(*p, " ");
    if (!**p)
        return NULL;
    char *start = *p;
    *p += strcspn(*p, " ");
    if (**p)
        *(*p)++ = '\0';
    return start;
}

/* Splits at commas: pieces point into text. */
static size_t split(char *text, char **pieces) {
    size_t count = 0;
    for (char *piece = strtok(text, ","); piece; piece = strtok(NULL, ",")) {
        assert_true(count < ITEMS_MAX);
        pieces[count++] = piece;
    }
    return count;
}

static int type_of(const char *name) {
    static const struct {
        const char *name;
        int type;
    } types[] = {{"f32", 1},  {"u8", 2},   {"i8", 3},   {"u16", 4},  {"i16", 5},
                 {"i32", 6},  {"i64", 7},  {"bool", 9}, {"f16", 10}, {"f64", 11},
                 {"u32", 12}, {"u64", 13}, {"bf16", 16}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    fail_msg("no type %s", name);
    return 0;
}

static Onnx__ValueInfoProto *value_info(struct writer *w, const char *name, const char *type,
                                        char *dims) {
    Onnx__ValueInfoProto *info = take(w, sizeof(*info));
    onnx__value_info_proto__init(info);
    info->name = copy(w, name, strlen(name));
    if (!type)
        return info;
    info->type = take(w, sizeof(*info->type));
    onnx__type_proto__init(info->type);
    Onnx__TypeProto__Tensor *tensor = info->type->tensor_type = take(w, sizeof(*tensor));
    onnx__type_proto__tensor__init(tensor);
    tensor->has_elem_type = 1;
    tensor->elem_type = type_of(type);
    tensor->shape = take(w, sizeof(*tensor->shape));
    onnx__tensor_shape_proto__init(tensor->shape);
    char *pieces[ITEMS_MAX];
    size_t count = dims ? split(dims, pieces) : 0;
    tensor->shape->dim = take(w, (count + 1) * sizeof(*tensor->shape->dim));
    for (size_t i = 0; i < count; i++) {
        Onnx__TensorShapeProto__Dimension *dim = take(w, sizeof(*dim));
        onnx__tensor_shape_proto__dimension__init(dim);
        if (isdigit((unsigned char)pieces[i][0]) || pieces[i][0] == '-') {
            dim->has_dim_value = 1;
            dim->dim_value = atoll(pieces[i]);
        } else if (pieces[i][0] != '?') {
            dim->dim_param = copy(w, pieces[i], strlen(pieces[i]));
        }
        tensor->shape->dim[tensor->shape->n_dim++] = dim;
    }
    return info;
}

static size_t size_of(int type) {
    static const size_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8};
    return sizes[type];
}

/* The float16 next to zero from number, which has to be one's size: 2^-14 to 65504, or 0. */
static uint16_t half_of(double number) {
    int exponent;
    double fraction = frexp(fabs(number), &exponent); /* in [0.5, 1) */
    if (number == 0.0 || exponent < -13)
        return 0;
    return (uint16_t)((signbit(number) ? 0x8000 : 0) | (exponent + 14) << 10 |
                      ((int)(fraction * 2048.0) & 0x3ff));
}

/* Numbers of a constant, as listed or made up. */
static void fill(uint8_t *to, int type, const char *name, char *const *listed, size_t i) {
    uint32_t hash = 2166136261U;
    for (const char *p = name; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 16777619U;
    hash = (hash ^ (uint32_t)i) * 2654435761U;
    hash = (hash ^ hash >> 15U) * 2246822519U;
    double made = (double)(hash >> 8U) / (double)(1U << 23U) - 1.0;
    double number = listed ? strtod(listed[i], NULL) : made;
    float f = (float)number;
    int64_t l = listed ? strtoll(listed[i], NULL, 10) : (int64_t)(made * 10.0);
    uint16_t half = half_of(number);
    if (type == 1)
        memcpy(to, &f, 4);
    else if (type == 10)
        memcpy(to, &half, 2);
    else if (type == 11)
        memcpy(to, &number, 8);
    else
        memcpy(to, &l, size_of(type)); /* little-endian: the low bytes */
}

static Onnx__TensorProto *constant(struct writer *w, const char *name, const char *type_name,
                                   char *dims, char *numbers) {
    Onnx__TensorProto *tensor = take(w, sizeof(*tensor));
    onnx__tensor_proto__init(tensor);
    int type = type_of(type_name);
    size_t size = size_of(type), count = 1;
    char *pieces[ITEMS_MAX];
    tensor->name = copy(w, name, strlen(name));
    tensor->has_data_type = 1;
    tensor->data_type = type;
    size_t rank = dims ? split(dims, pieces) : 0;
    tensor->dims = take(w, (rank + 1) * sizeof(*tensor->dims));
    for (; tensor->n_dims < rank; tensor->n_dims++) {
        tensor->dims[tensor->n_dims] = atoll(pieces[tensor->n_dims]);
        count *= (size_t)tensor->dims[tensor->n_dims];
    }
    if (numbers)
        assert_int_equal(split(numbers, pieces), count);
    tensor->has_raw_data = 1;
    tensor->raw_data.len = count * size;
    tensor->raw_data.data = take(w, count * size);
    for (size_t i = 0; i < count; i++)
        fill(tensor->raw_data.data + i * size, type, name, numbers ? pieces : NULL, i);
    return tensor;
}

static Onnx__AttributeProto *attribute(struct writer *w, char *text) {
    Onnx__AttributeProto *attr = take(w, sizeof(*attr));
    onnx__attribute_proto__init(attr);
    char *value = strchr(text, '='), *pieces[ITEMS_MAX];
    assert_non_null(value);
    attr->name = copy(w, text, (size_t)(value - text));
    value++;
    bool list = *value == '[', number = strspn(value, "[]0123456789.,-e") == strlen(value);
    bool real = number && strchr(value, '.') != NULL;
    attr->has_type = 1;
    if (!number) {
        attr->type = IS_STRING;
        attr->has_s = 1;
        attr->s.len = strlen(value);
        attr->s.data = (uint8_t *)copy(w, value, strlen(value));
        return attr;
    }
    if (list) {
        value[strlen(value) - 1] = '\0';
        size_t count = split(value + 1, pieces);
        attr->ints = take(w, (count + 1) * sizeof(*attr->ints));
        attr->floats = take(w, (count + 1) * sizeof(*attr->floats));
        for (size_t i = 0; i < count; i++) {
            attr->ints[i] = atoll(pieces[i]);
            attr->floats[i] = strtof(pieces[i], NULL);
        }
        attr->type = real ? IS_FLOATS : IS_INTS;
        *(real ? &attr->n_floats : &attr->n_ints) = count;
        return attr;
    }
    attr->type = real ? IS_FLOAT : IS_INT;
    attr->has_f = real;
    attr->f = strtof(value, NULL);
    attr->has_i = !real;
    attr->i = atoll(value);
    return attr;
}

/* "a,-,b" -> names, with "" for "-". */
static size_t names(struct writer *w, char *text, char ***ret) {
    char *pieces[ITEMS_MAX];
    size_t count = split(text, pieces);
    *ret = take(w, (count + 1) * sizeof(char *));
    for (size_t i = 0; i < count; i++)
        (*ret)[i] =
            strcmp(pieces[i], "-") == 0 ? copy(w, "", 0) : copy(w, pieces[i], strlen(pieces[i]));
    return count;
}

static Onnx__NodeProto *node(struct writer *w, const char *op, char *line) {
    Onnx__NodeProto *n = take(w, sizeof(*n));
    onnx__node_proto__init(n);
    char *name = word(&line), *inputs = word(&line), *arrow = word(&line);
    n->op_type = copy(w, op, strlen(op));
    n->name = copy(w, name, strlen(name));
    bool reads = strcmp(inputs, "->") != 0; /* otherwise there are none */
    if (reads)
        n->n_input = names(w, inputs, &n->input);
    n->n_output = names(w, reads ? word(&line) : arrow, &n->output);
    n->attribute = take(w, ITEMS_MAX * sizeof(*n->attribute));
    if (word(&line))
        for (char *text = word(&line); text; text = word(&line))
            n->attribute[n->n_attribute++] = attribute(w, text);
    return n;
}

/* A Constant node with the numbers of that tensor. */
static Onnx__NodeProto *constant_node(struct writer *w, Onnx__TensorProto *tensor) {
    Onnx__NodeProto *n = take(w, sizeof(*n));
    Onnx__AttributeProto *value = take(w, sizeof(*value));
    onnx__node_proto__init(n);
    onnx__attribute_proto__init(value);
    value->name = copy(w, "value", 5);
    value->has_type = 1;
    value->type = IS_TENSOR;
    value->t = tensor;
    n->op_type = copy(w, "Constant", 8);
    n->n_output = 1;
    n->output = take(w, sizeof(*n->output));
    n->output[0] = copy(w, tensor->name, strlen(tensor->name));
    n->n_attribute = 1;
    n->attribute = take(w, sizeof(*n->attribute));
    n->attribute[0] = value;
    return n;
}

static void add_line(struct writer *w, char *line) {
    Onnx__GraphProto *g = &w->graph;
    char *first = word(&line);
    if (!first)
        return;
    assert_true(g->n_node < ITEMS_MAX && g->n_input < ITEMS_MAX && g->n_initializer < ITEMS_MAX);
    if (strcmp(first, "input") == 0) {
        char *name = word(&line), *type = word(&line);
        g->input[g->n_input++] = value_info(w, name, type, word(&line));
    } else if (strcmp(first, "output") == 0) {
        char *name = word(&line), *type = word(&line);
        g->output[g->n_output++] = value_info(w, name, type, word(&line));
    } else if (strcmp(first, "const") == 0 || strcmp(first, "node") == 0) {
        char *name = word(&line), *type = word(&line), *dims = word(&line);
        bool scalar = !dims || strcmp(dims, "=") == 0;
        char *equals = scalar ? dims : word(&line);
        Onnx__TensorProto *tensor =
            constant(w, name, type, scalar ? NULL : dims, equals ? word(&line) : NULL);
        if (*first == 'n')
            g->node[g->n_node++] = constant_node(w, tensor);
        else
            g->initializer[g->n_initializer++] = tensor;
    } else {
        g->node[g->n_node++] = node(w, first, line);
    }
}

void small_model_write(const char *path, int opset, const char *text) {
    struct writer *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    onnx__model_proto__init(&w->model);
    onnx__graph_proto__init(&w->graph);
    onnx__operator_set_id_proto__init(&w->opset);
    w->model.has_ir_version = 1;
    w->model.ir_version = opset >= 21 ? 10 : opset >= 19 ? 9 : 8; /* as ONNX released them */
    w->model.graph = &w->graph;
    w->model.opset_import = w->opsets;
    w->model.n_opset_import = 1;
    w->opsets[0] = &w->opset;
    w->opset.has_version = 1;
    w->opset.version = opset;
    w->graph.node = w->nodes;
    w->graph.initializer = w->constants;
    w->graph.input = w->inputs;
    w->graph.output = w->outputs;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "\n");
        add_line(w, copy(w, p, len));
        p += len + (p[len] == '\n');
    }
    size_t size = onnx__model_proto__get_packed_size(&w->model);
    uint8_t *bytes = take(w, size);
    onnx__model_proto__pack(&w->model, bytes);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    for (size_t i = 0; i < w->blocks_count; i++)
        free(w->blocks[i]);
    free(w);
}
