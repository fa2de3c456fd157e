#include "tests/lib/failing.h"

#include "tests/lib/own_malloc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ALLOCATIONS_MAX 20000
#define WARM_UPS        16 /* OpenSSL keeps the last 16 errors of a thread */

static _Thread_local struct {
    bool is_armed, is_paused;
    long until; /* the failing one has so many before it */
    long calls; /* while armed */
    long live;  /* blocks allocated while armed, less those freed */
} faults;

static bool on_allocation(size_t size, const void *caller) {
    (void)size;
    (void)caller;
    if (!faults.is_armed || faults.is_paused)
        return true;
    faults.calls++;
    return faults.until-- != 0;
}

static void on_blocks(int change) {
    if (faults.is_armed)
        faults.live += change;
}

void failing_pause(bool is_paused) {
    faults.is_paused = is_paused;
}

/* Returns how often a missing allocation made the work fail: the C library may do without one (a
 * realloc() that only trims), and OpenSSL may fail once more afterwards. */
static long fail_one_after_the_other(failing_work *work) {
    long failures = 0;
    for (long i = 0; i < ALLOCATIONS_MAX; i++) {
        struct err err = {""};
        faults.until = i;
        faults.calls = 0;
        faults.is_armed = true;
        int rc = work(&err);
        faults.is_armed = false;
        if (faults.calls <= i && rc == 0)
            return failures;
        failures += rc < 0;
        if ((rc != 0 && rc != -ENOMEM) || (rc < 0) != (err.text[0] != '\0'))
            fail_msg("allocation %ld: %d, \"%s\"", i, rc, err.text);
    }
    fail_msg("it never passes");
    return failures;
}

void failing_each_allocation(failing_work *work) {
    struct err err = {""};
    if (!OWN_MALLOC)
        skip();
    assert_int_equal(work(&err), 0); /* what libraries make once and keep is there now */
    own_malloc_hooks = (struct own_malloc_hooks){on_allocation, on_blocks};
    for (int i = 0; i < WARM_UPS; i++)
        fail_one_after_the_other(work);
    faults.live = 0;
    long failures = fail_one_after_the_other(work), leaked = faults.live;
    own_malloc_hooks = (struct own_malloc_hooks){0};
    assert_true(failures > 0);
    assert_int_equal(leaked, 0);
}
