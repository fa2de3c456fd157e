#include "ctl/decoder.h"

#include "ctl/media.h"

#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavdevice/avdevice.h>
#include <libavformat/avformat.h>
#include <libavutil/pixdesc.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define IO_BYTES   (64 << 10)
#define TIMEOUT_US "10000000" /* a stream that sends nothing for so long is dead */
#define PROTOCOLS  "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,rtmp,rtmps"

struct decoder {
    enum decoder_kind kind;
    const atomic_bool *interrupted;
    int fd; /* FILE, STDIN: read by io; else -1 */
    AVIOContext *io;
    AVFormatContext *format;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *frame;
    int stream;
    bool seekable; /* a regular file */
    bool film;
    bool draining; /* the stream has ended, the codec may still hold pictures */
    uint64_t pictures;
    int damage; /* FFmpeg's code for the last packet that could not be decoded */
    int broken; /* and for what ended the stream before its end */
};

static int is_interrupted(void *arg) {
    const struct decoder *decoder = arg;
    return atomic_load(decoder->interrupted);
}

/* Waits for bytes for a moment, so that an interruption is seen even when none ever come. */
static bool await_bytes(int fd) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, 100) > 0;
}

static int read_bytes(void *arg, uint8_t *buf, int size) {
    struct decoder *decoder = arg;
    for (;;) {
        if (is_interrupted(decoder))
            return AVERROR_EXIT;
        if (!decoder->seekable && !await_bytes(decoder->fd))
            continue;
        ssize_t n = read(decoder->fd, buf, (size_t)size);
        if (n > 0)
            return (int)n;
        if (n == 0)
            return AVERROR_EOF;
        if (errno != EINTR)
            return AVERROR(errno);
    }
}

static int64_t seek_bytes(void *arg, int64_t offset, int whence) {
    struct decoder *decoder = arg;
    struct stat st;
    if (whence == AVSEEK_SIZE)
        return fstat(decoder->fd, &st) == 0 ? (int64_t)st.st_size : AVERROR(errno);
    off_t at = lseek(decoder->fd, offset, whence & ~AVSEEK_FORCE);
    return at < 0 ? AVERROR(errno) : (int64_t)at;
}

/* A file that names other files or hosts (play lists, references) stays alone. */
static int refuse_to_open(struct AVFormatContext *format, AVIOContext **pb, const char *url,
                          int flags, AVDictionary **options) {
    (void)format, (void)pb, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

/* The sentence and errno for what FFmpeg answered. */
static int explain(int code, struct err *err) {
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    if (code == AVERROR_EXIT)
        return err_set(err, -ECANCELED, "interrupted");
    if (code == AVERROR(ENOMEM))
        return err_set(err, -ENOMEM, "out of memory");
    av_strerror(code, text, sizeof(text));
    bool system = -code > 0 && -code < 4096 && code != AVERROR(EINVAL);
    if (system)
        return err_set(err, code, "%s", text);
    return err_set(err, -EBADMSG, "not a picture or video that FFmpeg can read: %s", text);
}

/* Gives decoder->format our own way to the bytes of decoder->fd. */
static int attach_io(struct decoder *decoder) {
    struct stat st;
    uint8_t *buffer = av_malloc(IO_BYTES);
    if (!buffer)
        return AVERROR(ENOMEM);
    decoder->seekable = fstat(decoder->fd, &st) == 0 && S_ISREG(st.st_mode);
    decoder->io = avio_alloc_context(buffer, IO_BYTES, 0, decoder, read_bytes, NULL,
                                     decoder->seekable ? seek_bytes : NULL);
    if (!decoder->io) {
        av_free(buffer);
        return AVERROR(ENOMEM);
    }
    decoder->format->pb = decoder->io;
    decoder->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    decoder->format->io_open = refuse_to_open;
    return 0;
}

/* Opens the container. Returns FFmpeg's code. */
static int open_format(struct decoder *decoder, const char *name) {
    const AVInputFormat *input = NULL;
    AVDictionary *options = NULL;
    decoder->format = avformat_alloc_context();
    if (!decoder->format)
        return AVERROR(ENOMEM);
    decoder->format->interrupt_callback = (AVIOInterruptCB){is_interrupted, decoder};
    if (decoder->fd >= 0) {
        int rc = attach_io(decoder);
        if (rc < 0)
            return rc;
        name = "";
    } else if (decoder->kind == DECODER_CAMERA) {
        avdevice_register_all();
        input = av_find_input_format("v4l2");
        if (!input)
            return AVERROR_DEMUXER_NOT_FOUND;
    } else {
        av_dict_set(&options, "protocol_whitelist", PROTOCOLS, 0);
        av_dict_set(&options, "rtsp_transport", "tcp", 0);
        av_dict_set(&options, "timeout", TIMEOUT_US, 0);
        av_dict_set(&options, "rw_timeout", TIMEOUT_US, 0);
    }
    int rc = avformat_open_input(&decoder->format, name, input, &options);
    av_dict_free(&options);
    return rc;
}

/* A demuxer of still pictures. It knows the codec without looking further, and takes a whole file
 * at once, but a pipe only after avformat_find_stream_info() has given it a parser. */
static bool is_picture_format(const AVInputFormat *format) {
    size_t len = strlen(format->name);
    return len > 5 && strcmp(format->name + len - 5, "_pipe") == 0;
}

static int open_codec(struct decoder *decoder) {
    const AVCodec *codec = NULL;
    bool picture = is_picture_format(decoder->format->iformat);
    int rc;
    decoder->film = !picture || decoder->kind != DECODER_FILE || !decoder->seekable;
    if (!picture || !decoder->seekable) {
        rc = avformat_find_stream_info(decoder->format, NULL);
        if (rc < 0)
            return rc;
    }
    decoder->stream = av_find_best_stream(decoder->format, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (decoder->stream < 0)
        return decoder->stream;
    AVStream *stream = decoder->format->streams[decoder->stream];
    decoder->codec = avcodec_alloc_context3(codec);
    decoder->packet = av_packet_alloc();
    decoder->frame = av_frame_alloc();
    if (!decoder->codec || !decoder->packet || !decoder->frame)
        return AVERROR(ENOMEM);
    rc = avcodec_parameters_to_context(decoder->codec, stream->codecpar);
    if (rc < 0)
        return rc;
    decoder->codec->max_pixels = MEDIA_PIXELS_MAX;
    decoder->codec->pkt_timebase = stream->time_base;
    decoder->codec->thread_count = decoder->kind == DECODER_FILE && !picture ? 0 : 1;
    if (!decoder->film) /* better no answer than one about the upper half of a damaged picture */
        decoder->codec->err_recognition |= AV_EF_EXPLODE;
    return avcodec_open2(decoder->codec, codec, NULL);
}

int decoder_new(enum decoder_kind kind, const char *name, const atomic_bool *interrupted,
                struct decoder **ret_decoder, struct err *err) {
    int rc;
    av_log_set_level(AV_LOG_QUIET);
    struct decoder *decoder = av_mallocz(sizeof(*decoder));
    if (!decoder)
        return err_set(err, -ENOMEM, "out of memory");
    decoder->kind = kind;
    decoder->interrupted = interrupted;
    decoder->fd = -1;
    if (kind == DECODER_FILE)
        decoder->fd = open(name, O_RDONLY | O_CLOEXEC);
    else if (kind == DECODER_STDIN)
        decoder->fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (decoder->fd < 0 && (kind == DECODER_FILE || kind == DECODER_STDIN)) {
        rc = err_set(err, -errno, "%s", strerror(errno));
        goto fail;
    }
    rc = open_format(decoder, name);
    if (rc >= 0)
        rc = open_codec(decoder);
    if (rc < 0) {
        rc = explain(rc, err);
        goto fail;
    }
    *ret_decoder = decoder;
    return 0;

fail:
    decoder_free(decoder);
    return rc;
}

void decoder_free(struct decoder *decoder) {
    if (!decoder)
        return;
    av_frame_free(&decoder->frame);
    av_packet_free(&decoder->packet);
    avcodec_free_context(&decoder->codec);
    avformat_close_input(&decoder->format);
    if (decoder->io)
        av_freep(&decoder->io->buffer);
    avio_context_free(&decoder->io);
    if (decoder->fd >= 0)
        close(decoder->fd);
    av_free(decoder);
}

/* Gives the codec the next packet of our stream, or at the end of the stream the order to drain. An
 * error of reading ends the stream; of decoding, only the packet. Returns FFmpeg's code. */
static int feed_codec(struct decoder *decoder) {
    for (;;) {
        int rc = av_read_frame(decoder->format, decoder->packet);
        if (rc == AVERROR(EAGAIN)) { /* a camera without a new picture yet */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            if (is_interrupted(decoder))
                return AVERROR_EXIT;
            continue;
        }
        if (rc < 0) {
            decoder->draining = true;
            decoder->broken = rc == AVERROR_EOF ? 0 : rc;
            return avcodec_send_packet(decoder->codec, NULL);
        }
        bool ours = decoder->packet->stream_index == decoder->stream;
        if (ours)
            rc = avcodec_send_packet(decoder->codec, decoder->packet);
        av_packet_unref(decoder->packet);
        if (ours)
            return rc;
    }
}

static int check_frame(const struct decoder *decoder, struct err *err) {
    const AVFrame *f = decoder->frame;
    if (f->width < 1 || f->height < 1 || f->width > MEDIA_SIDE_MAX || f->height > MEDIA_SIDE_MAX)
        return err_set(err, -EMSGSIZE, "%d x %d pixels; sides of 1 to %d are taken", f->width,
                       f->height, MEDIA_SIDE_MAX);
    if (!decoder->film && (f->decode_error_flags || (f->flags & AV_FRAME_FLAG_CORRUPT)))
        return err_set(err, -EBADMSG, "the picture is damaged or incomplete");
    return 0;
}

/* No frame came. A size over the limit shows in the parameters only. */
static int explain_nothing(const struct decoder *decoder, struct err *err) {
    int64_t w = decoder->codec->coded_width, h = decoder->codec->coded_height;
    if (w < decoder->codec->width)
        w = decoder->codec->width;
    if (h < decoder->codec->height)
        h = decoder->codec->height;
    if (w > MEDIA_SIDE_MAX || h > MEDIA_SIDE_MAX || w * h > MEDIA_PIXELS_MAX)
        return err_set(err, -EMSGSIZE, "%lld x %lld pixels; sides of 1 to %d are taken",
                       (long long)w, (long long)h, MEDIA_SIDE_MAX);
    return explain(decoder->damage ? decoder->damage : AVERROR_INVALIDDATA, err);
}

/* The stream has ended and the codec is empty. */
static int end_stream(struct decoder *decoder, struct err *err) {
    int broken = decoder->broken;
    decoder->broken = 0; /* is said once */
    if (broken == AVERROR_EXIT || (broken && decoder->pictures))
        return explain(broken, err);
    if (broken)
        decoder->damage = broken;
    return decoder->pictures ? 0 : explain_nothing(decoder, err);
}

int decoder_next(struct decoder *decoder, const AVFrame **ret_frame, struct err *err) {
    for (;;) {
        int rc = avcodec_receive_frame(decoder->codec, decoder->frame);
        if (rc >= 0) {
            rc = check_frame(decoder, err);
            if (rc != 0)
                return rc;
            decoder->pictures++;
            *ret_frame = decoder->frame;
            return 1;
        }
        if (decoder->draining)
            return end_stream(decoder, err);
        if (rc == AVERROR(EAGAIN))
            rc = feed_codec(decoder);
        if (rc == AVERROR_EXIT || rc == AVERROR(ENOMEM))
            return explain(rc, err);
        if (rc < 0 && rc != AVERROR(EAGAIN)) {
            decoder->damage = rc;
            if (!decoder->film)
                return explain_nothing(decoder, err);
        }
    }
}

bool decoder_is_film(const struct decoder *decoder) {
    return decoder->film;
}

const int32_t *decoder_orientation(const struct decoder *decoder, const AVFrame *frame) {
    const AVFrameSideData *side = av_frame_get_side_data(frame, AV_FRAME_DATA_DISPLAYMATRIX);
    if (side && side->size >= 9 * sizeof(int32_t))
        return (const int32_t *)(const void *)side->data;
    size_t size = 0;
    const uint8_t *data = av_stream_get_side_data(decoder->format->streams[decoder->stream],
                                                  AV_PKT_DATA_DISPLAYMATRIX, &size);
    return data && size >= 9 * sizeof(int32_t) ? (const int32_t *)(const void *)data : NULL;
}
