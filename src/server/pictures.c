/* server/pictures.c - the pictures of a request: URL to bytes on a crew, bytes to pixels in an image-worker.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "server/fetch.h"
#include "server/poison.h"
#include "server/record.h"
#include "server/request.h"

#define CONNECT_TIMEOUT_MS 5000
#define MAX_REDIRECTS 3

/* ---- Errors -------------------------------------------------------------------------------------------- */

static void fail_picture(struct oc_server_picture *p, enum oc_api_problem problem, const char *what) {
    struct oc_api_error e = {0};
    oc_api_fail(&e, problem, p->r->api.pictures[p - p->r->pictures].param, "%s", what);
    oc_server_request_fail(p->r, &e);
}

/* What a client did wrong about a picture is invalid_image; what we lack is ours. */
static enum oc_api_problem problem_of(enum oc_err err) {
    enum oc_api_problem p = oc_api_problem_of(err);
    return err == OC_ERR_IO || oc_api_error_status(p) < 500 ? OC_API_BAD_IMAGE : p;
}

static void fail_poisoned(struct oc_server_picture *p) {
    fail_picture(p, OC_API_BAD_IMAGE,
                 "this picture is refused: processes died twice in a row while they worked on it");
}

/* ---- Room ---------------------------------------------------------------------------------------------- */

/* The most that a resized picture can take: the model's rule at the limit of tokens. The figures are a worker's. */
static int64_t most_bytes(const struct oc_server_request *r, const struct oc_api_picture *want) {
    const struct oc_ipc_picture_rules *rules = &r->model->ready.rules;
    double tokens = rules->max_tokens, patch = (double)rules->patch * rules->patch;
    if (want->detail == OC_API_DETAIL_LOW && tokens > OC_API_LOW_DETAIL_TOKENS) tokens = OC_API_LOW_DETAIL_TOKENS;
    double bytes = tokens * rules->merge * rules->merge * patch * 3;
    return bytes >= 0 && bytes < (double)OC_LIMIT_IPC_PIXEL_BYTES ? (int64_t)bytes : (int64_t)OC_LIMIT_IPC_PIXEL_BYTES;
}

/* What was asked for and is not needed goes back. */
static void fit_room(struct oc_server_picture *p) {
    struct stat st;
    if (fstat(p->pixels_fd, &st) == 0)
        oc_server_room_shrink(&p->r->s->room, &p->r->place, p->room_bytes - (int64_t)st.st_size);
}

/* ---- Looking ------------------------------------------------------------------------------------------- */

static void on_seen(struct oc_server_look *l, enum oc_server_look_end how, const struct oc_ipc_seen *seen,
                    int pixels, const struct oc_errinfo *ei) {
    struct oc_server_picture *p =
        (struct oc_server_picture *)((char *)l - offsetof(struct oc_server_picture, look));
    struct oc_server_request *r = p->r;
    p->look_ms = oc_clock_ms_since(p->look_ns);
    if (how == OC_LOOK_CRASHED) {
        for (int i = 0; i < l->n_tries; i++)
            oc_server_poison_blame(r->s->poison, p->bytes_digest, oc_server_now_ms());
        oc_server_record_picture_failed(r, "crashed");
        fail_picture(p, OC_API_BAD_IMAGE, ei->msg);
        return;
    }
    if (how != OC_LOOK_SEEN) {
        oc_server_record_picture_failed(r, how == OC_LOOK_REFUSED ? "refused" : "crashed");
        fail_picture(p, how == OC_LOOK_REFUSED ? problem_of(ei->code) : OC_API_INTERNAL, ei->msg);
        return;
    }
    p->seen = *seen;
    p->is_seen = true;
    p->pixels_fd = pixels;
    close(p->bytes_fd);
    p->bytes_fd = -1;
    fit_room(p);
    oc_server_record_seen(r, p);
    if (oc_server_poison_n(r->s->poison)) oc_server_poison_clear(r->s->poison, p->bytes_digest);
    if (oc_server_poison_refuses(r->s->poison, p->seen.digest, oc_server_now_ms()))
        fail_poisoned(p);
    else
        oc_server_request_part_done(r);
}

static void look(struct oc_server_picture *p) {
    struct oc_server_request *r = p->r;
    const struct oc_server_config *c = r->s->config;
    const struct oc_api_picture *want = &r->api.pictures[p - r->pictures];
    struct oc_errinfo ei;
    p->look_ns = oc_clock_ns();
    p->look.fd = p->bytes_fd;
    p->look.done = on_seen;
    p->look.what = (struct oc_ipc_look){
        .rules = r->model->ready.rules,
        .min_pixels = want->min_pixels,
        .max_pixels = want->max_pixels,
        .max_tokens = want->detail == OC_API_DETAIL_LOW ? OC_API_LOW_DETAIL_TOKENS : 0,
        .max_bytes = (uint64_t)c->max_image_bytes,
        .max_image_pixels = (uint64_t)c->max_image_pixels,
        .max_side_px = c->max_image_side_px,
    };
    if (oc_server_images_look(r->s->images, &p->look, &ei)) fail_picture(p, OC_API_OVERLOADED, ei.msg);
}

/* ---- Fetching ------------------------------------------------------------------------------------------ */

static void digest_bytes(struct oc_server_picture *p) {
    void *bytes = p->n_bytes ? mmap(NULL, p->n_bytes, PROT_READ, MAP_SHARED, p->bytes_fd, 0) : MAP_FAILED;
    if (bytes == MAP_FAILED) return;
    struct oc_digest_piece piece = {bytes, p->n_bytes};
    oc_digest(&piece, 1, p->bytes_digest);
    munmap(bytes, p->n_bytes);
}

static void run_fetch(struct oc_server_work *w) {
    struct oc_server_picture *p =
        (struct oc_server_picture *)((char *)w - offsetof(struct oc_server_picture, work));
    const struct oc_server_config *c = p->r->s->config;
    struct oc_fetch_options o = {.remote = c->remote_images,
                                 .allow_private = c->allow_private_images,
                                 .media_dir = c->media_dir,
                                 .max_bytes = (uint64_t)c->max_image_bytes,
                                 .timeout_ms = c->fetch_timeout_s * 1000,
                                 .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                                 .max_redirects = MAX_REDIRECTS,
                                 .cancelled = &p->r->cancelled};
    uint64_t start = oc_clock_ns();
    p->err = oc_fetch(p->r->api.pictures[p - p->r->pictures].url, &o, &p->bytes_fd, &p->n_bytes, &p->ei);
    if (p->err)
        p->bytes_fd = -1;
    else
        digest_bytes(p);
    p->fetch_ms = oc_clock_ms_since(start);
}

static void fetched(struct oc_server_work *w) {
    struct oc_server_picture *p =
        (struct oc_server_picture *)((char *)w - offsetof(struct oc_server_picture, work));
    struct oc_server_request *r = p->r;
    p->fetching = false;
    if (!oc_server_request_unpin(r)) return;
    if (p->err) {
        oc_server_record_picture_failed(r, "fetch_failed");
        fail_picture(p, problem_of(p->err), p->ei.msg);
        return;
    }
    oc_server_record_fetched(r, p);
    if (oc_server_poison_refuses(r->s->poison, p->bytes_digest, oc_server_now_ms()))
        fail_poisoned(p);
    else
        look(p);
}

/* A data URL is computing, the others are waiting. */
static bool is_slow(struct oc_str url) {
    return url.n < 5 || memcmp(url.p, "data:", 5) != 0;
}

static void fetch(struct oc_server_picture *p) {
    struct oc_server *s = p->r->s;
    p->on_slow = is_slow(p->r->api.pictures[p - p->r->pictures].url);
    p->fetching = true;
    p->work = (struct oc_server_work){.run = run_fetch, .done = fetched};
    p->r->n_pins++;
    oc_server_crew_post(p->on_slow ? s->slow : s->quick, &p->work);
}

/* ---- All of them --------------------------------------------------------------------------------------- */

static void fetch_all(struct oc_server_request *r) {
    for (size_t i = 0; i < r->n_pictures; i++) fetch(&r->pictures[i]);
}

static void on_room(struct oc_server_place *place) {
    struct oc_server_request *r =
        (struct oc_server_request *)((char *)place - offsetof(struct oc_server_request, place));
    fetch_all(r);
}

/* False: it has to wait. */
static bool take_room(struct oc_server_request *r) {
    int64_t bytes = 0;
    for (size_t i = 0; i < r->n_pictures; i++) {
        r->pictures[i].room_bytes = most_bytes(r, &r->api.pictures[i]);
        bytes += r->pictures[i].room_bytes;
    }
    r->place.on_room = on_room;
    r->place_ms = oc_server_now_ms();
    return oc_server_room_take(&r->s->room, oc_server_models_picture_bytes(r->s->models), &r->place, bytes);
}

void oc_server_pictures_start(struct oc_server_request *r) {
    size_t n = r->api.n_pictures;
    if (!n) return;
    r->pictures = calloc(n, sizeof *r->pictures);
    if (!r->pictures) {
        struct oc_api_error e = {0};
        oc_api_fail(&e, OC_API_INTERNAL, NULL, "out of memory");
        oc_server_request_fail(r, &e);
        return;
    }
    r->n_pictures = n;
    for (size_t i = 0; i < n; i++)
        r->pictures[i] = (struct oc_server_picture){.r = r, .bytes_fd = -1, .pixels_fd = -1};
    if (take_room(r)) fetch_all(r);
}

void oc_server_pictures_cancel(struct oc_server_request *r) {
    oc_server_room_leave(&r->s->room, &r->place);
    for (size_t i = 0; i < r->n_pictures; i++) {
        struct oc_server_picture *p = &r->pictures[i];
        oc_server_images_cancel(r->s->images, &p->look);
        if (p->fetching && oc_server_crew_withdraw(p->on_slow ? r->s->slow : r->s->quick, &p->work)) {
            p->fetching = false;
            r->n_pins--;
        }
        if (!p->fetching) { /* a picture's memory does not wait for the reaper */
            if (p->bytes_fd >= 0) close(p->bytes_fd);
            if (p->pixels_fd >= 0) close(p->pixels_fd);
            p->bytes_fd = p->pixels_fd = -1;
        }
    }
}

void oc_server_pictures_close(struct oc_server_request *r) {
    for (size_t i = 0; i < r->n_pictures; i++) {
        if (r->pictures[i].bytes_fd >= 0) close(r->pictures[i].bytes_fd);
        if (r->pictures[i].pixels_fd >= 0) close(r->pictures[i].pixels_fd);
    }
    free(r->pictures);
}

void oc_server_pictures_forget(struct oc_server_request *r) {
    oc_server_room_leave(&r->s->room, &r->place);
    for (size_t i = 0; i < r->n_pictures; i++) {
        if (r->pictures[i].pixels_fd >= 0) close(r->pictures[i].pixels_fd);
        r->pictures[i].pixels_fd = -1;
    }
}

void oc_server_pictures_blame(struct oc_server_request *r) {
    for (size_t i = 0; i < r->n_pictures; i++) {
        if (!r->pictures[i].is_seen) continue;
        int n = oc_server_poison_blame(r->s->poison, r->pictures[i].seen.digest, oc_server_now_ms());
        oc_log(r->s->log, OC_LOG_WARN, "a worker died while it worked on a picture",
               OC_LOG_S("request", r->id), OC_LOG_S("picture", r->api.pictures[i].param),
               OC_LOG_I("deaths", n));
    }
}

void oc_server_pictures_clear(struct oc_server_request *r) {
    if (oc_server_poison_n(r->s->poison) == 0) return;
    for (size_t i = 0; i < r->n_pictures; i++)
        if (r->pictures[i].is_seen) oc_server_poison_clear(r->s->poison, r->pictures[i].seen.digest);
}

bool oc_server_pictures_refused(struct oc_server_request *r, struct oc_api_error *e) {
    for (size_t i = 0; i < r->n_pictures; i++) {
        if (!r->pictures[i].is_seen ||
            !oc_server_poison_refuses(r->s->poison, r->pictures[i].seen.digest, oc_server_now_ms()))
            continue;
        oc_api_fail(e, OC_API_BAD_IMAGE, r->api.pictures[i].param,
                    "this picture is refused: processes died twice in a row while they worked on it");
        return true;
    }
    return false;
}
