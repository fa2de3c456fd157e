#include "model/runner.h"

#include <errno.h>
#include <stdlib.h>

static int make_tensors(const struct tensor_desc *descs, size_t count,
                        struct tensor **ret_tensors) {
    struct tensor *tensors = calloc(count ? count : 1, sizeof(*tensors));
    if (!tensors)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        tensors[i].desc = descs[i];
    *ret_tensors = tensors;
    return 0;
}

static void *make_buffer(const struct tensor_desc *desc) {
    size_t bytes;
    return tensor_desc_bytes(desc, &bytes) == 0 ? tensor_buffer_new(bytes) : NULL;
}

int runner_init(struct runner *runner, struct stage *stage, struct err *err) {
    *runner = (struct runner){.stage = stage_ref(stage)};
    const struct tensor_desc *inputs = stage_inputs(stage, &runner->inputs_count);
    const struct tensor_desc *outputs = stage_outputs(stage, &runner->outputs_count);
    int rc = make_tensors(inputs, runner->inputs_count, &runner->inputs);
    if (rc == 0)
        rc = make_tensors(outputs, runner->outputs_count, &runner->outputs);
    if (rc != 0)
        goto fail;
    rc = -ENOMEM;
    runner->output_buffers = calloc(runner->outputs_count + 1, sizeof(void *));
    if (!runner->output_buffers)
        goto fail;
    for (size_t i = 0; i < runner->inputs_count; i++)
        if (!(runner->inputs[i].data = make_buffer(&inputs[i])))
            goto fail;
    for (size_t i = 0; i < runner->outputs_count; i++)
        if (stage_output_source(stage, i) < 0 &&
            !(runner->output_buffers[i] = make_buffer(&outputs[i])))
            goto fail;
    rc = exec_new(stage, &runner->exec, err);
    if (rc == 0)
        return 0;
    runner_fini(runner);
    return rc;

fail:
    runner_fini(runner);
    return err_set(err, rc, "out of memory");
}

void runner_fini(struct runner *runner) {
    exec_free(runner->exec);
    for (size_t i = 0; runner->inputs && i < runner->inputs_count; i++)
        tensor_buffer_free(runner->inputs[i].data);
    for (size_t i = 0; runner->output_buffers && i < runner->outputs_count; i++)
        tensor_buffer_free(runner->output_buffers[i]);
    free(runner->inputs);
    free(runner->outputs);
    free(runner->output_buffers);
    stage_unref(runner->stage);
    *runner = (struct runner){0};
}

int runner_run(struct runner *runner, struct err *err) {
    for (size_t i = 0; i < runner->outputs_count; i++)
        runner->outputs[i].data = runner->output_buffers[i];
    return exec_run(runner->exec, runner->inputs, runner->outputs, err);
}
