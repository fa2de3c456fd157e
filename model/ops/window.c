#include "model/ops/window.h"

#include <errno.h>
#include <string.h>

/* Reads a list with one number per spatial axis into the last ones of ret. */
static int read_list(const struct op_call *call, const char *name, int spatial, int64_t min,
                     int ret[WINDOW_AXES]) {
    size_t count;
    const int64_t *list = node_ints(call->node, name, &count);
    if (!list)
        return 0;
    if (count != (size_t)spatial)
        return op_fail(call, -EBADMSG, "%s has %zu numbers instead of %d", name, count, spatial);
    for (int i = 0; i < spatial; i++) {
        if (list[i] < min || list[i] > OP_DIM_MAX)
            return op_fail(call, -EBADMSG, "%s cannot be %lld", name, (long long)list[i]);
        ret[WINDOW_AXES - spatial + i] = (int)list[i];
    }
    return 0;
}

static int read_pads(const struct op_call *call, struct window *w) {
    size_t count;
    const int64_t *pads = node_ints(call->node, "pads", &count);
    if (!pads)
        return 0;
    if (count != 2 * (size_t)w->spatial)
        return op_fail(call, -EBADMSG, "pads has %zu numbers instead of %d", count, 2 * w->spatial);
    for (int i = 0; i < w->spatial; i++) {
        int64_t begin = pads[i], end = pads[w->spatial + i];
        if (begin < 0 || begin > OP_DIM_MAX || end < 0 || end > OP_DIM_MAX)
            return op_fail(call, -EBADMSG, "pads cannot be %lld and %lld", (long long)begin,
                           (long long)end);
        w->begin[WINDOW_AXES - w->spatial + i] = (int)begin;
        w->end[WINDOW_AXES - w->spatial + i] = (int)end;
    }
    return 0;
}

/* Rows that the kernel covers. */
static int64_t covered(const struct window *w, int axis) {
    return ((int64_t)w->kernel[axis] - 1) * w->dilation[axis] + 1;
}

int window_read(const struct op_call *call, const int64_t *kernel, struct window *ret) {
    const struct tensor_desc *x = op_in(call, 0);
    struct window w = {.spatial = x->rank - 2,
                       .in = {1, 1, 1},
                       .kernel = {1, 1, 1},
                       .stride = {1, 1, 1},
                       .dilation = {1, 1, 1},
                       .out = {1, 1, 1}};
    if (w.spatial < 1 || w.spatial > WINDOW_AXES)
        return op_fail(call, -ENOTSUP,
                       "input has %d dimensions; 3 to 5 are supported ([n,c,w] to [n,c,d,h,w])",
                       x->rank);
    size_t given;
    if (!node_ints(call->node, "kernel_shape", &given) && !kernel)
        return op_fail(call, -EBADMSG, "kernel_shape is missing");
    int rc = read_list(call, "kernel_shape", w.spatial, 1, w.kernel);
    for (int i = 0; rc == 0 && i < w.spatial; i++) {
        int axis = WINDOW_AXES - w.spatial + i;
        w.in[axis] = (int)x->dims[2 + i];
        if (!kernel)
            continue;
        if (kernel[i] < 1 || (given && w.kernel[axis] != kernel[i]))
            return op_fail(call, -EBADMSG, "kernel_shape and the weights' shape contradict");
        w.kernel[axis] = (int)kernel[i];
    }
    if (rc == 0)
        rc = read_list(call, "strides", w.spatial, 1, w.stride);
    if (rc == 0)
        rc = read_list(call, "dilations", w.spatial, 1, w.dilation);
    if (rc == 0)
        rc = read_pads(call, &w);
    for (int axis = 0; rc == 0 && axis < WINDOW_AXES; axis++)
        if (covered(&w, axis) > OP_DIM_MAX)
            return op_fail(call, -EBADMSG, "dilated kernel is too large");
    if (rc == 0)
        *ret = w;
    return rc;
}

/* Puts a total of padding where auto_pad wants it. */
static void place_pads(struct window *w, int axis, int64_t total, bool upper) {
    int half = (int)(total / 2), rest = (int)(total - total / 2);
    w->begin[axis] = upper ? half : rest;
    w->end[axis] = upper ? rest : half;
}

/* 'N'OTSET, 'V'ALID, SAME_'U'PPER, SAME_'L'OWER. */
static int auto_pad(const struct op_call *call, char *ret) {
    const char *mode = node_string(call->node, "auto_pad", "NOTSET");
    if (strcmp(mode, "NOTSET") == 0 || strcmp(mode, "") == 0)
        *ret = 'N';
    else if (strcmp(mode, "VALID") == 0)
        *ret = 'V';
    else if (strcmp(mode, "SAME_UPPER") == 0)
        *ret = 'U';
    else if (strcmp(mode, "SAME_LOWER") == 0)
        *ret = 'L';
    else
        return op_fail(call, -EBADMSG, "auto_pad '%.40s' is not known", mode);
    return 0;
}

int window_slide(const struct op_call *call, bool ceil_mode, struct window *w) {
    char mode;
    int rc = auto_pad(call, &mode);
    for (int axis = WINDOW_AXES - w->spatial; rc == 0 && axis < WINDOW_AXES; axis++) {
        int64_t in = w->in[axis], stride = w->stride[axis], cover = covered(w, axis);
        if (mode == 'U' || mode == 'L') {
            int64_t out = (in + stride - 1) / stride;
            int64_t total = (out - 1) * stride + cover - in;
            place_pads(w, axis, total > 0 ? total : 0, mode == 'U');
        } else if (mode == 'V') {
            w->begin[axis] = w->end[axis] = 0;
        }
        int64_t room = in + w->begin[axis] + w->end[axis] - cover;
        if (room < 0 || in < 1)
            return op_fail(call, -EBADMSG,
                           "a kernel of %lld does not fit into an input of %lld with its pads",
                           (long long)cover, (long long)in);
        int64_t out = room / stride + 1;
        /* A window more for the rest, unless it would start behind the input. */
        if (ceil_mode && room % stride != 0 && out * stride < in + w->begin[axis])
            out++;
        if (out > OP_DIM_MAX)
            return op_fail(call, -ENOTSUP, "output is too large");
        w->out[axis] = (int)out;
    }
    return rc;
}

int window_transpose(const struct op_call *call, struct window *w) {
    int extra[WINDOW_AXES] = {0}, wanted[WINDOW_AXES] = {0};
    size_t shaped;
    char mode;
    int rc = auto_pad(call, &mode);
    if (rc == 0)
        rc = read_list(call, "output_padding", w->spatial, 0, extra);
    if (rc == 0)
        rc = read_list(call, "output_shape", w->spatial, 1, wanted);
    node_ints(call->node, "output_shape", &shaped);
    for (int axis = WINDOW_AXES - w->spatial; rc == 0 && axis < WINDOW_AXES; axis++) {
        int64_t full =
            ((int64_t)w->in[axis] - 1) * w->stride[axis] + extra[axis] + covered(w, axis);
        int64_t out = full - w->begin[axis] - w->end[axis];
        if (shaped > 0)
            out = wanted[axis];
        else if (mode == 'U' || mode == 'L')
            out = (int64_t)w->in[axis] * w->stride[axis];
        else if (mode == 'V')
            out = full;
        if ((shaped > 0 || mode != 'N') && full - out > OP_DIM_MAX)
            return op_fail(call, -ENOTSUP, "pads of %lld are too large", (long long)(full - out));
        if (shaped > 0 || mode != 'N')
            place_pads(w, axis, full > out ? full - out : 0, mode == 'U');
        if (w->in[axis] < 1 || out < 1 || out > OP_DIM_MAX)
            return op_fail(call, -EBADMSG, "output dimension would be %lld", (long long)out);
        w->out[axis] = (int)out;
    }
    return rc;
}

int window_set(const struct op_call *call, const struct window *w, enum dtype dtype, int64_t n,
               int64_t c) {
    int64_t dims[2 + WINDOW_AXES] = {n, c};
    for (int i = 0; i < w->spatial; i++)
        dims[2 + i] = w->out[WINDOW_AXES - w->spatial + i];
    return op_set(call, 0, dtype, 2 + w->spatial, dims);
}

int window_weights(const struct op_call *call, size_t at, int ic_axis, int64_t *ret_group,
                   int64_t *ret_oc) {
    const struct tensor_desc *x = op_in(call, 0), *w = op_in(call, at);
    if (w->rank != x->rank)
        return op_fail(call, -EBADMSG, "weights have %d dimensions, the input has %d", w->rank,
                       x->rank);
    int64_t group = node_int(call->node, "group", 1);
    if (group < 1 || group > x->dims[1])
        return op_fail(call, -EBADMSG, "group cannot be %lld with %lld input channels",
                       (long long)group, (long long)x->dims[1]);
    int64_t ic = w->dims[ic_axis] * (ic_axis == 1 ? group : 1);
    int64_t oc = w->dims[1 - ic_axis] * (ic_axis == 1 ? 1 : group);
    if (ic != x->dims[1] || x->dims[1] % group != 0 || oc < 1 || oc % group != 0 || oc > OP_DIM_MAX)
        return op_fail(call, -EBADMSG,
                       "weights for %lld input and %lld output channels in %lld groups do not fit "
                       "an input with %lld channels",
                       (long long)ic, (long long)oc, (long long)group, (long long)x->dims[1]);
    *ret_group = group;
    *ret_oc = oc;
    return 0;
}

struct kn_conv window_conv(const struct window *w, const struct tensor_desc *x, int oc, int group) {
    return (struct kn_conv){.n = (int)x->dims[0],
                            .ic = (int)x->dims[1],
                            .ih = w->in[WINDOW_H],
                            .iw = w->in[WINDOW_W],
                            .oc = oc,
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
                            .group = group};
}
