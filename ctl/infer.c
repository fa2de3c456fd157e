#include "ctl/client.h"
#include "ctl/command.h"
#include "ctl/feed.h"
#include "ctl/interrupt.h"
#include "ctl/labels.h"
#include "ctl/latency.h"
#include "ctl/network.h"
#include "ctl/options.h"
#include "ctl/progress.h"
#include "ctl/report.h"
#include "ctl/table.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TENSORS_MAX 256
#define TICK_MS     100 /* the progress line moves at least so often */

enum { OPTION_NO_TIME = OPTION_FIRST, OPTION_WAIT, OPTION_RETRY, OPTION_UNORDERED, OPTION_DROP };

struct infer_options {
    struct report_options report;
    struct client_params client;
    const char *model, *sidecar;
    const char *tensors[TENSORS_MAX];
    size_t tensors_count;
    int64_t frames;
};

static int on_option(void *arg, int key, const char *value, struct err *err) {
    struct infer_options *options = arg;
    int64_t number = 0;
    double seconds = 0;
    int rc = 0;
    switch (key) {
    case 'c':
        options->client.address = value;
        break;
    case 'k':
        options->client.key = value;
        break;
    case 'm':
        options->model = value;
        break;
    case 's':
        options->sidecar = value;
        break;
    case 'j':
        options->report.json = true;
        break;
    case 'q':
        options->report.quiet = true;
        break;
    case OPTION_NO_TIME:
        options->report.time = false;
        break;
    case OPTION_UNORDERED:
        options->client.ordered = false;
        break;
    case OPTION_DROP:
        options->client.drop_oldest = true;
        break;
    case 'o':
        options->report.out_dir = value;
        break;
    case 'f':
        return options_integer("--frames", value, 1, INT64_MAX, &options->frames, err);
    case 't':
        rc = options_integer("--top", value, 1, LABELS_TOP_MAX, &number, err);
        options->report.top = (size_t)number;
        break;
    case 'w':
        rc = options_integer("--window", value, 1, CLIENT_WINDOW_MAX, &number, err);
        options->client.window = (size_t)number;
        break;
    case OPTION_WAIT:
        rc = options_real("--wait", value, 0, 1e6, &seconds, err);
        options->client.wait_ms = (uint32_t)(seconds * 1000);
        break;
    case OPTION_RETRY:
        rc = options_real("--retry", value, 0.001, 1e6, &seconds, err);
        options->client.retry_ms = (uint32_t)(seconds * 1000);
        break;
    default:
        if (options->tensors_count == TENSORS_MAX)
            return err_set(err, COMMAND_USAGE, "more than %d tensors", TENSORS_MAX);
        options->tensors[options->tensors_count++] = value;
    }
    return rc;
}

/* What the two threads of an inference share. */
struct inference {
    struct client *client;
    struct feed *feed;
    uint64_t frames; /* at most; 0: all */
    atomic_bool interrupted;
};

/* Travels with a frame through the client. */
struct ticket {
    struct feed_item item; /* source is the ticket's */
    char *source;
    char *error; /* the picture could not be read */
};

static void ticket_free(struct ticket *ticket) {
    if (!ticket)
        return;
    free(ticket->source);
    free(ticket->error);
    free(ticket);
}

/* NULL when there is no memory. */
static struct ticket *ticket_new(const struct feed_item *item, const char *error) {
    struct ticket *ticket = calloc(1, sizeof(*ticket));
    if (!ticket)
        return NULL;
    ticket->item = *item;
    ticket->source = strdup(item->source ? item->source : "");
    ticket->item.source = ticket->source;
    if (error)
        ticket->error = strdup(error);
    if (!ticket->source || (error && !ticket->error)) {
        ticket_free(ticket);
        return NULL;
    }
    return ticket;
}

/* Reads one frame into the client. 1 to go on, 0 at the end or when nobody wants more. */
static int produce_one(struct inference *inference) {
    struct err err = {{0}};
    struct feed_item item;
    struct client_frame *frame = client_frame_new(inference->client);
    if (!frame) {
        client_cancel(inference->client);
        return 0;
    }
    int rc = feed_next(inference->feed, client_frame_tensors(frame), &item, &err);
    if (rc == 0 || rc == -ECANCELED) {
        client_frame_free(frame);
        return 0;
    }
    struct ticket *ticket = ticket_new(&item, rc < 0 ? err.text : NULL);
    if (!ticket || rc < 0) {
        client_frame_free(frame);
        rc = ticket ? client_skip(inference->client, ticket, &err) : -ENOMEM;
    } else {
        rc = client_submit(inference->client, frame, ticket, &err);
    }
    if (rc == 0)
        return 1;
    ticket_free(ticket);
    return 0;
}

/* The thread that reads pictures while results come in. */
static void *produce(void *arg) {
    struct inference *inference = arg;
    for (uint64_t n = 0; inference->frames == 0 || n < inference->frames; n++)
        if (!produce_one(inference))
            break;
    client_finish(inference->client);
    return NULL;
}

static void stop_inference(struct inference *inference) {
    feed_interrupt(inference->feed);
    client_cancel(inference->client);
}

/* On the thread of interrupt.h. */
static void on_interrupt(void *arg) {
    struct inference *inference = arg;
    atomic_store(&inference->interrupted, true);
    stop_inference(inference);
}

struct tally {
    uint64_t done, failed, dropped;
    struct latency latency; /* us */
};

static int handle_result(const struct client_result *result, struct report *report,
                         struct tally *tally, struct progress *progress, struct err *err) {
    const struct ticket *ticket = result->user;
    if (result->status == -ENOBUFS) {
        tally->dropped++;
        return report_dropped(report, &ticket->item, err);
    }
    if (result->status != 0) {
        tally->failed++;
        progress_clear(progress);
        return report_failure(report, &ticket->item, ticket->error ? ticket->error : result->text,
                              err);
    }
    tally->done++;
    latency_add(&tally->latency, result->latency_us);
    return report_result(report, &ticket->item, result->tensors, (double)result->latency_us / 1000,
                         err);
}

/* Takes results until the last one, or until nothing more can come. */
static int consume(struct inference *inference, struct report *report, struct tally *tally,
                   struct progress *progress, struct err *err) {
    for (;;) {
        struct client_result result;
        struct client_counts counts;
        int rc = client_next(inference->client, TICK_MS, &result, err);
        if (rc == 1) {
            rc = handle_result(&result, report, tally, progress, err);
            ticket_free(result.user);
            client_result_fini(&result);
        } else if (rc == 0) {
            return 0;
        } else if (rc == -EAGAIN) {
            rc = 0;
        }
        if (rc != 0)
            return rc;
        client_get_counts(inference->client, &counts);
        progress_update(progress, tally->done + tally->failed + tally->dropped,
                        counts.connected ? "" : "(connection lost, trying again)");
    }
}

/* Frees the tickets of frames that will have no result. */
static void discard_rest(struct client *client) {
    struct client_result result;
    while (client_discard(client, &result) == 1)
        ticket_free(result.user);
}

static void print_summary(struct client *client, const struct tally *tally, uint64_t us) {
    struct client_counts counts;
    char time[32];
    client_get_counts(client, &counts);
    if (tally->done + tally->failed + tally->dropped < 2 && counts.reconnects == 0)
        return;
    fprintf(stderr, "%llu frames in %s (%.1f frames/s), latency p50 %.2f ms, p99 %.2f ms",
            (unsigned long long)tally->done, format_seconds((double)us / 1e6, time, sizeof(time)),
            us ? (double)tally->done * 1e6 / (double)us : 0,
            latency_percentile(&tally->latency, 0.5) / 1000,
            latency_percentile(&tally->latency, 0.99) / 1000);
    if (tally->dropped)
        fprintf(stderr, ", %llu dropped for newer ones", (unsigned long long)tally->dropped);
    if (tally->failed)
        fprintf(stderr, ", %llu failed", (unsigned long long)tally->failed);
    if (counts.reconnects)
        fprintf(stderr, ", connected again %llu times, %llu frames sent again",
                (unsigned long long)counts.reconnects, (unsigned long long)counts.resent);
    fputc('\n', stderr);
}

/* The frame's way with everything opened. */
static int run_inference(struct inference *inference, struct report *report,
                         const struct infer_options *options, struct err *err) {
    struct tally *tally = calloc(1, sizeof(*tally));
    struct progress progress;
    pthread_t producer;
    uint64_t total = feed_total(inference->feed), start = clock_us();
    if (!tally)
        return err_set(err, -ENOMEM, "out of memory");
    if (inference->frames && (total == 0 || inference->frames < total))
        total = inference->frames;
    progress_init(&progress, total,
                  total != 1 && (!isatty(STDOUT_FILENO) || options->report.quiet));
    int rc = -pthread_create(&producer, NULL, produce, inference);
    if (rc != 0) {
        free(tally);
        return err_set(err, rc, "%s", strerror(-rc));
    }
    rc = consume(inference, report, tally, &progress, err);
    progress_clear(&progress);
    if (rc != 0)
        stop_inference(inference);
    pthread_join(producer, NULL);
    print_summary(inference->client, tally, clock_us() - start);
    discard_rest(inference->client);
    if (rc == 0)
        rc = report_finish(report, err);
    if (rc == 0 && tally->failed)
        rc = COMMAND_FAILED;
    if (atomic_load(&inference->interrupted))
        rc = err_set(err, COMMAND_INTERRUPTED, "interrupted");
    free(tally);
    return rc;
}

static int open_sidecar(const struct infer_options *options, const struct client_info *info,
                        struct sidecar **ret_sidecar, struct err *err) {
    bool found = true;
    int rc;
    if (options->sidecar)
        rc = network_read_sidecar(options->sidecar, ret_sidecar, err);
    else if (options->model)
        rc = network_load_sidecar(options->model, ret_sidecar, &found, err);
    else
        rc = network_find_sidecar(info->model, ret_sidecar, &found, err);
    if (rc == 0 && !found && options->tensors_count == 0)
        fprintf(stderr,
                "convoyctl infer: no sidecar of %s was found (--model or --sidecar name it): "
                "pictures are cropped, RGB, from 0 to 1\n",
                options->model ? options->model : info->model);
    return rc;
}

static int infer(const struct infer_options *options, const char *const *sources, size_t count,
                 struct err *err) {
    struct inference inference = {.frames = (uint64_t)options->frames};
    struct report_options report_options = options->report;
    struct interrupt *interrupt = NULL;
    struct report *report = NULL;
    struct sidecar *sidecar = NULL;
    int rc = client_new(&options->client, &inference.client, err);
    if (rc != 0)
        return rc;
    const struct client_info *info = client_get_info(inference.client);
    rc = open_sidecar(options, info, &sidecar, err);
    if (rc == 0)
        rc = options->tensors_count
                 ? feed_new_tensors(options->tensors, options->tensors_count, info->inputs,
                                    info->inputs_count, &inference.feed, err)
                 : feed_new_pictures(sources, count, sidecar, info->inputs, info->inputs_count,
                                     &inference.feed, err);
    if (rc == 0) {
        report_options.form = feed_form(inference.feed);
        rc = report_new(&report_options, sidecar, info->outputs, info->outputs_count, stdout,
                        &report, err);
    }
    if (rc == 0)
        rc = interrupt_start(on_interrupt, &inference, &interrupt);
    if (rc == 0)
        rc = run_inference(&inference, report, options, err);
    interrupt_stop(interrupt);
    report_free(report);
    feed_free(inference.feed);
    sidecar_free(sidecar);
    client_free(inference.client);
    return rc;
}

static int run_infer(const struct command *command, int argc, char **argv, struct err *err) {
    struct infer_options options = {.report = {.time = true, .top = 5},
                                    .client = {.ordered = true}};
    int first;
    int rc = options_parse(command, argc, argv, on_option, &options, &first, err);
    if (rc != 0)
        return rc;
    if (!options.client.address)
        return err_set(err, COMMAND_USAGE, "--to HOST:PORT is needed: the line's first device");
    if (argc == first && options.tensors_count == 0)
        return err_set(err, COMMAND_USAGE,
                       "a PICTURE, FOLDER, VIDEO, CAMERA or - (or --tensor) is needed; see: "
                       "convoyctl infer --help");
    if (argc > first && options.tensors_count)
        return err_set(err, COMMAND_USAGE, "pictures or --tensor, not both");
    if (!options.client.ordered && options.report.out_dir)
        return err_set(err, COMMAND_USAGE, "--out keeps the order; leave out --unordered");
    return infer(&options, (const char *const *)argv + first, (size_t)(argc - first), err);
}

static const struct command_option option_rows[] = {
    {'c', "to", "HOST:PORT", "the line's first device"},
    {'k', "key", "FILE", "the line's key (default: the file that CONVOY_KEY names)"},
    {'i', "tensor", "[NAME=]FILE.npy",
     "an input as a NumPy file (repeatable), instead of pictures"},
    {'o', "out", "DIR", "write the outputs as DIR/OUTPUT.npy"},
    {'m', "model", "MODEL.onnx", "its sidecar MODEL.yaml says how pictures become inputs"},
    {'s', "sidecar", "FILE.yaml", "this sidecar does"},
    {'t', "top", "N", "classes to print per picture (default 5)"},
    {'f', "frames", "N", "stop after N frames"},
    {'w', "window", "N", "frames on their way at most (default 64)"},
    {OPTION_DROP, "drop", NULL, "live pictures: newer frames take the place of those that wait"},
    {OPTION_UNORDERED, "unordered", NULL, "print results as they come, not in the source's order"},
    {OPTION_WAIT, "wait", "SECONDS", "wait so long for the line to come up (default 0)"},
    {OPTION_RETRY, "retry", "SECONDS", "try so long to reach a lost line again (default 60)"},
    {'j', "json", NULL, "print a line of JSON per frame"},
    {OPTION_NO_TIME, "no-time", NULL, "leave out the milliseconds"},
    {'q', "quiet", NULL, "print nothing for frames that succeed"},
    {0},
};

const struct command command_infer = {
    .name = "infer",
    .operands = "[OPTION...] --to HOST:PORT PICTURE|FOLDER|VIDEO|CAMERA|-...",
    .summary = "Sends pictures or tensors through a line of devices",
    .details = "Without --model and --sidecar the sidecar of the model that the line runs is "
               "looked for in "
               "the\ncurrent folder, in models/ and in /var/lib/convoy/models. After a lost "
               "connection the "
               "session is\nresumed and nothing is lost or answered twice. Exit code 1 when a "
               "frame failed.",
    .options = option_rows,
    .run = run_infer,
};
