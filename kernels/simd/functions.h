/* What the files of this folder define, under the name of their level; simd.h says what each does.
 */
#ifndef KERNELS_SIMD_FUNCTIONS_H
#define KERNELS_SIMD_FUNCTIONS_H

#include "../simd.h"
#include "vec.h"

/* A tile of a product that fits the registers: rows x vectors of sums, the vectors of one step, and
 * one more. */
#if VF_REGISTERS == 32
#define TILE_ROWS    8
#define TILE_VECTORS 3
#elif defined(__AVX2__)
#define TILE_ROWS    4
#define TILE_VECTORS 3
#else
#define TILE_ROWS    4
#define TILE_VECTORS 2
#endif

extern const struct kn_simd KN_SIMD(kn_simd_table);

void KN_SIMD(kn_matvec_rows)(const struct kn_matvec *m);
void KN_SIMD(kn_matvec_columns)(const struct kn_matvec *m);
void KN_SIMD(kn_act_rows)(const struct kn_activation *act, const struct kn_act_rows *rows);
void KN_SIMD(kn_panel_times)(const struct kn_panel *p);
void KN_SIMD(kn_multiply_block)(const struct kn_block *block);
void KN_SIMD(kn_copy_to_strips)(const struct kn_to_strips *copy);
void KN_SIMD(kn_pack_panel)(const struct kn_rows *rows, ptrdiff_t height, float *to);
void KN_SIMD(kn_winograd_pack)(const struct kn_rows *rows, const struct kn_winograd_weights *to);
void KN_SIMD(kn_slide_fill)(const struct kn_slide *slide, const float *x, ptrdiff_t oy,
                            ptrdiff_t rows, float fill, bool again, float *scratch);
void KN_SIMD(kn_slide_sum)(const struct kn_slide_band *band, const struct kn_slide_sum *sum);
void KN_SIMD(kn_slide_max)(const struct kn_slide_band *band);
void KN_SIMD(kn_direct_row)(const struct kn_direct *d, const float *x, float *y);
void KN_SIMD(kn_lanes_in)(const struct kn_lanes *l, const float *x, ptrdiff_t pixels,
                          ptrdiff_t count, float *to);
void KN_SIMD(kn_lanes_sum)(const struct kn_lanes *l, const struct kn_lanes_sum *sum, ptrdiff_t rows,
                           const float *scratch, float *y);
void KN_SIMD(kn_lanes_out)(const struct kn_lanes *l, const float *from, ptrdiff_t pixels,
                           ptrdiff_t count, float *y);
void KN_SIMD(kn_winograd_in)(const struct kn_winograd *tiles, const struct kn_winograd_in *in);
void KN_SIMD(kn_winograd_out)(const struct kn_winograd *tiles, const struct kn_winograd_out *out);
void KN_SIMD(kn_qdots)(const struct kn_qdots *d);
void KN_SIMD(kn_qwindows)(const struct kn_qwindows *w);

#endif
