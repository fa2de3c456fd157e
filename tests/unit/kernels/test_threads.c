#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/kernels.h"

#define TASKS 1000

struct tally {
    atomic_int done[TASKS];
    atomic_int wrong_thread;
    int threads;
};

static void count_task(void *arg, int task, int thread) {
    struct tally *tally = arg;

    atomic_fetch_add(&tally->done[task], 1);
    if (thread < 0 || thread >= tally->threads)
        atomic_fetch_add(&tally->wrong_thread, 1);
}

static void check_once_each(struct kn_threads *pool, int tasks) {
    static struct tally tally;

    memset(&tally, 0, sizeof(tally));
    tally.threads = kn_threads_count(pool);
    kn_parallel(pool, tasks, count_task, &tally);
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(atomic_load(&tally.done[i]), i < tasks ? 1 : 0);
    assert_int_equal(atomic_load(&tally.wrong_thread), 0);
}

static void every_task_runs_once_on_a_thread_of_the_pool(void **state) {
    (void)state;
    for (int count = 1; count <= 5; count++) {
        struct kn_threads *pool = kn_threads_new(count);
        assert_non_null(pool);
        assert_int_equal(kn_threads_count(pool), count);
        for (int tasks = 0; tasks < 40; tasks++)
            check_once_each(pool, tasks);
        check_once_each(pool, TASKS);
        kn_threads_free(pool);
    }
}

static void no_pool_is_one_thread(void **state) {
    (void)state;
    assert_int_equal(kn_threads_count(NULL), 1);
    check_once_each(NULL, 7);
    kn_threads_free(NULL);
}

static void add_task(void *arg, int task, int thread) {
    int *cells = arg;

    (void)thread;
    cells[task] += task; /* plain: what a job writes, the next one sees */
}

static void jobs_follow_each_other_in_order(void **state) {
    struct kn_threads *pool = kn_threads_new(4);
    int cells[5] = {0};

    (void)state;
    for (int i = 0; i < 20000; i++)
        kn_parallel(pool, 5, add_task, cells);
    for (int i = 0; i < 5; i++)
        assert_int_equal(cells[i], 20000 * i);
    kn_threads_free(pool);
}

static double cpu_seconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* CPU seconds of the whole process in the next 20 ms: idleness shows only over time. */
static double cpu_of_a_window(void) {
    const struct timespec window = {.tv_nsec = 20 * 1000 * 1000};
    double before = cpu_seconds();

    nanosleep(&window, NULL);
    return cpu_seconds() - before;
}

/* The GEMM library's own threads spin for a while after the start, hence the retries. */
static void idle_helpers_use_no_cpu(void **state) {
    struct kn_threads *pool = kn_threads_new(4);
    int windows = 0;

    (void)state;
    check_once_each(pool, 100);
    while (cpu_of_a_window() > 0.002)
        assert_true(++windows < 100);
    check_once_each(pool, 100);
    kn_threads_free(pool);
}

struct rendezvous {
    atomic_int here;
    int expected;
};

static void meet_task(void *arg, int task, int thread) {
    struct rendezvous *meeting = arg;

    (void)task;
    (void)thread;
    atomic_fetch_add(&meeting->here, 1);
    while (atomic_load(&meeting->here) < meeting->expected)
        continue;
}

static void tasks_really_run_side_by_side(void **state) {
    struct kn_threads *pool = kn_threads_new(3);
    struct rendezvous meeting = {.expected = 3};

    (void)state;
    kn_parallel(pool, 3, meet_task, &meeting);
    assert_int_equal(atomic_load(&meeting.here), 3);
    kn_threads_free(pool);
}

static void mask_task(void *arg, int task, int thread) {
    atomic_int *unblocked = arg;
    sigset_t mask;

    (void)task;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (thread > 0 && !sigismember(&mask, SIGTERM))
        atomic_fetch_add(unblocked, 1);
}

static void helpers_take_no_signals(void **state) {
    struct kn_threads *pool = kn_threads_new(3);
    atomic_int unblocked = 0;
    sigset_t mask;

    (void)state;
    for (int i = 0; i < 200; i++)
        kn_parallel(pool, 8, mask_task, &unblocked);
    assert_int_equal(atomic_load(&unblocked), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_false(sigismember(&mask, SIGTERM));
    kn_threads_free(pool);
}

static void *use_own_pool(void *arg) {
    static const char yes;

    (void)arg;
    struct kn_threads *pool = kn_threads_new(2);
    int cells[9] = {0};
    for (int i = 0; pool && i < 2000; i++)
        kn_parallel(pool, 9, add_task, cells);
    kn_threads_free(pool);
    return cells[8] == 16000 ? (void *)(uintptr_t)&yes : NULL;
}

static void pools_of_different_callers_do_not_meet(void **state) {
    pthread_t callers[3];
    void *result;

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, use_own_pool, NULL), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(callers[i], &result), 0);
        assert_non_null(result);
    }
}

static void init_may_be_called_again_and_names_the_cpu(void **state) {
    (void)state;
    kn_init();
    kn_init();
    assert_true(strlen(kn_cpu_name()) > 0);
    assert_non_null(strstr(kn_cpu_name(), "OpenBLAS"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once_on_a_thread_of_the_pool),
        cmocka_unit_test(no_pool_is_one_thread),
        cmocka_unit_test(jobs_follow_each_other_in_order),
        cmocka_unit_test(idle_helpers_use_no_cpu),
        cmocka_unit_test(tasks_really_run_side_by_side),
        cmocka_unit_test(helpers_take_no_signals),
        cmocka_unit_test(pools_of_different_callers_do_not_meet),
        cmocka_unit_test(init_may_be_called_again_and_names_the_cpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
