/* Reloads that change more than a cut: the line's ends, a device's name, the model's dimensions. */
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"
#include "tests/lib/small_model.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* The YAML of daemon i, under the given name, with a line of the first two that begins at `from`
 * and is cut after `cut`. */
static void configure_from(struct daemons *line, int i, const char *node, int from, size_t cut) {
    const struct daemon_process *first = &line->all[from], *second = &line->all[1 - from];
    FILE *file = daemons_open_yaml(line, i, node, line->extra);
    fprintf(file,
            "model: %s\npipeline:\n"
            "  - {node: %s, address: 127.0.0.1:%u, until: %s}\n"
            "  - {node: %s, address: 127.0.0.1:%u}\n",
            line->model, first->node, first->port, oracle_layer(&oracle, cut), second->node,
            second->port);
    assert_int_equal(fclose(file), 0);
}

static void connect_client(struct client *client, const struct daemons *line, int i) {
    client_init(client, &oracle, line->all[i].port);
    client_connect(client, CONVOY__ROLE__ROLE_CLIENT);
}

/* Two clients at each end, so that frames wait at both for the other. */
static void lines_in_both_directions_do_not_block_each_other(void **state) {
    enum { CLIENTS = 4, FRAMES = 300 };
    struct daemons line;
    struct client clients[CLIENTS];
    uint64_t until = 0;
    size_t open = CLIENTS, answered = 0;
    (void)state;
    daemons_init(&line, 2, MODEL);
    line.extra = "workers: 1\nqueue: 2\n";
    for (int i = 0; i < 2; i++)
        configure_from(&line, i, line.all[i].node, 0, 7);
    daemons_start_all(&line);
    for (int i = 0; i < CLIENTS; i += 2) {
        connect_client(&clients[i], &line, 0);
        clients[i].target = 50;
        client_run(&clients[i], 50);
    }
    for (int i = 0; i < 2; i++) {
        configure_from(&line, i, line.all[i].node, 1, 7);
        daemons_signal(&line, i, SIGHUP);
    }
    daemons_wait_log(&line, 1, "clients' frames go under this plan", 1);
    for (int i = 1; i < CLIENTS; i += 2)
        connect_client(&clients[i], &line, 1);
    for (int i = 0; i < CLIENTS; i++)
        clients[i].target = FRAMES;
    while (open > 0) {
        size_t sum = 0;
        open = 0;
        for (int i = 0; i < CLIENTS; i++) {
            client_push(&clients[i]);
            assert_true(client_read(&clients[i], 1));
            open += clients[i].answered < FRAMES;
            sum += clients[i].answered;
        }
        if (sum > answered)
            until = daemons_now_ms() + CLIENT_CAP_MS / 6;
        answered = sum;
        assert_true(daemons_now_ms() < until); /* it goes on */
    }
    for (int i = 0; i < CLIENTS; i++) {
        client_assert_exactly_once(&clients[i], FRAMES);
        client_fini(&clients[i]);
    }
    daemons_fini(&line);
}

static void frames_that_wait_are_refused_when_their_device_is_no_ingress_any_more(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 2, MODEL);
    line.extra = "workers: 1\n";
    configure_from(&line, 0, "pi-a", 0, 7);
    daemons_start(&line, 0); /* its neighbour is away: nothing can be answered */
    connect_client(&client, &line, 0);
    client_wait_credit(&client);
    client.target = 1;
    client_push(&client);
    while (client_status(&client)->stages[0]->queued == 0) {
    }
    for (int i = 0; i < 4; i++) { /* until the plan that begins here has to make room */
        configure_from(&line, 0, "pi-a", 1, 4 + (size_t)i);
        daemons_signal(&line, 0, SIGHUP);
        daemons_wait_log(&line, 0, "has been read", i + 1);
    }
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS / 4;
    while (client.refused == 0 && daemons_now_ms() < until)
        assert_true(client_read(&client, 100));
    assert_int_equal(client.refused, 1);
    assert_int_equal(client.refusal, CONVOY__CODE__CODE_NO_PIPELINE);
    assert_false(client.refusal_retry);
    client_fini(&client);
    daemons_fini(&line);
}

/* With room for two plans, the one that begins here goes when two others are read: what comes then
 * is no frame that is too large, but one that nobody can compute. */
static void a_frame_whose_plan_has_gone_is_refused_and_its_connection_stays(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 2, MODEL);
    line.extra = "limits: {plans: 2}\n";
    for (int i = 0; i < 2; i++) {
        configure_from(&line, i, line.all[i].node, 0, 7);
        daemons_start(&line, i);
    }
    connect_client(&client, &line, 0);
    client.target = 10;
    client_run(&client, 10);
    for (int i = 0; i < 2; i++) {
        configure_from(&line, 0, "pi-a", 1, 7 + (size_t)i);
        daemons_signal(&line, 0, SIGHUP);
        daemons_wait_log(&line, 0, "has been read", i + 1);
    }
    client.target = 11;
    client_push(&client);
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client.refused == 0) {
        assert_true(client_read(&client, 100));
        assert_true(daemons_now_ms() < until);
    }
    assert_int_equal(client.refusal, CONVOY__CODE__CODE_NO_PIPELINE);
    assert_false(client.refusal_retry);
    assert_int_equal(client_status(&client)->stages[0]->n_plans, 2);
    client_fini(&client);
    daemons_fini(&line);
}

static void write_yaml(const struct daemons *line, int i, const char *text) {
    FILE *file = fopen(line->all[i].yaml, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* As it is while somebody writes it. One that was empty from the start may stay so. */
static void an_empty_file_does_not_end_the_plan_in_use(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 3, MODEL);
    for (int i = 0; i < 2; i++)
        configure_from(&line, i, line.all[i].node, 0, 7);
    write_yaml(&line, 2, "# nothing\n");
    daemons_start_all(&line);
    connect_client(&client, &line, 0);
    client.target = 10;
    client_run(&client, 10);

    write_yaml(&line, 0, "");
    for (int i = 0; i < 3; i += 2) {
        daemons_wait_log(&line, i, "listening on", 1);
        daemons_signal(&line, i, SIGHUP);
    }
    daemons_wait_log(&line, 0, "pi-a.yaml is empty; to go on with the defaults", 1);
    daemons_wait_log(&line, 0, "the configuration stays as it was", 1);
    daemons_wait_log(&line, 2, "has been read", 1);
    client.target = 20;
    client_run(&client, 20);
    client_assert_exactly_once(&client, 20);

    write_yaml(&line, 0, "{}\n");
    daemons_signal(&line, 0, SIGHUP);
    daemons_wait_log(&line, 0, "has been read", 1);
    client_fini(&client);
    daemons_fini(&line);
}

static void a_line_serves_on_while_one_device_is_told_of_plan_after_plan(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 2, MODEL);
    line.extra = "workers: 1\n";
    for (int i = 0; i < 2; i++)
        configure_from(&line, i, line.all[i].node, 0, 7);
    daemons_start_all(&line);
    connect_client(&client, &line, 0);
    client.target = 50;
    client_run(&client, 50);
    for (int i = 0; i < 5; i++) { /* more than a device holds; the other one knows none of them */
        configure_from(&line, 0, "pi-a", 0, 8 + (size_t)i);
        daemons_signal(&line, 0, SIGHUP);
        daemons_wait_log(&line, 0, "has been read", i + 1);
    }
    client.target = 100;
    client_run(&client, 100);
    client_assert_exactly_once(&client, 100);
    client_fini(&client);
    daemons_fini(&line);
}

static void another_name_takes_effect_after_a_restart_only(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 2, MODEL);
    line.extra = "workers: 1\n";
    for (int i = 0; i < 2; i++)
        configure_from(&line, i, line.all[i].node, 0, 7);
    daemons_start_all(&line);
    daemons_wait_log(&line, 1, "held", 1);
    configure_from(&line, 1, "pi-a", 0, 7);
    daemons_signal(&line, 1, SIGHUP);
    daemons_wait_log(&line, 1, "has been read", 1);
    assert_true(daemons_logged(&line, 1, "`node:` has changed from pi-b to pi-a"));
    connect_client(&client, &line, 0);
    client.target = 50;
    client_run(&client, 50);
    client_assert_exactly_once(&client, 50);
    assert_string_equal(client_status(&client)->stages[1]->node, "pi-b");
    client_fini(&client);
    daemons_fini(&line);
}

/* The plan that the only device of a line works under. */
static void read_plan(const struct daemons *line, uint8_t plan[SHA256_SIZE]) {
    struct client client;
    connect_client(&client, line, 0);
    const Convoy__Status *status = client_status(&client);
    assert_int_equal(status->stages[0]->plan.len, SHA256_SIZE);
    memcpy(plan, status->stages[0]->plan.data, SHA256_SIZE);
    client_fini(&client);
}

static void other_dimensions_are_another_plan(void **state) {
    struct daemons line;
    uint8_t before[SHA256_SIZE], after[SHA256_SIZE];
    char path[256];
    (void)state;
    daemons_init(&line, 1, MODEL);
    snprintf(path, sizeof(path), "%s/symbolic.onnx", line.folder);
    small_model_write(path, 13, "input x f32 n,4\nRelu relu x -> y\noutput y\n");
    line.model = path;
    line.extra = "workers: 1\ndims: {n: 2}\n";
    daemons_configure(&line, 0, NULL);
    daemons_start(&line, 0);
    read_plan(&line, before);
    line.extra = "workers: 1\ndims: {n: 3}\n";
    daemons_configure(&line, 0, NULL);
    daemons_signal(&line, 0, SIGHUP);
    daemons_wait_log(&line, 0, "has been read", 1);
    read_plan(&line, after);
    assert_memory_not_equal(before, after, SHA256_SIZE);
    daemons_fini(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_in_both_directions_do_not_block_each_other),
        cmocka_unit_test(frames_that_wait_are_refused_when_their_device_is_no_ingress_any_more),
        cmocka_unit_test(a_frame_whose_plan_has_gone_is_refused_and_its_connection_stays),
        cmocka_unit_test(an_empty_file_does_not_end_the_plan_in_use),
        cmocka_unit_test(a_line_serves_on_while_one_device_is_told_of_plan_after_plan),
        cmocka_unit_test(another_name_takes_effect_after_a_restart_only),
        cmocka_unit_test(other_dimensions_are_another_plan),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
