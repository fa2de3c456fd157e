/* MatMulInteger (10) and QLinearMatMul (10, 21). */
#include "model/ops/kinds.h"
#include "model/ops/matmul.h"

#include "kernels/quantized.h"

#include <errno.h>
#include <string.h>

#define BYTES (OP_TYPE(DTYPE_UINT8) | OP_TYPE(DTYPE_INT8))

/* Where each operator has what; absent ones are beyond every node's inputs. */
#define INPUTS_MAX 8
#define ABSENT     INPUTS_MAX
struct places {
    size_t b, a_scale, a_zero, b_scale, b_zero, y_scale, y_zero;
};

static const struct places places[] = {
    [QUANT_INTEGER] = {1, ABSENT, 2, ABSENT, 3, ABSENT, ABSENT},
    [QUANT_LINEAR] = {3, 1, 2, 4, 5, 6, 7},
};

/* Numbers of one operand: one for all, one per row (of a; column of b), or that for each matrix. */
struct per_row {
    size_t step, matrix_step;
};

struct qmatmul_plan {
    const struct places *at;
    struct kn_qmatmul q; /* without scales */
    enum kn_type a_type, b_type;
    struct kn_shape batch;
    int64_t a_strides[KN_MAX_RANK], b_strides[KN_MAX_RANK]; /* in matrices */
    size_t batches, b_matrices;
    struct per_row a_scale, a_zero, b_scale, b_zero;
};

static int check_rows(const struct op_call *call, size_t i, unsigned mask, size_t rows,
                      size_t matrices, struct per_row *ret) {
    const struct tensor_desc *in = op_in(call, i);
    if (!in)
        return 0;
    int rc = op_type(call, i, mask);
    size_t count = op_count(in);
    if (rc == 0 && count != 1 && count != rows && count != rows * matrices)
        return op_fail(call, -EBADMSG, "input %zu has %zu elements instead of 1 or %zu", i, count,
                       rows);
    if (count > 1)
        *ret = (struct per_row){.step = 1, .matrix_step = count > rows ? rows : 0};
    return rc;
}

static int check_numbers(const struct op_call *call, struct qmatmul_plan *plan, size_t a_matrices) {
    const struct places *at = plan->at;
    size_t m = (size_t)plan->q.m, n = (size_t)plan->q.n;
    struct per_row one = {0};
    int rc = check_rows(call, at->a_zero, OP_TYPE((enum dtype)plan->a_type), m, a_matrices,
                        &plan->a_zero);
    if (rc == 0)
        rc = check_rows(call, at->b_zero, OP_TYPE((enum dtype)plan->b_type), n, plan->b_matrices,
                        &plan->b_zero);
    if (rc == 0)
        rc = check_rows(call, at->a_scale, OP_FLOAT, m, a_matrices, &plan->a_scale);
    if (rc == 0)
        rc = check_rows(call, at->b_scale, OP_FLOAT, n, plan->b_matrices, &plan->b_scale);
    if (rc == 0)
        rc = check_rows(call, at->y_scale, OP_FLOAT, 1, 1, &one);
    if (rc == 0)
        rc = check_rows(call, at->y_zero, BYTES, 1, 1, &one);
    return rc;
}

static int qmatmul_plan(struct op_call *call, void *ret) {
    struct qmatmul_plan *plan = ret;
    struct matmul_shape shape;
    plan->at = &places[call->op->arg];
    int rc = op_type(call, 0, BYTES);
    if (rc == 0)
        rc = op_type(call, plan->at->b, BYTES);
    if (rc == 0)
        rc = matmul_shape(call, 0, plan->at->b, &shape);
    if (rc < 0)
        return rc;
    const struct tensor_desc *a = op_in(call, 0), *b = op_in(call, plan->at->b);
    bool integer = plan->at->y_zero == ABSENT;
    enum dtype y_type = integer ? DTYPE_INT32 : op_in(call, plan->at->y_zero)->dtype;
    plan->q = (struct kn_qmatmul){
        .m = (int)shape.m, .n = (int)shape.n, .k = (int)shape.k, .y_type = (enum kn_type)y_type};
    plan->a_type = (enum kn_type)a->dtype;
    plan->b_type = (enum kn_type)b->dtype;
    plan->batch = shape.batch;
    memcpy(plan->a_strides, shape.a_strides, sizeof(plan->a_strides));
    memcpy(plan->b_strides, shape.b_strides, sizeof(plan->b_strides));
    plan->batches = 1;
    for (int d = 0; d < shape.batch.rank; d++)
        plan->batches *= (size_t)shape.batch.dims[d];
    plan->b_matrices = op_product(b, 0, b->rank > 2 ? b->rank - 2 : 0);
    rc = check_numbers(call, plan, op_product(a, 0, a->rank > 2 ? a->rank - 2 : 0));
    return rc < 0 ? rc : op_set(call, 0, y_type, shape.rank, shape.dims);
}

static uint64_t qmatmul_macs(const struct node *node, const void *data) {
    const struct qmatmul_plan *plan = data;
    (void)node;
    return (uint64_t)plan->batches * (uint64_t)plan->q.m * (uint64_t)plan->q.n *
           (uint64_t)plan->q.k;
}

static bool is_known(const struct node *node, size_t i) {
    return i >= node->inputs_count || !node->inputs[i] || node->inputs[i]->constant;
}

/* Bytes of a widened matrix. */
static size_t wide_bytes(const struct qmatmul_plan *plan, int rows) {
    return (size_t)rows * kn_qdepth((size_t)plan->q.k) * sizeof(int16_t);
}

/* pack() widens all of b's matrices, when those are known at load; else run() does it one by one,
 * behind a's in the workspace. */
static int qmatmul_size(struct op_prep *prep) {
    const struct qmatmul_plan *plan = prep->plan;
    prep->workspace_bytes = wide_bytes(plan, plan->q.m);
    if (is_known(prep->node, plan->at->b) && is_known(prep->node, plan->at->b_zero)) {
        prep->bytes = plan->b_matrices * wide_bytes(plan, plan->q.n);
        prep->absorbed = 1U << plan->at->b | 1U << plan->at->b_zero;
    } else {
        prep->workspace_bytes += wide_bytes(plan, plan->q.n);
    }
    return 0;
}

/* Matrix i of b, column by column. */
static void widen_b(const struct qmatmul_plan *plan, const void *b, const void *zero, size_t i,
                    int16_t *to) {
    size_t n = (size_t)plan->q.n, k = (size_t)plan->q.k;
    const char *zeros = zero;
    struct kn_widen widen = {.type = plan->b_type,
                             .x = (const char *)b + i * n * k,
                             .zero = zeros ? zeros + i * plan->b_zero.matrix_step : NULL,
                             .zero_step = plan->b_zero.step,
                             .rows = n,
                             .k = k,
                             .row_step = 1,
                             .step = n};
    kn_qwiden(&widen, to);
}

static void widen_a(const struct qmatmul_plan *plan, const void *a, const void *zero, size_t i,
                    int16_t *to) {
    size_t m = (size_t)plan->q.m, k = (size_t)plan->q.k;
    const char *zeros = zero;
    struct kn_widen widen = {.type = plan->a_type,
                             .x = (const char *)a + i * m * k,
                             .zero = zeros ? zeros + i * plan->a_zero.matrix_step : NULL,
                             .zero_step = plan->a_zero.step,
                             .rows = m,
                             .k = k,
                             .row_step = k,
                             .step = 1};
    kn_qwiden(&widen, to);
}

static int qmatmul_pack(struct op_prep *prep) {
    const struct qmatmul_plan *plan = prep->plan;
    const struct constant *zero =
        plan->at->b_zero < prep->node->inputs_count ? prep->numbers[plan->at->b_zero] : NULL;
    for (size_t i = 0; i < plan->b_matrices; i++)
        widen_b(plan, prep->numbers[plan->at->b]->data, zero ? zero->data : NULL, i,
                (int16_t *)(void *)((char *)prep->data + i * wide_bytes(plan, plan->q.n)));
    return 0;
}

/* The numbers of an input, NULL where it is absent. */
static const void *data_of(const struct op_args *args, size_t i) {
    return i < args->in_count && args->in[i] ? args->in[i]->data : NULL;
}

static void set_scales(const struct op_args *args, const struct qmatmul_plan *plan, size_t a,
                       size_t b, struct kn_qmatmul *q) {
    const struct places *at = plan->at;
    if (at->y_zero == ABSENT)
        return;
    q->a_scale = (const float *)data_of(args, at->a_scale) + a * plan->a_scale.matrix_step;
    q->a_step = plan->a_scale.step;
    q->b_scale = (const float *)data_of(args, at->b_scale) + b * plan->b_scale.matrix_step;
    q->b_step = plan->b_scale.step;
    q->y_scale = *(const float *)data_of(args, at->y_scale);
    q->y_zero = q->y_type == KN_UINT8 ? *(const uint8_t *)data_of(args, at->y_zero)
                                      : *(const int8_t *)data_of(args, at->y_zero);
}

static int qmatmul_run(const struct op_args *args) {
    const struct qmatmul_plan *plan = args->plan;
    struct kn_qmatmul q = plan->q;
    int16_t *wide_a = args->workspace;
    const size_t y_bytes = (size_t)q.m * (size_t)q.n * dtype_size(args->out[0]->desc.dtype);
    for (size_t i = 0; i < plan->batches; i++) {
        size_t a = (size_t)matmul_offset(&plan->batch, plan->a_strides, i);
        size_t b = (size_t)matmul_offset(&plan->batch, plan->b_strides, i);
        const void *wide_b = (const char *)args->packed + b * wide_bytes(plan, q.n);
        if (!args->packed) {
            int16_t *room = (int16_t *)(void *)((char *)args->workspace + wide_bytes(plan, q.m));
            widen_b(plan, data_of(args, plan->at->b), data_of(args, plan->at->b_zero), b, room);
            wide_b = room;
        }
        widen_a(plan, args->in[0]->data, data_of(args, plan->at->a_zero), a, wide_a);
        set_scales(args, plan, a, b, &q);
        kn_qmatmul(&q, wide_a, wide_b, (char *)args->out[0]->data + i * y_bytes, args->threads);
    }
    return 0;
}

const struct op_kind kind_qmatmul = {
    .plan_size = sizeof(struct qmatmul_plan),
    .plan = qmatmul_plan,
    .macs = qmatmul_macs,
    .size = qmatmul_size,
    .pack = qmatmul_pack,
    .run = qmatmul_run,
    .flags = OP_ROWS,
};
