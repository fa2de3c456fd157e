#include "daemon/control/measure.h"

#include "model/numbers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_BYTES (UINT64_C(128) << 20) /* weights that are measured at once */

/* Layers [first, *ret_last) whose weights are measured at once. */
static size_t slice_end(const struct model_numbers *numbers, size_t first) {
    uint64_t bytes = numbers->weight_bytes[first];
    size_t last = first + 1;
    while (last < numbers->layers && bytes + numbers->weight_bytes[last] <= SLICE_BYTES)
        bytes += numbers->weight_bytes[last++];
    return last;
}

int measure_layers(struct model *model, const struct profile_options *options,
                   struct measure *ret_measure, struct err *err) {
    struct model_numbers numbers;
    struct measure measure = {.frames = SIZE_MAX};
    int rc = model_numbers_init(&numbers, model);
    if (rc < 0)
        return err_set(err, rc, "out of memory");
    measure.layers = numbers.layers;
    measure.layer_us = calloc(numbers.layers, sizeof(*measure.layer_us));
    if (!measure.layer_us)
        rc = err_set(err, -ENOMEM, "out of memory");
    for (size_t first = 0; rc == 0 && first < numbers.layers;) {
        struct profile profile;
        size_t last = slice_end(&numbers, first);
        rc = profile_measure(model, first, last, options, &profile, err);
        if (rc == 0) {
            memcpy(measure.layer_us + first, profile.layer_us, (last - first) * sizeof(double));
            measure.frames = profile.frames < measure.frames ? profile.frames : measure.frames;
            profile_fini(&profile);
        }
        first = last;
    }
    model_numbers_fini(&numbers);
    if (rc < 0)
        measure_fini(&measure);
    else
        *ret_measure = measure;
    return rc;
}

void measure_fini(struct measure *measure) {
    free(measure->layer_us);
    measure->layer_us = NULL;
}
