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

/* Everything a test has: a file, and the graph that it becomes. */
struct fixture {
    struct onnx_bytes file;
    struct graph *graph;
};

static int set_up(void **state) {
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    graph_free(f->graph);
    free(f);
    return 0;
}

static struct graph *import(struct fixture *f) {
    struct err err = {""};
    int rc = graph_import_memory(f->file.data, f->file.size, &f->graph, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return f->graph;
}

static struct value *find(const struct graph *graph, const char *name) {
    for (size_t i = 0; i < graph->values_count; i++)
        if (strcmp(graph->values[i]->name, name) == 0)
            return graph->values[i];
    fail_msg("no value %s", name);
    return NULL;
}

/* x -> Relu -> y around whatever a test adds. */
static void begin_small(struct onnx_bytes *file) {
    begin_model(file);
    put_value_info(file, GRAPH_INPUT, "x", 2, one_by_two);
    put_value_info(file, GRAPH_OUTPUT, "y", 2, one_by_two);
    put_node(file, "relu", "Relu", "x", "y");
}

static void a_small_graph_comes_out_as_written(void **state) {
    struct fixture *f = *state;
    begin_model(&f->file);
    put_value_info(&f->file, GRAPH_INPUT, "x", 2, (int64_t[]){-1, 2});
    put_value_info(&f->file, GRAPH_OUTPUT, "y", 2, one_by_two);
    put_initializer(&f->file, "w", "2", 2);
    begin_node(&f->file, "sum", "Add", "x w", "y");
    put_text(&f->file, NODE_DOMAIN, "ai.onnx");
    end_message(&f->file);
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_int_equal(graph->nodes_count, 1);
    assert_int_equal(graph->inputs_count, 1);
    assert_int_equal(graph->outputs_count, 1);
    struct value *x = graph->inputs[0], *y = graph->outputs[0], *w = find(graph, "w");
    struct node *node = graph->nodes[0];
    assert_string_equal(x->name, "x");
    assert_true(x->is_input);
    assert_true(y->is_output);
    assert_int_equal(x->desc.dtype, DTYPE_FLOAT);
    assert_int_equal(x->desc.rank, 2);
    assert_int_equal(x->desc.dims[0], -1);
    assert_int_equal(x->desc.dims[1], 2);
    assert_string_equal(node->name, "sum");
    assert_string_equal(node->op_type, "Add");
    assert_string_equal(node->domain, "");
    assert_int_equal(node->opset, 13);
    assert_int_equal(node->inputs_count, 2);
    assert_ptr_equal(node->inputs[0], x);
    assert_ptr_equal(node->inputs[1], w);
    assert_ptr_equal(y->producer, node);
    assert_int_equal(w->consumers_count, 1);
    assert_memory_equal(w->constant->data, ((float[]){0, 1}), 8);
    assert_string_equal(w->constant->desc.name, "w");
}

static void raw_data_is_used_where_it_lies(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_initializer(&f->file, "w", "3 2", 6);
    end_model(&f->file);

    const struct constant *w = find(import(f), "w")->constant;

    assert_true((const uint8_t *)w->data > f->file.data);
    assert_true((const uint8_t *)w->data + w->bytes <= f->file.data + f->file.size);
    assert_true(w->in_file);
    assert_int_equal(w->bytes, 24);
    assert_int_equal(w->desc.rank, 2);
    assert_int_equal(w->desc.dims[0], 3);
}

static void packed_floats_and_doubles_are_used_where_they_lie(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    begin_tensor(&f->file, GRAPH_INITIALIZER, "f", 1, "2");
    put_bytes(&f->file, TENSOR_FLOAT_DATA, (float[]){1, 2}, 8);
    end_message(&f->file);
    begin_tensor(&f->file, GRAPH_INITIALIZER, "d", 11, "2");
    put_bytes(&f->file, TENSOR_DOUBLE_DATA, (double[]){3, 4}, 16);
    end_message(&f->file);
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_true(find(graph, "f")->constant->in_file);
    assert_memory_equal(find(graph, "f")->constant->data, ((float[]){1, 2}), 8);
    assert_true(find(graph, "d")->constant->in_file);
    assert_memory_equal(find(graph, "d")->constant->data, ((double[]){3, 4}), 16);
}

static void lists_in_several_pieces_are_joined(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    begin_tensor(&f->file, GRAPH_INITIALIZER, "f", 1, "4");
    put_float(&f->file, TENSOR_FLOAT_DATA, 1);
    put_bytes(&f->file, TENSOR_FLOAT_DATA, (float[]){2, 3}, 8);
    put_float(&f->file, TENSOR_FLOAT_DATA, 4);
    end_message(&f->file);
    begin_tensor(&f->file, GRAPH_INITIALIZER, "i", 7, "3");
    put_int(&f->file, TENSOR_INT64_DATA, UINT64_MAX);
    put_bytes(&f->file, TENSOR_INT64_DATA, "\x05\x80\x01", 3);
    end_message(&f->file);
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_memory_equal(find(graph, "f")->constant->data, ((float[]){1, 2, 3, 4}), 16);
    assert_false(find(graph, "f")->constant->in_file);
    assert_memory_equal(find(graph, "i")->constant->data, ((int64_t[]){-1, 5, 128}), 24);
}

static void narrow_types_are_decoded_from_int32_data(void **state) {
    static const struct {
        enum dtype dtype;
        int64_t values[2];
        uint8_t bytes[8];
    } cases[] = {
        {DTYPE_INT32, {-2, 70000}, {0xfe, 0xff, 0xff, 0xff, 0x70, 0x11, 0x01, 0x00}},
        {DTYPE_INT8, {-128, 127}, {0x80, 0x7f}},
        {DTYPE_UINT8, {0, 255}, {0x00, 0xff}},
        {DTYPE_BOOL, {1, 0}, {1, 0}},
        {DTYPE_FLOAT16, {0x3c00, 0xc000}, {0x00, 0x3c, 0x00, 0xc0}}, /* 1.0, -2.0 */
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct fixture *f = *state;
        *f = (struct fixture){0};
        begin_small(&f->file);
        begin_tensor(&f->file, GRAPH_INITIALIZER, "w", (int)cases[i].dtype, "2");
        for (int j = 0; j < 2; j++)
            put_int(&f->file, TENSOR_INT32_DATA, (uint64_t)cases[i].values[j]);
        end_message(&f->file);
        end_model(&f->file);

        const struct constant *w = find(import(f), "w")->constant;

        assert_int_equal(w->desc.dtype, cases[i].dtype);
        assert_int_equal(w->bytes, 2 * dtype_size(cases[i].dtype));
        assert_memory_equal(w->data, cases[i].bytes, w->bytes);
        graph_free(f->graph);
        f->graph = NULL;
    }
}

static void scalars_and_empty_tensors_are_constants(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_initializer(&f->file, "scalar", "", 1);
    begin_tensor(&f->file, GRAPH_INITIALIZER, "nothing", 7, "0");
    end_message(&f->file);
    put_initializer(&f->file, "flat", "3 0 2", 0);
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_int_equal(find(graph, "scalar")->constant->desc.rank, 0);
    assert_int_equal(find(graph, "scalar")->constant->bytes, 4);
    assert_int_equal(find(graph, "nothing")->constant->bytes, 0);
    assert_non_null(find(graph, "nothing")->constant->data);
    assert_int_equal(find(graph, "flat")->constant->bytes, 0);
    assert_int_equal(find(graph, "flat")->constant->desc.dims[2], 2);
}

static void an_initializer_listed_as_input_is_no_input(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_value_info(&f->file, GRAPH_INPUT, "w", 1, (int64_t[]){2});
    put_initializer(&f->file, "w", "2", 2);
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_int_equal(graph->inputs_count, 1);
    assert_string_equal(graph->inputs[0]->name, "x");
    assert_false(find(graph, "w")->is_input);
    assert_non_null(find(graph, "w")->constant);
}

static void identity_on_an_initializer_is_an_ordinary_node(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_initializer(&f->file, "bias", "2", 2);
    put_node(&f->file, "", "Identity", "bias", "bias2");
    put_node(&f->file, "", "Add", "x bias2", "z");
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_int_equal(graph->nodes_count, 3);
    assert_string_equal(graph->nodes[1]->op_type, "Identity");
    assert_null(find(graph, "bias2")->constant);
}

static void one_initializer_may_serve_several_nodes(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_initializer(&f->file, "w", "2", 2);
    put_node(&f->file, "a", "Add", "x w", "a_out");
    put_node(&f->file, "b", "Mul", "w w", "b_out");
    end_model(&f->file);

    const struct value *w = find(import(f), "w");

    assert_int_equal(w->consumers_count, 3);
    assert_string_equal(w->consumers[0]->name, "a");
    assert_string_equal(w->consumers[2]->name, "b");
}

static void an_initializer_may_be_an_output_of_the_graph(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_initializer(&f->file, "w", "2", 2);
    put_value_info(&f->file, GRAPH_OUTPUT, "w", 1, (int64_t[]){2});
    put_value_info(&f->file, GRAPH_OUTPUT, "x", 1, (int64_t[]){2});
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_int_equal(graph->outputs_count, 3);
    assert_non_null(graph->outputs[1]->constant);
    assert_true(graph->outputs[2]->is_input);
}

static void empty_names_are_absent_values(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_node(&f->file, "clip", "Clip", "x - y", "- z");
    end_model(&f->file);

    const struct node *clip = import(f)->nodes[1];

    assert_int_equal(clip->inputs_count, 3);
    assert_null(clip->inputs[1]);
    assert_string_equal(clip->inputs[2]->name, "y");
    assert_null(clip->outputs[0]);
    assert_string_equal(clip->outputs[1]->name, "z");
}

static void a_node_without_a_name_has_its_output_s(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_node(&f->file, "", "Relu", "x", "z");
    put_node(&f->file, "relu", "Relu", "x", "again"); /* the name is taken */
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_string_equal(graph->nodes[0]->name, "relu");
    assert_string_equal(graph->nodes[1]->name, "z");
    assert_string_equal(graph->nodes[2]->name, "again");
}

static void nodes_in_the_wrong_order_are_sorted(void **state) {
    struct fixture *f = *state;
    begin_model(&f->file);
    put_value_info(&f->file, GRAPH_INPUT, "x", 2, one_by_two);
    put_value_info(&f->file, GRAPH_OUTPUT, "d", 2, one_by_two);
    put_node(&f->file, "4", "Add", "b c", "d");
    put_node(&f->file, "3", "Relu", "b", "c");
    put_node(&f->file, "2", "Relu", "a", "b");
    put_node(&f->file, "1", "Relu", "x", "a");
    end_model(&f->file);

    struct graph *graph = import(f);

    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(graph->nodes[i]->name[0], '1' + (int)i);
        assert_int_equal(graph->nodes[i]->index, i);
        assert_null(graph->nodes[i]->note);
    }
}

static void an_order_that_can_be_executed_is_kept(void **state) {
    struct fixture *f = *state;
    begin_model(&f->file);
    put_value_info(&f->file, GRAPH_INPUT, "x", 2, one_by_two);
    put_value_info(&f->file, GRAPH_OUTPUT, "e", 2, one_by_two);
    put_node(&f->file, "1", "Relu", "x", "a");
    put_node(&f->file, "2", "Relu", "x", "b");
    put_node(&f->file, "3", "Relu", "a", "c");
    put_node(&f->file, "4", "Relu", "b", "d");
    put_node(&f->file, "5", "Add", "d c", "e");
    end_model(&f->file);

    struct graph *graph = import(f);

    for (size_t i = 0; i < 5; i++)
        assert_int_equal(graph->nodes[i]->name[0], '1' + (int)i);
}

static void attributes_of_every_kind_are_read(void **state) {
    struct fixture *f = *state;
    begin_model(&f->file);
    put_value_info(&f->file, GRAPH_INPUT, "x", 2, one_by_two);
    put_value_info(&f->file, GRAPH_OUTPUT, "y", 2, one_by_two);
    begin_node(&f->file, "n", "Anything", "x", "y");
    static const char *const names[] = {"f", "i", "s", "t", "floats", "ints", "strings", "zero"};
    static const int types[] = {1, 2, 3, 4, 6, 7, 8, 1};
    for (size_t i = 0; i < LENGTH(names); i++) {
        begin_message(&f->file, NODE_ATTRIBUTE);
        put_text(&f->file, ATTR_NAME_FIELD, names[i]);
        put_int(&f->file, ATTR_TYPE_FIELD, (uint64_t)types[i]);
        switch (i) {
        case 0:
            put_float(&f->file, ATTR_F_FIELD, 0.25F);
            break;
        case 1:
            put_int(&f->file, ATTR_I_FIELD, (uint64_t)-3);
            break;
        case 2:
            put_text(&f->file, ATTR_S_FIELD, "SAME_UPPER");
            break;
        case 3:
            begin_tensor(&f->file, ATTR_T_FIELD, "", 7, "1");
            put_bytes(&f->file, TENSOR_RAW_DATA, (int64_t[]){9}, 8);
            end_message(&f->file);
            break;
        case 4:
            put_bytes(&f->file, ATTR_FLOATS_FIELD, (float[]){1, 2}, 8); /* packed */
            break;
        case 5:
            put_int(&f->file, ATTR_INTS_FIELD, 3);
            put_bytes(&f->file, ATTR_INTS_FIELD, "\x04\x05", 2);
            break;
        case 6:
            put_text(&f->file, ATTR_STRINGS_FIELD, "a");
            put_text(&f->file, ATTR_STRINGS_FIELD, "");
            break;
        default: /* proto3 leaves out what is zero */
            break;
        }
        end_message(&f->file);
    }
    end_message(&f->file);
    end_model(&f->file);

    const struct node *node = import(f)->nodes[0];
    size_t count;

    assert_int_equal(node->attrs_count, 8);
    assert_true(node_float(node, "f", 0) == 0.25F);
    assert_int_equal(node_int(node, "i", 0), -3);
    assert_string_equal(node_string(node, "s", NULL), "SAME_UPPER");
    assert_int_equal(node_attr(node, "s")->count, 10);
    assert_memory_equal(node_attr(node, "t")->t->data, ((int64_t[]){9}), 8);
    assert_true(node_floats(node, "floats", &count)[1] == 2);
    assert_int_equal(count, 2);
    assert_memory_equal(node_ints(node, "ints", &count), ((int64_t[]){3, 4, 5}), 24);
    assert_int_equal(count, 3);
    assert_int_equal(node_attr(node, "strings")->count, 2);
    assert_string_equal(node_attr(node, "strings")->strings[0], "a");
    assert_string_equal(node_attr(node, "strings")->strings[1], "");
    assert_true(node_float(node, "zero", 1) == 0);
}

static void attributes_without_a_type_are_known_by_their_field(void **state) {
    struct fixture *f = *state;
    begin_model(&f->file);
    put_value_info(&f->file, GRAPH_INPUT, "x", 2, one_by_two);
    put_value_info(&f->file, GRAPH_OUTPUT, "y", 2, one_by_two);
    begin_node(&f->file, "n", "Conv", "x", "y");
    begin_message(&f->file, NODE_ATTRIBUTE);
    put_text(&f->file, ATTR_NAME_FIELD, "pads");
    put_int(&f->file, ATTR_INTS_FIELD, 3);
    end_message(&f->file);
    begin_message(&f->file, NODE_ATTRIBUTE);
    put_text(&f->file, ATTR_NAME_FIELD, "group");
    put_int(&f->file, ATTR_I_FIELD, 2);
    end_message(&f->file);
    end_message(&f->file);
    end_model(&f->file);

    const struct node *node = import(f)->nodes[0];

    assert_int_equal(node_attr(node, "pads")->kind, ATTR_INTS);
    assert_int_equal(node_int(node, "group", 1), 2);
}

/* A Constant node whose attribute is what put writes. */
static void put_constant(struct onnx_bytes *file, const char *output, const char *attr, int type) {
    begin_node(file, "", "Constant", "", output);
    begin_message(file, NODE_ATTRIBUTE);
    put_text(file, ATTR_NAME_FIELD, attr);
    put_int(file, ATTR_TYPE_FIELD, (uint64_t)type);
    if (strcmp(attr, "value") == 0) {
        begin_tensor(file, ATTR_T_FIELD, "", 1, "2");
        put_bytes(file, TENSOR_RAW_DATA, (float[]){5, 6}, 8);
        end_message(file);
    }
    put_float(file, ATTR_F_FIELD, 7);
    put_int(file, ATTR_I_FIELD, 8);
    put_float(file, ATTR_FLOATS_FIELD, 9);
    put_int(file, ATTR_INTS_FIELD, 10);
    put_int(file, ATTR_INTS_FIELD, 11);
    end_message(file);
    end_message(file);
}

static void constant_nodes_become_constants(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    put_constant(&f->file, "tensor", "value", 4);
    put_constant(&f->file, "float", "value_float", 1);
    put_constant(&f->file, "floats", "value_floats", 6);
    put_constant(&f->file, "int", "value_int", 2);
    put_constant(&f->file, "ints", "value_ints", 7);
    end_model(&f->file);
    static const struct {
        const char *name;
        enum dtype dtype;
        int rank;
        size_t bytes;
    } expected[] = {{"tensor", DTYPE_FLOAT, 1, 8},
                    {"float", DTYPE_FLOAT, 0, 4},
                    {"floats", DTYPE_FLOAT, 1, 4},
                    {"int", DTYPE_INT64, 0, 8},
                    {"ints", DTYPE_INT64, 1, 16}};
    static const float floats[] = {5, 6, 7, 9};
    static const int64_t ints[] = {8, 10, 11};
    const void *data[] = {&floats[0], &floats[2], &floats[3], &ints[0], &ints[1]};

    struct graph *graph = import(f);

    assert_int_equal(graph->nodes_count, 1);
    for (size_t i = 0; i < LENGTH(expected); i++) {
        const struct value *value = find(graph, expected[i].name);
        const struct constant *constant = value->constant;
        assert_non_null(constant);
        assert_null(value->producer);
        assert_string_equal(constant->desc.name, expected[i].name);
        assert_int_equal(constant->desc.dtype, expected[i].dtype);
        assert_int_equal(constant->desc.rank, expected[i].rank);
        assert_int_equal(constant->bytes, expected[i].bytes);
        assert_memory_equal(constant->data, data[i], expected[i].bytes);
    }
}

static void dimensions_may_have_names_or_be_unknown(void **state) {
    struct fixture *f = *state;
    begin_small(&f->file);
    begin_message(&f->file, GRAPH_INPUT);
    put_text(&f->file, 1, "z");
    begin_message(&f->file, 2);
    begin_message(&f->file, 1);
    put_int(&f->file, 1, 2); /* uint8 */
    begin_message(&f->file, 2);
    begin_message(&f->file, 1);
    put_text(&f->file, 2, "batch");
    end_message(&f->file);
    begin_message(&f->file, 1);
    put_int(&f->file, 1, 0); /* what some exporters write for "unknown" */
    end_message(&f->file);
    for (int i = 0; i < 4; i++)
        end_message(&f->file);
    begin_message(&f->file, GRAPH_INPUT); /* not even a rank */
    put_text(&f->file, 1, "any");
    put_bytes(&f->file, 2, "\x0a\x02\x08\x01", 4);
    end_message(&f->file);
    end_model(&f->file);

    struct graph *graph = import(f);

    const struct value *z = find(graph, "z");
    assert_int_equal(z->desc.dtype, DTYPE_UINT8);
    assert_int_equal(z->desc.rank, 2);
    assert_int_equal(z->desc.dims[0], -1);
    assert_string_equal(z->dim_names[0], "batch");
    assert_int_equal(z->desc.dims[1], -1);
    assert_null(z->dim_names[1]);
    assert_int_equal(find(graph, "any")->desc.rank, -1);
}

static void opsets_are_those_of_each_domain(void **state) {
    struct fixture *f = *state;
    begin_message(&f->file, MODEL_OPSET);
    put_text(&f->file, 1, "com.example");
    put_int(&f->file, 2, 3);
    end_message(&f->file);
    begin_message(&f->file, MODEL_OPSET);
    put_text(&f->file, 1, "ai.onnx");
    put_int(&f->file, 2, 7);
    end_message(&f->file);
    begin_message(&f->file, MODEL_GRAPH);
    put_value_info(&f->file, GRAPH_INPUT, "x", 2, one_by_two);
    put_value_info(&f->file, GRAPH_OUTPUT, "y", 2, one_by_two);
    put_node(&f->file, "a", "Relu", "x", "y");
    begin_node(&f->file, "b", "Special", "x", "z");
    put_text(&f->file, NODE_DOMAIN, "com.example");
    end_message(&f->file);
    begin_node(&f->file, "c", "Unknown", "x", "w");
    put_text(&f->file, NODE_DOMAIN, "org.example");
    end_message(&f->file);
    end_message(&f->file);

    struct graph *graph = import(f);

    assert_int_equal(graph->nodes[0]->opset, 7);
    assert_int_equal(graph->nodes[1]->opset, 3);
    assert_string_equal(graph->nodes[1]->domain, "com.example");
    assert_int_equal(graph->nodes[2]->opset, 1);
}

static void what_is_not_known_is_skipped(void **state) {
    struct fixture *f = *state;
    put_text(&f->file, 6, "documentation of the model");
    put_bytes(&f->file, 14, "\x0a\x01k\x12\x01v", 6); /* metadata */
    put_float(&f->file, 1000, 1);
    begin_small(&f->file);
    begin_tensor(&f->file, GRAPH_INITIALIZER, "w", 1, "1");
    put_text(&f->file, 12, "documentation of the tensor");
    put_int(&f->file, 2000, 1); /* our own fields of the skeleton: a file cannot smuggle them in */
    put_int(&f->file, 2001, UINT64_MAX);
    put_bytes(&f->file, TENSOR_RAW_DATA, (float[]){1}, 4);
    end_message(&f->file);
    begin_message(&f->file, 13); /* value_info */
    put_text(&f->file, 1, "y");
    end_message(&f->file);
    end_model(&f->file);

    struct graph *graph = import(f);

    assert_memory_equal(find(graph, "w")->constant->data, ((float[]){1}), 4);
}

static void the_digest_is_that_of_the_file(void **state) {
    struct fixture *f = *state;
    uint8_t digest[SHA256_SIZE];
    begin_small(&f->file);
    end_model(&f->file);
    assert_int_equal(sha256(f->file.data, f->file.size, digest), 0);

    assert_memory_equal(import(f)->digest, digest, sizeof(digest));
}

static void the_longest_name_is_read(void **state) {
    struct fixture *f = *state;
    char name[GRAPH_NAME_MAX + 1];
    memset(name, 'n', GRAPH_NAME_MAX);
    name[GRAPH_NAME_MAX] = '\0';
    memcpy(name, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9); /* UTF-8 of two, three, four bytes */
    begin_small(&f->file);
    put_node(&f->file, name, "Relu", "x", "z");
    end_model(&f->file);

    assert_string_equal(import(f)->nodes[1]->name, name);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_small_graph_comes_out_as_written),
        TEST(raw_data_is_used_where_it_lies),
        TEST(packed_floats_and_doubles_are_used_where_they_lie),
        TEST(lists_in_several_pieces_are_joined),
        TEST(narrow_types_are_decoded_from_int32_data),
        TEST(scalars_and_empty_tensors_are_constants),
        TEST(an_initializer_listed_as_input_is_no_input),
        TEST(identity_on_an_initializer_is_an_ordinary_node),
        TEST(one_initializer_may_serve_several_nodes),
        TEST(an_initializer_may_be_an_output_of_the_graph),
        TEST(empty_names_are_absent_values),
        TEST(a_node_without_a_name_has_its_output_s),
        TEST(nodes_in_the_wrong_order_are_sorted),
        TEST(an_order_that_can_be_executed_is_kept),
        TEST(attributes_of_every_kind_are_read),
        TEST(attributes_without_a_type_are_known_by_their_field),
        TEST(constant_nodes_become_constants),
        TEST(dimensions_may_have_names_or_be_unknown),
        TEST(opsets_are_those_of_each_domain),
        TEST(what_is_not_known_is_skipped),
        TEST(the_digest_is_that_of_the_file),
        TEST(the_longest_name_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
