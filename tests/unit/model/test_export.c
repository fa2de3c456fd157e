#include "model/graph.h"
#include "tests/models/networks.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char folder[64];
    char path[96]; /* of the file that a test writes */
    struct graph *graph, *again;
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    if (!f)
        return -1;
    strcpy(f->folder, "/tmp/test_export.XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    snprintf(f->path, sizeof(f->path), "%s/part.onnx", f->folder);
    f->graph = graph_new();
    *state = f;
    return f->graph ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    graph_free(f->graph);
    graph_free(f->again);
    int rc = nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(f);
    return rc;
}

static size_t files_in(const char *folder) {
    size_t count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}

static struct value *find(const struct graph *graph, const char *name) {
    for (size_t i = 0; i < graph->values_count; i++)
        if (strcmp(graph->values[i]->name, name) == 0)
            return graph->values[i];
    return NULL;
}

static struct value *add_value(struct fixture *f, const char *name) {
    struct value *value = graph_add_value(f->graph, name, strlen(name));
    assert_non_null(value);
    value->desc.dtype = DTYPE_FLOAT;
    value->desc.rank = 2;
    value->desc.dims[0] = 1;
    value->desc.dims[1] = 3;
    return value;
}

static struct value *add_constant(struct fixture *f, const char *name, enum dtype dtype,
                                  const void *data, int64_t count) {
    struct value *value = add_value(f, name);
    struct constant *constant = graph_alloc(f->graph, sizeof(*constant));
    assert_non_null(constant);
    constant->desc =
        (struct tensor_desc){.name = value->name, .dtype = dtype, .rank = 1, .dims = {count}};
    constant->data = data;
    constant->bytes = (size_t)count * dtype_size(dtype);
    value->constant = constant;
    return value;
}

static struct node *add_node(struct fixture *f, const char *op, struct value **inputs,
                             size_t inputs_count, struct value *output) {
    struct node *node = graph_alloc(f->graph, sizeof(*node));
    struct value **outputs = graph_alloc(f->graph, sizeof(*outputs));
    assert_true(node && outputs);
    *outputs = output;
    *node = (struct node){.name = output->name,
                          .op_type = op,
                          .domain = "",
                          .opset = 11,
                          .inputs = inputs,
                          .inputs_count = inputs_count,
                          .outputs = outputs,
                          .outputs_count = 1};
    return node;
}

/* What is written is read again, and is the same. */
static void export_and_import(struct fixture *f, const struct graph_part *part) {
    struct err err = {""};
    assert_int_equal(graph_export(f->graph, part, f->path, &err), 0);
    assert_string_equal(err.text, "");
    assert_int_equal(graph_import(f->path, &f->again, &err), 0);
    assert_string_equal(err.text, "");
}

static void attributes_of_every_kind_come_back(void **state) {
    struct fixture *f = *state;
    struct value *x = add_value(f, "x"), *y = add_value(f, "y");
    static const struct constant tensor = {.desc = {.dtype = DTYPE_INT64, .rank = 1, .dims = {2}},
                                           .data = "0123456789abcdef",
                                           .bytes = 16};
    static const struct constant nothing = {.desc = {.dtype = DTYPE_FLOAT, .rank = 1}};
    struct attr attrs[] = {
        {.name = "i", .kind = ATTR_INT, .i = INT64_MIN},
        {.name = "f", .kind = ATTR_FLOAT, .f = -0.1F},
        {.name = "s", .kind = ATTR_STRING, .count = 4, .s = "a\0bc"},
        {.name = "t", .kind = ATTR_TENSOR, .t = &tensor},
        {.name = "nothing", .kind = ATTR_TENSOR, .t = &nothing},
        {.name = "ints", .kind = ATTR_INTS, .count = 2, .ints = (int64_t[]){-1, 5}},
        {.name = "no_ints", .kind = ATTR_INTS},
        {.name = "floats", .kind = ATTR_FLOATS, .count = 1, .floats = (float[]){2.5F}},
        {.name = "strings", .kind = ATTR_STRINGS, .count = 2, .strings = (const char *[]){"a", ""}},
    };
    struct node *node = add_node(f, "Op", (struct value *[]){x, NULL, x}, 3, y);
    node->attrs = attrs;
    node->attrs_count = sizeof(attrs) / sizeof(attrs[0]);
    node->name = "some/node";
    node->domain = "com.example";

    export_and_import(f, &(struct graph_part){&node, 1, &x->desc, &y->desc, 1, 1});

    size_t count;
    const struct node *again = f->again->nodes[0];
    assert_int_equal(f->again->nodes_count, 1);
    assert_string_equal(again->name, "some/node");
    assert_string_equal(again->domain, "com.example");
    assert_int_equal(again->opset, 11);
    assert_int_equal(again->inputs_count, 3);
    assert_null(again->inputs[1]);
    assert_string_equal(again->inputs[2]->name, "x");
    assert_int_equal(again->attrs_count, node->attrs_count);
    assert_true(node_int(again, "i", 0) == INT64_MIN);
    assert_true(node_float(again, "f", 0) == -0.1F);
    assert_int_equal(node_attr(again, "s")->count, 4);
    assert_memory_equal(node_attr(again, "s")->s, "a\0bc", 5);
    assert_true(tensor_desc_same(&node_attr(again, "t")->t->desc, &tensor.desc));
    assert_memory_equal(node_attr(again, "t")->t->data, tensor.data, 16);
    assert_int_equal(node_attr(again, "nothing")->t->bytes, 0);
    assert_memory_equal(node_ints(again, "ints", &count), ((int64_t[]){-1, 5}), 16);
    assert_int_equal(node_attr(again, "no_ints")->kind, ATTR_INTS);
    assert_int_equal(node_attr(again, "no_ints")->count, 0);
    assert_true(node_floats(again, "floats", &count)[0] == 2.5F);
    assert_string_equal(node_attr(again, "strings")->strings[0], "a");
}

static void constants_come_back_aligned_and_unchanged(void **state) {
    struct fixture *f = *state;
    static const enum dtype dtypes[] = {DTYPE_FLOAT, DTYPE_UINT8,   DTYPE_INT8, DTYPE_INT32,
                                        DTYPE_INT64, DTYPE_FLOAT16, DTYPE_BOOL, DTYPE_DOUBLE};
    enum { KINDS = sizeof(dtypes) / sizeof(dtypes[0]), SIZES = 70 };
    static uint8_t data[SIZES * 8];
    static struct value *inputs[KINDS * SIZES + 1];
    struct value *x = add_value(f, "x"), *y = add_value(f, "y");
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 37);
    inputs[0] = x;
    for (int i = 0; i < KINDS * SIZES; i++) { /* names of all lengths shift what follows */
        char name[100];
        snprintf(name, sizeof(name), "%d_%.*s", i, i % 67,
                 "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn");
        inputs[i + 1] = add_constant(f, name, dtypes[i % KINDS], data, i / KINDS);
    }
    struct node *node = add_node(f, "Op", inputs, KINDS * SIZES + 1, y);

    export_and_import(f, &(struct graph_part){&node, 1, &x->desc, &y->desc, 1, 1});

    for (int i = 1; i <= KINDS * SIZES; i++) {
        const struct value *value = find(f->again, inputs[i]->name);
        assert_non_null(value);
        assert_true(tensor_desc_same(&value->constant->desc, &inputs[i]->constant->desc));
        assert_memory_equal(value->constant->data, data, value->constant->bytes);
        assert_true(value->constant->in_file);
        assert_int_equal((uintptr_t)value->constant->data % 64, 0);
    }
    assert_int_equal(f->again->inputs_count, 1);
}

static void a_part_holds_its_own_weights_only(void **state) {
    struct fixture *f = *state;
    static const float w1[] = {1, 2, 3}, w2[] = {4, 5, 6};
    struct value *x = add_value(f, "x"), *y = add_value(f, "y"), *z = add_value(f, "z");
    struct value *a = add_constant(f, "a", DTYPE_FLOAT, w1, 3);
    struct value *b = add_constant(f, "b", DTYPE_FLOAT, w2, 3);
    struct node *first = add_node(f, "Add", (struct value *[]){x, a}, 2, y);
    struct node *second = add_node(f, "Mul", (struct value *[]){y, b}, 2, z);
    (void)first;

    export_and_import(f, &(struct graph_part){&second, 1, &y->desc, &z->desc, 1, 1});

    assert_int_equal(f->again->values_count, 3);
    assert_null(find(f->again, "a"));
    assert_memory_equal(find(f->again, "b")->constant->data, w2, 12);
    assert_string_equal(f->again->inputs[0]->name, "y");
    assert_true(tensor_desc_same(&f->again->inputs[0]->desc, &y->desc));
    assert_string_equal(f->again->outputs[0]->name, "z");
}

static void inputs_and_constants_may_pass_through(void **state) {
    struct fixture *f = *state;
    static const float w[] = {1, 2, 3};
    struct value *x = add_value(f, "x"), *y = add_value(f, "y");
    struct value *a = add_constant(f, "a", DTYPE_FLOAT, w, 3);
    struct node *node = add_node(f, "Relu", (struct value *[]){x}, 1, y);
    struct tensor_desc outputs[] = {y->desc, x->desc, a->desc};

    export_and_import(f, &(struct graph_part){&node, 1, &x->desc, outputs, 1, 3});

    assert_int_equal(f->again->outputs_count, 3);
    assert_true(f->again->outputs[1]->is_input);
    assert_memory_equal(f->again->outputs[2]->constant->data, w, 12);
}

static void opsets_are_those_of_the_nodes(void **state) {
    struct fixture *f = *state;
    struct value *x = add_value(f, "x"), *y = add_value(f, "y"), *z = add_value(f, "z");
    struct node *nodes[] = {add_node(f, "Relu", (struct value *[]){x}, 1, y),
                            add_node(f, "Relu", (struct value *[]){y}, 1, z)};
    nodes[0]->opset = 17;
    nodes[1]->domain = "com.example";
    nodes[1]->opset = 2;

    export_and_import(f, &(struct graph_part){nodes, 2, &x->desc, &z->desc, 1, 1});

    assert_int_equal(f->again->nodes[0]->opset, 17);
    assert_int_equal(f->again->nodes[1]->opset, 2);
}

static void what_is_not_in_the_part_is_refused(void **state) {
    struct fixture *f = *state;
    struct err err = {""};
    struct value *x = add_value(f, "x"), *y = add_value(f, "y"), *z = add_value(f, "z");
    struct value *lazy = add_constant(f, "lazy", DTYPE_FLOAT, NULL, 3);
    struct node *relu = add_node(f, "Relu", (struct value *[]){y}, 1, z);
    struct node *add = add_node(f, "Add", (struct value *[]){x, lazy}, 2, y);
    struct tensor_desc unknown = {.name = "unknown"};

    struct graph_part part = {&relu, 1, &x->desc, &z->desc, 1, 1};
    assert_int_equal(graph_export(f->graph, &part, f->path, &err), -EINVAL);
    assert_non_null(strstr(err.text, "node \"z\" reads \"y\""));

    part = (struct graph_part){&relu, 1, &y->desc, &x->desc, 1, 1};
    assert_int_equal(graph_export(f->graph, &part, f->path, &err), -EINVAL);
    assert_non_null(strstr(err.text, "computes \"x\""));

    part = (struct graph_part){&relu, 1, &unknown, &z->desc, 1, 1};
    assert_int_equal(graph_export(f->graph, &part, f->path, &err), -EINVAL);
    assert_non_null(strstr(err.text, "\"unknown\""));

    part = (struct graph_part){&add, 1, &x->desc, &y->desc, 1, 1};
    assert_int_equal(graph_export(f->graph, &part, f->path, &err), -EINVAL);
    assert_non_null(strstr(err.text, "\"lazy\" has not been computed"));
    assert_int_equal(files_in(f->folder), 0);
}

static void a_part_of_two_gibibytes_is_refused(void **state) {
    struct fixture *f = *state;
    struct err err = {""};
    struct value *x = add_value(f, "x"), *y = add_value(f, "y");
    struct value *w = add_constant(f, "w", DTYPE_FLOAT, "never read", 1 << 29);
    struct node *add = add_node(f, "Add", (struct value *[]){x, w}, 2, y);

    struct graph_part part = {&add, 1, &x->desc, &y->desc, 1, 1};
    assert_int_equal(graph_export(f->graph, &part, f->path, &err), -EFBIG);
    assert_non_null(strstr(err.text, "2 GiB"));
    assert_int_equal(files_in(f->folder), 0);
}

static void a_file_is_replaced_whole_or_not_at_all(void **state) {
    struct fixture *f = *state;
    struct err err = {""};
    char path[160];
    struct stat st;
    struct value *x = add_value(f, "x"), *y = add_value(f, "y");
    struct node *node = add_node(f, "Relu", (struct value *[]){x}, 1, y);
    struct graph_part part = {&node, 1, &x->desc, &y->desc, 1, 1};
    FILE *old = fopen(f->path, "w");
    assert_non_null(old);
    fputs("old", old);
    fclose(old);

    assert_int_equal(graph_export(f->graph, &part, f->path, &err), 0);
    assert_int_equal(stat(f->path, &st), 0);
    assert_true(st.st_size > 3);
    assert_int_equal(files_in(f->folder), 1); /* nothing is left beside it */

    snprintf(path, sizeof(path), "%s/absent/part.onnx", f->folder);
    assert_int_equal(graph_export(f->graph, &part, path, &err), -ENOENT);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(graph_export(f->graph, &part, f->folder, &err), -EISDIR);
    assert_int_equal(files_in(f->folder), 1);
    assert_int_equal(graph_export(f->graph, &part, "/dev/full/part.onnx", NULL), -ENOTDIR);
}

/* ---- whole networks ---- */

static void networks_have_the_published_number_of_parameters(void **state) {
    (void)state;
    for (size_t i = 0; i < networks_count; i++) {
        struct builder *builder = builder_new(1);
        assert_non_null(builder);
        assert_non_null(networks[i].build(builder));
        if (builder_params(builder) != networks[i].params)
            fail_msg("%s has %llu parameters", networks[i].name,
                     (unsigned long long)builder_params(builder));
        builder_free(builder);
    }
}

static const struct network *network(const char *name) {
    for (size_t i = 0; i < networks_count; i++)
        if (strcmp(networks[i].name, name) == 0)
            return &networks[i];
    fail_msg("no network %s", name);
    return NULL;
}

static void a_network_is_written_the_same_for_the_same_seed(void **state) {
    struct fixture *f = *state;
    struct err err = {""};
    uint8_t digests[3][SHA256_SIZE];
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(network_write(network("lenet5"), i / 2, f->path, &err), 0);
        graph_free(f->again);
        f->again = NULL;
        assert_int_equal(graph_import(f->path, &f->again, &err), 0);
        memcpy(digests[i], f->again->digest, SHA256_SIZE);
    }
    assert_memory_equal(digests[0], digests[1], SHA256_SIZE);
    assert_memory_not_equal(digests[0], digests[2], SHA256_SIZE);
    assert_string_equal(err.text, "");
}

static void weights_are_spread_as_they_should_be(void **state) {
    struct fixture *f = *state;
    struct err err = {""};
    assert_int_equal(network_write(network("lenet5"), 1, f->path, &err), 0);
    assert_int_equal(graph_import(f->path, &f->again, &err), 0);

    const struct constant *weight = find(f->again, "c5.weight")->constant;
    const float *numbers = weight->data;
    size_t count = weight->bytes / sizeof(float);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        sum += numbers[i];
        squares += (double)numbers[i] * numbers[i];
    }
    /* He: variance 2 / 400 inputs. 48,000 numbers: within 3 % is five deviations. */
    assert_int_equal(count, 48000);
    assert_true(sum / (double)count < 0.002 && sum / (double)count > -0.002);
    assert_true(squares / (double)count > 0.97 * 2 / 400 &&
                squares / (double)count < 1.03 * 2 / 400);
}

/* Everything of a graph that a reader can see. */
static void assert_same_graph(const struct graph *a, const struct graph *b) {
    assert_int_equal(a->nodes_count, b->nodes_count);
    for (size_t i = 0; i < a->nodes_count; i++) {
        const struct node *m = a->nodes[i], *n = b->nodes[i];
        assert_string_equal(m->name, n->name);
        assert_string_equal(m->op_type, n->op_type);
        assert_int_equal(m->opset, n->opset);
        assert_int_equal(m->inputs_count, n->inputs_count);
        assert_int_equal(m->attrs_count, n->attrs_count);
        for (size_t j = 0; j < m->inputs_count; j++) {
            const struct value *v = m->inputs[j], *w = n->inputs[j];
            assert_string_equal(v->name, w->name);
            assert_int_equal(v->constant == NULL, w->constant == NULL);
            if (!v->constant)
                continue;
            assert_true(tensor_desc_same(&v->constant->desc, &w->constant->desc));
            assert_memory_equal(v->constant->data, w->constant->data, v->constant->bytes);
        }
    }
}

static void a_model_written_and_read_again_is_the_same(void **state) {
    struct fixture *f = *state;
    char second[128];
    struct err err = {""};
    struct graph *whole = NULL;
    assert_int_equal(network_write(network("mobilenet_v2"), 1, f->path, &err), 0);
    assert_int_equal(graph_import(f->path, &whole, &err), 0);
    snprintf(second, sizeof(second), "%s/second.onnx", f->folder);
    struct tensor_desc output = {.name = whole->outputs[0]->name, .dtype = DTYPE_FLOAT, .rank = -1};
    struct graph_part part = {.nodes = whole->nodes,
                              .nodes_count = whole->nodes_count,
                              .inputs = &whole->inputs[0]->desc,
                              .inputs_count = 1,
                              .outputs = &output,
                              .outputs_count = 1};

    assert_int_equal(graph_export(whole, &part, second, &err), 0);
    assert_int_equal(graph_import(second, &f->again, &err), 0);

    assert_string_equal(err.text, "");
    assert_same_graph(whole, f->again);
    graph_free(whole);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(attributes_of_every_kind_come_back),
        TEST(constants_come_back_aligned_and_unchanged),
        TEST(a_part_holds_its_own_weights_only),
        TEST(inputs_and_constants_may_pass_through),
        TEST(opsets_are_those_of_the_nodes),
        TEST(what_is_not_in_the_part_is_refused),
        TEST(a_part_of_two_gibibytes_is_refused),
        TEST(a_file_is_replaced_whole_or_not_at_all),
        TEST(networks_have_the_published_number_of_parameters),
        TEST(a_network_is_written_the_same_for_the_same_seed),
        TEST(weights_are_spread_as_they_should_be),
        TEST(a_model_written_and_read_again_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
