/* ConvInteger (10) and QLinearConv (10) of one and two spatial dimensions. */
#include "model/ops/kinds.h"
#include "model/ops/window.h"

#include "kernels/quantized.h"

#include <errno.h>
#include <string.h>

#define BYTES (OP_TYPE(DTYPE_UINT8) | OP_TYPE(DTYPE_INT8))

/* Where each operator has what; absent ones are beyond every node's inputs. */
#define INPUTS_MAX 9
#define ABSENT     INPUTS_MAX
struct places {
    size_t w, x_scale, x_zero, w_scale, w_zero, y_scale, y_zero, bias;
};

static const struct places places[] = {
    [QUANT_INTEGER] = {1, ABSENT, 2, ABSENT, 3, ABSENT, ABSENT, ABSENT},
    [QUANT_LINEAR] = {3, 1, 2, 4, 5, 6, 7, 8},
};

struct qconv_plan {
    struct kn_qconv q;
    const struct places *at;
    size_t w_zero_step, w_scale_step;
};

/* What pack() writes: the plan, then packed numbers when they are known at load. */
struct qconv_state {
    struct kn_qconv_plan plan;
    bool packed;
    size_t packed_room; /* of packed numbers that are made in the workspace */
};

#define ROUND_UP(n) (((n) + (KN_ALIGN - 1)) / KN_ALIGN * KN_ALIGN)
#define STATE_BYTES ROUND_UP(sizeof(struct qconv_state))

/* Input i, when there is one, has a type of the mask and one element, or `many`. */
static int check_numbers(const struct op_call *call, size_t i, unsigned mask, int64_t many,
                         size_t *ret_step) {
    const struct tensor_desc *in = op_in(call, i);
    if (!in)
        return 0;
    int rc = op_type(call, i, mask);
    size_t count = op_count(in);
    if (rc == 0 && (in->rank > 1 || (count != 1 && count != (size_t)many)))
        return op_fail(call, -EBADMSG, "input %zu has %zu elements instead of %s%lld", i, count,
                       many == 1 ? "" : "1 or ", (long long)many);
    if (ret_step)
        *ret_step = count > 1;
    return rc;
}

static int check_all_numbers(const struct op_call *call, const struct places *at, int64_t oc,
                             struct qconv_plan *plan) {
    const unsigned x_type = OP_TYPE(op_in(call, 0)->dtype);
    const unsigned w_type = OP_TYPE(op_in(call, at->w)->dtype);
    const struct tensor_desc *bias = op_in(call, at->bias);
    int rc = check_numbers(call, at->x_zero, x_type, 1, NULL);
    if (rc == 0)
        rc = check_numbers(call, at->w_zero, w_type, oc, &plan->w_zero_step);
    if (rc == 0)
        rc = check_numbers(call, at->x_scale, OP_FLOAT, 1, NULL);
    if (rc == 0)
        rc = check_numbers(call, at->w_scale, OP_FLOAT, oc, &plan->w_scale_step);
    if (rc == 0)
        rc = check_numbers(call, at->y_scale, OP_FLOAT, 1, NULL);
    if (rc == 0)
        rc = check_numbers(call, at->y_zero, BYTES, 1, NULL);
    if (rc == 0 && bias)
        rc = op_type(call, at->bias, OP_TYPE(DTYPE_INT32));
    if (rc == 0 && bias && (bias->rank != 1 || bias->dims[0] != oc))
        return op_fail(call, -EBADMSG, "bias does not have %lld elements", (long long)oc);
    return rc;
}

static int qconv_plan(struct op_call *call, void *ret) {
    struct qconv_plan *plan = ret;
    const struct places *at = plan->at = &places[call->op->arg];
    struct kn_qconv_plan probe;
    struct window w;
    int64_t group, oc;
    int rc = op_type(call, 0, BYTES);
    if (rc == 0)
        rc = op_type(call, at->w, BYTES);
    if (rc == 0)
        rc = op_rank(call, 0, 3, 4);
    if (rc == 0)
        rc = window_weights(call, at->w, 1, &group, &oc);
    if (rc == 0)
        rc = check_all_numbers(call, at, oc, plan);
    if (rc == 0)
        rc = window_read(call, op_in(call, at->w)->dims + 2, &w);
    if (rc == 0)
        rc = window_slide(call, false, &w);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    enum dtype y_type = at->y_zero == ABSENT ? DTYPE_INT32 : op_in(call, at->y_zero)->dtype;
    if (x->dims[0] < 1)
        return op_fail(call, -EBADMSG, "the batch is empty");
    plan->q = (struct kn_qconv){.conv = window_conv(&w, x, (int)oc, (int)group),
                                .x_type = (enum kn_type)x->dtype,
                                .w_type = (enum kn_type)op_in(call, at->w)->dtype,
                                .y_type = (enum kn_type)y_type};
    if (kn_qconv_plan(&plan->q, 1, &probe) < 0)
        return op_fail(call, -ENOTSUP, "the convolution is too large");
    return window_set(call, &w, y_type, x->dims[0], oc);
}

static uint64_t qconv_macs(const struct node *node, const void *data) {
    const struct qconv_plan *plan = data;
    const struct kn_conv *c = &plan->q.conv;
    (void)node;
    return (uint64_t)c->n * (uint64_t)c->oc * (uint64_t)(c->ic / c->group) * (uint64_t)c->kh *
           (uint64_t)c->kw * (uint64_t)c->oh * (uint64_t)c->ow;
}

/* Whether everything but the picture is known at load. */
static bool is_known(const struct node *node) {
    for (size_t i = 1; i < node->inputs_count; i++)
        if (node->inputs[i] && !node->inputs[i]->constant)
            return false;
    return true;
}

static int qconv_size(struct op_prep *prep) {
    const struct qconv_plan *plan = prep->plan;
    struct kn_qconv_plan chosen;
    int rc = kn_qconv_plan(&plan->q, prep->threads, &chosen);
    if (rc < 0)
        return rc;
    prep->bytes = STATE_BYTES;
    prep->workspace_bytes = ROUND_UP(chosen.workspace_bytes);
    if (is_known(prep->node)) {
        prep->bytes += chosen.packed_bytes;
        prep->absorbed = ((1U << prep->node->inputs_count) - 1U) & ~1U;
    } else {
        prep->workspace_bytes += ROUND_UP(chosen.packed_bytes);
    }
    return 0;
}

/* data: of each input, NULL where absent. */
static struct kn_qconv_numbers numbers_of(const struct qconv_plan *plan,
                                          const void *const data[INPUTS_MAX + 1]) {
    const struct places *at = plan->at;
    return (struct kn_qconv_numbers){.w = data[at->w],
                                     .x_zero = data[at->x_zero],
                                     .w_zero = data[at->w_zero],
                                     .y_zero = data[at->y_zero],
                                     .w_zero_step = plan->w_zero_step,
                                     .x_scale = data[at->x_scale],
                                     .w_scale = data[at->w_scale],
                                     .y_scale = data[at->y_scale],
                                     .w_scale_step = plan->w_scale_step,
                                     .bias = data[at->bias]};
}

static int qconv_pack(struct op_prep *prep) {
    const struct qconv_plan *plan = prep->plan;
    struct qconv_state *state = prep->data;
    const void *data[INPUTS_MAX + 1] = {0};
    int rc = kn_qconv_plan(&plan->q, prep->threads, &state->plan);
    if (rc < 0)
        return rc;
    state->packed = is_known(prep->node);
    state->packed_room = ROUND_UP(state->plan.packed_bytes);
    if (!state->packed)
        return 0;
    for (size_t i = 1; i < prep->node->inputs_count; i++)
        data[i] = prep->numbers[i] ? prep->numbers[i]->data : NULL;
    struct kn_qconv_numbers numbers = numbers_of(plan, data);
    kn_qconv_pack(&state->plan, &numbers, (char *)prep->data + STATE_BYTES);
    return 0;
}

static int qconv_run(const struct op_args *args) {
    const struct qconv_state *state = args->packed;
    const struct qconv_plan *now = args->plan;
    struct kn_qconv_plan plan = state->plan;
    const void *packed = (const char *)args->packed + STATE_BYTES;
    char *workspace = args->workspace;
    plan.q.conv.n = now->q.conv.n; /* of this frame, where that depends on data */
    if (!state->packed) {
        const void *data[INPUTS_MAX + 1] = {0};
        for (size_t i = 1; i < args->in_count; i++)
            data[i] = args->in[i] ? args->in[i]->data : NULL;
        struct kn_qconv_numbers numbers = numbers_of(now, data);
        kn_qconv_pack(&plan, &numbers, workspace);
        packed = workspace;
        workspace += state->packed_room;
    }
    kn_qconv_run(&plan, packed, args->in[0]->data, args->out[0]->data, workspace, args->threads);
    return 0;
}

static const char *qconv_algorithm(const void *packed) {
    const struct kn_qconv_plan *plan = &((const struct qconv_state *)packed)->plan;
    return plan->depthwise ? "int16 depthwise" : plan->direct ? "int16 1x1" : "int16 im2col";
}

const struct op_kind kind_qconv = {
    .plan_size = sizeof(struct qconv_plan),
    .plan = qconv_plan,
    .macs = qconv_macs,
    .size = qconv_size,
    .pack = qconv_pack,
    .run = qconv_run,
    .algorithm = qconv_algorithm,
    .flags = OP_ROWS,
};
