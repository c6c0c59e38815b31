/* base/err.h - the one error type of ocellus.
 *
 * An operating failure (a bad file, a full disk, a limit) is an `enum oc_err`, 0 being success; the sentence a
 * person reads is written once, where the failure arose, into the caller's `struct oc_errinfo`. A bug is
 * OC_ASSERT, which is always on. Any thread; no state of its own. */
#ifndef OC_BASE_ERR_H
#define OC_BASE_ERR_H

enum oc_err {
    OC_OK = 0,
    OC_ERR_USAGE,       /* the caller asked for something that makes no sense (a flag, an argument) */
    OC_ERR_IO,          /* the system refused: open, read, mmap, write */
    OC_ERR_NOT_FOUND,   /* no such file, model, name */
    OC_ERR_FORMAT,      /* bytes that break the rules of their format */
    OC_ERR_UNSUPPORTED, /* well-formed, but not something this build can do */
    OC_ERR_LIMIT,       /* over one of the maxima of base/limits.h or of the caller */
    OC_ERR_NOMEM,       /* memory could not be had */
    OC_ERR_CANCELLED,   /* the caller asked to stop */
};

#define OC_ERRINFO_MAX 512

struct oc_errinfo {
    enum oc_err code;
    char msg[OC_ERRINFO_MAX]; /* one sentence: what, where, what to do; always NUL-terminated */
};

#define OC_MUST_CHECK __attribute__((warn_unused_result))
#define OC_PRINTF(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))

/* Writes code and message into `ei` (which may be NULL) and returns `code`. */
enum oc_err oc_fail(struct oc_errinfo *ei, enum oc_err code, const char *fmt, ...) OC_PRINTF(3, 4);

/* Puts "prefix: " before the message already in `ei` (which may be NULL) and returns its code. */
enum oc_err oc_fail_prefix(struct oc_errinfo *ei, enum oc_err code, const char *fmt, ...) OC_PRINTF(3, 4);

/* Short constant name of a code, such as "format". Never NULL. */
const char *oc_err_name(enum oc_err code);

/* Prints where and what to stderr and aborts: the supervisor restarts a worker that does this. */
_Noreturn void oc_assert_failed(const char *expr, const char *file, int line);

#define OC_ASSERT(expr) ((expr) ? (void)0 : oc_assert_failed(#expr, __FILE__, __LINE__))

/* Leaves the function with the error of `call`, for functions that own nothing yet. */
#define OC_TRY(call)                                                                                         \
    do {                                                                                                     \
        enum oc_err oc_try_err_ = (call);                                                                    \
        if (oc_try_err_ != OC_OK) return oc_try_err_;                                                        \
    } while (0)

#endif
