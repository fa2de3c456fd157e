#include "plan/cost.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct cost {
    struct cost_network network;
    struct cost_device *devices;
    size_t devices_count;
    double *ends, *begins; /* [devices][layers + 1]: time of the layers before i, with messages */
    uint64_t *weight_sums; /* [layers + 1] */
};

static int check_network(const struct cost_network *network, struct err *err) {
    if (network->layers == 0 || network->layers > COST_LAYERS_MAX)
        return err_set(err, -EINVAL, "a network of %zu layers: 1 to %d can be planned",
                       network->layers, COST_LAYERS_MAX);
    if (network->first_cut == 0)
        return err_set(err, -EINVAL, "the first cut must lie behind at least one layer");
    return 0;
}

static bool is_time(double us) {
    return isfinite(us) && us >= 0;
}

static int check_device(const struct cost_device *device, size_t index, size_t layers,
                        struct err *err) {
    const char *node = device->node ? device->node : "?";
    for (size_t i = 0; i < layers; i++) {
        if (!is_time(device->layer_us[i]))
            return err_set(err, -EINVAL, "device %zu ('%s'): the time of layer %zu is no time",
                           index + 1, node, i);
    }
    if (device->workers < 1)
        return err_set(err, -EINVAL, "device %zu ('%s') has no workers", index + 1, node);
    if (!(device->send_rate > 0) || !(device->receive_rate > 0))
        return err_set(err, -EINVAL, "device %zu ('%s'): the rate of its link must be above 0",
                       index + 1, node);
    if (!is_time(device->frame_us) || !is_time(device->latency_us) || !is_time(device->byte_us) ||
        !is_time(device->message_us))
        return err_set(err, -EINVAL,
                       "device %zu ('%s'): its time per frame, byte or message, or its latency, is "
                       "no time",
                       index + 1, node);
    return 0;
}

/* CPU time of a cut's messages on one side of it: activations one way, results the other. */
static double cut_us(const struct cost *cost, size_t device, size_t cut) {
    const uint64_t *cuts = cost->network.cut_bytes;
    const struct cost_device *at = &cost->devices[device];
    return at->byte_us * ((double)cuts[cut] + (double)cuts[cost->network.layers]) +
           2 * at->message_us;
}

static void add_up(struct cost *cost) {
    size_t layers = cost->network.layers;
    for (size_t i = 0; i < layers; i++) {
        uint64_t sum;
        if (__builtin_add_overflow(cost->weight_sums[i], cost->network.weight_bytes[i], &sum))
            sum = UINT64_MAX;
        cost->weight_sums[i + 1] = sum;
    }
    for (size_t d = 0; d < cost->devices_count; d++) {
        double sum = 0;
        for (size_t i = 0; i <= layers; i++) {
            double messages = i > 0 && i < layers ? cut_us(cost, d, i) : 0;
            cost->ends[d * (layers + 1) + i] = sum + messages;
            cost->begins[d * (layers + 1) + i] = sum - messages;
            sum += i < layers ? cost->devices[d].layer_us[i] : 0;
        }
    }
}

int cost_new(const struct cost_network *network, const struct cost_device *devices,
             size_t devices_count, struct cost **ret_cost, struct err *err) {
    if (devices_count == 0 || devices_count > COST_DEVICES_MAX)
        return err_set(err, -EINVAL, "%zu devices: 1 to %d can be planned", devices_count,
                       COST_DEVICES_MAX);
    int rc = check_network(network, err);
    for (size_t d = 0; rc == 0 && d < devices_count; d++)
        rc = check_device(&devices[d], d, network->layers, err);
    if (rc < 0)
        return rc;
    struct cost *cost = calloc(1, sizeof(*cost));
    if (!cost)
        return err_set(err, -ENOMEM, "no memory for a plan");
    cost->network = *network;
    cost->devices_count = devices_count;
    cost->devices = calloc(devices_count, sizeof(*cost->devices));
    cost->ends = calloc(devices_count * (network->layers + 1), sizeof(*cost->ends));
    cost->begins = calloc(devices_count * (network->layers + 1), sizeof(*cost->begins));
    cost->weight_sums = calloc(network->layers + 1, sizeof(*cost->weight_sums));
    if (!cost->devices || !cost->ends || !cost->begins || !cost->weight_sums) {
        cost_free(cost);
        return err_set(err, -ENOMEM, "no memory for a plan");
    }
    memcpy(cost->devices, devices, devices_count * sizeof(*devices));
    add_up(cost);
    *ret_cost = cost;
    return 0;
}

void cost_free(struct cost *cost) {
    if (!cost)
        return;
    free(cost->devices);
    free(cost->ends);
    free(cost->begins);
    free(cost->weight_sums);
    free(cost);
}

const struct cost_network *cost_network(const struct cost *cost) {
    return &cost->network;
}

const struct cost_device *cost_device(const struct cost *cost, size_t device) {
    return &cost->devices[device];
}

size_t cost_devices_count(const struct cost *cost) {
    return cost->devices_count;
}

double cost_time_us(const struct cost *cost, size_t device, size_t first, size_t last) {
    return cost_end_us(cost, device, last) - cost_begin_us(cost, device, first) +
           cost->devices[device].frame_us;
}

double cost_end_us(const struct cost *cost, size_t device, size_t last) {
    return cost->ends[device * (cost->network.layers + 1) + last];
}

double cost_begin_us(const struct cost *cost, size_t device, size_t first) {
    return cost->begins[device * (cost->network.layers + 1) + first];
}

uint64_t cost_memory(const struct cost *cost, size_t device, size_t first, size_t last) {
    uint64_t arena = 0, bytes;
    for (size_t i = first; i < last; i++) {
        if (cost->network.arena_bytes[i] > arena)
            arena = cost->network.arena_bytes[i];
    }
    if (__builtin_mul_overflow(arena, (uint64_t)cost->devices[device].workers, &bytes) ||
        __builtin_add_overflow(bytes, cost->weight_sums[last] - cost->weight_sums[first], &bytes))
        return UINT64_MAX;
    return bytes;
}

double cost_hop_us(const struct cost *cost, uint64_t bytes, size_t from, size_t to) {
    const struct cost_device *a = &cost->devices[from], *b = &cost->devices[to];
    return (double)bytes / fmin(a->send_rate, b->receive_rate) + a->latency_us + b->latency_us;
}

bool cost_same_kind(const struct cost *cost, size_t a, size_t b) {
    const struct cost_device *x = &cost->devices[a], *y = &cost->devices[b];
    return x->workers == y->workers && x->frame_us == y->frame_us && x->byte_us == y->byte_us &&
           x->message_us == y->message_us && x->send_rate == y->send_rate &&
           x->receive_rate == y->receive_rate && x->latency_us == y->latency_us &&
           x->memory == y->memory &&
           (x->layer_us == y->layer_us ||
            memcmp(x->layer_us, y->layer_us, cost->network.layers * sizeof(*x->layer_us)) == 0);
}

/* What one replica of stage k takes; keeps the worst of all in the stage. */
static void evaluate_replica(const struct cost *cost, struct cost_line *line, size_t k,
                             size_t device) {
    struct cost_stage *stage = &line->stages[k];
    const struct cost_device *at = &cost->devices[device];
    const uint64_t *cuts = cost->network.cut_bytes;
    double results = (double)cuts[cost->network.layers], replicas = (double)stage->replicas;
    bool is_first = k == 0, is_last = k + 1 == line->count;
    double down = is_last ? 0 : (double)cuts[stage->last];
    double sent = down + (is_first ? 0 : results);
    double received = (is_first ? 0 : (double)cuts[stage->first]) + (is_last ? 0 : results);
    double time = cost_time_us(cost, device, stage->first, stage->last);
    uint64_t memory = cost_memory(cost, device, stage->first, stage->last);
    stage->time_us = fmax(stage->time_us, time);
    stage->compute_us = fmax(stage->compute_us, time / ((double)at->workers * replicas));
    stage->send_us = fmax(stage->send_us, sent / (at->send_rate * replicas));
    stage->receive_us = fmax(stage->receive_us, received / (at->receive_rate * replicas));
    stage->memory = memory > stage->memory ? memory : stage->memory;
}

/* The slowest hop down and up again between any two replicas of two stages. */
static double evaluate_hop(const struct cost *cost, const struct cost_stage *from,
                           const struct cost_stage *to) {
    const uint64_t *cuts = cost->network.cut_bytes;
    double slowest = 0;
    for (size_t i = 0; i < from->replicas; i++) {
        for (size_t j = 0; j < to->replicas; j++) {
            size_t a = from->devices[i], b = to->devices[j];
            slowest = fmax(slowest, cost_hop_us(cost, cuts[to->first], a, b) +
                                        cost_hop_us(cost, cuts[cost->network.layers], b, a));
        }
    }
    return slowest;
}

static void note_bottleneck(struct cost_line *line, size_t stage, enum cost_resource resource,
                            double us) {
    if (us <= line->period_us)
        return;
    line->period_us = us;
    line->bottleneck = stage;
    line->resource = resource;
}

void cost_evaluate(const struct cost *cost, struct cost_line *line) {
    line->period_us = line->latency_us = 0;
    line->bottleneck = 0;
    line->resource = COST_COMPUTE;
    for (size_t k = 0; k < line->count; k++) {
        struct cost_stage *stage = &line->stages[k];
        stage->time_us = stage->compute_us = stage->send_us = stage->receive_us = 0;
        stage->memory = 0;
        for (size_t i = 0; i < stage->replicas; i++)
            evaluate_replica(cost, line, k, stage->devices[i]);
        line->latency_us += stage->time_us;
        if (k > 0)
            line->latency_us += evaluate_hop(cost, &line->stages[k - 1], stage);
        note_bottleneck(line, k, COST_COMPUTE, stage->compute_us);
        note_bottleneck(line, k, COST_RECEIVE, stage->receive_us);
        note_bottleneck(line, k, COST_SEND, stage->send_us);
    }
}

double cost_alone_fps(const struct cost *cost, size_t device) {
    double us = cost_time_us(cost, device, 0, cost->network.layers);
    return us > 0 ? 1e6 * (double)cost->devices[device].workers / us : INFINITY;
}

/* Which share of a device's time for the whole network is layer's: 0 to 1. */
static double layer_share(const struct cost *cost, size_t device, size_t layer) {
    double all = cost_end_us(cost, device, cost->network.layers);
    return all > 0 ? cost->devices[device].layer_us[layer] / all : 1 / (double)cost->network.layers;
}

double cost_ideal_fps(const struct cost *cost) {
    double alone = 0, least = 0;
    for (size_t d = 0; d < cost->devices_count; d++)
        alone += cost_alone_fps(cost, d);
    for (size_t i = 0; i < cost->network.layers; i++) {
        double share = INFINITY;
        for (size_t d = 0; d < cost->devices_count; d++)
            share = fmin(share, layer_share(cost, d, i));
        least += share;
    }
    return least > 0 ? alone / least : INFINITY;
}

const char *cost_resource_name(enum cost_resource resource) {
    static const char *const names[] = {"compute", "send", "receive"};
    assert(resource < sizeof(names) / sizeof(*names));
    return names[resource];
}

struct cost_line *cost_line_copy(const struct cost_line *line) {
    struct cost_line *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return NULL;
    *copy = *line;
    copy->count = 0;
    copy->stages = calloc(line->count + 1, sizeof(*copy->stages));
    if (!copy->stages)
        goto fail;
    for (size_t k = 0; k < line->count; k++) {
        struct cost_stage *to = &copy->stages[copy->count++];
        *to = line->stages[k];
        to->devices = calloc(to->replicas + 1, sizeof(*to->devices));
        if (!to->devices)
            goto fail;
        memcpy(to->devices, line->stages[k].devices, to->replicas * sizeof(*to->devices));
    }
    return copy;
fail:
    cost_line_free(copy);
    return NULL;
}

void cost_line_free(struct cost_line *line) {
    if (!line)
        return;
    for (size_t k = 0; k < line->count; k++)
        free(line->stages[k].devices);
    free(line->stages);
    free(line);
}
