#include "daemon/control/planset.h"

#include <string.h>

static void remove_at(struct planset *set, size_t at) {
    memmove(&set->plans[at], &set->plans[at + 1], (set->count - at - 1) * sizeof(set->plans[0]));
    set->plans[--set->count] = NULL;
}

static void insert_newest(struct planset *set, struct held *held) {
    memmove(&set->plans[1], &set->plans[0], set->count * sizeof(set->plans[0]));
    set->plans[0] = held;
    set->count++;
}

static size_t index_of(const struct planset *set, const uint8_t *id) {
    size_t i = 0;
    while (i < set->count && memcmp(set->plans[i]->id, id, SHA256_SIZE) != 0)
        i++;
    return i;
}

/* Which plan makes room, of those from `from` on: the oldest that no frame is under, one that leads
 * nowhere before one that the line may live on; or else the oldest. */
static size_t least_needed(const struct planset *set, size_t from) {
    size_t idle = set->count - 1;
    bool found = false;
    for (size_t i = set->count; i-- > from;) {
        if (set->plans[i]->frames > 0)
            continue;
        if (!held_is_ready(set->plans[i]))
            return i;
        if (!found)
            idle = i;
        found = true;
    }
    return idle;
}

static size_t limit_of(const struct planset *set) {
    return set->limit ? set->limit : PLANSET_MAX;
}

struct held *planset_add(struct planset *set, struct held *held, uint64_t now_us,
                         struct held **ret_dropped) {
    size_t at = index_of(set, held->id);
    *ret_dropped = NULL;
    set->retired = false;
    if (at < set->count) {
        struct held *known = set->plans[at];
        struct plan *plan = known->plan;
        known->plan = held->plan; /* the same but for addresses */
        held->plan = plan;
        held_unref(held);
        remove_at(set, at);
        held = known;
    } else if (set->count >= limit_of(set)) {
        at = least_needed(set, 0);
        *ret_dropped = set->plans[at];
        remove_at(set, at);
    }
    held->since_us = now_us;
    insert_newest(set, held);
    return held;
}

struct held *planset_take_excess(struct planset *set) {
    if (set->count <= limit_of(set))
        return NULL;
    size_t at = least_needed(set, 1);
    struct held *held = set->plans[at];
    remove_at(set, at);
    return held;
}

void planset_retire(struct planset *set) {
    set->retired = set->count == 0 || !set->plans[0]->is_deployed;
}

struct held *planset_find(const struct planset *set, const uint8_t *id, size_t size) {
    if (size != SHA256_SIZE)
        return NULL;
    size_t at = index_of(set, id);
    return at < set->count ? set->plans[at] : NULL;
}

struct held *planset_newest(const struct planset *set) {
    return set->count > 0 ? set->plans[0] : NULL;
}

struct held *planset_active(const struct planset *set) {
    for (size_t i = 0; i < set->count; i++)
        if (held_is_first(set->plans[i]) && held_is_ready(set->plans[i]))
            return set->plans[i];
    return NULL;
}

struct held *planset_ingress(const struct planset *set) {
    for (size_t i = 0; i < set->count; i++)
        if (held_is_first(set->plans[i]))
            return set->plans[i];
    return NULL;
}

size_t planset_ready_ids(const struct planset *set, const uint8_t *ret_ids[PLANSET_MAX]) {
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++)
        if (!held_is_first(set->plans[i]) && held_is_ready(set->plans[i]))
            ret_ids[count++] = set->plans[i]->id;
    return count;
}

static bool is_in_use(const struct held *held) {
    return held->used_us != 0 && held->used_us >= held->since_us;
}

struct held *planset_take_unneeded(struct planset *set, uint64_t now_us, uint64_t grace_us) {
    size_t keep = set->retired ? 0 : 1;
    if (set->count == 0 || (!set->retired && !is_in_use(set->plans[0])))
        return NULL;
    for (size_t i = set->count; i-- > keep;) {
        struct held *held = set->plans[i];
        uint64_t last_us = is_in_use(held) ? held->used_us : held->since_us;
        if (held->frames == 0 && now_us - last_us >= grace_us) {
            remove_at(set, i);
            return held;
        }
    }
    return NULL;
}

void planset_take(struct planset *set, struct held *held) {
    remove_at(set, index_of(set, held->id));
}

void planset_clear(struct planset *set) {
    while (set->count > 0) {
        struct held *held = set->plans[0];
        remove_at(set, 0);
        held_unref(held);
    }
}
