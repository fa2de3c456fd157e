#include "model/stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void stage_free(struct stage *stage) {
    for (uint32_t i = 0; stage->steps && i < stage->steps_count; i++)
        prepare_put(stage->model, stage->steps[i].layer, stage->steps[i].prepared);
    for (size_t i = 0; stage->output_constants && i < stage->outputs_count; i++)
        tensor_buffer_free(stage->output_constants[i].data);
    free(stage->output_constants);
    free(stage->steps);
    free(stage->slots);
    free(stage->buffers);
    free(stage->output_slots);
    free(stage->output_sources);
    free(stage->output_copies);
    free(stage->indices);
    model_unref(stage->model);
    free(stage);
}

static int prepare_steps(struct stage *stage, struct err *err) {
    struct model *model = stage->model;
    size_t count = stage->last - stage->first;
    stage->steps = calloc(count, sizeof(*stage->steps));
    if (!stage->steps)
        return err_set(err, -ENOMEM, "no memory for %zu layers", count);
    for (size_t i = 0; i < count; i++) {
        struct stage_step *step = &stage->steps[i];
        step->layer = model->layers[stage->first + i];
        stage->steps_count++;
        int rc = prepare_get(model, step->layer, stage->threads, &step->prepared, err);
        if (rc < 0)
            return rc;
        stage->weight_bytes += step->prepared->bytes;
    }
    return 0;
}

int stage_new(struct model *model, size_t first, size_t last, const struct stage_options *options,
              struct stage **ret_stage, struct err *err) {
    if (first >= last || last > model->layers_count)
        return err_set(err, -EINVAL, "layers %zu to %zu of %zu are no stage", first, last,
                       model->layers_count);
    struct stage *stage = calloc(1, sizeof(*stage));
    if (!stage)
        return err_set(err, -ENOMEM, "no memory for a stage");
    atomic_init(&stage->refs, 1);
    stage->model = model_ref(model);
    stage->first = first;
    stage->last = last;
    stage->threads = options && options->threads > 0 ? options->threads : 1;
    stage->outputs_count = model->cuts[last].count;
    int rc = prepare_steps(stage, err);
    if (rc == 0)
        rc = stage_plan(stage, err);
    if (rc < 0) {
        stage_free(stage);
        return rc;
    }
    *ret_stage = stage;
    return 0;
}

struct stage *stage_ref(struct stage *stage) {
    atomic_fetch_add(&stage->refs, 1);
    return stage;
}

void stage_unref(struct stage *stage) {
    if (stage && atomic_fetch_sub(&stage->refs, 1) == 1)
        stage_free(stage);
}

const struct tensor_desc *stage_inputs(const struct stage *stage, size_t *ret_count) {
    return model_cut(stage->model, stage->first, ret_count);
}

const struct tensor_desc *stage_outputs(const struct stage *stage, size_t *ret_count) {
    return model_cut(stage->model, stage->last, ret_count);
}

int stage_output_source(const struct stage *stage, size_t output) {
    return stage->output_sources[output];
}

const char *stage_layer_algorithm(const struct stage *stage, size_t index) {
    const struct stage_step *step = &stage->steps[index];
    const struct op_kind *kind = step->layer->op->kind;
    if (step->layer->view)
        return "view";
    return kind->algorithm && step->prepared->packed ? kind->algorithm(step->prepared->packed)
                                                     : NULL;
}

uint64_t stage_weight_bytes(const struct stage *stage) {
    return stage->weight_bytes;
}

uint64_t stage_arena_bytes(const struct stage *stage) {
    return stage->arena_bytes;
}
