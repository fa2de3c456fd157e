#include "plan/simulate.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Events, in simulated time. A unit is one device of the line: one replica of a stage. */
enum event_kind {
    EVENT_COMPUTED, /* a worker of the unit is done with the frame */
    EVENT_SENT,     /* the unit's port has sent a message */
    EVENT_ARRIVED,  /* activations of the frame are at the unit */
    EVENT_RESULT,   /* the result of the frame is at the unit, on its way up */
    EVENT_CREDIT,   /* the unit may send one more frame down to unit `other` */
    EVENT_FRAME,    /* the camera has a frame */
};

struct event {
    double at;
    uint64_t order; /* of two at the same time the older one comes first */
    enum event_kind kind;
    uint32_t unit, other, frame;
};

/* Frames in the order in which they came. */
struct fifo {
    uint32_t *frames;
    size_t size, first, count; /* size: a power of two */
};

/* From a unit to one of the stage behind. */
struct way {
    size_t credits, under_way; /* under way: sent, and the result has not come back */
    uint64_t turn;             /* of unit.turns, when a frame was last sent this way */
};

struct unit {
    size_t stage, device;
    double time_us;        /* of a frame */
    int idle;              /* workers */
    size_t held, held_max; /* frames that came from before and are not sent on */
    double receive_free;   /* when the port has received what is on its way */
    bool sending;
    double busy_compute, busy_send, busy_receive;
    struct fifo ready, down, up; /* for a worker, for the stage behind, for the one before */
    struct way *ways;            /* [replicas of the stage behind] */
    uint64_t turns;              /* frames dealt to them so far */
};

struct world {
    const struct cost *cost;
    const struct cost_line *line;
    const struct simulate_options *options;
    struct unit *units;
    size_t units_count;
    size_t *first_unit; /* [stages + 1] */
    uint16_t **dealt;   /* [stages][frames]: to which replica; NULL where there is one */
    struct event *heap;
    size_t heap_count, heap_size;
    uint64_t order, random;
    double now;
    size_t frames, started, waiting, window; /* waiting: taken by nobody yet */
    double *begun, *ended;                   /* [frames] */
    bool failed;                             /* no memory */
};

/* ---- containers --------------------------------------------------------------------------------
 */

static bool is_before(const struct event *a, const struct event *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void post(struct world *world, double delay, struct event event) {
    if (world->heap_count == world->heap_size) {
        size_t size = world->heap_size ? 2 * world->heap_size : 256;
        struct event *grown = realloc(world->heap, size * sizeof(*grown));
        if (!grown) {
            world->failed = true;
            return;
        }
        world->heap = grown;
        world->heap_size = size;
    }
    event.at = world->now + delay;
    event.order = world->order++;
    size_t i = world->heap_count++;
    for (; i > 0 && is_before(&event, &world->heap[(i - 1) / 2]); i = (i - 1) / 2)
        world->heap[i] = world->heap[(i - 1) / 2];
    world->heap[i] = event;
}

static struct event next_event(struct world *world) {
    struct event first = world->heap[0], last = world->heap[--world->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < world->heap_count &&
            is_before(&world->heap[child + 1], &world->heap[child]))
            child++;
        if (child >= world->heap_count || !is_before(&world->heap[child], &last))
            break;
        world->heap[i] = world->heap[child];
        i = child;
    }
    world->heap[i] = last;
    return first;
}

static void append(struct world *world, struct fifo *fifo, uint32_t frame) {
    if (fifo->count == fifo->size) {
        size_t size = fifo->size ? 2 * fifo->size : 8;
        uint32_t *grown = calloc(size, sizeof(*grown));
        if (!grown) {
            world->failed = true;
            return;
        }
        for (size_t i = 0; i < fifo->count; i++)
            grown[i] = fifo->frames[(fifo->first + i) % fifo->size];
        free(fifo->frames);
        *fifo = (struct fifo){.frames = grown, .size = size, .count = fifo->count};
    }
    fifo->frames[(fifo->first + fifo->count++) % fifo->size] = frame;
}

static uint32_t take_first(struct fifo *fifo) {
    uint32_t frame = fifo->frames[fifo->first];
    fifo->first = (fifo->first + 1) % fifo->size;
    fifo->count--;
    return frame;
}

/* ---- chance ------------------------------------------------------------------------------------
 */

/* xorshift64*, in [0, 1). */
static double next_uniform(struct world *world) {
    world->random ^= world->random >> 12;
    world->random ^= world->random << 25;
    world->random ^= world->random >> 27;
    return (double)(world->random * 0x2545f4914f6cdd1dull >> 11) / (double)(1ull << 53);
}

/* A time that varies: the sum of twelve uniform numbers is nearly normal; never below a tenth. */
static double vary(struct world *world, double us) {
    double sum = -6;
    if (world->options->jitter == 0)
        return us;
    for (int i = 0; i < 12; i++)
        sum += next_uniform(world);
    return us * fmax(0.1, 1 + world->options->jitter * sum);
}

/* ---- what happens ------------------------------------------------------------------------------
 */

/* The unit of a stage that a frame was dealt to. */
static uint32_t unit_of(const struct world *world, size_t stage, uint32_t frame) {
    size_t replica = world->dealt[stage] ? world->dealt[stage][frame] : 0;
    return (uint32_t)(world->first_unit[stage] + replica);
}

/* As the daemon deals (choose_link() in daemon/data/flow.c): of the replicas behind that have given
 * credits the one with the fewest frames under way, among equals the one that has waited longest.
 * NULL: none can take a frame. */
static struct way *choose_way(const struct world *world, const struct unit *unit) {
    struct way *best = NULL;
    for (size_t i = 0; i < world->line->stages[unit->stage + 1].replicas; i++) {
        struct way *way = &unit->ways[i];
        if (way->credits == 0)
            continue;
        if (!best || way->under_way < best->under_way ||
            (way->under_way == best->under_way && way->turn < best->turn))
            best = way;
    }
    return best;
}

static void start_computing(struct world *world, uint32_t u) {
    struct unit *unit = &world->units[u];
    while (unit->idle > 0 && unit->ready.count > 0) {
        double us = vary(world, unit->time_us);
        unit->idle--;
        unit->busy_compute += us;
        post(world, us,
             (struct event){.kind = EVENT_COMPUTED, .unit = u, .frame = take_first(&unit->ready)});
    }
}

/* Takes a message through both ports: it is on the sender's for bytes / its rate, on the
 * receiver's for bytes / its, which goes on meanwhile. */
static void transfer(struct world *world, uint32_t from, uint32_t to, uint64_t bytes,
                     struct event event) {
    struct unit *a = &world->units[from], *b = &world->units[to];
    const struct cost_device *sender = cost_device(world->cost, a->device),
                             *receiver = cost_device(world->cost, b->device);
    double sends = vary(world, (double)bytes / sender->send_rate);
    double receives = vary(world, (double)bytes / receiver->receive_rate);
    a->sending = true;
    a->busy_send += sends;
    b->busy_receive += receives;
    b->receive_free = fmax(b->receive_free, world->now) + receives;
    post(world, sends, (struct event){.kind = EVENT_SENT, .unit = from});
    double latency = sender->latency_us + receiver->latency_us;
    post(world, fmax(sends, b->receive_free - world->now) + latency, event);
}

/* A frame from before is not held here any more: the sender may send another. */
static void give_credit(struct world *world, uint32_t u, uint32_t frame) {
    struct unit *unit = &world->units[u];
    unit->held--;
    if (unit->stage == 0) {
        post(world, 0, (struct event){.kind = EVENT_CREDIT, .unit = u, .other = u});
        return;
    }
    uint32_t sender = unit_of(world, unit->stage - 1, frame);
    double latency = cost_device(world->cost, unit->device)->latency_us +
                     cost_device(world->cost, world->units[sender].device)->latency_us;
    post(world, latency, (struct event){.kind = EVENT_CREDIT, .unit = sender, .other = u});
}

/* Results go before activations: they are what the ingress waits for. */
static void start_sending(struct world *world, uint32_t u) {
    struct unit *unit = &world->units[u];
    const uint64_t *cuts = cost_network(world->cost)->cut_bytes;
    if (unit->sending)
        return;
    if (unit->up.count > 0) {
        uint32_t frame = take_first(&unit->up);
        uint32_t to = unit_of(world, unit->stage - 1, frame);
        transfer(world, u, to, cuts[cost_network(world->cost)->layers],
                 (struct event){.kind = EVENT_RESULT, .unit = to, .frame = frame});
        return;
    }
    if (unit->down.count == 0)
        return;
    struct way *way = choose_way(world, unit);
    if (!way)
        return;
    uint32_t frame = take_first(&unit->down);
    if (world->dealt[unit->stage + 1])
        world->dealt[unit->stage + 1][frame] = (uint16_t)(way - unit->ways);
    uint32_t to = unit_of(world, unit->stage + 1, frame);
    way->credits--;
    way->under_way++;
    way->turn = ++unit->turns;
    transfer(world, u, to, cuts[world->line->stages[unit->stage].last],
             (struct event){.kind = EVENT_ARRIVED, .unit = to, .frame = frame});
    give_credit(world, u, frame);
}

/* The ingress takes frames while there is room in it and in the whole line. */
static void admit(struct world *world) {
    struct unit *ingress = &world->units[0];
    while (world->waiting > 0 && ingress->held < ingress->held_max && world->window > 0) {
        uint32_t frame = (uint32_t)world->started++;
        world->waiting--;
        world->window--;
        ingress->held++;
        world->begun[frame] = world->now;
        append(world, &ingress->ready, frame);
    }
    start_computing(world, 0);
}

static void finish_frame(struct world *world, uint32_t frame) {
    world->ended[frame] = world->now;
    world->window++;
    admit(world);
}

static void on_computed(struct world *world, const struct event *event) {
    struct unit *unit = &world->units[event->unit];
    bool is_last = unit->stage + 1 == world->line->count;
    unit->idle++;
    if (!is_last) {
        append(world, &unit->down, event->frame);
    } else {
        give_credit(world, event->unit, event->frame);
        if (unit->stage > 0)
            append(world, &unit->up, event->frame);
        else
            finish_frame(world, event->frame);
    }
    start_computing(world, event->unit);
    start_sending(world, event->unit);
}

static void on_result(struct world *world, const struct event *event) {
    struct unit *unit = &world->units[event->unit];
    uint32_t from = unit_of(world, unit->stage + 1, event->frame);
    unit->ways[from - world->first_unit[unit->stage + 1]].under_way--;
    if (unit->stage == 0) {
        finish_frame(world, event->frame);
        return;
    }
    append(world, &unit->up, event->frame);
    start_sending(world, event->unit);
}

static void on_event(struct world *world, const struct event *event) {
    struct unit *unit = &world->units[event->unit];
    switch (event->kind) {
    case EVENT_COMPUTED:
        on_computed(world, event);
        return;
    case EVENT_SENT:
        unit->sending = false;
        start_sending(world, event->unit);
        return;
    case EVENT_ARRIVED:
        unit->held++;
        append(world, &unit->ready, event->frame);
        start_computing(world, event->unit);
        return;
    case EVENT_RESULT:
        on_result(world, event);
        return;
    case EVENT_CREDIT:
        if (event->other == event->unit) {
            admit(world);
        } else {
            unit->ways[event->other - world->first_unit[unit->stage + 1]].credits++;
            start_sending(world, event->unit);
        }
        return;
    case EVENT_FRAME:
        world->waiting++;
        if (world->started + world->waiting < world->frames)
            post(world, world->options->interval_us, (struct event){.kind = EVENT_FRAME});
        admit(world);
        return;
    }
}

/* ---- set-up ------------------------------------------------------------------------------------
 */

static size_t queue_of(const struct world *world, size_t device) {
    int workers = cost_device(world->cost, device)->workers;
    return (size_t)(world->options->queue ? world->options->queue : 4 + workers);
}

/* Credits of a unit: what each unit behind it holds for those before, shared among them. */
static int set_up_unit(struct world *world, size_t k, size_t replica) {
    const struct cost_stage *stage = &world->line->stages[k];
    struct unit *unit = &world->units[world->first_unit[k] + replica];
    unit->stage = k;
    unit->device = stage->devices[replica];
    unit->time_us = cost_time_us(world->cost, unit->device, stage->first, stage->last);
    unit->idle = cost_device(world->cost, unit->device)->workers;
    unit->held_max = queue_of(world, unit->device);
    if (k + 1 == world->line->count)
        return 0;
    const struct cost_stage *behind = &world->line->stages[k + 1];
    unit->ways = calloc(behind->replicas, sizeof(*unit->ways));
    if (!unit->ways)
        return -ENOMEM;
    for (size_t i = 0; i < behind->replicas; i++)
        unit->ways[i].credits = queue_of(world, behind->devices[i]);
    return 0;
}

static int set_up(struct world *world) {
    const struct cost_line *line = world->line;
    world->first_unit = calloc(line->count + 1, sizeof(*world->first_unit));
    if (!world->first_unit)
        return -ENOMEM;
    for (size_t k = 0; k < line->count; k++)
        world->first_unit[k + 1] = world->first_unit[k] + line->stages[k].replicas;
    world->units_count = world->first_unit[line->count];
    world->frames = world->options->frames ? world->options->frames : 2000 + 20 * line->count;
    world->units = calloc(world->units_count + 1, sizeof(*world->units));
    world->begun = calloc(world->frames, sizeof(*world->begun));
    world->ended = calloc(world->frames, sizeof(*world->ended));
    world->dealt = calloc(line->count + 1, sizeof(*world->dealt));
    if (!world->units || !world->begun || !world->ended || !world->dealt)
        return -ENOMEM;
    for (size_t k = 0; k < line->count; k++)
        if (line->stages[k].replicas > 1 &&
            !(world->dealt[k] = calloc(world->frames, sizeof(*world->dealt[k]))))
            return -ENOMEM;
    for (size_t k = 0; k < line->count; k++)
        for (size_t i = 0; i < line->stages[k].replicas; i++)
            if (set_up_unit(world, k, i) < 0)
                return -ENOMEM;
    world->window = queue_of(world, line->stages[0].devices[0]) * world->units_count;
    world->random = world->options->seed * 2 + 1;
    return 0;
}

static void tear_down(struct world *world) {
    for (size_t u = 0; world->units && u < world->units_count; u++) {
        free(world->units[u].ready.frames);
        free(world->units[u].down.frames);
        free(world->units[u].up.frames);
        free(world->units[u].ways);
    }
    for (size_t k = 0; world->dealt && k < world->line->count; k++)
        free(world->dealt[k]);
    free(world->dealt);
    free(world->units);
    free(world->first_unit);
    free(world->begun);
    free(world->ended);
    free(world->heap);
}

/* ---- the result --------------------------------------------------------------------------------
 */

static int by_size(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double at_share(const double *sorted, size_t count, double share) {
    return sorted[(size_t)(share * (double)(count - 1))];
}

/* The steady part: what ended between the first and the last quarter. */
static int sum_up(struct world *world, struct simulate_result *result) {
    size_t quarter = world->frames / 4, count = 0;
    double *latencies = calloc(world->frames, sizeof(*latencies));
    result->stages = calloc(world->line->count, sizeof(*result->stages));
    if (!latencies || !result->stages) {
        free(latencies);
        return -ENOMEM;
    }
    for (size_t i = quarter; i < world->frames - quarter; i++)
        latencies[count++] = world->ended[i] - world->begun[i];
    qsort(latencies, count, sizeof(*latencies), by_size);
    result->p50_us = at_share(latencies, count, 0.5);
    result->p99_us = at_share(latencies, count, 0.99);
    free(latencies);
    /* Results may overtake each other where times vary; ends in order are what a rate is of. */
    qsort(world->ended, world->frames, sizeof(*world->ended), by_size);
    result->period_us = (world->ended[world->frames - quarter - 1] - world->ended[quarter]) /
                        (double)(world->frames - 2 * quarter - 1);
    result->frames = world->frames;
    for (size_t u = 0; u < world->units_count; u++) {
        const struct unit *unit = &world->units[u];
        struct simulate_stage *stage = &result->stages[unit->stage];
        double workers = cost_device(world->cost, unit->device)->workers;
        stage->computing = fmax(stage->computing, unit->busy_compute / workers / world->now);
        stage->sending = fmax(stage->sending, unit->busy_send / world->now);
        stage->receiving = fmax(stage->receiving, unit->busy_receive / world->now);
    }
    return 0;
}

int simulate_run(const struct cost *cost, const struct cost_line *line,
                 const struct simulate_options *options, struct simulate_result *ret_result,
                 struct err *err) {
    struct world world = {.cost = cost, .line = line, .options = options};
    struct simulate_result result = {.stages = NULL};
    if (options->frames > SIMULATE_FRAMES_MAX || (options->frames && options->frames < 16))
        return err_set(err, -EINVAL, "16 to %d frames can be simulated", SIMULATE_FRAMES_MAX);
    if (!(options->jitter >= 0 && options->jitter <= 1) || options->queue < 0 ||
        !(options->interval_us >= 0) || isinf(options->interval_us))
        return err_set(err, -EINVAL, "jitter from 0 to 1, a queue and an interval not below 0");
    int rc = set_up(&world);
    if (rc == 0 && options->interval_us > 0)
        post(&world, 0, (struct event){.kind = EVENT_FRAME});
    else if (rc == 0)
        world.waiting = world.frames;
    if (rc == 0)
        admit(&world);
    while (rc == 0 && world.heap_count > 0 && !world.failed) {
        struct event event = next_event(&world);
        world.now = event.at;
        on_event(&world, &event);
    }
    if (rc == 0)
        rc = world.failed ? -ENOMEM : sum_up(&world, &result);
    tear_down(&world);
    if (rc < 0) {
        simulate_fini(&result);
        return err_set(err, rc, "no memory for a simulation");
    }
    *ret_result = result;
    return 0;
}

void simulate_fini(struct simulate_result *result) {
    free(result->stages);
    result->stages = NULL;
}
