#include "model/graph.h"

#include "model/import.h"

#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES (64 * 1024)
#define COPY_CHUNK  ((size_t)1 << 20) /* of a constant, in memory twice at most */

/* Memory handed out piece by piece; pieces too large for that have a block of their own. */
struct block {
    struct block *next;
    alignas(max_align_t) unsigned char data[];
};

struct adopted {
    struct adopted *next;
    void *buffer;
};

struct mapping {
    struct mapping *next;
    unsigned char *data;
    size_t size;
};

struct graph_store {
    struct block *blocks;
    unsigned char *free; /* in the newest shared block */
    size_t free_bytes;
    struct adopted *adopted;
    struct mapping *mappings;
    size_t values_room;
    struct node **uses; /* what values' consumers point into */
};

struct graph *graph_new(void) {
    struct graph *graph = calloc(1, sizeof(*graph));
    struct graph_store *store = calloc(1, sizeof(*store));
    if (!graph || !store) {
        free(graph);
        free(store);
        return NULL;
    }
    graph->store = store;
    return graph;
}

void graph_free(struct graph *graph) {
    if (!graph)
        return;
    struct graph_store *store = graph->store;
    for (struct mapping *mapping = store->mappings; mapping; mapping = mapping->next)
        munmap(mapping->data, mapping->size);
    for (struct adopted *adopted = store->adopted; adopted; adopted = adopted->next)
        tensor_buffer_free(adopted->buffer);
    for (struct block *block = store->blocks; block;) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
    free(store->uses);
    free(store);
    free(graph);
}

/* A zeroed block of its own, linked in. */
static void *new_block(struct graph_store *store, size_t bytes) {
    size_t total;
    if (__builtin_add_overflow(sizeof(struct block), bytes, &total))
        return NULL;
    struct block *block = calloc(1, total);
    if (!block)
        return NULL;
    block->next = store->blocks;
    store->blocks = block;
    return block->data;
}

void *graph_alloc(struct graph *graph, size_t bytes) {
    struct graph_store *store = graph->store;
    if (bytes > BLOCK_BYTES / 4)
        return new_block(store, bytes);
    bytes = bytes == 0 ? 1 : bytes;
    bytes = (bytes + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (bytes > store->free_bytes) {
        unsigned char *data = new_block(store, BLOCK_BYTES);
        if (!data)
            return NULL;
        store->free = data;
        store->free_bytes = BLOCK_BYTES;
    }
    void *piece = store->free;
    store->free += bytes;
    store->free_bytes -= bytes;
    return piece;
}

char *graph_strdup(struct graph *graph, const char *s, size_t len) {
    char *copy = len < SIZE_MAX ? graph_alloc(graph, len + 1) : NULL;
    if (copy && len > 0)
        memcpy(copy, s, len);
    return copy;
}

int graph_adopt(struct graph *graph, void *buffer) {
    struct adopted *adopted = graph_alloc(graph, sizeof(*adopted));
    if (!adopted)
        return -ENOMEM;
    adopted->buffer = buffer;
    adopted->next = graph->store->adopted;
    graph->store->adopted = adopted;
    return 0;
}

int graph_map_file(struct graph *graph, const char *path, const uint8_t **ret_data,
                   size_t *ret_size, struct err *err) {
    struct stat st;
    struct mapping *mapping = graph_alloc(graph, sizeof(*mapping));
    if (!mapping)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us up */
    if (fd < 0)
        return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0) {
        close(fd);
        return err_set(err, -EBADMSG, "%s is not a file, or empty", path);
    }
    size_t size = (uint64_t)st.st_size <= SIZE_MAX ? (size_t)st.st_size : SIZE_MAX;
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    int code = -errno;
    close(fd);
    if (data == MAP_FAILED)
        return err_set(err, code, "cannot map %s: %s", path, strerror(-code));
    mapping->data = data;
    mapping->size = size;
    mapping->next = graph->store->mappings;
    graph->store->mappings = mapping;
    *ret_data = data;
    *ret_size = size;
    return 0;
}

struct value *graph_add_value(struct graph *graph, const char *name, size_t len) {
    struct graph_store *store = graph->store;
    if (graph->values_count >= GRAPH_VALUES_MAX)
        return NULL;
    if (graph->values_count == store->values_room) {
        size_t room = store->values_room ? 2 * store->values_room : 64;
        struct value **values = graph_alloc(graph, room * sizeof(struct value *));
        if (!values)
            return NULL;
        if (graph->values_count > 0)
            memcpy(values, graph->values, graph->values_count * sizeof(struct value *));
        graph->values = values;
        store->values_room = room;
    }
    struct value *value = graph_alloc(graph, sizeof(*value));
    if (!value || !(value->name = graph_strdup(graph, name, len)))
        return NULL;
    value->id = (uint32_t)graph->values_count;
    value->desc.name = value->name;
    value->desc.rank = -1;
    graph->values[graph->values_count++] = value;
    return value;
}

int graph_link(struct graph *graph) {
    size_t uses_count = 0;
    for (size_t i = 0; i < graph->values_count; i++) {
        graph->values[i]->producer = NULL;
        graph->values[i]->consumers = NULL;
        graph->values[i]->consumers_count = 0;
    }
    for (size_t i = 0; i < graph->nodes_count; i++) {
        struct node *node = graph->nodes[i];
        node->index = (uint32_t)i;
        for (size_t j = 0; j < node->outputs_count; j++)
            if (node->outputs[j])
                node->outputs[j]->producer = node;
        for (size_t j = 0; j < node->inputs_count; j++)
            if (node->inputs[j])
                node->inputs[j]->consumers_count++;
        uses_count += node->inputs_count;
    }
    struct node **uses =
        reallocarray(graph->store->uses, uses_count ? uses_count : 1, sizeof(struct node *));
    if (!uses)
        return -ENOMEM;
    graph->store->uses = uses;
    for (size_t i = 0; i < graph->values_count; i++) {
        struct value *value = graph->values[i];
        value->consumers = uses;
        uses += value->consumers_count;
        value->consumers_count = 0;
    }
    for (size_t i = 0; i < graph->nodes_count; i++) {
        struct node *node = graph->nodes[i];
        for (size_t j = 0; j < node->inputs_count; j++) {
            struct value *value = node->inputs[j];
            if (value)
                value->consumers[value->consumers_count++] = node;
        }
    }
    return 0;
}

void graph_drop_range(const struct graph *graph, const struct constant *constant, size_t from,
                      size_t to) {
    const unsigned char *data = constant->data;
    if (!constant->in_file || !data || from >= to)
        return;
    for (const struct mapping *mapping = graph->store->mappings; mapping; mapping = mapping->next) {
        if (data < mapping->data || data >= mapping->data + mapping->size)
            continue;
        /* Whole pages around it: a neighbour's bytes on the same page come back when touched. */
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        size_t first = ((size_t)(data - mapping->data) + from) & ~(page - 1);
        size_t last = (size_t)(data - mapping->data) + to;
        madvise(mapping->data + first, last - first, MADV_DONTNEED);
        return;
    }
}

void graph_drop_pages(const struct graph *graph, const struct constant *constant) {
    graph_drop_range(graph, constant, 0, constant->bytes);
}

void graph_copy_constant(const struct graph *graph, const struct constant *constant, void *to) {
    for (size_t at = 0; at < constant->bytes; at += COPY_CHUNK) {
        size_t left = constant->bytes - at, chunk = left < COPY_CHUNK ? left : COPY_CHUNK;
        memcpy((char *)to + at, (const char *)constant->data + at, chunk);
        graph_drop_range(graph, constant, at, at + chunk);
    }
}

const struct attr *node_attr(const struct node *node, const char *name) {
    for (size_t i = 0; i < node->attrs_count; i++)
        if (strcmp(node->attrs[i].name, name) == 0)
            return &node->attrs[i];
    return NULL;
}

int64_t node_int(const struct node *node, const char *name, int64_t fallback) {
    const struct attr *attr = node_attr(node, name);
    return attr && attr->kind == ATTR_INT ? attr->i : fallback;
}

float node_float(const struct node *node, const char *name, float fallback) {
    const struct attr *attr = node_attr(node, name);
    return attr && attr->kind == ATTR_FLOAT ? attr->f : fallback;
}

const char *node_string(const struct node *node, const char *name, const char *fallback) {
    const struct attr *attr = node_attr(node, name);
    return attr && attr->kind == ATTR_STRING ? attr->s : fallback;
}

const int64_t *node_ints(const struct node *node, const char *name, size_t *ret_count) {
    const struct attr *attr = node_attr(node, name);
    bool is_ints = attr && attr->kind == ATTR_INTS;
    *ret_count = is_ints ? attr->count : 0;
    return is_ints ? attr->ints : NULL;
}

const float *node_floats(const struct node *node, const char *name, size_t *ret_count) {
    const struct attr *attr = node_attr(node, name);
    bool is_floats = attr && attr->kind == ATTR_FLOATS;
    *ret_count = is_floats ? attr->count : 0;
    return is_floats ? attr->floats : NULL;
}
