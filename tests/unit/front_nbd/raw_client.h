// An NBD client that says exactly what it is told to, right or wrong, over a blocking socket. Every
// receive has a time limit of 20 seconds, so that a server that does not answer is a failed test
// and not a hung one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/front/nbd/protocol.h"
#include "ublkd/io/tls.h"

struct ssl_st;

namespace ublkd::front::nbd::test {

using Bytes = std::vector<std::byte>;

Bytes operator+(Bytes a, const Bytes& b);
Bytes be16(std::uint16_t value);
Bytes be32(std::uint32_t value);
Bytes be64(std::uint64_t value);
Bytes text(std::string_view value);
/// A pattern that differs from one `seed` to the next.
Bytes pattern(std::size_t bytes, unsigned seed);

/// The bytes of one option.
Bytes option(Option option, const Bytes& data = {});
/// The data of INFO and GO.
Bytes info_data(std::string_view name, std::vector<Info> infos = {});
/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
Bytes context_data(std::string_view name, std::vector<std::string_view> queries);
Bytes request(Command command, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
              unsigned flags = 0);

struct OptionAnswer {
    std::uint32_t option = 0;
    OptionReply type{};
    Bytes data;
};

struct Reply {
    bool structured = false;
    bool done = true;
    Chunk chunk = Chunk::kNone;
    std::uint64_t cookie = 0;
    NbdError error = NbdError::kNone;
    Bytes data;                      // payload of READ or the descriptors of BLOCK_STATUS
    std::uint64_t offset_bytes = 0;  // of an OFFSET_DATA chunk
};

class RawClient {
  public:
    static RawClient connect_unix(const std::string& path);
    static RawClient connect_tcp(std::uint16_t port);
    explicit RawClient(int fd) : fd_(fd) {}
    RawClient(RawClient&& other) noexcept;
    RawClient& operator=(RawClient&& other) noexcept;
    ~RawClient();

    /// STARTTLS, and TLS by OpenSSL's own blocking calls; from then on all goes through it. The
    /// server's certificate is verified, ours shown where there is one. False: refused.
    bool start_tls(const io::TlsCertificates& certificates);
    /// The second half of it.
    bool shake_tls_hands(const io::TlsCertificates& certificates);
    /// False where the server has closed.
    bool send(const Bytes& bytes);
    /// nullopt: the server has closed (or the time limit passed, which is a test failure).
    std::optional<Bytes> receive(std::size_t bytes);
    /// True where the server closes without another byte.
    bool is_closed();
    /// Takes what the server still sends, until it closes. False where it does not.
    bool drain_to_end();

    /// Greeting and client flags.
    bool greet(std::uint32_t flags = kFixedNewstyle | kNoZeroes);
    std::optional<OptionAnswer> answer();
    /// Sends the option and takes answers up to the one that ends it (ACK or an error).
    std::vector<OptionAnswer> ask(Option option, const Bytes& data = {});
    /// greet() and GO, with structured replies and base:allocation where asked for.
    bool enter(std::string_view name, bool structured = false, bool contexts = false,
               bool block_sizes = false);

    /// Takes one reply. `data_bytes`: the payload of a simple reply to a READ that succeeds.
    std::optional<Reply> reply(std::size_t data_bytes = 0);
    /// Sends one request and takes its reply.
    std::optional<Reply> call(Command command, std::uint64_t offset, std::uint32_t length,
                              const Bytes& payload = {}, unsigned flags = 0);
    NbdError write(std::uint64_t offset, const Bytes& payload, unsigned flags = 0);
    std::optional<Bytes> read(std::uint64_t offset, std::uint32_t length);

    /// Closes with a reset (TCP) instead of an orderly end.
    void reset();
    void close();
    int fd() const { return fd_; }

  private:
    long take(void* into, std::size_t bytes);

    int fd_ = -1;
    ssl_st* ssl_ = nullptr;
    std::uint64_t next_cookie_ = 1;
};

}  // namespace ublkd::front::nbd::test
