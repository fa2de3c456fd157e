/* From a network's last tensor to what people read: classes, labels, probabilities. Pure. */
#ifndef CONVOY_CTL_LABELS_H
#define CONVOY_CTL_LABELS_H

#include "base/tensor.h"
#include "config/sidecar.h"

#define LABELS_TOP_MAX 1000

struct labels_class {
    size_t index;
    const char *label;  /* NULL: the sidecar has none for it; borrowed from the sidecar */
    double probability; /* or the model's own score */
};

/* True for one float32 tensor of at least two elements in which all dimensions but one are 1: the
 * scores of classes. */
bool labels_is_class_vector(const struct tensor_desc *outputs, size_t count);

/* The up to `top` (at most LABELS_TOP_MAX) classes of highest score, highest first, of equal ones
 * the lower index first; NaN comes last. With sidecar->softmax the scores go through a softmax over
 * all classes. Returns how many were written to ret_classes. */
size_t labels_top(const struct sidecar *sidecar, const float *scores, size_t count, size_t top,
                  struct labels_class *ret_classes);

/* Least, greatest and mean of a tensor's elements as numbers; NaN elements are left out and
 * counted. All 0 without elements. */
struct labels_range {
    double min, max, mean;
    size_t nans;
};
void labels_range(const struct tensor *tensor, struct labels_range *ret_range);

#endif
