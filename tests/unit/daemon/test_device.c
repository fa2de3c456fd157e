/* A device in this process, whose loop runs when a test lets it: a start that fails, and a loop
 * that was late. */
#include "daemon/device.h"
#include "tests/lib/client.h"
#include "tests/lib/folder.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void on_status(void *arg, const char *text) {
    (void)arg;
    (void)text;
}

static void on_reloaded(void *arg) {
    (void)arg;
}

static void on_stopped(void *arg) {
    ++*(int *)arg;
}

static const struct device_events events = {on_status, on_reloaded, on_stopped};

static void signals_during_a_start_that_fails_change_nothing(void **state) {
    const struct device_options options = {.config_path = "/nonexistent/convoy.yaml"};
    struct device *device = NULL;
    struct err err = {""};
    uv_loop_t loop;
    int stopped = 0;
    (void)state;
    uv_loop_init(&loop);
    assert_true(device_start(&loop, &options, &events, &stopped, &device, &err) < 0);
    assert_non_null(strstr(err.text, "/nonexistent/convoy.yaml"));
    assert_non_null(device);
    device_reload(device);
    device_drain(device);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(stopped, 1);
    device_free(device);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- a loop that is late --------------------------------------------------------------------- */

#define MODEL   "models/fmnist_resnet.onnx"
#define LATE_MS 900 /* several times the limits and ticks of the devices below */

struct scene {
    char folder[64], yaml[96];
    uv_loop_t loop;
    struct device *device;
    int listen_fd, stopped;
    uint16_t port;
};

static void start(struct scene *scene, const char *yaml) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    struct err err = {""};
    memset(scene, 0, sizeof(*scene));
    strcpy(scene->folder, "/tmp/convoy-test-XXXXXX");
    assert_non_null(mkdtemp(scene->folder));
    snprintf(scene->yaml, sizeof(scene->yaml), "%s/convoy.yaml", scene->folder);
    FILE *file = fopen(scene->yaml, "we");
    assert_non_null(file);
    fprintf(file, "node: pi-a\nstate: state\nheartbeat_ms: 100\n%s", yaml);
    assert_int_equal(fclose(file), 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    scene->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(scene->listen_fd >= 0);
    assert_int_equal(bind(scene->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(scene->listen_fd, (struct sockaddr *)&address, &size), 0);
    scene->port = ntohs(address.sin_port);
    const struct device_options options = {
        .config_path = scene->yaml, .listen_fds = &scene->listen_fd, .listen_fds_count = 1};
    uv_loop_init(&scene->loop);
    if (device_start(&scene->loop, &options, &events, &scene->stopped, &scene->device, &err) < 0)
        fail_msg("%s", err.text);
}

static void finish(struct scene *scene) {
    device_drain(scene->device);
    uv_run(&scene->loop, UV_RUN_DEFAULT);
    assert_int_equal(scene->stopped, 1);
    device_free(scene->device);
    assert_int_equal(uv_loop_close(&scene->loop), 0);
    folder_remove(scene->folder);
}

/* The device's thread does nothing for a while. */
static void be_late(void) {
    const struct timespec time = {.tv_nsec = LATE_MS * 1000000};
    nanosleep(&time, NULL);
}

static void say_hello(struct client *client) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    hello.version = MESSAGE_VERSION;
    hello.node = (char *)(uintptr_t) "test";
    hello.session = client->session;
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    client_send(client, &message, NULL, 0);
}

static void open_client(struct scene *scene, struct client *client, const struct oracle *oracle) {
    client_init(client, oracle, scene->port);
    client_open(client);
}

/* Lets the loop run for what has come; fails after the time `until`. */
static void run_once(struct scene *scene, uint64_t until) {
    uv_run(&scene->loop, UV_RUN_NOWAIT);
    assert_true(daemons_now_ms() < until);
}

/* Lets the loop run until one of the device's counts is this. */
static void run_until(struct scene *scene, const size_t *count, size_t wanted) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (*count != wanted)
        run_once(scene, until);
}

/* Lets the loop run until the client has its Welcome, or its connection is closed. */
static void run_until_welcome(struct scene *scene, struct client *client) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (!client->welcomed && client_read(client, 1))
        run_once(scene, until);
}

static void run_until_answered(struct scene *scene, struct client *client) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client->answered == 0) {
        client_push(client);
        assert_true(client_read(client, 1));
        run_once(scene, until);
    }
}

static void a_hello_that_came_while_the_device_was_late_is_heard(void **state) {
    struct scene scene;
    struct client client;
    (void)state;
    start(&scene, "limits: {hello_ms: 300}\n");
    open_client(&scene, &client, NULL);
    run_until(&scene, &scene.device->greetings, 1);
    say_hello(&client);
    be_late();
    run_until_welcome(&scene, &client);
    assert_true(client.welcomed);
    client_fini(&client);
    finish(&scene);
}

/* The device was late, and more have come than it keeps. */
static void keep_who_said_hello(const char *hello_from, const char *const silent_from[2]) {
    struct scene scene;
    struct client says_hello, silent[2];
    start(&scene, "limits: {greetings: 2, hello_ms: 600000}\n");
    client_init(&says_hello, NULL, scene.port);
    client_open_from(&says_hello, hello_from);
    say_hello(&says_hello);
    for (int i = 0; i < 2; i++) {
        client_init(&silent[i], NULL, scene.port);
        client_open_from(&silent[i], silent_from[i]);
    }
    run_until_welcome(&scene, &says_hello);
    assert_true(says_hello.welcomed);
    run_until_welcome(&scene, &silent[0]);
    assert_true(silent[0].closed);
    say_hello(&silent[1]);
    run_until_welcome(&scene, &silent[1]);
    assert_true(silent[1].welcomed);
    client_fini(&says_hello);
    for (int i = 0; i < 2; i++)
        client_fini(&silent[i]);
    finish(&scene);
}

static void whose_hello_is_not_read_yet_gives_way_to_nobody(void **state) {
    (void)state;
    keep_who_said_hello("127.0.0.1", (const char *const[]){"127.0.0.1", "127.0.0.1"});
    keep_who_said_hello("127.0.0.1", (const char *const[]){"127.0.0.2", "127.0.0.3"});
}

/* It could not take the client that came back. */
static void a_session_is_not_forgotten_while_the_device_is_late(void **state) {
    char yaml[PATH_MAX + 128], path[PATH_MAX];
    struct oracle oracle;
    struct scene scene;
    struct client client;
    (void)state;
    assert_non_null(realpath(MODEL, path));
    snprintf(yaml, sizeof(yaml),
             "model: %s\nsession_ms: 300\npipeline:\n  - {node: pi-a, address: '127.0.0.1:1'}\n",
             path);
    oracle_init(&oracle, path);
    start(&scene, yaml);
    open_client(&scene, &client, &oracle);
    say_hello(&client);
    run_until_welcome(&scene, &client);
    uint64_t session = client.session;
    client.target = 1;
    run_until_answered(&scene, &client);
    client_close(&client);
    run_until(&scene, &scene.device->clients, 0);
    client_open(&client);
    say_hello(&client);
    be_late();
    run_until_welcome(&scene, &client);
    assert_true(client.resumed);
    assert_int_equal(client.session, session);
    client_fini(&client);
    finish(&scene);
    oracle_fini(&oracle);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_during_a_start_that_fails_change_nothing),
        cmocka_unit_test(a_hello_that_came_while_the_device_was_late_is_heard),
        cmocka_unit_test(whose_hello_is_not_read_yet_gives_way_to_nobody),
        cmocka_unit_test(a_session_is_not_forgotten_while_the_device_is_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
