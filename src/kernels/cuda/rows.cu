/* Lists of rows of a batch, sent up once although every layer asks for them: what was sent last is remembered by content. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

#define TILE_ROWS 64
#define FIRST_ROOM ((size_t)4 << 20) /* of a list: more than most engines will need, and touched only as far as it is used */

/* A list under construction in s->rows->built, which grows. */
static uint8_t *room_for(struct cu_rows *r, size_t bytes) {
    if (bytes > r->room) {
        r->room = bytes < FIRST_ROOM ? FIRST_ROOM : 2 * bytes;
        r->built = (uint8_t *)realloc(r->built, r->room);
        r->image = (uint8_t *)realloc(r->image, r->room);
        OC_ASSERT(r->built && r->image);
    }
    return r->built;
}

/* Pages that the row's sequence needs as far as this row. */
static int32_t pages_of(const struct oc_kv_row *row, int page_tokens) {
    return row->slot / page_tokens + 1;
}

/* The last row of the run of one page table that starts at row i, and the most pages that it needs. */
static int64_t run_end(const struct oc_kv_row *rows, int64_t i, int64_t m, int page_tokens, int32_t *n_pages) {
    int64_t end = i;
    *n_pages = 0;
    for (; end < m && rows[end].pages == rows[i].pages; end++) {
        int32_t n = pages_of(&rows[end], page_tokens);
        if (n > *n_pages) *n_pages = n;
    }
    return end;
}

static size_t pages_needed(const struct oc_kv_row *rows, int64_t m, int page_tokens) {
    size_t total = 0;
    int32_t n;
    for (int64_t i = 0; i < m;) {
        i = run_end(rows, i, m, page_tokens, &n);
        total += (size_t)n;
    }
    return total;
}

/* Offsets of the parts of a list. */
struct shape {
    size_t rows, d, tiles, pages, bytes;
};

static struct shape shape_of(int64_t m, size_t n_pages) {
    struct shape s;
    s.rows = 16;
    s.d = s.rows + (size_t)m * sizeof(struct cu_row);
    s.tiles = s.d + (size_t)m * sizeof(int32_t);
    s.tiles = oc_round_up(s.tiles, 16);
    s.pages = s.tiles + (size_t)m * sizeof(struct cu_tile);
    s.bytes = s.pages + n_pages * sizeof(int32_t);
    return s;
}

/* Whether row i goes on where the tile that ends before it stops. */
static bool follows(const struct oc_kv_row *rows, int64_t i, const struct cu_tile *t) {
    return rows[i].pages == rows[i - 1].pages && rows[i].slot == rows[i - 1].slot + 1 && t->row + t->n == i && t->n < TILE_ROWS;
}

static void sort_row(struct cu_rows *r, const struct oc_kv_row *rows, int64_t i, int32_t *d, struct cu_tile *tiles) {
    if (rows[i].slot > r->max_slot) r->max_slot = rows[i].slot;
    if (rows[i].role == OC_ROLE_D) {
        d[r->n_d++] = (int32_t)i;
        if (rows[i].slot > r->max_d_slot) r->max_d_slot = rows[i].slot;
    } else if (r->n_tiles > 0 && follows(rows, i, &tiles[r->n_tiles - 1])) {
        tiles[r->n_tiles - 1].n++;
    } else {
        tiles[r->n_tiles].row = (int32_t)i;
        tiles[r->n_tiles++].n = 1;
    }
}

static void build(struct cu_rows *r, const struct oc_kv_row *rows, int64_t m, int page_tokens, const struct shape *at) {
    uint8_t *p = r->built;
    struct cu_row *out = (struct cu_row *)(void *)(p + at->rows);
    int32_t *pages = (int32_t *)(void *)(p + at->pages), n_pages = 0, more;
    memset(p, 0, at->bytes);
    r->m = m, r->n_d = r->n_tiles = 0, r->max_slot = r->max_d_slot = 0;
    for (int64_t i = 0, end; i < m; i = end) {
        end = run_end(rows, i, m, page_tokens, &more);
        memcpy(pages + n_pages, rows[i].pages, (size_t)more * sizeof *pages);
        for (int64_t j = i; j < end; j++) {
            out[j].first_page = n_pages, out[j].slot = rows[j].slot;
            sort_row(r, rows, j, (int32_t *)(void *)(p + at->d), (struct cu_tile *)(void *)(p + at->tiles));
        }
        n_pages += more;
    }
    int64_t head[2] = {m, r->n_d};
    memcpy(p, head, sizeof head);
}

void cu_rows_init(struct cu_state *s) {
    s->rows = (struct cu_rows *)calloc(1, sizeof *s->rows);
    OC_ASSERT(s->rows);
    room_for(s->rows, 1);
}

const struct cu_rows *cu_send_rows(struct cu_state *s, const struct oc_kv_row *rows, int64_t m, int page_tokens) {
    struct cu_rows *r = s->rows;
    struct shape at = shape_of(m, pages_needed(rows, m, page_tokens));
    room_for(r, at.bytes);
    build(r, rows, m, page_tokens, &at);
    /* The ring may have come round over what was sent: then it is sent again. */
    bool known = r->bytes == at.bytes && memcmp(r->built, r->image, at.bytes) == 0 && r->generation == s->ring.generation;
    if (known) return r;
    uint8_t *device = (uint8_t *)cu_send(s, r->built, at.bytes);
    uint8_t *old = r->image;
    r->image = r->built, r->built = old, r->bytes = at.bytes, r->generation = s->ring.generation;
    r->rows = (const struct cu_row *)(device + at.rows);
    r->d = (const int32_t *)(device + at.d);
    r->tiles = (const struct cu_tile *)(device + at.tiles);
    r->pages = (const int32_t *)(device + at.pages);
    return r;
}

void cu_rows_free(struct cu_state *s) {
    if (!s->rows) return;
    free(s->rows->image), free(s->rows->built), free(s->rows);
    s->rows = NULL;
}
