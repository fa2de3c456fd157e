#include "daemon/net/tcp_rate.h"

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

static void rate_is_known_once_bytes_have_arrived(void **state) {
    static char block[1 << 20];
    double rate = 0;
    bool is_full;
    int fds[2];
    (void)state;
    make_pair(fds);
    assert_false(tcp_rate_read(fds[0], &rate, &is_full));

    for (size_t round = 0; round < 4; round++) {
        ssize_t sent = send(fds[0], block, sizeof(block), MSG_DONTWAIT);
        assert_true(sent > 0);
        for (ssize_t got = 0; got < sent;) {
            ssize_t n = recv(fds[1], block, sizeof(block), 0);
            assert_true(n > 0);
            got += n;
        }
    }
    /* The last acknowledgement may be on its way; the far end's first byte brings it. */
    assert_int_equal(send(fds[1], "x", 1, 0), 1);
    assert_int_equal(recv(fds[0], block, 1, 0), 1);

    assert_true(tcp_rate_read(fds[0], &rate, &is_full));
    assert_true(rate > 1000);
    close(fds[0]);
    close(fds[1]);
}

static void what_is_no_tcp_socket_tells_nothing(void **state) {
    double rate;
    bool is_full;
    int fds[2];
    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_false(tcp_rate_read(fds[0], &rate, &is_full));
    close(fds[0]);
    close(fds[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rate_is_known_once_bytes_have_arrived),
        cmocka_unit_test(what_is_no_tcp_socket_tells_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
