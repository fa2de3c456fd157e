/* NumPy's .npy files, format versions 1 to 3 (numpy/lib/format.py), little-endian, of the element
 * types of base/tensor.h. */
#ifndef CONVOY_CTL_NPY_H
#define CONVOY_CTL_NPY_H

#include "base/err.h"
#include "base/tensor.h"

#define NPY_HEADER_MAX (64u << 10) /* bytes of a header's text; NumPy writes about 120 */

struct npy_header {
    struct tensor_desc desc; /* name NULL; dims in the order of the indices, also when fortran */
    bool fortran;            /* stored with the first index running fastest */
    size_t data_offset;      /* of the first element in the file */
};

/* Reads the header at the start of a file. size: bytes at data, at least the whole header or
 * NPY_HEADER_MAX + 12. 0; -EBADMSG for what is no .npy file, is truncated or contradicts itself;
 * -ENOTSUP for an element type or byte order that is not taken: the sentence gives the remedy. */
int npy_parse_header(const void *data, size_t size, struct npy_header *ret_header, struct err *err);

/* Writes the header of a version 1.0 file for desc into buf (NUL-terminated nowhere), padded to
 * header_size bytes in all. Returns header_size. -EMSGSIZE when it does not fit, -EINVAL unless
 * header_size is a multiple of 64, -ENOTSUP for an unknown element type. */
int npy_format_header(const struct tensor_desc *desc, char *buf, size_t header_size);

/* An open file whose elements are read piece by piece. A Fortran-ordered file is read whole at open
 * and handed out in C order. */
struct npy_reader;

/* 0, or the errno of opening it, or as npy_parse_header(), -EBADMSG when the file's size is not
 * what its header says, -ENOMEM. Sentences start with path. The caller's: npy_reader_free(). */
int npy_reader_new(const char *path, struct npy_reader **ret_reader, struct err *err);
void npy_reader_free(struct npy_reader *reader);
const struct tensor_desc *npy_reader_desc(const struct npy_reader *reader); /* borrowed */

/* Copies bytes from offset, counted in C order from the first element, to buf. 0, -EINVAL outside
 * the data, or the errno of reading. */
int npy_reader_read(struct npy_reader *reader, size_t offset, void *buf, size_t bytes,
                    struct err *err);

/* A file that grows by one item of a fixed shape at a time, so that a film's results need no
 * memory. */
struct npy_writer;

enum npy_form {
    NPY_SINGLE,  /* exactly one item: the array is the item */
    NPY_STACKED, /* the array gets one leading dimension: the number of items */
    NPY_JOINED,  /* items follow each other along their first dimension */
};

/* Starts path (written beside it, renamed by npy_writer_finish()). item is copied. 0, -errno of
 * creating it, -EINVAL when the shape has too many dimensions (or none to join along), -ENOMEM. */
int npy_writer_new(const char *path, const struct tensor_desc *item, enum npy_form form,
                   struct npy_writer **ret_writer, struct err *err);

/* Appends one item of the given bytes (those of item). 0, -EINVAL for another size or a second item
 * of a single one, or -errno of writing. */
int npy_writer_add(struct npy_writer *writer, const void *data, size_t bytes, struct err *err);

/* Completes the header and puts the file in its place. 0, or -errno; a single
 * item that never came is -EINVAL. The writer still needs npy_writer_free(). */
int npy_writer_finish(struct npy_writer *writer, struct err *err);

/* Without npy_writer_finish() nothing of the file remains. Takes NULL. */
void npy_writer_free(struct npy_writer *writer);

#endif
