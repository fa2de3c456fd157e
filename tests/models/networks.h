/* The networks that people compare devices with, at the sizes of their papers. */
#ifndef CONVOY_TESTS_MODELS_NETWORKS_H
#define CONVOY_TESTS_MODELS_NETWORKS_H

#include "tests/models/builder.h"

struct network {
    const char *name;                                /* of the file, without ".onnx" */
    struct value *(*build)(struct builder *builder); /* the output, or NULL */
    uint64_t params;                                 /* trained numbers, as published */
};

extern const struct network networks[];
extern const size_t networks_count;

/* Builds a network and writes it to path. -errno with a sentence. */
int network_write(const struct network *network, uint64_t seed, const char *path, struct err *err);

#endif
