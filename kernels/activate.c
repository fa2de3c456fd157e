#include "simd.h"

#define CHUNK 16384 /* elements of one task */

void kn_act_row(const struct kn_activation *act, const float *x, float *y, ptrdiff_t count) {
    static const struct kn_activation none = {KN_ACT_NONE, 0.0f, 0.0f};

    if (!act)
        act = &none;
    if (act->kind != KN_ACT_NONE || y != x)
        kn_simd()->act_rows(act, &(struct kn_act_rows){.x = x, .y = y, .rows = 1, .count = count});
}

struct activate_job {
    const struct kn_activation *act;
    const float *x;
    float *y;
    ptrdiff_t count, chunk;
};

static void activate_task(void *arg, int task, int thread) {
    const struct activate_job *job = arg;
    ptrdiff_t begin = task * job->chunk;

    (void)thread;
    kn_act_row(job->act, job->x + begin, job->y + begin, kn_min(job->chunk, job->count - begin));
}

void kn_activate(const struct kn_activation *act, const float *x, float *y, size_t count,
                 struct kn_threads *threads) {
    struct activate_job job = {.act = act, .x = x, .y = y, .count = (ptrdiff_t)count};

    job.chunk = kn_max(CHUNK, kn_ceil_div(job.count, 1024));
    kn_parallel(threads, (int)kn_ceil_div(job.count, job.chunk), activate_task, &job);
}
