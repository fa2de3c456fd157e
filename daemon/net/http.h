/* A small HTTP/1.1 server for people and monitoring, by libmicrohttpd on our loop: GET and HEAD, no
 * bodies in requests, nothing kept. Knows nothing of what it serves. */
#ifndef CONVOY_DAEMON_NET_HTTP_H
#define CONVOY_DAEMON_NET_HTTP_H

#include "base/err.h"

#include <stddef.h>
#include <uv.h>

#define HTTP_REQUEST_BYTES (8 * 1024) /* request line and headers; longer is refused with 431 */
#define HTTP_IDLE_S        10         /* a connection that is silent for so long is closed */

#define HTTP_REQUEST_MS 30000 /* for a request and its answer, however often a byte comes */

struct http;
struct http_request;

/* A GET for path (no query string). Answer it by http_answer(), at once or later. */
typedef void http_handler(void *arg, struct http_request *request, const char *path);

/* request was not answered and shall not be any more: the server is being closed. */
typedef void http_gone(void *arg, struct http_request *request);

struct http_options {
    const char *address;  /* "127.0.0.1:7434", port 0: any. Borrowed during http_start() */
    unsigned connections; /* at once; more wait in the kernel's queue */
    uint64_t request_ms;  /* HTTP_REQUEST_MS; another in tests */
    http_handler *handler;
    http_gone *gone;
    void *arg; /* of both */
};

/* Listens. 0, or -errno with a sentence that names the address. After success the only way out is
 * http_close(). */
int http_start(uv_loop_t *loop, const struct http_options *options, struct http **ret_http,
               struct err *err);

/* The port that it listens on. */
unsigned http_port(const struct http *http);

/* Ends a request, exactly once. body is copied; type is static. Where there is no memory the
 * connection is closed instead. */
void http_answer(struct http_request *request, unsigned status, const char *type, const char *body,
                 size_t bytes);

/* Closes every connection, answering with 503 what has not been answered, after gone() was called
 * for it, and the handles; memory is
 * released when they have closed. Takes NULL. */
void http_close(struct http *http);

#endif
