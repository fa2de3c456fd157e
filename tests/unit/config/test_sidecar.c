#include "config/sidecar.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

struct refusal {
    const char *yaml;
    const char *sentence;
};

static int parse(const char *yaml, const char *name, struct sidecar **ret_sidecar,
                 struct err *err) {
    return sidecar_parse(yaml, strlen(yaml), name, ret_sidecar, err);
}

/* Each yaml, as the file m.yaml, must be refused with exactly its sentence. */
static void expect_refusals(const struct refusal *refusals, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct sidecar *sidecar = NULL;
        struct err err = {""};
        int rc = parse(refusals[i].yaml, "m.yaml", &sidecar, &err);
        assert_string_equal(err.text, refusals[i].sentence);
        assert_int_equal(rc, -EINVAL);
        assert_null(sidecar);
    }
}

static struct sidecar *parse_good(const char *yaml) {
    struct sidecar *sidecar = NULL;
    struct err err = {""};
    int rc = parse(yaml, "m.yaml", &sidecar, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    return sidecar;
}

static void assert_triple(const float *got, double a, double b, double c) {
    const double expected[] = {a, b, c};
    for (int i = 0; i < 3; i++)
        assert_true(fabs((double)got[i] - expected[i]) <= 1e-7 * (1 + fabs(expected[i])));
}

static void assert_defaults(const struct sidecar *sidecar) {
    assert_int_equal(sidecar->width, 0);
    assert_int_equal(sidecar->height, 0);
    assert_int_equal(sidecar->resize, 0);
    assert_int_equal(sidecar->fit, SIDECAR_CROP);
    assert_int_equal(sidecar->channels, SIDECAR_RGB);
    assert_int_equal(sidecar->layout, SIDECAR_NCHW);
    assert_triple(sidecar->mean, 0, 0, 0);
    assert_triple(sidecar->scale, 1 / 255.0, 1 / 255.0, 1 / 255.0);
    assert_true(sidecar->pad == 0);
    assert_false(sidecar->softmax);
    assert_null(sidecar->labels);
    assert_int_equal(sidecar->labels_count, 0);
    assert_null(sidecar->dims);
    assert_int_equal(sidecar->dims_count, 0);
}

/* A file in a folder of its own. */
struct place {
    char folder[32];
    char path[3][64]; /* m.onnx, m.yaml, labels.txt */
};

static void place_init(struct place *place) {
    static const char *const names[] = {"m.onnx", "m.yaml", "labels.txt"};
    strcpy(place->folder, "/tmp/convoy-test-XXXXXX");
    assert_non_null(mkdtemp(place->folder));
    for (size_t i = 0; i < LENGTH(names); i++)
        snprintf(place->path[i], sizeof(place->path[i]), "%s/%s", place->folder, names[i]);
}

static void place_fini(struct place *place) {
    for (size_t i = 0; i < LENGTH(place->path); i++)
        unlink(place->path[i]);
    assert_int_equal(rmdir(place->folder), 0);
}

static void write_bytes(const char *path, const char *bytes, size_t size) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static void write_file(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

/* ---- values ------------------------------------------------------------------------------------
 */

static void empty_file_gives_the_defaults(void **state) {
    static const char *const empties[] = {"", "{}", "picture:\n", "picture: {}\n"};
    (void)state;
    for (size_t i = 0; i < LENGTH(empties); i++) {
        struct sidecar *sidecar = parse_good(empties[i]);

        assert_defaults(sidecar);
        sidecar_free(sidecar);
    }
}

static void every_key_is_read(void **state) {
    (void)state;
    struct sidecar *sidecar = parse_good("picture:\n"
                                         "  width: 320\n"
                                         "  height: 240\n"
                                         "  fit: letterbox\n"
                                         "  pad: 114\n"
                                         "  channels: bgr\n"
                                         "  layout: nhwc\n"
                                         "  mean: [103.94, 116.78, 123.68]\n"
                                         "  scale: [1, 0.5, 1/4]\n"
                                         "softmax: true\n"
                                         "labels: [cat, 'dog', two words, \"a \\u00e9\"]\n"
                                         "dims: {n: 1}\n");

    assert_int_equal(sidecar->width, 320);
    assert_int_equal(sidecar->height, 240);
    assert_int_equal(sidecar->fit, SIDECAR_LETTERBOX);
    assert_true(sidecar->pad == 114);
    assert_int_equal(sidecar->channels, SIDECAR_BGR);
    assert_int_equal(sidecar->layout, SIDECAR_NHWC);
    assert_triple(sidecar->mean, 103.94, 116.78, 123.68);
    assert_triple(sidecar->scale, 1, 0.5, 0.25);
    assert_true(sidecar->softmax);
    assert_int_equal(sidecar->labels_count, 4);
    assert_string_equal(sidecar->labels[0], "cat");
    assert_string_equal(sidecar->labels[2], "two words");
    assert_string_equal(sidecar->labels[3], "a \xc3\xa9");
    assert_int_equal(sidecar->dims_count, 1);
    assert_string_equal(sidecar->dims[0].name, "n");
    assert_int_equal(sidecar->dims[0].value, 1);
    sidecar_free(sidecar);
}

static void std_divides(void **state) {
    (void)state;
    struct sidecar *sidecar =
        parse_good("picture: {mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]}");

    assert_triple(sidecar->mean, 123.675, 116.28, 103.53);
    assert_triple(sidecar->scale, 1 / 58.395, 1 / 57.12, 1 / 57.375);
    sidecar_free(sidecar);
}

static void one_number_counts_for_every_channel(void **state) {
    static const char *const cases[] = {"picture: {mean: 127.5, std: 127.5}",
                                        "picture: {mean: [127.5], scale: [1/127.5]}",
                                        "picture: {mean: 1.275e2, std: +127.5}"};
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct sidecar *sidecar = parse_good(cases[i]);

        assert_triple(sidecar->mean, 127.5, 127.5, 127.5);
        assert_triple(sidecar->scale, 1 / 127.5, 1 / 127.5, 1 / 127.5);
        sidecar_free(sidecar);
    }
}

static void grey_has_two_spellings(void **state) {
    static const char *const cases[] = {"picture: {channels: GRAY}", "picture: {channels: grey}"};
    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct sidecar *sidecar = parse_good(cases[i]);

        assert_int_equal(sidecar->channels, SIDECAR_GRAY);
        sidecar_free(sidecar);
    }
}

static void crop_may_come_from_a_larger_picture(void **state) {
    (void)state;
    struct sidecar *sidecar = parse_good("picture: {width: 224, height: 224, resize: 256}");

    assert_int_equal(sidecar->resize, 256);
    assert_int_equal(sidecar->fit, SIDECAR_CROP);
    sidecar_free(sidecar);
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

static void unknown_or_repeated_key_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"label: x\n", "m.yaml:1:1: unknown key 'label' (did you mean 'labels'?)"},
        {"pictures: x\n", "m.yaml:1:1: unknown key 'pictures' (did you mean 'picture'?)"},
        {"zoom: 1\n",
         "m.yaml:1:1: unknown key 'zoom'; the file may have: picture, labels, softmax, dims"},
        {"picture: {widht: 1}\n", "m.yaml:1:11: unknown key 'widht' (did you mean 'width'?)"},
        {"picture:\n  gamma: 1\n",
         "m.yaml:2:3: unknown key 'gamma'; 'picture' may have: width, height, fit, resize, pad, "
         "channels, layout, mean, scale, std"},
        {"softmax: true\nsoftmax: true\n",
         "m.yaml:2:1: 'softmax' stands twice (first in line 1): remove one"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void wrong_value_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"picture: crop\n", "m.yaml:1:10: 'picture' must be a map of keys and values (such as "
                            "'width: ...'), not 'crop'"},
        {"picture: {width: 0, height: 1}",
         "m.yaml:1:18: 'width' must be a whole number from 1 to 16384, not '0'"},
        {"picture: {fit: zoom}",
         "m.yaml:1:16: 'fit' must be one of crop, stretch, letterbox, not 'zoom'"},
        {"picture: {fit: [crop]}",
         "m.yaml:1:16: 'fit' must be one of crop, stretch, letterbox, not a list"},
        {"picture: {channels: RBG}",
         "m.yaml:1:21: 'channels' must be one of RGB, BGR, GRAY, GREY, not 'RBG'"},
        {"picture: {layout: CHW}", "m.yaml:1:19: 'layout' must be one of NCHW, NHWC, not 'CHW'"},
        {"picture: {mean: [1, 2], scale: 1}", "m.yaml:1:17: 'mean' must be one number or a list of "
                                              "three, one per channel, not of 2"},
        {"picture: {mean: [], scale: 1}", "m.yaml:1:17: 'mean' must be one number or a list of "
                                          "three, one per channel, not of 0"},
        {"picture: {mean: [1, 2, 3, 4], scale: 1}", "m.yaml:1:17: 'mean' must be one number or a "
                                                    "list of three, one per channel, not of 4"},
        {"picture: {mean: [1, x, 3], scale: 1}",
         "m.yaml:1:21: 'mean' must be a number from -1000000 to 1000000 (as 0.5 or 1/255), not "
         "'x'"},
        {"picture: {mean: [1, [2], 3], scale: 1}",
         "m.yaml:1:21: 'mean' must be a number from -1000000 to 1000000 (as 0.5 or 1/255), not a "
         "list"},
        {"picture: {scale: nan}", "m.yaml:1:18: 'scale' must be a number from -1000000 to 1000000 "
                                  "(as 0.5 or 1/255), not 'nan'"},
        {"picture: {scale: inf}", "m.yaml:1:18: 'scale' must be a number from -1000000 to 1000000 "
                                  "(as 0.5 or 1/255), not 'inf'"},
        {"picture: {scale: 0x1}", "m.yaml:1:18: 'scale' must be a number from -1000000 to 1000000 "
                                  "(as 0.5 or 1/255), not '0x1'"},
        {"picture: {scale: 1e999}",
         "m.yaml:1:18: 'scale' must be a number from -1000000 to 1000000 "
         "(as 0.5 or 1/255), not '1e999'"},
        {"picture: {scale: 1/0}", "m.yaml:1:18: 'scale' must be a number from -1000000 to 1000000 "
                                  "(as 0.5 or 1/255), not '1/0'"},
        {"picture: {scale: 1/2/3}",
         "m.yaml:1:18: 'scale' must be a number from -1000000 to 1000000 "
         "(as 0.5 or 1/255), not '1/2/3'"},
        {"picture: {scale: 1/}", "m.yaml:1:18: 'scale' must be a number from -1000000 to 1000000 "
                                 "(as 0.5 or 1/255), not '1/'"},
        {"picture: {scale: 0}", "m.yaml:1:11: 'scale' must not be 0"},
        {"picture: {std: [1, 0, 1]}", "m.yaml:1:11: 'std' must not be 0"},
        {"picture: {std: 1e-40}", "m.yaml:1:11: 'std' must not be 0"},
        {"picture: {fit: letterbox, pad: 256}",
         "m.yaml:1:32: 'pad' must be a number from 0 to 255 (as 0.5 or 1/255), not '256'"},
        {"softmax: 1", "m.yaml:1:10: 'softmax' must be true or false, not '1'"},
        {"dims: {n: -1}", "m.yaml:1:11: 'n' must be a whole number from 1 to 1000000, not '-1'"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void contradiction_is_refused(void **state) {
    static const struct refusal refusals[] = {
        {"picture: {width: 224}",
         "m.yaml:1:10: 'width' and 'height' must be given together, or neither"},
        {"picture: {fit: stretch, resize: 256}",
         "m.yaml:1:25: 'resize' is the size before a crop: remove it, or say 'fit: crop'"},
        {"picture: {width: 224, height: 300, resize: 256}",
         "m.yaml:1:36: 'resize' is 256, too small to crop 224x300 from: it must be at least 300"},
        {"picture: {pad: 114}", "m.yaml:1:11: 'pad' is the value of a letterbox's bars: remove it, "
                                "or say 'fit: letterbox'"},
        {"picture: {scale: 1, std: 1}",
         "m.yaml:1:21: 'scale' and 'std' mean the same (std is 1 / scale): remove one"},
        {"picture: {mean: 127}", "m.yaml:1:11: 'mean' needs 'scale' or 'std' beside it: input = "
                                 "(value - mean) * scale, with values from 0 to 255"},
        {"picture: {channels: GRAY, std: [1, 2, 3]}",
         "m.yaml:1:27: 'std' has three numbers, but a grey picture has one channel"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

static void bad_labels_are_refused(void **state) {
    static const struct refusal refusals[] = {
        {"labels: {a: b}",
         "m.yaml:1:9: 'labels' must be a file with one label per line, or a list, not a map"},
        {"labels: []", "m.yaml:1:9: 'labels': has no labels"},
        {"labels: [a, [b]]", "m.yaml:1:13: 'labels' must be a text, not a list"},
        {"labels: [\"a\\tb\"]",
         "m.yaml:1:10: 'labels' must be a text without control characters, not 'a?b'"},
    };
    (void)state;
    expect_refusals(refusals, LENGTH(refusals));
}

/* ---- files -------------------------------------------------------------------------------------
 */

static void labels_come_from_a_file_beside_the_sidecar(void **state) {
    static const struct {
        const char *text;
        size_t count;
        const char *last;
    } cases[] = {{"cat\ndog\n", 2, "dog"},
                 {"cat\r\ndog\r\n", 2, "dog"},
                 {"cat\n\ndog", 3, "dog"},
                 {"\xef\xbb\xbf"
                  "cat\n\n\n",
                  1, "cat"},
                 {"\ncat", 2, "cat"}};
    struct place place;
    struct err err;
    (void)state;
    place_init(&place);
    write_file(place.path[1], "labels: labels.txt\n");
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct sidecar *sidecar = NULL;
        write_file(place.path[2], cases[i].text);

        assert_int_equal(sidecar_load(place.path[0], &sidecar, &err), 0);
        assert_int_equal(sidecar->labels_count, cases[i].count);
        assert_string_equal(sidecar->labels[cases[i].count - 1], cases[i].last);
        sidecar_free(sidecar);
    }
    place_fini(&place);
}

/* Loads the sidecar of place, which must be refused with "PLACE/<sentence>" where %s in sentence
 * stands for the folder. */
static void expect_load_error(const struct place *place, int code, const char *sentence) {
    struct sidecar *sidecar = NULL;
    struct err err = {""};
    char expected[512], *out = expected;
    for (const char *c = sentence; *c; c++)
        out += *c == '@' ? sprintf(out, "%s", place->folder) : sprintf(out, "%c", *c);

    int rc = sidecar_load(place->path[0], &sidecar, &err);

    assert_string_equal(err.text, expected);
    assert_int_equal(rc, code);
    assert_null(sidecar);
}

static void bad_label_file_is_refused(void **state) {
    struct place place;
    (void)state;
    place_init(&place);
    write_file(place.path[1], "softmax: true\nlabels: labels.txt\n");

    expect_load_error(&place, -ENOENT,
                      "@/m.yaml:2:9: 'labels': @/labels.txt: No such file or directory");
    write_file(place.path[2], "\n\n");
    expect_load_error(&place, -EINVAL, "@/m.yaml:2:9: 'labels': @/labels.txt: has no labels");
    write_file(place.path[2], "cat\n\xff\n");
    expect_load_error(&place, -EINVAL,
                      "@/m.yaml:2:9: 'labels': @/labels.txt:2:1: not UTF-8 text (byte 0xff)");
    write_bytes(place.path[2], "cat\0", 4);
    expect_load_error(
        &place, -EINVAL,
        "@/m.yaml:2:9: 'labels': @/labels.txt:1:4: a NUL character: this is not a text file");
    char line[SIDECAR_LABEL_MAX + 8] = "cat\n";
    memset(line + 4, 'x', SIDECAR_LABEL_MAX + 1);
    write_file(place.path[2], line);
    expect_load_error(&place, -EINVAL,
                      "@/m.yaml:2:9: 'labels': @/labels.txt:2: a label of more than 1023 bytes");
    place_fini(&place);
}

static void too_many_labels_are_refused(void **state) {
    struct place place;
    (void)state;
    place_init(&place);
    write_file(place.path[1], "labels: labels.txt\n");
    FILE *file = fopen(place.path[2], "w");
    for (int i = 0; i < SIDECAR_LABELS_MAX + 1; i++)
        fprintf(file, "%d\n", i);
    fclose(file);

    expect_load_error(&place, -EINVAL,
                      "@/m.yaml:1:9: 'labels': @/labels.txt: has 65537 labels, but at most 65536 "
                      "can be");
    place_fini(&place);
}

static void model_without_a_sidecar_gets_the_defaults(void **state) {
    struct sidecar *sidecar = NULL;
    struct err err;
    (void)state;

    assert_int_equal(sidecar_load("/nonexistent/m.onnx", &sidecar, &err), 0);
    assert_defaults(sidecar);
    sidecar_free(sidecar);
}

static void sidecar_is_found_by_the_model_s_name(void **state) {
    static const char *const models[][2] = {
        {"m.onnx", "m.yaml"}, {"m.v1.onnx", "m.v1.yaml"}, {"net", "net.yaml"}};
    struct err err;
    (void)state;
    for (size_t i = 0; i < LENGTH(models); i++) {
        struct sidecar *sidecar = NULL;
        char folder[] = "/tmp/convoy-test-XXXXXX", model[64], yaml[64];
        assert_non_null(mkdtemp(folder));
        snprintf(model, sizeof(model), "%s/%s", folder, models[i][0]);
        snprintf(yaml, sizeof(yaml), "%s/%s", folder, models[i][1]);
        write_file(yaml, "softmax: on\n");

        assert_int_equal(sidecar_load(model, &sidecar, &err), 0);
        assert_true(sidecar->softmax);
        sidecar_free(sidecar);
        unlink(yaml);
        rmdir(folder);
    }
}

static void sidecar_that_cannot_be_read_is_an_error(void **state) {
    struct place place;
    (void)state;
    place_init(&place);

    assert_int_equal(symlink(place.folder, place.path[1]), 0);
    expect_load_error(&place, -EISDIR, "@/m.yaml: Is a directory");
    unlink(place.path[1]);
    assert_int_equal(symlink("/dev/zero", place.path[1]), 0);
    expect_load_error(&place, -EFBIG,
                      "@/m.yaml: larger than the 1048576 bytes that such a file may have");
    place_fini(&place);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_file_gives_the_defaults),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(std_divides),
        cmocka_unit_test(one_number_counts_for_every_channel),
        cmocka_unit_test(grey_has_two_spellings),
        cmocka_unit_test(crop_may_come_from_a_larger_picture),
        cmocka_unit_test(unknown_or_repeated_key_is_refused),
        cmocka_unit_test(wrong_value_is_refused),
        cmocka_unit_test(contradiction_is_refused),
        cmocka_unit_test(bad_labels_are_refused),
        cmocka_unit_test(labels_come_from_a_file_beside_the_sidecar),
        cmocka_unit_test(bad_label_file_is_refused),
        cmocka_unit_test(too_many_labels_are_refused),
        cmocka_unit_test(model_without_a_sidecar_gets_the_defaults),
        cmocka_unit_test(sidecar_is_found_by_the_model_s_name),
        cmocka_unit_test(sidecar_that_cannot_be_read_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
