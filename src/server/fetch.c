#define _GNU_SOURCE /* memfd_create */
#include "server/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/base64.h"
#include "base/limits.h"
#include "server/address.h"
#include "server/fetch_impl.h"

#define MAX_DATA_HEAD_BYTES 256

enum oc_err oc_fetch_init(struct oc_errinfo *ei) {
    CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
    return code == CURLE_OK ? OC_OK
                            : oc_fail(ei, OC_ERR_IO, "libcurl cannot start: %s", curl_easy_strerror(code));
}

void oc_fetch_exit(void) {
    curl_global_cleanup();
}

/* ---- The memfd ----------------------------------------------------------------------------------------- */

enum oc_err oc_fetch_too_big(uint64_t n_bytes, uint64_t max_bytes, struct oc_errinfo *ei) {
    if (!n_bytes)
        return oc_fail(ei, OC_ERR_LIMIT, "the picture is larger than the %llu bytes allowed",
                       (unsigned long long)max_bytes);
    return oc_fail(ei, OC_ERR_LIMIT, "the picture has %llu bytes, at most %llu are allowed",
                   (unsigned long long)n_bytes, (unsigned long long)max_bytes);
}

enum oc_err oc_fetch_sink_open(struct oc_fetch_sink *s, uint64_t max_bytes, struct oc_errinfo *ei) {
    *s = (struct oc_fetch_sink){memfd_create("ocellus-picture", MFD_CLOEXEC | MFD_ALLOW_SEALING), 0,
                                max_bytes};
    return s->fd >= 0 ? OC_OK : oc_fail(ei, OC_ERR_IO, "no memory for a picture: %s", strerror(errno));
}

enum oc_err oc_fetch_sink_add(struct oc_fetch_sink *s, const void *p, size_t n, struct oc_errinfo *ei) {
    const char *at = p;
    if (n > s->max_bytes - s->n_bytes) return oc_fetch_too_big(0, s->max_bytes, ei);
    while (n) {
        ssize_t got = write(s->fd, at, n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return oc_fail(ei, OC_ERR_IO, "no memory for a picture: %s", strerror(errno));
        at += got;
        n -= (size_t)got;
        s->n_bytes += (uint64_t)got;
    }
    return OC_OK;
}

/* From here on nobody can change the bytes, whoever gets the descriptor. */
static enum oc_err seal(const struct oc_fetch_sink *s, struct oc_errinfo *ei) {
    if (s->n_bytes == 0) return oc_fail(ei, OC_ERR_FORMAT, "the picture is empty");
    if (fcntl(s->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return OC_OK;
    return oc_fail(ei, OC_ERR_IO, "cannot seal a picture: %s", strerror(errno));
}

/* ---- data: --------------------------------------------------------------------------------------------- */

static bool starts_nocase(struct oc_str s, const char *prefix) {
    size_t n = strlen(prefix);
    return s.n >= n && strncasecmp(s.p, prefix, n) == 0;
}

static bool is_token(struct oc_str s) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (!c || !strchr("!#$&-^_.+", c))) return false;
    }
    return s.n > 0;
}

/* "image/png", "IMAGE/svg+xml", "image/png;name=x": an image type, whatever its parameters. */
static bool is_image_type(struct oc_str type) {
    const char *semicolon = memchr(type.p, ';', type.n);
    size_t n = semicolon ? (size_t)(semicolon - type.p) : type.n;
    return starts_nocase(type, "image/") && is_token((struct oc_str){type.p + 6, n - 6});
}

/* What stands between "data:" and the comma; its last parameter must be base64. */
static enum oc_err check_data_head(struct oc_str head, struct oc_errinfo *ei) {
    size_t n = head.n;
    for (size_t i = 0; i < n; i++)
        if (head.p[i] <= ' ' || head.p[i] > '~')
            return oc_fail(ei, OC_ERR_FORMAT, "the data: URL has a byte at %zu that no URL has", i + 5);
    if (n < 7 || strncasecmp(head.p + n - 7, ";base64", 7) != 0)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "a data: URL must be base64 (data:image/png;base64,...)");
    if (!is_image_type((struct oc_str){head.p, n - 7}))
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "the data: URL is not of an image type (data:image/png;base64,...)");
    return OC_OK;
}

/* Decodes straight into the memfd. */
static enum oc_err decode(struct oc_str text, struct oc_fetch_sink *s, struct oc_errinfo *ei) {
    size_t room = oc_base64_max_bytes(text), n = 0;
    if (ftruncate(s->fd, (off_t)room) != 0)
        return oc_fail(ei, OC_ERR_IO, "no memory for a picture: %s", strerror(errno));
    uint8_t *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (p == MAP_FAILED) return oc_fail(ei, OC_ERR_IO, "no memory for a picture: %s", strerror(errno));
    enum oc_err err = oc_base64_decode(text, p, &n, ei);
    munmap(p, room);
    if (!err && ftruncate(s->fd, (off_t)n) != 0)
        err = oc_fail(ei, OC_ERR_IO, "cannot cut a picture: %s", strerror(errno));
    s->n_bytes = n;
    return err;
}

/* How many bytes base64 of this length stands for, its padding taken into account. */
static uint64_t decoded_size(struct oc_str text) {
    while (text.n && text.p[text.n - 1] == '=') text.n--;
    return text.n / 4 * 3 + text.n % 4 * 3 / 4;
}

static enum oc_err fetch_data(struct oc_str url, struct oc_fetch_sink *s, struct oc_errinfo *ei) {
    struct oc_str rest = {url.p + 5, url.n - 5};
    const char *comma = memchr(rest.p, ',', rest.n < MAX_DATA_HEAD_BYTES ? rest.n : MAX_DATA_HEAD_BYTES);
    if (!comma)
        return oc_fail(ei, OC_ERR_FORMAT, "the data: URL has no comma within its first %d bytes",
                       MAX_DATA_HEAD_BYTES);
    size_t n = (size_t)(comma - rest.p);
    OC_TRY(check_data_head((struct oc_str){rest.p, n}, ei));
    struct oc_str text = {comma + 1, rest.n - n - 1};
    uint64_t size = decoded_size(text);
    if (size > s->max_bytes) return oc_fetch_too_big(size, s->max_bytes, ei);
    for (size_t i = 0; i < text.n; i++) /* the decoder passes over blanks, which a URL has none of */
        if ((unsigned char)text.p[i] <= ' ')
            return oc_fail(ei, OC_ERR_FORMAT, "the data: URL is not base64 at byte %zu", i);
    if (!text.n) return oc_fail(ei, OC_ERR_FORMAT, "the data: URL is empty");
    enum oc_err err = decode(text, s, ei);
    return err == OC_ERR_FORMAT ? oc_fail_prefix(ei, err, "the data: URL is broken") : err;
}

/* ---- Any ----------------------------------------------------------------------------------------------- */

/* Length of the scheme without its colon; 0: there is none, it is a path. */
static size_t scheme_length(struct oc_str url) {
    size_t n = 0;
    while (n < url.n) {
        char c = url.p[n];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (c == ':') return n;
        if (!letter && (!n || !c || !strchr("0123456789+-.", c))) return 0;
        n++;
    }
    return 0;
}

static enum oc_err fetch_into(struct oc_str url, const struct oc_fetch_options *o, oc_fetch_vet *vet,
                              void *arg, struct oc_fetch_sink *s, struct oc_errinfo *ei) {
    size_t scheme = scheme_length(url);
    if (starts_nocase(url, "data:")) return fetch_data(url, s, ei);
    if (url.n > OC_LIMIT_URL_BYTES)
        return oc_fail(ei, OC_ERR_LIMIT, "the URL has %zu bytes, at most %d are allowed", url.n,
                       (int)OC_LIMIT_URL_BYTES);
    if (starts_nocase(url, "http://") || starts_nocase(url, "https://")) {
        if (o->remote) return oc_fetch_http(url, o, vet, arg, s, ei);
        return oc_fail(ei, OC_ERR_USAGE, "this server fetches no pictures by URL: send them as data: URLs");
    }
    if (url.n && (!scheme || starts_nocase(url, "file:"))) {
        if (o->media_dir) return oc_fetch_file(url, o, s, ei);
        return oc_fail(ei, OC_ERR_USAGE, "this server reads no pictures from files: send them as data: URLs");
    }
    return oc_fail(ei, OC_ERR_UNSUPPORTED, "pictures come from data:, http: and https: URLs, not from '%.*s'",
                   scheme < 20 ? (int)scheme : 20, url.p);
}

__attribute__((noinline)) void oc_fetch_close(int fd) {
    close(fd);
}

enum oc_err oc_fetch_with(struct oc_str url, const struct oc_fetch_options *o, oc_fetch_vet *vet, void *arg,
                          int *fd, uint64_t *n_bytes, struct oc_errinfo *ei) {
    struct oc_fetch_sink s;
    *fd = -1;
    *n_bytes = 0;
    OC_TRY(oc_fetch_sink_open(&s, o->max_bytes, ei));
    enum oc_err err = fetch_into(url, o, vet, arg, &s, ei);
    if (!err && oc_fetch_is_cancelled(o)) err = oc_fail(ei, OC_ERR_CANCELLED, "cancelled");
    if (!err) err = seal(&s, ei);
    if (err) {
        oc_fetch_close(s.fd);
        return err;
    }
    *fd = s.fd;
    *n_bytes = s.n_bytes;
    return OC_OK;
}

static bool vet_global(void *arg, const struct sockaddr *a, socklen_t len, const char **why) {
    const struct oc_fetch_options *o = arg;
    return o->allow_private || oc_address_is_global(a, len, why);
}

enum oc_err oc_fetch(struct oc_str url, const struct oc_fetch_options *o, int *fd, uint64_t *n_bytes,
                     struct oc_errinfo *ei) {
    return oc_fetch_with(url, o, vet_global, (void *)o, fd, n_bytes, ei);
}
