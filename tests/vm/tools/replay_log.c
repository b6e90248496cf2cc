/* Reads what the kernel's dm-log-writes kept of a device, and makes another device what that one
 * was after so many requests: what a power cut at that moment would have left.
 *
 *   replay_log LOG list               "entries N", then a line "INDEX NAME" for each mark
 *   replay_log LOG make TARGET N      TARGET, which reads as zeroes, gets the first N entries
 *
 * Format: Linux, drivers/md/dm-log-writes.c (version 1). All numbers are little endian. A block is
 * as large as a sector of the logged device. Block 0: magic, version, entries (64 bits each), bytes
 * of a block (32 bits). Then each entry: a block with sector, sectors, flags and bytes of data (64
 * bits each), which has the name of a mark behind these; and as many blocks of data, but for a
 * discard. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t kMagic = 0x6a736677736872;
enum { kDiscard = 1 << 2, kMark = 1 << 3, kBlockMax = 4096 };

struct super {
    uint64_t magic, version, entries;
    uint32_t block_bytes;
};
struct entry {
    uint64_t sector, sectors, flags, data_bytes;
};

static void fail(const char* what) {
    fprintf(stderr, "replay_log: %s: %s\n", what, errno ? strerror(errno) : "not as it should be");
    exit(1);
}

static void read_at(int fd, void* into, size_t bytes, uint64_t offset) {
    if (pread(fd, into, bytes, (off_t)offset) != (ssize_t)bytes) fail("read the log");
}

static void write_at(int fd, const char* from, size_t bytes, uint64_t offset) {
    if (pwrite(fd, from, bytes, (off_t)offset) != (ssize_t)bytes) fail("write the target");
}

/* The content of `entry`, which begins at `offset` of the log; or zeroes. */
static void apply(int log, int target, const struct entry* entry, uint64_t offset,
                  uint64_t block_bytes) {
    static char part[1 << 20];
    const uint64_t all = entry->sectors * block_bytes;
    for (uint64_t done = 0; done < all;) {
        const size_t bytes = all - done < sizeof part ? all - done : sizeof part;
        if (entry->flags & kDiscard)
            memset(part, 0, bytes);
        else
            read_at(log, part, bytes, offset + done);
        write_at(target, part, bytes, entry->sector * block_bytes + done);
        done += bytes;
    }
}

int main(int argc, char** argv) {
    const int lists = argc == 3 && strcmp(argv[2], "list") == 0;
    if (!lists && !(argc == 5 && strcmp(argv[2], "make") == 0)) {
        fprintf(stderr, "usage: replay_log LOG list | replay_log LOG make TARGET N\n");
        return 2;
    }
    const int log = open(argv[1], O_RDONLY);
    if (log < 0) fail(argv[1]);
    const int target = lists ? -1 : open(argv[3], O_WRONLY);
    if (!lists && target < 0) fail(argv[3]);
    struct super super;
    read_at(log, &super, sizeof super, 0);
    errno = 0;
    if (super.magic != kMagic || super.version != 1 || super.block_bytes > kBlockMax)
        fail("the log's first block");
    const uint64_t wanted = lists ? super.entries : strtoull(argv[4], NULL, 10);
    if (wanted > super.entries) fail("so many entries");
    if (lists) printf("entries %llu\n", (unsigned long long)super.entries);
    uint64_t at = super.block_bytes;
    for (uint64_t i = 0; i < wanted; ++i) {
        char block[kBlockMax + 1] = {0};
        struct entry entry;
        read_at(log, block, super.block_bytes, at);
        memcpy(&entry, block, sizeof entry);
        at += super.block_bytes;
        if (lists && entry.flags & kMark)
            printf("%llu %.*s\n", (unsigned long long)i, (int)entry.data_bytes,
                   block + sizeof entry);
        if (!lists) apply(log, target, &entry, at, super.block_bytes);
        if (!(entry.flags & kDiscard)) at += entry.sectors * super.block_bytes;
    }
    if (!lists && fsync(target) != 0) fail("flush the target");
    return 0;
}
