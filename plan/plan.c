#include "plan/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char id_form[] = "convoy plan 1\n";

/* What a stage must fulfil after those before it, the first of which are good. */
static int check_stage(size_t layers, const struct plan_request *requests, size_t count, size_t i,
                       struct err *err) {
    const struct plan_request *stage = &requests[i];
    size_t first = i > 0 ? requests[i - 1].until + 1 : 0;
    bool is_last = i + 1 == count;
    for (size_t j = 0; j < i; j++) {
        if (strcmp(requests[j].node, stage->node) == 0)
            return err_set(err, -EINVAL,
                           "node '%s' has stage %zu already, stage %zu must be another's",
                           stage->node, j + 1, i + 1);
    }
    if (stage->until >= layers)
        return err_set(err, -EINVAL,
                       "stage %zu ('%s') would end with layer %zu, but the model's last is %zu",
                       i + 1, stage->node, stage->until, layers - 1);
    if (stage->until < first)
        return err_set(err, -EINVAL,
                       "stage %zu ('%s') would end with layer %zu, which stage %zu ('%s') has run "
                       "already: it ends with layer %zu",
                       i + 1, stage->node, stage->until, i, stage[-1].node, stage[-1].until);
    if (!is_last && stage->until == layers - 1)
        return err_set(
            err, -EINVAL,
            "stage %zu ('%s') ends with the model's last layer %zu, which leaves nothing "
            "for stage %zu ('%s')",
            i + 1, stage->node, stage->until, i + 2, stage[1].node);
    if (is_last && stage->until != layers - 1)
        return err_set(err, -EINVAL,
                       "stage %zu ('%s') is the last and must run to the model's last layer %zu, "
                       "not to %zu",
                       i + 1, stage->node, layers - 1, stage->until);
    return 0;
}

/* Checks all; on -EINVAL *ret_bad is the stage at fault. */
static int check_requests(size_t layers, const struct plan_request *requests, size_t count,
                          size_t *ret_bad, struct err *err) {
    *ret_bad = 0;
    if (count == 0)
        return err_set(err, -EINVAL, "a plan needs at least one stage");
    if (layers < count) {
        *ret_bad = layers;
        return err_set(err, -EINVAL, "%zu stages, but the model has only %zu layers", count,
                       layers);
    }
    for (size_t i = 0; i < count; i++) {
        int rc = check_stage(layers, requests, count, i, err);
        if (rc < 0) {
            *ret_bad = i;
            return rc;
        }
    }
    return 0;
}

/* Appends to the bytes that the id is over; with to NULL only counts. */
static void put(uint8_t *to, size_t *used, const void *bytes, size_t size) {
    if (to)
        memcpy(to + *used, bytes, size);
    *used += size;
}

static void put_number(uint8_t *to, size_t *used, uint64_t number) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(number >> 8 * i);
    put(to, used, bytes, sizeof(bytes));
}

/* The canonical form of plan.h. Returns its size. */
static size_t serialise(const struct plan *plan, uint8_t *to) {
    size_t used = 0;
    put(to, &used, id_form, sizeof(id_form) - 1);
    put(to, &used, plan->model_id, sizeof(plan->model_id));
    put_number(to, &used, plan->count);
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_stage *stage = &plan->stages[i];
        size_t length = strlen(stage->node);
        put_number(to, &used, stage->first);
        put_number(to, &used, stage->last);
        put_number(to, &used, length);
        put(to, &used, stage->node, length);
    }
    return used;
}

static int set_id(struct plan *plan) {
    size_t size = serialise(plan, NULL);
    uint8_t *bytes = malloc(size);
    if (!bytes)
        return -ENOMEM;
    serialise(plan, bytes);
    int rc = sha256(bytes, size, plan->id);
    free(bytes);
    return rc;
}

/* Requests that were checked -> plan. 0 or -ENOMEM. */
static int build_checked(const uint8_t model_id[SHA256_SIZE], const struct plan_request *requests,
                         size_t count, struct plan **ret_plan) {
    struct plan *plan = calloc(1, sizeof(*plan));
    if (!plan || !(plan->stages = calloc(count, sizeof(*plan->stages))))
        goto fail;
    memcpy(plan->model_id, model_id, SHA256_SIZE);
    for (size_t i = 0; i < count; i++) {
        struct plan_stage *stage = &plan->stages[plan->count++];
        stage->first = i > 0 ? requests[i - 1].until + 1 : 0;
        stage->last = requests[i].until + 1;
        stage->node = strdup(requests[i].node);
        stage->address = strdup(requests[i].address);
        if (!stage->node || !stage->address)
            goto fail;
    }
    if (set_id(plan) < 0)
        goto fail;
    *ret_plan = plan;
    return 0;
fail:
    plan_free(plan);
    return -ENOMEM;
}

int plan_build(const uint8_t model_id[SHA256_SIZE], size_t layers,
               const struct plan_request *requests, size_t count, struct plan **ret_plan,
               struct err *err) {
    size_t bad;
    int rc = check_requests(layers, requests, count, &bad, err);
    if (rc < 0)
        return rc;
    rc = build_checked(model_id, requests, count, ret_plan);
    return rc < 0 ? err_set(err, rc, "no memory for a plan") : 0;
}

int plan_from_config(const struct config *config, const uint8_t model_id[SHA256_SIZE],
                     size_t layers, const size_t *untils, struct plan **ret_plan, struct err *err) {
    size_t bad, count = config->pipeline_count;
    if (count == 0)
        return err_set(err, -EINVAL, "%s: has no 'pipeline'", config->file);
    struct plan_request *requests = calloc(count, sizeof(*requests));
    if (!requests)
        return err_set(err, -ENOMEM, "no memory for a plan");
    for (size_t i = 0; i < count; i++) {
        const struct config_stage *stage = &config->pipeline[i];
        size_t until = i + 1 < count ? untils[i] : layers - 1;
        requests[i] =
            (struct plan_request){.node = stage->node, .address = stage->address, .until = until};
    }
    int rc = check_requests(layers, requests, count, &bad, err);
    if (rc < 0)
        err_prefix(err, rc, "%s:%d:%d", config->file, config->pipeline[bad].line,
                   config->pipeline[bad].column);
    else if ((rc = build_checked(model_id, requests, count, ret_plan)) < 0)
        err_set(err, rc, "no memory for a plan");
    free(requests);
    return rc;
}

void plan_free(struct plan *plan) {
    if (!plan)
        return;
    for (size_t i = 0; i < plan->count; i++) {
        free(plan->stages[i].node);
        free(plan->stages[i].address);
    }
    free(plan->stages);
    free(plan);
}

int plan_find_node(const struct plan *plan, const char *node) {
    for (size_t i = 0; i < plan->count; i++) {
        if (strcmp(plan->stages[i].node, node) == 0)
            return (int)i;
    }
    return -1;
}
