#include "proto/message.h"
#include "proto/wire.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TAG_SIZES    0x09 /* field 1, fixed64 */
#define TAG_PAYLOAD  0x7a /* field 15, bytes */
#define SIZES_FIELD  (1 + 8)
#define PAYLOAD_HEAD (1 + WIRE_PADDED)

/* What is packed by protobuf-c: everything but sizes and payload. */
static Convoy__Message fields_of(const Convoy__Message *header) {
    Convoy__Message fields = *header;
    fields.sizes = 0;
    fields.payload = (ProtobufCBinaryData){0};
    return fields;
}

/* Sizes of the fields alone, and of the whole result of message_pack(). */
static int measure(const Convoy__Message *header, size_t payload_bytes, size_t *ret_fields,
                   size_t *ret_size) {
    assert(header->body_case != CONVOY__MESSAGE__BODY__NOT_SET);
    Convoy__Message fields = fields_of(header);
    size_t size = convoy__message__get_packed_size(&fields);
    size_t head = payload_bytes > 0 ? PAYLOAD_HEAD : 0;
    if (payload_bytes > MESSAGE_PAYLOAD_MAX || size > MESSAGE_HEADER_MAX - head)
        return -EMSGSIZE;
    *ret_fields = size;
    *ret_size = MESSAGE_PREFIX + size + head;
    return 0;
}

int message_pack_into(const Convoy__Message *header, size_t payload_bytes, uint8_t *buffer,
                      size_t size, size_t *ret_size) {
    size_t fields_bytes, need;
    int rc = measure(header, payload_bytes, &fields_bytes, &need);
    if (rc < 0)
        return rc;
    if (size < need) {
        *ret_size = need;
        return -ENOBUFS;
    }
    uint64_t low = need - MESSAGE_PREFIX;
    uint64_t sizes = (uint64_t)payload_bytes << 32 | low;
    wire_put_padded(buffer, (uint32_t)(SIZES_FIELD + low + payload_bytes));
    buffer[WIRE_PADDED] = TAG_SIZES;
    for (int i = 0; i < 8; i++)
        buffer[WIRE_PADDED + 1 + i] = (uint8_t)(sizes >> (8 * i));

    Convoy__Message fields = fields_of(header);
    convoy__message__pack(&fields, buffer + MESSAGE_PREFIX);
    rc = wire_check(&convoy__message__descriptor, buffer + MESSAGE_PREFIX, fields_bytes, NULL);
    if (rc < 0)
        return rc;
    if (payload_bytes > 0) {
        buffer[need - PAYLOAD_HEAD] = TAG_PAYLOAD;
        wire_put_padded(buffer + need - WIRE_PADDED, (uint32_t)payload_bytes);
    }
    *ret_size = need;
    return 0;
}

int message_pack(const Convoy__Message *header, size_t payload_bytes, uint8_t **ret_data,
                 size_t *ret_size) {
    size_t fields_bytes, size;
    int rc = measure(header, payload_bytes, &fields_bytes, &size);
    if (rc < 0)
        return rc;
    uint8_t *data = malloc(size);
    if (!data)
        return -ENOMEM;
    rc = message_pack_into(header, payload_bytes, data, size, &size);
    if (rc < 0) {
        free(data);
        return rc;
    }
    *ret_data = data;
    *ret_size = size;
    return 0;
}

const char *message_code_name(Convoy__Code code) {
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&convoy__code__descriptor, (int)code);
    return value ? value->name + strlen("CODE_") : "?";
}

/* Where a tensor of bytes starts, after one that ended at end, and where it ends itself. */
static int place(size_t end, size_t bytes, size_t *ret_offset, size_t *ret_end) {
    size_t offset = (end + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
    if (bytes > MESSAGE_PAYLOAD_MAX || offset > MESSAGE_PAYLOAD_MAX - bytes)
        return -EMSGSIZE;
    *ret_offset = offset;
    *ret_end = offset + bytes;
    return 0;
}

int message_layout(const struct tensor_desc *descs, size_t count, size_t *ret_offsets,
                   size_t *ret_bytes) {
    size_t end = 0;
    for (size_t i = 0; i < count; i++) {
        size_t bytes, offset = 0;
        int rc = tensor_desc_bytes(&descs[i], &bytes);
        if (rc == 0)
            rc = place(end, bytes, &offset, &end);
        if (rc < 0)
            return rc;
        ret_offsets[i] = offset;
    }
    *ret_bytes = end;
    return 0;
}

int message_fill_tensors(const struct tensor_desc *descs, size_t count, Convoy__Tensor *wire,
                         Convoy__Tensor **pointers) {
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        int rc = tensor_desc_bytes(&descs[i], &bytes);
        if (rc < 0)
            return rc;
        convoy__tensor__init(&wire[i]);
        wire[i].name = (char *)descs[i].name;
        wire[i].dtype = (uint32_t)descs[i].dtype;
        wire[i].n_dims = (size_t)descs[i].rank;
        wire[i].dims = (int64_t *)descs[i].dims;
        wire[i].size = bytes;
        wire[i].bounded = descs[i].bounded;
        pointers[i] = &wire[i];
    }
    return 0;
}

/* ---- received tensors ------------------------------------------------------------------------ */

/* What a tensor's header says, as a description that borrows its name. */
static int describe(const Convoy__Tensor *wire, struct tensor_desc *ret_desc, struct err *err) {
    struct tensor_desc desc = {.name = wire->name, .dtype = (enum dtype)wire->dtype};
    if (wire->n_dims > TENSOR_MAX_RANK)
        return err_set(err, -EPROTO, "it has %zu dimensions, at most %d are allowed", wire->n_dims,
                       TENSOR_MAX_RANK);
    desc.rank = (int)wire->n_dims;
    for (size_t i = 0; i < wire->n_dims; i++)
        desc.dims[i] = wire->dims[i];
    desc.bounded = (uint8_t)(wire->bounded & ((1U << wire->n_dims) - 1));
    *ret_desc = desc;
    return 0;
}

/* One tensor by itself: its description is possible and gives the size it states. */
static int check_size(const Convoy__Tensor *wire, struct tensor_desc *ret_desc, struct err *err) {
    size_t bytes;
    int rc = describe(wire, ret_desc, err);
    if (rc < 0)
        return rc;
    rc = tensor_desc_bytes(ret_desc, &bytes);
    if (rc == -ENOTSUP)
        return err_set(err, -EPROTO, "element type %u is unknown", wire->dtype);
    if (rc == -EOVERFLOW)
        return err_set(err, -EPROTO, "its dimensions overflow");
    if (rc < 0)
        return err_set(err, -EPROTO, "a dimension is negative");
    if (bytes != wire->size) {
        char text[128];
        return err_set(err, -EPROTO, "%s has %zu bytes, but it states %llu",
                       tensor_desc_format(ret_desc, text, sizeof(text)), bytes,
                       (unsigned long long)wire->size);
    }
    return 0;
}

static const struct tensor_desc *find(const struct tensor_desc *descs, size_t count,
                                      const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(descs[i].name, name) == 0)
            return &descs[i];
    return NULL;
}

/* One tensor against those that are expected. */
static int check_expected(const struct tensor_desc *desc, const struct tensor_desc *expected,
                          size_t count_expected, struct err *err) {
    char is[128], should[128];
    const struct tensor_desc *want = find(expected, count_expected, desc->name);
    if (!want)
        return err_set(err, -EINVAL, "it is not expected; %s%s is", expected[0].name,
                       count_expected > 1 ? ", among others," : "");
    if (!tensor_desc_fits(desc, want))
        return err_set(err, -EINVAL, "it is %s, but %s is expected",
                       tensor_desc_format(desc, is, sizeof(is)),
                       tensor_desc_format(want, should, sizeof(should)));
    return 0;
}

static int check_tensor(Convoy__Tensor *const *tensors, size_t index,
                        const struct tensor_desc *expected, size_t count_expected,
                        struct err *err) {
    struct tensor_desc desc;
    for (size_t i = 0; i < index; i++)
        if (strcmp(tensors[i]->name, tensors[index]->name) == 0)
            return err_set(err, -EPROTO, "it stands twice");
    int rc = check_size(tensors[index], &desc, err);
    if (rc == 0 && expected)
        rc = check_expected(&desc, expected, count_expected, err);
    return rc;
}

/* The tensors lie in the payload one after the other and end where it ends. */
static int check_places(Convoy__Tensor *const *tensors, size_t count, size_t payload_bytes,
                        struct err *err) {
    size_t offset = 0, end = 0;
    for (size_t i = 0; i < count; i++)
        if (tensors[i]->size > SIZE_MAX ||
            place(end, (size_t)tensors[i]->size, &offset, &end) < 0 || end > payload_bytes)
            return err_set(err, -EPROTO, "tensor %s ends beyond the payload of %zu bytes",
                           tensors[i]->name, payload_bytes);
    if (end != payload_bytes)
        return err_set(err, -EPROTO, "the tensors end at byte %zu of a payload of %zu", end,
                       payload_bytes);
    return 0;
}

int message_check_tensors(Convoy__Tensor *const *tensors, size_t count, size_t payload_bytes,
                          const struct tensor_desc *expected, size_t count_expected,
                          struct tensor_desc *ret_descs, size_t *ret_offsets, struct err *err) {
    if (count > MESSAGE_TENSORS_MAX)
        return err_set(err, -EPROTO, "%zu tensors, at most %d are allowed", count,
                       MESSAGE_TENSORS_MAX);
    if (expected && count != count_expected)
        return err_set(err, -EINVAL, "%zu tensors, but %zu are expected", count, count_expected);
    for (size_t i = 0; i < count; i++) {
        int rc = check_tensor(tensors, i, expected, count_expected, err);
        if (rc < 0)
            return err_prefix(err, rc, "tensor %s", tensors[i]->name);
    }
    int rc = check_places(tensors, count, payload_bytes, err);
    if (rc < 0)
        return rc;

    size_t offset = 0, end = 0;
    for (size_t i = 0; i < count; i++) {
        const struct tensor_desc *want =
            expected ? find(expected, count_expected, tensors[i]->name) : NULL;
        size_t at = want ? (size_t)(want - expected) : i;
        place(end, (size_t)tensors[i]->size, &offset, &end);
        describe(tensors[i], &ret_descs[at], NULL);
        if (want) {
            ret_descs[at].name = want->name;
            ret_descs[at].bounded = 0;
        }
        ret_offsets[at] = offset;
    }
    return 0;
}
