/* Every allocation of reading and writing a model fails once. */
#include "model/graph.h"
#include "tests/lib/failing.h"
#include "tests/models/networks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char source[] = "/tmp/test_import_alloc.XXXXXX";
static char target[] = "/tmp/test_import_alloc.XXXXXX";
static struct graph *whole; /* what export writes; made outside of what is counted */

static int import_source(struct err *err) {
    struct graph *graph = NULL;
    int rc = graph_import(source, &graph, err);
    graph_free(graph);
    return rc;
}

static int export_whole(struct err *err) {
    struct tensor_desc output = {.name = whole->outputs[0]->name, .dtype = DTYPE_FLOAT, .rank = -1};
    const struct graph_part part = {.nodes = whole->nodes,
                                    .nodes_count = whole->nodes_count,
                                    .inputs = &whole->inputs[0]->desc,
                                    .inputs_count = 1,
                                    .outputs = &output,
                                    .outputs_count = 1};
    return graph_export(whole, &part, target, err);
}

static void import_survives_every_failed_allocation(void **state) {
    (void)state;
    failing_each_allocation(import_source);
}

static void export_survives_every_failed_allocation(void **state) {
    (void)state;
    failing_each_allocation(export_whole);
}

static int set_up(void **state) {
    struct err err = {""};
    (void)state;
    close(mkstemp(source));
    close(mkstemp(target));
    for (size_t i = 0; i < networks_count; i++)
        if (strcmp(networks[i].name, "lenet5") == 0 &&
            network_write(&networks[i], 1, source, &err) < 0)
            return -1;
    return graph_import(source, &whole, &err);
}

static int tear_down(void **state) {
    (void)state;
    graph_free(whole);
    return unlink(source) + unlink(target);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(import_survives_every_failed_allocation),
        cmocka_unit_test(export_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
