/* Real daemons in a line, on loopback. */
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"
#include "tests/lib/folder.h"
#include "tests/lib/small_model.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Cuts after the layers with these indexes. */
static void configure(struct daemons *line, int i, const size_t *cuts) {
    const char *untils[DAEMONS_MAX];
    for (int s = 0; s + 1 < line->count; s++)
        untils[s] = oracle_layer(&oracle, cuts[s]);
    daemons_configure(line, i, untils);
}

static void start_line(struct daemons *line, int count, const size_t *cuts) {
    daemons_init(line, count, MODEL);
    line->extra = "workers: 2\nheartbeat_ms: 2000\n";
    for (int i = 0; i < count; i++)
        configure(line, i, cuts);
    daemons_start_all(line);
}

static void run_line(int count, const size_t *cuts, size_t frames) {
    struct daemons line;
    struct client client;
    start_line(&line, count, cuts);
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = frames;
    client_run(&client, frames);
    client_assert_exactly_once(&client, frames);
    client_fini(&client);
    daemons_fini(&line);
}

static void one_device_answers_as_the_undivided_model(void **state) {
    (void)state;
    run_line(1, NULL, 300);
}

static void a_line_of_three_answers_as_the_undivided_model(void **state) {
    (void)state;
    run_line(3, (const size_t[]){7, 12}, 1000);
}

static void a_line_of_four_with_its_cuts_across_residuals_answers_the_same(void **state) {
    (void)state;
    run_line(4, (const size_t[]){4, 6, 9}, 500);
}

/* What is brighter than the rest: how much of it there is depends on the picture. */
static const char bright[] = "input x f32 4,16\noutput y\nconst level f32 1 = 0.9\n"
                             "Sub less x,level -> less\nRelu relu less -> rest\n"
                             "NonZero find rest -> found\nTranspose turn found -> places\n"
                             "GatherND pick x,places -> picked\nExp exp picked -> grown\n"
                             "Softmax share grown -> shares | axis=0\nMul mul shares,picked -> y\n";

static void results_of_a_shape_of_their_own_come_through_every_cut(void **state) {
    (void)state;
    char folder[] = "/tmp/convoy-bright-XXXXXX", path[64];
    struct oracle own;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/bright.onnx", folder);
    small_model_write(path, 13, bright);
    oracle_init(&own, path);
    for (size_t i = 1; i < ORACLE_PICTURES; i++)
        assert_true(own.shapes[i].dims[0] < 64);
    for (size_t at = 0; at + 2 < model_layers_count(own.model); at++) {
        const char *untils[] = {oracle_layer(&own, at), oracle_layer(&own, at + 1)};
        struct daemons line;
        struct client client;
        daemons_init(&line, 3, path);
        line.extra = "workers: 2\n";
        daemons_configure_all(&line, untils);
        daemons_start_all(&line);
        client_init(&client, &own, line.all[0].port);
        client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
        client.target = 50;
        client_run(&client, 50);
        client_assert_exactly_once(&client, 50);
        client_fini(&client);
        daemons_fini(&line);
    }
    oracle_fini(&own);
    assert_int_equal(folder_remove(folder), 0);
}

static void two_clients_at_once_get_their_own_answers(void **state) {
    struct daemons line;
    struct client clients[2];
    (void)state;
    start_line(&line, 3, (const size_t[]){7, 12});
    for (int i = 0; i < 2; i++) {
        client_init(&clients[i], &oracle, line.all[0].port);
        client_connect(&clients[i], CONVOY__ROLE__ROLE_CLIENT);
        clients[i].target = 500;
    }
    assert_true(clients[0].session != clients[1].session);
    while (clients[0].answered < 250 || clients[1].answered < 250) {
        for (int i = 0; i < 2; i++) {
            client_push(&clients[i]);
            assert_true(client_read(&clients[i], 1));
        }
    }
    for (int i = 0; i < 2; i++) {
        client_run(&clients[i], 500);
        client_assert_exactly_once(&clients[i], 500);
        client_fini(&clients[i]);
    }
    daemons_fini(&line);
}

static void status_shows_every_stage_with_what_it_did(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start_line(&line, 3, (const size_t[]){7, 12});
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = 200;
    client_run(&client, 200);
    const Convoy__Status *status = client_status(&client);
    assert_int_equal(status->n_stages, 3);
    assert_int_equal(status->clients, 1);
    assert_string_equal(status->model, "fmnist_resnet.onnx");
    for (int i = 0; i < 3; i++) {
        const Convoy__StageStatus *stage = status->stages[i];
        assert_string_equal(stage->node, line.all[i].node);
        assert_string_equal(stage->state, "ready");
        assert_true(stage->frames_in >= 200);
        assert_true(stage->compute_ms > 0);
        assert_true(stage->memory_bytes > 1000000);
        assert_true(stage->weights_bytes > 0);
        assert_int_equal(stage->workers, 2);
        assert_int_equal(stage->plan.len, SHA256_SIZE);
        assert_memory_equal(stage->plan.data, status->stages[0]->plan.data, SHA256_SIZE);
    }
    assert_int_equal(status->stages[0]->first, 0);
    assert_int_equal(status->stages[0]->last, status->stages[1]->first);
    assert_int_equal(status->stages[1]->last, status->stages[2]->first);
    assert_int_equal(status->stages[2]->last, status->layers);
    client_fini(&client);
    daemons_fini(&line);
}

static void a_client_that_says_goodbye_leaves_no_session(void **state) {
    struct daemons line;
    struct client leaving, other;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Goodbye goodbye = CONVOY__GOODBYE__INIT;
    (void)state;
    start_line(&line, 1, NULL);
    client_init(&leaving, &oracle, line.all[0].port);
    client_connect(&leaving, CONVOY__ROLE__ROLE_CLIENT);
    leaving.target = 3;
    client_run(&leaving, 3);
    message.body_case = CONVOY__MESSAGE__BODY_GOODBYE;
    message.goodbye = &goodbye;
    client_send(&leaving, &message, NULL, 0);
    client_wait_closed(&leaving);
    client_init(&other, &oracle, line.all[0].port);
    client_connect(&other, CONVOY__ROLE__ROLE_CLIENT);
    for (int asked = 0; client_status(&other)->sessions != 1; asked++)
        assert_true(asked < 100000); /* until the device's next tick */
    client_fini(&leaving);
    client_fini(&other);
    daemons_fini(&line);
}

static void status_lists_a_device_that_is_away_as_unreachable(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 3, MODEL);
    line.extra = "workers: 1\nheartbeat_ms: 300\n";
    for (int i = 0; i < 3; i++)
        configure(&line, i, (const size_t[]){7, 12});
    daemons_start(&line, 0);
    daemons_start(&line, 1);
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    daemons_wait_log(&line, 0, "link to pi-b at 127.0.0.1", 1);
    const Convoy__Status *status;
    do
        status = client_status(&client);
    while (status->n_stages < 3);
    assert_string_equal(status->stages[0]->state, "waiting for pi-b");
    assert_string_equal(status->stages[1]->state, "waiting for pi-c");
    assert_string_equal(status->stages[2]->node, "pi-c");
    assert_string_equal(status->stages[2]->state, "unreachable");
    client_fini(&client);
    daemons_fini(&line);
}

static void a_client_of_a_later_device_may_only_ask_for_status(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start_line(&line, 2, (const size_t[]){7});
    client_init(&client, &oracle, line.all[1].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    assert_int_equal(client.session, 0);
    assert_int_equal(client_status(&client)->n_stages, 1);
    client_send_frame(&client, 1);
    client_wait_closed(&client);
    assert_int_equal(client.goodbye, CONVOY__CODE__CODE_NO_PIPELINE);
    client_fini(&client);
    daemons_fini(&line);
}

/* Every order in which three devices can be told. */
static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
static const size_t cuts[2][2] = {{7, 12}, {4, 15}};

/* Lets some frames through. */
static void flow_on(struct client *client, size_t frames) {
    client->target += frames;
    client_run(client, client->target - 20);
}

static void cuts_move_in_any_order_of_reloads_while_frames_flow(void **state) {
    struct daemons line;
    struct client client;
    int reloads = 0;
    (void)state;
    start_line(&line, 3, cuts[0]);
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = 20;
    flow_on(&client, 100);
    for (int order = 0; order < 6; order++) {
        for (int step = 0; step < 3; step++) {
            int i = orders[order][step];
            configure(&line, i, cuts[(order + 1) % 2]);
            daemons_signal(&line, i, SIGHUP);
            flow_on(&client, 100);
        }
        reloads++;
        for (int i = 0; i < 3; i++)
            daemons_wait_log(&line, i, "has been read", reloads);
        daemons_wait_log(&line, 0, "clients' frames go under this plan", 1 + reloads);
        flow_on(&client, 100);
    }
    client_run(&client, client.target);
    client_assert_exactly_once(&client, client.target);
    const Convoy__Status *status = client_status(&client);
    for (int i = 0; i < 3; i++) /* no frame was even refused on the way */
        assert_int_equal(status->stages[i]->frames_refused, 0);
    assert_int_equal(status->stages[0]->last, cuts[0][0] + 1);
    client_fini(&client);
    daemons_fini(&line);
}

static void a_reload_with_an_error_changes_nothing(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start_line(&line, 2, (const size_t[]){7});
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = 20;
    flow_on(&client, 50);
    daemons_configure(&line, 0, (const char *const[]){"no/such/layer"});
    daemons_signal(&line, 0, SIGHUP);
    daemons_wait_log(&line, 0, "the configuration stays as it was", 1);
    assert_true(daemons_logged(&line, 0, "no/such/layer"));
    flow_on(&client, 50);
    client_run(&client, client.target);
    client_assert_exactly_once(&client, client.target);
    client_fini(&client);
    daemons_fini(&line);
}

static void frames_wait_at_the_ingress_until_the_line_is_complete(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 3, MODEL);
    line.extra = "workers: 2\n";
    for (int i = 0; i < 3; i++)
        configure(&line, i, cuts[0]);
    daemons_start(&line, 0);
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = 50;
    client_wait_credit(&client);
    client_push(&client);
    assert_true(client_read(&client, 50));
    assert_int_equal(client.answered, 0);
    daemons_start(&line, 2);
    daemons_start(&line, 1);
    client_run(&client, 50);
    client_assert_exactly_once(&client, 50);
    client_fini(&client);
    daemons_fini(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_device_answers_as_the_undivided_model),
        cmocka_unit_test(a_line_of_three_answers_as_the_undivided_model),
        cmocka_unit_test(a_line_of_four_with_its_cuts_across_residuals_answers_the_same),
        cmocka_unit_test(results_of_a_shape_of_their_own_come_through_every_cut),
        cmocka_unit_test(two_clients_at_once_get_their_own_answers),
        cmocka_unit_test(status_shows_every_stage_with_what_it_did),
        cmocka_unit_test(a_client_that_says_goodbye_leaves_no_session),
        cmocka_unit_test(status_lists_a_device_that_is_away_as_unreachable),
        cmocka_unit_test(a_client_of_a_later_device_may_only_ask_for_status),
        cmocka_unit_test(cuts_move_in_any_order_of_reloads_while_frames_flow),
        cmocka_unit_test(a_reload_with_an_error_changes_nothing),
        cmocka_unit_test(frames_wait_at_the_ingress_until_the_line_is_complete),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
