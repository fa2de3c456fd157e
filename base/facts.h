/* What the kernel tells about this device: what kind of computer it is and how it feels. Linux
 * only; what is not told stays unknown. */
#ifndef CONVOY_BASE_FACTS_H
#define CONVOY_BASE_FACTS_H

#include <stdbool.h>
#include <stdint.h>

enum facts_throttled { FACTS_UNKNOWN, FACTS_NO, FACTS_YES };

struct facts {
    char cpu[96];                   /* model of the computer or the CPU, one line; empty: unknown */
    int cores;                      /* that this process may use */
    double cpu_quota;               /* of their time, in cores, that its control groups allow it;
                                     * INFINITY: all */
    uint64_t memory_bytes;          /* of the whole machine; 0: unknown */
    uint64_t memory_available;      /* of it, without pushing others out; 0: unknown */
    double celsius;                 /* of the warmest sensor; NAN: unknown */
    enum facts_throttled throttled; /* clocks are held down now, by heat or low voltage */
};

/* Reads them below root ("" for this machine; a folder with copies of the files, in tests): the
 * model from /proc/device-tree/model or /proc/cpuinfo, memory from /proc/meminfo, temperatures from
 * /sys/class/thermal, the quota from the control groups' cpu.max (version 2) or
 * cpu.cfs_quota_us (version 1, below /sys/fs/cgroup/cpu), throttling from the Raspberry Pi's
 * firmware or, elsewhere, from cooling devices of the CPU that are active. Never fails. Reads a few
 * small files of the kernel's, which takes a fraction of a millisecond. Any thread. */
void facts_read(const char *root, struct facts *ret_facts);

#endif
