#include "config/devices.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct devices *parse(const char *text) {
    struct devices *devices = NULL;
    struct err err = {""};
    int rc = devices_parse(text, strlen(text), "folder/d.yaml", &devices, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return devices;
}

static void example_describes_three_devices(void **state) {
    struct devices *devices = NULL;
    struct err err = {""};
    (void)state;

    int rc = devices_load("config/examples/devices.yaml", &devices, &err);

    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_int_equal(devices->count, 3);
    assert_string_equal(devices->entries[0].node, "pi-a");
    assert_string_equal(devices->profile, "config/examples/pi-a.json");
    assert_true(devices->raw_input_stays);
    assert_true(devices->entries[2].speed == 0.5);
    assert_true(devices->entries[2].memory == UINT64_C(300) << 20);
    devices_free(devices);
}

static void what_is_not_said_has_its_default(void **state) {
    (void)state;
    struct devices *devices = parse("devices: [{node: a}]");
    const struct devices_entry *entry = &devices->entries[0];

    assert_null(devices->profile);
    assert_false(devices->raw_input_stays);
    assert_int_equal(devices->max_replicas, 1);
    assert_null(entry->address);
    assert_null(entry->profile);
    assert_true(entry->speed == 1 && entry->send_mbit == 0 && entry->receive_mbit == 0);
    assert_true(entry->latency_ms == 0.1 && entry->frame_ms == 0);
    assert_int_equal(entry->workers, 0);
    assert_true(entry->memory == 0);
    devices_free(devices);
}

static void rate_of_one_way_comes_before_that_of_both(void **state) {
    (void)state;
    struct devices *devices = parse("devices:\n- {node: a, send_mbit: 10, mbit: 100}\n"
                                    "- {node: b, profile: b.json, mbit: 30}\n");

    assert_true(devices->entries[0].send_mbit == 10);
    assert_true(devices->entries[0].receive_mbit == 100);
    assert_true(devices->entries[1].send_mbit == 30 && devices->entries[1].receive_mbit == 30);
    assert_string_equal(devices->entries[1].profile, "folder/b.json");
    devices_free(devices);
}

static void mistakes_are_named_with_their_place(void **state) {
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "d.yaml: is empty"},
        {"profile: x", "has no 'devices'"},
        {"devices: []", "d.yaml:1:10: 'devices' has 0 entries"},
        {"devices: {node: a}", "must be a list"},
        {"devices:\n- {node: a}\n- {node: a}", "d.yaml:3:3: node 'a' is in line 2 already"},
        {"devices: [{address: 'h:1'}]", "has no 'node'"},
        {"devices: [{node: a, speed: 0}]", "'speed' must be above 0"},
        {"devices: [{node: a, mbit: 0}]", "'mbit' must be above 0"},
        {"devices: [{node: a, latency_ms: -1}]", "from 0 to 60000"},
        {"devices: [{node: a, speed: fast}]", "'speed' must be a number"},
        {"devices: [{node: a, address: 'h'}]", "has no port"},
        {"devices: [{node: a, address: ':7'}]", "needs a host and a port"},
        {"devices:\n- {node: a, address: 'h:1'}\n- {node: b, address: 'h:1'}",
         "belongs to node 'a' already (line 2)"},
        {"devices: [{node: a, wokers: 2}]", "did you mean 'workers'?"},
        {"max_replicas: 9\ndevices: [{node: a}]", "1 to 8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct devices *devices = NULL;
        struct err err = {""};
        int rc = devices_parse(cases[i].text, strlen(cases[i].text), "d.yaml", &devices, &err);
        assert_int_equal(rc, -EINVAL);
        if (!strstr(err.text, cases[i].words))
            fail_msg("'%s' gives '%s'", cases[i].text, err.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(example_describes_three_devices),
        cmocka_unit_test(what_is_not_said_has_its_default),
        cmocka_unit_test(rate_of_one_way_comes_before_that_of_both),
        cmocka_unit_test(mistakes_are_named_with_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
