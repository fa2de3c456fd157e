/* One question to a device: its status and that of every device behind it. */
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

#endif
