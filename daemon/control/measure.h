/* How long each layer of a model takes here, for planning. */
#ifndef CONVOY_DAEMON_CONTROL_MEASURE_H
#define CONVOY_DAEMON_CONTROL_MEASURE_H

#include "model/model.h"
#include "model/profile.h"

#include <stdint.h>

#define MEASURE_SECONDS_MAX 60

/* What was measured. */
struct measure {
    size_t layers;
    double *layer_us; /* [layers] of one frame while all workers are busy */
    size_t frames;    /* that were measured, of each layer */
};

/* Measures all layers, as many at once as have 128 MiB of weights, so that a model that does not
 * fit this device as a whole is measured all the same. 0 with a measure for measure_fini(), or as
 * profile_measure(). Slow: off the loop, any thread. */
int measure_layers(struct model *model, const struct profile_options *options,
                   struct measure *ret_measure, struct err *err);
void measure_fini(struct measure *measure);

#endif
