#include "base/facts.h"

#include "tests/lib/folder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* Writes a file below root with all folders that it needs. */
static void put(const char *root, const char *path, const char *text) {
    char whole[512];
    snprintf(whole, sizeof(whole), "%s%s", root, path);
    for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void raspberry_pi_tells_everything(void **state) {
    char root[] = "/tmp/convoy-test-XXXXXX";
    struct facts facts;
    (void)state;
    assert_non_null(mkdtemp(root));
    put(root, "/proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4");
    put(root, "/proc/meminfo",
        "MemTotal:        3884096 kB\nMemFree: 1 kB\nMemAvailable: 3000 kB\n");
    put(root, "/sys/class/thermal/thermal_zone0/temp", "61835\n");
    put(root, "/sys/class/thermal/thermal_zone1/temp", "41000\n");
    put(root, "/sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n");

    facts_read(root, &facts);

    assert_string_equal(facts.cpu, "Raspberry Pi 4 Model B Rev 1.4");
    assert_true(facts.memory_bytes == UINT64_C(3884096) * 1024);
    assert_int_equal(facts.memory_available, 3000 * 1024);
    assert_true(fabs(facts.celsius - 61.835) < 1e-9);
    assert_int_equal(facts.throttled, FACTS_YES);
    assert_true(facts.cores >= 1);

    /* What has been, but is not now, does not count. */
    put(root, "/sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n");
    facts_read(root, &facts);
    assert_int_equal(facts.throttled, FACTS_NO);
    folder_remove(root);
}

static void least_quota_of_all_groups_is_found(void **state) {
    char root[] = "/tmp/convoy-test-XXXXXX";
    struct facts facts;
    (void)state;
    assert_non_null(mkdtemp(root));
    facts_read(root, &facts);
    assert_true(isinf(facts.cpu_quota));

    put(root, "/proc/self/cgroup", "0::/system.slice/convoyd.service\n");
    put(root, "/sys/fs/cgroup/system.slice/convoyd.service/cpu.max", "max 100000\n");
    facts_read(root, &facts);
    assert_true(isinf(facts.cpu_quota));
    put(root, "/sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
    facts_read(root, &facts);
    assert_true(fabs(facts.cpu_quota - 1.5) < 1e-9);
    put(root, "/sys/fs/cgroup/system.slice/convoyd.service/cpu.max", "2000 5000\n");
    facts_read(root, &facts);
    assert_true(fabs(facts.cpu_quota - 0.4) < 1e-9);

    /* In a container its group is the root of what it sees; version 1 has two files. */
    put(root, "/proc/self/cgroup", "12:memory:/a\n5:cpu,cpuacct:/\n4:cpuset:/b\n");
    facts_read(root, &facts);
    assert_true(isinf(facts.cpu_quota));
    put(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put(root, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    facts_read(root, &facts);
    assert_true(isinf(facts.cpu_quota));
    put(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "25000\n");
    facts_read(root, &facts);
    assert_true(fabs(facts.cpu_quota - 0.25) < 1e-9);
    folder_remove(root);
}

static void computer_without_firmware_tells_by_its_cooling_devices(void **state) {
    char root[] = "/tmp/convoy-test-XXXXXX";
    struct facts facts;
    (void)state;
    assert_non_null(mkdtemp(root));
    put(root, "/proc/cpuinfo",
        "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some\tCPU @ 2 GHz  \n");
    put(root, "/sys/class/thermal/cooling_device0/type", "Fan\n");
    put(root, "/sys/class/thermal/cooling_device0/cur_state", "1\n");
    put(root, "/sys/class/thermal/cooling_device1/type", "Processor\n");
    put(root, "/sys/class/thermal/cooling_device1/cur_state", "0\n");

    facts_read(root, &facts);
    assert_string_equal(facts.cpu, "Some CPU @ 2 GHz");
    assert_int_equal(facts.throttled, FACTS_NO);

    put(root, "/sys/class/thermal/cooling_device2/type", "cpufreq-cpu0\n");
    put(root, "/sys/class/thermal/cooling_device2/cur_state", "3\n");
    facts_read(root, &facts);
    assert_int_equal(facts.throttled, FACTS_YES);
    folder_remove(root);
}

static void what_is_not_told_is_unknown(void **state) {
    char root[] = "/tmp/convoy-test-XXXXXX";
    struct facts facts;
    (void)state;
    assert_non_null(mkdtemp(root));
    put(root, "/sys/class/thermal/thermal_zone0/temp", "-273000\n"); /* a sensor that is absent */

    facts_read(root, &facts);

    assert_string_equal(facts.cpu, "");
    assert_int_equal(facts.memory_bytes, 0);
    assert_int_equal(facts.memory_available, 0);
    assert_true(isnan(facts.celsius));
    assert_int_equal(facts.throttled, FACTS_UNKNOWN);
    folder_remove(root);
}

static void this_machine_has_cores_and_memory(void **state) {
    struct facts facts;
    (void)state;
    facts_read("", &facts);
    assert_true(facts.cores >= 1);
    assert_true(facts.memory_bytes > facts.memory_available && facts.memory_available > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raspberry_pi_tells_everything),
        cmocka_unit_test(least_quota_of_all_groups_is_found),
        cmocka_unit_test(computer_without_firmware_tells_by_its_cooling_devices),
        cmocka_unit_test(what_is_not_told_is_unknown),
        cmocka_unit_test(this_machine_has_cores_and_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
