#include "ctl/feed.h"
#include "ctl/report.h"

#include "tests/lib/folder.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[64];
    char path[3][128];
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/convoy-feed-XXXXXX");
    *state = f;
    if (!mkdtemp(f->dir))
        return -1;
    for (int i = 0; i < 3; i++)
        snprintf(f->path[i], sizeof(f->path[i]), "%s/%d.npy", f->dir, i);
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    int rc = folder_remove(f->dir);
    free(f);
    return rc;
}

/* count items of [1][2] floats: item i is (i, -i) of start on. */
static void write_items(const char *path, enum npy_form form, int start, int count) {
    struct tensor_desc item = {.dtype = DTYPE_FLOAT, .rank = 2, .dims = {1, 2}};
    struct npy_writer *writer;
    assert_int_equal(npy_writer_new(path, &item, form, &writer, NULL), 0);
    for (int i = start; i < start + count; i++) {
        float data[2] = {(float)i, (float)-i};
        assert_int_equal(npy_writer_add(writer, data, sizeof(data), NULL), 0);
    }
    assert_int_equal(npy_writer_finish(writer, NULL), 0);
    npy_writer_free(writer);
}

static const struct tensor_desc two_inputs[2] = {
    {"a", DTYPE_FLOAT, 2, {1, 2}, 0},
    {"b:0", DTYPE_FLOAT, 2, {1, 2}, 0},
};

static struct feed *open_feed(const char *const *words, size_t count, size_t inputs) {
    struct feed *feed;
    struct err err = {{0}};
    if (feed_new_tensors(words, count, two_inputs, inputs, &feed, &err) != 0)
        fail_msg("%s", err.text);
    return feed;
}

static void frames_of_every_layout_are_fed(void **state) {
    struct fixture *f = *state;
    static const enum npy_form forms[] = {NPY_SINGLE, NPY_STACKED, NPY_JOINED};
    for (int i = 0; i < 3; i++) {
        float data[2];
        struct tensor input = {two_inputs[0], data};
        struct feed_item item;
        uint64_t frames = i ? 3 : 1;
        const char *words[] = {f->path[i]};
        write_items(f->path[i], forms[i], 10, (int)frames);
        struct feed *feed = open_feed(words, 1, 1);
        assert_int_equal(feed_total(feed), frames);
        assert_int_equal(feed_form(feed), forms[i]);
        for (uint64_t n = 0; n < frames; n++) {
            assert_int_equal(feed_next(feed, &input, &item, NULL), 1);
            assert_int_equal(item.number, n);
            assert_int_equal(item.film, i > 0);
            assert_true(data[0] == (float)(10 + n));
        }
        assert_int_equal(feed_next(feed, &input, &item, NULL), 0);
        feed_free(feed);
    }
}

static void single_frame_accompanies_many(void **state) {
    struct fixture *f = *state;
    char a[160], b[160];
    const char *words[] = {b, a};
    float data[2][2];
    struct tensor inputs[2] = {{two_inputs[0], data[0]}, {two_inputs[1], data[1]}};
    struct feed_item item;
    write_items(f->path[0], NPY_JOINED, 1, 2);
    write_items(f->path[1], NPY_SINGLE, 7, 1);
    snprintf(a, sizeof(a), "a=%s", f->path[0]);
    snprintf(b, sizeof(b), "b:0=%s", f->path[1]);
    struct feed *feed = open_feed(words, 2, 2);
    for (int n = 1; n <= 2; n++) {
        assert_int_equal(feed_next(feed, inputs, &item, NULL), 1);
        assert_true(data[0][0] == (float)n && data[1][0] == 7);
    }
    assert_int_equal(feed_next(feed, inputs, &item, NULL), 0);
    feed_free(feed);
}

static void tensors_that_do_not_fit_are_refused(void **state) {
    struct fixture *f = *state;
    struct tensor_desc other = {.dtype = DTYPE_FLOAT, .rank = 1, .dims = {5}};
    struct tensor_desc wide = {.name = "a", .dtype = DTYPE_DOUBLE, .rank = 2, .dims = {1, 2}};
    struct npy_writer *writer;
    char words[8][160];
    write_items(f->path[0], NPY_JOINED, 1, 2);
    write_items(f->path[1], NPY_JOINED, 1, 3);
    assert_int_equal(npy_writer_new(f->path[2], &other, NPY_SINGLE, &writer, NULL), 0);
    assert_int_equal(npy_writer_add(writer, "01234567890123456789", 20, NULL), 0);
    assert_int_equal(npy_writer_finish(writer, NULL), 0);
    npy_writer_free(writer);
    snprintf(words[0], 160, "a=%s", f->path[0]);
    snprintf(words[1], 160, "b:0=%s", f->path[1]);
    snprintf(words[2], 160, "%s", f->path[0]);
    snprintf(words[3], 160, "a=%s", f->path[2]);
    snprintf(words[4], 160, "label:0=%s", f->path[0]);
    const struct {
        const char *words[2];
        size_t count;
        const char *says;
    } cases[] = {
        {{words[0], words[1]}, 2, "3 frames, but another input has 2"},
        {{words[0]}, 1, "input b:0 is missing"},
        {{words[0], words[0]}, 2, "given twice"},
        {{words[2]}, 1, "write NAME=FILE.npy"},
        {{words[3]}, 1, "float32 [5], but input a is float32 [1,2]"},
        {{words[4]}, 1, "its first input is 'a'"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct feed *feed;
        struct err err = {{0}};
        int rc = feed_new_tensors(cases[i].words, cases[i].count, two_inputs, 2, &feed, &err);
        assert_int_equal(rc, -EINVAL);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says '%s'", i, err.text);
    }
    struct feed *feed;
    struct err err = {{0}};
    const char *one[] = {words[2]};
    assert_int_equal(feed_new_tensors(one, 1, &wide, 1, &feed, &err), -EINVAL);
}

/* A report that prints into *text. */
static struct report *open_report(struct report_options *options, const struct tensor_desc *outputs,
                                  size_t count, char **text, size_t *size, FILE **stream) {
    static const struct sidecar none;
    struct report *report;
    struct err err = {{0}};
    *stream = open_memstream(text, size);
    if (report_new(options, &none, outputs, count, *stream, &report, &err) != 0)
        fail_msg("%s", err.text);
    return report;
}

static void result_is_one_line_of_json(void **state) {
    struct tensor_desc y = {"y", DTYPE_FLOAT, 2, {1, 2}, 0};
    struct report_options options = {.json = true, .time = true, .top = 2};
    struct feed_item item = {.number = 3, .source = "cat.bmp"};
    float data[2] = {0.25f, 0.75f};
    struct tensor tensor = {y, data};
    char *text = NULL;
    size_t size;
    FILE *stream;
    (void)state;
    struct report *report = open_report(&options, &y, 1, &text, &size, &stream);
    assert_int_equal(report_result(report, &item, &tensor, 12.3, NULL), 0);
    assert_string_equal(text, "{\"frame\":3,\"source\":\"cat.bmp\",\"top\":[{\"class\":1,"
                              "\"probability\":0.75},{\"class\":0,\"probability\":0.25}],"
                              "\"ms\":12.3}\n");
    report_free(report);
    fclose(stream);
    free(text);
}

static void output_that_is_no_class_vector_is_described(void **state) {
    struct tensor_desc y = {"y", DTYPE_FLOAT, 2, {2, 2}, 0};
    struct report_options options = {.top = 5};
    struct feed_item item = {.number = 0, .source = "a.npy", .index = 4, .film = true};
    float data[4] = {1, 2, 3, 6};
    struct tensor tensor = {y, data};
    char *text = NULL;
    size_t size;
    FILE *stream;
    (void)state;
    struct report *report = open_report(&options, &y, 1, &text, &size, &stream);
    assert_int_equal(report_result(report, &item, &tensor, 1, NULL), 0);
    assert_string_equal(text, "a.npy #4\n  y  float32 [2,2]  min 1  max 6  mean 3\n");
    report_free(report);
    fclose(stream);
    free(text);
}

static void failed_frames_leave_nan_in_the_files(void **state) {
    struct fixture *f = *state;
    struct tensor_desc y = {"out/y:0", DTYPE_FLOAT, 2, {1, 2}, 0};
    char dir[128], path[160];
    struct report_options options = {.quiet = true, .out_dir = dir, .form = NPY_JOINED};
    struct feed_item item = {.source = "x"};
    float data[2] = {4, 5}, back[6];
    struct tensor tensor = {y, data};
    char *text = NULL;
    size_t size;
    FILE *stream;
    struct npy_reader *reader;
    snprintf(dir, sizeof(dir), "%s/results", f->dir);
    snprintf(path, sizeof(path), "%s/out_y_0.npy", dir);
    struct report *report = open_report(&options, &y, 1, &text, &size, &stream);
    assert_int_equal(report_failure(report, &item, "no picture", NULL), 0);
    assert_int_equal(report_result(report, &item, &tensor, 1, NULL), 0);
    assert_int_equal(report_failure(report, &item, "no picture", NULL), 0);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(report_finish(report, NULL), 0);
    report_free(report);
    fclose(stream);
    free(text);

    assert_int_equal(npy_reader_new(path, &reader, NULL), 0);
    assert_int_equal(npy_reader_desc(reader)->dims[0], 3);
    assert_int_equal(npy_reader_read(reader, 0, back, sizeof(back), NULL), 0);
    assert_true(isnan(back[0]) && isnan(back[5]));
    assert_true(back[2] == 4 && back[3] == 5);
    npy_reader_free(reader);
}

static void outputs_that_would_share_a_file_are_refused(void **state) {
    struct fixture *f = *state;
    struct tensor_desc outputs[2] = {{"a/b", DTYPE_FLOAT, 1, {1}, 0},
                                     {"a:b", DTYPE_FLOAT, 1, {1}, 0}};
    struct report_options options = {.out_dir = f->dir};
    struct report *report;
    struct sidecar none = {0};
    struct err err = {{0}};
    assert_int_equal(report_new(&options, &none, outputs, 2, stdout, &report, &err), -EINVAL);
    assert_non_null(strstr(err.text, "'a/b' and 'a:b'"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_of_every_layout_are_fed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(single_frame_accompanies_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tensors_that_do_not_fit_are_refused, set_up, tear_down),
        cmocka_unit_test(result_is_one_line_of_json),
        cmocka_unit_test(output_that_is_no_class_vector_is_described),
        cmocka_unit_test_setup_teardown(failed_frames_leave_nan_in_the_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(outputs_that_would_share_a_file_are_refused, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
