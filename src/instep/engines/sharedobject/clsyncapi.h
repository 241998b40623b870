/* What a module that acts on changes can rely on: the binary interface of clsync 0.4.5, API version 2.
 *
 * A module built with this header is loaded by clsync and by instep's clsync command alike:
 *
 *     cc -shared -fPIC -I DIRECTORY_OF_THIS_HEADER -o module.so module.c
 *
 * Facts: sizes, offsets and numbers were measured with Debian's clsync 0.4.5-2 on x86-64. Members of struct ctx that
 * are not named here are there, but their meaning is clsync's own.
 */

#ifndef CLSYNCAPI_H
#define CLSYNCAPI_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define CLSYNCAPI_VERSION 2
#define CLSYNCAPI_CHILDREN_MAX 256

/* Indexes of ctx->flags: the ASCII code of the short option, or these for options that have none. */
enum {
    CLSYNCAPI_HAVE_RECURSIVE_SYNC = 512,
    CLSYNCAPI_RSYNC_PREFER_INCLUDE = 514,
    CLSYNCAPI_ONE_FILE_SYSTEM = 516,
    CLSYNCAPI_SKIP_INITIALSYNC = 518,
    CLSYNCAPI_ONLY_INITIALSYNC = 519,
    CLSYNCAPI_EXIT_ON_NO_EVENTS = 520,
    CLSYNCAPI_MAX_ITERATIONS = 528,
    CLSYNCAPI_IGNORE_FAILURES = 529,
};

/* ctx->state */
enum { CLSYNCAPI_EXITING = 0, CLSYNCAPI_STARTING = 1, CLSYNCAPI_RUNNING = 2 };

/* api_eventinfo_t.flags */
enum { CLSYNCAPI_RECURSIVE = 1 };

/* api_eventinfo_t.objtype_old and .objtype_new */
enum { CLSYNCAPI_UNKNOWN = 0, CLSYNCAPI_ABSENT = 1, CLSYNCAPI_FILE = 2, CLSYNCAPI_DIRECTORY = 3 };

typedef struct api_eventinfo {
    uint32_t evmask; /* the bits of inotify(7) */
    uint32_t flags;
    size_t path_len;
    const char *path; /* below the watched directory, which itself is ""; absolute in a recursive call */
    int32_t objtype_old;
    int32_t objtype_new;
} api_eventinfo_t;

struct ctx {
    int32_t state;
    char reserved_4[112];
    int32_t child_pid[CLSYNCAPI_CHILDREN_MAX];
    int32_t children;
    uint32_t iteration_num;
    char reserved_1148[30740];
    int32_t flags[1024];
    char reserved_35984[8216];
    char *label;
    char *watchdir;
    char reserved_44216[32];
    char *destdir; /* NULL: not given */
    char reserved_44256[8];
    char *watchdirwslash; /* with a slash at its end */
    char *destdirwslash;
    char reserved_44280[96];
    char *handlerfpath;
    char reserved_44384[56];
    char *listoutdir; /* NULL: not given */
    char reserved_44448[24];
    int32_t retries;
    char reserved_44476[9292];
};

struct indexes; /* clsync's own */

_Static_assert(sizeof(api_eventinfo_t) == 32, "only for machines whose pointers have 8 bytes");
_Static_assert(offsetof(struct ctx, child_pid) == 116, "child_pid");
_Static_assert(offsetof(struct ctx, flags) == 31888, "flags");
_Static_assert(offsetof(struct ctx, label) == 44200, "label");
_Static_assert(offsetof(struct ctx, destdir) == 44248, "destdir");
_Static_assert(offsetof(struct ctx, watchdirwslash) == 44264, "watchdirwslash");
_Static_assert(offsetof(struct ctx, handlerfpath) == 44376, "handlerfpath");
_Static_assert(offsetof(struct ctx, listoutdir) == 44440, "listoutdir");
_Static_assert(offsetof(struct ctx, retries) == 44472, "retries");
_Static_assert(sizeof(struct ctx) == 53768, "ctx");

/* What a module exports; of the middle two the one that its mode needs, the others if it wants to. All return 0 for
 * success, else an exit status. */
int clsyncapi_init(struct ctx *ctx, struct indexes *indexes);
int clsyncapi_sync(int n, api_eventinfo_t *events);
int clsyncapi_rsync(const char *inclist, const char *exclist); /* exclist: NULL with rsync-prefer-include */
int clsyncapi_deinit(void);

/* What it may call. */
int clsyncapi_getapiversion(void);
/* fork(2); the child gets the signal that ends the daemon. At most 256 at a time: then -1, and errno is ECANCELED. */
pid_t clsyncapi_fork(struct ctx *ctx);
/* Writes the paths as a list for rsync's --include-from; returns 0. */
int apievinfo2rsynclist(struct indexes *indexes, FILE *file, int n, api_eventinfo_t *events);

void _debug(int level, const char *function, const char *format, ...) __attribute__((format(printf, 3, 4)));
void _info(const char *function, const char *format, ...) __attribute__((format(printf, 2, 3)));
void _warning(const char *function, const char *format, ...) __attribute__((format(printf, 2, 3)));
void _error(const char *function, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Ends the process. */
void _critical(const char *function, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *old, size_t size);

#endif
