#include "daemon/control/memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LINE_SIZE 512

uint64_t memory_of_system(const char *path) {
    char line[LINE_SIZE];
    uint64_t kilobytes, bytes = UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (!file)
        return UINT64_MAX;
    while (bytes == UINT64_MAX && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kilobytes) == 1)
            bytes = kilobytes << 10;
    fclose(file);
    return bytes;
}

/* The number in a file of a control group; "max" is none. */
static bool read_number(const char *root, const char *group, const char *name, uint64_t *ret) {
    char path[PATH_MAX];
    bool found = false;
    if (snprintf(path, sizeof(path), "%s%s/%s", root, group, name) >= (int)sizeof(path))
        return false;
    FILE *file = fopen(path, "re");
    if (file) {
        found = fscanf(file, "%" SCNu64, ret) == 1;
        fclose(file);
    }
    return found;
}

/* What a group uses that it can give back at once: pages of files, mapped models included. */
static uint64_t read_file_pages(const char *root, const char *group) {
    char path[PATH_MAX], line[LINE_SIZE];
    uint64_t bytes = 0;
    if (snprintf(path, sizeof(path), "%s%s/memory.stat", root, group) >= (int)sizeof(path))
        return 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    while (bytes == 0 && fgets(line, sizeof(line), file))
        if (sscanf(line, "file %" SCNu64, &bytes) != 1)
            bytes = 0;
    fclose(file);
    return bytes;
}

uint64_t memory_of_group(const char *root, const char *group) {
    char path[LINE_SIZE];
    uint64_t least = UINT64_MAX, limit, used;
    snprintf(path, sizeof(path), "%s", group);
    for (;;) {
        if (read_number(root, path, "memory.max", &limit) &&
            read_number(root, path, "memory.current", &used)) {
            uint64_t pages = read_file_pages(root, path);
            used -= pages < used ? pages : used;
            uint64_t left = used < limit ? limit - used : 0;
            least = left < least ? left : least;
        }
        char *slash = strrchr(path, '/');
        if (!slash)
            return least;
        *slash = '\0'; /* the group above */
    }
}

/* The group of this process: the line of version 2, "0::/path". */
static uint64_t memory_of_own_group(void) {
    char line[LINE_SIZE];
    uint64_t bytes = UINT64_MAX;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file)
        return bytes;
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4) == 0)
            bytes = memory_of_group("/sys/fs/cgroup", line + 3);
    }
    fclose(file);
    return bytes;
}

uint64_t memory_available(void) {
    uint64_t system = memory_of_system("/proc/meminfo"), group = memory_of_own_group();
    uint64_t bytes = system < group ? system : group;
    if (bytes == UINT64_MAX)
        return bytes;
    return bytes > MEMORY_SPARE ? bytes - MEMORY_SPARE : 0;
}
