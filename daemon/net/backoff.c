#include "daemon/net/backoff.h"

void backoff_init(struct backoff *backoff, uint64_t seed, uint64_t last_ms) {
    backoff->last_ms = last_ms;
    backoff->next_ms = BACKOFF_FIRST_MS;
    backoff->state = seed ? seed : 1;
}

void backoff_reset(struct backoff *backoff) {
    backoff->next_ms = BACKOFF_FIRST_MS;
}

/* xorshift64*, Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"
 * (2016). */
static uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1d;
}

uint64_t backoff_next(struct backoff *backoff) {
    uint64_t whole = backoff->next_ms;
    backoff->next_ms = whole * 2 > backoff->last_ms ? backoff->last_ms : whole * 2;
    return whole / 2 + (next_random(&backoff->state) >> 32) % (whole / 2 + 1);
}
