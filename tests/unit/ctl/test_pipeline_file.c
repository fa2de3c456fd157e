#include "ctl/pipeline_file.h"

#include "config/config.h"
#include "tests/lib/folder.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const struct pipeline_stage two[] = {{"pi-a", "10.0.0.1:7433", "conv:3 \"x\"", false},
                                            {"pi-b", "[fe80::1]:7433", NULL, false}};

#define NEW                                                                                        \
    "pipeline:\n"                                                                                  \
    "  - {node: pi-a, address: 10.0.0.1:7433, until: \"conv:3 \\\"x\\\"\"}\n"                      \
    "  - {node: pi-b, address: \"[fe80::1]:7433\"}\n"

static void expect_edit(const char *before, const char *after) {
    char *text = NULL;
    struct err err = {""};
    int rc = pipeline_file_edit(before, "c.yaml", "m.onnx", two, 2, &text, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(rc, 0);
    assert_string_equal(text, after);
    free(text);
}

static void pipeline_is_replaced_and_the_rest_stays(void **state) {
    (void)state;
    expect_edit("# head\nmodel: x.onnx # mine\npipeline:\n  # old\n  - {node: q, address: h:1}\n\n"
                "# about workers\nworkers: 3\n",
                "# head\nmodel: x.onnx # mine\n" NEW "\n# about workers\nworkers: 3\n");
    expect_edit("model: x.onnx\npipeline: [{node: q, address: 'h:1'}]\n# the end\n",
                "model: x.onnx\n" NEW "# the end\n");
}

static void pipeline_is_added_where_there_is_none(void **state) {
    (void)state;
    expect_edit("", "model: m.onnx\n" NEW);
    expect_edit("node: pi-a", "node: pi-a\nmodel: m.onnx\n" NEW);
    expect_edit("# only words\n", "# only words\nmodel: m.onnx\n" NEW);
}

static void replicas_are_written_as_a_list_and_read_back(void **state) {
    static const struct pipeline_stage stages[] = {{"pi-a", "10.0.0.1:7433", "relu one", false},
                                                   {"pi-b", "10.0.0.2:7433", "17", false},
                                                   {"pi-c", "[::1]:7433", "17", true},
                                                   {"pi-d", "10.0.0.4:7433", NULL, false},
                                                   {"pi-e", "10.0.0.5:7433", NULL, true}};
    char *text = NULL;
    struct config *config = NULL;
    struct err err = {""};
    (void)state;
    assert_int_equal(pipeline_file_edit("# x\nmodel: y\npipeline: auto\n# z\n", "c.yaml", "m.onnx",
                                        stages, 5, &text, &err),
                     0);
    assert_string_equal(text, "# x\nmodel: y\npipeline:\n"
                              "  - {node: pi-a, address: 10.0.0.1:7433, until: \"relu one\"}\n"
                              "  - replicas:\n"
                              "      - {node: pi-b, address: 10.0.0.2:7433}\n"
                              "      - {node: pi-c, address: \"[::1]:7433\"}\n"
                              "    until: 17\n"
                              "  - replicas:\n"
                              "      - {node: pi-d, address: 10.0.0.4:7433}\n"
                              "      - {node: pi-e, address: 10.0.0.5:7433}\n"
                              "# z\n");

    assert_int_equal(config_parse(text, strlen(text), "c.yaml", &config, &err), 0);

    assert_int_equal(config->pipeline_count, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(config->pipeline[i].node, stages[i].node);
        assert_string_equal(config->pipeline[i].address, stages[i].address);
        assert_int_equal(config->pipeline[i].shares, stages[i].shares);
        if (stages[i].until)
            assert_string_equal(config->pipeline[i].until, stages[i].until);
        else
            assert_null(config->pipeline[i].until);
    }
    config_free(config);
    free(text);
}

static void result_reads_back_as_the_pipeline(void **state) {
    char *text = NULL;
    struct config *config = NULL;
    struct err err = {""};
    (void)state;
    assert_int_equal(pipeline_file_edit("", "c.yaml", "m.onnx", two, 2, &text, &err), 0);

    assert_int_equal(config_parse(text, strlen(text), "c.yaml", &config, &err), 0);

    assert_int_equal(config->pipeline_count, 2);
    assert_string_equal(config->pipeline[0].until, two[0].until);
    assert_string_equal(config->pipeline[1].address, two[1].address);
    config_free(config);
    free(text);
}

static void text_that_cannot_be_edited_is_refused(void **state) {
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{model: x, workers: 2}", "lines of their own"},
        {"wokers: 2\n", "did you mean 'workers'"},
        {"a: [\n", "c.yaml"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char *text = NULL;
        struct err err = {""};
        assert_int_equal(pipeline_file_edit(cases[i].text, "c.yaml", "m.onnx", two, 2, &text, &err),
                         -EINVAL);
        if (!strstr(err.text, cases[i].words))
            fail_msg("'%s' gives '%s'", cases[i].text, err.text);
        assert_null(text);
    }
}

static void file_is_made_and_keeps_its_mode(void **state) {
    char folder[] = "/tmp/convoy-test-XXXXXX", path[64];
    struct config *config = NULL;
    struct stat st;
    struct err err = {""};
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/c.yaml", folder);

    assert_int_equal(pipeline_file_write(path, "models/fmnist_vgg.onnx", two, 2, &err), 0);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(pipeline_file_write(path, "models/fmnist_vgg.onnx", two + 1, 1, &err), 0);

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(config_load(path, &config, &err), 0);
    assert_int_equal(config->pipeline_count, 1);
    assert_true(config->model[0] == '/');
    config_free(config);
    assert_int_equal(pipeline_file_write("/nowhere/c.yaml", "m", two, 2, &err), -ENOENT);
    folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipeline_is_replaced_and_the_rest_stays),
        cmocka_unit_test(pipeline_is_added_where_there_is_none),
        cmocka_unit_test(result_reads_back_as_the_pipeline),
        cmocka_unit_test(replicas_are_written_as_a_list_and_read_back),
        cmocka_unit_test(text_that_cannot_be_edited_is_refused),
        cmocka_unit_test(file_is_made_and_keeps_its_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
