#include "base/tensor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct {
    enum dtype dtype;
    size_t size;
    const char *name;
} dtypes[] = {
    {DTYPE_FLOAT, 4, "float32"},   {DTYPE_UINT8, 1, "uint8"},    {DTYPE_INT8, 1, "int8"},
    {DTYPE_INT32, 4, "int32"},     {DTYPE_INT64, 8, "int64"},    {DTYPE_BOOL, 1, "bool"},
    {DTYPE_FLOAT16, 2, "float16"}, {DTYPE_DOUBLE, 8, "float64"}, {DTYPE_UINT16, 2, "uint16"},
    {DTYPE_INT16, 2, "int16"},     {DTYPE_UINT32, 4, "uint32"},  {DTYPE_UINT64, 8, "uint64"},
};

size_t dtype_size(enum dtype dtype) {
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].size;
    return 0;
}

const char *dtype_name(enum dtype dtype) {
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    return "unknown";
}

int tensor_desc_count(const struct tensor_desc *desc, size_t *ret_count) {
    size_t count = 1;
    if (desc->rank < 0 || desc->rank > TENSOR_MAX_RANK)
        return -EINVAL;
    for (int i = 0; i < desc->rank; i++) {
        if (desc->dims[i] < 0)
            return -EINVAL;
        if ((uint64_t)desc->dims[i] > SIZE_MAX ||
            __builtin_mul_overflow(count, (size_t)desc->dims[i], &count))
            return -EOVERFLOW;
    }
    *ret_count = count;
    return 0;
}

int tensor_desc_bytes(const struct tensor_desc *desc, size_t *ret_bytes) {
    size_t count, bytes, size = dtype_size(desc->dtype);
    int rc = tensor_desc_count(desc, &count);
    if (rc < 0)
        return rc;
    if (size == 0)
        return -ENOTSUP;
    if (__builtin_mul_overflow(count, size, &bytes))
        return -EOVERFLOW;
    *ret_bytes = bytes;
    return 0;
}

bool tensor_desc_same(const struct tensor_desc *a, const struct tensor_desc *b) {
    if (a->dtype != b->dtype || a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

bool tensor_desc_fits(const struct tensor_desc *desc, const struct tensor_desc *bound) {
    if (desc->dtype != bound->dtype || desc->rank != bound->rank)
        return false;
    for (int i = 0; i < desc->rank; i++)
        if (desc->dims[i] != bound->dims[i] &&
            (!(bound->bounded >> i & 1U) || desc->dims[i] < 0 || desc->dims[i] > bound->dims[i]))
            return false;
    return true;
}

const char *tensor_desc_format(const struct tensor_desc *desc, char *buf, size_t size) {
    int len = snprintf(buf, size, "%s [", dtype_name(desc->dtype));
    for (int i = 0; i < desc->rank && len >= 0 && (size_t)len < size; i++)
        len += snprintf(buf + len, size - (size_t)len, "%s%s%lld", i ? "," : "",
                        desc->bounded >> i & 1U ? "<=" : "", (long long)desc->dims[i]);
    if (len >= 0 && (size_t)len < size)
        snprintf(buf + len, size - (size_t)len, "]");
    return buf;
}

#define HUGE_PAGE ((size_t)2 << 20) /* of most machines; a hint where it is another size */

static void *new_aligned(size_t bytes, size_t align) {
    size_t total;
    void *data;
    if (__builtin_add_overflow(bytes, (size_t)TENSOR_ALIGN, &total) ||
        posix_memalign(&data, align, total) != 0)
        return NULL;
    memset((char *)data + bytes, 0, TENSOR_ALIGN);
    return data;
}

void *tensor_buffer_new(size_t bytes) {
    return new_aligned(bytes, TENSOR_ALIGN);
}

void *tensor_buffer_new_lasting(size_t bytes) {
    if (bytes < HUGE_PAGE)
        return new_aligned(bytes, TENSOR_ALIGN);
    void *data = new_aligned(bytes, HUGE_PAGE);
#ifdef MADV_HUGEPAGE
    if (data) /* whole ones only; a kernel without them does as it did before */
        madvise(data, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return data;
}

void tensor_buffer_free(void *data) {
    free(data);
}
