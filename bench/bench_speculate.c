/* bench_speculate [--device cuda:PLUGIN] MODEL_DIR [THREADS [TOKENS [TEXT_FILE]...]]: what drafts gain and cost, plain and speculated in one run.
 *
 * First the cost of a step of 1 to 8 rows of one sequence, in steps of one row. Then texts: the model is made to say a given
 * text (a hook puts its tokens in place of the picked ones), so that the text decides how often drafts come true while
 * steps cost what they cost; the same text is said plain and speculated in turn, and the medians are compared. Texts: a
 * table as JSON, ordinary prose, and files. Each is also replayed without the model, with the costs of the first part, which
 * other programs on the machine disturb less. At last what the model says of its own accord, where both must agree. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "bench_device.h"
#include "base/file.h"
#include "base/limits.h"
#include "chat/tokenizer.h"
#include "engine/sched.h"
#include "median.h"

#define N_ROUNDS 3
#define N_PROMPT 32
#define MAX_TEXT 4096

struct bench {
    struct oc_engine *e;
    struct oc_chat_tokenizer *tok;
    int max_tokens; /* said of a text */
    int32_t text[MAX_TEXT];
    int n_text;
    bool is_forced;
    int32_t said[2][MAX_TEXT]; /* plain, speculated */
    int n_said[2], now;
    double ratio[OC_ENGINE_DRAFT_ROWS + 1]; /* what 1 + i rows cost, in steps of one */
    struct oc_engine_speculation learnt; /* outlives a scheduler, as it would in a server */
};

static void stop(const char *what) {
    fprintf(stderr, "bench_speculate: %s\n", what);
    exit(1);
}

/* ---- The cost of rows ------------------------------------------------------------------------------------- */

static double step_ms(struct oc_session *s, int n_rows) {
    static const int32_t tokens[OC_ENGINE_DRAFT_ROWS + 1] = {5, 6, 7, 8, 9, 10, 11, 12};
    struct oc_errinfo ei;
    uint64_t start_ns = oc_clock_ns();
    if (oc_session_decode_several(s, tokens, n_rows, &ei) != OC_OK) stop(ei.msg);
    double ms = oc_clock_ms_since(start_ns);
    oc_session_truncate(s, N_PROMPT);
    return ms;
}

static void measure_rows(struct bench *b) {
    enum { N = 15 };
    double ms[OC_ENGINE_DRAFT_ROWS + 1][N], one = 0;
    struct oc_session *s;
    struct oc_errinfo ei;
    if (oc_session_open(b->e, N_PROMPT + 16, &s, &ei) != OC_OK) stop(ei.msg);
    if (oc_session_prefill(s, &(struct oc_prompt){.tokens = b->text, .n_tokens = N_PROMPT}, NULL, NULL, &ei) != OC_OK) stop(ei.msg);
    for (int i = -1; i < N; i++)
        for (int r = 0; r <= OC_ENGINE_DRAFT_ROWS; r++) ms[r][i < 0 ? 0 : i] = step_ms(s, r + 1);
    for (int r = 0; r <= OC_ENGINE_DRAFT_ROWS; r++) {
        double m = median(ms[r], N);
        if (r == 0) one = m;
        b->ratio[r] = m / one;
        printf("rows,%d,ms,%.2f,of_one,%.2f\n", r + 1, m, m / one);
    }
    oc_session_close(s);
}

/* ---- Texts ------------------------------------------------------------------------------------------------ */

static int32_t say(void *arg, const struct oc_sched_task *t, int n_output, int32_t picked) {
    const struct bench *b = arg;
    (void)t;
    return b->is_forced ? b->text[N_PROMPT + n_output] : picked;
}

static void on_token(void *arg, uint64_t id, const struct oc_lm_sample_pick *pick) {
    struct bench *b = arg;
    (void)id;
    b->said[b->now][b->n_said[b->now]++] = pick->token;
}

static void on_done(void *arg, uint64_t id, const struct oc_sched_done *done) {
    (void)arg, (void)id;
    if (done->finish == OC_SCHED_ERROR) stop(done->error.msg);
}

/* Says the text's first tokens behind its prompt; returns the milliseconds from the first token to the last. */
static double run(struct bench *b, bool speculate, int n_tokens, struct oc_sched_figures *f) {
    struct oc_scheduler *s;
    struct oc_errinfo ei;
    struct oc_sched_events ev = {.arg = b, .on_token = on_token, .on_done = on_done};
    struct oc_sched_job job = {.id = 1, .tokens = b->text, .n_tokens = N_PROMPT, .max_tokens = n_tokens};
    job.sample = oc_lm_sample_defaults();
    if (oc_scheduler_open(b->e, &(struct oc_sched_params){.speculate = speculate}, &ev, &s, &ei) != OC_OK) stop(ei.msg);
    s->hook = (struct oc_sched_hook){.arg = b, .token = say};
    s->speculation = b->learnt;
    b->now = speculate;
    b->n_said[b->now] = 0;
    if (oc_scheduler_add(s, &job, &ei) != OC_OK) stop(ei.msg);
    while (s->n_decoding == 0) oc_scheduler_step(s);
    uint64_t start_ns = oc_clock_ns();
    while (oc_scheduler_step(s)) {}
    double ms = oc_clock_ms_since(start_ns);
    oc_scheduler_figures(s, f);
    if (speculate) b->learnt = s->speculation;
    oc_scheduler_close(s);
    return ms;
}

static void measure_text(struct bench *b, const char *name, int n_tokens) {
    double ms[2][N_ROUNDS], ratios[N_ROUNDS];
    struct oc_sched_figures f = {0}, plain;
    run(b, true, n_tokens, &f); /* warm, and what is learnt the first time */
    for (int i = 0; i < N_ROUNDS; i++) {
        ms[i % 2][i] = run(b, i % 2, n_tokens, i % 2 ? &f : &plain);
        ms[(i + 1) % 2][i] = run(b, (i + 1) % 2, n_tokens, i % 2 ? &plain : &f);
        ratios[i] = ms[0][i] / ms[1][i];
        if (b->n_said[0] != b->n_said[1] || memcmp(b->said[0], b->said[1], (size_t)b->n_said[0] * sizeof **b->said) != 0)
            stop("plain and speculated differ");
    }
    double best = ratios[0], worst = ratios[0];
    for (int i = 1; i < N_ROUNDS; i++) best = ratios[i] > best ? ratios[i] : best, worst = ratios[i] < worst ? ratios[i] : worst;
    printf("text,%s,tokens,%d,plain_tok_s,%.1f,speculated_tok_s,%.1f,gain,%.2f,least,%.2f,most,%.2f,drafted,%llu,accepted,%llu\n", name,
           b->n_said[0], (b->n_said[0] - 1) * 1e3 / median(ms[0], N_ROUNDS), (b->n_said[1] - 1) * 1e3 / median(ms[1], N_ROUNDS),
           median(ratios, N_ROUNDS), worst, best, (unsigned long long)f.n_drafted, (unsigned long long)f.n_accepted);
}

static void take_text(struct bench *b, const char *text, size_t n) {
    struct oc_chat_ids ids;
    struct oc_errinfo ei;
    oc_chat_ids_init(&ids, OC_MIB);
    if (oc_chat_tokenizer_encode(b->tok, (struct oc_str){text, n}, NULL, 0, &ids, &ei) != OC_OK) stop(ei.msg);
    b->n_text = ids.n < MAX_TEXT ? (int)ids.n : MAX_TEXT;
    if (b->n_text <= N_PROMPT + 8) stop("a text of too few tokens");
    for (int i = 0; i < b->n_text; i++) b->text[i] = (int32_t)ids.v[i];
    oc_chat_ids_free(&ids);
}

/* The gain by the costs that were measured above, all else free: what a machine without other work would show. */
static double replay(const struct bench *b, int n_tokens) {
    struct oc_engine_ngram g;
    struct oc_engine_speculation s = {0};
    struct oc_errinfo ei;
    double spent = 0;
    int end = N_PROMPT + n_tokens;
    if (oc_engine_ngram_open(&g, end, -1, &ei) != OC_OK) stop(ei.msg);
    oc_engine_ngram_prompt(&g, b->text, N_PROMPT);
    for (int at = N_PROMPT; at < end;) {
        struct oc_engine_draft d;
        int left = end - at - 1;
        d.n = oc_engine_ngram_draft(&g, left < OC_ENGINE_DRAFT_ROWS ? left : OC_ENGINE_DRAFT_ROWS, d.tokens, d.odds);
        oc_engine_speculate_choose(&s, &d, 1);
        oc_engine_speculate_learn(&s, 1, d.n, b->ratio[d.n]);
        spent += b->ratio[d.n];
        for (int k = 0; k <= d.n; k++) {
            oc_engine_ngram_push(&g, b->text[at++]);
            if (k == d.n || d.tokens[k] != b->text[at - 1]) break;
        }
    }
    oc_engine_ngram_close(&g);
    return n_tokens / spent;
}

static void measure_forced(struct bench *b, const char *name, const char *text, size_t n) {
    take_text(b, text, n);
    int left = b->n_text - N_PROMPT;
    for (int n_tokens = 100; n_tokens <= left; n_tokens *= 2) printf("replay,%s,tokens,%d,gain,%.2f\n", name, n_tokens, replay(b, n_tokens));
    b->is_forced = true;
    measure_text(b, name, left < b->max_tokens ? left : b->max_tokens);
    b->is_forced = false;
}

/* Rows of a table, of which the values differ. */
static size_t make_table(char *out, size_t cap) {
    static const char *const towns[] = {"Aachen", "Bremen", "Celle", "Dresden", "Emden", "Fulda", "Goslar", "Hamm", "Jena", "Kassel"};
    uint32_t x = 12345;
    size_t n = (size_t)snprintf(out, cap, "Stations as JSON:\n[\n");
    for (int i = 0; n + 256 < cap; i++) {
        x = x * 1664525u + 1013904223u;
        n += (size_t)snprintf(out + n, cap - n,
                              "  {\"id\": %d, \"name\": \"%s\", \"box\": [%u, %u, %u, %u], \"label\": \"station\", \"open\": %s},\n", i,
                              towns[x >> 28 & 7], x >> 8 & 511, x >> 12 & 511, x >> 16 & 511, x >> 20 & 511, x >> 30 & 1 ? "true" : "false");
    }
    return n;
}

/* The same with values that seldom differ. */
static size_t make_like_rows(char *out, size_t cap) {
    size_t n = (size_t)snprintf(out, cap, "Rows of the form, as JSON:\n[\n");
    for (int i = 1; n + 256 < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "  {\"row\": %d, \"type\": \"text\", \"required\": false, \"value\": null, \"errors\": []},\n", i);
    return n;
}

static const char prose[] =
    "The harbour lies in a bend of the river where the current is slow enough for small boats to turn. In the morning the "
    "fishermen bring what they caught at night, and by nine the market hall smells of salt and smoke. Tourists come later, when "
    "the fog has lifted, and walk along the old wall up to the lighthouse. It was built after the storm of 1872, which drowned "
    "more than two hundred people and changed the coast for ever: before it, a spit of sand had kept the worst waves away. "
    "Nobody had thought that it could vanish within a single night. The engineer who drew the plans, a quiet man from the south, "
    "had never seen the sea before he was sent here, yet his tower still stands without a crack. Inside there is a museum now. "
    "Children may climb the stairs, count them, and ring the bell at the top if the keeper is in a good mood. From the gallery "
    "one sees three countries on a clear day, or so the leaflet claims; most visitors are content with the view of the ferries, "
    "which cross every half hour and leave long white lines behind them. In winter the place is almost empty. The cafe closes, "
    "the windows are boarded up, and the keeper writes letters to friends abroad about ice, loneliness and the strange light in "
    "January, when the sun hangs low over the marshes and everything looks as if it were made of copper. He has been offered "
    "a post in the city twice. Each time he asked for a week to think, walked out to the end of the pier, and declined. ";

static void measure_files(struct bench *b, int argc, char **argv) {
    for (int i = 4; i < argc; i++) {
        struct oc_map m;
        struct oc_errinfo ei;
        if (oc_map_open(argv[i], &m, &ei) != OC_OK) stop(ei.msg);
        measure_forced(b, argv[i], (const char *)m.data, m.n_bytes);
        oc_map_close(&m);
    }
}

static int number(int argc, char **argv, int at, int otherwise) {
    return argc > at ? (int)strtol(argv[at], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    static struct bench b;
    static char table[24000];
    char path[4096];
    struct oc_errinfo ei;
    struct oc_engine_params p = {.ctx_tokens = MAX_TEXT};
    if (!bench_device(&argc, argv, &p) || argc < 2) stop("usage: bench_speculate [--device cuda:PLUGIN] MODEL_DIR [THREADS [TOKENS [TEXT_FILE]...]]");
    b.max_tokens = number(argc, argv, 3, 300);
    if (b.max_tokens < 16 || b.max_tokens > MAX_TEXT - N_PROMPT) stop("TOKENS: 16 to 4064");
    p.model_dir = argv[1];
    p.n_threads = number(argc, argv, 2, 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", argv[1]);
    if (oc_engine_open(&p, &b.e, &ei) != OC_OK || oc_chat_tokenizer_open(path, NULL, &b.tok, &ei) != OC_OK) stop(ei.msg);
    size_t n = make_table(table, sizeof table);
    take_text(&b, table, n);
    measure_rows(&b);
    measure_forced(&b, "table", table, n);
    n = make_like_rows(table, sizeof table);
    measure_forced(&b, "like_rows", table, n);
    measure_forced(&b, "prose", prose, sizeof prose - 1);
    measure_text(&b, "own", b.max_tokens);
    measure_files(&b, argc, argv);
    oc_chat_tokenizer_close(b.tok);
    oc_engine_close(b.e);
    return 0;
}
