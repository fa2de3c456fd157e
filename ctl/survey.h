/* What a device and the link to it can do, asked of its daemon: how long each layer of a model
 * takes there, how fast messages get there and what they cost. docs/wire.md ("Measure", "Probe").
 */
#ifndef CONVOY_CTL_SURVEY_H
#define CONVOY_CTL_SURVEY_H

#include "ctl/profile_file.h"

#include <stdatomic.h>

/* A connection to one device. */
struct survey;

/* Connects to address. key: the file of the line's key; NULL: CONVOY_KEY's, or not encrypted. stop
 * (may be NULL) becoming true ends every call below with -ECANCELED. 0 with a survey for
 * survey_free(), or -errno with a sentence that starts with the address. Blocks; any thread, one at
 * a time. */
int survey_new(const char *address, const char *key, const atomic_bool *stop,
               struct survey **ret_survey, struct err *err);
void survey_free(struct survey *survey);

/* Fills in node, CPU, cores, workers, threads and facts of record, as the device says them. */
int survey_describe(struct survey *survey, struct profile_record *record, struct err *err);

/* Measures the link by tensor messages to the device: the median of a few rounds; and the CPU time
 * that they cost its loop. Takes a second at most where the link does 1 Mbit/s or more. */
int survey_probe(struct survey *survey, struct profile_link *ret_link, struct err *err);

/* Has the device measure all layers of model for at least so long; sends it the model where it does
 * not have it. Fills in layers, layer_us, frames and when of record. Also -EREMOTEIO with the
 * device's sentence when it refuses. */
int survey_measure(struct survey *survey, const struct model *model, double seconds,
                   struct profile_record *record, struct err *err);

#endif
