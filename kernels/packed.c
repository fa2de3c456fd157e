#include "packed.h"

#include <math.h>

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

struct kn_rows kn_rows_part(const struct kn_rows *rows, ptrdiff_t first, ptrdiff_t count) {
    const char *w = (const char *)rows->w + first * rows->depth * (ptrdiff_t)sizeof(float);

    return (struct kn_rows){.w = (const float *)(const void *)w,
                            .scale = rows->scale ? rows->scale + first : NULL,
                            .count = kn_min(count, rows->count - first),
                            .depth = rows->depth};
}

void kn_panels_pack(const struct kn_simd *simd, const struct kn_rows *rows, float *panels) {
    ptrdiff_t height = simd->panel_rows;

    for (ptrdiff_t i = 0; i < rows->count; i += height, panels += height * rows->depth) {
        struct kn_rows part = kn_rows_part(rows, i, height);
        simd->pack_panel(&part, height, panels);
    }
}

bool kn_act_bounds(const struct kn_activation *act, float *ret_low, float *ret_high) {
    bool relu = act->kind == KN_ACT_RELU, clip = act->kind == KN_ACT_CLIP;

    *ret_low = relu ? 0.0f : clip ? act->a : -INFINITY;
    *ret_high = clip ? act->b : INFINITY;
    return relu || clip || act->kind == KN_ACT_NONE;
}
