#include "config/tree.h"

#include "config/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

#define SHOW_MAX 60 /* bytes of a text that a message quotes */

/* ---- reading a file ----------------------------------------------------------------------------
 */

/* Reads until the end or until size bytes are there. Returns the count or -errno. */
static ssize_t read_all(int fd, char *buf, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, buf + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int tree_read_file(const char *path, size_t max, char **ret_text, size_t *ret_size,
                   struct err *err) {
    int rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        rc = -errno;
        return err_set(err, rc, "%s: %s", path, strerror(-rc));
    }
    /* One byte beyond the limit tells a file that is too large; another is for the NUL. */
    char *text = malloc(max + 2);
    if (!text) {
        rc = err_set(err, -ENOMEM, "%s: no memory", path);
        goto fail;
    }
    ssize_t size = read_all(fd, text, max + 1);
    if (size < 0) {
        rc = err_set(err, (int)size, "%s: %s", path, strerror((int)-size));
        goto fail;
    }
    if ((size_t)size > max) {
        rc = err_set(err, -EFBIG, "%s: larger than the %zu bytes that such a file may have", path,
                     max);
        goto fail;
    }
    text[size] = '\0';
    close(fd);
    *ret_text = text;
    *ret_size = (size_t)size;
    return 0;
fail:
    free(text);
    close(fd);
    return rc;
}

/* ---- characters --------------------------------------------------------------------------------
 */

/* Decodes the UTF-8 sequence at s (of at most size bytes). Returns its length, or 0 when it is
 * none: truncated, overlong, a surrogate or beyond U+10FFFF. */
static size_t utf8_decode(const unsigned char *s, size_t size, uint32_t *ret_code) {
    static const struct {
        unsigned char mask, lead;
        uint32_t lowest;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t n = 0; n < sizeof(forms) / sizeof(*forms); n++) {
        if ((s[0] & forms[n].mask) != forms[n].lead)
            continue;
        if (n >= size)
            return 0;
        uint32_t code = s[0] & (unsigned char)~forms[n].mask;
        for (size_t i = 1; i <= n; i++) {
            if ((s[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (s[i] & 0x3f);
        }
        if (code < forms[n].lowest || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return 0;
        *ret_code = code;
        return n + 1;
    }
    return 0;
}

/* What YAML calls printable (1.1, section 5.1), without the line ends that only YAML takes for such
 * (U+0085, U+2028, U+2029), and with U+FEFF only as a byte order mark. */
static bool is_printable(uint32_t code) {
    if (code < 0x20)
        return code == '\t' || code == '\n' || code == '\r';
    if ((code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029)
        return false;
    return code != 0xfeff && code != 0xfffe && code != 0xffff;
}

int tree_check_text(const char *text, size_t size, const char *name, struct err *err) {
    const unsigned char *s = (const unsigned char *)text;
    int line = 1, column = 1;
    for (size_t i = tree_bom_length(text, size); i < size; column++) {
        uint32_t code;
        size_t n = utf8_decode(s + i, size - i, &code);
        if (n == 0)
            return err_set(err, -EINVAL, "%s:%d:%d: not UTF-8 text (byte 0x%02x)", name, line,
                           column, s[i]);
        if (code == 0)
            return err_set(err, -EINVAL, "%s:%d:%d: a NUL character: this is not a text file", name,
                           line, column);
        if (!is_printable(code))
            return err_set(err, -EINVAL, "%s:%d:%d: a control character (U+%04X)", name, line,
                           column, code);
        if (code == '\n') {
            line++;
            column = 0;
        }
        i += n;
    }
    return 0;
}

size_t tree_bom_length(const char *text, size_t size) {
    return size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

/* ---- building the tree -------------------------------------------------------------------------
 */

struct builder {
    yaml_parser_t parser;
    const char *name;
    const char *text; /* all of it, to see which character libyaml stumbled over */
    size_t size;
    size_t nodes;
    struct err *err;
};

static int fail_at(struct builder *builder, yaml_mark_t mark, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int fail_at(struct builder *builder, yaml_mark_t mark, const char *fmt, ...) {
    char sentence[sizeof(builder->err->text)];
    va_list args;
    va_start(args, fmt);
    vsnprintf(sentence, sizeof(sentence), fmt, args);
    va_end(args);
    return err_set(builder->err, -EINVAL, "%s:%zu:%zu: %s", builder->name, mark.line + 1,
                   mark.column + 1, sentence);
}

/* A line (from 0) of the text, with its length; empty behind the end. */
static const char *find_line(const struct builder *builder, size_t line, size_t *ret_length) {
    const char *s = builder->text, *end = s + builder->size;
    const char *newline;
    while ((newline = memchr(s, '\n', (size_t)(end - s))) && line > 0) {
        s = newline + 1;
        line--;
    }
    *ret_length = line > 0 ? 0 : (size_t)((newline ? newline : end) - s);
    return s;
}

/* What people get wrong most, told from the line where libyaml stopped; NULL when it is neither. */
static const char *guess_remedy(const struct builder *builder, size_t line) {
    size_t length, indent = 0;
    const char *s = find_line(builder, line, &length);
    while (indent < length && s[indent] == ' ')
        indent++;
    if (indent < length && s[indent] == '\t')
        return "a tab at the start of the line: YAML is indented with spaces";
    const char *bracket = memchr(s, '[', length);
    size_t rest = bracket ? length - (size_t)(bracket - s) : 0;
    if (rest && memmem(bracket, rest, "::", 2) && memmem(bracket, rest, "]:", 2))
        return "an IPv6 address must stand in quotes, such as \"[::1]:7433\"";
    return NULL;
}

/* libyaml's words for what people see most, and ours. */
static const struct {
    const char *problem, *words;
} problems[] = {
    {"mapping values are not allowed in this context",
     "a ':' where no key can stand: check the indentation, or put the text in quotes"},
    {"did not find expected key",
     "no 'key: value' where one is due: check the indentation and the quotes"},
    {"did not find expected <document start>",
     "this line belongs to nothing above it: check the indentation"},
    {"could not find expected ':'", "a key without a ':' behind it"},
    {"found character that cannot start any token",
     "a text that starts with this character must stand in quotes"},
};

static int fail_parser(struct builder *builder) {
    const yaml_parser_t *parser = &builder->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return err_set(builder->err, -ENOMEM, "%s: no memory", builder->name);
    const char *problem = parser->problem ? parser->problem : "it cannot be read";
    const char *remedy = guess_remedy(builder, parser->problem_mark.line);
    if (remedy)
        return fail_at(builder, parser->problem_mark, "%s", remedy);
    for (size_t i = 0; i < sizeof(problems) / sizeof(*problems); i++) {
        if (strcmp(problem, problems[i].problem) == 0)
            problem = problems[i].words;
    }
    if (parser->context && parser->context_mark.line != parser->problem_mark.line)
        return fail_at(builder, parser->problem_mark,
                       "not valid YAML: %s (%s that began in line %zu)", problem, parser->context,
                       parser->context_mark.line + 1);
    return fail_at(builder, parser->problem_mark, "not valid YAML: %s", problem);
}

static int next_event(struct builder *builder, yaml_event_t *event) {
    return yaml_parser_parse(&builder->parser, event) ? 0 : fail_parser(builder);
}

/* Refuses what makes YAML more than text, lists and maps. */
static int check_event(struct builder *builder, const yaml_event_t *event) {
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return fail_at(
            builder, event->start_mark,
            "'*%.*s' is an alias, which is not supported: write the value out, or put it "
            "in quotes",
            SHOW_MAX, (const char *)event->data.alias.anchor);
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor)
        return fail_at(builder, event->start_mark,
                       "'&%.*s' is an anchor, which is not supported: remove it", SHOW_MAX,
                       (const char *)anchor);
    if (tag)
        return fail_at(builder, event->start_mark,
                       "'%.*s' is a tag, which is not supported: remove it", SHOW_MAX,
                       (const char *)tag);
    return 0;
}

static int new_node(struct builder *builder, const yaml_event_t *event, enum tree_kind kind,
                    struct tree_node **ret_node) {
    if (++builder->nodes > TREE_NODES_MAX)
        return fail_at(builder, event->start_mark, "more than %u values in one file",
                       TREE_NODES_MAX);
    bool is_text = kind == TREE_TEXT;
    size_t length = is_text ? event->data.scalar.length : 0;
    const void *bytes = is_text ? (const void *)event->data.scalar.value : "";
    if (memchr(bytes, '\0', length))
        return fail_at(builder, event->start_mark, "a NUL character inside a text");
    struct tree_node *node = calloc(1, sizeof(*node) + length + 1);
    if (!node)
        return err_set(builder->err, -ENOMEM, "%s: no memory", builder->name);
    node->kind = kind;
    node->line = (int)event->start_mark.line + 1;
    node->column = (int)event->start_mark.column + 1;
    if (is_text) {
        node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        node->text = memcpy(node + 1, bytes, length);
    }
    *ret_node = node;
    return 0;
}

/* Recursive, but never deeper than TREE_DEPTH_MAX. */
static void free_nodes(struct tree_node *node) {
    while (node) {
        struct tree_node *next = node->next;
        free_nodes(node->first);
        free(node);
        node = next;
    }
}

static int build_children(struct builder *builder, struct tree_node *parent, int depth);

/* Turns event, and the events that belong to it, into *ret_node, which is the caller's to free also
 * after an error. Takes event. */
static int build_node(struct builder *builder, yaml_event_t *event, int depth,
                      struct tree_node **ret_node) {
    int rc = check_event(builder, event);
    enum tree_kind kind = event->type == YAML_SCALAR_EVENT           ? TREE_TEXT
                          : event->type == YAML_SEQUENCE_START_EVENT ? TREE_LIST
                                                                     : TREE_MAP;
    if (rc == 0 && kind != TREE_TEXT && depth >= TREE_DEPTH_MAX)
        rc =
            fail_at(builder, event->start_mark, "lists and maps more than %d deep", TREE_DEPTH_MAX);
    if (rc == 0)
        rc = new_node(builder, event, kind, ret_node);
    yaml_event_delete(event);
    if (rc == 0 && kind != TREE_TEXT)
        rc = build_children(builder, *ret_node, depth + 1);
    return rc;
}

static int build_children(struct builder *builder, struct tree_node *parent, int depth) {
    struct tree_node **end = &parent->first;
    yaml_event_t event;
    for (;;) {
        int rc = next_event(builder, &event);
        if (rc < 0)
            return rc;
        if (event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        rc = build_node(builder, &event, depth, end);
        if (rc < 0)
            return rc;
        end = &(*end)->next;
    }
}

/* Takes an event of which only type and place matter. */
static int skip_event(struct builder *builder, yaml_event_type_t *ret_type, yaml_mark_t *ret_mark) {
    yaml_event_t event;
    int rc = next_event(builder, &event);
    if (rc < 0)
        return rc;
    *ret_type = event.type;
    *ret_mark = event.start_mark;
    yaml_event_delete(&event);
    return 0;
}

/* Reads the stream: nothing, or one document. *ret_root is the caller's to free also after an
 * error. */
static int build_document(struct builder *builder, struct tree_node **ret_root) {
    yaml_event_t event;
    yaml_event_type_t type;
    yaml_mark_t mark;
    int rc = skip_event(builder, &type, &mark); /* start of the stream */
    if (rc == 0)
        rc = skip_event(builder, &type, &mark); /* its end, or start of the document */
    if (rc < 0 || type == YAML_STREAM_END_EVENT)
        return rc;
    rc = next_event(builder, &event);
    if (rc == 0)
        rc = build_node(builder, &event, 0, ret_root);
    if (rc == 0)
        rc = skip_event(builder, &type, &mark); /* end of the document */
    if (rc == 0)
        rc = skip_event(builder, &type, &mark);
    if (rc == 0 && type != YAML_STREAM_END_EVENT)
        rc = fail_at(builder, mark, "a second document ('---'): the file may hold one");
    return rc;
}

/* Directives only serve tags, which are refused anyway, and libyaml takes quadratic time for them.
 */
static int check_directives(struct builder *builder) {
    yaml_mark_t mark = {0};
    char before = '\n';
    for (size_t i = 0; i < builder->size; i++) {
        if (builder->text[i] == '%' && (before == '\n' || before == '\r'))
            return fail_at(builder, mark, "a line that starts with '%%', which is not supported");
        before = builder->text[i];
        mark.line += before == '\n';
    }
    return 0;
}

int tree_parse(const char *text, size_t size, const char *name, struct tree *ret_tree,
               struct err *err) {
    if (size > CONFIG_FILE_MAX)
        return err_set(err, -EFBIG, "%s: larger than the %u bytes that such a file may have", name,
                       CONFIG_FILE_MAX);
    int rc = tree_check_text(text, size, name, err);
    if (rc < 0)
        return rc;
    size_t bom = tree_bom_length(text, size);
    text += bom;
    size -= bom;
    struct builder builder = {.name = name, .text = text, .size = size, .err = err};
    rc = check_directives(&builder);
    if (rc < 0)
        return rc;
    if (!yaml_parser_initialize(&builder.parser))
        return err_set(err, -ENOMEM, "%s: no memory", name);
    yaml_parser_set_encoding(&builder.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&builder.parser, (const unsigned char *)text, size);
    struct tree_node *root = NULL;
    rc = build_document(&builder, &root);
    yaml_parser_delete(&builder.parser);
    if (rc < 0) {
        free_nodes(root);
        return rc;
    }
    *ret_tree = (struct tree){.name = name, .root = root};
    return 0;
}

void tree_fini(struct tree *tree) {
    free_nodes(tree->root);
    tree->root = NULL;
}

/* ---- looking at it -----------------------------------------------------------------------------
 */

const struct tree_node *tree_find(const struct tree_node *map, const char *key) {
    if (!map || map->kind != TREE_MAP)
        return NULL;
    for (const struct tree_node *node = map->first; node; node = node->next->next) {
        if (node->text && strcmp(node->text, key) == 0)
            return node;
    }
    return NULL;
}

bool tree_is_null(const struct tree_node *node) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    if (!node)
        return true;
    if (node->kind != TREE_TEXT || !node->plain)
        return false;
    for (size_t i = 0; i < sizeof(nulls) / sizeof(*nulls); i++) {
        if (strcmp(node->text, nulls[i]) == 0)
            return true;
    }
    return false;
}

/* Appends text in quotes, cut between characters. */
static void show_text(const char *text, char *buf, size_t size) {
    size_t length = strlen(text), shown = length;
    if (length > SHOW_MAX) {
        shown = SHOW_MAX;
        while (((unsigned char)text[shown] & 0xc0) == 0x80)
            shown--;
    }
    snprintf(buf, size, "'%.*s%s'", (int)shown, text, shown < length ? "..." : "");
    for (char *c = buf; *c; c++) {
        if (iscntrl((unsigned char)*c))
            *c = '?';
    }
}

const char *tree_show(const struct tree_node *node, char *buf, size_t size) {
    if (tree_is_null(node))
        snprintf(buf, size, "nothing");
    else if (node->kind == TREE_TEXT)
        show_text(node->text, buf, size);
    else
        snprintf(buf, size, "%s", node->kind == TREE_LIST ? "a list" : "a map");
    return buf;
}

int tree_error(const struct tree *tree, const struct tree_node *node, struct err *err,
               const char *fmt, ...) {
    char sentence[sizeof(err->text)];
    va_list args;
    va_start(args, fmt);
    vsnprintf(sentence, sizeof(sentence), fmt, args);
    va_end(args);
    return err_set(err, -EINVAL, "%s:%d:%d: %s", tree->name, node ? node->line : 1,
                   node ? node->column : 1, sentence);
}
