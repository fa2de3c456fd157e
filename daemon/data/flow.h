/* The way of a frame through this device. Everything here runs on the loop's thread. */
#ifndef CONVOY_DAEMON_DATA_FLOW_H
#define CONVOY_DAEMON_DATA_FLOW_H

#include "daemon/data/frame.h"
#include "daemon/data/session.h"
#include "daemon/net/conn.h"

#include <uv.h>

struct device;

#define FLOW_RETRY_MS    50 /* the ingress sends a refused frame again after this long */
#define FLOW_FPS_SECONDS 5

/* What this device has done; shown by status. */
struct flow_stats {
    uint64_t frames_in, frames_out, frames_retried, frames_refused, frames_dropped, frames_suspect;
    double compute_us, cpu_us;  /* per frame, smoothed; of one plan. CPU time: one thread's */
    const void *computed_under; /* that plan, to tell it from others only */
    uint64_t computed;          /* frames under it */
    uint64_t computed_at_us;    /* when the last one was */
    uint64_t second;            /* the newest of the next */
    uint32_t per_second[FLOW_FPS_SECONDS + 1]; /* frames computed, by second modulo its length */
};

/* Room for one message's tensors, used within one function at a time. */
struct flow_scratch {
    struct tensor_desc descs[MESSAGE_TENSORS_MAX];
    size_t offsets[MESSAGE_TENSORS_MAX];
    Convoy__Tensor wire[MESSAGE_TENSORS_MAX], *pointers[MESSAGE_TENSORS_MAX];
    struct segment segments[2 * MESSAGE_TENSORS_MAX];
};

struct flow {
    struct flights flights;
    struct frame_list transit;  /* QUEUED, of upstream devices: their plan is given */
    struct frame_list pending;  /* QUEUED, of clients: they take the plan that is active when it is
                                   their turn */
    struct frame_list waiting;  /* WAITING, in the order in which they were computed */
    struct frame_list retrying; /* of clients: refused behind, back in pending soon */
    size_t counts[FRAME_DROPPED + 1]; /* frames in each state */
    size_t jobs;                      /* that workers have */
    uint64_t turns;                   /* frames that were dealt to links, ever */
    uv_timer_t retry;
    bool overdue_logged;
    uint64_t log_second;
    unsigned log_count; /* refusals logged in that second */
    struct flow_stats stats;
    struct flow_scratch *scratch;
};

/* 0 or -ENOMEM. */
int flow_init(struct flow *flow, struct device *device);

/* Drops every frame; the workers have given theirs back. Closes the timer. */
void flow_close(struct flow *flow);

/* After the loop has run out. */
void flow_fini(struct flow *flow);

/* A Frame message has come from a peer that has said Hello and may send frames. Takes the reference
 * to payload. May end the connection. */
void flow_frame(struct device *device, struct peer *peer, const Convoy__Frame *message,
                struct buffer *payload, size_t payload_bytes);

/* A Result or Refusal has come up a link. flow_result() takes the reference to payload; -EPROTO
 * with a sentence where it contradicts itself. */
int flow_result(struct device *device, const Convoy__Message *message, struct buffer *payload,
                size_t payload_bytes, struct err *err);
void flow_refusal(struct device *device, struct link *link, const Convoy__Message *message);

/* Frames that this device may be busy with at once, whatever the line behind it takes. */
uint32_t flow_busy_max(const struct device *device);

/* A worker has computed frame (workers_done). */
void flow_computed(void *arg, struct frame *frame);

/* A frame has been computed for longest_us so far, and usually takes usual_us (0: not known yet):
 * longest_us when that is so much more that something is wrong; else 0. Pure. */
uint64_t flow_overdue_us(double usual_us, uint64_t longest_us);

/* Says in the log when a frame is overdue, and when it is not any more; every tick. */
void flow_tick(struct device *device, uint64_t now_us);

/* Starts as many queued frames as there is room for. */
void flow_dispatch(struct device *device);

/* Deals frames that wait to the links of their plans, as credits allow. */
void flow_pump(struct device *device);

/* The connection of link is gone: what it had is sent again, or given back to upstream.
 * device_plans_changed() follows. */
void flow_link_lost(struct device *device, struct link *link);

/* Which plans are ready has changed: gives back what waits for one that is not, then dispatches. */
void flow_plans_changed(struct device *device);

/* Nobody waits for the frames of origin any more. */
void flow_origin_gone(struct device *device, struct origin *origin);

/* A session has a connection again: hands over the answers that wait for it. */
void flow_session_attached(struct device *device, struct session *session);

/* True when every frame has been answered, but for answers to clients that are away. */
bool flow_is_idle(const struct device *device);

/* An average over `before` values with one more, since_us after the last: all count alike at first,
 * then those of the last second or so, but of ten frames at least. Pure. */
double flow_smoothed(double average, double value, uint64_t before, uint64_t since_us);

/* What a frame takes a worker while all are busy: what it took lately, but no less than the CPU
 * time of its threads by the share of quota (facts.h) that each worker then has. A device that
 * rests between two frames finds its quota saved up, and would look faster than it is. */
double flow_time_us(const struct flow_stats *stats, int workers, int threads, double quota);

/* Frames computed per second, over the last whole seconds. */
double flow_fps(const struct flow *flow, uint64_t now_us);

#endif
