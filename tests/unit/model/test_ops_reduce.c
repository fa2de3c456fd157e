/* Reductions in every form: axes as attribute and as input, empty axes, empty tensors, types. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define GRID "given x f32 2,3 = 1,-2,3,4,5,-6\n"

static void axes_are_an_attribute_then_an_input(void **state) {
    (void)state;
    op_case_check(11, GRID "ReduceSum r x -> y | axes=[1]\nwant y f32 2,1 = 2,3\n");
    op_case_check(13, GRID "const a i64 1 = -1\nReduceSum r x,a -> y | keepdims=0\n"
                           "want y f32 2 = 2,3\n");
    op_case_check(13, GRID "ReduceMax r x -> y | axes=[0]\nwant y f32 1,3 = 4,5,3\n");
    op_case_check(18, GRID "const a i64 1 = 0\nReduceMax r x,a -> y\nwant y f32 1,3 = 4,5,3\n");
    op_case_check(18, GRID "ReduceMean r x -> y | keepdims=0\nwant y f32 = 0.8333333\n");
}

/* What is left of a reduction without its sum. */
static void no_axes_leave_every_element_alone(void **state) {
    static const struct {
        const char *op, *y;
    } cases[] = {
        {"ReduceSum", "1,2,4"},
        {"ReduceMean", "1,2,4"},
        {"ReduceMax", "1,2,4"},
        {"ReduceProd", "1,2,4"},
        {"ReduceL1", "1,2,4"},
        {"ReduceL2", "1,2,4"},
        {"ReduceLogSumExp", "1,2,4"},
        {"ReduceSumSquare", "1,4,16"},
        {"ReduceLogSum", "0,0.6931472,1.3862944"},
    };
    char text[256];
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text),
                 "given x f32 3 = 1,2,4\nconst a i64 0 =\n"
                 "%s r x,a -> y | noop_with_empty_axes=1\nwant y f32 3 = %s\n",
                 cases[i].op, cases[i].y);
        op_case_check(18, text);
    }
    op_case_check(18, "given x f32 3 = 1,2,4\nconst a i64 0 =\nReduceSum r x,a -> y\n"
                      "want y f32 1 = 7\n");
}

static void reducing_nothing_gives_the_neutral_element(void **state) {
    static const struct {
        const char *op, *y;
    } cases[] = {
        {"ReduceSum", "0,0"},      {"ReduceProd", "1,1"},         {"ReduceL1", "0,0"},
        {"ReduceL2", "0,0"},       {"ReduceSumSquare", "0,0"},    {"ReduceMax", "-inf,-inf"},
        {"ReduceMin", "inf,inf"},  {"ReduceLogSum", "-inf,-inf"}, {"ReduceLogSumExp", "-inf,-inf"},
        {"ReduceMean", "nan,nan"},
    };
    char text[256];
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text),
                 "given x f32 2,0 =\nconst a i64 1 = 1\n%s r x,a -> y\nwant y f32 2,1 = %s\n",
                 cases[i].op, cases[i].y);
        op_case_check_constant(18, text);
    }
    op_case_check_constant(20, "given x bool 1,0 =\nconst a i64 1 = 1\nReduceMax r x,a -> y\n"
                               "want y bool 1,1 = 0\n");
    op_case_check_constant(18, "given x i32 1,0 =\nconst a i64 1 = 1\nReduceMin r x,a -> y\n"
                               "want y i32 1,1 = 2147483647\n");
}

static void every_type_is_reduced(void **state) {
    (void)state;
    op_case_check(13, "given x f64 2 = 1000,1000\nReduceLogSumExp r x -> y\n"
                      "want y f64 1 = 1000.6931472\n");
    op_case_check(13, "given x u8 3 = 3,250,7\nReduceMax r x -> y\nwant y u8 1 = 250\n");
    op_case_check(18, "given x i8 3 = 3,-100,7\nReduceMin r x -> y\nwant y i8 1 = -100\n");
    op_case_check(20, "given x bool 2,2 = 1,0,0,0\nconst a i64 1 = 1\nReduceMax r x,a -> y\n"
                      "want y bool 2,1 = 1,0\n");
    op_case_check(13, "given x i64 3 = 3,4,-5\nReduceMean r x -> y\nwant y i64 1 = 0\n");
    op_case_refuse(18, "given x bool 1 = 1\nReduceSum r x -> y\nwant y bool 1 = 1\n", -ENOTSUP,
                   "type bool is not supported");
    op_case_refuse(18, "given x i32 1 = 1\nReduceLogSumExp r x -> y\nwant y i32 1 = 1\n", -ENOTSUP,
                   "type int32 is not supported");
    op_case_refuse(18, GRID "const a i64 1 = 2\nReduceSum r x,a -> y\nwant y f32 1 = 1\n", -EBADMSG,
                   "axis 2 of a tensor with 2 dimensions");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(axes_are_an_attribute_then_an_input),
        cmocka_unit_test(no_axes_leave_every_element_alone),
        cmocka_unit_test(reducing_nothing_gives_the_neutral_element),
        cmocka_unit_test(every_type_is_reduced),
    };
    return cmocka_run_group_tests_name("reductions", tests, NULL, NULL);
}
