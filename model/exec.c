#include "model/stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct exec {
    struct stage *stage;
    char *arena;
    struct tensor *tensors;        /* of each slot */
    struct op_args *args;          /* of each step */
    const struct tensor **in_refs; /* of all steps */
    struct tensor **out_refs;
    struct kn_threads *threads;
    uint64_t *layer_ns;
    bool profile;
};

void exec_free(struct exec *exec) {
    if (!exec)
        return;
    kn_threads_free(exec->threads);
    tensor_buffer_free(exec->arena);
    free(exec->tensors);
    free(exec->args);
    free(exec->in_refs);
    free(exec->out_refs);
    free(exec->layer_ns);
    stage_unref(exec->stage);
    free(exec);
}

static int exec_allocate(struct exec *exec) {
    const struct stage *stage = exec->stage;
    size_t ins = 0, outs = 0;
    for (uint32_t s = 0; s < stage->steps_count; s++) {
        ins += stage->steps[s].layer->in_count;
        outs += stage->steps[s].layer->out_count;
    }
    exec->arena = tensor_buffer_new(stage->arena_bytes);
    exec->tensors = calloc((size_t)stage->slots_count + 1, sizeof(*exec->tensors));
    exec->args = calloc((size_t)stage->steps_count + 1, sizeof(*exec->args));
    exec->in_refs = calloc(ins + 1, sizeof(*exec->in_refs));
    exec->out_refs = calloc(outs + 1, sizeof(*exec->out_refs));
    exec->layer_ns = calloc((size_t)stage->steps_count + 1, sizeof(*exec->layer_ns));
    if (stage->threads > 1)
        exec->threads = kn_threads_new(stage->threads);
    return exec->arena && exec->tensors && exec->args && exec->in_refs && exec->out_refs &&
                   exec->layer_ns && (stage->threads == 1 || exec->threads)
               ? 0
               : -ENOMEM;
}

/* Everything about a step that is the same for every frame. */
static void bind_step(struct exec *exec, uint32_t s, const struct tensor **in,
                      struct tensor **out) {
    const struct stage_step *step = &exec->stage->steps[s];
    const struct layer *layer = step->layer;
    for (size_t i = 0; i < layer->in_count; i++) {
        if (step->in[i] != STAGE_NONE)
            in[i] = &exec->tensors[step->in[i]];
        else if (layer->in[i])
            in[i] = &step->prepared->constants[i];
    }
    for (size_t i = 0; i < layer->out_count; i++)
        if (step->out[i] != STAGE_NONE)
            out[i] = &exec->tensors[step->out[i]];
    exec->args[s] = (struct op_args){
        .op = layer->op,
        .plan = layer->plan,
        .packed = step->prepared->packed,
        .in = in,
        .out = out,
        .in_count = layer->in_count,
        .out_count = layer->out_count,
        .residual = step->residual != STAGE_NONE ? &exec->tensors[step->residual] : NULL,
        .act = layer->act,
        .workspace = exec->arena + step->workspace,
        .threads = exec->threads};
}

int exec_new(struct stage *stage, struct exec **ret_exec, struct err *err) {
    struct exec *exec = calloc(1, sizeof(*exec));
    if (!exec)
        return err_set(err, -ENOMEM, "no memory to run a stage");
    exec->stage = stage_ref(stage);
    if (exec_allocate(exec) < 0) {
        exec_free(exec);
        return err_set(err, -ENOMEM, "no memory to run a stage: its arena is %zu bytes",
                       stage->arena_bytes);
    }
    for (uint32_t i = 0; i < stage->slots_count; i++) {
        const struct stage_buffer *buffer = &stage->buffers[stage->slots[i].buffer];
        exec->tensors[i].desc = stage->slots[i].value->desc;
        if (buffer->place == PLACE_ARENA)
            exec->tensors[i].data = exec->arena + buffer->at;
    }
    const struct tensor **in = exec->in_refs;
    struct tensor **out = exec->out_refs;
    for (uint32_t s = 0; s < stage->steps_count; s++) {
        bind_step(exec, s, in, out);
        in += stage->steps[s].layer->in_count;
        out += stage->steps[s].layer->out_count;
    }
    *ret_exec = exec;
    return 0;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void copy_tensor(const struct tensor *from, struct tensor *to) {
    size_t bytes = op_count(&from->desc) * dtype_size(from->desc.dtype);
    if (bytes > 0)
        memcpy(to->data, from->data, bytes);
}

/* Slots that lie in the caller's memory point there. */
static void bind_frame(struct exec *exec, const struct tensor *inputs,
                       const struct tensor *outputs) {
    const struct stage *stage = exec->stage;
    for (uint32_t i = 0; i < stage->slots_count; i++) {
        const struct stage_buffer *buffer = &stage->buffers[stage->slots[i].buffer];
        if (buffer->place == PLACE_INPUT)
            exec->tensors[i].data = inputs[buffer->at].data;
        else if (buffer->place == PLACE_OUTPUT)
            exec->tensors[i].data = outputs[buffer->at].data;
    }
}

static void finish_frame(const struct exec *exec, struct tensor *outputs) {
    const struct stage *stage = exec->stage;
    for (size_t i = 0; i < stage->outputs_count; i++) {
        const struct tensor *from = stage->output_slots[i] == STAGE_NONE
                                        ? &stage->output_constants[i]
                                        : &exec->tensors[stage->output_slots[i]];
        if (stage->output_copies[i])
            copy_tensor(from, &outputs[i]);
        else
            outputs[i].data = from->data;
        outputs[i].desc = from->desc;
        outputs[i].desc.name = stage->model->cuts[stage->last].descs[i].name;
    }
}

static int run_step(struct exec *exec, uint32_t s, struct err *err) {
    const struct stage_step *step = &exec->stage->steps[s];
    struct op_args *args = &exec->args[s];
    if (step->layer->view) {
        if (step->copies)
            copy_tensor(args->in[0], args->out[0]);
        return 0;
    }
    args->err = err;
    int rc = step->layer->op->kind->run(args);
    return rc < 0 ? err_prefix(err, rc, "layer '%s'", step->layer->info.name) : 0;
}

int exec_run(struct exec *exec, const struct tensor *inputs, struct tensor *outputs,
             struct err *err) {
    bind_frame(exec, inputs, outputs);
    uint64_t before = exec->profile ? now_ns() : 0;
    for (uint32_t s = 0; s < exec->stage->steps_count; s++) {
        int rc = run_step(exec, s, err);
        if (rc < 0)
            return rc;
        if (exec->profile) {
            uint64_t after = now_ns();
            exec->layer_ns[s] = after - before;
            before = after;
        }
    }
    finish_frame(exec, outputs);
    return 0;
}

void exec_profile(struct exec *exec, bool on) {
    exec->profile = on;
}

const uint64_t *exec_layer_ns(const struct exec *exec) {
    return exec->profile ? exec->layer_ns : NULL;
}
