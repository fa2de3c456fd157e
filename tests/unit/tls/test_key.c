#include "tests/lib/folder.h"
#include "tls/key.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define OTHERS "F0E1D2C3B4A5968778695A4B3C2D1E0F000102030405060708090a0b0c0d0e0f"

static char folder[PATH_MAX], path[PATH_MAX + 16];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof(folder), "%s/convoy-key-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/cluster.key", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    return folder_remove(folder);
}

static void write_file(const char *text, mode_t mode) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void a_made_key_is_read_back(void **state) {
    struct tls_keys made = {.count = 1}, read;
    struct err err = {""};
    struct stat st;
    (void)state;
    assert_int_equal(tls_key_generate(&made.keys[0], &err), 0);
    assert_int_equal(tls_keys_save(path, &made, -1, 0, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(tls_keys_load(path, &read, &err), 0);
    assert_int_equal(read.count, 1);
    assert_memory_equal(read.keys[0].secret, made.keys[0].secret, TLS_KEY_SIZE);
    assert_string_equal(read.keys[0].id, made.keys[0].id);
    assert_int_equal(strlen(read.keys[0].id), TLS_KEY_ID_SIZE - 1);
}

static void no_two_made_keys_are_alike(void **state) {
    struct tls_key one, two;
    (void)state;
    assert_int_equal(tls_key_generate(&one, NULL), 0);
    assert_int_equal(tls_key_generate(&two, NULL), 0);
    assert_memory_not_equal(one.secret, two.secret, TLS_KEY_SIZE);
    assert_string_not_equal(one.id, two.id);
}

static void an_existing_file_is_replaced_only_on_demand(void **state) {
    struct tls_keys keys = {.count = 2};
    struct err err = {""};
    (void)state;
    assert_int_equal(tls_key_generate(&keys.keys[0], &err), 0);
    assert_int_equal(tls_key_generate(&keys.keys[1], &err), 0);
    write_file("precious\n", 0600);
    assert_int_equal(tls_keys_save(path, &keys, -1, 0, &err), -EEXIST);
    assert_non_null(strstr(err.text, "there is a file already"));
    assert_int_equal(tls_keys_save(path, &keys, -1, 1, &err), 0);
    struct tls_keys read;
    assert_int_equal(tls_keys_load(path, &read, &err), 0);
    assert_int_equal(read.count, 2);
    assert_memory_equal(read.keys[1].secret, keys.keys[1].secret, TLS_KEY_SIZE);
}

static void comments_blank_lines_and_both_cases_of_digits_are_taken(void **state) {
    struct tls_keys keys;
    struct err err = {""};
    (void)state;
    write_file("# the new one\nconvoy-key-1:" DIGITS "\r\n\n  \nconvoy-key-1:" OTHERS, 0400);
    assert_int_equal(tls_keys_load(path, &keys, &err), 0);
    assert_int_equal(keys.count, 2);
    assert_int_equal(keys.keys[0].secret[31], 0x1f);
    assert_int_equal(keys.keys[1].secret[0], 0xf0);
    /* The id is part of the protocol: it may not change from version to version. Computed with
     * printf 'convoy key id 1\0'; the 32 bytes; sha256sum. */
    assert_string_equal(keys.keys[0].id, "5b90c4940a0f4af5");
}

static void a_file_that_others_may_read_is_refused(void **state) {
    static const mode_t modes[] = {0640, 0604, 0660, 0666, 0601};
    struct tls_keys keys;
    (void)state;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct err err = {""};
        write_file("convoy-key-1:" DIGITS "\n", modes[i]);
        assert_int_equal(tls_keys_load(path, &keys, &err), -EACCES);
        assert_non_null(strstr(err.text, "chmod 600"));
    }
}

static void every_mistake_names_its_line_and_shows_no_secret(void **state) {
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "no key in it"},
        {"# nothing\n", "no key in it"},
        {"hello\n", "line 1: not a key"},
        {"\nconvoy-key-1:0001\n", "line 2: not a key"},
        {"convoy-key-1:" DIGITS "00\n", "line 1: not a key"},
        {"convoy-key-2:" DIGITS "\n", "line 1: not a key"},
        {"convoy-key-1:g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n",
         "line 1: not a key"},
        {"convoy-key-1:" DIGITS "\nconvoy-key-1:" DIGITS "\nconvoy-key-1:" DIGITS "\n",
         "line 3: more than 2 keys"},
    };
    struct tls_keys keys;
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = {""};
        write_file(cases[i].text, 0600);
        assert_int_equal(tls_keys_load(path, &keys, &err), -EINVAL);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_int_equal(strncmp(err.text, path, strlen(path)), 0);
        assert_null(strstr(err.text, "0102030405"));
    }
}

static void what_is_no_key_file_is_refused(void **state) {
    struct tls_keys keys;
    struct err err = {""};
    char *large = calloc(1, TLS_KEY_FILE_MAX + 2);
    (void)state;
    assert_int_equal(tls_keys_load(folder, &keys, &err), -EINVAL);
    assert_int_equal(tls_keys_load("/nowhere/cluster.key", &keys, &err), -ENOENT);
    assert_non_null(large);
    memset(large, '#', TLS_KEY_FILE_MAX + 1);
    write_file(large, 0600);
    free(large);
    assert_int_equal(tls_keys_load(path, &keys, &err), -EFBIG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_made_key_is_read_back, make_folder, remove_folder),
        cmocka_unit_test(no_two_made_keys_are_alike),
        cmocka_unit_test_setup_teardown(an_existing_file_is_replaced_only_on_demand, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(comments_blank_lines_and_both_cases_of_digits_are_taken,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_file_that_others_may_read_is_refused, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(every_mistake_names_its_line_and_shows_no_secret,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(what_is_no_key_file_is_refused, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
