/* How long to wait before the next attempt to connect: doubles from 100 ms to 5 s, with jitter, so
 * that a cupboard of devices that lost power together does not call its neighbours in step. Pure.
 */
#ifndef CONVOY_DAEMON_NET_BACKOFF_H
#define CONVOY_DAEMON_NET_BACKOFF_H

#include <stdint.h>

#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS  5000

struct backoff {
    uint64_t next_ms; /* the full wait that the next failure is given */
    uint64_t state;   /* of the jitter's generator (xorshift64*); never 0 */
};

/* seed: anything that differs between devices. */
void backoff_init(struct backoff *backoff, uint64_t seed);

/* After a success: the next failure waits for the shortest time again. */
void backoff_reset(struct backoff *backoff);

/* The wait after one more failure, in milliseconds: between half and the whole of 100, 200, 400 ...
 * 5000. */
uint64_t backoff_next(struct backoff *backoff);

#endif
