/* Models in float16 are computed in float32: this pass puts a Cast behind every float16 value that
 * an operator reads, and one in front of every output of the graph that is declared as float16.
 * Then inference sees float32 inside, and fuses as ever; weights are widened when a layer is
 * prepared. What stays float16 is read by Cast alone (and by Shape and Size, which read no
 * numbers), so the pass finds nothing to do in a part of the model that was written by
 * model_write_part().
 */
#include "model/net.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

struct halves {
    struct graph *graph;
    void *names; /* tsearch() tree of all values, by name; made when the first one is added */
    struct node **nodes; /* the new list */
    size_t nodes_count;
    struct err *err;
};

static int no_memory(const struct halves *halves) {
    return err_set(halves->err, -ENOMEM, "no memory to widen float16");
}

/* ---- values ---- */

static int compare_names(const void *a, const void *b) {
    return strcmp(((const struct value *)a)->name, ((const struct value *)b)->name);
}

static void forget(void *item) {
    (void)item; /* the graph's */
}

static int note_names(struct halves *halves) {
    for (size_t i = 0; i < halves->graph->values_count; i++)
        if (!tsearch(halves->graph->values[i], &halves->names, compare_names))
            return no_memory(halves);
    return 0;
}

/* A value named after another one: "w/float32", with more slashes where that is taken. */
static int add_value(struct halves *halves, const struct value *like, struct value **ret) {
    static const char suffix[] = "/float32";
    size_t len = strlen(like->name) + sizeof(suffix) - 1, room = len + GRAPH_NAME_MAX;
    int rc = halves->names ? 0 : note_names(halves);
    char *name = rc == 0 ? calloc(1, room + 1) : NULL;
    struct value *value = NULL;
    if (!name)
        return no_memory(halves);
    memcpy(name, like->name, strlen(like->name));
    memcpy(name + strlen(like->name), suffix, sizeof(suffix));
    const struct value key = {.name = name};
    while (len < room && tfind(&key, &halves->names, compare_names))
        name[len++] = '/';
    value = graph_add_value(halves->graph, name, len);
    free(name);
    if (!value || !tsearch(value, &halves->names, compare_names))
        return no_memory(halves);
    *ret = value;
    return 0;
}

/* ---- nodes ---- */

static int add_cast(struct halves *halves, struct value *from, struct value *to, enum dtype type,
                    int opset) {
    struct graph *graph = halves->graph;
    struct node *node = graph_alloc(graph, sizeof(*node));
    struct attr *attr = graph_alloc(graph, sizeof(*attr));
    struct value **ends = graph_alloc(graph, 2 * sizeof(*ends));
    if (!node || !attr || !ends)
        return no_memory(halves);
    *attr = (struct attr){.name = "to", .kind = ATTR_INT, .i = type};
    ends[0] = from;
    ends[1] = to;
    *node = (struct node){.name = type == DTYPE_FLOAT ? to->name : from->name,
                          .op_type = "Cast",
                          .domain = "",
                          .opset = opset,
                          .inputs = &ends[0],
                          .inputs_count = 1,
                          .outputs = &ends[1],
                          .outputs_count = 1,
                          .attrs = attr,
                          .attrs_count = 1};
    halves->nodes[halves->nodes_count++] = node;
    return 0;
}

static bool is_named(const struct node *node, const char *const *names) {
    for (; *names && *node->domain == '\0'; names++)
        if (strcmp(node->op_type, *names) == 0)
            return true;
    return false;
}

/* Whether the node reads float16 as it is. */
static bool reads_half(const struct node *node) {
    static const char *const names[] = {"Cast", "Shape", "Size", NULL};
    return is_named(node, names);
}

/* Whether the node's results are float16 because an attribute says so. */
static bool makes_half(const struct node *node) {
    static const char *const names[] = {"Cast", "ConstantOfShape", "EyeLike", NULL};
    const struct attr *value = node_attr(node, "value");
    if (!is_named(node, names))
        return false;
    return node_int(node, "to", 0) == DTYPE_FLOAT16 ||
           node_int(node, "dtype", 0) == DTYPE_FLOAT16 ||
           (value && value->kind == ATTR_TENSOR && value->t->desc.dtype == DTYPE_FLOAT16);
}

static bool is_half(const struct value *value) {
    if (value->constant)
        return value->constant->desc.dtype == DTYPE_FLOAT16;
    if (!value->producer)
        return value->desc.dtype == DTYPE_FLOAT16;
    return makes_half(value->producer);
}

/* Puts a Cast in front of a node for each float16 value that no earlier node has widened;
 * value->note is the widened one. */
static int widen_inputs(struct halves *halves, struct node *node) {
    for (size_t i = 0; i < node->inputs_count; i++) {
        struct value *value = node->inputs[i], *wide;
        if (!value || !is_half(value))
            continue;
        if (!value->note) {
            int rc = add_value(halves, value, &wide);
            if (rc == 0)
                rc = add_cast(halves, value, wide, DTYPE_FLOAT, node->opset);
            if (rc < 0)
                return rc;
            value->note = wide;
        }
        node->inputs[i] = value->note;
    }
    return 0;
}

/* Outputs of the graph that are declared as float16: the node makes another value, which the
 * graph's other nodes read. */
static int narrow_outputs(struct halves *halves, struct node *node) {
    for (size_t i = 0; i < node->outputs_count; i++) {
        struct value *value = node->outputs[i], *wide;
        if (!value || !value->is_output || value->declared != DTYPE_FLOAT16)
            continue;
        int rc = add_value(halves, value, &wide);
        if (rc == 0)
            rc = add_cast(halves, wide, value, DTYPE_FLOAT16, node->opset);
        if (rc < 0)
            return rc;
        node->outputs[i] = wide;
        for (size_t c = 0; c < value->consumers_count; c++)
            for (size_t k = 0; k < value->consumers[c]->inputs_count; k++)
                if (value->consumers[c]->inputs[k] == value)
                    value->consumers[c]->inputs[k] = wide;
    }
    return 0;
}

/* Whether there is any float16 at all. */
static bool has_halves(const struct graph *graph) {
    for (size_t i = 0; i < graph->values_count; i++)
        if (is_half(graph->values[i]) || graph->values[i]->declared == DTYPE_FLOAT16)
            return true;
    return false;
}

int net_widen(struct graph *graph, struct err *err) {
    struct halves halves = {.graph = graph, .err = err};
    int rc = 0;
    if (!has_halves(graph))
        return 0;
    size_t room = graph->nodes_count + graph->values_count;
    halves.nodes = graph_alloc(graph, room * sizeof(struct node *));
    if (!halves.nodes)
        return no_memory(&halves);
    for (size_t i = 0; rc == 0 && i < graph->nodes_count; i++) {
        struct node *node = graph->nodes[i];
        if (!reads_half(node))
            rc = widen_inputs(&halves, node);
        halves.nodes[halves.nodes_count++] = node;
        if (rc == 0 && !makes_half(node))
            rc = narrow_outputs(&halves, node);
    }
    tdestroy(halves.names, forget);
    if (rc < 0)
        return rc;
    graph->nodes = halves.nodes;
    graph->nodes_count = halves.nodes_count;
    for (size_t i = 0; i < graph->values_count; i++)
        graph->values[i]->note = NULL;
    return graph_link(graph) < 0 ? no_memory(&halves) : 0;
}
