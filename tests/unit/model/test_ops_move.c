/* Operators that move elements, and arithmetic of unlike types: forms that few networks use. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define LINE "given x f32 3 = 1,2,3\n"

static void pads_repeat_as_often_as_it_takes(void **state) {
    (void)state;
    op_case_check(13, LINE "const p i64 2 = 5,3\nPad p x,p -> y | mode=reflect\n"
                           "want y f32 11 = 2,1,2,3,2,1,2,3,2,1,2\n");
    op_case_check(19, LINE "const p i64 2 = 4,5\nPad p x,p -> y | mode=wrap\n"
                           "want y f32 12 = 3,1,2,3,1,2,3,1,2,3,1,2\n");
    op_case_check(13, LINE "const p i64 2 = 2,1\nPad p x,p -> y | mode=edge\n"
                           "want y f32 6 = 1,1,1,2,3,3\n");
    op_case_check(13, "given x u8 1 = 7\nconst p i64 2 = 2,1\nPad p x,p -> y | mode=reflect\n"
                      "want y u8 4 = 7,7,7,7\n");
}

static void negative_pads_crop_first(void **state) {
    (void)state;
    op_case_check(11, LINE "const p i64 2 = -1,2\nconst v f32 = 9\nPad p x,p,v -> y\n"
                           "want y f32 4 = 2,3,9,9\n");
    op_case_check(13, LINE "const p i64 2 = -1,2\nPad p x,p -> y | mode=reflect\n"
                           "want y f32 4 = 2,3,2,3\n");
    op_case_refuse(13, LINE "const p i64 2 = -3,2\nPad p x,p -> y | mode=edge\nwant y f32 1 = 0\n",
                   -EBADMSG, "nothing to repeat along dimension 0");
    op_case_refuse(13, LINE "const p i64 2 = -4,2\nPad p x,p -> y\nwant y f32 1 = 0\n", -EBADMSG,
                   "pads take more than the 3 there are");
}

static void pads_are_those_of_listed_axes(void **state) {
    (void)state;
    op_case_check(18, "given x i64 1,2 = 1,2\nconst p i64 2 = 1,0\nconst v i64 = 5\n"
                      "const a i32 1 = -1\nPad p x,p,v,a -> y\nwant y i64 1,3 = 5,1,2\n");
    op_case_check(2, LINE "Pad p x -> y | pads=[0,1] value=4.0\nwant y f32 4 = 1,2,3,4\n");
}

static void tiles_of_many_dimensions_are_repeated(void **state) {
    (void)state;
    op_case_check(13, "given x f32 1,1,1,2,1,1,2 = 1,2,3,4\nconst r i64 7 = 1,2,1,1,1,1,2\n"
                      "Tile t x,r -> y\n"
                      "want y f32 1,2,1,2,1,1,4 = 1,2,1,2,3,4,3,4,1,2,1,2,3,4,3,4\n");
    op_case_check(13, "given x u8 2,2 = 1,2,3,4\nconst r i64 2 = 2,1\nTile t x,r -> y\n"
                      "want y u8 4,2 = 1,2,3,4,1,2,3,4\n");
    op_case_check_constant(13, "given x f32 2 = 1,2\nconst r i64 1 = 0\nTile t x,r -> y\n"
                               "want y f32 0 =\n");
}

static void powers_of_unlike_types_are_the_base_s(void **state) {
    (void)state;
    op_case_check(13, "given x i32 3 = 4,9,2\ngiven e f32 3 = 0.5,1.5,-1\nPow p x,e -> y\n"
                      "want y i32 3 = 2,27,0\n");
    op_case_check(13, "given x u8 2 = 2,1\ngiven e i32 1 = -1\nPow p x,e -> y\n"
                      "want y u8 2 = 0,1\n");
    op_case_check(13, "given x i64 2 = 3037000499,-3\ngiven e i32 2 = 2,3\nPow p x,e -> y\n"
                      "want y i64 2 = 9223372030926249001,-27\n");
    op_case_check(13, "given x f32 2,1 = 2,3\ngiven e i64 2 = 2,-1\nPow p x,e -> y\n"
                      "want y f32 2,2 = 4,0.5,9,0.3333333\n");
    op_case_check(13, "given x f64 1 = 2\ngiven e f32 1 = 0.5\nPow p x,e -> y\n"
                      "want y f64 1 = 1.41421356\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pads_repeat_as_often_as_it_takes),
        cmocka_unit_test(negative_pads_crop_first),
        cmocka_unit_test(pads_are_those_of_listed_axes),
        cmocka_unit_test(tiles_of_many_dimensions_are_repeated),
        cmocka_unit_test(powers_of_unlike_types_are_the_base_s),
    };
    return cmocka_run_group_tests_name("operators that move elements", tests, NULL, NULL);
}
