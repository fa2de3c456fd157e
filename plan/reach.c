#include "plan/reach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STATES_BYTES_MAX (256u << 20)
#define GROUPS_MAX       4096u
#define STEPS_MAX        (UINT64_C(1) << 30) /* states x groups of one decision */

/* ---- kinds and groups --------------------------------------------------------------------------
 */

/* Sorts the devices behind the ingress into kinds. */
static int find_kinds(struct reach *reach) {
    size_t count = cost_devices_count(reach->cost);
    reach->kinds = calloc(count, sizeof(*reach->kinds));
    if (!reach->kinds)
        return -ENOMEM;
    for (size_t d = 1; d < count; d++) {
        size_t k = 0;
        while (k < reach->kinds_count &&
               !cost_same_kind(reach->cost, reach->kinds[k].devices[0], d))
            k++;
        struct reach_kind *kind = &reach->kinds[k];
        if (k == reach->kinds_count) {
            kind->devices = calloc(count, sizeof(*kind->devices));
            if (!kind->devices)
                return -ENOMEM;
            reach->kinds_count++;
        }
        kind->devices[kind->count++] = d;
    }
    return 0;
}

/* Numbers the states, mixed radix: how many of each kind are used. False when there are too many.
 */
static bool count_states(struct reach *reach) {
    size_t most = STATES_BYTES_MAX / sizeof(uint64_t) / reach->words;
    reach->states = 1;
    for (size_t k = 0; k < reach->kinds_count; k++) {
        reach->kinds[k].stride = reach->states;
        if (reach->states > most / (reach->kinds[k].count + 1))
            return false;
        reach->states *= reach->kinds[k].count + 1;
    }
    return true;
}

/* Adds every group of `size` devices that begins with those in group. Counts only while
 * reach->groups is NULL. False when there are too many. */
static bool add_groups(struct reach *reach, struct reach_group *group, size_t size) {
    if (group->size == size) {
        if (reach->groups_count == GROUPS_MAX)
            return false;
        if (reach->groups)
            reach->groups[reach->groups_count] = *group;
        reach->groups_count++;
        return true;
    }
    size_t k = group->size > 0 ? group->kinds[group->size - 1] : 0;
    for (; k < reach->kinds_count; k++) {
        size_t taken = 0;
        for (size_t i = 0; i < group->size; i++)
            taken += group->kinds[i] == k;
        if (taken == reach->kinds[k].count)
            continue;
        group->kinds[group->size++] = k;
        group->stride += reach->kinds[k].stride;
        bool fits = add_groups(reach, group, size);
        group->stride -= reach->kinds[k].stride;
        group->size--;
        if (!fits)
            return false;
    }
    return true;
}

static bool add_all_groups(struct reach *reach) {
    struct reach_group group = {.size = 0};
    reach->groups_count = 0;
    for (size_t size = 1; size <= reach->max_replicas; size++)
        if (!add_groups(reach, &group, size))
            return false;
    return true;
}

static int new_window(const struct reach *reach, struct reach_window *window) {
    window->far = calloc(2 * reach->layers, sizeof(*window->far));
    window->in = calloc(3 * reach->words, sizeof(*window->in));
    if (!window->far || !window->in)
        return -ENOMEM;
    window->count = window->far + reach->layers;
    window->last_in = window->in + reach->words;
    window->out = window->last_in + reach->words;
    return 0;
}

static void free_window(struct reach_window *window) {
    free(window->far);
    free(window->in);
}

static struct reach_window *window_of(const struct reach *reach, size_t kind, size_t replicas) {
    return &reach->windows[kind * reach->max_replicas + replicas - 1];
}

/* Groups of one device have their kind's window, the others one of their own. */
static int make_groups(struct reach *reach) {
    size_t windows = reach->kinds_count * reach->max_replicas;
    reach->windows = calloc(windows + 1, sizeof(*reach->windows));
    reach->groups = calloc(reach->groups_count + 1, sizeof(*reach->groups));
    if (!reach->windows || !reach->groups)
        return -ENOMEM;
    for (size_t i = 0; i < windows; i++)
        if (new_window(reach, &reach->windows[i]) < 0)
            return -ENOMEM;
    add_all_groups(reach);
    for (size_t g = 0; g < reach->groups_count; g++) {
        struct reach_group *group = &reach->groups[g];
        if (group->size == 1)
            group->window = *window_of(reach, group->kinds[0], 1);
        else if (new_window(reach, &group->window) < 0)
            return -ENOMEM;
    }
    return new_window(reach, &reach->ingress);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

/* far[i]: the last cut to which a device's memory allows a stage from i. It never falls: what fits
 * still fits without its first layer. */
static void find_memory_far(const struct cost *cost, size_t device, uint32_t *far) {
    size_t layers = cost_network(cost)->layers, last = 0;
    uint64_t memory = cost_device(cost, device)->memory;
    bool all = cost_memory(cost, device, 0, layers) <= memory;
    for (size_t i = 0; i < layers; i++) {
        if (last < i)
            last = i;
        while (last < layers && (all || cost_memory(cost, device, i, last + 1) <= memory))
            last++;
        far[i] = (uint32_t)last;
    }
}

/* ---- work --------------------------------------------------------------------------------------
 */

/* Layers' times in a unit for all devices: what a bound on unused devices is counted in. */
static void add_up_work(struct reach *reach) {
    size_t count = cost_devices_count(reach->cost);
    for (size_t i = 0; i < reach->layers; i++) {
        double sum = 0;
        for (size_t d = 0; d < count; d++)
            sum += cost_device(reach->cost, d)->layer_us[i];
        reach->work[i + 1] = reach->work[i] + sum / (double)count;
    }
}

/* The most work that a window holds. */
static double most_work(const struct reach *reach, const struct reach_window *window) {
    double most = 0;
    for (size_t i = 0; i < reach->layers; i++) {
        double work = reach->work[window->far[i]] - reach->work[i];
        most = work > most ? work : most;
    }
    return most;
}

/* A group's stage is no longer than any member's window, so no longer than their mean: each member
 * brings its window's share. */
static void set_most(struct reach *reach, size_t kind) {
    reach->kinds[kind].most = 0;
    for (size_t r = 1; r <= reach->max_replicas; r++) {
        double most = most_work(reach, window_of(reach, kind, r)) / (double)r;
        if (most > reach->kinds[kind].most)
            reach->kinds[kind].most = most;
    }
}

/* Work that the devices which a state leaves can do at most; a little more, for rounding. */
static double work_left(const struct reach *reach) {
    double sum = 0;
    for (size_t k = 0; k < reach->kinds_count; k++)
        sum += (double)(reach->kinds[k].count - reach->used[k]) * reach->kinds[k].most;
    return sum * (1 + 1e-9);
}

/* ---- making it ---------------------------------------------------------------------------------
 */

static int fail_size(const struct reach *reach, struct err *err) {
    return err_set(
        err, -E2BIG,
        "%zu devices of %zu different kinds are too many for an exact plan: make more of "
        "them equal, or name fewer",
        cost_devices_count(reach->cost), reach->kinds_count);
}

static int sort_ends(struct reach *reach) {
    int rc = 0;
    for (size_t k = 0; rc == 0 && k <= reach->kinds_count; k++)
        rc = ends_init(&reach->ends[k], reach->cost,
                       k < reach->kinds_count ? reach->kinds[k].devices[0] : 0, reach->words);
    return rc;
}

/* The cut before each from which a stage of some kind takes less, wherever it ends. */
static void find_begin_before(struct reach *reach) {
    uint32_t *before = reach->begin_before;
    for (size_t i = 0; i < reach->layers; i++)
        before[i] = UINT32_MAX;
    for (size_t k = 0; k < reach->kinds_count; k++) {
        size_t device = reach->kinds[k].devices[0];
        for (size_t i = 1; reach->ends[k].order && i < reach->layers; i++) {
            double begin = cost_begin_us(reach->cost, device, i);
            uint32_t x = (uint32_t)i - 1;
            while (x != UINT32_MAX && (before[i] == UINT32_MAX || x > before[i]) &&
                   cost_begin_us(reach->cost, device, x) <= begin)
                x = x > 0 ? x - 1 : UINT32_MAX;
            if (x != UINT32_MAX && (before[i] == UINT32_MAX || x > before[i]))
                before[i] = x;
        }
    }
}

static int allocate(struct reach *reach) {
    size_t layers = reach->layers, kinds = reach->kinds_count;
    reach->memory_far = calloc((kinds + 1) * layers, sizeof(*reach->memory_far));
    reach->level = calloc(layers, sizeof(*reach->level));
    reach->level_before = calloc(layers, sizeof(*reach->level_before));
    reach->begin_before = calloc(layers, sizeof(*reach->begin_before));
    reach->previous_wider = calloc(layers, sizeof(*reach->previous_wider));
    reach->cuts = calloc(layers, sizeof(*reach->cuts));
    reach->ends = calloc(kinds + 1, sizeof(*reach->ends));
    reach->used = calloc(kinds + 1, sizeof(*reach->used));
    reach->work = calloc(layers + 1, sizeof(*reach->work));
    reach->reached = calloc(reach->states * reach->words, sizeof(*reach->reached));
    if (!reach->memory_far || !reach->level || !reach->level_before || !reach->begin_before ||
        !reach->previous_wider || !reach->cuts || !reach->ends || !reach->used || !reach->work ||
        !reach->reached)
        return -ENOMEM;
    int rc = make_groups(reach);
    if (rc < 0 || reach->max_replicas > 1)
        return rc;
    reach->tops = calloc(reach->states, sizeof(*reach->tops));
    reach->farthest = calloc((reach->groups_count + 1) * layers, sizeof(*reach->farthest));
    return reach->tops && reach->farthest ? 0 : -ENOMEM;
}

int reach_new(const struct cost *cost, size_t max_replicas, struct reach **ret_reach,
              struct err *err) {
    struct reach *reach = calloc(1, sizeof(*reach));
    int rc = -ENOMEM;
    if (!reach)
        goto fail;
    reach->cost = cost;
    reach->layers = cost_network(cost)->layers;
    reach->words = reach->layers / 64 + 1;
    reach->max_replicas = max_replicas;
    if (find_kinds(reach) < 0)
        goto fail;
    if (!count_states(reach) || !add_all_groups(reach) ||
        reach->states > STEPS_MAX / (reach->groups_count + 1)) {
        rc = fail_size(reach, err);
        reach_free(reach);
        return rc;
    }
    if (allocate(reach) < 0)
        goto fail;
    for (size_t k = 0; k < reach->kinds_count; k++)
        find_memory_far(cost, reach->kinds[k].devices[0], reach->memory_far + k * reach->layers);
    rc = sort_ends(reach);
    if (rc == -E2BIG) {
        reach_free(reach);
        return err_set(err, rc,
                       "a network of %zu layers is too large to plan with what messages cost",
                       cost_network(cost)->layers);
    }
    if (rc < 0)
        goto fail;
    find_begin_before(reach);
    add_up_work(reach);
    find_memory_far(cost, 0, reach->memory_far + reach->kinds_count * reach->layers);
    *ret_reach = reach;
    return 0;
fail:
    reach_free(reach);
    return err_set(err, rc, "no memory for a plan");
}

void reach_free(struct reach *reach) {
    if (!reach)
        return;
    for (size_t g = 0; reach->groups && g < reach->groups_count; g++)
        if (reach->groups[g].size > 1)
            free_window(&reach->groups[g].window);
    for (size_t i = 0; reach->windows && i < reach->kinds_count * reach->max_replicas; i++)
        free_window(&reach->windows[i]);
    for (size_t k = 0; k < reach->kinds_count; k++)
        free(reach->kinds[k].devices);
    free_window(&reach->ingress);
    free(reach->windows);
    free(reach->groups);
    free(reach->kinds);
    free(reach->memory_far);
    free(reach->level);
    free(reach->level_before);
    free(reach->begin_before);
    free(reach->previous_wider);
    free(reach->cuts);
    for (size_t k = 0; reach->ends && k <= reach->kinds_count; k++)
        ends_fini(&reach->ends[k]);
    free(reach->ends);
    free(reach->reached);
    free(reach->tops);
    free(reach->farthest);
    free(reach->used);
    free(reach->work);
    free(reach);
}

/* ---- windows of a period -----------------------------------------------------------------------
 */

/* The highest cut of set that is not above at, or UINT32_MAX. */
static uint32_t highest(const uint64_t *set, uint32_t at) {
    size_t w = at / 64;
    uint64_t bits = set[w] & UINT64_MAX >> (63 - at % 64);
    while (!bits) {
        if (w-- == 0)
            return UINT32_MAX;
        bits = set[w];
    }
    return (uint32_t)(w * 64 + 63 - (size_t)__builtin_clzll(bits));
}

static void put(uint64_t *set, size_t cut, bool in) {
    set[cut / 64] |= (uint64_t)in << cut % 64;
}

/* The window of a device that runs every replicas'th frame. Every comparison is of the very
 * expression that cost_evaluate() computes, so that a line found keeps the period to the last bit.
 */
static void set_window(const struct reach *reach, size_t kind, size_t replicas, double period,
                       struct reach_window *window) {
    size_t device = kind < reach->kinds_count ? reach->kinds[kind].devices[0] : 0;
    const struct ends *ends = &reach->ends[kind];
    const uint32_t *memory_far = reach->memory_far + kind * reach->layers;
    const struct cost_device *at = cost_device(reach->cost, device);
    const uint64_t *cuts = cost_network(reach->cost)->cut_bytes;
    double results = (double)cuts[reach->layers], share = (double)replicas;
    bool is_ingress = device == 0;
    memset(window->in, 0, 3 * reach->words * sizeof(*window->in));
    for (size_t i = 0, last = 0; i < reach->layers; i++) {
        double bytes = (double)cuts[i];
        if (ends->order) {
            size_t count =
                ends_count(ends, reach->cost, device, i, (double)at->workers * share, period);
            uint32_t far = highest(ends_set(ends, count), memory_far[i]);
            window->count[i] = (uint32_t)count;
            last = far == UINT32_MAX || far < i ? i : far;
        }
        last = last < i ? i : last;
        while (!ends->order && last < memory_far[i] &&
               cost_time_us(reach->cost, device, i, last + 1) / ((double)at->workers * share) <=
                   period)
            last++;
        window->far[i] = (uint32_t)last;
        put(window->in, i, (bytes + results) / (at->receive_rate * share) <= period);
        put(window->last_in, i, bytes / (at->receive_rate * share) <= period);
        put(window->out, i,
            (bytes + (is_ingress ? 0 : results)) / (at->send_rate * share) <= period);
    }
    window->last_out = results / (at->send_rate * share) <= period;
}

/* What all members can do. */
static void combine(const struct reach *reach, struct reach_group *group) {
    struct reach_window *window = &group->window;
    for (size_t m = 0; m < group->size; m++) {
        const struct reach_window *member = window_of(reach, group->kinds[m], group->size);
        for (size_t i = 0; i < reach->layers; i++)
            if (m == 0 || member->far[i] < window->far[i])
                window->far[i] = member->far[i];
        for (size_t w = 0; w < 3 * reach->words; w++)
            window->in[w] = m == 0 ? member->in[w] : window->in[w] & member->in[w];
        window->last_out = (m == 0 || window->last_out) && member->last_out;
    }
}

/* Levels: may-start tests compare a cut's bytes with a bound, so for any two cuts one passes all
 * that the other passes, and the number of tests passed tells which. */
static void set_levels(struct reach *reach) {
    size_t windows = reach->kinds_count * reach->max_replicas;
    for (size_t i = 0; i < reach->layers; i++) {
        uint32_t level = 0;
        for (size_t w = 0; w < windows; w++)
            level += reach_has(reach->windows[w].in, i) + reach_has(reach->windows[w].last_in, i);
        reach->level[i] = level;
        uint32_t at = i > 0 ? (uint32_t)(i - 1) : UINT32_MAX, begin = reach->begin_before[i];
        while (at != UINT32_MAX && reach->level[at] <= level)
            at = reach->level_before[at];
        reach->level_before[i] = at;
        bool is_later = begin != UINT32_MAX && (at == UINT32_MAX || begin > at);
        reach->previous_wider[i] = is_later ? begin : at;
    }
}

/* Whether each cut where anybody may start replaces all before it: as where all ports are equal, or
 * no limit, and messages cost nothing. */
static bool find_single(const struct reach *reach) {
    for (size_t k = 0; k < reach->kinds_count; k++)
        if (reach->ends[k].order)
            return false;
    for (size_t i = 0; i < reach->layers; i++)
        if (reach->level[i] && reach->previous_wider[i] != UINT32_MAX)
            return false;
    return reach->tops;
}

static void set_farthest(struct reach *reach) {
    for (size_t g = 0; g < reach->groups_count; g++) {
        const struct reach_window *window = &reach->groups[g].window;
        uint32_t *farthest = reach->farthest + g * reach->layers, end = 0, passed = 0;
        for (uint32_t i = 0; i < reach->layers; i++) {
            for (; passed < reach->layers && passed <= window->far[i]; passed++)
                if (reach_has(window->out, passed) && reach->level[passed])
                    end = passed;
            farthest[i] = reach_has(window->in, i) && end > i ? end : 0;
        }
    }
}

void reach_set_period(struct reach *reach, double period_us) {
    reach->period_us = period_us;
    for (size_t k = 0; k < reach->kinds_count; k++)
        for (size_t r = 1; r <= reach->max_replicas; r++)
            set_window(reach, k, r, period_us, window_of(reach, k, r));
    for (size_t k = 0; k < reach->kinds_count; k++)
        set_most(reach, k);
    set_window(reach, reach->kinds_count, 1, period_us, &reach->ingress);
    for (size_t g = 0; g < reach->groups_count; g++) {
        struct reach_group *group = &reach->groups[g];
        if (group->size > 1)
            combine(reach, group);
        else
            group->window.last_out = window_of(reach, group->kinds[0], 1)->last_out;
    }
    set_levels(reach);
    reach->is_single = find_single(reach);
    if (reach->is_single)
        set_farthest(reach);
}

/* ---- the decision ------------------------------------------------------------------------------
 */

/* The ends that member m of a group (NULL: the ingress) may have from a cut; NULL: up to far. */
static const uint64_t *ends_of(const struct reach *reach, const struct reach_group *group, size_t m,
                               size_t first) {
    size_t kind = group ? group->kinds[m] : reach->kinds_count;
    const struct ends *ends = &reach->ends[kind];
    const struct reach_window *window =
        group ? window_of(reach, kind, group->size) : &reach->ingress;
    return ends->order ? ends_set(ends, window->count[first]) : NULL;
}

bool reach_may_end(const struct reach *reach, const struct reach_group *group, size_t first,
                   size_t last) {
    const struct reach_window *window = group ? &group->window : &reach->ingress;
    size_t members = group ? group->size : 1;
    if (window->far[first] < last)
        return false;
    for (size_t m = 0; m < members; m++) {
        const uint64_t *ends = ends_of(reach, group, m, first);
        if (ends && !reach_has(ends, last))
            return false;
    }
    return true;
}

/* Adds the cuts at which a stage of a group (NULL: the ingress) from `start` may end, those that
 * lie in (after, until]. */
static void add_ends(const struct reach *reach, uint64_t *to, const struct reach_group *group,
                     size_t start, size_t after, size_t until) {
    const struct reach_window *window = group ? &group->window : &reach->ingress;
    size_t first = (after + 1) / 64, last = until / 64, members = group ? group->size : 1;
    const uint64_t *ends[PLANNER_REPLICAS_MAX];
    for (size_t m = 0; m < members; m++)
        ends[m] = ends_of(reach, group, m, start);
    for (size_t w = first; w <= last; w++) {
        uint64_t mask = window->out[w];
        for (size_t m = 0; m < members; m++)
            mask &= ends[m] ? ends[m][w] : UINT64_MAX;
        if (w == first)
            mask &= UINT64_MAX << (after + 1) % 64;
        if (w == last)
            mask &= UINT64_MAX >> (63 - until % 64);
        to[w] |= mask;
    }
}

/* Takes the cuts between two out of a set. */
static void drop_between(uint64_t *set, size_t after, size_t before) {
    if (before <= after + 1)
        return;
    size_t first = (after + 1) / 64, last = (before - 1) / 64;
    for (size_t w = first; w <= last; w++) {
        uint64_t mask = UINT64_MAX;
        if (w == first)
            mask &= UINT64_MAX << (after + 1) % 64;
        if (w == last)
            mask &= UINT64_MAX >> (63 - (before - 1) % 64);
        set[w] &= ~mask;
    }
}

/* Drops each cut that a later one of the set replaces: whatever can go on from the earlier, or
 * passes through cuts between them, can go on from the later one. Returns the highest cut left, or
 * UINT32_MAX for an empty set. */
static uint32_t drop_replaced(const struct reach *reach, uint64_t *set) {
    uint32_t top = highest(set, (uint32_t)reach->layers - 1), at = top;
    while (at != UINT32_MAX) {
        uint32_t next;
        if (reach->level[at]) {
            uint32_t stop = reach->previous_wider[at];
            drop_between(set, stop == UINT32_MAX ? 0 : stop, at);
            next = stop == UINT32_MAX ? UINT32_MAX : highest(set, stop);
        } else { /* nobody can go on from there */
            set[at / 64] &= ~(UINT64_C(1) << at % 64);
            next = at > 0 ? highest(set, at - 1) : UINT32_MAX;
            top = at == top ? next : top;
        }
        at = next;
    }
    return top;
}

static bool group_fits(const struct reach *reach, const struct reach_group *group) {
    if (group->size == 1)
        return reach->used[group->kinds[0]] < reach->kinds[group->kinds[0]].count;
    for (size_t i = 0, same = 1; i < group->size; i++) {
        size_t k = group->kinds[i];
        same = i > 0 && group->kinds[i - 1] == k ? same + 1 : 1;
        if (reach->used[k] + same > reach->kinds[k].count)
            return false;
    }
    return true;
}

/* Whether the group can run everything from a cut. */
static bool ends(const struct reach *reach, const struct reach_window *window, size_t from) {
    return window->far[from] == reach->layers && window->last_out &&
           reach_has(window->last_in, from);
}

/* Where a decision ended: state and cut before the last stage, and who runs that. */
struct finish {
    size_t state;
    uint32_t cut;
    const struct reach_group *group;
};

/* Lists the cuts of a state, from the highest down, but for those from which more work is left than
 * the devices left can do. */
static size_t list_cuts(struct reach *reach, size_t state, uint32_t top) {
    double least = reach->work[reach->layers] - work_left(reach);
    const uint64_t *from = reach->reached + state * reach->words;
    size_t count = 0;
    for (size_t w = top / 64 + 1; w-- > 0;) {
        for (uint64_t bits = from[w]; bits;) {
            uint32_t bit = 63 - (uint32_t)__builtin_clzll(bits), i = (uint32_t)(w * 64) + bit;
            if (reach->work[i] < least)
                return count;
            reach->cuts[count++] = i;
            bits ^= UINT64_C(1) << bit;
        }
    }
    return count;
}

/* Whether far alone says where the stages of a group may end; then it does not fall. */
static bool far_rises(const struct reach *reach, const struct reach_group *group) {
    for (size_t m = 0; m < group->size; m++)
        if (reach->ends[group->kinds[m]].order)
            return false;
    return true;
}

/* Adds where a group leads to from the first count cuts of the list. What a later cut has added
 * is not added again where far does not fall. */
static void add_group(const struct reach *reach, uint64_t *to, const struct reach_group *group,
                      size_t count, bool rises) {
    const struct reach_window *window = &group->window;
    size_t added = reach->layers - 1;
    for (size_t c = 0; c < count; c++) {
        size_t i = reach->cuts[c], until = window->far[i] < added ? window->far[i] : added;
        if (until <= i || !reach_has(window->in, i))
            continue;
        add_ends(reach, to, group, i, i, until);
        added = rises ? i : added;
    }
}

/* Adds what the cuts of a state lead to. True when one leads to the end. */
static bool expand(struct reach *reach, size_t state, uint32_t top, struct finish *finish) {
    size_t count = list_cuts(reach, state, top);
    for (size_t g = 0; count > 0 && g < reach->groups_count; g++) {
        const struct reach_group *group = &reach->groups[g];
        if (!group_fits(reach, group))
            continue;
        bool rises = far_rises(reach, group);
        for (size_t c = 0; group->window.last_out && c < count; c++) {
            uint32_t i = reach->cuts[c];
            if (rises && group->window.far[i] < reach->layers)
                break; /* nor does it reach the end from an earlier one */
            if (ends(reach, &group->window, i)) {
                *finish = (struct finish){.state = state, .cut = i, .group = group};
                return true;
            }
        }
        add_group(reach, reach->reached + (state + group->stride) * reach->words, group, count,
                  rises);
    }
    return false;
}

/* The next state in reach->used. */
static void count_on(struct reach *reach) {
    for (size_t k = 0; k < reach->kinds_count; k++) {
        if (++reach->used[k] <= reach->kinds[k].count)
            return;
        reach->used[k] = 0;
    }
}

static void decode_state(struct reach *reach, size_t state) {
    for (size_t k = 0; k < reach->kinds_count; k++)
        reach->used[k] = state / reach->kinds[k].stride % (reach->kinds[k].count + 1);
}

/* The cuts at which the ingress may end its stage. */
static void start(struct reach *reach) {
    const struct cost_network *network = cost_network(reach->cost);
    double results = (double)network->cut_bytes[reach->layers];
    bool takes_results = results / cost_device(reach->cost, 0)->receive_rate <= reach->period_us;
    size_t far = reach->ingress.far[0] < reach->layers ? reach->ingress.far[0] : reach->layers - 1;
    memset(reach->reached, 0, reach->states * reach->words * sizeof(*reach->reached));
    memset(reach->used, 0, reach->kinds_count * sizeof(*reach->used));
    if (takes_results && far >= network->first_cut)
        add_ends(reach, reach->reached, NULL, 0, network->first_cut - 1, far);
}

/* Whether a stage of the group leads from some cut of a state to cut `to`. */
static bool leads_to(const struct reach *reach, const struct reach_group *group, size_t state,
                     uint32_t to, uint32_t *ret_from) {
    const uint64_t *set = reach->reached + state * reach->words;
    const struct reach_window *window = &group->window;
    if (!reach_has(window->out, to))
        return false;
    for (uint32_t i = highest(set, to - 1); i != UINT32_MAX;
         i = i > 0 ? highest(set, i - 1) : UINT32_MAX) {
        if (reach_has(window->in, i) && reach_may_end(reach, group, i, to)) {
            *ret_from = i;
            return true;
        }
    }
    return false;
}

/* A group that may have been the last to run before state and cut; there is one. That it fits the
 * smaller state means that adding it carries over no digit, so that it leads to this state. */
static const struct reach_group *find_before(struct reach *reach, size_t state, uint32_t cut,
                                             uint32_t *ret_from) {
    for (size_t g = 0; g < reach->groups_count; g++) {
        const struct reach_group *group = &reach->groups[g];
        if (group->stride > state)
            continue;
        decode_state(reach, state - group->stride);
        if (group_fits(reach, group) &&
            leads_to(reach, group, state - group->stride, cut, ret_from))
            return group;
    }
    return NULL;
}

/* ---- lines -------------------------------------------------------------------------------------
 */

struct cost_line *reach_make_line(struct reach *reach, const struct reach_group *const *groups,
                                  const size_t *cuts, size_t count) {
    struct cost_line *line = calloc(1, sizeof(*line));
    if (!line || !(line->stages = calloc(count, sizeof(*line->stages))))
        goto fail;
    memset(reach->used, 0, reach->kinds_count * sizeof(*reach->used));
    for (size_t k = 0; k < count; k++) {
        struct cost_stage *stage = &line->stages[line->count++];
        stage->first = k > 0 ? cuts[k - 1] : 0;
        stage->last = cuts[k];
        stage->replicas = k > 0 ? groups[k]->size : 1;
        stage->devices = calloc(stage->replicas, sizeof(*stage->devices));
        if (!stage->devices)
            goto fail;
        for (size_t i = 0; k > 0 && i < stage->replicas; i++) {
            size_t kind = groups[k]->kinds[i];
            stage->devices[i] = reach->kinds[kind].devices[reach->used[kind]++];
        }
    }
    cost_evaluate(reach->cost, line);
    return line;
fail:
    cost_line_free(line);
    return NULL;
}

/* The stages that led to a finish, found backwards. */
static int trace(struct reach *reach, const struct finish *finish, struct cost_line **ret_line) {
    size_t most = cost_devices_count(reach->cost), at = most;
    const struct reach_group **groups = calloc(most, sizeof(*groups));
    size_t *cuts = calloc(most, sizeof(*cuts));
    struct cost_line *line = NULL;
    if (groups && cuts) {
        size_t state = finish->state;
        uint32_t cut = finish->cut;
        cuts[--at] = reach->layers;
        groups[at] = finish->group;
        while (cut > 0) {
            cuts[--at] = cut;
            groups[at] = state > 0 ? find_before(reach, state, cut, &cut) : NULL;
            if (groups[at])
                state -= groups[at]->stride;
            else
                cut = 0;
        }
        line = reach_make_line(reach, groups + at, cuts + at, most - at);
    }
    free(groups);
    free(cuts);
    if (!line)
        return -ENOMEM;
    *ret_line = line;
    return 1;
}

/* Adds where the only cut of a state leads to. True when it leads to the end. */
static bool expand_top(struct reach *reach, size_t state, struct finish *finish) {
    uint32_t top = reach->tops[state];
    if (reach->work[top] < reach->work[reach->layers] - work_left(reach))
        return false;
    for (size_t g = 0; g < reach->groups_count; g++) {
        const struct reach_group *group = &reach->groups[g];
        if (!group_fits(reach, group))
            continue;
        if (ends(reach, &group->window, top)) {
            *finish = (struct finish){.state = state, .cut = top, .group = group};
            return true;
        }
        uint32_t *to = reach->tops + state + group->stride;
        uint32_t end = reach->farthest[g * reach->layers + top];
        *to = end > *to ? end : *to;
    }
    return false;
}

/* The decision where is_single. */
static int find_line_by_tops(struct reach *reach, struct cost_line **ret_line) {
    struct finish finish = {.cut = 0};
    uint32_t top = drop_replaced(reach, reach->reached);
    memset(reach->tops, 0, reach->states * sizeof(*reach->tops));
    reach->tops[0] = top == UINT32_MAX ? 0 : top;
    for (size_t state = 0; state < reach->states; state++) {
        if (reach->tops[state] && expand_top(reach, state, &finish)) {
            for (size_t s = 0; s <= state; s++)
                if (reach->tops[s])
                    put(reach->reached + s * reach->words, reach->tops[s], true);
            return trace(reach, &finish, ret_line);
        }
        count_on(reach);
    }
    return 0;
}

int reach_find_line(struct reach *reach, struct cost_line **ret_line) {
    struct finish finish = {.cut = 0};
    if (reach->ingress.far[0] == reach->layers)
        return trace(reach, &finish, ret_line);
    start(reach);
    if (reach->is_single)
        return find_line_by_tops(reach, ret_line);
    for (size_t state = 0; state < reach->states; state++) {
        uint32_t top = drop_replaced(reach, reach->reached + state * reach->words);
        if (top != UINT32_MAX && expand(reach, state, top, &finish))
            return trace(reach, &finish, ret_line);
        count_on(reach);
    }
    return 0;
}
