/* What convolution and pooling share: kernel, strides, dilations and pads of one to three axes. */
#ifndef CONVOY_MODEL_OPS_WINDOW_H
#define CONVOY_MODEL_OPS_WINDOW_H

#include "model/op.h"

enum { WINDOW_D, WINDOW_H, WINDOW_W, WINDOW_AXES };

/* By axis: depth, height, width. A window with fewer is 1 long along the first ones. */
struct window {
    int spatial; /* axes that the tensor has: 1 to 3 */
    int in[WINDOW_AXES], kernel[WINDOW_AXES], stride[WINDOW_AXES], dilation[WINDOW_AXES];
    int begin[WINDOW_AXES], end[WINDOW_AXES]; /* pads */
    int out[WINDOW_AXES];
};

/* Reads kernel_shape (or takes kernel when it is given: the weights' dims), strides, dilations,
 * pads and auto_pad of a node whose input 0 is [n][c][spatial...], and checks them. out is not set.
 */
int window_read(const struct op_call *call, const int64_t *kernel, struct window *ret);

/* Sets out, and pads by auto_pad, for a window that slides over its input. */
int window_slide(const struct op_call *call, bool ceil_mode, struct window *window);

/* Sets out and pads for ConvTranspose: output_padding, output_shape, auto_pad. */
int window_transpose(const struct op_call *call, struct window *window);

/* Output 0 is [n][c][out...]. */
int window_set(const struct op_call *call, const struct window *window, enum dtype dtype, int64_t n,
               int64_t c);

/* Checks input `at`, weights [oc][ic/group][...] (ic_axis 1) or [ic][oc/group][...] (ic_axis 0),
 * against input 0's channels and the attribute group. */
int window_weights(const struct op_call *call, size_t at, int ic_axis, int64_t *ret_group,
                   int64_t *ret_oc);

/* The height and width of a convolution of x. */
struct kn_conv window_conv(const struct window *window, const struct tensor_desc *x, int oc,
                           int group);

#endif
