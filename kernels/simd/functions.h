/* What the files of this folder define, under the name of their level; simd.h says what each does.
 */
#ifndef KERNELS_SIMD_FUNCTIONS_H
#define KERNELS_SIMD_FUNCTIONS_H

#include "../simd.h"
#include "vec.h"

extern const struct kn_simd KN_SIMD(kn_simd_table);

void KN_SIMD(kn_matvec_rows)(const struct kn_matvec *m);
void KN_SIMD(kn_matvec_columns)(const struct kn_matvec *m);
void KN_SIMD(kn_act_row)(const struct kn_activation *act, const float *x, float *y,
                         ptrdiff_t count);

#endif
