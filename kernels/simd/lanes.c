/* Windows that slide over planes with channels as lanes (simd.h says how scratch is laid out):
 * planes are transposed into vectors of one pixel each, blocks of as many pixels as a vector has
 * lanes; windows then slide over vectors, however narrow the planes.
 */
#include "functions.h"

#define FEW  3 /* pixels that are left of a plane, and done one by one */
#define TILE 7 /* results of a row side by side: mobile networks' planes are multiples of it */

/* ---- transposing ---- */

/* Within each 128 bits, numbers of a and b in turn, and pairs of them; then the even and the odd
 * ones of all 128 bits of the sequence a, b. One instruction each on every level. */
#if VF_LANES == 16
#define ONES_LOW   0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define ONES_HIGH  2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define PAIRS_LOW  0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define PAIRS_HIGH 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define QUADS_EVEN 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define QUADS_ODD  4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#elif VF_LANES == 8
#define ONES_LOW   0, 8, 1, 9, 4, 12, 5, 13
#define ONES_HIGH  2, 10, 3, 11, 6, 14, 7, 15
#define PAIRS_LOW  0, 1, 8, 9, 4, 5, 12, 13
#define PAIRS_HIGH 2, 3, 10, 11, 6, 7, 14, 15
#define QUADS_EVEN 0, 1, 2, 3, 8, 9, 10, 11
#define QUADS_ODD  4, 5, 6, 7, 12, 13, 14, 15
#else
#define ONES_LOW   0, 4, 1, 5
#define ONES_HIGH  2, 6, 3, 7
#define PAIRS_LOW  0, 1, 4, 5
#define PAIRS_HIGH 2, 3, 6, 7
#endif

/* Four rows where they are: their columns 4 * q + i become 128 bits, number q of vector i. */
INLINED void transpose_quads(vf *x) {
    vf low_1 = __builtin_shufflevector(x[0], x[1], ONES_LOW);
    vf high_1 = __builtin_shufflevector(x[0], x[1], ONES_HIGH);
    vf low_2 = __builtin_shufflevector(x[2], x[3], ONES_LOW);
    vf high_2 = __builtin_shufflevector(x[2], x[3], ONES_HIGH);

    x[0] = __builtin_shufflevector(low_1, low_2, PAIRS_LOW);
    x[1] = __builtin_shufflevector(low_1, low_2, PAIRS_HIGH);
    x[2] = __builtin_shufflevector(high_1, high_2, PAIRS_LOW);
    x[3] = __builtin_shufflevector(high_1, high_2, PAIRS_HIGH);
}

/* VF_LANES rows where they are. */
INLINED void transpose(vf *x) {
    UNROLL(4)
    for (int i = 0; i < VF_LANES; i += 4)
        transpose_quads(x + i);
#if VF_LANES == 16
    UNROLL(4)
    for (int i = 0; i < 4; i++) {
        vf even_1 = __builtin_shufflevector(x[i], x[4 + i], QUADS_EVEN);
        vf odd_1 = __builtin_shufflevector(x[i], x[4 + i], QUADS_ODD);
        vf even_2 = __builtin_shufflevector(x[8 + i], x[12 + i], QUADS_EVEN);
        vf odd_2 = __builtin_shufflevector(x[8 + i], x[12 + i], QUADS_ODD);
        x[i] = __builtin_shufflevector(even_1, even_2, QUADS_EVEN);
        x[4 + i] = __builtin_shufflevector(odd_1, odd_2, QUADS_EVEN);
        x[8 + i] = __builtin_shufflevector(even_1, even_2, QUADS_ODD);
        x[12 + i] = __builtin_shufflevector(odd_1, odd_2, QUADS_ODD);
    }
#elif VF_LANES == 8
    UNROLL(4)
    for (int i = 0; i < 4; i++) {
        vf even = __builtin_shufflevector(x[i], x[4 + i], QUADS_EVEN);
        x[4 + i] = __builtin_shufflevector(x[i], x[4 + i], QUADS_ODD);
        x[i] = even;
    }
#endif
}

/* ---- planes to scratch and back ---- */

/* n pixels. Reads a whole vector of each plane; lanes without a plane repeat the last. */
INLINED void block_in(const float *x, ptrdiff_t plane, ptrdiff_t count, const int32_t *places,
                      ptrdiff_t n, float *to) {
    vf v[VF_LANES];

    UNROLL(16)
    for (ptrdiff_t c = 0; c < VF_LANES; c++)
        v[c] = vf_load(x + kn_min(c, count - 1) * plane);
    transpose(v);
    UNROLL(16)
    for (ptrdiff_t p = 0; p < VF_LANES; p++) {
        if (p >= n)
            break;
        vf_store(to + places[p], v[p]);
    }
}

void KN_SIMD(kn_lanes_in)(const struct kn_lanes *l, const float *x, ptrdiff_t pixels,
                          ptrdiff_t count, float *to) {
    const ptrdiff_t plane = l->ih * l->iw;
    ptrdiff_t i = 0;

    if (count == VF_LANES)
        for (; i + VF_LANES <= pixels; i += VF_LANES)
            block_in(x + i, plane, VF_LANES, l->places + i, VF_LANES, to);
    for (; i + FEW < pixels; i += VF_LANES)
        block_in(x + i, plane, count, l->places + i, kn_min(VF_LANES, pixels - i), to);
    for (; i < pixels; i++)
        for (ptrdiff_t c = 0; c < count; c++)
            to[l->places[i] + c] = x[c * plane + i];
}

INLINED void block_out(const float *from, ptrdiff_t plane, ptrdiff_t count, float *y) {
    vf v[VF_LANES];

    UNROLL(16)
    for (ptrdiff_t p = 0; p < VF_LANES; p++)
        v[p] = vf_load(from + p * VF_LANES);
    transpose(v);
    UNROLL(16)
    for (ptrdiff_t c = 0; c < VF_LANES; c++) {
        if (c >= count)
            break;
        vf_store(y + c * plane, v[c]);
    }
}

/* Where many pixels are left they are done with some of the block before once more. */
void KN_SIMD(kn_lanes_out)(const struct kn_lanes *l, const float *from, ptrdiff_t pixels,
                           ptrdiff_t count, float *y) {
    const ptrdiff_t plane = l->oh * l->ow;
    ptrdiff_t i = 0;

    if (count == VF_LANES)
        for (; i + VF_LANES <= pixels; i += VF_LANES)
            block_out(from + i * VF_LANES, plane, VF_LANES, y + i);
    while (i + FEW < pixels && pixels >= VF_LANES) {
        ptrdiff_t at = kn_min(i, pixels - VF_LANES);
        block_out(from + at * VF_LANES, plane, count, y + at);
        i = at + VF_LANES;
    }
    for (; i < pixels; i++)
        for (ptrdiff_t c = 0; c < count; c++)
            y[c * plane + i] = from[i * VF_LANES + c];
}

/* ---- results ---- */

/* count results of a row, whose first tap is at x; a vector of input is loaded once for each row of
 * the window. */
INLINED void sum_tile(const struct kn_lanes *l, const struct kn_lanes_sum *sum, const int kernel,
                      const int stride, const int count, const float *x, float *y) {
    const vf bias = vf_load(sum->bias), low = vf_set(sum->low), high = vf_set(sum->high);
    const float *w = sum->w;
    vf sums[TILE];

    UNROLL(7)
    for (int i = 0; i < count; i++)
        sums[i] = bias;
    for (int ky = 0; ky < kernel; ky++, x += l->pitch, w += kernel * VF_LANES) {
        vf taps[KN_LANES_KERNEL_MAX];
        UNROLL(7)
        for (int kx = 0; kx < kernel; kx++)
            taps[kx] = vf_load(w + kx * VF_LANES);
        UNROLL(19)
        for (int column = 0; column < stride * (count - 1) + kernel; column++) {
            vf v = vf_load(x + column * VF_LANES);
            UNROLL(7)
            for (int i = 0; i < count; i++)
                if (column >= stride * i && column < stride * i + kernel)
                    sums[i] = vf_fma(v, taps[column - stride * i], sums[i]);
        }
    }
    UNROLL(7)
    for (int i = 0; i < count; i++)
        vf_store(y + i * VF_LANES, vf_min(high, vf_max(low, sums[i])));
}

/* One row by tiles, the last of which overlaps the one before. */
INLINED void sum_row(const struct kn_lanes *l, const struct kn_lanes_sum *sum, const int kernel,
                     const int stride, const int count, const float *x, float *y) {
    for (ptrdiff_t ox = 0; ox < l->ow; ox += count) {
        ptrdiff_t at = kn_min(ox, l->ow - count);
        sum_tile(l, sum, kernel, stride, count, x + at * stride * VF_LANES, y + at * VF_LANES);
    }
}

#define SUM_LANES(kernel, stride)                                                                  \
    static void sum_lanes_##kernel##_##stride(const struct kn_lanes *l,                            \
                                              const struct kn_lanes_sum *sum, ptrdiff_t rows,      \
                                              const float *scratch, float *y) {                    \
        for (; rows > 0; rows--, scratch += stride * l->pitch, y += l->ow * VF_LANES)              \
            if (l->ow >= TILE)                                                                     \
                sum_row(l, sum, kernel, stride, TILE, scratch, y);                                 \
            else if (l->ow >= 4)                                                                   \
                sum_row(l, sum, kernel, stride, 4, scratch, y);                                    \
            else                                                                                   \
                sum_row(l, sum, kernel, stride, 1, scratch, y);                                    \
    }

SUM_LANES(3, 1)
SUM_LANES(3, 2)
SUM_LANES(5, 1)
SUM_LANES(5, 2)
SUM_LANES(7, 1)
SUM_LANES(7, 2)

void KN_SIMD(kn_lanes_sum)(const struct kn_lanes *l, const struct kn_lanes_sum *sum, ptrdiff_t rows,
                           const float *scratch, float *y) {
    static void (*const sums[][2])(const struct kn_lanes *, const struct kn_lanes_sum *, ptrdiff_t,
                                   const float *, float *) = {
        [3] = {sum_lanes_3_1, sum_lanes_3_2},
        [5] = {sum_lanes_5_1, sum_lanes_5_2},
        [7] = {sum_lanes_7_1, sum_lanes_7_2},
    };

    sums[l->kernel][l->stride - 1](l, sum, rows, scratch, y);
}
