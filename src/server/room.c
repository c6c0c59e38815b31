#include "server/room.h"

#include <stddef.h>

static bool fits(const struct oc_server_room *r, int64_t limit_bytes, int64_t bytes) {
    return r->n_held == 0 || (bytes <= limit_bytes && r->held_bytes <= limit_bytes - bytes);
}

static void hold(struct oc_server_room *r, struct oc_server_place *p) {
    p->state = OC_PLACE_HELD;
    r->n_held++;
    r->held_bytes += p->bytes;
}

static void unqueue(struct oc_server_room *r, struct oc_server_place *p) {
    *(p->prev ? &p->prev->next : &r->first) = p->next;
    *(p->next ? &p->next->prev : &r->last) = p->prev;
    p->prev = p->next = NULL;
    p->state = OC_PLACE_OUT;
    r->n_waiting--;
}

bool oc_server_room_take(struct oc_server_room *r, int64_t limit_bytes, struct oc_server_place *p, int64_t bytes) {
    p->bytes = bytes;
    if (!r->first && fits(r, limit_bytes, bytes)) {
        hold(r, p);
        return true;
    }
    p->state = OC_PLACE_WAITING;
    p->prev = r->last;
    p->next = NULL;
    *(r->last ? &r->last->next : &r->first) = p;
    r->last = p;
    r->n_waiting++;
    return false;
}

void oc_server_room_shrink(struct oc_server_room *r, struct oc_server_place *p, int64_t less_bytes) {
    if (p->state != OC_PLACE_HELD || less_bytes <= 0) return;
    if (less_bytes > p->bytes) less_bytes = p->bytes;
    p->bytes -= less_bytes;
    r->held_bytes -= less_bytes;
}

void oc_server_room_leave(struct oc_server_room *r, struct oc_server_place *p) {
    if (p->state == OC_PLACE_WAITING) unqueue(r, p);
    if (p->state != OC_PLACE_HELD) return;
    p->state = OC_PLACE_OUT;
    r->n_held--;
    r->held_bytes -= p->bytes;
}

void oc_server_room_go_on(struct oc_server_room *r, int64_t limit_bytes) {
    for (struct oc_server_place *p; (p = r->first) && fits(r, limit_bytes, p->bytes);) {
        unqueue(r, p);
        hold(r, p);
        p->on_room(p);
    }
}
