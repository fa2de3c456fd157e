#include "ctl/interrupt.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void post(void *arg) {
    sem_post(arg);
}

static void first_signal_calls_back(void **state) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct interrupt *interrupt;
        sem_t called;
        sem_init(&called, 0, 0);
        assert_int_equal(interrupt_start(post, &called, &interrupt), 0);
        raise(signals[i]);
        sem_wait(&called);
        interrupt_stop(interrupt);
        assert_int_equal(sem_trywait(&called), -1);
        sem_destroy(&called);
    }
}

static void stopped_without_a_signal_it_never_calls(void **state) {
    struct interrupt *interrupt;
    sem_t called;
    (void)state;
    sem_init(&called, 0, 0);
    assert_int_equal(interrupt_start(post, &called, &interrupt), 0);
    interrupt_stop(interrupt);
    assert_int_equal(sem_trywait(&called), -1);
    sem_destroy(&called);
}

static void *idle(void *arg) {
    sem_wait(arg);
    return NULL;
}

/* As those of a library that was started before main(). */
static void thread_that_blocks_nothing_may_get_the_signal(void **state) {
    struct interrupt *interrupt;
    pthread_t thread;
    sem_t called, end;
    (void)state;
    sem_init(&called, 0, 0);
    sem_init(&end, 0, 0);
    assert_int_equal(pthread_create(&thread, NULL, idle, &end), 0);
    assert_int_equal(interrupt_start(post, &called, &interrupt), 0);
    assert_int_equal(pthread_kill(thread, SIGINT), 0);
    sem_wait(&called);
    interrupt_stop(interrupt);
    sem_post(&end);
    pthread_join(thread, NULL);
    sem_destroy(&called);
    sem_destroy(&end);
}

static void second_signal_ends_the_program(void **state) {
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct interrupt *interrupt;
        sem_t called;
        sem_init(&called, 0, 0);
        if (interrupt_start(post, &called, &interrupt) != 0)
            _exit(1);
        raise(SIGINT);
        sem_wait(&called);
        raise(SIGINT);
        _exit(2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_signal_calls_back),
        cmocka_unit_test(stopped_without_a_signal_it_never_calls),
        cmocka_unit_test(thread_that_blocks_nothing_may_get_the_signal),
        cmocka_unit_test(second_signal_ends_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
