/* GridSample (16, 20) and RoiAlign (10, 16, 22). */
#include "model/ops/kinds.h"

#include <errno.h>

/* ---- GridSample ---- */

/* Opset 20 has new names for two modes. */
static int grid_modes(const struct op_call *call, struct kn_grid_sample *plan) {
    static const char *const old_modes[] = {"nearest", "bilinear", "bicubic"};
    static const char *const new_modes[] = {"nearest", "linear", "cubic"};
    static const char *const pads[] = {[KN_SAMPLE_ZEROS] = "zeros",
                                       [KN_SAMPLE_BORDER] = "border",
                                       [KN_SAMPLE_REFLECTION] = "reflection"};
    const char *const *modes = call->node->opset < 20 ? old_modes : new_modes;
    int mode = 0, pad = 0;
    int rc = op_choice(call, "mode", modes[1], modes, 3, &mode);
    if (rc == 0)
        rc = op_choice(call, "padding_mode", "zeros", pads, 3, &pad);
    if (rc < 0)
        return rc;
    plan->mode = (enum kn_resize_mode)mode;
    plan->pad = (enum kn_sample_pad)pad;
    plan->align_corners = node_int(call->node, "align_corners", 0) != 0;
    return 0;
}

static int grid_plan(struct op_call *call, void *ret) {
    struct kn_grid_sample *plan = ret;
    int64_t dims[TENSOR_MAX_RANK];
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_type(call, 1, OP_FLOAT);
    if (rc == 0)
        rc = op_rank(call, 0, 3, 5);
    if (rc == 0)
        rc = grid_modes(call, plan);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0), *grid = op_in(call, 1);
    int last = grid->rank - 1;
    if (grid->rank != x->rank || grid->dims[0] != x->dims[0] || grid->dims[last] != x->rank - 2)
        return op_fail(call, -EBADMSG, "input and grid do not fit together");
    plan->batches = (int)x->dims[0];
    plan->channels = (int)x->dims[1];
    plan->rank = x->rank - 2;
    plan->points = op_product(grid, 1, last);
    dims[0] = x->dims[0];
    dims[1] = x->dims[1];
    for (int i = 2; i < x->rank; i++) {
        plan->in[i - 2] = (int)x->dims[i];
        dims[i] = grid->dims[i - 1];
        if (x->dims[i] == 0)
            return op_fail(call, -EBADMSG, "a picture without pixels cannot be sampled");
    }
    return op_set(call, 0, DTYPE_FLOAT, x->rank, dims);
}

static uint64_t grid_macs(const struct node *node, const void *data) {
    const struct kn_grid_sample *plan = data;
    uint64_t taps = 1;
    for (int i = 0; i < plan->rank; i++)
        taps *= plan->mode == KN_RESIZE_NEAREST ? 1 : plan->mode == KN_RESIZE_LINEAR ? 2 : 4;
    return taps * op_count(&node->outputs[0]->desc);
}

static int grid_run(const struct op_args *args) {
    kn_grid_sample(args->plan, args->in[0]->data, args->in[1]->data, args->out[0]->data,
                   args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_grid_sample = {
    .plan_size = sizeof(struct kn_grid_sample),
    .plan = grid_plan,
    .macs = grid_macs,
    .run = grid_run,
    .flags = OP_ACT,
};

/* ---- RoiAlign ---- */

#define ROI_SIZE_MAX 4096 /* bins along one side; samples along one side of a bin */

/* Before opset 16 nothing was shifted by half a pixel. */
static int roi_modes(const struct op_call *call, struct kn_roi_align *plan) {
    static const char *const modes[] = {"avg", "max"};
    static const char *const coords[] = {"output_half_pixel", "half_pixel"};
    int mode = 0, coord = 0;
    int rc = op_choice(call, "mode", "avg", modes, 2, &mode);
    if (rc == 0)
        rc = op_choice(call, "coordinate_transformation_mode", coords[call->node->opset >= 16],
                       coords, 2, &coord);
    if (rc < 0)
        return rc;
    plan->maximum = mode == 1;
    plan->half_pixel = coord == 1;
    plan->scale = node_float(call->node, "spatial_scale", 1.0f);
    return 0;
}

static int roi_sizes(const struct op_call *call, struct kn_roi_align *plan) {
    const struct {
        const char *name;
        int64_t fallback, least;
        int *to;
    } sizes[] = {{"output_height", 1, 1, &plan->oh},
                 {"output_width", 1, 1, &plan->ow},
                 {"sampling_ratio", 0, 0, &plan->sampling}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int64_t size = node_int(call->node, sizes[i].name, sizes[i].fallback);
        if (size < sizes[i].least || size > ROI_SIZE_MAX)
            return op_fail(call, -EBADMSG, "%s cannot be %lld", sizes[i].name, (long long)size);
        *sizes[i].to = (int)size;
    }
    return 0;
}

static int roi_plan(struct op_call *call, void *ret) {
    struct kn_roi_align *plan = ret;
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_type(call, 1, OP_FLOAT);
    if (rc == 0)
        rc = op_type(call, 2, OP_TYPE(DTYPE_INT64));
    if (rc == 0)
        rc = op_rank(call, 0, 4, 4);
    if (rc == 0)
        rc = op_rank(call, 1, 2, 2);
    if (rc == 0)
        rc = op_rank(call, 2, 1, 1);
    if (rc == 0)
        rc = roi_modes(call, plan);
    if (rc == 0)
        rc = roi_sizes(call, plan);
    if (rc < 0)
        return rc;
    const int64_t *x = op_in(call, 0)->dims, *rois = op_in(call, 1)->dims;
    if (rois[1] != 4 || op_in(call, 2)->dims[0] != rois[0])
        return op_fail(call, -EBADMSG, "regions and their pictures do not fit together");
    if (x[2] < 1 || x[3] < 1)
        return op_fail(call, -EBADMSG, "a picture without pixels has no regions");
    plan->rois = (int)rois[0];
    plan->channels = (int)x[1];
    plan->ih = (int)x[2];
    plan->iw = (int)x[3];
    return op_set(call, 0, DTYPE_FLOAT, 4, (int64_t[]){rois[0], x[1], plan->oh, plan->ow});
}

static uint64_t roi_macs(const struct node *node, const void *data) {
    const struct kn_roi_align *plan = data;
    uint64_t samples = plan->sampling > 0 ? (uint64_t)plan->sampling * (uint64_t)plan->sampling : 4;
    return 4 * samples * op_count(&node->outputs[0]->desc);
}

static int roi_run(const struct op_args *args) {
    const struct kn_roi_align *plan = args->plan;
    const int64_t *batches = args->in[2]->data;
    for (int i = 0; i < plan->rois; i++)
        if (batches[i] < 0 || batches[i] >= args->in[0]->desc.dims[0])
            return err_set(args->err, -EINVAL, "region %d is of picture %lld of %lld", i,
                           (long long)batches[i], (long long)args->in[0]->desc.dims[0]);
    kn_roi_align(plan, args->in[0]->data, args->in[1]->data, batches, args->out[0]->data,
                 args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_roi_align = {
    .plan_size = sizeof(struct kn_roi_align),
    .plan = roi_plan,
    .macs = roi_macs,
    .run = roi_run,
    .flags = OP_ACT,
};
