/* What the reader allocates: nothing in the steady state, nothing on mere announcement; and what it
 * does when there is nothing to be had. */
#include "proto/message.h"
#include "tests/lib/messages.h"
#include "tests/lib/own_malloc.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct {
    size_t calls;   /* since the test set it to 0 */
    size_t largest; /* bytes in one call, since then */
    size_t fail_at; /* this call fails; 0: none */
    ptrdiff_t live; /* blocks that are not freed */
} counts;

static bool on_allocation(size_t size, const void *caller) {
    (void)caller;
    counts.largest = size > counts.largest ? size : counts.largest;
    return ++counts.calls != counts.fail_at;
}

static void on_blocks(int change) {
    counts.live += change;
}

static void need_counting(void) {
    if (!OWN_MALLOC)
        skip();
    own_malloc_hooks = (struct own_malloc_hooks){on_allocation, on_blocks};
}

/* ---- a quiet sink: its callbacks allocate nothing -------------------------------------------- */

#define PAYLOAD_BYTES 100000

struct quiet {
    _Alignas(TENSOR_ALIGN) uint8_t buffer[PAYLOAD_BYTES + TENSOR_ALIGN];
    size_t messages;
};

static int quiet_on_payload(void *arg, const Convoy__Message *header, size_t bytes,
                            void **ret_buffer) {
    struct quiet *quiet = arg;
    (void)header;
    assert_true(bytes <= PAYLOAD_BYTES);
    *ret_buffer = quiet->buffer;
    return 0;
}

static int quiet_on_message(void *arg, const struct message *message) {
    struct quiet *quiet = arg;
    (void)message;
    quiet->messages++;
    return 0;
}

static const struct reader_limits limits = {MESSAGE_HEADER_MAX, 1u << 30};
static const struct reader_callbacks quiet_callbacks = {quiet_on_payload, quiet_on_message};

static int feed(struct reader *reader, const uint8_t *data, size_t size) {
    int rc = 0;
    while (size > 0 && rc == 0) {
        void *window;
        size_t room;
        reader_window(reader, &window, &room);
        room = room < size ? room : size;
        memcpy(window, data, room);
        data += room;
        size -= room;
        rc = reader_advance(reader, room, NULL);
    }
    return rc;
}

static void add_frame(struct bytes *stream, enum form form) {
    static uint8_t payload[PAYLOAD_BYTES];
    Convoy__Message *sample = sample_new(CONVOY__MESSAGE__BODY_FRAME);
    bytes_add_message(stream, form, sample, payload, sizeof(payload));
    convoy__message__free_unpacked(sample, NULL);
}

static void nothing_is_allocated_in_the_steady_state(void **state) {
    (void)state;
    need_counting();
    static struct quiet quiet;
    for (enum form form = FORM_OURS; form <= FORM_ZERO_SIZES; form++) {
        struct bytes stream = {0};
        Convoy__Message *ping = sample_new(CONVOY__MESSAGE__BODY_PING);
        add_frame(&stream, form);
        bytes_add_message(&stream, form, ping, NULL, 0);
        struct reader *reader = reader_new(&limits, &quiet_callbacks, &quiet);
        quiet.messages = 0;
        assert_int_equal(feed(reader, stream.data, stream.size), 0);
        counts.calls = 0;
        for (int i = 0; i < 1000; i++)
            assert_int_equal(feed(reader, stream.data, stream.size), 0);
        assert_int_equal(counts.calls, 0);
        assert_int_equal(quiet.messages, 2002);
        reader_free(reader);
        convoy__message__free_unpacked(ping, NULL);
        free(stream.data);
    }
}

static void packing_into_a_buffer_allocates_nothing(void **state) {
    (void)state;
    need_counting();
    uint8_t buffer[1000];
    size_t size;
    Convoy__Message *sample = sample_new(CONVOY__MESSAGE__BODY_FRAME);
    counts.calls = 0;
    assert_int_equal(message_pack_into(sample, 100, buffer, sizeof(buffer), &size), 0);
    assert_int_equal(counts.calls, 0);
    convoy__message__free_unpacked(sample, NULL);
}

/* A gibibyte is announced, within the limits, and nothing of it is sent. */
static void an_announced_payload_takes_no_memory_before_it_arrives(void **state) {
    (void)state;
    need_counting();
    static struct quiet quiet;
    struct reader *reader = reader_new(&limits, &quiet_callbacks, &quiet);
    counts.calls = counts.largest = 0;
    /* length, then payload's tag and length, and a few of its bytes; a credit would follow */
    static const uint8_t start[] = {0x8a, 0x80, 0x80, 0x80, 4, 0x7a, 0x80,
                                    0x80, 0x80, 0x80, 4,    1, 2,    3};
    assert_int_equal(feed(reader, start, sizeof(start)), 0);
    assert_true(counts.largest <= 64u << 10);
    static uint8_t more[200000];
    assert_int_equal(feed(reader, more, sizeof(more)), 0);
    assert_true(counts.largest <= 2 * sizeof(more) + (64u << 10));
    reader_free(reader);

    /* The same with sizes: 9 + 20 + 1 GiB; the buffer is only asked for with the whole header. */
    reader = reader_new(&limits, &quiet_callbacks, &quiet);
    counts.calls = 0;
    static const uint8_t sized[] = {0x9d, 0x80, 0x80, 0x80, 4, 0x09, 20, 0, 0, 0, 0, 0, 0, 0x40};
    assert_int_equal(feed(reader, sized, sizeof(sized)), 0);
    assert_int_equal(counts.calls, 0);
    reader_free(reader);
}

/* 64 KiB of empty stages or unknown fields would unpack to 10 MB. */
static void a_hostile_header_is_bounded(void **state) {
    (void)state;
    need_counting();
    static const char *const parts[] = {"\x12\x00", "\x7a\x00"}; /* stages; fields 15 of Status */
    static struct quiet quiet;
    for (int i = 0; i < 2; i++) {
        struct bytes body = {0}, message = {0}, stream = {0};
        for (int j = 0; j < 32000; j++)
            bytes_add(&body, parts[i], 2);
        bytes_add(&message, "\x6a", 1);
        bytes_add_delimited(&message, body.data, body.size);
        bytes_add_delimited(&stream, message.data, message.size);
        struct reader *reader = reader_new(&limits, &quiet_callbacks, &quiet);
        counts.largest = 0;
        assert_int_equal(feed(reader, stream.data, stream.size), -EMSGSIZE);
        assert_true(counts.largest <= 1u << 20);
        reader_free(reader);
        free(body.data);
        free(message.data);
        free(stream.data);
    }
}

/* A header that outgrows every first block. */
static void add_plans(struct bytes *stream, enum form form) {
    static uint8_t digest[32];
    ProtobufCBinaryData ids[300];
    Convoy__Plans plans = CONVOY__PLANS__INIT;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    for (int i = 0; i < 300; i++)
        ids[i] = (ProtobufCBinaryData){.len = sizeof(digest), .data = digest};
    plans.n_ready = 300;
    plans.ready = ids;
    message.body_case = CONVOY__MESSAGE__BODY_PLANS;
    message.plans = &plans;
    bytes_add_message(stream, form, &message, NULL, 0);
}

static void every_failing_allocation_is_an_error_without_a_leak(void **state) {
    (void)state;
    need_counting();
    for (enum form form = 0; form < FORM_COUNT; form++) {
        struct bytes stream = {0};
        static struct quiet quiet;
        add_plans(&stream, form);
        add_frame(&stream, form);
        bool is_done = false;
        for (size_t nth = 1; !is_done; nth++) {
            ptrdiff_t live = counts.live;
            counts.calls = 0;
            counts.fail_at = nth;
            struct reader *reader = reader_new(&limits, &quiet_callbacks, &quiet);
            int rc = reader ? feed(reader, stream.data, stream.size) : -ENOMEM;
            is_done = counts.calls < nth;
            counts.fail_at = 0;
            reader_free(reader);
            assert_int_equal(rc, is_done ? 0 : -ENOMEM);
            assert_int_equal(counts.live, live);
            assert_true(nth < 30);
        }
        free(stream.data);
    }
}

static void packing_without_memory_is_an_error(void **state) {
    (void)state;
    need_counting();
    uint8_t *data = NULL;
    size_t size;
    Convoy__Message *sample = sample_new(CONVOY__MESSAGE__BODY_FRAME);
    counts.calls = 0;
    counts.fail_at = 1;
    assert_int_equal(message_pack(sample, 0, &data, &size), -ENOMEM);
    counts.fail_at = 0;
    assert_null(data);
    convoy__message__free_unpacked(sample, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_allocated_in_the_steady_state),
        cmocka_unit_test(packing_into_a_buffer_allocates_nothing),
        cmocka_unit_test(an_announced_payload_takes_no_memory_before_it_arrives),
        cmocka_unit_test(a_hostile_header_is_bounded),
        cmocka_unit_test(every_failing_allocation_is_an_error_without_a_leak),
        cmocka_unit_test(packing_without_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
