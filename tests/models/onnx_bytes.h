/* ONNX files for tests, written field by field, so that they can be wrong in every way. */
#ifndef CONVOY_TESTS_MODELS_ONNX_BYTES_H
#define CONVOY_TESTS_MODELS_ONNX_BYTES_H

#include <stddef.h>
#include <stdint.h>

#define ONNX_BYTES_MAX   65536
#define ONNX_BYTES_DEPTH 8

/* Zero-initialised it is an empty file. Asserts that everything fits. */
struct onnx_bytes {
    uint8_t data[ONNX_BYTES_MAX];
    size_t size;
    size_t open[ONNX_BYTES_DEPTH]; /* where the contents of open messages begin */
    size_t depth;
};

/* Numbers of the fields that tests write. */
enum {
    MODEL_IR_VERSION = 1,
    MODEL_GRAPH = 7,
    MODEL_OPSET = 8,
    MODEL_FUNCTIONS = 25,
    GRAPH_NODE = 1,
    GRAPH_NAME = 2,
    GRAPH_INITIALIZER = 5,
    GRAPH_INPUT = 11,
    GRAPH_OUTPUT = 12,
    GRAPH_SPARSE_INITIALIZER = 15,
    NODE_INPUT = 1,
    NODE_OUTPUT = 2,
    NODE_NAME = 3,
    NODE_OP_TYPE = 4,
    NODE_ATTRIBUTE = 5,
    NODE_DOMAIN = 7,
    ATTR_NAME_FIELD = 1,
    ATTR_F_FIELD = 2,
    ATTR_I_FIELD = 3,
    ATTR_S_FIELD = 4,
    ATTR_T_FIELD = 5,
    ATTR_G_FIELD = 6,
    ATTR_FLOATS_FIELD = 7,
    ATTR_INTS_FIELD = 8,
    ATTR_STRINGS_FIELD = 9,
    ATTR_TYPE_FIELD = 20,
    ATTR_REF_FIELD = 21,
    TENSOR_DIMS = 1,
    TENSOR_DATA_TYPE = 2,
    TENSOR_SEGMENT = 3,
    TENSOR_FLOAT_DATA = 4,
    TENSOR_INT32_DATA = 5,
    TENSOR_STRING_DATA = 6,
    TENSOR_INT64_DATA = 7,
    TENSOR_NAME = 8,
    TENSOR_RAW_DATA = 9,
    TENSOR_DOUBLE_DATA = 10,
    TENSOR_EXTERNAL_DATA = 13,
    TENSOR_DATA_LOCATION = 14,
};

void put_varint(struct onnx_bytes *file, uint64_t value); /* bare */
void put_int(struct onnx_bytes *file, unsigned field, uint64_t value);
void put_bytes(struct onnx_bytes *file, unsigned field, const void *data, size_t size);
void put_text(struct onnx_bytes *file, unsigned field, const char *text);
void put_float(struct onnx_bytes *file, unsigned field, float value); /* not packed */

/* A message between the two; its length is written when it ends. */
void begin_message(struct onnx_bytes *file, unsigned field);
void end_message(struct onnx_bytes *file);

/* ir_version, opset 13, and the beginning of the graph; end_model() ends the graph. */
void begin_model(struct onnx_bytes *file);
void end_model(struct onnx_bytes *file);

/* A graph input or output of element type float and that shape; a dimension -1 is left unknown. */
void put_value_info(struct onnx_bytes *file, unsigned field, const char *name, int rank,
                    const int64_t *dims);

/* The beginning of a node with a name, operator, inputs and outputs, given as "a b c"; "-" is an
 * absent one. end_message() ends it. */
void begin_node(struct onnx_bytes *file, const char *name, const char *op, const char *inputs,
                const char *outputs);
void put_node(struct onnx_bytes *file, const char *name, const char *op, const char *inputs,
              const char *outputs);

/* The beginning of a tensor with dims as text ("2 3"), element type and name. */
void begin_tensor(struct onnx_bytes *file, unsigned field, const char *name, int data_type,
                  const char *dims);

/* A float initializer whose elements are 0, 1, 2, ... */
void put_initializer(struct onnx_bytes *file, const char *name, const char *dims, size_t count);

#endif
