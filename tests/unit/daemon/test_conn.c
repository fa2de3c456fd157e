/* A connection whose peer reads slowly, encrypted and not: what goes out stays whole and in order.
 */
#include "daemon/net/conn.h"
#include "tests/lib/messages.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define FRAMES        8
#define PAYLOAD_BYTES (512u << 10) /* much more than the sockets' buffers hold */
#define TURNS_MAX     100000

/* A kernel that takes max bytes of a socket at once, and every other time none. Named as in
 * <unistd.h> and <sys/uio.h>: these are what libuv calls. */
static struct {
    int fd; /* -1: it takes all it can */
    size_t max;
    bool is_full;
} short_writes = {.fd = -1};

ssize_t write(int __fd, const void *__buf, size_t __n) {
    if (__fd == short_writes.fd) {
        short_writes.is_full = !short_writes.is_full;
        if (short_writes.is_full) {
            errno = EAGAIN;
            return -1;
        }
        __n = __n < short_writes.max ? __n : short_writes.max;
    }
    return syscall(SYS_write, __fd, __buf, __n);
}

ssize_t writev(int __fd, const struct iovec *__iovec, int __count) {
    int first = 0;
    if (__fd != short_writes.fd)
        return syscall(SYS_writev, __fd, __iovec, __count);
    while (first < __count - 1 && __iovec[first].iov_len == 0)
        first++;
    return write(__fd, __iovec[first].iov_base, __iovec[first].iov_len);
}

struct pair {
    uv_loop_t loop;
    struct pool *pool;
    struct net *net;
    struct conn *conn;
    int fd;                  /* the other end */
    struct tls_channel *tls; /* of the other end; NULL: not encrypted */
    unsigned done, closed;
    char why[128];        /* of on_close */
    bool takes;           /* messages are taken, not refused */
    unsigned messages;    /* taken */
    size_t payload_bytes; /* of the last one */
    struct sink sink;
};

static Convoy__Code on_header(void *owner, const Convoy__Message *header, size_t bytes,
                              const char **ret_text) {
    const struct pair *pair = owner;
    (void)header;
    (void)bytes;
    *ret_text = "";
    return pair->takes ? CONVOY__CODE__CODE_OK : CONVOY__CODE__CODE_MALFORMED;
}

static void on_message(void *owner, const Convoy__Message *header, struct buffer *payload,
                       size_t payload_bytes) {
    struct pair *pair = owner;
    (void)header;
    pair->messages++;
    pair->payload_bytes = payload_bytes;
    buffer_unref(payload);
}

static void on_close(void *owner, const char *why) {
    struct pair *pair = owner;
    snprintf(pair->why, sizeof(pair->why), "%s", why);
    pair->closed++;
}

static const struct conn_handlers handlers = {on_header, on_message, on_close};

/* Two ends of a TCP connection over loopback with small buffers. */
static void connect_pair(int fds[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    int small = 16384, on = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(listener >= 0);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, sizeof(address)), 0);
    fds[1] = accept(listener, NULL, NULL);
    assert_true(fds[1] >= 0);
    assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
    setsockopt(fds[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    close(listener);
}

static struct tls_context *make_context(void) {
    struct tls_keys keys = {.count = 1, .keys = {{.secret = "a secret", .id = "0123456789abcdef"}}};
    struct tls_context *context = tls_context_new(&keys);
    assert_non_null(context);
    return context;
}

static struct pair *begin_pair(struct tls_context *tls) {
    const struct reader_limits limits = {MESSAGE_HEADER_MAX, 0};
    struct pair *pair = calloc(1, sizeof(*pair));
    int fds[2];
    assert_non_null(pair);
    connect_pair(fds);
    uv_loop_init(&pair->loop);
    pair->pool = pool_new();
    pair->net = net_new(&pair->loop, pair->pool);
    net_set_tls(pair->net, tls);
    assert_int_equal(conn_new(pair->net, &limits, &handlers, pair, &pair->conn), 0);
    assert_int_equal(uv_tcp_open(conn_handle(pair->conn), fds[0]), 0);
    assert_int_equal(conn_begin(pair->conn, TLS_ACCEPTS, "test"), 0);
    pair->fd = fds[1];
    sink_init(&pair->sink, MESSAGE_HEADER_MAX, PAYLOAD_BYTES);
    return pair;
}

static int set_up(void **state) {
    *state = begin_pair(NULL);
    return 0;
}

static int set_up_encrypted(void **state) {
    struct pair *pair = begin_pair(make_context());
    struct tls_context *context = make_context();
    assert_int_equal(tls_channel_new(context, TLS_CONNECTS, &pair->tls), 0);
    tls_context_unref(context);
    *state = pair;
    return 0;
}

static int tear_down(void **state) {
    struct pair *pair = *state;
    short_writes.fd = -1;
    if (!pair->closed)
        conn_close(pair->conn, "the test is over");
    net_close(pair->net);
    uv_run(&pair->loop, UV_RUN_DEFAULT);
    assert_int_equal(pair->closed, 1);
    net_free(pair->net);
    assert_int_equal(uv_loop_close(&pair->loop), 0);
    pool_free(pair->pool);
    close(pair->fd);
    tls_channel_free(pair->tls);
    sink_fini(&pair->sink);
    free(pair);
    return 0;
}

static void on_done(void *arg, const struct conn *conn, int status) {
    struct pair *pair = arg;
    assert_ptr_equal(conn, pair->conn);
    if (status == 0)
        pair->done++;
}

static void send_frame(struct pair *pair, uint64_t sequence, size_t bytes) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    struct buffer *header, *payload = pool_get(pair->pool, bytes);
    size_t header_bytes;
    assert_non_null(payload);
    memset(payload->data, (int)sequence, bytes);
    frame.sequence = sequence;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &frame;
    assert_int_equal(conn_pack(pair->pool, &message, bytes, &header, &header_bytes), 0);
    const struct segment segment = {payload->data, bytes, payload};
    assert_int_equal(conn_send_packed(pair->conn, header, header_bytes, &segment, 1, on_done, pair),
                     0);
    buffer_unref(payload);
}

static void send_ping(struct pair *pair) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Ping ping = CONVOY__PING__INIT;
    ping.token = 17;
    message.body_case = CONVOY__MESSAGE__BODY_PING;
    message.ping = &ping;
    conn_send(pair->conn, &message);
}

static void take(struct pair *pair, const char *bytes, size_t count) {
    if (sink_feed(&pair->sink, bytes, count, count) < 0)
        fail_msg("what arrived is not a message: %s", pair->sink.err.text);
}

/* The other end's part in the handshake. */
static void write_pending(struct pair *pair) {
    size_t bytes;
    const void *pending = tls_channel_pending(pair->tls, &bytes);
    if (bytes > 0) {
        assert_int_equal(write(pair->fd, pending, bytes), bytes);
        tls_channel_sent(pair->tls, bytes);
    }
}

static void decrypt(struct pair *pair, const char *bytes, size_t count) {
    static char plain[16384];
    struct err err = {""};
    ssize_t got;
    tls_channel_feed(pair->tls, bytes, count);
    while ((got = tls_channel_read(pair->tls, plain, sizeof(plain), &err)) > 0)
        take(pair, plain, (size_t)got);
    if (got != -EAGAIN && got != 0)
        fail_msg("what arrived cannot be decrypted: %s", err.text);
    write_pending(pair);
}

/* Reads at most max bytes of what is there. */
static void read_some(struct pair *pair, size_t max) {
    static char bytes[65536];
    if (pair->tls)
        write_pending(pair);
    ssize_t got = read(pair->fd, bytes, max < sizeof(bytes) ? max : sizeof(bytes));
    if (got < 0) {
        assert_int_equal(errno, EAGAIN);
        poll(&(struct pollfd){.fd = pair->fd, .events = POLLIN}, 1, 1); /* turns are not spent */
        return;
    }
    if (pair->tls)
        decrypt(pair, bytes, (size_t)got);
    else
        take(pair, bytes, (size_t)got);
}

static void small_messages_never_get_between_the_bytes_of_others(void **state) {
    struct pair *pair = *state;
    size_t pings = 0;
    for (uint64_t sequence = 1; sequence <= FRAMES; sequence++)
        send_frame(pair, sequence, PAYLOAD_BYTES);
    for (int turn = 0; turn < TURNS_MAX && pair->sink.messages < FRAMES + pings; turn++) {
        uv_run(&pair->loop, UV_RUN_NOWAIT); /* the socket is full: libuv waits for room */
        size_t unread = pings - (pair->sink.messages - pair->sink.payloads);
        if (turn % 16 == 0 && pair->done < FRAMES && unread < CONN_MESSAGES / 2) {
            send_ping(pair);
            pings++;
        }
        read_some(pair, 20000);
    }
    assert_int_equal(pair->done, FRAMES);
    assert_int_equal(pair->sink.payloads, FRAMES);
    assert_true(pings > 2);
    assert_int_equal(pair->sink.messages, FRAMES + pings);
}

static void many_frames_that_wait_are_no_reason_to_end_a_connection(void **state) {
    struct pair *pair = *state;
    const unsigned frames = 2 * CONN_MESSAGES;
    for (uint64_t sequence = 1; sequence <= frames; sequence++)
        send_frame(pair, sequence, 4096);
    uv_run(&pair->loop, UV_RUN_NOWAIT);
    assert_true(pair->done < CONN_MESSAGES);
    send_ping(pair);
    assert_true(conn_is_open(pair->conn));
    for (int turn = 0; turn < TURNS_MAX && pair->sink.messages < frames + 1; turn++) {
        uv_run(&pair->loop, UV_RUN_NOWAIT);
        read_some(pair, 65536);
    }
    assert_int_equal(pair->done, frames);
    assert_int_equal(pair->sink.messages, frames + 1);
}

static void a_peer_that_reads_no_small_message_is_closed(void **state) {
    struct pair *pair = *state;
    send_frame(pair, 1, PAYLOAD_BYTES);
    uv_run(&pair->loop, UV_RUN_NOWAIT);
    for (int i = 0; i < CONN_MESSAGES; i++)
        send_ping(pair);
    assert_true(conn_is_open(pair->conn));
    send_ping(pair);
    assert_false(conn_is_open(pair->conn));
}

/* However much of it the kernels' buffers have taken before. */
static void a_peer_that_takes_nothing_for_too_long_is_stuck(void **state) {
    struct pair *pair = *state;
    const struct conn_limits limits = {CONN_MESSAGES, 1000, CONN_QUIET_MS};
    uint64_t now_us = 5000000;
    net_set_limits(pair->net, &limits);
    assert_false(conn_is_stuck(pair->conn, now_us));
    assert_false(conn_is_stuck(pair->conn, now_us += 60000000)); /* there is nothing to take */
    for (uint64_t sequence = 1; sequence <= FRAMES; sequence++)
        send_frame(pair, sequence, PAYLOAD_BYTES);
    for (int turn = 0; turn < TURNS_MAX && pair->sink.payloads < 1; turn++) {
        uv_run(&pair->loop, UV_RUN_NOWAIT);
        read_some(pair, 20000);
        assert_false(conn_is_stuck(pair->conn, now_us += 5));
    }
    assert_int_equal(pair->sink.payloads, 1);
    bool is_stuck = false;
    for (int turn = 0; turn < TURNS_MAX && !is_stuck; turn++) { /* until all buffers are full */
        uv_run(&pair->loop, UV_RUN_NOWAIT);
        is_stuck = conn_is_stuck(pair->conn, now_us += 500000);
    }
    assert_true(is_stuck);
    assert_true(pair->done < FRAMES);
    conn_excuse(pair->conn, 1000000);
    assert_false(conn_is_stuck(pair->conn, now_us));
}

/* The loop's thread was away before it asked for the first time. */
static void a_connection_that_is_excused_at_its_beginning_is_not_stuck(void **state) {
    struct pair *pair = *state;
    const uint64_t now_us = 3600000000;
    send_ping(pair); /* it is written when the loop comes round */
    conn_excuse(pair->conn, 1000);
    assert_false(conn_is_stuck(pair->conn, now_us));
    assert_true(conn_is_stuck(pair->conn, now_us + CONN_WRITE_MS * 1000 + 1));
}

static void nothing_is_sent_before_the_handshake_is_done(void **state) {
    struct pair *pair = *state;
    char byte;
    send_ping(pair);
    for (int turn = 0; turn < 10; turn++)
        uv_run(&pair->loop, UV_RUN_NOWAIT);
    assert_int_equal(recv(pair->fd, &byte, 1, MSG_PEEK), -1);
    assert_string_equal(conn_security(pair->conn), "");
    for (int turn = 0; turn < TURNS_MAX && pair->sink.messages < 1; turn++) {
        uv_run(&pair->loop, UV_RUN_NOWAIT);
        read_some(pair, 65536);
    }
    assert_int_equal(pair->sink.messages, 1);
    assert_non_null(strstr(conn_security(pair->conn), "with key 0123456789abcdef"));
}

/* The peer of an end with a key does not speak TLS; that of one without does. */
static void an_end_with_a_key_and_one_without_part_at_once(void **state) {
    struct pair *pair = *state;
    struct tls_context *context = make_context();
    struct tls_channel *hello;
    size_t bytes;
    assert_int_equal(tls_channel_new(context, TLS_CONNECTS, &hello), 0);
    tls_context_unref(context);
    const void *pending = tls_channel_pending(hello, &bytes);
    if (pair->tls)
        assert_int_equal(write(pair->fd, "\x90\x80\x80\x80\x00 a plain message", 22), 22);
    else
        assert_int_equal(write(pair->fd, pending, bytes), bytes);
    for (int turn = 0; turn < TURNS_MAX && !pair->closed && conn_is_open(pair->conn); turn++)
        uv_run(&pair->loop, UV_RUN_NOWAIT);
    assert_true(pair->closed || !conn_is_open(pair->conn));
    tls_channel_free(hello);
}

/* Goodbye is the last message, and is followed by TLS' own end of the stream. */
static void goodbye_is_read_before_the_end(void **state) {
    struct pair *pair = *state;
    send_ping(pair);
    for (int turn = 0; turn < TURNS_MAX && pair->sink.messages < 1; turn++) {
        uv_run(&pair->loop, UV_RUN_NOWAIT);
        read_some(pair, 65536);
    }
    conn_goodbye(pair->conn, CONVOY__CODE__CODE_TOO_MANY, "too many");
    for (int turn = 0; turn < TURNS_MAX && pair->sink.messages < 2; turn++) {
        uv_run(&pair->loop, UV_RUN_NOWAIT);
        read_some(pair, 40); /* a record at a time; the one behind says that nothing follows */
    }
    assert_int_equal(pair->sink.messages, 2);
}

/* A frame as it goes over the wire. */
static struct bytes make_frame(size_t payload_bytes) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    struct bytes bytes = {0};
    void *payload = calloc(1, payload_bytes);
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &frame;
    assert_non_null(payload);
    bytes_add_message(&bytes, FORM_OURS, &message, payload, payload_bytes);
    free(payload);
    return bytes;
}

static void take_frames(struct pair *pair) {
    const struct reader_limits limits = {MESSAGE_HEADER_MAX, PAYLOAD_BYTES};
    pair->takes = true;
    conn_set_limits(pair->conn, &limits);
}

static void send_plain(const struct pair *pair, const uint8_t *data, size_t count) {
    assert_int_equal(write(pair->fd, data, count), count);
}

/* Bytes that the kernel holds for the connection. */
static int unread(const struct pair *pair) {
    uv_os_fd_t fd;
    int count;
    assert_int_equal(uv_fileno((uv_handle_t *)conn_handle(pair->conn), &fd), 0);
    assert_int_equal(ioctl(fd, FIONREAD, &count), 0);
    return count;
}

static void turn_until_read(struct pair *pair) {
    for (int turn = 0; turn < TURNS_MAX && unread(pair) > 0; turn++)
        uv_run(&pair->loop, UV_RUN_NOWAIT);
    assert_int_equal(unread(pair), 0);
}

static void a_large_payload_does_not_wake_the_loop_for_every_packet(void **state) {
    struct pair *pair = *state;
    struct bytes frame = make_frame(100000);
    const size_t begun = 10000, more = 8000;
    take_frames(pair);
    send_plain(pair, frame.data, begun);
    turn_until_read(pair);
    send_plain(pair, frame.data + begun, more);
    for (int turn = 0; turn < 100; turn++)
        uv_run(&pair->loop, UV_RUN_NOWAIT);
    assert_int_equal(unread(pair), more);
    send_plain(pair, frame.data + begun + more, frame.size - begun - more);
    turn_until_read(pair);
    assert_int_equal(pair->messages, 1);
    assert_int_equal(pair->payload_bytes, 100000);
    free(frame.data);
    frame = make_frame(1);
    send_plain(pair, frame.data, frame.size);
    turn_until_read(pair);
    assert_int_equal(pair->messages, 2);
    free(frame.data);
}

/* What is pending, a part of a record at a time. */
static void dribble_pending(struct pair *pair) {
    size_t bytes;
    const void *pending;
    while ((pending = tls_channel_pending(pair->tls, &bytes)), bytes > 0) {
        bytes = bytes < 1448 ? bytes : 1448;
        send_plain(pair, pending, bytes);
        tls_channel_sent(pair->tls, bytes);
        uv_run(&pair->loop, UV_RUN_NOWAIT);
    }
}

static void send_encrypted(struct pair *pair, const uint8_t *data, size_t count) {
    struct err err = {""};
    for (int turn = 0; turn < TURNS_MAX && count > 0; turn++) {
        ssize_t put = tls_channel_write(pair->tls, data, count, &err);
        if (put > 0) {
            data += put;
            count -= (size_t)put;
        }
        dribble_pending(pair);
    }
    assert_int_equal(count, 0);
}

/* Nothing follows that would wake the loop for the last bytes. */
/* A neighbour counts as dead after 100 ms: at 1 Mbit/s 8000 bytes take 64. */
static void a_large_payload_wakes_the_loop_in_time_for_a_short_heartbeat(void **state) {
    struct pair *pair = *state;
    const struct conn_limits limits = {CONN_MESSAGES, CONN_WRITE_MS, 100};
    struct bytes frame = make_frame(100000);
    net_set_limits(pair->net, &limits);
    take_frames(pair);
    send_plain(pair, frame.data, 10000);
    turn_until_read(pair);
    send_plain(pair, frame.data + 10000, 8000);
    turn_until_read(pair);
    send_plain(pair, frame.data + 18000, frame.size - 18000);
    turn_until_read(pair);
    assert_int_equal(pair->messages, 1);
    free(frame.data);
}

static void the_end_of_a_payload_waits_for_nothing(void **state) {
    struct pair *pair = *state;
    unsigned sent = 0;
    take_frames(pair);
    send_ping(pair);
    for (int turn = 0; pair->tls && turn < TURNS_MAX && pair->sink.messages < 1; turn++) {
        uv_run(&pair->loop, UV_RUN_NOWAIT);
        read_some(pair, 65536);
    }
    for (size_t bytes = 1; bytes < 90000; bytes += 1499) {
        struct bytes frame = make_frame(bytes);
        if (pair->tls)
            send_encrypted(pair, frame.data, frame.size);
        else
            for (size_t at = 0; at < frame.size; at += 1448) {
                send_plain(pair, frame.data + at, frame.size - at < 1448 ? frame.size - at : 1448);
                uv_run(&pair->loop, UV_RUN_NOWAIT);
            }
        sent++;
        for (int turn = 0; turn < 100 && pair->messages < sent; turn++)
            uv_run(&pair->loop, UV_RUN_NOWAIT);
        assert_int_equal(pair->messages, sent);
        assert_int_equal(pair->payload_bytes, bytes);
        free(frame.data);
    }
}

/* Reads until count more messages have come; what they are. */
static struct bytes receive(struct pair *pair, size_t count) {
    size_t target = pair->sink.messages + count, at = pair->sink.got.size;
    for (int turn = 0; turn < TURNS_MAX && pair->sink.messages < target; turn++) {
        uv_run(&pair->loop, UV_RUN_NOWAIT);
        read_some(pair, 65536);
    }
    assert_int_equal(pair->sink.messages, target);
    return (struct bytes){pair->sink.got.data + at, pair->sink.got.size - at};
}

static void short_writes_of_any_size_lose_nothing(void **state) {
    struct pair *pair = *state;
    struct bytes wanted = {0};
    uv_os_fd_t fd;
    send_frame(pair, 1, 300);
    send_ping(pair);
    struct bytes got = receive(pair, 2);
    bytes_add(&wanted, got.data, got.size);
    assert_int_equal(uv_fileno((uv_handle_t *)conn_handle(pair->conn), &fd), 0);
    short_writes.fd = fd;
    for (size_t max = 1; max < 400; max++) {
        short_writes.max = max;
        send_frame(pair, 1, 300);
        send_ping(pair);
        got = receive(pair, 2);
        assert_int_equal(got.size, wanted.size);
        assert_memory_equal(got.data, wanted.data, wanted.size);
    }
    free(wanted.data);
}

static void a_message_cut_off_at_any_byte_is_forgotten(void **state) {
    struct bytes frame = make_frame(100);
    (void)state;
    for (size_t cut = 0; cut < frame.size; cut++) {
        struct pair *pair = begin_pair(NULL);
        take_frames(pair);
        send_plain(pair, frame.data, cut);
        assert_int_equal(shutdown(pair->fd, SHUT_WR), 0);
        for (int turn = 0; turn < TURNS_MAX && !pair->closed; turn++)
            uv_run(&pair->loop, UV_RUN_ONCE);
        assert_int_equal(pair->messages, 0);
        assert_string_equal(pair->why, cut == 0
                                           ? "the peer closed the connection"
                                           : "the connection broke in the middle of a message");
        tear_down((void **)&pair);
    }
    free(frame.data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define ENCRYPTED(name)                                                                            \
    { #name ", encrypted", name, set_up_encrypted, tear_down, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(small_messages_never_get_between_the_bytes_of_others),
        ENCRYPTED(small_messages_never_get_between_the_bytes_of_others),
        TEST(many_frames_that_wait_are_no_reason_to_end_a_connection),
        ENCRYPTED(many_frames_that_wait_are_no_reason_to_end_a_connection),
        TEST(a_peer_that_reads_no_small_message_is_closed),
        ENCRYPTED(a_peer_that_reads_no_small_message_is_closed),
        TEST(a_peer_that_takes_nothing_for_too_long_is_stuck),
        ENCRYPTED(a_peer_that_takes_nothing_for_too_long_is_stuck),
        TEST(a_connection_that_is_excused_at_its_beginning_is_not_stuck),
        TEST(an_end_with_a_key_and_one_without_part_at_once),
        ENCRYPTED(an_end_with_a_key_and_one_without_part_at_once),
        TEST(goodbye_is_read_before_the_end),
        ENCRYPTED(goodbye_is_read_before_the_end),
        TEST(a_large_payload_does_not_wake_the_loop_for_every_packet),
        TEST(a_large_payload_wakes_the_loop_in_time_for_a_short_heartbeat),
        TEST(the_end_of_a_payload_waits_for_nothing),
        ENCRYPTED(the_end_of_a_payload_waits_for_nothing),
        TEST(short_writes_of_any_size_lose_nothing),
        ENCRYPTED(short_writes_of_any_size_lose_nothing),
        cmocka_unit_test(a_message_cut_off_at_any_byte_is_forgotten),
        ENCRYPTED(nothing_is_sent_before_the_handshake_is_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
