/* Shapes that depend on data: bounds at load, what they are in each frame, every cut the same. */
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

#define TENSORS_MAX 32

/* The rows of x that begin with something: their places, the rows, sums over them. */
static const char rows[] =
    "input x f32 8,5\noutput places\noutput picked\noutput sums\n"
    "const first i64 1 = 0\nconst one i64 1 = 1\nconst axis i64 1 = 1\n"
    "const w f32 5,3\nconst wide i64 2 = -1,1\n"
    "Slice column x,first,one,axis -> column\n"
    "Reshape line column,minus -> line\nconst minus i64 1 = -1\n"
    "NonZero find line -> found\nSqueeze where found,first -> places\n"
    "Gather pick x,places -> picked\nMatMul mul picked,w -> wider\n"
    "Relu relu wider -> positive\nReduceSum sum positive,axis -> s | keepdims=1\n"
    "Concat join s,s -> joined | axis=1\nMul scale joined,s -> scaled\n"
    "Transpose turn scaled -> turned | perm=[1,0]\n"
    "Reshape flat turned,minus -> sums\n";

/* Shapes as tensors behind a shape that depends on data. */
static const char shapes[] =
    "input x f32 8,6\noutput y\noutput ones\noutput wide\n"
    "const zero i64 1 = 0\nconst two i64 1 = 2\nconst three i64 1 = 3\nconst one i64 = 1\n"
    "NonZero find x -> found\nShape shape found -> shape\nGather n shape,one -> n\n"
    "Unsqueeze up n,zero -> n1\nConcat dims n1,two -> dims | axis=0\n"
    "Transpose turn found -> turned | perm=[1,0]\nReshape back turned,dims -> y\n"
    "ConstantOfShape fill dims -> filled\nCast cast y -> z | to=1\nAdd ones filled,z -> ones\n"
    "Mul more n1,three -> more\nConcat wide n1,three -> dims2 | axis=0\n"
    "const number f32 1,1\nExpand grow number,dims2 -> wide\n";

/* Sizes, counts and ends that follow from how much is found. */
static const char sizes[] =
    "input x f32 8,6\noutput places\noutput best\noutput at\noutput head\noutput hot\n"
    "const zero i64 = 0\nconst one i64 = 1\nconst first i64 1 = 0\nconst minus i64 1 = -1\n"
    "NonZero find x -> found\nShape shape found -> shape\nGather n shape,one -> n\n"
    "Unsqueeze up n,first -> n1\nRange count zero,n,one -> places\n"
    "Reshape line x,minus -> line\nTopK top line,n1 -> best,at\nSlice part line,first,n1 -> head\n"
    "const which i64 3 = 0,2,5\nconst values f32 2 = 0,1\nAdd more n,one -> more\n"
    "OneHot hot which,more,values -> hot\n";

/* A small detector: boxes and scores of 64 places, those that are left of them, and a second
 * network over what the picture shows there. */
static const char detector[] =
    "input image f32 1,3,16,16\noutput boxes\noutput found\noutput classes\n"
    "const w f32 8,3,3,3\nconst b f32 8\nConv head image,w,b -> map | strides=[2,2] "
    "pads=[1,1,1,1]\n"
    "const places i64 3 = 1,8,64\nReshape line map,places -> line\n"
    "const zero i64 1 = 0\nconst four i64 1 = 4\nconst eight i64 1 = 8\nconst axis i64 1 = 1\n"
    "Slice first line,zero,four,axis -> corners\nSlice last line,four,eight,axis -> raw\n"
    "Transpose turn corners -> all | perm=[0,2,1]\nSigmoid sure raw -> scores\n"
    "const most i64 1 = 9\nconst iou f32 1 = 0.4\nconst least f32 1 = 0.55\n"
    "NonMaxSuppression nms all,scores,most,iou,least -> found\n"
    "const two i64 1 = 2\nconst three i64 1 = 3\nSlice column found,two,three,axis -> column\n"
    "Squeeze where column,axis -> where\nGather boxes all,where -> boxes | axis=1\n"
    "Transpose rows line -> rows | perm=[0,2,1]\nSqueeze flat rows,zero -> table\n"
    "Gather pick table,where -> picked | axis=0\nconst squares i64 4 = -1,2,2,2\n"
    "Reshape square picked,squares -> squares2\nconst cw f32 6,2,1,1\nconst cb f32 6\n"
    "Conv second squares2,cw,cb -> second\nRelu relu second -> positive\n"
    "GlobalAveragePool pool positive -> pooled\nFlatten flat2 pooled -> features | axis=1\n"
    "const gw f32 6,3\nconst gb f32 3\nGemm last2 features,gw,gb -> logits\n"
    "Softmax classes logits -> classes | axis=1\n";

static char folder[] = "/tmp/convoy-dynamic-XXXXXX";

static struct model *open_text(const char *text) {
    char path[64];
    struct model *model = NULL;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    small_model_write(path, 13, text);
    if (model_open(path, NULL, &model, &err) < 0)
        fail_msg("%s", err.text);
    unlink(path);
    return model;
}

/* The tensors of one cut, with memory for the most that they can be. */
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

/* Runs layers [first, last); -errno where the data is impossible. */
static int run_range(struct model *model, size_t first, size_t last, const struct cut_tensors *in,
                     struct cut_tensors *out, struct err *err) {
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    size_t bytes;
    if (stage_new(model, first, last, NULL, &stage, err) < 0 || exec_new(stage, &exec, err) < 0)
        fail_msg("layers %zu to %zu: %s", first, last, err->text);
    const struct tensor_desc *descs = stage_outputs(stage, &out->count);
    for (size_t i = 0; i < out->count; i++) {
        out->tensors[i] = (struct tensor){.desc = descs[i]};
        out->owned[i] = stage_output_source(stage, i) < 0;
        if (!out->owned[i])
            continue;
        assert_int_equal(tensor_desc_bytes(&descs[i], &bytes), 0);
        out->tensors[i].data = tensor_buffer_new(bytes);
        memset(out->tensors[i].data, 0xff, bytes);
    }
    int rc = exec_run(exec, in->tensors, out->tensors, err);
    for (size_t i = 0; rc == 0 && i < out->count; i++) {
        assert_true(tensor_desc_fits(&out->tensors[i].desc, &descs[i]));
        assert_int_equal(out->tensors[i].desc.bounded, 0);
    }
    exec_free(exec);
    stage_unref(stage);
    return rc;
}

static struct cut_tensors make_input(const struct model *model, const float *numbers) {
    size_t count, bytes;
    const struct tensor_desc *descs = model_cut(model, 0, &count);
    struct cut_tensors in = {.count = 1, .owned = {true}};
    assert_int_equal(count, 1);
    assert_int_equal(tensor_desc_bytes(&descs[0], &bytes), 0);
    in.tensors[0] = (struct tensor){descs[0], tensor_buffer_new(bytes)};
    memcpy(in.tensors[0].data, numbers, bytes);
    return in;
}

static void assert_same(const struct cut_tensors *a, const struct cut_tensors *b, size_t at) {
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        size_t bytes;
        assert_true(tensor_desc_same(&a->tensors[i].desc, &b->tensors[i].desc));
        assert_int_equal(tensor_desc_bytes(&a->tensors[i].desc, &bytes), 0);
        if (memcmp(a->tensors[i].data, b->tensors[i].data, bytes) != 0)
            fail_msg("cut before %zu changes output %zu", at, i);
    }
}

/* Numbers of which `nonzero` of each eight are not zero. */
static void make_numbers(float *numbers, size_t count, size_t nonzero) {
    for (size_t i = 0; i < count; i++)
        numbers[i] = (i * 5 + i / 7) % 8 < nonzero ? (float)(i % 11) + 0.5f : 0.0f;
}

/* Whole, and at every cut, for frames that find nothing, something, everything. */
static void check_every_cut(const char *text) {
    struct model *model = open_text(text);
    struct err err = {0};
    size_t count = model_layers_count(model);
    float numbers[256];
    for (size_t nonzero = 0; nonzero <= 8; nonzero += 2) {
        make_numbers(numbers, 256, nonzero);
        struct cut_tensors in = make_input(model, numbers), whole, middle, out;
        if (run_range(model, 0, count, &in, &whole, &err) < 0)
            fail_msg("%zu of 8: %s", nonzero, err.text);
        for (size_t at = 1; at < count; at++) {
            assert_int_equal(run_range(model, 0, at, &in, &middle, &err), 0);
            assert_int_equal(run_range(model, at, count, &middle, &out, &err), 0);
            assert_same(&whole, &out, at);
            tensors_free(&out);
            tensors_free(&middle);
        }
        tensors_free(&whole);
        tensors_free(&in);
    }
    model_unref(model);
}

static void what_is_found_has_its_own_shape_in_each_frame(void **state) {
    (void)state;
    struct model *model = open_text(rows);
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct err err = {0};
    struct cut_tensors out = {0};
    assert_int_equal(stage_new(model, 0, model_layers_count(model), NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    const struct tensor_desc *descs = stage_outputs(stage, &out.count);
    assert_int_equal(descs[0].dims[0], 8);
    assert_int_equal(descs[0].bounded, 1);
    assert_int_equal(descs[1].bounded, 1); /* eight rows at most, of five each */
    assert_int_equal(descs[1].dims[1], 5);
    for (size_t i = 0; i < out.count; i++) {
        out.owned[i] = true;
        out.tensors[i].data = tensor_buffer_new(1024);
    }
    static const int64_t found[] = {3, 0, 8, 1};
    for (size_t f = 0; f < sizeof(found) / sizeof(found[0]); f++) {
        float numbers[40];
        for (size_t i = 0; i < 40; i++)
            numbers[i] = i % 5 == 0 && (int64_t)(i / 5) >= found[f] ? 0.0f : (float)i + 1.0f;
        struct cut_tensors in = make_input(model, numbers);
        assert_int_equal(exec_run(exec, in.tensors, out.tensors, &err), 0);
        assert_int_equal(out.tensors[0].desc.dims[0], found[f]);
        assert_int_equal(out.tensors[1].desc.dims[0], found[f]);
        assert_int_equal(out.tensors[1].desc.dims[1], 5);
        assert_int_equal(out.tensors[2].desc.dims[0], 2 * found[f]);
        for (int64_t i = 0; i < found[f]; i++)
            assert_int_equal(((int64_t *)out.tensors[0].data)[i], i);
        assert_memory_equal(out.tensors[1].data, numbers, (size_t)found[f] * 5 * sizeof(float));
        tensors_free(&in);
    }
    exec_free(exec);
    stage_unref(stage);
    tensors_free(&out);
    model_unref(model);
}

static void rows_that_are_found_cross_every_cut(void **state) {
    (void)state;
    check_every_cut(rows);
}

static void shapes_of_what_is_found_cross_every_cut(void **state) {
    (void)state;
    check_every_cut(shapes);
}

static void sizes_that_follow_cross_every_cut(void **state) {
    (void)state;
    check_every_cut(sizes);
}

static void a_detector_crosses_every_cut(void **state) {
    (void)state;
    struct model *model = open_text(detector);
    struct err err = {0};
    size_t count = model_layers_count(model);
    static float numbers[768];
    int64_t least = INT64_MAX, most = 0;
    for (size_t frame = 0; frame < 6; frame++) {
        for (size_t i = 0; i < 768; i++)
            numbers[i] = (float)((i * (17 + frame) + i * i % 5) % 23) * (float)frame / 20.0f;
        struct cut_tensors in = make_input(model, numbers), whole, middle, out;
        if (run_range(model, 0, count, &in, &whole, &err) < 0)
            fail_msg("%s", err.text);
        int64_t found = whole.tensors[1].desc.dims[0];
        assert_int_equal(whole.tensors[0].desc.dims[1], found);
        assert_int_equal(whole.tensors[2].desc.dims[0], found);
        least = found < least ? found : least;
        most = found > most ? found : most;
        for (size_t at = 1; at < count; at++) {
            assert_int_equal(run_range(model, 0, at, &in, &middle, &err), 0);
            assert_int_equal(run_range(model, at, count, &middle, &out, &err), 0);
            assert_same(&whole, &out, at);
            tensors_free(&out);
            tensors_free(&middle);
        }
        tensors_free(&whole);
        tensors_free(&in);
    }
    assert_int_equal(least, 0); /* frames that find nothing are among them */
    assert_true(most > 3);
    model_unref(model);
}

static void what_only_constants_decide_is_found_at_load(void **state) {
    (void)state;
    struct model *model =
        open_text("input x f32 4\nconst c i64 4 = 0,3,0,5\noutput y\n"
                  "NonZero find c -> found\nconst zero i64 1 = 0\n"
                  "Squeeze line found,zero -> places\nGather pick x,places -> y\n");
    size_t count;
    const struct tensor_desc *outputs = model_cut(model, model_layers_count(model), &count);
    assert_int_equal(model_layers_count(model), 1);
    assert_int_equal(outputs[0].dims[0], 2);
    assert_int_equal(outputs[0].bounded, 0);
    model_unref(model);
}

static void a_rank_that_depends_on_data_is_refused(void **state) {
    (void)state;
    char path[64];
    struct model *model = NULL;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/m.onnx", folder);
    small_model_write(path, 13,
                      "input x f32 1,1\noutput y\nNonZero find x -> f\nSqueeze s f -> y\n");
    assert_int_equal(model_open(path, NULL, &model, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "depends on data"));
    unlink(path);
}

/* A part's file says which of its inputs' dimensions are bounds. */
static void parts_in_files_know_the_bounds(void **state) {
    (void)state;
    struct model *model = open_text(rows), *parts[2] = {NULL};
    struct err err = {0};
    struct cut_tensors whole, middle, out;
    char path[64];
    float numbers[256];
    size_t count = model_layers_count(model);
    make_numbers(numbers, 256, 3);
    struct cut_tensors in = make_input(model, numbers);
    assert_int_equal(run_range(model, 0, count, &in, &whole, &err), 0);
    snprintf(path, sizeof(path), "%s/part.onnx", folder);
    for (size_t at = 1; at < count; at++) {
        for (size_t i = 0; i < 2; i++) {
            if (model_write_part(model, i == 0 ? 0 : at, i == 0 ? at : count, path, &err) < 0 ||
                model_open(path, NULL, &parts[i], &err) < 0)
                fail_msg("cut at %zu: %s", at, err.text);
            unlink(path);
        }
        assert_int_equal(run_range(parts[0], 0, at, &in, &middle, &err), 0);
        assert_int_equal(run_range(parts[1], 0, count - at, &middle, &out, &err), 0);
        assert_same(&whole, &out, at);
        tensors_free(&out);
        tensors_free(&middle);
        model_unref(parts[0]);
        model_unref(parts[1]);
    }
    tensors_free(&whole);
    tensors_free(&in);
    model_unref(model);
}

static void more_rows_than_the_bound_are_refused(void **state) {
    (void)state;
    struct model *model = open_text(rows);
    struct err err = {0};
    struct cut_tensors middle, out;
    float numbers[40];
    size_t count, at = 1;
    while (model_cut(model, at, &count)[0].bounded == 0)
        at++;
    make_numbers(numbers, 40, 3);
    struct cut_tensors in = make_input(model, numbers);
    assert_int_equal(run_range(model, 0, at, &in, &middle, &err), 0);
    const struct tensor_desc *bound = &model_cut(model, at, &count)[0];
    for (int d = 0; d < bound->rank; d++)
        if (bound->bounded >> d & 1U)
            middle.tensors[0].desc.dims[d] = bound->dims[d] + 1;
    assert_int_equal(run_range(model, at, model_layers_count(model), &middle, &out, &err), -EINVAL);
    assert_non_null(strstr(err.text, "the model was made for"));
    tensors_free(&out);
    tensors_free(&middle);
    tensors_free(&in);
    model_unref(model);
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
        cmocka_unit_test(what_is_found_has_its_own_shape_in_each_frame),
        cmocka_unit_test(rows_that_are_found_cross_every_cut),
        cmocka_unit_test(shapes_of_what_is_found_cross_every_cut),
        cmocka_unit_test(sizes_that_follow_cross_every_cut),
        cmocka_unit_test(a_detector_crosses_every_cut),
        cmocka_unit_test(what_only_constants_decide_is_found_at_load),
        cmocka_unit_test(a_rank_that_depends_on_data_is_refused),
        cmocka_unit_test(parts_in_files_know_the_bounds),
        cmocka_unit_test(more_rows_than_the_bound_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
