/* Loaded before libc (LD_PRELOAD): makes a spool's disk fail while the file that BROKEN_DISK names says how. It says
 *
 *     sync        fsync and fdatasync fail with EIO
 *     full        writes fail with ENOSPC
 *     read-only   opening for writing fails with EROFS
 *     hang        fsync and fdatasync do not return
 *
 * and it is only files whose names begin with "spool" that fail. */

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

static int descriptor_fails(int descriptor, const char *how) {
    char link[64], path[4096];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path, how);
}

#define REFUSE_IF(condition, error) \
    if (condition) {                \
        errno = error;              \
        return -1;                  \
    }
#define NEXT(type, name, ...) type (*next)(__VA_ARGS__) = dlsym(RTLD_NEXT, name)

#define SYNC(name)                                       \
    int name(int descriptor) {                           \
        NEXT(int, #name, int);                           \
        REFUSE_IF(descriptor_fails(descriptor, "sync"), EIO) \
        while (descriptor_fails(descriptor, "hang"))     \
            usleep(50000);                               \
        return next(descriptor);                         \
    }
SYNC(fsync)
SYNC(fdatasync)

ssize_t write(int descriptor, const void *bytes, size_t length) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    REFUSE_IF(descriptor_fails(descriptor, "full"), ENOSPC)
    return next(descriptor, bytes, length);
}

#define WRITE_AT(name)                                                          \
    ssize_t name(int descriptor, const void *bytes, size_t length, off_t at) {  \
        NEXT(ssize_t, #name, int, const void *, size_t, off_t);                 \
        REFUSE_IF(descriptor_fails(descriptor, "full"), ENOSPC)                 \
        return next(descriptor, bytes, length, at);                             \
    }
WRITE_AT(pwrite)
WRITE_AT(pwrite64)

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        NEXT(int, #name, const char *, int, ...);                               \
        va_list rest;                                                           \
        va_start(rest, flags);                                                  \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                           \
        int writes = (flags & O_ACCMODE) != O_RDONLY;                           \
        REFUSE_IF(writes && fails(path, "read-only"), EROFS)                    \
        return next(path, flags, mode);                                         \
    }
OPEN(open)
OPEN(open64)
