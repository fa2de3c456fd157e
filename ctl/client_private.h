/* What client.c (the calls of its user) and client_io.c (its thread) share. */
#ifndef CONVOY_CTL_CLIENT_PRIVATE_H
#define CONVOY_CTL_CLIENT_PRIVATE_H

#include "ctl/client.h"

#include "ctl/stream.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

struct client_frame {
    atomic_uint refs; /* the caller's or the window's, and one for each send under way */
    void *payload;
    size_t bytes;
    struct tensor *tensors;
    size_t count;
};

void client_frame_unref(struct client_frame *frame);

enum slot_state {
    SLOT_WAITING, /* to be sent, at retry_at_us or later */
    SLOT_SENT,    /* the device has it, or will as soon as the socket takes it */
    SLOT_DONE,    /* result is complete */
};

/* One place in the window. */
struct slot {
    TAILQ_ENTRY(slot) link; /* in submit order */
    enum slot_state state;
    struct client_frame *frame; /* NULL: skipped, or answered */
    size_t bytes;               /* counted in client->window_bytes */
    uint64_t sequence;          /* in the present session; 0: none yet */
    uint64_t retry_at_us;
    uint64_t sent_us; /* the first time */
    uint64_t done_at; /* order of completion */
    struct client_result result;
};

TAILQ_HEAD(slots, slot);

struct client {
    struct client_params params; /* defaults filled in; strings are the client's */
    char *address, *name;
    struct tls_context *tls; /* NULL: not encrypted */
    struct client_info info;
    size_t input_bytes, output_bytes; /* of payloads */
    size_t *input_offsets, *output_offsets;

    pthread_t thread;
    int wake_fd; /* eventfd: the thread has something to look at */
    int stop_fd; /* eventfd: readable for good once the thread is to end */

    pthread_mutex_t lock; /* for all that follows, but cancelled */
    pthread_cond_t changed;
    struct slots slots;
    size_t slots_count, slots_bytes;
    uint64_t next_number;  /* of the next submit */
    uint64_t next_done_at; /* of the next completion */
    struct client_counts counts;
    int failure; /* the error for which the thread has ended; 0: none */

    /* The thread's own, under the lock but while it waits. */
    uint32_t credits;
    struct stream *stream;
    uint64_t session;
    uint64_t last_sequence;
    uint64_t heard_us; /* when bytes last came */
    uint64_t pinged_us;
    void *incoming; /* payload being read */
    bool ready;     /* Welcome has come on this connection */
    bool retryable; /* the device said Goodbye, but only for now */
    bool connected; /* at the last attempt: somebody listens there */

    bool started;          /* there is a thread */
    bool finished;         /* client_finish() */
    bool closing;          /* client_free() */
    bool welcomed;         /* info is there */
    atomic_bool cancelled; /* client_cancel() */

    struct err failure_text; /* of failure */
    struct err said;         /* why on_message() ended the connection; the thread's */
};

/* The thread. arg: the client. */
void *client_thread(void *arg);

/* The frame of slot is complete; the lock is held. */
void slot_complete(struct client *client, struct slot *slot);

/* Ends a slot with a sentence instead of a result; the lock is held. */
void slot_fail(struct client *client, struct slot *slot, int status, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
