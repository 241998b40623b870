/* A sync handler for mode rsyncso: has rsync bring over what is in its lists.
 *
 *     cc -shared -fPIC -I INCLUDE -o synchandler-rsyncso.so synchandler-rsyncso.c
 *     clsync -Mrsyncso -S ./synchandler-rsyncso.so -W testdir/from -D testdir/to -w2 -t5
 *
 * INCLUDE is where clsyncapi.h is:  python3 -c 'from instep.engines.sharedobject import build; print(build.INCLUDE)'
 */

#include "clsyncapi.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ctx *clsync;

int clsyncapi_init(struct ctx *ctx, struct indexes *indexes)
{
    (void)indexes;
    errno = 0;
    if (!ctx->destdir) {
        _error(__func__, "there must be a destination-dir");
        return EINVAL;
    }
    clsync = ctx;
    return 0;
}

/* exclist is NULL with rsync-prefer-include. */
int clsyncapi_rsync(const char *inclist, const char *exclist)
{
    const char *words[12];
    int count = 0, status;

    words[count++] = "rsync";
    words[count++] = "-aH";
    words[count++] = "--delete";
    if (exclist) {
        words[count++] = "--exclude-from";
        words[count++] = exclist;
    }
    words[count++] = "--include-from";
    words[count++] = inclist;
    words[count++] = "--exclude=*";
    words[count++] = clsync->watchdirwslash;
    words[count++] = clsync->destdirwslash;
    words[count] = NULL;

    pid_t pid = clsyncapi_fork(clsync);
    if (pid < 0) {
        _error(__func__, "cannot fork");
        return errno;
    }
    if (pid == 0) {
        execvp(words[0], (char *const *)words);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return errno;
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    /* 24: something vanished while rsync looked at it, which is no failure here. */
    return WEXITSTATUS(status) == 24 ? 0 : WEXITSTATUS(status);
}
