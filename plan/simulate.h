/* A line at work, event by event: frames wait for workers, ports and credits, and times vary. Says
 * what a plan's prediction leaves out. Pure: time is simulated. docs/planner.md has the rules. */
#ifndef CONVOY_PLAN_SIMULATE_H
#define CONVOY_PLAN_SIMULATE_H

#include "plan/cost.h"

#define SIMULATE_FRAMES_MAX 1000000

struct simulate_options {
    size_t frames;      /* to run; 0: as many as a steady state takes */
    double jitter;      /* standard deviation of every time, as a share of it: 0 to 1 */
    int queue;          /* frames that a device holds for the one before it; 0: 4 + its workers */
    double interval_us; /* between two frames of the camera; 0: as fast as the line takes them */
    uint64_t seed;      /* of the jitter */
};

/* How much of its time a stage's busiest replica spent on each, in the steady part of the run. */
struct simulate_stage {
    double computing; /* of all its workers */
    double sending, receiving;
};

struct simulate_result {
    double period_us;              /* mean time between two results in the steady part */
    double p50_us, p99_us;         /* latency there: from entering the ingress to the result */
    size_t frames;                 /* that were run */
    struct simulate_stage *stages; /* [line->count], for simulate_fini() */
};

/* Runs an evaluated line. 0, or with a sentence -EINVAL for options out of range, -ENOMEM. */
int simulate_run(const struct cost *cost, const struct cost_line *line,
                 const struct simulate_options *options, struct simulate_result *ret_result,
                 struct err *err);
void simulate_fini(struct simulate_result *result);

#endif
