/* Status of the line: somebody asks a device, the device asks the next one, answers come back and
 * each device puts its own stage in front. */
#ifndef CONVOY_DAEMON_CONTROL_STATUS_H
#define CONVOY_DAEMON_CONTROL_STATUS_H

#include "convoy.pb-c.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct device;
struct link;
struct peer;
struct status_pending;

TAILQ_HEAD(status_list, status_pending);

/* The answer, valid during the call; NULL when there is no memory for it. token is the asker's. */
typedef void status_done(void *arg, uint64_t token, const Convoy__Status *status);

/* Asks for this device and those behind it, or for this one alone: done is called once, now or
 * within heartbeat_ms, unless status_forget() comes before. */
void status_ask(struct device *device, bool alone, uint64_t token, status_done *done, void *arg);

/* Who asked with arg wants no answer any more. */
void status_forget(struct device *device, const void *arg);

/* A peer asks; its token comes back with the answer. */
void status_request(struct device *device, struct peer *peer, const Convoy__StatusRequest *request);

/* This device's own entry of a status: everything in it is borrowed, and but for `state`, which is
 * written to a buffer of the caller's, valid until the loop goes on. Plans
 * and links are not listed. */
void status_own(struct device *device, Convoy__StageStatus *ret_stage, char *state,
                size_t state_size);

/* The device behind link has answered. */
void status_answered(struct device *device, struct link *link, const Convoy__Status *status);

/* No answer will come from there. */
void status_link_lost(struct device *device, struct link *link);

/* Answers what has waited too long; every tick. */
void status_tick(struct device *device, uint64_t now_us);

/* "ready", "waiting for NODE", "idle", "draining": the state of this device in a few words, in buf.
 */
const char *status_state(const struct device *device, char *buf, size_t size);

/* The devices of the next stage that cannot be used while others of it are: "pi-b", "pi-b and
 * pi-c"; cut short where they do not fit, empty where there are none. Returns buf. */
const char *status_away(const struct device *device, char *buf, size_t size);

#endif
