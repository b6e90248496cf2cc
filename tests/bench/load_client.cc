#include "tests/bench/load_client.h"

#include <endian.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace ublkd::bench {
namespace {

// NetworkBlockDevice/nbd doc/proto.md.
constexpr std::uint64_t kOptionMagic = 0x49484156454F5054;
constexpr std::uint64_t kServerMagic = 0x4e42444d41474943;
constexpr std::uint32_t kRequestMagic = 0x25609513;
constexpr std::uint32_t kReplyMagic = 0x67446698;
constexpr std::uint32_t kExportName = 1;
constexpr std::uint16_t kRead = 0;
constexpr std::uint16_t kWrite = 1;
constexpr std::size_t kReplyBytes = 16;
constexpr std::size_t kReceiveBytes = 4 << 20;
constexpr int kSocketBufferBytes = 4 << 20;

template <class T>
void put(std::byte* to, T value) {
    if constexpr (sizeof(T) == 2) value = htobe16(value);
    if constexpr (sizeof(T) == 4) value = htobe32(value);
    if constexpr (sizeof(T) == 8) value = htobe64(value);
    std::memcpy(to, &value, sizeof value);
}
std::uint32_t get32(const std::byte* from) {
    std::uint32_t value = 0;
    std::memcpy(&value, from, sizeof value);
    return be32toh(value);
}
std::uint64_t get64(const std::byte* from) {
    std::uint64_t value = 0;
    std::memcpy(&value, from, sizeof value);
    return be64toh(value);
}

}  // namespace

void die(const std::string& text) {
    std::fprintf(stderr, "nbd_load: %s\n", text.c_str());
    std::exit(1);
}

std::uint64_t now_ns() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(time.tv_nsec);
}

void Latencies::add(std::uint64_t nanoseconds) {
    const std::uint64_t value = std::max<std::uint64_t>(nanoseconds, 16);
    const auto power = static_cast<unsigned>(std::bit_width(value)) - 1;
    ++buckets_[power * 16 + ((value >> (power - 4)) & 15)];
    ++count_;
}

double Latencies::percentile_us(double of) const {
    auto left = static_cast<std::uint64_t>(of * static_cast<double>(count_));
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
        if (buckets_[i] > left) return static_cast<double>((16 + i % 16) << (i / 16)) / 16 / 1000;
        left -= buckets_[i];
    }
    return 0;
}

LoadClient::LoadClient(LoadOptions options)
    : options_(std::move(options)),
      slots_(options_.depth),
      payload_(options_.block_bytes),
      received_(kReceiveBytes) {
    const std::string& operation = options_.operation;
    fill_ = operation == "fill";
    writes_ = fill_ || operation == "write" || operation == "randwrite";
    random_ = operation.starts_with("rand");
    if (!writes_ && operation != "read" && operation != "randread")
        die("unknown operation " + operation);
    for (std::byte& byte : payload_) byte = static_cast<std::byte>(random_source_() | 1);
}

LoadClient::~LoadClient() {
    if (fd_ >= 0) close(fd_);
}

void LoadClient::receive_exactly(void* into, std::size_t bytes) {
    const auto got = recv(fd_, into, bytes, MSG_WAITALL);
    if (got != static_cast<ssize_t>(bytes)) die("the server closed the connection");
}

void LoadClient::send_exactly(const void* from, std::size_t bytes) {
    if (send(fd_, from, bytes, MSG_NOSIGNAL) != static_cast<ssize_t>(bytes))
        die("the server takes nothing");
}

void LoadClient::connect() {
    fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (options_.socket_path.size() >= sizeof address.sun_path) die("socket path too long");
    std::memcpy(address.sun_path, options_.socket_path.data(), options_.socket_path.size());
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        die("connect " + options_.socket_path + ": " + std::strerror(errno));
    (void)setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &kSocketBufferBytes, sizeof kSocketBufferBytes);
    (void)setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBufferBytes,
                     sizeof kSocketBufferBytes);
    (void)setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBufferBytes,
                     sizeof kSocketBufferBytes);
    std::byte greeting[18];
    receive_exactly(greeting, sizeof greeting);
    if (get64(greeting) != kServerMagic || get64(greeting + 8) != kOptionMagic)
        die("not a newstyle server");
    std::vector<std::byte> hello(4 + 16 + options_.export_name.size());
    put(hello.data(), std::uint32_t{3});  // fixed newstyle, no zeroes
    put(hello.data() + 4, kOptionMagic);
    put(hello.data() + 12, kExportName);
    put(hello.data() + 16, static_cast<std::uint32_t>(options_.export_name.size()));
    std::memcpy(hello.data() + 20, options_.export_name.data(), options_.export_name.size());
    send_exactly(hello.data(), hello.size());
    std::byte info[10];
    receive_exactly(info, sizeof info);
    const std::uint64_t size = get64(info);
    const std::uint64_t range =
        options_.range_bytes == 0 ? size : std::min(size, options_.range_bytes);
    blocks_ = range / options_.block_bytes;
    if (blocks_ == 0) die("the export is smaller than a block");
}

std::uint64_t LoadClient::next_offset() {
    const std::uint64_t block = random_ ? random_source_() % blocks_ : next_block_++ % blocks_;
    return block * options_.block_bytes;
}

void LoadClient::queue_request(std::uint32_t slot, std::uint64_t now) {
    std::byte* const header = slots_[slot].header;
    put(header, kRequestMagic);
    put(header + 4, std::uint16_t{0});
    put(header + 6, writes_ ? kWrite : kRead);
    put(header + 8, std::uint64_t{slot});
    put(header + 16, next_offset());
    put(header + 24, options_.block_bytes);
    slots_[slot].started_ns = now;
    out_.push_back(iovec{header, sizeof slots_[slot].header});
    if (writes_) out_.push_back(iovec{payload_.data(), payload_.size()});
    ++in_flight_;
}

void LoadClient::send_queued() {
    while (out_done_ < out_.size()) {
        msghdr message{};
        message.msg_iov = out_.data() + out_done_;
        message.msg_iovlen = std::min<std::size_t>(out_.size() - out_done_, 1024);
        const auto sent = sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return;
        if (sent < 0) die(std::string("send: ") + std::strerror(errno));
        auto left = static_cast<std::size_t>(sent);
        while (left > 0) {
            iovec& part = out_[out_done_];
            const std::size_t taken = std::min(left, part.iov_len);
            part.iov_base = static_cast<std::byte*>(part.iov_base) + taken;
            part.iov_len -= taken;
            left -= taken;
            if (part.iov_len == 0) ++out_done_;
        }
    }
    out_.clear();
    out_done_ = 0;
}

bool LoadClient::more_to_start(std::uint64_t now) const {
    return fill_ ? next_block_ < blocks_ : now < end_ns_;
}

/// `received_` holds what was left of a header before, and `bytes` new ones behind it.
void LoadClient::take_replies(std::uint64_t bytes, std::uint64_t now) {
    std::size_t at = 0;
    std::size_t end = received_bytes_ + bytes;
    received_bytes_ = 0;
    while (at < end) {
        if (skip_bytes_ > 0) {
            const std::uint64_t skipped = std::min<std::uint64_t>(skip_bytes_, end - at);
            skip_bytes_ -= skipped;
            at += skipped;
            continue;
        }
        if (end - at < kReplyBytes) {
            received_bytes_ = end - at;
            std::memmove(received_.data(), received_.data() + at, received_bytes_);
            return;
        }
        const std::byte* const reply = received_.data() + at;
        if (get32(reply) != kReplyMagic) die("not a simple reply");
        if (get32(reply + 4) != 0)
            die("error " + std::to_string(get32(reply + 4)) + " from the server");
        const std::uint64_t slot = get64(reply + 8);
        if (slot >= slots_.size()) die("unknown cookie");
        at += kReplyBytes;
        if (!writes_) skip_bytes_ = options_.block_bytes;
        latencies_.add(now - slots_[slot].started_ns);
        ++completed_;
        --in_flight_;
        if (more_to_start(now)) queue_request(static_cast<std::uint32_t>(slot), now);
    }
}

void LoadClient::run() {
    const std::uint64_t begin = now_ns();
    end_ns_ = begin + static_cast<std::uint64_t>(options_.seconds * 1e9);
    for (std::uint32_t slot = 0; slot < options_.depth && more_to_start(begin); ++slot)
        queue_request(slot, begin);
    send_queued();
    while (in_flight_ > 0 || skip_bytes_ > 0) {
        if (!out_.empty()) {
            pollfd waited{.fd = fd_, .events = POLLIN | POLLOUT, .revents = 0};
            (void)poll(&waited, 1, -1);
            if ((waited.revents & POLLIN) == 0) {
                send_queued();
                continue;
            }
        }
        const auto got =
            recv(fd_, received_.data() + received_bytes_, received_.size() - received_bytes_, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) die("the server closed the connection");
        take_replies(static_cast<std::uint64_t>(got), now_ns());
        send_queued();
    }
    elapsed_seconds_ = static_cast<double>(now_ns() - begin) / 1e9;
}

void LoadClient::disconnect() {
    std::byte bye[28] = {};
    put(bye, kRequestMagic);
    put(bye + 6, std::uint16_t{2});
    (void)send(fd_, bye, sizeof bye, MSG_NOSIGNAL);
}

}  // namespace ublkd::bench
