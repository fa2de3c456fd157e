/* Parts of models on disk: ONNX files named by their SHA-256, in the folder `parts` below the
 * device's state.
 *
 *   <64 hexadecimal digits>.onnx   a whole part, checked against its name when it was made
 *   <64 hexadecimal digits>.part   one that is being received, or whose transfer broke off
 *   new-*                          one that is being made here; removed at the next start
 *   lock                           held for as long as a daemon uses the folder
 *
 * There are at most limits.files of them, and together they take at most limits.bytes. When a new
 * one needs room, those that are unused for longest go first (their time of modification is when
 * they were last used), unfinished ones before whole ones, but none that the caller names as in
 * use, and none that is being received. A file gets its final name only when all of it has been
 * written, synced and checked, so what has such a name is whole after a crash.
 *
 * Everything here waits for the disk: off the loop. One thread at a time; different threads one
 * after the other are fine. */
#ifndef CONVOY_DAEMON_CONTROL_CACHE_H
#define CONVOY_DAEMON_CONTROL_CACHE_H

#include "base/err.h"
#include "base/sha256.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_NEW "new-" /* how names of files begin that cache_adopt() is to be given */

struct cache;

/* Parts that must stay. */
struct cache_keep {
    const uint8_t (*digests)[SHA256_SIZE];
    size_t count;
};

struct cache_limits {
    uint64_t bytes; /* of all files */
    size_t files;   /* at least 1 */
};

struct cache_usage {
    size_t parts;   /* whole ones */
    uint64_t bytes; /* of all files */
};

/* Opens the folder state/parts, makes it where it is missing, with mode 0700, and locks it. state
 * NULL: -ENOENT, with a sentence. -EBUSY when another daemon has it; or the errno of the failing
 * call: with a sentence. The cache is the caller's; it owns the lock. */
int cache_open(const char *state, const struct cache_limits *limits, struct cache **ret_cache,
               struct err *err);

/* Opens *cache where it is NULL, as cache_open(); else sets its limits. */
int cache_use(struct cache **cache, const char *state, const struct cache_limits *limits,
              struct err *err);

/* Gives up the lock. NULL is fine. */
void cache_close(struct cache *cache);

/* The path of a whole part, malloc'd for the caller, with its size; and notes that it is used now.
 * -ENOENT when it is not there, -ENOMEM. */
int cache_find(struct cache *cache, const uint8_t digest[SHA256_SIZE], char **ret_path,
               uint64_t *ret_bytes);

/* Makes room for one more file of bytes, removing files that nobody needs. -EFBIG when the limits
 * are smaller than that or what is in use leaves no room, -ENOSPC when the disk has none: with a
 * sentence, and then nothing more than was needed has been removed. */
int cache_make_room(struct cache *cache, uint64_t bytes, const struct cache_keep *keep,
                    struct err *err);

/* Begins, or goes on, to receive a part: makes room and opens its unfinished file. *ret_fd is the
 * caller's (O_RDWR); the first *ret_have bytes have been received before. The file stays for as
 * long as *ret_fd is open, whoever needs room. As cache_make_room(), or the errno of opening it. */
int cache_begin(struct cache *cache, const uint8_t digest[SHA256_SIZE], uint64_t bytes,
                const struct cache_keep *keep, int *ret_fd, uint64_t *ret_have, struct err *err);

/* All bytes of a part have been written to fd: syncs and checks it and gives it its name. -EBADMSG
 * when it is not what its name says: then it has been removed. Or the errno of the failing call. fd
 * stays the caller's. */
int cache_commit(struct cache *cache, const uint8_t digest[SHA256_SIZE], int fd, struct err *err);

/* Takes in a file that lies in cache_folder() under another name: syncs it, digests it and renames
 * it, or removes it where the cache has it already. On error it has been removed. */
int cache_adopt(struct cache *cache, const char *path, uint8_t ret_digest[SHA256_SIZE],
                uint64_t *ret_bytes, struct err *err);

/* Removes a part, whole or not. */
void cache_remove(struct cache *cache, const uint8_t digest[SHA256_SIZE]);

/* The folder that the files lie in. Borrowed. */
const char *cache_folder(const struct cache *cache);

/* What is there. */
void cache_get_usage(struct cache *cache, struct cache_usage *ret_usage);

#endif
