/* Windows that slide over one plane: what depthwise convolution and pooling share.
 *
 * A band of input rows is copied with its padding into scratch that stays in the first cache, split
 * by the phases of the strides: rows and columns of phase (row % stride_h, column % stride_w) lie
 * together. Then every tap of the window reads its phase at a fixed distance, whatever stride and
 * dilation, rows follow one another without a border between them, and one loop over the band does
 * it all. Each row of results ends with some that mean nothing.
 */
#ifndef KERNELS_BAND_H
#define KERNELS_BAND_H

#include "internal.h"

#define KN_BAND_BYTES    (24 * 1024) /* of scratch: less than a first cache of 32 KB */
#define KN_BAND_TAPS_MAX 128

/* Elements at once, at any address. The compiler makes one or two registers of it. */
typedef float kn_vec __attribute__((vector_size(32), aligned(4), may_alias));
#define KN_VEC  8
#define KN_UNIT (4 * KN_VEC) /* results that are computed side by side */

/* A window and the plane it slides over. */
struct kn_window {
    ptrdiff_t ih, iw, oh, ow;
    ptrdiff_t kh, kw, stride_h, stride_w, dil_h, dil_w, pad_top, pad_left;
    bool far; /* the next plane is wanted next, and comes from beyond the second cache */
};

/* How scratch is laid out: [phases_h][phases_w][rows + reach_h][pitch] of input, then room for
 * [rows][pitch] results. */
struct kn_band {
    struct kn_window window;
    ptrdiff_t phases_h, phases_w;
    ptrdiff_t reach_h; /* input rows of one phase beyond the number of output rows */
    ptrdiff_t pitch;
    ptrdiff_t rows;    /* output rows of a band */
    size_t bytes;      /* of scratch, a multiple of KN_ALIGN */
    ptrdiff_t results; /* where they begin, in elements */
    ptrdiff_t taps;
    ptrdiff_t offsets[KN_BAND_TAPS_MAX]; /* where each tap reads, from the result it is for */
};

/* False when a band of even one row would not fit KN_BAND_BYTES, or there are too many taps. */
bool kn_band_init(struct kn_band *band, const struct kn_window *window);

/* Copies what output rows [oy, oy + rows) need from the plane x; cells outside it are fill. */
void kn_band_fill(const struct kn_band *band, const float *x, ptrdiff_t oy, ptrdiff_t rows,
                  float fill, float *scratch);

#endif
