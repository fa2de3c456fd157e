/* Among the lines that keep a period, the one of the lowest latency: branch and bound. Private to
 * plan/. docs/planner.md has the bound. */
#ifndef CONVOY_PLAN_SWIFT_H
#define CONVOY_PLAN_SWIFT_H

#include "plan/reach.h"

/* reach has its period set, and known keeps it. Returns in *ret_line a line of the caller's, not
 * slower than known in latency; *ret_proved when there is none better. The search gives up, with
 * the best so far, after a fixed number of steps. 0 or -ENOMEM. */
int swift_find_line(struct reach *reach, const struct cost_line *known, struct cost_line **ret_line,
                    bool *ret_proved);

#endif
