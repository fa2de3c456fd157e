#include <math.h>

#include "../internal.h"

void kn_find_range_ref(const float *x, size_t count, struct kn_range *ret_range) {
    *ret_range = (struct kn_range){INFINITY, -INFINITY, 0};
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(x[i])) {
            ret_range->odd++;
            continue;
        }
        if (x[i] < ret_range->min)
            ret_range->min = x[i];
        if (x[i] > ret_range->max)
            ret_range->max = x[i];
    }
}
