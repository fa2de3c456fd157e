#include "tests/lib/npy_read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 65536

static const struct {
    const char *descr;
    enum dtype dtype;
} types[] = {
    {"<f4", DTYPE_FLOAT}, {"<f8", DTYPE_DOUBLE}, {"<i8", DTYPE_INT64}, {"<i4", DTYPE_INT32},
    {"|u1", DTYPE_UINT8}, {"|i1", DTYPE_INT8},   {"|b1", DTYPE_BOOL},
};

static int parse_header(const char *header, struct tensor_desc *ret) {
    const char *descr = strstr(header, "'descr':"), *shape = strstr(header, "'shape':");
    if (!descr || !shape || strstr(header, "'fortran_order': True"))
        return -EINVAL;
    descr = strchr(descr + 8, '\'');
    for (size_t i = 0; descr && i < sizeof(types) / sizeof(types[0]); i++)
        if (strncmp(descr + 1, types[i].descr, 3) == 0)
            ret->dtype = types[i].dtype;
    const char *p = strchr(shape, '(');
    if (!p || ret->dtype == DTYPE_NONE)
        return -EINVAL;
    for (p++; *p && *p != ')';) {
        char *end;
        long long dim = strtoll(p, &end, 10);
        if (end == p || ret->rank == TENSOR_MAX_RANK)
            return -EINVAL;
        ret->dims[ret->rank++] = dim;
        p = end + strspn(end, ", ");
    }
    return 0;
}

static int read_file(FILE *file, struct tensor *ret) {
    unsigned char start[12];
    static char header[HEADER_MAX + 1];
    if (fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY", 6) != 0)
        return -EINVAL;
    size_t len = start[8] | (size_t)start[9] << 8;
    if (start[6] > 1) {
        if (fread(start + 10, 1, 2, file) != 2 || start[10] || start[11])
            return -EINVAL;
    }
    if (fread(header, 1, len, file) != len)
        return -EINVAL;
    header[len] = '\0';
    struct tensor tensor = {0};
    size_t bytes;
    int rc = parse_header(header, &tensor.desc);
    if (rc == 0)
        rc = tensor_desc_bytes(&tensor.desc, &bytes);
    if (rc < 0)
        return rc;
    tensor.data = tensor_buffer_new(bytes);
    if (!tensor.data)
        return -ENOMEM;
    if (fread(tensor.data, 1, bytes, file) != bytes) {
        tensor_buffer_free(tensor.data);
        return -EINVAL;
    }
    *ret = tensor;
    return 0;
}

int npy_read(const char *path, struct tensor *ret) {
    FILE *file = fopen(path, "rb");
    if (!file)
        return -errno;
    int rc = read_file(file, ret);
    fclose(file);
    return rc;
}
