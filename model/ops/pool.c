/* MaxPool (1, 8, 10, 11, 12), AveragePool (1, 7, 10, 11, 19) and their global forms (1). */
#include "model/ops/kinds.h"
#include "model/ops/window.h"

#include <errno.h>

static struct kn_pool window_pool(const struct window *w, enum kn_pool_kind kind, int64_t planes) {
    return (struct kn_pool){.kind = kind,
                            .planes = (int)planes,
                            .ih = w->in[WINDOW_H],
                            .iw = w->in[WINDOW_W],
                            .oh = w->out[WINDOW_H],
                            .ow = w->out[WINDOW_W],
                            .kh = w->kernel[WINDOW_H],
                            .kw = w->kernel[WINDOW_W],
                            .stride_h = w->stride[WINDOW_H],
                            .stride_w = w->stride[WINDOW_W],
                            .dil_h = w->dilation[WINDOW_H],
                            .dil_w = w->dilation[WINDOW_W],
                            .pad_top = w->begin[WINDOW_H],
                            .pad_left = w->begin[WINDOW_W],
                            .pad_bottom = w->end[WINDOW_H],
                            .pad_right = w->end[WINDOW_W]};
}

/* n * c of input 0, which the kernels count with an int. */
static int count_planes(const struct op_call *call, int64_t *ret) {
    const struct tensor_desc *x = op_in(call, 0);
    *ret = x->dims[0] * x->dims[1];
    if (*ret < 1 || *ret > OP_DIM_MAX)
        return op_fail(call, -ENOTSUP, "%lld planes are not supported", (long long)*ret);
    return 0;
}

/* No window may lie in the padding altogether: its maximum would be nothing. */
static int check_pads(const struct op_call *call, const struct window *w) {
    for (int axis = 0; axis < WINDOW_AXES; axis++) {
        int64_t cover = ((int64_t)w->kernel[axis] - 1) * w->dilation[axis] + 1;
        if (w->begin[axis] >= cover || w->end[axis] >= cover)
            return op_fail(call, -ENOTSUP, "pads as large as the kernel are not supported");
    }
    return 0;
}

static int pool_plan(struct op_call *call, void *ret) {
    struct window w;
    int64_t planes = 0, layout = node_int(call->node, "storage_order", 0);
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_rank(call, 0, 3, 4);
    if (rc == 0)
        rc = window_read(call, NULL, &w);
    if (rc == 0)
        rc = window_slide(call, node_int(call->node, "ceil_mode", 0) != 0, &w);
    if (rc == 0)
        rc = check_pads(call, &w);
    if (rc == 0)
        rc = count_planes(call, &planes);
    if (rc < 0)
        return rc;
    if (layout != 0 && op_out(call, 1))
        return op_fail(call, -ENOTSUP, "indices with storage_order 1 are not supported");
    struct kn_pool *pool = ret;
    *pool = window_pool(&w, (enum kn_pool_kind)call->op->arg, planes);
    pool->count_include_pad = node_int(call->node, "count_include_pad", 0) != 0;
    const struct tensor_desc *x = op_in(call, 0);
    rc = window_set(call, &w, DTYPE_FLOAT, x->dims[0], x->dims[1]);
    if (rc == 0 && op_out(call, 1)) {
        const struct tensor_desc *y = op_out(call, 0);
        if (!y)
            return op_fail(call, -ENOTSUP, "indices without values are not supported");
        rc = op_set(call, 1, DTYPE_INT64, y->rank, y->dims);
    }
    return rc;
}

static uint64_t pool_macs(const struct node *node, const void *plan) {
    const struct kn_pool *p = plan;
    (void)node;
    return (uint64_t)p->planes * (uint64_t)p->oh * (uint64_t)p->ow * (uint64_t)p->kh *
           (uint64_t)p->kw;
}

static int pool_run(const struct op_args *args) {
    int64_t *index = args->out_count > 1 && args->out[1] ? args->out[1]->data : NULL;
    kn_pool(args->plan, args->in[0]->data, args->out[0]->data, index, args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_pool = {
    .plan_size = sizeof(struct kn_pool),
    .plan = pool_plan,
    .macs = pool_macs,
    .run = pool_run,
    .flags = OP_ACT,
};

/* Over all spatial dimensions, however many: one row of pixels. */
static int global_plan(struct op_call *call, void *ret) {
    int64_t planes = 0, dims[TENSOR_MAX_RANK];
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_rank(call, 0, 3, TENSOR_MAX_RANK);
    if (rc == 0)
        rc = count_planes(call, &planes);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    size_t pixels = op_product(x, 2, x->rank);
    if (pixels < 1 || pixels > OP_DIM_MAX)
        return op_fail(call, -ENOTSUP, "%zu pixels are not supported", pixels);
    struct kn_pool *pool = ret;
    *pool = (struct kn_pool){.kind = (enum kn_pool_kind)call->op->arg,
                             .planes = (int)planes,
                             .ih = 1,
                             .iw = (int)pixels,
                             .oh = 1,
                             .ow = 1,
                             .kh = 1,
                             .kw = (int)pixels,
                             .stride_h = 1,
                             .stride_w = 1,
                             .dil_h = 1,
                             .dil_w = 1};
    for (int d = 0; d < x->rank; d++)
        dims[d] = d < 2 ? x->dims[d] : 1;
    return op_set(call, 0, DTYPE_FLOAT, x->rank, dims);
}

const struct op_kind kind_global_pool = {
    .plan_size = sizeof(struct kn_pool),
    .plan = global_plan,
    .macs = pool_macs,
    .run = pool_run,
    .flags = OP_ACT,
};
