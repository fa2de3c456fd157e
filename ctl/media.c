#include "ctl/media.h"

#include "ctl/decoder.h"
#include "ctl/scaler.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char *const extensions[] = {"jpg", "jpeg", "png", "bmp",  "pgm", "ppm", "pnm",
                                         "pbm", "pam",  "tif", "tiff", "gif", "webp"};

struct source {
    char *name;
    enum { SOURCE_STREAM, SOURCE_FOLDER } kind;
    enum decoder_kind decoder_kind; /* of a stream */
    bool still;                     /* a file named like a picture: counts as one */
    char **names;                   /* of a folder: sorted, without the folder */
    size_t names_count;
};

struct media {
    struct source *sources;
    size_t count;
    size_t at;       /* the source under way */
    size_t at_name;  /* of a folder: the next name */
    uint64_t index;  /* pictures of this source so far */
    char *path;      /* of a folder's picture under way */
    bool first_only; /* a still file, or a file in a folder: what follows in it is left alone */
    struct decoder *decoder;
    const AVFrame *frame; /* the decoder's last */
    struct scaler *scaler;
    atomic_bool interrupted;
};

static bool is_picture_name(const char *name, bool *ret_animated) {
    const char *dot = strrchr(name, '.');
    if (!dot)
        return false;
    for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++)
        if (strcasecmp(dot + 1, extensions[i]) == 0) {
            *ret_animated = strcasecmp(dot + 1, "gif") == 0;
            return true;
        }
    return false;
}

static int compare_names(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* Appends a copy of name to a source's names; *capacity is of that array. */
static int append_name(struct source *source, size_t *capacity, const char *name) {
    if (source->names_count == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 64;
        char **names = reallocarray(source->names, more, sizeof(*names));
        if (!names)
            return -ENOMEM;
        source->names = names;
        *capacity = more;
    }
    char *copy = strdup(name);
    if (!copy)
        return -ENOMEM;
    source->names[source->names_count++] = copy;
    return 0;
}

static int read_folder(struct source *source, struct err *err) {
    DIR *dir = opendir(source->name);
    size_t capacity = 0;
    bool animated;
    int rc = 0;
    if (!dir)
        return err_set(err, -errno, "%s: %s", source->name, strerror(errno));
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.' || !is_picture_name(entry->d_name, &animated))
            continue;
        if (source->names_count == MEDIA_FOLDER_MAX)
            rc = err_set(err, -EMSGSIZE, "%s: more than %d pictures in one folder", source->name,
                         MEDIA_FOLDER_MAX);
        else if (append_name(source, &capacity, entry->d_name) != 0)
            rc = err_set(err, -ENOMEM, "%s: out of memory", source->name);
    }
    closedir(dir);
    if (rc == 0 && source->names_count == 0)
        rc = err_set(err, -ENOENT,
                     "%s: no pictures in this folder (looked for .jpg, .png, .bmp, "
                     ".pgm, .ppm, .tif, .gif, .webp)",
                     source->name);
    if (rc == 0)
        qsort(source->names, source->names_count, sizeof(char *), compare_names);
    return rc;
}

static int init_source(struct source *source, const char *name, struct err *err) {
    struct stat st;
    bool animated = false;
    if (strncmp(name, "file://", 7) == 0)
        name += 7;
    source->name = strdup(name);
    if (!source->name)
        return err_set(err, -ENOMEM, "out of memory");
    if (strcmp(name, "-") == 0) {
        source->decoder_kind = DECODER_STDIN;
        return 0;
    }
    if (strstr(name, "://")) {
        source->decoder_kind = DECODER_URL;
        return 0;
    }
    if (stat(name, &st) != 0)
        return err_set(err, -errno, "%s: %s", name, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        source->kind = SOURCE_FOLDER;
        return read_folder(source, err);
    }
    source->decoder_kind = S_ISCHR(st.st_mode) ? DECODER_CAMERA : DECODER_FILE;
    source->still = S_ISREG(st.st_mode) && is_picture_name(name, &animated) && !animated;
    return 0;
}

int media_new(const char *const *sources, size_t count, struct media **ret_media, struct err *err) {
    int rc = -ENOMEM;
    if (count == 0 || count > MEDIA_SOURCES_MAX)
        return err_set(err, -EINVAL,
                       "%zu pictures or folders named; 1 to %d are taken (name a "
                       "folder instead)",
                       count, MEDIA_SOURCES_MAX);
    struct media *media = calloc(1, sizeof(*media));
    if (!media)
        return err_set(err, -ENOMEM, "out of memory");
    media->sources = calloc(count, sizeof(*media->sources));
    media->scaler = scaler_new();
    if (!media->sources || !media->scaler) {
        err_set(err, rc, "out of memory");
        goto fail;
    }
    for (; media->count < count;) {
        rc = init_source(&media->sources[media->count], sources[media->count], err);
        media->count++;
        if (rc != 0)
            goto fail;
    }
    *ret_media = media;
    return 0;

fail:
    media_free(media);
    return rc;
}

void media_free(struct media *media) {
    if (!media)
        return;
    decoder_free(media->decoder);
    scaler_free(media->scaler);
    for (size_t i = 0; i < media->count; i++) {
        struct source *source = &media->sources[i];
        for (size_t n = 0; n < source->names_count; n++)
            free(source->names[n]);
        free(source->names);
        free(source->name);
    }
    free(media->sources);
    free(media->path);
    free(media);
}

uint64_t media_total(const struct media *media) {
    uint64_t total = 0;
    for (size_t i = 0; i < media->count; i++) {
        const struct source *source = &media->sources[i];
        if (source->kind == SOURCE_FOLDER)
            total += source->names_count;
        else if (source->still)
            total++;
        else
            return 0;
    }
    return total;
}

/* Opens what comes next. 1 when a decoder stands ready, 0 at the end. *ret_source says what was
 * opened, also on failure. */
static int open_next(struct media *media, const char **ret_source, struct err *err) {
    if (media->at == media->count)
        return 0;
    struct source *source = &media->sources[media->at];
    enum decoder_kind kind = source->decoder_kind;
    *ret_source = source->name;
    media->index = 0;
    if (source->kind == SOURCE_FOLDER) {
        char *path;
        size_t len = strlen(source->name);
        const char *slash = len && source->name[len - 1] == '/' ? "" : "/";
        if (asprintf(&path, "%s%s%s", source->name, slash, source->names[media->at_name]) < 0)
            return err_set(err, -ENOMEM, "out of memory");
        free(media->path);
        media->path = path;
        *ret_source = path;
        kind = DECODER_FILE;
        if (++media->at_name == source->names_count) {
            media->at_name = 0;
            media->at++;
        }
    } else {
        free(media->path);
        media->path = NULL;
        media->at++;
    }
    int rc = decoder_new(kind, *ret_source, &media->interrupted, &media->decoder, err);
    if (rc != 0)
        return err_prefix(err, rc, "%s", *ret_source);
    media->first_only = media->path || !decoder_is_film(media->decoder);
    return 1;
}

static const char *current_source(const struct media *media) {
    return media->path ? media->path : media->sources[media->at - 1].name;
}

int media_next(struct media *media, struct media_picture *ret_picture, struct err *err) {
    struct media_picture picture = {0};
    media->frame = NULL;
    for (;;) {
        if (atomic_load(&media->interrupted))
            return err_set(err, -ECANCELED, "interrupted");
        if (!media->decoder) {
            int rc = open_next(media, &picture.source, err);
            if (rc < 0)
                *ret_picture = picture;
            if (rc <= 0)
                return rc;
        }
        picture.source = current_source(media);
        picture.index = media->index;
        bool enough = media->first_only && media->index > 0;
        int rc = enough ? 0 : decoder_next(media->decoder, &media->frame, err);
        if (rc == 0) {
            decoder_free(media->decoder);
            media->decoder = NULL;
            media->frame = NULL;
            continue;
        }
        if (rc < 0) {
            decoder_free(media->decoder);
            media->decoder = NULL;
            *ret_picture = picture;
            return err_prefix(err, rc, "%s", picture.source);
        }
        struct orientation o =
            orientation_from_matrix(decoder_orientation(media->decoder, media->frame));
        picture.film = !media->first_only;
        picture.width = o.transpose ? media->frame->height : media->frame->width;
        picture.height = o.transpose ? media->frame->width : media->frame->height;
        media->index++;
        *ret_picture = picture;
        return 1;
    }
}

int media_scale(struct media *media, int width, int height, bool gray, const uint8_t **ret_pixels,
                size_t *ret_stride, struct err *err) {
    if (!media->frame || width < 1 || height < 1 || width > MEDIA_SIDE_MAX ||
        height > MEDIA_SIDE_MAX)
        return err_set(err, -EINVAL, "no picture to scale to %d x %d", width, height);
    struct orientation o =
        orientation_from_matrix(decoder_orientation(media->decoder, media->frame));
    int rc = scaler_run(media->scaler, media->frame, o, width, height, gray, ret_pixels, ret_stride,
                        err);
    return rc == 0 ? 0 : err_prefix(err, rc, "%s", current_source(media));
}

void media_interrupt(struct media *media) {
    atomic_store(&media->interrupted, true);
}
