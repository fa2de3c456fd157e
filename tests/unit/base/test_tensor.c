#include "base/tensor.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

static void types_have_sizes_and_names(void **state) {
    (void)state;
    static const struct {
        enum dtype dtype;
        size_t size;
        const char *name;
    } types[] = {
        {DTYPE_FLOAT, 4, "float32"},    {DTYPE_UINT8, 1, "uint8"},
        {DTYPE_INT8, 1, "int8"},        {DTYPE_INT32, 4, "int32"},
        {DTYPE_INT64, 8, "int64"},      {DTYPE_BOOL, 1, "bool"},
        {DTYPE_FLOAT16, 2, "float16"},  {DTYPE_DOUBLE, 8, "float64"},
        {DTYPE_NONE, 0, "unknown"},     {DTYPE_UINT16, 2, "uint16"},
        {DTYPE_INT16, 2, "int16"},      {DTYPE_UINT32, 4, "uint32"},
        {DTYPE_UINT64, 8, "uint64"},    {(enum dtype)8, 0, "unknown"},
        {(enum dtype)99, 0, "unknown"},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        assert_int_equal(dtype_size(types[i].dtype), types[i].size);
        assert_string_equal(dtype_name(types[i].dtype), types[i].name);
    }
}

static void elements_and_bytes_are_counted(void **state) {
    (void)state;
    struct tensor_desc desc = {.dtype = DTYPE_FLOAT, .rank = 4, .dims = {1, 3, 224, 224}};
    size_t count, bytes;
    assert_int_equal(tensor_desc_count(&desc, &count), 0);
    assert_int_equal(count, 150528);
    assert_int_equal(tensor_desc_bytes(&desc, &bytes), 0);
    assert_int_equal(bytes, 602112);
    desc.rank = 0;
    assert_int_equal(tensor_desc_count(&desc, &count), 0);
    assert_int_equal(count, 1);
    desc.rank = 2;
    desc.dims[1] = 0;
    assert_int_equal(tensor_desc_bytes(&desc, &bytes), 0);
    assert_int_equal(bytes, 0);
}

static void what_cannot_be_counted_is_an_error_and_writes_nothing(void **state) {
    (void)state;
    static const struct {
        struct tensor_desc desc;
        int count_rc, bytes_rc;
    } cases[] = {
        {{.dtype = DTYPE_FLOAT, .rank = 1, .dims = {-1}}, -EINVAL, -EINVAL},
        {{.dtype = DTYPE_FLOAT, .rank = 2, .dims = {-1, -1}}, -EINVAL, -EINVAL},
        {{.dtype = DTYPE_FLOAT, .rank = -1}, -EINVAL, -EINVAL},
        {{.dtype = DTYPE_FLOAT, .rank = TENSOR_MAX_RANK + 1}, -EINVAL, -EINVAL},
        {{.dtype = DTYPE_FLOAT, .rank = 2, .dims = {INT64_MAX, 4}}, -EOVERFLOW, -EOVERFLOW},
        {{.dtype = DTYPE_NONE, .rank = 1, .dims = {1}}, 0, -ENOTSUP},
#if SIZE_MAX > UINT32_MAX
        {{.dtype = DTYPE_FLOAT, .rank = 1, .dims = {INT64_MAX}}, 0, -EOVERFLOW},
#endif
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t count = 42, bytes = 42;
        assert_int_equal(tensor_desc_count(&cases[i].desc, &count), cases[i].count_rc);
        assert_int_equal(tensor_desc_bytes(&cases[i].desc, &bytes), cases[i].bytes_rc);
        assert_true((count == 42) == (cases[i].count_rc != 0));
        assert_int_equal(bytes, 42);
    }
}

static void descriptions_are_compared_without_their_names(void **state) {
    (void)state;
    struct tensor_desc a = {.name = "a", .dtype = DTYPE_FLOAT, .rank = 2, .dims = {2, 3, 9}};
    struct tensor_desc b = {.name = "b", .dtype = DTYPE_FLOAT, .rank = 2, .dims = {2, 3, 8}};
    assert_true(tensor_desc_same(&a, &b));
    b.dims[1] = 4;
    assert_false(tensor_desc_same(&a, &b));
    b.dims[1] = 3;
    b.rank = 1;
    assert_false(tensor_desc_same(&a, &b));
    b.rank = 2;
    b.dtype = DTYPE_INT32;
    assert_false(tensor_desc_same(&a, &b));
}

static void a_bounded_dimension_may_be_smaller(void **state) {
    (void)state;
    struct tensor_desc bound = {.dtype = DTYPE_INT64, .rank = 2, .dims = {100, 3}, .bounded = 1};
    struct tensor_desc desc = {.dtype = DTYPE_INT64, .rank = 2, .dims = {100, 3}};
    assert_true(tensor_desc_fits(&desc, &bound));
    desc.dims[0] = 0;
    assert_true(tensor_desc_fits(&desc, &bound));
    assert_false(tensor_desc_same(&desc, &bound));
    desc.dims[0] = 101;
    assert_false(tensor_desc_fits(&desc, &bound));
    desc.dims[0] = -1;
    assert_false(tensor_desc_fits(&desc, &bound));
    desc.dims[0] = 7;
    desc.dims[1] = 2; /* is not bounded */
    assert_false(tensor_desc_fits(&desc, &bound));
    desc.dims[1] = 3;
    desc.rank = 1;
    assert_false(tensor_desc_fits(&desc, &bound));
    desc.rank = 2;
    desc.dtype = DTYPE_INT32;
    assert_false(tensor_desc_fits(&desc, &bound));
}

static void descriptions_are_written_for_people(void **state) {
    (void)state;
    struct tensor_desc desc = {.dtype = DTYPE_FLOAT, .rank = 4, .dims = {1, 64, 56, 56}};
    char text[64];
    assert_string_equal(tensor_desc_format(&desc, text, sizeof(text)), "float32 [1,64,56,56]");
    desc.bounded = 1U << 2;
    assert_string_equal(tensor_desc_format(&desc, text, sizeof(text)), "float32 [1,64,<=56,56]");
    desc.rank = 0;
    assert_string_equal(tensor_desc_format(&desc, text, sizeof(text)), "float32 []");
}

static void a_description_that_is_too_long_is_cut(void **state) {
    (void)state;
    struct tensor_desc desc = {.dtype = DTYPE_FLOAT, .rank = 4, .dims = {1, 64, 56, 56}};
    const char *whole = "float32 [1,64,56,56]";
    for (size_t size = 1; size <= strlen(whole) + 1; size++) {
        char text[64];
        memset(text, 'z', sizeof(text));
        tensor_desc_format(&desc, text, size);
        assert_int_equal(strlen(text), size - 1);
        assert_memory_equal(text, whole, size - 1);
        assert_int_equal(text[size], 'z');
    }
}

static void buffers_are_aligned_and_readable_behind_their_end(void **state) {
    (void)state;
    for (size_t bytes = 0; bytes < 200; bytes++) {
        unsigned char *data = tensor_buffer_new(bytes);
        assert_non_null(data);
        assert_int_equal((uintptr_t)data % TENSOR_ALIGN, 0);
        memset(data, 1, bytes);
        for (size_t i = 0; i < TENSOR_ALIGN; i++)
            assert_int_equal(data[bytes + i], 0);
        tensor_buffer_free(data);
    }
    tensor_buffer_free(NULL);
}

static void lasting_buffers_are_as_good_at_every_size(void **state) {
    static const size_t sizes[] = {0, 1, 4097, (2U << 20U) - 1, 2U << 20U, (5U << 20U) + 3};
    (void)state;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        unsigned char *data = tensor_buffer_new_lasting(sizes[s]);
        assert_non_null(data);
        assert_int_equal((uintptr_t)data % TENSOR_ALIGN, 0);
        memset(data, 1, sizes[s]);
        for (size_t i = 0; i < TENSOR_ALIGN; i++)
            assert_int_equal(data[sizes[s] + i], 0);
        tensor_buffer_free(data);
    }
}

static void a_buffer_that_cannot_be_is_not_made(void **state) {
    (void)state;
    assert_null(tensor_buffer_new_lasting(SIZE_MAX));
    assert_null(tensor_buffer_new(SIZE_MAX));
    assert_null(tensor_buffer_new(SIZE_MAX - TENSOR_ALIGN + 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_sizes_and_names),
        cmocka_unit_test(elements_and_bytes_are_counted),
        cmocka_unit_test(what_cannot_be_counted_is_an_error_and_writes_nothing),
        cmocka_unit_test(descriptions_are_compared_without_their_names),
        cmocka_unit_test(a_bounded_dimension_may_be_smaller),
        cmocka_unit_test(descriptions_are_written_for_people),
        cmocka_unit_test(a_description_that_is_too_long_is_cut),
        cmocka_unit_test(buffers_are_aligned_and_readable_behind_their_end),
        cmocka_unit_test(lasting_buffers_are_as_good_at_every_size),
        cmocka_unit_test(a_buffer_that_cannot_be_is_not_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
