#include "ctl/npy.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC       "\x93NUMPY"
#define MAGIC_BYTES 6

/* ---- the header's text: a Python dictionary of three keys ---- */

struct scanner {
    const char *at, *end;
};

static void skip_space(struct scanner *s) {
    while (s->at < s->end && isspace((unsigned char)*s->at))
        s->at++;
}

static bool take_char(struct scanner *s, char c) {
    skip_space(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool take_word(struct scanner *s, const char *word) {
    size_t len = strlen(word);
    skip_space(s);
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
        return false;
    s->at += len;
    return true;
}

/* A string in either kind of quotes, without escapes, into buf. */
static bool take_string(struct scanner *s, char *buf, size_t size) {
    skip_space(s);
    if (s->at == s->end || (*s->at != '\'' && *s->at != '"'))
        return false;
    char quote = *s->at++;
    size_t len = 0;
    while (s->at < s->end && *s->at != quote) {
        if (*s->at == '\\' || len + 1 >= size)
            return false;
        buf[len++] = *s->at++;
    }
    if (s->at == s->end)
        return false;
    s->at++;
    buf[len] = '\0';
    return true;
}

static bool take_number(struct scanner *s, int64_t *ret_value) {
    skip_space(s);
    if (s->at == s->end || !isdigit((unsigned char)*s->at))
        return false;
    int64_t value = 0;
    while (s->at < s->end && isdigit((unsigned char)*s->at)) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *s->at - '0', &value))
            return false;
        s->at++;
    }
    if (s->at < s->end && *s->at == 'L') /* written by Python 2 */
        s->at++;
    *ret_value = value;
    return true;
}

static const struct {
    const char *descr; /* without the byte order */
    enum dtype dtype;
} types[] = {
    {"f4", DTYPE_FLOAT},  {"u1", DTYPE_UINT8}, {"i1", DTYPE_INT8},    {"i4", DTYPE_INT32},
    {"i8", DTYPE_INT64},  {"b1", DTYPE_BOOL},  {"f2", DTYPE_FLOAT16}, {"f8", DTYPE_DOUBLE},
    {"u2", DTYPE_UINT16}, {"i2", DTYPE_INT16}, {"u4", DTYPE_UINT32},  {"u8", DTYPE_UINT64},
};
#define TYPES (sizeof(types) / sizeof(types[0]))

static int parse_descr(const char *descr, enum dtype *ret_dtype, struct err *err) {
    for (size_t i = 0; i < TYPES; i++) {
        if (!descr[0] || strcmp(descr + 1, types[i].descr) != 0)
            continue;
        if (descr[0] == '<' || descr[0] == '|' || descr[0] == '=') {
            *ret_dtype = types[i].dtype;
            return 0;
        }
        if (descr[0] == '>')
            return err_set(err, -ENOTSUP,
                           "big-endian elements ('%s'); save it with numpy's "
                           "a.astype('<%s')",
                           descr, types[i].descr);
    }
    return err_set(err, -ENOTSUP,
                   "elements of type '%s'; taken are float32, float16, float64, uint8, int8, "
                   "int32, int64 and bool: save it with numpy's a.astype('float32')",
                   descr);
}

static int parse_shape(struct scanner *s, struct tensor_desc *desc, struct err *err) {
    if (!take_char(s, '('))
        return err_set(err, -EBADMSG, "the header's 'shape' is not a tuple");
    desc->rank = 0;
    while (!take_char(s, ')')) {
        if (desc->rank == TENSOR_MAX_RANK)
            return err_set(err, -ENOTSUP, "more than %d dimensions", TENSOR_MAX_RANK);
        if (!take_number(s, &desc->dims[desc->rank]))
            return err_set(err, -EBADMSG, "the header's 'shape' holds something that is no length");
        desc->rank++;
        if (!take_char(s, ',')) {
            if (take_char(s, ')'))
                break;
            return err_set(err, -EBADMSG, "the header's 'shape' does not end");
        }
    }
    return 0;
}

enum { KEY_DESCR = 1, KEY_ORDER = 2, KEY_SHAPE = 4, KEY_ALL = 7 };

/* One "'key': value" of the dictionary. Sets the key's bit in *seen. */
static int parse_entry(struct scanner *s, struct npy_header *header, unsigned *seen,
                       struct err *err) {
    char key[32], descr[32];
    unsigned bit;
    int rc = 0;
    if (!take_string(s, key, sizeof(key)) || !take_char(s, ':'))
        return err_set(err, -EBADMSG, "the header is not a dictionary of NumPy's");
    if (strcmp(key, "descr") == 0) {
        bit = KEY_DESCR;
        if (!take_string(s, descr, sizeof(descr)))
            return err_set(err, -ENOTSUP, "elements of a structured type; save one field of it");
        rc = parse_descr(descr, &header->desc.dtype, err);
    } else if (strcmp(key, "fortran_order") == 0) {
        bit = KEY_ORDER;
        header->fortran = take_word(s, "True");
        if (!header->fortran && !take_word(s, "False"))
            return err_set(err, -EBADMSG, "the header's 'fortran_order' is neither True nor False");
    } else if (strcmp(key, "shape") == 0) {
        bit = KEY_SHAPE;
        rc = parse_shape(s, &header->desc, err);
    } else {
        return err_set(err, -EBADMSG, "the header has an unknown key '%s'", key);
    }
    if (rc == 0 && (*seen & bit))
        return err_set(err, -EBADMSG, "the header has the key '%s' twice", key);
    *seen |= bit;
    return rc;
}

static int parse_dictionary(struct scanner *s, struct npy_header *header, struct err *err) {
    unsigned seen = 0;
    if (!take_char(s, '{'))
        return err_set(err, -EBADMSG, "the header is not a dictionary of NumPy's");
    while (!take_char(s, '}')) {
        int rc = parse_entry(s, header, &seen, err);
        if (rc != 0)
            return rc;
        if (!take_char(s, ',')) {
            if (take_char(s, '}'))
                break;
            return err_set(err, -EBADMSG, "the header's dictionary does not end");
        }
    }
    skip_space(s);
    if (s->at != s->end)
        return err_set(err, -EBADMSG, "the header goes on after its dictionary");
    if (seen != KEY_ALL)
        return err_set(err, -EBADMSG, "the header lacks '%s'",
                       !(seen & KEY_DESCR)   ? "descr"
                       : !(seen & KEY_ORDER) ? "fortran_order"
                                             : "shape");
    return 0;
}

int npy_parse_header(const void *data, size_t size, struct npy_header *ret_header,
                     struct err *err) {
    const uint8_t *p = data;
    struct npy_header header = {0};
    size_t text, start;
    if (size < MAGIC_BYTES + 2 || memcmp(p, MAGIC, MAGIC_BYTES) != 0)
        return err_set(err, -EBADMSG, "not a .npy file (an .npz must be unpacked first)");
    unsigned major = p[6];
    if (major < 1 || major > 3)
        return err_set(err, -ENOTSUP, "format version %u.%u; versions 1 to 3 are taken", major,
                       p[7]);
    start = major == 1 ? 10 : 12;
    if (size < start)
        return err_set(err, -EBADMSG, "the file ends in its header");
    text = (size_t)p[8] | (size_t)p[9] << 8;
    if (major > 1)
        text |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (text > NPY_HEADER_MAX)
        return err_set(err, -EBADMSG, "a header of %zu bytes; at most %u are taken", text,
                       NPY_HEADER_MAX);
    if (size - start < text)
        return err_set(err, -EBADMSG, "the file ends in its header");

    struct scanner s = {(const char *)p + start, (const char *)p + start + text};
    int rc = parse_dictionary(&s, &header, err);
    if (rc != 0)
        return rc;
    size_t bytes;
    if (tensor_desc_bytes(&header.desc, &bytes) != 0)
        return err_set(err, -EBADMSG, "a shape that no memory can hold");
    header.data_offset = start + text;
    *ret_header = header;
    return 0;
}

static const char *find_descr(enum dtype dtype) {
    for (size_t i = 0; i < TYPES; i++)
        if (types[i].dtype == dtype)
            return types[i].descr;
    return NULL;
}

int npy_format_header(const struct tensor_desc *desc, char *buf, size_t header_size) {
    char shape[256] = "";
    size_t len = 0;
    const char *descr = find_descr(desc->dtype);
    if (!descr)
        return -ENOTSUP;
    if (header_size % 64 != 0 || header_size < 64 || header_size > 4096)
        return -EINVAL;
    for (int i = 0; i < desc->rank; i++)
        len += (size_t)snprintf(shape + len, sizeof(shape) - len, "%lld,%s",
                                (long long)desc->dims[i], i + 1 < desc->rank ? " " : "");
    if (desc->rank > 1)
        shape[len - 1] = '\0'; /* Python demands the comma of a tuple of one only */
    size_t room = header_size - 10;
    int n = snprintf(buf + 10, room, "{'descr': '%c%s', 'fortran_order': False, 'shape': (%s), }",
                     dtype_size(desc->dtype) == 1 ? '|' : '<', descr, shape);
    if (n < 0 || (size_t)n + 1 > room)
        return -EMSGSIZE;
    memset(buf + 10 + n, ' ', room - (size_t)n);
    buf[header_size - 1] = '\n';
    memcpy(buf, MAGIC "\x01\x00", MAGIC_BYTES + 2);
    buf[8] = (char)(room & 0xff);
    buf[9] = (char)(room >> 8);
    return (int)header_size;
}

/* ---- reading ---- */

struct npy_reader {
    int fd;
    char *path;
    struct npy_header header;
    size_t bytes; /* of data */
    void *whole;  /* Fortran-ordered files: the data in C order */
};

static int read_fully(int fd, void *buf, size_t bytes, off_t offset) {
    char *p = buf;
    while (bytes > 0) {
        ssize_t n = pread(fd, p, bytes, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EBADMSG;
        p += n;
        bytes -= (size_t)n;
        offset += n;
    }
    return 0;
}

/* Elements of size bytes from `from`, first index fastest, to `to`, last index fastest. */
static void to_c_order(const struct tensor_desc *desc, size_t size, const char *from, char *to) {
    size_t steps[TENSOR_MAX_RANK], index[TENSOR_MAX_RANK] = {0}, step = 1, count = 1;
    for (int i = 0; i < desc->rank; i++) {
        steps[i] = step;
        step *= (size_t)desc->dims[i];
    }
    count = step;
    for (size_t n = 0, at = 0; n < count; n++) {
        memcpy(to + n * size, from + at * size, size);
        for (int d = desc->rank - 1; d >= 0; d--) {
            at += steps[d];
            if (++index[d] < (size_t)desc->dims[d])
                break;
            at -= steps[d] * index[d];
            index[d] = 0;
        }
    }
}

static int read_fortran(struct npy_reader *reader) {
    char *stored = malloc(reader->bytes ? reader->bytes : 1);
    reader->whole = malloc(reader->bytes ? reader->bytes : 1);
    int rc = stored && reader->whole
                 ? read_fully(reader->fd, stored, reader->bytes, (off_t)reader->header.data_offset)
                 : -ENOMEM;
    if (rc == 0)
        to_c_order(&reader->header.desc, dtype_size(reader->header.desc.dtype), stored,
                   reader->whole);
    free(stored);
    return rc;
}

/* Reads and checks the header of reader->fd against the file's size. */
static int read_header(struct npy_reader *reader, struct err *err) {
    struct stat st;
    if (fstat(reader->fd, &st) != 0)
        return err_set(err, -errno, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, -EINVAL, "not a regular file");
    size_t size = (size_t)st.st_size, head = NPY_HEADER_MAX + 12;
    if (size < head)
        head = size;
    char *text = malloc(head ? head : 1);
    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    int rc = read_fully(reader->fd, text, head, 0);
    if (rc == 0)
        rc = npy_parse_header(text, head, &reader->header, err);
    else
        err_set(err, rc, "%s", strerror(-rc));
    free(text);
    if (rc != 0)
        return rc;
    rc = tensor_desc_bytes(&reader->header.desc, &reader->bytes);
    if (rc != 0 || size - reader->header.data_offset != reader->bytes) {
        char shape[128];
        return err_set(err, -EBADMSG, "%s needs %zu bytes of data, the file holds %zu",
                       tensor_desc_format(&reader->header.desc, shape, sizeof(shape)),
                       reader->bytes, size - reader->header.data_offset);
    }
    return 0;
}

int npy_reader_new(const char *path, struct npy_reader **ret_reader, struct err *err) {
    struct npy_reader *reader = calloc(1, sizeof(*reader));
    int rc;
    if (!reader)
        return err_set(err, -ENOMEM, "%s: out of memory", path);
    reader->fd = -1;
    reader->path = strdup(path);
    if (!reader->path) {
        rc = err_set(err, -ENOMEM, "out of memory");
        goto fail;
    }
    reader->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (reader->fd < 0) {
        rc = err_set(err, -errno, "%s", strerror(errno));
        goto fail;
    }
    rc = read_header(reader, err);
    if (rc != 0)
        goto fail;
    if (reader->header.fortran) {
        rc = read_fortran(reader);
        if (rc != 0) {
            err_set(err, rc, "%s", strerror(-rc));
            goto fail;
        }
    }
    *ret_reader = reader;
    return 0;

fail:
    npy_reader_free(reader);
    return err_prefix(err, rc, "%s", path);
}

void npy_reader_free(struct npy_reader *reader) {
    if (!reader)
        return;
    if (reader->fd >= 0)
        close(reader->fd);
    free(reader->whole);
    free(reader->path);
    free(reader);
}

const struct tensor_desc *npy_reader_desc(const struct npy_reader *reader) {
    return &reader->header.desc;
}

int npy_reader_read(struct npy_reader *reader, size_t offset, void *buf, size_t bytes,
                    struct err *err) {
    if (offset > reader->bytes || bytes > reader->bytes - offset)
        return err_set(err, -EINVAL, "%s: nothing stored at byte %zu", reader->path, offset);
    if (reader->whole) {
        memcpy(buf, (const char *)reader->whole + offset, bytes);
        return 0;
    }
    int rc = read_fully(reader->fd, buf, bytes, (off_t)(reader->header.data_offset + offset));
    if (rc == -EBADMSG)
        return err_set(err, rc, "%s: the file has become shorter", reader->path);
    if (rc != 0)
        return err_set(err, rc, "%s: %s", reader->path, strerror(-rc));
    return 0;
}

/* ---- writing ---- */

#define WRITER_HEADER                                                                              \
    192 /* room for the longest shape, so that the count can be filled in last                     \
         */

struct npy_writer {
    FILE *file;
    char *path, *temporary;
    struct tensor_desc item;
    enum npy_form form;
    bool done;
    size_t item_bytes;
    int64_t items;
};

static int write_header(struct npy_writer *writer) {
    char header[WRITER_HEADER];
    struct tensor_desc desc = writer->item;
    if (writer->form == NPY_JOINED)
        desc.dims[0] *= writer->items;
    if (writer->form == NPY_STACKED) {
        memmove(&desc.dims[1], &desc.dims[0], (size_t)desc.rank * sizeof(desc.dims[0]));
        desc.dims[0] = writer->items;
        desc.rank++;
    }
    int rc = npy_format_header(&desc, header, sizeof(header));
    if (rc < 0)
        return rc;
    errno = 0;
    return fwrite(header, 1, sizeof(header), writer->file) == sizeof(header) ? 0
           : errno                                                           ? -errno
                                                                             : -EIO;
}

int npy_writer_new(const char *path, const struct tensor_desc *item, enum npy_form form,
                   struct npy_writer **ret_writer, struct err *err) {
    struct npy_writer *writer = calloc(1, sizeof(*writer));
    int rc = -ENOMEM;
    if (!writer)
        goto fail;
    writer->item = *item;
    writer->item.name = NULL;
    writer->form = form;
    rc = tensor_desc_bytes(item, &writer->item_bytes);
    if (rc == 0 && ((form == NPY_STACKED && item->rank == TENSOR_MAX_RANK) ||
                    (form == NPY_JOINED && item->rank == 0)))
        rc = -EINVAL;
    if (rc != 0)
        goto fail;
    writer->path = strdup(path);
    if (!writer->path || asprintf(&writer->temporary, "%s.part", path) < 0) {
        writer->temporary = NULL;
        rc = -ENOMEM;
        goto fail;
    }
    writer->file = fopen(writer->temporary, "wbe");
    if (!writer->file) {
        rc = -errno;
        goto fail;
    }
    rc = write_header(writer);
    if (rc != 0)
        goto fail;
    *ret_writer = writer;
    return 0;

fail:
    npy_writer_free(writer);
    return err_set(err, rc, "%s: %s", path, strerror(-rc));
}

int npy_writer_add(struct npy_writer *writer, const void *data, size_t bytes, struct err *err) {
    if (bytes != writer->item_bytes || (writer->form == NPY_SINGLE && writer->items == 1))
        return err_set(err, -EINVAL, "%s: an item of another shape than the first", writer->path);
    errno = 0;
    if (fwrite(data, 1, bytes, writer->file) != bytes) {
        int rc = errno ? -errno : -EIO;
        return err_set(err, rc, "%s: %s", writer->path, strerror(-rc));
    }
    writer->items++;
    return 0;
}

int npy_writer_finish(struct npy_writer *writer, struct err *err) {
    int rc = 0;
    if (writer->form == NPY_SINGLE && writer->items == 0)
        return err_set(err, -EINVAL, "%s: no result to write", writer->path);
    if (fseek(writer->file, 0, SEEK_SET) != 0)
        rc = -errno;
    if (rc == 0)
        rc = write_header(writer);
    if (rc == 0 && fflush(writer->file) != 0)
        rc = -errno;
    if (rc == 0 && rename(writer->temporary, writer->path) != 0)
        rc = -errno;
    if (rc != 0)
        return err_set(err, rc, "%s: %s", writer->path, strerror(-rc));
    writer->done = true;
    return 0;
}

void npy_writer_free(struct npy_writer *writer) {
    if (!writer)
        return;
    if (writer->file)
        fclose(writer->file);
    if (writer->file && !writer->done)
        unlink(writer->temporary);
    free(writer->temporary);
    free(writer->path);
    free(writer);
}
