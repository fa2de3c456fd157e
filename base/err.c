#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Takes back the part of a character of several bytes that vsnprintf() may have left at the end of
 * a sentence it had to cut: what goes into a message or a log is UTF-8. */
static void drop_half_character(char *text) {
    size_t len = strlen(text), start = len;
    while (start > 0 && len - start < 4 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char first = (unsigned char)text[start - 1];
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
    if (len - (start - 1) < size)
        text[start - 1] = '\0';
}

static void append(struct err *err, const char *text) {
    size_t len = strlen(err->text), more = strlen(text), room = sizeof(err->text) - 1 - len;
    more = more < room ? more : room;
    memcpy(err->text + len, text, more);
    err->text[len + more] = '\0';
}

int err_set(struct err *err, int code, const char *fmt, ...) {
    if (err) {
        struct err made; /* fmt's arguments may lie in *err */
        va_list args;
        va_start(args, fmt);
        vsnprintf(made.text, sizeof(made.text), fmt, args);
        va_end(args);
        drop_half_character(made.text);
        *err = made;
    }
    return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...) {
    if (err) {
        struct err made;
        va_list args;
        va_start(args, fmt);
        vsnprintf(made.text, sizeof(made.text), fmt, args);
        va_end(args);
        append(&made, ": ");
        append(&made, err->text);
        drop_half_character(made.text);
        *err = made;
    }
    return code;
}

#define WORD_MAX 64

/* Levenshtein's distance with swapped neighbours counted once, by three rows; words longer than
 * WORD_MAX are cut. */
static size_t edit_distance(const char *a, const char *b) {
    size_t rows[3][WORD_MAX + 1];
    size_t na = strnlen(a, WORD_MAX), nb = strnlen(b, WORD_MAX);
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        const size_t *before = rows[(i + 1) % 3], *above = rows[(i - 1) % 3];
        size_t *row = rows[i % 3];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *err_nearest(const char *word, const char *const *candidates, size_t count) {
    const char *best = NULL;
    size_t best_distance = strnlen(word, WORD_MAX) / 3 + 1;
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(word, candidates[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = candidates[i];
        }
    }
    return best;
}
