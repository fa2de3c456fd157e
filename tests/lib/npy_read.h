/* Reads NumPy's .npy files (format 1 and 2, little-endian, C order) for tests. */
#ifndef CONVOY_TESTS_NPY_READ_H
#define CONVOY_TESTS_NPY_READ_H

#include "base/tensor.h"

/* 0 with data made by tensor_buffer_new(), or a negative errno. */
int npy_read(const char *path, struct tensor *ret);

#endif
