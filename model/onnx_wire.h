/* Reads protobuf's wire format field by field, without copying. Borrowed bytes only. */
#ifndef CONVOY_MODEL_ONNX_WIRE_H
#define CONVOY_MODEL_ONNX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Wire types; groups (3, 4) are refused. */
enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct wire {
    const uint8_t *at, *end; /* what is left of a message */
};

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t varint;     /* WIRE_VARINT */
    const uint8_t *data; /* otherwise: the content, size long */
    size_t size;
};

/* The next field. 1; 0 at the end of the message; -EBADMSG, then *ret_why is a static phrase and
 * wire->at stays at the start of the offending field. */
int wire_next(struct wire *wire, struct wire_field *ret_field, const char **ret_why);

/* The next varint of a packed list. As wire_next(). */
int wire_next_varint(struct wire *wire, uint64_t *ret_value);

/* Whether size bytes are UTF-8 without NUL. */
bool wire_is_text(const uint8_t *data, size_t size);

#endif
