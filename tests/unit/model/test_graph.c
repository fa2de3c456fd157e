#include "model/graph.h"

#include <errno.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct value *add(struct graph *graph, const char *name) {
    struct value *value = graph_add_value(graph, name, strlen(name));
    assert_non_null(value);
    return value;
}

static struct node *add_node(struct graph *graph, struct value **inputs, size_t inputs_count,
                             struct value **outputs, size_t outputs_count) {
    struct node *node = graph_alloc(graph, sizeof(*node));
    assert_non_null(node);
    node->inputs = inputs;
    node->inputs_count = inputs_count;
    node->outputs = outputs;
    node->outputs_count = outputs_count;
    return node;
}

static void memory_is_zeroed_and_aligned_for_any_type(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 3, 16, 17, 1000, 16384, 16385, 70000, 3000000};
    struct graph *graph = graph_new();

    for (size_t round = 0; round < 50; round++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            unsigned char *memory = graph_alloc(graph, sizes[i]);
            assert_non_null(memory);
            assert_int_equal((uintptr_t)memory % alignof(max_align_t), 0);
            for (size_t j = 0; j < sizes[i]; j += 997)
                assert_int_equal(memory[j], 0);
            memset(memory, 0xff, sizes[i]);
        }
    graph_free(graph);
}

static void memory_that_cannot_exist_is_null(void **state) {
    (void)state;
    struct graph *graph = graph_new();

    assert_null(graph_alloc(graph, SIZE_MAX));
    assert_null(graph_strdup(graph, "", SIZE_MAX));
    graph_free(graph);
}

static void adopted_buffers_and_strings_live_with_the_graph(void **state) {
    (void)state;
    struct graph *graph = graph_new();
    void *buffer = tensor_buffer_new(100);

    assert_int_equal(graph_adopt(graph, buffer), 0); /* the leak checker sees whether it is freed */
    assert_string_equal(graph_strdup(graph, "conv_1 and more", 6), "conv_1");
    graph_free(graph);
    graph_free(NULL);
}

static void values_are_numbered_in_order_and_stay_where_they_are(void **state) {
    (void)state;
    struct graph *graph = graph_new();
    char name[16];
    struct value *first = add(graph, "first");

    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "v%d", i);
        add(graph, name);
    }

    assert_int_equal(graph->values_count, 1001);
    assert_ptr_equal(graph->values[0], first);
    for (uint32_t i = 0; i < 1001; i++)
        assert_int_equal(graph->values[i]->id, i);
    assert_string_equal(graph->values[1000]->name, "v999");
    assert_ptr_equal(graph->values[1000]->desc.name, graph->values[1000]->name);
    assert_int_equal(first->desc.rank, -1);
    graph_free(graph);
}

static void link_knows_producers_and_every_use(void **state) {
    (void)state;
    struct graph *graph = graph_new();
    struct value *a = add(graph, "a"), *b = add(graph, "b"), *c = add(graph, "c");
    struct node *twice =
        add_node(graph, (struct value *[]){a, NULL, a}, 3, (struct value *[]){b, NULL}, 2);
    struct node *once = add_node(graph, (struct value *[]){a, b}, 2, (struct value *[]){c}, 1);
    graph->nodes = (struct node *[]){twice, once};
    graph->nodes_count = 2;

    assert_int_equal(graph_link(graph), 0);

    assert_null(a->producer);
    assert_ptr_equal(b->producer, twice);
    assert_ptr_equal(c->producer, once);
    assert_int_equal(a->consumers_count, 3);
    assert_ptr_equal(a->consumers[0], twice);
    assert_ptr_equal(a->consumers[1], twice);
    assert_ptr_equal(a->consumers[2], once);
    assert_int_equal(b->consumers_count, 1);
    assert_int_equal(c->consumers_count, 0);
    assert_int_equal(once->index, 1);

    graph->nodes_count = 1; /* the second node is taken away */
    assert_int_equal(graph_link(graph), 0);
    assert_null(c->producer);
    assert_int_equal(b->consumers_count, 0);
    assert_int_equal(a->consumers_count, 2);
    graph_free(graph);
}

static void attributes_are_found_by_name_and_kind(void **state) {
    (void)state;
    struct attr attrs[] = {
        {.name = "group", .kind = ATTR_INT, .i = 4},
        {.name = "alpha", .kind = ATTR_FLOAT, .f = 0.5F},
        {.name = "mode", .kind = ATTR_STRING, .count = 6, .s = "linear"},
        {.name = "pads", .kind = ATTR_INTS, .count = 2, .ints = (int64_t[]){1, 2}},
        {.name = "scales", .kind = ATTR_FLOATS, .count = 1, .floats = (float[]){2}},
    };
    struct node node = {.attrs = attrs, .attrs_count = 5};
    size_t count;

    assert_int_equal(node_int(&node, "group", 1), 4);
    assert_int_equal(node_int(&node, "axis", -1), -1);
    assert_int_equal(node_int(&node, "alpha", 7), 7);
    assert_true(node_float(&node, "alpha", 1) == 0.5F);
    assert_true(node_float(&node, "beta", 1) == 1);
    assert_string_equal(node_string(&node, "mode", "nearest"), "linear");
    assert_string_equal(node_string(&node, "pads", "none"), "none");
    assert_int_equal(node_ints(&node, "pads", &count)[1], 2);
    assert_int_equal(count, 2);
    assert_true(node_floats(&node, "scales", &count)[0] == 2);
    assert_null(node_ints(&node, "strides", &count));
    assert_int_equal(count, 0);
    assert_null(node_floats(&node, "pads", &count));
    assert_int_equal(count, 0);
    assert_null(node_attr(&node, "nothing"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_and_aligned_for_any_type),
        cmocka_unit_test(memory_that_cannot_exist_is_null),
        cmocka_unit_test(adopted_buffers_and_strings_live_with_the_graph),
        cmocka_unit_test(values_are_numbered_in_order_and_stay_where_they_are),
        cmocka_unit_test(link_knows_producers_and_every_use),
        cmocka_unit_test(attributes_are_found_by_name_and_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
