/* Chaos once more, through TLS. */
#define RIG_TLS 1
#include "test_http_chaos.c"
