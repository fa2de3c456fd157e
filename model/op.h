/* Operators: what the table in ops.c says about each, and what its functions get.
 *
 * The way of a node: plan() checks every number the file gave for it and fills in the outputs'
 * descriptions and the operator's own plan (infer.c calls it, at load); size() and pack()
 * prepare weights where a layer runs (stage.c); run() computes (exec.c, or fold.c for constants).
 * Nothing later than plan() fails because of the file.
 *
 * Shapes that depend on data: at load, plan() sets a dimension to the most that it can be, and
 * op_set_bound() says so; memory is planned for that. run() writes what it is to the output's desc.
 * Nodes that read such a tensor, or whose sizes are computed from its shape (op_sizes()), are
 * planned for the bound at load, and again in each frame for the shapes that came (exec.c), into
 * memory of the executor. So plan() allocates nothing, reads descriptions with op_in(), numbers
 * with op_ints() and its kin, and keeps no pointer to either.
 */
#ifndef CONVOY_MODEL_OP_H
#define CONVOY_MODEL_OP_H

#include "kernels/kernels.h"
#include "model/graph.h"

/* No tensor of a model may be larger: bounds the memory that a file can ask for. */
#define OP_TENSOR_BYTES_MAX ((uint64_t)1 << 32)
#define OP_DIM_MAX          INT32_MAX

struct fold;

/* A node that is planned. */
struct op_call {
    const struct node *node;
    const struct op *op;
    const struct tensor_desc *const *in; /* as many as the node has; NULL where absent */
    struct tensor_desc *const *out;
    struct fold *fold;                 /* at load: gives the numbers of constant inputs */
    const struct tensor *const *frame; /* while a frame runs: the inputs; NULL at load */
    bool least;   /* at load, for the least that bounded dimensions can be: what of out depends? */
    bool inexact; /* set by op_sizes(): out depends on numbers that are bounds */
    bool view;    /* set by plan(): output 0 is input 0's bytes, perhaps in another shape */
    struct err *err;
};

/* A layer whose weights are being prepared. */
struct op_prep {
    const struct node *node;
    const void *plan;
    int threads;
    struct kn_activation act; /* fused behind it */
    bool residual;            /* a tensor is added before act */
    bool affine;              /* scale and shift are folded in before residual and act */

    /* size() sets these; zero before. */
    size_t bytes;           /* of what pack() writes */
    size_t workspace_bytes; /* of one run, KN_ALIGN aligned */
    uint32_t absorbed;      /* bit i: constant input i is not read by run(), pack() has taken it */

    /* For pack(). */
    void *data;                            /* bytes long, KN_ALIGN aligned */
    const struct constant *const *numbers; /* of each constant input, NULL for others */
    const struct graph *graph; /* for graph_drop_range() of what has been read; NULL: in no file */
    const double *scale, *shift; /* per output channel; NULL unless affine */
};

/* One run. in and out have as many entries as the node; data of absorbed inputs is NULL. */
struct op_args {
    const struct op *op;
    const void *plan;
    const void *packed;
    const struct tensor *const *in; /* NULL where absent */
    struct tensor *const *out;      /* NULL where absent; the first never is */
    size_t in_count, out_count;
    const struct tensor *residual; /* NULL, or added before act */
    struct kn_activation act;
    void *workspace;
    struct kn_threads *threads;
    struct err *err;
};

enum op_flags {
    OP_INPLACE = 1,  /* out[0] may be in[0] or in[1], where those have its type and shape */
    OP_ACT = 2,      /* run() applies act */
    OP_AFFINE = 4,   /* pack() folds scale and shift per channel: axis 1, or the last of a matrix */
    OP_RESIDUAL = 8, /* run() adds residual */
    OP_DROP = 16,    /* has no effect on out[0]: may be removed where nothing else is used */
    OP_SHAPE = 32,   /* needs the shape of its input only: constant as soon as that is known */
    OP_ROWS = 64,    /* what pack() writes does not depend on the first dimension of in[0] */
    OP_OUTPUTS = 128, /* run() writes all outputs, also those that have no name in the file */
};

/* The functions that several operators may share. */
struct op_kind {
    size_t plan_size;
    int (*plan)(struct op_call *call, void *plan);
    uint64_t (*macs)(const struct node *node, const void *plan); /* NULL: none worth counting */
    int (*size)(struct op_prep *prep);                           /* NULL: nothing to prepare */
    int (*pack)(struct op_prep *prep);
    int (*run)(const struct op_args *args);       /* NULL: always a view */
    const char *(*algorithm)(const void *packed); /* of what pack() wrote; NULL: there is one way */
    unsigned flags;
};

/* A line of the table. */
struct op {
    const char *name;
    int since, until;   /* opsets of ONNX's own domain, inclusive, in which this line holds */
    int in_min, in_max; /* OP_ANY: as many as there are */
    int out_max;
    int arg;           /* which one of its kind; the kind's own enum */
    const char *attrs; /* "axis:i perm:I": i int, f float, s string, t tensor; capitals: lists */
    const struct op_kind *kind;
};
#define OP_ANY 1000000

/* The line for a node, or -ENOTSUP with a sentence that says what of it is supported; also checks
 * the node's attributes and the number of its inputs and outputs. */
int op_find(const struct node *node, const struct op **ret_op, struct err *err);

/* The table, in its order. */
const struct op *op_table(size_t *ret_count);

/* ---- for plan() */

/* Sets "node 'x' (Conv, opset 13): ..." and returns code. */
int op_fail(const struct op_call *call, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The description of an input or output, NULL where absent. */
const struct tensor_desc *op_in(const struct op_call *call, size_t i);
struct tensor_desc *op_out(const struct op_call *call, size_t i);

/* Sets type and shape of an output, when it is wanted. -EBADMSG for impossible dimensions,
 * -ENOTSUP for a tensor over OP_TENSOR_BYTES_MAX. */
int op_set(const struct op_call *call, size_t i, enum dtype dtype, int rank, const int64_t *dims);

/* Dimension d of output i, as op_set() was told it, is the most it can be: run() writes what it is
 * to args->out[i]->desc.dims. */
void op_set_bound(const struct op_call *call, size_t i, int d);

#define OP_TYPE(dtype) (1U << (dtype))
#define OP_FLOAT       OP_TYPE(DTYPE_FLOAT)
#define OP_NUMBERS                                                                                 \
    (OP_TYPE(DTYPE_FLOAT) | OP_TYPE(DTYPE_INT32) | OP_TYPE(DTYPE_INT64) | OP_TYPE(DTYPE_DOUBLE) |  \
     OP_TYPE(DTYPE_INT8) | OP_TYPE(DTYPE_UINT8) | OP_TYPE(DTYPE_INT16) | OP_TYPE(DTYPE_UINT16) |   \
     OP_TYPE(DTYPE_UINT32) | OP_TYPE(DTYPE_UINT64))
#define OP_TYPES (OP_NUMBERS | OP_TYPE(DTYPE_BOOL) | OP_TYPE(DTYPE_FLOAT16))

/* Input i exists and its type is one of the mask's. */
int op_type(const struct op_call *call, size_t i, unsigned mask);

/* Input i exists and its rank is within [min, max]. */
int op_rank(const struct op_call *call, size_t i, int min, int max);

/* axis counted from the end when negative, within [0, rank). */
int op_axis(const struct op_call *call, int64_t axis, int rank, int *ret_axis);

/* Whether input i is there and its numbers are known at load. */
bool op_constant(const struct op_call *call, size_t i);

/* Whether op_ints() and op_floats() can say what input i is: it is constant, or a frame is running.
 */
bool op_known(const struct op_call *call, size_t i);

/* The numbers of input i, at most max. -ENOTSUP at load when they are not known then. Absent:
 * *ret_count is 0. */
int op_numbers(const struct op_call *call, size_t i, size_t max,
               const void **ret); /* as they lie, perhaps unaligned; absent: *ret is NULL */
int op_ints(const struct op_call *call, size_t i, int64_t *ret, size_t max, size_t *ret_count);
int op_floats(const struct op_call *call, size_t i, float *ret, size_t max, size_t *ret_count);

/* As op_ints(), of numbers that output dimensions are made of and grow with. Where they are
 * computed from shapes that depend on data, they are at load the most that they can be (or the
 * least; then infer.c marks the outputs' dimensions that differ). -ENOTSUP where no bound is known
 * either. */
int op_sizes(struct op_call *call, size_t i, int64_t *ret, size_t max, size_t *ret_count);

/* Whether op_sizes() can say something of input i. */
bool op_bounded(const struct op_call *call, size_t i);

/* Which of names[0..count) the string attribute attr is; fallback where it is absent. -EBADMSG when
 * it is none of them. */
int op_choice(const struct op_call *call, const char *attr, const char *fallback,
              const char *const *names, size_t count, int *ret);

/* A list given as attribute name (opset < since) or as input i: axes and the like. ret_given is
 * false when neither is there. */
int op_list(const struct op_call *call, const char *name, size_t i, int64_t *ret, size_t max,
            size_t *ret_count, bool *ret_given);

/* ---- shapes */

/* Elements; the description was checked. */
size_t op_count(const struct tensor_desc *desc);
/* Product of dims [from, to). */
size_t op_product(const struct tensor_desc *desc, int from, int to);

/* numpy's broadcast of two shapes. -EINVAL when they do not fit. */
int op_broadcast(const int64_t *a, int a_rank, const int64_t *b, int b_rank, int64_t *ret_dims,
                 int *ret_rank);
/* Strides, in elements, to walk desc as if it had shape's dims: 0 where it is repeated. */
void op_strides(const struct tensor_desc *desc, const struct kn_shape *shape, int64_t *ret);
void op_shape(const struct tensor_desc *desc, struct kn_shape *ret_shape);

/* ---- for run() */

/* act over what run() has written to out[0], when there is any. */
void op_activate(const struct op_args *args);

/* Runs a node by itself: constants, tests. in, out: as op_args. -ENOMEM, or what run() says. */
int op_eval(const struct op *op, const struct node *node, const void *plan,
            const struct tensor *const *in, struct tensor *const *out, struct err *err);

#endif
