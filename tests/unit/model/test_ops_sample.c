/* GridSample against PyTorch's numbers (cubic: ONNX's reference, which moves coordinates before it
 * takes their neighbours), RoiAlign against ONNX's reference. */
#include "tests/lib/op_case.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define PICTURES "given x f32 1,2,2,3 = 1,2,3,4,5,6,7,8,9,10,11,12\n"
#define GRID     "given g f32 1,1,4,2 = -1,-1,0.3,-0.4,1.7,0.2,-2.5,3.1\n"

static void grids_sample_in_every_mode(void **state) {
    static const struct {
        const char *mode, *pad;
        int align;
        const char *y;
    } cases[] = {
        {"linear", "zeros", 0, "0.25,2.75,0,0,1.75,8.75,0,0"},
        {"linear", "zeros", 1, "1,3.2,1.44,0,7,9.2,3.24,0"},
        {"linear", "border", 0, "1,2.75,5.1,4,7,8.75,11.1,10"},
        {"linear", "border", 1, "1,3.2,4.8,4,7,9.2,10.8,10"},
        {"linear", "reflection", 0, "1,2.75,4.55,2.75,7,8.75,10.55,8.75"},
        {"linear", "reflection", 1, "1,3.2,4.1,2.65,7,9.2,10.1,8.65"},
        {"nearest", "zeros", 0, "1,2,0,0,7,8,0,0"},
        {"nearest", "border", 0, "1,2,6,4,7,8,12,10"},
        {"nearest", "border", 1, "1,2,6,4,7,8,12,10"},
        {"nearest", "reflection", 0, "1,2,5,3,7,8,11,9"},
        {"nearest", "reflection", 1, "1,2,5,3,7,8,11,9"},
        {"cubic", "zeros", 0, "0.0625,3.273754,-0.4983681,0,1.5625,10.21377,-1.078492,0"},
        {"cubic", "zeros", 1, "1,3.954628,1.646055,0.0126914,7,11.22778,3.621374,0.03172849"},
        {"cubic", "border", 0, "0.625,2.791906,5.163,4,6.625,8.791906,11.163,10"},
        {"cubic", "border", 1, "1,3.22625,4.836,4,7,9.226251,10.836,10"},
        {"cubic", "reflection", 0,
         "0.25,2.791906,4.708906,2.268594,6.25,8.791906,10.70891,8.268594"},
        {"cubic", "reflection", 1, "1,3.0845,4.3805,2.70925,7,9.0845,10.3805,8.70925"},
    };
    char text[512];
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text),
                 PICTURES GRID "GridSample s x,g -> y | mode=%s padding_mode=%s align_corners=%d\n"
                               "want y f32 1,2,1,4 = %s\n",
                 cases[i].mode, cases[i].pad, cases[i].align, cases[i].y);
        op_case_check(20, text);
    }
}

static void grids_of_opset_sixteen_have_older_names(void **state) {
    (void)state;
    op_case_check(16, PICTURES GRID "GridSample s x,g -> y | mode=bilinear\n"
                                    "want y f32 1,2,1,4 = 0.25,2.75,0,0,1.75,8.75,0,0\n");
    op_case_check(16, PICTURES GRID "GridSample s x,g -> y | mode=bicubic padding_mode=border\n"
                                    "want y f32 1,2,1,4 = 0.625,2.79191,5.163,4,"
                                    "6.625,8.79191,11.163,10\n");
    op_case_refuse(16, PICTURES GRID "GridSample s x,g -> y | mode=cubic\nwant y f32 1 = 0\n",
                   -EBADMSG, "mode 'cubic' is not known");
}

static void grids_sample_volumes_and_lines(void **state) {
    (void)state;
#define VOLUME                                                                                     \
    "given x f32 1,1,2,2,2 = 1,2,3,4,5,6,7,8\n"                                                    \
    "given g f32 1,1,1,3,3 = -0.5,0.2,0.9,1.4,-0.3,0,0,0,0\n"
    op_case_check(20, VOLUME "GridSample s x,g -> y\nwant y f32 1,1,1,1,3 = 3.84,0.44,4.5\n");
    op_case_check(20, VOLUME "GridSample s x,g -> y | padding_mode=reflection\n"
                             "want y f32 1,1,1,1,3 = 6.4,4.4,4.5\n");
    op_case_check(20, "given x f32 1,1,3 = 1,2,4\ngiven g f32 1,2,1 = -0.5,1\n"
                      "GridSample s x,g -> y | align_corners=1\nwant y f32 1,1,2 = 1.5,4\n");
}

static void points_that_are_no_numbers_lie_outside(void **state) {
    (void)state;
    op_case_check(20, "given x f32 1,1,2 = 1,2\ngiven g f32 1,4,1 = nan,inf,-inf,1e30\n"
                      "GridSample s x,g -> y\nwant y f32 1,1,4 = 0,0,0,0\n");
    op_case_check(20, "given x f32 1,1,2 = 1,2\ngiven g f32 1,4,1 = nan,inf,-inf,1e30\n"
                      "GridSample s x,g -> y | padding_mode=border\nwant y f32 1,1,4 = 1,2,1,2\n");
    op_case_check(20, "given x f32 1,1,1 = 3\ngiven g f32 1,4,1 = nan,inf,-inf,1e30\n"
                      "GridSample s x,g -> y | padding_mode=reflection align_corners=1\n"
                      "want y f32 1,1,4 = 3,3,3,3\n");
}

static void grids_that_do_not_fit_are_refused(void **state) {
    (void)state;
    op_case_refuse(16,
                   PICTURES "given g f32 1,1,1,3 = 0,0,0\nGridSample s x,g -> y\n"
                            "want y f32 1 = 0\n",
                   -EBADMSG, "input and grid do not fit");
    op_case_refuse(16,
                   PICTURES "given g f32 2,1,1,2 = 0,0,0,0\nGridSample s x,g -> y\n"
                            "want y f32 1 = 0\n",
                   -EBADMSG, "input and grid do not fit");
    op_case_refuse(16,
                   PICTURES GRID "GridSample s x,g -> y | padding_mode=none\n"
                                 "want y f32 1 = 0\n",
                   -EBADMSG, "padding_mode 'none' is not known");
}

#define REGIONS                                                                                    \
    "given x f32 1,2,3,4 = 1,2,3,4,5,6,7,8,9,10,11,12,0,1,0,1,2,0,2,0,-1,-2,-3,-4\n"               \
    "given r f32 3,4 = 0,0,3,2,1,0.5,6,5,2,2,2,2\ngiven b i64 3 = 0,0,0\n"                         \
    "RoiAlign a x,r,b -> y | output_height=2 output_width=2 "
#define WANT "\nwant y f32 3,2,2,2 = "

static void regions_are_averaged(void **state) {
    (void)state;
    op_case_check(10, REGIONS WANT "3.75,5.25,7.75,9.25,0.6875,0.8125,-0.5,-1,9.222222,3.333333,"
                                   "0,0,-1.395833,-0.7083333,0,0,11.25,11.75,11.25,11.75,"
                                   "-3.25,-3.75,-3.25,-3.75\n");
    op_case_check(16, REGIONS WANT "1.3125,2.75,5.3125,6.75,0.3125,0.375,1.375,1.25,7.25,"
                                   "2.833333,3.583333,1.333333,-0.4131944,-0.375,-0.9166667,"
                                   "-0.4444444,0,0,0,0,0,0,0,0\n");
    op_case_check(16, REGIONS "sampling_ratio=2 coordinate_transformation_mode=half_pixel" WANT
                              "1.8125,3.25,5.3125,6.75,0.4453125,0.484375,0.90625,0.640625,7.25,"
                              "4.25,5.375,3,-0.4804688,-0.578125,-1.375,-1,8.5,8.5,8.5,8.5,"
                              "-0.75,-0.75,-0.75,-0.75\n");
}

static void regions_have_their_maximum_taken(void **state) {
    (void)state;
    op_case_check(10, REGIONS "mode=max sampling_ratio=2" WANT
                              "3.9375,4.59375,6.5625,7.21875,0.9375,1.3125,0.9375,1.3125,10.5,0,"
                              "0,0,1.171875,0,0,0,9.625,10.5,9.625,10.5,0,0,0,0\n");
    op_case_check(22, REGIONS "mode=max" WANT
                              "1.25,2.625,5,6.125,0.625,0.625,2,1.75,8.020833,10.5,9.166667,12,"
                              "1.3125,0.625,0,0,0,0,0,0,0,0,0,0\n");
}

/* A region beyond all measure costs no more than 1024 samples along a side. */
static void huge_regions_end(void **state) {
    (void)state;
    op_case_check(16, "given x f32 1,1,1,1 = 1\ngiven r f32 2,4 = 0,0,1e30,1e30,0,0,inf,nan\n"
                      "given b i64 2 = 0,0\nRoiAlign a x,r,b -> y\nwant y f32 2,1,1,1 = 0,0\n");
}

static void regions_of_other_pictures_are_refused(void **state) {
    (void)state;
#define ONE "given x f32 1,1,1,1 = 1\ngiven r f32 1,4 = 0,0,1,1\n"
    op_case_refuse(16, ONE "given b i64 1 = 1\nRoiAlign a x,r,b -> y\nwant y f32 1,1,1,1 = 0\n",
                   -EINVAL, "region 0 is of picture 1 of 1");
    op_case_refuse(16, ONE "given b i64 2 = 0,0\nRoiAlign a x,r,b -> y\nwant y f32 1 = 0\n",
                   -EBADMSG, "regions and their pictures do not fit");
    op_case_refuse(16,
                   ONE "given b i64 1 = 0\nRoiAlign a x,r,b -> y | output_height=0\n"
                       "want y f32 1 = 0\n",
                   -EBADMSG, "output_height cannot be 0");
    op_case_refuse(16,
                   ONE "given b i64 1 = 0\nRoiAlign a x,r,b -> y | mode=sum\n"
                       "want y f32 1 = 0\n",
                   -EBADMSG, "mode 'sum' is not known");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids_sample_in_every_mode),
        cmocka_unit_test(grids_of_opset_sixteen_have_older_names),
        cmocka_unit_test(grids_sample_volumes_and_lines),
        cmocka_unit_test(points_that_are_no_numbers_lie_outside),
        cmocka_unit_test(grids_that_do_not_fit_are_refused),
        cmocka_unit_test(regions_are_averaged),
        cmocka_unit_test(regions_have_their_maximum_taken),
        cmocka_unit_test(huge_regions_end),
        cmocka_unit_test(regions_of_other_pictures_are_refused),
    };
    return cmocka_run_group_tests_name("GridSample and RoiAlign", tests, NULL, NULL);
}
