/* Operators on quantised numbers. Scales that are powers of two make float arithmetic exact: then
 * the quantised operators must agree, number by number, with what QuantizeLinear, Conv or MatMul,
 * and DequantizeLinear compute one after the other. */
#include "tests/lib/models.h"
#include "tests/lib/op_case.h"
#include "tests/lib/small_model.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void quantizing_rounds_halves_to_even_and_saturates(void **state) {
    (void)state;
    op_case_check(10, "given x f32 6 = 1.0,3.0,5.0,1000.0,-254.0,-1000.0\ngiven s f32 = 2\n"
                      "given z u8 = 128\nQuantizeLinear q x,s,z -> y\n"
                      "want y u8 6 = 128,130,130,255,1,0\n");
    op_case_check(13, "given x f32 3 = -1.0,3.0,300\ngiven s f32 = 2\nQuantizeLinear q x,s -> y\n"
                      "want y u8 3 = 0,2,150\n");
    op_case_check(13, "given x i32 3 = -3,3,300\ngiven s f32 = 2\ngiven z i8 = 1\n"
                      "QuantizeLinear q x,s,z -> y\nwant y i8 3 = -1,3,127\n");
    op_case_check(13, "given x f32 2 = 1,3\ngiven s f32 = 2\ngiven z u8 1 = 4\n"
                      "QuantizeLinear q x,s,z -> y\nwant y u8 2 = 4,6\n");
    op_case_check(21, "given x f32 3 = -3,3,30000\nconst s f32 = 1\n"
                      "QuantizeLinear q x,s -> y | output_dtype=5\nwant y i16 3 = -3,3,30000\n");
}

static void scales_lie_along_an_axis_or_in_blocks(void **state) {
    (void)state;
    op_case_check(13,
                  "given x f32 2,2,2 = 8,8,8,8,8,8,8,8\ngiven s f32 2 = 2,4\ngiven z i8 2 = 0,1\n"
                  "QuantizeLinear q x,s,z -> y | axis=-2\nwant y i8 2,2,2 = 4,4,3,3,4,4,3,3\n");
    op_case_check(13, "given x u8 2,3 = 1,2,3,4,5,6\ngiven s f32 3 = 1,10,100\n"
                      "given z u8 3 = 1,0,2\nDequantizeLinear d x,s,z -> y | axis=1\n"
                      "want y f32 2,3 = 0,20,100,3,50,400\n");
    op_case_check(21, "given x i8 2,5 = 1,1,1,1,1,1,1,1,1,1\ngiven s f32 2,3 = 1,2,3,4,5,6\n"
                      "DequantizeLinear d x,s -> y | axis=1 block_size=2\n"
                      "want y f32 2,5 = 1,1,2,2,3,4,4,5,5,6\n");
    op_case_check(10, "given x i32 2 = 100,-7\ngiven s f32 = 0.5\nDequantizeLinear d x,s -> y\n"
                      "want y f32 2 = 50,-3.5\n");
}

static void scales_that_do_not_fit_are_refused(void **state) {
    (void)state;
    op_case_refuse(13,
                   "input x f32 2,3\ninput s f32 2\nQuantizeLinear q x,s -> y\nwant y u8 1 = 0\n",
                   -EBADMSG, "2 scales for 3 channels");
    op_case_refuse(13,
                   "input x f32 2,3\ninput s f32 3\ninput z u8 2\nQuantizeLinear q x,s,z -> y\n"
                   "want y u8 1 = 0\n",
                   -EBADMSG, "2 zero points for 3 scales");
    op_case_refuse(13,
                   "input x f32 2,3\ninput s f32 3\nQuantizeLinear q x,s -> y | axis=2\n"
                   "want y u8 1 = 0\n",
                   -EBADMSG, "axis 2");
    op_case_refuse(21,
                   "input x i8 2,5\ninput s f32 2,2\nDequantizeLinear d x,s -> y | block_size=2\n"
                   "want y f32 1 = 0\n",
                   -EBADMSG, "dimension 1 of the scale is 2 instead of 3");
    op_case_refuse(21,
                   "input x f32 2\ninput s f32\nQuantizeLinear q x,s -> y | output_dtype=17\n"
                   "want y u8 1 = 0\n",
                   -ENOTSUP, "float8");
    op_case_refuse(13,
                   "input x i64 2\ninput s f32\nDequantizeLinear d x,s -> y\nwant y f32 1 = 0\n",
                   -ENOTSUP, "type int64");
}

static void a_range_is_quantised_as_it_comes(void **state) {
    (void)state;
    op_case_check(11, "given x f32 6 = 0,2,-3,-2.5,1.34,0.5\nDynamicQuantizeLinear d x -> y,s,z\n"
                      "want y u8 6 = 153,255,0,26,221,179\nwant s f32 = 0.0196078438\n"
                      "want z u8 = 153\n");
}

/* ---- the same numbers on two ways */

/* Runs a model whose outputs 0 and 1 must be the same. */
static void check_two_ways(int opset, const char *text) {
    char path[] = "/tmp/convoy-quantized-XXXXXX";
    struct model *model = NULL;
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct tensor in, out[MODELS_TENSORS_MAX];
    struct err err = {0};
    size_t count, bytes;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    small_model_write(path, opset, text);
    if (model_open(path, NULL, &model, &err) < 0)
        fail_msg("%s", err.text);
    unlink(path);
    assert_int_equal(stage_new(model, 0, model_layers_count(model), NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    in.desc = stage_inputs(stage, &count)[0];
    assert_int_equal(count, 1);
    assert_int_equal(tensor_desc_bytes(&in.desc, &bytes), 0);
    in.data = tensor_buffer_new(bytes);
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)in.data)[i] = (uint8_t)(i * 73 + i / 7);
    models_room(stage, out);
    if (exec_run(exec, &in, out, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(tensor_desc_same(&out[0].desc, &out[1].desc));
    assert_int_equal(tensor_desc_bytes(&out[0].desc, &bytes), 0);
    assert_memory_equal(out[0].data, out[1].data, bytes);
    for (size_t i = 1; i < bytes; i++)
        if (((uint8_t *)out[0].data)[i] != ((uint8_t *)out[0].data)[0])
            bytes = 0; /* not all the same: something was computed */
    assert_int_equal(bytes, 0);
    models_room_free(stage, out);
    tensor_buffer_free(in.data);
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
}

#define SCALES                                                                                     \
    "const xs f32 = 0.25\nconst xz u8 = 100\nconst ys f32 = 64\nconst yz i8 = -3\n"                \
    "DequantizeLinear dx x,xs,xz -> fx\n"
#define CONV(attrs)                                                                                \
    "QLinearConv a x,xs,xz,w,ws,wz,ys,yz,b -> one | " attrs "\n"                                   \
    "DequantizeLinear dw w,ws,wz -> fw | axis=0\nDequantizeLinear db b,bs -> fb | axis=0\n"        \
    "Conv c fx,fw,fb -> fy | " attrs "\nQuantizeLinear qy fy,ys,yz -> two\n"

static void qlinear_conv_is_conv_between_quantisers(void **state) {
    (void)state;
    check_two_ways(
        13, "input x u8 2,5,9,9\noutput one\noutput two\n" SCALES
            "const w i8 6,5,3,3\nconst ws f32 6 = 0.5,1,2,4,1,0.5\n"
            "const wz i8 6 = 0,1,-2,3,0,7\nconst b i32 6 = 100,-200,300,0,5,-7\n"
            "const bs f32 6 = 0.125,0.25,0.5,1,0.25,0.125\n" CONV("pads=[1,0,2,1] strides=[2,1]"));
    check_two_ways(13, "input x u8 1,40,6,7\noutput one\noutput two\n" SCALES
                       "const w u8 40,1,3,3\nconst ws f32 = 1\nconst wz u8 = 3\n"
                       "const b i32 40\nconst bs f32 = 0.25\n" CONV(
                           "group=40 pads=[1,1,1,1] dilations=[1,2]"));
    check_two_ways(13, "input x u8 1,4,20\noutput one\noutput two\n" SCALES
                       "const w i8 6,2,3\nconst ws f32 = 1\nconst wz i8 = 0\n"
                       "const b i32 6\nconst bs f32 = 0.25\n" CONV("group=2 auto_pad=SAME_UPPER"));
}

static void conv_integer_is_conv_of_what_is_off_zero(void **state) {
    (void)state;
    check_two_ways(10, "input x u8 1,3,6,6\noutput one\noutput two\nconst w i8 4,3,2,2\n"
                       "const z u8 = 7\nconst wz i8 4 = 1,2,3,4\nConvInteger a x,w,z,wz -> one\n"
                       "Cast c x -> xf | to=1\nconst zf f32 = 7\nSub m xf,zf -> xo\n"
                       "Cast d w -> wf | to=1\nconst wzf f32 4,1,1,1 = 1,2,3,4\n"
                       "Sub n wf,wzf -> wo\nConv e xo,wo -> f\nCast g f -> two | to=6\n");
    check_two_ways(10, "input x i8 1,3,6,6\noutput one\noutput two\nconst w u8 4,3,2,2\n"
                       "ConvInteger a x,w -> one | auto_pad=SAME_LOWER\nCast c x -> xf | to=1\n"
                       "Cast d w -> wf | to=1\nConv e xf,wf -> f | auto_pad=SAME_LOWER\n"
                       "Cast g f -> two | to=6\n");
}

static void weights_may_come_with_the_frame(void **state) {
    (void)state;
    op_case_check(10, "given x u8 1,1,2,2 = 2,3,4,5\ngiven w u8 1,1,2,2 = 1,1,1,1\ngiven z u8 = 1\n"
                      "ConvInteger a x,w,z -> y\nwant y i32 1,1,1,1 = 10\n");
    op_case_check(10, "given a u8 2,2 = 1,2,3,4\ngiven b i8 2,2 = 1,-1,0,2\ngiven az u8 2 = 1,0\n"
                      "given bz i8 2 = 0,1\nMatMulInteger m a,b,az,bz -> y\n"
                      "want y i32 2,2 = 0,1,3,-2\n");
}

static void qlinear_matmul_is_matmul_between_quantisers(void **state) {
    (void)state;
    check_two_ways(13,
                   "input a u8 2,3,40\noutput one\noutput two\nconst as f32 = 0.5\n"
                   "const az u8 = 120\nconst b i8 40,7\nconst bs f32 7 = 1,2,4,0.5,1,1,1\n"
                   "const bz i8 7 = 0,1,2,3,4,5,6\nconst ys f32 = 16\nconst yz u8 = 90\n"
                   "QLinearMatMul q a,as,az,b,bs,bz,ys,yz -> one\n"
                   "DequantizeLinear da a,as,az -> fa\nDequantizeLinear db b,bs,bz -> fb | axis=1\n"
                   "MatMul m fa,fb -> fy\nQuantizeLinear qy fy,ys,yz -> two\n");
    check_two_ways(13, "input a i8 2,3,5\noutput one\noutput two\nconst az i8 3 = 1,2,3\n"
                       "const b u8 2,5,4\nconst bz u8 = 9\nMatMulInteger q a,b,az,bz -> one\n"
                       "Cast ca a -> fa | to=1\nconst azf f32 3,1 = 1,2,3\nSub sa fa,azf -> oa\n"
                       "Cast cb b -> fb | to=1\nconst bzf f32 = 9\nSub sb fb,bzf -> ob\n"
                       "MatMul m oa,ob -> fy\nCast cy fy -> two | to=6\n");
}

static void quantised_products_that_do_not_fit_are_refused(void **state) {
    (void)state;
    op_case_refuse(10,
                   "input x f32 1,1,3,3\ninput w u8 1,1,2,2\nConvInteger a x,w -> y\n"
                   "want y i32 1 = 0\n",
                   -ENOTSUP, "input 0 of type float32");
    op_case_refuse(10,
                   "input x u8 1,1,3,3\ninput w u8 3,1,2,2\ninput xz u8\ninput wz u8 2\n"
                   "ConvInteger a x,w,xz,wz -> y\nwant y i32 1 = 0\n",
                   -EBADMSG, "input 3 has 2 elements instead of 1 or 3");
    op_case_refuse(10,
                   "input x u8 1,1,3,3\ninput w u8 3,1,2,2\ninput xz i8\n"
                   "ConvInteger a x,w,xz -> y\nwant y i32 1 = 0\n",
                   -ENOTSUP, "input 2 of type int8");
    op_case_refuse(10,
                   "input a u8 2,3\ninput b u8 4,2\nMatMulInteger a a,b -> y\nwant y i32 1 = 0\n",
                   -EBADMSG, "a matrix with 3 columns times one with 4 rows");
    op_case_refuse(10,
                   "input a u8 2,3\ninput b u8 3,2\ninput az u8 3\nMatMulInteger a a,b,az -> y\n"
                   "want y i32 1 = 0\n",
                   -EBADMSG, "input 2 has 3 elements instead of 1 or 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantizing_rounds_halves_to_even_and_saturates),
        cmocka_unit_test(scales_lie_along_an_axis_or_in_blocks),
        cmocka_unit_test(scales_that_do_not_fit_are_refused),
        cmocka_unit_test(a_range_is_quantised_as_it_comes),
        cmocka_unit_test(qlinear_conv_is_conv_between_quantisers),
        cmocka_unit_test(conv_integer_is_conv_of_what_is_off_zero),
        cmocka_unit_test(weights_may_come_with_the_frame),
        cmocka_unit_test(qlinear_matmul_is_matmul_between_quantisers),
        cmocka_unit_test(quantised_products_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests_name("quantised operators", tests, NULL, NULL);
}
