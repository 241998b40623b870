/* Loads one module that was built for clsync, and calls its functions when it is told to.
 *
 *     host SOCKET OWN MODULE
 *
 * SOCKET is one end of a pair of SOCK_SEQPACKET sockets, OWN the descriptor that this program was started from; MODULE
 * is for those who read the list of processes. What goes over the socket stands in engines/modules/wire.py. Nothing is trusted less than the other side here: that is
 * the daemon that started us, so a request that is cut short is a defect and ends the process.
 *
 * Facts: symbols are found by the module because this program is linked with -rdynamic. Names with an underscore at
 * their start are clsync's.
 */

#define _GNU_SOURCE

#include "clsyncapi.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PIECE = 32768, TEXT = 16384, DEBUG = 'd' };
enum { CRITICAL, ERROR, WARNING, INFO, DEBUG_BASE };
#define ABSENT UINT32_MAX

static struct ctx ctx;
static char indexes[4096]; /* only its address is of use */
static int peer;
static pid_t host;

static int (*function_sync)(int, api_eventinfo_t *);
static int (*function_rsync)(const char *, const char *);
static int (*function_deinit)(void);

/* ---- the other side ---- */

/* One record: its kind, numbers, and a text that takes the rest. Atomic, so children of the module may use it too. */
static void tell(char kind, const int32_t *numbers, size_t count, const char *first, const char *rest)
{
    struct iovec parts[] = {
        {&kind, 1},
        {(void *)numbers, count * sizeof *numbers},
        {(void *)first, strlen(first)},
        {"", first[0] || rest[0] ? 1 : 0},
        {(void *)rest, strlen(rest)},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = sizeof parts / sizeof *parts};
    while (sendmsg(peer, &message, MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            _exit(1); /* the daemon is gone */
}

static void tell_status(int32_t status)
{
    tell('D', &status, 1, "", "");
}

static void say(int32_t level, const char *function, const char *format, va_list values)
{
    int saved = errno;
    char text[TEXT];
    vsnprintf(text, sizeof text, format, values);
    tell('L', (int32_t[]){level, saved}, 2, function ? function : "", text);
    errno = saved;
}

/* A whole request, which comes in pieces; the caller frees it. */
static char *request(size_t *length)
{
    char *whole = NULL;
    *length = 0;
    for (;;) {
        char more;
        whole = xrealloc(whole, *length + PIECE);
        struct iovec parts[] = {{&more, 1}, {whole + *length, PIECE}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t got = recvmsg(peer, &message, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            exit(1); /* the daemon is gone */
        *length += (size_t)got - 1;
        if (!more)
            return whole;
    }
}

struct reader {
    char *at, *end;
};

static char *take(struct reader *reader, size_t size)
{
    char *here = reader->at;
    if ((size_t)(reader->end - here) < size)
        abort();
    reader->at += size;
    return here;
}

static uint32_t take_number(struct reader *reader)
{
    uint32_t number;
    memcpy(&number, take(reader, sizeof number), sizeof number);
    return number;
}

/* Points into the request; there is a NUL behind it. NULL: absent. */
static char *take_text(struct reader *reader, size_t *length)
{
    uint32_t size = take_number(reader);
    if (length)
        *length = size;
    return size == ABSENT ? NULL : take(reader, (size_t)size + 1);
}

/* ---- what modules call ---- */

int clsyncapi_getapiversion(void)
{
    return CLSYNCAPI_VERSION;
}

#define SAY(level, function, format)               \
    do {                                           \
        va_list values;                            \
        va_start(values, format);                  \
        say((level), (function), (format), values); \
        va_end(values);                            \
    } while (0)

void _debug(int level, const char *function, const char *format, ...)
{
    if (level <= ctx.flags[DEBUG])
        SAY(DEBUG_BASE + level, function, format);
}

void _info(const char *function, const char *format, ...)
{
    SAY(INFO, function, format);
}

void _warning(const char *function, const char *format, ...)
{
    SAY(WARNING, function, format);
}

void _error(const char *function, const char *format, ...)
{
    SAY(ERROR, function, format);
}

void _critical(const char *function, const char *format, ...)
{
    int status = errno ? errno : 1;
    SAY(CRITICAL, function, format);
    exit(status);
}

void *xmalloc(size_t size)
{
    return xrealloc(NULL, size);
}

void *xcalloc(size_t count, size_t size)
{
    void *made = calloc(count ? count : 1, size ? size : 1);
    if (!made)
        _critical(__func__, "cannot allocate %zu times %zu bytes", count, size);
    return made;
}

void *xrealloc(void *old, size_t size)
{
    void *made = realloc(old, size ? size : 1);
    if (!made)
        _critical(__func__, "cannot allocate %zu bytes", size);
    return made;
}

/* Ours still, and not waited for: its number cannot have gone to another process. */
static bool is_child(pid_t pid)
{
    siginfo_t info;
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

pid_t clsyncapi_fork(struct ctx *unused)
{
    (void)unused;
    int kept = 0;
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before); /* a signal now would miss the child */
    for (int i = 0; i < ctx.children; i++)
        if (is_child(ctx.child_pid[i]))
            ctx.child_pid[kept++] = ctx.child_pid[i];
    ctx.children = kept;
    pid_t pid = -1;
    int failure = ECANCELED;
    if (kept < CLSYNCAPI_CHILDREN_MAX) {
        pid = fork();
        failure = errno;
    }
    if (pid > 0) {
        ctx.child_pid[ctx.children++] = pid;
    } else if (pid == 0) {
        ctx.children = 0;
        signal(SIGTERM, SIG_DFL);
        signal(SIGINT, SIG_DFL);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        errno = failure;
    return pid;
}

/* rsync takes a backslash for an escape only in a pattern that has a wildcard, so only there it may be one. */
static char *pattern(const char *path, size_t length, const char *tail)
{
    bool wild = *tail || memchr(path, '*', length) || memchr(path, '?', length) || memchr(path, '[', length);
    char *line = xmalloc(2 * length + strlen(tail) + 2), *out = line;
    *out++ = '/';
    for (size_t i = 0; i < length; i++) {
        if (wild && strchr("[]*?\\", path[i]))
            *out++ = '\\';
        *out++ = path[i];
    }
    strcpy(out, tail);
    return line;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int apievinfo2rsynclist(struct indexes *unused, FILE *file, int n, api_eventinfo_t *events)
{
    (void)unused;
    char **lines = NULL;
    size_t count = 0, room = 0, root = strlen(ctx.watchdir);
    for (int i = 0; i < n; i++) {
        const char *path = events[i].path, *tail = events[i].flags & CLSYNCAPI_RECURSIVE ? "/***" : "";
        if (!strncmp(path, ctx.watchdir, root) && (path[root] == '/' || !path[root]))
            path += root; /* of a recursive call */
        path += strspn(path, "/");
        size_t length = strlen(path);
        if (!length) {
            tail += *tail == '/'; /* the root begins with a slash as it is */
            if (!*tail)
                continue; /* rsync always has it */
        }
        do {
            if (count == room)
                lines = xrealloc(lines, (room = 2 * room + 64) * sizeof *lines);
            lines[count++] = pattern(path, length, tail);
            tail = "";
            while (length && path[--length] != '/')
                ;
        } while (length);
    }
    if (count)
        qsort(lines, count, sizeof *lines, by_text);
    for (size_t i = 0; i < count; i++)
        if (!i || strcmp(lines[i - 1], lines[i]))
            fprintf(file, "%s\n", lines[i]);
    for (size_t i = 0; i < count; i++)
        free(lines[i]);
    free(lines);
    return 0;
}

/* ---- signals ---- */

/* The daemon has sent it to our process group: here it only goes on to recorded children that left the group. */
static void passed_on(int number)
{
    int saved = errno;
    if (getpid() != host) { /* in a child that the module forked by itself */
        signal(number, SIG_DFL);
        raise(number);
    }
    for (int i = 0; i < ctx.children; i++)
        if (is_child(ctx.child_pid[i]) && getpgid(ctx.child_pid[i]) != getpgrp())
            kill(ctx.child_pid[i], number);
    errno = saved;
}

static void clean_signals(void)
{
    sigset_t none;
    for (int number = 1; number <= SIGRTMAX; number++)
        signal(number, SIG_DFL); /* fails where there is nothing to change */
    struct sigaction action = {.sa_handler = passed_on, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- requests ---- */

static char *with_slash(const char *path)
{
    if (!path)
        return NULL;
    size_t length = strlen(path);
    char *made = xmalloc(length + 2);
    memcpy(made, path, length + 1);
    if (!length || path[length - 1] != '/')
        strcpy(made + length, "/");
    return made;
}

/* Load the module and call its clsyncapi_init. The request must stay. */
static void set_up(struct reader *in)
{
    ctx.handlerfpath = take_text(in, NULL);
    bool rsync = take_number(in);
    ctx.label = take_text(in, NULL);
    ctx.watchdir = take_text(in, NULL);
    ctx.destdir = take_text(in, NULL);
    ctx.listoutdir = take_text(in, NULL);
    ctx.watchdirwslash = with_slash(ctx.watchdir);
    ctx.destdirwslash = with_slash(ctx.destdir);
    ctx.retries = (int32_t)take_number(in);
    for (uint32_t left = take_number(in); left; left--) {
        uint32_t index = take_number(in);
        int32_t value = (int32_t)take_number(in);
        if (index < sizeof ctx.flags / sizeof *ctx.flags)
            ctx.flags[index] = value;
    }
    ctx.state = CLSYNCAPI_STARTING;

    void *module = dlopen(ctx.handlerfpath, RTLD_NOW | RTLD_LOCAL);
    if (!module) {
        tell('X', NULL, 0, "load", dlerror());
        exit(1);
    }
    int (*init)(struct ctx *, struct indexes *);
    *(void **)&init = dlsym(module, "clsyncapi_init");
    *(void **)&function_deinit = dlsym(module, "clsyncapi_deinit");
    if (rsync)
        *(void **)&function_rsync = dlsym(module, "clsyncapi_rsync");
    else
        *(void **)&function_sync = dlsym(module, "clsyncapi_sync");
    if (!function_rsync && !function_sync) {
        tell('X', NULL, 0, "function", rsync ? "clsyncapi_rsync" : "clsyncapi_sync");
        exit(1);
    }
    tell_status(init ? init(&ctx, (struct indexes *)indexes) : 0);
}

static int run_sync(struct reader *in)
{
    uint32_t count = take_number(in);
    api_eventinfo_t *events = xcalloc(count, sizeof *events);
    for (uint32_t i = 0; i < count; i++) {
        events[i].evmask = take_number(in);
        events[i].flags = take_number(in);
        events[i].objtype_old = (int32_t)take_number(in);
        events[i].objtype_new = (int32_t)take_number(in);
        events[i].path = take_text(in, &events[i].path_len);
    }
    int status = function_sync((int)count, events);
    free(events);
    return status;
}

struct setting {
    char *name, *before;
};

/* One call of clsyncapi_sync or clsyncapi_rsync, with the environment it is to have. */
static void call(struct reader *in)
{
    uint32_t count = take_number(in);
    struct setting *settings = xcalloc(count, sizeof *settings);
    for (uint32_t i = 0; i < count; i++) {
        settings[i].name = take_text(in, NULL);
        char *before = getenv(settings[i].name);
        settings[i].before = before ? strcpy(xmalloc(strlen(before) + 1), before) : NULL;
        setenv(settings[i].name, take_text(in, NULL), 1);
    }
    const char *iteration = getenv("CLSYNC_ITERATION");
    ctx.iteration_num = iteration ? (uint32_t)strtoul(iteration, NULL, 10) : ctx.iteration_num + 1;
    ctx.state = CLSYNCAPI_RUNNING;
    int status;
    if (take_number(in)) {
        const char *include = take_text(in, NULL), *exclude = take_text(in, NULL);
        status = function_rsync(include, exclude);
    } else {
        status = run_sync(in);
    }
    if (getpid() != host)
        _exit(status); /* a child of the module came back; the answer is its parent's */
    for (uint32_t i = 0; i < count; i++) {
        if (settings[i].before)
            setenv(settings[i].name, settings[i].before, 1);
        else
            unsetenv(settings[i].name);
        free(settings[i].before);
    }
    free(settings);
    tell_status(status);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    prctl(PR_SET_NAME, "clsync-module");
    host = getpid();
    peer = atoi(argv[1]);
    fcntl(peer, F_SETFD, FD_CLOEXEC);
    close(atoi(argv[2]));
    clean_signals();
    size_t length;
    char *setup = request(&length);
    set_up(&(struct reader){setup, setup + length});
    for (;;) {
        char *work = request(&length);
        if (!length) {
            ctx.state = CLSYNCAPI_EXITING;
            tell_status(function_deinit ? function_deinit() : 0);
            return 0;
        }
        call(&(struct reader){work, work + length});
        free(work);
    }
}
