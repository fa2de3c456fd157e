/* Shared by the files of quantised arithmetic. */
#ifndef KERNELS_QUANTIZED_INTERNAL_H
#define KERNELS_QUANTIZED_INTERNAL_H

#include "internal.h"
#include "quantized.h"
#include "simd.h"

/* Element i of an array of KN_UINT8 or KN_INT8; 0 for NULL. */
int32_t kn_byte(enum kn_type type, const void *x, size_t i);

/* Elements [at, at + count) of y: saturate(round(sums[i] * scale[i * step]) + zero), or the sums
 * themselves where type is KN_INT32 (scale is then not read). */
void kn_requantize_row(enum kn_type type, const int32_t *sums, const float *scale, size_t step,
                       int32_t zero, void *y, ptrdiff_t at, ptrdiff_t count);

#endif
