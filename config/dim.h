/* A value for a symbolic dimension of a model, as both YAML files give it: `dims: {h: 320, w:
 * 320}`. */
#ifndef CONVOY_CONFIG_DIM_H
#define CONVOY_CONFIG_DIM_H

#include <stdint.h>

#define CONFIG_DIMS_MAX 64

struct config_dim {
    char *name;    /* as the model spells it, or "*" for all that nobody names */
    int64_t value; /* 1 .. 1000000 */
};

#endif
