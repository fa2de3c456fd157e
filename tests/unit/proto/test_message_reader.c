/* The reader: every form of every message, cut at every byte, and every way to be wrong. */
#include "proto/message.h"
#include "tests/lib/messages.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX  (64u << 10)
#define PAYLOAD_MAX (1u << 20)

static const Convoy__Message__BodyCase kinds[] = {
    CONVOY__MESSAGE__BODY_HELLO,          CONVOY__MESSAGE__BODY_WELCOME,
    CONVOY__MESSAGE__BODY_PLANS,          CONVOY__MESSAGE__BODY_FRAME,
    CONVOY__MESSAGE__BODY_RESULT,         CONVOY__MESSAGE__BODY_REFUSAL,
    CONVOY__MESSAGE__BODY_GOODBYE,        CONVOY__MESSAGE__BODY_CREDIT,
    CONVOY__MESSAGE__BODY_PING,           CONVOY__MESSAGE__BODY_PONG,
    CONVOY__MESSAGE__BODY_STATUS_REQUEST, CONVOY__MESSAGE__BODY_STATUS,
    CONVOY__MESSAGE__BODY_PART_CHUNK,     CONVOY__MESSAGE__BODY_PREPARE,
    CONVOY__MESSAGE__BODY_PREPARED,       CONVOY__MESSAGE__BODY_RELEASE,
    CONVOY__MESSAGE__BODY_PART_REQUEST,   CONVOY__MESSAGE__BODY_APPLY,
    CONVOY__MESSAGE__BODY_APPLIED,        CONVOY__MESSAGE__BODY_MEASURE,
    CONVOY__MESSAGE__BODY_MEASURED,       CONVOY__MESSAGE__BODY_PROBE,
    CONVOY__MESSAGE__BODY_PROBED,
};
#define KINDS         (sizeof(kinds) / sizeof(kinds[0]))
#define PAYLOAD_KINDS 4 /* Frame, Result, PartChunk, Probe */

static uint8_t payload[300000]; /* more than the first spill block */

static int fill_payload(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)(i * 7 + i / 251);
    return 0;
}

/* One message of the kind in the form, payload included where the kind is one that has any. */
static void add_sample(struct bytes *bytes, enum form form, Convoy__Message__BodyCase kind,
                       size_t payload_bytes) {
    Convoy__Message *sample = sample_new(kind);
    bool has_payload =
        kind == CONVOY__MESSAGE__BODY_FRAME || kind == CONVOY__MESSAGE__BODY_RESULT ||
        kind == CONVOY__MESSAGE__BODY_PART_CHUNK || kind == CONVOY__MESSAGE__BODY_PROBE;
    bytes_add_message(bytes, form, sample, payload, has_payload ? payload_bytes : 0);
    convoy__message__free_unpacked(sample, NULL);
}

/* Every kind of message, in the form, and in ours. */
static void make_streams(enum form form, size_t payload_bytes, struct bytes *stream,
                         struct bytes *ours) {
    for (size_t i = 0; i < KINDS; i++) {
        add_sample(stream, form, kinds[i], payload_bytes);
        add_sample(ours, FORM_OURS, kinds[i], payload_bytes);
    }
}

static void expect_stream(const struct bytes *stream, size_t step, const struct bytes *ours) {
    struct sink sink;
    sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
    assert_int_equal(sink_feed(&sink, stream->data, stream->size, step), 0);
    assert_false(reader_is_mid_message(sink.reader));
    assert_int_equal(sink.messages, KINDS);
    assert_int_equal(sink.payloads, PAYLOAD_KINDS);
    assert_int_equal(sink.got.size, ours->size);
    assert_memory_equal(sink.got.data, ours->data, ours->size);
    sink_fini(&sink);
}

static void every_message_arrives_in_every_form_at_every_step(void **state) {
    (void)state;
    for (enum form form = 0; form < FORM_COUNT; form++) {
        struct bytes stream = {0}, ours = {0};
        make_streams(form, 333, &stream, &ours);
        for (size_t step = 1; step < 80; step++)
            expect_stream(&stream, step, &ours);
        expect_stream(&stream, SIZE_MAX, &ours);
        free(stream.data);
        free(ours.data);
    }
}

static void large_payloads_arrive_in_every_form(void **state) {
    (void)state;
    for (enum form form = 0; form < FORM_COUNT; form++) {
        struct bytes stream = {0}, ours = {0};
        make_streams(form, sizeof(payload), &stream, &ours);
        expect_stream(&stream, 1000, &ours);
        expect_stream(&stream, SIZE_MAX, &ours);
        free(stream.data);
        free(ours.data);
    }
}

static void payloads_of_every_small_size_arrive_in_every_form(void **state) {
    (void)state;
    for (enum form form = 0; form < FORM_COUNT; form++)
        for (size_t size = 0; size < 150; size++) {
            struct bytes stream = {0}, ours = {0};
            struct sink sink;
            sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
            for (int i = 0; i < 2; i++) {
                add_sample(&stream, form, CONVOY__MESSAGE__BODY_FRAME, size);
                add_sample(&ours, FORM_OURS, CONVOY__MESSAGE__BODY_FRAME, size);
            }
            assert_int_equal(sink_feed(&sink, stream.data, stream.size, SIZE_MAX), 0);
            assert_int_equal(sink.messages, 2);
            assert_int_equal(sink.payloads, size > 0 ? 2 : 0);
            assert_int_equal(sink.got.size, ours.size);
            assert_memory_equal(sink.got.data, ours.data, ours.size);
            sink_fini(&sink);
            free(stream.data);
            free(ours.data);
        }
}

static void a_stream_cut_in_two_anywhere_is_the_same_stream(void **state) {
    (void)state;
    for (enum form form = 0; form < FORM_COUNT; form++) {
        struct bytes stream = {0}, ours = {0};
        add_sample(&stream, form, CONVOY__MESSAGE__BODY_RESULT, 50);
        add_sample(&stream, form, CONVOY__MESSAGE__BODY_CREDIT, 0);
        add_sample(&ours, FORM_OURS, CONVOY__MESSAGE__BODY_RESULT, 50);
        add_sample(&ours, FORM_OURS, CONVOY__MESSAGE__BODY_CREDIT, 0);
        for (size_t cut = 0; cut <= stream.size; cut++) {
            struct sink sink;
            sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
            assert_int_equal(sink_feed(&sink, stream.data, cut, SIZE_MAX), 0);
            assert_int_equal(sink_feed(&sink, stream.data + cut, stream.size - cut, SIZE_MAX), 0);
            assert_int_equal(sink.messages, 2);
            assert_memory_equal(sink.got.data, ours.data, ours.size);
            sink_fini(&sink);
        }
        free(stream.data);
        free(ours.data);
    }
}

static void a_truncated_stream_is_in_the_middle_of_a_message(void **state) {
    (void)state;
    for (enum form form = 0; form < FORM_COUNT; form++) {
        struct bytes stream = {0};
        add_sample(&stream, form, CONVOY__MESSAGE__BODY_FRAME, 50);
        for (size_t size = 0; size <= stream.size; size++) {
            struct sink sink;
            sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
            assert_int_equal(sink_feed(&sink, stream.data, size, SIZE_MAX), 0);
            assert_int_equal(reader_is_mid_message(sink.reader), size > 0 && size < stream.size);
            assert_int_equal(sink.messages, size == stream.size);
            sink_fini(&sink);
        }
        free(stream.data);
    }
}

/* ---- windows --------------------------------------------------------------------------------- */

static void a_payload_in_our_form_lands_in_its_buffer_only(void **state) {
    (void)state;
    struct bytes stream = {0};
    struct sink sink;
    sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
    add_sample(&stream, FORM_OURS, CONVOY__MESSAGE__BODY_PING, 0);
    add_sample(&stream, FORM_OURS, CONVOY__MESSAGE__BODY_FRAME, 5000);

    /* As a socket with everything there: each window is filled. */
    size_t at = 0, inside = 0;
    while (at < stream.size) {
        void *window;
        size_t room;
        reader_window(sink.reader, &window, &room);
        room = room < stream.size - at ? room : stream.size - at;
        if (sink.pending && (uint8_t *)window >= (uint8_t *)sink.pending &&
            (uint8_t *)window < (uint8_t *)sink.pending + 5000)
            inside += room;
        memcpy(window, stream.data + at, room);
        at += room;
        assert_int_equal(reader_advance(sink.reader, room, NULL), 0);
    }
    assert_int_equal(sink.messages, 2);
    assert_int_equal(inside, 5000);
    sink_fini(&sink);
    free(stream.data);
}

/* The smallest frame that a device would send: one scalar, a name of one letter, no plan. */
static void even_the_smallest_frame_is_not_read_ahead(void **state) {
    (void)state;
    struct tensor_desc desc = {.name = "x", .dtype = DTYPE_UINT8};
    Convoy__Tensor wire, *pointer;
    assert_int_equal(message_fill_tensors(&desc, 1, &wire, &pointer), 0);
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    frame.session = 1;
    frame.sequence = 1;
    frame.n_tensors = 1;
    frame.tensors = &pointer;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &frame;
    uint8_t *data;
    size_t size, room;
    void *window;
    assert_int_equal(message_pack(&message, 1, &data, &size), 0);
    struct sink sink;
    sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
    reader_window(sink.reader, &window, &room);
    assert_true(room <= size);
    sink_fini(&sink);
    free(data);
}

static void a_ping_takes_one_read(void **state) {
    (void)state;
    struct bytes stream = {0};
    struct sink sink;
    sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
    add_sample(&stream, FORM_OURS, CONVOY__MESSAGE__BODY_PING, 0);
    void *window;
    size_t room;
    reader_window(sink.reader, &window, &room);
    assert_true(room >= stream.size);
    memcpy(window, stream.data, stream.size);
    assert_int_equal(reader_advance(sink.reader, stream.size, NULL), 0);
    assert_int_equal(sink.messages, 1);
    sink_fini(&sink);
    free(stream.data);
}

/* ---- limits ---------------------------------------------------------------------------------- */

/* Feeds one message at many steps, and expects rc with words in the sentence. */
static void expect(const char *what, const struct bytes *stream, uint32_t header_max,
                   uint32_t payload_max, int rc, const char *words) {
    for (size_t step = 1; step <= stream->size; step += step < 40 ? 1 : 100) {
        struct sink sink;
        sink_init(&sink, header_max, payload_max);
        int got = sink_feed(&sink, stream->data, stream->size, step);
        if (got != rc)
            fail_msg("%s, %zu at once: %d (%s) instead of %d", what, step, got, sink.err.text, rc);
        assert_int_equal(sink.messages, rc == 0);
        if (rc < 0 && !strstr(sink.err.text, words))
            fail_msg("%s: \"%s\" does not say \"%s\"", what, sink.err.text, words);
        if (rc < 0)
            assert_non_null(strstr(sink.err.text, "message at byte 0"));
        sink_fini(&sink);
    }
}

static void a_payload_may_be_as_large_as_its_limit_and_no_larger(void **state) {
    (void)state;
    for (enum form form = 0; form < FORM_COUNT; form++) {
        struct bytes stream = {0};
        add_sample(&stream, form, CONVOY__MESSAGE__BODY_FRAME, 1000);
        expect("payload", &stream, HEADER_MAX, 1000, 0, "");
        expect("payload", &stream, HEADER_MAX, 999, -EMSGSIZE,
               "a payload of 1000 bytes, at most 999");
        expect("payload", &stream, HEADER_MAX, 0, -EMSGSIZE, "a payload of 1000 bytes, at most 0");
        free(stream.data);
    }
}

static void a_header_may_be_as_large_as_its_limit_and_no_larger(void **state) {
    (void)state;
    for (enum form form = FORM_OURS; form <= FORM_STOCK_SIZES; form++) {
        struct bytes stream = {0}, stock = {0};
        add_sample(&stream, form, CONVOY__MESSAGE__BODY_FRAME, 1000);
        add_sample(&stock, FORM_STOCK, CONVOY__MESSAGE__BODY_FRAME, 1000);
        uint32_t header = (uint32_t)(stock.size - 2 - 1000);
        if (form == FORM_OURS)
            header += 3; /* the payload's length is padded from two bytes to five */
        expect("header", &stream, header, 2000, 0, "");
        expect("header", &stream, header - 1, 2000, -EMSGSIZE, "a header of ");
        free(stream.data);
        free(stock.data);
    }
}

static void a_length_over_the_limits_is_refused_at_once(void **state) {
    (void)state;
    static const uint8_t length[] = {0xff, 0xff, 0xff, 0xff, 0x7f};
    struct sink sink;
    sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
    assert_int_equal(sink_feed(&sink, length, sizeof(length), SIZE_MAX), -EMSGSIZE);
    sink_fini(&sink);

    sink_init(&sink, 100, 200);
    assert_int_equal(sink_feed(&sink, "\xb5\x02", 2, SIZE_MAX), 0); /* 9 + 100 + 200 */
    sink_fini(&sink);
    sink_init(&sink, 100, 200);
    assert_int_equal(sink_feed(&sink, "\xb6\x02", 2, SIZE_MAX), -EMSGSIZE);
    sink_fini(&sink);
}

static void an_announced_payload_over_its_limit_gets_no_buffer(void **state) {
    (void)state;
    /* Prefix alone: length 9 + 20 + 999980, of which the limit allows less. */
    uint8_t prefix[14] = {0xc9, 0x84, 0xbd, 0x80, 0x00, 0x09, 20, 0, 0, 0, 0x2c, 0x42, 0x0f, 0};
    struct sink sink;
    sink_init(&sink, HEADER_MAX, 999979);
    assert_int_equal(sink_feed(&sink, prefix, sizeof(prefix), SIZE_MAX), -EMSGSIZE);
    assert_int_equal(sink.payloads, 0);
    sink_fini(&sink);
    sink_init(&sink, HEADER_MAX, 999980);
    assert_int_equal(sink_feed(&sink, prefix, sizeof(prefix), SIZE_MAX), 0);
    assert_int_equal(sink.payloads, 0);
    sink_fini(&sink);
}

static void new_limits_hold_from_the_next_message_on(void **state) {
    (void)state;
    struct bytes stream = {0};
    struct sink sink;
    add_sample(&stream, FORM_OURS, CONVOY__MESSAGE__BODY_FRAME, 1000);
    sink_init(&sink, HEADER_MAX, 1000);
    assert_int_equal(sink_feed(&sink, stream.data, 100, SIZE_MAX), 0);
    reader_set_limits(sink.reader, &(struct reader_limits){HEADER_MAX, 999});
    assert_int_equal(sink_feed(&sink, stream.data + 100, stream.size - 100, SIZE_MAX), 0);
    assert_int_equal(sink.messages, 1);
    assert_int_equal(sink_feed(&sink, stream.data, stream.size, SIZE_MAX), -EMSGSIZE);
    sink_fini(&sink);
    free(stream.data);
}

static void a_header_of_many_empty_parts_is_refused(void **state) {
    (void)state;
    /* A status of 30,000 stages of two bytes each would need some 10 MB when unpacked. */
    struct bytes body = {0}, message = {0}, stream = {0};
    for (int i = 0; i < 30000; i++)
        bytes_add(&body, "\x12\x00", 2);
    bytes_add(&message, "\x6a", 1);
    bytes_add_delimited(&message, body.data, body.size);
    bytes_add_delimited(&stream, message.data, message.size);
    struct sink sink;
    sink_init(&sink, HEADER_MAX, 0);
    assert_int_equal(sink_feed(&sink, stream.data, stream.size, SIZE_MAX), -EMSGSIZE);
    assert_non_null(strstr(sink.err.text, "too many parts"));
    sink_fini(&sink);
    free(body.data);
    free(message.data);
    free(stream.data);
}

/* ---- malformed ------------------------------------------------------------------------------- */

struct wrong {
    const char *what;
    const char *bytes;
    size_t size;
    int rc;
    const char *words;
};
#define BYTES(text) (text), sizeof(text) - 1

static const struct wrong wrongs[] = {
    {"a length that does not end", BYTES("\x80\x80\x80\x80\x80"), -EPROTO, "more than 5 bytes"},
    {"an empty message", BYTES("\x00"), -EPROTO, "no body"},
    {"sizes alone", BYTES("\x09\x09\0\0\0\0\0\0\0\0"), -EPROTO, "no body"},
    {"a body that is unknown", BYTES("\x03\xf2\x01\x00"), -EPROTO, "no body"},
    {"sizes larger than the length", BYTES("\x0d\x09\x05\0\0\0\0\0\0\0\x4a\x02\x08\x01"), -EPROTO,
     "5 + 0 bytes are stated, but 4 follow"},
    {"sizes smaller than the length", BYTES("\x0d\x09\x03\0\0\0\0\0\0\0\x4a\x02\x08\x01"), -EPROTO,
     "3 + 0 bytes are stated, but 4 follow"},
    {"a payload stated that is none", BYTES("\x0d\x09\x03\0\0\0\x01\0\0\0\x4a\x02\x08\x01"),
     -EPROTO, "no field at byte 0"},
    {"a payload that is not stated", BYTES("\x10\x09\x07\0\0\0\0\0\0\0\x4a\x02\x08\x01\x7a\x01x"),
     -EPROTO, "not where the message states"},
    {"a payload that is stated too early",
     BYTES("\x10\x09\x05\0\0\0\x02\0\0\0\x4a\x02\x08\x01\x7a\x01x"), -EPROTO, "no field at byte 4"},
    {"a payload that is longer than stated",
     BYTES("\x11\x09\x06\0\0\0\x02\0\0\0\x4a\x02\x08\x01\x7a\x03xy"), -EPROTO,
     "no field at byte 4"},
    {"something behind a stated payload",
     BYTES("\x13\x09\x06\0\0\0\x04\0\0\0\x4a\x02\x08\x01\x7a\x01xx\x08\x01"), -EPROTO,
     "something follows"},
    {"a field that ends behind the message", BYTES("\x04\x4a\x03\x08\x01"), -EPROTO,
     "no field at byte 0"},
    {"a field of 4 GiB", BYTES("\x07\x4a\xff\xff\xff\xff\x0f\x01"), -EPROTO, "no field at byte 0"},
    {"a nested field that ends behind its message", BYTES("\x04\x4a\x02\x0a\x01"), -EPROTO,
     "no field of Credit"},
    {"a message that ends in a tag", BYTES("\x05\x4a\x02\x08\x01\x80"), -EPROTO,
     "no field at byte 4"},
    {"a message that ends in a varint", BYTES("\x06\x4a\x02\x08\x01\x10\x80"), -EPROTO,
     "no field at byte 4"},
    {"a varint of eleven bytes",
     BYTES("\x0f\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x4a\x02\x08\x01"), -EPROTO,
     "no field at byte 0"},
    {"field number 0", BYTES("\x05\x00\x4a\x02\x08\x01"), -EPROTO, "no field at byte 0"},
    {"a group", BYTES("\x06\x4b\x4c\x4a\x02\x08\x01"), -EPROTO, "no field at byte 0"},
    {"two bodies", BYTES("\x08\x4a\x02\x08\x01\x4a\x02\x08\x01"), -EPROTO, "credit stands twice"},
    {"two bodies of two kinds", BYTES("\x06\x4a\x02\x08\x01\x52\x00"), -EPROTO,
     "ping stands twice"},
    {"two payloads", BYTES("\x0a\x7a\x01x\x4a\x02\x08\x01\x7a\x01x"), -EPROTO,
     "payload stands twice"},
    {"two empty payloads", BYTES("\x08\x7a\x00\x4a\x02\x08\x01\x7a\x00"), -EPROTO,
     "payload stands twice"},
    {"a field twice in a body", BYTES("\x06\x4a\x04\x08\x01\x08\x01"), -EPROTO,
     "frames stands twice"},
    {"a payload that is a number", BYTES("\x06\x78\x05\x4a\x02\x08\x01"), -EPROTO, "wrong type"},
    {"a body that is a number", BYTES("\x02\x48\x05"), -EPROTO, "wrong type"},
    {"a number that is a string", BYTES("\x05\x4a\x03\x0a\x01x"), -EPROTO, "wrong type"},
    {"a name with a NUL",
     BYTES("\x07\x42\x05\x12\x03"
           "a\0b"),
     -EPROTO, "text is not UTF-8"},
    {"a name that is not UTF-8", BYTES("\x06\x42\x04\x12\x02\xc3("), -EPROTO, "text is not UTF-8"},
};

static void what_is_malformed_is_refused_with_a_sentence(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        struct bytes stream = {0};
        bytes_add(&stream, wrongs[i].bytes, wrongs[i].size);
        expect(wrongs[i].what, &stream, 100, 100, wrongs[i].rc, wrongs[i].words);
        free(stream.data);
    }
}

static void a_string_may_have_1024_bytes_and_no_more(void **state) {
    (void)state;
    char text[MESSAGE_NAME_MAX + 2] = {0};
    for (size_t size = MESSAGE_NAME_MAX; size <= MESSAGE_NAME_MAX + 1; size++) {
        memset(text, 'a', size);
        Convoy__Goodbye goodbye = CONVOY__GOODBYE__INIT;
        goodbye.text = text;
        Convoy__Message message = CONVOY__MESSAGE__INIT;
        message.body_case = CONVOY__MESSAGE__BODY_GOODBYE;
        message.goodbye = &goodbye;
        struct bytes stream = {0};
        bytes_add_message(&stream, FORM_STOCK, &message, NULL, 0);
        expect("string", &stream, HEADER_MAX, 0, size == MESSAGE_NAME_MAX ? 0 : -EMSGSIZE,
               "text has 1025 bytes, at most 1024");
        free(stream.data);
    }
}

static void an_error_tells_where_in_the_stream(void **state) {
    (void)state;
    struct bytes stream = {0};
    struct sink sink;
    sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
    add_sample(&stream, FORM_OURS, CONVOY__MESSAGE__BODY_FRAME, 77);
    add_sample(&stream, FORM_PAYLOAD_FIRST, CONVOY__MESSAGE__BODY_FRAME, 77);
    char where[64];
    (void)snprintf(where, sizeof(where), "message at byte %zu of the stream: ", stream.size);
    bytes_add(&stream, "\x00", 1);
    assert_int_equal(sink_feed(&sink, stream.data, stream.size, SIZE_MAX), -EPROTO);
    assert_memory_equal(sink.err.text, where, strlen(where));
    sink_fini(&sink);
    free(stream.data);
}

/* ---- callbacks ------------------------------------------------------------------------------- */

static void what_a_callback_returns_ends_the_reader(void **state) {
    (void)state;
    for (enum form form = 0; form < FORM_COUNT; form++) {
        struct bytes stream = {0};
        struct sink sink;
        add_sample(&stream, form, CONVOY__MESSAGE__BODY_FRAME, 10);

        sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
        sink.refuse_payload = -ESTALE;
        assert_int_equal(sink_feed(&sink, stream.data, stream.size, 1), -ESTALE);
        assert_int_equal(sink.messages, 0);
        assert_non_null(strstr(sink.err.text, "refused"));
        sink_fini(&sink);

        sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
        sink.refuse_message = -ECANCELED;
        assert_int_equal(sink_feed(&sink, stream.data, stream.size, 1), -ECANCELED);
        assert_int_equal(sink.messages, 1);
        sink_fini(&sink);
        free(stream.data);
    }
}

static void a_reader_may_be_freed_in_the_middle_of_anything(void **state) {
    (void)state;
    for (enum form form = 0; form < FORM_COUNT; form++) {
        struct bytes stream = {0};
        add_sample(&stream, form, CONVOY__MESSAGE__BODY_FRAME, 50);
        for (size_t size = 0; size < stream.size; size++) {
            struct sink sink;
            sink_init(&sink, HEADER_MAX, PAYLOAD_MAX);
            assert_int_equal(sink_feed(&sink, stream.data, size, SIZE_MAX), 0);
            sink_fini(&sink); /* the sanitizers see a leak */
        }
        free(stream.data);
    }
    reader_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_arrives_in_every_form_at_every_step),
        cmocka_unit_test(large_payloads_arrive_in_every_form),
        cmocka_unit_test(payloads_of_every_small_size_arrive_in_every_form),
        cmocka_unit_test(a_stream_cut_in_two_anywhere_is_the_same_stream),
        cmocka_unit_test(a_truncated_stream_is_in_the_middle_of_a_message),
        cmocka_unit_test(a_payload_in_our_form_lands_in_its_buffer_only),
        cmocka_unit_test(even_the_smallest_frame_is_not_read_ahead),
        cmocka_unit_test(a_ping_takes_one_read),
        cmocka_unit_test(a_payload_may_be_as_large_as_its_limit_and_no_larger),
        cmocka_unit_test(a_header_may_be_as_large_as_its_limit_and_no_larger),
        cmocka_unit_test(a_length_over_the_limits_is_refused_at_once),
        cmocka_unit_test(an_announced_payload_over_its_limit_gets_no_buffer),
        cmocka_unit_test(new_limits_hold_from_the_next_message_on),
        cmocka_unit_test(a_header_of_many_empty_parts_is_refused),
        cmocka_unit_test(what_is_malformed_is_refused_with_a_sentence),
        cmocka_unit_test(a_string_may_have_1024_bytes_and_no_more),
        cmocka_unit_test(an_error_tells_where_in_the_stream),
        cmocka_unit_test(what_a_callback_returns_ends_the_reader),
        cmocka_unit_test(a_reader_may_be_freed_in_the_middle_of_anything),
    };
    return cmocka_run_group_tests(tests, fill_payload, NULL);
}
