#include "model/fold.h"

#include "model/net.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define FOLD_DEPTH_MAX  500          /* nodes in a chain of constants: bounds the recursion */
#define FOLD_KEEP_BYTES (64U << 10U) /* larger results are not kept */
#define FOLD_LOAD_BYTES (64U << 20U) /* computed at load, or on the way to a small constant */
/* Computed later: enough for a layer of VGG-19's, and more for each byte of the model's own. */
#define FOLD_LEAST_BYTES (512U << 20U)
#define FOLD_TIMES       8U

/* A constant that was computed: its numbers belong to the fold. */
struct folded {
    struct constant constant;
    void *buffer;
};

struct fold {
    struct graph *graph;
    struct net_node *nodes;
    pthread_mutex_t lock;
    struct folded **items;
    size_t count, capacity;
    uint64_t held, limit; /* bytes of computed numbers; a small file can ask for any amount */
    uint64_t most;        /* of held while one constant is computed */
    uint64_t own;         /* bytes that the model's own constants allow */
    bool loaded;
};

struct fold *fold_new(struct graph *graph, struct net_node *nodes) {
    struct fold *fold = calloc(1, sizeof(*fold));
    if (!fold)
        return NULL;
    fold->graph = graph;
    fold->nodes = nodes;
    fold->limit = FOLD_LOAD_BYTES;
    if (pthread_mutex_init(&fold->lock, NULL) != 0) {
        free(fold);
        return NULL;
    }
    return fold;
}

void fold_free(struct fold *fold) {
    if (!fold)
        return;
    for (size_t i = 0; i < fold->count; i++)
        tensor_buffer_free(fold->items[i]->buffer);
    free(fold->items);
    pthread_mutex_destroy(&fold->lock);
    free(fold);
}

void fold_lock(struct fold *fold) {
    pthread_mutex_lock(&fold->lock);
}

void fold_unlock(struct fold *fold) {
    pthread_mutex_unlock(&fold->lock);
}

int fold_mark(struct fold *fold, struct value *value) {
    if (fold->count == fold->capacity) {
        size_t capacity = fold->capacity ? 2 * fold->capacity : 64;
        struct folded **items = reallocarray(fold->items, capacity, sizeof(struct folded *));
        if (!items)
            return -ENOMEM;
        fold->items = items;
        fold->capacity = capacity;
    }
    struct folded *item = graph_alloc(fold->graph, sizeof(*item));
    if (!item)
        return -ENOMEM;
    item->constant.desc = value->desc;
    int rc = tensor_desc_bytes(&value->desc, &item->constant.bytes);
    if (rc < 0)
        return rc;
    fold->items[fold->count++] = item;
    value->constant = &item->constant;
    return 0;
}

void fold_drop(struct fold *fold) {
    for (size_t i = 0; i < fold->count; i++) {
        struct folded *item = fold->items[i];
        if (!item->buffer || item->constant.bytes <= FOLD_KEEP_BYTES)
            continue;
        tensor_buffer_free(item->buffer);
        item->buffer = NULL;
        item->constant.data = NULL;
        fold->held -= item->constant.bytes;
    }
}

void fold_loaded(struct fold *fold) {
    fold_drop(fold);
    fold->limit = FOLD_LEAST_BYTES;
    for (size_t i = 0; i < fold->graph->values_count; i++) {
        const struct value *value = fold->graph->values[i];
        if (value->constant && !value->producer)
            fold->own += FOLD_TIMES * (uint64_t)value->constant->bytes;
    }
    fold->loaded = true;
}

static int numbers(struct fold *fold, struct value *value, int depth, struct err *err);

/* One input of a node that is to be computed. Numbers in a mapped file are copied: they may be
 * unaligned, and nothing can be read past their end. ret->data is NULL for OP_SHAPE. */
static int fetch_input(struct fold *fold, const struct op *op, struct value *value, int depth,
                       struct tensor *ret, void **ret_copy, struct err *err) {
    ret->desc = value->desc;
    if (op->kind->flags & OP_SHAPE)
        return 0;
    int rc = numbers(fold, value, depth + 1, err);
    if (rc < 0)
        return rc;
    const struct constant *constant = value->constant;
    ret->data = (void *)constant->data; /* not written: run() has it as an input */
    if (!constant->in_file)
        return 0;
    *ret_copy = tensor_buffer_new(constant->bytes);
    if (!*ret_copy)
        return err_set(err, -ENOMEM, "no memory for constant '%s'", value->name);
    if (constant->bytes > 0)
        memcpy(*ret_copy, constant->data, constant->bytes);
    ret->data = *ret_copy;
    return 0;
}

/* Everything that one evaluation allocates. */
struct evaluation {
    struct tensor *in, *out;
    const struct tensor **in_refs;
    struct tensor **out_refs;
    void **copies; /* of inputs */
};

static int evaluation_init(struct evaluation *e, const struct node *node) {
    e->in = calloc(node->inputs_count + 1, sizeof(*e->in));
    e->in_refs = calloc(node->inputs_count + 1, sizeof(*e->in_refs));
    e->copies = calloc(node->inputs_count + 1, sizeof(*e->copies));
    e->out = calloc(node->outputs_count + 1, sizeof(*e->out));
    e->out_refs = calloc(node->outputs_count + 1, sizeof(*e->out_refs));
    return e->in && e->in_refs && e->copies && e->out && e->out_refs ? 0 : -ENOMEM;
}

static void evaluation_fini(struct evaluation *e, const struct node *node) {
    for (size_t i = 0; e->copies && i < node->inputs_count; i++)
        tensor_buffer_free(e->copies[i]);
    for (size_t i = 0; e->out && i < node->outputs_count; i++)
        tensor_buffer_free(e->out[i].data);
    free(e->in);
    free(e->in_refs);
    free(e->copies);
    free(e->out);
    free(e->out_refs);
}

static int evaluate(struct fold *fold, const struct node *node, int depth, struct evaluation *e,
                    struct err *err) {
    const struct net_node *known = &fold->nodes[node->index];
    uint64_t held;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < node->inputs_count; i++) {
        if (!node->inputs[i])
            continue;
        rc = fetch_input(fold, known->op, node->inputs[i], depth, &e->in[i], &e->copies[i], err);
        e->in_refs[i] = &e->in[i];
    }
    held = fold->held;
    for (size_t i = 0; rc == 0 && i < node->outputs_count; i++) {
        if (!node->outputs[i])
            continue;
        size_t bytes = 0;
        e->out[i].desc = node->outputs[i]->desc;
        rc = tensor_desc_bytes(&e->out[i].desc, &bytes);
        held += bytes;
        if (rc == 0 && held > fold->most)
            return err_set(err, -ENOTSUP, "constant '%s' takes more than the %llu MB that %s",
                           node->outputs[i]->name, (unsigned long long)(fold->most >> 20U),
                           fold->loaded ? "may be computed at a time from constants of this size"
                                        : "may be computed to read a model");
        e->out[i].data = rc == 0 ? tensor_buffer_new(bytes) : NULL;
        e->out_refs[i] = &e->out[i];
        if (!e->out[i].data)
            rc = err_set(err, -ENOMEM, "no memory for constant '%s'", node->outputs[i]->name);
    }
    if (rc < 0)
        return rc;
    if (!known->view)
        return op_eval(known->op, node, known->plan, e->in_refs, e->out_refs, err);
    size_t bytes = node->outputs[0]->constant->bytes;
    if (bytes > 0)
        memcpy(e->out[0].data, e->in[0].data, bytes);
    return 0;
}

/* Hands the results over to the outputs' constants. */
static void keep_outputs(struct fold *fold, const struct node *node, struct evaluation *e) {
    for (size_t i = 0; i < node->outputs_count; i++) {
        if (!node->outputs[i])
            continue;
        struct folded *item = (struct folded *)node->outputs[i]->constant; /* its first member */
        if (item->buffer)
            continue;
        item->buffer = e->out[i].data;
        item->constant.data = item->buffer;
        item->constant.desc = e->out[i].desc; /* its shape may be among the numbers */
        item->constant.desc.bounded = 0;
        item->constant.bytes = op_count(&e->out[i].desc) * dtype_size(e->out[i].desc.dtype);
        fold->held += item->constant.bytes;
        e->out[i].data = NULL;
    }
}

static int numbers(struct fold *fold, struct value *value, int depth, struct err *err) {
    static const uint64_t nothing = 0;
    if (!value->constant->data && value->constant->bytes == 0)
        value->constant->data = &nothing; /* an address that offsets and memcpy may be given */
    if (value->constant->data)
        return 0;
    if (!value->producer)
        return err_set(err, -EBADMSG, "constant '%s' has no data", value->name);
    if (depth > FOLD_DEPTH_MAX)
        return err_set(err, -ENOTSUP, "constant '%s' is the end of more than %d operators",
                       value->name, FOLD_DEPTH_MAX);
    struct evaluation e = {0};
    int rc = evaluation_init(&e, value->producer);
    if (rc == 0)
        rc = evaluate(fold, value->producer, depth, &e, err);
    if (rc == 0)
        keep_outputs(fold, value->producer, &e);
    evaluation_fini(&e, value->producer);
    if (rc == -EINVAL)
        rc = -EBADMSG; /* impossible numbers are the file's */
    return rc < 0 ? err_prefix(err, rc, "node '%s'", value->producer->name) : 0;
}

/* How many bytes may be held once a constant is computed: what leads to it is not much larger than
 * itself, or than the file's own numbers. */
static uint64_t most_for(const struct fold *fold, const struct constant *constant) {
    uint64_t more = FOLD_TIMES * (uint64_t)constant->bytes, most;
    if (!fold->loaded)
        return fold->limit;
    more = more < FOLD_LOAD_BYTES ? FOLD_LOAD_BYTES : more;
    most = fold->held + more;
    return (most < fold->limit ? most : fold->limit) + fold->own;
}

int fold_numbers(struct fold *fold, struct value *value, const struct constant **ret,
                 struct err *err) {
    fold->most = most_for(fold, value->constant);
    int rc = numbers(fold, value, 0, err);
    if (rc < 0)
        return rc;
    *ret = value->constant;
    return 0;
}
