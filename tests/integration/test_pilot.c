/* A line that plans itself: real daemons that join, leave and come back while frames flow. The
 * ingress has too little memory for the whole model, so that it needs a neighbour whatever the
 * machine's other load does to the times. */
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"
#include "tests/lib/folder.h"
#include "tests/lib/small_model.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL "models/fmnist_resnet.onnx"
#define TIGHT "memory: 1200 KiB\n" /* its weights alone are 1,180 kB */

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

struct scene {
    struct daemons line;
    const struct oracle *oracle;
    struct client client, admin;
};

/* pi-a plans; all others are its neighbours, whether they run or not. */
static void configure_ingress(struct scene *scene, const char *extra) {
    FILE *file = daemons_open_yaml(&scene->line, 0, "pi-a", extra);
    fprintf(file, "model: %s\nstate: state-pi-a\nworkers: 1\npipeline: auto\nneighbours:\n",
            scene->line.model);
    for (int i = 1; i < scene->line.count; i++)
        fprintf(file, "  - {node: %s, address: 127.0.0.1:%u}\n", scene->line.all[i].node,
                scene->line.all[i].port);
    assert_int_equal(fclose(file), 0);
}

static void configure(struct scene *scene, int count, const char *model,
                      const struct oracle *answers, const char *extra) {
    memset(scene, 0, sizeof(*scene));
    scene->oracle = answers;
    daemons_init(&scene->line, count, model);
    configure_ingress(scene, extra);
    for (int i = 1; i < count; i++)
        daemons_configure_idle(&scene->line, i, "workers: 1\nheartbeat_ms: 1000\n");
}

static void start(struct scene *scene, int count, const char *extra) {
    configure(scene, count, MODEL, &oracle, extra);
}

static void connect_clients(struct scene *scene) {
    client_init(&scene->client, scene->oracle, scene->line.all[0].port);
    client_connect(&scene->client, CONVOY__ROLE__ROLE_CLIENT);
    client_init(&scene->admin, scene->oracle, scene->line.all[0].port);
    client_connect(&scene->admin, CONVOY__ROLE__ROLE_CLIENT);
}

static void finish(struct scene *scene) {
    client_fini(&scene->client);
    client_fini(&scene->admin);
    daemons_fini(&scene->line);
}

static void run_frames(struct scene *scene, size_t count) {
    scene->client.target += count;
    client_run(&scene->client, scene->client.target);
    client_assert_exactly_once(&scene->client, scene->client.target);
}

/* Number of a device by its name. */
static int find_daemon(const struct scene *scene, const char *node) {
    for (int i = 0; i < scene->line.count; i++)
        if (strcmp(scene->line.all[i].node, node) == 0)
            return i;
    fail_msg("who is %s?", node);
    return -1;
}

/* Whether a decision says so. */
static bool has_decided(const Convoy__Status *status, const char *words) {
    for (size_t i = 0; i < status->n_decisions; i++)
        if (strstr(status->decisions[i], words))
            return true;
    return false;
}

static void model_that_fits_no_device_is_shared_by_itself(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 3, TIGHT);
    daemons_start_all(&scene.line);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);

    run_frames(&scene, 200);

    const Convoy__Status *status = client_status(&scene.admin);
    assert_true(status->n_stages >= 2);
    assert_true(has_decided(status, "measured 22 layers here"));
    assert_true(has_decided(status, "because it is the first plan"));
    for (size_t i = 0; i < status->n_stages; i++) {
        assert_true(status->stages[i]->cores > 0);
        assert_true(status->stages[i]->memory_available > 0);
    }
    finish(&scene);
}

static void device_that_dies_is_planned_around_and_may_come_back(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 3, TIGHT "heartbeat_ms: 1000\n");
    daemons_start_all(&scene.line);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);
    run_frames(&scene, 50);

    /* Whichever runs the end dies, and the other one has to do without it. */
    const Convoy__Status *status = client_status(&scene.admin);
    int dead = find_daemon(&scene, status->stages[status->n_stages - 1]->node), other = 3 - dead;
    assert_int_not_equal(dead, 0);
    daemons_kill(&scene.line, dead);
    run_frames(&scene, 200);
    status = client_status(&scene.admin);
    assert_int_equal(status->n_stages, 2);
    assert_string_equal(status->stages[1]->node, scene.line.all[other].node);
    char words[32];
    snprintf(words, sizeof(words), "%s is away", scene.line.all[dead].node);
    assert_true(has_decided(status, words));

    /* It comes back, and the other one dies. */
    daemons_start(&scene.line, dead);
    daemons_wait_log(&scene.line, dead, "connected", 1);
    daemons_kill(&scene.line, other);
    run_frames(&scene, 200);
    status = client_status(&scene.admin);
    assert_string_equal(status->stages[status->n_stages - 1]->node, scene.line.all[dead].node);
    finish(&scene);
}

static void frames_wait_until_a_neighbour_joins(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 2, TIGHT);
    daemons_start(&scene.line, 0);
    daemons_wait_log(&scene.line, 0, "no plan: the network does not fit", 1);
    daemons_start(&scene.line, 1);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);

    run_frames(&scene, 50);

    assert_int_equal(client_status(&scene.admin)->n_stages, 2);
    finish(&scene);
}

/* The second of two layers takes nearly all of the time, so that a third device helps only by
 * sharing it. */
static const char heavy[] = "input x f32 1,1,32,32\n"
                            "const w f32 4,1,1,1\n"
                            "const v f32 256,4,31,31\n"
                            "Conv light x,w,- -> a | pads=[0,0,0,0]\n"
                            "Conv heavy a,v,- -> y | pads=[0,0,0,0]\n"
                            "output y\n";

/* Frames until both neighbours run the second layer: from the first plan on, if they have answered
 * in time for it. */
static void wait_shared(struct scene *scene) {
    const char *b = scene->line.all[1].node, *c = scene->line.all[2].node;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    char one[80], other[80];
    const Convoy__Status *status;
    snprintf(one, sizeof(one), "0-0, %s + %s 1-1: ", b, c);
    snprintf(other, sizeof(other), "0-0, %s + %s 1-1: ", c, b);
    do {
        assert_true(daemons_now_ms() < until);
        run_frames(scene, 20);
        status = client_status(&scene->admin);
    } while (!has_decided(status, one) && !has_decided(status, other));
}

static void neighbours_share_the_slowest_layer(void **state) {
    char folder[] = "/tmp/convoy-test-heavy-XXXXXX", path[64];
    struct scene scene;
    struct oracle answers;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/heavy.onnx", folder);
    small_model_write(path, 13, heavy);
    oracle_init(&answers, path);
    configure(&scene, 3, path, &answers, "max_replicas: 2\n");
    daemons_start_all(&scene.line);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);
    wait_shared(&scene);

    daemons_kill(&scene.line, 2);
    run_frames(&scene, 200);

    finish(&scene);
    oracle_fini(&answers);
    assert_int_equal(folder_remove(folder), 0);
}

/* A device that cannot keep parts. */
static void configure_broken(const struct scene *scene, int i) {
    const char *node = scene->line.all[i].node;
    FILE *file = daemons_open_yaml(&scene->line, i, node, "workers: 1\nheartbeat_ms: 1000\n");
    fprintf(file, "state: %s.yaml\n", node); /* is no folder */
    assert_int_equal(fclose(file), 0);
}

/* pi-b cannot keep parts. What it refuses while pi-c is preparing is not pi-c's fault. */
static void only_the_neighbour_that_refuses_is_left_alone(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 3, TIGHT);
    configure_broken(&scene, 1);
    daemons_start_all(&scene.line);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);

    run_frames(&scene, 50);

    const Convoy__Status *status = client_status(&scene.admin);
    assert_int_equal(status->n_stages, 2);
    assert_string_equal(status->stages[1]->node, "pi-c");
    finish(&scene);
}

/* pi-b is gone for too short a time to be planned around, and cannot keep parts any more. */
static void neighbour_that_comes_back_and_refuses_its_stage_is_planned_around(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 3, TIGHT);
    daemons_start(&scene.line, 0);
    daemons_start(&scene.line, 1);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);
    run_frames(&scene, 20);

    daemons_kill(&scene.line, 1);
    configure_broken(&scene, 1);
    daemons_start(&scene.line, 1);
    daemons_start(&scene.line, 2);

    run_frames(&scene, 50);
    const Convoy__Status *status = client_status(&scene.admin);
    assert_int_equal(status->n_stages, 2);
    assert_string_equal(status->stages[1]->node, "pi-c");
    finish(&scene);
}

/* ---- a neighbour that the test plays ------------------------------------------------------------
 */

static void play_neighbour(const struct scene *scene, struct client *neighbour) {
    client_init(neighbour, scene->oracle, 0);
    neighbour->workers = 1;
    client_play(neighbour, &scene->line.all[1]);
}

/* The first Probe of a measurement other than that of token; returns its token. */
static uint64_t wait_probe(struct client *neighbour, uint64_t token) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (!neighbour->other || neighbour->other->body_case != CONVOY__MESSAGE__BODY_PROBE ||
           neighbour->other->probe->token == token) {
        assert_true(client_read(neighbour, 100));
        assert_true(daemons_now_ms() < until);
    }
    return neighbour->other->probe->token;
}

static void answer_probes(struct client *neighbour, uint64_t token, size_t count) {
    for (size_t i = 0; i < count; i++) {
        Convoy__Message message = CONVOY__MESSAGE__INIT;
        Convoy__Probed probed = CONVOY__PROBED__INIT;
        probed.token = token;
        message.body_case = CONVOY__MESSAGE__BODY_PROBED;
        message.probed = &probed;
        client_send(neighbour, &message, NULL, 0);
    }
}

static void link_is_measured_anew_when_it_breaks_meanwhile(void **state) {
    struct scene scene;
    struct client neighbour;
    (void)state;
    start(&scene, 2, TIGHT "heartbeat_ms: 60000\n");
    daemons_start(&scene.line, 0);
    play_neighbour(&scene, &neighbour);
    uint64_t token = wait_probe(&neighbour, 0);
    client_fini(&neighbour);

    play_neighbour(&scene, &neighbour);

    token = wait_probe(&neighbour, token);
    assert_false(daemons_logged(&scene.line, 0, "is being prepared"));
    answer_probes(&neighbour, token, 24);
    client_wait_other(&neighbour, CONVOY__MESSAGE__BODY_PREPARE);
    client_fini(&neighbour);
    daemons_fini(&scene.line);
}

static void what_is_measured_while_the_ingress_is_suspended_does_not_count(void **state) {
    struct scene scene;
    struct client neighbour;
    (void)state;
    start(&scene, 2, TIGHT "heartbeat_ms: 60000\n");
    daemons_start(&scene.line, 0);
    play_neighbour(&scene, &neighbour);
    uint64_t token = wait_probe(&neighbour, 0);

    daemons_signal(&scene.line, 0, SIGSTOP);
    poll(NULL, 0, 500);
    answer_probes(&neighbour, token, 24);
    daemons_signal(&scene.line, 0, SIGCONT);

    uint64_t next = wait_probe(&neighbour, token);
    assert_false(daemons_logged(&scene.line, 0, "is being prepared"));
    answer_probes(&neighbour, token, 24); /* which are late */
    answer_probes(&neighbour, next, 24);
    client_wait_other(&neighbour, CONVOY__MESSAGE__BODY_PREPARE);
    client_fini(&neighbour);
    daemons_fini(&scene.line);
}

static void device_that_is_lost_in_a_deployment_is_planned_around(void **state) {
    struct scene scene;
    struct client neighbour;
    (void)state;
    start(&scene, 3, TIGHT "heartbeat_ms: 60000\n");
    daemons_start(&scene.line, 0);
    play_neighbour(&scene, &neighbour);
    answer_probes(&neighbour, wait_probe(&neighbour, 0), 24);
    client_wait_other(&neighbour, CONVOY__MESSAGE__BODY_PREPARE);

    daemons_start(&scene.line, 2);
    client_fini(&neighbour); /* nobody is there any more, but for the socket */

    daemons_wait_log(&scene.line, 0, " for 1 s", 1); /* no connection */
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);
    run_frames(&scene, 20);
    const Convoy__Status *status = client_status(&scene.admin);
    assert_string_equal(status->stages[status->n_stages - 1]->node, "pi-c");
    finish(&scene);
}

/* Whoever wanted the plan is no more; under the sanitizers this shows that its memory went. */
static void reload_and_end_while_a_plan_is_deployed_are_clean(void **state) {
    struct scene scene;
    struct client neighbour;
    (void)state;
    start(&scene, 2, TIGHT "heartbeat_ms: 60000\n");
    daemons_start(&scene.line, 0);
    play_neighbour(&scene, &neighbour);
    answer_probes(&neighbour, wait_probe(&neighbour, 0), 24);
    client_wait_other(&neighbour, CONVOY__MESSAGE__BODY_PREPARE);

    daemons_signal(&scene.line, 0, SIGHUP);
    daemons_wait_log(&scene.line, 0, "has been read", 1);
    daemons_signal(&scene.line, 0, SIGTERM);

    assert_int_equal(daemons_wait(&scene.line, 0), 0);
    client_fini(&neighbour);
    daemons_fini(&scene.line);
}

static void alone_it_serves_alone(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 2, "");
    daemons_start(&scene.line, 0);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);

    run_frames(&scene, 50);

    assert_int_equal(client_status(&scene.admin)->n_stages, 1);
    finish(&scene);
}

static void reload_starts_anew_and_a_fixed_pipeline_ends_it(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 2, "");
    daemons_start(&scene.line, 0);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 1);
    connect_clients(&scene);
    run_frames(&scene, 20);
    daemons_signal(&scene.line, 0, SIGHUP);
    daemons_wait_log(&scene.line, 0, "because it is the first plan", 2);
    run_frames(&scene, 20);

    FILE *file = daemons_open_yaml(&scene.line, 0, "pi-a", "");
    fprintf(file, "model: %s\nworkers: 1\npipeline:\n  - {node: pi-a, address: 127.0.0.1:%u}\n",
            scene.line.model, scene.line.all[0].port);
    assert_int_equal(fclose(file), 0);
    daemons_signal(&scene.line, 0, SIGHUP);
    daemons_wait_log(&scene.line, 0, "has been read", 2);
    run_frames(&scene, 20);

    assert_int_equal(client_status(&scene.admin)->n_decisions, 0);
    finish(&scene);
}

static void stopping_in_the_middle_of_measuring_is_clean(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 2, "");
    daemons_start(&scene.line, 0);
    daemons_wait_log(&scene.line, 0, "listening on", 1);
    daemons_signal(&scene.line, 0, SIGTERM);
    assert_int_equal(daemons_wait(&scene.line, 0), 0);
    daemons_fini(&scene.line);
}

static void a_model_that_cannot_be_opened_ends_it_at_the_start(void **state) {
    struct daemons line;
    static const char *const args[] = {NULL};
    char out[4096];
    (void)state;
    daemons_init(&line, 1, MODEL);
    int code = daemons_run_once(&line,
                                "node: pi-a\nlisten: 127.0.0.1:0\nmodel: none.onnx\n"
                                "pipeline: auto\nneighbours:\n"
                                "  - {node: pi-b, address: 127.0.0.1:1}\n",
                                args, out, sizeof(out));
    assert_int_equal(code, 1);
    assert_non_null(strstr(out, "none.onnx"));
    daemons_fini(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_that_fits_no_device_is_shared_by_itself),
        cmocka_unit_test(device_that_dies_is_planned_around_and_may_come_back),
        cmocka_unit_test(frames_wait_until_a_neighbour_joins),
        cmocka_unit_test(neighbours_share_the_slowest_layer),
        cmocka_unit_test(only_the_neighbour_that_refuses_is_left_alone),
        cmocka_unit_test(neighbour_that_comes_back_and_refuses_its_stage_is_planned_around),
        cmocka_unit_test(link_is_measured_anew_when_it_breaks_meanwhile),
        cmocka_unit_test(what_is_measured_while_the_ingress_is_suspended_does_not_count),
        cmocka_unit_test(device_that_is_lost_in_a_deployment_is_planned_around),
        cmocka_unit_test(reload_and_end_while_a_plan_is_deployed_are_clean),
        cmocka_unit_test(alone_it_serves_alone),
        cmocka_unit_test(a_model_that_cannot_be_opened_ends_it_at_the_start),
        cmocka_unit_test(reload_starts_anew_and_a_fixed_pipeline_ends_it),
        cmocka_unit_test(stopping_in_the_middle_of_measuring_is_clean),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
