#include "base/sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#define READ_BYTES (128 << 10)

int sha256(const void *data, size_t size, uint8_t ret_digest[SHA256_SIZE]) {
    return EVP_Digest(data, size, ret_digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

int sha256_file(int fd, uint8_t ret_digest[SHA256_SIZE]) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    char *buffer = malloc(READ_BYTES);
    ssize_t got = 1;
    int rc = ctx && buffer && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
    while (rc == 0 && got > 0) {
        got = read(fd, buffer, READ_BYTES);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got < 0)
            rc = -errno;
        else if (EVP_DigestUpdate(ctx, buffer, (size_t)got) != 1)
            rc = -ENOMEM;
    }
    if (rc == 0 && EVP_DigestFinal_ex(ctx, ret_digest, NULL) != 1)
        rc = -ENOMEM;
    free(buffer);
    EVP_MD_CTX_free(ctx);
    return rc;
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
