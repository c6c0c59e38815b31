/* server/metrics.h - counters, gauges and histograms in Prometheus' text format.
 *
 * One table (metrics.def) names every family: X(ID, "name", kind, "help", "label1", "label2", buckets). Updated
 * from the loop's thread only. Label values are taken up to a maximum of combinations per family
 * (OC_LIMIT_METRIC_SERIES); beyond it they count as "other". The table also lists aliases: the names that dashboards
 * for other servers and the Gateway API inference extension read, told from the same numbers. */
#ifndef OC_SERVER_METRICS_H
#define OC_SERVER_METRICS_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum oc_metric_kind { OC_METRIC_COUNTER, OC_METRIC_GAUGE, OC_METRIC_HISTOGRAM };

enum oc_metric {
#define X(ID, name, kind, help, label1, label2, buckets) OC_M_##ID,
#include "server/metrics.def"
#undef X
    OC_M_N
};

struct oc_metrics;
OC_MUST_CHECK enum oc_err oc_metrics_open(struct oc_metrics **out, struct oc_errinfo *ei);
void oc_metrics_close(struct oc_metrics *m);
/* l1, l2: label values, NULL where the family has none. */
void oc_metrics_add(struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2, double by); /* counter or gauge */
void oc_metrics_set(struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2, double value); /* gauge; or a counter kept elsewhere */
void oc_metrics_observe(struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2, double value);
/* Of a counter or gauge its value, of a histogram the number of observations. NULL for a label sums over it. */
double oc_metrics_value(const struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2);
/* Sum of what a histogram observed; NULL for a label sums over it. */
double oc_metrics_sum(const struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2);
/* Quantile of a histogram by linear interpolation in its buckets; 0 when empty. */
double oc_metrics_quantile(const struct oc_metrics *m, enum oc_metric id, double q);
/* Drops the series of a model that is gone for good: those whose first label is "model" and has this value. */
void oc_metrics_forget(struct oc_metrics *m, const char *label1_value);

#define OC_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
void oc_metrics_write(const struct oc_metrics *m, struct oc_buf *out); /* all names */
/* OWN leaves out the aliases and the names with a colon, of which `promtool check metrics` disapproves. */
enum oc_metrics_names { OC_METRICS_ALL, OC_METRICS_OWN };
void oc_metrics_write_names(const struct oc_metrics *m, enum oc_metrics_names names, struct oc_buf *out);

#endif
