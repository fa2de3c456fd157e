/* One level's table. */
#include "functions.h"
#include "vec.h"

#if defined(__AVX512F__)
/* Half a vector is enough for 7 x 7 planes. */
void kn_slide_max__avx2(const struct kn_slide_band *band);
void kn_winograd_in__avx2(const struct kn_winograd *tiles, const struct kn_winograd_in *in);
void kn_winograd_out__avx2(const struct kn_winograd *tiles, const struct kn_winograd_out *out);
void kn_lanes_in__avx2(const struct kn_lanes *l, const float *x, ptrdiff_t pixels, ptrdiff_t count,
                       float *to);
void kn_lanes_sum__avx2(const struct kn_lanes *l, const struct kn_lanes_sum *sum, ptrdiff_t rows,
                        const float *scratch, float *y);
void kn_lanes_out__avx2(const struct kn_lanes *l, const float *from, ptrdiff_t pixels,
                        ptrdiff_t count, float *y);
#define NARROW(name) name##__avx2
#define NARROW_LANES (VF_LANES / 2)
#else
#define NARROW(name) KN_SIMD(name)
#define NARROW_LANES VF_LANES
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
    .slide_max = KN_SIMD(kn_slide_max),
    .slide_max_narrow = NARROW(kn_slide_max),
    .direct_row = KN_SIMD(kn_direct_row),
    .by_lanes = {VF_LANES, KN_SIMD(kn_lanes_in), KN_SIMD(kn_lanes_sum), KN_SIMD(kn_lanes_out)},
    .by_half_lanes = {NARROW_LANES, NARROW(kn_lanes_in), NARROW(kn_lanes_sum),
                      NARROW(kn_lanes_out)},
    .winograd_in = KN_SIMD(kn_winograd_in),
    .winograd_in_narrow = NARROW(kn_winograd_in),
    .winograd_out = KN_SIMD(kn_winograd_out),
    .winograd_out_narrow = NARROW(kn_winograd_out),
    .qdots = KN_SIMD(kn_qdots),
    .qwindows = KN_SIMD(kn_qwindows),
};
