/* server/room.h - memory for the pixels of pictures: whose pictures may be decoded now, and who waits until others are done
 * with theirs.
 *
 * A request asks once for all its pictures, at their largest, before the first is fetched, and gives back what they turn
 * out not to need; so two requests never wait for each other. First come, first served; one that is alone gets what it
 * asks for, however much that is. Pure: no clock, no processes. Waiting places get theirs in oc_server_room_go_on, which
 * the loop calls every turn, so that nothing is called back from within a call of another. */
#ifndef OC_SERVER_ROOM_H
#define OC_SERVER_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct oc_server_place { /* embedded in a request; zero it first */
    struct oc_server_place *prev, *next;
    enum { OC_PLACE_OUT, OC_PLACE_WAITING, OC_PLACE_HELD } state;
    int64_t bytes;
    void (*on_room)(struct oc_server_place *p); /* it had to wait and has its room now */
};

struct oc_server_room { /* zero it first */
    struct oc_server_place *first, *last; /* waiting */
    int n_waiting, n_held;
    int64_t held_bytes;
};

/* True: it is held. False: it waits, and on_room follows unless it leaves first. bytes >= 0. */
bool oc_server_room_take(struct oc_server_room *r, int64_t limit_bytes, struct oc_server_place *p, int64_t bytes);

/* Of a place that is held: it needs so much less. Not more than it has is given back. */
void oc_server_room_shrink(struct oc_server_room *r, struct oc_server_place *p, int64_t less_bytes);

/* Gives back what is held or waited for; nothing when it is out. */
void oc_server_room_leave(struct oc_server_room *r, struct oc_server_place *p);

/* Lets those in whose turn it is. on_room may take, shrink and leave. */
void oc_server_room_go_on(struct oc_server_room *r, int64_t limit_bytes);

#endif
