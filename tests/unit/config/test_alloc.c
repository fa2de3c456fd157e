/* Every allocation fails once: each must come back as a clean -ENOMEM that leaks nothing. This
 * program brings its own malloc(), so it says nothing in builds whose sanitizer brings one too. */
#include "config/config.h"
#include "config/sidecar.h"
#include "plan/plan.h"
#include "plan/planner.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_MALLOC 0
#endif
#endif
#ifndef OWN_MALLOC
#define OWN_MALLOC 1
#endif

static _Thread_local bool armed; /* count, and let one fail */
static long counter;             /* allocations until the one that fails */
static long live;                /* blocks that were allocated while armed, or freed */
static long calls;               /* allocations while armed */

#if OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t nmemb, size_t size);
void *__libc_realloc(void *ptr, size_t size);
void __libc_free(void *ptr);

static bool must_fail(void) {
    if (!armed)
        return false;
    calls++;
    return counter-- == 0;
}

void *malloc(size_t size) {
    void *block = must_fail() ? NULL : __libc_malloc(size);
    live += armed && block;
    return block;
}

void *calloc(size_t nmemb, size_t size) {
    void *block = must_fail() ? NULL : __libc_calloc(nmemb, size);
    live += armed && block;
    return block;
}

void *realloc(void *ptr, size_t size) {
    void *block = must_fail() ? NULL : __libc_realloc(ptr, size);
    live += armed && block && !ptr;
    return block;
}

void free(void *ptr) {
    live -= armed && ptr;
    __libc_free(ptr);
}
#endif

/* Does its work, undoes it, and returns its result. */
typedef int work_fn(struct err *err);

/* Lets the first, second, third ... allocation of work fail, until there are no more. Returns how
 * often work failed. It may pass where the C library can do without (a realloc() that only trims),
 * and may fail once more afterwards where OpenSSL has not got over it. */
static int fail_one_after_the_other(work_fn *work) {
    int failures = 0;
    for (long i = 0; i < 1000; i++) {
        struct err err = {""};
        counter = i;
        calls = 0;
        armed = true;
        int rc = work(&err);
        armed = false;
        if (calls <= i && rc == 0)
            return failures;
        failures += rc < 0;
        if (rc < 0) {
            assert_int_equal(rc, -ENOMEM);
            assert_non_null(strstr(err.text, "no memory"));
        }
    }
    fail_msg("it never passes");
    return failures;
}

/* What libraries make once and keep is there after a first pass; OpenSSL also keeps the last 16
 * errors of a thread, so the first rounds do not count. */
static void fail_each_allocation(work_fn *work) {
    struct err err;
    assert_int_equal(work(&err), 0);
    for (int round = 0; round < 16; round++)
        fail_one_after_the_other(work);
    live = 0;
    assert_true(fail_one_after_the_other(work) > 0);
    assert_int_equal(live, 0);
}

static void skip_without_own_malloc(void **state) {
    (void)state;
    if (!OWN_MALLOC)
        skip();
}

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
    skip_without_own_malloc(state);
    fail_each_allocation(parse_config);
    fail_each_allocation(parse_empty);
    fail_each_allocation(load_config);
}

static void sidecar_survives_every_failed_allocation(void **state) {
    skip_without_own_malloc(state);
    fail_each_allocation(parse_sidecar);
    fail_each_allocation(load_sidecar);
}

static void label_file_survives_every_failed_allocation(void **state) {
    char path[] = "/tmp/convoy-test-XXXXXX";
    skip_without_own_malloc(state);
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "cat\ndog\n", 8), 8);
    close(fd);
    snprintf(label_yaml, sizeof(label_yaml), "labels: %s\n", path);

    fail_each_allocation(load_labels);
    unlink(path);
}

static void plan_survives_every_failed_allocation(void **state) {
    struct err err;
    skip_without_own_malloc(state);
    assert_int_equal(config_parse(yaml, sizeof(yaml) - 1, "f.yaml", &line, &err), 0);

    fail_each_allocation(build_plan);
    fail_each_allocation(run_planner);
    config_free(line);
}

static void override_survives_every_failed_allocation(void **state) {
    struct err err;
    skip_without_own_malloc(state);
    assert_int_equal(config_parse(yaml, sizeof(yaml) - 1, "f.yaml", &line, &err), 0);

    fail_each_allocation(override_config);
    assert_string_equal(line->node, "b");
    assert_string_equal(line->listen, "127.0.0.1:9");
    config_free(line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_survives_every_failed_allocation),
        cmocka_unit_test(sidecar_survives_every_failed_allocation),
        cmocka_unit_test(label_file_survives_every_failed_allocation),
        cmocka_unit_test(plan_survives_every_failed_allocation),
        cmocka_unit_test(override_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
