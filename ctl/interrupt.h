/* SIGINT, SIGTERM and SIGHUP as a call on a thread of its own: the first asks to stop, the second
 * ends the program at once. */
#ifndef CONVOY_CTL_INTERRUPT_H
#define CONVOY_CTL_INTERRUPT_H

struct interrupt;

/* Blocks the signals in the calling thread and those it makes later, and calls fn(arg), once, from
 * another thread when one comes. 0 or -errno. Call it before other threads are made (those of
 * client.h block all signals by themselves). */
int interrupt_start(void (*fn)(void *arg), void *arg, struct interrupt **ret_interrupt);

/* Signals have their usual effect again; afterwards fn is not called. Takes NULL. */
void interrupt_stop(struct interrupt *interrupt);

#endif
