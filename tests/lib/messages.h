/* Messages for tests: samples of every kind, the forms that other encoders may give them, and a
 * sink that keeps what a reader delivers. Failures inside are failures of the running test. */
#ifndef CONVOY_TESTS_LIB_MESSAGES_H
#define CONVOY_TESTS_LIB_MESSAGES_H

#include "proto/message.h"

/* A message of the given kind whose every field, also in nested messages, has a value that is not
 * its default. The caller's; freed with convoy__message__free_unpacked(message, NULL). */
Convoy__Message *sample_new(Convoy__Message__BodyCase kind);

/* Bytes that grow. Zero-initialised it is empty; data is the caller's, freed with free(). */
struct bytes {
    uint8_t *data;
    size_t size;
};
void bytes_add(struct bytes *bytes, const void *data, size_t size);

/* Forms of a message. sizes: its first field is `sizes`, true to what follows. */
enum form {
    FORM_OURS,          /* as message_pack() writes it */
    FORM_STOCK,         /* as a stock encoder writes it: no sizes, shortest lengths */
    FORM_STOCK_SIZES,   /* the same with true sizes */
    FORM_ZERO_SIZES,    /* sizes are there and 0 */
    FORM_PAYLOAD_FIRST, /* payload before the body */
    FORM_SIZES_LAST,    /* payload, body, then sizes, which are true of no other order */
    FORM_UNKNOWN,       /* with fields of every wire type that nobody knows, around the body */
    FORM_COUNT,
};

/* Adds header (its sizes and payload are ignored) and payload in the form. */
void bytes_add_message(struct bytes *bytes, enum form form, const Convoy__Message *header,
                       const void *payload, size_t payload_bytes);
/* Adds a length and then those bytes. */
void bytes_add_delimited(struct bytes *bytes, const void *data, size_t size);
/* Adds value as a varint of the shortest form. */
void bytes_add_varint(struct bytes *bytes, uint64_t value);

/* What a reader delivered: every message as message_pack() writes it, and its payload behind. */
struct sink {
    struct reader *reader;
    struct bytes got;
    size_t messages, payloads; /* calls of on_message and of on_payload */
    size_t last_payload_bytes; /* of the last on_message */
    void *pending;             /* payload that was given and did not arrive, or NULL */
    int refuse_payload;        /* what on_payload shall return instead, if not 0 */
    int refuse_message;
    struct err err; /* of the last feed */
};

void sink_init(struct sink *sink, uint32_t header_bytes, uint32_t payload_bytes);
void sink_fini(struct sink *sink);

/* Gives the reader the bytes, at most step at once. Returns what reader_advance() did. */
int sink_feed(struct sink *sink, const void *data, size_t size, size_t step);

#endif
