/* Pre-shared keys: the file that lets a device into a cluster. Pure but for the file; knows nothing
 * of TLS.
 *
 * A key file is text: one key a line, "convoy-key-1:" and 64 hexadecimal digits; empty lines and
 * lines that start with # are skipped. With the first key a device introduces itself, with any of
 * them it may be addressed. So keys are rolled over without a gap: append the new one everywhere,
 * then make it the first everywhere, then remove the old one.
 */
#ifndef CONVOY_TLS_KEY_H
#define CONVOY_TLS_KEY_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define TLS_KEY_SIZE     32   /* bytes of a secret */
#define TLS_KEY_ID_SIZE  17   /* 16 hexadecimal digits and a NUL */
#define TLS_KEYS_MAX     2    /* of a file: the old one and the new one */
#define TLS_KEY_FILE_MAX 4096 /* bytes */

struct tls_key {
    uint8_t secret[TLS_KEY_SIZE];
    char id[TLS_KEY_ID_SIZE]; /* derived from the secret; tells keys apart, says nothing else */
};

struct tls_keys {
    struct tls_key keys[TLS_KEYS_MAX];
    size_t count;
};

/* Reads a key file. It must be a regular file that nobody but its owner may read or write (mode
 * 0600 or 0400). 0 with at least one key, for tls_keys_wipe(); or -errno of opening it; -EACCES for
 * its mode; -EINVAL for what it says, with the line; -EFBIG. The sentence starts with the path and
 * never holds a part of a key. Any thread. */
int tls_keys_load(const char *path, struct tls_keys *ret_keys, struct err *err);

/* A new random key. 0, or -EIO when the system has no randomness. */
int tls_key_generate(struct tls_key *ret_key, struct err *err);

/* Writes keys to path with mode 0600, through a file beside it that is synced and renamed. replace:
 * an existing file is replaced; else it is -EEXIST. owner: -1, or the user that gets the file.
 * -errno. */
int tls_keys_save(const char *path, const struct tls_keys *keys, int owner, int replace,
                  struct err *err);

/* Overwrites the secrets. Takes NULL. */
void tls_keys_wipe(struct tls_keys *keys);

#endif
