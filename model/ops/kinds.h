/* The kinds of operators, one file a family; ops.c makes the table of them. */
#ifndef CONVOY_MODEL_OPS_KINDS_H
#define CONVOY_MODEL_OPS_KINDS_H

#include "model/op.h"

/* conv.c */
extern const struct op_kind kind_conv, kind_conv_transpose;
/* Lets the convolution of a plan read what its Pad node reads. False when its sizes do not allow
 * it. */
struct pad_plan;
bool conv_absorb_pad(void *plan, const struct pad_plan *pad);

/* pool.c; arg: enum kn_pool_kind */
extern const struct op_kind kind_pool, kind_global_pool, kind_unpool;

/* gemm.c */
extern const struct op_kind kind_gemm, kind_matmul;

/* quantize.c */
extern const struct op_kind kind_quantize, kind_dequantize, kind_dynamic_quantize;

/* qconv.c, qmatmul.c; arg: whether the result is sums, or quantised again */
enum { QUANT_INTEGER, QUANT_LINEAR };
extern const struct op_kind kind_qconv, kind_qmatmul;

/* activation.c; arg: enum kn_act */
extern const struct op_kind kind_activation;

/* What act an activation node stands for; false when its bounds are not known at load. */
bool activation_of(const struct op *op, const void *plan, struct kn_activation *ret);
/* A plan of kind_activation for act. NULL: no memory. */
void *activation_plan_new(struct graph *graph, const struct kn_activation *act);

/* elementwise.c; arg: enum kn_binary, enum kn_unary */
extern const struct op_kind kind_binary, kind_nary, kind_unary, kind_where, kind_cast;

/* normalize.c; arg of softmax: enum kn_softmax_kind */
extern const struct op_kind kind_batch_norm, kind_lrn, kind_softmax, kind_softmax_flat;

/* standardize.c */
extern const struct op_kind kind_instance_norm, kind_group_norm, kind_layer_norm, kind_mvn,
    kind_lp_norm;

/* shape.c */
extern const struct op_kind kind_reshape, kind_flatten, kind_squeeze, kind_unsqueeze, kind_identity,
    kind_shape, kind_size, kind_constant_of_shape, kind_constant;

/* move.c */
extern const struct op_kind kind_transpose, kind_concat, kind_split, kind_slice, kind_pad,
    kind_expand, kind_tile, kind_depth_to_space, kind_space_to_depth;

/* index.c */
extern const struct op_kind kind_gather, kind_gather_elements, kind_gather_nd,
    kind_scatter_elements, kind_scatter_nd;

/* How often the parts of a concatenation or split alternate in memory; 1: they follow one another.
 */
size_t joint_outer(const void *plan);

/* reduce.c; arg: enum kn_reduce */
extern const struct op_kind kind_reduce;

/* topk.c; arg of kind_arg: 0 for ArgMax, 1 for ArgMin */
extern const struct op_kind kind_topk, kind_arg;

/* nms.c */
extern const struct op_kind kind_nms, kind_nonzero;

/* generate.c */
extern const struct op_kind kind_one_hot, kind_cumsum, kind_range, kind_eye;

/* sample.c */
extern const struct op_kind kind_grid_sample, kind_roi_align;

/* resize.c */
extern const struct op_kind kind_resize, kind_upsample;

#endif
