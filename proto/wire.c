#include "proto/wire.h"
#include "proto/message.h"

#include <assert.h>
#include <errno.h>

int wire_get_varint(const uint8_t *data, size_t size, size_t max, uint64_t *ret_value) {
    uint64_t value = 0;
    for (size_t i = 0; i < max; i++) {
        if (i == size)
            return 0;
        value |= (uint64_t)(data[i] & 0x7f) << (7 * i);
        if (data[i] < 0x80) {
            *ret_value = value;
            return (int)(i + 1);
        }
    }
    return -EPROTO;
}

void wire_put_padded(uint8_t *out, uint32_t value) {
    for (int i = 0; i < WIRE_PADDED - 1; i++)
        out[i] = (uint8_t)(0x80 | (value >> (7 * i) & 0x7f));
    out[WIRE_PADDED - 1] = (uint8_t)(value >> (7 * (WIRE_PADDED - 1)));
}

/* The size of the contents behind a tag of tag_size bytes; in addition the length's own bytes in
 * ret_head where there is one. Returns as wire_get_field(). */
static int get_contents(const uint8_t *data, size_t size, struct wire_field *field) {
    uint64_t value = 0;
    int n;
    switch (field->type) {
    case WIRE_VARINT:
        n = wire_get_varint(data, size, 10, &value);
        field->size = n > 0 ? (size_t)n : 0;
        return n < 0 ? n : n > 0;
    case WIRE_BYTES:
        n = wire_get_varint(data, size, WIRE_PADDED, &value);
        if (n <= 0)
            return n;
        if (value > INT32_MAX)
            return -EPROTO;
        field->head += (size_t)n;
        field->size = (size_t)value;
        return 1;
    case WIRE_FIXED64:
        field->size = 8;
        return 1;
    case WIRE_FIXED32:
        field->size = 4;
        return 1;
    }
    return -EPROTO; /* groups, and types that do not exist */
}

int wire_get_field(const uint8_t *data, size_t size, struct wire_field *ret_field) {
    uint64_t tag;
    int n = wire_get_varint(data, size, WIRE_PADDED, &tag);
    if (n <= 0)
        return n;
    if (tag > UINT32_MAX || tag >> 3 == 0)
        return -EPROTO;
    struct wire_field field = {
        .number = (uint32_t)(tag >> 3),
        .type = (enum wire_type)(tag & 7),
        .head = (size_t)n,
    };
    int rc = get_contents(data + n, size - (size_t)n, &field);
    if (rc > 0)
        *ret_field = field;
    return rc;
}

/* UTF-8 as RFC 3629 has it (shortest form, no surrogates, at most U+10FFFF), without NUL. */
static bool is_text(const uint8_t *data, size_t size) {
    static const uint32_t least[] = {0x01, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < size;) {
        uint8_t first = data[i++];
        size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
        if ((first >= 0x80 && first < 0xc0) || first > 0xf4 || more > size - i)
            return false;
        uint32_t point = more == 0 ? first : first & (0x3fu >> more);
        for (size_t end = i + more; i < end; i++) {
            if ((data[i] & 0xc0) != 0x80)
                return false;
            point = point << 6 | (data[i] & 0x3f);
        }
        if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
            return false;
    }
    return true;
}

/* The contents of a known field. */
static int check_contents(const ProtobufCFieldDescriptor *field, const uint8_t *data, size_t size,
                          struct err *err) {
    int rc;
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        if (size > MESSAGE_NAME_MAX)
            return err_set(err, -EMSGSIZE, "%s has %zu bytes, at most %d are allowed", field->name,
                           size, MESSAGE_NAME_MAX);
        if (!is_text(data, size))
            return err_set(err, -EPROTO, "%s is not UTF-8 or contains NUL", field->name);
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        rc = wire_check(field->descriptor, data, size, err);
        if (rc < 0)
            return err_prefix(err, rc, "%s", field->name);
    }
    return 0;
}

/* Notes in seen, one bit a field, that field stands in the message; all members of a oneof have the
 * bit of the first. */
static int check_once(const ProtobufCMessageDescriptor *descriptor,
                      const ProtobufCFieldDescriptor *field, uint64_t *seen, struct err *err) {
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return 0;
    const ProtobufCFieldDescriptor *first = field;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        for (first = descriptor->fields; first->quantifier_offset != field->quantifier_offset;)
            first++;
    uint64_t bit = UINT64_C(1) << (first - descriptor->fields);
    if (*seen & bit)
        return err_set(err, -EPROTO, "%s stands twice", field->name);
    *seen |= bit;
    return 0;
}

int wire_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t size,
               struct err *err) {
    uint64_t seen = 0;
    assert(descriptor->n_fields <= 64);
    for (size_t at = 0; at < size;) {
        struct wire_field wire;
        int rc = wire_get_field(data + at, size - at, &wire);
        if (rc <= 0 || wire.head + wire.size > size - at)
            return err_set(err, -EPROTO, "no field of %s at byte %zu of %zu",
                           descriptor->short_name, at, size);
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(descriptor, wire.number);
        if (field) {
            rc = check_once(descriptor, field, &seen, err);
            if (rc == 0 && wire.type == WIRE_BYTES)
                rc = check_contents(field, data + at + wire.head, wire.size, err);
            if (rc < 0)
                return rc;
        }
        at += wire.head + wire.size;
    }
    return 0;
}
