/* What a device takes at most of everything that peers, clients and files could make much of: the
 * map `limits:` of a configuration. What happens at each limit stands in docs/operations.md. Limits
 * of the wire itself are constants: proto/message.h. */
#ifndef CONVOY_CONFIG_LIMITS_H
#define CONVOY_CONFIG_LIMITS_H

#include "config/schema.h"

#define LIMITS_GREETINGS_MAX 1024 /* upper bound of `greetings` */
#define LIMITS_PLANS_MAX     16   /* of `plans` */
#define LIMITS_PARTS_MAX     4096 /* of `parts` */

struct config_limits {
    int greetings;         /* connections that have not said Hello */
    uint64_t hello_ms;     /* how long one has for Hello, a link for its Welcome */
    uint64_t write_ms;     /* a peer that takes nothing of what it is sent for so long is gone */
    int devices;           /* devices in front of this one */
    int plans;             /* plans held at once */
    int messages;          /* small messages that wait for a peer that does not read */
    int status_requests;   /* requests for status under way */
    int http_connections;  /* to the page, status, metrics, health */
    int parts;             /* files in the cache */
    int attempts;          /* times that a frame is sent again before its client is told */
    uint64_t frame_memory; /* bytes of clients' frames and their answers, over all sessions */
};

/* Reads `limits:` into the struct config_limits at field; without it every limit has its default.
 */
schema_read limits_read;

/* The table of its keys; for tests of the documents. Static. */
const struct schema_key *limits_keys(size_t *ret_count);

#endif
