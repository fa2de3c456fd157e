/* What model_open() and its relatives say to people: names, dimensions, operators, broken files. */
#include "tests/lib/models.h"
#include "tests/lib/small_model.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/convoy-model-XXXXXX";

static int open_text(int opset, const char *text, const struct model_options *options,
                     struct model **ret, struct err *err) {
    char path[64];
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    small_model_write(path, opset, text);
    int rc = model_open(path, options, ret, err);
    unlink(path);
    return rc;
}

/* The file is refused with code and a sentence that contains words. */
static void refuse(int opset, const char *text, int code, const char *words) {
    struct model *model = NULL;
    struct err err = {0};
    int rc = open_text(opset, text, NULL, &model, &err);
    model_unref(model);
    if (rc != code)
        fail_msg("%d instead of %d: %s\n%s", rc, code, err.text, text);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not contain \"%s\"", err.text, words);
}

static struct model *accept(int opset, const char *text, const struct model_options *options) {
    struct model *model = NULL;
    struct err err = {0};
    if (open_text(opset, text, options, &model, &err) < 0)
        fail_msg("%s", err.text);
    return model;
}

#define THREE                                                                                      \
    "input x f32 1,4\noutput y\nRelu fire4/concat x -> a\nSigmoid fire7/concat a -> b\n"           \
    "Concat join a,b -> c | axis=1\nTanh last c -> y\n"

static void layer_is_found_by_name_and_by_index(void **state) {
    (void)state;
    struct model *model = accept(13, THREE, NULL);
    struct err err = {0};
    size_t index = 99;
    assert_int_equal(model_find_layer(model, "fire7/concat", &index, &err), 0);
    assert_int_equal(index, 1);
    assert_int_equal(model_find_layer(model, "2", &index, &err), 0);
    assert_int_equal(index, 2);
    assert_int_equal(model_find_layer(model, "3", &index, &err), -ENOENT);
    assert_string_equal(err.text, "layer 3: the model has layers 0 to 2");
    model_unref(model);
}

static void unknown_layer_gets_a_suggestion(void **state) {
    (void)state;
    struct model *model = accept(13, THREE, NULL);
    struct err err = {0};
    size_t index = 99;
    assert_int_equal(model_find_layer(model, "fire7/conat", &index, &err), -ENOENT);
    assert_string_equal(err.text, "no layer is called 'fire7/conat'; did you mean 'fire7/concat'?");
    assert_int_equal(model_find_layer(model, "join", &index, &err), -ENOENT);
    assert_string_equal(err.text,
                        "operator 'join' is part of layer 'last' (Concat+Tanh): name that one");
    assert_int_equal(model_find_layer(model, "something else", &index, &err), -ENOENT);
    assert_non_null(strstr(err.text, "convoyctl inspect"));
    assert_int_equal(index, 99);
    model_unref(model);
}

static void cuts_carry_what_is_alive(void **state) {
    (void)state;
    struct model *model = accept(13, THREE, NULL);
    size_t count;
    const struct tensor_desc *cut = model_cut(model, 2, &count);
    assert_int_equal(count, 2);
    assert_string_equal(cut[0].name, "a");
    assert_string_equal(cut[1].name, "b");
    cut = model_cut(model, 0, &count);
    assert_int_equal(count, 1);
    assert_string_equal(cut[0].name, "x");
    cut = model_cut(model, 3, &count);
    assert_int_equal(count, 1);
    assert_int_equal(cut[0].dims[1], 8);
    model_unref(model);
}

static void stage_of_a_wrong_range_is_refused(void **state) {
    (void)state;
    struct model *model = accept(13, THREE, NULL);
    struct stage *stage = NULL;
    struct err err = {0};
    assert_int_equal(stage_new(model, 2, 2, NULL, &stage, &err), -EINVAL);
    assert_int_equal(stage_new(model, 0, 4, NULL, &stage, &err), -EINVAL);
    assert_null(stage);
    assert_int_equal(model_write_part(model, 3, 4, "/nowhere", &err), -EINVAL);
    model_unref(model);
}

static void outputs_that_are_inputs_have_a_source(void **state) {
    (void)state;
    struct model *model =
        accept(13,
               "input x f32 1,4\noutput y\nconst s i64 1 = 4\nReshape r x,s -> v\n"
               "Relu relu v -> a\nSigmoid sig a -> b\nAdd add b,v -> y\n",
               NULL);
    struct stage *stage = NULL;
    struct err err = {0};
    size_t count;
    assert_int_equal(stage_new(model, 0, 2, NULL, &stage, &err), 0);
    const struct tensor_desc *outputs = stage_outputs(stage, &count);
    assert_int_equal(count, 2);
    assert_string_equal(outputs[0].name, "v");
    assert_int_equal(stage_output_source(stage, 0), 0);
    assert_int_equal(stage_output_source(stage, 1), -1);
    stage_unref(stage);
    model_unref(model);
}

static void same_bytes_as_two_outputs_are_written_twice(void **state) {
    (void)state;
    struct model *model = accept(13,
                                 "input x f32 1,4\noutput y\noutput v\nconst s i64 2 = 2,2\n"
                                 "Relu relu x -> y\nReshape r y,s -> v\n",
                                 NULL);
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct err err = {0};
    struct tensor in = {.data = tensor_buffer_new(16)}, out[2];
    float *x = in.data;
    for (int i = 0; i < 4; i++)
        x[i] = (float)(i - 1);
    assert_int_equal(stage_new(model, 0, 2, NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    models_room(stage, out);
    assert_int_equal(exec_run(exec, &in, out, &err), 0);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 4; k++)
            assert_true(((float *)out[i].data)[k] == (k > 1 ? (float)(k - 1) : 0.0f));
    assert_int_equal(out[1].desc.rank, 2);
    models_room_free(stage, out);
    tensor_buffer_free(in.data);
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
}

static void shapes_as_outputs_are_computed(void **state) {
    (void)state;
    struct model *model =
        accept(13, "input x f32 2,5\noutput y\nRelu r x -> a\nShape s a -> y\n", NULL);
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct err err = {0};
    struct tensor in = {.data = tensor_buffer_new(40)}, out[1];
    memset(in.data, 0, 40);
    assert_int_equal(stage_new(model, 0, model_layers_count(model), NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    models_room(stage, out);
    assert_int_equal(exec_run(exec, &in, out, &err), 0);
    assert_int_equal(((int64_t *)out[0].data)[0], 2);
    assert_int_equal(((int64_t *)out[0].data)[1], 5);
    models_room_free(stage, out);
    tensor_buffer_free(in.data);
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
}

static void index_out_of_range_is_refused_when_it_runs(void **state) {
    (void)state;
    struct model *model = accept(
        13, "input x f32 3,2\ninput i i64 1\noutput y\nGather pick x,i -> y | axis=0\n", NULL);
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct err err = {0};
    struct tensor in[2] = {{.data = tensor_buffer_new(24)}, {.data = tensor_buffer_new(8)}};
    struct tensor out[1];
    memset(in[0].data, 0, 24);
    *(int64_t *)in[1].data = 3;
    assert_int_equal(stage_new(model, 0, 1, NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    models_room(stage, out);
    assert_int_equal(exec_run(exec, in, out, &err), -EINVAL);
    assert_string_equal(err.text, "layer 'pick': index 3 is not within 3 elements");
    *(int64_t *)in[1].data = -3;
    assert_int_equal(exec_run(exec, in, out, &err), 0);
    models_room_free(stage, out);
    tensor_buffer_free(in[0].data);
    tensor_buffer_free(in[1].data);
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
}

/* ---- dimensions ---- */

static void first_unknown_dimension_is_one(void **state) {
    (void)state;
    struct model *model = accept(13, "input x f32 n,3\noutput y\nRelu r x -> y\n", NULL);
    size_t count;
    assert_int_equal(model_cut(model, 0, &count)[0].dims[0], 1);
    model_unref(model);
}

static void dimensions_are_bound_by_name_or_all_at_once(void **state) {
    (void)state;
    const struct model_dim dims[] = {{"h", 7}, {"*", 9}};
    const struct model_options options = {.dims = dims, .dims_count = 2};
    struct model *model = accept(13, "input x f32 n,3,h,w,?\noutput y\nRelu r x -> y\n", &options);
    size_t count;
    const struct tensor_desc *y = model_cut(model, 1, &count);
    const int64_t wanted[] = {9, 3, 7, 9, 9};
    for (int i = 0; i < 5; i++)
        assert_int_equal(y[0].dims[i], wanted[i]);
    model_unref(model);
}

static void unknown_dimension_names_the_remedy(void **state) {
    (void)state;
    refuse(13, "input x f32 n,3,height,4\noutput y\nRelu r x -> y\n", -ENOTSUP,
           "input 'x': dimension 2 ('height') is not known; say --dim height=VALUE");
    refuse(13, "input x f32 n,3,height,width\ninput z f32 n,width,depth\noutput y\nRelu r x -> y\n",
           -ENOTSUP,
           "input 'x': dimension 2 ('height') is not known; say --dim height=VALUE --dim "
           "width=VALUE --dim depth=VALUE");
}

static void a_dimension_that_no_input_has_is_an_error_with_the_models_names(void **state) {
    (void)state;
    char path[64];
    struct model *model = NULL;
    struct err err = {0};
    struct model_dim dims[] = {{"heigth", 7}, {"*", 9}};
    const struct model_options options = {.dims = dims, .dims_count = 2};
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    small_model_write(path, 13, "input x f32 n,3,h,w\ninput z f32 n,w\noutput y\nRelu r x -> y\n");
    assert_int_equal(model_open(path, &options, &model, &err), -EINVAL);
    assert_non_null(
        strstr(err.text, "no input has a dimension 'heigth'; the unknown ones are 'n', 'h', 'w'"));
    small_model_write(path, 13, "input x f32 1,3\noutput y\nRelu r x -> y\n");
    assert_int_equal(model_open(path, &options, &model, &err), -EINVAL);
    assert_non_null(strstr(err.text, "every dimension is known"));
    unlink(path);
}

/* ---- operators and opsets ---- */

static void unsupported_operators_are_named(void **state) {
    (void)state;
    refuse(13, "input x f32 1\noutput y\nFrobnicate odd x -> y\n", -ENOTSUP,
           "node 'odd': operator Frobnicate (opset 13) is not supported; `convoyctl ops` lists "
           "what is");
    refuse(5, "input x f32 1\noutput y\nAdd old x,x -> y\n", -ENOTSUP,
           "operator Add (opset 5) is not supported; Add of opsets 6 to ");
    refuse(10, "input x f32 1\noutput y\nUpsample up x -> y\n", -ENOTSUP,
           "Upsample of opsets 7 to 9 is");
    refuse(13, "input x f64 1,1,3,3\nconst w f32 1,1,3,3\noutput y\nConv c x,w -> y\n", -ENOTSUP,
           "node 'c' (Conv, opset 13): input 0 of type float64 is not supported");
    refuse(13, "input x f32 1,4\ninput s i64 1\noutput y\nReshape r x,s -> y\n", -ENOTSUP,
           "input 1 ('s') must be known when the model is loaded");
}

/* ---- files that contradict themselves ---- */

struct broken {
    int opset, code;
    const char *text, *words;
};

#define IN4 "input x f32 1,4,8,8\noutput y\n"

static const struct broken broken[] = {
    {13, -EBADMSG, IN4 "const w f32 4,3,3,3\nConv c x,w -> y\n", "do not fit"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | group=0\n", "group"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | group=-1\n", "group"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | strides=[0,1]\n", "strides"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | strides=[1]\n", "strides"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | pads=[1,1,1]\n", "pads"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | pads=[-1,1,1,1]\n", "pads"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | dilations=[2147483647,9]\n",
     "dilated"},
    {13, -EBADMSG, IN4 "const w f32 4,4,9,9\nConv c x,w -> y\n", "does not fit"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | kernel_shape=[5,5]\n", "contradict"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | auto_pad=SIDEWAYS\n", "auto_pad"},
    {13, -EBADMSG, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | group=1.0\n", "wrong kind"},
    {13, -ENOTSUP, IN4 "const w f32 4,4,3,3\nConv c x,w -> y | shoe_size=44\n", "shoe_size"},
    {13, -ENOTSUP,
     IN4 "const w f32 4,4,3,3\nConv c x,w -> y | "
         "pads=[2147483647,2147483647,2147483647,2147483647]\n",
     "large"},
    {13, -ENOTSUP, IN4 "const w f32 4,4,1,1\nConv c x,w -> y | pads=[0,0,2147483647,2147483647]\n",
     "large"},
    {13, -EBADMSG, IN4 "MaxPool p x -> y\n", "kernel_shape"},
    {13, -EBADMSG, IN4 "MaxPool p x -> y | kernel_shape=[0,2]\n", "kernel_shape"},
    {13, -ENOTSUP, IN4 "MaxPool p x -> y | kernel_shape=[2,2] pads=[2,2,2,2]\n", "pads"},
    {13, -ENOTSUP,
     IN4 "AveragePool p x -> y | kernel_shape=[1,536870913] "
         "pads=[0,536870912,0,536870912] strides=[1,536870912]\n",
     "windows of 536870913 over an input of 8 are too large"},
    {13, -EBADMSG, IN4 "const s i64 2 = -1,-1\nReshape r x,s -> y\n", "shape"},
    {13, -EBADMSG, IN4 "const s i64 2 = 3,-1\nReshape r x,s -> y\n", "divided"},
    {13, -EBADMSG, IN4 "const s i64 2 = 3,5\nReshape r x,s -> y\n", "cannot become"},
    {13, -EBADMSG,
     IN4 "const s i64 2 = 9223372036854775807,9223372036854775807\n"
         "Reshape r x,s -> y\n",
     "large"},
    {13, -EBADMSG, IN4 "const s i64 9 = 1,1,1,1,1,1,1,1,256\nReshape r x,s -> y\n", "at most 8"},
    {13, -EBADMSG, IN4 "Transpose t x -> y | perm=[0,1,2,2]\n", "permutation"},
    {13, -EBADMSG, IN4 "Transpose t x -> y | perm=[0,1,2,9]\n", "permutation"},
    {13, -EBADMSG, IN4 "Concat c x,x -> y | axis=4\n", "axis 4"},
    {13, -EBADMSG, IN4 "input z f32 1,4,8,7\nConcat c x,z -> y | axis=1\n", "shape"},
    {13, -EBADMSG, IN4 "input z f32 3\nAdd a x,z -> y\n", "broadcast"},
    {11, -EBADMSG, IN4 "Split s x -> y,z | axis=1 split=[3,2]\n", "add up"},
    {11, -EBADMSG, IN4 "Split s x -> y,z | axis=1 split=[-1,5]\n", "add up"},
    {11, -EBADMSG, IN4 "Squeeze s x -> y | axes=[1]\n", "not 1"},
    {11, -EBADMSG, IN4 "Unsqueeze s x -> y | axes=[0,0]\n", "twice"},
    {11, -EBADMSG, IN4 "Softmax s x -> y | axis=7\n", "axis 7"},
    {13, -EBADMSG, IN4 "const p i64 3 = 1,1,1\nPad p x,p -> y\n", "pads"},
    {13, -EBADMSG,
     IN4 "const p i64 8 = 0,0,0,9223372036854775807,0,0,0,9223372036854775807\nPad p x,p -> y\n",
     "pads"},
    {13, -ENOTSUP, IN4 "const p i64 8 = 0,0,2147483647,2147483647,0,0,0,0\nPad p x,p -> y\n",
     "large"},
    {13, -ENOTSUP,
     IN4 "const r i64 4 = 2147483647,2147483647,2147483647,2147483647\n"
         "Tile t x,r -> y\n",
     "large"},
    {13, -ENOTSUP, IN4 "const s i64 4 = 2147483647,4,8,8\nExpand e x,s -> y\n", "large"},
    {13, -ENOTSUP,
     IN4 "const s i64 4 = 1,4,99999,99999\nConstantOfShape c s -> z\n"
         "Add a x,z -> y\n",
     "large"},
    {13, -EBADMSG, IN4 "const a f32 3\nconst b f32 4\nBatchNormalization b x,a,b,b,b -> y\n",
     "elements"},
    {13, -EBADMSG, "input x f32 3,4\nconst w f32 5,2\noutput y\nMatMul m x,w -> y\n", "rows"},
    {13, -EBADMSG, "input x f32 3,4\nconst w f32 4,2\nconst c f32 3\noutput y\nGemm m x,w,c -> y\n",
     "broadcast"},
    {13, -EBADMSG, IN4 "LRN l x -> y | size=0\n", "size"},
    {13, -EBADMSG, IN4 "const s f32 4 = 1,1,-2,2\nResize r x,-,s -> y\n", "scaled"},
    {13, -EBADMSG, IN4 "const s f32 3\nResize r x,-,s -> y\n", "scales"},
    {13, -EBADMSG, IN4 "const i i64 1\nRelu r x,i -> y\n", "2 inputs"},
    {13, -EBADMSG, IN4 "DepthToSpace d x -> y | blocksize=0\n", "blocksize"},
    {13, -EBADMSG, IN4 "Add a x,- -> y\n", "input 1 is missing"},
    {13, -EBADMSG,
     "const x f32 2,2\noutput y\nconst i i64 = 5\nGather g x,i -> a\n"
     "Cast c a -> s | to=7\ninput z f32 4\nReshape r z,s -> y\n",
     "index 5"},
    {13, -ENOTSUP,
     "input x f32 1,1,5,4\noutput y\nconst w f32 1,1,1,1\n"
     "ConvTranspose c x,w -> y | strides=[2147483647,1] output_shape=[1,4]\n",
     "pads of 8589934588 are too large"},
};

static void contradictions_are_refused_with_a_sentence(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct model *model = NULL;
        struct err err = {0};
        int rc = open_text(broken[i].opset, broken[i].text, NULL, &model, &err);
        model_unref(model);
        if (rc != broken[i].code || !strstr(err.text, broken[i].words))
            fail_msg("%d, \"%s\" for\n%s", rc, err.text, broken[i].text);
    }
}

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_is_found_by_name_and_by_index),
        cmocka_unit_test(unknown_layer_gets_a_suggestion),
        cmocka_unit_test(cuts_carry_what_is_alive),
        cmocka_unit_test(stage_of_a_wrong_range_is_refused),
        cmocka_unit_test(outputs_that_are_inputs_have_a_source),
        cmocka_unit_test(same_bytes_as_two_outputs_are_written_twice),
        cmocka_unit_test(shapes_as_outputs_are_computed),
        cmocka_unit_test(index_out_of_range_is_refused_when_it_runs),
        cmocka_unit_test(first_unknown_dimension_is_one),
        cmocka_unit_test(dimensions_are_bound_by_name_or_all_at_once),
        cmocka_unit_test(a_dimension_that_no_input_has_is_an_error_with_the_models_names),
        cmocka_unit_test(unknown_dimension_names_the_remedy),
        cmocka_unit_test(unsupported_operators_are_named),
        cmocka_unit_test(contradictions_are_refused_with_a_sentence),
    };
    return cmocka_run_group_tests_name("models", tests, setup, teardown);
}
