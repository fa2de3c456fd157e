/* Which cuts some devices can reach when nothing may take longer than a period: the decision that
 * the planner's search asks for again and again. Private to plan/. docs/planner.md has the method
 * and why it is exact. */
#ifndef CONVOY_PLAN_REACH_H
#define CONVOY_PLAN_REACH_H

#include "plan/cost.h"
#include "plan/ends.h"
#include "plan/planner.h"

/* Devices behind the ingress that are equal in everything. */
struct reach_kind {
    size_t *devices; /* [count] */
    size_t count;
    size_t stride; /* of one more of them in the number of a state */
    double most;   /* work that one of them can do within the period, wherever it is put */
};

/* What a device, or several in turn, can do within the period. Sets of cuts are bits. */
struct reach_window {
    uint32_t *far;     /* [layers]: the last cut that a stage that starts there may end with */
    uint32_t *count;   /* [layers]: ... and how many of `ends` it may, where there is an order */
    uint64_t *in;      /* cuts at which it may start, when it is not the last stage */
    uint64_t *last_in; /* the same, when it is */
    uint64_t *out;     /* cuts at which it may end, when it is not the last stage */
    bool last_out;     /* whether it may be the last stage */
};

/* A choice of kinds for one stage: one device, or several in turn. */
struct reach_group {
    size_t kinds[PLANNER_REPLICAS_MAX]; /* [size], rising */
    size_t size;
    size_t stride;
    struct reach_window window;
};

struct reach {
    const struct cost *cost;
    size_t layers, words; /* words of a set of cuts */
    size_t max_replicas;
    double period_us;
    struct reach_kind *kinds;
    size_t kinds_count;
    struct reach_group *groups;
    size_t groups_count;
    struct reach_window *windows; /* [kinds][max_replicas] */
    struct reach_window ingress;
    uint32_t *memory_far;     /* [kinds + 1][layers], the ingress last: as far, by memory alone */
    struct ends *ends;        /* [kinds + 1], the ingress last */
    uint32_t *level;          /* [layers]: how many may start there */
    uint32_t *level_before;   /* [layers]: the cut before it with a higher level, or UINT32_MAX */
    uint32_t *begin_before;   /* [layers]: ... from which a stage of some device takes less */
    uint32_t *previous_wider; /* [layers]: the later of both: it does not replace that one */
    uint32_t *cuts;           /* [layers]: scratch */
    uint64_t *reached;        /* [states][words] */
    size_t states;
    bool is_single;     /* of each state's cuts only the highest counts, and no group has several */
    uint32_t *tops;     /* [states]: that cut; 0: none */
    uint32_t *farthest; /* [groups][layers]: from a cut to the highest one that it leads to; 0: to
                           none. Both NULL where stages may be shared */
    double *work;       /* [layers + 1]: of the layers before i, the mean of all devices */
    size_t *used;       /* [kinds]: scratch */
};

/* -E2BIG with a sentence when there are too many kinds, -ENOMEM. */
int reach_new(const struct cost *cost, size_t max_replicas, struct reach **ret_reach,
              struct err *err);
void reach_free(struct reach *reach);

/* Computes all windows for a period. */
void reach_set_period(struct reach *reach, double period_us);

/* A line that keeps the period that was set: 1 with an evaluated line for the caller, 0 when there
 * is none, -ENOMEM. */
int reach_find_line(struct reach *reach, struct cost_line **ret_line);

/* A line of these stages; groups[0] is ignored: the ingress. cuts[k]: where stage k ends. NULL when
 * there is no memory. */
struct cost_line *reach_make_line(struct reach *reach, const struct reach_group *const *groups,
                                  const size_t *cuts, size_t count);

/* Whether a group (NULL: the ingress) keeps the period from one cut to another, ports aside. */
bool reach_may_end(const struct reach *reach, const struct reach_group *group, size_t first,
                   size_t last);

static inline bool reach_has(const uint64_t *set, size_t cut) {
    return set[cut / 64] >> cut % 64 & 1;
}

#endif
