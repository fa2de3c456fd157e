/* Operators that make numbers, and those that find boxes and elements. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void one_hot_takes_indices_of_any_type(void **state) {
    (void)state;
    op_case_check(11, "given i i64 3 = 0,-1,7\nconst d i64 = 3\ngiven v f32 2 = 2,5\n"
                      "OneHot o i,d,v -> y\nwant y f32 3,3 = 5,2,2,2,2,5,2,2,2\n");
    op_case_check(9, "given i f32 1,2 = 1,0\nconst d f32 1 = 2\ngiven v i32 2 = 0,1\n"
                     "OneHot o i,d,v -> y | axis=1\nwant y i32 1,2,2 = 0,1,1,0\n");
    op_case_refuse(11,
                   "given i i64 1 = 0\nconst d i64 = 0\ngiven v f32 2 = 2,5\n"
                   "OneHot o i,d,v -> y\nwant y f32 1 = 0\n",
                   -EBADMSG, "depth cannot be 0");
    op_case_refuse(11,
                   "given i i64 1 = 0\ngiven d i64 = 1\ngiven v f32 2 = 2,5\n"
                   "OneHot o i,d,v -> y\nwant y f32 1 = 0\n",
                   -ENOTSUP, "must be known");
}

#define ROWS "given x f64 2,3 = 1,2,3,4,5,6\nconst a i32 = "

static void cumsum_runs_both_ways_with_and_without_the_element(void **state) {
    (void)state;
    op_case_check(11, ROWS "1\nCumSum c x,a -> y\nwant y f64 2,3 = 1,3,6,4,9,15\n");
    op_case_check(14, ROWS "0\nCumSum c x,a -> y\nwant y f64 2,3 = 1,2,3,5,7,9\n");
    op_case_check(14, ROWS "-1\nCumSum c x,a -> y | exclusive=1\n"
                           "want y f64 2,3 = 0,1,3,0,4,9\n");
    op_case_check(14, ROWS "1\nCumSum c x,a -> y | reverse=1\nwant y f64 2,3 = 6,5,3,15,11,6\n");
    op_case_check(14, ROWS "1\nCumSum c x,a -> y | reverse=1 exclusive=1\n"
                           "want y f64 2,3 = 5,3,0,11,6,0\n");
    op_case_check(14, "given x i32 2 = 2147483647,1\nconst a i64 1 = 0\nCumSum c x,a -> y\n"
                      "want y i32 2 = 2147483647,-2147483648\n");
    op_case_refuse(14, ROWS "2\nCumSum c x,a -> y\nwant y f64 1 = 0\n", -EBADMSG, "axis 2");
    op_case_refuse(14,
                   "given x u8 2 = 1,1\nconst a i64 1 = 0\nCumSum c x,a -> y\nwant y u8 1 = 0\n",
                   -ENOTSUP, "type uint8 is not supported");
}

static void range_counts_up_and_down(void **state) {
    (void)state;
    op_case_check(11, "const a f32 = 1\nconst b f32 = 5\nconst c f32 = 2\nRange r a,b,c -> y\n"
                      "want y f32 2 = 1,3\n");
    op_case_check(11, "const a i64 = 10\nconst b i64 = 3\nconst c i64 = -3\nRange r a,b,c -> y\n"
                      "want y i64 3 = 10,7,4\n");
    op_case_check(11, "const a i32 = 3\nconst b i32 = 3\nconst c i32 = 1\nRange r a,b,c -> y\n"
                      "want y i32 0 =\n");
    op_case_refuse(11,
                   "const a i32 = 3\nconst b i32 = 4\nconst c i32 = 0\nRange r a,b,c -> y\n"
                   "want y i32 0 =\n",
                   -ENOTSUP, "numbers of type int32 are not supported");
    op_case_refuse(11,
                   "const a i64 = 0\nconst b i64 = 99999999999\nconst c i64 = 1\n"
                   "Range r a,b,c -> y\nwant y i64 0 =\n",
                   -ENOTSUP, "1e+11 numbers");
}

static void eye_like_has_its_diagonal_anywhere(void **state) {
    (void)state;
    op_case_check(9, "given x i32 2,3 = 7,7,7,7,7,7\nEyeLike e x -> y\n"
                     "want y i32 2,3 = 1,0,0,0,1,0\n");
    op_case_check(9, "given x i32 2,3 = 7,7,7,7,7,7\nEyeLike e x -> y | k=1 dtype=1\n"
                     "want y f32 2,3 = 0,1,0,0,0,1\n");
    op_case_check(22, "given x f32 2,2 = 7,7,7,7\nEyeLike e x -> y | k=-1 dtype=9\n"
                      "want y bool 2,2 = 0,0,1,0\n");
    op_case_refuse(9, "given x f32 4 = 7,7,7,7\nEyeLike e x -> y\nwant y f32 1 = 0\n", -ENOTSUP,
                   "1 dimensions instead of 2");
    op_case_refuse(9, "given x f32 1,1 = 7\nEyeLike e x -> y | dtype=8\nwant y f32 1 = 0\n",
                   -ENOTSUP, "type 8 is not supported");
}

static void nonzero_lists_places_by_dimension(void **state) {
    (void)state;
    op_case_check_constant(13, "given x bool 2,2 = 1,0,1,1\nNonZero n x -> y\n"
                               "want y i64 2,3 = 0,1,1,0,0,1\n");
    op_case_check_constant(9, "given x f32 3 = 0,-0.0,0\nNonZero n x -> y\nwant y i64 1,0 =\n");
    op_case_check_constant(9, "given x i64 = 3\nNonZero n x -> y\nwant y i64 0,1 =\n");
}

#define BOXES                                                                                      \
    "given b f32 1,4,4 = 0,0,1,1,0,0.1,1,1.1,1,11,0,10,5,5,5,5\n"                                  \
    "given s f32 1,2,4 = 0.9,0.75,0.6,0.5,0.1,0.95,nan,0.1\nconst n i64 1 = 3\n"

static void nms_keeps_the_best_of_what_overlaps(void **state) {
    (void)state;
    op_case_check_constant(11, BOXES "const i f32 1 = 0.5\nconst t f32 1 = 0.2\n"
                                     "NonMaxSuppression nms b,s,n,i,t -> y\n"
                                     "want y i64 4,3 = 0,0,0,0,0,2,0,0,3,0,1,1\n");
    op_case_check_constant(10, BOXES "const i f32 1 = 0.9\nNonMaxSuppression nms b,s,n,i -> y\n"
                                     "want y i64 6,3 = 0,0,0,0,0,1,0,0,2,0,1,1,0,1,0,0,1,3\n");
    op_case_check_constant(11, BOXES "NonMaxSuppression nms b,s -> y\nwant y i64 0,3 =\n");
    op_case_check_constant(
        11, "given b f32 1,2,4 = 0.5,0.5,1,1,0.6,0.5,1,1\ngiven s f32 1,1,2 = 0.5,0.5\n"
            "const n i64 = 2\nconst i f32 = 0.5\n"
            "NonMaxSuppression nms b,s,n,i -> y | center_point_box=1\nwant y i64 1,3 = 0,0,0\n");
}

static void nms_refuses_shapes_that_do_not_fit(void **state) {
    (void)state;
    op_case_refuse(11,
                   "given b f32 1,1,4 = 0,0,1,1\ngiven s f32 1,1,2 = 0.5,0.5\n"
                   "NonMaxSuppression nms b,s -> y\nwant y i64 0,3 =\n",
                   -EBADMSG, "boxes and scores do not fit");
    op_case_refuse(11,
                   "given b f32 1,1,4 = 0,0,1,1\ngiven s f32 1,1,1 = 0.5\n"
                   "NonMaxSuppression nms b,s -> y | center_point_box=2\nwant y i64 0,3 =\n",
                   -EBADMSG, "center_point_box cannot be 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_hot_takes_indices_of_any_type),
        cmocka_unit_test(cumsum_runs_both_ways_with_and_without_the_element),
        cmocka_unit_test(range_counts_up_and_down),
        cmocka_unit_test(eye_like_has_its_diagonal_anywhere),
        cmocka_unit_test(nonzero_lists_places_by_dimension),
        cmocka_unit_test(nms_keeps_the_best_of_what_overlaps),
        cmocka_unit_test(nms_refuses_shapes_that_do_not_fit),
    };
    return cmocka_run_group_tests_name("operators that make and find", tests, NULL, NULL);
}
