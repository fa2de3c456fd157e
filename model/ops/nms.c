/* NonMaxSuppression (10, 11) and NonZero (9, 13): how much they find is known when they have run.
 * Where all of their inputs are known at load, they are run once to tell their shape. */
#include "model/fold.h"
#include "model/ops/kinds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The numbers of every input as run() would get them; -ENOTSUP where one is not known at load.
 * Aligned copies: the caller frees data of each with tensor_buffer_free(), after an error too. */
static int fetch_inputs(const struct op_call *call, struct tensor *in, const struct tensor **refs) {
    const struct node *node = call->node;
    for (size_t i = 0; i < node->inputs_count; i++) {
        const struct constant *constant;
        if (!node->inputs[i])
            continue;
        if (!op_constant(call, i))
            return op_fail(call, -ENOTSUP,
                           "input %zu ('%s') must be known when the model is loaded", i,
                           node->inputs[i]->name);
        int rc = fold_numbers(call->fold, node->inputs[i], &constant, call->err);
        if (rc < 0)
            return rc;
        in[i] = (struct tensor){.desc = constant->desc, .data = tensor_buffer_new(constant->bytes)};
        if (!in[i].data)
            return op_fail(call, -ENOMEM, "no memory for input %zu", i);
        if (constant->bytes > 0)
            memcpy(in[i].data, constant->data, constant->bytes);
        refs[i] = &in[i];
    }
    return 0;
}

/* ---- NonMaxSuppression ---- */

#define NMS_INPUTS 5

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
    struct tensor in[NMS_INPUTS] = {{{0}, NULL}};
    const struct tensor *refs[NMS_INPUTS] = {NULL};
    int64_t *y = NULL, found = 0;
    void *scratch = NULL;
    int rc = nms_plan_shapes(call, plan);
    if (rc == 0)
        rc = fetch_inputs(call, in, refs);
    if (rc == 0) {
        struct kn_nms nms = nms_now(plan, refs, call->node->inputs_count);
        size_t rows = (size_t)nms.batches * (size_t)nms.classes * (size_t)nms.most;
        scratch = tensor_buffer_new(kn_nms_scratch(&nms));
        y = calloc(rows + 1, 3 * sizeof(*y));
        if (scratch && y)
            found = (int64_t)kn_nms(&nms, in[0].data, in[1].data, y, scratch);
        else
            rc = op_fail(call, -ENOMEM, "no memory for %zu boxes", rows);
    }
    for (size_t i = 0; i < NMS_INPUTS; i++)
        tensor_buffer_free(in[i].data);
    tensor_buffer_free(scratch);
    free(y);
    return rc < 0 ? rc : op_set(call, 0, DTYPE_INT64, 2, (int64_t[]){found, 3});
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
    struct tensor in = {{0}, NULL};
    const struct tensor *ref = NULL;
    const struct tensor_desc *x = op_in(call, 0);
    int64_t found = 0;
    int rc = op_type(call, 0, OP_NUMBERS | OP_TYPE(DTYPE_BOOL));
    if (rc == 0)
        rc = fetch_inputs(call, &in, &ref);
    if (rc == 0)
        found = (int64_t)kn_count_nonzero((enum kn_type)x->dtype, op_count(x), in.data);
    tensor_buffer_free(in.data);
    return rc < 0 ? rc : op_set(call, 0, DTYPE_INT64, 2, (int64_t[]){x->rank, found});
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
