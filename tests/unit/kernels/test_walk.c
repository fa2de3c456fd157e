#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kernels/internal.h"

static void neighbours_that_walk_as_one_are_joined(void **state) {
    const struct kn_shape shape = {.rank = 4, .dims = {2, 3, 1, 5}};
    const int64_t *const dense[] = {NULL, NULL};
    struct kn_walk walk;

    (void)state;
    kn_walk_init(&walk, &shape, 2, dense);
    assert_int_equal(walk.rank, 1);
    assert_int_equal(walk.dims[0], 30);
    assert_int_equal(walk.strides[1][0], 1);
    assert_int_equal(kn_walk_rows(&walk), 1);
}

static void neighbours_stay_apart_when_one_operand_differs(void **state) {
    const struct kn_shape shape = {.rank = 3, .dims = {2, 3, 5}};
    const int64_t channel[] = {0, 1, 0};
    const int64_t *const strides[] = {NULL, channel};
    struct kn_walk walk;

    (void)state;
    kn_walk_init(&walk, &shape, 2, strides);
    assert_int_equal(walk.rank, 3);
    assert_int_equal(kn_walk_rows(&walk), 6);
}

static void repeated_neighbours_join(void **state) {
    const struct kn_shape shape = {.rank = 3, .dims = {2, 3, 5}};
    const int64_t scalar[] = {0, 0, 0};
    const int64_t *const strides[] = {NULL, scalar};
    struct kn_walk walk;

    (void)state;
    kn_walk_init(&walk, &shape, 2, strides);
    assert_int_equal(walk.rank, 1);
    assert_int_equal(walk.dims[0], 30);
    assert_int_equal(walk.strides[1][0], 0);
}

static void shapes_without_dimensions_are_one_element(void **state) {
    const struct kn_shape scalar = {0}, empty = {.rank = 2, .dims = {3, 0}};
    const int64_t *const dense[] = {NULL};
    struct kn_walk walk;

    (void)state;
    kn_walk_init(&walk, &scalar, 1, dense);
    assert_int_equal(walk.dims[0], 1);
    assert_int_equal(kn_walk_rows(&walk), 1);
    kn_walk_init(&walk, &empty, 1, dense);
    assert_int_equal(kn_walk_rows(&walk), 0);
}

static void starting_anywhere_meets_stepping_there(void **state) {
    const struct kn_shape shape = {.rank = 4, .dims = {2, 3, 4, 5}};
    const int64_t a[] = {1, 2, 6, 24}, b[] = {0, 7, 0, -3};
    const int64_t *const strides[] = {a, b};
    struct kn_walk walk;
    struct kn_walk_pos stepped, started;

    (void)state;
    kn_walk_init(&walk, &shape, 2, strides);
    kn_walk_start(&walk, 0, &stepped);
    for (ptrdiff_t row = 0; row < kn_walk_rows(&walk); row++, kn_walk_next(&walk, &stepped)) {
        kn_walk_start(&walk, row, &started);
        assert_int_equal(started.offsets[0], stepped.offsets[0]);
        assert_int_equal(started.offsets[1], stepped.offsets[1]);
    }
    assert_int_equal(kn_walk_rows(&walk), 24);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_that_walk_as_one_are_joined),
        cmocka_unit_test(neighbours_stay_apart_when_one_operand_differs),
        cmocka_unit_test(repeated_neighbours_join),
        cmocka_unit_test(shapes_without_dimensions_are_one_element),
        cmocka_unit_test(starting_anywhere_meets_stepping_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
