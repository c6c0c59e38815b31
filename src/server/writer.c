#include "server/writer.h"

#include <math.h>

#include "base/json.h"

static void begin(struct oc_server_writer *w, const char *key) {
    if (w->comma) oc_buf_add_char(w->b, ',');
    w->comma = true;
    if (key) oc_buf_printf(w->b, "\"%s\":", key);
}

void oc_server_writer_open(struct oc_server_writer *w, const char *key, char bracket) {
    begin(w, key);
    oc_buf_add_char(w->b, bracket);
    w->comma = false;
}

void oc_server_writer_close(struct oc_server_writer *w, char bracket) {
    oc_buf_add_char(w->b, bracket);
    w->comma = true;
}

void oc_server_writer_int(struct oc_server_writer *w, const char *key, int64_t v) {
    begin(w, key);
    oc_buf_printf(w->b, "%lld", (long long)v);
}

void oc_server_writer_num(struct oc_server_writer *w, const char *key, double v) {
    begin(w, key);
    oc_json_write_double(w->b, round(v * 1e4) / 1e4);
}

void oc_server_writer_bool(struct oc_server_writer *w, const char *key, bool v) {
    begin(w, key);
    oc_buf_add_str(w->b, v ? "true" : "false");
}

void oc_server_writer_str(struct oc_server_writer *w, const char *key, const char *v) {
    begin(w, key);
    if (v)
        oc_json_write_str(w->b, oc_str_from(v));
    else
        oc_buf_add_str(w->b, "null");
}
