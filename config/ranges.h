/* MODEL.ranges.yaml beside MODEL.onnx: between what numbers the tensors that may travel lie, as
 * `convoyctl calibrate` has seen them. */
#ifndef CONVOY_CONFIG_RANGES_H
#define CONVOY_CONFIG_RANGES_H

#include "base/err.h"

#include <stddef.h>

#define RANGES_MAX 16384 /* tensors in a file */

struct ranges_entry {
    char *name; /* of the tensor */
    double min, max;
};

struct ranges {
    char *model; /* SHA-256 of the model's file, in hexadecimal */
    int frames;  /* that were looked at */
    struct ranges_entry *entries;
    size_t count;
};

/* "x.onnx" -> "x.ranges.yaml", malloc'd for the caller; NULL when there is no memory. */
char *ranges_path(const char *model_path);

/* Reads the ranges of a model: 0 with *ret_ranges for ranges_free(), or NULL there when it has
 * none. Errors as config_load(). Cold path, any thread. */
int ranges_load(const char *model_path, struct ranges **ret_ranges, struct err *err);
int ranges_parse(const char *text, size_t size, const char *name, struct ranges **ret_ranges,
                 struct err *err);
void ranges_free(struct ranges *ranges);

/* That of a tensor; NULL: there is none. ranges may be NULL. */
const struct ranges_entry *ranges_find(const struct ranges *ranges, const char *name);

/* What is plausible for a tensor that was seen between min and max: half as much again on either
 * side. */
void ranges_widen(const struct ranges_entry *entry, float *ret_min, float *ret_max);

#endif
