/* What exporters write that importers fall over. Each graph computes the bits of one that is
 * written without the trap. */
#include "model/model.h"
#include "tests/lib/small_model.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/convoy-traps-XXXXXX";

static struct model *open_text(int opset, const char *text) {
    char path[64];
    struct model *model = NULL;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    small_model_write(path, opset, text);
    if (model_open(path, NULL, &model, &err) < 0)
        fail_msg("%s", err.text);
    unlink(path);
    return model;
}

/* The model's only output for numbers between -3 and 3; to be freed with tensor_buffer_free(). */
static struct tensor run(struct model *model) {
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct err err = {0};
    size_t count, bytes, elements;
    if (stage_new(model, 0, model_layers_count(model), NULL, &stage, &err) < 0 ||
        exec_new(stage, &exec, &err) < 0)
        fail_msg("%s", err.text);
    struct tensor in = {.desc = stage_inputs(stage, &count)[0]};
    assert_int_equal(count, 1);
    assert_int_equal(tensor_desc_bytes(&in.desc, &bytes), 0);
    assert_int_equal(tensor_desc_count(&in.desc, &elements), 0);
    in.data = tensor_buffer_new(bytes);
    for (size_t i = 0; i < elements; i++)
        ((float *)in.data)[i] = (float)(i * 37 % 61) / 10.0f - 3.0f;
    struct tensor out = {.desc = stage_outputs(stage, &count)[0]};
    assert_int_equal(count, 1);
    assert_int_equal(stage_output_source(stage, 0), -1);
    assert_int_equal(tensor_desc_bytes(&out.desc, &bytes), 0);
    out.data = tensor_buffer_new(bytes);
    memset(out.data, 0xff, bytes);
    if (exec_run(exec, &in, &out, &err) < 0)
        fail_msg("%s", err.text);
    tensor_buffer_free(in.data);
    exec_free(exec);
    stage_unref(stage);
    return out;
}

/* Both texts compute the same, in the same number of layers. */
static void assert_same_model(int opset, const char *trap, const char *plain) {
    struct model *a = open_text(opset, trap), *b = open_text(opset, plain);
    struct tensor x = run(a), y = run(b);
    size_t bytes;
    assert_true(tensor_desc_same(&x.desc, &y.desc));
    assert_int_equal(tensor_desc_bytes(&x.desc, &bytes), 0);
    assert_memory_equal(x.data, y.data, bytes);
    assert_int_equal(model_layers_count(a), model_layers_count(b));
    tensor_buffer_free(x.data);
    tensor_buffer_free(y.data);
    model_unref(a);
    model_unref(b);
}

static void clip_with_tensor_bounds(void **state) {
    (void)state;
    static const char plain[] =
        "input x f32 1,3,8,8\noutput y\nconst w f32 4,3,3,3\nconst b f32 4\n"
        "Conv conv x,w,b -> c\nRelu relu c -> r\nMaxPool pool r -> y | "
        "kernel_shape=[2,2]\n";
    struct model *model = open_text(13, "input x f32 1,3\noutput y\nconst lo f32 = -1\n"
                                        "const hi f32 = 0.5\nClip clip x,lo,hi -> y\n");
    struct tensor y = run(model);
    for (size_t i = 0; i < 3; i++) {
        float x = (float)(i * 37 % 61) / 10.0f - 3.0f;
        assert_true(((float *)y.data)[i] == (x < -1.0f ? -1.0f : x > 0.5f ? 0.5f : x));
    }
    tensor_buffer_free(y.data);
    model_unref(model);
    /* Bounds from a Constant node, from arithmetic, one of them absent. */
    assert_same_model(13,
                      "input x f32 1,3,8,8\noutput y\nconst w f32 4,3,3,3\nconst b f32 4\n"
                      "node lo f32 = -2\nconst two f32 = 2\nAdd zero lo,two -> z\n"
                      "Conv conv x,w,b -> c\nClip relu c,z -> r\nMaxPool pool r -> y | "
                      "kernel_shape=[2,2]\n",
                      plain);
}

static void identity_on_an_initializer(void **state) {
    (void)state;
    /* Equal biases of two layers, as exporters write them. */
    assert_same_model(
        13,
        "input x f32 1,3,8,8\noutput y\nconst w f32 4,3,3,3\nconst v f32 4,4,3,3\n"
        "const b f32 4\nIdentity same b -> b2\nIdentity weight v -> v2\n"
        "Conv one x,w,b -> c\nRelu relu c -> r\nConv two r,v2,b2 -> y\n",
        "input x f32 1,3,8,8\noutput y\nconst w f32 4,3,3,3\nconst v f32 4,4,3,3\n"
        "const b f32 4\nConv one x,w,b -> c\nRelu relu c -> r\nConv two r,v,b -> y\n");
}

static void shape_arithmetic_left_unfolded(void **state) {
    (void)state;
    /* The channel shuffle of ShuffleNet: every number of its shapes is computed from a Shape. */
    assert_same_model(
        11,
        "input x f32 1,6,4,4\noutput y\nconst i0 i64 = 0\nconst i1 i64 = 1\nconst i2 i64 = 2\n"
        "const i3 i64 = 3\nconst groups i64 = 2\n"
        "Shape s x -> s\nGather n s,i0 -> n | axis=0\nGather c s,i1 -> c | axis=0\n"
        "Gather h s,i2 -> h | axis=0\nGather w s,i3 -> w | axis=0\nDiv part c,groups -> part\n"
        "Unsqueeze un n -> n1 | axes=[0]\nUnsqueeze ug groups -> g1 | axes=[0]\n"
        "Unsqueeze up part -> p1 | axes=[0]\nUnsqueeze uh h -> h1 | axes=[0]\n"
        "Unsqueeze uw w -> w1 | axes=[0]\nConcat five n1,g1,p1,h1,w1 -> shape5 | axis=0\n"
        "Reshape split x,shape5 -> a\nTranspose shuffle a -> t | perm=[0,2,1,3,4]\n"
        "Mul all groups,part -> all\nCast cast all -> all64 | to=7\n"
        "Unsqueeze ua all64 -> c1 | axes=[0]\nConcat four n1,c1,h1,w1 -> shape4 | axis=0\n"
        "Reshape join t,shape4 -> j\nRelu relu j -> y\n",
        "input x f32 1,6,4,4\noutput y\nconst s5 i64 5 = 1,2,3,4,4\nconst s4 i64 4 = 1,6,4,4\n"
        "Reshape split x,s5 -> a\nTranspose shuffle a -> t | perm=[0,2,1,3,4]\n"
        "Reshape join t,s4 -> j\nRelu relu j -> y\n");
}

#define BODY                                                                                       \
    "Conv conv x,w,b -> c\nBatchNormalization norm c,scale,shift,mean,var -> n\nRelu relu n -> "   \
    "r\n"                                                                                          \
    "GlobalAveragePool pool r -> p\nFlatten flat p -> f\nGemm last f,g,gb -> y\n"

static void all_weights_in_constant_nodes(void **state) {
    (void)state;
    assert_same_model(13,
                      "input x f32 1,3,8,8\noutput y\nnode w f32 4,3,3,3\nnode b f32 4\n"
                      "node scale f32 4\nnode shift f32 4\nnode mean f32 4\n"
                      "node var f32 4 = 1,2,3,4\nnode g f32 4,5\nnode gb f32 5\n" BODY,
                      "input x f32 1,3,8,8\noutput y\nconst w f32 4,3,3,3\nconst b f32 4\n"
                      "const scale f32 4\nconst shift f32 4\nconst mean f32 4\n"
                      "const var f32 4 = 1,2,3,4\nconst g f32 4,5\nconst gb f32 5\n" BODY);
}

static void initializers_listed_as_graph_inputs(void **state) {
    (void)state;
    /* As IR version 3 demanded; in any order among the real inputs. */
    assert_same_model(8,
                      "input w f32 4,3,3,3\ninput x f32 1,3,8,8\ninput b f32 4\ninput shape i64 2\n"
                      "output y\nconst w f32 4,3,3,3\nconst b f32 4\nconst shape i64 2 = 1,-1\n"
                      "Conv conv x,w,b -> c\nReshape line c,shape -> l\nRelu relu l -> y\n",
                      "input x f32 1,3,8,8\noutput y\nconst w f32 4,3,3,3\nconst b f32 4\n"
                      "const shape i64 2 = 1,-1\n"
                      "Conv conv x,w,b -> c\nReshape line c,shape -> l\nRelu relu l -> y\n");
}

static void one_initializer_shared_by_several_nodes(void **state) {
    (void)state;
    /* As weights, as bias, as scale and mean of a normalisation that is folded, as an operand. */
    assert_same_model(13,
                      "input x f32 1,4,8,8\noutput y\nconst w f32 4,4,3,3\nconst b f32 4\n"
                      "const var f32 4 = 1,2,3,4\n"
                      "Conv one x,w,b -> c\nBatchNormalization norm c,b,b,b,var -> n\n"
                      "Conv two n,w,b -> d\nMul square d,d -> e\nConv three e,w,b -> y\n",
                      "input x f32 1,4,8,8\noutput y\nconst w f32 4,4,3,3\nconst b f32 4\n"
                      "const var f32 4 = 1,2,3,4\nIdentity i1 w -> w1\nIdentity i2 w -> w2\n"
                      "Identity j1 b -> b1\nIdentity j2 b -> b2\nIdentity j3 b -> b3\n"
                      "Conv one x,w,b -> c\nBatchNormalization norm c,b1,b2,b3,var -> n\n"
                      "Conv two n,w1,b1 -> d\nMul square d,d -> e\nConv three e,w2,b2 -> y\n");
}

/* Newer files: each opset with the IR version it came with. */
static void every_opset_from_seven_on_is_read(void **state) {
    (void)state;
    for (int opset = 7; opset <= 22; opset++) {
        struct model *model =
            open_text(opset, "input x f32 1,3,8,8\noutput y\nconst w f32 4,3,3,3\n"
                             "Conv conv x,w -> c\nRelu relu c -> r\n"
                             "MaxPool pool r -> y | kernel_shape=[2,2]\n");
        struct tensor y = run(model);
        assert_int_equal(y.desc.dims[2], 5);
        tensor_buffer_free(y.data);
        model_unref(model);
    }
}

/* Its numbers are nowhere in the file, and the sum of none of them is 0. */
static void a_reduction_of_a_constant_without_elements(void **state) {
    (void)state;
    struct model *model = open_text(13, "input x f32 1,3\noutput y\nconst e f32 0,3\n"
                                        "const axes i64 1 = 0\nReduceSum sum e,axes -> s\n"
                                        "Add add x,s -> y\n");
    struct tensor y = run(model);
    for (size_t i = 0; i < 3; i++)
        assert_true(((float *)y.data)[i] == (float)(i * 37 % 61) / 10.0f - 3.0f);
    tensor_buffer_free(y.data);
    model_unref(model);
}

/* 160 MB for one number; the light models have weights of 411 MB made of nothing. */
static void what_leads_to_a_constant_is_not_much_larger(void **state) {
    (void)state;
    struct model *model =
        open_text(13, "input x f32 1,4\noutput y\nconst s i64 1 = 40000000\n"
                      "ConstantOfShape c s -> v\nReduceMax m v -> z | keepdims=1\n"
                      "Add add x,z -> y\n");
    struct stage *stage = NULL;
    struct err err = {0};
    assert_int_equal(stage_new(model, 0, 1, NULL, &stage, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "constant 'v' takes more than the 64 MB"));
    model_unref(model);
}

/* However small the file, and nothing is allocated for them first. */
static void weights_made_of_nothing_have_a_bound(void **state) {
    (void)state;
    struct model *model =
        open_text(13, "input x f32 1,40000\noutput y\nconst s i64 2 = 40000,4000\n"
                      "ConstantOfShape c s -> v\nMatMul m x,v -> y\n");
    struct stage *stage = NULL;
    struct err err = {0};
    assert_int_equal(stage_new(model, 0, 1, NULL, &stage, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "constant 'v' takes more than the 512 MB"));
    model_unref(model);
}

/* Its weights are packed in more than one piece, from numbers that are in no file. */
static void a_convolution_of_constants_with_a_million_channels(void **state) {
    (void)state;
    const char *edges = "input x f32 1,1048700,1,1\noutput y\nconst w f32 1048700,1,1,1\n";
    char convolved[512], reshaped[512];
    snprintf(convolved, sizeof(convolved),
             "%sconst one f32 1,1,1,1 = 1\nConv c one,w -> v\nAdd a x,v -> y\n", edges);
    snprintf(reshaped, sizeof(reshaped),
             "%sconst s i64 4 = 1,1048700,1,1\nReshape r w,s -> v\nAdd a x,v -> y\n", edges);
    assert_same_model(13, reshaped, convolved);
}

/* Parts that nobody wants, a maximum of which only the place matters, and the like. */
static void outputs_without_a_name(void **state) {
    (void)state;
    const char *split = "input x f32 1,6,2,2\noutput y\n";
    char named[512], unnamed[512];
    snprintf(named, sizeof(named), "%sSplit s x -> a,b,c | axis=1\nNeg n b -> y\n", split);
    snprintf(unnamed, sizeof(unnamed), "%sSplit s x -> -,b,- | axis=1\nNeg n b -> y\n", split);
    assert_same_model(11, named, unnamed);
    assert_same_model(11,
                      "input x f32 1,2,4,4\noutput y\nMaxPool p x -> m,i | kernel_shape=[2,2]\n"
                      "Cast c i -> y | to=1\n",
                      "input x f32 1,2,4,4\noutput y\nMaxPool p x -> -,i | kernel_shape=[2,2]\n"
                      "Cast c i -> y | to=1\n");
    assert_same_model(11,
                      "input x f32 1,2,4,4\noutput y\nMaxPool p x -> y,i | kernel_shape=[2,2]\n",
                      "input x f32 1,2,4,4\noutput y\nMaxPool p x -> y,- | kernel_shape=[2,2]\n");
    assert_same_model(11,
                      "input x f32 1,9\noutput y\nconst k i64 1 = 4\nTopK t x,k -> v,i\n"
                      "Cast c i -> y | to=1\n",
                      "input x f32 1,9\noutput y\nconst k i64 1 = 4\nTopK t x,k -> -,i\n"
                      "Cast c i -> y | to=1\n");
    assert_same_model(17,
                      "input x f32 3,8\noutput y\nconst s f32 8\n"
                      "LayerNormalization l x,s -> n,m,d\nNeg g m -> y\n",
                      "input x f32 3,8\noutput y\nconst s f32 8\n"
                      "LayerNormalization l x,s -> -,m,-\nNeg g m -> y\n");
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_with_tensor_bounds),
        cmocka_unit_test(identity_on_an_initializer),
        cmocka_unit_test(shape_arithmetic_left_unfolded),
        cmocka_unit_test(all_weights_in_constant_nodes),
        cmocka_unit_test(initializers_listed_as_graph_inputs),
        cmocka_unit_test(one_initializer_shared_by_several_nodes),
        cmocka_unit_test(every_opset_from_seven_on_is_read),
        cmocka_unit_test(a_reduction_of_a_constant_without_elements),
        cmocka_unit_test(what_leads_to_a_constant_is_not_much_larger),
        cmocka_unit_test(weights_made_of_nothing_have_a_bound),
        cmocka_unit_test(a_convolution_of_constants_with_a_million_channels),
        cmocka_unit_test(outputs_without_a_name),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
