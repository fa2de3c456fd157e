/* Writes part of a graph as an ONNX file. The structure is made of protobuf-c's messages and packed
 * piece by piece; the numbers go straight from where they lie into the file, one tensor at a time.
 * Everything is emitted twice by the same code: first only counted, because the length of the graph
 * stands in front of it, then written.
 */
#include "model/graph.h"
#include "onnx.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IR_VERSION     8 /* enough up to opset 18; any from 4 on lets initializers not be inputs */
#define FILE_MAX       INT32_MAX /* protobuf's own limit */
#define DATA_ALIGN     64
#define LENGTH_BYTES   5 /* of lengths that are known late: varints padded to a fixed size */
#define SCRATCH_TRIES  100
#define SCRATCH_SUFFIX ".tmp-4294967295"

/* Fields that are written by hand, and their wire type. */
#define TAG_BYTES(number) ((uint8_t)((number) << 3 | 2))
enum {
    MODEL_GRAPH = TAG_BYTES(7),
    GRAPH_NODE = TAG_BYTES(1),
    GRAPH_NAME = TAG_BYTES(2),
    GRAPH_INITIALIZER = TAG_BYTES(5),
    GRAPH_INPUT = TAG_BYTES(11),
    GRAPH_OUTPUT = TAG_BYTES(12),
    TENSOR_RAW_DATA = TAG_BYTES(9),
    TENSOR_DOC_STRING = TAG_BYTES(12)
};

struct export {
    const struct graph *graph;
    const struct graph_part *part;
    struct graph *scratch; /* memory of everything below */
    uint8_t *known;        /* by value id: its value is there when a node of the part reads it */
    Onnx__ModelProto head; /* without the graph */
    Onnx__NodeProto **nodes;
    struct initializer {
        const struct constant *constant;
        Onnx__TensorProto *tensor; /* without the numbers */
    } * initializers;
    size_t initializers_count;
    Onnx__ValueInfoProto **inputs, **outputs;
    struct err *err;
};

/* ---- structure ---- */

static int no_memory(const struct export *export) {
    return err_set(export->err, -ENOMEM, "out of memory");
}

/* protobuf-c's strings are not const, but packing only reads them. */
static char *borrow(const char *s) {
    return (char *)(uintptr_t)s;
}

static ProtobufCBinaryData borrow_bytes(const void *data, size_t size) {
    return (ProtobufCBinaryData){.len = size, .data = (uint8_t *)(uintptr_t)data};
}

static int make_tensor(struct export *export, const struct constant *constant,
                       Onnx__TensorProto **ret_tensor) {
    Onnx__TensorProto *tensor = graph_alloc(export->scratch, sizeof(*tensor));
    if (!tensor)
        return no_memory(export);
    onnx__tensor_proto__init(tensor);
    tensor->n_dims = (size_t)constant->desc.rank;
    tensor->dims = (int64_t *)(uintptr_t)constant->desc.dims;
    tensor->has_data_type = 1;
    tensor->data_type = (int32_t)constant->desc.dtype;
    *ret_tensor = tensor;
    return 0;
}

static int set_attr_strings(struct export *export, const struct attr *attr,
                            Onnx__AttributeProto *proto) {
    proto->strings = graph_alloc(export->scratch, attr->count * sizeof(*proto->strings));
    if (!proto->strings)
        return no_memory(export);
    for (size_t i = 0; i < attr->count; i++)
        proto->strings[i] = borrow_bytes(attr->strings[i], strlen(attr->strings[i]));
    proto->n_strings = attr->count;
    return 0;
}

static int set_attr(struct export *export, const struct attr *attr, Onnx__AttributeProto *proto) {
    static const int types[] = {
        [ATTR_FLOAT] = 1,  [ATTR_INT] = 2,  [ATTR_STRING] = 3,  [ATTR_TENSOR] = 4,
        [ATTR_FLOATS] = 6, [ATTR_INTS] = 7, [ATTR_STRINGS] = 8,
    };
    int rc;
    proto->name = borrow(attr->name);
    proto->has_type = 1;
    proto->type = types[attr->kind];
    switch (attr->kind) {
    case ATTR_INT:
        proto->has_i = 1;
        proto->i = attr->i;
        return 0;
    case ATTR_FLOAT:
        proto->has_f = 1;
        proto->f = attr->f;
        return 0;
    case ATTR_STRING:
        proto->has_s = 1;
        proto->s = borrow_bytes(attr->s, attr->count);
        return 0;
    case ATTR_INTS:
        proto->n_ints = attr->count;
        proto->ints = (int64_t *)(uintptr_t)attr->ints;
        return 0;
    case ATTR_FLOATS:
        proto->n_floats = attr->count;
        proto->floats = (float *)(uintptr_t)attr->floats;
        return 0;
    case ATTR_STRINGS:
        return set_attr_strings(export, attr, proto);
    case ATTR_TENSOR:
        if ((rc = make_tensor(export, attr->t, &proto->t)) == 0) {
            proto->t->has_raw_data = 1;
            proto->t->raw_data = borrow_bytes(attr->t->data, attr->t->bytes);
        }
        return rc;
    }
    return 0;
}

static int make_attrs(struct export *export, const struct node *node, Onnx__NodeProto *proto) {
    proto->attribute = graph_alloc(export->scratch, node->attrs_count * sizeof(*proto->attribute));
    if (!proto->attribute)
        return no_memory(export);
    for (size_t i = 0; i < node->attrs_count; i++) {
        Onnx__AttributeProto *attr = graph_alloc(export->scratch, sizeof(*attr));
        if (!attr)
            return no_memory(export);
        onnx__attribute_proto__init(attr);
        proto->attribute[proto->n_attribute++] = attr;
        int rc = set_attr(export, &node->attrs[i], attr);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The names of values; "" where one is absent. */
static int make_names(struct export *export, struct value *const *values, size_t count,
                      char ***ret_names) {
    char **names = graph_alloc(export->scratch, count * sizeof(*names));
    if (!names)
        return no_memory(export);
    for (size_t i = 0; i < count; i++)
        names[i] = borrow(values[i] ? values[i]->name : "");
    *ret_names = names;
    return 0;
}

static int make_node(struct export *export, const struct node *node, Onnx__NodeProto **ret_node) {
    Onnx__NodeProto *proto = graph_alloc(export->scratch, sizeof(*proto));
    int rc;
    if (!proto)
        return no_memory(export);
    onnx__node_proto__init(proto);
    proto->name = borrow(node->name);
    proto->op_type = borrow(node->op_type);
    if (node->domain[0] != '\0')
        proto->domain = borrow(node->domain);
    proto->n_input = node->inputs_count;
    proto->n_output = node->outputs_count;
    if ((rc = make_names(export, node->inputs, node->inputs_count, &proto->input)) < 0 ||
        (rc = make_names(export, node->outputs, node->outputs_count, &proto->output)) < 0)
        return rc;
    *ret_node = proto;
    return make_attrs(export, node, proto);
}

/* A constant becomes an initializer, once. */
static int add_initializer(struct export *export, const struct value *value) {
    const struct constant *constant = value->constant;
    struct initializer *initializer = &export->initializers[export->initializers_count];
    if (constant->bytes > 0 && !constant->data)
        return err_set(export->err, -EINVAL, "the constant \"%s\" has not been computed",
                       value->name);
    int rc = make_tensor(export, constant, &initializer->tensor);
    if (rc < 0)
        return rc;
    initializer->tensor->name = borrow(value->name);
    initializer->constant = constant;
    export->known[value->id] = 1;
    export->initializers_count++;
    return 0;
}

static int add_nodes(struct export *export) {
    const struct graph_part *part = export->part;
    for (size_t i = 0; i < part->nodes_count; i++) {
        const struct node *node = part->nodes[i];
        int rc;
        for (size_t j = 0; j < node->inputs_count; j++) {
            const struct value *value = node->inputs[j];
            if (!value || export->known[value->id])
                continue;
            if (!value->constant)
                return err_set(export->err, -EINVAL,
                               "node \"%s\" reads \"%s\", which is not part of what is written",
                               node->name, value->name);
            if ((rc = add_initializer(export, value)) < 0)
                return rc;
        }
        for (size_t j = 0; j < node->outputs_count; j++)
            if (node->outputs[j])
                export->known[node->outputs[j]->id] = 1;
        if ((rc = make_node(export, node, &export->nodes[i])) < 0)
            return rc;
    }
    return 0;
}

static int make_value_info(struct export *export, const struct tensor_desc *desc,
                           Onnx__ValueInfoProto **ret_info) {
    struct memory {
        Onnx__ValueInfoProto info;
        Onnx__TypeProto type;
        Onnx__TypeProto__Tensor tensor;
        Onnx__TensorShapeProto shape;
        Onnx__TensorShapeProto__Dimension dims[TENSOR_MAX_RANK];
        Onnx__TensorShapeProto__Dimension *dims_list[TENSOR_MAX_RANK];
        char bounds[TENSOR_MAX_RANK][24];
    } *memory = graph_alloc(export->scratch, sizeof(*memory));
    if (!memory)
        return no_memory(export);
    onnx__value_info_proto__init(&memory->info);
    onnx__type_proto__init(&memory->type);
    onnx__type_proto__tensor__init(&memory->tensor);
    onnx__tensor_shape_proto__init(&memory->shape);
    memory->info.name = borrow(desc->name);
    memory->info.type = &memory->type;
    memory->type.tensor_type = &memory->tensor;
    memory->tensor.has_elem_type = 1;
    memory->tensor.elem_type = (int32_t)desc->dtype;
    if (desc->rank >= 0)
        memory->tensor.shape = &memory->shape;
    for (int i = 0; i < desc->rank; i++) {
        onnx__tensor_shape_proto__dimension__init(&memory->dims[i]);
        if (desc->bounded >> i & 1U) { /* infer.c knows this form */
            snprintf(memory->bounds[i], sizeof(memory->bounds[i]), "<=%lld",
                     (long long)desc->dims[i]);
            memory->dims[i].dim_param = memory->bounds[i];
        } else {
            memory->dims[i].has_dim_value = desc->dims[i] >= 0;
            memory->dims[i].dim_value = desc->dims[i];
        }
        memory->dims_list[i] = &memory->dims[i];
        memory->shape.n_dim++;
    }
    memory->shape.dim = memory->dims_list;
    *ret_info = &memory->info;
    return 0;
}

static const struct value *find_value(const struct graph *graph, const char *name) {
    for (size_t i = 0; i < graph->values_count; i++)
        if (strcmp(graph->values[i]->name, name) == 0)
            return graph->values[i];
    return NULL;
}

static int add_inputs(struct export *export) {
    for (size_t i = 0; i < export->part->inputs_count; i++) {
        const struct tensor_desc *desc = &export->part->inputs[i];
        const struct value *value = find_value(export->graph, desc->name);
        if (!value)
            return err_set(export->err, -EINVAL, "there is no value \"%s\"", desc->name);
        export->known[value->id] = 1;
        int rc = make_value_info(export, desc, &export->inputs[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int add_outputs(struct export *export) {
    for (size_t i = 0; i < export->part->outputs_count; i++) {
        const struct tensor_desc *desc = &export->part->outputs[i];
        const struct value *value = find_value(export->graph, desc->name);
        int rc;
        if (!value || (!export->known[value->id] && !value->constant))
            return err_set(export->err, -EINVAL, "nothing that is written computes \"%s\"",
                           desc->name);
        if (!export->known[value->id] && (rc = add_initializer(export, value)) < 0)
            return rc;
        if ((rc = make_value_info(export, desc, &export->outputs[i])) < 0)
            return rc;
    }
    return 0;
}

static Onnx__OperatorSetIdProto *find_opset(const struct export *export, const char *domain) {
    for (size_t i = 0; i < export->head.n_opset_import; i++)
        if (strcmp(export->head.opset_import[i]->domain, domain) == 0)
            return export->head.opset_import[i];
    return NULL;
}

/* The head: versions, and of each domain the newest version that a node has. */
static int make_head(struct export *export) {
    Onnx__ModelProto *head = &export->head;
    onnx__model_proto__init(head);
    head->has_ir_version = 1;
    head->ir_version = IR_VERSION;
    head->producer_name = borrow("convoy");
    head->producer_version = borrow(CONVOY_VERSION);
    head->opset_import =
        graph_alloc(export->scratch, export->part->nodes_count * sizeof(*head->opset_import));
    if (!head->opset_import)
        return no_memory(export);
    for (size_t i = 0; i < export->part->nodes_count; i++) {
        const struct node *node = export->part->nodes[i];
        Onnx__OperatorSetIdProto *opset = find_opset(export, node->domain);
        if (!opset) {
            if (!(opset = graph_alloc(export->scratch, sizeof(*opset))))
                return no_memory(export);
            onnx__operator_set_id_proto__init(opset);
            opset->domain = borrow(node->domain);
            opset->has_version = 1;
            head->opset_import[head->n_opset_import++] = opset;
        }
        if (opset->version < node->opset)
            opset->version = node->opset;
    }
    return 0;
}

/* ---- bytes ---- */

/* Where bytes go: to a file, or nowhere, when they are only counted. */
struct sink {
    ProtobufCBuffer base; /* first: protobuf-c hands it back to sink_append() */
    FILE *file;
    uint64_t at;
};

static void put(struct sink *sink, const void *data, size_t size) {
    if (sink->file && size > 0)
        fwrite(data, 1, size, sink->file); /* errors are seen by ferror() at the end */
    sink->at += size;
}

static void sink_append(ProtobufCBuffer *base, size_t size, const uint8_t *data) {
    put((struct sink *)(void *)base, data, size);
}

static void put_tag(struct sink *sink, int tag) {
    put(sink, &(uint8_t){(uint8_t)tag}, 1);
}

/* A varint of at least min bytes. */
static void put_varint(struct sink *sink, uint64_t value, unsigned min) {
    uint8_t bytes[10];
    unsigned count = 0;
    do {
        bytes[count++] = (uint8_t)(value | 0x80);
        value >>= 7;
    } while (value > 0 || count < min);
    bytes[count - 1] &= 0x7f;
    put(sink, bytes, count);
}

static void put_message(struct sink *sink, int tag, const ProtobufCMessage *message) {
    put_tag(sink, tag);
    put_varint(sink, protobuf_c_message_get_packed_size(message), 1);
    protobuf_c_message_pack_to_buffer(message, &sink->base);
}

/* The varint of size, as long as put_varint(.., 1) writes it. */
static unsigned varint_bytes(uint64_t value) {
    unsigned count = 1;
    for (; value >= 0x80; value >>= 7)
        count++;
    return count;
}

/* An initializer. A documentation string of spaces in front of the numbers moves them to a multiple
 * of DATA_ALIGN in the file, so that whoever maps the file can use them in place. */
static void put_initializer(const struct graph *graph, struct sink *sink,
                            const struct initializer *initializer) {
    const struct constant *constant = initializer->constant;
    const ProtobufCMessage *tensor = &initializer->tensor->base;
    size_t head = protobuf_c_message_get_packed_size(tensor);
    unsigned length_bytes = varint_bytes(constant->bytes);
    uint64_t data_at = sink->at + 1 + LENGTH_BYTES + head + 1 + length_bytes;
    size_t padding = (size_t)(-data_at & (DATA_ALIGN - 1));
    if (padding == 1)
        padding += DATA_ALIGN; /* tag and length take two */
    put_tag(sink, GRAPH_INITIALIZER);
    put_varint(sink, head + padding + 1 + length_bytes + constant->bytes, LENGTH_BYTES);
    protobuf_c_message_pack_to_buffer(tensor, &sink->base);
    if (padding > 0) {
        char spaces[DATA_ALIGN];
        memset(spaces, ' ', sizeof(spaces));
        put_tag(sink, TENSOR_DOC_STRING);
        put_varint(sink, padding - 2, 1);
        put(sink, spaces, padding - 2);
    }
    put_tag(sink, TENSOR_RAW_DATA);
    put_varint(sink, constant->bytes, 1);
    put(sink, constant->data, constant->bytes);
    if (sink->file)
        graph_drop_pages(graph, constant);
}

/* Emits the file. graph_bytes is the graph's length; returns what it turned out to be. */
static uint64_t put_model(const struct export *export, struct sink *sink, uint64_t graph_bytes) {
    static const char name[] = "convoy";
    const struct graph_part *part = export->part;
    protobuf_c_message_pack_to_buffer(&export->head.base, &sink->base);
    put_tag(sink, MODEL_GRAPH);
    put_varint(sink, graph_bytes, LENGTH_BYTES);
    uint64_t begin = sink->at;
    for (size_t i = 0; i < part->nodes_count; i++)
        put_message(sink, GRAPH_NODE, &export->nodes[i]->base);
    put_tag(sink, GRAPH_NAME);
    put_varint(sink, sizeof(name) - 1, 1);
    put(sink, name, sizeof(name) - 1);
    for (size_t i = 0; i < part->inputs_count; i++)
        put_message(sink, GRAPH_INPUT, &export->inputs[i]->base);
    for (size_t i = 0; i < part->outputs_count; i++)
        put_message(sink, GRAPH_OUTPUT, &export->outputs[i]->base);
    for (size_t i = 0; i < export->initializers_count; i++)
        put_initializer(export->graph, sink, &export->initializers[i]);
    return sink->at - begin;
}

/* ---- the file ---- */

/* Makes a file beside path for writing. Its descriptor and name, or -errno. */
static int open_scratch(const char *path, char *name, size_t size) {
    for (unsigned i = 0; i < SCRATCH_TRIES; i++) {
        snprintf(name, size, "%s.tmp-%u", path, (unsigned)getpid() * SCRATCH_TRIES + i);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd >= 0 ? fd : -errno;
    }
    return -EEXIST;
}

/* Makes the renaming last. Not every file system can: then nothing is lost but that. */
static void sync_folder(const char *path) {
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(copy);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

/* Writes, syncs and closes an open file. */
static int fill_file(const struct export *export, int fd, uint64_t graph_bytes) {
    struct sink sink = {.base = {.append = sink_append}, .file = fdopen(fd, "w")};
    if (!sink.file) {
        close(fd);
        return -ENOMEM;
    }
    errno = 0;
    put_model(export, &sink, graph_bytes);
    bool written = fflush(sink.file) == 0 && !ferror(sink.file) && fsync(fd) == 0;
    int code = written ? 0 : errno ? -errno : -EIO;
    if (fclose(sink.file) != 0 && code == 0)
        code = errno ? -errno : -EIO;
    return code;
}

static int write_file(const struct export *export, const char *path, uint64_t graph_bytes) {
    size_t room = strlen(path) + sizeof(SCRATCH_SUFFIX);
    char *name = malloc(room);
    if (!name)
        return no_memory(export);
    int fd = open_scratch(path, name, room), rc = fd;
    if (fd >= 0) {
        rc = fill_file(export, fd, graph_bytes);
        if (rc == 0 && rename(name, path) != 0)
            rc = -errno;
        if (rc < 0)
            unlink(name);
    }
    free(name);
    if (rc < 0)
        return err_set(export->err, rc, "cannot write %s: %s", path, strerror(-rc));
    sync_folder(path);
    return 0;
}

static int make_all(struct export *export) {
    const struct graph_part *part = export->part;
    struct graph *scratch = export->scratch;
    size_t values = export->graph->values_count;
    int rc;
    if (!(export->known = graph_alloc(scratch, values)) ||
        !(export->initializers = graph_alloc(scratch, values * sizeof(*export->initializers))) ||
        !(export->nodes = graph_alloc(scratch, part->nodes_count * sizeof(*export->nodes))) ||
        !(export->inputs = graph_alloc(scratch, part->inputs_count * sizeof(*export->inputs))) ||
        !(export->outputs = graph_alloc(scratch, part->outputs_count * sizeof(*export->outputs))))
        return no_memory(export);
    if ((rc = make_head(export)) < 0 || (rc = add_inputs(export)) < 0 ||
        (rc = add_nodes(export)) < 0)
        return rc;
    return add_outputs(export);
}

int graph_export(const struct graph *graph, const struct graph_part *part, const char *path,
                 struct err *err) {
    struct export export = {.graph = graph, .part = part, .scratch = graph_new(), .err = err};
    struct sink count = {.base = {.append = sink_append}};
    if (!export.scratch)
        return no_memory(&export);
    int rc = make_all(&export);
    uint64_t graph_bytes = rc == 0 ? put_model(&export, &count, 0) : 0;
    if (rc == 0 && count.at > FILE_MAX)
        rc = err_set(err, -EFBIG, "%s would be larger than 2 GiB, more than an ONNX file can be",
                     path);
    if (rc == 0)
        rc = write_file(&export, path, graph_bytes);
    graph_free(export.scratch);
    return rc;
}
