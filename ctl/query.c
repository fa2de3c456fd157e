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
    Convoy__Message__BodyCase wanted; /* the kind of the answer */
    Convoy__Message *answer;
    uint64_t last_us; /* when the device said something */
    struct err said;  /* what it said instead */
};

static int refuse_payload(void *arg, const Convoy__Message *header, size_t bytes,
                          void **ret_buffer) {
    (void)arg, (void)header, (void)bytes, (void)ret_buffer;
    return -EPROTO;
}

/* A copy that outlives the message: protobuf-c has no other way than packing. */
static Convoy__Message *copy_message(const Convoy__Message *message) {
    size_t size = convoy__message__get_packed_size(message);
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return NULL;
    convoy__message__pack(message, bytes);
    Convoy__Message *copy = convoy__message__unpack(NULL, size, bytes);
    free(bytes);
    return copy;
}

static bool is_answer(const struct query *query, const Convoy__Message *header) {
    if (header->body_case != query->wanted || query->answer)
        return false;
    return query->token == (header->body_case == CONVOY__MESSAGE__BODY_STATUS
                                ? header->status->token
                                : header->applied->token);
}

static int on_message(void *arg, const struct message *message) {
    struct query *query = arg;
    const Convoy__Message *header = message->header;
    query->last_us = clock_us();
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
    if (!is_answer(query, header))
        return 0;
    query->answer = copy_message(header);
    return query->answer ? 0 : -ENOMEM;
}

/* Hello, as every connection begins, and the question right behind it. */
static int send_request(struct query *query, const char *name, const Convoy__Message *request) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    hello.version = MESSAGE_VERSION;
    hello.role = CONVOY__ROLE__ROLE_CLIENT;
    hello.node = (char *)(uintptr_t)name;
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    int rc = stream_send(query->stream, &message, NULL, 0, NULL, NULL);
    return rc != 0 ? rc : stream_send(query->stream, request, NULL, 0, NULL, NULL);
}

/* Until the answer is there, or the device has said nothing for timeout_ms. */
static int exchange(struct query *query, int timeout_ms, struct err *err) {
    int rc = 0;
    while (rc == 0 && !query->answer) {
        uint64_t now = clock_us(), deadline = query->last_us + (uint64_t)timeout_ms * 1000;
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
    if (query->answer)
        return 0;
    if (query->said.text[0])
        *err = query->said;
    else if (!err->text[0])
        err_set(err, rc, "%s", strerror(-rc));
    return rc;
}

/* Asks request of address; query->answer is the answer. */
static int ask(const char *address, const char *key, const char *name, int timeout_ms,
               struct query *query, const Convoy__Message *request, struct err *err) {
    static const struct reader_callbacks callbacks = {refuse_payload, on_message};
    struct reader_limits limits = {MESSAGE_HEADER_MAX, 0};
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
    query->last_us = clock_us();
    query->stream = stream_new(fd, tls, &limits, &callbacks, query);
    tls_context_unref(tls);
    rc = query->stream ? send_request(query, name, request)
                       : err_set(&why, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = exchange(query, timeout_ms, &why);
    stream_free(query->stream);
    if (rc == 0)
        return 0;
    if (query->answer)
        convoy__message__free_unpacked(query->answer, NULL);
    return err_set(err, rc, "%s: %s", address, why.text[0] ? why.text : strerror(-rc));
}

int query_status(const char *address, const char *key, int timeout_ms, Convoy__Status **ret_status,
                 struct err *err) {
    struct query query = {.token = clock_us(), .wanted = CONVOY__MESSAGE__BODY_STATUS};
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__StatusRequest request = CONVOY__STATUS_REQUEST__INIT;
    request.token = query.token;
    message.body_case = CONVOY__MESSAGE__BODY_STATUS_REQUEST;
    message.status_request = &request;
    int rc = ask(address, key, "status", timeout_ms, &query, &message, err);
    if (rc != 0)
        return rc;
    *ret_status = query.answer->status;
    query.answer->status = NULL; /* taken out of its message */
    query.answer->body_case = CONVOY__MESSAGE__BODY__NOT_SET;
    convoy__message__free_unpacked(query.answer, NULL);
    return 0;
}

int query_apply(const char *address, const char *key, int timeout_ms, Convoy__Apply *apply,
                Convoy__Applied **ret_applied, struct err *err) {
    struct query query = {.token = clock_us(), .wanted = CONVOY__MESSAGE__BODY_APPLIED};
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    apply->token = query.token;
    message.body_case = CONVOY__MESSAGE__BODY_APPLY;
    message.apply = apply;
    int rc = ask(address, key, "apply", timeout_ms, &query, &message, err);
    if (rc != 0)
        return rc;
    *ret_applied = query.answer->applied;
    query.answer->applied = NULL; /* taken out of its message */
    query.answer->body_case = CONVOY__MESSAGE__BODY__NOT_SET;
    convoy__message__free_unpacked(query.answer, NULL);
    return 0;
}
