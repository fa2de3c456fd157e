/* What convoyctl asks a device that is to be measured, where the test is the device. */
#include "ctl/survey.h"

#include "tests/lib/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL "models/fmnist_resnet.onnx"

/* convoyctl's side, in a thread of its own. */
struct asker {
    pthread_t thread;
    struct model *model;
    char address[32];
    int listen_fd, rc;
    struct err err;
    struct profile_record record;
};

static void *ask(void *arg) {
    struct asker *asker = arg;
    struct survey *survey;
    asker->rc = survey_new(asker->address, NULL, NULL, &survey, &asker->err);
    if (asker->rc < 0)
        return NULL;
    asker->rc = survey_measure(survey, asker->model, 0, &asker->record, &asker->err);
    survey_free(survey);
    return NULL;
}

static void start(struct asker *asker, struct client *device) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    memset(asker, 0, sizeof(*asker));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    asker->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(asker->listen_fd >= 0);
    assert_int_equal(bind(asker->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(asker->listen_fd, 1), 0);
    assert_int_equal(getsockname(asker->listen_fd, (struct sockaddr *)&address, &size), 0);
    snprintf(asker->address, sizeof(asker->address), "127.0.0.1:%u", ntohs(address.sin_port));
    if (model_open(MODEL, NULL, &asker->model, &asker->err) < 0)
        fail_msg("%s", asker->err.text);
    assert_int_equal(pthread_create(&asker->thread, NULL, ask, asker), 0);
    client_init(device, NULL, 0);
    client_accept(device, asker->listen_fd);
    assert_int_equal(device->role, CONVOY__ROLE__ROLE_INGRESS);
}

static void finish(struct asker *asker, struct client *device) {
    client_fini(device);
    close(asker->listen_fd);
    free(asker->record.layer_us);
    model_unref(asker->model);
}

/* The answer to the Measure that comes as the n-th message, from 1. */
static void answer(struct client *device, size_t n, Convoy__Code code, const char *text,
                   size_t layers) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Measured measured = CONVOY__MEASURED__INIT;
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    float layer_us[64] = {0};
    assert_in_range(layers, 0, 64);
    while (device->others < n) {
        assert_true(client_read(device, 100));
        assert_true(daemons_now_ms() < until);
    }
    assert_int_equal(device->other->body_case, CONVOY__MESSAGE__BODY_MEASURE);
    measured.token = device->other->measure->token;
    measured.code = code;
    measured.text = (char *)(uintptr_t)text;
    measured.layer_us = layer_us;
    measured.n_layer_us = layers;
    measured.frames = 10;
    message.body_case = CONVOY__MESSAGE__BODY_MEASURED;
    message.measured = &measured;
    client_send(device, &message, NULL, 0);
}

static void a_busy_device_is_asked_to_measure_again(void **state) {
    struct asker asker;
    struct client device;
    (void)state;
    start(&asker, &device);
    for (size_t n = 1; n <= 2; n++)
        answer(&device, n, CONVOY__CODE__CODE_BUSY, "for another", 0);
    answer(&device, 3, CONVOY__CODE__CODE_OK, "", model_layers_count(asker.model));

    pthread_join(asker.thread, NULL);

    if (asker.rc < 0)
        fail_msg("%s", asker.err.text);
    assert_int_equal(asker.record.layers, model_layers_count(asker.model));
    assert_int_equal(asker.record.frames, 10);
    finish(&asker, &device);
}

static void a_device_that_cannot_measure_is_asked_once(void **state) {
    struct asker asker;
    struct client device;
    (void)state;
    start(&asker, &device);
    answer(&device, 1, CONVOY__CODE__CODE_NO_MEMORY, "it is too large", 0);

    pthread_join(asker.thread, NULL);

    assert_int_equal(asker.rc, -EREMOTEIO);
    assert_non_null(strstr(asker.err.text, "it is too large"));
    client_wait_closed(&device);
    assert_int_equal(device.others, 1);
    finish(&asker, &device);
}

static void the_times_of_another_model_are_refused(void **state) {
    struct asker asker;
    struct client device;
    (void)state;
    start(&asker, &device);
    answer(&device, 1, CONVOY__CODE__CODE_OK, "", model_layers_count(asker.model) - 1);

    pthread_join(asker.thread, NULL);

    assert_int_equal(asker.rc, -EPROTO);
    assert_non_null(strstr(asker.err.text, "layers, but the model has"));
    finish(&asker, &device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_busy_device_is_asked_to_measure_again),
        cmocka_unit_test(a_device_that_cannot_measure_is_asked_once),
        cmocka_unit_test(the_times_of_another_model_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
