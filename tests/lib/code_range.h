/* Where a shared library's code lies in this process: to tell who calls malloc(). */
#ifndef CONVOY_TESTS_CODE_RANGE_H
#define CONVOY_TESTS_CODE_RANGE_H

#include <stdbool.h>
#include <stdint.h>

struct code_range {
    uintptr_t begin, end;
};

/* Of the first library loaded whose path has `name` in it; empty when there is none. */
struct code_range code_range_of(const char *name);

/* Whether an address, such as that to which a call returns, lies in it. */
bool code_range_has(const struct code_range *range, const void *address);

#endif
