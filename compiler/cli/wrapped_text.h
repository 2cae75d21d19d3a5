/* Paragraphs for people, in lines of 80 columns. */
#ifndef HILORA_CLI_WRAPPED_TEXT_H
#define HILORA_CLI_WRAPPED_TEXT_H

#include <stdio.h>

/* Writes text, made printable (hlc_printable_next), broken at spaces: the first line behind `indent` spaces, the
 * others behind `hang`. A word that is longer than a line is cut. */
void hlc_cli_print_wrapped(FILE *stream, const char *text, size_t indent, size_t hang);

#endif
