/* The HTTP server on a real loop, its client on a plain socket in the same thread. */
#include "daemon/net/http.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURNS_MAX 200000

#define CONNECTIONS 16

struct site {
    uv_loop_t loop;
    struct http *http;
    struct http_request *waiting; /* for "/later" */
    unsigned requests, forgotten;
};

/* "/later" is answered by the test, every other path with itself. */
static void handle(void *arg, struct http_request *request, const char *path) {
    struct site *site = arg;
    site->requests++;
    if (strcmp(path, "/later") == 0)
        site->waiting = request;
    else
        http_answer(request, strcmp(path, "/none") == 0 ? 404 : 200, "text/plain", path,
                    strlen(path));
}

static void forget(void *arg, struct http_request *request) {
    struct site *site = arg;
    assert_ptr_equal(request, site->waiting);
    site->forgotten++;
}

static struct http_options make_options(struct site *site, const char *address) {
    return (struct http_options){.address = address,
                                 .connections = CONNECTIONS,
                                 .request_ms = HTTP_REQUEST_MS,
                                 .handler = handle,
                                 .gone = forget,
                                 .arg = site};
}

static int set_up_with(void **state, uint64_t request_ms) {
    struct site *site = calloc(1, sizeof(*site));
    struct err err = {""};
    assert_non_null(site);
    uv_loop_init(&site->loop);
    struct http_options options = make_options(site, "127.0.0.1:0");
    options.request_ms = request_ms;
    if (http_start(&site->loop, &options, &site->http, &err) < 0)
        fail_msg("%s", err.text);
    *state = site;
    return 0;
}

static int set_up(void **state) {
    return set_up_with(state, HTTP_REQUEST_MS);
}

static int set_up_hasty(void **state) {
    return set_up_with(state, 50);
}

static int tear_down(void **state) {
    struct site *site = *state;
    http_close(site->http);
    uv_run(&site->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&site->loop), 0);
    free(site);
    return 0;
}

static int dial(const struct site *site) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {htonl(INADDR_LOOPBACK)},
                                  .sin_port = htons((uint16_t)http_port(site->http))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Turns the loop until what fd has read holds what, or the server has closed. */
static void expect(struct site *site, int fd, const char *what, char *text, size_t size) {
    size_t bytes = 0;
    text[0] = '\0';
    for (int turn = 0; turn < TURNS_MAX; turn++) {
        uv_run(&site->loop, UV_RUN_NOWAIT);
        ssize_t n = recv(fd, text + bytes, size - 1 - bytes, 0);
        if (n == 0)
            break;
        bytes += n > 0 ? (size_t)n : 0;
        text[bytes] = '\0';
        if (what && strstr(text, what))
            return;
    }
    if (what)
        fail_msg("no '%s' in '%s'", what, text);
}

static void a_path_is_answered(void **state) {
    struct site *site = *state;
    char text[1024];
    int fd = dial(site);
    say(fd, "GET /health?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(site, fd, "\r\n\r\n/health", text, sizeof(text));
    assert_int_equal(strncmp(text, "HTTP/1.1 200 ", 13), 0);
    assert_non_null(strstr(text, "Content-Type: text/plain"));
    assert_non_null(strstr(text, "nosniff"));
    say(fd, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"); /* the connection is kept */
    expect(site, fd, "\r\n\r\n/none", text, sizeof(text));
    assert_int_equal(strncmp(text, "HTTP/1.1 404 ", 13), 0);
    close(fd);
}

static void an_answer_may_come_later(void **state) {
    struct site *site = *state;
    char text[1024];
    int fd = dial(site);
    say(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int turn = 0; turn < TURNS_MAX && !site->waiting; turn++)
        uv_run(&site->loop, UV_RUN_NOWAIT);
    assert_non_null(site->waiting);
    http_answer(site->waiting, 200, "text/plain", "at last", 7);
    expect(site, fd, "\r\n\r\nat last", text, sizeof(text));
    close(fd);
}

/* The answer comes when nobody is there any more. */
static void a_client_that_left_is_no_trouble(void **state) {
    struct site *site = *state;
    int fd = dial(site);
    say(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int turn = 0; turn < TURNS_MAX && !site->waiting; turn++)
        uv_run(&site->loop, UV_RUN_NOWAIT);
    assert_non_null(site->waiting);
    close(fd);
    uv_run(&site->loop, UV_RUN_NOWAIT);
    http_answer(site->waiting, 200, "text/plain", "too late", 8);
    uv_run(&site->loop, UV_RUN_NOWAIT);
}

/* The end of its headers lies unread in the socket when the server closes: it must not begin to
 * wait. */
static void what_comes_at_the_very_end_does_not_wait(void **state) {
    struct site *site = *state;
    char text[1024];
    int fd = dial(site);
    say(fd, "GET /later HTTP/1.1\r\nHost: x\r\n");
    for (int turn = 0; turn < 100; turn++)
        uv_run(&site->loop, UV_RUN_NOWAIT);
    say(fd, "\r\n");
    http_close(site->http);
    site->http = NULL;
    assert_int_equal(site->requests, 0);
    expect(site, fd, NULL, text, sizeof(text));
    close(fd);
}

static void what_waits_at_the_end_is_told_so(void **state) {
    struct site *site = *state;
    char text[1024];
    int fd = dial(site);
    say(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int turn = 0; turn < TURNS_MAX && !site->waiting; turn++)
        uv_run(&site->loop, UV_RUN_NOWAIT);
    http_close(site->http);
    site->http = NULL;
    assert_int_equal(site->forgotten, 1);
    expect(site, fd, "503", text, sizeof(text));
    close(fd);
}

static void only_get_and_head_are_served(void **state) {
    static const char *const requests[] = {
        "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        "DELETE /health HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
        "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    };
    struct site *site = *state;
    char text[1024];
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        int fd = dial(site);
        say(fd, requests[i]);
        expect(site, fd, "only GET and HEAD", text, sizeof(text));
        assert_int_equal(strncmp(text, "HTTP/1.1 405 ", 13), 0);
        close(fd);
    }
    int fd = dial(site);
    say(fd, "HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    expect(site, fd, NULL, text, sizeof(text));
    assert_non_null(strstr(text, "Content-Length: 7"));
    assert_null(strstr(text, "/health"));
    close(fd);
}

static void a_request_without_end_is_cut_off(void **state) {
    struct site *site = *state;
    char text[1024], line[1024];
    int fd = dial(site);
    say(fd, "GET /health HTTP/1.1\r\nHost: x\r\n");
    snprintf(line, sizeof(line), "X-Long: %0*d\r\n", (int)sizeof(line) - 11, 0);
    assert_int_equal(strlen(line), sizeof(line) - 1);
    for (size_t sent = 0; sent < 4u * HTTP_REQUEST_BYTES; sent += sizeof(line) - 1) {
        send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL);
        uv_run(&site->loop, UV_RUN_NOWAIT);
    }
    expect(site, fd, NULL, text, sizeof(text));
    assert_int_equal(site->requests, 0);
    close(fd);
}

/* As many as may be connected, each of which sends a letter now and then. */
static void requests_that_take_their_time_are_cut_off(void **state) {
    struct site *site = *state;
    uint64_t until_ns = uv_hrtime() + UINT64_C(30000000000), next_ms = 0;
    int fds[CONNECTIONS];
    size_t open = CONNECTIONS;
    char text[1024];
    for (size_t i = 0; i < CONNECTIONS; i++) {
        fds[i] = dial(site);
        say(fds[i], "GET /health HTTP/1.1\r\nX: ");
    }
    while (open > 0) {
        bool is_due = uv_now(&site->loop) >= next_ms; /* seldom, or the header gets too long */
        next_ms = is_due ? uv_now(&site->loop) + 10 : next_ms;
        open = 0;
        for (size_t i = 0; i < CONNECTIONS; i++) {
            if (is_due)
                send(fds[i], "x", 1, MSG_NOSIGNAL);
            ssize_t got = recv(fds[i], text, sizeof(text), 0);
            assert_true(got <= 0); /* no answer */
            open += got < 0 && errno == EAGAIN;
        }
        uv_run(&site->loop, UV_RUN_NOWAIT);
        assert_true(uv_hrtime() < until_ns);
    }
    assert_int_equal(site->requests, 0);
    for (text[0] = '\0'; !strstr(text, "\r\n\r\n/health");) {
        int other = dial(site); /* which is cut off as well where this machine rests for so long */
        say(other, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        expect(site, other, NULL, text, sizeof(text));
        close(other);
        assert_true(uv_hrtime() < until_ns);
    }
    for (size_t i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
}

static void nonsense_is_refused(void **state) {
    static const char *const requests[] = {"\r\n\r\n\r\n", "\x16\x03\x01\x02\x00\x01",
                                           "GET\r\n\r\n", "GET /health\r\n\r\n",
                                           "GET /h HTTP/9.9\r\n\r\n"};
    struct site *site = *state;
    char text[1024];
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        int fd = dial(site);
        say(fd, requests[i]);
        shutdown(fd, SHUT_WR);
        expect(site, fd, NULL, text, sizeof(text));
        assert_null(strstr(text, " 200 "));
        close(fd);
    }
    int fd = dial(site); /* and the next one is served */
    say(fd, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(site, fd, "\r\n\r\n/health", text, sizeof(text));
    close(fd);
}

static void an_address_that_cannot_be_used_is_named(void **state) {
    struct site *site = *state;
    struct http *second;
    struct err err = {""};
    char address[64];
    snprintf(address, sizeof(address), "127.0.0.1:%u", http_port(site->http));
    struct http_options options = make_options(site, address);
    assert_int_equal(http_start(&site->loop, &options, &second, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, address));
    options.address = "nowhere.invalid:80";
    assert_int_equal(http_start(&site->loop, &options, &second, &err), -EADDRNOTAVAIL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_path_is_answered),
        TEST(an_answer_may_come_later),
        TEST(a_client_that_left_is_no_trouble),
        TEST(what_waits_at_the_end_is_told_so),
        TEST(what_comes_at_the_very_end_does_not_wait),
        TEST(only_get_and_head_are_served),
        TEST(a_request_without_end_is_cut_off),
        cmocka_unit_test_setup_teardown(requests_that_take_their_time_are_cut_off, set_up_hasty,
                                        tear_down),
        TEST(nonsense_is_refused),
        TEST(an_address_that_cannot_be_used_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
