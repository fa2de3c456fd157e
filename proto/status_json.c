#include "proto/status_json.h"

#include "base/json.h"
#include "base/sha256.h"

#include <string.h>

/* ---- which stage holds the line up ---- */

/* Time per frame of the link behind a stage while it is sending, by its rate and bytes so far. */
static double link_ms(const Convoy__StageStatus *stage) {
    if (stage->send_mbit <= 0 || stage->frames_out == 0)
        return 0;
    return (double)stage->bytes_out / (double)stage->frames_out * 8 / (stage->send_mbit * 1000);
}

/* Whether two devices share a stage. */
static bool are_replicas(const Convoy__StageStatus *a, const Convoy__StageStatus *b) {
    return a->last > a->first && a->first == b->first && a->last == b->last && a->plan.len > 0 &&
           a->plan.len == b->plan.len && memcmp(a->plan.data, b->plan.data, a->plan.len) == 0;
}

/* Time per frame of the line in the stage of entry i. Frames are computed side by side by several
 * workers, and by the devices that share the stage. */
static double stage_ms(const Convoy__Status *status, size_t i) {
    double rate = 0;
    for (size_t k = 0; k < status->n_stages; k++) {
        const Convoy__StageStatus *stage = status->stages[k];
        if (stage->compute_ms > 0 && (k == i || are_replicas(stage, status->stages[i])))
            rate += (stage->workers > 1 ? stage->workers : 1) / stage->compute_ms;
    }
    return rate > 0 ? 1 / rate : 0;
}

/* Time per frame of the line of the link behind entry i, which sends some of the frames only where
 * devices share its stage. */
static double share_ms(const Convoy__Status *status, size_t i) {
    const Convoy__StageStatus *own = status->stages[i];
    uint64_t all = 0;
    for (size_t k = 0; k < status->n_stages; k++)
        if (k == i || are_replicas(status->stages[k], own))
            all += status->stages[k]->frames_out;
    return all > 0 ? link_ms(own) * (double)own->frames_out / (double)all : 0;
}

struct status_bottleneck status_find_bottleneck(const Convoy__Status *status) {
    struct status_bottleneck worst = {0};
    for (size_t i = 0; i < status->n_stages; i++) {
        double compute = stage_ms(status, i), link = share_ms(status, i);
        if (compute > worst.ms)
            worst = (struct status_bottleneck){i, false, compute};
        if (link > worst.ms && i + 1 < status->n_stages)
            worst = (struct status_bottleneck){i, true, link};
    }
    return worst;
}

static bool is_ready(const Convoy__StageStatus *stage) {
    return strcmp(stage->state, "ready") == 0;
}

bool status_is_replaced(const Convoy__Status *status, size_t stage) {
    for (size_t k = 0; k < status->n_stages; k++)
        if (is_ready(status->stages[k]) && are_replicas(status->stages[k], status->stages[stage]))
            return !is_ready(status->stages[stage]);
    return false;
}

const Convoy__StageStatus *status_find_blocker(const Convoy__Status *status) {
    for (size_t i = status->n_stages; i-- > 0;)
        if (!is_ready(status->stages[i]) && !status_is_replaced(status, i))
            return status->stages[i];
    return NULL;
}

/* ---- JSON ---- */

static void set_integer(json_t *object, const char *key, uint64_t value) {
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *digest_json(const ProtobufCBinaryData *digest) {
    char hex[SHA256_HEX];
    return digest->len == SHA256_SIZE ? json_text(sha256_format(digest->data, hex)) : json_null();
}

static json_t *plans_json(const Convoy__StageStatus *s) {
    json_t *plans = json_array();
    for (size_t i = 0; i < s->n_plans; i++) {
        const Convoy__PlanStatus *plan = s->plans[i];
        json_t *o = json_object();
        json_object_set_new(o, "plan", digest_json(&plan->plan));
        set_integer(o, "first", plan->first);
        set_integer(o, "last", plan->last ? plan->last - 1 : 0);
        json_object_set_new(o, "state", json_text(plan->state));
        json_object_set_new(o, "deployed", json_boolean(plan->deployed));
        set_integer(o, "frames", plan->frames);
        set_integer(o, "memory_bytes", plan->memory_bytes);
        json_array_append_new(plans, o);
    }
    return plans;
}

static json_t *links_json(const Convoy__StageStatus *s) {
    json_t *links = json_array();
    for (size_t i = 0; i < s->n_links; i++) {
        const Convoy__LinkStatus *link = s->links[i];
        json_t *o = json_object();
        json_object_set_new(o, "node", json_text(link->node));
        json_object_set_new(o, "address", json_text(link->address));
        json_object_set_new(o, "ready", json_boolean(link->ready));
        set_integer(o, "frames_out", link->frames_out);
        set_integer(o, "in_flight", link->in_flight);
        set_integer(o, "bytes_out", link->bytes_out);
        json_object_set_new(o, "send_mbit", json_number(link->send_mbit));
        json_array_append_new(links, o);
    }
    return links;
}

/* What the device's kernel tells; null where it does not. */
static json_t *device_json(const Convoy__StageStatus *s) {
    json_t *o = json_object();
    json_object_set_new(o, "cpu", s->cpu[0] ? json_text(s->cpu) : json_null());
    json_object_set_new(o, "cores", s->cores ? json_integer(s->cores) : json_null());
    json_object_set_new(o, "cpu_quota", s->cpu_quota > 0 ? json_number(s->cpu_quota) : json_null());
    json_object_set_new(o, "memory_available",
                        s->memory_available ? json_integer((json_int_t)s->memory_available)
                                            : json_null());
    json_object_set_new(o, "celsius", s->celsius != 0 ? json_number(s->celsius) : json_null());
    json_object_set_new(o, "throttled",
                        s->throttled ? json_boolean(s->throttled == 2) : json_null());
    return o;
}

static json_t *decisions_json(const Convoy__Status *status) {
    json_t *list = json_array();
    for (size_t i = 0; i < status->n_decisions; i++)
        json_array_append_new(list, json_text(status->decisions[i]));
    return list;
}

static json_t *stage_json(const Convoy__StageStatus *s) {
    json_t *o = json_object();
    json_object_set_new(o, "node", json_text(s->node));
    json_object_set_new(o, "state", json_text(s->state));
    json_object_set_new(o, "plan", digest_json(&s->plan));
    set_integer(o, "first", s->first);
    set_integer(o, "last", s->last ? s->last - 1 : 0);
    json_object_set_new(o, "first_layer", json_text(s->first_layer));
    json_object_set_new(o, "last_layer", json_text(s->last_layer));
    json_object_set_new(o, "compute_ms", json_number(s->compute_ms));
    json_object_set_new(o, "fps", json_number(s->fps));
    set_integer(o, "queued", s->queued);
    set_integer(o, "queue_limit", s->queue_limit);
    set_integer(o, "computing", s->computing);
    set_integer(o, "in_flight", s->in_flight);
    set_integer(o, "workers", s->workers);
    set_integer(o, "threads", s->threads);
    json_object_set_new(o, "send_mbit", json_number(s->send_mbit));
    json_object_set_new(o, "send_full", json_boolean(s->send_full));
    json_object_set_new(o, "link_ms", json_number(link_ms(s)));
    set_integer(o, "bytes_out", s->bytes_out);
    set_integer(o, "memory_bytes", s->memory_bytes);
    set_integer(o, "weights_bytes", s->weights_bytes);
    set_integer(o, "arena_bytes", s->arena_bytes);
    set_integer(o, "frames_in", s->frames_in);
    set_integer(o, "frames_out", s->frames_out);
    set_integer(o, "frames_retried", s->frames_retried);
    set_integer(o, "frames_refused", s->frames_refused);
    set_integer(o, "frames_dropped", s->frames_dropped);
    set_integer(o, "frames_suspect", s->frames_suspect);
    set_integer(o, "overdue_ms", s->overdue_ms);
    set_integer(o, "uptime_ms", s->uptime_ms);
    set_integer(o, "uptime_plan_ms", s->uptime_plan_ms);
    json_object_set_new(o, "next", json_text(s->address));
    json_object_set_new(o, "links", links_json(s));
    json_object_set_new(o, "version", json_text(s->version));
    json_object_set_new(o, "device", device_json(s));
    json_object_set_new(o, "plans", plans_json(s));
    set_integer(o, "cached_parts", s->cached_parts);
    set_integer(o, "cached_bytes", s->cached_bytes);
    set_integer(o, "cache_limit", s->cache_limit);
    return o;
}

json_t *status_json(const Convoy__Status *status) {
    json_t *root = json_object(), *stages = json_array();
    struct status_bottleneck worst = status_find_bottleneck(status);
    json_object_set_new(root, "model", json_text(status->model));
    json_object_set_new(root, "model_digest", digest_json(&status->model_digest));
    set_integer(root, "layers", status->layers);
    set_integer(root, "clients", status->clients);
    set_integer(root, "sessions", status->sessions);
    if (status->deployment[0])
        json_object_set_new(root, "deployment", json_text(status->deployment));
    for (size_t i = 0; i < status->n_stages; i++)
        json_array_append_new(stages, stage_json(status->stages[i]));
    if (status->n_decisions > 0)
        json_object_set_new(root, "decisions", decisions_json(status));
    json_object_set_new(root, "stages", stages);
    const Convoy__StageStatus *blocker = status_find_blocker(status);
    if (blocker) {
        json_object_set_new(root, "waits_for", json_text(blocker->node));
    } else if (worst.ms > 0) {
        json_t *object = json_object();
        json_object_set_new(object, "node", json_text(status->stages[worst.stage]->node));
        json_object_set_new(object, "what", json_text(worst.is_link ? "link" : "compute"));
        json_object_set_new(object, "ms", json_number(worst.ms));
        json_object_set_new(root, "bottleneck", object);
    }
    return root;
}
