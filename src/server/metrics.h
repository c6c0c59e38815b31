/* server/metrics.h - counters, gauges and histograms in Prometheus' text format.
 *
 * One table (metrics.def) names every family: X(ID, "name", kind, "help", "label1", "label2", buckets). Updated
 * from the loop's thread only. Label values are taken up to a maximum of combinations per family; beyond it they
 * count as "other". */
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
double oc_metrics_value(const struct oc_metrics *m, enum oc_metric id, const char *l1, const char *l2);
/* Quantile of a histogram by linear interpolation in its buckets; 0 when empty. */
double oc_metrics_quantile(const struct oc_metrics *m, enum oc_metric id, double q);
void oc_metrics_forget(struct oc_metrics *m, const char *label1_value); /* drops series of an unloaded model */
void oc_metrics_write(const struct oc_metrics *m, struct oc_buf *out);

#endif
