/* Fuzzes a device's connections: a whole device in this process, on its loop, and a peer that says
 * anything. The first byte of an input chooses how the connection begins (nothing, a client's
 * Hello, an upstream device's) and how the rest is cut into writes. Afterwards the device must let
 * go of the connection and still take the next one. */
#include "daemon/device.h"
#include "daemon/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CAP_US  10000000 /* more than any of the device's own time limits */
#define TURN_US 100000   /* a turn counts as no more: a machine may stand still for longer */
#define MODEL   "models/fmnist_resnet.onnx"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uv_loop_t loop;
static struct device *device;
static uint16_t port;

/* In place of daemon/log.c: what a device says of its peers would drown what a fuzzer says. */
void log_start(void) {
}
void log_info(const char *fmt, ...) {
    (void)fmt;
}
void log_warning(const char *fmt, ...) {
    (void)fmt;
}
void log_error(const char *fmt, ...) {
    (void)fmt;
}
bool log_is_news(struct log_repeat *repeat, const char *text, uint64_t now_us) {
    (void)repeat, (void)text, (void)now_us;
    return false;
}
const char *log_id(const uint8_t id[SHA256_SIZE], char buf[LOG_ID_SIZE]) {
    (void)id;
    buf[0] = '\0';
    return buf;
}

static void on_status(void *arg, const char *text) {
    (void)arg;
    (void)text;
}
static void on_event(void *arg) {
    (void)arg;
}

static void must(bool condition) {
    if (!condition)
        abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static const struct device_events events = {on_status, on_event, on_event};
    static char folder[] = "/tmp/convoy-fuzz-XXXXXX", path[64];
    struct device_options options = {.config_path = path};
    struct sockaddr_in address;
    int size = sizeof(address);
    struct err err = {""};
    char *model = realpath(MODEL, NULL);
    (void)argc, (void)argv;
    signal(SIGPIPE, SIG_IGN); /* as convoyd does */
    must(model && mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/convoy.yaml", folder);
    FILE *file = fopen(path, "w");
    must(file != NULL);
    fprintf(file,
            "node: pi-a\nlisten: 127.0.0.1:0\nworkers: 1\nmax_payload: 1 MiB\nmodel: %s\n"
            "pipeline:\n  - {node: pi-a, address: 127.0.0.1:1}\n",
            model);
    fclose(file);
    free(model);
    uv_loop_init(&loop);
    if (device_start(&loop, &options, &events, NULL, &device, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    unlink(path);
    rmdir(folder);
    const uv_tcp_t *listener = (const uv_tcp_t *)(const void *)device->listeners;
    must(uv_tcp_getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    port = ntohs(address.sin_port);
    return 0;
}

/* A connection, or -1 when this machine has no port left: each leaves one behind for a minute. */
static int dial(void) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        must(errno == EADDRNOTAVAIL);
        close(fd);
        return -1;
    }
    must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

/* A turn of the loop; what the device says is thrown away. */
static void turn(int fd) {
    static char sink[65536];
    uv_run(&loop, UV_RUN_NOWAIT);
    while (recv(fd, sink, sizeof(sink), 0) > 0)
        continue;
}

static void say(int fd, const uint8_t *data, size_t size, size_t step) {
    while (size > 0) {
        size_t bytes = size < step ? size : step;
        ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
        turn(fd);
        if (sent < 0 && errno != EAGAIN)
            return;
        data += sent > 0 ? sent : 0;
        size -= sent > 0 ? (size_t)sent : 0;
    }
}

static void say_hello(int fd, Convoy__Role role) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    uint8_t *bytes;
    size_t size;
    hello.version = MESSAGE_VERSION;
    hello.role = role;
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    must(message_pack(&message, 0, &bytes, &size) == 0);
    say(fd, bytes, size, size);
    free(bytes);
}

/* Waits until the device has let go of every connection, or had the time to. */
static void let_go(void) {
    uint64_t waited_us = 0, before_us = device_now_us();
    while (!TAILQ_EMPTY(&device->peers) && waited_us < CAP_US) {
        uv_run(&loop, UV_RUN_NOWAIT);
        uint64_t now_us = device_now_us();
        waited_us += now_us - before_us < TURN_US ? now_us - before_us : TURN_US;
        before_us = now_us;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const Convoy__Role roles[] = {CONVOY__ROLE__ROLE_CLIENT, CONVOY__ROLE__ROLE_UPSTREAM,
                                         CONVOY__ROLE__ROLE_INGRESS};
    static const size_t steps[] = {1, 7, 100, 65536};
    struct linger reset = {.l_onoff = 1};
    if (size == 0)
        return 0;
    uint8_t choice = data[0];
    int fd = dial();
    if (fd < 0)
        return 0;
    if (choice & 3)
        say_hello(fd, roles[(choice & 3) - 1]);
    say(fd, data + 1, size - 1, steps[choice >> 2 & 3]);
    if (choice & 16)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
    let_go();
    must(TAILQ_EMPTY(&device->peers));
    must(device->clients == 0 && device->upstreams == 0 && device->greetings == 0);
    must(device->sessions.count <= device->sessions.max);
    return 0;
}
