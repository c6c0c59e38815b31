#include "server/admission.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/limits.h"

#define N_CLASSES 3
#define N_WAITS 1000 /* how many waits the mean is taken over */

struct queue { /* of one class, the oldest first; equal timeouts make it ordered by deadline too */
    struct oc_ticket *first, *last;
    int n;
};

struct oc_admission {
    struct oc_admission_params p;
    struct queue queues[N_CLASSES];
    int n_running, n_waiting;
    bool draining;
    bool starting; /* start_waiting() is on the stack: a callback of it came back here */
    uint64_t n_entered, n_started, n_timeouts, n_rejected, n_cancelled;
    uint64_t waits[N_WAITS], sum_of_waits; /* a ring in order of n_started */
};

static const char *const names[N_CLASSES] = {"high", "normal", "low"};

enum oc_priority oc_admission_parse_priority(const char *p, size_t n) {
    for (int i = 0; i < N_CLASSES; i++)
        if (n == strlen(names[i]) && strncasecmp(p, names[i], n) == 0) return (enum oc_priority)i;
    return OC_PRIORITY_NORMAL;
}

const char *oc_admission_priority_name(enum oc_priority p) {
    OC_ASSERT((unsigned)p < N_CLASSES);
    return names[p];
}

enum oc_err oc_admission_open(const struct oc_admission_params *p, struct oc_admission **out,
                              struct oc_errinfo *ei) {
    *out = NULL;
    if (p->n_slots < 0 || p->max_waiting < 0 || p->max_waiting > OC_LIMIT_SERVER_QUEUE)
        return oc_fail(ei, OC_ERR_USAGE,
                       "a queue of %d slots and %d waiting: 0 or more slots, 0 to %d waiting", p->n_slots,
                       p->max_waiting, OC_LIMIT_SERVER_QUEUE);
    for (int i = 0; i < N_CLASSES; i++)
        if (p->timeout_s[i] <= 0)
            return oc_fail(ei, OC_ERR_USAGE, "the queue timeout of class %s is %d s, it must be at least 1",
                           names[i], p->timeout_s[i]);
    struct oc_admission *a = calloc(1, sizeof *a);
    if (!a) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a queue");
    a->p = *p;
    *out = a;
    return OC_OK;
}

void oc_admission_close(struct oc_admission *a) {
    OC_ASSERT(!a || (a->n_running == 0 && a->n_waiting == 0));
    free(a);
}

static void queue_push(struct oc_admission *a, struct oc_ticket *t) {
    struct queue *q = &a->queues[t->priority];
    t->prev = q->last;
    t->next = NULL;
    if (q->last)
        q->last->next = t;
    else
        q->first = t;
    q->last = t;
    q->n++;
    a->n_waiting++;
    t->state = OC_TICKET_WAITING;
}

static void queue_remove(struct oc_admission *a, struct oc_ticket *t) {
    struct queue *q = &a->queues[t->priority];
    if (t->prev)
        t->prev->next = t->next;
    else
        q->first = t->next;
    if (t->next)
        t->next->prev = t->prev;
    else
        q->last = t->prev;
    t->prev = t->next = NULL;
    q->n--;
    a->n_waiting--;
    t->state = OC_TICKET_OUT;
}

static void run(struct oc_admission *a, struct oc_ticket *t, uint64_t now_ms) {
    uint64_t wait_ms = now_ms > t->entered_ms ? now_ms - t->entered_ms : 0;
    uint64_t *slot = &a->waits[a->n_started % N_WAITS];
    a->sum_of_waits += wait_ms - *slot; /* a slot not used yet holds 0 */
    *slot = wait_ms;
    a->n_started++;
    a->n_running++;
    t->started_ms = now_ms;
    t->state = OC_TICKET_RUNNING;
}

static struct oc_ticket *best(const struct oc_admission *a) {
    for (int i = 0; i < N_CLASSES; i++)
        if (a->queues[i].first) return a->queues[i].first;
    return NULL;
}

/* Hands free slots out. A callback may enter and leave tickets; the loop that is already on the stack serves
 * them, so a thousand requests that give up at once are a thousand turns and not a thousand frames. */
static void start_waiting(struct oc_admission *a, uint64_t now_ms) {
    if (a->starting) return;
    a->starting = true;
    for (struct oc_ticket *t; a->n_running < a->p.n_slots && (t = best(a));) {
        queue_remove(a, t);
        run(a, t, now_ms);
        if (a->p.on_start) a->p.on_start(a->p.arg, t);
    }
    a->starting = false;
}

static int n_ahead(const struct oc_admission *a, enum oc_priority p) {
    int n = 0;
    for (int i = 0; i <= (int)p; i++) n += a->queues[i].n;
    return n;
}

enum oc_admit oc_admission_enter(struct oc_admission *a, struct oc_ticket *t, enum oc_priority p,
                                 uint64_t now_ms) {
    OC_ASSERT(t->state == OC_TICKET_OUT && (unsigned)p < N_CLASSES);
    bool free_slot = a->n_running < a->p.n_slots && a->n_waiting == 0;
    if (a->draining || (!free_slot && a->n_waiting >= a->p.max_waiting)) {
        a->n_rejected++;
        return a->draining ? OC_ADMIT_DRAINING : OC_ADMIT_FULL;
    }
    a->n_entered++;
    *t = (struct oc_ticket){.priority = p, .entered_ms = now_ms};
    if (free_slot) {
        run(a, t, now_ms);
        return OC_ADMIT_NOW;
    }
    t->deadline_ms = now_ms + (uint64_t)a->p.timeout_s[p] * 1000;
    t->position = n_ahead(a, p) + 1;
    queue_push(a, t);
    return OC_ADMIT_QUEUED;
}

void oc_admission_leave(struct oc_admission *a, struct oc_ticket *t, uint64_t now_ms) {
    if (t->state == OC_TICKET_WAITING) {
        queue_remove(a, t);
        a->n_cancelled++;
    } else if (t->state == OC_TICKET_RUNNING) {
        t->state = OC_TICKET_OUT;
        a->n_running--;
        start_waiting(a, now_ms);
    }
}

/* Out of the queue without a slot. */
static void turn_out(struct oc_admission *a, struct oc_ticket *t, uint64_t *count) {
    queue_remove(a, t);
    ++*count;
    if (a->p.on_timeout) a->p.on_timeout(a->p.arg, t);
}

uint64_t oc_admission_tick(struct oc_admission *a, uint64_t now_ms) {
    uint64_t next = 0;
    for (int i = 0; i < N_CLASSES; i++) {
        struct queue *q = &a->queues[i];
        while (q->first && q->first->deadline_ms <= now_ms) turn_out(a, q->first, &a->n_timeouts);
        if (q->first && (!next || q->first->deadline_ms < next)) next = q->first->deadline_ms;
    }
    return next;
}

void oc_admission_drain(struct oc_admission *a, bool waiting) {
    a->draining = true; /* first: a callback that enters again is turned away, so the loop below ends */
    for (struct oc_ticket *t; waiting && (t = best(a));) turn_out(a, t, &a->n_cancelled);
}

void oc_admission_set_slots(struct oc_admission *a, int n_slots, uint64_t now_ms) {
    OC_ASSERT(n_slots >= 0);
    a->p.n_slots = n_slots;
    start_waiting(a, now_ms);
}

void oc_admission_figures(const struct oc_admission *a, struct oc_admission_figures *out) {
    *out = (struct oc_admission_figures){
        .n_slots = a->p.n_slots,
        .n_running = a->n_running,
        .n_waiting = a->n_waiting,
        .max_waiting = a->p.max_waiting,
        .n_entered = a->n_entered,
        .n_started = a->n_started,
        .n_timeouts = a->n_timeouts,
        .n_rejected = a->n_rejected,
        .n_cancelled = a->n_cancelled,
    };
    for (int i = 0; i < N_CLASSES; i++) out->waiting_by_class[i] = a->queues[i].n;
    uint64_t n = a->n_started < N_WAITS ? a->n_started : N_WAITS;
    if (n) out->mean_wait_ms = (double)a->sum_of_waits / (double)n;
}
