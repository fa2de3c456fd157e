/* Files that are no models, or that we do not support: each gets a sentence that names the place.
 */
#include "model/import.h"
#include "tests/models/onnx_bytes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

static const int64_t one_by_two[] = {1, 2};

typedef void (*writer)(struct onnx_bytes *file);

static void begin_small(struct onnx_bytes *file) {
    begin_model(file);
    put_value_info(file, GRAPH_INPUT, "x", 2, one_by_two);
    put_value_info(file, GRAPH_OUTPUT, "y", 2, one_by_two);
    put_node(file, "relu", "Relu", "x", "y");
}

/* ---- files ---- */

static void text(struct onnx_bytes *file) {
    static const char page[] = "<!DOCTYPE html><title>404</title>";
    memcpy(file->data, page, sizeof(page) - 1);
    file->size = sizeof(page) - 1;
}

static void no_graph(struct onnx_bytes *file) {
    put_int(file, MODEL_IR_VERSION, 8);
}

static void group_wire_type(struct onnx_bytes *file) {
    put_varint(file, 7 << 3 | 3);
}

static void field_zero(struct onnx_bytes *file) {
    put_varint(file, 0);
    put_varint(file, 1);
}

static void long_varint(struct onnx_bytes *file) {
    put_varint(file, MODEL_IR_VERSION << 3);
    memset(file->data + file->size, 0xff, 11);
    file->size += 11;
}

static void length_past_the_end(struct onnx_bytes *file) {
    put_varint(file, MODEL_GRAPH << 3 | 2);
    put_varint(file, 100);
}

static void huge_length(struct onnx_bytes *file) {
    put_varint(file, MODEL_GRAPH << 3 | 2);
    put_varint(file, UINT64_MAX);
}

static void two_graphs(struct onnx_bytes *file) {
    begin_small(file);
    end_model(file);
    begin_message(file, MODEL_GRAPH);
    end_message(file);
}

static void graph_is_a_number(struct onnx_bytes *file) {
    put_int(file, MODEL_GRAPH, 5);
}

static void functions(struct onnx_bytes *file) {
    begin_small(file);
    end_model(file);
    put_text(file, MODEL_FUNCTIONS, "anything");
}

static void too_many_fields(struct onnx_bytes *file) {
    /* Two bytes each, of which a decoder makes a hundred. The budget has a base of 4 MiB. */
    begin_model(file);
    begin_message(file, GRAPH_NODE);
    while (file->size < ONNX_BYTES_MAX - 100)
        put_bytes(file, NODE_ATTRIBUTE, "", 0);
    end_message(file);
    end_model(file);
}

/* ---- names and structure ---- */

static void name_with_nul(struct onnx_bytes *file) {
    begin_small(file);
    begin_message(file, GRAPH_NODE);
    put_bytes(file, NODE_NAME, "a\0b", 3);
    end_message(file);
    end_model(file);
}

static void name_not_utf8(struct onnx_bytes *file) {
    begin_small(file);
    begin_message(file, GRAPH_NODE);
    put_text(file, NODE_OUTPUT, "a\xc0\x80"); /* an overlong NUL */
    end_message(file);
    end_model(file);
}

static void name_with_surrogate(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "\xed\xa0\x80", "Relu", "x", "z");
    end_model(file);
}

static void name_cut_in_a_letter(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "a\xe2\x82", "Relu", "x", "z");
    end_model(file);
}

static void name_too_long(struct onnx_bytes *file) {
    char name[GRAPH_NAME_MAX + 2];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    begin_small(file);
    put_node(file, name, "Relu", "x", "z");
    end_model(file);
}

static void name_twice_in_a_node(struct onnx_bytes *file) {
    begin_small(file);
    begin_node(file, "a", "Relu", "x", "z");
    put_text(file, NODE_NAME, "b");
    end_message(file);
    end_model(file);
}

static void output_twice(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "again", "Relu", "x", "y");
    end_model(file);
}

static void output_named_as_input(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "again", "Relu", "y", "x");
    end_model(file);
}

static void initializer_twice(struct onnx_bytes *file) {
    begin_small(file);
    put_initializer(file, "w", "1", 1);
    put_initializer(file, "w", "1", 1);
    end_model(file);
}

static void initializer_of_another_type(struct onnx_bytes *file) {
    begin_small(file);
    put_value_info(file, GRAPH_INPUT, "w", 1, one_by_two);
    begin_tensor(file, GRAPH_INITIALIZER, "w", 4, "1");
    put_bytes(file, TENSOR_RAW_DATA, "12", 2);
    end_message(file);
    end_model(file);
}

static void initializer_computed(struct onnx_bytes *file) {
    begin_small(file);
    put_initializer(file, "y", "1", 1);
    end_model(file);
}

static void initializer_without_name(struct onnx_bytes *file) {
    begin_small(file);
    put_initializer(file, "", "1", 1);
    end_model(file);
}

static void input_twice(struct onnx_bytes *file) {
    begin_small(file);
    put_value_info(file, GRAPH_INPUT, "x", 2, one_by_two);
    end_model(file);
}

static void input_without_name(struct onnx_bytes *file) {
    begin_small(file);
    put_value_info(file, GRAPH_INPUT, "", 2, one_by_two);
    end_model(file);
}

static void input_without_type(struct onnx_bytes *file) {
    begin_small(file);
    begin_message(file, GRAPH_INPUT);
    put_text(file, 1, "z");
    end_message(file);
    end_model(file);
}

static void input_is_a_sequence(struct onnx_bytes *file) {
    begin_small(file);
    begin_message(file, GRAPH_INPUT);
    put_text(file, 1, "z");
    begin_message(file, 2);
    put_text(file, 4, "anything");
    end_message(file);
    end_message(file);
    end_model(file);
}

static void input_of_strings(struct onnx_bytes *file) {
    begin_small(file);
    begin_message(file, GRAPH_INPUT);
    put_text(file, 1, "z");
    put_bytes(file, 2, "\x0a\x02\x08\x08", 4);
    end_message(file);
    end_model(file);
}

static void input_of_rank_nine(struct onnx_bytes *file) {
    begin_small(file);
    put_value_info(file, GRAPH_INPUT, "z", 9, (int64_t[9]){1, 1, 1, 1, 1, 1, 1, 1, 1});
    end_model(file);
}

static void no_outputs(struct onnx_bytes *file) {
    begin_model(file);
    put_value_info(file, GRAPH_INPUT, "x", 2, one_by_two);
    put_node(file, "relu", "Relu", "x", "y");
    end_model(file);
}

static void unknown_output(struct onnx_bytes *file) {
    begin_small(file);
    put_value_info(file, GRAPH_OUTPUT, "z", 2, one_by_two);
    end_model(file);
}

static void output_listed_twice(struct onnx_bytes *file) {
    begin_small(file);
    put_value_info(file, GRAPH_OUTPUT, "y", 2, one_by_two);
    end_model(file);
}

static void sparse_initializer(struct onnx_bytes *file) {
    begin_small(file);
    put_text(file, GRAPH_SPARSE_INITIALIZER, "anything");
    end_model(file);
}

/* ---- nodes ---- */

static void unknown_input(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "conv1", "Conv", "x nowhere", "z");
    end_model(file);
}

static void no_operator(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "mute", "", "x", "z");
    end_model(file);
}

static void node_without_output(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "sink", "Relu", "x", "-");
    end_model(file);
}

static void cycle_of_one(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "loop", "Add", "x z", "z");
    end_model(file);
}

static void cycle_of_three(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "loop1", "Add", "x c", "a");
    put_node(file, "loop2", "Relu", "a", "b");
    put_node(file, "loop3", "Relu", "b", "c");
    end_model(file);
}

static void begin_attr(struct onnx_bytes *file, const char *name, int type) {
    begin_node(file, "n", "Op", "x", "z");
    begin_message(file, NODE_ATTRIBUTE);
    put_text(file, ATTR_NAME_FIELD, name);
    put_int(file, ATTR_TYPE_FIELD, (uint64_t)type);
}

static void end_attr(struct onnx_bytes *file) {
    end_message(file);
    end_message(file);
}

static void subgraph(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "then_branch", 5);
    put_text(file, ATTR_G_FIELD, "anything");
    end_attr(file);
    end_model(file);
}

static void attr_of_unknown_type(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "odd", 99);
    end_attr(file);
    end_model(file);
}

static void attr_of_negative_type(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "odd", -1);
    end_attr(file);
    end_model(file);
}

static void attr_without_anything(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "void", 0);
    end_attr(file);
    end_model(file);
}

static void attr_twice(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "axis", 2);
    end_message(file);
    begin_message(file, NODE_ATTRIBUTE);
    put_text(file, ATTR_NAME_FIELD, "axis");
    put_int(file, ATTR_TYPE_FIELD, 2);
    end_attr(file);
    end_model(file);
}

static void attr_without_name(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "", 2);
    end_attr(file);
    end_model(file);
}

static void attr_of_a_function(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "axis", 2);
    put_text(file, ATTR_REF_FIELD, "outer");
    end_attr(file);
    end_model(file);
}

static void attr_tensor_absent(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "value", 4);
    end_attr(file);
    end_model(file);
}

static void attr_tensor_bad(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "value", 4);
    begin_tensor(file, ATTR_T_FIELD, "", 1, "7");
    end_message(file);
    end_attr(file);
    end_model(file);
}

static void attr_ints_cut(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "pads", 7);
    put_bytes(file, ATTR_INTS_FIELD, "\x01\x80", 2); /* the second varint never ends */
    end_attr(file);
    end_model(file);
}

static void attr_floats_cut(struct onnx_bytes *file) {
    begin_small(file);
    begin_attr(file, "scales", 6);
    put_bytes(file, ATTR_FLOATS_FIELD, "\x01\x02\x03", 3);
    end_attr(file);
    end_model(file);
}

static void many_attrs(struct onnx_bytes *file) {
    char name[16];
    begin_small(file);
    begin_node(file, "n", "Op", "x", "z");
    for (int i = 0; i < 101; i++) {
        snprintf(name, sizeof(name), "a%d", i);
        begin_message(file, NODE_ATTRIBUTE);
        put_text(file, ATTR_NAME_FIELD, name);
        put_int(file, ATTR_I_FIELD, 1);
        end_message(file);
    }
    end_message(file);
    end_model(file);
}

static void constant_of(struct onnx_bytes *file, const char *attr, int type) {
    begin_small(file);
    begin_node(file, "c", "Constant", "", "z");
    begin_message(file, NODE_ATTRIBUTE);
    put_text(file, ATTR_NAME_FIELD, attr);
    put_int(file, ATTR_TYPE_FIELD, (uint64_t)type);
    put_text(file, 22, "anything"); /* sparse_tensor */
    end_attr(file);
    end_model(file);
}

static void constant_of_string(struct onnx_bytes *file) {
    constant_of(file, "value_string", 3);
}

static void constant_sparse(struct onnx_bytes *file) {
    constant_of(file, "sparse_value", 11);
}

static void constant_of_wrong_kind(struct onnx_bytes *file) {
    constant_of(file, "value_float", 2);
}

static void constant_of_nothing(struct onnx_bytes *file) {
    begin_small(file);
    put_node(file, "c", "Constant", "", "z");
    end_model(file);
}

/* ---- tensors ---- */

static void tensor(struct onnx_bytes *file, int type, const char *dims, unsigned field,
                   const void *data, size_t size) {
    begin_small(file);
    begin_tensor(file, GRAPH_INITIALIZER, "w", type, dims);
    put_bytes(file, field, data, size);
    end_message(file);
    end_model(file);
}

static void data_too_short(struct onnx_bytes *file) {
    tensor(file, 1, "2", TENSOR_RAW_DATA, "1234567", 7);
}

static void data_too_long(struct onnx_bytes *file) {
    tensor(file, 1, "2", TENSOR_RAW_DATA, "123456789", 9);
}

static void data_for_a_scalar(struct onnx_bytes *file) {
    tensor(file, 1, "", TENSOR_RAW_DATA, "", 0);
}

static void floats_too_few(struct onnx_bytes *file) {
    tensor(file, 1, "2", TENSOR_FLOAT_DATA, "1234", 4);
}

static void floats_broken(struct onnx_bytes *file) {
    begin_small(file);
    begin_tensor(file, GRAPH_INITIALIZER, "w", 1, "2");
    put_bytes(file, TENSOR_FLOAT_DATA, "1234", 4);
    put_bytes(file, TENSOR_FLOAT_DATA, "123", 3);
    end_message(file);
    end_model(file);
}

static void ints_too_few(struct onnx_bytes *file) {
    tensor(file, 7, "3", TENSOR_INT64_DATA, "\x01\x80\x01", 3);
}

static void ints_too_many(struct onnx_bytes *file) {
    tensor(file, 7, "2", TENSOR_INT64_DATA, "\x01\x02\x03", 3);
}

static void ints_cut(struct onnx_bytes *file) {
    tensor(file, 7, "2", TENSOR_INT64_DATA, "\x01\x80", 2);
}

static void int_out_of_range(struct onnx_bytes *file) {
    tensor(file, 2, "1", TENSOR_INT32_DATA, "\x80\x02", 2); /* 256 is no uint8 */
}

static void data_of_another_type(struct onnx_bytes *file) {
    tensor(file, 7, "1", TENSOR_FLOAT_DATA, "1234", 4);
}

static void data_twice(struct onnx_bytes *file) {
    begin_small(file);
    begin_tensor(file, GRAPH_INITIALIZER, "w", 1, "1");
    put_bytes(file, TENSOR_RAW_DATA, "1234", 4);
    put_bytes(file, TENSOR_RAW_DATA, "1234", 4);
    end_message(file);
    end_model(file);
}

static void data_raw_and_typed(struct onnx_bytes *file) {
    begin_small(file);
    begin_tensor(file, GRAPH_INITIALIZER, "w", 1, "1");
    put_bytes(file, TENSOR_FLOAT_DATA, "1234", 4);
    put_bytes(file, TENSOR_RAW_DATA, "1234", 4);
    end_message(file);
    end_model(file);
}

static void data_absent(struct onnx_bytes *file) {
    begin_small(file);
    begin_tensor(file, GRAPH_INITIALIZER, "w", 1, "1000000000 1000");
    end_message(file);
    end_model(file);
}

static void dims_overflow(struct onnx_bytes *file) {
    tensor(file, 1, "4294967296 4294967296 4", TENSOR_RAW_DATA, "", 0);
}

static void dims_overflow_in_bytes(struct onnx_bytes *file) {
    tensor(file, 1, "4611686018427387904", TENSOR_RAW_DATA, "", 0);
}

static void dims_negative(struct onnx_bytes *file) {
    tensor(file, 1, "-1", TENSOR_RAW_DATA, "", 0);
}

static void dims_too_many(struct onnx_bytes *file) {
    tensor(file, 1, "1 1 1 1 1 1 1 1 1", TENSOR_RAW_DATA, "1234", 4);
}

static void type_of_strings(struct onnx_bytes *file) {
    tensor(file, 8, "1", TENSOR_STRING_DATA, "a", 1);
}

static void type_bfloat16(struct onnx_bytes *file) {
    tensor(file, 16, "1", TENSOR_RAW_DATA, "12", 2);
}

static void type_unknown(struct onnx_bytes *file) {
    tensor(file, 12345, "1", TENSOR_RAW_DATA, "12", 2);
}

static void type_absent(struct onnx_bytes *file) {
    begin_small(file);
    begin_message(file, GRAPH_INITIALIZER);
    put_text(file, TENSOR_NAME, "w");
    put_bytes(file, TENSOR_RAW_DATA, "1234", 4);
    end_message(file);
    end_model(file);
}

static void segment(struct onnx_bytes *file) {
    begin_small(file);
    begin_tensor(file, GRAPH_INITIALIZER, "w", 1, "1");
    put_text(file, TENSOR_SEGMENT, "");
    put_bytes(file, TENSOR_RAW_DATA, "1234", 4);
    end_message(file);
    end_model(file);
}

static void external_in_memory(struct onnx_bytes *file) {
    begin_small(file);
    begin_tensor(file, GRAPH_INITIALIZER, "w", 1, "1");
    put_int(file, TENSOR_DATA_LOCATION, 1);
    begin_message(file, TENSOR_EXTERNAL_DATA);
    put_text(file, 1, "location");
    put_text(file, 2, "weights.bin");
    end_message(file);
    end_message(file);
    end_model(file);
}

static const struct {
    writer write;
    int code;
    const char *says; /* part of the sentence */
} cases[] = {
    {text, -EBADMSG, "not a valid ONNX file"},
    {no_graph, -EBADMSG, "no graph"},
    {group_wire_type, -EBADMSG, "unknown wire type (at byte 0)"},
    {field_zero, -EBADMSG, "ONNX file: a field's number"},
    {long_varint, -EBADMSG, "a number is cut off"},
    {length_past_the_end, -EBADMSG, "runs past the end (at byte 0)"},
    {huge_length, -EBADMSG, "runs past the end"},
    {two_graphs, -EBADMSG, "graph: the field occurs twice"},
    {graph_is_a_number, -EBADMSG, "graph: the field has another type"},
    {functions, -ENOTSUP, "functions"},
    {too_many_fields, -EBADMSG, "too many fields"},
    {name_with_nul, -EBADMSG, "graph.node[1].name: the text is not UTF-8"},
    {name_not_utf8, -EBADMSG, "graph.node[1].output[0]: the text is not UTF-8"},
    {name_with_surrogate, -EBADMSG, "not UTF-8"},
    {name_cut_in_a_letter, -EBADMSG, "not UTF-8"},
    {name_too_long, -EBADMSG, "graph.node[1].name: the text is too long"},
    {name_twice_in_a_node, -EBADMSG, "graph.node[1].name: the field occurs twice"},
    {output_twice, -EBADMSG, "value \"y\" is defined twice"},
    {output_named_as_input, -EBADMSG, "value \"x\" is defined twice"},
    {initializer_twice, -EBADMSG, "value \"w\" is defined twice"},
    {initializer_of_another_type, -EBADMSG,
     "input \"w\" is declared as float, but its initializer is uint16"},
    {initializer_computed, -EBADMSG, "value \"y\" is defined twice"},
    {initializer_without_name, -EBADMSG, "initializer 0 has no name"},
    {input_twice, -EBADMSG, "value \"x\" is defined twice"},
    {input_without_name, -EBADMSG, "input 1 of the graph has no name"},
    {input_without_type, -EBADMSG, "input \"z\""},
    {input_is_a_sequence, -ENOTSUP, "input \"z\" is not declared as a tensor"},
    {input_of_strings, -ENOTSUP, "input \"z\" has the element type string"},
    {input_of_rank_nine, -ENOTSUP, "input \"z\" has 9 dimensions"},
    {no_outputs, -EBADMSG, "no outputs"},
    {unknown_output, -EBADMSG, "output \"z\" of the graph is computed nowhere"},
    {output_listed_twice, -EBADMSG, "output \"y\" of the graph is listed twice"},
    {sparse_initializer, -ENOTSUP, "sparse initializers"},
    {unknown_input, -EBADMSG, "node \"conv1\" (Conv): it reads \"nowhere\""},
    {no_operator, -EBADMSG, "\"mute\""},
    {node_without_output, -EBADMSG, "\"sink\""},
    {cycle_of_one, -EBADMSG, "node \"loop\" (Add) needs its own result"},
    {cycle_of_three, -EBADMSG, "node \"loop1\" (Add) needs its own result"},
    {subgraph, -ENOTSUP,
     "node \"n\" (Op): attribute \"then_branch\": control flow (If, Loop, Scan) is not"},
    {attr_of_unknown_type, -ENOTSUP, "kind unknown (99)"},
    {attr_of_negative_type, -ENOTSUP, "kind unknown (-1)"},
    {attr_without_anything, -ENOTSUP, "attribute \"void\": it is of kind unknown (0)"},
    {attr_twice, -EBADMSG, "attribute \"axis\" is there twice"},
    {attr_without_name, -EBADMSG, "has no name"},
    {attr_of_a_function, -ENOTSUP, "attribute of a function"},
    {attr_tensor_absent, -EBADMSG, "attribute \"value\": it has no tensor"},
    {attr_tensor_bad, -EBADMSG, "node \"n\" (Op): attribute \"value\": it has at most 0 elements"},
    {attr_ints_cut, -EBADMSG, "not a valid ONNX file"},
    {attr_floats_cut, -EBADMSG, "not a valid ONNX file"},
    {many_attrs, -EBADMSG, "more than 100 attributes"},
    {constant_of_string, -ENOTSUP, "a constant given by \"value_string\""},
    {constant_sparse, -ENOTSUP, "sparse tensor"},
    {constant_of_wrong_kind, -ENOTSUP, "a constant given by \"value_float\""},
    {constant_of_nothing, -EBADMSG, "node \"c\" (Constant): a Constant has one attribute"},
    {data_too_short, -EBADMSG,
     "initializer \"w\": it has 7 bytes of data where its dims ask for 8"},
    {data_too_long, -EBADMSG, "9 bytes of data where its dims ask for 8"},
    {data_for_a_scalar, -EBADMSG, "0 bytes of data where its dims ask for 4"},
    {floats_too_few, -EBADMSG, "4 bytes of data where its dims ask for 8"},
    {floats_broken, -EBADMSG, "more elements than its dims say, or one that is not float32"},
    {ints_too_few, -EBADMSG, "1 of its 3 elements are missing"},
    {ints_too_many, -EBADMSG, "more elements than its dims say"},
    {ints_cut, -EBADMSG, "one that is not int64"},
    {int_out_of_range, -EBADMSG, "one that is not uint8"},
    {data_of_another_type, -EBADMSG, "in a field for another element type"},
    {data_twice, -EBADMSG, "it has data twice"},
    {data_raw_and_typed, -EBADMSG, "it has data twice"},
    {data_absent, -EBADMSG, "at most 0 elements where its dims ask for 1000000000000"},
    {dims_overflow, -EBADMSG, "too large"},
    {dims_overflow_in_bytes, -EBADMSG, "too large"},
    {dims_negative, -EBADMSG, "negative"},
    {dims_too_many, -ENOTSUP, "its rank is 9"},
    {type_of_strings, -ENOTSUP, "its element type is string (8)"},
    {type_bfloat16, -ENOTSUP, "its element type is bfloat16 (16)"},
    {type_unknown, -ENOTSUP, "its element type is unknown (12345)"},
    {type_absent, -ENOTSUP, "its element type is undefined (0)"},
    {segment, -ENOTSUP, "segment"},
    {external_in_memory, -EBADMSG, "not inside the model's folder"},
};

static void every_bad_file_is_refused_with_a_sentence(void **state) {
    (void)state;
    struct onnx_bytes *file = malloc(sizeof(*file));
    struct graph *const untouched = (struct graph *)(void *)file;
    assert_non_null(file);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct graph *graph = untouched;
        struct err err = {""};
        memset(file, 0, sizeof(*file));
        cases[i].write(file);

        int rc = graph_import_memory(file->data, file->size, &graph, &err);

        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.text, cases[i].says);
        assert_int_equal(rc, cases[i].code);
        assert_ptr_equal(graph, untouched);
        assert_int_equal(graph_import_memory(file->data, file->size, &graph, NULL), rc);
    }
    free(file);
}

/* A model with every kind of field in it. */
static void put_rich_model(struct onnx_bytes *file) {
    begin_small(file);
    put_initializer(file, "w", "2 3", 6);
    begin_tensor(file, GRAPH_INITIALIZER, "i", 7, "3");
    put_bytes(file, TENSOR_INT64_DATA, "\x01\x02\x03", 3);
    end_message(file);
    begin_node(file, "conv", "Conv", "x w - i", "z");
    begin_message(file, NODE_ATTRIBUTE);
    put_text(file, ATTR_NAME_FIELD, "pads");
    put_int(file, ATTR_TYPE_FIELD, 7);
    put_bytes(file, ATTR_INTS_FIELD, "\x01\x02\x03\x04", 4);
    end_attr(file);
    begin_node(file, "c", "Constant", "", "c");
    begin_message(file, NODE_ATTRIBUTE);
    put_text(file, ATTR_NAME_FIELD, "value");
    put_int(file, ATTR_TYPE_FIELD, 4);
    begin_tensor(file, ATTR_T_FIELD, "", 1, "1");
    put_float(file, TENSOR_FLOAT_DATA, 1);
    end_message(file);
    end_attr(file);
    put_node(file, "add", "Add", "z c", "sum");
    put_value_info(file, GRAPH_OUTPUT, "sum", 1, (int64_t[]){3});
    end_model(file);
}

/* Imports a copy that ends where its memory ends, so that a sanitizer sees reads past it. */
static int import_copy(const uint8_t *data, size_t size, struct err *err) {
    struct graph *graph = NULL;
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    int rc = graph_import_memory(copy, size, &graph, err);
    graph_free(graph);
    free(copy);
    return rc;
}

static void a_file_cut_at_any_byte_is_refused(void **state) {
    (void)state;
    struct onnx_bytes *file = calloc(1, sizeof(*file));
    assert_non_null(file);
    put_rich_model(file);
    assert_int_equal(import_copy(file->data, file->size, NULL), 0);

    for (size_t size = 0; size < file->size; size++) {
        struct err err = {""};
        int rc = import_copy(file->data, size, &err);
        assert_int_equal(rc, -EBADMSG);
        assert_true(strncmp(err.text, "not a valid ONNX file: ", 23) == 0);
    }
    free(file);
}

static void a_file_with_any_byte_changed_is_read_or_refused(void **state) {
    (void)state;
    static const uint8_t changes[] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff, 0x7f};
    struct onnx_bytes *file = calloc(1, sizeof(*file));
    size_t refused = 0;
    assert_non_null(file);
    put_rich_model(file);

    for (size_t at = 0; at < file->size; at++)
        for (size_t i = 0; i < LENGTH(changes); i++) {
            struct err err = {""};
            file->data[at] ^= changes[i];
            int rc = import_copy(file->data, file->size, &err);
            file->data[at] ^= changes[i];
            assert_true(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP);
            assert_int_equal(rc == 0, err.text[0] == '\0');
            refused += rc != 0;
        }
    assert_true(refused > file->size); /* or else the changes changed nothing */
    free(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bad_file_is_refused_with_a_sentence),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_file_with_any_byte_changed_is_read_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
