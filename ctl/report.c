#include "ctl/report.h"

#include "ctl/json.h"
#include "ctl/labels.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct report {
    struct report_options options;
    const struct sidecar *sidecar;
    struct tensor_desc *outputs;
    struct npy_writer *
        *writers; /* one per output, made with the first result; NULL without files */
    size_t count;
    FILE *stream;
    bool classes;     /* results are scores of classes */
    uint64_t missing; /* failed frames before the first result, not yet in the files */
    struct labels_class *top;
};

const char *report_file_name(const char *name, char *buf, size_t size) {
    size_t i = 0;
    for (; name[i] && i + 1 < size; i++) {
        char c = name[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '.' || c == '_' || c == '-';
        buf[i] = plain ? c : '_';
    }
    buf[i] = '\0';
    return buf;
}

static int prepare_files(struct report *report, struct err *err) {
    char a[NAME_MAX], b[NAME_MAX];
    const char *dir = report->options.out_dir;
    for (size_t i = 0; i < report->count; i++)
        for (size_t j = i + 1; j < report->count; j++)
            if (strcmp(report_file_name(report->outputs[i].name, a, sizeof(a) - 8),
                       report_file_name(report->outputs[j].name, b, sizeof(b) - 8)) == 0)
                return err_set(err, -EINVAL, "outputs '%s' and '%s' would both be %s/%s.npy",
                               report->outputs[i].name, report->outputs[j].name, dir, a);
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return err_set(err, -errno, "%s: %s", dir, strerror(errno));
    report->writers = calloc(report->count + 1, sizeof(*report->writers));
    return report->writers ? 0 : err_set(err, -ENOMEM, "out of memory");
}

int report_new(const struct report_options *options, const struct sidecar *sidecar,
               const struct tensor_desc *outputs, size_t count, FILE *stream,
               struct report **ret_report, struct err *err) {
    int rc = 0;
    struct report *report = calloc(1, sizeof(*report));
    if (!report)
        return err_set(err, -ENOMEM, "out of memory");
    report->options = *options;
    report->sidecar = sidecar;
    report->stream = stream;
    report->count = count;
    report->classes = labels_is_class_vector(outputs, count);
    report->outputs = calloc(count + 1, sizeof(*outputs));
    report->top = calloc(options->top + 1, sizeof(*report->top));
    if (!report->outputs || !report->top) {
        rc = err_set(err, -ENOMEM, "out of memory");
        goto fail;
    }
    memcpy(report->outputs, outputs, count * sizeof(*outputs));
    if (options->out_dir)
        rc = prepare_files(report, err);
    if (rc != 0)
        goto fail;
    *ret_report = report;
    return 0;

fail:
    report_free(report);
    return rc;
}

void report_free(struct report *report) {
    if (!report)
        return;
    for (size_t i = 0; report->writers && i < report->count; i++)
        npy_writer_free(report->writers[i]);
    free(report->writers);
    free(report->outputs);
    free(report->top);
    free(report);
}

/* ---- files ---- */

/* An item of NaN or zeros for each file. */
static int add_missing(struct report *report, struct err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < report->count; i++) {
        size_t bytes;
        rc = tensor_desc_bytes(&report->outputs[i], &bytes);
        if (rc != 0)
            return rc;
        void *data = calloc(1, bytes ? bytes : 1);
        if (!data)
            return err_set(err, -ENOMEM, "out of memory");
        if (report->outputs[i].dtype == DTYPE_FLOAT)
            for (size_t j = 0; j < bytes / sizeof(float); j++)
                ((float *)data)[j] = NAN;
        rc = npy_writer_add(report->writers[i], data, bytes, err);
        free(data);
    }
    return rc;
}

/* Opens the files for results shaped like the first one. */
static int open_files(struct report *report, const struct tensor *tensors, struct err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < report->count; i++) {
        char name[NAME_MAX - 8], *path;
        const char *output = report->outputs[i].name;
        report->outputs[i] = tensors[i].desc;
        report->outputs[i].name = output;
        bool joinable = tensors[i].desc.rank > 0 && tensors[i].desc.dims[0] == 1;
        enum npy_form form = report->options.form;
        if (form == NPY_JOINED && !joinable)
            form = NPY_STACKED;
        if (asprintf(&path, "%s/%s.npy", report->options.out_dir,
                     report_file_name(output, name, sizeof(name))) < 0)
            return err_set(err, -ENOMEM, "out of memory");
        rc = npy_writer_new(path, &tensors[i].desc, form, &report->writers[i], err);
        free(path);
    }
    for (; rc == 0 && report->missing > 0; report->missing--)
        rc = add_missing(report, err);
    return rc;
}

static int write_files(struct report *report, const struct feed_item *item,
                       const struct tensor *tensors, struct err *err) {
    int rc = 0;
    if (report->count && !report->writers[0])
        rc = open_files(report, tensors, err);
    for (size_t i = 0; rc == 0 && i < report->count; i++) {
        size_t bytes;
        if (!tensor_desc_same(&tensors[i].desc, &report->outputs[i]))
            return err_set(err, -EINVAL,
                           "%s: output %s has another shape than in the frames before; write each "
                           "frame to a folder of its own",
                           item->source, report->outputs[i].name);
        rc = tensor_desc_bytes(&tensors[i].desc, &bytes);
        if (rc == 0)
            rc = npy_writer_add(report->writers[i], tensors[i].data, bytes, err);
    }
    return rc;
}

/* ---- lines ---- */

static json_t *start_json(const struct feed_item *item) {
    json_t *line = json_object();
    json_object_set_new(line, "frame", json_integer((json_int_t)item->number));
    json_object_set_new(line, "source", json_text(item->source));
    if (item->film)
        json_object_set_new(line, "index", json_integer((json_int_t)item->index));
    return line;
}

static json_t *top_json(const struct report *report, size_t found) {
    json_t *list = json_array();
    for (size_t i = 0; i < found; i++) {
        const struct labels_class *c = &report->top[i];
        json_t *entry = json_object();
        json_object_set_new(entry, "class", json_integer((json_int_t)c->index));
        if (c->label)
            json_object_set_new(entry, "label", json_text(c->label));
        json_object_set_new(entry, "probability", json_number(c->probability));
        json_array_append_new(list, entry);
    }
    return list;
}

static json_t *outputs_json(const struct report *report, const struct tensor *tensors) {
    json_t *list = json_array();
    for (size_t i = 0; i < report->count; i++) {
        struct labels_range range;
        labels_range(&tensors[i], &range);
        json_t *entry = json_object();
        json_object_set_new(entry, "name", json_text(report->outputs[i].name));
        json_object_set_new(entry, "type", json_text(dtype_name(tensors[i].desc.dtype)));
        json_object_set_new(entry, "shape", json_shape(&tensors[i].desc));
        json_object_set_new(entry, "min", json_number(range.min));
        json_object_set_new(entry, "max", json_number(range.max));
        json_object_set_new(entry, "mean", json_number(range.mean));
        if (range.nans)
            json_object_set_new(entry, "nan", json_integer((json_int_t)range.nans));
        json_array_append_new(list, entry);
    }
    return list;
}

static void print_source(const struct report *report, const struct feed_item *item) {
    fputs(item->source, report->stream);
    if (item->film)
        fprintf(report->stream, " #%llu", (unsigned long long)item->index);
}

static void print_top(const struct report *report, const struct feed_item *item, size_t found,
                      double ms) {
    bool one_line = report->options.top == 1;
    print_source(report, item);
    if (!one_line && report->options.time)
        fprintf(report->stream, "  (%.1f ms)", ms);
    if (!one_line)
        fputc('\n', report->stream);
    for (size_t i = 0; i < found; i++) {
        const struct labels_class *c = &report->top[i];
        fprintf(report->stream, "  %7.4f  ", c->probability);
        if (c->label)
            fprintf(report->stream, "%s", c->label);
        else
            fprintf(report->stream, "class %zu", c->index);
        if (!one_line)
            fputc('\n', report->stream);
    }
    if (one_line && report->options.time)
        fprintf(report->stream, "  (%.1f ms)", ms);
    if (one_line)
        fputc('\n', report->stream);
}

static void print_outputs(const struct report *report, const struct feed_item *item,
                          const struct tensor *tensors, double ms) {
    print_source(report, item);
    if (report->options.time)
        fprintf(report->stream, "  (%.1f ms)", ms);
    fputc('\n', report->stream);
    for (size_t i = 0; i < report->count; i++) {
        char shape[128];
        struct labels_range range;
        labels_range(&tensors[i], &range);
        fprintf(report->stream, "  %s  %s  min %.6g  max %.6g  mean %.6g", report->outputs[i].name,
                tensor_desc_format(&tensors[i].desc, shape, sizeof(shape)), range.min, range.max,
                range.mean);
        if (range.nans)
            fprintf(report->stream, "  NaN %zu", range.nans);
        fputc('\n', report->stream);
    }
}

int report_result(struct report *report, const struct feed_item *item, const struct tensor *tensors,
                  double ms, struct err *err) {
    size_t found = 0, scores;
    if (report->writers) {
        int rc = write_files(report, item, tensors, err);
        if (rc != 0)
            return rc;
    }
    if (report->options.quiet)
        return 0;
    if (report->classes && tensor_desc_count(&tensors[0].desc, &scores) == 0)
        found =
            labels_top(report->sidecar, tensors[0].data, scores, report->options.top, report->top);
    if (!report->options.json) {
        if (report->classes)
            print_top(report, item, found, ms);
        else if (!report->writers)
            print_outputs(report, item, tensors, ms);
        return json_flush(report->stream, err);
    }
    json_t *line = start_json(item);
    if (report->classes)
        json_object_set_new(line, "top", top_json(report, found));
    else
        json_object_set_new(line, "outputs", outputs_json(report, tensors));
    if (report->options.time)
        json_object_set_new(line, "ms", json_number(round(ms * 1000) / 1000));
    return json_write_line(line, report->stream, err);
}

/* The place in the files of a frame that has no result. */
static int fill_place(struct report *report, struct err *err) {
    if (!report->writers || report->count == 0 || report->options.form == NPY_SINGLE)
        return 0;
    if (report->writers[0])
        return add_missing(report, err);
    report->missing++;
    return 0;
}

int report_failure(struct report *report, const struct feed_item *item, const char *sentence,
                   struct err *err) {
    fprintf(stderr, "convoyctl: frame %llu: %s\n", (unsigned long long)item->number, sentence);
    int rc = fill_place(report, err);
    if (rc != 0 || !report->options.json)
        return rc;
    json_t *line = start_json(item);
    json_object_set_new(line, "error", json_text(sentence));
    return json_write_line(line, report->stream, err);
}

int report_dropped(struct report *report, const struct feed_item *item, struct err *err) {
    int rc = fill_place(report, err);
    if (rc != 0 || !report->options.json || report->options.quiet)
        return rc;
    json_t *line = start_json(item);
    json_object_set_new(line, "dropped", json_true());
    return json_write_line(line, report->stream, err);
}

int report_finish(struct report *report, struct err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && report->writers && i < report->count; i++)
        if (report->writers[i])
            rc = npy_writer_finish(report->writers[i], err);
    return rc;
}
