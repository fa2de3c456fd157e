/* Plain data about tensors, shared by model, proto, config and daemon. Knows nothing of any of
 * them. */
#ifndef CONVOY_BASE_TENSOR_H
#define CONVOY_BASE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TENSOR_MAX_RANK 8
#define TENSOR_ALIGN                                                                               \
    64 /* every tensor buffer starts on this boundary and is readable this far past its end */

/* Element types, numbered as ONNX's TensorProto.DataType. */
enum dtype {
    DTYPE_NONE = 0,
    DTYPE_FLOAT = 1,
    DTYPE_UINT8 = 2,
    DTYPE_INT8 = 3,
    DTYPE_UINT16 = 4,
    DTYPE_INT16 = 5,
    DTYPE_INT32 = 6,
    DTYPE_INT64 = 7,
    DTYPE_BOOL = 9,
    DTYPE_FLOAT16 = 10,
    DTYPE_DOUBLE = 11,
    DTYPE_UINT32 = 12,
    DTYPE_UINT64 = 13,
};

/* What a tensor is, without its bytes. Row-major, dense. */
struct tensor_desc {
    const char *name; /* borrowed from whoever made the description (the model, a message) */
    enum dtype dtype;
    int rank; /* 0 is a scalar */
    int64_t dims[TENSOR_MAX_RANK];
    uint8_t bounded; /* bit d: dims[d] is the most it can be; what it is, each frame's data says */
};

struct tensor {
    struct tensor_desc desc;
    void *data; /* tensor_desc_bytes() long; who owns it is said by each function that takes a
                   tensor */
};

/* Bytes of one element; 0 for a type that is not supported. */
size_t dtype_size(enum dtype dtype);

/* "float32", "int64", ... as NumPy spells them; "unknown" otherwise. Static. */
const char *dtype_name(enum dtype dtype);

/* Number of elements. -EINVAL for a negative dimension or a rank out of range, -EOVERFLOW when it
 * does not fit. */
int tensor_desc_count(const struct tensor_desc *desc, size_t *ret_count);

/* Number of bytes. As tensor_desc_count(); also -ENOTSUP for an unknown element type. */
int tensor_desc_bytes(const struct tensor_desc *desc, size_t *ret_bytes);

/* Same element type and shape (names are not compared). */
bool tensor_desc_same(const struct tensor_desc *a, const struct tensor_desc *b);

/* As tensor_desc_same(), but that where bound is bounded, a dimension may be smaller as well. */
bool tensor_desc_fits(const struct tensor_desc *desc, const struct tensor_desc *bound);

/* Writes "float32 [1,64,<=56,56]" into buf, truncated at size, and returns buf. */
const char *tensor_desc_format(const struct tensor_desc *desc, char *buf, size_t size);

/* 64-byte aligned memory for bytes of tensor data plus TENSOR_ALIGN bytes of readable tail; not
 * zeroed, except the tail. NULL when there is no memory. Freed with tensor_buffer_free(). */
void *tensor_buffer_new(size_t bytes);

/* As tensor_buffer_new(), for memory that will be written to its end and stays: where it is large,
 * the kernel is asked for huge pages, which cost less to get and to read. */
void *tensor_buffer_new_lasting(size_t bytes);
void tensor_buffer_free(void *data);

#endif
