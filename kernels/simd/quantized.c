/* Products of 16-bit integers, summed in 32 bits, modulo 2^32: the order does not matter, so every
 * level gives the same bits. */
#include "functions.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define VS_LANES (2 * VF_LANES)
#define ROWS     (VF_REGISTERS == 32 ? 4 : 2) /* rows of a times COLUMNS rows of b at once */
#define COLUMNS  4

typedef uint32_t vu __attribute__((vector_size(VF_LANES * 4)));
typedef uint32_t quad __attribute__((vector_size(16)));
typedef int16_t vs __attribute__((vector_size(VF_LANES * 4)));
typedef vs vs_aligned __attribute__((aligned(16), may_alias));
typedef uint32_t quad_unaligned __attribute__((vector_size(16), aligned(4), may_alias));

/* sum plus the products of a's and b's lanes, two of them in each lane of 32 bits. */
static inline vu dot(vs a, vs b, vu sum) {
#if defined(__AVX512F__)
    return sum + (vu)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return sum + (vu)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return sum + (vu)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__ARM_NEON)
    int32x4_t s = vmlal_s16((int32x4_t)sum, vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    return (vu)vmlal_s16(s, vget_high_s16((int16x8_t)a), vget_high_s16((int16x8_t)b));
#else
    for (int i = 0; i < VF_LANES; i++)
        sum[i] += (uint32_t)(a[2 * i] * b[2 * i]) + (uint32_t)(a[2 * i + 1] * b[2 * i + 1]);
    return sum;
#endif
}

/* Adds the parts of a vector, four lanes each. */
static inline quad fold(vu v) {
    quad parts[VF_LANES / 4], sum;

    memcpy(parts, &v, sizeof(v));
    sum = parts[0];
    for (int i = 1; i < VF_LANES / 4; i++)
        sum += parts[i];
    return sum;
}

/* The sums of four vectors' lanes. */
static inline quad sum_four(const vu *v) {
    quad a = fold(v[0]), b = fold(v[1]), c = fold(v[2]), d = fold(v[3]);
    quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    quad cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);

    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) +
           __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* ROWS x COLUMNS sums; rows past the last one are repeated and not stored. */
static void dot_tile(const struct kn_qdots *d, ptrdiff_t i, ptrdiff_t j) {
    const int16_t *a[ROWS], *b[COLUMNS];
    vu sums[ROWS][COLUMNS] = {0};
    ptrdiff_t n = kn_min(COLUMNS, d->n - j);

    for (int r = 0; r < ROWS; r++)
        a[r] = d->a + kn_min(i + r, d->m - 1) * d->lda;
    for (int c = 0; c < COLUMNS; c++)
        b[c] = d->b + kn_min(j + c, d->n - 1) * d->ldb;
    for (ptrdiff_t k = 0; k < d->k; k += VS_LANES) {
        vs column[COLUMNS];
        for (int c = 0; c < COLUMNS; c++)
            column[c] = *(const vs_aligned *)(const void *)(b[c] + k);
        for (int r = 0; r < ROWS; r++) {
            vs row = *(const vs_aligned *)(const void *)(a[r] + k);
            for (int c = 0; c < COLUMNS; c++)
                sums[r][c] = dot(row, column[c], sums[r][c]);
        }
    }
    for (ptrdiff_t r = 0; r < ROWS && i + r < d->m; r++) {
        quad four = sum_four(sums[r]);
        int32_t *y = d->y + (i + r) * d->ldy + j;
        if (n == COLUMNS)
            *(quad_unaligned *)(void *)y = four;
        else
            memcpy(y, &four, (size_t)n * sizeof(*y));
    }
}

void KN_SIMD(kn_qdots)(const struct kn_qdots *d) {
    for (ptrdiff_t i = 0; i < d->m; i += ROWS)
        for (ptrdiff_t j = 0; j < d->n; j += COLUMNS)
            dot_tile(d, i, j);
}

#define BLOCKS (KN_QCHANNELS / VF_LANES)

typedef int16_t half_vs __attribute__((vector_size(VF_LANES * 2), aligned(2), may_alias));
typedef int32_t wide __attribute__((vector_size(VF_LANES * 4)));
typedef vu vu_unaligned __attribute__((aligned(4), may_alias));

void KN_SIMD(kn_qwindows)(const struct kn_qwindows *w) {
    for (ptrdiff_t i = 0; i < w->count; i++) {
        vu sums[BLOCKS] = {0};
        for (ptrdiff_t ky = 0; ky < w->taps_h; ky++)
            for (ptrdiff_t kx = 0; kx < w->taps_w; kx++) {
                const int16_t *x = w->x + i * w->x_next + ky * w->x_row + kx * w->x_column;
                const int16_t *taps = w->w + ky * w->w_row + kx * KN_QCHANNELS;
                for (int c = 0; c < BLOCKS; c++)
                    sums[c] +=
                        (vu)(__builtin_convertvector(
                                 *(const half_vs *)(const void *)(x + c * VF_LANES), wide) *
                             __builtin_convertvector(
                                 *(const half_vs *)(const void *)(taps + c * VF_LANES), wide));
            }
        for (int c = 0; c < BLOCKS; c++)
            *(vu_unaligned *)(void *)(w->y + i * KN_QCHANNELS + c * VF_LANES) = sums[c];
    }
}
