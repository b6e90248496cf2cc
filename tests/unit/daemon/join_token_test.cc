// Goal: a token is read as it was written, and nothing else is one: no part of it, none with a
// digit changed, none of another version.
#include "ublkd/daemon/join_token.h"

#include <gtest/gtest.h>

#include "ublkd/io/certificates.h"

namespace ublkd::daemon {
namespace {

JoinToken make(const std::string& address) {
    return {JoinTokenId::random(), io::random_secret(), io::random_secret(), address};
}

TEST(JoinToken, IsReadAsItWasWritten) {
    for (const char* address : {"192.0.2.1:7070", "[2001:db8::1]:7070", "127.0.0.1:1"}) {
        const JoinToken token = make(address);
        const auto read = JoinToken::parse(token.text());
        ASSERT_TRUE(read) << read.error();
        EXPECT_EQ(read->id, token.id);
        EXPECT_EQ(read->authority, token.authority);
        EXPECT_EQ(read->secret, token.secret);
        EXPECT_EQ(read->address, address);
    }
}

TEST(JoinToken, IsOneWordForAShell) {
    EXPECT_EQ(make("[2001:db8::1]:7070")
                  .text()
                  .find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-"),
              std::string::npos);
}

TEST(JoinToken, EachDigitCounts) {
    const std::string text = make("192.0.2.1:7070").text();
    for (std::size_t at = 0; at < text.size(); ++at) {
        std::string other = text;
        other[at] = other[at] == '0' ? '1' : '0';
        EXPECT_FALSE(JoinToken::parse(other)) << at;
    }
}

TEST(JoinToken, NoPartOfItIsOne) {
    const std::string text = make("192.0.2.1:7070").text();
    for (std::size_t length = 0; length < text.size(); ++length) {
        const auto read = JoinToken::parse(text.substr(0, length));
        ASSERT_FALSE(read) << length;
        EXPECT_EQ(read.error().find(text.substr(40, 20)), std::string::npos);
    }
    EXPECT_FALSE(JoinToken::parse(text + "00"));
    EXPECT_FALSE(JoinToken::parse(text + "\n"));
    EXPECT_FALSE(JoinToken::parse(make("").text()));
    EXPECT_FALSE(JoinToken::parse(make(std::string(65, '1')).text()));
}

TEST(JoinToken, AFingerprintInHexIsReadBack) {
    const io::Sha256 bytes = io::random_secret();
    EXPECT_EQ(hex_of(bytes).size(), 64u);
    EXPECT_EQ(sha256_of_hex(hex_of(bytes)), bytes);
    EXPECT_FALSE(sha256_of_hex(hex_of(bytes).substr(2)));
    EXPECT_FALSE(sha256_of_hex(hex_of(bytes) + "00"));
    EXPECT_FALSE(sha256_of_hex(std::string(64, 'g')));
}

}  // namespace
}  // namespace ublkd::daemon
