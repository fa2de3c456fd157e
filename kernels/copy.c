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

void kn_copy(size_t elem_size, const struct kn_shape *shape, const int64_t *x_strides,
             const void *x, const int64_t *y_strides, void *y) {
    const int64_t *strides[] = {x_strides, y_strides};
    struct kn_walk walk;
    struct kn_walk_pos pos;

    kn_walk_init(&walk, shape, 2, strides);

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

    for (size_t o = 0; o < outer; o++)
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
