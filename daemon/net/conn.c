/* Happy path. Reading: libuv asks for memory, the reader answers with its window (small, or the
 * rest of a payload's final buffer), bytes arrive, the reader calls back with whole messages.
 * Writing: messages are queued; once per turn of the loop, before it sleeps, every connection with
 * something to write gathers up to GATHER_MAX pieces of as many messages as fit and tries one
 * writev(). What the kernel does not take at once is written by a uv_write() of at most four pieces
 * of one message (more would make libuv allocate; and what is queued meanwhile may overtake the
 * others), after which the next gathering follows. Messages about frames go in order; small ones
 * (credits, pings) overtake them, but never inside a message.
 *
 * While much of a payload is missing the kernel is asked to wake the loop for LOW_WATER bytes (or
 * fewer, where limits.quiet_ms is short), not for every packet (SO_RCVLOWAT): on a link slower than
 * the loop that would be once per 1448 bytes.
 *
 * Encrypted: what arrives is read into a buffer of the loop's and decrypted into the reader's
 * window from there; what is queued is encrypted into the channel's buffer, in the same order, as
 * far as there is room, and written from there. A message counts as written when it is encrypted.
 * Nothing is encrypted before the handshake is done.
 *
 * Failure: a malformed stream, or an owner that refuses a header, is answered with Goodbye; then
 * what still arrives is thrown away until the peer closes or LINGER_MS have passed, for a close()
 * with unread bytes would destroy the Goodbye on its way. A failed read or write closes at once. In
 * every case the end comes from uv_close()'s callback: first the done callbacks of all unwritten
 * messages with -ECANCELED, then on_close, then the memory goes.
 *
 * States: new -> open (conn_begin) -> leaving (Goodbye queued) -> closing (uv_close) -> gone; any
 * state may go to closing.
 */
#include "daemon/net/conn.h"

#include "daemon/net/tcp_rate.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/queue.h>

#define GATHER_MAX    64
#define PACK_EXTRA    (MESSAGE_PREFIX + 6) /* prefix; tag and length of the payload */
#define INLINE_PIECES 6
#define WAITING_BUFS  4 /* libuv's own room in a uv_write_t */
#define LINGER_MS     1000
#define SCRATCH_SIZE  (128 * 1024)
#define LOW_WATER     (32 * 1024) /* 0.26 s at 1 Mbit/s */
#define LOW_WATER_MS  32          /* for each ms of quiet_ms: a quarter of it at 1 Mbit/s */
#define LOW_WATER_MIN (4 * 1024)  /* for less a packet may wake the loop */
#define RECORD_SIZE   (17 * 1024) /* of which the channel may hold all but the last byte */

enum conn_state { CONN_NEW, CONN_OPEN, CONN_LEAVING, CONN_CLOSING };

struct piece {
    uv_buf_t buf;         /* shortened from the front as it is written */
    struct buffer *owner; /* a reference; NULL: static bytes */
};

/* A message on its way out. */
struct out {
    TAILQ_ENTRY(out) link;
    struct buffer *more;  /* holds the pieces when there are many */
    struct piece *pieces; /* first the header */
    unsigned count;
    unsigned at;   /* first that is not written */
    bool is_small; /* counts in conn->queued_small */
    conn_done *done;
    void *arg;
    struct piece inline_pieces[INLINE_PIECES];
};

TAILQ_HEAD(out_list, out);

struct net {
    uv_loop_t *loop;
    struct pool *pool;
    uv_prepare_t prepare;
    TAILQ_HEAD(, conn) dirty; /* connections with something to write */
    struct out_list free;
    struct tls_context *tls; /* NULL: nothing is encrypted */
    struct conn_limits limits;
    char scratch[SCRATCH_SIZE]; /* what is to be decrypted; and what those send that leave */
};

struct conn {
    struct net *net;
    uv_tcp_t tcp;
    uv_timer_t linger;
    uv_write_t write;
    uv_shutdown_t shutdown;
    TAILQ_ENTRY(conn) dirty;
    struct tls_channel *tls; /* NULL: not encrypted */
    enum tls_role role;
    struct reader *reader;
    struct conn_handlers handlers;
    void *owner;
    struct buffer *incoming; /* the payload that is being read */
    size_t incoming_bytes;
    Convoy__Code refusal; /* what on_header said, and why */
    const char *refusal_text;
    struct out *partial;    /* begun, not finished: nothing may come between */
    struct out_list urgent; /* small messages */
    struct out_list bulk;   /* frames and results */
    size_t queued;          /* messages in the three above */
    size_t queued_small;    /* of these, those that nobody's credits bound */
    size_t waiting_bytes;   /* of the uv_write() under way */
    int low_water;          /* bytes that wake the loop */
    uint64_t last_rx_us;
    uint64_t tx_bytes, tx_busy_us, tx_since_us;
    uint64_t stuck_since_us; /* when conn_is_stuck() last saw that something had moved */
    uint64_t stuck_mark;     /* what it saw then */
    enum conn_state state;
    unsigned handles; /* that are not closed yet */
    bool is_dirty, is_writing;
    bool is_busy;    /* there is something to write, since tx_since_us */
    bool has_read;   /* something has come */
    bool said_close; /* encrypted: the peer has been told that nothing follows */
    char security[80];
    char name[CONN_NAME_SIZE];
    char why[sizeof(((struct err *)NULL)->text)];
};

static uint64_t now_us(void) {
    return uv_hrtime() / 1000;
}

/* Where the kernel refuses, it goes on waking for less. */
static void set_low_water(struct conn *conn, int bytes) {
    uv_os_fd_t fd;
    if (bytes == conn->low_water || uv_fileno((uv_handle_t *)&conn->tcp, &fd) < 0)
        return;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes)) == 0)
        conn->low_water = bytes;
}

/* ---- the loop's share ------------------------------------------------------------------------ */

static void conn_flush(struct conn *conn);

static void on_prepare(uv_prepare_t *prepare) {
    struct net *net = prepare->data;
    struct conn *conn;
    while ((conn = TAILQ_FIRST(&net->dirty)) != NULL) {
        TAILQ_REMOVE(&net->dirty, conn, dirty);
        conn->is_dirty = false;
        conn_flush(conn);
    }
}

struct net *net_new(uv_loop_t *loop, struct pool *pool) {
    struct net *net = calloc(1, sizeof(*net));
    if (!net)
        return NULL;
    net->loop = loop;
    net->pool = pool;
    net->limits = (struct conn_limits){CONN_MESSAGES, CONN_WRITE_MS, CONN_QUIET_MS};
    TAILQ_INIT(&net->dirty);
    TAILQ_INIT(&net->free);
    uv_prepare_init(loop, &net->prepare);
    net->prepare.data = net;
    uv_prepare_start(&net->prepare, on_prepare);
    uv_unref((uv_handle_t *)&net->prepare);
    return net;
}

void net_set_tls(struct net *net, struct tls_context *tls) {
    tls_context_unref(net->tls);
    net->tls = tls;
}

void net_set_limits(struct net *net, const struct conn_limits *limits) {
    net->limits = *limits;
}

void net_close(struct net *net) {
    if (net && !uv_is_closing((uv_handle_t *)&net->prepare))
        uv_close((uv_handle_t *)&net->prepare, NULL);
}

void net_free(struct net *net) {
    struct out *out;
    if (!net)
        return;
    while ((out = TAILQ_FIRST(&net->free)) != NULL) {
        TAILQ_REMOVE(&net->free, out, link);
        free(out);
    }
    tls_context_unref(net->tls);
    free(net);
}

static void mark_dirty(struct conn *conn) {
    if (conn->is_dirty)
        return;
    conn->is_dirty = true;
    TAILQ_INSERT_TAIL(&conn->net->dirty, conn, dirty);
}

/* ---- messages on their way out --------------------------------------------------------------- */

static struct out *out_get(struct net *net) {
    struct out *out = TAILQ_FIRST(&net->free);
    if (out)
        TAILQ_REMOVE(&net->free, out, link);
    else
        out = malloc(sizeof(*out));
    if (out)
        memset(out, 0, sizeof(*out));
    return out;
}

/* Releases a message and tells its sender. */
static void out_finish(struct conn *conn, struct out *out, int status) {
    conn_done *done = out->done;
    void *arg = out->arg;
    for (unsigned i = 0; i < out->count; i++)
        buffer_unref(out->pieces[i].owner);
    buffer_unref(out->more);
    conn->queued--;
    conn->queued_small -= out->is_small;
    TAILQ_INSERT_HEAD(&conn->net->free, out, link);
    if (done)
        done(arg, conn, status);
}

static void out_enqueue(struct conn *conn, struct out_list *list, struct out *out) {
    conn->queued++;
    if (!conn->is_busy) {
        conn->is_busy = true;
        conn->tx_since_us = now_us();
    }
    TAILQ_INSERT_TAIL(list, out, link);
    mark_dirty(conn);
}

/* Adds what is left of out to the gathered pieces. Returns how many there are then. */
static unsigned gather_out(const struct out *out, uv_buf_t *bufs, unsigned count) {
    for (unsigned i = out->at; i < out->count && count < GATHER_MAX; i++)
        bufs[count++] = out->pieces[i].buf;
    return count;
}

static unsigned gather(const struct conn *conn, uv_buf_t *bufs) {
    const struct out *out;
    unsigned count = 0;
    if (conn->partial)
        count = gather_out(conn->partial, bufs, count);
    TAILQ_FOREACH(out, &conn->urgent, link) {
        if (count == GATHER_MAX)
            break;
        count = gather_out(out, bufs, count);
    }
    TAILQ_FOREACH(out, &conn->bulk, link) {
        if (count == GATHER_MAX)
            break;
        count = gather_out(out, bufs, count);
    }
    return count;
}

/* The message that is next in gather()'s order, taken out of its list. */
static struct out *take_first(struct conn *conn) {
    struct out *out = conn->partial;
    if (out) {
        conn->partial = NULL;
        return out;
    }
    struct out_list *list = TAILQ_EMPTY(&conn->urgent) ? &conn->bulk : &conn->urgent;
    out = TAILQ_FIRST(list);
    TAILQ_REMOVE(list, out, link);
    return out;
}

/* bytes have been written, in gather()'s order. What is finished is told only when all have been
 * accounted for: those who are told may queue more, and that would change the order. */
static void consume(struct conn *conn, size_t bytes) {
    struct out_list finished = TAILQ_HEAD_INITIALIZER(finished);
    struct out *out;
    conn->tx_bytes += bytes;
    while (bytes > 0) {
        out = take_first(conn);
        while (out->at < out->count && bytes >= out->pieces[out->at].buf.len)
            bytes -= out->pieces[out->at++].buf.len;
        if (out->at == out->count) {
            TAILQ_INSERT_TAIL(&finished, out, link);
            continue;
        }
        out->pieces[out->at].buf.base += bytes;
        out->pieces[out->at].buf.len -= bytes;
        conn->partial = out;
        bytes = 0;
    }
    while ((out = TAILQ_FIRST(&finished)) != NULL) {
        TAILQ_REMOVE(&finished, out, link);
        out_finish(conn, out, 0);
    }
}

static void on_shutdown(uv_shutdown_t *req, int status) {
    (void)req; /* the peer's end of stream, or the linger timer, closes */
    (void)status;
}

/* Nothing is left to write. */
static void drained(struct conn *conn) {
    if (conn->is_busy)
        conn->tx_busy_us += now_us() - conn->tx_since_us;
    conn->is_busy = false;
    if (conn->state == CONN_LEAVING)
        uv_shutdown(&conn->shutdown, (uv_stream_t *)&conn->tcp, on_shutdown);
}

static void on_written(uv_write_t *req, int status) {
    struct conn *conn = req->data;
    conn->is_writing = false;
    if (conn->state == CONN_CLOSING)
        return;
    if (status < 0) {
        conn_close(conn, uv_strerror(status));
        return;
    }
    if (conn->tls)
        tls_channel_sent(conn->tls, conn->waiting_bytes);
    else
        consume(conn, conn->waiting_bytes);
    if (!conn->tls && conn->queued == 0)
        drained(conn);
    else
        mark_dirty(conn);
}

/* Lets libuv write these when the socket has room again: nothing else is written until then. */
static void write_later(struct conn *conn, const uv_buf_t *bufs, unsigned count) {
    conn->waiting_bytes = 0;
    for (unsigned i = 0; i < count; i++)
        conn->waiting_bytes += bufs[i].len;
    conn->write.data = conn;
    int rc = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, bufs, count, on_written);
    if (rc < 0)
        conn_close(conn, uv_strerror(rc));
    else
        conn->is_writing = true;
}

/* The first pieces of the first message, when the socket has room. That message has begun with
 * this: nothing may come before it any more. */
static void wait_for_room(struct conn *conn) {
    uv_buf_t bufs[GATHER_MAX];
    unsigned count;
    conn->partial = take_first(conn);
    count = gather_out(conn->partial, bufs, 0);
    write_later(conn, bufs, count < WAITING_BUFS ? count : WAITING_BUFS);
}

static bool may_write(const struct conn *conn) {
    return !conn->is_writing && (conn->state == CONN_OPEN || conn->state == CONN_LEAVING);
}

static void flush_plain(struct conn *conn) {
    uv_buf_t bufs[GATHER_MAX];
    while (may_write(conn) && conn->queued > 0) {
        size_t bytes = 0;
        unsigned count = gather(conn, bufs);
        for (unsigned i = 0; i < count; i++)
            bytes += bufs[i].len;
        int rc = uv_try_write((uv_stream_t *)&conn->tcp, bufs, count);
        if (rc < 0 && rc != UV_EAGAIN) {
            conn_close(conn, uv_strerror(rc));
            return;
        }
        if (rc > 0)
            consume(conn, (size_t)rc);
        if (rc < 0 || (size_t)rc < bytes)
            wait_for_room(conn);
        else if (conn->queued == 0)
            drained(conn);
    }
}

/* Encrypts what is queued, as far as the channel has room. */
static void encrypt(struct conn *conn) {
    uv_buf_t bufs[GATHER_MAX];
    struct err err = {""};
    bool is_full = false;
    while (conn->queued > 0 && !is_full) {
        unsigned count = gather(conn, bufs);
        size_t bytes = 0;
        for (unsigned i = 0; i < count && !is_full; i++) {
            ssize_t n = tls_channel_write(conn->tls, bufs[i].base, bufs[i].len, &err);
            if (n < 0 && n != -EAGAIN) {
                conn_close(conn, err.text);
                return;
            }
            bytes += n > 0 ? (size_t)n : 0;
            is_full = n < (ssize_t)bufs[i].len;
        }
        consume(conn, bytes);
    }
    if (conn->queued == 0 && conn->state == CONN_LEAVING && !conn->said_close) {
        conn->said_close = true;
        tls_channel_shutdown(conn->tls);
    }
}

static void flush_encrypted(struct conn *conn) {
    while (may_write(conn)) {
        uv_buf_t buf;
        size_t bytes;
        encrypt(conn);
        buf.base = (char *)(uintptr_t)tls_channel_pending(conn->tls, &bytes);
        buf.len = bytes;
        if (bytes == 0) {
            if (conn->queued == 0)
                drained(conn);
            return;
        }
        int rc = uv_try_write((uv_stream_t *)&conn->tcp, &buf, 1);
        if (rc < 0 && rc != UV_EAGAIN) {
            conn_close(conn, uv_strerror(rc));
            return;
        }
        if (rc > 0)
            tls_channel_sent(conn->tls, (size_t)rc);
        if (rc < 0 || (size_t)rc < bytes) {
            buf.base = (char *)(uintptr_t)tls_channel_pending(conn->tls, &bytes);
            buf.len = bytes;
            write_later(conn, &buf, 1);
        }
    }
}

static void conn_flush(struct conn *conn) {
    if (conn->tls)
        flush_encrypted(conn);
    else
        flush_plain(conn);
}

/* ---- reading --------------------------------------------------------------------------------- */

static int on_payload(void *arg, const Convoy__Message *header, size_t bytes, void **ret_buffer) {
    struct conn *conn = arg;
    const char *text = "";
    Convoy__Code code = conn->handlers.on_header(conn->owner, header, bytes, &text);
    if (code != CONVOY__CODE__CODE_OK) {
        conn->refusal = code;
        conn->refusal_text = text;
        return -ECANCELED;
    }
    conn->incoming = pool_get(conn->net->pool, bytes);
    if (!conn->incoming)
        return -ENOMEM;
    conn->incoming_bytes = bytes;
    *ret_buffer = conn->incoming->data;
    return 0;
}

static int on_message(void *arg, const struct message *message) {
    struct conn *conn = arg;
    struct buffer *payload = conn->incoming;
    conn->incoming = NULL;
    conn->handlers.on_message(conn->owner, message->header, payload,
                              payload ? message->payload_bytes : 0);
    return conn->state == CONN_OPEN ? 0 : -ECANCELED;
}

static const struct reader_callbacks reader_callbacks = {on_payload, on_message};

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    struct conn *conn = handle->data;
    void *data = conn->net->scratch;
    size_t size = SCRATCH_SIZE;
    (void)suggested;
    if (conn->state == CONN_OPEN && !conn->tls)
        reader_window(conn->reader, &data, &size);
    buf->base = data;
    buf->len = size;
}

static const struct {
    int rc;
    Convoy__Code code;
} reader_codes[] = {
    {-EPROTO, CONVOY__CODE__CODE_MALFORMED},
    {-EMSGSIZE, CONVOY__CODE__CODE_TOO_LARGE},
    {-ENOMEM, CONVOY__CODE__CODE_INTERNAL},
};

/* The stream cannot be read any further. */
static void reader_failed(struct conn *conn, int rc, const struct err *err) {
    Convoy__Code code = CONVOY__CODE__CODE_INTERNAL;
    const char *text = err->text;
    if (conn->state != CONN_OPEN)
        return; /* the owner has closed it from inside on_message */
    if (conn->refusal != CONVOY__CODE__CODE_OK) {
        code = conn->refusal;
        text = conn->refusal_text;
    } else {
        for (size_t i = 0; i < sizeof(reader_codes) / sizeof(reader_codes[0]); i++)
            if (reader_codes[i].rc == rc)
                code = reader_codes[i].code;
    }
    conn_goodbye(conn, code, text[0] ? text : strerror(-rc));
}

/* How the stream has ended, for the log. */
static const char *end_of_stream(const struct conn *conn, ssize_t nread) {
    if (conn->state == CONN_OPEN && reader_is_mid_message(conn->reader))
        return "the connection broke in the middle of a message";
    return nread == UV_EOF ? "the peer closed the connection" : uv_strerror((int)nread);
}

/* The stream cannot be decrypted: what TLS has to say about it goes out as far as the socket takes
 * it at once, and then the connection ends. */
static void decryption_failed(struct conn *conn, const char *why) {
    size_t bytes;
    const void *alert = tls_channel_pending(conn->tls, &bytes);
    uv_buf_t buf = {.base = (char *)(uintptr_t)alert, .len = bytes};
    if (bytes > 0 && !conn->is_writing)
        uv_try_write((uv_stream_t *)&conn->tcp, &buf, 1);
    conn_close(conn, why);
}

/* Decrypts what has come into the reader's windows. */
static void decrypt(struct conn *conn, const char *data, size_t bytes) {
    struct err err = {""};
    tls_channel_feed(conn->tls, data, bytes);
    while (conn->state == CONN_OPEN) {
        void *window;
        size_t size;
        reader_window(conn->reader, &window, &size);
        ssize_t n = tls_channel_read(conn->tls, window, size, &err);
        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            decryption_failed(conn, n == 0 ? end_of_stream(conn, UV_EOF) : err.text);
            return;
        }
        int rc = reader_advance(conn->reader, (size_t)n, &err);
        if (rc < 0)
            reader_failed(conn, rc, &err);
    }
    if (conn->state == CONN_OPEN)
        mark_dirty(conn); /* the handshake goes on; or what has waited for it */
}

/* Whether a stream that begins so is encrypted as this end wants it; else the connection ends. A
 * peer that connects without a key is told in plain words: nothing has been queued for it before.
 */
static bool take_first_bytes(struct conn *conn, const char *data, size_t bytes) {
    bool is_tls = tls_is_record(data, bytes);
    if (is_tls == (conn->tls != NULL))
        return true;
    if (is_tls) {
        conn_close(conn, "it speaks TLS, but this device has no key: give it one with `key:`");
    } else if (conn->queued > 0 || conn->role == TLS_CONNECTS) {
        conn_close(conn, "it does not speak TLS: does it have the `key:`?");
    } else {
        tls_channel_free(conn->tls);
        conn->tls = NULL;
        conn_goodbye(conn, CONVOY__CODE__CODE_NOT_ENCRYPTED,
                     "this device takes encrypted connections only: name its key");
    }
    return false;
}

/* The loop is woken for no more than is still missing, lest the end of a message waits for the next
 * one: of an encrypted one, a record less may be missing. */
static void settle_low_water(struct conn *conn) {
    uint64_t most = conn->net->limits.quiet_ms * LOW_WATER_MS;
    void *window;
    size_t missing;
    reader_window(conn->reader, &window, &missing);
    if (conn->tls)
        missing -= missing < RECORD_SIZE ? missing : RECORD_SIZE;
    most = most < LOW_WATER ? most : LOW_WATER;
    most = most < missing ? most : missing;
    set_low_water(conn, most < LOW_WATER_MIN ? 1 : (int)most);
}

static void take_bytes(struct conn *conn, const uv_buf_t *buf, size_t bytes) {
    struct err err = {""};
    bool first = !conn->has_read;
    conn->has_read = true;
    if (first && !take_first_bytes(conn, buf->base, bytes))
        return;
    if (conn->tls) {
        decrypt(conn, buf->base, bytes);
        return;
    }
    int rc = reader_advance(conn->reader, bytes, &err);
    if (rc < 0)
        reader_failed(conn, rc, &err);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf) {
    struct conn *conn = stream->data;
    if (nread == 0)
        return;
    if (nread < 0) {
        conn_close(conn, end_of_stream(conn, nread));
        return;
    }
    conn->last_rx_us = now_us();
    if (conn->state == CONN_OPEN)
        take_bytes(conn, buf, (size_t)nread);
    if (conn->state == CONN_OPEN)
        settle_low_water(conn);
}

/* ---- life ------------------------------------------------------------------------------------ */

int conn_new(struct net *net, const struct reader_limits *limits,
             const struct conn_handlers *handlers, void *owner, struct conn **ret_conn) {
    struct conn *conn = calloc(1, sizeof(*conn));
    int rc;
    if (!conn)
        return -ENOMEM;
    conn->net = net;
    conn->handlers = *handlers;
    conn->owner = owner;
    TAILQ_INIT(&conn->urgent);
    TAILQ_INIT(&conn->bulk);
    conn->reader = reader_new(limits, &reader_callbacks, conn);
    if (!conn->reader) {
        rc = -ENOMEM;
        goto fail;
    }
    rc = uv_tcp_init(net->loop, &conn->tcp);
    if (rc < 0)
        goto fail;
    uv_timer_init(net->loop, &conn->linger); /* never fails */
    conn->tcp.data = conn;
    conn->linger.data = conn;
    conn->handles = 2;
    conn->low_water = 1;
    *ret_conn = conn;
    return 0;
fail:
    reader_free(conn->reader);
    free(conn);
    return rc;
}

uv_tcp_t *conn_handle(struct conn *conn) {
    return &conn->tcp;
}

static void name_peer(struct conn *conn) {
    struct sockaddr_storage address;
    int size = sizeof(address);
    char host[64] = "?";
    unsigned port = 0;
    if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&address, &size) == 0) {
        if (address.ss_family == AF_INET6) {
            const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;
            uv_ip6_name(in6, host, sizeof(host));
            port = ntohs(in6->sin6_port);
        } else {
            const struct sockaddr_in *in = (const struct sockaddr_in *)&address;
            uv_ip4_name(in, host, sizeof(host));
            port = ntohs(in->sin_port);
        }
    }
    snprintf(conn->name, sizeof(conn->name), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
}

int conn_begin(struct conn *conn, enum tls_role role, const char *name) {
    if (conn->net->tls && tls_channel_new(conn->net->tls, role, &conn->tls) < 0)
        return UV_ENOMEM;
    conn->role = role;
    if (name)
        snprintf(conn->name, sizeof(conn->name), "%s", name);
    else
        name_peer(conn);
    conn->last_rx_us = now_us();
    uv_tcp_nodelay(&conn->tcp, 1);
    int rc = uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
    if (rc < 0)
        return rc;
    conn->state = CONN_OPEN;
    if (conn->tls)
        mark_dirty(conn); /* the handshake begins */
    return 0;
}

const char *conn_security(struct conn *conn) {
    if (conn->tls && tls_channel_is_ready(conn->tls))
        snprintf(conn->security, sizeof(conn->security), ", %s with key %s",
                 tls_channel_cipher(conn->tls), tls_channel_key_id(conn->tls));
    return conn->security;
}

const char *conn_name(const struct conn *conn) {
    return conn->name;
}

static void cancel_all(struct conn *conn) {
    while (conn->queued > 0)
        out_finish(conn, take_first(conn), -ECANCELED);
}

static void on_handle_closed(uv_handle_t *handle) {
    struct conn *conn = handle->data;
    if (--conn->handles > 0)
        return;
    cancel_all(conn);
    conn->handlers.on_close(conn->owner, conn->why);
    buffer_unref(conn->incoming);
    tls_channel_free(conn->tls);
    reader_free(conn->reader);
    free(conn);
}

void conn_close(struct conn *conn, const char *why) {
    if (conn->state == CONN_CLOSING)
        return;
    conn->state = CONN_CLOSING;
    if (!conn->why[0])
        snprintf(conn->why, sizeof(conn->why), "%s", why);
    if (conn->is_dirty) {
        TAILQ_REMOVE(&conn->net->dirty, conn, dirty);
        conn->is_dirty = false;
    }
    uv_close((uv_handle_t *)&conn->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&conn->linger, on_handle_closed);
}

static void on_linger(uv_timer_t *timer) {
    struct conn *conn = timer->data;
    conn_close(conn, "the peer did not close after Goodbye");
}

bool conn_is_open(const struct conn *conn) {
    return conn->state == CONN_OPEN;
}

/* ---- sending --------------------------------------------------------------------------------- */

int conn_pack(struct pool *pool, const Convoy__Message *message, size_t payload_bytes,
              struct buffer **ret_header, size_t *ret_bytes) {
    size_t size = convoy__message__get_packed_size(message);
    if (size > MESSAGE_HEADER_MAX)
        return -EMSGSIZE;
    struct buffer *header = pool_get(pool, size + PACK_EXTRA);
    if (!header)
        return -ENOMEM;
    int rc = message_pack_into(message, payload_bytes, header->data, header->capacity, ret_bytes);
    if (rc < 0)
        buffer_unref(header);
    else
        *ret_header = header;
    return rc;
}

/* Takes the reference to owner. */
static void add_piece(struct out *out, const void *data, size_t bytes, struct buffer *owner) {
    out->pieces[out->count++] = (struct piece){
        .buf = {.base = (char *)(uintptr_t)data, .len = bytes},
        .owner = owner,
    };
}

static void send_small(struct conn *conn, struct out_list *list, const Convoy__Message *message) {
    struct buffer *header = NULL;
    size_t bytes = 0;
    struct out *out;
    if (conn->state != CONN_OPEN)
        return;
    if (conn->queued_small >= conn->net->limits.messages) {
        conn_close(conn, "the peer does not read what it is sent");
        return;
    }
    int rc = conn_pack(conn->net->pool, message, 0, &header, &bytes);
    out = rc == 0 ? out_get(conn->net) : NULL;
    if (!out) {
        buffer_unref(header);
        conn_close(conn, rc == -EMSGSIZE ? "a message for it became too long" : "out of memory");
        return;
    }
    out->pieces = out->inline_pieces;
    add_piece(out, header->data, bytes, header);
    out->is_small = true;
    conn->queued_small++;
    out_enqueue(conn, list, out);
}

void conn_send(struct conn *conn, const Convoy__Message *message) {
    send_small(conn, &conn->urgent, message);
}

void conn_goodbye(struct conn *conn, Convoy__Code code, const char *text) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Goodbye goodbye = CONVOY__GOODBYE__INIT;
    if (conn->state != CONN_OPEN) {
        conn_close(conn, text);
        return;
    }
    snprintf(conn->why, sizeof(conn->why), "%s%s%s",
             code == CONVOY__CODE__CODE_OK ? "" : message_code_name(code),
             code == CONVOY__CODE__CODE_OK ? "" : ": ", text);
    goodbye.code = code;
    goodbye.text = (char *)(uintptr_t)text;
    message.body_case = CONVOY__MESSAGE__BODY_GOODBYE;
    message.goodbye = &goodbye;
    send_small(conn, &conn->bulk, &message);
    if (conn->state != CONN_OPEN)
        return;
    conn->state = CONN_LEAVING;
    set_low_water(conn, 1);
    uv_timer_start(&conn->linger, on_linger, LINGER_MS, 0);
}

void conn_send_ping(struct conn *conn, uint64_t token) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Ping ping = CONVOY__PING__INIT;
    ping.token = token;
    message.body_case = CONVOY__MESSAGE__BODY_PING;
    message.ping = &ping;
    conn_send(conn, &message);
}

void conn_send_pong(struct conn *conn, uint64_t token) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Pong pong = CONVOY__PONG__INIT;
    pong.token = token;
    message.body_case = CONVOY__MESSAGE__BODY_PONG;
    message.pong = &pong;
    conn_send(conn, &message);
}

void conn_close_on_goodbye(struct conn *conn, const Convoy__Goodbye *goodbye) {
    char why[256];
    snprintf(why, sizeof(why), "it said Goodbye: %s%s%.200s", message_code_name(goodbye->code),
             goodbye->text[0] ? ": " : "", goodbye->text);
    conn_close(conn, why);
}

/* Room for count pieces. */
static int out_reserve(struct net *net, struct out *out, size_t count) {
    out->pieces = out->inline_pieces;
    if (count <= INLINE_PIECES)
        return 0;
    out->more = pool_get(net->pool, count * sizeof(struct piece));
    if (!out->more)
        return -ENOMEM;
    out->pieces = out->more->data;
    return 0;
}

int conn_send_packed(struct conn *conn, struct buffer *header, size_t header_bytes,
                     const struct segment *segments, size_t count, conn_done *done, void *arg) {
    struct out *out = NULL;
    int rc = -ENOTCONN;
    if (conn->state != CONN_OPEN)
        goto fail;
    rc = -ENOMEM;
    out = out_get(conn->net);
    if (!out)
        goto fail;
    if (out_reserve(conn->net, out, 1 + count) < 0)
        goto fail;
    add_piece(out, header->data, header_bytes, header);
    for (size_t i = 0; i < count; i++)
        if (segments[i].bytes > 0)
            add_piece(out, segments[i].data, segments[i].bytes,
                      segments[i].owner ? buffer_ref(segments[i].owner) : NULL);
    out->done = done;
    out->arg = arg;
    out_enqueue(conn, &conn->bulk, out);
    return 0;
fail:
    if (out)
        TAILQ_INSERT_HEAD(&conn->net->free, out, link);
    buffer_unref(header);
    return rc;
}

void conn_set_limits(struct conn *conn, const struct reader_limits *limits) {
    reader_set_limits(conn->reader, limits);
}

/* ---- what is known about it ------------------------------------------------------------------ */

uint64_t conn_last_rx_us(const struct conn *conn) {
    return conn->last_rx_us;
}

bool conn_has_unread(const struct conn *conn) {
    uv_os_fd_t fd;
    int bytes = 0;
    return uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0 &&
           ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

uint64_t conn_excused(uint64_t since_us, uint64_t us, uint64_t now_us) {
    return since_us >= now_us || us > now_us - since_us ? now_us : since_us + us;
}

void conn_excuse(struct conn *conn, uint64_t us) {
    uint64_t now = now_us();
    conn->last_rx_us = conn_excused(conn->last_rx_us, us, now);
    if (conn->stuck_since_us > 0) /* it has been asked about */
        conn->stuck_since_us = conn_excused(conn->stuck_since_us, us, now);
}

/* Changes whenever bytes have gone from our queue to the kernel's, or from there to the peer. */
static uint64_t progress_mark(const struct conn *conn) {
    uv_os_fd_t fd;
    int unacknowledged = 0;
    if (uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0 &&
        ioctl(fd, SIOCOUTQ, &unacknowledged) < 0)
        unacknowledged = 0;
    return conn->tx_bytes - uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp) -
           (uint64_t)unacknowledged;
}

bool conn_is_stuck(struct conn *conn, uint64_t now_us) {
    uint64_t mark = progress_mark(conn);
    if (!conn->is_busy || mark != conn->stuck_mark || conn->stuck_since_us == 0) {
        conn->stuck_mark = mark;
        conn->stuck_since_us = now_us;
    }
    return now_us > conn->stuck_since_us &&
           now_us - conn->stuck_since_us > conn->net->limits.write_ms * 1000;
}

double conn_rate(const struct conn *conn, bool *ret_is_full) {
    uv_os_fd_t fd;
    double rate;
    *ret_is_full = false;
    if (uv_fileno((const uv_handle_t *)&conn->tcp, &fd) < 0 ||
        !tcp_rate_read(fd, &rate, ret_is_full))
        return 0;
    return rate * 8 / 1e6;
}

void conn_tx(const struct conn *conn, uint64_t *ret_bytes, uint64_t *ret_busy_us) {
    *ret_bytes = conn->tx_bytes;
    *ret_busy_us = conn->tx_busy_us + (conn->is_busy ? now_us() - conn->tx_since_us : 0);
}
