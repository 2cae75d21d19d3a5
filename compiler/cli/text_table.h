/* Text for people: untrusted names made printable and cut to a width, and sizes in bytes. */
#ifndef HILORA_CLI_TEXT_TABLE_H
#define HILORA_CLI_TEXT_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Writes a counted string in printable form (hlc_printable_next) in at most `columns` columns (>= 4; SIZE_MAX for all
 * of it): a longer one keeps both its ends around "...". A wide (East Asian) character counts as two
 * columns, any other as one. Answers the columns written.
 */
size_t hlc_cli_print_text(FILE *stream, const char *bytes, size_t length, size_t columns);
/* The same, padded on the right to exactly `columns`. */
void hlc_cli_print_cell(FILE *stream, const char *bytes, size_t length, size_t columns);

/* "12.3 MB" (powers of 1,000), "999 B". Returns buffer. */
enum { HLC_BYTES_TEXT = 16 };
const char *hlc_cli_bytes_text(char buffer[HLC_BYTES_TEXT], uint64_t bytes);

#endif
