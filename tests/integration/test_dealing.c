/* A real device before a stage that two others share, both played by the test: to whom it deals
 * frames, and what it makes of one that is slow, silent or gone. And a real device behind two
 * others, played by the test, that send it the same frame. */
#include "base/sha256.h"
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

/* pi-a is real, pi-b and pi-c are the test and share the last stage. */
struct scene {
    struct daemons line;
    struct client client, next[2];
    uint8_t plan[SHA256_SIZE]; /* what pi-a works under */
};

static const char *const names[] = {"pi-b", "pi-c"};

/* What pi-a tells of itself, while the others answer. */
static const Convoy__StageStatus *own_status(struct scene *scene) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    client_ask_status(&scene->client);
    while (!scene->client.status) {
        assert_true(client_read(&scene->client, 5));
        for (int i = 0; i < 2; i++)
            if (scene->next[i].fd >= 0)
                client_read(&scene->next[i], 5);
        assert_true(daemons_now_ms() < until);
    }
    return scene->client.status->stages[0];
}

static void send_welcome(struct client *next, const char *node) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Welcome welcome = CONVOY__WELCOME__INIT;
    welcome.version = MESSAGE_VERSION;
    welcome.node = (char *)(uintptr_t)node;
    welcome.max_payload = 64u << 20;
    message.body_case = CONVOY__MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    client_send(next, &message, NULL, 0);
}

static void send_plans(struct scene *scene, int i, bool ready) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Plans plans = CONVOY__PLANS__INIT;
    ProtobufCBinaryData id = {SHA256_SIZE, scene->plan};
    plans.n_ready = ready;
    plans.ready = &id;
    message.body_case = CONVOY__MESSAGE__BODY_PLANS;
    message.plans = &plans;
    client_send(&scene->next[i], &message, NULL, 0);
}

static void send_credit(struct scene *scene, int i, uint32_t frames) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Credit credit = CONVOY__CREDIT__INIT;
    credit.frames = frames;
    message.body_case = CONVOY__MESSAGE__BODY_CREDIT;
    message.credit = &credit;
    client_send(&scene->next[i], &message, NULL, 0);
}

static void answer_frame(struct client *from, uint64_t session, uint64_t sequence) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Result result = CONVOY__RESULT__INIT;
    Convoy__Tensor tensor, *tensors;
    assert_int_equal(message_fill_tensors(&oracle.output, 1, &tensor, &tensors), 0);
    result.session = session;
    result.sequence = sequence;
    result.n_tensors = 1;
    result.tensors = &tensors;
    message.body_case = CONVOY__MESSAGE__BODY_RESULT;
    message.result = &result;
    client_send(from, &message, oracle.outputs[sequence % ORACLE_PICTURES], oracle.output_bytes);
}

static void refuse_frame(struct client *from, uint64_t session, uint64_t sequence) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Refusal refusal = CONVOY__REFUSAL__INIT;
    refusal.session = session;
    refusal.sequence = sequence;
    refusal.code = CONVOY__CODE__CODE_LINK_LOST;
    refusal.retry = true;
    refusal.node = refusal.text = (char *)(uintptr_t) "test";
    message.body_case = CONVOY__MESSAGE__BODY_REFUSAL;
    message.refusal = &refusal;
    client_send(from, &message, NULL, 0);
}

static void connect_replica(struct scene *scene, int i) {
    client_accept(&scene->next[i], scene->line.all[1 + i].listen_fd);
    send_welcome(&scene->next[i], names[i]);
}

static void start_with(struct scene *scene, const char *extra, size_t cut) {
    memset(scene, 0, sizeof(*scene));
    daemons_init(&scene->line, 3, MODEL);
    scene->line.extra = extra;
    scene->line.shares[2] = true;
    daemons_configure(&scene->line, 0, (const char *const[]){oracle_layer(&oracle, cut)});
    daemons_start(&scene->line, 0);
    for (int i = 0; i < 2; i++) {
        client_init(&scene->next[i], &oracle, 0);
        connect_replica(scene, i);
    }
    client_init(&scene->client, &oracle, scene->line.all[0].port);
    client_connect(&scene->client, CONVOY__ROLE__ROLE_CLIENT);
    client_wait_credit(&scene->client);
    const Convoy__StageStatus *stage = own_status(scene);
    assert_int_equal(stage->plan.len, SHA256_SIZE);
    memcpy(scene->plan, stage->plan.data, SHA256_SIZE);
    assert_string_equal(stage->state, "waiting for pi-b or pi-c");
}

static void start(struct scene *scene) {
    start_with(scene, "workers: 1\nqueue: 6\nheartbeat_ms: 20000\n", CUT);
}

/* A device that takes frames from here on; the credits come first, so that it has them when it is
 * seen to be ready. */
static void serve(struct scene *scene, int i) {
    send_credit(scene, i, 100);
    send_plans(scene, i, true);
    while (!own_status(scene)->links[i]->ready)
        continue;
}

static void finish(struct scene *scene) {
    client_fini(&scene->client);
    for (int i = 0; i < 2; i++)
        client_fini(&scene->next[i]);
    daemons_fini(&scene->line);
}

/* Until so many frames have come to both together. */
static void wait_frames(struct scene *scene, size_t count) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (scene->next[0].frames + scene->next[1].frames < count) {
        for (int i = 0; i < 2; i++)
            if (scene->next[i].fd >= 0)
                client_read(&scene->next[i], 5);
        if (daemons_now_ms() > until)
            fail_msg("frame %zu did not come", count);
    }
}

static void push(struct scene *scene, size_t frames) {
    scene->client.target += frames;
    client_push(&scene->client);
}

static void equal_devices_take_turns(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    for (int i = 0; i < 2; i++)
        serve(&scene, i);
    for (size_t k = 1; k <= 8; k++) { /* each is answered before the next one comes */
        push(&scene, 1);
        wait_frames(&scene, k);
        int last = scene.next[0].frame.sequence == k ? 0 : 1;
        assert_int_equal(scene.next[last].frame.sequence, k);
        answer_frame(&scene.next[last], scene.client.session, k);
        client_run(&scene.client, k);
    }
    assert_int_equal(scene.next[0].frames, 4);
    assert_int_equal(scene.next[1].frames, 4);
    client_assert_exactly_once(&scene.client, 8);
    finish(&scene);
}

static void a_slow_device_is_sent_as_many_as_it_answers(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    for (int i = 0; i < 2; i++)
        serve(&scene, i);
    size_t answered = 0;
    for (size_t k = 1; k <= 9; k++) { /* pi-c answers nothing yet */
        push(&scene, 1);
        wait_frames(&scene, k);
        if (scene.next[0].frame.sequence == k) {
            answer_frame(&scene.next[0], scene.client.session, k);
            client_run(&scene.client, ++answered);
        }
    }
    assert_int_equal(scene.next[1].frames, 1);
    answer_frame(&scene.next[1], scene.client.session, scene.next[1].frame.sequence);
    client_run(&scene.client, 9);
    client_assert_exactly_once(&scene.client, 9);
    finish(&scene);
}

static void a_device_without_credits_keeps_no_frame_from_the_other(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_plans(&scene, 0, true);
    serve(&scene, 1);
    for (size_t k = 1; k <= 20; k++) {
        push(&scene, 1);
        wait_frames(&scene, k);
        answer_frame(&scene.next[1], scene.client.session, k);
        client_run(&scene.client, k);
    }
    assert_int_equal(scene.next[0].frames, 0);
    client_assert_exactly_once(&scene.client, 20);
    finish(&scene);
}

/* Until as many frames have come to pi-a, and it computes none of them any more; the others behind
 * are neither asked nor read. */
static void wait_settled(struct scene *scene, uint64_t frames) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__StatusRequest request = CONVOY__STATUS_REQUEST__INIT;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    request.token = 1;
    request.alone = true;
    message.body_case = CONVOY__MESSAGE__BODY_STATUS_REQUEST;
    message.status_request = &request;
    do {
        const uint64_t token = ++request.token;
        client_send(&scene->client, &message, NULL, 0);
        while (!scene->client.status || scene->client.status->token != token) {
            assert_true(client_read(&scene->client, 100));
            assert_true(daemons_now_ms() < until);
        }
    } while (scene->client.status->stages[0]->frames_in < frames ||
             scene->client.status->stages[0]->computing > 0);
}

/* The frames are larger than CUT's: more than the kernel takes of them come together, as many as
 * may be written at once are, and others wait for their turn. */
static void frames_that_wait_for_a_device_to_read_go_to_it_when_it_does(void **state) {
    static const size_t frames = 590; /* of the 600 that a client may have here */
    struct scene scene;
    (void)state;
    start_with(&scene, "workers: 1\nqueue: 200\nheartbeat_ms: 60000\nlimits: {write_ms: 600000}\n",
               1);
    send_credit(&scene, 0, 1000);
    serve(&scene, 0);
    push(&scene, frames);
    assert_int_equal(scene.client.next, frames + 1);
    wait_settled(&scene, frames); /* pi-b has read nothing of them, pi-c is not ready */
    wait_frames(&scene, frames);
    for (uint64_t sequence = 1; sequence <= frames; sequence++)
        answer_frame(&scene.next[0], scene.client.session, sequence);
    client_run(&scene.client, frames);
    client_assert_exactly_once(&scene.client, frames);
    finish(&scene);
}

static void the_frames_of_a_device_that_goes_are_dealt_to_the_other_at_once(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    for (int i = 0; i < 2; i++)
        serve(&scene, i);
    push(&scene, 6);
    wait_frames(&scene, 6);
    size_t had = scene.next[0].frames;
    assert_in_range(had, 1, 5);
    client_close(&scene.next[0]);
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (scene.next[1].frames < 6) { /* its own and those of the other */
        client_read(&scene.next[1], 100);
        assert_true(daemons_now_ms() < until);
    }
    for (uint64_t sequence = 1; sequence <= 6; sequence++)
        answer_frame(&scene.next[1], scene.client.session, sequence);
    client_run(&scene.client, 6);
    const Convoy__StageStatus *stage = own_status(&scene);
    assert_int_equal(stage->frames_retried, had);
    assert_string_equal(stage->state, "ready");
    assert_false(stage->links[0]->ready);
    assert_true(stage->links[1]->ready);
    scene.next[0].frames = scene.next[1].frames = 0;
    connect_replica(&scene, 0); /* back again, it gets its share */
    serve(&scene, 0);
    push(&scene, 2);
    wait_frames(&scene, 2);
    assert_int_equal(scene.next[0].frames, 1);
    for (int i = 0; i < 2; i++)
        answer_frame(&scene.next[i], scene.client.session, scene.next[i].frame.sequence);
    client_run(&scene.client, 8);
    client_assert_exactly_once(&scene.client, 8);
    finish(&scene);
}

static void a_late_result_of_the_first_attempt_is_the_answer_and_the_second_is_none(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    send_plans(&scene, 0, true);
    send_credit(&scene, 0, 1);
    push(&scene, 1);
    wait_frames(&scene, 1);
    refuse_frame(&scene.next[0], scene.client.session, 1);
    serve(&scene, 1);
    wait_frames(&scene, 2);
    assert_int_equal(scene.next[1].frame.sequence, 1);
    answer_frame(&scene.next[0], scene.client.session, 1); /* it had it after all */
    client_run(&scene.client, 1);
    answer_frame(&scene.next[1], scene.client.session, 1);
    push(&scene, 1);
    wait_frames(&scene, 3);
    answer_frame(&scene.next[1], scene.client.session, 2);
    client_run(&scene.client, 2);
    client_assert_exactly_once(&scene.client, 2);
    finish(&scene);
}

static void with_both_away_the_line_waits_for_either(void **state) {
    struct scene scene;
    (void)state;
    start(&scene);
    for (int i = 0; i < 2; i++)
        serve(&scene, i);
    push(&scene, 4);
    wait_frames(&scene, 4);
    for (int i = 0; i < 2; i++)
        client_close(&scene.next[i]);
    while (strcmp(own_status(&scene)->state, "waiting for pi-b or pi-c") != 0)
        continue;
    scene.next[0].frames = scene.next[1].frames = 0;
    connect_replica(&scene, 1);
    serve(&scene, 1);
    wait_frames(&scene, 4);
    for (uint64_t sequence = 1; sequence <= 4; sequence++)
        answer_frame(&scene.next[1], scene.client.session, sequence);
    client_run(&scene.client, 4);
    client_assert_exactly_once(&scene.client, 4);
    finish(&scene);
}

/* ---- behind a shared stage ------------------------------------------------------------------- */

/* pi-d is real and runs the third of four stages; the test is pi-b and pi-c, which share the second
 * one, and pi-e behind. */
struct middle {
    struct daemons line;
    struct client before[2], behind;
    uint8_t plan[SHA256_SIZE];
    void *activations; /* of picture 1, at the cut before pi-d */
    struct tensor_desc input;
    size_t input_bytes;
};

/* What the layers before the cut make of picture 1. */
static void compute_activations(struct middle *middle) {
    struct stage *stage;
    struct exec *exec;
    struct err err = {""};
    size_t count;
    middle->input = model_cut(oracle.model, 13, &count)[0];
    assert_int_equal(count, 1);
    assert_int_equal(tensor_desc_bytes(&middle->input, &middle->input_bytes), 0);
    middle->activations = tensor_buffer_new(middle->input_bytes);
    assert_int_equal(stage_new(oracle.model, 0, 13, NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    const struct tensor input = {oracle.input, oracle.inputs[1]};
    struct tensor output = {middle->input, middle->activations};
    assert_int_equal(exec_run(exec, &input, &output, &err), 0);
    exec_free(exec);
    stage_unref(stage);
}

static void announce(struct client *next, const uint8_t *plan) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Plans plans = CONVOY__PLANS__INIT;
    Convoy__Credit credit = {.base = PROTOBUF_C_MESSAGE_INIT(&convoy__credit__descriptor),
                             .frames = 10};
    ProtobufCBinaryData id = {SHA256_SIZE, (uint8_t *)(uintptr_t)plan};
    plans.n_ready = 1;
    plans.ready = &id;
    message.body_case = CONVOY__MESSAGE__BODY_PLANS;
    message.plans = &plans;
    client_send(next, &message, NULL, 0);
    message.body_case = CONVOY__MESSAGE__BODY_CREDIT;
    message.credit = &credit;
    client_send(next, &message, NULL, 0);
}

static void start_middle(struct middle *middle) {
    const char *untils[] = {oracle_layer(&oracle, 7), oracle_layer(&oracle, 12),
                            oracle_layer(&oracle, 15)};
    memset(middle, 0, sizeof(*middle));
    daemons_init(&middle->line, 5, MODEL);
    middle->line.extra = "workers: 1\nheartbeat_ms: 20000\n";
    middle->line.shares[2] = true;
    daemons_configure(&middle->line, 3, untils);
    daemons_start(&middle->line, 3);
    compute_activations(middle);
    client_init(&middle->behind, &oracle, 0);
    client_accept(&middle->behind, middle->line.all[4].listen_fd);
    send_welcome(&middle->behind, "pi-e");
    for (int i = 0; i < 2; i++) {
        client_init(&middle->before[i], &oracle, middle->line.all[3].port);
        client_connect(&middle->before[i], CONVOY__ROLE__ROLE_UPSTREAM);
        client_wait_credit(&middle->before[i]);
        middle->before[i].session = 7; /* of the results that will come */
    }
    client_ask_status(&middle->before[0]);
    while (!middle->before[0].status) {
        assert_true(client_read(&middle->before[0], 5));
        assert_true(client_read(&middle->behind, 5));
    }
    assert_int_equal(middle->before[0].status->stages[0]->plan.len, SHA256_SIZE);
    memcpy(middle->plan, middle->before[0].status->stages[0]->plan.data, SHA256_SIZE);
    announce(&middle->behind, middle->plan);
    daemons_wait_log(&middle->line, 3, "ready from here to its end", 1);
}

static void finish_middle(struct middle *middle) {
    for (int i = 0; i < 2; i++)
        client_fini(&middle->before[i]);
    client_fini(&middle->behind);
    tensor_buffer_free(middle->activations);
    daemons_fini(&middle->line);
}

/* Frame 7/1, as pi-b or pi-c would send it. */
static void send_attempt(struct middle *middle, int i) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    Convoy__Tensor tensor, *tensors;
    size_t count;
    const struct tensor_desc *desc = model_cut(oracle.model, 13, &count);
    assert_int_equal(message_fill_tensors(desc, 1, &tensor, &tensors), 0);
    frame.session = 7;
    frame.sequence = 1;
    frame.plan = (ProtobufCBinaryData){SHA256_SIZE, middle->plan};
    frame.n_tensors = 1;
    frame.tensors = &tensors;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &frame;
    client_send(&middle->before[i], &message, middle->activations, middle->input_bytes);
}

static void wait_behind(struct middle *middle, size_t frames) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (middle->behind.frames < frames)
        if (!client_read(&middle->behind, 100) || daemons_now_ms() > until)
            fail_msg("attempt %zu did not come", frames);
}

static void wait_answers(struct client *before, size_t answers) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (before->answered + before->repeated + before->refused < answers)
        if (!client_read(before, 100) || daemons_now_ms() > until)
            fail_msg("no answer came");
}

/* The device that sent the older attempt may be back from being frozen, the newer one's waits. */
static void one_frame_from_two_devices_is_answered_to_both(void **state) {
    for (int first = 0; first < 2; first++) {
        struct middle middle;
        (void)state;
        start_middle(&middle);
        send_attempt(&middle, first);
        wait_behind(&middle, 1);
        send_attempt(&middle, 1 - first);
        wait_behind(&middle, 2);

        answer_frame(&middle.behind, 7, 1);

        for (int i = 0; i < 2; i++) {
            wait_answers(&middle.before[i], 1);
            assert_int_equal(middle.before[i].answered, 1);
            assert_int_equal(middle.before[i].wrong, 0);
        }
        answer_frame(&middle.behind, 7, 1); /* of the other attempt */
        client_settle(&middle.behind);
        send_attempt(&middle, 0);
        wait_behind(&middle, 3);
        answer_frame(&middle.behind, 7, 1);
        wait_answers(&middle.before[0], 2);
        assert_int_equal(middle.before[1].repeated, 0);
        finish_middle(&middle);
    }
}

static void one_frame_from_two_devices_is_refused_to_both(void **state) {
    struct middle middle;
    (void)state;
    start_middle(&middle);
    send_attempt(&middle, 0);
    send_attempt(&middle, 1);
    wait_behind(&middle, 2);

    refuse_frame(&middle.behind, 7, 1);

    for (int i = 0; i < 2; i++) {
        wait_answers(&middle.before[i], 1);
        assert_int_equal(middle.before[i].refused, 1);
        assert_true(middle.before[i].refusal_retry);
    }
    finish_middle(&middle);
}

static void a_device_that_goes_takes_its_own_attempt_only(void **state) {
    struct middle middle;
    (void)state;
    start_middle(&middle);
    send_attempt(&middle, 0);
    wait_behind(&middle, 1);
    send_attempt(&middle, 1);
    wait_behind(&middle, 2);
    client_close(&middle.before[1]);
    daemons_wait_log(&middle.line, 3, "is gone", 1);

    answer_frame(&middle.behind, 7, 1);

    wait_answers(&middle.before[0], 1);
    assert_int_equal(middle.before[0].answered, 1);
    assert_int_equal(middle.before[0].wrong, 0);
    finish_middle(&middle);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_devices_take_turns),
        cmocka_unit_test(a_slow_device_is_sent_as_many_as_it_answers),
        cmocka_unit_test(a_device_without_credits_keeps_no_frame_from_the_other),
        cmocka_unit_test(frames_that_wait_for_a_device_to_read_go_to_it_when_it_does),
        cmocka_unit_test(the_frames_of_a_device_that_goes_are_dealt_to_the_other_at_once),
        cmocka_unit_test(a_late_result_of_the_first_attempt_is_the_answer_and_the_second_is_none),
        cmocka_unit_test(with_both_away_the_line_waits_for_either),
        cmocka_unit_test(one_frame_from_two_devices_is_answered_to_both),
        cmocka_unit_test(one_frame_from_two_devices_is_refused_to_both),
        cmocka_unit_test(a_device_that_goes_takes_its_own_attempt_only),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
