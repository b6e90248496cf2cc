// TLS of one socket: records in and out of its descriptor, without waiting. Socket is its one user,
// and says what all of this means to others.
//
// A record that the kernel did not take whole is kept here, encrypted, and its bytes are not
// counted as sent: who sends them again gets them counted once the record is gone. So little waits
// here (a record, and answers of TLS itself), and nothing is pushed behind the caller's back.
// Owner: a Socket, on its reactor's thread. Source: SSL_read(3ssl), SSL_write(3ssl),
// SSL_get_error(3ssl).
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/io/tls.h"

struct bio_st;
struct ssl_st;

namespace ublkd::io {

class TlsStream {
  public:
    TlsStream(const TlsContext& context, int fd);
    TlsStream(const TlsStream&) = delete;
    TlsStream& operator=(const TlsStream&) = delete;
    ~TlsStream();

    /// kBusy: again after handshake_events().
    Result<void> shake_hands();
    unsigned handshake_events() const { return handshake_events_; }
    TlsPeer peer() const;

    /// As Socket's.
    Result<std::size_t> try_receive(std::span<const iovec> parts);
    Result<std::size_t> try_send(std::span<const iovec> parts);
    /// What to poll for after kBusy, or 0: again at once, some bytes are here already.
    unsigned receive_events() const;
    /// What was received is not all: others get their turn before it goes on.
    bool is_interrupted() const { return interrupted_; }
    /// Tells the other side that this is the end, where that can still be told.
    void say_end() noexcept;

    /// For tls.cc.
    static TlsStream* of(ssl_st* ssl);
    const std::vector<std::byte>* find_psk(std::string_view identity);

  private:
    static constexpr std::size_t kRecordBytes = 16 * 1024;

    struct Freeing {
        void operator()(ssl_st* ssl) const;
    };
    struct Source;  // BIO callbacks

    Result<std::size_t> receive_once(std::span<std::byte> into);
    Result<void> encrypt(std::span<const std::byte> record);
    std::size_t send_now(std::span<const std::byte> bytes);
    Result<void> flush();
    bool has_waiting() const { return waiting_begin_ != waiting_.size(); }
    Error failure(int ssl_error, int sys_errno, const char* call);

    const TlsContext context_;
    const int fd_;
    std::unique_ptr<ssl_st, Freeing> ssl_;
    std::string psk_identity_;
    unsigned handshake_events_ = 0;
    bool established_ = false;
    bool end_said_ = false;

    // in
    unsigned receives_left_ = 0;  // of this call
    bool interrupted_ = false;
    bool nothing_left_ = false;  // no whole record is here
    bool too_much_waits_ = false;
    bool end_came_ = false;      // of the bytes below
    bool end_was_told_ = false;  // by the other side, in order
    int receive_errno_ = 0;
    std::optional<Error> receive_error_;

    // out
    std::unique_ptr<std::byte[]> gathered_;
    std::vector<std::byte> waiting_;  // encrypted
    std::size_t waiting_begin_ = 0;
    std::size_t unsent_bytes_ = 0;  // of the caller's, in the last record: not yet said to be sent
    std::uint64_t records_ = 0;     // with this key
    int send_errno_ = 0;
    std::optional<Error> send_error_;
};

}  // namespace ublkd::io
