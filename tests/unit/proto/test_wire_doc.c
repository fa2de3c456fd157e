/* Holds docs/wire.md to what the code does: its examples are decoded and encoded, and every
 * message, field, code and limit must stand there. */
#include "daemon/control/deploy.h"
#include "tests/lib/messages.h"

// cmocka.h needs these before it.
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *document;

static int read_document(void **state) {
    (void)state;
    FILE *file = fopen("docs/wire.md", "r");
    size_t size = 0, room = 1u << 20;
    document = calloc(1, room);
    if (file && document)
        size = fread(document, 1, room - 1, file);
    if (file)
        (void)fclose(file);
    return size > 0 ? 0 : -1;
}

static int drop_document(void **state) {
    (void)state;
    free(document);
    return 0;
}

/* ---- messages as text ------------------------------------------------------------------------ */

static void print(FILE *out, const ProtobufCMessage *message);

static void print_hex(FILE *out, const ProtobufCBinaryData *data) {
    for (size_t i = 0; i < data->len; i++)
        (void)fprintf(out, "%02x", data->data[i]);
}

/* One value, `name: value ` or `name { ... } `; nothing for a default that is not repeated. */
static void print_value(FILE *out, const ProtobufCFieldDescriptor *field, const void *where,
                        bool always) {
    uint64_t number = 0;
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        (void)fprintf(out, "%s { ", field->name);
        print(out, *(ProtobufCMessage *const *)where);
        (void)fprintf(out, "} ");
        return;
    case PROTOBUF_C_TYPE_STRING:
        if (always || **(char *const *)where)
            (void)fprintf(out, "%s: \"%s\" ", field->name, *(char *const *)where);
        return;
    case PROTOBUF_C_TYPE_BYTES:
        if (!always && ((const ProtobufCBinaryData *)where)->len == 0)
            return;
        (void)fprintf(out, "%s: ", field->name);
        print_hex(out, where);
        (void)fprintf(out, " ");
        return;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        number = *(const uint64_t *)where;
        break;
    default:
        number = *(const uint32_t *)where;
        break;
    }
    if (always || number != 0)
        (void)fprintf(out, "%s: %llu ", field->name, (unsigned long long)number);
}

static void print_repeated(FILE *out, const ProtobufCFieldDescriptor *field,
                           const ProtobufCMessage *message) {
    const char *array = *(char *const *)((const char *)message + field->offset);
    size_t count =
        *(const size_t *)(const void *)((const char *)message + field->quantifier_offset);
    size_t size = field->type == PROTOBUF_C_TYPE_BYTES   ? sizeof(ProtobufCBinaryData)
                  : field->type == PROTOBUF_C_TYPE_INT64 ? sizeof(int64_t)
                                                         : sizeof(void *);
    for (size_t i = 0; i < count; i++)
        print_value(out, field, array + i * size, true);
}

static void print(FILE *out, const ProtobufCMessage *message) {
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const char *where = (const char *)message + field->offset;
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
            *(const uint32_t *)(const void *)((const char *)message + field->quantifier_offset) !=
                field->id)
            continue;
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            print_repeated(out, field, message);
        else if (strcmp(field->name, "sizes") != 0)
            print_value(out, field, where, false);
    }
}

/* ---- examples -------------------------------------------------------------------------------- */

/* The bytes of a block: of each line, the pairs of digits before the first word that is none. */
static void read_hex(const char *block, const char *end, struct bytes *bytes) {
    bool in_bytes = true;
    while (block < end) {
        size_t word = strcspn(block, " \n");
        if (word > 0) {
            in_bytes = in_bytes && word == 2 && isxdigit((unsigned char)block[0]) &&
                       isxdigit((unsigned char)block[1]);
            if (in_bytes) {
                char digits[3] = {block[0], block[1], '\0'};
                bytes_add(bytes, &(uint8_t){(uint8_t)strtoul(digits, NULL, 16)}, 1);
            }
            block += word;
        } else if (*block++ == '\n') {
            in_bytes = true;
        }
    }
}

/* What the bytes say, and how message_pack() writes it. */
static void decode(const struct bytes *bytes, struct bytes *ours, char *text, size_t size) {
    struct sink sink;
    sink_init(&sink, MESSAGE_HEADER_MAX, MESSAGE_PAYLOAD_MAX);
    int rc = sink_feed(&sink, bytes->data, bytes->size, SIZE_MAX);
    if (rc != 0)
        fail_msg("%s", sink.err.text);
    assert_int_equal(sink.messages, 1);
    assert_false(reader_is_mid_message(sink.reader));
    Convoy__Message *message = convoy__message__unpack(NULL, sink.got.size - 5, sink.got.data + 5);
    assert_non_null(message);
    FILE *out = fmemopen(text, size, "w");
    assert_non_null(out);
    print(out, &message->base);
    (void)fclose(out);
    text[strlen(text) - 1] = '\n'; /* instead of the last blank */
    convoy__message__free_unpacked(message, NULL);
    bytes_add(ours, sink.got.data, sink.got.size);
    sink_fini(&sink);
}

static void every_example_says_what_stands_below_it(void **state) {
    (void)state;
    size_t examples = 0;
    struct bytes last = {0};
    for (const char *at = document; (at = strstr(at, "\n```hex")) != NULL;) {
        bool is_stock = strncmp(at, "\n```hex stock\n", 14) == 0;
        at = strchr(at + 1, '\n') + 1;
        const char *end = strstr(at, "\n```\n```text\n");
        assert_non_null(end);
        const char *text = end + strlen("\n```\n```text\n"), *text_end = strstr(text, "```\n");
        assert_non_null(text_end);

        struct bytes bytes = {0}, ours = {0};
        char decoded[2000] = {0};
        read_hex(at, end + 1, &bytes);
        decode(&bytes, &ours, decoded, sizeof(decoded) - 1);
        if (strlen(decoded) != (size_t)(text_end - text) ||
            memcmp(decoded, text, strlen(decoded)) != 0)
            fail_msg("example %zu says: %s", examples, decoded);
        /* Ours is written as it stands; a stock form is that of the example before. */
        const struct bytes *expected = is_stock ? &last : &bytes;
        assert_int_equal(ours.size, expected->size);
        assert_memory_equal(ours.data, expected->data, ours.size);
        free(last.data);
        free(ours.data);
        last = bytes;
        examples++;
        at = text_end;
    }
    free(last.data);
    assert_int_equal(examples, 10);
}

/* ---- completeness ---------------------------------------------------------------------------- */

/* Every field of the message is named, in backquotes, between from and to. */
static void expect_fields(const ProtobufCMessageDescriptor *descriptor, const char *from,
                          const char *to) {
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        char name[80];
        (void)snprintf(name, sizeof(name), "`%s`", descriptor->fields[i].name);
        const char *found = strstr(from, name);
        if (!found || found > to)
            fail_msg("%s.%s does not stand in its section", descriptor->name,
                     descriptor->fields[i].name);
    }
}

/* The same for a body and what lies in it, but for what has its place elsewhere: tensors, and the
 * stages of Apply, which are those of Prepare. */
static void expect_body(const ProtobufCMessageDescriptor *body, const char *from, const char *to) {
    expect_fields(body, from, to);
    for (unsigned i = 0; i < body->n_fields; i++)
        if (body->fields[i].type == PROTOBUF_C_TYPE_MESSAGE &&
            body->fields[i].descriptor != &convoy__tensor__descriptor &&
            body != &convoy__apply__descriptor)
            expect_body(body->fields[i].descriptor, from, to);
}

/* The section behind a heading. */
static const char *find_section(const char *heading, const char **ret_end) {
    char line[80];
    (void)snprintf(line, sizeof(line), "\n%s\n", heading);
    const char *section = strstr(document, line);
    if (!section)
        fail_msg("there is no section \"%s\"", heading);
    section += strlen(line);
    *ret_end = strstr(section, "\n##");
    assert_non_null(*ret_end);
    return section;
}

static void every_message_has_a_section_that_names_its_fields(void **state) {
    (void)state;
    const ProtobufCMessageDescriptor *messages = &convoy__message__descriptor;
    const char *section, *end;
    size_t bodies = 0;
    for (unsigned i = 0; i < messages->n_fields; i++) {
        if (messages->fields[i].type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        const ProtobufCMessageDescriptor *body = messages->fields[i].descriptor;
        char heading[80];
        (void)snprintf(heading, sizeof(heading), "### %s", body->short_name);
        section = find_section(heading, &end);
        expect_body(body, section, end);
        bodies++;
    }
    assert_int_equal(bodies, 23);
    section = find_section("## Tensors and payload", &end);
    expect_fields(&convoy__tensor__descriptor, section, end);
}

static void every_code_has_a_row(void **state) {
    (void)state;
    const char *end, *section = find_section("## Codes", &end);
    for (unsigned i = 0; i < convoy__code__descriptor.n_values; i++) {
        int code = convoy__code__descriptor.values[i].value;
        char row[80];
        (void)snprintf(row, sizeof(row), "\n| %d | `%s` |", code,
                       message_code_name((Convoy__Code)code));
        const char *found = strstr(section, row);
        if (!found || found > end)
            fail_msg("there is no row%s", row);
    }
}

static void every_limit_is_the_one_of_the_code(void **state) {
    (void)state;
    static const struct {
        const char *format;
        unsigned value;
    } limits[] = {
        {"\n| header | %u bytes;", MESSAGE_HEADER_MAX},
        {", never more than %u;", MESSAGE_PAYLOAD_MAX},
        {"\n| a string | %u bytes |", MESSAGE_NAME_MAX},
        {"\n| tensors in a message | %u |", MESSAGE_TENSORS_MAX},
        {"\n| dimensions of a tensor | %u |", TENSOR_MAX_RANK},
        {"\n| payload of a PartChunk | %u bytes", DEPLOY_CHUNK},
        {"\n| stages of a plan that is handed out | %u |", DEPLOY_STAGES_MAX},
        {"`version` in Hello and Welcome is %u.", MESSAGE_VERSION},
        {"rounded up to a multiple of %u;", TENSOR_ALIGN},
        {"the first %u bytes", MESSAGE_PREFIX},
    };
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        char text[100];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void)snprintf(text, sizeof(text), limits[i].format, limits[i].value);
#pragma GCC diagnostic pop
        if (!strstr(document, text))
            fail_msg("\"%s\" does not stand there", text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_example_says_what_stands_below_it),
        cmocka_unit_test(every_message_has_a_section_that_names_its_fields),
        cmocka_unit_test(every_code_has_a_row),
        cmocka_unit_test(every_limit_is_the_one_of_the_code),
    };
    return cmocka_run_group_tests(tests, read_document, drop_document);
}
