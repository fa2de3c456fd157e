#include "base/sha256.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Vectors of FIPS 180-2, appendix B, and of the empty message. */
static void digests_are_those_of_the_standard(void **state) {
    (void)state;
    static const struct {
        const char *text, *hex;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        uint8_t digest[SHA256_SIZE];
        char hex[SHA256_HEX];
        assert_int_equal(sha256(vectors[i].text, strlen(vectors[i].text), digest), 0);
        assert_ptr_equal(sha256_format(digest, hex), hex);
        assert_string_equal(hex, vectors[i].hex);
    }
}

static void a_million_bytes_are_digested_whole(void **state) {
    (void)state;
    size_t size = 1000000;
    char *data = malloc(size);
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX];
    assert_non_null(data);
    memset(data, 'a', size);
    assert_int_equal(sha256(data, size, digest), 0);
    assert_string_equal(sha256_format(digest, hex),
                        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(data);
}

static void a_file_has_the_digest_of_its_bytes_from_where_it_stands(void **state) {
    (void)state;
    size_t size = 300000;
    char *data = malloc(size);
    uint8_t wanted[SHA256_SIZE], digest[SHA256_SIZE];
    FILE *file = tmpfile();
    assert_non_null(data);
    assert_non_null(file);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 31 + i / 7);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fflush(file), 0);
    for (size_t from = 0; from <= size; from += size / 2) {
        assert_int_equal(lseek(fileno(file), (off_t)from, SEEK_SET), from);
        assert_int_equal(sha256_file(fileno(file), digest), 0);
        assert_int_equal(sha256(data + from, size - from, wanted), 0);
        assert_memory_equal(digest, wanted, SHA256_SIZE);
    }
    assert_int_equal(sha256_file(-1, digest), -EBADF);
    fclose(file);
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_the_standard),
        cmocka_unit_test(a_million_bytes_are_digested_whole),
        cmocka_unit_test(a_file_has_the_digest_of_its_bytes_from_where_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
