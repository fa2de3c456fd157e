/* Models whose numbers lie in other files. */
#include "model/graph.h"
#include "tests/models/onnx_bytes.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

/* A folder with models/, where the model lies, and beside it what a model must not read. */
struct fixture {
    char folder[64];
    char model[96];
    struct onnx_bytes file;
    struct graph *graph;
};

static void write_file(const struct fixture *f, const char *name, const void *data, size_t size) {
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", f->folder, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
}

static int set_up(void **state) {
    static const char *const folders[] = {"/models", "/models/sub", "/models-b"};
    struct fixture *f = calloc(1, sizeof(*f));
    char path[160];
    if (!f)
        return -1;
    strcpy(f->folder, "/tmp/test_import_external.XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    for (size_t i = 0; i < LENGTH(folders); i++) {
        snprintf(path, sizeof(path), "%s%s", f->folder, folders[i]);
        if (mkdir(path, 0700) < 0)
            return -1;
    }
    snprintf(f->model, sizeof(f->model), "%s/models/m.onnx", f->folder);
    write_file(f, "models/w.bin", "0123456789abcdef", 16);
    write_file(f, "models/sub/v.bin", "ABCDEFGH", 8);
    write_file(f, "models/empty.bin", "", 0);
    write_file(f, "secret.bin", "0123456789abcdef", 16);
    write_file(f, "models-b/w.bin", "0123456789abcdef", 16);
    *state = f;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    graph_free(f->graph);
    int rc = nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(f);
    return rc;
}

static void put_entry(struct onnx_bytes *file, const char *key, const char *value) {
    if (!value)
        return;
    begin_message(file, TENSOR_EXTERNAL_DATA);
    put_text(file, 1, key);
    put_text(file, 2, value);
    end_message(file);
}

/* Where a tensor says that its two floats are; NULL: it does not say. */
struct external {
    const char *location, *offset, *length;
};

static void put_external(struct onnx_bytes *file, const char *name, const char *dims,
                         struct external where) {
    begin_tensor(file, GRAPH_INITIALIZER, name, 1, dims);
    put_entry(file, "location", where.location);
    put_entry(file, "offset", where.offset);
    put_entry(file, "length", where.length);
    put_entry(file, "checksum", "is not read");
    put_int(file, TENSOR_DATA_LOCATION, 1);
    end_message(file);
}

static void begin_small(struct fixture *f) {
    memset(&f->file, 0, sizeof(f->file));
    begin_model(&f->file);
    put_value_info(&f->file, GRAPH_INPUT, "x", 1, (int64_t[]){2});
    put_value_info(&f->file, GRAPH_OUTPUT, "y", 1, (int64_t[]){2});
    put_node(&f->file, "relu", "Relu", "x", "y");
}

static int end_and_import(struct fixture *f, struct err *err) {
    end_model(&f->file);
    write_file(f, "models/m.onnx", f->file.data, f->file.size);
    return graph_import(f->model, &f->graph, err);
}

static const struct constant *find(const struct graph *graph, const char *name) {
    for (size_t i = 0; i < graph->values_count; i++)
        if (strcmp(graph->values[i]->name, name) == 0)
            return graph->values[i]->constant;
    return NULL;
}

static void external_data_is_read_in_place(void **state) {
    struct fixture *f = *state;
    struct err err = {""};
    begin_small(f);
    put_external(&f->file, "all", "4", (struct external){"w.bin", NULL, NULL});
    put_external(&f->file, "part", "2", (struct external){"./w.bin", "4", "8"});
    put_external(&f->file, "deep", "2", (struct external){"sub/v.bin", "0", NULL});
    put_external(&f->file, "none", "0", (struct external){"w.bin", "16", "0"});

    int rc = end_and_import(f, &err);

    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_memory_equal(find(f->graph, "all")->data, "0123456789abcdef", 16);
    assert_true(find(f->graph, "all")->in_file);
    assert_memory_equal(find(f->graph, "part")->data, "456789ab", 8);
    assert_ptr_equal(find(f->graph, "part")->data, /* one mapping for both ways to say it */
                     (const char *)find(f->graph, "all")->data + 4);
    assert_memory_equal(find(f->graph, "deep")->data, "ABCDEFGH", 8);
    assert_int_equal(find(f->graph, "none")->bytes, 0);
    graph_drop_pages(f->graph, find(f->graph, "all"));
    assert_memory_equal(find(f->graph, "all")->data, "0123456789abcdef", 16);
}

static void the_digest_covers_external_files_in_order_of_mention(void **state) {
    struct fixture *f = *state;
    static const uint8_t mentioned[24] = "ABCDEFGH0123456789abcdef";
    static uint8_t bytes[ONNX_BYTES_MAX + sizeof(mentioned)];
    uint8_t digest[SHA256_SIZE];
    begin_small(f);
    put_external(&f->file, "v", "2", (struct external){"sub/v.bin", NULL, NULL});
    put_external(&f->file, "w", "2", (struct external){"w.bin", NULL, NULL});
    put_external(&f->file, "v2", "1", (struct external){"sub/v.bin", "4", NULL});
    assert_int_equal(end_and_import(f, NULL), 0);
    memcpy(bytes, f->file.data, f->file.size);
    memcpy(bytes + f->file.size, mentioned, sizeof(mentioned));
    assert_int_equal(sha256(bytes, f->file.size + sizeof(mentioned), digest), 0);

    assert_memory_equal(f->graph->digest, digest, sizeof(digest));
}

static void a_model_named_through_a_link_finds_its_data_beside_the_link(void **state) {
    struct fixture *f = *state;
    char link_path[160];
    begin_small(f);
    put_external(&f->file, "w", "2", (struct external){"w.bin", NULL, NULL});
    assert_int_equal(end_and_import(f, NULL), 0);
    graph_free(f->graph);
    f->graph = NULL;
    snprintf(link_path, sizeof(link_path), "%s/models-b/link.onnx", f->folder);
    assert_int_equal(symlink("../models/m.onnx", link_path), 0);

    assert_int_equal(graph_import(link_path, &f->graph, NULL), 0);

    assert_memory_equal(find(f->graph, "w")->data, "01234567", 8);
}

static void what_external_data_must_not_be_is_refused(void **state) {
    static const struct {
        struct external where;
        int code;
        const char *says;
    } cases[] = {
        {{"../secret.bin", NULL, NULL}, -EBADMSG, "not inside the model's folder"},
        {{"sub/../../secret.bin", NULL, NULL}, -EBADMSG, "not inside the model's folder"},
        {{"..", NULL, NULL}, -EBADMSG, "not inside the model's folder"},
        {{"/etc/hostname", NULL, NULL}, -EBADMSG, "not inside the model's folder"},
        {{"", NULL, NULL}, -EBADMSG, "not inside the model's folder"},
        {{NULL, NULL, NULL}, -EBADMSG, "not inside the model's folder"},
        {{"out.bin", NULL, NULL}, -EBADMSG, "leads out of the model's folder"},
        {{"near.bin", NULL, NULL}, -EBADMSG, "leads out of the model's folder"},
        {{"out/secret.bin", NULL, NULL}, -EBADMSG, "leads out of the model's folder"},
        {{"absent.bin", NULL, NULL}, -ENOENT, "absent.bin"},
        {{"sub", NULL, NULL}, -EBADMSG, "not a file, or empty"},
        {{"fifo", NULL, NULL}, -EBADMSG, "not a file, or empty"},
        {{"empty.bin", NULL, NULL}, -EBADMSG, "not a file, or empty"},
        {{"w.bin", "12", NULL}, -EBADMSG, "runs past the end"},
        {{"w.bin", "17", NULL}, -EBADMSG, "runs past the end"},
        {{"w.bin", "18446744073709551615", NULL}, -EBADMSG, "runs past the end"},
        {{"w.bin", "18446744073709551616", NULL}, -EBADMSG, "is not a number"},
        {{"w.bin", "-1", NULL}, -EBADMSG, "is not a number"},
        {{"w.bin", " 1", NULL}, -EBADMSG, "is not a number"},
        {{"w.bin", "1x", NULL}, -EBADMSG, "is not a number"},
        {{"w.bin", "", NULL}, -EBADMSG, "is not a number"},
        {{"w.bin", NULL, "7"}, -EBADMSG, "7 bytes of external data where its dims ask for 8"},
    };
    struct fixture *f = *state;
    char path[160];
    static const struct {
        const char *from, *to;
    } links[] = {{"out.bin", "../secret.bin"}, {"near.bin", "../models-b/w.bin"}, {"out", ".."}};
    for (size_t i = 0; i < LENGTH(links); i++) {
        snprintf(path, sizeof(path), "%s/models/%s", f->folder, links[i].from);
        assert_int_equal(symlink(links[i].to, path), 0);
    }
    snprintf(path, sizeof(path), "%s/models/fifo", f->folder);
    assert_int_equal(mkfifo(path, 0600), 0);

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct err err = {""};
        begin_small(f);
        put_external(&f->file, "w", "2", cases[i].where);

        int rc = end_and_import(f, &err);

        if (!strstr(err.text, cases[i].says) || !strstr(err.text, "initializer \"w\""))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.text, cases[i].says);
        assert_int_equal(rc, cases[i].code);
        assert_null(f->graph);
    }
}

static void a_model_that_is_no_file_is_refused(void **state) {
    struct fixture *f = *state;
    struct err err = {""};
    char path[160];

    assert_int_equal(graph_import("/nowhere/at/all.onnx", &f->graph, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/at/all.onnx"));
    assert_int_equal(graph_import(f->folder, &f->graph, &err), -EBADMSG);
    snprintf(path, sizeof(path), "%s/models/empty.bin", f->folder);
    assert_int_equal(graph_import(path, &f->graph, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "empty"));
    snprintf(path, sizeof(path), "%s/models/w.bin", f->folder);
    assert_int_equal(graph_import(path, &f->graph, &err), -EBADMSG);
    assert_true(strncmp(err.text, path, strlen(path)) == 0);
    assert_null(f->graph);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(external_data_is_read_in_place),
        TEST(the_digest_covers_external_files_in_order_of_mention),
        TEST(a_model_named_through_a_link_finds_its_data_beside_the_link),
        TEST(what_external_data_must_not_be_is_refused),
        TEST(a_model_that_is_no_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
