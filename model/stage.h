/* Inside of struct stage: steps over slots. Private to model/.
 *
 * A slot is a tensor that exists while a stage runs: its inputs and what its layers make. Slots
 * that are one another's bytes (views, results computed in place, parts of a joint tensor) share a
 * buffer; a buffer lies in the arena, or is the caller's: a stage input or a stage output.
 */
#ifndef CONVOY_MODEL_STAGE_H
#define CONVOY_MODEL_STAGE_H

#include "model/net.h"
#include "model/prepare.h"

#define STAGE_NONE UINT32_MAX

enum stage_place { PLACE_ARENA, PLACE_INPUT, PLACE_OUTPUT };

struct stage_slot {
    const struct value *value;
    uint32_t buffer;
    size_t offset;     /* of its bytes in the buffer */
    uint32_t last_use; /* step; steps_count for outputs */
};

struct stage_buffer {
    enum stage_place place;
    size_t at; /* offset in the arena, or index of the input or output */
    size_t bytes;
    uint32_t from, to; /* steps */
};

struct stage_step {
    const struct layer *layer;
    struct prepared *prepared;
    uint32_t *in;      /* slot of each input of the layer; STAGE_NONE for constants and absent */
    uint32_t *out;     /* slot of each output */
    uint32_t residual; /* slot or STAGE_NONE */
    size_t workspace;  /* offset in the arena */
    bool copies;       /* a view whose bytes lie elsewhere: copied */
};

struct stage {
    atomic_int refs;
    struct model *model;
    size_t first, last;
    int threads;
    struct stage_step *steps;
    uint32_t steps_count;
    struct stage_slot *slots;
    uint32_t slots_count;
    struct stage_buffer *buffers;
    uint32_t buffers_count;
    uint32_t *output_slots;          /* STAGE_NONE: a constant */
    int *output_sources;             /* stage input, or -1 */
    bool *output_copies;             /* its bytes are made elsewhere, and copied at the end */
    struct tensor *output_constants; /* where output_slots is STAGE_NONE: its numbers, owned */
    size_t outputs_count;
    uint32_t *indices; /* of all steps' in and out */
    size_t arena_bytes;
    uint64_t weight_bytes;
};

/* Slots, buffers and their places; steps have their layers and weights already (stage_plan.c). */
int stage_plan(struct stage *stage, struct err *err);

#endif
