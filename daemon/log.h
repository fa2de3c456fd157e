/* Lines for people on stderr, one per decision, with peer, frame and plan where they matter. Under
 * systemd each line carries its syslog priority ("<6>"), so that the journal can sort them. The
 * whole line is one write(2): lines of several threads do not mix. */
#ifndef CONVOY_DAEMON_LOG_H
#define CONVOY_DAEMON_LOG_H

#include "base/sha256.h"

#include <stdbool.h>
#include <stdint.h>

/* Looks at the environment once: priorities are written when the journal listens. Call it before
 * there are threads; without it lines are plain. */
void log_start(void);

/* printf() without a newline. Any thread. */
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define LOG_REPEAT_US UINT64_C(300000000)

/* What has been said last of something that is tried again and again. Zeros: nothing. */
struct log_repeat {
    char text[512];
    uint64_t said_us;
};

/* Whether text is to be said: it is another than the last one, or that was LOG_REPEAT_US ago. Pure
 * but for repeat. */
bool log_is_news(struct log_repeat *repeat, const char *text, uint64_t now_us);

#define LOG_ID_SIZE 13

/* The first 12 hexadecimal digits of a plan's or model's id, enough to tell them apart. Returns
 * buf. */
const char *log_id(const uint8_t id[SHA256_SIZE], char buf[LOG_ID_SIZE]);

#endif
