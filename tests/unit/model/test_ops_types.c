/* Operators on other types than float32. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void clip_and_relu_have_the_types_of_onnx(void **state) {
    (void)state;
    op_case_check(13, "given x i8 4 = -128,-3,5,127\ngiven a i8 = -2\ngiven b i8 = 100\n"
                      "Clip c x,a,b -> y\nwant y i8 4 = -2,-2,5,100\n");
    op_case_check(13, "given x u8 3 = 1,200,255\ngiven b u8 = 199\nClip c x,-,b -> y\n"
                      "want y u8 3 = 1,199,199\n");
    op_case_check(13, "given x i64 2 = -9000000000,5\ngiven a i64 = 0\nClip c x,a -> y\n"
                      "want y i64 2 = 0,5\n");
    op_case_check(13, "given x u64 2 = 7,5\nClip c x -> y\nwant y u64 2 = 7,5\n");
    op_case_check(13, "given x f64 2 = -1e300,1e300\ngiven b f64 = 2\nClip c x,-,b -> y\n"
                      "want y f64 2 = -1e300,2\n");
    op_case_check(14, "given x i32 3 = -5,0,5\nRelu r x -> y\nwant y i32 3 = 0,0,5\n");
    op_case_check(14, "given x f64 2 = -5,5\nRelu r x -> y\nwant y f64 2 = 0,5\n");
    op_case_refuse(14, "input x u8 3\nRelu r x -> y\nwant y u8 1 = 0\n", -ENOTSUP, "type uint8");
    op_case_refuse(13, "input x i8 3\ninput a f32\nClip c x,a -> y\nwant y i8 1 = 0\n", -ENOTSUP,
                   "input 1 of type float32");
}

static void doubles_and_bytes_are_reduced(void **state) {
    (void)state;
    op_case_check(13, "given x f64 2,2 = 1,2,3,4\nReduceLogSumExp r x -> y | axes=[1] keepdims=0\n"
                      "want y f64 2 = 2.31326169,4.31326169\n");
    op_case_check(13, "given x u8 2,2 = 1,200,3,4\nReduceMax r x -> y | axes=[1] keepdims=0\n"
                      "want y u8 2 = 200,4\n");
}

static void sixteen_bits_and_unsigned_numbers_are_computed(void **state) {
    (void)state;
    op_case_check(13, "given a u16 3 = 65535,7,9\ngiven b u16 3 = 3,10,4\nMod m a,b -> y\n"
                      "want y u16 3 = 0,7,1\n");
    op_case_check(13, "given a i16 2 = -7,7\ngiven b i16 2 = 3,-3\nMod m a,b -> y\n"
                      "want y i16 2 = 2,-2\n");
    op_case_check(13, "given a u64 2 = 1,5\ngiven b u64 2 = 3,4\nMax m a,b -> y\n"
                      "want y u64 2 = 3,5\n");
    op_case_check(15, "given a f32 2 = 2,3\ngiven b u32 2 = 3,2\nPow p a,b -> y\n"
                      "want y f32 2 = 8,9\n");
    op_case_check(13, "given a u32 2 = 4000000000,1\nCast c a -> y | to=7\n"
                      "want y i64 2 = 4000000000,1\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_and_relu_have_the_types_of_onnx),
        cmocka_unit_test(doubles_and_bytes_are_reduced),
        cmocka_unit_test(sixteen_bits_and_unsigned_numbers_are_computed),
    };
    return cmocka_run_group_tests_name("types", tests, NULL, NULL);
}
