/* What the builder does for a deployment, and what it needs to know for that. */
#include "daemon/control/deploy_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the request -------------------------------------------------------------------------------
 */

static int copy_stages(struct deployment *deployment, const struct deploy_request *request) {
    for (size_t i = 0; i < deployment->count; i++) {
        const struct deploy_stage *stage = &request->stages[i];
        struct deploy_device *device = &deployment->devices[i];
        bool is_last = i + 1 == deployment->count;
        device->node = strdup(stage->node);
        device->address = strdup(stage->address);
        deployment->requests[i] = (struct plan_request){.node = device->node,
                                                        .address = device->address,
                                                        .until = stage->until,
                                                        .shares = stage->shares};
        if (stage->until_name && stage->until_name[0] && !is_last)
            deployment->until_names[i] = strdup(stage->until_name);
        if (!device->node || !device->address ||
            (stage->until_name && stage->until_name[0] && !is_last && !deployment->until_names[i]))
            return -ENOMEM;
    }
    return 0;
}

/* The whole model, where a held plan has the configuration's. Its dimensions may have been given
 * anew since: then it is opened again. */
static struct model *find_model(const struct device *device) {
    for (size_t i = 0; i < device->plans.count; i++) {
        const struct held *held = device->plans.plans[i];
        if (held_has_whole_model(held) &&
            strcmp(model_path(held->model), device->config->model) == 0 &&
            device->config->dims_count == 0)
            return held->model;
    }
    return NULL;
}

static void copy_known(const struct device *device, struct deployment *deployment) {
    deployment->settings = device_settings(device);
    for (size_t i = 0; i < device->plans.count; i++) {
        const struct held *held = device->plans.plans[i];
        memcpy(deployment->known[deployment->known_count++], held->id, SHA256_SIZE);
        memcpy(deployment->keep[deployment->keep_count++], held->part, SHA256_SIZE);
    }
}

struct deployment *deploy_copy_request(struct device *device,
                                       const struct deploy_request *request) {
    struct deployment *deployment = calloc(1, sizeof(*deployment));
    size_t count = request->count;
    struct model *model;
    assert(count > 0); /* check_request() */
    if (!deployment)
        return NULL;
    deployment->deploy = device->deploy;
    deployment->done = request->done;
    deployment->arg = request->arg;
    deployment->keep_addresses = request->keep_addresses;
    deployment->is_retried = request->is_retried;
    deployment->away_ms = request->away_ms ? request->away_ms : DEPLOY_AWAY_MS;
    TAILQ_INSERT_HEAD(&device->deploy->all, deployment, entry);
    deployment->devices = calloc(count, sizeof(*deployment->devices));
    deployment->targets = calloc(count, sizeof(*deployment->targets));
    deployment->requests = calloc(count, sizeof(*deployment->requests));
    deployment->until_names = calloc(count, sizeof(*deployment->until_names));
    if (!deployment->devices || !deployment->targets || !deployment->requests ||
        !deployment->until_names || config_copy_for_model(device->config, &deployment->config) < 0)
        goto fail;
    deployment->count = count;
    for (size_t i = 0; i < count; i++) {
        deployment->targets[i].deployment = deployment;
        deployment->targets[i].fd = -1;
    }
    if (copy_stages(deployment, request) < 0)
        goto fail;
    if (request->model_digest) {
        memcpy(deployment->model_digest, request->model_digest, SHA256_SIZE);
        deployment->has_digest = true;
    }
    copy_known(device, deployment);
    model = find_model(device);
    deployment->model = model ? model_ref(model) : NULL;
    return deployment;
fail:
    deploy_free(deployment);
    return NULL;
}

/* ---- building -------------------------------------------------------------------------------- */

static int make_plan(struct deployment *deployment) {
    size_t layers = model_layers_count(deployment->model);
    uint8_t model_id[SHA256_SIZE];
    int rc = 0;
    if (deployment->has_digest &&
        memcmp(deployment->model_digest, model_digest(deployment->model), SHA256_SIZE) != 0)
        return err_set(&deployment->err, -EINVAL,
                       "the plan is meant for another model than %s, which this ingress has",
                       deployment->config->model);
    for (size_t i = 0; i + 1 < deployment->count && rc == 0; i++) {
        struct plan_request *request = &deployment->requests[i];
        if (!deployment->until_names[i])
            continue;
        rc = model_find_layer(deployment->model, deployment->until_names[i], &request->until,
                              &deployment->err);
        if (rc < 0)
            return err_prefix(&deployment->err, -EINVAL, "stage %zu (%s)", i + 1, request->node);
    }
    for (size_t i = deployment->count; i-- > 0;) { /* of the last stage */
        deployment->requests[i].until = layers - 1;
        if (!deployment->requests[i].shares)
            break;
    }
    if (model_identity(deployment->model, model_id) < 0)
        return err_set(&deployment->err, -ENOMEM, "out of memory");
    return plan_build(model_id, layers, deployment->requests, deployment->count, &deployment->plan,
                      &deployment->err);
}

/* The plan once more, for held to own. */
static int copy_plan(const struct deployment *deployment, struct plan **ret_plan, struct err *err) {
    const struct plan *plan = deployment->plan;
    return plan_build(plan->model_id, plan->stages[plan->count - 1].last, deployment->requests,
                      deployment->count, ret_plan, err);
}

static bool is_known(const struct deployment *deployment) {
    for (size_t i = 0; i < deployment->known_count; i++)
        if (memcmp(deployment->known[i], deployment->plan->id, SHA256_SIZE) == 0)
            return true;
    return false;
}

/* The ingress' own stage. */
static int build_own(struct deployment *deployment) {
    struct held_order order = {.model = deployment->model,
                               .model_name = basename(deployment->config->model),
                               .where = deployment->config->model,
                               .is_deployed = true,
                               .settings = deployment->settings};
    int rc = copy_plan(deployment, &order.plan, &deployment->err);
    if (rc < 0)
        return rc;
    if (!is_known(deployment))
        rc = held_build_order(&order, &deployment->held, &deployment->err);
    else if (!(deployment->held = held_new_known(order.plan, 0)))
        rc = err_set(&deployment->err, -ENOMEM, "out of memory");
    if (rc < 0)
        plan_free(order.plan);
    return rc;
}

static struct memo *find_memo(struct deploy *deploy, const struct plan *plan, size_t index) {
    for (size_t i = 0; i < MEMO_MAX; i++) {
        struct memo *memo = &deploy->memos[i];
        if (memo->last > 0 && memo->first == plan->stages[index].first &&
            memo->last == plan->stages[index].last &&
            memcmp(memo->model, plan->model_id, SHA256_SIZE) == 0)
            return memo;
    }
    return NULL;
}

static void note_memo(struct deploy *deploy, const struct plan *plan, size_t index,
                      const uint8_t digest[SHA256_SIZE]) {
    struct memo *memo = find_memo(deploy, plan, index);
    if (!memo)
        memo = &deploy->memos[deploy->memos_next++ % MEMO_MAX];
    memcpy(memo->model, plan->model_id, SHA256_SIZE);
    memcpy(memo->digest, digest, SHA256_SIZE);
    memo->first = plan->stages[index].first;
    memo->last = plan->stages[index].last;
}

/* Writes the file of stage index into the cache. Before, nobody knows its size: its numbers have
 * four bytes each at most, but for a few. */
static int write_part(struct deployment *deployment, size_t index, char **ret_path) {
    struct deploy *deploy = deployment->deploy;
    const struct plan_stage *stage = &deployment->plan->stages[index];
    const struct cache_keep keep = {(const uint8_t(*)[SHA256_SIZE])deployment->keep,
                                    deployment->keep_count};
    struct target *target = &deployment->targets[index];
    struct cache *cache = deploy->device->cache;
    uint64_t bytes = 1 << 20;
    char *path = NULL;
    int rc;
    for (size_t i = stage->first; i < stage->last; i++)
        bytes += 4 * model_layer(deployment->model, i)->params;
    rc = cache_make_room(cache, bytes, &keep, &deployment->err);
    if (rc < 0)
        return rc;
    if (asprintf(&path, "%s/" CACHE_NEW "part", cache_folder(cache)) < 0)
        return err_set(&deployment->err, -ENOMEM, "out of memory");
    rc = model_write_part(deployment->model, stage->first, stage->last, path, &deployment->err);
    if (rc == 0)
        rc = cache_adopt(cache, path, target->part, &target->part_bytes, &deployment->err);
    free(path);
    if (rc < 0)
        return rc;
    note_memo(deploy, deployment->plan, index, target->part);
    rc = cache_find(cache, target->part, ret_path, &target->part_bytes);
    return rc < 0 ? err_set(&deployment->err, rc, "%s", strerror(-rc)) : 0;
}

/* The part of one device: from the cache, or written into it; open for reading, so that it stays
 * readable whatever becomes of its name. */
static int make_part(struct deployment *deployment, size_t index) {
    struct deploy *deploy = deployment->deploy;
    struct target *target = &deployment->targets[index];
    const struct memo *memo = find_memo(deploy, deployment->plan, index);
    char *path = NULL;
    int rc = 0;
    if (memo)
        memcpy(target->part, memo->digest, SHA256_SIZE);
    if (!memo || cache_find(deploy->device->cache, target->part, &path, &target->part_bytes) < 0)
        rc = write_part(deployment, index, &path);
    if (rc < 0)
        return err_prefix(&deployment->err, rc, "the part for %s", deployment->devices[index].node);
    target->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (target->fd < 0)
        rc = err_set(&deployment->err, -errno, "%s: %s", path, strerror(errno));
    free(path);
    deployment->devices[index].part_bytes = target->part_bytes;
    memcpy(deployment->keep[deployment->keep_count++], target->part, SHA256_SIZE);
    return rc;
}

static int measure_result(struct deployment *deployment) {
    size_t count, *offsets;
    const struct tensor_desc *outputs =
        model_cut(deployment->model, model_layers_count(deployment->model), &count);
    offsets = calloc(count + 1, sizeof(*offsets));
    if (!offsets)
        return err_set(&deployment->err, -ENOMEM, "out of memory");
    int rc = message_layout(outputs, count, offsets, &deployment->result_bytes);
    free(offsets);
    return rc < 0 ? err_set(&deployment->err, rc, "the model's outputs fit no message") : 0;
}

void deploy_build(struct job *job) {
    struct deployment *deployment = (struct deployment *)(uintptr_t)job;
    const struct config *config = deployment->config;
    const struct cache_limits limits = {config->cache, (size_t)config->limits.parts};
    struct cache **cache = &deployment->deploy->device->cache;
    int rc = deployment->model ? 0 : held_open_model(config, &deployment->model, &deployment->err);
    if (rc == 0)
        rc = make_plan(deployment);
    if (rc == 0)
        rc = measure_result(deployment);
    if (rc == 0)
        rc = build_own(deployment);
    if (rc == 0 && deployment->count > 1)
        rc = cache_use(cache, config->state, &limits, &deployment->err);
    for (size_t i = 1; i < deployment->count && rc == 0; i++)
        rc = make_part(deployment, i);
    if (*cache)
        cache_get_usage(*cache, &deployment->usage);
    deployment->rc = rc;
}
