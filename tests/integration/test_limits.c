/* What happens at the limits of a configuration: one device and its clients, real sockets. */
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "models/fmnist_resnet.onnx"
#define FLOOD 12

static struct oracle oracle;

static int set_up(void **state) {
    (void)state;
    oracle_init(&oracle, MODEL);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    oracle_fini(&oracle);
    return 0;
}

static void start(struct daemons *line, const char *extra) {
    daemons_init(line, 1, MODEL);
    line->extra = extra;
    daemons_configure_all(line, NULL);
    daemons_start_all(line);
}

static void connect_client(struct client *client, const struct daemons *line) {
    client_init(client, &oracle, line->all[0].port);
    client_connect(client, CONVOY__ROLE__ROLE_CLIENT);
    client_wait_credit(client);
}

static void a_flood_of_silent_connections_keeps_no_other_address_out(void **state) {
    struct client flood[FLOOD], neighbour, status;
    struct daemons line;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    (void)state;
    start(&line, "limits: {greetings: 4, hello_ms: 600000}\n");
    client_init(&neighbour, &oracle, line.all[0].port);
    client_open_from(&neighbour, "127.0.0.2");

    for (int i = 0; i < FLOOD; i++) {
        client_init(&flood[i], &oracle, line.all[0].port);
        client_open(&flood[i]);
    }
    for (int i = 0; i + 4 < FLOOD; i++) /* the oldest of the flood give way */
        client_wait_closed(&flood[i]);
    hello.version = MESSAGE_VERSION;
    hello.node = (char *)(uintptr_t) "neighbour";
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    client_send(&neighbour, &message, NULL, 0);
    client_wait_credit(&neighbour);

    assert_true(neighbour.welcomed);
    connect_client(&status, &line); /* and the flood's own address gets in when it says Hello */
    client_fini(&status);
    client_fini(&neighbour);
    for (int i = 0; i < FLOOD; i++)
        client_fini(&flood[i]);
    daemons_fini(&line);
}

static void who_never_says_hello_is_sent_away(void **state) {
    struct client client;
    struct daemons line;
    (void)state;
    start(&line, "limits: {hello_ms: 100}\n");
    client_init(&client, &oracle, line.all[0].port);
    client_open(&client);
    client_wait_closed(&client);
    assert_int_equal(client.goodbye, CONVOY__CODE__CODE_MALFORMED);
    daemons_wait_log(&line, 0, "no Hello within `limits: hello_ms:`", 1);
    client_fini(&client);
    daemons_fini(&line);
}

/* Half a message, and then nothing: not even an answer to a Ping. */
static void a_message_that_never_ends_is_not_waited_for(void **state) {
    struct client client;
    struct daemons line;
    char bytes[4096];
    ssize_t got = 1;
    (void)state;
    start(&line, "heartbeat_ms: 200\n");
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_UPSTREAM);
    client_send_raw(&client, "\x90\x80\x80\x80\x00\x09", 6);
    for (uint64_t until = daemons_now_ms() + CLIENT_CAP_MS; got > 0;) {
        struct pollfd poller = {.fd = client.fd, .events = POLLIN};
        assert_true(daemons_now_ms() < until);
        if (poll(&poller, 1, 100) > 0)
            got = recv(client.fd, bytes, sizeof(bytes), 0);
    }
    daemons_wait_log(&line, 0, "silent for too long", 1);
    client_fini(&client);
    daemons_fini(&line);
}

/* It announces more than the model takes, though not more than `max_payload:`. */
static void a_payload_larger_than_the_inputs_is_refused_before_it_comes(void **state) {
    struct client client;
    struct daemons line;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    static const size_t bytes = 1u << 20;
    void *payload = calloc(1, bytes);
    uint8_t packed[256];
    size_t header;
    (void)state;
    assert_non_null(payload);
    start(&line, "");
    connect_client(&client, &line);
    frame.session = client.session;
    frame.sequence = 1;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &frame;
    assert_int_equal(message_pack_into(&message, bytes, packed, sizeof(packed), &header), 0);
    client_send_raw(&client, packed, header); /* and not a byte of the payload */
    client_wait_closed(&client);
    assert_int_equal(client.goodbye, CONVOY__CODE__CODE_TOO_LARGE);
    client_fini(&client);
    connect_client(&client, &line);
    client.target = 20;
    client_run(&client, 20);
    client_assert_exactly_once(&client, 20);
    client_fini(&client);
    free(payload);
    daemons_fini(&line);
}

/* 1 MiB has room for 327 frames with their answers, many fewer than `queue:`. */
static void clients_share_the_memory_for_frames(void **state) {
    struct client clients[3];
    struct daemons line;
    size_t frames, sum = 0;
    (void)state;
    start(&line, "queue: 4096\nlimits: {frame_memory: 1 MiB}\n");
    frames = (1u << 20) / (oracle.input_bytes + 64); /* an answer takes one unit of 64 bytes */
    for (int i = 0; i < 3; i++) {
        connect_client(&clients[i], &line);
        sum += clients[i].credits;
        assert_in_range(clients[i].credits, 1, frames / (size_t)(i + 1));
    }
    assert_int_equal(clients[0].credits, frames);
    assert_in_range(sum, frames, frames + 2); /* each may have one in any case */
    for (int i = 0; i < 3; i++) {
        clients[i].target = frames + 50; /* more than there is room for at once */
        client_run(&clients[i], frames + 50);
        client_assert_exactly_once(&clients[i], frames + 50);
    }
    for (int i = 0; i < 3; i++)
        client_fini(&clients[i]);
    daemons_fini(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_of_silent_connections_keeps_no_other_address_out),
        cmocka_unit_test(who_never_says_hello_is_sent_away),
        cmocka_unit_test(a_message_that_never_ends_is_not_waited_for),
        cmocka_unit_test(a_payload_larger_than_the_inputs_is_refused_before_it_comes),
        cmocka_unit_test(clients_share_the_memory_for_frames),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
