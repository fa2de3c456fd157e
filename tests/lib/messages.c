#include "tests/lib/messages.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPEATS 2 /* elements of a sample's repeated fields */

static void *zalloc(size_t size) {
    void *memory = calloc(1, size);
    assert_non_null(memory);
    return memory;
}

/* ---- samples --------------------------------------------------------------------------------- */

static void fill(ProtobufCMessage *message);

static size_t value_size(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_DOUBLE:
        return sizeof(double);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return sizeof(uint32_t);
    }
}

/* A value that depends on the field and the index; written to where a field or element lies. */
static void fill_value(const ProtobufCFieldDescriptor *field, unsigned index, void *where) {
    uint64_t number = (uint64_t)field->id << 33 | (100 * index + 1);
    double real = (double)number / 3;
    ProtobufCBinaryData binary = {0};
    char *text = NULL;
    ProtobufCMessage *message = NULL;
    switch (field->type) {
    case PROTOBUF_C_TYPE_DOUBLE:
        memcpy(where, &real, sizeof(real));
        return;
    case PROTOBUF_C_TYPE_BYTES:
        binary.len = 32;
        binary.data = zalloc(32);
        memset(binary.data, (int)(field->id + index), 32);
        memcpy(where, &binary, sizeof(binary));
        return;
    case PROTOBUF_C_TYPE_STRING:
        text = zalloc(32);
        (void)snprintf(text, 32, "%.16s %u \xc3\xa9", field->name, index);
        memcpy(where, &text, sizeof(text));
        return;
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessageDescriptor *descriptor = field->descriptor;
        message = zalloc(descriptor->sizeof_message);
        descriptor->message_init(message);
        fill(message);
        memcpy(where, &message, sizeof(ProtobufCMessage *));
        return;
    }
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM:
        number = 1;
        break;
    default:
        break;
    }
    uint32_t low = (uint32_t)number;
    memcpy(where, value_size(field->type) == 8 ? (void *)&number : (void *)&low,
           value_size(field->type));
}

static void fill(ProtobufCMessage *message) {
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        char *where = (char *)message + field->offset;
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            fill_value(field, 0, where);
            continue;
        }
        size_t count = REPEATS, size = value_size(field->type);
        char *array = zalloc(count * size);
        for (unsigned j = 0; j < REPEATS; j++)
            fill_value(field, j, array + j * size);
        memcpy(where, &array, sizeof(array));
        memcpy((char *)message + field->quantifier_offset, &count, sizeof(count));
    }
}

Convoy__Message *sample_new(Convoy__Message__BodyCase kind) {
    Convoy__Message *message = zalloc(sizeof(*message));
    convoy__message__init(message);
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(&convoy__message__descriptor, (unsigned)kind);
    assert_non_null(field);
    message->body_case = kind;
    fill_value(field, 0, (char *)message + field->offset);
    return message;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

void bytes_add(struct bytes *bytes, const void *data, size_t size) {
    if (size == 0)
        return;
    uint8_t *grown = realloc(bytes->data, bytes->size + size);
    assert_non_null(grown);
    memcpy(grown + bytes->size, data, size);
    bytes->data = grown;
    bytes->size += size;
}

void bytes_add_varint(struct bytes *bytes, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        bytes_add(bytes, &(uint8_t){(uint8_t)(value | 0x80)}, 1);
    bytes_add(bytes, &(uint8_t){(uint8_t)value}, 1);
}

void bytes_add_delimited(struct bytes *bytes, const void *data, size_t size) {
    bytes_add_varint(bytes, size);
    bytes_add(bytes, data, size);
}

static void add_sizes(struct bytes *bytes, size_t header, size_t payload) {
    uint64_t sizes = (uint64_t)payload << 32 | header;
    bytes_add(bytes, "\x09", 1);
    for (int i = 0; i < 8; i++)
        bytes_add(bytes, &(uint8_t){(uint8_t)(sizes >> (8 * i))}, 1);
}

/* Fields 1000 (fixed32), 1001 (varint), 1002 (bytes), 1003 (fixed64). */
static const uint8_t unknown[] = {0xc5, 0x3e, 1,    2,    3, 4,   0xc8, 0x3e, 0xff,
                                  0xff, 1,    0xd2, 0x3e, 3, 'a', 0,    0xff, 0xd9,
                                  0x3e, 1,    2,    3,    4, 5,   6,    7,    8};

static void add_ours(struct bytes *bytes, const Convoy__Message *header, const void *payload,
                     size_t payload_bytes) {
    uint8_t *data;
    size_t size;
    assert_int_equal(message_pack(header, payload_bytes, &data, &size), 0);
    bytes_add(bytes, data, size);
    bytes_add(bytes, payload, payload_bytes);
    free(data);
}

void bytes_add_message(struct bytes *bytes, enum form form, const Convoy__Message *header,
                       const void *payload, size_t payload_bytes) {
    if (form == FORM_OURS) {
        add_ours(bytes, header, payload, payload_bytes);
        return;
    }
    struct bytes fields = {0}, last = {0}, all = {0};
    Convoy__Message copy = *header;
    copy.sizes = 0;
    copy.payload = (ProtobufCBinaryData){0};
    fields.size = convoy__message__get_packed_size(&copy);
    fields.data = zalloc(fields.size);
    convoy__message__pack(&copy, fields.data);
    if (payload_bytes > 0) {
        bytes_add(&last, "\x7a", 1);
        bytes_add_delimited(&last, payload, payload_bytes);
    }
    size_t header_bytes = fields.size + last.size - payload_bytes;

    if (form == FORM_STOCK_SIZES)
        add_sizes(&all, header_bytes, payload_bytes);
    if (form == FORM_ZERO_SIZES)
        add_sizes(&all, 0, 0);
    if (form == FORM_PAYLOAD_FIRST || form == FORM_SIZES_LAST)
        bytes_add(&all, last.data, last.size);
    if (form == FORM_UNKNOWN)
        bytes_add(&all, unknown, sizeof(unknown));
    bytes_add(&all, fields.data, fields.size);
    if (form == FORM_UNKNOWN)
        bytes_add(&all, unknown, sizeof(unknown));
    if (form == FORM_SIZES_LAST)
        add_sizes(&all, header_bytes, payload_bytes);
    else if (form != FORM_PAYLOAD_FIRST)
        bytes_add(&all, last.data, last.size);
    bytes_add_delimited(bytes, all.data, all.size);
    free(fields.data);
    free(last.data);
    free(all.data);
}

/* ---- sink ------------------------------------------------------------------------------------ */

static int sink_on_payload(void *arg, const Convoy__Message *header, size_t bytes,
                           void **ret_buffer) {
    struct sink *sink = arg;
    sink->payloads++;
    assert_null(sink->pending);
    assert_int_equal(header->payload.len, 0);
    if (sink->refuse_payload)
        return sink->refuse_payload;
    *ret_buffer = sink->pending = tensor_buffer_new(bytes);
    return sink->pending ? 0 : -ENOMEM;
}

static int sink_on_message(void *arg, const struct message *message) {
    struct sink *sink = arg;
    sink->messages++;
    sink->last_payload_bytes = message->payload_bytes;
    assert_ptr_equal(message->payload, sink->pending);
    Convoy__Message known = *message->header;
    known.base.n_unknown_fields = 0;
    add_ours(&sink->got, &known, message->payload, message->payload_bytes);
    tensor_buffer_free(sink->pending);
    sink->pending = NULL;
    return sink->refuse_message;
}

void sink_init(struct sink *sink, uint32_t header_bytes, uint32_t payload_bytes) {
    *sink = (struct sink){0};
    sink->reader = reader_new(
        &(struct reader_limits){.header_bytes = header_bytes, .payload_bytes = payload_bytes},
        &(struct reader_callbacks){.on_payload = sink_on_payload, .on_message = sink_on_message},
        sink);
    assert_non_null(sink->reader);
}

void sink_fini(struct sink *sink) {
    reader_free(sink->reader);
    tensor_buffer_free(sink->pending);
    free(sink->got.data);
    *sink = (struct sink){0};
}

int sink_feed(struct sink *sink, const void *data, size_t size, size_t step) {
    const uint8_t *next = data;
    while (size > 0) {
        void *window;
        size_t room;
        reader_window(sink->reader, &window, &room);
        assert_true(room > 0);
        room = room < step ? room : step;
        room = room < size ? room : size;
        memcpy(window, next, room);
        next += room;
        size -= room;
        int rc = reader_advance(sink->reader, room, &sink->err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
