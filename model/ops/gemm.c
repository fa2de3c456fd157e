/* Gemm (7, 9, 11, 13) and MatMul (1, 9, 13). */
#include "model/ops/matmul.h"

#include "model/ops/kinds.h"

#include <errno.h>
#include <string.h>

/* kn_gemm for each matrix of a batch. Gemm has one. */
struct gemm_plan {
    struct kn_gemm gemm;
    int c_rows, c_columns; /* of input 2 as it is: each 1 or all; 0: no input 2 */
    struct kn_shape batch; /* of MatMul */
    int64_t a_strides[KN_MAX_RANK], b_strides[KN_MAX_RANK]; /* between matrices, in elements */
};

static int check_size(const struct op_call *call, int64_t m, int64_t n, int64_t k) {
    if (m > OP_DIM_MAX || n > OP_DIM_MAX || k > OP_DIM_MAX)
        return op_fail(call, -ENOTSUP, "matrices are too large");
    if (m < 1 || n < 1 || k < 1)
        return op_fail(call, -ENOTSUP, "empty matrices are not supported");
    return 0;
}

static int check_types(const struct op_call *call) {
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_type(call, 1, OP_FLOAT);
    if (rc == 0 && op_in(call, 2))
        rc = op_type(call, 2, OP_FLOAT);
    return rc;
}

static int gemm_bias(const struct op_call *call, struct gemm_plan *plan) {
    const struct tensor_desc *c = op_in(call, 2);
    if (!c)
        return 0;
    int64_t rows = c->rank == 2 ? c->dims[0] : 1;
    int64_t columns = c->rank > 0 ? c->dims[c->rank - 1] : 1;
    if (c->rank > 2 || (rows != 1 && rows != plan->gemm.m) ||
        (columns != 1 && columns != plan->gemm.n))
        return op_fail(call, -EBADMSG, "input 2 cannot be broadcast to [%d,%d]", plan->gemm.m,
                       plan->gemm.n);
    plan->c_rows = (int)rows;
    plan->c_columns = (int)columns;
    plan->gemm.c_stride_n = columns == 1 ? 0 : 1;
    plan->gemm.c_stride_m = rows == 1 ? 0 : (int)columns;
    return 0;
}

static int gemm_plan(struct op_call *call, void *ret) {
    struct gemm_plan *plan = ret;
    int rc = check_types(call);
    if (rc == 0)
        rc = op_rank(call, 0, 2, 2);
    if (rc == 0)
        rc = op_rank(call, 1, 2, 2);
    if (rc < 0)
        return rc;
    const struct tensor_desc *a = op_in(call, 0), *b = op_in(call, 1);
    bool ta = node_int(call->node, "transA", 0) != 0, tb = node_int(call->node, "transB", 0) != 0;
    int64_t m = a->dims[ta], k = a->dims[!ta], n = b->dims[!tb];
    if (b->dims[tb] != k)
        return op_fail(call, -EBADMSG, "a matrix with %lld columns times one with %lld rows",
                       (long long)k, (long long)b->dims[tb]);
    rc = check_size(call, m, n, k);
    if (rc < 0)
        return rc;
    plan->gemm = (struct kn_gemm){.m = (int)m,
                                  .n = (int)n,
                                  .k = (int)k,
                                  .trans_a = ta,
                                  .trans_b = tb,
                                  .alpha = node_float(call->node, "alpha", 1.0f),
                                  .beta = node_float(call->node, "beta", 1.0f)};
    rc = gemm_bias(call, plan);
    return rc < 0 ? rc : op_set(call, 0, DTYPE_FLOAT, 2, (int64_t[]){m, n});
}

/* Leading dimensions that are looped over. */
static int matmul_batch(const struct op_call *call, const struct tensor_desc *a,
                        const struct tensor_desc *b, struct matmul_shape *shape) {
    struct tensor_desc ab = {.rank = a->rank > 2 ? a->rank - 2 : 0};
    struct tensor_desc bb = {.rank = b->rank > 2 ? b->rank - 2 : 0};
    memcpy(ab.dims, a->dims, sizeof(ab.dims[0]) * (size_t)ab.rank);
    memcpy(bb.dims, b->dims, sizeof(bb.dims[0]) * (size_t)bb.rank);
    if (op_broadcast(ab.dims, ab.rank, bb.dims, bb.rank, shape->batch.dims, &shape->batch.rank) < 0)
        return op_fail(call, -EBADMSG, "leading dimensions do not fit");
    op_strides(&ab, &shape->batch, shape->a_strides);
    op_strides(&bb, &shape->batch, shape->b_strides);
    return 0;
}

int matmul_shape(const struct op_call *call, size_t a_at, size_t b_at, struct matmul_shape *ret) {
    int rc = op_rank(call, a_at, 1, TENSOR_MAX_RANK);
    if (rc == 0)
        rc = op_rank(call, b_at, 1, TENSOR_MAX_RANK);
    if (rc < 0)
        return rc;
    const struct tensor_desc *a = op_in(call, a_at), *b = op_in(call, b_at);
    if (op_count(a) == 0 || op_count(b) == 0)
        return op_fail(call, -ENOTSUP, "empty matrices are not supported");
    ret->m = a->rank > 1 ? a->dims[a->rank - 2] : 1;
    ret->k = a->dims[a->rank - 1];
    ret->n = b->rank > 1 ? b->dims[b->rank - 1] : 1;
    int64_t kb = b->rank > 1 ? b->dims[b->rank - 2] : b->dims[0];
    if (ret->k != kb)
        return op_fail(call, -EBADMSG, "a matrix with %lld columns times one with %lld rows",
                       (long long)ret->k, (long long)kb);
    rc = matmul_batch(call, a, b, ret);
    if (rc == 0)
        rc = check_size(call, ret->m, ret->n, ret->k);
    if (rc < 0)
        return rc;
    ret->rank = ret->batch.rank;
    memcpy(ret->dims, ret->batch.dims, sizeof(ret->dims[0]) * (size_t)ret->rank);
    if (a->rank > 1)
        ret->dims[ret->rank++] = ret->m;
    if (b->rank > 1)
        ret->dims[ret->rank++] = ret->n;
    return 0;
}

int64_t matmul_offset(const struct kn_shape *batch, const int64_t *strides, size_t i) {
    int64_t offset = 0;
    for (int d = batch->rank; d-- > 0; i /= (size_t)batch->dims[d])
        offset += (int64_t)(i % (size_t)batch->dims[d]) * strides[d];
    return offset;
}

static int matmul_plan(struct op_call *call, void *ret) {
    struct gemm_plan *plan = ret;
    struct matmul_shape shape;
    int rc = check_types(call);
    if (rc == 0)
        rc = matmul_shape(call, 0, 1, &shape);
    if (rc < 0)
        return rc;
    const struct tensor_desc *a = op_in(call, 0);
    if (op_in(call, 1)->rank <= 2) { /* one tall matrix */
        shape.m = a->rank > 1 ? (int64_t)op_product(a, 0, a->rank - 1) : 1;
        shape.batch.rank = 0;
        rc = check_size(call, shape.m, shape.n, shape.k);
    }
    if (rc < 0)
        return rc;
    plan->gemm = (struct kn_gemm){
        .m = (int)shape.m, .n = (int)shape.n, .k = (int)shape.k, .alpha = 1.0f, .beta = 1.0f};
    plan->batch = shape.batch;
    for (int i = 0; i < shape.batch.rank; i++) {
        plan->a_strides[i] = shape.a_strides[i] * shape.m * shape.k;
        plan->b_strides[i] = shape.b_strides[i] * shape.k * shape.n;
    }
    return op_set(call, 0, DTYPE_FLOAT, shape.rank, shape.dims);
}

static size_t batch_count(const struct gemm_plan *plan) {
    size_t count = 1;
    for (int i = 0; i < plan->batch.rank; i++)
        count *= (size_t)plan->batch.dims[i];
    return count;
}

static uint64_t gemm_macs(const struct node *node, const void *data) {
    const struct gemm_plan *plan = data;
    (void)node;
    return (uint64_t)batch_count(plan) * (uint64_t)plan->gemm.m * (uint64_t)plan->gemm.n *
           (uint64_t)plan->gemm.k;
}

/* With scale and shift folded in, pack() writes b, then c with all columns and c_rows rows. */
static int gemm_size(struct op_prep *prep) {
    const struct gemm_plan *plan = prep->plan;
    if (!prep->affine)
        return 0;
    size_t n = (size_t)plan->gemm.n, rows = plan->c_rows > 0 ? (size_t)plan->c_rows : 1;
    prep->bytes = (n * (size_t)plan->gemm.k + n * rows) * sizeof(float);
    prep->absorbed = 1U << 1 | 1U << 2;
    return 0;
}

static float float_at(const void *data, size_t i) {
    float f;
    memcpy(&f, (const char *)data + i * sizeof(f), sizeof(f));
    return f;
}

static int gemm_pack(struct op_prep *prep) {
    const struct gemm_plan *plan = prep->plan;
    size_t n = (size_t)plan->gemm.n, k = (size_t)plan->gemm.k;
    size_t rows = plan->c_rows > 0 ? (size_t)plan->c_rows : 1;
    float *b = prep->data, *c = b + n * k;
    const void *old_b = prep->numbers[1]->data;
    const void *old_c = plan->c_rows > 0 ? prep->numbers[2]->data : NULL;
    for (size_t i = 0; i < n * k; i++) {
        size_t column = plan->gemm.trans_b ? i / k : i % n;
        b[i] = (float)((double)float_at(old_b, i) * prep->scale[column]);
    }
    for (size_t i = 0; i < rows * n; i++) {
        size_t column = i % n, old = plan->c_columns > 1 ? i : i / n;
        double before = old_c ? (double)plan->gemm.beta * (double)float_at(old_c, old) : 0.0;
        c[i] = (float)(before * prep->scale[column] + prep->shift[column]);
    }
    return 0;
}

static int gemm_run(const struct op_args *args) {
    const struct gemm_plan *plan = args->plan;
    struct kn_gemm gemm = plan->gemm;
    const float *a = args->in[0]->data, *b = args->in[1]->data, *c = NULL;
    float *y = args->out[0]->data;
    gemm.act = args->act;
    if (args->packed) {
        b = args->packed;
        c = b + (size_t)gemm.n * (size_t)gemm.k;
        gemm.beta = 1.0f;
        gemm.c_stride_n = 1;
        gemm.c_stride_m = plan->c_rows > 1 ? gemm.n : 0;
    } else if (plan->c_rows > 0) {
        c = args->in[2]->data;
    }
    for (size_t i = 0, count = batch_count(plan); i < count; i++)
        kn_gemm(&gemm, a + matmul_offset(&plan->batch, plan->a_strides, i),
                b + matmul_offset(&plan->batch, plan->b_strides, i), c,
                y + i * (size_t)gemm.m * (size_t)gemm.n, args->threads);
    return 0;
}

const struct op_kind kind_gemm = {
    .plan_size = sizeof(struct gemm_plan),
    .plan = gemm_plan,
    .macs = gemm_macs,
    .size = gemm_size,
    .pack = gemm_pack,
    .run = gemm_run,
    .flags = OP_ACT | OP_AFFINE | OP_ROWS,
};

const struct op_kind kind_matmul = {
    .plan_size = sizeof(struct gemm_plan),
    .plan = matmul_plan,
    .macs = gemm_macs,
    .size = gemm_size,
    .pack = gemm_pack,
    .run = gemm_run,
    .flags = OP_ACT | OP_AFFINE | OP_ROWS,
};
