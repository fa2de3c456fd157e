/* Small ONNX files for tests, written as text:
 *
 *   input x f32 n,3,8,8               a word instead of a number is a symbolic dimension
 *   const w f32 4,3,3,3               numbers between -1 and 1 that depend on the name alone
 *   const s i64 2 = 1,-1              f16, f32, f64, i8 to i64, u8 to u64, bool
 *   node k f32 4                      the same numbers in a Constant node
 *   Conv conv1 x,w,- -> y | pads=[1,1,1,1] group=1 alpha=0.5 auto_pad=SAME_UPPER
 *   output y                          or with its type and shape: output y f16 4,6,6
 *
 * A node is: operator, name, inputs ("-" is absent), outputs, attributes: a number with a point is
 * a float, one without an integer, [..] a list, other words a string. Lines end with \n.
 */
#ifndef CONVOY_TESTS_SMALL_MODEL_H
#define CONVOY_TESTS_SMALL_MODEL_H

#include <stddef.h>

/* Writes the file; a text that is wrong fails the test. */
void small_model_write(const char *path, int opset, const char *text);

#endif
