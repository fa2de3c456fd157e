/* The numbers of a TensorProto: in the file where they can be used there, decoded otherwise. */
#ifndef CONVOY_MODEL_ONNX_TENSOR_H
#define CONVOY_MODEL_ONNX_TENSOR_H

#include "model/graph.h"
#include "onnx.pb-c.h"

#define EXTERNAL_FILES_MAX 4096

/* A file of external data, mapped; lives with the graph. */
struct external_file {
    struct external_file *next; /* in order of first mention */
    const char *path;           /* without links */
    const uint8_t *data;
    size_t size;
};

/* What reading tensors needs; the fields above the line are the caller's to set. */
struct tensor_reader {
    struct graph *graph;
    const uint8_t *file; /* the model, size bytes; outlives the graph */
    size_t size;
    const char *folder; /* of the model, a path without links; NULL: external data is refused */
    /* ---- */
    struct external_file *externals;
    size_t externals_count;
};

/* Makes *ret_constant from a tensor of a skeleton (onnx_skeleton.h). Its bytes belong to the graph;
 * desc.name is left NULL. Checks element type, dims, the number of elements against the data, that
 * external data lies inside the folder. -EBADMSG, -ENOTSUP (element type, rank, segments), -ENOMEM,
 * or the errno of opening external data. */
int tensor_read(struct tensor_reader *reader, const Onnx__TensorProto *tensor,
                struct constant *ret_constant, struct err *err);

/* The type of that number in TensorProto.DataType in ONNX's spelling, for sentences. Static. */
const char *tensor_onnx_type(int32_t data_type);

#endif
