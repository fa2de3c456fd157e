/* A connection that was accepted: a client, or the device before this one in a plan. */
#ifndef CONVOY_DAEMON_DATA_PEER_H
#define CONVOY_DAEMON_DATA_PEER_H

#include "daemon/data/frame.h"
#include "daemon/data/session.h"
#include "daemon/net/conn.h"

struct device;
struct peer;

TAILQ_HEAD(peer_list, peer);

/* Takes a connection that waits at a listener. -ENOMEM: logged, and the connection still waits; the
 * listener hears of no other one before somebody has taken it. */
int peer_accept(struct device *device, uv_stream_t *listener);

struct conn *peer_conn(struct peer *peer);
const char *peer_name(const struct peer *peer); /* for logs: "client 127.0.0.1:4711" */

/* Whose frames it sends; only of a peer that may send frames. */
struct origin *peer_origin(struct peer *peer);

/* Sends the credits that are due, if any. */
void peer_grant(struct peer *peer);

/* Another plan is active: a client may have as many frames here as its line can take. */
void peer_resize(struct peer *peer);

/* Tells an upstream device which plans are ready, where that has changed. */
void peer_announce(struct peer *peer);

/* Pings, and ends a connection that is silent or never says Hello; every tick. */
void peer_tick(struct peer *peer, uint64_t now_us);

/* This device's thread was away for so long: what the peer may have said is unread. */
void peer_excuse(struct peer *peer, uint64_t us);

struct peer *peer_next(struct peer *peer); /* in device's list */

#endif
