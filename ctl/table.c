#include "ctl/table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>

struct table {
    const char *const *headings;
    size_t columns;
    char **cells; /* [rows][columns], the last row maybe incomplete */
    size_t count, capacity;
    bool failed;
};

struct table *table_new(const char *const *columns) {
    struct table *table = calloc(1, sizeof(*table));
    if (!table)
        return NULL;
    table->headings = columns;
    while (columns[table->columns] && table->columns < TABLE_COLUMNS_MAX)
        table->columns++;
    return table;
}

void table_free(struct table *table) {
    if (!table)
        return;
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}

void table_cell(struct table *table, const char *fmt, ...) {
    if (table->count == table->capacity) {
        size_t more = table->capacity ? 2 * table->capacity : 64;
        char **cells = reallocarray(table->cells, more, sizeof(*cells));
        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->capacity = more;
    }
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0) {
        table->failed = true;
        text = NULL;
    }
    va_end(args);
    table->cells[table->count++] = text;
}

void table_end_row(struct table *table) {
    while (!table->failed && table->count % table->columns != 0)
        table_cell(table, "%s", "");
}

static size_t text_width(const char *text) {
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80; /* not the tail of a UTF-8 character */
    return width;
}

static const char *cell_text(const struct table *table, size_t i) {
    return i < table->count && table->cells[i] ? table->cells[i] : "";
}

static void print_padding(size_t count, FILE *out) {
    for (; count > 0; count--)
        fputc(' ', out);
}

/* One row: cells from first on, or the headings when headings is set. */
static void print_row(const struct table *table, size_t first, bool headings, const size_t *widths,
                      FILE *out) {
    size_t pending = 0; /* spaces are held back so that no line ends in them */
    for (size_t c = 0; c < table->columns; c++) {
        bool right = table->headings[c][0] == '>';
        const char *text = headings ? table->headings[c] + right : cell_text(table, first + c);
        size_t width = text_width(text);
        if (width == 0) {
            pending += widths[c] + 2;
            continue;
        }
        print_padding(pending + (right ? widths[c] - width : 0), out);
        fputs(text, out);
        pending = 2 + (right ? 0 : widths[c] - width);
    }
    fputc('\n', out);
}

int table_print(const struct table *table, FILE *out) {
    size_t widths[TABLE_COLUMNS_MAX];
    for (size_t c = 0; c < table->columns; c++) {
        widths[c] = text_width(table->headings[c] + (table->headings[c][0] == '>'));
        for (size_t i = c; i < table->count; i += table->columns) {
            size_t width = text_width(cell_text(table, i));
            if (width > widths[c])
                widths[c] = width;
        }
    }
    print_row(table, 0, true, widths, out);
    for (size_t i = 0; i < table->count; i += table->columns)
        print_row(table, i, false, widths, out);
    return table->failed ? -ENOMEM : 0;
}

static const char *format_scaled(double value, const char *unit, char *buf, size_t size) {
    static const char *const prefixes[] = {"", "k", "M", "G", "T", "P"};
    size_t p = 0;
    while (value >= 999.5 && p + 1 < sizeof(prefixes) / sizeof(prefixes[0])) {
        value /= 1000;
        p++;
    }
    int digits = p == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    const char *space = prefixes[p][0] || unit[0] ? " " : "";
    snprintf(buf, size, "%.*f%s%s%s", digits, value, space, prefixes[p], unit);
    return buf;
}

const char *format_count(double count, char *buf, size_t size) {
    return format_scaled(count, "", buf, size);
}

const char *format_bytes(double bytes, char *buf, size_t size) {
    return format_scaled(bytes, "B", buf, size);
}

const char *format_seconds(double seconds, char *buf, size_t size) {
    long long whole = (long long)(seconds + 0.5);
    if (seconds < 60)
        snprintf(buf, size, "%.1f s", seconds);
    else if (whole < 3600)
        snprintf(buf, size, "%lld min %02lld s", whole / 60, whole % 60);
    else
        snprintf(buf, size, "%lld h %02lld min", whole / 3600, whole / 60 % 60);
    return buf;
}
