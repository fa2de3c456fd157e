/* Happy path: builder_submit() appends to `todo` and wakes the thread; it works without the lock
 * and appends to `finished`; one uv_async_send() brings the loop to on_async(), which calls done.
 */
#include "daemon/control/builder.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

TAILQ_HEAD(job_list, job);

struct builder {
    uv_async_t async;
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_cond_t wake;
    struct job_list todo, finished; /* under the mutex */
    bool stop;                      /* under the mutex */
};

static void run_thread(void *arg) {
    struct builder *builder = arg;
    struct job *job;
    uv_mutex_lock(&builder->mutex);
    for (;;) {
        while (!builder->stop && TAILQ_EMPTY(&builder->todo))
            uv_cond_wait(&builder->wake, &builder->mutex);
        if (builder->stop)
            break;
        job = TAILQ_FIRST(&builder->todo);
        TAILQ_REMOVE(&builder->todo, job, entry);
        uv_mutex_unlock(&builder->mutex);
        job->work(job);
        uv_mutex_lock(&builder->mutex);
        TAILQ_INSERT_TAIL(&builder->finished, job, entry);
        uv_async_send(&builder->async);
    }
    uv_mutex_unlock(&builder->mutex);
}

static struct job *take(struct builder *builder, struct job_list *list) {
    uv_mutex_lock(&builder->mutex);
    struct job *job = TAILQ_FIRST(list);
    if (job)
        TAILQ_REMOVE(list, job, entry);
    uv_mutex_unlock(&builder->mutex);
    return job;
}

static void on_async(uv_async_t *async) {
    struct builder *builder = async->data;
    struct job *job;
    /* done may close the builder: then nothing is left to be taken. */
    while ((job = take(builder, &builder->finished)) != NULL)
        job->done(job, false);
}

static void on_closed(uv_handle_t *handle) {
    struct builder *builder = handle->data;
    uv_cond_destroy(&builder->wake);
    uv_mutex_destroy(&builder->mutex);
    free(builder);
}

/* The thread starts with every signal blocked: those are the loop's. */
static int start_thread(struct builder *builder) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = uv_thread_create(&builder->thread, run_thread, builder);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

int builder_start(uv_loop_t *loop, struct builder **ret_builder) {
    struct builder *builder = calloc(1, sizeof(*builder));
    if (!builder)
        return -ENOMEM;
    TAILQ_INIT(&builder->todo);
    TAILQ_INIT(&builder->finished);
    int rc = uv_mutex_init(&builder->mutex);
    if (rc < 0)
        goto no_mutex;
    rc = uv_cond_init(&builder->wake);
    if (rc < 0)
        goto no_cond;
    rc = uv_async_init(loop, &builder->async, on_async);
    if (rc < 0)
        goto no_async;
    builder->async.data = builder;
    rc = start_thread(builder);
    if (rc < 0) {
        uv_close((uv_handle_t *)&builder->async, on_closed);
        return rc;
    }
    *ret_builder = builder;
    return 0;
no_async:
    uv_cond_destroy(&builder->wake);
no_cond:
    uv_mutex_destroy(&builder->mutex);
no_mutex:
    free(builder);
    return rc;
}

void builder_submit(struct builder *builder, struct job *job) {
    uv_mutex_lock(&builder->mutex);
    TAILQ_INSERT_TAIL(&builder->todo, job, entry);
    uv_cond_signal(&builder->wake);
    uv_mutex_unlock(&builder->mutex);
}

void builder_close(struct builder *builder) {
    struct job *job;
    if (!builder)
        return;
    uv_mutex_lock(&builder->mutex);
    builder->stop = true;
    uv_cond_signal(&builder->wake);
    uv_mutex_unlock(&builder->mutex);
    uv_thread_join(&builder->thread);
    while ((job = take(builder, &builder->finished)) != NULL ||
           (job = take(builder, &builder->todo)) != NULL)
        job->done(job, true);
    uv_close((uv_handle_t *)&builder->async, on_closed);
}
