/* The fuzzer's corpus of ONNX files: every one of them goes the way that the fuzzer sends it, and
 * together they have every operator. What the fuzzer has found stays there. */
#include "tests/fuzz/fuzz_onnx.c" /* NOLINT(bugprone-suspicious-include): what is fuzzed */

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define CORPUS "tests/fuzz/corpus/onnx"

static size_t read_file(const char *name, uint8_t **ret_data) {
    char path[512];
    snprintf(path, sizeof(path), CORPUS "/%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    *ret_data = malloc(1 << 20);
    size_t size = fread(*ret_data, 1, 1 << 20, file);
    fclose(file);
    return size;
}

/* Calls fn for each file, whose bytes end where the memory ends. */
static void each_file(void (*fn)(const char *name, const uint8_t *data, size_t size, void *arg),
                      void *arg) {
    DIR *dir = opendir(CORPUS);
    assert_non_null(dir);
    for (struct dirent *file; (file = readdir(dir)) != NULL;) {
        uint8_t *data;
        if (file->d_name[0] == '.')
            continue;
        size_t size = read_file(file->d_name, &data);
        uint8_t *exact = realloc(data, size ? size : 1);
        fn(file->d_name, exact, size, arg);
        free(exact);
    }
    closedir(dir);
}

static void try_file(const char *name, const uint8_t *data, size_t size, void *arg) {
    (void)name;
    (void)arg;
    assert_int_equal(LLVMFuzzerTestOneInput(data, size), 0);
}

static void every_file_of_the_corpus_is_run_or_refused(void **state) {
    (void)state;
    each_file(try_file, NULL);
}

/* Seeds are whole: they are accepted, and a frame runs. */
static void note_operators(const char *name, const uint8_t *data, size_t size, void *arg) {
    struct model *model = NULL;
    struct err err = {{0}};
    bool *seen = arg;
    size_t count;
    const struct op *table = op_table(&count);
    if (strncmp(name, "seed-", 5) != 0)
        return;
    if (model_open_memory(data, size, NULL, &model, &err) < 0)
        fail_msg("%s: %s", name, err.text);
    if (!is_small(model))
        fail_msg("%s is too large to be run", name);
    for (size_t i = 0; i < model->graph->nodes_count; i++)
        for (size_t k = 0; k < count; k++)
            if (strcmp(table[k].name, model->graph->nodes[i]->op_type) == 0)
                seen[k] = true;
    model_unref(model);
}

static void the_seeds_have_every_operator(void **state) {
    (void)state;
    size_t count;
    const struct op *table = op_table(&count);
    bool *seen = calloc(count, sizeof(*seen));
    each_file(note_operators, seen);
    for (size_t i = 0; i < count; i++)
        if (!seen[i])
            fail_msg("no seed has %s: add it to tests/seeds/onnx_seeds.c and `make seeds`",
                     table[i].name);
    free(seen);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_of_the_corpus_is_run_or_refused),
        cmocka_unit_test(the_seeds_have_every_operator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
