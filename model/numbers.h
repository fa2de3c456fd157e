/* A model as planners see it: bytes per cut, memory per layer. */
#ifndef CONVOY_MODEL_NUMBERS_H
#define CONVOY_MODEL_NUMBERS_H

#include "model/model.h"

struct model_numbers {
    size_t layers;
    uint64_t *cut_bytes;    /* [layers + 1]: of all tensors alive before layer i */
    uint64_t *weight_bytes; /* [layers], once prepared */
    uint64_t *arena_bytes;  /* [layers]: alive while it runs; an arena is about the largest of its
                               stage's */
    size_t first_mixed;     /* layers up to the first with weights that mix inputs (a convolution, a
                               matrix product), that one included: behind them no input can be
                               read off; at least 1, at most layers */
};

/* 0 with numbers for model_numbers_fini(), or -ENOMEM. Any thread. */
int model_numbers_init(struct model_numbers *numbers, const struct model *model);
void model_numbers_fini(struct model_numbers *numbers);

#endif
