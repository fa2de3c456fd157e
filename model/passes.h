/* Helpers of the passes. */
#ifndef CONVOY_MODEL_PASSES_H
#define CONVOY_MODEL_PASSES_H

#include "model/net.h"

/* The layer that makes value; NULL for inputs and constants. */
struct layer *passes_producer(const struct model *model, const struct value *value);

/* Whether no layer but `only` reads the value, and it is no output of the graph. */
bool passes_private(const struct model *model, const struct value *value, const struct layer *only);

#endif
