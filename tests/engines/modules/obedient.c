/* A module for tests: does what the first path says. Words are cut at blanks. */

#include "clsyncapi.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ctx *c;
static struct indexes *in;
static int calls;

static void line(const char *path, const char *text)
{
    FILE *file = fopen(path, "a");
    fprintf(file, "%s\n", text);
    fclose(file);
}

static int child(const char *pids, int apart)
{
    char number[32];
    int status;
    pid_t pid = clsyncapi_fork(c);
    if (pid == 0) {
        if (apart)
            setsid();
        snprintf(number, sizeof number, "%d", (int)getpid());
        line(pids, number);
        execlp("sleep", "sleep", "1000", (char *)NULL);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 99;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int clsyncapi_init(struct ctx *ctx, struct indexes *indexes)
{
    c = ctx;
    in = indexes;
    const char *journal = getenv("JOURNAL");
    if (journal)
        line(journal, "init");
    return getenv("INIT") ? atoi(getenv("INIT")) : 0;
}

int clsyncapi_sync(int n, api_eventinfo_t *e)
{
    char words[4096], *word, *argument;
    calls++;
    snprintf(words, sizeof words, "%s", n ? e[0].path : "return 0");
    word = strtok(words, " ");
    argument = strtok(NULL, " ");
    if (!word || !strcmp(word, "return"))
        return argument ? atoi(argument) : 0;
    if (!strcmp(word, "calls"))
        return calls;
    if (!strcmp(word, "crash"))
        raise(SIGSEGV);
    if (!strcmp(word, "exit"))
        exit(atoi(argument));
    if (!strcmp(word, "child"))
        return child(argument, 0);
    if (!strcmp(word, "apart"))
        return child(argument, 1);
    if (!strcmp(word, "deaf")) {
        line(argument, "started");
        for (;;)
            pause();
    }
    if (!strcmp(word, "environment")) {
        char *value = getenv("CLSYNC_STATUS");
        line(argument, value ? value : "(none)");
        return 0;
    }
    if (!strcmp(word, "say")) {
        errno = ENOENT;
        _error("where", "an error, %d", 1);
        _warning("where", "a warning");
        _info("where", "an info");
        _debug(2, "where", "shown");
        _debug(9, "where", "not shown");
        return 0;
    }
    if (!strcmp(word, "meet")) { /* returns when as many are here as it says */
        int wanted = atoi(strtok(NULL, " ")), here = 0;
        line(argument, "here");
        while (here < wanted) {
            FILE *file = fopen(argument, "r");
            char one[32];
            for (here = 0; fgets(one, sizeof one, file); here++)
                ;
            fclose(file);
            usleep(5000);
        }
        return 0;
    }
    return 98;
}

int clsyncapi_rsync(const char *include, const char *exclude)
{
    char text[4096] = "";
    FILE *file = fopen(include, "r");
    size_t got = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[got] = 0;
    line(getenv("JOURNAL"), text);
    line(getenv("JOURNAL"), exclude ? exclude : "(none)");
    return 0;
}

int clsyncapi_deinit(void)
{
    if (getenv("JOURNAL"))
        line(getenv("JOURNAL"), "deinit");
    return 0;
}
