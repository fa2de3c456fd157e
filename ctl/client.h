/* A client of a line of devices: frames in, results out, each exactly once, whatever happens to the
 * connection. Knows nothing of pictures or terminals. docs/wire.md is the protocol.
 *
 * The happy path: client_new() connects, says Hello and waits for Welcome. client_submit() puts a
 * frame in the window; the client's own thread sends it as soon as the line has given credit, and
 * keeps its payload until the result has come. client_next() hands over results. One thread may
 * submit while another takes results.
 *
 * When the connection breaks, or the device says that it shuts down or has too many clients, the
 * thread connects again with growing pauses and shows its session; every frame without a result is
 * sent again, a result that comes twice is dropped. A device that does not know the session any
 * more opens a new one: the frames get new sequence numbers and are sent again just the same. A
 * frame refused for now is sent again by and by; a frame refused for good has a result that says
 * so.
 *
 * Memory is bounded: `window` frames, and window_bytes of payloads, between submit and next.
 */
#ifndef CONVOY_CTL_CLIENT_H
#define CONVOY_CTL_CLIENT_H

#include "base/err.h"
#include "base/sha256.h"
#include "base/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_WINDOW_MAX 65536

struct client_params {
    const char *address; /* HOST:PORT of the line's first device; copied */
    const char *name;    /* said in Hello, for the device's log; copied. NULL: the host's name */
    const char *key;     /* file of the line's key; copied. NULL: CONVOY_KEY's, or not encrypted */
    size_t window;       /* frames between submit and next; 0: 64 */
    size_t window_bytes; /* of their payloads, inputs and outputs; 0: 256 MiB. One frame always fits
                          */
    bool drop_oldest;    /* live pictures: when the line is full its oldest frame that waits goes */
    bool ordered;        /* client_next() keeps to the order of client_submit() */
    uint32_t wait_ms;    /* keep trying to reach the device for so long; 0: one attempt (where it
                            takes the connection and ends it without a Welcome, four) */
    uint32_t retry_ms;   /* after a connection was lost, for so long; 0: 60 s */
    uint32_t silence_ms; /* a device that says nothing for so long is gone; 0: 5 s */
};

/* What the device said of itself. The client's, constant. */
struct client_info {
    char *node;
    char *model; /* file name of the model, for people */
    uint8_t model_digest[SHA256_SIZE];
    struct tensor_desc *inputs, *outputs; /* what a frame carries and what comes back */
    size_t inputs_count, outputs_count;
};

struct client;

/* Connects and waits for Welcome. 0 with a client for client_free(), or -errno with a sentence that
 * starts with the address. */
int client_new(const struct client_params *params, struct client **ret_client, struct err *err);

/* Ends the session; frames without a result are forgotten. No other thread may be in a call. */
void client_free(struct client *client);

const struct client_info *client_get_info(const struct client *client);

/* A frame's memory: one payload with room for all inputs. */
struct client_frame;

/* NULL when there is no memory. Any thread. The caller's, until client_submit() takes it. */
struct client_frame *client_frame_new(const struct client *client);
void client_frame_free(struct client_frame *frame);

/* One tensor per input, data to be filled by the caller. Borrowed from the frame. */
struct tensor *client_frame_tensors(struct client_frame *frame);

/* Puts frame in the window, waiting while that is full. user comes back with the result. Takes
 * frame in every case. 0; -ECANCELED; or the error for which the client has given up, with its
 * sentence. */
int client_submit(struct client *client, struct client_frame *frame, void *user, struct err *err);

/* Takes a place in the order without a frame: client_next() hands over user with status -ENODATA.
 * For a source that has something to say about a picture it could not read. Otherwise as
 * client_submit(). */
int client_skip(struct client *client, void *user, struct err *err);

/* Nothing will be submitted any more: client_next() returns 0 behind the last result. */
void client_finish(struct client *client);

struct client_result {
    uint64_t number;        /* of the submit, from 0 */
    void *user;             /* what client_submit() was given */
    int status;             /* 0: tensors are there. -ENODATA: a skipped place. -EREMOTEIO: refused.
                               -ENOBUFS: dropped for newer ones, with drop_oldest */
    char text[512];         /* why not, with the device and the code */
    struct tensor *tensors; /* one per output, in the order of client_info.outputs */
    size_t tensors_count;
    uint64_t latency_us; /* from the first byte sent to the last received */
    unsigned attempts;   /* how often the frame was sent */
    void *payload;       /* what tensors' data points into */
};

/* The next result: 1, with a result for client_result_fini(); 0 when all have been handed over
 * after client_finish(); -EAGAIN when timeout_ms passed (negative: no limit); -ECANCELED; or the
 * error for which the client has given up: all results that had come are handed over before. */
int client_next(struct client *client, int timeout_ms, struct client_result *ret_result,
                struct err *err);

/* After client_finish(), client_cancel() or an error: hands over the oldest place that is left,
 * with or without a result, without waiting: 1; 0 when there is none. For freeing each user; the
 * result itself needs no client_result_fini(). */
int client_discard(struct client *client, struct client_result *ret_result);

/* Releases what client_next() handed over, not user. */
void client_result_fini(struct client_result *result);

/* Makes every waiting and later call return -ECANCELED. Any thread, and signal handlers. */
void client_cancel(struct client *client);

struct client_counts {
    uint64_t submitted, answered, failed;
    uint64_t resent; /* sends beyond a frame's first */
    uint64_t reconnects;
    uint64_t duplicates; /* answers that were there already */
    size_t in_window;    /* submitted, not handed over */
    bool connected;
};

/* A snapshot. Any thread. */
void client_get_counts(struct client *client, struct client_counts *ret_counts);

#endif
