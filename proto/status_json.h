/* What a Status says, for people and programs: the same in `convoyctl status` and on the daemon's
 * page. Pure; any thread. */
#ifndef CONVOY_PROTO_STATUS_JSON_H
#define CONVOY_PROTO_STATUS_JSON_H

#include "convoy.pb-c.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* The stage or link that takes the longest per frame of the line: devices that share a stage take
 * as long as all of them together. */
struct status_bottleneck {
    size_t stage; /* its entry in the status; of a shared one the first device's */
    bool is_link; /* the way to the next stage, not the computing */
    double ms;    /* per frame; 0: nothing has been measured */
};

struct status_bottleneck status_find_bottleneck(const Convoy__Status *status);

/* True when a device is not ready, but another one of its stage is: the line goes on without it. */
bool status_is_replaced(const Convoy__Status *status, size_t stage);

/* The stage for which the line stands still: the last that is not ready, nor replaced; NULL: none.
 */
const Convoy__StageStatus *status_find_blocker(const Convoy__Status *status);

/* As convoyctl(1) documents it. The caller's reference; incomplete where memory ran out. */
json_t *status_json(const Convoy__Status *status);

#endif
