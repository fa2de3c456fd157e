/* Values for JSON, by jansson. Any thread. */
#ifndef CONVOY_BASE_JSON_H
#define CONVOY_BASE_JSON_H

#include <jansson.h>

/* A string of any bytes: what is no UTF-8 becomes '?'. NULL when there is no memory. */
json_t *json_text(const char *text);

/* A number; null when it is not finite. */
json_t *json_number(double value);

#endif
