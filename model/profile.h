/* How long each layer takes on this device, while as many frames are computed side by side as the
 * daemon would: the mean over the middle half of all frames (by their time), so that a neighbour's
 * noise does not count, while layers add up to a frame where a quota interrupts every one. */
#ifndef CONVOY_MODEL_PROFILE_H
#define CONVOY_MODEL_PROFILE_H

#include "model/model.h"

#include <stdatomic.h>

#define PROFILE_WORKERS_MAX 256

struct profile_options {
    int workers, threads;    /* 0 is 1 */
    double seconds;          /* at least this long, and 5 frames of each worker; 256 at most */
    const atomic_bool *stop; /* NULL, or ends it early when it becomes true: -ECANCELED */
};

struct profile {
    size_t first, last;   /* layers [first, last) */
    double *layer_us;     /* [last - first]: means over the middle half of all frames */
    double frame_us;      /* of a whole frame: their sum */
    size_t frames;        /* that were measured */
    uint64_t arena_bytes; /* of one worker of this stage */
};

/* Measures layers [first, last) with inputs of numbers between 0 and 1. 0 with a profile for
 * profile_fini(), or what stage_new() and exec_run() say, -EAGAIN when threads cannot be started,
 * -ENOMEM. Slow: off the loop. */
int profile_measure(struct model *model, size_t first, size_t last,
                    const struct profile_options *options, struct profile *ret_profile,
                    struct err *err);
void profile_fini(struct profile *profile);

#endif
