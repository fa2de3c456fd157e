/* Parts on disk: nothing wrong gets a name, nothing takes more room than it may. */
#include "daemon/control/cache.h"
#include "tests/lib/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#define LIMIT (1u << 20)

static const struct cache_limits limits = {LIMIT, 100};

static bool disk_is_full;

/* Instead of libc's, for cache.c. */
int fstatvfs(int fildes, struct statvfs *buf) {
    struct statfs info;
    if (fstatfs(fildes, &info) < 0)
        return -1;
    *buf = (struct statvfs){.f_frsize = (unsigned long)info.f_bsize,
                            .f_bavail = disk_is_full ? 0 : info.f_bavail};
    return 0;
}

struct fixture {
    char state[64];
    struct cache *cache;
};

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct err err = {""};
    assert_non_null(fixture);
    strcpy(fixture->state, "/tmp/convoy-cache-XXXXXX");
    assert_non_null(mkdtemp(fixture->state));
    if (cache_open(fixture->state, &limits, &fixture->cache, &err) < 0)
        fail_msg("%s", err.text);
    *state = fixture;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    cache_close(fixture->cache);
    folder_remove(fixture->state);
    free(fixture);
    return 0;
}

/* The contents of part number `seed`. */
static char *contents(unsigned seed, size_t size, uint8_t digest[SHA256_SIZE]) {
    char *data = malloc(size + 1);
    assert_non_null(data);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 7 + seed * 31 + i / 251);
    assert_int_equal(sha256(data, size, digest), 0);
    return data;
}

/* Receives size bytes of part seed, of which `stop` come. */
static int receive(struct cache *cache, unsigned seed, size_t size, size_t stop,
                   uint8_t digest[SHA256_SIZE], uint64_t *ret_have) {
    struct err err = {""};
    char *data = contents(seed, size, digest);
    int fd = -1;
    int rc = cache_begin(cache, digest, size, NULL, &fd, ret_have, &err);
    if (rc == 0) {
        size_t count = stop > *ret_have ? stop - (size_t)*ret_have : 0;
        assert_int_equal(pwrite(fd, data + *ret_have, count, (off_t)*ret_have), count);
        rc = stop == size ? cache_commit(cache, digest, fd, &err) : 0;
        close(fd);
    }
    assert_true((rc < 0) == (err.text[0] != '\0'));
    free(data);
    return rc;
}

static bool has(struct cache *cache, const uint8_t digest[SHA256_SIZE]) {
    char *path = NULL;
    uint64_t bytes;
    bool found = cache_find(cache, digest, &path, &bytes) == 0;
    if (found)
        assert_int_equal(access(path, R_OK), 0);
    free(path);
    return found;
}

static void a_part_is_there_when_all_of_it_has_come(void **state) {
    struct fixture *fixture = *state;
    uint8_t digest[SHA256_SIZE];
    uint64_t have = 9;
    char *path = NULL, hex[SHA256_HEX], wanted[256];
    uint64_t bytes = 0;

    assert_int_equal(receive(fixture->cache, 1, 5000, 5000, digest, &have), 0);

    assert_int_equal(have, 0);
    assert_int_equal(cache_find(fixture->cache, digest, &path, &bytes), 0);
    assert_int_equal(bytes, 5000);
    snprintf(wanted, sizeof(wanted), "%s/parts/%s.onnx", fixture->state,
             sha256_format(digest, hex));
    assert_string_equal(path, wanted);
    free(path);
    digest[0] ^= 1;
    assert_int_equal(cache_find(fixture->cache, digest, &path, &bytes), -ENOENT);
}

static void a_transfer_that_broke_off_goes_on_where_it_was(void **state) {
    struct fixture *fixture = *state;
    uint8_t digest[SHA256_SIZE];
    uint64_t have = 0;
    assert_int_equal(receive(fixture->cache, 1, 5000, 1234, digest, &have), 0);
    assert_false(has(fixture->cache, digest));
    cache_close(fixture->cache); /* the daemon is started again meanwhile */
    assert_int_equal(cache_open(fixture->state, &limits, &fixture->cache, NULL), 0);

    assert_int_equal(receive(fixture->cache, 1, 5000, 5000, digest, &have), 0);

    assert_int_equal(have, 1234);
    assert_true(has(fixture->cache, digest));
}

static void what_is_not_what_it_should_be_is_removed(void **state) {
    struct fixture *fixture = *state;
    uint8_t digest[SHA256_SIZE];
    uint64_t have;
    struct err err = {""};
    struct cache_usage usage;
    char *data = contents(1, 5000, digest);
    int fd = -1;
    data[4999] ^= 1;
    assert_int_equal(cache_begin(fixture->cache, digest, 5000, NULL, &fd, &have, &err), 0);
    assert_int_equal(write(fd, data, 5000), 5000);

    assert_int_equal(cache_commit(fixture->cache, digest, fd, &err), -EBADMSG);

    assert_non_null(strstr(err.text, "SHA-256"));
    assert_false(has(fixture->cache, digest));
    cache_get_usage(fixture->cache, &usage);
    assert_int_equal(usage.bytes, 0);
    close(fd);
    free(data);
    assert_int_equal(receive(fixture->cache, 1, 5000, 5000, digest, &have), 0);
    assert_int_equal(have, 0);
}

static void an_unfinished_file_that_is_too_long_begins_anew(void **state) {
    struct fixture *fixture = *state;
    uint8_t digest[SHA256_SIZE];
    uint64_t have;
    struct err err = {""};
    int fd = -1;
    char *data = contents(1, 5000, digest);
    assert_int_equal(cache_begin(fixture->cache, digest, 9000, NULL, &fd, &have, &err), 0);
    assert_int_equal(ftruncate(fd, 9000), 0);
    close(fd);
    free(data);

    assert_int_equal(receive(fixture->cache, 1, 5000, 5000, digest, &have), 0);

    assert_int_equal(have, 0);
    assert_true(has(fixture->cache, digest));
}

/* Four parts of 200000 bytes, used in the order of age[], the first longest ago; and one that is
 * unfinished, of 100000 bytes. */
static void fill(struct fixture *fixture, uint8_t digests[5][SHA256_SIZE], const int *age) {
    uint64_t have;
    for (unsigned i = 0; i < 4; i++) {
        char path[256], hex[SHA256_HEX];
        assert_int_equal(receive(fixture->cache, i, 200000, 200000, digests[i], &have), 0);
        snprintf(path, sizeof(path), "%s/parts/%s.onnx", fixture->state,
                 sha256_format(digests[i], hex));
        const struct timespec times[2] = {{.tv_sec = 1000 + age[i]}, {.tv_sec = 1000 + age[i]}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    assert_int_equal(receive(fixture->cache, 4, 150000, 100000, digests[4], &have), 0);
}

static void the_oldest_unused_parts_make_room(void **state) {
    struct fixture *fixture = *state;
    static const int age[] = {2, 0, 3, 1};
    uint8_t digests[5][SHA256_SIZE], digest[SHA256_SIZE];
    struct cache_usage usage;
    uint64_t have;
    fill(fixture, digests, age);
    assert_true(has(fixture->cache, digests[1])); /* the oldest is used again */

    assert_int_equal(receive(fixture->cache, 9, 400000, 400000, digest, &have), 0);

    cache_get_usage(fixture->cache, &usage);
    assert_int_equal(usage.bytes, 1000000);
    assert_int_equal(usage.parts, 4);
    assert_true(has(fixture->cache, digests[0]));
    assert_true(has(fixture->cache, digests[1]));
    assert_true(has(fixture->cache, digests[2]));
    assert_false(has(fixture->cache, digests[3]));
    assert_int_equal(receive(fixture->cache, 4, 150000, 100000, digests[4], &have), 0);
    assert_int_equal(have, 0); /* the unfinished one went first of all */
}

static void parts_in_use_stay(void **state) {
    struct fixture *fixture = *state;
    static const int age[] = {0, 1, 2, 3};
    uint8_t digests[5][SHA256_SIZE];
    struct err err = {""};
    struct cache_usage usage;
    fill(fixture, digests, age);
    const struct cache_keep keep = {.digests = (const uint8_t(*)[SHA256_SIZE])digests, .count = 2};

    assert_int_equal(cache_make_room(fixture->cache, 600000, &keep, &err), 0);

    assert_true(has(fixture->cache, digests[0]));
    assert_true(has(fixture->cache, digests[1]));
    assert_false(has(fixture->cache, digests[2]));
    cache_get_usage(fixture->cache, &usage);
    assert_int_equal(usage.bytes, 400000);
    assert_int_equal(cache_make_room(fixture->cache, LIMIT - 400000, &keep, &err), 0);
    assert_int_equal(cache_make_room(fixture->cache, LIMIT - 399999, &keep, &err), -EFBIG);
    assert_non_null(strstr(err.text, "`cache:` (1048576 bytes, of which 400000 are in use)"));
    assert_true(has(fixture->cache, digests[0]));
}

static void a_refusal_removes_nothing(void **state) {
    struct fixture *fixture = *state;
    const struct cache_limits vast = {UINT64_C(1) << 62, 4};
    static const int age[] = {0, 1, 2, 3};
    uint8_t digests[5][SHA256_SIZE];
    struct err err = {""};
    struct cache_usage usage;
    fill(fixture, digests, age);

    assert_int_equal(cache_make_room(fixture->cache, LIMIT + 1, NULL, &err), -EFBIG);
    assert_int_equal(cache_use(&fixture->cache, fixture->state, &vast, &err), 0);
    assert_int_equal(cache_make_room(fixture->cache, UINT64_C(1) << 61, NULL, &err), -ENOSPC);

    assert_non_null(strstr(err.text, "do not fit the disk"));
    cache_get_usage(fixture->cache, &usage);
    assert_int_equal(usage.bytes, 900000);
}

static void a_resumed_transfer_needs_room_for_the_rest_only(void **state) {
    struct fixture *fixture = *state;
    uint8_t digest[SHA256_SIZE];
    uint64_t have;
    assert_int_equal(receive(fixture->cache, 1, LIMIT, LIMIT - 10, digest, &have), 0);
    assert_int_equal(receive(fixture->cache, 1, LIMIT, LIMIT, digest, &have), 0);
    assert_int_equal(have, LIMIT - 10);
    assert_true(has(fixture->cache, digest));
}

/* The disk is as good as full: with what was set aside for this very part. */
static void a_resumed_transfer_has_the_room_that_was_set_aside(void **state) {
    struct fixture *fixture = *state;
    uint8_t digest[SHA256_SIZE];
    uint64_t have;
    struct stat info;
    char path[256], hex[SHA256_HEX];
    assert_int_equal(receive(fixture->cache, 1, LIMIT, 1000, digest, &have), 0);
    snprintf(path, sizeof(path), "%s/parts/%s.part", fixture->state, sha256_format(digest, hex));
    assert_int_equal(stat(path, &info), 0);
    if (info.st_blocks * 512 < LIMIT)
        skip(); /* this file system sets nothing aside */
    disk_is_full = true;
    int rc = receive(fixture->cache, 1, LIMIT, LIMIT, digest, &have);
    disk_is_full = false;
    assert_int_equal(rc, 0);
}

static void one_file_more_than_the_limit_takes_the_place_of_the_oldest(void **state) {
    struct fixture *fixture = *state;
    static const int age[] = {3, 0, 2, 1};
    const struct cache_limits four = {LIMIT, 4};
    uint8_t digests[5][SHA256_SIZE];
    struct cache_usage usage;
    struct err err = {""};
    fill(fixture, digests, age);
    const struct cache_keep keep = {(const uint8_t(*)[SHA256_SIZE])digests, 4};
    cache_get_usage(fixture->cache, &usage);
    assert_int_equal(usage.parts, 4);
    assert_int_equal(cache_use(&fixture->cache, fixture->state, &four, &err), 0);

    assert_int_equal(cache_make_room(fixture->cache, 1, &keep, &err), -EFBIG);
    assert_non_null(strstr(err.text, "`limits: parts:` (4, all in use)"));
    assert_int_equal(cache_make_room(fixture->cache, 1, NULL, &err), 0);

    cache_get_usage(fixture->cache, &usage);
    assert_int_equal(usage.parts, 3);
    assert_false(has(fixture->cache, digests[1]));
}

/* An ingress that is recruited as well: what it makes for others must not cost it what it fetches.
 */
static void a_part_that_is_being_received_stays_whoever_needs_room(void **state) {
    struct fixture *fixture = *state;
    uint8_t digest[SHA256_SIZE];
    char *data = contents(1, LIMIT / 2, digest);
    uint64_t have;
    struct err err = {""};
    int fd = -1;
    assert_int_equal(cache_begin(fixture->cache, digest, LIMIT / 2, NULL, &fd, &have, &err), 0);
    assert_int_equal(pwrite(fd, data, LIMIT / 2, 0), LIMIT / 2);

    assert_int_equal(cache_make_room(fixture->cache, LIMIT, NULL, &err), -EFBIG);
    assert_int_equal(cache_make_room(fixture->cache, LIMIT / 2, NULL, &err), 0);

    assert_int_equal(cache_commit(fixture->cache, digest, fd, &err), 0);
    assert_true(has(fixture->cache, digest));
    close(fd);
    free(data);
}

static void a_file_made_here_gets_the_name_of_its_digest(void **state) {
    struct fixture *fixture = *state;
    uint8_t wanted[SHA256_SIZE], digest[SHA256_SIZE];
    char path[256], *data = contents(3, 777, wanted);
    uint64_t bytes = 0;
    for (int i = 0; i < 2; i++) { /* the second time it is there already */
        snprintf(path, sizeof(path), "%s/" CACHE_NEW "%d", cache_folder(fixture->cache), i);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        assert_int_equal(fwrite(data, 1, 777, file), 777);
        fclose(file);
        assert_int_equal(cache_adopt(fixture->cache, path, digest, &bytes, NULL), 0);
        assert_memory_equal(digest, wanted, SHA256_SIZE);
        assert_int_equal(bytes, 777);
        assert_true(has(fixture->cache, digest));
        assert_int_equal(access(path, F_OK), -1);
    }
    free(data);
}

static void leftovers_go_and_strangers_stay(void **state) {
    struct fixture *fixture = *state;
    char left[256], strange[256];
    struct cache_usage usage;
    snprintf(left, sizeof(left), "%s/parts/" CACHE_NEW "17.tmp", fixture->state);
    snprintf(strange, sizeof(strange), "%s/parts/readme.onnx", fixture->state);
    FILE *a = fopen(left, "w"), *b = fopen(strange, "w");
    assert_non_null(a);
    assert_non_null(b);
    fputs("x", a);
    fputs("x", b);
    fclose(a);
    fclose(b);
    cache_close(fixture->cache);

    assert_int_equal(cache_open(fixture->state, &limits, &fixture->cache, NULL), 0);

    assert_int_equal(access(left, F_OK), -1);
    assert_int_equal(access(strange, F_OK), 0);
    cache_get_usage(fixture->cache, &usage);
    assert_int_equal(usage.bytes, 0);
    assert_int_equal(usage.parts, 0);
}

static void one_daemon_has_the_folder(void **state) {
    struct fixture *fixture = *state;
    struct cache *second = NULL;
    struct err err = {""};
    assert_int_equal(cache_open(fixture->state, &limits, &second, &err), -EBUSY);
    assert_non_null(strstr(err.text, "`state:`"));
    assert_null(second);
}

static void a_folder_that_cannot_be_made_is_an_error(void **state) {
    struct fixture *fixture = *state;
    struct cache *cache = NULL;
    struct err err = {""};
    char path[256];
    assert_int_equal(cache_open(NULL, &limits, &cache, &err), -ENOENT);
    assert_non_null(strstr(err.text, "`state: FOLDER`"));
    snprintf(path, sizeof(path), "%s/parts/lock/x", fixture->state);
    assert_int_equal(cache_open(path, &limits, &cache, &err), -ENOTDIR);
    snprintf(path, sizeof(path), "%s/a/b/c", fixture->state);
    assert_int_equal(cache_open(path, &limits, &cache, &err), 0);
    cache_close(cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_part_is_there_when_all_of_it_has_come, setup, teardown),
        cmocka_unit_test_setup_teardown(a_transfer_that_broke_off_goes_on_where_it_was, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_not_what_it_should_be_is_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unfinished_file_that_is_too_long_begins_anew, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_oldest_unused_parts_make_room, setup, teardown),
        cmocka_unit_test_setup_teardown(parts_in_use_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refusal_removes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_resumed_transfer_needs_room_for_the_rest_only, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_resumed_transfer_has_the_room_that_was_set_aside, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(one_file_more_than_the_limit_takes_the_place_of_the_oldest,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_part_that_is_being_received_stays_whoever_needs_room,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_made_here_gets_the_name_of_its_digest, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(leftovers_go_and_strangers_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(one_daemon_has_the_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_that_cannot_be_made_is_an_error, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
