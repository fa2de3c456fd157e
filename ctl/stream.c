#include "ctl/stream.h"

#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define READS_AT_ONCE 64 /* then the owner gets a turn */
#define WIRE_BYTES    (128 * 1024)

/* A message under way out. */
struct outgoing {
    struct outgoing *next;
    uint8_t *header;
    size_t header_bytes;
    const uint8_t *payload;
    size_t payload_bytes;
    size_t written; /* of both */
    stream_done_fn done;
    void *arg;
};

struct stream {
    int fd;
    struct tls_channel *tls; /* NULL: not encrypted */
    uint8_t *wire;           /* WIRE_BYTES for what is to be decrypted; NULL without tls */
    bool has_read;           /* something has come */
    struct reader *reader;
    struct outgoing *first, **end; /* the queue, and where its next one goes */
    size_t queued;
};

/* ---- connecting ---- */

/* Waits for a connect() under way. 0 or -errno. */
static int await_connection(int fd, int timeout_ms, int wake_fd) {
    struct pollfd fds[2] = {{.fd = fd, .events = POLLOUT}, {.fd = wake_fd, .events = POLLIN}};
    int error = 0;
    socklen_t size = sizeof(error);
    int n;
    do
        n = poll(fds, wake_fd >= 0 ? 2 : 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (wake_fd >= 0 && fds[1].revents)
        return -ECANCELED;
    if (n == 0)
        return -ETIMEDOUT;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        return -errno;
    return -error;
}

static int connect_one(const struct addrinfo *info, int timeout_ms, int wake_fd, int *ret_fd) {
    int one = 1;
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    int rc = connect(fd, info->ai_addr, info->ai_addrlen) == 0 ? 0 : -errno;
    if (rc == -EINPROGRESS)
        rc = await_connection(fd, timeout_ms, wake_fd);
    if (rc != 0) {
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

int stream_connect(const char *address, int timeout_ms, int wake_fd, int *ret_fd, struct err *err) {
    char host[CONFIG_NAME_MAX + 1], port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = config_split_address(address, host, sizeof(host), port, sizeof(port), err);
    if (rc != 0)
        return rc;
    rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (rc != 0)
        return err_set(err, -EHOSTUNREACH, "%s: %s", address, gai_strerror(rc));
    rc = -EHOSTUNREACH;
    for (const struct addrinfo *info = found; info; info = info->ai_next) {
        rc = connect_one(info, timeout_ms, wake_fd, ret_fd);
        if (rc == 0 || rc == -ECANCELED)
            break;
    }
    freeaddrinfo(found);
    if (rc == -ECONNREFUSED)
        return err_set(err, rc, "%s: connection refused; does convoyd listen there?", address);
    if (rc != 0)
        return err_set(err, rc, "%s: %s", address, strerror(-rc));
    return 0;
}

int stream_load_key(const char *path, struct tls_context **ret_tls, struct err *err) {
    struct tls_keys keys;
    if (!path)
        path = getenv("CONVOY_KEY");
    *ret_tls = NULL;
    if (!path || !*path)
        return 0;
    int rc = tls_keys_load(path, &keys, err);
    if (rc < 0)
        return rc;
    *ret_tls = tls_context_new(&keys);
    tls_keys_wipe(&keys);
    return *ret_tls ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* ---- messages ---- */

struct stream *stream_new(int fd, struct tls_context *tls, const struct reader_limits *limits,
                          const struct reader_callbacks *callbacks, void *arg) {
    struct stream *stream = calloc(1, sizeof(*stream));
    if (!stream) {
        close(fd);
        return NULL;
    }
    stream->fd = fd;
    stream->end = &stream->first;
    stream->reader = reader_new(limits, callbacks, arg);
    if (!stream->reader)
        goto fail;
    if (!tls)
        return stream;
    stream->wire = malloc(WIRE_BYTES);
    if (!stream->wire || tls_channel_new(tls, TLS_CONNECTS, &stream->tls) < 0)
        goto fail;
    return stream;
fail:
    stream_free(stream);
    return NULL;
}

static void drop_first(struct stream *stream) {
    struct outgoing *out = stream->first;
    stream->first = out->next;
    if (!stream->first)
        stream->end = &stream->first;
    stream->queued--;
    if (out->done)
        out->done(out->arg);
    free(out->header);
    free(out);
}

void stream_free(struct stream *stream) {
    if (!stream)
        return;
    while (stream->first)
        drop_first(stream);
    reader_free(stream->reader);
    tls_channel_free(stream->tls);
    free(stream->wire);
    close(stream->fd);
    free(stream);
}

void stream_set_limits(struct stream *stream, const struct reader_limits *limits) {
    reader_set_limits(stream->reader, limits);
}

int stream_send(struct stream *stream, const Convoy__Message *header, const void *payload,
                size_t payload_bytes, stream_done_fn done, void *arg) {
    struct outgoing *out = calloc(1, sizeof(*out));
    if (!out)
        return -ENOMEM;
    int rc = message_pack(header, payload_bytes, &out->header, &out->header_bytes);
    if (rc != 0) {
        free(out);
        return rc;
    }
    out->payload = payload;
    out->payload_bytes = payload_bytes;
    out->done = done;
    out->arg = arg;
    *stream->end = out;
    stream->end = &out->next;
    stream->queued++;
    return 0;
}

size_t stream_queued(const struct stream *stream) {
    return stream->queued;
}

int stream_fd(const struct stream *stream) {
    return stream->fd;
}

/* Whether there is something that the socket could take. Nothing is encrypted before the handshake
 * is done. */
static bool wants_to_write(const struct stream *stream) {
    size_t bytes = 0;
    if (!stream->tls)
        return stream->queued > 0;
    tls_channel_pending(stream->tls, &bytes);
    return bytes > 0 || (stream->queued > 0 && tls_channel_is_ready(stream->tls));
}

short stream_events(const struct stream *stream) {
    return (short)(POLLIN | (wants_to_write(stream) ? POLLOUT : 0));
}

/* ---- reading ---- */

static int end_of_stream(const struct stream *stream, struct err *err) {
    if (stream->tls && !tls_channel_is_ready(stream->tls))
        return err_set(err, -ECONNRESET,
                       "connection closed by the other side before it was encrypted; does the "
                       "device have a `key:`?");
    return err_set(err, -ECONNRESET, "connection closed by the other side%s",
                   reader_is_mid_message(stream->reader) ? " within a message" : "");
}

/* Decrypts bytes of wire into the reader's windows. */
static int decrypt(struct stream *stream, size_t bytes, struct err *err) {
    tls_channel_feed(stream->tls, stream->wire, bytes);
    for (;;) {
        void *window;
        size_t size;
        reader_window(stream->reader, &window, &size);
        ssize_t n = tls_channel_read(stream->tls, window, size, err);
        if (n == -EAGAIN)
            return 0;
        if (n <= 0)
            return n == 0 ? end_of_stream(stream, err) : (int)n;
        int rc = reader_advance(stream->reader, (size_t)n, err);
        if (rc != 0)
            return rc;
    }
}

/* bytes have come to data. */
static int take(struct stream *stream, const void *data, size_t bytes, struct err *err) {
    bool first = !stream->has_read;
    stream->has_read = true;
    if (stream->tls)
        return decrypt(stream, bytes, err);
    if (first && tls_is_record(data, bytes))
        return err_set(err, -EPROTO,
                       "it wants an encrypted connection; name the line's key with --key FILE");
    return reader_advance(stream->reader, bytes, err);
}

int stream_read(struct stream *stream, size_t *ret_bytes, struct err *err) {
    size_t total = 0;
    for (int i = 0; i < READS_AT_ONCE; i++) {
        void *data = stream->wire;
        size_t size = WIRE_BYTES;
        if (!stream->tls)
            reader_window(stream->reader, &data, &size);
        ssize_t n = recv(stream->fd, data, size, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n < 0 && !(errno == ECONNRESET && stream->tls))
            return err_set(err, -errno, "connection lost: %s", strerror(errno));
        if (n <= 0)
            return end_of_stream(stream, err);
        total += (size_t)n;
        int rc = take(stream, data, (size_t)n, err);
        if (rc != 0)
            return rc;
    }
    *ret_bytes = total;
    return 0;
}

/* ---- writing ---- */

/* The unwritten rest of a message. Returns the number of pieces. */
static size_t rest_of(const struct outgoing *out, struct iovec pieces[2]) {
    size_t count = 0, skip = out->written;
    if (skip < out->header_bytes) {
        pieces[count++] = (struct iovec){out->header + skip, out->header_bytes - skip};
        skip = 0;
    } else {
        skip -= out->header_bytes;
    }
    if (skip < out->payload_bytes)
        pieces[count++] =
            (struct iovec){(void *)(uintptr_t)(out->payload + skip), out->payload_bytes - skip};
    return count;
}

/* bytes more of the first message are written. */
static void advance_first(struct stream *stream, size_t bytes) {
    struct outgoing *out = stream->first;
    out->written += bytes;
    if (out->written == out->header_bytes + out->payload_bytes)
        drop_first(stream);
}

/* The outcome of a send: 0 to go on, 1 when the socket is full, or -errno. */
static int sent(ssize_t n, struct err *err) {
    if (n >= 0 || errno == EINTR)
        return 0;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return 1;
    return err_set(err, -errno, "connection lost: %s", strerror(errno));
}

static int write_plain(struct stream *stream, struct err *err) {
    int rc = 0;
    while (stream->first && rc == 0) {
        struct iovec pieces[2];
        struct msghdr message = {.msg_iov = pieces};
        message.msg_iovlen = rest_of(stream->first, pieces);
        ssize_t n = sendmsg(stream->fd, &message, MSG_NOSIGNAL);
        rc = sent(n, err);
        if (n > 0)
            advance_first(stream, (size_t)n);
    }
    return rc < 0 ? rc : 0;
}

/* Encrypts what is queued, as far as there is room. 0 or -EPROTO. */
static int encrypt(struct stream *stream, struct err *err) {
    while (stream->first) {
        struct iovec pieces[2];
        rest_of(stream->first, pieces);
        ssize_t n = tls_channel_write(stream->tls, pieces[0].iov_base, pieces[0].iov_len, err);
        if (n < 0)
            return n == -EAGAIN ? 0 : (int)n;
        advance_first(stream, (size_t)n);
    }
    return 0;
}

static int write_encrypted(struct stream *stream, struct err *err) {
    int rc = 0;
    while (rc == 0) {
        size_t bytes;
        rc = encrypt(stream, err);
        if (rc < 0)
            return rc;
        const void *pending = tls_channel_pending(stream->tls, &bytes);
        if (bytes == 0)
            return 0;
        ssize_t n = send(stream->fd, pending, bytes, MSG_NOSIGNAL);
        rc = sent(n, err);
        if (n > 0)
            tls_channel_sent(stream->tls, (size_t)n);
    }
    return rc < 0 ? rc : 0;
}

int stream_write(struct stream *stream, struct err *err) {
    return stream->tls ? write_encrypted(stream, err) : write_plain(stream, err);
}
