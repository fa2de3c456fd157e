/* Photographs that were taken with the camera held sideways. */
#include "ctl/media.h"
#include "ctl/scaler.h"

#include <libavcodec/avcodec.h>
#include <libavutil/display.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define WIDTH  32
#define HEIGHT 16

/* A JPEG whose left half is bright and whose right half is dark, the upper half of each a little
 * brighter: 240 200 / 80 40. */
static AVPacket *encode_jpeg(void) {
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_MJPEG);
    AVCodecContext *context = avcodec_alloc_context3(codec);
    AVFrame *frame = av_frame_alloc();
    AVPacket *packet = av_packet_alloc();
    context->width = frame->width = WIDTH;
    context->height = frame->height = HEIGHT;
    context->pix_fmt = AV_PIX_FMT_YUVJ444P;
    frame->format = AV_PIX_FMT_YUVJ444P;
    context->time_base = (AVRational){1, 25};
    context->flags |= AV_CODEC_FLAG_QSCALE;
    frame->quality = FF_QP2LAMBDA;
    assert_int_equal(av_frame_get_buffer(frame, 0), 0);
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            int luma = (x < WIDTH / 2 ? 200 : 40) + (y < HEIGHT / 2 ? 40 : 0);
            frame->data[0][y * frame->linesize[0] + x] = (uint8_t)luma;
            frame->data[1][y * frame->linesize[1] + x] = 128;
            frame->data[2][y * frame->linesize[2] + x] = 128;
        }
    assert_int_equal(avcodec_open2(context, codec, NULL), 0);
    assert_int_equal(avcodec_send_frame(context, frame), 0);
    assert_int_equal(avcodec_receive_packet(context, packet), 0);
    avcodec_free_context(&context);
    av_frame_free(&frame);
    return packet;
}

/* Writes the JPEG with an Exif segment of that orientation behind its first two bytes. */
static void write_photograph(int fd, const AVPacket *jpeg, int orientation) {
    uint8_t exif[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'I', 'I', /* little-endian */
                      42,   0,    8, 0,  0,   0,   1,   0,                   /* one entry */
                      0x12, 0x01, 3, 0,  1,   0,   0,   0,   0, 0, 0,   0, /* orientation, short */
                      0,    0,    0, 0};
    exif[28] = (uint8_t)orientation;
    assert_int_equal(write(fd, jpeg->data, 2), 2);
    assert_int_equal(write(fd, exif, sizeof(exif)), sizeof(exif));
    assert_int_equal(write(fd, jpeg->data + 2, (size_t)jpeg->size - 2), jpeg->size - 2);
}

static void photographs_are_turned_upright(void **state) {
    /* The quarters as they must be seen: upper left, upper right, lower left, lower right. */
    static const int expected[9][4] = {
        {0},
        {240, 80, 200, 40}, /* 1: as stored */
        {80, 240, 40, 200}, /* 2: mirrored */
        {40, 200, 80, 240}, /* 3: upside down */
        {200, 40, 240, 80}, /* 4: upside down and mirrored */
        {240, 200, 80, 40}, /* 5: transposed */
        {200, 240, 40, 80}, /* 6: turned to the right */
        {40, 80, 200, 240}, /* 7: transposed along the other diagonal */
        {80, 40, 240, 200}, /* 8: turned to the left */
    };
    AVPacket *jpeg = encode_jpeg();
    (void)state;
    for (int orientation = 1; orientation <= 8; orientation++) {
        char path[] = "/tmp/convoy-exif-XXXXXX";
        const char *source = path;
        const uint8_t *pixels;
        size_t stride;
        struct media *media;
        struct media_picture picture;
        struct err err = {{0}};
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        write_photograph(fd, jpeg, orientation);
        close(fd);
        assert_int_equal(media_new(&source, 1, &media, &err), 0);
        if (media_next(media, &picture, &err) != 1)
            fail_msg("%s", err.text);
        bool turned = orientation >= 5;
        assert_int_equal(picture.width, turned ? HEIGHT : WIDTH);
        assert_int_equal(picture.height, turned ? WIDTH : HEIGHT);
        assert_int_equal(
            media_scale(media, picture.width, picture.height, true, &pixels, &stride, &err), 0);
        for (int q = 0; q < 4; q++) {
            int x = picture.width * (q % 2 ? 3 : 1) / 4, y = picture.height * (q / 2 ? 3 : 1) / 4;
            int luma = pixels[(size_t)y * stride + (size_t)x];
            if (abs(luma - expected[orientation][q]) > 4)
                fail_msg("orientation %d, quarter %d: %d, wanted %d", orientation, q, luma,
                         expected[orientation][q]);
        }
        media_free(media);
        unlink(path);
    }
    av_packet_free(&jpeg);
}

static void angles_that_are_no_quarter_turns_are_upright(void **state) {
    int32_t matrix[9];
    (void)state;
    av_display_rotation_set(matrix, 30);
    struct orientation o = orientation_from_matrix(matrix);
    assert_false(o.transpose || o.mirror_x || o.mirror_y);
    o = orientation_from_matrix(NULL);
    assert_false(o.transpose || o.mirror_x || o.mirror_y);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(photographs_are_turned_upright),
        cmocka_unit_test(angles_that_are_no_quarter_turns_are_upright),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
