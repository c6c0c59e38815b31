#include "weights/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/limits.h"
#include "base/topology.h"

#define INDEX_NAME "model.safetensors.index.json"
#define PREFETCH_STEP_BYTES (64 * OC_MIB)

struct oc_checkpoint {
    struct oc_arena arena;
    const char *dir;
    struct oc_json config;
    struct oc_quant quant;
    struct oc_safetensors *files;
    size_t n_files, n_tensors;
    const struct oc_tensor_view **by_name; /* open addressing, a power of two, at most half full */
    size_t name_mask;
};

/* A growing list of file names inside the directory, each once. */
struct name_list {
    const char *names[OC_LIMIT_SHARDS];
    size_t n;
};

static enum oc_err no_memory(const struct oc_checkpoint *ck, struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_NOMEM, "%.300s: out of memory while opening the checkpoint", ck->dir);
}

static enum oc_err list_add(struct oc_checkpoint *ck, struct name_list *l, struct oc_str name,
                            struct oc_errinfo *ei) {
    for (size_t i = l->n; i-- > 0;)
        if (oc_str_is(name, l->names[i])) return OC_OK;
    if (l->n == OC_LIMIT_SHARDS)
        return oc_fail(ei, OC_ERR_LIMIT, "%.300s: more than %d safetensors files", ck->dir, OC_LIMIT_SHARDS);
    l->names[l->n] = oc_arena_strndup(&ck->arena, name.p, name.n);
    if (!l->names[l->n]) return no_memory(ck, ei);
    l->n++;
    return OC_OK;
}

static bool dir_has(struct oc_checkpoint *ck, const char *name) {
    char *path = oc_path_join(&ck->arena, ck->dir, name);
    return path && oc_file_exists(path);
}

/* A shard stands beside its index: a plain file name, so that an index cannot point elsewhere. */
static bool is_shard_name(const struct oc_json *v) {
    if (v->type != OC_JSON_STR || v->str.n == 0 || v->str.n > 255 || v->str.p[0] == '.') return false;
    for (size_t i = 0; i < v->str.n; i++)
        if ((uint8_t)v->str.p[i] <= 0x20 || v->str.p[i] == 0x7F || v->str.p[i] == '/') return false;
    return oc_str_ends(v->str, OC_STR(".safetensors"));
}

static enum oc_err shards_of_index(struct oc_checkpoint *ck, const struct oc_json *weight_map,
                                   struct name_list *l, struct oc_errinfo *ei) {
    for (size_t i = 0; i < weight_map->n_members; i++) {
        const struct oc_json *shard = &weight_map->members[i].value;
        if (!is_shard_name(shard))
            return oc_fail(ei, OC_ERR_FORMAT,
                           "%.300s/%s: weight_map names a file that is no *.safetensors beside it", ck->dir,
                           INDEX_NAME);
        OC_TRY(list_add(ck, l, shard->str, ei));
    }
    return OC_OK;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum oc_err check_shards_exist(struct oc_checkpoint *ck, const struct name_list *l,
                                      struct oc_errinfo *ei) {
    for (size_t i = 0; i < l->n; i++)
        if (!dir_has(ck, l->names[i]))
            return oc_fail(ei, OC_ERR_NOT_FOUND,
                           "%.250s: %.120s is missing (%s names %zu files): download the rest of the model",
                           ck->dir, l->names[i], INDEX_NAME, l->n);
    return OC_OK;
}

/* "model-00002-of-00005.safetensors" gives 2 and 5. */
static bool parse_part(const char *name, unsigned *part, unsigned *n_parts) {
    const char *of = strstr(name, "-of-");
    const char *dash = of;
    while (dash && dash > name && dash[-1] >= '0' && dash[-1] <= '9') dash--;
    return of && dash < of && sscanf(dash, "%5u-of-%5u", part, n_parts) == 2;
}

/* Without an index, the file names themselves say how many parts there should be. */
static enum oc_err check_parts(const struct oc_checkpoint *ck, const struct name_list *l,
                               struct oc_errinfo *ei) {
    unsigned part, n_parts, n_seen = 0, n_want = 0;
    const char *example = NULL;
    for (size_t i = 0; i < l->n; i++) {
        if (!parse_part(l->names[i], &part, &n_parts)) continue;
        n_seen++;
        n_want = n_parts;
        example = l->names[i];
    }
    if (!example || n_seen == n_want) return OC_OK;
    return oc_fail(ei, OC_ERR_NOT_FOUND,
                   "%.250s: %u of %u parts are there (such as %.120s): download the rest", ck->dir, n_seen,
                   n_want, example);
}

/* Every *.safetensors of the directory, or only those called model* when there are such. */
static enum oc_err glob_files(struct oc_checkpoint *ck, const char *prefix, struct name_list *l,
                              struct oc_errinfo *ei) {
    DIR *d = opendir(ck->dir);
    if (!d) return oc_fail(ei, OC_ERR_IO, "%.300s: cannot list: %s", ck->dir, strerror(errno));
    enum oc_err err = OC_OK;
    for (struct dirent *e; err == OC_OK && (e = readdir(d));) {
        struct oc_str name = oc_str_from(e->d_name);
        if (name.p[0] == '.' || !oc_str_starts(name, oc_str_from(prefix))) continue;
        if (oc_str_ends(name, OC_STR(".safetensors"))) err = list_add(ck, l, name, ei);
    }
    closedir(d);
    return err;
}

static enum oc_err list_without_index(struct oc_checkpoint *ck, struct name_list *l, struct oc_errinfo *ei) {
    if (dir_has(ck, "model.safetensors")) return list_add(ck, l, OC_STR("model.safetensors"), ei);
    OC_TRY(glob_files(ck, "model", l, ei));
    if (l->n == 0) OC_TRY(glob_files(ck, "", l, ei));
    if (l->n == 0)
        return oc_fail(ei, OC_ERR_NOT_FOUND,
                       "%.300s: no *.safetensors file: not a model directory, or not downloaded", ck->dir);
    return check_parts(ck, l, ei);
}

/* Fills l with the files to open. A stale index (shards gone, a single model.safetensors there) is passed
 * over, as the MLX tools do; *index keeps the weight_map that must hold, or NULL. */
static enum oc_err list_files(struct oc_checkpoint *ck, struct oc_arena *scratch, struct name_list *l,
                              const struct oc_json **weight_map, struct oc_errinfo *ei) {
    *weight_map = NULL;
    if (!dir_has(ck, INDEX_NAME)) return list_without_index(ck, l, ei);
    char *path = oc_path_join(&ck->arena, ck->dir, INDEX_NAME);
    struct oc_json *index = oc_arena_alloc(scratch, sizeof *index);
    if (!path || !index) return no_memory(ck, ei);
    OC_TRY(oc_json_load(scratch, path, OC_LIMIT_SAFETENSORS_HEADER_BYTES, index, ei));
    const struct oc_json *map = oc_json_get(index, "weight_map");
    if (!map || map->type != OC_JSON_OBJ || map->n_members == 0)
        return oc_fail(ei, OC_ERR_FORMAT, "%.400s: no weight_map object", path);
    OC_TRY(shards_of_index(ck, map, l, ei));
    enum oc_err err = check_shards_exist(ck, l, ei);
    if (err == OC_ERR_NOT_FOUND && dir_has(ck, "model.safetensors")) {
        l->n = 0;
        return list_without_index(ck, l, ei);
    }
    *weight_map = map;
    return err;
}

/* FNV-1a, 64 bit. */
static size_t name_hash(const char *s) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

/* Where the name stands or, if it is new, would stand. */
static const struct oc_tensor_view **name_slot(const struct oc_checkpoint *ck, const char *name) {
    size_t i = name_hash(name) & ck->name_mask;
    while (ck->by_name[i] && strcmp(ck->by_name[i]->name, name) != 0) i = (i + 1) & ck->name_mask;
    return &ck->by_name[i];
}

static enum oc_err build_names(struct oc_checkpoint *ck, struct oc_errinfo *ei) {
    size_t n_slots = 16;
    while (n_slots < 2 * ck->n_tensors) n_slots *= 2;
    ck->by_name = oc_arena_array(&ck->arena, n_slots, sizeof *ck->by_name);
    if (!ck->by_name) return no_memory(ck, ei);
    ck->name_mask = n_slots - 1;
    for (size_t i = 0; i < ck->n_tensors; i++) {
        const struct oc_tensor_view *t = oc_weights_tensor_at(ck, i);
        const struct oc_tensor_view **slot = name_slot(ck, t->name);
        if (*slot)
            return oc_fail(ei, OC_ERR_FORMAT, "tensor %.120s stands twice: in %.150s and in %.150s", t->name,
                           (*slot)->path, t->path);
        *slot = t;
    }
    return OC_OK;
}

static enum oc_err open_files(struct oc_checkpoint *ck, const struct name_list *l, struct oc_errinfo *ei) {
    ck->files = oc_arena_array(&ck->arena, l->n, sizeof *ck->files);
    if (!ck->files) return no_memory(ck, ei);
    for (size_t i = 0; i < l->n; i++) {
        char *path = oc_path_join(&ck->arena, ck->dir, l->names[i]);
        if (!path) return no_memory(ck, ei);
        OC_TRY(oc_weights_safetensors_open(&ck->arena, path, &ck->files[i], ei));
        ck->n_files++;
        ck->n_tensors += ck->files[i].n_tensors;
        if (ck->n_tensors > OC_LIMIT_TENSORS)
            return oc_fail(ei, OC_ERR_LIMIT, "%.300s: more than %d tensors", ck->dir, OC_LIMIT_TENSORS);
    }
    return build_names(ck, ei);
}

/* Whatever the index promises must be in the files. */
static enum oc_err check_weight_map(const struct oc_checkpoint *ck, const struct oc_json *map,
                                    struct oc_errinfo *ei) {
    for (size_t i = 0; map && i < map->n_members; i++) {
        const struct oc_json_member *m = &map->members[i];
        const struct oc_tensor_view *t = strlen(m->key.p) == m->key.n ? oc_weights_find(ck, m->key.p) : NULL;
        if (!t || !oc_str_ends(oc_str_from(t->path), m->value.str))
            return oc_fail(
                ei, OC_ERR_FORMAT,
                "%.200s/%s: tensor %.120s should stand in %.100s and does not: index and files do not belong "
                "together, download them again",
                ck->dir, INDEX_NAME, m->key.p, m->value.str.p);
    }
    return OC_OK;
}

static enum oc_err open_tensors(struct oc_checkpoint *ck, struct oc_errinfo *ei) {
    struct oc_arena scratch;
    const struct oc_json *weight_map;
    struct name_list *l = calloc(1, sizeof *l);
    if (!l) return no_memory(ck, ei);
    oc_arena_init(&scratch, OC_LIMIT_SAFETENSORS_PARSE_BYTES);
    enum oc_err err = list_files(ck, &scratch, l, &weight_map, ei);
    if (err == OC_OK) {
        qsort(l->names, l->n, sizeof *l->names, by_text);
        err = open_files(ck, l, ei);
    }
    if (err == OC_OK) err = check_weight_map(ck, weight_map, ei);
    oc_arena_free(&scratch);
    free(l);
    return err;
}

static enum oc_err open_config(struct oc_checkpoint *ck, struct oc_errinfo *ei) {
    char *path = oc_path_join(&ck->arena, ck->dir, "config.json");
    if (!path) return no_memory(ck, ei);
    if (!oc_file_exists(path))
        return oc_fail(ei, OC_ERR_NOT_FOUND, "%.400s: no config.json in it: not a model directory", ck->dir);
    OC_TRY(oc_json_load(&ck->arena, path, OC_LIMIT_CONFIG_BYTES, &ck->config, ei));
    if (ck->config.type != OC_JSON_OBJ) return oc_fail(ei, OC_ERR_FORMAT, "%.400s: not a JSON object", path);
    return oc_weights_quant_read(&ck->config, path, &ck->quant, ei);
}

enum oc_err oc_weights_checkpoint_open(const char *dir, struct oc_checkpoint **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (!oc_file_is_dir(dir))
        return oc_fail(ei, OC_ERR_NOT_FOUND, "%.400s: %s", dir,
                       oc_file_exists(dir) ? "is a file; name the model's directory" : "no such directory");
    struct oc_checkpoint *ck = calloc(1, sizeof *ck);
    if (!ck) return oc_fail(ei, OC_ERR_NOMEM, "%.400s: out of memory", dir);
    oc_arena_init(&ck->arena, OC_LIMIT_CHECKPOINT_BYTES);
    ck->dir = oc_arena_strndup(&ck->arena, dir, strlen(dir));
    enum oc_err err = ck->dir ? open_config(ck, ei) : oc_fail(ei, OC_ERR_NOMEM, "%.400s: out of memory", dir);
    if (err == OC_OK) err = open_tensors(ck, ei);
    if (err != OC_OK) {
        oc_weights_checkpoint_close(ck);
        return err;
    }
    *out = ck;
    return OC_OK;
}

void oc_weights_checkpoint_close(struct oc_checkpoint *ck) {
    if (!ck) return;
    for (size_t i = 0; i < ck->n_files; i++) oc_weights_safetensors_close(&ck->files[i]);
    oc_arena_free(&ck->arena);
    free(ck);
}

const char *oc_weights_dir(const struct oc_checkpoint *ck) {
    return ck->dir;
}

const struct oc_json *oc_weights_config(const struct oc_checkpoint *ck) {
    return &ck->config;
}

const struct oc_quant *oc_weights_quant(const struct oc_checkpoint *ck) {
    return &ck->quant;
}

struct oc_arena *oc_weights_arena(struct oc_checkpoint *ck) {
    return &ck->arena;
}

const struct oc_tensor_view *oc_weights_find(const struct oc_checkpoint *ck, const char *name) {
    return *name_slot(ck, name);
}

bool oc_weights_has_prefix(const struct oc_checkpoint *ck, const char *prefix) {
    size_t n = strlen(prefix);
    for (size_t i = 0; i < ck->n_tensors; i++)
        if (strncmp(oc_weights_tensor_at(ck, i)->name, prefix, n) == 0) return true;
    return false;
}

size_t oc_weights_n_tensors(const struct oc_checkpoint *ck) {
    return ck->n_tensors;
}

const struct oc_tensor_view *oc_weights_tensor_at(const struct oc_checkpoint *ck, size_t i) {
    OC_ASSERT(i < ck->n_tensors);
    size_t f = 0;
    while (i >= ck->files[f].n_tensors) i -= ck->files[f++].n_tensors;
    return &ck->files[f].tensors[i];
}

/* Reads in one step; what the kernel refuses is left to page faults. */
static void prefetch_step(const uint8_t *p, size_t n_bytes, bool wait) {
#ifdef MADV_POPULATE_READ
    if (wait && madvise((void *)p, n_bytes, MADV_POPULATE_READ) == 0) return;
#endif
    (void)wait;
    (void)madvise((void *)p, n_bytes, MADV_WILLNEED);
}

static enum oc_err prefetch_files(const struct oc_checkpoint *ck, oc_weights_progress_fn *progress, void *arg,
                                  struct oc_errinfo *ei) {
    uint64_t total = 0, done = 0;
    for (size_t i = 0; i < ck->n_files; i++) total += ck->files[i].map.n_bytes;
    for (size_t i = 0; i < ck->n_files; i++) {
        const struct oc_map *m = &ck->files[i].map;
        for (size_t at = 0; at < m->n_bytes; at += PREFETCH_STEP_BYTES) {
            size_t n = m->n_bytes - at < PREFETCH_STEP_BYTES ? m->n_bytes - at : PREFETCH_STEP_BYTES;
            prefetch_step(m->data + at, n, progress != NULL);
            done += n;
            if (progress && !progress(arg, done, total))
                return oc_fail(ei, OC_ERR_CANCELLED, "%.400s: loading was stopped", ck->dir);
        }
    }
    return OC_OK;
}

/* Any thread may read any row of a weight, so its pages lie on all NUMA nodes in turn. */
enum oc_err oc_weights_prefetch(const struct oc_checkpoint *ck, oc_weights_progress_fn *progress, void *arg,
                                struct oc_errinfo *ei) {
    struct oc_topology t;
    oc_topology_read_own(&t);
    oc_topology_interleave(&t, true);
    enum oc_err err = prefetch_files(ck, progress, arg, ei);
    oc_topology_interleave(&t, false);
    return err;
}

void oc_weights_forget(const struct oc_checkpoint *ck) {
    for (size_t i = 0; i < ck->n_files; i++) (void)madvise((void *)ck->files[i].map.data, ck->files[i].map.n_bytes, MADV_DONTNEED);
}
