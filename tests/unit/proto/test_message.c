/* Packing, and the tensors of a header against its payload. */
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

/* ---- packing --------------------------------------------------------------------------------- */

static Convoy__Credit credit = CONVOY__CREDIT__INIT;

static Convoy__Message credit_message(void) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    credit.frames = 3;
    message.body_case = CONVOY__MESSAGE__BODY_CREDIT;
    message.credit = &credit;
    return message;
}

static void a_packed_message_begins_with_its_sizes(void **state) {
    (void)state;
    static const uint8_t bare[] = {0x8d, 0x80, 0x80, 0x80, 0, 0x09, 4, 0,    0,
                                   0,    0,    0,    0,    0, 0x4a, 2, 0x08, 3};
    static const uint8_t loaded[] = {0xff, 0x80, 0x80, 0x80, 0,    0x09, 10,   0,
                                     0,    0,    0x6c, 0,    0,    0,    0x4a, 2,
                                     0x08, 3,    0x7a, 0xec, 0x80, 0x80, 0x80, 0};
    Convoy__Message message = credit_message();
    uint8_t *data;
    size_t size;
    assert_int_equal(message_pack(&message, 0, &data, &size), 0);
    assert_int_equal(size, sizeof(bare));
    assert_memory_equal(data, bare, size);
    free(data);
    assert_int_equal(message_pack(&message, 108, &data, &size), 0);
    assert_int_equal(size, sizeof(loaded));
    assert_memory_equal(data, loaded, size);
    free(data);
}

static void a_packed_message_with_its_payload_is_read_by_stock_protobuf(void **state) {
    (void)state;
    Convoy__Message message = credit_message();
    uint8_t *data;
    size_t size;
    assert_int_equal(message_pack(&message, 3, &data, &size), 0);
    data = realloc(data, size + 3);
    static const uint8_t payload[] = {1, 0, 2};
    memcpy(data + size, payload, sizeof(payload));
    Convoy__Message *stock = convoy__message__unpack(NULL, size + 3 - 5, data + 5);
    assert_non_null(stock);
    assert_int_equal(stock->body_case, CONVOY__MESSAGE__BODY_CREDIT);
    assert_int_equal(stock->credit->frames, 3);
    assert_int_equal(stock->payload.len, 3);
    assert_memory_equal(stock->payload.data, payload, 3);
    assert_int_equal(stock->sizes, UINT64_C(3) << 32 | 10);
    convoy__message__free_unpacked(stock, NULL);
    free(data);
}

static void sizes_and_payload_of_a_header_are_ignored(void **state) {
    (void)state;
    Convoy__Message message = credit_message();
    uint8_t *plain, *other;
    size_t plain_size, other_size;
    assert_int_equal(message_pack(&message, 9, &plain, &plain_size), 0);
    message.sizes = 12345;
    message.payload = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)"abc"};
    assert_int_equal(message_pack(&message, 9, &other, &other_size), 0);
    assert_int_equal(plain_size, other_size);
    assert_memory_equal(plain, other, plain_size);
    free(plain);
    free(other);
}

static void packing_into_a_buffer_that_is_too_small_tells_what_it_needs(void **state) {
    (void)state;
    Convoy__Message message = credit_message();
    uint8_t buffer[32], *data;
    size_t size, need = 0;
    assert_int_equal(message_pack(&message, 7, &data, &size), 0);
    for (size_t room = 0; room < size; room++) {
        assert_int_equal(message_pack_into(&message, 7, buffer, room, &need), -ENOBUFS);
        assert_int_equal(need, size);
    }
    need = 0;
    assert_int_equal(message_pack_into(&message, 7, buffer, size, &need), 0);
    assert_int_equal(need, size);
    assert_memory_equal(buffer, data, size);
    free(data);
}

static void a_payload_over_one_gibibyte_is_not_packed(void **state) {
    (void)state;
    Convoy__Message message = credit_message();
    uint8_t buffer[32];
    size_t size;
    assert_int_equal(message_pack_into(&message, MESSAGE_PAYLOAD_MAX, buffer, 32, &size), 0);
    assert_int_equal(
        message_pack_into(&message, (size_t)MESSAGE_PAYLOAD_MAX + 1, buffer, 32, &size), -EMSGSIZE);
}

static void a_header_has_at_most_64_kibibytes(void **state) {
    (void)state;
    /* Plans of one long id: tag and length of the body and of the id are 4 bytes each. */
    size_t most = MESSAGE_HEADER_MAX - 8;
    ProtobufCBinaryData id = {.len = most, .data = calloc(1, most + 1)};
    Convoy__Plans plans = CONVOY__PLANS__INIT;
    plans.n_ready = 1;
    plans.ready = &id;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    message.body_case = CONVOY__MESSAGE__BODY_PLANS;
    message.plans = &plans;
    uint8_t *data;
    size_t size;
    assert_int_equal(message_pack(&message, 0, &data, &size), 0);
    assert_int_equal(size, MESSAGE_PACKED_MAX);
    assert_int_equal(message_pack_into(&message, 1, data, size, &size), -EMSGSIZE);
    id.len = most - 6; /* the payload's tag and length count */
    assert_int_equal(message_pack_into(&message, 1, data, size, &size), 0);
    assert_int_equal(size, MESSAGE_PACKED_MAX);
    free(data);
    id.len = most + 1;
    assert_int_equal(message_pack(&message, 0, &data, &size), -EMSGSIZE);
    free(id.data);
}

static void a_string_that_no_peer_would_take_is_not_packed(void **state) {
    (void)state;
    Convoy__Goodbye goodbye = CONVOY__GOODBYE__INIT;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    message.body_case = CONVOY__MESSAGE__BODY_GOODBYE;
    message.goodbye = &goodbye;
    static const struct {
        const char *text;
        int rc;
    } texts[] = {
        {"plain", 0},
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x9a\x97 \xf4\x8f\xbf\xbf \xed\x9f\xbf \xc2\x80", 0},
        {"\xc3", -EPROTO},             /* ends early */
        {"\xe2\x82", -EPROTO},         /* ends early */
        {"\xa9", -EPROTO},             /* begins in the middle */
        {"\xc3z", -EPROTO},            /* no second byte */
        {"\xc1\xbf", -EPROTO},         /* two bytes for what takes one */
        {"\xe0\x9f\xbf", -EPROTO},     /* three for two */
        {"\xf0\x8f\xbf\xbf", -EPROTO}, /* four for three */
        {"\xed\xa0\x80", -EPROTO},     /* a surrogate */
        {"\xf4\x90\x80\x80", -EPROTO}, /* beyond U+10FFFF */
        {"\xf8\x88\x80\x80\x80", -EPROTO},
        {"\xff", -EPROTO},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        uint8_t buffer[100];
        size_t size;
        goodbye.text = (char *)texts[i].text;
        assert_int_equal(message_pack_into(&message, 0, buffer, sizeof(buffer), &size),
                         texts[i].rc);
        uint8_t *data = NULL;
        assert_int_equal(message_pack(&message, 0, &data, &size), texts[i].rc);
        assert_true((data != NULL) == (texts[i].rc == 0));
        free(data);
    }
    char text[MESSAGE_NAME_MAX + 2] = {0};
    uint8_t buffer[2000];
    size_t size;
    memset(text, 'a', MESSAGE_NAME_MAX);
    goodbye.text = text;
    assert_int_equal(message_pack_into(&message, 0, buffer, sizeof(buffer), &size), 0);
    memset(text, 'a', MESSAGE_NAME_MAX + 1);
    assert_int_equal(message_pack_into(&message, 0, buffer, sizeof(buffer), &size), -EMSGSIZE);
}

static void codes_have_names(void **state) {
    (void)state;
    assert_string_equal(message_code_name(CONVOY__CODE__CODE_OK), "OK");
    assert_string_equal(message_code_name(CONVOY__CODE__CODE_UNKNOWN_PLAN), "UNKNOWN_PLAN");
    assert_string_equal(message_code_name((Convoy__Code)12345), "?");
    assert_string_equal(message_code_name((Convoy__Code)-1), "?");
}

/* ---- layout ---------------------------------------------------------------------------------- */

static const struct tensor_desc stage_inputs[] = {
    {.name = "image", .dtype = DTYPE_FLOAT, .rank = 4, .dims = {1, 3, 5, 5}}, /* 300 bytes */
    {.name = "scale", .dtype = DTYPE_FLOAT},                                  /* 4 */
    {.name = "labels", .dtype = DTYPE_INT64, .rank = 1, .dims = {8}},         /* 64 */
    {.name = "mask", .dtype = DTYPE_BOOL, .rank = 2, .dims = {1, 1}},         /* 1 */
};
#define INPUTS       4
#define INPUTS_BYTES (320 + 64 + 64 + 1)

static void tensors_lie_on_boundaries_of_64_bytes(void **state) {
    (void)state;
    size_t offsets[INPUTS], bytes;
    assert_int_equal(message_layout(stage_inputs, INPUTS, offsets, &bytes), 0);
    assert_int_equal(offsets[0], 0);
    assert_int_equal(offsets[1], 320);
    assert_int_equal(offsets[2], 384);
    assert_int_equal(offsets[3], 448);
    assert_int_equal(bytes, 449);
    assert_int_equal(message_layout(NULL, 0, offsets, &bytes), 0);
    assert_int_equal(bytes, 0);
}

static void a_layout_is_bounded(void **state) {
    (void)state;
    struct tensor_desc descs[2] = {
        {.name = "a", .dtype = DTYPE_UINT8, .rank = 1, .dims = {MESSAGE_PAYLOAD_MAX}},
        {.name = "b", .dtype = DTYPE_UINT8, .rank = 1, .dims = {1}},
    };
    size_t offsets[2], bytes;
    assert_int_equal(message_layout(descs, 1, offsets, &bytes), 0);
    assert_int_equal(bytes, MESSAGE_PAYLOAD_MAX);
    assert_int_equal(message_layout(descs, 2, offsets, &bytes), -EMSGSIZE);
    descs[0].dims[0] -= 64;
    assert_int_equal(message_layout(descs, 2, offsets, &bytes), 0);
    descs[1].dims[0] = 65;
    assert_int_equal(message_layout(descs, 2, offsets, &bytes), -EMSGSIZE);
    descs[1].dims[0] = -1;
    assert_int_equal(message_layout(descs, 2, offsets, &bytes), -EINVAL);
    descs[1].dtype = DTYPE_NONE;
    descs[1].dims[0] = 1;
    assert_int_equal(message_layout(descs, 2, offsets, &bytes), -ENOTSUP);
}

/* ---- received tensors ------------------------------------------------------------------------ */

/* A header's tensors as they come from the wire: the test may spoil them. */
struct received {
    Convoy__Tensor tensors[INPUTS];
    Convoy__Tensor *pointers[INPUTS];
    int64_t dims[INPUTS][TENSOR_MAX_RANK + 1];
    size_t bytes;
};

static void receive(struct received *received) {
    size_t offsets[INPUTS];
    assert_int_equal(
        message_fill_tensors(stage_inputs, INPUTS, received->tensors, received->pointers), 0);
    assert_int_equal(message_layout(stage_inputs, INPUTS, offsets, &received->bytes), 0);
    for (size_t i = 0; i < INPUTS; i++) {
        memcpy(received->dims[i], stage_inputs[i].dims, sizeof(stage_inputs[i].dims));
        received->dims[i][TENSOR_MAX_RANK] = 1;
        received->tensors[i].dims = received->dims[i];
    }
}

static int check(const struct received *received, const struct tensor_desc *expected,
                 struct err *err) {
    struct tensor_desc descs[INPUTS];
    size_t offsets[INPUTS];
    return message_check_tensors(received->pointers, INPUTS, received->bytes, expected,
                                 expected ? INPUTS : 0, descs, offsets, err);
}

static void filled_tensors_pass_their_own_check(void **state) {
    (void)state;
    struct received received;
    struct tensor_desc descs[INPUTS];
    size_t offsets[INPUTS], wanted[INPUTS], bytes;
    receive(&received);
    assert_int_equal(message_layout(stage_inputs, INPUTS, wanted, &bytes), 0);
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(message_check_tensors(received.pointers, INPUTS, received.bytes,
                                               pass ? stage_inputs : NULL, pass ? INPUTS : 0, descs,
                                               offsets, NULL),
                         0);
        for (size_t i = 0; i < INPUTS; i++) {
            assert_string_equal(descs[i].name, stage_inputs[i].name);
            assert_true(tensor_desc_same(&descs[i], &stage_inputs[i]));
            assert_int_equal(offsets[i], wanted[i]);
        }
    }
}

static void tensors_in_another_order_are_found_by_name(void **state) {
    (void)state;
    struct received received;
    struct tensor_desc descs[INPUTS];
    size_t offsets[INPUTS];
    receive(&received);
    /* mask (1), image (300), scale (4), labels (64) */
    Convoy__Tensor *order[INPUTS] = {&received.tensors[3], &received.tensors[0],
                                     &received.tensors[1], &received.tensors[2]};
    assert_int_equal(message_check_tensors(order, INPUTS, 64 + 320 + 64 + 64, stage_inputs, INPUTS,
                                           descs, offsets, NULL),
                     0);
    for (size_t i = 0; i < INPUTS; i++)
        assert_ptr_equal(descs[i].name, stage_inputs[i].name);
    assert_int_equal(offsets[3], 0);
    assert_int_equal(offsets[0], 64);
    assert_int_equal(offsets[1], 384);
    assert_int_equal(offsets[2], 448);
}

static void empty_tensors_are_tensors(void **state) {
    (void)state;
    struct tensor_desc desc = {.name = "none", .dtype = DTYPE_FLOAT, .rank = 2, .dims = {0, 4}};
    struct tensor_desc got;
    Convoy__Tensor wire, *pointer;
    size_t offset = 1;
    assert_int_equal(message_fill_tensors(&desc, 1, &wire, &pointer), 0);
    assert_int_equal(message_check_tensors(&pointer, 1, 0, &desc, 1, &got, &offset, NULL), 0);
    assert_int_equal(offset, 0);
    assert_int_equal(message_check_tensors(NULL, 0, 0, NULL, 0, NULL, NULL, NULL), 0);
    assert_int_equal(message_check_tensors(NULL, 0, 1, NULL, 0, NULL, NULL, NULL), -EPROTO);
}

/* Each spoils one thing. */
static void spoil_name(struct received *r) {
    r->tensors[1].name = (char *)"scales";
}
static void spoil_dtype(struct received *r) {
    r->tensors[1].dtype = DTYPE_INT32;
}
static void spoil_shape(struct received *r) {
    r->dims[0][1] = 5;
    r->dims[0][3] = 3;
}
static void spoil_rank(struct received *r) {
    r->tensors[1].n_dims = 1;
    r->dims[1][0] = 1;
}
static void spoil_duplicate(struct received *r) {
    r->tensors[3].name = (char *)"scale";
}
static void spoil_unknown_dtype(struct received *r) {
    r->tensors[3].dtype = 99;
}
static void spoil_huge_dtype(struct received *r) {
    r->tensors[3].dtype = UINT32_MAX;
}
static void spoil_negative(struct received *r) {
    r->dims[0][0] = -1;
    r->dims[0][1] = -3;
}
static void spoil_overflow(struct received *r) {
    r->dims[0][0] = INT64_C(1) << 62;
    r->dims[0][1] = 4;
}
static void spoil_byte_overflow(struct received *r) {
    r->dims[0][0] = INT64_C(1) << 62;
    r->dims[0][1] = r->dims[0][2] = r->dims[0][3] = 1;
    r->tensors[0].size = 0;
}
static void spoil_dims_count(struct received *r) {
    r->tensors[1].n_dims = TENSOR_MAX_RANK + 1;
}
static void spoil_size(struct received *r) {
    r->tensors[2].size = 63;
}
static void spoil_large_size(struct received *r) {
    r->dims[2][0] = INT64_C(1) << 40;
    r->tensors[2].size = UINT64_C(1) << 43;
}
static void spoil_payload_short(struct received *r) {
    r->bytes--;
}
static void spoil_payload_long(struct received *r) {
    r->bytes++;
}
static void spoil_payload_empty(struct received *r) {
    r->bytes = 0;
}

static const struct {
    void (*spoil)(struct received *r);
    int alone, expected; /* without and with the expected tensors */
    const char *words;
} spoilt[] = {
    {spoil_name, 0, -EINVAL, "tensor scales: it is not expected"},
    {spoil_dtype, 0, -EINVAL, "tensor scale: it is int32 [], but float32 [] is expected"},
    {spoil_shape, 0, -EINVAL,
     "tensor image: it is float32 [1,5,5,3], but float32 [1,3,5,5] is expected"},
    {spoil_rank, 0, -EINVAL, "tensor scale: it is float32 [1], but float32 [] is expected"},
    {spoil_duplicate, -EPROTO, -EPROTO, "tensor scale: it stands twice"},
    {spoil_unknown_dtype, -EPROTO, -EPROTO, "tensor mask: element type 99 is unknown"},
    {spoil_huge_dtype, -EPROTO, -EPROTO, "tensor mask: element type 4294967295 is unknown"},
    {spoil_negative, -EPROTO, -EPROTO, "tensor image: a dimension is negative"},
    {spoil_overflow, -EPROTO, -EPROTO, "tensor image: its dimensions overflow"},
    {spoil_byte_overflow, -EPROTO, -EPROTO, "tensor image: its dimensions overflow"},
    {spoil_dims_count, -EPROTO, -EPROTO, "tensor scale: it has 9 dimensions"},
    {spoil_size, -EPROTO, -EPROTO, "tensor labels: int64 [8] has 64 bytes, but it states 63"},
    /* 8 TB of an int64 tensor: more than a 32-bit computer can count. */
    {spoil_large_size, -EPROTO, sizeof(size_t) < 8 ? -EPROTO : -EINVAL, "tensor labels"},
    {spoil_payload_short, -EPROTO, -EPROTO, "tensor mask ends beyond the payload of 448 bytes"},
    {spoil_payload_long, -EPROTO, -EPROTO, "end at byte 449 of a payload of 450"},
    {spoil_payload_empty, -EPROTO, -EPROTO, "tensor image ends beyond the payload of 0 bytes"},
};

static void tensors_that_are_wrong_are_refused_with_a_sentence(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(spoilt) / sizeof(spoilt[0]); i++) {
        struct received received;
        struct err err = {0};
        receive(&received);
        spoilt[i].spoil(&received);
        if (check(&received, NULL, &err) != spoilt[i].alone)
            fail_msg("case %zu alone: %s", i, err.text);
        if (check(&received, stage_inputs, &err) != spoilt[i].expected)
            fail_msg("case %zu with expected tensors: %s", i, err.text);
        if (!strstr(err.text, spoilt[i].words))
            fail_msg("\"%s\" does not say \"%s\"", err.text, spoilt[i].words);
    }
}

static void the_number_of_tensors_must_be_the_expected_one(void **state) {
    (void)state;
    struct received received;
    struct err err;
    receive(&received);
    assert_int_equal(
        message_check_tensors(received.pointers, 3, 448, stage_inputs, INPUTS, NULL, NULL, &err),
        -EINVAL);
    assert_string_equal(err.text, "3 tensors, but 4 are expected");
    assert_int_equal(message_check_tensors(received.pointers, INPUTS, INPUTS_BYTES, stage_inputs, 3,
                                           NULL, NULL, &err),
                     -EINVAL);
}

static void at_most_256_tensors_are_taken(void **state) {
    (void)state;
    enum { COUNT = MESSAGE_TENSORS_MAX + 1 };
    struct tensor_desc descs[COUNT], got[COUNT];
    Convoy__Tensor wire[COUNT], *pointers[COUNT];
    char names[COUNT][16];
    size_t offsets[COUNT], bytes;
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "t%d", i);
        descs[i] = (struct tensor_desc){.name = names[i], .dtype = DTYPE_UINT8};
    }
    assert_int_equal(message_fill_tensors(descs, COUNT, wire, pointers), 0);
    assert_int_equal(message_layout(descs, COUNT - 1, offsets, &bytes), 0);
    assert_int_equal(message_check_tensors(pointers, COUNT - 1, bytes, NULL, 0, got, offsets, NULL),
                     0);
    assert_int_equal(offsets[COUNT - 2], 255 * 64);
    assert_int_equal(
        message_check_tensors(pointers, COUNT, bytes + 64, NULL, 0, got, offsets, NULL), -EPROTO);
}

static void outputs_are_untouched_by_a_failed_check(void **state) {
    (void)state;
    struct received received;
    struct tensor_desc descs[INPUTS];
    size_t offsets[INPUTS];
    memset(descs, 0x5a, sizeof(descs));
    memset(offsets, 0x5a, sizeof(offsets));
    receive(&received);
    spoil_payload_long(&received);
    assert_int_equal(message_check_tensors(received.pointers, INPUTS, received.bytes, stage_inputs,
                                           INPUTS, descs, offsets, NULL),
                     -EPROTO);
    for (size_t i = 0; i < sizeof(descs); i++)
        assert_int_equal(((uint8_t *)descs)[i], 0x5a);
    for (size_t i = 0; i < sizeof(offsets); i++)
        assert_int_equal(((uint8_t *)offsets)[i], 0x5a);
}

static void tensors_that_cannot_be_are_not_filled(void **state) {
    (void)state;
    struct tensor_desc desc = {.name = "x", .dtype = DTYPE_NONE, .rank = 1, .dims = {1}};
    Convoy__Tensor wire, *pointer;
    assert_int_equal(message_fill_tensors(&desc, 1, &wire, &pointer), -ENOTSUP);
    desc.dtype = DTYPE_FLOAT;
    desc.dims[0] = -1;
    assert_int_equal(message_fill_tensors(&desc, 1, &wire, &pointer), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_packed_message_begins_with_its_sizes),
        cmocka_unit_test(a_packed_message_with_its_payload_is_read_by_stock_protobuf),
        cmocka_unit_test(sizes_and_payload_of_a_header_are_ignored),
        cmocka_unit_test(packing_into_a_buffer_that_is_too_small_tells_what_it_needs),
        cmocka_unit_test(a_payload_over_one_gibibyte_is_not_packed),
        cmocka_unit_test(a_header_has_at_most_64_kibibytes),
        cmocka_unit_test(a_string_that_no_peer_would_take_is_not_packed),
        cmocka_unit_test(codes_have_names),
        cmocka_unit_test(tensors_lie_on_boundaries_of_64_bytes),
        cmocka_unit_test(a_layout_is_bounded),
        cmocka_unit_test(filled_tensors_pass_their_own_check),
        cmocka_unit_test(tensors_in_another_order_are_found_by_name),
        cmocka_unit_test(empty_tensors_are_tensors),
        cmocka_unit_test(tensors_that_are_wrong_are_refused_with_a_sentence),
        cmocka_unit_test(the_number_of_tensors_must_be_the_expected_one),
        cmocka_unit_test(at_most_256_tensors_are_taken),
        cmocka_unit_test(outputs_are_untouched_by_a_failed_check),
        cmocka_unit_test(tensors_that_cannot_be_are_not_filled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
