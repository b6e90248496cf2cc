// Puts a mixed load on a volume and writes down what it did and saw: several clients, each one
// connection with several requests under way; reads, writes of 512 bytes to 64 KiB (some with FUA),
// writes of zeroes, discards, flushes, half of them in a few hot sectors. A client whose connection
// dies leaves its requests without an end, connects again (to the next URI), and goes on under the
// same writer number. At the end everything is read once through each URI. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ublkd::history {

struct LoadOptions {
    std::vector<std::string> uris;  // client i begins with uris[i modulo their number]
    std::string history_path;
    unsigned clients = 4;
    unsigned depth = 8;  // requests under way of each client
    double seconds = 5;
    std::uint64_t sectors = 2048;    // used of the volume, from its start
    std::uint32_t first_writer = 1;  // clients and last readers take numbers from here on
    double give_up_seconds = 0;      // a client reconnects where a request takes longer; 0: never
    unsigned reads = 40;             // of 100 operations
    std::uint64_t seed = 1;
};

struct LoadResult {
    std::uint64_t begun = 0;
    std::uint64_t answered = 0;
    std::uint64_t connections = 0;  // that were made
    bool all_read_at_the_end = false;
};

/// Fails by ending the process with a message where the history cannot be written.
LoadResult run_load(const LoadOptions& options);

}  // namespace ublkd::history
