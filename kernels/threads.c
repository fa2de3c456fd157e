/* A fork-join pool.
 *
 * One word says what is to do: the job's number in its upper half, the tasks not yet claimed in its
 * lower half. A thread claims tasks by counting the lower half down; only then may it look at the
 * job, which stays as it is until its last claimed task is done. It claims many while many are
 * left, because the word goes from core to core with each claim, which takes as long as a small
 * task. So a helper that sleeps through a job keeps nobody waiting. Helpers and a waiting caller
 * spin a little, because the next job of a network comes within microseconds, and then sleep.
 */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "internal.h"

#define SPINS  2000 /* 50 us on Zen 4; more than the gap between two layers */
#define CLAIMS 4    /* of a thread's share, so that one that is late holds up little */

struct helper {
    struct kn_threads *pool;
    pthread_t id;
    int thread;
};

struct kn_threads {
    int count;
    int started; /* helpers that run */

    _Atomic uint64_t word; /* job number << 32 | tasks not yet claimed */
    atomic_int done;       /* tasks of the job that are done */
    int tasks;             /* the job */
    kn_task fn;
    void *arg;

    atomic_int sleepers; /* helpers that wait for work_cond, or are about to */
    atomic_bool waiting; /* the caller waits for done_cond, or is about to */
    atomic_bool stop;
    pthread_mutex_t lock; /* of the two conditions */
    pthread_cond_t work_cond;
    pthread_cond_t done_cond;
    struct helper helpers[];
};

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
}

static bool has_work(struct kn_threads *pool) {
    return (uint32_t)atomic_load(&pool->word) != 0;
}

/* How many of `left` tasks to claim at once: a part of one thread's share, so that the last ones
 * are claimed one by one. */
static uint32_t claim_size(const struct kn_threads *pool, uint32_t left) {
    uint32_t size = left / ((uint32_t)pool->count * CLAIMS);

    return size > 0 ? size : left > 0;
}

/* Claims some tasks and does them; false when none is left to claim. */
static bool run_some(struct kn_threads *pool, int thread) {
    uint64_t word = atomic_load(&pool->word);
    uint32_t left, claimed;

    do {
        left = (uint32_t)word;
        claimed = claim_size(pool, left);
        if (claimed == 0)
            return false;
    } while (!atomic_compare_exchange_weak(&pool->word, &word, word - claimed));

    int tasks = pool->tasks, first = tasks - (int)left;
    for (int i = first; i < first + (int)claimed; i++)
        pool->fn(pool->arg, i, thread);
    int done = atomic_fetch_add(&pool->done, (int)claimed) + (int)claimed;
    if (done == tasks && atomic_load(&pool->waiting)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done_cond);
        pthread_mutex_unlock(&pool->lock);
    }
    return true;
}

static void sleep_until_work(struct kn_threads *pool) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!has_work(pool) && !atomic_load(&pool->stop))
        pthread_cond_wait(&pool->work_cond, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *helper_main(void *arg) {
    struct helper *helper = arg;
    struct kn_threads *pool = helper->pool;
    int spins = 0;

    while (!atomic_load(&pool->stop)) {
        if (run_some(pool, helper->thread)) {
            spins = 0;
        } else if (spins < SPINS) {
            spins++;
            relax();
        } else {
            sleep_until_work(pool);
            spins = 0;
        }
    }
    return NULL;
}

/* Helpers take no signals: those are for the program's own threads. */
static int start_helpers(struct kn_threads *pool) {
    sigset_t all, before;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < pool->count - 1 && rc == 0; i++) {
        struct helper *helper = &pool->helpers[i];
        *helper = (struct helper){.pool = pool, .thread = i + 1};
        rc = pthread_create(&helper->id, NULL, helper_main, helper);
        pool->started += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

struct kn_threads *kn_threads_new(int count) {
    assert(count >= 1);
    size_t helpers = (size_t)count - 1;
    struct kn_threads *pool = calloc(1, sizeof(*pool) + helpers * sizeof(pool->helpers[0]));

    if (!pool)
        return NULL;
    pool->count = count;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work_cond, NULL);
    pthread_cond_init(&pool->done_cond, NULL);
    if (start_helpers(pool) != 0) {
        kn_threads_free(pool);
        return NULL;
    }
    return pool;
}

void kn_threads_free(struct kn_threads *threads) {
    if (!threads)
        return;
    pthread_mutex_lock(&threads->lock);
    atomic_store(&threads->stop, true);
    pthread_cond_broadcast(&threads->work_cond);
    pthread_mutex_unlock(&threads->lock);
    for (int i = 0; i < threads->started; i++)
        pthread_join(threads->helpers[i].id, NULL);
    pthread_cond_destroy(&threads->done_cond);
    pthread_cond_destroy(&threads->work_cond);
    pthread_mutex_destroy(&threads->lock);
    free(threads);
}

int kn_threads_count(const struct kn_threads *threads) {
    return threads ? threads->count : 1;
}

static bool all_done(struct kn_threads *pool) {
    return atomic_load(&pool->done) == pool->tasks;
}

static void wait_until_done(struct kn_threads *pool) {
    for (int i = 0; i < SPINS; i++) {
        if (all_done(pool))
            return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->waiting, true);
    while (!all_done(pool))
        pthread_cond_wait(&pool->done_cond, &pool->lock);
    atomic_store(&pool->waiting, false);
    pthread_mutex_unlock(&pool->lock);
}

void kn_parallel(struct kn_threads *threads, int tasks, kn_task fn, void *arg) {
    if (kn_threads_count(threads) == 1 || tasks <= 1) {
        for (int i = 0; i < tasks; i++)
            fn(arg, i, 0);
        return;
    }

    uint64_t job = (atomic_load(&threads->word) >> 32) + 1;
    threads->tasks = tasks;
    threads->fn = fn;
    threads->arg = arg;
    atomic_store(&threads->done, 0);
    atomic_store(&threads->word, job << 32 | (uint32_t)tasks);
    if (atomic_load(&threads->sleepers) > 0) {
        pthread_mutex_lock(&threads->lock);
        pthread_cond_broadcast(&threads->work_cond);
        pthread_mutex_unlock(&threads->lock);
    }
    while (run_some(threads, 0))
        continue;
    wait_until_done(threads);
}
