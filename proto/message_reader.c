/* The reader of a stream of messages.
 *
 * Happy path: PREFIX -> FIELDS -> PAYLOAD -> PREFIX. The bytes of a message, from its length to the
 * last field before the payload, gather in `in`. As soon as the payload's tag and length are there
 * and nothing follows it, the header is complete: it is unpacked, the owner gives a buffer, and the
 * window becomes that buffer. A message without payload ends with its fields.
 *
 * With `sizes`, one read brings all fields at once. Without, they are found one by one, so that
 * even then the payload of an encoder that writes fields in order is never copied. A payload that
 * is not the last field goes to `spill` (FIELDS -> SPILL -> FIELDS), whose memory at most doubles
 * what has arrived, and is copied when the header is complete.
 *
 * Reading ahead: before a message's form is known, the window is READ_AHEAD bytes long. This is
 * less than prefix and header of any message with payload that message_pack() makes, so no byte of
 * such a payload arrives in `in`; and enough that one read brings a whole ping, pong or credit.
 *
 * Memory: `in` and `arena`, where protobuf-c puts what it unpacks, grow to what the largest header
 * so far needed, and are kept. The arena's limit bounds what a hostile header can make of its few
 * bytes. In the steady state nothing is allocated.
 *
 * Failure: any error ends the reader; the owner closes the stream. */
#include "proto/message.h"
#include "proto/wire.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_AHEAD     40
#define LENGTH_MAX     WIRE_PADDED /* bytes of a message's length */
#define SIZES_NUMBER   1
#define PAYLOAD_NUMBER 15
#define SIZES_FIELD    9 /* bytes of the field `sizes` */
#define IN_FIRST       512
#define SPILL_FIRST    (64u << 10)
#define ARENA_FIRST    (4u << 10)
#define ARENA_MAX      (16 * MESSAGE_HEADER_MAX)
#define ARENA_ALIGN    16

/* Memory for one unpacked header: given from the start of a block, taken back all at once. */
struct arena {
    uint8_t *data;
    size_t size, used;
    bool is_short; /* the block was too small for this header */
};

enum state {
    STATE_PREFIX,  /* the message's length and sizes are incomplete */
    STATE_FIELDS,  /* in[fields..scan) are fields of the header, what follows is not known yet */
    STATE_SPILL,   /* in a payload that is not the last field */
    STATE_PAYLOAD, /* in a payload that is the last field; the header has been unpacked */
};

struct reader {
    struct reader_limits limits;
    struct reader_callbacks callbacks;
    void *arg;

    uint8_t *in; /* bytes that are not consumed, from the first of the message under way on */
    size_t in_size, in_used;
    size_t want; /* read until in_used is this; more than in_used, at most in_size */
    struct arena arena;
    ProtobufCAllocator allocator; /* on arena */

    enum state state;
    uint64_t at;       /* where in the stream the message under way begins */
    size_t length;     /* its bytes, with the length itself */
    size_t fields;     /* where in `in` its fields begin, behind length and sizes */
    size_t scan;       /* where in `in` the next field begins */
    size_t rest;       /* its bytes from scan on */
    uint64_t sizes;    /* as stated, or 0 */
    size_t header_max; /* the limits when its prefix was read */
    size_t payload_max;

    Convoy__Message *header; /* in the arena, once all fields are known */
    bool has_payload;
    uint8_t *payload; /* the owner's buffer, or NULL */
    uint8_t *spill;   /* or NULL; its first payload_used bytes are filled */
    size_t spill_size;
    size_t payload_bytes, payload_used;
};

/* ---- arena ----------------------------------------------------------------------------------- */

static void *arena_alloc(void *data, size_t size) {
    struct arena *arena = data;
    if (size > arena->size - arena->used) {
        arena->is_short = true;
        return NULL;
    }
    void *memory = arena->data + arena->used;
    size_t rounded = (size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    arena->used = rounded > arena->size - arena->used ? arena->size : arena->used + rounded;
    return memory;
}

static void arena_release(void *data, void *memory) {
    (void)data;
    (void)memory;
}

static void arena_reset(struct arena *arena) {
    arena->used = 0;
    arena->is_short = false;
}

static int arena_grow(struct arena *arena) {
    size_t size = arena->size * 4;
    uint8_t *data = malloc(size);
    if (!data)
        return -ENOMEM;
    free(arena->data);
    arena->data = data;
    arena->size = size;
    return 0;
}

/* ---- lifetime -------------------------------------------------------------------------------- */

struct reader *reader_new(const struct reader_limits *limits,
                          const struct reader_callbacks *callbacks, void *arg) {
    struct reader *reader = calloc(1, sizeof(*reader));
    if (!reader)
        return NULL;
    reader->callbacks = *callbacks;
    reader->arg = arg;
    reader->allocator =
        (ProtobufCAllocator){.alloc = arena_alloc, .free = arena_release, &reader->arena};
    reader_set_limits(reader, limits);
    reader->in = malloc(IN_FIRST);
    reader->in_size = IN_FIRST;
    reader->want = READ_AHEAD;
    reader->arena.data = malloc(ARENA_FIRST);
    reader->arena.size = ARENA_FIRST;
    if (!reader->in || !reader->arena.data) {
        reader_free(reader);
        return NULL;
    }
    return reader;
}

void reader_free(struct reader *reader) {
    if (!reader)
        return;
    free(reader->in);
    free(reader->spill);
    free(reader->arena.data);
    free(reader);
}

void reader_set_limits(struct reader *reader, const struct reader_limits *limits) {
    assert(limits->header_bytes <= MESSAGE_HEADER_MAX);
    assert(limits->payload_bytes <= MESSAGE_PAYLOAD_MAX);
    reader->limits = *limits;
}

bool reader_is_mid_message(const struct reader *reader) {
    return reader->state != STATE_PREFIX || reader->in_used > 0;
}

/* ---- where bytes go -------------------------------------------------------------------------- */

void reader_window(struct reader *reader, void **ret_data, size_t *ret_size) {
    switch (reader->state) {
    case STATE_PREFIX:
    case STATE_FIELDS:
        *ret_data = reader->in + reader->in_used;
        *ret_size = reader->want - reader->in_used;
        return;
    case STATE_SPILL:
        *ret_data = reader->spill + reader->payload_used;
        *ret_size = reader->spill_size - reader->payload_used;
        return;
    case STATE_PAYLOAD:
        *ret_data = reader->payload + reader->payload_used;
        *ret_size = reader->payload_bytes - reader->payload_used;
        return;
    }
}

/* Makes room in `in` for want bytes, which the limits have bounded. */
static int want_bytes(struct reader *reader, size_t want) {
    reader->want = want;
    if (want <= reader->in_size)
        return 0;
    size_t size = reader->in_size * 2 > want ? reader->in_size * 2 : want;
    uint8_t *in = realloc(reader->in, size);
    if (!in)
        return -ENOMEM;
    reader->in = in;
    reader->in_size = size;
    return 0;
}

/* Takes size bytes at offset out of `in`. */
static void drop(struct reader *reader, size_t offset, size_t size) {
    reader->in_used -= size;
    memmove(reader->in + offset, reader->in + offset + size, reader->in_used - offset);
}

/* Moves what `in` holds of the payload, from offset on, to where payloads go now. */
static void take_payload(struct reader *reader, size_t offset, uint8_t *destination) {
    size_t size = reader->in_used - offset;
    if (size > reader->payload_bytes)
        size = reader->payload_bytes;
    memcpy(destination, reader->in + offset, size);
    drop(reader, offset, size);
    reader->payload_used = size;
}

/* ---- a message's end ------------------------------------------------------------------------- */

static int deliver(struct reader *reader) {
    struct message message = {
        .header = reader->header,
        .payload = reader->payload,
        .payload_bytes = reader->payload_bytes,
    };
    reader->state = STATE_PREFIX;
    reader->want = READ_AHEAD;
    reader->at += reader->length;
    reader->header = NULL;
    reader->has_payload = false;
    reader->payload = NULL;
    reader->payload_bytes = 0;
    reader->payload_used = 0;
    return reader->callbacks.on_message(reader->arg, &message);
}

/* Unpacks in[fields..scan) into the arena. */
static int unpack(struct reader *reader, struct err *err) {
    const uint8_t *data = reader->in + reader->fields;
    size_t size = reader->scan - reader->fields;
    int rc = wire_check(&convoy__message__descriptor, data, size, err);
    if (rc < 0)
        return rc;
    for (;;) {
        arena_reset(&reader->arena);
        reader->header = convoy__message__unpack(&reader->allocator, size, data);
        if (reader->header || !reader->arena.is_short)
            break;
        if (reader->arena.size >= ARENA_MAX)
            return err_set(err, -EMSGSIZE, "a header of %zu bytes has too many parts", size);
        if (arena_grow(&reader->arena) < 0)
            return err_set(err, -ENOMEM, "no memory for a header of %zu bytes", size);
    }
    if (!reader->header)
        return err_set(err, -EPROTO, "a field of the header has the wrong type");
    if (reader->header->body_case == CONVOY__MESSAGE__BODY__NOT_SET)
        return err_set(err, -EPROTO, "it has no body that is known here");
    return 0;
}

/* All fields are known: unpacks the header, takes the buffer for a payload from the owner. */
static int finish_header(struct reader *reader, struct err *err) {
    void *buffer = NULL;
    int rc = unpack(reader, err);
    if (rc == 0 && reader->payload_bytes > 0)
        rc = reader->callbacks.on_payload(reader->arg, reader->header, reader->payload_bytes,
                                          &buffer);
    reader->payload = buffer;
    return rc;
}

/* ---- states ---------------------------------------------------------------------------------- */

/* Each step returns 1 when it got on, 0 when it needs more bytes than there are (want is set), or a
 * negative errno. */

/* The header's bytes and the payload's, against the limits. */
static int check_limits(const struct reader *reader, uint64_t header, uint64_t payload,
                        struct err *err) {
    if (header > reader->header_max)
        return err_set(err, -EMSGSIZE, "a header of %llu bytes, at most %zu are allowed",
                       (unsigned long long)header, reader->header_max);
    if (payload > reader->payload_max)
        return err_set(err, -EMSGSIZE, "a payload of %llu bytes, at most %zu are allowed",
                       (unsigned long long)payload, reader->payload_max);
    return 0;
}

/* The field `sizes`, when it is the first: its bytes in ret_bytes, else 0 there. */
static int get_sizes(struct reader *reader, size_t at, uint64_t length, size_t *ret_bytes) {
    *ret_bytes = 0;
    reader->sizes = 0;
    if (length < SIZES_FIELD)
        return 1;
    if (reader->in_used == at)
        return 0;
    if (reader->in[at] != (SIZES_NUMBER << 3 | WIRE_FIXED64))
        return 1;
    if (reader->in_used < at + SIZES_FIELD)
        return 0;
    for (int i = 0; i < 8; i++)
        reader->sizes |= (uint64_t)reader->in[at + 1 + (size_t)i] << (8 * i);
    *ret_bytes = SIZES_FIELD;
    return 1;
}

static int step_prefix(struct reader *reader, struct err *err) {
    uint64_t length;
    size_t sizes_bytes;
    int n = wire_get_varint(reader->in, reader->in_used, LENGTH_MAX, &length);
    if (n == 0)
        return 0;
    if (n < 0)
        return err_set(err, -EPROTO, "its length has more than %d bytes", LENGTH_MAX);
    reader->header_max = reader->limits.header_bytes;
    reader->payload_max = reader->limits.payload_bytes;
    if (length > SIZES_FIELD + reader->header_max + reader->payload_max)
        return err_set(err, -EMSGSIZE, "a length of %llu bytes, at most %zu are allowed",
                       (unsigned long long)length,
                       SIZES_FIELD + reader->header_max + reader->payload_max);
    if (get_sizes(reader, (size_t)n, length, &sizes_bytes) == 0)
        return 0;

    reader->length = (size_t)n + (size_t)length;
    reader->fields = reader->scan = (size_t)n + sizes_bytes;
    reader->rest = (size_t)length - sizes_bytes;
    reader->state = STATE_FIELDS;
    if (reader->sizes == 0)
        return 1;
    uint64_t header = reader->sizes & UINT32_MAX, payload = reader->sizes >> 32;
    if (header + payload != reader->rest)
        return err_set(err, -EPROTO, "%llu + %llu bytes are stated, but %zu follow",
                       (unsigned long long)header, (unsigned long long)payload, reader->rest);
    int rc = check_limits(reader, header, payload, err);
    return rc < 0 ? rc : 1;
}

/* The end of all fields: in[..scan), then head bytes of the payload's tag and length where the
 * payload is the last field. */
static int step_end(struct reader *reader, size_t head, struct err *err) {
    uint64_t header = reader->scan + head - reader->fields;
    if (reader->sizes != 0 && reader->sizes != ((uint64_t)reader->payload_bytes << 32 | header))
        return err_set(err, -EPROTO, "the payload is not where the message states");
    int rc = finish_header(reader, err);
    if (rc < 0)
        return rc;
    drop(reader, 0, reader->scan + head);
    if (reader->spill) {
        memcpy(reader->payload, reader->spill, reader->payload_bytes);
        free(reader->spill);
        reader->spill = NULL;
    } else if (reader->payload) {
        take_payload(reader, 0, reader->payload);
        reader->state = STATE_PAYLOAD;
        return 1;
    }
    rc = deliver(reader);
    return rc < 0 ? rc : 1;
}

/* The payload's tag and length stand at scan. */
static int step_payload(struct reader *reader, const struct wire_field *field, struct err *err) {
    if (reader->has_payload)
        return err_set(err, -EPROTO, "payload stands twice");
    reader->has_payload = true;
    reader->rest -= field->head + field->size;
    reader->payload_bytes = field->size;
    if (reader->rest == 0)
        return step_end(reader, field->head, err);
    if (reader->sizes != 0)
        return err_set(err, -EPROTO, "something follows the payload, against what it states");

    drop(reader, reader->scan, field->head);
    if (field->size == 0)
        return 1;
    reader->spill_size = field->size < SPILL_FIRST ? field->size : SPILL_FIRST;
    reader->spill = malloc(reader->spill_size);
    if (!reader->spill)
        return err_set(err, -ENOMEM, "no memory for a payload of %zu bytes", field->size);
    take_payload(reader, reader->scan, reader->spill);
    reader->state = STATE_SPILL;
    return 1;
}

/* Waits for the rest of a field, or of its head when field is all zero. */
static int wait_for_field(struct reader *reader, const struct wire_field *field, struct err *err) {
    size_t want = reader->fields + (size_t)(reader->sizes & UINT32_MAX);
    if (reader->sizes == 0) {
        size_t end = reader->scan + reader->rest;
        want = reader->scan + field->head + field->size;
        want = (want > reader->in_used ? want : reader->in_used) + READ_AHEAD;
        want = want < end ? want : end;
    }
    if (want_bytes(reader, want) < 0)
        return err_set(err, -ENOMEM, "no memory for a header of %zu bytes", want);
    return 0;
}

static int step_fields(struct reader *reader, struct err *err) {
    struct wire_field field = {0};
    if (reader->rest == 0)
        return step_end(reader, 0, err);
    /* A stated header ends before the payload's bytes, any other one with the message. */
    size_t room = reader->rest, have = reader->in_used - reader->scan;
    if (reader->sizes != 0)
        room = reader->fields + (size_t)(reader->sizes & UINT32_MAX) - reader->scan;
    have = have < room ? have : room;

    int rc = wire_get_field(reader->in + reader->scan, have, &field);
    bool is_payload = field.number == PAYLOAD_NUMBER && field.type == WIRE_BYTES;
    size_t in_header = field.head + (is_payload ? 0 : field.size);
    if (rc < 0 || (rc == 0 && have == room) || in_header > room ||
        field.head + field.size > reader->rest)
        return err_set(err, -EPROTO, "no field at byte %zu of its header",
                       reader->scan - reader->fields);
    int limit = check_limits(reader, reader->scan - reader->fields + in_header,
                             is_payload ? field.size : 0, err);
    if (limit < 0)
        return limit;
    if (rc == 0 || in_header > have)
        return wait_for_field(reader, &field, err);
    if (is_payload)
        return step_payload(reader, &field, err);
    reader->scan += in_header;
    reader->rest -= in_header;
    return 1;
}

static int step_spill(struct reader *reader, struct err *err) {
    if (reader->payload_used == reader->payload_bytes) {
        reader->state = STATE_FIELDS;
        return 1;
    }
    if (reader->payload_used < reader->spill_size)
        return 0;
    size_t size = reader->payload_bytes / 2 < reader->spill_size ? reader->payload_bytes
                                                                 : reader->spill_size * 2;
    uint8_t *spill = realloc(reader->spill, size);
    if (!spill)
        return err_set(err, -ENOMEM, "no memory for a payload of %zu bytes", reader->payload_bytes);
    reader->spill = spill;
    reader->spill_size = size;
    return 0;
}

static int step_last(struct reader *reader) {
    if (reader->payload_used < reader->payload_bytes)
        return 0;
    int rc = deliver(reader);
    return rc < 0 ? rc : 1;
}

static int step(struct reader *reader, struct err *err) {
    switch (reader->state) {
    case STATE_PREFIX:
        return step_prefix(reader, err);
    case STATE_FIELDS:
        return step_fields(reader, err);
    case STATE_SPILL:
        return step_spill(reader, err);
    case STATE_PAYLOAD:
        break;
    }
    return step_last(reader);
}

int reader_advance(struct reader *reader, size_t size, struct err *err) {
    void *window;
    size_t room;
    reader_window(reader, &window, &room);
    assert(size <= room);
    if (reader->state == STATE_PREFIX || reader->state == STATE_FIELDS)
        reader->in_used += size;
    else
        reader->payload_used += size;

    int rc;
    if (err)
        err->text[0] = '\0';
    do
        rc = step(reader, err);
    while (rc > 0);
    if (rc == 0)
        return 0;
    if (err && err->text[0] == '\0')
        err_set(err, rc, "its receiver refused it");
    return err_prefix(err, rc, "message at byte %llu of the stream",
                      (unsigned long long)reader->at);
}
