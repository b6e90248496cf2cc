#include "tests/unit/front_nbd/raw_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace ublkd::front::nbd::test {
namespace {

template <class T>
Bytes big_endian(T value) {
    Bytes bytes(sizeof value);
    store_be(bytes.data(), value);
    return bytes;
}

void limit_waiting(int fd) {
    const timeval limit{.tv_sec = 20, .tv_usec = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

}  // namespace

Bytes operator+(Bytes a, const Bytes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}
Bytes be16(std::uint16_t value) { return big_endian(value); }
Bytes be32(std::uint32_t value) { return big_endian(value); }
Bytes be64(std::uint64_t value) { return big_endian(value); }
Bytes text(std::string_view value) {
    Bytes bytes(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) bytes[i] = std::byte(value[i]);
    return bytes;
}
Bytes pattern(std::size_t bytes, unsigned seed) {
    Bytes made(bytes);
    for (std::size_t i = 0; i < bytes; ++i)
        made[i] = std::byte((i * 7 + (i >> 9) + seed * 101 + 1) & 0xff);
    return made;
}

Bytes option(Option option, const Bytes& data) {
    return be64(kOptionMagic) + be32(static_cast<std::uint32_t>(option)) +
           be32(static_cast<std::uint32_t>(data.size())) + data;
}
Bytes info_data(std::string_view name, std::vector<Info> infos) {
    Bytes data = be32(static_cast<std::uint32_t>(name.size())) + text(name) +
                 be16(static_cast<std::uint16_t>(infos.size()));
    for (const Info info : infos) data = std::move(data) + be16(static_cast<std::uint16_t>(info));
    return data;
}
Bytes context_data(std::string_view name, std::vector<std::string_view> queries) {
    Bytes data = be32(static_cast<std::uint32_t>(name.size())) + text(name) +
                 be32(static_cast<std::uint32_t>(queries.size()));
    for (const auto& query : queries)
        data = std::move(data) + be32(static_cast<std::uint32_t>(query.size())) + text(query);
    return data;
}
Bytes request(Command command, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
              unsigned flags) {
    return be32(kRequestMagic) + be16(static_cast<std::uint16_t>(flags)) +
           be16(static_cast<std::uint16_t>(command)) + be64(cookie) + be64(offset) + be32(length);
}

RawClient RawClient::connect_unix(const std::string& path) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    limit_waiting(fd);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0)
        << std::strerror(errno);
    return RawClient(fd);
}
RawClient RawClient::connect_tcp(std::uint16_t port) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    limit_waiting(fd);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0)
        << std::strerror(errno);
    return RawClient(fd);
}
RawClient::RawClient(RawClient&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      ssl_(std::exchange(other.ssl_, nullptr)),
      next_cookie_(other.next_cookie_) {}
RawClient& RawClient::operator=(RawClient&& other) noexcept {
    if (this != &other) {
        close();
        fd_ = std::exchange(other.fd_, -1);
        ssl_ = std::exchange(other.ssl_, nullptr);
        next_cookie_ = other.next_cookie_;
    }
    return *this;
}
RawClient::~RawClient() { close(); }

void RawClient::close() {
    SSL_free(std::exchange(ssl_, nullptr));
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}
void RawClient::reset() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close();
}

long RawClient::take(void* into, std::size_t bytes) {
    if (ssl_ == nullptr) return recv(fd_, into, bytes, 0);
    const int got = SSL_read(ssl_, into, static_cast<int>(bytes));
    if (got > 0) return got;
    return SSL_get_error(ssl_, got) == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

bool RawClient::start_tls(const io::TlsCertificates& certificates) {
    const auto answers = ask(Option::kStartTls);
    return answers.size() == 1 && answers[0].type == OptionReply::kAck &&
           shake_tls_hands(certificates);
}

bool RawClient::shake_tls_hands(const io::TlsCertificates& certificates) {
    // OpenSSL writes to a socket that is closed without MSG_NOSIGNAL; of this thread alone.
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    SSL_CTX* const ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, nullptr);
    const auto bio = [](const std::string& pem) {
        return BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
    };
    BIO* const authority_pem = bio(certificates.authorities);
    X509* const authority = PEM_read_bio_X509(authority_pem, nullptr, nullptr, nullptr);
    EXPECT_EQ(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), authority), 1);
    X509_free(authority);
    BIO_free(authority_pem);
    if (!certificates.certificate.empty()) {
        BIO* const own_pem = bio(certificates.certificate);
        BIO* const key_pem = bio(certificates.key);
        X509* const own = PEM_read_bio_X509(own_pem, nullptr, nullptr, nullptr);
        EVP_PKEY* const key = PEM_read_bio_PrivateKey(key_pem, nullptr, nullptr, nullptr);
        EXPECT_EQ(SSL_CTX_use_certificate(ctx, own), 1);
        EXPECT_EQ(SSL_CTX_use_PrivateKey(ctx, key), 1);
        X509_free(own);
        EVP_PKEY_free(key);
        BIO_free(own_pem);
        BIO_free(key_pem);
    }
    ssl_ = SSL_new(ctx);
    SSL_CTX_free(ctx);
    SSL_set_fd(ssl_, fd_);
    return SSL_connect(ssl_) == 1;
}

bool RawClient::send(const Bytes& bytes) {
    std::size_t at = 0;
    while (at < bytes.size()) {
        const auto put =
            ssl_ != nullptr
                ? SSL_write(ssl_, bytes.data() + at, static_cast<int>(bytes.size() - at))
                : ::send(fd_, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
        if (put <= 0) {
            EXPECT_NE(errno, EAGAIN) << "the server does not take what is sent";
            return false;
        }
        at += static_cast<std::size_t>(put);
    }
    return true;
}

std::optional<Bytes> RawClient::receive(std::size_t bytes) {
    Bytes got(bytes);
    std::size_t at = 0;
    while (at < bytes) {
        const long taken = take(got.data() + at, bytes - at);
        if (taken < 0) {
            EXPECT_NE(errno, EAGAIN) << "the server does not answer";
        }
        if (taken <= 0) return std::nullopt;
        at += static_cast<std::size_t>(taken);
    }
    return got;
}

bool RawClient::is_closed() {
    std::byte one;
    const long got = take(&one, 1);
    return got == 0 || (got < 0 && errno == ECONNRESET);
}
bool RawClient::drain_to_end() {
    Bytes room(65536);
    for (;;) {
        const long got = take(room.data(), room.size());
        if (got == 0 || (got < 0 && errno == ECONNRESET)) return true;
        if (got < 0) return false;
    }
}

bool RawClient::greet(std::uint32_t flags) {
    const auto greeting = receive(18);
    if (!greeting) return false;
    EXPECT_EQ(load_be<std::uint64_t>(greeting->data()), kGreetingMagic);
    EXPECT_EQ(load_be<std::uint64_t>(greeting->data() + 8), kOptionMagic);
    EXPECT_EQ(load_be<std::uint16_t>(greeting->data() + 16), kFixedNewstyle | kNoZeroes);
    return send(be32(flags));
}

std::optional<OptionAnswer> RawClient::answer() {
    const auto head = receive(20);
    if (!head) return std::nullopt;
    EXPECT_EQ(load_be<std::uint64_t>(head->data()), kOptionReplyMagic);
    OptionAnswer answer;
    answer.option = load_be<std::uint32_t>(head->data() + 8);
    answer.type = OptionReply(load_be<std::uint32_t>(head->data() + 12));
    const auto data = receive(load_be<std::uint32_t>(head->data() + 16));
    if (!data) return std::nullopt;
    answer.data = *data;
    return answer;
}

std::vector<OptionAnswer> RawClient::ask(Option asked, const Bytes& data) {
    std::vector<OptionAnswer> answers;
    if (!send(option(asked, data))) return answers;
    for (;;) {
        auto one = answer();
        if (!one) return answers;
        EXPECT_EQ(one->option, static_cast<std::uint32_t>(asked));
        answers.push_back(*one);
        const bool error = (static_cast<std::uint32_t>(one->type) & 0x80000000U) != 0;
        if (one->type == OptionReply::kAck || error) return answers;
    }
}

bool RawClient::enter(std::string_view name, bool structured, bool contexts, bool block_sizes) {
    if (!greet()) return false;
    if (structured && ask(Option::kStructuredReply).back().type != OptionReply::kAck) return false;
    if (contexts &&
        ask(Option::kSetMetaContext, context_data(name, {kAllocationContext})).size() != 2)
        return false;
    std::vector<Info> infos;
    if (block_sizes) infos.push_back(Info::kBlockSize);
    const auto answers = ask(Option::kGo, info_data(name, infos));
    return !answers.empty() && answers.back().type == OptionReply::kAck;
}

std::optional<Reply> RawClient::reply(std::size_t data_bytes) {
    const auto magic = receive(4);
    if (!magic) return std::nullopt;
    Reply reply;
    if (load_be<std::uint32_t>(magic->data()) == kSimpleReplyMagic) {
        const auto rest = receive(12);
        if (!rest) return std::nullopt;
        reply.error = NbdError(load_be<std::uint32_t>(rest->data()));
        reply.cookie = load_be<std::uint64_t>(rest->data() + 4);
        if (reply.error != NbdError::kNone || data_bytes == 0) return reply;
        const auto data = receive(data_bytes);
        if (!data) return std::nullopt;
        reply.data = *data;
        return reply;
    }
    EXPECT_EQ(load_be<std::uint32_t>(magic->data()), kStructuredReplyMagic);
    const auto rest = receive(16);
    if (!rest) return std::nullopt;
    reply.structured = true;
    reply.done = (load_be<std::uint16_t>(rest->data()) & kChunkDone) != 0;
    reply.chunk = Chunk(load_be<std::uint16_t>(rest->data() + 2));
    reply.cookie = load_be<std::uint64_t>(rest->data() + 4);
    const auto payload = receive(load_be<std::uint32_t>(rest->data() + 12));
    if (!payload) return std::nullopt;
    std::size_t skip = 0;
    if (reply.chunk == Chunk::kOffsetData) {
        reply.offset_bytes = load_be<std::uint64_t>(payload->data());
        skip = 8;
    } else if (reply.chunk == Chunk::kBlockStatus) {
        EXPECT_EQ(load_be<std::uint32_t>(payload->data()), kAllocationContextId);
        skip = 4;
    } else if (reply.chunk == Chunk::kError) {
        reply.error = NbdError(load_be<std::uint32_t>(payload->data()));
        EXPECT_EQ(load_be<std::uint16_t>(payload->data() + 4), payload->size() - 6);
        skip = 6;
    }
    reply.data.assign(payload->begin() + static_cast<std::ptrdiff_t>(skip), payload->end());
    return reply;
}

std::optional<Reply> RawClient::call(Command command, std::uint64_t offset, std::uint32_t length,
                                     const Bytes& payload, unsigned flags) {
    const std::uint64_t cookie = next_cookie_++;
    if (!send(request(command, cookie, offset, length, flags) + payload)) return std::nullopt;
    auto got = reply(command == Command::kRead ? length : 0);
    if (got) {
        EXPECT_EQ(got->cookie, cookie);
    }
    return got;
}

NbdError RawClient::write(std::uint64_t offset, const Bytes& payload, unsigned flags) {
    const auto got =
        call(Command::kWrite, offset, static_cast<std::uint32_t>(payload.size()), payload, flags);
    return got ? got->error : NbdError::kShutdown;
}

std::optional<Bytes> RawClient::read(std::uint64_t offset, std::uint32_t length) {
    const auto got = call(Command::kRead, offset, length);
    if (!got || got->error != NbdError::kNone) return std::nullopt;
    return got->data;
}

}  // namespace ublkd::front::nbd::test
