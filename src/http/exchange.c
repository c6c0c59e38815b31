#include "http/conn.h"

void oc_http_exchange_set_user(struct oc_http_exchange *x, void *user) {
    x->user = user;
}

void *oc_http_exchange_user(const struct oc_http_exchange *x) {
    return x->user;
}
