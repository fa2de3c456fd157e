#include "model/onnx_wire.h"

#include <errno.h>

#define VARINT_MAX_BYTES 10
#define FIELD_NUMBER_MAX ((1U << 29) - 1)

int wire_next_varint(struct wire *wire, uint64_t *ret_value) {
    uint64_t value = 0;
    if (wire->at == wire->end)
        return 0;
    for (unsigned i = 0; i < VARINT_MAX_BYTES && wire->at + i < wire->end; i++) {
        uint8_t byte = wire->at[i];
        if (i == VARINT_MAX_BYTES - 1 && byte > 1)
            return -EBADMSG; /* more than 64 bits */
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80)) {
            wire->at += i + 1;
            *ret_value = value;
            return 1;
        }
    }
    return -EBADMSG;
}

/* The content of a field whose tag has been read. NULL, or why not. */
static const char *read_content(struct wire *wire, struct wire_field *field) {
    uint64_t size = field->type == WIRE_64 ? 8 : 4;
    switch (field->type) {
    case WIRE_VARINT:
        return wire_next_varint(wire, &field->varint) == 1 ? NULL : "a number is cut off";
    case WIRE_BYTES:
        if (wire_next_varint(wire, &size) != 1)
            return "a length is cut off";
        break;
    case WIRE_64:
    case WIRE_32:
        break;
    default:
        return "a field has an unknown wire type";
    }
    if (size > (size_t)(wire->end - wire->at))
        return "a field runs past the end";
    field->data = wire->at;
    field->size = (size_t)size;
    wire->at += size;
    return NULL;
}

int wire_next(struct wire *wire, struct wire_field *ret_field, const char **ret_why) {
    struct wire ahead = *wire;
    struct wire_field field = {0};
    const char *why = NULL;
    uint64_t tag;
    int rc = wire_next_varint(&ahead, &tag);
    if (rc == 0)
        return 0;
    if (rc < 0 || tag >> 3 == 0 || tag >> 3 > FIELD_NUMBER_MAX) {
        why = "a field's number is not valid";
    } else {
        field.number = (uint32_t)(tag >> 3);
        field.type = (enum wire_type)(tag & 7);
        why = read_content(&ahead, &field);
    }
    if (why) {
        *ret_why = why;
        return -EBADMSG;
    }
    *wire = ahead;
    *ret_field = field;
    return 1;
}

bool wire_is_text(const uint8_t *data, size_t size) {
    /* By the first byte: bytes that follow it, and the least code point worth that many. */
    static const struct {
        uint8_t mask, lead, more;
        uint32_t least;
    } forms[] = {
        {0x80, 0x00, 0, 1},
        {0xe0, 0xc0, 1, 0x80},
        {0xf0, 0xe0, 2, 0x800},
        {0xf8, 0xf0, 3, 0x10000},
    };
    for (size_t i = 0; i < size;) {
        size_t form = 0;
        while (form < 4 && (data[i] & forms[form].mask) != forms[form].lead)
            form++;
        if (form == 4 || forms[form].more >= size - i)
            return false;
        uint32_t code = data[i++] & (uint8_t)~forms[form].mask;
        for (unsigned j = 0; j < forms[form].more; j++, i++) {
            if ((data[i] & 0xc0) != 0x80)
                return false;
            code = code << 6 | (data[i] & 0x3f);
        }
        if (code < forms[form].least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
    }
    return true;
}
