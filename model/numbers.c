#include "model/numbers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t descs_bytes(const struct tensor_desc *descs, size_t count) {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        if (tensor_desc_bytes(&descs[i], &bytes) == 0)
            sum += bytes;
    }
    return sum;
}

static bool mixes_inputs(const struct model_layer *layer) {
    return layer->params > 0 &&
           (strstr(layer->op, "Conv") || strstr(layer->op, "Gemm") || strstr(layer->op, "MatMul"));
}

int model_numbers_init(struct model_numbers *numbers, const struct model *model) {
    size_t layers = model_layers_count(model), count;
    *numbers = (struct model_numbers){.layers = layers, .first_mixed = 1};
    numbers->cut_bytes = calloc(layers + 1, sizeof(*numbers->cut_bytes));
    numbers->weight_bytes = calloc(layers + 1, sizeof(*numbers->weight_bytes));
    numbers->arena_bytes = calloc(layers + 1, sizeof(*numbers->arena_bytes));
    if (!numbers->cut_bytes || !numbers->weight_bytes || !numbers->arena_bytes) {
        model_numbers_fini(numbers);
        return -ENOMEM;
    }
    for (size_t i = 0; i <= layers; i++) {
        const struct tensor_desc *descs = model_cut(model, i, &count);
        numbers->cut_bytes[i] = descs_bytes(descs, count);
    }
    for (size_t i = 0; i < layers; i++) {
        const struct model_layer *layer = model_layer(model, i);
        numbers->weight_bytes[i] = layer->weight_bytes;
        numbers->arena_bytes[i] = numbers->cut_bytes[i] + layer->output_bytes;
    }
    while (numbers->first_mixed < layers &&
           !mixes_inputs(model_layer(model, numbers->first_mixed - 1)))
        numbers->first_mixed++;
    return 0;
}

void model_numbers_fini(struct model_numbers *numbers) {
    free(numbers->cut_bytes);
    free(numbers->weight_bytes);
    free(numbers->arena_bytes);
    *numbers = (struct model_numbers){.layers = 0};
}
