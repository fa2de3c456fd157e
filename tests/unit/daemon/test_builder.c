/* Jobs off the loop, on a real loop: in order, one at a time, none lost when the builder is closed.
 */
#include "daemon/control/builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define JOBS 50

struct work {
    struct job job;
    struct builder **builder;
    uv_sem_t *gate; /* work waits for it; NULL: it does not */
    int number;
    bool was_done, was_closing;
    bool closes; /* done closes the builder */
};

static atomic_int at_work, worked;
static int done_count;
static uv_thread_t loop_thread;

static void work(struct job *job) {
    struct work *own = (struct work *)(void *)job;
    uv_thread_t self = uv_thread_self();
    assert_false(uv_thread_equal(&self, &loop_thread));
    assert_int_equal(atomic_fetch_add(&at_work, 1), 0);
    if (own->gate)
        uv_sem_wait(own->gate);
    own->number = atomic_fetch_add(&worked, 1);
    atomic_fetch_sub(&at_work, 1);
}

static void done(struct job *job, bool is_closing) {
    struct work *own = (struct work *)(void *)job;
    uv_thread_t self = uv_thread_self();
    assert_true(uv_thread_equal(&self, &loop_thread));
    assert_false(own->was_done);
    own->was_done = true;
    own->was_closing = is_closing;
    done_count++;
    if (own->closes) {
        builder_close(*own->builder);
        *own->builder = NULL;
    }
}

static void start(uv_loop_t *loop, struct builder **builder, struct work *jobs) {
    atomic_store(&worked, 0);
    done_count = 0;
    loop_thread = uv_thread_self();
    assert_int_equal(uv_loop_init(loop), 0);
    assert_int_equal(builder_start(loop, builder), 0);
    for (int i = 0; i < JOBS; i++)
        jobs[i] = (struct work){.job = {.work = work, .done = done}, .builder = builder};
}

static void jobs_are_done_in_order_one_at_a_time(void **state) {
    static struct work jobs[JOBS];
    struct builder *builder;
    uv_loop_t loop;
    (void)state;
    start(&loop, &builder, jobs);
    for (int i = 0; i < JOBS; i++)
        builder_submit(builder, &jobs[i].job);
    while (done_count < JOBS)
        uv_run(&loop, UV_RUN_ONCE);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].number, i);
        assert_false(jobs[i].was_closing);
    }
    builder_close(builder);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* One is at work, the others wait: the first is waited for, no other begins, all are told. */
static void closing_tells_every_job(void **state) {
    static struct work jobs[JOBS];
    struct builder *builder;
    uv_loop_t loop;
    uv_sem_t gate;
    (void)state;
    assert_int_equal(uv_sem_init(&gate, 0), 0);
    start(&loop, &builder, jobs);
    jobs[0].gate = &gate;
    for (int i = 0; i < JOBS; i++)
        builder_submit(builder, &jobs[i].job);
    while (atomic_load(&at_work) == 0) {
    }
    uv_sem_post(&gate);
    builder_close(builder);
    assert_int_equal(done_count, JOBS);
    for (int i = 0; i < JOBS; i++)
        assert_true(jobs[i].was_closing);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    uv_sem_destroy(&gate);
}

static void a_job_may_close_the_builder(void **state) {
    static struct work jobs[JOBS];
    struct builder *builder;
    uv_loop_t loop;
    (void)state;
    start(&loop, &builder, jobs);
    jobs[3].closes = true;
    for (int i = 0; i < JOBS; i++)
        builder_submit(builder, &jobs[i].job);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_null(builder);
    assert_int_equal(done_count, JOBS);
    assert_false(jobs[2].was_closing);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_done_in_order_one_at_a_time),
        cmocka_unit_test(closing_tells_every_job),
        cmocka_unit_test(a_job_may_close_the_builder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
