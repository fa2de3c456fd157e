/* MaxPool (1, 8, 10, 11, 12, 22), AveragePool (1, 7, 10, 11, 19, 22), LpPool (1, 2, 11, 18, 22) and
 * their global forms (1, 2, 22); MaxUnpool (9, 11, 22). */
#include "model/ops/kinds.h"
#include "model/ops/window.h"

#include "kernels/volume.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define MAX_TYPES (OP_FLOAT | OP_TYPE(DTYPE_DOUBLE) | OP_TYPE(DTYPE_UINT8) | OP_TYPE(DTYPE_INT8))

struct pool_plan {
    struct kn_pool flat;
    struct kn_pool3 volume; /* used instead where flat cannot say it */
    bool is_volume;
};

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

static struct kn_pool3 window_pool3(const struct window *w, enum kn_pool_kind kind,
                                    int64_t planes) {
    struct kn_pool3 pool = {.kind = kind, .planes = (int)planes};
    memcpy(pool.in, w->in, sizeof(pool.in));
    memcpy(pool.out, w->out, sizeof(pool.out));
    memcpy(pool.kernel, w->kernel, sizeof(pool.kernel));
    memcpy(pool.stride, w->stride, sizeof(pool.stride));
    memcpy(pool.dil, w->dilation, sizeof(pool.dil));
    memcpy(pool.begin, w->begin, sizeof(pool.begin));
    memcpy(pool.end, w->end, sizeof(pool.end));
    return pool;
}

/* The exponent of LpPool: a float in opset 1, an integer since. */
static int read_norm(const struct op_call *call, float *ret) {
    const struct attr *attr = node_attr(call->node, "p");
    *ret = !attr ? 2.0f : attr->kind == ATTR_FLOAT ? attr->f : (float)attr->i;
    if (!(*ret > 0.0f && *ret < INFINITY))
        return op_fail(call, -EBADMSG, "p cannot be %g", (double)*ret);
    return 0;
}

/* n * c of input 0, which the kernels count with an int. */
static int count_planes(const struct op_call *call, int64_t *ret) {
    const struct tensor_desc *x = op_in(call, 0);
    *ret = x->dims[0] * x->dims[1];
    if (*ret < 1 || *ret > OP_DIM_MAX)
        return op_fail(call, -ENOTSUP, "%lld planes are not supported", (long long)*ret);
    return 0;
}

#define REACH_MAX (OP_DIM_MAX / 4) /* of rows and columns: the sum of a few fits an int */

/* No window may lie in the padding altogether: its maximum would be nothing. */
static int check_reach(const struct op_call *call, const struct window *w) {
    for (int axis = 0; axis < WINDOW_AXES; axis++) {
        int64_t cover = ((int64_t)w->kernel[axis] - 1) * w->dilation[axis] + 1;
        int64_t last = ((int64_t)w->out[axis] - 1) * w->stride[axis];
        if (cover > REACH_MAX || last > REACH_MAX || w->in[axis] > REACH_MAX)
            return op_fail(call, -ENOTSUP, "windows of %lld over an input of %d are too large",
                           (long long)cover, w->in[axis]);
        if (w->begin[axis] >= cover || w->end[axis] >= cover)
            return op_fail(call, -ENOTSUP, "pads as large as the kernel are not supported");
    }
    return 0;
}

/* Reads a window that slides over input 0, and what goes with it. */
static int read_window(const struct op_call *call, unsigned types, struct window *ret,
                       int64_t *ret_planes) {
    int rc = op_type(call, 0, types);
    if (rc == 0)
        rc = op_rank(call, 0, 3, 2 + WINDOW_AXES);
    if (rc == 0)
        rc = window_read(call, NULL, ret);
    if (rc == 0)
        rc = window_slide(call, node_int(call->node, "ceil_mode", 0) != 0, ret);
    if (rc == 0)
        rc = check_reach(call, ret);
    return rc < 0 ? rc : count_planes(call, ret_planes);
}

static int pool_plan(struct op_call *call, void *ret) {
    struct pool_plan *plan = ret;
    enum kn_pool_kind kind = (enum kn_pool_kind)call->op->arg;
    const struct tensor_desc *x = op_in(call, 0);
    struct window w;
    int64_t planes = 0;
    float p = 2.0f;
    int rc = read_window(call, kind == KN_POOL_MAX ? MAX_TYPES : OP_FLOAT, &w, &planes);
    if (rc == 0 && kind == KN_POOL_LP)
        rc = read_norm(call, &p);
    if (rc < 0)
        return rc;
    plan->flat = window_pool(&w, kind, planes);
    plan->volume = window_pool3(&w, kind, planes);
    plan->volume.type = (enum kn_type)x->dtype;
    plan->volume.p = p;
    plan->volume.column_major = node_int(call->node, "storage_order", 0) != 0;
    plan->volume.count_include_pad = plan->flat.count_include_pad =
        node_int(call->node, "count_include_pad", 0) != 0;
    plan->is_volume = w.spatial == WINDOW_AXES || kind == KN_POOL_LP || x->dtype != DTYPE_FLOAT ||
                      (plan->volume.column_major && op_out(call, 1));
    rc = window_set(call, &w, x->dtype, x->dims[0], x->dims[1]);
    if (rc == 0 && op_out(call, 1)) {
        const struct tensor_desc *y = op_out(call, 0);
        if (!y)
            return op_fail(call, -ENOTSUP, "indices without values are not supported");
        rc = op_set(call, 1, DTYPE_INT64, y->rank, y->dims);
    }
    return rc;
}

static uint64_t pool_macs(const struct node *node, const void *data) {
    const struct pool_plan *plan = data;
    const struct kn_pool3 *p = &plan->volume;
    uint64_t macs = (uint64_t)p->planes;
    (void)node;
    for (int axis = 0; axis < WINDOW_AXES; axis++)
        macs *= (uint64_t)p->out[axis] * (uint64_t)p->kernel[axis];
    return macs;
}

static int pool_run(const struct op_args *args) {
    const struct pool_plan *plan = args->plan;
    int64_t *index = args->out_count > 1 && args->out[1] ? args->out[1]->data : NULL;
    if (plan->is_volume)
        kn_pool3(&plan->volume, args->in[0]->data, args->out[0]->data, index, args->threads);
    else
        kn_pool(&plan->flat, args->in[0]->data, args->out[0]->data, index, args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_pool = {
    .plan_size = sizeof(struct pool_plan),
    .plan = pool_plan,
    .macs = pool_macs,
    .run = pool_run,
    .flags = OP_ACT,
};

/* Over all spatial dimensions, however many: one row of pixels. */
static int global_plan(struct op_call *call, void *ret) {
    struct pool_plan *plan = ret;
    enum kn_pool_kind kind = (enum kn_pool_kind)call->op->arg;
    int64_t planes = 0, dims[TENSOR_MAX_RANK];
    float p = 2.0f;
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_rank(call, 0, 3, TENSOR_MAX_RANK);
    if (rc == 0)
        rc = count_planes(call, &planes);
    if (rc == 0 && kind == KN_POOL_LP)
        rc = read_norm(call, &p);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    size_t pixels = op_product(x, 2, x->rank);
    if (pixels < 1 || pixels > OP_DIM_MAX)
        return op_fail(call, -ENOTSUP, "%zu pixels are not supported", pixels);
    const struct window w = {.in = {1, 1, (int)pixels},
                             .kernel = {1, 1, (int)pixels},
                             .stride = {1, 1, 1},
                             .dilation = {1, 1, 1},
                             .out = {1, 1, 1}};
    plan->flat = window_pool(&w, kind, planes);
    plan->volume = window_pool3(&w, kind, planes);
    plan->volume.type = KN_FLOAT;
    plan->volume.p = p;
    plan->is_volume = kind == KN_POOL_LP;
    for (int d = 0; d < x->rank; d++)
        dims[d] = d < 2 ? x->dims[d] : 1;
    return op_set(call, 0, DTYPE_FLOAT, x->rank, dims);
}

const struct op_kind kind_global_pool = {
    .plan_size = sizeof(struct pool_plan),
    .plan = global_plan,
    .macs = pool_macs,
    .run = pool_run,
    .flags = OP_ACT,
};

/* ---- MaxUnpool ---- */

struct unpool_plan {
    struct kn_shape inner; /* what the window says: the indices count in it */
    struct kn_shape whole; /* output_shape, where that is given */
};

/* output_shape: what the indices count in lies at its beginning, zeros are behind. */
static int read_output_shape(const struct op_call *call, struct unpool_plan *plan) {
    int64_t dims[TENSOR_MAX_RANK];
    size_t count;
    int rc = op_ints(call, 2, dims, TENSOR_MAX_RANK, &count);
    if (rc < 0 || count == 0)
        return rc;
    if (count != (size_t)plan->inner.rank)
        return op_fail(call, -EBADMSG, "output_shape has %zu numbers instead of %d", count,
                       plan->inner.rank);
    for (int i = 0; i < plan->inner.rank; i++) {
        int64_t least = plan->inner.dims[i];
        if (dims[i] < least || (i < 2 && dims[i] != least))
            return op_fail(call, -EBADMSG, "dimension %d of output_shape cannot be %lld", i,
                           (long long)dims[i]);
        plan->whole.dims[i] = dims[i];
    }
    return 0;
}

static int unpool_plan(struct op_call *call, void *ret) {
    struct unpool_plan *plan = ret;
    struct window w;
    int rc = op_type(call, 0, MAX_TYPES);
    if (rc == 0)
        rc = op_type(call, 1, OP_TYPE(DTYPE_INT64));
    if (rc == 0)
        rc = op_rank(call, 0, 3, 2 + WINDOW_AXES);
    if (rc == 0)
        rc = window_read(call, NULL, &w);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0), *index = op_in(call, 1);
    if (index->rank != x->rank ||
        memcmp(index->dims, x->dims, sizeof(x->dims[0]) * (size_t)x->rank) != 0)
        return op_fail(call, -EBADMSG, "values and indices have different shapes");
    op_shape(x, &plan->inner);
    for (int i = 2; i < x->rank; i++) {
        int axis = WINDOW_AXES - x->rank + i;
        int64_t out = ((int64_t)w.in[axis] - 1) * w.stride[axis] + w.kernel[axis] - w.begin[axis] -
                      w.end[axis];
        if (out < 1)
            return op_fail(call, -EBADMSG, "output dimension %d would be %lld", i, (long long)out);
        plan->inner.dims[i] = out;
    }
    plan->whole = plan->inner;
    rc = op_set(call, 0, x->dtype, x->rank, plan->inner.dims); /* bounds the products */
    if (rc == 0)
        rc = read_output_shape(call, plan);
    return rc < 0 ? rc : op_set(call, 0, x->dtype, x->rank, plan->whole.dims);
}

static int unpool_run(const struct op_args *args) {
    const struct unpool_plan *plan = args->plan;
    const struct tensor *x = args->in[0];
    int rc = kn_unpool(dtype_size(x->desc.dtype), &plan->inner, &plan->whole, x->data,
                       args->in[1]->data, op_count(&x->desc), args->out[0]->data);
    return rc < 0 ? err_set(args->err, rc, "an index lies outside the tensor that was pooled") : 0;
}

const struct op_kind kind_unpool = {
    .plan_size = sizeof(struct unpool_plan), .plan = unpool_plan, .run = unpool_run};
