/* How long to wait before the next attempt to connect: doubles from 100 ms up, with jitter, so
 * that a cupboard of devices that lost power together does not call its neighbours in step. Pure.
 */
#ifndef CONVOY_DAEMON_NET_BACKOFF_H
#define CONVOY_DAEMON_NET_BACKOFF_H

#include <stdint.h>

#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS  5000
#define BACKOFF_WANTED_MS                                                                          \
    1000 /* the last one of an ingress to its neighbours: they are few, and used when they come */

struct backoff {
    uint64_t next_ms, last_ms; /* the full wait that the next failure is given; the longest */
    uint64_t state;            /* of the jitter's generator (xorshift64*); never 0 */
};

/* seed: anything that differs between devices. last_ms: the longest wait. */
void backoff_init(struct backoff *backoff, uint64_t seed, uint64_t last_ms);

/* After a success: the next failure waits for the shortest time again. */
void backoff_reset(struct backoff *backoff);

/* The wait after one more failure, in milliseconds: between half and the whole of 100, 200, 400 ...
 * last_ms. */
uint64_t backoff_next(struct backoff *backoff);

#endif
