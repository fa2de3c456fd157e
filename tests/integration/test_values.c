/* Frames that come with NaN or infinity, from a client or from the device before. */
#include "base/sha256.h"
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"

#include <math.h>
#include <setjmp.h>
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

static void start(struct daemons *line, int count, const char *extra) {
    daemons_init(line, count, MODEL);
    line->extra = extra;
    daemons_configure_all(line, (const char *const[]){oracle_layer(&oracle, CUT)});
    daemons_start_all(line);
}

/* A frame of zeros with one value among them. */
static void send_frame(struct client *client, const struct tensor_desc *desc,
                       const ProtobufCBinaryData *plan, uint64_t sequence, float value) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    Convoy__Tensor tensor, *tensors;
    size_t bytes = 0;
    assert_int_equal(tensor_desc_bytes(desc, &bytes), 0);
    float *payload = calloc(1, bytes);
    assert_non_null(payload);
    payload[bytes / sizeof(float) / 2] = value;
    assert_int_equal(message_fill_tensors(desc, 1, &tensor, &tensors), 0);
    frame.session = client->session;
    frame.sequence = sequence;
    frame.plan = *plan;
    frame.n_tensors = 1;
    frame.tensors = &tensors;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &frame;
    client_send(client, &message, payload, bytes);
    client->credits--;
    free(payload);
}

/* Reads until there is an answer more, of either kind. */
static void wait_answer(struct client *client) {
    size_t before = client->answered + client->refused;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client->answered + client->refused == before)
        if (!client_read(client, 100) || daemons_now_ms() > until)
            fail_msg("no answer came");
}

static void connect_client(struct client *client, const struct daemons *line) {
    client_init(client, &oracle, line->all[0].port);
    client_connect(client, CONVOY__ROLE__ROLE_CLIENT);
    client_wait_credit(client);
}

/* Until the second device, which may not have been reached yet, tells of one such frame. */
static void wait_suspect(struct client *client) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client_status(client)->stages[1]->frames_suspect != 1)
        assert_true(daemons_now_ms() < until);
}

static void what_a_client_sends_is_reported_and_computed(void **state) {
    const ProtobufCBinaryData none = {0, NULL};
    struct client client;
    struct daemons line;
    (void)state;
    start(&line, 1, "workers: 1\n");
    connect_client(&client, &line);
    send_frame(&client, &oracle.input, &none, 1, NAN);
    wait_answer(&client);
    send_frame(&client, &oracle.input, &none, 2, INFINITY);
    wait_answer(&client);
    send_frame(&client, &oracle.input, &none, 3, 3e38f); /* much, but a number */
    wait_answer(&client);
    assert_int_equal(client.answered, 3);
    assert_int_equal(client_status(&client)->stages[0]->frames_suspect, 2);
    assert_int_equal(daemons_count_log(&line, 0, "holds NaN or infinity (1 times)"), 2);
    client_fini(&client);
    daemons_fini(&line);
}

static void nobody_looks_where_they_are_to_be_ignored(void **state) {
    const ProtobufCBinaryData none = {0, NULL};
    struct client client;
    struct daemons line;
    (void)state;
    start(&line, 1, "workers: 1\nbad_values: ignore\n");
    connect_client(&client, &line);
    send_frame(&client, &oracle.input, &none, 1, NAN);
    wait_answer(&client);
    assert_int_equal(client.answered, 1);
    assert_int_equal(client_status(&client)->stages[0]->frames_suspect, 0);
    client_fini(&client);
    daemons_fini(&line);
}

/* The test plays pi-a, to the real pi-b. */
static void what_the_device_before_sends_is_refused_where_that_is_told(void **state) {
    struct client client, before;
    struct daemons line;
    uint8_t id[SHA256_SIZE];
    size_t count;
    const struct tensor_desc *descs = model_cut(oracle.model, CUT + 1, &count);
    (void)state;
    assert_int_equal(count, 1);
    start(&line, 2, "workers: 1\nbad_values: refuse\n");
    connect_client(&client, &line);
    const Convoy__Status *status = client_status(&client);
    assert_int_equal(status->stages[1]->plan.len, SHA256_SIZE);
    memcpy(id, status->stages[1]->plan.data, SHA256_SIZE);
    const ProtobufCBinaryData plan = {SHA256_SIZE, id};
    client_init(&before, &oracle, line.all[1].port);
    client_connect(&before, CONVOY__ROLE__ROLE_UPSTREAM);
    client_wait_credit(&before);

    send_frame(&before, descs, &plan, 1, -INFINITY);
    wait_answer(&before);

    assert_int_equal(before.refused, 1);
    assert_int_equal(before.refusal, CONVOY__CODE__CODE_BAD_VALUES);
    assert_false(before.refusal_retry);
    assert_true(daemons_logged(&line, 1, "of device test at 127.0.0.1"));
    send_frame(&before, descs, &plan, 2, 1.0f);
    wait_answer(&before);
    assert_int_equal(before.answered, 1);
    wait_suspect(&client);
    client.target = 30;
    client_run(&client, 30);
    client_assert_exactly_once(&client, 30);
    client_fini(&before);
    client_fini(&client);
    daemons_fini(&line);
}

static const char *digest_text(char hex[SHA256_HEX]) {
    return sha256_format(model_digest(oracle.model), hex);
}

/* Beside the only model that the test may write to: a copy of it. */
static void put_ranges(const struct daemons *line, const char *digest) {
    char path[256];
    snprintf(path, sizeof(path), "%s/model.ranges.yaml", line->folder);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fprintf(file, "model: %s\nframes: 10\ntensors:\n", digest);
    size_t count;
    const struct tensor_desc *descs = model_cut(oracle.model, CUT + 1, &count);
    fprintf(file, "  '%s': [-1, 3]\n", descs[0].name);
    assert_int_equal(fclose(file), 0);
}

static void copy_model(const struct daemons *line, char *path, size_t size) {
    char buffer[4096];
    size_t bytes;
    snprintf(path, size, "%s/model.onnx", line->folder);
    FILE *from = fopen(MODEL, "re"), *to = fopen(path, "we");
    assert_true(from && to);
    while ((bytes = fread(buffer, 1, sizeof(buffer), from)) > 0)
        assert_int_equal(fwrite(buffer, 1, bytes, to), bytes);
    fclose(from);
    assert_int_equal(fclose(to), 0);
}

static void what_is_beyond_the_calibration_is_refused_where_that_is_told(void **state) {
    struct client client, before;
    struct daemons line;
    uint8_t id[SHA256_SIZE];
    size_t count;
    char model[256], hex[SHA256_HEX];
    const struct tensor_desc *descs = model_cut(oracle.model, CUT + 1, &count);
    (void)state;
    daemons_init(&line, 2, MODEL);
    copy_model(&line, model, sizeof(model));
    put_ranges(&line, digest_text(hex));
    line.model = model;
    line.extra = "workers: 1\nbad_values: refuse\n";
    daemons_configure_all(&line, (const char *const[]){oracle_layer(&oracle, CUT)});
    daemons_start_all(&line);
    connect_client(&client, &line);
    memcpy(id, client_status(&client)->stages[1]->plan.data, SHA256_SIZE);
    const ProtobufCBinaryData plan = {SHA256_SIZE, id};
    client_init(&before, &oracle, line.all[1].port);
    client_connect(&before, CONVOY__ROLE__ROLE_UPSTREAM);
    client_wait_credit(&before);
    static const float values[] = {5.0f, 5.1f, -3.0f, -3.1f, 0.0f}; /* -3 to 5 are plausible */
    for (uint64_t i = 0; i < 5; i++) {
        send_frame(&before, descs, &plan, i + 1, values[i]);
        wait_answer(&before);
    }

    assert_int_equal(before.answered, 3);
    assert_int_equal(before.refused, 2);
    assert_int_equal(before.refusal, CONVOY__CODE__CODE_BAD_VALUES);
    assert_true(daemons_logged(&line, 1, "reaches from 0 to 5.1; -3 to 5 are plausible"));
    client_fini(&before);
    client_fini(&client);
    daemons_fini(&line);
}

static void ranges_of_another_model_are_refused(void **state) {
    struct daemons line;
    char model[256], yaml[512], out[2048], hex[SHA256_HEX];
    (void)state;
    daemons_init(&line, 1, MODEL);
    copy_model(&line, model, sizeof(model));
    digest_text(hex);
    hex[0] = hex[0] == '0' ? '1' : '0';
    put_ranges(&line, hex);
    snprintf(yaml, sizeof(yaml),
             "node: a\nmodel: %s\npipeline:\n  - {node: a, address: 127.0.0.1:1}\n", model);
    assert_int_equal(daemons_run_once(&line, yaml, NULL, out, sizeof(out)), 1);
    assert_non_null(strstr(out, "run convoyctl calibrate again"));
    daemons_fini(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_client_sends_is_reported_and_computed),
        cmocka_unit_test(nobody_looks_where_they_are_to_be_ignored),
        cmocka_unit_test(what_the_device_before_sends_is_refused_where_that_is_told),
        cmocka_unit_test(what_is_beyond_the_calibration_is_refused_where_that_is_told),
        cmocka_unit_test(ranges_of_another_model_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
