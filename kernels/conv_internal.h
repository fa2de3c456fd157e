/* The table of convolution algorithms; docs/kernels.md tells how to add one. */
#ifndef KERNELS_CONV_INTERNAL_H
#define KERNELS_CONV_INTERNAL_H

#include "internal.h"

/* One way to compute a convolution. conv.c tries them in the order of its table. What fits() and
 * size() answer may depend on the shape and the CPU, never on the number of threads. */
struct kn_conv_algo {
    const char *name;

    /* Whether this algorithm can do conv and is the right choice for it. */
    bool (*fits)(const struct kn_conv *conv);

    /* Sets plan->packed_bytes, plan->panel and plan->workspace_bytes: scratch of ONE thread, a
     * multiple of KN_ALIGN. 0 or -EOVERFLOW; conv.c's limits hold, so products of a tensor's own
     * dimensions fit. */
    int (*size)(struct kn_conv_plan *plan);

    /* As kn_conv_pack(). */
    void (*pack)(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                 void *packed);

    void (*run)(const struct kn_conv_plan *plan, const void *packed, const float *x,
                const float *residual, float *y, void *workspace, struct kn_threads *threads);
};

extern const struct kn_conv_algo kn_conv_depthwise_lanes;
extern const struct kn_conv_algo kn_conv_depthwise;
extern const struct kn_conv_algo kn_conv_banded;
extern const struct kn_conv_algo kn_conv_vector;
extern const struct kn_conv_algo kn_conv_1x1;
extern const struct kn_conv_algo kn_conv_winograd;
extern const struct kn_conv_algo kn_conv_direct;
extern const struct kn_conv_algo kn_conv_window;
extern const struct kn_conv_algo kn_conv_im2col;

/* ---- what the algorithms share (conv_common.c) ---- */

/* Packed weights that begin with a bias for every output channel (zeros where there is none),
 * padded to KN_ALIGN; then the weights in ONNX's order. */
size_t kn_conv_plain_bytes(const struct kn_conv *conv);
void kn_conv_plain_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                        void *packed);
const float *kn_conv_plain_weights(const struct kn_conv *conv, const void *packed);

/* The channels' biases into to, which has room for `room` of all channels: zeros behind the last.
 */
void kn_conv_pack_bias(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                       size_t room, float *to);

/* A piece of y: rows are output channels, ld elements apart. */
struct kn_strip {
    ptrdiff_t rows, cols, ld;
};

/* y = bias + residual (either may be NULL); residual lies like y and may be y. */
void kn_strip_begin(const struct kn_strip *strip, const float *bias, const float *residual,
                    float *y);
void kn_strip_end(const struct kn_strip *strip, const struct kn_activation *act, float *y);

/* How one image's GEMM [rows] x [depth] x [cols] of one group is cut: strips of columns, so that
 * the matrix of a strip (depth x panel) and its products stay in cache; and where there are few
 * strips, blocks of rows, so that threads find work. Depends on the shape alone. */
struct kn_split {
    ptrdiff_t panel; /* columns of a strip; the last may have fewer */
    ptrdiff_t strips;
    ptrdiff_t block_rows; /* rows of a block; the last may have fewer */
    ptrdiff_t blocks;
};
int kn_conv_panel(ptrdiff_t depth, ptrdiff_t cols);
void kn_conv_split(const struct kn_conv_plan *plan, struct kn_split *ret_split);

/* The output columns [*ret_lo, *ret_hi) of [0, out) whose input column o * stride + offset lies in
 * [0, in). *ret_lo <= *ret_hi. */
void kn_valid_range(ptrdiff_t in, ptrdiff_t out, ptrdiff_t stride, ptrdiff_t offset,
                    ptrdiff_t *ret_lo, ptrdiff_t *ret_hi);

#endif
