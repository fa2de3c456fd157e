/* A network: ONNX file -> graph -> passes -> layers. What daemon and ctl see of model/.
 *
 * struct model: the whole graph after all passes, without numbers; immutable; shared by reference
 * count. struct stage: layers [first, last) with their weights prepared for this CPU; immutable;
 * shared by reference count. struct exec: one worker's arena and scratch for a stage; used by one
 * thread at a time.
 *
 * The file stays mapped while a model lives; the pages of weights that a stage has packed are given
 * back to the kernel.
 */
#ifndef CONVOY_MODEL_MODEL_H
#define CONVOY_MODEL_MODEL_H

#include "base/err.h"
#include "base/sha256.h"
#include "base/tensor.h"

/* A value for a symbolic dimension ("n", "height"), or for all of them when name is "*". A name
 * that no input has is -EINVAL. */
struct model_dim {
    const char *name;
    int64_t value;
};

struct model_options {
    const struct model_dim *dims; /* a first dimension that is named by nobody is 1: the batch */
    size_t dims_count;
};

struct model;

/* Opens, checks and optimises path. 0 with one reference for the caller, or: the errno of opening
 * it, -EINVAL (a dimension that must exist), -EBADMSG (not ONNX, truncated, contradictory),
 * -ENOTSUP (operator, opset, type, shape: the sentence names node, operator, opset and what is
 * supported), -ENOMEM. options may be NULL. Any thread. */
int model_open(const char *path, const struct model_options *options, struct model **ret_model,
               struct err *err);
struct model *model_ref(struct model *model);
void model_unref(struct model *model);

const char *model_path(const struct model *model);
const uint8_t *model_digest(
    const struct model *model); /* SHA256_SIZE bytes, of the file and the files it refers to */

/* What two devices must agree about to run stages of one network: the SHA-256 of the digest and of
 * the inputs' names, types and shapes, in which the dimensions that model_open() was given show. 0
 * or -ENOMEM. */
int model_identity(const struct model *model, uint8_t ret_id[SHA256_SIZE]);

/* One layer, for people and planners. Borrowed from the model. */
struct model_layer {
    const char *name; /* of its last operator */
    const char *op;   /* "Conv+BatchNormalization+Relu" */
    const struct tensor_desc *outputs;
    size_t outputs_count;
    uint64_t params;       /* elements of weights */
    uint64_t macs;         /* multiply-accumulates per frame */
    uint64_t weight_bytes; /* once prepared */
    uint64_t input_bytes;  /* of activations it reads; 0 for a view */
    uint64_t output_bytes;
};

size_t model_layers_count(const struct model *model);
const struct model_layer *model_layer(const struct model *model, size_t index);

/* The layer that `until:` names: by the name of its last operator or by its index in decimal. On
 * -ENOENT the sentence suggests the nearest name, or the layer into which the named operator was
 * fused. */
int model_find_layer(const struct model *model, const char *name, size_t *ret_index,
                     struct err *err);

/* The tensors alive across the cut before layer `at` (0: the graph's inputs, model_layers_count():
 * its outputs), in a fixed order. Borrowed from the model. */
const struct tensor_desc *model_cut(const struct model *model, size_t at, size_t *ret_count);

/* Writes layers [first, last) with their weights as an ONNX file whose inputs and outputs are the
 * cuts' tensors. The file is written beside path and renamed. -errno of writing. */
int model_write_part(const struct model *model, size_t first, size_t last, const char *path,
                     struct err *err);

struct stage;

struct stage_options {
    int threads; /* cores per frame that its execs will use; 0 is 1 */
};

/* Prepares layers [first, last), 0 <= first < last <= model_layers_count(): holds a reference on
 * model, touches the weights of these layers only. -EINVAL for a wrong range, -ENOMEM, -EBADMSG.
 * Any thread (slow: call it off the loop). */
int stage_new(struct model *model, size_t first, size_t last, const struct stage_options *options,
              struct stage **ret_stage, struct err *err);
struct stage *stage_ref(struct stage *stage);
void stage_unref(struct stage *stage);

/* The cuts' descriptions, as model_cut(first) and model_cut(last). */
const struct tensor_desc *stage_inputs(const struct stage *stage, size_t *ret_count);
const struct tensor_desc *stage_outputs(const struct stage *stage, size_t *ret_count);

/* The stage input whose bytes are output i (it only passes through, or is only seen in another
 * shape), or -1: then exec_run() writes the output where it is told to. */
int stage_output_source(const struct stage *stage, size_t output);

/* How the stage computes its layer `index` (0: its first): the name of the kernel that shape and
 * CPU have chosen ("1x1", "depthwise", ...), "view" for a layer that only sees its input in another
 * shape, NULL where there is one way only. Static. */
const char *stage_layer_algorithm(const struct stage *stage, size_t index);

uint64_t stage_weight_bytes(const struct stage *stage); /* prepared weights, in memory once */
uint64_t stage_arena_bytes(const struct stage *stage);  /* per exec */

struct exec;

/* A worker's place to run a stage: its arena, scratch and (threads > 1) helper threads. Holds a
 * reference on stage. */
int exec_new(struct stage *stage, struct exec **ret_exec, struct err *err);
void exec_free(struct exec *exec);

/* Runs one frame. inputs: one tensor per stage input, dense, desc as stage_inputs() says (where a
 * dimension is bounded there, desc says what it is; elsewhere desc is not looked at), data
 * TENSOR_ALIGN aligned and readable TENSOR_ALIGN bytes past its end, the caller's, not written.
 * outputs: data of each output with source -1 points to room for it (TENSOR_ALIGN aligned, not
 * overlapping anything); the others' data is set to the input's. desc of every output is filled in
 * (where stage_outputs() has a bounded dimension, with what it is). No allocation after the first
 * call. 0, or -EINVAL with a sentence where the data itself is impossible (an index out of range),
 * or a bounded input is larger than its bound. */
int exec_run(struct exec *exec, const struct tensor *inputs, struct tensor *outputs,
             struct err *err);

/* Time of each layer in the last exec_run(), in nanoseconds, when profiling was switched on; NULL
 * otherwise. [last - first] */
void exec_profile(struct exec *exec, bool on);
const uint64_t *exec_layer_ns(const struct exec *exec);

#endif
