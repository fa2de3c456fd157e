/* exp() and tanh() of floats without branches or calls, so that loops over them vectorise. Within 3
 * units in the last place; right at the infinities, NaN stays NaN. Polynomials: our own fits
 * (Lawson's algorithm, relative error below 1e-8 before rounding). */
#ifndef KERNELS_VEXP_H
#define KERNELS_VEXP_H

#include <stdint.h>
#include <string.h>

/* At or above low, at or below high; NaN stays. */
static inline float kn_at_least(float v, float low) {
    return v < low ? low : v;
}

static inline float kn_at_most(float v, float high) {
    return v > high ? high : v;
}

static inline uint32_t kn_float_bits(float v) {
    uint32_t bits;

    memcpy(&bits, &v, sizeof(bits));
    return bits;
}

static inline float kn_bits_float(uint32_t bits) {
    float v;

    memcpy(&v, &bits, sizeof(v));
    return v;
}

/* exp(x) = 2^n * exp(r), r in [-ln 2 / 2, ln 2 / 2]. 2^n is made of two factors, because n may be
 * beyond the exponents of normal floats on either side. */
static inline float kn_exp(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f; /* n * ln2_hi is exact */

    x = kn_at_most(kn_at_least(x, -104.0f), 89.0f);
    float shifted = x * 1.44269504f + magic, n = shifted - magic;
    float r = (x - n * ln2_hi) - n * ln2_lo;
    float p = 1.3813145e-3f;
    p = p * r + 8.3694188e-3f;
    p = p * r + 4.16684560e-2f;
    p = p * r + 1.66665152e-1f;
    p = p * r + 4.99999940e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t exponent = kn_float_bits(shifted) - kn_float_bits(magic);
    uint32_t half = (uint32_t)((int32_t)exponent >> 1);
    return p * kn_bits_float((half + 127) << 23) * kn_bits_float((exponent - half + 127) << 23);
}

static inline float kn_sigmoid(float x) {
    return 1.0f / (1.0f + kn_exp(-x));
}

static inline float kn_tanh(float x) {
    float size = kn_bits_float(kn_float_bits(x) & 0x7fffffffu), z = x * x;
    float p = -5.5151642e-3f;

    p = p * z + 2.04694197e-2f;
    p = p * z - 5.36880232e-2f;
    p = p * z + 1.33308306e-1f;
    p = p * z - 3.33332598e-1f;
    float small = x * (1.0f + z * p);
    float large = 1.0f - 2.0f / (kn_exp(2.0f * size) + 1.0f);
    large = kn_bits_float(kn_float_bits(large) | (kn_float_bits(x) & 0x80000000u));
    return size < 0.625f ? small : large;
}

#endif
