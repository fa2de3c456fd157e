#include "tests/lib/onnx_case.h"

#include "model/import.h"
#include "model/model.h"
#include "model/onnx_wire.h"
#include "onnx.pb-c.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TENSORS_MAX 64
#define PATH_SIZE   1024

/* Fields of ONNX's messages. */
enum { MODEL_GRAPH_FIELD = 7, GRAPH_INITIALIZER_FIELD = 5, GRAPH_OUTPUT_FIELD = 12 };
enum { TENSOR_NAME_FIELD = 8, INFO_NAME_FIELD = 1 };

struct bytes {
    uint8_t *data;
    size_t size;
};

static bool slurp(const char *path, struct bytes *ret) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    *ret = (struct bytes){0};
    FILE *memory = open_memstream((char **)&ret->data, &ret->size);
    char chunk[4096];
    for (size_t n; memory && (n = fread(chunk, 1, sizeof(chunk), file)) > 0;)
        fwrite(chunk, 1, n, memory);
    fclose(file);
    return memory && fclose(memory) == 0;
}

/* ---- protobuf, field by field ---- */

static void put_varint(FILE *to, uint64_t value) {
    for (; value >= 0x80; value >>= 7U)
        fputc((int)(value & 0x7fU) | 0x80, to);
    fputc((int)value, to);
}

static void put_field(FILE *to, unsigned number, const void *data, size_t size) {
    put_varint(to, number << 3U | WIRE_BYTES);
    put_varint(to, size);
    fwrite(data, 1, size, to);
}

/* An initializer: the bytes of a TensorProto, under another name. */
static void put_initializer(FILE *to, const struct bytes *tensor, const char *name) {
    struct bytes named = {0};
    FILE *memory = open_memstream((char **)&named.data, &named.size);
    struct wire wire = {.at = tensor->data, .end = tensor->data + tensor->size};
    struct wire_field field;
    const char *why;
    for (const uint8_t *at = wire.at; wire_next(&wire, &field, &why) == 1; at = wire.at)
        if (field.number != TENSOR_NAME_FIELD)
            fwrite(at, 1, (size_t)(wire.at - at), memory);
    put_field(memory, TENSOR_NAME_FIELD, name, strlen(name));
    fclose(memory);
    put_field(to, GRAPH_INITIALIZER_FIELD, named.data, named.size);
    free(named.data);
}

/* ---- tensors ---- */

struct file_tensor {
    struct graph *graph; /* owns the numbers */
    struct bytes model;
    const struct constant *constant;
};

static void file_tensor_fini(struct file_tensor *tensor) {
    graph_free(tensor->graph);
    free(tensor->model.data);
    *tensor = (struct file_tensor){0};
}

/* Reads a TensorProto as the initializer of a graph that has nothing else. */
static bool file_tensor_read(struct file_tensor *tensor, const struct bytes *proto,
                             struct err *err) {
    struct bytes graph = {0}, info = {0};
    FILE *memory = open_memstream((char **)&info.data, &info.size);
    put_field(memory, INFO_NAME_FIELD, "t", 1);
    fclose(memory);
    memory = open_memstream((char **)&graph.data, &graph.size);
    put_initializer(memory, proto, "t");
    put_field(memory, GRAPH_OUTPUT_FIELD, info.data, info.size);
    fclose(memory);
    memory = open_memstream((char **)&tensor->model.data, &tensor->model.size);
    put_field(memory, MODEL_GRAPH_FIELD, graph.data, graph.size);
    fclose(memory);
    free(graph.data);
    free(info.data);
    if (graph_import_memory(tensor->model.data, tensor->model.size, &tensor->graph, err) < 0)
        return false;
    tensor->constant = tensor->graph->values[0]->constant;
    return true;
}

static float half_to_float(uint16_t half) {
    int exponent = half >> 10U & 0x1f, mantissa = half & 0x3ff;
    float sign = half & 0x8000U ? -1.0f : 1.0f;
    if (exponent == 0x1f)
        return mantissa ? NAN : sign * INFINITY;
    return sign * (exponent == 0 ? ldexpf((float)mantissa, -24)
                                 : ldexpf((float)(mantissa | 0x400), exponent - 25));
}

static bool same_float(double a, double b) {
    return a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= 1e-7 + 1e-3 * fabs(b);
}

/* Where the numbers differ, or SIZE_MAX. */
static size_t first_difference(const struct tensor *got, const struct constant *wanted) {
    size_t count, size = dtype_size(got->desc.dtype);
    if (tensor_desc_count(&got->desc, &count) < 0)
        return 0;
    for (size_t i = 0; i < count; i++) {
        const char *a = (const char *)got->data + i * size;
        const char *b = (const char *)wanted->data + i * size; /* perhaps unaligned */
        float fa, fb;
        double da, db;
        uint16_t ha, hb;
        bool same;
        switch (got->desc.dtype) {
        case DTYPE_FLOAT:
            memcpy(&fa, a, sizeof(fa));
            memcpy(&fb, b, sizeof(fb));
            same = same_float((double)fa, (double)fb);
            break;
        case DTYPE_DOUBLE:
            memcpy(&da, a, sizeof(da));
            memcpy(&db, b, sizeof(db));
            same = same_float(da, db);
            break;
        case DTYPE_FLOAT16:
            memcpy(&ha, a, sizeof(ha));
            memcpy(&hb, b, sizeof(hb));
            same = same_float((double)half_to_float(ha), (double)half_to_float(hb));
            break;
        default:
            same = memcmp(a, b, size) == 0;
        }
        if (!same)
            return i;
    }
    return SIZE_MAX;
}

/* ---- a case ---- */

/* One data set while it runs. */
struct data_set {
    char folder[PATH_SIZE];
    struct bytes inputs[TENSORS_MAX]; /* TensorProtos, as the graph's inputs */
    char names[TENSORS_MAX][256];
    size_t count;
};

bool onnx_case_open(struct onnx_case *c, const char *folder) {
    char path[PATH_SIZE];
    struct bytes file = {0};
    memset(c, 0, sizeof(*c));
    c->folder = folder;
    snprintf(path, sizeof(path), "%s/model.onnx", folder);
    if (!slurp(path, &file)) {
        err_set(&c->err, -ENOENT, "there is no %s", path);
        return false;
    }
    Onnx__ModelProto *proto = onnx__model_proto__unpack(NULL, file.size, file.data);
    free(file.data);
    if (!proto || !proto->graph) {
        if (proto)
            onnx__model_proto__free_unpacked(proto, NULL);
        err_set(&c->err, -EBADMSG, "%s cannot be decoded", path);
        return false;
    }
    for (size_t i = 0; i < proto->graph->n_node; i++) {
        const char *op = proto->graph->node[i]->op_type;
        size_t k = 0;
        while (k < c->ops_count && strcmp(c->ops[k], op) != 0)
            k++;
        if (k == c->ops_count && k < ONNX_CASE_OPS_MAX)
            snprintf(c->ops[c->ops_count++], sizeof(c->ops[0]), "%s", op);
    }
    onnx__model_proto__free_unpacked(proto, NULL);
    return true;
}

static bool data_set_open(struct data_set *set, const struct onnx_case *c, size_t which) {
    memset(set, 0, sizeof(*set));
    snprintf(set->folder, sizeof(set->folder), "%s/test_data_set_%zu", c->folder, which);
    if (access(set->folder, X_OK) != 0)
        return false;
    for (; set->count < TENSORS_MAX; set->count++) {
        char path[PATH_SIZE + 32];
        snprintf(path, sizeof(path), "%s/input_%zu.pb", set->folder, set->count);
        if (!slurp(path, &set->inputs[set->count]))
            break;
    }
    return true;
}

static void data_set_fini(struct data_set *set) {
    for (size_t i = 0; i < set->count; i++)
        free(set->inputs[i].data);
}

/* Which inputs become constants. */
enum variant { NONE_KNOWN, INTEGERS_KNOWN, ALL_BUT_FIRST_KNOWN, ALL_KNOWN, VARIANTS };

static bool is_known(const struct data_set *set, enum variant variant, size_t i) {
    struct file_tensor tensor = {0};
    bool integers = false;
    switch (variant) {
    case INTEGERS_KNOWN:
        if (file_tensor_read(&tensor, &set->inputs[i], NULL))
            integers = tensor.constant->desc.dtype == DTYPE_INT64 ||
                       tensor.constant->desc.dtype == DTYPE_INT32;
        file_tensor_fini(&tensor);
        return integers;
    case ALL_BUT_FIRST_KNOWN:
        return i > 0;
    default:
        return variant == ALL_KNOWN;
    }
}

/* Copies the model, its graph with the known inputs as initializers. False: nothing would change.
 */
static bool write_variant(const struct onnx_case *c, const struct data_set *set,
                          enum variant variant, const char *to) {
    char path[PATH_SIZE];
    struct bytes model = {0}, graph = {0};
    struct wire_field field;
    const char *why;
    size_t known = 0;
    snprintf(path, sizeof(path), "%s/model.onnx", c->folder);
    if (!slurp(path, &model))
        return false;
    unlink(to); /* a new file: the old one may still be mapped */
    FILE *file = fopen(to, "wb");
    struct wire wire = {.at = model.data, .end = model.data + model.size};
    for (const uint8_t *at = wire.at; file && wire_next(&wire, &field, &why) == 1; at = wire.at) {
        if (field.number != MODEL_GRAPH_FIELD) {
            fwrite(at, 1, (size_t)(wire.at - at), file);
            continue;
        }
        FILE *memory = open_memstream((char **)&graph.data, &graph.size);
        fwrite(field.data, 1, field.size, memory);
        for (size_t i = 0; i < set->count; i++)
            if (is_known(set, variant, i)) {
                put_initializer(memory, &set->inputs[i], set->names[i]);
                known++;
            }
        fclose(memory);
        put_field(file, MODEL_GRAPH_FIELD, graph.data, graph.size);
        free(graph.data);
    }
    free(model.data);
    return file && fclose(file) == 0 && known > 0;
}

/* The names of the graph's inputs, by which constants are named. */
static void name_inputs(struct data_set *set, const char *path) {
    struct bytes model = {0};
    Onnx__ModelProto *proto = NULL;
    if (slurp(path, &model))
        proto = onnx__model_proto__unpack(NULL, model.size, model.data);
    free(model.data);
    for (size_t i = 0; proto && i < set->count && i < proto->graph->n_input; i++)
        snprintf(set->names[i], sizeof(set->names[0]), "%s", proto->graph->input[i]->name);
    if (proto)
        onnx__model_proto__free_unpacked(proto, NULL);
}

/* The set's input of that name in memory that a stage can read. */
static bool give_input(const struct data_set *set, const struct tensor_desc *desc,
                       struct tensor *ret, struct err *err) {
    struct file_tensor tensor = {0};
    size_t i = 0;
    while (i < set->count && strcmp(set->names[i], desc->name) != 0)
        i++;
    bool good = i < set->count && file_tensor_read(&tensor, &set->inputs[i], err);
    if (good && !tensor_desc_same(&tensor.constant->desc, desc)) {
        err_set(err, -EINVAL, "input '%s' has another shape", desc->name);
        good = false;
    }
    if (good) {
        *ret = (struct tensor){*desc, tensor_buffer_new(tensor.constant->bytes)};
        good = ret->data != NULL;
    }
    if (good && tensor.constant->bytes > 0)
        memcpy(ret->data, tensor.constant->data, tensor.constant->bytes);
    file_tensor_fini(&tensor);
    return good;
}

static bool check_output(const struct data_set *set, size_t i, const struct tensor *got,
                         struct err *err) {
    struct file_tensor wanted = {0};
    struct bytes proto = {0};
    char path[PATH_SIZE + 32], a[96], b[96];
    snprintf(path, sizeof(path), "%s/output_%zu.pb", set->folder, i);
    if (!slurp(path, &proto)) {
        err_set(err, -ENOENT, "there is no %s", path);
        return false;
    }
    bool good = file_tensor_read(&wanted, &proto, err);
    free(proto.data);
    if (good && !tensor_desc_same(&got->desc, &wanted.constant->desc)) {
        good = false;
        err_set(err, -EINVAL, "output %zu is %s instead of %s", i,
                tensor_desc_format(&got->desc, a, sizeof(a)),
                tensor_desc_format(&wanted.constant->desc, b, sizeof(b)));
    } else if (good) {
        size_t at = first_difference(got, wanted.constant);
        good = at == SIZE_MAX;
        if (!good)
            err_set(err, -EINVAL, "output %zu (%s) differs at element %zu", i,
                    tensor_desc_format(&got->desc, a, sizeof(a)), at);
    }
    file_tensor_fini(&wanted);
    return good;
}

static bool make_room(const struct stage *stage, struct tensor *out, size_t count) {
    size_t bytes, outs_count;
    const struct tensor_desc *outs = stage_outputs(stage, &outs_count);
    for (size_t i = 0; i < count; i++) {
        if (stage_output_source(stage, i) >= 0)
            continue;
        if (tensor_desc_bytes(&outs[i], &bytes) < 0 || !(out[i].data = tensor_buffer_new(bytes)))
            return false;
        memset(out[i].data, 0xff, bytes);
    }
    return true;
}

/* Runs the whole model on the set's inputs and compares. */
static bool run_model(const struct data_set *set, struct model *model, struct err *err) {
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct tensor in[TENSORS_MAX] = {{{0}, NULL}}, out[TENSORS_MAX] = {{{0}, NULL}};
    size_t in_count = 0, out_count = 0;
    bool good = stage_new(model, 0, model_layers_count(model), NULL, &stage, err) == 0 &&
                exec_new(stage, &exec, err) == 0;
    if (good) {
        const struct tensor_desc *ins = stage_inputs(stage, &in_count);
        stage_outputs(stage, &out_count);
        good = in_count <= TENSORS_MAX && out_count <= TENSORS_MAX;
        for (size_t i = 0; good && i < in_count; i++)
            good = give_input(set, &ins[i], &in[i], err);
        good = good && make_room(stage, out, out_count) && exec_run(exec, in, out, err) == 0;
        for (size_t i = 0; good && i < out_count; i++)
            good = check_output(set, i, &out[i], err);
        for (size_t i = 0; i < out_count && i < TENSORS_MAX; i++)
            if (stage_output_source(stage, i) < 0)
                tensor_buffer_free(out[i].data);
        for (size_t i = 0; i < in_count && i < TENSORS_MAX; i++)
            tensor_buffer_free(in[i].data);
    }
    exec_free(exec);
    stage_unref(stage);
    return good;
}

static enum onnx_outcome run_set(struct onnx_case *c, struct data_set *set, const char *scratch) {
    char path[PATH_SIZE];
    snprintf(path, sizeof(path), "%s/model.onnx", c->folder);
    name_inputs(set, path);
    for (int v = 0; v < VARIANTS; v++) {
        struct model *model = NULL;
        struct err err = {0};
        if (v != NONE_KNOWN && !write_variant(c, set, (enum variant)v, scratch))
            continue;
        if (model_open(v == NONE_KNOWN ? path : scratch, NULL, &model, &err) < 0) {
            if (v == NONE_KNOWN || !strstr(err.text, "must be known"))
                c->err = err;
            continue;
        }
        bool good = run_model(set, model, &c->err);
        model_unref(model);
        return good ? ONNX_PASSED : ONNX_WRONG;
    }
    return ONNX_REFUSED;
}

enum onnx_outcome onnx_case_run(struct onnx_case *c, const char *scratch) {
    enum onnx_outcome outcome = ONNX_REFUSED;
    static struct data_set set; /* large */
    err_set(&c->err, -ENOENT, "there is no test_data_set_0");
    for (size_t i = 0; data_set_open(&set, c, i); i++) {
        outcome = run_set(c, &set, scratch);
        data_set_fini(&set);
        if (outcome != ONNX_PASSED)
            break;
    }
    unlink(scratch);
    return outcome;
}
