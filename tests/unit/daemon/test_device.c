/* A device whose start fails: what may still come must not hurt it. */
#include "daemon/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void on_status(void *arg, const char *text) {
    (void)arg;
    (void)text;
}

static void on_reloaded(void *arg) {
    (void)arg;
}

static void on_stopped(void *arg) {
    ++*(int *)arg;
}

static void signals_during_a_start_that_fails_change_nothing(void **state) {
    static const struct device_events events = {on_status, on_reloaded, on_stopped};
    const struct device_options options = {.config_path = "/nonexistent/convoy.yaml"};
    struct device *device = NULL;
    struct err err = {""};
    uv_loop_t loop;
    int stopped = 0;
    (void)state;
    uv_loop_init(&loop);
    assert_true(device_start(&loop, &options, &events, &stopped, &device, &err) < 0);
    assert_non_null(strstr(err.text, "/nonexistent/convoy.yaml"));
    assert_non_null(device);
    device_reload(device);
    device_drain(device);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(stopped, 1);
    device_free(device);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_during_a_start_that_fails_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
