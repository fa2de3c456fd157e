#include "model/stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A step that is planned in each frame. */
struct exec_dynamic {
    struct op_call call; /* in and out are those of exec->tensors */
    void *plan;          /* this frame's */
};

struct exec {
    struct stage *stage;
    char *arena;
    struct tensor *tensors;        /* of each slot */
    struct op_args *args;          /* of each step */
    const struct tensor **in_refs; /* of all steps */
    struct tensor **out_refs;
    struct exec_dynamic *dynamics;       /* of each step; NULL in a stage without dynamic layers */
    const struct tensor_desc **in_descs; /* of all dynamic steps */
    struct tensor_desc **out_descs;
    char *plans;
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
    free(exec->dynamics);
    free(exec->in_descs);
    free(exec->out_descs);
    free(exec->plans);
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

/* ---- shapes that depend on data ---- */

#define PLAN_ALIGN      16
#define PLAN_ROOM(kind) (((kind)->plan_size + PLAN_ALIGN) / PLAN_ALIGN * PLAN_ALIGN)

/* Room to plan the dynamic steps again. Called when every step is bound. */
static int dynamics_init(struct exec *exec) {
    const struct stage *stage = exec->stage;
    size_t ins = 0, outs = 0, plans = 0;
    for (uint32_t s = 0; s < stage->steps_count; s++) {
        const struct layer *layer = stage->steps[s].layer;
        if (!layer->dynamic)
            continue;
        ins += layer->in_count;
        outs += layer->out_count;
        plans += PLAN_ROOM(layer->op->kind);
    }
    if (plans == 0)
        return 0;
    exec->dynamics = calloc(stage->steps_count, sizeof(*exec->dynamics));
    exec->in_descs = calloc(ins + 1, sizeof(*exec->in_descs));
    exec->out_descs = calloc(outs + 1, sizeof(*exec->out_descs));
    exec->plans = calloc(1, plans);
    if (!exec->dynamics || !exec->in_descs || !exec->out_descs || !exec->plans)
        return -ENOMEM;
    const struct tensor_desc **in = exec->in_descs;
    struct tensor_desc **out = exec->out_descs;
    plans = 0;
    for (uint32_t s = 0; s < stage->steps_count; s++) {
        const struct layer *layer = stage->steps[s].layer;
        struct op_args *args = &exec->args[s];
        if (!layer->dynamic)
            continue;
        exec->dynamics[s].call = (struct op_call){
            .node = layer->main, .op = layer->op, .in = in, .out = out, .frame = args->in};
        args->plan = exec->dynamics[s].plan = exec->plans + plans;
        plans += PLAN_ROOM(layer->op->kind);
        for (size_t i = 0; i < layer->in_count; i++)
            *in++ = args->in[i] ? &args->in[i]->desc : NULL;
        for (size_t i = 0; i < layer->out_count; i++)
            *out++ = args->out[i] ? &args->out[i]->desc : NULL;
    }
    return 0;
}

/* Whether what was prepared at load, for the bound, does for this frame's plan. */
static bool is_prepared(const struct exec *exec, uint32_t s) {
    const struct stage_step *step = &exec->stage->steps[s];
    struct op_prep prep = {.node = step->layer->main,
                           .plan = exec->dynamics[s].plan,
                           .threads = step->prepared->threads};
    if (!step->layer->op->kind->size)
        return true;
    return step->layer->op->kind->size(&prep) == 0 &&
           prep.workspace_bytes <= step->prepared->workspace_bytes &&
           (prep.bytes == 0) == (step->prepared->packed == NULL);
}

/* A frame that has found nothing: many operators do not take tensors without elements. What they
 * would make of none is none, where one dimension depends on data. False: no such case. */
static bool plan_nothing(const struct exec *exec, uint32_t s) {
    const struct layer *layer = exec->stage->steps[s].layer;
    const struct op_call *call = &exec->dynamics[s].call;
    bool nothing = false;
    for (size_t i = 0; i < layer->in_count; i++)
        nothing = nothing || (call->in[i] && op_count(call->in[i]) == 0);
    for (size_t i = 0; nothing && i < layer->out_count; i++) {
        if (!call->out[i])
            continue;
        unsigned bounded = layer->out[i]->desc.bounded;
        nothing = bounded != 0 && (bounded & (bounded - 1)) == 0;
        *call->out[i] = layer->out[i]->desc;
        if (nothing)
            call->out[i]->dims[__builtin_ctz(bounded)] = 0;
    }
    return nothing;
}

/* Plans a step for the shapes that came, within the bounds of which its memory was planned.
 * *ret_empty: there is nothing to compute. */
static int plan_step(struct exec *exec, uint32_t s, bool *ret_empty, struct err *err) {
    const struct layer *layer = exec->stage->steps[s].layer;
    struct op_call *call = &exec->dynamics[s].call;
    char is[128], bound[128];
    memset(exec->dynamics[s].plan, 0, layer->op->kind->plan_size);
    call->err = err;
    int rc = layer->op->kind->plan(call, exec->dynamics[s].plan);
    if (rc < 0 && !plan_nothing(exec, s))
        return -EINVAL; /* the data's fault now, not the file's */
    *ret_empty = true;
    for (size_t i = 0; i < layer->out_count; i++) {
        struct tensor_desc *out = call->out[i];
        if (!out)
            continue;
        out->bounded = 0;
        if (!tensor_desc_fits(out, &layer->out[i]->desc))
            return err_set(err, -EINVAL, "output %zu would be %s; at most %s was planned", i,
                           tensor_desc_format(out, is, sizeof(is)),
                           tensor_desc_format(&layer->out[i]->desc, bound, sizeof(bound)));
        *ret_empty = *ret_empty && op_count(out) == 0;
    }
    if (!*ret_empty && !is_prepared(exec, s))
        return err_set(err, -EINVAL, "its weights are not prepared for this shape");
    return 0;
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
            exec->tensors[i].data = exec->arena + buffer->at + stage->slots[i].offset;
    }
    const struct tensor **in = exec->in_refs;
    struct tensor **out = exec->out_refs;
    for (uint32_t s = 0; s < stage->steps_count; s++) {
        bind_step(exec, s, in, out);
        in += stage->steps[s].layer->in_count;
        out += stage->steps[s].layer->out_count;
    }
    if (dynamics_init(exec) < 0) {
        exec_free(exec);
        return err_set(err, -ENOMEM, "no memory to run a stage");
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

static int refuse_input(const struct tensor_desc *input, const struct tensor_desc *bound,
                        struct err *err) {
    char has[128], most[128];
    return err_set(err, -EINVAL, "input '%s' is %s; the model was made for %s", bound->name,
                   tensor_desc_format(input, has, sizeof(has)),
                   tensor_desc_format(bound, most, sizeof(most)));
}

/* Slots that lie in the caller's memory point there. */
static int bind_frame(struct exec *exec, const struct tensor *inputs, const struct tensor *outputs,
                      struct err *err) {
    const struct stage *stage = exec->stage;
    for (uint32_t i = 0; i < stage->slots_count; i++) {
        const struct stage_buffer *buffer = &stage->buffers[stage->slots[i].buffer];
        if (buffer->place == PLACE_INPUT)
            exec->tensors[i].data = (char *)inputs[buffer->at].data + stage->slots[i].offset;
        if (buffer->place == PLACE_INPUT && stage->slots[i].value->desc.bounded &&
            i < stage->model->cuts[stage->first].count) {
            if (!tensor_desc_fits(&inputs[i].desc, &stage->slots[i].value->desc))
                return refuse_input(&inputs[i].desc, &stage->slots[i].value->desc, err);
            exec->tensors[i].desc = inputs[i].desc;
            exec->tensors[i].desc.bounded = 0;
        }
        if (buffer->place == PLACE_OUTPUT)
            exec->tensors[i].data = (char *)outputs[buffer->at].data + stage->slots[i].offset;
    }
    return 0;
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

/* Whether no output has an element: a kernel might still walk the other dimensions, which a small
 * file can make as large as it likes. */
static bool makes_nothing(const struct op_args *args) {
    for (size_t i = 0; i < args->out_count; i++)
        if (args->out[i] && op_count(&args->out[i]->desc) > 0)
            return false;
    return true;
}

static int run_step(struct exec *exec, uint32_t s, struct err *err) {
    const struct stage_step *step = &exec->stage->steps[s];
    struct op_args *args = &exec->args[s];
    bool empty = false;
    int rc = step->layer->dynamic ? plan_step(exec, s, &empty, err) : 0;
    if (rc < 0)
        return err_prefix(err, rc, "layer '%s'", step->layer->info.name);
    if (empty || makes_nothing(args))
        return 0;
    if (step->layer->view) {
        if (step->copies)
            copy_tensor(args->in[0], args->out[0]);
        return 0;
    }
    args->err = err;
    rc = step->layer->op->kind->run(args);
    return rc < 0 ? err_prefix(err, rc, "layer '%s'", step->layer->info.name) : 0;
}

int exec_run(struct exec *exec, const struct tensor *inputs, struct tensor *outputs,
             struct err *err) {
    int bound = bind_frame(exec, inputs, outputs, err);
    if (bound < 0)
        return bound;
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
