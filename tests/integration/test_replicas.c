/* Real daemons in lines where several share a stage: results, order of events, devices that die,
 * freeze and come back, plans that change, plans that are handed out. */
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL   "models/fmnist_resnet.onnx"
#define FLOWING (DAEMONS_SLOWER > 1 ? 50 : 100) /* frames between two events */
#define MANY    (DAEMONS_SLOWER > 1 ? 100 : 500)

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

/* "0110": the second and third device are replicas of the one before each. */
static void share(struct daemons *line, const char *shares) {
    for (int i = 0; i < line->count; i++)
        line->shares[i] = shares[i] == '1';
}

static void configure_all(struct daemons *line) {
    const char *untils[] = {oracle_layer(&oracle, 7), oracle_layer(&oracle, 12),
                            oracle_layer(&oracle, 15)};
    daemons_configure_all(line, untils);
}

static bool all_ready(const Convoy__Status *status, size_t devices) {
    for (size_t i = 0; i < status->n_stages; i++) {
        const Convoy__StageStatus *stage = status->stages[i];
        if (strcmp(stage->state, "ready") != 0)
            return false;
        for (size_t k = 0; k < stage->n_links; k++)
            if (!stage->links[k]->ready)
                return false;
    }
    return status->n_stages == devices;
}

/* Until every device is ready and every link of every plan in use, and each has answered for itself
 * in time. What they said then; borrowed from client. */
static const Convoy__Status *wait_whole(struct client *client, int devices) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (!all_ready(client_status(client), (size_t)devices))
        assert_true(daemons_now_ms() < until);
    return client->status;
}

/* A line whose devices share stages as `shares` says, and a client that has had 50 answers. */
static void start(struct daemons *line, struct client *client, const char *shares,
                  const char *extra) {
    int count = (int)strlen(shares);
    daemons_init(line, count, MODEL);
    line->extra = extra;
    share(line, shares);
    configure_all(line);
    daemons_start_all(line);
    client_init(client, &oracle, line->all[0].port);
    client_connect(client, CONVOY__ROLE__ROLE_CLIENT);
    wait_whole(client, count);
    client->target = 50;
    client_run(client, 50);
}

static void finish(struct daemons *line, struct client *client) {
    client_run(client, client->target);
    client_assert_exactly_once(client, client->target);
    client_fini(client);
    daemons_fini(line);
}

/* Sends more frames, runs until some of them are answered, and leaves others in flight. */
static void keep_flowing(struct client *client) {
    client->target += FLOWING;
    client_run(client, client->target - FLOWING * 2 / 5);
    client_push(client);
}

/* Frames that have come to a device; asked until it has answered for itself in time. */
static uint64_t frames_in(struct client *client, const char *node) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (daemons_now_ms() < until) {
        const Convoy__Status *status = client_status(client);
        for (size_t i = 0; i < status->n_stages; i++)
            if (strcmp(status->stages[i]->node, node) == 0 && status->stages[i]->workers > 0)
                return status->stages[i]->frames_in;
    }
    fail_msg("no status of %s", node);
    return 0;
}

/* ---- results --------------------------------------------------------------------------------- */

static void run_line(const char *shares) {
    struct daemons line;
    struct client client;
    start(&line, &client, shares, "workers: 1\nheartbeat_ms: 20000\n");
    client.target += MANY;
    client_run(&client, client.target);
    const Convoy__Status *status = wait_whole(&client, line.count);
    for (int i = 0; i < line.count; i++) {
        const Convoy__StageStatus *stage = status->stages[i];
        assert_string_equal(stage->node, line.all[i].node); /* in the plan's order */
        assert_memory_equal(stage->plan.data, status->stages[0]->plan.data, 32);
        assert_true(stage->frames_in > 0);
        assert_int_equal(stage->frames_refused, 0);
        if (line.shares[i])
            assert_int_equal(stage->first, status->stages[i - 1]->first);
        else if (i + 1 < line.count && line.shares[i + 1]) /* each goes to one of them */
            assert_true(stage->frames_in < client.target);
        else
            assert_int_equal(stage->frames_in, client.target);
    }
    finish(&line, &client);
}

static void two_devices_share_the_last_stage(void **state) {
    (void)state;
    run_line("001");
}

static void two_devices_share_a_stage_in_the_middle(void **state) {
    (void)state;
    run_line("0010");
}

static void three_devices_share_the_last_stage(void **state) {
    (void)state;
    run_line("0011");
}

static void two_shared_stages_follow_each_other(void **state) {
    (void)state;
    run_line("00101");
}

/* ---- devices that die ------------------------------------------------------------------------ */

/* victims: which device dies in each round. */
static void kill_again_and_again(const char *shares, const int *victims, int rounds) {
    struct daemons line;
    struct client client;
    start(&line, &client, shares, "workers: 2\nheartbeat_ms: 1000\n");
    for (int round = 0; round < rounds; round++) {
        keep_flowing(&client);
        daemons_kill(&line, victims[round]);
        keep_flowing(&client); /* without it */
        daemons_start(&line, victims[round]);
        wait_whole(&client, line.count);
        uint64_t before = frames_in(&client, line.all[victims[round]].node);
        keep_flowing(&client); /* it has its share again */
        keep_flowing(&client);
        assert_true(frames_in(&client, line.all[victims[round]].node) > before);
    }
    finish(&line, &client);
}

static void a_replica_of_the_last_stage_may_die_at_any_time(void **state) {
    (void)state;
    kill_again_and_again("001", (const int[]){1, 2, 2, 1}, 4);
}

static void a_replica_in_the_middle_may_die_at_any_time(void **state) {
    (void)state;
    kill_again_and_again("0010", (const int[]){1, 2, 1, 2}, 4);
}

static void replicas_of_two_stages_may_die_at_any_time(void **state) {
    (void)state;
    kill_again_and_again("00101", (const int[]){1, 4, 3, 2}, 4);
}

static void a_device_behind_replicas_may_die_at_any_time(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "0010", "workers: 2\nheartbeat_ms: 1000\n");
    for (int round = 0; round < 3; round++) {
        keep_flowing(&client);
        daemons_kill(&line, 3);
        client_push(&client);
        daemons_start(&line, 3);
    }
    finish(&line, &client);
}

static void with_every_replica_dead_the_line_waits_and_goes_on(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "001", "workers: 2\nheartbeat_ms: 1000\n");
    keep_flowing(&client);
    daemons_kill(&line, 1);
    daemons_kill(&line, 2);
    client_push(&client);
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (strcmp(client_status(&client)->stages[0]->state, "waiting for pi-b or pi-c") != 0)
        assert_true(daemons_now_ms() < until);
    daemons_start(&line, 2);
    finish(&line, &client);
}

/* ---- devices that freeze --------------------------------------------------------------------- */

/* The others answer while nobody knows yet that it is frozen; what it has moves when that is seen;
 * when it thaws, what it still does is too late, and it takes part again. */
static void freeze(const char *shares, int victim, int rounds) {
    struct daemons line;
    struct client client;
    start(&line, &client, shares, "workers: 2\nheartbeat_ms: 700\n");
    for (int round = 1; round <= rounds; round++) {
        keep_flowing(&client);
        daemons_signal(&line, victim, SIGSTOP);
        daemons_wait_log(&line, 0, "silent for", round);
        keep_flowing(&client);
        daemons_signal(&line, victim, SIGCONT);
        keep_flowing(&client);
        client_run(&client, client.target);
        wait_whole(&client, line.count);
    }
    finish(&line, &client);
}

static void a_frozen_replica_of_the_last_stage_is_worked_around(void **state) {
    (void)state;
    freeze("001", 2, 2);
}

static void a_frozen_replica_in_the_middle_is_worked_around(void **state) {
    (void)state;
    freeze("0010", 1, 3);
}

/* With a heartbeat of a minute nobody finds out: still the other one works, for as long as the
 * client has credits; and what the frozen one has comes when it thaws. */
static void a_frozen_replica_does_not_hold_up_the_others(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "001", "workers: 1\nqueue: 4\nheartbeat_ms: 60000\n");
    client_run(&client, client.target);
    daemons_signal(&line, 1, SIGSTOP);
    size_t before = client.answered;
    client.target += 400;
    client_run(&client, before + 390); /* it was dealt 4 and a few more at most */
    assert_false(daemons_logged(&line, 0, "silent for"));
    daemons_signal(&line, 1, SIGCONT);
    finish(&line, &client);
}

/* ---- plans that change ----------------------------------------------------------------------- */

static void a_stage_is_shared_and_not_shared_again_while_frames_flow(void **state) {
    static const char *const plans[] = {"0010", "0001", "0000", "0010"};
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, plans[0], "workers: 2\nheartbeat_ms: 20000\n");
    for (int round = 1; round < 4; round++) {
        share(&line, plans[round]);
        configure_all(&line);
        for (int i = 0; i < line.count; i++) {
            daemons_signal(&line, (i + round) % line.count, SIGHUP);
            keep_flowing(&client);
        }
        daemons_wait_log(&line, 0, "clients' frames go under this plan", round + 1);
        keep_flowing(&client);
    }
    client_run(&client, client.target);
    const Convoy__Status *status = client_status(&client);
    for (size_t i = 0; i < status->n_stages; i++)
        assert_int_equal(status->stages[i]->frames_refused, 0);
    finish(&line, &client);
}

static void a_device_leaves_and_joins_a_stage_while_frames_flow(void **state) {
    const char *untils[] = {oracle_layer(&oracle, 7)};
    struct daemons line;
    struct client client;
    (void)state;
    start(&line, &client, "0011", "workers: 2\nheartbeat_ms: 20000\n");
    for (int round = 0; round < 2; round++) {
        line.count = 3; /* pi-d is not in the new plan: idle */
        for (int i = 0; i < 3; i++)
            daemons_configure(&line, i, untils);
        line.count = 4;
        for (int i = 2; i >= 0; i--) {
            daemons_signal(&line, i, SIGHUP);
            keep_flowing(&client);
        }
        daemons_wait_log(&line, 0, "clients' frames go under this plan", 2 * round + 2);
        keep_flowing(&client);
        configure_all(&line);
        for (int i = 0; i < 4; i++) {
            daemons_signal(&line, i, SIGHUP);
            keep_flowing(&client);
        }
        daemons_wait_log(&line, 0, "clients' frames go under this plan", 2 * round + 3);
        keep_flowing(&client);
    }
    finish(&line, &client);
}

/* ---- plans that are handed out --------------------------------------------------------------- */

/* `deploy: true`: only pi-a has the model and the pipeline. */
static void start_deployed(struct daemons *line, struct client *client, const char *shares) {
    int count = (int)strlen(shares);
    daemons_init(line, count, MODEL);
    line->extra = "workers: 2\nheartbeat_ms: 1000\nstate: state-pi-a\ndeploy: true\n";
    share(line, shares);
    daemons_configure(line, 0,
                      (const char *const[]){oracle_layer(&oracle, 7), oracle_layer(&oracle, 12)});
    for (int i = 1; i < count; i++)
        daemons_configure_idle(line, i, "workers: 2\nheartbeat_ms: 1000\n");
    daemons_start_all(line);
    client_init(client, &oracle, line->all[0].port);
    client_connect(client, CONVOY__ROLE__ROLE_CLIENT);
    wait_whole(client, count);
    client->target = 50;
    client_run(client, 50);
}

static void replicas_are_recruited(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start_deployed(&line, &client, "0010");
    client.target += 300;
    client_run(&client, client.target);
    const Convoy__Status *status = wait_whole(&client, line.count);
    for (size_t i = 1; i < 4; i++) {
        assert_true(status->stages[i]->plans[0]->deployed);
        assert_true(status->stages[i]->frames_in > 0);
    }
    assert_int_equal(status->stages[0]->cached_parts, 2); /* one for both replicas */
    finish(&line, &client);
}

static void recruited_replicas_may_die_and_are_prepared_again(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    start_deployed(&line, &client, "001");
    for (int round = 0; round < 4; round++) {
        int victim = 1 + round % 2;
        keep_flowing(&client);
        daemons_kill(&line, victim);
        keep_flowing(&client);
        daemons_start(&line, victim);
        wait_whole(&client, 3);
    }
    finish(&line, &client);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_devices_share_the_last_stage),
        cmocka_unit_test(two_devices_share_a_stage_in_the_middle),
        cmocka_unit_test(three_devices_share_the_last_stage),
        cmocka_unit_test(two_shared_stages_follow_each_other),
        cmocka_unit_test(a_replica_of_the_last_stage_may_die_at_any_time),
        cmocka_unit_test(a_replica_in_the_middle_may_die_at_any_time),
        cmocka_unit_test(replicas_of_two_stages_may_die_at_any_time),
        cmocka_unit_test(a_device_behind_replicas_may_die_at_any_time),
        cmocka_unit_test(with_every_replica_dead_the_line_waits_and_goes_on),
        cmocka_unit_test(a_frozen_replica_of_the_last_stage_is_worked_around),
        cmocka_unit_test(a_frozen_replica_in_the_middle_is_worked_around),
        cmocka_unit_test(a_frozen_replica_does_not_hold_up_the_others),
        cmocka_unit_test(a_stage_is_shared_and_not_shared_again_while_frames_flow),
        cmocka_unit_test(a_device_leaves_and_joins_a_stage_while_frames_flow),
        cmocka_unit_test(replicas_are_recruited),
        cmocka_unit_test(recruited_replicas_may_die_and_are_prepared_again),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
