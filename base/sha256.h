/* SHA-256 (FIPS 180-4) by OpenSSL: names models and plans. */
#ifndef CONVOY_BASE_SHA256_H
#define CONVOY_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32
#define SHA256_HEX  (2 * SHA256_SIZE + 1)

/* The digest of size bytes at data. Any thread. 0, or -ENOMEM. */
int sha256(const void *data, size_t size, uint8_t ret_digest[SHA256_SIZE]);

/* The digest of what can be read from fd, from its offset to its end. Blocks; any thread. 0,
 * -ENOMEM, or the negative errno of read(). */
int sha256_file(int fd, uint8_t ret_digest[SHA256_SIZE]);

/* Lower-case hexadecimal with a NUL; returns hex. */
const char *sha256_format(const uint8_t digest[SHA256_SIZE], char hex[SHA256_HEX]);

#endif
