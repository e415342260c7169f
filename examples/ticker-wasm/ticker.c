/* A WASI preview 1 command that works in its data directory every second until it is stopped.
 *
 * Its whole state is one number in /data/count, replaced by rename so that a stop at any moment
 * leaves the old number or the new one. A later version that finds the file goes on counting. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char COUNT[] = "/data/count";
static const char COUNT_NEW[] = "/data/count.new";

/* The value of an environment variable that muster sets. */
static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value != NULL ? value : "?";
}

static void fail(const char *attempted) {
    fprintf(stderr, "could not %s: %s\n", attempted, strerror(errno));
    exit(1);
}

/* The number of the file; 0 where there is none yet. */
static unsigned long long read_count(void) {
    FILE *file = fopen(COUNT, "r");
    if (file == NULL) {
        if (errno != ENOENT) fail("open /data/count");
        return 0;
    }
    unsigned long long count;
    if (fscanf(file, "%llu", &count) != 1) {
        errno = EINVAL;
        fail("read /data/count");
    }
    fclose(file);
    return count;
}

static void write_count(unsigned long long count) {
    FILE *file = fopen(COUNT_NEW, "w");
    if (file == NULL) fail("create /data/count.new");
    if (fprintf(file, "%llu\n", count) < 0 || fflush(file) != 0) fail("write /data/count.new");
    if (fsync(fileno(file)) != 0) fail("sync /data/count.new");
    if (fclose(file) != 0) fail("close /data/count.new");
    if (rename(COUNT_NEW, COUNT) != 0) fail("rename /data/count.new");
}

int main(void) {
    unsigned long long count = read_count();
    for (;;) {
        count++;
        write_count(count);
        printf("partition %s of %s of %s/%s: count=%llu\n", setting("MUSTER_PARTITION"),
               setting("MUSTER_NUM_PARTITIONS"), setting("MUSTER_DEPLOYMENT"),
               setting("MUSTER_APP"), count);
        if (fflush(stdout) != 0) fail("write to stdout");
        sleep(1);
    }
}
