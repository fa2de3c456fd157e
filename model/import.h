/* What import.c shares with graph.c, and its entrance for tests and the fuzzer. */
#ifndef CONVOY_MODEL_IMPORT_H
#define CONVOY_MODEL_IMPORT_H

#include "model/graph.h"

/* As graph_import(), from size bytes at data, which stay the caller's and must outlive the graph:
 * its constants point into them. External data is refused. The digest is that of the bytes. */
int graph_import_memory(const void *data, size_t size, struct graph **ret_graph, struct err *err);

/* Maps a file for reading until the graph is freed. A file that becomes shorter while it is mapped
 * kills the process that reads it (SIGBUS): replace models by rename, never in place. The errno of
 * opening it, -EBADMSG when it is empty or no file, -ENOMEM. (graph.c) */
int graph_map_file(struct graph *graph, const char *path, const uint8_t **ret_data,
                   size_t *ret_size, struct err *err);

#endif
