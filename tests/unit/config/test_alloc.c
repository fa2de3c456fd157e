/* Every allocation of configurations, sidecars, lists of devices, ranges and plans fails once. */
#include "config/config.h"
#include "config/devices.h"
#include "config/ranges.h"
#include "config/sidecar.h"
#include "plan/plan.h"
#include "plan/planner.h"
#include "tests/lib/failing.h"
#include "tests/lib/own_malloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char yaml[] = "node: a\nlisten: 127.0.0.1:1\nhttp: off\nmodel: m\n"
                           "dims: {h: 1, w: 2}\npipeline:\n"
                           "- {node: a, address: 127.0.0.1:1, until: x}\n"
                           "- {node: b, address: 127.0.0.1:2}\n";

static int parse_config(struct err *err) {
    struct config *config = NULL;
    int rc = config_parse(yaml, sizeof(yaml) - 1, "folder/f.yaml", &config, err);
    config_free(config);
    return rc;
}

static int parse_empty(struct err *err) {
    struct config *config = NULL;
    int rc = config_parse("", 0, "f.yaml", &config, err);
    config_free(config);
    return rc;
}

static int load_config(struct err *err) {
    struct config *config = NULL;
    int rc = config_load("config/examples/three.yaml", &config, err);
    config_free(config);
    return rc;
}

static int parse_sidecar(struct err *err) {
    static const char text[] = "picture: {mean: [1, 2, 3], std: 2}\nlabels: [a, b]\ndims: {n: 1}\n";
    struct sidecar *sidecar = NULL;
    int rc = sidecar_parse(text, sizeof(text) - 1, "f.yaml", &sidecar, err);
    sidecar_free(sidecar);
    return rc;
}

static int load_sidecar(struct err *err) {
    struct sidecar *sidecar = NULL;
    int rc = sidecar_load("models/fmnist_vgg.onnx", &sidecar, err);
    sidecar_free(sidecar);
    return rc;
}

static int parse_devices(struct err *err) {
    static const char text[] = "profile: p.json\ndevices:\n- {node: a, speed: 0.5}\n"
                               "- {node: b, address: 127.0.0.1:2, profile: q.json}\n";
    struct devices *devices = NULL;
    int rc = devices_parse(text, sizeof(text) - 1, "folder/f.yaml", &devices, err);
    devices_free(devices);
    return rc;
}

static int parse_ranges(struct err *err) {
    static const char text[] =
        "model: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"
        "frames: 3\ntensors: {x: [-1, 2], y: [0, 1]}\n";
    struct ranges *ranges = NULL;
    int rc = ranges_parse(text, sizeof(text) - 1, "f.yaml", &ranges, err);
    ranges_free(ranges);
    return rc;
}

/* A label file is made and removed outside of what is counted. */
static char label_yaml[64];

static int load_labels(struct err *err) {
    struct sidecar *sidecar = NULL;
    int rc = sidecar_parse(label_yaml, strlen(label_yaml), "f.yaml", &sidecar, err);
    sidecar_free(sidecar);
    return rc;
}

static struct config *line; /* made outside of what is counted */

static int build_plan(struct err *err) {
    static const uint8_t digest[SHA256_SIZE];
    static const size_t untils[] = {2, 5};
    struct plan *plan = NULL;
    int rc = plan_from_config(line, digest, 6, untils, &plan, err);
    plan_free(plan);
    return rc;
}

/* Three devices, two of a kind, shared stages. */
static int run_planner(struct err *err) {
    static const uint64_t cuts[] = {4, 4, 4, 4}, zeros[3];
    static const double times[] = {3, 9, 3};
    struct cost_device device = {
        .layer_us = times, .workers = 1, .send_rate = 9, .receive_rate = 9};
    struct cost_device devices[] = {device, device, device};
    struct cost_network network = {.layers = 3,
                                   .cut_bytes = cuts,
                                   .weight_bytes = zeros,
                                   .arena_bytes = zeros,
                                   .first_cut = 1};
    struct planner_options options = {.max_replicas = 2};
    struct planner_result result = {.line = NULL};
    struct cost *cost = NULL;
    int rc = cost_new(&network, devices, 3, &cost, err);
    if (rc == 0)
        rc = planner_run(cost, &options, &result, err);
    cost_line_free(result.line);
    cost_free(cost);
    return rc;
}

static int override_config(struct err *err) {
    return config_override(line, "b", "127.0.0.1:9", err);
}

static void config_survives_every_failed_allocation(void **state) {
    (void)state;
    failing_each_allocation(parse_config);
    failing_each_allocation(parse_empty);
    failing_each_allocation(load_config);
}

static void sidecar_survives_every_failed_allocation(void **state) {
    (void)state;
    failing_each_allocation(parse_sidecar);
    failing_each_allocation(load_sidecar);
}

static void devices_survive_every_failed_allocation(void **state) {
    (void)state;
    failing_each_allocation(parse_devices);
}

static void ranges_survive_every_failed_allocation(void **state) {
    (void)state;
    failing_each_allocation(parse_ranges);
}

static void label_file_survives_every_failed_allocation(void **state) {
    char path[] = "/tmp/convoy-test-XXXXXX";
    (void)state;
    if (!OWN_MALLOC)
        skip();
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "cat\ndog\n", 8), 8);
    close(fd);
    snprintf(label_yaml, sizeof(label_yaml), "labels: %s\n", path);

    failing_each_allocation(load_labels);
    unlink(path);
}

static void plan_survives_every_failed_allocation(void **state) {
    struct err err;
    (void)state;
    if (!OWN_MALLOC)
        skip();
    assert_int_equal(config_parse(yaml, sizeof(yaml) - 1, "f.yaml", &line, &err), 0);

    failing_each_allocation(build_plan);
    failing_each_allocation(run_planner);
    config_free(line);
}

static void override_survives_every_failed_allocation(void **state) {
    struct err err;
    (void)state;
    if (!OWN_MALLOC)
        skip();
    assert_int_equal(config_parse(yaml, sizeof(yaml) - 1, "f.yaml", &line, &err), 0);

    failing_each_allocation(override_config);
    assert_string_equal(line->node, "b");
    assert_string_equal(line->listen, "127.0.0.1:9");
    config_free(line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_survives_every_failed_allocation),
        cmocka_unit_test(sidecar_survives_every_failed_allocation),
        cmocka_unit_test(devices_survive_every_failed_allocation),
        cmocka_unit_test(ranges_survive_every_failed_allocation),
        cmocka_unit_test(label_file_survives_every_failed_allocation),
        cmocka_unit_test(plan_survives_every_failed_allocation),
        cmocka_unit_test(override_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
