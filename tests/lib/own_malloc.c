#include "tests/lib/own_malloc.h"

#include <errno.h>
#include <stdlib.h>

struct own_malloc_hooks own_malloc_hooks;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

static bool may(size_t size, const void *caller) {
    return !own_malloc_hooks.on_allocation || own_malloc_hooks.on_allocation(size, caller);
}

static void *counted(void *block, int change) {
    if (block && change != 0 && own_malloc_hooks.on_blocks)
        own_malloc_hooks.on_blocks(change);
    return block;
}

static void *failed(void) {
    errno = ENOMEM;
    return NULL;
}

/* Parameters are named as in <stdlib.h>. */
void *malloc(size_t __size) {
    return may(__size, __builtin_return_address(0)) ? counted(__libc_malloc(__size), 1) : failed();
}

void *calloc(size_t __nmemb, size_t __size) {
    return may(__nmemb * __size, __builtin_return_address(0))
               ? counted(__libc_calloc(__nmemb, __size), 1)
               : failed();
}

void *realloc(void *__ptr, size_t __size) {
    return may(__size, __builtin_return_address(0))
               ? counted(__libc_realloc(__ptr, __size), __ptr ? 0 : 1)
               : failed();
}

int posix_memalign(void **__memptr, size_t __alignment, size_t __size) {
    void *block = may(__size, __builtin_return_address(0))
                      ? counted(__libc_memalign(__alignment, __size), 1)
                      : NULL;
    if (!block)
        return ENOMEM;
    *__memptr = block;
    return 0;
}

void *aligned_alloc(size_t __alignment, size_t __size) {
    return may(__size, __builtin_return_address(0))
               ? counted(__libc_memalign(__alignment, __size), 1)
               : failed();
}

void free(void *__ptr) {
    counted(__ptr, -1);
    __libc_free(__ptr);
}
#endif
