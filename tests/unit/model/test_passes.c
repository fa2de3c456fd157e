/* What is fused into which layer, and that fused layers compute the same as the operators one by
 * one: a model whose every value is also an output of the graph cannot be fused. */
#include "tests/lib/models.h"
#include "tests/lib/small_model.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/convoy-passes-XXXXXX";

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

/* "name:op name:op ..." of all layers. */
static const char *layers_of(const struct model *model) {
    static char text[2048];
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; i < model_layers_count(model); i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s:%s", i ? " " : "",
                                model_layer(model, i)->name, model_layer(model, i)->op);
    return text;
}

/* Runs a model on numbers that depend on its inputs' shapes alone; output 0 is returned. */
static struct tensor run(struct model *model) {
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct tensor in[MODELS_TENSORS_MAX], out[MODELS_TENSORS_MAX], result = {{0}, NULL};
    struct err err = {0};
    size_t count, bytes, n;
    assert_int_equal(stage_new(model, 0, model_layers_count(model), NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    const struct tensor_desc *inputs = stage_inputs(stage, &count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(tensor_desc_bytes(&inputs[i], &bytes), 0);
        assert_int_equal(tensor_desc_count(&inputs[i], &n), 0);
        in[i] = (struct tensor){.desc = inputs[i], .data = tensor_buffer_new(bytes)};
        for (size_t k = 0; k < n; k++)
            ((float *)in[i].data)[k] = sinf((float)(k * 7 + i * 3 + 1)) * 3.0f;
    }
    models_room(stage, out);
    if (exec_run(exec, in, out, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(tensor_desc_bytes(&out[0].desc, &bytes), 0);
    result.desc = out[0].desc;
    result.data = tensor_buffer_new(bytes);
    memcpy(result.data, out[0].data, bytes);
    models_room_free(stage, out);
    for (size_t i = 0; i < count; i++)
        tensor_buffer_free(in[i].data);
    exec_free(exec);
    stage_unref(stage);
    return result;
}

/* The same text with every node's first output as an output of the graph as well. */
static void expose_all(const char *text, char *to, size_t size) {
    size_t len = (size_t)snprintf(to, size, "%s", text);
    for (const char *p = text; *p; p += strcspn(p, "\n") + 1) {
        char line[512], output[64];
        snprintf(line, sizeof(line), "%.*s", (int)strcspn(p, "\n"), p);
        const char *arrow = strstr(line, "-> ");
        if (!arrow || sscanf(arrow + 3, "%63[^ ,]", output) != 1)
            continue;
        snprintf(line, sizeof(line), "output %s\n", output);
        if (!strstr(text, line))
            len += (size_t)snprintf(to + len, size - len, "%s", line);
    }
    assert_true(len < size);
}

static void check(int opset, const char *text, const char *layers) {
    char exposed[4096];
    struct model *model = open_text(opset, text);
    assert_string_equal(layers_of(model), layers);
    expose_all(text, exposed, sizeof(exposed));
    struct model *plain = open_text(opset, exposed);
    struct tensor a = run(model), b = run(plain);
    double difference = models_difference(&a, &b, 0.0);
    if (!(difference < 3e-6))
        fail_msg("%s: fused differs by %g", layers, difference);
    tensor_buffer_free(a.data);
    tensor_buffer_free(b.data);
    model_unref(plain);
    model_unref(model);
}

#define X    "input x f32 2,4,6,6\noutput y\n"
#define CONV X "const w f32 4,4,3,3\nconst b f32 4\nConv conv x,w,b -> c | pads=[1,1,1,1]\n"
#define BN                                                                                         \
    "const s f32 4\nconst t f32 4\nconst m f32 4\nconst v f32 4 = 0.5,1,2,3\n"                     \
    "BatchNormalization bn c,s,t,m,v -> "

static void batchnorm_and_relu_join_the_convolution(void **state) {
    (void)state;
    check(13, CONV BN "n\nRelu relu n -> y\n", "relu:Conv+BatchNormalization+Relu");
}

#define VOLUME "input x f32 2,4,3,5,5\noutput y\nconst w f32 4,4,2,3,3\nconst b f32 4\n"

static void volumes_take_in_what_follows_them(void **state) {
    (void)state;
    check(13,
          VOLUME "Conv conv x,w,b -> c | pads=[1,1,1,0,1,1]\n" BN
                 "n\nAdd add n,x -> a\nRelu relu a -> y\n",
          "relu:Conv+BatchNormalization+Add+Relu");
    check(13,
          VOLUME "ConvTranspose conv x,w,b -> c | pads=[1,1,1,0,1,1]\n" BN "n\nRelu relu n -> y\n",
          "relu:ConvTranspose+BatchNormalization+Relu");
}

static void constants_per_channel_join_the_convolution(void **state) {
    (void)state;
    check(13,
          CONV "const k f32 4,1,1\nconst l f32 1,4,1,1\nconst o f32 = 0.7\n"
               "Mul mul k,c -> d\nAdd add d,l -> e\nSub sub o,e -> f\nDiv div f,k -> y\n",
          "div:Conv+Mul+Add+Sub+Div");
}

static void constant_of_another_shape_does_not_join(void **state) {
    (void)state;
    check(13, CONV "const k f32 6\nMul mul c,k -> y\n", "conv:Conv mul:Mul");
}

static void residual_and_relu_join_the_convolution(void **state) {
    (void)state;
    check(13, CONV "Add add x,c -> a\nRelu relu a -> y\n", "relu:Conv+Add+Relu");
}

static void of_two_convolutions_the_later_adds(void **state) {
    (void)state;
    check(13, CONV "Conv two x,w -> d | pads=[1,1,1,1]\nSum add c,d -> a\nRelu relu a -> y\n",
          "conv:Conv relu:Conv+Sum+Relu");
}

static void value_with_two_readers_stays(void **state) {
    (void)state;
    check(13, CONV "Relu relu c -> r\nSigmoid sig c -> s\nAdd add r,s -> y\n",
          "conv:Conv relu:Relu sig:Sigmoid add:Add");
}

static void output_of_the_graph_stays(void **state) {
    (void)state;
    check(13, CONV "output c\nRelu relu c -> y\n", "conv:Conv relu:Relu");
}

static void zero_pads_join_the_convolution(void **state) {
    (void)state;
    check(13,
          X "const w f32 4,4,3,3\nconst p i64 8 = 0,0,1,2,0,0,0,1\nPad pad x,p -> q\n"
            "Conv conv q,w -> y | strides=[2,1] pads=[0,1,1,0]\n",
          "conv:Pad+Conv");
    check(9,
          X "const w f32 4,4,3,3\nPad pad x -> q | pads=[0,0,1,2,0,0,0,1] value=1.0\n"
            "Conv conv q,w -> y\n",
          "pad:Pad conv:Conv");
}

static void padded_numbers_that_are_weights_as_well_keep_their_pad(void **state) {
    (void)state;
    check(13,
          "input x f32 1,1,4,4\noutput y\nconst p i64 8 = 0,0,1,1,0,0,1,1\nPad pad x,p -> q\n"
          "Conv conv q,q -> y | pads=[1,0,0,1]\n",
          "pad:Pad conv:Conv");
}

static void clip_with_constant_bounds_joins(void **state) {
    (void)state;
    check(13, CONV "const lo f32 = 0.0\nconst hi f32 = 6.0\nClip clip c,lo,hi -> y\n",
          "clip:Conv+Clip");
    check(9, CONV "Clip clip c -> y | min=-0.5 max=0.25\n", "clip:Conv+Clip");
}

static void hard_swish_as_exporters_write_it_joins(void **state) {
    (void)state;
    const char *bounds = "const three f32 = 3.0\nconst six f32 = 6.0\nconst zero f32 = 0.0\n"
                         "const sixth f32 = 0.16666667\n";
    char text[2048];
    snprintf(text, sizeof(text),
             CONV "%sAdd a c,three -> d\nClip b d,zero,six -> e\nMul m c,e -> f\n"
                  "Div n f,six -> y\n",
             bounds);
    check(13, text, "n:Conv+Add+Clip+Mul+Div");
    snprintf(text, sizeof(text),
             CONV "%sAdd a three,c -> d\nClip b d,zero,six -> e\nMul m e,sixth -> f\n"
                  "Mul n f,c -> y\n",
             bounds);
    check(13, text, "n:Conv+Add+Clip+Mul+Mul");
    check(13, CONV "HardSigmoid h c -> d | alpha=0.16666667 beta=0.5\nMul m c,d -> y\n",
          "m:Conv+HardSigmoid+Mul");
    check(13, CONV "HardSigmoid h c -> d | alpha=0.2 beta=0.5\nMul m c,d -> y\n",
          "conv:Conv h:HardSigmoid m:Mul");
}

static void silu_mish_and_gelu_join(void **state) {
    (void)state;
    check(13, CONV "Sigmoid s c -> d\nMul m d,c -> y\n", "m:Conv+Sigmoid+Mul");
    check(13, CONV "Softplus s c -> d\nTanh t d -> e\nMul m c,e -> y\n",
          "m:Conv+Softplus+Tanh+Mul");
    check(13,
          CONV "const r f32 = 1.4142135\nconst one f32 = 1.0\nconst half f32 = 0.5\n"
               "Div d c,r -> d\nErf e d -> e\nAdd a e,one -> f\nMul m c,f -> g\n"
               "Mul n g,half -> y\n",
          "n:Conv+Div+Erf+Add+Mul+Mul");
}

static void matrix_products_take_bias_and_batchnorm(void **state) {
    (void)state;
    check(13,
          "input x f32 3,5\noutput y\nconst w f32 5,4\nconst b f32 4\nMatMul mm x,w -> c\n"
          "Add add c,b -> d\nRelu relu d -> y\n",
          "relu:MatMul+Add+Relu");
    check(13,
          "input x f32 3,5\noutput y\nconst w f32 4,5\nconst b f32 3,1\n"
          "Gemm gemm x,w,b -> c | transB=1 alpha=0.5 beta=2.0\n" BN "y\n",
          "bn:Gemm+BatchNormalization");
}

static void transposed_convolution_takes_batchnorm(void **state) {
    (void)state;
    check(13,
          X "const w f32 4,2,2,2\nconst b f32 4\n"
            "ConvTranspose up x,w,b -> c | strides=[2,2] group=2\n" BN "n\nRelu relu n -> y\n",
          "relu:ConvTranspose+BatchNormalization+Relu");
}

static void arithmetic_with_constants_becomes_one_layer(void **state) {
    (void)state;
    check(13, X "const a f32 = 0.28\nconst b f32 = 0.35\nSub sub x,a -> c\nDiv div c,b -> y\n",
          "div:Sub+Div");
}

static void identity_and_dropout_disappear(void **state) {
    (void)state;
    struct model *model =
        open_text(13, CONV "Identity id c -> d\nDropout drop d -> e,mask\nRelu relu e -> y\n");
    assert_string_equal(layers_of(model), "relu:Conv+Relu");
    size_t index;
    struct err err = {0};
    assert_int_equal(model_find_layer(model, "drop", &index, &err), -2);
    assert_string_equal(err.text,
                        "operator 'drop' is part of layer 'relu' (Conv+Relu): name that one");
    model_unref(model);
}

static void mask_of_a_dropout_is_made_without_its_result(void **state) {
    (void)state;
    struct model *model = open_text(
        13, "input x f32 2,3\noutput y\nDropout drop x -> -,mask\nCast cast mask -> y | to=1\n");
    struct tensor y = run(model);
    for (size_t i = 0; i < 6; i++)
        assert_true(((const float *)y.data)[i] == 1.0f);
    tensor_buffer_free(y.data);
    model_unref(model);
}

static void shape_from_a_huge_constant_is_refused_before_memory_is_spent(void **state) {
    (void)state;
    char path[64];
    struct model *model = NULL;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    small_model_write(path, 13,
                      "input x f32 2,3\noutput y\nconst s i64 2 = 30000,30000\n"
                      "ConstantOfShape fill s -> f\nReduceSum sum f -> g | keepdims=0\n"
                      "Cast cast g -> h | to=7\nTile tile x,h -> y\n");
    assert_int_equal(model_open(path, NULL, &model, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "constant 'f' takes more than the 64 MB"));
    unlink(path);
}

static void identity_on_a_weight_is_a_weight(void **state) {
    (void)state;
    struct model *model =
        open_text(13, X "const w0 f32 4,4,3,3\nIdentity id w0 -> w\nConv conv x,w -> c\n"
                        "Shape shape c -> sh\nconst i i64 = 1\nGather g sh,i -> n\n"
                        "Constant k -> minus | value_ints=[-1]\n"
                        "const z i64 1 = 0\nUnsqueeze u n,z -> un\n"
                        "Concat cat minus,un -> dims | axis=0\nReshape r c,dims -> y\n");
    assert_string_equal(layers_of(model), "conv:Conv r:Reshape");
    struct tensor y = run(model);
    assert_int_equal(y.desc.rank, 2);
    assert_int_equal(y.desc.dims[0], 32);
    assert_int_equal(y.desc.dims[1], 4);
    tensor_buffer_free(y.data);
    model_unref(model);
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
        cmocka_unit_test(batchnorm_and_relu_join_the_convolution),
        cmocka_unit_test(volumes_take_in_what_follows_them),
        cmocka_unit_test(constants_per_channel_join_the_convolution),
        cmocka_unit_test(constant_of_another_shape_does_not_join),
        cmocka_unit_test(residual_and_relu_join_the_convolution),
        cmocka_unit_test(of_two_convolutions_the_later_adds),
        cmocka_unit_test(value_with_two_readers_stays),
        cmocka_unit_test(output_of_the_graph_stays),
        cmocka_unit_test(zero_pads_join_the_convolution),
        cmocka_unit_test(padded_numbers_that_are_weights_as_well_keep_their_pad),
        cmocka_unit_test(clip_with_constant_bounds_joins),
        cmocka_unit_test(hard_swish_as_exporters_write_it_joins),
        cmocka_unit_test(silu_mish_and_gelu_join),
        cmocka_unit_test(matrix_products_take_bias_and_batchnorm),
        cmocka_unit_test(transposed_convolution_takes_batchnorm),
        cmocka_unit_test(arithmetic_with_constants_becomes_one_layer),
        cmocka_unit_test(identity_and_dropout_disappear),
        cmocka_unit_test(mask_of_a_dropout_is_made_without_its_result),
        cmocka_unit_test(shape_from_a_huge_constant_is_refused_before_memory_is_spent),
        cmocka_unit_test(identity_on_a_weight_is_a_weight),
    };
    return cmocka_run_group_tests_name("passes", tests, setup, teardown);
}
