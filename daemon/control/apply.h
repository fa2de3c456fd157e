/* A client asks the ingress to deploy a plan: Apply and its answer. */
#ifndef CONVOY_DAEMON_CONTROL_APPLY_H
#define CONVOY_DAEMON_CONTROL_APPLY_H

#include "proto/message.h"

struct device;
struct peer;

/* The one that is under way. */
struct apply {
    struct peer *peer; /* who asked; NULL: nobody, or it has gone */
    uint64_t token;
};

/* A client asks. It is answered with Applied, now or when the deployment is over. */
void apply_request(struct device *device, struct peer *peer, const Convoy__Apply *request);

/* The connection is gone; what it asked for goes on. */
void apply_peer_gone(struct device *device, const struct peer *peer);

#endif
