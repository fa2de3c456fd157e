/* A device that is handed plans: takes Prepare, fetches its part, prepares its stage, holds the
 * plan until it is released. deploy.h is the other side; docs/wire.md ("Deploying") is what
 * travels. One that is asked to measure a model fetches it in the same way.
 *
 * What a peer can make this device spend is bounded: one plan at a time is prepared, one more may
 * wait; a part is refused before it is fetched when it does not fit `cache:`, the disk or the
 * memory that is left; one piece of it, of DEPLOY_CHUNK bytes, is asked for at a time, and a
 * PartChunk that was not asked for ends the connection. */
#ifndef CONVOY_DAEMON_CONTROL_RECRUIT_H
#define CONVOY_DAEMON_CONTROL_RECRUIT_H

#include "daemon/data/pool.h"
#include "proto/message.h"

struct device;
struct peer;
struct recruit;

/* On the loop's thread, as all of this. NULL when there is no memory. */
struct recruit *recruit_new(struct device *device);

/* Gives up what is under way, before builder_close(). The device's pointer is cleared and memory
 * goes when the builder and a write under way have ended. NULL is fine. */
void recruit_close(struct recruit *recruit);

/* An ingress wants a plan to be held. It is answered with Prepared, now or later. */
void recruit_prepare(struct device *device, struct peer *peer, const Convoy__Prepare *prepare);

/* ... and does not need one any more. */
void recruit_release(struct device *device, struct peer *peer, const Convoy__Release *release);

/* Somebody wants to know how long the layers of a model take here. It is answered with Measured. */
void recruit_measure(struct device *device, struct peer *peer, const Convoy__Measure *measure);

/* True when a chunk with a payload of bytes is what was asked for on this connection. */
bool recruit_expects(const struct device *device, const struct peer *peer,
                     const Convoy__PartChunk *chunk, size_t bytes);

/* It has come: takes the reference to payload. */
void recruit_chunk(struct device *device, struct peer *peer, const Convoy__PartChunk *chunk,
                   struct buffer *payload, size_t bytes);

/* The connection is gone; what has come of a part stays on disk. */
void recruit_peer_gone(struct device *device, const struct peer *peer);

#endif
