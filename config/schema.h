/* What keys a map may have: one table per map, from which values, defaults, errors and suggestions
 * derive. The tests hold the man pages against the same tables. */
#ifndef CONVOY_CONFIG_SCHEMA_H
#define CONVOY_CONFIG_SCHEMA_H

#include "base/err.h"
#include "config/dim.h"
#include "config/tree.h"

#include <stddef.h>
#include <stdint.h>

#define SCHEMA_KEYS_MAX 32 /* in one map */

/* The file that is being read. */
struct schema_file {
    const struct tree *tree;
    struct err *err;
};

struct schema_key;

/* Reads value into field, which lies key->offset bytes into the object of schema_read_map() and is
 * zero before. Memory that a field points to is the object's, also after an error. */
typedef int schema_read(const struct schema_file *file, const struct schema_key *key,
                        const struct tree_node *value, void *field);

struct schema_word {
    const char *word;
    int value;
};

struct schema_key {
    const char *name;
    schema_read *read;
    size_t offset;
    int64_t min, max;     /* of a number, of the bytes of a text, of the port of an address */
    const char *fallback; /* the default as one would write it; NULL: the field stays zero */
    const char *computed; /* the default in words, where the owner of the table computes it */
    bool required;
    const struct schema_word *words; /* for schema_read_word(), up to a NULL word */
};

/* Reads a map by its table; what names the map in messages ("'pipeline' stage 2"). map may be NULL
 * or null: then every key has its default. Refuses unknown keys, keys that stand twice, wrong kinds
 * and ranges. 0, -EINVAL with a sentence, or -ENOMEM. */
int schema_read_map(const struct schema_file *file, const struct schema_key *keys, size_t count,
                    const struct tree_node *map, const char *what, void *object);

/* The readers, by the type of field. A map or a list where a text is due is an error. */
schema_read schema_read_text;  /* char *: min .. max bytes without control characters */
schema_read schema_read_name;  /* char *: the same, and without spaces */
schema_read schema_read_path;  /* char *: relative to the folder of the file */
schema_read schema_read_bool;  /* bool: true, false, yes, no, on, off */
schema_read schema_read_int;   /* int */
schema_read schema_read_u64;   /* uint64_t */
schema_read schema_read_bytes; /* uint32_t: a number, with KiB, MiB or GiB if need be */
schema_read schema_read_size;  /* uint64_t: the same */
schema_read schema_read_word;  /* int (an enum of that size): one of key->words */

/* A number such as 0.5, 1e-3 or 1/255. 0, or -EINVAL with a sentence. */
int schema_read_number(const struct schema_file *file, const struct schema_key *key,
                       const struct tree_node *value, double *ret_number);

/* A map of names to sizes. The array and its names are the caller's, also after an error. */
int schema_read_dims(const struct schema_file *file, const struct schema_key *key,
                     const struct tree_node *value, struct config_dim **dims, size_t *count);
void schema_free_dims(struct config_dim *dims, size_t count);

/* "'KEY' must be WHAT, not VALUE" at value; returns -EINVAL. */
int schema_mismatch(const struct schema_file *file, const struct schema_key *key,
                    const struct tree_node *value, const char *what);

/* Sets "FILE: no memory" and returns -ENOMEM. */
int schema_no_memory(const struct schema_file *file);

#endif
