/* When to move the cuts of a line that runs: what is known of its devices and links, smoothed, and
 * whether another line is better by enough, for long enough. Pure: times come in as numbers.
 * docs/planner.md ("Moving") says why each number is what it is.
 *
 * Devices are known by index, 0 is the ingress. All of a device's layers are taken to be as many
 * times slower or faster than the reference's as the layers that it has run; a device that has run
 * none is taken to be as fast as the reference, so that it is tried. */
#ifndef CONVOY_PLAN_MOVER_H
#define CONVOY_PLAN_MOVER_H

#include "plan/planner.h"

#define MOVER_DEVICES_MAX 64
#define MOVER_SHARING_MAX 9 /* of more devices none share a stage: planning would take too long */

struct mover_options {
    double gain; /* predicted, in frames per second, that a move must bring: 0.08, and more where
                  * measurements are noisy */
    uint64_t hold_us; /* it must be there for so long: 3 s ... */
    uint64_t sure_us; /* ... or, where it stands out far enough to be no noise: 1 s */
    uint64_t cool_us; /* from one move to the next: 6 s, and twice as long for each move that ... */
    uint64_t calm_us; /* ... another one followed within this time: 30 s */
    uint64_t smooth_us; /* time constant of what is measured: 2 s */
    uint64_t forget_us; /* what is known of a device that has run nothing for so long is forgotten,
                         * so that it is tried again: 600 s */
};

/* The numbers above. */
extern const struct mover_options mover_defaults;

/* What is known of a device. */
struct mover_device {
    bool is_there; /* it can be used */
    int workers;
    uint64_t memory;  /* for one more stage beside what it runs; UINT64_MAX: not limited */
    double slowness;  /* its time by the reference's; 1 until it was measured */
    double variance;  /* of single measurements of it, in logarithms */
    unsigned samples; /* how many, up to those that tell the variance */
    double odd;       /* the last one by the average, where it was far off, in logarithms; 0: not */
    double rate;      /* of its port, bytes per microsecond; INFINITY until it was measured */
    uint64_t time_us, rate_us;  /* when these two were last measured; 0: never */
    double byte_us, message_us; /* CPU time that a byte and a message cost it; 0: not measured */
    double frame_us;   /* that a frame costs it beside its layers and those; 0: not measured */
    uint64_t frame_at; /* when that was last measured; 0: never */
};

enum mover_verdict {
    MOVER_KEEP, /* nothing better by enough */
    MOVER_WAIT, /* something better, not yet for long enough */
    MOVER_COOL, /* ... but the last move was a short time ago */
    MOVER_MOVE,
};

struct mover {
    struct cost_network network; /* borrowed */
    const double *reference_us;  /* [layers] of one frame while all workers are busy; borrowed */
    struct mover_options options;
    struct mover_device devices[MOVER_DEVICES_MAX];
    size_t count;
    size_t max_replicas; /* devices that may share a stage; 0 and 1: stages are not shared */
    double latency_us;   /* of each device's port */
    uint64_t better_us;  /* since when another line is better; 0: none is */
    uint64_t moved_us;   /* when it was last moved; 0: never */
    double streak;       /* moves one soon after the other, up to that one */
    uint64_t worse_us;   /* since when the line does less than the ingress would alone; 0: it does
                            not */
    uint64_t alone_until_us; /* no other device is planned for until then */
};

/* count devices that are not there yet, 1 to MOVER_DEVICES_MAX. */
void mover_init(struct mover *mover, const struct cost_network *network, const double *reference_us,
                size_t count, const struct mover_options *options);

/* A device has joined, with so many workers and so much memory, or left. What was measured of it is
 * kept while it is away. One that joins ends the time in which no other than the ingress is planned
 * for: lines with it have not been tried. */
void mover_device_there(struct mover *mover, size_t device, int workers, uint64_t memory);
void mover_device_gone(struct mover *mover, size_t device);

/* A frame took time_us in layers [first, last) of a device, on average over the last second or so.
 * Samples that are no time, or of layers that take none, do not count; those of less than a tenth
 * of the model count less, as they say little of its other layers. One that is far off does not
 * count until the next: two that are far off the same way, and near each other, are a change and
 * count whole, else the next one counts as any other. */
void mover_note_time(struct mover *mover, uint64_t now_us, size_t device, size_t first, size_t last,
                     double time_us);

/* While a device ran layers [first, last), its messages and all else beside its layers took CPU
 * time loop_us per frame, on average over the last second or so. What is not of its messages to
 * other devices is what a frame costs it wherever the cuts are: the ingress has its clients. */
void mover_note_loop(struct mover *mover, uint64_t now_us, size_t device, size_t first, size_t last,
                     double loop_us);

/* Messages went from one device to another at this rate; busy, 0 to 1: how far the link was the
 * limit: one that is seldom full tells little about its rate. Where the rate is below both ports'
 * the receiving device's is held responsible, or the sending one's where the receiver is the
 * ingress; where it is above, both are that fast at least. */
void mover_note_rate(struct mover *mover, uint64_t now_us, size_t from, size_t to, double rate,
                     double busy);

/* Messages that were sent from the ingress to a device for this purpose got there at this rate:
 * what the slower of both ports does. The ingress' own is as fast as the fastest of them at least.
 */
void mover_note_probe(struct mover *mover, uint64_t now_us, size_t device, double rate);

/* A device's loop takes so long for a message, and for each of its bytes. What is negative or not
 * finite is no measurement. */
void mover_note_messages(struct mover *mover, size_t device, double message_us, double byte_us);

/* The line has done fps frames per second, while more were waiting (is_full) or not. True, once,
 * when it has done less than the ingress would by itself for MOVER_WORSE_US, and the ingress has
 * the memory for that: then no other device is planned for during MOVER_ALONE_US, whatever is known
 * of them. */
bool mover_note_fps(struct mover *mover, uint64_t now_us, double fps, bool is_full);

/* The ingress cannot run the network alone after all: other devices are planned for again. */
void mover_end_alone(struct mover *mover);

#define MOVER_WORSE_US UINT64_C(10000000)
#define MOVER_ALONE_US UINT64_C(120000000)

/* A copy of everything for planning on another thread; NULL when there is no memory. */
struct mover_problem;
struct mover_problem *mover_problem_new(const struct mover *mover, uint64_t now_us);
void mover_problem_free(struct mover_problem *problem);

/* What a line of device indices will do, as far as is known now: INFINITY when one of its devices
 * is away. Memory is not looked at: the line that runs has what it needs. */
double mover_problem_period(const struct mover_problem *problem, const struct cost_line *line);

/* The best line of the devices that are there; its device indices are the mover's. For
 * cost_line_free(). Errors as planner_run(); also -ENODEV when the ingress is not there. */
int mover_problem_plan(const struct mover_problem *problem, struct cost_line **ret_line,
                       struct err *err);

/* Decides between the line that runs (current_us: its period by mover_problem_period()) and the
 * best one. MOVER_MOVE also when the current one cannot run any more (INFINITY): then at once. The
 * caller says when it has moved. */
enum mover_verdict mover_decide(struct mover *mover, uint64_t now_us, double current_us,
                                double best_us);
void mover_moved(struct mover *mover, uint64_t now_us);

#endif
