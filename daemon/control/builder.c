#include "daemon/control/builder.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct builder {
    uv_async_t async;
    uv_thread_t thread;
    bool busy; /* the thread runs, or its outcome has not been fetched; loop thread only */
    builder_done *on_done;
    void *arg;
    /* Written by the loop before the thread starts, by the thread until it ends. */
    struct config *config;
    uint8_t known[PLANSET_MAX][SHA256_SIZE];
    size_t known_count;
    struct held *held;
    int rc;
    struct err err;
};

static void run_thread(void *arg) {
    struct builder *builder = arg;
    builder->rc = held_build(builder->config, (const uint8_t(*)[SHA256_SIZE])builder->known,
                             builder->known_count, &builder->held, &builder->err);
    uv_async_send(&builder->async);
}

static void on_async(uv_async_t *async) {
    struct builder *builder = async->data;
    if (!builder->busy)
        return;
    uv_thread_join(&builder->thread);
    builder->busy = false;
    builder->on_done(builder->arg, builder->rc, builder->config, builder->held, &builder->err);
}

int builder_start(uv_loop_t *loop, builder_done *done, void *arg, struct builder **ret_builder) {
    struct builder *builder = calloc(1, sizeof(*builder));
    if (!builder)
        return -ENOMEM;
    int rc = uv_async_init(loop, &builder->async, on_async);
    if (rc < 0) {
        free(builder);
        return rc;
    }
    builder->async.data = builder;
    builder->on_done = done;
    builder->arg = arg;
    *ret_builder = builder;
    return 0;
}

int builder_run(struct builder *builder, struct config *config, const struct planset *known) {
    sigset_t all, old;
    if (builder->busy)
        return -EBUSY;
    builder->config = config;
    builder->held = NULL;
    builder->err.text[0] = '\0';
    builder->known_count = known->count;
    for (size_t i = 0; i < known->count; i++)
        memcpy(builder->known[i], known->plans[i]->id, SHA256_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = uv_thread_create(&builder->thread, run_thread, builder);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    builder->busy = rc == 0;
    return rc;
}

bool builder_is_busy(const struct builder *builder) {
    return builder->busy;
}

static void on_closed(uv_handle_t *handle) {
    free(handle->data);
}

void builder_close(struct builder *builder) {
    if (!builder)
        return;
    if (builder->busy) {
        uv_thread_join(&builder->thread);
        held_unref(builder->held);
        config_free(builder->config);
    }
    uv_close((uv_handle_t *)&builder->async, on_closed);
}
