/* A real ingress whose next device is played by the test: what it makes of refusals, repeated
 * results, withdrawn plans and credits. And what a daemon tells the service manager. */
#include "base/sha256.h"
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "models/fmnist_resnet.onnx"
#define CUT   7

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

/* pi-a is real, pi-b is the test. */
struct scene {
    struct daemons line;
    struct client client, next;
    uint8_t plan[SHA256_SIZE]; /* what pi-a works under */
};

/* What pi-a tells of itself, while pi-b answers. */
static const Convoy__StageStatus *own_status(struct scene *scene) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    client_ask_status(&scene->client);
    while (!scene->client.status) {
        assert_true(client_read(&scene->client, 5));
        assert_true(client_read(&scene->next, 5));
        assert_true(daemons_now_ms() < until);
    }
    return scene->client.status->stages[0];
}

static void send_welcome(struct client *next) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Welcome welcome = CONVOY__WELCOME__INIT;
    welcome.version = MESSAGE_VERSION;
    welcome.node = (char *)(uintptr_t) "pi-b";
    welcome.max_payload = 64u << 20;
    message.body_case = CONVOY__MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    client_send(next, &message, NULL, 0);
}

static void send_plans(struct scene *scene, bool ready) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Plans plans = CONVOY__PLANS__INIT;
    ProtobufCBinaryData id = {SHA256_SIZE, scene->plan};
    plans.n_ready = ready;
    plans.ready = &id;
    message.body_case = CONVOY__MESSAGE__BODY_PLANS;
    message.plans = &plans;
    client_send(&scene->next, &message, NULL, 0);
}

static void send_credit(struct scene *scene, uint32_t frames) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Credit credit = CONVOY__CREDIT__INIT;
    credit.frames = frames;
    message.body_case = CONVOY__MESSAGE__BODY_CREDIT;
    message.credit = &credit;
    client_send(&scene->next, &message, NULL, 0);
}

static void send_refusal(struct scene *scene, Convoy__Code code, bool retry) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Refusal refusal = CONVOY__REFUSAL__INIT;
    refusal.session = scene->next.frame.session;
    refusal.sequence = scene->next.frame.sequence;
    refusal.code = code;
    refusal.retry = retry;
    refusal.node = refusal.text = (char *)(uintptr_t) "pi-b";
    message.body_case = CONVOY__MESSAGE__BODY_REFUSAL;
    message.refusal = &refusal;
    client_send(&scene->next, &message, NULL, 0);
}

/* The right answer to the last frame that came. */
static void send_result(struct scene *scene) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Result result = CONVOY__RESULT__INIT;
    Convoy__Tensor tensor, *tensors;
    assert_int_equal(message_fill_tensors(&oracle.output, 1, &tensor, &tensors), 0);
    result.session = scene->next.frame.session;
    result.sequence = scene->next.frame.sequence;
    result.n_tensors = 1;
    result.tensors = &tensors;
    message.body_case = CONVOY__MESSAGE__BODY_RESULT;
    message.result = &result;
    client_send(&scene->next, &message, oracle.outputs[result.sequence % ORACLE_PICTURES],
                oracle.output_bytes);
}

static void start_with(struct scene *scene, const char *extra) {
    memset(scene, 0, sizeof(*scene));
    daemons_init(&scene->line, 2, MODEL);
    scene->line.extra = extra;
    daemons_configure(&scene->line, 0, (const char *const[]){oracle_layer(&oracle, CUT)});
    daemons_start(&scene->line, 0);
    client_init(&scene->next, &oracle, 0);
    client_accept(&scene->next, scene->line.all[1].listen_fd);
    send_welcome(&scene->next);
    client_init(&scene->client, &oracle, scene->line.all[0].port);
    client_connect(&scene->client, CONVOY__ROLE__ROLE_CLIENT);
    client_wait_credit(&scene->client);
    const Convoy__StageStatus *stage = own_status(scene);
    assert_int_equal(stage->plan.len, SHA256_SIZE);
    memcpy(scene->plan, stage->plan.data, SHA256_SIZE);
}

static void start(struct scene *scene) {
    start_with(scene, "workers: 1\nqueue: 3\nheartbeat_ms: 20000\n");
}

static void finish(struct scene *scene) {
    client_fini(&scene->client);
    client_fini(&scene->next);
    daemons_fini(&scene->line);
}

static void wait_frames(struct scene *scene, size_t count) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (scene->next.frames < count)
        if (!client_read(&scene->next, 100) || daemons_now_ms() > until)
            fail_msg("frame %zu did not come down the link", count);
}

static void a_refused_frame_is_sent_again_and_answered_once(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_plans(&scene, true);
    send_credit(&scene, 10);
    scene.client.target = 1;
    client_push(&scene.client);
    for (size_t attempt = 1; attempt <= 3; attempt++) {
        wait_frames(&scene, attempt);
        assert_int_equal(scene.next.frame.sequence, 1);
        assert_memory_equal(scene.next.frame.plan, scene.plan, SHA256_SIZE);
        send_refusal(&scene, CONVOY__CODE__CODE_UNKNOWN_PLAN, true);
    }
    wait_frames(&scene, 4);
    send_result(&scene);
    send_result(&scene); /* a second one, as of an attempt that was thought lost */
    client_run(&scene.client, 1);
    scene.client.target = 2; /* whatever was sent before its answer has come, too */
    client_push(&scene.client);
    wait_frames(&scene, 5);
    send_result(&scene);
    client_run(&scene.client, 2);
    client_assert_exactly_once(&scene.client, 2);
    assert_int_equal(own_status(&scene)->frames_retried, 3);
    finish(&scene);
}

static void a_frame_that_fails_at_every_attempt_is_refused_in_the_end(void **state) {
    struct scene scene;
    (void)state;
    start_with(&scene, "workers: 1\nheartbeat_ms: 20000\nlimits: {attempts: 3}\n");
    send_plans(&scene, true);
    send_credit(&scene, 10);
    scene.client.target = 1;
    client_push(&scene.client);
    for (size_t attempt = 1; attempt <= 3; attempt++) {
        wait_frames(&scene, attempt);
        send_refusal(&scene, CONVOY__CODE__CODE_INTERNAL, true);
    }
    while (scene.client.refused == 0)
        assert_true(client_read(&scene.client, 1000));
    assert_int_equal(scene.client.refusal, CONVOY__CODE__CODE_INTERNAL);
    assert_false(scene.client.refusal_retry);
    assert_int_equal(scene.next.frames, 3);
    finish(&scene);
}

static void a_next_device_that_pings_but_never_welcomes_is_left(void **state) {
    struct daemons line;
    struct client next;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Ping ping = CONVOY__PING__INIT;
    (void)state;
    daemons_init(&line, 2, MODEL);
    line.extra = "limits: {hello_ms: 2000}\n";
    daemons_configure(&line, 0, (const char *const[]){oracle_layer(&oracle, CUT)});
    daemons_start(&line, 0);
    client_init(&next, &oracle, 0);
    client_accept(&next, line.all[1].listen_fd);
    message.body_case = CONVOY__MESSAGE__BODY_PING;
    message.ping = &ping;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client_read(&next, 20) && daemons_now_ms() < until)
        client_send(&next, &message, NULL, 0);
    assert_true(next.closed);
    daemons_wait_log(&line, 0, "no Welcome within `limits: hello_ms:`", 1);
    client_fini(&next);
    daemons_fini(&line);
}

static void a_full_session_that_drops_has_its_newest_frames_answered(void **state) {
    enum { SENT = 40, KEPT = 8 }; /* there is room for one more than are kept: for the next */
    struct scene scene;
    (void)state;
    start_with(&scene, "workers: 1\nqueue: 3\nheartbeat_ms: 20000\nwhen_full: drop-oldest\n");
    send_plans(&scene, true); /* and no credit: nothing goes on */
    scene.client.target = SENT;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (scene.client.refused < SENT - KEPT) {
        client_push(&scene.client);
        assert_true(client_read(&scene.client, 20));
        assert_true(daemons_now_ms() < until);
    }
    assert_int_equal(scene.client.refusal, CONVOY__CODE__CODE_DROPPED);
    assert_false(scene.client.refusal_retry);
    for (size_t sent = 1; sent <= KEPT; sent++) {
        send_credit(&scene, 1);
        wait_frames(&scene, sent);
        send_result(&scene);
        client_run(&scene.client, sent);
    }

    assert_int_equal(scene.client.refused, SENT - KEPT);
    assert_int_equal(scene.client.wrong + scene.client.repeated, 0);
    assert_int_equal(scene.next.frame.sequence, SENT);
    assert_int_equal(scene.client.answers[SENT], 1);
    assert_int_equal(own_status(&scene)->frames_dropped, SENT - KEPT);
    finish(&scene);
}

static void a_refusal_that_is_final_reaches_the_client(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_plans(&scene, true);
    send_credit(&scene, 10);
    scene.client.target = 1;
    client_push(&scene.client);
    wait_frames(&scene, 1);
    send_refusal(&scene, CONVOY__CODE__CODE_WRONG_TENSORS, false);
    while (scene.client.refused == 0)
        assert_true(client_read(&scene.client, 1000));
    assert_int_equal(scene.client.refusal, CONVOY__CODE__CODE_WRONG_TENSORS);
    assert_false(scene.client.refusal_retry);
    finish(&scene);
}

static void no_frame_goes_down_before_the_plan_is_announced(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_credit(&scene, 10);
    scene.client.target = 1;
    client_push(&scene.client);
    while (own_status(&scene)->queued == 0)
        assert_true(client_read(&scene.next, 0));
    assert_string_equal(scene.client.status->stages[0]->state, "waiting for pi-b");
    assert_int_equal(scene.next.frames, 0);
    send_plans(&scene, true);
    wait_frames(&scene, 1);
    send_result(&scene);
    client_run(&scene.client, 1);
    finish(&scene);
}

static void no_more_frames_go_down_than_credits_came_up(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_plans(&scene, true);
    send_credit(&scene, 2);
    scene.client.target = 6;
    client_push(&scene.client);
    wait_frames(&scene, 2);
    while (own_status(&scene)->frames_in < scene.client.next - 1) {
    }
    assert_true(client_read(&scene.next, 50));
    assert_int_equal(scene.next.frames, 2);
    send_credit(&scene, 1);
    wait_frames(&scene, 3);
    finish(&scene);
}

static void frames_that_wait_for_a_withdrawn_plan_go_down_when_it_is_back(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_plans(&scene, true);
    scene.client.target = 2;
    client_push(&scene.client);
    while (own_status(&scene)->compute_ms == 0) {
    } /* computed, and there is no credit */
    send_plans(&scene, false);
    daemons_wait_log(&scene.line, 0, "waiting for pi-b", 1);
    send_credit(&scene, 10);
    assert_true(client_read(&scene.next, 50));
    assert_int_equal(scene.next.frames, 0);
    send_plans(&scene, true);
    wait_frames(&scene, 2);
    for (uint64_t sequence = 1; sequence <= 2; sequence++) {
        scene.next.frame.sequence = sequence;
        send_result(&scene);
    }
    client_run(&scene.client, 2);
    client_assert_exactly_once(&scene.client, 2);
    finish(&scene);
}

static void a_next_device_that_sends_nonsense_is_left_and_tried_again(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_plans(&scene, true);
    send_credit(&scene, 10);
    scene.client.target = 1;
    client_push(&scene.client);
    wait_frames(&scene, 1);
    client_send_raw(&scene.next, "nonsense nonsense nonsense", 26);
    client_wait_closed(&scene.next);
    client_close(&scene.next);
    client_accept(&scene.next, scene.line.all[1].listen_fd);
    send_welcome(&scene.next);
    send_plans(&scene, true);
    send_credit(&scene, 10);
    wait_frames(&scene, 2);
    send_result(&scene);
    client_run(&scene.client, 1);
    client_assert_exactly_once(&scene.client, 1);
    finish(&scene);
}

static void a_line_that_stands_still_takes_no_more_than_its_window(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_plans(&scene, true); /* and never a credit */
    scene.client.target = 1000;
    for (int i = 0; i < 20; i++) {
        client_push(&scene.client);
        assert_true(client_read(&scene.client, 20));
    }
    assert_int_equal(scene.client.next - 1, 3 * 2); /* queue x stages */
    assert_int_equal(own_status(&scene)->frames_in, 3 * 2);
    finish(&scene);
}

/* ---- the service manager --------------------------------------------------------------------- */

/* Reads notifications until one contains text. */
static void wait_notified(int fd, const char *text) {
    uint64_t until = daemons_now_ms() + DAEMONS_CAP_MS;
    char said[1024];
    for (;;) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        if (poll(&poller, 1, 1000) == 1) {
            ssize_t size = recv(fd, said, sizeof(said) - 1, 0);
            assert_true(size >= 0);
            said[size] = '\0';
            if (strstr(said, text))
                return;
        }
        if (daemons_now_ms() > until)
            fail_msg("the service manager was never told %s", text);
    }
}

static void the_service_manager_is_told_of_every_change(void **state) {
    struct daemons line;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)state;
    daemons_init(&line, 1, MODEL);
    snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/notify", line.folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    setenv("WATCHDOG_USEC", "100000", 1);
    daemons_configure(&line, 0, NULL);
    daemons_start(&line, 0);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    wait_notified(fd, "STATUS=ready, stage 1 of 1");
    wait_notified(fd, "READY=1");
    wait_notified(fd, "WATCHDOG=1");
    wait_notified(fd, "WATCHDOG=1");
    daemons_signal(&line, 0, SIGHUP);
    wait_notified(fd, "RELOADING=1\nMONOTONIC_USEC=");
    wait_notified(fd, "READY=1");
    daemons_signal(&line, 0, SIGTERM);
    wait_notified(fd, "STOPPING=1");
    assert_int_equal(daemons_wait(&line, 0), 0);
    close(fd);
    daemons_fini(&line);
}

static void a_device_that_is_not_in_the_pipeline_is_idle(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 1, MODEL);
    FILE *file = fopen(line.all[0].yaml, "we");
    assert_non_null(file);
    fprintf(file, "node: spare\n");
    assert_int_equal(fclose(file), 0);
    daemons_start(&line, 0);
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    assert_int_equal(client.session, 0);
    const Convoy__Status *status = client_status(&client);
    assert_int_equal(status->n_stages, 1);
    assert_string_equal(status->stages[0]->state, "idle");
    client_fini(&client);
    daemons_fini(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_frame_is_sent_again_and_answered_once),
        cmocka_unit_test(a_frame_that_fails_at_every_attempt_is_refused_in_the_end),
        cmocka_unit_test(a_next_device_that_pings_but_never_welcomes_is_left),
        cmocka_unit_test(a_full_session_that_drops_has_its_newest_frames_answered),
        cmocka_unit_test(a_refusal_that_is_final_reaches_the_client),
        cmocka_unit_test(no_frame_goes_down_before_the_plan_is_announced),
        cmocka_unit_test(no_more_frames_go_down_than_credits_came_up),
        cmocka_unit_test(frames_that_wait_for_a_withdrawn_plan_go_down_when_it_is_back),
        cmocka_unit_test(a_next_device_that_sends_nonsense_is_left_and_tried_again),
        cmocka_unit_test(a_line_that_stands_still_takes_no_more_than_its_window),
        cmocka_unit_test(the_service_manager_is_told_of_every_change),
        cmocka_unit_test(a_device_that_is_not_in_the_pipeline_is_idle),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
