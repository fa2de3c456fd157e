/* Where things lie in an arena: buffers that are not needed at the same time share it. */
#ifndef CONVOY_MODEL_MEMPLAN_H
#define CONVOY_MODEL_MEMPLAN_H

#include <stddef.h>
#include <stdint.h>

/* Something that needs bytes from step `from` to step `to`, inclusive. */
struct memplan_buffer {
    size_t bytes;
    uint32_t from, to;
    size_t offset; /* set by memplan_place(): TENSOR_ALIGN aligned */
};

/* Places buffers, the largest first, each into the smallest gap that fits between those alive at
 * the same time. *ret_bytes is the arena's size. -ENOMEM, -EOVERFLOW. */
int memplan_place(struct memplan_buffer *buffers, size_t count, size_t *ret_bytes);

#endif
