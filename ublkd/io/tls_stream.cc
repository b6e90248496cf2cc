#include "ublkd/io/tls_stream.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/io/tls_context.h"

namespace ublkd::io {
namespace {

/// Of the kernel in one call, each up to the buffer of OpenSSL. It goes on by itself through what
/// holds no data (key updates), and a client that sends only that is not to stop a reactor.
constexpr unsigned kReceivesPerCall = 4;
/// Encrypted. Beyond a record that is what TLS itself has to say, to a side that asks for ever more
/// and takes none: it is not read from.
constexpr std::size_t kMostWaiting = 32 * 1024;
constexpr unsigned kReadable = POLLIN | POLLRDHUP;

Errc code_of_alert(int alert) {
    switch (alert) {
        case SSL_AD_BAD_CERTIFICATE:
        case SSL_AD_UNSUPPORTED_CERTIFICATE:
        case SSL_AD_CERTIFICATE_REVOKED:
        case SSL_AD_CERTIFICATE_EXPIRED:
        case SSL_AD_CERTIFICATE_UNKNOWN:
        case SSL_AD_UNKNOWN_CA:
        case SSL_AD_ACCESS_DENIED:
        case SSL_AD_UNKNOWN_PSK_IDENTITY:
        case SSL_AD_CERTIFICATE_REQUIRED:
            return Errc::kNotPermitted;
        default:
            return Errc::kProtocol;
    }
}

Errc code_of_reason(int reason) {
    if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
        return code_of_alert(reason - SSL_AD_REASON_OFFSET);
    switch (reason) {
        case SSL_R_CERTIFICATE_VERIFY_FAILED:
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        case SSL_R_BINDER_DOES_NOT_VERIFY:
            return Errc::kNotPermitted;
        case SSL_R_UNEXPECTED_EOF_WHILE_READING:
            return Errc::kClosed;
        case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
            return Errc::kCorrupt;
        case ERR_R_MALLOC_FAILURE:
            return Errc::kExhausted;
        default:
            return Errc::kProtocol;
    }
}

/// One with a zero byte in it means one thing to us and another one to who takes it for a C string.
void add_name(const ASN1_IA5STRING* name, std::vector<std::string>* names) {
    const auto* const text = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name));
    std::string taken(text, static_cast<std::size_t>(ASN1_STRING_length(name)));
    if (taken.find('\0') == std::string::npos) names->push_back(std::move(taken));
}

/// The bytes of `parts`, in order, a record at a time.
class Parts {
  public:
    explicit Parts(std::span<const iovec> parts) : parts_(parts) { skip_empty(); }

    /// The next bytes, at most `most`: where they are, or, where they are in several parts, put
    /// together in `room`.
    std::span<const std::byte> next(std::size_t most, std::byte* room) const {
        if (parts_.empty()) return {};
        const std::span<const std::byte> first = rest_of_first();
        if (first.size() >= most || parts_.size() == 1)
            return first.first(std::min(most, first.size()));
        std::size_t count = 0;
        std::size_t offset = offset_;
        for (const iovec& part : parts_) {
            const std::size_t bytes = std::min(part.iov_len - offset, most - count);
            if (bytes > 0)
                std::memcpy(room + count, static_cast<const std::byte*>(part.iov_base) + offset,
                            bytes);
            count += bytes;
            offset = 0;
            if (count == most) break;
        }
        return {room, count};
    }
    /// False: there are not so many.
    bool advance(std::size_t bytes) {
        while (bytes > 0) {
            if (parts_.empty()) return false;
            const std::size_t here = std::min(bytes, rest_of_first().size());
            offset_ += here;
            bytes -= here;
            skip_empty();
        }
        return true;
    }

  private:
    std::span<const std::byte> rest_of_first() const {
        const iovec& part = parts_.front();
        return {static_cast<const std::byte*>(part.iov_base) + offset_, part.iov_len - offset_};
    }
    void skip_empty() {
        while (!parts_.empty() && parts_.front().iov_len == offset_) {
            parts_ = parts_.subspan(1);
            offset_ = 0;
        }
    }
    std::span<const iovec> parts_;
    std::size_t offset_ = 0;  // in the first one
};

}  // namespace

// ---- below: the descriptor

struct TlsStream::Source {
    static TlsStream* stream(BIO* bio) { return static_cast<TlsStream*>(BIO_get_data(bio)); }

    static int read(BIO* bio, char* into, std::size_t bytes, std::size_t* got) {
        TlsStream* const self = stream(bio);
        BIO_clear_retry_flags(bio);
        if (self->established_ && self->receives_left_-- == 0) {
            self->receives_left_ = 0;
            self->interrupted_ = true;
            BIO_set_retry_read(bio);
            return 0;
        }
        ssize_t received = 0;
        do {
            received = ::recv(self->fd_, into, bytes, MSG_DONTWAIT);
        } while (received < 0 && errno == EINTR);
        if (received > 0) {
            *got = static_cast<std::size_t>(received);
            return 1;
        }
        if (received == 0) {
            self->end_came_ = true;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            BIO_set_retry_read(bio);
        } else {
            self->receive_errno_ = errno;
        }
        return 0;
    }

    /// Takes all, always: OpenSSL cannot answer the other side's key update while a record of it
    /// waits, and would end the connection. Source: ssl3_write_bytes() of OpenSSL 3.0.
    static int write(BIO* bio, const char* from, std::size_t bytes, std::size_t* put) {
        TlsStream* const self = stream(bio);
        BIO_clear_retry_flags(bio);
        *put = bytes;
        const std::span<const char> record(from, bytes);
        const std::size_t sent = self->has_waiting() ? 0 : self->send_now(std::as_bytes(record));
        const std::span<const std::byte> rest = std::as_bytes(record.subspan(sent));
        if (self->send_errno_ == 0)
            self->waiting_.insert(self->waiting_.end(), rest.begin(), rest.end());
        return 1;
    }

    static long control(BIO* bio, int command, long, void*) {
        if (command == BIO_CTRL_EOF) return stream(bio)->end_came_ ? 1 : 0;
        return command == BIO_CTRL_FLUSH ? 1 : 0;
    }

    static BIO_METHOD* make_method() {
        BIO_METHOD* const made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ublkd");
        CHECK(made != nullptr, "OpenSSL has memory for a method");
        BIO_meth_set_read_ex(made, read);
        BIO_meth_set_write_ex(made, write);
        BIO_meth_set_ctrl(made, control);
        return made;
    }
    /// As long as the process.
    static const BIO_METHOD* method() {
        static const BIO_METHOD* const made = make_method();
        return made;
    }
};

void TlsStream::Freeing::operator()(ssl_st* ssl) const { SSL_free(ssl); }

TlsStream::TlsStream(const TlsContext& context, int fd)
    : context_(context), fd_(fd), ssl_(SSL_new(context.inside_->ctx.get())) {
    CHECK(ssl_ != nullptr, "OpenSSL has memory for a connection");
    BIO* const bio = BIO_new(Source::method());
    CHECK(bio != nullptr, "OpenSSL has memory for a connection");
    BIO_set_data(bio, this);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_.get(), bio, bio);
    SSL_set_app_data(ssl_.get(), this);
    if (context.inside_->server) {
        SSL_set_accept_state(ssl_.get());
    } else {
        SSL_set_connect_state(ssl_.get());
    }
}

TlsStream::~TlsStream() = default;

TlsStream* TlsStream::of(ssl_st* ssl) { return static_cast<TlsStream*>(SSL_get_app_data(ssl)); }

const std::vector<std::byte>* TlsStream::find_psk(std::string_view identity) {
    const TlsPskKeys& keys = context_.inside_->psk_keys;
    const auto found = keys.find(identity);
    if (found == keys.end()) return nullptr;
    psk_identity_ = found->first;
    return &found->second;
}

/// What OpenSSL says cannot be gone on with in either direction; what the kernel says of one can be
/// in the other: what came before the end is still to be read.
Error TlsStream::failure(int ssl_error, int sys_errno, const char* call) {
    if (ssl_error == SSL_ERROR_SYSCALL) {
        ERR_clear_error();
        return sys_errno != 0 ? error_from_errno(sys_errno, call) : Error{Errc::kClosed, 0, call};
    }
    const unsigned long queued = ERR_peek_last_error();  // libssl's, behind those of libcrypto
    const int reason = ERR_GET_REASON(queued);
    Error error = take_tls_error(code_of_reason(reason));
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        error.where = tls_text(X509_verify_cert_error_string(SSL_get_verify_result(ssl_.get())));
    // It has no certificate to go on with where the client names no key of ours.
    if (reason == SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM && !context_.inside_->psk_keys.empty())
        error = Error{Errc::kNotPermitted, 0, "TLS: no key that is known here"};
    receive_error_ = send_error_ = error;
    return error;
}

// ---- handshake

Result<void> TlsStream::shake_hands() {
    ERR_clear_error();
    const int done = SSL_do_handshake(ssl_.get());
    const int ssl_error = SSL_get_error(ssl_.get(), done);
    if (done != 1 && ssl_error != SSL_ERROR_WANT_READ) {
        const Error error =
            failure(ssl_error, send_errno_ != 0 ? send_errno_ : receive_errno_, "TLS handshake");
        receive_error_ = send_error_ = error;
        return fail(error);
    }
    const Result<void> flushed = flush();
    const bool waits = !flushed && flushed.error().code == Errc::kBusy;
    if (done == 1) {
        established_ = flushed.has_value();
        handshake_events_ = POLLOUT;
        return flushed;
    }
    // A side that takes nothing any more may have said why.
    handshake_events_ = waits ? POLLOUT : kReadable;
    return fail(Errc::kBusy, "TLS handshake");
}

TlsPeer tls_peer_of(const SSL* connection) {
    TlsPeer peer;
    X509* const certificate = SSL_get0_peer_certificate(connection);
    if (certificate == nullptr) return peer;
    const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
        static_cast<GENERAL_NAMES*>(
            X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
        &GENERAL_NAMES_free);
    for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
        const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
        if (name->type == GEN_URI) add_name(name->d.uniformResourceIdentifier, &peer.uris);
        if (name->type == GEN_DNS) add_name(name->d.dNSName, &peer.dns_names);
    }
    return peer;
}

bool has_certificate(const SSL* connection) {
    return SSL_get0_peer_certificate(connection) != nullptr;
}

TlsPeer TlsStream::peer() const {
    TlsPeer peer = tls_peer_of(ssl_.get());
    peer.psk_identity = psk_identity_;
    return peer;
}

// ---- in

Result<std::size_t> TlsStream::try_receive(std::span<const iovec> parts) {
    std::size_t got = 0;
    for (const iovec& part : parts) {
        std::span<std::byte> into(static_cast<std::byte*>(part.iov_base), part.iov_len);
        while (!into.empty()) {
            if (got > 0 && SSL_has_pending(ssl_.get()) == 0) return got;
            const Result<std::size_t> once = receive_once(into);
            if (!once && got == 0) return once;
            if (!once || *once == 0) return got;  // said again by the next call
            got += *once;
            into = into.subspan(*once);
        }
    }
    return got;
}

Result<std::size_t> TlsStream::receive_once(std::span<std::byte> into) {
    if (receive_error_) return fail(*receive_error_);
    interrupted_ = false;
    if (has_waiting()) (void)flush();  // an error is the next send's
    too_much_waits_ = waiting_.size() - waiting_begin_ > kMostWaiting;
    if (too_much_waits_) return fail(Errc::kBusy, "receive");
    receives_left_ = kReceivesPerCall;
    receive_errno_ = 0;
    ERR_clear_error();
    std::size_t got = 0;
    const int done = SSL_read_ex(ssl_.get(), into.data(), into.size(), &got);
    if (done == 1) {
        nothing_left_ = false;
        return got;
    }
    const int ssl_error = SSL_get_error(ssl_.get(), done);
    switch (ssl_error) {
        case SSL_ERROR_WANT_READ:
            nothing_left_ = !interrupted_;
            return fail(Errc::kBusy, "receive");
        case SSL_ERROR_ZERO_RETURN:
            end_was_told_ = true;
            return 0U;
        default:
            receive_error_ = failure(ssl_error, receive_errno_, "receive");
            return fail(*receive_error_);
    }
}

unsigned TlsStream::receive_events() const {
    if (interrupted_ || end_was_told_ || receive_error_) return 0;
    if (!too_much_waits_ && !nothing_left_ && SSL_has_pending(ssl_.get()) == 1) return 0;
    return too_much_waits_ ? POLLOUT : kReadable;
}

// ---- out

/// Bytes that the kernel took; an error is in send_errno_.
std::size_t TlsStream::send_now(std::span<const std::byte> bytes) {
    std::size_t sent = 0;
    while (sent < bytes.size() && send_errno_ == 0) {
        const ssize_t put =
            ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put >= 0) {
            sent += static_cast<std::size_t>(put);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            break;
        } else if (errno != EINTR) {
            send_errno_ = errno;
        }
    }
    return sent;
}

/// kBusy: some of what is encrypted waits.
Result<void> TlsStream::flush() {
    if (has_waiting()) {
        waiting_begin_ += send_now(std::span<const std::byte>(waiting_).subspan(waiting_begin_));
        if (waiting_begin_ == waiting_.size()) {
            waiting_.clear();
            waiting_begin_ = 0;
        }
    }
    if (send_errno_ != 0) return fail_errno(send_errno_, "send");
    if (has_waiting()) return fail(Errc::kBusy, "send");
    return {};
}

Result<std::size_t> TlsStream::try_send(std::span<const iovec> parts) {
    if (gathered_ == nullptr) gathered_.reset(new std::byte[kRecordBytes]);
    Parts rest(parts);
    std::size_t sent = 0;
    for (;;) {
        Result<void> ready = flush();
        if (ready && !rest.advance(unsent_bytes_)) ready = fail(Errc::kBusy, "send");
        if (ready) {
            sent += std::exchange(unsent_bytes_, 0);
            const std::span<const std::byte> record = rest.next(kRecordBytes, gathered_.get());
            if (record.empty()) return sent;
            ready = encrypt(record);
        }
        if (ready) continue;
        if (sent > 0) return sent;  // said again by the next call
        return fail(ready.error());
    }
}

Result<void> TlsStream::encrypt(std::span<const std::byte> record) {
    if (send_error_) return fail(*send_error_);
    ERR_clear_error();
    if (records_ >= context_.inside_->records_per_key &&
        SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
        records_ = 0;
    std::size_t put = 0;
    const int done = SSL_write_ex(ssl_.get(), record.data(), record.size(), &put);
    if (done != 1) {
        send_error_ = failure(SSL_get_error(ssl_.get(), done), send_errno_, "send");
        return fail(*send_error_);
    }
    ++records_;
    unsent_bytes_ = put;
    return {};
}

void TlsStream::say_end() noexcept {
    if (!established_ || end_said_ || send_error_) return;
    end_said_ = true;
    ERR_clear_error();
    (void)SSL_shutdown(ssl_.get());  // behind a record that waits it waits too: that is a cut
    ERR_clear_error();
}

}  // namespace ublkd::io
