#include "config/sidecar.h"

#include "config/config.h"
#include "config/schema.h"
#include "config/tree.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

#define LABELS_FILE_MAX (4u << 20) /* bytes */
#define DEFAULT_SCALE   (1 / 255.0f)
#define FACTOR_MIN      1e-9f /* smaller ones would divide by (nearly) 0 */

static schema_read read_triple, read_one, read_picture, read_labels, read_dims;

/* `picture:` as written, before mean, scale and std become two of them. */
struct picture {
    int width, height, resize, fit, channels, layout;
    struct triple {
        float values[3];
        int count; /* 0: not given; 1: the same for every channel */
    } mean, scale, std;
    struct triple pad;
};

static const struct schema_word fits[] = {{"crop", SIDECAR_CROP},
                                          {"stretch", SIDECAR_STRETCH},
                                          {"letterbox", SIDECAR_LETTERBOX},
                                          {NULL, 0}};
static const struct schema_word channels[] = {{"RGB", SIDECAR_RGB},
                                              {"BGR", SIDECAR_BGR},
                                              {"GRAY", SIDECAR_GRAY},
                                              {"GREY", SIDECAR_GRAY},
                                              {NULL, 0}};
static const struct schema_word layouts[] = {
    {"NCHW", SIDECAR_NCHW}, {"NHWC", SIDECAR_NHWC}, {NULL, 0}};

static const struct schema_key picture_keys[] = {
    {.name = "width",
     .read = schema_read_int,
     .offset = offsetof(struct picture, width),
     .min = 1,
     .max = SIDECAR_SIDE_MAX,
     .computed = "the model's"},
    {.name = "height",
     .read = schema_read_int,
     .offset = offsetof(struct picture, height),
     .min = 1,
     .max = SIDECAR_SIDE_MAX,
     .computed = "the model's"},
    {.name = "fit",
     .read = schema_read_word,
     .offset = offsetof(struct picture, fit),
     .words = fits,
     .fallback = "crop"},
    {.name = "resize",
     .read = schema_read_int,
     .offset = offsetof(struct picture, resize),
     .min = 1,
     .max = SIDECAR_SIDE_MAX,
     .computed = "as large as the crop"},
    {.name = "pad",
     .read = read_one,
     .offset = offsetof(struct picture, pad),
     .min = 0,
     .max = 255,
     .computed = "0"},
    {.name = "channels",
     .read = schema_read_word,
     .offset = offsetof(struct picture, channels),
     .words = channels,
     .fallback = "RGB"},
    {.name = "layout",
     .read = schema_read_word,
     .offset = offsetof(struct picture, layout),
     .words = layouts,
     .fallback = "NCHW"},
    {.name = "mean",
     .read = read_triple,
     .offset = offsetof(struct picture, mean),
     .min = -1000000,
     .max = 1000000,
     .computed = "0"},
    {.name = "scale",
     .read = read_triple,
     .offset = offsetof(struct picture, scale),
     .min = -1000000,
     .max = 1000000,
     .computed = "1/255"},
    {.name = "std",
     .read = read_triple,
     .offset = offsetof(struct picture, std),
     .min = -1000000,
     .max = 1000000,
     .computed = "255"},
};

static const struct schema_key keys[] = {
    {.name = "picture", .read = read_picture, .computed = "the defaults of its keys"},
    {.name = "labels", .read = read_labels, .min = 0, .max = SIDECAR_LABEL_MAX, .computed = "none"},
    {.name = "softmax",
     .read = schema_read_bool,
     .offset = offsetof(struct sidecar, softmax),
     .fallback = "false"},
    {.name = "dims", .read = read_dims, .min = 1, .max = 1000000, .computed = "none"},
};

const struct schema_key *sidecar_keys(size_t *ret_count) {
    *ret_count = LENGTH(keys);
    return keys;
}

const struct schema_key *sidecar_picture_keys(size_t *ret_count) {
    *ret_count = LENGTH(picture_keys);
    return picture_keys;
}

/* ---- the picture -------------------------------------------------------------------------------
 */

static int read_one(const struct schema_file *file, const struct schema_key *key,
                    const struct tree_node *value, void *field) {
    struct triple *triple = field;
    double number;
    int rc = schema_read_number(file, key, value, &number);
    if (rc < 0)
        return rc;
    for (int i = 0; i < 3; i++)
        triple->values[i] = (float)number;
    triple->count = 1;
    return 0;
}

/* A number for all channels, or a list of one or three. */
static int read_triple(const struct schema_file *file, const struct schema_key *key,
                       const struct tree_node *value, void *field) {
    struct triple *triple = field;
    if (value->kind != TREE_LIST)
        return read_one(file, key, value, field);
    if (value->first && !value->first->next)
        return read_one(file, key, value->first, field);
    double number;
    int count = 0;
    for (const struct tree_node *node = value->first; node; node = node->next, count++) {
        int rc = count < 3 ? schema_read_number(file, key, node, &number) : 0;
        if (rc < 0)
            return rc;
        if (count < 3)
            triple->values[count] = (float)number;
    }
    if (count != 3)
        return tree_error(file->tree, value, file->err,
                          "'%s' must be one number or a list of three, one per channel, not of %d",
                          key->name, count);
    triple->count = 3;
    return 0;
}

/* Where key of the map stands, to point an error at it. */
static const struct tree_node *place_of(const struct tree_node *map, const char *key) {
    const struct tree_node *node = tree_find(map, key);
    return node ? node : map;
}

static int check_geometry(const struct schema_file *file, const struct picture *picture,
                          const struct tree_node *map) {
    int longer = picture->width > picture->height ? picture->width : picture->height;
    if (!picture->width != !picture->height)
        return tree_error(file->tree, map, file->err,
                          "'width' and 'height' must be given together, or neither");
    if (picture->resize && picture->fit != SIDECAR_CROP)
        return tree_error(file->tree, place_of(map, "resize"), file->err,
                          "'resize' is the size before a crop: remove it, or say 'fit: crop'");
    if (picture->resize && picture->resize < longer)
        return tree_error(file->tree, place_of(map, "resize"), file->err,
                          "'resize' is %d, too small to crop %dx%d from: it must be at least %d",
                          picture->resize, picture->width, picture->height, longer);
    if (picture->pad.count && picture->fit != SIDECAR_LETTERBOX)
        return tree_error(file->tree, place_of(map, "pad"), file->err,
                          "'pad' is the value of a letterbox's bars: remove it, or say "
                          "'fit: letterbox'");
    return 0;
}

static int check_numbers(const struct schema_file *file, const struct picture *picture,
                         const struct tree_node *map) {
    static const char *const names[] = {"mean", "scale", "std"};
    const struct triple *triples[] = {&picture->mean, &picture->scale, &picture->std};
    for (size_t i = 0; i < LENGTH(names); i++) {
        if (triples[i]->count == 3 && picture->channels == SIDECAR_GRAY)
            return tree_error(file->tree, place_of(map, names[i]), file->err,
                              "'%s' has three numbers, but a grey picture has one channel",
                              names[i]);
    }
    if (picture->scale.count && picture->std.count)
        return tree_error(file->tree, place_of(map, "std"), file->err,
                          "'scale' and 'std' mean the same (std is 1 / scale): remove one");
    if (picture->mean.count && !picture->scale.count && !picture->std.count)
        return tree_error(
            file->tree, place_of(map, "mean"), file->err,
            "'mean' needs 'scale' or 'std' beside it: input = (value - mean) * scale, "
            "with values from 0 to 255");
    const struct triple *factor = picture->std.count ? &picture->std : &picture->scale;
    for (int i = 0; i < 3 && factor->count; i++) {
        if (fabsf(factor->values[i]) < FACTOR_MIN)
            return tree_error(file->tree, place_of(map, picture->std.count ? "std" : "scale"),
                              file->err, "'%s' must not be 0",
                              picture->std.count ? "std" : "scale");
    }
    return 0;
}

static int read_picture(const struct schema_file *file, const struct schema_key *key,
                        const struct tree_node *value, void *field) {
    struct sidecar *sidecar = field;
    struct picture picture = {0};
    (void)key;
    int rc =
        schema_read_map(file, picture_keys, LENGTH(picture_keys), value, "'picture'", &picture);
    if (rc == 0)
        rc = check_geometry(file, &picture, value);
    if (rc == 0)
        rc = check_numbers(file, &picture, value);
    if (rc < 0)
        return rc;
    sidecar->width = picture.width;
    sidecar->height = picture.height;
    sidecar->resize = picture.resize;
    sidecar->fit = (enum sidecar_fit)picture.fit;
    sidecar->channels = picture.channels;
    sidecar->layout = picture.layout;
    sidecar->pad = picture.pad.values[0];
    for (int i = 0; i < 3; i++) {
        sidecar->mean[i] = picture.mean.values[i];
        sidecar->scale[i] = picture.std.count     ? 1 / picture.std.values[i]
                            : picture.scale.count ? picture.scale.values[i]
                                                  : DEFAULT_SCALE;
    }
    return 0;
}

/* ---- labels and dims ---------------------------------------------------------------------------
 */

/* The sentence of an error is without its place. */
static int new_labels(struct sidecar *sidecar, size_t count, struct err *err) {
    if (count == 0)
        return err_set(err, -EINVAL, "has no labels");
    if (count > SIDECAR_LABELS_MAX)
        return err_set(err, -EINVAL, "has %zu labels, but at most %d can be", count,
                       SIDECAR_LABELS_MAX);
    sidecar->labels = calloc(count, sizeof(*sidecar->labels));
    return sidecar->labels ? 0 : err_set(err, -ENOMEM, "no memory");
}

static int prefix_place(const struct schema_file *file, const struct tree_node *value, int code) {
    return err_prefix(file->err, code, "%s:%d:%d: 'labels'", file->tree->name, value->line,
                      value->column);
}

static int read_label_list(const struct schema_file *file, const struct schema_key *key,
                           const struct tree_node *value, struct sidecar *sidecar) {
    size_t count = 0;
    for (const struct tree_node *node = value->first; node; node = node->next)
        count++;
    int rc = new_labels(sidecar, count, file->err);
    if (rc < 0)
        return prefix_place(file, value, rc);
    for (const struct tree_node *node = value->first; node && rc == 0; node = node->next)
        rc = schema_read_text(file, key, node, &sidecar->labels[sidecar->labels_count++]);
    return rc;
}

/* One label a line. Empty lines count, because a label's place is its class, but not at the end.
 * The sentence of an error starts with path. */
static int split_labels(const char *path, const char *text, size_t size, struct sidecar *sidecar,
                        struct err *err) {
    while (size > 0 && strchr("\r\n", text[size - 1]))
        size--;
    size_t lines = size > 0;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    int rc = new_labels(sidecar, lines, err);
    if (rc < 0)
        return err_prefix(err, rc, "%s", path);
    for (const char *end = text + size, *line = text; line <= end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t length = (size_t)((newline ? newline : end) - line);
        if (length > 0 && line[length - 1] == '\r')
            length--;
        if (length > SIDECAR_LABEL_MAX)
            return err_set(err, -EINVAL, "%s:%zu: a label of more than %d bytes", path,
                           sidecar->labels_count + 1, SIDECAR_LABEL_MAX);
        char *label = strndup(line, length);
        if (!label)
            return err_set(err, -ENOMEM, "%s: no memory", path);
        sidecar->labels[sidecar->labels_count++] = label;
        line = newline ? newline + 1 : end + 1;
    }
    return 0;
}

static int read_label_file(const struct schema_file *file, const struct schema_key *key,
                           const struct tree_node *value, struct sidecar *sidecar) {
    struct schema_key path_key = {.name = key->name, .min = 1, .max = PATH_MAX - 1};
    char *path = NULL, *text = NULL;
    size_t size = 0;
    int rc = schema_read_path(file, &path_key, value, &path);
    if (rc < 0)
        goto done;
    rc = tree_read_file(path, LABELS_FILE_MAX, &text, &size, file->err);
    if (rc == 0)
        rc = tree_check_text(text, size, path, file->err);
    if (rc == 0) {
        size_t bom = tree_bom_length(text, size);
        rc = split_labels(path, text + bom, size - bom, sidecar, file->err);
    }
    if (rc < 0)
        prefix_place(file, value, rc);
done:
    free(text);
    free(path);
    return rc;
}

static int read_labels(const struct schema_file *file, const struct schema_key *key,
                       const struct tree_node *value, void *field) {
    if (value->kind == TREE_LIST)
        return read_label_list(file, key, value, field);
    if (value->kind == TREE_MAP)
        return schema_mismatch(file, key, value, "a file with one label per line, or a list");
    return read_label_file(file, key, value, field);
}

static int read_dims(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, void *field) {
    struct sidecar *sidecar = field;
    return schema_read_dims(file, key, value, &sidecar->dims, &sidecar->dims_count);
}

/* ---- the whole file ----------------------------------------------------------------------------
 */

static struct sidecar *sidecar_new(void) {
    struct sidecar *sidecar = calloc(1, sizeof(*sidecar));
    for (int i = 0; sidecar && i < 3; i++)
        sidecar->scale[i] = DEFAULT_SCALE;
    return sidecar;
}

int sidecar_parse(const char *text, size_t size, const char *name, struct sidecar **ret_sidecar,
                  struct err *err) {
    struct tree tree = {.name = name};
    struct schema_file file = {.tree = &tree, .err = err};
    int rc = tree_parse(text, size, name, &tree, err);
    if (rc < 0)
        return rc;
    struct sidecar *sidecar = sidecar_new();
    rc = sidecar ? schema_read_map(&file, keys, LENGTH(keys), tree.root, "the file", sidecar)
                 : schema_no_memory(&file);
    tree_fini(&tree);
    if (rc < 0) {
        sidecar_free(sidecar);
        return rc;
    }
    *ret_sidecar = sidecar;
    return 0;
}

int sidecar_load(const char *model_path, struct sidecar **ret_sidecar, struct err *err) {
    char *path = NULL, *text = NULL;
    size_t size = 0, stem = strlen(model_path);
    if (stem > 5 && strcmp(model_path + stem - 5, ".onnx") == 0)
        stem -= 5;
    if (stem > PATH_MAX || asprintf(&path, "%.*s.yaml", (int)stem, model_path) < 0)
        return err_set(err, -ENOMEM, "%s: no memory", model_path);
    int rc = tree_read_file(path, CONFIG_FILE_MAX, &text, &size, err);
    if (rc == 0 || rc == -ENOENT)
        rc = sidecar_parse(text ? text : "", size, path, ret_sidecar, err);
    free(text);
    free(path);
    return rc;
}

void sidecar_free(struct sidecar *sidecar) {
    if (!sidecar)
        return;
    for (size_t i = 0; i < sidecar->labels_count; i++)
        free(sidecar->labels[i]);
    free(sidecar->labels);
    schema_free_dims(sidecar->dims, sidecar->dims_count);
    free(sidecar);
}
