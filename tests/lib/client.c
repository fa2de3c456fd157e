#include "client.h"

#include "daemons.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- what the answers must be ---------------------------------------------------------------- */

static void fill_noise(float *data, size_t count, uint32_t seed) {
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (float)(seed >> 8) / (float)(1 << 24);
    }
}

void oracle_init(struct oracle *oracle, const char *path) {
    struct stage *stage;
    struct exec *exec;
    struct err err = {""};
    size_t inputs, outputs;
    memset(oracle, 0, sizeof(*oracle));
    if (model_open(path, NULL, &oracle->model, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(
        stage_new(oracle->model, 0, model_layers_count(oracle->model), NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    oracle->input = stage_inputs(stage, &inputs)[0];
    oracle->output = stage_outputs(stage, &outputs)[0];
    assert_int_equal(inputs, 1);
    assert_int_equal(outputs, 1);
    oracle->input = model_cut(oracle->model, 0, &inputs)[0];
    oracle->output = model_cut(oracle->model, model_layers_count(oracle->model), &outputs)[0];
    assert_int_equal(tensor_desc_bytes(&oracle->input, &oracle->input_bytes), 0);
    assert_int_equal(tensor_desc_bytes(&oracle->output, &oracle->output_bytes), 0);
    for (uint32_t i = 0; i < ORACLE_PICTURES; i++) {
        oracle->inputs[i] = tensor_buffer_new(oracle->input_bytes);
        oracle->outputs[i] = tensor_buffer_new(oracle->output_bytes);
        fill_noise(oracle->inputs[i], oracle->input_bytes / sizeof(float), i + 1);
        const struct tensor input = {oracle->input, oracle->inputs[i]};
        struct tensor output = {oracle->output, oracle->outputs[i]};
        assert_int_equal(exec_run(exec, &input, &output, &err), 0);
        oracle->shapes[i] = output.desc;
    }
    exec_free(exec);
    stage_unref(stage);
}

void oracle_fini(struct oracle *oracle) {
    for (size_t i = 0; i < ORACLE_PICTURES; i++) {
        tensor_buffer_free(oracle->inputs[i]);
        tensor_buffer_free(oracle->outputs[i]);
    }
    model_unref(oracle->model);
}

const char *oracle_layer(const struct oracle *oracle, size_t index) {
    return model_layer(oracle->model, index)->name;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int on_payload(void *arg, const Convoy__Message *header, size_t bytes, void **ret_buffer) {
    struct client *client = arg;
    (void)header;
    tensor_buffer_free(client->payload);
    client->payload = tensor_buffer_new(bytes);
    *ret_buffer = client->payload;
    return client->payload ? 0 : -ENOMEM;
}

static void count_answer(struct client *client, uint64_t session, uint64_t sequence) {
    assert_true(session == client->session);
    assert_in_range(sequence, 1, CLIENT_FRAMES - 1);
    if (client->answers[sequence]++ == 0)
        client->answered++;
    else
        client->repeated++;
}

static void handle_result(struct client *client, const Convoy__Result *result,
                          const struct message *message) {
    const struct oracle *oracle = client->oracle;
    size_t picture = result->sequence % ORACLE_PICTURES, bytes = 0, offset;
    struct tensor_desc desc;
    count_answer(client, result->session, result->sequence);
    if (tensor_desc_bytes(&oracle->shapes[picture], &bytes) < 0 ||
        message->payload_bytes != bytes ||
        message_check_tensors(result->tensors, result->n_tensors, bytes, &oracle->output, 1, &desc,
                              &offset, NULL) < 0 ||
        !tensor_desc_same(&desc, &oracle->shapes[picture]) ||
        (bytes > 0 && memcmp(message->payload, oracle->outputs[picture], bytes) != 0))
        client->wrong++;
}

static void handle_ping(struct client *client, uint64_t token) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Pong pong = CONVOY__PONG__INIT;
    client->pings++;
    pong.token = token;
    message.body_case = CONVOY__MESSAGE__BODY_PONG;
    message.pong = &pong;
    client_send(client, &message, NULL, 0);
}

/* Where the test plays a device, there is little to tell. */
static void answer_status(struct client *client, uint64_t token) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Status status = CONVOY__STATUS__INIT;
    Convoy__StageStatus stage = CONVOY__STAGE_STATUS__INIT, *stages[] = {&stage};
    stage.workers = client->workers;
    status.token = token;
    status.n_stages = client->workers > 0;
    status.stages = stages;
    message.body_case = CONVOY__MESSAGE__BODY_STATUS;
    message.status = &status;
    client_send(client, &message, NULL, 0);
}

static void keep_status(struct client *client, const Convoy__Status *status) {
    size_t size = convoy__status__get_packed_size(status);
    uint8_t *copy = malloc(size + 1);
    assert_non_null(copy);
    convoy__status__pack(status, copy);
    if (client->status)
        convoy__status__free_unpacked(client->status, NULL);
    client->status = convoy__status__unpack(NULL, size, copy);
    free(copy);
}

static void keep_frame(struct client *client, const Convoy__Frame *frame) {
    client->frames++;
    client->frame.session = frame->session;
    client->frame.sequence = frame->sequence;
    assert_int_equal(frame->plan.len, sizeof(client->frame.plan));
    memcpy(client->frame.plan, frame->plan.data, sizeof(client->frame.plan));
}

static void keep_other(struct client *client, const struct message *message) {
    size_t size = convoy__message__get_packed_size(message->header);
    uint8_t *copy = malloc(size + 1);
    assert_non_null(copy);
    convoy__message__pack(message->header, copy);
    if (client->other)
        convoy__message__free_unpacked(client->other, NULL);
    client->other = convoy__message__unpack(NULL, size, copy);
    client->others++;
    client->other_bytes = message->payload_bytes;
    client->chunks += message->header->body_case == CONVOY__MESSAGE__BODY_PART_CHUNK;
    free(copy);
}

static int on_message(void *arg, const struct message *message) {
    struct client *client = arg;
    const Convoy__Message *header = message->header;
    switch (header->body_case) {
    case CONVOY__MESSAGE__BODY_WELCOME:
        client->welcomed = true;
        client->resumed = header->welcome->resumed;
        client->session = header->welcome->session;
        break;
    case CONVOY__MESSAGE__BODY_CREDIT:
        client->credits += header->credit->frames;
        break;
    case CONVOY__MESSAGE__BODY_RESULT:
        handle_result(client, header->result, message);
        break;
    case CONVOY__MESSAGE__BODY_REFUSAL:
        client->refused++;
        client->refusal = header->refusal->code;
        client->refusal_retry = header->refusal->retry;
        break;
    case CONVOY__MESSAGE__BODY_GOODBYE:
        client->goodbye = header->goodbye->code;
        break;
    case CONVOY__MESSAGE__BODY_PING:
        handle_ping(client, header->ping->token);
        break;
    case CONVOY__MESSAGE__BODY_HELLO:
        client->hellos++;
        client->role = header->hello->role;
        break;
    case CONVOY__MESSAGE__BODY_FRAME:
        keep_frame(client, header->frame);
        break;
    case CONVOY__MESSAGE__BODY_STATUS_REQUEST:
        answer_status(client, header->status_request->token);
        break;
    case CONVOY__MESSAGE__BODY_STATUS:
        keep_status(client, header->status);
        break;
    case CONVOY__MESSAGE__BODY_PONG:
        client->pongs++;
        break;
    case CONVOY__MESSAGE__BODY_PLANS:
        break;
    default:
        keep_other(client, message);
        break;
    }
    return 0;
}

static const struct reader_callbacks callbacks = {on_payload, on_message};
static const struct reader_limits limits = {MESSAGE_HEADER_MAX, 64u << 20};

bool client_read(struct client *client, int timeout_ms) {
    struct pollfd poller = {.fd = client->fd, .events = POLLIN};
    struct err err = {""};
    void *data;
    size_t size;
    if (client->closed)
        return false;
    while (poll(&poller, 1, timeout_ms) > 0) {
        reader_window(client->reader, &data, &size);
        ssize_t got = read(client->fd, data, size);
        if (got <= 0) {
            client->closed = true;
            return false;
        }
        if (reader_advance(client->reader, (size_t)got, &err) < 0)
            fail_msg("the daemon sent nonsense: %s", err.text);
        timeout_ms = 0;
    }
    return true;
}

/* ---- life ------------------------------------------------------------------------------------ */

void client_init(struct client *client, const struct oracle *oracle, uint16_t port) {
    memset(client, 0, sizeof(*client));
    client->oracle = oracle;
    client->port = port;
    client->fd = -1;
    client->next = 1;
    client->answers = calloc(CLIENT_FRAMES, 1);
    assert_non_null(client->answers);
}

void client_close(struct client *client) {
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    reader_free(client->reader);
    client->reader = NULL;
    client->closed = true;
}

void client_fini(struct client *client) {
    client_close(client);
    if (client->status)
        convoy__status__free_unpacked(client->status, NULL);
    if (client->other)
        convoy__message__free_unpacked(client->other, NULL);
    tensor_buffer_free(client->payload);
    free(client->answers);
}

void client_open(struct client *client) {
    client_open_from(client, "127.0.0.1");
}

void client_open_from(struct client *client, const char *from) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(client->port)};
    struct sockaddr_in own = {.sin_family = AF_INET};
    int one = 1;
    assert_int_equal(inet_pton(AF_INET, from, &own.sin_addr), 1);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(client->fd >= 0);
    assert_int_equal(bind(client->fd, (struct sockaddr *)&own, sizeof(own)), 0);
    assert_int_equal(connect(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    client->reader = reader_new(&limits, &callbacks, client);
    assert_non_null(client->reader);
    client->closed = client->welcomed = client->resumed = false;
    client->credits = 0;
    client->goodbye = CONVOY__CODE__CODE_OK;
}

void client_connect(struct client *client, Convoy__Role role) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    client_open(client);
    hello.version = MESSAGE_VERSION;
    hello.role = role;
    hello.node = (char *)(uintptr_t) "test";
    hello.session = client->session;
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    client_send(client, &message, NULL, 0);
    while (!client->welcomed && client_read(client, 100))
        if (daemons_now_ms() > until)
            fail_msg("no Welcome");
}

void client_accept(struct client *client, int listen_fd) {
    struct pollfd poller = {.fd = listen_fd, .events = POLLIN};
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    assert_int_equal(poll(&poller, 1, CLIENT_CAP_MS), 1);
    client->fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(client->fd >= 0);
    reader_free(client->reader);
    client->reader = reader_new(&limits, &callbacks, client);
    assert_non_null(client->reader);
    client->closed = false;
    client->hellos = 0;
    while (client->hellos == 0)
        if (!client_read(client, 100) || daemons_now_ms() > until)
            fail_msg("no Hello came");
}

void client_play(struct client *client, const struct daemon_process *process) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Welcome welcome = CONVOY__WELCOME__INIT;
    client_accept(client, process->listen_fd);
    while (client->role != CONVOY__ROLE__ROLE_INGRESS) {
        client_close(client);
        client_accept(client, process->listen_fd);
    }
    welcome.version = MESSAGE_VERSION;
    welcome.node = (char *)(uintptr_t)process->node;
    welcome.max_payload = 64u << 20;
    message.body_case = CONVOY__MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    client_send(client, &message, NULL, 0);
}

void client_cut(struct client *client) {
    client_close(client);
    client->next = 1;
}

/* ---- sending --------------------------------------------------------------------------------- */

void client_send_raw(struct client *client, const void *data, size_t size) {
    const char *at = data;
    while (size > 0 && !client->closed) {
        ssize_t sent = send(client->fd, at, size, MSG_NOSIGNAL);
        if (sent < 0) {
            client->closed = true;
            return;
        }
        at += sent;
        size -= (size_t)sent;
    }
}

void client_send(struct client *client, const Convoy__Message *message, const void *payload,
                 size_t bytes) {
    uint8_t header[4096];
    size_t size;
    assert_int_equal(message_pack_into(message, bytes, header, sizeof(header), &size), 0);
    client_send_raw(client, header, size);
    client_send_raw(client, payload, bytes);
}

void client_send_frame(struct client *client, uint64_t sequence) {
    const struct oracle *oracle = client->oracle;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Frame frame = CONVOY__FRAME__INIT;
    Convoy__Tensor tensor, *tensors;
    assert_int_equal(message_fill_tensors(&oracle->input, 1, &tensor, &tensors), 0);
    frame.session = client->session;
    frame.sequence = sequence;
    frame.n_tensors = 1;
    frame.tensors = &tensors;
    message.body_case = CONVOY__MESSAGE__BODY_FRAME;
    message.frame = &frame;
    client_send(client, &message, oracle->inputs[sequence % ORACLE_PICTURES], oracle->input_bytes);
}

void client_push(struct client *client) {
    while (!client->closed && client->credits > 0 && client->next <= client->target) {
        if (!client->answers[client->next]) {
            client_send_frame(client, client->next);
            client->credits--;
        }
        client->next++;
    }
}

void client_run(struct client *client, size_t count) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client->answered < count) {
        client_push(client);
        if (!client_read(client, 100))
            fail_msg("the connection was closed (Goodbye %s) after %zu answers",
                     message_code_name(client->goodbye), client->answered);
        if (daemons_now_ms() > until)
            fail_msg("only %zu of %zu frames were answered", client->answered, count);
    }
}

void client_wait_closed(struct client *client) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client_read(client, 100))
        if (daemons_now_ms() > until)
            fail_msg("the connection was not closed");
}

void client_wait_credit(struct client *client) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client->credits == 0) {
        if (!client_read(client, 100) || daemons_now_ms() > until)
            fail_msg("no credit came");
    }
}

void client_settle(struct client *client) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Ping ping = CONVOY__PING__INIT;
    size_t pongs = client->pongs;
    message.body_case = CONVOY__MESSAGE__BODY_PING;
    message.ping = &ping;
    client_send(client, &message, NULL, 0);
    while (client->pongs == pongs)
        if (!client_read(client, 100) || daemons_now_ms() > until)
            fail_msg("no Pong");
}

void client_ask_status(struct client *client) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__StatusRequest request = CONVOY__STATUS_REQUEST__INIT;
    if (client->status)
        convoy__status__free_unpacked(client->status, NULL);
    client->status = NULL;
    request.token = 77;
    message.body_case = CONVOY__MESSAGE__BODY_STATUS_REQUEST;
    message.status_request = &request;
    client_send(client, &message, NULL, 0);
}

const Convoy__Status *client_status(struct client *client) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    client_ask_status(client);
    while (!client->status)
        if (!client_read(client, 100) || daemons_now_ms() > until)
            fail_msg("no Status came");
    assert_int_equal(client->status->token, 77);
    return client->status;
}

void client_assert_exactly_once(const struct client *client, size_t count) {
    assert_int_equal(client->wrong, 0);
    assert_int_equal(client->repeated, 0);
    assert_int_equal(client->refused, 0);
    for (size_t i = 1; i <= count; i++)
        assert_int_equal(client->answers[i], 1);
}

const Convoy__Message *client_wait_other(struct client *client, Convoy__Message__BodyCase kind) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    size_t before = client->others;
    while (client->others == before || client->other->body_case != kind) {
        client_push(client);
        if (!client_read(client, 20))
            fail_msg("the connection was closed (Goodbye %s)", message_code_name(client->goodbye));
        if (daemons_now_ms() > until)
            fail_msg("message %d never came", (int)kind);
    }
    return client->other;
}
