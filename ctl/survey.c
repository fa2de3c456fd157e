/* One connection with the role of an ingress, on which one question at a time is asked and waited
 * for. Pings are answered whenever something is waited for, so that the device keeps it. */
#include "ctl/survey.h"

#include "ctl/progress.h"
#include "ctl/stream.h"

#include "plan/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SILENCE_US    5000000 /* a device that says nothing for so long is gone */
#define WAIT_MS       100     /* between looks at `stop` */
#define CHUNK         65536   /* bytes of a part or a probe in one message */
#define ROUNDS        3       /* of probing; the median counts */
#define PROBES        24      /* messages of a round */
#define PROBES_AHEAD  8       /* that have no answer yet */
#define PROBES_LEAST  6       /* of a round that was cut short */
#define ROUND_US      300000  /* a round is cut short after so long */
#define SMALL_PROBES  8       /* one after the other, for latency */
#define SMALL_BYTES   64
#define BUSY_US       500000 /* before a device that was busy is asked again */
#define BUSY_TRIES    20
#define BYTES_TO_MBIT 8.0 /* bytes per microsecond to Mbit/s */

struct survey {
    struct stream *stream;
    const char *address;
    const atomic_bool *stop;
    uint64_t last_us;        /* when the device said something */
    Convoy__Message *answer; /* to what was asked last; NULL: not yet */
    struct err said;         /* what it said instead */
    uint64_t answered_us[PROBES], cpu_us[PROBES];
    size_t answers;  /* Probed, of the round */
    int part_fd;     /* -1: none is served */
    void *chunk;     /* [CHUNK]: zeros, or the piece that is being sent */
    bool is_sending; /* chunk is in use by the stream */
};

/* ---- the connection ----------------------------------------------------------------------------
 */

static int refuse_payload(void *arg, const Convoy__Message *header, size_t bytes,
                          void **ret_buffer) {
    (void)arg, (void)header, (void)bytes, (void)ret_buffer;
    return -EPROTO;
}

static void on_sent(void *arg) {
    struct survey *survey = arg;
    survey->is_sending = false;
}

/* A piece of the part. The device asks for the next one when it has this one. */
static int send_chunk(struct survey *survey, const Convoy__PartRequest *request) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__PartChunk chunk = CONVOY__PART_CHUNK__INIT;
    if (survey->part_fd < 0 || survey->is_sending || request->bytes > CHUNK ||
        request->offset > INT64_MAX)
        return -EPROTO;
    ssize_t got = pread(survey->part_fd, survey->chunk, request->bytes, (off_t)request->offset);
    if (got != (ssize_t)request->bytes)
        return err_set(&survey->said, got < 0 ? -errno : -EPROTO,
                       "it asks for a piece that the part does not have");
    chunk.part = request->part;
    chunk.offset = request->offset;
    message.body_case = CONVOY__MESSAGE__BODY_PART_CHUNK;
    message.part_chunk = &chunk;
    survey->is_sending = true;
    int rc = stream_send(survey->stream, &message, survey->chunk, (size_t)got, on_sent, survey);
    if (rc < 0)
        survey->is_sending = false;
    return rc;
}

static int send_pong(struct survey *survey, const Convoy__Ping *ping) {
    Convoy__Message answer = CONVOY__MESSAGE__INIT;
    Convoy__Pong pong = CONVOY__PONG__INIT;
    pong.token = ping->token;
    answer.body_case = CONVOY__MESSAGE__BODY_PONG;
    answer.pong = &pong;
    return stream_send(survey->stream, &answer, NULL, 0, NULL, NULL);
}

/* Keeps a copy of an answer, beyond the reader's own. */
static int keep(struct survey *survey, const Convoy__Message *header) {
    size_t size = convoy__message__get_packed_size(header);
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return -ENOMEM;
    convoy__message__pack(header, bytes);
    if (survey->answer)
        convoy__message__free_unpacked(survey->answer, NULL);
    survey->answer = convoy__message__unpack(NULL, size, bytes);
    free(bytes);
    return survey->answer ? 0 : -ENOMEM;
}

static int on_message(void *arg, const struct message *message) {
    struct survey *survey = arg;
    const Convoy__Message *header = message->header;
    survey->last_us = clock_us();
    switch (header->body_case) {
    case CONVOY__MESSAGE__BODY_GOODBYE:
        return err_set(&survey->said, -ECONNREFUSED, "it ended the connection (%s)%s%s",
                       message_code_name(header->goodbye->code),
                       header->goodbye->text[0] ? ": " : "", header->goodbye->text);
    case CONVOY__MESSAGE__BODY_PING:
        return send_pong(survey, header->ping);
    case CONVOY__MESSAGE__BODY_PART_REQUEST:
        return send_chunk(survey, header->part_request);
    case CONVOY__MESSAGE__BODY_PROBED:
        if (survey->answers < PROBES) {
            survey->answered_us[survey->answers] = survey->last_us;
            survey->cpu_us[survey->answers++] = header->probed->cpu_us;
        }
        return 0;
    case CONVOY__MESSAGE__BODY_STATUS:
    case CONVOY__MESSAGE__BODY_MEASURED:
        return keep(survey, header);
    default:
        return 0;
    }
}

/* Writes and reads once, waiting for at most WAIT_MS. 0, or an error that ends the survey. */
static int turn(struct survey *survey, struct err *err) {
    struct err why = {""};
    size_t bytes;
    if (survey->stop && atomic_load(survey->stop))
        return err_set(err, -ECANCELED, "interrupted");
    if (clock_us() > survey->last_us + SILENCE_US)
        return err_set(err, -ETIMEDOUT, "%s: no answer for %d s", survey->address,
                       SILENCE_US / 1000000);
    int rc = stream_write(survey->stream, &why);
    struct pollfd wait = {.fd = stream_fd(survey->stream), .events = stream_events(survey->stream)};
    if (rc == 0 && poll(&wait, 1, WAIT_MS) > 0 && (wait.revents & (POLLIN | POLLHUP | POLLERR)))
        rc = stream_read(survey->stream, &bytes, &why);
    if (rc == 0)
        return 0;
    return err_set(err, rc, "%s: %s", survey->address,
                   survey->said.text[0] ? survey->said.text
                   : why.text[0]        ? why.text
                                        : strerror(-rc));
}

/* Sends a question and waits for the answer, in survey->answer. */
static int ask(struct survey *survey, const Convoy__Message *message, struct err *err) {
    if (survey->answer)
        convoy__message__free_unpacked(survey->answer, NULL);
    survey->answer = NULL;
    int rc = stream_send(survey->stream, message, NULL, 0, NULL, NULL);
    if (rc < 0)
        return err_set(err, rc, "%s: %s", survey->address, strerror(-rc));
    while (rc == 0 && !survey->answer)
        rc = turn(survey, err);
    return rc;
}

static int say_hello(struct survey *survey) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Hello hello = CONVOY__HELLO__INIT;
    hello.version = MESSAGE_VERSION;
    hello.role = CONVOY__ROLE__ROLE_INGRESS;
    hello.node = (char *)(uintptr_t) "convoyctl";
    message.body_case = CONVOY__MESSAGE__BODY_HELLO;
    message.hello = &hello;
    return stream_send(survey->stream, &message, NULL, 0, NULL, NULL);
}

int survey_new(const char *address, const char *key, const atomic_bool *stop,
               struct survey **ret_survey, struct err *err) {
    static const struct reader_callbacks callbacks = {refuse_payload, on_message};
    static const struct reader_limits limits = {MESSAGE_HEADER_MAX, 0};
    struct tls_context *tls;
    int fd;
    int rc = stream_load_key(key, &tls, err);
    if (rc < 0)
        return rc;
    rc = stream_connect(address, SILENCE_US / 1000, -1, &fd, err);
    if (rc < 0) {
        tls_context_unref(tls);
        return rc;
    }
    struct survey *survey = calloc(1, sizeof(*survey));
    if (survey) {
        survey->address = address;
        survey->stop = stop;
        survey->part_fd = -1;
        survey->last_us = clock_us();
        survey->chunk = calloc(1, CHUNK);
        survey->stream = stream_new(fd, tls, &limits, &callbacks, survey);
    } else {
        close(fd);
    }
    tls_context_unref(tls);
    rc = survey && survey->chunk && survey->stream ? say_hello(survey) : -ENOMEM;
    if (rc < 0) {
        survey_free(survey);
        return err_set(err, rc, "%s: %s", address, strerror(-rc));
    }
    *ret_survey = survey;
    return 0;
}

void survey_free(struct survey *survey) {
    if (!survey)
        return;
    stream_free(survey->stream);
    if (survey->answer)
        convoy__message__free_unpacked(survey->answer, NULL);
    if (survey->part_fd >= 0)
        close(survey->part_fd);
    free(survey->chunk);
    free(survey);
}

/* ---- the device --------------------------------------------------------------------------------
 */

int survey_describe(struct survey *survey, struct profile_record *record, struct err *err) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__StatusRequest request = CONVOY__STATUS_REQUEST__INIT;
    request.token = clock_us();
    request.alone = true;
    message.body_case = CONVOY__MESSAGE__BODY_STATUS_REQUEST;
    message.status_request = &request;
    int rc = ask(survey, &message, err);
    if (rc < 0)
        return rc;
    if (survey->answer->body_case != CONVOY__MESSAGE__BODY_STATUS ||
        survey->answer->status->n_stages == 0 || survey->answer->status->stages[0]->workers == 0)
        return err_set(err, -EPROTO, "%s: says nothing of itself", survey->address);
    const Convoy__StageStatus *own = survey->answer->status->stages[0];
    snprintf(record->node, sizeof(record->node), "%s", own->node);
    snprintf(record->cpu, sizeof(record->cpu), "%s", own->cpu);
    record->cores = own->cores < INT32_MAX && own->cores > 0 ? (int)own->cores : 1;
    record->workers = own->workers < INT32_MAX ? (int)own->workers : 1;
    record->threads = own->threads < INT32_MAX && own->threads > 0 ? (int)own->threads : 1;
    record->facts = (struct facts){.cores = record->cores,
                                   .memory_available = own->memory_available,
                                   .celsius = own->celsius != 0 ? own->celsius : NAN,
                                   .throttled = own->throttled == 2   ? FACTS_YES
                                                : own->throttled == 1 ? FACTS_NO
                                                                      : FACTS_UNKNOWN};
    memcpy(record->facts.cpu, record->cpu, sizeof(record->facts.cpu));
    return 0;
}

/* ---- the link ----------------------------------------------------------------------------------
 */

static int send_probe(struct survey *survey, size_t bytes) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Probe probe = CONVOY__PROBE__INIT;
    Convoy__Tensor tensor = CONVOY__TENSOR__INIT, *tensors[] = {&tensor};
    int64_t dims[] = {(int64_t)bytes};
    tensor.name = (char *)(uintptr_t) "probe";
    tensor.dtype = DTYPE_UINT8;
    tensor.dims = dims;
    tensor.n_dims = 1;
    tensor.size = bytes;
    probe.token = clock_us();
    probe.tensors = tensors;
    probe.n_tensors = 1;
    message.body_case = CONVOY__MESSAGE__BODY_PROBE;
    message.probe = &probe;
    return stream_send(survey->stream, &message, survey->chunk, bytes, NULL, NULL);
}

/* Sends up to PROBES messages, `ahead` of them without an answer, until all are answered or
 * ROUND_US have passed. */
static int run_round(struct survey *survey, size_t bytes, size_t most, size_t ahead,
                     uint64_t *ret_begin_us, struct err *err) {
    size_t sent = 0;
    int rc = 0;
    survey->answers = 0;
    *ret_begin_us = clock_us();
    while (rc == 0 && (sent < most || survey->answers < sent)) {
        bool is_late = sent >= PROBES_LEAST && clock_us() > *ret_begin_us + ROUND_US;
        if (is_late)
            most = sent;
        for (; rc == 0 && sent < most && sent < survey->answers + ahead; sent++)
            rc = send_probe(survey, bytes);
        if (rc < 0)
            err_set(err, rc, "%s: %s", survey->address, strerror(-rc));
        else if (survey->answers < sent)
            rc = turn(survey, err);
    }
    return rc;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count) {
    qsort(values, count, sizeof(*values), compare);
    return values[count / 2];
}

/* CPU time of one message between the first and the last answer of a round. */
static double message_cpu_us(const struct survey *survey) {
    if (survey->answers < 2 || survey->cpu_us[survey->answers - 1] < survey->cpu_us[0])
        return 0;
    return (double)(survey->cpu_us[survey->answers - 1] - survey->cpu_us[0]) /
           (double)(survey->answers - 1);
}

int survey_probe(struct survey *survey, struct profile_link *ret_link, struct err *err) {
    double rates[ROUNDS], costs[ROUNDS], trips[SMALL_PROBES], small_us;
    uint64_t begin_us;
    int rc = 0;
    memset(survey->chunk, 0, CHUNK);
    for (size_t i = 0; rc == 0 && i < SMALL_PROBES; i++) {
        rc = run_round(survey, SMALL_BYTES, 1, 1, &begin_us, err);
        trips[i] = (double)(survey->answered_us[0] - begin_us);
    }
    if (rc == 0)
        rc = run_round(survey, SMALL_BYTES, PROBES, 1, &begin_us, err);
    small_us = rc == 0 ? message_cpu_us(survey) : 0;
    for (size_t i = 0; rc == 0 && i < ROUNDS; i++) {
        rc = run_round(survey, CHUNK, PROBES, PROBES_AHEAD, &begin_us, err);
        if (rc < 0)
            break;
        rates[i] = BYTES_TO_MBIT * probe_rate(survey->answered_us, survey->answers, CHUNK);
        costs[i] = fmax(0, message_cpu_us(survey) - small_us) / CHUNK;
    }
    if (rc < 0)
        return rc;
    *ret_link = (struct profile_link){.is_measured = true,
                                      .mbit = median(rates, ROUNDS),
                                      .latency_ms = median(trips, SMALL_PROBES) / 2e3,
                                      .byte_ns = median(costs, ROUNDS) * 1e3,
                                      .message_us = small_us};
    return 0;
}

/* ---- the layers --------------------------------------------------------------------------------
 */

/* The whole model as one ONNX file with its dimensions settled, open; its name is gone already. */
static int open_part(struct survey *survey, const struct model *model,
                     uint8_t ret_digest[SHA256_SIZE], uint64_t *ret_bytes, struct err *err) {
    const char *folder = getenv("TMPDIR");
    char *path = NULL;
    struct stat st;
    if (asprintf(&path, "%s/convoy-part-XXXXXX", folder && *folder ? folder : "/tmp") < 0)
        return err_set(err, -ENOMEM, "out of memory");
    int fd = mkstemp(path);
    int rc = fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
    if (fd >= 0)
        close(fd);
    if (rc == 0)
        rc = model_write_part(model, 0, model_layers_count(model), path, err);
    if (rc == 0 && (survey->part_fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        rc = err_set(err, -errno, "%s: %s", path, strerror(errno));
    if (fd >= 0)
        unlink(path);
    free(path);
    if (rc == 0 &&
        (fstat(survey->part_fd, &st) < 0 || (rc = sha256_file(survey->part_fd, ret_digest)) < 0))
        rc = err_set(err, rc < 0 ? rc : -errno, "the model's part cannot be read");
    if (rc == 0)
        *ret_bytes = (uint64_t)st.st_size;
    return rc;
}

static bool is_busy(const Convoy__Message *answer) {
    return answer->body_case == CONVOY__MESSAGE__BODY_MEASURED &&
           answer->measured->code == CONVOY__CODE__CODE_BUSY;
}

/* A plan goes before a measurement: a device that is handed one is asked again a little later. */
static int ask_until_free(struct survey *survey, const Convoy__Message *message, struct err *err) {
    int rc = ask(survey, message, err);
    for (int tries = 0; rc == 0 && is_busy(survey->answer) && tries < BUSY_TRIES; tries++) {
        uint64_t again_us = clock_us() + BUSY_US;
        while (rc == 0 && clock_us() < again_us)
            rc = turn(survey, err);
        if (rc == 0)
            rc = ask(survey, message, err);
    }
    return rc;
}

/* What the device has measured, into record. */
static int take_measured(const struct survey *survey, const struct model *model,
                         struct profile_record *record, struct err *err) {
    const Convoy__Measured *measured = survey->answer->measured;
    size_t layers = model_layers_count(model);
    if (measured->code != CONVOY__CODE__CODE_OK)
        return err_set(err, -EREMOTEIO, "%s: cannot measure the model (%s): %s", survey->address,
                       message_code_name(measured->code), measured->text);
    if (measured->n_layer_us != layers)
        return err_set(err, -EPROTO, "%s: measured %zu layers, but the model has %zu",
                       survey->address, measured->n_layer_us, layers);
    double *layer_us = calloc(layers, sizeof(*layer_us));
    if (!layer_us)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < layers; i++) {
        layer_us[i] = (double)measured->layer_us[i];
        if (!(layer_us[i] >= 0 && layer_us[i] <= PROFILE_LAYER_MAX)) {
            free(layer_us);
            return err_set(err, -EPROTO, "%s: the time of layer %zu is no time", survey->address,
                           i);
        }
    }
    record->layers = layers;
    record->layer_us = layer_us;
    record->frames = (size_t)measured->frames;
    record->when = (int64_t)time(NULL);
    return 0;
}

int survey_measure(struct survey *survey, const struct model *model, double seconds,
                   struct profile_record *record, struct err *err) {
    Convoy__Message message = CONVOY__MESSAGE__INIT;
    Convoy__Measure measure = CONVOY__MEASURE__INIT;
    uint8_t id[SHA256_SIZE], digest[SHA256_SIZE];
    if (model_identity(model, id) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    int rc = open_part(survey, model, digest, &measure.part_bytes, err);
    if (rc < 0)
        return rc;
    measure.token = clock_us();
    measure.model = (ProtobufCBinaryData){SHA256_SIZE, id};
    measure.part = (ProtobufCBinaryData){SHA256_SIZE, digest};
    measure.model_name = (char *)(uintptr_t)basename(model_path(model));
    measure.seconds = seconds;
    message.body_case = CONVOY__MESSAGE__BODY_MEASURE;
    message.measure = &measure;
    survey->last_us = clock_us();
    rc = ask_until_free(survey, &message, err);
    close(survey->part_fd);
    survey->part_fd = -1;
    if (rc == 0 && survey->answer->body_case != CONVOY__MESSAGE__BODY_MEASURED)
        rc = err_set(err, -EPROTO, "%s: answered with another message", survey->address);
    return rc < 0 ? rc : take_measured(survey, model, record, err);
}
