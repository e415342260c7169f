// Gives a process a bad clock, a bad disk and another way to its peers, while it runs. Preloaded
// (LD_PRELOAD) into the real binary; needs no rights.
//
//   FAULTS_PAGE  a file of at least one page, of which the test writes and the process reads `struct page`
//
// clock   What CLOCK_REALTIME, gettimeofday and time say is off by so many nanoseconds. The monotonic
//         clock stays true: leases and elections are counted by it, and no operating system moves it.
// disk    Each sync takes so much longer, or fails without being done; each write to a file fails without
//         being done. What a process reads back is what it last wrote, as with a real page cache.
// routes  connect() to a port of 127.0.0.1 goes to another port: that of a proxy of the test, which stands
//         for one link from this process to one peer (tests/harness/network.rs).
//
// Limits: only calls through the C library are seen, which are all that Rust's library and its crates
// make here; io_uring, mmap and raw system calls are not. Output to a log by descriptor 1 and 2 never fails.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { ROUTES = 64 };

// As tests/harness/faults.rs writes it, little endian.
struct page {
    int64_t clock_ns;
    int64_t sync_us;
    int32_t sync_errno;
    int32_t write_errno;
    uint32_t routes;
    struct { uint16_t from, to; } route[ROUTES];
};

static const volatile struct page *page;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_PAGE");
    if (!path) return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) abort(); // a test without its faults would be worse than none
    void *mapped = mmap(NULL, sizeof(struct page), PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) abort();
    page = mapped;
    close(fd);
}

static int64_t clock_ns(void) { return page ? page->clock_ns : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int done = real(clock, now);
    int64_t off = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? clock_ns() : 0;
    if (done == 0 && off) {
        int64_t all = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + off;
        now->tv_sec = all / 1000000000;
        now->tv_nsec = all % 1000000000;
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}

static int is_file(int fd) {
    struct stat st;
    return fd > 2 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

// Whether a sync is to fail; it has taken its time by then.
static int sync_fails(void) {
    if (!page) return 0;
    int64_t us = page->sync_us;
    if (us > 0) {
        struct timespec left = {us / 1000000, us % 1000000 * 1000};
        while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
    }
    if (!page->sync_errno) return 0;
    errno = page->sync_errno;
    return 1;
}
#define SYNC(name) \
    int name(int fd) { \
        REAL(name); \
        return sync_fails() ? -1 : real(fd); \
    }
SYNC(fsync)
SYNC(fdatasync)
int sync_file_range(int fd, off64_t at, off64_t bytes, unsigned flags) {
    REAL(sync_file_range);
    return sync_fails() ? -1 : real(fd, at, bytes, flags);
}

static int write_fails(int fd) {
    if (!page || !page->write_errno || !is_file(fd)) return 0;
    errno = page->write_errno;
    return 1;
}
ssize_t write(int fd, const void *data, size_t bytes) {
    REAL(write);
    return write_fails(fd) ? -1 : real(fd, data, bytes);
}
ssize_t writev(int fd, const struct iovec *data, int pieces) {
    REAL(writev);
    return write_fails(fd) ? -1 : real(fd, data, pieces);
}
#define PWRITE(name, type) \
    ssize_t name(int fd, const void *data, size_t bytes, type at) { \
        REAL(name); \
        return write_fails(fd) ? -1 : real(fd, data, bytes, at); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
#define LENGTH(name, type) \
    int name(int fd, type bytes) { \
        REAL(name); \
        return write_fails(fd) ? -1 : real(fd, bytes); \
    }
LENGTH(ftruncate, off_t)
LENGTH(ftruncate64, off64_t)

int connect(int fd, const struct sockaddr *to, socklen_t size) {
    REAL(connect);
    struct sockaddr_in other;
    if (!page || size < sizeof other || to->sa_family != AF_INET) return real(fd, to, size);
    memcpy(&other, to, sizeof other);
    if (other.sin_addr.s_addr != htonl(INADDR_LOOPBACK)) return real(fd, to, size);
    for (uint32_t i = 0; i < page->routes && i < ROUTES; i++) {
        if (page->route[i].from == ntohs(other.sin_port)) {
            other.sin_port = htons(page->route[i].to);
            return real(fd, (const struct sockaddr *)&other, sizeof other);
        }
    }
    return real(fd, to, size);
}
