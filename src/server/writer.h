/* server/writer.h - the JSON of status answers: objects and arrays written straight into a buffer.
 *
 * Keys are ours and need no escape; a NULL key is for items of an array. Commas are kept track of. */
#ifndef OC_SERVER_WRITER_H
#define OC_SERVER_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct oc_server_writer {
    struct oc_buf *b;
    bool comma; /* the next item needs one before it */
};

void oc_server_writer_open(struct oc_server_writer *w, const char *key, char bracket); /* '{' or '[' */
void oc_server_writer_close(struct oc_server_writer *w, char bracket);                 /* '}' or ']' */
void oc_server_writer_int(struct oc_server_writer *w, const char *key, int64_t v);
void oc_server_writer_num(struct oc_server_writer *w, const char *key, double v); /* four decimals at most */
void oc_server_writer_bool(struct oc_server_writer *w, const char *key, bool v);
void oc_server_writer_str(struct oc_server_writer *w, const char *key, const char *v); /* NULL: null */

#endif
