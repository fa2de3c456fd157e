/* An ingress that plans its line itself (`pipeline: auto`): measures the model, finds the best line
 * of itself and its neighbours, has it deployed, and moves the cuts when the world changes. What is
 * known and when it moves is plan/mover.h, handing out is deploy.h; this asks, and says what was
 * decided.
 *
 *   measuring   off the loop: the model is opened, each layer is timed under the load of all
 * workers flying      once a second every neighbour is asked for its own status (on its control
 * link, which is there while this is); times and rates go to the mover; off the loop, the best line
 * is planned; when the mover says so, it is deployed
 *
 * A neighbour counts as there from when its link was measured until that has been lost for a
 * second. The link is measured by a mebibyte of messages, once it is up and again when nothing was
 * seen of its rate for five minutes (of a device that is not used: ten seconds, twenty, ...); what
 * was measured while this device was away for a moment does not count. A line that does less than
 * this device would alone is given up. One that refuses its stage is asked for less (no memory), or
 * left alone for a minute; so is one that has come back and cannot hold the stage that it had.
 *
 * Everything runs on the loop's thread but for the builder's two jobs, of which there is one at a
 * time. */
#ifndef CONVOY_DAEMON_CONTROL_PILOT_H
#define CONVOY_DAEMON_CONTROL_PILOT_H

#include "base/sha256.h"
#include "convoy.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PILOT_DECISIONS_MAX 8

struct device;
struct link;
struct pilot;

/* The configuration has been read (again): starts anew where it says `pipeline: auto`, or stops. */
void pilot_configured(struct device *device);

/* Stops, before deploy_close() and builder_close() where the device does; a deployment goes on, but
 * nothing is decided any more. The device's pointer is cleared; memory goes when no job is under
 * way. */
void pilot_close(struct device *device);

/* A control link is up: a neighbour's is asked on at once. */
void pilot_link_up(struct device *device, const struct link *link);

/* A neighbour that came back cannot hold its stage of a plan that is in use. */
void pilot_refused(struct device *device, const struct link *link, const uint8_t plan[SHA256_SIZE]);

/* A neighbour has answered on its control link. */
void pilot_status(struct device *device, const struct link *link, const Convoy__Status *status);

/* ... and to a Probe on it. */
void pilot_probed(struct device *device, const struct link *link, const Convoy__Probed *probed);

/* This thread was away for us: what it measured meanwhile is not what links can do. */
void pilot_excuse(struct device *device, uint64_t us, uint64_t now_us);

/* Every tick. */
void pilot_tick(struct device *device, uint64_t now_us);

/* The last decisions, oldest first, at most PILOT_DECISIONS_MAX; borrowed until the next tick.
 * Returns how many. */
size_t pilot_decisions(const struct device *device, char **ret_texts);

#endif
