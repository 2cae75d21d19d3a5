/* Routes as JSON, for the readers in tests/interop. */
#ifndef HILORA_TESTS_ROUTE_JSON_H
#define HILORA_TESTS_ROUTE_JSON_H

#include <stdio.h>

#include <hilora/hilora.h>

/* 17 digits; NaN and infinities as Python's json reads them. */
void hlt_put_number(FILE *out, double value);

/* The members of a route, each with a comma before it. */
void hlt_put_route(FILE *out, const hl_route *route);

#endif
