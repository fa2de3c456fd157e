/* The steady state: no allocation on the data path, flat memory. Two devices of a line run in
 * processes of their own, forked from this program, so that their calls of malloc() and its kin are
 * counted here: those of this program and of every library. */
#include "daemon/device.h"
#include "tests/lib/client.h"
#include "tests/lib/code_range.h"
#include "tests/lib/daemons.h"
#include "tests/lib/own_malloc.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL    "models/fmnist_resnet.onnx"
#define CUT      "/m/f/f.5/Relu_1"
#define ROUNDS   10
#define MEASURED 1000
#define FLAT     100000
#define FLAT_FEW 5000 /* with CONVOY_TEST_QUICK, and under sanitizers */
#define GROWTH   (1u << 20)
#define DEVICES  2

static volatile uint64_t *counter; /* in shared memory */
static struct code_range openblas;

static bool on_allocation(size_t size, const void *caller) {
    (void)size;
    if (!code_range_has(&openblas, caller))
        __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
    return true;
}

static void count_into(volatile uint64_t *where) {
    openblas = code_range_of("openblas");
    counter = where;
    own_malloc_hooks.on_allocation = on_allocation;
}

static volatile uint64_t *counters; /* one for each device */

static void ignore_status(void *arg, const char *text) {
    (void)arg;
    (void)text;
}

static void ignore(void *arg) {
    (void)arg;
}

/* A device in a process of its own; never returns. */
static void run_device(const struct daemons *line, int i) {
    const struct device_events events = {ignore_status, ignore, ignore};
    const struct device_options options = {.config_path = line->all[i].yaml,
                                           .listen_fds = &line->all[i].listen_fd,
                                           .listen_fds_count = 1};
    struct device *device;
    struct err err = {""};
    uv_loop_t loop;
    int log = open(line->all[i].log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(log, STDERR_FILENO);
    count_into(&counters[i]);
    if (uv_loop_init(&loop) < 0 ||
        device_start(&loop, &options, &events, NULL, &device, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        _exit(1);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    _exit(0);
}

static struct daemons line;
static struct oracle oracle;

/* Devices first: nothing of this process has threads then. */
static int set_up(void **state) {
    (void)state;
    counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(counters != MAP_FAILED);
    daemons_init(&line, DEVICES, MODEL);
    line.extra = "workers: 2\n";
    daemons_configure_all(&line, (const char *const[]){CUT});
    for (int i = 0; i < DEVICES; i++) {
        line.all[i].pid = fork();
        assert_true(line.all[i].pid >= 0);
        if (line.all[i].pid == 0)
            run_device(&line, i);
    }
    oracle_init(&oracle, MODEL);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    daemons_fini(&line);
    oracle_fini(&oracle);
    return 0;
}

/* How many allocations 1,000 more frames cost, on both devices together. */
static uint64_t allocations_of_more_frames(struct client *client) {
    uint64_t before = counters[0] + counters[1];
    client->target += MEASURED;
    client_run(client, client->target);
    return counters[0] + counters[1] - before;
}

/* It is warm when as many frames have been in each place at once as ever will be: chance decides
 * when, so a round that meets a new maximum is followed by another. */
static void a_thousand_frames_allocate_nothing_after_a_warm_up(void **state) {
    struct client client;
    uint64_t allocations;
    int rounds = 0;
    (void)state;
    if (!OWN_MALLOC)
        skip();
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    do {
        allocations = allocations_of_more_frames(&client);
        assert_true(rounds > 0 || allocations > 0); /* the counting works */
        if (rounds > 0)
            assert_true(allocations < MEASURED / 20);
    } while (allocations > 0 && ++rounds < ROUNDS);
    assert_int_equal(allocations, 0);
    client_assert_exactly_once(&client, client.target);
    client_fini(&client);
}

static void memory_is_flat_over_a_hundred_thousand_frames(void **state) {
    size_t frames = !OWN_MALLOC || getenv("CONVOY_TEST_QUICK") ? FLAT_FEW : FLAT;
    size_t warm = frames / 10, before[DEVICES];
    struct client client;
    (void)state;
    client_init(&client, &oracle, line.all[0].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    client.target = warm;
    client_run(&client, warm);
    for (int i = 0; i < DEVICES; i++)
        before[i] = daemons_resident(&line, i);
    client.target = frames;
    while (client.answered < frames)
        client_run(&client,
                   client.answered + frames / 20 < frames ? client.answered + frames / 20 : frames);
    for (int i = 0; i < DEVICES && OWN_MALLOC; i++)
        assert_true(daemons_resident(&line, i) <= before[i] + GROWTH);
    client_assert_exactly_once(&client, frames);
    client_fini(&client);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_frames_allocate_nothing_after_a_warm_up),
        cmocka_unit_test(memory_is_flat_over_a_hundred_thousand_frames),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
