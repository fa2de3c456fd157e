/* A sentence for the user, filled by cold paths (configuration, model, plan) beside their negative
 * errno. */
#ifndef CONVOY_BASE_ERR_H
#define CONVOY_BASE_ERR_H

#include <stddef.h>

struct err {
    char
        text[512]; /* always NUL-terminated; empty when nothing was said; truncated when too long */
};

/* Sets the sentence and returns code, so that a caller can write `return err_set(err, -EINVAL,
 * "...")`. err may be NULL: then only the code travels. code is a negative errno. Any thread; err
 * is the caller's. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts context ("FILE: layer X") in front of the sentence that is there already, separated by ": ",
 * and returns code. err may be NULL. */
int err_prefix(struct err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The candidate nearest to word by edit distance, or NULL when none is near enough (more than a
 * third of its letters differ) to be worth suggesting. The result is one of candidates[0..count).
 */
const char *err_nearest(const char *word, const char *const *candidates, size_t count);

#endif
