#include "daemon/net/tcp_busy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* Two ends of a TCP connection over loopback. */
static void make_pair(int fds[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, size), 0);
    fds[1] = accept(listener, NULL, NULL);
    assert_true(fds[1] >= 0);
    close(listener);
}

static void bytes_count_when_they_have_arrived(void **state) {
    static char block[100000];
    uint64_t bytes = 0, busy_us = 0, before, busy_before;
    int fds[2];
    (void)state;
    make_pair(fds);
    assert_true(tcp_busy_read(fds[0], &before, &busy_before));

    assert_int_equal(send(fds[0], block, sizeof(block), 0), sizeof(block));
    for (size_t got = 0; got < sizeof(block);) {
        ssize_t n = recv(fds[1], block, sizeof(block), 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
    /* The last acknowledgement may be on its way; the far end's first byte forces it out. */
    assert_int_equal(send(fds[1], "x", 1, 0), 1);
    assert_int_equal(recv(fds[0], block, 1, 0), 1);

    assert_true(tcp_busy_read(fds[0], &bytes, &busy_us));
    assert_true(bytes - before >= sizeof(block) && bytes - before <= sizeof(block) + 1);
    assert_true(busy_us >= busy_before);
    close(fds[0]);
    close(fds[1]);
}

static void what_is_no_tcp_socket_tells_nothing(void **state) {
    uint64_t bytes, busy_us;
    int fds[2];
    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_false(tcp_busy_read(fds[0], &bytes, &busy_us));
    close(fds[0]);
    close(fds[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_count_when_they_have_arrived),
        cmocka_unit_test(what_is_no_tcp_socket_tells_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
