#include "packed.h"

#include <math.h>
#include <string.h>

size_t kn_panels_count(const struct kn_simd *simd, ptrdiff_t rows, ptrdiff_t depth) {
    return (size_t)(kn_ceil_div(rows, simd->panel_rows) * simd->panel_rows * depth);
}

bool kn_panels_fit(const struct kn_simd *simd, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t matrices,
                   ptrdiff_t biases) {
    size_t floats = (size_t)rows;

    return !__builtin_add_overflow(floats, (size_t)simd->panel_rows, &floats) &&
           !__builtin_mul_overflow(floats, (size_t)depth, &floats) &&
           !__builtin_mul_overflow(floats, (size_t)matrices, &floats) &&
           !__builtin_add_overflow(floats, (size_t)biases + 2 * KN_ALIGN, &floats) &&
           floats <= PTRDIFF_MAX / sizeof(float);
}

void kn_panels_pack(const struct kn_simd *simd, const float *w, ptrdiff_t rows, ptrdiff_t depth,
                    float *panels) {
    ptrdiff_t height = simd->panel_rows;

    for (ptrdiff_t i = 0; i < rows; i += height, panels += height * depth)
        for (ptrdiff_t r = 0; r < height; r++) {
            const char *row = (const char *)w + (i + r) * depth * (ptrdiff_t)sizeof(float);
            for (ptrdiff_t k = 0; k < depth; k++) {
                float value = 0.0f;
                if (i + r < rows)
                    memcpy(&value, row + k * (ptrdiff_t)sizeof(float), sizeof(value));
                panels[k * height + r] = value;
            }
        }
}

bool kn_act_bounds(const struct kn_activation *act, float *ret_low, float *ret_high) {
    bool relu = act->kind == KN_ACT_RELU, clip = act->kind == KN_ACT_CLIP;

    *ret_low = relu ? 0.0f : clip ? act->a : -INFINITY;
    *ret_high = clip ? act->b : INFINITY;
    return relu || clip || act->kind == KN_ACT_NONE;
}
