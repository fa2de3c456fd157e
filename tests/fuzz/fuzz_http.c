/* Fuzzes requests to the HTTP server, on a real loop. The first byte of an input chooses how the
 * rest is cut into writes. Afterwards every connection must be gone. */
#include "daemon/net/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct http_request *later;

static void must(bool condition) {
    if (!condition)
        abort();
}

static void handle(void *arg, struct http_request *request, const char *path) {
    (void)arg;
    if (strcmp(path, "/later") == 0 && !later)
        later = request;
    else
        http_answer(request, 200, "text/plain", path, strlen(path));
}

static void forget(void *arg, struct http_request *request) {
    (void)arg, (void)request;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const size_t steps[] = {1, 7, 100, 65536};
    const struct http_options options = {
        .address = "127.0.0.1:0", .connections = 16, .handler = handle, .gone = forget};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char sink[4096];
    uv_loop_t loop;
    struct http *http;
    struct err err = {""};
    if (size == 0)
        return 0;
    size_t step = steps[data[0] & 3];
    uv_loop_init(&loop);
    later = NULL;
    must(http_start(&loop, &options, &http, &err) == 0);
    address.sin_port = htons((uint16_t)http_port(http));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        must(errno == EADDRNOTAVAIL); /* connections leave ports behind for a minute */
        size = 1;
    }
    must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    for (size_t at = 1; at < size;) {
        ssize_t n = send(fd, data + at, size - at < step ? size - at : step, MSG_NOSIGNAL);
        uv_run(&loop, UV_RUN_NOWAIT);
        if (n < 0 && errno != EAGAIN)
            break;
        at += n > 0 ? (size_t)n : 0;
        while (recv(fd, sink, sizeof(sink), 0) > 0)
            continue;
    }
    if (later && data[0] & 4)
        http_answer(later, 200, "text/plain", "late", 4);
    if (data[0] & 8)
        uv_run(&loop, UV_RUN_NOWAIT);
    if (data[0] & 16)
        close(fd);
    http_close(http);
    uv_run(&loop, UV_RUN_DEFAULT);
    must(uv_loop_close(&loop) == 0);
    if (!(data[0] & 16))
        close(fd);
    return 0;
}
