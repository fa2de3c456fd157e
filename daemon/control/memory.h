/* How much memory a device has left, as far as the kernel tells. */
#ifndef CONVOY_DAEMON_CONTROL_MEMORY_H
#define CONVOY_DAEMON_CONTROL_MEMORY_H

#include <stdint.h>

/* Bytes that this process can take without pushing others out: MemAvailable of /proc/meminfo, and
 * no more than what its control group (version 2) and those above it allow, less MEMORY_SPARE.
 * UINT64_MAX where the kernel says neither. Reads files: off the loop; any thread. */
uint64_t memory_available(void);

#define MEMORY_SPARE (16u << 20)

/* The parts of memory_available(), for tests: a number of bytes in a file of the form of
 * /proc/meminfo, and what control group `group` below root leaves. UINT64_MAX: nothing is said. */
uint64_t memory_of_system(const char *path);
uint64_t memory_of_group(const char *root, const char *group);

#endif
