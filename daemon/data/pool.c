#include "daemon/data/pool.h"

#include "base/tensor.h"

#include <assert.h>
#include <stdlib.h>

#define CLASSES 85 /* the last one holds 1 GiB */

struct idle {
    struct buffer *first;
    size_t count;
    size_t least; /* smallest count since the last trim: so many nobody has needed */
};

struct pool {
    struct idle idle[CLASSES];
    struct pool_stats stats;
};

/* 512, 640, 768, 896, 1024, 1280, ...: at most a quarter is wasted. */
static size_t class_bytes(unsigned class) {
    return (size_t)(4 + class % 4) << (7 + class / 4);
}

struct pool *pool_new(void) {
    return calloc(1, sizeof(struct pool));
}

static void free_idle(struct pool *pool, struct idle *idle, size_t count) {
    for (; count > 0; count--) {
        struct buffer *buffer = idle->first;
        idle->first = buffer->next;
        idle->count--;
        pool->stats.bytes -= buffer->capacity;
        pool->stats.idle_bytes -= buffer->capacity;
        tensor_buffer_free(buffer->data);
        free(buffer);
    }
}

void pool_free(struct pool *pool) {
    if (!pool)
        return;
    assert(pool->stats.in_use == 0);
    for (unsigned i = 0; i < CLASSES; i++)
        free_idle(pool, &pool->idle[i], pool->idle[i].count);
    free(pool);
}

static struct buffer *buffer_new(struct pool *pool, unsigned class) {
    struct buffer *buffer = calloc(1, sizeof(*buffer));
    if (!buffer)
        return NULL;
    buffer->capacity = class_bytes(class);
    buffer->class = class;
    buffer->pool = pool;
    buffer->data = tensor_buffer_new(buffer->capacity);
    if (!buffer->data) {
        free(buffer);
        return NULL;
    }
    pool->stats.allocations++;
    pool->stats.bytes += buffer->capacity;
    return buffer;
}

struct buffer *pool_get(struct pool *pool, size_t bytes) {
    unsigned class = 0;
    while (class < CLASSES && class_bytes(class) < bytes)
        class ++;
    if (class == CLASSES)
        return NULL;
    struct idle *idle = &pool->idle[class];
    struct buffer *buffer = idle->first;
    if (buffer) {
        idle->first = buffer->next;
        idle->count--;
        if (idle->count < idle->least)
            idle->least = idle->count;
        pool->stats.idle_bytes -= buffer->capacity;
    } else {
        buffer = buffer_new(pool, class);
        if (!buffer)
            return NULL;
    }
    buffer->next = NULL;
    buffer->refs = 1;
    pool->stats.in_use++;
    return buffer;
}

struct buffer *buffer_ref(struct buffer *buffer) {
    buffer->refs++;
    return buffer;
}

void buffer_unref(struct buffer *buffer) {
    if (!buffer)
        return;
    assert(buffer->refs > 0);
    if (--buffer->refs > 0)
        return;
    struct pool *pool = buffer->pool;
    struct idle *idle = &pool->idle[buffer->class];
    buffer->next = idle->first;
    idle->first = buffer;
    idle->count++;
    pool->stats.idle_bytes += buffer->capacity;
    pool->stats.in_use--;
}

void pool_trim(struct pool *pool) {
    for (unsigned i = 0; i < CLASSES; i++) {
        struct idle *idle = &pool->idle[i];
        free_idle(pool, idle, idle->least);
        idle->least = idle->count;
    }
}

void pool_get_stats(const struct pool *pool, struct pool_stats *ret_stats) {
    *ret_stats = pool->stats;
}
