#include <math.h>

#include "../internal.h"

/* What one window has seen. */
struct window {
    double sum;
    float max;
    int64_t max_at;
    int64_t inside; /* cells of the picture */
    int64_t padded; /* cells of the picture and its padding, not beyond */
};

static void see(const struct kn_pool *pool, const float *x, ptrdiff_t plane, ptrdiff_t iy,
                ptrdiff_t ix, struct window *window) {
    if (iy >= pool->ih + pool->pad_bottom || ix >= pool->iw + pool->pad_right)
        return;
    window->padded++;
    if (iy < 0 || iy >= pool->ih || ix < 0 || ix >= pool->iw)
        return;
    window->inside++;
    ptrdiff_t at = (plane * pool->ih + iy) * pool->iw + ix;
    window->sum += (double)x[at];
    if (x[at] > window->max || isnan(x[at])) {
        window->max = x[at];
        window->max_at = at;
    }
}

/* Sums are accumulated in double. NaN wins over every number; a window that sees nothing gives
 * -infinity at index 0, or the average 0. */
void kn_pool_ref(const struct kn_pool *pool, const float *x, float *y, int64_t *ret_index) {
    ptrdiff_t out = 0;

    for (ptrdiff_t p = 0; p < pool->planes; p++)
        for (ptrdiff_t oy = 0; oy < pool->oh; oy++)
            for (ptrdiff_t ox = 0; ox < pool->ow; ox++, out++) {
                struct window window = {.max = -INFINITY};
                for (ptrdiff_t ky = 0; ky < pool->kh; ky++)
                    for (ptrdiff_t kx = 0; kx < pool->kw; kx++)
                        see(pool, x, p, oy * pool->stride_h + ky * pool->dil_h - pool->pad_top,
                            ox * pool->stride_w + kx * pool->dil_w - pool->pad_left, &window);
                int64_t cells = pool->count_include_pad ? window.padded : window.inside;
                if (pool->kind == KN_POOL_AVERAGE) {
                    y[out] = cells > 0 ? (float)(window.sum / (double)cells) : 0.0f;
                    continue;
                }
                y[out] = window.max;
                if (ret_index)
                    ret_index[out] = window.max_at;
            }
}
