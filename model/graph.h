/* The graph as the ONNX file states it: values, nodes, attributes, constants. import.c fills it,
 * infer/fold/passes annotate it, export.c writes parts of it.
 *
 * Everything a graph points to lives until graph_free(): in its own blocks (graph_alloc()) or in
 * the mapped files. A graph is built and annotated by one thread; then it is read-only, but for
 * constants that are made on demand, under the graph's lock (fold.c).
 */
#ifndef CONVOY_MODEL_GRAPH_H
#define CONVOY_MODEL_GRAPH_H

#include "base/err.h"
#include "base/sha256.h"
#include "base/tensor.h"

#define GRAPH_NODES_MAX  100000
#define GRAPH_VALUES_MAX 1000000
#define GRAPH_NAME_MAX   4096

/* Numbers known at load. data may be unaligned: it may lie in a mapped file. bytes ==
 * tensor_desc_bytes(desc). */
struct constant {
    struct tensor_desc desc;
    const void *data;
    size_t bytes;
    bool in_file; /* data lies in a mapping (or is NULL: bytes that no device has needed yet) */
};

enum attr_kind {
    ATTR_INT,
    ATTR_FLOAT,
    ATTR_STRING,
    ATTR_TENSOR,
    ATTR_INTS,
    ATTR_FLOATS,
    ATTR_STRINGS
};

struct attr {
    const char *name;
    enum attr_kind kind;
    size_t
        count; /* of ints, floats, strings; bytes of a string (which is NUL-terminated as well) */
    union {
        int64_t i;
        float f;
        const char *s;
        const struct constant *t;
        const int64_t *ints;
        const float *floats;
        const char *const *strings;
    };
};

struct node;

struct value {
    const char *name;          /* unique in the graph */
    uint32_t id;               /* index in graph->values */
    struct node *producer;     /* NULL: graph input or initializer */
    struct constant *constant; /* an initializer, a Constant node's value, or what fold.c has
                                  computed; else NULL */
    bool is_input, is_output;  /* of the graph */
    enum dtype declared;       /* of an output that a node makes: what the file says it is */

    /* A graph input as declared: rank -1 when the file says nothing; a dimension is -1 when
     * symbolic, then its name (or NULL) stands in dim_names. For every other value filled in by
     * shape inference (infer.c). */
    struct tensor_desc desc;
    const char *dim_names[TENSOR_MAX_RANK];

    /* Numbers that are computed from shapes which depend on data: the least and the most that each
     * can be, dense, of desc's type (bounds.c). NULL: nothing is known. */
    const void *least, *most;

    /* Filled by graph_link(). */
    struct node **consumers; /* each consuming node once per use */
    size_t consumers_count;
    void *note; /* of the pass that is running */
};

struct node {
    const char *name; /* of the ONNX node, or its first output's where it has none */
    const char *op_type;
    const char *domain;    /* "" is ONNX's own */
    int opset;             /* version of that domain which the file imports */
    uint32_t index;        /* in graph->nodes */
    struct value **inputs; /* NULL where an optional input is absent */
    size_t inputs_count;
    struct value **outputs; /* NULL where an optional output is absent */
    size_t outputs_count;
    struct attr *attrs;
    size_t attrs_count;
    void *note;
};

struct graph {
    char *path;
    uint8_t digest[SHA256_SIZE];
    struct node *
        *nodes; /* in an order that can be executed; Constant nodes are gone (they are constants) */
    size_t nodes_count;
    struct value **values;
    size_t values_count;
    struct value **inputs; /* without initializers that are also listed as inputs */
    size_t inputs_count;
    struct value **outputs;
    size_t outputs_count;
    struct graph_store *store; /* private to graph.c: blocks and mappings */
};

/* An empty graph. NULL when there is no memory. */
struct graph *graph_new(void);
void graph_free(struct graph *graph);

/* Zeroed memory that lives as long as the graph, aligned for any type. NULL when there is none. */
void *graph_alloc(struct graph *graph, size_t bytes);
char *graph_strdup(struct graph *graph, const char *s, size_t len);

/* Takes over a buffer made by tensor_buffer_new(): freed with the graph. -ENOMEM leaves it to the
 * caller. */
int graph_adopt(struct graph *graph, void *buffer);

/* A new value of that name (copied), appended to values. NULL when there is no memory or there are
 * GRAPH_VALUES_MAX. */
struct value *graph_add_value(struct graph *graph, const char *name, size_t len);

/* Fills in consumers of every value and producer, from the nodes; call again after the nodes have
 * changed. */
int graph_link(struct graph *graph);

/* Tells the kernel that the pages of a constant in a mapped file are not needed any more. */
void graph_drop_pages(const struct graph *graph, const struct constant *constant);
/* Those of its bytes [from, to). */
void graph_drop_range(const struct graph *graph, const struct constant *constant, size_t from,
                      size_t to);

/* Copies the numbers of a constant (bytes of them) and gives its pages back on the way: a large
 * matrix is never in memory twice. */
void graph_copy_constant(const struct graph *graph, const struct constant *constant, void *to);

/* Reads path (import.c): the file is mapped, its structure decoded with protobuf-c from a copy
 * without tensor data, tensor data is left in place. Checks everything that later code relies on:
 * unique names, single assignment, known inputs, no cycle (nodes are sorted when the file's order
 * cannot be executed), data sizes, dims, attribute kinds, external data inside the model's folder,
 * bounds. Does not know operators, but for Constant. Errors as model_open(). */
int graph_import(const char *path, struct graph **ret_graph, struct err *err);

/* What graph_export() writes. */
struct graph_part {
    struct node *const *nodes; /* in executable order */
    size_t nodes_count;
    const struct tensor_desc *inputs, *outputs; /* names are those of values */
    size_t inputs_count, outputs_count;
};

/* Writes a part as an ONNX file (export.c). Constants that its nodes read are written as
 * initializers, aligned in the file so that a reader can use them in place. Every value that a node
 * of the part reads must be an input of the part, an output of one of its nodes, or have a constant
 * with data. Written beside path, synced, renamed. -errno. */
int graph_export(const struct graph *graph, const struct graph_part *part, const char *path,
                 struct err *err);

/* ---- attributes
 * -------------------------------------------------------------------------------------------------
 */

/* The attribute of that name, or NULL. */
const struct attr *node_attr(const struct node *node, const char *name);
/* Its value, or fallback where it is absent (its kind was checked against the operator table). */
int64_t node_int(const struct node *node, const char *name, int64_t fallback);
float node_float(const struct node *node, const char *name, float fallback);
const char *node_string(const struct node *node, const char *name, const char *fallback);
/* The integers, or NULL with *ret_count 0. */
const int64_t *node_ints(const struct node *node, const char *name, size_t *ret_count);
const float *node_floats(const struct node *node, const char *name, size_t *ret_count);

#endif
