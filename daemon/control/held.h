/* A plan that this device holds, with its own stage prepared. Built off the loop, immutable then
 * but for the fields that the loop keeps about it. Shared by reference count, on the loop's thread.
 */
#ifndef CONVOY_DAEMON_CONTROL_HELD_H
#define CONVOY_DAEMON_CONTROL_HELD_H

#include "base/tensor.h"
#include "config/config.h"
#include "config/ranges.h"
#include "model/model.h"
#include "plan/plan.h"

#include <stdbool.h>

struct link;
struct peer;

/* Between what numbers an input's are plausible. */
struct held_range {
    float min, max; /* what was seen, and half as much again on either side */
};

struct held {
    uint8_t id[SHA256_SIZE];
    struct plan *plan;
    size_t index;              /* of this device in the plan */
    size_t count;              /* of all devices */
    bool is_last;              /* its stage runs to the end */
    struct model *model;       /* the whole one, or the part with this device's stage */
    size_t base;               /* the layer of the plan that is the model's first */
    char *model_name;          /* its file's name, for people */
    bool is_deployed;          /* it came over the wire, not from the configuration */
    uint8_t part[SHA256_SIZE]; /* of its file in the cache; zeros where the model is whole */
    struct stage *stage;       /* NULL where held_build() met a plan that is known already */
    struct exec **execs;       /* one per worker; a worker touches its own only */
    size_t execs_count;
    const struct tensor_desc *inputs, *outputs; /* the stage's */
    size_t inputs_count, outputs_count;
    struct held_range *ranges;      /* of each input; NULL: none is known */
    uint8_t inputs_id[SHA256_SIZE]; /* over names, types and shapes: equal inputs, equal ids */
    size_t *output_offsets;         /* of each computed output in a frame's output buffer */
    size_t output_bytes;            /* that buffer's size; 0 when all outputs pass through */
    size_t payload_bytes;           /* of a message with all outputs */
    size_t input_bytes;             /* of one with all inputs, at most */
    size_t result_bytes;            /* of the plan's results, at most */

    /* The loop's notes. */
    struct link *links[PLAN_REPLICAS_MAX]; /* to the devices of the next stage */
    size_t links_count;                    /* 0 on the last stage */
    bool next_ready;                       /* one of them at least has announced this plan */
    bool next_whole;                       /* all of them have */
    const struct peer
        *ingress;       /* whose wish it is that a deployed plan is held; NULL: it has gone */
    size_t frames;      /* that are on this device under this plan */
    uint64_t since_us;  /* when it was adopted, or became the newest again */
    uint64_t used_us;   /* when a frame last came under it; 0: never */
    uint64_t ready_us;  /* when it became ready, 0: it is not */
    uint64_t active_us; /* when the ingress took it into use; 0: never */
    unsigned refs;
};

/* What a stage is prepared for. Numbers only: whoever builds off the loop has a copy. */
struct held_settings {
    int workers;          /* execs */
    int threads;          /* of each */
    uint32_t max_payload; /* of every message of the plan that comes past this device */
    uint64_t memory;      /* bytes that weights and arenas may take; UINT64_MAX: no limit */
};

/* A stage to be prepared from a model that is open. */
struct held_order {
    struct plan *plan;
    size_t index;
    struct model *model; /* a reference for held is taken */
    size_t base;         /* as held.base */
    size_t result_bytes; /* payload of a result, where the model has no layers behind this stage */
    const struct ranges *ranges; /* of the model's tensors, or NULL; borrowed */
    const char *model_name;      /* for people; copied */
    const char *where;           /* in front of sentences: a path; borrowed */
    bool is_deployed;
    struct held_settings settings;
};

/* Opens config's model with the dimensions of the YAML first, then those of its sidecar. As
 * model_open(); sentences begin with FILE:LINE. Slow: off the loop, any thread. */
int held_open_model(const struct config *config, struct model **ret_model, struct err *err);

/* Prepares the stage of an order, with one exec for each worker. Slow: off the loop, any thread. 0
 * with a reference for the caller: then it owns order->plan. Errors are sentences: those of
 * stage_new(), exec_new(); -EMSGSIZE when a cut does not fit max_payload; -ENOMEM also when weights
 * and arenas take more than settings.memory, or than the system has left (memory.h). */
int held_build_order(const struct held_order *order, struct held **ret_held, struct err *err);

/* A plan that is held already, named again: id, plan (taken), index and count only, for
 * planset_add(). NULL when there is no memory; then the plan is still the caller's. */
struct held *held_new_known(struct plan *plan, size_t index);

/* Reads the model, makes the plan of config's pipeline and prepares this node's stage. When the
 * plan's id is one of known, it is held_new_known(): there is nothing to prepare. 0 with a
 * reference for the caller, or with *ret_held NULL when the node is not in the pipeline, or when it
 * plans the line itself: then the model is opened only to see that it can be. Errors are
 * sentences with FILE:LINE:COLUMN: those of held_open_model(), plan_from_config(),
 * held_build_order(). Slow: off the loop, any thread. */
int held_build(const struct config *config, const uint8_t (*known)[SHA256_SIZE], size_t known_count,
               struct held **ret_held, struct err *err);

struct held *held_ref(struct held *held);
void held_unref(struct held *held);

bool held_is_first(const struct held *held);
bool held_is_last(const struct held *held);

/* True when frames under this plan get to its end from here. */
bool held_is_ready(const struct held *held);

/* True when they do by every device of the next stage. */
bool held_is_whole(const struct held *held);

/* The devices of the next stage for a sentence: "pi-b", "pi-b or pi-c"; cut short where they do not
 * fit. Empty on the last stage. Returns buf. */
const char *held_next_names(const struct held *held, char *buf, size_t size);

/* A layer of the plan's that this device runs. Borrowed from the model. */
const struct model_layer *held_layer(const struct held *held, size_t index);

/* Layers of the plan's whole model. */
size_t held_layers_count(const struct held *held);

/* True when model is the whole one. */
bool held_has_whole_model(const struct held *held);

/* What its weights and arenas take. */
uint64_t held_memory(const struct held *held);

#endif