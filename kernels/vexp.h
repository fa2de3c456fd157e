/* exp() of floats without branches or calls, so that loops over it vectorise. Within 3 units in the
 * last place; right at the infinities, NaN stays NaN. Polynomial: our own fit (Lawson's algorithm,
 * relative error below 1e-8 before rounding). simd/act.h has the one for vectors. */
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

#endif
