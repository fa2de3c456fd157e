#include <string.h>

#include "internal.h"

struct padding {
    size_t elem_size;
    enum kn_pad_mode mode;
    int rank;
    ptrdiff_t out[KN_MAX_RANK];    /* dimensions of y */
    ptrdiff_t before[KN_MAX_RANK]; /* elements added in front, after cropping */
    ptrdiff_t first[KN_MAX_RANK];  /* of x, after cropping */
    ptrdiff_t in[KN_MAX_RANK];     /* dimensions of x, after cropping */
    ptrdiff_t x_strides[KN_MAX_RANK];
    const void *value;
};

static ptrdiff_t wrap(ptrdiff_t i, ptrdiff_t period) {
    ptrdiff_t r = i % period;

    return r < 0 ? r + period : r;
}

/* The element of the cropped x, of `in` elements, that y shows at i (counted from its first); -1
 * for the constant. */
static ptrdiff_t source(enum kn_pad_mode mode, ptrdiff_t i, ptrdiff_t in) {
    if (i >= 0 && i < in)
        return i;
    if (in <= 0)
        return -1;
    switch (mode) {
    case KN_PAD_EDGE:
        return i < 0 ? 0 : in - 1;
    case KN_PAD_WRAP:
        return wrap(i, in);
    case KN_PAD_REFLECT:
        if (in == 1)
            return 0;
        i = wrap(i, 2 * in - 2);
        return i < in ? i : 2 * in - 2 - i;
    case KN_PAD_CONSTANT:
        break;
    }
    return -1;
}

static char *fill(const struct padding *p, char *y, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++, y += p->elem_size)
        memcpy(y, p->value, p->elem_size);
    return y;
}

static const char *element(const struct padding *p, const char *x, int axis, ptrdiff_t i) {
    return x + (p->first[axis] + i) * p->x_strides[axis] * (ptrdiff_t)p->elem_size;
}

/* The last axis: its middle is one copy. x is NULL where an outer axis is padded with the constant.
 */
static char *pad_row(const struct padding *p, const char *x, char *y) {
    int axis = p->rank - 1;
    ptrdiff_t out = p->out[axis], before = p->before[axis];

    if (!x)
        return fill(p, y, out);
    for (ptrdiff_t o = 0; o < out;) {
        ptrdiff_t i = source(p->mode, o - before, p->in[axis]);
        ptrdiff_t run = i >= 0 && o == before ? kn_min(p->in[axis], out - o) : 1;
        if (i < 0)
            y = fill(p, y, 1);
        else
            y = (char *)memcpy(y, element(p, x, axis, i), (size_t)run * p->elem_size) +
                run * (ptrdiff_t)p->elem_size;
        o += run;
    }
    return y;
}

static char *pad_axis(const struct padding *p, int axis, const char *x, char *y) {
    if (axis == p->rank - 1)
        return pad_row(p, x, y);
    for (ptrdiff_t o = 0; o < p->out[axis]; o++) {
        ptrdiff_t i = x ? source(p->mode, o - p->before[axis], p->in[axis]) : -1;
        y = pad_axis(p, axis + 1, i < 0 ? NULL : element(p, x, axis, i), y);
    }
    return y;
}

void kn_pad(size_t elem_size, enum kn_pad_mode mode, const struct kn_shape *x_shape,
            const int64_t *begin, const int64_t *end, const void *value, const void *x, void *y) {
    struct padding p = {
        .elem_size = elem_size, .mode = mode, .rank = x_shape->rank, .value = value};
    ptrdiff_t stride = 1;

    for (int i = x_shape->rank; i-- > 0;) {
        ptrdiff_t dim = (ptrdiff_t)x_shape->dims[i];
        p.x_strides[i] = stride;
        stride *= dim;
        p.out[i] = dim + (ptrdiff_t)(begin[i] + end[i]);
        p.before[i] = kn_max((ptrdiff_t)begin[i], 0);
        p.first[i] = kn_max(-(ptrdiff_t)begin[i], 0);
        p.in[i] = dim - p.first[i] + kn_min((ptrdiff_t)end[i], 0);
    }
    if (p.rank == 0)
        memcpy(y, x, elem_size);
    else
        pad_axis(&p, 0, x, y);
}
