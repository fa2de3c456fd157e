/* What the kernel says of memory, from files that look like the kernel's. */
#include "daemon/control/memory.h"
#include "tests/lib/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char folder[64];

static int setup(void **state) {
    (void)state;
    strcpy(folder, "/tmp/convoy-memory-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    return folder_remove(folder);
}

/* Writes text to a file of the folder; returns its path. */
static const char *put(const char *name, const char *text) {
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

static void the_system_s_memory_is_what_is_available(void **state) {
    (void)state;
    assert_int_equal(memory_of_system(put("meminfo", "MemTotal:  948020 kB\n"
                                                     "MemFree:   100000 kB\n"
                                                     "MemAvailable:  345678 kB\n"
                                                     "Buffers:  1 kB\n")),
                     UINT64_C(345678) << 10);
    assert_true(memory_of_system(put("old", "MemFree: 1 kB\n")) == UINT64_MAX);
    assert_true(memory_of_system("/nowhere/meminfo") == UINT64_MAX);
}

static void a_group_s_memory_is_its_limit_less_what_it_cannot_give_back(void **state) {
    (void)state;
    put("a/b/memory.max", "1000000\n");
    put("a/b/memory.current", "600000\n");
    put("a/b/memory.stat", "anon 350000\nfile 250000\nkernel 1\n");
    assert_int_equal(memory_of_group(folder, "/a/b"), 650000);
    put("a/b/memory.stat", "anon 600000\nfile 0\n");
    assert_int_equal(memory_of_group(folder, "/a/b"), 400000);
    put("a/b/memory.current", "1200000\n");
    assert_int_equal(memory_of_group(folder, "/a/b"), 0);
    put("a/b/memory.max", "max\n");
    assert_true(memory_of_group(folder, "/a/b") == UINT64_MAX);
}

static void the_groups_above_count_as_well(void **state) {
    (void)state;
    put("a/memory.max", "500000\n");
    put("a/memory.current", "100000\n");
    put("a/b/memory.max", "1000000\n");
    put("a/b/memory.current", "50000\n");
    assert_int_equal(memory_of_group(folder, "/a/b/c"), 400000);
    put("memory.max", "150000\n");
    put("memory.current", "100000\n");
    assert_int_equal(memory_of_group(folder, "/a/b/c"), 50000);
    assert_true(memory_of_group("/nowhere", "/a/b/c") == UINT64_MAX);
}

static void there_is_memory_here(void **state) {
    (void)state;
    assert_true(memory_available() > 0);
    assert_true(memory_available() <= memory_of_system("/proc/meminfo") + (1u << 30));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_system_s_memory_is_what_is_available, setup, teardown),
        cmocka_unit_test_setup_teardown(a_group_s_memory_is_its_limit_less_what_it_cannot_give_back,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_groups_above_count_as_well, setup, teardown),
        cmocka_unit_test(there_is_memory_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
