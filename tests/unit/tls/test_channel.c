#include "tls/channel.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Two channels, and what is under way between them. */
struct pair {
    struct tls_channel *ends[2]; /* that connects, that accepts */
    int rc[2];                   /* of the last read of each, when it failed */
    struct err err[2];
};

static struct tls_context *context_of(size_t count, const char *const *names) {
    struct tls_keys keys = {.count = count};
    for (size_t i = 0; i < count; i++) {
        memset(keys.keys[i].secret, names[i][0], TLS_KEY_SIZE);
        snprintf(keys.keys[i].id, sizeof(keys.keys[i].id), "%.1s123456789abcdef", names[i]);
    }
    struct tls_context *context = tls_context_new(&keys);
    assert_non_null(context);
    return context;
}

static struct tls_context *context_with(const char *name) {
    return context_of(1, (const char *[]){name});
}

static void begin(struct pair *pair, struct tls_context *connects, struct tls_context *accepts) {
    memset(pair, 0, sizeof(*pair));
    assert_int_equal(tls_channel_new(connects, TLS_CONNECTS, &pair->ends[0]), 0);
    assert_int_equal(tls_channel_new(accepts, TLS_ACCEPTS, &pair->ends[1]), 0);
    tls_context_unref(connects);
    tls_context_unref(accepts);
}

static void end(struct pair *pair) {
    tls_channel_free(pair->ends[0]);
    tls_channel_free(pair->ends[1]);
}

/* Carries what is pending at one end to the other, at most chunk bytes at a time; what the other
 * reads is appended to text. */
static size_t carry(struct pair *pair, int from, size_t chunk, char *text, size_t size) {
    struct tls_channel *sender = pair->ends[from], *receiver = pair->ends[!from];
    size_t bytes, total = 0;
    for (;;) {
        const void *pending = tls_channel_pending(sender, &bytes);
        if (bytes == 0 || pair->rc[!from] < 0)
            return total;
        if (bytes > chunk)
            bytes = chunk;
        tls_channel_feed(receiver, pending, bytes);
        for (;;) {
            char data[64];
            ssize_t n = tls_channel_read(receiver, data, sizeof(data), &pair->err[!from]);
            if (n == -EAGAIN)
                break;
            if (n <= 0) {
                pair->rc[!from] = n == 0 ? -EPIPE : (int)n;
                break;
            }
            assert_true(total + (size_t)n <= size);
            memcpy(text + total, data, (size_t)n);
            total += (size_t)n;
        }
        tls_channel_sent(sender, bytes);
    }
}

static void shake_hands(struct pair *pair, size_t chunk) {
    for (int i = 0; i < 4; i++) {
        assert_int_equal(carry(pair, 0, chunk, NULL, 0), 0);
        assert_int_equal(carry(pair, 1, chunk, NULL, 0), 0);
    }
}

static void two_ends_with_the_same_key_agree(void **state) {
    struct pair pair;
    (void)state;
    begin(&pair, context_with("k"), context_with("k"));
    assert_false(tls_channel_is_ready(pair.ends[0]));
    shake_hands(&pair, SIZE_MAX);
    for (int i = 0; i < 2; i++) {
        assert_true(tls_channel_is_ready(pair.ends[i]));
        assert_string_equal(tls_channel_key_id(pair.ends[i]), "k123456789abcdef");
        assert_int_equal(strncmp(tls_channel_cipher(pair.ends[i]), "TLS_", 4), 0);
    }
    end(&pair);
}

static void bytes_arrive_in_any_pieces_and_are_not_readable_on_the_way(void **state) {
    static const size_t chunks[] = {1, 2, 5, 17, 1000, SIZE_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        static const char secret[] = "the cat sat on the mat, and nobody else saw it";
        struct pair pair;
        char text[sizeof(secret)];
        size_t bytes;
        begin(&pair, context_with("k"), context_with("k"));
        shake_hands(&pair, chunks[i]);
        for (int from = 0; from < 2; from++) {
            assert_int_equal(tls_channel_write(pair.ends[from], secret, sizeof(secret), NULL),
                             sizeof(secret));
            const char *pending = tls_channel_pending(pair.ends[from], &bytes);
            assert_true(bytes > sizeof(secret));
            assert_null(memmem(pending, bytes, "the cat", 7));
            assert_int_equal(carry(&pair, from, chunks[i], text, sizeof(text)), sizeof(secret));
            assert_string_equal(text, secret);
        }
        end(&pair);
    }
}

static void a_large_piece_is_taken_bit_by_bit_and_nothing_grows(void **state) {
    const size_t size = 3 * 1024 * 1024 + 17;
    char *data = malloc(size), *text = malloc(size);
    struct pair pair;
    size_t sent = 0, got = 0, bytes;
    (void)state;
    assert_true(data && text);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    begin(&pair, context_with("k"), context_with("k"));
    shake_hands(&pair, SIZE_MAX);
    while (sent < size) {
        ssize_t n = tls_channel_write(pair.ends[0], data + sent, size - sent, NULL);
        assert_true(n > 0);
        sent += (size_t)n;
        while (tls_channel_write(pair.ends[0], "x", 0, NULL) > 0)
            fail();
        tls_channel_pending(pair.ends[0], &bytes);
        assert_true(bytes <= TLS_PENDING_MAX);
        got += carry(&pair, 0, 10007, text + got, size - got);
    }
    assert_int_equal(got, size);
    assert_memory_equal(text, data, size);
    end(&pair);
    free(data);
    free(text);
}

static void a_full_channel_takes_nothing_until_something_was_sent(void **state) {
    static char data[TLS_PENDING_MAX];
    struct pair pair;
    size_t taken = 0;
    ssize_t n;
    (void)state;
    begin(&pair, context_with("k"), context_with("k"));
    assert_int_equal(tls_channel_write(pair.ends[0], data, 1, NULL), -EAGAIN);
    shake_hands(&pair, SIZE_MAX);
    while ((n = tls_channel_write(pair.ends[0], data, sizeof(data), NULL)) > 0)
        taken += (size_t)n;
    assert_int_equal(n, -EAGAIN);
    assert_in_range(taken, 48 * 1024, TLS_PENDING_MAX);
    char *text = malloc(taken + 1);
    assert_int_equal(carry(&pair, 0, SIZE_MAX, text, taken), taken);
    assert_int_equal(tls_channel_write(pair.ends[0], data, 1, NULL), 1);
    free(text);
    end(&pair);
}

static void keys_that_differ_do_not_agree_and_both_ends_say_so(void **state) {
    struct pair pair;
    (void)state;
    begin(&pair, context_with("k"), context_with("z"));
    shake_hands(&pair, SIZE_MAX);
    assert_int_equal(pair.rc[1], -EPROTO);
    assert_non_null(strstr(pair.err[1].text, "its key k123456789abcdef is not one of ours"));
    assert_int_equal(pair.rc[0], -EPROTO);
    assert_non_null(strstr(pair.err[0].text, "does not accept our key k123456789abcdef"));
    assert_false(tls_channel_is_ready(pair.ends[0]));
    assert_false(tls_channel_is_ready(pair.ends[1]));
    end(&pair);
}

/* The id is not the secret: who has read it off the wire still does not get in. */
static void the_right_id_with_a_wrong_secret_is_refused(void **state) {
    struct tls_keys keys = {.count = 1};
    struct pair pair;
    (void)state;
    memset(keys.keys[0].secret, 'x', TLS_KEY_SIZE);
    snprintf(keys.keys[0].id, sizeof(keys.keys[0].id), "k123456789abcdef");
    begin(&pair, tls_context_new(&keys), context_with("k"));
    shake_hands(&pair, SIZE_MAX);
    assert_int_equal(pair.rc[1], -EPROTO);
    assert_false(tls_channel_is_ready(pair.ends[0]));
    assert_false(tls_channel_is_ready(pair.ends[1]));
    end(&pair);
}

/* The three steps of a roll-over from a to b: nobody is locked out between any two of them. */
static void keys_can_be_rolled_over_one_device_after_the_other(void **state) {
    static const struct {
        const char *keys[2];
        size_t count;
    } steps[] = {{{"a"}, 1}, {{"a", "b"}, 2}, {{"b", "a"}, 2}, {{"b"}, 1}};
    (void)state;
    for (size_t step = 0; step + 1 < 4; step++) {
        for (size_t which = 0; which < 2; which++) {
            const size_t one = step + which, two = step + !which;
            struct pair pair;
            begin(&pair, context_of(steps[one].count, steps[one].keys),
                  context_of(steps[two].count, steps[two].keys));
            shake_hands(&pair, SIZE_MAX);
            assert_true(tls_channel_is_ready(pair.ends[0]));
            assert_true(tls_channel_is_ready(pair.ends[1]));
            end(&pair);
        }
    }
}

static void what_is_not_tls_is_an_error_with_a_remedy(void **state) {
    struct tls_context *context = context_with("k");
    struct tls_channel *channel;
    struct err err = {""};
    char data[16];
    (void)state;
    assert_int_equal(tls_channel_new(context, TLS_ACCEPTS, &channel), 0);
    tls_context_unref(context);
    tls_channel_feed(channel, "\x92\x80\x80\x80\x00 plain talk", 16);
    assert_int_equal(tls_channel_read(channel, data, sizeof(data), &err), -EPROTO);
    assert_non_null(strstr(err.text, "must be given the key"));
    tls_channel_free(channel);
}

static void a_changed_byte_is_noticed(void **state) {
    struct pair pair;
    char data[64], wire[128];
    size_t bytes;
    struct err err = {""};
    (void)state;
    begin(&pair, context_with("k"), context_with("k"));
    shake_hands(&pair, SIZE_MAX);
    assert_int_equal(tls_channel_write(pair.ends[0], "hello", 5, NULL), 5);
    memcpy(wire, tls_channel_pending(pair.ends[0], &bytes), 27);
    assert_int_equal(bytes, 27);
    wire[20] ^= 1;
    tls_channel_feed(pair.ends[1], wire, bytes);
    assert_int_equal(tls_channel_read(pair.ends[1], data, sizeof(data), &err), -EPROTO);
    assert_non_null(strstr(err.text, "not encrypted by the peer"));
    end(&pair);
}

static void the_end_is_told_in_good_order(void **state) {
    struct pair pair;
    (void)state;
    begin(&pair, context_with("k"), context_with("k"));
    shake_hands(&pair, SIZE_MAX);
    tls_channel_shutdown(pair.ends[0]);
    carry(&pair, 0, SIZE_MAX, NULL, 0);
    assert_int_equal(pair.rc[1], -EPIPE); /* carry()'s word for a read of 0 */
    end(&pair);
}

static void tls_is_told_from_convoys_own_messages(void **state) {
    struct tls_context *context = context_with("k");
    struct tls_channel *channel;
    size_t bytes;
    (void)state;
    assert_int_equal(tls_channel_new(context, TLS_CONNECTS, &channel), 0);
    tls_context_unref(context);
    const void *pending = tls_channel_pending(channel, &bytes);
    assert_true(tls_is_record(pending, bytes));
    assert_false(tls_is_record("\x96\x80\x80\x80\x00\x09", 6));
    assert_false(tls_is_record("\x16\x09", 2)); /* a message of 22 bytes from a stock client */
    assert_false(tls_is_record("\x16", 1));
    tls_channel_free(channel);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ends_with_the_same_key_agree),
        cmocka_unit_test(bytes_arrive_in_any_pieces_and_are_not_readable_on_the_way),
        cmocka_unit_test(a_large_piece_is_taken_bit_by_bit_and_nothing_grows),
        cmocka_unit_test(a_full_channel_takes_nothing_until_something_was_sent),
        cmocka_unit_test(keys_that_differ_do_not_agree_and_both_ends_say_so),
        cmocka_unit_test(the_right_id_with_a_wrong_secret_is_refused),
        cmocka_unit_test(keys_can_be_rolled_over_one_device_after_the_other),
        cmocka_unit_test(what_is_not_tls_is_an_error_with_a_remedy),
        cmocka_unit_test(a_changed_byte_is_noticed),
        cmocka_unit_test(the_end_is_told_in_good_order),
        cmocka_unit_test(tls_is_told_from_convoys_own_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
