/* Vectors of floats for the files of this folder, which are compiled once per instruction set (the
 * Makefile's SIMD_*): one type `vf` of VF_LANES floats, and the operations that GCC's vector
 * extensions have no word for. Everything else (+ - * /, comparisons, initialisers) is plain C on
 * vf. The same source gives the same operations in the same order on every level; but lanes, and
 * whether vf_fma() rounds once, differ, and so may the last bits.
 */
#ifndef KERNELS_SIMD_VEC_H
#define KERNELS_SIMD_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Which level this is: set by the Makefile for all but the baseline. */
#ifndef KN_ISA
#if defined(__x86_64__)
#define KN_ISA sse2
#elif defined(__aarch64__)
#define KN_ISA neon
#else
#define KN_ISA portable
#endif
#endif

/* Inlined and unrolled so that what is constant at a call is constant inside. Not under sanitizers
 * (the Makefile says so): their checks, unrolled, keep a compiler busy for minutes. */
#ifdef KN_SANITIZED
#define INLINED static
#define UNROLL(n)
#else
#define INLINED             static inline __attribute__((always_inline))
#define UNROLL_PRAGMA(text) _Pragma(#text)
#define UNROLL(n)           UNROLL_PRAGMA(GCC unroll n)
#endif

/* name -> name__avx2: what a file of this folder calls what other files see. */
#define KN_SIMD_JOIN(name, isa)   name##__##isa
#define KN_SIMD_EXPAND(name, isa) KN_SIMD_JOIN(name, isa)
#define KN_SIMD(name)             KN_SIMD_EXPAND(name, KN_ISA)

#if defined(__AVX512F__)
#define VF_LANES     16
#define VF_REGISTERS 32
#define VF_NAME      "AVX-512"
#elif defined(__AVX2__)
#define VF_LANES     8
#define VF_REGISTERS 16
#define VF_NAME      "AVX2+FMA"
#elif defined(__aarch64__)
#define VF_LANES     4
#define VF_REGISTERS 32
#define VF_NAME      "NEON"
#elif defined(__ARM_NEON)
#define VF_LANES     4
#define VF_REGISTERS 16
#define VF_NAME      "NEON"
#elif defined(__SSE2__)
#define VF_LANES     4
#define VF_REGISTERS 16
#define VF_NAME      "SSE2"
#else
#define VF_LANES     4
#define VF_REGISTERS 16
#define VF_NAME      "portable C"
#endif

#define VF_LINE 16 /* floats that a cache brings at once: one prefetch is for so many */

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

typedef float vf __attribute__((vector_size(VF_LANES * 4)));
typedef int32_t vi __attribute__((vector_size(VF_LANES * 4))); /* what comparing two vf gives */
typedef vf vf_unaligned __attribute__((aligned(4), may_alias));

static inline vf vf_load(const float *p) {
    return *(const vf_unaligned *)p;
}

static inline void vf_store(float *p, vf v) {
    *(vf_unaligned *)p = v;
}

/* All lanes the same. */
static inline vf vf_set(float s) {
#if defined(__AVX512F__)
    return (vf)_mm512_set1_ps(s);
#elif defined(__AVX2__)
    return (vf)_mm256_set1_ps(s);
#else
    return (vf){s, s, s, s};
#endif
}

/* a * b + c, in one rounding where the level has that (all but SSE2 and portable C). */
static inline vf vf_fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* Lane by lane: mask ? a : b, where mask is what a comparison gave. */
static inline vf vf_select(vi mask, vf a, vf b) {
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

/* a > b ? a : b, and a < b ? a : b: the second operand where either is NaN. */
static inline vf vf_max(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vf_select(a > b, a, b);
#endif
}

static inline vf vf_min(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return vf_select(a < b, a, b);
#endif
}

/* The first n lanes, 0 <= n <= VF_LANES: nothing else is read (the other lanes are 0) or written.
 */
static inline vf vf_load_n(const float *p, ptrdiff_t n) {
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#else
    vf v = {0};

    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
#endif
}

static inline void vf_store_n(float *p, vf v, ptrdiff_t n) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), (__m512)v);
#else
    memcpy(p, &v, (size_t)n * sizeof(float));
#endif
}

/* Lanes by their numbers in two vectors, a's first. The sequence a, b of 2 * VF_LANES floats: its
 * even and odd elements; the lower and the upper half of a and b taken in turn (the inverse of
 * those two); a moved down by one lane, with lane `first` of b behind it. */
#if VF_LANES == 16
#define VF_EVEN     0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define VF_ODD      1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define VF_ZIP_LOW  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define VF_ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define VF_NEXT     1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#elif VF_LANES == 8
#define VF_EVEN     0, 2, 4, 6, 8, 10, 12, 14
#define VF_ODD      1, 3, 5, 7, 9, 11, 13, 15
#define VF_ZIP_LOW  0, 8, 1, 9, 2, 10, 3, 11
#define VF_ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define VF_NEXT     1, 2, 3, 4, 5, 6, 7
#else
#define VF_EVEN     0, 2, 4, 6
#define VF_ODD      1, 3, 5, 7
#define VF_ZIP_LOW  0, 4, 1, 5
#define VF_ZIP_HIGH 2, 6, 3, 7
#define VF_NEXT     1, 2, 3
#endif
#define vf_even(a, b)        __builtin_shufflevector(a, b, VF_EVEN)
#define vf_odd(a, b)         __builtin_shufflevector(a, b, VF_ODD)
#define vf_zip_low(a, b)     __builtin_shufflevector(a, b, VF_ZIP_LOW)
#define vf_zip_high(a, b)    __builtin_shufflevector(a, b, VF_ZIP_HIGH)
#define vf_next(a, b, first) __builtin_shufflevector(a, b, VF_NEXT, VF_LANES + (first))

/* The lanes' sum: halves added to each other, until one is left. */
static inline float vf_sum(vf v) {
    float lanes[VF_LANES];

    vf_store(lanes, v);
    for (int half = VF_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

#endif
