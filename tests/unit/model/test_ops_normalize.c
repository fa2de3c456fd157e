/* Operators that normalize, and functions of one element that few networks use. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define PICTURE "given x f32 1,2,1,3 = -1,0,1,2,3,4\n"

static void instance_normalization_works_channel_by_channel(void **state) {
    (void)state;
    op_case_check(6, PICTURE "given s f32 2 = 1,1.5\ngiven b f32 2 = 0,1\n"
                             "InstanceNormalization n x,s,b -> y | epsilon=0.01\n"
                             "want y f32 1,2,1,3 = -1.215666,0,1.215666,-0.823498,1,2.823498\n");
    op_case_refuse(6,
                   PICTURE "given s f32 3 = 1,1,1\ngiven b f32 2 = 0,1\n"
                           "InstanceNormalization n x,s,b -> y\nwant y f32 1 = 0\n",
                   -EBADMSG, "input 1 does not have 2 elements");
}

#define GROUPS "given x f32 1,4,2 = 0,2,4,6,1,1,3,3\n"

static void group_normalization_has_scales_of_groups_or_channels(void **state) {
    (void)state;
    op_case_check(18, GROUPS "given s f32 2 = 1,2\ngiven b f32 2 = 0,1\n"
                             "GroupNormalization n x,s,b -> y | num_groups=2 epsilon=0.0\n"
                             "want y f32 1,4,2 = -1.3416408,-0.4472136,0.4472136,1.3416408,"
                             "-1,-1,3,3\n");
    op_case_check(21, GROUPS "given s f32 4 = 1,2,3,4\ngiven b f32 4 = 0,1,2,3\n"
                             "GroupNormalization n x,s,b -> y | num_groups=2 epsilon=0.0\n"
                             "want y f32 1,4,2 = -1.3416408,-0.4472136,1.8944272,3.6832816,"
                             "-1,-1,7,7\n");
    op_case_refuse(21,
                   GROUPS "given s f32 4 = 1,2,3,4\ngiven b f32 4 = 0,1,2,3\n"
                          "GroupNormalization n x,s,b -> y | num_groups=3\nwant y f32 1 = 0\n",
                   -EBADMSG, "4 channels cannot be divided into 3 groups");
}

static void layer_normalization_gives_what_it_found_too(void **state) {
    (void)state;
    op_case_check(17,
                  "given x f32 2,2 = 1,3,-2,6\ngiven s f32 2 = 1,2\ngiven b f32 2 = 0,1\n"
                  "LayerNormalization n x,s,b -> y,m,d | epsilon=0.0\n"
                  "want y f32 2,2 = -1,3,-1,3\nwant m f32 2,1 = 2,2\nwant d f32 2,1 = 1,0.25\n");
    op_case_check(17, "given x f32 2,2 = 1,3,1,3\ngiven s f32 2,1 = 1,2\n"
                      "LayerNormalization n x,s -> y | axis=0 epsilon=0.0\n"
                      "want y f32 2,2 = -1,1,-2,2\n");
    op_case_refuse(17,
                   "given x f32 2,2 = 1,3,1,3\ngiven s f32 3 = 1,2,3\n"
                   "LayerNormalization n x,s -> y\nwant y f32 1 = 0\n",
                   -EBADMSG, "input 1 cannot be broadcast");
    op_case_check(17, "given x f32 2,2 = 1,3,1,3\ngiven s f32 2 = 1,2\n"
                      "LayerNormalization n x,s -> -,m\nwant m f32 2,1 = 2,2\n");
}

static void mean_variance_normalization_takes_any_axes(void **state) {
    (void)state;
    op_case_check(13, "given x f32 2,2,1,1 = 1,10,3,10\nMeanVarianceNormalization n x -> y\n"
                      "want y f32 2,2,1,1 = -1,0,1,0\n");
    op_case_check(9, "given x f32 2,2 = 1,3,2,6\nMeanVarianceNormalization n x -> y | axes=[-1]\n"
                     "want y f32 2,2 = -1,1,-1,1\n");
    op_case_refuse(9,
                   "given x f32 2,2 = 1,3,2,6\nMeanVarianceNormalization n x -> y\n"
                   "want y f32 1 = 0\n",
                   -EBADMSG, "axis 2");
}

/* 2^60 rows of no elements: walking them would take for ever. A 32-bit computer cannot count them.
 */
static void nothing_is_computed_where_there_is_nothing(void **state) {
    (void)state;
    if (sizeof(size_t) < 8)
        skip();
    op_case_check(13, "given x f32 1 = 5\nconst d i64 3 = 1073741824,1073741824,0\n"
                      "Expand e x,d -> a\nLpNormalization n a -> y | axis=0\n"
                      "want y f32 1073741824,1073741824,0 =\n");
}

static void lp_normalization_leaves_nothing_at_zero(void **state) {
    (void)state;
    op_case_check(1, "given x f32 2,2 = 3,0,4,0\nLpNormalization n x -> y | axis=0\n"
                     "want y f32 2,2 = 0.6,0,0.8,0\n");
    op_case_check(22, "given x f32 2,2 = 3,-1,4,0\nLpNormalization n x -> y | p=1\n"
                      "want y f32 2,2 = 0.75,-0.25,1,0\n");
    op_case_refuse(22, "given x f32 1 = 3\nLpNormalization n x -> y | p=3\nwant y f32 1 = 0\n",
                   -EBADMSG, "p cannot be 3");
}

#define NORM                                                                                       \
    "given x f32 1,2,2 = 1,2,3,4\ngiven s f32 2 = 1,2\ngiven b f32 2 = 0,1\n"                      \
    "given m f32 2 = 1,3\ngiven v f32 2 = 4,1\n"

static void batch_normalization_of_every_opset(void **state) {
    (void)state;
    op_case_check(6, NORM "BatchNormalization n x,s,b,m,v -> y | is_test=1 epsilon=0.0\n"
                          "want y f32 1,2,2 = 0,0.5,1,3\n");
    op_case_check(15, NORM "BatchNormalization n x,s,b,m,v -> y | epsilon=0.0\n"
                           "want y f32 1,2,2 = 0,0.5,1,3\n");
    op_case_check(7, "given x f32 1,2,2 = 1,2,3,4\ngiven s f32 2,2 = 1,2,3,4\n"
                     "given b f32 2,2 = 0,1,2,3\ngiven m f32 2,2 = 1,1,1,1\n"
                     "given v f32 2,2 = 1,1,4,4\n"
                     "BatchNormalization n x,s,b,m,v -> y | spatial=0 epsilon=0.0\n"
                     "want y f32 1,2,2 = 0,3,5,9\n");
    op_case_refuse(6, NORM "BatchNormalization n x,s,b,m,v -> y | is_test=0\nwant y f32 1 = 0\n",
                   -ENOTSUP, "training_mode is not supported");
    op_case_refuse(7, NORM "BatchNormalization n x,s,b,m,v -> y | spatial=0\nwant y f32 1 = 0\n",
                   -EBADMSG, "input 1 does not have 4 elements");
}

/* Scales that differ within a channel are not folded into the convolution before. */
static void batch_normalization_of_each_element_stays_behind_a_convolution(void **state) {
    (void)state;
    op_case_check(7, "given x f32 1,1,1,2 = 1,2\nconst w f32 2,1,1,1 = 1,10\n"
                     "const s f32 2,1,2 = 1,2,3,4\nconst b f32 2,1,2 = 0,1,2,3\n"
                     "const m f32 2,1,2 = 0,0,0,0\nconst v f32 2,1,2 = 1,1,1,1\n"
                     "Conv c x,w -> a\n"
                     "BatchNormalization n a,s,b,m,v -> y | spatial=0 epsilon=0.0\n"
                     "want y f32 1,2,1,2 = 1,5,32,83\n");
}

static void old_arithmetic_broadcasts_from_an_axis(void **state) {
    (void)state;
    op_case_check(6, "given x f32 2,3,2 = 0,0,0,0,0,0,0,0,0,0,0,0\ngiven b f32 3 = 1,2,3\n"
                     "Add a x,b -> y | broadcast=1 axis=1\n"
                     "want y f32 2,3,2 = 1,1,2,2,3,3,1,1,2,2,3,3\n");
    op_case_check(6, "given x f32 2,2 = 1,2,3,4\ngiven b f32 2 = 1,2\n"
                     "Mul a x,b -> y | broadcast=1\nwant y f32 2,2 = 1,4,3,8\n");
    op_case_check(6, "given x f32 2,2 = 1,2,3,4\ngiven b f32 = 2\nPow a x,b -> y | broadcast=1\n"
                     "want y f32 2,2 = 1,4,9,16\n");
    op_case_check(6, "given x f32 1,2,2 = -1,2,-3,4\ngiven s f32 2 = 0.5,2\nPRelu p x,s -> y\n"
                     "want y f32 1,2,2 = -0.5,2,-6,4\n");
    op_case_refuse(6,
                   "given x f32 2,2 = 1,2,3,4\ngiven b f32 2 = 1,2\nAdd a x,b -> y\n"
                   "want y f32 1 = 0\n",
                   -EBADMSG, "without broadcast");
    op_case_refuse(6,
                   "given x f32 2,2 = 1,2,3,4\ngiven b f32 2 = 1,2\n"
                   "Add a x,b -> y | broadcast=1 axis=2\nwant y f32 1 = 0\n",
                   -EBADMSG, "axis 2 for inputs of 2 and 1 dimensions");
}

/* Behind a convolution it is not taken for a bias of the last dimension. */
static void old_arithmetic_stays_what_it_is_behind_a_convolution(void **state) {
    (void)state;
    op_case_check(6, "given x f32 1,1,2,2 = 1,2,3,4\nconst w f32 2,1,1,1 = 1,10\n"
                     "const b f32 2 = 5,6\nConv c x,w -> a\n"
                     "Add s a,b -> y | broadcast=1 axis=1\n"
                     "want y f32 1,2,2,2 = 6,7,8,9,16,26,36,46\n");
}

static void infinities_are_told_apart(void **state) {
    (void)state;
#define INFINITIES "given x f32 4 = inf,-inf,nan,1\n"
    op_case_check(10, INFINITIES "IsInf i x -> y\nwant y bool 4 = 1,1,0,0\n");
    op_case_check(10, INFINITIES "IsInf i x -> y | detect_negative=0\nwant y bool 4 = 1,0,0,0\n");
    op_case_check(20, INFINITIES "IsInf i x -> y | detect_positive=0\nwant y bool 4 = 0,1,0,0\n");
    op_case_check(20, INFINITIES "IsInf i x -> y | detect_positive=0 detect_negative=0\n"
                                 "want y bool 4 = 0,0,0,0\n");
    op_case_check(13, INFINITIES "IsNaN i x -> y\nwant y bool 4 = 0,0,1,0\n");
}

static void functions_of_angles_and_their_inverses(void **state) {
    static const struct {
        const char *op, *y;
    } cases[] = {
        {"Sin", "0.47942554"},   {"Cos", "0.87758256"},  {"Tan", "0.54630249"},
        {"Asin", "0.52359878"},  {"Acos", "1.04719755"}, {"Atan", "0.46364761"},
        {"Sinh", "0.52109531"},  {"Cosh", "1.12762597"}, {"Asinh", "0.48121183"},
        {"Atanh", "0.54930614"},
    };
    char text[128];
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), "given x f32 1 = 0.5\n%s f x -> y\nwant y f32 1 = %s\n",
                 cases[i].op, cases[i].y);
        op_case_check(9, text);
    }
    op_case_check(9, "given x f64 1 = 10\nAcosh f x -> y\nwant y f64 1 = 2.99322285\n");
}

static void gelu_is_exact_or_approximated(void **state) {
    (void)state;
#define THREE "given x f32 3 = -1,0,1\n"
    op_case_check(20, THREE "Gelu g x -> y\nwant y f32 3 = -0.15865526,0,0.84134475\n");
    op_case_check(20, THREE "Gelu g x -> y | approximate=tanh\n"
                            "want y f32 3 = -0.15880803,0,0.84119199\n");
    op_case_refuse(20, THREE "Gelu g x -> y | approximate=cosh\nwant y f32 1 = 0\n", -EBADMSG,
                   "approximate 'cosh' is not known");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instance_normalization_works_channel_by_channel),
        cmocka_unit_test(group_normalization_has_scales_of_groups_or_channels),
        cmocka_unit_test(layer_normalization_gives_what_it_found_too),
        cmocka_unit_test(mean_variance_normalization_takes_any_axes),
        cmocka_unit_test(nothing_is_computed_where_there_is_nothing),
        cmocka_unit_test(lp_normalization_leaves_nothing_at_zero),
        cmocka_unit_test(batch_normalization_of_every_opset),
        cmocka_unit_test(batch_normalization_of_each_element_stays_behind_a_convolution),
        cmocka_unit_test(old_arithmetic_broadcasts_from_an_axis),
        cmocka_unit_test(old_arithmetic_stays_what_it_is_behind_a_convolution),
        cmocka_unit_test(infinities_are_told_apart),
        cmocka_unit_test(functions_of_angles_and_their_inverses),
        cmocka_unit_test(gelu_is_exact_or_approximated),
    };
    return cmocka_run_group_tests_name("operators that normalize", tests, NULL, NULL);
}
