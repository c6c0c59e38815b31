/* bench_picture [--max-pixels N] [--runs N] FILE...: what a picture costs from its bytes to patches, part by
 * part, on one core.
 *
 * The parts are timed in turn (processor time), many rounds, and the median of each is printed. Floors: for a
 * JPEG libjpeg alone, one row buffer, no picture ("libjpeg"); for the patches as many bytes set to one value
 * ("fill"). "whole" is bytes to patches in new memory, as `ocellus run` does it; "look" what an image-worker
 * does: a file in, a file out, the digest besides; "take" what that file then costs a model's worker until all
 * patches have been at hand once, some of them at a time. */
#define _GNU_SOURCE /* memfd_create */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <jpeglib.h>

#include "base/file.h"
#include "base/pages.h"
#include "image/decode.h"
#include "image/patchify.h"
#include "image/resample.h"
#include "image/resize.h"
#include "median.h"
#include "models/pictures.h"
#include "worker/convert.h"
#include "worker/jobs.h"
#include "worker/picture.h"

#define MAX_RUNS 2000

enum { N_LOOPS = 4, N_PARTS = 7 + N_LOOPS };

enum { STRIP = 28, SLICE = 1024 };

struct bench;

struct part {
    const char *name;
    void (*run)(struct bench *b, const struct part *part, struct oc_errinfo *ei);
    int loops;
};

struct bench {
    const char *name;
    struct oc_str bytes;
    int fd, seen_fd; /* the encoded picture; what an image-worker made of it */
    struct oc_picture_rules rules;
    struct oc_picture_plan plan;
    struct oc_image img, resized;
    float *patches; /* touched before */
    double ms[N_PARTS][MAX_RUNS];
};

static void stop(const char *what) {
    fprintf(stderr, "bench_picture: %s\n", what);
    exit(1);
}

static void must(enum oc_err err, const struct oc_errinfo *ei) {
    if (err) stop(ei->msg);
}

static size_t patch_bytes(const struct bench *b) {
    return (size_t)b->plan.n_patches * (size_t)b->plan.patch_dim * sizeof(float);
}

/* ---- Parts ------------------------------------------------------------------------------------------------
 */

static void run_floor(struct bench *b, const struct part *part, struct oc_errinfo *ei) {
    (void)part;
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr err;
    (void)ei;
    if (oc_image_sniff((const uint8_t *)b->bytes.p, b->bytes.n) != OC_IMAGE_JPEG) return;
    d.err = jpeg_std_error(&err);
    jpeg_create_decompress(&d);
    jpeg_mem_src(&d, (const unsigned char *)b->bytes.p, b->bytes.n);
    jpeg_read_header(&d, TRUE);
    d.out_color_space = JCS_RGB;
    jpeg_start_decompress(&d);
    JSAMPARRAY rows = d.mem->alloc_sarray((j_common_ptr)&d, JPOOL_IMAGE, d.output_width * 3, 16);
    while (d.output_scanline < d.output_height) jpeg_read_scanlines(&d, rows, 16);
    jpeg_destroy_decompress(&d);
}

static void run_decode(struct bench *b, const struct part *part, struct oc_errinfo *ei) {
    (void)part;
    struct oc_image img;
    must(oc_image_decode((const uint8_t *)b->bytes.p, b->bytes.n, NULL, &img, ei), ei);
    oc_image_free(&img);
}

/* By the loops that part->loops counts, into memory that was touched before. */
static void run_resize(struct bench *b, const struct part *part, struct oc_errinfo *ei) {
    const struct oc_image_resample *loops = oc_image_resample_at(part->loops);
    struct oc_image_resizer *r;
    if (!loops || !loops->is_supported()) return;
    must(oc_image_resizer_open_with(loops, &b->img, b->plan.width, b->plan.height, b->plan.resample, STRIP,
                                    &r, ei),
         ei);
    for (int y = 0; y < b->plan.height; y += STRIP)
        oc_image_resizer_next(r, b->plan.height - y < STRIP ? b->plan.height - y : STRIP,
                              b->resized.rgb + (size_t)y * (size_t)b->plan.width * 3);
    oc_image_resizer_close(r);
}

static void run_patches(struct bench *b, const struct part *part, struct oc_errinfo *ei) {
    (void)part;
    must(oc_image_patchify(&b->resized, &b->plan, b->patches, ei), ei);
}

static void run_fill(struct bench *b, const struct part *part, struct oc_errinfo *ei) {
    (void)part;
    (void)ei;
    memset(b->patches, (int)b->bytes.n & 1, patch_bytes(b));
}

/* As `ocellus run` does it: memory that is new each time. */
static void run_whole(struct bench *b, const struct part *part, struct oc_errinfo *ei) {
    (void)part;
    struct oc_image img;
    must(oc_image_decode((const uint8_t *)b->bytes.p, b->bytes.n, NULL, &img, ei), ei);
    float *patches = oc_pages_alloc(patch_bytes(b));
    if (!patches) stop("no memory");
    must(oc_image_patchify_resized(&img, &b->plan, patches, ei), ei);
    free(patches);
    oc_image_free(&img);
}

static int look_at(const struct bench *b, struct oc_errinfo *ei) {
    struct oc_ipc_look look = {0};
    struct oc_ipc_seen seen;
    int fd;
    oc_worker_convert_rules_out(&b->rules, &look.rules);
    must(oc_worker_picture_look(b->fd, &look, &seen, &fd, ei), ei);
    return fd;
}

static void run_look(struct bench *b, const struct part *part, struct oc_errinfo *ei) {
    (void)part;
    close(look_at(b, ei));
    malloc_trim(0);
}

/* As the encoder asks for them, into memory that it has touched before. */
static void run_take(struct bench *b, const struct part *part, struct oc_errinfo *ei) {
    struct oc_worker_jobs jobs = {0};
    struct oc_worker_job *job;
    struct oc_vision_patches patches;
    (void)part;
    must(oc_worker_jobs_add(&jobs, 1, 1, &job, ei), ei);
    must(oc_worker_jobs_map(job, b->seen_fd, &b->plan, &patches, ei), ei);
    for (int from = 0, to; from < b->plan.n_patches; from = to) {
        to = b->plan.n_patches - from < SLICE ? b->plan.n_patches : from + SLICE;
        patches.make(patches.arg, from, to, b->patches);
    }
    oc_worker_jobs_free(&jobs);
}

static const struct part parts[N_PARTS] = {
    {"libjpeg", run_floor, 0},   {"decode", run_decode, 0}, {"resize", run_resize, 0},
    {"resize", run_resize, 1},   {"resize", run_resize, 2}, {"resize", run_resize, 3},
    {"patches", run_patches, 0}, {"fill", run_fill, 0},     {"whole", run_whole, 0},
    {"look", run_look, 0},       {"take", run_take, 0},
};

/* ---- A file -----------------------------------------------------------------------------------------------
 */

static void open_picture(struct bench *b, struct oc_errinfo *ei) {
    must(oc_image_decode((const uint8_t *)b->bytes.p, b->bytes.n, NULL, &b->img, ei), ei);
    must(oc_picture_rules_plan(&b->rules, b->img.width, b->img.height, NULL, 0, &b->plan, ei), ei);
    must(oc_image_resize(&b->img, b->plan.width, b->plan.height, b->plan.resample, &b->resized, ei), ei);
    b->patches = oc_pages_alloc(patch_bytes(b));
    b->fd = memfd_create("picture", MFD_CLOEXEC);
    if (!b->patches || b->fd < 0) stop("no memory");
    if (write(b->fd, b->bytes.p, b->bytes.n) != (ssize_t)b->bytes.n)
        stop("the picture cannot be written to memory");
    b->seen_fd = look_at(b, ei);
}

static void report(struct bench *b, int n_runs) {
    const double megapixels = b->img.width * (double)b->img.height / 1e6;
    printf("%s: %d x %d (%.2f MP, %zu KiB) to %d x %d, patches of %.1f MB\n", b->name, b->img.width,
           b->img.height, megapixels, b->bytes.n / 1024, b->plan.width, b->plan.height,
           (double)patch_bytes(b) / 1e6);
    for (int i = 0; i < N_PARTS; i++) {
        const struct oc_image_resample *loops =
            parts[i].run == run_resize ? oc_image_resample_at(parts[i].loops) : NULL;
        const double middle = median(b->ms[i], n_runs);
        if (parts[i].run == run_resize && (!loops || !loops->is_supported())) continue;
        printf("  %-8s %-10s %8.3f ms %8.3f ms a megapixel  (least %.3f)\n", parts[i].name,
               loops ? loops->name : "", middle, middle / megapixels, b->ms[i][0]);
    }
}

/* Of this thread: what others do on the machine counts less. */
static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void measure(const char *path, const struct oc_picture_rules *rules, int n_runs) {
    static struct bench b;
    struct oc_errinfo ei;
    struct oc_arena a;
    b = (struct bench){.name = path, .rules = *rules};
    oc_arena_init(&a, (size_t)256 << 20);
    must(oc_file_read(&a, path, (size_t)128 << 20, &b.bytes, &ei), &ei);
    open_picture(&b, &ei);
    for (int run = 0; run < n_runs; run++) {
        for (int i = 0; i < N_PARTS; i++) {
            const double start_ms = now_ms();
            parts[i].run(&b, &parts[i], &ei);
            b.ms[i][run] = now_ms() - start_ms;
        }
    }
    report(&b, n_runs);
    close(b.fd);
    close(b.seen_fd);
    free(b.patches);
    oc_image_free(&b.img);
    oc_image_free(&b.resized);
    oc_arena_free(&a);
}

static void usage(void) {
    stop("usage: bench_picture [--max-pixels N] [--runs N] FILE...");
}

int main(int argc, char **argv) {
    struct oc_picture_rules rules = {.kind = OC_MODELS_PICTURES_GRID,
                                     .patch = 14,
                                     .merge = 2,
                                     .temporal = 2,
                                     .resample = OC_RESAMPLE_BICUBIC,
                                     .max_tokens = 16384,
                                     .min_pixels = 56 * 56,
                                     .max_pixels = 16384 * 784,
                                     .rescale = 1 / 255.0,
                                     .mean = {0.48145466, 0.4578275, 0.40821073},
                                     .std = {0.26862954, 0.26130258, 0.27577711}};
    long n_runs = 51;
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        const long v = strtol(argv[at + 1], NULL, 10);
        if (!strcmp(argv[at], "--max-pixels"))
            rules.max_pixels = v;
        else if (!strcmp(argv[at], "--runs"))
            n_runs = v;
        else
            usage();
    }
    if (at >= argc || n_runs < 1 || n_runs > MAX_RUNS || rules.max_pixels < rules.min_pixels) usage();
    mallopt(M_MMAP_THRESHOLD,
            1 << 20); /* large blocks are new each time, as in a process that looks at its first picture */
    for (; at < argc; at++) measure(argv[at], &rules, (int)n_runs);
    return 0;
}
