/* Builds networks node by node and writes them as ONNX files (opset 14), with random weights that
 * depend on the seed alone. One thread. A builder remembers its first failure: functions that get a
 * NULL value return NULL, and builder_write() says what went wrong. Values are the builder's
 * graph's. */
#ifndef CONVOY_TESTS_MODELS_BUILDER_H
#define CONVOY_TESTS_MODELS_BUILDER_H

#include "model/graph.h"

struct builder;

/* NULL when there is no memory. */
struct builder *builder_new(uint64_t seed);
void builder_free(struct builder *builder);

/* The opset of nodes added from here on, instead of 14. Before 11, Clip has its bounds as
 * attributes. The caller adds only what is the same there. */
void builder_set_opset(struct builder *builder, int opset);

/* The graph's input, float32 [1,channels,size,size]. */
struct value *builder_input(struct builder *builder, const char *name, int channels, int size);

struct conv_shape {
    int oc, kernel, stride, pad;
    int group; /* 0 is 1 */
    bool bias;
};

/* Every operator's node bears that name; its output the same with "_out" behind it. */
struct value *builder_conv(struct builder *builder, const char *name, struct value *x,
                           struct conv_shape shape);

/* gain: of the scales, which are drawn around it. */
struct value *builder_batchnorm(struct builder *builder, const char *name, struct value *x,
                                float epsilon, float gain);

struct pool_shape {
    const char *op; /* MaxPool or AveragePool */
    int kernel, stride, pad;
    bool ceil;
};

struct value *builder_pool(struct builder *builder, const char *name, struct value *x,
                           struct pool_shape shape);

/* Relu, Tanh, GlobalAveragePool, ...: one input, no attributes. GlobalAveragePool shrinks. */
struct value *builder_unary(struct builder *builder, const char *op, const char *name,
                            struct value *x);
struct value *builder_clip(struct builder *builder, const char *name, struct value *x, float min,
                           float max);
/* Add, Mul, ...: the result has a's shape, b is broadcast to it. */
struct value *builder_binary(struct builder *builder, const char *op, const char *name,
                             struct value *a, struct value *b);
/* With a slope of 1/6, as in MobileNetV3. */
struct value *builder_hard_sigmoid(struct builder *builder, const char *name, struct value *x);
struct value *builder_concat(struct builder *builder, const char *name, struct value *const *parts,
                             size_t count);
/* Split: two halves of the channels. False, and the builder has failed, when it could not be done.
 */
bool builder_halve(struct builder *builder, const char *name, struct value *x,
                   struct value *ret_halves[2]);
/* Channels of several groups one from each in turn: Reshape, Transpose, Reshape. */
struct value *builder_shuffle(struct builder *builder, const char *name, struct value *x,
                              int groups);
/* ReduceMean over the picture: [n][c]. */
struct value *builder_mean(struct builder *builder, const char *name, struct value *x);
struct value *builder_flatten(struct builder *builder, const char *name, struct value *x);

/* Gemm with a bias. */
struct value *builder_linear(struct builder *builder, const char *name, struct value *x,
                             int outputs);

/* Trained numbers so far: weights, biases, scales; not the statistics of BatchNormalization. */
uint64_t builder_params(const struct builder *builder);

/* Makes the numbers and writes the graph with that output. -errno, -EINVAL where building failed.
 */
int builder_write(struct builder *builder, struct value *output, const char *path, struct err *err);

#endif
