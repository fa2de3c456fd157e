/* Peers that misbehave, and starts that cannot succeed. */
#include "tests/lib/client.h"
#include "tests/lib/daemons.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "models/fmnist_resnet.onnx"

static struct oracle oracle;
static struct daemons line;

/* Sanitizers keep freed memory for a while, and shadows of all memory. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define GROWTH_MAX (512u << 20)
#else
#define GROWTH_MAX (16u << 20)
#endif

/* One line of two devices for all these tests: each of them leaves it serving. */
static int set_up(void **state) {
    (void)state;
    oracle_init(&oracle, MODEL);
    daemons_init(&line, 2, MODEL);
    line.extra = "workers: 1\nmax_payload: 1048576\nmax_clients: 8\n";
    daemons_configure_all(&line, (const char *const[]){oracle_layer(&oracle, 7)});
    daemons_start_all(&line);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    daemons_fini(&line);
    oracle_fini(&oracle);
    return 0;
}

static void assert_line_serves(void) {
    struct client client;
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = 30;
    client_run(&client, 30);
    client_assert_exactly_once(&client, 30);
    client_fini(&client);
}

static void connect_client(struct client *client) {
    client_init(client, &oracle, line.all[0].port);
    client_connect(client, CONVOY__ROLE__ROLE_CLIENT);
    client_wait_credit(client);
}

static void assert_goodbye(struct client *client, Convoy__Code code) {
    client_wait_closed(client);
    assert_int_equal(client->goodbye, code);
    client_fini(client);
    assert_line_serves();
}

static void random_bytes_are_refused_and_the_line_still_serves(void **state) {
    uint8_t bytes[4000];
    (void)state;
    for (unsigned round = 0; round < 40; round++) {
        struct client client;
        unsigned seed = round * 7919 + 1;
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)(rand_r(&seed) >> 8);
        client_init(&client, &oracle, line.all[round % 2].port);
        client_open(&client);
        client_send_raw(&client, bytes, sizeof(bytes));
        client_wait_closed(&client);
        assert_true(client.goodbye == CONVOY__CODE__CODE_MALFORMED ||
                    client.goodbye == CONVOY__CODE__CODE_TOO_LARGE);
        client_fini(&client);
    }
    assert_line_serves();
}

static void huge_lengths_are_refused_before_memory_is_spent(void **state) {
    static const uint8_t huge[][14] = {
        {0xff, 0xff, 0xff, 0xff, 0x07, 0x09, 0xff, 0xff, 0, 0, 0, 0, 0, 0x70},
        {0xff, 0xff, 0xff, 0xff, 0x7f, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        {0x89, 0x80, 0x80, 0x80, 0x04, 0x09, 0, 0, 0, 0, 0, 0, 0, 0x40},
    };
    size_t before = daemons_resident(&line, 0);
    (void)state;
    for (size_t i = 0; i < sizeof(huge) / sizeof(huge[0]); i++) {
        struct client client;
        connect_client(&client);
        client_send_raw(&client, huge[i], sizeof(huge[i]));
        client_wait_closed(&client);
        assert_true(client.goodbye == CONVOY__CODE__CODE_MALFORMED ||
                    client.goodbye == CONVOY__CODE__CODE_TOO_LARGE);
        client_fini(&client);
    }
    assert_true(daemons_resident(&line, 0) < before + GROWTH_MAX);
    assert_line_serves();
}

static void frames_beyond_the_credit_end_the_connection(void **state) {
    struct client client;
    (void)state;
    connect_client(&client);
    for (uint64_t sequence = 1; sequence < 2000 && !client.closed; sequence++)
        client_send_frame(&client, sequence);
    assert_goodbye(&client, CONVOY__CODE__CODE_NO_CREDIT);
}

static void the_first_message_must_be_hello(void **state) {
    struct client client;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Ping ping = CONVOY__PING__INIT;
    (void)state;
    client_init(&client, &oracle, line.all[0].port);
    client_open(&client);
    message.body_case = CONVOY__MESSAGE__BODY_PING;
    message.ping = &ping;
    client_send(&client, &message, NULL, 0);
    assert_goodbye(&client, CONVOY__CODE__CODE_MALFORMED);
}

static void another_version_is_refused(void **state) {
    struct client client;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    (void)state;
    client_init(&client, &oracle, line.all[0].port);
    client_open(&client);
    hello.version = 2;
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    client_send(&client, &message, NULL, 0);
    assert_goodbye(&client, CONVOY__CODE__CODE_UNSUPPORTED_VERSION);
}

/* A Frame message with everything given. */
static void send_frame(struct client *client, uint64_t session, uint64_t sequence, const char *plan,
                       const struct tensor_desc *desc, size_t bytes) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    Convoy__Tensor tensor, *tensors;
    void *payload = calloc(1, bytes + 1);
    assert_non_null(payload);
    assert_int_equal(message_fill_tensors(desc, 1, &tensor, &tensors), 0);
    frame.session = session;
    frame.sequence = sequence;
    frame.plan.data = (uint8_t *)(uintptr_t)plan;
    frame.plan.len = strlen(plan);
    frame.n_tensors = 1;
    frame.tensors = &tensors;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &frame;
    client_send(client, &message, payload, bytes);
    client->credits--;
    free(payload);
}

static void wait_refusal(struct client *client) {
    size_t before = client->refused;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client->refused == before)
        if (!client_read(client, 100) || daemons_now_ms() > until)
            fail_msg("no Refusal came");
}

static void wrong_tensors_are_refused_and_the_connection_goes_on(void **state) {
    struct client client;
    struct tensor_desc desc;
    (void)state;
    connect_client(&client);
    desc = oracle.input;
    desc.name = "another name";
    send_frame(&client, client.session, 1, "", &desc, oracle.input_bytes);
    wait_refusal(&client);
    assert_int_equal(client.refusal, CONVOY__CODE__CODE_WRONG_TENSORS);
    assert_false(client.refusal_retry);
    desc = oracle.input;
    desc.dims[desc.rank - 1] = 27;
    size_t bytes = 0;
    assert_int_equal(tensor_desc_bytes(&desc, &bytes), 0);
    client_wait_credit(&client);
    send_frame(&client, client.session, 2, "", &desc, bytes);
    wait_refusal(&client);
    assert_int_equal(client.refusal, CONVOY__CODE__CODE_WRONG_TENSORS);
    client_wait_credit(&client);
    send_frame(&client, client.session, 3, "", &oracle.input, oracle.input_bytes - 4);
    wait_refusal(&client);
    assert_int_equal(client.refusal, CONVOY__CODE__CODE_WRONG_TENSORS);
    client.next = 1;
    client.target = 20;
    client_run(&client, 20);
    client_fini(&client);
}

static void a_client_that_names_a_plan_is_refused(void **state) {
    struct client client;
    (void)state;
    connect_client(&client);
    send_frame(&client, client.session, 1, "12345678901234567890123456789012", &oracle.input,
               oracle.input_bytes);
    wait_refusal(&client);
    assert_int_equal(client.refusal, CONVOY__CODE__CODE_UNKNOWN_PLAN);
    assert_false(client.refusal_retry);
    client_fini(&client);
    assert_line_serves();
}

static void an_upstream_with_an_unknown_plan_is_refused_for_now(void **state) {
    struct client client;
    (void)state;
    client_init(&client, &oracle, line.all[1].port);
    client_connect(&client, CONVOY__ROLE__ROLE_UPSTREAM);
    client_wait_credit(&client);
    send_frame(&client, 1, 1, "12345678901234567890123456789012", &oracle.input,
               oracle.input_bytes);
    wait_refusal(&client);
    assert_int_equal(client.refusal, CONVOY__CODE__CODE_UNKNOWN_PLAN);
    assert_true(client.refusal_retry);
    client_fini(&client);
    assert_line_serves();
}

static void a_frame_of_another_session_ends_the_connection(void **state) {
    struct client client;
    (void)state;
    connect_client(&client);
    send_frame(&client, client.session + 1, 1, "", &oracle.input, oracle.input_bytes);
    assert_goodbye(&client, CONVOY__CODE__CODE_MALFORMED);
}

static void a_frame_numbered_0_ends_the_connection(void **state) {
    struct client client;
    (void)state;
    connect_client(&client);
    send_frame(&client, client.session, 0, "", &oracle.input, oracle.input_bytes);
    assert_goodbye(&client, CONVOY__CODE__CODE_MALFORMED);
}

static void messages_that_only_a_device_sends_are_refused_from_a_client(void **state) {
    struct client client;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Credit credit = CONVOY__CREDIT__INIT;
    (void)state;
    connect_client(&client);
    message.body_case = CONVOY__MESSAGE__BODY_CREDIT;
    message.credit = &credit;
    client_send(&client, &message, NULL, 0);
    assert_goodbye(&client, CONVOY__CODE__CODE_MALFORMED);
}

static void a_connection_that_breaks_inside_a_message_is_forgotten(void **state) {
    struct client client;
    uint8_t header[256];
    size_t size;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    (void)state;
    for (size_t cut = 1; cut < 60; cut++) {
        connect_client(&client);
        frame.session = client.session;
        frame.sequence = 1;
        message.body_case = CONVOY__MESSAGE__BODY_FRAME;
        message.frame = &frame;
        assert_int_equal(message_pack_into(&message, 3136, header, sizeof(header), &size), 0);
        client_send_raw(&client, header, cut < size ? cut : size);
        if (cut > size)
            client_send_raw(&client, oracle.inputs[0], cut - size);
        client_fini(&client);
    }
    assert_line_serves();
}

static void a_client_that_does_not_read_cannot_make_the_daemon_grow(void **state) {
    struct client client;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__StatusRequest request = CONVOY__STATUS_REQUEST__INIT;
    size_t before = daemons_resident(&line, 0);
    (void)state;
    connect_client(&client);
    message.body_case = CONVOY__MESSAGE__BODY_STATUS_REQUEST;
    message.status_request = &request;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (!client.closed && daemons_now_ms() < until)
        client_send(&client, &message, NULL, 0);
    assert_true(client.closed);
    assert_true(daemons_resident(&line, 0) < before + GROWTH_MAX);
    client_fini(&client);
    assert_line_serves();
}

static void more_clients_than_max_clients_are_sent_away(void **state) {
    struct client clients[9];
    (void)state;
    for (int i = 0; i < 9; i++) {
        client_init(&clients[i], &oracle, line.all[0].port);
        client_connect(&clients[i], CONVOY__ROLE__ROLE_CLIENT);
    }
    client_wait_closed(&clients[8]);
    assert_int_equal(clients[8].goodbye, CONVOY__CODE__CODE_TOO_MANY);
    assert_true(client_read(&clients[0], 0));
    for (int i = 0; i < 9; i++)
        client_fini(&clients[i]);
    /* Wait until they are gone, before the next test counts on a place. */
    daemons_wait_log(&line, 0, "TOO_MANY", 1);
}

/* ---- starts that cannot succeed -------------------------------------------------------------- */

static void assert_start_fails(const char *yaml, const char *const *args, const char *sentence) {
    char out[4096];
    assert_int_equal(daemons_run_once(&line, yaml, args, out, sizeof(out)), 1);
    if (!strstr(out, sentence))
        fail_msg("\"%s\" does not say \"%s\"", out, sentence);
}

static void a_port_in_use_is_a_sentence_and_exit_code_1(void **state) {
    char listen[64];
    (void)state;
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", line.all[0].port);
    assert_start_fails("node: x\n", (const char *const[]){"--listen", listen, NULL},
                       "the address is in use");
}

static void a_configuration_with_a_wrong_key_is_a_sentence_and_exit_code_1(void **state) {
    (void)state;
    assert_start_fails("node: x\nworker: 2\n", NULL, "workers");
}

static void a_model_that_is_none_is_a_sentence_and_exit_code_1(void **state) {
    char yaml[512];
    (void)state;
    snprintf(yaml, sizeof(yaml),
             "node: pi-a\nmodel: %s\npipeline:\n  - {node: pi-a, address: 127.0.0.1:1}\n",
             line.all[0].yaml);
    assert_start_fails(yaml, NULL, line.all[0].yaml);
}

static void a_cut_that_does_not_exist_is_a_sentence_and_exit_code_1(void **state) {
    char yaml[1024];
    (void)state;
    snprintf(yaml, sizeof(yaml),
             "node: pi-a\nmodel: %s\npipeline:\n"
             "  - {node: pi-a, address: 127.0.0.1:1, until: nowhere}\n"
             "  - {node: pi-b, address: 127.0.0.1:2}\n",
             line.model);
    assert_start_fails(yaml, NULL, "once.yaml:4:");
    assert_start_fails(yaml, NULL, "nowhere");
}

static void a_configuration_that_is_absent_is_a_sentence_and_exit_code_1(void **state) {
    (void)state;
    assert_start_fails("", (const char *const[]){"--config", "/no/such/file.yaml", NULL},
                       "/no/such/file.yaml");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_bytes_are_refused_and_the_line_still_serves),
        cmocka_unit_test(huge_lengths_are_refused_before_memory_is_spent),
        cmocka_unit_test(frames_beyond_the_credit_end_the_connection),
        cmocka_unit_test(the_first_message_must_be_hello),
        cmocka_unit_test(another_version_is_refused),
        cmocka_unit_test(wrong_tensors_are_refused_and_the_connection_goes_on),
        cmocka_unit_test(a_client_that_names_a_plan_is_refused),
        cmocka_unit_test(an_upstream_with_an_unknown_plan_is_refused_for_now),
        cmocka_unit_test(a_frame_of_another_session_ends_the_connection),
        cmocka_unit_test(a_frame_numbered_0_ends_the_connection),
        cmocka_unit_test(messages_that_only_a_device_sends_are_refused_from_a_client),
        cmocka_unit_test(a_connection_that_breaks_inside_a_message_is_forgotten),
        cmocka_unit_test(a_client_that_does_not_read_cannot_make_the_daemon_grow),
        cmocka_unit_test(more_clients_than_max_clients_are_sent_away),
        cmocka_unit_test(a_port_in_use_is_a_sentence_and_exit_code_1),
        cmocka_unit_test(a_configuration_with_a_wrong_key_is_a_sentence_and_exit_code_1),
        cmocka_unit_test(a_model_that_is_none_is_a_sentence_and_exit_code_1),
        cmocka_unit_test(a_cut_that_does_not_exist_is_a_sentence_and_exit_code_1),
        cmocka_unit_test(a_configuration_that_is_absent_is_a_sentence_and_exit_code_1),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
