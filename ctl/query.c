#include "ctl/query.h"

#include "ctl/progress.h"
#include "ctl/stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct query {
    struct stream *stream;
    uint64_t token;
    Convoy__Status *status; /* the answer */
    struct err said;        /* what the device said instead */
};

static int refuse_payload(void *arg, const Convoy__Message *header, size_t bytes,
                          void **ret_buffer) {
    (void)arg, (void)header, (void)bytes, (void)ret_buffer;
    return -EPROTO;
}

/* A copy that outlives the message: protobuf-c has no other way than packing. */
static Convoy__Status *copy_status(const Convoy__Status *status) {
    size_t size = convoy__status__get_packed_size(status);
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return NULL;
    convoy__status__pack(status, bytes);
    Convoy__Status *copy = convoy__status__unpack(NULL, size, bytes);
    free(bytes);
    return copy;
}

static int on_message(void *arg, const struct message *message) {
    struct query *query = arg;
    const Convoy__Message *header = message->header;
    if (header->body_case == CONVOY__MESSAGE__BODY_GOODBYE)
        return err_set(&query->said, -ECONNREFUSED, "it ended the connection (%s)%s%s",
                       message_code_name(header->goodbye->code),
                       header->goodbye->text[0] ? ": " : "", header->goodbye->text);
    if (header->body_case == CONVOY__MESSAGE__BODY_PING) {
        Convoy__Message answer = CONVOY__MESSAGE__INIT;
        Convoy__Pong pong = CONVOY__PONG__INIT;
        pong.token = header->ping->token;
        answer.body_case = CONVOY__MESSAGE__BODY_PONG;
        answer.pong = &pong;
        return stream_send(query->stream, &answer, NULL, 0, NULL, NULL);
    }
    if (header->body_case != CONVOY__MESSAGE__BODY_STATUS || query->status ||
        header->status->token != query->token)
        return 0;
    query->status = copy_status(header->status);
    return query->status ? 0 : -ENOMEM;
}

/* Hello, as every connection begins, and the question right behind it. */
static int send_request(struct query *query) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    Convoy__StatusRequest request = CONVOY__STATUS_REQUEST__INIT;
    hello.version = MESSAGE_VERSION;
    hello.role = CONVOY__ROLE__ROLE_CLIENT;
    hello.node = (char *)(uintptr_t) "status";
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    int rc = stream_send(query->stream, &message, NULL, 0, NULL, NULL);
    if (rc != 0)
        return rc;
    request.token = query->token;
    message.body_case = CONVOY__MESSAGE__BODY_STATUS_REQUEST;
    message.status_request = &request;
    return stream_send(query->stream, &message, NULL, 0, NULL, NULL);
}

/* Until the answer is there. */
static int exchange(struct query *query, int timeout_ms, struct err *err) {
    uint64_t deadline = clock_us() + (uint64_t)timeout_ms * 1000;
    int rc = send_request(query);
    while (rc == 0 && !query->status) {
        uint64_t now = clock_us();
        size_t bytes;
        if (now >= deadline)
            return err_set(err, -ETIMEDOUT, "no answer for %.1f s", timeout_ms / 1e3);
        rc = stream_write(query->stream, err);
        if (rc != 0)
            break;
        struct pollfd wait = {.fd = stream_fd(query->stream),
                              .events = stream_events(query->stream)};
        if (poll(&wait, 1, (int)((deadline - now) / 1000) + 1) < 0 && errno != EINTR)
            return err_set(err, -errno, "%s", strerror(errno));
        if (wait.revents & (POLLIN | POLLHUP | POLLERR))
            rc = stream_read(query->stream, &bytes, err);
    }
    if (query->status)
        return 0;
    if (query->said.text[0])
        *err = query->said;
    else if (!err->text[0])
        err_set(err, rc, "%s", strerror(-rc));
    return rc;
}

int query_status(const char *address, const char *key, int timeout_ms, Convoy__Status **ret_status,
                 struct err *err) {
    static const struct reader_callbacks callbacks = {refuse_payload, on_message};
    struct reader_limits limits = {MESSAGE_HEADER_MAX, 0};
    struct query query = {.token = clock_us()};
    struct tls_context *tls;
    struct err why = {{0}};
    int fd;
    int rc = stream_load_key(key, &tls, err);
    if (rc != 0)
        return rc;
    rc = stream_connect(address, timeout_ms, -1, &fd, err);
    if (rc != 0) {
        tls_context_unref(tls);
        return rc;
    }
    query.stream = stream_new(fd, tls, &limits, &callbacks, &query);
    tls_context_unref(tls);
    rc =
        query.stream ? exchange(&query, timeout_ms, &why) : err_set(&why, -ENOMEM, "out of memory");
    stream_free(query.stream);
    if (rc == 0)
        *ret_status = query.status;
    else if (query.status)
        convoy__status__free_unpacked(query.status, NULL);
    return rc == 0 ? 0 : err_set(err, rc, "%s: %s", address, why.text);
}
