#include "server/crew.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct queue {
    struct oc_server_work *first, **end;
};

struct oc_server_crew {
    uv_async_t wake; /* finished work waits for the loop */
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct queue todo, finished; /* under the lock */
    bool stop;                   /* under the lock */
    int n_pending;               /* the loop's */
    int n_threads;
    pthread_t threads[];
};

static void push(struct queue *q, struct oc_server_work *w) {
    w->next = NULL;
    *q->end = w;
    q->end = &w->next;
}

static struct oc_server_work *take_all(struct queue *q) {
    struct oc_server_work *first = q->first;
    q->first = NULL;
    q->end = &q->first;
    return first;
}

static struct oc_server_work *pop(struct queue *q) {
    struct oc_server_work *w = q->first;
    if (w && !(q->first = w->next)) q->end = &q->first;
    return w;
}

static void *thread_main(void *arg) {
    struct oc_server_crew *c = arg;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        struct oc_server_work *w = pop(&c->todo);
        if (w) {
            pthread_mutex_unlock(&c->lock);
            w->run(w);
            pthread_mutex_lock(&c->lock);
            push(&c->finished, w);
            uv_async_send(&c->wake);
        } else if (c->stop) {
            break;
        } else {
            pthread_cond_wait(&c->more, &c->lock);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static void on_wake(uv_async_t *h) {
    struct oc_server_crew *c = h->data;
    pthread_mutex_lock(&c->lock);
    struct oc_server_work *w = take_all(&c->finished);
    pthread_mutex_unlock(&c->lock);
    while (w) {
        struct oc_server_work *next = w->next;
        c->n_pending--;
        w->done(w); /* may free w */
        w = next;
    }
}

static void on_closed(uv_handle_t *h) {
    struct oc_server_crew *c = h->data;
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->more);
    free(c);
}

/* Signals are the loop's thread's. */
static bool start_thread(struct oc_server_crew *c) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&c->threads[c->n_threads], NULL, thread_main, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) c->n_threads++;
    return !failed;
}

enum oc_err oc_server_crew_open(uv_loop_t *loop, int n_threads, struct oc_server_crew **out,
                                struct oc_errinfo *ei) {
    struct oc_server_crew *c = calloc(1, sizeof *c + (size_t)n_threads * sizeof *c->threads);
    *out = NULL;
    if (!c) return oc_fail(ei, OC_ERR_NOMEM, "no memory for %d threads", n_threads);
    take_all(&c->todo);
    take_all(&c->finished);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->more, NULL);
    int uv = uv_async_init(loop, &c->wake, on_wake);
    if (uv) {
        free(c);
        return oc_fail(ei, OC_ERR_IO, "the loop takes no handle: %s", uv_strerror(uv));
    }
    c->wake.data = c;
    while (c->n_threads < n_threads && start_thread(c)) {
    }
    if (c->n_threads == n_threads) {
        *out = c;
        return OC_OK;
    }
    oc_server_crew_close(c);
    return oc_fail(ei, OC_ERR_IO, "the system starts no further thread");
}

void oc_server_crew_post(struct oc_server_crew *c, struct oc_server_work *w) {
    c->n_pending++;
    pthread_mutex_lock(&c->lock);
    push(&c->todo, w);
    pthread_cond_signal(&c->more);
    pthread_mutex_unlock(&c->lock);
}

bool oc_server_crew_withdraw(struct oc_server_crew *c, struct oc_server_work *w) {
    bool found = false;
    pthread_mutex_lock(&c->lock);
    for (struct oc_server_work **at = &c->todo.first; *at && !found; at = &(*at)->next) {
        if (*at != w) continue;
        found = true;
        *at = w->next;
        if (!w->next) c->todo.end = at;
        break;
    }
    pthread_mutex_unlock(&c->lock);
    c->n_pending -= found;
    return found;
}

int oc_server_crew_n_pending(const struct oc_server_crew *c) {
    return c->n_pending;
}

void oc_server_crew_close(struct oc_server_crew *c) {
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->more);
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < c->n_threads; i++) pthread_join(c->threads[i], NULL);
    uv_close((uv_handle_t *)&c->wake, on_closed);
}
