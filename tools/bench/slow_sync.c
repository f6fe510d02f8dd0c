/* A library for LD_PRELOAD that slows the disk down: it adds SLOW_SYNC_US microseconds to each call that syncs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static void delay(void) {
    const char *us = getenv("SLOW_SYNC_US");
    if (us) usleep((useconds_t)atoi(us));
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int fsync(int fd) {
    REAL(fsync);
    delay();
    return real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    delay();
    return real(fd);
}

int msync(void *at, size_t size, int flags) {
    REAL(msync);
    if (flags & MS_SYNC) delay();
    return real(at, size, flags);
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    REAL(pwritev2);
    if (flags & (RWF_DSYNC | RWF_SYNC)) delay();
    return real(fd, parts, count, offset, flags);
}
