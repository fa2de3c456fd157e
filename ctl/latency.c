#include "ctl/latency.h"

/* Values below LATENCY_STEPS have a bucket each; above, the five bits behind the highest one count.
 */
static uint32_t bucket_of(uint64_t value) {
    if (value < LATENCY_STEPS)
        return (uint32_t)value;
    uint32_t shift = 63 - 5 - (uint32_t)__builtin_clzll(value);
    return (shift + 1) * LATENCY_STEPS + (uint32_t)(value >> shift) - LATENCY_STEPS;
}

static double middle_of(uint32_t bucket) {
    if (bucket < LATENCY_STEPS)
        return bucket;
    uint32_t shift = bucket / LATENCY_STEPS - 1;
    uint64_t low = (uint64_t)(LATENCY_STEPS + bucket % LATENCY_STEPS) << shift;
    return (double)low + (double)((1ull << shift) - 1) / 2;
}

void latency_add(struct latency *latency, uint64_t value) {
    latency->buckets[bucket_of(value)]++;
    latency->count++;
    latency->sum += value;
    if (value > latency->max)
        latency->max = value;
}

void latency_merge(struct latency *latency, const struct latency *other) {
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++)
        latency->buckets[i] += other->buckets[i];
    latency->count += other->count;
    latency->sum += other->sum;
    if (other->max > latency->max)
        latency->max = other->max;
}

double latency_percentile(const struct latency *latency, double share) {
    double wanted = share * (double)latency->count;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (latency->buckets[i] && (double)seen >= wanted) {
            double value = middle_of(i);
            return value < (double)latency->max ? value : (double)latency->max;
        }
    }
    return (double)latency->max;
}
