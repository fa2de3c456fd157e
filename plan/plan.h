/* A plan: which device runs which layers. Pure: no clock, no socket, no file.
 * Immutable once built; shared by its owner's rules. */
#ifndef CONVOY_PLAN_PLAN_H
#define CONVOY_PLAN_PLAN_H

#include "base/err.h"
#include "base/sha256.h"
#include "config/config.h"

#include <stddef.h>
#include <stdint.h>

#define PLAN_REPLICAS_MAX CONFIG_REPLICAS_MAX

/* One device's part. Devices that share a stage (its replicas) have the same layers and stand one
 * after the other; each frame is computed by one of them. */
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
 *     number of devices      8 bytes
 *     and for each device, in order:
 *     first, last            8 bytes each
 *     length of node's name  8 bytes
 *     node's name            that many bytes, no NUL
 *
 * Addresses do not count: a device that moves to another address keeps its plan. */
struct plan {
    uint8_t id[SHA256_SIZE];
    uint8_t model_id[SHA256_SIZE];
    struct plan_stage *stages; /* one for each device, in the line's order */
    size_t count;
};

/* A device as asked for. until is the index of its last layer, inclusive; the last stage's is
 * layers - 1. shares: it is a replica of the device before it, whose until it has. */
struct plan_request {
    const char *node;
    const char *address;
    size_t until;
    bool shares;
};

/* Builds a plan of count >= 1 devices over layers; copies the strings. -EINVAL with a sentence when
 * an until is not beyond the one before, the last does not reach the end, a node stands twice, the
 * first stage is shared, or one by more than PLAN_REPLICAS_MAX; -ENOMEM. */
int plan_build(const uint8_t model_id[SHA256_SIZE], size_t layers,
               const struct plan_request *requests, size_t count, struct plan **ret_plan,
               struct err *err);
void plan_free(struct plan *plan);

/* Builds the plan of config's `pipeline:` for a model of layers layers. untils: one index per
 * device, of the layer its `until:` names (the caller asks the model); where there is none it is
 * not read, that stage runs to the end. As plan_build(), but a sentence starts with
 * FILE:LINE:COLUMN of the stage at fault; also -EINVAL when there is no pipeline. */
int plan_from_config(const struct config *config, const uint8_t model_id[SHA256_SIZE],
                     size_t layers, const size_t *untils, struct plan **ret_plan, struct err *err);

/* The index of node in the plan, or -1. */
int plan_find_node(const struct plan *plan, const char *node);

/* The devices of the stage that device index runs: the first one's index, and how many. */
size_t plan_replicas(const struct plan *plan, size_t index, size_t *ret_count);

/* The devices of the stage behind that of device index; *ret_count 0 when there is none. */
size_t plan_next(const struct plan *plan, size_t index, size_t *ret_count);

/* Which stage device index runs, from 1; of the last device it is the number of stages. */
size_t plan_stage_number(const struct plan *plan, size_t index);

#endif
