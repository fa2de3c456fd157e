#include "plan/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char id_form[] = "convoy plan 1\n";

/* The number of the stage of request i, from 1. */
static size_t stage_number(const struct plan_request *requests, size_t i) {
    size_t number = 1;
    for (size_t j = 1; j <= i; j++)
        number += !requests[j].shares;
    return number;
}

/* The first request of the stage behind that of request i; count when there is none. */
static size_t next_stage(const struct plan_request *requests, size_t count, size_t i) {
    do
        i++;
    while (i < count && requests[i].shares);
    return i;
}

/* What a replica must fulfil. */
static int check_shares(const struct plan_request *requests, size_t i, struct err *err) {
    const struct plan_request *own = &requests[i];
    size_t number = stage_number(requests, i), first = i;
    while (first > 0 && requests[first].shares)
        first--;
    if (number == 1)
        return err_set(err, -EINVAL,
                       "'%s' cannot share the first stage: clients connect to its device, which "
                       "keeps each frame until it is answered",
                       own->node);
    if (own->until != own[-1].until)
        return err_set(err, -EINVAL,
                       "'%s' shares stage %zu with '%s', but would end with layer %zu instead of "
                       "%zu",
                       own->node, number, own[-1].node, own->until, own[-1].until);
    if (i - first >= PLAN_REPLICAS_MAX)
        return err_set(err, -EINVAL, "stage %zu is shared by more than %d devices", number,
                       PLAN_REPLICAS_MAX);
    return 0;
}

/* What the until of a stage's first device must fulfil. */
static int check_until(size_t layers, const struct plan_request *requests, size_t count, size_t i,
                       struct err *err) {
    const struct plan_request *stage = &requests[i];
    size_t first = i > 0 ? requests[i - 1].until + 1 : 0, number = stage_number(requests, i);
    size_t next = next_stage(requests, count, i);
    bool is_last = next == count;
    if (stage->until >= layers)
        return err_set(err, -EINVAL,
                       "stage %zu ('%s') would end with layer %zu, but the model's last is %zu",
                       number, stage->node, stage->until, layers - 1);
    if (stage->until < first)
        return err_set(err, -EINVAL,
                       "stage %zu ('%s') would end with layer %zu, which stage %zu ('%s') has run "
                       "already: it ends with layer %zu",
                       number, stage->node, stage->until, number - 1, stage[-1].node,
                       stage[-1].until);
    if (!is_last && stage->until == layers - 1)
        return err_set(
            err, -EINVAL,
            "stage %zu ('%s') ends with the model's last layer %zu, which leaves nothing "
            "for stage %zu ('%s')",
            number, stage->node, stage->until, number + 1, requests[next].node);
    if (is_last && stage->until != layers - 1)
        return err_set(err, -EINVAL,
                       "stage %zu ('%s') is the last and must run to the model's last layer %zu, "
                       "not to %zu",
                       number, stage->node, layers - 1, stage->until);
    return 0;
}

/* What a device must fulfil after those before it, the first of which are good. */
static int check_device(size_t layers, const struct plan_request *requests, size_t count, size_t i,
                        struct err *err) {
    for (size_t j = 0; j < i; j++) {
        if (strcmp(requests[j].node, requests[i].node) == 0)
            return err_set(err, -EINVAL,
                           "node '%s' has stage %zu already, stage %zu must be another's",
                           requests[i].node, stage_number(requests, j), stage_number(requests, i));
    }
    return requests[i].shares ? check_shares(requests, i, err)
                              : check_until(layers, requests, count, i, err);
}

/* Checks all; on -EINVAL *ret_bad is the device at fault. */
static int check_requests(size_t layers, const struct plan_request *requests, size_t count,
                          size_t *ret_bad, struct err *err) {
    *ret_bad = 0;
    if (count == 0)
        return err_set(err, -EINVAL, "a plan needs at least one stage");
    size_t stages = stage_number(requests, count - 1);
    if (layers < stages) {
        while (stage_number(requests, *ret_bad) <= layers)
            ++*ret_bad;
        return err_set(err, -EINVAL, "%zu stages, but the model has only %zu layers", stages,
                       layers);
    }
    for (size_t i = 0; i < count; i++) {
        int rc = check_device(layers, requests, count, i, err);
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
        stage->first = requests[i].shares ? stage[-1].first : i > 0 ? requests[i - 1].until + 1 : 0;
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
        requests[i] = (struct plan_request){.node = stage->node,
                                            .address = stage->address,
                                            .until = stage->until ? untils[i] : layers - 1,
                                            .shares = stage->shares};
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

size_t plan_replicas(const struct plan *plan, size_t index, size_t *ret_count) {
    size_t begin = index, end = index + 1;
    while (begin > 0 && plan->stages[begin - 1].first == plan->stages[index].first)
        begin--;
    while (end < plan->count && plan->stages[end].first == plan->stages[index].first)
        end++;
    *ret_count = end - begin;
    return begin;
}

size_t plan_next(const struct plan *plan, size_t index, size_t *ret_count) {
    size_t count, next = plan_replicas(plan, index, &count) + count;
    *ret_count = 0;
    return next < plan->count ? plan_replicas(plan, next, ret_count) : next;
}

size_t plan_stage_number(const struct plan *plan, size_t index) {
    size_t number = 1;
    for (size_t i = 1; i <= index; i++)
        number += plan->stages[i].first != plan->stages[i - 1].first;
    return number;
}
