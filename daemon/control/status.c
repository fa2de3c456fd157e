/* Happy path: a request is noted with a token of our own, sent down the links of the plan in use,
 * and answered when the answers have come up. A device that is away, or does not answer in time, is
 * listed as "unreachable". Where several devices share the next stage, each is asked for itself,
 * and two of them for what is behind as well: one may be silent, and asking all would ask the
 * devices behind again and again. The time a device waits is the share of heartbeat_ms that its
 * place in the line leaves, so that the device before the silent one answers before the one that
 * asked it gives up. */
#include "daemon/control/status.h"

#include "daemon/device.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STAGES_MAX    CONFIG_STAGES_MAX
#define FACTS_US      1000000
#define ASKED_FOR_ALL 2 /* of the devices of the next stage: for those behind them, too */

/* Who asked. */
struct asker {
    status_done *done;
    void *arg;
    uint64_t token;
};

/* One of the devices of the next stage. */
struct asked {
    struct link *link;      /* whose answer is awaited; NULL: none will come any more */
    Convoy__Status *status; /* its answer; NULL: none */
};

struct status_pending {
    TAILQ_ENTRY(status_pending) entry;
    struct asker asker;
    struct held *held; /* the plan in use, with a reference: whose devices are asked */
    struct asked asked[PLAN_REPLICAS_MAX];
    size_t count;
    uint64_t own_token;
    uint64_t until_us;
};

/* The plan that this device works under, as far as it can be said. */
static struct held *plan_in_use(const struct device *device) {
    struct held *held = planset_active(&device->plans);
    for (size_t i = 0; !held && i < device->plans.count; i++)
        if (held_is_ready(device->plans.plans[i]))
            held = device->plans.plans[i];
    return held ? held : planset_newest(&device->plans);
}

static void describe_state(const struct held *held, char *buf, size_t size) {
    char names[CONFIG_NAME_MAX + 1];
    if (held_is_ready(held))
        snprintf(buf, size, "ready");
    else
        snprintf(buf, size, "waiting for %s", held_next_names(held, names, sizeof(names)));
}

const char *status_state(const struct device *device, char *buf, size_t size) {
    const struct held *held = plan_in_use(device);
    if (device->draining)
        snprintf(buf, size, "draining");
    else if (!held)
        snprintf(buf, size, "idle");
    else
        describe_state(held, buf, size);
    return buf;
}

const char *status_away(const struct device *device, char *buf, size_t size) {
    const struct held *held = plan_in_use(device);
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; held && held_is_ready(held) && i < held->links_count && used < size; i++)
        if (!link_is_ready(held->links[i], held->id, held->payload_bytes))
            used += (size_t)snprintf(buf + used, size - used, "%s%s", used > 0 ? " and " : "",
                                     held->links[i]->node);
    return buf;
}

static uint64_t resident_bytes(void) {
    unsigned long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The links of a plan, as a message lists them. */
struct link_list_status {
    Convoy__LinkStatus links[PLAN_REPLICAS_MAX], *pointers[PLAN_REPLICAS_MAX];
};

/* Each link for itself, and all of them together as one: their bytes, and the rate of all bytes
 * while they were on their way. */
static void fill_links(const struct held *held, struct link_list_status *list,
                       Convoy__StageStatus *stage) {
    double us = 0;
    stage->bytes_out = 0;
    for (size_t i = 0; i < held->links_count; i++) {
        const struct link *link = held->links[i];
        Convoy__LinkStatus *each = &list->links[i];
        bool is_full = false;
        convoy__link_status__init(each);
        each->node = link->node;
        each->address = link->address;
        each->ready = link_is_ready(link, held->id, held->payload_bytes);
        each->frames_out = link->frames_out;
        each->in_flight = (uint32_t)link->under_way;
        each->send_mbit = link_rate(link, &each->bytes_out, &is_full);
        list->pointers[i] = each;
        stage->bytes_out += each->bytes_out;
        stage->send_full = stage->send_full || is_full;
        us += each->send_mbit > 0 ? (double)each->bytes_out * 8 / each->send_mbit : 0;
    }
    stage->n_links = held->links_count;
    stage->links = list->pointers;
    stage->send_mbit = us > 0 ? (double)stage->bytes_out * 8 / us : 0;
    if (held->links_count == 1) {
        stage->address = held->links[0]->address;
        stage->send_mbit = list->links[0].send_mbit;
    }
}

static void fill_plan(const struct held *held, uint64_t now_us, Convoy__StageStatus *stage) {
    const struct plan_stage *own = &held->plan->stages[held->index];
    stage->plan.data = (uint8_t *)(uintptr_t)held->id;
    stage->plan.len = SHA256_SIZE;
    stage->first = (uint32_t)own->first;
    stage->last = (uint32_t)own->last;
    stage->first_layer = (char *)(uintptr_t)held_layer(held, own->first)->name;
    stage->last_layer = (char *)(uintptr_t)held_layer(held, own->last - 1)->name;
    stage->weights_bytes = stage_weight_bytes(held->stage);
    stage->arena_bytes = stage_arena_bytes(held->stage) * held->execs_count;
    uint64_t since_us = held->active_us ? held->active_us : held->ready_us;
    stage->uptime_plan_ms = since_us ? (now_us - since_us) / 1000 : 0;
}

/* The plans that a device holds, as a message lists them. */
struct plan_list {
    Convoy__PlanStatus plans[PLANSET_MAX], *pointers[PLANSET_MAX];
    char states[PLANSET_MAX][CONFIG_NAME_MAX + 32];
};

static void fill_plans(const struct device *device, struct plan_list *list,
                       Convoy__StageStatus *stage) {
    for (size_t i = 0; i < device->plans.count; i++) {
        const struct held *held = device->plans.plans[i];
        Convoy__PlanStatus *plan = &list->plans[i];
        convoy__plan_status__init(plan);
        describe_state(held, list->states[i], sizeof(list->states[i]));
        plan->plan.data = (uint8_t *)(uintptr_t)held->id;
        plan->plan.len = SHA256_SIZE;
        plan->first = (uint32_t)held->plan->stages[held->index].first;
        plan->last = (uint32_t)held->plan->stages[held->index].last;
        plan->state = list->states[i];
        plan->deployed = held->is_deployed;
        plan->frames = (uint32_t)held->frames;
        plan->memory_bytes = held_memory(held);
        list->pointers[i] = plan;
    }
    stage->n_plans = device->plans.count;
    stage->plans = list->pointers;
    stage->cached_parts = (uint32_t)device->cache_usage.parts;
    stage->cached_bytes = device->cache_usage.bytes;
    stage->cache_limit = device->config->state ? device->config->cache : 0;
}

/* Whom an ingress may use, as a message lists them. */
struct neighbour_list {
    Convoy__PlanStage all[CONFIG_NEIGHBOURS_MAX], *pointers[CONFIG_NEIGHBOURS_MAX];
};

static void fill_neighbours(const struct device *device, struct neighbour_list *list,
                            Convoy__Status *status) {
    const struct config *config = device->config;
    for (size_t i = 0; i < config->neighbours_count; i++) {
        convoy__plan_stage__init(&list->all[i]);
        list->all[i].node = config->neighbours[i].node;
        list->all[i].address = config->neighbours[i].address;
        list->pointers[i] = &list->all[i];
    }
    status->n_neighbours = config->neighbours_count;
    status->neighbours = list->pointers;
}

/* Temperature and memory change slowly: they are read again when they are this old. */
static void fill_facts(struct device *device, uint64_t now_us, Convoy__StageStatus *stage) {
    struct facts *facts = &device->facts;
    if (device->facts_us == 0 || now_us - device->facts_us > FACTS_US) {
        facts_read("", facts);
        device->facts_us = now_us;
    }
    stage->cores = (uint32_t)facts->cores;
    stage->memory_available = facts->memory_available;
    stage->cpu = facts->cpu;
    stage->cpu_quota = isinf(facts->cpu_quota) ? 0 : facts->cpu_quota;
    stage->celsius = isnan(facts->celsius) ? 0 : facts->celsius;
    stage->throttled = facts->throttled == FACTS_YES ? 2 : facts->throttled == FACTS_NO ? 1 : 0;
    stage->compute_ms = flow_time_us(&device->flow.stats, device->config->workers,
                                     device->config->threads, facts->cpu_quota) /
                        1000;
}

void status_own(struct device *device, Convoy__StageStatus *stage, char *state, size_t state_size) {
    const struct flow *flow = &device->flow;
    const struct held *held = plan_in_use(device);
    struct link_list_status links;
    uint64_t now_us = device_now_us();
    size_t at_workers = workers_queued(device->workers);
    convoy__stage_status__init(stage);
    stage->node = device->config->node;
    stage->state = (char *)(uintptr_t)status_state(device, state, state_size);
    stage->frames_in = flow->stats.frames_in;
    stage->frames_out = flow->stats.frames_out;
    stage->frames_retried = flow->stats.frames_retried;
    stage->frames_refused = flow->stats.frames_refused;
    stage->frames_dropped = flow->stats.frames_dropped;
    stage->frames_suspect = flow->stats.frames_suspect;
    stage->queued =
        (uint32_t)(flow->counts[FRAME_QUEUED] + flow->counts[FRAME_RETRYING] + at_workers);
    stage->queue_limit = (uint32_t)device->config->queue;
    stage->computing = (uint32_t)(flow->jobs > at_workers ? flow->jobs - at_workers : 0);
    stage->workers = (uint32_t)device->config->workers;
    stage->threads = (uint32_t)device->config->threads;
    stage->fps = flow_fps(flow, now_us);
    stage->overdue_ms =
        flow_overdue_us(flow->stats.compute_us, workers_longest_us(device->workers, now_us)) / 1000;
    stage->in_flight = (uint32_t)(flow->counts[FRAME_SENT] + flow->counts[FRAME_SENDING]);
    stage->memory_bytes = resident_bytes();
    stage->uptime_ms = (now_us - device->started_us) / 1000;
    stage->version = (char *)(uintptr_t)CONVOY_VERSION;
    fill_facts(device, now_us, stage);
    if (held) {
        fill_plan(held, now_us, stage);
        fill_links(held, &links, stage);
        stage->n_links = 0; /* the list is gone when this returns */
        stage->links = NULL;
    }
}

/* Answers with the own stage and those behind, which are borrowed. */
static void reply(struct device *device, const struct asker *asker,
                  Convoy__StageStatus *const *behind, size_t count) {
    Convoy__Status status = CONVOY__STATUS__INIT;
    Convoy__StageStatus own;
    const struct held *held = plan_in_use(device);
    char state[CONFIG_NAME_MAX + 32];
    struct plan_list list;
    struct link_list_status links;
    char *decisions[PILOT_DECISIONS_MAX];
    struct neighbour_list neighbours;
    if (count > STAGES_MAX)
        count = STAGES_MAX;
    Convoy__StageStatus **stages = calloc(count + 1, sizeof(*stages));
    if (!stages) {
        asker->done(asker->arg, asker->token, NULL);
        return;
    }
    status_own(device, &own, state, sizeof(state));
    fill_plans(device, &list, &own);
    if (held)
        fill_links(held, &links, &own);
    stages[0] = &own;
    for (size_t i = 0; i < count; i++)
        stages[i + 1] = behind[i];
    status.token = asker->token;
    status.n_stages = count + 1;
    status.stages = stages;
    status.clients = (uint32_t)device->clients;
    status.sessions = (uint32_t)device->sessions.count;
    status.deployment = (char *)(uintptr_t)deploy_last(device);
    status.decisions = decisions;
    status.n_decisions = pilot_decisions(device, decisions);
    fill_neighbours(device, &neighbours, &status);
    if (held) {
        status.model = held->model_name;
        status.model_digest.data = (uint8_t *)(uintptr_t)model_digest(held->model);
        status.model_digest.len = held_has_whole_model(held) ? SHA256_SIZE : 0;
        status.layers = (uint32_t)held_layers_count(held);
    }
    asker->done(asker->arg, asker->token, &status);
    free(stages);
}

/* The entries of the devices behind, gathered from several answers. Borrowed but for the array. */
struct behind {
    Convoy__StageStatus **stages;
    size_t count;
};

static bool is_unreachable(const Convoy__StageStatus *stage) {
    return strcmp(stage->state, "unreachable") == 0;
}

/* Adds a device, or says more of one that an earlier answer called unreachable. */
static void add_behind(struct behind *behind, Convoy__StageStatus *stage) {
    for (size_t i = 0; i < behind->count; i++)
        if (strcmp(behind->stages[i]->node, stage->node) == 0) {
            if (is_unreachable(behind->stages[i]))
                behind->stages[i] = stage;
            return;
        }
    if (behind->count < STAGES_MAX)
        behind->stages[behind->count++] = stage;
}

/* First each device of the next stage, then what is behind them. */
static void reply_asked(struct device *device, const struct asker *asker, const struct held *held,
                        const struct asked *asked) {
    Convoy__StageStatus away[PLAN_REPLICAS_MAX];
    struct behind behind = {.stages = calloc(STAGES_MAX, sizeof(*behind.stages))};
    size_t count, next = plan_next(held->plan, held->index, &count);
    if (!behind.stages) {
        asker->done(asker->arg, asker->token, NULL);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const struct plan_stage *stage = &held->plan->stages[next + i];
        if (asked[i].status && asked[i].status->n_stages > 0) {
            add_behind(&behind, asked[i].status->stages[0]);
            continue;
        }
        convoy__stage_status__init(&away[i]);
        away[i].node = stage->node;
        away[i].plan.data = (uint8_t *)(uintptr_t)held->id;
        away[i].plan.len = SHA256_SIZE;
        away[i].first = (uint32_t)stage->first;
        away[i].last = (uint32_t)stage->last;
        away[i].state = (char *)(uintptr_t) "unreachable";
        add_behind(&behind, &away[i]);
    }
    for (size_t i = 0; i < count; i++)
        for (size_t k = 1; asked[i].status && k < asked[i].status->n_stages; k++)
            add_behind(&behind, asked[i].status->stages[k]);
    reply(device, asker, behind.stages, behind.count);
    free(behind.stages);
}

/* Takes a request out of the list and releases it. */
static void drop_pending(struct device *device, struct status_pending *pending) {
    TAILQ_REMOVE(&device->status_requests, pending, entry);
    for (size_t i = 0; i < pending->count; i++)
        if (pending->asked[i].status)
            convoy__status__free_unpacked(pending->asked[i].status, NULL);
    held_unref(pending->held);
    free(pending);
}

static void reply_pending(struct device *device, struct status_pending *pending) {
    reply_asked(device, &pending->asker, pending->held, pending->asked);
    drop_pending(device, pending);
}

/* Answers when nobody is waited for any more. */
static void check_pending(struct device *device, struct status_pending *pending) {
    for (size_t i = 0; i < pending->count; i++)
        if (pending->asked[i].link)
            return;
    reply_pending(device, pending);
}

/* The time until the device behind counts as silent. */
static uint64_t patience_us(const struct device *device, const struct held *held) {
    return device->config->heartbeat_ms * 1000 * (held->count - 1 - held->index) / held->count;
}

static size_t count_pending(const struct device *device) {
    const struct status_pending *pending;
    size_t count = 0;
    TAILQ_FOREACH(pending, &device->status_requests, entry) {
        count++;
    }
    return count;
}

static void send_request(struct link *link, uint64_t token, bool alone) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__StatusRequest request = CONVOY__STATUS_REQUEST__INIT;
    request.token = token;
    request.alone = alone;
    message.body_case = CONVOY__MESSAGE__BODY_STATUS_REQUEST;
    message.status_request = &request;
    conn_send(link->conn, &message);
}

static bool can_ask(const struct held *held) {
    for (size_t i = 0; i < held->links_count; i++)
        if (link_is_up(held->links[i]))
            return true;
    return false;
}

/* Asks every device of the next stage that can be reached. */
static void ask_behind(struct status_pending *pending) {
    const struct held *held = pending->held;
    int asked = 0;
    for (size_t i = 0; i < held->links_count; i++)
        if (link_is_up(held->links[i])) {
            pending->asked[i].link = held->links[i];
            send_request(held->links[i], pending->own_token, asked++ >= ASKED_FOR_ALL);
        }
}

void status_ask(struct device *device, bool alone, uint64_t token, status_done *done, void *arg) {
    static const struct asked nobody[PLAN_REPLICAS_MAX];
    const struct asker asker = {done, arg, token};
    struct held *held = plan_in_use(device);
    struct status_pending *pending = NULL;
    if (alone || !held || held_is_last(held)) {
        reply(device, &asker, NULL, 0);
        return;
    }
    if (can_ask(held) && count_pending(device) < (size_t)device->config->limits.status_requests)
        pending = calloc(1, sizeof(*pending));
    if (!pending) {
        reply_asked(device, &asker, held, nobody);
        return;
    }
    pending->asker = asker;
    pending->held = held_ref(held);
    pending->count = held->links_count;
    pending->own_token = (uint64_t)(uintptr_t)pending ^ uv_hrtime();
    pending->until_us = device_now_us() + patience_us(device, held);
    TAILQ_INSERT_TAIL(&device->status_requests, pending, entry);
    ask_behind(pending);
}

static void send_status(void *arg, uint64_t token, const Convoy__Status *status) {
    struct peer *peer = arg;
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    (void)token; /* it stands in the status */
    if (!status) {
        conn_close(peer_conn(peer), "out of memory");
        return;
    }
    message.body_case = CONVOY__MESSAGE__BODY_STATUS;
    message.status = (Convoy__Status *)(uintptr_t)status;
    conn_send(peer_conn(peer), &message);
}

void status_request(struct device *device, struct peer *peer,
                    const Convoy__StatusRequest *request) {
    status_ask(device, request->alone, request->token, send_status, peer);
}

/* A copy that outlives the message; NULL when there is no memory. */
static Convoy__Status *copy_status(const Convoy__Status *status) {
    size_t size = convoy__status__get_packed_size(status);
    uint8_t *bytes = malloc(size + 1);
    if (!bytes)
        return NULL;
    convoy__status__pack(status, bytes);
    Convoy__Status *copy = convoy__status__unpack(NULL, size, bytes);
    free(bytes);
    return copy;
}

void status_answered(struct device *device, struct link *link, const Convoy__Status *status) {
    struct status_pending *pending;
    TAILQ_FOREACH(pending, &device->status_requests, entry) {
        if (pending->own_token != status->token)
            continue;
        for (size_t i = 0; i < pending->count; i++)
            if (pending->asked[i].link == link) {
                pending->asked[i].link = NULL;
                pending->asked[i].status = copy_status(status);
                check_pending(device, pending);
                return;
            }
    }
    /* Where there is none, it comes too late. */
}

void status_link_lost(struct device *device, struct link *link) {
    struct status_pending *pending, *next;
    for (pending = TAILQ_FIRST(&device->status_requests); pending; pending = next) {
        next = TAILQ_NEXT(pending, entry);
        for (size_t i = 0; i < pending->count; i++)
            if (pending->asked[i].link == link) {
                pending->asked[i].link = NULL;
                check_pending(device, pending);
                break;
            }
    }
}

void status_forget(struct device *device, const void *arg) {
    struct status_pending *pending, *next;
    for (pending = TAILQ_FIRST(&device->status_requests); pending; pending = next) {
        next = TAILQ_NEXT(pending, entry);
        if (pending->asker.arg == arg)
            drop_pending(device, pending);
    }
}

void status_tick(struct device *device, uint64_t now_us) {
    struct status_pending *pending, *next;
    for (pending = TAILQ_FIRST(&device->status_requests); pending; pending = next) {
        next = TAILQ_NEXT(pending, entry);
        if (now_us >= pending->until_us)
            reply_pending(device, pending);
    }
}
