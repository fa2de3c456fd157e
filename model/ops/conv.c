/* Conv (1, 11, 22) and ConvTranspose (1, 11, 22) of one to three spatial dimensions. */
#include "model/ops/pad.h"
#include "model/ops/window.h"

#include "kernels/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct conv_plan {
    struct kn_conv conv; /* without the depth */
    struct kn_conv3 volume;
    bool is_volume; /* three dimensions: volume is used instead */
};

/* What pack() writes: the plan, then the packed weights when they are known at load. */
struct conv_state {
    struct kn_conv_plan plan; /* of a volume: of its planes */
    struct kn_conv3_plan volume;
    bool packed;
    size_t packed_room;  /* of packed weights that are made in the workspace */
    size_t scratch_room; /* and what making them needs */
};

#define ROUND_UP(n) (((n) + (KN_ALIGN - 1)) / KN_ALIGN * KN_ALIGN)
#define STATE_BYTES ROUND_UP(sizeof(struct conv_state))
#define PIECE_BYTES ((size_t)1 << 20) /* of weights that are packed at once, about */
#define TAPS_MOST   1024 /* of an axis that are looked at: a file may ask for any number */

/* Types, ranks, channels and group; ic_axis: of the weights. */
static int check_weights(const struct op_call *call, int ic_axis, int64_t *ret_group,
                         int64_t *ret_oc) {
    const struct tensor_desc *b = op_in(call, 2);
    int rc = op_type(call, 0, OP_FLOAT);
    if (rc == 0)
        rc = op_type(call, 1, OP_FLOAT);
    if (rc == 0 && b)
        rc = op_type(call, 2, OP_FLOAT);
    if (rc == 0)
        rc = op_rank(call, 0, 3, 2 + WINDOW_AXES);
    if (rc == 0)
        rc = window_weights(call, 1, ic_axis, ret_group, ret_oc);
    if (rc == 0 && b && (b->rank != 1 || b->dims[0] != *ret_oc))
        return op_fail(call, -EBADMSG, "bias does not have %lld elements", (long long)*ret_oc);
    return rc;
}

static void set_volume(const struct window *w, struct conv_plan *plan) {
    plan->is_volume = w->spatial == WINDOW_AXES;
    plan->volume = (struct kn_conv3){.plane = plan->conv,
                                     .id = w->in[WINDOW_D],
                                     .od = w->out[WINDOW_D],
                                     .kd = w->kernel[WINDOW_D],
                                     .stride_d = w->stride[WINDOW_D],
                                     .dil_d = w->dilation[WINDOW_D],
                                     .pad_front = w->begin[WINDOW_D]};
}

/* One axis of a window. */
struct axis {
    int in, out, stride, dilation, pad;
};

/* Whether tap k reads inside the picture anywhere. */
static bool tap_reads(const struct axis *axis, int k) {
    int64_t at = (int64_t)k * axis->dilation - axis->pad;
    if (at < 0) /* the first output from which on it does not read in front of the picture */
        at += (-at + axis->stride - 1) / axis->stride * axis->stride;
    int64_t last = (int64_t)k * axis->dilation - axis->pad + (axis->out - 1LL) * axis->stride;
    return at < axis->in && at <= last;
}

/* Taps [*ret_first, ...) of the axis that read more than padding; at least one, and all where there
 * are very many. Returns how many. */
static int taps_that_read(const struct axis *axis, int kernel, int *ret_first) {
    int first = 0, last = kernel - 1;
    *ret_first = 0;
    if (kernel > TAPS_MOST)
        return kernel;
    while (first < last && !tap_reads(axis, first))
        first++;
    while (last > first && !tap_reads(axis, last))
        last--;
    *ret_first = first;
    return last - first + 1;
}

/* The convolution without the rows and columns of taps that read padding only: of windows whose
 * dilation is as large as the picture, as those of a DeepLab's head, the middle is left. Depthwise
 * layers keep them: what computes these is fast for few windows. */
struct crop {
    struct kn_conv conv;
    int first_row, first_column; /* of the taps */
};

static struct crop crop_of(const struct kn_conv *c) {
    const struct axis rows = {c->ih, c->oh, c->stride_h, c->dil_h, c->pad_top};
    const struct axis columns = {c->iw, c->ow, c->stride_w, c->dil_w, c->pad_left};
    struct crop crop = {.conv = *c};
    if (c->group > 1 && c->group == c->ic)
        return crop;
    crop.conv.kh = taps_that_read(&rows, c->kh, &crop.first_row);
    crop.conv.kw = taps_that_read(&columns, c->kw, &crop.first_column);
    crop.conv.pad_top -= crop.first_row * c->dil_h;
    crop.conv.pad_left -= crop.first_column * c->dil_w;
    crop.conv.dil_h = crop.conv.kh > 1 ? c->dil_h : 1;
    crop.conv.dil_w = crop.conv.kw > 1 ? c->dil_w : 1;
    return crop;
}

/* Whether weights that are known at load lose taps. */
static bool is_cropped(const struct conv_plan *plan) {
    struct crop crop = crop_of(&plan->conv);
    return !plan->is_volume && (crop.conv.kh < plan->conv.kh || crop.conv.kw < plan->conv.kw);
}

/* Chooses how a convolution is computed; all of ret but packed is set. constant: its weights are
 * known at load. */
static int choose(const struct conv_plan *plan, bool constant, int threads,
                  struct kn_activation act, bool residual, struct conv_state *ret) {
    struct kn_conv conv = constant && !plan->is_volume ? crop_of(&plan->conv).conv : plan->conv;
    struct kn_conv3 volume = plan->volume;
    conv.act = volume.plane.act = act;
    conv.residual = volume.plane.residual = residual;
    int rc = plan->is_volume ? kn_conv3_plan(&volume, threads, &ret->volume)
                             : kn_conv_plan(&conv, threads, &ret->plan);
    if (rc == 0 && plan->is_volume)
        ret->plan = ret->volume.plane;
    if (rc < 0)
        return rc;
    ret->packed_room =
        ROUND_UP(plan->is_volume ? ret->volume.packed_bytes : ret->plan.packed_bytes);
    ret->scratch_room = plan->is_volume ? ROUND_UP(ret->volume.scratch_bytes) : 0;
    return 0;
}

static int conv_plan(struct op_call *call, void *ret) {
    struct conv_plan *plan = ret;
    struct window w;
    int64_t group, oc;
    int rc = check_weights(call, 1, &group, &oc);
    if (rc == 0)
        rc = window_read(call, op_in(call, 1)->dims + 2, &w);
    if (rc == 0)
        rc = window_slide(call, false, &w);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    if (x->dims[0] < 1)
        return op_fail(call, -EBADMSG, "the batch is empty");
    plan->conv = window_conv(&w, x, (int)oc, (int)group);
    set_volume(&w, plan);
    rc = window_set(call, &w, DTYPE_FLOAT, x->dims[0], oc);
    struct conv_state probe;
    if (rc == 0 && choose(plan, false, 1, (struct kn_activation){0}, false, &probe) < 0)
        return op_fail(call, -ENOTSUP, "the convolution is too large");
    return rc;
}

static uint64_t conv_macs(const struct node *node, const void *data) {
    const struct conv_plan *plan = data;
    const struct kn_conv *c = &plan->conv;
    (void)node;
    return (uint64_t)c->n * (uint64_t)c->oc * (uint64_t)(c->ic / c->group) * (uint64_t)c->kh *
           (uint64_t)c->kw * (uint64_t)c->oh * (uint64_t)c->ow * (uint64_t)plan->volume.kd *
           (uint64_t)plan->volume.od;
}

static size_t taps_of(const struct conv_plan *plan) {
    return (size_t)plan->volume.kd * (size_t)plan->conv.kh * (size_t)plan->conv.kw;
}

static bool known(const struct node *node, size_t i) {
    return i >= node->inputs_count || !node->inputs[i] || node->inputs[i]->constant;
}

static int conv_size(struct op_prep *prep) {
    const struct conv_plan *plan = prep->plan;
    struct conv_state state;
    bool constant = known(prep->node, 1) && known(prep->node, 2);
    int rc = choose(plan, constant, prep->threads, prep->act, prep->residual, &state);
    if (rc < 0)
        return rc;
    prep->bytes = STATE_BYTES;
    prep->workspace_bytes =
        ROUND_UP(plan->is_volume ? state.volume.workspace_bytes : state.plan.workspace_bytes);
    if (constant) {
        prep->bytes += state.packed_room;
        prep->absorbed = 1U << 1 | 1U << 2;
    } else {
        prep->workspace_bytes += state.packed_room + state.scratch_room;
    }
    return 0;
}

/* oc biases with scale and shift folded in, zeros where there are none. */
static void fold_bias(const struct op_prep *prep, size_t oc, float *ret) {
    memset(ret, 0, oc * sizeof(float));
    if (prep->node->inputs_count > 2 && prep->numbers[2])
        memcpy(ret, prep->numbers[2]->data, oc * sizeof(float));
    for (size_t c = 0; prep->affine && c < oc; c++)
        ret[c] = (float)((double)ret[c] * prep->scale[c] + prep->shift[c]);
}

static void pack_weights(const struct conv_plan *plan, const struct conv_state *state,
                         const struct kn_conv_weights *weights, void *packed, void *scratch) {
    if (plan->is_volume)
        kn_conv3_pack(&state->volume, weights, packed, scratch);
    else
        kn_conv_pack(&state->plan, weights, packed);
}

/* Copies what is left of windows that lie at `from`, at any address. */
static void copy_cropped(const struct conv_plan *plan, const char *from, size_t windows,
                         float *to) {
    struct crop crop = crop_of(&plan->conv);
    size_t row = (size_t)plan->conv.kw * sizeof(float), window = (size_t)plan->conv.kh * row;
    size_t kept = (size_t)crop.conv.kw * sizeof(float);
    size_t skipped = (size_t)crop.first_row * row + (size_t)crop.first_column * sizeof(float);
    for (size_t i = 0; i < windows; i++)
        for (int y = 0; y < crop.conv.kh; y++, to += crop.conv.kw)
            memcpy(to, from + i * window + (size_t)y * row + skipped, kept);
}

/* Piece by piece, but where there are groups; a piece's pages of the file are given back before the
 * next one's are read. */
static int pack_pieces(const struct op_prep *prep, const struct kn_conv_weights *all,
                       void *packed) {
    const struct constant *numbers = prep->numbers[1];
    const struct conv_state *state = prep->data;
    const struct conv_plan *plan = prep->plan;
    size_t oc = (size_t)all->rows, row = numbers->bytes / oc;
    size_t step = (PIECE_BYTES / (row + 1) / KN_CONV_PIECE + 1) * KN_CONV_PIECE;
    float *kept = NULL; /* of a piece, where taps are left out */
    if (plan->conv.group > 1 || step > oc)
        step = oc;
    if (is_cropped(plan) && !(kept = malloc(step * row)))
        return -ENOMEM;
    for (size_t first = 0, rows; first < oc; first += rows) {
        rows = oc - first < step ? oc - first : step;
        const char *w = (const char *)all->w + first * row;
        if (kept)
            copy_cropped(plan, w, rows * (size_t)(plan->conv.ic / plan->conv.group), kept);
        const struct kn_conv_weights piece = {.w = kept ? kept : (const float *)(const void *)w,
                                              .bias = all->bias + first,
                                              .scale = all->scale ? all->scale + first : NULL,
                                              .first = (int)first,
                                              .rows = (int)rows};
        kn_conv_pack(&state->plan, &piece, packed);
        graph_drop_range(prep->graph, numbers, first * row, (first + rows) * row);
    }
    free(kept);
    return 0;
}

static int conv_pack(struct op_prep *prep) {
    const struct conv_plan *plan = prep->plan;
    struct conv_state *state = prep->data;
    size_t oc = (size_t)plan->conv.oc;
    bool constant = known(prep->node, 1) && known(prep->node, 2);
    int rc = choose(plan, constant, prep->threads, prep->act, prep->residual, state);
    if (rc < 0)
        return rc;
    state->packed = constant;
    if (!state->packed)
        return 0;
    float *bias = malloc(oc * sizeof(float));
    void *scratch = malloc(state->scratch_room + 1), *packed = (char *)prep->data + STATE_BYTES;
    if (bias && scratch) {
        fold_bias(prep, oc, bias);
        const struct kn_conv_weights weights = {.w = prep->numbers[1]->data,
                                                .bias = bias,
                                                .scale = prep->affine ? prep->scale : NULL,
                                                .rows = plan->conv.oc};
        if (plan->is_volume)
            pack_weights(plan, state, &weights, packed, scratch);
        else
            rc = pack_pieces(prep, &weights, packed);
    } else {
        rc = -ENOMEM;
    }
    free(scratch);
    free(bias);
    return rc;
}

static int conv_run(const struct op_args *args) {
    const struct conv_state *state = args->packed;
    const struct conv_plan *now = args->plan;
    const void *packed = (const char *)args->packed + STATE_BYTES;
    char *workspace = args->workspace;
    const float *residual = args->residual ? args->residual->data : NULL;
    if (!state->packed) {
        const struct kn_conv_weights weights = {
            .w = args->in[1]->data,
            .bias = args->in_count > 2 && args->in[2] ? args->in[2]->data : NULL,
            .rows = now->conv.oc};
        pack_weights(now, state, &weights, workspace, workspace + state->packed_room);
        packed = workspace;
        workspace += state->packed_room + state->scratch_room;
    }
    if (now->is_volume) {
        struct kn_conv3_plan volume = state->volume;
        volume.conv.plane.n = now->conv.n; /* of this frame, where that depends on data */
        kn_conv3_run(&volume, packed, args->in[0]->data, residual, args->out[0]->data, workspace,
                     args->threads);
    } else {
        struct kn_conv_plan plan = state->plan;
        plan.conv.n = now->conv.n;
        kn_conv_run(&plan, packed, args->in[0]->data, residual, args->out[0]->data, workspace,
                    args->threads);
    }
    return 0;
}

bool conv_absorb_pad(void *data, const struct pad_plan *pad) {
    struct conv_plan *plan = data;
    struct kn_conv wider = plan->conv;
    struct kn_conv_plan probe;
    int rank = pad->shape.rank, w = rank - 1, h = rank - 2;
    if (plan->is_volume)
        return false;
    if (rank == 4) {
        wider.ih = (int)pad->shape.dims[h];
        if (__builtin_add_overflow(wider.pad_top, (int)pad->begin[h], &wider.pad_top))
            return false;
    }
    wider.iw = (int)pad->shape.dims[w];
    if (__builtin_add_overflow(wider.pad_left, (int)pad->begin[w], &wider.pad_left) ||
        wider.ih < 1 || wider.iw < 1 || kn_conv_plan(&wider, 1, &probe) < 0)
        return false;
    plan->conv = wider;
    return true;
}

static const char *conv_algorithm(const void *packed) {
    const struct conv_state *state = packed;
    return kn_conv_algo_name(&state->plan);
}

const struct op_kind kind_conv = {
    .plan_size = sizeof(struct conv_plan),
    .plan = conv_plan,
    .macs = conv_macs,
    .size = conv_size,
    .pack = conv_pack,
    .run = conv_run,
    .algorithm = conv_algorithm,
    .flags = OP_ACT | OP_AFFINE | OP_RESIDUAL | OP_ROWS,
};

/* ---- ConvTranspose: weights [ic][oc/group][kh][kw] ---- */

static int transpose_plan(struct op_call *call, void *ret) {
    struct conv_plan *plan = ret;
    struct window w;
    int64_t group, oc;
    int rc = check_weights(call, 0, &group, &oc);
    if (rc == 0)
        rc = window_read(call, op_in(call, 1)->dims + 2, &w);
    if (rc == 0)
        rc = window_transpose(call, &w);
    if (rc < 0)
        return rc;
    const struct tensor_desc *x = op_in(call, 0);
    if (x->dims[0] < 1)
        return op_fail(call, -EBADMSG, "the batch is empty");
    plan->conv = window_conv(&w, x, (int)oc, (int)group);
    set_volume(&w, plan);
    rc = window_set(call, &w, DTYPE_FLOAT, x->dims[0], oc);
    size_t volume;
    if (rc == 0 && plan->is_volume && kn_conv3_transpose_workspace(&plan->volume, &volume) < 0)
        return op_fail(call, -ENOTSUP, "the convolution is too large");
    size_t columns = (size_t)oc,
           factors[] = {(size_t)w.kernel[WINDOW_H], (size_t)w.kernel[WINDOW_W],
                        (size_t)w.in[WINDOW_H], (size_t)w.in[WINDOW_W], sizeof(float)};
    for (size_t i = 0; rc == 0 && i < sizeof(factors) / sizeof(factors[0]); i++)
        if (__builtin_mul_overflow(columns, factors[i], &columns) ||
            columns > 4 * OP_TENSOR_BYTES_MAX)
            return op_fail(call, -ENOTSUP, "the convolution is too large");
    return rc;
}

static uint64_t transpose_macs(const struct node *node, const void *data) {
    const struct conv_plan *plan = data;
    const struct kn_conv *c = &plan->conv;
    (void)node;
    return (uint64_t)c->n * (uint64_t)c->ic * (uint64_t)(c->oc / c->group) * (uint64_t)c->kh *
           (uint64_t)c->kw * (uint64_t)c->ih * (uint64_t)c->iw * (uint64_t)plan->volume.kd *
           (uint64_t)plan->volume.id;
}

/* What pack() writes: weights, then the bias, when both are known at load. */
static int transpose_size(struct op_prep *prep) {
    const struct conv_plan *plan = prep->plan;
    size_t bytes = kn_conv_transpose_workspace(&plan->conv);
    int rc = plan->is_volume ? kn_conv3_transpose_workspace(&plan->volume, &bytes) : 0;
    if (rc < 0)
        return rc;
    prep->workspace_bytes = ROUND_UP(bytes);
    if (!known(prep->node, 1) || !known(prep->node, 2))
        return 0;
    prep->bytes = (op_count(&prep->node->inputs[1]->desc) + (size_t)plan->conv.oc) * sizeof(float);
    prep->absorbed = 1U << 1 | 1U << 2;
    return 0;
}

static int transpose_pack(struct op_prep *prep) {
    const struct conv_plan *plan = prep->plan;
    const struct kn_conv *c = &plan->conv;
    size_t total = op_count(&prep->numbers[1]->desc), oc = (size_t)c->oc;
    float *data = prep->data;
    memcpy(data, prep->numbers[1]->data, total * sizeof(float));
    fold_bias(prep, oc, data + total);
    /* Runs of one output channel: the taps of one input channel. */
    size_t run = taps_of(plan), in_group = oc / (size_t)c->group;
    size_t group_runs = total / run / (size_t)c->group;
    for (size_t i = 0; prep->affine && i < total / run; i++) {
        double scale = prep->scale[i % in_group + i / group_runs * in_group];
        for (size_t j = i * run; j < (i + 1) * run; j++)
            data[j] = (float)((double)data[j] * scale);
    }
    return 0;
}

static int transpose_run(const struct op_args *args) {
    const struct conv_plan *plan = args->plan;
    const float *w = args->packed, *bias = NULL;
    if (w) {
        bias = w + op_count(&args->in[1]->desc);
    } else {
        w = args->in[1]->data;
        bias = args->in_count > 2 && args->in[2] ? args->in[2]->data : NULL;
    }
    if (plan->is_volume)
        kn_conv3_transpose(&plan->volume, w, bias, args->in[0]->data, args->out[0]->data,
                           args->workspace, args->threads);
    else
        kn_conv_transpose(&plan->conv, w, bias, args->in[0]->data, args->out[0]->data,
                          args->workspace, args->threads);
    op_activate(args);
    return 0;
}

const struct op_kind kind_conv_transpose = {
    .plan_size = sizeof(struct conv_plan),
    .plan = transpose_plan,
    .macs = transpose_macs,
    .size = transpose_size,
    .pack = transpose_pack,
    .run = transpose_run,
    .flags = OP_ACT | OP_AFFINE | OP_ROWS,
};
