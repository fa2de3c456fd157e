/* The threads that compute. Two queues and nothing else lie between them and the loop: frames to
 * compute, frames that are computed. Own threads, because libuv's pool also looks up names. */
#ifndef CONVOY_DAEMON_DATA_WORKER_H
#define CONVOY_DAEMON_DATA_WORKER_H

#include "daemon/data/frame.h"

#include <uv.h>

struct workers;

/* A frame has come back: job.rc, job.err, job.compute_us, job.cpu_us and its outputs are set.
 * Loop thread. */
typedef void workers_done(void *arg, struct frame *frame);

/* Starts count threads. done is called on the loop's thread for each frame submitted. 0, -ENOMEM,
 * or libuv's error. */
int workers_start(uv_loop_t *loop, int count, workers_done *done, void *arg,
                  struct workers **ret_workers);

/* Hands a frame to the next idle worker: inputs, outputs (with room) and held are set. The caller's
 * reference travels with it until done is called. Never blocks; the caller bounds how many are
 * under way. Loop thread. */
void workers_submit(struct workers *workers, struct frame *frame);

/* Frames that no thread has taken yet. */
size_t workers_queued(struct workers *workers);

/* How long the frame that a thread has been at longest has taken so far; 0: all are idle. Loop
 * thread. */
uint64_t workers_longest_us(struct workers *workers, uint64_t now_us);

/* Lets each thread finish the frame it is at and waits for it; calls done for all that are computed
 * and, with job.rc -ECANCELED, for all that are not. Then closes the loop's handle; workers is
 * freed in its close callback. NULL is fine. Loop thread. */
void workers_close(struct workers *workers);

#endif
