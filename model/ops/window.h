/* What convolution and pooling share: kernel, strides, dilations and pads of one or two axes. */
#ifndef CONVOY_MODEL_OPS_WINDOW_H
#define CONVOY_MODEL_OPS_WINDOW_H

#include "model/op.h"

/* Axis 0 is height, 1 width. A one-dimensional window has a height of 1 throughout. */
struct window {
    int spatial; /* axes that the tensor has: 1 or 2 */
    int in[2], kernel[2], stride[2], dilation[2];
    int begin[2], end[2]; /* pads */
    int out[2];
};

/* Reads kernel_shape (or takes kernel when it is given: the weights' dims), strides, dilations,
 * pads and auto_pad of a node whose input 0 is [n][c][spatial...], and checks them. out is not set.
 */
int window_read(const struct op_call *call, const int64_t *kernel, struct window *ret);

/* Sets out, and pads by auto_pad, for a window that slides over its input. */
int window_slide(const struct op_call *call, bool ceil_mode, struct window *window);

/* Sets out and pads for ConvTranspose: output_padding, output_shape, auto_pad. */
int window_transpose(const struct op_call *call, struct window *window);

/* Output 0 is [n][c][out...] of type float32. */
int window_set(const struct op_call *call, const struct window *window, int64_t n, int64_t c);

#endif
