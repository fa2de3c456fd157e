/* Operators that move elements without changing them. */
#include "model/ops/kinds.h"

#include <errno.h>
#include <string.h>

/* One strided copy: most of them are no more. */
struct copy_plan {
    struct kn_shape shape;
    int64_t x_strides[KN_MAX_RANK], y_strides[KN_MAX_RANK];
    int64_t x_offset; /* in elements */
};

static int copy_run(const struct op_args *args) {
    const struct copy_plan *plan = args->plan;
    size_t size = dtype_size(args->out[0]->desc.dtype);
    const char *x = args->in[0]->data;
    kn_copy(size, &plan->shape, plan->x_strides, x + plan->x_offset * (int64_t)size,
            plan->y_strides, args->out[0]->data);
    return 0;
}

static void dense_strides(const struct kn_shape *shape, int64_t *ret) {
    uint64_t stride = 1; /* wraps where a dimension is 0: then nothing is copied */
    for (int i = shape->rank - 1; i >= 0; i--) {
        ret[i] = (int64_t)stride;
        stride *= (uint64_t)shape->dims[i];
    }
}

/* ---- Transpose (1, 13) ---- */

static int transpose_plan(struct op_call *call, void *ret) {
    struct copy_plan *plan = ret;
    size_t count;
    const int64_t *perm = node_ints(call->node, "perm", &count);
    int rc = op_type(call, 0, OP_TYPES);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    if (perm && count != (size_t)x->rank)
        return op_fail(call, -EBADMSG, "perm has %zu numbers instead of %d", count, x->rank);
    struct kn_shape in;
    int64_t strides[KN_MAX_RANK];
    bool used[TENSOR_MAX_RANK] = {false};
    op_shape(x, &in);
    dense_strides(&in, strides);
    plan->shape.rank = x->rank;
    int last = -1;
    call->view = true;
    for (int i = 0; i < x->rank; i++) {
        int64_t from = perm ? perm[i] : x->rank - 1 - i;
        if (from < 0 || from >= x->rank || used[from])
            return op_fail(call, -EBADMSG, "perm is not a permutation");
        used[from] = true;
        plan->shape.dims[i] = x->dims[from];
        plan->x_strides[i] = strides[from];
        if (x->dims[from] == 1)
            continue;
        if ((int)from < last)
            call->view = false;
        last = (int)from;
    }
    dense_strides(&plan->shape, plan->y_strides);
    return op_set(call, 0, x->dtype, x->rank, plan->shape.dims);
}

const struct op_kind kind_transpose = {
    .plan_size = sizeof(struct copy_plan), .plan = transpose_plan, .run = copy_run};

/* ---- Slice (1, 10, 11, 13) ---- */

/* Clamps one axis as ONNX says and narrows the copy to it. */
static int slice_axis(const struct op_call *call, struct copy_plan *plan, int axis, int64_t start,
                      int64_t end, int64_t step) {
    int64_t dim = plan->shape.dims[axis], count = 0;
    if (step == 0 || step < -OP_DIM_MAX)
        return op_fail(call, -EBADMSG, "step cannot be %lld", (long long)step);
    if (step > OP_DIM_MAX)
        step = OP_DIM_MAX;
    start = start < 0 && start >= -dim ? start + dim : start;
    end = end < 0 && end >= -dim ? end + dim : end;
    if (step > 0) {
        start = start < 0 ? 0 : start > dim ? dim : start;
        end = end < 0 ? 0 : end > dim ? dim : end;
        count = end > start ? (end - start + step - 1) / step : 0;
    } else {
        start = start < 0 ? -1 : start >= dim ? dim - 1 : start;
        end = end < 0 ? -1 : end >= dim ? dim - 1 : end;
        count = start > end ? (start - end - step - 1) / -step : 0;
    }
    if (count > 0)
        plan->x_offset += (int64_t)((uint64_t)start * (uint64_t)plan->x_strides[axis]);
    plan->x_strides[axis] = (int64_t)((uint64_t)plan->x_strides[axis] * (uint64_t)step);
    plan->shape.dims[axis] = count;
    return 0;
}

/* Starts or ends are known when the node runs: at load, the most is everything. */
static int slice_bound(struct op_call *call) {
    int64_t axes[TENSOR_MAX_RANK], steps[TENSOR_MAX_RANK], dims[TENSOR_MAX_RANK];
    size_t axes_count, steps_count;
    bool axes_given, steps_given, bounded[TENSOR_MAX_RANK] = {false};
    int rc = op_rank(call, 1, 1, 1);
    if (rc == 0)
        rc = op_list(call, "axes", 3, axes, TENSOR_MAX_RANK, &axes_count, &axes_given);
    if (rc == 0)
        rc = op_list(call, "steps", 4, steps, TENSOR_MAX_RANK, &steps_count, &steps_given);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    size_t count = op_count(op_in(call, 1));
    if (count > (size_t)x->rank || (axes_given && axes_count != count) ||
        (steps_given && steps_count != count))
        return op_fail(call, -EBADMSG, "starts, axes and steps are not of one length");
    memcpy(dims, x->dims, sizeof(dims));
    for (size_t i = 0; i < count; i++) {
        int axis;
        rc = op_axis(call, axes_given ? axes[i] : (int64_t)i, x->rank, &axis);
        if (rc < 0)
            return rc;
        bounded[axis] = true;
    }
    rc = op_set(call, 0, x->dtype, x->rank, dims);
    for (int d = 0; d < x->rank && rc == 0; d++)
        if (bounded[d])
            op_set_bound(call, 0, d);
    return rc;
}

static int slice_plan(struct op_call *call, void *ret) {
    struct copy_plan *plan = ret;
    int64_t starts[TENSOR_MAX_RANK], ends[TENSOR_MAX_RANK], axes[TENSOR_MAX_RANK],
        steps[TENSOR_MAX_RANK];
    size_t count, ends_count, axes_count, steps_count;
    bool given, axes_given, steps_given, used[TENSOR_MAX_RANK] = {false};
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0 && op_in(call, 1) && op_in(call, 2) && !(op_known(call, 1) && op_known(call, 2)))
        return slice_bound(call);
    if (rc == 0)
        rc = op_list(call, "starts", 1, starts, TENSOR_MAX_RANK, &count, &given);
    if (rc == 0)
        rc = op_list(call, "ends", 2, ends, TENSOR_MAX_RANK, &ends_count, &given);
    if (rc == 0)
        rc = op_list(call, "axes", 3, axes, TENSOR_MAX_RANK, &axes_count, &axes_given);
    if (rc == 0)
        rc = op_list(call, "steps", 4, steps, TENSOR_MAX_RANK, &steps_count, &steps_given);
    if (rc < 0)
        return rc;
    if (count != ends_count || (axes_given && count != axes_count) ||
        (steps_given && count != steps_count))
        return op_fail(call, -EBADMSG, "starts, ends, axes and steps are not of one length");
    const struct tensor_desc *x = op_in(call, 0);
    op_shape(x, &plan->shape);
    dense_strides(&plan->shape, plan->x_strides);
    for (size_t i = 0; i < count; i++) {
        int axis;
        rc = op_axis(call, axes_given ? axes[i] : (int64_t)i, x->rank, &axis);
        if (rc == 0 && used[axis])
            return op_fail(call, -EBADMSG, "axis %d is listed twice", axis);
        if (rc == 0)
            rc = slice_axis(call, plan, axis, starts[i], ends[i], steps_given ? steps[i] : 1);
        if (rc < 0)
            return rc;
        used[axis] = true;
    }
    dense_strides(&plan->shape, plan->y_strides);
    call->view = true;
    for (int i = 0; i < x->rank; i++)
        if (plan->shape.dims[i] != x->dims[i] || (plan->x_strides[i] < 0 && x->dims[i] > 1))
            call->view = false;
    return op_set(call, 0, x->dtype, x->rank, plan->shape.dims);
}

const struct op_kind kind_slice = {
    .plan_size = sizeof(struct copy_plan), .plan = slice_plan, .run = copy_run};

/* ---- Expand (8, 13) ---- */

static int expand_plan(struct op_call *call, void *ret) {
    struct copy_plan *plan = ret;
    int64_t dims[TENSOR_MAX_RANK];
    size_t rank;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_sizes(call, 1, dims, TENSOR_MAX_RANK, &rank);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    for (size_t i = 0; i < rank; i++)
        if (dims[i] < 0)
            return op_fail(call, -EBADMSG, "shape has %lld at %zu", (long long)dims[i], i);
    if (op_broadcast(x->dims, x->rank, dims, (int)rank, plan->shape.dims, &plan->shape.rank) < 0)
        return op_fail(call, -EBADMSG, "the input cannot be broadcast to that shape");
    op_strides(x, &plan->shape, plan->x_strides);
    dense_strides(&plan->shape, plan->y_strides);
    rc = op_set(call, 0, x->dtype, plan->shape.rank, plan->shape.dims);
    call->view = rc == 0 && op_out(call, 0) && op_count(op_out(call, 0)) == op_count(x);
    return rc;
}

const struct op_kind kind_expand = {
    .plan_size = sizeof(struct copy_plan), .plan = expand_plan, .run = copy_run};

/* ---- Tile (6, 13): each repeated axis becomes two, [repeat][dim] ---- */

static int tile_plan(struct op_call *call, void *ret) {
    struct copy_plan *plan = ret;
    int64_t repeats[TENSOR_MAX_RANK], dims[TENSOR_MAX_RANK], strides[KN_MAX_RANK];
    size_t count;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_sizes(call, 1, repeats, TENSOR_MAX_RANK, &count);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    if (count != (size_t)x->rank)
        return op_fail(call, -EBADMSG, "%zu repeats for %d dimensions", count, x->rank);
    struct kn_shape in, *shape = &plan->shape;
    op_shape(x, &in);
    dense_strides(&in, strides);
    for (int i = 0; i < x->rank; i++) {
        if (repeats[i] < 0 || repeats[i] > OP_DIM_MAX)
            return op_fail(call, -EBADMSG, "repeats has %lld", (long long)repeats[i]);
        dims[i] = x->dims[i] * repeats[i];
        if (repeats[i] == 1 && i > 0) { /* one with the dimension before, whose elements it is */
            shape->dims[shape->rank - 1] *= x->dims[i];
            plan->x_strides[shape->rank - 1] = strides[i];
            continue;
        }
        if (shape->rank + 2 > KN_MAX_RANK)
            return op_fail(call, -ENOTSUP, "more than four repeated dimensions are not supported");
        plan->x_strides[shape->rank] = 0;
        shape->dims[shape->rank++] = repeats[i];
        plan->x_strides[shape->rank] = strides[i];
        shape->dims[shape->rank++] = x->dims[i];
    }
    dense_strides(shape, plan->y_strides);
    return op_set(call, 0, x->dtype, x->rank, dims);
}

const struct op_kind kind_tile = {
    .plan_size = sizeof(struct copy_plan), .plan = tile_plan, .run = copy_run};

/* ---- DepthToSpace (1, 11, 13) and SpaceToDepth (1, 13) ---- */

static int blocks(const struct op_call *call, int64_t *ret) {
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_rank(call, 0, 4, 4);
    *ret = node_int(call->node, "blocksize", 0);
    if (rc == 0 && (*ret < 1 || *ret > 1 << 15))
        return op_fail(call, -EBADMSG, "blocksize cannot be %lld", (long long)*ret);
    return rc;
}

/* x seen as six dimensions, taken in the order of perm. */
static void permute6(const int64_t dims[6], const int perm[6], struct copy_plan *plan) {
    struct kn_shape in = {.rank = 6};
    int64_t strides[KN_MAX_RANK];
    memcpy(in.dims, dims, 6 * sizeof(*dims));
    dense_strides(&in, strides);
    plan->shape.rank = 6;
    for (int i = 0; i < 6; i++) {
        plan->shape.dims[i] = dims[perm[i]];
        plan->x_strides[i] = strides[perm[i]];
    }
    dense_strides(&plan->shape, plan->y_strides);
}

static int depth_to_space_plan(struct op_call *call, void *ret) {
    int64_t b;
    int rc = blocks(call, &b);
    if (rc < 0)
        return rc;
    const int64_t *d = op_in(call, 0)->dims;
    const char *mode = node_string(call->node, "mode", "DCR");
    if (d[1] % (b * b) != 0)
        return op_fail(call, -EBADMSG, "%lld channels cannot be divided", (long long)d[1]);
    if (strcmp(mode, "CRD") == 0)
        permute6((int64_t[]){d[0], d[1] / (b * b), b, b, d[2], d[3]}, (int[]){0, 1, 4, 2, 5, 3},
                 ret);
    else if (strcmp(mode, "DCR") == 0)
        permute6((int64_t[]){d[0], b, b, d[1] / (b * b), d[2], d[3]}, (int[]){0, 3, 4, 1, 5, 2},
                 ret);
    else
        return op_fail(call, -EBADMSG, "mode '%.40s' is not known", mode);
    return op_set(call, 0, op_in(call, 0)->dtype, 4,
                  (int64_t[]){d[0], d[1] / (b * b), d[2] * b, d[3] * b});
}

static int space_to_depth_plan(struct op_call *call, void *ret) {
    int64_t b;
    int rc = blocks(call, &b);
    if (rc < 0)
        return rc;
    const int64_t *d = op_in(call, 0)->dims;
    if (d[2] % b != 0 || d[3] % b != 0)
        return op_fail(call, -EBADMSG, "height and width cannot be divided by %lld", (long long)b);
    permute6((int64_t[]){d[0], d[1], d[2] / b, b, d[3] / b, b}, (int[]){0, 3, 5, 1, 2, 4}, ret);
    return op_set(call, 0, op_in(call, 0)->dtype, 4,
                  (int64_t[]){d[0], d[1] * b * b, d[2] / b, d[3] / b});
}

const struct op_kind kind_depth_to_space = {
    .plan_size = sizeof(struct copy_plan), .plan = depth_to_space_plan, .run = copy_run};
const struct op_kind kind_space_to_depth = {
    .plan_size = sizeof(struct copy_plan), .plan = space_to_depth_plan, .run = copy_run};

/* ---- Concat (4, 11, 13) and Split (2, 11, 13, 18) ---- */

struct joint_plan {
    int axis;
    size_t outer;
};

static int concat_plan(struct op_call *call, void *ret) {
    struct joint_plan *plan = ret;
    int64_t dims[TENSOR_MAX_RANK], total = 0;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc < 0)
        return rc;
    const struct tensor_desc *first = op_in(call, 0);
    rc = op_axis(call, node_int(call->node, "axis", 1), first->rank, &plan->axis);
    for (size_t i = 0; rc == 0 && i < call->node->inputs_count; i++) {
        rc = op_type(call, i, OP_TYPE(first->dtype));
        if (rc < 0)
            return rc;
        const struct tensor_desc *in = op_in(call, i);
        bool fits = in->rank == first->rank;
        for (int d = 0; fits && d < in->rank; d++)
            fits = d == plan->axis || in->dims[d] == first->dims[d];
        if (!fits)
            return op_fail(call, -EBADMSG, "input %zu does not have the others' shape", i);
        total += in->dims[plan->axis];
    }
    if (rc < 0)
        return rc;
    plan->outer = op_product(first, 0, plan->axis);
    memcpy(dims, first->dims, sizeof(dims));
    dims[plan->axis] = total;
    call->view = call->node->inputs_count == 1;
    return op_set(call, 0, first->dtype, first->rank, dims);
}

size_t joint_outer(const void *plan) {
    return ((const struct joint_plan *)plan)->outer;
}

/* Copies the part of each row of the joint tensor that starts at offset (bytes) from or to it,
 * unless it lies there already. */
static void copy_rows(size_t outer, size_t part_bytes, const char *x, size_t x_step, char *y,
                      size_t y_step) {
    if (part_bytes == 0 || x == y)
        return;
    for (size_t i = 0; i < outer; i++)
        memcpy(y + i * y_step, x + i * x_step, part_bytes);
}

static size_t row_bytes(const struct tensor_desc *desc, int axis) {
    return op_product(desc, axis, desc->rank) * dtype_size(desc->dtype);
}

static int concat_run(const struct op_args *args) {
    const struct joint_plan *plan = args->plan;
    size_t total = row_bytes(&args->out[0]->desc, plan->axis), offset = 0;
    for (size_t i = 0; i < args->in_count; i++) {
        size_t bytes = row_bytes(&args->in[i]->desc, plan->axis);
        copy_rows(plan->outer, bytes, args->in[i]->data, bytes, (char *)args->out[0]->data + offset,
                  total);
        offset += bytes;
    }
    op_activate(args);
    return 0;
}

const struct op_kind kind_concat = {
    .plan_size = sizeof(struct joint_plan),
    .plan = concat_plan,
    .run = concat_run,
    .flags = OP_ACT,
};

/* Length of part i of parts, when the node does not list them: equal, the last one smaller. */
static int64_t equal_part(int64_t dim, int64_t parts, int64_t i) {
    int64_t part = (dim + parts - 1) / parts, start = part * i;
    return start >= dim ? 0 : dim - start < part ? dim - start : part;
}

static int split_plan(struct op_call *call, void *ret) {
    struct joint_plan *plan = ret;
    int64_t sizes[1024], sum = 0, parts = (int64_t)call->node->outputs_count;
    int64_t dims[TENSOR_MAX_RANK];
    size_t count;
    bool given;
    int rc = op_type(call, 0, OP_TYPES);
    if (rc == 0)
        rc = op_axis(call, node_int(call->node, "axis", 0), op_in(call, 0)->rank, &plan->axis);
    if (rc == 0)
        rc = op_list(call, "split", 1, sizes, sizeof(sizes) / sizeof(sizes[0]), &count, &given);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    int64_t dim = x->dims[plan->axis];
    if (given && count != (size_t)parts)
        return op_fail(call, -EBADMSG, "split has %zu numbers for %lld outputs", count,
                       (long long)parts);
    if (node_int(call->node, "num_outputs", parts) != parts)
        return op_fail(call, -EBADMSG, "num_outputs is not the number of outputs");
    if (!given && call->node->opset < 18 && dim % parts != 0)
        return op_fail(call, -EBADMSG, "%lld cannot be split into %lld equal parts", (long long)dim,
                       (long long)parts);
    plan->outer = op_product(x, 0, plan->axis);
    memcpy(dims, x->dims, sizeof(dims));
    for (int64_t i = 0; rc == 0 && i < parts; i++) {
        dims[plan->axis] = given ? sizes[i] : equal_part(dim, parts, i);
        if (dims[plan->axis] < 0 || dims[plan->axis] > dim - sum)
            return op_fail(call, -EBADMSG, "the parts do not add up to %lld", (long long)dim);
        sum += dims[plan->axis];
        rc = op_set(call, (size_t)i, x->dtype, x->rank, dims);
    }
    if (rc == 0 && sum != dim)
        return op_fail(call, -EBADMSG, "the parts do not add up to %lld", (long long)dim);
    return rc;
}

static int split_run(const struct op_args *args) {
    const struct joint_plan *plan = args->plan;
    size_t total = row_bytes(&args->in[0]->desc, plan->axis), offset = 0;
    for (size_t i = 0; i < args->out_count; i++) {
        size_t bytes = row_bytes(&args->out[i]->desc, plan->axis);
        copy_rows(plan->outer, bytes, (const char *)args->in[0]->data + offset, total,
                  args->out[i]->data, bytes);
        offset += bytes;
    }
    return 0;
}

const struct op_kind kind_split = {.plan_size = sizeof(struct joint_plan),
                                   .plan = split_plan,
                                   .run = split_run,
                                   .flags = OP_OUTPUTS};
