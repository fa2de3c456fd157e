/* One TCP connection that carries Convoy's messages both ways, encrypted where the user has named a
 * key, without waiting: its owner polls the descriptor. Unencrypted, no byte of a payload is copied
 * on the way in or out. */
#ifndef CONVOY_CTL_STREAM_H
#define CONVOY_CTL_STREAM_H

#include "proto/message.h"
#include "tls/channel.h"

/* Connects to "HOST:PORT", trying each of its addresses for at most timeout_ms. wake_fd (or -1)
 * becoming readable ends it with -ECANCELED. 0 with a non-blocking descriptor of the caller's, or
 * -errno; -EHOSTUNREACH when the name is not known. The sentence starts with the address. Blocks.
 */
int stream_connect(const char *address, int timeout_ms, int wake_fd, int *ret_fd, struct err *err);

/* The keys of the file at path; NULL: of the file that the environment's CONVOY_KEY names. *ret_tls
 * is one reference, or NULL where neither is given. -errno as tls_keys_load(). */
int stream_load_key(const char *path, struct tls_context **ret_tls, struct err *err);

struct stream;

/* Called once for each stream_send() with a payload: written, or never to be. */
typedef void (*stream_done_fn)(void *arg);

/* Takes over fd in every case. tls: NULL, or what the connection is encrypted with; keeps a
 * reference of its own. callbacks as for reader_new(), called inside stream_read(). NULL when there
 * is no memory. One thread at a time uses a stream. */
struct stream *stream_new(int fd, struct tls_context *tls, const struct reader_limits *limits,
                          const struct reader_callbacks *callbacks, void *arg);

/* Closes the connection and calls done for what was not written. Takes NULL. */
void stream_free(struct stream *stream);
void stream_set_limits(struct stream *stream, const struct reader_limits *limits);

/* Queues a message. payload (may be NULL) is borrowed until done(arg). On an error, of
 * message_pack(), done is not called. */
int stream_send(struct stream *stream, const Convoy__Message *header, const void *payload,
                size_t payload_bytes, stream_done_fn done, void *arg);

size_t stream_queued(const struct stream *stream); /* messages not fully written, or encrypted */
int stream_fd(const struct stream *stream);
short stream_events(const struct stream *stream); /* what poll() shall wait for */

/* Reads what has come: 0; -ECONNRESET at the end of the stream; -errno; or the error of the reader
 * or of a callback; -EPROTO where the two ends do not agree about a key, with a sentence. After an
 * error only stream_free() may follow. *ret_bytes: read. */
int stream_read(struct stream *stream, size_t *ret_bytes, struct err *err);

/* Writes what can be written now. 0 or -errno. */
int stream_write(struct stream *stream, struct err *err);

#endif
