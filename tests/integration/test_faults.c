/* Daemons and clients that die, freeze, leave and come back while frames flow. */
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#define MODEL "models/fmnist_resnet.onnx"

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

/* A line of three that serves, and a client that has had 100 answers. */
static void start(struct daemons *line, struct client *client, const char *extra) {
    const char *untils[] = {oracle_layer(&oracle, 7), oracle_layer(&oracle, 12)};
    daemons_init(line, 3, MODEL);
    line->extra = extra;
    daemons_configure_all(line, untils);
    daemons_start_all(line);
    client_init(client, &oracle, line->all[0].port);
    client_connect(client, CONVOY__ROLE__ROLE_CLIENT);
    client->target = 100;
    client_run(client, 100);
}

static void finish(struct daemons *line, struct client *client) {
    client_fini(client);
    daemons_fini(line);
}

/* Sends more frames, runs until some of them are answered, and leaves others in flight. */
static void keep_flowing(struct client *client) {
    client->target += 100;
    client_run(client, client->target - 40);
    client_push(client);
}

/* What the ingress alone has: its own line of the status. */
static uint64_t frames_in(struct client *watcher) {
    return client_status(watcher)->stages[0]->frames_in;
}

static size_t in_work(struct client *watcher) {
    const Convoy__StageStatus *stage = client_status(watcher)->stages[0];
    return stage->queued + stage->computing + stage->in_flight;
}

static void killing_a_device_again_and_again_loses_and_repeats_nothing(int victim) {
    struct daemons line;
    struct client client;
    start(&line, &client, "workers: 2\nheartbeat_ms: 1000\n");
    for (int round = 0; round < 4; round++) {
        keep_flowing(&client);
        daemons_kill(&line, victim);
        client_push(&client);
        daemons_start(&line, victim);
    }
    client_run(&client, client.target);
    client_assert_exactly_once(&client, client.target);
    finish(&line, &client);
}

static void killing_the_middle_device_loses_and_repeats_nothing(void **state) {
    (void)state;
    killing_a_device_again_and_again_loses_and_repeats_nothing(1);
}

static void killing_the_last_device_loses_and_repeats_nothing(void **state) {
    (void)state;
    killing_a_device_again_and_again_loses_and_repeats_nothing(2);
}

static void killing_the_ingress_costs_its_client_a_new_session_only(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "workers: 2\n");
    for (int round = 0; round < 3; round++) {
        uint64_t session = client.session;
        keep_flowing(&client);
        daemons_kill(&line, 0);
        daemons_start(&line, 0);
        client_cut(&client);
        client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
        assert_false(client.resumed);
        assert_true(client.session != session);
    }
    client_run(&client, client.target);
    client_assert_exactly_once(&client, client.target);
    finish(&line, &client);
}

static void a_frozen_device_is_found_and_its_frames_are_answered_after_it_thaws(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "workers: 2\nheartbeat_ms: 300\n");
    keep_flowing(&client);
    daemons_signal(&line, 1, SIGSTOP);
    daemons_wait_log(&line, 0, "silent for", 1);
    daemons_signal(&line, 1, SIGCONT);
    client_run(&client, client.target);
    client_assert_exactly_once(&client, client.target);
    finish(&line, &client);
}

static void a_device_that_returns_with_another_plan_is_waited_for(void **state) {
    const char *others[] = {oracle_layer(&oracle, 4), oracle_layer(&oracle, 15)};
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "workers: 2\nheartbeat_ms: 1000\n");
    keep_flowing(&client);
    daemons_kill(&line, 1);
    daemons_configure_all(&line, others);
    daemons_start(&line, 1); /* it knows the new plan only */
    daemons_signal(&line, 0, SIGHUP);
    daemons_signal(&line, 2, SIGHUP);
    client_run(&client, client.target);
    client_assert_exactly_once(&client, client.target);
    finish(&line, &client);
}

static void a_client_that_is_cut_off_resumes_its_session(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "workers: 2\n");
    for (int round = 0; round < 10; round++) {
        uint64_t session = client.session;
        keep_flowing(&client);
        if (round % 2) /* what is under way in both directions is lost */
            shutdown(client.fd, SHUT_RDWR);
        client_cut(&client);
        client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
        assert_true(client.resumed);
        assert_true(client.session == session);
    }
    client_run(&client, client.target);
    client_assert_exactly_once(&client, client.target);
    finish(&line, &client);
}

static void answers_are_kept_for_a_client_that_is_away(void **state) {
    struct daemons line;
    struct client client, watcher;
    (void)state;
    start(&line, &client, "workers: 2\nheartbeat_ms: 6000\n");
    client_init(&watcher, &oracle, line.all[0].port);
    client_connect(&watcher, CONVOY__ROLE__ROLE_CLIENT);
    client_wait_credit(&client);
    daemons_signal(&line, 2, SIGSTOP); /* nothing can be answered */
    client.target += client.credits;
    client_push(&client);
    while (frames_in(&watcher) < client.target) {
    }
    client_close(&client);
    daemons_wait_log(&line, 0, "is gone", 1);
    daemons_signal(&line, 2, SIGCONT);
    while (in_work(&watcher) > 0) { /* all are answered while nobody is there */
    }
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    assert_true(client.resumed);
    client_run(&client, client.target); /* without sending anything again */
    client_assert_exactly_once(&client, client.target);
    client_fini(&watcher);
    finish(&line, &client);
}

static void a_second_connection_of_a_session_closes_the_first(void **state) {
    struct daemons line;
    struct client client, second;
    (void)state;
    start(&line, &client, "workers: 1\n");
    client_init(&second, &oracle, line.all[0].port);
    second.session = client.session;
    client_connect(&second, CONVOY__ROLE__ROLE_CLIENT);
    assert_true(second.resumed);
    client_wait_closed(&client);
    client_fini(&second);
    finish(&line, &client);
}

static void a_session_that_is_not_known_is_replaced_by_a_new_one(void **state) {
    struct daemons line;
    struct client client, stranger;
    (void)state;
    start(&line, &client, "workers: 1\n");
    client_init(&stranger, &oracle, line.all[0].port);
    stranger.session = 4711;
    client_connect(&stranger, CONVOY__ROLE__ROLE_CLIENT);
    assert_false(stranger.resumed);
    assert_true(stranger.session != 0 && stranger.session != 4711);
    client_fini(&stranger);
    finish(&line, &client);
}

static void sigterm_finishes_the_frames_in_flight_and_exits_0(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "workers: 2\n");
    for (int i = 0; i < 20; i++) { /* frames on their way, as many as there is credit for */
        client_wait_credit(&client);
        client.target += client.credits;
        client_push(&client);
    }
    daemons_signal(&line, 0, SIGTERM);
    client_wait_closed(&client);
    assert_int_equal(client.goodbye, CONVOY__CODE__CODE_SHUTTING_DOWN);
    assert_int_equal(client.answered + client.refused, client.next - 1);
    assert_int_equal(client.wrong + client.repeated, 0);
    int status = daemons_wait(&line, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    finish(&line, &client);
}

static void sigterm_on_a_later_device_loses_no_frame(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "workers: 2\n");
    keep_flowing(&client);
    daemons_signal(&line, 1, SIGTERM);
    int status = daemons_wait(&line, 1);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    daemons_start(&line, 1);
    client_run(&client, client.target);
    client_assert_exactly_once(&client, client.target);
    finish(&line, &client);
}

static void a_second_sigterm_exits_at_once(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "workers: 1\ndrain_ms: 60000\n");
    daemons_kill(&line, 2); /* so that frames cannot be finished */
    daemons_wait_log(&line, 0, "waiting for pi-b", 1);
    client_wait_credit(&client);
    client.target += 1;
    client_push(&client);
    while (client_status(&client)->stages[0]->queued == 0) {
    }
    daemons_signal(&line, 0, SIGTERM);
    daemons_wait_log(&line, 0, "shutting down", 1);
    daemons_signal(&line, 0, SIGTERM);
    int status = daemons_wait(&line, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    finish(&line, &client);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killing_the_middle_device_loses_and_repeats_nothing),
        cmocka_unit_test(killing_the_last_device_loses_and_repeats_nothing),
        cmocka_unit_test(killing_the_ingress_costs_its_client_a_new_session_only),
        cmocka_unit_test(a_frozen_device_is_found_and_its_frames_are_answered_after_it_thaws),
        cmocka_unit_test(a_device_that_returns_with_another_plan_is_waited_for),
        cmocka_unit_test(a_client_that_is_cut_off_resumes_its_session),
        cmocka_unit_test(answers_are_kept_for_a_client_that_is_away),
        cmocka_unit_test(a_second_connection_of_a_session_closes_the_first),
        cmocka_unit_test(a_session_that_is_not_known_is_replaced_by_a_new_one),
        cmocka_unit_test(sigterm_finishes_the_frames_in_flight_and_exits_0),
        cmocka_unit_test(sigterm_on_a_later_device_loses_no_frame),
        cmocka_unit_test(a_second_sigterm_exits_at_once),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
