/* Weights into the order in which products read them, at load. Rows come as they lie in a file, at
 * any address, and are multiplied with a scale of each on the way. Doubles are never contracted:
 * the same bits on every level.
 */
#include "functions.h"

#define QUAD     4 /* rows and columns that are transposed at once */
#define TAPS_MAX (KN_WINOGRAD_KERNEL_MAX * KN_WINOGRAD_KERNEL_MAX)
#define CHANNELS 8 /* of a panel that are transformed before they go where they belong */

typedef float quad __attribute__((vector_size(QUAD * sizeof(float))));
typedef double quad_double __attribute__((vector_size(QUAD * sizeof(double))));
typedef float rows_float __attribute__((vector_size(TILE_ROWS * sizeof(float))));
typedef double rows_double __attribute__((vector_size(TILE_ROWS * sizeof(double))));

/* n floats of row r from column k on; zeros where there is no such row. */
INLINED void load_row(const struct kn_rows *rows, ptrdiff_t r, ptrdiff_t k, ptrdiff_t n,
                      quad *ret) {
    quad x = {0};

    if (r < rows->count)
        memcpy(&x, (const char *)rows->w + (r * rows->depth + k) * (ptrdiff_t)sizeof(float),
               (size_t)n * sizeof(float));
    if (r < rows->count && rows->scale)
        x = __builtin_convertvector(__builtin_convertvector(x, quad_double) * rows->scale[r], quad);
    *ret = x;
}

/* Rows [r, r + QUAD) of the columns [k, k + n). */
INLINED void pack_quad(const struct kn_rows *rows, ptrdiff_t r, ptrdiff_t k, ptrdiff_t n,
                       ptrdiff_t height, float *to) {
    quad x[QUAD], y[QUAD];

    for (int i = 0; i < QUAD; i++)
        load_row(rows, r + i, k, n, &x[i]);
    quad low_1 = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
    quad high_1 = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
    quad low_2 = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
    quad high_2 = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
    y[0] = __builtin_shufflevector(low_1, low_2, 0, 1, 4, 5);
    y[1] = __builtin_shufflevector(low_1, low_2, 2, 3, 6, 7);
    y[2] = __builtin_shufflevector(high_1, high_2, 0, 1, 4, 5);
    y[3] = __builtin_shufflevector(high_1, high_2, 2, 3, 6, 7);
    for (ptrdiff_t i = 0; i < n; i++)
        memcpy(to + (k + i) * height + r, &y[i], sizeof(y[i]));
}

void KN_SIMD(kn_pack_panel)(const struct kn_rows *rows, ptrdiff_t height, float *to) {
    ptrdiff_t whole = rows->depth / QUAD * QUAD;

    for (ptrdiff_t k = 0; k < whole; k += QUAD)
        for (ptrdiff_t r = 0; r < height; r += QUAD)
            pack_quad(rows, r, k, QUAD, height, to);
    for (ptrdiff_t r = 0; r < height && whole < rows->depth; r += QUAD)
        pack_quad(rows, r, whole, rows->depth - whole, height, to);
}

/* Channel c's kernels, a lane of ret[tap] for each row. */
INLINED void load_kernels(const struct kn_rows *rows, const int taps, ptrdiff_t c,
                          rows_double *ret) {
    double lanes[TAPS_MAX][TILE_ROWS] = {{0}};
    float kernel[TAPS_MAX];

    for (ptrdiff_t r = 0; r < TILE_ROWS && r < rows->count; r++) {
        memcpy(kernel,
               (const char *)rows->w + (r * rows->depth + c * taps) * (ptrdiff_t)sizeof(float),
               (size_t)taps * sizeof(float));
        for (int i = 0; i < taps; i++) {
            double w = (double)kernel[i];
            lanes[i][r] = rows->scale ? (double)(float)(w * rows->scale[r]) : w;
        }
    }
    memcpy(ret, lanes, (size_t)taps * sizeof(*ret));
}

/* G w G^T of a lane's kernel, ret[point]. */
INLINED void transform_kernels(const struct kn_winograd_weights *to, const int kernel,
                               const rows_double *w, rows_float *ret) {
    for (int i = 0; i < to->inputs; i++) {
        rows_double half[KN_WINOGRAD_KERNEL_MAX];
        for (int k = 0; k < kernel; k++) {
            half[k] = to->g[i][0] * w[k];
            for (int r = 1; r < kernel; r++)
                half[k] += to->g[i][r] * w[r * kernel + k];
        }
        for (int j = 0; j < to->inputs; j++) {
            rows_double sum = half[0] * to->g[j][0];
            for (int k = 1; k < kernel; k++)
                sum += half[k] * to->g[j][k];
            *ret++ = __builtin_convertvector(sum, rows_float);
        }
    }
}

/* Points lie far apart, often by a power of two: some channels of each at a time keep them from
 * driving each other out of the cache. */
INLINED void pack_kernels(const struct kn_rows *rows, const struct kn_winograd_weights *to,
                          const int kernel) {
    rows_float points[CHANNELS][KN_WINOGRAD_POINTS_MAX];
    const int taps = kernel * kernel;
    ptrdiff_t channels = rows->depth / taps;

    for (ptrdiff_t c = 0, n; c < channels; c += n) {
        n = kn_min(CHANNELS, channels - c);
        for (ptrdiff_t i = 0; i < n; i++) {
            rows_double w[TAPS_MAX];
            load_kernels(rows, taps, c + i, w);
            transform_kernels(to, kernel, w, points[i]);
        }
        for (int p = 0; p < to->inputs * to->inputs; p++) {
            float *at = to->panel + p * to->point_stride + c * TILE_ROWS;
            for (ptrdiff_t i = 0; i < n; i++)
                memcpy(at + i * TILE_ROWS, &points[i][p], sizeof(points[i][p]));
        }
    }
}

void KN_SIMD(kn_winograd_pack)(const struct kn_rows *rows, const struct kn_winograd_weights *to) {
    if (to->kernel == 5)
        pack_kernels(rows, to, 5);
    else
        pack_kernels(rows, to, 3);
}
