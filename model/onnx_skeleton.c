#include "model/onnx_skeleton.h"

#include "model/graph.h"
#include "model/onnx_wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum action {
    KEEP,   /* as it is */
    TEXT,   /* as it is, once checked */
    CHILD,  /* a message of which we keep parts */
    HOLLOW, /* without its content: only its presence matters */
};

#define ON_VARINT (1U << WIRE_VARINT)
#define ON_BYTES  (1U << WIRE_BYTES)
#define ON_32     (1U << WIRE_32)

struct message_rule;

/* What becomes of a field; fields without a rule are left out. */
struct field_rule {
    uint32_t number;
    const char *name;
    enum action action;
    unsigned wire;                    /* wire types that it may have */
    bool once;                        /* a second occurrence is refused */
    const struct message_rule *child; /* CHILD */
};

#define FIELDS_MAX 18

struct message_rule {
    bool is_tensor;                       /* body_offset and body_size are added */
    struct field_rule fields[FIELDS_MAX]; /* up to one without a name */
};

#define BODY_OFFSET_FIELD 2000
#define BODY_SIZE_FIELD   2001

static const struct message_rule opset_rule = {
    false,
    {{1, "domain", TEXT, ON_BYTES, true, NULL}, {2, "version", KEEP, ON_VARINT, true, NULL}}};

static const struct message_rule entry_rule = {
    false, {{1, "key", TEXT, ON_BYTES, true, NULL}, {2, "value", TEXT, ON_BYTES, true, NULL}}};

static const struct message_rule tensor_rule = {
    true,
    {{1, "dims", KEEP, ON_VARINT | ON_BYTES, false, NULL},
     {2, "data_type", KEEP, ON_VARINT, true, NULL},
     {3, "segment", HOLLOW, ON_BYTES, true, NULL},
     {8, "name", TEXT, ON_BYTES, true, NULL},
     {13, "external_data", CHILD, ON_BYTES, false, &entry_rule},
     {14, "data_location", KEEP, ON_VARINT, true, NULL}}};

static const struct message_rule dimension_rule = {
    false,
    {{1, "dim_value", KEEP, ON_VARINT, true, NULL}, {2, "dim_param", TEXT, ON_BYTES, true, NULL}}};

static const struct message_rule shape_rule = {
    false, {{1, "dim", CHILD, ON_BYTES, false, &dimension_rule}}};

static const struct message_rule tensor_type_rule = {
    false,
    {{1, "elem_type", KEEP, ON_VARINT, true, NULL},
     {2, "shape", CHILD, ON_BYTES, true, &shape_rule}}};

static const struct message_rule type_rule = {
    false,
    {{1, "tensor_type", CHILD, ON_BYTES, true, &tensor_type_rule},
     {4, "sequence_type", HOLLOW, ON_BYTES, true, NULL},
     {5, "map_type", HOLLOW, ON_BYTES, true, NULL},
     {8, "sparse_tensor_type", HOLLOW, ON_BYTES, true, NULL},
     {9, "optional_type", HOLLOW, ON_BYTES, true, NULL}}};

static const struct message_rule value_info_rule = {
    false,
    {{1, "name", TEXT, ON_BYTES, true, NULL}, {2, "type", CHILD, ON_BYTES, true, &type_rule}}};

static const struct message_rule attribute_rule = {
    false,
    {{1, "name", TEXT, ON_BYTES, true, NULL},
     {2, "f", KEEP, ON_32, true, NULL},
     {3, "i", KEEP, ON_VARINT, true, NULL},
     {4, "s", KEEP, ON_BYTES, true, NULL},
     {5, "t", CHILD, ON_BYTES, true, &tensor_rule},
     {6, "g", HOLLOW, ON_BYTES, true, NULL},
     {7, "floats", KEEP, ON_32 | ON_BYTES, false, NULL},
     {8, "ints", KEEP, ON_VARINT | ON_BYTES, false, NULL},
     {9, "strings", KEEP, ON_BYTES, false, NULL},
     {10, "tensors", HOLLOW, ON_BYTES, false, NULL},
     {11, "graphs", HOLLOW, ON_BYTES, false, NULL},
     {14, "tp", HOLLOW, ON_BYTES, true, NULL},
     {15, "type_protos", HOLLOW, ON_BYTES, false, NULL},
     {20, "type", KEEP, ON_VARINT, true, NULL},
     {21, "ref_attr_name", TEXT, ON_BYTES, true, NULL},
     {22, "sparse_tensor", HOLLOW, ON_BYTES, true, NULL},
     {23, "sparse_tensors", HOLLOW, ON_BYTES, false, NULL}}};

static const struct message_rule node_rule = {
    false,
    {{1, "input", TEXT, ON_BYTES, false, NULL},
     {2, "output", TEXT, ON_BYTES, false, NULL},
     {3, "name", TEXT, ON_BYTES, true, NULL},
     {4, "op_type", TEXT, ON_BYTES, true, NULL},
     {5, "attribute", CHILD, ON_BYTES, false, &attribute_rule},
     {7, "domain", TEXT, ON_BYTES, true, NULL}}};

static const struct message_rule graph_rule = {
    false,
    {{1, "node", CHILD, ON_BYTES, false, &node_rule},
     {2, "name", TEXT, ON_BYTES, true, NULL},
     {5, "initializer", CHILD, ON_BYTES, false, &tensor_rule},
     {11, "input", CHILD, ON_BYTES, false, &value_info_rule},
     {12, "output", CHILD, ON_BYTES, false, &value_info_rule},
     {15, "sparse_initializer", HOLLOW, ON_BYTES, false, NULL}}};

static const struct message_rule model_rule = {
    false,
    {{1, "ir_version", KEEP, ON_VARINT, true, NULL},
     {7, "graph", CHILD, ON_BYTES, true, &graph_rule},
     {8, "opset_import", CHILD, ON_BYTES, false, &opset_rule},
     {25, "functions", HOLLOW, ON_BYTES, false, NULL}}};

/* Where the walk is, for sentences: a list from a field up to the file. */
struct place {
    const struct place *up;
    const struct field_rule *field;
    size_t index; /* among the fields of that name */
};

struct walker {
    const uint8_t *file;
    uint8_t *out;
    size_t size, room; /* of out */
    struct err *err;
};

/* Writes "graph.node[12].attribute[0]" into buf, which it may fill up. */
static size_t format_place(const struct place *place, char *buf, size_t size) {
    size_t len = place->up ? format_place(place->up, buf, size) : 0;
    if (!place->field || len >= size)
        return len;
    int more = snprintf(buf + len, size - len, place->field->once ? "%s%s" : "%s%s[%zu]",
                        len > 0 ? "." : "", place->field->name, place->index);
    return more < 0 ? len : len + (size_t)more;
}

static int refuse(const struct walker *walker, const struct place *place, const uint8_t *at,
                  const char *why) {
    char where[256] = "";
    format_place(place, where, sizeof(where));
    return err_set(walker->err, -EBADMSG, "not a valid ONNX file: %s%s%s (at byte %zu)", where,
                   *where ? ": " : "", why, (size_t)(at - walker->file));
}

/* Room for more bytes at out + size. */
static int reserve(struct walker *walker, size_t more) {
    if (more > ONNX_SKELETON_MAX - walker->size)
        return err_set(walker->err, -EMSGSIZE,
                       "the graph without its weights is larger than %zu MiB",
                       ONNX_SKELETON_MAX >> 20);
    if (walker->size + more <= walker->room)
        return 0;
    size_t room = walker->room ? walker->room : 4096;
    while (room < walker->size + more)
        room *= 2;
    uint8_t *out = realloc(walker->out, room);
    if (!out)
        return err_set(walker->err, -ENOMEM, "out of memory");
    walker->out = out;
    walker->room = room;
    return 0;
}

static void put_varint(struct walker *walker, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        walker->out[walker->size++] = (uint8_t)(value | 0x80);
    walker->out[walker->size++] = (uint8_t)value;
}

/* Tags and varints take at most this each. */
#define VARINT_ROOM 10
#define LENGTH_ROOM 5

static int put_number(struct walker *walker, uint32_t number, uint64_t value) {
    int rc = reserve(walker, 2 * VARINT_ROOM);
    if (rc < 0)
        return rc;
    put_varint(walker, (uint64_t)number << 3 | WIRE_VARINT);
    put_varint(walker, value);
    return 0;
}

static int put_field(struct walker *walker, const struct wire_field *field, size_t size) {
    int rc;
    if (field->type == WIRE_VARINT)
        return put_number(walker, field->number, field->varint);
    /* size is bounded by a file's, so the sum cannot wrap. */
    if ((rc = reserve(walker, size)) < 0 || (rc = reserve(walker, 2 * VARINT_ROOM + size)) < 0)
        return rc;
    put_varint(walker, (uint64_t)field->number << 3 | field->type);
    if (field->type == WIRE_BYTES)
        put_varint(walker, size);
    if (size > 0)
        memcpy(walker->out + walker->size, field->data, size);
    walker->size += size;
    return 0;
}

static int walk(struct walker *walker, const struct message_rule *message, struct wire wire,
                const struct place *place);

static int put_child(struct walker *walker, const struct wire_field *field,
                     const struct place *place) {
    int rc = reserve(walker, VARINT_ROOM + LENGTH_ROOM);
    if (rc < 0)
        return rc;
    put_varint(walker, (uint64_t)field->number << 3 | WIRE_BYTES);
    size_t length_at = walker->size;
    walker->size += LENGTH_ROOM;
    rc = walk(walker, place->field->child,
              (struct wire){.at = field->data, .end = field->data + field->size}, place);
    if (rc < 0)
        return rc;
    size_t length = walker->size - length_at - LENGTH_ROOM;
    for (unsigned i = 0; i < LENGTH_ROOM; i++, length >>= 7)
        walker->out[length_at + i] = (uint8_t)((length & 0x7f) | (i + 1 < LENGTH_ROOM ? 0x80 : 0));
    return 0;
}

static int put_by_rule(struct walker *walker, const struct wire_field *field,
                       const struct place *place, const uint8_t *at) {
    const struct field_rule *rule = place->field;
    if (!(rule->wire & 1U << field->type))
        return refuse(walker, place, at, "the field has another type there");
    if (rule->once && place->index > 0)
        return refuse(walker, place, at, "the field occurs twice");
    switch (rule->action) {
    case CHILD:
        return put_child(walker, field, place);
    case HOLLOW:
        return put_field(walker, field, 0);
    case TEXT:
        if (field->size > GRAPH_NAME_MAX)
            return refuse(walker, place, at, "the text is too long");
        if (!wire_is_text(field->data, field->size))
            return refuse(walker, place, at, "the text is not UTF-8");
        return put_field(walker, field, field->size);
    case KEEP:
        return put_field(walker, field, field->size);
    }
    return 0;
}

static int walk(struct walker *walker, const struct message_rule *message, struct wire wire,
                const struct place *place) {
    size_t seen[FIELDS_MAX] = {0};
    struct wire_field field;
    const uint8_t *begin = wire.at, *at = wire.at;
    const char *why = NULL;
    int rc;
    for (; (rc = wire_next(&wire, &field, &why)) == 1; at = wire.at) {
        unsigned i = 0;
        while (i < FIELDS_MAX && message->fields[i].name &&
               message->fields[i].number != field.number)
            i++;
        if (i == FIELDS_MAX || !message->fields[i].name)
            continue;
        struct place inner = {.up = place, .field = &message->fields[i], .index = seen[i]++};
        if ((rc = put_by_rule(walker, &field, &inner, at)) < 0)
            return rc;
    }
    if (rc < 0)
        return refuse(walker, place, at, why);
    if (message->is_tensor &&
        ((rc = put_number(walker, BODY_OFFSET_FIELD, (uint64_t)(begin - walker->file))) < 0 ||
         (rc = put_number(walker, BODY_SIZE_FIELD, (uint64_t)(wire.end - begin))) < 0))
        return rc;
    return 0;
}

int onnx_skeleton(const uint8_t *file, size_t size, uint8_t **ret_skeleton, size_t *ret_size,
                  struct err *err) {
    struct walker walker = {.file = file, .err = err};
    struct place top = {0};
    int rc = reserve(&walker, 1); /* so that an empty message is no NULL */
    if (rc == 0)
        rc = walk(&walker, &model_rule, (struct wire){.at = file, .end = file + size}, &top);
    if (rc < 0) {
        free(walker.out);
        return rc;
    }
    *ret_skeleton = walker.out;
    *ret_size = walker.size;
    return 0;
}
