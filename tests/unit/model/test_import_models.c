/* Real files: the models that lie beside the project, and the memory that a large one takes. */
#include "model/graph.h"
#include "tests/models/onnx_bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *models_folder(void) {
    const char *folder = getenv("CONVOY_MODELS");
    return folder ? folder : "../shared/models";
}

static void imports_every_model_of(const char *pattern) {
    char path[4096];
    glob_t found;
    snprintf(path, sizeof(path), "%s/%s", models_folder(), pattern);
    if (glob(path, 0, NULL, &found) != 0)
        skip();
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct graph *graph = NULL;
        struct err err = {""};
        int rc = graph_import(found.gl_pathv[i], &graph, &err);
        assert_string_equal(err.text, "");
        assert_int_equal(rc, 0);
        assert_string_equal(graph->path, found.gl_pathv[i]);
        assert_true(graph->nodes_count > 0);
        assert_int_equal(graph->inputs_count, 1);
        for (size_t j = 0; j < graph->nodes_count; j++)
            assert_string_not_equal(graph->nodes[j]->op_type, "Constant");
        graph_free(graph);
    }
    globfree(&found);
}

static void every_real_model_is_imported(void **state) {
    (void)state;
    imports_every_model_of("*.onnx");
}

static void every_light_model_is_imported(void **state) {
    (void)state;
    imports_every_model_of("light/*.onnx");
}

/* A line of /proc/self/status, in KiB. */
static long status_kib(const char *name) {
    char line[256];
    long kib = -1;
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (kib < 0 && fgets(line, sizeof(line), file))
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtol(line + strlen(name), NULL, 10);
    fclose(file);
    return kib;
}

#define HOLE_BYTES (256UL << 20)

/* A model with one tensor of 256 MiB, which is a hole in the file. */
static void write_large_model(int fd) {
    struct onnx_bytes *file = calloc(1, sizeof(*file));
    struct onnx_bytes *head = calloc(1, sizeof(*head));
    assert_non_null(file);
    assert_non_null(head);
    put_value_info(file, GRAPH_INPUT, "x", 1, (int64_t[]){2});
    put_value_info(file, GRAPH_OUTPUT, "y", 1, (int64_t[]){2});
    put_node(file, "relu", "Relu", "x", "y");
    put_int(head, TENSOR_DIMS, HOLE_BYTES / sizeof(float));
    put_int(head, TENSOR_DATA_TYPE, 1);
    put_text(head, TENSOR_NAME, "w");
    put_varint(head, TENSOR_RAW_DATA << 3 | 2);
    put_varint(head, HOLE_BYTES);
    /* The tensor's tag and length, then the graph's around it all. */
    put_varint(file, GRAPH_INITIALIZER << 3 | 2);
    put_varint(file, head->size + HOLE_BYTES);
    memcpy(file->data + file->size, head->data, head->size);
    file->size += head->size;
    memset(head, 0, sizeof(*head));
    put_varint(head, MODEL_GRAPH << 3 | 2);
    put_varint(head, file->size + HOLE_BYTES);
    size_t total = head->size + file->size + HOLE_BYTES;
    assert_int_equal(write(fd, head->data, head->size), head->size);
    assert_int_equal(write(fd, file->data, file->size), file->size);
    assert_int_equal(ftruncate(fd, (off_t)total), 0);
    free(file);
    free(head);
}

static void a_large_model_takes_little_memory_to_import(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it keeps four words for each that is read */
#endif
    char path[] = "/tmp/test_import_models.XXXXXX";
    int fd = mkstemp(path);
    struct graph *graph = NULL;
    struct err err = {""};
    assert_true(fd >= 0);
    write_large_model(fd);
    close(fd);
    long peak_before = status_kib("VmHWM:"), before = status_kib("VmRSS:");

    int rc = graph_import(path, &graph, &err);
    long peak = status_kib("VmHWM:") - peak_before, more = status_kib("VmRSS:") - before;
    unlink(path);

    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_int_equal(graph->values_count, 3);
    assert_true(more < 6 * 1024);
    assert_true(peak < 16 * 1024);

    /* Numbers that were used are given back as well. */
    const struct constant *w = graph->values[0]->constant;
    const unsigned char *data = w->data;
    unsigned sum = 0;
    assert_int_equal(w->bytes, HOLE_BYTES);
    for (size_t i = 0; i < w->bytes / 8; i += 4096)
        sum += data[i];
    assert_int_equal(sum, 0);
    assert_true(status_kib("VmRSS:") - before > 24 * 1024);
    graph_drop_pages(graph, w);
    assert_true(status_kib("VmRSS:") - before < 6 * 1024);

    /* Copied, they are in memory once. */
    char *copy = malloc(HOLE_BYTES);
    assert_non_null(copy);
    graph_copy_constant(graph, w, copy);
    assert_memory_equal(copy, data, 4096);
    assert_true(status_kib("VmHWM:") - peak_before < (long)(HOLE_BYTES / 1024) + 12 * 1024);
    free(copy);
    graph_free(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_real_model_is_imported),
        cmocka_unit_test(every_light_model_is_imported),
        cmocka_unit_test(a_large_model_takes_little_memory_to_import),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
