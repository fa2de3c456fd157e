#include "tests/models/onnx_bytes.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void put_raw(struct onnx_bytes *file, const void *data, size_t size) {
    assert(size <= sizeof(file->data) - file->size);
    if (size > 0)
        memcpy(file->data + file->size, data, size);
    file->size += size;
}

void put_varint(struct onnx_bytes *file, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        put_raw(file, &(uint8_t){(uint8_t)(value | 0x80)}, 1);
    put_raw(file, &(uint8_t){(uint8_t)value}, 1);
}

void put_int(struct onnx_bytes *file, unsigned field, uint64_t value) {
    put_varint(file, field << 3);
    put_varint(file, value);
}

void put_bytes(struct onnx_bytes *file, unsigned field, const void *data, size_t size) {
    put_varint(file, field << 3 | 2);
    put_varint(file, size);
    put_raw(file, data, size);
}

void put_text(struct onnx_bytes *file, unsigned field, const char *text) {
    put_bytes(file, field, text, strlen(text));
}

void put_float(struct onnx_bytes *file, unsigned field, float value) {
    put_varint(file, field << 3 | 5);
    put_raw(file, &value, sizeof(value));
}

void begin_message(struct onnx_bytes *file, unsigned field) {
    assert(file->depth < ONNX_BYTES_DEPTH);
    put_varint(file, field << 3 | 2);
    file->open[file->depth++] = file->size;
}

void end_message(struct onnx_bytes *file) {
    assert(file->depth > 0);
    size_t begin = file->open[--file->depth], size = file->size - begin;
    struct onnx_bytes *copy = malloc(sizeof(*copy));
    assert(copy);
    memcpy(copy->data, file->data + begin, size);
    file->size = begin;
    put_varint(file, size);
    put_raw(file, copy->data, size);
    free(copy);
}

void begin_model(struct onnx_bytes *file) {
    put_int(file, MODEL_IR_VERSION, 8);
    begin_message(file, MODEL_OPSET);
    put_text(file, 1, "");
    put_int(file, 2, 13);
    end_message(file);
    begin_message(file, MODEL_GRAPH);
}

void end_model(struct onnx_bytes *file) {
    end_message(file);
    assert(file->depth == 0);
}

void put_value_info(struct onnx_bytes *file, unsigned field, const char *name, int rank,
                    const int64_t *dims) {
    begin_message(file, field);
    put_text(file, 1, name);
    begin_message(file, 2); /* type */
    begin_message(file, 1); /* tensor_type */
    put_int(file, 1, 1);
    begin_message(file, 2); /* shape */
    for (int i = 0; i < rank; i++) {
        begin_message(file, 1); /* dim */
        if (dims[i] >= 0)
            put_int(file, 1, (uint64_t)dims[i]);
        end_message(file);
    }
    for (int i = 0; i < 4; i++)
        end_message(file);
}

/* Each word of a list as a field; "-" is an empty one. */
static void put_words(struct onnx_bytes *file, unsigned field, const char *words) {
    while (*words != '\0') {
        size_t len = strcspn(words, " ");
        bool absent = len == 1 && words[0] == '-';
        put_bytes(file, field, words, absent ? 0 : len);
        words += len + (words[len] == ' ');
    }
}

void begin_node(struct onnx_bytes *file, const char *name, const char *op, const char *inputs,
                const char *outputs) {
    begin_message(file, GRAPH_NODE);
    put_words(file, NODE_INPUT, inputs);
    put_words(file, NODE_OUTPUT, outputs);
    put_text(file, NODE_NAME, name);
    put_text(file, NODE_OP_TYPE, op);
}

void put_node(struct onnx_bytes *file, const char *name, const char *op, const char *inputs,
              const char *outputs) {
    begin_node(file, name, op, inputs, outputs);
    end_message(file);
}

void begin_tensor(struct onnx_bytes *file, unsigned field, const char *name, int data_type,
                  const char *dims) {
    begin_message(file, field);
    for (char *end; *dims != '\0'; dims = end + (*end == ' '))
        put_int(file, TENSOR_DIMS, (uint64_t)strtoll(dims, &end, 10));
    put_int(file, TENSOR_DATA_TYPE, (uint64_t)data_type);
    put_text(file, TENSOR_NAME, name);
}

void put_initializer(struct onnx_bytes *file, const char *name, const char *dims, size_t count) {
    begin_tensor(file, GRAPH_INITIALIZER, name, 1, dims);
    put_varint(file, TENSOR_RAW_DATA << 3 | 2);
    put_varint(file, count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        put_raw(file, &(float){(float)i}, sizeof(float));
    end_message(file);
}
