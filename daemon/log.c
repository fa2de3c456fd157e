#include "daemon/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define LINE_SIZE 1024

static bool with_priority; /* set once by log_start(), before there are threads */

void log_start(void) {
    with_priority = getenv("JOURNAL_STREAM") || getenv("INVOCATION_ID");
}

static void log_line(int priority, const char *fmt, va_list args)
    __attribute__((format(printf, 2, 0)));

static void log_line(int priority, const char *fmt, va_list args) {
    char line[LINE_SIZE];
    int at = with_priority ? snprintf(line, sizeof(line), "<%d>", priority) : 0;
    int len = vsnprintf(line + at, sizeof(line) - (size_t)at, fmt, args);
    if (len < 0)
        return;
    size_t size = (size_t)at + (size_t)len;
    if (size > sizeof(line) - 1)
        size = sizeof(line) - 1;
    for (size_t i = (size_t)at; i < size; i++) /* a peer's words must not forge lines */
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[size] = '\n';
    ssize_t written = write(STDERR_FILENO, line, size + 1);
    (void)written; /* there is nowhere to report it */
}

#define LOG_FUNCTION(name, priority)                                                               \
    void name(const char *fmt, ...) {                                                              \
        va_list args;                                                                              \
        va_start(args, fmt);                                                                       \
        log_line(priority, fmt, args);                                                             \
        va_end(args);                                                                              \
    }

LOG_FUNCTION(log_info, LOG_INFO)
LOG_FUNCTION(log_warning, LOG_WARNING)
LOG_FUNCTION(log_error, LOG_ERR)

bool log_is_news(struct log_repeat *repeat, const char *text, uint64_t now_us) {
    bool is_same = strncmp(repeat->text, text, sizeof(repeat->text) - 1) == 0;
    if (is_same && repeat->said_us > 0 && now_us - repeat->said_us < LOG_REPEAT_US)
        return false;
    snprintf(repeat->text, sizeof(repeat->text), "%s", text);
    repeat->said_us = now_us ? now_us : 1;
    return true;
}

const char *log_id(const uint8_t id[SHA256_SIZE], char buf[LOG_ID_SIZE]) {
    for (size_t i = 0; i < (LOG_ID_SIZE - 1) / 2; i++)
        snprintf(buf + 2 * i, 3, "%02x", id[i]);
    return buf;
}
