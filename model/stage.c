#include "model/stage.h"

#include <errno.h>
#include <sched.h>
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

/* Fewer bytes are not worth a second thread. */
#define PARALLEL_BYTES_MIN   ((uint64_t)8 << 20)
#define PARALLEL_THREADS_MAX 4 /* each may have a layer's folded weights in memory meanwhile */

/* Steps that are being prepared, by several threads; each has the place of its error. */
struct preparing {
    struct stage *stage;
    int *codes;
    struct err *errs;
};

static void prepare_step(void *arg, int task, int thread) {
    const struct preparing *p = arg;
    struct stage_step *step = &p->stage->steps[task];
    (void)thread;
    p->codes[task] = prepare_get(p->stage->model, step->layer, p->stage->threads, &step->prepared,
                                 &p->errs[task]);
}

/* How many threads are worth having for the stage's weights: never more than there are CPUs. */
static int count_threads(const struct stage *stage) {
    uint64_t bytes = 0;
    cpu_set_t cpus;
    for (uint32_t s = 0; s < stage->steps_count; s++)
        bytes += stage->steps[s].layer->info.weight_bytes;
    if (bytes < PARALLEL_BYTES_MIN || sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
        return 1;
    int count = CPU_COUNT(&cpus);
    return count < PARALLEL_THREADS_MAX ? count : PARALLEL_THREADS_MAX;
}

static int prepare_steps(struct stage *stage, struct err *err) {
    size_t count = stage->last - stage->first;
    int rc = 0;
    stage->steps = calloc(count, sizeof(*stage->steps));
    struct preparing p = {.stage = stage,
                          .codes = calloc(count, sizeof(*p.codes)),
                          .errs = calloc(count, sizeof(*p.errs))};
    if (!stage->steps || !p.codes || !p.errs) {
        rc = err_set(err, -ENOMEM, "no memory for %zu layers", count);
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        stage->steps[i].layer = stage->model->layers[stage->first + i];
    stage->steps_count = (uint32_t)count;
    int threads_count = count_threads(stage);
    struct kn_threads *threads = threads_count > 1 ? kn_threads_new(threads_count) : NULL;
    kn_parallel(threads, (int)count, prepare_step, &p);
    kn_threads_free(threads);
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (p.codes[i] < 0)
            rc = err_set(err, p.codes[i], "%s", p.errs[i].text);
        else
            stage->weight_bytes += stage->steps[i].prepared->bytes;
    }
done:
    free(p.codes);
    free(p.errs);
    return rc;
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
