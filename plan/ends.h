/* Where a device may end a stage, when messages cost it CPU time: then a stage that ends later may
 * take less, and the ends that keep a period are a set. Sorted by what a stage up to each takes, it
 * is a beginning of that order, whatever the period and wherever the stage begins. Private to
 * plan/. */
#ifndef CONVOY_PLAN_ENDS_H
#define CONVOY_PLAN_ENDS_H

#include "plan/cost.h"

struct ends {
    uint32_t *order; /* [layers]: cuts 1 .. layers by what a stage up to there takes; NULL: messages
                        cost nothing, so that what ends later takes longer */
    uint64_t *prefix; /* [layers + 1][words]: the first so many of them as bits */
    size_t layers, words;
};

/* Sorts the ends of a device's stages. words: of a set of cuts, with a bit for `layers`. 0,
 * -ENOMEM, or -E2BIG where the sets would take more than 64 MB. */
int ends_init(struct ends *ends, const struct cost *cost, size_t device, size_t words);
void ends_fini(struct ends *ends);

/* How many of the order keep the period, for a stage from cut first whose time is divided by
 * divisor: exactly those for which cost_time_us() / divisor <= period. Only where there is an
 * order. */
size_t ends_count(const struct ends *ends, const struct cost *cost, size_t device, size_t first,
                  double divisor, double period);

/* The first count of the order, as bits. */
const uint64_t *ends_set(const struct ends *ends, size_t count);

#endif
