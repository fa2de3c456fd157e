/* Layers under the roofline: what `bench --layers` computes from times, bytes and the machine. */
#include "ctl/bench.h"

#include "ctl/json.h"
#include "ctl/table.h"

#include <errno.h>

double bench_layer_gflops(const struct bench_layer *layer) {
    return layer->ms > 0 ? 2e-6 * (double)layer->macs / layer->ms : 0;
}

double bench_layer_intensity(const struct bench_layer *layer) {
    return layer->bytes > 0 ? 2 * (double)layer->macs / (double)layer->bytes : 0;
}

double bench_layer_share(const struct machine *machine, const struct bench_layer *layer) {
    double bytes = (double)layer->bytes;
    if (layer->ms <= 0 || layer->bytes == 0)
        return 0;
    if (layer->macs == 0)
        return bytes / (layer->ms / 1000) / machine->bytes_per_second;
    return 1e9 * bench_layer_gflops(layer) / machine_roof(machine, 2 * (double)layer->macs, bytes);
}

const char *bench_layer_bound(const struct machine *machine, const struct bench_layer *layer) {
    double flops = 2 * (double)layer->macs;
    if (layer->bytes == 0)
        return NULL;
    return layer->macs > 0 &&
                   machine_roof(machine, flops, (double)layer->bytes) >= machine->peak_flops
               ? "compute"
               : "memory";
}

json_t *bench_layers_json(const struct bench_result *result) {
    json_t *list = json_array();
    for (size_t i = 0; i < result->layers_count; i++) {
        const struct bench_layer *layer = &result->layers[i];
        const char *bound = bench_layer_bound(&result->machine, layer);
        json_t *entry = json_object();
        json_object_set_new(entry, "index", json_integer((json_int_t)i));
        json_object_set_new(entry, "name", json_text(layer->name));
        json_object_set_new(entry, "op", json_text(layer->op));
        json_object_set_new(entry, "algorithm",
                            layer->algorithm ? json_text(layer->algorithm) : json_null());
        json_object_set_new(entry, "ms", json_number(layer->ms));
        json_object_set_new(entry, "macs", json_integer((json_int_t)layer->macs));
        json_object_set_new(entry, "gflops", json_number(bench_layer_gflops(layer)));
        json_object_set_new(entry, "bytes", json_integer((json_int_t)layer->bytes));
        json_object_set_new(entry, "intensity", json_number(bench_layer_intensity(layer)));
        json_object_set_new(
            entry, "share_of_peak",
            json_number(1e9 * bench_layer_gflops(layer) / result->machine.peak_flops));
        json_object_set_new(entry, "bound", bound ? json_text(bound) : json_null());
        json_object_set_new(entry, "share_of_roof",
                            json_number(bench_layer_share(&result->machine, layer)));
        json_array_append_new(list, entry);
    }
    return list;
}

json_t *bench_machine_json(const struct machine *machine) {
    json_t *object = json_object();
    json_object_set_new(object, "isa", json_text(machine->isa));
    json_object_set_new(object, "threads", json_integer(machine->threads));
    json_object_set_new(object, "peak_gflops", json_number(machine->peak_flops / 1e9));
    json_object_set_new(object, "gb_per_second", json_number(machine->bytes_per_second / 1e9));
    return object;
}

static void add_layer_row(struct table *table, const struct bench_result *result, size_t index,
                          double sum) {
    const struct bench_layer *layer = &result->layers[index];
    const char *bound = bench_layer_bound(&result->machine, layer);
    char text[32];
    table_cell(table, "%zu", index);
    table_cell(table, "%s", layer->name);
    table_cell(table, "%s", layer->op);
    table_cell(table, "%s", layer->algorithm ? layer->algorithm : "-");
    table_cell(table, "%.3f", layer->ms);
    table_cell(table, "%.1f %%", sum > 0 ? 100 * layer->ms / sum : 0.0);
    if (!bound) {
        table_end_row(table);
        return;
    }
    if (layer->macs) {
        table_cell(table, "%.1f", bench_layer_gflops(layer));
        table_cell(table, "%s", format_bytes((double)layer->bytes, text, sizeof(text)));
        table_cell(table, "%.1f", bench_layer_intensity(layer));
    } else {
        table_cell(table, "-");
        table_cell(table, "%s", format_bytes((double)layer->bytes, text, sizeof(text)));
        table_cell(table, "-");
    }
    table_cell(table, "%s", bound);
    table_cell(table, "%.0f %%", 100 * bench_layer_share(&result->machine, layer));
}

void bench_print_machine(const struct machine *machine) {
    printf("machine     %.1f GFLOP/s (%s), %.1f GB/s from memory, measured with %d thread%s\n",
           machine->peak_flops / 1e9, machine->isa, machine->bytes_per_second / 1e9,
           machine->threads, machine->threads == 1 ? "" : "s");
}

int bench_print_layers(const struct bench_result *result, struct err *err) {
    static const char *const columns[] = {">#",      "layer",    "operator", "algorithm",
                                          ">ms",     ">share",   ">GFLOP/s", ">moved",
                                          ">FLOP/B", "bound by", ">of roof", NULL};
    struct table *table = table_new(columns);
    double sum = 0;
    if (!table)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < result->layers_count; i++)
        sum += result->layers[i].ms;
    for (size_t i = 0; i < result->layers_count; i++)
        add_layer_row(table, result, i, sum);
    int rc = table_print(table, stdout);
    table_free(table);
    putchar('\n');
    return rc == 0 ? 0 : err_set(err, rc, "out of memory");
}
