/* Happy path: the two BIO callbacks below are OpenSSL's socket. Its reads take from what was fed,
 * its writes append to the pending bytes. SSL_read_ex() and SSL_write_ex() do the handshake on the
 * way; where either wants more input, the owner sees -EAGAIN.
 *
 * A write is begun only when a whole record fits behind what is pending, so that OpenSSL never has
 * to be given the same bytes again.
 *
 * Failure: a peer without one of our keys ends the handshake, for there is no certificate to fall
 * back to; explain() turns that into what the user can do about it.
 */
#include "tls/channel.h"

#include <assert.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__arm__) || defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define RECORD_PLAIN 16384
#define RECORD_EXTRA 512 /* more than header, type and tag of a record, and an alert */
#define REKEY_BYTES  ((uint64_t)1 << 36) /* far below AES-GCM's limit, RFC 8446 section 5.5 */

#define CIPHERS_AES    "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
#define CIPHERS_NO_AES "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"

static_assert(TLS_PENDING_MAX >= 4 * (RECORD_PLAIN + RECORD_EXTRA), "room for whole records");

struct tls_context {
    atomic_int refs;
    SSL_CTX *ssl;
    BIO_METHOD *bio;
    struct tls_keys keys;
};

struct tls_channel {
    struct tls_context *context;
    SSL *ssl;
    enum tls_role role;
    bool is_ready;     /* the handshake is done, and it was done with a key */
    const uint8_t *in; /* what was fed and not used yet */
    size_t in_bytes;
    size_t sent, filled;              /* out[sent..filled) is pending */
    uint64_t written;                 /* since the last change of keys */
    char key_id[TLS_KEY_ID_SIZE];     /* of the key that both have */
    char offered_id[TLS_KEY_ID_SIZE]; /* of a peer's that we do not have */
    uint8_t out[TLS_PENDING_MAX];
};

/* ---- OpenSSL's socket ------------------------------------------------------------------------ */

static int bio_read(BIO *bio, char *data, int size) {
    struct tls_channel *channel = BIO_get_data(bio);
    size_t bytes = size < 0 ? 0 : (size_t)size;
    BIO_clear_retry_flags(bio);
    if (channel->in_bytes == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (bytes > channel->in_bytes)
        bytes = channel->in_bytes;
    memcpy(data, channel->in, bytes);
    channel->in += bytes;
    channel->in_bytes -= bytes;
    return (int)bytes;
}

static int bio_write(BIO *bio, const char *data, int size) {
    struct tls_channel *channel = BIO_get_data(bio);
    size_t bytes = size < 0 ? 0 : (size_t)size;
    BIO_clear_retry_flags(bio);
    if (bytes > sizeof(channel->out) - channel->filled) { /* no compact(): it may be being sent */
        BIO_set_retry_write(bio);
        return -1;
    }
    memcpy(channel->out + channel->filled, data, bytes);
    channel->filled += bytes;
    return (int)bytes;
}

static long bio_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH; /* everything else is not for us */
}

static BIO_METHOD *make_bio_method(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "convoy");
    if (!method)
        return NULL;
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_ctrl(method, bio_control);
    return method;
}

/* ---- the keys, for OpenSSL ------------------------------------------------------------------- */

/* A key as a session that OpenSSL can begin with. NULL when there is no memory. */
static SSL_SESSION *make_session(SSL *ssl, const struct tls_key *key) {
    static const unsigned char aes_128_gcm_sha256[] = {0x13, 0x01}; /* its hash is what matters */
    SSL_SESSION *session = SSL_SESSION_new();
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256);
    if (session && cipher && SSL_SESSION_set1_master_key(session, key->secret, TLS_KEY_SIZE) &&
        SSL_SESSION_set_cipher(session, cipher) &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

static const struct tls_key *find_key(const struct tls_keys *keys, const unsigned char *id,
                                      size_t bytes) {
    for (size_t i = 0; i < keys->count; i++)
        if (bytes == TLS_KEY_ID_SIZE - 1 && memcmp(keys->keys[i].id, id, bytes) == 0)
            return &keys->keys[i];
    return NULL;
}

/* The accepting end: a peer offers a key by its id. 1 without a session: not one of ours. */
static int on_find_session(SSL *ssl, const unsigned char *id, size_t bytes,
                           SSL_SESSION **ret_session) {
    struct tls_channel *channel = SSL_get_app_data(ssl);
    const struct tls_key *key = find_key(&channel->context->keys, id, bytes);
    *ret_session = NULL;
    if (!key) {
        snprintf(channel->offered_id, sizeof(channel->offered_id), "%.*s",
                 bytes < TLS_KEY_ID_SIZE ? (int)bytes : TLS_KEY_ID_SIZE - 1, (const char *)id);
        return 1;
    }
    memcpy(channel->key_id, key->id, TLS_KEY_ID_SIZE);
    *ret_session = make_session(ssl, key);
    return *ret_session != NULL;
}

/* The connecting end: what to offer. hash: NULL, or the one that the peer has chosen. */
static int on_use_session(SSL *ssl, const EVP_MD *hash, const unsigned char **ret_id,
                          size_t *ret_bytes, SSL_SESSION **ret_session) {
    struct tls_channel *channel = SSL_get_app_data(ssl);
    const struct tls_key *key = &channel->context->keys.keys[0];
    *ret_session = NULL;
    *ret_id = NULL;
    *ret_bytes = 0;
    if (hash && !EVP_MD_is_a(hash, "SHA2-256"))
        return 1;
    *ret_session = make_session(ssl, key);
    if (!*ret_session)
        return 0;
    memcpy(channel->key_id, key->id, TLS_KEY_ID_SIZE);
    *ret_id = (const unsigned char *)key->id;
    *ret_bytes = TLS_KEY_ID_SIZE - 1;
    return 1;
}

/* ---- contexts -------------------------------------------------------------------------------- */

static bool has_aes(void) {
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_supports("aes");
#elif defined(__aarch64__)
    return getauxval(AT_HWCAP) & HWCAP_AES;
#elif defined(__arm__)
    return getauxval(AT_HWCAP2) & HWCAP2_AES;
#else
    return false;
#endif
}

static SSL_CTX *make_ssl_context(void) {
    SSL_CTX *ssl = SSL_CTX_new(TLS_method());
    if (!ssl)
        return NULL;
    if (!SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(ssl, has_aes() ? CIPHERS_AES : CIPHERS_NO_AES) ||
        !SSL_CTX_set1_groups_list(ssl, "X25519:P-256") || !SSL_CTX_set_num_tickets(ssl, 0)) {
        SSL_CTX_free(ssl);
        return NULL;
    }
    SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                 SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_psk_find_session_callback(ssl, on_find_session);
    SSL_CTX_set_psk_use_session_callback(ssl, on_use_session);
    return ssl;
}

struct tls_context *tls_context_new(const struct tls_keys *keys) {
    struct tls_context *context = calloc(1, sizeof(*context));
    if (!context)
        return NULL;
    atomic_init(&context->refs, 1);
    context->keys = *keys;
    context->ssl = make_ssl_context();
    context->bio = make_bio_method();
    if (context->ssl && context->bio)
        return context;
    tls_context_unref(context);
    return NULL;
}

struct tls_context *tls_context_ref(struct tls_context *context) {
    atomic_fetch_add(&context->refs, 1);
    return context;
}

void tls_context_unref(struct tls_context *context) {
    if (!context || atomic_fetch_sub(&context->refs, 1) > 1)
        return;
    SSL_CTX_free(context->ssl);
    BIO_meth_free(context->bio);
    OPENSSL_clear_free(context, sizeof(*context));
}

/* ---- channels -------------------------------------------------------------------------------- */

int tls_channel_new(struct tls_context *context, enum tls_role role,
                    struct tls_channel **ret_channel) {
    struct tls_channel *channel = calloc(1, sizeof(*channel));
    BIO *bio;
    if (!channel)
        return -ENOMEM;
    channel->context = tls_context_ref(context);
    channel->role = role;
    channel->ssl = SSL_new(context->ssl);
    bio = channel->ssl ? BIO_new(context->bio) : NULL;
    if (!bio) {
        tls_channel_free(channel);
        return -ENOMEM;
    }
    BIO_set_data(bio, channel);
    BIO_set_init(bio, 1);
    SSL_set_bio(channel->ssl, bio, bio); /* takes it */
    SSL_set_app_data(channel->ssl, channel);
    if (role == TLS_CONNECTS) {
        /* Who shows a certificate instead of the key is not let in: nobody signs any. */
        SSL_set_verify(channel->ssl, SSL_VERIFY_PEER, NULL);
        SSL_set_connect_state(channel->ssl);
        SSL_do_handshake(channel->ssl); /* its first flight; wants an answer then */
    } else {
        SSL_set_accept_state(channel->ssl);
    }
    ERR_clear_error();
    *ret_channel = channel;
    return 0;
}

void tls_channel_free(struct tls_channel *channel) {
    if (!channel)
        return;
    SSL_free(channel->ssl);
    tls_context_unref(channel->context);
    OPENSSL_clear_free(channel, sizeof(*channel));
}

void tls_channel_feed(struct tls_channel *channel, const void *data, size_t bytes) {
    channel->in = data;
    channel->in_bytes = bytes;
}

/* Why the handshake or the stream failed, in words that lead to a remedy. */
static int explain(struct tls_channel *channel, struct err *err) {
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_reason_error_string(code);
    bool alert = ERR_GET_LIB(code) == ERR_LIB_SSL &&
                 ERR_GET_REASON(code) == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE;
    ERR_clear_error();
    if (channel->is_ready)
        return err_set(err, -EPROTO, "what came was not encrypted by the peer (%s)",
                       reason ? reason : "broken record");
    if (channel->offered_id[0])
        return err_set(err, -EPROTO, "its key %s is not one of ours; give both the same key file",
                       channel->offered_id);
    if (channel->role == TLS_CONNECTS && alert)
        return err_set(err, -EPROTO, "it does not accept our key %s; give both the same key file",
                       channel->key_id);
    return err_set(err, -EPROTO, "no encrypted connection with it (%s): %s",
                   reason ? reason : "no TLS",
                   channel->role == TLS_ACCEPTS ? "it must be given the key of this device"
                                                : "does it have a key: in its configuration?");
}

/* After the handshake. A handshake without the key cannot succeed; this makes sure. */
static int finish_handshake(struct tls_channel *channel, struct err *err) {
    if (channel->is_ready || !SSL_is_init_finished(channel->ssl))
        return 0;
    if (!SSL_session_reused(channel->ssl) || channel->key_id[0] == '\0')
        return err_set(err, -EPROTO, "it did not prove that it has the key");
    channel->is_ready = true;
    return 0;
}

/* Maps the outcome of an SSL call that gave nothing. */
static ssize_t failed(struct tls_channel *channel, int result, struct err *err) {
    switch (SSL_get_error(channel->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        return err_set(err, -EPROTO, "it does not read what it is sent");
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        return explain(channel, err);
    }
}

ssize_t tls_channel_read(struct tls_channel *channel, void *data, size_t size, struct err *err) {
    size_t bytes = 0;
    ERR_clear_error();
    int result = SSL_read_ex(channel->ssl, data, size, &bytes);
    int rc = finish_handshake(channel, err);
    if (rc < 0)
        return rc;
    return result == 1 ? (ssize_t)bytes : failed(channel, result, err);
}

static void compact(struct tls_channel *channel) {
    memmove(channel->out, channel->out + channel->sent, channel->filled - channel->sent);
    channel->filled -= channel->sent;
    channel->sent = 0;
}

/* Makes room for a record at the end of out, with something to spare for what OpenSSL says of its
 * own accord. */
static bool has_room(struct tls_channel *channel) {
    const size_t record = RECORD_PLAIN + RECORD_EXTRA;
    if (sizeof(channel->out) - channel->filled < record && channel->sent >= record)
        compact(channel);
    return sizeof(channel->out) - channel->filled >= record + RECORD_EXTRA;
}

ssize_t tls_channel_write(struct tls_channel *channel, const void *data, size_t size,
                          struct err *err) {
    size_t total = 0;
    while (channel->is_ready && total < size && has_room(channel)) {
        size_t bytes = size - total < RECORD_PLAIN ? size - total : RECORD_PLAIN;
        ERR_clear_error();
        if (channel->written >= REKEY_BYTES &&
            SSL_key_update(channel->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
            channel->written = 0;
        int result = SSL_write_ex(channel->ssl, (const char *)data + total, bytes, &bytes);
        if (result != 1) {
            ssize_t rc = failed(channel, result, err);
            return rc == 0 ? -EPROTO : rc == -EAGAIN && total > 0 ? (ssize_t)total : rc;
        }
        total += bytes;
        channel->written += bytes;
    }
    return total > 0 || size == 0 ? (ssize_t)total : -EAGAIN;
}

const void *tls_channel_pending(const struct tls_channel *channel, size_t *ret_bytes) {
    *ret_bytes = channel->filled - channel->sent;
    return channel->out + channel->sent;
}

void tls_channel_sent(struct tls_channel *channel, size_t bytes) {
    channel->sent += bytes;
    if (channel->sent == channel->filled)
        channel->sent = channel->filled = 0;
}

bool tls_channel_is_ready(const struct tls_channel *channel) {
    return channel->is_ready;
}

const char *tls_channel_cipher(const struct tls_channel *channel) {
    return channel->is_ready ? SSL_get_cipher_name(channel->ssl) : "";
}

const char *tls_channel_key_id(const struct tls_channel *channel) {
    return channel->is_ready ? channel->key_id : "";
}

void tls_channel_shutdown(struct tls_channel *channel) {
    if (channel->is_ready)
        SSL_shutdown(channel->ssl);
    ERR_clear_error();
}

bool tls_is_record(const void *data, size_t bytes) {
    const uint8_t *at = data;
    return bytes >= 2 && at[0] >= SSL3_RT_CHANGE_CIPHER_SPEC && at[0] <= SSL3_RT_APPLICATION_DATA &&
           at[1] == SSL3_VERSION_MAJOR;
}
