/* Plans that are handed out: real daemons, real parts, while frames flow; and one side or the other
 * played by the test, when it misbehaves or breaks off. */
#include "base/sha256.h"
#include "plan/plan.h"
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "models/fmnist_resnet.onnx"
#define CHUNK 65536

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

/* ---- a line whose ingress hands out its plans ------------------------------------------------ */

/* pi-a has the model and a pipeline of one stage, the others have nothing. */
struct scene {
    struct daemons line;
    struct client client; /* sends frames */
    struct client admin;  /* asks for plans */
};

static void configure_ingress(struct scene *scene, const char *extra) {
    const struct daemon_process *first = &scene->line.all[0];
    FILE *file = daemons_open_yaml(&scene->line, 0, "pi-a", extra);
    fprintf(file,
            "model: %s\nstate: state-pi-a\nworkers: 2\npipeline:\n"
            "  - {node: pi-a, address: 127.0.0.1:%u}\n",
            scene->line.model, first->port);
    assert_int_equal(fclose(file), 0);
}

/* extras: further lines of YAML for each device, NULL for those that are not started. */
static void start(struct scene *scene, int count, const char *const *extras) {
    memset(scene, 0, sizeof(*scene));
    daemons_init(&scene->line, count, MODEL);
    configure_ingress(scene, extras[0]);
    for (int i = 0; i < count; i++) {
        if (i > 0 && extras[i])
            daemons_configure_idle(&scene->line, i, extras[i]);
        if (extras[i])
            daemons_start(&scene->line, i);
    }
    client_init(&scene->client, &oracle, scene->line.all[0].port);
    client_connect(&scene->client, CONVOY__ROLE__ROLE_CLIENT);
    client_init(&scene->admin, &oracle, scene->line.all[0].port);
    client_connect(&scene->admin, CONVOY__ROLE__ROLE_CLIENT);
}

static void finish(struct scene *scene) {
    client_fini(&scene->client);
    client_fini(&scene->admin);
    daemons_fini(&scene->line);
}

/* Asks for a plan of the first count devices, cut after the layers of cuts. */
static void send_apply(struct scene *scene, size_t count, const size_t *cuts) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Apply apply = CONVOY__APPLY__INIT;
    Convoy__PlanStage stages[DAEMONS_MAX], *pointers[DAEMONS_MAX];
    char addresses[DAEMONS_MAX][32];
    for (size_t i = 0; i < count; i++) {
        convoy__plan_stage__init(&stages[i]);
        snprintf(addresses[i], sizeof(addresses[i]), "127.0.0.1:%u", scene->line.all[i].port);
        stages[i].node = scene->line.all[i].node;
        stages[i].address = addresses[i];
        if (i + 1 < count)
            stages[i].until = (char *)(uintptr_t)oracle_layer(&oracle, cuts[i]);
        pointers[i] = &stages[i];
    }
    apply.token = 4711;
    apply.n_stages = count;
    apply.stages = pointers;
    message.body_case = CONVOY__MESSAGE__BODY_APPLY;
    message.apply = &apply;
    client_send(&scene->admin, &message, NULL, 0);
}

/* Frames go on flowing until the answer has come. */
static const Convoy__Applied *wait_applied(struct scene *scene) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    size_t before = scene->admin.others;
    while (scene->admin.others == before) {
        if (scene->client.next > scene->client.target)
            scene->client.target++;
        client_push(&scene->client);
        assert_true(client_read(&scene->client, 1));
        assert_true(client_read(&scene->admin, 1));
        assert_true(daemons_now_ms() < until);
    }
    assert_int_equal(scene->admin.other->body_case, CONVOY__MESSAGE__BODY_APPLIED);
    assert_int_equal(scene->admin.other->applied->token, 4711);
    return scene->admin.other->applied;
}

static const Convoy__Applied *apply(struct scene *scene, size_t count, const size_t *cuts) {
    send_apply(scene, count, cuts);
    return wait_applied(scene);
}

/* Frames up to count more, each answered once and rightly. */
static void run_frames(struct scene *scene, size_t count) {
    scene->client.target += count;
    client_run(&scene->client, scene->client.target);
    client_assert_exactly_once(&scene->client, scene->client.target);
}

static void wait_ready(struct scene *scene, size_t stages) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    for (;;) {
        const Convoy__Status *status = client_status(&scene->admin);
        bool ready = status->n_stages == stages;
        for (size_t i = 0; i < status->n_stages; i++)
            ready = ready && strcmp(status->stages[i]->state, "ready") == 0;
        if (ready)
            return;
        assert_true(daemons_now_ms() < until);
    }
}

/* What a device says of itself, asked over a connection of its own. */
static size_t count_plans(const struct scene *scene, int i) {
    struct client asker;
    client_init(&asker, &oracle, scene->line.all[i].port);
    client_connect(&asker, CONVOY__ROLE__ROLE_CLIENT);
    size_t count = client_status(&asker)->stages[0]->n_plans;
    client_fini(&asker);
    return count;
}

static void plan_id(const struct scene *scene, size_t count, const size_t *cuts,
                    uint8_t ret_id[SHA256_SIZE]) {
    struct plan_request requests[DAEMONS_MAX];
    uint8_t model_id[SHA256_SIZE];
    struct plan *plan;
    size_t layers = model_layers_count(oracle.model);
    for (size_t i = 0; i < count; i++)
        requests[i] = (struct plan_request){scene->line.all[i].node, "127.0.0.1:1",
                                            i + 1 < count ? cuts[i] : layers - 1, false};
    assert_int_equal(model_identity(oracle.model, model_id), 0);
    assert_int_equal(plan_build(model_id, layers, requests, count, &plan, NULL), 0);
    memcpy(ret_id, plan->id, SHA256_SIZE);
    plan_free(plan);
}

static void idle_devices_are_recruited_while_frames_flow(void **state) {
    static const size_t cuts[] = {7, 12};
    struct scene scene;
    uint8_t id[SHA256_SIZE];
    (void)state;
    start(&scene, 3, (const char *const[]){"", "workers: 2\n", "workers: 2\n"});
    run_frames(&scene, 20);

    const Convoy__Applied *applied = apply(&scene, 3, cuts);

    if (applied->code != CONVOY__CODE__CODE_OK)
        fail_msg("%s", applied->text);
    plan_id(&scene, 3, cuts, id); /* the same as that of a plan that comes from files */
    assert_int_equal(applied->plan.len, SHA256_SIZE);
    assert_memory_equal(applied->plan.data, id, SHA256_SIZE);
    assert_int_equal(applied->n_devices, 3);
    for (size_t i = 1; i < 3; i++) {
        assert_string_equal(applied->devices[i]->node, scene.line.all[i].node);
        assert_int_equal(applied->devices[i]->code, CONVOY__CODE__CODE_OK);
        assert_true(applied->devices[i]->part_bytes > 100000);
        assert_int_equal(applied->devices[i]->sent_bytes, applied->devices[i]->part_bytes);
    }
    run_frames(&scene, 100);
    const Convoy__Status *status = client_status(&scene.admin);
    assert_int_equal(status->n_stages, 3);
    assert_string_equal(status->model, "fmnist_resnet.onnx");
    assert_int_equal(status->layers, model_layers_count(oracle.model));
    assert_non_null(strstr(status->deployment, "is on 3 devices"));
    for (size_t i = 0; i < 3; i++) {
        const Convoy__StageStatus *stage = status->stages[i];
        assert_string_equal(stage->state, "ready");
        assert_memory_equal(stage->plan.data, id, SHA256_SIZE);
        assert_true(stage->frames_in >= 100);
        assert_true(stage->plans[0]->deployed);
        assert_true(stage->plans[0]->memory_bytes > 0);
        assert_int_equal(stage->cached_parts, i == 0 ? 2 : 1);
        assert_int_equal(stage->cache_limit, 1 << 30);
    }
    assert_string_equal(status->stages[1]->first_layer, oracle_layer(&oracle, 8));
    assert_string_equal(status->stages[2]->first_layer, oracle_layer(&oracle, 13));
    finish(&scene);
}

static void cuts_move_back_and_forth_without_sending_parts_again(void **state) {
    static const size_t cuts[][1] = {{7}, {12}};
    struct scene scene;
    (void)state;
    start(&scene, 2, (const char *const[]){"", ""});
    for (size_t round = 0; round < 6; round++) {
        const Convoy__Applied *applied = apply(&scene, 2, cuts[round % 2]);
        assert_int_equal(applied->code, CONVOY__CODE__CODE_OK);
        assert_true((applied->devices[1]->sent_bytes == 0) == (round >= 2));
        run_frames(&scene, 20);
    }
    const Convoy__Applied *applied = apply(&scene, 1, NULL); /* and all of it on one device */
    assert_int_equal(applied->code, CONVOY__CODE__CODE_OK);
    run_frames(&scene, 20);
    assert_int_equal(client_status(&scene.admin)->n_stages, 1);
    finish(&scene);
}

/* The ingress has room for four plans: the first one goes, and its devices with it. */
static void devices_of_a_plan_that_is_gone_are_released(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 3, (const char *const[]){"", "", ""});
    assert_int_equal(apply(&scene, 3, (const size_t[]){7, 12})->code, CONVOY__CODE__CODE_OK);
    assert_int_equal(count_plans(&scene, 2), 1);
    for (size_t cut = 3; cut < 7; cut++) {
        assert_int_equal(apply(&scene, 2, &cut)->code, CONVOY__CODE__CODE_OK);
        run_frames(&scene, 10);
    }
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (count_plans(&scene, 2) > 0)
        assert_true(daemons_now_ms() < until);
    assert_true(daemons_logged(&scene.line, 2, "released"));
    finish(&scene);
}

/* The last device has memory for weights only: an arena for each of 64 workers is too much. */
static void a_device_that_refuses_leaves_everything_as_it_was(void **state) {
    static const size_t cuts[] = {7, 12};
    struct scene scene;
    (void)state;
    start(&scene, 3, (const char *const[]){"", "", "memory: 1 MiB\nworkers: 64\n"});
    run_frames(&scene, 10);

    const Convoy__Applied *applied = apply(&scene, 3, cuts);

    assert_int_equal(applied->code, CONVOY__CODE__CODE_NO_MEMORY);
    assert_non_null(strstr(applied->text, "pi-c: "));
    assert_non_null(strstr(applied->text, "`memory:`"));
    assert_int_equal(applied->n_devices, 3);
    assert_int_equal(applied->devices[2]->code, CONVOY__CODE__CODE_NO_MEMORY);
    assert_non_null(strstr(applied->devices[2]->text, "the arenas"));
    run_frames(&scene, 50);
    const Convoy__Status *status = client_status(&scene.admin);
    assert_int_equal(status->n_stages, 1);
    assert_int_equal(status->stages[0]->n_plans, 1);
    assert_false(status->stages[0]->plans[0]->deployed);
    assert_non_null(strstr(status->deployment, "refused: pi-c"));
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (count_plans(&scene, 1) > 0) /* pi-b was prepared perhaps, and is told */
        assert_true(daemons_now_ms() < until);
    assert_int_equal(count_plans(&scene, 2), 0);

    assert_int_equal(apply(&scene, 2, cuts)->code, CONVOY__CODE__CODE_OK); /* those that can */
    run_frames(&scene, 20);
    finish(&scene);
}

static void a_part_that_does_not_fit_the_cache_is_refused(void **state) {
    static const size_t cuts[] = {0}; /* all but the first layer */
    struct scene scene;
    (void)state;
    start(&scene, 2, (const char *const[]){"cache: 1 MiB\n", ""});
    const Convoy__Applied *applied = apply(&scene, 2, cuts);
    assert_int_equal(applied->code, CONVOY__CODE__CODE_NO_SPACE);
    assert_non_null(strstr(applied->text, "`cache:`"));
    run_frames(&scene, 20);
    finish(&scene);
}

static void plans_that_cannot_be_are_refused(void **state) {
    static const size_t cuts[] = {12, 7};
    struct scene scene;
    (void)state;
    start(&scene, 3, (const char *const[]){"", "", ""});
    const Convoy__Applied *applied = apply(&scene, 3, cuts);
    assert_int_equal(applied->code, CONVOY__CODE__CODE_BAD_PLAN);
    assert_int_equal(applied->n_devices, 0);
    strcpy(scene.line.all[0].node, "pi-x"); /* who is not the one that is asked */
    applied = apply(&scene, 3, cuts);
    assert_int_equal(applied->code, CONVOY__CODE__CODE_BAD_PLAN);
    assert_non_null(strstr(applied->text, "pi-x"));
    strcpy(scene.line.all[0].node, "pi-a");
    strcpy(scene.line.all[1].node, "pi-y"); /* not what the device there calls itself */
    applied = apply(&scene, 2, (const size_t[]){7});
    assert_int_equal(applied->code, CONVOY__CODE__CODE_BAD_PLAN);
    assert_non_null(strstr(applied->text, "calls itself \"pi-b\""));
    run_frames(&scene, 20);
    finish(&scene);
}

static void the_plan_in_use_is_not_moved_to_another_address(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 2, (const char *const[]){"", ""});
    assert_int_equal(apply(&scene, 2, (const size_t[]){7})->code, CONVOY__CODE__CODE_OK);
    uint16_t port = scene.line.all[1].port;
    scene.line.all[1].port = 1; /* nobody listens there */
    const Convoy__Applied *applied = apply(&scene, 2, (const size_t[]){7});
    assert_int_equal(applied->code, CONVOY__CODE__CODE_BAD_PLAN);
    assert_non_null(strstr(applied->text, "in use with other addresses"));
    scene.line.all[1].port = port;
    run_frames(&scene, 20);
    finish(&scene);
}

static void a_device_without_a_model_deploys_nothing(void **state) {
    struct scene scene;
    (void)state;
    start(&scene, 2, (const char *const[]){"", ""});
    client_fini(&scene.admin);
    client_init(&scene.admin, &oracle, scene.line.all[1].port);
    client_connect(&scene.admin, CONVOY__ROLE__ROLE_CLIENT);
    assert_int_equal(apply(&scene, 2, (const size_t[]){7})->code, CONVOY__CODE__CODE_NO_PIPELINE);
    finish(&scene);
}

static void a_second_plan_has_to_wait_for_the_first(void **state) {
    static const size_t cuts[] = {7};
    struct scene scene;
    (void)state;
    start(&scene, 2, (const char *const[]){"", NULL}); /* pi-b does not answer yet */
    send_apply(&scene, 2, cuts);
    daemons_wait_log(&scene.line, 0, "wants another plan deployed", 1);
    const Convoy__Applied *applied = apply(&scene, 2, cuts);
    assert_int_equal(applied->code, CONVOY__CODE__CODE_BUSY);
    daemons_configure_idle(&scene.line, 1, "");
    daemons_start(&scene.line, 1);
    assert_int_equal(wait_applied(&scene)->code, CONVOY__CODE__CODE_OK);
    run_frames(&scene, 20);
    finish(&scene);
}

static void a_recruit_that_was_restarted_is_prepared_from_its_cache(void **state) {
    static const size_t cuts[] = {7, 12};
    struct scene scene;
    (void)state;
    start(&scene, 3, (const char *const[]){"", "", ""});
    assert_int_equal(apply(&scene, 3, cuts)->code, CONVOY__CODE__CODE_OK);
    run_frames(&scene, 20);
    for (int i = 1; i < 3; i++) {
        daemons_kill(&scene.line, i);
        daemons_start(&scene.line, i);
        run_frames(&scene, 50);
        wait_ready(&scene, 3);
        run_frames(&scene, 20);
        const Convoy__StageStatus *stage = client_status(&scene.admin)->stages[i];
        assert_true(stage->frames_out >= 20);
        assert_int_equal(stage->cached_parts, 1);
        assert_int_equal(daemons_count_log(&scene.line, i, "fetching the rest"), 1);
    }
    finish(&scene);
}

static void a_recruit_that_is_reloaded_keeps_its_plan(void **state) {
    static const size_t cuts[] = {7};
    struct scene scene;
    (void)state;
    start(&scene, 2, (const char *const[]){"", ""});
    assert_int_equal(apply(&scene, 2, cuts)->code, CONVOY__CODE__CODE_OK);
    daemons_signal(&scene.line, 1, SIGHUP);
    daemons_wait_log(&scene.line, 1, "its plan is one that it was handed", 1);
    run_frames(&scene, 50);
    assert_int_equal(count_plans(&scene, 1), 1);
    finish(&scene);
}

static void a_pipeline_with_deploy_is_handed_out_at_the_start(void **state) {
    struct daemons line;
    struct client client;
    (void)state;
    daemons_init(&line, 3, MODEL);
    line.extra = "deploy: true\nstate: state-pi-a\n";
    daemons_configure(&line, 0, (const char *const[]){"7", "12"});
    daemons_configure_idle(&line, 1, "");
    daemons_configure_idle(&line, 2, "");
    daemons_start(&line, 0);
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = 50; /* they wait for the others */
    client_wait_credit(&client);
    client_push(&client);
    daemons_start(&line, 1);
    daemons_start(&line, 2);
    client_run(&client, 50);
    client_assert_exactly_once(&client, 50);
    assert_int_equal(client_status(&client)->n_stages, 3);

    daemons_configure(&line, 0, (const char *const[]){"5", "15"}); /* a reload moves the cuts */
    daemons_signal(&line, 0, SIGHUP);
    daemons_wait_log(&line, 0, "deployed: plan", 2);
    client.target = 100;
    client_run(&client, 100);
    client_assert_exactly_once(&client, 100);
    assert_int_equal(client_status(&client)->stages[1]->first, 6);
    client_fini(&client);
    daemons_fini(&line);
}

/* A device of a fixed line that has the model needs no part. */
static void a_device_that_has_the_model_is_sent_nothing(void **state) {
    struct scene scene;
    (void)state;
    memset(&scene, 0, sizeof(scene));
    daemons_init(&scene.line, 2, MODEL);
    scene.line.extra = "state: state-of-all\n";
    daemons_configure(&scene.line, 1, (const char *const[]){"7"});
    scene.line.extra = "state: state-pi-a\n";
    daemons_configure(&scene.line, 0, (const char *const[]){"7"});
    daemons_start_all(&scene.line);
    client_init(&scene.client, &oracle, scene.line.all[0].port);
    client_connect(&scene.client, CONVOY__ROLE__ROLE_CLIENT);
    client_init(&scene.admin, &oracle, scene.line.all[0].port);
    client_connect(&scene.admin, CONVOY__ROLE__ROLE_CLIENT);
    run_frames(&scene, 20);
    const Convoy__Applied *applied = apply(&scene, 2, (const size_t[]){12});
    if (applied->code != CONVOY__CODE__CODE_OK)
        fail_msg("%s", applied->text);
    assert_int_equal(applied->devices[1]->sent_bytes, 0);
    run_frames(&scene, 50);
    assert_int_equal(client_status(&scene.admin)->stages[1]->first, 13);
    finish(&scene);
}

/* ---- a recruit whose ingress is the test ----------------------------------------------------- */

/* pi-b is real and idle; the test has a part for it. */
struct bench {
    struct daemons line;
    struct client ingress;
    char *part;
    size_t part_bytes;
    uint8_t digest[SHA256_SIZE], model_id[SHA256_SIZE];
    struct plan *plan;
};

static void make_part(struct bench *bench, size_t first, size_t last) {
    char path[256];
    struct err err = {""};
    struct stat info;
    snprintf(path, sizeof(path), "%s/part.onnx", bench->line.folder);
    if (model_write_part(oracle.model, first, last, path, &err) < 0)
        fail_msg("%s", err.text);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &info), 0);
    bench->part_bytes = (size_t)info.st_size;
    bench->part = malloc(bench->part_bytes);
    assert_non_null(bench->part);
    assert_int_equal(fread(bench->part, 1, bench->part_bytes, file), bench->part_bytes);
    fclose(file);
    assert_int_equal(sha256(bench->part, bench->part_bytes, bench->digest), 0);
}

static void set_bench(struct bench *bench, const char *extra) {
    size_t layers = model_layers_count(oracle.model);
    const struct plan_request requests[] = {{"pi-a", "127.0.0.1:1", 7, false},
                                            {"pi-b", "127.0.0.1:2", layers - 1, false}};
    memset(bench, 0, sizeof(*bench));
    daemons_init(&bench->line, 2, MODEL);
    daemons_configure_idle(&bench->line, 1, extra);
    daemons_start(&bench->line, 1);
    make_part(bench, 8, layers);
    assert_int_equal(model_identity(oracle.model, bench->model_id), 0);
    assert_int_equal(plan_build(bench->model_id, layers, requests, 2, &bench->plan, NULL), 0);
    client_init(&bench->ingress, &oracle, bench->line.all[1].port);
    client_connect(&bench->ingress, CONVOY__ROLE__ROLE_INGRESS);
    assert_true(bench->part_bytes > 4 * CHUNK);
}

static void clear_bench(struct bench *bench) {
    client_fini(&bench->ingress);
    plan_free(bench->plan);
    free(bench->part);
    daemons_fini(&bench->line);
}

/* A Prepare that may be spoilt before it is sent. */
struct prepare {
    Convoy__Message message;
    Convoy__Prepare body;
    Convoy__PlanStage stages[2], *pointers[2];
};

static void fill_prepare(const struct bench *bench, struct prepare *prepare) {
    convoy__message__init(&prepare->message);
    convoy__prepare__init(&prepare->body);
    for (size_t i = 0; i < 2; i++) {
        convoy__plan_stage__init(&prepare->stages[i]);
        prepare->stages[i].node = bench->plan->stages[i].node;
        prepare->stages[i].address = bench->plan->stages[i].address;
        prepare->stages[i].first = (uint32_t)bench->plan->stages[i].first;
        prepare->stages[i].last = (uint32_t)bench->plan->stages[i].last;
        prepare->pointers[i] = &prepare->stages[i];
    }
    prepare->body.plan = (ProtobufCBinaryData){SHA256_SIZE, bench->plan->id};
    prepare->body.model = (ProtobufCBinaryData){SHA256_SIZE, bench->plan->model_id};
    prepare->body.n_stages = 2;
    prepare->body.stages = prepare->pointers;
    prepare->body.part = (ProtobufCBinaryData){SHA256_SIZE, (uint8_t *)(uintptr_t)bench->digest};
    prepare->body.part_bytes = bench->part_bytes;
    prepare->body.result_bytes = 40;
    prepare->body.model_name = (char *)(uintptr_t) "test.onnx";
    prepare->message.body_case = CONVOY__MESSAGE__BODY_PREPARE;
    prepare->message.prepare = &prepare->body;
}

static void send_prepare(struct bench *bench) {
    struct prepare prepare;
    fill_prepare(bench, &prepare);
    client_send(&bench->ingress, &prepare.message, NULL, 0);
}

/* What the device asks for next. */
static const Convoy__PartRequest *wait_request(struct bench *bench) {
    const Convoy__PartRequest *request =
        client_wait_other(&bench->ingress, CONVOY__MESSAGE__BODY_PART_REQUEST)->part_request;
    assert_memory_equal(request->part.data, bench->digest, SHA256_SIZE);
    assert_in_range(request->bytes, 1, CHUNK);
    assert_true(request->offset + request->bytes <= bench->part_bytes);
    return request;
}

static void fill_chunk(const struct bench *bench, Convoy__Message *message,
                       Convoy__PartChunk *chunk, uint64_t offset) {
    convoy__message__init(message);
    convoy__part_chunk__init(chunk);
    chunk->part = (ProtobufCBinaryData){SHA256_SIZE, (uint8_t *)(uintptr_t)bench->digest};
    chunk->offset = offset;
    message->body_case = CONVOY__MESSAGE__BODY_PART_CHUNK;
    message->part_chunk = chunk;
}

static void send_chunk(struct bench *bench, uint64_t offset, size_t bytes) {
    Convoy__Message message;
    Convoy__PartChunk chunk;
    fill_chunk(bench, &message, &chunk, offset);
    client_send(&bench->ingress, &message, bench->part + offset, bytes);
}

static const Convoy__Prepared *wait_prepared(struct bench *bench) {
    const Convoy__Prepared *prepared =
        client_wait_other(&bench->ingress, CONVOY__MESSAGE__BODY_PREPARED)->prepared;
    assert_string_equal(prepared->node, "pi-b");
    return prepared;
}

/* Serves the part until Prepared comes. */
static const Convoy__Prepared *serve(struct bench *bench) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    size_t seen = bench->ingress.others;
    for (;;) {
        assert_true(client_read(&bench->ingress, 20));
        assert_true(daemons_now_ms() < until);
        if (bench->ingress.others == seen)
            continue;
        seen = bench->ingress.others;
        const Convoy__Message *other = bench->ingress.other;
        if (other->body_case == CONVOY__MESSAGE__BODY_PREPARED)
            return other->prepared;
        assert_int_equal(other->body_case, CONVOY__MESSAGE__BODY_PART_REQUEST);
        send_chunk(bench, other->part_request->offset, other->part_request->bytes);
    }
}

static void connect_again(struct bench *bench) {
    client_close(&bench->ingress);
    client_connect(&bench->ingress, CONVOY__ROLE__ROLE_INGRESS);
}

static void a_transfer_goes_on_after_kill_and_restart(void **state) {
    struct bench bench;
    (void)state;
    set_bench(&bench, "");
    send_prepare(&bench);
    for (uint64_t i = 0; i < 3; i++) {
        const Convoy__PartRequest *request = wait_request(&bench);
        assert_int_equal(request->offset, i * CHUNK);
        send_chunk(&bench, request->offset, request->bytes);
    }
    wait_request(&bench); /* so the third is on disk */
    daemons_kill(&bench.line, 1);
    daemons_start(&bench.line, 1);
    connect_again(&bench);

    send_prepare(&bench);

    assert_int_equal(wait_request(&bench)->offset, 3 * CHUNK);
    send_chunk(&bench, 3 * CHUNK, CHUNK);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    clear_bench(&bench);
}

static void a_transfer_goes_on_after_a_broken_connection(void **state) {
    struct bench bench;
    (void)state;
    set_bench(&bench, "");
    for (uint64_t i = 0; i < 4; i++) {
        send_prepare(&bench);
        assert_int_equal(wait_request(&bench)->offset, i * CHUNK);
        send_chunk(&bench, i * CHUNK, CHUNK);
        wait_request(&bench);
        connect_again(&bench);
    }
    send_prepare(&bench);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    connect_again(&bench);
    send_prepare(&bench); /* held: no request, the answer at once */
    assert_int_equal(wait_prepared(&bench)->code, CONVOY__CODE__CODE_OK);
    clear_bench(&bench);
}

static void messages_may_come_byte_by_byte(void **state) {
    struct bench bench;
    struct prepare prepare;
    uint8_t *data;
    size_t size;
    (void)state;
    set_bench(&bench, "");
    fill_prepare(&bench, &prepare);
    assert_int_equal(message_pack(&prepare.message, 0, &data, &size), 0);
    for (size_t i = 0; i < size; i++)
        client_send_raw(&bench.ingress, data + i, 1);
    free(data);
    assert_int_equal(wait_request(&bench)->offset, 0);
    Convoy__Message message;
    Convoy__PartChunk chunk;
    fill_chunk(&bench, &message, &chunk, 0);
    assert_int_equal(message_pack(&message, CHUNK, &data, &size), 0);
    for (size_t i = 0; i < size; i++)
        client_send_raw(&bench.ingress, data + i, 1);
    free(data);
    for (size_t i = 0; i < CHUNK; i += i < 500 ? 1 : 997) {
        size_t step = i < 500 ? 1 : 997;
        client_send_raw(&bench.ingress, bench.part + i, CHUNK - i < step ? CHUNK - i : step);
    }
    assert_int_equal(wait_request(&bench)->offset, CHUNK);
    send_chunk(&bench, CHUNK, CHUNK);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    clear_bench(&bench);
}

static void a_part_that_is_not_what_it_should_be_is_refused_and_asked_for_anew(void **state) {
    struct bench bench;
    (void)state;
    set_bench(&bench, "");
    bench.part[bench.part_bytes / 2] ^= 1;
    send_prepare(&bench);
    const Convoy__Prepared *prepared = serve(&bench);
    assert_int_equal(prepared->code, CONVOY__CODE__CODE_BAD_PART);
    assert_non_null(strstr(prepared->text, "SHA-256"));
    bench.part[bench.part_bytes / 2] ^= 1;
    send_prepare(&bench);
    assert_int_equal(wait_request(&bench)->offset, 0);
    send_chunk(&bench, 0, CHUNK);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    clear_bench(&bench);
}

/* The digest is right, but it is no network, or one of another stage. */
static void a_part_that_is_no_stage_of_the_plan_is_refused(void **state) {
    struct bench bench;
    (void)state;
    set_bench(&bench, "");
    free(bench.part);
    make_part(&bench, 9, model_layers_count(oracle.model));
    send_prepare(&bench);
    const Convoy__Prepared *prepared = serve(&bench);
    assert_int_equal(prepared->code, CONVOY__CODE__CODE_BAD_PART);
    assert_non_null(strstr(prepared->text, "layers"));
    memset(bench.part, 'x', bench.part_bytes);
    assert_int_equal(sha256(bench.part, bench.part_bytes, bench.digest), 0);
    send_prepare(&bench);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_BAD_PART);
    clear_bench(&bench);
}

static void a_part_beyond_the_limits_is_refused_before_it_is_sent(void **state) {
    static const struct {
        const char *extra;
        uint64_t bytes;
        Convoy__Code code;
        const char *text;
    } cases[] = {
        {"cache: 1 MiB\n", (1 << 20) + 1, CONVOY__CODE__CODE_NO_SPACE, "`cache:`"},
        {"memory: 1 MiB\n", (1 << 20) + 1, CONVOY__CODE__CODE_NO_MEMORY, "`memory:`"},
        {"cache: 1024 GiB\n", UINT64_C(1) << 50, CONVOY__CODE__CODE_NO_MEMORY, "memory left"},
        {"", UINT64_MAX, CONVOY__CODE__CODE_NO_MEMORY, "memory left"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench bench;
        struct prepare prepare;
        set_bench(&bench, cases[i].extra);
        fill_prepare(&bench, &prepare);
        prepare.body.part_bytes = cases[i].bytes;
        client_send(&bench.ingress, &prepare.message, NULL, 0);
        const Convoy__Prepared *prepared = wait_prepared(&bench);
        assert_int_equal(prepared->code, cases[i].code);
        assert_non_null(strstr(prepared->text, cases[i].text));
        clear_bench(&bench);
    }
}

/* A file system of its own for what pi-b keeps: only root can make one. */
static void a_part_for_which_the_disk_has_no_room_is_refused_until_it_has(void **state) {
    struct bench bench;
    char path[256];
    (void)state;
    set_bench(&bench, "");
    snprintf(path, sizeof(path), "%s/state-pi-b", bench.line.folder);
    mkdir(path, 0700);
    if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "size=4096k") < 0) {
        clear_bench(&bench);
        skip();
    }
    send_prepare(&bench);
    const Convoy__Prepared *prepared = wait_prepared(&bench);
    Convoy__Code refused = prepared->code;
    bool is_named = strstr(prepared->text, "do not fit the disk") != NULL;
    int grown = mount("tmpfs", path, "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV, "size=8192k");
    send_prepare(&bench);
    Convoy__Code accepted = serve(&bench)->code;
    daemons_kill(&bench.line, 1);
    umount2(path, MNT_DETACH);
    assert_int_equal(refused, CONVOY__CODE__CODE_NO_SPACE);
    assert_true(is_named);
    assert_int_equal(grown, 0);
    assert_int_equal(accepted, CONVOY__CODE__CODE_OK);
    clear_bench(&bench);
}

static void a_plan_that_contradicts_itself_is_refused(void **state) {
    struct bench bench;
    struct prepare good;
    (void)state;
    set_bench(&bench, "");
    fill_prepare(&bench, &good);
    for (int i = 0; i < 9; i++) {
        struct prepare bad = good;
        uint8_t id[SHA256_SIZE];
        memcpy(id, bench.plan->id, SHA256_SIZE);
        bad.message.prepare = &bad.body;
        bad.body.stages = bad.pointers;
        bad.pointers[0] = &bad.stages[0];
        bad.pointers[1] = &bad.stages[1];
        if (i == 0)
            id[7] ^= 1;
        bad.body.plan.data = id;
        if (i == 1)
            bad.body.plan.len = 31;
        if (i == 2)
            bad.body.part.len = 0;
        if (i == 3)
            bad.body.n_stages = 1;
        if (i == 4)
            bad.stages[1].first++;
        if (i == 5)
            bad.stages[1].last = 0;
        if (i == 6)
            bad.stages[1].node = (char *)(uintptr_t) "";
        if (i == 7)
            bad.stages[1].address = (char *)(uintptr_t) "nowhere";
        if (i == 8)
            bad.stages[0].first = UINT32_MAX;
        client_send(&bench.ingress, &bad.message, NULL, 0);
        const Convoy__Prepared *prepared = wait_prepared(&bench);
        assert_int_equal(prepared->code, CONVOY__CODE__CODE_BAD_PLAN);
        assert_true(strlen(prepared->text) > 10);
    }
    send_prepare(&bench); /* the device is none the worse for it */
    assert_int_equal(wait_request(&bench)->offset, 0);
    send_chunk(&bench, 0, CHUNK);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    clear_bench(&bench);
}

static void a_piece_that_was_not_asked_for_ends_the_connection(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) {
        struct bench bench;
        set_bench(&bench, "");
        if (i > 0) {
            send_prepare(&bench);
            wait_request(&bench);
        }
        if (i == 3)
            bench.digest[0] ^= 1;
        send_chunk(&bench, i == 1 ? CHUNK : 0, i == 2 ? CHUNK - 1 : CHUNK);
        if (i == 4) /* the same once more */
            send_chunk(&bench, 0, CHUNK);
        if (i == 5) { /* one that is larger than any may be */
            Convoy__Message message;
            Convoy__PartChunk chunk;
            uint8_t *data;
            size_t size;
            wait_request(&bench);
            fill_chunk(&bench, &message, &chunk, CHUNK);
            assert_int_equal(message_pack(&message, 1 << 30, &data, &size), 0);
            client_send_raw(&bench.ingress, data, size);
            free(data);
        }
        client_wait_closed(&bench.ingress);
        assert_int_equal(bench.ingress.goodbye,
                         i == 5 ? CONVOY__CODE__CODE_TOO_LARGE : CONVOY__CODE__CODE_MALFORMED);
        clear_bench(&bench);
    }
}

static void only_an_ingress_may_hand_out_plans(void **state) {
    static const Convoy__Role roles[] = {CONVOY__ROLE__ROLE_CLIENT, CONVOY__ROLE__ROLE_UPSTREAM};
    struct bench bench;
    (void)state;
    set_bench(&bench, "");
    for (size_t i = 0; i < 2; i++) {
        client_close(&bench.ingress);
        client_connect(&bench.ingress, roles[i]);
        send_prepare(&bench);
        client_wait_closed(&bench.ingress);
        assert_int_equal(bench.ingress.goodbye, CONVOY__CODE__CODE_MALFORMED);
    }
    clear_bench(&bench);
}

/* ---- measuring ------------------------------------------------------------------------------- */

static void send_measure(struct bench *bench, uint64_t token, double seconds) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Measure measure = CONVOY__MEASURE__INIT;
    measure.token = token;
    measure.model = (ProtobufCBinaryData){SHA256_SIZE, bench->model_id};
    measure.part = (ProtobufCBinaryData){SHA256_SIZE, bench->digest};
    measure.part_bytes = bench->part_bytes;
    measure.model_name = (char *)(uintptr_t) "test.onnx";
    measure.seconds = seconds;
    message.body_case = CONVOY__MESSAGE__BODY_MEASURE;
    message.measure = &measure;
    client_send(&bench->ingress, &message, NULL, 0);
}

static const Convoy__Measured *wait_measured(struct bench *bench, uint64_t token) {
    const Convoy__Measured *measured =
        client_wait_other(&bench->ingress, CONVOY__MESSAGE__BODY_MEASURED)->measured;
    assert_int_equal(measured->token, token);
    return measured;
}

/* Sends the whole part, piece by piece as it is asked for. */
static void send_part(struct bench *bench) {
    for (uint64_t offset = 0; offset < bench->part_bytes;) {
        const Convoy__PartRequest *request = wait_request(bench);
        assert_int_equal(request->offset, offset);
        offset += request->bytes;
        send_chunk(bench, request->offset, request->bytes);
    }
}

static void a_device_measures_a_model_that_it_is_sent(void **state) {
    struct bench bench;
    (void)state;
    set_bench(&bench, "workers: 2\n");
    send_measure(&bench, 77, 0);
    send_part(&bench);
    const Convoy__Measured *measured = wait_measured(&bench, 77);
    if (measured->code != CONVOY__CODE__CODE_OK)
        fail_msg("%s", measured->text);
    assert_int_equal(measured->n_layer_us, model_layers_count(oracle.model) - 8);
    for (size_t i = 0; i < measured->n_layer_us; i++)
        assert_true(measured->layer_us[i] > 0);
    assert_true(measured->frames >= 10); /* 5 of each worker at least */

    send_measure(&bench, 78, 0); /* the part is in its cache now */
    assert_int_equal(wait_measured(&bench, 78)->code, CONVOY__CODE__CODE_OK);
    clear_bench(&bench);
}

static void a_model_that_is_none_is_not_measured(void **state) {
    struct bench bench;
    (void)state;
    set_bench(&bench, "");
    memset(bench.part, 7, bench.part_bytes);
    assert_int_equal(sha256(bench.part, bench.part_bytes, bench.digest), 0);
    send_measure(&bench, 1, 0);
    send_part(&bench);
    const Convoy__Measured *measured = wait_measured(&bench, 1);
    assert_int_not_equal(measured->code, CONVOY__CODE__CODE_OK);
    assert_true(measured->text[0] != '\0');
    assert_int_equal(measured->n_layer_us, 0);
    clear_bench(&bench);
}

static void a_plan_does_not_wait_for_a_measurement(void **state) {
    struct bench bench;
    struct client ingress;
    struct prepare prepare;
    (void)state;
    set_bench(&bench, "workers: 1\n");
    send_measure(&bench, 5, 60);
    send_part(&bench);
    client_init(&ingress, &oracle, bench.line.all[1].port);
    client_connect(&ingress, CONVOY__ROLE__ROLE_INGRESS);
    fill_prepare(&bench, &prepare);
    client_send(&ingress, &prepare.message, NULL, 0);
    assert_int_equal(wait_measured(&bench, 5)->code, CONVOY__CODE__CODE_BUSY);
    assert_int_equal(client_wait_other(&ingress, CONVOY__MESSAGE__BODY_PREPARED)->prepared->code,
                     CONVOY__CODE__CODE_OK);
    client_fini(&ingress);
    clear_bench(&bench);
}

static void probes_are_answered_one_by_one(void **state) {
    static const uint8_t zeros[CHUNK];
    struct bench bench;
    uint64_t cpu_us = 0;
    (void)state;
    set_bench(&bench, "");
    for (uint64_t i = 0; i < 5; i++) {
        Convoy__Message message = CONVOY__MESSAGE__INIT;
        Convoy__Probe probe = CONVOY__PROBE__INIT;
        probe.token = i;
        message.body_case = CONVOY__MESSAGE__BODY_PROBE;
        message.probe = &probe;
        client_send(&bench.ingress, &message, zeros, i % 2 ? CHUNK : 0);
        const Convoy__Probed *probed =
            client_wait_other(&bench.ingress, CONVOY__MESSAGE__BODY_PROBED)->probed;
        assert_int_equal(probed->token, i);
        assert_true(probed->cpu_us >= cpu_us);
        cpu_us = probed->cpu_us;
    }
    clear_bench(&bench);
}

/* ---- several ingresses ----------------------------------------------------------------------- */

static void a_second_ingress_has_to_wait_for_the_first(void **state) {
    struct bench bench;
    struct client first;
    (void)state;
    set_bench(&bench, "");
    send_prepare(&bench);
    wait_request(&bench);
    first = bench.ingress;
    client_init(&bench.ingress, &oracle, bench.line.all[1].port);
    client_connect(&bench.ingress, CONVOY__ROLE__ROLE_INGRESS);
    send_prepare(&bench);
    assert_int_equal(wait_prepared(&bench)->code, CONVOY__CODE__CODE_BUSY);
    client_fini(&first); /* it goes away: the second one's turn */
    daemons_wait_log(&bench.line, 1, "is gone", 1);
    send_prepare(&bench);
    assert_int_equal(wait_request(&bench)->offset, 0);
    send_chunk(&bench, 0, CHUNK);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    clear_bench(&bench);
}

static void a_plan_is_released_when_it_is_prepared_or_being_so(void **state) {
    struct bench bench;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Release release = CONVOY__RELEASE__INIT;
    (void)state;
    set_bench(&bench, "");
    release.plan = (ProtobufCBinaryData){SHA256_SIZE, bench.plan->id};
    message.body_case = CONVOY__MESSAGE__BODY_RELEASE;
    message.release = &release;
    client_send(&bench.ingress, &message, NULL, 0); /* of which it knows nothing */
    send_prepare(&bench);
    wait_request(&bench);
    client_send(&bench.ingress, &message, NULL, 0);
    send_prepare(&bench);
    assert_int_equal(wait_request(&bench)->offset, 0);
    send_chunk(&bench, 0, CHUNK);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    assert_int_equal(client_status(&bench.ingress)->stages[0]->n_plans, 1);
    client_send(&bench.ingress, &message, NULL, 0);
    assert_int_equal(client_status(&bench.ingress)->stages[0]->n_plans, 0);
    assert_string_equal(bench.ingress.status->stages[0]->state, "idle");
    assert_int_equal(bench.ingress.status->stages[0]->cached_parts, 1);
    clear_bench(&bench);
}

/* It was asked for under a plan that was taken back meanwhile, or that is asked for anew. */
static void a_piece_that_is_on_its_way_when_plans_change_is_thrown_away(void **state) {
    struct bench bench;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Release release = CONVOY__RELEASE__INIT;
    (void)state;
    set_bench(&bench, "");
    release.plan = (ProtobufCBinaryData){SHA256_SIZE, bench.plan->id};
    message.body_case = CONVOY__MESSAGE__BODY_RELEASE;
    message.release = &release;
    send_prepare(&bench);
    wait_request(&bench);
    client_send(&bench.ingress, &message, NULL, 0);
    send_chunk(&bench, 0, CHUNK);
    client_status(&bench.ingress); /* the connection has not ended */
    send_prepare(&bench);
    assert_int_equal(wait_request(&bench)->offset, 0);
    client_send(&bench.ingress, &message, NULL, 0);
    send_prepare(&bench);
    send_chunk(&bench, 0, CHUNK); /* for the request before, or that which follows */
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    assert_false(bench.ingress.closed);
    clear_bench(&bench);
}

/* What a device with one worker needs for layers [first, last). */
static uint64_t measure_stage(size_t first, size_t last) {
    struct stage *stage;
    assert_int_equal(stage_new(oracle.model, first, last, NULL, &stage, NULL), 0);
    uint64_t bytes = stage_weight_bytes(stage) + stage_arena_bytes(stage);
    stage_unref(stage);
    return bytes;
}

/* There is memory for one stage at a time. */
static void a_plan_whose_ingress_has_gone_makes_room_for_another(void **state) {
    struct bench bench;
    struct client first;
    size_t layers = model_layers_count(oracle.model);
    const struct plan_request requests[] = {{"pi-x", "127.0.0.1:1", 7, false},
                                            {"pi-b", "127.0.0.1:2", layers - 1, false}};
    uint64_t bytes = measure_stage(8, layers);
    char extra[64];
    (void)state;
    snprintf(extra, sizeof(extra), "workers: 1\nmemory: %llu\n",
             (unsigned long long)(bytes + bytes / 2));
    set_bench(&bench, extra);
    send_prepare(&bench);
    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    plan_free(bench.plan); /* the same stage in another line */
    assert_int_equal(plan_build(bench.model_id, layers, requests, 2, &bench.plan, NULL), 0);
    first = bench.ingress;
    client_init(&bench.ingress, &oracle, bench.line.all[1].port);
    client_connect(&bench.ingress, CONVOY__ROLE__ROLE_INGRESS);
    send_prepare(&bench);
    const Convoy__Prepared *prepared = serve(&bench);
    assert_int_equal(prepared->code, CONVOY__CODE__CODE_NO_MEMORY);
    assert_non_null(strstr(prepared->text, "`memory:`"));

    client_fini(&first);
    daemons_wait_log(&bench.line, 1, "is gone", 1);
    send_prepare(&bench);

    assert_int_equal(serve(&bench)->code, CONVOY__CODE__CODE_OK);
    const Convoy__StageStatus *stage = client_status(&bench.ingress)->stages[0];
    assert_int_equal(stage->n_plans, 1);
    assert_memory_equal(stage->plans[0]->plan.data, bench.plan->id, SHA256_SIZE);
    assert_int_equal(stage->plans[0]->memory_bytes, bytes);
    clear_bench(&bench);
}

/* ---- an ingress whose recruit is the test ---------------------------------------------------- */

/* pi-a is real, device i is the test. */
static void play_device(const struct scene *scene, int i, struct client *recruit) {
    client_init(recruit, &oracle, 0);
    client_play(recruit, &scene->line.all[i]);
}

static void play_recruit(const struct scene *scene, struct client *recruit) {
    play_device(scene, 1, recruit);
}

/* The same request, times times, in one go. */
static void send_requests(struct client *recruit, const Convoy__Prepare *prepare, uint64_t offset,
                          uint32_t bytes, int times) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__PartRequest request = CONVOY__PART_REQUEST__INIT;
    uint8_t data[1024];
    size_t size, used = 0;
    request.part = prepare->part;
    request.offset = offset;
    request.bytes = bytes;
    message.body_case = CONVOY__MESSAGE__BODY_PART_REQUEST;
    message.part_request = &request;
    for (int i = 0; i < times; i++) {
        assert_int_equal(message_pack_into(&message, 0, data + used, sizeof(data) - used, &size),
                         0);
        used += size;
    }
    client_send_raw(recruit, data, used);
}

static void refuse_plan(struct client *recruit, uint8_t id[SHA256_SIZE], Convoy__Code code,
                        const char *text) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Prepared prepared = CONVOY__PREPARED__INIT;
    prepared.plan = (ProtobufCBinaryData){SHA256_SIZE, id};
    prepared.code = code;
    prepared.text = (char *)(uintptr_t)text;
    prepared.node = (char *)(uintptr_t) "pi-b";
    message.body_case = CONVOY__MESSAGE__BODY_PREPARED;
    message.prepared = &prepared;
    client_send(recruit, &message, NULL, 0);
}

/* Refuses the plan of the Prepare that came last. */
static void send_no(struct client *recruit, Convoy__Code code, const char *text) {
    refuse_plan(recruit, recruit->other->prepare->plan.data, code, text);
}

static void what_a_device_says_no_with_travels_to_who_asked(void **state) {
    struct scene scene;
    struct client recruit;
    static char endless[1002];
    (void)state;
    for (size_t i = 0; i < 500; i++) /* more than is kept, of characters of two bytes */
        memcpy(endless + 2 * i, "\xc3\xa9", 3);
    start(&scene, 2, (const char *const[]){"", NULL});
    for (int i = 0; i < 3; i++) {
        send_apply(&scene, 2, (const size_t[]){7});
        play_recruit(&scene, &recruit);
        client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PREPARE);
        send_no(&recruit, CONVOY__CODE__CODE_NOT_SUPPORTED, endless + 2 * i);
        const Convoy__Applied *answer = wait_applied(&scene);
        assert_int_equal(answer->code, CONVOY__CODE__CODE_NOT_SUPPORTED);
        assert_memory_equal(answer->devices[1]->text, "\xc3\xa9", 2);
        assert_int_equal(client_status(&scene.admin)->n_stages, 1);
        client_fini(&recruit);
    }
    send_apply(&scene, 2, (const size_t[]){7});
    play_recruit(&scene, &recruit);
    const Convoy__Prepare *prepare =
        client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PREPARE)->prepare;
    assert_int_equal(prepare->n_stages, 2);
    assert_string_equal(prepare->model_name, "fmnist_resnet.onnx");
    send_no(&recruit, CONVOY__CODE__CODE_NOT_SUPPORTED, "no such operator here");
    const Convoy__Applied *applied = wait_applied(&scene);
    assert_int_equal(applied->code, CONVOY__CODE__CODE_NOT_SUPPORTED);
    assert_string_equal(applied->devices[1]->text, "no such operator here");
    client_wait_closed(&recruit);
    assert_int_equal(recruit.other->body_case, CONVOY__MESSAGE__BODY_RELEASE);
    run_frames(&scene, 20);
    client_fini(&recruit);
    finish(&scene);
}

/* A Prepare that is kept: client->other goes with the next message. */
static void wait_prepare(struct client *recruit, Convoy__Prepare *ret_prepare,
                         uint8_t ret_part[SHA256_SIZE]) {
    *ret_prepare = *client_wait_other(recruit, CONVOY__MESSAGE__BODY_PREPARE)->prepare;
    memcpy(ret_part, ret_prepare->part.data, SHA256_SIZE);
    ret_prepare->part.data = ret_part;
}

/* pi-b and pi-c lose the plan that is in use. While they are sent it again, it is deployed once
 * more, and pi-b refuses: what pi-c has asked for by then still comes. While frames flow, that
 * waits for pi-b, which is sent a piece first and asks for no other. */
static void a_refused_plan_ends_everywhere(void **state) {
    static const size_t cuts[] = {7, 12};
    struct scene scene;
    struct client recruits[2];
    Convoy__Prepare prepare[2];
    uint8_t parts[2][SHA256_SIZE], id[SHA256_SIZE];
    (void)state;
    start(&scene, 3, (const char *const[]){"heartbeat_ms: 60000\n", "", ""});
    assert_int_equal(apply(&scene, 3, cuts)->code, CONVOY__CODE__CODE_OK);
    run_frames(&scene, 20);
    for (int i = 1; i < 3; i++)
        daemons_kill(&scene.line, i);
    for (int i = 0; i < 2; i++) {
        play_device(&scene, i + 1, &recruits[i]);
        wait_prepare(&recruits[i], &prepare[i], parts[i]);
    }
    plan_id(&scene, 3, cuts, id);

    send_apply(&scene, 3, cuts);
    for (int i = 0; i < 2; i++)
        client_wait_other(&recruits[i], CONVOY__MESSAGE__BODY_PREPARE);
    scene.client.target += 100;
    client_push(&scene.client);
    send_requests(&recruits[0], &prepare[0], 0, CHUNK, 1);
    client_wait_other(&recruits[0], CONVOY__MESSAGE__BODY_PART_CHUNK);
    client_read(&scene.client, 0);
    client_push(&scene.client);
    send_requests(&recruits[1], &prepare[1], 0, CHUNK, 1);
    client_status(&scene.admin); /* so that has been read before this: */
    refuse_plan(&recruits[0], id, CONVOY__CODE__CODE_NO_MEMORY, "not again");

    assert_int_equal(wait_applied(&scene)->code, CONVOY__CODE__CODE_NO_MEMORY);
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (recruits[1].chunks == 0) {
        assert_true(client_read(&recruits[1], 20));
        assert_true(daemons_now_ms() < until);
    }
    run_frames(&scene, 20);
    for (int i = 0; i < 2; i++)
        client_fini(&recruits[i]);
    finish(&scene);
}

/* pi-b is preparing the plan in use when it is told of another, and refuses that. */
static void a_device_that_refuses_a_plan_is_asked_for_the_one_in_use_again(void **state) {
    struct scene scene;
    struct client recruit;
    Convoy__Prepare first, again;
    uint8_t part[SHA256_SIZE], part_again[SHA256_SIZE];
    (void)state;
    start(&scene, 2, (const char *const[]){"heartbeat_ms: 60000\n", ""});
    assert_int_equal(apply(&scene, 2, (const size_t[]){7})->code, CONVOY__CODE__CODE_OK);
    daemons_kill(&scene.line, 1);
    play_recruit(&scene, &recruit);
    wait_prepare(&recruit, &first, part);

    send_apply(&scene, 2, (const size_t[]){12});
    client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PREPARE);
    send_no(&recruit, CONVOY__CODE__CODE_NO_MEMORY, "not that one");
    wait_prepare(&recruit, &again, part_again);

    assert_memory_equal(part_again, part, SHA256_SIZE);
    assert_int_equal(wait_applied(&scene)->code, CONVOY__CODE__CODE_NO_MEMORY);
    client_fini(&recruit);
    finish(&scene);
}

static void a_device_is_sent_pieces_of_its_part_and_of_nothing_else(void **state) {
    struct scene scene;
    struct client recruit;
    (void)state;
    start(&scene, 2, (const char *const[]){"", NULL});
    send_apply(&scene, 2, (const size_t[]){7});
    for (int i = 0; i < 5; i++) {
        play_recruit(&scene, &recruit);
        const Convoy__Message *message = client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PREPARE);
        Convoy__Prepare prepare = *message->prepare;
        uint8_t part[SHA256_SIZE];
        memcpy(part, prepare.part.data, SHA256_SIZE);
        prepare.part.data = part;
        send_requests(&recruit, &prepare, prepare.part_bytes - 5, 5, 1);
        const Convoy__Message *chunk =
            client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PART_CHUNK);
        assert_int_equal(chunk->part_chunk->offset, prepare.part_bytes - 5);
        assert_int_equal(recruit.other_bytes, 5);
        if (i == 0)
            send_requests(&recruit, &prepare, prepare.part_bytes - 5, 6, 1);
        if (i == 1)
            send_requests(&recruit, &prepare, prepare.part_bytes, 1, 1);
        if (i == 2)
            send_requests(&recruit, &prepare, 0, CHUNK + 1, 1);
        if (i == 3)
            send_requests(&recruit, &prepare, 0, 0, 1);
        if (i == 4) /* without waiting for the first; once might be an accident */
            send_requests(&recruit, &prepare, 0, CHUNK, 3);
        client_wait_closed(&recruit);
        assert_int_equal(recruit.goodbye, CONVOY__CODE__CODE_MALFORMED);
        client_fini(&recruit);
    }
    finish(&scene);
}

static void a_device_that_never_gets_ready_is_given_up(void **state) {
    struct scene scene;
    struct client recruit;
    (void)state;
    start(&scene, 2, (const char *const[]){"heartbeat_ms: 60000\n", NULL});
    send_apply(&scene, 2, (const size_t[]){7});
    play_recruit(&scene, &recruit);
    client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PREPARE);
    client_fini(&recruit); /* and does not come back */
    const Convoy__Applied *applied = wait_applied(&scene);
    assert_int_equal(applied->code, CONVOY__CODE__CODE_UNREACHABLE);
    assert_non_null(strstr(applied->text, "pi-b: no connection to 127.0.0.1:"));
    run_frames(&scene, 20);
    finish(&scene);
}

/* Its connection stays. */
static void a_device_that_hangs_while_it_prepares_is_given_up(void **state) {
    struct scene scene;
    struct client recruit;
    (void)state;
    start(&scene, 2, (const char *const[]){"heartbeat_ms: 60000\nprepare_ms: 300\n", NULL});
    send_apply(&scene, 2, (const size_t[]){7});
    play_recruit(&scene, &recruit); /* and does nothing with its Prepare */
    const Convoy__Applied *applied = wait_applied(&scene);
    assert_int_equal(applied->code, CONVOY__CODE__CODE_UNREACHABLE);
    assert_non_null(strstr(applied->text, "pi-b: it prepares its stage and has not said"));
    client_wait_closed(&recruit);
    assert_int_equal(recruit.other->body_case, CONVOY__MESSAGE__BODY_RELEASE);
    run_frames(&scene, 20);
    client_fini(&recruit);
    finish(&scene);
}

/* What it does not hear is its own fault. */
static void an_ingress_that_was_suspended_gives_no_device_up(void **state) {
    struct scene scene;
    struct client recruit;
    (void)state;
    start(&scene, 2, (const char *const[]){"heartbeat_ms: 60000\nprepare_ms: 2000\n", NULL});
    send_apply(&scene, 2, (const size_t[]){7});
    play_recruit(&scene, &recruit);
    client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PREPARE);

    daemons_signal(&scene.line, 0, SIGSTOP);
    poll(NULL, 0, 3000 * DAEMONS_SLOWER);
    send_no(&recruit, CONVOY__CODE__CODE_NO_MEMORY, "it is too large");
    daemons_signal(&scene.line, 0, SIGCONT);

    const Convoy__Applied *applied = wait_applied(&scene);
    assert_int_equal(applied->code, CONVOY__CODE__CODE_NO_MEMORY);
    assert_string_equal(applied->text, "pi-b: it is too large");
    client_fini(&recruit);
    finish(&scene);
}

/* The configuration's plan is tried again and again, over the same connection. */
static void a_device_that_always_refuses_is_told_of_once(void **state) {
    static const char *const words[] = {"not today", "not today", "never"};
    struct scene scene = {.client = {.fd = -1}};
    struct client recruit;
    (void)state;
    daemons_init(&scene.line, 2, MODEL);
    scene.line.extra = "heartbeat_ms: 60000\ndeploy: true\nstate: state-pi-a\n";
    daemons_configure(&scene.line, 0, (const char *const[]){"7"});
    daemons_start(&scene.line, 0);
    play_recruit(&scene, &recruit);
    for (size_t i = 0; i < 3; i++) {
        client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PREPARE);
        send_no(&recruit, CONVOY__CODE__CODE_NO_MEMORY, words[i]);
    }
    daemons_wait_log(&scene.line, 0, "a plan is not deployed: NO_MEMORY: pi-b: never", 1);
    assert_int_equal(daemons_count_log(&scene.line, 0, "a plan is not deployed"), 2);
    assert_int_equal(daemons_count_log(&scene.line, 0, "control link"), 1);
    client_fini(&recruit);
    daemons_fini(&scene.line);
}

/* ---- being stopped in the middle of it ------------------------------------------------------- */

static void expect_clean_end(struct daemons *line, int i) {
    daemons_signal(line, i, SIGTERM);
    int status = daemons_wait(line, i);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_recruit_that_is_fetching_its_part_ends_cleanly(void **state) {
    struct bench bench;
    (void)state;
    set_bench(&bench, "");
    send_prepare(&bench);
    wait_request(&bench);
    send_chunk(&bench, 0, CHUNK);
    expect_clean_end(&bench.line, 1);
    clear_bench(&bench);
}

static void a_recruit_that_is_preparing_ends_cleanly(void **state) {
    struct bench bench;
    uint64_t offset = 0;
    (void)state;
    set_bench(&bench, "");
    send_prepare(&bench);
    while (offset < bench.part_bytes) {
        const Convoy__PartRequest *request = wait_request(&bench);
        offset = request->offset + request->bytes;
        send_chunk(&bench, request->offset, request->bytes);
        if (offset == bench.part_bytes)
            break;
    }
    expect_clean_end(&bench.line, 1);
    clear_bench(&bench);
}

static void an_ingress_that_is_deploying_ends_cleanly(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct scene scene;
        struct client recruit;
        start(&scene, 2, (const char *const[]){"", NULL});
        send_apply(&scene, 2, (const size_t[]){7});
        if (i > 0) { /* else the builder has it */
            play_recruit(&scene, &recruit);
            const Convoy__Prepare *prepare =
                client_wait_other(&recruit, CONVOY__MESSAGE__BODY_PREPARE)->prepare;
            if (i == 2)
                send_requests(&recruit, prepare, 0, CHUNK, 1);
        }
        client_close(&scene.client);
        client_close(&scene.admin);
        expect_clean_end(&scene.line, 0);
        if (i > 0)
            client_fini(&recruit);
        finish(&scene);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_devices_are_recruited_while_frames_flow),
        cmocka_unit_test(cuts_move_back_and_forth_without_sending_parts_again),
        cmocka_unit_test(devices_of_a_plan_that_is_gone_are_released),
        cmocka_unit_test(a_device_that_refuses_leaves_everything_as_it_was),
        cmocka_unit_test(a_part_that_does_not_fit_the_cache_is_refused),
        cmocka_unit_test(plans_that_cannot_be_are_refused),
        cmocka_unit_test(the_plan_in_use_is_not_moved_to_another_address),
        cmocka_unit_test(a_device_without_a_model_deploys_nothing),
        cmocka_unit_test(a_second_plan_has_to_wait_for_the_first),
        cmocka_unit_test(a_recruit_that_was_restarted_is_prepared_from_its_cache),
        cmocka_unit_test(a_recruit_that_is_reloaded_keeps_its_plan),
        cmocka_unit_test(a_pipeline_with_deploy_is_handed_out_at_the_start),
        cmocka_unit_test(a_device_that_has_the_model_is_sent_nothing),
        cmocka_unit_test(a_transfer_goes_on_after_kill_and_restart),
        cmocka_unit_test(a_transfer_goes_on_after_a_broken_connection),
        cmocka_unit_test(messages_may_come_byte_by_byte),
        cmocka_unit_test(a_part_that_is_not_what_it_should_be_is_refused_and_asked_for_anew),
        cmocka_unit_test(a_part_that_is_no_stage_of_the_plan_is_refused),
        cmocka_unit_test(a_part_beyond_the_limits_is_refused_before_it_is_sent),
        cmocka_unit_test(a_part_for_which_the_disk_has_no_room_is_refused_until_it_has),
        cmocka_unit_test(a_plan_that_contradicts_itself_is_refused),
        cmocka_unit_test(a_piece_that_was_not_asked_for_ends_the_connection),
        cmocka_unit_test(only_an_ingress_may_hand_out_plans),
        cmocka_unit_test(a_device_measures_a_model_that_it_is_sent),
        cmocka_unit_test(a_model_that_is_none_is_not_measured),
        cmocka_unit_test(a_plan_does_not_wait_for_a_measurement),
        cmocka_unit_test(probes_are_answered_one_by_one),
        cmocka_unit_test(a_second_ingress_has_to_wait_for_the_first),
        cmocka_unit_test(a_plan_is_released_when_it_is_prepared_or_being_so),
        cmocka_unit_test(a_piece_that_is_on_its_way_when_plans_change_is_thrown_away),
        cmocka_unit_test(a_plan_whose_ingress_has_gone_makes_room_for_another),
        cmocka_unit_test(what_a_device_says_no_with_travels_to_who_asked),
        cmocka_unit_test(a_refused_plan_ends_everywhere),
        cmocka_unit_test(a_device_that_refuses_a_plan_is_asked_for_the_one_in_use_again),
        cmocka_unit_test(a_device_is_sent_pieces_of_its_part_and_of_nothing_else),
        cmocka_unit_test(a_device_that_never_gets_ready_is_given_up),
        cmocka_unit_test(a_device_that_hangs_while_it_prepares_is_given_up),
        cmocka_unit_test(an_ingress_that_was_suspended_gives_no_device_up),
        cmocka_unit_test(a_device_that_always_refuses_is_told_of_once),
        cmocka_unit_test(a_recruit_that_is_fetching_its_part_ends_cleanly),
        cmocka_unit_test(a_recruit_that_is_preparing_ends_cleanly),
        cmocka_unit_test(an_ingress_that_is_deploying_ends_cleanly),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
