/* What picks elements by their order: TopK, ArgMax, ArgMin. Elements of every type are compared as
 * 64-bit keys of the same order, so that there is one algorithm. */
#include <errno.h>
#include <string.h>

#include "internal.h"

/* Keys of count elements, stride apart. */
typedef void (*keys_fn)(const void *x, ptrdiff_t stride, int64_t *keys, ptrdiff_t count);

/* Floats are ordered as their bits are, negative ones the other way round; -0 is 0, and NaN is
 * larger than everything. */
static inline int64_t key_float(float p) {
    int32_t bits;

    p += 0.0f;
    memcpy(&bits, &p, sizeof(bits));
    return p != p ? INT64_MAX : bits < 0 ? bits ^ INT32_MAX : bits;
}

static inline int64_t key_double(double p) {
    int64_t bits;

    p += 0.0;
    memcpy(&bits, &p, sizeof(bits));
    return p != p ? INT64_MAX : bits < 0 ? bits ^ INT64_MAX : bits;
}

#define KEYS(name, type, expr)                                                                     \
    static KN_CLONES void keys_##name(const void *vx, ptrdiff_t stride, int64_t *keys,             \
                                      ptrdiff_t count) {                                           \
        const type *x = vx;                                                                        \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            type p = x[i * stride];                                                                \
            keys[i] = (expr);                                                                      \
        }                                                                                          \
    }

KEYS(float, float, key_float(p))
KEYS(double, double, key_double(p))
KEYS(uint8, uint8_t, p)
KEYS(int8, int8_t, 0 + p)
KEYS(int32, int32_t, p)
KEYS(int64, int64_t, p)
KEYS(uint16, uint16_t, p)
KEYS(int16, int16_t, p)
KEYS(uint32, uint32_t, p)
KEYS(uint64, uint64_t, (int64_t)(p ^ (uint64_t)1 << 63))

#define TYPES_MAX (KN_UINT64 + 1)

static const keys_fn keys_of[TYPES_MAX] = {
    [KN_FLOAT] = keys_float,   [KN_DOUBLE] = keys_double, [KN_UINT8] = keys_uint8,
    [KN_INT8] = keys_int8,     [KN_INT32] = keys_int32,   [KN_INT64] = keys_int64,
    [KN_UINT16] = keys_uint16, [KN_INT16] = keys_int16,   [KN_UINT32] = keys_uint32,
    [KN_UINT64] = keys_uint64,
};

static bool known(enum kn_type type) {
    return type >= 0 && type < TYPES_MAX && keys_of[type];
}

#define CHUNK 256 /* keys made at once, on the stack */

/* ~ turns the order round: then the largest key is the smallest element. */
static void load_keys(enum kn_type type, bool smallest, const void *x, ptrdiff_t stride,
                      int64_t *keys, ptrdiff_t count) {
    keys_of[type](x, stride, keys, count);
    for (ptrdiff_t i = 0; smallest && i < count; i++)
        keys[i] = ~keys[i];
}

/* ---- TopK ---- */

/* The best k so far; the worst of them is at the root. */
struct heap {
    int64_t *keys;
    int64_t *index; /* in the output, stride apart */
    ptrdiff_t stride, count;
};

/* Of equal elements the one in front is better. */
static bool is_worse(const struct heap *heap, ptrdiff_t i, ptrdiff_t j) {
    if (heap->keys[i] != heap->keys[j])
        return heap->keys[i] < heap->keys[j];
    return heap->index[i * heap->stride] > heap->index[j * heap->stride];
}

static void swap(struct heap *heap, ptrdiff_t i, ptrdiff_t j) {
    int64_t key = heap->keys[i], index = heap->index[i * heap->stride];

    heap->keys[i] = heap->keys[j];
    heap->index[i * heap->stride] = heap->index[j * heap->stride];
    heap->keys[j] = key;
    heap->index[j * heap->stride] = index;
}

static void sift_down(struct heap *heap, ptrdiff_t i) {
    for (;;) {
        ptrdiff_t worst = i, left = 2 * i + 1;
        if (left < heap->count && is_worse(heap, left, worst))
            worst = left;
        if (left + 1 < heap->count && is_worse(heap, left + 1, worst))
            worst = left + 1;
        if (worst == i)
            return;
        swap(heap, i, worst);
        i = worst;
    }
}

static void sift_up(struct heap *heap, ptrdiff_t i) {
    for (; i > 0 && is_worse(heap, i, (i - 1) / 2); i = (i - 1) / 2)
        swap(heap, i, (i - 1) / 2);
}

static void heap_offer(struct heap *heap, ptrdiff_t k, int64_t key, int64_t index) {
    if (heap->count < k) {
        heap->keys[heap->count] = key;
        heap->index[heap->count * heap->stride] = index;
        sift_up(heap, heap->count++);
    } else if (key > heap->keys[0]) {
        heap->keys[0] = key;
        heap->index[0] = index;
        sift_down(heap, 0);
    }
}

/* The worst goes to the end, again and again. */
static void heap_sort(struct heap *heap) {
    while (heap->count > 1) {
        heap->count--;
        swap(heap, 0, heap->count);
        sift_down(heap, 0);
    }
}

static void topk_line(const struct kn_topk *topk, const void *x, int64_t *index, int64_t *scratch) {
    ptrdiff_t stride = (ptrdiff_t)topk->inner, axis = (ptrdiff_t)topk->axis;
    struct heap heap = {.keys = scratch, .index = index, .stride = stride};
    size_t size = kn_type_size(topk->type);
    int64_t keys[CHUNK];

    for (ptrdiff_t begin = 0; begin < axis; begin += CHUNK) {
        ptrdiff_t count = kn_min(CHUNK, axis - begin);
        const char *from = (const char *)x + (size_t)begin * topk->inner * size;
        load_keys(topk->type, topk->smallest, from, stride, keys, count);
        for (ptrdiff_t i = 0; i < count; i++)
            heap_offer(&heap, (ptrdiff_t)topk->k, keys[i], begin + i);
    }
    heap_sort(&heap);
}

static void copy_values(const struct kn_topk *topk, const char *x, const int64_t *index, char *y) {
    size_t size = kn_type_size(topk->type);

    for (size_t i = 0; i < topk->k; i++)
        memcpy(y + i * topk->inner * size, x + (size_t)index[i * topk->inner] * topk->inner * size,
               size);
}

int kn_topk(const struct kn_topk *topk, const void *x, void *y, int64_t *ret_index,
            int64_t *scratch) {
    size_t size = kn_type_size(topk->type);

    if (!known(topk->type))
        return -ENOTSUP;
    if (topk->k == 0)
        return 0;
    for (size_t o = 0; o < topk->outer; o++)
        for (size_t i = 0; i < topk->inner; i++) {
            size_t in = o * topk->axis * topk->inner + i, out = o * topk->k * topk->inner + i;
            const char *line = (const char *)x + in * size;
            topk_line(topk, line, ret_index + out, scratch);
            copy_values(topk, line, ret_index + out, (char *)y + out * size);
        }
    return 0;
}

/* ---- ArgMax and ArgMin ---- */

static KN_CLONES void take_better(const int64_t *keys, int64_t here, bool last, int64_t *best,
                                  int64_t *index, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) {
        bool better = last ? keys[i] >= best[i] : keys[i] > best[i];
        best[i] = better ? keys[i] : best[i];
        index[i] = better ? here : index[i];
    }
}

/* Adjacent lines together, so that rows are read along memory. */
static void arg_block(const struct kn_arg *arg, const char *x, int64_t *index, ptrdiff_t count) {
    size_t step = arg->inner * kn_type_size(arg->type);
    int64_t best[CHUNK], keys[CHUNK];

    load_keys(arg->type, arg->smallest, x, 1, best, count);
    memset(index, 0, (size_t)count * sizeof(*index));
    for (size_t a = 1; a < arg->axis; a++) {
        load_keys(arg->type, arg->smallest, x + a * step, 1, keys, count);
        take_better(keys, (int64_t)a, arg->last, best, index, count);
    }
}

static int64_t arg_line(const struct kn_arg *arg, const char *x) {
    ptrdiff_t axis = (ptrdiff_t)arg->axis, size = (ptrdiff_t)kn_type_size(arg->type);
    int64_t keys[CHUNK], best = INT64_MIN, index = 0;

    for (ptrdiff_t begin = 0; begin < axis; begin += CHUNK) {
        ptrdiff_t count = kn_min(CHUNK, axis - begin);
        load_keys(arg->type, arg->smallest, x + begin * size, 1, keys, count);
        for (ptrdiff_t i = 0; i < count; i++)
            if (keys[i] > best || (arg->last && keys[i] == best)) {
                best = keys[i];
                index = begin + i;
            }
    }
    return index;
}

int kn_arg(const struct kn_arg *arg, const void *x, int64_t *y) {
    size_t size = kn_type_size(arg->type);

    if (!known(arg->type))
        return -ENOTSUP;
    for (size_t o = 0; o < arg->outer; o++) {
        const char *from = (const char *)x + o * arg->axis * arg->inner * size;
        int64_t *to = y + o * arg->inner;
        for (size_t i = 0; i < arg->inner && arg->inner > 1; i += CHUNK)
            arg_block(arg, from + i * size, to + i, kn_min(CHUNK, (ptrdiff_t)(arg->inner - i)));
        if (arg->inner == 1)
            *to = arg_line(arg, from);
    }
    return 0;
}
