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
 * Pace: a device asks for one piece at a time, so the time from a piece to the next request is what
 * the piece took on its way. While frames are under way here, one piece is sent at a time over all
 * targets, and then nothing for PACE times as long: a quarter of the link's time at most. */
#include "daemon/control/deploy.h"

#include "daemon/device.h"
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PACE         3
#define PACE_MOST_US 250000  /* no pause is longer */
#define ANSWER_US    1000000 /* a device that has not asked on for so long is not waited for */
#define MEMO_MAX     128

enum deployment_state { BUILDING, PREPARING, ACTIVATING, ACTIVE };

enum target_state {
    TARGET_AWAY,      /* no link, or not yet */
    TARGET_PREPARING, /* Prepare has been sent */
    TARGET_PREPARED,
    TARGET_FAILED,
};

/* A part that has been written before, by what it is of. The builder's. */
struct memo {
    uint8_t model[SHA256_SIZE], digest[SHA256_SIZE];
    size_t first, last;
};

struct target {
    TAILQ_ENTRY(target) waiting; /* in deploy->waiting */
    struct deployment *deployment;
    struct link *link;
    enum target_state state;
    uint64_t since_us; /* of the state */
    int fd;            /* of its part; -1: none */
    uint8_t part[SHA256_SIZE];
    uint64_t part_bytes, offset; /* of the piece that is asked for ... */
    uint32_t bytes;              /* ... and its size; 0: none is */
    bool is_waiting, is_reading;
    uint64_t piece_us; /* when the last piece was sent; 0: it has been asked on */
    uv_fs_t read;
    struct buffer *buffer;
};

struct deployment {
    TAILQ_ENTRY(deployment) entry;
    struct job job;
    struct deploy *deploy;
    enum deployment_state state;
    bool is_over;      /* freed when the builder and reads have ended */
    bool is_building;  /* the builder has it */
    unsigned reads;    /* under way */
    uint64_t since_us; /* of the state */
    deploy_done *done; /* NULL: it has been called */
    void *arg;
    struct deploy_device *devices; /* of each stage */
    struct target *targets;        /* of each stage; the first one's is not used */
    struct plan_request *requests; /* nodes and addresses are those of devices */
    char **until_names;
    size_t count;
    struct plan *plan;
    struct held *held; /* the ingress' own stage, until it is adopted */
    size_t result_bytes;

    /* For the builder: copies. */
    struct config *config; /* its own reading of what it needs; see copy_config() */
    struct held_settings settings;
    struct model *model; /* open already, with a reference; NULL: to be opened */
    uint8_t model_digest[SHA256_SIZE];
    bool has_digest;
    uint8_t known[PLANSET_MAX][SHA256_SIZE], keep[PLANSET_MAX + DEPLOY_STAGES_MAX][SHA256_SIZE];
    size_t known_count, keep_count;
    struct cache_usage usage;
    int rc;
    struct err err;
};

struct deploy {
    struct device *device;
    TAILQ_HEAD(, deployment) all; /* newest first */
    struct deployment *running;
    TAILQ_HEAD(, target) waiting; /* pieces that are asked for and not yet read */
    struct target *serving;       /* the one whose piece is on its way, while frames flow */
    uint64_t quiet_until_us;
    uv_timer_t timer;
    struct memo memos[MEMO_MAX]; /* the builder's */
    size_t memos_next;
    uint64_t retry_us; /* of what the configuration wants; 0: nothing is to be tried again */
    bool is_closing, timer_closed;
    char last[sizeof(((struct err *)NULL)->text)];
};

static void serve(struct deploy *deploy);

/* ---- life of a deployment -------------------------------------------------------------------- */

static void free_deploy(struct deploy *deploy) {
    if (!deploy->is_closing || !deploy->timer_closed || !TAILQ_EMPTY(&deploy->all))
        return;
    free(deploy);
}

static void deployment_free(struct deployment *deployment) {
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

static void stop_serving(struct deploy *deploy, struct target *target) {
    if (target->is_waiting)
        TAILQ_REMOVE(&deploy->waiting, target, waiting);
    target->is_waiting = false;
    target->bytes = 0;
    target->piece_us = 0;
    if (deploy->serving == target)
        deploy->serving = NULL;
}

/* Nobody needs it any more: its links go at once, its memory when nothing uses it. */
static void deployment_end(struct deployment *deployment) {
    struct deploy *deploy = deployment->deploy;
    if (deploy->running == deployment)
        deploy->running = NULL;
    for (size_t i = 1; i < deployment->count; i++) {
        struct target *target = &deployment->targets[i];
        stop_serving(deploy, target);
        if (target->link)
            link_drop(target->link);
        target->link = NULL;
    }
    deployment->is_over = true;
    if (!deployment->is_building && deployment->reads == 0)
        deployment_free(deployment);
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

/* Tells every device that the plan is not needed. */
static void release_everywhere(const struct deployment *deployment) {
    if (!deployment->plan)
        return;
    for (size_t i = 1; i < deployment->count; i++)
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

static struct deploy_device *device_of(const struct target *target) {
    return &target->deployment->devices[target - target->deployment->targets];
}

/* ---- the outcome ----------------------------------------------------------------------------- */

static void tell(struct deployment *deployment, Convoy__Code code) {
    struct deploy *deploy = deployment->deploy;
    deploy_done *done = deployment->done;
    struct deploy_outcome outcome = {.code = code,
                                     .err = deployment->err,
                                     .devices = deployment->devices,
                                     .devices_count = deployment->plan ? deployment->count : 0};
    char id[LOG_ID_SIZE] = "";
    if (deployment->plan) {
        memcpy(outcome.plan, deployment->plan->id, SHA256_SIZE);
        log_id(outcome.plan, id);
    }
    if (code == CONVOY__CODE__CODE_OK)
        snprintf(deploy->last, sizeof(deploy->last), "plan %s is on %zu devices", id,
                 deployment->count);
    else
        snprintf(deploy->last, sizeof(deploy->last), "refused: %.480s", deployment->err.text);
    if (code == CONVOY__CODE__CODE_OK)
        log_info("deployed: %s", deploy->last);
    else
        log_warning("a plan is not deployed: %s: %s", message_code_name(code),
                    deployment->err.text);
    deploy->running = NULL;
    deployment->done = NULL;
    if (done)
        done(deployment->arg, &outcome);
}

/* Nothing changes: the plan goes where it was prepared. */
static void fail(struct deployment *deployment, Convoy__Code code) {
    struct device *device = deployment->deploy->device;
    struct held *held =
        deployment->plan ? planset_find(&device->plans, deployment->plan->id, SHA256_SIZE) : NULL;
    bool is_used = held && (held->active_us || !held->is_deployed);
    tell(deployment, code);
    if (!is_used)
        release_everywhere(deployment);
    deployment_end(deployment); /* first: device_release() would look for it */
    if (held && !is_used)
        device_release(device, held);
}

/* A device has refused, or cannot be reached. */
static void fail_target(struct target *target, Convoy__Code code, const char *text) {
    struct deployment *deployment = target->deployment;
    struct deploy_device *device = device_of(target);
    if (deployment->state == ACTIVE) {
        log_warning("%s does not hold its stage: %s: %s", device->node, message_code_name(code),
                    text);
        set_target(target, TARGET_FAILED);
        return;
    }
    device->code = code;
    err_set(&device->err, -ECANCELED, "%s", text);
    for (size_t i = 1; i < deployment->count; i++) {
        struct target *other = &deployment->targets[i];
        if (other == target || other->state == TARGET_PREPARED)
            continue;
        deployment->devices[i].code = CONVOY__CODE__CODE_BUSY;
        err_set(&deployment->devices[i].err, -ECANCELED,
                "it was still preparing when another device refused");
    }
    err_set(&deployment->err, -ECANCELED, "%s: %s", device->node, text);
    fail(deployment, code);
}

/* ---- building -------------------------------------------------------------------------------- */

static struct deployment *deployment_of(struct job *job) {
    return (struct deployment *)(uintptr_t)((char *)job - offsetof(struct deployment, job));
}

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
    deployment->requests[deployment->count - 1].until = layers - 1;
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

static void build(struct job *job) {
    struct deployment *deployment = deployment_of(job);
    const struct config *config = deployment->config;
    struct cache **cache = &deployment->deploy->device->cache;
    int rc = deployment->model ? 0 : held_open_model(config, &deployment->model, &deployment->err);
    if (rc == 0)
        rc = make_plan(deployment);
    if (rc == 0)
        rc = measure_result(deployment);
    if (rc == 0)
        rc = build_own(deployment);
    if (rc == 0 && deployment->count > 1)
        rc = cache_use(cache, config->state, config->cache, &deployment->err);
    for (size_t i = 1; i < deployment->count && rc == 0; i++)
        rc = make_part(deployment, i);
    if (*cache)
        cache_get_usage(*cache, &deployment->usage);
    deployment->rc = rc;
}

static Convoy__Code code_of(int rc) {
    static const struct {
        int rc;
        Convoy__Code code;
    } codes[] = {
        {-ENOTSUP, CONVOY__CODE__CODE_NOT_SUPPORTED}, {-ENOMEM, CONVOY__CODE__CODE_NO_MEMORY},
        {-ENOSPC, CONVOY__CODE__CODE_NO_SPACE},       {-EFBIG, CONVOY__CODE__CODE_NO_SPACE},
        {-EDQUOT, CONVOY__CODE__CODE_NO_SPACE},       {-ENOENT, CONVOY__CODE__CODE_NO_SPACE},
        {-EROFS, CONVOY__CODE__CODE_NO_SPACE},        {-EACCES, CONVOY__CODE__CODE_NO_SPACE},
        {-EBUSY, CONVOY__CODE__CODE_NO_SPACE},        {-EBADMSG, CONVOY__CODE__CODE_BAD_PLAN},
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

static void on_built(struct job *job, bool is_closing) {
    struct deployment *deployment = deployment_of(job);
    struct deploy *deploy = deployment->deploy;
    deployment->is_building = false;
    if (is_closing || deployment->is_over) {
        deployment_end(deployment);
        return;
    }
    if (deployment->usage.bytes > 0)
        deploy->device->cache_usage = deployment->usage;
    if (deployment->rc < 0) {
        fail(deployment, code_of(deployment->rc));
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
static struct target *find_target(const struct deployment *deployment, const struct link *link) {
    for (size_t i = 1; i < deployment->count; i++)
        if (deployment->targets[i].link == link)
            return &deployment->targets[i];
    return NULL;
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

void deploy_link_up(struct device *device, struct link *link) {
    const struct deployment *wanted = find_wanted(device->deploy);
    struct target *target = wanted ? find_target(wanted, link) : NULL;
    if (target)
        send_prepare(target);
}

void deploy_link_lost(struct device *device, struct link *link, const char *why) {
    struct deployment *deployment;
    TAILQ_FOREACH(deployment, &device->deploy->all, entry) {
        struct target *target = deployment->is_over ? NULL : find_target(deployment, link);
        if (!target)
            continue;
        stop_serving(device->deploy, target);
        if (target->state != TARGET_AWAY)
            set_target(target, TARGET_AWAY);
        if (deployment->state != ACTIVE)
            err_set(&device_of(target)->err, -ENOTCONN, "%s", why);
    }
    serve(device->deploy);
}

static struct target *find_by_plan(struct deploy *deploy, const struct link *link,
                                   const ProtobufCBinaryData *plan) {
    struct deployment *deployment;
    TAILQ_FOREACH(deployment, &deploy->all, entry) {
        struct target *target = deployment->is_over ? NULL : find_target(deployment, link);
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
    stop_serving(device->deploy, target);
    if (prepared->code != CONVOY__CODE__CODE_OK) {
        fail_target(target, prepared->code, prepared->text);
    } else {
        set_target(target, TARGET_PREPARED);
        device_of(target)->err.text[0] = '\0';
        if (target->deployment->state == PREPARING)
            check_prepared(target->deployment);
    }
    serve(device->deploy);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static bool frames_flow(const struct device *device) {
    return device->flow.jobs > 0 || !flow_is_idle(device);
}

static void send_piece(struct target *target, size_t bytes) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__PartChunk chunk = CONVOY__PART_CHUNK__INIT;
    struct pool *pool = target->deployment->deploy->device->pool;
    const struct segment segment = {target->buffer->data, bytes, target->buffer};
    struct buffer *header;
    size_t header_bytes;
    chunk.part.data = target->part;
    chunk.part.len = SHA256_SIZE;
    chunk.offset = target->offset;
    message.body_case = CONVOY__MESSAGE__BODY_PART_CHUNK;
    message.part_chunk = &chunk;
    int rc = conn_pack(pool, &message, bytes, &header, &header_bytes);
    if (rc == 0)
        rc = conn_send_packed(target->link->conn, header, header_bytes, &segment, 1, NULL, NULL);
    if (rc < 0 && rc != -ENOTCONN)
        conn_close(target->link->conn, "out of memory");
    target->bytes = 0;
    target->piece_us = device_now_us();
    device_of(target)->sent_bytes += bytes;
}

static void on_read(uv_fs_t *req) {
    struct target *target = req->data;
    struct deployment *deployment = target->deployment;
    struct deploy *deploy = deployment->deploy;
    ssize_t got = req->result;
    uv_fs_req_cleanup(req);
    target->is_reading = false;
    deployment->reads--;
    if (!deployment->is_over && target->bytes > 0 && link_is_up(target->link)) {
        if (got == (ssize_t)target->bytes) {
            send_piece(target, (size_t)got);
        } else {
            log_error("cannot read the part for %s: %s", device_of(target)->node,
                      got < 0 ? uv_strerror((int)got) : "it has become shorter");
            conn_goodbye(target->link->conn, CONVOY__CODE__CODE_INTERNAL,
                         "the part cannot be read");
        }
    }
    buffer_unref(target->buffer);
    target->buffer = NULL;
    if (deployment->is_over)
        deployment_end(deployment);
    else
        serve(deploy);
}

static void read_piece(struct target *target) {
    struct deploy *deploy = target->deployment->deploy;
    target->buffer = pool_get(deploy->device->pool, target->bytes);
    if (!target->buffer) {
        conn_close(target->link->conn, "out of memory");
        return;
    }
    uv_buf_t buf = {.base = target->buffer->data, .len = target->bytes};
    target->read.data = target;
    int rc = uv_fs_read(deploy->device->loop, &target->read, target->fd, &buf, 1,
                        (int64_t)target->offset, on_read);
    if (rc < 0) {
        buffer_unref(target->buffer);
        target->buffer = NULL;
        conn_close(target->link->conn, uv_strerror(rc));
        return;
    }
    target->is_reading = true;
    target->deployment->reads++;
}

static void on_timer(uv_timer_t *timer) {
    serve(timer->data);
}

/* Reads the pieces that may be sent now. */
static void serve(struct deploy *deploy) {
    struct target *target;
    uint64_t now_us = device_now_us();
    bool is_paced = frames_flow(deploy->device);
    while ((target = TAILQ_FIRST(&deploy->waiting)) != NULL) {
        const struct target *serving = is_paced ? deploy->serving : NULL;
        uint64_t until_us = is_paced ? deploy->quiet_until_us : 0;
        if (serving && serving->piece_us > 0 && serving->piece_us + ANSWER_US > now_us)
            until_us = serving->piece_us + ANSWER_US;
        else if (serving && serving->is_reading)
            return; /* it calls again */
        if (until_us > now_us) {
            if (!deploy->is_closing)
                uv_timer_start(&deploy->timer, on_timer, (until_us - now_us) / 1000 + 1, 0);
            return;
        }
        TAILQ_REMOVE(&deploy->waiting, target, waiting);
        target->is_waiting = false;
        deploy->serving = target;
        read_piece(target);
    }
}

/* A piece has arrived when the next one is asked for. */
static void note_arrival(struct deploy *deploy, struct target *target) {
    uint64_t now_us = device_now_us(), pause_us;
    if (target->piece_us == 0)
        return;
    pause_us = PACE * (now_us - target->piece_us);
    deploy->quiet_until_us = now_us + (pause_us < PACE_MOST_US ? pause_us : PACE_MOST_US);
    target->piece_us = 0;
    if (deploy->serving == target)
        deploy->serving = NULL;
}

void deploy_part_request(struct device *device, struct link *link,
                         const Convoy__PartRequest *request) {
    struct deploy *deploy = device->deploy;
    struct deployment *deployment;
    struct target *target = NULL;
    TAILQ_FOREACH(deployment, &deploy->all, entry) {
        target = deployment->is_over ? NULL : find_target(deployment, link);
        if (target && request->part.len == SHA256_SIZE &&
            memcmp(target->part, request->part.data, SHA256_SIZE) == 0)
            break;
        target = NULL;
    }
    if (!target)
        return; /* of a plan that is not wanted any more */
    if (target->bytes > 0 || target->is_reading || request->bytes == 0 ||
        request->bytes > DEPLOY_CHUNK_MAX || request->offset >= target->part_bytes ||
        request->bytes > target->part_bytes - request->offset) {
        conn_goodbye(link->conn, CONVOY__CODE__CODE_MALFORMED,
                     "a piece that the part does not have, or a second one at a time");
        return;
    }
    note_arrival(deploy, target);
    target->offset = request->offset;
    target->bytes = request->bytes;
    target->is_waiting = true;
    TAILQ_INSERT_TAIL(&deploy->waiting, target, waiting);
    serve(deploy);
}

/* ---- activating ------------------------------------------------------------------------------ */

/* Earlier deployments of the same plan are this one now. */
static void forget_same(struct deployment *deployment) {
    struct deployment *other, *next;
    for (other = TAILQ_FIRST(&deployment->deploy->all); other; other = next) {
        next = TAILQ_NEXT(other, entry);
        if (other != deployment && !other->is_over && other->state == ACTIVE &&
            memcmp(other->plan->id, deployment->plan->id, SHA256_SIZE) == 0)
            deployment_end(other);
    }
}

void deploy_plans_changed(struct device *device) {
    struct deployment *deployment = device->deploy ? device->deploy->running : NULL;
    const struct held *held;
    if (!deployment || deployment->state != ACTIVATING)
        return;
    held = planset_find(&device->plans, deployment->plan->id, SHA256_SIZE);
    if (!held || !held_is_ready(held))
        return;
    set_state(deployment, ACTIVE);
    forget_same(deployment);
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
        release_everywhere(deployment);
        deployment_end(deployment);
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

static void check_away(struct deployment *deployment, uint64_t now_us) {
    char text[512];
    for (size_t i = 1; i < deployment->count; i++) {
        struct target *target = &deployment->targets[i];
        if (target->state != TARGET_AWAY || now_us - target->since_us < DEPLOY_AWAY_MS * 1000)
            continue;
        const char *why = deployment->devices[i].err.text;
        snprintf(text, sizeof(text), "no connection to %.280s for %d s%s%.150s",
                 deployment->devices[i].address, DEPLOY_AWAY_MS / 1000, why[0] ? ": " : "", why);
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

/* The configuration may be read again while the builder works: it gets what it needs of it. */
static int copy_config(const struct config *config, struct config **ret_config) {
    struct config *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return -ENOMEM;
    copy->cache = config->cache;
    copy->line_model = config->line_model;
    copy->file = strdup(config->file);
    copy->model = strdup(config->model);
    copy->state = config->state ? strdup(config->state) : NULL;
    copy->dims = calloc(config->dims_count + 1, sizeof(*copy->dims));
    bool good = copy->file && copy->model && copy->dims && (copy->state || !config->state);
    for (size_t i = 0; good && i < config->dims_count; i++) {
        copy->dims[i].value = config->dims[i].value;
        copy->dims[i].name = strdup(config->dims[i].name);
        good = copy->dims[i].name != NULL;
        copy->dims_count++;
    }
    if (!good) {
        config_free(copy);
        return -ENOMEM;
    }
    *ret_config = copy;
    return 0;
}

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

static int copy_stages(struct deployment *deployment, const struct deploy_request *request) {
    for (size_t i = 0; i < deployment->count; i++) {
        const struct deploy_stage *stage = &request->stages[i];
        struct deploy_device *device = &deployment->devices[i];
        bool is_last = i + 1 == deployment->count;
        device->node = strdup(stage->node);
        device->address = strdup(stage->address);
        deployment->requests[i] =
            (struct plan_request){device->node, device->address, stage->until};
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

static struct deployment *deployment_new(struct device *device,
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
    deployment->job.work = build;
    deployment->job.done = on_built;
    TAILQ_INSERT_HEAD(&device->deploy->all, deployment, entry);
    deployment->devices = calloc(count, sizeof(*deployment->devices));
    deployment->targets = calloc(count, sizeof(*deployment->targets));
    deployment->requests = calloc(count, sizeof(*deployment->requests));
    deployment->until_names = calloc(count, sizeof(*deployment->until_names));
    if (!deployment->devices || !deployment->targets || !deployment->requests ||
        !deployment->until_names || copy_config(device->config, &deployment->config) < 0)
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
    deployment_free(deployment);
    return NULL;
}

int deploy_run(struct device *device, const struct deploy_request *request, struct err *err) {
    struct deploy *deploy = device->deploy;
    int rc = check_request(device, request, err);
    if (rc < 0)
        return rc;
    struct deployment *deployment = deployment_new(device, request);
    if (!deployment)
        return err_set(err, -ENOMEM, "out of memory");
    deploy->running = deployment;
    deploy->retry_us = 0; /* this is wanted now */
    set_state(deployment, BUILDING);
    deployment->is_building = true;
    builder_submit(device->builder, &deployment->job);
    return 0;
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
                                           .done = on_configured,
                                           .arg = device->deploy};
    struct err err = {""};
    if (!config->deploy || config_find_stage(config) != 0)
        return;
    for (size_t i = 0; i < config->pipeline_count && i < DEPLOY_STAGES_MAX; i++)
        stages[i] = (struct deploy_stage){.node = config->pipeline[i].node,
                                          .address = config->pipeline[i].address,
                                          .until_name = config->pipeline[i].until};
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
        deployment_end(deployment);
    }
    deploy->device->deploy = NULL;
    uv_close((uv_handle_t *)&deploy->timer, on_timer_closed);
}
