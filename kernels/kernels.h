/* Pure compute on arrays. This header is the contract; ref/ is its plain C definition, the other
 * files are faster.
 *
 * Layout: dense, row-major, NCHW. Element types are numbered as ONNX's TensorProto.DataType.
 * Buffers: aligned to their element; inputs may be read up to KN_TAIL bytes past their end (what is
 * there does not matter); outputs are never written past their end, and every element of an output
 * is written, whatever it held. Aliasing: an output may not overlap an input, unless a prototype
 * says otherwise. Sizes: int for a dimension, size_t for a product; the caller has checked that
 * products do not overflow. Errors: none at run time. What can be refused is refused by the
 * functions that return int. Threads: every function may be called from any thread; `threads`
 * (NULL: the calling thread alone) spreads one call over several cores. Results do not depend on
 * the number of threads, bit for bit.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KN_ALIGN    64
#define KN_TAIL     64
#define KN_MAX_RANK 8

enum kn_type {
    KN_FLOAT = 1,
    KN_UINT8 = 2,
    KN_INT8 = 3,
    KN_UINT16 = 4,
    KN_INT16 = 5,
    KN_INT32 = 6,
    KN_INT64 = 7,
    KN_BOOL = 9,
    KN_FLOAT16 = 10, /* stored only: kn_cast() and what moves data know it */
    KN_DOUBLE = 11,
    KN_UINT32 = 12,
    KN_UINT64 = 13,
};

/* ---- threads
 * --------------------------------------------------------------------------------------------------
 */

struct kn_threads; /* a fork-join pool: the caller and count - 1 helpers */

/* A pool of count >= 1 threads. NULL when there is no memory or no thread. One caller at a time may
 * use it. */
struct kn_threads *kn_threads_new(int count);
void kn_threads_free(struct kn_threads *threads);
int kn_threads_count(const struct kn_threads *threads); /* 1 for NULL */

typedef void (*kn_task)(void *arg, int task, int thread); /* thread is in [0, kn_threads_count()) */

/* Calls fn(arg, i, t) for i in [0, tasks), in any order, on any of the threads; returns when all
 * are done. */
void kn_parallel(struct kn_threads *threads, int tasks, kn_task fn, void *arg);

/* ---- activations
 * ---------------------------------------------------------------------------------------------- */

/* Applied while a result is still in cache, or by kn_activate(). a and b are the ONNX attributes in
 * their order. */
enum kn_act {
    KN_ACT_NONE,
    KN_ACT_RELU,
    KN_ACT_CLIP,       /* min(max(x, a), b) */
    KN_ACT_LEAKY_RELU, /* x < 0 ? a * x : x */
    KN_ACT_SIGMOID,
    KN_ACT_TANH,
    KN_ACT_HARD_SIGMOID, /* max(0, min(1, a * x + b)) */
    KN_ACT_HARD_SWISH,   /* x * max(0, min(1, x / 6 + 0.5)) */
    KN_ACT_SILU,         /* x * sigmoid(x) */
    KN_ACT_ELU,          /* x < 0 ? a * (exp(x) - 1) : x */
    KN_ACT_SELU,         /* b * (x < 0 ? a * (exp(x) - 1) : x): a alpha, b gamma */
    KN_ACT_CELU,         /* max(0, x) + min(0, a * (exp(x / a) - 1)) */
    KN_ACT_SOFTPLUS,
    KN_ACT_SOFTSIGN,
    KN_ACT_THRESHOLDED_RELU, /* x > a ? x : 0 */
    KN_ACT_ERF,
    KN_ACT_MISH,
    KN_ACT_GELU,      /* 0.5 * x * (1 + erf(x / sqrt(2))) */
    KN_ACT_GELU_TANH, /* 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) */
    KN_ACT_COUNT,
};

struct kn_activation {
    enum kn_act kind;
    float a, b;
};

/* y[i] = act(x[i]), count elements; y may be x. NaN stays NaN (but for thresholded ReLU, which has
 * it 0); at the infinities the results are the limits. */
void kn_activate(const struct kn_activation *act, const float *x, float *y, size_t count,
                 struct kn_threads *threads);

/* ---- convolution
 * ---------------------------------------------------------------------------------------------- */

/* Two-dimensional convolution, ONNX Conv (opsets 1, 11). A one-dimensional one has ih = kh = 1.
 * x [n][ic][ih][iw], w [oc][ic/group][kh][kw], bias [oc] or NULL, y and residual [n][oc][oh][ow].
 * y = act(conv(x, w) + bias + residual). Padding below and to the right follows from oh and ow, and
 * may be negative. */
struct kn_conv {
    int n, ic, ih, iw;
    int oc, oh, ow;
    int kh, kw;
    int stride_h, stride_w;
    int dil_h, dil_w;
    int pad_top, pad_left;
    int group;
    struct kn_activation act;
    bool residual; /* an [n][oc][oh][ow] tensor is added before the activation */
};

/* How a convolution will be computed: fixed at load by shape and CPU alone, never by a race. */
struct kn_conv_plan {
    struct kn_conv conv;
    const struct kn_conv_algo *algo; /* internal; kn_conv_algo_name() tells */
    const struct kn_simd *simd;      /* internal: the instruction set that it is planned for */
    size_t packed_bytes;    /* weights and bias as the algorithm wants them, KN_ALIGN aligned */
    size_t workspace_bytes; /* scratch of one call, for `threads` threads, KN_ALIGN aligned */
    int panel;              /* internal: columns, or strips of columns, that are done at once */
};

/* Chooses. threads: the most that will ever run it; no part of the choice but workspace_bytes
 * depends on it. -EINVAL when the shapes contradict each other, -EOVERFLOW when a size does not
 * fit. */
int kn_conv_plan(const struct kn_conv *conv, int threads, struct kn_conv_plan *ret_plan);
const char *
kn_conv_algo_name(const struct kn_conv_plan *plan); /* "1x1", "window", "depthwise", ... */

/* Weights of the output channels [first, first + rows), as a model has them. */
struct kn_conv_weights {
    const float *w;      /* [rows][ic/group][kh][kw]; may be unaligned, as in a mapped file */
    const float *bias;   /* [rows], may be unaligned; NULL: zeros */
    const double *scale; /* [rows]: what w is multiplied with, rounded to float; NULL: nothing */
    int first, rows;
};
/* Channels of a piece, where not all are packed at once. */
#define KN_CONV_PIECE 64

/* Writes the channels' part of packed_bytes of weights: all of them, or, where group is 1, pieces
 * that begin at multiples of KN_CONV_PIECE and are as long, but for the last; in any order. */
void kn_conv_pack(const struct kn_conv_plan *plan, const struct kn_conv_weights *weights,
                  void *packed);

/* residual is NULL unless plan->conv.residual; y may be residual. workspace is workspace_bytes
 * long; threads has no more threads than the plan was made for. */
void kn_conv_run(const struct kn_conv_plan *plan, const void *packed, const float *x,
                 const float *residual, float *y, void *workspace, struct kn_threads *threads);
void kn_conv_ref(const struct kn_conv *conv, const float *w, const float *bias, const float *x,
                 const float *residual, float *y);

/* ConvTranspose (opsets 1, 11): w [ic][oc/group][kh][kw]; pads are those of the ONNX attribute, oh
 * and ow are given. workspace: kn_conv_transpose_workspace() bytes; where the shape is too large to
 * be computed, that is more than any machine can allocate. */
size_t kn_conv_transpose_workspace(const struct kn_conv *conv);
void kn_conv_transpose(const struct kn_conv *conv, const float *w, const float *bias,
                       const float *x, float *y, void *workspace, struct kn_threads *threads);
void kn_conv_transpose_ref(const struct kn_conv *conv, const float *w, const float *bias,
                           const float *x, float *y);

/* ---- matrix products
 * ------------------------------------------------------------------------------------------ */

/* y[m][n] = act(alpha * op(a) * op(b) + beta * c), c broadcast by its strides (0: repeated; NULL:
 * nothing added). op is the transpose when trans_* is set: then a is [k][m], b is [n][k]. Same
 * numbers for any number of threads. */
struct kn_gemm {
    int m, n, k;
    bool trans_a, trans_b;
    float alpha, beta;
    int c_stride_m, c_stride_n; /* in elements */
    struct kn_activation act;
};
void kn_gemm(const struct kn_gemm *gemm, const float *a, const float *b, const float *c, float *y,
             struct kn_threads *threads);
void kn_gemm_ref(const struct kn_gemm *gemm, const float *a, const float *b, const float *c,
                 float *y);

/* ---- pooling
 * --------------------------------------------------------------------------------------------------
 */

enum kn_pool_kind { KN_POOL_MAX, KN_POOL_AVERAGE, KN_POOL_LP /* kn_pool3() only */ };

/* MaxPool (1, 8, 10, 11, 12) and AveragePool (1, 7, 10, 11, 19). x [planes][ih][iw], y
 * [planes][oh][ow], planes = n * c. ceil_mode has already shaped oh and ow; pad_bottom and
 * pad_right matter to count_include_pad only. */
struct kn_pool {
    enum kn_pool_kind kind;
    int planes, ih, iw, oh, ow;
    int kh, kw, stride_h, stride_w, dil_h, dil_w;
    int pad_top, pad_left, pad_bottom, pad_right;
    bool count_include_pad;
};
/* ret_index: MaxPool's second output, [planes][oh][ow] of int64, flat index into the whole x; NULL
 * when not wanted. NaN wins every maximum. A window without a single cell of the picture gives
 * -infinity at index 0, or the average 0. */
void kn_pool(const struct kn_pool *pool, const float *x, float *y, int64_t *ret_index,
             struct kn_threads *threads);
void kn_pool_ref(const struct kn_pool *pool, const float *x, float *y, int64_t *ret_index);

/* ---- normalisation
 * -------------------------------------------------------------------------------------------- */

/* y = x * scale[c] + shift[c], then act (may be NULL); x [n][c][inner]; y may be x. */
void kn_scale_shift(int n, int c, size_t inner, const float *scale, const float *shift,
                    const struct kn_activation *act, const float *x, float *y,
                    struct kn_threads *threads);

/* LRN (1, 13): x [n][c][inner], window of size channels, an even one reaching one further up than
 * down. */
void kn_lrn(int n, int c, size_t inner, int size, float alpha, float beta, float bias,
            const float *x, float *y, struct kn_threads *threads);
void kn_lrn_ref(int n, int c, size_t inner, int size, float alpha, float beta, float bias,
                const float *x, float *y);

/* InstanceNormalization (6), LayerNormalization (17), GroupNormalization (18, 21): each of `rows`
 * rows of `count` elements is brought to mean 0 and variance 1, then scaled and shifted: y = (x -
 * mean) / sqrt(variance + epsilon) * scale[c] + bias[c]; y may be x. Element i of the whole x
 * belongs to channel c = i / inner % channels. bias may be NULL: 0. ret_mean and ret_inverse
 * [rows], or NULL: the mean and 1 / sqrt(variance + epsilon). count is a multiple of inner. */
struct kn_standardize {
    size_t rows, count, channels, inner;
    float epsilon;
};
void kn_standardize(const struct kn_standardize *standardize, const float *scale, const float *bias,
                    const float *x, float *y, float *ret_mean, float *ret_inverse,
                    struct kn_threads *threads);
void kn_standardize_ref(const struct kn_standardize *standardize, const float *scale,
                        const float *bias, const float *x, float *y, float *ret_mean,
                        float *ret_inverse);

/* LpNormalization (1, 22): x [outer][axis][inner] divided by the norm along the middle, p is 1 or
 * 2; 0 where the norm is 0. y may be x. */
void kn_lp_normalize(size_t outer, size_t axis, size_t inner, int p, const float *x, float *y);

enum kn_softmax_kind { KN_SOFTMAX, KN_LOG_SOFTMAX, KN_HARDMAX };

/* Along the middle of x [outer][axis][inner]; y may be x. KN_HARDMAX: 1 at the first of the
 * largest. */
void kn_softmax(enum kn_softmax_kind kind, size_t outer, size_t axis, size_t inner, const float *x,
                float *y);
void kn_softmax_ref(enum kn_softmax_kind kind, size_t outer, size_t axis, size_t inner,
                    const float *x, float *y);

/* ---- element by element
 * --------------------------------------------------------------------------------------- */

/* A shape walked with one stride per operand, in elements; 0 repeats (broadcast). rank 0 is one
 * element. */
struct kn_shape {
    int rank;
    int64_t dims[KN_MAX_RANK];
};

enum kn_binary {
    KN_ADD,
    KN_SUB,
    KN_MUL,
    KN_DIV,
    KN_POW,
    KN_MOD,
    KN_FMOD,
    KN_MIN,
    KN_MAX,
    KN_PRELU,
    KN_AND,
    KN_OR,
    KN_XOR, /* bool -> bool */
    KN_EQUAL,
    KN_GREATER,
    KN_GREATER_EQUAL,
    KN_LESS,
    KN_LESS_EQUAL, /* any type -> bool */
    KN_BINARY_COUNT,
};

/* y = a op b over shape, a and b walked by their strides, y dense; both of type. y may be a or b
 * where they are not broadcast and the result type is the same. -ENOTSUP for an op that the type
 * does not have. Integers wrap; their division by zero gives 0, and the smallest integer divided by
 * -1 gives itself: no trap. KN_MOD (integers) has the divisor's sign, KN_FMOD the dividend's.
 * Minimum and maximum of NaN and anything are NaN. */
int kn_binary(enum kn_binary op, enum kn_type type, const struct kn_shape *shape,
              const int64_t *a_strides, const int64_t *b_strides, const void *a, const void *b,
              void *y, struct kn_threads *threads);

enum kn_unary {
    KN_ABS,
    KN_NEG,
    KN_EXP,
    KN_LOG,
    KN_SQRT,
    KN_RECIPROCAL,
    KN_FLOOR,
    KN_CEIL,
    KN_ROUND /* half to even */,
    KN_SIGN,
    KN_NOT,
    KN_SIN,
    KN_COS,
    KN_TAN,
    KN_ASIN,
    KN_ACOS,
    KN_ATAN,
    KN_SINH,
    KN_COSH,
    KN_ASINH,
    KN_ACOSH,
    KN_ATANH,
    KN_IS_NAN, /* these four give bool */
    KN_IS_INF,
    KN_IS_POSITIVE_INF,
    KN_IS_NEGATIVE_INF,
    KN_UNARY_COUNT,
};
/* y[i] = op(x[i]); y may be x where the result type is the same. -ENOTSUP as above. */
int kn_unary(enum kn_unary op, enum kn_type type, const void *x, void *y, size_t count);

/* y = cond ? a : b, elements of elem_size bytes, all three walked by strides. */
void kn_where(size_t elem_size, const struct kn_shape *shape, const int64_t *c_strides,
              const int64_t *a_strides, const int64_t *b_strides, const bool *cond, const void *a,
              const void *b, void *y);

/* y[i] = (to) x[i] as ONNX Cast: towards zero to integers, non-zero to true. Where ONNX leaves it
 * open: numbers too large for an integer type saturate and NaN is 0; integers keep their low bits.
 * To float16: rounded once, half to even; what is too large is infinite, NaN stays one.
 * -ENOTSUP for an unknown type. */
int kn_cast(enum kn_type from, enum kn_type to, const void *x, void *y, size_t count);

enum kn_reduce {
    KN_REDUCE_SUM,
    KN_REDUCE_MEAN,
    KN_REDUCE_MAX,
    KN_REDUCE_MIN,
    KN_REDUCE_PROD,
    KN_REDUCE_L1,
    KN_REDUCE_L2,
    KN_REDUCE_LOG_SUM,
    KN_REDUCE_LOG_SUM_EXP,
    KN_REDUCE_SUM_SQUARE,
    KN_REDUCE_COUNT,
};
/* Reduces the axes whose reduced[] is true; y is dense over the others, in order. float and double
 * (accumulated in double), integers (wrapping in 64 bits; not LOG_SUM_EXP), bool (MAX and MIN);
 * -ENOTSUP otherwise. Over no axes at all, L1, L2, LOG_SUM and SUM_SQUARE still do their part to
 * each element. Over no elements: 0, 1 for PROD, -infinity for MAX, infinity for MIN (the type's
 * least and largest integer), -infinity for LOG_SUM and LOG_SUM_EXP, NaN for MEAN. */
int kn_reduce(enum kn_reduce op, enum kn_type type, const struct kn_shape *shape,
              const bool *reduced, const void *x, void *y);

/* ---- moving data
 * ---------------------------------------------------------------------------------------------- */

/* Copies shape elements of elem_size bytes from a strided x to a strided y (strides in elements,
 * may be negative or, for x, 0). Transpose, Slice, Expand, Concat, Split and Pad's middle are all
 * this one function. */
void kn_copy(size_t elem_size, const struct kn_shape *shape, const int64_t *x_strides,
             const void *x, const int64_t *y_strides, void *y);

/* y = x taken at indices along the middle of x [outer][axis][inner]: y [outer][count][inner].
 * Indices were checked to be in [0, axis). */
void kn_gather(size_t elem_size, size_t outer, size_t axis, size_t inner, const int64_t *indices,
               size_t count, const void *x, void *y);

enum kn_pad_mode { KN_PAD_CONSTANT, KN_PAD_REFLECT, KN_PAD_EDGE, KN_PAD_WRAP };
/* Pad (2, 11, 13): begin and end per axis, may be negative: then x is cropped first, and the mode
 * sees what is left (an axis without elements gives value). value points to one element. */
void kn_pad(size_t elem_size, enum kn_pad_mode mode, const struct kn_shape *x_shape,
            const int64_t *begin, const int64_t *end, const void *value, const void *x, void *y);

/* y[places[i]] = y[places[i]] op x[i] for count blocks of inner elements; places count in blocks
 * and were checked. What ScatterElements (inner 1) and ScatterND do to a copy of their input.
 * Blocks are taken in order: of several at one place the last one stays. -ENOTSUP for a type that
 * cannot be computed with; KN_SCATTER_NONE takes all. Integers wrap; NaN wins minimum and maximum.
 */
enum kn_scatter {
    KN_SCATTER_NONE,
    KN_SCATTER_ADD,
    KN_SCATTER_MUL,
    KN_SCATTER_MIN,
    KN_SCATTER_MAX,
    KN_SCATTER_COUNT,
};
int kn_scatter(enum kn_scatter how, enum kn_type type, size_t inner, const int64_t *places,
               size_t count, const void *x, void *y);

/* y[i] = *value, count elements. */
void kn_fill(size_t elem_size, const void *value, size_t count, void *y);

/* ---- picking by order, by value
 * -----------------------------------------------------------------------------------------------
 */

/* Of equal elements the one in front comes first. NaN counts as larger than everything; -0 is 0. */

/* TopK (1, 10, 11): the k largest (smallest) along the middle of x [outer][axis][inner], the best
 * first: y and ret_index [outer][k][inner]; k <= axis. scratch: k numbers. -ENOTSUP: type. */
struct kn_topk {
    enum kn_type type;
    size_t outer, axis, inner, k;
    bool smallest;
};
int kn_topk(const struct kn_topk *topk, const void *x, void *y, int64_t *ret_index,
            int64_t *scratch);

/* ArgMax and ArgMin (1, 11, 12, 13) along the middle of x [outer][axis][inner], axis > 0: y
 * [outer][inner]. last: of equal elements the last one instead. -ENOTSUP: type. */
struct kn_arg {
    enum kn_type type;
    size_t outer, axis, inner;
    bool smallest, last;
};
int kn_arg(const struct kn_arg *arg, const void *x, int64_t *y);

/* NonZero (9, 13): the places of the `found` elements that are not 0, y [rank][found]. */
size_t kn_count_nonzero(enum kn_type type, size_t count, const void *x);
void kn_nonzero(enum kn_type type, const struct kn_shape *shape, const void *x, size_t found,
                int64_t *y);

/* NonMaxSuppression (10, 11): boxes [batches][boxes][4], scores [batches][classes][boxes], y
 * [returned number][3]: picture, class, box; at most batches * classes * min(boxes, most). center:
 * boxes are x and y of the centre, width, height; else two corners, y before x. A box without area
 * overlaps nothing; a score that is NaN is none. scratch: kn_nms_scratch() bytes, KN_ALIGN aligned.
 */
struct kn_nms {
    int32_t batches, classes, boxes;
    int64_t most; /* of a class, >= 0 */
    bool center, has_score;
    float iou, score; /* more overlap is suppressed; a score must be larger, if has_score */
};
size_t kn_nms_scratch(const struct kn_nms *nms);
size_t kn_nms(const struct kn_nms *nms, const float *boxes, const float *scores, int64_t *y,
              void *scratch);

/* ---- making numbers
 * -----------------------------------------------------------------------------------------------
 */

/* OneHot (9, 11): y [outer][depth][inner] is values[1] at indices [outer][inner], values[0]
 * elsewhere; negative ones count from the end, others outside are nowhere. */
void kn_one_hot(size_t elem_size, size_t outer, size_t depth, size_t inner, const int64_t *indices,
                const void *values, void *y);

/* CumSum (11, 14) along the middle of x [outer][axis][inner]. exclusive: without the element
 * itself; reverse: from the end. Integers wrap. -ENOTSUP: type. */
struct kn_cumsum {
    enum kn_type type;
    size_t outer, axis, inner;
    bool exclusive, reverse;
};
int kn_cumsum(const struct kn_cumsum *cumsum, const void *x, void *y);

/* Range (11): how many numbers there are before limit (perhaps negative: none; NaN for delta 0 or a
 * type that is not float, double, int16, int32, int64), and those: start + i * delta. start, limit
 * and delta point to one element each, perhaps unaligned. */
double kn_range_count(enum kn_type type, const void *start, const void *limit, const void *delta);
void kn_range(enum kn_type type, const void *start, const void *delta, size_t count, void *y);

/* EyeLike (9): y [rows][cols] is 0, but *one where column - row == diagonal. */
void kn_eye(size_t elem_size, size_t rows, size_t cols, int64_t diagonal, const void *one, void *y);

/* ---- resizing
 * -------------------------------------------------------------------------------------------------
 */

enum kn_resize_mode { KN_RESIZE_NEAREST, KN_RESIZE_LINEAR, KN_RESIZE_CUBIC };
enum kn_resize_coord {
    KN_COORD_HALF_PIXEL,
    KN_COORD_PYTORCH_HALF_PIXEL,
    KN_COORD_ALIGN_CORNERS,
    KN_COORD_ASYMMETRIC,
    KN_COORD_HALF_PIXEL_SYMMETRIC,
    KN_COORD_HALF_PIXEL_FOR_NN, /* opset 11's tf_half_pixel_for_nn */
    KN_COORD_CROP,              /* tf_crop_and_resize */
};
enum kn_resize_round { KN_ROUND_PREFER_FLOOR, KN_ROUND_PREFER_CEIL, KN_ROUND_FLOOR, KN_ROUND_CEIL };

struct kn_resize_axis {
    int in, out; /* out is in * scale, more or less */
    double scale;
    double roi_begin, roi_end; /* KN_COORD_CROP: the part to be shown, of in - 1 */
};

/* Resize (10, 11, 13, 18, 19) and Upsample (7, 9) of a dense tensor along any of its axes. Nearest
 * copies elements of elem_size bytes; linear and cubic take floats. An axis of scale 1 that keeps
 * its size stays as it is. Coordinates are computed in double; ties of nearest are decided in
 * float, as a scale is one. KN_COORD_ALIGN_CORNERS takes in * scale for the output's length, as
 * ONNX's reference does, also where that is not whole. Cells outside the tensor repeat its border,
 * but for exclude_outside. antialias: what shrinks is smoothed by as much. outside points to the
 * element that stands where KN_COORD_CROP leaves the tensor. */
struct kn_resize {
    enum kn_resize_mode mode;
    enum kn_resize_coord coord;
    enum kn_resize_round round;
    bool exclude_outside, antialias;
    float cubic_a;
    size_t elem_size;
    const void *outside; /* NULL unless KN_COORD_CROP */
    int rank;            /* >= 1 */
    struct kn_resize_axis axes[KN_MAX_RANK];
};
/* Bytes that kn_resize() needs with so many threads, KN_ALIGN aligned. -EOVERFLOW: too many. */
int kn_resize_scratch(const struct kn_resize *resize, int threads, size_t *ret_bytes);
void kn_resize(const struct kn_resize *resize, const void *x, void *y, void *scratch,
               struct kn_threads *threads);
/* By the definition, in double; linear and cubic only. */
void kn_resize_ref(const struct kn_resize *resize, const float *x, float *y);

/* ---- reading between pixels
 * -----------------------------------------------------------------------------------------------
 */

enum kn_sample_pad { KN_SAMPLE_ZEROS, KN_SAMPLE_BORDER, KN_SAMPLE_REFLECTION };

/* GridSample (16, 20): x [batches][channels][in...] of `rank` dimensions (at most 3), read at
 * `points` points of each batch: grid [batches][points][rank], from -1 to 1, the last dimension's
 * number first; y [batches][channels][points]. Cubic with a of -0.75. A number that is NaN lies far
 * outside. */
struct kn_grid_sample {
    enum kn_resize_mode mode;
    enum kn_sample_pad pad;
    bool align_corners;
    int batches, channels, rank;
    int in[3];
    size_t points;
};
void kn_grid_sample(const struct kn_grid_sample *sample, const float *x, const float *grid,
                    float *y, struct kn_threads *threads);

/* RoiAlign (10, 16): x [n][channels][ih][iw], rois [rois][4] of x, y, x, y, times scale in pixels,
 * each of the picture batches[roi] (checked); y [rois][channels][oh][ow]. sampling: samples along
 * each side of a bin; 0: as many as it has pixels, at most 1024. maximum: of the weighted pixels,
 * as ONNX Runtime has it; else the average. */
struct kn_roi_align {
    bool half_pixel, maximum;
    int rois, channels, ih, iw, oh, ow, sampling;
    float scale;
};
void kn_roi_align(const struct kn_roi_align *align, const float *x, const float *rois,
                  const int64_t *batches, float *y, struct kn_threads *threads);

/* The smallest and the largest of count floats that are finite (min > max: there is none), and how
 * many are NaN or infinite. x is read to its end only. */
struct kn_range {
    float min, max;
    size_t odd;
};
void kn_find_range(const float *x, size_t count, struct kn_range *ret_range);
void kn_find_range_ref(const float *x, size_t count, struct kn_range *ret_range);

/* Once per process, before any other call: settles the CPU's instruction sets and keeps the GEMM
 * library to one thread of its own. Safe to call again. */
void kn_init(void);
/* What kn_init() found, for logs and reports: "x86-64 AVX2+FMA", "NEON", ... and the GEMM library's
 * core name. Static. */
const char *kn_cpu_name(void);

/* Instruction sets, "levels": those that this build has and this CPU can run, from 0 (the baseline,
 * always there) upwards. kn_init() takes the best, or the one that the environment variable
 * CONVOY_SIMD names; a name that is unknown, or beyond this CPU, is the best. */
int kn_simd_count(void);
const char *kn_simd_name(int level); /* "sse2", "avx2", "avx512", "neon", "portable"; static */
/* For tests: takes another one, the nearest there is. Results differ in the last bits between
 * levels, and what was planned or packed under one level is used under that one only. */
void kn_simd_use(int level);

#endif
