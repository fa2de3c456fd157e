#include <math.h>
#include <string.h>

#include "internal.h"

#define LANES    16
#define INF_BITS 0x7f800000 /* of |x|: these and greater ones are infinite or NaN */

/* Side by side, without branches: the compiler makes vectors of the inner loop. */
static KN_CLONES void scan(const float *x, size_t count, struct kn_range *range) {
    float min[LANES], max[LANES];
    int32_t odd[LANES] = {0};
    size_t i = 0;

    for (int j = 0; j < LANES; j++) {
        min[j] = INFINITY;
        max[j] = -INFINITY;
    }
    for (; i + LANES <= count; i += LANES) {
        int32_t bits[LANES];
        memcpy(bits, x + i, sizeof(bits));
        for (int j = 0; j < LANES; j++) {
            int32_t is_odd = (bits[j] & INT32_MAX) >= INF_BITS;
            float low = is_odd ? INFINITY : x[i + (size_t)j];
            float high = is_odd ? -INFINITY : x[i + (size_t)j];
            odd[j] += is_odd;
            min[j] = low < min[j] ? low : min[j];
            max[j] = high > max[j] ? high : max[j];
        }
    }
    for (; i < count; i++) {
        if (!isfinite(x[i])) {
            odd[0]++;
        } else {
            min[0] = x[i] < min[0] ? x[i] : min[0];
            max[0] = x[i] > max[0] ? x[i] : max[0];
        }
    }
    for (int j = 0; j < LANES; j++) {
        range->min = min[j] < range->min ? min[j] : range->min;
        range->max = max[j] > range->max ? max[j] : range->max;
        range->odd += (size_t)odd[j];
    }
}

void kn_find_range(const float *x, size_t count, struct kn_range *ret_range) {
    *ret_range = (struct kn_range){INFINITY, -INFINITY, 0};
    while (count > 0) {
        size_t part = count < INT32_MAX ? count : INT32_MAX;
        scan(x, part, ret_range);
        x += part;
        count -= part;
    }
}
