#include "model/memplan.h"

#include "base/tensor.h"

#include <errno.h>
#include <stdlib.h>

/* Largest first; of equal ones the earlier. */
static int compare_buffers(const void *a, const void *b) {
    const struct memplan_buffer *x = *(struct memplan_buffer *const *)a;
    const struct memplan_buffer *y = *(struct memplan_buffer *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Where the buffer goes among those that are placed already, in order of their offsets. */
static size_t find_gap(struct memplan_buffer *const *placed, size_t count,
                       const struct memplan_buffer *buffer) {
    size_t end = 0, best = SIZE_MAX, best_gap = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        const struct memplan_buffer *p = placed[i];
        if (p->to < buffer->from || p->from > buffer->to)
            continue;
        size_t gap = p->offset > end ? p->offset - end : 0;
        if (gap >= buffer->bytes && gap < best_gap) {
            best = end;
            best_gap = gap;
        }
        if (p->offset + p->bytes > end)
            end = p->offset + p->bytes;
    }
    return best == SIZE_MAX ? end : best;
}

int memplan_place(struct memplan_buffer *buffers, size_t count, size_t *ret_bytes) {
    struct memplan_buffer **order = calloc(2 * count + 1, sizeof(struct memplan_buffer *));
    if (!order)
        return -ENOMEM;
    struct memplan_buffer **placed = order + count;
    size_t total = 0, sum = 0;
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        order[i] = &buffers[i];
        if (buffers[i].bytes > SIZE_MAX - TENSOR_ALIGN)
            rc = -EOVERFLOW;
        buffers[i].bytes = (buffers[i].bytes + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
        if (__builtin_add_overflow(sum, buffers[i].bytes, &sum))
            rc = -EOVERFLOW;
    }
    qsort(order, count, sizeof(struct memplan_buffer *), compare_buffers);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct memplan_buffer *buffer = order[i];
        buffer->offset = find_gap(placed, i, buffer);
        if (buffer->offset + buffer->bytes > total)
            total = buffer->offset + buffer->bytes;
        size_t at = i;
        for (; at > 0 && placed[at - 1]->offset > buffer->offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = buffer;
    }
    free(order);
    if (rc == 0)
        *ret_bytes = total;
    return rc;
}
