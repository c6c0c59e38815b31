/* Pictures by http and https, through libcurl.
 *
 * The gate is the callback that opens the socket: it sees the address that will be connected to, after DNS
 * and whatever way the URL wrote it, so there is no second look-up to trick. Redirects are not followed by
 * libcurl; each goes through the same checks as the first URL. */
#define _GNU_SOURCE /* SOCK_CLOEXEC */
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/clock.h"
#include "base/limits.h"
#include "server/fetch_impl.h"

#define MAX_BESIDE_BYTES (64 * OC_KIB) /* headers, and what a redirect says besides where it leads */

struct transfer {
    const struct oc_fetch_options *o;
    oc_fetch_vet *vet;
    void *vet_arg;
    CURL *curl;
    struct oc_fetch_sink *sink;
    struct oc_errinfo *ei;
    const char *refused; /* why an address was refused, NULL: none was */
    enum oc_err err;     /* of a callback */
    size_t n_beside_bytes;
    char host[256];
    char message[CURL_ERROR_SIZE];
};

/* ---- Callbacks ----------------------------------------------------------------------------------------- */

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a) {
    struct transfer *t = arg;
    const char *why = NULL;
    if (purpose != CURLSOCKTYPE_IPCXN || !t->vet(t->vet_arg, &a->addr, a->addrlen, &why)) {
        t->refused = why ? why : "not allowed";
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static long status_of(CURL *curl) {
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static size_t count_beside(struct transfer *t, size_t n) {
    t->n_beside_bytes += n;
    if (t->n_beside_bytes <= MAX_BESIDE_BYTES) return n;
    t->err = oc_fail(t->ei, OC_ERR_LIMIT, "%s sent more than %d bytes beside a picture", t->host,
                     (int)MAX_BESIDE_BYTES);
    return 0;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg) {
    struct transfer *t = arg;
    long status = status_of(t->curl);
    if (status / 100 == 3) return count_beside(t, size * n); /* libcurl resolves Location only at the end */
    if (status != 200) return 0;                             /* the text of an error is of no use: end it */
    t->err = oc_fetch_sink_add(t->sink, p, size * n, t->ei);
    return t->err ? 0 : size * n;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg) {
    (void)p;
    return count_beside(arg, size * n);
}

static int on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up) {
    struct transfer *t = arg;
    (void)total, (void)now, (void)up_total, (void)up;
    return oc_fetch_is_cancelled(t->o);
}

/* ---- The URL ------------------------------------------------------------------------------------------- */

/* One part of the URL as a copy to be freed with curl_free, NULL when it has none. */
static char *part(CURLU *u, CURLUPart what, unsigned flags) {
    char *text = NULL;
    return curl_url_get(u, what, &text, flags) == CURLUE_OK ? text : NULL;
}

static enum oc_err check_parts(struct transfer *t, CURLU *u) {
    char *scheme = part(u, CURLUPART_SCHEME, 0), *host = part(u, CURLUPART_HOST, 0),
         *zone = part(u, CURLUPART_ZONEID, 0), *port = part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT),
         *user = part(u, CURLUPART_USER, 0), *password = part(u, CURLUPART_PASSWORD, 0);
    enum oc_err err = OC_OK;
    if (!scheme || (strcmp(scheme, "http") && strcmp(scheme, "https")))
        err = oc_fail(t->ei, OC_ERR_UNSUPPORTED, "pictures are fetched by http and https only");
    else if (user || password)
        err = oc_fail(t->ei, OC_ERR_USAGE, "user names and passwords in URLs are not allowed");
    else if (!host || !*host || zone || strlen(host) >= sizeof t->host)
        err = oc_fail(t->ei, OC_ERR_FORMAT, "the URL has no proper host");
    else if (!port || !strcmp(port, "0"))
        err = oc_fail(t->ei, OC_ERR_USAGE, "the URL has no proper port");
    else
        memcpy(t->host, host, strlen(host) + 1);
    char *const all[] = {scheme, host, zone, port, user, password};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) curl_free(all[i]);
    return err;
}

/* Parses the URL once; libcurl connects by the same parse. What another parser might read differently is
 * refused. */
static enum oc_err parse(struct transfer *t, const char *url, CURLU *u) {
    for (const unsigned char *p = (const unsigned char *)url; *p; p++)
        if (*p <= ' ' || *p == 0x7F || *p == '\\')
            return oc_fail(t->ei, OC_ERR_FORMAT, "a URL has no blanks, control characters or backslashes");
    CURLUcode code = curl_url_set(u, CURLUPART_URL, url, CURLU_URLENCODE | CURLU_DISALLOW_USER);
    if (code == CURLUE_USER_NOT_ALLOWED)
        return oc_fail(t->ei, OC_ERR_USAGE, "user names and passwords in URLs are not allowed");
    if (code != CURLUE_OK) return oc_fail(t->ei, OC_ERR_FORMAT, "not a URL: %s", curl_url_strerror(code));
    return check_parts(t, u);
}

/* ---- One request --------------------------------------------------------------------------------------- */

static CURLcode set_options(struct transfer *t, CURLU *u, long timeout_ms) {
    CURL *c = t->curl;
    CURLcode e = CURLE_OK;
#define SET(option, value)                                                                                   \
    if (e == CURLE_OK) e = curl_easy_setopt(c, option, value)
    SET(CURLOPT_CURLU, u);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
    SET(CURLOPT_QUICK_EXIT, 1L); /* a name server that does not answer must not hold us past the timeout */
#endif
    SET(CURLOPT_USERAGENT, "ocellus");
    SET(CURLOPT_ERRORBUFFER, t->message);
    SET(CURLOPT_TIMEOUT_MS, timeout_ms);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)t->o->connect_timeout_ms);
    SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)t->o->max_bytes);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_socket);
    SET(CURLOPT_OPENSOCKETDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_XFERINFODATA, t);
#undef SET
    return e;
}

static enum oc_err status_error(const struct transfer *t, long status) {
    if (status == 404 || status == 410)
        return oc_fail(t->ei, OC_ERR_NOT_FOUND, "%s answered %ld: no such picture", t->host, status);
    return oc_fail(t->ei, OC_ERR_IO, "%s answered %ld instead of a picture", t->host, status);
}

/* What went wrong, in the order of how much each says. */
static enum oc_err transfer_error(struct transfer *t, CURLcode code) {
    if (t->err) return t->err;
    switch (code) {
    case CURLE_ABORTED_BY_CALLBACK:
        return oc_fail(t->ei, OC_ERR_CANCELLED, "cancelled");
    case CURLE_FILESIZE_EXCEEDED:
        return oc_fetch_too_big(0, t->o->max_bytes, t->ei);
    case CURLE_COULDNT_RESOLVE_HOST:
        return oc_fail(t->ei, OC_ERR_NOT_FOUND, "there is no host %s", t->host);
    case CURLE_OPERATION_TIMEDOUT:
        return oc_fail(t->ei, OC_ERR_IO, "timeout: %s did not send the picture within %d ms", t->host,
                       t->o->timeout_ms);
    case CURLE_URL_MALFORMAT:
        return oc_fail(t->ei, OC_ERR_FORMAT, "%s is no proper host", t->host);
    case CURLE_OUT_OF_MEMORY:
        return oc_fail(t->ei, OC_ERR_NOMEM, "no memory for fetching a picture");
    default:
        if (t->refused)
            return oc_fail(t->ei, OC_ERR_USAGE, "the address of %s is not allowed (%s): only public ones are",
                           t->host, t->refused);
        return oc_fail(t->ei, OC_ERR_IO, "%s cannot be fetched from: %s", t->host,
                       t->message[0] ? t->message : curl_easy_strerror(code));
    }
}

/* Where a redirect leads; NULL when the answer is none. */
static const char *redirect_of(const struct transfer *t, long status) {
    char *location = NULL;
    if (status / 100 != 3) return NULL;
    curl_easy_getinfo(t->curl, CURLINFO_REDIRECT_URL, &location);
    return location;
}

/* One request. *next: where it redirects to, with a copy of at most OC_LIMIT_URL_BYTES; empty: it is done. */
static enum oc_err request(struct transfer *t, const char *url, uint64_t deadline_ns, char *next) {
    uint64_t now_ns = oc_clock_ns();
    CURLU *u = curl_url();
    t->curl = curl_easy_init();
    t->n_beside_bytes = 0;
    t->refused = NULL;
    t->message[0] = *next = '\0';
    enum oc_err err =
        t->curl && u ? parse(t, url, u) : oc_fail(t->ei, OC_ERR_NOMEM, "no memory for fetching a picture");
    if (!err && now_ns >= deadline_ns) err = transfer_error(t, CURLE_OPERATION_TIMEDOUT);
    if (!err) {
        CURLcode code = set_options(t, u, (long)((deadline_ns - now_ns) / 1000000) + 1);
        if (code == CURLE_OK) code = curl_easy_perform(t->curl);
        long status = status_of(t->curl);
        const char *location = redirect_of(t, status);
        bool answered = code == CURLE_OK || code == CURLE_WRITE_ERROR ||
                        (code == CURLE_FILESIZE_EXCEEDED && status != 200);
        if (!answered || t->err)
            err = transfer_error(t, code);
        else if (location && strlen(location) <= OC_LIMIT_URL_BYTES)
            memcpy(next, location, strlen(location) + 1);
        else if (status != 200)
            err = status_error(t, status);
    }
    curl_easy_cleanup(t->curl);
    curl_url_cleanup(u);
    return err;
}

enum oc_err oc_fetch_http(struct oc_str url, const struct oc_fetch_options *o, oc_fetch_vet *vet, void *arg,
                          struct oc_fetch_sink *s, struct oc_errinfo *ei) {
    struct transfer t = {.o = o, .vet = vet, .vet_arg = arg, .sink = s, .ei = ei};
    char current[OC_LIMIT_URL_BYTES + 1], next[OC_LIMIT_URL_BYTES + 1];
    uint64_t deadline_ns = oc_clock_ns() + (uint64_t)o->timeout_ms * 1000000;
    if (memchr(url.p, '\0', url.n)) return oc_fail(ei, OC_ERR_FORMAT, "a URL has no NUL bytes");
    memcpy(current, url.p, url.n);
    current[url.n] = '\0';
    for (int i = 0; i <= o->max_redirects; i++) {
        OC_TRY(request(&t, current, deadline_ns, next));
        if (!*next) return OC_OK;
        memcpy(current, next, sizeof current);
    }
    return oc_fail(ei, OC_ERR_IO, "more than %d redirects, the last to %s", o->max_redirects, t.host);
}
