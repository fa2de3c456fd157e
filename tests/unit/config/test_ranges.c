/* MODEL.ranges.yaml. */
#include "config/ranges.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static int parse(const char *text, struct ranges **ret_ranges, struct err *err) {
    return ranges_parse(text, strlen(text), "m.ranges.yaml", ret_ranges, err);
}

static void ranges_are_found_by_the_tensors_name(void **state) {
    struct ranges *ranges = NULL;
    struct err err = {""};
    (void)state;
    int rc = parse("model: " DIGEST "\nframes: 12\ntensors:\n  'it''s: a name': [-1.5, 2.5e1]\n"
                   "  /m/Relu: [0, 0]\n",
                   &ranges, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_string_equal(ranges->model, DIGEST);
    assert_int_equal(ranges->frames, 12);
    assert_int_equal(ranges->count, 2);
    const struct ranges_entry *entry = ranges_find(ranges, "it's: a name");
    assert_non_null(entry);
    assert_true(entry->min == -1.5 && entry->max == 25);
    assert_null(ranges_find(ranges, "/m/Relu_1"));
    assert_null(ranges_find(NULL, "/m/Relu"));
    ranges_free(ranges);
}

static void a_range_is_widened_by_half_of_it_on_either_side(void **state) {
    const struct ranges_entry entry = {.min = -1, .max = 3}, point = {.min = 2, .max = 2};
    float min, max;
    (void)state;
    ranges_widen(&entry, &min, &max);
    assert_true(min == -3 && max == 5);
    ranges_widen(&point, &min, &max);
    assert_true(min == 2 && max == 2);
}

static void what_is_no_range_is_refused_with_its_line(void **state) {
    static const struct {
        const char *tensors, *sentence;
    } wrong[] = {
        {"  a: 3\n", "m.ranges.yaml:4:6: 'tensors' must be a map of lists such as [-1.5, 2.5]"},
        {"  a: [1]\n", "m.ranges.yaml:4:6: 'tensors' must be a map of lists"},
        {"  a: [1, 2, 3]\n", "m.ranges.yaml:4:6: 'tensors' must be a map of lists"},
        {"  a: [2, 1]\n", "m.ranges.yaml:4:6: the smaller number comes first"},
        {"  a: [x, 1]\n", "m.ranges.yaml:4:7: 'tensors' must be a number"},
        {"  a: [0, nan]\n", "m.ranges.yaml:4:10: 'tensors' must be a number"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct ranges *ranges = NULL;
        struct err err = {""};
        char text[512];
        snprintf(text, sizeof(text), "model: " DIGEST "\nframes: 1\ntensors:\n%s",
                 wrong[i].tensors);
        assert_int_equal(parse(text, &ranges, &err), -EINVAL);
        if (!strstr(err.text, wrong[i].sentence))
            fail_msg("\"%s\" does not say \"%s\"", err.text, wrong[i].sentence);
        assert_null(ranges);
    }
}

static void an_empty_file_has_no_model(void **state) {
    struct ranges *ranges = NULL;
    struct err err = {""};
    (void)state;
    assert_int_equal(parse("", &ranges, &err), -EINVAL);
    assert_string_equal(err.text, "m.ranges.yaml:1:1: the file has no 'model'");
}

static void a_model_without_the_file_has_no_ranges(void **state) {
    struct ranges *ranges = (struct ranges *)(uintptr_t)1;
    struct err err = {""};
    (void)state;
    assert_int_equal(ranges_load("/nonexistent/model.onnx", &ranges, &err), 0);
    assert_null(ranges);
    char *path = ranges_path("/a/model.onnx");
    assert_string_equal(path, "/a/model.ranges.yaml");
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_are_found_by_the_tensors_name),
        cmocka_unit_test(a_range_is_widened_by_half_of_it_on_either_side),
        cmocka_unit_test(what_is_no_range_is_refused_with_its_line),
        cmocka_unit_test(an_empty_file_has_no_model),
        cmocka_unit_test(a_model_without_the_file_has_no_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
