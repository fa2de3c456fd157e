#include "internal.h"

/* Strides of a dense array of that shape, the last dimension fastest. */
static void dense_strides(const struct kn_shape *shape, ptrdiff_t *ret_strides) {
    ptrdiff_t stride = 1;

    for (int i = shape->rank; i-- > 0;) {
        ret_strides[i] = stride;
        stride *= (ptrdiff_t)shape->dims[i];
    }
}

/* Whether dimension `inner` follows on from dimension `outer` for every operand. */
static bool joins(const struct kn_walk *walk, int outer, int inner) {
    for (int i = 0; i < walk->operands; i++)
        if (walk->strides[i][outer] != walk->strides[i][inner] * walk->dims[inner])
            return false;
    return true;
}

static void copy_dim(struct kn_walk *walk, int to, int from) {
    walk->dims[to] = walk->dims[from];
    for (int i = 0; i < walk->operands; i++)
        walk->strides[i][to] = walk->strides[i][from];
}

/* Joins neighbours in place; dimensions of one element are gone already. */
static void join_dims(struct kn_walk *walk) {
    int last = 0;

    for (int i = 1; i < walk->rank; i++) {
        if (!joins(walk, last, i)) {
            copy_dim(walk, ++last, i);
            continue;
        }
        ptrdiff_t dim = walk->dims[last] * walk->dims[i];
        copy_dim(walk, last, i);
        walk->dims[last] = dim;
    }
    walk->rank = last + 1;
}

static void walk_single(struct kn_walk *walk, ptrdiff_t count) {
    walk->rank = 1;
    walk->dims[0] = count;
    for (int i = 0; i < walk->operands; i++)
        walk->strides[i][0] = 1;
}

void kn_walk_init(struct kn_walk *walk, const struct kn_shape *shape, int operands,
                  const int64_t *const *strides) {
    ptrdiff_t dense[KN_MAX_RANK];

    dense_strides(shape, dense);
    walk->operands = operands;
    walk->rank = 0;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dims[i] == 0) {
            walk_single(walk, 0);
            return;
        }
        if (shape->dims[i] == 1)
            continue;
        walk->dims[walk->rank] = (ptrdiff_t)shape->dims[i];
        for (int j = 0; j < operands; j++)
            walk->strides[j][walk->rank] = strides[j] ? (ptrdiff_t)strides[j][i] : dense[i];
        walk->rank++;
    }
    if (walk->rank == 0)
        walk_single(walk, 1);
    else
        join_dims(walk);
}

ptrdiff_t kn_walk_rows(const struct kn_walk *walk) {
    ptrdiff_t rows = 1;

    for (int i = 0; i + 1 < walk->rank; i++)
        rows *= walk->dims[i];
    return walk->dims[walk->rank - 1] == 0 ? 0 : rows;
}

void kn_walk_start(const struct kn_walk *walk, ptrdiff_t row, struct kn_walk_pos *ret_pos) {
    for (int j = 0; j < walk->operands; j++)
        ret_pos->offsets[j] = 0;
    for (int i = walk->rank - 1; i-- > 0;) {
        ptrdiff_t index = row % walk->dims[i];
        row /= walk->dims[i];
        ret_pos->index[i] = index;
        for (int j = 0; j < walk->operands; j++)
            ret_pos->offsets[j] += index * walk->strides[j][i];
    }
}

void kn_walk_next(const struct kn_walk *walk, struct kn_walk_pos *pos) {
    for (int i = walk->rank - 1; i-- > 0;) {
        pos->index[i]++;
        for (int j = 0; j < walk->operands; j++)
            pos->offsets[j] += walk->strides[j][i];
        if (pos->index[i] < walk->dims[i])
            return;
        for (int j = 0; j < walk->operands; j++)
            pos->offsets[j] -= walk->dims[i] * walk->strides[j][i];
        pos->index[i] = 0;
    }
}
