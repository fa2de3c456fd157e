/* Products of packed weights with a vector: rows are lanes, so that no sum runs across a vector. */
#include "act.h"
#include "functions.h"

#define SUMS  8    /* side by side: enough to keep the units busy */
#define AHEAD 2048 /* elements: what is asked for meanwhile, for the second cache */

/* `wide` vectors of rows; elements of x in turn go to SUMS / wide sums each. */
INLINED void panel_times(const struct kn_panel *p, const int wide) {
    const int turns = SUMS / wide;
    const ptrdiff_t step = (ptrdiff_t)wide * VF_LANES;
    const float *w = p->w;
    vf sums[SUMS][4];
    ptrdiff_t k = 0;

    UNROLL(8)
    for (int t = 0; t < turns; t++)
        UNROLL(4)
    for (int v = 0; v < wide; v++)
        sums[t][v] = t == 0 ? vf_load(p->bias + v * VF_LANES) : (vf){0};
    for (; k + turns <= p->depth; k += turns)
        UNROLL(8)
    for (int t = 0; t < turns; t++, w += step)
        UNROLL(4)
    for (int v = 0; v < wide; v++) {
        if (v * VF_LANES % VF_LINE == 0)
            __builtin_prefetch(w + AHEAD + v * VF_LANES, 0, 2);
        sums[t][v] = vf_fma(vf_load(w + v * VF_LANES), vf_set(p->x[k + t]), sums[t][v]);
    }
    for (; k < p->depth; k++, w += step)
        UNROLL(4)
    for (int v = 0; v < wide; v++)
        sums[0][v] = vf_fma(vf_load(w + v * VF_LANES), vf_set(p->x[k]), sums[0][v]);
    UNROLL(4)
    for (int v = 0; v < wide; v++) {
        vf sum = sums[0][v];
        UNROLL(8)
        for (int t = 1; t < turns; t++)
            sum += sums[t][v];
        vf_store_n(p->y + v * VF_LANES, sum, kn_min(kn_max(p->rows - v * VF_LANES, 0), VF_LANES));
    }
}

void KN_SIMD(kn_panel_times)(const struct kn_panel *p) {
    switch ((p->rows + VF_LANES - 1) / VF_LANES) {
    case 1:
        panel_times(p, 1);
        break;
    case 2:
        panel_times(p, 2);
        break;
    case 3:
        panel_times(p, 3);
        break;
    default:
        panel_times(p, 4);
        break;
    }
}
