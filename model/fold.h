/* Constants made on demand. A value with constant != NULL is known at load: an initializer, or
 * what nodes with constant inputs alone compute (infer.c marks those: desc is filled in, data is
 * NULL). Their numbers are computed when somebody asks, by the operators' own run functions, and
 * kept while they are small.
 */
#ifndef CONVOY_MODEL_FOLD_H
#define CONVOY_MODEL_FOLD_H

#include "base/err.h"
#include "model/graph.h"

struct fold;
struct net_node;

/* nodes: what infer.c knows of each node, by index; outlives the fold. NULL: no memory. */
struct fold *fold_new(struct graph *graph, struct net_node *nodes);
void fold_free(struct fold *fold);

/* One thread at a time may use a fold: take the lock around everything below, except while the
 * model is being opened. */
void fold_lock(struct fold *fold);
void fold_unlock(struct fold *fold);

/* Marks a value as constant, its numbers not yet computed. -ENOMEM. */
int fold_mark(struct fold *fold, struct value *value);

/* The numbers of a constant value. Borrowed; large computed ones live until fold_drop(). */
int fold_numbers(struct fold *fold, struct value *value, const struct constant **ret,
                 struct err *err);

/* Frees large computed numbers; they are computed again when asked for. */
void fold_drop(struct fold *fold);

/* The model is open: drops as well, and layers' weights may now be computed: at a time 512 MiB and
 * a few times what the model's own constants have, but on the way to one constant not much more
 * than it has itself. Before it, no more than what shapes need is: -ENOTSUP. Called once. */
void fold_loaded(struct fold *fold);

#endif
