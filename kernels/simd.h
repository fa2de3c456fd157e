/* What is compiled once per instruction set: one table of functions per level, filled in by
 * simd/table.c, chosen by simd.c. docs/kernels.md tells how to add a function. */
#ifndef KERNELS_SIMD_H
#define KERNELS_SIMD_H

#include "internal.h"

/* A matrix and a vector: y[r] += alpha * sum over k of a(r, k) * x[k]. */
struct kn_matvec {
    const float *a, *x;
    float *y;
    ptrdiff_t rows, depth;
    ptrdiff_t ld; /* between rows (matvec_rows), between columns (matvec_columns) */
    float alpha;
};

/* A block of y [rows][cols], ldy apart: products of packed panels of a, [depth][panel_rows] each,
 * and packed strips of b, [depth][strip_cols] each; the last panel and the last strip may be partly
 * filled, with anything. y = clamp(a * b + bias + residual), or clamp(a * b + y) without a bias. An
 * element is the sum of its products in order, then bias (or y), then residual; clamp keeps NaN. */
struct kn_block {
    ptrdiff_t rows, cols, depth;
    const float *a, *b;
    ptrdiff_t a_stride, b_stride; /* between panels, between strips */
    float *y;
    ptrdiff_t ldy;
    const float *bias;     /* [rows], or NULL */
    const float *residual; /* like y, may be y; NULL: none */
    float low, high;
};

/* Input pixels that become columns of packed strips: for each tap, `rows` rows of `cols` pixels,
 * pitch apart, go to columns [pos, pos + rows * cols) of the block; tap t to row t of b. Up to
 * KN_TAIL bytes behind each row of x are read. Calls for one row of b come in the order of pos. */
struct kn_to_strips {
    const float *x;
    const ptrdiff_t *offsets; /* [taps]: where each begins to read */
    ptrdiff_t taps, pitch, rows, cols, pos;
    float *b;
    ptrdiff_t b_stride; /* between strips */
};

struct kn_simd {
    const char *name; /* "AVX2+FMA" */
    int lanes;        /* floats of a vector */

    /* a(r, k) = a[r * ld + k]: each row a dot product, summed in an order that depends on depth. */
    void (*matvec_rows)(const struct kn_matvec *m);
    /* a(r, k) = a[k * ld + r]: columns are added up. */
    void (*matvec_columns)(const struct kn_matvec *m);

    /* y[i] = act(x[i]), count elements; y may be x. kn_act_row() is the way in. */
    void (*act_row)(const struct kn_activation *act, const float *x, float *y, ptrdiff_t count);
    /* Packed products: the shape of a tile, and the function. */
    int panel_rows, strip_cols;
    void (*multiply_block)(const struct kn_block *block);
    void (*copy_to_strips)(const struct kn_to_strips *copy);
};

/* The level in use: the baseline before kn_init(), then the CPU's best, or what CONVOY_SIMD and
 * kn_simd_use() say. Who packs for a level keeps this pointer with what it packs. */
const struct kn_simd *kn_simd(void);

/* By kn_init(). */
void kn_simd_init(void);

#endif
