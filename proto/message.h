/* Messages <-> bytes, without sockets. docs/wire.md is the contract.
 *
 * Reading: a struct reader says where the next bytes of a stream go and how many are still missing
 * (its window), so that a payload lands straight in its final buffer: no byte of it is copied in
 * user space. The prefix of 14 bytes is checked against the limits before anything is allocated; a
 * payload's buffer is given by the owner, who sees the header first. A message in another valid
 * protobuf form (no `sizes`, shorter lengths) is read field by field, up to the same limits; only
 * when its payload is not the last field is it kept in memory, which grows with what has arrived,
 * and copied once.
 *
 * Writing: message_pack() makes the header's bytes; the payload stays where it is, borrowed by the
 * write.
 */
#ifndef CONVOY_PROTO_MESSAGE_H
#define CONVOY_PROTO_MESSAGE_H

#include "base/err.h"
#include "base/tensor.h"
#include "convoy.pb-c.h"

#define MESSAGE_VERSION     1
#define MESSAGE_PREFIX      14          /* length (padded varint, 5), tag (1), sizes (8) */
#define MESSAGE_HEADER_MAX  (64u << 10) /* bytes of header, whatever the configuration says */
#define MESSAGE_PAYLOAD_MAX (1u << 30)  /* upper bound of every configured payload limit */
#define MESSAGE_TENSORS_MAX 256         /* tensors in a frame or result */
#define MESSAGE_NAME_MAX    1024        /* bytes of any string in a header */
#define MESSAGE_PACKED_MAX                                                                         \
    (MESSAGE_PREFIX + MESSAGE_HEADER_MAX) /* no header needs more to be packed */

struct reader_limits {
    uint32_t header_bytes;  /* at most MESSAGE_HEADER_MAX */
    uint32_t payload_bytes; /* at most MESSAGE_PAYLOAD_MAX */
};

/* One complete message, as given to on_message. */
struct message {
    const Convoy__Message *header; /* its payload field is empty; valid during the call only */
    void *payload; /* the buffer that on_payload gave, filled; NULL without payload */
    size_t payload_bytes;
};

struct reader_callbacks {
    /* A header with a payload (of more than 0 bytes) has arrived. Check it; return 0 with a buffer
     * of at least bytes + TENSOR_ALIGN bytes, TENSOR_ALIGN aligned, or a negative errno, which ends
     * the reader. The buffer is the owner's to release; after an error or reader_free() in the
     * middle of a payload, on_message is never called for it. */
    int (*on_payload)(void *arg, const Convoy__Message *header, size_t bytes, void **ret_buffer);
    /* A message is complete. A negative errno ends the reader. */
    int (*on_message)(void *arg, const struct message *message);
};

struct reader; /* private to message_reader.c */

/* A reader for one stream. callbacks is copied, arg is passed to each. NULL when there is no
 * memory. One thread. */
struct reader *reader_new(const struct reader_limits *limits,
                          const struct reader_callbacks *callbacks, void *arg);
void reader_free(struct reader *reader);

/* Limits for the messages whose prefix has not been read yet. */
void reader_set_limits(struct reader *reader, const struct reader_limits *limits);

/* Where the next bytes go. The window is never empty; fewer bytes than its size may be written. It
 * never reaches beyond the message under way, except that up to 40 bytes may be read ahead where no
 * message is known yet: so a small message costs one read, and still no byte of a payload whose
 * message has the form of message_pack() lands elsewhere than in its buffer. */
void reader_window(struct reader *reader, void **ret_data, size_t *ret_size);

/* size bytes were written to the window: calls the callbacks for what is now complete. 0, or the
 * error that ends the stream: -EPROTO malformed, -EMSGSIZE over a limit, -ENOMEM, or what a
 * callback returned; err (cleared first; a callback may fill the same) then says what and where in
 * the stream. After an error only reader_free() may follow. A callback may call
 * reader_set_limits(), but neither this function nor reader_free(). */
int reader_advance(struct reader *reader, size_t size, struct err *err);

/* True in the middle of a message: the end of the stream here is a truncation. */
bool reader_is_mid_message(const struct reader *reader);

/* Packs header (it has a body; its sizes and payload fields are ignored) for a payload of
 * payload_bytes that will follow it on the wire. The result, malloc'd, is the caller's: prefix,
 * fields, and the payload's tag and length; at most MESSAGE_PACKED_MAX bytes. 0; -EMSGSIZE when the
 * header is larger than MESSAGE_HEADER_MAX, a string than MESSAGE_NAME_MAX or payload_bytes than
 * MESSAGE_PAYLOAD_MAX; -EPROTO when a string is not UTF-8: no peer would take it; -ENOMEM. */
int message_pack(const Convoy__Message *header, size_t payload_bytes, uint8_t **ret_data,
                 size_t *ret_size);

/* As message_pack(), into the caller's buffer of size bytes, of which ret_size are used. -ENOBUFS
 * when that is too small: then ret_size is what it needs. Allocates nothing. */
int message_pack_into(const Convoy__Message *header, size_t payload_bytes, uint8_t *buffer,
                      size_t size, size_t *ret_size);

/* ---- tensors in a header and payload --------------------------------------------------------- */

/* Where tensor i lies in a payload: offsets of count tensors of the given descriptions, each
 * rounded up to TENSOR_ALIGN, and the payload's whole size. -EMSGSIZE over MESSAGE_PAYLOAD_MAX,
 * else as tensor_desc_bytes(). */
int message_layout(const struct tensor_desc *descs, size_t count, size_t *ret_offsets,
                   size_t *ret_bytes);

/* Checks the tensors of a received header against its payload's size and, where expected is not
 * NULL, against the count_expected tensors that must come, by name (any order in the message), type
 * and shape (tensor_desc_fits()); fills one description and offset for each, in the order of
 * expected (or of the message). Names are borrowed from expected (or from the header). -EPROTO with
 * a sentence for what contradicts itself, -EINVAL with a sentence for what is not expected. */
int message_check_tensors(Convoy__Tensor *const *tensors, size_t count, size_t payload_bytes,
                          const struct tensor_desc *expected, size_t count_expected,
                          struct tensor_desc *ret_descs, size_t *ret_offsets, struct err *err);

/* Initialises and fills wire (count structs) and pointers (wire[i]'s addresses) from descs; both
 * are the caller's and borrow from descs: valid while descs is. As tensor_desc_bytes(). */
int message_fill_tensors(const struct tensor_desc *descs, size_t count, Convoy__Tensor *wire,
                         Convoy__Tensor **pointers);

/* "UNKNOWN_PLAN" for a code; "?" for a number that is none. Static. */
const char *message_code_name(Convoy__Code code);

#endif
