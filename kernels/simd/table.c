/* One level's table. */
#include "functions.h"
#include "vec.h"

const struct kn_simd KN_SIMD(kn_simd_table) = {
    .name = VF_NAME,
    .lanes = VF_LANES,
    .matvec_rows = KN_SIMD(kn_matvec_rows),
    .matvec_columns = KN_SIMD(kn_matvec_columns),
    .act_row = KN_SIMD(kn_act_row),
    .panel_rows = TILE_ROWS,
    .strip_cols = TILE_VECTORS * VF_LANES,
    .multiply_block = KN_SIMD(kn_multiply_block),
    .copy_to_strips = KN_SIMD(kn_copy_to_strips),
};
