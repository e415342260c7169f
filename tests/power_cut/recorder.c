// Records what a process does to the files below one folder, in order and with all bytes, so that a
// power cut can be replayed at any moment of it. Preloaded (LD_PRELOAD) into the real binary.
//
//   POWER_CUT_UNDER   folder whose files are recorded
//   POWER_CUT_TRACES  folder for the traces, elsewhere: one <pid>.trace per process
//   POWER_CUT_FAIL    optional: <write|sync>:<errno>:<n>:<one|all>, fails the n-th such call (and,
//                     with `all`, every later one)
//   POWER_CUT_FAIL_WHEN  optional: a file; calls count and fail only while it exists
//   POWER_CUT_FAIL_PATH  optional: only paths that contain this text
//
// A record is a head and then name, other name and data; tests/harness/trace.rs reads it. Changes of
// files hold one lock over the call and its record, so the order of the trace is the order of the
// changes. A sync has a record before and one after it: it covers what stands before the first. Bytes
// to a socket are noted, before they go, with the port of the other side: whatever they acknowledge
// must be durable there. sync_file_range makes nothing durable. Neither does mmap exist for us.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind {
    OPEN = 1, WRITE, SET_LEN, SYNC_BEGIN, SYNC_END, RENAME, UNLINK, MKDIR, CLOSE, NET, RMDIR,
    GROW, RANGE_SYNC, DUP, FAULT, LINK
};
enum { CREATED = 1, TRUNCATED = 2, DIRECTORY = 4 };
enum { FDS = 1 << 16, TRACE_FD = 1000, PIECES = 1024 };

struct head {
    uint32_t kind;
    int32_t fd;
    uint64_t time_ns;
    uint64_t at;
    uint32_t name_bytes, other_bytes;
    uint64_t data_bytes;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char under[PATH_MAX];
static size_t under_bytes;
static int trace = -1;
static unsigned char tracked[FDS];
static uint64_t syncs;
static struct { int sync, error, all; long n, seen; const char *when, *path; } fail;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void begin(void) {
    const char *folder = getenv("POWER_CUT_UNDER"), *traces = getenv("POWER_CUT_TRACES");
    if (!folder || !traces || !realpath(folder, under)) return;
    under_bytes = strlen(under);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%d.trace", traces, (int)getpid());
    int (*open_)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    int fd = open_(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    // Ours would wait for this very function.
    int (*fcntl_)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl");
    trace = fcntl_(fd, F_DUPFD_CLOEXEC, TRACE_FD);
    if (trace < 0) trace = fd;
    const char *asked = getenv("POWER_CUT_FAIL");
    char what[8], how[8];
    if (asked && sscanf(asked, "%7[a-z]:%d:%ld:%7[a-z]", what, &fail.error, &fail.n, how) == 4) {
        fail.sync = !strcmp(what, "sync");
        fail.all = !strcmp(how, "all");
        fail.when = getenv("POWER_CUT_FAIL_WHEN");
        fail.path = getenv("POWER_CUT_FAIL_PATH");
    }
}

static int on(void) {
    pthread_once(&once, begin);
    return trace >= 0;
}

static int is_tracked(int fd) { return on() && fd >= 0 && fd < FDS && tracked[fd]; }

// Writes one record; the lock is held.
static void put(enum kind kind, int fd, uint64_t at, const char *name, const char *other,
                const struct iovec *data, int pieces, uint64_t data_bytes) {
    static ssize_t (*writev_)(int, const struct iovec *, int);
    if (!writev_) writev_ = (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    int before = errno;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct head head = {kind, fd, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, at,
                        name ? (uint32_t)strlen(name) : 0, other ? (uint32_t)strlen(other) : 0,
                        data_bytes};
    struct iovec all[PIECES + 3];
    int count = 0;
    all[count++] = (struct iovec){&head, sizeof head};
    if (head.name_bytes) all[count++] = (struct iovec){(void *)name, head.name_bytes};
    if (head.other_bytes) all[count++] = (struct iovec){(void *)other, head.other_bytes};
    uint64_t left = data_bytes;
    for (int i = 0; i < pieces && left && count < PIECES + 3; i++) {
        size_t bytes = data[i].iov_len < left ? data[i].iov_len : (size_t)left;
        if (bytes) all[count++] = (struct iovec){data[i].iov_base, bytes};
        left -= bytes;
    }
    if (left) abort();
    for (int i = 0; i < count;) {
        int some = count - i < 512 ? count - i : 512;
        ssize_t wrote = writev_(trace, all + i, some);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) abort(); // a trace with a gap would be worse than none
        while (i < count && (size_t)wrote >= all[i].iov_len) wrote -= (ssize_t)all[i++].iov_len;
        if (i < count) {
            all[i].iov_base = (char *)all[i].iov_base + wrote;
            all[i].iov_len -= (size_t)wrote;
        }
    }
    errno = before;
}

// The absolute name of a path below the folder; 0 when it is not one of ours.
static int ours(int dir, const char *path, char *out) {
    if (!on() || !path) return 0;
    char base[PATH_MAX] = "";
    if (path[0] != '/') {
        if (dir == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t bytes = readlink(link, base, sizeof base - 1);
            if (bytes < 0) return 0;
            base[bytes] = 0;
        }
    }
    if (snprintf(out, PATH_MAX, "%s%s%s", base, base[0] ? "/" : "", path) >= PATH_MAX) return 0;
    size_t bytes = strlen(out);
    while (bytes > 1 && out[bytes - 1] == '/') out[--bytes] = 0;
    return !strncmp(out, under, under_bytes) && (out[under_bytes] == '/' || !out[under_bytes]);
}

// Whether a call is to fail now; the lock is held.
static int fails(int sync, int fd, const char *path) {
    if (!fail.error || fail.sync != sync) return 0;
    struct stat st;
    if (fail.when && stat(fail.when, &st) != 0) return 0;
    char name[PATH_MAX] = "";
    if (fail.path) {
        if (!path) {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t bytes = readlink(link, name, sizeof name - 1);
            name[bytes < 0 ? 0 : bytes] = 0;
            path = name;
        }
        if (!strstr(path, fail.path)) return 0;
    }
    fail.seen++;
    if (fail.seen < fail.n || (fail.seen > fail.n && !fail.all)) return 0;
    put(FAULT, fd, (uint64_t)fail.error, NULL, NULL, NULL, 0, 0);
    errno = fail.error;
    return 1;
}

static int opened(int dir, const char *path, int flags, mode_t mode) {
    static int (*open_)(int, const char *, int, ...);
    if (!open_) open_ = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");
    char name[PATH_MAX];
    if (!ours(dir, path, name)) return open_(dir, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat st;
    int existed = stat(name, &st) == 0;
    if (!existed && (flags & O_CREAT) && fails(0, -1, name)) {
        pthread_mutex_unlock(&lock);
        return -1;
    }
    int fd = open_(dir, path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        int directory = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
        uint64_t how = (existed ? 0 : CREATED) | (existed && (flags & O_TRUNC) ? TRUNCATED : 0) |
                       (directory ? DIRECTORY : 0);
        tracked[fd] = 1;
        put(OPEN, fd, how, name, NULL, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
}
#define OPENING(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = mode_of(flags, rest); \
        va_end(rest); \
        return opened(AT_FDCWD, path, flags, mode); \
    }
#define OPENING_AT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = mode_of(flags, rest); \
        va_end(rest); \
        return opened(dir, path, flags, mode); \
    }
OPENING(open)
OPENING(open64)
OPENING_AT(openat)
OPENING_AT(openat64)
int creat(const char *path, mode_t mode) {
    return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd == trace) return 0;
    if (!is_tracked(fd)) return real(fd);
    pthread_mutex_lock(&lock);
    tracked[fd] = 0;
    put(CLOSE, fd, 0, NULL, NULL, NULL, 0, 0);
    int done = real(fd);
    pthread_mutex_unlock(&lock);
    return done;
}

static int duplicated(int from, int to) {
    if (to >= 0 && to < FDS && is_tracked(from)) {
        pthread_mutex_lock(&lock);
        tracked[to] = 1;
        put(DUP, to, (uint64_t)from, NULL, NULL, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    return to;
}
int dup(int fd) {
    REAL(dup);
    return duplicated(fd, real(fd));
}
#define FCNTL(name) \
    int name(int fd, int command, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, command); \
        void *argument = va_arg(rest, void *); \
        va_end(rest); \
        int answer = real(fd, command, argument); \
        return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? duplicated(fd, answer) : answer; \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

// Notes the other side of a socket to which bytes go.
static void net(int fd) {
    if (!on()) return;
    int before = errno;
    struct sockaddr_in6 peer;
    socklen_t size = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
        (peer.sin6_family == AF_INET || peer.sin6_family == AF_INET6)) {
        pthread_mutex_lock(&lock);
        // The port stands at the same place for both families.
        put(NET, fd, ntohs(peer.sin6_port), NULL, NULL, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = before;
}
ssize_t send(int fd, const void *data, size_t bytes, int flags) {
    REAL(send);
    net(fd);
    return real(fd, data, bytes, flags);
}
ssize_t sendto(int fd, const void *data, size_t bytes, int flags, const struct sockaddr *to,
               socklen_t size) {
    REAL(sendto);
    net(fd);
    return real(fd, data, bytes, flags, to, size);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL(sendmsg);
    net(fd);
    return real(fd, message, flags);
}

static off_t place(int fd, ssize_t wrote) {
    off_t now = lseek(fd, 0, SEEK_CUR);
    return now < 0 ? 0 : now - wrote;
}
#define WRITING(condition_at, call, data, pieces) \
    pthread_mutex_lock(&lock); \
    ssize_t wrote = fails(0, fd, NULL) ? -1 : (call); \
    if (wrote > 0) put(WRITE, fd, (uint64_t)(condition_at), NULL, NULL, data, pieces, (uint64_t)wrote); \
    pthread_mutex_unlock(&lock); \
    return wrote

ssize_t write(int fd, const void *data, size_t bytes) {
    REAL(write);
    if (!is_tracked(fd)) {
        net(fd);
        return real(fd, data, bytes);
    }
    struct iovec one = {(void *)data, bytes};
    WRITING(place(fd, wrote), real(fd, data, bytes), &one, 1);
}
ssize_t writev(int fd, const struct iovec *data, int pieces) {
    REAL(writev);
    if (!is_tracked(fd)) {
        net(fd);
        return real(fd, data, pieces);
    }
    WRITING(place(fd, wrote), real(fd, data, pieces), data, pieces);
}
#define PWRITE(name, type) \
    ssize_t name(int fd, const void *data, size_t bytes, type at) { \
        REAL(name); \
        if (!is_tracked(fd)) return real(fd, data, bytes, at); \
        struct iovec one = {(void *)data, bytes}; \
        WRITING(at, real(fd, data, bytes, at), &one, 1); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
#define PWRITEV(name, type) \
    ssize_t name(int fd, const struct iovec *data, int pieces, type at) { \
        REAL(name); \
        if (!is_tracked(fd)) return real(fd, data, pieces, at); \
        WRITING(at, real(fd, data, pieces, at), data, pieces); \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

// No copies in the kernel: the caller falls back to reading and writing.
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t bytes,
                        unsigned flags) {
    REAL(copy_file_range);
    if (!is_tracked(out)) return real(in, in_at, out, out_at, bytes, flags);
    errno = EXDEV;
    return -1;
}

#define LENGTH(name, type) \
    int name(int fd, type bytes) { \
        REAL(name); \
        if (!is_tracked(fd)) return real(fd, bytes); \
        pthread_mutex_lock(&lock); \
        int done = fails(0, fd, NULL) ? -1 : real(fd, bytes); \
        if (done == 0) put(SET_LEN, fd, (uint64_t)bytes, NULL, NULL, NULL, 0, 0); \
        pthread_mutex_unlock(&lock); \
        return done; \
    }
LENGTH(ftruncate, off_t)
LENGTH(ftruncate64, off64_t)
#define ALLOCATE(name, type) \
    int name(int fd, int mode, type at, type bytes) { \
        REAL(name); \
        if (!is_tracked(fd)) return real(fd, mode, at, bytes); \
        if (mode) { \
            errno = EOPNOTSUPP; \
            return -1; \
        } \
        pthread_mutex_lock(&lock); \
        int done = fails(0, fd, NULL) ? -1 : real(fd, mode, at, bytes); \
        if (done == 0) put(GROW, fd, (uint64_t)(at + bytes), NULL, NULL, NULL, 0, 0); \
        pthread_mutex_unlock(&lock); \
        return done; \
    }
ALLOCATE(fallocate, off_t)
ALLOCATE(fallocate64, off64_t)

#define SYNC(name) \
    int name(int fd) { \
        REAL(name); \
        if (!is_tracked(fd)) return real(fd); \
        pthread_mutex_lock(&lock); \
        uint64_t number = ++syncs; \
        int failed = fails(1, fd, NULL); \
        if (!failed) put(SYNC_BEGIN, fd, number, NULL, NULL, NULL, 0, 0); \
        pthread_mutex_unlock(&lock); \
        if (failed) return -1; \
        int done = real(fd); \
        if (done == 0) { \
            pthread_mutex_lock(&lock); \
            put(SYNC_END, fd, number, NULL, NULL, NULL, 0, 0); \
            pthread_mutex_unlock(&lock); \
        } \
        return done; \
    }
SYNC(fsync)
SYNC(fdatasync)
int sync_file_range(int fd, off64_t at, off64_t bytes, unsigned flags) {
    REAL(sync_file_range);
    if (is_tracked(fd)) {
        pthread_mutex_lock(&lock);
        int failed = fails(1, fd, NULL);
        if (!failed) put(RANGE_SYNC, fd, (uint64_t)at, NULL, NULL, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
        if (failed) return -1;
    }
    return real(fd, at, bytes, flags);
}

static int renamed(int from_dir, const char *from, int to_dir, const char *to, unsigned flags,
                   enum kind kind) {
    static int (*rename_)(int, const char *, int, const char *, unsigned);
    static int (*link_)(int, const char *, int, const char *, int);
    if (!rename_) {
        link_ = (int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat");
        rename_ = (int (*)(int, const char *, int, const char *, unsigned))dlsym(RTLD_NEXT, "renameat2");
    }
    char one[PATH_MAX], two[PATH_MAX];
    int recorded = ours(from_dir, from, one) && ours(to_dir, to, two);
    if (recorded) pthread_mutex_lock(&lock);
    int done = kind == LINK ? link_(from_dir, from, to_dir, to, (int)flags)
                            : rename_(from_dir, from, to_dir, to, flags);
    if (recorded && done == 0) put(kind, -1, 0, one, two, NULL, 0, 0);
    if (recorded) pthread_mutex_unlock(&lock);
    return done;
}
int rename(const char *from, const char *to) {
    return renamed(AT_FDCWD, from, AT_FDCWD, to, 0, RENAME);
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return renamed(from_dir, from, to_dir, to, 0, RENAME);
}
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return renamed(from_dir, from, to_dir, to, flags, RENAME);
}
int link(const char *from, const char *to) {
    return renamed(AT_FDCWD, from, AT_FDCWD, to, 0, LINK);
}
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    return renamed(from_dir, from, to_dir, to, (unsigned)flags, LINK);
}

static int named(int dir, const char *path, enum kind kind, mode_t mode) {
    static int (*unlink_)(int, const char *, int), (*mkdir_)(int, const char *, mode_t);
    if (!unlink_) {
        mkdir_ = (int (*)(int, const char *, mode_t))dlsym(RTLD_NEXT, "mkdirat");
        unlink_ = (int (*)(int, const char *, int))dlsym(RTLD_NEXT, "unlinkat");
    }
    char name[PATH_MAX];
    int recorded = ours(dir, path, name);
    if (recorded) pthread_mutex_lock(&lock);
    int done = kind == MKDIR && recorded && fails(0, -1, name) ? -1
               : kind == MKDIR ? mkdir_(dir, path, mode)
                               : unlink_(dir, path, kind == RMDIR ? AT_REMOVEDIR : 0);
    if (recorded && done == 0) put(kind, -1, 0, name, NULL, NULL, 0, 0);
    if (recorded) pthread_mutex_unlock(&lock);
    return done;
}
int unlink(const char *path) { return named(AT_FDCWD, path, UNLINK, 0); }
int rmdir(const char *path) { return named(AT_FDCWD, path, RMDIR, 0); }
int unlinkat(int dir, const char *path, int flags) {
    return named(dir, path, flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0);
}
int mkdir(const char *path, mode_t mode) { return named(AT_FDCWD, path, MKDIR, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { return named(dir, path, MKDIR, mode); }
