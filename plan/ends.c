#include "plan/ends.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MAX (64u << 20)

struct key {
    double time;
    uint32_t cut;
};

static int compare(const void *a, const void *b) {
    const struct key *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    return x->cut < y->cut ? -1 : 1;
}

/* The order, and each of its beginnings. */
static void fill(struct ends *ends, const struct cost *cost, size_t device, struct key *keys) {
    size_t words = ends->words;
    for (size_t i = 0; i < ends->layers; i++)
        keys[i] = (struct key){cost_end_us(cost, device, i + 1), (uint32_t)(i + 1)};
    qsort(keys, ends->layers, sizeof(*keys), compare);
    for (size_t i = 0; i < ends->layers; i++) {
        uint64_t *set = ends->prefix + (i + 1) * words;
        ends->order[i] = keys[i].cut;
        memcpy(set, set - words, words * sizeof(*set));
        set[keys[i].cut / 64] |= UINT64_C(1) << keys[i].cut % 64;
    }
}

int ends_init(struct ends *ends, const struct cost *cost, size_t device, size_t words) {
    const struct cost_device *at = cost_device(cost, device);
    size_t layers = cost_network(cost)->layers;
    *ends = (struct ends){.layers = layers, .words = words};
    if (at->byte_us == 0 && at->message_us == 0)
        return 0;
    if (words > BYTES_MAX / sizeof(uint64_t) / (layers + 1))
        return -E2BIG;
    struct key *keys = calloc(layers, sizeof(*keys));
    ends->order = calloc(layers, sizeof(*ends->order));
    ends->prefix = calloc((layers + 1) * words, sizeof(*ends->prefix));
    bool has_all = keys && ends->order && ends->prefix;
    if (has_all)
        fill(ends, cost, device, keys);
    free(keys);
    if (!has_all)
        ends_fini(ends);
    return has_all ? 0 : -ENOMEM;
}

void ends_fini(struct ends *ends) {
    free(ends->order);
    free(ends->prefix);
    ends->order = NULL;
    ends->prefix = NULL;
}

size_t ends_count(const struct ends *ends, const struct cost *cost, size_t device, size_t first,
                  double divisor, double period) {
    size_t low = 0, high = ends->layers; /* the first low keep it, those from high on do not */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (cost_time_us(cost, device, first, ends->order[middle]) / divisor <= period)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const uint64_t *ends_set(const struct ends *ends, size_t count) {
    return ends->prefix + count * ends->words;
}
