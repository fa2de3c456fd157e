#include "model/values.h"

#include "kernels/kernels.h"

void values_scan(const struct tensor *tensor, struct values *ret_values) {
    struct kn_range range;
    size_t count = 0;
    if (tensor->desc.dtype != DTYPE_FLOAT || tensor_desc_count(&tensor->desc, &count) < 0)
        count = 0;
    kn_find_range(tensor->data, count, &range);
    *ret_values = (struct values){range.min, range.max, range.odd};
}
