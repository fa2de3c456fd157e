/* A histogram of times in fixed memory: 32 steps per power of two, so that a percentile is read
 * with less than 3.2 % error. Pure. */
#ifndef CONVOY_CTL_LATENCY_H
#define CONVOY_CTL_LATENCY_H

#include <stdint.h>

#define LATENCY_STEPS   32
#define LATENCY_BUCKETS (LATENCY_STEPS * 60)

struct latency {
    uint64_t buckets[LATENCY_BUCKETS];
    uint64_t count, sum, max; /* in the unit of what was added */
};

/* Zero-initialised storage is an empty histogram. */
void latency_add(struct latency *latency, uint64_t value);

/* Adds all of other's values. */
void latency_merge(struct latency *latency, const struct latency *other);

/* The value below or at which `share` (0 to 1) of all lie: the middle of its bucket, never above
 * the greatest value added. 0 when empty. */
double latency_percentile(const struct latency *latency, double share);

#endif
