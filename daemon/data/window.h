/* Credits as their giver counts them. Pure.
 *
 * A sender may have `limit` frames at its receiver. Each of these slots is free, granted (the
 * sender holds a credit for it) or occupied (a frame, or its result that has not been written, lies
 * in it). A credit is spent by a frame's arrival and comes back when its slot is free again. */
#ifndef CONVOY_DAEMON_DATA_WINDOW_H
#define CONVOY_DAEMON_DATA_WINDOW_H

#include <stdint.h>

struct window {
    uint32_t limit;
    uint32_t granted;  /* credits the peer holds */
    uint32_t occupied; /* slots in use; results coming back through a device may exceed limit */
};

/* A frame has arrived: turns a credit into an occupied slot. -EDQUOT when the peer had none. */
int window_take(struct window *window);

/* A result takes a slot without a credit: it came from behind. */
void window_occupy(struct window *window);

/* A slot is free again. */
void window_release(struct window *window);

/* The peer is gone, and its credits with it; frames that are still held stay occupied. */
void window_forget_credits(struct window *window);

/* How many credits to send now; they count as granted from here on. Small amounts are held back
 * while the peer has others, so that not every frame costs a message. */
uint32_t window_grant(struct window *window);

#endif
