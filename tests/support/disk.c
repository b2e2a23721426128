/* Loaded before libc (LD_PRELOAD): makes a spool's disk fail while the file that BROKEN_DISK names says how. It says
 *
 *     sync        fsync and fdatasync fail with EIO
 *     full        writes fail with ENOSPC
 *     read-only   opening for writing fails with EROFS
 *     hang        fsync and fdatasync do not return
 *
 * and it is only files whose names begin with "spool" that fail.
 *
 * What is done with such files and directories is written to the file that DISK_LOG names, in the order in which it was
 * done: a line that says what, at which offset, how many bytes follow and of which path, and then these bytes. Syncs of
 * all directories are told, too: each may hold the name of a spool's. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_spools(const char *path) {
    const char *name = strrchr(path, '/');
    return strncmp(name ? name + 1 : path, "spool", strlen("spool")) == 0;
}

/* Asks each time: a test changes its mind while the relay runs. */
static int fails(const char *path, const char *how) {
    const char *file = getenv("BROKEN_DISK");
    if (file == NULL || !is_spools(path)) return 0;
    int (*libc_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int before = errno, descriptor = libc_open(file, O_RDONLY | O_CLOEXEC);
    char said[16] = {0};
    if (descriptor >= 0) {
        if (read(descriptor, said, sizeof said - 1) < 0) said[0] = 0;
        close(descriptor);
    }
    errno = before;
    return strcmp(said, how) == 0;
}

static int path_of(int descriptor, char path[4096]) {
    char link[64];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, 4095);
    errno = before;
    path[length < 0 ? 0 : length] = 0;
    return length >= 0;
}

static int descriptor_fails(int descriptor, const char *how) {
    char path[4096];
    return path_of(descriptor, path) && fails(path, how);
}

/* In one write, for two threads may do something at a time. A log with a hole would prove anything: rather no relay. */
static void tell(const char *what, const char *path, off_t at, const void *bytes, size_t length) {
    const char *file = getenv("DISK_LOG");
    if (file == NULL) return;
    int (*libc_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int before = errno, log = libc_open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    char line[4200];
    int head = snprintf(line, sizeof line, "%s %lld %zu %s\n", what, (long long)at, length, path);
    struct iovec parts[] = {{line, head}, {(void *)bytes, length}};
    if (writev(log, parts, 2) != (ssize_t)(head + length)) abort();
    close(log);
    errno = before;
}

static void tell_of(int descriptor, const char *what, off_t at, const void *bytes, size_t length) {
    char path[4096];
    if (path_of(descriptor, path) && is_spools(path)) tell(what, path, at, bytes, length);
}

static void tell_sync(int descriptor) {
    char path[4096];
    struct stat found;
    int is_directory = fstat(descriptor, &found) == 0 && S_ISDIR(found.st_mode);
    if (path_of(descriptor, path) && (is_directory || is_spools(path))) tell("sync", path, 0, NULL, 0);
}

#define REFUSE_IF(condition, error) \
    if (condition) {                \
        errno = error;              \
        return -1;                  \
    }
#define NEXT(type, name, ...) type (*next)(__VA_ARGS__) = dlsym(RTLD_NEXT, name)

#define SYNC(name)                                           \
    int name(int descriptor) {                               \
        NEXT(int, #name, int);                               \
        REFUSE_IF(descriptor_fails(descriptor, "sync"), EIO) \
        while (descriptor_fails(descriptor, "hang"))         \
            usleep(50000);                                   \
        int result = next(descriptor);                       \
        if (result == 0) tell_sync(descriptor);              \
        return result;                                       \
    }
SYNC(fsync)
SYNC(fdatasync)

ssize_t write(int descriptor, const void *bytes, size_t length) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    REFUSE_IF(descriptor_fails(descriptor, "full"), ENOSPC)
    ssize_t result = next(descriptor, bytes, length);
    int before = errno;
    /* A socket or a pipe has no place, and is no spool's. */
    off_t end = result > 0 ? lseek(descriptor, 0, SEEK_CUR) : -1;
    errno = before;
    if (end >= 0) tell_of(descriptor, "write", end - result, bytes, result);
    return result;
}

#define WRITE_AT(name)                                                         \
    ssize_t name(int descriptor, const void *bytes, size_t length, off_t at) { \
        NEXT(ssize_t, #name, int, const void *, size_t, off_t);                \
        REFUSE_IF(descriptor_fails(descriptor, "full"), ENOSPC)                \
        ssize_t result = next(descriptor, bytes, length, at);                  \
        if (result > 0) tell_of(descriptor, "write", at, bytes, result);       \
        return result;                                                         \
    }
WRITE_AT(pwrite)
WRITE_AT(pwrite64)

#define TRUNCATE(name)                                                    \
    int name(int descriptor, off_t length) {                              \
        NEXT(int, #name, int, off_t);                                     \
        int result = next(descriptor, length);                            \
        if (result == 0) tell_of(descriptor, "truncate", length, NULL, 0); \
        return result;                                                    \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

static int is_there(const char *path) {
    struct stat found;
    int before = errno, result = lstat(path, &found) == 0;
    errno = before;
    return result;
}

#define OPEN(name)                                                               \
    int name(const char *path, int flags, ...) {                                 \
        NEXT(int, #name, const char *, int, ...);                                \
        va_list rest;                                                            \
        va_start(rest, flags);                                                   \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;  \
        va_end(rest);                                                            \
        int writes = (flags & O_ACCMODE) != O_RDONLY;                            \
        REFUSE_IF(writes && fails(path, "read-only"), EROFS)                     \
        int is_new = flags & O_CREAT && is_spools(path) && !is_there(path);      \
        int descriptor = next(path, flags, mode);                                \
        if (descriptor < 0) return descriptor;                                   \
        if (is_new) tell_of(descriptor, "create", 0, NULL, 0);                   \
        else if (flags & O_TRUNC) tell_of(descriptor, "truncate", 0, NULL, 0);   \
        return descriptor;                                                       \
    }
OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode) {
    NEXT(int, "mkdir", const char *, mode_t);
    int result = next(path, mode);
    if (result == 0 && is_spools(path)) tell("create", path, 0, NULL, 0);
    return result;
}

int unlink(const char *path) {
    NEXT(int, "unlink", const char *);
    int result = next(path);
    if (result == 0 && is_spools(path)) tell("remove", path, 0, NULL, 0);
    return result;
}

int rename(const char *from, const char *to) {
    NEXT(int, "rename", const char *, const char *);
    int result = next(from, to);
    if (result == 0 && (is_spools(from) || is_spools(to))) tell("rename", from, 0, to, strlen(to));
    return result;
}
