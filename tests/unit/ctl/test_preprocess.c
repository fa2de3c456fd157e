#include "ctl/preprocess.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct sidecar plain = {.scale = {1, 1, 1}};
static const struct tensor_desc nchw_2x2 = {"x", DTYPE_FLOAT, 4, {1, 3, 2, 2}, 0};
static const struct tensor_desc gray_2x2 = {"x", DTYPE_FLOAT, 4, {1, 1, 2, 2}, 0};

/* Pixel (x, y) of a 4x2 RGB picture is 10 * (y * 4 + x) + channel. */
static const uint8_t pixels_4x2[2][12] = {
    {0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32},
    {40, 41, 42, 50, 51, 52, 60, 61, 62, 70, 71, 72},
};

static void crop_takes_the_centre_of_the_covered_window(void **state) {
    struct preprocess p;
    struct preprocess_geometry g;
    float tensor[12];
    (void)state;
    assert_int_equal(preprocess_init(&plain, &nchw_2x2, &p, NULL), 0);
    assert_int_equal(preprocess_place(&p, 8, 4, &g, NULL), 0);
    assert_int_equal(g.scaled_width, 4);
    assert_int_equal(g.scaled_height, 2);
    assert_int_equal(g.left, 1);
    assert_int_equal(g.top, 0);
    preprocess_fill(&p, &g, pixels_4x2[0], sizeof(pixels_4x2[0]), tensor);
    const float expected[12] = {10, 20, 50, 60, 11, 21, 51, 61, 12, 22, 52, 62};
    assert_memory_equal(tensor, expected, sizeof(expected));
}

static void resize_is_the_shorter_side_before_the_crop(void **state) {
    struct sidecar s = plain;
    struct tensor_desc input = {"x", DTYPE_FLOAT, 4, {1, 3, 224, 224}, 0};
    struct preprocess p;
    struct preprocess_geometry g;
    (void)state;
    s.resize = 256;
    assert_int_equal(preprocess_init(&s, &input, &p, NULL), 0);
    assert_int_equal(preprocess_place(&p, 1280, 720, &g, NULL), 0);
    assert_int_equal(g.scaled_width, 455);
    assert_int_equal(g.scaled_height, 256);
    assert_int_equal(g.left, 115);
    assert_int_equal(g.top, 16);
    assert_int_equal(preprocess_place(&p, 300, 600, &g, NULL), 0);
    assert_int_equal(g.scaled_width, 256);
    assert_int_equal(g.scaled_height, 512);
    assert_int_equal(g.left, 16);
    assert_int_equal(g.top, 144);
}

static void stretch_ignores_the_aspect(void **state) {
    struct sidecar s = plain;
    struct preprocess p;
    struct preprocess_geometry g;
    (void)state;
    s.fit = SIDECAR_STRETCH;
    assert_int_equal(preprocess_init(&s, &nchw_2x2, &p, NULL), 0);
    assert_int_equal(preprocess_place(&p, 1000, 3, &g, NULL), 0);
    assert_int_equal(g.scaled_width, 2);
    assert_int_equal(g.scaled_height, 2);
    assert_int_equal(g.left, 0);
    assert_int_equal(g.top, 0);
}

static void letterbox_fills_bars_with_pad(void **state) {
    struct sidecar s = plain;
    struct tensor_desc input = {"x", DTYPE_FLOAT, 4, {1, 1, 3, 2}, 0};
    struct preprocess p;
    struct preprocess_geometry g;
    const uint8_t row[2] = {8, 16};
    float tensor[6];
    (void)state;
    s.fit = SIDECAR_LETTERBOX;
    s.pad = 114;
    s.mean[0] = 4;
    s.scale[0] = 0.5f;
    assert_int_equal(preprocess_init(&s, &input, &p, NULL), 0);
    assert_int_equal(preprocess_place(&p, 200, 100, &g, NULL), 0);
    assert_int_equal(g.scaled_width, 2);
    assert_int_equal(g.scaled_height, 1);
    assert_int_equal(g.top, -1);
    preprocess_fill(&p, &g, row, 2, tensor);
    const float expected[6] = {55, 55, 2, 6, 55, 55};
    assert_memory_equal(tensor, expected, sizeof(expected));
}

static void mean_and_scale_go_by_the_models_channel_order(void **state) {
    struct sidecar s = {.channels = SIDECAR_BGR, .mean = {2, 1, 0}, .scale = {1, 10, 100}};
    struct preprocess p;
    struct preprocess_geometry g = {2, 2, 0, 0};
    float tensor[12];
    (void)state;
    assert_int_equal(preprocess_init(&s, &nchw_2x2, &p, NULL), 0);
    preprocess_fill(&p, &g, pixels_4x2[0], sizeof(pixels_4x2[0]), tensor);
    /* B - 2, (G - 1) * 10, R * 100 */
    const float expected[12] = {0, 10, 40, 50, 0, 100, 400, 500, 0, 1000, 4000, 5000};
    assert_memory_equal(tensor, expected, sizeof(expected));
}

static void channels_last_interleaves(void **state) {
    struct sidecar s = plain;
    struct tensor_desc input = {"x", DTYPE_FLOAT, 4, {1, 1, 2, 3}, 0};
    struct preprocess p;
    struct preprocess_geometry g = {2, 1, 0, 0};
    float tensor[6];
    (void)state;
    s.layout = SIDECAR_NHWC;
    assert_int_equal(preprocess_init(&s, &input, &p, NULL), 0);
    preprocess_fill(&p, &g, pixels_4x2[0], sizeof(pixels_4x2[0]), tensor);
    const float expected[6] = {0, 1, 2, 10, 11, 12};
    assert_memory_equal(tensor, expected, sizeof(expected));
}

static void bytes_are_rounded_and_saturated(void **state) {
    struct sidecar s = plain;
    struct tensor_desc input = {"x", DTYPE_UINT8, 3, {1, 1, 4}, 0};
    struct preprocess p;
    struct preprocess_geometry g = {4, 1, 0, 0};
    const uint8_t row[4] = {0, 101, 103, 255};
    uint8_t tensor[4];
    (void)state;
    s.mean[0] = 100;
    s.scale[0] = 2.5f;
    assert_int_equal(preprocess_init(&s, &input, &p, NULL), 0);
    preprocess_fill(&p, &g, row, 4, tensor);
    assert_int_equal(tensor[0], 0);
    assert_int_equal(tensor[1], 3);
    assert_int_equal(tensor[2], 8);
    assert_int_equal(tensor[3], 255);
}

static void model_of_one_channel_is_fed_gray(void **state) {
    struct preprocess p;
    (void)state;
    assert_int_equal(preprocess_init(&plain, &gray_2x2, &p, NULL), 0);
    assert_int_equal(p.channels, 1);
    assert_false(p.reversed);
}

static void gray_keeps_the_value_of_equal_channels(void **state) {
    uint8_t row[256 * 3];
    (void)state;
    for (int v = 0; v < 256; v++)
        memset(row + 3 * v, v, 3);
    preprocess_gray(row, sizeof(row), 256, 1);
    for (int v = 0; v < 256; v++)
        assert_int_equal(row[v], v);
    uint8_t colours[9] = {255, 0, 0, 0, 255, 0, 0, 0, 255};
    preprocess_gray(colours, 9, 3, 1);
    assert_int_equal(colours[0], 76);
    assert_int_equal(colours[1], 150);
    assert_int_equal(colours[2], 29);
}

static void rules_that_contradict_the_model_are_refused(void **state) {
    struct sidecar gray = plain, wide = plain, small = plain;
    struct tensor_desc batch = {"x", DTYPE_FLOAT, 4, {2, 3, 2, 2}, 0};
    struct tensor_desc flat = {"x", DTYPE_FLOAT, 2, {1, 4}, 0};
    struct tensor_desc four = {"x", DTYPE_FLOAT, 4, {1, 4, 2, 2}, 0};
    struct tensor_desc whole = {"x", DTYPE_INT64, 4, {1, 3, 2, 2}, 0};
    gray.channels = SIDECAR_GRAY;
    wide.width = 3;
    small.resize = 1;
    const struct {
        const struct sidecar *sidecar;
        const struct tensor_desc *input;
        const char *says;
    } cases[] = {
        {&gray, &nchw_2x2, "RGB or BGR"},    {&wide, &nchw_2x2, "leave them out"},
        {&small, &nchw_2x2, "smaller than"}, {&plain, &batch, "first dimension to 1"},
        {&plain, &flat, "--tensor x="},      {&plain, &four, "4 channels"},
        {&plain, &whole, "int64"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct preprocess p;
        struct err err = {{0}};
        assert_int_equal(preprocess_init(cases[i].sidecar, cases[i].input, &p, &err), -EINVAL);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says '%s'", i, err.text);
    }
}

static void narrow_picture_is_refused_for_a_crop_only(void **state) {
    struct sidecar s = plain;
    struct tensor_desc input = {"x", DTYPE_FLOAT, 4, {1, 3, 224, 224}, 0};
    struct preprocess p;
    struct preprocess_geometry g;
    struct err err = {{0}};
    (void)state;
    assert_int_equal(preprocess_init(&s, &input, &p, NULL), 0);
    assert_int_equal(preprocess_place(&p, 1, 16000, &g, &err), -EINVAL);
    assert_non_null(strstr(err.text, "letterbox"));
    p.fit = SIDECAR_LETTERBOX;
    assert_int_equal(preprocess_place(&p, 1, 16000, &g, NULL), 0);
    assert_int_equal(g.scaled_width, 1);
    assert_int_equal(g.scaled_height, 224);
    assert_int_equal(g.left, -111);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crop_takes_the_centre_of_the_covered_window),
        cmocka_unit_test(resize_is_the_shorter_side_before_the_crop),
        cmocka_unit_test(stretch_ignores_the_aspect),
        cmocka_unit_test(letterbox_fills_bars_with_pad),
        cmocka_unit_test(mean_and_scale_go_by_the_models_channel_order),
        cmocka_unit_test(channels_last_interleaves),
        cmocka_unit_test(bytes_are_rounded_and_saturated),
        cmocka_unit_test(model_of_one_channel_is_fed_gray),
        cmocka_unit_test(gray_keeps_the_value_of_equal_channels),
        cmocka_unit_test(rules_that_contradict_the_model_are_refused),
        cmocka_unit_test(narrow_picture_is_refused_for_a_crop_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
