#include "base/facts.h"

#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define PATH_SIZE 512
#define TEXT_SIZE 65536

/* The start of root + path in text, NUL-terminated. False when it cannot be read. */
static bool read_text(const char *root, const char *path, char *text, size_t size) {
    char whole[PATH_SIZE];
    if (snprintf(whole, sizeof(whole), "%s%s", root, path) >= (int)sizeof(whole))
        return false;
    FILE *file = fopen(whole, "re");
    if (!file)
        return false;
    size_t length = fread(text, 1, size - 1, file);
    text[length] = '\0';
    fclose(file);
    return length > 0;
}

/* What stands behind "KEY : " at the start of a line of text, up to its end, or NULL. */
static const char *find_line(const char *text, const char *key) {
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) != 0)
            continue;
        const char *at = line + length;
        at += strspn(at, " \t");
        if (*at == ':')
            return at + 1 + strspn(at + 1, " \t");
    }
    return NULL;
}

/* One line of printable characters. */
static void copy_line(const char *from, char *to, size_t size) {
    size_t length = 0;
    for (; *from && *from != '\n' && length + 1 < size; from++)
        to[length++] = iscntrl((unsigned char)*from) ? ' ' : *from;
    while (length > 0 && to[length - 1] == ' ')
        length--;
    to[length] = '\0';
}

static void read_cpu(const char *root, char *text, struct facts *facts) {
    static const char *const keys[] = {"Model", "model name", "Hardware", "cpu model"};
    if (read_text(root, "/proc/device-tree/model", text, TEXT_SIZE)) {
        copy_line(text, facts->cpu, sizeof(facts->cpu));
        return;
    }
    if (!read_text(root, "/proc/cpuinfo", text, TEXT_SIZE))
        return;
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        const char *found = find_line(text, keys[i]);
        if (!found)
            continue;
        copy_line(found, facts->cpu, sizeof(facts->cpu));
        return;
    }
}

static uint64_t read_kib(const char *text, const char *key) {
    const char *found = find_line(text, key);
    return found ? strtoull(found, NULL, 10) * 1024 : 0;
}

static int count_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

/* Thermal zones tell thousandths of a degree. */
static void note_zone(const char *root, const char *zone, char *text, struct facts *facts) {
    char path[PATH_SIZE];
    snprintf(path, sizeof(path), "/sys/class/thermal/%s/temp", zone);
    if (!read_text(root, path, text, TEXT_SIZE))
        return;
    double celsius = strtod(text, NULL) / 1000;
    if (celsius > -50 && celsius < 200)
        facts->celsius = fmax(facts->celsius, celsius); /* fmax() leaves NAN out */
}

/* A cooling device that slows the CPU down and is at work. */
static void note_cooling(const char *root, const char *device, char *text, struct facts *facts) {
    char path[PATH_SIZE];
    snprintf(path, sizeof(path), "/sys/class/thermal/%s/type", device);
    if (!read_text(root, path, text, TEXT_SIZE) ||
        (strncasecmp(text, "Processor", 9) != 0 && !strstr(text, "cpufreq")))
        return;
    snprintf(path, sizeof(path), "/sys/class/thermal/%s/cur_state", device);
    if (!read_text(root, path, text, TEXT_SIZE))
        return;
    bool active = strtol(text, NULL, 10) > 0;
    if (active || facts->throttled == FACTS_UNKNOWN)
        facts->throttled = active ? FACTS_YES : FACTS_NO;
}

static void read_thermal(const char *root, char *text, struct facts *facts) {
    char path[PATH_SIZE];
    snprintf(path, sizeof(path), "%s/sys/class/thermal", root);
    DIR *folder = opendir(path);
    if (!folder)
        return;
    const struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (strncmp(entry->d_name, "thermal_zone", 12) == 0)
            note_zone(root, entry->d_name, text, facts);
        else if (strncmp(entry->d_name, "cooling_device", 14) == 0)
            note_cooling(root, entry->d_name, text, facts);
    }
    closedir(folder);
}

/* The Raspberry Pi's firmware: bits 0 to 3 are under-voltage, clock capped, throttled, and soft
 * temperature limit, now. */
static void read_firmware(const char *root, char *text, struct facts *facts) {
    if (!read_text(root, "/sys/devices/platform/soc/soc:firmware/get_throttled", text, TEXT_SIZE))
        return;
    facts->throttled = strtoul(text, NULL, 16) & 0xf ? FACTS_YES : FACTS_NO;
}

/* Cores' worth of time that one group allows: "QUOTA PERIOD", or in two files. INFINITY: all. */
static double quota_of(const char *root, const char *group, bool is_first_version) {
    char path[PATH_SIZE], text[64], *end;
    const char *name = is_first_version ? "cpu.cfs_quota_us" : "cpu.max";
    const char *mount = is_first_version ? "/sys/fs/cgroup/cpu" : "/sys/fs/cgroup";
    if (snprintf(path, sizeof(path), "%s%s/%s", mount, group, name) >= (int)sizeof(path) ||
        !read_text(root, path, text, sizeof(text)))
        return INFINITY;
    double quota = strtod(text, &end); /* "max" and -1 are no limit */
    if (end == text || !(quota > 0))
        return INFINITY;
    if (is_first_version) {
        snprintf(path, sizeof(path), "%s%s/cpu.cfs_period_us", mount, group);
        end = read_text(root, path, text, sizeof(text)) ? text : end;
    }
    double period = strtod(end, NULL);
    return period > 0 ? quota / period : INFINITY;
}

/* Of a group and all above it the least. group is written to. */
static double least_quota(const char *root, char *group, bool is_first_version) {
    double least = INFINITY;
    for (;;) {
        least = fmin(least, quota_of(root, group, is_first_version));
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

static bool names_cpu(char *controllers) {
    char *rest, *name = strtok_r(controllers, ",", &rest);
    while (name && strcmp(name, "cpu") != 0)
        name = strtok_r(NULL, ",", &rest);
    return name;
}

/* Lines are "NUMBER:CONTROLLERS:/group"; no controllers: version 2. */
static double read_quota(const char *root, char *text) {
    char *rest;
    double least = INFINITY;
    if (!read_text(root, "/proc/self/cgroup", text, TEXT_SIZE))
        return least;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        bool is_first_version = controllers[1] != '\0';
        if (!is_first_version || names_cpu(controllers + 1))
            least = fmin(least, least_quota(root, group, is_first_version));
    }
    return least;
}

void facts_read(const char *root, struct facts *ret_facts) {
    struct facts facts = {.cores = count_cores(), .cpu_quota = INFINITY, .celsius = NAN};
    char *text = malloc(TEXT_SIZE);
    if (text) {
        read_cpu(root, text, &facts);
        if (read_text(root, "/proc/meminfo", text, TEXT_SIZE)) {
            facts.memory_bytes = read_kib(text, "MemTotal");
            facts.memory_available = read_kib(text, "MemAvailable");
        }
        facts.cpu_quota = read_quota(root, text);
        read_thermal(root, text, &facts);
        read_firmware(root, text, &facts);
    }
    free(text);
    *ret_facts = facts;
}
