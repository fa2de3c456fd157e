/* Memory of stages: no allocation while frames run, and no more than a stage's own weights. */
#include "tests/lib/code_range.h"
#include "tests/lib/models.h"
#include "tests/lib/own_malloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Allocations of this program, but for those of the GEMM library: on some CPUs its kernels for
 * small matrices allocate, and free, in every call. */
static atomic_size_t allocations;
static struct code_range gemm;

static bool on_allocation(size_t size, const void *caller) {
    (void)size;
    if (!code_range_has(&gemm, caller))
        atomic_fetch_add(&allocations, 1);
    return true;
}

static const struct models_entry *entry_of(const char *file) {
    for (const struct models_entry *entry = models_all; entry->file; entry++)
        if (strcmp(entry->file, file) == 0)
            return entry;
    fail_msg("no entry %s", file);
    return NULL;
}

static void count_allocations(const char *file, int threads, int frames) {
    const struct models_entry *entry = entry_of(file);
    struct model *model = models_open(entry);
    if (!model)
        skip();
    struct stage_options options = {.threads = threads};
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct tensor outputs[MODELS_TENSORS_MAX], input = models_input(entry, model);
    struct err err = {0};
    assert_int_equal(stage_new(model, 0, model_layers_count(model), &options, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    models_room(stage, outputs);
    assert_int_equal(exec_run(exec, &input, outputs, &err), 0);
    size_t before = atomic_load(&allocations);
    for (int i = 0; i < frames; i++)
        assert_int_equal(exec_run(exec, &input, outputs, &err), 0);
    assert_int_equal(atomic_load(&allocations) - before, 0);
    models_room_free(stage, outputs);
    tensor_buffer_free(input.data);
    exec_free(exec);
    stage_unref(stage);
    model_unref(model);
}

static void frames_allocate_nothing(void **state) {
    (void)state;
    if (!OWN_MALLOC)
        skip();
    size_t before = atomic_load(&allocations);
    gemm = code_range_of("blas");
    own_malloc_hooks.on_allocation = on_allocation;
    void *volatile block = malloc(1);
    free(block);
    assert_true(atomic_load(&allocations) > before); /* the counter works */
    count_allocations("fmnist_resnet.onnx", 1, 1000);
    count_allocations("mnist-8.onnx", 2, 1000);
    count_allocations("resnet20_cifar10.onnx", 1, 100);
    count_allocations("ultraface-rfb320.onnx", 1, 3);
    count_allocations("mobilenet_v2_dequant.onnx", 1, 3);
    count_allocations("ppocr_v4_det.onnx", 1, 2);
}

/* Resident bytes of this process. */
static size_t resident(void) {
    long pages = 0, ignored = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &ignored, &pages), 2);
    fclose(file);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void check_resident(struct model *model, size_t first, size_t last, size_t slack) {
    struct stage *stage = NULL;
    struct exec *exec = NULL;
    struct tensor inputs[MODELS_TENSORS_MAX] = {{{0}, NULL}}, outputs[MODELS_TENSORS_MAX];
    struct err err = {0};
    size_t count, bytes, io = 0, before = resident();
    assert_int_equal(stage_new(model, first, last, NULL, &stage, &err), 0);
    assert_int_equal(exec_new(stage, &exec, &err), 0);
    const struct tensor_desc *descs = stage_inputs(stage, &count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(tensor_desc_bytes(&descs[i], &bytes), 0);
        inputs[i].data = tensor_buffer_new(bytes);
        memset(inputs[i].data, 0, bytes);
        io += bytes;
    }
    models_room(stage, outputs);
    assert_int_equal(exec_run(exec, inputs, outputs, &err), 0);
    size_t grown = resident() > before ? resident() - before : 0;
    size_t allowed = stage_weight_bytes(stage) + stage_arena_bytes(stage) + io + slack;
    print_message("layers %zu to %zu: %.1f MB more resident, weights %.1f, arena %.1f\n", first,
                  last, (double)grown / 1e6, (double)stage_weight_bytes(stage) / 1e6,
                  (double)stage_arena_bytes(stage) / 1e6);
    if (grown > allowed)
        fail_msg("layers %zu to %zu: %zu bytes resident, %zu allowed", first, last, grown, allowed);
    models_room_free(stage, outputs);
    for (size_t i = 0; i < count; i++)
        tensor_buffer_free(inputs[i].data);
    exec_free(exec);
    stage_unref(stage);
}

static void stage_needs_its_own_weights_only(void **state) {
    (void)state;
    if (!OWN_MALLOC)
        skip();
    struct model *model = models_open(entry_of("mobilenet_v1_1.0_224.onnx"));
    if (!model)
        skip();
    size_t count = model_layers_count(model);
    check_resident(model, 0, 4, 6 << 20);
    check_resident(model, count - 4, count, 4 << 20);
    check_resident(model, 0, count, 6 << 20);
    model_unref(model);
}

/* A model of constants alone: 575 MB of weights that nobody has asked for. */
static void opening_a_model_makes_no_weights(void **state) {
    (void)state;
    if (!OWN_MALLOC)
        skip();
    size_t before = resident();
    struct model *model = models_open(entry_of("light/light_vgg19.onnx"));
    if (!model)
        skip();
    assert_true(resident() < before + (4U << 20U));
    check_resident(model, 0, 3, 8 << 20);
    model_unref(model);
}

static void opening_a_model_reads_no_weights(void **state) {
    (void)state;
    if (!OWN_MALLOC)
        skip();
    size_t before = resident();
    struct model *model = models_open(entry_of("mobilenet_v1_1.0_224.onnx"));
    if (!model)
        skip();
    size_t grown = resident() > before ? resident() - before : 0;
    print_message("%.1f MB resident after opening 16.9 MB\n", (double)grown / 1e6);
    assert_true(grown < 4U << 20U);
    model_unref(model);
}

static void weights_are_shared_between_stages(void **state) {
    (void)state;
    if (!OWN_MALLOC)
        skip();
    struct model *model = models_open(entry_of("mobilenet_v1_1.0_224.onnx"));
    if (!model)
        skip();
    struct stage *old = NULL, *new = NULL;
    struct err err = {0};
    size_t count = model_layers_count(model);
    assert_int_equal(stage_new(model, 0, count, NULL, &old, &err), 0);
    size_t before = resident();
    assert_int_equal(stage_new(model, count / 2, count, NULL, &new, &err), 0);
    assert_true(resident() < before + (1U << 20U));
    stage_unref(old);
    stage_unref(new);
    model_unref(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_model_makes_no_weights),
        cmocka_unit_test(opening_a_model_reads_no_weights),
        cmocka_unit_test(stage_needs_its_own_weights_only),
        cmocka_unit_test(weights_are_shared_between_stages),
        cmocka_unit_test(frames_allocate_nothing),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
