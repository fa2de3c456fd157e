/* Convolutions of few input channels straight from a padded band: the product of gemm.c, but a row
 * of the matrix begins wherever its tap does in the band, so nothing is gathered first. An element
 * is the sum of its products in the order of the weights.
 */
#include "functions.h"

#define MR TILE_ROWS
#define NV TILE_VECTORS

/* nv whole vectors of columns for up to MR output channels. */
INLINED void direct_tile(const struct kn_direct *d, const float *x, const float *w,
                         const float *bias, ptrdiff_t rows, const int nv, float *y) {
    const vf low = vf_set(d->low), high = vf_set(d->high);
    vf sums[MR][NV] = {0};

    for (ptrdiff_t k = 0; k < d->depth; k++, w += MR) {
        const float *from = x + d->offsets[k];
        vf columns[NV];
        for (int v = 0; v < nv; v++)
            columns[v] = vf_load(from + v * VF_LANES);
        UNROLL(8)
        for (int i = 0; i < MR; i++) {
            vf row = vf_set(w[i]);
            for (int v = 0; v < nv; v++)
                sums[i][v] = vf_fma(row, columns[v], sums[i][v]);
        }
    }
    UNROLL(8)
    for (int i = 0; i < MR; i++) {
        if (i >= rows)
            break;
        for (int v = 0; v < nv; v++)
            vf_store(y + i * d->ldy + v * VF_LANES,
                     vf_min(high, vf_max(low, sums[i][v] + vf_set(bias[i]))));
    }
}

#define DIRECT_TILE(nv)                                                                            \
    static void direct_tile_##nv(const struct kn_direct *d, const float *x, const float *w,        \
                                 const float *bias, ptrdiff_t rows, float *y) {                    \
        direct_tile(d, x, w, bias, rows, nv, y);                                                   \
    }

DIRECT_TILE(1)
DIRECT_TILE(2)
#if NV == 3
DIRECT_TILE(3)
#endif

static void (*const direct_tiles[NV])(const struct kn_direct *, const float *, const float *,
                                      const float *, ptrdiff_t, float *) = {
    direct_tile_1,
    direct_tile_2,
#if NV == 3
    direct_tile_3,
#endif
};

/* The last tile of a row overlaps the one before. */
void KN_SIMD(kn_direct_row)(const struct kn_direct *d, const float *x, float *y) {
    const float *w = d->w;

    for (ptrdiff_t oc = 0; oc < d->oc; oc += MR, w += d->depth * MR, y += MR * d->ldy)
        for (ptrdiff_t j = 0; j < d->ow; j += NV * VF_LANES) {
            ptrdiff_t vectors = kn_min(kn_ceil_div(d->ow - j, VF_LANES), NV);
            ptrdiff_t at = kn_min(j, d->ow - vectors * VF_LANES);
            direct_tiles[vectors - 1](d, x + at, w, d->bias + oc, kn_min(MR, d->oc - oc), y + at);
        }
}
