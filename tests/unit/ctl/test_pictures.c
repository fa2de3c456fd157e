/* Real photographs through real networks: decoding, scaling, sidecar, model, labels. The labels and
 * probabilities are those that came with the models, made with another engine and another resizer.
 */
#include "ctl/feed.h"
#include "ctl/labels.h"
#include "ctl/network.h"
#include "model/runner.h"

#include "tests/lib/models.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A network with the rules of its pictures in this file. */
struct subject {
    const char *file;
    const char *rules;
};

static const struct subject mobilenet = {
    "mobilenet_v1_1.0_224.onnx",
    "picture: {width: 224, height: 224, resize: 256, mean: 127.5, std: 127.5}\n"};
static const struct subject squeezenet = {"squeezenet1.1.onnx",
                                          "picture: {width: 224, height: 224, resize: 256, "
                                          "channels: BGR, mean: [103.94, 116.78, 123.68], "
                                          "scale: 1}\n"};

/* The class of highest score of a picture, and its probability. */
static struct labels_class classify(const struct subject *subject, const char *picture) {
    char model_path[512], picture_path[512], name[64];
    struct network network;
    struct network_dims dims = {0};
    struct runner runner;
    struct sidecar *sidecar;
    struct stage *stage;
    struct feed *feed;
    struct feed_item item;
    struct labels_class top;
    struct err err = {{0}};
    size_t scores = 0;
    snprintf(name, sizeof(name), "pictures/%s", picture);
    if (!models_path(subject->file, model_path, sizeof(model_path)) ||
        !models_path(name, picture_path, sizeof(picture_path)))
        skip();
    assert_int_equal(sidecar_parse(subject->rules, strlen(subject->rules), "rules", &sidecar, &err),
                     0);
    if (network_open(model_path, &dims, &network, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(
        stage_new(network.model, 0, model_layers_count(network.model), NULL, &stage, &err), 0);
    assert_int_equal(runner_init(&runner, stage, &err), 0);
    const char *sources[] = {picture_path};
    if (feed_new_pictures(sources, 1, sidecar, &runner.inputs[0].desc, 1, &feed, &err) != 0)
        fail_msg("%s", err.text);
    if (feed_next(feed, runner.inputs, &item, &err) != 1)
        fail_msg("%s", err.text);
    assert_int_equal(runner_run(&runner, &err), 0);
    assert_true(labels_is_class_vector(&runner.outputs[0].desc, 1));
    tensor_desc_count(&runner.outputs[0].desc, &scores);
    assert_int_equal(labels_top(sidecar, runner.outputs[0].data, scores, 1, &top), 1);
    feed_free(feed);
    runner_fini(&runner);
    stage_unref(stage);
    network_close(&network);
    sidecar_free(sidecar);
    return top;
}

static void expect_class(const char *picture, size_t class_index, double probability) {
    struct labels_class top = classify(&mobilenet, picture);
    if (top.index != class_index || fabs(top.probability - probability) > 0.03)
        fail_msg("%s: class %zu with %.3f, wanted %zu with %.3f", picture, top.index,
                 top.probability, class_index, probability);
}

static void mobilenet_knows_the_bitmaps(void **state) {
    (void)state;
    expect_class("bird.bmp", 20, 0.999);
    expect_class("cat.bmp", 286, 0.848);
    expect_class("dragonfly.bmp", 320, 0.611);
    expect_class("grace_hopper.bmp", 458, 0.349);
    expect_class("sunflower.bmp", 986, 0.889);
}

/* JPEG has its own colour range and half the colour resolution. */
static void mobilenet_knows_the_jpegs(void **state) {
    (void)state;
    expect_class("cat_720p.jpg", 286, 0.779);
    expect_class("hot_dog.jpg", 935, 1.0);
    expect_class("owl.jpg", 83, 0.605);
    expect_class("parrot.jpg", 89, 0.997);
}

/* 1000 classes in BGR order: with red and blue exchanged it would see others. */
static void squeezenet_knows_some_too(void **state) {
    (void)state;
    assert_int_equal(classify(&squeezenet, "bird.bmp").index, 19);
    assert_int_equal(classify(&squeezenet, "hot_dog.jpg").index, 934);
    assert_int_equal(classify(&squeezenet, "parrot.jpg").index, 88);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mobilenet_knows_the_bitmaps),
        cmocka_unit_test(mobilenet_knows_the_jpegs),
        cmocka_unit_test(squeezenet_knows_some_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
