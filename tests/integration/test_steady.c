/* The steady state: no allocation on the data path, flat memory. Two devices of a line run in
 * processes of their own, forked from this program, so that their calls of malloc() and its kin are
 * counted here: those of this program and of every library. */
#include "daemon/device.h"
#include "tests/lib/client.h"
#include "tests/lib/code_range.h"
#include "tests/lib/daemons.h"

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

/* Sanitizers bring allocators of their own. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED true

static void count_into(volatile uint64_t *where) {
    (void)where;
}
#else
#define IS_SANITIZED false

static volatile uint64_t *counter; /* in shared memory; NULL in the test's own process */
static struct code_range openblas;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *data, size_t size);
void *__libc_memalign(size_t align, size_t size);

static void count_into(volatile uint64_t *where) {
    openblas = code_range_of("openblas");
    counter = where;
}

/* caller: the address to which malloc() returns. */
static void count(const void *caller) {
    if (counter && !code_range_has(&openblas, caller))
        __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* Parameters are named as in <stdlib.h>. */
void *malloc(size_t __size) {
    count(__builtin_return_address(0));
    return __libc_malloc(__size);
}

void *calloc(size_t __nmemb, size_t __size) {
    count(__builtin_return_address(0));
    return __libc_calloc(__nmemb, __size);
}

void *realloc(void *__ptr, size_t __size) {
    count(__builtin_return_address(0));
    return __libc_realloc(__ptr, __size);
}

int posix_memalign(void **__memptr, size_t __alignment, size_t __size) {
    count(__builtin_return_address(0));
    *__memptr = __libc_memalign(__alignment, __size);
    return *__memptr ? 0 : ENOMEM;
}

void *aligned_alloc(size_t __alignment, size_t __size) {
    count(__builtin_return_address(0));
    return __libc_memalign(__alignment, __size);
}
#endif

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
    if (IS_SANITIZED)
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
    size_t frames = IS_SANITIZED || getenv("CONVOY_TEST_QUICK") ? FLAT_FEW : FLAT;
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
    for (int i = 0; i < DEVICES && !IS_SANITIZED; i++)
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
