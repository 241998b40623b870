/* A sync handler for mode so: brings changed paths over with cp and rm.
 *
 *     cc -shared -fPIC -I INCLUDE -o synchandler-so.so synchandler-so.c
 *     clsync -Mso -S ./synchandler-so.so -W testdir/from -D testdir/to -w2 -t5
 *
 * INCLUDE is where clsyncapi.h is:  python3 -c 'from instep.engines.sharedobject import build; print(build.INCLUDE)'
 */

#include "clsyncapi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ctx *clsync;

/* Runs a program, and tells how it ended. It stands among clsync's children, so that clsync can stop it. */
static int run(char *const *words)
{
    int status;
    pid_t pid = clsyncapi_fork(clsync);
    if (pid < 0) {
        _error(__func__, "cannot fork");
        return errno;
    }
    if (pid == 0) {
        execvp(words[0], words);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return errno;
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    return WEXITSTATUS(status);
}

int clsyncapi_init(struct ctx *ctx, struct indexes *indexes)
{
    (void)indexes;
    if (clsyncapi_getapiversion() != CLSYNCAPI_VERSION) {
        errno = 0;
        _error(__func__, "made for API version %d, this is version %d", CLSYNCAPI_VERSION, clsyncapi_getapiversion());
        return EINVAL;
    }
    if (!ctx->destdir) {
        errno = 0;
        _error(__func__, "there must be a destination-dir");
        return EINVAL;
    }
    clsync = ctx;
    return 0;
}

/* Paths are relative, and we are in the watched directory: with --parents, cp makes what leads to them. Directories
 * come with the files in them. */
int clsyncapi_sync(int n, api_eventinfo_t *events)
{
    char **copy = xcalloc((size_t)n + 6, sizeof *copy), **drop = xcalloc((size_t)n + 4, sizeof *drop);
    int copies = 0, drops = 0, failure = 0;

    copy[copies++] = "cp";
    copy[copies++] = "-a";
    copy[copies++] = "--parents";
    copy[copies++] = "--";
    drop[drops++] = "rm";
    drop[drops++] = "-rf";
    drop[drops++] = "--";
    for (int i = 0; i < n; i++) {
        api_eventinfo_t *event = &events[i];
        _debug(3, __func__, "\"%s\" (mask %u)", event->path, event->evmask);
        if (!event->path_len)
            continue;
        if (event->objtype_new == CLSYNCAPI_ABSENT || access(event->path, F_OK) != 0) {
            char *there = xmalloc(strlen(clsync->destdirwslash) + event->path_len + 1);
            strcat(strcpy(there, clsync->destdirwslash), event->path);
            drop[drops++] = there;
        } else if (event->objtype_new != CLSYNCAPI_DIRECTORY) {
            copy[copies++] = (char *)event->path;
        }
    }
    if (copies > 4) {
        copy[copies++] = clsync->destdirwslash;
        failure = run(copy);
    }
    if (drops > 3 && !failure)
        failure = run(drop);
    for (int i = 3; i < drops; i++)
        free(drop[i]);
    free(copy);
    free(drop);
    return failure;
}

int clsyncapi_deinit(void)
{
    clsync = NULL;
    return 0;
}
