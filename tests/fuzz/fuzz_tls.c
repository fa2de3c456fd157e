/* Fuzzes the first bytes of encrypted connections: both ends of a handshake, and an end whose peer
 * goes on with anything after a good one. The first byte chooses which, and how the rest is cut. */
#include "tls/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition) {
    if (!condition)
        abort();
}

static struct tls_context *make_context(void) {
    struct tls_keys keys = {.count = 1, .keys = {{.secret = "a secret", .id = "0123456789abcdef"}}};
    return tls_context_new(&keys);
}

/* Reads what was fed; false when the channel has ended. */
static bool drain(struct tls_channel *channel) {
    char plain[4096];
    struct err err = {""};
    ssize_t n;
    while ((n = tls_channel_read(channel, plain, sizeof(plain), &err)) > 0)
        continue;
    must(n == -EAGAIN || n == 0 || (n == -EPROTO && err.text[0]));
    return n == -EAGAIN;
}

static void carry(struct tls_channel *from, struct tls_channel *to) {
    size_t bytes;
    const void *pending = tls_channel_pending(from, &bytes);
    if (bytes == 0)
        return;
    tls_channel_feed(to, pending, bytes);
    must(drain(to));
    tls_channel_sent(from, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const size_t steps[] = {1, 5, 300, 65536};
    static struct tls_context *context;
    struct tls_channel *ends[2];
    if (!context)
        context = make_context();
    if (size == 0)
        return 0;
    uint8_t choice = data[0];
    size_t step = steps[choice & 3], bytes;
    must(context && tls_channel_new(context, TLS_CONNECTS, &ends[0]) == 0);
    must(tls_channel_new(context, TLS_ACCEPTS, &ends[1]) == 0);
    for (int i = 0; choice & 4 && i < 3; i++) {
        carry(ends[0], ends[1]);
        carry(ends[1], ends[0]);
    }
    struct tls_channel *victim = ends[choice >> 3 & 1];
    must(!(choice & 4) || tls_channel_is_ready(victim));
    data++;
    size--;
    while (size > 0) {
        bytes = size < step ? size : step;
        tls_channel_feed(victim, data, bytes);
        if (!drain(victim))
            break;
        data += bytes;
        size -= bytes;
    }
    must(choice & 4 || !tls_channel_is_ready(victim)); /* nobody guesses the key */
    tls_channel_pending(victim, &bytes);
    must(bytes <= TLS_PENDING_MAX);
    tls_channel_free(ends[0]);
    tls_channel_free(ends[1]);
    return 0;
}
