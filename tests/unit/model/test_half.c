/* Models in float16: stored so, computed in float32, and float16 again at their edges. */
#include "tests/lib/models.h"
#include "tests/lib/op_case.h"
#include "tests/lib/small_model.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct model *open_text(const char *text) {
    char path[] = "/tmp/convoy-half-XXXXXX";
    struct model *model = NULL;
    struct err err = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    small_model_write(path, 13, text);
    if (model_open(path, NULL, &model, &err) < 0)
        fail_msg("%s", err.text);
    unlink(path);
    return model;
}

static void check_layers(const char *text, const char *wanted) {
    struct model *model = open_text(text);
    char layers[1024] = "";
    for (size_t i = 0; i < model_layers_count(model); i++)
        snprintf(layers + strlen(layers), sizeof(layers) - strlen(layers), "%s%s:%s", i ? " " : "",
                 model_layer(model, i)->name, model_layer(model, i)->op);
    assert_string_equal(layers, wanted);
    model_unref(model);
}

#define NET                                                                                        \
    "input x f16 1,4,5,5\noutput y f16 1,4,5,5\nconst w f16 4,4,3,3\nconst b f16 4\n"              \
    "const s f16 4\nconst m f16 4\nconst v f16 4 = 0.5,1,2,3\n"                                    \
    "Conv conv x,w,b -> a | pads=[1,1,1,1]\nBatchNormalization bn a,s,b,m,v -> n\n"

static void layers_fuse_as_those_of_float32_do(void **state) {
    (void)state;
    check_layers(NET
                 "Add add n,x -> o\nClip clip o,lo,hi -> y\nconst lo f16 = 0\nconst hi f16 = 6\n",
                 "x/float32:Cast clip:Conv+BatchNormalization+Add+Clip y/float32:Cast");
}

static void edges_keep_their_type(void **state) {
    (void)state;
    struct model *model = open_text(NET "Relu relu n -> y\n");
    size_t count;
    assert_int_equal(model_cut(model, 0, &count)[0].dtype, DTYPE_FLOAT16);
    assert_int_equal(model_cut(model, 1, &count)[0].dtype, DTYPE_FLOAT);
    assert_int_equal(model_cut(model, model_layers_count(model), &count)[0].dtype, DTYPE_FLOAT16);
    model_unref(model);
}

static void results_are_rounded_once_at_the_end(void **state) {
    (void)state;
    /* 2048 + 1 + 1: in float16 each sum would be rounded back to 2048. */
    op_case_check(13, "given x f16 2 = 2048,-1\ngiven o f16 = 1\nAdd a x,o -> s\nAdd b s,o -> y\n"
                      "want y f16 2 = 2050,1\n");
    op_case_check(13, "given a f16 2,2 = 1,2,3,4\ngiven b f16 2,2 = 0.5,1,-1,2\n"
                      "MatMul m a,b -> y\nwant y f16 2,2 = -1.5,5,-2.5,11\n");
    op_case_check(13, "given x f16 3 = -60000,60000,1\ngiven k f16 = 2\nMul m x,k -> y\n"
                      "want y f16 3 = -inf,inf,2\n");
}

static void a_cast_inside_rounds(void **state) {
    (void)state;
    op_case_check(13, "given x f32 1 = 2049\nconst o f16 1 = 1\nCast c x -> h | to=10\n"
                      "Add a h,o -> y\nwant y f16 1 = 2048\n");
    op_case_check(13,
                  "given x f16 1 = 2048\ngiven o f16 = 1\nAdd a x,o -> s\nCast c s -> y | to=1\n"
                  "want y f32 1 = 2049\n");
    op_case_check(13, "given x f16 2 = 2.5,-2.5\nCast c x -> y | to=6\nwant y i32 2 = 2,-2\n");
}

static void shapes_and_moves_of_float16_are_those_of_any_type(void **state) {
    (void)state;
    op_case_check(13, "given x f16 2,2 = 1,2,3,4\nTranspose t x -> y\nShape s x -> z\n"
                      "want y f16 2,2 = 1,3,2,4\nwant z i64 2 = 2,2\n");
    op_case_check(13, "given x f16 2 = 1,2\nconst t i64 1 = 3\nTile t x,t -> y\n"
                      "want y f16 6 = 1,2,1,2,1,2\n");
    op_case_check(13, "given x f16 4 = 1,-7,2,0\nReduceMax r x -> y | keepdims=0\n"
                      "ArgMax a x -> i | keepdims=0\nwant y f16 = 2\nwant i i64 = 2\n");
}

static void outputs_may_be_read_by_others_and_names_be_taken(void **state) {
    (void)state;
    op_case_check(13, "given x f16 2 = 1,-2\nRelu r x -> x/float32\nNeg n x/float32 -> z\n"
                      "want x/float32 f16 2 = 1,0\nwant z f16 2 = -1,0\n");
}

/* Weights of one part, as they are stored. */
static void parts_keep_their_weights_as_they_were_stored(void **state) {
    (void)state;
    struct model *model =
        open_text("input x f16 1,32,8,8\noutput y f16 1,32,8,8\nconst w f16 32,32,3,3\n"
                  "const q i8 32,32,3,3\nconst s f32 = 0.1\nDequantizeLinear dq q,s -> v\n"
                  "Conv first x,w -> a | pads=[1,1,1,1]\nConv second a,v -> y | pads=[1,1,1,1]\n");
    char folder[] = "/tmp/convoy-half-part-XXXXXX", path[64];
    const off_t numbers = (off_t)32 * 32 * 9;
    struct err err = {0};
    struct stat st;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/part.onnx", folder);
    assert_int_equal(model_layers_count(model), 4); /* Cast, two convolutions, Cast */
    for (size_t at = 1; at < 3; at++) {
        if (model_write_part(model, at, at + 1, path, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(stat(path, &st), 0);
        assert_in_range(st.st_size, (at == 1 ? 2 : 1) * numbers,
                        (at == 1 ? 2 : 1) * numbers + 2000);
        unlink(path);
    }
    rmdir(folder);
    model_unref(model);
}

static void bfloat16_is_refused_by_name(void **state) {
    (void)state;
    op_case_refuse(13, "input x bf16 2\nRelu r x -> y\nwant y f32 1 = 0\n", -ENOTSUP,
                   "input \"x\" has the element type bfloat16");
    op_case_refuse(13, "input x f32 2\nCast c x -> y | to=16\nwant y f32 1 = 0\n", -ENOTSUP,
                   "to bfloat16 (16) is not supported");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_fuse_as_those_of_float32_do),
        cmocka_unit_test(edges_keep_their_type),
        cmocka_unit_test(results_are_rounded_once_at_the_end),
        cmocka_unit_test(a_cast_inside_rounds),
        cmocka_unit_test(shapes_and_moves_of_float16_are_those_of_any_type),
        cmocka_unit_test(outputs_may_be_read_by_others_and_names_be_taken),
        cmocka_unit_test(parts_keep_their_weights_as_they_were_stored),
        cmocka_unit_test(bfloat16_is_refused_by_name),
    };
    return cmocka_run_group_tests_name("float16", tests, NULL, NULL);
}
