/* The best line for some devices: contiguous stages, devices in any order behind the ingress, some
 * left out where they would not help. Pure. The method and its sources: docs/planner.md.
 *
 * The line found has the smallest period there is (to the last bit: the search ends with the proof
 * that nothing is below it). Among lines whose period is within tolerance of that one it is the
 * one of the lowest latency, as far as a bounded search finds out. */
#ifndef CONVOY_PLAN_PLANNER_H
#define CONVOY_PLAN_PLANNER_H

#include "plan/cost.h"

#define PLANNER_REPLICAS_MAX 8

struct planner_options {
    size_t max_replicas; /* devices that may share a stage; 0 and 1: no replication */
    double tolerance;    /* lines up to this share slower count as fast as the best: 0.01 */
};

struct planner_result {
    struct cost_line *line; /* evaluated; for cost_line_free() */
    double best_period_us;  /* of the fastest line; line->period_us is within tolerance of it */
    bool latency_proved;    /* no line within tolerance has a lower latency */
};

/* Plans. 0, or with a sentence: -ENOSPC when the network does not fit the devices' memory, -E2BIG
 * when there are too many different devices for an exact answer, -ENOMEM. */
int planner_run(const struct cost *cost, const struct planner_options *options,
                struct planner_result *ret_result, struct err *err);

#endif
