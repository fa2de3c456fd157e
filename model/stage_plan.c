/* The memory of a stage: which tensors share bytes, and where those lie. Neither changes a bit of
 * what is computed. */
#include "model/memplan.h"
#include "model/ops/kinds.h"
#include "model/stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* While planning: slot of each value of the graph, by id. */
struct planning {
    struct stage *stage;
    uint32_t *slot_of;
};

static uint32_t slot_of(const struct planning *p, const struct value *value) {
    return value && !value->constant ? p->slot_of[value->id] : STAGE_NONE;
}

static uint32_t slot_add(struct planning *p, const struct value *value, uint32_t last_use) {
    uint32_t slot = p->stage->slots_count++;
    p->stage->slots[slot] =
        (struct stage_slot){.value = value, .buffer = STAGE_NONE, .last_use = last_use};
    p->slot_of[value->id] = slot;
    return slot;
}

/* Every array that the stage needs, at its largest. */
static int allocate(struct planning *p) {
    struct stage *stage = p->stage;
    const struct cut *inputs = &stage->model->cuts[stage->first];
    size_t slots = inputs->count, links = 0, outputs = stage->outputs_count + 1;
    for (uint32_t s = 0; s < stage->steps_count; s++) {
        slots += stage->steps[s].layer->out_count;
        links += stage->steps[s].layer->in_count + stage->steps[s].layer->out_count;
    }
    stage->slots = calloc(slots + 1, sizeof(*stage->slots));
    stage->buffers = calloc(slots + 1, sizeof(*stage->buffers));
    stage->indices = calloc(links + 1, sizeof(*stage->indices));
    stage->output_slots = calloc(outputs, sizeof(*stage->output_slots));
    stage->output_sources = calloc(outputs, sizeof(*stage->output_sources));
    stage->output_copies = calloc(outputs, sizeof(*stage->output_copies));
    stage->output_constants = calloc(outputs, sizeof(*stage->output_constants));
    p->slot_of = malloc((stage->model->graph->values_count + 1) * sizeof(*p->slot_of));
    if (!stage->slots || !stage->buffers || !stage->indices || !stage->output_slots ||
        !stage->output_sources || !stage->output_copies || !stage->output_constants || !p->slot_of)
        return -ENOMEM;
    memset(p->slot_of, 0xff, (stage->model->graph->values_count + 1) * sizeof(*p->slot_of));
    return 0;
}

/* Slots of inputs and of what the layers make; steps are linked to them. */
static void link_slots(struct planning *p) {
    struct stage *stage = p->stage;
    const struct cut *inputs = &stage->model->cuts[stage->first];
    uint32_t *next = stage->indices;
    for (size_t i = 0; i < inputs->count; i++)
        slot_add(p, inputs->values[i], 0);
    for (uint32_t s = 0; s < stage->steps_count; s++) {
        struct stage_step *step = &stage->steps[s];
        const struct layer *layer = step->layer;
        step->in = next;
        for (size_t i = 0; i < layer->in_count; i++, next++) {
            *next = slot_of(p, layer->in[i]);
            if (*next != STAGE_NONE)
                stage->slots[*next].last_use = s;
        }
        step->residual = slot_of(p, layer->residual);
        if (step->residual != STAGE_NONE)
            stage->slots[step->residual].last_use = s;
        step->out = next;
        for (size_t i = 0; i < layer->out_count; i++, next++)
            *next = layer->out[i] ? slot_add(p, layer->out[i], s) : STAGE_NONE;
    }
}

static int link_outputs(struct planning *p, struct err *err) {
    struct stage *stage = p->stage;
    const struct cut *outputs = &stage->model->cuts[stage->last];
    for (size_t i = 0; i < outputs->count; i++) {
        struct value *value = outputs->values[i];
        uint32_t slot = p->slot_of[value->id];
        stage->output_slots[i] = slot;
        stage->output_sources[i] = -1;
        if (slot != STAGE_NONE) {
            stage->slots[slot].last_use = stage->steps_count;
            continue;
        }
        const struct constant *constant;
        fold_lock(stage->model->fold);
        int rc = fold_numbers(stage->model->fold, value, &constant, err);
        struct tensor *copy = &stage->output_constants[i];
        if (rc == 0) {
            copy->desc = constant->desc;
            copy->data = tensor_buffer_new(constant->bytes);
            rc = copy->data ? 0 : -ENOMEM;
        }
        if (rc == 0)
            memcpy(copy->data, constant->data, constant->bytes);
        fold_unlock(stage->model->fold);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- sharing ---- */

static struct stage_buffer *buffer_of(struct stage *stage, uint32_t slot) {
    return &stage->buffers[stage->slots[slot].buffer];
}

static size_t slot_bytes(const struct stage *stage, uint32_t slot) {
    size_t bytes = 0;
    tensor_desc_bytes(&stage->slots[slot].value->desc, &bytes);
    return bytes;
}

static void buffer_join(struct stage *stage, uint32_t slot, uint32_t buffer, size_t offset) {
    stage->slots[slot].buffer = buffer;
    stage->slots[slot].offset = offset;
    if (stage->buffers[buffer].to < stage->slots[slot].last_use)
        stage->buffers[buffer].to = stage->slots[slot].last_use;
}

static void buffer_add(struct stage *stage, uint32_t slot, uint32_t step) {
    stage->buffers[stage->buffers_count] = (struct stage_buffer){
        .place = PLACE_ARENA, .bytes = slot_bytes(stage, slot), .from = step, .to = step};
    buffer_join(stage, slot, stage->buffers_count++, 0);
}

/* Whether step may write its result over a slot that it reads as input `but` (or as residual). */
static bool may_overwrite(struct stage *stage, uint32_t s, uint32_t slot, size_t but,
                          bool as_residual) {
    const struct stage_step *step = &stage->steps[s];
    if (slot == STAGE_NONE || step->out[0] == STAGE_NONE || step->layer->dynamic)
        return false;
    const struct stage_buffer *buffer = buffer_of(stage, slot);
    if (buffer->place == PLACE_INPUT || buffer->to != s ||
        !tensor_desc_same(&stage->slots[slot].value->desc, &stage->slots[step->out[0]].value->desc))
        return false;
    uint32_t id = stage->slots[slot].buffer;
    for (size_t i = 0; i < step->layer->in_count; i++)
        if (i != but && step->in[i] != STAGE_NONE && stage->slots[step->in[i]].buffer == id)
            return false;
    return as_residual || step->residual == STAGE_NONE || stage->slots[step->residual].buffer != id;
}

/* The slot whose bytes the result of a step takes over, or STAGE_NONE. */
static uint32_t overwritten(struct stage *stage, uint32_t s) {
    const struct stage_step *step = &stage->steps[s];
    const struct layer *layer = step->layer;
    if (layer->residual && may_overwrite(stage, s, step->residual, SIZE_MAX, true))
        return step->residual;
    if (!(layer->op->kind->flags & OP_INPLACE))
        return STAGE_NONE;
    for (size_t i = 0; i < layer->in_count && i < 2; i++)
        if (may_overwrite(stage, s, step->in[i], i, false))
            return step->in[i];
    return STAGE_NONE;
}

/* Whether the step's tensors are parts of one, one behind the other in memory. */
static bool has_parts(const struct stage_step *step, const struct op_kind *kind) {
    const struct layer *layer = step->layer;
    return layer->op->kind == kind && !layer->view && !layer->dynamic &&
           joint_outer(layer->plan) == 1;
}

/* Whether the buffer of a concatenation's input can be a piece of the result's: all of it is that
 * input, in whatever shape, and nobody reads it when the result is no longer a mere copy. */
static bool may_move(struct stage *stage, uint32_t s, uint32_t slot) {
    if (slot == STAGE_NONE || stage->slots[slot].value->desc.bounded)
        return false;
    const struct stage_buffer *buffer = buffer_of(stage, slot);
    bool changes = stage->steps[s].layer->act.kind != KN_ACT_NONE;
    return buffer->place == PLACE_ARENA && buffer->bytes == slot_bytes(stage, slot) &&
           buffer->to < stage->steps_count && (!changes || buffer->to <= s);
}

/* Slots of buffer `from` lie in buffer `to` now. */
static void buffer_move(struct stage *stage, uint32_t from, uint32_t to, size_t offset) {
    struct stage_buffer *old = &stage->buffers[from], *joint = &stage->buffers[to];
    for (uint32_t i = 0; i < stage->slots_count; i++)
        if (stage->slots[i].buffer == from)
            buffer_join(stage, i, to, stage->slots[i].offset + offset);
    joint->from = old->from < joint->from ? old->from : joint->from;
    joint->to = old->to > joint->to ? old->to : joint->to;
    old->bytes = 0;
}

/* Inputs of a concatenation are made where they will be. */
static void join_inputs(struct stage *stage, uint32_t s) {
    const struct stage_step *step = &stage->steps[s];
    size_t offset = 0, bytes;
    if (step->out[0] == STAGE_NONE)
        return;
    uint32_t joint = stage->slots[step->out[0]].buffer;
    for (size_t i = 0; i < step->layer->in_count; i++, offset += bytes) {
        bytes = 0;
        tensor_desc_bytes(&step->layer->in[i]->desc, &bytes);
        if (bytes > 0 && may_move(stage, s, step->in[i]))
            buffer_move(stage, stage->slots[step->in[i]].buffer, joint, offset);
    }
}

/* Outputs of a Split are pieces of its input. False when one of them is not wanted: then where the
 * others begin is not known here. */
static bool split_input(struct stage *stage, uint32_t s) {
    const struct stage_step *step = &stage->steps[s];
    if (step->in[0] == STAGE_NONE || stage->slots[step->in[0]].value->desc.bounded)
        return false;
    size_t offset = stage->slots[step->in[0]].offset;
    for (size_t i = 0; i < step->layer->out_count; i++)
        if (step->out[i] == STAGE_NONE)
            return false;
    for (size_t i = 0; i < step->layer->out_count; i++) {
        buffer_join(stage, step->out[i], stage->slots[step->in[0]].buffer, offset);
        offset += slot_bytes(stage, step->out[i]);
    }
    return true;
}

static void share_outputs(struct stage *stage, uint32_t s) {
    struct stage_step *step = &stage->steps[s];
    uint32_t over = step->layer->view ? step->in[0] : overwritten(stage, s);
    step->copies = step->layer->view && over == STAGE_NONE;
    for (size_t i = 0; i < step->layer->out_count; i++) {
        if (step->out[i] == STAGE_NONE)
            continue;
        if (i == 0 && over != STAGE_NONE)
            buffer_join(stage, step->out[0], stage->slots[over].buffer, stage->slots[over].offset);
        else
            buffer_add(stage, step->out[i], s);
    }
}

static void share_buffers(struct stage *stage) {
    size_t inputs = stage->model->cuts[stage->first].count;
    for (uint32_t slot = 0; slot < inputs; slot++) {
        buffer_add(stage, slot, 0);
        buffer_of(stage, slot)->place = PLACE_INPUT;
        buffer_of(stage, slot)->at = slot;
    }
    for (uint32_t s = 0; s < stage->steps_count; s++) {
        if (has_parts(&stage->steps[s], &kind_split) && split_input(stage, s))
            continue;
        share_outputs(stage, s);
        if (has_parts(&stage->steps[s], &kind_concat))
            join_inputs(stage, s);
    }
}

/* The first output that is all of a buffer is where it lies; others of the same bytes are copied.
 */
static void place_outputs(struct stage *stage) {
    for (size_t i = 0; i < stage->outputs_count; i++) {
        uint32_t slot = stage->output_slots[i];
        if (slot == STAGE_NONE) {
            stage->output_copies[i] = true;
            continue;
        }
        struct stage_buffer *buffer = buffer_of(stage, slot);
        bool whole = buffer->bytes == slot_bytes(stage, slot);
        if (whole && buffer->place == PLACE_INPUT) {
            stage->output_sources[i] = (int)buffer->at;
        } else if (!whole || buffer->place == PLACE_OUTPUT) {
            stage->output_copies[i] = true;
        } else {
            buffer->place = PLACE_OUTPUT;
            buffer->at = i;
        }
    }
}

/* ---- the arena ---- */

static int place_arena(struct stage *stage) {
    size_t count = 0;
    struct memplan_buffer *plan =
        calloc((size_t)stage->buffers_count + stage->steps_count + 1, sizeof(*plan));
    if (!plan)
        return -ENOMEM;
    for (uint32_t i = 0; i < stage->buffers_count; i++)
        if (stage->buffers[i].place == PLACE_ARENA)
            plan[count++] = (struct memplan_buffer){.bytes = stage->buffers[i].bytes,
                                                    .from = stage->buffers[i].from,
                                                    .to = stage->buffers[i].to};
    for (uint32_t s = 0; s < stage->steps_count; s++)
        plan[count++] = (struct memplan_buffer){
            .bytes = stage->steps[s].prepared->workspace_bytes, .from = s, .to = s};
    int rc = memplan_place(plan, count, &stage->arena_bytes);
    count = 0;
    for (uint32_t i = 0; i < stage->buffers_count; i++)
        if (stage->buffers[i].place == PLACE_ARENA)
            stage->buffers[i].at = plan[count++].offset;
    for (uint32_t s = 0; s < stage->steps_count; s++)
        stage->steps[s].workspace = plan[count++].offset;
    free(plan);
    return rc;
}

int stage_plan(struct stage *stage, struct err *err) {
    struct planning p = {.stage = stage};
    int rc = allocate(&p);
    if (rc == 0) {
        link_slots(&p);
        rc = link_outputs(&p, err);
    }
    if (rc == 0) {
        share_buffers(stage);
        place_outputs(stage);
        rc = place_arena(stage);
    }
    free(p.slot_of);
    return rc == -ENOMEM || rc == -EOVERFLOW ? err_set(err, rc, "no memory for a stage") : rc;
}
