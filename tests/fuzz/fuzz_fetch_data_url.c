/* Any bytes as the URL of a picture, with nothing but data: URLs allowed: refused with a sentence, or bytes
 * of the size that the base64 has. */
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "server/fetch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct oc_fetch_options o = {.max_bytes = 300, .timeout_ms = 1, .connect_timeout_ms = 1};
    struct oc_errinfo ei = {0};
    struct oc_str url = {(const char *)data, n};
    uint64_t n_bytes;
    int fd;
    enum oc_err err = oc_fetch(url, &o, &fd, &n_bytes, &ei);
    if (err) {
        OC_ASSERT(fd == -1 && n_bytes == 0 && ei.code == err && ei.msg[0]);
        OC_ASSERT(err == OC_ERR_FORMAT || err == OC_ERR_UNSUPPORTED || err == OC_ERR_LIMIT ||
                  err == OC_ERR_USAGE);
        return 0;
    }
    struct stat st;
    OC_ASSERT(n > 5 && memchr(data, ',', n) && !memchr(data, '\n', n) && !memchr(data, '\0', n));
    OC_ASSERT(fstat(fd, &st) == 0 && (uint64_t)st.st_size == n_bytes && n_bytes > 0 &&
              n_bytes <= o.max_bytes);
    close(fd);
    return 0;
}
