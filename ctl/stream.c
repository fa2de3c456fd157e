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

/* ---- messages ---- */

struct stream *stream_new(int fd, const struct reader_limits *limits,
                          const struct reader_callbacks *callbacks, void *arg) {
    struct stream *stream = calloc(1, sizeof(*stream));
    if (!stream) {
        close(fd);
        return NULL;
    }
    stream->fd = fd;
    stream->end = &stream->first;
    stream->reader = reader_new(limits, callbacks, arg);
    if (!stream->reader) {
        stream_free(stream);
        return NULL;
    }
    return stream;
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

short stream_events(const struct stream *stream) {
    return (short)(POLLIN | (stream->queued ? POLLOUT : 0));
}

int stream_read(struct stream *stream, size_t *ret_bytes, struct err *err) {
    size_t total = 0;
    for (int i = 0; i < READS_AT_ONCE; i++) {
        void *data;
        size_t size;
        reader_window(stream->reader, &data, &size);
        ssize_t n = recv(stream->fd, data, size, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n < 0)
            return err_set(err, -errno, "connection lost: %s", strerror(errno));
        if (n == 0)
            return err_set(err, -ECONNRESET, "connection closed by the other side%s",
                           reader_is_mid_message(stream->reader) ? " within a message" : "");
        total += (size_t)n;
        int rc = reader_advance(stream->reader, (size_t)n, err);
        if (rc != 0)
            return rc;
    }
    *ret_bytes = total;
    return 0;
}

/* The unwritten rest of a message. Returns the number of pieces. */
static int rest_of(const struct outgoing *out, struct iovec pieces[2]) {
    int count = 0;
    size_t skip = out->written;
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

int stream_write(struct stream *stream, struct err *err) {
    while (stream->first) {
        struct outgoing *out = stream->first;
        struct iovec pieces[2];
        struct msghdr message = {.msg_iov = pieces};
        message.msg_iovlen = (size_t)rest_of(out, pieces);
        ssize_t n = sendmsg(stream->fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (n < 0)
            return err_set(err, -errno, "connection lost: %s", strerror(errno));
        out->written += (size_t)n;
        if (out->written == out->header_bytes + out->payload_bytes)
            drop_first(stream);
    }
    return 0;
}
