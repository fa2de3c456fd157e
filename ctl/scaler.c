#include "ctl/scaler.h"

#include "ctl/preprocess.h"

#include <errno.h>
#include <libavutil/mem.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
#include <string.h>

#define ROW_ALIGN 64 /* libswscale's vector code may write so far past a row's end */

struct buffer {
    uint8_t *data;
    size_t bytes;
};

/* What a SwsContext is made for. */
struct shape {
    int from_width, from_height, width, height, full_range, matrix;
    enum AVPixelFormat from, to;
};

struct scaler {
    struct SwsContext *sws;
    struct shape shape; /* of sws */
    struct buffer scaled, turned;
};

struct orientation orientation_from_matrix(const int32_t *m) {
    struct orientation o = {0};
    if (!m)
        return o;
    /* x' = m[0] x + m[3] y, y' = m[1] x + m[4] y */
    if (m[1] == 0 && m[3] == 0) {
        o.mirror_x = m[0] < 0;
        o.mirror_y = m[4] < 0;
    } else if (m[0] == 0 && m[4] == 0) {
        o.transpose = true;
        o.mirror_x = m[3] < 0;
        o.mirror_y = m[1] < 0;
    }
    return o;
}

struct scaler *scaler_new(void) {
    return av_mallocz(sizeof(struct scaler));
}

void scaler_free(struct scaler *scaler) {
    if (!scaler)
        return;
    sws_freeContext(scaler->sws);
    av_free(scaler->scaled.data);
    av_free(scaler->turned.data);
    av_free(scaler);
}

static int reserve(struct buffer *buffer, size_t stride, int height) {
    size_t bytes = stride * (size_t)height + ROW_ALIGN;
    if (bytes <= buffer->bytes)
        return 0;
    av_freep(&buffer->data);
    buffer->bytes = 0;
    buffer->data = av_malloc(bytes);
    if (!buffer->data)
        return -ENOMEM;
    buffer->bytes = bytes;
    return 0;
}

/* The formats of JPEG's own range, under their present names. */
static enum AVPixelFormat modern_format(enum AVPixelFormat format, bool *full_range) {
    static const struct {
        enum AVPixelFormat old, now;
    } formats[] = {
        {AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUV420P}, {AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUV422P},
        {AV_PIX_FMT_YUVJ444P, AV_PIX_FMT_YUV444P}, {AV_PIX_FMT_YUVJ440P, AV_PIX_FMT_YUV440P},
        {AV_PIX_FMT_YUVJ411P, AV_PIX_FMT_YUV411P},
    };
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (formats[i].old == format) {
            *full_range = true;
            return formats[i].now;
        }
    return format;
}

/* The matrix between RGB and the frame's luma and chroma; where the file does not say, what its
 * size suggests. */
static int find_matrix(const AVFrame *frame) {
    switch (frame->colorspace) {
    case AVCOL_SPC_BT709:
        return SWS_CS_ITU709;
    case AVCOL_SPC_FCC:
        return SWS_CS_FCC;
    case AVCOL_SPC_SMPTE240M:
        return SWS_CS_SMPTE240M;
    case AVCOL_SPC_BT2020_NCL:
    case AVCOL_SPC_BT2020_CL:
        return SWS_CS_BT2020;
    case AVCOL_SPC_UNSPECIFIED:
        return frame->height > 576 && frame->color_range != AVCOL_RANGE_JPEG ? SWS_CS_ITU709
                                                                             : SWS_CS_ITU601;
    default:
        return SWS_CS_ITU601;
    }
}

static bool is_luma_based(enum AVPixelFormat format) {
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(format);
    return d && !(d->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL |
                              AV_PIX_FMT_FLAG_BITSTREAM | AV_PIX_FMT_FLAG_BAYER));
}

/* Makes scaler->sws fit for shape, if it is not already. */
static int prepare(struct scaler *scaler, const struct shape *shape, struct err *err) {
    if (scaler->sws && memcmp(&scaler->shape, shape, sizeof(*shape)) == 0)
        return 0;
    sws_freeContext(scaler->sws);
    scaler->sws = NULL;
    const char *name = av_get_pix_fmt_name(shape->from);
    if (!sws_isSupportedInput(shape->from))
        return err_set(err, -ENOTSUP, "pixel format %s cannot be converted", name ? name : "?");
    scaler->sws = sws_getContext(
        shape->from_width, shape->from_height, shape->from, shape->width, shape->height, shape->to,
        SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_BITEXACT,
        NULL, NULL, NULL);
    if (!scaler->sws)
        return err_set(err, -ENOTSUP, "%d x %d pixels of %s cannot be scaled to %d x %d",
                       shape->from_width, shape->from_height, name ? name : "?", shape->width,
                       shape->height);
    sws_setColorspaceDetails(scaler->sws, sws_getCoefficients(shape->matrix), shape->full_range,
                             sws_getCoefficients(SWS_CS_ITU601), 1, 0, 1 << 16, 1 << 16);
    scaler->shape = *shape;
    return 0;
}

/* width x height pixels of bytes each at to, from the scaled picture at from. */
static void turn(struct orientation o, const uint8_t *from, size_t from_stride, uint8_t *to,
                 size_t to_stride, int width, int height, int bytes) {
    for (int y = 0; y < height; y++) {
        int fy = o.mirror_y ? height - 1 - y : y;
        for (int x = 0; x < width; x++) {
            int fx = o.mirror_x ? width - 1 - x : x;
            const uint8_t *pixel = o.transpose ? from + (size_t)fx * from_stride + fy * bytes
                                               : from + (size_t)fy * from_stride + fx * bytes;
            memcpy(to + (size_t)y * to_stride + x * bytes, pixel, (size_t)bytes);
        }
    }
}

static size_t row_stride(int width, int bytes) {
    return ((size_t)width * (size_t)bytes + 2 * ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
}

int scaler_run(struct scaler *scaler, const AVFrame *frame, struct orientation o, int width,
               int height, bool gray, const uint8_t **ret_pixels, size_t *ret_stride,
               struct err *err) {
    struct shape shape;
    bool full_range = frame->color_range == AVCOL_RANGE_JPEG;
    memset(&shape, 0, sizeof(shape)); /* compared as bytes */
    shape.from = modern_format(frame->format, &full_range);
    shape.from_width = frame->width;
    shape.from_height = frame->height;
    shape.width = o.transpose ? height : width;
    shape.height = o.transpose ? width : height;
    shape.full_range = full_range;
    shape.matrix = find_matrix(frame);
    /* From RGB to gray by ourselves: libswscale would go through 16..235 and lose steps. */
    bool own_gray = gray && !is_luma_based(shape.from);
    shape.to = gray && !own_gray ? AV_PIX_FMT_GRAY8 : AV_PIX_FMT_RGB24;
    int rc = prepare(scaler, &shape, err);
    if (rc != 0)
        return rc;

    int bytes = shape.to == AV_PIX_FMT_GRAY8 ? 1 : 3;
    size_t stride = row_stride(shape.width, bytes), turned_stride = row_stride(width, bytes);
    if (reserve(&scaler->scaled, stride, shape.height) != 0)
        return err_set(err, -ENOMEM, "out of memory");
    uint8_t *planes[4] = {scaler->scaled.data};
    int strides[4] = {(int)stride};
    rc = sws_scale(scaler->sws, (const uint8_t *const *)frame->data, frame->linesize, 0,
                   frame->height, planes, strides);
    if (rc != shape.height)
        return err_set(err, -ENOTSUP, "the picture cannot be scaled to %d x %d", width, height);
    uint8_t *pixels = scaler->scaled.data;
    if (o.transpose || o.mirror_x || o.mirror_y) {
        if (reserve(&scaler->turned, turned_stride, height) != 0)
            return err_set(err, -ENOMEM, "out of memory");
        turn(o, pixels, stride, scaler->turned.data, turned_stride, width, height, bytes);
        pixels = scaler->turned.data;
        stride = turned_stride;
    }
    if (own_gray)
        preprocess_gray(pixels, stride, width, height);
    *ret_pixels = pixels;
    *ret_stride = stride;
    return 0;
}
