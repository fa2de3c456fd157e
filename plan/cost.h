/* What a line costs: devices, links and a network as numbers, and what a line of stages takes.
 * Pure: no clock, no socket, no file. docs/planner.md says which world these numbers describe.
 *
 * Times are microseconds, rates bytes per microsecond (1 Mbit/s is 0.125), both as double.
 */
#ifndef CONVOY_PLAN_COST_H
#define CONVOY_PLAN_COST_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COST_LAYERS_MAX  100000
#define COST_DEVICES_MAX 1024

/* A network. The arrays are the caller's. */
struct cost_network {
    size_t layers;
    const uint64_t *cut_bytes;    /* [layers + 1]: alive before layer i; [layers]: the results */
    const uint64_t *weight_bytes; /* [layers] */
    const uint64_t *arena_bytes;  /* [layers]: what one worker needs while layer i runs */
    size_t first_cut; /* no cut lies before this layer, 1 <= first_cut: 1 allows all; one behind the
                         first convolution keeps raw inputs on the ingress */
};

/* A device. Two devices are of one kind when all but node is equal (layer_us: the same numbers). */
struct cost_device {
    const char *node;       /* for messages; may be NULL */
    const double *layer_us; /* [layers]: of one frame, while all workers are busy; the caller's */
    int workers;            /* frames computed side by side: a frame every (its time / workers) */
    double frame_us;        /* of a frame on this device beside its layers */
    double byte_us;         /* of a byte that its port sends or receives for a frame ... */
    double message_us;      /* ... and of a message: CPU time that its layers have to wait for. 0
                               where it has cores to spare */
    double send_rate, receive_rate; /* of its port; INFINITY: not limited */
    double latency_us;              /* its share of a message's: a hop has both ends' */
    uint64_t memory;                /* bytes for weights and arenas; UINT64_MAX: not limited */
};

/* One stage of a line: layers [first, last) on one device, or on several in turn. devices are
 * indices, the array is the line's. */
struct cost_stage {
    size_t first, last;
    size_t *devices;
    size_t replicas; /* 1: no replication */

    /* Filled by cost_evaluate(). Periods are per frame of the line, on the slowest replica. */
    double time_us;    /* of one frame in this stage */
    double compute_us; /* period of its computing: time / workers / replicas */
    double send_us;    /* period of its port's sending: activations down, results up */
    double receive_us; /* period of its port's receiving */
    uint64_t memory;   /* weights and arenas, on the replica that needs most */
};

enum cost_resource { COST_COMPUTE, COST_SEND, COST_RECEIVE };

struct cost_line {
    struct cost_stage *stages;
    size_t count;

    /* Filled by cost_evaluate(). */
    double period_us;  /* the slowest of all; frames/s is 1e6 / period_us */
    double latency_us; /* of a frame that is alone in the line, result at the ingress */
    size_t bottleneck; /* the stage, and what of it, that sets period_us */
    enum cost_resource resource;
};

/* A network with devices, checked and summed up, for everything below. Immutable. */
struct cost;

/* devices[0] is the ingress: it has the camera, and the first stage. Borrows the network's and the
 * devices' arrays for its life. -EINVAL with a sentence for sizes, times and rates that make no
 * sense, -ENOMEM. */
int cost_new(const struct cost_network *network, const struct cost_device *devices,
             size_t devices_count, struct cost **ret_cost, struct err *err);
void cost_free(struct cost *cost);

const struct cost_network *cost_network(const struct cost *cost);
const struct cost_device *cost_device(const struct cost *cost, size_t device);
size_t cost_devices_count(const struct cost *cost);

/* Time of one frame in layers [first, last) of a device, with frame_us, and with what messages cost
 * it: those before first, unless it is the first layer, and those behind last, unless it is the
 * end. */
double cost_time_us(const struct cost *cost, size_t device, size_t first, size_t last);

/* What grows with last in cost_time_us(): for any first and two ends, the one with the smaller
 * value takes no longer. */
double cost_end_us(const struct cost *cost, size_t device, size_t last);

/* What shrinks it: of two firsts with the same end, the one with the larger value takes no longer.
 */
double cost_begin_us(const struct cost *cost, size_t device, size_t first);

/* Weights and arenas of layers [first, last) on a device. Saturates. */
uint64_t cost_memory(const struct cost *cost, size_t device, size_t first, size_t last);

/* Time of a message of that many bytes from one device to another, in an idle line. */
double cost_hop_us(const struct cost *cost, uint64_t bytes, size_t from, size_t to);

/* Whether two devices are of one kind. */
bool cost_same_kind(const struct cost *cost, size_t a, size_t b);

/* Fills in what a line takes. Its stages must cover all layers in order. */
void cost_evaluate(const struct cost *cost, struct cost_line *line);

/* Frames per second that no line of these devices passes, with replicas or without, memory and
 * links aside: the sum of what each computes alone, over the sum, for all layers, of the smallest
 * share that the layer has of any device's time. The second sum is 1 for devices that differ by a
 * factor only, and smaller the more each is good at something else. INFINITY where it is 0, or
 * where a device takes no time at all. Source: weak duality, docs/planner.md. */
double cost_ideal_fps(const struct cost *cost);

/* Frames per second of a device that runs the whole network alone, memory aside. */
double cost_alone_fps(const struct cost *cost, size_t device);

/* "compute", "send", "receive". Static. */
const char *cost_resource_name(enum cost_resource resource);

/* A line of the caller's. NULL when there is no memory. */
struct cost_line *cost_line_copy(const struct cost_line *line);

void cost_line_free(struct cost_line *line);

#endif
