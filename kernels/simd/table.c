/* One level's table. */
#include "functions.h"
#include "vec.h"

#if defined(__AVX512F__)
/* Half a vector is enough for 7 x 7 planes. */
void kn_slide_sum__avx2(const struct kn_slide_band *band, const struct kn_slide_sum *sum);
void kn_slide_max__avx2(const struct kn_slide_band *band);
void kn_winograd_in__avx2(const struct kn_winograd *tiles, const struct kn_winograd_in *in);
void kn_winograd_out__avx2(const struct kn_winograd *tiles, const struct kn_winograd_out *out);
#define NARROW(name) name##__avx2
#else
#define NARROW(name) KN_SIMD(name)
#endif

const struct kn_simd KN_SIMD(kn_simd_table) = {
    .name = VF_NAME,
    .lanes = VF_LANES,
    .matvec_rows = KN_SIMD(kn_matvec_rows),
    .matvec_columns = KN_SIMD(kn_matvec_columns),
    .act_rows = KN_SIMD(kn_act_rows),
    .panel_times = KN_SIMD(kn_panel_times),
    .panel_rows = TILE_ROWS,
    .strip_cols = TILE_VECTORS * VF_LANES,
    .multiply_block = KN_SIMD(kn_multiply_block),
    .copy_to_strips = KN_SIMD(kn_copy_to_strips),
    .pack_panel = KN_SIMD(kn_pack_panel),
    .winograd_pack = KN_SIMD(kn_winograd_pack),
    .slide_fill = KN_SIMD(kn_slide_fill),
    .slide_sum = KN_SIMD(kn_slide_sum),
    .slide_sum_narrow = NARROW(kn_slide_sum),
    .slide_max = KN_SIMD(kn_slide_max),
    .slide_max_narrow = NARROW(kn_slide_max),
    .winograd_in = KN_SIMD(kn_winograd_in),
    .winograd_in_narrow = NARROW(kn_winograd_in),
    .winograd_out = KN_SIMD(kn_winograd_out),
    .winograd_out_narrow = NARROW(kn_winograd_out),
    .qdots = KN_SIMD(kn_qdots),
    .qwindows = KN_SIMD(kn_qwindows),
};
