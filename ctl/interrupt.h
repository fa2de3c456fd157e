/* SIGINT, SIGTERM and SIGHUP as a call on a thread of its own: the first asks to stop, the second
 * ends the program at once. */
#ifndef CONVOY_CTL_INTERRUPT_H
#define CONVOY_CTL_INTERRUPT_H

struct interrupt;

/* From here on, the first of the signals calls fn(arg), once, on another thread. There is one at a
 * time in a program (signal handlers are global). 0 or -errno. Main thread. */
int interrupt_start(void (*fn)(void *arg), void *arg, struct interrupt **ret_interrupt);

/* The signals have their former effect again; afterwards fn is not called. Takes NULL. */
void interrupt_stop(struct interrupt *interrupt);

#endif
