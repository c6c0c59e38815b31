/* An image-worker in a child process, jailed as in the server: pictures that are good, hostile, too large. What it
 * makes of them is compared with the same done here. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/digest.h"
#include "base/file.h"
#include "image/decode.h"
#include "image/resize.h"
#include "ipc/channel.h"
#include "ipc/messages.h"
#include "worker/convert.h"
#include "worker/jail.h"
#include "worker/worker.h"

static const struct oc_picture_rules rules = {.kind = 1, .patch = 14, .merge = 2, .temporal = 2, .resample = OC_RESAMPLE_BICUBIC,
                                              .max_tokens = 1024, .min_pixels = 3136, .max_pixels = 1003520, .rescale = 1 / 255.0,
                                              .mean = {0.48, 0.46, 0.41}, .std = {0.27, 0.26, 0.28}};

struct eye {
    pid_t pid;
    struct oc_ipc_channel *channel;
    uint64_t id;
};

static void open_eye(struct eye *e) {
    int fds[2];
    struct oc_errinfo ei;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    fflush(NULL);
    e->pid = fork();
    e->id = 0;
    if (e->pid == 0) {
        const struct oc_image_worker_options o = {.socket_fd = fds[1]};
        _exit(oc_image_worker_main(&o));
    }
    close(fds[1]);
    assert_int_equal(oc_ipc_channel_open(fds[0], &e->channel, &ei), OC_OK);
}

/* Closes the socket: the image-worker must end by itself, with code 0. */
static void close_eye(struct eye *e) {
    int status = -1;
    oc_ipc_channel_close(e->channel);
    assert_int_equal(waitpid(e->pid, &status, 0), e->pid);
    assert_int_equal(status, 0);
}

static int memfd_of(const void *bytes, size_t n) {
    int fd = memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    if (n) assert_int_equal(write(fd, bytes, n), n);
    return fd;
}

static struct oc_ipc_look make_look(void) {
    struct oc_ipc_look m = {0};
    oc_worker_convert_rules_out(&rules, &m.rules);
    return m;
}

/* Sends one picture and waits for its answer. */
static uint16_t ask(struct eye *e, const struct oc_ipc_look *m, const int *fds, int n_fds, struct oc_ipc_seen *seen,
                    struct oc_ipc_unseen *unseen, char message[OC_ERRINFO_MAX], int *pixels_fd) {
    struct oc_buf b;
    struct oc_errinfo ei;
    struct oc_ipc_frame f;
    struct oc_arena a;
    enum oc_ipc_got got;
    oc_buf_init(&b, OC_MIB);
    oc_arena_init(&a, 0);
    assert_true(oc_ipc_look_write(&b, m));
    assert_int_equal(oc_ipc_channel_send(e->channel, OC_IPC_LOOK, ++e->id, b.data, b.n_bytes, fds, n_fds, &ei), OC_OK);
    oc_buf_free(&b);
    assert_int_equal(oc_ipc_channel_receive(e->channel, 60000, &f, &got, &ei), OC_OK);
    assert_int_equal(got, OC_IPC_FRAME);
    assert_int_equal(f.id, e->id);
    if (f.type == OC_IPC_SEEN) {
        assert_int_equal(oc_ipc_seen_read(&a, f.payload, f.n_bytes, seen, &ei), OC_OK);
        assert_int_equal(f.n_fds, 1);
        *pixels_fd = f.fds[0];
        f.fds[0] = -1;
    } else {
        assert_int_equal(f.type, OC_IPC_UNSEEN);
        assert_int_equal(f.n_fds, 0);
        assert_int_equal(oc_ipc_unseen_read(&a, f.payload, f.n_bytes, unseen, &ei), OC_OK);
        assert_true(unseen->message.n > 0 && unseen->message.n < OC_ERRINFO_MAX && unseen->err != OC_OK);
        memcpy(message, unseen->message.p, unseen->message.n);
        message[unseen->message.n] = '\0';
    }
    return f.type;
}

static void check_pixels(const struct oc_picture_plan *plan, const uint8_t *expected, int fd) {
    const size_t n = (size_t)plan->width * (size_t)plan->height * 3;
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, n);
    assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    void *p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(p != MAP_FAILED);
    assert_memory_equal(p, expected, n);
    munmap(p, n);
    close(fd);
}

/* The same here, without a child; both must agree on success, values and error. True when it was a picture. */
static bool compare(struct eye *e, const void *bytes, size_t n, const struct oc_ipc_look *look, uint8_t digest[32]) {
    struct oc_image img;
    struct oc_picture_plan plan;
    struct oc_errinfo ei;
    struct oc_ipc_seen seen;
    struct oc_ipc_unseen unseen;
    char message[OC_ERRINFO_MAX];
    int pixels_fd = -1;
    const int fd = memfd_of(bytes, n);
    const struct oc_picture_limits lim = {look->min_pixels, look->max_pixels};
    const struct oc_image_limits max = {look->max_bytes, look->max_side_px, look->max_image_pixels};
    const uint16_t type = ask(e, look, &fd, 1, &seen, &unseen, message, &pixels_fd);
    enum oc_err err = oc_image_decode(bytes, n, &max, &img, &ei);
    if (!err) err = oc_picture_rules_plan(&rules, img.width, img.height, &lim, look->max_tokens, &plan, &ei);
    if (err) {
        assert_int_equal(type, OC_IPC_UNSEEN);
        assert_int_equal(unseen.err, err);
        assert_string_equal(message, ei.msg);
        oc_image_free(&img);
        return false;
    }
    assert_int_equal(type, OC_IPC_SEEN);
    assert_true(seen.width == img.width && seen.height == img.height && seen.decode_ms >= 0 && seen.resize_ms >= 0);
    struct oc_picture_plan back;
    assert_int_equal(oc_worker_convert_plan(&seen.plan, &rules, &back, &ei), OC_OK);
    assert_true(back.width == plan.width && back.height == plan.height && back.n_tokens == plan.n_tokens);
    struct oc_image expected;
    assert_int_equal(oc_image_resize(&img, plan.width, plan.height, plan.resample, &expected, &ei), OC_OK);
    check_pixels(&plan, expected.rgb, pixels_fd);
    if (digest) memcpy(digest, seen.digest, 32);
    oc_image_free(&expected);
    oc_image_free(&img);
    return true;
}

static struct oc_str read_file(struct oc_arena *a, const char *path) {
    struct oc_str s;
    struct oc_errinfo ei;
    assert_int_equal(oc_file_read(a, path, OC_LIMIT_IMAGE_BYTES, &s, &ei), OC_OK);
    return s;
}

/* Every picture of the fuzzing corpora: as it is, cut short, and with flipped bits. */
static void test_pictures_good_and_hostile(void **state) {
    (void)state;
    static const char *const kinds[] = {"jpeg", "png", "webp", "gif", "bmp"};
    const struct oc_ipc_look look = make_look();
    struct eye e;
    int n_good = 0, n_bad = 0;
    open_eye(&e);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        char folder[512], path[1024];
        snprintf(folder, sizeof folder, "%s/fuzz/corpus/%s", OC_TEST_DIR, kinds[k]);
        DIR *d = opendir(folder);
        assert_non_null(d);
        for (struct dirent *entry; (entry = readdir(d));) {
            struct oc_arena a;
            if (entry->d_name[0] == '.') continue;
            oc_arena_init(&a, OC_LIMIT_IMAGE_BYTES);
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            struct oc_str s = read_file(&a, path);
            bool good = compare(&e, s.p, s.n, &look, NULL);
            n_good += good, n_bad += !good;
            for (int i = 1; i < 6; i++) n_bad += !compare(&e, s.p, s.n * (size_t)i / 6, &look, NULL);
            for (int i = 0; i < 8; i++) {
                char *copy = oc_arena_strndup(&a, s.p, s.n);
                copy[s.n * (size_t)i / 8] ^= (char)(1 << i);
                good = compare(&e, copy, s.n, &look, NULL);
                n_good += good, n_bad += !good;
            }
            oc_arena_free(&a);
        }
        closedir(d);
    }
    close_eye(&e);
    print_message("%d pictures seen, %d refused\n", n_good, n_bad);
    assert_true(n_good > 40 && n_bad > 100);
}

/* A BMP of 24 bits a pixel. */
static uint8_t *make_bmp(int width, int height, size_t *n, unsigned seed) {
    const size_t row = ((size_t)width * 3 + 3) / 4 * 4;
    *n = 54 + row * (size_t)height;
    uint8_t *p = calloc(1, *n);
    const uint32_t head[] = {(uint32_t)*n, 0, 54, 40, (uint32_t)width, (uint32_t)height, 1 | 24 << 16};
    memcpy(p, "BM", 2);
    memcpy(p + 2, head, sizeof head);
    for (size_t i = 54; i < *n; i++) p[i] = (uint8_t)(i * seed + (i >> 7));
    return p;
}

static void test_sizes_and_digests(void **state) {
    (void)state;
    struct oc_ipc_look look = make_look();
    struct eye e;
    size_t n;
    uint8_t first[32], again[32], other[32];
    open_eye(&e);
    uint8_t *bmp = make_bmp(1355, 710, &n, 11);
    assert_true(compare(&e, bmp, n, &look, first));
    assert_true(compare(&e, bmp, n, &look, again));
    assert_memory_equal(first, again, 32);
    look.max_tokens = 256; /* another plan, another digest */
    assert_true(compare(&e, bmp, n, &look, other));
    assert_memory_not_equal(first, other, 32);
    look.max_tokens = 0;
    look.max_pixels = 100000;
    assert_true(compare(&e, bmp, n, &look, other));
    assert_memory_not_equal(first, other, 32);
    look.max_pixels = 0;
    bmp[5000] ^= 1; /* another pixel likewise */
    assert_true(compare(&e, bmp, n, &look, other));
    assert_memory_not_equal(first, other, 32);
    free(bmp);
    bmp = make_bmp(3000, 2000, &n, 3);
    for (int i = 0; i < 3; i++) assert_true(compare(&e, bmp, n, &look, NULL));
    free(bmp);
    close_eye(&e);
}

static void expect_unseen(struct eye *e, const struct oc_ipc_look *look, const int *fds, int n_fds, enum oc_err err, const char *word) {
    struct oc_ipc_seen seen;
    struct oc_ipc_unseen unseen;
    char message[OC_ERRINFO_MAX];
    int pixels_fd;
    assert_int_equal(ask(e, look, fds, n_fds, &seen, &unseen, message, &pixels_fd), OC_IPC_UNSEEN);
    assert_int_equal(unseen.err, err);
    if (!strstr(message, word)) fail_msg("'%s' is not in '%s'", word, message);
}

static void test_over_the_limits(void **state) {
    (void)state;
    struct oc_ipc_look look = make_look();
    struct eye e;
    size_t n;
    uint8_t *bmp = make_bmp(200, 100, &n, 11), *thin = make_bmp(900, 4, &(size_t){0}, 7);
    open_eye(&e);
    int fd = memfd_of(bmp, n);
    look.max_bytes = n - 1;
    expect_unseen(&e, &look, &fd, 1, OC_ERR_LIMIT, "bytes is over the limit");
    look.max_bytes = n;
    look.max_side_px = 199;
    fd = memfd_of(bmp, n);
    expect_unseen(&e, &look, &fd, 1, OC_ERR_LIMIT, "199 pixels a side");
    look.max_side_px = 200;
    look.max_image_pixels = 19999;
    fd = memfd_of(bmp, n);
    expect_unseen(&e, &look, &fd, 1, OC_ERR_LIMIT, "19999 pixels");
    look.max_image_pixels = 20000;
    assert_true(compare(&e, bmp, n, &look, NULL));
    look = make_look();
    fd = memfd_of(thin, 54 + 2700 * 4);
    expect_unseen(&e, &look, &fd, 1, OC_ERR_LIMIT, "factor of 200");
    fd = memfd_create("large", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)OC_LIMIT_IMAGE_BYTES + 1), 0);
    expect_unseen(&e, &look, &fd, 1, OC_ERR_LIMIT, "over the limit");
    /* 100 million pixels in a few bytes, which a header may claim, and one more */
    static const int widths[] = {10000, 10001};
    for (int i = 0; i < 2; i++) {
        bmp[18] = (uint8_t)widths[i], bmp[19] = (uint8_t)(widths[i] >> 8);
        bmp[22] = 10000 & 255, bmp[23] = 10000 >> 8;
        fd = memfd_of(bmp, n);
        expect_unseen(&e, &look, &fd, 1, i ? OC_ERR_LIMIT : OC_ERR_FORMAT, "BMP");
    }
    free(bmp);
    free(thin);
    close_eye(&e);
}

static void test_requests_that_make_no_sense(void **state) {
    (void)state;
    struct oc_ipc_look look = make_look();
    struct eye e;
    size_t n;
    int pipes[2], fds[2];
    uint8_t *bmp = make_bmp(64, 64, &n, 11);
    open_eye(&e);
    expect_unseen(&e, &look, NULL, 0, OC_ERR_FORMAT, "0 descriptors");
    fds[0] = memfd_of(bmp, n), fds[1] = memfd_of(bmp, n);
    expect_unseen(&e, &look, fds, 2, OC_ERR_FORMAT, "2 descriptors");
    assert_int_equal(pipe(pipes), 0);
    expect_unseen(&e, &look, pipes, 1, OC_ERR_IO, "cannot be read");
    close(pipes[1]);
    fds[0] = memfd_of(NULL, 0);
    expect_unseen(&e, &look, fds, 1, OC_ERR_UNSUPPORTED, "no picture");
    static const struct {
        size_t offset;
        int32_t value;
        enum oc_err err;
    } lies[] = {
#define AT(f) offsetof(struct oc_ipc_look, rules.f)
        {AT(patch), 0, OC_ERR_FORMAT}, {AT(patch), INT32_MAX, OC_ERR_FORMAT}, {AT(merge), -1, OC_ERR_FORMAT}, {AT(temporal), 1 << 30, OC_ERR_FORMAT},
        {AT(resample), 77, OC_ERR_FORMAT}, {AT(max_tokens), 0, OC_ERR_FORMAT}, {AT(max_tokens), INT32_MAX, OC_ERR_FORMAT},
        {AT(kind), 99, OC_ERR_FORMAT}, {AT(kind), 0, OC_ERR_UNSUPPORTED},
#undef AT
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        look = make_look();
        memcpy((char *)&look + lies[i].offset, &lies[i].value, 4);
        fds[0] = memfd_of(bmp, n);
        expect_unseen(&e, &look, fds, 1, lies[i].err, "");
    }
    look = make_look();
    assert_true(compare(&e, bmp, n, &look, NULL)); /* and it still works */
    free(bmp);
    close_eye(&e);
}

/* Rules that make a picture larger than pixels may be are refused, and memory that is not there is an error. */
static void test_pixels_over_the_limit(void **state) {
    (void)state;
    struct oc_ipc_look look = make_look();
    struct eye e;
    size_t n;
    uint8_t *bmp = make_bmp(64, 64, &n, 11);
    open_eye(&e);
    look.rules.max_tokens = OC_LIMIT_CTX_TOKENS;
    look.rules.min_pixels = look.rules.max_pixels = 90 * 1000 * 1000;
    int fd = memfd_of(bmp, n);
    expect_unseen(&e, &look, &fd, 1, OC_ERR_LIMIT, "over the limit of 128 MiB");
    free(bmp);
    close_eye(&e);
}

static void test_messages_for_others_end_it(void **state) {
    (void)state;
    struct eye e;
    struct oc_errinfo ei;
    int status;
    open_eye(&e);
    assert_int_equal(oc_ipc_channel_send(e.channel, OC_IPC_CANCEL, 1, "", 0, NULL, 0, &ei), OC_OK);
    assert_int_equal(waitpid(e.pid, &status, 0), e.pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    oc_ipc_channel_close(e.channel);
    open_eye(&e);
    assert_int_equal(oc_ipc_channel_send(e.channel, OC_IPC_SHUTDOWN, 0, "", 0, NULL, 0, &ei), OC_OK);
    assert_int_equal(waitpid(e.pid, &status, 0), e.pid);
    assert_int_equal(status, 0);
    oc_ipc_channel_close(e.channel);
}

static long resident_kib(pid_t pid) {
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmRSS:", 6)) kib = strtol(line + 6, NULL, 10);
    if (f) fclose(f);
    return kib;
}

static void test_memory_comes_back(void **state) {
    (void)state;
    const struct oc_ipc_look look = make_look();
    struct eye e;
    size_t n, n_large;
    if (!oc_worker_jail_is_possible()) skip(); /* a sanitizer keeps what was freed */
    uint8_t *small = make_bmp(64, 64, &n, 11), *large = make_bmp(4000, 4000, &n_large, 5);
    open_eye(&e);
    assert_true(compare(&e, small, n, &look, NULL));
    const long before_kib = resident_kib(e.pid);
    for (int i = 0; i < 3; i++) assert_true(compare(&e, large, n_large, &look, NULL));
    assert_true(before_kib > 0 && resident_kib(e.pid) - before_kib < 8 * 1024);
    free(small);
    free(large);
    close_eye(&e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures_good_and_hostile), cmocka_unit_test(test_sizes_and_digests),
        cmocka_unit_test(test_over_the_limits),           cmocka_unit_test(test_requests_that_make_no_sense),
        cmocka_unit_test(test_pixels_over_the_limit),    cmocka_unit_test(test_messages_for_others_end_it),
        cmocka_unit_test(test_memory_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
