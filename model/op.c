#include "model/op.h"

#include "model/fold.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- finding an operator ---- */

static enum attr_kind attr_kind_of(char letter) {
    switch (letter) {
    case 'i':
        return ATTR_INT;
    case 'f':
        return ATTR_FLOAT;
    case 's':
        return ATTR_STRING;
    case 't':
        return ATTR_TENSOR;
    case 'I':
        return ATTR_INTS;
    case 'F':
        return ATTR_FLOATS;
    default:
        return ATTR_STRINGS;
    }
}

/* Where the attribute stands in "axis:i perm:I", or NULL; *ret_kind is its letter. */
static const char *attr_in_spec(const char *spec, const char *name, char *ret_kind) {
    size_t len = strlen(name);
    for (const char *p = spec; *p;) {
        size_t word = strcspn(p, " ");
        if (word == len + 2 && memcmp(p, name, len) == 0 && p[len] == ':') {
            *ret_kind = p[len + 1];
            return p;
        }
        p += word;
        p += strspn(p, " ");
    }
    return NULL;
}

static int node_fail(const struct node *node, struct err *err, int code, const char *text) {
    return err_set(err, code, "node '%s' (%s, opset %d): %s", node->name, node->op_type,
                   node->opset, text);
}

static int check_attrs(const struct node *node, const struct op *op, struct err *err) {
    char text[256];
    for (size_t i = 0; i < node->attrs_count; i++) {
        const struct attr *attr = &node->attrs[i];
        char letter;
        if (!attr_in_spec(op->attrs, attr->name, &letter)) {
            snprintf(text, sizeof(text), "attribute '%.100s' is not supported%s%.80s", attr->name,
                     *op->attrs ? "; known are " : "; it has none", op->attrs);
            return node_fail(node, err, -ENOTSUP, text);
        }
        if (attr->kind != attr_kind_of(letter)) {
            snprintf(text, sizeof(text), "attribute '%.100s' has the wrong kind", attr->name);
            return node_fail(node, err, -EBADMSG, text);
        }
    }
    return 0;
}

static int check_counts(const struct node *node, const struct op *op, struct err *err) {
    char text[128];
    if (node->inputs_count < (size_t)op->in_min || node->inputs_count > (size_t)op->in_max) {
        snprintf(text, sizeof(text), "has %zu inputs instead of %d to %d", node->inputs_count,
                 op->in_min, op->in_max);
        return node_fail(node, err, -EBADMSG, text);
    }
    for (int i = 0; i < op->in_min; i++)
        if (!node->inputs[i]) {
            snprintf(text, sizeof(text), "input %d is missing", i);
            return node_fail(node, err, -EBADMSG, text);
        }
    if (node->outputs_count < 1 || node->outputs_count > (size_t)op->out_max) {
        snprintf(text, sizeof(text), "has %zu outputs instead of 1 to %d", node->outputs_count,
                 op->out_max);
        return node_fail(node, err, -EBADMSG, text);
    }
    return 0;
}

/* Says which opsets of the operator are supported, if any are. */
static int op_unknown(const struct node *node, struct err *err) {
    size_t count;
    const struct op *table = op_table(&count);
    int since = 0, until = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].name, node->op_type) != 0)
            continue;
        if (since == 0 || table[i].since < since)
            since = table[i].since;
        if (table[i].until > until)
            until = table[i].until;
    }
    if (*node->domain)
        return err_set(err, -ENOTSUP,
                       "node '%s': operator %s of domain '%s' is not supported; only ONNX's own "
                       "operators are",
                       node->name, node->op_type, node->domain);
    if (since == 0)
        return err_set(
            err, -ENOTSUP,
            "node '%s': operator %s (opset %d) is not supported; `convoyctl ops` lists what is",
            node->name, node->op_type, node->opset);
    return err_set(err, -ENOTSUP,
                   "node '%s': operator %s (opset %d) is not supported; %s of opsets %d to %d is: "
                   "export the model with one of these",
                   node->name, node->op_type, node->opset, node->op_type, since, until);
}

int op_find(const struct node *node, const struct op **ret_op, struct err *err) {
    size_t count;
    const struct op *table = op_table(&count);
    for (size_t i = 0; i < count && !*node->domain; i++) {
        const struct op *op = &table[i];
        if (node->opset < op->since || node->opset > op->until ||
            strcmp(op->name, node->op_type) != 0)
            continue;
        int rc = check_counts(node, op, err);
        if (rc == 0)
            rc = check_attrs(node, op, err);
        if (rc == 0)
            *ret_op = op;
        return rc;
    }
    return op_unknown(node, err);
}

/* ---- for plan() ---- */

int op_fail(const struct op_call *call, int code, const char *fmt, ...) {
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return node_fail(call->node, call->err, code, text);
}

static struct value *input_value(const struct op_call *call, size_t i) {
    return i < call->node->inputs_count ? call->node->inputs[i] : NULL;
}

const struct tensor_desc *op_in(const struct op_call *call, size_t i) {
    return i < call->node->inputs_count ? call->in[i] : NULL;
}

struct tensor_desc *op_out(const struct op_call *call, size_t i) {
    return i < call->node->outputs_count ? call->out[i] : NULL;
}

void op_set_bound(const struct op_call *call, size_t i, int d) {
    struct tensor_desc *out = op_out(call, i);
    if (out && d < out->rank)
        out->bounded |= (uint8_t)(1U << d);
}

int op_set(const struct op_call *call, size_t i, enum dtype dtype, int rank, const int64_t *dims) {
    struct tensor_desc *out = op_out(call, i);
    if (!out)
        return 0;
    if (rank < 0 || rank > TENSOR_MAX_RANK)
        return op_fail(call, -ENOTSUP, "output has %d dimensions; at most %d are supported", rank,
                       TENSOR_MAX_RANK);
    struct tensor_desc desc = {.name = out->name, .dtype = dtype, .rank = rank};
    for (int d = 0; d < rank; d++) {
        if (dims[d] < 0)
            return op_fail(call, -EBADMSG, "output dimension %d would be %lld", d,
                           (long long)dims[d]);
        if (dims[d] > OP_DIM_MAX)
            return op_fail(call, -ENOTSUP, "output dimension %d of %lld is too large", d,
                           (long long)dims[d]);
        desc.dims[d] = dims[d];
    }
    size_t bytes;
    if (tensor_desc_bytes(&desc, &bytes) < 0 || bytes > OP_TENSOR_BYTES_MAX)
        return op_fail(call, -ENOTSUP, "output is too large");
    *out = desc;
    return 0;
}

int op_type(const struct op_call *call, size_t i, unsigned mask) {
    const struct tensor_desc *in = op_in(call, i);
    if (!in)
        return op_fail(call, -EBADMSG, "input %zu is missing", i);
    if (!(OP_TYPE(in->dtype) & mask))
        return op_fail(call, -ENOTSUP, "input %zu of type %s is not supported", i,
                       dtype_name(in->dtype));
    return 0;
}

int op_rank(const struct op_call *call, size_t i, int min, int max) {
    const struct tensor_desc *in = op_in(call, i);
    if (!in)
        return op_fail(call, -EBADMSG, "input %zu is missing", i);
    if (in->rank < min || in->rank > max)
        return op_fail(call, -ENOTSUP, "input %zu has %d dimensions instead of %d to %d", i,
                       in->rank, min, max);
    return 0;
}

int op_axis(const struct op_call *call, int64_t axis, int rank, int *ret_axis) {
    if (axis < -rank || axis >= rank)
        return op_fail(call, -EBADMSG, "axis %lld of a tensor with %d dimensions", (long long)axis,
                       rank);
    *ret_axis = (int)(axis < 0 ? axis + rank : axis);
    return 0;
}

bool op_constant(const struct op_call *call, size_t i) {
    const struct value *value = input_value(call, i);
    return value && value->constant;
}

bool op_known(const struct op_call *call, size_t i) {
    return op_constant(call, i) || (call->frame && op_in(call, i));
}

bool op_bounded(const struct op_call *call, size_t i) {
    const struct value *value = input_value(call, i);
    return op_known(call, i) || (value && value->least);
}

/* Where the numbers of input i are, at most max of them; *ret is NULL where it is absent. The
 * description is that of op_in(). */
static int find_numbers(const struct op_call *call, size_t i, size_t max, bool sizes,
                        const void **ret) {
    struct value *value = input_value(call, i);
    const struct constant *constant;
    *ret = NULL;
    if (!value || !op_in(call, i))
        return 0;
    if (!op_known(call, i) && !(sizes && value->least))
        return op_fail(call, -ENOTSUP, "input %zu ('%s') must be known when the model is loaded", i,
                       value->name);
    if (op_count(op_in(call, i)) > max)
        return op_fail(call, -EBADMSG, "input %zu ('%s') has %zu elements; at most %zu make sense",
                       i, value->name, op_count(op_in(call, i)), max);
    if (call->frame) {
        *ret = call->frame[i]->data;
        return *ret ? 0 : op_fail(call, -ENOTSUP, "input %zu is too large to be planned with", i);
    }
    if (!value->constant) {
        *ret = call->least ? value->least : value->most;
        return 0;
    }
    int rc = fold_numbers(call->fold, value, &constant, call->err);
    if (rc == 0)
        *ret = constant->data;
    return rc;
}

int op_numbers(const struct op_call *call, size_t i, size_t max, const void **ret) {
    return find_numbers(call, i, max, false, ret);
}

static int read_ints(const struct op_call *call, size_t i, size_t max, bool sizes, int64_t *ret,
                     size_t *ret_count) {
    const void *data;
    int rc = find_numbers(call, i, max, sizes, &data);
    if (rc < 0)
        return rc;
    *ret_count = 0;
    if (!data)
        return 0;
    const struct tensor_desc *desc = op_in(call, i);
    size_t count = op_count(desc);
    for (size_t k = 0; k < count; k++) {
        if (desc->dtype == DTYPE_INT64) {
            memcpy(&ret[k], (const char *)data + 8 * k, 8);
        } else if (desc->dtype == DTYPE_INT32) {
            int32_t small;
            memcpy(&small, (const char *)data + 4 * k, 4);
            ret[k] = small;
        } else {
            return op_fail(call, -EBADMSG, "input %zu must be integers", i);
        }
    }
    *ret_count = count;
    return 0;
}

int op_ints(const struct op_call *call, size_t i, int64_t *ret, size_t max, size_t *ret_count) {
    return read_ints(call, i, max, false, ret, ret_count);
}

int op_sizes(struct op_call *call, size_t i, int64_t *ret, size_t max, size_t *ret_count) {
    const struct value *value = input_value(call, i);
    if (!op_known(call, i) && value && value->least &&
        memcmp(value->least, value->most,
               op_count(op_in(call, i)) * dtype_size(op_in(call, i)->dtype)) != 0)
        call->inexact = true;
    return read_ints(call, i, max, true, ret, ret_count);
}

int op_floats(const struct op_call *call, size_t i, float *ret, size_t max, size_t *ret_count) {
    const void *data;
    int rc = find_numbers(call, i, max, false, &data);
    if (rc < 0)
        return rc;
    *ret_count = 0;
    if (!data)
        return 0;
    if (op_in(call, i)->dtype != DTYPE_FLOAT)
        return op_fail(call, -ENOTSUP, "input %zu must be float32", i);
    *ret_count = op_count(op_in(call, i));
    memcpy(ret, data, *ret_count * sizeof(float));
    return 0;
}

int op_choice(const struct op_call *call, const char *attr, const char *fallback,
              const char *const *names, size_t count, int *ret) {
    const char *name = node_string(call->node, attr, fallback);
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) {
            *ret = (int)i;
            return 0;
        }
    return op_fail(call, -EBADMSG, "%s '%.40s' is not known", attr, name);
}

int op_list(const struct op_call *call, const char *name, size_t i, int64_t *ret, size_t max,
            size_t *ret_count, bool *ret_given) {
    size_t count;
    const int64_t *ints = node_ints(call->node, name, &count);
    if (!ints) {
        *ret_given = input_value(call, i) != NULL;
        return op_ints(call, i, ret, max, ret_count);
    }
    if (count > max)
        return op_fail(call, -EBADMSG, "%s has %zu numbers; at most %zu make sense", name, count,
                       max);
    memcpy(ret, ints, count * sizeof(*ret));
    *ret_count = count;
    *ret_given = true;
    return 0;
}

/* ---- shapes ---- */

size_t op_count(const struct tensor_desc *desc) {
    return op_product(desc, 0, desc->rank);
}

size_t op_product(const struct tensor_desc *desc, int from, int to) {
    size_t count = 1;
    for (int i = from; i < to; i++)
        count *= (size_t)desc->dims[i];
    return count;
}

int op_broadcast(const int64_t *a, int a_rank, const int64_t *b, int b_rank, int64_t *ret_dims,
                 int *ret_rank) {
    int rank = a_rank > b_rank ? a_rank : b_rank;
    int64_t dims[TENSOR_MAX_RANK];
    for (int i = 1; i <= rank; i++) {
        int64_t da = i <= a_rank ? a[a_rank - i] : 1;
        int64_t db = i <= b_rank ? b[b_rank - i] : 1;
        if (da != db && da != 1 && db != 1)
            return -EINVAL;
        dims[rank - i] = da == 1 ? db : da;
    }
    memcpy(ret_dims, dims, sizeof(dims[0]) * (size_t)rank);
    *ret_rank = rank;
    return 0;
}

void op_strides(const struct tensor_desc *desc, const struct kn_shape *shape, int64_t *ret) {
    uint64_t stride = 1; /* wraps where a dimension is 0: then nothing is read */
    for (int i = 1; i <= shape->rank; i++) {
        int64_t dim = i <= desc->rank ? desc->dims[desc->rank - i] : 1;
        ret[shape->rank - i] = dim == 1 ? 0 : (int64_t)stride;
        stride *= (uint64_t)dim;
    }
}

void op_shape(const struct tensor_desc *desc, struct kn_shape *ret_shape) {
    ret_shape->rank = desc->rank;
    memcpy(ret_shape->dims, desc->dims, sizeof(desc->dims[0]) * (size_t)desc->rank);
}

/* ---- for run() ---- */

void op_activate(const struct op_args *args) {
    if (args->act.kind == KN_ACT_NONE)
        return;
    float *y = args->out[0]->data;
    kn_activate(&args->act, y, y, op_count(&args->out[0]->desc), args->threads);
}

/* The weights of a node that is run by itself, from its inputs' numbers. */
static int eval_prepare(const struct op *op, struct op_prep *prep, const struct tensor *const *in,
                        size_t in_count) {
    struct constant *constants = calloc(in_count + 1, sizeof(*constants));
    const struct constant **numbers = calloc(in_count + 1, sizeof(*numbers));
    int rc = constants && numbers ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < in_count; i++) {
        if (!in[i] || !prep->node->inputs[i]->constant)
            continue;
        constants[i] = (struct constant){.desc = in[i]->desc, .data = in[i]->data};
        rc = tensor_desc_bytes(&in[i]->desc, &constants[i].bytes);
        numbers[i] = &constants[i];
    }
    prep->numbers = numbers;
    if (rc == 0)
        rc = op->kind->pack(prep);
    free(constants);
    free(numbers);
    return rc;
}

int op_eval(const struct op *op, const struct node *node, const void *plan,
            const struct tensor *const *in, struct tensor *const *out, struct err *err) {
    struct op_prep prep = {.node = node, .plan = plan, .threads = 1};
    void *workspace = NULL;
    int rc = op->kind->size ? op->kind->size(&prep) : 0;
    if (rc == 0 && prep.bytes > 0) {
        prep.data = tensor_buffer_new(prep.bytes);
        rc = prep.data ? eval_prepare(op, &prep, in, node->inputs_count) : -ENOMEM;
    }
    if (rc == 0 && prep.workspace_bytes > 0) {
        workspace = tensor_buffer_new(prep.workspace_bytes);
        rc = workspace ? 0 : -ENOMEM;
    }
    if (rc == 0) {
        struct op_args args = {.op = op,
                               .plan = plan,
                               .packed = prep.data,
                               .in = in,
                               .out = out,
                               .in_count = node->inputs_count,
                               .out_count = node->outputs_count,
                               .workspace = workspace,
                               .err = err};
        rc = op->kind->run(&args);
    }
    tensor_buffer_free(workspace);
    tensor_buffer_free(prep.data);
    return rc;
}
