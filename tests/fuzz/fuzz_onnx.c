/* Any bytes as an ONNX file: a graph, or a refusal with a sentence; then a model of it, or a
 * refusal; then a frame of it, where that is small. */
#include "model/import.h"
#include "model/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS_MAX 64
#define FRAME_BYTES_MAX                                                                            \
    (64U << 10U) /* of inputs, outputs, weights, arena: larger ones take long                      \
                  */
#define FRAME_MACS_MAX 1000000U

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

/* What a frame takes, as far as layers say. */
static bool is_small(const struct model *model) {
    uint64_t bytes = 0, macs = 0;
    for (size_t i = 0; i < model_layers_count(model); i++) {
        const struct model_layer *layer = model_layer(model, i);
        bytes += layer->weight_bytes + layer->output_bytes;
        macs += layer->macs;
    }
    return bytes <= FRAME_BYTES_MAX && macs <= FRAME_MACS_MAX;
}

static bool make_room(struct tensor *tensors, const struct tensor_desc *descs, size_t count,
                      unsigned char number) {
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 0;
        tensors[i].desc = descs[i];
        if (tensor_desc_bytes(&descs[i], &bytes) < 0)
            abort(); /* the model has checked it */
        if (bytes > FRAME_BYTES_MAX || !(tensors[i].data = tensor_buffer_new(bytes)))
            return false;
        memset(tensors[i].data, number, bytes);
    }
    return true;
}

/* Runs one frame. Inputs whose dimensions are bounds come with the most they can be. */
static void run_frame(struct model *model) {
    struct tensor in[TENSORS_MAX] = {{{0}, NULL}}, out[TENSORS_MAX] = {{{0}, NULL}};
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct err err = {""};
    void *room[TENSORS_MAX] = {NULL};
    size_t ins = 0, outs = 0;
    if (stage_new(model, 0, model_layers_count(model), NULL, &stage, &err) < 0)
        goto done;
    const struct tensor_desc *in_descs = stage_inputs(stage, &ins);
    const struct tensor_desc *out_descs = stage_outputs(stage, &outs);
    if (ins > TENSORS_MAX || outs > TENSORS_MAX || stage_arena_bytes(stage) > FRAME_BYTES_MAX ||
        exec_new(stage, &exec, &err) < 0 || !make_room(in, in_descs, ins, 0x3c) ||
        !make_room(out, out_descs, outs, 0xff))
        goto done;
    for (size_t i = 0; i < outs; i++)
        room[i] = out[i].data;
    if (exec_run(exec, in, out, &err) < 0 && err.text[0] == '\0')
        abort();
done:
    for (size_t i = 0; i < TENSORS_MAX; i++) {
        tensor_buffer_free(in[i].data);
        tensor_buffer_free(room[i] ? room[i] : out[i].data);
    }
    exec_free(exec);
    stage_unref(stage);
}

/* The whole way of a model. */
static void use_model(const uint8_t *data, size_t size) {
    struct model *model = NULL;
    struct err err = {""};
    int rc = model_open_memory(data, size, NULL, &model, &err);
    if (rc < 0) {
        if (err.text[0] == '\0' || model)
            abort();
        return;
    }
    if (is_small(model))
        run_frame(model);
    model_unref(model);
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
    use_model(data, size);
    return 0;
}
