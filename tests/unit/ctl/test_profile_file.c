#include "ctl/profile_file.h"

#include "tests/lib/folder.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    char folder[32], path[64];
    struct model *model;
    double us[256];
    struct profile_record record;
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    uint8_t id[SHA256_SIZE];
    struct err err;
    *state = f;
    strcpy(f->folder, "/tmp/convoy-test-XXXXXX");
    if (!mkdtemp(f->folder) || model_open("models/fmnist_vgg.onnx", NULL, &f->model, &err) < 0 ||
        model_identity(f->model, id) < 0)
        return -1;
    snprintf(f->path, sizeof(f->path), "%s/a/b.json", f->folder);
    f->record = (struct profile_record){.node = "pi-a",
                                        .cpu = "a CPU",
                                        .cores = 4,
                                        .workers = 4,
                                        .threads = 1,
                                        .layers = model_layers_count(f->model),
                                        .layer_us = f->us,
                                        .frames = 9,
                                        .when = 1000,
                                        .facts = {.celsius = NAN}};
    sha256_format(id, f->record.model_id);
    for (size_t i = 0; i < f->record.layers; i++)
        f->us[i] = 1.5 * (double)i;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    int rc = folder_remove(f->folder);
    model_unref(f->model);
    free(f);
    return rc;
}

static void record_reads_back_as_it_was_written(void **state) {
    struct fixture *f = *state;
    struct profile_record back;
    struct err err = {""};
    json_t *json = profile_record_json(&f->record, f->model);

    assert_int_equal(profile_record_read(json, "x", &back, &err), 0);

    assert_string_equal(back.model_id, f->record.model_id);
    assert_string_equal(back.node, "pi-a");
    assert_int_equal(back.workers, 4);
    assert_int_equal(back.layers, f->record.layers);
    assert_memory_equal(back.layer_us, f->us, back.layers * sizeof(double));
    profile_record_fini(&back);
    json_decref(json);
}

static void file_of_another_model_is_refused(void **state) {
    struct fixture *f = *state;
    struct profile_record back;
    struct err err = {""};
    char path[64];
    json_t *json = profile_record_json(&f->record, f->model);
    snprintf(path, sizeof(path), "%s/p.json", f->folder);

    assert_int_equal(json_dump_file(json, path, 0), 0);
    assert_int_equal(profile_file_load(path, f->model, &back, &err), 0);
    profile_record_fini(&back);
    json_object_set_new(json, "model_id", json_string("00"));
    assert_int_equal(json_dump_file(json, path, 0), 0);
    assert_int_equal(profile_file_load(path, f->model, &back, &err), -ESTALE);
    assert_non_null(strstr(err.text, "measure again"));
    json_decref(json);
}

static void what_is_no_profile_is_refused(void **state) {
    struct fixture *f = *state;
    static const char *const keys[] = {"convoy_profile", "model_id", "device", "workers",
                                       "threads",        "frames",   "when",   "layers"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        json_t *json = profile_record_json(&f->record, f->model);
        struct profile_record back;
        struct err err = {""};
        json_object_del(json, keys[i]);
        assert_int_equal(profile_record_read(json, "x.json", &back, &err), -EINVAL);
        assert_non_null(strstr(err.text, "x.json"));
        json_decref(json);
    }
    json_t *json = profile_record_json(&f->record, f->model);
    struct profile_record back;
    json_object_set_new(json_array_get(json_object_get(json, "layers"), 1), "us", json_real(-1));
    assert_int_equal(profile_record_read(json, "x.json", &back, NULL), -EINVAL);
    json_decref(json);
}

static void what_is_kept_is_found_for_the_same_conditions_only(void **state) {
    struct fixture *f = *state;
    struct profile_record back, other = f->record;
    struct err err = {""};
    assert_false(profile_kept_find(f->path, &f->record, &back));

    assert_int_equal(profile_kept_store(f->path, &f->record, f->model, &err), 0);

    assert_true(profile_kept_find(f->path, &f->record, &back));
    assert_int_equal(back.when, 1000);
    profile_record_fini(&back);
    other.workers = 2;
    assert_false(profile_kept_find(f->path, &other, &back));
    other = f->record;
    strcpy(other.cpu, "another");
    assert_false(profile_kept_find(f->path, &other, &back));
}

static void oldest_profiles_make_room(void **state) {
    struct fixture *f = *state;
    struct profile_record back;
    struct err err = {""};
    for (int i = 0; i < PROFILE_KEPT_MAX + 2; i++) {
        f->record.cores = 1 + i;
        assert_int_equal(profile_kept_store(f->path, &f->record, f->model, &err), 0);
    }
    /* The same again takes the place of what was there. */
    assert_int_equal(profile_kept_store(f->path, &f->record, f->model, &err), 0);

    for (int i = 0; i < PROFILE_KEPT_MAX + 2; i++) {
        f->record.cores = 1 + i;
        bool found = profile_kept_find(f->path, &f->record, &back);
        assert_true(found == (i >= 2));
        if (found)
            profile_record_fini(&back);
    }
}

static void damaged_file_counts_as_empty_and_is_replaced(void **state) {
    struct fixture *f = *state;
    struct profile_record back;
    struct err err = {""};
    char path[64];
    snprintf(path, sizeof(path), "%s/p.json", f->folder);
    FILE *file = fopen(path, "w");
    fputs("{\"profiles\": [1, {}, ", file);
    fclose(file);

    assert_false(profile_kept_find(path, &f->record, &back));
    assert_int_equal(profile_kept_store(path, &f->record, f->model, &err), 0);
    assert_true(profile_kept_find(path, &f->record, &back));
    profile_record_fini(&back);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(record_reads_back_as_it_was_written),
        TEST(file_of_another_model_is_refused),
        TEST(what_is_no_profile_is_refused),
        TEST(what_is_kept_is_found_for_the_same_conditions_only),
        TEST(oldest_profiles_make_room),
        TEST(damaged_file_counts_as_empty_and_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
