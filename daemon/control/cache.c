#include "daemon/control/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define NAME_SIZE  (2 * SHA256_SIZE + 6) /* digits, ".onnx" or ".part", NUL */
#define WHOLE      ".onnx"
#define UNFINISHED ".part"
#define BLOCK      512        /* of st_blocks */
#define FILES_MAX  8192       /* more are not looked at */
#define DISK_SPARE (4u << 20) /* bytes that stay free for others on the same disk */

struct cache {
    char *folder;
    int folder_fd, lock_fd;
    struct cache_limits limits;
};

struct entry {
    char name[NAME_SIZE];
    uint64_t bytes;
    struct timespec used;
    bool is_whole, is_kept;
};

static void name_of(const uint8_t digest[SHA256_SIZE], const char *suffix, char name[NAME_SIZE]) {
    char hex[SHA256_HEX];
    snprintf(name, NAME_SIZE, "%s%s", sha256_format(digest, hex), suffix);
}

/* True for a name that name_of() makes. */
static bool is_ours(const char *name) {
    size_t digits = strspn(name, "0123456789abcdef");
    return digits == SHA256_HEX - 1 &&
           (strcmp(name + digits, WHOLE) == 0 || strcmp(name + digits, UNFINISHED) == 0);
}

/* What a daemon that was killed while it made a part has left behind. */
static void remove_leftovers(const struct cache *cache) {
    int fd = openat(cache->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *file;
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((file = readdir(dir)) != NULL)
        if (strncmp(file->d_name, CACHE_NEW, strlen(CACHE_NEW)) == 0)
            unlinkat(cache->folder_fd, file->d_name, 0);
    closedir(dir);
}

static int disk_error(const struct cache *cache, int number, const char *what, struct err *err) {
    return err_set(err, -number, "cannot %s in %s: %s", what, cache->folder, strerror(number));
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Makes path and the folders above it. */
static int make_folders(char *path) {
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        int rc = mkdir(path, 0700);
        *slash = '/';
        if (rc < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
            return -errno; /* the last two: it may be there all the same */
    }
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int cache_open(const char *state, const struct cache_limits *limits, struct cache **ret_cache,
               struct err *err) {
    struct cache *cache;
    int rc;
    if (!state)
        return err_set(err, -ENOENT,
                       "there is no folder to keep parts of models in: say `state: FOLDER`");
    cache = calloc(1, sizeof(*cache));
    if (!cache)
        return err_set(err, -ENOMEM, "out of memory");
    cache->limits = *limits;
    cache->folder_fd = cache->lock_fd = -1;
    if (asprintf(&cache->folder, "%s/parts", state) < 0) {
        cache->folder = NULL;
        rc = err_set(err, -ENOMEM, "out of memory");
        goto fail;
    }
    rc = make_folders(cache->folder);
    if (rc == 0 && (cache->folder_fd = open(cache->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = -errno;
    if (rc < 0) {
        err_set(err, rc, "cannot keep parts of models in %s: %s; see `state:`", cache->folder,
                strerror(-rc));
        goto fail;
    }
    cache->lock_fd = openat(cache->folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (cache->lock_fd < 0) {
        rc = disk_error(cache, errno, "make a lock", err);
        goto fail;
    }
    if (flock(cache->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        rc = err_set(err, -EBUSY,
                     "another daemon uses %s: give each a folder of its own with `state:`",
                     cache->folder);
        goto fail;
    }
    remove_leftovers(cache);
    *ret_cache = cache;
    return 0;
fail:
    cache_close(cache);
    return rc;
}

void cache_close(struct cache *cache) {
    if (!cache)
        return;
    if (cache->lock_fd >= 0)
        close(cache->lock_fd);
    if (cache->folder_fd >= 0)
        close(cache->folder_fd);
    free(cache->folder);
    free(cache);
}

int cache_use(struct cache **cache, const char *state, const struct cache_limits *limits,
              struct err *err) {
    if (!*cache)
        return cache_open(state, limits, cache, err);
    (*cache)->limits = *limits;
    return 0;
}

const char *cache_folder(const struct cache *cache) {
    return cache->folder;
}

/* ---- what is there --------------------------------------------------------------------------- */

static bool is_kept(const char *name, const struct cache_keep *keep) {
    char hex[SHA256_HEX];
    for (size_t i = 0; keep && i < keep->count; i++)
        if (strncmp(name, sha256_format(keep->digests[i], hex), SHA256_HEX - 1) == 0)
            return true;
    return false;
}

/* Whether somebody of this process has an unfinished file open to receive it. */
static bool is_being_received(const struct cache *cache, const char *name) {
    int fd = openat(cache->folder_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    bool is_locked = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    close(fd);
    return is_locked;
}

static bool read_entry(const struct cache *cache, const char *name, const struct cache_keep *keep,
                       struct entry *ret_entry) {
    struct stat info;
    if (!is_ours(name) || fstatat(cache->folder_fd, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    *ret_entry = (struct entry){.bytes = (uint64_t)info.st_size,
                                .used = info.st_mtim,
                                .is_whole = strstr(name, WHOLE) != NULL,
                                .is_kept = is_kept(name, keep)};
    if (!ret_entry->is_whole && is_being_received(cache, name))
        ret_entry->is_kept = true;
    memcpy(ret_entry->name, name, strlen(name) + 1); /* is_ours(): it fits */
    return true;
}

/* All files, malloc'd for the caller. NULL when there is no memory, or the folder is gone. */
static struct entry *list_entries(const struct cache *cache, const struct cache_keep *keep,
                                  size_t *ret_count) {
    int fd = openat(cache->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct entry *entries = NULL;
    const struct dirent *file;
    size_t count = 0, room = 0;
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    while (count < FILES_MAX && (file = readdir(dir)) != NULL) {
        if (count == room) {
            struct entry *more = realloc(entries, (room = 2 * room + 8) * sizeof(*more));
            if (!more)
                break;
            entries = more;
        }
        count += read_entry(cache, file->d_name, keep, &entries[count]);
    }
    closedir(dir);
    *ret_count = count;
    return entries;
}

void cache_get_usage(struct cache *cache, struct cache_usage *ret_usage) {
    size_t count = 0;
    struct entry *entries = list_entries(cache, NULL, &count);
    *ret_usage = (struct cache_usage){0};
    for (size_t i = 0; i < count; i++) {
        ret_usage->parts += entries[i].is_whole;
        ret_usage->bytes += entries[i].bytes;
    }
    free(entries);
}

int cache_find(struct cache *cache, const uint8_t digest[SHA256_SIZE], char **ret_path,
               uint64_t *ret_bytes) {
    char name[NAME_SIZE];
    struct stat info;
    name_of(digest, WHOLE, name);
    if (fstatat(cache->folder_fd, name, &info, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(info.st_mode))
        return -ENOENT;
    if (asprintf(ret_path, "%s/%s", cache->folder, name) < 0)
        return -ENOMEM;
    utimensat(cache->folder_fd, name, NULL, 0);
    *ret_bytes = (uint64_t)info.st_size;
    return 0;
}

void cache_remove(struct cache *cache, const uint8_t digest[SHA256_SIZE]) {
    char name[NAME_SIZE];
    name_of(digest, WHOLE, name);
    unlinkat(cache->folder_fd, name, 0);
    name_of(digest, UNFINISHED, name);
    unlinkat(cache->folder_fd, name, 0);
}

/* ---- room ------------------------------------------------------------------------------------ */

/* Unfinished ones first, then those unused for longest; what is kept comes last. */
static int compare_need(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->is_kept != y->is_kept)
        return x->is_kept ? 1 : -1;
    if (x->is_whole != y->is_whole)
        return x->is_whole ? 1 : -1;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    if (x->used.tv_nsec != y->used.tv_nsec)
        return x->used.tv_nsec < y->used.tv_nsec ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Bytes that the disk has for files of ours, with those that are set aside for one already. */
static uint64_t free_bytes(const struct cache *cache, uint64_t reserved) {
    struct statvfs info;
    if (fstatvfs(cache->folder_fd, &info) < 0)
        return UINT64_MAX; /* it will show when they are written */
    uint64_t bytes = (uint64_t)info.f_bavail * info.f_frsize;
    return (bytes > DISK_SPARE ? bytes - DISK_SPARE : 0) + reserved;
}

static bool has_entry(const struct entry *entries, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(entries[i].name, name) == 0)
            return true;
    return false;
}

/* also: one more file that is kept, or NULL; the disk has set reserved of the bytes aside for it.
 */
static int make_room(struct cache *cache, uint64_t bytes, const struct cache_keep *keep,
                     const char *also, uint64_t reserved, struct err *err) {
    size_t count = 0, next = 0, files, kept_files = 0;
    uint64_t used = 0, kept = 0, removable, disk;
    struct entry *entries = list_entries(cache, keep, &count);
    for (size_t i = 0; also && i < count; i++)
        entries[i].is_kept |= strcmp(entries[i].name, also) == 0;
    if (entries)
        qsort(entries, count, sizeof(*entries), compare_need);
    for (size_t i = 0; i < count; i++) {
        used += entries[i].bytes;
        kept += entries[i].is_kept ? entries[i].bytes : 0;
        kept_files += entries[i].is_kept && (!also || strcmp(entries[i].name, also) != 0);
    }
    files = count - (also && count > 0 && has_entry(entries, count, also));
    removable = used - kept;
    disk = free_bytes(cache, reserved);
    int rc = 0;
    if (bytes > cache->limits.bytes || kept > cache->limits.bytes - bytes)
        rc = err_set(err, -EFBIG,
                     "%" PRIu64 " bytes do not fit `cache:` (%" PRIu64 " bytes, of which %" PRIu64
                     " are in use)",
                     bytes, cache->limits.bytes, kept);
    else if (kept_files >= cache->limits.files)
        rc = err_set(err, -EFBIG, "one more file does not fit `limits: parts:` (%zu, all in use)",
                     cache->limits.files);
    else if (disk < UINT64_MAX - removable && bytes > disk + removable)
        rc = err_set(err, -ENOSPC,
                     "%" PRIu64 " bytes do not fit the disk of %s: %" PRIu64 " are free", bytes,
                     cache->folder, disk);
    while (rc == 0 && next < count && !entries[next].is_kept &&
           (used > cache->limits.bytes - bytes || bytes > disk || files >= cache->limits.files)) {
        if (unlinkat(cache->folder_fd, entries[next].name, 0) == 0)
            disk = free_bytes(cache, reserved);
        used -= entries[next].bytes;
        files--;
        next++;
    }
    free(entries);
    return rc;
}

int cache_make_room(struct cache *cache, uint64_t bytes, const struct cache_keep *keep,
                    struct err *err) {
    return make_room(cache, bytes, keep, NULL, 0, err);
}

/* ---- receiving ------------------------------------------------------------------------------- */

int cache_begin(struct cache *cache, const uint8_t digest[SHA256_SIZE], uint64_t bytes,
                const struct cache_keep *keep, int *ret_fd, uint64_t *ret_have, struct err *err) {
    char name[NAME_SIZE];
    struct stat info;
    uint64_t have = 0, taken = 0;
    int fd, rc;
    name_of(digest, UNFINISHED, name);
    if (fstatat(cache->folder_fd, name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
        have = (uint64_t)info.st_size;
        taken = (uint64_t)info.st_blocks * BLOCK; /* more: by fallocate() below, when it began */
    }
    if (have > bytes) {
        unlinkat(cache->folder_fd, name, 0);
        have = taken = 0;
    }
    taken = taken > bytes ? bytes : taken;
    rc = make_room(cache, bytes - have, keep, name, taken > have ? taken - have : 0,
                   err); /* for what the file lacks */
    if (rc < 0)
        return rc;
    fd = openat(cache->folder_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return disk_error(cache, errno, "write", err);
    flock(fd, LOCK_SH | LOCK_NB); /* is_being_received(); nobody else locks it */
    /* Where the file system can, the room is taken now. Where it cannot, writing will tell. */
    if (bytes > have &&
        fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)have, (off_t)(bytes - have)) < 0 &&
        errno == ENOSPC) {
        rc = disk_error(cache, errno, "write", err);
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    *ret_have = have;
    return 0;
}

/* Gives a file that is whole its name, and makes sure that it has it after a crash. */
static int give_name(struct cache *cache, const char *from, const char *name, struct err *err) {
    if (renameat(cache->folder_fd, from, cache->folder_fd, name) < 0)
        return disk_error(cache, errno, "rename a file", err);
    if (fsync(cache->folder_fd) < 0)
        return disk_error(cache, errno, "write", err);
    return 0;
}

int cache_commit(struct cache *cache, const uint8_t digest[SHA256_SIZE], int fd, struct err *err) {
    uint8_t found[SHA256_SIZE];
    char from[NAME_SIZE], name[NAME_SIZE];
    if (fsync(fd) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return disk_error(cache, errno, "write", err);
    int rc = sha256_file(fd, found);
    if (rc < 0)
        return disk_error(cache, -rc, "read", err);
    name_of(digest, UNFINISHED, from);
    name_of(digest, WHOLE, name);
    if (memcmp(found, digest, SHA256_SIZE) != 0) {
        unlinkat(cache->folder_fd, from, 0);
        return err_set(err, -EBADMSG,
                       "what was received is not the part that was promised: its "
                       "SHA-256 differs");
    }
    return give_name(cache, from, name, err);
}

int cache_adopt(struct cache *cache, const char *path, uint8_t ret_digest[SHA256_SIZE],
                uint64_t *ret_bytes, struct err *err) {
    const char *slash = strrchr(path, '/'), *from = slash ? slash + 1 : path;
    char name[NAME_SIZE];
    uint8_t digest[SHA256_SIZE];
    struct stat info;
    int fd = openat(cache->folder_fd, from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc;
    if (fd < 0)
        return disk_error(cache, errno, "read", err);
    if (fsync(fd) < 0 || fstat(fd, &info) < 0)
        rc = disk_error(cache, errno, "write", err);
    else if ((rc = sha256_file(fd, digest)) < 0)
        rc = disk_error(cache, -rc, "read", err);
    close(fd);
    if (rc == 0) {
        name_of(digest, WHOLE, name);
        rc = give_name(cache, from, name, err);
    }
    if (rc < 0) {
        unlinkat(cache->folder_fd, from, 0);
        return rc;
    }
    memcpy(ret_digest, digest, SHA256_SIZE);
    *ret_bytes = (uint64_t)info.st_size;
    return 0;
}
