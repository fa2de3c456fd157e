/* What the numbers of a tensor are like. */
#ifndef CONVOY_MODEL_VALUES_H
#define CONVOY_MODEL_VALUES_H

#include "base/tensor.h"

struct values {
    float min,
        max;    /* of those that are finite; min > max: there are none, or they are not looked at */
    size_t odd; /* how many are NaN or infinite */
};

/* Looks at every number of a float32 tensor; of other types at none. Any thread. */
void values_scan(const struct tensor *tensor, struct values *ret_values);

#endif
