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

struct kn_simd {
    const char *name; /* "AVX2+FMA" */
    int lanes;        /* floats of a vector */

    /* a(r, k) = a[r * ld + k]: each row a dot product, summed in an order that depends on depth. */
    void (*matvec_rows)(const struct kn_matvec *m);
    /* a(r, k) = a[k * ld + r]: columns are added up. */
    void (*matvec_columns)(const struct kn_matvec *m);

    /* y[i] = act(x[i]), count elements; y may be x. kn_act_row() is the way in. */
    void (*act_row)(const struct kn_activation *act, const float *x, float *y, ptrdiff_t count);
};

/* The level in use: the baseline before kn_init(), then the CPU's best, or what CONVOY_SIMD and
 * kn_simd_use() say. Who packs for a level keeps this pointer with what it packs. */
const struct kn_simd *kn_simd(void);

/* By kn_init(). */
void kn_simd_init(void);

#endif
