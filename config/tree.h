/* A small, bounded YAML document as a tree of nodes that know their place, for the two parsers of
 * this folder. Reads YAML 1.1 without what a configuration has no use for: anchors, aliases and
 * tags (and with them every way to make a small file large), several documents, lists as keys. */
#ifndef CONVOY_CONFIG_TREE_H
#define CONVOY_CONFIG_TREE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define TREE_DEPTH_MAX 8          /* lists and maps inside each other */
#define TREE_NODES_MAX (1u << 17) /* in one document */

enum tree_kind { TREE_TEXT, TREE_LIST, TREE_MAP };

struct tree_node {
    enum tree_kind kind;
    int line, column;        /* of its first character, from 1 */
    bool plain;              /* a text without quotes: may mean null */
    const char *text;        /* of a text: UTF-8 without NUL; NULL otherwise */
    struct tree_node *first; /* of a list: its items; of a map: key, value, key, value, ... */
    struct tree_node *next;  /* the next child of the same parent */
};

struct tree {
    const char *name;       /* of the file, borrowed from the caller of tree_parse() */
    struct tree_node *root; /* NULL: an empty document */
};

/* Reads at most max bytes of path (a file, a pipe). The text is the caller's to free() and has a
 * NUL behind its end. The errno of opening and reading it, -EFBIG, -ENOMEM, with a sentence. */
int tree_read_file(const char *path, size_t max, char **ret_text, size_t *ret_size,
                   struct err *err);

/* Bytes of the byte order mark that text starts with: 3 or 0. It is no character and no column. */
size_t tree_bom_length(const char *text, size_t size);

/* Checks that text is UTF-8 without control characters other than tabs and line ends. -EINVAL with
 * a sentence that names the place in name. */
int tree_check_text(const char *text, size_t size, const char *name, struct err *err);

/* Parses one document; the tree is the caller's, text may go. -EFBIG above CONFIG_FILE_MAX bytes,
 * -EINVAL with a sentence, -ENOMEM. */
int tree_parse(const char *text, size_t size, const char *name, struct tree *ret_tree,
               struct err *err);
void tree_fini(struct tree *tree);

/* The key of that name in a map, whose ->next is its value, or NULL (also when map is NULL).
 * Borrowed. */
const struct tree_node *tree_find(const struct tree_node *map, const char *key);

/* True for what YAML writes for "nothing": an empty plain text, ~ or null; and for NULL. */
bool tree_is_null(const struct tree_node *node);

/* The node as a message quotes it: 'text', shortened where long, with control characters as '?', or
 * "a list", "a map", "nothing". Written into buf, which is returned. */
const char *tree_show(const struct tree_node *node, char *buf, size_t size);

/* Sets "FILE:LINE:COLUMN: sentence" and returns -EINVAL. node NULL: an empty file's, 1:1. */
int tree_error(const struct tree *tree, const struct tree_node *node, struct err *err,
               const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
