/* Text in aligned columns, and numbers as people read them. */
#ifndef CONVOY_CTL_TABLE_H
#define CONVOY_CTL_TABLE_H

#include <stdint.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 24

struct table;

/* columns: headings, NULL-terminated, borrowed for the table's life; one that starts with '>' is
 * aligned to the right (the sign is not printed). NULL when there is no memory. */
struct table *table_new(const char *const *columns);
void table_free(struct table *table);

/* Appends a cell to the row under way; the row ends with its last column. Formatting errors and
 * lack of memory show in table_print(). */
void table_cell(struct table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Ends a row early; the missing cells are empty. */
void table_end_row(struct table *table);

/* Prints headings and rows, two spaces between columns, widths counted in characters of UTF-8. 0,
 * or -ENOMEM when a cell is missing. */
int table_print(const struct table *table, FILE *out);

/* "1.24 M", "18.6 k", "512"; "4.7 MB" (powers of 1000). Return buf. */
const char *format_count(double count, char *buf, size_t size);
const char *format_bytes(double bytes, char *buf, size_t size);

/* "2 h 05 min", "3 min 09 s", "12.5 s". Returns buf. */
const char *format_seconds(double seconds, char *buf, size_t size);

#endif
