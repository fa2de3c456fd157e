/* Status of the line: a client asks a device, the device asks the next one, answers come back and
 * each device puts its own stage in front. */
#ifndef CONVOY_DAEMON_CONTROL_STATUS_H
#define CONVOY_DAEMON_CONTROL_STATUS_H

#include "convoy.pb-c.h"

#include <stdint.h>
#include <sys/queue.h>

#define STATUS_REQUESTS_MAX                                                                        \
    64 /* under way at a device; one more is answered without asking behind */

struct device;
struct link;
struct peer;
struct status_pending;

TAILQ_HEAD(status_list, status_pending);

/* A peer asks; its token comes back with the answer, which follows now or within heartbeat_ms. */
void status_request(struct device *device, struct peer *peer, const Convoy__StatusRequest *request);

/* This device's own entry of a status: everything in it is borrowed, and but for `state`, which is
 * written to a buffer of the caller's, valid until the loop goes on. Plans are not listed. */
void status_own(struct device *device, Convoy__StageStatus *ret_stage, char *state,
                size_t state_size);

/* The device behind link has answered. */
void status_answered(struct device *device, struct link *link, const Convoy__Status *status);

/* No answer will come from there; no answer is wanted there. */
void status_link_lost(struct device *device, struct link *link);
void status_peer_gone(struct device *device, struct peer *peer);

/* Answers what has waited too long; every tick. */
void status_tick(struct device *device, uint64_t now_us);

/* "ready", "waiting for NODE", "idle", "draining": the state of this device in a few words, in buf.
 */
const char *status_state(const struct device *device, char *buf, size_t size);

#endif
