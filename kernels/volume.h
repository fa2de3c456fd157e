/* Convolution and pooling of three dimensions, and pooling of what has other types or norms: part
 * of the contract of kernels.h, with the same rules. Plainer and slower than two dimensions.
 */
#ifndef KERNELS_VOLUME_H
#define KERNELS_VOLUME_H

#include "kernels.h"

/* ---- convolution: x [n][ic][id][ih][iw], w [oc][ic/group][kd][kh][kw], y and residual
 * [n][oc][od][oh][ow]. plane has everything but the depth; its act and residual are those of the
 * whole. Each slice of the kernel is a convolution of planes, added up. */
struct kn_conv3 {
    struct kn_conv plane;
    int id, od, kd, stride_d, dil_d, pad_front;
};

struct kn_conv3_plan {
    struct kn_conv3 conv;
    struct kn_conv_plan plane;
    size_t packed_bytes, workspace_bytes; /* KN_ALIGN aligned both */
    size_t scratch_bytes;                 /* for packing */
};

/* As kn_conv_plan(). */
int kn_conv3_plan(const struct kn_conv3 *conv, int threads, struct kn_conv3_plan *ret_plan);

/* As kn_conv_pack() with all channels at once; scratch is scratch_bytes long, aligned to floats. */
void kn_conv3_pack(const struct kn_conv3_plan *plan, const struct kn_conv_weights *weights,
                   void *packed, void *scratch);

/* As kn_conv_run(); y may be residual. */
void kn_conv3_run(const struct kn_conv3_plan *plan, const void *packed, const float *x,
                  const float *residual, float *y, void *workspace, struct kn_threads *threads);
void kn_conv3_ref(const struct kn_conv3 *conv, const float *w, const float *bias, const float *x,
                  const float *residual, float *y);

/* ConvTranspose: w [ic][oc/group][kd][kh][kw]. -EINVAL, -EOVERFLOW as above. */
int kn_conv3_transpose_workspace(const struct kn_conv3 *conv, size_t *ret_bytes);
void kn_conv3_transpose(const struct kn_conv3 *conv, const float *w, const float *bias,
                        const float *x, float *y, void *workspace, struct kn_threads *threads);
void kn_conv3_transpose_ref(const struct kn_conv3 *conv, const float *w, const float *bias,
                            const float *x, float *y);

/* ---- pooling: x [planes][in...], y [planes][out...], axes depth, height, width. */
struct kn_pool3 {
    enum kn_pool_kind kind;
    enum kn_type type; /* of a maximum: KN_FLOAT, KN_DOUBLE, KN_UINT8, KN_INT8; else KN_FLOAT */
    int planes;
    int in[3], out[3], kernel[3], stride[3], dil[3];
    int begin[3], end[3]; /* pads */
    bool count_include_pad;
    bool column_major; /* indices: the first axis fastest */
    float p;           /* of KN_POOL_LP: (sum of |x|^p)^(1/p) */
};

/* As kn_pool(). A window without a cell gives the type's least number, or 0. */
void kn_pool3(const struct kn_pool3 *pool, const void *x, void *y, int64_t *ret_index,
              struct kn_threads *threads);
void kn_pool3_ref(const struct kn_pool3 *pool, const void *x, void *y, int64_t *ret_index);

/* MaxUnpool (9, 11): y is zeros but for y[place of index[i]] = x[i]. index counts in `inner`, a
 * shape of the same rank as y's that lies at y's beginning along every axis; elements of elem_size
 * bytes. -EINVAL for an index outside inner: y is then partly written. */
int kn_unpool(size_t elem_size, const struct kn_shape *inner, const struct kn_shape *y_shape,
              const void *x, const int64_t *index, size_t count, void *y);

#endif
