/* A plan: which device runs which layers. Pure: no clock, no socket, no file.
 * Immutable once built; shared by its owner's rules. */
#ifndef CONVOY_PLAN_PLAN_H
#define CONVOY_PLAN_PLAN_H

#include "base/err.h"
#include "base/sha256.h"
#include "config/config.h"

#include <stddef.h>
#include <stdint.h>

struct plan_stage {
    char *node;
    char *address;
    size_t first, last; /* layers [first, last) */
};

/* The id is the SHA-256 of these bytes, integers little-endian, so that every device computes the
 * same from the same YAML:
 *
 *     "convoy plan 1\n"      14 bytes, the form of what follows
 *     model's identity       32 bytes (model_identity(): the file and its inputs' shapes)
 *     number of stages       8 bytes
 *     and for each stage, in order:
 *     first, last            8 bytes each
 *     length of node's name  8 bytes
 *     node's name            that many bytes, no NUL
 *
 * Addresses do not count: a device that moves to another address keeps its plan. */
struct plan {
    uint8_t id[SHA256_SIZE];
    uint8_t model_id[SHA256_SIZE];
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
int plan_build(const uint8_t model_id[SHA256_SIZE], size_t layers,
               const struct plan_request *requests, size_t count, struct plan **ret_plan,
               struct err *err);
void plan_free(struct plan *plan);

/* Builds the plan of config's `pipeline:` for a model of layers layers. untils: one index per
 * stage, of the layer its `until:` names (the caller asks the model); the last stage's is not read,
 * it runs to the end. As plan_build(), but a sentence starts with FILE:LINE:COLUMN of the stage at
 * fault; also -EINVAL when there is no pipeline. */
int plan_from_config(const struct config *config, const uint8_t model_id[SHA256_SIZE],
                     size_t layers, const size_t *untils, struct plan **ret_plan, struct err *err);

/* The stage of node in the plan, or -1. */
int plan_find_node(const struct plan *plan, const char *node);

#endif
