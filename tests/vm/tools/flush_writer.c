/* Writes to a block device or file and keeps account of what a flush made durable, so that after a
 * power cut `verify` can tell what was lost. The account lives on a second device, which the cut
 * does not touch.
 *
 *   flush_writer write  TARGET RECORD WRITERS [LAST]
 *       writes until killed, or up to write number LAST, flushing now and then
 *   flush_writer claim  TARGET RECORD WRITERS LAST
 *       the same without one flush, yet recorded as durable: the loss that `verify` has to find
 *   flush_writer verify TARGET RECORD WRITERS [lost]
 *       exit 0 if each sector holds the last flushed write of it or a later one; with `lost`: if
 *       something was lost
 *
 * Each writer is a process with its own region of kRegionSectors. Where its write number N goes,
 * and which bytes it has, follow from (writer, N) alone; so `verify` replays the numbers up to the
 * recorded one, and a writer that was cut off starts again behind it. Of the writes one in sixteen
 * is durable alone (RWF_DSYNC: on a block device the kernel sends FUA and a flush), and after one
 * in eight comes fdatasync, which makes all before it durable. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kSector = 512, kRegionSectors = 4096, kWriteSectorsMax = 24, kRecordBytes = 8192 };
static const uint64_t kMagic = 0x7265636f72643031;

struct sector {
    uint64_t magic, writer, index, number, filler[60];
};
struct record {
    uint64_t magic, writer, flushed, fua, unused[60];
};
struct placed {
    uint64_t first, count;
    int fua, flush;
};

_Static_assert(sizeof(struct sector) == kSector && sizeof(struct record) == kSector,
               "one sector each");

static void die(const char* what) {
    fprintf(stderr, "flush_writer: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static struct placed place(uint64_t writer, uint64_t number) {
    uint64_t hash = mix(writer << 48 | number);
    uint64_t count = 1 + hash % kWriteSectorsMax;
    if (hash >> 60 < 8) count = 8; /* half of them are 4 KiB */
    uint64_t first = (hash >> 8) % (kRegionSectors - count);
    if (count == 8) first &= ~7ull;
    return (struct placed){first, count, (hash >> 40) % 16 == 0, (hash >> 44) % 8 == 0};
}

static void fill(struct sector* s, uint64_t writer, uint64_t index, uint64_t number) {
    *s = (struct sector){.magic = kMagic, .writer = writer, .index = index, .number = number};
    for (int i = 0; i < 60; ++i) s->filler[i] = mix(number * 64 + i) ^ index;
}

static void* aligned(size_t bytes) {
    void* memory = NULL;
    if (posix_memalign(&memory, 4096, bytes)) die("memory");
    memset(memory, 0, bytes);
    return memory;
}

static struct record* read_record(int fd, uint64_t writer) {
    struct record* r = aligned(kSector);
    if (pread(fd, r, kSector, writer * kRecordBytes) != kSector) die("read the record");
    if (r->magic != kMagic) *r = (struct record){.magic = kMagic, .writer = writer};
    return r;
}

static void write_record(int fd, struct record* record) {
    if (pwrite(fd, record, kSector, record->writer * kRecordBytes) != kSector)
        die("write the record");
}

enum mode { kWrite, kAcked, kClaim };

static void run_writer(const char* target, int record_fd, uint64_t writer, uint64_t last,
                       enum mode mode) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(target, O_RDWR | O_DIRECT);
    if (fd < 0) die(target);
    struct record* record = read_record(record_fd, writer);
    struct sector* data = aligned(kWriteSectorsMax * kSector);
    for (uint64_t number = record->flushed + 1; number <= last; ++number) {
        struct placed p = place(writer, number);
        for (uint64_t i = 0; i < p.count; ++i) fill(&data[i], writer, p.first + i, number);
        struct iovec vector = {data, p.count * kSector};
        off_t offset = (off_t)((writer * kRegionSectors + p.first) * kSector);
        int fua = p.fua && mode != kClaim, flush = p.flush && mode != kClaim;
        if (pwritev2(fd, &vector, 1, offset, fua ? RWF_DSYNC : 0) != (ssize_t)vector.iov_len)
            die("write");
        if (flush && fdatasync(fd)) die("fdatasync");
        if (fua) record->fua = number;
        if (flush || mode == kAcked || number == last) record->flushed = number;
        if (fua || record->flushed == number) write_record(record_fd, record);
    }
    exit(0);
}

/* Says how many sectors of the writer's region hold less than was recorded as durable, or bytes
 * that nobody wrote. */
static uint64_t count_lost(const char* target, int record_fd, uint64_t writer) {
    int fd = open(target, O_RDONLY | O_DIRECT);
    if (fd < 0) die(target);
    struct record* record = read_record(record_fd, writer);
    struct sector *region = aligned(kRegionSectors * kSector), expected;
    if (pread(fd, region, kRegionSectors * kSector, writer * kRegionSectors * kSector) !=
        kRegionSectors * kSector)
        die("read");
    static uint64_t durable[kRegionSectors];
    memset(durable, 0, sizeof durable);
    for (uint64_t number = 1; number <= record->flushed || number <= record->fua; ++number) {
        struct placed p = place(writer, number);
        if (number > record->flushed && number != record->fua) continue;
        for (uint64_t i = 0; i < p.count; ++i) durable[p.first + i] = number;
    }
    uint64_t lost = 0, newer = 0;
    for (uint64_t i = 0; i < kRegionSectors; ++i) {
        struct sector* s = &region[i];
        fill(&expected, writer, i, s->number);
        int blank = s->magic == 0 && s->number == 0;
        if (blank) memset(&expected, 0, sizeof expected);
        struct placed p = place(writer, s->number);
        int lawful =
            !memcmp(s, &expected, kSector) && (blank || (p.first <= i && i < p.first + p.count));
        if (lawful && s->number >= durable[i]) {
            newer += s->number > record->flushed;
            continue;
        }
        if (lost++ < 5)
            printf("writer %lu sector %lu: durable write %lu, found %lu%s\n", (unsigned long)writer,
                   (unsigned long)i, (unsigned long)durable[i], (unsigned long)s->number,
                   lawful ? "" : " (damaged)");
    }
    printf("writer %lu: durable through %lu (fua %lu), %lu sectors newer, %lu lost\n",
           (unsigned long)writer, (unsigned long)record->flushed, (unsigned long)record->fua,
           (unsigned long)newer, (unsigned long)lost);
    return lost;
}

int main(int argc, char** argv) {
    if (argc < 5) {
        fprintf(stderr,
                "usage: flush_writer write|acked|claim|verify TARGET RECORD WRITERS [LAST|lost]\n");
        return 2;
    }
    int record_fd = open(argv[3], O_RDWR | O_DIRECT | O_DSYNC);
    if (record_fd < 0) die(argv[3]);
    uint64_t writers = strtoull(argv[4], NULL, 10), lost = 0;
    if (!strcmp(argv[1], "verify")) {
        for (uint64_t w = 0; w < writers; ++w) lost += count_lost(argv[2], record_fd, w);
        return argc > 5 ? lost == 0 : lost != 0;
    }
    enum mode mode = !strcmp(argv[1], "claim")   ? kClaim
                     : !strcmp(argv[1], "acked") ? kAcked
                                                 : kWrite;
    uint64_t last = argc > 5 ? strtoull(argv[5], NULL, 10) : UINT64_MAX;
    for (uint64_t w = 0; w < writers; ++w) {
        pid_t child = fork();
        if (child < 0) die("fork");
        if (child == 0) run_writer(argv[2], record_fd, w, last, mode);
    }
    int failed = 0, status;
    while (wait(&status) > 0) failed |= status != 0;
    return failed;
}
