#include "model/profile.h"

#include "tests/lib/folder.h"
#include "tests/lib/small_model.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A large convolution, something small, and an index of zeros. */
static const char text[] = "input x f32 1,8,40,40\n"
                           "const w f32 32,8,3,3\n"
                           "const v f32 1,32,1,1\n"
                           "Conv big x,w -> y | pads=[1,1,1,1]\n"
                           "GlobalAveragePool mean y -> z\n"
                           "Conv small z,v -> out\n"
                           "output out\n";

static struct model *open_small(void) {
    char folder[] = "/tmp/convoy-test-XXXXXX", path[64];
    struct model *model = NULL;
    struct err err = {""};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    small_model_write(path, 13, text);
    int rc = model_open(path, NULL, &model, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    folder_remove(folder);
    return model;
}

static void every_layer_has_a_time_and_the_large_one_the_most(void **state) {
    (void)state;
    struct model *model = open_small();
    size_t layers = model_layers_count(model);
    struct profile_options options = {.workers = 2};
    struct profile profile;
    struct err err = {""};

    assert_int_equal(profile_measure(model, 0, layers, &options, &profile, &err), 0);

    assert_int_equal(profile.last, layers);
    assert_true(profile.frames >= 10);
    assert_true(profile.arena_bytes > 0);
    for (size_t i = 0; i < layers; i++)
        assert_true(profile.layer_us[i] >= 0 && profile.layer_us[i] <= profile.layer_us[0]);
    assert_true(profile.layer_us[0] > 0 && profile.frame_us >= profile.layer_us[0] / 2);
    profile_fini(&profile);
    model_unref(model);
}

static void layers_add_up_to_a_frame(void **state) {
    (void)state;
    struct model *model = open_small();
    size_t layers = model_layers_count(model);
    struct profile_options options = {.workers = 3, .seconds = 0.01};
    struct profile profile;
    struct err err = {""};

    assert_int_equal(profile_measure(model, 0, layers, &options, &profile, &err), 0);

    double sum = 0;
    for (size_t i = 0; i < layers; i++)
        sum += profile.layer_us[i];
    assert_true(fabs(sum - profile.frame_us) < 1e-4 * sum);
    profile_fini(&profile);
    model_unref(model);
}

static void part_of_a_model_is_measured_by_itself(void **state) {
    (void)state;
    struct model *model = open_small();
    size_t layers = model_layers_count(model);
    struct profile_options options = {.workers = 1};
    struct profile profile;
    struct err err = {""};

    assert_int_equal(profile_measure(model, 1, layers, &options, &profile, &err), 0);

    assert_int_equal(profile.first, 1);
    assert_true(profile.frames >= 5);
    profile_fini(&profile);
    assert_int_equal(profile_measure(model, 2, 2, &options, &profile, &err), -EINVAL);
    model_unref(model);
}

static void measurement_that_is_stopped_says_so(void **state) {
    (void)state;
    struct model *model = open_small();
    atomic_bool stop = true;
    struct profile_options options = {.workers = 2, .seconds = 3600, .stop = &stop};
    struct profile profile;
    struct err err = {""};

    assert_int_equal(profile_measure(model, 0, model_layers_count(model), &options, &profile, &err),
                     -ECANCELED);

    assert_non_null(strstr(err.text, "stopped"));
    model_unref(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_has_a_time_and_the_large_one_the_most),
        cmocka_unit_test(layers_add_up_to_a_frame),
        cmocka_unit_test(part_of_a_model_is_measured_by_itself),
        cmocka_unit_test(measurement_that_is_stopped_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
