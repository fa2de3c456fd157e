/* Activations of vectors, for every file of this folder that finishes results in registers: one
 * function for each kind, free of branches. exp() and what is made of it: polynomials that are our
 * own fits (Lawson's algorithm; the relative error before rounding stands with each). NaN stays
 * NaN, the infinities give the limits. test_activate.c checks the bounds that docs/kernels.md
 * states.
 */
#ifndef KERNELS_SIMD_ACT_H
#define KERNELS_SIMD_ACT_H

#include <float.h>

#include "vec.h"

static inline vf vf_at_least(vf v, float low) {
    return vf_max(vf_set(low), v);
}

static inline vf vf_at_most(vf v, float high) {
    return vf_min(vf_set(high), v);
}

static inline vf vf_abs(vf v) {
    return (vf)((vi)v & 0x7fffffff);
}

/* The size of one, the sign of the other. */
static inline vf vf_copysign(vf size, vf sign) {
    return (vf)(((vi)size & 0x7fffffff) | ((vi)sign & INT32_MIN));
}

/* p(x) = c[0] + c[1] x + ... of count >= 2 coefficients. */
static inline __attribute__((always_inline)) vf vf_poly(vf x, const float *c, int count) {
    vf p = vf_set(c[count - 1]);

#pragma GCC unroll 8
    for (int i = count - 2; i >= 0; i--)
        p = vf_fma(p, x, vf_set(c[i]));
    return p;
}

/* exp(x) = 2^n exp(r), r in [-ln 2 / 2, ln 2 / 2]; relative error 1.05e-7 before rounding. */
static inline vf vf_exp(vf x) {
    static const float c[] = {1.0f,           1.0f,           4.99992311e-1f,
                              1.66671142e-1f, 4.18901145e-2f, 8.31252523e-3f};
    const float ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f; /* n * ln2_hi is exact */

    x = vf_at_most(vf_at_least(x, -104.0f), 89.0f);
#if defined(__AVX512F__)
    vf n = (vf)_mm512_roundscale_ps((__m512)(x * 1.44269504f), _MM_FROUND_TO_NEAREST_INT);
#else
    const vf magic = vf_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vf shifted = x * 1.44269504f + magic, n = shifted - magic;
#endif
    vf r = vf_fma(n, vf_set(-ln2_lo), vf_fma(n, vf_set(-ln2_hi), x));
    vf p = vf_poly(r, c, 6);
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    /* 2^n is made of two factors: n may be beyond the exponents of normal floats on either side. */
    vi exponent = (vi)shifted - (vi)magic, half = exponent >> 1;
    return p * (vf)((half + 127) << 23) * (vf)((exponent - half + 127) << 23);
#endif
}

/* exp(-v) beside a 1 that is added to it, as 2^(-v log2 e) of relative error 1.2e-7 for small v.
 * The exponent's rounding makes that grow with |v|, to 1e-5 at the ends of float, where there is
 * nothing left of the one summand or the other. Infinity where v is below -88.7, or where 2^n is
 * (-88.4), without AVX-512. */
#if defined(__AVX512F__)
/* Floors in steps of 1/32: the exponent is cut into whole steps, whose powers are a table in two
 * registers, and a rest for which a parabola will do (5.3e-8). */
static inline vf vf_exp_beside_one(vf v) {
    static const float powers[32] __attribute__((aligned(64))) = {
        1.0f,        1.0218972f,  1.04427385f, 1.06714046f, 1.09050775f, 1.1143868f,  1.1387887f,
        1.1637249f,  1.1892072f,  1.21524739f, 1.24185789f, 1.26905107f, 1.29683959f, 1.32523668f,
        1.35425568f, 1.38390994f, 1.41421366f, 1.44518089f, 1.47682619f, 1.50916445f, 1.54221094f,
        1.5759809f,  1.61049044f, 1.64575553f, 1.68179297f, 1.71861935f, 1.75625229f, 1.79470921f,
        1.83400822f, 1.87416768f, 1.91520667f, 1.95714426f};
    const __m512 magic = _mm512_set1_ps(393216.0f); /* 1.5 * 2^18: the last bit is worth 1/32 */
    __m512 exponent = (__m512)(v * -1.44269504f);
    __m512 steps = _mm512_add_round_ps(exponent, magic, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vf power = (vf)_mm512_permutex2var_ps(_mm512_load_ps(powers), (__m512i)steps,
                                          _mm512_load_ps(powers + 16));
    vf rest = (vf)_mm512_reduce_ps(exponent, 5 << 4 | _MM_FROUND_TO_NEG_INF);
    vf p = vf_fma(rest, vf_set(0.242840609f), vf_set(0.693116526f));

    return (vf)_mm512_scalef_ps((__m512)vf_fma(power * rest, p, power), exponent);
}
#else
/* 2^n is made of its bits: n is at most 128, for which they are those of infinity. */
static inline vf vf_exp_beside_one(vf v) {
    static const float c[] = {1.0f,           0.6931470037f,  0.2402224243f,
                              0.05550733581f, 0.00967151299f, 0.00132647273f};
    const vf magic = vf_set(12583039.0f); /* 1.5 * 2^23, and the bias of exponents */
    vf exponent = vf_at_most(vf_at_least(v * -1.44269504f, -126.0f), 128.0f);
    vf biased = exponent + magic, rest = exponent - (biased - magic);

    return vf_poly(rest, c, 6) * (vf)((vi)biased << 23);
}
#endif

/* log(1 + u) for u in [0, 1], as the series of artanh; 4.5e-9. */
static inline vf vf_log1p_unit(vf u) {
    static const float c[] = {3.33332081e-1f, 2.00107636e-1f, 1.40009027e-1f, 1.40059931e-1f};
    vf s = u / (u + 2.0f), z = s * s, twice = s + s;

    return vf_fma(twice * z, vf_poly(z, c, 4), twice);
}

/* erf(v): a polynomial near 0 (1.2e-8), 1 - exp(polynomial) beyond (1.6e-9 of 1). */
static inline vf vf_erf(vf v) {
    static const float near[] = {1.28379154e-1f,  -3.76125233e-1f, 1.12821409e-1f,
                                 -2.67789112e-2f, 5.01196565e-3f,  -6.09037262e-4f};
    static const float far[] = {1.77496123e-4f,  1.12774956f,    6.37059764e-1f, 1.04037349e-1f,
                                -2.22770818e-2f, 3.05560617e-3f, -1.97181576e-4f};
    vf size = vf_abs(v), z = v * v;
    vf small = vf_fma(v, vf_poly(z, near, 6), v);
    vf large = 1.0f - vf_exp(-vf_poly(vf_at_most(size, 3.95f), far, 7));

    return vf_copysign(vf_select(size < 0.9f, small, large), v);
}

/* v * gate(v) where the gate closes faster than v falls: 0 at -infinity, not infinity * 0. */
static inline vf vf_gated(vf v, vf gate) {
    return vf_at_least(v, -FLT_MAX) * gate;
}

/* ---- the kinds of enum kn_act, v the element, a and b the attributes ---- */

static inline vf vf_act_none(vf v, float a, float b) {
    (void)a;
    (void)b;
    return v;
}

static inline vf vf_act_relu(vf v, float a, float b) {
    (void)a;
    (void)b;
    return vf_at_least(v, 0.0f);
}

static inline vf vf_act_clip(vf v, float a, float b) {
    return vf_at_most(vf_at_least(v, a), b);
}

/* Both sides of zero as a sum. */
static inline vf vf_act_leaky_relu(vf v, float a, float b) {
    (void)b;
    return vf_at_least(v, 0.0f) + a * vf_at_most(v, 0.0f);
}

static inline vf vf_act_sigmoid(vf v, float a, float b) {
    (void)a;
    (void)b;
    return 1.0f / (1.0f + vf_exp_beside_one(v));
}

/* An odd polynomial near 0, 1 - 2 / (exp(2 v) + 1) beyond. */
static inline vf vf_act_tanh(vf v, float a, float b) {
    static const float near[] = {-3.33332598e-1f, 1.33308306e-1f, -5.36880232e-2f, 2.04694197e-2f,
                                 -5.5151642e-3f};
    vf size = vf_abs(v), z = v * v;
    vf small = vf_fma(v * z, vf_poly(z, near, 5), v);
    vf large = 1.0f - 2.0f / (vf_exp(size + size) + 1.0f);

    (void)a;
    (void)b;
    return vf_copysign(vf_select(size < 0.625f, small, large), v);
}

static inline vf vf_act_hard_sigmoid(vf v, float a, float b) {
    return vf_at_least(vf_at_most(a * v + b, 1.0f), 0.0f);
}

static inline vf vf_act_hard_swish(vf v, float a, float b) {
    vf c = vf_at_least(v, -3.0f);

    (void)a;
    (void)b;
    return c * vf_at_most(vf_fma(c, vf_set(1.0f / 6.0f), vf_set(0.5f)), 1.0f);
}

static inline vf vf_act_silu(vf v, float a, float b) {
    (void)a;
    (void)b;
    return vf_at_least(v, -FLT_MAX) / (1.0f + vf_exp_beside_one(v));
}

static inline vf vf_act_elu(vf v, float a, float b) {
    (void)b;
    return vf_at_least(v, 0.0f) + a * (vf_exp(vf_at_most(v, 0.0f)) - 1.0f);
}

static inline vf vf_act_selu(vf v, float a, float b) {
    return b * vf_act_elu(v, a, b);
}

static inline vf vf_act_celu(vf v, float a, float b) {
    (void)b;
    return vf_at_least(v, 0.0f) + vf_at_most(a * (vf_exp(v / a) - 1.0f), 0.0f);
}

static inline vf vf_act_softplus(vf v, float a, float b) {
    (void)a;
    (void)b;
    return vf_at_least(v, 0.0f) + vf_log1p_unit(vf_exp(-vf_abs(v)));
}

static inline vf vf_act_softsign(vf v, float a, float b) {
    vf c = vf_at_most(vf_at_least(v, -FLT_MAX), FLT_MAX);

    (void)a;
    (void)b;
    return c / (1.0f + vf_abs(c));
}

static inline vf vf_act_thresholded_relu(vf v, float a, float b) {
    (void)b;
    return (vf)((v > a) & (vi)v);
}

static inline vf vf_act_erf(vf v, float a, float b) {
    (void)a;
    (void)b;
    return vf_erf(v);
}

/* tanh(log(1 + e)) = w / (w + 2) with e = exp(v) and w = e * (e + 2); 1 from v = 20 on. */
static inline vf vf_act_mish(vf v, float a, float b) {
    vf e = vf_exp(vf_at_most(v, 20.0f)), w = e * (e + 2.0f);

    (void)a;
    (void)b;
    return vf_gated(v, w / (w + 2.0f));
}

static inline vf vf_act_gelu(vf v, float a, float b) {
    (void)a;
    (void)b;
    return vf_gated(v, 0.5f + 0.5f * vf_erf(v * 0.70710678f));
}

/* 0.5 * (1 + tanh(u)) is sigmoid(2 * u). */
static inline vf vf_act_gelu_tanh(vf v, float a, float b) {
    return vf_gated(v, vf_act_sigmoid(1.5957691f * (v + 0.044715f * v * v * v), a, b));
}

#endif
