/* server/admission.h - who may start now, who waits, who is turned away.
 *
 * One queue per model, on the loop's thread; time is passed in. A ticket holds a slot from its start until it
 * leaves, streams included. The callbacks may enter and leave tickets, themselves included. Three classes (high,
 * normal, low), first come first served inside one. Counting is exact: every ticket that entered leaves once. */
#ifndef OC_SERVER_ADMISSION_H
#define OC_SERVER_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum oc_priority { OC_PRIORITY_HIGH, OC_PRIORITY_NORMAL, OC_PRIORITY_LOW };

struct oc_admission;

struct oc_ticket { /* embedded in the request; zero it first */
    struct oc_ticket *prev, *next;
    enum oc_priority priority;
    enum { OC_TICKET_OUT, OC_TICKET_WAITING, OC_TICKET_RUNNING } state;
    uint64_t entered_ms, deadline_ms, started_ms;
    int position; /* at entry: 0 started at once, else its place in the queue from 1 */
};

enum oc_admit { OC_ADMIT_NOW, OC_ADMIT_QUEUED, OC_ADMIT_FULL, OC_ADMIT_DRAINING };

struct oc_admission_params {
    int n_slots, max_waiting; /* no slots: all wait, for instance while the model loads */
    int timeout_s[3];         /* by class, at least 1 */
    void *arg;
    void (*on_start)(void *arg, struct oc_ticket *t);   /* a waiting ticket got its slot */
    void (*on_timeout)(void *arg, struct oc_ticket *t); /* it waited too long, or was drained; it is out */
};

OC_MUST_CHECK enum oc_err oc_admission_open(const struct oc_admission_params *p, struct oc_admission **out,
                                            struct oc_errinfo *ei);
void oc_admission_close(struct oc_admission *a); /* no ticket may be in it */
/* NOW: it has a slot. QUEUED: on_start or on_timeout follows, unless it leaves first. FULL, DRAINING: it is out. */
enum oc_admit oc_admission_enter(struct oc_admission *a, struct oc_ticket *t, enum oc_priority p, uint64_t now_ms);
/* Gives the slot or the place in the queue back; nothing when it is out. May call on_start of others. */
void oc_admission_leave(struct oc_admission *a, struct oc_ticket *t, uint64_t now_ms);
/* Ends waits whose time is over. Returns the next deadline, or 0. */
uint64_t oc_admission_tick(struct oc_admission *a, uint64_t now_ms);
/* Turns all newcomers away; with `waiting` also those that wait (on_timeout). */
void oc_admission_drain(struct oc_admission *a, bool waiting);
void oc_admission_set_slots(struct oc_admission *a, int n_slots, uint64_t now_ms);

struct oc_admission_figures {
    int n_slots, n_running, n_waiting, waiting_by_class[3], max_waiting;
    /* n_entered = n_started + n_timeouts + n_cancelled + n_waiting; n_rejected never entered */
    uint64_t n_entered, n_started, n_timeouts, n_rejected, n_cancelled; /* cancelled: left or drained while waiting */
    double mean_wait_ms; /* of the last 1000 */
};
void oc_admission_figures(const struct oc_admission *a, struct oc_admission_figures *out);
/* "high" ... from a header value in any case; anything else is normal. */
enum oc_priority oc_admission_parse_priority(const char *p, size_t n);
const char *oc_admission_priority_name(enum oc_priority p);

#endif
