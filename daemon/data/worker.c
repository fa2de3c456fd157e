/* Happy path: workers_submit() appends to `todo` and wakes one thread; the thread runs the stage
 * with its own exec and appends to `done`; where that was empty it signals an eventfd, which brings
 * the loop to on_signal(); that takes the whole list at once and calls back without the lock.
 *
 * No uv_async_t: on a core that both share, the loop wakes inside of the thread's uv_async_send()
 * and then spins until that has returned, up to 50 us for each frame.
 *
 * Ownership: between the two appends a frame's inputs, outputs and job belong to the thread, and
 * the loop touches none of them. The mutex orders the hand-over both ways. */
#include "daemon/data/worker.h"

#include "daemon/control/held.h"
#include "model/values.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct queue {
    struct frame *first, **last;
    size_t count;
};

struct worker {
    struct workers *workers;
    size_t index;
    uv_thread_t thread;
    uint64_t since_us; /* when it began its frame, 0: it has none. Under the mutex */
};

struct workers {
    uv_mutex_t mutex;
    uv_cond_t wake;
    struct queue todo, done; /* under the mutex */
    bool stop;               /* under the mutex */
    int event;               /* readable: `done` has become non-empty */
    uv_poll_t poll;
    workers_done *on_done;
    void *arg;
    size_t count; /* threads that run */
    struct worker threads[];
};

static void queue_init(struct queue *queue) {
    queue->first = NULL;
    queue->last = &queue->first;
    queue->count = 0;
}

static void queue_push(struct queue *queue, struct frame *frame) {
    frame->job.next = NULL;
    *queue->last = frame;
    queue->last = &frame->job.next;
    queue->count++;
}

static struct frame *queue_pop(struct queue *queue) {
    struct frame *frame = queue->first;
    if (!frame)
        return NULL;
    queue->first = frame->job.next;
    if (!queue->first)
        queue->last = &queue->first;
    queue->count--;
    return frame;
}

/* Whether an input has numbers that nobody computes who computes rightly; why says which. */
static bool is_suspect(const struct held *held, const struct tensor *input, size_t index, char *why,
                       size_t size) {
    const struct held_range *range = held->ranges ? &held->ranges[index] : NULL;
    const char *name = held->inputs[index].name;
    struct values values;
    values_scan(input, &values);
    if (values.odd > 0)
        snprintf(why, size, "the tensor %.80s holds NaN or infinity (%zu times)", name, values.odd);
    else if (range && values.min <= values.max &&
             (values.min < range->min || values.max > range->max))
        snprintf(why, size, "the tensor %.80s reaches from %g to %g; %g to %g are plausible", name,
                 (double)values.min, (double)values.max, (double)range->min, (double)range->max);
    else
        return false;
    return true;
}

static void inspect(struct frame *frame) {
    for (size_t i = 0; i < frame->inputs_count && !frame->job.is_suspect; i++)
        frame->job.is_suspect =
            is_suspect(frame->held, &frame->inputs[i], i, frame->job.why, sizeof(frame->job.why));
}

static uint64_t thread_cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void compute(struct frame *frame, size_t index) {
    uint64_t start_ns = uv_hrtime(), start_cpu_us = thread_cpu_us();
    frame->job.err.text[0] = '\0';
    frame->job.is_suspect = false;
    if (frame->job.bad_values != CONFIG_IGNORE)
        inspect(frame);
    if (frame->job.is_suspect && frame->job.bad_values == CONFIG_REFUSE)
        frame->job.rc = err_set(&frame->job.err, -EBADMSG, "%s", frame->job.why);
    else
        frame->job.rc =
            exec_run(frame->held->execs[index], frame->inputs, frame->outputs, &frame->job.err);
    frame->job.compute_us = (uv_hrtime() - start_ns) / 1000;
    frame->job.cpu_us = thread_cpu_us() - start_cpu_us;
}

/* An eventfd takes a write of 1 at once unless its counter is full, and the loop reads that to 0.
 */
static void signal_loop(struct workers *workers) {
    while (eventfd_write(workers->event, 1) < 0)
        assert(errno == EINTR);
}

static void run_thread(void *arg) {
    struct worker *worker = arg;
    struct workers *workers = worker->workers;
    uv_mutex_lock(&workers->mutex);
    for (;;) {
        while (!workers->stop && !workers->todo.first)
            uv_cond_wait(&workers->wake, &workers->mutex);
        if (workers->stop)
            break;
        struct frame *frame = queue_pop(&workers->todo);
        worker->since_us = uv_hrtime() / 1000;
        uv_mutex_unlock(&workers->mutex);
        compute(frame, worker->index);
        uv_mutex_lock(&workers->mutex);
        worker->since_us = 0;
        bool first = !workers->done.first;
        queue_push(&workers->done, frame);
        if (first) { /* whoever it wakes must not find the mutex taken */
            uv_mutex_unlock(&workers->mutex);
            signal_loop(workers);
            uv_mutex_lock(&workers->mutex);
        }
    }
    uv_mutex_unlock(&workers->mutex);
}

static void deliver_done(struct workers *workers) {
    struct queue done;
    struct frame *frame;
    uv_mutex_lock(&workers->mutex);
    done = workers->done;
    if (!done.first)
        done.last = &done.first;
    queue_init(&workers->done);
    uv_mutex_unlock(&workers->mutex);
    while ((frame = queue_pop(&done)) != NULL)
        workers->on_done(workers->arg, frame);
}

static void on_signal(uv_poll_t *poll, int status, int events) {
    struct workers *workers = poll->data;
    eventfd_t count;
    (void)status; /* an eventfd has no errors; if it had one, the list would say what is there */
    (void)events;
    eventfd_read(workers->event, &count);
    deliver_done(workers);
}

/* Threads start with every signal blocked: those are the loop's. */
static int start_thread(struct worker *worker) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = uv_thread_create(&worker->thread, run_thread, worker);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static void stop_threads(struct workers *workers) {
    uv_mutex_lock(&workers->mutex);
    workers->stop = true;
    uv_cond_broadcast(&workers->wake);
    uv_mutex_unlock(&workers->mutex);
    for (size_t i = 0; i < workers->count; i++)
        uv_thread_join(&workers->threads[i].thread);
    workers->count = 0;
}

static void on_poll_closed(uv_handle_t *handle) {
    struct workers *workers = handle->data;
    close(workers->event);
    uv_cond_destroy(&workers->wake);
    uv_mutex_destroy(&workers->mutex);
    free(workers);
}

int workers_start(uv_loop_t *loop, int count, workers_done *done, void *arg,
                  struct workers **ret_workers) {
    assert(count > 0);
    struct workers *workers =
        calloc(1, sizeof(*workers) + (size_t)count * sizeof(workers->threads[0]));
    int rc;
    if (!workers)
        return -ENOMEM;
    workers->on_done = done;
    workers->arg = arg;
    queue_init(&workers->todo);
    queue_init(&workers->done);
    rc = uv_mutex_init(&workers->mutex);
    if (rc < 0)
        goto fail_mutex;
    rc = uv_cond_init(&workers->wake);
    if (rc < 0)
        goto fail_cond;
    workers->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = workers->event < 0 ? -errno : uv_poll_init(loop, &workers->poll, workers->event);
    if (rc < 0)
        goto fail_event;
    workers->poll.data = workers;
    uv_poll_start(&workers->poll, UV_READABLE, on_signal);
    for (; workers->count < (size_t)count; workers->count++) {
        struct worker *worker = &workers->threads[workers->count];
        worker->workers = workers;
        worker->index = workers->count;
        rc = start_thread(worker);
        if (rc < 0) {
            workers_close(workers);
            return rc;
        }
    }
    *ret_workers = workers;
    return 0;
fail_event:
    if (workers->event >= 0)
        close(workers->event);
    uv_cond_destroy(&workers->wake);
fail_cond:
    uv_mutex_destroy(&workers->mutex);
fail_mutex:
    free(workers);
    return rc;
}

void workers_submit(struct workers *workers, struct frame *frame) {
    uv_mutex_lock(&workers->mutex);
    queue_push(&workers->todo, frame);
    uv_cond_signal(&workers->wake);
    uv_mutex_unlock(&workers->mutex);
}

size_t workers_queued(struct workers *workers) {
    uv_mutex_lock(&workers->mutex);
    size_t count = workers->todo.count;
    uv_mutex_unlock(&workers->mutex);
    return count;
}

uint64_t workers_longest_us(struct workers *workers, uint64_t now_us) {
    uint64_t longest = 0;
    uv_mutex_lock(&workers->mutex);
    for (size_t i = 0; i < workers->count; i++) {
        uint64_t since_us = workers->threads[i].since_us;
        if (since_us != 0 && since_us < now_us && now_us - since_us > longest)
            longest = now_us - since_us;
    }
    uv_mutex_unlock(&workers->mutex);
    return longest;
}

void workers_close(struct workers *workers) {
    struct frame *frame;
    if (!workers)
        return;
    stop_threads(workers);
    deliver_done(workers);
    while ((frame = queue_pop(&workers->todo)) != NULL) {
        frame->job.rc = -ECANCELED;
        workers->on_done(workers->arg, frame);
    }
    uv_close((uv_handle_t *)&workers->poll, on_poll_closed);
}
