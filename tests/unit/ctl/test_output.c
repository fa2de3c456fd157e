#include "ctl/json.h"
#include "ctl/labels.h"
#include "ctl/latency.h"
#include "ctl/progress.h"
#include "ctl/table.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void columns_are_aligned_by_characters(void **state) {
    static const char *const columns[] = {"name", ">n", "note", NULL};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    struct table *table = table_new(columns);
    (void)state;
    table_cell(table, "%s", "pigeon");
    table_cell(table, "%d", 7);
    table_cell(table, "%s", "");
    table_cell(table, "%s", "Möwe"); /* five bytes, four characters */
    table_cell(table, "%d", 1234);
    table_cell(table, "%s", "grey");
    table_cell(table, "%s", "x");
    table_end_row(table);
    assert_int_equal(table_print(table, out), 0);
    fclose(out);
    assert_string_equal(text, "name       n  note\n"
                              "pigeon     7\n"
                              "Möwe    1234  grey\n"
                              "x\n");
    table_free(table);
    free(text);
}

static void numbers_get_three_digits_and_a_prefix(void **state) {
    char buf[32];
    (void)state;
    assert_string_equal(format_count(0, buf, sizeof(buf)), "0");
    assert_string_equal(format_count(999, buf, sizeof(buf)), "999");
    assert_string_equal(format_count(1000, buf, sizeof(buf)), "1.00 k");
    assert_string_equal(format_count(1244000, buf, sizeof(buf)), "1.24 M");
    assert_string_equal(format_bytes(512, buf, sizeof(buf)), "512 B");
    assert_string_equal(format_bytes(18600, buf, sizeof(buf)), "18.6 kB");
    assert_string_equal(format_bytes(999999, buf, sizeof(buf)), "1.00 MB");
    assert_string_equal(format_seconds(12.46, buf, sizeof(buf)), "12.5 s");
    assert_string_equal(format_seconds(189, buf, sizeof(buf)), "3 min 09 s");
    assert_string_equal(format_seconds(7500, buf, sizeof(buf)), "2 h 05 min");
}

static void progress_shows_share_rate_and_time_left(void **state) {
    char buf[256];
    (void)state;
    assert_string_equal(progress_format(5, 10, 2, "", buf, sizeof(buf)),
                        "[############............] 5/10  2.0 frames/s  2.5 s left");
    assert_string_equal(progress_format(7, 0, 1.5, "(away)", buf, sizeof(buf)),
                        "7 frames  1.5 frames/s  (away)");
    assert_string_equal(progress_format(12, 10, 2, "", buf, sizeof(buf)),
                        "[########################] 12/10  2.0 frames/s");
}

static void percentiles_are_within_three_percent(void **state) {
    struct latency *latency = calloc(1, sizeof(*latency));
    struct latency *twice = calloc(1, sizeof(*twice));
    (void)state;
    assert_true(latency_percentile(latency, 0.5) == 0);
    for (uint64_t i = 1; i <= 100000; i++)
        latency_add(latency, i);
    static const double shares[] = {0.01, 0.5, 0.95, 0.99};
    for (int i = 0; i < 4; i++) {
        double expected = shares[i] * 100000;
        assert_true(fabs(latency_percentile(latency, shares[i]) - expected) < 0.032 * expected);
    }
    assert_true(latency_percentile(latency, 1) <= 100000);
    latency_merge(twice, latency);
    latency_merge(twice, latency);
    assert_int_equal(twice->count, 200000);
    assert_true(latency_percentile(twice, 0.5) == latency_percentile(latency, 0.5));
    free(latency);
    free(twice);
}

static void extreme_times_have_a_bucket(void **state) {
    struct latency *latency = calloc(1, sizeof(*latency));
    (void)state;
    latency_add(latency, 0);
    latency_add(latency, UINT64_MAX);
    assert_true(latency_percentile(latency, 0.5) == 0);
    assert_true(latency_percentile(latency, 1) > 1e19);
    free(latency);
}

static void top_classes_are_sorted_and_labelled(void **state) {
    char *labels[] = {(char *)"ant", (char *)"bee", (char *)"cat"};
    struct sidecar s = {.labels = labels, .labels_count = 3};
    const float scores[5] = {0.1f, 0.4f, 0.4f, NAN, 0.05f};
    struct labels_class top[5];
    (void)state;
    assert_int_equal(labels_top(&s, scores, 5, 3, top), 3);
    assert_int_equal(top[0].index, 1);
    assert_string_equal(top[0].label, "bee");
    assert_int_equal(top[1].index, 2); /* of equals the lower index first */
    assert_int_equal(top[2].index, 0);
    assert_int_equal(labels_top(&s, scores, 5, 5, top), 5);
    assert_int_equal(top[3].index, 4);
    assert_null(top[3].label);
    assert_int_equal(top[4].index, 3); /* NaN last */
    assert_true(top[0].probability == (double)0.4f);
}

static void softmax_makes_probabilities_of_scores(void **state) {
    struct sidecar s = {.softmax = true};
    const float scores[3] = {1000, 1001, 999};
    struct labels_class top[3];
    (void)state;
    assert_int_equal(labels_top(&s, scores, 3, 3, top), 3);
    assert_int_equal(top[0].index, 1);
    assert_true(fabs(top[0].probability - 0.66524096) < 1e-7);
    assert_true(fabs(top[0].probability + top[1].probability + top[2].probability - 1) < 1e-12);
}

static void class_vectors_are_told_from_other_outputs(void **state) {
    struct tensor_desc vector = {"y", DTYPE_FLOAT, 2, {1, 10}, 0};
    struct tensor_desc pooled = {"y", DTYPE_FLOAT, 4, {1, 1000, 1, 1}, 0};
    struct tensor_desc map = {"y", DTYPE_FLOAT, 4, {1, 21, 33, 33}, 0};
    struct tensor_desc one = {"y", DTYPE_FLOAT, 2, {1, 1}, 0};
    struct tensor_desc whole = {"y", DTYPE_INT64, 1, {10}, 0};
    struct tensor_desc two[2] = {vector, vector};
    (void)state;
    assert_true(labels_is_class_vector(&vector, 1));
    assert_true(labels_is_class_vector(&pooled, 1));
    assert_false(labels_is_class_vector(&map, 1));
    assert_false(labels_is_class_vector(&one, 1));
    assert_false(labels_is_class_vector(&whole, 1));
    assert_false(labels_is_class_vector(two, 2));
}

static void ranges_of_every_type_are_read(void **state) {
    uint16_t halves[3] = {0x3c00, 0xc000, 0x0001}; /* 1, -2, 2^-24 */
    int64_t whole[2] = {-5, 7};
    float floats[3] = {1, NAN, 3};
    struct labels_range range;
    struct tensor t = {{"y", DTYPE_FLOAT16, 1, {3}, 0}, halves};
    (void)state;
    labels_range(&t, &range);
    assert_true(range.min == -2 && range.max == 1);
    t = (struct tensor){{"y", DTYPE_INT64, 1, {2}, 0}, whole};
    labels_range(&t, &range);
    assert_true(range.min == -5 && range.max == 7 && range.mean == 1);
    t = (struct tensor){{"y", DTYPE_FLOAT, 1, {3}, 0}, floats};
    labels_range(&t, &range);
    assert_true(range.min == 1 && range.max == 3 && range.mean == 2);
    assert_int_equal(range.nans, 1);
}

static void json_lines_keep_every_float(void **state) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    (void)state;
    for (int i = 0; i < 1000; i++) {
        float value = 1.0f / (float)(3 * i + 1), back;
        json_t *list = json_array();
        json_array_append_new(list, json_number(value));
        fseek(out, 0, SEEK_SET);
        assert_int_equal(json_write_line(list, out, NULL), 0);
        back = strtof(text + 1, NULL);
        assert_memory_equal(&back, &value, sizeof(value));
    }
    fclose(out);
    free(text);
}

static void json_of_odd_bytes_and_numbers_is_valid(void **state) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    (void)state;
    json_t *object = json_object();
    json_object_set_new(object, "name", json_text("a\xff\n\"b"));
    json_object_set_new(object, "p", json_number(INFINITY));
    assert_int_equal(json_write_line(object, out, NULL), 0);
    fclose(out);
    assert_string_equal(text, "{\"name\":\"a?\\n\\\"b\",\"p\":null}\n");
    free(text);
}

static void full_disk_is_an_error(void **state) {
    struct err err = {{0}};
    FILE *full = fopen("/dev/full", "w");
    (void)state;
    assert_non_null(full);
    assert_int_equal(json_write_line(json_array(), full, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "No space left"));
    fclose(full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_aligned_by_characters),
        cmocka_unit_test(numbers_get_three_digits_and_a_prefix),
        cmocka_unit_test(progress_shows_share_rate_and_time_left),
        cmocka_unit_test(percentiles_are_within_three_percent),
        cmocka_unit_test(extreme_times_have_a_bucket),
        cmocka_unit_test(top_classes_are_sorted_and_labelled),
        cmocka_unit_test(softmax_makes_probabilities_of_scores),
        cmocka_unit_test(class_vectors_are_told_from_other_outputs),
        cmocka_unit_test(ranges_of_every_type_are_read),
        cmocka_unit_test(json_lines_keep_every_float),
        cmocka_unit_test(json_of_odd_bytes_and_numbers_is_valid),
        cmocka_unit_test(full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
