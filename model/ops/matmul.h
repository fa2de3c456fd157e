/* The shapes of products of stacks of matrices, as numpy's matmul has them. */
#ifndef CONVOY_MODEL_OPS_MATMUL_H
#define CONVOY_MODEL_OPS_MATMUL_H

#include "model/op.h"

struct matmul_shape {
    int64_t m, n, k; /* [m][k] times [k][n] */
    struct kn_shape batch;
    int64_t a_strides[KN_MAX_RANK], b_strides[KN_MAX_RANK]; /* over batch, in matrices */
    int rank; /* of the result; without m or n where the operand is a vector */
    int64_t dims[TENSOR_MAX_RANK + 2];
};

/* Of inputs a and b of the node. -EBADMSG when they do not fit, -ENOTSUP for empty or too large
 * ones. */
int matmul_shape(const struct op_call *call, size_t a, size_t b, struct matmul_shape *ret);

/* Where the i-th product of the batch begins in an operand with these strides. */
int64_t matmul_offset(const struct kn_shape *batch, const int64_t *strides, size_t i);

#endif
