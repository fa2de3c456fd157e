#include "ctl/media.h"

#include "tests/lib/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[64];
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/convoy-media-XXXXXX");
    *state = f;
    return mkdtemp(f->dir) ? 0 : -1;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    int rc = folder_remove(f->dir);
    free(f);
    return rc;
}

/* The path of name in the fixture's folder. Static storage. */
static const char *path_of(const struct fixture *f, const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", f->dir, name);
    return path;
}

static const char *write_file(const struct fixture *f, const char *name, const void *data,
                              size_t bytes) {
    const char *path = path_of(f, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* 4x2 pixels of distinct colours. */
static const uint8_t colours[2][4][3] = {
    {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {255, 255, 255}},
    {{0, 0, 0}, {128, 128, 128}, {10, 20, 30}, {200, 100, 50}},
};

static const char *write_ppm(const struct fixture *f, const char *name) {
    uint8_t file[64];
    int head = snprintf((char *)file, sizeof(file), "P6\n4 2\n255\n");
    memcpy(file + head, colours, sizeof(colours));
    return write_file(f, name, file, (size_t)head + sizeof(colours));
}

static const char *write_bmp(const struct fixture *f, const char *name) {
    uint8_t file[54 + 24] = {'B', 'M', 78, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 4};
    file[22] = 2;  /* height: rows from below */
    file[26] = 1;  /* planes */
    file[28] = 24; /* bits */
    for (int y = 0; y < 2; y++)
        for (int x = 0; x < 4; x++)
            for (int c = 0; c < 3; c++)
                file[54 + y * 12 + x * 3 + c] = colours[1 - y][x][2 - c];
    return write_file(f, name, file, sizeof(file));
}

/* A stored (not compressed) zlib stream in a PNG, with its checksums. */
static uint32_t crc_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

static void put32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static size_t put_chunk(uint8_t *at, const char *type, const uint8_t *data, uint32_t size) {
    put32(at, size);
    memcpy(at + 4, type, 4);
    if (size)
        memcpy(at + 8, data, size);
    put32(at + 8 + size, crc_of(at + 4, size + 4));
    return size + 12;
}

static const char *write_png(const struct fixture *f, const char *name) {
    uint8_t file[256] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, head[13] = {0}, raw[26];
    uint8_t zlib[64] = {0x78, 0x01, 0x01, sizeof(raw), 0, (uint8_t) ~sizeof(raw), 0xff};
    uint32_t a = 1, b = 0;
    size_t size = 8;
    put32(head, 4);
    put32(head + 4, 2);
    head[8] = 8; /* bits */
    head[9] = 2; /* RGB */
    for (int y = 0; y < 2; y++) {
        raw[y * 13] = 0; /* no filter */
        memcpy(raw + y * 13 + 1, colours[y], 12);
    }
    for (size_t i = 0; i < sizeof(raw); i++) {
        a = (a + raw[i]) % 65521;
        b = (b + a) % 65521;
    }
    memcpy(zlib + 7, raw, sizeof(raw));
    put32(zlib + 7 + sizeof(raw), b << 16 | a);
    size += put_chunk(file + size, "IHDR", head, 13);
    size += put_chunk(file + size, "IDAT", zlib, 7 + sizeof(raw) + 4);
    size += put_chunk(file + size, "IEND", NULL, 0);
    return write_file(f, name, file, size);
}

static const char *write_pgm(const struct fixture *f, const char *name, int width, int height) {
    size_t bytes = (size_t)width * (size_t)height;
    uint8_t *file = malloc(bytes + 64);
    assert_non_null(file);
    int head = snprintf((char *)file, 64, "P5\n%d %d\n255\n", width, height);
    for (size_t i = 0; i < bytes; i++)
        file[(size_t)head + i] = (uint8_t)i;
    const char *path = write_file(f, name, file, (size_t)head + bytes);
    free(file);
    return path;
}

static struct media *open_one(const char *source) {
    struct media *media;
    struct err err = {{0}};
    if (media_new(&source, 1, &media, &err) != 0)
        fail_msg("%s", err.text);
    return media;
}

static void lossless_pictures_keep_every_value(void **state) {
    struct fixture *f = *state;
    const char *paths[] = {write_ppm(f, "a.ppm"), write_bmp(f, "a.bmp"), write_png(f, "a.png")};
    for (int i = 0; i < 3; i++) {
        struct media_picture picture;
        const uint8_t *pixels;
        size_t stride;
        struct err err = {{0}};
        struct media *media = open_one(paths[i]);
        assert_int_equal(media_total(media), 1);
        if (media_next(media, &picture, &err) != 1)
            fail_msg("%s", err.text);
        assert_string_equal(picture.source, paths[i]);
        assert_int_equal(picture.width, 4);
        assert_int_equal(picture.height, 2);
        assert_false(picture.film);
        assert_int_equal(media_scale(media, 4, 2, false, &pixels, &stride, NULL), 0);
        for (size_t y = 0; y < 2; y++)
            assert_memory_equal(pixels + y * stride, colours[y], 12);
        assert_int_equal(media_next(media, &picture, NULL), 0);
        media_free(media);
    }
}

static void gray_pictures_keep_every_value(void **state) {
    struct fixture *f = *state;
    struct media_picture picture;
    const uint8_t *pixels;
    size_t stride;
    struct media *media = open_one(write_pgm(f, "a.pgm", 32, 8));
    assert_int_equal(media_next(media, &picture, NULL), 1);
    assert_int_equal(media_scale(media, 32, 8, true, &pixels, &stride, NULL), 0);
    for (size_t i = 0; i < 256; i++)
        assert_int_equal(pixels[i / 32 * stride + i % 32], i);
    assert_int_equal(media_scale(media, 32, 8, false, &pixels, &stride, NULL), 0);
    for (size_t i = 0; i < 256; i++)
        for (size_t c = 0; c < 3; c++)
            assert_int_equal(pixels[i / 32 * stride + i % 32 * 3 + c], i);
    media_free(media);
}

static void colour_becomes_gray_by_its_luma(void **state) {
    struct fixture *f = *state;
    struct media_picture picture;
    const uint8_t *pixels;
    size_t stride;
    struct media *media = open_one(write_ppm(f, "a.ppm"));
    assert_int_equal(media_next(media, &picture, NULL), 1);
    assert_int_equal(media_scale(media, 4, 2, true, &pixels, &stride, NULL), 0);
    const uint8_t expected[2][4] = {{76, 150, 29, 255}, {0, 128, 18, 124}};
    for (size_t y = 0; y < 2; y++)
        assert_memory_equal(pixels + y * stride, expected[y], 4);
    media_free(media);
}

static void shrinking_averages_instead_of_picking(void **state) {
    struct fixture *f = *state;
    uint8_t file[64 * 64 + 16];
    struct media_picture picture;
    const uint8_t *pixels;
    size_t stride;
    int head = snprintf((char *)file, 16, "P5\n64 64\n255\n");
    for (int i = 0; i < 64 * 64; i++) /* columns of black and white */
        file[head + i] = i % 2 ? 255 : 0;
    struct media *media = open_one(write_file(f, "a.pgm", file, (size_t)head + 64 * 64));
    assert_int_equal(media_next(media, &picture, NULL), 1);
    assert_int_equal(media_scale(media, 8, 8, true, &pixels, &stride, NULL), 0);
    for (size_t y = 1; y < 7; y++)
        for (size_t x = 1; x < 7; x++)
            assert_in_range(pixels[y * stride + x], 125, 130);
    media_free(media);
}

static void folder_gives_its_pictures_sorted_by_name(void **state) {
    struct fixture *f = *state;
    struct media_picture picture;
    write_pgm(f, "b.pgm", 2, 2);
    write_ppm(f, "a.ppm");
    write_bmp(f, "C.BMP");
    write_file(f, "notes.txt", "x", 1);
    write_file(f, ".hidden.pgm", "x", 1);
    struct media *media = open_one(f->dir);
    assert_int_equal(media_total(media), 3);
    static const char *const names[] = {"C.BMP", "a.ppm", "b.pgm"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(media_next(media, &picture, NULL), 1);
        assert_string_equal(picture.source, path_of(f, names[i]));
        assert_int_equal(picture.index, 0);
    }
    assert_int_equal(media_next(media, &picture, NULL), 0);
    media_free(media);
}

static void damaged_file_is_named_and_the_next_one_follows(void **state) {
    struct fixture *f = *state;
    struct media_picture picture;
    struct err err = {{0}};
    struct media *media;
    const char *bad = write_file(f, "bad.jpg", "this is no picture at all", 25);
    const char *good = write_ppm(f, "good.ppm");
    const char *sources[] = {bad, good};
    assert_int_equal(media_new(sources, 2, &media, NULL), 0);
    assert_int_equal(media_next(media, &picture, &err), -EBADMSG);
    assert_string_equal(picture.source, bad);
    assert_non_null(strstr(err.text, "bad.jpg: not a picture or video that FFmpeg can read"));
    assert_int_equal(media_next(media, &picture, &err), 1);
    assert_string_equal(picture.source, good);
    assert_int_equal(media_next(media, &picture, &err), 0);
    media_free(media);
}

static void truncated_pictures_are_errors(void **state) {
    struct fixture *f = *state;
    struct media_picture picture;
    char file[128];
    FILE *from = fopen(write_png(f, "a.png"), "rb");
    assert_non_null(from);
    size_t size = fread(file, 1, sizeof(file), from);
    fclose(from);
    for (size_t n = 0; n < size - 12; n++) { /* the last 12 bytes only say that it is the end */
        struct media *media = open_one(write_file(f, "cut.png", file, n));
        int rc = media_next(media, &picture, NULL);
        if (rc >= 0)
            fail_msg("%zu of %zu bytes: %d", n, size, rc);
        assert_int_equal(media_next(media, &picture, NULL), 0);
        media_free(media);
    }
}

static void missing_sources_are_found_before_anything_runs(void **state) {
    struct fixture *f = *state;
    struct media *media;
    struct err err = {{0}};
    const char *missing[] = {path_of(f, "nothing.jpg")};
    assert_int_equal(media_new(missing, 1, &media, &err), -ENOENT);
    assert_non_null(strstr(err.text, "nothing.jpg"));
    const char *empty[] = {f->dir};
    assert_int_equal(media_new(empty, 1, &media, &err), -ENOENT);
    assert_non_null(strstr(err.text, "no pictures"));
    assert_int_equal(media_new(empty, 0, &media, &err), -EINVAL);
}

/* Three pictures of 2x2 pixels, one behind the other. Returns their size in film. */
static size_t make_film(char *film) {
    size_t size = 0;
    for (int i = 0; i < 3; i++) {
        size += (size_t)sprintf(film + size, "P5\n2 2\n255\n");
        for (int k = 0; k < 4; k++)
            film[size++] = (char)(16 * i + k);
    }
    return size;
}

/* Reads make_film()'s pictures from fd as standard input. */
static void expect_film_on_stdin(int fd) {
    struct media_picture picture;
    int saved = dup(STDIN_FILENO);
    assert_true(fd >= 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO);
    close(fd);
    struct media *media = open_one("-");
    assert_int_equal(media_total(media), 0);
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *pixels;
        size_t stride;
        assert_int_equal(media_next(media, &picture, NULL), 1);
        assert_true(picture.film);
        assert_int_equal(picture.index, i);
        assert_int_equal(media_scale(media, 2, 2, true, &pixels, &stride, NULL), 0);
        assert_int_equal(pixels[0], 16 * i);
        assert_int_equal(pixels[stride + 1], 16 * i + 3);
    }
    assert_int_equal(media_next(media, &picture, NULL), 0);
    media_free(media);
    dup2(saved, STDIN_FILENO);
    close(saved);
}

static void standard_input_may_be_a_file_of_pictures(void **state) {
    struct fixture *f = *state;
    char film[256];
    size_t size = make_film(film);
    expect_film_on_stdin(open(write_file(f, "film", film, size), O_RDONLY));
}

static void standard_input_may_be_a_pipe_of_pictures(void **state) {
    char film[256];
    size_t size = make_film(film);
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], film, size), size);
    close(ends[1]);
    expect_film_on_stdin(ends[0]);
}

static void pipe_that_is_no_film_ends(void **state) {
    struct media_picture picture;
    struct err err = {{0}};
    int ends[2], saved = dup(STDIN_FILENO);
    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "P5\n28 28\n255\nshort", 19), 19);
    close(ends[1]);
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    close(ends[0]);
    struct media *media = open_one("-");
    assert_int_equal(media_next(media, &picture, &err), -EBADMSG);
    assert_int_equal(media_next(media, &picture, &err), 0);
    media_free(media);
    dup2(saved, STDIN_FILENO);
    close(saved);
}

static void picture_over_the_limit_is_refused_unread(void **state) {
    struct fixture *f = *state;
    struct media_picture picture;
    struct err err = {{0}};
    const char *head = "P5\n60000 60000\n255\n";
    struct media *media = open_one(write_file(f, "huge.pgm", head, strlen(head)));
    assert_true(media_next(media, &picture, &err) < 0);
    assert_non_null(strstr(err.text, "huge.pgm"));
    media_free(media);
}

static void interrupted_media_ends(void **state) {
    struct fixture *f = *state;
    struct media_picture picture;
    struct media *media = open_one(write_ppm(f, "a.ppm"));
    media_interrupt(media);
    assert_int_equal(media_next(media, &picture, NULL), -ECANCELED);
    media_free(media);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lossless_pictures_keep_every_value, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gray_pictures_keep_every_value, set_up, tear_down),
        cmocka_unit_test_setup_teardown(colour_becomes_gray_by_its_luma, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shrinking_averages_instead_of_picking, set_up, tear_down),
        cmocka_unit_test_setup_teardown(folder_gives_its_pictures_sorted_by_name, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(damaged_file_is_named_and_the_next_one_follows, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(truncated_pictures_are_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(missing_sources_are_found_before_anything_runs, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(standard_input_may_be_a_file_of_pictures, set_up,
                                        tear_down),
        cmocka_unit_test(standard_input_may_be_a_pipe_of_pictures),
        cmocka_unit_test(pipe_that_is_no_film_ends),
        cmocka_unit_test_setup_teardown(picture_over_the_limit_is_refused_unread, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(interrupted_media_ends, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
