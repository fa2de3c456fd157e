/* Outputs of real models against the references that come with them. */
#include "tests/lib/models.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOLERANCE 1e-4

static void model_reproduces_its_reference(void **state) {
    const struct models_entry *entry = *state;
    struct model *model = models_open(entry);
    if (!model)
        skip();
    struct err err = {0};
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct tensor outputs[MODELS_TENSORS_MAX];
    struct tensor input = models_input(entry, model);
    if (stage_new(model, 0, model_layers_count(model), NULL, &stage, &err) < 0 ||
        exec_new(stage, &exec, &err) < 0)
        fail_msg("%s", err.text);
    models_room(stage, outputs);
    for (int run = 0; run < 2; run++)
        if (exec_run(exec, &input, outputs, &err) < 0)
            fail_msg("%s", err.text);
    for (size_t i = 0; i < entry->outputs; i++) {
        struct tensor wanted = models_output(entry, i);
        double difference = models_difference(&outputs[i], &wanted, entry->range);
        print_message("%s output %zu: %g, %zu layers, weights %.1f MB, arena %.1f MB\n",
                      entry->file, i, difference, model_layers_count(model),
                      (double)stage_weight_bytes(stage) / 1e6,
                      (double)stage_arena_bytes(stage) / 1e6);
        if (!(difference <= TOLERANCE))
            fail_msg("%s differs by %g", entry->file, difference);
        tensor_buffer_free(wanted.data);
    }
    models_room_free(stage, outputs);
    tensor_buffer_free(input.data);
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
}

/* Every model of the folder is in the list that all tests go by. */
static void every_model_there_is_is_tested(void **state) {
    (void)state;
    static const char *const folders[] = {"", "light/"};
    for (size_t i = 0; i < 2; i++) {
        char path[1024];
        snprintf(path, sizeof(path), "%s/%s", models_dir(), folders[i]);
        DIR *dir = opendir(path);
        if (!dir)
            skip();
        for (struct dirent *file; (file = readdir(dir)) != NULL;) {
            size_t length = strlen(file->d_name);
            if (length < 5 || strcmp(file->d_name + length - 5, ".onnx") != 0)
                continue;
            const struct models_entry *entry = models_all;
            snprintf(path, sizeof(path), "%s%s", folders[i], file->d_name);
            while (entry->file && strcmp(entry->file, path) != 0)
                entry++;
            if (!entry->file)
                fail_msg("%s is not among models_all", path);
        }
        closedir(dir);
    }
}

int main(void) {
    struct CMUnitTest tests[64];
    size_t count = 0;
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(every_model_there_is_is_tested);
    for (const struct models_entry *entry = models_all; entry->file; entry++)
        tests[count++] = (struct CMUnitTest){.name = entry->file,
                                             .test_func = model_reproduces_its_reference,
                                             .initial_state = (void *)(uintptr_t)entry};
    return _cmocka_run_group_tests("models reproduce their references", tests, count, NULL, NULL);
}
