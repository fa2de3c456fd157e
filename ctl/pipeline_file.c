#include "ctl/pipeline_file.h"

#include "config/config.h"
#include "config/tree.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A text as YAML reads it back: plain where that is safe everywhere, else in double quotes. */
static void put_text(FILE *out, const char *text) {
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.-";
    static const char start[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/";
    struct tree_node node = {.kind = TREE_TEXT, .plain = true, .text = text};
    if (text[strspn(text, safe)] == '\0' && strchr(start, text[0]) && !tree_is_null(&node)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fputc('\\', out);
        fputc(*c, out);
    }
    fputc('"', out);
}

/* "node: NAME, address: HOST:PORT". An address has a colon, which is plain text inside a word. */
static void put_device(FILE *out, const struct pipeline_stage *device) {
    const char *quote = strchr(device->address, '[') ? "\"" : "";
    fputs("node: ", out);
    put_text(out, device->node);
    fprintf(out, ", address: %s%s%s", quote, device->address, quote);
}

static void put_pipeline(FILE *out, const struct pipeline_stage *stages, size_t count) {
    fputs("pipeline:\n", out);
    for (size_t i = 0, next; i < count; i = next) {
        const char *until = stages[i].until;
        for (next = i + 1; next < count && stages[next].shares;)
            next++;
        bool is_shared = next > i + 1;
        fputs(is_shared ? "  - replicas:\n" : "  - {", out);
        for (size_t k = i; is_shared && k < next; k++) {
            fputs("      - {", out);
            put_device(out, &stages[k]);
            fputs("}\n", out);
        }
        if (!is_shared)
            put_device(out, &stages[i]);
        if (until) {
            fputs(is_shared ? "    until: " : ", until: ", out);
            put_text(out, until);
        }
        fputs(!is_shared ? "}\n" : until ? "\n" : "", out);
    }
}

/* The start of line number `line`, from 1; the end of the text where there are fewer. */
static const char *line_start(const char *text, int line) {
    for (; line > 1 && *text; line--) {
        const char *end = strchr(text, '\n');
        text = end ? end + 1 : text + strlen(text);
    }
    return text;
}

static bool is_blank_or_comment(const char *line) {
    line += strspn(line, " \t\r");
    return *line == '#' || *line == '\n' || *line == '\0';
}

/* Comments before the next key, or the end, belong to what follows. Returns the line, from 1, up to
 * which the lines of the value go. */
static int value_end(const char *text, int first, int next) {
    while (next > first + 1 && is_blank_or_comment(line_start(text, next - 1)))
        next--;
    return next;
}

static int count_lines(const char *text) {
    int lines = 1;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* Where the old pipeline stands: lines [*ret_first, *ret_next), or both behind the end. */
static int find_pipeline(const struct tree *tree, const char *text, const char *name,
                         int *ret_first, int *ret_next, struct err *err) {
    const struct tree_node *root = tree->root;
    int end = count_lines(text) + 1, before = 0;
    *ret_first = *ret_next = end;
    if (!root)
        return 0;
    for (const struct tree_node *key = root->kind == TREE_MAP ? root->first : NULL; key;
         key = key->next->next) {
        if (key->line == before || key->column != root->first->column || key->column != 1)
            return err_set(err, -EINVAL,
                           "%s:%d:%d: its keys must stand at the start of lines of their own for a "
                           "pipeline to be put in",
                           name, key->line, key->column);
        before = key->line;
        if (strcmp(key->text, "pipeline") != 0)
            continue;
        const struct tree_node *next = key->next->next;
        *ret_first = key->line;
        *ret_next = value_end(text, key->line, next ? next->line : end);
    }
    return 0;
}

static int check_result(const char *text, const char *name, struct err *err) {
    struct config *config = NULL;
    int rc = config_parse(text, strlen(text), name, &config, err);
    config_free(config);
    return rc < 0 ? err_prefix(err, rc, "with this pipeline") : 0;
}

static void put_range(FILE *out, const char *from, const char *to) {
    if (to > from)
        fwrite(from, 1, (size_t)(to - from), out);
}

int pipeline_file_edit(const char *text, const char *name, const char *model,
                       const struct pipeline_stage *stages, size_t count, char **ret_text,
                       struct err *err) {
    struct tree tree = {.name = name};
    char *result = NULL;
    size_t size;
    int first, next;
    int rc = tree_parse(text, strlen(text), name, &tree, err);
    if (rc < 0)
        return rc;
    rc = find_pipeline(&tree, text, name, &first, &next, err);
    bool has_model = tree_find(tree.root, "model") != NULL;
    tree_fini(&tree);
    if (rc < 0)
        return rc;
    FILE *out = open_memstream(&result, &size);
    if (!out)
        return err_set(err, -ENOMEM, "out of memory");
    const char *old = line_start(text, first);
    put_range(out, text, old);
    if (old > text && old[-1] != '\n')
        fputc('\n', out);
    if (!has_model) {
        fputs("model: ", out);
        put_text(out, model);
        fputc('\n', out);
    }
    put_pipeline(out, stages, count);
    fputs(line_start(text, next), out);
    if (fclose(out) != 0)
        rc = err_set(err, -ENOMEM, "out of memory");
    else
        rc = check_result(result, name, err);
    if (rc < 0)
        free(result);
    else
        *ret_text = result;
    return rc;
}

static int write_text(const char *path, const char *text, mode_t mode, struct err *err) {
    char *beside;
    if (asprintf(&beside, "%s.%d", path, (int)getpid()) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    errno = 0;
    FILE *file = fopen(beside, "wbe");
    bool good = file && fputs(text, file) >= 0 && fchmod(fileno(file), mode) == 0;
    if (file)
        good = fclose(file) == 0 && good;
    good = good && rename(beside, path) == 0;
    int rc = good ? 0 : err_set(err, errno ? -errno : -EIO, "%s: %s", path, strerror(errno));
    if (!good && file)
        unlink(beside);
    free(beside);
    return rc;
}

int pipeline_file_write(const char *path, const char *model, const struct pipeline_stage *stages,
                        size_t count, struct err *err) {
    char whole[PATH_MAX], *text = NULL, *edited;
    struct stat st = {.st_mode = 0644};
    size_t size;
    bool there = stat(path, &st) == 0;
    int rc = there ? tree_read_file(path, CONFIG_FILE_MAX, &text, &size, err) : 0;
    if (rc < 0)
        return rc;
    rc = pipeline_file_edit(there ? text : "", path, realpath(model, whole) ? whole : model, stages,
                            count, &edited, err);
    free(text);
    if (rc < 0)
        return rc;
    rc = write_text(path, edited, st.st_mode & 0777, err);
    free(edited);
    return rc;
}
