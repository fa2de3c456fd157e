#include "ctl/client.h"

#include "proto/message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a device played by a thread with a script. Its model: y = 2 x, float32 [1,2] ---- */

#define SESSION 0x1122334455667788ull

struct fake;
typedef void (*script_fn)(struct fake *fake);

struct got {
    Convoy__Message__BodyCase kind;
    uint64_t session, sequence, token;
    float x[2];
};

struct fake {
    int listen_fd, fd;
    char address[32];
    pthread_t thread;
    script_fn script;
    struct reader *reader;
    struct got queue[64]; /* received, not yet asked for */
    size_t head, tail;
    void *payload;
    size_t chunk; /* bytes per write; 0: all at once */
    int changed;  /* the digest's first byte */
    char failure[256];
};

/* In a script: notes what went wrong and ends it. */
#define CHECK(fake, condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            if (!(fake)->failure[0])                                                               \
                snprintf((fake)->failure, sizeof((fake)->failure), "%s:%d: %s", __func__,          \
                         __LINE__, #condition);                                                    \
            return;                                                                                \
        }                                                                                          \
    } while (0)

static struct tensor_desc desc_x = {"x", DTYPE_FLOAT, 2, {1, 2}, 0};
static struct tensor_desc desc_y = {"y", DTYPE_FLOAT, 2, {1, 2}, 0};

static int on_payload(void *arg, const Convoy__Message *header, size_t bytes, void **ret_buffer) {
    struct fake *fake = arg;
    (void)header;
    *ret_buffer = fake->payload = tensor_buffer_new(bytes);
    return fake->payload ? 0 : -ENOMEM;
}

static int on_message(void *arg, const struct message *message) {
    struct fake *fake = arg;
    struct got *got = &fake->queue[fake->tail++ % 64];
    *got = (struct got){.kind = message->header->body_case};
    if (got->kind == CONVOY__MESSAGE__BODY_HELLO)
        got->session = message->header->hello->session;
    if (got->kind == CONVOY__MESSAGE__BODY_PONG)
        got->token = message->header->pong->token;
    if (got->kind == CONVOY__MESSAGE__BODY_FRAME) {
        got->session = message->header->frame->session;
        got->sequence = message->header->frame->sequence;
        if (message->payload_bytes == sizeof(got->x))
            memcpy(got->x, message->payload, sizeof(got->x));
    }
    tensor_buffer_free(fake->payload);
    fake->payload = NULL;
    return 0;
}

static void fake_hang_up(struct fake *fake) {
    if (fake->fd >= 0)
        close(fake->fd);
    fake->fd = -1;
    reader_free(fake->reader);
    fake->reader = NULL;
    tensor_buffer_free(fake->payload);
    fake->payload = NULL;
    fake->head = fake->tail = 0;
}

static void fake_accept(struct fake *fake) {
    static const struct reader_callbacks callbacks = {on_payload, on_message};
    static const struct reader_limits limits = {MESSAGE_HEADER_MAX, 1 << 20};
    struct timeval patience = {.tv_sec = 10};
    fake_hang_up(fake);
    fake->fd = accept(fake->listen_fd, NULL, NULL);
    CHECK(fake, fake->fd >= 0);
    setsockopt(fake->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    fake->reader = reader_new(&limits, &callbacks, fake);
}

/* The next message that the client sent; kind NOT_SET when none came. Its own pings are left out.
 */
static struct got fake_receive(struct fake *fake) {
    struct got nothing = {.kind = CONVOY__MESSAGE__BODY__NOT_SET};
    while (fake->reader) {
        while (fake->head != fake->tail) {
            struct got got = fake->queue[fake->head++ % 64];
            if (got.kind != CONVOY__MESSAGE__BODY_PING)
                return got;
        }
        void *data;
        size_t size;
        reader_window(fake->reader, &data, &size);
        ssize_t n = recv(fake->fd, data, size, 0);
        if (n <= 0 || reader_advance(fake->reader, (size_t)n, NULL) != 0)
            return nothing;
    }
    return nothing;
}

static void fake_write(struct fake *fake, const void *data, size_t size) {
    const char *p = data;
    while (size > 0) {
        size_t step = fake->chunk && fake->chunk < size ? fake->chunk : size;
        ssize_t n = send(fake->fd, p, step, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        p += n;
        size -= (size_t)n;
    }
}

static void fake_send(struct fake *fake, const Convoy__Message *message, const void *payload,
                      size_t bytes) {
    uint8_t *data;
    size_t size;
    CHECK(fake, message_pack(message, bytes, &data, &size) == 0);
    fake_write(fake, data, size);
    if (bytes)
        fake_write(fake, payload, bytes);
    free(data);
}

static void fake_welcome(struct fake *fake, uint64_t session, bool resumed) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Welcome welcome = CONVOY__WELCOME__INIT;
    Convoy__Tensor x, y, *px, *py;
    uint8_t digest[SHA256_SIZE] = {0};
    digest[0] = (uint8_t)fake->changed;
    convoy__tensor__init(&x);
    convoy__tensor__init(&y);
    message_fill_tensors(&desc_x, 1, &x, &px);
    message_fill_tensors(&desc_y, 1, &y, &py);
    welcome.version = MESSAGE_VERSION;
    welcome.node = (char *)"fake";
    welcome.model = (char *)"double.onnx";
    welcome.session = session;
    welcome.resumed = resumed;
    welcome.model_digest = (ProtobufCBinaryData){SHA256_SIZE, digest};
    welcome.n_inputs = welcome.n_outputs = 1;
    welcome.inputs = &px;
    welcome.outputs = &py;
    message.body_case = CONVOY__MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    fake_send(fake, &message, NULL, 0);
}

static void fake_credit(struct fake *fake, uint32_t frames) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Credit credit = CONVOY__CREDIT__INIT;
    credit.frames = frames;
    message.body_case = CONVOY__MESSAGE__BODY_CREDIT;
    message.credit = &credit;
    fake_send(fake, &message, NULL, 0);
}

/* Accepts, takes Hello, says Welcome and gives credit. */
static void fake_greet(struct fake *fake, uint64_t expected_session, uint64_t session, bool resumed,
                       uint32_t credit) {
    fake_accept(fake);
    struct got hello = fake_receive(fake);
    CHECK(fake, hello.kind == CONVOY__MESSAGE__BODY_HELLO);
    CHECK(fake, hello.session == expected_session);
    fake_welcome(fake, session, resumed);
    if (credit)
        fake_credit(fake, credit);
}

static void make_result(const struct got *frame, Convoy__Message *message, Convoy__Result *result,
                        Convoy__Tensor *y, Convoy__Tensor **py, float *data) {
    convoy__message__init(message);
    convoy__result__init(result);
    convoy__tensor__init(y);
    message_fill_tensors(&desc_y, 1, y, py);
    result->session = frame->session;
    result->sequence = frame->sequence;
    result->n_tensors = 1;
    result->tensors = py;
    message->body_case = CONVOY__MESSAGE__BODY_RESULT;
    message->result = result;
    data[0] = 2 * frame->x[0];
    data[1] = 2 * frame->x[1];
}

static void fake_answer(struct fake *fake, const struct got *frame) {
    Convoy__Message message;
    Convoy__Result result;
    Convoy__Tensor y, *py;
    float data[2];
    CHECK(fake, frame->kind == CONVOY__MESSAGE__BODY_FRAME);
    make_result(frame, &message, &result, &y, &py, data);
    fake_send(fake, &message, data, sizeof(data));
}

static void fake_refuse(struct fake *fake, const struct got *frame, Convoy__Code code, bool retry) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Refusal refusal = CONVOY__REFUSAL__INIT;
    CHECK(fake, frame->kind == CONVOY__MESSAGE__BODY_FRAME);
    refusal.session = frame->session;
    refusal.sequence = frame->sequence;
    refusal.code = code;
    refusal.retry = retry;
    refusal.text = (char *)"not this one";
    refusal.node = (char *)"fake";
    message.body_case = CONVOY__MESSAGE__BODY_REFUSAL;
    message.refusal = &refusal;
    fake_send(fake, &message, NULL, 0);
}

static void fake_goodbye(struct fake *fake, Convoy__Code code) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Goodbye goodbye = CONVOY__GOODBYE__INIT;
    goodbye.code = code;
    goodbye.text = (char *)"so long";
    message.body_case = CONVOY__MESSAGE__BODY_GOODBYE;
    message.goodbye = &goodbye;
    fake_send(fake, &message, NULL, 0);
}

/* True when the client answers a ping before it sends anything else: it is waiting for us. */
static bool fake_sees_quiet_client(struct fake *fake) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Ping ping = CONVOY__PING__INIT;
    ping.token = 4711;
    message.body_case = CONVOY__MESSAGE__BODY_PING;
    message.ping = &ping;
    fake_send(fake, &message, NULL, 0);
    struct got got = fake_receive(fake);
    return got.kind == CONVOY__MESSAGE__BODY_PONG && got.token == 4711;
}

static void *play(void *arg) {
    struct fake *fake = arg;
    fake->script(fake);
    fake_hang_up(fake);
    return NULL;
}

static struct fake *fake_start(script_fn script) {
    struct fake *fake = calloc(1, sizeof(*fake));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    assert_non_null(fake);
    fake->fd = -1;
    fake->script = script;
    fake->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fake->listen_fd >= 0);
    assert_int_equal(bind(fake->listen_fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fake->listen_fd, 4), 0);
    assert_int_equal(getsockname(fake->listen_fd, (struct sockaddr *)&at, &size), 0);
    snprintf(fake->address, sizeof(fake->address), "127.0.0.1:%d", ntohs(at.sin_port));
    assert_int_equal(pthread_create(&fake->thread, NULL, play, fake), 0);
    return fake;
}

static void fake_end(struct fake *fake) {
    pthread_join(fake->thread, NULL);
    close(fake->listen_fd);
    if (fake->failure[0])
        fail_msg("the device's script: %s", fake->failure);
    free(fake);
}

/* ---- the client's side ---- */

static struct client *connect_to(const struct fake *fake, bool ordered, size_t window) {
    struct client *client;
    struct err err = {{0}};
    struct client_params params = {
        .address = fake->address, .ordered = ordered, .window = window, .retry_ms = 5000};
    if (client_new(&params, &client, &err) != 0)
        fail_msg("%s", err.text);
    return client;
}

static void submit(struct client *client, int value) {
    struct client_frame *frame = client_frame_new(client);
    assert_non_null(frame);
    float *x = client_frame_tensors(frame)[0].data;
    x[0] = (float)value;
    x[1] = (float)-value;
    assert_int_equal(client_submit(client, frame, NULL, NULL), 0);
}

/* Takes the next result, which must be that of submit(value). */
static void expect_result(struct client *client, int value) {
    struct client_result result;
    struct err err = {{0}};
    if (client_next(client, 10000, &result, &err) != 1)
        fail_msg("no result: %s", err.text);
    if (result.status != 0)
        fail_msg("%s", result.text);
    assert_int_equal(result.tensors_count, 1);
    const float *y = result.tensors[0].data;
    assert_true(y[0] == (float)(2 * value) && y[1] == (float)(-2 * value));
    client_result_fini(&result);
}

static void expect_end(struct client *client) {
    struct client_result result;
    client_finish(client);
    assert_int_equal(client_next(client, 10000, &result, NULL), 0);
}

/* ---- tests ---- */

static void script_reversed(struct fake *fake) {
    struct got frames[4];
    fake_greet(fake, 0, SESSION, false, 4);
    for (int i = 0; i < 4; i++) {
        frames[i] = fake_receive(fake);
        CHECK(fake, frames[i].kind == CONVOY__MESSAGE__BODY_FRAME);
        CHECK(fake, frames[i].session == SESSION);
        CHECK(fake, frames[i].sequence == (uint64_t)i + 1);
    }
    for (int i = 3; i >= 0; i--)
        fake_answer(fake, &frames[i]);
    fake_receive(fake);
}

static void ordered_results_come_in_submit_order(void **state) {
    struct fake *fake = fake_start(script_reversed);
    struct client *client = connect_to(fake, true, 0);
    (void)state;
    for (int i = 0; i < 4; i++)
        submit(client, i);
    for (int i = 0; i < 4; i++)
        expect_result(client, i);
    expect_end(client);
    client_free(client);
    fake_end(fake);
}

static void unordered_results_come_as_they_complete(void **state) {
    struct fake *fake = fake_start(script_reversed);
    struct client *client = connect_to(fake, false, 0);
    (void)state;
    for (int i = 0; i < 4; i++)
        submit(client, i);
    for (int i = 3; i >= 0; i--)
        expect_result(client, i);
    expect_end(client);
    client_free(client);
    fake_end(fake);
}

static void script_welcome_only(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 0);
    fake_receive(fake);
}

static void welcome_tells_what_the_line_computes(void **state) {
    struct fake *fake = fake_start(script_welcome_only);
    struct client *client = connect_to(fake, true, 0);
    const struct client_info *info = client_get_info(client);
    (void)state;
    assert_string_equal(info->node, "fake");
    assert_string_equal(info->model, "double.onnx");
    assert_int_equal(info->inputs_count, 1);
    assert_string_equal(info->inputs[0].name, "x");
    assert_true(tensor_desc_same(&info->outputs[0], &desc_y));
    client_free(client);
    fake_end(fake);
}

static void script_byte_by_byte(struct fake *fake) {
    fake->chunk = 1;
    fake_greet(fake, 0, SESSION, false, 2);
    for (int i = 0; i < 2; i++) {
        struct got frame = fake_receive(fake);
        fake_answer(fake, &frame);
    }
    fake_receive(fake);
}

static void messages_may_come_byte_by_byte(void **state) {
    struct fake *fake = fake_start(script_byte_by_byte);
    struct client *client = connect_to(fake, true, 0);
    (void)state;
    submit(client, 7);
    submit(client, 8);
    expect_result(client, 7);
    expect_result(client, 8);
    client_free(client);
    fake_end(fake);
}

static void script_cut_in_result(struct fake *fake) {
    struct got frames[3];
    uint8_t *data;
    size_t size;
    Convoy__Message message;
    Convoy__Result result;
    Convoy__Tensor y, *py;
    float values[2];
    fake_greet(fake, 0, SESSION, false, 3);
    for (int i = 0; i < 3; i++)
        frames[i] = fake_receive(fake);
    fake_answer(fake, &frames[0]);
    make_result(&frames[1], &message, &result, &y, &py, values);
    CHECK(fake, message_pack(&message, sizeof(values), &data, &size) == 0);
    fake_write(fake, data, size);
    fake_write(fake, values, 3); /* and the cable is pulled */
    free(data);

    fake_greet(fake, SESSION, SESSION, true, 3);
    for (int i = 1; i < 3; i++) {
        struct got again = fake_receive(fake);
        CHECK(fake, again.kind == CONVOY__MESSAGE__BODY_FRAME);
        CHECK(fake, again.session == SESSION);
        CHECK(fake, again.sequence == frames[i].sequence);
        CHECK(fake, again.x[0] == frames[i].x[0]);
        fake_answer(fake, &again);
    }
    fake_receive(fake);
}

static void lost_connection_loses_and_repeats_nothing(void **state) {
    struct fake *fake = fake_start(script_cut_in_result);
    struct client *client = connect_to(fake, true, 0);
    struct client_counts counts;
    (void)state;
    for (int i = 1; i <= 3; i++)
        submit(client, i);
    for (int i = 1; i <= 3; i++)
        expect_result(client, i);
    expect_end(client);
    client_get_counts(client, &counts);
    assert_int_equal(counts.reconnects, 1);
    assert_int_equal(counts.resent, 2);
    assert_int_equal(counts.answered, 3);
    client_free(client);
    fake_end(fake);
}

static void script_forgetful(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 3);
    struct got first = fake_receive(fake);
    fake_answer(fake, &first);
    struct got second = fake_receive(fake);
    CHECK(fake, second.sequence == 2);
    fake_greet(fake, SESSION, SESSION + 1, false, 3);
    struct got again = fake_receive(fake);
    CHECK(fake, again.session == SESSION + 1);
    CHECK(fake, again.sequence == 1);
    fake_answer(fake, &second); /* of the old session: nobody's */
    fake_answer(fake, &again);
    fake_receive(fake);
}

static void forgotten_session_starts_anew(void **state) {
    struct fake *fake = fake_start(script_forgetful);
    struct client *client = connect_to(fake, true, 0);
    struct client_counts counts;
    (void)state;
    submit(client, 1);
    expect_result(client, 1);
    submit(client, 2);
    expect_result(client, 2);
    expect_end(client);
    client_get_counts(client, &counts);
    assert_int_equal(counts.duplicates, 1);
    client_free(client);
    fake_end(fake);
}

static void script_twice(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 2);
    struct got first = fake_receive(fake);
    struct got second = fake_receive(fake);
    fake_answer(fake, &first);
    fake_answer(fake, &first);
    fake_answer(fake, &second);
    fake_answer(fake, &second);
    fake_answer(fake, &first);
    CHECK(fake, fake_sees_quiet_client(fake));
    fake_receive(fake);
}

static void duplicate_results_are_dropped(void **state) {
    struct fake *fake = fake_start(script_twice);
    struct client *client = connect_to(fake, false, 0);
    (void)state;
    submit(client, 1);
    submit(client, 2);
    expect_result(client, 1);
    expect_result(client, 2);
    expect_end(client);
    client_free(client);
    fake_end(fake);
}

static void script_refusing(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 4);
    struct got first = fake_receive(fake);
    struct got second = fake_receive(fake);
    fake_refuse(fake, &first, CONVOY__CODE__CODE_SHUTTING_DOWN, true);
    fake_refuse(fake, &second, CONVOY__CODE__CODE_WRONG_TENSORS, false);
    struct got again = fake_receive(fake);
    CHECK(fake, again.kind == CONVOY__MESSAGE__BODY_FRAME);
    CHECK(fake, again.sequence == first.sequence);
    fake_answer(fake, &again);
    fake_receive(fake);
}

static void refused_frames_are_sent_again_or_fail(void **state) {
    struct fake *fake = fake_start(script_refusing);
    struct client *client = connect_to(fake, true, 0);
    struct client_result result;
    (void)state;
    submit(client, 1);
    submit(client, 2);
    expect_result(client, 1);
    assert_int_equal(client_next(client, 10000, &result, NULL), 1);
    assert_int_equal(result.status, -EREMOTEIO);
    assert_non_null(strstr(result.text, "WRONG_TENSORS"));
    assert_non_null(strstr(result.text, "not this one"));
    client_result_fini(&result);
    expect_end(client);
    client_free(client);
    fake_end(fake);
}

static void script_one_credit(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 1);
    struct got first = fake_receive(fake);
    CHECK(fake, first.kind == CONVOY__MESSAGE__BODY_FRAME);
    CHECK(fake, fake_sees_quiet_client(fake));
    fake_answer(fake, &first);
    CHECK(fake, fake_sees_quiet_client(fake)); /* a result is no credit */
    fake_credit(fake, 1);
    struct got second = fake_receive(fake);
    fake_answer(fake, &second);
    fake_receive(fake);
}

static void frames_wait_for_credit(void **state) {
    struct fake *fake = fake_start(script_one_credit);
    struct client *client = connect_to(fake, true, 0);
    (void)state;
    submit(client, 1);
    submit(client, 2);
    expect_result(client, 1);
    expect_result(client, 2);
    client_free(client);
    fake_end(fake);
}

static void script_window(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 100);
    struct got first = fake_receive(fake);
    struct got second = fake_receive(fake);
    CHECK(fake, fake_sees_quiet_client(fake));
    fake_answer(fake, &first);
    struct got third = fake_receive(fake);
    fake_answer(fake, &second);
    fake_answer(fake, &third);
    fake_receive(fake);
}

static void *submit_three(void *arg) {
    for (int i = 1; i <= 3; i++)
        submit(arg, i);
    return NULL;
}

static void window_bounds_what_is_submitted(void **state) {
    struct fake *fake = fake_start(script_window);
    struct client *client = connect_to(fake, true, 2);
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, submit_three, client), 0);
    for (int i = 1; i <= 3; i++)
        expect_result(client, i);
    pthread_join(thread, NULL);
    client_free(client);
    fake_end(fake);
}

static void skipped_places_keep_their_order(void **state) {
    struct fake *fake = fake_start(script_byte_by_byte);
    struct client *client = connect_to(fake, true, 0);
    struct client_result result;
    int mark;
    (void)state;
    submit(client, 1);
    assert_int_equal(client_skip(client, &mark, NULL), 0);
    submit(client, 3);
    expect_result(client, 1);
    assert_int_equal(client_next(client, 10000, &result, NULL), 1);
    assert_int_equal(result.status, -ENODATA);
    assert_ptr_equal(result.user, &mark);
    assert_int_equal(result.number, 1);
    client_result_fini(&result);
    expect_result(client, 3);
    client_free(client);
    fake_end(fake);
}

static void script_shutting_down(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 1);
    struct got frame = fake_receive(fake);
    CHECK(fake, frame.kind == CONVOY__MESSAGE__BODY_FRAME);
    fake_goodbye(fake, CONVOY__CODE__CODE_SHUTTING_DOWN);
    fake_accept(fake);
    fake_receive(fake);
    fake_goodbye(fake, CONVOY__CODE__CODE_TOO_MANY);
    fake_greet(fake, SESSION, SESSION, true, 1);
    frame = fake_receive(fake);
    fake_answer(fake, &frame);
    fake_receive(fake);
}

static void passing_goodbyes_are_outlived(void **state) {
    struct fake *fake = fake_start(script_shutting_down);
    struct client *client = connect_to(fake, true, 0);
    (void)state;
    submit(client, 5);
    expect_result(client, 5);
    client_free(client);
    fake_end(fake);
}

static void script_other_model(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 1);
    fake_receive(fake);
    fake->changed = 1;
    fake_greet(fake, SESSION, SESSION + 1, false, 1);
    fake_receive(fake);
}

static void another_model_after_a_break_is_an_error(void **state) {
    struct fake *fake = fake_start(script_other_model);
    struct client *client = connect_to(fake, true, 0);
    struct client_result result;
    struct err err = {{0}};
    (void)state;
    submit(client, 1);
    assert_int_equal(client_next(client, 10000, &result, &err), -ESTALE);
    assert_non_null(strstr(err.text, "another model"));
    assert_non_null(strstr(err.text, fake->address));
    assert_int_equal(client_discard(client, &result), 1);
    assert_int_equal(client_discard(client, &result), 0);
    client_free(client);
    fake_end(fake);
}

static void script_wrong_result(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 1);
    struct got frame = fake_receive(fake);
    desc_y.name = "z";
    fake_answer(fake, &frame);
    desc_y.name = "y";
    fake_receive(fake);
}

static void result_of_another_name_fails_its_frame(void **state) {
    struct fake *fake = fake_start(script_wrong_result);
    struct client *client = connect_to(fake, true, 0);
    struct client_result result;
    (void)state;
    submit(client, 1);
    assert_int_equal(client_next(client, 10000, &result, NULL), 1);
    assert_true(result.status < 0);
    assert_int_equal(result.tensors_count, 0);
    client_result_fini(&result);
    client_free(client);
    fake_end(fake);
}

static void script_no_pipeline(struct fake *fake) {
    fake_accept(fake);
    fake_receive(fake);
    fake_goodbye(fake, CONVOY__CODE__CODE_NO_PIPELINE);
    fake_receive(fake);
}

static void script_garbage(struct fake *fake) {
    fake_accept(fake);
    fake_receive(fake);
    fake_write(fake, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    fake_receive(fake);
}

static void script_huge_header(struct fake *fake) {
    fake_accept(fake);
    fake_receive(fake);
    fake_write(fake, "\xff\xff\xff\xff\x07\x09\xff\xff\xff\x7f\xff\xff\xff\x7f", 14);
    fake_receive(fake);
}

static void script_version(struct fake *fake) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Welcome welcome = CONVOY__WELCOME__INIT;
    fake_accept(fake);
    fake_receive(fake);
    welcome.version = 99;
    message.body_case = CONVOY__MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    fake_send(fake, &message, NULL, 0);
    fake_receive(fake);
}

static void script_empty_welcome(struct fake *fake) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Welcome welcome = CONVOY__WELCOME__INIT;
    fake_accept(fake);
    fake_receive(fake);
    welcome.version = MESSAGE_VERSION;
    welcome.node = (char *)"pi-b";
    message.body_case = CONVOY__MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    fake_send(fake, &message, NULL, 0);
    fake_receive(fake);
}

/* Often enough for a client to give up. */
static void script_hang_up(struct fake *fake) {
    for (int tries = 0; tries < 4; tries++) {
        fake_accept(fake);
        fake_receive(fake);
    }
    close(fake->listen_fd); /* nor is it heard of again */
    fake->listen_fd = -1;
}

static void script_hang_up_at_first(struct fake *fake) {
    for (int tries = 0; tries < 3; tries++) {
        fake_accept(fake);
        CHECK(fake, fake_receive(fake).kind == CONVOY__MESSAGE__BODY_HELLO);
    }
    fake_greet(fake, 0, SESSION, false, 1);
    struct got frame = fake_receive(fake);
    fake_answer(fake, &frame);
    fake_receive(fake);
}

/* The device was late, or had too many that had not said Hello. */
static void a_connection_closed_before_welcome_is_made_again(void **state) {
    struct fake *fake = fake_start(script_hang_up_at_first);
    struct client_params params = {.address = fake->address};
    struct client *client;
    struct err err = {{0}};
    (void)state;
    if (client_new(&params, &client, &err) != 0)
        fail_msg("%s", err.text);
    submit(client, 1);
    expect_result(client, 1);
    expect_end(client);
    client_free(client);
    fake_end(fake);
}

static void every_bad_greeting_is_a_sentence(void **state) {
    static const struct {
        script_fn script;
        const char *says;
    } cases[] = {
        {script_no_pipeline, "NO_PIPELINE"},        {script_garbage, "127.0.0.1"},
        {script_huge_header, "127.0.0.1"},          {script_version, "version 99"},
        {script_empty_welcome, "not the first of"}, {script_hang_up, "closed by the other side"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fake *fake = fake_start(cases[i].script);
        struct client_params params = {.address = fake->address};
        struct client *client;
        struct err err = {{0}};
        assert_true(client_new(&params, &client, &err) < 0);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says '%s'", i, err.text);
        if (cases[i].script == script_hang_up) /* not only what the last one took */
            assert_non_null(strstr(err.text, " (4 attempts in "));
        fake_end(fake);
    }
}

static void nobody_there_is_said_at_once(void **state) {
    struct fake *fake = fake_start(script_hang_up);
    char address[32];
    struct client_params params = {.address = address};
    struct client *client;
    struct err err = {{0}};
    (void)state;
    memcpy(address, fake->address, sizeof(address));
    struct client_params first = {.address = fake->address};
    assert_true(client_new(&first, &client, NULL) < 0); /* ends the script, frees the port */
    fake_end(fake);
    assert_int_equal(client_new(&params, &client, &err), -ECONNREFUSED);
    assert_non_null(strstr(err.text, "does convoyd listen there?"));
    params.address = "no address";
    assert_int_equal(client_new(&params, &client, &err), -EINVAL);
}

static void script_vanish(struct fake *fake) {
    fake_greet(fake, 0, SESSION, false, 2);
    struct got frame = fake_receive(fake);
    fake_answer(fake, &frame);
    fake_receive(fake);
    close(fake->listen_fd);
    fake->listen_fd = -1;
}

static void vanished_line_is_given_up_after_a_while(void **state) {
    struct fake *fake = fake_start(script_vanish);
    struct client_params params = {.address = fake->address, .ordered = true, .retry_ms = 1};
    struct client *client;
    struct client_result result;
    struct err err = {{0}};
    (void)state;
    assert_int_equal(client_new(&params, &client, NULL), 0);
    submit(client, 1);
    submit(client, 2);
    expect_result(client, 1);
    assert_true(client_next(client, 10000, &result, &err) < 0);
    assert_non_null(strstr(err.text, fake->address));
    client_free(client);
    fake_end(fake);
}

static void *cancel_soon(void *arg) {
    client_cancel(arg);
    return NULL;
}

static void cancelled_client_ends_every_wait(void **state) {
    struct fake *fake = fake_start(script_welcome_only);
    struct client *client = connect_to(fake, true, 1);
    struct client_result result;
    struct client_frame *frame;
    pthread_t thread;
    (void)state;
    submit(client, 1);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, client), 0);
    assert_int_equal(client_next(client, -1, &result, NULL), -ECANCELED);
    frame = client_frame_new(client);
    assert_int_equal(client_submit(client, frame, NULL, NULL), -ECANCELED);
    pthread_join(thread, NULL);
    client_free(client);
    fake_end(fake);
}

static void next_returns_after_its_timeout(void **state) {
    struct fake *fake = fake_start(script_welcome_only);
    struct client *client = connect_to(fake, true, 0);
    struct client_result result;
    (void)state;
    submit(client, 1);
    assert_int_equal(client_next(client, 0, &result, NULL), -EAGAIN);
    assert_int_equal(client_next(client, 5, &result, NULL), -EAGAIN);
    client_free(client);
    fake_end(fake);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(welcome_tells_what_the_line_computes),
        cmocka_unit_test(ordered_results_come_in_submit_order),
        cmocka_unit_test(unordered_results_come_as_they_complete),
        cmocka_unit_test(messages_may_come_byte_by_byte),
        cmocka_unit_test(lost_connection_loses_and_repeats_nothing),
        cmocka_unit_test(forgotten_session_starts_anew),
        cmocka_unit_test(duplicate_results_are_dropped),
        cmocka_unit_test(refused_frames_are_sent_again_or_fail),
        cmocka_unit_test(frames_wait_for_credit),
        cmocka_unit_test(window_bounds_what_is_submitted),
        cmocka_unit_test(skipped_places_keep_their_order),
        cmocka_unit_test(passing_goodbyes_are_outlived),
        cmocka_unit_test(another_model_after_a_break_is_an_error),
        cmocka_unit_test(result_of_another_name_fails_its_frame),
        cmocka_unit_test(every_bad_greeting_is_a_sentence),
        cmocka_unit_test(a_connection_closed_before_welcome_is_made_again),
        cmocka_unit_test(nobody_there_is_said_at_once),
        cmocka_unit_test(vanished_line_is_given_up_after_a_while),
        cmocka_unit_test(cancelled_client_ends_every_wait),
        cmocka_unit_test(next_returns_after_its_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
