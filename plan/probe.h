/* The rate of a link by messages that are sent ahead of their answers. Pure. */
#ifndef CONVOY_PLAN_PROBE_H
#define CONVOY_PLAN_PROBE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes per microsecond that the answers to count messages of `bytes` each say: when each answer
 * came, in microseconds, rising. The first quarter does not count: TCP is finding the rate, and
 * what shapers had saved is being spent. 0 when they say nothing. */
double probe_rate(const uint64_t *answered_us, size_t count, size_t bytes);

#endif
