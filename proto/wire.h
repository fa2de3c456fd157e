/* The wire format of protobuf, as much of it as must be understood before protobuf-c may do the
 * rest: where a message's payload lies, and whether its header is one that we take. Private to
 * proto/. Pure functions, any thread. */
#ifndef CONVOY_PROTO_WIRE_H
#define CONVOY_PROTO_WIRE_H

#include "base/err.h"

#include <protobuf-c/protobuf-c.h>

#define WIRE_PADDED 5 /* bytes of a padded varint */

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_FIXED32 = 5,
};

/* A field: head bytes of tag (and length, where the contents have one), then size bytes. */
struct wire_field {
    uint32_t number;
    enum wire_type type;
    size_t head;
    size_t size; /* of the contents, which may reach beyond the data that was looked at */
};

/* Reads a varint of at most max <= 10 bytes. Its length in bytes; 0 when the data ends within it;
 * -EPROTO when it is longer than max. */
int wire_get_varint(const uint8_t *data, size_t size, size_t max, uint64_t *ret_value);

/* Writes value in exactly WIRE_PADDED bytes. */
void wire_put_padded(uint8_t *out, uint32_t value);

/* Reads the head of the field at data. 1; 0 when the data ends within the head (or within a varint,
 * whose contents tell its size); -EPROTO when no field can start like this. */
int wire_get_field(const uint8_t *data, size_t size, struct wire_field *ret_field);

/* Checks the fields of a complete message of the given description, and of the messages in it: they
 * are well-formed and end where the message ends, no field stands twice except repeated ones, no
 * oneof has two members, strings are UTF-8 without NUL. -EPROTO for these; -EMSGSIZE for a string
 * longer than MESSAGE_NAME_MAX; with a sentence. */
int wire_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t size,
               struct err *err);

#endif
