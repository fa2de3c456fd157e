/* Resize and Upsample in every form; numbers as ONNX's reference computes them. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SIXTEEN "given x f32 1,1,4,4 = 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16\n"
#define EIGHT   "given x f32 1,1,2,4 = 1,2,3,4,5,6,7,8\n"
#define FOUR    "given x f32 1,1,2,2 = 1,2,3,4\n"

static void shrinking_with_antialias_smooths(void **state) {
    (void)state;
    op_case_check(18, SIXTEEN "const s f32 4 = 1,1,0.6,0.6\n"
                              "Resize r x,-,s -> y | mode=linear antialias=1\n"
                              "want y f32 1,1,2,2 = 2.875,4.5,9.375,11\n");
    op_case_check(18, SIXTEEN "const s f32 4 = 1,1,0.6,0.6\n"
                              "Resize r x,-,s -> y | mode=cubic antialias=1\n"
                              "want y f32 1,1,2,2 = 2.518072,4.285886,9.589328,11.35714\n");
    op_case_check(18, SIXTEEN "const s f32 4 = 1,1,0.6,0.6\n"
                              "Resize r x,-,s -> y | mode=cubic antialias=1 exclude_outside=1 "
                              "cubic_coeff_a=-0.5\n"
                              "want y f32 1,1,2,2 = 2.769231,4.487133,9.640841,11.35874\n");
}

static void half_pixel_symmetric_keeps_the_centre(void **state) {
    (void)state;
    op_case_check(19, EIGHT "const s f32 4 = 1,1,1,0.6\nResize r x,-,s -> y | mode=linear "
                            "coordinate_transformation_mode=half_pixel_symmetric\n"
                            "want y f32 1,1,2,2 = 1.666667,3.333333,5.666667,7.333333\n");
    op_case_check(19, FOUR "const s f32 4 = 1,1,2.3,2.94\nResize r x,-,s -> y | mode=cubic "
                           "coordinate_transformation_mode=half_pixel_symmetric\n"
                           "want y f32 1,1,4,5 = 0.7450731,0.9729466,1.335924,1.698901,1.926775,"
                           "1.430292,1.658166,2.021143,2.384121,2.611994,2.388006,2.615879,"
                           "2.978857,3.341834,3.569708,3.073225,3.301099,3.664076,4.027053,"
                           "4.254927\n");
}

static void aspect_ratio_is_kept_when_asked(void **state) {
    (void)state;
    op_case_check(18,
                  EIGHT "const s i64 2 = 7,8\n"
                        "Resize r x,-,-,s -> y | axes=[2,3] keep_aspect_ratio_policy=not_larger\n"
                        "want y f32 1,1,4,8 = 1,1,2,2,3,3,4,4,1,1,2,2,3,3,4,4,"
                        "5,5,6,6,7,7,8,8,5,5,6,6,7,7,8,8\n");
    op_case_check(18, EIGHT "const s i64 2 = 3,1\n"
                            "Resize r x,-,-,s -> y | axes=[-1,-2] "
                            "keep_aspect_ratio_policy=not_smaller\n"
                            "want y f32 1,1,2,3 = 1,2,4,5,6,8\n");
}

static void linear_works_in_three_dimensions_and_one(void **state) {
    (void)state;
    op_case_check(13, "given x f32 1,1,2,2,2 = 0,1,2,3,4,5,6,7\nconst s f32 5 = 1,1,1.5,1.5,2\n"
                      "Resize r x,-,s -> y | mode=linear\n"
                      "want y f32 1,1,3,3,4 = 0,0.25,0.75,1,1,1.25,1.75,2,2,2.25,2.75,3,"
                      "2,2.25,2.75,3,3,3.25,3.75,4,4,4.25,4.75,5,"
                      "4,4.25,4.75,5,5,5.25,5.75,6,6,6.25,6.75,7\n");
    op_case_check(13, "given x f32 2 = 1,5\nconst s i64 1 = 4\n"
                      "Resize r x,-,-,s -> y | mode=linear "
                      "coordinate_transformation_mode=align_corners\n"
                      "want y f32 4 = 1,2.333333,3.666667,5\n");
}

/* Pictures with channels last: the two axes in the middle. */
static void axes_in_the_middle_are_resized(void **state) {
    (void)state;
    op_case_check(18, "given x f32 1,2,1,2 = 1,10,3,30\nconst s f32 2 = 2,2\n"
                      "Resize r x,-,s -> y | mode=linear axes=[1,2]\n"
                      "want y f32 1,4,2,2 = 1,10,1,10,1.5,15,1.5,15,2.5,25,2.5,25,3,30,3,30\n");
}

static void crops_fill_what_lies_outside(void **state) {
    (void)state;
    op_case_check(11, SIXTEEN "const roi f32 8 = 0,0,0.4,0.6,1,1,0.6,0.8\nconst n f32 0 =\n"
                              "const s i64 4 = 1,1,3,3\n"
                              "Resize r x,roi,n,s -> y | mode=linear "
                              "coordinate_transformation_mode=tf_crop_and_resize\n"
                              "want y f32 1,1,3,3 = 7.6,7.9,8.2,8.8,9.1,9.4,10,10.3,10.6\n");
    op_case_check(18, SIXTEEN "const roi f64 4 = 0.6,0.4,1.7,1.2\nconst s i64 2 = 3,3\n"
                              "Resize r x,roi,-,s -> y | mode=linear axes=[2,3] "
                              "extrapolation_value=10.0 "
                              "coordinate_transformation_mode=tf_crop_and_resize\n"
                              "want y f32 1,1,3,3 = 9.4,10.6,10,10,10,10,10,10,10\n");
    /* Opset 11 demands a roi; exporters leave it out where nothing is cropped. */
    op_case_check(11, "given x f32 2 = 1,2\nconst s f32 1 = 2.0\nResize r x,-,s -> y | "
                      "coordinate_transformation_mode=asymmetric\nwant y f32 4 = 1,1,2,2\n");
    op_case_check(13, "given x u8 3 = 1,2,3\nconst roi f32 2 = -1,1\nconst s i64 1 = 5\n"
                      "Resize r x,roi,-,s -> y | extrapolation_value=9.0 "
                      "coordinate_transformation_mode=tf_crop_and_resize\n"
                      "want y u8 5 = 9,9,1,2,3\n");
}

static void other_types_are_rounded(void **state) {
    (void)state;
    op_case_check(13, "given x u8 1,1,1,2 = 0,255\nconst s f32 4 = 1,1,1,2\n"
                      "Resize r x,-,s -> y | mode=linear\nwant y u8 1,1,1,4 = 0,64,191,255\n");
    op_case_check(13, "given x f64 2 = 0,1\nconst s f32 1 = 2\n"
                      "Resize r x,-,s -> y | mode=linear\nwant y f64 4 = 0,0.25,0.75,1\n");
    op_case_check(10, "given x i64 2 = 7,9\nconst s f32 1 = 2\nResize r x,s -> y\n"
                      "want y i64 4 = 7,7,9,9\n");
}

static void upsample_keeps_corners_where_they_were(void **state) {
    (void)state;
    op_case_check(7, FOUR "Upsample u x -> y | scales=[1.0,1.0,1.0,2.0] mode=linear\n"
                          "want y f32 1,1,2,4 = 1,1.5,2,2,3,3.5,4,4\n");
    op_case_check(9, FOUR "const s f32 4 = 1,1,1,2\nUpsample u x,s -> y\n"
                          "want y f32 1,1,2,4 = 1,1,2,2,3,3,4,4\n");
    op_case_refuse(10, FOUR "const s f32 4 = 1,1,1,2\nUpsample u x,s -> y\nwant y f32 1 = 0\n",
                   -ENOTSUP, "Upsample of opsets 7 to 9 is");
}

static void contradictions_are_refused(void **state) {
    (void)state;
#define WANT "\nwant y f32 1 = 0\n"
    op_case_refuse(13, FOUR "const s f32 2 = 2,2\nResize r x,-,s -> y" WANT, -EBADMSG,
                   "2 scales or sizes for 4 dimensions");
    op_case_refuse(18, FOUR "const s f32 2 = 2,2\nResize r x,-,s -> y | axes=[1,1]" WANT, -EBADMSG,
                   "axis 1 is listed twice");
    op_case_refuse(18, FOUR "const s f32 4 = 1,1,2,2\nResize r x,-,s -> y | antialias=1" WANT,
                   -EBADMSG, "antialias cannot go with mode nearest");
    op_case_refuse(13, FOUR "const s f32 4 = 1,1,0.1,2\nResize r x,-,s -> y" WANT, -EBADMSG,
                   "a dimension of 2 would be scaled by 0.1");
    op_case_refuse(13, FOUR "const s f32 4 = 1,1,nan,2\nResize r x,-,s -> y" WANT, -EBADMSG,
                   "scaled by nan");
    op_case_refuse(13, FOUR "given s f32 4 = 1,1,2,2\nResize r x,-,s -> y" WANT, -ENOTSUP,
                   "must be known");
    op_case_refuse(13,
                   FOUR "const s f32 4 = 1,1,2,2\nResize r x,-,s -> y | "
                        "coordinate_transformation_mode=elsewhere" WANT,
                   -EBADMSG, "coordinate_transformation_mode 'elsewhere' is not known");
    op_case_refuse(13,
                   FOUR "const s f32 4 = 1,1,2,2\nconst r f32 3 = 0,0,1\n"
                        "Resize r x,r,s -> y | "
                        "coordinate_transformation_mode=tf_crop_and_resize" WANT,
                   -EBADMSG, "roi has 3 numbers for 4 dimensions");
    op_case_refuse(13,
                   "given x bool 2 = 0,1\nconst s f32 1 = 2\n"
                   "Resize r x,-,s -> y | mode=linear" WANT,
                   -ENOTSUP, "type bool is not supported");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shrinking_with_antialias_smooths),
        cmocka_unit_test(half_pixel_symmetric_keeps_the_centre),
        cmocka_unit_test(aspect_ratio_is_kept_when_asked),
        cmocka_unit_test(linear_works_in_three_dimensions_and_one),
        cmocka_unit_test(axes_in_the_middle_are_resized),
        cmocka_unit_test(crops_fill_what_lies_outside),
        cmocka_unit_test(other_types_are_rounded),
        cmocka_unit_test(upsample_keeps_corners_where_they_were),
        cmocka_unit_test(contradictions_are_refused),
    };
    return cmocka_run_group_tests_name("Resize and Upsample", tests, NULL, NULL);
}
