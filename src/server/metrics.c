#include "server/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/str.h"

#define MAX_BOUNDS 24
#define MAX_BOUND_BYTES 12
#define BUCKETS(name, ...) static const double bounds_##name[] = {__VA_ARGS__};
#include "server/metrics.def"

struct info {
    const char *name, *help, *labels[2];
    enum oc_metric_kind kind;
    const double *bounds;
    int n_bounds;
};

static const struct info infos[OC_M_N] = {
#define X(ID, name, kind, help, label1, label2, buckets)                                                     \
    {name,                                                                                                   \
     help,                                                                                                   \
     {label1, label2},                                                                                       \
     OC_METRIC_##kind,                                                                                       \
     bounds_##buckets,                                                                                       \
     sizeof bounds_##buckets / sizeof(double)},
#include "server/metrics.def"
};

#define BUCKETS(name, ...)                                                                                   \
    _Static_assert(sizeof bounds_##name <= MAX_BOUNDS * sizeof(double), "too many buckets");
#include "server/metrics.def"

static const struct alias {
    const char *name, *help, *labels[2];
    enum oc_metric source;
    int from[2];
    const char *only;
    double scale;
} aliases[] = {
#define ALIAS(name, source, help, label1, from1, label2, from2, only, scale)                                 \
    {name, help, {label1, label2}, OC_M_##source, {from1, from2}, only, scale},
#include "server/metrics.def"
};
#define N_ALIASES (sizeof aliases / sizeof aliases[0])

struct series {
    char *values[2];              /* of the labels; NULL where the family has none */
    double value;                 /* of a counter or gauge; the sum of a histogram */
    uint64_t n_observed, *counts; /* of a histogram, not cumulative; the last is over the highest bound */
};

struct family {
    struct series *series;
    int n;
};

typedef char bound_texts[MAX_BOUNDS + 1][MAX_BOUND_BYTES];

struct oc_metrics {
    struct family families[OC_M_N];
    bound_texts bounds[OC_M_N]; /* of histograms, "+Inf" last */
};

static void series_free(struct series *s) {
    free(s->values[0]);
    free(s->values[1]);
    free(s->counts);
}

static void family_free(struct family *f) {
    for (int i = 0; i < f->n; i++) series_free(&f->series[i]);
    free(f->series);
}

static bool same_label(const char *a, const char *b) {
    return a == b || (a && b && strncmp(a, b, OC_LIMIT_METRIC_LABEL_BYTES) == 0);
}

static struct series *find(const struct family *f, const char *l1, const char *l2) {
    for (int i = 0; i < f->n; i++)
        if (same_label(f->series[i].values[0], l1) && same_label(f->series[i].values[1], l2))
            return &f->series[i];
    return NULL;
}

static struct series *append(struct family *f, const struct info *info, const char *l1, const char *l2) {
    struct series *bigger = realloc(f->series, (size_t)(f->n + 1) * sizeof *bigger), s = {0};
    if (!bigger) return NULL;
    f->series = bigger;
    if (l1) s.values[0] = strndup(l1, OC_LIMIT_METRIC_LABEL_BYTES);
    if (l2) s.values[1] = strndup(l2, OC_LIMIT_METRIC_LABEL_BYTES);
    if (info->kind == OC_METRIC_HISTOGRAM) s.counts = calloc((size_t)info->n_bounds + 1, sizeof *s.counts);
    bool ok = (s.values[0] || !l1) && (s.values[1] || !l2) && (s.counts || info->kind != OC_METRIC_HISTOGRAM);
    if (ok)
        f->series[f->n] = s;
    else
        series_free(&s);
    return ok ? &f->series[f->n++] : NULL;
}

/* The series of these labels, made when it is new; the one called "other" when there are too many. NULL: no
 * memory, and the number is lost. */
static struct series *take(struct family *f, const struct info *info, const char *l1, const char *l2) {
    struct series *s = find(f, l1, l2);
    if (s) return s;
    if (f->n >= OC_LIMIT_METRIC_SERIES - 1) {
        l1 = l1 ? "other" : NULL;
        l2 = l2 ? "other" : NULL;
        s = find(f, l1, l2);
        if (s) return s;
    }
    return append(f, info, l1, l2);
}

static struct series *series_of(struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2) {
    OC_ASSERT((unsigned)id < OC_M_N);
    OC_ASSERT(!l1 == !infos[id].labels[0] && !l2 == !infos[id].labels[1]);
    return take(&m->families[id], &infos[id], l1, l2);
}

enum oc_err oc_metrics_open(struct oc_metrics **out, struct oc_errinfo *ei) {
    struct oc_metrics *m = *out = calloc(1, sizeof *m);
    bool ok = m != NULL;
    for (int i = 0; ok && i < OC_M_N; i++) {
        for (int k = 0; k < infos[i].n_bounds; k++)
            snprintf(m->bounds[i][k], MAX_BOUND_BYTES, "%.9g", infos[i].bounds[k]);
        snprintf(m->bounds[i][infos[i].n_bounds], MAX_BOUND_BYTES, "+Inf");
    }
    for (int i = 0; ok && i < OC_M_N; i++) /* a family without labels is there from the start */
        if (!infos[i].labels[0]) ok = append(&m->families[i], &infos[i], NULL, NULL) != NULL;
    if (ok) return OC_OK;
    oc_metrics_close(m);
    *out = NULL;
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the metrics");
}

void oc_metrics_close(struct oc_metrics *m) {
    for (int i = 0; m && i < OC_M_N; i++) family_free(&m->families[i]);
    free(m);
}

void oc_metrics_add(struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2, double by) {
    OC_ASSERT(infos[id].kind == OC_METRIC_GAUGE || (infos[id].kind == OC_METRIC_COUNTER && by >= 0));
    struct series *s = series_of(m, id, l1, l2);
    if (s) s->value += by;
}

void oc_metrics_set(struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2, double value) {
    OC_ASSERT(infos[id].kind != OC_METRIC_HISTOGRAM);
    struct series *s = series_of(m, id, l1, l2);
    if (s) s->value = value;
}

void oc_metrics_observe(struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2,
                        double value) {
    const struct info *info = &infos[id];
    OC_ASSERT(info->kind == OC_METRIC_HISTOGRAM);
    struct series *s = series_of(m, id, l1, l2);
    if (!s || isnan(value)) return;
    int b = 0;
    while (b < info->n_bounds && value > info->bounds[b]) b++;
    s->counts[b]++;
    s->n_observed++;
    s->value += value;
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

double oc_metrics_value(const struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2) {
    double sum = 0;
    const struct family *f = &m->families[id];
    for (int i = 0; i < f->n; i++) {
        const struct series *s = &f->series[i];
        if ((l1 && !same_label(s->values[0], l1)) || (l2 && !same_label(s->values[1], l2))) continue;
        sum += s->counts ? (double)s->n_observed : s->value;
    }
    return sum;
}

double oc_metrics_sum(const struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2) {
    double sum = 0;
    const struct family *f = &m->families[id];
    OC_ASSERT(infos[id].kind == OC_METRIC_HISTOGRAM);
    for (int i = 0; i < f->n; i++) {
        const struct series *s = &f->series[i];
        if ((!l1 || same_label(s->values[0], l1)) && (!l2 || same_label(s->values[1], l2))) sum += s->value;
    }
    return sum;
}

static double count_in_bucket(const struct family *f, int bucket) {
    double n = 0;
    for (int i = 0; i < f->n; i++) n += (double)f->series[i].counts[bucket];
    return n;
}

double oc_metrics_quantile(const struct oc_metrics *m, enum oc_metric id, double q) {
    const struct info *info = &infos[id];
    OC_ASSERT(info->kind == OC_METRIC_HISTOGRAM && q >= 0 && q <= 1);
    const struct family *f = &m->families[id];
    double rank = q * oc_metrics_value(m, id, NULL, NULL), below = 0, low = 0;
    if (rank == 0 && oc_metrics_value(m, id, NULL, NULL) == 0) return 0;
    for (int b = 0; b < info->n_bounds; b++) {
        double n = count_in_bucket(f, b);
        if (n > 0 && below + n >= rank) return low + (info->bounds[b] - low) * (rank - below) / n;
        below += n;
        low = info->bounds[b];
    }
    return low; /* over the highest bound: that bound is all that is known */
}

void oc_metrics_forget(struct oc_metrics *m, const char *label1_value) {
    for (int id = 0; id < OC_M_N; id++) {
        struct family *f = &m->families[id];
        if (!infos[id].labels[0] || strcmp(infos[id].labels[0], "model") != 0) continue;
        int kept = 0;
        for (int i = 0; i < f->n; i++) {
            if (same_label(f->series[i].values[0], label1_value))
                series_free(&f->series[i]);
            else
                f->series[kept++] = f->series[i];
        }
        f->n = kept;
    }
}

/* ---- Writing ----------------------------------------------------------------------------------------------
 *
 * A scrape is some thousand lines on the loop's thread: nothing here is printed that can be copied. */

static void write_whole(struct oc_buf *b, uint64_t v) {
    char digits[24], *p = digits + sizeof digits;
    do *--p = (char)('0' + v % 10);
    while (v /= 10);
    oc_buf_add(b, p, (size_t)(digits + sizeof digits - p));
}

static void write_number(struct oc_buf *b, double d) {
    if (isnan(d)) {
        oc_buf_add_str(b, "NaN");
    } else if (isinf(d)) {
        oc_buf_add_str(b, d > 0 ? "+Inf" : "-Inf");
    } else if (d == floor(d) && fabs(d) < 1e15) {
        if (d < 0) oc_buf_add_char(b, '-');
        write_whole(b, (uint64_t)fabs(d));
    } else {
        oc_buf_printf(b, "%.15g", d);
    }
}

/* As the text format wants it: backslash, quotation mark and newline escaped, the rest as it is, in valid
 * UTF-8. */
static void write_label(struct oc_buf *b, const char *name, const char *value) {
    oc_buf_add_char(b, b->n_bytes ? ',' : '{');
    oc_buf_add_str(b, name);
    oc_buf_add(b, "=\"", 2);
    for (size_t i = 0, n = strlen(value); i < n;) {
        uint32_t cp;
        char out[4];
        i += oc_utf8_decode(value + i, n - i, &cp);
        if (cp == '\\' || cp == '"' || cp == '\n') {
            oc_buf_add_char(b, '\\');
            oc_buf_add_char(b, cp == '\n' ? 'n' : (char)cp);
        } else {
            oc_buf_add(b, out, oc_utf8_encode(cp, out));
        }
    }
    oc_buf_add_char(b, '"');
}

/* What the lines of a family share. */
struct writer {
    struct oc_buf *out;
    const struct info *info;
    const bound_texts *bounds;
    struct oc_buf labels; /* of the series: "{a=\"b\"", or empty */
};

static void write_sample(struct writer *w, const char *suffix, const char *le, double value) {
    struct oc_buf *b = w->out;
    oc_buf_add_str(b, w->info->name);
    oc_buf_add_str(b, suffix);
    oc_buf_add(b, w->labels.data, w->labels.n_bytes);
    if (le) {
        oc_buf_add_str(b, w->labels.n_bytes ? ",le=\"" : "{le=\"");
        oc_buf_add_str(b, le);
        oc_buf_add_char(b, '"');
    }
    oc_buf_add_str(b, w->labels.n_bytes || le ? "} " : " ");
    write_number(b, value);
    oc_buf_add_char(b, '\n');
}

static void write_series(struct writer *w, const struct series *s) {
    uint64_t n = 0;
    oc_buf_clear(&w->labels);
    for (int i = 0; i < 2; i++)
        if (w->info->labels[i]) write_label(&w->labels, w->info->labels[i], s->values[i]);
    if (w->info->kind != OC_METRIC_HISTOGRAM) {
        write_sample(w, "", NULL, s->value);
        return;
    }
    for (int i = 0; i <= w->info->n_bounds; i++) {
        n += s->counts[i];
        write_sample(w, "_bucket", (*w->bounds)[i], (double)n);
    }
    write_sample(w, "_sum", NULL, s->value);
    write_sample(w, "_count", NULL, (double)s->n_observed);
}

static void write_family(struct oc_buf *b, const struct info *info, const struct family *f,
                         const bound_texts *bounds) {
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    struct writer w = {.out = b, .info = info, .bounds = bounds};
    oc_buf_init(&w.labels, 8 * OC_LIMIT_METRIC_LABEL_BYTES);
    oc_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", info->name, info->help, info->name, kinds[info->kind]);
    for (int i = 0; i < f->n; i++) write_series(&w, &f->series[i]);
    oc_buf_free(&w.labels);
}

static const char *projected(const struct series *s, int from) {
    return from ? s->values[from - 1] : NULL;
}

/* The source's series under the alias's labels, those that become the same added up. */
static void write_alias(const struct oc_metrics *m, struct oc_buf *b, const struct alias *a) {
    const struct family *from = &m->families[a->source];
    struct family sums = {0};
    struct info info = infos[a->source];
    info.name = a->name;
    info.help = a->help;
    memcpy(info.labels, a->labels, sizeof info.labels);
    if (!info.labels[0]) append(&sums, &info, NULL, NULL);
    for (int i = 0; i < from->n; i++) {
        const struct series *s = &from->series[i];
        if (a->only && !same_label(s->values[1], a->only)) continue;
        struct series *t = take(&sums, &info, projected(s, a->from[0]), projected(s, a->from[1]));
        if (!t) continue;
        t->value += s->value * a->scale;
        t->n_observed += s->n_observed;
        for (int k = 0; s->counts && k <= info.n_bounds; k++) t->counts[k] += s->counts[k];
    }
    write_family(b, &info, &sums, &m->bounds[a->source]);
    family_free(&sums);
}

static bool is_foreign(const char *name) {
    return strchr(name, ':') != NULL;
}

void oc_metrics_write_names(const struct oc_metrics *m, enum oc_metrics_names names, struct oc_buf *out) {
    for (int i = 0; i < OC_M_N; i++)
        if (names == OC_METRICS_ALL || !is_foreign(infos[i].name))
            write_family(out, &infos[i], &m->families[i], &m->bounds[i]);
    for (size_t i = 0; names == OC_METRICS_ALL && i < N_ALIASES; i++) write_alias(m, out, &aliases[i]);
}

void oc_metrics_write(const struct oc_metrics *m, struct oc_buf *out) {
    oc_metrics_write_names(m, OC_METRICS_ALL, out);
}
