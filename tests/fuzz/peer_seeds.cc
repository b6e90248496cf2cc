// First inputs of fuzz_peer: a hello, a refusal, and messages of every type with all that they may
// have.   peer_seeds FOLDER
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>

#include "tests/unit/peer/messages.h"
#include "ublkd/peer/encode.h"

namespace {

using namespace ublkd;
using namespace ublkd::peer;
using namespace ublkd::peer::test;

constexpr std::size_t kMostBytes = 6000;  // longer ones are slow and reach nothing else
constexpr char kRepaired = 1;
constexpr char kGreeted = 2;

void write(const std::filesystem::path& file, char choice, char piece, const Bytes& frames) {
    std::ofstream out(file, std::ios::binary);
    out.put(choice).put(piece);
    out.write(reinterpret_cast<const char*>(frames.data()),
              static_cast<std::streamsize>(frames.size()));
}

template <class Header>
void append(Bytes& bytes, const Header& header) {
    bytes.insert(bytes.end(), header.begin(), header.end());
}

Bytes short_one(std::mt19937_64& random, const TypeAndKind& one, bool failed) {
    for (;;) {
        const Drawn drawn = draw(random, one.type, one.kind, failed);
        if (payload_of(drawn.message).size() > kMostBytes) continue;
        if (Bytes frame = encoded(drawn.message); frame.size() <= kMostBytes) return frame;
    }
}

}  // namespace

int main(int arguments, char** argument) {
    if (arguments != 2) {
        std::cerr << "peer_seeds FOLDER\n";
        return 2;
    }
    const std::filesystem::path folder = argument[1];
    std::filesystem::create_directories(folder);
    std::mt19937_64 random(1);
    Bytes start;
    append(start, encode(hello_of(HostId(2))));
    for (const bool failed : {false, true}) {
        unsigned number = 0;
        for (const TypeAndKind& one : all_types()) {
            const Bytes frame = short_one(random, one, failed);
            const std::string name = std::to_string(++number) + (failed ? "-failed" : "");
            write(folder / name, kRepaired | kGreeted, static_cast<char>(number), frame);
            append(start, frame);
            if (start.size() > kMostBytes) start.resize(kHelloBytes);
            append(start, encode_alive(kNewestVersion));
        }
    }
    append(start, encode(Refusal{.reason = Reason::kStopping}));
    write(folder / "stream", 0, 100, start);
    write(folder / "stream-repaired", kRepaired, 0, start);
    return 0;
}
