/* Transforms of Winograd's F(4x4, 3x3), for as many tiles of one row of tiles as a vector has
 * lanes.
 *
 * Input: six rows are transformed down the columns first, where they lie; then every fourth element
 * is gathered into a vector each (lane t is tile t), and the rows are transformed across. Output:
 * the other way round. A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks (2015);
 * the points: B. Barabasz et al.: Error Analysis and Improving the Accuracy of Winograd Convolution
 * for Deep Neural Networks (2018), and a search of our own.
 */
#include "functions.h"

#define INLINED static inline __attribute__((always_inline))

#define TILE   KN_WINOGRAD_TILE
#define INPUTS 6 /* rows and columns of a tile's input */
#define NR     (TILE_VECTORS * VF_LANES)

#define A  ((float)KN_WINOGRAD_A)
#define B  ((float)KN_WINOGRAD_B)
#define A2 (A * A)
#define B2 (B * B)

/* One column (or row) of input: each output is a polynomial without all the points but one. */
INLINED void transform_in(const vf x[INPUTS], vf ret[INPUTS]) {
    vf even_a = vf_fma(vf_set(-B2), x[2], x[4]), odd_a = vf_fma(vf_set(-B2), x[1], x[3]);
    vf even_b = vf_fma(vf_set(-A2), x[2], x[4]), odd_b = vf_fma(vf_set(-A2), x[1], x[3]);

    ret[0] = vf_fma(vf_set(A2 * B2), x[0], vf_fma(vf_set(-(A2 + B2)), x[2], x[4]));
    ret[1] = vf_fma(vf_set(A), odd_a, even_a);
    ret[2] = vf_fma(vf_set(-A), odd_a, even_a);
    ret[3] = vf_fma(vf_set(B), odd_b, even_b);
    ret[4] = vf_fma(vf_set(-B), odd_b, even_b);
    ret[5] = vf_fma(vf_set(A2 * B2), x[1], vf_fma(vf_set(-(A2 + B2)), x[3], x[5]));
}

/* Output i is the sum of the products times their points to the power of i. */
INLINED void transform_out(const vf m[INPUTS], vf ret[TILE]) {
    vf even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];

    ret[0] = m[0] + even_a + even_b;
    ret[1] = vf_fma(vf_set(B), odd_b, odd_a * vf_set(A));
    ret[2] = vf_fma(vf_set(B2), even_b, even_a * vf_set(A2));
    ret[3] = vf_fma(vf_set(B2 * B), odd_b, vf_fma(vf_set(A2 * A), odd_a, m[5]));
}

/* Row iy of the plane with its padding, pitch floats. */
static void pad_row(const struct kn_winograd *tiles, const float *x, ptrdiff_t iy, float *to,
                    ptrdiff_t pitch) {
    ptrdiff_t pad = tiles->pad_left;
    ptrdiff_t lo = kn_min(kn_max(pad, 0), pitch);
    ptrdiff_t hi = iy < 0 || iy >= tiles->ih ? lo : kn_max(kn_min(pad + tiles->iw, pitch), lo);

    memset(to, 0, (size_t)lo * sizeof(float));
    if (hi > lo)
        memcpy(to + lo, x + iy * tiles->iw + lo - pad, (size_t)(hi - lo) * sizeof(float));
    memset(to + hi, 0, (size_t)(pitch - hi) * sizeof(float));
}

/* VF_LANES tiles whose input begins at rows. The first n are wanted, and there is room for more. */
INLINED void tiles_in(const float *rows, ptrdiff_t pitch, float *v, ptrdiff_t point_stride,
                      ptrdiff_t n, bool whole) {
    vf down[INPUTS][TILE + 1];

    for (int c = 0; c < TILE + 1; c++) {
        vf x[INPUTS], y[INPUTS];
        for (int r = 0; r < INPUTS; r++)
            x[r] = vf_load(rows + r * pitch + c * VF_LANES);
        transform_in(x, y);
        for (int r = 0; r < INPUTS; r++)
            down[r][c] = y[r];
    }
    for (int r = 0; r < INPUTS; r++, v += INPUTS * point_stride) {
        const vf *row = down[r];
        vf even_1 = vf_even(row[0], row[1]), even_2 = vf_even(row[2], row[3]);
        vf odd_1 = vf_odd(row[0], row[1]), odd_2 = vf_odd(row[2], row[3]);
        vf x[INPUTS], y[INPUTS];
        x[0] = vf_even(even_1, even_2);
        x[1] = vf_even(odd_1, odd_2);
        x[2] = vf_odd(even_1, even_2);
        x[3] = vf_odd(odd_1, odd_2);
        x[4] = vf_next(x[0], row[4], 0);
        x[5] = vf_next(x[1], row[4], 1);
        transform_in(x, y);
        for (int c = 0; c < INPUTS; c++)
            if (whole)
                vf_store(v + c * point_stride, y[c]);
            else
                vf_store_n(v + c * point_stride, y[c], n);
    }
}

void KN_SIMD(kn_winograd_in)(const struct kn_winograd *tiles, const struct kn_winograd_in *in) {
    ptrdiff_t pitch = in->pitch, end = tiles->first + tiles->count;

    for (ptrdiff_t t = tiles->first, n; t < end; t += n) {
        ptrdiff_t ty = t / tiles->across, tx = t % tiles->across, at = t - tiles->first;
        if (tx == 0 || t == tiles->first)
            for (ptrdiff_t r = 0; r < INPUTS; r++)
                pad_row(tiles, in->x, ty * TILE + r - tiles->pad_top, in->rows + r * pitch, pitch);
        n = kn_min(kn_min(VF_LANES, tiles->across - tx), kn_min(NR - at % NR, end - t));
        float *v = in->v + at / NR * in->strip_stride + at % NR;
        if (at % NR + VF_LANES <= NR)
            tiles_in(in->rows + tx * TILE, pitch, v, in->point_stride, n, true);
        else
            tiles_in(in->rows + tx * TILE, pitch, v, in->point_stride, n, false);
    }
}

INLINED void finish(const struct kn_winograd_out *out, vf sum, ptrdiff_t at, ptrdiff_t n) {
    bool whole = n >= VF_LANES;

    sum += vf_set(out->bias);
    if (out->residual)
        sum += whole ? vf_load(out->residual + at) : vf_load_n(out->residual + at, n);
    sum = vf_min(vf_set(out->high), vf_max(vf_set(out->low), sum));
    if (whole)
        vf_store(out->y + at, sum);
    else
        vf_store_n(out->y + at, sum, n);
}

/* VF_LANES tiles: rows x cols outputs of theirs lie in the plane, from `at` on. */
INLINED void tiles_out(const struct kn_winograd_out *out, const float *m, ptrdiff_t at,
                       ptrdiff_t ow, ptrdiff_t rows, ptrdiff_t cols) {
    vf down[TILE][INPUTS];

    for (int c = 0; c < INPUTS; c++) {
        vf x[INPUTS], y[TILE];
        for (int r = 0; r < INPUTS; r++)
            x[r] = vf_load(m + (r * INPUTS + c) * out->point_stride);
        transform_out(x, y);
        for (int r = 0; r < TILE; r++)
            down[r][c] = y[r];
    }
    for (int r = 0; r < TILE && r < rows; r++, at += ow) {
        vf y[TILE], line[TILE];
        transform_out(down[r], y);
        vf even_1 = vf_zip_low(y[0], y[2]), even_2 = vf_zip_high(y[0], y[2]);
        vf odd_1 = vf_zip_low(y[1], y[3]), odd_2 = vf_zip_high(y[1], y[3]);
        line[0] = vf_zip_low(even_1, odd_1);
        line[1] = vf_zip_high(even_1, odd_1);
        line[2] = vf_zip_low(even_2, odd_2);
        line[3] = vf_zip_high(even_2, odd_2);
        for (int v = 0; v < TILE && v * VF_LANES < cols; v++)
            finish(out, line[v], at + v * VF_LANES, cols - v * VF_LANES);
    }
}

void KN_SIMD(kn_winograd_out)(const struct kn_winograd *tiles, const struct kn_winograd_out *out) {
    ptrdiff_t end = tiles->first + tiles->count;

    for (ptrdiff_t t = tiles->first, n; t < end; t += n) {
        ptrdiff_t oy = t / tiles->across * TILE, tx = t % tiles->across, ox = tx * TILE;
        n = kn_min(kn_min(VF_LANES, tiles->across - tx), end - t);
        tiles_out(out, out->m + (t - tiles->first), oy * tiles->ow + ox, tiles->ow, tiles->oh - oy,
                  kn_min(n * TILE, tiles->ow - ox));
    }
}
