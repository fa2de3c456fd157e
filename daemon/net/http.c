/* Happy path: libmicrohttpd waits on an epoll descriptor of its own, which the loop polls; when
 * that is readable, or libmicrohttpd's own timer is due, MHD_run() reads, calls on_request() and
 * writes. A request that is not answered inside its handler is suspended, and resumed with its
 * answer.
 *
 * Limits are libmicrohttpd's: connections, bytes of a request, idle time. That a request takes its
 * time, a byte now and then, is looked after here: its connection is shut down.
 */
#include "daemon/net/http.h"

#include "config/config.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG       16
#define LOOK_MS       1000 /* between two looks at how long requests take */
#define SHUTTING_DOWN "shutting down\n"

struct http_request {
    LIST_ENTRY(http_request) entry;
    struct http *http;
    struct MHD_Connection *connection;
    struct MHD_Response *response; /* NULL: not answered yet */
    unsigned status;
    bool is_suspended;
    bool is_answered;
};

struct http_connection {
    LIST_ENTRY(http_connection) entry;
    struct MHD_Connection *connection;
    const struct http_request *request; /* whose headers are here; NULL: none yet */
    uint64_t since_ms;                  /* that it waits for a request, or has one; uv_now() */
};

struct http {
    struct MHD_Daemon *daemon;
    uint64_t request_ms;
    http_handler *handler;
    http_gone *gone;
    void *arg;
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles; /* not closed yet */
    unsigned port;
    bool is_running; /* inside MHD_run() */
    bool is_closing; /* nothing is suspended any more */
    bool has_room;   /* a connection has ended in this MHD_run() */
    LIST_HEAD(, http_request) requests;
    LIST_HEAD(, http_connection) connections;
};

/* ---- libmicrohttpd's events -------------------------------------------------------------------
 */

static void run(struct http *http);

static void on_timer(uv_timer_t *timer) {
    run(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    (void)status, (void)events;
    run(poll->data);
}

/* Whose request, or answer, has not ended in time; but for what waits for an answer from here. */
static void end_slow(struct http *http) {
    const struct http_connection *slow;
    uint64_t now_ms = uv_now(http->timer.loop);
    LIST_FOREACH(slow, &http->connections, entry) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(slow->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        bool is_ours = slow->request && slow->request->is_suspended;
        if (info && !is_ours && now_ms - slow->since_ms > http->request_ms)
            shutdown(info->connect_fd, SHUT_RDWR);
    }
}

static void run(struct http *http) {
    MHD_UNSIGNED_LONG_LONG ms;
    end_slow(http);
    http->is_running = true;
    http->has_room = false;
    MHD_run(http->daemon);
    http->is_running = false;
    if (MHD_get_timeout(http->daemon, &ms) == MHD_NO)
        ms = UINT64_MAX;
    if (http->has_room) /* at its limit it stopped listening, and only the next run begins again */
        ms = 0;
    if (ms > LOOK_MS && !LIST_EMPTY(&http->connections))
        ms = LOOK_MS;
    if (ms < UINT64_MAX)
        uv_timer_start(&http->timer, on_timer, ms, 0);
    else
        uv_timer_stop(&http->timer);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    struct http *http = arg;
    struct http_connection *known = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = known = calloc(1, sizeof(*known));
        if (!known)
            return; /* nobody looks after it */
        known->connection = connection;
        known->since_ms = uv_now(http->timer.loop);
        LIST_INSERT_HEAD(&http->connections, known, entry);
    } else if (known) {
        LIST_REMOVE(known, entry);
        free(known);
        *context = NULL;
        http->has_room = true;
    }
}

/* Its next request begins, or (NULL) may begin. */
static void note_request(struct http *http, struct MHD_Connection *connection,
                         const struct http_request *request) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_connection *known = info ? info->socket_context : NULL;
    if (!known)
        return;
    known->request = request;
    known->since_ms = uv_now(http->timer.loop);
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Hands a complete answer to libmicrohttpd. */
static enum MHD_Result send_answer(struct http_request *request) {
    if (!request->response)
        return MHD_NO;
    return MHD_queue_response(request->connection, request->status, request->response);
}

static void set_headers(struct MHD_Response *response, const char *type) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Content-Security-Policy",
                            "default-src 'none'; style-src 'unsafe-inline'; "
                            "script-src 'unsafe-inline'; connect-src 'self'");
}

void http_answer(struct http_request *request, unsigned status, const char *type, const char *body,
                 size_t bytes) {
    assert(!request->is_answered);
    request->is_answered = true;
    request->status = status;
    request->response =
        MHD_create_response_from_buffer(bytes, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
    if (request->response)
        set_headers(request->response, type);
    if (!request->is_suspended)
        return; /* on_request() goes on */
    request->is_suspended = false;
    MHD_resume_connection(request->connection);
    uv_timer_start(&request->http->timer, on_timer, 0, 0);
}

static void answer_text(struct http_request *request, unsigned status, const char *text) {
    http_answer(request, status, "text/plain; charset=utf-8", text, strlen(text));
}

/* Called for a request's headers, then for each piece of its body and for its end, and again after
 * it was resumed. *context is the request from the first call on. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_bytes, void **context) {
    struct http *http = arg;
    struct http_request *request = *context;
    (void)version, (void)data;
    if (!request) {
        *context = request = calloc(1, sizeof(*request));
        if (!request)
            return MHD_NO;
        request->http = http;
        request->connection = connection;
        LIST_INSERT_HEAD(&http->requests, request, entry);
        note_request(http, connection, request);
        return MHD_YES;
    }
    if (*data_bytes > 0) { /* a body: not wanted, thrown away */
        *data_bytes = 0;
        return MHD_YES;
    }
    if (request->is_answered)
        return send_answer(request);
    if (http->is_closing)
        answer_text(request, MHD_HTTP_SERVICE_UNAVAILABLE, SHUTTING_DOWN);
    else if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        answer_text(request, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
    else
        http->handler(http->arg, request, url);
    if (request->is_answered)
        return send_answer(request);
    request->is_suspended = true;
    MHD_suspend_connection(connection);
    return MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code) {
    struct http_request *request = *context;
    (void)code;
    if (!request)
        return;
    note_request(arg, connection, NULL);
    LIST_REMOVE(request, entry);
    if (request->response)
        MHD_destroy_response(request->response);
    free(request);
    *context = NULL;
}

/* ---- listening ------------------------------------------------------------------------------- */

static unsigned port_of(int fd) {
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return 0;
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

static int listen_on(const struct addrinfo *info) {
    int one = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static int open_listener(const char *address, struct err *err) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    char host[CONFIG_NAME_MAX + 1], port[32];
    struct addrinfo *found = NULL;
    int rc = config_split_address(address, host, sizeof(host), port, sizeof(port), err);
    if (rc < 0)
        return rc;
    int eai = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (eai != 0)
        return err_set(err, -EADDRNOTAVAIL, "cannot listen on %s: %s", address, gai_strerror(eai));
    rc = listen_on(found);
    freeaddrinfo(found);
    if (rc < 0)
        return err_set(err, rc, "cannot listen on %s: %s", address, strerror(-rc));
    return rc;
}

int http_start(uv_loop_t *loop, const struct http_options *options, struct http **ret_http,
               struct err *err) {
    const char *address = options->address;
    struct http *http = calloc(1, sizeof(*http));
    const union MHD_DaemonInfo *info;
    if (!http)
        return err_set(err, -ENOMEM, "out of memory");
    http->handler = options->handler;
    http->gone = options->gone;
    http->arg = options->arg;
    http->request_ms = options->request_ms;
    LIST_INIT(&http->requests);
    LIST_INIT(&http->connections);
    int fd = open_listener(address, err);
    int rc = fd;
    if (fd < 0)
        goto fail;
    http->port = port_of(fd);
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC, 0, NULL, NULL, on_request, http,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, options->connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_REQUEST_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_S, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
    if (!http->daemon) {
        close(fd);
        rc = err_set(err, -ENOMEM, "cannot serve HTTP on %s: out of memory", address);
        goto fail;
    }
    info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    rc = info ? uv_poll_init(loop, &http->poll, info->epoll_fd) : UV_EINVAL;
    if (rc < 0) {
        err_set(err, rc, "cannot serve HTTP on %s: %s", address, uv_strerror(rc));
        goto fail;
    }
    uv_timer_init(loop, &http->timer);
    http->poll.data = http->timer.data = http;
    http->handles = 2;
    uv_poll_start(&http->poll, UV_READABLE, on_poll);
    run(http);
    *ret_http = http;
    return 0;
fail:
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    free(http);
    return rc;
}

unsigned http_port(const struct http *http) {
    return http->port;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle) {
    struct http *http = handle->data;
    if (--http->handles == 0)
        free(http);
}

void http_close(struct http *http) {
    struct http_request *request;
    if (!http)
        return;
    assert(!http->is_running);
    http->is_closing = true; /* what MHD_run() still reads is answered at once */
    LIST_FOREACH(request, &http->requests, entry) {
        if (!request->is_suspended)
            continue;
        http->gone(http->arg, request);
        answer_text(request, MHD_HTTP_SERVICE_UNAVAILABLE, SHUTTING_DOWN);
    }
    MHD_run(http->daemon); /* what was suspended is under way again: it may not be when it stops */
    uv_timer_stop(&http->timer);
    uv_poll_stop(&http->poll);
    MHD_stop_daemon(http->daemon);
    uv_close((uv_handle_t *)&http->poll, on_handle_closed);
    uv_close((uv_handle_t *)&http->timer, on_handle_closed);
}
