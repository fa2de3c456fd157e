/* Every allocation of a device that serves fails once: while it takes a connection and a frame,
 * while it is sent a plan, while it hands one out. Whatever that costs, it is the connection or the
 * plan of that moment: the device lives, the frames are answered once and rightly, the next attempt
 * succeeds, and nothing leaks. Devices run in processes of their own, forked from this program,
 * whose malloc() fails on demand. */
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL    "models/fmnist_resnet.onnx"
#define DEVICES  2
#define CUTS     16 /* plans that take turns: more than a device holds, so each is built anew */
#define WARM_UP  8
#define QUIET    16 /* attempts without a failure after which there are no more allocations */
#define FEW      24 /* deployments with CONVOY_TEST_QUICK */
#define N_MAX    100000
#define EXTRA    "workers: 1\nsession_ms: 0\n"
#define LEAK_MAX 8 /* blocks: free lists that have met a new maximum */

/* What test and device share. */
struct faults {
    int64_t until; /* the failing one has so many before it; below 0: it has failed, or none is */
    int64_t live;  /* blocks that were allocated, less those that were freed */
    uint64_t failed;
};

static struct faults *all_faults; /* one for each device */

static struct faults *mine;
static struct code_range openblas;

/* The GEMM library cannot do without. */
static bool on_allocation(size_t size, const void *caller) {
    (void)size;
    if (code_range_has(&openblas, caller) || __atomic_load_n(&mine->until, __ATOMIC_RELAXED) < 0)
        return true;
    if (__atomic_fetch_sub(&mine->until, 1, __ATOMIC_RELAXED) != 0)
        return true;
    __atomic_fetch_add(&mine->failed, 1, __ATOMIC_RELAXED);
    return false;
}

static void on_blocks(int change) {
    __atomic_fetch_add(&mine->live, change, __ATOMIC_RELAXED);
}

static void fail_by(struct faults *faults) {
    openblas = code_range_of("openblas");
    mine = faults;
    own_malloc_hooks = (struct own_malloc_hooks){on_allocation, on_blocks};
}

/* ---- the devices ----------------------------------------------------------------------------- */

static struct daemons line;
static struct oracle oracle;

static void ignore_status(void *arg, const char *text) {
    (void)arg;
    (void)text;
}

static void ignore(void *arg) {
    (void)arg;
}

/* A device in a process of its own; never returns. */
static void run_device(int i) {
    const struct device_events events = {ignore_status, ignore, ignore};
    const struct device_options options = {.config_path = line.all[i].yaml,
                                           .listen_fds = &line.all[i].listen_fd,
                                           .listen_fds_count = 1};
    struct device *device;
    struct err err = {""};
    uv_loop_t loop;
    int log = open(line.all[i].log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(log, STDERR_FILENO);
    fail_by(&all_faults[i]);
    if (uv_loop_init(&loop) < 0 ||
        device_start(&loop, &options, &events, NULL, &device, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        _exit(1);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    _exit(0);
}

/* Devices first: nothing of this process has threads then. The first has all of the model, the
 * second nothing. */
static int set_up(void **state) {
    (void)state;
    all_faults = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(all_faults != MAP_FAILED);
    daemons_init(&line, DEVICES, MODEL);
    char pipeline[512];
    snprintf(pipeline, sizeof(pipeline),
             "model: %s\n" EXTRA "pipeline:\n  - {node: pi-a, address: 127.0.0.1:%u}\n", line.model,
             line.all[0].port);
    daemons_configure_idle(&line, 0, pipeline);
    daemons_configure_idle(&line, 1, EXTRA);
    for (int i = 0; i < DEVICES; i++) {
        all_faults[i].until = -1;
        line.all[i].pid = fork();
        assert_true(line.all[i].pid >= 0);
        if (line.all[i].pid == 0)
            run_device(i);
    }
    oracle_init(&oracle, MODEL);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    daemons_fini(&line);
    oracle_fini(&oracle);
    munmap(all_faults, 4096);
    return 0;
}

static void arm(int i, int64_t n) {
    __atomic_store_n(&all_faults[i].until, n, __ATOMIC_RELAXED);
}

static uint64_t failures(int i) {
    return __atomic_load_n(&all_faults[i].failed, __ATOMIC_RELAXED);
}

static void assert_alive(int64_t n) {
    for (int i = 0; i < DEVICES; i++) {
        int status;
        if (waitpid(line.all[i].pid, &status, WNOHANG) != 0) {
            line.all[i].pid = 0;
            fail_msg("%s ended with status 0x%x when allocation %lld failed", line.all[i].node,
                     (unsigned)status, (long long)n);
        }
    }
}

/* ---- connections and frames ------------------------------------------------------------------ */

/* Connects until it is welcomed. */
static void connect_again(struct client *client, int64_t n) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    do {
        client_cut(client);
        client_connect(client, CONVOY__ROLE__ROLE_CLIENT);
        assert_alive(n);
        assert_true(daemons_now_ms() < until);
    } while (!client->welcomed);
}

/* One more frame, answered, over as many connections as it takes; it is sent again where it was
 * refused. */
static void answer_one(struct client *client, int64_t n) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    size_t wanted = client->answered + 1, refused = client->refused;
    client->target = wanted;
    while (client->answered < wanted) {
        if (client->fd < 0 || client->closed)
            connect_again(client, n);
        if (client->refused > refused)
            client->next = wanted;
        refused = client->refused;
        client_push(client);
        client_read(client, 100);
        assert_alive(n);
        if (daemons_now_ms() > until)
            fail_msg("no answer when allocation %lld failed: %s", (long long)n,
                     client->welcomed ? "it was welcomed" : "it was not welcomed");
    }
    assert_int_equal(client->wrong, 0);
    assert_int_equal(client->repeated, 0);
}

/* Connects, has a frame answered, asks for status, goes. */
static void visit(int64_t n) {
    struct client client;
    client_init(&client, &oracle, line.all[0].port);
    answer_one(&client, n);
    client_ask_status(&client);
    client_read(&client, 0);
    client_fini(&client);
}

/* Blocks of a device that serves nobody but who asks. */
static int64_t live_blocks(int i) {
    struct client client;
    client_init(&client, &oracle, line.all[i].port);
    client_connect(&client, CONVOY__ROLE__ROLE_CLIENT);
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (client_status(&client)->clients > 1 || client.status->sessions > 1)
        assert_true(daemons_now_ms() < until);
    int64_t live = __atomic_load_n(&all_faults[i].live, __ATOMIC_RELAXED);
    client_fini(&client);
    return live;
}

static void a_connection_survives_every_failed_allocation(void **state) {
    int quiet = 0;
    int64_t n;
    (void)state;
    if (!OWN_MALLOC)
        skip();
    for (int i = 0; i < WARM_UP; i++)
        visit(-1);
    int64_t live = live_blocks(0);
    uint64_t failed = failures(0);
    for (n = 0; n < N_MAX && quiet < QUIET; n++) {
        uint64_t before = failures(0);
        arm(0, n);
        visit(n);
        quiet = failures(0) == before ? quiet + 1 : 0;
    }
    arm(0, -1);
    visit(-1);
    print_message("%llu allocations\n", (unsigned long long)(failures(0) - failed));
    assert_int_equal(quiet, QUIET);
    assert_true(failures(0) - failed > 5);
    assert_true(live_blocks(0) <= live + LEAK_MAX);
}

/* ---- plans that are handed out --------------------------------------------------------------- */

static void send_apply(struct client *client, size_t cut) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Apply apply = CONVOY__APPLY__INIT;
    Convoy__PlanStage stages[DEVICES], *pointers[DEVICES];
    char addresses[DEVICES][32];
    for (size_t i = 0; i < DEVICES; i++) {
        convoy__plan_stage__init(&stages[i]);
        snprintf(addresses[i], sizeof(addresses[i]), "127.0.0.1:%u", line.all[i].port);
        stages[i].node = line.all[i].node;
        stages[i].address = addresses[i];
        pointers[i] = &stages[i];
    }
    stages[0].until = (char *)(uintptr_t)oracle_layer(&oracle, cut);
    apply.n_stages = DEVICES;
    apply.stages = pointers;
    message.body_case = CONVOY__MESSAGE__BODY_APPLY;
    message.apply = &apply;
    client_send(client, &message, NULL, 0);
}

/* Asks for a plan; the code of the answer, or INTERNAL when the connection broke. */
static Convoy__Code deploy(size_t cut, int64_t n) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    struct client admin;
    client_init(&admin, &oracle, line.all[0].port);
    connect_again(&admin, n);
    send_apply(&admin, cut);
    while (admin.others == 0 && client_read(&admin, 100)) {
        assert_alive(n);
        if (daemons_now_ms() > until)
            fail_msg("the deployment had no end when allocation %lld failed", (long long)n);
    }
    Convoy__Code code = admin.others > 0 ? admin.other->applied->code : CONVOY__CODE__CODE_INTERNAL;
    client_fini(&admin);
    return code;
}

/* What was interrupted succeeds once nothing fails any more. */
static void deploy_for_good(size_t cut, int64_t n) {
    uint64_t until = daemons_now_ms() + CLIENT_CAP_MS;
    while (deploy(cut, n) != CONVOY__CODE__CODE_OK)
        if (daemons_now_ms() > until)
            fail_msg("no deployment succeeds after allocation %lld has failed", (long long)n);
}

/* Each deployment is of another plan than the one before. With CONVOY_TEST_QUICK, some of the
 * allocations, spread over all of them. */
static void deployments_fail_at(int device) {
    int quiet = 0;
    int64_t step = 1;
    uint64_t first = failures(device);
    for (size_t i = 0; i < CUTS / 2; i++)
        deploy_for_good(2 + i, -1);
    if (getenv("CONVOY_TEST_QUICK")) {
        arm(device, N_MAX);
        deploy_for_good(2, -1);
        step = (N_MAX - __atomic_load_n(&all_faults[device].until, __ATOMIC_RELAXED)) / FEW + 1;
    }
    for (int64_t n = 0; n < N_MAX && quiet < 2; n += step) {
        uint64_t before = failures(device);
        arm(device, n);
        deploy(2 + (size_t)(n / step) % CUTS, n);
        quiet = failures(device) == before ? quiet + 1 : 0;
        arm(device, -1);
        deploy_for_good(2 + (size_t)(n / step) % CUTS, n);
        visit(n);
    }
    assert_int_equal(quiet, 2);
    print_message("%llu allocations\n", (unsigned long long)(failures(device) - first));
    assert_true(failures(device) - first >= FEW / 4);
}

static void handing_out_a_plan_survives_every_failed_allocation(void **state) {
    (void)state;
    if (!OWN_MALLOC)
        skip();
    deployments_fail_at(0);
}

static void being_handed_a_plan_survives_every_failed_allocation(void **state) {
    (void)state;
    if (!OWN_MALLOC)
        skip();
    deployments_fail_at(1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_survives_every_failed_allocation),
        cmocka_unit_test(handing_out_a_plan_survives_every_failed_allocation),
        cmocka_unit_test(being_handed_a_plan_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
