/* The plans a device holds, newest first. Pure: no socket, no clock of its own.
 *
 * A plan is ready here when its stage is prepared and the device behind has announced it (or there
 * is none behind). The ingress tags frames with the newest plan that is ready, so that a line whose
 * devices reload one after the other goes on with the plan that all of them still hold. Older plans
 * are kept until frames have come under the newest and none has come under them for a grace period:
 * a device that was reloaded first must serve those that were not, for as long as that takes. */
#ifndef CONVOY_DAEMON_CONTROL_PLANSET_H
#define CONVOY_DAEMON_CONTROL_PLANSET_H

#include "daemon/control/held.h"

#define PLANSET_MAX LIMITS_PLANS_MAX /* whatever the limit */

struct planset {
    struct held *plans[PLANSET_MAX]; /* newest first, each with a reference */
    size_t count;
    size_t limit; /* of count, at most PLANSET_MAX; 0: PLANSET_MAX */
    bool retired; /* the configuration names no plan any more */
};

/* Adopts held as the newest plan and takes the caller's reference. When the set has its id already,
 * that plan becomes the newest, takes over the addresses of held, and held goes. Returns the plan
 * that is in the set. *ret_dropped: the plan that had to make room, with its reference, or NULL. */
struct held *planset_add(struct planset *set, struct held *held, uint64_t now_us,
                         struct held **ret_dropped);

/* Takes a plan out that is too many since the limit was lowered, never the newest, for the caller
 * to release; NULL: none is. */
struct held *planset_take_excess(struct planset *set);

/* The configuration names no plan any more: those that are left are old ones, but for a newest one
 * that is deployed. */
void planset_retire(struct planset *set);

struct held *planset_find(const struct planset *set, const uint8_t *id, size_t size);

/* The newest plan; NULL when there is none. */
struct held *planset_newest(const struct planset *set);

/* The newest plan that is ready and whose first stage is here; NULL: none. */
struct held *planset_active(const struct planset *set);

/* The newest plan whose first stage is here, ready or not: what a client's frame must look like
 * when none is active. */
struct held *planset_ingress(const struct planset *set);

/* The ids of the plans whose frames may come from the device before. Returns how many. */
size_t planset_ready_ids(const struct planset *set, const uint8_t *ret_ids[PLANSET_MAX]);

/* Takes one plan out that is no longer needed, for the caller to release; NULL: all are. */
struct held *planset_take_unneeded(struct planset *set, uint64_t now_us, uint64_t grace_us);

/* Takes a plan of the set out, for the caller to release. */
void planset_take(struct planset *set, struct held *held);

/* Releases every plan. */
void planset_clear(struct planset *set);

#endif
