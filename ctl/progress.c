#include "ctl/progress.h"

#include "ctl/table.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_WIDTH   24
#define INTERVAL_US 100000

uint64_t clock_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void progress_init(struct progress *progress, uint64_t total, bool wanted) {
    *progress = (struct progress){
        .shown = wanted && isatty(STDERR_FILENO), .total = total, .start_us = clock_us()};
}

const char *progress_format(uint64_t done, uint64_t total, double rate, const char *note, char *buf,
                            size_t size) {
    char bar[BAR_WIDTH + 1], left[64] = "", time[32];
    if (total == 0) {
        snprintf(buf, size, "%llu frames  %.1f frames/s%s%s", (unsigned long long)done, rate,
                 note[0] ? "  " : "", note);
        return buf;
    }
    uint64_t shown = done < total ? done : total;
    size_t filled = (size_t)((double)shown / (double)total * BAR_WIDTH);
    memset(bar, '.', BAR_WIDTH);
    memset(bar, '#', filled);
    bar[BAR_WIDTH] = '\0';
    if (rate > 0 && shown < total)
        snprintf(left, sizeof(left), "  %s left",
                 format_seconds((double)(total - shown) / rate, time, sizeof(time)));
    snprintf(buf, size, "[%s] %llu/%llu  %.1f frames/s%s%s%s", bar, (unsigned long long)done,
             (unsigned long long)total, rate, left, note[0] ? "  " : "", note);
    return buf;
}

void progress_update(struct progress *progress, uint64_t done, const char *note) {
    char text[256];
    uint64_t now = clock_us(), since = now - progress->drawn_us;
    if (!progress->shown || (progress->drawn_us && since < INTERVAL_US))
        return;
    double seconds = (double)(now - progress->start_us) / 1e6;
    double recent =
        progress->drawn_us ? (double)(done - progress->drawn_done) / ((double)since / 1e6) : 0;
    if (progress->rate > 0) /* about the last two seconds */
        progress->rate += (recent - progress->rate) * 0.05;
    else
        progress->rate = seconds > 0 ? (double)done / seconds : 0;
    fprintf(stderr, "\r%s\033[K",
            progress_format(done, progress->total, progress->rate, note, text, sizeof(text)));
    fflush(stderr);
    progress->drawn = true;
    progress->drawn_us = now;
    progress->drawn_done = done;
}

void progress_clear(struct progress *progress) {
    if (!progress->drawn)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->drawn = false;
}
