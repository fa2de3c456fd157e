/* States of a deployment: BUILDING -> PREPARING -> ACTIVATING -> ACTIVE; deploy.h tells what
 * happens in each. One may be under way (`running`); the one whose plan is newest stays (ACTIVE),
 * with those before it whose plans are still held, so that their devices can be told of their
 * release.
 *
 * A target is one device of a deployment, and has a control link. When that is up it is sent
 * Prepare; it asks for its part piece by piece: read() by libuv's pool -> PartChunk; it answers
 * Prepared. When the link breaks and comes back, Prepare is sent again, also to targets of an
 * active deployment: a device that holds the plan answers at once, one that was restarted prepares
 * it anew.
 *
 * deploy_build.c is what the builder does, deploy_parts.c how parts are served. */
#include "daemon/control/deploy.h"

#include "daemon/control/deploy_private.h"
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- life of a deployment -------------------------------------------------------------------- */

static void free_deploy(struct deploy *deploy) {
    if (!deploy->is_closing || !deploy->timer_closed || !TAILQ_EMPTY(&deploy->all))
        return;
    free(deploy);
}

void deploy_free(struct deployment *deployment) {
    struct deploy *deploy = deployment->deploy;
    TAILQ_REMOVE(&deploy->all, deployment, entry);
    for (size_t i = 0; i < deployment->count; i++) {
        if (deployment->targets && deployment->targets[i].fd >= 0)
            close(deployment->targets[i].fd);
        free(deployment->devices ? deployment->devices[i].node : NULL);
        free(deployment->devices ? deployment->devices[i].address : NULL);
        free(deployment->until_names ? deployment->until_names[i] : NULL);
    }
    free(deployment->devices);
    free(deployment->targets);
    free(deployment->requests);
    free(deployment->until_names);
    plan_free(deployment->plan);
    held_unref(deployment->held);
    model_unref(deployment->model);
    config_free(deployment->config);
    free(deployment);
    free_deploy(deploy);
}

/* Nobody needs it any more: its links go at once, its memory when nothing uses it. */
void deploy_end(struct deployment *deployment) {
    struct deploy *deploy = deployment->deploy;
    if (deploy->running == deployment)
        deploy->running = NULL;
    for (size_t i = 1; i < deployment->count; i++) {
        struct target *target = &deployment->targets[i];
        deploy_stop_serving(deploy, target);
        if (target->link)
            link_drop(target->link);
        target->link = NULL;
    }
    deployment->is_over = true;
    if (!deployment->is_building && deployment->reads == 0)
        deploy_free(deployment);
}

static void send_release(const struct deployment *deployment, const struct target *target) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Release release = CONVOY__RELEASE__INIT;
    if (!target->link || !link_is_up(target->link))
        return;
    release.plan.data = deployment->plan->id;
    release.plan.len = SHA256_SIZE;
    message.body_case = CONVOY__MESSAGE__BODY_RELEASE;
    message.release = &release;
    conn_send(target->link->conn, &message);
}

/* Tells every device, or those that have not answered, that the plan is not needed. */
static void release(const struct deployment *deployment, bool unanswered_only) {
    if (!deployment->plan)
        return;
    for (size_t i = 1; i < deployment->count; i++)
        if (!unanswered_only || deployment->targets[i].state == TARGET_PREPARING)
            send_release(deployment, &deployment->targets[i]);
}

static void set_state(struct deployment *deployment, enum deployment_state state) {
    deployment->state = state;
    deployment->since_us = device_now_us();
}

static void set_target(struct target *target, enum target_state state) {
    target->state = state;
    target->since_us = device_now_us();
}

struct deploy_device *deploy_device_of(const struct target *target) {
    return &target->deployment->devices[target - target->deployment->targets];
}

/* ---- the outcome ----------------------------------------------------------------------------- */

/* What a device said may have been cut off in the middle of a character of several bytes: then no
 * peer would take it. */
static void trim(char *text) {
    size_t length = strlen(text), lead = length;
    while (lead > 0 && ((unsigned char)text[lead - 1] & 0xc0) == 0x80)
        lead--;
    if (lead == 0)
        return;
    unsigned char byte = (unsigned char)text[lead - 1];
    size_t whole = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    if (length - (lead - 1) < whole)
        text[lead - 1] = '\0';
}

static void tell(struct deployment *deployment, Convoy__Code code) {
    struct deploy *deploy = deployment->deploy;
    deploy_done *done = deployment->done;
    struct deploy_outcome outcome = {.code = code,
                                     .err = deployment->err,
                                     .devices = deployment->devices,
                                     .devices_count = deployment->plan ? deployment->count : 0};
    char id[LOG_ID_SIZE] = "";
    trim(outcome.err.text);
    for (size_t i = 0; i < deployment->count; i++)
        trim(deployment->devices[i].err.text);
    if (deployment->plan) {
        memcpy(outcome.plan, deployment->plan->id, SHA256_SIZE);
        log_id(outcome.plan, id);
    }
    if (code == CONVOY__CODE__CODE_OK)
        snprintf(deploy->last, sizeof(deploy->last), "plan %s is on %zu devices", id,
                 deployment->count);
    else
        snprintf(deploy->last, sizeof(deploy->last), "refused: %.480s", deployment->err.text);
    trim(deploy->last);
    if (code == CONVOY__CODE__CODE_OK) {
        log_info("deployed: %s", deploy->last);
        deploy->failure.said_us = 0;
    } else if (!deployment->is_retried ||
               log_is_news(&deploy->failure, deployment->err.text, device_now_us())) {
        log_warning("a plan is not deployed: %s: %s", message_code_name(code),
                    deployment->err.text);
    }
    deploy->running = NULL;
    deployment->done = NULL;
    if (done)
        done(deployment->arg, &outcome);
}

/* Another deployment of the same plan, which is in use; NULL: none. */
static struct deployment *find_same(const struct deployment *deployment) {
    struct deployment *other;
    TAILQ_FOREACH(other, &deployment->deploy->all, entry) {
        if (other != deployment && !other->is_over && other->state == ACTIVE &&
            memcmp(other->plan->id, deployment->plan->id, SHA256_SIZE) == 0)
            break;
    }
    return other;
}

/* The deployment whose plan every device of it should hold: the one under way, or else the newest.
 */
static struct deployment *find_wanted(const struct deploy *deploy) {
    struct deployment *deployment;
    TAILQ_FOREACH(deployment, &deploy->all, entry) {
        if (!deployment->is_over && deployment->state != BUILDING)
            break;
    }
    return deployment;
}

/* The pieces that devices have asked for are owed to them by another deployment of the plan. */
static void hand_over(struct deployment *from, struct deployment *to) {
    for (size_t i = 1; i < from->count; i++)
        deploy_hand_over(&from->targets[i], deploy_find_target(to, from->targets[i].link));
}

/* Devices that were preparing the plan in use may have left that for the plan that has failed: they
 * are asked again. */
static void return_to_wanted(const struct deploy *deploy) {
    struct deployment *wanted = find_wanted(deploy);
    for (size_t i = 1; wanted && i < wanted->count; i++)
        if (wanted->targets[i].state == TARGET_PREPARING)
            set_target(&wanted->targets[i], TARGET_AWAY);
}

static void drop_kept(struct deploy *deploy) {
    while (deploy->kept_count > 0)
        link_drop(deploy->kept[--deploy->kept_count]);
}

/* What the configuration wants is tried again soon: its links stay up until then. */
static void keep_links(struct deploy *deploy, const struct deployment *deployment) {
    struct link *links[DEPLOY_STAGES_MAX];
    size_t count = 0;
    for (size_t i = 1; deploy->retry_us > 0 && i < deployment->count; i++)
        if (deployment->targets[i].link)
            links[count++] = link_hold(deploy->device, deployment->devices[i].node,
                                       deployment->devices[i].address);
    drop_kept(deploy);
    memcpy(deploy->kept, links, count * sizeof(links[0]));
    deploy->kept_count = count;
}

/* Nothing changes: the plan goes where it was prepared. */
static void fail(struct deployment *deployment, Convoy__Code code) {
    struct deploy *deploy = deployment->deploy;
    struct device *device = deploy->device;
    struct held *held =
        deployment->plan ? planset_find(&device->plans, deployment->plan->id, SHA256_SIZE) : NULL;
    struct deployment *same = held ? find_same(deployment) : NULL;
    bool is_used = held && (held->active_us || !held->is_deployed);
    tell(deployment, code);
    if (!is_used)
        release(deployment, false);
    else if (same)
        hand_over(deployment, same);
    else /* it stays, but nobody is served it now */
        release(deployment, true);
    keep_links(deploy, deployment);
    deploy_end(deployment); /* first: device_release() would look for it */
    if (held && !is_used)
        device_release(device, held);
    return_to_wanted(deploy);
    deploy_serve(deploy);
}

/* A device has refused, or cannot be reached. */
static void fail_target(struct target *target, Convoy__Code code, const char *text) {
    struct deployment *deployment = target->deployment;
    struct deploy_device *device = deploy_device_of(target);
    if (deployment->state == ACTIVE) {
        if (log_is_news(&target->refusal, text, device_now_us()))
            log_warning("%s does not hold its stage: %s: %s", device->node, message_code_name(code),
                        text);
        set_target(target, TARGET_FAILED);
        if (code != CONVOY__CODE__CODE_BUSY)
            pilot_refused(deployment->deploy->device, target->link, deployment->plan->id);
        return;
    }
    device->code = code;
    err_set(&device->err, -ECANCELED, "%s", text);
    for (size_t i = 1; i < deployment->count; i++) {
        struct target *other = &deployment->targets[i];
        if (other == target || other->state == TARGET_PREPARED)
            continue;
        deployment->devices[i].code = CONVOY__CODE__CODE_BUSY;
        deployment->devices[i].is_bystander = true;
        err_set(&deployment->devices[i].err, -ECANCELED,
                "it was still preparing when another device refused");
    }
    err_set(&deployment->err, -ECANCELED, "%s: %s", device->node, text);
    fail(deployment, code);
}

Convoy__Code deploy_code(int rc) {
    static const struct {
        int rc;
        Convoy__Code code;
    } codes[] = {
        {-ENOTSUP, CONVOY__CODE__CODE_NOT_SUPPORTED}, {-ENOMEM, CONVOY__CODE__CODE_NO_MEMORY},
        {-ENOSPC, CONVOY__CODE__CODE_NO_SPACE},       {-EFBIG, CONVOY__CODE__CODE_NO_SPACE},
        {-EDQUOT, CONVOY__CODE__CODE_NO_SPACE},       {-ENOENT, CONVOY__CODE__CODE_NO_SPACE},
        {-EROFS, CONVOY__CODE__CODE_NO_SPACE},        {-EACCES, CONVOY__CODE__CODE_NO_SPACE},
        {-EBUSY, CONVOY__CODE__CODE_NO_SPACE},        {-EBADMSG, CONVOY__CODE__CODE_BAD_PART},
        {-EMSGSIZE, CONVOY__CODE__CODE_BAD_PLAN},     {-EINVAL, CONVOY__CODE__CODE_BAD_PLAN},
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].rc == rc)
            return codes[i].code;
    return CONVOY__CODE__CODE_INTERNAL;
}

/* ---- preparing ------------------------------------------------------------------------------- */

static void send_prepare(struct target *target) {
    struct deployment *deployment = target->deployment;
    const struct plan *plan = deployment->plan;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Prepare prepare = CONVOY__PREPARE__INIT;
    Convoy__PlanStage stages[DEPLOY_STAGES_MAX], *pointers[DEPLOY_STAGES_MAX];
    for (size_t i = 0; i < plan->count; i++) {
        convoy__plan_stage__init(&stages[i]);
        stages[i].node = plan->stages[i].node;
        stages[i].address = plan->stages[i].address;
        stages[i].first = (uint32_t)plan->stages[i].first;
        stages[i].last = (uint32_t)plan->stages[i].last;
        stages[i].shares = i > 0 && plan->stages[i].first == plan->stages[i - 1].first;
        pointers[i] = &stages[i];
    }
    prepare.plan.data = (uint8_t *)(uintptr_t)plan->id;
    prepare.plan.len = SHA256_SIZE;
    prepare.model.data = (uint8_t *)(uintptr_t)plan->model_id;
    prepare.model.len = SHA256_SIZE;
    prepare.n_stages = plan->count;
    prepare.stages = pointers;
    prepare.part.data = target->part;
    prepare.part.len = SHA256_SIZE;
    prepare.part_bytes = target->part_bytes;
    prepare.result_bytes = deployment->result_bytes;
    prepare.model_name = basename(deployment->config->model);
    message.body_case = CONVOY__MESSAGE__BODY_PREPARE;
    message.prepare = &prepare;
    conn_send(target->link->conn, &message);
    set_target(target, TARGET_PREPARING);
}

/* All devices are prepared: the plan is adopted here, and becomes active when the line is ready. */
static void activate(struct deployment *deployment) {
    struct device *device = deployment->deploy->device;
    struct held *held = deployment->held;
    deployment->held = NULL;
    set_state(deployment, ACTIVATING);
    if (!held->stage && !planset_find(&device->plans, held->id, SHA256_SIZE)) {
        held_unref(held); /* it was held when the building began, and released meanwhile */
        err_set(&deployment->err, -EAGAIN, "the plan was released meanwhile; try again");
        fail(deployment, CONVOY__CODE__CODE_BUSY);
        return;
    }
    device_adopt(device, held);
}

static void check_prepared(struct deployment *deployment) {
    for (size_t i = 1; i < deployment->count; i++)
        if (deployment->targets[i].state != TARGET_PREPARED)
            return;
    activate(deployment);
}

/* Whether the plan is held here with another address of a neighbour. Addresses do not count in its
 * id: a neighbour that was told of the new one would use it at once, whatever the others answer. */
static bool moves_a_device(const struct deployment *deployment) {
    const struct plan *plan = deployment->plan;
    const struct held *held =
        planset_find(&deployment->deploy->device->plans, plan->id, SHA256_SIZE);
    for (size_t i = 1; held && i < plan->count; i++)
        if (strcmp(held->plan->stages[i].address, plan->stages[i].address) != 0)
            return true;
    return false;
}

static void on_built(struct job *job, bool is_closing) {
    struct deployment *deployment = (struct deployment *)(uintptr_t)job; /* its first member */
    struct deploy *deploy = deployment->deploy;
    deployment->is_building = false;
    if (is_closing || deployment->is_over) {
        deploy_end(deployment);
        return;
    }
    if (deployment->usage.bytes > 0)
        deploy->device->cache_usage = deployment->usage;
    if (deployment->rc < 0) {
        fail(deployment, deploy_code(deployment->rc));
        return;
    }
    if (deployment->keep_addresses && moves_a_device(deployment)) {
        err_set(&deployment->err, -EINVAL,
                "this plan is in use with other addresses; to move a device, change its address in "
                "the configuration and reload");
        fail(deployment, CONVOY__CODE__CODE_BAD_PLAN);
        return;
    }
    set_state(deployment, PREPARING);
    for (size_t i = 1; i < deployment->count; i++) {
        struct target *target = &deployment->targets[i];
        set_target(target, TARGET_AWAY);
        target->link =
            link_hold(deploy->device, deployment->devices[i].node, deployment->devices[i].address);
        if (!target->link) {
            fail_target(target, CONVOY__CODE__CODE_NO_MEMORY, "out of memory");
            return;
        }
        if (link_is_up(target->link))
            send_prepare(target);
    }
    check_prepared(deployment);
}

/* The target of a link in a deployment, or NULL. */
struct target *deploy_find_target(const struct deployment *deployment, const struct link *link) {
    for (size_t i = 1; i < deployment->count; i++)
        if (deployment->targets[i].link == link)
            return &deployment->targets[i];
    return NULL;
}

void deploy_link_up(struct device *device, struct link *link) {
    const struct deployment *wanted = find_wanted(device->deploy);
    struct target *target = wanted ? deploy_find_target(wanted, link) : NULL;
    if (target)
        send_prepare(target);
}

void deploy_link_lost(struct device *device, struct link *link, const char *why) {
    struct deployment *deployment;
    TAILQ_FOREACH(deployment, &device->deploy->all, entry) {
        struct target *target = deployment->is_over ? NULL : deploy_find_target(deployment, link);
        if (!target)
            continue;
        deploy_stop_serving(device->deploy, target);
        if (target->state != TARGET_AWAY)
            set_target(target, TARGET_AWAY);
        if (deployment->state != ACTIVE)
            err_set(&deploy_device_of(target)->err, -ENOTCONN, "%s", why);
    }
    deploy_serve(device->deploy);
}

static struct target *find_by_plan(struct deploy *deploy, const struct link *link,
                                   const ProtobufCBinaryData *plan) {
    struct deployment *deployment;
    TAILQ_FOREACH(deployment, &deploy->all, entry) {
        struct target *target = deployment->is_over ? NULL : deploy_find_target(deployment, link);
        if (target && plan->len == SHA256_SIZE &&
            memcmp(deployment->plan->id, plan->data, SHA256_SIZE) == 0)
            return target;
    }
    return NULL;
}

void deploy_prepared(struct device *device, struct link *link, const Convoy__Prepared *prepared) {
    struct target *target = find_by_plan(device->deploy, link, &prepared->plan);
    if (!target || target->state != TARGET_PREPARING)
        return; /* about a plan that is not wanted any more */
    deploy_stop_serving(device->deploy, target);
    if (prepared->code != CONVOY__CODE__CODE_OK) {
        fail_target(target, prepared->code, prepared->text);
    } else {
        set_target(target, TARGET_PREPARED);
        deploy_device_of(target)->err.text[0] = '\0';
        if (target->deployment->state == PREPARING)
            check_prepared(target->deployment);
    }
    deploy_serve(device->deploy);
}

/* ---- activating ------------------------------------------------------------------------------ */

/* Earlier deployments of the same plan are this one now. */
static void forget_same(const struct deployment *deployment) {
    struct deployment *other;
    while ((other = find_same(deployment)) != NULL)
        deploy_end(other);
}

void deploy_plans_changed(struct device *device) {
    struct deployment *deployment = device->deploy ? device->deploy->running : NULL;
    const struct held *held;
    if (!deployment || deployment->state != ACTIVATING)
        return;
    held = planset_find(&device->plans, deployment->plan->id, SHA256_SIZE);
    if (!held || !held_is_whole(held))
        return;
    set_state(deployment, ACTIVE);
    forget_same(deployment);
    drop_kept(deployment->deploy);
    tell(deployment, CONVOY__CODE__CODE_OK);
}

void deploy_plan_released(struct device *device, const uint8_t plan[SHA256_SIZE]) {
    struct deployment *deployment, *next;
    if (!device->deploy)
        return;
    for (deployment = TAILQ_FIRST(&device->deploy->all); deployment; deployment = next) {
        next = TAILQ_NEXT(deployment, entry);
        if (deployment->is_over || deployment->state != ACTIVE ||
            memcmp(deployment->plan->id, plan, SHA256_SIZE) != 0)
            continue;
        release(deployment, false);
        deploy_end(deployment);
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

static void check_away(struct deployment *deployment, uint64_t now_us) {
    char text[512];
    for (size_t i = 1; i < deployment->count; i++) {
        struct target *target = &deployment->targets[i];
        if (target->state != TARGET_AWAY || now_us - target->since_us < deployment->away_ms * 1000)
            continue;
        const char *why = deployment->devices[i].err.text;
        snprintf(text, sizeof(text), "no connection to %.280s for %d s%s%.150s",
                 deployment->devices[i].address, (int)(deployment->away_ms / 1000),
                 why[0] ? ": " : "", why);
        fail_target(target, CONVOY__CODE__CODE_UNREACHABLE, text);
        return;
    }
}

/* A device that is there but does not get on: its disk may hang. While it waits for a piece from
 * here it is not its turn. */
static void check_silent(struct deployment *deployment, uint64_t now_us) {
    uint64_t limit_ms = deployment->deploy->device->config->prepare_ms;
    char text[160];
    for (size_t i = 1; i < deployment->count; i++) {
        struct target *target = &deployment->targets[i];
        if (target->state != TARGET_PREPARING || target->is_waiting || target->is_reading ||
            now_us - target->since_us < limit_ms * 1000)
            continue;
        snprintf(text, sizeof(text),
                 "it prepares its stage and has not said anything of it for %.1f s "
                 "(`prepare_ms:`); does its disk hang?",
                 (double)limit_ms / 1000);
        fail_target(target, CONVOY__CODE__CODE_UNREACHABLE, text);
        return;
    }
}

/* Devices of the plan in use that came back while another one was being deployed, or that could not
 * hold it then. */
static void prepare_again(struct deploy *deploy, uint64_t now_us) {
    const struct deployment *wanted = find_wanted(deploy);
    for (size_t i = 1; wanted && i < wanted->count; i++) {
        struct target *target = &wanted->targets[i];
        bool is_due =
            target->state == TARGET_AWAY ||
            (target->state == TARGET_FAILED && now_us - target->since_us >= DEPLOY_RETRY_MS * 1000);
        if (is_due && link_is_up(target->link))
            send_prepare(target);
    }
}

void deploy_excuse(struct device *device, uint64_t us, uint64_t now_us) {
    struct deployment *deployment;
    TAILQ_FOREACH(deployment, &device->deploy->all, entry) {
        deployment->since_us = conn_excused(deployment->since_us, us, now_us);
        for (size_t i = 1; i < deployment->count; i++)
            deployment->targets[i].since_us =
                conn_excused(deployment->targets[i].since_us, us, now_us);
    }
}

void deploy_tick(struct device *device, uint64_t now_us) {
    struct deploy *deploy = device->deploy;
    struct deployment *deployment = deploy->running;
    if (!deployment)
        prepare_again(deploy, now_us);
    if (deploy->retry_us > 0 && now_us >= deploy->retry_us && !deployment) {
        deploy->retry_us = 0;
        deploy_configured(device);
        return;
    }
    if (deployment && deployment->state == PREPARING) {
        check_away(deployment, now_us);
        if (deploy->running == deployment) /* else it has just failed, and may be no more */
            check_silent(deployment, now_us);
    } else if (deployment && deployment->state == ACTIVATING &&
               now_us - deployment->since_us >= DEPLOY_READY_MS * 1000) {
        err_set(&deployment->err, -ETIMEDOUT,
                "every device is prepared, but the line is not ready after %d s: can each reach "
                "the next at its `address:`?",
                DEPLOY_READY_MS / 1000);
        fail(deployment, CONVOY__CODE__CODE_UNREACHABLE);
    }
}

/* ---- beginning ------------------------------------------------------------------------------- */

static int check_request(const struct device *device, const struct deploy_request *request,
                         struct err *err) {
    char host[CONFIG_NAME_MAX + 1], port[16];
    struct err why = {""};
    if (device->deploy->running)
        return err_set(err, -EBUSY, "another plan is being deployed; try again when it is done");
    if (!device->config->model)
        return err_set(err, -ENOTSUP, "%s has no `model:` to deploy; ask the device that has one",
                       device->config->node);
    if (request->count < 1 || request->count > DEPLOY_STAGES_MAX)
        return err_set(err, -EINVAL, "%zu stages; 1 to %d can be deployed", request->count,
                       DEPLOY_STAGES_MAX);
    if (strcmp(request->stages[0].node, device->config->node) != 0)
        return err_set(err, -EINVAL,
                       "the first stage is %s's, but this device is %s: ask the first one, or "
                       "change the order",
                       request->stages[0].node, device->config->node);
    for (size_t i = 0; i < request->count; i++) {
        size_t length = strlen(request->stages[i].node);
        if (length == 0 || length > CONFIG_NAME_MAX)
            return err_set(err, -EINVAL, "stage %zu has a name of %zu bytes; 1 to %d can be", i + 1,
                           length, CONFIG_NAME_MAX);
        if (config_split_address(request->stages[i].address, host, sizeof(host), port, sizeof(port),
                                 &why) < 0)
            return err_set(err, -EINVAL, "stage %zu (%s): %s", i + 1, request->stages[i].node,
                           why.text);
    }
    return 0;
}

int deploy_run(struct device *device, const struct deploy_request *request, struct err *err) {
    struct deploy *deploy = device->deploy;
    int rc = check_request(device, request, err);
    if (rc < 0)
        return rc;
    struct deployment *deployment = deploy_copy_request(device, request);
    if (!deployment)
        return err_set(err, -ENOMEM, "out of memory");
    deploy->running = deployment;
    deploy->retry_us = 0; /* this is wanted now */
    deployment->job.work = deploy_build;
    deployment->job.done = on_built;
    set_state(deployment, BUILDING);
    deployment->is_building = true;
    builder_submit(device->builder, &deployment->job);
    return 0;
}

void deploy_disown(struct device *device, const void *arg) {
    struct deployment *running = device->deploy ? device->deploy->running : NULL;
    if (running && running->arg == arg)
        running->done = NULL;
}

bool deploy_is_busy(const struct device *device) {
    return device->deploy->running != NULL;
}

const char *deploy_last(const struct device *device) {
    return device->deploy->last;
}

/* ---- what the configuration wants ------------------------------------------------------------ */

static void on_configured(void *arg, const struct deploy_outcome *outcome) {
    struct deploy *deploy = arg;
    if (outcome->code != CONVOY__CODE__CODE_OK)
        deploy->retry_us = device_now_us() + DEPLOY_RETRY_MS * 1000;
}

void deploy_configured(struct device *device) {
    const struct config *config = device->config;
    struct deploy_stage stages[DEPLOY_STAGES_MAX];
    const struct deploy_request request = {.stages = stages,
                                           .count = config->pipeline_count,
                                           .is_retried = true,
                                           .done = on_configured,
                                           .arg = device->deploy};
    struct err err = {""};
    if (!config->deploy || config_find_stage(config) != 0) {
        drop_kept(device->deploy);
        return;
    }
    for (size_t i = 0; i < config->pipeline_count && i < DEPLOY_STAGES_MAX; i++)
        stages[i] = (struct deploy_stage){.node = config->pipeline[i].node,
                                          .address = config->pipeline[i].address,
                                          .until_name = config->pipeline[i].until,
                                          .shares = config->pipeline[i].shares};
    int rc = deploy_run(device, &request, &err);
    if (rc == -EBUSY || rc == -ENOMEM)
        device->deploy->retry_us = device_now_us() + DEPLOY_RETRY_MS * 1000;
    else if (rc < 0)
        log_error("the pipeline is not deployed: %s", err.text);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct deploy *deploy_new(struct device *device) {
    struct deploy *deploy = calloc(1, sizeof(*deploy));
    if (!deploy)
        return NULL;
    deploy->device = device;
    TAILQ_INIT(&deploy->all);
    TAILQ_INIT(&deploy->waiting);
    uv_timer_init(device->loop, &deploy->timer);
    deploy->timer.data = deploy;
    return deploy;
}

static void on_timer_closed(uv_handle_t *handle) {
    struct deploy *deploy = handle->data;
    deploy->timer_closed = true;
    free_deploy(deploy);
}

void deploy_close(struct deploy *deploy) {
    struct deployment *deployment, *next;
    if (!deploy)
        return;
    deploy->is_closing = true;
    deploy->retry_us = 0;
    for (deployment = TAILQ_FIRST(&deploy->all); deployment; deployment = next) {
        next = TAILQ_NEXT(deployment, entry);
        deploy_end(deployment);
    }
    drop_kept(deploy);
    deploy->device->deploy = NULL;
    uv_close((uv_handle_t *)&deploy->timer, on_timer_closed);
}
