/* NonMaxSuppression (10, 11) and NonZero (9, 13): how much they find is known when they have run.
 */
#include "model/ops/kinds.h"

#include <errno.h>

/* ---- NonMaxSuppression ---- */

static int nms_plan_shapes(struct op_call *call, struct kn_nms *plan) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < call->node->inputs_count; i++) {
        if (i >= 2 && !op_in(call, i))
            continue;
        rc = op_type(call, i, i == 2 ? OP_TYPE(DTYPE_INT64) : OP_FLOAT);
        if (rc == 0 && i < 2)
            rc = op_rank(call, i, 3, 3);
        else if (rc == 0 && op_count(op_in(call, i)) > 1)
            return op_fail(call, -EBADMSG, "input %zu must be one number", i);
    }
    if (rc < 0)
        return rc;
    const int64_t *boxes = op_in(call, 0)->dims, *scores = op_in(call, 1)->dims;
    int64_t center = node_int(call->node, "center_point_box", 0);
    if (boxes[2] != 4 || boxes[0] != scores[0] || boxes[1] != scores[2])
        return op_fail(call, -EBADMSG, "boxes and scores do not fit together");
    if (center != 0 && center != 1)
        return op_fail(call, -EBADMSG, "center_point_box cannot be %lld", (long long)center);
    *plan = (struct kn_nms){.batches = (int32_t)boxes[0],
                            .classes = (int32_t)scores[1],
                            .boxes = (int32_t)boxes[1],
                            .center = center == 1};
    return 0;
}

/* Input i's number, or fallback where it is absent or empty. */
static float float_input(const struct tensor *const *in, size_t count, size_t i, float fallback) {
    return i < count && in[i] && op_count(&in[i]->desc) > 0 ? *(const float *)in[i]->data
                                                            : fallback;
}

/* What the plan says, with the numbers that are inputs. */
static struct kn_nms nms_now(const struct kn_nms *plan, const struct tensor *const *in,
                             size_t count) {
    struct kn_nms nms = *plan;
    if (count > 2 && in[2] && op_count(&in[2]->desc) > 0)
        nms.most = *(const int64_t *)in[2]->data;
    nms.most = nms.most < 0 ? 0 : nms.most > nms.boxes ? nms.boxes : nms.most;
    nms.iou = float_input(in, count, 3, 0.0f);
    nms.has_score = count > 4 && in[4] && op_count(&in[4]->desc) > 0;
    nms.score = float_input(in, count, 4, 0.0f);
    return nms;
}

static int nms_plan(struct op_call *call, void *ret) {
    struct kn_nms *plan = ret;
    int64_t most = 0;
    size_t count = 1;
    int rc = nms_plan_shapes(call, plan);
    if (rc == 0 && op_in(call, 2) && !op_known(call, 2))
        most = plan->boxes;
    else if (rc == 0)
        rc = op_ints(call, 2, &most, 1, &count);
    if (rc < 0)
        return rc;
    most = most < 0 ? 0 : most > plan->boxes ? plan->boxes : most;
    int64_t lists = (int64_t)plan->batches * plan->classes;
    if (most > 0 && lists > OP_DIM_MAX / most)
        return op_fail(call, -ENOTSUP, "%lld lists of up to %lld boxes are too many",
                       (long long)lists, (long long)most);
    rc = op_set(call, 0, DTYPE_INT64, 2, (int64_t[]){lists * most, 3});
    op_set_bound(call, 0, 0);
    return rc;
}

static int nms_size(struct op_prep *prep) {
    struct kn_nms nms = *(const struct kn_nms *)prep->plan;
    nms.most = nms.boxes;
    prep->workspace_bytes = kn_nms_scratch(&nms);
    return 0;
}

static int nms_run(const struct op_args *args) {
    struct kn_nms nms = nms_now(args->plan, args->in, args->in_count);
    args->out[0]->desc.dims[0] = (int64_t)kn_nms(&nms, args->in[0]->data, args->in[1]->data,
                                                 args->out[0]->data, args->workspace);
    return 0;
}

const struct op_kind kind_nms = {
    .plan_size = sizeof(struct kn_nms),
    .plan = nms_plan,
    .size = nms_size,
    .run = nms_run,
};

/* ---- NonZero ---- */

static int nonzero_plan(struct op_call *call, void *ret) {
    (void)ret;
    int rc = op_type(call, 0, OP_NUMBERS | OP_TYPE(DTYPE_BOOL));
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    rc = op_set(call, 0, DTYPE_INT64, 2, (int64_t[]){x->rank, (int64_t)op_count(x)});
    op_set_bound(call, 0, 1);
    return rc;
}

static int nonzero_run(const struct op_args *args) {
    const struct tensor *x = args->in[0];
    enum kn_type type = (enum kn_type)x->desc.dtype;
    size_t found = kn_count_nonzero(type, op_count(&x->desc), x->data);
    struct kn_shape shape;
    op_shape(&x->desc, &shape);
    kn_nonzero(type, &shape, x->data, found, args->out[0]->data);
    args->out[0]->desc.dims[1] = (int64_t)found;
    return 0;
}

const struct op_kind kind_nonzero = {.plan = nonzero_plan, .run = nonzero_run};
