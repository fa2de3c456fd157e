/* Transforms of Winograd's F(4x4, 3x3), F(2x2, 3x3) and F(2x2, 5x5), for as many tiles of one row
 * of tiles as a vector has lanes. What becomes of an input depends on the number of points alone,
 * so F(4x4, 3x3) and F(2x2, 5x5) share it; they differ in where tiles begin and end.
 *
 * Input: a tile's rows are transformed down the columns first, where they lie; then every fourth
 * (or second) element is gathered into a vector each (lane t is tile t), and the rows are
 * transformed across. Output: the other way round. A. Lavin, S. Gray: Fast Algorithms for
 * Convolutional Neural Networks (2015); the points: B. Barabasz et al.: Error Analysis and
 * Improving the Accuracy of Winograd Convolution for Deep Neural Networks (2018), and a search of
 * our own.
 */
#include "functions.h"

#define TILE_MAX   KN_WINOGRAD_TILE_MAX
#define INPUTS_MAX KN_WINOGRAD_INPUTS_MAX

#define A  ((float)KN_WINOGRAD_A)
#define B  ((float)KN_WINOGRAD_B)
#define A2 (A * A)
#define B2 (B * B)

/* One column (or row) of input: each output is a polynomial without all the points but one. */
INLINED void transform_in(const int inputs, const vf *x, vf *ret) {
    if (inputs == 4) {
        ret[0] = x[0] - x[2];
        ret[1] = x[2] + x[1];
        ret[2] = x[2] - x[1];
        ret[3] = x[3] - x[1];
        return;
    }
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
INLINED void transform_out(const int tile, const int inputs, const vf *m, vf *ret) {
    vf even_a = m[1] + m[2], odd_a = m[1] - m[2];

    if (inputs == 4) {
        ret[0] = m[0] + even_a;
        ret[1] = odd_a + m[3];
        return;
    }
    vf even_b = m[3] + m[4], odd_b = m[3] - m[4];
    ret[0] = m[0] + even_a + even_b;
    ret[1] = vf_fma(vf_set(B), odd_b, odd_a * vf_set(A));
    if (tile == 2) {
        ret[1] += m[5];
        return;
    }
    ret[2] = vf_fma(vf_set(B2), even_b, even_a * vf_set(A2));
    ret[3] = vf_fma(vf_set(B2 * B), odd_b, vf_fma(vf_set(A2 * A), odd_a, m[5]));
}

/* Input columns of tiles from a row that begins with the first one's: ret[j] has the
 * j-th input of every tile. */
INLINED void gather_columns(const int tile, const int inputs, const vf *row, vf *ret) {
    if (tile == 2) {
        ret[0] = vf_even(row[0], row[1]);
        ret[1] = vf_odd(row[0], row[1]);
        ret[2] = vf_next(ret[0], row[2], 0);
        ret[3] = vf_next(ret[1], row[2], 1);
        if (inputs == 6) {
            ret[4] = vf_next(ret[2], row[2], 2);
            ret[5] = vf_next(ret[3], row[2], 3);
        }
        return;
    }
    vf even_1 = vf_even(row[0], row[1]), even_2 = vf_even(row[2], row[3]);
    vf odd_1 = vf_odd(row[0], row[1]), odd_2 = vf_odd(row[2], row[3]);
    ret[0] = vf_even(even_1, even_2);
    ret[1] = vf_even(odd_1, odd_2);
    ret[2] = vf_odd(even_1, even_2);
    ret[3] = vf_odd(odd_1, odd_2);
    ret[4] = vf_next(ret[0], row[4], 0);
    ret[5] = vf_next(ret[1], row[4], 1);
}

/* The inverse, for outputs. */
INLINED void spread_columns(const int tile, const vf *y, vf *ret) {
    if (tile == 2) {
        ret[0] = vf_zip_low(y[0], y[1]);
        ret[1] = vf_zip_high(y[0], y[1]);
        return;
    }
    vf even_1 = vf_zip_low(y[0], y[2]), even_2 = vf_zip_high(y[0], y[2]);
    vf odd_1 = vf_zip_low(y[1], y[3]), odd_2 = vf_zip_high(y[1], y[3]);
    ret[0] = vf_zip_low(even_1, odd_1);
    ret[1] = vf_zip_high(even_1, odd_1);
    ret[2] = vf_zip_low(even_2, odd_2);
    ret[3] = vf_zip_high(even_2, odd_2);
}

/* Row iy of the plane with its padding, count floats; as many as a vector has more may be written.
 */
static void pad_row(const struct kn_winograd *tiles, const float *x, ptrdiff_t iy, float *to,
                    ptrdiff_t count) {
    ptrdiff_t pad = tiles->pad_left;
    ptrdiff_t lo = kn_min(kn_max(pad, 0), count);
    ptrdiff_t hi = iy < 0 || iy >= tiles->ih ? lo : kn_max(kn_min(pad + tiles->iw, count), lo);
    const float *from = x + iy * tiles->iw - pad;

    for (ptrdiff_t i = 0; i < lo; i += VF_LANES)
        vf_store(to + i, vf_set(0.0f));
    for (ptrdiff_t i = lo; i < hi; i += VF_LANES)
        vf_store(to + i, vf_load(from + i));
    for (ptrdiff_t i = hi; i < count; i += VF_LANES)
        vf_store(to + i, vf_set(0.0f));
}

/* VF_LANES tiles whose input begins at rows. The first n are wanted, and there may be room for
 * more. */
INLINED void tiles_in(const int tile, const int inputs, const float *rows, ptrdiff_t pitch,
                      float *v, ptrdiff_t point_stride, ptrdiff_t n, bool whole) {
    vf down[INPUTS_MAX][TILE_MAX + 1];

    for (int c = 0; c < tile + 1; c++) {
        vf x[INPUTS_MAX], y[INPUTS_MAX];
        for (int r = 0; r < inputs; r++)
            x[r] = vf_load(rows + r * pitch + c * VF_LANES);
        transform_in(inputs, x, y);
        for (int r = 0; r < inputs; r++)
            down[r][c] = y[r];
    }
    for (int r = 0; r < inputs; r++, v += inputs * point_stride) {
        vf x[INPUTS_MAX], y[INPUTS_MAX];
        gather_columns(tile, inputs, down[r], x);
        transform_in(inputs, x, y);
        for (int c = 0; c < inputs; c++)
            if (whole)
                vf_store(v + c * point_stride, y[c]);
            else
                vf_store_n(v + c * point_stride, y[c], n);
    }
}

INLINED void all_tiles_in(const int tile, const int inputs, const struct kn_winograd *tiles,
                          const struct kn_winograd_in *in) {
    ptrdiff_t end = tiles->first + tiles->count, first_row = tiles->first / tiles->across;

    for (ptrdiff_t t = tiles->first, n; t < end; t += n) {
        ptrdiff_t ty = t / tiles->across, tx = t % tiles->across, at = t - tiles->first;
        const float *rows = in->rows + (ty - first_row) * tile * in->pitch + tx * tile;
        n = kn_min(kn_min(VF_LANES, tiles->across - tx),
                   kn_min(in->width - at % in->width, end - t));
        float *v = in->v + at / in->width * in->strip_stride + at % in->width;
        if (at % in->width + VF_LANES <= in->width)
            tiles_in(tile, inputs, rows, in->pitch, v, in->point_stride, n, true);
        else
            tiles_in(tile, inputs, rows, in->pitch, v, in->point_stride, n, false);
    }
}

void KN_SIMD(kn_winograd_in)(const struct kn_winograd *tiles, const struct kn_winograd_in *in) {
    ptrdiff_t first = tiles->first / tiles->across * tiles->tile;
    ptrdiff_t last = (tiles->first + tiles->count - 1) / tiles->across + 1,
              more = tiles->kernel - 1;

    for (ptrdiff_t r = first; r < last * tiles->tile + more; r++)
        pad_row(tiles, in->x, r - tiles->pad_top, in->rows + (r - first) * in->pitch,
                tiles->tile * tiles->across + more);
    if (tiles->kernel == 5)
        all_tiles_in(2, 6, tiles, in);
    else if (tiles->tile == 2)
        all_tiles_in(2, 4, tiles, in);
    else
        all_tiles_in(4, 6, tiles, in);
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
INLINED void tiles_out(const int tile, const int inputs, const struct kn_winograd_out *out,
                       const float *m, ptrdiff_t at, ptrdiff_t ow, ptrdiff_t rows, ptrdiff_t cols) {
    vf down[TILE_MAX][INPUTS_MAX];

    for (int c = 0; c < inputs; c++) {
        vf x[INPUTS_MAX], y[TILE_MAX];
        for (int r = 0; r < inputs; r++)
            x[r] = vf_load(m + (r * inputs + c) * out->point_stride);
        transform_out(tile, inputs, x, y);
        for (int r = 0; r < tile; r++)
            down[r][c] = y[r];
    }
    for (int r = 0; r < tile && r < rows; r++, at += ow) {
        vf y[TILE_MAX], line[TILE_MAX];
        transform_out(tile, inputs, down[r], y);
        spread_columns(tile, y, line);
        for (int v = 0; v < tile && v * VF_LANES < cols; v++)
            finish(out, line[v], at + v * VF_LANES, cols - v * VF_LANES);
    }
}

INLINED void all_tiles_out(const int tile, const int inputs, const struct kn_winograd *tiles,
                           const struct kn_winograd_out *out) {
    ptrdiff_t end = tiles->first + tiles->count;

    for (ptrdiff_t t = tiles->first, n; t < end; t += n) {
        ptrdiff_t oy = t / tiles->across * tile, tx = t % tiles->across, ox = tx * tile;
        n = kn_min(kn_min(VF_LANES, tiles->across - tx), end - t);
        tiles_out(tile, inputs, out, out->m + (t - tiles->first), oy * tiles->ow + ox, tiles->ow,
                  tiles->oh - oy, kn_min(n * tile, tiles->ow - ox));
    }
}

void KN_SIMD(kn_winograd_out)(const struct kn_winograd *tiles, const struct kn_winograd_out *out) {
    if (tiles->kernel == 5)
        all_tiles_out(2, 6, tiles, out);
    else if (tiles->tile == 2)
        all_tiles_out(2, 4, tiles, out);
    else
        all_tiles_out(4, 6, tiles, out);
}
