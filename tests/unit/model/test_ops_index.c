/* Operators that pick and place by index: every form, and what they refuse. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define GRID "given x f32 3,4 = 0,1,2,3,4,5,6,7,8,9,10,11\n"

static void topk_takes_the_largest_with_their_places(void **state) {
    (void)state;
    op_case_check(11, GRID "const k i64 1 = 3\nTopK t x,k -> v,i | axis=1\n"
                           "want v f32 3,3 = 3,2,1,7,6,5,11,10,9\n"
                           "want i i64 3,3 = 3,2,1,3,2,1,3,2,1\n");
    op_case_check(11, GRID "const k i64 1 = 2\nTopK t x,k -> v,i | axis=0 largest=0 sorted=0\n"
                           "want v f32 2,4 = 0,1,2,3,4,5,6,7\n"
                           "want i i64 2,4 = 0,0,0,0,1,1,1,1\n");
}

static void topk_prefers_the_first_of_equal_elements(void **state) {
    (void)state;
    op_case_check(11, "given x i64 6 = 2,7,7,-1,7,2\nconst k i64 1 = 4\nTopK t x,k -> v,i\n"
                      "want v i64 4 = 7,7,7,2\nwant i i64 4 = 1,2,4,0\n");
}

static void topk_of_old_opsets_has_k_elsewhere(void **state) {
    (void)state;
    op_case_check(9, "given x f32 4 = 1,4,2,3\nTopK t x -> v,i | k=2\n"
                     "want v f32 2 = 4,3\nwant i i64 2 = 1,3\n");
    op_case_check(10, "given x f32 4 = 1,4,2,3\nconst k i64 1 = 1\nTopK t x,k -> v,i\n"
                      "want v f32 1 = 4\nwant i i64 1 = 1\n");
}

static void topk_may_have_one_output_only(void **state) {
    (void)state;
    op_case_check(11, GRID "const k i64 1 = 1\nTopK t x,k -> -,i\nwant i i64 3,1 = 3,3,3\n");
    op_case_check(11, GRID "const k i64 1 = 1\nTopK t x,k -> v\nwant v f32 3,1 = 3,7,11\n");
}

static void topk_refuses_more_than_there_is(void **state) {
    (void)state;
    op_case_refuse(11, GRID "const k i64 1 = 5\nTopK t x,k -> v,i\nwant v f32 1 = 0\n", -EBADMSG,
                   "5 of 4 elements cannot be taken");
    op_case_refuse(11,
                   "given x bool 2 = 0,1\nconst k i64 1 = 1\nTopK t x,k -> v,i\n"
                   "want v bool 1 = 1\n",
                   -ENOTSUP, "type bool is not supported");
}

static void arg_takes_any_axis_type_and_end(void **state) {
    (void)state;
    op_case_check(13, "given x i32 2,3 = 5,1,5,-2,9,9\nArgMax a x -> y | axis=1 keepdims=0\n"
                      "want y i64 2 = 0,1\n");
    op_case_check(13, "given x i32 2,3 = 5,1,5,-2,9,9\n"
                      "ArgMax a x -> y | axis=-1 select_last_index=1\nwant y i64 2,1 = 2,2\n");
    op_case_check(13, "given x u8 2,3 = 5,1,250,2,9,3\nArgMin a x -> y\nwant y i64 1,3 = 1,0,1\n");
    op_case_check(13, "given x f64 3 = 1.5,-2,-2\nArgMin a x -> y | select_last_index=1\n"
                      "want y i64 1 = 2\n");
}

static void gather_elements_follows_its_index(void **state) {
    (void)state;
    op_case_check(13, "given x f32 3,3 = 1,2,3,4,5,6,7,8,9\ngiven i i64 2,3 = 1,2,0,-1,0,0\n"
                      "GatherElements g x,i -> y | axis=0\nwant y f32 2,3 = 4,8,3,7,2,3\n");
    op_case_check(11, "given x i64 2,2 = 1,2,3,4\ngiven i i32 2,2 = 0,0,1,0\n"
                      "GatherElements g x,i -> y | axis=1\nwant y i64 2,2 = 1,1,4,3\n");
}

static void gather_elements_refuses_an_index_that_does_not_fit(void **state) {
    (void)state;
    op_case_refuse(13,
                   "given x f32 2,2 = 1,2,3,4\ngiven i i64 1,2 = 0,2\n"
                   "GatherElements g x,i -> y\nwant y f32 1,2 = 0,0\n",
                   -EINVAL, "index 2 is not within 2 elements");
    op_case_refuse(13,
                   "given x f32 2,2 = 1,2,3,4\ngiven i i64 1,3 = 0,0,0\n"
                   "GatherElements g x,i -> y\nwant y f32 1,3 = 0,0,0\n",
                   -EBADMSG, "does not fit");
}

static void gather_nd_takes_elements_and_slices(void **state) {
    (void)state;
    op_case_check(13, "given x i32 2,2 = 0,1,2,3\ngiven i i64 2,2 = 0,0,1,-1\n"
                      "GatherND g x,i -> y\nwant y i32 2 = 0,3\n");
    op_case_check(11, "given x f32 2,1,2 = 0,1,2,3\ngiven i i64 2,1 = 1,0\n"
                      "GatherND g x,i -> y\nwant y f32 2,1,2 = 2,3,0,1\n");
    op_case_check(12, "given x f32 2,2,2 = 0,1,2,3,4,5,6,7\ngiven i i64 2,1 = 1,0\n"
                      "GatherND g x,i -> y | batch_dims=1\nwant y f32 2,2 = 2,3,4,5\n");
}

static void gather_nd_refuses_wrong_shapes(void **state) {
    (void)state;
    op_case_refuse(13,
                   "given x f32 2,2 = 1,2,3,4\ngiven i i64 1,3 = 0,0,0\nGatherND g x,i -> y\n"
                   "want y f32 1 = 0\n",
                   -EBADMSG, "places of 3 numbers in 2 dimensions");
    op_case_refuse(13,
                   "given x f32 2,2 = 1,2,3,4\ngiven i i64 3,1 = 0,0,0\n"
                   "GatherND g x,i -> y | batch_dims=1\nwant y f32 3 = 0,0,0\n",
                   -EBADMSG, "dimension 0 of input and indices differ");
}

#define SCATTER "given x f32 1,5 = 1,2,3,4,5\ngiven i i64 1,2 = 1,1\ngiven u f32 1,2 = 1.5,-2\n"

static void scatter_elements_reduces_what_falls_on_one_place(void **state) {
    (void)state;
    op_case_check(13, SCATTER "ScatterElements s x,i,u -> y | axis=1\n"
                              "want y f32 1,5 = 1,-2,3,4,5\n");
    op_case_check(16, SCATTER "ScatterElements s x,i,u -> y | axis=1 reduction=add\n"
                              "want y f32 1,5 = 1,1.5,3,4,5\n");
    op_case_check(16, SCATTER "ScatterElements s x,i,u -> y | axis=1 reduction=mul\n"
                              "want y f32 1,5 = 1,-6,3,4,5\n");
    op_case_check(18, SCATTER "ScatterElements s x,i,u -> y | axis=1 reduction=max\n"
                              "want y f32 1,5 = 1,2,3,4,5\n");
    op_case_check(18, SCATTER "ScatterElements s x,i,u -> y | axis=1 reduction=min\n"
                              "want y f32 1,5 = 1,-2,3,4,5\n");
    op_case_check(9, "given x i64 3,2 = 0,0,0,0,0,0\ngiven i i32 1,2 = -1,0\n"
                     "given u i64 1,2 = 7,8\nScatter s x,i,u -> y\n"
                     "want y i64 3,2 = 0,8,0,0,7,0\n");
}

static void scatter_nd_places_slices(void **state) {
    (void)state;
    op_case_check(11, "given x f32 3,2 = 0,1,2,3,4,5\ngiven i i64 2,1 = 2,0\n"
                      "given u f32 2,2 = 9,8,7,6\nScatterND s x,i,u -> y\n"
                      "want y f32 3,2 = 7,6,2,3,9,8\n");
    op_case_check(16, "given x i32 3,2 = 0,1,2,3,4,5\ngiven i i64 2,2 = 2,1,2,1\n"
                      "given u i32 2 = 10,100\nScatterND s x,i,u -> y | reduction=add\n"
                      "want y i32 3,2 = 0,1,2,3,4,115\n");
    op_case_check(18, "given x u8 3 = 3,4,5\ngiven i i64 2,1 = 0,2\ngiven u u8 2 = 9,1\n"
                      "ScatterND s x,i,u -> y | reduction=max\nwant y u8 3 = 9,4,5\n");
}

static void scatters_refuse_what_does_not_fit(void **state) {
    (void)state;
    op_case_refuse(16,
                   "given x bool 2 = 0,1\ngiven i i64 1 = 0\ngiven u bool 1 = 1\n"
                   "ScatterElements s x,i,u -> y | reduction=add\nwant y bool 2 = 1,1\n",
                   -ENOTSUP, "reduction 'add' of type bool");
    op_case_refuse(16,
                   SCATTER "ScatterElements s x,i,u -> y | reduction=sum\n"
                           "want y f32 1,5 = 1,-2,3,4,5\n",
                   -EBADMSG, "reduction 'sum' is not known");
    op_case_refuse(13,
                   SCATTER "ScatterElements s x,i,u -> y | axis=1 reduction=add\n"
                           "want y f32 1,5 = 1,-2,3,4,5\n",
                   -ENOTSUP, "attribute 'reduction' is not supported");
    op_case_refuse(13,
                   "given x f32 3,2 = 0,1,2,3,4,5\ngiven i i64 2,1 = 2,0\n"
                   "given u f32 2 = 9,8\nScatterND s x,i,u -> y\n"
                   "want y f32 3,2 = 7,6,2,3,9,8\n",
                   -EBADMSG, "the updates' shape");
    op_case_refuse(13,
                   "given x f32 3 = 0,1,2\ngiven i i64 1,1 = -4\ngiven u f32 1 = 9\n"
                   "ScatterND s x,i,u -> y\nwant y f32 3 = 0,0,0\n",
                   -EINVAL, "index -4 is not within 3 elements");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topk_takes_the_largest_with_their_places),
        cmocka_unit_test(topk_prefers_the_first_of_equal_elements),
        cmocka_unit_test(topk_of_old_opsets_has_k_elsewhere),
        cmocka_unit_test(topk_may_have_one_output_only),
        cmocka_unit_test(topk_refuses_more_than_there_is),
        cmocka_unit_test(arg_takes_any_axis_type_and_end),
        cmocka_unit_test(gather_elements_follows_its_index),
        cmocka_unit_test(gather_elements_refuses_an_index_that_does_not_fit),
        cmocka_unit_test(gather_nd_takes_elements_and_slices),
        cmocka_unit_test(gather_nd_refuses_wrong_shapes),
        cmocka_unit_test(scatter_elements_reduces_what_falls_on_one_place),
        cmocka_unit_test(scatter_nd_places_slices),
        cmocka_unit_test(scatters_refuse_what_does_not_fit),
    };
    return cmocka_run_group_tests_name("operators that pick and place", tests, NULL, NULL);
}
