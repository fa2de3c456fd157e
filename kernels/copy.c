#include <string.h>

#include "internal.h"

#define COPY_STRIDED(type)                                                                         \
    for (ptrdiff_t i = 0; i < count; i++)                                                          \
        memcpy((char *)y + i * sy * (ptrdiff_t)sizeof(type),                                       \
               (const char *)x + i * sx * (ptrdiff_t)sizeof(type), sizeof(type));                  \
    break

/* One row of elements whose strides are not both 1. */
static void copy_strided(size_t elem_size, const void *x, ptrdiff_t sx, void *y, ptrdiff_t sy,
                         ptrdiff_t count) {
    ptrdiff_t size = (ptrdiff_t)elem_size;

    switch (elem_size) {
    case 1:
        COPY_STRIDED(uint8_t);
    case 2:
        COPY_STRIDED(uint16_t);
    case 4:
        COPY_STRIDED(uint32_t);
    case 8:
        COPY_STRIDED(uint64_t);
    default:
        for (ptrdiff_t i = 0; i < count; i++)
            memcpy((char *)y + i * sy * size, (const char *)x + i * sx * size, elem_size);
    }
}

/* Two dimensions of a walk, as one operand sees them. */
struct plane {
    ptrdiff_t rows, cols;
    ptrdiff_t x_row, x_col, y_row, y_col; /* strides */
};

#define TILE 16 /* elements on a side: both operands' lines stay in the first cache */

/* A transpose: x is dense along rows, y along cols, so neither order alone is good. */
static void copy_tiles(size_t elem_size, const struct plane *p, const char *x, char *y) {
    ptrdiff_t size = (ptrdiff_t)elem_size;

    for (ptrdiff_t r = 0; r < p->rows; r += TILE)
        for (ptrdiff_t c = 0; c < p->cols; c += TILE)
            for (ptrdiff_t i = r; i < kn_min(r + TILE, p->rows); i++)
                copy_strided(elem_size, x + (i * p->x_row + c * p->x_col) * size, p->x_col,
                             y + (i * p->y_row + c * p->y_col) * size, p->y_col,
                             kn_min(TILE, p->cols - c));
}

/* The two last dimensions are a transpose. */
static bool is_transpose(const struct kn_walk *walk) {
    int last = walk->rank - 1;

    return walk->rank >= 2 && walk->strides[0][last - 1] == 1 && walk->strides[0][last] != 1 &&
           walk->strides[1][last] == 1 && walk->dims[last - 1] >= TILE && walk->dims[last] >= TILE;
}

static void copy_transposes(size_t elem_size, struct kn_walk *walk, const char *x, char *y) {
    int last = walk->rank - 1;
    struct plane plane = {.rows = walk->dims[last - 1],
                          .cols = walk->dims[last],
                          .x_row = walk->strides[0][last - 1],
                          .x_col = walk->strides[0][last],
                          .y_row = walk->strides[1][last - 1],
                          .y_col = walk->strides[1][last]};
    struct kn_walk_pos pos;

    walk->rank--; /* what is left of it: one step per plane, as the last dimension is not walked */
    ptrdiff_t planes = kn_walk_rows(walk);
    kn_walk_start(walk, 0, &pos);
    for (ptrdiff_t i = 0; i < planes; i++, kn_walk_next(walk, &pos))
        copy_tiles(elem_size, &plane, x + pos.offsets[0] * (ptrdiff_t)elem_size,
                   y + pos.offsets[1] * (ptrdiff_t)elem_size);
}

void kn_copy(size_t elem_size, const struct kn_shape *shape, const int64_t *x_strides,
             const void *x, const int64_t *y_strides, void *y) {
    const int64_t *strides[] = {x_strides, y_strides};
    struct kn_walk walk;
    struct kn_walk_pos pos;

    kn_walk_init(&walk, shape, 2, strides);
    if (is_transpose(&walk)) {
        copy_transposes(elem_size, &walk, x, y);
        return;
    }

    int last = walk.rank - 1;
    ptrdiff_t rows = kn_walk_rows(&walk), count = walk.dims[last], size = (ptrdiff_t)elem_size;
    ptrdiff_t sx = walk.strides[0][last], sy = walk.strides[1][last];
    kn_walk_start(&walk, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(&walk, &pos)) {
        const char *from = (const char *)x + pos.offsets[0] * size;
        char *to = (char *)y + pos.offsets[1] * size;
        if (sx == 1 && sy == 1)
            memcpy(to, from, (size_t)count * elem_size);
        else
            copy_strided(elem_size, from, sx, to, sy, count);
    }
}

void kn_gather(size_t elem_size, size_t outer, size_t axis, size_t inner, const int64_t *indices,
               size_t count, const void *x, void *y) {
    size_t bytes = inner * elem_size;
    char *to = y;

    for (size_t o = 0; o < outer && bytes == sizeof(float); o++) /* the usual: one number each */
        for (size_t i = 0; i < count; i++, to += sizeof(float))
            memcpy(to, (const char *)x + (o * axis + (size_t)indices[i]) * sizeof(float),
                   sizeof(float));
    for (size_t o = 0; o < outer && bytes != sizeof(float); o++)
        for (size_t i = 0; i < count; i++, to += bytes)
            memcpy(to, (const char *)x + (o * axis + (size_t)indices[i]) * bytes, bytes);
}

void kn_where(size_t elem_size, const struct kn_shape *shape, const int64_t *c_strides,
              const int64_t *a_strides, const int64_t *b_strides, const bool *cond, const void *a,
              const void *b, void *y) {
    const int64_t *strides[] = {c_strides, a_strides, b_strides, NULL};
    const uint8_t *c = (const uint8_t *)cond;
    struct kn_walk walk;
    struct kn_walk_pos pos;

    kn_walk_init(&walk, shape, 4, strides);

    int last = walk.rank - 1;
    ptrdiff_t rows = kn_walk_rows(&walk), size = (ptrdiff_t)elem_size;
    ptrdiff_t sc = walk.strides[0][last], sa = walk.strides[1][last], sb = walk.strides[2][last];
    kn_walk_start(&walk, 0, &pos);
    for (ptrdiff_t row = 0; row < rows; row++, kn_walk_next(&walk, &pos))
        for (ptrdiff_t i = 0; i < walk.dims[last]; i++) {
            const char *from = c[pos.offsets[0] + i * sc]
                                   ? (const char *)a + (pos.offsets[1] + i * sa) * size
                                   : (const char *)b + (pos.offsets[2] + i * sb) * size;
            memcpy((char *)y + (pos.offsets[3] + i) * size, from, elem_size);
        }
}
