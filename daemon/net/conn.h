/* A connection: a TCP stream that carries messages both ways, encrypted where the device has a key.
 * Knows nothing of what they mean. */
#ifndef CONVOY_DAEMON_NET_CONN_H
#define CONVOY_DAEMON_NET_CONN_H

#include "daemon/data/pool.h"
#include "proto/message.h"
#include "tls/channel.h"

#include <uv.h>

#define CONN_MESSAGES  256 /* defaults of struct conn_limits */
#define CONN_WRITE_MS  30000
#define CONN_QUIET_MS  2000
#define CONN_NAME_SIZE 80

/* What all connections of a loop share. Lives as long as the loop. */
struct net;

struct net *net_new(uv_loop_t *loop, struct pool *pool);

/* Connections that begin from now on are encrypted with these keys; NULL: not encrypted. Takes the
 * caller's reference. */
void net_set_tls(struct net *net, struct tls_context *tls);

/* What a peer that does not read may cost. */
struct conn_limits {
    size_t messages;   /* small ones that wait for it; one more ends the connection */
    uint64_t write_ms; /* conn_is_stuck() when nothing of what waits has gone for so long */
    uint64_t quiet_ms; /* bytes that come at 1 Mbit/s are noted several times in it */
};

void net_set_limits(struct net *net, const struct conn_limits *limits);

/* Closes the loop's handles; memory is released in net_free(), after the loop has run out. */
void net_close(struct net *net);
void net_free(struct net *net);

struct conn;

struct conn_handlers {
    /* A header whose payload of bytes will follow: the last moment to refuse it before there is
     * memory for it. A code other than OK ends the connection with a Goodbye; text is static. */
    Convoy__Code (*on_header)(void *owner, const Convoy__Message *header, size_t bytes,
                              const char **ret_text);

    /* A whole message. header is valid during the call; payload (NULL: none) is the owner's
     * reference from here on. */
    void (*on_message)(void *owner, const Convoy__Message *header, struct buffer *payload,
                       size_t payload_bytes);

    /* The end, exactly once for each conn_new() that succeeded, after the done callbacks of all
     * that had not been written. Afterwards the connection is no more. why is a sentence. */
    void (*on_close)(void *owner, const char *why);
};

/* A piece of what follows a header on the wire. */
struct segment {
    const void *data;
    size_t bytes;
    struct buffer *owner; /* that data lies in; NULL: it is static */
};

/* status 0: the kernel has all of the message, or it is encrypted and goes there next. Else it will
 * never be written. conn is the one that it was given to, whose owner may have closed it. */
typedef void conn_done(void *arg, const struct conn *conn, int status);

/* A connection that is not connected yet, with its handle initialised. 0, -ENOMEM, or libuv's
 * error. After success the only way out is conn_close() or conn_goodbye(). */
int conn_new(struct net *net, const struct reader_limits *limits,
             const struct conn_handlers *handlers, void *owner, struct conn **ret_conn);

/* For uv_accept(), uv_tcp_connect(). */
uv_tcp_t *conn_handle(struct conn *conn);

/* Starts reading, after the handle has been connected; role is this end's. What is sent before the
 * handshake is done waits for it. name is for logs ("127.0.0.1:4711"); NULL asks the socket. On
 * error the caller closes it. */
int conn_begin(struct conn *conn, enum tls_role role, const char *name);

const char *conn_name(const struct conn *conn);

/* How it is encrypted, for logs: ", TLS_AES_128_GCM_SHA256 with key 0123456789abcdef"; "" where it
 * is not, or not yet. Valid until the next call. */
const char *conn_security(struct conn *conn);

/* Queues a small message ahead of frames and results: it is written at the end of this turn of the
 * loop. Failures end the connection, so that callers need not look. */
void conn_send(struct conn *conn, const Convoy__Message *message);

/* The two messages that all kinds of neighbours exchange: a Ping, and the Pong that returns one's
 * token. As conn_send(). */
void conn_send_ping(struct conn *conn, uint64_t token);
void conn_send_pong(struct conn *conn, uint64_t token);

/* Queues a packed header and its payload, in the order of these calls. Takes the caller's reference
 * to header in every case; segments are copied, and a reference to each one's owner is held until
 * the bytes are written. done is never called from inside this function. 0; -ENOTCONN or -ENOMEM:
 * then done is never called. */
int conn_send_packed(struct conn *conn, struct buffer *header, size_t header_bytes,
                     const struct segment *segments, size_t count, conn_done *done, void *arg);

/* Says Goodbye after what is queued, waits a moment for the peer to read it, then closes. No
 * message is delivered any more. text is copied. */
void conn_goodbye(struct conn *conn, Convoy__Code code, const char *text);

/* The peer has said Goodbye: closes now, with its words as the reason. */
void conn_close_on_goodbye(struct conn *conn, const Convoy__Goodbye *goodbye);

/* Closes now; on_close is called from the loop, never from inside. why is copied. Idempotent. */
void conn_close(struct conn *conn, const char *why);

/* True until conn_goodbye(), conn_close() or an error. */
bool conn_is_open(const struct conn *conn);

uint64_t conn_last_rx_us(const struct conn *conn); /* when bytes last came, uv_hrtime()/1000 */

/* The peer has sent something that has not been read yet. */
bool conn_has_unread(const struct conn *conn);

/* Something waits to be written, and for limits.write_ms neither the kernel nor the peer's has
 * taken any of it. To be asked now and then: a change is seen when it is asked. */
bool conn_is_stuck(struct conn *conn, uint64_t now_us);

/* A moment from which a peer's time runs, after this thread was away for us: later by that, but
 * never later than now. What came after the absence ran from then already. */
uint64_t conn_excused(uint64_t since_us, uint64_t us, uint64_t now_us);

/* The owner's own thread was away: whatever the peer may have sent meanwhile is not its fault. */
void conn_excuse(struct conn *conn, uint64_t us);

/* Limits for messages that have not begun to arrive yet. */
void conn_set_limits(struct conn *conn, const struct reader_limits *limits);

/* What was written since the start (before encryption), and how long it took while there was
 * something to write. */
void conn_tx(const struct conn *conn, uint64_t *ret_bytes, uint64_t *ret_busy_us);

/* Rate at which the kernel lately got bytes to the peer, in Mbit/s; 0 when it does not tell. Full:
 * the link was the limit (tcp_rate.h). */
double conn_rate(const struct conn *conn, bool *ret_is_full);

/* Packs a message that payload_bytes will follow into a pooled buffer; the caller's reference. */
int conn_pack(struct pool *pool, const Convoy__Message *message, size_t payload_bytes,
              struct buffer **ret_header, size_t *ret_bytes);

#endif
