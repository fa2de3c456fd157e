/* Several threads prepare stages of one model, run them and write parts at the same time, as the
 * daemon does when a plan changes while frames flow. */
#include "tests/lib/models.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define THREADS 4
#define ROUNDS  5
#define FRAMES  10

struct worker {
    struct model *model;
    struct tensor input;
    const char *folder;
    int number;
    unsigned char result[4096];
    bool good;
};

static bool run_frames(struct worker *w, struct stage *stage, struct exec *exec) {
    struct tensor output[1];
    struct err err = {0};
    size_t bytes;
    models_room(stage, output);
    bool good = true;
    for (int i = 0; i < FRAMES && good; i++)
        good = exec_run(exec, &w->input, output, &err) == 0;
    good = good && tensor_desc_bytes(&output[0].desc, &bytes) == 0 && bytes <= sizeof(w->result);
    if (good)
        memcpy(w->result, output[0].data, bytes);
    models_room_free(stage, output);
    return good;
}

static void *work(void *arg) {
    struct worker *w = arg;
    struct err err = {0};
    char path[128];
    w->good = true;
    for (int round = 0; round < ROUNDS && w->good; round++) {
        struct stage *stage = NULL;
        struct exec *exec = NULL;
        size_t count = model_layers_count(w->model);
        struct stage_options options = {.threads = 1 + w->number % 2};
        w->good = stage_new(w->model, 0, count, &options, &stage, &err) == 0 &&
                  exec_new(stage, &exec, &err) == 0 && run_frames(w, stage, exec);
        exec_free(exec);
        stage_unref(stage);
        snprintf(path, sizeof(path), "%s/%d.onnx", w->folder, w->number);
        w->good = w->good && model_write_part(w->model, (size_t)w->number, count, path, &err) == 0;
        unlink(path);
    }
    return NULL;
}

static void threads_share_a_model(void **state) {
    (void)state;
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    char folder[] = "/tmp/convoy-threads-XXXXXX";
    const struct models_entry *entry = models_all;
    while (entry->file && strcmp(entry->file, "resnet20_cifar10.onnx") != 0)
        entry++;
    struct model *model = models_open(entry);
    if (!model)
        skip();
    assert_non_null(mkdtemp(folder));
    struct tensor input = models_input(entry, model);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.model = model, .input = input, .folder = folder, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_true(workers[i].good);
        assert_memory_equal(workers[i].result, workers[0].result, sizeof(workers[0].result));
    }
    rmdir(folder);
    tensor_buffer_free(input.data);
    model_unref(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_share_a_model)};
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
