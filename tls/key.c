#include "tls/key.h"

#include "base/sha256.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static_assert(TLS_KEY_SIZE == SHA256_SIZE, "sha256_format() writes a secret too");

static const char line_start[] = "convoy-key-1:";
static const char file_head[] =
    "# Keys of a Convoy cluster. Whoever has one may join it: keep this file secret (mode 0600).\n";

/* The name under which a key is offered: a hash, so that the secret cannot be found from it. */
static int derive_id(struct tls_key *key) {
    static const char label[16] = "convoy key id 1";
    uint8_t text[sizeof(label) + TLS_KEY_SIZE], digest[SHA256_SIZE];
    char hex[SHA256_HEX];
    memcpy(text, label, sizeof(label));
    memcpy(text + sizeof(label), key->secret, TLS_KEY_SIZE);
    int rc = sha256(text, sizeof(text), digest);
    OPENSSL_cleanse(text, sizeof(text));
    if (rc < 0)
        return rc;
    sha256_format(digest, hex);
    snprintf(key->id, sizeof(key->id), "%.*s", TLS_KEY_ID_SIZE - 1, hex);
    return 0;
}

/* ---- reading ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int parse_secret(const char *text, size_t size, uint8_t secret[TLS_KEY_SIZE]) {
    if (size != 2 * TLS_KEY_SIZE)
        return -EINVAL;
    for (size_t i = 0; i < TLS_KEY_SIZE; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -EINVAL;
        secret[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

static int take_line(const char *line, size_t size, struct tls_keys *keys, struct err *err) {
    const size_t start = sizeof(line_start) - 1;
    while (size > 0 && strchr(" \t\r", line[size - 1]))
        size--;
    if (size == 0 || line[0] == '#')
        return 0;
    if (keys->count == TLS_KEYS_MAX)
        return err_set(err, -EINVAL, "more than %d keys; remove those that are not used any more",
                       TLS_KEYS_MAX);
    struct tls_key *key = &keys->keys[keys->count];
    if (size < start || memcmp(line, line_start, start) != 0 ||
        parse_secret(line + start, size - start, key->secret) < 0)
        return err_set(err, -EINVAL,
                       "not a key; a line is \"%s\" and %d hexadecimal digits, as `convoyctl "
                       "keygen` writes it",
                       line_start, 2 * TLS_KEY_SIZE);
    if (derive_id(key) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    keys->count++;
    return 0;
}

static int parse(const char *text, size_t size, struct tls_keys *keys, struct err *err) {
    unsigned number = 1;
    for (const char *at = text, *end = text + size; at < end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        int rc = take_line(at, length, keys, err);
        if (rc < 0)
            return err_prefix(err, rc, "line %u", number);
        at += length + 1;
    }
    if (keys->count == 0)
        return err_set(err, -EINVAL, "no key in it; `convoyctl keygen` makes one");
    return 0;
}

static int check_file(int fd, struct err *err) {
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set(err, -errno, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "not a regular file");
    if (st.st_mode & 077)
        return err_set(err, -EACCES,
                       "its mode is %04o: others may use the key; run chmod 600 on it, and make a "
                       "new key if somebody may have read it",
                       (unsigned)(st.st_mode & 07777));
    if (st.st_size > TLS_KEY_FILE_MAX)
        return err_set(err, -EFBIG, "larger than %d bytes: not a key file", TLS_KEY_FILE_MAX);
    return 0;
}

static int read_whole(int fd, char *text, size_t size, size_t *ret_bytes, struct err *err) {
    size_t bytes = 0;
    while (bytes < size) {
        ssize_t n = read(fd, text + bytes, size - bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "%s", strerror(errno));
        if (n == 0)
            break;
        bytes += (size_t)n;
    }
    *ret_bytes = bytes;
    return 0;
}

int tls_keys_load(const char *path, struct tls_keys *ret_keys, struct err *err) {
    char text[TLS_KEY_FILE_MAX];
    struct tls_keys keys = {.count = 0};
    size_t bytes = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    int rc = check_file(fd, err);
    if (rc == 0)
        rc = read_whole(fd, text, sizeof(text), &bytes, err);
    close(fd);
    if (rc == 0)
        rc = parse(text, bytes, &keys, err);
    OPENSSL_cleanse(text, sizeof(text));
    if (rc == 0)
        *ret_keys = keys;
    tls_keys_wipe(&keys);
    return rc < 0 ? err_prefix(err, rc, "%s", path) : 0;
}

/* ---- making ---- */

int tls_key_generate(struct tls_key *ret_key, struct err *err) {
    struct tls_key key;
    if (RAND_priv_bytes(key.secret, sizeof(key.secret)) != 1 || derive_id(&key) < 0)
        return err_set(err, -EIO, "the system gave no random numbers");
    *ret_key = key;
    OPENSSL_cleanse(&key, sizeof(key));
    return 0;
}

static int write_keys(int fd, const struct tls_keys *keys) {
    char line[sizeof(line_start) + 2 * TLS_KEY_SIZE + 1];
    size_t size = sizeof(line_start) - 1;
    bool ok = write(fd, file_head, sizeof(file_head) - 1) == (ssize_t)sizeof(file_head) - 1;
    memcpy(line, line_start, size);
    for (size_t i = 0; ok && i < keys->count; i++) {
        char hex[SHA256_HEX];
        sha256_format(keys->keys[i].secret, hex);
        memcpy(line + size, hex, 2 * TLS_KEY_SIZE);
        line[sizeof(line) - 2] = '\n';
        ok = write(fd, line, sizeof(line) - 1) == (ssize_t)sizeof(line) - 1;
        OPENSSL_cleanse(hex, sizeof(hex));
    }
    OPENSSL_cleanse(line, sizeof(line));
    return ok ? 0 : errno ? -errno : -EIO;
}

int tls_keys_save(const char *path, const struct tls_keys *keys, int owner, int replace,
                  struct err *err) {
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path) >= (int)sizeof(temporary))
        return err_set(err, -ENAMETOOLONG, "%s: the path is too long", path);
    int fd = mkstemp(temporary); /* with mode 0600 */
    if (fd < 0)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    errno = 0;
    int rc = write_keys(fd, keys);
    if (rc == 0 && owner >= 0 && fchown(fd, (uid_t)owner, (gid_t)-1) < 0)
        rc = -errno;
    if (rc == 0 && fsync(fd) < 0)
        rc = -errno;
    close(fd);
    /* link() instead of rename() where nothing may be replaced: it fails when path exists. */
    if (rc == 0 && (replace ? rename(temporary, path) : link(temporary, path)) < 0)
        rc = -errno;
    if (rc < 0 || !replace)
        unlink(temporary);
    if (rc == -EEXIST)
        return err_set(err, rc,
                       "%s: there is a file already; --add puts a second key into it, for a "
                       "change of keys",
                       path);
    return rc < 0 ? err_set(err, rc, "%s: %s", path, strerror(-rc)) : 0;
}

void tls_keys_wipe(struct tls_keys *keys) {
    if (keys)
        OPENSSL_cleanse(keys, sizeof(*keys));
}
