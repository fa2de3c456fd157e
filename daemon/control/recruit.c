/* Happy path: Prepare -> FINDING: the builder looks into the cache; the part is not there, so it
 * makes room and opens an unfinished file -> RECEIVING: PartRequest, PartChunk, write, the next ...
 * -> BUILDING: the builder syncs and checks the file, opens it as a model, prepares the stage ->
 * the plan is adopted, Prepared OK. A part that is in the cache goes from FINDING to BUILDING;
 * where a plan of the same model is held with the whole of it, no part is needed at all; a plan
 * that is held is answered at once.
 *
 * Failure: whatever goes wrong is answered with Prepared and its reason, and nothing stays but what
 * has come of the part. The ingress' connection breaks: while RECEIVING the order ends (the file
 * stays, the next Prepare goes on with it), while the builder has it the order goes on without a
 * peer; when the same plan comes again meanwhile it is that peer's, else the outcome is dropped.
 * The plan is released, or the same ingress wants another: the same.
 *
 * Measure goes the same way, but in BUILDING all layers are timed (measure.h), and the answer is
 * Measured. When nobody waits for it any more, the timing is stopped. */
#include "daemon/control/recruit.h"

#include "daemon/control/cache.h"
#include "daemon/control/measure.h"
#include "daemon/control/memory.h"
#include "daemon/device.h"
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STRAYS_MAX          4 /* more plans do not cross on the way */
#define MEASURED_LAYERS_MAX (MESSAGE_HEADER_MAX / sizeof(float) - 1024)

enum order_state { ORDER_NEW, ORDER_FINDING, ORDER_RECEIVING, ORDER_BUILDING };

/* One Prepare, or one Measure. */
struct order {
    struct job job;
    struct device *device;
    struct peer *peer; /* who wants to know; NULL: nobody any more */
    enum order_state state;
    struct plan *plan; /* NULL when it has been given to held, and of a Measure */
    uint8_t plan_id[SHA256_SIZE];
    uint8_t model_id[SHA256_SIZE];
    size_t index;
    bool measures;
    uint64_t token; /* of the Measure */
    double seconds;
    atomic_bool stop;
    uint8_t part[SHA256_SIZE];
    uint64_t part_bytes;
    size_t result_bytes;
    char *model_name;

    /* For the builder: copies. */
    char *state_folder;
    struct cache_limits cache_limits;
    struct held_settings settings;
    uint8_t keep[PLANSET_MAX][SHA256_SIZE];
    size_t keep_count;
    struct model *model; /* the whole one, with a reference; NULL: the part is needed */

    /* Its outcome. */
    int rc;
    Convoy__Code code; /* where rc alone does not say it */
    struct err err;
    char *path;    /* of the part, when all of it is there */
    int fd;        /* of its unfinished file; -1: none */
    uint64_t have; /* bytes of that */
    struct held *held;
    struct measure measure;
    struct cache_usage usage;

    /* Receiving. */
    uint32_t asked; /* bytes that were asked for and have not come */
    struct buffer *chunk;
    size_t chunk_bytes, chunk_written;
};

/* A piece that was asked for by an order that is over: it may be on its way. */
struct stray {
    const struct peer *peer; /* NULL: none */
    uint8_t part[SHA256_SIZE];
    uint64_t offset;
    uint32_t bytes;
};

struct recruit {
    struct device *device;
    struct order *current, *next;
    struct log_repeat refusal; /* the last one */
    struct stray strays[STRAYS_MAX];
    size_t strays_next; /* where the next one is noted */
    uv_fs_t write;
    bool is_writing, is_closing;
};

static void start(struct recruit *recruit);

/* ---- answers --------------------------------------------------------------------------------- */

/* An ingress may want the same again and again. */
static void log_refusal(struct recruit *recruit, const struct peer *peer, Convoy__Code code,
                        const char *text) {
    char line[sizeof(recruit->refusal.text)];
    snprintf(line, sizeof(line), "a plan of %s is refused: %s: %s", peer_name(peer),
             message_code_name(code), text);
    if (code == CONVOY__CODE__CODE_OK)
        recruit->refusal.said_us = 0;
    else if (log_is_news(&recruit->refusal, line, device_now_us()))
        log_warning("%s", line);
}

static void answer(struct device *device, struct peer *peer, const uint8_t *plan, size_t plan_bytes,
                   Convoy__Code code, const char *text) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Prepared prepared = CONVOY__PREPARED__INIT;
    prepared.plan.data = (uint8_t *)(uintptr_t)plan;
    prepared.plan.len = plan_bytes;
    prepared.code = code;
    prepared.text = (char *)(uintptr_t)text;
    prepared.node = device->config->node;
    message.body_case = CONVOY__MESSAGE__BODY_PREPARED;
    message.prepared = &prepared;
    log_refusal(device->recruit, peer, code, text);
    conn_send(peer_conn(peer), &message);
}

/* The answer to a Measure; measure: NULL, or what was measured. */
static void answer_measure(struct peer *peer, uint64_t token, const struct measure *measure,
                           Convoy__Code code, const char *text) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Measured measured = CONVOY__MEASURED__INIT;
    float *us = measure ? calloc(measure->layers, sizeof(*us)) : NULL;
    static const char too_many[] = "the model has too many layers for one message";
    measured.token = token;
    measured.code = code;
    measured.text = (char *)(uintptr_t)text;
    if (measure && (!us || measure->layers > MEASURED_LAYERS_MAX)) {
        measured.code = us ? CONVOY__CODE__CODE_TOO_LARGE : CONVOY__CODE__CODE_NO_MEMORY;
        measured.text = (char *)(uintptr_t)(us ? too_many : "out of memory");
    } else if (measure) {
        for (size_t i = 0; i < measure->layers; i++)
            us[i] = (float)measure->layer_us[i];
        measured.layer_us = us;
        measured.n_layer_us = measure->layers;
        measured.frames = measure->frames;
    }
    message.body_case = CONVOY__MESSAGE__BODY_MEASURED;
    message.measured = &measured;
    if (measured.code != CONVOY__CODE__CODE_OK)
        log_warning("a model of %s is not measured: %s: %s", peer_name(peer),
                    message_code_name(measured.code), measured.text);
    conn_send(peer_conn(peer), &message);
    free(us);
}

/* ---- orders ---------------------------------------------------------------------------------- */

static void order_free(struct order *order) {
    if (!order)
        return;
    if (order->fd >= 0)
        close(order->fd);
    buffer_unref(order->chunk);
    held_unref(order->held);
    measure_fini(&order->measure);
    model_unref(order->model);
    plan_free(order->plan);
    free(order->path);
    free(order->state_folder);
    free(order->model_name);
    free(order);
}

/* The plan of a message, whose id it must have. */
static int read_plan(const Convoy__Prepare *prepare, struct plan **ret_plan, struct err *err) {
    struct plan_request requests[DEPLOY_STAGES_MAX];
    size_t count = prepare->n_stages, layers;
    char host[CONFIG_NAME_MAX + 1], port[16];
    struct err why = {""};
    struct plan *plan;
    if (prepare->plan.len != SHA256_SIZE || prepare->model.len != SHA256_SIZE ||
        prepare->part.len != SHA256_SIZE)
        return err_set(err, -EINVAL, "an id or digest is not of 32 bytes");
    if (count < 2 || count > DEPLOY_STAGES_MAX)
        return err_set(err, -EINVAL, "%zu stages; 2 to %d can be handed out", count,
                       DEPLOY_STAGES_MAX);
    layers = prepare->stages[count - 1]->last;
    for (size_t i = 0; i < count; i++) {
        const Convoy__PlanStage *stage = prepare->stages[i];
        const Convoy__PlanStage *before = i > 0 ? prepare->stages[i - 1] : NULL;
        size_t length = strlen(stage->node);
        uint32_t first = !before ? 0 : stage->shares ? before->first : before->last;
        if (length == 0 || length > CONFIG_NAME_MAX || stage->last == 0 || stage->first != first)
            return err_set(err, -EINVAL, "stage %zu has no name or does not follow the one before",
                           i + 1);
        if (config_split_address(stage->address, host, sizeof(host), port, sizeof(port), &why) < 0)
            return err_set(err, -EINVAL, "stage %zu: %s", i + 1, why.text);
        requests[i] = (struct plan_request){.node = stage->node,
                                            .address = stage->address,
                                            .until = stage->last - 1,
                                            .shares = stage->shares};
    }
    int rc = plan_build(prepare->model.data, layers, requests, count, &plan, err);
    if (rc < 0)
        return rc;
    if (memcmp(plan->id, prepare->plan.data, SHA256_SIZE) != 0) {
        plan_free(plan);
        return err_set(err, -EINVAL, "the plan's id is not that of its stages");
    }
    *ret_plan = plan;
    return 0;
}

static int find_own_stage(const struct device *device, const struct plan *plan, size_t *ret_index,
                          struct err *err) {
    int index = plan_find_node(plan, device->config->node);
    if (index < 0)
        return err_set(err, -EINVAL,
                       "the device here calls itself \"%s\", which is in no stage of the plan: "
                       "look at its `node:`",
                       device->config->node);
    if (index == 0)
        return err_set(err, -EINVAL, "this device would be the plan's first, its ingress");
    *ret_index = (size_t)index;
    return 0;
}

/* What the builder needs to know. */
static int copy_settings(const struct device *device, struct order *order) {
    const struct config *config = device->config;
    order->settings = device_settings(device);
    order->cache_limits = (struct cache_limits){config->cache, (size_t)config->limits.parts};
    for (size_t i = 0; i < device->plans.count; i++)
        memcpy(order->keep[order->keep_count++], device->plans.plans[i]->part, SHA256_SIZE);
    if (config->state && !(order->state_folder = strdup(config->state)))
        return -ENOMEM;
    return 0;
}

static struct order *order_new(struct device *device, struct peer *peer,
                               const uint8_t model_id[SHA256_SIZE], const uint8_t part[SHA256_SIZE],
                               uint64_t part_bytes, const char *model_name) {
    struct order *order = calloc(1, sizeof(*order));
    if (!order)
        return NULL;
    order->device = device;
    order->peer = peer;
    order->fd = -1;
    memcpy(order->model_id, model_id, SHA256_SIZE);
    memcpy(order->part, part, SHA256_SIZE);
    order->part_bytes = part_bytes;
    order->model_name = strdup(model_name);
    if (!order->model_name) {
        order_free(order);
        return NULL;
    }
    return order;
}

/* A Prepare whose plan was read. Takes plan on success. */
static struct order *order_of_plan(struct device *device, struct peer *peer, struct plan *plan,
                                   size_t index, const Convoy__Prepare *prepare) {
    struct order *order = order_new(device, peer, plan->model_id, prepare->part.data,
                                    prepare->part_bytes, prepare->model_name);
    if (!order)
        return NULL;
    order->index = index;
    memcpy(order->plan_id, plan->id, SHA256_SIZE);
    order->result_bytes =
        prepare->result_bytes > SIZE_MAX ? SIZE_MAX : (size_t)prepare->result_bytes;
    order->plan = plan;
    return order;
}

/* The end of the current order, whichever it is; the next one begins. The end of recruit where it
 * is being closed: callers do not look at it again. */
static void finish(struct recruit *recruit) {
    struct order *order = recruit->current;
    assert(!recruit->is_writing);
    if (order->usage.bytes > 0 || order->rc == 0)
        recruit->device->cache_usage = order->usage;
    recruit->current = NULL;
    order_free(order);
    if (recruit->is_closing) {
        recruit->device->recruit = NULL;
        free(recruit);
    } else if (recruit->next) {
        recruit->current = recruit->next;
        recruit->next = NULL;
        start(recruit);
    }
}

static void refuse(struct recruit *recruit, Convoy__Code code, const char *text) {
    struct order *order = recruit->current;
    if (order->peer && order->measures)
        answer_measure(order->peer, order->token, NULL, code, text);
    else if (order->peer)
        answer(order->device, order->peer, order->plan_id, SHA256_SIZE, code, text);
    finish(recruit);
}

/* ---- building -------------------------------------------------------------------------------- */

static struct order *order_of(struct job *job) {
    return (struct order *)(uintptr_t)job; /* its first member */
}

/* The part as a model; it must be what the plan says. */
static int open_part(struct order *order, struct model **ret_model) {
    const struct plan_stage *stage = order->plan ? &order->plan->stages[order->index] : NULL;
    struct model *model;
    int rc = model_open(order->path, NULL, &model, &order->err);
    if (rc < 0)
        return rc;
    if (memcmp(model_digest(model), order->part, SHA256_SIZE) != 0)
        rc = err_set(&order->err, -EBADMSG, "the part in the cache is not what its name says");
    else if (stage && model_layers_count(model) != stage->last - stage->first)
        rc = err_set(&order->err, -EBADMSG, "the part has %zu layers, but its stage has %zu",
                     model_layers_count(model), stage->last - stage->first);
    if (rc < 0)
        model_unref(model);
    else
        *ret_model = model;
    return rc;
}

static int build_stage(struct order *order) {
    const struct held_order wanted = {
        .plan = order->plan,
        .index = order->index,
        .model = order->model,
        .base = order->path ? order->plan->stages[order->index].first : 0,
        .result_bytes = order->result_bytes,
        .model_name = order->model_name,
        .where = order->model_name,
        .is_deployed = true,
        .settings = order->settings,
    };
    int rc = held_build_order(&wanted, &order->held, &order->err);
    if (rc < 0)
        return rc;
    order->plan = NULL; /* held has it */
    if (order->path)
        memcpy(order->held->part, order->part, SHA256_SIZE);
    return 0;
}

static int measure_model(struct order *order) {
    const struct profile_options options = {.workers = order->settings.workers,
                                            .threads = order->settings.threads,
                                            .seconds = order->seconds,
                                            .stop = &order->stop};
    return measure_layers(order->model, &options, &order->measure, &order->err);
}

/* Checks what has come of the part, if it came just now, and gives it its name. */
static int complete_part(struct order *order) {
    struct cache *cache = order->device->cache;
    uint64_t bytes;
    if (order->fd < 0)
        return 0;
    int rc = cache_commit(cache, order->part, order->fd, &order->err);
    close(order->fd);
    order->fd = -1;
    if (rc == 0)
        rc = cache_find(cache, order->part, &order->path, &bytes);
    if (rc < 0 && !order->err.text[0])
        err_set(&order->err, rc, "%s", strerror(-rc));
    return rc;
}

static void build(struct job *job) {
    struct order *order = order_of(job);
    bool has_model = order->model != NULL;
    order->rc = has_model ? 0 : complete_part(order);
    if (order->rc == 0 && !has_model)
        order->rc = open_part(order, &order->model);
    if (order->rc == -EBADMSG)
        cache_remove(order->device->cache, order->part);
    if (order->rc == 0)
        order->rc = order->measures ? measure_model(order) : build_stage(order);
    if (order->device->cache)
        cache_get_usage(order->device->cache, &order->usage);
}

static void on_built(struct job *job, bool is_closing) {
    struct order *order = order_of(job);
    struct device *device = order->device;
    struct recruit *recruit = device->recruit;
    if (is_closing || !order->peer) {
        finish(recruit);
        return;
    }
    if (order->rc < 0) {
        refuse(recruit, deploy_code(order->rc), order->err.text);
        return;
    }
    if (order->measures) {
        answer_measure(order->peer, order->token, &order->measure, CONVOY__CODE__CODE_OK, "");
        finish(recruit);
        return;
    }
    struct held *held = order->held;
    order->held = NULL;
    held->ingress = order->peer;
    answer(device, order->peer, order->plan_id, SHA256_SIZE, CONVOY__CODE__CODE_OK, "");
    finish(recruit);
    device_adopt(device, held);
}

static void submit(struct recruit *recruit, enum order_state state, void (*work)(struct job *job),
                   void (*done)(struct job *job, bool is_closing)) {
    struct order *order = recruit->current;
    order->state = state;
    order->job.work = work;
    order->job.done = done;
    builder_submit(recruit->device->builder, &order->job);
}

/* ---- receiving ------------------------------------------------------------------------------- */

static void ask(struct recruit *recruit) {
    struct order *order = recruit->current;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__PartRequest request = CONVOY__PART_REQUEST__INIT;
    uint64_t rest = order->part_bytes - order->have;
    order->asked = rest < DEPLOY_CHUNK ? (uint32_t)rest : DEPLOY_CHUNK;
    request.part.data = order->part;
    request.part.len = SHA256_SIZE;
    request.offset = order->have;
    request.bytes = order->asked;
    message.body_case = CONVOY__MESSAGE__BODY_PART_REQUEST;
    message.part_request = &request;
    conn_send(peer_conn(order->peer), &message);
}

/* Asks for more, or builds. */
static void go_on(struct recruit *recruit) {
    struct order *order = recruit->current;
    if (recruit->is_closing || !order->peer)
        finish(recruit);
    else if (order->have < order->part_bytes)
        ask(recruit);
    else
        submit(recruit, ORDER_BUILDING, build, on_built);
}

static void write_chunk(struct recruit *recruit);

static void on_written(uv_fs_t *req) {
    struct recruit *recruit = req->data;
    struct order *order = recruit->current;
    ssize_t written = req->result;
    char text[128];
    uv_fs_req_cleanup(req);
    recruit->is_writing = false;
    if (written > 0) {
        order->have += (uint64_t)written;
        order->chunk_written += (size_t)written;
        if (order->chunk_written < order->chunk_bytes && !recruit->is_closing) {
            write_chunk(recruit);
            return;
        }
    }
    buffer_unref(order->chunk);
    order->chunk = NULL;
    if (written <= 0) {
        snprintf(text, sizeof(text), "cannot write the part: %s",
                 uv_strerror(written < 0 ? (int)written : UV_EIO));
        refuse(recruit, deploy_code((int)written), text);
    } else {
        go_on(recruit);
    }
}

static void write_chunk(struct recruit *recruit) {
    struct order *order = recruit->current;
    uv_buf_t buf = {.base = (char *)order->chunk->data + order->chunk_written,
                    .len = order->chunk_bytes - order->chunk_written};
    recruit->write.data = recruit;
    int rc = uv_fs_write(recruit->device->loop, &recruit->write, order->fd, &buf, 1,
                         (int64_t)order->have, on_written);
    recruit->is_writing = rc == 0;
    if (rc < 0)
        refuse(recruit, CONVOY__CODE__CODE_INTERNAL, uv_strerror(rc));
}

static bool is_expected(const struct recruit *recruit, const struct peer *peer,
                        const Convoy__PartChunk *chunk, size_t bytes) {
    const struct order *order = recruit->current;
    return order && order->peer == peer && order->state == ORDER_RECEIVING && order->asked > 0 &&
           bytes == order->asked && chunk->offset == order->have &&
           chunk->part.len == SHA256_SIZE &&
           memcmp(chunk->part.data, order->part, SHA256_SIZE) == 0;
}

static struct stray *find_stray(struct recruit *recruit, const struct peer *peer,
                                const Convoy__PartChunk *chunk, size_t bytes) {
    for (size_t i = 0; i < STRAYS_MAX; i++) {
        struct stray *stray = &recruit->strays[i];
        if (stray->peer == peer && stray->bytes == bytes && stray->offset == chunk->offset &&
            chunk->part.len == SHA256_SIZE &&
            memcmp(chunk->part.data, stray->part, SHA256_SIZE) == 0)
            return stray;
    }
    return NULL;
}

bool recruit_expects(const struct device *device, const struct peer *peer,
                     const Convoy__PartChunk *chunk, size_t bytes) {
    return is_expected(device->recruit, peer, chunk, bytes) ||
           find_stray(device->recruit, peer, chunk, bytes);
}

void recruit_chunk(struct device *device, struct peer *peer, const Convoy__PartChunk *chunk,
                   struct buffer *payload, size_t bytes) {
    struct recruit *recruit = device->recruit;
    struct order *order = recruit->current;
    if (!is_expected(recruit, peer, chunk, bytes)) {
        struct stray *stray = find_stray(recruit, peer, chunk, bytes);
        buffer_unref(payload);
        if (stray)
            stray->peer = NULL;
        else
            conn_goodbye(peer_conn(peer), CONVOY__CODE__CODE_MALFORMED,
                         "a piece of a part that was not asked for");
        return;
    }
    order->asked = 0;
    order->chunk = payload;
    order->chunk_bytes = bytes;
    order->chunk_written = 0;
    write_chunk(recruit);
}

/* ---- finding --------------------------------------------------------------------------------- */

/* Is it in the cache? Else there must be room for it, on disk and, since its numbers are what a
 * stage is made of, in memory. */
static void find(struct job *job) {
    struct order *order = order_of(job);
    const struct cache_keep keep = {(const uint8_t(*)[SHA256_SIZE])order->keep, order->keep_count};
    struct cache **cache = &order->device->cache;
    uint64_t bytes, left;
    order->rc = cache_use(cache, order->state_folder, &order->cache_limits, &order->err);
    if (order->rc < 0)
        return;
    order->rc = cache_find(*cache, order->part, &order->path, &bytes);
    if (order->rc == -ENOENT) {
        left = order->measures ? UINT64_MAX : memory_available(); /* it is measured in slices */
        if (order->part_bytes > left)
            order->rc = err_set(&order->err, -ENOMEM,
                                "the part has %" PRIu64 " MB, but the system has %" PRIu64
                                " MB of memory left",
                                order->part_bytes / 1000000, left / 1000000);
        else
            order->rc = cache_begin(*cache, order->part, order->part_bytes, &keep, &order->fd,
                                    &order->have, &order->err);
    }
    if (order->rc < 0 && !order->err.text[0])
        err_set(&order->err, order->rc, "%s", strerror(-order->rc));
    cache_get_usage(*cache, &order->usage);
}

static void on_found(struct job *job, bool is_closing) {
    struct order *order = order_of(job);
    struct recruit *recruit = order->device->recruit;
    if (is_closing || !order->peer) {
        finish(recruit);
    } else if (order->rc < 0) {
        refuse(recruit, deploy_code(order->rc), order->err.text);
    } else if (order->path) {
        submit(recruit, ORDER_BUILDING, build, on_built);
    } else {
        char id[LOG_ID_SIZE];
        log_info("part %s of %s: %" PRIu64 " of %" PRIu64 " bytes are here; fetching the rest",
                 log_id(order->part, id), order->model_name, order->have, order->part_bytes);
        order->state = ORDER_RECEIVING;
        go_on(recruit);
    }
}

/* The whole model, where a plan of it is held. */
static struct model *find_model(const struct device *device, const struct order *order) {
    for (size_t i = 0; i < device->plans.count; i++) {
        const struct held *held = device->plans.plans[i];
        if (held_has_whole_model(held) &&
            memcmp(held->plan->model_id, order->model_id, SHA256_SIZE) == 0)
            return held->model;
    }
    return NULL;
}

/* Plans of an ingress that has gone make room for what is wanted now. Should it come back, it says
 * so, and the part is still on disk. */
static void release_orphans(struct device *device) {
    size_t i = 0;
    while (i < device->plans.count) {
        struct held *held = device->plans.plans[i];
        if (held->is_deployed && !held_is_first(held) && !held->ingress && held->frames == 0)
            device_release(device, held);
        else
            i++;
    }
}

static void start(struct recruit *recruit) {
    struct order *order = recruit->current;
    if (!order->measures)
        release_orphans(recruit->device);
    struct model *model = find_model(recruit->device, order);
    char text[160];
    if (copy_settings(recruit->device, order) < 0) {
        refuse(recruit, CONVOY__CODE__CODE_NO_MEMORY, "out of memory");
    } else if (model) {
        order->model = model_ref(model);
        submit(recruit, ORDER_BUILDING, build, on_built);
    } else if (!order->measures && order->part_bytes > order->settings.memory) {
        snprintf(text, sizeof(text),
                 "the part has %" PRIu64 " MB, more than `memory:` leaves (%" PRIu64 " MB)",
                 order->part_bytes / 1000000, order->settings.memory / 1000000);
        refuse(recruit, CONVOY__CODE__CODE_NO_MEMORY, text);
    } else {
        submit(recruit, ORDER_FINDING, find, on_found);
    }
}

/* ---- what an ingress says -------------------------------------------------------------------- */

static void note_stray(struct recruit *recruit, const struct order *order) {
    struct stray *stray = &recruit->strays[recruit->strays_next++ % STRAYS_MAX];
    stray->peer = order->peer;
    stray->offset = order->have;
    stray->bytes = order->asked;
    memcpy(stray->part, order->part, SHA256_SIZE);
}

/* Nobody waits for the current order any more. */
static void abandon(struct recruit *recruit) {
    if (recruit->current->asked > 0)
        note_stray(recruit, recruit->current);
    recruit->current->peer = NULL;
    recruit->current->asked = 0;
    atomic_store(&recruit->current->stop, true);
    if (recruit->current->state == ORDER_RECEIVING && !recruit->is_writing)
        finish(recruit);
}

/* The current order is wanted again, by the same ingress over a new connection perhaps. */
static void take_over(struct recruit *recruit, struct peer *peer) {
    struct order *order = recruit->current;
    if (order->peer == peer)
        return;
    order->peer = peer;
    if (order->state == ORDER_RECEIVING && !recruit->is_writing)
        ask(recruit);
}

/* The order that waits, if it is peer's, is not wanted any more. */
static void drop_next(struct recruit *recruit, const struct peer *peer) {
    if (!recruit->next || recruit->next->peer != peer)
        return;
    order_free(recruit->next);
    recruit->next = NULL;
}

/* Whether another ingress than peer waits for an answer: one that is told nothing waits for ever.
 */
static bool is_busy_for_another(const struct recruit *recruit, const struct peer *peer) {
    const struct order *current = recruit->current, *next = recruit->next;
    return (current && current->peer && current->peer != peer) || (next && next->peer != peer);
}

static void refuse_busy(struct order *order) {
    static const char text[] = "this device is busy for another ingress";
    if (order->measures)
        answer_measure(order->peer, order->token, NULL, CONVOY__CODE__CODE_BUSY, text);
    else
        answer(order->device, order->peer, order->plan_id, SHA256_SIZE, CONVOY__CODE__CODE_BUSY,
               text);
}

/* A plan does not wait for what is only measured: nobody waits for that any more. */
static void make_way(struct recruit *recruit) {
    struct order *current = recruit->current;
    if (current && current->measures && current->peer) {
        refuse_busy(current);
        if (current->asked > 0)
            note_stray(recruit, current);
        current->asked = 0;
        current->peer = NULL;
    }
    if (recruit->next && recruit->next->measures) {
        refuse_busy(recruit->next);
        order_free(recruit->next);
        recruit->next = NULL;
    }
}

static void enqueue(struct recruit *recruit, struct order *order) {
    drop_next(recruit, order->peer);
    if (!order->measures)
        make_way(recruit);
    struct order *current = recruit->current;
    if (current && !current->measures && !order->measures &&
        memcmp(current->plan_id, order->plan_id, SHA256_SIZE) == 0 &&
        (!current->peer || current->peer == order->peer)) {
        take_over(recruit, order->peer);
        order_free(order);
    } else if (is_busy_for_another(recruit, order->peer)) {
        refuse_busy(order);
        order_free(order);
    } else if (current) {
        recruit->next = order;
        abandon(recruit);
    } else {
        recruit->current = order;
        start(recruit);
    }
}

/* A plan that is held becomes the newest again, with the addresses of now. */
static bool adopt_again(struct device *device, const struct peer *peer, struct plan *plan,
                        size_t index) {
    struct held *known = planset_find(&device->plans, plan->id, SHA256_SIZE);
    struct held *held = known ? held_new_known(plan, index) : NULL;
    if (!held)
        return false;
    known->ingress = peer;
    device_adopt(device, held);
    return true;
}

void recruit_prepare(struct device *device, struct peer *peer, const Convoy__Prepare *prepare) {
    struct plan *plan = NULL;
    struct order *order;
    struct err err = {""};
    size_t index = 0;
    if (device->draining) {
        answer(device, peer, prepare->plan.data, prepare->plan.len,
               CONVOY__CODE__CODE_SHUTTING_DOWN, "this device is shutting down");
        return;
    }
    int rc = read_plan(prepare, &plan, &err);
    if (rc == 0)
        rc = find_own_stage(device, plan, &index, &err);
    if (rc < 0) {
        answer(device, peer, prepare->plan.data, prepare->plan.len,
               rc == -ENOMEM ? CONVOY__CODE__CODE_NO_MEMORY : CONVOY__CODE__CODE_BAD_PLAN,
               err.text);
        plan_free(plan);
        return;
    }
    if (adopt_again(device, peer, plan, index)) {
        answer(device, peer, prepare->plan.data, SHA256_SIZE, CONVOY__CODE__CODE_OK, "");
        return;
    }
    order = order_of_plan(device, peer, plan, index, prepare);
    if (!order) {
        answer(device, peer, plan->id, SHA256_SIZE, CONVOY__CODE__CODE_NO_MEMORY, "out of memory");
        plan_free(plan);
        return;
    }
    enqueue(device->recruit, order);
}

void recruit_measure(struct device *device, struct peer *peer, const Convoy__Measure *measure) {
    struct order *order;
    if (device->draining) {
        answer_measure(peer, measure->token, NULL, CONVOY__CODE__CODE_SHUTTING_DOWN,
                       "this device is shutting down");
        return;
    }
    if (measure->model.len != SHA256_SIZE || measure->part.len != SHA256_SIZE) {
        answer_measure(peer, measure->token, NULL, CONVOY__CODE__CODE_BAD_PART,
                       "an id or digest is not of 32 bytes");
        return;
    }
    order = order_new(device, peer, measure->model.data, measure->part.data, measure->part_bytes,
                      measure->model_name);
    if (!order) {
        answer_measure(peer, measure->token, NULL, CONVOY__CODE__CODE_NO_MEMORY, "out of memory");
        return;
    }
    order->measures = true;
    order->token = measure->token;
    order->seconds = fmin(fmax(measure->seconds, 0), MEASURE_SECONDS_MAX);
    enqueue(device->recruit, order);
}

void recruit_release(struct device *device, struct peer *peer, const Convoy__Release *release) {
    struct recruit *recruit = device->recruit;
    struct held *held = planset_find(&device->plans, release->plan.data, release->plan.len);
    if (release->plan.len != SHA256_SIZE)
        return;
    if (recruit->next && memcmp(recruit->next->plan_id, release->plan.data, SHA256_SIZE) == 0 &&
        recruit->next->peer == peer) {
        order_free(recruit->next);
        recruit->next = NULL;
    }
    if (recruit->current && recruit->current->peer == peer &&
        memcmp(recruit->current->plan_id, release->plan.data, SHA256_SIZE) == 0)
        abandon(recruit);
    if (held && held->is_deployed && !held_is_first(held)) /* that is this ingress' own affair */
        device_release(device, held);
}

void recruit_peer_gone(struct device *device, const struct peer *peer) {
    struct recruit *recruit = device->recruit;
    for (size_t i = 0; i < device->plans.count; i++)
        if (device->plans.plans[i]->ingress == peer)
            device->plans.plans[i]->ingress = NULL;
    for (size_t i = 0; i < STRAYS_MAX; i++)
        if (recruit->strays[i].peer == peer)
            recruit->strays[i].peer = NULL;
    drop_next(recruit, peer);
    if (recruit->current && recruit->current->peer == peer) {
        recruit->current->asked = 0; /* it will not come */
        abandon(recruit);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

struct recruit *recruit_new(struct device *device) {
    struct recruit *recruit = calloc(1, sizeof(*recruit));
    if (recruit)
        recruit->device = device;
    return recruit;
}

void recruit_close(struct recruit *recruit) {
    if (!recruit)
        return;
    recruit->is_closing = true;
    if (recruit->current)
        atomic_store(&recruit->current->stop, true);
    order_free(recruit->next);
    recruit->next = NULL;
    if (!recruit->current) {
        recruit->device->recruit = NULL;
        free(recruit);
    } else if (recruit->current->state == ORDER_RECEIVING && !recruit->is_writing) {
        finish(recruit);
    }
}
