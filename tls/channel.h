/* One end of an encrypted connection, on bytes in memory: TLS 1.3 with an external pre-shared key
 * (RFC 8446, section 2.2; RFC 9257), by OpenSSL. Knows no sockets: its owner feeds what has come
 * and sends what is pending.
 *
 * Both ends prove that they have the key, and session keys come from a fresh X25519 or P-256
 * exchange (psk_dhe_ke): who learns the key later cannot read what was recorded before. There are
 * no certificates, tickets, resumption or early data. ChaCha20-Poly1305 is used when either end has
 * no AES instructions, else AES-128-GCM.
 *
 * One thread at a time uses a channel.
 */
#ifndef CONVOY_TLS_CHANNEL_H
#define CONVOY_TLS_CHANNEL_H

#include "base/err.h"
#include "tls/key.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define TLS_PENDING_MAX (66u * 1024) /* bytes that a channel has ready to send at most */

/* Keys, as OpenSSL wants them. Immutable; shared by reference count, from any thread. */
struct tls_context;

/* Copies keys. One reference for the caller; NULL when there is no memory. */
struct tls_context *tls_context_new(const struct tls_keys *keys);
struct tls_context *tls_context_ref(struct tls_context *context);
void tls_context_unref(struct tls_context *context);

enum tls_role {
    TLS_CONNECTS, /* offers the first key */
    TLS_ACCEPTS,  /* takes any of the keys */
};

struct tls_channel;

/* A channel at the beginning of its handshake, with a reference on context; one that connects has
 * something pending at once. 0 or -ENOMEM. */
int tls_channel_new(struct tls_context *context, enum tls_role role,
                    struct tls_channel **ret_channel);
void tls_channel_free(struct tls_channel *channel);

/* Bytes that came from the peer: borrowed until tls_channel_read() has returned -EAGAIN or an
 * error. Earlier ones must have been read so far. */
void tls_channel_feed(struct tls_channel *channel, const void *data, size_t bytes);

/* Decrypts into data: the number of bytes, at least 1; 0 when the peer has closed its side in good
 * order; -EAGAIN when all that was fed has been used; -EPROTO with a sentence (the handshake
 * failed: what to do about it; or the stream was tampered with). Also goes on with the handshake,
 * so that something may be pending afterwards, even after an error (an alert for the peer). */
ssize_t tls_channel_read(struct tls_channel *channel, void *data, size_t size, struct err *err);

/* Encrypts as much of data as there is room for: the number of bytes; -EAGAIN when there is no room
 * or the handshake is not done; -EPROTO. */
ssize_t tls_channel_write(struct tls_channel *channel, const void *data, size_t size,
                          struct err *err);

/* What is to be sent to the peer, in order; *ret_bytes 0: nothing. It stays where it is until
 * tls_channel_write() or tls_channel_sent(), however much is read meanwhile. */
const void *tls_channel_pending(const struct tls_channel *channel, size_t *ret_bytes);

/* The first bytes of what was pending have been sent. */
void tls_channel_sent(struct tls_channel *channel, size_t bytes);

/* Whether the handshake is done: the peer has one of our keys. */
bool tls_channel_is_ready(const struct tls_channel *channel);

/* For logs: the cipher suite, and the id of the key that both have; "" before the handshake is
 * done. */
const char *tls_channel_cipher(const struct tls_channel *channel);
const char *tls_channel_key_id(const struct tls_channel *channel);

/* Says that nothing more will be written; the peer's tls_channel_read() returns 0 then. */
void tls_channel_shutdown(struct tls_channel *channel);

/* Whether a stream that begins with these bytes is TLS and none of Convoy's own, for an end that
 * has no key. */
bool tls_is_record(const void *data, size_t bytes);

#endif
