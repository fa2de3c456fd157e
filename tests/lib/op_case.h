/* One operator at a time, written as text: what tests/lib/small_model.h says, and
 *
 *   given x f32 2,3 = 1,2,3,4,5,6     an input of the model with its numbers
 *   want y f32 2 = 6,15               an output of the model with the numbers it must have
 */
#ifndef CONVOY_TESTS_OP_CASE_H
#define CONVOY_TESTS_OP_CASE_H

/* Runs the model three times, with what is given as inputs, as constants, and the first as an input
 * and the rest as constants, and fails the test unless every output has the wanted type and shape,
 * and numbers within 1e-5 (relative, at least absolute). */
void op_case_check(int opset, const char *text);

/* The same, only with what is given as constants: for operators whose shapes depend on it. */
void op_case_check_constant(int opset, const char *text);

/* Opening or running the model fails with code and a sentence that contains words. */
void op_case_refuse(int opset, const char *text, int code, const char *words);

#endif
