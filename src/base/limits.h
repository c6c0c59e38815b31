/* base/limits.h - every maximum of ocellus that is policy, in one place.
 *
 * A parser, buffer or queue without a line here has no bound and is a bug. Units are in the names. */
#ifndef OC_BASE_LIMITS_H
#define OC_BASE_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#define OC_KIB ((size_t)1024)
#define OC_MIB (1024 * OC_KIB)
#define OC_GIB (1024 * OC_MIB)

/* JSON (config files, tokenizer.json, messages) */
#define OC_LIMIT_JSON_DEPTH 200
#define OC_LIMIT_JSON_BYTES (256 * OC_MIB)
#define OC_LIMIT_CONFIG_BYTES (8 * OC_MIB)

/* Files */
#define OC_LIMIT_TOKENIZER_BYTES (64 * OC_MIB)
#define OC_LIMIT_TEMPLATE_BYTES (1 * OC_MIB)
#define OC_LIMIT_PATH_BYTES 4096

/* safetensors */
#define OC_LIMIT_SAFETENSORS_HEADER_BYTES (100 * OC_MIB) /* the limit of the reference implementation */
#define OC_LIMIT_SAFETENSORS_PARSE_BYTES (1 * OC_GIB) /* memory while a header is read */
#define OC_LIMIT_CHECKPOINT_BYTES (2 * OC_GIB)        /* names, vectors, biases: not the mapped weights */
#define OC_LIMIT_SHARDS 1024
#define OC_LIMIT_TENSORS 200000
#define OC_LIMIT_TENSOR_DIMS 8

/* Model cache */
#define OC_LIMIT_HUB_MODELS 4096

#define OC_LIMIT_TOKENIZER_PARSE_BYTES (1 * OC_GIB) /* memory while tokenizer.json is read, and for its tables */
#define OC_LIMIT_ADDED_TOKENS 16384
#define OC_LIMIT_ADDED_TOKEN_BYTES 512

/* Chat templates */
#define OC_LIMIT_TEMPLATE_DEPTH 64
#define OC_LIMIT_TEMPLATE_STEPS 5000000 /* loop turns and calls of one rendering */
#define OC_LIMIT_TEMPLATE_OUTPUT_BYTES (16 * OC_MIB)
#define OC_LIMIT_TEMPLATE_MEMORY_BYTES (256 * OC_MIB) /* values of one rendering */

/* Pictures */
#define OC_LIMIT_IMAGE_BYTES (64 * OC_MIB)
#define OC_LIMIT_IMAGE_SIDE_PX 32768
#define OC_LIMIT_IMAGE_PIXELS ((uint64_t)100 * 1000 * 1000)
#define OC_LIMIT_IMAGES_PER_PROMPT 64
#define OC_LIMIT_PATCH_EDGE 256  /* pixels */
#define OC_LIMIT_PATCH_MERGE 16  /* patches per edge of a merge block */
#define OC_LIMIT_PATCH_FRAMES 16 /* frames per patch */
#define OC_LIMIT_IMAGE_JPEG_SCANS 256            /* a progressive file of 20 scans is unusual */
#define OC_LIMIT_IMAGE_METADATA_BYTES (4 * OC_MIB) /* EXIF, XMP, one PNG text chunk inflated */
#define OC_LIMIT_IMAGE_GIF_BLOCKS 65536          /* extension blocks before the first frame */

/* Engine */
#define OC_LIMIT_THREADS 256
#define OC_LIMIT_CTX_TOKENS (1024 * 1024)
#define OC_LIMIT_KV_TOKENS (16 * 1024 * 1024)
#define OC_LIMIT_PROMPT_BYTES (16 * OC_MIB)
#define OC_LIMIT_WORD_BYTES (4 * OC_MIB) /* a run of text the pre-tokenizer does not cut */
#define OC_LIMIT_TOP_LOGPROBS 20
#define OC_LIMIT_STOP_STRINGS 4
#define OC_LIMIT_STOP_BYTES 1024 /* one stop string */

/* Model shapes: generous, so that a lying config cannot make sizes overflow */
#define OC_LIMIT_LAYERS 1024
#define OC_LIMIT_HIDDEN 65536
#define OC_LIMIT_HEADS 1024
#define OC_LIMIT_VOCAB 2000000

/* HTTP */
#define OC_LIMIT_HTTP_CONNECTIONS 4096
#define OC_LIMIT_HTTP_HEAD_BYTES (16 * OC_KIB)
#define OC_LIMIT_HTTP_HEADERS 100
#define OC_LIMIT_HTTP_BODY_BYTES (96 * OC_MIB) /* five pictures of 10 MiB in base64, and text */
#define OC_LIMIT_HTTP_BODIES_BYTES (2 * OC_GIB) /* of all requests being read or answered */
#define OC_LIMIT_HTTP_PIPELINED_BYTES (16 * OC_KIB)
#define OC_LIMIT_HTTP_DRAIN_BYTES (64 * OC_KIB)      /* of a refused body read before the connection closes */
#define OC_LIMIT_HTTP_OUT_HIGH_BYTES (64 * OC_KIB)   /* a stream slows down here */
#define OC_LIMIT_HTTP_OUT_MAX_BYTES (4 * OC_MIB)     /* and is cut off here */
#define OC_LIMIT_HTTP_HEADER_TIMEOUT_MS 10000
#define OC_LIMIT_HTTP_BODY_TIMEOUT_MS 60000
#define OC_LIMIT_HTTP_IDLE_TIMEOUT_MS 75000
#define OC_LIMIT_HTTP_WRITE_TIMEOUT_MS 30000
#define OC_LIMIT_HTTP_METHOD_BYTES 32
#define OC_LIMIT_HTTP_TARGET_BYTES (8 * OC_KIB)
#define OC_LIMIT_HTTP_CHUNK_DIGITS 16                /* of one chunk's size, leading zeros included */
#define OC_LIMIT_HTTP_CHUNK_EXT_BYTES (4 * OC_KIB)   /* chunk extensions of one body */
#define OC_LIMIT_HTTP_TRAILER_BYTES (4 * OC_KIB)
#define OC_LIMIT_HTTP_READ_BYTES (64 * OC_KIB)       /* one read; a buffer per server */
#define OC_LIMIT_HTTP_TURN_REQUESTS 16               /* pipelined requests of one connection in one turn of the loop */
#define OC_LIMIT_HTTP_TURN_ACCEPTS 64
#define OC_LIMIT_HTTP_TURN_SHAKES 8                  /* steps of TLS handshakes of one server in one turn: 1 ms with ECDSA */
#define OC_LIMIT_HTTP_OVERFLOW_CONNECTIONS 64        /* over the maximum, being told 503 at the same time */
#define OC_LIMIT_HTTP_LINGER_MS 2000                 /* for the client to read the last answer before the close */
#define OC_LIMIT_HTTP_TLS_FILE_BYTES (256 * OC_KIB)  /* a certificate chain, a key */
#define OC_LIMIT_HTTP_TLS_HELLO_BYTES (64 * OC_KIB)  /* of a client's handshake, before the read that ends it */
#define OC_LIMIT_HTTP_TLS_RECORD_BYTES (17 * OC_KIB) /* one record with all that goes around it */
#define OC_LIMIT_HTTP_TLS_SEAL_BYTES (64 * OC_KIB)   /* encrypted at once: what a turn of the loop spends on it */
#define OC_LIMIT_HTTP_TLS_KEY_UPDATES 64             /* of one connection: each costs a derivation of keys */
#define OC_LIMIT_HTTP_TLS_OUT_BYTES (128 * OC_KIB)   /* encrypted and not yet with the loop */

/* API */
#define OC_LIMIT_API_MESSAGES 1024
#define OC_LIMIT_API_CHOICES 8
#define OC_LIMIT_API_BIASES 1024
#define OC_LIMIT_API_PICTURES 5          /* of a request, unless configured */
#define OC_LIMIT_API_PICTURE_BYTES (10 * OC_MIB)
#define OC_LIMIT_API_JSON_DEPTH 64

/* Between processes */
#define OC_LIMIT_IPC_FRAME_BYTES (16 * OC_MIB)
#define OC_LIMIT_IPC_QUEUE_BYTES (64 * OC_MIB)
#define OC_LIMIT_IPC_STRING_BYTES (4 * OC_KIB)   /* one string of a message */
#define OC_LIMIT_IPC_BACKLOG_BYTES (256 * OC_KIB) /* unsent: a worker stops working until it drains */
#define OC_LIMIT_IPC_PIXEL_BYTES (128 * OC_MIB)  /* one picture as resized */

/* Scheduler */
#define OC_LIMIT_SCHED_JOBS 1024
#define OC_LIMIT_SCHED_JOB_BYTES (64 * OC_MIB) /* what the scheduler copies of one */

/* Server */
#define OC_LIMIT_SERVER_WORKERS 16
#define OC_LIMIT_SERVER_IMAGE_WORKERS 16
#define OC_LIMIT_SERVER_QUEUE 1000
#define OC_LIMIT_SERVER_API_KEYS 1024
#define OC_LIMIT_SERVER_RATE_BUCKETS 4096
#define OC_LIMIT_URL_BYTES (8 * OC_KIB) /* of a picture, unless it is a data: URL */
#define OC_LIMIT_SERVER_POISON 256 /* pictures remembered because a process died over them */
#define OC_LIMIT_SERVER_PICTURE_BYTES (256 * OC_MIB) /* pixels of all requests, where models leave less of the budget */
#define OC_LIMIT_SERVER_HELD_BYTES (2 * OC_MIB) /* of one stream whose client reads slowly */
#define OC_LIMIT_LOG_LINE_BYTES (8 * OC_KIB)
#define OC_LIMIT_METRIC_SERIES 256     /* label combinations of one family */
#define OC_LIMIT_METRIC_LABEL_BYTES 200 /* of a label's value; longer ones are cut */
#define OC_LIMIT_CONFIG_DEPTH 16
#define OC_LIMIT_CONFIG_FAULTS 100             /* sentences told of one configuration */
#define OC_LIMIT_SERVER_CONFIG_BYTES (256 * OC_KIB) /* the YAML file */

#endif
