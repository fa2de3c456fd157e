/* What algorithms over packed products share: weights in panels, and the activation at the end of a
 * block. simd.h has the formats. */
#ifndef KERNELS_PACKED_H
#define KERNELS_PACKED_H

#include "simd.h"

/* Floats of [rows][depth] as panels: whole panels. kn_panels_fit() has found them to fit. */
size_t kn_panels_count(const struct kn_simd *simd, ptrdiff_t rows, ptrdiff_t depth);

/* Whether `matrices` of them and a bias for each of biases rows fit memory's addresses. */
bool kn_panels_fit(const struct kn_simd *simd, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t matrices,
                   ptrdiff_t biases);

/* Panels [depth][panel_rows], one after the other; rows that are missing are 0. */
void kn_panels_pack(const struct kn_simd *simd, const struct kn_rows *rows, float *panels);

/* Rows [first, first + count) of them, as many as there are. */
struct kn_rows kn_rows_part(const struct kn_rows *rows, ptrdiff_t first, ptrdiff_t count);

/* The bounds that stand for an activation: false when it is more than bounds; then they bound
 * nothing. */
bool kn_act_bounds(const struct kn_activation *act, float *ret_low, float *ret_high);

#endif
