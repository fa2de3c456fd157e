/* Convolution and pooling beyond two plain dimensions. The numbers wanted are PyTorch's, where
 * nothing else is said. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define VOLUME                                                                                     \
    "given x f32 1,2,3,3,3 = -5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1,"   \
    "-3,4,0,-4,3,-1,-5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1,-3,4,0,-4,3\ngiven b f32 2 = 1,-2\n"

static void volumes_are_convolved(void **state) {
    (void)state;
    op_case_check(11, VOLUME "given w f32 2,2,2,2,2 = -2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1,-3,4,0,-4,"
                             "3,-1,-5,2,-2,5,1,-3,4,0,-4,3,-1,-5\n"
                             "Conv c x,w,b -> y | strides=[2,1,1] pads=[1,0,0,1,0,0]\n"
                             "want y f32 1,2,2,2,2 = -23,3,11,-7,-22,13,6,19,35,-47,-13,-40,-3,69,"
                             "59,10\n");
    op_case_check(11, VOLUME "given w f32 2,1,2,2,2 = -2,5,1,-3,4,0,-4,3,0,-4,3,-1,-5,2,-2,5\n"
                             "Conv c x,w,b -> y | group=2 dilations=[2,1,1]\n"
                             "want y f32 1,2,1,2,2 = 12,7,19,-41,-64,54,-62,56\n");
}

#define WIDE                                                                                       \
    "given x f32 1,2,4,5 = "                                                                       \
    "-5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1,-3,4,"                      \
    "0,-4,3,-1,-5,2,-2,5,1,-3,4\ngiven b f32 2 = 1,-2\n"
#define TAPS_OF_GROUPS "5,1,-3,4,0,-4,3,-1,-5,-1,-5,2,-2,5,1,-3,4,0"
#define TAPS           "5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1,-3,4,0,-4,3"

/* As constants, weights lose the taps that read padding only. */
static void taps_beyond_the_picture_add_nothing(void **state) {
    (void)state;
    op_case_check(11, WIDE "given w f32 2,2,3,3 = " TAPS ",-1,-5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,"
                           "1,-3\nConv c x,w,b -> y | pads=[5,5,5,5] dilations=[5,5]\n"
                           "want y f32 1,2,4,5 = -8,4,16,-5,7,-14,-2,10,-11,1,13,-8,4,16,-5,7,-14,"
                           "-2,10,-11,-21,6,-22,27,-1,-7,20,-8,-14,13,-15,-21,6,-22,27,-1,-7,20,"
                           "-8,-14\n");
    op_case_check(11, WIDE "given w f32 2,2,3,3 = " TAPS ",-1,-5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,"
                           "1,-3\nConv c x,w,b -> y | pads=[4,2,4,2] dilations=[4,2]\n"
                           "want y f32 1,2,4,5 = -20,-8,-13,2,-6,-26,30,-9,6,-2,1,-20,-16,-1,2,-5,"
                           "-26,32,3,6,-13,7,-22,28,28,-1,8,-24,-27,28,-11,-13,29,-27,28,1,-1,16,"
                           "-27,-27\n");
    op_case_check(11, WIDE "given w f32 2,2,3,3 = " TAPS ",-1,-5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,"
                           "1,-3\nConv c x,w,b -> y | pads=[4,6,0,0] strides=[2,3] "
                           "dilations=[2,3]\n"
                           "want y f32 1,2,2,2 = 35,-25,26,-8,-11,-25,-1,-13\n");
    op_case_check(11, WIDE "given w f32 2,1,3,3 = " TAPS_OF_GROUPS "\n"
                           "Conv c x,w,b -> y | pads=[3,3,3,3] dilations=[4,4] group=2\n"
                           "want y f32 1,2,2,3 = 1,1,1,1,1,1,3,-17,18,13,-7,-27\n");
}

/* The same, with a Pad in front of it, and a normalisation, a sum and an activation behind. */
static void taps_beyond_the_picture_leave_room_for_what_is_fused(void **state) {
    (void)state;
    op_case_check(11,
                  WIDE "given w f32 2,2,3,3 = " TAPS ",-1,-5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,"
                       "1,-3\nconst p i64 8 = 0,0,3,2,0,0,3,2\nPad pad x,p -> a\n"
                       "Conv c a,w,b -> d | pads=[2,3,2,3] dilations=[5,5]\n"
                       "const s f32 2 = 2,-1\nconst o f32 2 = 0.5,1\nconst m f32 2 = 1,-2\n"
                       "const v f32 2 = 0.25,4\n"
                       "BatchNormalization n d,s,o,m,v -> e | epsilon=0.0\n"
                       "Add sum e,x -> f\nRelu r f -> y\n"
                       "want y f32 1,2,4,5 = 0,14.5,58.5,0,25.5,0,0,36.5,0,3.5,47.5,0,14.5,58.5,"
                       "0,25.5,0,0,36.5,0,13.5,0,6,0,0,8.5,0,1,11,0,3.5,13.5,0,6,0,0,8.5,0,1,"
                       "11\n");
}

/* More of them than are looked at one by one. */
static void windows_of_thousands_of_taps_add_them_all(void **state) {
    (void)state;
    op_case_check(11, "given x f32 1,1,1,3 = 1,2,3\ngiven o f32 = 1\nconst k i64 4 = 1,1,1,3000\n"
                      "ConstantOfShape z k -> zeros\nAdd ones zeros,o -> w\n"
                      "Conv c x,w -> y | pads=[0,2999,0,1]\nwant y f32 1,1,1,4 = 1,3,6,6\n");
}

static void volumes_are_spread(void **state) {
    (void)state;
    op_case_check(11, "given x f32 1,2,2,2,2 = -5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1\n"
                      "given w f32 2,1,2,1,2 = -4,3,-1,-5,2,-2,5,1\ngiven b f32 2 = 1,2\n"
                      "ConvTranspose c x,w,b -> y | strides=[2,1,1] group=2 "
                      "output_padding=[1,0,0]\n"
                      "want y f32 1,2,5,2,3 = 21,-22,7,9,-25,16,6,24,-9,3,6,-24,-3,16,-8,-15,13,1,"
                      "0,-1,16,-3,-19,1,1,1,1,1,1,1,-6,16,-4,0,-6,12,-18,13,5,-3,-24,-3,6,-6,6,12,"
                      "-6,0,12,-6,0,27,12,3,2,2,2,2,2,2\n");
}

#define LINE                                                                                       \
    "given x f32 1,2,4 = -5,2,-2,5,1,-3,4,0\ngiven w f32 2,1,3 = 0,-4,3,-1,-5,2\n"                 \
    "ConvTranspose c x,w -> y | group=2 strides=[2] "

static void the_shape_of_what_is_spread_can_be_asked_for(void **state) {
    (void)state;
    op_case_check(11, LINE "\nwant y f32 1,2,9 = 0,20,-15,-8,6,8,-6,-20,15,-1,-5,5,15,-10,-20,8,0,"
                           "0\n");
    op_case_check(11, LINE "auto_pad=SAME_UPPER\nwant y f32 1,2,8 = 0,20,-15,-8,6,8,-6,-20,-1,-5,"
                           "5,15,-10,-20,8,0\n");
    op_case_check(11, LINE "auto_pad=SAME_LOWER\nwant y f32 1,2,8 = 20,-15,-8,6,8,-6,-20,15,-5,5,"
                           "15,-10,-20,8,0,0\n");
    op_case_check(11, LINE "output_shape=[7]\nwant y f32 1,2,7 = 20,-15,-8,6,8,-6,-20,-5,5,15,-10,"
                           "-20,8,0\n");
    op_case_check(11, LINE "output_shape=[8] auto_pad=SAME_UPPER\nwant y f32 1,2,8 = 0,20,-15,-8,6,"
                           "8,-6,-20,-1,-5,5,15,-10,-20,8,0\n");
    op_case_check(11, "given x f32 1,1,2,2 = -5,2,-2,5\ngiven w f32 1,1,2,2 = -3,4,0,-4\n"
                      "ConvTranspose c x,w -> y | strides=[2,2] dilations=[2,2]\n"
                      "want y f32 1,1,5,5 = 15,0,-26,0,8,0,0,0,0,0,6,0,-3,0,12,0,0,0,0,0,0,0,8,0,"
                      "-20\n");
}

#define BLOCK "given x f32 1,1,2,3,3 = -5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1,-3,4\n"

static void volumes_are_pooled(void **state) {
    (void)state;
    op_case_check(12, BLOCK "MaxPool p x -> y,i | kernel_shape=[2,2,2]\n"
                            "want y f32 1,1,1,2,2 = 5,5,5,5\nwant i i64 1,1,1,2,2 = 3,14,3,14\n");
    op_case_check(12, BLOCK "MaxPool p x -> y,i | kernel_shape=[2,2,2] storage_order=1\n"
                            "want y f32 1,1,1,2,2 = 5,5,5,5\nwant i i64 1,1,1,2,2 = 2,15,2,15\n");
    op_case_check(11, BLOCK "AveragePool p x -> y | kernel_shape=[2,2,2] pads=[1,0,0,1,0,0]\n"
                            "want y f32 1,1,3,2,2 = 0.75,-0.5,2.5,-1.5,0.625,-0.625,1,-0.25,0.5,"
                            "-0.75,-0.5,1\n");
    op_case_check(1, BLOCK "GlobalMaxPool p x -> y\nwant y f32 1,1,1,1,1 = 5\n");
}

#define PLANE "given x f32 1,1,4,4 = -5,2,-2,5,1,-3,4,0,-4,3,-1,-5,2,-2,5,1\n"

static void norms_of_windows_are_pooled(void **state) {
    (void)state;
    op_case_check(11, PLANE "LpPool p x -> y | kernel_shape=[2,2]\n"
                            "want y f32 1,1,3,3 = 6.244998,5.744563,6.708204,5.916080,5.916080,"
                            "6.480741,5.744563,6.244998,7.211103\n");
    op_case_check(2, PLANE "LpPool p x -> y | kernel_shape=[2,2] strides=[2,2] p=3\n"
                           "want y f32 1,1,2,2 = 5.440122,5.818648,4.747459,6.316360\n");
    op_case_check(1, PLANE "LpPool p x -> y | kernel_shape=[1,4] p=1.0\n"
                           "want y f32 1,1,4,1 = 14,8,13,10\n");
    op_case_check(18, PLANE "LpPool p x -> y | kernel_shape=[1,3] strides=[4,2] ceil_mode=1 p=1\n"
                            "want y f32 1,1,1,2 = 9,7\n");
    op_case_check(18, PLANE "LpPool p x -> y | kernel_shape=[1,2] strides=[4,1] dilations=[1,3] "
                            "p=1\nwant y f32 1,1,1,1 = 10\n");
    op_case_check(2, BLOCK "GlobalLpPool p x -> y | p=3\nwant y f32 1,1,1,1,1 = 9.31401\n");
    op_case_refuse(11,
                   "input x f32 1,1,4,4\nLpPool p x -> y | kernel_shape=[2,2] p=0\n"
                   "want y f32 1 = 0\n",
                   -EBADMSG, "p cannot be 0");
}

static void maxima_have_the_types_of_onnx(void **state) {
    (void)state;
    op_case_check(12, "given x u8 1,1,4 = 1,200,3,255\nMaxPool p x -> y | kernel_shape=[2]\n"
                      "want y u8 1,1,3 = 200,200,255\n");
    op_case_check(12, "given x i8 1,1,4 = -1,-100,-3,-128\nMaxPool p x -> y,i | kernel_shape=[2] "
                      "pads=[1,0]\nwant y i8 1,1,4 = -1,-1,-3,-3\nwant i i64 1,1,4 = 0,0,2,2\n");
    op_case_check(12, "given x f64 1,1,3 = 1,2,3\nMaxPool p x -> y | kernel_shape=[2]\n"
                      "want y f64 1,1,2 = 2,3\n");
    op_case_refuse(12, "input x i32 1,1,3\nMaxPool p x -> y | kernel_shape=[2]\nwant y i32 1 = 0\n",
                   -ENOTSUP, "type int32");
}

/* ceil_mode adds a window for what is left, but none that would begin in the padding behind. */
static void no_window_begins_behind_the_picture(void **state) {
    (void)state;
    op_case_check(22, "given x f32 1,1,4 = 1,2,3,4\nMaxPool p x -> y | kernel_shape=[1] "
                      "strides=[2] ceil_mode=1\nwant y f32 1,1,2 = 1,3\n");
    op_case_check(22, "given x f32 1,1,5 = 1,2,3,4,5\nAveragePool p x -> y | kernel_shape=[3] "
                      "strides=[3] pads=[0,1] ceil_mode=1 count_include_pad=1\n"
                      "want y f32 1,1,2 = 2,3\n");
    op_case_check(22, "given x f32 1,1,2 = 1,2\nMaxPool p x -> y | kernel_shape=[2] strides=[3] "
                      "pads=[1,1] ceil_mode=1\nwant y f32 1,1,1 = 1\n");
}

#define UNPOOL "given x f32 1,1,2,2 = 5,6,7,8\n"

static void maxima_go_back_to_their_places(void **state) {
    (void)state;
    op_case_check(11, UNPOOL "given i i64 1,1,2,2 = 5,7,13,15\n"
                             "MaxUnpool u x,i -> y | kernel_shape=[2,2] strides=[2,2]\n"
                             "want y f32 1,1,4,4 = 0,0,0,0,0,5,0,6,0,0,0,0,0,7,0,8\n");
    op_case_check(11, UNPOOL "given i i64 1,1,2,2 = 5,7,13,15\nconst s i64 4 = 1,1,4,5\n"
                             "MaxUnpool u x,i,s -> y | kernel_shape=[2,2] strides=[2,2]\n"
                             "want y f32 1,1,4,5 = 0,0,0,0,0,0,5,0,6,0,0,0,0,0,0,0,7,0,8,0\n");
    op_case_refuse(11,
                   UNPOOL "given i i64 1,1,2,2 = 5,7,13,16\n"
                          "MaxUnpool u x,i -> y | kernel_shape=[2,2] strides=[2,2]\n"
                          "want y f32 1,1,4,4 = 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\n",
                   -EINVAL, "an index lies outside");
    op_case_refuse(11,
                   "input x f32 1,1,2,2\ninput i i64 1,1,2,3\n"
                   "MaxUnpool u x,i -> y | kernel_shape=[2,2]\nwant y f32 1 = 0\n",
                   -EBADMSG, "different shapes");
    op_case_refuse(11,
                   "input x f32 1,1,2,2\ninput i i64 1,1,2,2\nconst s i64 4 = 1,1,2,3\n"
                   "MaxUnpool u x,i,s -> y | kernel_shape=[2,2]\nwant y f32 1 = 0\n",
                   -EBADMSG, "dimension 2 of output_shape cannot be 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_are_convolved),
        cmocka_unit_test(taps_beyond_the_picture_add_nothing),
        cmocka_unit_test(taps_beyond_the_picture_leave_room_for_what_is_fused),
        cmocka_unit_test(windows_of_thousands_of_taps_add_them_all),
        cmocka_unit_test(volumes_are_spread),
        cmocka_unit_test(the_shape_of_what_is_spread_can_be_asked_for),
        cmocka_unit_test(volumes_are_pooled),
        cmocka_unit_test(norms_of_windows_are_pooled),
        cmocka_unit_test(maxima_have_the_types_of_onnx),
        cmocka_unit_test(no_window_begins_behind_the_picture),
        cmocka_unit_test(maxima_go_back_to_their_places),
    };
    return cmocka_run_group_tests_name("windows", tests, NULL, NULL);
}
