/* LD_PRELOAD shim: records what a process does to files whose path contains EL_SHIM_MATCH,
 * lets the disk be full from the EL_SHIM_FULL_AT-th write to them on, or kills the process right
 * before the EL_SHIM_KILL_AT-th of these calls.
 *
 * EL_SHIM_ERRNO names another error than a full disk's, and EL_SHIM_SKIP_SYNC a part of the paths
 * whose syncs do not happen.
 *
 * Log records: one text line "W <path> <offset> <length>", followed by the bytes written;
 * "S <path>" for fsync and fdatasync; "T <path> <size>" for ftruncate; "U <path>" for unlink;
 * "R <new path> <old path>" for rename. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);
typedef ssize_t (*write_fn)(int, const void *, size_t);
typedef int (*sync_fn)(int);
typedef int (*truncate_fn)(int, off_t);
typedef int (*unlink_fn)(const char *);
typedef int (*rename_fn)(const char *, const char *);

static long writes, calls;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int watched(const char *path) {
    const char *match = getenv("EL_SHIM_MATCH");
    return match && strstr(path, match) && !strstr(path, "-shm") && !strstr(path, ".lock");
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, size - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return watched(path);
}

static void record(const char *head, const void *data, size_t n) {
    static int log = -1;
    const char *name = getenv("EL_SHIM_LOG"), *at = getenv("EL_SHIM_KILL_AT");
    if (at && ++calls == atol(at)) kill(getpid(), SIGKILL);
    if (!name) return;
    if (log < 0) log = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    write_fn next = (write_fn)real("write");
    if (next(log, head, strlen(head)) < 0 || (n && next(log, data, n) < 0)) abort();
}

static int full(const char *path) {
    const char *at = getenv("EL_SHIM_FULL_AT");
    if (strstr(path, ".mark")) return 0;
    ++writes;
    return at && writes >= atol(at);
}

static int refused(void) {
    const char *number = getenv("EL_SHIM_ERRNO");
    return number ? atoi(number) : ENOSPC;
}

static ssize_t do_pwrite(const char *name, int fd, const void *data, size_t n, off_t at) {
    char path[512], head[640];
    if (path_of(fd, path, sizeof path)) {
        if (full(path)) {
            errno = refused();
            return -1;
        }
        snprintf(head, sizeof head, "W %s %ld %zu\n", path, (long)at, n);
        record(head, data, n);
    }
    return ((pwrite_fn)real(name))(fd, data, n, at);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    return do_pwrite("pwrite", fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
    return do_pwrite("pwrite64", fd, data, n, at);
}

ssize_t write(int fd, const void *data, size_t n) {
    char path[512], head[640];
    if (path_of(fd, path, sizeof path)) {
        if (full(path)) {
            errno = refused();
            return -1;
        }
        snprintf(head, sizeof head, "W %s %ld %zu\n", path, (long)lseek(fd, 0, SEEK_CUR), n);
        record(head, data, n);
    }
    return ((write_fn)real("write"))(fd, data, n);
}

static int do_sync(const char *name, int fd) {
    char path[512], head[640];
    if (path_of(fd, path, sizeof path)) {
        const char *skip = getenv("EL_SHIM_SKIP_SYNC");
        if (skip && strstr(path, skip)) return 0;
        snprintf(head, sizeof head, "S %s\n", path);
        record(head, NULL, 0);
    }
    return ((sync_fn)real(name))(fd);
}

int fsync(int fd) { return do_sync("fsync", fd); }
int fdatasync(int fd) { return do_sync("fdatasync", fd); }

static int do_truncate(const char *name, int fd, off_t size) {
    char path[512], head[640];
    if (path_of(fd, path, sizeof path)) {
        snprintf(head, sizeof head, "T %s %ld\n", path, (long)size);
        record(head, NULL, 0);
    }
    return ((truncate_fn)real(name))(fd, size);
}

int ftruncate(int fd, off_t size) { return do_truncate("ftruncate", fd, size); }
int ftruncate64(int fd, off_t size) { return do_truncate("ftruncate64", fd, size); }

int unlink(const char *path) {
    char head[640];
    if (watched(path)) {
        snprintf(head, sizeof head, "U %s\n", path);
        record(head, NULL, 0);
    }
    return ((unlink_fn)real("unlink"))(path);
}

int rename(const char *from, const char *to) {
    char head[1100];
    if (watched(to)) {
        snprintf(head, sizeof head, "R %s %s\n", to, from);
        record(head, NULL, 0);
    }
    return ((rename_fn)real("rename"))(from, to);
}
