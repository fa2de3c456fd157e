/* MODEL.yaml beside MODEL.onnx: how a picture becomes the model's input, what its outputs are
 * called, and values for its symbolic dimensions. */
#ifndef CONVOY_CONFIG_SIDECAR_H
#define CONVOY_CONFIG_SIDECAR_H

#include "base/err.h"
#include "config/dim.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIDECAR_LABELS_MAX 65536
#define SIDECAR_LABEL_MAX  1023  /* bytes of one label */
#define SIDECAR_SIDE_MAX   16384 /* pixels */

enum sidecar_fit {
    SIDECAR_CROP,      /* shorter side to `resize`, then the centre */
    SIDECAR_STRETCH,   /* both sides, whatever the aspect */
    SIDECAR_LETTERBOX, /* whole picture, bars of `pad` */
};

struct sidecar {
    int width, height; /* of the model's input in pixels; 0: taken from the model */
    int resize;        /* shorter side before a crop; 0: as large as the crop */
    enum sidecar_fit fit;
    enum { SIDECAR_RGB, SIDECAR_BGR, SIDECAR_GRAY } channels;
    enum { SIDECAR_NCHW, SIDECAR_NHWC } layout;
    float mean[3],
        scale[3];  /* input = (value 0..255 - mean) * scale, per channel in the model's order */
    float pad;     /* value 0..255 of a letterbox's bars */
    bool softmax;  /* the model ends before its softmax: apply one before printing probabilities */
    char **labels; /* one per class; NULL: none */
    size_t labels_count;
    struct config_dim *dims; /* NULL: none. Those of convoy.yaml come first */
    size_t dims_count;
};

/* The sidecar of model_path ("x.onnx" -> "x.yaml"), or what suits a picture network when there is
 * none: crop, RGB, mean 0, scale 1/255, no labels. Errors as config_load(). The caller frees it
 * with sidecar_free(). */
int sidecar_load(const char *model_path, struct sidecar **ret_sidecar, struct err *err);
int sidecar_parse(const char *text, size_t size, const char *name, struct sidecar **ret_sidecar,
                  struct err *err);
void sidecar_free(struct sidecar *sidecar);

/* The table of the keys that a sidecar may have, or of those of its `picture:`; for tests of the
 * documents. Static. */
struct schema_key;
const struct schema_key *sidecar_keys(size_t *ret_count);
const struct schema_key *sidecar_picture_keys(size_t *ret_count);

#endif
