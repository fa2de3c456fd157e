/* The table of operators: what is not listed here is refused at load. One line holds from opset
 * `since` to `until`; an operator whose meaning has changed has several. Adding an operator: a
 * kind in one of the files of this folder, declared in kinds.h, and a line here. */
#include "model/ops/kinds.h"

#define LAST 22 /* the newest opset that was looked at */

#define WINDOW "auto_pad:s dilations:I kernel_shape:I pads:I strides:I"
#define POOL   "auto_pad:s kernel_shape:I pads:I strides:I"
#define RESIZE                                                                                     \
    "coordinate_transformation_mode:s cubic_coeff_a:f exclude_outside:i mode:s "                   \
    "nearest_mode:s extrapolation_value:f"
#define ROI_ALIGN "mode:s output_height:i output_width:i sampling_ratio:i spatial_scale:f"
#define ACTIVATION(name, since, until, attrs, act)                                                 \
    { name, since, until, 1, 1, 1, act, attrs, &kind_activation }
#define BINARY(name, since, attrs, op)                                                             \
    { name, since, LAST, 2, 2, 1, op, attrs, &kind_binary }
#define BINARY_OLD(name, since, op)                                                                \
    {name, since, 6, 2, 2, 1, op, "axis:i broadcast:i", &kind_binary}, BINARY(name, 7, "", op)
#define UNARY(name, since, op)                                                                     \
    { name, since, LAST, 1, 1, 1, op, "", &kind_unary }
#define REDUCE(name, moved, op)                                                                    \
    {name, 1, moved - 1, 1, 1, 1, op, "axes:I keepdims:i", &kind_reduce}, {                        \
        name, moved, LAST, 1, 2, 1, op, "keepdims:i noop_with_empty_axes:i", &kind_reduce          \
    }
#define SOFTMAX(name, which)                                                                       \
    {name, 1, 12, 1, 1, 1, which, "axis:i", &kind_softmax_flat}, {                                 \
        name, 13, LAST, 1, 1, 1, which, "axis:i", &kind_softmax                                    \
    }

static const struct op table[] = {
    /* name, since, until, inputs from, to, outputs, which of its kind, attributes, kind */
    {"Conv", 1, LAST, 2, 3, 1, 0, WINDOW " group:i", &kind_conv},
    {"ConvTranspose", 1, LAST, 2, 3, 1, 0, WINDOW " group:i output_padding:I output_shape:I",
     &kind_conv_transpose},
    {"Gemm", 6, 6, 3, 3, 1, 0, "alpha:f beta:f broadcast:i transA:i transB:i", &kind_gemm},
    {"Gemm", 7, 10, 3, 3, 1, 0, "alpha:f beta:f transA:i transB:i", &kind_gemm},
    {"Gemm", 11, LAST, 2, 3, 1, 0, "alpha:f beta:f transA:i transB:i", &kind_gemm},
    {"MatMul", 1, LAST, 2, 2, 1, 0, "", &kind_matmul},

    {"QuantizeLinear", 10, 12, 2, 3, 1, 0, "", &kind_quantize},
    {"QuantizeLinear", 13, 18, 2, 3, 1, 0, "axis:i", &kind_quantize},
    {"QuantizeLinear", 19, 20, 2, 3, 1, 0, "axis:i saturate:i", &kind_quantize},
    {"QuantizeLinear", 21, LAST, 2, 3, 1, 0, "axis:i block_size:i output_dtype:i saturate:i",
     &kind_quantize},
    {"DequantizeLinear", 10, 12, 2, 3, 1, 0, "", &kind_dequantize},
    {"DequantizeLinear", 13, 20, 2, 3, 1, 0, "axis:i", &kind_dequantize},
    {"DequantizeLinear", 21, LAST, 2, 3, 1, 0, "axis:i block_size:i", &kind_dequantize},
    {"DynamicQuantizeLinear", 11, LAST, 1, 1, 3, 0, "", &kind_dynamic_quantize},
    {"ConvInteger", 10, LAST, 2, 4, 1, QUANT_INTEGER, WINDOW " group:i", &kind_qconv},
    {"QLinearConv", 10, LAST, 8, 9, 1, QUANT_LINEAR, WINDOW " group:i", &kind_qconv},
    {"MatMulInteger", 10, LAST, 2, 4, 1, QUANT_INTEGER, "", &kind_qmatmul},
    {"QLinearMatMul", 10, LAST, 8, 8, 1, QUANT_LINEAR, "", &kind_qmatmul},

    {"MaxPool", 1, 7, 1, 1, 1, KN_POOL_MAX, POOL, &kind_pool},
    {"MaxPool", 8, 9, 1, 1, 2, KN_POOL_MAX, POOL " storage_order:i", &kind_pool},
    {"MaxPool", 10, LAST, 1, 1, 2, KN_POOL_MAX, WINDOW " ceil_mode:i storage_order:i", &kind_pool},
    {"AveragePool", 1, 6, 1, 1, 1, KN_POOL_AVERAGE, POOL, &kind_pool},
    {"AveragePool", 7, 9, 1, 1, 1, KN_POOL_AVERAGE, POOL " count_include_pad:i", &kind_pool},
    {"AveragePool", 10, LAST, 1, 1, 1, KN_POOL_AVERAGE, WINDOW " ceil_mode:i count_include_pad:i",
     &kind_pool},
    {"LpPool", 1, 1, 1, 1, 1, KN_POOL_LP, POOL " p:f", &kind_pool},
    {"LpPool", 2, 17, 1, 1, 1, KN_POOL_LP, POOL " p:i", &kind_pool},
    {"LpPool", 18, LAST, 1, 1, 1, KN_POOL_LP, WINDOW " ceil_mode:i p:i", &kind_pool},
    {"MaxUnpool", 9, LAST, 2, 3, 1, 0, "kernel_shape:I pads:I strides:I", &kind_unpool},
    {"GlobalLpPool", 1, 1, 1, 1, 1, KN_POOL_LP, "p:f", &kind_global_pool},
    {"GlobalLpPool", 2, LAST, 1, 1, 1, KN_POOL_LP, "p:i", &kind_global_pool},
    {"GlobalMaxPool", 1, LAST, 1, 1, 1, KN_POOL_MAX, "", &kind_global_pool},
    {"GlobalAveragePool", 1, LAST, 1, 1, 1, KN_POOL_AVERAGE, "", &kind_global_pool},

    {"BatchNormalization", 6, 6, 5, 5, 5, 0, "epsilon:f is_test:i momentum:f spatial:i",
     &kind_batch_norm},
    {"BatchNormalization", 7, 8, 5, 5, 5, 0, "epsilon:f momentum:f spatial:i", &kind_batch_norm},
    {"BatchNormalization", 9, 13, 5, 5, 5, 0, "epsilon:f momentum:f", &kind_batch_norm},
    {"BatchNormalization", 14, LAST, 5, 5, 3, 0, "epsilon:f momentum:f training_mode:i",
     &kind_batch_norm},
    {"InstanceNormalization", 6, LAST, 3, 3, 1, 0, "epsilon:f", &kind_instance_norm},
    {"LayerNormalization", 17, LAST, 2, 3, 3, 0, "axis:i epsilon:f stash_type:i", &kind_layer_norm},
    {"GroupNormalization", 18, 20, 3, 3, 1, 0, "epsilon:f num_groups:i", &kind_group_norm},
    {"GroupNormalization", 21, LAST, 3, 3, 1, 0, "epsilon:f num_groups:i stash_type:i",
     &kind_group_norm},
    {"MeanVarianceNormalization", 9, LAST, 1, 1, 1, 0, "axes:I", &kind_mvn},
    {"LpNormalization", 1, LAST, 1, 1, 1, 0, "axis:i p:i", &kind_lp_norm},
    {"LRN", 1, LAST, 1, 1, 1, 0, "alpha:f beta:f bias:f size:i", &kind_lrn},
    SOFTMAX("Softmax", KN_SOFTMAX),
    SOFTMAX("LogSoftmax", KN_LOG_SOFTMAX),
    SOFTMAX("Hardmax", KN_HARDMAX),

    ACTIVATION("Relu", 6, LAST, "", KN_ACT_RELU),
    ACTIVATION("Clip", 6, 10, "min:f max:f", KN_ACT_CLIP),
    {"Clip", 11, LAST, 1, 3, 1, KN_ACT_CLIP, "", &kind_activation},
    ACTIVATION("LeakyRelu", 6, LAST, "alpha:f", KN_ACT_LEAKY_RELU),
    ACTIVATION("Sigmoid", 6, LAST, "", KN_ACT_SIGMOID),
    ACTIVATION("Tanh", 6, LAST, "", KN_ACT_TANH),
    ACTIVATION("HardSigmoid", 6, LAST, "alpha:f beta:f", KN_ACT_HARD_SIGMOID),
    ACTIVATION("HardSwish", 14, LAST, "", KN_ACT_HARD_SWISH),
    ACTIVATION("Elu", 6, LAST, "alpha:f", KN_ACT_ELU),
    ACTIVATION("Selu", 6, LAST, "alpha:f gamma:f", KN_ACT_SELU),
    ACTIVATION("Celu", 12, LAST, "alpha:f", KN_ACT_CELU),
    ACTIVATION("Softplus", 1, LAST, "", KN_ACT_SOFTPLUS),
    ACTIVATION("Softsign", 1, LAST, "", KN_ACT_SOFTSIGN),
    ACTIVATION("ThresholdedRelu", 10, LAST, "alpha:f", KN_ACT_THRESHOLDED_RELU),
    ACTIVATION("Erf", 9, LAST, "", KN_ACT_ERF),
    ACTIVATION("Mish", 18, LAST, "", KN_ACT_MISH),
    ACTIVATION("Gelu", 20, LAST, "approximate:s", KN_ACT_GELU),

    BINARY_OLD("Add", 6, KN_ADD),
    BINARY_OLD("Sub", 6, KN_SUB),
    BINARY_OLD("Mul", 6, KN_MUL),
    BINARY_OLD("Div", 6, KN_DIV),
    BINARY_OLD("Pow", 1, KN_POW),
    BINARY("Mod", 10, "fmod:i", KN_MOD),
    BINARY("PRelu", 6, "", KN_PRELU),
    BINARY_OLD("And", 1, KN_AND),
    BINARY_OLD("Or", 1, KN_OR),
    BINARY_OLD("Xor", 1, KN_XOR),
    BINARY_OLD("Equal", 1, KN_EQUAL),
    BINARY_OLD("Greater", 1, KN_GREATER),
    BINARY("GreaterOrEqual", 12, "", KN_GREATER_EQUAL),
    BINARY_OLD("Less", 1, KN_LESS),
    BINARY("LessOrEqual", 12, "", KN_LESS_EQUAL),
    {"Sum", 6, LAST, 1, OP_ANY, 1, KN_ADD, "", &kind_nary},
    {"Min", 6, LAST, 1, OP_ANY, 1, KN_MIN, "", &kind_nary},
    {"Max", 6, LAST, 1, OP_ANY, 1, KN_MAX, "", &kind_nary},
    {"Mean", 6, LAST, 1, OP_ANY, 1, KN_BINARY_COUNT, "", &kind_nary},
    {"Where", 9, LAST, 3, 3, 1, 0, "", &kind_where},
    {"Cast", 6, LAST, 1, 1, 1, 0, "to:i saturate:i", &kind_cast},
    UNARY("Abs", 6, KN_ABS),
    UNARY("Neg", 6, KN_NEG),
    UNARY("Exp", 6, KN_EXP),
    UNARY("Log", 6, KN_LOG),
    UNARY("Sqrt", 6, KN_SQRT),
    UNARY("Reciprocal", 6, KN_RECIPROCAL),
    UNARY("Floor", 6, KN_FLOOR),
    UNARY("Ceil", 6, KN_CEIL),
    UNARY("Round", 11, KN_ROUND),
    UNARY("Sign", 9, KN_SIGN),
    UNARY("Not", 1, KN_NOT),
    UNARY("Sin", 7, KN_SIN),
    UNARY("Cos", 7, KN_COS),
    UNARY("Tan", 7, KN_TAN),
    UNARY("Asin", 7, KN_ASIN),
    UNARY("Acos", 7, KN_ACOS),
    UNARY("Atan", 7, KN_ATAN),
    UNARY("Sinh", 9, KN_SINH),
    UNARY("Cosh", 9, KN_COSH),
    UNARY("Asinh", 9, KN_ASINH),
    UNARY("Acosh", 9, KN_ACOSH),
    UNARY("Atanh", 9, KN_ATANH),
    UNARY("IsNaN", 9, KN_IS_NAN),
    {"IsInf", 10, LAST, 1, 1, 1, KN_IS_INF, "detect_negative:i detect_positive:i", &kind_unary},

    REDUCE("ReduceSum", 13, KN_REDUCE_SUM),
    REDUCE("ReduceMean", 18, KN_REDUCE_MEAN),
    REDUCE("ReduceMax", 18, KN_REDUCE_MAX),
    REDUCE("ReduceMin", 18, KN_REDUCE_MIN),
    REDUCE("ReduceProd", 18, KN_REDUCE_PROD),
    REDUCE("ReduceL1", 18, KN_REDUCE_L1),
    REDUCE("ReduceL2", 18, KN_REDUCE_L2),
    REDUCE("ReduceLogSum", 18, KN_REDUCE_LOG_SUM),
    REDUCE("ReduceLogSumExp", 18, KN_REDUCE_LOG_SUM_EXP),
    REDUCE("ReduceSumSquare", 18, KN_REDUCE_SUM_SQUARE),
    {"ArgMax", 1, 11, 1, 1, 1, 0, "axis:i keepdims:i", &kind_arg},
    {"ArgMax", 12, LAST, 1, 1, 1, 0, "axis:i keepdims:i select_last_index:i", &kind_arg},
    {"ArgMin", 1, 11, 1, 1, 1, 1, "axis:i keepdims:i", &kind_arg},
    {"ArgMin", 12, LAST, 1, 1, 1, 1, "axis:i keepdims:i select_last_index:i", &kind_arg},
    {"TopK", 1, 9, 1, 1, 2, 0, "axis:i k:i", &kind_topk},
    {"TopK", 10, 10, 2, 2, 2, 0, "axis:i", &kind_topk},
    {"TopK", 11, LAST, 2, 2, 2, 0, "axis:i largest:i sorted:i", &kind_topk},
    {"NonMaxSuppression", 10, LAST, 2, 5, 1, 0, "center_point_box:i", &kind_nms},
    {"NonZero", 9, LAST, 1, 1, 1, 0, "", &kind_nonzero},
    {"OneHot", 9, LAST, 3, 3, 1, 0, "axis:i", &kind_one_hot},
    {"CumSum", 11, LAST, 2, 2, 1, 0, "exclusive:i reverse:i", &kind_cumsum},
    {"Range", 11, LAST, 3, 3, 1, 0, "", &kind_range},
    {"EyeLike", 9, LAST, 1, 1, 1, 0, "dtype:i k:i", &kind_eye},

    {"Reshape", 5, LAST, 2, 2, 1, 0, "allowzero:i", &kind_reshape},
    {"Flatten", 1, LAST, 1, 1, 1, 0, "axis:i", &kind_flatten},
    {"Squeeze", 1, 12, 1, 1, 1, 0, "axes:I", &kind_squeeze},
    {"Squeeze", 13, LAST, 1, 2, 1, 0, "", &kind_squeeze},
    {"Unsqueeze", 1, 12, 1, 1, 1, 0, "axes:I", &kind_unsqueeze},
    {"Unsqueeze", 13, LAST, 2, 2, 1, 0, "", &kind_unsqueeze},
    {"Identity", 1, LAST, 1, 1, 1, 0, "", &kind_identity},
    {"Dropout", 6, 6, 1, 1, 2, 0, "is_test:i ratio:f", &kind_identity},
    {"Dropout", 7, 11, 1, 1, 2, 0, "ratio:f", &kind_identity},
    {"Dropout", 12, LAST, 1, 3, 2, 0, "seed:i", &kind_identity},
    {"Shape", 1, 14, 1, 1, 1, 0, "", &kind_shape},
    {"Shape", 15, LAST, 1, 1, 1, 0, "start:i end:i", &kind_shape},
    {"Size", 1, LAST, 1, 1, 1, 0, "", &kind_size},
    {"Constant", 1, LAST, 0, 0, 1, 0,
     "value:t value_float:f value_floats:F value_int:i value_ints:I", &kind_constant},
    {"ConstantOfShape", 9, LAST, 1, 1, 1, 0, "value:t", &kind_constant_of_shape},

    {"Transpose", 1, LAST, 1, 1, 1, 0, "perm:I", &kind_transpose},
    {"Concat", 4, LAST, 1, OP_ANY, 1, 0, "axis:i", &kind_concat},
    {"Split", 2, 12, 1, 1, OP_ANY, 0, "axis:i split:I", &kind_split},
    {"Split", 13, 17, 1, 2, OP_ANY, 0, "axis:i", &kind_split},
    {"Split", 18, LAST, 1, 2, OP_ANY, 0, "axis:i num_outputs:i", &kind_split},
    {"Slice", 1, 9, 1, 1, 1, 0, "axes:I ends:I starts:I", &kind_slice},
    {"Slice", 10, LAST, 3, 5, 1, 0, "", &kind_slice},
    {"Pad", 2, 10, 1, 1, 1, 0, "mode:s pads:I value:f", &kind_pad},
    {"Pad", 11, 17, 2, 3, 1, 0, "mode:s", &kind_pad},
    {"Pad", 18, LAST, 2, 4, 1, 0, "mode:s", &kind_pad},
    {"Expand", 8, LAST, 2, 2, 1, 0, "", &kind_expand},
    {"Tile", 6, LAST, 2, 2, 1, 0, "", &kind_tile},
    {"Gather", 1, LAST, 2, 2, 1, 0, "axis:i", &kind_gather},
    {"GatherElements", 11, LAST, 2, 2, 1, 0, "axis:i", &kind_gather_elements},
    {"GatherND", 11, 11, 2, 2, 1, 0, "", &kind_gather_nd},
    {"GatherND", 12, LAST, 2, 2, 1, 0, "batch_dims:i", &kind_gather_nd},
    {"Scatter", 9, 10, 3, 3, 1, 0, "axis:i", &kind_scatter_elements},
    {"ScatterElements", 11, 15, 3, 3, 1, 0, "axis:i", &kind_scatter_elements},
    {"ScatterElements", 16, LAST, 3, 3, 1, 0, "axis:i reduction:s", &kind_scatter_elements},
    {"ScatterND", 11, 15, 3, 3, 1, 0, "", &kind_scatter_nd},
    {"ScatterND", 16, LAST, 3, 3, 1, 0, "reduction:s", &kind_scatter_nd},
    {"DepthToSpace", 1, 10, 1, 1, 1, 0, "blocksize:i", &kind_depth_to_space},
    {"DepthToSpace", 11, LAST, 1, 1, 1, 0, "blocksize:i mode:s", &kind_depth_to_space},
    {"SpaceToDepth", 1, LAST, 1, 1, 1, 0, "blocksize:i", &kind_space_to_depth},

    {"Resize", 10, 10, 2, 2, 1, 0, "mode:s", &kind_resize},
    {"Resize", 11, 12, 1, 4, 1, 0, RESIZE, &kind_resize},
    {"Resize", 13, 17, 1, 4, 1, 0, RESIZE, &kind_resize},
    {"Resize", 18, LAST, 1, 4, 1, 0, RESIZE " antialias:i axes:I keep_aspect_ratio_policy:s",
     &kind_resize},
    {"GridSample", 16, LAST, 2, 2, 1, 0, "align_corners:i mode:s padding_mode:s",
     &kind_grid_sample},
    {"RoiAlign", 10, 15, 3, 3, 1, 0, ROI_ALIGN, &kind_roi_align},
    {"RoiAlign", 16, LAST, 3, 3, 1, 0, ROI_ALIGN " coordinate_transformation_mode:s",
     &kind_roi_align},
    {"Upsample", 7, 8, 1, 1, 1, 0, "mode:s scales:F", &kind_upsample},
    {"Upsample", 9, 9, 2, 2, 1, 0, "mode:s", &kind_upsample},
};

const struct op *op_table(size_t *ret_count) {
    *ret_count = sizeof(table) / sizeof(table[0]);
    return table;
}
