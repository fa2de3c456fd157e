#include "model/onnx_tensor.h"

#include "model/import.h"
#include "model/onnx_wire.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor data is used in place");

#define RAW_DATA_FIELD 9

const char *tensor_onnx_type(int32_t data_type) {
    static const char *const names[] = {
        "undefined", "float",  "uint8",   "int8",   "uint16", "int16",  "int32",     "int64",
        "string",    "bool",   "float16", "double", "uint32", "uint64", "complex64", "complex128",
        "bfloat16",  "float8", "float8",  "float8", "float8", "uint4",  "int4",
    };
    return data_type >= 0 && (size_t)data_type < sizeof(names) / sizeof(names[0]) ? names[data_type]
                                                                                  : "unknown";
}

/* Which field holds numbers of a type when they are not raw, and how. */
struct typed_field {
    enum dtype dtype;
    uint32_t number;
    enum wire_type wire; /* of one element */
    int64_t least, most; /* of an integer */
};

static const struct typed_field typed_fields[] = {
    {DTYPE_FLOAT, 4, WIRE_32, 0, 0},
    {DTYPE_DOUBLE, 10, WIRE_64, 0, 0},
    {DTYPE_INT64, 7, WIRE_VARINT, INT64_MIN, INT64_MAX},
    {DTYPE_INT32, 5, WIRE_VARINT, INT32_MIN, INT32_MAX},
    {DTYPE_UINT8, 5, WIRE_VARINT, 0, UINT8_MAX},
    {DTYPE_INT8, 5, WIRE_VARINT, INT8_MIN, INT8_MAX},
    {DTYPE_BOOL, 5, WIRE_VARINT, 0, 1},
    {DTYPE_INT16, 5, WIRE_VARINT, INT16_MIN, INT16_MAX},
    {DTYPE_UINT16, 5, WIRE_VARINT, 0, UINT16_MAX},
    {DTYPE_UINT32, 11, WIRE_VARINT, 0, UINT32_MAX},
    {DTYPE_UINT64, 11, WIRE_VARINT, INT64_MIN, INT64_MAX}, /* all 64 bits */
    {DTYPE_FLOAT16, 5, WIRE_VARINT, 0, UINT16_MAX},
};

/* Numbers of the *_data fields, which are packed or not. */
static bool is_data_field(uint32_t number) {
    static const uint32_t numbers[] = {4, 5, 6, 7, RAW_DATA_FIELD, 10, 11};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i] == number)
            return true;
    return false;
}

/* What the fields of a tensor hold: raw_data, or elements in one or more pieces. */
struct found {
    const uint8_t *data; /* of raw_data, or of the first packed piece */
    size_t size;         /* of raw_data, or of all pieces together */
    size_t pieces;
    bool is_raw;
    bool is_packed; /* the first piece is a packed list */
};

static int find_data(struct wire body, const struct typed_field *typed, struct found *ret_found,
                     struct err *err) {
    struct found found = {0};
    struct wire_field field;
    const char *why;
    while (wire_next(&body, &field, &why) == 1) { /* the skeleton has checked the syntax */
        bool is_raw = field.number == RAW_DATA_FIELD && field.type == WIRE_BYTES;
        if (!is_data_field(field.number))
            continue;
        if (!is_raw && (field.number != typed->number ||
                        (field.type != WIRE_BYTES && field.type != typed->wire)))
            return err_set(err, -EBADMSG, "its data is in a field for another element type");
        if (found.pieces > 0 && (is_raw || found.is_raw))
            return err_set(err, -EBADMSG, "it has data twice");
        size_t size = field.type == WIRE_VARINT ? 1 : field.size;
        found.is_raw = is_raw;
        if (found.pieces++ == 0) {
            found.data = field.data;
            found.is_packed = field.type == WIRE_BYTES;
        }
        found.size += size; /* of parts of one file: no overflow */
    }
    *ret_found = found;
    return 0;
}

/* Where decoded elements go. */
struct sink {
    const struct typed_field *typed;
    uint8_t *at;
    size_t element, left; /* bytes of one; elements still missing */
};

static int put_integer(struct sink *sink, uint64_t bits) {
    int64_t value = (int64_t)bits;
    if (sink->left == 0 || value < sink->typed->least || value > sink->typed->most)
        return -EBADMSG;
    memcpy(sink->at, &bits, sink->element); /* little-endian: the low bytes */
    sink->at += sink->element;
    sink->left--;
    return 0;
}

static int put_bytes(struct sink *sink, const uint8_t *data, size_t size) {
    if (size % sink->element != 0 || size / sink->element > sink->left)
        return -EBADMSG;
    if (size > 0)
        memcpy(sink->at, data, size);
    sink->at += size;
    sink->left -= size / sink->element;
    return 0;
}

static int put_piece(struct sink *sink, const struct wire_field *field) {
    struct wire list = {.at = field->data, .end = field->data + field->size};
    uint64_t bits;
    int rc;
    if (field->type == WIRE_VARINT)
        return put_integer(sink, field->varint);
    if (sink->typed->wire != WIRE_VARINT)
        return put_bytes(sink, field->data, field->size);
    while ((rc = wire_next_varint(&list, &bits)) == 1)
        if (put_integer(sink, bits) < 0)
            return -EBADMSG;
    return rc;
}

/* Decodes elements into memory of the graph. */
static int decode_data(struct graph *graph, struct wire body, const struct typed_field *typed,
                       size_t count, struct constant *constant, struct err *err) {
    struct wire_field field;
    const char *why;
    uint8_t *data = graph_alloc(graph, constant->bytes);
    if (!data)
        return err_set(err, -ENOMEM, "out of memory");
    struct sink sink = {
        .typed = typed, .at = data, .element = dtype_size(typed->dtype), .left = count};
    while (wire_next(&body, &field, &why) == 1)
        if (field.number == typed->number && put_piece(&sink, &field) < 0)
            return err_set(err, -EBADMSG,
                           "its data has more elements than its dims say, or one that is not %s",
                           dtype_name(typed->dtype));
    if (sink.left > 0)
        return err_set(err, -EBADMSG, "%zu of its %zu elements are missing", sink.left, count);
    constant->data = data;
    return 0;
}

static int read_inline(struct tensor_reader *reader, const Onnx__TensorProto *tensor,
                       const struct typed_field *typed, struct constant *constant,
                       struct err *err) {
    const uint8_t *begin = reader->file + tensor->body_offset;
    struct wire body = {.at = begin, .end = begin + tensor->body_size};
    struct found found = {0};
    size_t count = constant->bytes / dtype_size(typed->dtype);
    int rc = find_data(body, typed, &found, err);
    if (rc < 0)
        return rc;
    bool in_place = found.is_raw || (found.pieces == 1 && found.is_packed && found.size > 0 &&
                                     typed->wire != WIRE_VARINT);
    if (in_place) {
        if (found.size != constant->bytes)
            return err_set(err, -EBADMSG, "it has %zu bytes of data where its dims ask for %zu",
                           found.size, constant->bytes);
        constant->data = found.data;
        constant->in_file = true;
        return 0;
    }
    /* An element takes at least one byte in the file: what is allocated is bounded by that. */
    if (count > found.size)
        return err_set(err, -EBADMSG, "it has at most %zu elements where its dims ask for %zu",
                       found.size, count);
    return decode_data(reader->graph, body, typed, count, constant, err);
}

/* ---- external data ---- */

/* A decimal number of an external_data entry. */
static int parse_size(const char *text, size_t *ret_size) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > SIZE_MAX)
        return -EBADMSG;
    *ret_size = (size_t)value;
    return 0;
}

/* Whether a location is relative and without "..". */
static bool location_is_inside(const char *location) {
    if (location[0] == '\0' || location[0] == '/')
        return false;
    for (const char *part = location; *part != '\0';) {
        size_t len = strcspn(part, "/");
        if (len == 2 && part[0] == '.' && part[1] == '.')
            return false;
        part += len + (part[len] == '/');
    }
    return true;
}

static int map_external(struct tensor_reader *reader, const char *path,
                        struct external_file **ret_file, struct err *err) {
    struct external_file **end = &reader->externals;
    int rc;
    while (*end && strcmp((*end)->path, path) != 0)
        end = &(*end)->next;
    if (*end) {
        *ret_file = *end;
        return 0;
    }
    if (reader->externals_count >= EXTERNAL_FILES_MAX)
        return err_set(err, -EBADMSG, "more than %d files of external data", EXTERNAL_FILES_MAX);
    struct external_file *file = graph_alloc(reader->graph, sizeof(*file));
    if (!file || !(file->path = graph_strdup(reader->graph, path, strlen(path))))
        return err_set(err, -ENOMEM, "out of memory");
    rc = graph_map_file(reader->graph, path, &file->data, &file->size, err);
    if (rc < 0)
        return err_prefix(err, rc, "its external data");
    *end = file;
    reader->externals_count++;
    *ret_file = file;
    return 0;
}

/* Finds the file of a location inside the model's folder, following no link out of it. */
static int open_external(struct tensor_reader *reader, const char *location,
                         struct external_file **ret_file, struct err *err) {
    char joined[PATH_MAX];
    int rc;
    if (!location || !reader->folder || !location_is_inside(location))
        return err_set(err, -EBADMSG,
                       "its external data is at \"%s\", which is not inside the model's folder",
                       location ? location : "");
    int len = snprintf(joined, sizeof(joined), "%s/%s", reader->folder, location);
    if (len < 0 || (size_t)len >= sizeof(joined))
        return err_set(err, -EBADMSG, "the path of its external data is too long");
    char *path = realpath(joined, NULL);
    if (!path)
        return err_set(err, -errno, "cannot open its external data %s: %m", joined);
    size_t folder_len = strcmp(reader->folder, "/") == 0 ? 0 : strlen(reader->folder);
    if (strncmp(path, reader->folder, folder_len) != 0 || path[folder_len] != '/')
        rc = err_set(err, -EBADMSG, "its external data %s leads out of the model's folder", joined);
    else
        rc = map_external(reader, path, ret_file, err);
    free(path);
    return rc;
}

static int read_external(struct tensor_reader *reader, const Onnx__TensorProto *tensor,
                         struct constant *constant, struct err *err) {
    const char *location = NULL;
    size_t offset = 0, length = constant->bytes;
    struct external_file *file;
    for (size_t i = 0; i < tensor->n_external_data; i++) {
        const Onnx__StringStringEntryProto *entry = tensor->external_data[i];
        const char *key = entry->key ? entry->key : "", *value = entry->value ? entry->value : "";
        int rc = 0;
        if (strcmp(key, "location") == 0)
            location = value;
        else if (strcmp(key, "offset") == 0)
            rc = parse_size(value, &offset);
        else if (strcmp(key, "length") == 0)
            rc = parse_size(value, &length);
        if (rc < 0)
            return err_set(err, rc, "the %s of its external data, \"%.32s\", is not a number", key,
                           value);
    }
    int rc = open_external(reader, location, &file, err);
    if (rc < 0)
        return rc;
    if (length != constant->bytes)
        return err_set(err, -EBADMSG,
                       "it has %zu bytes of external data where its dims ask for %zu", length,
                       constant->bytes);
    if (offset > file->size || length > file->size - offset)
        return err_set(err, -EBADMSG,
                       "its external data, %zu bytes at byte %zu, runs past the end of %s", length,
                       offset, file->path);
    constant->data = file->data + offset;
    constant->in_file = true;
    return 0;
}

int tensor_read(struct tensor_reader *reader, const Onnx__TensorProto *tensor,
                struct constant *ret_constant, struct err *err) {
    struct constant constant = {0};
    const struct typed_field *typed = NULL;
    for (size_t i = 0; i < sizeof(typed_fields) / sizeof(typed_fields[0]); i++)
        if ((int32_t)typed_fields[i].dtype == tensor->data_type)
            typed = &typed_fields[i];
    if (!typed)
        return err_set(err, -ENOTSUP,
                       "its element type is %s (%d); supported are float, double, "
                       "float16, integers of 8 to 64 bits, bool",
                       tensor_onnx_type(tensor->data_type), tensor->data_type);
    if (tensor->n_dims > TENSOR_MAX_RANK)
        return err_set(err, -ENOTSUP, "its rank is %zu; supported is up to %d", tensor->n_dims,
                       TENSOR_MAX_RANK);
    if (tensor->has_segment)
        return err_set(err, -ENOTSUP, "it is a segment of a tensor");
    constant.desc.dtype = typed->dtype;
    constant.desc.rank = (int)tensor->n_dims;
    if (tensor->n_dims > 0)
        memcpy(constant.desc.dims, tensor->dims, tensor->n_dims * sizeof(int64_t));
    if (tensor_desc_bytes(&constant.desc, &constant.bytes) < 0)
        return err_set(err, -EBADMSG, "its dims are negative, or too large");
    bool is_external = tensor->data_location == 1;
    int rc = is_external ? read_external(reader, tensor, &constant, err)
                         : read_inline(reader, tensor, typed, &constant, err);
    if (rc == 0)
        *ret_constant = constant;
    return rc;
}
