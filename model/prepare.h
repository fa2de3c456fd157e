/* Weights of one layer as its kernel wants them. Kept once per model while any stage uses them. */
#ifndef CONVOY_MODEL_PREPARE_H
#define CONVOY_MODEL_PREPARE_H

#include "model/net.h"

struct prepared {
    struct prepared *next; /* of the same layer, for another number of threads */
    size_t refs;
    int threads;
    void *packed; /* NULL: nothing */
    size_t workspace_bytes;
    struct tensor *constants; /* per input of the layer: description of constants, and a copy of
                                 their numbers where run() reads them */
    size_t bytes;             /* of packed and constants */
};

/* Bytes that preparing would take, for one thread. */
int prepare_bytes(const struct layer *layer, uint64_t *ret, struct err *err);

/* With a reference for the caller; slow when the weights are not there yet. Any thread; several
 * layers of a model may be prepared at once. */
int prepare_get(struct model *model, const struct layer *layer, int threads, struct prepared **ret,
                struct err *err);
void prepare_put(struct model *model, const struct layer *layer, struct prepared *prepared);

#endif
