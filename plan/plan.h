/* A plan: which device runs which layers. Pure: no clock, no socket, no file.
 * Immutable once built; shared by its owner's rules. */
#ifndef CONVOY_PLAN_PLAN_H
#define CONVOY_PLAN_PLAN_H

#include "base/err.h"
#include "base/sha256.h"

#include <stddef.h>
#include <stdint.h>

struct plan_stage {
    char *node;
    char *address;
    size_t first, last; /* layers [first, last) */
};

struct plan {
    uint8_t id[SHA256_SIZE]; /* over model digest, layer ranges and node names, in order; addresses
                                do not count */
    uint8_t model_digest[SHA256_SIZE];
    struct plan_stage *stages;
    size_t count;
};

/* A stage as asked for. until is the index of its last layer, inclusive; the last stage's is layers
 * - 1. */
struct plan_request {
    const char *node;
    const char *address;
    size_t until;
};

/* Builds a plan of count >= 1 stages over layers >= count layers; copies the strings. -EINVAL with
 * a sentence when an until is not beyond the one before, the last does not reach the end, or a node
 * stands twice; -ENOMEM. */
int plan_build(const uint8_t model_digest[SHA256_SIZE], size_t layers,
               const struct plan_request *requests, size_t count, struct plan **ret_plan,
               struct err *err);
void plan_free(struct plan *plan);

/* The stage of node in the plan, or -1. */
int plan_find_node(const struct plan *plan, const char *node);

#endif
