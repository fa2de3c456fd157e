/* The structure of an ONNX file without its numbers. protobuf-c copies every `bytes` field, so a
 * file decoded as it is would be in memory twice; a skeleton is a small copy of the file that
 * protobuf-c can decode instead. */
#ifndef CONVOY_MODEL_ONNX_SKELETON_H
#define CONVOY_MODEL_ONNX_SKELETON_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define ONNX_SKELETON_MAX ((size_t)64 << 20)

/* Writes the skeleton of a file of size bytes: a ModelProto as proto/onnx.proto defines it, with
 * - tensors without their data, but with body_offset and body_size: where in the file they are;
 * - fields that we refuse present but empty; fields that we do not know, documentation: gone;
 * - every length and number in its shortest form (nested lengths: five bytes);
 * - every text checked: UTF-8, no NUL, at most GRAPH_NAME_MAX bytes.
 * A field of a kind that cannot be (a text where a number belongs, a single message twice) is
 * refused. On 0 *ret_skeleton is the caller's, to be freed with free(). -EBADMSG with a sentence
 * that names the place, -EMSGSIZE (more than ONNX_SKELETON_MAX), -ENOMEM. */
int onnx_skeleton(const uint8_t *file, size_t size, uint8_t **ret_skeleton, size_t *ret_size,
                  struct err *err);

#endif
