#include "daemon/control/held.h"

#include "config/sidecar.h"
#include "daemon/control/memory.h"
#include "proto/message.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool held_is_first(const struct held *held) {
    return held->index == 0;
}

bool held_is_last(const struct held *held) {
    return held->is_last;
}

bool held_is_ready(const struct held *held) {
    return held_is_last(held) || held->next_ready;
}

bool held_is_whole(const struct held *held) {
    return held_is_last(held) || held->next_whole;
}

const char *held_next_names(const struct held *held, char *buf, size_t size) {
    size_t count, next = plan_next(held->plan, held->index, &count), used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, "%s%s", i > 0 ? " or " : "",
                                 held->plan->stages[next + i].node);
    return buf;
}

const struct model_layer *held_layer(const struct held *held, size_t index) {
    return model_layer(held->model, index - held->base);
}

size_t held_layers_count(const struct held *held) {
    return held->plan->stages[held->count - 1].last;
}

bool held_has_whole_model(const struct held *held) {
    return model_layers_count(held->model) == held_layers_count(held);
}

uint64_t held_memory(const struct held *held) {
    return stage_weight_bytes(held->stage) + stage_arena_bytes(held->stage) * held->execs_count;
}

struct held *held_ref(struct held *held) {
    held->refs++;
    return held;
}

void held_unref(struct held *held) {
    if (!held)
        return;
    assert(held->refs > 0);
    if (--held->refs > 0)
        return;
    for (size_t i = 0; i < held->execs_count; i++)
        exec_free(held->execs[i]);
    free(held->execs);
    free(held->output_offsets);
    free(held->model_name);
    stage_unref(held->stage);
    model_unref(held->model);
    plan_free(held->plan);
    free(held->ranges);
    free(held);
}

int held_open_model(const struct config *config, struct model **ret_model, struct err *err) {
    struct sidecar *sidecar = NULL;
    struct model_dim *dims = NULL;
    size_t count = 0;
    int rc;
    if (!config->model)
        return err_set(err, -EINVAL, "%s:%d: `pipeline:` needs a `model:`", config->file,
                       config->line_pipeline);
    rc = sidecar_load(config->model, &sidecar, err);
    if (rc < 0)
        return rc;
    dims = calloc(config->dims_count + sidecar->dims_count + 1, sizeof(*dims));
    if (!dims) {
        rc = err_set(err, -ENOMEM, "out of memory");
        goto done;
    }
    for (size_t i = 0; i < config->dims_count; i++)
        dims[count++] =
            (struct model_dim){.name = config->dims[i].name, .value = config->dims[i].value};
    for (size_t i = 0; i < sidecar->dims_count; i++)
        dims[count++] =
            (struct model_dim){.name = sidecar->dims[i].name, .value = sidecar->dims[i].value};
    const struct model_options options = {.dims = dims, .dims_count = count};
    rc = model_open(config->model, &options, ret_model, err);
    if (rc < 0)
        err_prefix(err, rc, "%s:%d", config->file, config->line_model);
done:
    free(dims);
    sidecar_free(sidecar);
    return rc;
}

/* The plan of config's pipeline for a model that is open. */
static int make_plan(const struct config *config, const struct model *model, struct plan **ret_plan,
                     struct err *err) {
    size_t layers = model_layers_count(model);
    size_t *untils = calloc(config->pipeline_count, sizeof(*untils));
    uint8_t model_id[SHA256_SIZE];
    int rc = 0;
    if (!untils)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < config->pipeline_count && rc == 0; i++) {
        const struct config_stage *stage = &config->pipeline[i];
        if (!stage->until)
            continue;
        rc = model_find_layer(model, stage->until, &untils[i], err);
        if (rc < 0)
            err_prefix(err, rc, "%s:%d:%d", config->file, stage->line, stage->column);
    }
    if (rc == 0 && model_identity(model, model_id) < 0)
        rc = err_set(err, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = plan_from_config(config, model_id, layers, untils, ret_plan, err);
    free(untils);
    return rc;
}

/* What crosses a cut of the model must fit a message. */
static int check_cut(const struct held_order *order, size_t at, struct err *err) {
    size_t count, bytes;
    const struct tensor_desc *descs = model_cut(order->model, at, &count);
    size_t *offsets;
    if (count > MESSAGE_TENSORS_MAX)
        return err_set(err, -EMSGSIZE, "%zu tensors cross the cut before layer %zu; at most %d may",
                       count, order->base + at, MESSAGE_TENSORS_MAX);
    offsets = calloc(count + 1, sizeof(*offsets));
    if (!offsets)
        return err_set(err, -ENOMEM, "out of memory");
    int rc = message_layout(descs, count, offsets, &bytes);
    free(offsets);
    if (rc < 0 || bytes > order->settings.max_payload)
        return err_set(err, -EMSGSIZE,
                       "the tensors at the cut before layer %zu do not fit `max_payload:` (%u "
                       "bytes); raise it on every device",
                       order->base + at, order->settings.max_payload);
    return 0;
}

/* Every message of the plan that comes past this device must fit its limit. */
static int check_payloads(const struct held_order *order, struct err *err) {
    const struct plan_stage *stage = &order->plan->stages[order->index];
    int rc = check_cut(order, stage->first - order->base, err);
    if (rc == 0)
        rc = check_cut(order, stage->last - order->base, err);
    if (rc == 0)
        rc = check_cut(order, model_layers_count(order->model), err);
    if (rc == 0 && order->result_bytes > order->settings.max_payload)
        rc = err_set(err, -EMSGSIZE,
                     "a result of %zu bytes does not fit `max_payload:` (%u bytes); raise it on "
                     "every device",
                     order->result_bytes, order->settings.max_payload);
    return rc;
}

static int hash_inputs(struct held *held) {
    char text[TENSOR_MAX_RANK * 24 + 64];
    size_t size = 0;
    char *all = NULL;
    FILE *file = open_memstream(&all, &size);
    if (!file)
        return -ENOMEM;
    for (size_t i = 0; i < held->inputs_count; i++)
        fprintf(file, "%s %s\n", held->inputs[i].name,
                tensor_desc_format(&held->inputs[i], text, sizeof(text)));
    int rc = fclose(file) == 0 ? sha256(all, size, held->inputs_id) : -ENOMEM;
    free(all);
    return rc;
}

/* What is plausible for the inputs; where nothing was seen, everything is. */
static int find_ranges(const struct ranges *ranges, struct held *held) {
    if (!ranges)
        return 0;
    held->ranges = calloc(held->inputs_count + 1, sizeof(*held->ranges));
    if (!held->ranges)
        return -ENOMEM;
    for (size_t i = 0; i < held->inputs_count; i++) {
        const struct ranges_entry *entry = ranges_find(ranges, held->inputs[i].name);
        struct held_range *range = &held->ranges[i];
        *range = (struct held_range){-INFINITY, INFINITY};
        if (entry)
            ranges_widen(entry, &range->min, &range->max);
    }
    return 0;
}

/* What a message with tensors has at most as payload; they have been checked. */
static size_t payload_bytes(const struct tensor_desc *descs, size_t count) {
    size_t total = 0, bytes;
    for (size_t i = 0; i < count; i++)
        if (tensor_desc_bytes(&descs[i], &bytes) == 0)
            total += (bytes + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
    return total;
}

/* Where a frame's outputs go: those that are computed lie one behind the other. */
static int lay_out_outputs(struct held *held) {
    held->output_offsets = calloc(held->outputs_count + 1, sizeof(*held->output_offsets));
    if (!held->output_offsets)
        return -ENOMEM;
    for (size_t i = 0; i < held->outputs_count; i++) {
        size_t bytes;
        int rc = tensor_desc_bytes(&held->outputs[i], &bytes);
        if (rc < 0)
            return rc;
        bytes = (bytes + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN; /* fits: checked above */
        held->payload_bytes += bytes;
        if (stage_output_source(held->stage, i) >= 0)
            continue;
        held->output_offsets[i] = held->output_bytes;
        held->output_bytes += bytes;
    }
    return 0;
}

/* What weights or arenas take must be there before it is taken: the kernel would not refuse it, but
 * kill a process for it later. */
static int check_memory(const struct held_order *order, uint64_t have, uint64_t more,
                        const char *what, struct err *err) {
    uint64_t left = memory_available(), limit = order->settings.memory;
    if (have > limit || more > limit - have)
        return err_set(err, -ENOMEM,
                       "%s of this stage take %" PRIu64 " MB, more than `memory:` leaves (%" PRIu64
                       " MB)",
                       what, more / 1000000, have > limit ? 0 : (limit - have) / 1000000);
    if (more > left)
        return err_set(err, -ENOMEM,
                       "%s of this stage take %" PRIu64 " MB, but the system has %" PRIu64
                       " MB left",
                       what, more / 1000000, left / 1000000);
    return 0;
}

static int make_execs(const struct held_settings *settings, struct held *held, struct err *err) {
    size_t count = (size_t)settings->workers;
    held->execs = calloc(count, sizeof(*held->execs));
    if (!held->execs)
        return err_set(err, -ENOMEM, "out of memory");
    for (; held->execs_count < count; held->execs_count++) {
        int rc = exec_new(held->stage, &held->execs[held->execs_count], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int make_stage(const struct held_order *order, struct held *held, struct err *err) {
    const struct plan_stage *stage = &order->plan->stages[order->index];
    const struct stage_options options = {.threads = order->settings.threads};
    size_t first = stage->first - order->base, last = stage->last - order->base;
    uint64_t weights = 0, arenas;
    size_t count;
    for (size_t i = first; i < last; i++)
        weights += model_layer(order->model, i)->weight_bytes;
    int rc = check_payloads(order, err);
    if (rc == 0)
        rc = check_memory(order, 0, weights, "the weights", err);
    if (rc == 0)
        rc = stage_new(order->model, first, last, &options, &held->stage, err);
    if (rc < 0)
        return err_prefix(err, rc, "%s", order->where);
    held->inputs = stage_inputs(held->stage, &held->inputs_count);
    held->outputs = stage_outputs(held->stage, &held->outputs_count);
    held->input_bytes = payload_bytes(held->inputs, held->inputs_count);
    const struct tensor_desc *results =
        model_cut(order->model, model_layers_count(order->model), &count);
    held->result_bytes = order->result_bytes ? order->result_bytes : payload_bytes(results, count);
    rc = hash_inputs(held);
    if (rc == 0)
        rc = find_ranges(order->ranges, held);
    if (rc == 0)
        rc = lay_out_outputs(held);
    if (rc < 0)
        return err_set(err, rc, "%s: out of memory", order->where);
    arenas = stage_arena_bytes(held->stage) * (uint64_t)order->settings.workers;
    rc = check_memory(order, stage_weight_bytes(held->stage), arenas, "the arenas", err);
    return rc < 0 ? err_prefix(err, rc, "%s", order->where)
                  : make_execs(&order->settings, held, err);
}

struct held *held_new_known(struct plan *plan, size_t index) {
    struct held *held = calloc(1, sizeof(*held));
    if (!held)
        return NULL;
    held->refs = 1;
    held->plan = plan;
    held->index = index;
    held->count = plan->count;
    held->is_last = plan->stages[index].last == plan->stages[plan->count - 1].last;
    memcpy(held->id, plan->id, SHA256_SIZE);
    return held;
}

int held_build_order(const struct held_order *order, struct held **ret_held, struct err *err) {
    struct held *held = held_new_known(order->plan, order->index);
    if (!held)
        return err_set(err, -ENOMEM, "out of memory");
    held->model = model_ref(order->model);
    held->base = order->base;
    held->is_deployed = order->is_deployed;
    held->model_name = strdup(order->model_name);
    int rc =
        held->model_name ? make_stage(order, held, err) : err_set(err, -ENOMEM, "out of memory");
    if (rc < 0) {
        held->plan = NULL; /* it stays the caller's */
        held_unref(held);
        return rc;
    }
    *ret_held = held;
    return 0;
}

/* The ranges beside config's model, where somebody looks at them. */
static int load_ranges(const struct config *config, const struct model *model,
                       struct ranges **ret_ranges, struct err *err) {
    char hex[SHA256_HEX];
    *ret_ranges = NULL;
    if (config->bad_values == CONFIG_IGNORE)
        return 0;
    int rc = ranges_load(config->model, ret_ranges, err);
    if (rc == 0 && *ret_ranges &&
        strcmp((*ret_ranges)->model, sha256_format(model_digest(model), hex)) != 0) {
        ranges_free(*ret_ranges);
        *ret_ranges = NULL;
        rc = err_set(err, -ESTALE,
                     "the ranges beside %s were seen with another model: run convoyctl calibrate "
                     "again, or remove them",
                     config->model);
    }
    return rc;
}

static bool is_known(const uint8_t *id, const uint8_t (*known)[SHA256_SIZE], size_t count) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(id, known[i], SHA256_SIZE) == 0)
            return true;
    return false;
}

/* A line that plans itself needs no stage yet, but a model that can be opened. */
static int check_model(const struct config *config, struct err *err) {
    struct model *model = NULL;
    int rc = held_open_model(config, &model, err);
    model_unref(model);
    return rc;
}

int held_build(const struct config *config, const uint8_t (*known)[SHA256_SIZE], size_t known_count,
               struct held **ret_held, struct err *err) {
    struct held_order order = {
        .where = config->model,
        .settings = {.workers = config->workers,
                     .threads = config->threads,
                     .max_payload = config->max_payload,
                     .memory = config->memory ? config->memory : UINT64_MAX},
    };
    struct ranges *ranges = NULL;
    struct held *held = NULL;
    int rc;
    if (config_find_stage(config) < 0) {
        rc = config->pipeline_auto ? check_model(config, err) : 0;
        if (rc == 0)
            *ret_held = NULL;
        return rc;
    }
    rc = held_open_model(config, &order.model, err);
    if (rc == 0)
        rc = load_ranges(config, order.model, &ranges, err);
    if (rc == 0)
        rc = make_plan(config, order.model, &order.plan, err);
    if (rc < 0)
        goto done;
    order.ranges = ranges;
    order.index = (size_t)plan_find_node(order.plan, config->node);
    order.model_name = basename(config->model);
    if (!is_known(order.plan->id, known, known_count))
        rc = held_build_order(&order, &held, err);
    else if (!(held = held_new_known(order.plan, order.index)))
        rc = err_set(err, -ENOMEM, "out of memory");
done:
    ranges_free(ranges);
    model_unref(order.model);
    if (rc < 0)
        plan_free(order.plan);
    else
        *ret_held = held;
    return rc;
}
