#include "plan/planner.h"

#include "plan/reach.h"
#include "plan/swift.h"

#include <errno.h>
#include <math.h>

#define NEAR 0.03 /* of a period: from here on the search asks for a proof every other time */

/* Where the search stands: a line of period high is known, there is none of period low. */
struct search {
    struct reach *reach;
    struct cost_line *best;
    double low, high;
    bool asked; /* the last question was the one for a proof */
};

/* Asks whether a line keeps the period, and keeps it as the best. 1, 0 or -ENOMEM. */
static int ask(struct search *search, double period) {
    struct cost_line *line;
    reach_set_period(search->reach, period);
    int rc = reach_find_line(search->reach, &line);
    if (rc == 1) {
        cost_line_free(search->best);
        search->best = line;
        search->high = line->period_us;
    } else if (rc == 0) {
        search->low = period;
    }
    return rc;
}

/* The period to ask for next: halves until there is no line, then the geometric middle; when both
 * are near, the largest number below the best period, whose refusal is the proof. */
static double next_period(struct search *search) {
    double just_below = nextafter(search->high, 0), middle = sqrt(search->low) * sqrt(search->high);
    bool near = search->high <= search->low * (1 + NEAR);
    search->asked = near && !search->asked;
    if (search->asked || !(middle > search->low && middle < just_below))
        return search->low > 0 ? just_below : search->high / 2;
    return middle;
}

/* Leaves the fastest line in search->best. 0, -ENOSPC (none at all) or -ENOMEM. */
static int find_fastest(struct search *search) {
    int rc = ask(search, INFINITY);
    if (rc <= 0)
        return rc < 0 ? rc : -ENOSPC;
    search->low = 0;
    while (search->high > 0 && search->low < nextafter(search->high, 0)) {
        rc = ask(search, next_period(search));
        if (rc < 0)
            return rc;
    }
    return 0;
}

int planner_run(const struct cost *cost, const struct planner_options *options,
                struct planner_result *ret_result, struct err *err) {
    struct search search = {.best = NULL};
    struct planner_result result = {.line = NULL};
    size_t replicas = options->max_replicas > 1 ? options->max_replicas : 1;
    if (replicas > PLANNER_REPLICAS_MAX)
        return err_set(err, -E2BIG, "at most %d devices may share a stage", PLANNER_REPLICAS_MAX);
    int rc = reach_new(cost, replicas, &search.reach, err);
    if (rc < 0)
        return rc;
    rc = find_fastest(&search);
    if (rc == 0) {
        result.best_period_us = search.best->period_us;
        reach_set_period(search.reach, result.best_period_us * (1 + options->tolerance));
        rc = swift_find_line(search.reach, search.best, &result.line, &result.latency_proved);
    }
    cost_line_free(search.best);
    reach_free(search.reach);
    if (rc == -ENOSPC)
        return err_set(err, rc,
                       "the network does not fit these devices' memory, however it is cut: add a "
                       "device, or give one more memory");
    if (rc < 0)
        return err_set(err, rc, "no memory for a plan");
    *ret_result = result;
    return 0;
}
