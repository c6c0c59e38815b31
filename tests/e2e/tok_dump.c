/* Test tool: encodes and decodes cases from stdin, for tools/check_tokenizer.py, or times one file.
 *
 * tok_dump TOKENIZER_JSON [CONFIG_JSON]: stdin holds cases, each u32 flags (1: an origin follows; 2: add what the
 * post-processor adds), u32 n_bytes, the bytes, the origin. stdout, per case: u32 n_ids, ids, and twice (special
 * tokens kept, skipped) u32 n_bytes and the decoded text. Numbers are little-endian.
 * tok_dump --bench TOKENIZER_JSON FILE: prints load time and MB/s, best of 5, in processor time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/limits.h"
#include "chat/detok.h"

static struct oc_errinfo ei;

static void must(enum oc_err err) {
    if (err == OC_OK) return;
    fprintf(stderr, "tok_dump: %s\n", ei.msg);
    exit(1);
}

static void put_block(const void *p, size_t n, size_t size) {
    uint32_t n32 = (uint32_t)n;
    fwrite(&n32, 4, 1, stdout);
    fwrite(p, size, n, stdout);
}

static void put_decoded(const struct oc_chat_tokenizer *tok, const struct oc_chat_ids *ids, bool skip) {
    struct oc_buf out;
    oc_buf_init(&out, OC_GIB);
    must(oc_chat_detok_all(tok, ids->v, ids->n, skip, &out, &ei));
    put_block(oc_buf_str(&out), out.n_bytes, 1);
    oc_buf_free(&out);
}

static bool one_case(const struct oc_chat_tokenizer *tok) {
    uint32_t head[2];
    struct oc_chat_ids ids;
    if (fread(head, 4, 2, stdin) != 2) return false;
    if (head[1] > OC_LIMIT_PROMPT_BYTES) exit(2);
    char *text = malloc(head[1] + 1);
    uint8_t *origin = malloc(head[1] + 1);
    if (!text || !origin || fread(text, 1, head[1], stdin) != head[1]) exit(2);
    if ((head[0] & 1) && fread(origin, 1, head[1], stdin) != head[1]) exit(2);
    oc_chat_ids_init(&ids, OC_GIB);
    must(oc_chat_tokenizer_encode(tok, (struct oc_str){text, head[1]}, head[0] & 1 ? origin : NULL,
                                  head[0] & 2 ? OC_CHAT_ENCODE_ADD_SPECIAL : 0, &ids, &ei));
    put_block(ids.v, ids.n, 4);
    put_decoded(tok, &ids, false);
    put_decoded(tok, &ids, true);
    oc_chat_ids_free(&ids);
    free(text);
    free(origin);
    return true;
}

/* Processor time: the machine may be shared. */
static double cpu_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static int bench(const char *tokenizer, const char *file) {
    struct oc_chat_tokenizer *tok;
    struct oc_arena arena;
    struct oc_str text;
    double t0 = cpu_ms();
    must(oc_chat_tokenizer_open(tokenizer, NULL, &tok, &ei));
    printf("load %.1f ms of processor time\n", cpu_ms() - t0);
    oc_arena_init(&arena, OC_GIB);
    must(oc_file_read(&arena, file, OC_LIMIT_PROMPT_BYTES, &text, &ei));
    double best_ms = 1e30;
    size_t n_ids = 0;
    for (int i = 0; i < 5; i++) {
        struct oc_chat_ids ids;
        oc_chat_ids_init(&ids, OC_GIB);
        double t = cpu_ms();
        must(oc_chat_tokenizer_encode(tok, text, NULL, 0, &ids, &ei));
        double ms = cpu_ms() - t;
        if (ms < best_ms) best_ms = ms;
        n_ids = ids.n;
        oc_chat_ids_free(&ids);
    }
    printf("%s: %zu bytes, %zu tokens, %.1f ms, %.2f MB/s\n", file, text.n, n_ids, best_ms,
           (double)text.n / 1e3 / best_ms);
    oc_arena_free(&arena);
    oc_chat_tokenizer_close(tok);
    return 0;
}

int main(int argc, char **argv) {
    struct oc_chat_tokenizer *tok;
    if (argc == 4 && strcmp(argv[1], "--bench") == 0) return bench(argv[2], argv[3]);
    if (argc < 2) return 2;
    must(oc_chat_tokenizer_open(argv[1], argc > 2 ? argv[2] : NULL, &tok, &ei));
    while (one_case(tok)) continue;
    oc_chat_tokenizer_close(tok);
    return 0;
}
