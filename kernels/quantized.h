/* Arithmetic on quantised numbers: part of the contract of kernels.h, with the same rules.
 *
 * A number q stands for (q - zero) * scale. Integers are multiplied and added exactly, modulo 2^32:
 * these functions give the same bits on every CPU and every instruction set.
 */
#ifndef KERNELS_QUANTIZED_H
#define KERNELS_QUANTIZED_H

#include "kernels.h"

/* How scales lie over x [outer][axis][inner]: element (o, a, i) has number
 * o * outer_step + a / block * axis_step + i * inner_step. One scale for all: outer = axis = 1, all
 * steps 0; one per channel: block and axis_step 1, the others 0. */
struct kn_scaling {
    size_t outer, axis, inner;
    size_t block;
    size_t outer_step, axis_step, inner_step;
};

/* QuantizeLinear (10, 13, 19, 21): y = saturate(round(x / scale) + zero), halves to even. zero is
 * of y's type, or NULL: 0. NaN gives the type's least number. y_type: 8 or 16 bits, signed or not;
 * -ENOTSUP for others. */
int kn_quantize(const struct kn_scaling *scaling, enum kn_type y_type, const float *x,
                const float *scale, const void *zero, void *y, struct kn_threads *threads);
void kn_quantize_ref(const struct kn_scaling *scaling, enum kn_type y_type, const float *x,
                     const float *scale, const void *zero, void *y);

/* DequantizeLinear (10, 13, 19, 21): y = (x - zero) * scale, rounded once more where x - zero needs
 * more than 24 bits. x_type: 8 or 16 bits, or KN_INT32; -ENOTSUP for others. */
int kn_dequantize(const struct kn_scaling *scaling, enum kn_type x_type, const void *x,
                  const float *scale, const void *zero, float *y, struct kn_threads *threads);
void kn_dequantize_ref(const struct kn_scaling *scaling, enum kn_type x_type, const void *x,
                       const float *scale, const void *zero, float *y);

/* The scale and zero point of DynamicQuantizeLinear (11), for uint8: the range of x, widened to
 * reach 0, in 255 steps. All zeros: scale 1 (ONNX leaves that open). NaN is not looked at. */
void kn_quantize_range(const float *x, size_t count, float *ret_scale, uint8_t *ret_zero);

/* ---- products */

#define KN_DOT_DEPTH 32 /* widened rows are padded with zeros to a multiple of this */

/* k rounded up to KN_DOT_DEPTH. */
size_t kn_qdepth(size_t k);

/* y[r][i] = x[r * row_step + i * step] - zero, widened to int16; rows of kn_qdepth(k) elements,
 * KN_ALIGN aligned. type is KN_UINT8 or KN_INT8; zero is of that type: NULL is 0, zero_step is 0
 * for one of all rows. x may be unaligned. */
struct kn_widen {
    enum kn_type type;
    const void *x;
    const void *zero;
    size_t zero_step;
    size_t rows, k, row_step, step;
};
void kn_qwiden(const struct kn_widen *widen, int16_t *y);

/* MatMulInteger (10) and QLinearMatMul (10, 21) of matrices that kn_qwiden() has made: a
 * [m][qdepth], b [n][qdepth] (the columns of ONNX's B). y_type KN_INT32: y [m][n] is the sums.
 * KN_UINT8 or KN_INT8: saturate(round(sum * (a_scale * b_scale / y_scale)) + y_zero), where
 * a_scale has one element per row (a_step 1) or one (0), b_scale per column. */
struct kn_qmatmul {
    int m, n, k;
    enum kn_type y_type;
    const float *a_scale, *b_scale;
    size_t a_step, b_step;
    float y_scale;
    int32_t y_zero;
};
void kn_qmatmul(const struct kn_qmatmul *matmul, const int16_t *a, const int16_t *b, void *y,
                struct kn_threads *threads);

/* ConvInteger (10) and QLinearConv (10) of two dimensions. conv's act and residual are not used. */
struct kn_qconv {
    struct kn_conv conv;
    enum kn_type x_type, w_type; /* KN_UINT8 or KN_INT8 */
    enum kn_type y_type;         /* the same, or KN_INT32: the sums as they are */
};

/* Fixed by the shape alone. */
struct kn_qconv_plan {
    struct kn_qconv q;
    bool depthwise; /* one input and one output channel per group */
    bool direct;    /* 1x1, stride 1, no padding: a pixel's channels are a column already */
    size_t pitch;   /* elements of one pixel of the widened picture */
    size_t depth;   /* elements of one row of packed weights */
    int strip;      /* output pixels at a time */
    size_t packed_bytes, workspace_bytes; /* KN_ALIGN aligned both */
    size_t picture_bytes, panel_bytes;    /* parts of workspace */
};

/* As kn_conv_plan(). */
int kn_qconv_plan(const struct kn_qconv *q, int threads, struct kn_qconv_plan *ret_plan);

/* What a quantised convolution needs beside its input; all may be unaligned, zeros are of the type
 * that they belong to and 0 where NULL. */
struct kn_qconv_numbers {
    const void *w; /* [oc][ic/group][kh][kw] */
    const void *x_zero, *w_zero, *y_zero;
    size_t w_zero_step;                       /* 1: one per output channel */
    const float *x_scale, *w_scale, *y_scale; /* not for KN_INT32 */
    size_t w_scale_step;
    const int32_t *bias; /* [oc] or NULL */
};

/* Writes packed_bytes. */
void kn_qconv_pack(const struct kn_qconv_plan *plan, const struct kn_qconv_numbers *numbers,
                   void *packed);

/* y [n][oc][oh][ow] of y_type. threads has no more threads than the plan was made for. */
void kn_qconv_run(const struct kn_qconv_plan *plan, const void *packed, const void *x, void *y,
                  void *workspace, struct kn_threads *threads);
void kn_qconv_ref(const struct kn_qconv *q, const struct kn_qconv_numbers *numbers, const void *x,
                  void *y);

#endif
