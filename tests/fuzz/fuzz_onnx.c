/* Any bytes as an ONNX file: a graph, or a refusal with a sentence. */
#include "model/import.h"

#include <errno.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte of every constant, so that one outside the file is noticed. */
static unsigned sum_constants(const struct graph *graph) {
    unsigned sum = 0;
    for (size_t i = 0; i < graph->values_count; i++) {
        const struct constant *constant = graph->values[i]->constant;
        for (size_t j = 0; constant && j < constant->bytes; j++)
            sum += ((const uint8_t *)constant->data)[j];
    }
    return sum;
}

/* What graph.h promises of a graph that was imported. */
static void check_graph(const struct graph *graph) {
    for (size_t i = 0; i < graph->nodes_count; i++) {
        const struct node *node = graph->nodes[i];
        if (node->index != i || node->name[0] == '\0' || node->op_type[0] == '\0')
            abort();
        for (size_t j = 0; j < node->inputs_count; j++) {
            const struct value *input = node->inputs[j];
            if (input && input->producer && input->producer->index >= i)
                abort(); /* not in an order that can be executed */
            if (input && !input->producer && !input->constant && !input->is_input)
                abort(); /* nobody knows it */
        }
    }
    for (size_t i = 0; i < graph->outputs_count; i++)
        if (!graph->outputs[i]->is_output)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static volatile unsigned sum; /* keeps the reads */
    struct graph *graph = NULL;
    struct err err = {""};
    int rc = graph_import_memory(data, size, &graph, &err);
    if (rc < 0) {
        if (err.text[0] == '\0' || graph || (rc != -EBADMSG && rc != -ENOTSUP && rc != -EMSGSIZE))
            abort();
        return 0;
    }
    check_graph(graph);
    sum += sum_constants(graph);
    graph_free(graph);
    return 0;
}
