/* malloc() and its kin for a test that counts allocations, or lets them fail. Linked into the
 * programs of OWN_MALLOC_TESTS (Makefile) and no others: it would hide memory from valgrind.
 * Sanitizers bring allocators of their own, so in their builds the hooks are never called. */
#ifndef CONVOY_TESTS_OWN_MALLOC_H
#define CONVOY_TESTS_OWN_MALLOC_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC false
#else
#define OWN_MALLOC true
#endif

/* What a program does about its allocations, in whatever thread makes them. NULL: nothing. */
struct own_malloc_hooks {
    /* Before each, of size bytes, for the code at caller; false lets it fail. */
    bool (*on_allocation)(size_t size, const void *caller);
    /* After each: blocks that came (1), or went (-1). */
    void (*on_blocks)(int change);
};

extern struct own_malloc_hooks own_malloc_hooks;

#endif
