/* Every cut of every model: what stages compute one after the other is, bit for bit, what the
 * undivided model computes. CONVOY_TEST_CUTS=quick takes a few cuts of the small models only, as
 * builds with sanitizers do. */
#include "tests/lib/models.h"
#include "tests/lib/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TRIPLES         50
#define QUICK_CUTS      6
#define QUICK_MACS      200000000U
#define TENSORS_MAX     512 /* alive across one cut */
#define PARTS_PER_MODEL 3

static bool quick(void) {
#ifdef __SANITIZE_ADDRESS__
    return true;
#else
    const char *wish = getenv("CONVOY_TEST_CUTS");
    return wish && strcmp(wish, "quick") == 0;
#endif
}

/* The tensors of one cut while a frame runs. Those that a stage only passes on are borrowed. */
struct cut_tensors {
    struct tensor tensors[TENSORS_MAX];
    bool owned[TENSORS_MAX];
    size_t count;
};

static void tensors_free(struct cut_tensors *cut) {
    for (size_t i = 0; i < cut->count; i++)
        if (cut->owned[i])
            tensor_buffer_free(cut->tensors[i].data);
    cut->count = 0;
}

/* Runs layers [first, last) on what `in` holds, through a stage and an executor of their own. */
static void run_range(struct model *model, size_t first, size_t last, int threads,
                      const struct cut_tensors *in, struct cut_tensors *out) {
    struct stage_options options = {.threads = threads};
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct err err = {0};
    size_t bytes, inputs;
    if (stage_new(model, first, last, &options, &stage, &err) < 0 ||
        exec_new(stage, &exec, &err) < 0)
        fail_msg("layers %zu to %zu: %s", first, last, err.text);
    stage_inputs(stage, &inputs);
    assert_int_equal(inputs, in->count);
    const struct tensor_desc *descs = stage_outputs(stage, &out->count);
    assert_true(out->count <= TENSORS_MAX);
    for (size_t i = 0; i < out->count; i++) {
        out->tensors[i] = (struct tensor){.desc = descs[i]};
        out->owned[i] = stage_output_source(stage, i) < 0;
        if (!out->owned[i])
            continue;
        assert_int_equal(tensor_desc_bytes(&descs[i], &bytes), 0);
        out->tensors[i].data = tensor_buffer_new(bytes);
        assert_non_null(out->tensors[i].data);
        memset(out->tensors[i].data, 0xff, bytes);
    }
    if (exec_run(exec, in->tensors, out->tensors, &err) < 0)
        fail_msg("layers %zu to %zu: %s", first, last, err.text);
    exec_free(exec);
    stage_unref(stage);
}

static void assert_same(const struct cut_tensors *a, const struct cut_tensors *b, size_t first,
                        size_t second) {
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        size_t bytes;
        assert_true(tensor_desc_same(&a->tensors[i].desc, &b->tensors[i].desc));
        assert_int_equal(tensor_desc_bytes(&a->tensors[i].desc, &bytes), 0);
        if (memcmp(a->tensors[i].data, b->tensors[i].data, bytes) != 0)
            fail_msg("cut before %zu and %zu changes output %zu", first, second, i);
    }
}

static void check_two(struct model *model, size_t at, const struct cut_tensors *in,
                      const struct cut_tensors *whole) {
    struct cut_tensors middle, out;
    run_range(model, 0, at, 1, in, &middle);
    run_range(model, at, model_layers_count(model), 1, &middle, &out);
    assert_same(whole, &out, at, at);
    tensors_free(&out);
    tensors_free(&middle);
}

static void check_three(struct model *model, size_t a, size_t b, const struct cut_tensors *in,
                        const struct cut_tensors *whole) {
    struct cut_tensors first, second, out;
    run_range(model, 0, a, 1, in, &first);
    run_range(model, a, b, 1, &first, &second);
    run_range(model, b, model_layers_count(model), 1, &second, &out);
    assert_same(whole, &out, a, b);
    tensors_free(&out);
    tensors_free(&second);
    tensors_free(&first);
}

static uint64_t total_macs(const struct model *model) {
    uint64_t macs = 0;
    for (size_t i = 0; i < model_layers_count(model); i++)
        macs += model_layer(model, i)->macs;
    return macs;
}

/* Opens the model, runs it undivided; the weights stay prepared while *ret_whole_stage lives. */
static struct model *start(const struct models_entry *entry, struct cut_tensors *in,
                           struct cut_tensors *whole, struct stage **ret_stage) {
    struct model *model = models_open(entry);
    struct err err = {0};
    if (!model)
        return NULL;
    if (quick() && total_macs(model) > QUICK_MACS) {
        model_unref(model);
        return NULL;
    }
    in->count = 1;
    in->owned[0] = true;
    in->tensors[0] = models_input(entry, model);
    if (stage_new(model, 0, model_layers_count(model), NULL, ret_stage, &err) < 0)
        fail_msg("%s", err.text);
    run_range(model, 0, model_layers_count(model), 1, in, whole);
    return model;
}

static void every_cut_gives_the_same_bits(void **state) {
    struct cut_tensors in, whole, two;
    struct stage *stage;
    struct model *model = start(*state, &in, &whole, &stage);
    if (!model)
        skip();
    size_t count = model_layers_count(model), step = 1;
    if (quick() && count > QUICK_CUTS)
        step = count / QUICK_CUTS;
    for (size_t at = 1; at < count; at += step)
        check_two(model, at, &in, &whole);
    uint32_t random = 12345;
    for (int i = 0; i < (quick() ? 5 : TRIPLES) && count > 2; i++) {
        size_t cuts[2];
        for (int k = 0; k < 2; k++) {
            random = random * 1664525U + 1013904223U;
            cuts[k] = 1 + (random >> 8U) % (count - 1);
        }
        if (cuts[0] != cuts[1])
            check_three(model, cuts[0] < cuts[1] ? cuts[0] : cuts[1],
                        cuts[0] < cuts[1] ? cuts[1] : cuts[0], &in, &whole);
    }
    stage_unref(stage);
    run_range(model, 0, count, 2, &in, &two);
    assert_same(&whole, &two, 0, count);
    tensors_free(&two);
    tensors_free(&whole);
    tensors_free(&in);
    model_unref(model);
}

/* ---- parts written as files ---- */

static struct model *reopen_part(struct model *model, size_t first, size_t last,
                                 const char *folder) {
    char path[512];
    struct err err = {0};
    struct model *part = NULL;
    snprintf(path, sizeof(path), "%s/part.onnx", folder);
    if (model_write_part(model, first, last, path, &err) < 0 ||
        model_open(path, NULL, &part, &err) < 0)
        fail_msg("layers %zu to %zu: %s", first, last, err.text);
    unlink(path);
    if (model_layers_count(part) != last - first)
        fail_msg("layers %zu to %zu became %zu layers", first, last, model_layers_count(part));
    for (size_t i = first; i < last; i++) {
        assert_string_equal(model_layer(part, i - first)->name, model_layer(model, i)->name);
        assert_string_equal(model_layer(part, i - first)->op, model_layer(model, i)->op);
    }
    return part;
}

static void part_files_give_the_same_bits(void **state) {
    struct cut_tensors in, whole;
    struct stage *stage;
    char folder[] = "/tmp/convoy-parts-XXXXXX";
    struct model *model = start(*state, &in, &whole, &stage);
    if (!model)
        skip();
    stage_unref(stage);
    assert_non_null(mkdtemp(folder));
    size_t count = model_layers_count(model), parts = quick() ? 2 : PARTS_PER_MODEL;
    for (size_t i = 1; i <= parts; i++) {
        size_t at = count * i / (parts + 1);
        struct cut_tensors middle, out;
        if (at == 0)
            continue;
        struct model *head = reopen_part(model, 0, at, folder);
        struct model *tail = reopen_part(model, at, count, folder);
        run_range(head, 0, model_layers_count(head), 1, &in, &middle);
        run_range(tail, 0, model_layers_count(tail), 1, &middle, &out);
        assert_same(&whole, &out, at, at);
        tensors_free(&out);
        tensors_free(&middle);
        model_unref(head);
        model_unref(tail);
    }
    rmdir(folder);
    tensors_free(&whole);
    tensors_free(&in);
    model_unref(model);
}

/* Shapes as outputs of the graph and as operands, an input that is only reshaped, an output that
 * is an initializer, weights that operators make, one constant of several readers. */
static const char odd[] = "input x f32 2,4,5,5\ninput unused f32 3\n"
                          "output y\noutput sh\noutput u\n"
                          "const k i64 4 = 4,4,3,3\nConstantOfShape fill k -> w0\n"
                          "const b f32 4\nconst one f32 4,1,1\nIdentity same b -> b2\n"
                          "Add grow w0,one -> w1\nTranspose turn w1 -> w | perm=[1,0,2,3]\n"
                          "Conv first x,w,b2 -> a | pads=[1,1,1,1]\nShape shape a -> sh\n"
                          "Relu relu a -> r\nConv second r,w,b -> c | pads=[1,1,1,1]\n"
                          "const f i64 2 = 2,100\nReshape flat c,f -> d\nSigmoid sig d -> e\n"
                          "Reshape back e,sh -> g\nAdd sum g,r -> h\nMul scale h,one -> y\n"
                          "const z i64 1 = -1\nReshape line x,z -> u\n";

/* Numbers for every input of a model. */
static void make_inputs(const struct model *model, struct cut_tensors *in) {
    const struct tensor_desc *descs = model_cut(model, 0, &in->count);
    for (size_t i = 0; i < in->count; i++) {
        size_t bytes, count;
        assert_int_equal(tensor_desc_bytes(&descs[i], &bytes), 0);
        assert_int_equal(tensor_desc_count(&descs[i], &count), 0);
        in->owned[i] = true;
        in->tensors[i] = (struct tensor){.desc = descs[i], .data = tensor_buffer_new(bytes)};
        for (size_t k = 0; k < bytes; k++) /* of float16: below 2 */
            ((uint8_t *)in->tensors[i].data)[k] = (uint8_t)(k * 37 % 61);
        for (size_t k = 0; descs[i].dtype == DTYPE_FLOAT && k < count; k++)
            ((float *)in->tensors[i].data)[k] = (float)(k * 37 % 11) - 5.0f;
    }
}

/* Stages of one layer each: there no tensor shares another's memory. */
static void check_layer_by_layer(struct model *model, const struct cut_tensors *in,
                                 const struct cut_tensors *whole) {
    size_t count = model_layers_count(model);
    struct cut_tensors *cuts = calloc(count, sizeof(*cuts)); /* what passes through is borrowed */
    assert_non_null(cuts);
    for (size_t at = 0; at < count; at++)
        run_range(model, at, at + 1, 1, at == 0 ? in : &cuts[at - 1], &cuts[at]);
    assert_same(whole, &cuts[count - 1], count, count);
    for (size_t at = 0; at < count; at++)
        tensors_free(&cuts[at]);
    free(cuts);
}

static void check_every_cut(int opset, const char *text) {
    char folder[] = "/tmp/convoy-odd-XXXXXX", path[64];
    struct cut_tensors in, whole, two;
    struct model *model = NULL;
    struct err err = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    small_model_write(path, opset, text);
    if (model_open(path, NULL, &model, &err) < 0)
        fail_msg("%s", err.text);
    unlink(path);
    make_inputs(model, &in);
    size_t count = model_layers_count(model);
    assert_true(count > 4);
    run_range(model, 0, count, 1, &in, &whole);
    run_range(model, 0, count, 2, &in, &two);
    assert_same(&whole, &two, 0, count);
    check_layer_by_layer(model, &in, &whole);
    for (size_t at = 1; at < count; at++) {
        struct cut_tensors middle, out;
        check_two(model, at, &in, &whole);
        struct model *head = reopen_part(model, 0, at, folder);
        struct model *tail = reopen_part(model, at, count, folder);
        run_range(head, 0, at, 1, &in, &middle);
        run_range(tail, 0, count - at, 1, &middle, &out);
        assert_same(&whole, &out, at, at);
        tensors_free(&out);
        tensors_free(&middle);
        model_unref(head);
        model_unref(tail);
    }
    rmdir(folder);
    tensors_free(&two);
    tensors_free(&whole);
    tensors_free(&in);
    model_unref(model);
}

static void odd_graphs_survive_every_cut(void **state) {
    (void)state;
    check_every_cut(13, odd);
}

/* Weights that are dequantised, quantised activations, and operators that take them as they are. */
static const char quantised[] =
    "input x f32 1,3,6,6\noutput y\noutput z\nconst s f32 = 0.05\nconst o u8 = 20\n"
    "QuantizeLinear q1 x,s,o -> a\nDequantizeLinear d1 a,s,o -> b\n"
    "const w i8 4,3,3,3\nconst ws f32 4 = 0.1,0.2,0.3,0.4\nconst wo i8 4 = 0,1,-1,0\n"
    "DequantizeLinear dw w,ws,wo -> wf | axis=0\nConv conv b,wf -> c | pads=[1,1,1,1]\n"
    "Relu relu c -> d\nQuantizeLinear q2 d,s,o -> e\n"
    "QLinearConv ql e,s,o,v,ws,wo,s,o -> f | group=4\nconst v i8 4,1,2,2\n"
    "ConvInteger ci e,v,o -> y | group=4\nDequantizeLinear d2 f,s,o -> z\n";

/* float16 outside and in a Cast inside; one output is read by others as well, and one is an input.
 */
static const char half[] =
    "input x f16 1,4,5,5\noutput y f16 1,4,5,5\noutput z f16 1,4,5,5\noutput x f16 1,4,5,5\n"
    "const w f16 4,4,3,3\nconst b f16 4\nConv conv x,w,b -> a | pads=[1,1,1,1]\n"
    "const s f16 4 = 1,2,0.5,1\nconst m f16 4\nconst v f16 4 = 0.5,1,2,3\n"
    "BatchNormalization bn a,s,b,m,v -> n\nRelu relu n -> y\nCast up y -> f | to=1\n"
    "Sigmoid sig f -> g\nCast down g -> h | to=10\nConv second h,w -> i | pads=[1,1,1,1]\n"
    "Add add i,y -> z\n";

static void float16_graphs_survive_every_cut(void **state) {
    (void)state;
    check_every_cut(13, half);
}

static void quantised_graphs_survive_every_cut(void **state) {
    (void)state;
    check_every_cut(13, quantised);
}

/* Parts of joint tensors that others read as well, before and after; that are computed in place;
 * twice in one; activated as a whole; in two of them; halves that are outputs, pass through, are
 * put together again; a part of two images, which is none in memory. */
static const char joint[] =
    "input x f32 1,6,5,5\ninput p f32 1,4,3\ninput q f32 2,3,2\n"
    "output y\noutput half\noutput again\noutput rest\noutput two\noutput act\n"
    "Split halves x -> a,b | axis=1\nRelu ra a -> c\nSigmoid sb b -> d\n"
    "Concat j1 c,d,b -> e | axis=1\nAbs abs c -> f\nNeg neg d -> g\n"
    "Concat j2 f,g,f -> h | axis=1\nAdd sum e,h -> i\nConcat j3 d,c -> act0 | axis=1\n"
    "Relu rj act0 -> act\nExp ex c -> k\nConcat j4 k,i -> l | axis=1\n"
    "Split three l -> m,half,o | axis=1\nTanh th m -> n\nMul mul n,o -> r\n"
    "Concat j5 r,m -> y | axis=1\nSplit pass p -> again,rest | axis=1\n"
    "Relu rq q -> s\nAbs aq q -> t\nConcat j6 s,t -> two | axis=1\n"
    "output deep\nConcat j7 k,n -> u | axis=1\nNeg nu u -> v\nConcat j8 v,u,k -> deep | axis=1\n";

static void joint_tensors_survive_every_cut(void **state) {
    (void)state;
    check_every_cut(13, joint);
}

/* Groups that are wide enough for Winograd's algorithm, windows of which padding leaves a part,
 * maxima of many taps. */
static const char windows[] =
    "input x f32 2,18,11,13\noutput y\n"
    "const w1 f32 20,9,3,3\nconst b1 f32 20\nConv c1 x,w1,b1 -> a | group=2 pads=[1,1,1,1]\n"
    "const w2 f32 16,10,3,3\n"
    "Conv c2 a,w2 -> b | group=2 dilations=[11,14] pads=[11,14,11,14]\nRelu r2 b -> c\n"
    "MaxPool p c -> d | kernel_shape=[5,9] pads=[2,4,2,4]\n"
    "const w3 f32 16,16,5,3\nConv c3 d,w3 -> e | dilations=[1,13] pads=[2,13,2,13]\n"
    "Add sum e,c -> f\nTanh th f -> g\nMaxPool q g -> y | kernel_shape=[11,2] strides=[1,2]\n";

static void windows_of_every_kind_survive_every_cut(void **state) {
    (void)state;
    check_every_cut(13, windows);
}

int main(void) {
    struct CMUnitTest tests[128];
    static char names[128][128];
    size_t count = 0;
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(odd_graphs_survive_every_cut);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(joint_tensors_survive_every_cut);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(quantised_graphs_survive_every_cut);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(float16_graphs_survive_every_cut);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(windows_of_every_kind_survive_every_cut);
    for (const struct models_entry *entry = models_all; entry->file; entry++) {
        snprintf(names[count], sizeof(names[0]), "every_cut_gives_the_same_bits %s", entry->file);
        tests[count] = (struct CMUnitTest){.name = names[count],
                                           .test_func = every_cut_gives_the_same_bits,
                                           .initial_state = (void *)(uintptr_t)entry};
        count++;
        snprintf(names[count], sizeof(names[0]), "part_files_give_the_same_bits %s", entry->file);
        tests[count] = (struct CMUnitTest){.name = names[count],
                                           .test_func = part_files_give_the_same_bits,
                                           .initial_state = (void *)(uintptr_t)entry};
        count++;
    }
    return _cmocka_run_group_tests("cuts", tests, count, NULL, NULL);
}
