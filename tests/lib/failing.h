/* Every allocation of a piece of work fails once. For the programs of OWN_MALLOC_TESTS. */
#ifndef CONVOY_TESTS_FAILING_H
#define CONVOY_TESTS_FAILING_H

#include "base/err.h"

#include <stdbool.h>

/* Does its work, undoes it, and returns its result: 0, or a negative errno with its sentence. */
typedef int failing_work(struct err *err);

/* Lets the first, second, third ... allocation of the work fail until there are no more, then
 * asserts that at least one was missed, that each of those failures was a -ENOMEM with a sentence,
 * and that nothing leaks. Allocations of other threads do not count. Skips the test where malloc()
 * cannot be replaced. */
void failing_each_allocation(failing_work *work);

/* While it is paused nothing fails; blocks are still counted. */
void failing_pause(bool is_paused);

#endif
