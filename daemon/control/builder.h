/* What is too slow for the loop: models, stages, parts on disk. One thread, one job at a time, in
 * the order in which they were submitted; so no two of them are ever in memory at once, and what
 * only jobs touch (the cache) needs no lock. */
#ifndef CONVOY_DAEMON_CONTROL_BUILDER_H
#define CONVOY_DAEMON_CONTROL_BUILDER_H

#include <stdbool.h>
#include <sys/queue.h>
#include <uv.h>

struct builder;

/* A piece of work; the owner embeds it in what work and done need. */
struct job {
    TAILQ_ENTRY(job) entry;

    /* On the builder's thread. What it touches is the job's alone until done. */
    void (*work)(struct job *job);

    /* On the loop's thread, once for each job that was submitted: releases it. is_closing: the
     * builder is being closed, nobody wants the outcome, and work may not have run. */
    void (*done)(struct job *job, bool is_closing);
};

/* Starts the thread. 0, -ENOMEM, or libuv's error. */
int builder_start(uv_loop_t *loop, struct builder **ret_builder);

/* Appends a job whose work and done are set. done follows, never from inside. */
void builder_submit(struct builder *builder, struct job *job);

/* Waits for the job under way, calls done for it and for all that have not begun, with is_closing;
 * memory goes in the close callback. NULL is fine. */
void builder_close(struct builder *builder);

#endif
