/* Every allocation of reading and writing a model fails once: each must come back as a clean
 * -ENOMEM that leaks nothing. This program brings its own malloc(), so it says nothing in builds
 * whose sanitizer brings one too. */
#include "model/graph.h"
#include "tests/models/networks.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#else
#define OWN_MALLOC 1
#endif

static bool armed;   /* count, and let one fail */
static long counter; /* allocations until the one that fails */
static long calls;   /* allocations while armed */
static long live;    /* blocks allocated while armed, less those freed */

#if OWN_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t nmemb, size_t size);
void *__libc_realloc(void *ptr, size_t size);
void __libc_free(void *ptr);

static bool must_fail(void) {
    if (!armed)
        return false;
    calls++;
    errno = counter == 0 ? ENOMEM : errno;
    return counter-- == 0;
}

void *malloc(size_t size) {
    void *block = must_fail() ? NULL : __libc_malloc(size);
    live += armed && block;
    return block;
}

void *calloc(size_t nmemb, size_t size) {
    void *block = must_fail() ? NULL : __libc_calloc(nmemb, size);
    live += armed && block;
    return block;
}

void *realloc(void *ptr, size_t size) {
    void *block = must_fail() ? NULL : __libc_realloc(ptr, size);
    live += armed && block && !ptr;
    return block;
}

void free(void *ptr) {
    live -= armed && ptr;
    __libc_free(ptr);
}
#endif

static char source[] = "/tmp/test_import_alloc.XXXXXX";
static char target[] = "/tmp/test_import_alloc.XXXXXX";
static struct graph *whole; /* what export writes; made outside of what is counted */

static int import_source(struct err *err) {
    struct graph *graph = NULL;
    int rc = graph_import(source, &graph, err);
    graph_free(graph);
    return rc;
}

static int export_whole(struct err *err) {
    struct tensor_desc output = {.name = whole->outputs[0]->name, .dtype = DTYPE_FLOAT, .rank = -1};
    const struct graph_part part = {.nodes = whole->nodes,
                                    .nodes_count = whole->nodes_count,
                                    .inputs = &whole->inputs[0]->desc,
                                    .inputs_count = 1,
                                    .outputs = &output,
                                    .outputs_count = 1};
    return graph_export(whole, &part, target, err);
}

/* Lets the first, second, third ... allocation of work fail, until there are no more. Returns how
 * often that made it fail; where the C library can do without, it passes. */
static long fail_one_after_the_other(int (*work)(struct err *err)) {
    long failures = 0;
    for (long i = 0; i < 10000; i++) {
        struct err err = {""};
        counter = i;
        calls = 0;
        armed = true;
        int rc = work(&err);
        armed = false;
        if (calls <= i && rc == 0)
            return failures;
        failures += rc < 0;
        if (rc != 0 && rc != -ENOMEM)
            fail_msg("allocation %ld: %d, %s", i, rc, err.text);
        assert_int_equal(rc < 0, err.text[0] != '\0');
    }
    fail_msg("it never passes");
    return failures;
}

static void fail_each_allocation(int (*work)(struct err *err)) {
    if (!OWN_MALLOC)
        skip();
    assert_int_equal(work(NULL), 0);
    for (int round = 0; round < 16; round++) /* OpenSSL keeps a thread's last 16 errors */
        fail_one_after_the_other(work);
    live = 0;
    assert_true(fail_one_after_the_other(work) > 0);
    assert_int_equal(live, 0);
}

static void import_survives_every_failed_allocation(void **state) {
    (void)state;
    fail_each_allocation(import_source);
}

static void export_survives_every_failed_allocation(void **state) {
    (void)state;
    fail_each_allocation(export_whole);
}

static int set_up(void **state) {
    struct err err = {""};
    (void)state;
    close(mkstemp(source));
    close(mkstemp(target));
    for (size_t i = 0; i < networks_count; i++)
        if (strcmp(networks[i].name, "lenet5") == 0 &&
            network_write(&networks[i], 1, source, &err) < 0)
            return -1;
    return graph_import(source, &whole, &err);
}

static int tear_down(void **state) {
    (void)state;
    graph_free(whole);
    return unlink(source) + unlink(target);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(import_survives_every_failed_allocation),
        cmocka_unit_test(export_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
