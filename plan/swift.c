#include "plan/swift.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS_MAX 64                  /* more of them are not searched */
#define TABLE_MAX  (UINT64_C(1) << 23) /* steps of making the bound's tables */
#define STEPS_MAX  (UINT64_C(1) << 17) /* stages tried */
#define ROUNDING   (1 - 1e-12)         /* a lower bound is summed in another order */

struct swift {
    struct reach *reach;
    size_t layers, groups; /* the ingress is group number `groups` */
    double *rest; /* [groups + 1][layers]: least latency behind a stage that ended at a cut */
    double
        *begin;   /* [groups][layers]: least latency of a stage that starts at a cut and the rest */
    double *hops; /* [groups + 1][groups][layers]: from a group to a group with a cut's tensors */

    /* The line under way and the best one. */
    const struct reach_group **path, **best_path;
    size_t *cuts, *best_cuts;
    size_t depth, best_depth;
    double best; /* latency */
    uint64_t steps;
};

/* Device that stands for member m of a group; the ingress for group number `groups`. */
static size_t member(const struct swift *swift, size_t group, size_t m) {
    if (group == swift->groups)
        return 0;
    const struct reach_group *at = &swift->reach->groups[group];
    return swift->reach->kinds[at->kinds[m]].devices[0];
}

static size_t members(const struct swift *swift, size_t group) {
    return group == swift->groups ? 1 : swift->reach->groups[group].size;
}

/* Down with a cut's tensors and up with the results, between the slowest pair of two groups: as
 * cost_evaluate() has it. */
static double find_hop(const struct swift *swift, size_t from, size_t to, size_t cut) {
    const struct cost *cost = swift->reach->cost;
    const uint64_t *cuts = cost_network(cost)->cut_bytes;
    double slowest = 0;
    for (size_t i = 0; i < members(swift, from); i++) {
        for (size_t j = 0; j < members(swift, to); j++) {
            size_t a = member(swift, from, i), b = member(swift, to, j);
            slowest = fmax(slowest, cost_hop_us(cost, cuts[cut], a, b) +
                                        cost_hop_us(cost, cuts[swift->layers], b, a));
        }
    }
    return slowest;
}

static double hop(const struct swift *swift, size_t from, size_t to, size_t cut) {
    return swift->hops[(from * swift->groups + to) * swift->layers + cut];
}

static double stage_time(const struct swift *swift, size_t group, size_t first, size_t last) {
    double slowest = 0;
    for (size_t i = 0; i < members(swift, group); i++)
        slowest =
            fmax(slowest, cost_time_us(swift->reach->cost, member(swift, group, i), first, last));
    return slowest;
}

/* Whether a group may run a stage between two cuts. */
static bool may_run(const struct swift *swift, size_t group, size_t first, size_t last) {
    const struct reach_window *window = &swift->reach->groups[group].window;
    if (!reach_may_end(swift->reach, &swift->reach->groups[group], first, last))
        return false;
    if (last == swift->layers)
        return window->last_out && reach_has(window->last_in, first);
    return reach_has(window->in, first) && reach_has(window->out, last);
}

/* The least latency of a stage of this group from this cut, with what must follow. */
static double find_begin(const struct swift *swift, size_t group, size_t first) {
    const struct reach_window *window = &swift->reach->groups[group].window;
    double least = INFINITY;
    for (size_t last = first + 1; last <= window->far[first]; last++) {
        if (!may_run(swift, group, first, last))
            continue;
        double rest = last == swift->layers ? 0 : swift->rest[group * swift->layers + last];
        least = fmin(least, stage_time(swift, group, first, last) + rest);
    }
    return least;
}

/* The bound: the same problem with as many of each device as one likes, solved from the end. */
static void fill_tables(struct swift *swift) {
    size_t layers = swift->layers;
    for (size_t from = 0; from <= swift->groups; from++)
        for (size_t to = 0; to < swift->groups; to++)
            for (size_t cut = 1; cut < layers; cut++)
                swift->hops[(from * swift->groups + to) * layers + cut] =
                    find_hop(swift, from, to, cut);
    for (size_t cut = layers - 1; cut > 0; cut--) {
        for (size_t g = 0; g < swift->groups; g++)
            swift->begin[g * layers + cut] = find_begin(swift, g, cut);
        for (size_t from = 0; from <= swift->groups; from++) {
            double least = INFINITY;
            for (size_t to = 0; to < swift->groups; to++) {
                double begin = swift->begin[to * layers + cut];
                if (begin < least)
                    least = fmin(least, hop(swift, from, to, cut) + begin);
            }
            swift->rest[from * layers + cut] = least;
        }
    }
}

static bool take(struct swift *swift, const struct reach_group *group) {
    struct reach *reach = swift->reach;
    size_t i = 0;
    while (i < group->size && reach->used[group->kinds[i]] < reach->kinds[group->kinds[i]].count)
        reach->used[group->kinds[i++]]++;
    if (i == group->size)
        return true;
    while (i > 0)
        reach->used[group->kinds[--i]]--;
    return false;
}

static void give_back(struct swift *swift, const struct reach_group *group) {
    for (size_t i = 0; i < group->size; i++)
        swift->reach->used[group->kinds[i]]--;
}

static void note_best(struct swift *swift, double latency) {
    swift->best = latency;
    swift->best_depth = swift->depth;
    memcpy(swift->best_path, swift->path, swift->depth * sizeof(struct reach_group *));
    memcpy(swift->best_cuts, swift->cuts, swift->depth * sizeof(*swift->cuts));
}

static void go_on(struct swift *swift, size_t from, double latency);

/* Tries the ends of a stage of a group, the farthest first; latency is until it starts. */
static void try_group(struct swift *swift, size_t g, size_t first, double latency) {
    const struct reach_group *group = &swift->reach->groups[g];
    for (size_t last = group->window.far[first]; last > first; last--) {
        if (swift->steps++ > STEPS_MAX)
            return;
        if (!may_run(swift, g, first, last))
            continue;
        double after = latency + stage_time(swift, g, first, last);
        double rest = last == swift->layers ? 0 : swift->rest[g * swift->layers + last];
        if (!((after + rest) * ROUNDING < swift->best))
            continue;
        swift->path[swift->depth] = group;
        swift->cuts[swift->depth++] = last;
        if (last == swift->layers && after < swift->best)
            note_best(swift, after);
        else if (last < swift->layers)
            go_on(swift, g, after);
        swift->depth--;
    }
}

/* Tries every stage that may follow one of group `from`: the most promising group first. */
static void go_on(struct swift *swift, size_t from, double latency) {
    size_t first = swift->cuts[swift->depth - 1], order[GROUPS_MAX], count = 0;
    double bounds[GROUPS_MAX];
    for (size_t g = 0; g < swift->groups; g++) {
        double begin = swift->begin[g * swift->layers + first];
        double bound = latency + begin;
        if (!(bound * ROUNDING < swift->best))
            continue;
        bound += hop(swift, from, g, first);
        size_t at = count++;
        for (; at > 0 && bounds[at - 1] > bound; at--) {
            bounds[at] = bounds[at - 1];
            order[at] = order[at - 1];
        }
        bounds[at] = bound;
        order[at] = g;
    }
    for (size_t i = 0; i < count && bounds[i] * ROUNDING < swift->best; i++) {
        const struct reach_group *group = &swift->reach->groups[order[i]];
        if (!take(swift, group))
            continue;
        try_group(swift, order[i], first, latency + hop(swift, from, order[i], first));
        give_back(swift, group);
    }
}

/* Tries every first stage; all of it on the ingress before. */
static void search(struct swift *swift) {
    const struct reach *reach = swift->reach;
    const struct cost_network *network = cost_network(reach->cost);
    double results = (double)network->cut_bytes[swift->layers];
    size_t far = reach->ingress.far[0];
    swift->depth = 1;
    swift->path[0] = NULL;
    if (far == swift->layers) {
        double alone = cost_time_us(reach->cost, 0, 0, swift->layers);
        swift->cuts[0] = swift->layers;
        if (alone < swift->best)
            note_best(swift, alone);
        far--;
    }
    if (results / cost_device(reach->cost, 0)->receive_rate > reach->period_us)
        return;
    for (size_t cut = far; cut >= network->first_cut; cut--) {
        double latency = cost_time_us(reach->cost, 0, 0, cut);
        double rest = swift->rest[swift->groups * swift->layers + cut];
        if (!reach_has(reach->ingress.out, cut) || !reach_may_end(reach, NULL, 0, cut) ||
            !((latency + rest) * ROUNDING < swift->best))
            continue;
        swift->cuts[0] = cut;
        go_on(swift, swift->groups, latency);
    }
}

/* How many steps the tables take. */
static uint64_t table_steps(const struct swift *swift) {
    uint64_t steps = (uint64_t)(swift->groups + 1) * swift->groups * swift->layers;
    for (size_t g = 0; g < swift->groups; g++)
        for (size_t i = 0; i < swift->layers; i++)
            steps += swift->reach->groups[g].window.far[i] - i;
    return steps;
}

static int run(struct swift *swift, struct cost_line **ret_line) {
    size_t cells = (swift->groups + 1) * swift->layers + 1;
    size_t most = cost_devices_count(swift->reach->cost);
    swift->rest = calloc(cells, sizeof(*swift->rest));
    swift->begin = calloc(cells, sizeof(*swift->begin));
    swift->hops = calloc(cells * (swift->groups + 1), sizeof(*swift->hops));
    swift->path = calloc(2 * most, sizeof(struct reach_group *));
    swift->cuts = calloc(2 * most, sizeof(*swift->cuts));
    int rc = swift->rest && swift->begin && swift->hops && swift->path && swift->cuts ? 0 : -ENOMEM;
    if (rc == 0) {
        swift->best_path = swift->path + most;
        swift->best_cuts = swift->cuts + most;
        memset(swift->reach->used, 0, swift->reach->kinds_count * sizeof(*swift->reach->used));
        fill_tables(swift);
        search(swift);
    }
    if (rc == 0 && swift->best_depth > 0) {
        *ret_line =
            reach_make_line(swift->reach, swift->best_path, swift->best_cuts, swift->best_depth);
        rc = *ret_line ? 0 : -ENOMEM;
    }
    free(swift->rest);
    free(swift->begin);
    free(swift->hops);
    free(swift->path);
    free(swift->cuts);
    return rc;
}

int swift_find_line(struct reach *reach, const struct cost_line *known, struct cost_line **ret_line,
                    bool *ret_proved) {
    struct swift swift = {.reach = reach,
                          .layers = reach->layers,
                          .groups = reach->groups_count,
                          .best = known->latency_us};
    struct cost_line *line = NULL;
    bool searched = swift.groups <= GROUPS_MAX && table_steps(&swift) <= TABLE_MAX;
    int rc = searched ? run(&swift, &line) : 0;
    if (rc == 0 && !line)
        line = cost_line_copy(known);
    if (!line)
        return -ENOMEM;
    *ret_line = line;
    *ret_proved = searched && swift.steps <= STEPS_MAX;
    return 0;
}
