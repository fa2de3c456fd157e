/* Fuzzes the reader of messages. The first byte of an input chooses limits and how the rest is cut
 * into reads; the rest is a stream. The stream is read twice, cut differently: both readings must
 * deliver the same messages and end in the same way. What is delivered is packed and read again,
 * which must give the same once more. */
#include "base/sha256.h"
#include "proto/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAYLOAD_MAX (256u << 10)

static void must(bool condition) {
    if (!condition)
        abort();
}

/* What a reading delivered: its end, and a running digest of the messages, packed, and payloads. */
struct reading {
    const struct reader_limits *limits;
    void *payload;
    int rc;
    size_t messages;
    bool is_inner; /* reads what was packed: does not pack again */
    uint8_t digest[SHA256_SIZE];
};

static void read_stream(struct reading *reading, const uint8_t *data, size_t size, size_t step);

static void mix(struct reading *reading, const void *data, size_t size) {
    uint8_t both[2 * SHA256_SIZE];
    memcpy(both, reading->digest, SHA256_SIZE);
    must(sha256(data, size, both + SHA256_SIZE) == 0);
    must(sha256(both, sizeof(both), reading->digest) == 0);
}

static int on_payload(void *arg, const Convoy__Message *header, size_t bytes, void **ret_buffer) {
    struct reading *reading = arg;
    must(header->body_case != CONVOY__MESSAGE__BODY__NOT_SET);
    must(bytes > 0 && bytes <= reading->limits->payload_bytes);
    must(!reading->payload);
    *ret_buffer = reading->payload = tensor_buffer_new(bytes);
    return reading->payload ? 0 : -ENOMEM;
}

static void check_tensors(const struct message *message) {
    static struct tensor_desc descs[MESSAGE_TENSORS_MAX];
    static size_t offsets[MESSAGE_TENSORS_MAX];
    const Convoy__Message *header = message->header;
    struct err err;
    size_t count = 0;
    Convoy__Tensor **tensors = NULL;
    if (header->body_case == CONVOY__MESSAGE__BODY_FRAME) {
        count = header->frame->n_tensors;
        tensors = header->frame->tensors;
    } else if (header->body_case == CONVOY__MESSAGE__BODY_RESULT) {
        count = header->result->n_tensors;
        tensors = header->result->tensors;
    }
    if (message_check_tensors(tensors, count, message->payload_bytes, NULL, 0, descs, offsets,
                              &err) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        must(tensor_desc_bytes(&descs[i], &bytes) == 0);
        must(offsets[i] % TENSOR_ALIGN == 0 && offsets[i] + bytes <= message->payload_bytes);
    }
}

static int on_message(void *arg, const struct message *message) {
    struct reading *reading = arg;
    uint8_t *packed;
    size_t size;
    must(message->payload == reading->payload);
    reading->messages++;
    check_tensors(message);
    int rc = message_pack(message->header, message->payload_bytes, &packed, &size);
    must(rc == 0 || rc == -EMSGSIZE); /* ours may be a few bytes longer than what came */
    if (rc == 0) {
        mix(reading, packed, size);
        mix(reading, message->payload, message->payload_bytes);
    }
    if (rc == 0 && !reading->is_inner) {
        struct reader_limits limits = {MESSAGE_HEADER_MAX, MESSAGE_PAYLOAD_MAX};
        struct reading inner = {.limits = &limits, .is_inner = true};
        uint8_t *whole = malloc(size + message->payload_bytes);
        must(whole != NULL);
        memcpy(whole, packed, size);
        if (message->payload_bytes > 0)
            memcpy(whole + size, message->payload, message->payload_bytes);
        read_stream(&inner, whole, size + message->payload_bytes, SIZE_MAX);
        must(inner.rc == 0 && inner.messages == 1);
        free(whole);
    }
    if (rc == 0)
        free(packed);
    tensor_buffer_free(reading->payload);
    reading->payload = NULL;
    return 0;
}

static void read_stream(struct reading *reading, const uint8_t *data, size_t size, size_t step) {
    static const struct reader_callbacks callbacks = {on_payload, on_message};
    struct reader *reader = reader_new(reading->limits, &callbacks, reading);
    struct err err = {0};
    must(reader != NULL);
    while (size > 0 && reading->rc == 0) {
        void *window;
        size_t room;
        reader_window(reader, &window, &room);
        must(room > 0);
        room = room < step ? room : step;
        room = room < size ? room : size;
        memcpy(window, data, room);
        data += room;
        size -= room;
        reading->rc = reader_advance(reader, room, &err);
        must(reading->rc == 0 || reading->rc == -EPROTO || reading->rc == -EMSGSIZE);
        must((reading->rc == 0) == (err.text[0] == '\0'));
    }
    reader_free(reader);
    tensor_buffer_free(reading->payload);
    reading->payload = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    uint8_t choice = data[0];
    const struct reader_limits limits = {choice & 1 ? MESSAGE_HEADER_MAX : 200,
                                         choice & 2 ? PAYLOAD_MAX : 100};
    struct reading first = {.limits = &limits}, second = {.limits = &limits};
    read_stream(&first, data + 1, size - 1, SIZE_MAX);
    read_stream(&second, data + 1, size - 1, 1 + choice / 4);
    must(first.rc == second.rc && first.messages == second.messages);
    must(memcmp(first.digest, second.digest, SHA256_SIZE) == 0);
    return 0;
}
