#include "base/sha256.h"

#include <errno.h>
#include <openssl/evp.h>

int sha256(const void *data, size_t size, uint8_t ret_digest[SHA256_SIZE]) {
    return EVP_Digest(data, size, ret_digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

const char *sha256_format(const uint8_t digest[SHA256_SIZE], char hex[SHA256_HEX]) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_SIZE; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * SHA256_SIZE] = '\0';
    return hex;
}
