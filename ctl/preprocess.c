#include "ctl/preprocess.h"

#include <errno.h>
#include <math.h>

/* The picture dimensions of the input by the sidecar's layout: -EINVAL when it has none. */
static int read_shape(const struct sidecar *sidecar, const struct tensor_desc *input, int64_t *c,
                      int64_t *h, int64_t *w, struct err *err) {
    char text[128];
    const int64_t *dims = input->dims;
    if (input->rank == 4 && dims[0] == 1)
        dims++;
    else if (input->rank == 4)
        return err_set(err, -EINVAL,
                       "the model takes %lld pictures at once (%s); set its first dimension to 1 "
                       "with dims: or --dim, or give tensors",
                       (long long)dims[0], tensor_desc_format(input, text, sizeof(text)));
    else if (input->rank != 3)
        return err_set(err, -EINVAL,
                       "input %s is %s, which is no picture; give it as --tensor %s=FILE.npy",
                       input->name, tensor_desc_format(input, text, sizeof(text)), input->name);
    bool last = sidecar->layout == SIDECAR_NHWC;
    *c = last ? dims[2] : dims[0];
    *h = last ? dims[0] : dims[1];
    *w = last ? dims[1] : dims[2];
    if (*c != 1 && *c != 3)
        return err_set(err, -EINVAL,
                       "input %s is %s: %lld channels with layout: %s; a picture has 1 or 3",
                       input->name, tensor_desc_format(input, text, sizeof(text)), (long long)*c,
                       last ? "NHWC" : "NCHW");
    if (*h < 1 || *w < 1 || *h > SIDECAR_SIDE_MAX || *w > SIDECAR_SIDE_MAX)
        return err_set(err, -EINVAL, "input %s is %s: sides of 1 to %d pixels are taken",
                       input->name, tensor_desc_format(input, text, sizeof(text)),
                       SIDECAR_SIDE_MAX);
    return 0;
}

int preprocess_init(const struct sidecar *sidecar, const struct tensor_desc *input,
                    struct preprocess *ret_preprocess, struct err *err) {
    struct preprocess p = {.fit = sidecar->fit, .dtype = input->dtype};
    int64_t c = 0, h = 0, w = 0;
    if (input->dtype != DTYPE_FLOAT && input->dtype != DTYPE_UINT8)
        return err_set(err, -EINVAL,
                       "input %s is of %s; pictures become float32 or uint8: give it as --tensor",
                       input->name, dtype_name(input->dtype));
    int rc = read_shape(sidecar, input, &c, &h, &w, err);
    if (rc != 0)
        return rc;
    if ((sidecar->width && sidecar->width != w) || (sidecar->height && sidecar->height != h))
        return err_set(err, -EINVAL,
                       "the sidecar's width and height are %d x %d, the model's input is %lld x "
                       "%lld; leave them out to take the model's",
                       sidecar->width, sidecar->height, (long long)w, (long long)h);
    if (c == 3 && sidecar->channels == SIDECAR_GRAY)
        return err_set(
            err, -EINVAL,
            "the sidecar says channels: GRAY, the model's input has 3; write RGB or BGR");

    p.width = (int)w;
    p.height = (int)h;
    p.channels = (int)c;
    p.channels_last = sidecar->layout == SIDECAR_NHWC;
    p.reversed = c == 3 && sidecar->channels == SIDECAR_BGR;
    p.resize = sidecar->resize;
    if (p.resize && (p.resize < p.width || p.resize < p.height) && p.fit == SIDECAR_CROP)
        return err_set(err, -EINVAL, "the sidecar's resize: %d is smaller than the crop of %d x %d",
                       p.resize, p.width, p.height);
    for (int i = 0; i < p.channels; i++) {
        for (int v = 0; v < 256; v++)
            p.table[i][v] = ((float)v - sidecar->mean[i]) * sidecar->scale[i];
        p.pad[i] = (sidecar->pad - sidecar->mean[i]) * sidecar->scale[i];
    }
    *ret_preprocess = p;
    return 0;
}

static int round_side(double side) {
    double rounded = floor(side + 0.5);
    return rounded < 1 ? 1 : rounded > INT32_MAX ? INT32_MAX : (int)rounded;
}

/* Scales by the larger of the two ratios (the window is covered) or the smaller (nothing is lost).
 */
static void scale_by_ratio(double ratio, int width, int height, int window_width, int window_height,
                           struct preprocess_geometry *g) {
    g->scaled_width = round_side(width * ratio);
    g->scaled_height = round_side(height * ratio);
    /* The centre; of two the upper left one. An odd bar is larger below and on the right. */
    int spare_x = g->scaled_width - window_width, spare_y = g->scaled_height - window_height;
    g->left = spare_x >= 0 ? spare_x / 2 : -(-spare_x / 2);
    g->top = spare_y >= 0 ? spare_y / 2 : -(-spare_y / 2);
}

int preprocess_place(const struct preprocess *p, int width, int height,
                     struct preprocess_geometry *ret_geometry, struct err *err) {
    struct preprocess_geometry g = {p->width, p->height, 0, 0};
    double x = (double)p->width / width, y = (double)p->height / height;
    if (p->fit == SIDECAR_LETTERBOX) {
        scale_by_ratio(x < y ? x : y, width, height, p->width, p->height, &g);
    } else if (p->fit == SIDECAR_CROP) {
        double ratio = x > y ? x : y;
        if (p->resize)
            ratio = (double)p->resize / (width < height ? width : height);
        scale_by_ratio(ratio, width, height, p->width, p->height, &g);
        if (g.scaled_width > SIDECAR_SIDE_MAX || g.scaled_height > SIDECAR_SIDE_MAX)
            return err_set(err, -EINVAL,
                           "%d x %d pixels are too narrow to crop to %d x %d; use fit: letterbox "
                           "or stretch",
                           width, height, p->width, p->height);
    }
    *ret_geometry = g;
    return 0;
}

static void store(const struct preprocess *p, void *tensor, size_t at, float value) {
    if (p->dtype == DTYPE_FLOAT) {
        ((float *)tensor)[at] = value;
        return;
    }
    float rounded = floorf(value + 0.5f);
    ((uint8_t *)tensor)[at] = rounded < 0 ? 0 : rounded > 255 ? 255 : (uint8_t)rounded;
}

void preprocess_fill(const struct preprocess *p, const struct preprocess_geometry *g,
                     const uint8_t *pixels, size_t stride, void *tensor) {
    size_t plane = (size_t)p->width * (size_t)p->height;
    for (int y = 0; y < p->height; y++) {
        int from_y = y + g->top;
        const uint8_t *row =
            from_y >= 0 && from_y < g->scaled_height ? pixels + (size_t)from_y * stride : NULL;
        for (int x = 0; x < p->width; x++) {
            int from_x = x + g->left;
            bool inside = row && from_x >= 0 && from_x < g->scaled_width;
            size_t pixel = (size_t)y * (size_t)p->width + (size_t)x;
            for (int c = 0; c < p->channels; c++) {
                int from_c = p->reversed ? p->channels - 1 - c : c;
                float value = inside ? p->table[c][row[from_x * p->channels + from_c]] : p->pad[c];
                size_t at = p->channels_last ? pixel * (size_t)p->channels + (size_t)c
                                             : (size_t)c * plane + pixel;
                store(p, tensor, at, value);
            }
        }
    }
}

void preprocess_gray(uint8_t *pixels, size_t stride, int width, int height) {
    for (int y = 0; y < height; y++) {
        uint8_t *row = pixels + (size_t)y * stride;
        for (int x = 0; x < width; x++) {
            const uint8_t *rgb = row + 3 * x;
            row[x] = (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 32768u) >> 16);
        }
    }
}
