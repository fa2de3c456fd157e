#include "ctl/labels.h"

#include <math.h>
#include <string.h>

bool labels_is_class_vector(const struct tensor_desc *outputs, size_t count) {
    size_t elements;
    if (count != 1 || outputs[0].dtype != DTYPE_FLOAT ||
        tensor_desc_count(&outputs[0], &elements) != 0 || elements < 2)
        return false;
    for (int i = 0; i < outputs[0].rank; i++)
        if ((size_t)outputs[0].dims[i] == elements)
            return true;
    return false;
}

/* True when class a comes before class b. */
static bool is_before(const float *scores, size_t a, size_t b) {
    if (isnan(scores[a]) || isnan(scores[b]))
        return isnan(scores[b]) && (!isnan(scores[a]) || a < b);
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
}

size_t labels_top(const struct sidecar *sidecar, const float *scores, size_t count, size_t top,
                  struct labels_class *ret_classes) {
    size_t found = 0;
    double max = -INFINITY, sum = 0;
    if (top > LABELS_TOP_MAX)
        top = LABELS_TOP_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t at = found;
        while (at > 0 && is_before(scores, i, ret_classes[at - 1].index))
            at--;
        if (at == top)
            continue;
        if (found < top)
            found++;
        memmove(&ret_classes[at + 1], &ret_classes[at], (found - 1 - at) * sizeof(ret_classes[0]));
        ret_classes[at].index = i;
    }
    for (size_t i = 0; sidecar->softmax && i < count; i++)
        if (scores[i] > max)
            max = scores[i];
    for (size_t i = 0; sidecar->softmax && i < count; i++)
        sum += exp(scores[i] - max);
    for (size_t i = 0; i < found; i++) {
        struct labels_class *c = &ret_classes[i];
        c->label = c->index < sidecar->labels_count ? sidecar->labels[c->index] : NULL;
        c->probability = sidecar->softmax ? exp(scores[c->index] - max) / sum : scores[c->index];
    }
    return found;
}

static double half_to_double(uint16_t half) {
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double value = exponent == 31 ? (fraction ? NAN : INFINITY)
                   : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                  : ldexp(fraction, -24);
    return half & 0x8000 ? -value : value;
}

static double element(const struct tensor *tensor, size_t i) {
    switch (tensor->desc.dtype) {
    case DTYPE_FLOAT:
        return ((const float *)tensor->data)[i];
    case DTYPE_DOUBLE:
        return ((const double *)tensor->data)[i];
    case DTYPE_FLOAT16:
        return half_to_double(((const uint16_t *)tensor->data)[i]);
    case DTYPE_INT8:
        return ((const int8_t *)tensor->data)[i];
    case DTYPE_INT16:
        return ((const int16_t *)tensor->data)[i];
    case DTYPE_UINT16:
        return ((const uint16_t *)tensor->data)[i];
    case DTYPE_UINT32:
        return ((const uint32_t *)tensor->data)[i];
    case DTYPE_UINT64:
        return (double)((const uint64_t *)tensor->data)[i];
    case DTYPE_INT32:
        return ((const int32_t *)tensor->data)[i];
    case DTYPE_INT64:
        return (double)((const int64_t *)tensor->data)[i];
    case DTYPE_UINT8:
    case DTYPE_BOOL:
        return ((const uint8_t *)tensor->data)[i];
    case DTYPE_NONE:
        break;
    }
    return NAN;
}

void labels_range(const struct tensor *tensor, struct labels_range *ret_range) {
    struct labels_range range = {0};
    size_t count = 0, numbers = 0;
    double sum = 0;
    if (tensor_desc_count(&tensor->desc, &count) != 0)
        count = 0;
    for (size_t i = 0; i < count; i++) {
        double value = element(tensor, i);
        if (isnan(value)) {
            range.nans++;
            continue;
        }
        if (numbers == 0 || value < range.min)
            range.min = value;
        if (numbers == 0 || value > range.max)
            range.max = value;
        sum += value;
        numbers++;
    }
    if (numbers)
        range.mean = sum / (double)numbers;
    *ret_range = range;
}
