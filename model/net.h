/* Inside of struct model: what the passes know of nodes, and the layers they make. Private to
 * model/. */
#ifndef CONVOY_MODEL_NET_H
#define CONVOY_MODEL_NET_H

#include "model/fold.h"
#include "model/model.h"
#include "model/op.h"

#include <pthread.h>
#include <stdatomic.h>

#define NET_LAYERS_MAX 20000

struct layer;

/* What inference and passes know of a node, by its index in the graph. */
struct net_node {
    const struct op *op;
    void *plan;
    bool view;     /* output 0 is input 0's bytes */
    bool constant; /* all outputs are constants: computed on demand, no layer */
    bool dropped;  /* consumers read its input instead */
    bool dynamic;  /* what it makes has a shape that depends on data: planned again in each frame */
    struct layer *layer;
};

/* The smallest unit that can be placed: one operator and what was fused into it. */
struct layer {
    struct model_layer info;
    uint32_t index;
    const struct op *op;
    struct node *main; /* the operator that run() executes */
    void *plan;
    bool view;
    bool dynamic;        /* planned again in each frame; never joined with others */
    struct node **nodes; /* all of them, in executable order; the last one names the layer */
    size_t nodes_count;
    struct value **in; /* as main's inputs, after fusion */
    size_t in_count;
    struct value **out; /* as main's outputs, after fusion */
    size_t out_count;
    struct value *residual;
    struct node **affine; /* BatchNormalization, and Add, Sub, Mul, Div with constants, in order */
    size_t affine_count;
    struct kn_activation act;
};

struct cut {
    struct tensor_desc *descs;
    struct value **values;
    size_t count;
};

struct prepared;

struct model {
    atomic_int refs;
    struct graph *graph;
    struct net_node *nodes;
    struct fold *fold;
    struct layer **layers;
    size_t layers_count;
    struct cut *cuts;           /* layers_count + 1 */
    pthread_mutex_t lock;       /* over prepared */
    struct prepared **prepared; /* first of each layer's list: weights in use (prepare.c) */
};

/* As model_open(), from bytes that stay the caller's and must outlive the model; for tests and the
 * fuzzer. External data is refused, and the model has no path. */
int model_open_memory(const void *data, size_t size, const struct model_options *options,
                      struct model **ret_model, struct err *err);

/* Casts between float16, in which a model may be stored, and float32, in which it is computed
 * (half.c). */
int net_widen(struct graph *graph, struct err *err);

/* Binds dimensions of inputs, plans every node, marks constants (infer.c). */
int net_infer(struct model *model, const struct model_options *options, struct err *err);

/* Removes nodes without effect and groups the others into layers (passes.c). */
int net_passes(struct model *model, struct err *err);

/* Numbers for people and planners in every layer's info (layers.c). */
int net_describe(struct model *model, struct err *err);

/* Fills model->cuts (cut.c). */
int net_cuts(struct model *model, struct err *err);

#endif
