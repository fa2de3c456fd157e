/* One question to a device: its status and that of every device behind it, or whether it deploys a
 * plan. */
#ifndef CONVOY_CTL_QUERY_H
#define CONVOY_CTL_QUERY_H

#include "base/err.h"
#include "convoy.pb-c.h"

/* Connects to address, asks, waits for the answer for at most timeout_ms. key: the file of the
 * line's key; NULL: CONVOY_KEY's, or not encrypted. 0 with a Status for
 * convoy__status__free_unpacked(status, NULL), or -errno with a sentence that starts with the
 * address. Blocks; any thread. */
int query_status(const char *address, const char *key, int timeout_ms, Convoy__Status **ret_status,
                 struct err *err);

/* Asks address, the first device of a line, to deploy the stages of apply (its token is set here),
 * and waits for the answer as long as it takes while the device says that it lives; timeout_ms is
 * how long it may be silent. 0 with an Applied for convoy__applied__free_unpacked(applied, NULL);
 * else as query_status(). */
int query_apply(const char *address, const char *key, int timeout_ms, Convoy__Apply *apply,
                Convoy__Applied **ret_applied, struct err *err);

#endif
