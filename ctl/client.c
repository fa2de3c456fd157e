#include "ctl/client_private.h"

#include "ctl/progress.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_WINDOW       64
#define DEFAULT_WINDOW_BYTES (256u << 20)
#define DEFAULT_RETRY_MS     60000
#define DEFAULT_SILENCE_MS   5000

/* ---- frames and slots ---- */

void client_frame_unref(struct client_frame *frame) {
    if (!frame || atomic_fetch_sub(&frame->refs, 1) != 1)
        return;
    tensor_buffer_free(frame->payload);
    free(frame->tensors);
    free(frame);
}

struct client_frame *client_frame_new(const struct client *client) {
    struct client_frame *frame = calloc(1, sizeof(*frame));
    if (!frame)
        return NULL;
    atomic_init(&frame->refs, 1);
    frame->bytes = client->input_bytes;
    frame->count = client->info.inputs_count;
    frame->payload = tensor_buffer_new(frame->bytes);
    frame->tensors = calloc(frame->count + 1, sizeof(*frame->tensors));
    if (!frame->payload || !frame->tensors) {
        client_frame_unref(frame);
        return NULL;
    }
    size_t end = 0;
    for (size_t i = 0; i < frame->count; i++) {
        size_t bytes = 0;
        frame->tensors[i].desc = client->info.inputs[i];
        frame->tensors[i].data = (char *)frame->payload + client->input_offsets[i];
        tensor_desc_bytes(&client->info.inputs[i], &bytes);
        /* What lies between two tensors travels: never stray memory of ours. */
        memset((char *)frame->payload + end, 0, client->input_offsets[i] - end);
        end = client->input_offsets[i] + bytes;
    }
    return frame;
}

void client_frame_free(struct client_frame *frame) {
    client_frame_unref(frame);
}

struct tensor *client_frame_tensors(struct client_frame *frame) {
    return frame->tensors;
}

void slot_complete(struct client *client, struct slot *slot) {
    slot->state = SLOT_DONE;
    slot->done_at = client->next_done_at++;
    client_frame_unref(slot->frame);
    slot->frame = NULL;
    if (slot->result.status == 0)
        client->counts.answered++;
    else if (slot->result.status != -ENODATA)
        client->counts.failed++;
    pthread_cond_broadcast(&client->changed);
}

void slot_fail(struct client *client, struct slot *slot, int status, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(slot->result.text, sizeof(slot->result.text), fmt, args);
    va_end(args);
    slot->result.status = status;
    slot_complete(client, slot);
}

static void slot_free(struct slot *slot) {
    client_frame_unref(slot->frame);
    client_result_fini(&slot->result);
    free(slot);
}

void client_result_fini(struct client_result *result) {
    tensor_buffer_free(result->payload);
    free(result->tensors);
    result->payload = NULL;
    result->tensors = NULL;
}

/* ---- life ---- */

static void raise_event(int fd) {
    uint64_t one = 1;
    int saved = errno;
    if (write(fd, &one, sizeof(one)) < 0)
        errno = saved; /* full: it is raised already */
}

static int set_params(struct client *client, const struct client_params *params) {
    char host[256] = "";
    client->params = *params;
    struct client_params *p = &client->params;
    p->window = p->window ? p->window : DEFAULT_WINDOW;
    p->window_bytes = p->window_bytes ? p->window_bytes : DEFAULT_WINDOW_BYTES;
    p->retry_ms = p->retry_ms ? p->retry_ms : DEFAULT_RETRY_MS;
    p->silence_ms = p->silence_ms ? p->silence_ms : DEFAULT_SILENCE_MS;
    if (p->window > CLIENT_WINDOW_MAX)
        p->window = CLIENT_WINDOW_MAX;
    gethostname(host, sizeof(host) - 1);
    client->address = strdup(params->address);
    client->name = strdup(params->name ? params->name : host);
    return client->address && client->name ? 0 : -ENOMEM;
}

/* Waits for Welcome or the thread's end. */
static int await_welcome(struct client *client, struct err *err) {
    int rc = 0;
    pthread_mutex_lock(&client->lock);
    while (!client->welcomed && !client->failure)
        pthread_cond_wait(&client->changed, &client->lock);
    if (!client->welcomed)
        rc = err_set(err, client->failure, "%s", client->failure_text.text);
    pthread_mutex_unlock(&client->lock);
    return rc;
}

/* Signals are for the program's own threads. */
static int start_thread(struct client *client) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = -pthread_create(&client->thread, NULL, client_thread, client);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int client_new(const struct client_params *params, struct client **ret_client, struct err *err) {
    pthread_condattr_t attr;
    struct client *client = calloc(1, sizeof(*client));
    int rc = -ENOMEM;
    if (!client)
        return err_set(err, -ENOMEM, "out of memory");
    client->wake_fd = client->stop_fd = -1;
    TAILQ_INIT(&client->slots);
    pthread_mutex_init(&client->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&client->changed, &attr);
    pthread_condattr_destroy(&attr);
    client->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    client->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = client->wake_fd < 0 || client->stop_fd < 0 ? -errno : set_params(client, params);
    if (rc != 0) {
        err_set(err, rc, "%s", strerror(-rc));
        goto fail;
    }
    rc = stream_load_key(params->key, &client->tls, err);
    if (rc != 0)
        goto fail;
    rc = start_thread(client);
    if (rc != 0) {
        err_set(err, rc, "%s", strerror(-rc));
        goto fail;
    }
    client->started = true;
    rc = await_welcome(client, err);
    if (rc != 0)
        goto fail;
    *ret_client = client;
    return 0;

fail:
    client_free(client);
    return rc;
}

static void free_descs(struct tensor_desc *descs, size_t count) {
    for (size_t i = 0; descs && i < count; i++)
        free((char *)(uintptr_t)descs[i].name);
    free(descs);
}

void client_free(struct client *client) {
    struct slot *slot;
    if (!client)
        return;
    if (client->started) {
        pthread_mutex_lock(&client->lock);
        client->closing = true;
        pthread_mutex_unlock(&client->lock);
        raise_event(client->stop_fd);
        pthread_join(client->thread, NULL);
    }
    while ((slot = TAILQ_FIRST(&client->slots))) {
        TAILQ_REMOVE(&client->slots, slot, link);
        slot_free(slot);
    }
    if (client->wake_fd >= 0)
        close(client->wake_fd);
    if (client->stop_fd >= 0)
        close(client->stop_fd);
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->lock);
    free_descs(client->info.inputs, client->info.inputs_count);
    free_descs(client->info.outputs, client->info.outputs_count);
    free(client->info.node);
    free(client->info.model);
    free(client->input_offsets);
    free(client->output_offsets);
    tls_context_unref(client->tls);
    free(client->address);
    free(client->name);
    free(client);
}

const struct client_info *client_get_info(const struct client *client) {
    return &client->info;
}

void client_cancel(struct client *client) {
    atomic_store(&client->cancelled, true);
    raise_event(client->stop_fd);
}

void client_get_counts(struct client *client, struct client_counts *ret_counts) {
    pthread_mutex_lock(&client->lock);
    *ret_counts = client->counts;
    ret_counts->in_window = client->slots_count;
    ret_counts->connected = client->ready;
    pthread_mutex_unlock(&client->lock);
}

/* ---- submit and next ---- */

/* Why no call can go on, or 0. The lock is held. */
static int find_end(const struct client *client, struct err *err) {
    if (client->failure)
        return err_set(err, client->failure, "%s", client->failure_text.text);
    if (atomic_load(&client->cancelled))
        return err_set(err, -ECANCELED, "interrupted");
    return 0;
}

static bool has_room(const struct client *client, size_t bytes) {
    return client->slots_count == 0 || (client->slots_count < client->params.window &&
                                        client->slots_bytes + bytes <= client->params.window_bytes);
}

/* Waits for room, then appends slot. On an error the caller keeps it. */
static int append_slot(struct client *client, struct slot *slot, struct err *err) {
    int rc;
    pthread_mutex_lock(&client->lock);
    while ((rc = find_end(client, err)) == 0 && !has_room(client, slot->bytes))
        pthread_cond_wait(&client->changed, &client->lock);
    if (rc == 0) {
        slot->result.number = client->next_number++;
        TAILQ_INSERT_TAIL(&client->slots, slot, link);
        client->slots_count++;
        client->slots_bytes += slot->bytes;
        if (slot->frame)
            client->counts.submitted++;
        else
            slot_fail(client, slot, -ENODATA, "skipped");
    }
    pthread_mutex_unlock(&client->lock);
    if (rc == 0)
        raise_event(client->wake_fd);
    return rc;
}

int client_submit(struct client *client, struct client_frame *frame, void *user, struct err *err) {
    struct slot *slot = calloc(1, sizeof(*slot));
    int rc = -ENOMEM;
    if (slot) {
        slot->frame = frame;
        slot->bytes = client->input_bytes + client->output_bytes;
        slot->result.user = user;
        rc = append_slot(client, slot, err);
    } else {
        err_set(err, rc, "out of memory");
    }
    if (rc != 0) {
        client_frame_unref(frame);
        free(slot);
    }
    return rc;
}

int client_skip(struct client *client, void *user, struct err *err) {
    struct slot *slot = calloc(1, sizeof(*slot));
    if (!slot)
        return err_set(err, -ENOMEM, "out of memory");
    slot->result.user = user;
    int rc = append_slot(client, slot, err);
    if (rc != 0)
        free(slot);
    return rc;
}

void client_finish(struct client *client) {
    pthread_mutex_lock(&client->lock);
    client->finished = true;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

/* The slot whose result is next, or NULL: none is there yet. The lock is held. */
static struct slot *find_next(const struct client *client) {
    struct slot *slot, *best = NULL;
    TAILQ_FOREACH(slot, &client->slots, link) {
        if (slot->state == SLOT_DONE && (!best || slot->done_at < best->done_at))
            best = slot;
        if (client->params.ordered)
            break;
    }
    return best;
}

/* Waits for a change until deadline_us (0: without limit). 0 or -EAGAIN. The lock is held. */
static int wait_until(struct client *client, uint64_t deadline_us) {
    if (deadline_us == 0) {
        pthread_cond_wait(&client->changed, &client->lock);
        return 0;
    }
    struct timespec at = {.tv_sec = (time_t)(deadline_us / 1000000),
                          .tv_nsec = (long)(deadline_us % 1000000) * 1000};
    return pthread_cond_timedwait(&client->changed, &client->lock, &at) == ETIMEDOUT ? -EAGAIN : 0;
}

/* The lock is held. */
static void remove_slot(struct client *client, struct slot *slot) {
    TAILQ_REMOVE(&client->slots, slot, link);
    client->slots_count--;
    client->slots_bytes -= slot->bytes;
    pthread_cond_broadcast(&client->changed);
}

int client_discard(struct client *client, struct client_result *ret_result) {
    pthread_mutex_lock(&client->lock);
    struct slot *slot = TAILQ_FIRST(&client->slots);
    if (slot) {
        remove_slot(client, slot);
        *ret_result = slot->result;
        ret_result->payload = NULL;
        ret_result->tensors = NULL;
        ret_result->tensors_count = 0;
        slot_free(slot);
    }
    pthread_mutex_unlock(&client->lock);
    return slot != NULL;
}

int client_next(struct client *client, int timeout_ms, struct client_result *ret_result,
                struct err *err) {
    uint64_t deadline = timeout_ms < 0 ? 0 : clock_us() + (uint64_t)timeout_ms * 1000 + 1;
    struct slot *slot = NULL;
    int rc = 0;
    pthread_mutex_lock(&client->lock);
    while (rc == 0) {
        slot = atomic_load(&client->cancelled) ? NULL : find_next(client);
        if (slot)
            break;
        if (client->finished && client->slots_count == 0)
            break;
        rc = find_end(client, err);
        if (rc == 0)
            rc = wait_until(client, deadline);
    }
    if (slot) {
        remove_slot(client, slot);
        *ret_result = slot->result;
        free(slot);
        rc = 1;
    }
    pthread_mutex_unlock(&client->lock);
    return rc;
}
