/* libnbd from C: asynchronous requests on several connections, many in flight, every byte checked.
 *   libnbd_async URI SIZE
 * Writes a pattern through all connections, reads it back through other ones, then zeroes, trims
 * and asks for the map. */
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kConnections = 4, kInFlight = 64, kBlock = 65536 };

static struct nbd_handle* connections[kConnections];
static unsigned completed;
static int failed;

struct slot {
    uint64_t block; /* number of the block this request is about */
    int busy;
    int reading;
    unsigned char data[kBlock];
};
static struct slot slots[kInFlight];

static void die(const char* what) {
    fprintf(stderr, "libnbd_async: %s: %s\n", what,
            nbd_get_error() ? nbd_get_error() : strerror(errno));
    exit(1);
}

static void fill(unsigned char* data, uint64_t block) {
    for (uint64_t i = 0; i < kBlock; i += 8) {
        const uint64_t word = block * 0x9e3779b97f4a7c15u + i;
        memcpy(data + i, &word, 8);
    }
}

static int on_completion(void* opaque, int* error) {
    static unsigned char expected[kBlock];
    struct slot* slot = opaque;
    if (*error) {
        fprintf(stderr, "libnbd_async: block %lu: %s\n", (unsigned long)slot->block,
                strerror(*error));
        failed = 1;
    } else if (slot->reading) {
        fill(expected, slot->block);
        if (memcmp(expected, slot->data, kBlock) != 0) {
            fprintf(stderr, "libnbd_async: block %lu is not what was written\n",
                    (unsigned long)slot->block);
            failed = 1;
        }
    }
    slot->busy = 0;
    completed++;
    return 1; /* retire the request */
}

static struct slot* free_slot(void) {
    for (unsigned i = 0; i < kInFlight; ++i)
        if (!slots[i].busy) return &slots[i];
    return NULL;
}

/* Waits until something happened on one of the connections. */
static void turn(void) {
    struct pollfd polled[kConnections];
    for (int i = 0; i < kConnections; ++i) {
        const unsigned direction = nbd_aio_get_direction(connections[i]);
        polled[i].fd = nbd_aio_get_fd(connections[i]);
        polled[i].events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                                   (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
        polled[i].revents = 0;
    }
    if (poll(polled, kConnections, 20000) <= 0) die("poll");
    for (int i = 0; i < kConnections; ++i) {
        const unsigned direction = nbd_aio_get_direction(connections[i]);
        if ((direction & LIBNBD_AIO_DIRECTION_READ) && (polled[i].revents & (POLLIN | POLLHUP))) {
            if (nbd_aio_notify_read(connections[i]) == -1) die("notify_read");
        } else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (polled[i].revents & POLLOUT)) {
            if (nbd_aio_notify_write(connections[i]) == -1) die("notify_write");
        }
    }
}

static void pass(int reading, uint64_t blocks) {
    uint64_t next = 0;
    completed = 0;
    while (completed < blocks) {
        struct slot* slot = next < blocks ? free_slot() : NULL;
        if (slot == NULL) {
            turn();
            continue;
        }
        const nbd_completion_callback callback = {.callback = on_completion, .user_data = slot};
        struct nbd_handle* nbd = connections[(next + (reading ? 1 : 0)) % kConnections];
        slot->block = next;
        slot->busy = 1;
        slot->reading = reading;
        if (!reading) fill(slot->data, next);
        const int64_t cookie =
            reading ? nbd_aio_pread(nbd, slot->data, kBlock, next * kBlock, callback, 0)
                    : nbd_aio_pwrite(nbd, slot->data, kBlock, next * kBlock, callback, 0);
        if (cookie == -1) die(reading ? "aio_pread" : "aio_pwrite");
        next++;
    }
}

static int on_extents(void* opaque, const char* context, uint64_t offset, uint32_t* entries,
                      size_t count, int* error) {
    uint64_t* covered = opaque;
    (void)offset;
    (void)error;
    if (strcmp(context, "base:allocation") != 0) return -1;
    for (size_t i = 0; i < count; i += 2) *covered += entries[i];
    return 0;
}

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const uint64_t size = strtoull(argv[2], NULL, 10);
    for (int i = 0; i < kConnections; ++i) {
        connections[i] = nbd_create();
        if (connections[i] == NULL ||
            nbd_add_meta_context(connections[i], LIBNBD_CONTEXT_BASE_ALLOCATION) == -1)
            die("create");
        if (nbd_connect_uri(connections[i], argv[1]) == -1) die("connect");
    }
    if (nbd_get_size(connections[0]) != (int64_t)size) die("size");
    if (nbd_can_multi_conn(connections[0]) != 1) die("multi-conn is not offered");
    const uint64_t blocks = size / kBlock;
    pass(0, blocks);
    if (nbd_flush(connections[0], 0) == -1) die("flush");
    pass(1, blocks);
    if (nbd_zero(connections[0], kBlock, 0, LIBNBD_CMD_FLAG_FUA) == -1) die("zero");
    if (nbd_trim(connections[1], kBlock, kBlock, 0) == -1) die("trim");
    static unsigned char data[kBlock], zeroes[kBlock];
    if (nbd_pread(connections[2], data, kBlock, 0, 0) == -1 || memcmp(data, zeroes, kBlock) != 0)
        die("read zeroes");
    uint64_t covered = 0;
    const nbd_extent_callback extents = {.callback = on_extents, .user_data = &covered};
    if (nbd_block_status(connections[3], 4 * kBlock, 0, extents, 0) == -1) die("block_status");
    if (covered == 0 || covered > 4 * kBlock) die("extents");
    for (int i = 0; i < kConnections; ++i) {
        if (nbd_shutdown(connections[i], 0) == -1) die("shutdown");
        nbd_close(connections[i]);
    }
    return failed;
}
