#include "ctl/npy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A folder of its own for each test, emptied afterwards. */
struct fixture {
    char dir[64];
    char path[128];
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/convoy-npy-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->path, sizeof(f->path), "%s/a.npy", f->dir);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    unlink(f->path);
    int rc = rmdir(f->dir);
    free(f);
    return rc;
}

/* A version 1 or 2 file with this dictionary, and data behind it. Returns its size in buf. */
static size_t make_file(char *buf, int major, const char *dictionary, const void *data,
                        size_t bytes) {
    size_t len = strlen(dictionary), head = major == 1 ? 10 : 12;
    memcpy(buf, "\x93NUMPY", 6);
    buf[6] = (char)major;
    buf[7] = 0;
    for (size_t i = 0; i < head - 8; i++)
        buf[8 + i] = (char)(len >> (8 * i));
    memcpy(buf + head, dictionary, len);
    if (bytes)
        memcpy(buf + head + len, data, bytes);
    return head + len + bytes;
}

static void write_file(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void header_of_every_version_is_read(void **state) {
    char buf[512];
    (void)state;
    for (int major = 1; major <= 3; major++) {
        struct npy_header h;
        size_t size = make_file(
            buf, major, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }      \n", NULL,
            0);
        assert_int_equal(npy_parse_header(buf, size, &h, NULL), 0);
        assert_int_equal(h.desc.dtype, DTYPE_FLOAT);
        assert_int_equal(h.desc.rank, 2);
        assert_int_equal(h.desc.dims[0], 2);
        assert_int_equal(h.desc.dims[1], 3);
        assert_false(h.fortran);
        assert_int_equal(h.data_offset, size);
    }
}

static void header_keys_come_in_any_order_and_quotes(void **state) {
    char buf[512];
    struct npy_header h;
    (void)state;
    size_t size =
        make_file(buf, 1, "{\"shape\":(7,),\"fortran_order\":True,\"descr\":\"|u1\"}", NULL, 0);
    assert_int_equal(npy_parse_header(buf, size, &h, NULL), 0);
    assert_int_equal(h.desc.dtype, DTYPE_UINT8);
    assert_int_equal(h.desc.rank, 1);
    assert_true(h.fortran);
}

static void scalar_shape_has_rank_zero(void **state) {
    char buf[512];
    struct npy_header h;
    (void)state;
    size_t size =
        make_file(buf, 1, "{'descr': '<i8', 'fortran_order': False, 'shape': ()}", NULL, 0);
    assert_int_equal(npy_parse_header(buf, size, &h, NULL), 0);
    assert_int_equal(h.desc.rank, 0);
    assert_int_equal(h.desc.dtype, DTYPE_INT64);
}

static void malformed_headers_are_refused_with_a_sentence(void **state) {
    static const struct {
        const char *dictionary;
        int code;
        const char *says;
    } cases[] = {
        {"", -EBADMSG, "dictionary"},
        {"{", -EBADMSG, "dictionary"},
        {"{}", -EBADMSG, "lacks 'descr'"},
        {"{'descr': '<f4', 'fortran_order': False}", -EBADMSG, "lacks 'shape'"},
        {"{'descr': '<f4', 'shape': (1,)}", -EBADMSG, "lacks 'fortran_order'"},
        {"{'descr': '<f4', 'descr': '<f4'}", -EBADMSG, "twice"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", -ENOTSUP, "astype('<f4')"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", -ENOTSUP, "astype('float32')"},
        {"{'descr': '', 'fortran_order': False, 'shape': (1,)}", -ENOTSUP, "type ''"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", -ENOTSUP,
         "structured"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}", -EBADMSG, "neither"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 3}", -EBADMSG, "not a tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", -EBADMSG, "no length"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1", -EBADMSG, "does not end"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", -ENOTSUP,
         "more than 8"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", -EBADMSG,
         "no length"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}", -EBADMSG,
         "no memory can hold"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", -EBADMSG, "goes on"},
        {"{'colour': '<f4'}", -EBADMSG, "unknown key 'colour'"},
        {"{'descr': 'unterminated", -ENOTSUP, "structured"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char buf[512];
        struct npy_header h;
        struct err err = {{0}};
        size_t size = make_file(buf, 1, cases[i].dictionary, NULL, 0);
        assert_int_equal(npy_parse_header(buf, size, &h, &err), cases[i].code);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%s: says '%s'", cases[i].dictionary, err.text);
    }
}

static void every_truncation_of_a_header_is_refused(void **state) {
    char buf[512];
    struct npy_header h;
    (void)state;
    size_t size =
        make_file(buf, 2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", NULL, 0);
    for (size_t n = 0; n < size; n++)
        assert_true(npy_parse_header(buf, n, &h, NULL) < 0);
}

static void oversized_header_is_refused_before_it_is_read(void **state) {
    char buf[12] = "\x93NUMPY\x02";
    struct npy_header h;
    struct err err = {{0}};
    (void)state;
    memset(buf + 8, 0xff, 4);
    assert_int_equal(npy_parse_header(buf, sizeof(buf), &h, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "at most"));
}

static void what_the_writer_wrote_the_reader_reads(void **state) {
    struct fixture *f = *state;
    struct tensor_desc item = {.dtype = DTYPE_FLOAT, .rank = 2, .dims = {1, 3}};
    static const enum npy_form forms[] = {NPY_SINGLE, NPY_STACKED, NPY_JOINED};
    static const int ranks[] = {2, 3, 2};
    for (int form = 0; form < 3; form++) {
        struct npy_writer *writer;
        struct npy_reader *reader;
        float data[6] = {1, 2, 3, 4, 5, 6}, back[6] = {0};
        int items = form == 0 ? 1 : 2;
        assert_int_equal(npy_writer_new(f->path, &item, forms[form], &writer, NULL), 0);
        for (int i = 0; i < items; i++)
            assert_int_equal(npy_writer_add(writer, data + 3 * i, 12, NULL), 0);
        assert_int_equal(npy_writer_finish(writer, NULL), 0);
        npy_writer_free(writer);

        assert_int_equal(npy_reader_new(f->path, &reader, NULL), 0);
        const struct tensor_desc *desc = npy_reader_desc(reader);
        assert_int_equal(desc->rank, ranks[form]);
        assert_int_equal(desc->dims[0], items);
        assert_int_equal(desc->dims[desc->rank - 1], 3);
        assert_int_equal(npy_reader_read(reader, 0, back, (size_t)items * 12, NULL), 0);
        assert_memory_equal(back, data, (size_t)items * 12);
        assert_int_equal(npy_reader_read(reader, 4, back, (size_t)items * 12, NULL), -EINVAL);
        npy_reader_free(reader);
    }
}

static void unfinished_file_leaves_nothing_behind(void **state) {
    struct fixture *f = *state;
    struct tensor_desc item = {.dtype = DTYPE_UINT8, .rank = 1, .dims = {2}};
    struct npy_writer *writer;
    assert_int_equal(npy_writer_new(f->path, &item, NPY_STACKED, &writer, NULL), 0);
    assert_int_equal(npy_writer_add(writer, "ab", 2, NULL), 0);
    npy_writer_free(writer);
    assert_int_equal(access(f->path, F_OK), -1);
    /* and tear_down's rmdir() fails should a temporary file be left */
}

static void single_file_takes_exactly_one_item(void **state) {
    struct fixture *f = *state;
    struct tensor_desc item = {.dtype = DTYPE_UINT8, .rank = 1, .dims = {2}};
    struct npy_writer *writer;
    assert_int_equal(npy_writer_new(f->path, &item, NPY_SINGLE, &writer, NULL), 0);
    assert_int_equal(npy_writer_finish(writer, NULL), -EINVAL);
    assert_int_equal(npy_writer_add(writer, "abc", 3, NULL), -EINVAL);
    assert_int_equal(npy_writer_add(writer, "ab", 2, NULL), 0);
    assert_int_equal(npy_writer_add(writer, "ab", 2, NULL), -EINVAL);
    npy_writer_free(writer);
}

static void fortran_order_is_handed_out_in_c_order(void **state) {
    struct fixture *f = *state;
    char buf[512];
    /* a[i][j][k] = 100 i + 10 j + k of shape (2, 3, 2), first index fastest */
    int32_t stored[12], back[12];
    struct npy_reader *reader;
    for (int k = 0, n = 0; k < 2; k++)
        for (int j = 0; j < 3; j++)
            for (int i = 0; i < 2; i++)
                stored[n++] = 100 * i + 10 * j + k;
    size_t size =
        make_file(buf, 1, "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3, 2), }\n", stored,
                  sizeof(stored));
    write_file(f->path, buf, size);
    assert_int_equal(npy_reader_new(f->path, &reader, NULL), 0);
    assert_int_equal(npy_reader_read(reader, 0, back, sizeof(back), NULL), 0);
    for (int i = 0, n = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 2; k++)
                assert_int_equal(back[n++], 100 * i + 10 * j + k);
    npy_reader_free(reader);
}

static void file_of_another_size_than_its_shape_is_refused(void **state) {
    struct fixture *f = *state;
    char buf[512];
    struct npy_reader *reader;
    for (size_t bytes = 0; bytes <= 9; bytes++) {
        struct err err = {{0}};
        size_t size =
            make_file(buf, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n",
                      "123456789", bytes);
        write_file(f->path, buf, size);
        if (bytes == 8) {
            assert_int_equal(npy_reader_new(f->path, &reader, &err), 0);
            npy_reader_free(reader);
        } else {
            assert_int_equal(npy_reader_new(f->path, &reader, &err), -EBADMSG);
            assert_non_null(strstr(err.text, f->path));
            assert_non_null(strstr(err.text, "needs 8 bytes"));
        }
    }
}

static void missing_file_and_folder_are_refused(void **state) {
    struct fixture *f = *state;
    struct npy_reader *reader;
    struct err err = {{0}};
    assert_int_equal(npy_reader_new(f->path, &reader, &err), -ENOENT);
    assert_non_null(strstr(err.text, "No such file"));
    assert_int_equal(npy_reader_new(f->dir, &reader, &err), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_of_every_version_is_read),
        cmocka_unit_test(header_keys_come_in_any_order_and_quotes),
        cmocka_unit_test(scalar_shape_has_rank_zero),
        cmocka_unit_test(malformed_headers_are_refused_with_a_sentence),
        cmocka_unit_test(every_truncation_of_a_header_is_refused),
        cmocka_unit_test(oversized_header_is_refused_before_it_is_read),
        cmocka_unit_test_setup_teardown(what_the_writer_wrote_the_reader_reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unfinished_file_leaves_nothing_behind, set_up, tear_down),
        cmocka_unit_test_setup_teardown(single_file_takes_exactly_one_item, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fortran_order_is_handed_out_in_c_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(file_of_another_size_than_its_shape_is_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(missing_file_and_folder_are_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
