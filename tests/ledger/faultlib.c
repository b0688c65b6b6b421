/* Preloaded into a process, makes the n-th of its writing calls fail, or be its last.
 *
 * Only calls on files below one directory, and on sockets, count: a test's own output goes through. Armed by fault_arm(); until then
 * nothing is touched. Calls of all threads are counted together. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, FAIL_ONCE, FAIL_FROM, KILL_BEFORE, KILL_AFTER, SHORT_THEN_FAIL };

static atomic_int mode = OFF;
static atomic_long left, seen;
static int error_number;
static char below[4096];
static size_t below_length;

void fault_arm(const char *directory, long at, int how, int number)
{
    below_length = strlen(directory);
    if (below_length >= sizeof below)
        return;
    memcpy(below, directory, below_length + 1);
    error_number = number;
    atomic_store(&left, at);
    atomic_store(&seen, 0);
    atomic_store(&mode, how);
}

void fault_disarm(void) { atomic_store(&mode, OFF); }

long fault_seen(void) { return atomic_load(&seen); }

static int is_below(const char *path) { return strncmp(path, below, below_length) == 0; }

static int counts(int fd)
{
    char link[64], path[4096];
    if (atomic_load(&mode) == OFF)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_below(path);
}

/* What becomes of this call: 0 it goes on, 1 it fails, 2 it is killed afterwards, 3 it writes half and fails. */
static int hit(void)
{
    atomic_fetch_add(&seen, 1);
    long rest = atomic_fetch_sub(&left, 1);
    switch (atomic_load(&mode)) {
    case FAIL_ONCE:
        return rest == 1;
    case FAIL_FROM:
        return rest <= 1;
    case KILL_BEFORE:
        if (rest == 1)
            kill(getpid(), SIGKILL);
        return 0;
    case KILL_AFTER:
        return rest == 1 ? 2 : 0;
    case SHORT_THEN_FAIL:
        return rest == 1 ? 3 : rest < 1;
    default:
        return 0;
    }
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define ON_FD(type, name, parameters, arguments, fd)                                                                   \
    type name parameters                                                                                              \
    {                                                                                                                 \
        int what = counts(fd) ? hit() : 0;                                                                            \
        if (what == 1 || what == 3) {                                                                                 \
            errno = error_number;                                                                                     \
            return -1;                                                                                                \
        }                                                                                                             \
        type result = NEXT(name) arguments;                                                                           \
        if (what == 2)                                                                                                \
            kill(getpid(), SIGKILL);                                                                                  \
        return result;                                                                                                \
    }

#define WRITES(name, parameters, whole, half)                                                                         \
    ssize_t name parameters                                                                                           \
    {                                                                                                                 \
        int what = counts(fd) ? hit() : 0;                                                                            \
        if (what == 1) {                                                                                              \
            errno = error_number;                                                                                     \
            return -1;                                                                                                \
        }                                                                                                             \
        if (what == 3)                                                                                                \
            return NEXT(name) half;                                                                                   \
        ssize_t result = NEXT(name) whole;                                                                            \
        if (what == 2)                                                                                                \
            kill(getpid(), SIGKILL);                                                                                  \
        return result;                                                                                                \
    }

#define ON_PATH(name, parameters, arguments, path)                                                                    \
    int name parameters                                                                                               \
    {                                                                                                                 \
        int what = atomic_load(&mode) != OFF && is_below(path) ? hit() : 0;                                            \
        if (what == 1 || what == 3) {                                                                                 \
            errno = error_number;                                                                                     \
            return -1;                                                                                                \
        }                                                                                                             \
        int result = NEXT(name) arguments;                                                                            \
        if (what == 2)                                                                                                \
            kill(getpid(), SIGKILL);                                                                                  \
        return result;                                                                                                \
    }

WRITES(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), (fd, data, size / 2, at))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), (fd, data, size / 2, at))
ON_FD(int, fsync, (int fd), (fd), fd)
ON_FD(int, fdatasync, (int fd), (fd), fd)
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size), fd)
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size), fd)
ON_PATH(unlink, (const char *path), (path), path)
ON_PATH(rename, (const char *path, const char *to), (path, to), path)
ON_PATH(mkdir, (const char *path, mode_t bits), (path, bits), path)

/* What goes to a database server over a socket counts too, wherever that is; it fails as a lost connection does. */
ssize_t send(int fd, const void *data, size_t size, int flags)
{
    int what = atomic_load(&mode) != OFF ? hit() : 0;
    if (what == 1 || what == 3) {
        shutdown(fd, SHUT_RDWR);
        errno = ECONNRESET;
        return -1;
    }
    ssize_t result = NEXT(send)(fd, data, size, flags);
    if (what == 2)
        kill(getpid(), SIGKILL);
    return result;
}

#define OPENS(name)                                                                                                   \
    int name(const char *path, int flags, ...)                                                                        \
    {                                                                                                                 \
        va_list rest;                                                                                                 \
        va_start(rest, flags);                                                                                        \
        mode_t bits = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0;                                    \
        va_end(rest);                                                                                                 \
        int what = atomic_load(&mode) != OFF && (flags & O_CREAT) && is_below(path) ? hit() : 0;                       \
        if (what == 1 || what == 3) {                                                                                 \
            errno = error_number;                                                                                     \
            return -1;                                                                                                \
        }                                                                                                             \
        int result = NEXT(name)(path, flags, bits);                                                                   \
        if (what == 2)                                                                                                \
            kill(getpid(), SIGKILL);                                                                                  \
        return result;                                                                                                \
    }

OPENS(open)
OPENS(open64)
