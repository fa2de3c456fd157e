/* A line on a terminal that shows how far a long command is; nothing where stderr is no terminal.
 */
#ifndef CONVOY_CTL_PROGRESS_H
#define CONVOY_CTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct progress {
    bool shown;
    bool drawn;          /* the line is on the screen now */
    uint64_t total;      /* frames; 0: unknown */
    uint64_t start_us;   /* monotonic */
    uint64_t drawn_us;   /* when it was drawn last */
    uint64_t drawn_done; /* and what it said */
    double rate;         /* frames/s, smoothed */
};

/* Microseconds of the monotonic clock. Any thread. */
uint64_t clock_us(void);

/* The line appears when stderr is a terminal and wanted is set. */
void progress_init(struct progress *progress, uint64_t total, bool wanted);

/* Redraws the line at most ten times a second. note: a few words at its end, or "". */
void progress_update(struct progress *progress, uint64_t done, const char *note);

/* Takes the line off the screen, so that something else can be printed. */
void progress_clear(struct progress *progress);

/* The line's text: "[#####.....] 1234/10000  512.3 frames/s  17.1 s left". Returns buf. Pure. */
const char *progress_format(uint64_t done, uint64_t total, double rate, const char *note, char *buf,
                            size_t size);

#endif
