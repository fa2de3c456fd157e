#include "daemon/control/held.h"

#include "config/sidecar.h"
#include "proto/message.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool held_is_first(const struct held *held) {
    return held->index == 0;
}

bool held_is_last(const struct held *held) {
    return held->index + 1 == held->count;
}

bool held_is_ready(const struct held *held) {
    return held_is_last(held) || held->next_ready;
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
    stage_unref(held->stage);
    model_unref(held->model);
    plan_free(held->plan);
    free(held);
}

/* Opens the model with the dimensions of the YAML first, then those of its sidecar. */
static int open_model(const struct config *config, struct model **ret_model, struct err *err) {
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

static int make_plan(const struct config *config, struct held *held, struct err *err) {
    size_t layers = model_layers_count(held->model);
    size_t *untils = calloc(config->pipeline_count, sizeof(*untils));
    uint8_t model_id[SHA256_SIZE];
    int rc = 0;
    if (!untils)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < config->pipeline_count && rc == 0; i++) {
        const struct config_stage *stage = &config->pipeline[i];
        if (!stage->until)
            continue;
        rc = model_find_layer(held->model, stage->until, &untils[i], err);
        if (rc < 0)
            err_prefix(err, rc, "%s:%d:%d", config->file, stage->line, stage->column);
    }
    if (rc == 0 && model_identity(held->model, model_id) < 0)
        rc = err_set(err, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = plan_from_config(config, model_id, layers, untils, &held->plan, err);
    free(untils);
    if (rc < 0)
        return rc;
    memcpy(held->id, held->plan->id, SHA256_SIZE);
    held->count = held->plan->count;
    held->index = (size_t)plan_find_node(held->plan, config->node);
    return 0;
}

/* Every message of the plan that comes past this device must fit its limit. */
static int check_payloads(const struct config *config, const struct held *held, struct err *err) {
    const struct plan_stage *stage = &held->plan->stages[held->index];
    const size_t cuts[] = {stage->first, stage->last, model_layers_count(held->model)};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        size_t count, bytes;
        const struct tensor_desc *descs = model_cut(held->model, cuts[i], &count);
        size_t *offsets;
        if (count > MESSAGE_TENSORS_MAX)
            return err_set(err, -EMSGSIZE,
                           "%zu tensors cross the cut before layer %zu; at most %d may", count,
                           cuts[i], MESSAGE_TENSORS_MAX);
        offsets = calloc(count + 1, sizeof(*offsets));
        if (!offsets)
            return err_set(err, -ENOMEM, "out of memory");
        int rc = message_layout(descs, count, offsets, &bytes);
        free(offsets);
        if (rc < 0 || bytes > config->max_payload)
            return err_set(err, -EMSGSIZE,
                           "the tensors at the cut before layer %zu do not fit `max_payload:` (%u "
                           "bytes); raise it on every device",
                           cuts[i], config->max_payload);
    }
    return 0;
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

static int make_execs(const struct config *config, struct held *held, struct err *err) {
    size_t count = (size_t)config->workers;
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

static int make_stage(const struct config *config, struct held *held, struct err *err) {
    const struct plan_stage *stage = &held->plan->stages[held->index];
    const struct stage_options options = {.threads = config->threads};
    int rc = check_payloads(config, held, err);
    if (rc < 0)
        return rc;
    rc = stage_new(held->model, stage->first, stage->last, &options, &held->stage, err);
    if (rc < 0)
        return err_prefix(err, rc, "%s", config->model);
    held->inputs = stage_inputs(held->stage, &held->inputs_count);
    held->outputs = stage_outputs(held->stage, &held->outputs_count);
    rc = hash_inputs(held);
    if (rc == 0)
        rc = lay_out_outputs(held);
    if (rc < 0)
        return err_set(err, rc, "%s: out of memory", config->model);
    return make_execs(config, held, err);
}

static bool is_known(const struct held *held, const uint8_t (*known)[SHA256_SIZE], size_t count) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(held->id, known[i], SHA256_SIZE) == 0)
            return true;
    return false;
}

int held_build(const struct config *config, const uint8_t (*known)[SHA256_SIZE], size_t known_count,
               struct held **ret_held, struct err *err) {
    struct held *held;
    int rc;
    if (config_find_stage(config) < 0) {
        *ret_held = NULL;
        return 0;
    }
    held = calloc(1, sizeof(*held));
    if (!held)
        return err_set(err, -ENOMEM, "out of memory");
    held->refs = 1;
    rc = open_model(config, &held->model, err);
    if (rc == 0)
        rc = make_plan(config, held, err);
    if (rc == 0 && !is_known(held, known, known_count))
        rc = make_stage(config, held, err);
    if (rc < 0) {
        held_unref(held);
        return rc;
    }
    *ret_held = held;
    return 0;
}
