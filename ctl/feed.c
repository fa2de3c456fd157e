#include "ctl/feed.h"

#include "ctl/media.h"
#include "ctl/preprocess.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEED_INPUTS_MAX 256

struct tensor_file {
    char *path;
    struct npy_reader *reader;
    uint64_t frames;
    enum npy_form form;
    size_t frame_bytes;
};

struct feed {
    uint64_t next;  /* number of the next frame */
    uint64_t total; /* 0: unknown */
    enum npy_form form;
    bool ended; /* after an error that the next frame would meet again */
    atomic_bool interrupted;

    struct media *media; /* NULL: tensors */
    struct preprocess preprocess;

    struct tensor_file *files; /* one per input */
    size_t files_count;
};

int feed_new_pictures(const char *const *sources, size_t count, const struct sidecar *sidecar,
                      const struct tensor_desc *inputs, size_t inputs_count, struct feed **ret_feed,
                      struct err *err) {
    if (inputs_count != 1)
        return err_set(err, -EINVAL,
                       "the model has %zu inputs; pictures feed models of one: give each input as "
                       "--tensor NAME=FILE.npy",
                       inputs_count);
    struct feed *feed = calloc(1, sizeof(*feed));
    if (!feed)
        return err_set(err, -ENOMEM, "out of memory");
    int rc = preprocess_init(sidecar, &inputs[0], &feed->preprocess, err);
    if (rc == 0)
        rc = media_new(sources, count, &feed->media, err);
    if (rc != 0) {
        feed_free(feed);
        return rc;
    }
    feed->total = media_total(feed->media);
    feed->form = feed->total == 1 ? NPY_SINGLE : inputs[0].rank == 4 ? NPY_JOINED : NPY_STACKED;
    *ret_feed = feed;
    return 0;
}

/* The input that word is for, and its file's name. */
static int find_input(const char *word, const struct tensor_desc *inputs, size_t inputs_count,
                      size_t *ret_input, const char **ret_path, struct err *err) {
    const char *names[FEED_INPUTS_MAX];
    for (size_t i = 0; i < inputs_count; i++) {
        size_t len = strlen(inputs[i].name);
        if (strncmp(word, inputs[i].name, len) == 0 && word[len] == '=') {
            *ret_input = i;
            *ret_path = word + len + 1;
            return 0;
        }
        names[i] = inputs[i].name;
    }
    const char *equals = strchr(word, '=');
    if (!equals && inputs_count == 1) {
        *ret_input = 0;
        *ret_path = word;
        return 0;
    }
    if (!equals)
        return err_set(err, -EINVAL,
                       "--tensor %s: the model has %zu inputs; write NAME=FILE.npy for each (%s, "
                       "...)",
                       word, inputs_count, inputs[0].name);
    char given[256];
    snprintf(given, sizeof(given), "%.*s", (int)(equals - word < 255 ? equals - word : 255), word);
    const char *near = err_nearest(given, names, inputs_count);
    return err_set(err, -EINVAL, "--tensor %s: the model has no input '%s'; %s '%s'", word, given,
                   near                ? "did you mean"
                   : inputs_count == 1 ? "its input is"
                                       : "its first input is",
                   near ? near : inputs[0].name);
}

static bool same_dims(const int64_t *a, const int64_t *b, int count) {
    for (int i = 0; i < count; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

/* How a file's array holds frames of input. */
static int match_shape(struct tensor_file *file, const struct tensor_desc *input, struct err *err) {
    char has[128], wants[128];
    const struct tensor_desc *desc = npy_reader_desc(file->reader);
    int rank = input->rank;
    tensor_desc_format(desc, has, sizeof(has));
    tensor_desc_format(input, wants, sizeof(wants));
    if (desc->dtype != input->dtype)
        return err_set(err, -EINVAL, "%s: %s, but input %s is %s; save it with a.astype('%s')",
                       file->path, has, input->name, wants, dtype_name(input->dtype));
    if (desc->rank == rank && same_dims(desc->dims, input->dims, rank)) {
        file->frames = 1;
        file->form = NPY_SINGLE;
    } else if (desc->rank == rank + 1 && same_dims(desc->dims + 1, input->dims, rank)) {
        file->frames = (uint64_t)desc->dims[0];
        file->form = NPY_STACKED;
    } else if (desc->rank == rank && rank > 0 && input->dims[0] > 0 &&
               desc->dims[0] % input->dims[0] == 0 &&
               same_dims(desc->dims + 1, input->dims + 1, rank - 1)) {
        file->frames = (uint64_t)(desc->dims[0] / input->dims[0]);
        file->form = NPY_JOINED;
    } else {
        return err_set(err, -EINVAL,
                       "%s: %s, but input %s is %s (several frames: one more leading dimension, "
                       "or a multiple of the first)",
                       file->path, has, input->name, wants);
    }
    if (file->frames == 0)
        return err_set(err, -EINVAL, "%s: %s holds no frame", file->path, has);
    return tensor_desc_bytes(input, &file->frame_bytes);
}

static int open_tensor(struct feed *feed, const char *word, const struct tensor_desc *inputs,
                       struct err *err) {
    size_t input;
    const char *path;
    int rc = find_input(word, inputs, feed->files_count, &input, &path, err);
    if (rc != 0)
        return rc;
    struct tensor_file *file = &feed->files[input];
    if (file->reader)
        return err_set(err, -EINVAL, "--tensor %s: input %s is given twice", word,
                       inputs[input].name);
    file->path = strdup(path);
    if (!file->path)
        return err_set(err, -ENOMEM, "out of memory");
    rc = npy_reader_new(path, &file->reader, err);
    if (rc == 0)
        rc = match_shape(file, &inputs[input], err);
    return rc;
}

/* All files of several frames must agree on how many. */
static int settle_frames(struct feed *feed, const struct tensor_desc *inputs, struct err *err) {
    feed->total = 1;
    feed->form = NPY_SINGLE;
    for (size_t i = 0; i < feed->files_count; i++) {
        const struct tensor_file *file = &feed->files[i];
        if (!file->reader)
            return err_set(err, -EINVAL, "input %s is missing: give it as --tensor %s=FILE.npy",
                           inputs[i].name, inputs[i].name);
        if (file->form == NPY_SINGLE)
            continue;
        if (feed->form != NPY_SINGLE && feed->total != file->frames)
            return err_set(err, -EINVAL, "%s: %llu frames, but another input has %llu", file->path,
                           (unsigned long long)file->frames, (unsigned long long)feed->total);
        feed->total = file->frames;
        feed->form = file->form;
    }
    return 0;
}

int feed_new_tensors(const char *const *words, size_t count, const struct tensor_desc *inputs,
                     size_t inputs_count, struct feed **ret_feed, struct err *err) {
    int rc = 0;
    if (inputs_count == 0 || inputs_count > FEED_INPUTS_MAX)
        return err_set(err, -EINVAL, "the model has %zu inputs; 1 to %d can be given", inputs_count,
                       FEED_INPUTS_MAX);
    struct feed *feed = calloc(1, sizeof(*feed));
    if (!feed)
        return err_set(err, -ENOMEM, "out of memory");
    feed->files_count = inputs_count;
    feed->files = calloc(inputs_count, sizeof(*feed->files));
    if (!feed->files) {
        rc = err_set(err, -ENOMEM, "out of memory");
        goto fail;
    }
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = open_tensor(feed, words[i], inputs, err);
    if (rc == 0)
        rc = settle_frames(feed, inputs, err);
    if (rc != 0)
        goto fail;
    *ret_feed = feed;
    return 0;

fail:
    feed_free(feed);
    return rc;
}

void feed_free(struct feed *feed) {
    if (!feed)
        return;
    media_free(feed->media);
    for (size_t i = 0; feed->files && i < feed->files_count; i++) {
        npy_reader_free(feed->files[i].reader);
        free(feed->files[i].path);
    }
    free(feed->files);
    free(feed);
}

uint64_t feed_total(const struct feed *feed) {
    return feed->total;
}

enum npy_form feed_form(const struct feed *feed) {
    return feed->form;
}

static int next_picture(struct feed *feed, struct tensor *input, struct feed_item *item,
                        struct err *err) {
    struct media_picture picture = {0};
    struct preprocess_geometry geometry;
    const uint8_t *pixels;
    size_t stride;
    int rc = media_next(feed->media, &picture, err);
    item->source = picture.source;
    item->index = picture.index;
    item->film = picture.film;
    if (rc <= 0)
        return rc;
    rc = preprocess_place(&feed->preprocess, picture.width, picture.height, &geometry, err);
    if (rc != 0)
        return err_prefix(err, rc, "%s", picture.source);
    rc = media_scale(feed->media, geometry.scaled_width, geometry.scaled_height,
                     feed->preprocess.channels == 1, &pixels, &stride, err);
    if (rc != 0)
        return rc;
    preprocess_fill(&feed->preprocess, &geometry, pixels, stride, input->data);
    return 1;
}

static int next_tensors(struct feed *feed, struct tensor *inputs, struct feed_item *item,
                        struct err *err) {
    if (feed->next == feed->total)
        return 0;
    item->source = feed->files[0].path;
    item->index = feed->next;
    item->film = feed->form != NPY_SINGLE;
    for (size_t i = 0; i < feed->files_count; i++) {
        struct tensor_file *file = &feed->files[i];
        size_t at = file->form == NPY_SINGLE ? 0 : (size_t)feed->next * file->frame_bytes;
        int rc = npy_reader_read(file->reader, at, inputs[i].data, file->frame_bytes, err);
        if (rc != 0) {
            feed->ended = true;
            return rc;
        }
    }
    return 1;
}

int feed_next(struct feed *feed, struct tensor *inputs, struct feed_item *ret_item,
              struct err *err) {
    struct feed_item item = {.number = feed->next};
    if (atomic_load(&feed->interrupted))
        return err_set(err, -ECANCELED, "interrupted");
    if (feed->ended)
        return 0;
    int rc = feed->media ? next_picture(feed, inputs, &item, err)
                         : next_tensors(feed, inputs, &item, err);
    if (rc != 0 && rc != -ECANCELED)
        feed->next++;
    if (rc != 0)
        *ret_item = item;
    return rc;
}

void feed_interrupt(struct feed *feed) {
    atomic_store(&feed->interrupted, true);
    if (feed->media)
        media_interrupt(feed->media);
}
