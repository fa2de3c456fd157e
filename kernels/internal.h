/* Shared inside kernels/; nothing here is seen by other layers. */
#ifndef KERNELS_INTERNAL_H
#define KERNELS_INTERNAL_H

#include "kernels.h"

/* Loops marked so may run x and y at the same place (y == x), never shifted against each other. */
#if defined(__GNUC__) && !defined(__clang__)
#define KN_IVDEP _Pragma("GCC ivdep")
#else
#define KN_IVDEP
#endif

/* More than second caches hold: what is read from so much is worth asking for ahead. */
#define KN_FAR_BYTES (1 << 20)

/* Compiles a function of plain loops for AVX2 too and chooses at load. Contraction and
 * reassociation are off, so both versions give the same bits. Sanitizers do not get along with the
 * resolver. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) &&       \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define KN_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define KN_CLONES
#endif

static inline ptrdiff_t kn_min(ptrdiff_t a, ptrdiff_t b) {
    return a < b ? a : b;
}

static inline ptrdiff_t kn_max(ptrdiff_t a, ptrdiff_t b) {
    return a > b ? a : b;
}

/* a / b rounded up; a >= 0, b > 0, however large. */
static inline ptrdiff_t kn_ceil_div(ptrdiff_t a, ptrdiff_t b) {
    return a / b + (a % b != 0);
}

static inline size_t kn_round_up(size_t bytes, size_t align) {
    return (bytes + align - 1) / align * align;
}

/* Bytes of one element; 0 for an unknown type. */
size_t kn_type_size(enum kn_type type);

/* y[i] = act(x[i]) on the calling thread; y may be x. act may be NULL. */
void kn_act_row(const struct kn_activation *act, const float *x, float *y, ptrdiff_t count);

/* ---- matrix products ---- */

/* y[m][n] += alpha * op(a) * op(b), row-major, leading dimensions in elements; op transposes where
 * trans_* is set. */
struct kn_product {
    int m, n, k;
    bool trans_a, trans_b;
    float alpha;
    int lda, ldb, ldy;
};

/* On the calling thread. The same numbers for the same sizes, whatever the addresses. */
void kn_multiply(const struct kn_product *product, const float *a, const float *b, float *y);

/* The GEMM library; blas.c is the only file that knows which. m, n, k > 0. */
void kn_blas_init(void);
const char *kn_blas_core(void);
void kn_blas_gemm(const struct kn_product *product, const float *a, const float *b, float *y);

/* ---- walking strided shapes (walk.c) ---- */

#define KN_WALK_OPERANDS 4

/* A shape with up to four operands, each with its own strides, in elements. */
struct kn_walk {
    int rank;
    int operands;
    ptrdiff_t dims[KN_MAX_RANK];
    ptrdiff_t strides[KN_WALK_OPERANDS][KN_MAX_RANK];
};

/* Fills in a walk: drops dimensions of one element and joins neighbours that every operand walks as
 * one. strides[i] may be NULL: dense. A shape without elements gives dims[0] == 0. rank is at least
 * 1 afterwards. */
void kn_walk_init(struct kn_walk *walk, const struct kn_shape *shape, int operands,
                  const int64_t *const *strides);

/* Elements of all dimensions but the last: the rows. */
ptrdiff_t kn_walk_rows(const struct kn_walk *walk);

/* A walk's position: where each operand's row begins, in elements; rows one after the other. */
struct kn_walk_pos {
    ptrdiff_t index[KN_MAX_RANK];
    ptrdiff_t offsets[KN_WALK_OPERANDS];
};
void kn_walk_start(const struct kn_walk *walk, ptrdiff_t row, struct kn_walk_pos *ret_pos);
void kn_walk_next(const struct kn_walk *walk, struct kn_walk_pos *pos);

#endif
