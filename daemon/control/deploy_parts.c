/* How parts are served: a device asks for one piece at a time, libuv's pool reads it, and it goes
 * out as a PartChunk.
 *
 * Pace: while frames are under way here, one piece is sent at a time over all targets, and then
 * nothing for PACE times as long as the link was busy with it: a quarter of the link's time at
 * most. That is what its rate says, where the kernel has measured it, but no more than the time
 * from the piece to the next request. */
#include "daemon/control/deploy_private.h"

#include "daemon/log.h"

#include <math.h>
#include <string.h>

#define PACE         3
#define PACE_MOST_US 250000  /* no pause is longer */
#define ANSWER_US    1000000 /* a device that has not asked on for so long is not waited for */

void deploy_stop_serving(struct deploy *deploy, struct target *target) {
    if (target->is_waiting)
        TAILQ_REMOVE(&deploy->waiting, target, waiting);
    target->is_waiting = false;
    target->bytes = 0;
    target->piece_us = 0;
    if (deploy->serving == target)
        deploy->serving = NULL;
}

void deploy_hand_over(struct target *from, struct target *to) {
    if (!to || from->bytes == 0 || to->bytes > 0 || to->is_reading)
        return;
    to->offset = from->offset;
    to->bytes = from->bytes;
    to->is_waiting = true;
    TAILQ_INSERT_TAIL(&to->deployment->deploy->waiting, to, waiting);
    deploy_stop_serving(from->deployment->deploy, from);
}

static bool frames_flow(const struct device *device) {
    return device->flow.jobs > 0 || !flow_is_idle(device);
}

static void send_piece(struct target *target, size_t bytes) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__PartChunk chunk = CONVOY__PART_CHUNK__INIT;
    struct pool *pool = target->deployment->deploy->device->pool;
    const struct segment segment = {target->buffer->data, bytes, target->buffer};
    struct buffer *header;
    size_t header_bytes;
    chunk.part.data = target->part;
    chunk.part.len = SHA256_SIZE;
    chunk.offset = target->offset;
    message.body_case = CONVOY__MESSAGE__BODY_PART_CHUNK;
    message.part_chunk = &chunk;
    int rc = conn_pack(pool, &message, bytes, &header, &header_bytes);
    if (rc == 0)
        rc = conn_send_packed(target->link->conn, header, header_bytes, &segment, 1, NULL, NULL);
    if (rc < 0 && rc != -ENOTCONN)
        conn_close(target->link->conn, "out of memory");
    target->bytes = 0;
    target->piece_bytes = (uint32_t)bytes;
    target->piece_us = target->since_us = device_now_us();
    deploy_device_of(target)->sent_bytes += bytes;
}

static void on_read(uv_fs_t *req) {
    struct target *target = req->data;
    struct deployment *deployment = target->deployment;
    struct deploy *deploy = deployment->deploy;
    ssize_t got = req->result;
    uv_fs_req_cleanup(req);
    target->is_reading = false;
    deployment->reads--;
    if (!deployment->is_over && target->bytes > 0 && link_is_up(target->link)) {
        if (got == (ssize_t)target->bytes) {
            send_piece(target, (size_t)got);
        } else {
            log_error("cannot read the part for %s: %s", deploy_device_of(target)->node,
                      got < 0 ? uv_strerror((int)got) : "it has become shorter");
            conn_goodbye(target->link->conn, CONVOY__CODE__CODE_INTERNAL,
                         "the part cannot be read");
        }
    }
    buffer_unref(target->buffer);
    target->buffer = NULL;
    if (deployment->is_over)
        deploy_end(deployment);
    else
        deploy_serve(deploy);
}

static void read_piece(struct target *target) {
    struct deploy *deploy = target->deployment->deploy;
    target->buffer = pool_get(deploy->device->pool, target->bytes);
    if (!target->buffer) {
        conn_close(target->link->conn, "out of memory");
        return;
    }
    uv_buf_t buf = {.base = target->buffer->data, .len = target->bytes};
    target->read.data = target;
    int rc = uv_fs_read(deploy->device->loop, &target->read, target->fd, &buf, 1,
                        (int64_t)target->offset, on_read);
    if (rc < 0) {
        buffer_unref(target->buffer);
        target->buffer = NULL;
        conn_close(target->link->conn, uv_strerror(rc));
        return;
    }
    target->is_reading = true;
    target->deployment->reads++;
}

static void on_timer(uv_timer_t *timer) {
    deploy_serve(timer->data);
}

/* Reads the pieces that may be sent now. */
void deploy_serve(struct deploy *deploy) {
    struct target *target;
    uint64_t now_us = device_now_us();
    bool is_paced = frames_flow(deploy->device);
    while ((target = TAILQ_FIRST(&deploy->waiting)) != NULL) {
        const struct target *serving = is_paced ? deploy->serving : NULL;
        uint64_t until_us = is_paced ? deploy->quiet_until_us : 0;
        if (serving && serving->piece_us > 0 && serving->piece_us + ANSWER_US > now_us)
            until_us = serving->piece_us + ANSWER_US;
        else if (serving && serving->is_reading)
            return; /* it calls again */
        if (until_us > now_us) {
            if (!deploy->is_closing)
                uv_timer_start(&deploy->timer, on_timer, (until_us - now_us) / 1000 + 1, 0);
            return;
        }
        TAILQ_REMOVE(&deploy->waiting, target, waiting);
        target->is_waiting = false;
        deploy->serving = target;
        read_piece(target);
    }
}

/* How long the link rests after a piece that took so long until the next one was asked for. A busy
 * device takes its time before it asks: what the link was busy for is less, where its rate is
 * known.
 */
static uint64_t pause_after(const struct target *target, uint64_t took_us) {
    uint64_t bytes, pause_us = PACE * took_us;
    bool is_full;
    double mbit = link_rate(target->link, &bytes, &is_full);
    double link_us = mbit > 0 ? PACE * (double)target->piece_bytes * 8 / mbit : INFINITY;
    if (link_us < (double)pause_us)
        pause_us = (uint64_t)link_us;
    return pause_us < PACE_MOST_US ? pause_us : PACE_MOST_US;
}

/* A piece has arrived when the next one is asked for. */
static void note_arrival(struct deploy *deploy, struct target *target) {
    uint64_t now_us = device_now_us();
    if (target->piece_us == 0)
        return;
    deploy->quiet_until_us = now_us + pause_after(target, now_us - target->piece_us);
    target->piece_us = 0;
    if (deploy->serving == target)
        deploy->serving = NULL;
}

/* A device that was told of this plan while it asked for a piece of the same part, for the plan
 * before, asks for that piece again; once. One answer is enough. */
static bool is_repeated(const struct target *target, const Convoy__PartRequest *request) {
    return !target->was_repeated && target->bytes > 0 && target->bytes == request->bytes &&
           target->offset == request->offset;
}

void deploy_part_request(struct device *device, struct link *link,
                         const Convoy__PartRequest *request) {
    struct deploy *deploy = device->deploy;
    struct deployment *deployment;
    struct target *target = NULL;
    TAILQ_FOREACH(deployment, &deploy->all, entry) {
        target = deployment->is_over ? NULL : deploy_find_target(deployment, link);
        if (target && request->part.len == SHA256_SIZE &&
            memcmp(target->part, request->part.data, SHA256_SIZE) == 0)
            break;
        target = NULL;
    }
    if (!target)
        return; /* of a plan that is not wanted any more */
    if (is_repeated(target, request)) {
        target->was_repeated = true;
        return;
    }
    if (target->bytes > 0 || target->is_reading || request->bytes == 0 ||
        request->bytes > DEPLOY_CHUNK || request->offset >= target->part_bytes ||
        request->bytes > target->part_bytes - request->offset) {
        conn_goodbye(link->conn, CONVOY__CODE__CODE_MALFORMED,
                     "a piece that the part does not have, or a second one at a time");
        return;
    }
    note_arrival(deploy, target);
    target->offset = request->offset;
    target->bytes = request->bytes;
    target->is_waiting = true;
    TAILQ_INSERT_TAIL(&deploy->waiting, target, waiting);
    deploy_serve(deploy);
}
