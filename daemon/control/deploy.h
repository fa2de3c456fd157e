/* The ingress' side of handing out a plan: every other device of it is sent what it needs, all
 * prepare or nothing changes, then the plan is activated between two frames. docs/wire.md
 * ("Deploying") is what travels; recruit.h is the other side.
 *
 * What deploy_run() does, in order:
 *
 *   building    off the loop: opens the configuration's model (or takes the one that a held plan
 *               has), makes the plan, prepares the ingress' own stage, writes a part for each other
 *               device into the cache (cache.h), unless it is there
 *   preparing   connects to each other device (link.h, LINK_CONTROL), sends Prepare, serves its
 *               part, waits for Prepared. A device whose connection breaks may come back within
 *               DEPLOY_AWAY_MS and goes on where it was; the others prepare meanwhile. One that
 *               is connected but says nothing for `prepare_ms` is given up
 *   activating  the plan is adopted (planset.h): the ingress connects to the second device, word
 *               that it is ready comes up the line as for any plan, and new frames go under it.
 *               Frames under the older plan finish under it. At most DEPLOY_READY_MS
 *
 * A failure in any of these ends the deployment: the plan is released on every device, the older
 * one has served all the while, and done is told which devices refused and why.
 *
 * A plan that has become active is the device's current one, for as long as no other is deployed or
 * read from the configuration. Its control links are kept: a device that comes back without the
 * plan (it was restarted) is sent it again, from its own cache where it can. Devices that are in
 * the older plan only are told to release that when the ingress releases it.
 *
 * Everything runs on the loop's thread; files are read and written by libuv's pool, and what is
 * slow by the builder. */
#ifndef CONVOY_DAEMON_CONTROL_DEPLOY_H
#define CONVOY_DAEMON_CONTROL_DEPLOY_H

#include "base/err.h"
#include "base/sha256.h"
#include "proto/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEPLOY_STAGES_MAX 64          /* of a plan that is handed out */
#define DEPLOY_CHUNK      (64u << 10) /* bytes of a part in one message, at most */
#define DEPLOY_AWAY_MS    10000       /* a device may be away for so long in a deployment */
#define DEPLOY_RETRY_MS   2000  /* what the configuration wants is tried again after this long */
#define DEPLOY_READY_MS   10000 /* the line must be ready so soon after all are prepared */

struct device;

/* A device's stage as asked for, in the line's order. The first one's node must be this device. */
struct deploy_stage {
    const char *node;
    const char *address; /* HOST:PORT where the device before it connects, and the ingress, too */
    const char *until_name; /* its last layer by name or index in decimal; NULL: see until */
    size_t until;           /* by index, inclusive. Neither is read of the last stage */
    bool shares;            /* the stage of the device before it, as one of its replicas */
};

/* What became of one device. */
struct deploy_device {
    char *node, *address;
    Convoy__Code
        code;       /* OK: it holds its stage. NO_MEMORY, NOT_SUPPORTED, NO_SPACE, UNREACHABLE .. */
    struct err err; /* why not, in the device's own words; empty when code is OK */
    bool is_bystander;   /* it did not refuse: another device did while it was preparing (BUSY) */
    uint64_t part_bytes; /* its part's size; 0 for the ingress */
    uint64_t sent_bytes; /* of it, over the wire: 0 when the device had it in its cache */
};

struct deploy_outcome {
    Convoy__Code code; /* OK: the plan is active. Else nothing has changed */
    struct err err;    /* why not: names the devices that refused, or what is wrong with the plan */
    uint8_t plan[SHA256_SIZE];           /* zeros where there is none yet */
    const struct deploy_device *devices; /* one per stage; 0 when the plan could not be made */
    size_t devices_count;
};

/* The end of a deployment, exactly once for each deploy_run() that returned 0. Everything is
 * borrowed and valid during the call, which may call deploy_run() again. Not called after
 * deploy_disown() or deploy_close(). */
typedef void deploy_done(void *arg, const struct deploy_outcome *outcome);

/* A plan to be deployed. Everything is copied. */
struct deploy_request {
    const struct deploy_stage *stages;
    size_t count;
    const uint8_t *model_digest; /* SHA-256 that the configuration's model must have; NULL: any */
    bool is_retried;     /* asked for again when it fails: the same failure is logged seldom */
    uint64_t away_ms;    /* a device may be away for so long; 0: DEPLOY_AWAY_MS */
    bool keep_addresses; /* refuse a plan that is held already with another address of a device */
    deploy_done *done;
    void *arg; /* of done */
};

/* Starts to deploy a plan over the configuration's model. 0: done will be called, later. -EBUSY
 * while another deployment is under way, -ENOTSUP when the configuration names no model, -EINVAL
 * for a list that no plan can be made of (count, nodes, addresses), -ENOMEM: with a sentence, and
 * done is not called. */
int deploy_run(struct device *device, const struct deploy_request *request, struct err *err);

/* The deployment under way goes on, but done will not be called, where its arg is that. */
void deploy_disown(struct device *device, const void *arg);

/* True from deploy_run() until done. */
bool deploy_is_busy(const struct device *device);

/* How the last one went, in a sentence for people; empty when there was none. Borrowed until the
 * next one ends. */
const char *deploy_last(const struct device *device);

/* ---- for the rest of the daemon -------------------------------------------------------------- */

struct deploy;
struct link;

/* NULL when there is no memory. */
struct deploy *deploy_new(struct device *device);

/* Drops every deployment and its links, before builder_close(); done is not called. The device's
 * pointer is cleared and memory goes when the builder and reads under way have ended. NULL is fine.
 */
void deploy_close(struct deploy *deploy);

/* The configuration's pipeline, which has just been adopted, is to be handed out (`deploy:`). */
void deploy_configured(struct device *device);

/* A control link is up, or lost. */
void deploy_link_up(struct device *device, struct link *link);
void deploy_link_lost(struct device *device, struct link *link, const char *why);

/* What devices say. */
void deploy_prepared(struct device *device, struct link *link, const Convoy__Prepared *prepared);
void deploy_part_request(struct device *device, struct link *link,
                         const Convoy__PartRequest *request);

/* Which plans are ready may have changed; a plan has left the set. */
void deploy_plans_changed(struct device *device);
void deploy_plan_released(struct device *device, const uint8_t plan[SHA256_SIZE]);

/* What to tell a peer for an errno of preparing a stage: NO_MEMORY, NO_SPACE, ... INTERNAL. */
Convoy__Code deploy_code(int rc);

/* This thread was away for us: that is no device's fault. */
void deploy_excuse(struct device *device, uint64_t us, uint64_t now_us);

/* Time-outs and retries; every tick. */
void deploy_tick(struct device *device, uint64_t now_us);

#endif
