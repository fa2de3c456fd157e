/* Buffers for headers, payloads and activations: reference-counted, 64-byte aligned, kept for the
 * next frame when the last reference goes. Sizes are rounded up to classes (four per doubling), so
 * that a steady stream of frames takes the same buffers again and again and allocates nothing.
 *
 * Bounded: how many buffers are alive is bounded by the credits of their users; how many lie idle
 * is bounded by pool_trim(), which gives back those that nobody has needed since its last call.
 *
 * One thread (the loop). A worker sees a buffer's bytes only, between two queues. */
#ifndef CONVOY_DAEMON_DATA_POOL_H
#define CONVOY_DAEMON_DATA_POOL_H

#include <stddef.h>
#include <stdint.h>

struct pool;

struct buffer {
    void *data;      /* TENSOR_ALIGN aligned; TENSOR_ALIGN readable bytes follow the capacity */
    size_t capacity; /* bytes, at least as many as asked for */
    struct pool *pool;
    struct buffer *next; /* in the pool's list of idle ones */
    unsigned refs;
    unsigned class;
};

struct pool_stats {
    uint64_t allocations; /* buffers made since the start; constant in a steady state */
    size_t bytes;         /* of all buffers there are, idle ones included */
    size_t idle_bytes;
    size_t in_use; /* buffers with a reference */
};

/* NULL when there is no memory. pool_free() demands that every buffer has come back. */
struct pool *pool_new(void);
void pool_free(struct pool *pool);

/* A buffer of at least bytes with one reference for the caller; its contents are undefined. NULL
 * when there is no memory or bytes is beyond 1 GiB. */
struct buffer *pool_get(struct pool *pool, size_t bytes);

struct buffer *buffer_ref(struct buffer *buffer);
void buffer_unref(struct buffer *buffer);

/* Frees the buffers that lay idle during the whole time since the last call. */
void pool_trim(struct pool *pool);

void pool_get_stats(const struct pool *pool, struct pool_stats *ret_stats);

#endif
