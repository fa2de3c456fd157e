/* A plan that this device holds, with its own stage prepared. Built off the loop, immutable then
 * but for the fields that the loop keeps about it. Shared by reference count, on the loop's thread.
 */
#ifndef CONVOY_DAEMON_CONTROL_HELD_H
#define CONVOY_DAEMON_CONTROL_HELD_H

#include "base/tensor.h"
#include "config/config.h"
#include "model/model.h"
#include "plan/plan.h"

#include <stdbool.h>

struct link;

struct held {
    uint8_t id[SHA256_SIZE];
    struct plan *plan;
    size_t index; /* of this device's stage */
    size_t count; /* of all stages */
    struct model *model;
    struct stage *stage; /* NULL where held_build() met a plan that is known already */
    struct exec **execs; /* one per worker; a worker touches its own only */
    size_t execs_count;
    const struct tensor_desc *inputs, *outputs; /* the stage's */
    size_t inputs_count, outputs_count;
    uint8_t inputs_id[SHA256_SIZE]; /* over names, types and shapes: equal inputs, equal ids */
    size_t *output_offsets;         /* of each computed output in a frame's output buffer */
    size_t output_bytes;            /* that buffer's size; 0 when all outputs pass through */
    size_t payload_bytes;           /* of a message with all outputs */

    /* The loop's notes. */
    struct link *link;  /* to the next device; NULL on the last stage */
    bool next_ready;    /* the next device has announced this plan */
    size_t frames;      /* that are on this device under this plan */
    uint64_t since_us;  /* when it was adopted, or became the newest again */
    uint64_t used_us;   /* when a frame last came under it; 0: never */
    uint64_t ready_us;  /* when it became ready, 0: it is not */
    uint64_t active_us; /* when the ingress took it into use; 0: never */
    unsigned refs;
};

/* Reads the model, makes the plan of config's pipeline and prepares this node's stage with one exec
 * for each of config->workers. Slow: off the loop, any thread. When the plan's id is one of known,
 * only plan, id, index and count are filled in: there is nothing to prepare. 0 with a reference for
 * the caller, or with *ret_held NULL when the node is not in the pipeline. Errors are sentences
 * with FILE:LINE:COLUMN: those of model_open(), plan_from_config(), stage_new(), exec_new();
 * -EMSGSIZE when a cut does not fit max_payload. */
int held_build(const struct config *config, const uint8_t (*known)[SHA256_SIZE], size_t known_count,
               struct held **ret_held, struct err *err);

struct held *held_ref(struct held *held);
void held_unref(struct held *held);

bool held_is_first(const struct held *held);
bool held_is_last(const struct held *held);

/* True when frames under this plan get to its end from here. */
bool held_is_ready(const struct held *held);

#endif
