/* Any bytes as a configuration file: refused with sentences, or read, printed and read again the same. */
#include <stdint.h>
#include <string.h>

#include "base/limits.h"
#include "server/config_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const no_environment[] = {NULL};

/* The keys' values as YAML, one a line. */
static void write_values(const struct oc_server_config *c, struct oc_buf *out) {
    for (int i = 0; i < oc_config_n_keys; i++) {
        oc_config_write_value(c, i, out);
        oc_buf_add_char(out, '\n');
    }
}

/* The defaults, then the text on top of them. */
static int read_text(struct oc_str text, struct oc_server_config *c, struct oc_buf *faults) {
    struct oc_config_world w = {no_environment, (int64_t)(32 * OC_GIB)};
    struct oc_errinfo ei;
    bool show;
    OC_ASSERT(oc_config_read_in(&w, 0, NULL, c, &show, &ei, NULL) == OC_OK);
    struct oc_config_reader r = {.c = c, .world = &w, .faults = faults, .reject_threshold = -1};
    oc_config_read_yaml(&r, text, "fuzz.yaml");
    return r.n_faults;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct oc_server_config first, second;
    struct oc_buf faults, printed, one, two;
    oc_buf_init(&faults, OC_MIB);
    oc_buf_init(&printed, 8 * OC_MIB);
    oc_buf_init(&one, 8 * OC_MIB);
    oc_buf_init(&two, 8 * OC_MIB);
    if (n > OC_LIMIT_SERVER_CONFIG_BYTES) n = OC_LIMIT_SERVER_CONFIG_BYTES;
    int n_faults = read_text((struct oc_str){(const char *)data, n}, &first, &faults);
    OC_ASSERT((n_faults > 0) == (faults.n_bytes > 0));
    OC_ASSERT(oc_utf8_valid(oc_buf_str(&faults), faults.n_bytes));
    if (!n_faults) {
        oc_server_config_print(&first, &printed);
        OC_ASSERT(read_text((struct oc_str){oc_buf_str(&printed), printed.n_bytes}, &second, &faults) == 0);
        write_values(&first, &one);
        write_values(&second, &two);
        OC_ASSERT(strcmp(oc_buf_str(&one), oc_buf_str(&two)) == 0);
        oc_server_config_free(&second);
    }
    oc_server_config_free(&first);
    oc_buf_free(&faults);
    oc_buf_free(&printed);
    oc_buf_free(&one);
    oc_buf_free(&two);
    return 0;
}
