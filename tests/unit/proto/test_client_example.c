/* examples/client.py, with stock protobuf from end to end, against a device that consists of this
 * test: a blocking socket, the reader and message_pack(). */
#include "proto/message.h"
#include "tests/lib/messages.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 30000 /* a cap: Python may start slowly on a busy machine */

#define PYTHON "/usr/bin/python3"

static char folder[] = "/tmp/convoy-client-XXXXXX";
static bool have_python;

/* The exit code of a shell command; not 0 when it cannot be run. */
static int shell(const char *command) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                           : -1;
}

/* Makes convoy_pb2.py and two inputs; without Python's packages the tests are skipped. */
static int prepare(void **state) {
    (void)state;
    char command[1000];
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(command, sizeof(command),
                   "protoc --proto_path=proto --python_out=%s convoy.proto && " PYTHON
                   " -c 'import numpy as np, google.protobuf\n"
                   "np.save(\"%s/x.npy\", np.float64([[1, 2, 3]]))\n"
                   "np.save(\"%s/k.npy\", np.int64([10, 20]))' 2>/dev/null",
                   folder, folder, folder);
    have_python = shell(command) == 0;
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    char command[100];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return shell(command);
}

/* ---- a device -------------------------------------------------------------------------------- */

static const struct tensor_desc inputs[] = {
    {.name = "x", .dtype = DTYPE_FLOAT, .rank = 2, .dims = {1, 3}},
    {.name = "k", .dtype = DTYPE_INT64, .rank = 1, .dims = {2}},
};
static const struct tensor_desc outputs[] = {
    {.name = "y", .dtype = DTYPE_FLOAT, .rank = 2, .dims = {1, 3}},
    {.name = "z", .dtype = DTYPE_UINT8, .rank = 1, .dims = {2}},
};

enum answer { ANSWER_RESULT, ANSWER_REFUSAL, ANSWER_GOODBYE };

struct device {
    int fd;
    enum answer answer;
    void *payload;
    bool said_hello, answered_ping;
    int frames;
};

static void send_message(struct device *device, const Convoy__Message *message, const void *payload,
                         size_t payload_bytes) {
    struct bytes bytes = {0};
    bytes_add_message(&bytes, FORM_OURS, message, payload, payload_bytes);
    assert_int_equal(send(device->fd, bytes.data, bytes.size, MSG_NOSIGNAL), bytes.size);
    free(bytes.data);
}

static void welcome_client(struct device *device) {
    Convoy__Tensor wire[4], *pointers[4];
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Welcome welcome = CONVOY__WELCOME__INIT;
    Convoy__Ping ping = CONVOY__PING__INIT;
    Convoy__Credit credit = CONVOY__CREDIT__INIT;
    assert_int_equal(message_fill_tensors(inputs, 2, wire, pointers), 0);
    assert_int_equal(message_fill_tensors(outputs, 2, wire + 2, pointers + 2), 0);
    welcome.version = MESSAGE_VERSION;
    welcome.node = (char *)"pi-a";
    welcome.model = (char *)"tiny.onnx";
    welcome.session = 4711;
    welcome.n_inputs = welcome.n_outputs = 2;
    welcome.inputs = pointers;
    welcome.outputs = pointers + 2;
    message.body_case = CONVOY__MESSAGE__BODY_WELCOME;
    message.welcome = &welcome;
    send_message(device, &message, NULL, 0);
    ping.token = 99;
    message.body_case = CONVOY__MESSAGE__BODY_PING;
    message.ping = &ping;
    send_message(device, &message, NULL, 0);
    credit.frames = 1;
    message.body_case = CONVOY__MESSAGE__BODY_CREDIT;
    message.credit = &credit;
    send_message(device, &message, NULL, 0);
}

static void say_goodbye(struct device *device) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Goodbye goodbye = CONVOY__GOODBYE__INIT;
    goodbye.code = CONVOY__CODE__CODE_TOO_MANY;
    goodbye.text = (char *)"come back later";
    message.body_case = CONVOY__MESSAGE__BODY_GOODBYE;
    message.goodbye = &goodbye;
    send_message(device, &message, NULL, 0);
}

static void refuse(struct device *device, const Convoy__Frame *frame) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Refusal refusal = CONVOY__REFUSAL__INIT;
    refusal.session = frame->session;
    refusal.sequence = frame->sequence;
    refusal.code = CONVOY__CODE__CODE_WRONG_TENSORS;
    refusal.text = (char *)"not these";
    message.body_case = CONVOY__MESSAGE__BODY_REFUSAL;
    message.refusal = &refusal;
    send_message(device, &message, NULL, 0);
}

/* y = 2 x + k[0]; z = k - 3 */
static void compute(struct device *device, const Convoy__Frame *frame, const uint8_t *payload,
                    size_t payload_bytes) {
    struct tensor_desc descs[2];
    size_t offsets[2], bytes;
    float x[3], y[3];
    int64_t k[2];
    struct err err;
    if (message_check_tensors(frame->tensors, frame->n_tensors, payload_bytes, inputs, 2, descs,
                              offsets, &err) != 0)
        fail_msg("%s", err.text);
    memcpy(x, payload + offsets[0], sizeof(x));
    memcpy(k, payload + offsets[1], sizeof(k));
    for (int i = 0; i < 3; i++)
        y[i] = 2 * x[i] + (float)k[0];

    uint8_t result_payload[64 + 2] = {0};
    Convoy__Tensor wire[2], *pointers[2];
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Result result = CONVOY__RESULT__INIT;
    assert_int_equal(message_layout(outputs, 2, offsets, &bytes), 0);
    assert_int_equal(bytes, sizeof(result_payload));
    assert_int_equal(message_fill_tensors(outputs, 2, wire, pointers), 0);
    memcpy(result_payload, y, sizeof(y));
    result_payload[64] = (uint8_t)(k[0] - 3);
    result_payload[65] = (uint8_t)(k[1] - 3);
    result.session = frame->session;
    result.sequence = frame->sequence;
    result.n_tensors = 2;
    result.tensors = pointers;
    message.body_case = CONVOY__MESSAGE__BODY_RESULT;
    message.result = &result;
    send_message(device, &message, result_payload, bytes);
}

static int on_payload(void *arg, const Convoy__Message *header, size_t bytes, void **ret_buffer) {
    struct device *device = arg;
    assert_int_equal(header->body_case, CONVOY__MESSAGE__BODY_FRAME);
    *ret_buffer = device->payload = tensor_buffer_new(bytes);
    return device->payload ? 0 : -ENOMEM;
}

static int on_message(void *arg, const struct message *message) {
    struct device *device = arg;
    switch (message->header->body_case) {
    case CONVOY__MESSAGE__BODY_HELLO:
        assert_int_equal(message->header->hello->version, MESSAGE_VERSION);
        assert_int_equal(message->header->hello->role, CONVOY__ROLE__ROLE_CLIENT);
        device->said_hello = true;
        if (device->answer == ANSWER_GOODBYE)
            say_goodbye(device);
        else
            welcome_client(device);
        return 0;
    case CONVOY__MESSAGE__BODY_PONG:
        device->answered_ping = message->header->pong->token == 99;
        return 0;
    case CONVOY__MESSAGE__BODY_FRAME:
        assert_int_equal(message->header->frame->session, 4711);
        assert_int_equal(message->header->frame->sequence, 1);
        device->frames++;
        if (device->answer == ANSWER_REFUSAL)
            refuse(device, message->header->frame);
        else
            compute(device, message->header->frame, message->payload, message->payload_bytes);
        tensor_buffer_free(device->payload);
        device->payload = NULL;
        return 0;
    default:
        return -EPROTO;
    }
}

/* Serves one connection to its end. */
static void serve(struct device *device, int listener) {
    static const struct reader_limits limits = {4096, 4096};
    static const struct reader_callbacks callbacks = {on_payload, on_message};
    struct pollfd poll_fd = {.fd = listener, .events = POLLIN};
    struct reader *reader = reader_new(&limits, &callbacks, device);
    struct err err;
    ssize_t n = 1;
    assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
    device->fd = poll_fd.fd = accept(listener, NULL, NULL);
    assert_true(device->fd >= 0);
    while (n > 0) {
        void *window;
        size_t room;
        reader_window(reader, &window, &room);
        assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
        n = read(device->fd, window, room);
        if (n > 0 && reader_advance(reader, (size_t)n, &err) != 0)
            fail_msg("%s", err.text);
    }
    assert_false(reader_is_mid_message(reader));
    reader_free(reader);
    (void)close(device->fd);
}

/* ---- the client ------------------------------------------------------------------------------ */

static void exec_client(const char *address, int out) {
    char x[64], k[64];
    (void)snprintf(x, sizeof(x), "x=%s/x.npy", folder);
    (void)snprintf(k, sizeof(k), "k=%s/k.npy", folder);
    (void)dup2(out, STDOUT_FILENO);
    (void)dup2(out, STDERR_FILENO);
    (void)setenv("PYTHONPATH", folder, 1);
    (void)setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    execl(PYTHON, PYTHON, "examples/client.py", address, x, k, (char *)NULL);
    _exit(127);
}

/* Runs the client against device; what it printed in output. Returns its exit code. */
static int run_client(struct device *device, char *output, size_t size) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *generic = (struct sockaddr *)&address;
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), out[2], status;
    char text[32];
    assert_int_equal(bind(listener, generic, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, generic, &length), 0);
    assert_int_equal(pipe(out), 0);
    (void)snprintf(text, sizeof(text), "127.0.0.1:%d", ntohs(address.sin_port));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        exec_client(text, out[1]);
    (void)close(out[1]);
    serve(device, listener);
    size_t used = 0;
    for (ssize_t n = 1; n > 0; used += (size_t)n) {
        n = read(out[0], output + used, size - 1 - used);
        assert_true(n >= 0);
    }
    output[used] = '\0';
    (void)close(out[0]);
    (void)close(listener);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(device->said_hello);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect(const char *output, const char *words) {
    if (!strstr(output, words))
        fail_msg("it does not say \"%s\": %s", words, output);
}

static void the_client_prints_the_result_of_its_frame(void **state) {
    (void)state;
    struct device device = {.answer = ANSWER_RESULT};
    char output[4096];
    if (!have_python)
        skip();
    int code = run_client(&device, output, sizeof(output));
    expect(output, "pi-a runs tiny.onnx\n");
    expect(output, "\ny float32 [1, 3]\n[[12. 14. 16.]]\n");
    expect(output, "\nz uint8 [2]\n[ 7 17]\n");
    assert_int_equal(code, 0);
    assert_int_equal(device.frames, 1);
    assert_true(device.answered_ping);
}

static void the_client_tells_of_a_refusal_and_fails(void **state) {
    (void)state;
    struct device device = {.answer = ANSWER_REFUSAL};
    char output[4096];
    if (!have_python)
        skip();
    int code = run_client(&device, output, sizeof(output));
    expect(output, "refusal: CODE_WRONG_TENSORS: not these\n");
    assert_int_equal(code, 1);
}

static void the_client_tells_of_a_goodbye_and_fails(void **state) {
    (void)state;
    struct device device = {.answer = ANSWER_GOODBYE};
    char output[4096];
    if (!have_python)
        skip();
    int code = run_client(&device, output, sizeof(output));
    expect(output, "goodbye: CODE_TOO_MANY: come back later\n");
    assert_int_equal(code, 1);
    assert_int_equal(device.frames, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_client_prints_the_result_of_its_frame),
        cmocka_unit_test(the_client_tells_of_a_refusal_and_fails),
        cmocka_unit_test(the_client_tells_of_a_goodbye_and_fails),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
