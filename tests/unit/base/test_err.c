#include "base/err.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

static void a_sentence_is_set_and_the_code_returned(void **state) {
    (void)state;
    struct err err;
    assert_int_equal(err_set(&err, -EINVAL, "line %d: %s", 3, "no such key"), -EINVAL);
    assert_string_equal(err.text, "line 3: no such key");
}

static void without_an_err_only_the_code_travels(void **state) {
    (void)state;
    assert_int_equal(err_set(NULL, -EPROTO, "never seen"), -EPROTO);
    assert_int_equal(err_prefix(NULL, -EPROTO, "never seen"), -EPROTO);
}

static void context_goes_in_front(void **state) {
    (void)state;
    struct err err;
    err_set(&err, -EINVAL, "bad");
    assert_int_equal(err_prefix(&err, -EINVAL, "layer %d", 7), -EINVAL);
    err_prefix(&err, -EINVAL, "%s", "model.onnx");
    assert_string_equal(err.text, "model.onnx: layer 7: bad");
}

static void a_sentence_may_be_part_of_the_next_one(void **state) {
    (void)state;
    struct err err;
    err_set(&err, -EINVAL, "first");
    err_prefix(&err, -EINVAL, "again (%s)", err.text);
    assert_string_equal(err.text, "again (first): first");
}

static void what_is_too_long_is_cut(void **state) {
    (void)state;
    struct err err;
    char text[2000];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(err_set(&err, -EINVAL, "%s", text), -EINVAL);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_int_equal(err_prefix(&err, -EINVAL, "ab"), -EINVAL);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "ab: xx", 6);
    assert_int_equal(err_prefix(&err, -EINVAL, "%s", text), -EINVAL);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

/* A sentence may go into a message, and half a character would not be UTF-8. */
static void a_cut_never_parts_a_character(void **state) {
    (void)state;
    static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x9a\x97"};
    for (size_t i = 0; i < 3; i++)
        for (size_t shift = 0; shift < 8; shift++) {
            struct err err;
            char text[1000] = {0};
            size_t size = strlen(characters[i]);
            memset(text, 'x', shift);
            for (size_t at = shift; at + size < sizeof(text); at += size)
                memcpy(text + at, characters[i], size);
            err_set(&err, -EINVAL, "%s", text);
            assert_int_equal((strlen(err.text) - shift) % size, 0);
            assert_true(strlen(err.text) >= sizeof(err.text) - size);
            err_prefix(&err, -EINVAL, "y");
            assert_int_equal((strlen(err.text) - strlen("y: ") - shift) % size, 0);
        }
}

/* What fits exactly is not cut, whatever it ends in. */
static void a_character_that_just_fits_stays(void **state) {
    (void)state;
    struct err err;
    char text[512] = {0};
    memset(text, 'x', 509);
    text[509] = '\xc3';
    text[510] = '\xa9';
    err_set(&err, -EINVAL, "%s", text);
    assert_string_equal(err.text, text);
}

static void the_nearest_word_is_suggested(void **state) {
    (void)state;
    static const char *const words[] = {"pipeline", "listen", "workers", "threads"};
    assert_string_equal(err_nearest("pipline", words, 4), "pipeline");
    assert_string_equal(err_nearest("worker", words, 4), "workers");
    assert_string_equal(err_nearest("threads", words, 4), "threads");
    assert_string_equal(err_nearest("lisetn", words, 4), "listen");
    assert_null(err_nearest("banana", words, 4));
    assert_null(err_nearest("pipeline", words, 0));
    assert_null(err_nearest("x", words, 4));
}

static void words_of_any_length_are_compared(void **state) {
    (void)state;
    char word[300];
    memset(word, 'a', sizeof(word));
    word[sizeof(word) - 1] = '\0';
    const char *const words[] = {"", word};
    assert_ptr_equal(err_nearest(word, words, 2), word);
    assert_string_equal(err_nearest("", words, 1), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sentence_is_set_and_the_code_returned),
        cmocka_unit_test(without_an_err_only_the_code_travels),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(a_sentence_may_be_part_of_the_next_one),
        cmocka_unit_test(what_is_too_long_is_cut),
        cmocka_unit_test(a_cut_never_parts_a_character),
        cmocka_unit_test(a_character_that_just_fits_stays),
        cmocka_unit_test(the_nearest_word_is_suggested),
        cmocka_unit_test(words_of_any_length_are_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
